"""IP fragments put together: scapy cuts and tshark joins them too; what is missing or contradicts itself is counted."""

import io
import itertools
import pickle
import random
import struct
import subprocess
import time
from typing import NamedTuple

import numpy as np
import packets as build
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import CLIENT, SERVER, Conversation
from reading import analyze
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import IP, TCP, UDP, IPOption
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PadN, fragment6
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw
from test_dissect import Segment, by_scapy, to_address

from analyzer import kernel
from analyzer.capture import fragment, segments
from analyzer.capture.container import Chunk, Reader
from analyzer.capture.segments import Segmenter
from analyzer.model import Counter

SECOND = 10**9
START = 1_700_000_000 * SECOND
BODY = bytes(i * 7 % 251 for i in range(3000))


class Found(NamedTuple):
    packet: int
    ts_ns: int
    segment: Segment


def scan(packets, link_type=101, cuts=(), segmenter=None):
    """(segments in order, counters by name) of a capture that is read in chunks cut at these packets."""
    packets = [p if isinstance(p, build.Packet) else build.Packet(START + i * 1000, p) for i, p in enumerate(packets)]
    content = build.pcap(packets, link_type=link_type, nanoseconds=True)
    is_resumed, segmenter = segmenter is not None, segmenter or Segmenter()
    counters = np.zeros(len(Counter), np.int64)
    found = []
    for whole in Reader(io.BytesIO(content), "test").chunks():
        bounds = [0, *[c for c in sorted(cuts) if c < len(whole.packets)], len(whole.packets)]
        for begin, end in itertools.pairwise(bounds):
            if begin == end:
                continue
            chunk = Chunk(whole.data, whole.packets[begin:end], whole.first_packet + begin)
            data, rows = segmenter.scan(chunk, counters)
            assert not data.flags.writeable
            for row in rows:
                off, size = int(row["payload_off"]), int(row["payload_bytes"])
                assert 0 <= off <= off + size <= len(data)
                assert size <= row["wire_bytes"]
                source = to_address(int(row["src_hi"]), int(row["src_lo"]))
                target = to_address(int(row["dst_hi"]), int(row["dst_lo"]))
                names = ("sport", "dport", "seq", "ack", "flags", "window", "ttl")
                values = (int(row[name]) for name in names)
                payload = data[off : off + size].tobytes()
                one = Segment(source, target, *values, payload, int(row["wire_bytes"]))
                found.append(Found(int(row["packet"]), int(row["ts_ns"]), one))
        assert [one.packet for one in found] == sorted(one.packet for one in found)
    assert is_resumed or counters.min() >= 0
    return found, {c.name: int(counters[c]) for c in Counter if counters[c]}


def v4(body=BODY, ident=7, src="10.0.0.1", seq=1000, **more):
    return (
        IP(src=src, dst="10.0.0.2", id=ident, ttl=33, **more) / TCP(sport=5, dport=6, seq=seq, flags="PA") / Raw(body)
    )


def v6(body=BODY, ident=7, src="2001:db8::1", seq=1000, more=None):
    base = IPv6(src=src, dst="2001:db8::2", hlim=33)
    if more is not None:
        base = base / more
    return base / IPv6ExtHdrFragment(id=ident) / TCP(sport=5, dport=6, seq=seq, flags="PA") / Raw(body)


def cut(datagram, size=800):
    """(what scapy reads of the whole, the bytes of its fragments by scapy)."""
    if isinstance(datagram, IPv6):
        pieces = [bytes(piece) for piece in fragment6(datagram, size + 50)]
        return by_scapy(IPv6(bytes(datagram))), pieces
    return by_scapy(IP(bytes(datagram))), [bytes(piece) for piece in datagram.fragment(size)]


KINDS = {"v4": v4, "v6": v6}


@pytest.fixture(params=KINDS)
def make(request):
    return KINDS[request.param]


def raw4(start, data, *, more, ident=7, protocol=6):
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(data), ident, more << 13 | start // 8, 33, protocol)
    return head + b"\0\0" + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + data


def raw6(start, data, *, more, ident=7, follows=6):
    head = struct.pack("!IHBB", 0x60000000, 8 + len(data), 44, 33) + bytes(15) + b"\1" + bytes(15) + b"\2"
    return head + struct.pack("!BBHI", follows, 0, start | more, ident) + data


