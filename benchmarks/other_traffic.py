"""Traffic of other protocols without its beginning, to see that none passes for a WebSocket.

`python benchmarks/other_traffic.py [MEGABYTES]` (default 1000) makes that much of it, half of the flows cut in the
middle of a message, follows it, and prints per kind how many connections were recognised: there should be none. Stops
by itself, after half a minute for 1 GB once the kernels are compiled. The seed is fixed.
"""

import base64
import io
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from make_capture import HEADERS, RECORD

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analyzer import kernel
from analyzer.capture.container import Reader
from analyzer.capture.tracker import Tracker

BLOCK_BYTES = 8_000_000
SEGMENT_BYTES = 1448
MESSAGES = 40
START_NS = 1_700_000_000_000_000_000
ACK = 0x18

Talk = Iterator[tuple[int, bytes]]
"""What a flow says: side (0 is the client) and bytes of one message."""


def both(make: Callable[[random.Random], bytes]) -> Callable[[random.Random], Talk]:
    """Messages of the same kind in both directions, in turns or several in a row."""

    def talk(rng: random.Random) -> Talk:
        for _ in range(MESSAGES):
            yield rng.getrandbits(1), make(rng)

    return talk


def asked(ask: Callable[[random.Random], bytes], answer: Callable[[random.Random], bytes]) -> Callable[..., Talk]:
    """The client asks, the server answers."""

    def talk(rng: random.Random) -> Talk:
        for _ in range(MESSAGES // 2):
            yield 0, ask(rng)
            yield 1, answer(rng)

    return talk


def short(rng: random.Random) -> int:
    """Most messages are short, some fill several segments."""
    return rng.choice((rng.randint(1, 40), rng.randint(6, 131), rng.randint(1, 400), rng.randint(1, 6000)))


def noise(rng: random.Random) -> bytes:
    return rng.randbytes(short(rng))


def text(rng: random.Random) -> bytes:
    return bytes(rng.choices(b"ABCDEFGHIJ abcdefghijklmnopqrstuvwxyz 0123456789\r\n", k=short(rng)))


def tls(rng: random.Random) -> bytes:
    out = b""
    for _ in range(rng.randint(1, 3)):
        body = noise(rng)
        out += struct.pack("!BHH", rng.choice((23, 23, 23, 21)), 0x0303, len(body)) + body
    return out


def ssh(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((36, 36, 44, 52, 60, 68, 76, 84, 100, 116, 132, 1020)))


def page(rng: random.Random) -> bytes:
    body = rng.choice((noise, text))(rng)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def chunks(rng: random.Random) -> bytes:
    body = noise(rng)
    return b"%x\r\n" % len(body) + body + b"\r\n"


def h2(rng: random.Random) -> bytes:
    body = noise(rng)
    kind, flags = rng.choice(((0, 0), (0, 1), (1, 4), (1, 5), (3, 0), (4, 0), (4, 1), (6, 0), (7, 0), (8, 0), (9, 4)))
    return len(body).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, rng.randrange(1, 99, 2)) + body


def grpc(rng: random.Random) -> bytes:
    body = noise(rng)
    message = b"\0" + struct.pack("!I", len(body)) + body
    return len(message).to_bytes(3, "big") + struct.pack("!BBI", 0, 0, rng.randrange(1, 99, 2)) + message


def varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def mqtt(rng: random.Random) -> bytes:
    kind = rng.choice((0x30, 0x32, 0x40, 0x50, 0x62, 0x70, 0x82, 0x82, 0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xD0, 0xE0, 0x10))
    body = b"" if kind in (0xC0, 0xD0, 0xE0) else rng.randbytes(2) if kind in (0x40, 0x50, 0x62, 0x70) else noise(rng)
    return bytes([kind]) + varint(len(body)) + body


def amqp(rng: random.Random) -> bytes:
    kind = rng.choice((1, 1, 2, 3, 8))
    body = b"" if kind == 8 else noise(rng)
    return struct.pack("!BHI", kind, rng.choice((0, 1, 2)), len(body)) + body + b"\xce"


def postgres(rng: random.Random) -> bytes:
    body = rng.choice((noise, text))(rng)
    return rng.choice(b"QPBEDSCTZ12dXRKp").to_bytes() + struct.pack("!I", 4 + len(body)) + body


def mysql(rng: random.Random) -> bytes:
    body = rng.choice((noise, text))(rng)
    return len(body).to_bytes(3, "little") + bytes([rng.randrange(5)]) + body


def prefixed(form: str, *, counts_itself: bool = False) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        body = noise(rng)
        if form in ("B", ">B"):
            body = body[:255]
        return struct.pack(form, len(body) + counts_itself * struct.calcsize(form)) + body

    return make


