"""Builds captures byte by byte, without the project's own code: what tests feed it must not come from it."""

import base64
import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
CLIENT, SERVER = "client", "server"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x37\xfa\x21\x3d"

REQUEST = (
    "GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


def accept_of(key: str = KEY) -> str:
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()


def response(*, accept: str | None = None, more: str = "") -> bytes:
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept or accept_of()}\r\n{more}\r\n"
    ).encode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    mask: bytes | None = None,
    fin: bool = True,
    rsv: int = 0,
    length_bytes: int | None = None,
    length: int | None = None,
) -> bytes:
    """One frame; `length_bytes` (0, 2 or 8) forces a longer length field, `length` lies in it."""
    n = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    top = 0x80 if mask else 0
    if length_bytes is None:
        length_bytes = 0 if n < 126 else 2 if n < 65536 else 8
    if length_bytes == 0:
        head += bytes([top | n])
    elif length_bytes == 2:
        head += bytes([top | 126]) + struct.pack("!H", n)
    else:
        head += bytes([top | 127]) + struct.pack("!Q", n)
    if mask:
        head += mask
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return head + payload


def close(code: int | None = None, reason: str | bytes = b"", *, mask: bytes | None = None, **more) -> bytes:
    """A Close frame; no code makes an empty one."""
    if isinstance(reason, str):
        reason = reason.encode()
    body = b"" if code is None else struct.pack("!H", code) + reason
    return frame(8, body, mask=mask, **more)


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(sport: int, dport: int, seq: int, ack: int, flags: int, payload: bytes = b"", window: int = 64000) -> bytes:
    return (
        struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 5 << 4, flags, window, 0, 0)
        + payload
    )


def ipv4(src: str, dst: str, payload: bytes, *, ttl: int = 64, protocol: int = 6, options: bytes = b"") -> bytes:
    address = [bytes(map(int, a.split("."))) for a in (src, dst)]
    words = 5 + len(options) // 4
    total = words * 4 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, total, 1, 0x4000, ttl, protocol, 0) + address[0] + address[1]
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ethernet(payload: bytes, ethertype: int = 0x0800) -> bytes:
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + struct.pack("!H", ethertype) + payload


@dataclass
class Packet:
    """A packet with its time in nanoseconds; `wire_bytes` is more than what was captured where a snaplen cut it."""

    ts_ns: int
    data: bytes
    wire_bytes: int | None = None