RAW = {"v4": raw4, "v6": raw6}


def by_hand(raw, *parts):
    """Fragments of these (offset, data), the last of them the end."""
    end = max(start + len(data) for start, data in parts)
    return [raw(start, data, more=int(start + len(data) < end)) for start, data in parts]


HEAD = build.tcp(5, 6, 1000, 0, build.ACK, b"")
TEXT = HEAD + BODY[:236]
"""256 bytes: a TCP segment to be cut by hand."""


# ---- what is whole


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order(make, order):
    want, pieces = cut(make())
    assert len(pieces) == 4
    found, counts = scan([pieces[at] for at in order])
    assert (found, counts) == ([Found(4, START + 3000, want)], {})


def test_scapy_and_tshark_put_the_same_together(tshark, make, tmp_path):
    want, pieces = cut(make())
    random.Random(1).shuffle(pieces)
    path = tmp_path / "x.pcap"
    path.write_bytes(build.pcap([build.Packet(START + i, p) for i, p in enumerate(pieces)], link_type=101))
    fields = [part for name in ("frame.number", "tcp.srcport", "tcp.seq_raw", "tcp.payload") for part in ("-e", name)]
    command = [tshark, "-n", "-r", str(path), "-Y", "tcp", "-T", "fields", *fields]
    (line,) = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    number, sport, seq, payload = line.split("\t")
    ((packet, _, got),), _ = scan(pieces)
    assert (packet, got.sport, got.seq, got.payload.hex()) == (int(number), int(sport), int(seq), payload)
    assert got == want


@pytest.mark.parametrize("size", [8, 24, 32, 200, 1400])
def test_any_size(size, make):
    want, pieces = cut(make(BODY[:700]), size)
    found, counts = scan(pieces)
    assert ([one.segment for one in found], counts) == ([want], {})


def test_options_and_extension_headers():
    want, pieces = cut(v4(options=[IPOption(copy_flag=1, optclass=0, option=7, value=b"\x04" + bytes(8))]))
    assert [one.segment for one in scan(pieces)[0]] == [want]
    want, pieces = cut(v6(more=IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])))
    assert [one.segment for one in scan(pieces)[0]] == [want]


def test_many_at_once_between_others(make):
    rng = random.Random(5)
    wants, waiting = [], []
    for i in range(60):
        source = f"10.0.0.{1 + i // 20}" if make is v4 else f"2001:db8::{1 + i // 20}"
        want, pieces = cut(make(BODY[: 900 + 8 * i], ident=i % 20, src=source, seq=i))
        wants.append(want)
        waiting.append(pieces)
    packets, plain = [], 0
    while any(waiting):
        chosen = rng.choice([pieces for pieces in waiting if pieces])
        packets.append(chosen.pop(rng.randrange(len(chosen))))
        if rng.random() < 0.3:
            packets.append(bytes(IP(src="9.9.9.9", dst="8.8.8.8") / TCP(sport=9, dport=9) / b"plain"))
            plain += 1
    found, counts = scan(packets)
    assert counts == {}
    assert sorted(one.segment for one in found if one.segment.sport == 5) == sorted(wants)
    assert sum(one.segment.sport == 9 for one in found) == plain


def test_the_same_number_again(make):
    """The identification is free again once a datagram is whole, and so it is when its time is over."""
    packets, wants = [], []
    for seq in range(5):
        want, pieces = cut(make(BODY[seq:], seq=seq))
        wants.append(want)
        packets += pieces
    assert ([one.segment for one in scan(packets)[0]], scan(packets)[1]) == (wants, {})


def test_the_same_number_again_between_others(make):
    """A number that is used again takes the place of its own datagram in the table, and no other's."""
    wants, packets = [], []
    for seq in range(6):
        want, again = cut(make(BODY[seq:], seq=seq))
        other, others = cut(make(BODY[seq + 1 :], ident=100 + seq, seq=seq))
        wants += [want, other]
        packets += [again[0], others[0], *again[1:], *others[1:]]
    found, counts = scan(packets)
    assert ([one.segment for one in found], counts) == (wants, {})


# ---- copies


