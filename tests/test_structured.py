"""The rule for structured logs of unknown systems: what it takes, how little it claims, and what it leaves alone."""

import io
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.logs import structured
from analyzer.logs.catalogue import Catalogue
from analyzer.logs.check import MAX_LINE_S, read_rows
from analyzer.logs.joining import Row, to_table
from analyzer.logs.record import MAX_TEXT
from analyzer.logs.statement import Reader, Statement
from analyzer.logs.timestamp import Clock
from analyzer.model import CLOSES
from analyzer.report.rows import WRITERS
from analyzer.verdict.statement import Means, Said, decide

RULE = Catalogue([], last=[(Reader(structured.read, "structured"), structured.LITERALS)])


def read(*lines):
    return read_rows(RULE, "\n".join(lines))


TAKEN = [
    # JSON
    ('{"event": "websocket closed", "code": 1001, "reason": "going away"}', 1001, "going away"),
    ('{"event": "ws.disconnect", "close_code": 4001, "close_reason": "kicked"}', 4001, "kicked"),
    ('{"msg": "socket closed", "wsCloseCode": "1011"}', 1011, None),
    ('{"type": "CloseEvent", "wasClean": true, "code": 1000, "reason": ""}', 1000, ""),
    ('{"message": "websocket disconnect", "ws": {"closeCode": 4999, "closeReason": "x"}}', 4999, "x"),
    ('{"message": "websocket closed", "data": {"websocket.close.code": 3000}}', 3000, None),
    ('{"message": "websocket closed", "code": 1001.0}', 1001, None),
    ('{"message": "websocket closed", "code": 999, "closeCode": 4001}', 4001, None),
    ('{"log": "{\\"msg\\": \\"websocket closed\\", \\"closeCode\\": 1008}\\n"}', 1008, None),
    # logfmt and key=value
    ('level=info msg="websocket closed" code=1001 reason="going away"', 1001, "going away"),
    ("ws_disconnect close_code=4001 close_reason=kicked user=7", 4001, "kicked"),
    ("WebSocket closed: code=1011, reason='it broke', wasClean=false", 1011, "it broke"),
    ("websocket close code: 1001 reason: bye", 1001, "bye"),
    # JavaScript
    ("websocket closed { code: 1001, reason: 'going away' }", 1001, "going away"),
    ('CloseEvent {isTrusted: true, wasClean: false, code: 1011, reason: "x"}', 1011, "x"),
    # sentences
    ("WebSocket connection closed with code 1001", 1001, None),
    ("WebSocket connection closed with status code 1011 (it broke)", 1011, "it broke"),
    ("ws disconnected: 4001", 4001, None),
    ("[ws] connection closed with code 4000, reason: kicked", 4000, "kicked"),
]


@pytest.mark.parametrize(("line", "code", "reason"), TAKEN, ids=lambda value: str(value)[:50])
def test_what_is_taken(line, code, reason):
    (row,) = read(line)
    assert (row["code"], row["reason"]) == (code, reason)
    assert (row["provenance"], row["confidence"], row["evidence"]) == ("reported", "low", "log_stated")
    assert (row["system"], row["endpoint"]) == (None, "unknown")
    assert (row["received"], row["wire_code"], row["sent"], row["initiator"]) == ("unknown", None, "unknown", "unknown")


@pytest.mark.parametrize("code", [1005, 1006, 1015])
@pytest.mark.parametrize(
    "line", ['{"event": "websocket closed", "code": %d}', "websocket closed code=%d", "websocket closed {code: %d}"]
)
def test_codes_that_are_made_up_are_inferred(line, code):
    (row,) = read(line % code)
    assert (row["code"], row["provenance"], row["confidence"]) == (code, "inferred", "low")
    assert (row["received"], row["wire_code"]) == ("unknown", None)


