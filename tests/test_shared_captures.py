"""Captures made by others, against the truth that two independent decoders agreed on (../shared, where present)."""

import json
from pathlib import Path

import pytest
from conftest import SHARED

TRUTH = SHARED / "captures" / "websocket" / "TRUTH.json"
FILES = json.loads(TRUTH.read_text(encoding="utf-8")) if TRUTH.is_file() else []


def frames_of(stream, side):
    counts = stream.get("ws_frames_by_side_opcode", {})
    return sum(n for key, n in counts.items() if key.startswith(f"{side}:"))


def view_of(words):
    """What TRUTH.json says of a view: a code, or None for whatever claims none."""
    return words if isinstance(words, int) else None


@pytest.mark.skipif(not FILES, reason="../shared is not here")
@pytest.mark.parametrize("truth", FILES, ids=lambda truth: truth["file"])
def test_capture_matches_its_truth(truth, read_rows, shared):
    path = shared / "captures" / "websocket" / truth["file"]
    closes, connections, inputs = read_rows(path)
    assert inputs[0]["records"] == truth["packets"]
    assert len(connections) == len(truth["streams"])
    for stream, row in zip(truth["streams"], connections, strict=True):
        assert (row["client"], row["server"]) == (stream["client"], stream["server"])
        request = stream["handshake"]["request"]
        assert row["handshake"] == ("missing" if request is None else "complete")
        assert row["path"] is None if request is None else row["path"].startswith(request.split(" ")[1])
        assert row["client_frames"] + row["server_frames"] == stream["ws_frames"]
        for side in ("client", "server"):
            if "ws_frames_by_side_opcode" in stream:
                assert row[f"{side}_frames"] == frames_of(stream, side)
            sent = [c for c in stream["close_frames"] if c["sender"] == side]
            if not sent:
                assert row[f"{side}_close"] == "none"
                continue
            kind = "empty" if sent[0]["code"] == "EMPTY" else "status"
            code = None if sent[0]["code"] == "EMPTY" else sent[0]["code"]
            assert (row[f"{side}_close"], row[f"{side}_close_code"]) == (kind, code)
            assert (row[f"{side}_close_reason"], row[f"{side}_close_record"]) == (sent[0]["reason"], sent[0]["frame"])
            seconds, _, fraction = sent[0]["time"].partition(".")
            assert row[f"{side}_close_time"] == int(seconds) * 10**9 + int(fraction)
            seen = view_of(stream["derived_rfc6455_close_code"][f"seen_by_{side}"])
            assert row[f"{side}_view_code"] == seen
        first = stream["tcp_end"]["first"]
        if first == "capture end":
            assert (row["end"], row["ended_by"]) == ("open", None)
        else:
            how, _, who = first.split(" ")
            assert (row["end"], row["ended_by"]) == (how.lower(), who)
    assert len(closes) == 2 * len(connections)


def test_every_capture_named_in_the_truth_is_read():
    if not FILES:
        pytest.skip("../shared is not here")
    names = {truth["file"] for truth in FILES}
    assert names == {path.name for path in Path(TRUTH).parent.glob("*.pcap*")}