def ber(rng: random.Random) -> bytes:
    body = noise(rng)
    size = len(body).to_bytes(4, "big").lstrip(b"\0") or b"\0"
    length = bytes([len(body)]) if len(body) < 128 else bytes([0x80 | len(size)]) + size
    return rng.choice((0x30, 0x30, 0x30, 0x02, 0x04, 0x0A, 0x80, 0x81, 0x82, 0xA0, 0x01)).to_bytes() + length + body


def rtmp(rng: random.Random) -> bytes:
    body = noise(rng)[:128]
    form, channel = rng.choice((0, 0x40, 0x80, 0xC0)), rng.choice((2, 3, 4, 5, 6))
    head = rng.randrange(1 << 24).to_bytes(3, "big") + len(body).to_bytes(3, "big") + b"\x09" + b"\1\0\0\0"
    return bytes([form | channel]) + head[: {0: 11, 0x40: 7, 0x80: 3, 0xC0: 0}[form]] + body


def memcached(rng: random.Random) -> bytes:
    body = noise(rng)[:500]
    return struct.pack("!BBHBBHIIQ", rng.choice((0x80, 0x81)), rng.randrange(0x25), 4, 0, 0, 0, len(body), 0, 0) + body


def x11(rng: random.Random) -> bytes:
    words = rng.randint(1, 30)
    return struct.pack("<BBH", rng.choice((1, 2, 0x81, 0x82, rng.randrange(256))), rng.randrange(256), words) + (
        rng.randbytes(4 * words - 4)
    )


def vnc(rng: random.Random) -> bytes:
    return bytes([rng.choice((0, 0, 2, 3, 4, 5))]) + rng.randbytes(rng.choice((3, 5, 7, 9, 1400)))


def cassandra(rng: random.Random) -> bytes:
    body = noise(rng)
    return struct.pack("!BBBBI", rng.choice((1, 2, 0x81, 0x82, 4, 0x84)), 0, 0, rng.randrange(16), len(body)) + body


def modbus(rng: random.Random) -> bytes:
    return struct.pack("!HHHBB", rng.choice((1, 2, 0x81, 0x82)) << 8 | rng.randrange(256), 0, 6, 1, 3) + rng.randbytes(
        4
    )


def zmtp(rng: random.Random) -> bytes:
    body = noise(rng)[:255]
    return bytes([rng.choice((0, 0, 1, 4)), len(body)]) + body


