# SPDX-License-Identifier: GPL-2.0-or-later
"""Where scapy is at home: rare link types, its packets and live interfaces as chunks, and the WebSocket layer it lacks.

The only module that imports scapy, which takes 0.7 s, and 0.1 ms a packet: nothing imports this one before that is
needed. It parses nothing that the kernels parse. Scapy is GPL-2.0-only, and so is a program together with this
module.
"""

import contextlib
import decimal
import functools
import importlib
import socket
import struct
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from scapy.config import conf
from scapy.error import Scapy_Exception
from scapy.fields import (
    BitEnumField,
    BitField,
    ConditionalField,
    LongField,
    ShortEnumField,
    ShortField,
    StrLenField,
    XStrFixedLenField,
)
from scapy.packet import Packet, Padding, Raw, bind_layers

from analyzer.capture.container import MAX_SECONDS, Chunk
from analyzer.errors import UsageError
from analyzer.model import PACKET, Counter

Packets = Iterable[Packet]
"""A `PacketList`, or anything else that gives scapy packets one after the other."""

UNKNOWN_LINK = 0x03FFFFFF
"""Link type of a packet whose outermost layer is none; it is counted, not read."""

CHUNK_PACKETS = 1 << 10
CHUNK_BYTES = 1 << 20
"""A chunk ends with whichever it reaches first, so that a generator is read in bounded memory."""

TICK_S = 0.25
"""How long packets of an interface are gathered at most before they are looked at."""

RECEIVE_BYTES = 1 << 18
"""Longest packet taken from an interface whole: segmentation offload makes them longer than any wire carries."""

SOCKET_BUFFER_BYTES = 1 << 25
"""What the system may hold back while packets are looked at, where it lets us have so much."""

SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING, SO_RCVBUFFORCE = 263, 6, 23, 33
"""Numbers of Linux (packet(7), socket(7)) that Python's socket module does not name."""


def link_type_of(layer: type[Packet]) -> int:
    """The number that capture files give to packets which begin with this layer."""
    for one in layer.__mro__:
        number = conf.l2types.layer2num.get(one)
        if number is not None:
            return int(number)
    return UNKNOWN_LINK


def to_ns(instant: object) -> int | None:
    """Seconds since 1970 as scapy has them (EDecimal, float) in nanoseconds, None for what is no instant.

    A float means its shortest decimal form, as it was written before it was rounded to binary.
    """
    if instant is None:
        return None
    try:
        exact = instant if isinstance(instant, decimal.Decimal) else decimal.Decimal(str(instant))
        if not exact.is_finite() or not 0 <= exact <= MAX_SECONDS:
            return None
        seconds = int(exact)
        return seconds * 1_000_000_000 + int((exact - seconds).scaleb(9))
    except (ArithmeticError, ValueError):
        return None


class _Gathering:
    """Packets on their way into a chunk, and what is said about all of them; see `container.Reader`."""

    kind = "packets"
    is_cut = False
    damaged_at: int | None = None
    damage: str | None = None

    def __init__(self) -> None:
        self.n_bytes = 0
        self.n_packets = 0
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._parts: list[bytes] = []
        self._rows: list[tuple[int, int, int, int, int, int]] = []
        self._held_bytes = 0

    def _add(self, data: bytes, ts_ns: int, link_type: int, *, wire_bytes: int, interface: int = 0) -> None:
        self._rows.append((ts_ns, self._held_bytes, len(data), max(len(data), wire_bytes), link_type, interface))
        self._parts.append(data)
        self._held_bytes += len(data)
        self.first_ns = ts_ns if self.first_ns is None else min(self.first_ns, ts_ns)
        self.last_ns = ts_ns if self.last_ns is None else max(self.last_ns, ts_ns)

    def _is_full(self) -> bool:
        return len(self._rows) >= CHUNK_PACKETS or self._held_bytes >= CHUNK_BYTES

    def _take(self, now_ns: int | None = None) -> Chunk:
        # a copy in an array of our own: aligned as all other chunks are
        data = np.empty(self._held_bytes, np.uint8)
        data[:] = np.frombuffer(b"".join(self._parts), np.uint8)
        data.flags.writeable = False
        packets = np.array(self._rows, PACKET)
        first = self.n_packets + 1
        self.n_packets += len(packets)
        self.n_bytes += self._held_bytes
        self._parts, self._rows, self._held_bytes = [], [], 0
        return Chunk(data, packets, first, now_ns)


