"""What carried a line is taken off: text, time and row are those of the line that was logged."""

import base64
import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.logs.catalogue import Catalogue
from analyzer.logs.format import Format
from analyzer.logs.reader import LogReader
from analyzer.logs.record import MAX_TEXT, unwrap
from analyzer.logs.timestamp import Clock

SECOND = 1_000_000_000
THEN_S = int(dt.datetime(2026, 11, 21, 10, 11, 12, tzinfo=dt.UTC).timestamp())
NS, US, MS, S = (THEN_S * SECOND + part for part in (123_456_789, 123_456_000, 123_000_000, 0))
ISO = "2026-11-21T10:11:12.123456789Z"
LINE = r'echo: websocket: close 4001: he said "bye", C:\new'
REASON = r'he said "bye", C:\new'
OTHER = "echo: nothing to see"


@pytest.fixture(scope="module")
def catalogue():
    pattern = {"find": ["websocket: close "], "regex": r"websocket: close (?P<code>\d{4}): (?P<reason>[^\n]{0,300})"}
    document = {
        "id": "tiny",
        "title": "Tiny",
        "source": "https://example.org",
        "rule": "As RFC 6455 has it.",
        "pattern": {"close": pattern | {"means": "rfc"}},
        "sample": [{"line": LINE}],
        "reject": [{"line": OTHER}],
    }
    return Catalogue([Format(document, "test")])


def read_rows(catalogue, text):
    reader = LogReader(catalogue, Clock(newest_ns=NS), "test")
    return [*reader.feed(text.encode("utf-8", "surrogatepass")).rows(), *reader.finish().rows()]


def docker(line, time=ISO):
    return json.dumps({"log": f"{line}\n", "stream": "stderr", "time": time})


def journald(message):
    entry = {"__CURSOR": "s=1;i=2", "__REALTIME_TIMESTAMP": f"{THEN_S}123456", "_PID": "7", "PRIORITY": "3"}
    return json.dumps(entry | {"MESSAGE": message, "_HOSTNAME": "host"}, separators=(",", ":"))


def escaped(text):
    return text.replace('"', '""')


EVENTS = [
    {"logStreamName": "a/b", "timestamp": THEN_S * 1000 - 5000, "message": OTHER, "ingestionTime": THEN_S * 1000},
    {"logStreamName": "a/b", "timestamp": THEN_S * 1000 + 123, "message": LINE, "ingestionTime": THEN_S * 1000 + 999},
    {"logStreamName": "a/b", "timestamp": THEN_S * 1000 + 5000, "message": OTHER, "ingestionTime": THEN_S * 1000},
]
LOKI_VALUES = [[f"{THEN_S - 5}000000000", OTHER], [f"{THEN_S}123456789", LINE], [f"{THEN_S + 5}000000000", OTHER]]
LOKI = {
    "status": "success",
    "data": {
        "resultType": "streams",
        "result": [
            {"stream": {"app": "other"}, "values": [[f"{THEN_S - 9}000000000", OTHER]]},
            {"stream": {"app": "echo"}, "values": LOKI_VALUES},
        ],
        "stats": {"summary": {"bytesProcessedPerSecond": 1006}},
    },
}
ELASTIC = {"@timestamp": ISO, "message": LINE, "host": {"name": "h"}, "log": {"level": "error", "offset": 1006}}
HITS = {
    "took": 3,
    "hits": {
        "total": {"value": 2, "relation": "eq"},
        "hits": [
            {"_index": "x", "_id": "1", "_source": {"@timestamp": "2026-11-21T10:00:00Z", "message": OTHER}},
            {"_index": "x", "_id": "2", "_source": ELASTIC},
        ],
    },
}
GELF = {"version": "1.1", "host": "h", "short_message": LINE, "timestamp": THEN_S + 0.123, "level": 3, "_pid": 1006}

