"""IP fragments put together to datagrams (RFC 791 section 3.2, RFC 8200 section 4.5), in bounded memory.

Fragments wait in a ring, oldest first; where it is full the oldest leave, and with them their datagrams. Copies, of a
mirror port say, are recognised by their bytes and do no harm. A datagram that was dealt with is remembered while its
fragments stay in the ring, so that late copies of them do not begin another one.

Overlaps: IPv6 drops the datagram whole (RFC 5722 section 4). RFC 791 section 3.2 lets the later copy win, but hosts
differ, and Linux drops it since 2018: so a datagram with fragments that overlap, and are no copies, is dropped on both,
because nobody can tell what its receiver made of it.

Fragments count as `Counter.FRAGMENT` when they come, and no longer when their datagram becomes whole.
"""

import secrets
from typing import Any

import numpy as np

from analyzer.capture import dissect, flowtable, link, wire
from analyzer.kernel import kernel
from analyzer.model import PACKET, Counter, Octets, Rows, int64

MAX_DATAGRAMS = 1 << 14
MAX_FRAGMENTS = 1 << 16
MAX_FRAGMENT_BYTES = 1 << 24
"""What may wait at once."""

MAX_PIECES = 128
"""Fragments of one datagram: 64 KiB in the 576 bytes that every IPv4 host takes are 118."""

TIMEOUT_4_NS = 30_000_000_000
TIMEOUT_6_NS = 60_000_000_000
"""How long the rest of a datagram is waited for (RFC 791 section 3.2 says 15 s, Linux 30 s; RFC 8200 section 4.5)."""

FRAGMENT, OVERLAP, LIMIT, MALFORMED = (
    int(Counter.FRAGMENT),
    int(Counter.OVERLAP),
    int(Counter.WAITING_FRAGMENTS),
    int(Counter.MALFORMED),
)

FREE, OPEN, WHOLE, CONTRADICTORY, OVERFULL = 0, 1, 2, 3, 4
"""DATAGRAM states."""

NEW, COPY, CONFLICT, NO_ROOM = 0, 1, 2, 3
"""What a fragment is to the datagram that it belongs to."""

IS_6 = 1 << 40
"""In `ident` of a DATAGRAM, beside IPv4's protocol at bit 32: the identification is one of IPv6."""

POOL_HEAD, POOL_TAIL, PIECE_HEAD, PIECE_TAIL, N_FREE, GENERATION = 0, 1, 2, 3, 4, 5
STATE_SIZE = 6
"""Places in `state`. Heads and tails count on for ever; their remainder is a place in the ring."""

DATAGRAM = np.dtype(
    [
        ("src_hi", "i8"),
        ("src_lo", "i8"),
        ("dst_hi", "i8"),
        ("dst_lo", "i8"),
        ("ident", "i8"),
        ("first_ns", "i8"),
        ("last_packet", "i8"),
        ("last_ns", "i8"),
        ("generation", "i8"),
        ("total_bytes", "i8"),
        ("reach_bytes", "i8"),
        ("n_fragments", "i8"),
        ("n_pieces", "i4"),
        ("piece", "i4"),
        ("follower", "i4"),
        ("header_bytes", "i4"),
        ("status", "i4"),
        ("header", "u1", (40,)),
    ],
    align=True,
)
"""A datagram under way. `piece` begins the chain of its fragments by offset, `follower` is next in its hash bucket;
`reach_bytes` is the farthest end of a fragment, `total_bytes` -1 until the last one has come."""

PIECE = np.dtype(
    [
        ("start", "i8"),
        ("wire_bytes", "i8"),
        ("captured_bytes", "i8"),
        ("pool_pos", "i8"),
        ("generation", "i8"),
        ("datagram", "i4"),
        ("follower", "i4"),
    ],
    align=True,
)
"""A fragment in the ring; its datagram is the one of `datagram` if that has the same generation still."""


@kernel
def bucket_of(row: Rows, buckets: Rows, keys: Rows) -> int:
    """The hash bucket of a DATAGRAM row."""
    hashed = flowtable.flow_hash(
        int64(row["src_hi"]),
        int64(row["src_lo"]),
        int64(row["dst_hi"]),
        int64(row["dst_lo"]),
        int64(row["ident"]),
        keys,
    )
    return hashed & (len(buckets) - 1)