class PacketReader(_Gathering):
    """Reads scapy packets as chunks, whatever they come from: a `PacketList`, a `PcapReader`, a generator."""

    def __init__(self, packets: Packets) -> None:
        """Begin with nothing read.

        Raises:
            UsageError: That cannot be gone through.

        """
        super().__init__()
        if isinstance(packets, str | bytes) or not isinstance(packets, Iterable):
            what = type(packets).__name__
            raise UsageError(f"read_packets takes scapy packets, not {what}; analyzer.read takes files")
        self._packets = packets

    def chunks(self) -> Iterator[Chunk]:
        """Yield the packets chunk by chunk.

        A packet without an instant has that of the one before it. One that scapy cannot build has no bytes, and is
        counted as one whose headers were not captured.

        Raises:
            UsageError: Something among them is no packet.

        """
        ts_ns = 0
        for packet in self._packets:
            if not isinstance(packet, Packet):
                n = self.n_packets + len(self._rows) + 1
                raise UsageError(f"packet {n} is no scapy packet but {type(packet).__name__}")
            moment = to_ns(packet.time)
            ts_ns = ts_ns if moment is None else moment
            try:
                data = bytes(packet)
            except Exception:  # noqa: BLE001  a user's own layer may raise anything
                data = b""
            wire_bytes = len(data) + _missing_bytes(packet, data)
            self._add(data, ts_ns, link_type_of(type(packet)), wire_bytes=wire_bytes)
            if self._is_full():
                yield self._take()
        if self._rows:
            yield self._take()


def _missing_bytes(packet: Packet, data: bytes) -> int:
    """How many bytes of it travelled and were not captured.

    It may have been edited since: its wire length goes with the bytes that it was made of, where there were some.
    """
    wire_bytes = packet.wirelen
    if not isinstance(wire_bytes, int):
        return 0
    return max(0, wire_bytes - len(packet.original or data))


class Interface(NamedTuple):
    """A network interface as the user may name it."""

    name: str
    addresses: tuple[str, ...]


def list_interfaces() -> list[Interface]:
    """The interfaces that are up."""
    import scapy.arch  # noqa: F401  fills conf.ifaces
    from scapy.interfaces import get_working_ifaces

    found = []
    for one in get_working_ifaces():
        addresses = [address for family in (4, 6) for address in one.ips.get(family, [])]
        found.append(Interface(str(one.name), tuple(dict.fromkeys(addresses))))
    return sorted(found)


