"""Connections that the capture does not show from their beginning, and step found again behind a gap.

Whole conversations are made up, and what a capture of a part of them may say is judged by what was written.
"""

import importlib
import io
import pickle
import random
import struct
import sys
from pathlib import Path

import pytest
from conftest import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import decode
from packets import CLIENT, REQUEST, SERVER, Conversation, Packet, close, frame, pcap, response
from reading import analyze
from test_properties import Told, cut, rows_of, stories, views

from analyzer import kernel
from analyzer.capture import container, frames, handshake, midstream, segments
from analyzer.capture.container import Reader
from analyzer.capture.tracker import Tracker

PORTS = ((), (80,))


def masks(rng):
    return rng.randbytes(4)


def view(closes, side):
    row = next(row for row in closes if row["endpoint"] == side)
    return row["code"], row["provenance"], row["evidence"], row["confidence"]


def chat(talk, rng, n=4, *, opcode=1):
    """Each side says something, `n` times, in frames of their own."""
    for i in range(n):
        body = f"message number {i} of many".encode() if opcode == 1 else rng.randbytes(20 + i)
        talk.say(CLIENT, frame(opcode, body, mask=masks(rng)))
        talk.say(SERVER, frame(opcode, body))
    return talk


# ---- a part of a conversation claims nothing that the whole would deny


def is_orderly(story):
    """Nobody says anything behind the own Close: what begins there could not know that it is not the first."""
    closed = set()
    for step in story:
        if step.side in closed and step.kind not in ("fin", "rst", "ack"):
            return False
        if step.kind in ("status", "empty", "short"):
            closed.add(step.side)
    return True


orderly = stories().filter(is_orderly)


def assert_no_lie(told: Told, closes: list[dict]) -> None:
    views(closes)
    for row in closes:
        truth = decode(told.stream[SERVER if row["endpoint"] == CLIENT else CLIENT])
        assert row["wire_code"] in (None, truth.code), row
        if row["provenance"] == "wire":
            assert row["code"] == truth.code, row
        if row["code"] == 1005 and row["provenance"] == "synthesized":
            assert truth.close == "empty", row
        if row["provenance"] == "synthesized" and row["code"] == 1006 and truth.close in ("status", "empty"):
            assert row["evidence"] == "failed_here" or told.ended.get(row["endpoint"]) == "rst", row


@settings(max_examples=250)
@given(st.data(), orderly, st.sampled_from(PORTS))
def test_a_capture_that_begins_anywhere_makes_nobody_lie(data, story, ports):
    told = Told(story)
    pieces = data.draw(cut(told))
    begin = data.draw(st.integers(0, len(pieces)))
    closes, _ = analyze(pcap(told.packets(pieces[begin:])), ports=ports)
    assert_no_lie(told, closes)
    if begin > sum(piece.is_opening for piece in pieces):
        assert all(row["confidence"] in ("medium", None) for row in closes)


@settings(max_examples=250)
@given(st.data(), orderly, st.sampled_from(PORTS))
def test_a_packet_lost_behind_any_beginning_makes_nobody_lie(data, story, ports):
    told = Told(story)
    pieces = data.draw(cut(told))
    pieces = pieces[data.draw(st.integers(0, len(pieces) - 1)) :]
    lost = data.draw(st.integers(0, len(pieces) - 1))
    closes, _ = analyze(pcap(told.packets(pieces[:lost] + pieces[lost + 1 :])), ports=ports)
    assert_no_lie(told, closes)


@settings(max_examples=250)
@given(st.data(), orderly, st.sampled_from(PORTS), st.sampled_from([CLIENT, SERVER]))
def test_one_direction_makes_nobody_lie(data, story, ports, side):
    """Row 36, with and without the opening: whoever only receives what is not there reports nothing."""
    told = Told(story)
    pieces = [piece for piece in data.draw(cut(told)) if piece.side == side]
    pieces = pieces[data.draw(st.integers(0, len(pieces) - 1)) :]
    closes, _ = analyze(pcap(told.packets(pieces)), ports=ports)
    assert_no_lie(told, closes)
    for row in closes:
        if row["endpoint"] == side:
            assert row["code"] is None, row


