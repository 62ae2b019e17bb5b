"""Capture files: what a writer of our own wrote comes back, and damage is named where it is."""

import io
import itertools
import struct
import subprocess
from typing import NamedTuple

import dpkt
import packets as build
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader, RawPcapReader

from analyzer.capture import container
from analyzer.capture.container import MAX_RECORD_BYTES, Reader
from analyzer.errors import CaptureError

SECOND = 1_000_000_000
NOW_S = 1_700_000_000
ORDERS = ("<", ">")
SECTION, INTERFACE, OLD, SIMPLE, NAMES, STATISTICS, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 4, 5, 6
CUSTOM, CUSTOM_NO_COPY, SECRETS, UNKNOWN = 0xBAD, 0x40000BAD, 10, 0x7A7A7A7A


class Seen(NamedTuple):
    ts_ns: int
    data: bytes
    wire_bytes: int
    link_type: int = 1
    interface: int = 0


class Trickle:
    """A pipe that hands out at most so many bytes at a time, taken in turn."""

    def __init__(self, content, *steps):
        self.rest = memoryview(content)
        self.steps = itertools.cycle(steps)

    def readinto(self, buffer):
        n = min(len(self.rest), len(buffer), next(self.steps))
        buffer[:n] = self.rest[:n]
        self.rest = self.rest[n:]
        return n


def read(stream):
    """The reader at its end, and its packets; every packet must lie inside its chunk."""
    if isinstance(stream, bytes):
        stream = io.BytesIO(stream)
    reader = Reader(stream, "test")
    seen = []
    for chunk in reader.chunks():
        assert chunk.first_packet == len(seen) + 1
        assert not chunk.data.flags.writeable
        for row in chunk.packets.tolist():
            ts_ns, off, captured, wire, link_type, interface = row
            assert off >= 0
            assert 0 <= captured <= len(chunk.data) - off
            assert wire >= captured
            seen.append(Seen(ts_ns, chunk.data[off : off + captured].tobytes(), wire, link_type, interface))
    assert reader.n_packets == len(seen)
    return reader, seen


def in_small_chunks(monkeypatch, first=64, later=256):
    monkeypatch.setattr(container, "FIRST_CHUNK_BYTES", first)
    monkeypatch.setattr(container, "CHUNK_BYTES", later)


def pad(data):
    return data + bytes(-len(data) % 4)


def option(order, code, value):
    return struct.pack(f"{order}HH", code, len(value)) + pad(value)


def block(order, kind, body):
    body = pad(body)
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order, options=b""):
    return block(order, SECTION, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1) + options)


def interface(order, link_type=1, *, snaplen=0, tsresol=None, offset_s=None, options=b""):
    if tsresol is not None:
        options += option(order, 9, bytes([tsresol]))
    if offset_s is not None:
        options += option(order, 14, struct.pack(f"{order}q", offset_s))
    return block(order, INTERFACE, struct.pack(f"{order}HHI", link_type, 0, snaplen) + options)


def enhanced(order, number, ticks, data, *, wire=None, options=b""):
    wire = len(data) if wire is None else wire
    head = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire)
    return block(order, ENHANCED, head + pad(data) + options)


def old(order, number, ticks, data, *, wire=None, drops=0, options=b""):
    wire = len(data) if wire is None else wire
    head = struct.pack(f"{order}HHIIII", number, drops, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire)
    return block(order, OLD, head + pad(data) + options)


def simple(order, data, *, wire=None):
    return block(order, SIMPLE, struct.pack(f"{order}I", len(data) if wire is None else wire) + data)


def pcap_header(order="<", link_type=1, magic=0xA1B2C3D4):
    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)


# ---- pcap


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap_of_either_order_and_unit(order, nanoseconds):
    fraction = 123_456_789 if nanoseconds else 123_456_000
    packets = [
        build.Packet(NOW_S * SECOND + fraction, b"first"),
        build.Packet(0, b""),
        build.Packet(0xFFFFFFFF * SECOND + 999_999_000, bytes(range(256)), 1500),
    ]
    content = build.pcap(packets, order=order, nanoseconds=nanoseconds, link_type=113)
    reader, seen = read(content)
    assert seen == [
        Seen(NOW_S * SECOND + fraction, b"first", 5, 113),
        Seen(0, b"", 0, 113),
        Seen(4294967295 * SECOND + 999_999_000, bytes(range(256)), 1500, 113),
    ]
    assert (reader.kind, reader.n_bytes, reader.is_cut, reader.damaged_at) == ("pcap", len(content), False, None)
    assert (reader.first_ns, reader.last_ns) == (0, 4294967295 * SECOND + 999_999_000)