@pytest.mark.parametrize("kind", ["code", "reason", "initiator", "sent"])
def test_every_synonym_in_every_spelling(kind):
    for name in structured.NAMES[kind].split():
        for spelling in (
            name,
            name.upper(),
            f"{name[:3]}_{name[3:]}",
            f"{name[:3]}.{name[3:]}",
            f"{name[:3]}-{name[3:]}",
        ):
            members = {
                "event": "websocket closed",
                "code": 4001,
                spelling: {"code": 4002, "sent": 4003}.get(kind, "client"),
            }
            (row,) = read(json.dumps(members))
            wanted = {"code": 4002, "reason": "client", "initiator": "client", "sent": 4003}[kind]
            assert row[{"sent": "sent_code"}.get(kind, kind)] == wanted, spelling


@pytest.mark.parametrize(
    ("name", "wanted"), [("client", "client"), ("SERVER", "server"), ("nobody", "unknown"), (7, "unknown")]
)
def test_initiator(name, wanted):
    (row,) = read(json.dumps({"event": "websocket closed", "code": 1000, "initiator": name}))
    assert row["initiator"] == wanted


def test_local_and_remote_say_nothing_where_the_side_is_not_known():
    (row,) = read('{"event": "websocket closed", "code": 1000, "initiated_by": "remote"}')
    assert row["initiator"] == "unknown"


@pytest.mark.parametrize("value", ["null", '"undefined"', '"None"', '""'])
def test_no_reason_is_an_empty_one_or_none(value):
    (row,) = read(f'{{"event": "websocket closed", "code": 1000, "reason": {value}}}')
    assert not row["reason"]


