"""Packets to TCP segments: scapy builds and dissects the same packets, and what is not TCP is counted as what it is."""

import io
import ipaddress
import struct
from typing import NamedTuple

import numpy as np
import packets as build
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1Q, Ether, Loopback
from scapy.packet import Raw

from analyzer.capture import dissect
from analyzer.capture.container import Reader
from analyzer.model import ASIDE, SEGMENT, Counter

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ADDRESSES = {"src": "10.0.0.1", "dst": "10.0.0.2"}
HELLO = b"hello over tcp"
LINK_TYPES = (0, 1, 9, 12, 14, 50, 51, 101, 104, 107, 108, 109, 113, 117, 149, 204, 228, 229, 239, 258, 276)


class Packet(NamedTuple):
    data: bytes
    link_type: int = 1
    wire_bytes: int | None = None


class Segment(NamedTuple):
    src: str
    dst: str
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    window: int
    ttl: int
    payload: bytes
    wire_bytes: int


def to_address(hi, lo):
    address = ipaddress.IPv6Address((hi & (2**64 - 1)) << 64 | lo & (2**64 - 1))
    return str(address.ipv4_mapped or address)


def dissect_all(packets, link_type):
    """(segments by packet number, counters by name) of packets of one link type."""
    content = build.pcap([build.Packet(n, p.data, p.wire_bytes) for n, p in enumerate(packets)], link_type=link_type)
    counters = np.zeros(len(Counter), np.int64)
    found = {}
    for chunk in Reader(io.BytesIO(content), "test").chunks():
        rows = np.zeros(len(chunk.packets), SEGMENT)
        n, _ = dissect.scan_packets(chunk.data, chunk.packets, chunk.first_packet, rows, np.zeros(0, ASIDE), counters)
        for row in rows[:n]:
            off, size = int(row["payload_off"]), int(row["payload_bytes"])
            packet = chunk.packets[int(row["packet"]) - chunk.first_packet]
            assert row["ts_ns"] == packet["ts_ns"]
            assert packet["off"] <= off
            assert 0 <= size <= packet["off"] + packet["captured_bytes"] - off
            assert size <= row["wire_bytes"] <= packet["wire_bytes"]
            assert int(row["packet"]) not in found
            found[int(row["packet"])] = Segment(
                to_address(int(row["src_hi"]), int(row["src_lo"])),
                to_address(int(row["dst_hi"]), int(row["dst_lo"])),
                *(int(row[name]) for name in ("sport", "dport", "seq", "ack", "flags", "window", "ttl")),
                chunk.data[off : off + size].tobytes(),
                int(row["wire_bytes"]),
            )
    assert len(found) + counters.sum() == len(packets)
    return found, {c.name: int(counters[c]) for c in Counter if counters[c]}


def dissect_one(data, link_type=1, wire_bytes=None):
    found, counts = dissect_all([Packet(data, link_type, wire_bytes)], link_type)
    return found.get(1), counts


def by_scapy(frame):
    """What scapy reads from a packet that it dissected."""
    network, segment = frame[IPv6] if IPv6 in frame else frame[IP], frame[TCP]
    payload = segment[Raw].load if Raw in segment else b""
    flags = int(segment.flags) & 0xFF  # the ninth flag is not kept
    ttl = network.hlim if IPv6 in frame else network.ttl
    ports = segment.sport, segment.dport, segment.seq, segment.ack
    return Segment(network.src, network.dst, *ports, flags, segment.window, ttl, payload, len(payload))


NULL_FAMILIES = (2, 10, 24, 28, 30)
"""AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD and macOS (tcpdump.org/linktypes.html)."""

ADDRESS = b"\x02\0\0\0\0\x01"


def tagged(*tags):
    """Ethernet with so many tags, each by its own type."""

    def wrap(inner, ethertype):
        types = [*tags, ethertype]
        words = b"".join(struct.pack("!HH", 0xFFFF - at, after) for at, after in enumerate(types[1:]))
        return build.ethernet(words + inner, types[0])

    return wrap


def sll(inner, ethertype):
    return struct.pack("!HHH8sH", 0, 1, 6, ADDRESS, ethertype) + inner


def sll2(inner, ethertype):
    return struct.pack("!HHIHBB8s", ethertype, 0, 3, 1, 0, 6, ADDRESS) + inner


def loopback(family, order):
    return lambda inner, _: struct.pack(f"{order}I", family) + inner