def test_pcap_link_type_without_the_length_of_the_check_sequence():
    assert read(pcap_header(link_type=0x5400_0071) + bytes(16))[1][0].link_type == 113


def test_pcap_wire_length_below_the_captured_one_is_not_believed():
    content = pcap_header() + struct.pack("<IIII", 1, 0, 3, 2) + b"abc"
    assert read(content)[1] == [Seen(SECOND, b"abc", 3)]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 * SECOND - 1), st.binary(max_size=80), st.integers(0, 2000).filter(lambda n: n != 1)
        ),
        max_size=20,
    ),
    st.sampled_from(ORDERS),
    st.booleans(),
    st.lists(st.integers(1, 200), min_size=1, max_size=5),
)
def test_any_pcap_comes_back_and_scapy_and_dpkt_agree(rows, order, nanoseconds, steps):
    unit = 1 if nanoseconds else 1000
    packets = [build.Packet(ts // unit * unit, data, len(data) + more) for ts, data, more in rows]
    content = build.pcap(packets, order=order, nanoseconds=nanoseconds)
    reader, seen = read(Trickle(content, *steps))
    assert seen == [Seen(p.ts_ns, p.data, p.wire_bytes) for p in packets]
    assert not reader.is_cut
    with RawPcapReader(io.BytesIO(content)) as scapy:
        theirs = [(m.sec * SECOND + m.usec * unit, bytes(data), m.wirelen) for data, m in scapy]
    assert [(s.ts_ns, s.data, s.wire_bytes) for s in seen] == theirs
    assert [s.data for s in seen] == [data for _, data in dpkt.pcap.Reader(io.BytesIO(content))]


# ---- pcapng: times

RESOLUTIONS = [(10, exponent) for exponent in range(19)] + [(2, exponent) for exponent in range(1, 31)]


def exact_ns(ticks, base, exponent, offset_s):
    return ticks * SECOND // base**exponent + offset_s * SECOND


@pytest.mark.parametrize(("base", "exponent"), RESOLUTIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_time_is_exact_at_every_resolution(base, exponent, order):
    tsresol = exponent | (0x80 if base == 2 else 0)
    per_second = base**exponent
    whole = min(NOW_S, (2**63 - 1) // per_second - 1)
    ticks = [whole * per_second + part for part in (0, per_second // 3, per_second - 1)] + [0, 1]
    for offset_s in (None, 0, NOW_S - whole, 7, -whole):
        content = section(order) + interface(order, tsresol=tsresol, offset_s=offset_s)
        content += b"".join(enhanced(order, 0, some, b"x") for some in ticks[:3])
        _, seen = read(content)
        assert [s.ts_ns for s in seen] == [exact_ns(some, base, exponent, offset_s or 0) for some in ticks[:3]]
    _, seen = read(section(order) + interface(order, tsresol=tsresol) + enhanced(order, 0, 1, b"x"))
    assert seen[0].ts_ns == SECOND // per_second


def test_unit_without_the_option_is_a_microsecond():
    _, seen = read(section("<") + interface("<") + enhanced("<", 0, NOW_S * 1_000_000 + 5, b"x"))
    assert seen[0].ts_ns == NOW_S * SECOND + 5_000


@given(st.integers(31, 62), st.integers(0, 2**63 - 1))
def test_time_is_exact_in_fine_powers_of_two(exponent, ticks):
    _, seen = read(section("<") + interface("<", tsresol=0x80 | exponent) + enhanced("<", 0, ticks, b"x"))
    assert seen[0].ts_ns == ticks * SECOND >> exponent


@given(st.integers(31, 62), st.integers(0, 2**63 - 1))
def test_time_is_off_by_a_nanosecond_at_most_in_fine_powers_of_two(exponent, ticks):
    _, seen = read(section("<") + interface("<", tsresol=0x80 | exponent) + enhanced("<", 0, ticks, b"x"))
    assert 0 <= (ticks * SECOND >> exponent) - seen[0].ts_ns <= 1


def test_a_whole_second_as_a_power_of_two():
    _, seen = read(section("<") + interface("<", tsresol=0x80) + enhanced("<", 0, NOW_S, b"x"))
    assert seen[0].ts_ns == NOW_S * SECOND


def test_ticks_with_their_top_bit_set():
    """Tenths of a nanosecond: today's count has 64 bits, its nanoseconds fit well."""
    ticks = NOW_S * 10**10 + 12_345
    assert 2**63 < ticks < 2**64
    _, seen = read(section("<") + interface("<", tsresol=10) + enhanced("<", 0, ticks, b"x"))
    assert seen[0].ts_ns == NOW_S * SECOND + 1_234


@pytest.mark.parametrize(
    ("tsresol", "offset_s", "ticks"),
    [
        (6, 2**62, 1),
        (6, -(2**63), 1),
        (6, -2, 1_000_000),
        (0, 0, 2**63 - 1),
        (0, 0, 2**64 - 1),
        (0x81, 0, 2**63 - 1),
        (9, 4_611_686_018, 4_611_686_018_999_999_999),
    ],
)
def test_time_outside_the_range_becomes_zero(tsresol, offset_s, ticks):
    content = section("<") + interface("<", tsresol=tsresol, offset_s=offset_s)
    _, seen = read(content + enhanced("<", 0, ticks, b"x"))
    assert seen == [Seen(0, b"x", 1)]


def test_an_option_without_its_value_keeps_the_default():
    body = struct.pack(">HHI", 1, 0, 0) + struct.pack(">HH", 9, 1)
    _, seen = read(section(">") + block(">", INTERFACE, body) + enhanced(">", 0, 1_000_000, b"x"))
    assert seen[0].ts_ns == SECOND


# ---- pcapng: blocks


def many_sections():
    """Two sections of different byte order with their interfaces, every kind of packet block, and the truth."""
    other = option("<", 1, b"a comment") + option("<", 2, struct.pack("<I", 1)) + option("<", 0, b"")
    named = option(">", 2, b"eth0") + option(">", 9, b"\x09") + option(">", 0, b"") + option(">", 9, b"\x00")
    content = section("<", option("<", 3, b"an operating system") + option("<", 0, b""))
    content += interface("<", 1)
    content += interface("<", 113, tsresol=9, offset_s=-1_000)
    content += enhanced("<", 1, NOW_S * SECOND + 1, b"on the second", options=other)
    content += block("<", NAMES, struct.pack("<HH", 1, 8) + b"\x0a\0\0\x01a.b\0" + bytes(4))
    content += enhanced("<", 0, NOW_S * 1_000_000 + 2, b"on the first", wire=90)
    content += block("<", STATISTICS, struct.pack("<III", 0, 0, 0))
    content += simple("<", b"untimed!", wire=8)
    content += block("<", CUSTOM, struct.pack("<I", 32473) + b"whatever")
    content += block("<", SECRETS, struct.pack("<II", 0x544C534B, 4) + b"keys")
    content += old("<", 1, NOW_S * SECOND + 3, b"obsolete", wire=11, drops=65535, options=other)
    content += interface("<", 276, tsresol=0x94)
    content += enhanced("<", 2, (NOW_S << 20) + 1, b"late")
    content += section(">")
    content += block(">", CUSTOM_NO_COPY, b"")
    content += interface(">", 101, options=named)
    content += enhanced(">", 0, NOW_S * SECOND + 4, b"big")
    content += block(">", UNKNOWN, b"")
    content += enhanced(">", 0, NOW_S * SECOND + 5, b"")
    seen = [
        Seen((NOW_S - 1_000) * SECOND + 1, b"on the second", 13, 113, 1),
        Seen(NOW_S * SECOND + 2_000, b"on the first", 90, 1, 0),
        Seen(NOW_S * SECOND + 2_000, b"untimed!", 8, 1, 0),
        Seen((NOW_S - 1_000) * SECOND + 3, b"obsolete", 11, 113, 1),
        Seen(NOW_S * SECOND + 953, b"late", 4, 276, 2),
        Seen(NOW_S * SECOND + 4, b"big", 3, 101, 0),
        Seen(NOW_S * SECOND + 5, b"", 0, 101, 0),
    ]
    return content, seen


def test_several_sections_and_interfaces():
    content, expected = many_sections()
    reader, seen = read(content)
    assert seen == expected
    assert (reader.kind, reader.n_bytes, reader.is_cut, reader.damaged_at) == ("pcapng", len(content), False, None)
    assert (reader.first_ns, reader.last_ns) == ((NOW_S - 1_000) * SECOND + 1, NOW_S * SECOND + 2_000)


@pytest.mark.needs_tshark
def test_tshark_reads_the_same_from_several_interfaces(tshark, tmp_path):
    content = (
        section(">") + interface(">", 1) + interface(">", 1, tsresol=9, offset_s=-3) + interface(">", 101, tsresol=3)
    )
    content += interface(">", 1, tsresol=0x9E) + interface(">", 1, tsresol=12, offset_s=NOW_S)
    packets = [
        (0, NOW_S * 10**6 + 7),
        (1, NOW_S * SECOND + 7),
        (2, NOW_S * 1000 + 7),
        (3, (NOW_S << 30) + 5),
        (4, 7_654_321),
    ]
    frame = build.ethernet(b"\0" * 46, 0x88B5)
    content += b"".join(enhanced(">", number, ticks, frame, wire=len(frame) + number) for number, ticks in packets)
    path = tmp_path / "interfaces.pcapng"
    path.write_bytes(content)
    fields = ["frame.time_epoch", "frame.cap_len", "frame.len", "frame.interface_id"]
    command = [tshark, "-n", "-r", str(path), "-T", "fields", *(part for field in fields for part in ("-e", field))]
    theirs = []
    for line in subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines():
        epoch, captured, wire, number = line.split("\t")
        seconds, fraction = epoch.split(".")
        theirs.append((int(seconds) * SECOND + int(fraction), int(captured), int(wire), int(number)))
    assert len(theirs) == len(packets)
    assert [(s.ts_ns, len(s.data), s.wire_bytes, s.interface) for s in read(content)[1]] == theirs


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("snaplen", "wire", "stored", "kept"),
    [
        (0, 5, 8, 5),
        (0, 100, 40, 40),
        (40, 100, 40, 40),
        (5, 100, 8, 5),
        (100, 7, 8, 7),
        (0, 0, 0, 0),
        (9, 0xFFFFFFFF, 12, 9),
    ],
)
def test_simple_packet(order, snaplen, wire, stored, kept):
    data = bytes(range(stored))
    content = section(order) + interface(order, snaplen=snaplen) + simple(order, data, wire=wire)
    reader, seen = read(content)
    assert seen == [Seen(0, data[:kept], max(wire, kept))]
    assert reader.damaged_at is None


def test_simple_packet_takes_the_time_of_the_packet_before(monkeypatch):
    """Whatever the chunks: times that go back must not make a difference."""
    content = section("<") + interface("<")
    content += enhanced("<", 0, 20_000_000, b"later") + enhanced("<", 0, 10_000_000, b"earlier") + simple("<", b"last")
    expected = [20 * SECOND, 10 * SECOND, 10 * SECOND]
    assert [s.ts_ns for s in read(content)[1]] == expected
    for step in (100, 120, 130):
        assert [s.ts_ns for s in read(Trickle(content, step))[1]] == expected


def test_simple_packet_after_another_interface_takes_the_time_before():
    content = section("<") + interface("<") + enhanced("<", 0, 20_000_000, b"later")
    content += enhanced("<", 0, 10_000_000, b"earlier") + interface("<") + simple("<", b"last")
    assert [s.ts_ns for s in read(content)[1]] == [20 * SECOND, 10 * SECOND, 10 * SECOND]


resolutions = st.sampled_from(
    [(None, 10, 6), (0, 10, 0), (3, 10, 3), (9, 10, 9), (0x81, 2, 1), (0x94, 2, 20), (0x9E, 2, 30)]
)
interfaces = st.tuples(st.integers(0, 0xFFFF), resolutions, st.sampled_from([None, 0, 5, -5]))
entries = st.tuples(
    st.sampled_from(["enhanced", "old", "skip"]),
    st.integers(0, 3),
    st.integers(10**9, 2**32 - 1),
    st.binary(max_size=40),
    st.integers(0, 2000),
    st.booleans(),
)
sections = st.lists(
    st.tuples(st.sampled_from(ORDERS), st.lists(interfaces, min_size=1, max_size=4), st.lists(entries, max_size=8)),
    min_size=1,
    max_size=3,
)


def write_sections(described):
    content, expected = b"", []
    for order, some, rows in described:
        content += section(order)
        for link_type, (tsresol, _, _), offset_s in some:
            content += interface(order, link_type, tsresol=tsresol, offset_s=offset_s)
        for kind, number, ticks, data, more, has_options in rows:
            number %= len(some)
            link_type, (_, base, exponent), offset_s = some[number]
            options = option(order, 1, b"said") + option(order, 0, b"") if has_options else b""
            if kind == "skip":
                content += block(order, UNKNOWN, data)
                continue
            write = enhanced if kind == "enhanced" else old
            content += write(order, number, ticks * base**exponent + 1, data, wire=len(data) + more, options=options)
            ts_ns = exact_ns(ticks * base**exponent + 1, base, exponent, offset_s or 0)
            expected.append(Seen(ts_ns, data, len(data) + more, link_type, number))
    return content, expected


@given(sections, st.lists(st.integers(1, 200), min_size=1, max_size=5).filter(lambda steps: steps[0] >= 28))
def test_any_pcapng_comes_back_and_scapy_agrees(described, steps):
    content, expected = write_sections(described)
    reader, seen = read(Trickle(content, *steps))
    assert seen == expected
    assert (reader.is_cut, reader.damaged_at, reader.n_bytes) == (False, None, len(content))
    if len(described) == 1:  # scapy 2.8 goes on counting interfaces where a new section begins anew
        with RawPcapNgReader(io.BytesIO(content)) as scapy:
            theirs = [(m.linktype, m.wirelen, bytes(data)) for data, m in scapy]
        assert [(s.link_type, s.wire_bytes, s.data) for s in seen] == theirs


# ---- reading in pieces


STEPS = [1, 2, 3, 4, 5, 7, 11, 13, 16, 24, 25, 26, 27, 28, 31, 64, 1000]
"""Sizes of pieces; 24 to 27 bytes of a pcapng file's header may have come when it is looked at."""


@pytest.mark.parametrize("step", STEPS)
def test_pieces_of_any_size_give_the_same_pcapng(step):
    content, expected = many_sections()
    reader, seen = read(Trickle(content, step))
    assert (seen, reader.n_bytes) == (expected, len(content))


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 23, 24, 25, 64, 1000])
def test_pieces_of_any_size_give_the_same_pcap(step):
    packets = [build.Packet(i * SECOND, bytes(i)) for i in range(20)]
    _, seen = read(Trickle(build.pcap(packets), step))
    assert seen == [Seen(i * SECOND, bytes(i), i) for i in range(20)]


def test_files_larger_than_a_chunk(monkeypatch):
    in_small_chunks(monkeypatch)
    packets = [build.Packet(i * SECOND, bytes([i]) * (i * 37 % 700)) for i in range(200)]
    content = build.pcap(packets)
    reader, seen = read(content)
    assert seen == [Seen(p.ts_ns, p.data, len(p.data)) for p in packets]
    assert len(reader._buffer) < len(content) // 10
    content, expected = many_sections()
    assert read(content * 5)[1] == expected * 5
    big = (
        section("<") + interface("<") + enhanced("<", 0, 5_000_000, bytes(100_000)) + enhanced("<", 0, 6_000_000, b"x")
    )
    assert read(big)[1] == [Seen(5 * SECOND, bytes(100_000), 100_000), Seen(6 * SECOND, b"x", 1)]


def test_more_packets_than_the_index_holds(monkeypatch):
    monkeypatch.setattr(container, "CHUNK_PACKETS", 7)
    packets = [build.Packet(i * SECOND, b"abc") for i in range(50)]
    assert [s.ts_ns for s in read(build.pcap(packets))[1]] == [i * SECOND for i in range(50)]


# ---- cut, damaged, not a capture


def test_every_cut_of_a_pcap():
    packets = [build.Packet(i * SECOND, bytes(range(9))) for i in range(3)]
    content = build.pcap(packets)
    for n in range(24, len(content) + 1):
        reader, seen = read(content[:n])
        assert len(seen) == (n - 24) // 25
        assert reader.is_cut == ((n - 24) % 25 != 0)
        assert (reader.damaged_at, reader.damage) == (None, None)


def test_every_cut_of_a_pcapng():
    parts = [
        section(">"),
        interface(">"),
        enhanced(">", 0, 1, b"abc"),
        interface(">", 113),
        simple(">", b"abcd"),
        section("<"),
    ]
    bounds = list(itertools.accumulate(len(part) for part in parts))
    content = b"".join(parts)
    for n in range(28, len(content) + 1):
        reader, seen = read(content[:n])
        assert len(seen) == (n >= bounds[2]) + (n >= bounds[4])
        assert reader.is_cut == (n not in bounds)
        assert reader.damaged_at is None


LENGTH, HEADER_LENGTH = "a record or block that contradicts itself", "a block claims an impossible length"
DIFFER, MAGIC = "a block whose two lengths differ", "a section header without its byte-order magic"


def with_word(content, at, value, order="<"):
    return content[:at] + struct.pack(f"{order}I", value) + content[at + 4 :]


def damaged_files():
    good = build.pcap([build.Packet(SECOND, b"good")] * 3)
    record = struct.pack("<IIII", 1, 0, 0, 0)
    for value in (MAX_RECORD_BYTES + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        yield f"pcap length {value:#x}", good + with_word(record, 8, value) + good, len(good), 3, LENGTH
    for order in ORDERS:
        head = section(order) + interface(order) + enhanced(order, 0, 1, b"good")
        at = len(head)
        tail = enhanced(order, 0, 1, b"lost")
        packet, another, start = enhanced(order, 0, 1, b"abcd"), interface(order), section(order)
        for value in (0, 8, 11, 13, 34, MAX_RECORD_BYTES + 4, 0x7FFFFFFC, 0x80000000, 0xFFFFFFFF):
            yield f"{order} block {value:#x}", head + with_word(packet, 4, value, order) + tail, at, 1, LENGTH
        for value in (0, 12, 16, 21, 0x7FFFFFFC, 0xFFFFFFFF):
            bad = with_word(another, 4, value, order)
            yield f"{order} interface {value:#x}", head + bad + tail, at, 1, HEADER_LENGTH
        for value in (0, 12, 24, 29, 0x7FFFFFFC, 0xFFFFFFFF):
            bad = with_word(start, 4, value, order)
            yield f"{order} section {value:#x}", head + bad + tail, at, 1, HEADER_LENGTH
        for name, part, why in (("packet", packet, None), ("interface", another, DIFFER), ("section", start, DIFFER)):
            bad = with_word(part, len(part) - 4, len(part) + 4, order)
            yield f"{order} {name} lengths differ", head + bad + tail, at, 1, why
        for name, part in (
            ("enhanced", enhanced(order, 1, 1, b"abcd")),
            ("enhanced huge", enhanced(order, 0xFFFFFFFF, 1, b"abcd")),
            ("old", old(order, 1, 1, b"abcd")),
            ("more data than block", with_word(packet, 20, 5, order)),
            ("more data than memory", with_word(packet, 20, 0xFFFFFFFF, order)),
            ("old more data than block", with_word(old(order, 0, 1, b"abcd"), 20, 5, order)),
            ("enhanced too short", block(order, ENHANCED, bytes(16))),
            ("old too short", block(order, OLD, bytes(16))),
            ("simple too short", block(order, SIMPLE, b"")),
            ("new section has no interface", section(order) + packet),
        ):
            yield f"{order} {name}", head + part + tail, at + (28 if name.startswith("new") else 0), 1, None
        yield f"{order} magic", head + with_word(start, 8, 0x1A2B3C4E, order) + tail, at, 1, MAGIC
        yield f"{order} simple without interface", section(order) + simple(order, b"abcd") + tail, 28, 0, None
        yield f"{order} first magic", with_word(start, 8, 0, order) + tail, 0, 0, MAGIC


@pytest.mark.parametrize(
    ("content", "damaged_at", "n_kept", "why"), [pytest.param(*rest, id=name) for name, *rest in damaged_files()]
)
def test_damage_is_named_where_it_is(content, damaged_at, n_kept, why, monkeypatch):
    for _ in range(2):
        reader, seen = read(content)
        assert (reader.damaged_at, len(seen), reader.is_cut) == (damaged_at, n_kept, False)
        assert reader.damage
        assert why is None or reader.damage == why
        in_small_chunks(monkeypatch, 32, 40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "test: empty file"),
        (b"\xa1", "test: not a capture (neither pcap nor pcapng)"),
        (b"\xa1\xb2\xc3", "test: not a capture (neither pcap nor pcapng)"),
        (b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "test: not a capture (neither pcap nor pcapng)"),
        (b"\xa1\xb2\xcd\x34" + bytes(40), "test: not a capture (neither pcap nor pcapng)"),
        *((pcap_header(order)[:n], "test: pcap file ends inside its header") for order in ORDERS for n in (4, 20, 23)),
        *((section("<")[:n], "test: pcapng file ends inside its section header") for n in (4, 8, 12, 24, 27)),
    ],
)
def test_what_is_no_capture_is_said_in_one_line(content, message):
    with pytest.raises(CaptureError) as caught:
        read(content)
    assert str(caught.value) == message
    assert caught.value.path == "test"


def test_header_alone_is_an_empty_capture():
    for content in (pcap_header(), section("<"), section(">") + interface(">")):
        reader, seen = read(content)
        assert (seen, reader.is_cut, reader.damaged_at) == ([], False, None)
        assert (reader.first_ns, reader.last_ns) == (None, None)


# ---- hostile


def check_hostile(content):
    reader, _ = read(content)
    assert reader.n_bytes <= len(content)
    if reader.damaged_at is not None:
        assert 0 <= reader.damaged_at < len(content)
    else:
        assert reader.n_bytes == len(content)
    assert len(reader._buffer) <= 4 * MAX_RECORD_BYTES


@settings(max_examples=200)
@given(st.sampled_from(ORDERS), st.binary(max_size=400))
def test_any_bytes_behind_a_header(order, rest):
    check_hostile(pcap_header(order) + rest)
    check_hostile(section(order) + rest)
    check_hostile(section(order) + interface(order) + rest)
    check_hostile(section(order) + block(order, INTERFACE, bytes(8) + rest))
    for kind in (SECTION, INTERFACE, OLD, SIMPLE, ENHANCED):
        check_hostile(section(order) + interface(order) + block(order, kind, rest))


@pytest.mark.parametrize("value", [0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_every_field_at_its_extremes(value):
    content, _ = many_sections()
    for at in range(8, len(content), 4):
        check_hostile(with_word(content, at, value, "<"))
        check_hostile(with_word(content, at, value, ">"))
    content = build.pcap([build.Packet(SECOND, b"abcd")] * 3)
    for at in range(4, len(content) - 3):
        check_hostile(with_word(content, at, value))


class Endless(io.RawIOBase):
    """A header, then one byte value for ever; counts what was taken."""

    def __init__(self, head, filler):
        self.head = head
        self.filler = filler
        self.taken = 0

    def readinto(self, buffer):
        head, self.head = self.head[: len(buffer)], self.head[len(buffer) :]
        buffer[:] = head + bytes([self.filler]) * (len(buffer) - len(head))
        self.taken += len(buffer)
        assert self.taken <= 8 * MAX_RECORD_BYTES, "reads on and on"
        return len(buffer)


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (pcap_header() + struct.pack("<IIII", 1, 0, MAX_RECORD_BYTES, 0), 1),
        (pcap_header() + struct.pack("<IIII", 1, 0, MAX_RECORD_BYTES + 1, 0), 0),
        (section("<") + struct.pack("<II", UNKNOWN, MAX_RECORD_BYTES), 0),
        (section("<") + struct.pack("<II", UNKNOWN, MAX_RECORD_BYTES + 4), 0),
        (section("<") + struct.pack("<II", INTERFACE, MAX_RECORD_BYTES), 0),
    ],
)
def test_claims_are_bounded_before_memory_is_taken(head, kept):
    stream = Endless(head, 0xFF)
    reader = Reader(stream, "test")
    assert sum(len(chunk.packets) for chunk in reader.chunks()) == kept
    assert reader.damaged_at is not None
    assert len(reader._buffer) <= 4 * MAX_RECORD_BYTES


def test_many_interfaces_are_read_in_bounded_time_and_number(monkeypatch):
    monkeypatch.setattr(container, "MAX_INTERFACES", 100)
    head = section("<") + interface("<") * 99
    reader, seen = read(head + interface("<", 7) + enhanced("<", 99, 1, b"x"))
    assert (reader.damaged_at, seen) == (None, [Seen(1000, b"x", 1, 7, 99)])
    reader, seen = read(head + interface("<") * 2)
    assert reader.damage == "more than 100 interfaces in one section"
    assert reader.damaged_at == len(head) + 20