@settings(max_examples=120)
@given(st.data(), orderly, st.integers(0, 70))
def test_a_snaplen_makes_nobody_lie(data, story, captured):
    """Bytes cut off every packet are known to be missing, whether the opening was captured or not."""
    told = Told(story)
    pieces = data.draw(cut(told))
    packets = told.packets(pieces[data.draw(st.integers(0, len(pieces))) :])
    for packet in packets:
        packet.wire_bytes, packet.data = len(packet.data), packet.data[: 54 + captured]
    closes, _ = analyze(pcap(packets))
    assert_no_lie(told, closes)


@settings(max_examples=60)
@given(
    st.data(), orderly, st.lists(st.integers(1, 400), min_size=1, max_size=4), st.integers(64, 512), st.integers(1, 5)
)
def test_chunks_change_nothing_without_the_opening(data, story, sizes, more, most):
    told = Told(story)
    content = pcap(told.packets([piece for piece in data.draw(cut(told)) if not piece.is_opening]))
    plain = rows_of(Reader(io.BytesIO(content), "test"), Tracker())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "FIRST_CHUNK_BYTES", more)
        patch.setattr(container, "CHUNK_BYTES", more)
        patch.setattr(container, "CHUNK_PACKETS", most)
        patch.setattr(segments, "CHUNK_PACKETS", most)
        assert rows_of(Reader(io.BytesIO(content), "test"), Tracker(), with_pickle=True) == plain


# ---- what is recognised


@pytest.mark.parametrize("opcode", [1, 2])
@pytest.mark.parametrize("port", [80, 22, 443, 50000])
@pytest.mark.parametrize("first", [CLIENT, SERVER])
def test_frames_of_both_sides_are_a_websocket(opcode, port, first):
    """On any port; which side is the client is told by the masks, not by who comes first or has the lower port."""
    rng = random.Random(5)
    talk = Conversation(sport=1024, dport=port)
    if first == SERVER:
        talk.say(SERVER, frame(opcode, b"the server begins"))
    chat(talk, rng, opcode=opcode)
    at = talk.close(SERVER, 1001, "bye")
    talk.say(CLIENT, close(1001, mask=masks(rng)))
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert (row["client"], row["server"]) == ("10.0.0.1:1024", f"10.0.0.2:{port}")
    assert (row["handshake"], row["client_frames"], row["server_frames"]) == ("missing", 5, 5 + (first == SERVER))
    assert [view(closes, side) for side in (CLIENT, SERVER)] == [(1001, "wire", "status", "medium")] * 2
    assert row["server_close_record"] == at


OPENED_IN_THE_CLEAR = [path for path in sorted(SAMPLES.glob("*.pcap*")) if b"HTTP/1.1" in path.read_bytes()]


@pytest.mark.parametrize("path", OPENED_IN_THE_CLEAR, ids=lambda path: path.stem)
def test_recorded_captures_without_their_opening(path):
    """What a real client and server wrote: the views of the part are those of the whole, or nothing."""
    whole, connections = analyze(path.read_bytes())
    packets = [p for p in read_packets(path.read_bytes()) if b"HTTP/1.1" not in p.data]
    closes, found = analyze(pcap(packets, **link_of(path.read_bytes())))
    assert len(found) <= len(connections)
    for row in closes:
        same = [one for one in whole if (one["client"], one["endpoint"]) == (row["client"], row["endpoint"])]
        assert row["code"] is None or row["code"] in [one["code"] for one in same], row
        assert row["confidence"] in ("medium", None), row


def link_of(content):
    return {"link_type": struct.unpack("<I", content[20:24])[0]} if content[:4] != b"\x0a\x0d\x0d\x0a" else {}


