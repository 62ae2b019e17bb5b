"""TCP segments to ordered bytes per direction, with what is missing named as gaps; kernels only.

Follows RFC 9293 as an observer must: first copy wins, a position acknowledged but never captured is a gap, a RST
outside the window is ignored. Knows nothing of HTTP or WebSocket beyond each stream's `mode`, set by later steps.

Works on the flow table (`flowtable`), and on `parked` and `pool`: segments that came too early, and their bytes.
"""

from analyzer.capture import flowtable, wire
from analyzer.capture.flowtable import (
    DELETED,
    DETACHED,
    DROPPED,
    DROPPED_WEBSOCKET,
    EMPTY,
    LINGER_NS,
    LIVE,
    MAY_PARK,
    N_FLOWS,
    N_FREE,
    N_PARKED,
    N_SPANS,
    N_USED_SLOTS,
    NOT_DROPPED,
    OTHER,
    POOL_USED,
    REASON,
)
from analyzer.kernel import kernel
from analyzer.model import Octets, Rows, int64

IN_CHUNK, IN_POOL, MISSING, IN_PLAIN, MISSING_PLAIN = 0, 1, 2, 3, 4
"""SPAN kinds."""

FIN_FLAG, SYN_FLAG, RST_FLAG, ACK_FLAG = 0x01, 0x02, 0x04, 0x10

MAX_PARKED_SEGMENTS = 4096
MAX_PARKED_BYTES = 1 << 23
"""Per stream; a full TCP window at 10 Gbit/s and 5 ms is 6 MB."""

GAP_AFTER_SEGMENTS = 32
GAP_AFTER_NS = 2_000_000_000
"""Bytes that the receiver has acknowledged are given up for missing when this many segments, or this much time,
came after them: packets that a capture swaps are a few places off."""

SPANS = 17 * MAX_PARKED_SEGMENTS
"""Room for spans: one segment may split into one piece more than are parked, and all of them may leave in two parts."""

PLAUSIBLE_BYTES = 1 << 30
"""How far ahead of the expected position data, a FIN or an ACK may stand and still be believed."""

RST_WINDOW_BYTES = 1 << 20
"""The same for a RST, which anyone can forge: receivers ignore one outside their window (RFC 9293 section 3.10.7.4)."""

RETRANSMITTED_AFTER_NS = 500_000
"""The same bytes sooner than this after the packet before are a packet captured twice (a mirror port), not one sent
again: that takes a round trip at least, and most systems wait 200 ms."""

STALLED_RETRANSMISSIONS = 3
"""So many retransmissions without any answer count as a peer that is gone."""

DONE, NO_FLOWS, NO_POOL, NO_SPANS = 0, 1, 2, 3
"""Values of `state[REASON]`: why a scan stopped before its end. The caller makes room and calls again."""


@kernel
def position(stream: Rows, seq: int) -> int:
    """Where a sequence number of this stream stands; the nearest place to what is expected next."""
    expected = int64(stream["next_pos"])
    return expected + wire.seq_diff(seq, (int64(stream["origin"]) + expected) & 0xFFFFFFFF)


@kernel
def emit(
    spans: Rows, state: Rows, index: int, kind: int, pos: int, off: int, n: int, ts: int, packet: int, ack: int
) -> None:
    """Append one span; the caller has made sure that there is room."""
    row = spans[int64(state[N_SPANS]) & wire.MAX_INDEX]
    row["stream"] = index
    row["kind"] = kind
    row["pos"] = pos
    row["off"] = off
    row["n_bytes"] = n
    row["ts_ns"] = ts
    row["packet"] = packet
    row["ack_pos"] = ack
    state[N_SPANS] += 1