class LiveReader(_Gathering):
    """Reads interfaces as chunks, as packets come: a chunk at least every quarter of a second, even an empty one.

    Attributes:
        n_dropped: Packets that the system had to throw away before we took them; known on Linux alone.
        failure: Why no more can be taken, where that is so: the interface is gone.

    """

    kind = "live"

    def __init__(self, names: Sequence[str], *, bpf: str | None = None, duration_s: float | None = None) -> None:
        """Open the interfaces, which is when packets begin to be gathered.

        Args:
            names: Of interfaces; `any` means all that are up.
            bpf: Filter in the language of tcpdump, which takes libpcap to translate.
            duration_s: When to end by itself.

        Raises:
            UsageError: No such interface, no right to capture, or the filter cannot be used.

        """
        super().__init__()
        import scapy.arch
        import scapy.layers.inet
        import scapy.layers.inet6
        import scapy.layers.l2  # noqa: F401  link types by class

        self.n_dropped = 0
        self.failure: str | None = None
        self._is_stopped = False
        self._sockets: list[Any] = []
        known = [one.name for one in list_interfaces()]
        if "any" in names and "any" not in known:
            names = known
        try:
            for name in dict.fromkeys(names):
                self._sockets.append(_open_socket(name, bpf))
        except BaseException:
            self.close()
            raise
        self._until_s = None if duration_s is None else time.monotonic() + duration_s

    def stop(self) -> None:
        """End with the packets taken so far; may be called by a signal handler."""
        self._is_stopped = True

    def close(self) -> None:
        """Give the interfaces back."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.close()
        self._sockets = []

    def chunks(self) -> Iterator[Chunk]:
        """Yield what comes until `stop` is called or the time is over."""
        while not self._is_stopped and (self._until_s is None or time.monotonic() < self._until_s):
            was_idle = self._gather()
            for one in self._sockets:
                self.n_dropped += _count_dropped(one)
            # where packets still wait the clock is theirs, not ours
            yield self._take(time.time_ns() if was_idle else self.last_ns)

    def _gather(self) -> bool:
        """Take packets for a tick, or until a chunk is full; whether none was left waiting."""
        until_s = time.monotonic() + TICK_S
        if self._until_s is not None:
            until_s = min(until_s, self._until_s)
        while not self._is_full():
            left_s = until_s - time.monotonic()
            if left_s <= 0 or self._is_stopped:
                return False
            ready = type(self._sockets[0]).select(self._sockets, left_s)
            if not ready:
                return True
            for one in ready:
                self._receive(one)
        return False

    def _receive(self, one: Any) -> None:
        try:
            layer, data, instant = one.recv_raw(RECEIVE_BYTES)
        except OSError as error:
            self.failure = f"{one.iface}: {(error.strerror or str(error)).lower()}"
            self.stop()
            return
        if layer is None or not data:
            return
        ts_ns = to_ns(instant)
        moment = time.time_ns() if ts_ns is None else ts_ns
        at = self._sockets.index(one)
        self._add(data, moment, link_type_of(layer), wire_bytes=len(data), interface=at)


def _open_socket(name: str, bpf: str | None) -> Any:
    """A socket that listens on an interface.

    Raises:
        UsageError: It cannot be opened; the message says what to do.

    """
    try:
        opened = conf.L2listen(iface=name, filter=bpf)
    except PermissionError as error:
        raise UsageError(
            f"{name}: no right to capture; run as root, or give this Python the right to: "
            f"setcap cap_net_raw+ep {sys.executable}"
        ) from error
    except (Scapy_Exception, ImportError) as error:
        why = str(error).strip().rstrip(".! ")
        if bpf is not None and "libpcap is not available" in why:
            raise UsageError("--filter needs libpcap to translate it (package libpcap0.8 or libpcap)") from error
        raise UsageError(f"--filter {bpf!r}: {why}" if bpf is not None else f"{name}: {why}") from error
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).strip().lower()
        known = ", ".join(one.name for one in list_interfaces()) or "none is up"
        raise UsageError(f"{name}: {why}; interfaces: {known}") from error
    if sys.platform == "linux" and isinstance(opened.ins, socket.socket):
        if name == conf.loopback_name:
            with contextlib.suppress(OSError):  # else each packet comes twice: as it leaves, and as it arrives
                opened.ins.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        try:
            opened.ins.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES)
        except OSError:
            opened.ins.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    return opened


def _count_dropped(one: Any) -> int:
    """How many packets the system has thrown away since this was last asked."""
    if sys.platform != "linux" or not isinstance(one.ins, socket.socket):
        return 0
    try:
        _, n_dropped = struct.unpack("II", one.ins.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    except (OSError, struct.error):
        return 0
    return int(n_dropped)


MAX_FRAMES = 64
"""Frames of one TCP payload that become layers; what is behind them stays bytes, for each layer costs recursion."""

CLOSE = 8
OPCODES = {0: "continuation", 1: "text", 2: "binary", CLOSE: "close", 9: "ping", 10: "pong"}

STATUS = {
    1000: "normal closure",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no status received",
    1006: "abnormal closure",
    1007: "invalid payload data",
    1008: "policy violation",
    1009: "message too big",
    1010: "mandatory extension",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
    1015: "TLS handshake",
}
"""IANA, WebSocket Close Code Number Registry, shortened."""

HTTP_HEADS = (b"GET ", b"HTTP/1.")


def _head_bytes(data: bytes) -> int:
    """Size of the frame header that begins here (RFC 6455 section 5.2), 0 where not all of it is here."""
    if len(data) < 2:
        return 0
    size = 2 + {126: 2, 127: 8}.get(data[1] & 127, 0) + (4 if data[1] & 128 else 0)
    return size if size <= len(data) else 0


def _body_bytes(data: bytes) -> int:
    """Payload length that a whole frame header states."""
    short = data[1] & 127
    if short < 126:
        return short
    return int.from_bytes(data[2:4] if short == 126 else data[2:10], "big")


def _mask(data: bytes, key: bytes) -> bytes:
    """Mask or unmask (RFC 6455 section 5.3)."""
    n = len(data)
    keys = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")).to_bytes(n, "big")


class _StatusField(ShortEnumField):
    """The status of a Close: two bytes, or none."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, Any]:
        if min(len(s), cast("WebSocket", pkt).size) < 2:
            return s, None
        return super().getfield(pkt, s)

    def addfield(self, pkt: Packet, s: bytes, val: Any) -> bytes:
        return s if val is None else super().addfield(pkt, s, val)


