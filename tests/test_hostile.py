"""Captures made to hurt: nothing raises, nothing hangs, memory stays bounded, every row keeps the invariants."""

import io
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import broken_invariants
from packets import (
    ACK,
    CLIENT,
    FIN,
    MASK,
    REQUEST,
    SERVER,
    SYN,
    Conversation,
    Packet,
    close,
    ethernet,
    frame,
    ipv4,
    pcap,
    response,
    tcp,
)
from reading import analyze

from analyzer.capture import flowtable, handshake, reassemble, tables
from analyzer.capture.container import Reader
from analyzer.capture.field_line import MAX_LINE_BYTES
from analyzer.capture.head import KEPT_LINES, parse_head
from analyzer.capture.tracker import Tracker
from analyzer.errors import CaptureError
from analyzer.knowledge import catalogue
from analyzer.verdict.connections import to_tables


def follow(packets: list[Packet], **more) -> tuple[list[dict], Tracker]:
    """Rows of `closes`, all sound, and the tracker that gave them."""
    own, closes = Tracker(**more), []
    batches = [some for chunk in Reader(io.BytesIO(pcap(packets)), "test").chunks() for some in own.feed(chunk)]
    for some in batches + own.finish():
        rows, connections = to_tables(some, source="test", catalogue=catalogue.load())
        closes += rows.rows()
        for row in connections.rows():
            assert all(value >= 0 for name, value in row.items() if name.endswith(("_bytes", "_frames", "_messages")))
    for row in closes:
        assert broken_invariants(row) == [], row
    return closes, own


def sound(content: bytes) -> None:
    try:
        closes, _ = analyze(content)
    except CaptureError:
        return
    for row in closes:
        assert broken_invariants(row) == [], row


bits = st.sampled_from(
    [b"\x88\x02\x03\xe8", b"\x88\0", b"\x81\x7f", b"\xff" * 8, b"\x7f\xff", b"GET ", b"HTTP/1.1 101"]
)
payloads = st.one_of(st.binary(max_size=40), st.lists(bits, max_size=4).map(b"".join))
moves = st.tuples(
    st.sampled_from([CLIENT, SERVER]),
    payloads,
    st.integers(0, 255),
    st.one_of(st.none(), st.integers(-300, 300), st.sampled_from([2**31 - 1, 2**31, 2**30, -(2**31)])),
    st.one_of(st.none(), st.integers(-300, 300), st.sampled_from([2**31 - 1, 2**31, 2**30])),
    st.one_of(st.none(), st.integers(0, 40)),
)


@settings(max_examples=250)
@given(st.lists(moves, max_size=12), st.booleans())
def test_any_segments_after_an_opening(steps, is_open):
    """Any payload, flags, sequence and acknowledgement numbers, and any cut."""
    talk = Conversation(isn={CLIENT: 2**32 - 200, SERVER: 2**31 - 100})
    if is_open:
        talk.upgrade()
    for side, payload, flags, seq, ack, captured in steps:
        other = SERVER if side == CLIENT else CLIENT
        talk.segment(
            side,
            payload,
            flags,
            seq=None if seq is None else talk.seq[side] + seq,
            ack=None if ack is None else talk.seq[other] + ack,
            captured=None if captured is None else min(captured, len(payload)),
        )
    follow(talk.packets)


LINK_TYPES = [0, 1, 9, 50, 51, 101, 104, 105, 107, 108, 109, 113, 117, 127, 147, 192, 204, 228, 229, 239, 258, 276]


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=90), min_size=1, max_size=5), st.sampled_from(LINK_TYPES))
def test_any_bytes_as_packets(contents, link_type):
    sound(pcap([Packet(10**18 + i, data) for i, data in enumerate(contents)], link_type=link_type))


@settings(max_examples=150)
@given(st.data())
def test_packets_with_flipped_bytes(data):
    """A sound conversation, some bytes of its packets or of the file replaced."""
    talk = Conversation().upgrade()
    talk.text(CLIENT)
    talk.close(SERVER, 1000, "bye")
    talk.close(CLIENT, 1000)
    talk.end(SERVER)
    content = bytearray(talk.pcap())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    sound(bytes(content))