@pytest.mark.parametrize("order", ["each twice", "all twice", "all backwards again", "first again", "each thrice"])
def test_copies_do_no_harm(make, order):
    """A mirror port that shows every packet twice, in either order of things."""
    want, pieces = cut(make())
    packets = {
        "each twice": [p for p in pieces for _ in range(2)],
        "all twice": pieces * 2,
        "all backwards again": pieces + pieces[::-1],
        "first again": [*pieces[:2], pieces[0], *pieces[2:]],
        "each thrice": [p for p in pieces[::-1] for _ in range(3)],
    }[order]
    found, counts = scan(packets)
    assert ([one.segment for one in found], counts) == ([want], {})


def test_copies_with_another_ttl():
    """Mirrored before and behind a router."""
    want, pieces = cut(v4())
    again = [p[:8] + bytes([p[8] - 1]) + p[9:] for p in pieces]
    found, counts = scan([p for pair in zip(pieces, again, strict=True) for p in pair])
    assert ([one.segment for one in found], counts) == ([want], {})


# ---- what is not whole


@pytest.mark.parametrize("lost", range(4))
def test_one_is_missing(make, lost):
    _, pieces = cut(make())
    del pieces[lost]
    assert scan(pieces) == ([], {"FRAGMENT": 3})
    assert scan(pieces * 2) == ([], {"FRAGMENT": 6})


@pytest.mark.parametrize(("kind", "limit"), [("v4", 30), ("v6", 60)])
def test_the_rest_comes_too_late(kind, limit):
    """RFC 8200 section 4.5: 60 seconds; what comes later begins another datagram, which is not whole either."""
    want, pieces = cut(KINDS[kind]())
    for seconds, is_whole in ((limit - 0.001, True), (limit, True), (limit + 0.001, False), (-limit - 5, True)):
        packets = [build.Packet(START, p) for p in pieces[:3]]
        packets.append(build.Packet(START + int(seconds * SECOND), pieces[3]))
        found, counts = scan(packets)
        assert ([one.segment for one in found], counts) == (([want], {}) if is_whole else ([], {"FRAGMENT": 4}))


def test_late_ones_begin_anew(make):
    """An old fragment of the same number does not spoil the datagram that comes after its time."""
    _, old = cut(make(BODY[::-1]))
    want, pieces = cut(make())
    packets = [build.Packet(START, old[1])] + [build.Packet(START + 61 * SECOND, p) for p in pieces]
    found, counts = scan(packets)
    assert ([one.segment for one in found], counts) == ([want], {"FRAGMENT": 1})


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_what_no_host_would_take(raw):
    """A length that is no multiple of 8 before the end, nothing at all, and what reaches behind 64 KiB."""
    good = by_hand(raw, (0, TEXT[:128]), (128, TEXT[128:]))
    odd = raw(64, TEXT[64:100], more=1)
    empty = raw(64, b"", more=0)
    far = raw(65528, bytes(64), more=0)
    found, counts = scan([good[0], odd, empty, far, good[1]])
    assert (len(found), counts) == (1, {"MALFORMED": 3})


# ---- overlaps


def test_ipv4_overlaps_in_part():
    """Hosts drop them, as Linux has since 2018 (CVE-2018-5391), even where the bytes agree."""
    parts = [(0, TEXT[:128]), (64, TEXT[64:192]), (192, TEXT[192:])]
    for order in itertools.permutations(by_hand(raw4, *parts)):
        assert scan(order) == ([], {"OVERLAP": 3})


def test_overlaps_without_number_cost_no_time():
    """Each overlaps all others: 1.5 MB took 28 s while the bytes of every overlap were compared."""
    packets = []
    for i in range(24):
        start, size = 8 * i, 64800 - 16 * i
        packets.append(raw4(start, bytes(size), more=True))
    started = time.process_time()
    scan(packets)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("at", [0, 64, 100, 127])
def test_ipv4_overlaps_that_contradict(at):
    """Nobody can tell which copy its receiver took: no segment, and every fragment is counted."""
    other = bytearray(TEXT[:128])
    other[at] ^= 1
    parts = [(0, TEXT[:128]), (64, bytes(other[64:]) + TEXT[128:192]), (192, TEXT[192:])]
    if at < 64:
        parts[1] = (0, bytes(other))
    for order in itertools.permutations(by_hand(raw4, *parts)):
        assert scan(order) == ([], {"OVERLAP": 3})


