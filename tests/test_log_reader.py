"""A log in pieces of any size, in any encoding and of any damage gives the same rows at the same line numbers."""

import datetime as dt
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.logs import reader as reading
from analyzer.logs import scan, structured
from analyzer.logs.catalogue import Catalogue
from analyzer.logs.format import Format
from analyzer.logs.reader import LogReader
from analyzer.logs.statement import Reader
from analyzer.logs.timestamp import Clock

SECOND = 1_000_000_000


def at(hour, minute, second):
    return int(dt.datetime(2026, 11, 21, hour, minute, second, tzinfo=dt.UTC).timestamp()) * SECOND


NEWEST = at(23, 59, 59)
HEAD = {"id": "tiny", "title": "Tiny", "source": "https://example.org", "rule": "As RFC 6455 has it."}
PROOF = {"sample": [{"line": "x"}], "reject": [{"line": "y"}]}
TINY = Format(
    HEAD
    | PROOF
    | {
        "pattern": {
            "close": {
                "find": ["tiny close "],
                "regex": r"tiny close (?P<code>\d{4})(?: peer=(?P<client>\S{1,40}))?(?: (?P<reason>[^\n]{1,200}))?",
                "means": "rfc",
                "endpoint": "server",
            },
            "error": {
                "find": ["tiny.Closed"],
                "regex": r"tiny\.Closed: (?P<code>\d{4})",
                "means": "rfc",
                "endpoint": "server",
            },
        }
    },
    "test",
)
CATALOGUE = Catalogue([TINY], last=[(Reader(structured.read, "structured"), structured.LITERALS)])


def read(data, *steps, **more):
    """The reader at its end, and its rows; the bytes come in pieces of these sizes, then the rest."""
    reader = LogReader(CATALOGUE, Clock(newest_ns=NEWEST), "test", **more)
    rows = []
    for step in steps:
        rows += reader.feed(data[:step]).rows()
        data = data[step:]
    rows += reader.feed(data).rows()
    rows += reader.finish().rows()
    return reader, rows


def rows_of(data, *steps):
    return read(data, *steps)[1]


def said(rows):
    return [(row["record"], row["code"], row["reason"]) for row in rows]


LOG = b"""\
2026-11-21 10:00:00 server started
2026-11-21 10:00:01 tiny close 1000 peer=10.0.0.1:1111 done
2026-11-21 10:00:02 ERROR request failed
Traceback (most recent call last):
  File "a.py", line 7, in run
    await ws.recv()
tiny.Closed: 4001

The above exception was the direct cause of the following exception:

tiny.Closed: 4001
2026-11-21 10:00:09 idle
untimed
tiny close 4002 caf\xe9

{"time": "2026-11-21T10:00:10Z", "msg": "tiny close 4003 peer=10.0.0.2:2222 \xc3\xa9"}
2026-11-21 10:00:10 tiny close 4003 peer=10.0.0.2:2222
2026-11-21 10:00:11 {"event": "websocket closed", "closeCode": 1006, "wasClean": false}
2026-11-21 10:00:12 tiny close 1001"""

EXPECTED = [
    (2, 1000, "done", at(10, 0, 1), 1),
    (7, 4001, None, at(10, 0, 2), 2),
    (14, 4002, r"caf\xe9", at(10, 0, 9), 1),
    (16, 4003, "\xe9", at(10, 0, 10), 2),
    (18, 1006, None, at(10, 0, 11), 1),
    (19, 1001, None, at(10, 0, 12), 1),
]


def shown(rows):
    return [(row["record"], row["code"], row["reason"], row["time"], row["lines"]) for row in rows]


def test_rows_with_their_line_numbers_and_times():
    reader, rows = read(LOG)
    assert shown(rows) == EXPECTED
    assert (reader.n_lines, reader.n_joined, reader.n_long) == (19, 2, 0)
    assert (reader.first_ns, reader.last_ns) == (at(10, 0, 0), at(10, 0, 12))


# ---- chunks