MAGIC = [b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a"]
SECTION = bytes.fromhex("0a0d0d0a1c0000004d3c2b1a01000000ffffffffffffffff1c000000")


@settings(max_examples=200)
@given(st.sampled_from([b"", *MAGIC, SECTION]), st.binary(max_size=120))
def test_any_bytes_as_files(head, rest):
    sound(head + rest)


# ---- limits


@pytest.mark.parametrize("limit", [1, 2, 8, 16])
def test_flow_limit_evicts_the_idle(limit):
    """Row 33: what a limit drops is counted, and its views say so."""
    packets = []
    for i in range(3 * limit):
        talk = Conversation(sport=40000 + i, ts_ns=1_700_000_000 * 10**9 + i * 10**9).upgrade()
        talk.text(CLIENT)
        packets += talk.packets
    closes, own = follow(packets, max_flows=limit)
    evicted = [row for row in closes if row["evidence"] == "evicted"]
    assert len(closes) == 6 * limit
    assert own.n_evicted >= 2 * limit
    assert len(evicted) == 2 * own.n_evicted
    assert {row["end"] for row in evicted} == {"evicted"}
    assert len(own._flows) == limit


def test_thousands_of_half_open_flows():
    """A SYN flood beside one connection that lives on."""
    talk = Conversation().upgrade()
    packets = list(talk.packets)
    for i in range(3000):
        address = f"10.1.{i >> 8}.{i & 255}"
        packets.append(Packet(talk.ts_ns + i * 1000, ethernet(ipv4(address, "10.0.0.2", tcp(1024, 80, i, 0, SYN)))))
        if i % 50 == 0:
            talk.ts_ns = packets[-1].ts_ns
            talk.text(CLIENT)
            packets.append(talk.packets[-1])
    talk.close(SERVER, 1000)
    talk.ack(CLIENT)
    closes, own = follow([*packets, *talk.packets[-2:]], max_flows=256)
    assert [row["code"] for row in closes if row["endpoint"] == CLIENT] == [1000]
    assert own.n_evicted >= 2700
    assert len(own._flows) <= 256


def backwards(n: int, *, captured: int | None = None) -> Conversation:
    """n messages of the server that arrive last first, not acknowledged before they are all there."""
    talk = Conversation().upgrade()
    at = talk.seq[CLIENT]
    for _ in range(n):
        talk.text(SERVER, "x", ack=at, captured=captured)
    talk.packets[-n:] = talk.packets[-1 : -n - 1 : -1]
    talk.close(SERVER, 1000)
    talk.ack(CLIENT)
    return talk


def test_five_thousand_segments_backwards():
    """More than one stream may keep: the oldest gap is given up, the Close still found."""
    closes, own = follow(backwards(5000).packets)
    assert closes[0]["wire_code"] == 1000
    assert (closes[0]["code"], closes[0]["confidence"]) == (1000, "medium")
    assert len(own._parked) <= 4 * reassemble.MAX_PARKED_SEGMENTS


def test_what_fits_is_put_in_order():
    closes, own = follow(backwards(2000).packets)
    assert (closes[0]["code"], closes[0]["confidence"]) == (1000, "high")
    assert own.n_dropped_segments == 0


@pytest.mark.parametrize(("name", "limit"), [("MAX_POOL_BYTES", 400), ("MAX_POOL_SEGMENTS", 50)])
def test_pool_limit_drops_and_counts(monkeypatch, name, limit):
    """Segments that came too early, over all connections: beyond the limit they are dropped and counted."""
    monkeypatch.setattr(tables, name, limit)
    closes, own = follow(backwards(2000).packets)
    assert own.n_dropped_segments > 1000
    assert len(own._pool) <= 1 << 16
    assert len(own._parked) <= 1024
    assert closes[0]["wire_code"] in (None, 1000)
    assert closes[0]["code"] in (None, 1000)


def test_stream_limit_gives_up_the_gap():
    """A hole that nobody acknowledged, and more behind it than one stream may keep."""
    talk = Conversation().upgrade()
    talk.text(SERVER, lose=True)
    at = talk.seq[CLIENT]
    for _ in range(reassemble.MAX_PARKED_SEGMENTS + 50):
        talk.text(SERVER, ack=at)
    talk.close(SERVER, 1000)
    talk.ack(CLIENT)
    closes, own = follow(talk.packets)
    assert (closes[0]["code"], closes[0]["confidence"]) == (1000, "medium")
    assert own.n_dropped_segments == 0


def test_head_limit_drops_and_counts(monkeypatch):
    """Requests that never end, on more connections than there are slots; a whole one is read all the same."""
    monkeypatch.setattr(handshake, "MAX_HEAD_SLOTS", 128)
    packets = []
    for i in range(3 * 128):
        talk = Conversation(sport=30000 + i).open()
        talk.segment(CLIENT, REQUEST[:40])
        packets += talk.packets
    talk = Conversation().upgrade()
    talk.close(SERVER, 1000)
    talk.ack(CLIENT)
    closes, own = follow(packets + talk.packets)
    assert [row["code"] for row in closes if row["endpoint"] == CLIENT] == [1000]
    assert own.n_skipped_heads >= 2 * 128
    assert len(own._free_heads) == 128


def test_head_without_end():
    talk = Conversation().open()
    talk.segment(CLIENT, b"GET / HTTP/1.1\r\n")
    for _ in range(40):
        talk.segment(CLIENT, b"X-Filler: " + b"a" * 1000 + b"\r\n")
    closes, own = follow(talk.packets)
    assert closes == []
    assert own.n_skipped_heads == 1


def test_a_megabyte_out_of_order():
    """Segmentation offload makes packets far above any MTU; their IP length then reads 0."""
    talk = Conversation().upgrade()
    data = frame(2, b"x" * 1_000_000)
    talk.segment(SERVER, data[:10])
    segment = tcp(80, 40000, talk.seq[SERVER], talk.seq[CLIENT], ACK, data[10:])
    packet = bytearray(ethernet(ipv4("10.0.0.2", "10.0.0.1", b"")))
    packet[16:18] = b"\0\0"
    talk.packets.insert(-1, Packet(talk.ts_ns, bytes(packet) + segment))
    talk.seq[SERVER] += len(data) - 10
    talk.close(SERVER, 1000)
    talk.ack(CLIENT)
    closes, connections = analyze(talk.pcap())
    assert closes[0]["code"] == 1000
    assert (connections[0]["server_messages"], connections[0]["server_gap_bytes"]) == (1, 0)


@pytest.mark.parametrize("stride", [2, 3])
def test_many_tiny_gaps(stride):
    """Every second byte missing, then one segment that fills all the gaps at once."""
    talk = Conversation().upgrade()
    at, base = talk.seq[CLIENT], talk.seq[SERVER]
    data = frame(2, b"x" * 3000) + close(1000)
    for i in range(1, len(data), stride):
        talk.segment(SERVER, data[i : i + 1], seq=base + i, ack=at)
    talk.segment(SERVER, data, seq=base)
    talk.seq[SERVER] = base + len(data)
    talk.ack(CLIENT)
    closes, own = follow(talk.packets)
    assert (closes[0]["code"], closes[0]["confidence"]) == (1000, "high")
    assert own.n_dropped_segments == 0


def test_bytes_that_flip_between_copies():
    """Each byte sent 40 times, each time another value: work and memory grow with the packets only."""
    talk = Conversation().upgrade()
    base = talk.seq[SERVER]
    for value in range(40):
        for off in range(0, 60, 3):
            talk.segment(SERVER, bytes([value]) * 7, seq=base + 100 - off)
    closes, own = follow(talk.packets)
    assert own._state[flowtable.N_PARKED] <= 40
    assert closes


def test_more_spans_than_room():
    """4,095 cut segments wait; one segment fills every hole between them, in a chunk that has many spans already."""
    talk = Conversation().upgrade()
    base = talk.seq[SERVER]
    for i in range(4095):
        talk.segment(SERVER, b"xx", seq=base + 10 + 3 * i, captured=1)
    for _ in range(6000):
        talk.text(CLIENT, ack=base)
    talk.segment(SERVER, b"z" * (3 * 4095), seq=base + 9)
    follow(talk.packets)


def test_strange_options_and_lengths_of_headers():
    """TCP and IP header lengths that reach beyond the packet, or stay below their minimum."""
    for words in range(16):
        segment = bytearray(tcp(40000, 80, 1, 1, SYN | FIN | ACK, b"GET / HTTP/1.1\r\n"))
        segment[12] = words << 4
        for size in (54, 60, 70):
            packet = bytearray(ethernet(ipv4("10.0.0.1", "10.0.0.2", bytes(segment))))
            for first in (0x40, 0x45, 0x4F, 0x65):
                packet[14] = first
                follow([Packet(10**18, bytes(packet[:size]), wire_bytes=2**32 - 1)])


def test_times_that_jump():
    """Packets of 1970 and of 2106, in any order."""
    talk = Conversation().upgrade()
    talk.close(SERVER, 1000)
    talk.end(SERVER)
    for i, packet in enumerate(talk.packets):
        packet.ts_ns = (0, 2**32 - 1, 1)[i % 3] * 10**9
    closes, _ = follow(talk.packets)
    assert closes[0]["code"] == 1000


def test_masked_length_bomb():
    """A frame of 2^63-1 bytes on both sides, then Closes inside it: none is found, none is claimed."""
    talk = Conversation().upgrade()
    for side in (CLIENT, SERVER):
        talk.segment(side, struct.pack("!BBQ", 0x82, 0xFF if side == CLIENT else 0x7F, 2**63 - 1) + MASK + close(1000))
    talk.end(SERVER)
    closes, _ = follow(talk.packets)
    assert [row["wire_code"] for row in closes] == [None, None]


def test_room_is_made_while_two_streams_wait():
    """What one stream has taken leaves holes in the pool; what the other still waits with moves, in its order."""
    first = Conversation().upgrade()
    second = Conversation(sport=50000, ts_ns=first.ts_ns).upgrade()
    packets = first.packets + second.packets
    n = 600
    for talk in (first, second):
        at, begin = talk.seq[CLIENT], len(talk.packets)
        for i in range(n):
            talk.text(SERVER, f"{i:03}", ack=at)
        talk.early = talk.packets[begin]
        talk.late = talk.packets[begin + 1 :]
    for a, b in zip(first.late[: n // 2], second.late[: n // 2], strict=True):
        packets += [b, a]
    packets.append(first.early)
    packets += first.late[n // 2 :] + second.late[n // 2 :]
    packets.append(second.early)
    for talk in (first, second):
        talk.close(SERVER, 1000)
        talk.ack(CLIENT)
        packets += talk.packets[-2:]
    closes, connections = analyze(pcap(packets))
    assert [(row["code"], row["confidence"]) for row in closes if row["endpoint"] == CLIENT] == [(1000, "high")] * 2
    assert [(row["server_messages"], row["server_gap_bytes"]) for row in connections] == [(n, 0)] * 2


def test_long_blanks_in_a_header_cost_no_time():
    """A pattern that looked for blanks before a line's end took 23 s for this."""
    head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nA: y" + b" " * 30000 + b"x\r\n\r\n"
    talk = Conversation().open()
    talk.say(CLIENT, head[:20000])
    talk.say(CLIENT, head[20000:])
    _, connections = analyze(talk.pcap())
    assert connections[0]["path"] == "/"
    for _ in range(20):
        parse_head(head.decode("latin-1"))


def test_of_heads_is_kept_what_is_used():
    """Lines are cut, and of many that say the same the first are kept: every open connection holds them."""
    many = b"GET /" + b"p" * 5000 + b" HTTP/1.1\r\nHost: " + b"h" * 5000 + b"\r\nHost: x" * 1000
    many += b"\r\nCookie: " + b"c" * 10000 + b"\r\nUpgrade: websocket\r\n\r\n"
    talk = Conversation().open()
    for at in range(0, len(many), 1400):
        talk.say(CLIENT, many[at : at + 1400])
    talk.say(SERVER, response())
    _, (row,) = analyze(talk.pcap())
    assert row["path"] == "/" + "p" * (MAX_LINE_BYTES - len("GET /"))
    assert row["host"] == "h" * (MAX_LINE_BYTES - len("Host: ")) + ", x" * (KEPT_LINES - 1)


def test_sections_without_number_are_read_in_one_go():
    """Copying the rest of the buffer for each block took 34 s for 300,000 of them."""
    section = b"\x0a\x0d\x0d\x0a" + (28).to_bytes(4, "little") + b"\x4d\x3c\x2b\x1a\x01\0\0\0" + b"\xff" * 8
    section += (28).to_bytes(4, "little")
    reader = Reader(io.BytesIO(section * 100_000), "x")
    assert list(reader.chunks()) == []
    assert (reader.n_bytes, reader.damaged_at) == (2_800_000, None)


def test_attempts_without_number_leave_as_they_are_superseded():
    head = b"GET / HTTP/1.1\nUpgrade: websocket\n\n"
    talk = Conversation().open()
    for _ in range(20):
        talk.say(CLIENT, head * 1500)
    tracker_, rows = Tracker(), 0
    reader = Reader(io.BytesIO(talk.pcap()), "x")
    for chunk in reader.chunks():
        rows += sum(len(finished.connections) for finished in tracker_.feed(chunk))
    rows += sum(len(finished.connections) for finished in tracker_.finish())
    assert rows == 30_000
    assert len(tracker_._connections) < 1000


def test_addresses_that_differ_anywhere_hash_apart():
    """Whoever makes a capture must not find flows that share a slot: ::/64 is IPv6 with an upper half of zeros."""
    rng = random.Random(1)
    keys = np.array([rng.getrandbits(64) | 1 for _ in range(9)], np.uint64)
    places = [(1 << bit, 0) for bit in range(63)] + [(0, 1 << bit) for bit in range(63)]
    with np.errstate(over="ignore"):
        for base in (0, 0xFFFF00000000, 0x20010DB8 << 32):
            hashes = {int(flowtable.flow_hash(hi, lo ^ base, 0, 1, 5, keys)) for hi, lo in places}
            assert len(hashes) == len(places)


def test_an_evicted_connection_is_not_counted_again():
    """Its later packets make no second row, even where their port is forced, and no second TCP connection."""
    first = Conversation().upgrade()
    first.text(CLIENT)
    first.text(SERVER)
    packets = list(first.packets)
    others = []
    for i in range(8):
        other = Conversation(sport=41000 + i, ts_ns=first.ts_ns + i * 10**9).upgrade()
        packets += other.packets
        others.append(other)
    begin = len(first.packets)
    first.ts_ns = packets[-1].ts_ns
    for _ in range(5):
        first.text(CLIENT)
        first.text(SERVER)
    first.close(SERVER, 1001)
    first.close(CLIENT, 1001)
    first.end()
    closes, own = follow([*packets, *first.packets[begin:]], max_flows=4, ports=(80,))
    assert own.n_evicted >= 5
    assert [row["evidence"] for row in closes if row["client"] == "10.0.0.1:40000"] == ["evicted"] * 2
    assert own.n_flows == own.n_connections == 9


def test_an_evicted_http_connection_may_still_open_a_websocket():
    first = Conversation().open()
    first.say(CLIENT, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    packets = list(first.packets)
    for i in range(8):
        packets += Conversation(sport=41000 + i, ts_ns=first.ts_ns + i * 10**9).upgrade().packets
    begin = len(first.packets)
    first.ts_ns = packets[-1].ts_ns
    first.say(SERVER, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    first.say(CLIENT, REQUEST)
    first.say(SERVER, response())
    first.close(SERVER, 1001)
    first.close(CLIENT, 1001)
    first.end()
    closes, own = follow([*packets, *first.packets[begin:]], max_flows=4)
    assert [row["code"] for row in closes if row["client"] == "10.0.0.1:40000"] == [1001, 1001]
    assert own.n_flows == 9


def test_packets_captured_twice_are_no_retransmissions():
    """Five copies of each packet, as mirror ports make them, then an idle connection: nobody vanished."""
    talk = Conversation().upgrade()
    talk.text(CLIENT)
    copies = [Packet(p.ts_ns + i * 1000, p.data) for p in talk.packets for i in range(5)]
    idle = Conversation(sport=50000, ts_ns=talk.ts_ns).upgrade().wait(20)
    idle.text(CLIENT)
    closes, _ = follow(copies + idle.packets)
    assert {row["end"] for row in closes} == {"open"}


def test_sequence_numbers_that_wrap_more_than_once():
    """9 GB one way in offloaded segments of 2 MB, cut off by a snaplen: all inside one frame, whose end is known."""
    talk = Conversation().upgrade()
    size, n = 2_000_000, 4_500
    talk.segment(SERVER, struct.pack("!BBQ", 0x82, 127, size * n))
    data = bytearray(ethernet(ipv4("10.0.0.2", "10.0.0.1", tcp(80, 40000, 0, talk.seq[CLIENT], ACK))))
    data[16:18] = b"\0\0"  # filled in by the network card, after the capture
    packets = []
    at = talk.seq[SERVER]
    for i in range(n):
        data[38:42] = ((at + i * size) & 0xFFFFFFFF).to_bytes(4, "big")
        packets.append(Packet(talk.ts_ns + i, bytes(data), 54 + size))
    talk.seq[SERVER] = (at + size * n) & 0xFFFFFFFF
    begin = len(talk.packets)
    talk.ts_ns += n
    talk.close(SERVER, 1001)
    talk.close(CLIENT, 1001)
    talk.end()
    closes, connections = analyze(pcap([*talk.packets[:begin], *packets, *talk.packets[begin:]]))
    assert [(row["code"], row["confidence"]) for row in closes] == [(1001, "high")] * 2
    assert connections[0]["server_gap_bytes"] == connections[0]["server_bytes"] == size * n > 2**33
