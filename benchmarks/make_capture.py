"""Writes a synthetic capture for benchmarks: `python benchmarks/make_capture.py OUT KIND PACKETS [FORM]`.

KIND is chatty: every connection is a WebSocket with small messages; tls: the same over TLS 1.3, its keys in OUT.keys;
haystack: 1 in 20 is a WebSocket, the rest are downloads over HTTP in segments of 1,400 bytes. 500 connections are open
at a time and take turns at random; the seed is fixed. FORM is pcap, pcapng, vxlan (every packet inside a VXLAN tunnel,
as traffic mirroring in clouds sends it), gzip or zstd: the same traffic each time.
"""

import contextlib
import datetime as dt
import gzip
import random
import ssl
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

OPEN_AT_A_TIME = 500
STEP_NS = 20_000
START_NS = 1_700_000_000_000_000_000
FIN, SYN, RST, PUSH, ACK = 1, 2, 4, 8, 16
KINDS = ("chatty", "tls", "haystack")
FORMS = ("pcap", "pcapng", "vxlan", "gzip", "zstd")
CODES = (1000, 1000, 1000, 1001, 1001, 1003, 1008, 1011, 1012, 4000)

REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
PAGE = b"GET /big HTTP/1.1\r\nHost: example.com\r\n\r\n"
HEADERS = struct.Struct("!12sHBBHHHBBH4s4sHHIIBBHHH")
RECORD = struct.Struct("<IIII")
BLOCK = struct.Struct("<IIIIIII")
SECTION = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)
OUTER = struct.Struct("!12sHBBHHHBBH4s4sHHHHII")


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One WebSocket frame of less than 64 KiB."""
    top = 0x80 if mask else 0
    n = len(payload)
    head = bytes([0x80 | opcode, top | n]) if n < 126 else struct.pack("!BBH", 0x80 | opcode, top | 126, n)
    if mask and n:
        key = int.from_bytes((mask * (n // 4 + 1))[:n], "big")
        payload = (int.from_bytes(payload, "big") ^ key).to_bytes(n, "big")
    return head + mask + payload


def turns(rng: random.Random, *, is_websocket: bool, n_messages: int, size: int) -> Iterator[tuple[int, int, bytes]]:
    """(side, flags, payload) of one connection; side 0 is the client."""
    yield 0, SYN, b""
    yield 1, SYN | ACK, b""
    yield 0, ACK, b""
    if not is_websocket:
        yield 0, PUSH | ACK, PAGE
        for i in range(n_messages):
            yield (1, PUSH | ACK, rng.randbytes(size)) if i % 3 else (0, ACK, b"")
        yield 1, FIN | ACK, b""
        yield 0, FIN | ACK, b""
        yield 1, ACK, b""
        return
    yield 0, PUSH | ACK, REQUEST
    yield 1, PUSH | ACK, ANSWER
    for i in range(n_messages):
        n = rng.randint(20, size)
        yield (1, PUSH | ACK, frame(1, b"x" * n)) if i & 1 else (0, PUSH | ACK, frame(1, b"y" * n, rng.randbytes(4)))
    ending = rng.random()
    if ending < 0.8:
        body = b"" if ending >= 0.7 else struct.pack("!H", rng.choice(CODES))
        yield 0, PUSH | ACK, frame(8, body + (b"bye" if body else b""), rng.randbytes(4))
        yield 1, PUSH | ACK, frame(8, body)
        yield 1, FIN | ACK, b""
        yield 0, FIN | ACK, b""
        yield 1, ACK, b""
    elif ending < 0.9:
        yield 0, RST | ACK, b""
    else:
        yield 1, FIN | ACK, b""
        yield 0, FIN | ACK, b""
        yield 1, ACK, b""


def seal(said: Iterator[tuple[int, int, bytes]], contexts: Contexts) -> Iterator[tuple[int, int, bytes]]:
    """The same turns with what they say inside TLS, the handshake behind the one of TCP."""
    inward, outward = (ssl.MemoryBIO(), ssl.MemoryBIO()), (ssl.MemoryBIO(), ssl.MemoryBIO())
    ends = (
        contexts[0].wrap_bio(inward[0], outward[0], server_hostname="example.com"),
        contexts[1].wrap_bio(inward[1], outward[1], server_side=True),
    )
    for _ in range(3):
        yield next(said)
    for side in (0, 1, 0, 1):
        with contextlib.suppress(ssl.SSLWantReadError):
            ends[side].do_handshake()
        data = outward[side].read()
        inward[1 - side].write(data)
        while data:
            yield side, PUSH | ACK, data[:1400]
            data = data[1400:]
    for side, flags, payload in said:
        if payload:
            ends[side].write(payload)
        yield side, flags, outward[side].read()


def make_contexts(key_log: Path) -> Contexts:
    """TLS of a client that logs its keys, and of a server with a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.com")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    key_log.unlink(missing_ok=True)
    client.keylog_filename = str(key_log)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        server.load_cert_chain(file.name)
    return client, server