class WebSocket(Packet):
    """A WebSocket frame (RFC 6455 section 5.2); what stands behind it in the same TCP payload is its payload.

    `data`, or `status` and `reason` of a Close, are as they were before masking; they are masked when the frame is
    built, where `mask` is 1. Lengths that are None are filled in. Bytes that are no whole frame header, and the HTTP of
    the opening, become `Raw`. With `sniff(session=TCPSession)` frames are put together over packets. `bind_port` says
    which TCP ports carry frames.

    >>> WebSocket(opcode="close", mask=1, key=b"7fa!", status=1000, reason="bye")
    """

    name = "WebSocket"
    fields_desc = [  # noqa: RUF012  scapy's way
        BitField("fin", 1, 1),
        BitField("rsv1", 0, 1),
        BitField("rsv2", 0, 1),
        BitField("rsv3", 0, 1),
        BitEnumField("opcode", 1, 4, OPCODES),
        BitField("mask", 0, 1),
        BitField("len", None, 7),
        ConditionalField(ShortField("len16", None), lambda frame: frame.len == 126),
        ConditionalField(LongField("len64", cast("int", None)), lambda frame: frame.len == 127),
        ConditionalField(XStrFixedLenField("key", b"\0\0\0\0", 4), lambda frame: bool(frame.mask)),
        ConditionalField(_StatusField("status", None, STATUS), lambda frame: frame.opcode == CLOSE),
        ConditionalField(
            StrLenField("reason", b"", length_from=lambda frame: frame.size - (0 if frame.status is None else 2)),
            lambda frame: frame.opcode == CLOSE,
        ),
        ConditionalField(
            StrLenField("data", b"", length_from=lambda frame: frame.size),
            lambda frame: frame.opcode != CLOSE,
        ),
    ]

    @property
    def size(self) -> int:
        """Payload length as the header states it; 0 where it is yet to be filled in."""
        stated = {126: self.len16, 127: self.len64}.get(self.len, self.len)
        return int(stated or 0)

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_args: Any, **_more: Any) -> type[Packet]:
        """What these bytes are: a frame, or the HTTP before it, or too few to tell."""
        if _pkt is None:
            return cls
        data = bytes(_pkt)
        if data.startswith(HTTP_HEADS):
            http = sys.modules.get("scapy.layers.http")
            return Raw if http is None else cast("type[Packet]", http.HTTP)
        return cls if _head_bytes(data) else Raw

    @classmethod
    def tcp_reassemble(cls, data: bytes, metadata: dict[str, Any], _session: dict[str, Any]) -> Packet | None:
        """Give `TCPSession` the whole frames, or the whole head, that the stream holds by now."""
        if data.startswith(HTTP_HEADS):
            end = data.find(b"\r\n\r\n") + 4
            whole: Packet | None = Raw(data[:end]) if end >= 4 else None
        else:
            end = 0
            for _ in range(MAX_FRAMES):
                head = _head_bytes(data[end : end + 14])
                size = head and head + _body_bytes(data[end : end + 14])
                if not size or size > len(data) - end:
                    break
                end += size
            whole = cls(data[:end]) if end else None
        if whole is None:
            return cls(data) if metadata.get("tcp_end") and data else None
        return whole / Padding(data[end:]) if end < len(data) else whole

    def pre_dissect(self, s: bytes) -> bytes:
        """Unmask the payload."""
        head = _head_bytes(s)
        if not head or not s[1] & 128:
            return s
        end = head + _body_bytes(s)
        return s[:head] + _mask(s[head:end], s[head - 4 : head]) + s[end:]

    def post_dissect(self, s: bytes) -> bytes:
        """Have it built from its fields: what was dissected is not what travelled."""
        self.raw_packet_cache = None
        return s

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill the length in and mask the payload."""
        n_long = {126: 2, 127: 8}.get(self.len, 0)
        n_head = 2 + n_long + (4 if self.mask else 0)
        head, body = pkt[:n_head], pkt[n_head:]
        if self.len is None:
            n = len(body)
            short, n_long = (n, 0) if n < 126 else (126, 2) if n < 1 << 16 else (127, 8)
            long = n.to_bytes(n_long, "big") if n_long else b""
            head = bytes([head[0], head[1] & 128 | short]) + long + head[2:]
        elif n_long and (self.len16 if n_long == 2 else self.len64) is None:
            head = head[:2] + len(body).to_bytes(n_long, "big") + head[2 + n_long :]
        if self.mask:
            body = _mask(body, head[-4:])
        return head + body + pay

    def guess_payload_class(self, payload: bytes) -> type[Packet]:  # noqa: ARG002  scapy names it
        """Another frame, up to a limit."""
        before: Packet | None = self
        for _ in range(MAX_FRAMES - 1):
            before = before.underlayer if before is not None else None
            if not isinstance(before, WebSocket):
                return WebSocket
        return Raw

    def mysummary(self) -> tuple[str, list[type[Packet]]]:  # type: ignore[override]  # scapy takes both
        """What this frame carries; those below it are named too."""
        text = f"WebSocket {OPCODES.get(self.opcode, f'opcode {self.opcode}')}"
        if self.opcode != CLOSE:
            return f"{text} {len(self.data)} bytes", [WebSocket]
        text += " without status" if self.status is None else f" {self.status}"
        return text + (f" {self.reason!r}" if self.reason else ""), [WebSocket]


def bind_port(*ports: int) -> None:
    """Have scapy take what TCP carries from and to these ports for WebSocket frames.

    The same as `bind_layers(TCP, WebSocket, dport=...)` and `sport=...`, but before what was bound earlier: HTTP heads
    on these ports are still HTTP where scapy's `http` layer is loaded.
    """
    from scapy.layers.inet import TCP

    for port in ports:
        for name in ("dport", "sport"):
            bind_layers(TCP, WebSocket, **{name: port})
            TCP.payload_guess.insert(0, TCP.payload_guess.pop())


LAYERS = {
    105: ("scapy.layers.dot11", "Dot11"),
    119: ("scapy.layers.dot11", "PrismHeader"),
    127: ("scapy.layers.dot11", "RadioTap"),
    163: ("scapy.contrib.avs", "AVSWLANHeader"),
    192: ("scapy.layers.ppi", "PPI"),
}
"""Link types (tcpdump.org/linktypes.html) to scapy's module and layer."""

