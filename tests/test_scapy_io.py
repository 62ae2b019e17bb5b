"""Link types that only scapy reads: scapy and tshark agree on what is inside, and hostile bytes are counted."""

import importlib.util
import struct
import subprocess
import sys

import packets as build
import pytest
from conftest import SAMPLES
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.avs import AVSWLANHeader
from scapy.contrib.tzsp import TZSP, TZSPTagEnd
from scapy.layers.dot11 import Dot11, Dot11Beacon, Dot11CCMP, Dot11QoS, PrismHeader, RadioTap
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q
from scapy.layers.ppi import PPI
from scapy.packet import Raw
from test_dissect import by_scapy
from test_fragment import BODY, cut, scan, v4

from analyzer.capture import scapy_io, segments
from analyzer.model import Counter

DATA = {"type": 2, "addr1": "02:00:00:00:00:01", "addr2": "02:00:00:00:00:02", "addr3": "02:00:00:00:00:03"}
SEGMENT = IP(src="10.0.0.1", dst="10.0.0.2", ttl=9) / TCP(sport=5, dport=6, seq=77, flags="PA") / Raw(b"hello")
SEGMENT6 = IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=9) / TCP(sport=5, dport=6, seq=78, flags="PA") / Raw(b"six")


def snap(inner, ethertype):
    return LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=ethertype) / inner


def plain(inner, ethertype):
    return Dot11(**DATA, subtype=0, FCfield="to_DS") / snap(inner, ethertype)


def quality(inner, ethertype):
    return Dot11(**DATA, subtype=8, FCfield="from_DS") / Dot11QoS() / snap(inner, ethertype)


def tagged(inner, ethertype):
    return Dot11(**DATA, subtype=0) / snap(Dot1Q(vlan=5, type=ethertype) / inner, 0x8100)


def bridged(inner, ethertype):
    """Between two access points: four addresses."""
    return Dot11(**DATA, subtype=0, FCfield="to_DS+from_DS", addr4="02:00:00:00:00:04") / snap(inner, ethertype)


FRAMES = {"plain": plain, "quality": quality, "tagged": tagged, "bridged": bridged}


def with_checksum(frame):
    """Radiotap that says a frame check sequence follows."""
    return RadioTap(present="Flags", Flags="FCS") / Raw(bytes(frame) + b"\xde\xad\xbe\xef")