def bare(inner, ethertype):
    return inner


LINKS = [
    ("ethernet", 1, tagged()),
    ("vlan", 1, tagged(0x8100)),
    ("qinq", 1, tagged(0x88A8, 0x8100)),
    ("qinq of old", 1, tagged(0x9100, 0x8100)),
    ("three tags", 1, tagged(0x88A8, 0x8100, 0x8100)),
    ("sll", 113, sll),
    ("sll with a tag", 113, lambda inner, type_: sll(struct.pack("!HH", 5, type_) + inner, 0x8100)),
    ("sll2", 276, sll2),
    *((f"null {family} {order}", 0, loopback(family, order)) for family in NULL_FAMILIES for order in "<>"),
    ("loop", 108, loopback(2, ">")),
    *((f"raw {number}", number, bare) for number in (101, 12, 14, 228, 229)),
]


def segment(**more):
    fields = {"sport": 40000, "dport": 65535, "seq": 0xFFFFFFFE, "ack": 0x80000000, "flags": "PA", "window": 0xFFFF}
    return TCP(**(fields | more))


def authentication(next_header, check_bytes):
    """RFC 4302 section 2; scapy neither fills in its length nor reads the check value without a key."""
    return Raw(struct.pack("!BBHII", next_header, (12 + check_bytes) // 4 - 2, 0, 1, 2) + bytes(check_bytes))


def networks():
    """Name, network packet."""
    v4 = {"src": "10.0.0.1", "dst": "255.254.128.127", "ttl": 255}
    v6 = {"src": "2001:db8::1", "dst": "fe80::ffff:8000:1", "hlim": 1}
    pad = [PadN(optdata=bytes(4))]
    record = IPOption(copy_flag=0, optclass=0, option=7, value=b"\x04" + bytes(8))
    routing = IPv6ExtHdrRouting(addresses=["2001:db8::9", "::2"], segleft=0)
    yield "v4", IP(**v4) / segment() / HELLO
    yield "v4 options", IP(**v4, options=[record]) / segment() / HELLO
    yield "v4 most options", IP(**v4, options=[IPOption(b"\x01")] * 40) / segment() / HELLO
    yield "v4 do not fragment", IP(**v4, flags="DF") / segment(flags="S", options=[("MSS", 1460)])
    yield "v4 reserved flag", IP(**v4, flags="evil") / segment() / HELLO
    yield "v4 most tcp options", IP(**v4) / segment(options=[("NOP", None)] * 40) / HELLO
    for flags in ("F", "S", "R", "P", "A", "U", "E", "C", "FSRPAUEC", "", "NSA"):
        yield f"v4 flags {flags}", IP(**v4) / segment(flags=flags)
    yield "v6", IPv6(**v6) / segment() / HELLO
    yield "v6 mapped", IPv6(src="::ffff:1.2.3.4", dst="::1") / segment() / HELLO
    yield "v6 hop by hop", IPv6(**v6) / IPv6ExtHdrHopByHop(options=pad) / segment() / HELLO
    yield "v6 routing", IPv6(**v6) / routing / segment() / HELLO
    yield "v6 destination", IPv6(**v6) / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(100))]) / segment() / HELLO
    yield "v6 atomic fragment", IPv6(**v6) / IPv6ExtHdrFragment(id=7, res1=255, res2=3) / segment() / HELLO
    several = IPv6ExtHdrHopByHop(options=pad) / IPv6ExtHdrDestOpt(options=pad) / routing / IPv6ExtHdrFragment(id=7)
    yield "v6 several", IPv6(**v6) / several / IPv6ExtHdrDestOpt(options=pad) / segment() / HELLO


def to_built():
    """(name, bytes, EtherType, what scapy dissects from them) of every network packet, AH with what it guards."""
    built = []
    for name, network in networks():
        data = bytes(network)
        kind, ethertype = (IPv6, 0x86DD) if IPv6 in network else (IP, 0x0800)
        want = by_scapy(kind(data))
        if name == "v6 mapped":
            want = want._replace(src="1.2.3.4")  # how SEGMENT writes IPv4
        built.append((name, data, ethertype, want))
    plain = IPv6(src="::1", dst="::2") / segment() / HELLO
    want = by_scapy(IPv6(bytes(plain)))
    for size in (4, 12, 20, 32, 64):
        guarded = IPv6(src="::1", dst="::2", nh=51) / authentication(6, size) / segment() / HELLO
        built.append((f"v6 ah of {size}", bytes(guarded), 0x86DD, want))
    inside = IPv6ExtHdrHopByHop(nh=51, options=[PadN(optdata=bytes(4))]) / authentication(60, 12)
    guarded = IPv6(src="::1", dst="::2") / inside / IPv6ExtHdrDestOpt(options=[]) / segment() / HELLO
    built.append(("v6 ah between others", bytes(guarded), 0x86DD, want))
    return built