@pytest.mark.parametrize(
    "parts", [[(0, 128), (120, 256)], [(0, 128), (8, 16)], [(8, 256), (0, 16)], [(0, 128), (0, 136), (136, 256)]]
)
def test_ipv6_overlaps_never_make_a_datagram(parts):
    """RFC 5722 section 4: dropped whole, though every byte agrees, and with it what comes later."""
    chosen = [(a, TEXT[a:b]) for a, b in parts]
    pieces = [raw6(a, TEXT[a:b], more=int(b < 256)) for a, b in parts]
    rest = raw6(128, TEXT[128:256], more=0)
    assert len(chosen) == len(pieces)
    found, counts = scan([*pieces, rest, pieces[0]])
    assert (found, counts) == ([], {"OVERLAP": len(pieces) + 2})


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_ends_that_contradict(raw):
    two_ends = [raw(64, TEXT[64:128], more=0), raw(128, TEXT[128:], more=0), raw(0, TEXT[:64], more=1)]
    behind_the_end = [raw(64, TEXT[64:128], more=0), raw(128, TEXT[128:], more=1), raw(0, TEXT[:64], more=1)]
    for pieces in (two_ends, behind_the_end):
        for order in itertools.permutations(pieces):
            found, counts = scan(order)
            if pieces[1] is order[2]:  # whole before anything contradicted; what comes then begins another
                assert ([one.segment.wire_bytes for one in found], counts) == ([108], {"FRAGMENT": 1})
            else:
                assert (found, counts) == ([], {"OVERLAP": 3})


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_the_same_place_with_other_bytes(raw):
    changed = bytearray(TEXT[:128])
    changed[127] ^= 0x80
    packets = [raw(0, TEXT[:128], more=1), raw(0, bytes(changed), more=1), raw(128, TEXT[128:], more=0)]
    assert scan(packets) == ([], {"OVERLAP": 3})


# ---- halves of two datagrams


@pytest.mark.parametrize("size", [1600, 1601, 2400])
def test_halves_of_two_datagrams_are_told_by_the_checksum(make, size):
    """RFC 4963: the end of one is lost, and so is the beginning of the next that has its number."""
    _, first = cut(make(BODY[:size]))
    _, second = cut(make(BODY[1:size] + b"x", seq=2000))
    assert scan([first[0], *second[1:]]) == ([], {"MALFORMED": 1})
    outer = [bytes(p) for p in in_vxlan(bytes(make(BODY[:size])), 0x86DD if make is v6 else 0x0800).fragment(800)]
    other = [bytes(p) for p in in_vxlan(bytes(make(BODY[-size:])), 0x86DD if make is v6 else 0x0800).fragment(800)]
    assert scan([outer[0], *other[1:]]) == ([], {"MALFORMED": 1})


@pytest.mark.parametrize("size", [901, 1602, 1603])
def test_checksums(make, size):
    """Scapy's, over odd and even lengths and with options; one of 0 was never filled in."""
    for options in ([], [("NOP", None)] * 7, [("NOP", None)] * 40):
        datagram = make(BODY[:size])
        datagram[TCP].options = options
        want, pieces = cut(datagram)
        assert ([one.segment for one in scan(pieces)[0]], scan(pieces)[1]) == ([want], {})
        datagram[TCP].chksum = 0
        assert len(scan(cut(datagram)[1])[0]) == 1
        datagram[TCP].chksum = 1
        assert scan(cut(datagram)[1]) == ([], {"MALFORMED": 1})


# ---- in tunnels


def in_vxlan(data, ethertype=0x0800):
    inner = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=ethertype) / Raw(data)
    return IP(src="192.0.2.1", dst="192.0.2.2", id=99) / UDP(sport=4, dport=4789, chksum=0) / VXLAN(vni=7) / inner


def test_fragments_of_a_tunnel():
    want = by_scapy(v4())
    _, pieces = cut(in_vxlan(bytes(v4())))
    found, counts = scan(pieces)
    assert ([one.segment for one in found], counts) == ([want], {})


def test_fragments_in_a_tunnel(make):
    want, pieces = cut(make())
    wrapped = [bytes(in_vxlan(p, 0x86DD if make is v6 else 0x0800)) for p in pieces]
    found, counts = scan(wrapped)
    assert ([one.segment for one in found], counts) == ([want], {})