@kernel
def forget(index: int, datagrams: Rows, buckets: Rows, free: Rows, keys: Rows, state: Rows) -> None:
    """Take a datagram out of the table; its fragments stay in the ring as bytes of nobody."""
    row = datagrams[index]
    bucket = bucket_of(row, buckets, keys)
    at = int64(buckets[bucket])
    if at == index:
        buckets[bucket] = int64(row["follower"])
    else:
        while int64(datagrams[at]["follower"]) != index:
            at = int64(datagrams[at]["follower"])
        datagrams[at]["follower"] = int64(row["follower"])
    row["status"] = FREE
    free[int64(state[N_FREE])] = index
    state[N_FREE] += 1


@kernel
def retire_oldest(
    now_ns: int, datagrams: Rows, pieces: Rows, buckets: Rows, free: Rows, keys: Rows, state: Rows, counters: Rows
) -> None:
    """Take the oldest fragment out of the ring, and its datagram out of the table."""
    piece = pieces[int64(state[PIECE_TAIL]) % len(pieces)]
    state[PIECE_TAIL] += 1
    state[POOL_TAIL] = int64(piece["pool_pos"]) + int64(piece["captured_bytes"])
    index = int64(piece["datagram"])
    row = datagrams[index]
    if int64(row["status"]) == FREE or int64(row["generation"]) != int64(piece["generation"]):
        return
    if int64(row["status"]) == OPEN and now_ns - int64(row["first_ns"]) <= timeout_ns(row):
        counters[FRAGMENT] -= int64(row["n_fragments"])
        counters[LIMIT] += int64(row["n_fragments"])
    forget(index, datagrams, buckets, free, keys, state)


@kernel
def timeout_ns(row: Rows) -> int:
    """How long this datagram is waited for."""
    return TIMEOUT_6_NS if int64(row["ident"]) & IS_6 else TIMEOUT_4_NS


@kernel
def agree(data: Octets, off: int, pool: Octets, at: int, n: int) -> bool:
    """Whether n bytes are the same in both."""
    for i in range(n):
        if int64(data[off + i]) != int64(pool[at + i]):
            return False
    return True


@kernel
def compare(
    row: Rows, pieces: Rows, pool: Octets, data: Octets, off: int, start: int, wire_bytes: int, captured_bytes: int
) -> tuple[int, int]:
    """What a fragment is to its datagram's others, and the one it goes behind (-1 for none)."""
    before = -1
    at = int64(row["piece"])
    verdict = NEW
    while at >= 0:
        piece = pieces[at]
        other, other_bytes = int64(piece["start"]), int64(piece["wire_bytes"])
        if other >= start + wire_bytes:
            break
        if other <= start:
            before = at
        if other + other_bytes > start:
            # only a copy is compared: to compare every overlap took minutes for fragments made to overlap all others
            if other != start or other_bytes != wire_bytes:
                return CONFLICT, before
            known = min(captured_bytes, int64(piece["captured_bytes"]))
            if not agree(data, off, pool, int64(piece["pool_pos"]) % len(pool), known):
                return CONFLICT, before
            verdict = COPY
        at = int64(piece["follower"])
    return verdict, before


@kernel
def is_whole(row: Rows, pieces: Rows) -> bool:
    """Whether the fragments leave no hole up to the datagram's end."""
    if int64(row["total_bytes"]) < 0 or int64(row["header_bytes"]) == 0:
        return False
    reached = 0
    at = int64(row["piece"])
    while at >= 0:
        piece = pieces[at]
        if int64(piece["start"]) > reached:
            return False
        reached = max(reached, int64(piece["start"]) + int64(piece["wire_bytes"]))
        at = int64(piece["follower"])
    return reached >= int64(row["total_bytes"])


