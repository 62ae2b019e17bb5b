"""Rows as columns: what passes between reading, counting and writing, without pandas.

A column is a list of plain Python values, or what kernels and NumPy leave behind: numbers with a mask, or a few
distinct values and for every row the number of its own. Whoever counts takes columns as numbers, whoever writes rows
as values; each is made when it is first asked for.
"""

import abc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from analyzer.model import Column, Rows, to_unicode

if TYPE_CHECKING:
    import pandas as pd

FLAGS_A_ROW = 16
"""Numbers are told apart by a flag each where there are no more of these; else by sorting."""

Mask = npt.NDArray[np.bool_]


class Compact(abc.ABC):
    """A column that is not a list of its values."""

    __slots__ = ()

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many rows."""

    @abc.abstractmethod
    def to_list(self) -> list[Any]:
        """The value of every row, None where it has none."""

    @abc.abstractmethod
    def take(self, indexes: Rows) -> Self:
        """These rows, in this order."""

    def to_codes(self) -> "Coded":
        """The same as few values and their numbers."""
        return Coded.of(self.to_list())


def _in_turn(a: Rows, b: Rows) -> Rows:
    return np.stack([a, b], axis=1).ravel()


class Coded(Compact):
    """A column of few values: `values` as plain Python, and `ids`, for every row the place of its value among them.

    Values may stand twice, and need not occur at all.
    """

    __slots__ = ("ids", "values")

    def __init__(self, values: Sequence[Any], ids: Rows) -> None:
        self.values = values
        self.ids = ids.astype(np.int64, copy=False)  # fields of rows are narrow: what is made of their numbers wraps

    @staticmethod
    def of(values: Iterable[Any]) -> "Coded":
        """Number the values that occur, in the order in which they first do."""
        if isinstance(values, list) and values and values.count(values[0]) == len(values):
            return Coded(values[:1], np.zeros(len(values), np.int64))  # many columns of logs say the same throughout
        numbers: defaultdict[Any, int] = defaultdict(count().__next__)
        ids = np.fromiter(map(numbers.__getitem__, values), np.int64)
        return Coded(list(numbers), ids)

    def __len__(self) -> int:
        return len(self.ids)

    def to_list(self) -> list[Any]:
        """See `Compact`."""
        return [*map(self.values.__getitem__, self.ids.tolist())]

    def take(self, indexes: Rows) -> "Coded":
        """See `Compact`."""
        return Coded(self.values, self.ids[indexes])

    def where(self, known: Mask) -> "Coded":
        """The same, None where a row has no value."""
        return Coded([*self.values, None], np.where(known, self.ids, len(self.values)))

    def alternate(self, other: "Coded") -> "Coded":
        """The rows of this column and those of another of the same length in turn."""
        if other.values is self.values:
            return Coded(self.values, _in_turn(self.ids, other.ids))
        return Coded([*self.values, *other.values], _in_turn(self.ids, other.ids + len(self.values)))

    def to_codes(self) -> "Coded":
        """See `Compact`."""
        return self

    def to_numbers(self, dtype: type[np.number[Any]]) -> "Numbers":
        """The same as numbers; every value must be one, or None."""
        known = np.array([value is not None for value in self.values], bool)
        numbers = np.array([0 if value is None else value for value in self.values], dtype)
        return Numbers(numbers[self.ids], known[self.ids])


class Numbers(Compact):
    """A column of integers or of floats: `values`, and `known`, which rows have one."""

    __slots__ = ("known", "values")

    def __init__(self, values: npt.NDArray[Any], known: Mask) -> None:
        self.values = values
        self.known = known

    @staticmethod
    def of(values: Sequence[Any], dtype: type[np.number[Any]]) -> "Numbers":
        """From plain values, None standing for unknown."""
        if None not in values:
            return Numbers(np.array(values, dtype), np.ones(len(values), bool))
        known = np.array([value is not None for value in values], bool)
        return Numbers(np.array([0 if value is None else value for value in values], dtype), known)

    def __len__(self) -> int:
        return len(self.values)

    def to_list(self) -> list[Any]:
        """See `Compact`."""
        return [value if ok else None for value, ok in zip(self.values.tolist(), self.known.tolist(), strict=True)]

    def take(self, indexes: Rows) -> "Numbers":
        """See `Compact`."""
        return Numbers(self.values[indexes], self.known[indexes])

    def alternate(self, other: "Numbers") -> "Numbers":
        """The rows of this column and those of another of the same length in turn."""
        return Numbers(_in_turn(self.values, other.values), _in_turn(self.known, other.known))

    def to_codes(self) -> Coded:
        """The distinct ones, ascending behind None."""
        values = self.values[self.known]
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if values.dtype.kind in "iu" and high - low < FLAGS_A_ROW * len(values):
            ids, distinct = _renumber(values - low, high - low + 1)
            distinct = distinct + low
        else:
            distinct, ids = np.unique(values, return_inverse=True)
        every = np.zeros(len(self.values), np.int64)
        every[self.known] = ids + 1
        return Coded([None, *distinct.tolist()], every)


class Endpoints(Compact):
    """A column of `ip:port`: addresses, most of which occur often, and ports."""

    __slots__ = ("addresses", "ports")

    def __init__(self, addresses: Coded, ports: Rows) -> None:
        self.addresses = addresses
        self.ports = ports

    def __len__(self) -> int:
        return len(self.ports)

    def to_list(self) -> list[str]:
        """See `Compact`."""
        ports = self.ports.tolist()
        return [f"{address}:{port}" for address, port in zip(self.addresses.to_list(), ports, strict=True)]

    def take(self, indexes: Rows) -> "Endpoints":
        """See `Compact`."""
        return Endpoints(self.addresses.take(indexes), self.ports[indexes])

    def to_codes(self) -> Coded:
        """Each text once."""
        pairs = combine([self.addresses, Numbers(self.ports, np.ones(len(self.ports), bool)).to_codes()])
        return Coded([f"{address}:{port}" for address, port in pairs.values], pairs.ids)


class Lazy(Compact):
    """A column of text that takes long to write: `write` gives it for the rows of these numbers."""

    __slots__ = ("rows", "write")

    def __init__(self, write: Callable[[Rows], list[Any]], rows: Rows) -> None:
        self.write = write
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def to_list(self) -> list[Any]:
        """See `Compact`."""
        return self.write(self.rows)

    def take(self, indexes: Rows) -> "Lazy":
        """See `Compact`."""
        return Lazy(self.write, self.rows[indexes])


Made = Sequence[Any] | Compact
Values = Made | Callable[[], Made]
"""A column, or what makes it when it is first asked for."""


def combine(columns: Sequence[Coded]) -> Coded:
    """Several columns of equal length as one of tuples, each of which occurs."""
    ids, n = columns[0].ids, len(columns[0].values)
    for column in columns[1:]:
        if n * len(column.values) > FLAGS_A_ROW * len(ids):
            ids, distinct = _renumber(ids, n)
            n = len(distinct)
        ids, n = ids * len(column.values) + column.ids, n * len(column.values)
    ids, distinct = _renumber(ids, n)
    rows = np.empty(len(distinct), np.int64)
    rows[ids] = np.arange(len(ids))  # any row that has it
    parts = [map(column.values.__getitem__, column.ids[rows].tolist()) for column in columns]
    return Coded([*zip(*parts, strict=True)], ids)


def _renumber(ids: Rows, n: int) -> tuple[Rows, Rows]:
    """Numbers from 0 to below `n` as numbers without gaps in the same order, and those that occur."""
    if n > FLAGS_A_ROW * len(ids):
        distinct, places = np.unique(ids, return_inverse=True)
        return places, distinct
    occurs = np.zeros(n, bool)
    occurs[ids] = True
    distinct = np.flatnonzero(occurs)
    numbers = np.empty(n, np.int64)
    numbers[distinct] = np.arange(len(distinct))
    return numbers[ids], distinct


class Table:
    """Rows of one of the three schemas as columns: plain Python values, `None` for unknown.

    Cheap to build and to walk without pandas; `to_pandas` gives the DataFrame. A column may be made only when it is
    asked for: a report needs a third of them.
    """

    def __init__(
        self, schema: Sequence[Column], columns: Mapping[str, Values] | None = None, *, n_rows: int | None = None
    ) -> None:
        """Take columns by name; one that is not given is null.

        Args:
            schema: CLOSES, CONNECTIONS or INPUTS.
            columns: Columns of equal length, or functions that make them.
            n_rows: Number of rows; needed where every column is a function.

        Raises:
            ValueError: A name is not in the schema, or the lengths differ.
        """
        self.schema = tuple(schema)
        columns = columns or {}
        unknown = columns.keys() - {c.name for c in self.schema}
        if unknown:
            raise ValueError(f"not in the schema: {', '.join(sorted(unknown))}")
        lengths = {len(values) for values in columns.values() if not callable(values)}
        lengths |= set() if n_rows is None else {n_rows}
        if len(lengths) > 1:
            raise ValueError(f"columns have different lengths: {sorted(lengths)}")
        self._n_rows = lengths.pop() if lengths else 0
        self._columns = dict(columns)
        self._lists: dict[str, Sequence[Any]] = {}
        self._coded: dict[str, Coded] = {}

    def __len__(self) -> int:
        return self._n_rows

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, columns are values: what makes them stays behind."""
        columns = {name: list(self[name]) for name in self._columns}
        return _make_table, (self.schema, columns, self._n_rows)

    def __getitem__(self, name: str) -> Sequence[Any]:
        """A column as plain values."""
        values = self._lists.get(name)
        if values is None:
            made = self._made(name)
            values = made.to_list() if isinstance(made, Compact) else made
            values = self._lists[name] = [None] * self._n_rows if values is None else values
        return values

    def coded(self, name: str) -> Coded:
        """A column as few values and their numbers."""
        column = self._coded.get(name)
        if column is None:
            made = self._made(name)
            if made is None:
                column = Coded([None], np.zeros(self._n_rows, np.int64))
            elif isinstance(made, Compact):
                column = made.to_codes()
            else:
                column = Coded.of(map(_to_key, made) if self._kind(name) == "list" else made)
            self._coded[name] = column
        return column

    def addresses(self, name: str) -> Coded:
        """A column of `ip:port` without the ports."""
        made = self._made(name)
        if isinstance(made, Endpoints):
            return made.addresses
        column = self.coded(name)
        return Coded([value and _without_port(value) for value in column.values], column.ids)

    def numbers(self, name: str) -> Numbers:
        """A column as numbers: nanoseconds of a time, seconds, counts."""
        made = self._made(name)
        if made is None:
            return Numbers(np.zeros(self._n_rows, np.int64), np.zeros(self._n_rows, bool))
        dtype = np.float64 if self._kind(name) == "float" else np.int64
        if isinstance(made, Coded):
            return made.to_numbers(dtype)
        return made if isinstance(made, Numbers) else Numbers.of(self[name], dtype)

    def _kind(self, name: str) -> str:
        return next(column.kind for column in self.schema if column.name == name)

    def _made(self, name: str) -> Made | None:
        """A column in whatever form it was given, None where it was not."""
        values = self._columns.get(name)
        if callable(values):
            values = self._columns[name] = values()
        return values

    def take(self, indexes: Sequence[int]) -> "Table":
        """These rows, in this order; a column is made when it is asked for."""
        places = np.array(indexes, np.int64)

        def column(name: str) -> Callable[[], Made]:
            def make() -> Made:
                made = self._made(name)
                if isinstance(made, Compact):
                    return made.take(places)
                return [self[name][i] for i in indexes]

            return make

        return Table(self.schema, {name: column(name) for name in self._columns}, n_rows=len(indexes))

    @staticmethod
    def concatenate(schema: Sequence[Column], tables: Sequence["Table"]) -> "Table":
        """All rows of these tables, in order."""
        columns = {c.name: [value for table in tables for value in table[c.name]] for c in schema}
        return Table(schema, columns, n_rows=sum(map(len, tables)))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dict in schema order; times as integer nanoseconds."""
        names = [c.name for c in self.schema]
        for values in zip(*(self[name] for name in names), strict=True):
            yield dict(zip(names, values, strict=True))

    def to_pandas(self) -> "pd.DataFrame":
        """The rows as a DataFrame: `Int64`/`Int32`, `float64`, `category`, `str`, `datetime64[ns, UTC]`.

        Anomalies are joined with `|` (`A|B`): lists in cells break `groupby`, CSV and Parquet.
        """
        import pandas as pd

        frame: dict[str, Any] = {}
        for column in self.schema:
            values = self[column.name]
            if column.kind == "int":
                frame[column.name] = pd.array(values, dtype="Int32" if column.name.endswith("code") else "Int64")
            elif column.kind == "float":
                frame[column.name] = pd.array(values, dtype="float64")
            elif column.kind == "time":
                # through Int64: a null among integers would turn them into floats and round the nanoseconds
                integers = pd.array(values, dtype="Int64")
                times = pd.Series(integers.to_numpy(dtype="int64", na_value=0)).astype("datetime64[ns]")
                frame[column.name] = times.where(~integers.isna()).dt.tz_localize("UTC")
            elif column.kind == "enum":
                frame[column.name] = pd.Categorical(values)
            elif column.kind == "list":
                frame[column.name] = pd.array([None if v is None else "|".join(v) for v in values], dtype="str")
            else:
                frame[column.name] = pd.array([*map(to_unicode, values)], dtype="str")
        return pd.DataFrame(frame, columns=[c.name for c in self.schema])


def _to_key(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _without_port(endpoint: str) -> str:
    """The address; logs may name no port, and write IPv6 without brackets."""
    address, colon, _ = endpoint.rpartition(":")
    return address if colon and (":" not in address or address.endswith("]")) else endpoint


def _make_table(schema: Sequence[Column], columns: dict[str, Values], n_rows: int) -> Table:
    return Table(schema, columns, n_rows=n_rows)