def test_fragments_of_fragments():
    """Cut, wrapped, and cut again, as deep as it may be; what is deeper is not put together."""
    want, pieces = cut(v4(), 1500)
    sizes = [len(pieces)]
    for depth in range(1, segments.MAX_ROUNDS + 2):
        again = []
        for i, piece in enumerate(pieces):
            outer = IP(src="192.0.2.1", dst="192.0.2.2", id=1000 * depth + i) / GRE(proto=0x0800) / Raw(piece)
            again += [bytes(p) for p in outer.fragment(800)]
        pieces = again
        sizes.append(len(pieces))
        found, counts = scan(pieces)
        if depth + 1 <= segments.MAX_ROUNDS:
            assert ([one.segment for one in found], counts) == ([want], {})
        else:
            assert (found, counts) == ([], {"FRAGMENT": sizes[depth - segments.MAX_ROUNDS]})


def test_what_fragments_hold_is_counted_as_what_it_is():
    for port, counter in ((53, "NOT_TCP"), (443, "QUIC")):
        datagram = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=port) / Raw(BODY)
        assert scan([bytes(piece) for piece in datagram.fragment(800)]) == ([], {counter: 1})
    outer = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=2152) / GTP_U_Header(gtp_type=255)
    want = by_scapy(v6())
    pieces = [bytes(piece) for piece in (outer / Raw(bytes(v6()))).fragment(800)]
    assert [one.segment for one in scan(pieces)[0]] == [want]


# ---- cut by snaplen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("snaplen", [68, 100, 200, 799])
def test_missing_bytes_are_known_to_be_missing(kind, snaplen):
    want, pieces = cut(KINDS[kind]())
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        packets = [build.Packet(START + i, pieces[at][:snaplen], len(pieces[at])) for i, at in enumerate(order)]
        ((_, _, got),), counts = scan(packets)
        assert counts == {}
        headers = 40 if kind == "v4" else 68
        assert got == want._replace(payload=BODY[: snaplen - headers])
        assert got.wire_bytes == len(BODY)


def test_one_cut_inside(make):
    """Nothing behind the hole is delivered, for nobody knows the bytes in it."""
    want, pieces = cut(make())
    first = len(pieces[0]) - (40 if make is v4 else 68)
    packets = [build.Packet(START + i, p) for i, p in enumerate(pieces)]
    packets[1] = build.Packet(START + 1, pieces[1][:200], len(pieces[1]))
    ((_, _, got),), _ = scan(packets)
    kept = first + 200 - (20 if make is v4 else 48)
    assert (got.payload, got.wire_bytes) == (want.payload[:kept], len(BODY))


def test_fragments_without_their_headers():
    """A snaplen that leaves less than the fragment header, or less than TCP's."""
    _, pieces = cut(v6())
    packets = [build.Packet(START, p[:44], len(p)) for p in pieces]
    assert scan(packets) == ([], {"CUT_HEADER": 4})
    packets = [build.Packet(START, p[:60], len(p)) for p in pieces]
    assert scan(packets) == ([], {"CUT_HEADER": 1})


def test_ethernet_padding_is_no_part_of_a_fragment(make):
    want, pieces = cut(make(BODY[:820]))
    assert len(pieces[1]) < 90
    for extra in (1, 8, 46):
        packets = [build.ethernet(p + b"\xaa" * extra, 0x0800 if make is v4 else 0x86DD) for p in pieces]
        found, counts = scan(packets, 1)
        assert ([one.segment for one in found], counts) == ([want], {})


def test_fragments_that_say_they_are_longer_than_what_travelled():
    """As where a capture was cut without a word: what is missing there is known to be missing."""
    for kind, make in KINDS.items():
        want, pieces = cut(make())
        headers = 40 if kind == "v4" else 68
        ((_, _, got),), counts = scan([pieces[0][:300], *pieces[1:]])
        assert counts == {}
        assert (got.payload, got.wire_bytes) == (want.payload[: 300 - headers], len(want.payload))


# ---- limits


def small(monkeypatch, **limits):
    for name, value in limits.items():
        monkeypatch.setattr(fragment, name, value)


def first_fragments(n, size=64):
    """Of as many datagrams, each of another source."""
    head, rest = raw4(0, bytes(size), more=1)[:12], raw4(0, bytes(size), more=1)[16:]
    return [head + struct.pack("!I", 0x0A000000 + i) + rest for i in range(n)]