BUILT = to_built()


@pytest.mark.parametrize(("link_type", "wrap"), [pytest.param(*rest, id=name) for name, *rest in LINKS])
def test_every_link_layer_with_every_network_layer(link_type, wrap):
    found, counts = dissect_all([Packet(wrap(data, ethertype)) for _, data, ethertype, _ in BUILT], link_type)
    assert counts == {}
    for number, (name, _, _, want) in enumerate(BUILT, 1):
        assert (name, found[number]) == (name, want)


def test_scapy_reads_the_same_link_layers():
    """The wrappers above are what scapy takes them for, so that they cannot be wrong on both sides."""
    readers = {1: Ether, 113: CookedLinux, 276: CookedLinuxV2, 0: Loopback}
    names = ("ethernet", "vlan", "qinq", "three tags", "sll", "sll with a tag", "sll2", "null 2 <")
    kinds = {name: (link_type, wrap) for name, link_type, wrap in LINKS}
    for name in names:
        link_type, wrap = kinds[name]
        _, data, ethertype, want = BUILT[0]
        assert by_scapy(readers[link_type](wrap(data, ethertype))) == want, name


@pytest.mark.parametrize("length", range(20))
def test_ethernet_padding_is_not_payload(length):
    frame = ETHER / IP(src="1.2.3.4", dst="4.3.2.1") / segment() / Raw(b"x" * length)
    data = bytes(frame) + b"\xaa" * 20
    got, _ = dissect_one(data)
    assert got == by_scapy(Ether(data))
    assert got.payload == b"x" * length
    frame = ETHER / IPv6(src="::1", dst="::2") / segment() / Raw(b"x" * length)
    got, _ = dissect_one(bytes(frame) + b"\xaa" * 20)
    assert (got.payload, got.wire_bytes) == (b"x" * length, length)


def test_total_length_of_zero_means_all_there_is():
    """Segmentation offload: the network card fills it in behind the capture point."""
    for network in (IP(src="1.2.3.4", dst="4.3.2.1", len=0), IPv6(src="::1", dst="::2", plen=0)):
        data = bytes(ETHER / network / segment() / Raw(bytes(30_000)))
        got, _ = dissect_one(data)
        assert (got.payload, got.wire_bytes) == (bytes(30_000), 30_000)
        got, _ = dissect_one(data[:200], wire_bytes=len(data))
        assert got.wire_bytes == 30_000


@pytest.mark.parametrize("name", ["v4", "v4 options", "v4 most tcp options", "v6", "v6 several"])
def test_every_snaplen(name):
    _, network, ethertype, want = next(row for row in BUILT if row[0] == name)
    data = build.ethernet(network, ethertype)
    payload_at = len(data) - len(HELLO)
    tcp_at = data.index(struct.pack("!HHI", 40000, 65535, 0xFFFFFFFE))
    for kept in range(len(data) + 1):
        got, counts = dissect_one(data[:kept], wire_bytes=len(data))
        if kept < tcp_at + 20:
            assert (got, counts) == (None, {"CUT_HEADER": 1})
        else:
            assert got == want._replace(payload=HELLO[: max(0, kept - payload_at)])
            assert got.wire_bytes == len(HELLO)


def v4(protocol, payload, **more):
    return build.ethernet(build.ipv4("10.0.0.1", "10.0.0.2", payload, protocol=protocol, **more))


def good_tcp(payload=HELLO, *, words=5):
    tcp = bytearray(build.tcp(1, 2, 3, 4, build.ACK, payload))
    tcp[12] = words << 4
    return bytes(tcp)


def changed(data, **bytes_at):
    """Bytes put in: `b16=0x45` at offset 16."""
    data = bytearray(data)
    for name, value in bytes_at.items():
        data[int(name[1:])] = value
    return bytes(data)