def read_packets(content):
    """Packets as dpkt reads them."""
    import dpkt

    some = io.BytesIO(content)
    is_ng = content[:4] == b"\x0a\x0d\x0d\x0a"
    reader = dpkt.pcapng.Reader(some) if is_ng else dpkt.pcap.Reader(some)
    return [Packet(int(ts * 10**9), bytes(data)) for ts, data in reader]


def test_a_close_and_its_echo_are_enough():
    talk = Conversation()
    talk.close(CLIENT, 4001, "zu Ende")
    talk.close(SERVER, 4001)
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert [view(closes, side)[0] for side in (CLIENT, SERVER)] == [4001, 4001]
    assert (row["client_close_reason"], row["initiator"]) == ("zu Ende", "client")


@pytest.mark.parametrize(
    "server",
    [b"\x88\x02\x03\xed", b"\x88\x01\x03", b"\x88\x03\x03\xe8\xff", b"\x08\x00", b"\x98\x00", b"\x88\x05\x03\xe8ok"],
    ids=["1005", "one byte", "no UTF-8", "not final", "RSV", "cut off"],
)
def test_what_may_not_be_sent_is_no_evidence(server):
    talk = Conversation()
    talk.close(CLIENT, 1000)
    talk.say(SERVER, server)
    talk.end()
    assert analyze(talk.pcap()) == ([], [])


def test_a_close_before_the_decision_counts():
    """The server closes first; only the client's frames behind it show what it was."""
    rng = random.Random(1)
    talk = Conversation()
    at = talk.close(SERVER, 1012)
    for i in range(3):
        talk.say(CLIENT, frame(1, b"still on my way %d" % i, mask=masks(rng)))
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert view(closes, CLIENT) == (1012, "wire", "status", "medium")
    assert (row["server_close_record"], row["client_frames"]) == (at, 3)


def test_large_messages_over_many_segments():
    """Frames begin where segments begin, and end anywhere; between them are segments without any header."""
    rng = random.Random(2)
    talk = Conversation()
    for _ in range(3):
        for side in (CLIENT, SERVER):
            data = frame(2, rng.randbytes(5000), mask=masks(rng) if side == CLIENT else None)
            for begin in range(0, len(data), 1448):
                talk.say(side, data[begin : begin + 1448])
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert (row["client_messages"], row["server_messages"], row["server_bytes"]) == (3, 3, 15000)
    assert view(closes, SERVER) == (1006, "synthesized", "no_close_fin", "medium")


def test_compressed_messages():
    """RSV1 is accepted on a message's first frame: nobody knows what was negotiated."""
    rng = random.Random(3)
    talk = Conversation()
    for i in range(4):
        talk.say(CLIENT, frame(1, rng.randbytes(30 + i), mask=masks(rng), rsv=4))
        talk.say(SERVER, frame(1, rng.randbytes(30 + i), rsv=4))
    _, (row,) = analyze(talk.pcap())
    assert (row["client_messages"], row["server_messages"], row["anomalies"]) == (4, 4, [])


def test_the_masking_side_alone():
    """Row 36: one direction was captured, and shows what the server came to see."""
    rng = random.Random(4)
    talk = Conversation()
    for i in range(4):
        talk.say(CLIENT, frame(1, b"hello number %d" % i, mask=masks(rng)))
    talk.say(CLIENT, close(1000, mask=masks(rng)))
    talk.fin(CLIENT)
    closes, (row,) = analyze(talk.pcap())
    assert view(closes, SERVER) == (1000, "wire", "status", "medium")
    assert view(closes, CLIENT)[:2] == (None, "undetermined")
    assert row["client_frames"] == 5


def test_the_other_side_alone_is_not_enough():
    """Anything that begins with its length looks so."""
    talk = Conversation()
    for i in range(20):
        talk.say(SERVER, frame(1, b"hello number %d" % i))
    talk.close(SERVER, 1000)
    talk.end()
    assert analyze(talk.pcap()) == ([], [])