@kernel
def write_datagram(row: Rows, pieces: Rows, pool: Octets, side: Octets, at: int) -> int:
    """Write a whole datagram as if it had never been in pieces, up to the first byte that was not captured.

    Returns:
        Its bytes that were captured, header included.

    """
    header, total = int64(row["header_bytes"]), int64(row["total_bytes"])
    for i in range(header):
        side[at + i] = row["header"][i]
    length = total + header if header == 20 else total
    place = at + 2 if header == 20 else at + 4
    side[place] = length >> 8
    side[place + 1] = length & 255
    reached = 0
    index = int64(row["piece"])
    while index >= 0:
        piece = pieces[index]
        start = int64(piece["start"])
        if start > reached:  # bytes before it were not captured
            break
        off = int64(piece["pool_pos"]) % len(pool) - start
        for i in range(reached, start + int64(piece["captured_bytes"])):
            side[at + header + i] = pool[off + i]
        reached = max(reached, start + int64(piece["captured_bytes"]))
        index = int64(piece["follower"])
    return header + reached


@kernel
def join_fragments(
    data: Octets,
    packets: Rows,
    numbers: Rows,
    aside: Rows,
    datagrams: Rows,
    pieces: Rows,
    pool: Octets,
    buckets: Rows,
    free: Rows,
    keys: Rows,
    state: Rows,
    side: Octets,
    joined: Rows,
    joined_numbers: Rows,
    counters: Rows,
) -> tuple[int, int]:
    """Take in fragments, and write the datagrams that they complete.

    Args:
        packets: PACKET rows that the fragments are of, and `numbers` their packet numbers.
        aside: ASIDE rows of fragments.
        side: Where datagrams are written; holds all that these fragments and those waiting could make.
        joined: PACKET rows for them, as raw IP; `joined_numbers` gets the number of the last packet of each.

    Returns:
        Number of datagrams written, and of bytes.

    """
    n, used = 0, 0
    for i in range(len(aside)):
        about = aside[i]
        ip, end, wire_end = int64(about["off"]), int64(about["end_off"]), int64(about["wire_end_off"])
        ts_ns = int64(packets[int64(about["packet"])]["ts_ns"])
        number = int64(numbers[int64(about["packet"])])
        index = int64(free[int64(state[N_FREE]) - 1])
        row = datagrams[index]  # not taken yet: the key is written where it would stand
        if int64(data[ip]) >> 4 == 4:
            is_6 = False
            off = ip + (int64(data[ip]) & 15) * 4
            word = wire.be16(data, ip + 6)
            start, is_last = (word & 0x1FFF) * 8, not word & 0x2000
            row["src_hi"] = 0
            row["src_lo"] = wire.be32(data, ip + 12) | dissect.IPV4_MAPPED
            row["dst_hi"] = 0
            row["dst_lo"] = wire.be32(data, ip + 16) | dissect.IPV4_MAPPED
            row["ident"] = wire.be16(data, ip + 4) | (int64(data[ip + 9]) << 32)
            follows = 0
        else:
            is_6 = True
            found, off = dissect.skip_extension_headers(data, ip + 40, end, int64(data[ip + 6]))
            if found != -3:  # by its own payload length it ends before its fragment header does
                counters[MALFORMED] += 1
                continue
            word = wire.be16(data, off + 2)
            start, is_last = word & 0xFFF8, not word & 1
            row["src_hi"] = wire.be64(data, ip + 8)
            row["src_lo"] = wire.be64(data, ip + 16)
            row["dst_hi"] = wire.be64(data, ip + 24)
            row["dst_lo"] = wire.be64(data, ip + 32)
            row["ident"] = wire.be32(data, off + 4) | IS_6
            follows = int64(data[off])
            off += 8
        wire_bytes = wire_end - off
        captured = max(0, min(end, wire_end) - off)
        if wire_bytes <= 0 or (not is_last and wire_bytes & 7) or start + wire_bytes > (65535 if is_6 else 65515):
            counters[MALFORMED] += 1
            continue

        bucket = bucket_of(row, buckets, keys)
        found = int64(buckets[bucket])
        while found >= 0:
            other = datagrams[found]
            if (
                int64(other["ident"]) == int64(row["ident"])
                and int64(other["src_lo"]) == int64(row["src_lo"])
                and int64(other["dst_lo"]) == int64(row["dst_lo"])
                and int64(other["src_hi"]) == int64(row["src_hi"])
                and int64(other["dst_hi"]) == int64(row["dst_hi"])
            ):
                break
            found = int64(other["follower"])
        verdict, before = NEW, -1
        if found >= 0:
            other = datagrams[found]
            status = int64(other["status"])
            if status == OPEN or status == WHOLE:
                verdict, before = compare(other, pieces, pool, data, off, start, wire_bytes, captured)
            if ts_ns - int64(other["first_ns"]) > timeout_ns(other) or (status == WHOLE and verdict != COPY):
                # too late for it, or the number was used again: another datagram
                forget(found, datagrams, buckets, free, keys, state)
                found, verdict, before = -1, NEW, -1
            elif status == WHOLE:
                continue
            elif status == CONTRADICTORY:
                counters[OVERLAP] += 1
                continue
            elif status == OVERFULL:
                counters[LIMIT] += 1
                continue

        if found < 0:
            # what `forget` gave back lies above the row whose key is written, which is then the next but one
            if int64(free[int64(state[N_FREE]) - 1]) != index:
                free[int64(state[N_FREE]) - 2] = int64(free[int64(state[N_FREE]) - 1])
            state[N_FREE] -= 1
            found = index
            state[GENERATION] += 1
            row["generation"] = int64(state[GENERATION])
            row["first_ns"] = ts_ns
            row["last_packet"] = number
            row["last_ns"] = ts_ns
            row["total_bytes"] = -1
            row["reach_bytes"] = 0
            row["n_fragments"] = 0
            row["n_pieces"] = 0
            row["piece"] = -1
            row["header_bytes"] = 0
            row["status"] = OPEN
            row["follower"] = int64(buckets[bucket])
            buckets[bucket] = index
        row = datagrams[found]
        total = int64(row["total_bytes"])
        stop = start + wire_bytes
        if is_last and ((total >= 0 and stop != total) or int64(row["reach_bytes"]) > stop):
            verdict = CONFLICT
        if not is_last and 0 <= total < stop:
            verdict = CONFLICT
        if verdict == NEW and int64(row["n_pieces"]) >= MAX_PIECES:
            verdict = NO_ROOM
        if verdict == CONFLICT or verdict == NO_ROOM:
            counters[FRAGMENT] -= int64(row["n_fragments"])
            counters[OVERLAP if verdict == CONFLICT else LIMIT] += int64(row["n_fragments"]) + 1
            row["status"] = CONTRADICTORY if verdict == CONFLICT else OVERFULL
            continue
        counters[FRAGMENT] += 1
        row["n_fragments"] += 1
        if verdict == COPY:
            continue

        # room in the rings; the oldest that leaves may be this datagram itself
        pool_head = int64(state[POOL_HEAD])
        if pool_head % len(pool) + captured > len(pool):
            pool_head += len(pool) - pool_head % len(pool)
        generation = int64(row["generation"])
        while int64(state[PIECE_TAIL]) < int64(state[PIECE_HEAD]) and (
            int64(state[PIECE_HEAD]) - int64(state[PIECE_TAIL]) >= len(pieces)
            or pool_head + captured - int64(state[POOL_TAIL]) > len(pool)
            or int64(state[N_FREE]) < 1
        ):
            retire_oldest(ts_ns, datagrams, pieces, buckets, free, keys, state, counters)
        if int64(state[PIECE_TAIL]) == int64(state[PIECE_HEAD]):
            state[POOL_TAIL] = pool_head
        if int64(row["status"]) == FREE or int64(row["generation"]) != generation:
            continue  # and it was counted with it
        place = int64(state[PIECE_HEAD]) % len(pieces)
        state[PIECE_HEAD] += 1
        state[POOL_HEAD] = pool_head + captured
        piece = pieces[place]
        piece["start"] = start
        piece["wire_bytes"] = wire_bytes
        piece["captured_bytes"] = captured
        piece["pool_pos"] = pool_head
        piece["generation"] = generation
        piece["datagram"] = found
        at = pool_head % len(pool)
        for k in range(captured):
            pool[at + k] = data[off + k]
        if before >= 0:
            piece["follower"] = int64(pieces[before]["follower"])
            pieces[before]["follower"] = place
        else:
            piece["follower"] = int64(row["piece"])
            row["piece"] = place
        row["n_pieces"] += 1
        row["reach_bytes"] = max(int64(row["reach_bytes"]), stop)
        if number >= int64(row["last_packet"]):
            row["last_packet"] = number
            row["last_ns"] = ts_ns
        if is_last:
            row["total_bytes"] = stop
        if start == 0 and int64(row["header_bytes"]) == 0:
            # without options and extension headers: nothing further on reads them
            size = 40 if is_6 else 20
            for k in range(size):
                row["header"][k] = data[ip + k]
            if is_6:
                row["header"][6] = follows
            else:
                row["header"][0] = 0x45
                row["header"][6] = 0
                row["header"][7] = 0
            row["header_bytes"] = size
        if is_whole(row, pieces):
            header = int64(row["header_bytes"])
            size = write_datagram(row, pieces, pool, side, used)
            out = joined[n]
            out["ts_ns"] = int64(row["last_ns"])
            out["off"] = used
            out["captured_bytes"] = size
            out["wire_bytes"] = header + int64(row["total_bytes"])
            out["link_type"] = link.RAW
            out["interface"] = 0
            joined_numbers[n] = int64(row["last_packet"])
            n += 1
            used += size
            counters[FRAGMENT] -= int64(row["n_fragments"])
            row["status"] = WHOLE
    return n, used