@kernel
def emit_piece(
    spans: Rows,
    state: Rows,
    streams: Rows,
    index: int,
    kind: int,
    pos: int,
    off: int,
    captured: int,
    wire_bytes: int,
    ts: int,
    packet: int,
    ack: int,
) -> None:
    """Hand on bytes that are next in order, and as a gap what the capture cut off behind them."""
    stream = streams[index]
    if captured > 0:
        emit(spans, state, index, kind, pos, off, captured, ts, packet, ack)
    if captured < wire_bytes:
        emit(spans, state, index, MISSING, pos + captured, 0, wire_bytes - captured, ts, packet, ack)
    stream["next_pos"] = pos + wire_bytes


@kernel
def release(spans: Rows, state: Rows, streams: Rows, index: int, parked: Rows) -> None:
    """Hand on parked segments that have become next in order."""
    stream = streams[index]
    while int64(stream["parked"]) >= 0:
        row = parked[int64(stream["parked"])]
        pos = int64(row["pos"])
        if pos > int64(stream["next_pos"]):
            return
        n, wire_bytes = int64(row["n_bytes"]), int64(row["wire_bytes"])
        emit_piece(
            spans,
            state,
            streams,
            index,
            IN_POOL,
            pos,
            int64(row["off"]),
            n,
            wire_bytes,
            int64(row["ts_ns"]),
            int64(row["packet"]),
            int64(row["ack_pos"]),
        )
        row["in_use"] = 0
        stream["parked"] = int64(row["follower"])
        stream["parked_bytes"] = int64(stream["parked_bytes"]) - n
        stream["n_parked"] = int64(stream["n_parked"]) - 1
        if int64(stream["parked"]) < 0:
            stream["parked_last"] = -1


@kernel
def skip_gap(spans: Rows, state: Rows, streams: Rows, index: int, parked: Rows) -> None:
    """Give up the bytes before the first parked segment and hand on what follows them."""
    stream = streams[index]
    first = int64(stream["parked"])
    if first < 0:
        return
    row = parked[first]
    missing = int64(row["pos"]) - int64(stream["next_pos"])
    if missing > 0:
        emit(
            spans,
            state,
            index,
            MISSING,
            int64(stream["next_pos"]),
            0,
            missing,
            int64(row["ts_ns"]),
            int64(row["packet"]),
            int64(row["ack_pos"]),
        )
        stream["next_pos"] = int64(row["pos"])
    release(spans, state, streams, index, parked)


@kernel
def park(
    data: Octets,
    off: int,
    pos: int,
    n: int,
    wire_bytes: int,
    ts: int,
    packet: int,
    ack: int,
    before: int,
    after: int,
    stream: Rows,
    parked: Rows,
    pool: Octets,
    state: Rows,
) -> int:
    """Keep a copy of a segment between two parked ones (-1 at either end); the row's index, or -1 where it cannot."""
    used = int64(state[POOL_USED])
    if int64(state[N_PARKED]) >= len(parked) or n > len(pool) - used or int64(state[MAY_PARK]) == 0:
        state[DROPPED] += 1
        return -1
    index = int64(state[N_PARKED])
    row = parked[index]
    row["pos"] = pos
    row["n_bytes"] = n
    row["wire_bytes"] = wire_bytes
    row["off"] = used
    row["ts_ns"] = ts
    row["packet"] = packet
    row["ack_pos"] = ack
    row["follower"] = after
    row["in_use"] = 1
    for k in range(n):
        pool[used + k] = int64(data[off + k])
    state[POOL_USED] = used + n
    state[N_PARKED] = index + 1
    if before >= 0:
        parked[before]["follower"] = index
    else:
        stream["parked"] = index
    if after < 0:
        stream["parked_last"] = index
    stream["parked_bytes"] = int64(stream["parked_bytes"]) + n
    stream["n_parked"] = int64(stream["n_parked"]) + 1
    return index


