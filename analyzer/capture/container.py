"""Capture files: pcap and pcapng, a byte stream in, chunks of bytes with an index of their packets out.

Knows nothing of what is inside a packet. Reads forward only, so standard input works like a file. Formats:
draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

import io
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from analyzer import kernel
from analyzer.capture import wire
from analyzer.errors import CaptureError
from analyzer.model import INTERFACE, PACKET, Octets, Rows, int64

FIRST_CHUNK_BYTES = 1 << 16
"""The first chunk is small: a live pipe shows its first rows soon, and its packets tell what an average one weighs."""

CHUNK_BYTES = 1 << 23
MAX_RECORD_BYTES = 1 << 24
"""A record or block that claims more than this is taken for damage (libpcap writes at most 2^18 bytes a packet)."""

MAX_INTERFACES = 1 << 16
MAX_SECONDS = 9_223_372_035
"""Later than this (in the year 2262) nanoseconds since 1970 leave int64."""

CHUNK_PACKETS = 1 << 16
INTERPRETED_PACKETS = 1 << 10
"""Fewer at a time while kernels are interpreted: what takes long is compiled before it takes longer."""


PCAP_MAGIC = {
    b"\xa1\xb2\xc3\xd4": (True, 1000),
    b"\xd4\xc3\xb2\xa1": (False, 1000),
    b"\xa1\xb2\x3c\x4d": (True, 1),
    b"\x4d\x3c\xb2\xa1": (False, 1),
}
"""First four bytes to (big-endian, nanoseconds per unit of the second half of a timestamp)."""

PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
SECTION_HEADER = 0x0A0D0D0A

MORE, STOPPED, DAMAGED, FULL = 0, 1, 2, 3
"""Why an indexing kernel returned: needs more bytes, met a block that Python reads, met damage, has no room."""


class Chunk(NamedTuple):
    """Bytes and the packets in them; both are overwritten when the next chunk is read.

    A live source knows the time too: up to `now_ns` nothing more has come.
    """

    data: Octets
    packets: Rows
    first_packet: int
    now_ns: int | None = None


@kernel.kernel
def index_pcap(
    data: Octets, off: int, is_big: bool, multiplier: int, link_type: int, packets: Rows
) -> tuple[int, int, int]:
    """Find the records of a pcap file.

    Returns:
        Number of packets written, offset behind the last whole record, and why it ended there.

    """
    n = 0
    end = len(data)
    while n < len(packets):
        head = data[off : off + 16]
        if end - off < 16 or len(head) != 16:
            return n, off, MORE
        captured = wire.u32(head, 8, is_big)
        if captured > MAX_RECORD_BYTES:
            return n, off, DAMAGED
        if captured > end - off - 16:
            return n, off, MORE
        row = packets[n]
        row["ts_ns"] = wire.u32(head, 0, is_big) * 1_000_000_000 + wire.u32(head, 4, is_big) * multiplier
        row["off"] = off + 16
        row["captured_bytes"] = captured
        row["wire_bytes"] = max(captured, wire.u32(head, 12, is_big))
        row["link_type"] = link_type
        row["interface"] = 0
        n += 1
        off += 16 + captured
    return n, off, FULL


@kernel.kernel
def ticks_to_ns(high: int, low: int, interface: Rows) -> int:
    """A pcapng timestamp in nanoseconds since 1970; one that leaves the range of int64 becomes 0."""
    offset_s = int64(interface["offset_s"])
    divisor = int64(interface["divisor"])
    if divisor > 1:
        # long division: today's count of 10^-10 s has its top bit set
        total = ((high // divisor) << 32) + (((high % divisor) << 32) | low) // divisor
        whole, ns = total // 1_000_000_000, total % 1_000_000_000
    elif high > 0x7FFFFFFF:
        return 0
    elif int64(interface["shift"]) > 0:
        shift = int64(interface["shift"])
        ticks = (high << 32) | low
        whole = ticks >> shift
        part = ticks & ((1 << shift) - 1)
        if shift > 30:
            # in two halves: 62 bits times 10**9 do not fit
            rest = part & ((1 << (shift - 30)) - 1)
            part = (part >> (shift - 30)) * 1_000_000_000 + ((rest * 1_000_000_000) >> (shift - 30))
            ns = part >> 30
        else:
            ns = (part * 1_000_000_000) >> shift
    else:
        multiplier = int64(interface["multiplier"])
        per_second = 1_000_000_000 // multiplier
        ticks = (high << 32) | low
        whole = ticks // per_second
        ns = (ticks % per_second) * multiplier
    if whole > MAX_SECONDS or offset_s > MAX_SECONDS - whole or offset_s < -whole:
        return 0
    return (whole + offset_s) * 1_000_000_000 + ns


@kernel.kernel
def index_pcapng(
    data: Octets, off: int, is_big: bool, interfaces: Rows, last_ns: int, packets: Rows
) -> tuple[int, int, int]:
    """Find the packet blocks of a pcapng section; stops at blocks that change how packets are read.

    A simple packet block has no time of its own and takes that of the packet before it.

    Returns:
        Number of packets written, offset behind the last block read, and why it ended there.

    """
    n = 0
    end = len(data)
    while n < len(packets):
        if end - off < 12:
            return n, off, MORE
        kind = wire.u32(data, off, is_big)
        if kind == SECTION_HEADER or kind == 1:
            return n, off, STOPPED
        length = wire.u32(data, off + 4, is_big)
        if length < 12 or length % 4 != 0 or length > MAX_RECORD_BYTES:
            return n, off, DAMAGED
        if length > end - off:
            return n, off, MORE
        if wire.u32(data, off + length - 4, is_big) != length:
            return n, off, DAMAGED
        if kind == 6 or kind == 2 or kind == 3:
            body = 20 if kind != 3 else 4
            if length - 12 < body:
                return n, off, DAMAGED
            interface = 0
            if kind == 6:
                interface = wire.u32(data, off + 8, is_big)
            elif kind == 2:
                interface = wire.u16(data, off + 8, is_big)
            if interface >= len(interfaces):
                return n, off, DAMAGED
            about = interfaces[interface]
            if kind == 3:
                wire_bytes = wire.u32(data, off + 8, is_big)
                captured = min(wire_bytes, length - 16)
                snaplen = int64(about["snaplen_bytes"])
                if snaplen > 0:
                    captured = min(captured, snaplen)
            else:
                captured = wire.u32(data, off + 20, is_big)
                wire_bytes = wire.u32(data, off + 24, is_big)
                last_ns = ticks_to_ns(wire.u32(data, off + 12, is_big), wire.u32(data, off + 16, is_big), about)
                if captured > length - 32:
                    return n, off, DAMAGED
            row = packets[n]
            row["ts_ns"] = last_ns
            row["off"] = off + 8 + body
            row["captured_bytes"] = captured
            row["wire_bytes"] = max(captured, wire_bytes)
            row["link_type"] = int64(about["link_type"])
            row["interface"] = interface
            n += 1
        off += length
    return n, off, FULL


def is_capture(head: bytes) -> bool:
    """Whether these first bytes (at least 4) begin a pcap or pcapng file; cannot raise."""
    return head[:4] in PCAP_MAGIC or head[:4] == PCAPNG_MAGIC


class Reader:
    """Reads one capture as chunks and keeps what is said about the file itself.

    Attributes:
        kind: `pcap` or `pcapng`.
        n_bytes: Bytes read so far.
        n_packets: Packets handed out so far.
        first_ns, last_ns: Earliest and latest packet time handed out, None before the first.
        is_cut: The file ends inside a record.
        damaged_at, damage: Byte offset of damage, and what it was.

    """

    def __init__(self, stream: io.RawIOBase | io.BufferedIOBase, source: str) -> None:
        """Read the file header.

        Raises:
            CaptureError: Empty, or not a capture.

        """
        self.source = source
        self.kind = "pcap"
        self.n_bytes = 0
        self.n_packets = 0
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.is_cut = False
        self.damaged_at: int | None = None
        self.damage: str | None = None
        self._stream = stream
        self._buffer = np.empty(FIRST_CHUNK_BYTES, np.uint8)
        self._filled = 0
        self._consumed = 0
        self._at_end = False
        self._is_big = False
        self._multiplier = 1000
        self._link_type = 0
        self._interfaces = np.zeros(8, INTERFACE)
        self._n_interfaces = 0
        self._names: list[str | None] = []
        self._previous_ns = 0
        self._packets = np.zeros(CHUNK_PACKETS, PACKET)
        self._read_header()

    def _read_header(self) -> None:
        while self._filled < 4 and not self._at_end:
            self._fill()
        needed = 28 if self._buffer[:4].tobytes() == PCAPNG_MAGIC else 24
        while self._filled < needed and not self._at_end:
            self._fill()
        head = self._buffer[: self._filled].tobytes()
        if not head:
            raise CaptureError(self.source, "empty file")
        if head[:4] in PCAP_MAGIC:
            if len(head) < 24:
                raise CaptureError(self.source, "pcap file ends inside its header")
            self._is_big, self._multiplier = PCAP_MAGIC[head[:4]]
            order = "big" if self._is_big else "little"
            # the upper bits of the field hold the frame check sequence's length (draft-ietf-opsawg-pcap section 4)
            self._link_type = int.from_bytes(head[20:24], order) & 0x03FFFFFF  # type: ignore[arg-type]
            self._consumed = 24
        elif head[:4] == PCAPNG_MAGIC:
            self.kind = "pcapng"
            if len(head) < 28:
                raise CaptureError(self.source, "pcapng file ends inside its section header")
        else:
            raise CaptureError(self.source, "not a capture (neither pcap nor pcapng)")

    def _fill(self) -> None:
        """Move what is left to the front and read more behind it; sets `_at_end` when nothing came."""
        left = self._filled - self._consumed
        size = len(self._buffer)
        if left >= size // 2:
            size = max(CHUNK_BYTES, 2 * size)
        elif self.n_bytes >= FIRST_CHUNK_BYTES:
            size = max(CHUNK_BYTES, size)
        if size != len(self._buffer):
            grown = np.empty(size, np.uint8)
            grown[:left] = self._buffer[self._consumed : self._filled]
            self._buffer = grown
        elif self._consumed:
            self._buffer[:left] = self._buffer[self._consumed : self._filled].copy()
        self._filled = left
        self._consumed = 0
        n = self._stream.readinto(memoryview(self._buffer)[self._filled :])  # type: ignore[arg-type]
        if not n:
            self._at_end = True
            return
        self._filled += n
        self.n_bytes += n

    @property
    def link_types(self) -> tuple[int, ...]:
        """Link types of the interfaces described so far, in their order."""
        if self.kind == "pcap":
            return (self._link_type,)
        return tuple(self._interfaces["link_type"][: self._n_interfaces].tolist())

    def _offset(self) -> int:
        """Where the first byte not consumed stands in the file."""
        return self.n_bytes - self._filled + self._consumed

    def _damage(self, why: str) -> None:
        self.damaged_at = self._offset()
        self.damage = why

    def interface_name(self, number: int) -> str | None:
        """What the file calls an interface of the current chunk's packets, None where it does not say."""
        return self._names[number] if number < len(self._names) else None

    def chunks(self) -> Iterator[Chunk]:
        """Yield the file chunk by chunk; ends at its end or at the first damage, and says which in the attributes."""
        while self.damaged_at is None:
            view = self._buffer[: self._filled]
            view.flags.writeable = False
            n, reason = self._index(view)
            if n:
                packets = self._packets[:n]
                first = self.n_packets + 1
                self.n_packets += n
                times = packets["ts_ns"]
                earliest, latest = int(times.min()), int(times.max())
                self.first_ns = earliest if self.first_ns is None else min(self.first_ns, earliest)
                self.last_ns = latest if self.last_ns is None else max(self.last_ns, latest)
                yield Chunk(view, packets, first)
            if reason == STOPPED and not self._read_block():
                reason = MORE
            if reason == DAMAGED:
                self._damage("a record or block that contradicts itself")
            elif reason == MORE:
                if self._at_end:
                    self.is_cut = self._consumed < self._filled
                    return
                self._fill()

    def _index(self, view: Octets) -> tuple[int, int]:
        packets = self._packets if kernel.is_compiled() else self._packets[:INTERPRETED_PACKETS]
        if self.kind == "pcap":
            n, self._consumed, reason = index_pcap(
                view, self._consumed, self._is_big, self._multiplier, self._link_type, packets
            )
        else:
            n, self._consumed, reason = index_pcapng(
                view,
                self._consumed,
                self._is_big,
                self._interfaces[: self._n_interfaces],
                self._previous_ns,
                packets,
            )
        if n:
            self._previous_ns = int(self._packets["ts_ns"][n - 1])
        return n, reason

    def _read_block(self) -> bool:
        """Read a section header or an interface description, which change how the packets after them are read.

        Returns:
            False where the block is not wholly in the buffer yet.

        """
        head = self._buffer[self._consumed : min(self._filled, self._consumed + 28)].tobytes()
        if head[:4] == PCAPNG_MAGIC:
            if len(head) < 12:
                return False
            magic = head[8:12]
            if magic not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
                self._damage("a section header without its byte-order magic")
                return True
            self._is_big = magic == b"\x1a\x2b\x3c\x4d"
        order = "big" if self._is_big else "little"
        length = int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
        if length < (28 if head[:4] == PCAPNG_MAGIC else 20) or length % 4 or length > MAX_RECORD_BYTES:
            self._damage("a block claims an impossible length")
            return True
        if length > self._filled - self._consumed:
            return False
        block = self._buffer[self._consumed : self._consumed + length].tobytes()
        if block[-4:] != block[4:8]:
            self._damage("a block whose two lengths differ")
            return True
        if head[:4] == PCAPNG_MAGIC:
            self._n_interfaces = 0
            self._names = []
        elif self._n_interfaces >= MAX_INTERFACES:
            self._damage(f"more than {MAX_INTERFACES} interfaces in one section")
            return True
        else:
            if self._n_interfaces == len(self._interfaces):
                self._interfaces = np.concatenate([self._interfaces, np.zeros_like(self._interfaces)])
            self._interfaces[self._n_interfaces] = parse_interface(block, is_big=self._is_big)[0]
            self._names.append(parse_interface_name(block, is_big=self._is_big))
            self._n_interfaces += 1
        self._consumed += length
        return True