LEFT = {
    # no word about WebSockets, or none about an end
    "no context": '{"event": "file closed", "code": 1001}',
    "no context, socket": '{"event": "socket closed", "code": 1001}',
    "no context, key=value": "connection closed code=1001",
    "no end": '{"event": "websocket message", "code": 1001}',
    "no end, key=value": 'msg="websocket for user" code=1001',
    "no end, sentence": "websocket connection open with code 1001",
    "a word that only begins so": '{"event": "wsgi closed", "code": 1001}',
    # numbers that are something else
    "HTTP status": '{"msg": "websocket closed", "status": 101}',
    "HTTP status as text": '{"msg": "websocket connection closed", "status": "200", "code": 404}',
    "HTTP status, logfmt": 'msg="websocket closed" status=101 code=503',
    "milliseconds": "websocket connection closed, code path took 1006 ms",
    "a duration": '{"msg": "websocket closed", "duration": 1006, "ms": 1001}',
    "a duration, key=value": "websocket closed duration=1001 elapsed_ms=1006",
    "a duration behind the word code": "websocket closed with code 1006ms late",
    "an id": '{"msg": "websocket closed", "id": 1001, "user": "1006", "conn_id": 1005}',
    "an id, key=value": "websocket closed id=1006 session=4001",
    "a port": "websocket closed 10.0.0.1:4001 port=3000",
    "a port, sentence": "ws closed: 3000 connections left",
    "clients": "WebSocket closed: 1006 clients",
    "an address": "websocket disconnected 1001.5 1001:22",
    "a long number": '{"msg": "websocket closed", "code": 10010}',
    "a long number, key=value": "websocket closed code=100123",
    "too small": '{"msg": "websocket closed", "code": 999}',
    "too large": '{"msg": "websocket closed", "code": 5000}',
    "not whole": '{"msg": "websocket closed", "code": 1001.5}',
    "truth": '{"msg": "websocket closed", "code": true}',
    "a list": '{"msg": "websocket closed", "code": [1001]}',
    "an object": '{"msg": "websocket closed", "code": {"value": "x"}}',
    "foreign digits": '{"msg": "websocket closed", "code": "\u0661\u0660\u0660\u0661"}',
    "part of a word": "websocket closed xcode=1001 code=1001x",
    "no code": '{"msg": "websocket closed", "wasClean": false}',
    # never opened
    "handshake": '{"msg": "websocket closed: handshake failed", "code": 1006}',
    "upgrade": "websocket close code=1006 upgrade failed",
    "unexpected response": "WebSocket connection closed: unexpected server response: 403 code=1006",
    "refused": '{"msg": "websocket closed", "code": 1006, "error": "connect ECONNREFUSED 10.0.0.1:80"}',
    "before it was open": "WebSocket is closed before the connection is established code=1006",
    "could not connect": "websocket closed code=1006: could not connect",
    "failed to connect": "websocket failed to connect, closed with code 1006",
    "already closing": "WebSocket is already in CLOSING or CLOSED state. code=1006",
    # what this program wrote
    "own row": '{"code":1006,"provenance":"inferred","evidence":"log_stated","wasClean":true,"x":"websocket closed"}',
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_alone(name):
    assert read(LEFT[name]) == []


def test_own_output_is_no_log():
    """Rows of an earlier run tell of no further closes."""
    view = decide(Said(None, Means.STATED, 1006, is_known=False))
    said = Statement(view, reason="websocket closed with code 1006", path="/ws", client="10.0.0.1:1111")
    out = io.StringIO()
    WRITERS["jsonl"](out, CLOSES).write(to_table([Row(said, 10**18, 7, 7)], "websocket close code=1006.log"))
    assert "closed with code 1006" in out.getvalue()
    assert read(out.getvalue()) == []


def test_a_code_under_its_own_name_goes_before_a_plain_one():
    for members in ({"code": 4001, "closeCode": 4002}, {"closeCode": 4002, "code": 4001}):
        (row,) = read(json.dumps({"event": "websocket closed"} | members))
        assert row["code"] == 4002


def test_was_clean_is_context_enough():
    assert [row["code"] for row in read('{"code": 1001, "wasClean": false}')] == [1001]
    assert read('{"code": 1001, "clear": false}') == []


def test_lines_that_are_the_same_stay_rows_of_their_own():
    line = '{"event": "websocket closed", "code": 1001}'
    assert [row["record"] for row in read(line, "x", line)] == [1, 3]


NAMES = st.sampled_from([*structured.KINDS, "msg", "event", "id", "ws", "websocket", "data"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(990, 5010)
    | st.floats()
    | st.text(max_size=6)
    | st.just("websocket closed"),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES, max_size=8))
def test_nothing_more_is_claimed_than_a_code_in_range(members):
    for text in (json.dumps(members), " ".join(f"{name}={value!r}" for name, value in members.items())):
        for row in read(f"websocket closed {text}", text):
            assert 1000 <= row["code"] <= 4999
            assert row["provenance"] == ("inferred" if row["code"] in (1005, 1006, 1015) else "reported")
            assert (row["confidence"], row["wire_code"], row["system"]) == ("low", None, None)


def test_the_names_are_documented():
    page = (Path(__file__).parent.parent / "docs" / "log_formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:code|code, where.*?|reason|clean|initiator|sent code) \| (.*) \|$", page, re.MULTILINE)
    assert {name.strip("`") for row in rows for name in row.split()} == set(structured.KINDS)


def test_no_line_keeps_the_rule_busy():
    starts = ("websocket closed code=1006 ", "if websocket is closed ", "closing request ", "a='", '"code": ', "ws ")
    runs = (" ", "a", "1", "'", '"', "\\", "(", "a=", "clos ", "request ", "ws ", "\n", "closed ")
    slowest = 0.0
    for start in starts:
        for run in runs:
            for line in (
                start + run * MAX_TEXT,
                (start + run) * MAX_TEXT,
                run * (MAX_TEXT // 2 // len(run)) + start * 99,
            ):
                started = time.perf_counter()
                structured.read((line[:MAX_TEXT], [], None), Clock())
                slowest = max(slowest, time.perf_counter() - started)
    assert slowest < MAX_LINE_S