NEEDED = ("scapy.layers.l2", "scapy.layers.inet", "scapy.layers.inet6", "scapy.layers.dot11")
"""Modules without which scapy does not know what is inside."""

MAX_SUBFRAMES = 64
"""Frames in one aggregated 802.11 frame (A-MSDU), which holds at most 11,454 bytes."""


def can_read(link_type: int) -> bool:
    """Whether packets of this link type are for scapy, and it is installed."""
    return link_type in LAYERS and _layers(link_type) is not None


def to_datagrams(link_type: int, data: bytes) -> tuple[list[bytes], Counter]:
    """The IP packets in a packet of a link type that `can_read` says yes to; never raises.

    Returns:
        The bytes from each IP header on, and as what the packet is counted where there is none.

    """
    layers = _layers(link_type)
    if layers is None:
        return [], Counter.LINK_TYPE
    layer, ip = layers
    try:
        with _quiet():
            return _find(layer(data, stop_dissection_after=ip), ip)
    except Exception:  # noqa: BLE001  scapy promises nothing about hostile bytes
        return [], Counter.MALFORMED


def _find(packet: Any, ip: tuple[Any, ...]) -> tuple[list[bytes], Counter]:
    """Walk scapy's layers to IP; 802.11 in pieces or encrypted stays closed."""
    counter = Counter.NOT_IP
    while packet:
        name = type(packet).__name__
        if isinstance(packet, ip):
            return [bytes(packet.original)], counter
        if name in ("Dot11", "Dot11FCS") and packet.type == 2 and (packet.FCfield.MF or packet.SC & 15):
            return [], Counter.FRAGMENT
        if name in ("Dot11Encrypted", "Dot11WEP", "Dot11TKIP", "Dot11CCMP"):
            return [], Counter.TUNNEL
        if name == "Dot11QoS" and packet.A_MSDU_Present and not hasattr(packet.payload, "key_id"):
            return _split(bytes(packet.payload.original), ip), counter
        packet = packet.payload
    return [], counter