@kernel
def place(
    data: Octets,
    off: int,
    pos: int,
    captured: int,
    wire_bytes: int,
    ts: int,
    packet: int,
    ack: int,
    streams: Rows,
    index: int,
    parked: Rows,
    pool: Octets,
    spans: Rows,
    state: Rows,
) -> None:
    """Put one segment's bytes where they belong: hand on, park, or drop what was seen before."""
    stream = streams[index]
    end = pos + wire_bytes
    low = max(pos, int64(stream["next_pos"]))
    if low >= end:
        return
    before, current = -1, int64(stream["parked"])
    if current < 0 and low == int64(stream["next_pos"]):
        left = max(0, min(captured - (low - pos), end - low))
        emit_piece(spans, state, streams, index, IN_CHUNK, low, off + (low - pos), left, end - low, ts, packet, ack)
        return
    last = int64(stream["parked_last"])
    if last >= 0 and low >= int64(parked[last]["pos"]) + int64(parked[last]["wire_bytes"]):
        before, current = last, -1
    while low < end:
        while current >= 0 and int64(parked[current]["pos"]) + int64(parked[current]["wire_bytes"]) <= low:
            before, current = current, int64(parked[current]["follower"])
        high = end
        if current >= 0:
            high = min(end, max(low, int64(parked[current]["pos"])))
        if high > low:
            left = max(0, min(captured - (low - pos), high - low))
            source = off + min(low - pos, captured)
            if low == int64(stream["next_pos"]):
                emit_piece(spans, state, streams, index, IN_CHUNK, low, source, left, high - low, ts, packet, ack)
            else:
                made = park(
                    data, source, low, left, high - low, ts, packet, ack, before, current, stream, parked, pool, state
                )
                if made < 0:
                    return
                before = made
        low = high
        if current >= 0 and low < end:
            low = max(low, int64(parked[current]["pos"]) + int64(parked[current]["wire_bytes"]))
    release(spans, state, streams, index, parked)


@kernel
def note_ack(stream: Rows, ack: int) -> int:
    """Take an acknowledgement of this stream into account; its position, or 0 where it cannot be meant."""
    if int64(stream["origin"]) < 0:
        # nothing of this direction was seen yet: what was acknowledged is where its data begins
        stream["origin"] = (ack - 1) & 0xFFFFFFFF
    pos = position(stream, ack)
    if pos < 1 or pos > int64(stream["highest_pos"]) + PLAUSIBLE_BYTES:
        return 0
    if pos > int64(stream["acked_pos"]):
        stream["acked_pos"] = pos
        stream["n_stalled"] = 0
    return pos


@kernel
def note_end(flow_row: Rows, packet: int) -> None:
    """Remember where a connection may have ended first."""
    if int64(flow_row["end_packet"]) == 0 or packet < int64(flow_row["end_packet"]):
        flow_row["end_packet"] = packet


@kernel
def is_new_connection(flow_streams_syn: Rows, other: Rows, seq: int, ack: int, is_answer: bool) -> bool:
    """Whether a SYN belongs to another connection than the one these streams hold."""
    if int64(flow_streams_syn["origin"]) == seq:
        return False
    if int64(flow_streams_syn["has_syn"]) == 0 and int64(flow_streams_syn["has_data"]) == 0:
        return False
    if is_answer:
        return int64(other["origin"]) != (ack - 1) & 0xFFFFFFFF
    return True


