"""Filters on closes: what passes, and that nonsense is refused with a word of help."""

import datetime as dt

import pytest

from analyzer.errors import UsageError
from analyzer.model import CLOSES, CONNECTIONS
from analyzer.selection import Selection, parse_codes, parse_instant, parse_step, select
from analyzer.table import Table

NS = 1_000_000_000
ROWS = [
    {"connection": "1", "host": "api.example.org:443", "code": 1006, "time": 10 * NS, "endpoint": "client"},
    {"connection": "1", "host": "api.example.org:443", "code": 1000, "time": 11 * NS, "endpoint": "server"},
    {"connection": "2", "host": "www.example.com", "code": 4401, "time": 20 * NS, "endpoint": "client"},
    {"connection": None, "host": None, "code": None, "time": None, "endpoint": "unknown"},
]


def passing(selection):
    closes = Table(CLOSES, {name: [row[name] for row in ROWS] for name in ROWS[0]})
    connections = Table(CONNECTIONS, {"connection": ["1", "2"]})
    kept, connections = selection.apply(closes, connections)
    return list(kept["code"]), list(connections["connection"])


@pytest.mark.parametrize(
    ("filters", "codes", "connections"),
    [
        ({}, [1006, 1000, 4401, None], ["1", "2"]),
        ({"host": "*.EXAMPLE.org:*"}, [1006, 1000], ["1"]),
        ({"host": ["nowhere", "www.example.com"]}, [4401], ["2"]),
        ({"code": 1006}, [1006], ["1"]),
        ({"code": ["4000-4999", "none"]}, [4401, None], ["2"]),
        ({"since": dt.datetime.fromtimestamp(11, dt.UTC)}, [1000, 4401], ["1", "2"]),
        ({"until": "1970-01-01T00:00:11Z"}, [1006], ["1"]),
        ({"endpoint": "client", "code": "1000-1999"}, [1006], ["1"]),
    ],
)
def test_what_passes(filters, codes, connections):
    assert passing(select(**filters)) == (codes, connections)


@pytest.mark.parametrize("with_others", [False, True], ids=["alone", "with others"])
@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({"host": "busy.example"}, True),
        ({"host": "nowhere"}, False),
        ({"since": "1970-01-01T00:00:05Z"}, True),
        ({"until": "1970-01-01T00:00:05Z"}, False),
        ({"host": "busy.example", "code": 4401}, False),
        ({"code": "none"}, False),
        ({"endpoint": "client"}, False),
        ({"provenance": "wire"}, False),
    ],
)
def test_what_nobody_has_a_view_of_passes_by_its_host_and_end_whatever_it_came_with(filters, passes, with_others):
    """A request that HTTP/2 refused has no view. Alone in its batch it passed every filter, else none."""
    closes = Table(CLOSES, {name: [row[name] for row in ROWS] for name in ROWS[0]} if with_others else {})
    columns = {"connection": ["3", "1"], "host": [None, "api.example.org:443"], "ended": [9 * NS, 11 * NS]}
    columns["sni"] = ["busy.example", None]
    connections = Table(CONNECTIONS, {name: values[: 1 + with_others] for name, values in columns.items()})
    assert ("3" in select(**filters).apply(closes, connections)[1]["connection"]) is passes


def test_provenance_passes_by_its_name():
    closes = Table(CLOSES, {"provenance": ["wire", "inferred"], "code": [1000, 1006]})
    assert list(select(provenance="inferred").apply(closes, Table(CONNECTIONS))[0]["code"]) == [1006]


def test_words_name_what_was_asked_for():
    chosen = select(host="a", code=[1006, "4000-4999", "none"], since="2026-11-20", endpoint="client")
    assert chosen.words() == {
        "host": ["a"],
        "code": ["1006", "4000-4999", "none"],
        "since": ["2026-11-20T00:00:00Z"],
        "endpoint": ["client"],
    }
    assert Selection().is_everything
    assert not chosen.is_everything


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01.5", 1_500_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59Z", -NS),
    ],
)
def test_instants(text, ns):
    assert parse_instant(text) == ns


def test_instants_take_the_zone_they_are_told():
    assert parse_instant("1970-01-01T01:00", dt.timezone(dt.timedelta(hours=1))) == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("5min", 300), ("h", 3600), ("1d", 86400), ("2w", 1209600), ("500ms", 0.5)]
)
def test_steps(text, seconds):
    assert parse_step(text) == seconds * NS


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_codes("abc"), "abc: not a close code; name one like 1006, a range like 4000-4999, or none"),
        (lambda: parse_codes("1010-1000"), "1010-1000: not a close code"),
        (lambda: parse_codes("70000"), "70000: not a close code"),
        (lambda: parse_instant("soon"), "soon: not a time; write 2026-11-20 or 2026-11-20T14:30:00Z"),
        (lambda: parse_instant(5), "5: not a time; give text or a datetime"),
        (lambda: parse_step("0s"), "0s: not a step of time"),
        (lambda: parse_step("1 month"), "1 month: not a step of time"),
        (lambda: parse_step("999999w"), "999999w: not a step of time"),
        (lambda: select(endpoint="me"), "me: no such endpoint; there are client, server, proxy, unknown"),
        (lambda: select(provenance="guess"), "guess: no such provenance"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(UsageError) as refused:
        call()
    assert str(refused.value).startswith(message)


def test_a_hostile_pattern_costs_no_time():
    selection = select(host="*a*a*a*a*a*a*a*a*a*a*b")
    closes = Table(CLOSES, {"host": ["a" * 5000], "code": [1000]})
    assert len(selection.apply(closes, Table(CONNECTIONS))[0]) == 0