def pattern(rng: random.Random) -> bytes:
    """One byte, or a few, over and over: empty memory, silence, flat colour."""
    period = rng.choice((1, 1, 1, 2, 2, 3, 4, 8))
    some = bytes(
        rng.choice((0, 1, 2, 0x41, 0x42, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0xFF, rng.randrange(256)))
        for _ in range(period)
    )
    return some * (short(rng) // period + 1)


def ramp(rng: random.Random) -> bytes:
    """Numbers in a row, and pictures without compression."""
    form = rng.choice(("<H", ">H", "<I", ">I", "<f"))
    begin, step = rng.randrange(30_000), rng.randrange(1, 9)
    return b"".join(struct.pack(form, (begin + step * i) % 65_536) for i in range(short(rng) // 4 + 1))


def one_pattern(rng: random.Random) -> Talk:
    """A flow that says one thing only."""
    said = pattern(rng)
    for _ in range(MESSAGES):
        yield 0, said * rng.randint(1, 3)
        yield 1, bytes(2 * rng.randint(1, 40))


def lengths_and_noise(rng: random.Random) -> Talk:
    """The server's messages begin with their length, the client's are random: the hardest mixture."""
    for _ in range(MESSAGES):
        yield 0, rng.randbytes(rng.randint(6, 131))
        body = rng.randbytes(rng.randint(1, 125))
        yield 1, bytes([0, len(body)]) + body


def small_noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(2, 131))


KINDS: dict[str, Callable[[random.Random], Talk]] = {
    "random": both(noise),
    "random, small": both(small_noise),
    "lengths and random": lengths_and_noise,
    "tls": both(tls),
    "ssh": both(ssh),
    "http": asked(lambda rng: b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % rng.randrange(9**9), page),
    "http upload": asked(chunks, lambda _: b"HTTP/1.1 100 Continue\r\n\r\n"),
    "http/2": both(h2),
    "grpc": both(grpc),
    "mqtt": both(mqtt),
    "amqp": both(amqp),
    "redis": both(lambda rng: b"*2\r\n$3\r\nGET\r\n$%d\r\n" % len(b := noise(rng)) + b + b"\r\n"),
    "postgresql": both(postgres),
    "mysql": both(mysql),
    "dns": both(prefixed("!H")),
    "kafka, smb, kerberos": both(prefixed("!I")),
    "little-endian lengths": both(prefixed("<H")),
    "oracle": both(prefixed("!H", counts_itself=True)),
    "mongodb": both(prefixed("<I", counts_itself=True)),
    "byte lengths": both(prefixed("B")),
    "ldap, ber": both(ber),
    "rtmp": both(rtmp),
    "memcached": both(memcached),
    "memcached text": asked(
        lambda rng: b"get key%d\r\n" % rng.randrange(99), lambda rng: b"VALUE k 0 9\r\n" + text(rng)
    ),
    "bittorrent": both(lambda rng: struct.pack("!IB", 9, 7) + noise(rng)),
    "x11": both(x11),
    "vnc": both(vnc),
    "cassandra": both(cassandra),
    "modbus": both(modbus),
    "zeromq": both(zmtp),
    "zeros": both(lambda rng: bytes(short(rng))),
    "text": both(text),
    "utf-16": both(lambda rng: text(rng).decode().encode(rng.choice(("utf-16-le", "utf-16-be")))),
    "base64": both(lambda rng: base64.encodebytes(noise(rng))),
    "patterns": both(pattern),
    "one pattern": one_pattern,
    "numbers, pictures": both(ramp),
}


def packets(rng: random.Random, talk: Talk, port: int) -> Iterator[bytes]:
    """A flow's segments without SYN or FIN; half of the flows begin in the middle of a message, per side."""
    seq, hosts, ports = [rng.getrandbits(32), rng.getrandbits(32)], (b"\x0a\0\0\1", b"\x0a\0\0\2"), (port, 5000)
    skip = [rng.getrandbits(1) * rng.randint(1, 60) for _ in range(2)]
    for side, message in talk:
        data, skip[side] = message[skip[side] :], max(0, skip[side] - len(message))
        for at in range(0, len(data), SEGMENT_BYTES):
            payload = data[at : at + SEGMENT_BYTES]
            yield (
                HEADERS.pack(
                    b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02",
                    *(0x0800, 0x45, 0, 40 + len(payload), 0, 0x4000, 64, 6, 0, hosts[side], hosts[1 - side]),
                    *(ports[side], ports[1 - side], seq[side], seq[1 - side], 0x50, ACK, 65535, 0, 0),
                )
                + payload
            )
            seq[side] = (seq[side] + len(payload)) & 0xFFFFFFFF


def captures(kind: str, n_bytes: int, seed: int = 7) -> Iterator[bytes]:
    """Captures of one kind of traffic, a few megabytes each, `n_bytes` together."""
    rng = random.Random(f"{kind} {seed}")
    now, port, total = START_NS, 1024, 0
    while total < n_bytes:
        out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)]
        size = 0
        while size < min(BLOCK_BYTES, n_bytes - total):
            port = port + 1 if port < 65535 else 1024
            for packet in packets(rng, KINDS[kind](rng), port):
                now += 20_000
                out += [RECORD.pack(now // 10**9, now % 10**9 // 1000, len(packet), len(packet)), packet]
                size += len(packet)
        total += size
        yield b"".join(out)


def follow(content: bytes) -> tuple[int, int, int]:
    """How many packets and flows were followed, and how many connections were recognised."""
    reader, tracker = Reader(io.BytesIO(content), "x"), Tracker()
    found = [some for chunk in reader.chunks() for some in tracker.feed(chunk)] + tracker.finish()
    return reader.n_packets, tracker.n_flows, sum(len(some.connections) for some in found)


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) == 2 and sys.argv[1].isdigit() else 1000
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and not sys.argv[1].isdigit()):
        sys.exit(__doc__)
    kernel.compile_all()
    print(f"{'kind':26}{'MB':>8}{'packets':>10}{'flows':>9}{'seconds':>9}{'false':>7}")
    n_false, n_bytes, spent = 0, 0, 0.0
    for kind in KINDS:
        of_kind, n_packets, n_flows, found, seconds = 0, 0, 0, 0, 0.0
        for content in captures(kind, megabytes * 1_000_000 // len(KINDS)):
            start = time.perf_counter()
            n_of_capture, n_of_flows, n = follow(content)
            seconds += time.perf_counter() - start
            of_kind += len(content)
            n_flows += n_of_flows
            n_packets += n_of_capture
            found += n
        print(f"{kind:26}{of_kind / 1e6:>8.1f}{n_packets:>10,}{n_flows:>9,}{seconds:>9.2f}{found:>7}", flush=True)
        n_false, n_bytes, spent = n_false + found, n_bytes + of_kind, spent + seconds
    print(f"{n_false} false connections in {n_bytes / 1e6:.0f} MB; following them took {spent:.1f} s")


if __name__ == "__main__":
    main()