def packets(rng: random.Random, number: int, kind: str, contexts: Contexts | None) -> Iterator[bytes]:
    """Ethernet frames of one connection."""
    is_chatty = kind != "haystack"
    is_websocket = is_chatty or rng.random() < 0.05
    plan = {"is_websocket": is_websocket, "n_messages": 90 if is_chatty else 60}
    size = 200 if is_chatty else 300 if is_websocket else 1400
    hosts = (struct.pack("!I", 0x0A000001 + number // 20000), b"\x0a\x01\x00\x01")
    ports = (20000 + number % 20000, 443 if contexts else 80)
    seq = [rng.getrandbits(32), rng.getrandbits(32)]
    said = turns(rng, size=size, **plan)
    for side, flags, payload in seal(said, contexts) if contexts else said:
        other = 1 - side
        ack = seq[other] if flags & ACK else 0
        yield (
            HEADERS.pack(
                b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02",
                *(0x0800, 0x45, 0, 40 + len(payload), 0, 0x4000, 64, 6, 0, hosts[side], hosts[other]),
                *(ports[side], ports[other], seq[side] & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 65535, 0, 0),
            )
            + payload
        )
        seq[side] += len(payload) + bool(flags & (SYN | FIN))


def tunnelled(packet: bytes, number: int) -> bytes:
    """The packet inside Ethernet, IPv4, UDP and VXLAN (RFC 7348)."""
    n = len(packet)
    outer = OUTER.pack(
        b"\x02\0\0\0\0\x03\x02\0\0\0\0\x04",
        *(0x0800, 0x45, 0, 36 + n, number & 0xFFFF, 0x4000, 64, 17, 0, b"\x0a\x02\0\x01", b"\x0a\x02\0\x02"),
        *(49152 + number % 1000, 4789, 16 + n, 0, 0x08000000, 42 << 8),
    )
    return outer + packet


def as_pcap(now_ns: int, packet: bytes) -> bytes:
    """A record of a pcap file."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return RECORD.pack(seconds, rest // 1000, len(packet), len(packet)) + packet


def as_pcapng(now_ns: int, packet: bytes) -> bytes:
    """An enhanced packet block."""
    n, us = len(packet), now_ns // 1000
    size = 32 + n + -n % 4
    return BLOCK.pack(6, size, 0, us >> 32, us & 0xFFFFFFFF, n, n) + packet + bytes(-n % 4) + size.to_bytes(4, "little")


def open_for(path: Path, form: str) -> Any:
    """Where the capture is written."""
    if form == "gzip":
        return gzip.open(path, "wb", compresslevel=6)
    if form == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        return zstd.open(path, "wb", level=3)
    return path.open("wb", buffering=1 << 20)


def write(path: Path, kind: str, n_packets: int, form: str = "pcap") -> None:
    """Write a capture with exactly so many packets."""
    rng = random.Random(7)
    open_now: list[Iterator[bytes]] = []
    started = written = 0
    now = START_NS
    contexts = make_contexts(path.with_name(path.name + ".keys")) if kind == "tls" else None
    record: Callable[[int, bytes], bytes] = as_pcapng if form == "pcapng" else as_pcap
    out: BinaryIO
    with open_for(path, form) as out:
        out.write(SECTION if form == "pcapng" else struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        while written < n_packets:
            while len(open_now) < OPEN_AT_A_TIME:
                open_now.append(packets(rng, started, kind, contexts))
                started += 1
            i = rng.randrange(OPEN_AT_A_TIME)
            packet = next(open_now[i], None)
            if packet is None:
                open_now[i] = open_now[-1]
                open_now.pop()
                continue
            now += STEP_NS
            out.write(record(now, tunnelled(packet, written) if form == "vxlan" else packet))
            written += 1


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5) or sys.argv[2] not in KINDS or not sys.argv[3].isdigit():
        sys.exit(__doc__)
    if len(sys.argv) == 5 and sys.argv[4] not in FORMS:
        sys.exit(__doc__)
    write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
