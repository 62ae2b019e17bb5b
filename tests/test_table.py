"""Columns: numbers, codes and plain values say the same, and combined ones too."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.model import CLOSES, CONNECTIONS
from analyzer.table import Coded, Endpoints, Lazy, Numbers, Table, combine

words = st.sampled_from([None, "", "a", "b", "ab"])
whole = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))


def of_lists(columns):
    return [Coded.of(column) for column in columns]


@given(st.lists(words, max_size=20))
def test_coded_values_are_the_values(values):
    column = Coded.of(values)
    assert column.to_list() == values
    assert len(column) == len(values)
    assert len(column.values) == len(set(values))
    backwards = np.arange(len(values))[::-1]
    assert column.take(backwards).to_list() == values[::-1]


def test_a_coded_row_without_a_value_is_none():
    column = Coded.of(["a", "b", "a"]).where(np.array([True, True, False]))
    assert column.to_list() == ["a", "b", None]


@given(st.lists(whole, max_size=20))
def test_numbers_are_the_values(values):
    column = Numbers.of(values, np.int64)
    assert column.to_list() == values
    assert column.to_codes().to_list() == values
    assert Coded.of(values).to_numbers(np.int64).to_list() == values
    assert column.take(np.arange(len(values))[::-1]).to_list() == values[::-1]


@given(st.lists(st.one_of(st.none(), st.integers(-5, 70)), max_size=20))
def test_small_numbers_are_told_apart_by_flags(values):
    for dtype in (np.int16, np.int64, np.float64):
        column = Numbers.of(values, dtype).to_codes()
        assert column.to_list() == values
        assert column.values == [None, *sorted({*values} - {None})]


@given(st.lists(st.tuples(words, words, st.integers(0, 3), whole), max_size=60))
def test_columns_combine_as_rows_do(rows):
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    # values that stand twice, and one that never occurs
    doubled = Coded(["never", *columns[0]], np.arange(1, len(rows) + 1))
    kinds = combine([doubled, *of_lists(columns[1:])])
    assert kinds.to_list() == rows
    assert Counter(kinds.ids.tolist()).keys() == set(range(len(kinds.values)))
    assert len(combine(of_lists(columns)).values) == len(set(rows))


def test_many_kinds_are_told_apart_by_sorting():
    n = 3000
    columns = [[(i * step) % n for i in range(n)] for step in (1, 7, 11, 13, 17)]
    kinds = combine(of_lists(columns))
    assert kinds.to_list() == list(zip(*columns, strict=True))
    assert len(kinds.values) == n


def test_numbers_that_kernels_left_in_a_narrow_field_do_not_wrap():
    kinds, codes = np.arange(10).repeat(40), np.tile(np.arange(40), 10)
    narrow = Coded(list("abcdefghij"), kinds.astype(np.int8))
    wanted = [("abcdefghij"[kind], code) for kind, code in zip(kinds.tolist(), codes.tolist(), strict=True)]
    assert combine([narrow, Coded(list(range(40)), codes)]).to_list() == wanted
    long = Coded(list(range(200)), np.zeros(400, np.int8))
    assert long.alternate(narrow).to_list()[1::2] == narrow.to_list()


def test_columns_alternate_whatever_their_values():
    ours, theirs = ["a", "b", "a"], ["c", "a", "c"]
    assert Coded.of(ours).alternate(Coded.of(theirs)).to_list() == ["a", "c", "b", "a", "a", "c"]
    same = Coded(["x", "y"], np.array([0, 1]))
    assert same.alternate(same.take(np.array([1, 0]))).to_list() == ["x", "y", "y", "x"]


def test_more_kinds_than_64_bits_tell_apart():
    """The first column's numbers, times 4096 for each of six others, are all 0 in the last 64 bits."""
    n = 4096
    first, other = (Coded(list(range(n)), ids) for ids in (np.arange(n), np.zeros(n, np.int64)))
    assert combine([first, *[other] * 6]).to_list() == [(i, *[0] * 6) for i in range(n)]


PLACES = [("10.0.0.1", 80), ("[2001:db8::1]", 443), ("10.0.0.1", 81), ("10.0.0.1", 80)]


def test_endpoints_are_addresses_and_ports():
    column = Endpoints(Coded.of(address for address, _ in PLACES), np.array([port for _, port in PLACES]))
    texts = [f"{address}:{port}" for address, port in PLACES]
    assert column.to_list() == texts
    assert column.to_codes().to_list() == texts
    assert len(column.to_codes().values) == 3
    assert column.take(np.array([2, 0])).to_list() == [texts[2], texts[0]]
    for table in (Table(CLOSES, {"client": column}), Table(CLOSES, {"client": texts})):
        assert table["client"] == texts
        assert table.coded("client").to_list() == texts
        assert table.addresses("client").to_list() == [address for address, _ in PLACES]


def test_an_address_without_a_port_is_whole():
    texts = ["192.0.2.77", "192.0.2.77:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443", "host:1", "host", None]
    addresses = Table(CLOSES, {"client": texts}).addresses("client").to_list()
    assert addresses == ["192.0.2.77"] * 2 + ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]", "host", "host", None]


def test_text_is_written_for_the_rows_that_are_asked_for():
    asked = []

    def write(rows):
        asked.extend(rows.tolist())
        return [f"row {i}" for i in rows.tolist()]

    table = Table(CLOSES, {"connection": lambda: Lazy(write, np.arange(1000))}, n_rows=1000)
    assert table.take([7, 3])["connection"] == ["row 7", "row 3"]
    assert asked == [7, 3]
    assert table.take([7, 3]).coded("connection").to_list() == ["row 7", "row 3"]
    assert table["connection"][999] == "row 999"


FORMS = {
    "values": ([3, None, 3], ["x", None, "y"], [0.5, None, 2.0]),
    "compact": (
        Numbers(np.array([3, 9, 3]), np.array([True, False, True])),
        Coded(["y", "x", None], np.array([1, 2, 0])),
        Numbers(np.array([0.5, 7.0, 2.0]), np.array([True, False, True])),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_late", [False, True])
def test_a_table_gives_a_column_in_any_form(form, is_late):
    named = dict(zip(("record", "host", "duration_s"), FORMS[form], strict=True))
    made = {name: (lambda values=values: values) for name, values in named.items()} if is_late else named
    table = Table(CLOSES, made, n_rows=3)
    for some in (table, pickle.loads(pickle.dumps(table)), table.take([0, 1, 2])):
        assert some["record"] == [3, None, 3]
        assert some["host"] == ["x", None, "y"]
        assert some["duration_s"] == [0.5, None, 2.0]
        assert some["path"] == [None] * 3
        assert [some.coded(name).to_list() for name in ("record", "host", "path")] == [
            [3, None, 3],
            ["x", None, "y"],
            [None] * 3,
        ]
        assert [some.numbers(name).to_list() for name in ("record", "duration_s", "time")] == [
            [3, None, 3],
            [0.5, None, 2.0],
            [None] * 3,
        ]
    few = table.take([2])
    assert (few["record"], few["host"], len(few)) == ([3], ["y"], 1)


def test_lists_of_names_are_coded_too():
    table = Table(CONNECTIONS, {"anomalies": [["a", "b"], [], None, ["a", "b"]]})
    assert table.coded("anomalies").to_list() == [("a", "b"), (), None, ("a", "b")]