def _options(block: bytes, *, is_big: bool) -> Iterator[tuple[int, bytes]]:
    """Options of a whole Interface Description Block: code and value, which may be cut off."""
    order: Literal["big", "little"] = "big" if is_big else "little"
    off = 16
    while off + 4 <= len(block) - 4:
        code = int.from_bytes(block[off : off + 2], order)
        length = int.from_bytes(block[off + 2 : off + 4], order)
        if code == 0:
            return
        yield code, block[off + 4 : min(off + 4 + length, len(block) - 4)]
        off += 4 + length + (-length) % 4


def parse_interface_name(block: bytes, *, is_big: bool) -> str | None:
    """The name in an Interface Description Block (option 2), None where there is none; arguments as below."""
    name = next((value for code, value in _options(block, is_big=is_big) if code == 2), None)
    return None if name is None else name.decode("utf-8", "surrogateescape")


def parse_interface(block: bytes, *, is_big: bool) -> Rows:
    """Read one Interface Description Block (pcapng section 4.2).

    Args:
        block: The whole block, lengths included, at least 20 bytes.
        is_big: Byte order of the section.

    Returns:
        One INTERFACE row; an option that is cut off or senseless keeps its default (microseconds).

    """
    order = "big" if is_big else "little"

    def number(part: bytes, *, signed: bool = False) -> int:
        return int.from_bytes(part, order, signed=signed)  # type: ignore[arg-type]

    row = np.zeros(1, INTERFACE)
    row["link_type"] = number(block[8:10])
    row["snaplen_bytes"] = number(block[12:16])
    row["multiplier"], row["divisor"] = 1000, 1
    for code, value in _options(block, is_big=is_big):
        if code == 9 and len(value) == 1:
            exponent = value[0] & 0x7F
            if value[0] & 0x80:
                if exponent == 0:
                    row["multiplier"] = 10**9
                elif exponent < 63:
                    row["shift"] = exponent
            elif exponent <= 9:
                row["multiplier"], row["divisor"] = 10 ** (9 - exponent), 1
            elif exponent <= 18:
                row["multiplier"], row["divisor"] = 1, 10 ** (exponent - 9)
        elif code == 14 and len(value) == 8:
            row["offset_s"] = number(value, signed=True)
    return row