WRAPPED = {
    "docker json-file": (docker(LINE), NS, 1),
    "docker json-file with attributes": (docker(LINE)[:-1] + ', "attrs": {"tag": "x"}}', NS, 1),
    "CRI": (f"{ISO} stderr F {LINE}", NS, 1),
    "CRI with an offset": (f"2026-11-21T11:11:12.123456789+01:00 stdout F {LINE}", NS, 1),
    "journald JSON": (journald(LINE), US, 1),
    "journald JSON, pretty": (json.dumps(json.loads(journald(LINE)), indent=8), US, 6),
    "journalctl short": (f"Nov 21 10:11:12 host echo[7]: {LINE}", S, 1),
    "journalctl short-iso": (f"2026-11-21T10:11:12+0000 host echo[7]: {LINE}", S, 1),
    "journalctl short-precise": (f"Nov 21 10:11:12.123456 host echo[7]: {LINE}", US, 1),
    "syslog RFC 3164": (f"<27>Nov 21 10:11:12 host echo[7]: {LINE}", S, 1),
    "syslog RFC 5424": (f'<27>1 2026-11-21T11:11:12.123456+01:00 host echo 7 - [x@1 a="b"] \ufeff{LINE}', US, 1),
    "Heroku": (f"2026-11-21T10:11:12.123456+00:00 app[web.1]: {LINE}", US, 1),
    "aws logs tail": (f"2026-11-21T10:11:12.123000+00:00 a/b {LINE}", MS, 1),
    "CloudWatch document": (json.dumps({"events": EVENTS, "searchedLogStreams": []}), MS, 1),
    "CloudWatch document, pretty": (json.dumps({"events": EVENTS, "searchedLogStreams": []}, indent=4), MS, 12),
    "CloudWatch subscription": (json.dumps({"messageType": "DATA_MESSAGE", "logEvents": EVENTS}), MS, 1),
    "Loki API": (json.dumps(LOKI), NS, 1),
    "logcli": (f'2026-11-21T10:11:12Z {{app="echo", pod="a"}} {LINE}', S, 1),
    "logcli raw": (LINE, None, 1),
    "logcli jsonl": (json.dumps({"labels": {"app": "echo"}, "line": LINE, "timestamp": ISO}), NS, 1),
    "Grafana export": (json.dumps([{"line": LINE, "timestamp": f"{THEN_S}123456789", "fields": {}}]), NS, 1),
    "Elastic NDJSON": (json.dumps(ELASTIC), NS, 1),
    "Elastic NDJSON with _source": (json.dumps({"_index": "x", "_id": "1", "_source": ELASTIC}), NS, 1),
    "Elastic hits": (json.dumps(HITS), NS, 1),
    "Splunk JSON": (
        json.dumps({"preview": False, "result": {"_raw": LINE, "_time": "2026-11-21T10:11:12.123+0000"}}),
        MS,
        1,
    ),
    "GELF": (json.dumps(GELF), MS, 1),
    "Google Cloud": (json.dumps({"textPayload": LINE, "timestamp": ISO, "httpRequest": {"status": 101}}), NS, 1),
    "kubectl logs --prefix": (f"[pod/echo-0/app] {LINE}", None, 1),
    "kubectl logs --timestamps": (f"{ISO} {LINE}", NS, 1),
    "kubectl logs, both": (f"[pod/echo-0/app] {ISO} {LINE}", NS, 1),
    "docker compose": (f"echo-1  | {LINE}", None, 1),
    "docker compose --timestamps": (f"echo-1  | {ISO} {LINE}", NS, 1),
    "docker compose, coloured": (f"\x1b[36mecho-1  | \x1b[0m{ISO} {LINE}", NS, 1),
    "colours inside": (f"{ISO} \x1b[31mERROR\x1b[0m echo: web\x1b[1msocket\x1b[0m {LINE}\x1b[0m", NS, 1),
    "colours in JSON": (docker(f"\x1b[31mERROR\x1b[0m {LINE}\x1b[m"), NS, 1),
    "a window's title": (f"\x1b]0;tail -f\x07{ISO} {LINE}", NS, 1),
    # nested
    "docker in docker": (docker(docker(LINE), "2026-11-21T10:59:59Z"), NS, 1),
    "CRI of JSON": (f"2026-11-21T10:59:59.5Z stderr F {json.dumps(ELASTIC)}", NS, 1),
    "kubectl --prefix of JSON": (f"[pod/echo-0/app] {json.dumps(ELASTIC)}", NS, 1),
    "compose of JSON": (f"echo-1  | {json.dumps(ELASTIC)}", NS, 1),
    "syslog of JSON": (f"<27>Nov 21 10:59:59 host echo[7]: {json.dumps(ELASTIC)}", NS, 1),
    "journald of docker of JSON": (journald(docker(json.dumps(ELASTIC), "2026-11-21T10:59:59Z")), NS, 1),
    "CloudWatch of docker": (
        json.dumps({"events": [{"timestamp": THEN_S * 1000 + 9000, "message": docker(LINE)}]}),
        NS,
        1,
    ),
    "Loki of CRI": (
        json.dumps({"data": {"result": [{"stream": {}, "values": [["1", f"{ISO} stderr F {LINE}"]]}]}}),
        NS,
        1,
    ),
    "the line's own time goes before the wrapper's": (docker(f"{ISO} {LINE}", "2026-11-21T10:59:59Z"), NS, 1),
    "the wrapper's with a zone before the line's without": (docker(f"2026-11-21 12:11:12 {LINE}"), NS, 1),
    "the line's without a zone before none": (json.dumps({"log": f"2026-11-21 10:11:12,123 {LINE}"}), MS, 1),
    # CSV
    "CSV": (f'time,host,message\n{ISO},h,"{escaped(LINE)}"\n', NS, 2),
    "CSV, CRLF": (f'time,host,message\r\n{ISO},h,"{escaped(LINE)}"\r\n', NS, 2),
    "CSV with a mark": (f'\ufeff"@timestamp","message"\n"{ISO}","{escaped(LINE)}"', NS, 2),
    "Kibana CSV": (
        f'"@timestamp",message\n"Nov 21, 2026 @ 10:11:11.000","{OTHER}"\n'
        f'"Nov 21, 2026 @ 10:11:12.123","{escaped(LINE)}"\n',
        MS,
        3,
    ),
    "Splunk CSV with cells of several lines": (
        f'"_time","_raw",host\n"2026-11-21T09:00:00.000+0000","first\nsecond, ""quoted""\nthird",h\n'
        f'"2026-11-21T10:11:12.123+0000","Traceback:\n  {escaped(LINE)}",h\n',
        MS,
        5,
    ),
    "CSV of JSON": (f'message,@timestamp\n"{escaped(json.dumps({"msg": LINE}))}",{ISO}\n', NS, 2),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_text_time_and_line_number(catalogue, name):
    text, time_ns, record = WRAPPED[name]
    (row,) = read_rows(catalogue, text)
    assert (row["code"], row["reason"], row["time"], row["record"]) == (4001, REASON, time_ns, record)


@pytest.mark.parametrize("name", [name for name in WRAPPED if "CSV" not in name])
def test_the_same_among_other_lines_with_crlf(catalogue, name):
    text, time_ns, record = WRAPPED[name]
    whole = "\n".join(["first", text, "2026-11-21T10:59:59Z last", ""]).replace("\n", "\r\n")
    (row,) = read_rows(catalogue, whole)
    assert (row["code"], row["reason"], row["time"], row["record"]) == (4001, REASON, time_ns, record + 1)


@pytest.mark.parametrize("colour", ["", "\x1b[31m"])
def test_journald_prints_what_is_not_plain_as_numbers(catalogue, colour):
    """So it does with colours: a message of bytes 0 to 31 is an array."""
    (record,) = unwrap(journald(list(f"{colour}{LINE}".encode())), Clock())
    assert record[0].splitlines()[-2:] == [LINE, "host"]
    (row,) = read_rows(catalogue, journald(list(f"{colour}{LINE}".encode())))
    assert (row["code"], row["reason"], row["time"]) == (4001, REASON, US)


def test_journald_numbers_that_are_no_text():
    (record,) = unwrap(journald([99, 97, 102, 233]), Clock())
    assert record[0].splitlines()[-2] == r"caf\xe9"
    for numbers in ([300], [-1], ["x"], [1.5], [[1]], []):
        unwrap(journald(numbers), Clock())


def test_documents_that_hold_several_closes(catalogue):
    events = [{"timestamp": THEN_S * 1000 + i * 10_000, "message": LINE.replace("4001", f"400{i}")} for i in range(5)]
    wanted = [(4000 + i, (THEN_S + 10 * i) * SECOND, 1) for i in range(5)]
    values = [[str(event["timestamp"] * 1_000_000), event["message"]] for event in events]
    for document in (
        {"events": events},
        events,
        {"logEvents": events},
        {"data": {"result": [{"stream": {}, "values": values}]}},
        {"hits": {"hits": [{"_source": event} for event in events]}},
    ):
        rows = read_rows(catalogue, json.dumps(document))
        assert [(row["code"], row["time"], row["record"]) for row in rows] == wanted


def test_the_same_line_twice_in_one_document_is_two_closes(catalogue):
    twice = [{"timestamp": THEN_S * 1000, "message": LINE}] * 2
    assert [row["lines"] for row in read_rows(catalogue, json.dumps({"events": twice}))] == [1, 1]


def test_an_object_gives_its_strings_as_lines_and_itself():
    inner = {"msg": "one", "n": 5, "deep": {"text": "two\nthree"}, "list": ["four", {"x": "five"}, 6]}
    (record,) = unwrap(json.dumps({"log": json.dumps(inner) + "\n", "time": ISO}), Clock())
    text, objects, time_ns = record
    assert text.splitlines() == ["one", "two", "three", "four", "five", ISO]
    assert objects[-1]["time"] == ISO
    assert objects[-2] == inner
    assert {"x": "five"} in objects
    assert time_ns == NS


def test_a_prefix_stays_in_the_text():
    (record,) = unwrap(f"[pod/echo-0/app] {json.dumps({'msg': 'one'})}", Clock())
    assert record[0].splitlines() == ["[pod/echo-0/app] ", "one"]


# ---- hostile


HOSTILE = {
    "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep arrays": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep strings": base64.b64encode(b"{" * 3000).decode() + "{" * 3000 + "}" * 3000,
    "many members": json.dumps({f"k{i}": "x" for i in range(50_000)}),
    "many strings": json.dumps(["x"] * 100_000),
    "a number without end": '{"time": ' + "9" * 100_000 + "}",
    "a number beyond floats": '{"time": 1e999, "t": -1e999}',
    "no JSON numbers": '{"time": NaN, "timestamp": Infinity, "ts": -Infinity}',
    "half a surrogate": '{"msg": "\\ud800", "\\udfff": 1}',
    "keys of every kind": '{"": "", "__proto__": {}, "\\u0000": "\\u0000"}',
    "wrong kinds": '{"events": [1], "data": {"result": [{"values": 7}, {"values": [[], [1]]}]}, "hits": {"hits": 5}}',
    "wrong kinds too": '{"events": [{}], "data": 7, "hits": {"hits": [1, null, "x"]}}',
    "loki of nothing": '{"data": {"result": [{"values": [[null, null], [[], {}], ["x", 5]]}]}}',
    "only braces": "{}",
    "empty list": "[]",
    "nulls": "[null]",
    "cut colours": "\x1b[31" + "\x1b]0;" + "x" * 5000,
    "quotes": '"' * 5000,
    "a member": '"message": "' + "\\" * 9999,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_leave_the_close_beside_them(catalogue, name):
    hostile = HOSTILE[name]
    for line in (hostile, f"{LINE} {hostile}", f"{hostile} {LINE}"):
        assert all(isinstance(record[0], str) for record in unwrap(line, Clock()))
    rows = read_rows(catalogue, f"{hostile} {LINE}\n{ISO} {LINE}\n")
    assert rows[-1]["time"] == NS
    assert rows[-1]["record"] == 2


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        (f'{{"message": "x", "time": "{ISO}", "message": {json.dumps(LINE)}}}', NS),
        (f'{{"time": 5, "time": "{ISO}", "message": {json.dumps(LINE)}}}', NS),
        (f'{{"time": NaN, "message": {json.dumps(LINE)}}}', None),
        (f'{{"time": {"9" * 5000}, "message": {json.dumps(LINE)}}}', None),
        (f'{{"time": 1e999, "ts": "{ISO}", "message": {json.dumps(LINE)}}}', NS),
        (f'{{"time": {{"time": "{ISO}"}}, "message": {json.dumps(LINE)}}}', NS),
        (f'{{"time": 20000000000, "message": {json.dumps(LINE)}}}', None),
        (f"  {docker(LINE)}  ", NS),
        (f"{docker(LINE)},", NS),
    ],
)
def test_odd_json_still_tells_its_close(catalogue, text, time_ns):
    (row,) = read_rows(catalogue, text)
    assert (row["code"], row["time"]) == (4001, time_ns)
    if "999999" not in text:
        assert row["reason"] == REASON


def test_cut_json_tells_its_close(catalogue):
    """A document that was cut is text: what stands in it is found, with its escapes."""
    text = docker("websocket: close 4001: bye now")
    (row,) = read_rows(catalogue, text[: text.index("now") + 3])
    assert (row["code"], row["reason"]) == (4001, "bye now")
    (row,) = read_rows(catalogue, "x" + text[1:])
    assert row["code"] == 4001


def test_a_line_that_is_deeper_than_read_is_still_text(catalogue):
    nested = LINE
    for _ in range(7):
        nested = json.dumps({"log": nested})
    (row,) = read_rows(catalogue, nested)
    assert (row["code"], row["reason"]) == (4001, REASON)


def test_text_beyond_the_limit_is_read_or_counted(catalogue):
    """In one long string, as in one long line: nothing goes missing unseen."""
    reader = LogReader(catalogue, Clock(newest_ns=NS), "test")
    rows = [*reader.feed(f"{docker('x' * 2 * MAX_TEXT + ' ' + LINE)}\n".encode()).rows(), *reader.finish().rows()]
    assert len(rows) + reader.n_long == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(LINE) | st.just(ISO),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["events", "data", "result", "values", "hits", "MESSAGE", "log", "time", "t", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON, st.integers(0, 3))
def test_any_json_is_read_and_nothing_invented(value, depth):
    text = json.dumps(value)
    for _ in range(depth):
        text = json.dumps({"log": text})
    for prefix in ("", "[pod/a/b] "):
        for record in unwrap(prefix + text, Clock()):
            assert isinstance(record[0], str)
            assert all(isinstance(one, dict) for one in record[1])
            assert record[2] is None or 0 <= record[2] < 2**63