HEADERS = {
    "802.11": (105, lambda frame: frame),
    "prism": (119, lambda frame: PrismHeader() / frame),
    "radiotap": (127, lambda frame: RadioTap() / frame),
    "radiotap, with a checksum": (127, with_checksum),
    "avs": (163, lambda frame: AVSWLANHeader() / frame),
    "ppi": (192, lambda frame: PPI(dlt=105) / frame),
    "ppi of radiotap": (192, lambda frame: PPI(dlt=127) / RadioTap() / frame),
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("frame", FRAMES)
def test_every_header_with_every_frame(header, frame):
    link_type, wrap = HEADERS[header]
    packets = [bytes(wrap(FRAMES[frame](SEGMENT, 0x0800))), bytes(wrap(FRAMES[frame](SEGMENT6, 0x86DD)))]
    found, counts = scan(packets, link_type)
    assert counts == {}
    assert [one.segment for one in found] == [by_scapy(IP(bytes(SEGMENT))), by_scapy(IPv6(bytes(SEGMENT6)))]
    assert [one.packet for one in found] == [1, 2]


@pytest.mark.needs_tshark
def test_tshark_finds_the_same_inside(tshark, tmp_path):
    for name, (link_type, wrap) in HEADERS.items():
        path = tmp_path / "x.pcap"
        packets = [build.Packet(0, bytes(wrap(frame(SEGMENT, 0x0800)))) for frame in FRAMES.values()]
        path.write_bytes(build.pcap(packets, link_type=link_type))
        fields = [part for field in ("ip.src", "tcp.dstport", "tcp.seq_raw", "tcp.len") for part in ("-e", field)]
        command = [tshark, "-n", "-r", str(path), "-T", "fields", *fields]
        lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
        assert (name, lines) == (name, ["10.0.0.1\t6\t77\t5"] * len(FRAMES))


def aggregated(*inners):
    """IEEE 802.11-2020 section 9.3.2.2.2: subframes, each but the last padded to four bytes."""
    frames = []
    for inner, ethertype in inners:
        body = bytes(snap(inner, ethertype))
        frames.append(b"\2\0\0\0\0\1\2\0\0\0\0\2" + struct.pack("!H", len(body)) + body)
    body = b"".join(frame + bytes(-len(frame) % 4) for frame in frames[:-1]) + frames[-1]
    return Dot11(**DATA, subtype=8, FCfield="from_DS") / Dot11QoS(A_MSDU_Present=1) / Raw(body)


def test_aggregated_frames():
    """Several packets in one frame: all of one packet number."""
    frame = RadioTap() / aggregated((SEGMENT, 0x0800), (ARP(), 0x0806), (SEGMENT6, 0x86DD), (SEGMENT, 0x0800))
    found, counts = scan([bytes(frame)], 127)
    want, want6 = by_scapy(IP(bytes(SEGMENT))), by_scapy(IPv6(bytes(SEGMENT6)))
    assert ([(one.packet, one.segment) for one in found], counts) == ([(1, want), (1, want6), (1, want)], {})


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (Dot11(type=0, subtype=8) / Dot11Beacon() / Raw(bytes(30)), "NOT_IP"),
        (Dot11(type=1, subtype=13), "NOT_IP"),
        (plain(ARP(), 0x0806), "NOT_IP"),
        (plain(IP(src="1.2.3.4", dst="4.3.2.1") / UDP(sport=5, dport=5), 0x0800), "NOT_TCP"),
        (Dot11(**DATA, FCfield="protected") / Dot11CCMP(ext_iv=1, data=bytes(60)), "TUNNEL"),
        (Dot11(**DATA, FCfield="protected", subtype=8) / Dot11QoS() / Dot11CCMP(ext_iv=1, data=bytes(60)), "TUNNEL"),
        (Dot11(**DATA, FCfield="MF") / snap(SEGMENT, 0x0800), "FRAGMENT"),
        (Dot11(**DATA, SC=1) / snap(SEGMENT, 0x0800), "FRAGMENT"),
        (Raw(b"\x08"), "MALFORMED"),
    ],
)
def test_what_holds_no_segment_is_counted(frame, counter):
    assert scan([bytes(frame)], 105) == ([], {counter: 1})


@pytest.mark.parametrize("kept", range(40, 125, 3))
def test_every_snaplen(kept):
    """What is missing is known to be missing."""
    data = bytes(RadioTap() / quality(SEGMENT, 0x0800))
    payload_at = len(data) - 5
    found, counts = scan([build.Packet(0, data[:kept], len(data))], 127)
    assert len(found) + sum(counts.values()) == 1
    if found:
        got = found[0].segment
        assert (got.payload, got.wire_bytes) == (b"hello"[: max(0, kept - payload_at)], 5)
    else:
        assert kept < payload_at


def test_fragments_in_the_air():
    """IP fragments in frames that only scapy reads, the other way round in time."""
    want, pieces = cut(v4())
    found, counts = scan([bytes(RadioTap() / quality(Raw(p), 0x0800)) for p in pieces[::-1]], 127)
    assert ([one.segment for one in found], counts) == ([want], {})
    assert want.payload == BODY