def _split(data: bytes, ip: tuple[Any, ...]) -> list[bytes]:
    """The IP packets in an A-MSDU (IEEE 802.11-2020 section 9.3.2.2.2), which scapy takes for one frame."""
    from scapy.layers.l2 import LLC

    found: list[bytes] = []
    at = 0
    for _ in range(MAX_SUBFRAMES):
        if len(data) - at < 14:
            break
        size = int.from_bytes(data[at + 12 : at + 14], "big")
        packet: Any = LLC(data[at + 14 : at + 14 + size], stop_dissection_after=ip)  # type: ignore[arg-type]
        while packet and not isinstance(packet, ip):
            packet = packet.payload
        if packet:
            found.append(bytes(packet.original))
        at += (14 + size + 3) & ~3
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Scapy warns of missing routes and odd packets, which nobody asked for."""
    import logging  # 5 ms that captures without such packets need not wait for

    logger = logging.getLogger("scapy")
    was_disabled, logger.disabled = logger.disabled, True
    runtime = logging.getLogger("scapy.runtime")
    level = runtime.level
    runtime.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.disabled = was_disabled
        runtime.setLevel(level)


@functools.cache
def _layers(link_type: int) -> tuple[Any, tuple[Any, ...]] | None:
    """Scapy's layer for this link type, and those for IP; None where scapy is not installed or lacks one."""
    module, name = LAYERS[link_type]
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            *_, inet, inet6, _ = (importlib.import_module(needed) for needed in NEEDED)
            return getattr(importlib.import_module(module), name), (inet.IP, inet6.IPv6)
    except Exception:  # noqa: BLE001  whatever it is, the packets are counted as not read
        return None
