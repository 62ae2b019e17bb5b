"""Packets inside packets: scapy builds and reads them, tshark reads them, and the segments agree with both."""

import struct
import subprocess

import packets as build
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.erspan import ERSPAN_I, ERSPAN_II, ERSPAN_III, ERSPAN_PlatformSpecific
from scapy.contrib.etherip import EtherIP
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS, EoMCW
from scapy.contrib.tzsp import TZSP, TZSPTagEnd, TZSPTagPadding, TZSPTagRawRSSIByte
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, GRE, GRE_PPTP, Dot1Q, Ether
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw
from test_dissect import BUILT, HELLO, Packet, by_scapy, dissect_all, dissect_one, segment, sll

from analyzer.capture import dissect

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
OUTER = ETHER / IP(src="192.0.2.1", dst="192.0.2.2", ttl=7)
OUTER6 = ETHER / IPv6(src="2001:db8:ffff::1", dst="2001:db8:ffff::2", hlim=7)


def inner_ether(data, ethertype):
    return Ether(src="06:00:00:00:00:01", dst="06:00:00:00:00:02", type=ethertype) / Raw(data)


def ip_of(data, ethertype):
    return Raw(data)


def udp(port):
    return UDP(sport=50000, dport=port, chksum=0)


def ppp(data, ethertype):
    return PPP(proto=0x0021 if ethertype == 0x0800 else 0x0057) / Raw(data)


def labels(*numbers):
    stack = None
    for at, number in enumerate(numbers):
        label = MPLS(label=number, cos=at % 8, s=int(at == len(numbers) - 1), ttl=64)
        stack = label if stack is None else stack / label
    return stack