@kernel
def scan_segments(
    data: Octets,
    segments: Rows,
    start: int,
    slots: Rows,
    flows: Rows,
    streams: Rows,
    free: Rows,
    keys: Rows,
    parked: Rows,
    pool: Octets,
    spans: Rows,
    dropped: Rows,
    state: Rows,
) -> int:
    """Sort segments into flows and hand on the bytes that are next in order.

    Args:
        data: The chunk that the segments point into.
        segments: SEGMENT rows.
        start: Index of the first one to read.
        dropped: Marks of flows that a limit dropped (int64, a power of two of them).
        spans: SPAN rows to fill, from `state[N_SPANS]` on.

    Returns:
        Index of the first segment not read; `state[REASON]` says why.

    """
    for i in range(start, len(segments)):
        segment = segments[i]
        src_hi, src_lo = int64(segment["src_hi"]), int64(segment["src_lo"])
        dst_hi, dst_lo = int64(segment["dst_hi"]), int64(segment["dst_lo"])
        sport, dport = int64(segment["sport"]), int64(segment["dport"])
        # without branches, which nobody could predict: packets of both directions take turns as they like
        direction = int64(src_lo > dst_lo) | (int64(src_lo == dst_lo) & int64(sport > dport))
        direction = int64(src_hi > dst_hi) | (int64(src_hi == dst_hi) & direction)
        swap_hi, swap_lo = (src_hi ^ dst_hi) & -direction, (src_lo ^ dst_lo) & -direction
        swap_port = (sport ^ dport) & -direction
        a_hi, a_lo, a_port = src_hi ^ swap_hi, src_lo ^ swap_lo, sport ^ swap_port
        b_hi, b_lo, b_port = dst_hi ^ swap_hi, dst_lo ^ swap_lo, dport ^ swap_port
        at = flowtable.find_slot(slots, flows, keys, a_hi, a_lo, b_hi, b_lo, a_port, b_port)
        flow = int64(slots[at])
        ts, packet = int64(segment["ts_ns"]), int64(segment["packet"])
        flags, seq, ack = int64(segment["flags"]), int64(segment["seq"]), int64(segment["ack"])
        is_syn = flags & SYN_FLAG != 0 and flags & RST_FLAG == 0
        is_ack = flags & ACK_FLAG != 0
        wire_bytes, captured = int64(segment["wire_bytes"]), int64(segment["payload_bytes"])

        if flow >= 0:
            parked_before = int64(streams[2 * flow]["n_parked"]) + int64(streams[2 * flow + 1]["n_parked"])
            if 4 * parked_before + 8 > len(spans) - int64(state[N_SPANS]):
                state[REASON] = NO_SPANS
                return i
            if ts - int64(flows[flow]["last_ns"]) > LINGER_NS and flowtable.is_over(streams, flow):
                flows[flow]["state"] = DETACHED  # whatever comes now is another connection's
                slots[at] = DELETED
                flow = -1
        elif int64(state[N_SPANS]) > len(spans) - 8:
            state[REASON] = NO_SPANS
            return i
        if flow >= 0 and is_syn:
            mine, theirs = streams[2 * flow + direction], streams[2 * flow + 1 - direction]
            if is_new_connection(mine, theirs, seq, ack, is_ack):
                if int64(state[N_FREE]) == 0:
                    state[REASON] = NO_FLOWS
                    return i
                flows[flow]["state"] = DETACHED
                flow = EMPTY
        elif flow < 0 and flags & RST_FLAG != 0 and wire_bytes == 0:
            continue  # a reset of nothing that was seen
        if flow < 0:
            if int64(state[N_FREE]) == 0:
                state[REASON] = NO_FLOWS
                return i
            if int64(slots[at]) == EMPTY:
                state[N_USED_SLOTS] += 1
            state[N_FREE] -= 1
            state[N_FLOWS] += 1
            flow = int64(free[int64(state[N_FREE])])
            slots[at] = flow
            row = flows[flow]
            row["a_hi"] = a_hi
            row["a_lo"] = a_lo
            row["b_hi"] = b_hi
            row["b_lo"] = b_lo
            row["a_port"] = a_port
            row["b_port"] = b_port
            row["first_ns"] = ts
            row["first_packet"] = packet
            row["last_ns"] = ts
            row["connection"] = -1
            row["candidate"] = -1
            row["layer"] = -1
            row["was_dropped"] = 0
            row["end_packet"] = 0
            row["ordinal"] = 0
            row["unanswered"] = 0
            row["state"] = LIVE
            row["kind"] = 0
            flowtable.reset_stream(streams[2 * flow])
            flowtable.reset_stream(streams[2 * flow + 1])
            if not is_syn:
                mark = flowtable.find_mark(row, dropped, keys)
                if mark != NOT_DROPPED:
                    state[N_FLOWS] -= 1  # it has been counted
                if mark == DROPPED_WEBSOCKET:
                    row["was_dropped"] = 1

        flow &= wire.MAX_INDEX
        index = 2 * flow + direction
        flow_row, stream, other = flows[flow], streams[index], streams[index ^ 1]
        if wire_bytes > 0 and int64(state[MAY_PARK]) != 0:
            pieces = int64(stream["n_parked"]) + 2
            if captured > len(pool) - int64(state[POOL_USED]) or pieces > len(parked) - int64(state[N_PARKED]):
                state[REASON] = NO_POOL
                return i
        flow_row["last_ns"] = max(int64(flow_row["last_ns"]), ts)
        stream["packets"] = int64(stream["packets"]) + 1
        is_again = ts - int64(stream["last_ns"]) >= RETRANSMITTED_AFTER_NS
        stream["last_ns"] = ts
        other["n_stalled"] = 0
        if is_syn:
            if int64(stream["has_data"]) == 0:
                stream["origin"] = seq
            stream["has_syn"] = 1
            seq = (seq + 1) & 0xFFFFFFFF
        elif int64(stream["origin"]) < 0:
            stream["origin"] = (seq - 1) & 0xFFFFFFFF
        ack_pos = 0
        if is_ack:
            ack_pos = note_ack(other, ack)
        pos = position(stream, seq)
        expected = int64(stream["next_pos"])

        if flags & RST_FLAG != 0:
            # a sender resets at its next byte, or at the byte that the segment it answers acknowledged
            is_next = 0 <= pos - max(expected, int64(stream["acked_pos"])) <= RST_WINDOW_BYTES
            if int64(stream["rst_packet"]) == 0 and (is_next or pos == int64(stream["acked_pos"])):
                stream["rst_pos"] = pos
                stream["rst_packet"] = packet
                note_end(flow_row, packet)
                stream["rst_ns"] = ts
                stream["rst_acked_pos"] = ack_pos
            continue
        if wire_bytes > 0 and int64(stream["has_data"]) == 0:
            stream["has_data"] = 1
            if int64(stream["has_syn"]) == 0 and int64(stream["acked_pos"]) == 0:
                stream["next_pos"] = pos  # begun before the capture: this is where it begins for us
                expected = pos
        end = pos + wire_bytes
        if int64(flow_row["end_packet"]) and int64(stream["rst_packet"]) > 0 and wire_bytes > 0 and end > expected:
            # whoever sends on has not reset: the RST was forged, or stood outside the receiver's window after all
            if end > int64(stream["rst_pos"]) or ts - int64(stream["rst_ns"]) > GAP_AFTER_NS:
                stream["rst_packet"] = 0
                stream["rst_pos"] = -1
        if flags & FIN_FLAG != 0 and int64(stream["fin_packet"]) == 0:
            if end >= expected and end - expected <= PLAUSIBLE_BYTES:
                stream["fin_pos"] = end
                stream["fin_packet"] = packet
                note_end(flow_row, packet)
                stream["fin_ns"] = ts
        elif (
            is_again
            and pos < int64(stream["highest_pos"])
            and end <= int64(stream["highest_pos"])
            and (wire_bytes > 0 or pos == int64(stream["acked_pos"]) - 1)
        ):
            stream["n_stalled"] = int64(stream["n_stalled"]) + 1  # a retransmission, or a keep-alive probe
            stream["stalled_ns"] = ts
        elif is_again and flags & FIN_FLAG != 0 and end == int64(stream["fin_pos"]):
            stream["n_stalled"] = int64(stream["n_stalled"]) + 1
            stream["stalled_ns"] = ts
        if wire_bytes > 0 and end - expected <= PLAUSIBLE_BYTES and end > expected:
            if int64(stream["mode"]) != OTHER:
                place(
                    data,
                    int64(segment["payload_off"]),
                    pos,
                    captured,
                    wire_bytes,
                    ts,
                    packet,
                    ack_pos,
                    streams,
                    index,
                    parked,
                    pool,
                    spans,
                    state,
                )
            else:
                stream["next_pos"] = end
        stream["highest_pos"] = max(int64(stream["highest_pos"]), end if end - expected <= PLAUSIBLE_BYTES else 0)
        if int64(stream["n_parked"]) > 0:
            give_up(spans, state, streams, index, parked, ts)
        if int64(other["n_parked"]) > 0:
            give_up(spans, state, streams, index ^ 1, parked, ts)
    state[REASON] = DONE
    return len(segments)