def test_802_11_in_tzsp():
    """A wireless sniffer's frames over UDP, and those in fragments."""
    for kind, wrap in ((18, HEADERS["802.11"][1]), (119, HEADERS["prism"][1]), (127, HEADERS["avs"][1])):
        sniffed = TZSP(encapsulated_protocol=kind) / TZSPTagEnd() / wrap(quality(SEGMENT, 0x0800))
        outer = IP(src="192.0.2.1", dst="192.0.2.2", id=kind) / UDP(sport=5, dport=37008) / sniffed
        for packets in ([bytes(outer)], [bytes(p) for p in outer.fragment(64)]):
            found, counts = scan(packets)
            assert ([one.segment for one in found], counts) == ([by_scapy(IP(bytes(SEGMENT)))], {})


def test_link_types_that_nobody_reads():
    assert scan([bytes(60)] * 3, 147) == ([], {"LINK_TYPE": 3})
    assert scan([bytes(60)], 0x03FFFFFF) == ([], {"LINK_TYPE": 1})


def test_without_scapy(monkeypatch):
    """Nothing breaks; the packets are counted as not read."""
    monkeypatch.setattr(scapy_io, "_layers", lambda link_type: None)
    assert not scapy_io.can_read(127)
    assert scapy_io.to_datagrams(127, b"x") == ([], Counter.LINK_TYPE)
    assert scan([bytes(RadioTap() / plain(SEGMENT, 0x0800))], 127) == ([], {"LINK_TYPE": 1})


def test_link_types_that_scapy_is_imported_for():
    assert set(scapy_io.LAYERS) == segments.FOR_SCAPY


def test_scapy_that_cannot_be_imported(tmp_path):
    path = tmp_path / "x.pcap"
    path.write_bytes(build.pcap([build.Packet(10**18, bytes(60))], link_type=127))
    script = (
        "import sys; sys.modules['scapy'] = None\n"
        "from analyzer.analysis import stream\n"
        f"print([row['skipped_link_type'] for batch in stream({str(path)!r}) for row in batch.inputs.rows()])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[1]\n", "")


@pytest.mark.parametrize("link_type", [1, 147])
def test_scapy_is_not_imported_where_it_is_not_needed(tmp_path, link_type):
    """Ordinary captures, tunnels and fragments, and link types that scapy does not read either."""
    _, pieces = cut(v4())
    packets = [build.Packet(10**18 + i, build.ethernet(p)) for i, p in enumerate(pieces)]
    path = tmp_path / "x.pcap"
    path.write_bytes(build.pcap(packets, link_type=link_type))
    script = (
        "import sys\nfrom analyzer.analysis import stream\n"
        f"for _ in stream({str(path)!r}, {str(next(SAMPLES.glob('*.pcap')))!r}): pass\n"
        "print('scapy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_reading_says_nothing(tmp_path):
    """Scapy warns of this and that when it is imported, and about odd packets."""
    assert importlib.util.find_spec("scapy")
    path = tmp_path / "x.pcap"
    odd = [bytes(RadioTap() / plain(SEGMENT, 0x0800)), b"\0\0\xff\xff" + bytes(60), bytes(3)]
    path.write_bytes(build.pcap([build.Packet(10**18, data) for data in odd], link_type=127))
    script = f"from analyzer.analysis import stream\nfor _ in stream({str(path)!r}): pass"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


GOOD = [bytes(wrap(frame(SEGMENT, 0x0800))) for _, wrap in HEADERS.values() for frame in FRAMES.values()]

near_frames = st.builds(
    lambda data, changes, kept, tail: bytes(changes.get(i, byte) for i, byte in enumerate(data))[:kept] + tail,
    st.sampled_from([*GOOD, bytes(aggregated((SEGMENT, 0x0800), (SEGMENT6, 0x86DD)))]),
    st.dictionaries(st.integers(0, 100), st.integers(0, 255), max_size=4),
    st.integers(0, 300),
    st.binary(max_size=20),
)


@given(st.lists(st.one_of(near_frames, st.binary(max_size=80)), max_size=5), st.sampled_from(sorted(scapy_io.LAYERS)))
def test_any_bytes(packets, link_type):
    scan(packets, link_type)