def nflog(order):
    def wrap(data, ethertype):
        fields = b""
        for kind, value in ((1, b"\x08\x00\x00\x00"), (10, b"prefix\0"), (9, data)):
            fields += struct.pack(f"{order}HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        return struct.pack("!BBH", 2 if ethertype == 0x0800 else 10, 0, 5) + fields

    return wrap


def gtp_raw(flags, middle):
    """By hand: any flags and whatever stands before the packet."""

    def wrap(data, ethertype):
        return OUTER / udp(2152) / Raw(struct.pack("!BBHI", flags, 255, len(middle + data), 9) + middle + data)

    return wrap


def gre(**fields):
    return lambda data, ethertype: OUTER / GRE(proto=ethertype, **fields) / Raw(data)


def erspan_3(data, ethertype):
    platform = ERSPAN_PlatformSpecific(platf_id=1)
    mirrored = ERSPAN_III(session_id=5, o=1) / platform
    return OUTER / GRE(proto=0x22EB, seqnum_present=1, sequence_number=3) / mirrored / inner_ether(data, ethertype)


def pptp(first, second):
    def wrap(data, ethertype):
        inside = b"\xff\x03" * second + bytes(ppp(data, ethertype))
        head = GRE_PPTP(
            seqnum_present=1, sequence_number=8, acknum_present=int(first), ack_number=7, payload_len=len(inside)
        )
        return OUTER / head / Raw(inside)

    return wrap


def options(n):
    return [GeneveOptions(classid=0x0102, type=i, data=bytes(4 * i)) for i in range(n)]


def proto_of(ethertype):
    return 4 if ethertype == 0x0800 else 41


def frame_relay(data, ethertype):
    return b"\x18\x41\x03" + (b"\xcc" if ethertype == 0x0800 else b"\x8e") + data


def pktap(link_type, data):
    return struct.pack("<III", 108, 1, link_type) + bytes(96) + data


TUNNELS = {
    "mpls": (1, lambda d, e: ETHER / labels(16) / Raw(d)),
    "mpls of three labels": (1, lambda d, e: ETHER / labels(16, 1048575, 3) / Raw(d)),
    "mpls multicast": (1, lambda d, e: build.ethernet(bytes(labels(16) / Raw(d)), 0x8848)),
    "mpls behind a tag": (1, lambda d, e: ETHER / Dot1Q(vlan=5) / labels(16, 17) / Raw(d)),
    "mpls pseudowire": (1, lambda d, e: ETHER / labels(77) / EoMCW(seq=7) / inner_ether(d, e)),
    "mpls over sll": (113, lambda d, e: sll(bytes(labels(16) / Raw(d)), 0x8847)),
    "pppoe": (1, lambda d, e: ETHER / PPPoE(sessionid=1) / ppp(d, e)),
    "pppoe over sll": (113, lambda d, e: sll(bytes(PPPoE(sessionid=1) / ppp(d, e)), 0x8864)),
    "pppoe behind tags": (1, lambda d, e: ETHER / Dot1Q() / Dot1Q() / PPPoE(sessionid=1) / ppp(d, e)),
    "ppp": (9, ppp),
    "ppp with address": (9, lambda d, e: HDLC() / ppp(d, e)),
    "ppp in hdlc": (50, lambda d, e: HDLC() / ppp(d, e)),
    "ppp, protocol of one byte": (9, lambda d, e: b"\xff\x03" + (b"\x21" if e == 0x0800 else b"\x57") + d),
    "ppp with direction": (204, lambda d, e: b"\0" + bytes(HDLC() / ppp(d, e))),
    "pppoe alone": (51, lambda d, e: PPPoE(sessionid=1) / ppp(d, e)),
    "cisco in ppp": (50, lambda d, e: b"\x0f\x00" + struct.pack("!H", e) + d),
    "cisco hdlc": (104, lambda d, e: b"\x0f\x00" + struct.pack("!H", e) + d),
    "cisco hdlc with mpls": (104, lambda d, e: b"\x8f\x00\x88\x47" + bytes(labels(99) / Raw(d))),
    "frame relay": (107, frame_relay),
    "frame relay of cisco": (107, lambda d, e: b"\x18\x41" + struct.pack("!H", e) + d),
    "frame relay with snap": (107, lambda d, e: b"\x18\x41\x03\x00\x80\0\0\0" + struct.pack("!H", e) + d),
    "snap": (1, lambda d, e: build.ethernet(b"\xaa\xaa\x03\0\0\0" + struct.pack("!H", e) + d, 8 + len(d))),
    "nflog": (239, nflog("<")),
    "nflog of a big-endian machine": (239, nflog(">")),
    "pflog": (117, lambda d, e: bytes([61, 2 if e == 0x0800 else 30]) + bytes(62) + d),
    "enc": (109, lambda d, e: struct.pack("<III", 2 if e == 0x0800 else 24, 1, 0) + d),
    "pktap": (258, lambda d, e: pktap(1, bytes(inner_ether(d, e)))),
    "pktap of raw ip": (258, lambda d, e: pktap(12, d)),
    "gre": (1, gre()),
    "gre with a checksum": (1, gre(chksum_present=1)),
    "gre with a key": (1, gre(key_present=1, key=0xFFFFFFFF)),
    "gre with a number": (1, gre(seqnum_present=1, sequence_number=1)),
    "gre with all three": (1, gre(chksum_present=1, key_present=1, seqnum_present=1)),
    "gre over v6": (1, lambda d, e: OUTER6 / GRE(proto=e) / Raw(d)),
    "gre with ethernet": (1, lambda d, e: OUTER / GRE(proto=0x6558, key_present=1, key=9) / inner_ether(d, e)),
    "gre with mpls": (1, lambda d, e: OUTER / GRE(proto=0x8847) / labels(16) / Raw(d)),
    "gre with ppp": (1, lambda d, e: OUTER / GRE(proto=0x880B) / ppp(d, e)),
    "pptp": (1, pptp(False, False)),
    "pptp with an acknowledgement": (1, pptp(True, False)),
    "pptp with address": (1, pptp(True, True)),
    "erspan 1": (1, lambda d, e: OUTER / GRE(proto=0x88BE) / ERSPAN_I() / inner_ether(d, e)),
    "erspan 2": (
        1,
        lambda d, e: OUTER / GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II(session_id=5) / inner_ether(d, e),
    ),
    "erspan 3": (
        1,
        lambda d, e: OUTER / GRE(proto=0x22EB, seqnum_present=1) / ERSPAN_III(session_id=5) / inner_ether(d, e),
    ),
    "erspan 3 with its platform": (1, erspan_3),
    "ip in v4": (1, lambda d, e: ETHER / IP(src="192.0.2.1", dst="192.0.2.2", proto=proto_of(e)) / Raw(d)),
    "ip in v6": (1, lambda d, e: ETHER / IPv6(src="2001:db8::1", nh=proto_of(e)) / Raw(d)),
    "ip in v6 behind options": (1, lambda d, e: OUTER6 / IPv6ExtHdrDestOpt(nh=proto_of(e)) / Raw(d)),
    "etherip": (1, lambda d, e: OUTER / EtherIP() / inner_ether(d, e)),
    "mpls in ip": (1, lambda d, e: ETHER / IP(dst="192.0.2.2", proto=137) / labels(16) / Raw(d)),
    "mpls in udp": (1, lambda d, e: OUTER / udp(6635) / labels(16, 17) / Raw(d)),
    "vxlan": (1, lambda d, e: OUTER / udp(4789) / VXLAN(vni=0xFFFFFF) / inner_ether(d, e)),
    "vxlan over v6": (1, lambda d, e: OUTER6 / udp(4789) / VXLAN(vni=7) / inner_ether(d, e)),
    "vxlan of linux": (1, lambda d, e: OUTER / udp(8472) / VXLAN(vni=7) / inner_ether(d, e)),
    "vxlan with a tag": (
        1,
        lambda d, e: OUTER / udp(4789) / VXLAN(vni=7) / ETHER / Dot1Q(vlan=5, type=e) / Raw(d),
    ),
    "geneve": (1, lambda d, e: OUTER / udp(6081) / GENEVE(vni=7, proto=0x6558) / inner_ether(d, e)),
    "geneve with options": (
        1,
        lambda d, e: OUTER / udp(6081) / GENEVE(vni=7, proto=0x6558, options=options(5)) / inner_ether(d, e),
    ),
    "geneve with ip": (1, lambda d, e: OUTER / udp(6081) / GENEVE(vni=7, proto=e) / Raw(d)),
    "gtp": (1, lambda d, e: OUTER / udp(2152) / GTP_U_Header(teid=9, gtp_type=255) / Raw(d)),
    "gtp with a number": (1, lambda d, e: OUTER / udp(2152) / GTP_U_Header(teid=9, gtp_type=255, S=1, seq=5) / Raw(d)),
    "gtp with a session": (
        1,
        lambda d, e: (
            OUTER
            / udp(2152)
            / GTP_U_Header(teid=9, gtp_type=255, E=1, next_ex=0x85)
            / GTPPDUSessionContainer(ExtHdrLen=1, type=0, QFI=9)
            / Raw(d)
        ),
    ),
    "gtp with three extensions": (1, gtp_raw(0x34, b"\0\0\0\x85\x01\0\x09\xc0\x02\0\0\0\0\0\0\x40\x01\0\0\0")),
    "gtp with nothing but room": (1, gtp_raw(0x32, bytes(3) + b"\x85")),
    "tzsp": (1, lambda d, e: OUTER / udp(37008) / TZSP() / TZSPTagEnd() / inner_ether(d, e)),
    "tzsp with fields": (
        1,
        lambda d, e: (
            OUTER
            / udp(37008)
            / TZSP()
            / TZSPTagPadding()
            / TZSPTagRawRSSIByte(raw_rssi=5)
            / TZSPTagEnd()
            / inner_ether(d, e)
        ),
    ),
    "vxlan in gre in mpls in qinq": (
        1,
        lambda d, e: (
            ETHER
            / Dot1Q(vlan=5)
            / Dot1Q(vlan=6)
            / labels(16, 17)
            / IP(src="192.0.2.9")
            / GRE(key_present=1)
            / IP(src="192.0.2.1")
            / udp(4789)
            / VXLAN(vni=7)
            / inner_ether(d, e)
        ),
    ),
    "gtp in 6in4 in pppoe": (
        1,
        lambda d, e: (
            ETHER
            / PPPoE(sessionid=1)
            / PPP(proto=0x21)
            / IP(proto=41)
            / IPv6()
            / udp(2152)
            / GTP_U_Header(teid=9, gtp_type=255)
            / Raw(d)
        ),
    ),
}
"""Name to link type and what wraps an IP packet of an EtherType."""


def wrapped(name, data, ethertype):
    return bytes(TUNNELS[name][1](data, ethertype))


@pytest.mark.parametrize("name", TUNNELS)
def test_every_tunnel_with_every_network_layer(name):
    link_type = TUNNELS[name][0]
    found, counts = dissect_all([Packet(wrapped(name, data, type_)) for _, data, type_, _ in BUILT], link_type)
    assert counts == {}
    for number, (inside, _, _, want) in enumerate(BUILT, 1):
        assert (inside, found[number]) == (inside, want)


FIELDS = ["tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", "tcp.window_size_value", "tcp.len"]
FIELDS += ["ip.src", "ipv6.src", "ip.ttl", "ipv6.hlim"]

DECODE_AS = ["-d", "udp.port==8472,vxlan", "-d", "mpls.label==77,pwethcw", "-d", "udp.port==37008,tzsp"]

UNLIKE_TSHARK = {
    "nflog of a big-endian machine": "tshark takes the byte order from a preference",
    "pktap of raw ip": "tshark takes DLT numbers of the machine that it runs on",
}


@pytest.mark.needs_tshark
def test_tshark_finds_the_same_inside(tshark, tmp_path):
    """The wrappers are what tshark takes them for, so that they cannot be wrong on both sides."""
    chosen = [row for row in BUILT if row[0] in ("v4 options", "v6")]
    for link_type in sorted({number for number, _ in TUNNELS.values()}):
        names = [name for name, (number, _) in TUNNELS.items() if number == link_type and name not in UNLIKE_TSHARK]
        path = tmp_path / f"{link_type}.pcap"
        packets = [build.Packet(0, wrapped(name, data, type_)) for name in names for _, data, type_, _ in chosen]
        path.write_bytes(build.pcap(packets, link_type=link_type))
        command = [tshark, "-n", "-r", str(path), *DECODE_AS, "-T", "fields", "-E", "occurrence=l"]
        command += [part for field in FIELDS for part in ("-e", field)]
        lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
        wants = [(name, want) for name in names for _, _, _, want in chosen]
        assert len(lines) == len(wants)
        for line, (name, want) in zip(lines, wants, strict=True):
            *numbers, v4, v6, ttl, hops = line.split("\t")
            assert (name, *map(int, filter(None, numbers))) == (
                name,
                want.sport,
                want.seq,
                want.ack,
                want.window,
                len(want.payload),
            )
            assert (want.src, str(want.ttl)) == ((v6, hops) if ":" in want.src else (v4, ttl)), name


@pytest.mark.parametrize("name", TUNNELS)
def test_every_snaplen_in_a_tunnel(name):
    """Cut anywhere: what is missing is known to be missing, and nothing is made up."""
    link_type = TUNNELS[name][0]
    _, network, ethertype, want = next(row for row in BUILT if row[0] == "v6")
    data = wrapped(name, network, ethertype)
    tcp_at, payload_at = data.index(network) + 40, data.index(network) + len(network) - len(HELLO)
    for kept in range(len(data) + 1):
        got, counts = dissect_one(data[:kept], link_type, wire_bytes=len(data))
        if kept < tcp_at + 20:
            # where not even a UDP or SNAP header is whole, nothing says that a tunnel follows
            assert (got, sum(counts.values())) == (None, 1)
            assert counts.keys() <= {"CUT_HEADER", "NOT_IP" if name == "snap" else "NOT_TCP"}
        else:
            assert got == want._replace(payload=HELLO[: max(0, kept - payload_at)])
            assert got.wire_bytes == len(HELLO)


def test_padding_behind_a_tunnel_is_not_payload():
    for name in TUNNELS:
        link_type = TUNNELS[name][0]
        for inside, data, ethertype, want in BUILT:
            if inside in ("v4", "v6"):
                got, _ = dissect_one(wrapped(name, data, ethertype) + b"\xaa" * 30, link_type)
                assert (name, got) == (name, want)


def test_an_inner_packet_ends_where_its_tunnel_does():
    """An inner length that says more than the outer one holds: the rest never travelled."""
    inner = bytearray(bytes(IP(src="1.2.3.4", dst="4.3.2.1") / segment() / HELLO))
    inner[2:4] = (len(inner) + 500).to_bytes(2, "big")
    for name in ("vxlan", "gtp", "geneve", "pppoe", "gre", "pptp"):
        got, _ = dissect_one(wrapped(name, bytes(inner), 0x0800) + b"\xbb" * 600)
        assert (name, got.payload, got.wire_bytes) == (name, HELLO, len(HELLO))


def test_total_length_of_zero_inside():
    """Segmentation offload inside a tunnel that says how long it is."""
    inner = bytes(IP(src="1.2.3.4", dst="4.3.2.1", len=0) / segment() / HELLO)
    for name in ("vxlan", "gtp", "geneve"):
        got, _ = dissect_one(wrapped(name, inner, 0x0800) + b"\xbb" * 60)
        assert (got.payload, got.wire_bytes) == (HELLO, len(HELLO))


def test_every_length_on_the_way_bounds_what_is_inside():
    """Nine bytes behind what the tunnel says it holds, and an inner length of zero that bounds nothing."""
    inner = bytes(IP(src="1.2.3.4", dst="4.3.2.1", len=0) / segment() / HELLO)
    more = Raw(inner + b"\xbb" * 9)
    point = bytes(PPP(proto=0x21) / Raw(inner))
    gtp = struct.pack("!BBHI", 0x30, 255, len(inner), 9)
    field = struct.pack("<HH", 4 + len(inner), 9) + inner + bytes(-len(inner) % 4) + struct.pack("<HH", 8, 3) + bytes(4)
    bounded = {
        "pptp": OUTER / GRE_PPTP(seqnum_present=1, payload_len=len(point)) / Raw(point + b"\xbb" * 9),
        "gtp": OUTER / udp(2152) / Raw(gtp + inner + b"\xbb" * 9),
        "udp": OUTER / UDP(dport=4789, len=30 + len(inner)) / VXLAN() / Ether(type=0x0800) / more,
        "pppoe": ETHER / PPPoE(len=len(point)) / Raw(point + b"\xbb" * 9),
        "ip": ETHER / IP(len=20 + len(inner), proto=4) / more,
        "ipv6": ETHER / IPv6(plen=len(inner), nh=4) / more,
    }
    for name, packet in bounded.items():
        got, _ = dissect_one(bytes(packet))
        assert (name, got.payload, got.wire_bytes) == (name, HELLO, len(HELLO))
    got, _ = dissect_one(b"\x02\0\0\5" + field, 239)
    assert (got.payload, got.wire_bytes) == (HELLO, len(HELLO))


# ---- depth


def nested(n, wrap):
    data, ethertype, want = BUILT[0][1], 0x0800, BUILT[0][3]
    for _ in range(n):
        data = bytes(wrap(data, ethertype))
    return data, want


DEEP = {
    "ip": lambda d, e: IP(src="192.0.2.1", proto=4) / Raw(d),
    "gre": lambda d, e: IP(src="192.0.2.1") / GRE(proto=0x0800) / Raw(d),
    "vxlan": lambda d, e: IP(src="192.0.2.1") / udp(4789) / VXLAN() / inner_ether(d, e),
    "mpls": lambda d, e: IP(src="192.0.2.1") / GRE(proto=0x8847) / labels(16) / Raw(d),
}


@pytest.mark.parametrize("kind", DEEP)
def test_depth_has_a_limit(kind):
    """All that fits is opened, and everything deeper counted as a tunnel."""
    opened = []
    for n in range(41):
        data, want = nested(n, DEEP[kind])
        got, counts = dissect_one(build.ethernet(data))
        assert (got, counts) in ((want, {}), (None, {"TUNNEL": 1}))
        opened.append(got is not None)
    assert opened.index(False) >= 5
    assert opened == sorted(opened, reverse=True)
    assert not opened[dissect.MAX_LAYERS + 1]


def test_labels_and_tags_without_end():
    assert dissect_one(build.ethernet(b"\0\x01\0\x40" * 60, 0x8847)) == (None, {"TUNNEL": 1})
    tags = b"".join(struct.pack("!HH", i, 0x8100) for i in range(40))
    assert dissect_one(build.ethernet(tags, 0x8100)) == (None, {"TUNNEL": 1})


# ---- what stays closed


TCP_INSIDE = bytes(IP(src="1.2.3.4", dst="4.3.2.1") / segment() / HELLO)
UDP_INSIDE = bytes(IP(src="1.2.3.4", dst="4.3.2.1") / UDP(sport=5, dport=5) / HELLO)
QUIC_INSIDE = bytes(IP(src="1.2.3.4", dst="4.3.2.1") / UDP(sport=5000, dport=443) / HELLO)


def vxlan_head(flags):
    return OUTER / udp(4789) / Raw(bytes([flags]) + bytes(7) + bytes(inner_ether(TCP_INSIDE, 0x0800)))


CLOSED = [
    ("arp in vxlan", 1, OUTER / udp(4789) / VXLAN() / ETHER / ARP(), "NOT_IP"),
    ("udp in vxlan", 1, Raw(wrapped("vxlan", UDP_INSIDE, 0x0800)), "NOT_TCP"),
    ("quic in gtp", 1, Raw(wrapped("gtp", QUIC_INSIDE, 0x0800)), "QUIC"),
    ("vxlan without its flag", 1, vxlan_head(0), "TUNNEL"),
    ("something else on the port of linux", 1, OUTER / udp(8472) / Raw(bytes(60)), "NOT_TCP"),
    ("nothing in vxlan", 1, OUTER / udp(4789) / VXLAN(), "TUNNEL"),
    ("half of vxlan", 1, OUTER / udp(4789) / Raw(b"\x08\0\0"), "TUNNEL"),
    ("half of ethernet in vxlan", 1, OUTER / udp(4789) / VXLAN() / Raw(bytes(9)), "TUNNEL"),
    ("from port 4789", 1, OUTER / UDP(sport=4789, dport=50000) / VXLAN() / inner_ether(TCP_INSIDE, 0x800), "NOT_TCP"),
    ("geneve of a later version", 1, OUTER / udp(6081) / Raw(b"\x40\0\x65\x58" + bytes(80)), "TUNNEL"),
    ("geneve of options alone", 1, OUTER / udp(6081) / Raw(b"\x3f\0\x65\x58" + bytes(80)), "TUNNEL"),
    ("geneve with lldp", 1, OUTER / udp(6081) / Raw(b"\0\0\x88\xcc" + bytes(80)), "NOT_IP"),
    ("gtp echo", 1, OUTER / udp(2152) / GTP_U_Header(gtp_type=1, S=1) / Raw(b"\x0e\0"), "NOT_TCP"),
    ("gtp of charging", 1, OUTER / udp(2152) / Raw(b"\x20\xff\0\x08" + bytes(40)), "TUNNEL"),
    ("gtp extension of no length", 1, gtp_raw(0x34, b"\0\0\0\x85\0\0\0\0")(TCP_INSIDE, 0), "TUNNEL"),
    ("gtp extensions without end", 1, gtp_raw(0x34, b"\0\0\0\x85" + b"\x01\0\0\x85" * 40)(TCP_INSIDE, 0), "TUNNEL"),
    ("gtp with ethernet", 1, Raw(wrapped("gtp", bytes(ETHER / ARP()), 0)), "NOT_IP"),
    ("gre of a later version", 1, ETHER / IP(proto=47) / Raw(b"\0\x05\x08\0" + TCP_INSIDE), "TUNNEL"),
    ("gre with arp", 1, OUTER / GRE(proto=0x0806) / ARP(), "NOT_IP"),
    ("pptp that acknowledges alone", 1, OUTER / GRE_PPTP(acknum_present=1, payload_len=0), "NOT_TCP"),
    ("pptp, compressed", 1, OUTER / GRE_PPTP(seqnum_present=1, payload_len=60) / Raw(b"\0\xfd" + bytes(58)), "TUNNEL"),
    ("ppp, van jacobson", 9, Raw(b"\xff\x03\0\x2d" + bytes(50)), "TUNNEL"),
    ("ppp, in pieces", 9, Raw(b"\xff\x03\0\x3d" + bytes(50)), "TUNNEL"),
    ("lcp", 9, Raw(b"\xff\x03\xc0\x21" + bytes(50)), "NOT_IP"),
    ("pppoe discovery in a session's type", 1, ETHER / PPPoE(code=9) / Raw(bytes(40)), "NOT_IP"),
    ("pppoe of another version", 1, Raw(build.ethernet(b"\x21\0\0\1\0\x20\0\x21" + TCP_INSIDE, 0x8864)), "TUNNEL"),
    ("mpls associated channel", 1, ETHER / labels(16) / Raw(b"\x10\0\0\x07" + bytes(40)), "NOT_IP"),
    ("mpls of who knows what", 1, ETHER / labels(16) / Raw(b"\xf5" + bytes(40)), "TUNNEL"),
    ("macsec", 1, Raw(build.ethernet(bytes(60), 0x88E5)), "TUNNEL"),
    (
        "erspan 2 of another version",
        1,
        OUTER / GRE(proto=0x88BE, seqnum_present=1) / Raw(b"\x70" + bytes(60)),
        "TUNNEL",
    ),
    ("etherip of another version", 1, ETHER / IP(proto=97) / Raw(b"\x40" + bytes(60)), "TUNNEL"),
    ("tzsp keepalive", 1, OUTER / udp(37008) / Raw(b"\x01\x04\0\0\x01"), "NOT_TCP"),
    ("tzsp with 802.11", 1, OUTER / udp(37008) / Raw(b"\x01\0\0\x12\x01" + bytes(40)), "LINK_TYPE"),
    ("tzsp fields without end", 1, OUTER / udp(37008) / Raw(b"\x01\0\0\x01" + bytes(400)), "TUNNEL"),
    ("nflog of bridges", 239, Raw(b"\x07\0\0\0" + struct.pack("<HH", 44, 9) + bytes(40)), "NOT_IP"),
    ("nflog field of no length", 239, Raw(b"\x02\0\0\0" + bytes(40)), "MALFORMED"),
    ("nflog without a packet", 239, Raw(b"\x02\0\0\0" + struct.pack("<HH", 4, 1) * 90), "MALFORMED"),
    ("pktap without a packet", 258, Raw(struct.pack("<III", 108, 0, 1) + bytes(96)), "NOT_IP"),
    ("pktap of pktap of pktap", 258, Raw(struct.pack("<III", 12, 1, 258) * 40), "TUNNEL"),
    ("malformed inside", 1, Raw(wrapped("gre", b"\x41" + TCP_INSIDE[1:], 0x0800)), "MALFORMED"),
    ("cut inside though all travelled", 1, Raw(wrapped("gre", TCP_INSIDE[:12], 0x0800)), "TUNNEL"),
]


@pytest.mark.parametrize(("link_type", "data", "counter"), [pytest.param(*rest, id=name) for name, *rest in CLOSED])
def test_what_stays_closed_is_counted_once(link_type, data, counter):
    assert dissect_one(bytes(data), link_type) == (None, {counter: 1})


def test_routing_in_gre():
    """RFC 1701: source routes between header and payload, the last one empty."""
    routes = b"\x08\0\0\x04\x0a\0\0\1" + b"\x08\0\0\x08" + bytes(8) + bytes(4)
    head = struct.pack("!HHHH", 0x4000, 0x0800, 0, 0)
    got, _ = dissect_one(bytes(ETHER / IP(proto=47) / Raw(head + routes + TCP_INSIDE)))
    assert got == by_scapy(IP(TCP_INSIDE))
    endless = bytes(ETHER / IP(proto=47) / Raw(head + b"\x08\0\0\0" * 40 + TCP_INSIDE))
    assert dissect_one(endless) == (None, {"TUNNEL": 1})


# ---- any bytes


near_tunnels = st.builds(
    lambda data, changes, kept, tail: bytes(changes.get(i, byte) for i, byte in enumerate(data))[:kept] + tail,
    st.sampled_from([wrapped(name, TCP_INSIDE, 0x0800) for name in TUNNELS]),
    st.dictionaries(st.integers(0, 150), st.sampled_from([0, 1, 4, 6, 0x40, 0x7F, 0x80, 0xFF]), max_size=4),
    st.integers(0, 200),
    st.binary(max_size=30),
)


@given(st.lists(st.tuples(near_tunnels, st.integers(0, 60)), max_size=12), st.sampled_from([1, 9, 50, 51, 104, 239]))
def test_any_tunnel_is_a_segment_or_counted(rows, link_type):
    dissect_all([Packet(data, wire_bytes=len(data) + more) for data, more in rows], link_type)