@kernel
def give_up(spans: Rows, state: Rows, streams: Rows, index: int, parked: Rows, ts: int) -> None:
    """Skip a gap that will not be filled any more: acknowledged and long past, or too much waits behind it."""
    stream = streams[index]
    first = parked[int64(stream["parked"])]
    n = int64(stream["n_parked"])
    is_acked = int64(stream["acked_pos"]) > int64(stream["next_pos"])
    if is_acked and (n >= GAP_AFTER_SEGMENTS or ts - int64(first["ts_ns"]) > GAP_AFTER_NS):
        skip_gap(spans, state, streams, index, parked)
    while int64(stream["n_parked"]) >= MAX_PARKED_SEGMENTS or int64(stream["parked_bytes"]) > MAX_PARKED_BYTES:
        skip_gap(spans, state, streams, index, parked)


@kernel
def flush(chosen: Rows, start: int, streams: Rows, parked: Rows, spans: Rows, state: Rows) -> int:
    """Hand on everything that is parked in these flows, gaps named: they have ended.

    Returns:
        How many of `chosen` are done; fewer than all where `spans` has no room for the next.

    """
    for i in range(start, len(chosen)):
        for direction in range(2):
            index = 2 * int64(chosen[i]) + direction
            while int64(streams[index]["parked"]) >= 0:
                if 2 * int64(streams[index]["n_parked"]) + 4 > len(spans) - int64(state[N_SPANS]):
                    return i
                skip_gap(spans, state, streams, index, parked)
    return len(chosen)