TCP_FRAME = v4(6, good_tcp())
V4 = ETHER / IP(**ADDRESSES)
REQUEST = b"\0\1\x08\0\6\4\0\1" + bytes(20)
"""ARP (RFC 826)."""

V6 = ETHER / IPv6(src="::1", dst="::2")

COUNTED = [
    ("first fragment", 1, TCP_FRAME[:20] + b"\x20\x00" + TCP_FRAME[22:], "FRAGMENT"),
    ("last fragment", 1, TCP_FRAME[:20] + b"\x00\x01" + TCP_FRAME[22:], "FRAGMENT"),
    ("fragment far behind", 1, TCP_FRAME[:20] + b"\x1f\xff" + TCP_FRAME[22:], "FRAGMENT"),
    ("fragment of udp", 1, bytes(ETHER / IP(**ADDRESSES, flags="MF") / UDP(dport=4789) / HELLO), "FRAGMENT"),
    ("v6 first fragment", 1, bytes(V6 / IPv6ExtHdrFragment(m=1) / segment() / HELLO), "FRAGMENT"),
    ("v6 last fragment", 1, bytes(V6 / IPv6ExtHdrFragment(offset=1) / segment() / HELLO), "FRAGMENT"),
    ("quic to a server", 1, bytes(V4 / UDP(sport=50000, dport=443) / HELLO), "QUIC"),
    ("quic from a server", 1, bytes(V6 / UDP(sport=443, dport=50000) / HELLO), "QUIC"),
    ("dns", 1, bytes(V4 / UDP(sport=50000, dport=53) / HELLO), "NOT_TCP"),
    ("udp from port 6", 1, bytes(V4 / UDP(sport=6, dport=6) / HELLO), "NOT_TCP"),
    ("icmp", 1, bytes(V4 / ICMP() / HELLO), "NOT_TCP"),
    ("icmp about tcp", 1, bytes(V4 / ICMP(type=3) / IP(**ADDRESSES) / TCP()), "NOT_TCP"),
    ("sctp", 1, v4(132, bytes(40)), "NOT_TCP"),
    ("esp", 1, v4(50, bytes(40)), "NOT_TCP"),
    ("no next header", 1, bytes(V6 / IPv6ExtHdrHopByHop(nh=59) / HELLO), "NOT_TCP"),
    ("arp", 1, build.ethernet(REQUEST, 0x0806), "NOT_IP"),
    ("arp behind a tag", 1, build.ethernet(b"\0\x01\x08\x06" + REQUEST, 0x8100), "NOT_IP"),
    ("arp over sll2", 276, sll2(REQUEST, 0x0806), "NOT_IP"),
    ("lldp", 1, build.ethernet(bytes(46), 0x88CC), "NOT_IP"),
    ("spanning tree", 1, build.ethernet(b"\x42\x42\x03" + bytes(43), 38), "NOT_IP"),
    ("pppoe discovery", 1, build.ethernet(b"\x11\x09" + bytes(44), 0x8863), "NOT_IP"),
    ("null appletalk", 0, struct.pack("<I", 16) + b"\x10" + bytes(40), "NOT_IP"),
    ("raw, neither version", 101, b"\x55" + TCP_FRAME[15:], "NOT_IP"),
    ("802.11", 105, bytes(80), "LINK_TYPE"),
    ("radiotap", 127, bytes(80), "LINK_TYPE"),
    ("unknown link type", 0x03FFFFFF, TCP_FRAME, "LINK_TYPE"),
    ("unknown and empty", 147, b"", "LINK_TYPE"),
    ("empty", 1, b"", "CUT_HEADER"),
    ("ethernet cut", 1, TCP_FRAME[:13], "CUT_HEADER"),
    ("tag cut", 1, bytes(ETHER / Dot1Q() / IP(**ADDRESSES))[:17], "CUT_HEADER"),
    ("sll cut", 113, sll(b"", 0x0800)[:15], "CUT_HEADER"),
    ("sll2 cut", 276, sll2(b"", 0x0800)[:19], "CUT_HEADER"),
    ("null cut", 0, b"\x02\0\0", "CUT_HEADER"),
    ("loop cut", 108, b"\0\0\0", "CUT_HEADER"),
    ("v4 cut", 1, TCP_FRAME[:33], "CUT_HEADER"),
    ("v6 cut", 1, bytes(V6 / segment())[:53], "CUT_HEADER"),
    ("v6 extension cut", 1, bytes(V6 / IPv6ExtHdrDestOpt() / segment())[:61], "CUT_HEADER"),
    ("total length below the header's, udp", 1, changed(v4(17, bytes(40)), b16=0, b17=19), "MALFORMED"),
    ("version of v6 in v4", 1, changed(TCP_FRAME, b14=0x65), "MALFORMED"),
    ("version of v4 in v6", 1, changed(bytes(V6 / segment()), b14=0x40), "MALFORMED"),
    *((f"{n} header words", 1, changed(TCP_FRAME, b14=0x40 | n), "MALFORMED") for n in range(5)),
    *((f"total length {n}", 1, changed(TCP_FRAME, b16=0, b17=n), "MALFORMED") for n in (1, 19)),
    *((f"total length {n} for tcp", 1, changed(TCP_FRAME, b16=0, b17=n), "MALFORMED") for n in (20, 39)),
    *((f"{n} words of tcp", 1, v4(6, good_tcp(words=n)), "MALFORMED") for n in range(5)),
    ("tcp header longer than what there is", 1, v4(6, good_tcp(b"123", words=6)), "MALFORMED"),
    ("tcp header of sixty", 1, v4(6, good_tcp(bytes(39), words=15)), "MALFORMED"),
    (
        "v6 payload of a few bytes",
        1,
        bytes(ETHER / IPv6(src="::1", dst="::2", plen=19) / segment() / HELLO),
        "MALFORMED",
    ),
    ("too short for tcp", 1, v4(6, bytes(19)), "MALFORMED"),
]