LIMITS = [{"MAX_DATAGRAMS": 16}, {"MAX_FRAGMENTS": 32}, {"MAX_FRAGMENT_BYTES": 1 << 16}]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_a_flood_of_first_fragments(monkeypatch, limits):
    """The oldest leave and are counted; whoever is whole soon is not touched."""
    small(monkeypatch, **limits)
    segmenter = Segmenter()
    packets, wants = [], []
    flood = first_fragments(600, 640)
    for i in range(0, 600, 6):
        want, pieces = cut(v4(ident=i, src="10.9.9.9", seq=i))
        wants.append(want)
        packets += [*flood[i : i + 3], pieces[0], flood[i + 3], *pieces[1:], *flood[i + 4 : i + 6]]
    found, counts = scan(packets, segmenter=segmenter)
    assert [one.segment for one in found] == wants
    assert counts.keys() == {"FRAGMENT", "WAITING_FRAGMENTS"}
    assert sum(counts.values()) == 600
    assert counts["WAITING_FRAGMENTS"] > 400
    assert segmenter._fragments.n_waiting <= limits.get("MAX_DATAGRAMS", 110)


def test_what_is_too_old_is_no_victim_of_a_limit(monkeypatch):
    small(monkeypatch, MAX_DATAGRAMS=16)
    packets = [build.Packet(START + i * 31 * SECOND, p) for i, p in enumerate(first_fragments(100))]
    assert scan(packets) == ([], {"FRAGMENT": 100})


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_a_datagram_of_too_many_pieces(raw):
    body = HEAD + bytes(8 * (fragment.MAX_PIECES + 40))
    parts = [(i, body[i : i + 8]) for i in range(0, len(body), 8)]
    pieces = [raw(start, data, more=int(start + 8 < len(body))) for start, data in parts]
    assert scan(pieces) == ([], {"WAITING_FRAGMENTS": len(pieces)})
    fits = [raw(0, body[:64], more=1)] + [
        raw(start, body[start : start + 8], more=int(start + 8 < 64 + 8 * (fragment.MAX_PIECES - 1)))
        for start in range(64, 64 + 8 * (fragment.MAX_PIECES - 1), 8)
    ]
    found, counts = scan(fits)
    assert (len(found), counts) == (1, {})


def test_memory_stays_bounded():
    """Nothing before there is a fragment, and never more than the arrays of the limits."""
    segmenter = Segmenter()
    assert len(pickle.dumps(segmenter)) < 2000
    table = segmenter._fragments
    flood = first_fragments(2000)
    scan(flood, segmenter=segmenter)
    sizes = [array.nbytes for array in table._arrays]
    scan(flood, segmenter=segmenter)
    assert [array.nbytes for array in table._arrays] == sizes
    assert sum(sizes) < 30 << 20


# ---- chunks, processes, kernels


def mixture(seed):
    """Fragments of all kinds among whole packets, some lost, doubled, contradicting and out of order."""
    rng = random.Random(seed)
    packets = []
    for i in range(rng.randrange(4, 12)):
        make = rng.choice([v4, v6])
        body = rng.randbytes(rng.randrange(1, 1500))
        datagram = make(body, ident=rng.randrange(4), seq=i)
        if rng.random() < 0.3:
            datagram = in_vxlan(bytes(datagram), 0x86DD if make is v6 else 0x0800)
        _, pieces = cut(datagram, rng.choice([96, 200, 400, 1000]))
        if rng.random() < 0.2:
            pieces = [bytes(in_vxlan(p, 0x86DD if p[0] >> 4 == 6 else 0x0800)) for p in pieces]
        if rng.random() < 0.2:
            del pieces[rng.randrange(len(pieces))]
        if pieces and rng.random() < 0.3:
            pieces.append(rng.choice(pieces))
        if pieces and rng.random() < 0.2:
            broken = bytearray(rng.choice(pieces))
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            pieces.append(bytes(broken))
        packets += [(i * 5 + rng.random() * 12, p) for p in pieces]
    ordered = [p for _, p in sorted(packets)]
    return [
        build.Packet(START + i * rng.choice([1, SECOND]), p[: rng.choice([len(p), len(p), 90])], len(p))
        for i, p in enumerate(ordered)
    ]


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 80), max_size=5))
def test_any_chunks_give_the_same(seed, cuts):
    packets = mixture(seed)
    whole = scan(packets)
    assert scan(packets, cuts=cuts) == whole
    assert scan(packets, cuts=range(1, len(packets))) == whole