@kernel
def compact_pool(streams: Rows, parked: Rows, pool: Octets, moved: Rows, state: Rows) -> None:
    """Move what is still parked to the front of the pool; `moved` (int32, one per parked row) is scratch."""
    n, used = 0, 0
    for i in range(int64(state[N_PARKED])):
        row = parked[i]
        moved[i] = -1
        if int64(row["in_use"]) == 0:
            continue
        off, size = int64(row["off"]), int64(row["n_bytes"])
        for k in range(size):
            pool[used + k] = pool[off + k]
        moved[i] = n
        target = parked[n]
        target["pos"] = int64(row["pos"])
        target["n_bytes"] = size
        target["wire_bytes"] = int64(row["wire_bytes"])
        target["off"] = used
        target["ts_ns"] = int64(row["ts_ns"])
        target["packet"] = int64(row["packet"])
        target["ack_pos"] = int64(row["ack_pos"])
        target["follower"] = int64(row["follower"])
        target["in_use"] = 1
        used += size
        n += 1
    for i in range(n):
        follower = int64(parked[i]["follower"])
        if follower >= 0:
            parked[i]["follower"] = int64(moved[follower])
    for i in range(len(streams)):
        stream = streams[i]
        if int64(stream["n_parked"]) > 0:
            stream["parked"] = int64(moved[int64(stream["parked"])])
            stream["parked_last"] = int64(moved[int64(stream["parked_last"])])
    state[N_PARKED] = n
    state[POOL_USED] = used
