"""Real lines, each alone and with its format unknown, against what people who read them in their threads say.

`cases/log_lines.jsonl` was gathered and labelled from public threads by people who had not seen the formats, and the
formats were written by people who had not seen it; only the sentences of the structured rule were widened afterwards.
`../shared/research` holds two more sets. A label's `origin` is the logging side's view: where the code came from
(wire-received, wire-sent, synthesized), or that nothing is known (none, unknown).
"""

import json
from pathlib import Path

import pytest

from analyzer.logs import catalogue, check

CASES = Path(__file__).parent / "cases" / "log_lines.jsonl"

OTHER_SYSTEMS = (
    *("discord.py", "mWebSockets", "nv-websocket-client", "Cloudflare Workers", "journalctl short", "mitmproxy"),
    *("Heroku",),
)
"""Systems without a format so far, in the research's lines."""

DIFFERS = {
    "{'type': 'websocket.disconnect', 'code': 1006}": "Hypercorn says so to every peer's Close: it tells nothing",
    "{'type': 'websocket.disconnect', 'code': 1000}": "likewise, for every Close of the application",
    "  socket.io:client client close with reason ping timeout +6s": "the transport was polling: no 1006 is claimed",
    'EventWebSocket connection closed with code 1000 and message "Idle for 300241ms > 300000ms": '
    "WSFrameConnection@9e8e96e l(0:0:0:0:0:0:0:1:9999)<->r(0:0:0:0:0:0:0:1:63034)": "the code was sent: in sent_code",
    "14:12:35.878 [warn] [main] Websocket 4 closed (code=1006 (abnormal) ...). Removing 433 methods": "inferred: an "
    "application's own words (row 39)",
}
"""Lines whose label is not followed, and why."""


def is_right(row, code, origin):
    """Whether a row says what a label says (docs/decisions.md, rows 37 to 39)."""
    codes = (row["code"], row["wire_code"], row["sent_code"])
    how = row["provenance"]
    if origin == "wire-received":
        return how == "undetermined" if code is None else code in codes and how in ("reported", "wire")
    if origin == "wire-sent":
        return (code is None or code in codes) and how != "inferred"
    if origin == "synthesized":
        return row["code"] == (code or 1006) and how == "synthesized"
    if origin == "unknown" and code is not None:
        return row["code"] == code and how in ("reported", "inferred")
    return how == "undetermined"


def read(line):
    return check.read_rows(catalogue.load(), line)


def judge(records):
    """Shares: right, found; and what is wrong."""
    right, wrong, false, missed = 0, [], [], []
    for record in records:
        rows = read(record["line"])
        if not record["is_close"]:
            false += [record["line"]] if rows else []
        elif not rows:
            missed.append(record["line"])
        elif is_right(rows[0], record["code"], record["origin"]):
            right += 1
        else:
            wrong.append(record["line"])
    return right, wrong, false, missed


@pytest.mark.parametrize("name", ["real_lines.jsonl", "loopback_lines.jsonl"])
def test_lines_of_the_research(shared, name):
    records = []
    for text in (shared / "research" / name).read_text(encoding="utf-8").splitlines():
        record = json.loads(text)
        expected = record["expected"]
        record |= {"is_close": expected.get("is_close", True), "code": expected.get("code")}
        record["origin"] = expected.get("origin")
        records.append(record)
    negatives = [record for record in records if not record["is_close"]]
    ours = [record for record in records if record["is_close"] and not record["system"].startswith(OTHER_SYSTEMS)]
    right, wrong, false, missed = judge(negatives + ours)
    assert false == []
    assert missed == []
    assert set(wrong) <= set(DIFFERS)
    followed = [record for record in ours if record["line"] not in DIFFERS]
    assert right == len(followed)
    assert len(followed) >= 0.9 * len(ours)


WRONG = {
    "[eWeLink]": "an application's own sentence: inferred (row 39)",
    "<WebSocket.e.onclose>:  Channel closed: 1006": "likewise",
    "read: connection timed out": "TCP's own timeout at a proxy; the label takes it for a lost Close",
}
"""What such lines hold, and why their label is not followed."""


def test_lines_that_no_format_was_written_for():
    records = [json.loads(text) for text in CASES.read_text(encoding="utf-8").splitlines()]
    right, wrong, false, missed = judge(records)
    assert false == []
    assert [line for line in wrong if not any(part in line for part in WRONG)] == []
    assert right >= 39
    assert len(missed) <= 27  # lines without a code, and systems that have no format yet


CONTEXT = [
    (
        "Failed to upgrade to WebSocket (REQUEST_METHOD: GET, HTTP_CONNECTION: close, HTTP_UPGRADE: )\n"
        'Finished "/cable/" [WebSocket] for ::1 at 2016-05-02 15:55:47 -0400',
        0,
    ),
    (
        "  socket.io:client client close with reason ping timeout +6s\n"
        "  socket.io:socket closing socket - reason ping timeout +6s",
        1,
    ),
]
"""Incidents of the research that several lines tell: how many rows they give."""


@pytest.mark.parametrize(("text", "n"), CONTEXT)
def test_lines_of_one_incident(text, n):
    assert len(read(text)) == n
