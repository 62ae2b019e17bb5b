"""Memory on inputs that never end, or that are made to hurt: `python benchmarks/endless.py [PACKETS]`.

Feeds a tracker packets made on the spot, and prints the memory of the process as it goes: one connection that goes on
for 100 GB, half-open TCP connections (SYN alone, each from another address and port), and connections that open a
WebSocket and never end. Stops by itself; exits with 1 where memory grows in the second half.
"""

import resource
import struct
import sys
from collections.abc import Iterator

import numpy as np
from make_capture import ACK, ANSWER, HEADERS, PUSH, REQUEST, START_NS, SYN

from analyzer import kernel
from analyzer.capture.container import Chunk
from analyzer.capture.tracker import Tracker
from analyzer.model import PACKET, Octets

MOST_GROWTH = 1.02
CHUNK = 20_000


def packet(flags: int, payload: bytes = b"", *, to_server: bool = True, seq: int = 1000, ack: int = 5001) -> bytes:
    """One TCP segment in IPv4 in Ethernet between 10.0.0.0:0 and 10.255.0.1:80."""
    hosts, ports = (b"\x0a\0\0\0", b"\x0a\xff\0\x01"), (0, 80)
    if not to_server:
        hosts, ports = hosts[::-1], ports[::-1]
    head = HEADERS.pack(
        b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02",
        *(0x0800, 0x45, 0, 40 + len(payload), 0, 0x4000, 64, 6, 0, *hosts, *ports, seq, ack, 0x50, flags, 65535, 0, 0),
    )
    return head + payload


def repeat(packets: list[bytes], n: int) -> tuple[Octets, np.ndarray, list[np.ndarray]]:
    """The packets n times over: bytes, PACKET rows, and for each packet a view of its copies."""
    block = np.frombuffer(b"".join(packets), np.uint8)
    data = np.tile(block, n)
    table = data.reshape(n, len(block))
    rows = np.zeros((n, len(packets)), PACKET)
    views, at = [], 0
    for i, content in enumerate(packets):
        views.append(table[:, at : at + len(content)])
        rows[:, i]["off"] = np.arange(n) * len(block) + at
        rows[:, i]["captured_bytes"] = rows[:, i]["wire_bytes"] = len(content)
        rows[:, i]["link_type"] = 1
        at += len(content)
    return data, rows.ravel(), views


def name_clients(views: list[np.ndarray], numbers: np.ndarray, to_server: list[bool]) -> None:
    """Give each copy an address and a port of its own."""
    low, high = numbers & 0xFFFF, numbers >> 16
    for view, is_request in zip(views, to_server, strict=True):
        address, port = (26, 34) if is_request else (30, 36)
        view[:, address + 1], view[:, address + 2] = high >> 8, high & 0xFF
        view[:, port], view[:, port + 1] = low >> 8, low & 0xFF


def many(packets: list[tuple[bool, bytes]], n_packets: int) -> Iterator[Chunk]:
    """Each connection says these packets and no more."""
    each = CHUNK // len(packets)
    data, rows, views = repeat([content for _, content in packets], each)
    for first in range(0, n_packets, each * len(packets)):
        numbers = np.arange(each) + first // len(packets)
        name_clients(views, numbers, [is_request for is_request, _ in packets])
        rows["ts_ns"] = START_NS + (first + np.arange(len(rows))) * 10_000
        shown = data.view()
        shown.flags.writeable = False
        yield Chunk(shown, rows, first + 1)


def one(n_bytes: int) -> Iterator[Chunk]:
    """One connection whose server sends messages of 60,000 bytes, captured with a snaplen of 64."""
    size = 60_000
    opening = [
        (packet(SYN, seq=999, ack=0)),
        (packet(SYN | ACK, to_server=False, seq=5000, ack=1000)),
        packet(PUSH | ACK, REQUEST),
        packet(PUSH | ACK, ANSWER, to_server=False, seq=5001, ack=1000 + len(REQUEST)),
    ]
    data, rows, _ = repeat(opening, 1)
    rows["ts_ns"] = START_NS + np.arange(4) * 1000
    data.flags.writeable = False
    yield Chunk(data, rows, 1)
    frame = struct.pack("!BBH", 0x82, 126, size)
    data, rows, (view,) = repeat([packet(ACK, frame, to_server=False)], CHUNK)
    step = size + len(frame)
    rows["wire_bytes"] = 54 + step
    view[:, 16:18] = np.frombuffer(struct.pack("!H", 40 + step), np.uint8)
    at = 5001 + len(ANSWER)
    for first in range(0, n_bytes // step, CHUNK):
        seq = ((at + (first + np.arange(CHUNK)) * step) & 0xFFFFFFFF).astype(">u4")
        view[:, 38:42] = seq.view(np.uint8).reshape(CHUNK, 4)
        rows["ts_ns"] = START_NS + 10_000 + (first + np.arange(CHUNK)) * 1000
        shown = data.view()
        shown.flags.writeable = False
        yield Chunk(shown, rows, 5 + first)


def watch(name: str, chunks: Iterator[Chunk], n_chunks: int) -> bool:
    """Feed all of it; whether memory stayed flat in the second half."""
    tracker, n_rows, half = Tracker(), 0, 0
    for i, chunk in enumerate(chunks):
        n_rows += sum(len(some.connections) for some in tracker.feed(chunk))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if i == n_chunks // 2:
            half = peak
        if i % max(1, n_chunks // 10) == 0:
            print(f"{name}: {i * CHUNK:>12,} packets, peak {peak / 1e6:,.0f} MB, {tracker.n_evicted:,} dropped")
    n_rows += sum(len(some.connections) for some in tracker.finish())
    peaks = f"peak {half / 1e6:,.0f} then {peak / 1e6:,.0f} MB"
    print(f"{name}: {tracker.n_flows:,} TCP connections, {n_rows:,} rows; {peaks}")
    return peak <= half * MOST_GROWTH


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000
    kernel.compile_all()
    n_bytes = 100_000_000_000 * n // 20_000_000
    is_flat = [
        watch("one connection", one(n_bytes), n_bytes // 60_004 // CHUNK),
        watch("half open", many([(True, packet(SYN, ack=0))], n), n // CHUNK),
        watch(
            "never ending",
            many(
                [
                    (True, packet(SYN, seq=999, ack=0)),
                    (True, packet(PUSH | ACK, REQUEST)),
                    (False, packet(PUSH | ACK, ANSWER, to_server=False, seq=5001, ack=1000 + len(REQUEST))),
                ],
                n // 4,
            ),
            n // 4 // CHUNK,
        ),
    ]
    sys.exit(0 if all(is_flat) else 1)


if __name__ == "__main__":
    main()