@pytest.mark.parametrize(("link_type", "data", "counter"), [pytest.param(*rest, id=name) for name, *rest in COUNTED])
def test_what_is_no_segment_is_counted_once(link_type, data, counter):
    assert dissect_one(data, link_type) == (None, {counter: 1})


def test_tags_and_extension_headers_without_end():
    many = b"".join(struct.pack("!HH", i, 0x8100) for i in range(1000))
    assert dissect_one(build.ethernet(many + TCP_FRAME[14:], 0x8100))[0] is None
    headers = bytes([0]) + bytes(7)
    data = struct.pack("!IHBB32x", 0x60000000, 8 * 1000, 0, 64) + headers * 1000
    assert dissect_one(build.ethernet(data, 0x86DD))[0] is None


def test_counters_add_to_what_is_there_and_numbers_go_on():
    packets = [Packet(TCP_FRAME), Packet(build.ethernet(REQUEST, 0x0806)), Packet(TCP_FRAME), Packet(TCP_FRAME[:20])]
    found, counts = dissect_all(packets, 1)
    assert list(found) == [1, 3]
    assert counts == {"NOT_IP": 1, "CUT_HEADER": 1}


def test_ethernet_without_a_type_is_not_ip():
    """A type of 0 is a length (IEEE 802.3), whatever the byte behind it looks like."""
    assert dissect_one(build.ethernet(TCP_FRAME[14:], 0)) == (None, {"NOT_IP": 1})


# ---- any bytes


near_tcp = st.builds(
    lambda data, changes: changed(data, **{f"b{at % len(data)}": value for at, value in changes}),
    st.sampled_from(
        [data for _, _, data, _ in COUNTED if data]
        + [build.ethernet(data, ethertype) for _, data, ethertype, _ in BUILT]
    ),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([0, 1, 6, 0x40, 0x7F, 0x80, 0xFF])), max_size=4),
)


@given(
    st.lists(
        st.tuples(st.one_of(st.binary(max_size=120), near_tcp), st.integers(0, 100), st.integers(0, 200)), max_size=30
    ),
    st.one_of(st.sampled_from(LINK_TYPES), st.integers(0, 0x03FFFFFF)),
)
def test_any_bytes_are_a_segment_or_counted(rows, link_type):
    packets = [
        Packet(data[: len(data) - cut] if cut < 60 else data, wire_bytes=len(data) + more) for data, cut, more in rows
    ]
    dissect_all(packets, link_type)


@given(st.sampled_from(LINKS), st.sampled_from(BUILT), st.binary(max_size=60), st.integers(0, 150))
def test_any_tail_of_a_good_head(link, network, tail, kept):
    _, link_type, wrap = link
    _, data, ethertype, _ = network
    dissect_all([Packet(wrap(data, ethertype)[:kept] + tail)], link_type)