@pytest.mark.parametrize("step", [1, 2, 3, 7, 33, 64, 100, 500])
def test_pieces_of_one_size(step):
    reader, rows = read(LOG, *[step] * (len(LOG) // step))
    assert shown(rows) == EXPECTED
    assert (reader.n_lines, reader.n_joined) == (19, 2)


@pytest.mark.parametrize("step", [1, 7, 40, 100, 1000])
def test_first_and_last_time_do_not_hang_on_pieces(step):
    data = b"banner\n" + LOG + b"\nuntimed\nuntimed\n"
    reader, _ = read(data, *[step] * (len(data) // step))
    assert (reader.first_ns, reader.last_ns) == (at(10, 0, 0), at(10, 0, 12))


def test_two_pieces_cut_anywhere():
    for step in range(1, len(LOG)):
        assert shown(rows_of(LOG, step)) == EXPECTED


LINES = st.sampled_from(
    [*LOG.split(b"\n"), b"\xff\xfe", b"\0", b"tiny close 1000\r", b"  tiny close 4009 x", b"Traceback (most recent:"]
)


@given(st.lists(LINES, max_size=25).map(b"\n".join), st.lists(st.integers(0, 120), max_size=30))
def test_pieces_of_any_size(data, steps):
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = b"x" + data
    whole, rows = read(data)
    parts, others = read(data, *steps)
    assert others == rows
    assert (parts.n_lines, parts.n_joined) == (whole.n_lines, whole.n_joined)
    assert whole.n_lines == data.count(b"\n") + (data[-1:] not in (b"", b"\n"))


# ---- line ends and encodings


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_ends_of_lines(end, last):
    data = end.join([b"one", b"tiny close 4001 bye", b"", b"tiny close 4002"]) + (end if last else b"")
    reader, rows = read(data)
    assert said(rows) == [(2, 4001, "bye"), (4, 4002, None)]
    assert reader.n_lines == 4


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n", b"\n\n\n", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_nothing(data):
    reader, rows = read(data)
    assert rows == []
    assert (reader.first_ns, reader.last_ns) == (None, None)


def test_bytes_that_are_no_text_are_shown():
    """Bytes of a log that was cut while it grew, of another encoding, and half a character."""
    data = b"\0\0\0\0tiny close 4001 caf\xe9 \xe2\x82 \xf0\n\0tiny close 4002 \0x\n"
    data += b"\xff\xfe\xfd tiny close 4003 \xe2\x82\xac\n"
    assert said(rows_of(data)) == [(1, 4001, r"caf\xe9 \xe2\x82 \xf0"), (2, 4002, "\0x"), (3, 4003, "€")]


def test_a_run_of_nul_bytes_hides_nothing():
    data = b"tiny close 4001 a\n" + bytes(3 << 20) + b"tiny close 4002 b\ntiny close 4003 c\n"
    for steps in ((), (1 << 20, 1 << 20)):
        reader, rows = read(data, *steps)
        assert said(rows) == [(1, 4001, "a"), (2, 4002, "b"), (3, 4003, "c")] or reader.n_long
        assert rows[-1]["record"] == 3


TEXT = "2026-11-21 10:00:00 début\r\n2026-11-21 10:00:01 tiny close 4001 à bientôt 🙂\r\n\r\ntiny close 4002\r\n"


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")],
)
def test_marks_of_an_encoding(encoding, mark):
    data = mark + TEXT.encode(encoding)
    for steps in ((), (64,), (65, 1, 1, 1), *((n,) for n in range(max(len(mark), 1), len(data)))):
        reader, rows = read(data, *steps)
        assert said(rows) == [(2, 4001, "à bientôt 🙂"), (4, 4002, None)]
        assert [row["time"] for row in rows] == [at(10, 0, 1)] * 2
        assert reader.n_lines == 4
    reader, _ = read(data)
    assert (reader.first_ns, reader.last_ns) == (at(10, 0, 0), at(10, 0, 1))


@pytest.mark.parametrize(("encoding", "mark"), [("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")])
def test_a_csv_export_of_a_spreadsheet(encoding, mark):
    table = 'time,message\r\n2026-11-21T10:00:01Z,"tiny close 4001\r\n"\r\n'
    (row,) = rows_of(mark + table.encode(encoding))
    assert (row["record"], row["code"], row["time"]) == (2, 4001, at(10, 0, 1))


def test_utf_16_cut_and_broken():
    data = (
        b"\xff\xfe" + "tiny close 4001\n".encode("utf-16-le") + b"\x00\xd8" + "x\ntiny close 4002".encode("utf-16-le")
    )
    assert [row["code"] for row in rows_of(data)] == [4001, 4002]
    assert [row["code"] for row in rows_of(data + b"\x00")] == [4001, 4002]


# ---- CSV in pieces

TABLE = (
    b"time,host,message\r\n"
    b'2026-11-21T10:00:01Z,a,"one, ""two""\r\nthree\n\n"\r\n'
    b'2026-11-21T10:00:02Z,a,"Trace\r\n  tiny close 4001 ""x"", y"\r\n'
    b"2026-11-21T10:00:03Z,a,tiny close 4002\r\n"
    b'2026-11-21T10:00:04Z,a,"tiny close 4003"'
)


def test_cells_of_several_lines_in_pieces():
    wanted = [(6, 4001, '"x", y', at(10, 0, 2)), (8, 4002, None, at(10, 0, 3)), (9, 4003, None, at(10, 0, 4))]
    for step in range(TABLE.index(b"\n") + 1, len(TABLE)):
        reader, rows = read(TABLE, step)
        assert [(row["record"], row["code"], row["reason"], row["time"]) for row in rows] == wanted
        assert reader.n_lines == 9
    for step in (20, 21, 33):
        assert [row["code"] for row in rows_of(TABLE, *[step] * 20)] == [4001, 4002, 4003]


@pytest.mark.parametrize(
    "header", [b"a,b,c", b"time;message", b"time,when", b"message,other", b'"time,message', b"message"]
)
def test_what_only_begins_like_a_table_is_read_as_lines(header):
    assert said(rows_of(header + b'\n"tiny close 4001 a\ntiny close 4002 b\n')) == [(2, 4001, "a"), (3, 4002, "b")]


def test_a_quote_that_never_ends_loses_no_close_unseen(monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 1000)
    data = b'time,message\n2026-11-21T10:00:01Z,"open\n' + b"2026-11-21T10:00:02Z,tiny close 4001\n" * 100
    for steps in ((), [100] * 50):
        reader, rows = read(data, *steps)
        assert rows or reader.n_long


# ---- long lines


def test_the_rest_of_a_line_that_is_too_long_is_skipped_and_counted(monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 1000)
    data = b"first\ntiny close 4001 a " + b"x" * 5000 + b" tiny close 4002 b\ntiny close 4003 c\nlast\n"
    reader, rows = read(data, *[100] * 40)
    assert [row["code"] for row in rows] == [4001, 4003]
    assert [row["record"] for row in rows] == [2, 3]
    assert (reader.n_long, reader.n_lines) == (1, 4)


def test_a_line_that_is_too_long_ends_with_the_log(monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 1000)
    reader, rows = read(b"one\n" + b"x" * 5000, *[300] * 20)
    assert (rows, reader.n_long, reader.n_lines) == ([], 1, 2)


@pytest.mark.parametrize("n", [16_000, 16_380, 16_384, 30_000, 100_000, 800_000])
@pytest.mark.parametrize("fill", [b"x", b"x ", b"\xe9"])
def test_a_close_far_into_a_long_line(n, fill):
    data = b"2026-11-21 10:00:01 " + (fill * n)[: n // len(fill)] + b" tiny close 4001 bye\ntiny close 4002\n"
    reader, rows = read(data)
    assert [row["code"] for row in rows] == [4001, 4002] or reader.n_long
    assert rows[-1]["record"] == 2
    assert rows[0]["time"] == at(10, 0, 1)


def test_a_line_beyond_all_pieces_is_counted_once(monkeypatch):
    monkeypatch.setattr(reading, "MAX_PIECES", 2)
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 100_000)
    data = b"x" * 200_000 + b" tiny close 4001\n"
    for steps in ((), [50_000] * 4):
        reader, rows = read(b"tiny close 1 " + data, *steps)
        assert (rows, reader.n_long) == ([], 1)


# ---- times of lines that have none


@pytest.mark.parametrize(
    ("text", "record", "time_ns"),
    [
        (
            "2026-11-21 10:00:01 failed\nTraceback (most recent call last):\n  File x\ntiny.Closed: 4001",
            4,
            at(10, 0, 1),
        ),
        ("2026-11-21 10:00:01 a\n2026-11-21 10:00:02 b\ntiny close 4001\n2026-11-21 10:00:03 c", 3, at(10, 0, 2)),
        ("tiny close 4001\n2026-11-21 10:00:03 c", 1, None),
        ("no time\ntiny close 4001", 2, None),
        (
            "2026-11-21 10:00:01 a\n" + "\tat x.y.Z(Z.java:7)\n" * 500 + "Caused by: tiny.Closed: 4001",
            502,
            at(10, 0, 1),
        ),
        ("2026-11-21 10:00:01 a\n" + "x" * 70_000 + "\ntiny close 4001", 3, None),
        ("2026-11-21 10:00:01 " + "x" * 2_000 + "\ntiny close 4001", 2, at(10, 0, 1)),
        ('{"time": "2026-11-21T10:00:05Z", "msg": "failed"}\ntiny close 4001', 2, at(10, 0, 5)),
    ],
)
@pytest.mark.parametrize("by_lines", [False, True])
def test_an_untimed_line_has_the_time_of_the_line_before_it(text, record, time_ns, by_lines):
    data = text.encode()
    steps = [len(line) for line in data.splitlines(keepends=True)] if by_lines else ()
    (row,) = rows_of(data, *steps)
    assert (row["record"], row["time"]) == (record, time_ns)


LEADS = [
    "{} tiny close 4001",
    "{},5 ERROR tiny close 4001 x",
    "[{}] tiny close 4001",
    "{}Z tiny close 4001 peer=10.0.0.1:%d",
]


@pytest.mark.parametrize("line", LEADS)
def test_lines_that_differ_in_their_time_alone_have_their_own_time(line):
    text = "\n".join(line.format(f"2026-11-21 10:00:{5 * i:02}") for i in range(5)) + "\n"
    half = 500_000_000 if ",5" in line else 0
    rows = rows_of(text.encode())
    assert [(row["record"], row["time"]) for row in rows] == [(i + 1, at(10, 0, 5 * i) + half) for i in range(5)]


def test_the_same_line_again_has_the_same_time():
    """A time with a zone, behind one without, is the better one however often it comes."""
    rows = rows_of(b"2026-11-21 10:00:00 app 2026-11-21T11:00:00+02:00 tiny close 4001 x\n" * 3)
    assert [row["time"] for row in rows] == [at(9, 0, 0)] * 3


def test_the_assumed_zone_is_remembered_only_where_a_row_takes_it():
    clock = Clock(newest_ns=NEWEST)
    reader = LogReader(CATALOGUE, clock, "test")
    reader.feed(b"2026-11-21T10:00:00Z tiny close 4001\n")
    reader.finish()
    assert not clock.assumed_zone
    reader.feed(b"2026-11-21 10:00:00 tiny close 4001\n")
    assert clock.assumed_zone


# ---- the two ways to search


def with_hyperscan(monkeypatch, use):
    monkeypatch.setattr(scan, "SMALL_BYTES", 1 if use else 1 << 60)


def test_both_searches_give_the_same_rows(monkeypatch):
    pytest.importorskip("hyperscan")
    noise = b"2026-11-21 10:00:00 GET /tiny HTTP/1.1 101 tiny clos tiny cl\xc3\xb6se TINY CLOSE 4009\n" * 12
    odd = b"WebSocket CLOSED code=1006 wasClean=false\ntiny close 4005tiny close 4006\n\ntiny close tiny close 4007\n"
    data = (noise + LOG + b"\n" + odd) * 900 + b"tiny close 4009"
    assert len(data) > scan.SMALL_BYTES
    steps = [1_000_003] * (len(data) // 1_000_003)
    results = []
    for use in (True, False):
        with_hyperscan(monkeypatch, use)
        results.append(read(data, *steps, dedupe=False)[1])
    monkeypatch.undo()
    results.append(read(data, *steps, dedupe=False)[1])  # changes from one to the other on the way
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 900 * (8 + 3) + 1


@settings(max_examples=50)
@given(
    st.lists(
        st.sampled_from([b"ab", b"b\n", b"\n", b"AB", b"aab", b"bb", b"c\xe9d", b"\0", b"tail", b"ta", b"il"]),
        max_size=40,
    )
)
def test_both_searches_find_the_same_lines(parts):
    pytest.importorskip("hyperscan")
    data = b"".join(parts)
    literals = [(b"aa", False), (b"ab", True), (b"c\xe9", False), (b"tail", False), (b"bb", True)]
    masks = [1, 2, 4, 8, 16]
    wanted = []
    off = 0
    for number, line in enumerate(data.split(b"\n")):
        mask = 0
        for (literal, caseless), bit in zip(literals, masks, strict=True):
            if literal in (line.lower() if caseless else line):
                mask |= bit
        if mask:
            wanted.append((off, off + len(line), number, mask))
        off += len(line) + 1
    scanner = scan.Scanner(literals, masks)
    assert list(scanner.scan(data, 0, len(data))) == wanted
    assert scanner.mask_of(data.replace(b"\n", b"|")) == scanner_mask(data.replace(b"\n", b"|"), literals, masks)
    scanner = scan.Scanner(literals, masks)
    scanner._hits = scan._with_hyperscan(tuple(literals))
    assert list(scanner.scan(data, 0, len(data))) == wanted
    assert [(b - 3, e - 3, n, m) for b, e, n, m in scanner.scan(b"ab\n" + data, 3, len(data) + 3)] == wanted


def scanner_mask(data, literals, masks):
    mask = 0
    for (literal, caseless), bit in zip(literals, masks, strict=True):
        if literal in (data.lower() if caseless else data):
            mask |= bit
    return mask


def test_without_hyperscan_all_is_the_same(monkeypatch):
    monkeypatch.setattr(scan, "SMALL_BYTES", 1)
    monkeypatch.setattr(scan, "_with_hyperscan", lambda literals: None)
    assert shown(rows_of(LOG)) == EXPECTED


# ---- anything at all


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [
                    b"tiny close ",
                    b"4001",
                    b"tiny.Closed: 4001",
                    b"\n",
                    b"\r\n",
                    b'{"log": "',
                    b'"}',
                    b"time,message\n",
                    b'"',
                    b"Traceback (",
                    b"  ",
                    b"2026-11-21 10:00:00 ",
                    b"\xff\xfe",
                    b"\xef\xbb\xbf",
                    b"\x1b[31m",
                    b"closeCode",
                    b"websocket close code=1006",
                    b"1795255872",
                ]
            ),
        ),
        max_size=30,
    ).map(b"".join),
    st.lists(st.integers(0, 50), max_size=5),
)
def test_no_bytes_raise(data, steps):
    reader, rows = read(data, *steps)
    assert reader.n_joined + len(rows) == sum(row["lines"] for row in rows)
    for row in rows:
        assert 1 <= row["record"] <= reader.n_lines


def test_memory_stays_flat():
    """32 MB of lines, each tenth a close: what is kept does not grow with them."""
    lines = b"".join(
        b"2026-11-21 10:MM:%02d GET /%d tiny close 4001 peer=10.0.0.1:%d\n" % (i // 400, i, i)
        if i % 10 == 0
        else b"2026-11-21 10:MM:%02d GET /%d nothing to see here\n" % (i // 400, i)
        for i in range(20_000)
    )
    reader = LogReader(CATALOGUE, Clock(newest_ns=NEWEST), "test")
    n = 0
    tracemalloc.start()
    for i in range(32):
        n += len(reader.feed(lines.replace(b"MM", b"%02d" % i)))
        if i == 4:
            early = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
    late, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    n += len(reader.finish())
    assert (n, reader.n_joined) == (32 * 2_000, 0)
    assert late < early + 1_000_000
    assert peak < early + 10_000_000
