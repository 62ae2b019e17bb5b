"""Several lines, one close: what joins, what never does, and what the one row then says."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.logs import joining
from analyzer.logs.catalogue import Catalogue
from analyzer.logs.format import Format
from analyzer.logs.reader import LogReader
from analyzer.logs.timestamp import Clock

SECOND = 1_000_000_000
START_S = int(dt.datetime(2026, 11, 21, 10, 0, tzinfo=dt.UTC).timestamp())

MORE = r"(?: id=(?P<id>\w+))?(?: peer=(?P<peer>\S+))?(?: path=(?P<path>\S+))?(?: \"(?P<reason>[^\"\n]{0,200})\")?"
SERVER = {"endpoint": "server"}


def make_format(name, patterns, **more):
    head = {"id": name, "title": name, "source": "https://example.org", "rule": "As the tests have it."}
    return Format(head | more | {"pattern": patterns, "sample": [{"line": "x"}], "reject": [{"line": "y"}]}, name)


ECHO = make_format(
    "echo",
    {
        "got": {
            "find": ["echo got "],
            "regex": rf"echo got (?P<code>\d{{4}}){MORE}",
            "means": "received",
            "role": "got",
        }
        | SERVER,
        "frame": {"find": ["echo "], "regex": rf"echo << (?P<code>\d{{4}}){MORE}", "means": "frame", "role": "frame"}
        | SERVER,
        "sent": {"find": ["echo sent "], "regex": rf"echo sent (?P<sent_code>\d{{4}}){MORE}", "role": "sent"} | SERVER,
        "none": {"find": ["echo lost"], "regex": rf"echo lost{MORE}", "means": "none", "role": "end"} | SERVER,
        "done": {
            "find": ["echo done"],
            "regex": rf"echo done(?: after (?P<duration_s>[\d.]+))?{MORE}",
            "role": "done",
            "end": "fin",
        },
        "refused": {
            "find": ["echo refused"],
            "regex": r"echo refused(?: peer=(?P<peer>\S+))?",
            "drop": True,
            "cancels": ["done", "end"],
        },
    },
)
SLOW = make_format(
    "slow",
    {
        "got": {
            "find": ["slow got "],
            "regex": rf"slow got (?P<code>\d{{4}}){MORE}",
            "means": "received",
            "role": "got",
        },
        "sent": {"find": ["slow sent "], "regex": rf"slow sent (?P<sent_code>\d{{4}}){MORE}", "role": "sent"},
        "done": {"find": ["slow done"], "regex": rf"slow done{MORE}", "role": "done"},
    },
    window_s=10,
)
PLAIN = make_format(
    "plain",
    {
        "bye": {"find": ["plain bye "], "regex": rf"plain bye (?P<code>\d{{4}}){MORE}", "means": "rfc"} | SERVER,
        "dial": {
            "find": ["plain dial "],
            "regex": rf"plain dial (?P<code>\d{{4}}){MORE}",
            "means": "rfc",
            "endpoint": "client",
        },
        "tunnel": {
            "find": ["plain tunnel"],
            "regex": r"plain tunnel(?: up=(?P<server>\S+))?",
            "endpoint": "proxy",
        },
        "error": {"find": ["plain.Closed"], "regex": r"plain\.Closed(?:Error)?: (?P<code>\d{4})", "means": "rfc"}
        | SERVER,
        "sent": {"find": ["plain sent "], "regex": rf"plain sent (?P<sent_code>\d{{4}}){MORE}"} | SERVER,
    },
)
CATALOGUE = Catalogue([ECHO, SLOW, PLAIN])


def stamp(seconds):
    return f"{dt.datetime.fromtimestamp(START_S + seconds, dt.UTC):%Y-%m-%d %H:%M:%S.%f}"


def timed(*lines):
    """Lines, each behind its second: `0.5 plain bye 1000`; a line that begins with a blank or a letter has none."""
    out = []
    for line in lines:
        first, _, rest = line.partition(" ")
        out.append(f"{stamp(float(first))} {rest}" if first[:1].isdigit() else line)
    return "\n".join(out)


def read(*lines, **more):
    reader = LogReader(CATALOGUE, Clock(newest_ns=2 * START_S * SECOND), "test", **more)
    rows = [*reader.feed(f"{timed(*lines)}\n".encode()).rows(), *reader.finish().rows()]
    assert len(rows) + reader.n_joined == sum(row["lines"] for row in rows)
    return rows


def counts(*lines, **more):
    return [row["lines"] for row in read(*lines, **more)]


# ---- what joins

A, B = "peer=10.0.0.1:1111", "peer=10.0.0.2:2222"

JOINED = {
    "an id": ["0 plain bye 1001 id=a", "1 plain bye 1001 id=a"],
    "an id, without times": ["plain bye 1001 id=a", "noise", "plain bye 1001 id=a"],
    "a peer": [f"0 plain bye 1001 {A}", f"1 plain bye 1001 {A}"],
    "a peer of IPv6": ["0 plain bye 1001 peer=[2001:db8::1]:80", "1 plain bye 1001 peer=[2001:db8::1]:80"],
    "a peer across systems": [f"0 plain bye 1001 {A}", f"1 echo got 1001 {A}"],
    "a peer, others between": [f"0 plain bye 1001 {A}", f"0.1 plain bye 1000 {B}", f"2 plain bye 1001 {A}"],
    "a traceback": [
        "0 plain.Closed: 1001",
        "Traceback (most recent call last):",
        "  File x",
        "plain.ClosedError: 1001",
    ],
    "a traceback of two": [
        "0 request failed",
        "Traceback (most recent call last):",
        "plain.Closed: 1001",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "plain.Closed: 1001",
    ],
    "a role": ["0 echo got 1001", "0.5 echo sent 1001"],
    "a role that follows": ["0 echo sent 1001", "1 echo done"],
    "a role, without times": ["echo got 1001", "echo done"],
    "a role of three": ["0 echo got 1001", "0.5 echo sent 1001", "1 echo done after 5"],
    "a longer window, for an answer": ["0 slow sent 1001", "9.9 slow done"],
    "own code printed again": [f"0 plain sent 1001 {A}", f"1 plain bye 1001 {A}"],
}


@pytest.mark.parametrize("name", JOINED)
def test_one_close(name):
    lines = JOINED[name]
    n = sum("plain" in line or "echo" in line or "slow" in line for line in lines)
    assert sorted(counts(*lines))[-1] >= 2
    assert sum(counts(*lines)) == n
    assert len(read(*lines)) == (2 if "others" in name else 1)


@pytest.mark.parametrize("name", JOINED)
def test_without_dedupe_each_line_is_a_row(name):
    rows = read(*JOINED[name], dedupe=False)
    assert len(rows) == sum("plain" in line or "echo" in line or "slow" in line for line in JOINED[name])
    assert {row["lines"] for row in rows} == {1}


APART = {
    "the same words, without times": ["plain bye 1001", "plain bye 1001"],
    "the same words and time": ["0 plain bye 1001", "0 plain bye 1001"],
    "the same reason": ['0 plain bye 1001 "bye"', '0 plain bye 1001 "bye"'],
    "different codes of a peer": [f"0 plain bye 1001 {A}", f"0 plain bye 1000 {A}"],
    "different codes of an id": ["0 plain bye 1001 id=a", "0 plain bye 1000 id=a"],
    "different codes sent": [f"0 plain sent 1001 {A}", f"0 plain sent 1000 {A}"],
    "different sides": [f"0 plain bye 1001 id=a {A}", f"0 plain dial 1001 id=a {B}"],
    "different peers": [f"0 plain bye 1001 {A}", f"0 plain bye 1001 {B}"],
    "different peers, with roles": [f"0 echo got 1001 {A}", f"0 echo sent 1001 {B}"],
    "different ids, with roles": ["0 echo got 1001 id=a", "0 echo sent 1001 id=b"],
    "different paths, with roles": ["0 echo got 1001 path=/a", "0 echo sent 1001 path=/b"],
    "different systems": ["0 echo got 1001", "0 slow done"],
    "different systems with one id": ["0 echo got 1001 id=a", "0 slow got 1001 id=a"],
    "the same role": ["0 echo got 1001", "0 echo got 1001"],
    "beyond the window": [f"0 plain bye 1001 {A}", f"2.1 plain bye 1001 {A}"],
    "beyond the window, by role": ["0 echo got 1001", "2.1 echo done"],
    "beyond the longer window": ["0 slow sent 1001", "10.1 slow done"],
    "a longer window, but nothing is waited for": ["0 slow got 1001", "2.1 slow done"],
    "200 lines on": ["plain bye 1001 id=a", *["noise"] * 200, "plain bye 1001 id=a"],
    "an address without a port": ["0 plain bye 1001 peer=10.0.0.1", "0 plain bye 1001 peer=10.0.0.1"],
    "IPv6 without a port": ["0 plain bye 1001 peer=2001:db8::1", "0 plain bye 1001 peer=2001:db8::1"],
    "IPv6 that looks like a port": ["0 plain bye 1001 peer=::1", "0 plain bye 1001 peer=::1"],
    "a traceback that ended": ["0 plain.Closed: 1001", "  File x", "0.1 next", "plain.Closed: 1001"],
    "two clients of one server": ["0 plain dial 1001 peer=10.0.0.9:443", "0 plain dial 1001 peer=10.0.0.9:443"],
    "two tunnels to one server": ["0 plain tunnel up=10.0.0.9:443", "0 plain tunnel up=10.0.0.9:443"],
}


@pytest.mark.parametrize("name", APART)
def test_two_closes(name):
    assert counts(*APART[name]) == [1, 1]


def test_the_edges_of_the_windows_belong_to_them():
    assert counts(f"0 plain bye 1001 {A}", f"2 plain bye 1001 {A}") == [2]
    assert counts("plain bye 1001 id=a", *["noise"] * 199, "plain bye 1001 id=a") == [2]
    assert counts(f"2 plain bye 1001 {A}", f"0.5 plain bye 1001 {A}") == [2]  # lines of threads change places


def test_a_window_begins_with_the_first_line_of_its_row():
    assert counts(f"0 plain bye 1001 {A}", f"1.5 plain bye 1001 {A}", f"3 plain bye 1001 {A}") == [2, 1]


def test_roles_of_two_connections_side_by_side():
    rows = read(
        f"0 echo got 1001 {A}",
        f"0.1 echo got 1000 {B}",
        f"0.2 echo sent 1000 {B}",
        f"0.3 echo sent 1001 {A}",
        "1 echo done",
    )
    assert [(row["wire_code"], row["sent_code"], row["client"]) for row in rows] == [
        (1001, 1001, "10.0.0.1:1111"),
        (1000, 1000, "10.0.0.2:2222"),
    ]
    assert sorted(row["lines"] for row in rows) == [2, 3]


def test_where_more_than_one_could_be_meant_the_line_adds_no_peer():
    rows = read("0 echo got 1001 id=a", "0.1 echo got 1001 id=b", f"0.2 echo done after 5 {A}")
    assert [(row["lines"], row["duration_s"], row["client"]) for row in rows] == [(2, None, None), (1, None, None)]


def test_an_echo_goes_to_the_close_that_it_echoes():
    rows = read("0 echo got 1000 id=a", "0.1 echo got 1001 id=b", "0.2 echo sent 1001")
    assert [(row["wire_code"], row["sent_code"]) for row in rows] == [(1000, None), (1001, 1001)]


# ---- what the row says


def test_facts_of_all_lines_are_kept():
    (row,) = read(
        '0.5 echo got 1001 id=a "going"', "0.6 echo sent 1001 id=a path=/ws", f"0.7 echo done after 12.5 id=a {A}"
    )
    assert {name: row[name] for name in ("code", "provenance", "received", "wire_code", "sent", "sent_code")} == {
        "code": 1001,
        "provenance": "reported",
        "received": "status",
        "wire_code": 1001,
        "sent": "status",
        "sent_code": 1001,
    }
    assert (row["reason"], row["path"], row["client"]) == ("going", "/ws", "10.0.0.1:1111")
    assert (row["duration_s"], row["end"], row["endpoint"]) == (12.5, "fin", "server")
    assert (row["initiator"], row["lines"], row["record"]) == ("client", 3, 1)
    assert row["time"] == START_S * SECOND + 500_000_000


@pytest.mark.parametrize(
    ("lines", "provenance", "record", "reason"),
    [
        ([f'0 echo << 1001 {A} "wire"', f'0 plain bye 1001 {A} "said"'], "wire", 1, "wire"),
        ([f'0 plain bye 1001 {A} "said"', f'1 echo << 1001 {A} "wire"'], "wire", 2, "wire"),
        ([f'0 plain bye 1001 {A} "said"', f"1 echo << 1001 {A}"], "wire", 2, "said"),
        ([f'0 plain bye 1001 {A} "first"', f'1 plain bye 1001 {A} "second"'], "reported", 1, "first"),
        ([f"0 plain bye 1001 {A}", f'1 plain bye 1001 {A} "second"'], "reported", 1, "second"),
        ([f'0 plain sent 1011 {A} "mine"', f"1 echo lost {A}"], "synthesized", 2, "mine"),
    ],
)
def test_the_stronger_word_goes_first(lines, provenance, record, reason):
    (row,) = read(*lines)
    assert (row["provenance"], row["record"], row["reason"], row["lines"]) == (provenance, record, reason, 2)
    assert row["time"] == START_S * SECOND


@pytest.mark.parametrize(
    ("lines", "initiator"),
    [
        (["0 echo got 1001", "1 echo sent 1001"], "client"),
        (["0 echo sent 1001", "1 echo got 1001"], "server"),
        (["0 echo sent 1001", "1 echo lost"], "server"),
        (["0 echo sent 1002", "1 echo got 1002"], "unknown"),  # sent because of what came in, whatever came next
        (["0 echo got 1001", "1 echo done"], "unknown"),
        (["0 echo lost"], "unknown"),
    ],
)
def test_whose_close_was_first_follows_from_the_order(lines, initiator):
    (row,) = read(*lines)
    assert row["initiator"] == initiator


def test_sent_and_lost_is_1006_with_what_was_sent():
    (row,) = read("0 echo sent 1011", "1 echo lost")
    assert (row["code"], row["provenance"], row["received"]) == (1006, "synthesized", "none")
    assert (row["sent"], row["sent_code"]) == ("status", 1011)


def test_the_earliest_time_and_the_strongest_line():
    (row,) = read(f"1 plain sent 1001 {A}", f"0.5 echo << 1001 {A}")
    assert (row["time"], row["record"]) == (START_S * SECOND + 500_000_000, 2)


def test_a_traceback_takes_the_time_of_its_first_line():
    (row,) = read("7 request failed", "Traceback (most recent call last):", "  File x", "plain.Closed: 1001")
    assert (row["time"], row["record"]) == ((START_S + 7) * SECOND, 4)


# ---- handshakes that failed


@pytest.mark.parametrize(
    ("lines", "n"),
    [
        (["0 echo refused"], 0),
        (["0 echo refused", "0.1 echo done"], 0),
        (["0 echo refused", "0.1 echo lost", "0.2 echo done"], 0),
        (["echo refused", "echo done"], 0),
        (["0 echo refused", "0.1 echo done", "0.2 echo done"], 1),
        (["0 echo refused", "0 echo refused", "0.1 echo done", "0.2 echo done"], 0),
        (["0 echo refused", "0.1 echo got 1001"], 1),
        (["0 echo refused", "2.1 echo done"], 1),
        (["echo refused", *["noise"] * 200, "echo done"], 1),
        (["0 echo refused", "0.1 slow done"], 1),
        ([f"0 echo refused {A}", f"0.1 echo done {A}"], 0),
        ([f"0 echo refused {A}", f"0.1 echo done {B}"], 1),
        ([f"0 echo refused {A}", "0.1 echo done"], 0),
        (["0 echo done", "0.1 echo refused"], 1),
    ],
)
@pytest.mark.parametrize("dedupe", [True, False])
def test_what_follows_a_refusal_is_no_close(lines, n, dedupe):
    assert len(read(*lines, dedupe=dedupe)) == n


# ---- limits and order


def test_closes_that_wait_are_bounded(monkeypatch):
    monkeypatch.setattr(joining, "MAX_WAITING", 100)
    reader = LogReader(CATALOGUE, Clock(), "test")
    lines = timed(*(f"0 plain bye 1001 id=i{i}" for i in range(1000))).encode() + b"\n"
    rows = [*reader.feed(lines).rows()]
    assert len(rows) == 900
    rows += [*reader.feed(timed("1 plain bye 1001 id=i950", "1 plain bye 1001 id=i10").encode() + b"\n").rows()]
    rows += [*reader.finish().rows()]
    assert [row["record"] for row in rows] == [*range(1, 1001), 1002]
    assert {row["record"]: row["lines"] for row in rows if row["lines"] > 1} == {951: 2}


def test_roles_that_wait_are_bounded(monkeypatch):
    monkeypatch.setattr(joining, "MAX_OPEN", 10)
    rows = read(*(f"0 echo got 1001 id=i{i}" for i in range(30)), *["0.5 echo done"] * 30)
    assert len(rows) == 30 + 20
    assert sum(row["lines"] for row in rows) == 60


@pytest.mark.parametrize(("most", "expected"), [(4, [1, 1, 1, 2]), (3, [1, 1, 1, 1, 1])])
def test_rows_that_are_looked_at_for_a_line_are_bounded(most, expected, monkeypatch):
    monkeypatch.setattr(joining, "MAX_TRIED", most)
    assert counts(*(f"0 echo got 1001 path=/{i}" for i in range(4)), "0.5 echo done path=/3") == expected


def test_many_waiting_lines_take_no_quadratic_time():
    n = 20_000
    rows = read(*(f"{i / n:.6f} echo got 1001 path=/{i}" for i in range(n)), *["1 echo done path=/none"] * 2_000)
    assert len(rows) == n + 2_000


def test_rows_leave_once_nothing_can_join_them():
    reader = LogReader(CATALOGUE, Clock(), "test")
    assert len(reader.feed(timed(f"0 plain bye 1001 {A}", "").encode())) == 0
    assert len(reader.feed(timed(f"2 plain bye 1001 {B}", "").encode())) == 0
    assert len(reader.feed(timed("2.1 plain bye 1001 id=a", "").encode())) == 1
    assert len(reader.rest()) == 2
    assert len(reader.finish()) == 0


STATEMENTS = st.builds(
    lambda gap, what, code, id_, peer: (gap, f"{what} {code}".strip() + id_ + peer),
    st.sampled_from([0, 0, 0.1, 0.7, 3]),
    st.sampled_from(["plain bye", "plain sent", "echo got", "echo sent", "echo <<", "slow got", "plain dial"]),
    st.sampled_from([1000, 1001, 1005, 1006, 4000]),
    st.sampled_from(["", " id=a", " id=b"]),
    st.sampled_from(["", f" {A}", f" {B}", " peer=::1"]),
)


@given(st.lists(STATEMENTS, max_size=30), st.booleans(), st.integers(1, 60))
def test_every_statement_is_counted_once_in_the_order_of_lines(statements, has_times, step):
    seconds = 0.0
    lines = []
    for gap, text in statements:
        seconds += gap
        lines.append(f"{seconds:.1f} {text}" if has_times else text)
    data = timed(*lines).encode()
    reader = LogReader(CATALOGUE, Clock(), "test")
    rows = []
    for begin in range(0, len(data), step):
        rows += reader.feed(data[begin : begin + step]).rows()
    rows += reader.finish().rows()
    assert len(rows) + reader.n_joined == sum(row["lines"] for row in rows) == len(statements)
    if all(row["lines"] == 1 for row in rows):
        assert [row["record"] for row in rows] == list(range(1, len(statements) + 1))
    assert rows == read(*lines) or not has_times  # a piece more or less makes no difference
    single = read(*lines, dedupe=False)
    assert [row["record"] for row in single] == list(range(1, len(statements) + 1))
    for row in rows:
        assert (row["code"] is None) == (row["provenance"] == "undetermined")