class FragmentTable:
    """The fragments of one capture that wait for others. Takes memory only once there is one; pickles."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._keys = np.array([secrets.randbits(64) | 1 for _ in range(9)], np.uint64)
        self._arrays: tuple[Rows, ...] = ()

    def _grow(self) -> tuple[Rows, ...]:
        """The table's arrays; the system gives them memory as they are first written to."""
        state = np.zeros(STATE_SIZE, np.int64)
        # one row more than may be in use: a key is written before it is looked for
        state[N_FREE] = MAX_DATAGRAMS + 1
        return (
            np.zeros(MAX_DATAGRAMS + 1, DATAGRAM),
            np.zeros(MAX_FRAGMENTS, PIECE),
            np.zeros(MAX_FRAGMENT_BYTES, np.uint8),
            np.full(2 * MAX_DATAGRAMS, -1, np.int32),
            np.arange(MAX_DATAGRAMS + 1, dtype=np.int32)[::-1].copy(),
            state,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the part of the ring that was never written to."""
        if not self._arrays:
            return {"keys": self._keys, "arrays": ()}
        datagrams, pieces, pool, *others, state = self._arrays
        n_pieces, n_bytes = min(int(state[PIECE_HEAD]), len(pieces)), min(int(state[POOL_HEAD]), len(pool))
        return {"keys": self._keys, "arrays": (datagrams, pieces[:n_pieces], pool[:n_bytes], *others, state)}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Give the ring its size again."""
        self.__init__()  # type: ignore[misc]
        self._keys = saved["keys"]
        if saved["arrays"]:
            self._arrays = self._grow()
            for own, old in zip(self._arrays, saved["arrays"], strict=True):
                own[: len(old)] = old

    @property
    def n_waiting(self) -> int:
        """Datagrams under way or remembered."""
        return len(self._arrays[0]) - int(self._arrays[-1][N_FREE]) if self._arrays else 0

    def join(
        self, data: Octets, packets: Rows, numbers: Rows, aside: Rows, counters: Rows
    ) -> tuple[Octets, Rows, Rows]:
        """Take in the fragments among what was left aside.

        Returns:
            The bytes of the datagrams that they complete, PACKET rows of them as raw IP, and the packet numbers.

        """
        if not self._arrays:
            self._arrays = self._grow()
        datagrams, pieces, pool, buckets, free, state = self._arrays
        waiting = min(int(state[POOL_HEAD]), len(pool))
        side = np.empty(waiting + int((aside["end_off"] - aside["off"]).sum()) + 40 * len(aside), np.uint8)
        joined = np.zeros(len(aside), PACKET)
        joined_numbers = np.zeros(len(aside), np.int64)
        with np.errstate(over="ignore"):  # the hash wraps on purpose
            n, used = join_fragments(
                data,
                packets,
                numbers,
                aside,
                datagrams,
                pieces,
                pool,
                buckets,
                free,
                self._keys,
                state,
                side,
                joined,
                joined_numbers,
                counters,
            )
        return side[:used], joined[:n], joined_numbers[:n]