@pytest.mark.parametrize("how", ["lost", "cut"])
def test_the_opening_was_not_captured(how):
    """SYN and SYN-ACK were, the heads were lost or cut off by the snaplen."""
    talk = Conversation().open()
    more = {"lose": True} if how == "lost" else {"captured": 10}
    talk.say(CLIENT, b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\r\n", **more)
    talk.say(SERVER, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", **more)
    chat(talk, random.Random(6), 3)
    talk.close(SERVER, 1011)
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert row["handshake"] == "missing"
    assert view(closes, CLIENT) == (1011, "wire", "status", "medium")


def test_frames_at_the_beginning_of_a_connection_are_none():
    """Nobody speaks WebSocket without asking for it: whoever was seen from the SYN on speaks something else."""
    talk = chat(Conversation().open(), random.Random(7))
    talk.end()
    assert analyze(talk.pcap()) == ([], [])


def test_a_segment_that_looks_like_the_other_side():
    """In the middle of a message of the server some bytes look like a masked frame; it is not taken for the client."""
    rng = random.Random(8)
    talk = Conversation()
    talk.say(SERVER, frame(2, bytes(40), mask=b"abcd"))
    chat(talk, rng, 6)
    talk.end()
    _, (row,) = analyze(talk.pcap())
    assert (row["client"], row["client_frames"]) == ("10.0.0.1:40000", 6)


def test_a_snaplen_of_96_bytes():
    """Of each frame the header is there, and what follows is known to be missing."""
    rng = random.Random(9)
    talk = Conversation()
    for _ in range(4):
        talk.say(CLIENT, frame(2, rng.randbytes(300), mask=masks(rng)), captured=42)
        talk.say(SERVER, frame(2, rng.randbytes(2000)), captured=42)
    talk.close(SERVER, 1001, "a reason that is not captured whole", captured=30)
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert (row["client_frames"], row["server_frames"], row["server_bytes"]) == (4, 5, 8000)
    assert view(closes, CLIENT) == (None, "undetermined", "cut_close", None)


# ---- what costs nothing, and what is limited


def test_other_traffic_is_given_up(monkeypatch):
    """After so many segments of each side nothing is looked at, nor put in order, any more."""
    rng = random.Random(10)
    looked = []
    judge = midstream.judge
    monkeypatch.setattr(midstream, "judge", lambda *args: looked.append(1) or judge(*args))
    talk = Conversation()
    for _ in range(100):
        talk.say(CLIENT, b"\xff" + rng.randbytes(200))
        talk.say(SERVER, b"\xff" + rng.randbytes(200))
    follow = Tracker()
    for chunk in Reader(io.BytesIO(talk.pcap()), "x").chunks():
        follow.feed(chunk)
    if not kernel.is_compiled():
        assert len(looked) == 2 * midstream.MAX_MISSES
    assert [int(mode) for mode in follow._streams["mode"][follow._flows["state"].nonzero()[0]]] == [2]
    assert follow.n_flows == 1
    follow.finish()
    assert follow.n_midstream == 1


def test_requests_on_a_kept_connection_are_still_seen():
    """A capture that begins within a long upload on a connection over which a WebSocket is opened later."""
    rng = random.Random(11)
    talk = Conversation()
    for _ in range(3 * midstream.MAX_MISSES):
        talk.say(CLIENT, b"\xff" + rng.randbytes(100))
    talk.say(SERVER, b"HTTP/1.1 204 No Content\r\n\r\n")
    talk.say(CLIENT, REQUEST)
    talk.say(SERVER, response())
    talk.close(CLIENT, 1000)
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert (row["handshake"], row["path"]) == ("complete", "/chat")
    assert view(closes, SERVER) == (1000, "wire", "status", "high")


def candidates(n):
    """Flows that each sent one frame."""
    rng = random.Random(12)
    packets = []
    for i in range(n):
        talk = Conversation(sport=1024 + i, ts_ns=1_700_000_000_000_000_000 + i * 1000)
        talk.say(CLIENT, frame(2, rng.randbytes(20), mask=masks(rng)))
        packets += talk.packets
    return packets


def test_flows_under_observation_are_limited_and_counted(monkeypatch):
    if kernel.is_compiled():
        pytest.skip("a limit is a constant once compiled")
    monkeypatch.setattr(midstream, "MAX_CANDIDATES", 10)
    follow = Tracker()
    for chunk in Reader(io.BytesIO(pcap(candidates(25))), "x").chunks():
        follow.feed(chunk)
    assert (follow.n_skipped_candidates, follow.n_connections) == (15, 0)
    assert int(follow._opening_state[handshake.N_CANDIDATES]) == 10
    follow = pickle.loads(pickle.dumps(follow))
    assert follow.finish() == []
    assert int(follow._opening_state[handshake.N_CANDIDATES]) == 0
    assert int(follow._opening_state[handshake.FREE_CONNECTIONS]) == len(follow._connections)
    assert follow.n_midstream == 25


# ---- step behind a gap


def behind_a_gap(data, side=SERVER, pieces=None):
    """An opened connection, some frames lost, then these bytes."""
    talk = Conversation().upgrade()
    talk.say(side, frame(1, b"hello"), lose=True)
    for piece in pieces or [data]:
        talk.say(side, piece)
    return talk


def test_step_is_found_over_several_segments():
    """A frame that runs on, and then others: no segment alone is a chain of frames."""
    data = frame(1, b"a" * 3000) + frame(1, b"b" * 200) + frame(1, b"c" * 60)
    talk = behind_a_gap(b"", pieces=[data[i : i + 1000] for i in range(0, len(data), 1000)])
    talk.close(SERVER, 4000)
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert view(closes, CLIENT) == (4000, "wire", "status", "medium")
    assert "resynchronized" in row["anomalies"]


def test_what_proves_to_be_no_frame_takes_its_close_back():
    """Compressed bytes that look like a Close, then bytes that cannot follow one."""
    talk = behind_a_gap(close(1000))
    talk.say(SERVER, b"\xff\xfe\xfd\xfc")
    talk.end()
    closes, (row,) = analyze(talk.pcap())
    assert view(closes, CLIENT) == (None, "undetermined", "gap", None)
    assert row["server_close"] == "none"


@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_random_bytes_are_seldom_taken_for_frames(side):
    """As often as the docstring of `find_step` says, within what chance allows (seed fixed)."""
    import numpy as np

    from analyzer.model import SIDE

    rng = random.Random(f"random {side}")
    n = 2_000_000 if kernel.is_compiled() else 60_000
    content = np.frombuffer(rng.randbytes(n + 300), np.uint8)
    row = np.zeros(1, SIDE)
    found = closes = 0
    for at in range(n):
        frames.begin_side(row[0], frames.IN_STEP)
        frames.lose_step(row[0])
        if midstream.find_step(content, at, 6 + at % 120, row[0], side == CLIENT, 4):
            found += 1
            closes += int(row[0]["unsure_close"])
    assert found <= 8 + n / 2**15
    assert closes <= 3 + n / 2**18


# ---- other protocols

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
other_traffic = importlib.import_module("other_traffic")


@pytest.mark.parametrize("kind", other_traffic.KINDS)
def test_other_protocols_are_no_websocket(kind):
    """20 MB together where kernels are compiled, and a tenth where they are not."""
    size = 550_000 if kernel.is_compiled() else 55_000
    for content in other_traffic.captures(kind, size, seed=11):
        _, n_flows, n = other_traffic.follow(content)
        assert n_flows
        assert n == 0


@pytest.mark.parametrize("folder", ["encapsulation"])
def test_captures_of_other_protocols(folder, shared, read_rows):
    for path in sorted((shared / "captures" / folder).glob("*.pcap*")):
        _, connections, _ = read_rows(path)
        assert all(row["handshake"] != "missing" for row in connections), path.name
