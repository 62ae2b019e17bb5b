"""Rows and frequencies as Parquet, for what reads columns; needs the extra `[batch]`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from analyzer.errors import UsageError
from analyzer.model import Column, to_unicode
from analyzer.report.rows import FREQUENCY_COLUMNS
from analyzer.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_IN_GROUP = 100_000
"""Rows are gathered to groups of at least so many, as readers of Parquet like them."""


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow: pip install 'wsclose[batch]'") from error
    return pyarrow


def _type(column: Column) -> "pa.DataType":
    pyarrow = _pyarrow()
    kinds = {
        "int": pyarrow.int32() if column.name.endswith("code") else pyarrow.int64(),
        "float": pyarrow.float64(),
        "time": pyarrow.timestamp("ns", tz="UTC"),
        "enum": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "text": pyarrow.string(),
        "list": pyarrow.list_(pyarrow.string()),
    }
    return kinds[column.kind]


class ParquetRows:
    """Writes tables of one schema to one file; a context manager, since the file ends with its index."""

    def __init__(self, out: BinaryIO, schema: Sequence[Column]) -> None:
        """Begin a file.

        Raises:
            UsageError: pyarrow is not installed.

        """
        pyarrow = _pyarrow()
        self._columns = schema
        self._schema = pyarrow.schema([(column.name, _type(column)) for column in schema])
        self._writer = pyarrow.parquet.ParquetWriter(out, self._schema, compression="zstd")
        self._waiting: list[Table] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()

    def write(self, table: Table) -> None:
        """Take every row of a table; they are written in groups."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROWS_IN_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not any(map(len, self._waiting)):
            return
        pyarrow = _pyarrow()
        table = Table.concatenate(self._columns, self._waiting)
        columns = [
            pyarrow.array(
                [None if value is None else to_unicode(str(value)) for value in table[column.name]], pyarrow.string()
            ).cast(field.type)
            if column.kind in ("enum", "text")
            else pyarrow.array(table[column.name], field.type)
            for column, field in zip(self._columns, self._schema, strict=True)
        ]
        self._writer.write_table(pyarrow.Table.from_arrays(columns, schema=self._schema))
        self._waiting = []


def write_frequencies(document: dict[str, Any], out: BinaryIO) -> None:
    """Write the frequency table of a report, illegal codes included.

    Raises:
        UsageError: pyarrow is not installed.

    """
    pyarrow = _pyarrow()
    rows = [{name: row[name] for name in FREQUENCY_COLUMNS} for row in (*document["frequencies"], *document["illegal"])]
    kinds = {"code": pyarrow.int32(), "count": pyarrow.int64(), "share": pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in FREQUENCY_COLUMNS])
    plain = [{name: str(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain, schema=schema), out, compression="zstd")