def test_taken_up_again_after_pickling():
    _, pieces = cut(v4())
    segmenter = Segmenter()
    assert scan(pieces[:2], segmenter=segmenter)[0] == []
    saved = pickle.dumps(segmenter)
    assert len(saved) < 6_000_000
    again = pickle.loads(saved)
    found, _ = scan(pieces[2:], segmenter=again)
    assert [one.segment for one in found] == [by_scapy(v4())]
    assert again._fragments._arrays[2].nbytes == fragment.MAX_FRAGMENT_BYTES


def test_interpreted_and_compiled_are_the_same():
    pytest.importorskip("numba")
    was_compiled = kernel.is_compiled()
    try:
        for seed in range(40):
            packets = mixture(seed)
            kernel.interpret_all()
            plain = scan(packets)
            kernel.compile_all()
            assert scan(packets) == plain
    finally:
        if not was_compiled:
            kernel.interpret_all()


near_fragments = st.builds(
    lambda data, changes: bytes(changes.get(i, byte) for i, byte in enumerate(data)),
    st.sampled_from([p for size in (64, 800) for make in (v4, v6) for p in cut(make(BODY[:900]), size)[1]]),
    st.dictionaries(st.integers(0, 70), st.sampled_from([0, 1, 6, 44, 0x20, 0x7F, 0x80, 0xFF]), max_size=3),
)


@given(st.lists(st.tuples(near_fragments, st.integers(0, 900), st.integers(0, 100)), max_size=25))
def test_any_fragments(rows):
    scan([build.Packet(START + i, data[:kept], len(data[:kept]) + more) for i, (data, kept, more) in enumerate(rows)])


# ---- all the way


def in_pieces(packets, size=48):
    """The same capture over a link of few bytes: every packet that does not fit comes in fragments."""
    out = []
    for at, packet in enumerate(packets):
        datagram = IP(packet.data[14:])
        datagram.id, datagram.flags, datagram.chksum = at, 0, None
        pieces = datagram.fragment(size) if len(packet.data) > size + 34 else [datagram]
        out += [
            build.Packet(packet.ts_ns + i, b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0" + bytes(p)) for i, p in enumerate(pieces)
        ]
    return out


def test_a_connection_in_fragments_gives_the_same_rows():
    talk = Conversation().upgrade()
    for i in range(20):
        talk.text(CLIENT, "x" * 37 * i)
        talk.text(SERVER, "y" * 41 * i)
    talk.close(SERVER, 1011, "the server fell over its own feet, and says so at length, so that it does not fit")
    talk.close(CLIENT, 1011)
    talk.end()
    closes, connections = analyze(talk.pcap())
    pieces = in_pieces(talk.packets)
    assert len(pieces) > 4 * len(talk.packets)
    again, connections_again = analyze(build.pcap(pieces, nanoseconds=True))
    unlike = ("record", "time", "ended", "opened", "duration_s", "connection")
    assert [(row["code"], row["provenance"]) for row in again] == [(1011, "wire")] * 2
    for was, now in [*zip(closes, again, strict=True), *zip(connections, connections_again, strict=True)]:
        differing = {name for name in was if was[name] != now[name] and not name.endswith(("_s", "_time", "_record"))}
        assert differing <= set(unlike)


def test_a_lost_fragment_never_becomes_another_code():
    """Whichever fragment is lost, the server's Close is read as it was, or its view is undetermined."""
    talk = Conversation().upgrade()
    talk.text(SERVER, "z" * 200)
    talk.close(SERVER, 1011, "a reason that is long enough for two fragments at the least, or three")
    talk.close(CLIENT, 1011)
    talk.end()
    pieces = in_pieces(talk.packets)
    codes = set()
    for lost in range(len(pieces)):
        closes, _ = analyze(build.pcap(pieces[:lost] + pieces[lost + 1 :], nanoseconds=True))
        codes |= {(row["code"], row["provenance"]) for row in closes}
    assert (1011, "wire") in codes
    assert all(code in (None, 1011) for code, _ in codes)