def pcap(packets: list[Packet], *, link_type: int = 1, order: str = "<", nanoseconds: bool = False) -> bytes:
    """A whole pcap file."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    unit = 1 if nanoseconds else 1000
    out = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    for packet in packets:
        seconds, rest = divmod(packet.ts_ns, 1_000_000_000)
        wire = len(packet.data) if packet.wire_bytes is None else packet.wire_bytes
        out += struct.pack(f"{order}IIII", seconds, rest // unit, len(packet.data), wire) + packet.data
    return out


def block(kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def pcapng(packets: list[Packet], *, link_types: tuple[int, ...] = (1,), exponent: int = 9) -> bytes:
    """A section of its own, times in steps of 10^-exponent s; packets on the interfaces in turn."""
    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    for link_type in link_types:
        option = struct.pack("<HHB3x", 9, 1, exponent) + struct.pack("<HH", 0, 0)
        out += block(1, struct.pack("<HHI", link_type, 0, 262144) + option)
    for i, packet in enumerate(packets):
        ticks = packet.ts_ns // 10 ** (9 - exponent)
        wire = len(packet.data) if packet.wire_bytes is None else packet.wire_bytes
        head = struct.pack("<IIIII", i % len(link_types), ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), wire)
        out += block(6, head + packet.data)
    return out


def read_secrets(path):
    """The text of the Decryption Secrets Blocks of a pcapng file."""
    data, off = path.read_bytes(), 0
    while off < len(data):
        kind, size = (int.from_bytes(data[off + i : off + i + 4], "little") for i in (0, 4))
        if kind == 10:
            n = int.from_bytes(data[off + 12 : off + 16], "little")
            yield data[off + 16 : off + 16 + n]
        off += size


@dataclass
class Conversation:
    """A TCP conversation written turn by turn; every method adds packets and returns their numbers, from 1.

    `lose=True` moves the sequence numbers on without a packet: the capture missed it.
    """

    client: str = "10.0.0.1"
    server: str = "10.0.0.2"
    sport: int = 40000
    dport: int = 80
    isn: dict[str, int] = field(default_factory=lambda: {CLIENT: 1000, SERVER: 5000})
    packets: list[Packet] = field(default_factory=list)
    ts_ns: int = 1_700_000_000_000_000_000
    step_ns: int = 1_000_000

    def __post_init__(self) -> None:
        self.seq = dict(self.isn)
        self.acked = {CLIENT: 0, SERVER: 0}
        """What each side has acknowledged of the other: by default everything the other has sent."""

    def segment(
        self,
        side: str,
        payload: bytes = b"",
        flags: int = ACK | PSH,
        *,
        seq: int | None = None,
        ack: int | None = None,
        advance: bool = True,
        lose: bool = False,
        captured: int | None = None,
        ttl: int = 64,
    ) -> int:
        other = SERVER if side == CLIENT else CLIENT
        at = self.seq[side] if seq is None else seq
        number = self.seq[other] if ack is None else ack
        if not flags & ACK:
            number = 0
        ports = (self.sport, self.dport) if side == CLIENT else (self.dport, self.sport)
        hosts = (self.client, self.server) if side == CLIENT else (self.server, self.client)
        data = ethernet(ipv4(*hosts, tcp(*ports, at, number, flags, payload), ttl=ttl))
        if advance and seq is None:
            self.seq[side] += len(payload) + bool(flags & SYN) + bool(flags & FIN)
        self.ts_ns += self.step_ns
        if lose:
            return 0
        wire = len(data)
        if captured is not None:
            data = data[: len(data) - len(payload) + captured]
        self.packets.append(Packet(self.ts_ns, data, wire))
        return len(self.packets)

    def open(self) -> "Conversation":
        self.segment(CLIENT, flags=SYN)
        self.segment(SERVER, flags=SYN | ACK)
        self.segment(CLIENT, flags=ACK)
        return self

    def upgrade(self, request: bytes = REQUEST, answer: bytes | None = None) -> "Conversation":
        """Three-way handshake, request, 101."""
        self.open()
        self.segment(CLIENT, request)
        self.segment(SERVER, response() if answer is None else answer)
        return self

    def say(self, side: str, payload: bytes, **more) -> int:
        return self.segment(side, payload, **more)

    def text(self, side: str, words: str = "hello", **more) -> int:
        return self.segment(side, frame(1, words.encode(), mask=MASK if side == CLIENT else None), **more)

    def close(self, side: str, code: int | None = None, reason: str = "", **more) -> int:
        return self.segment(side, close(code, reason, mask=MASK if side == CLIENT else None), **more)

    def ack(self, side: str, **more) -> int:
        return self.segment(side, flags=ACK, **more)

    def fin(self, side: str, **more) -> int:
        return self.segment(side, flags=FIN | ACK, **more)

    def rst(self, side: str, *, with_ack: bool = True, **more) -> int:
        return self.segment(side, flags=RST | ACK if with_ack else RST, **more)

    def end(self, first: str = SERVER) -> None:
        """Both FINs and the last ACK."""
        second = CLIENT if first == SERVER else SERVER
        self.fin(first)
        self.fin(second)
        self.ack(first)

    def wait(self, seconds: float) -> "Conversation":
        self.ts_ns += int(seconds * 1e9)
        return self

    def pcap(self, **more) -> bytes:
        return pcap(self.packets, **more)

    def write(self, path: Path, **more) -> Path:
        path.write_bytes(self.pcap(**more))
        return path
