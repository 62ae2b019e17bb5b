"""The flow table: which TCP connections are followed, found by their endpoints; kernels only.

Arrays passed together: `slots` (hash slots holding flow indexes), `flows`, `streams` (rows 2*flow and 2*flow+1), `free`
(unused flow indexes), and `state`, whose places are named here. Knows nothing of sequence numbers.
"""

import numpy as np

from analyzer.kernel import kernel
from analyzer.model import Rows, int64

FREE, LIVE, DETACHED = 0, 1, 2
"""FLOW states; a detached flow has lost its place in the table to a new connection between the same ports."""

HTTP, FRAMES, OTHER = 0, 1, 2
"""STREAM modes: may still open a WebSocket, carries frames, carries something else and is not followed."""

IPV4_MAPPED = 0xFFFF
"""Upper half of the lower 64 bits of ::ffff:0:0/96 (RFC 4291 section 2.5.5.2)."""

EMPTY, DELETED = -1, -2
"""Hash slots without a flow; a deleted one does not end a search."""

NOT_DROPPED, DROPPED_FLOW, DROPPED_WEBSOCKET = 0, 1, 2
"""What `find_mark` says."""

LINGER_NS = 2_000_000_000
"""How long a connection whose end is complete waits for stragglers, in time of the capture."""

N_FREE, N_USED_SLOTS, POOL_USED, N_PARKED, MAY_PARK, DROPPED, N_SPANS, REASON, N_FLOWS = 0, 1, 2, 3, 4, 5, 6, 7, 8
STATE_SIZE = 9
"""Places in the int64 array `state` that travels beside the flow table."""


@kernel
def flow_hash(a_hi: int, a_lo: int, b_hi: int, b_lo: int, ports: int, keys: Rows) -> int:
    """Hash of a flow's endpoints, 32 bits.

    Vector multiply-shift with secret keys (Dietzfelbinger 1996): whoever made the capture cannot aim for collisions.
    """
    low = 0xFFFFFFFF
    mixed = keys[0] * np.uint64(a_lo & low) + keys[1] * np.uint64(b_lo & low) + keys[2] * np.uint64(ports & low)
    if a_hi or b_hi or a_lo >> 32 != IPV4_MAPPED or b_lo >> 32 != IPV4_MAPPED:  # else the rest is the same for all
        mixed += keys[3] * np.uint64((a_lo >> 32) & low) + keys[4] * np.uint64((b_lo >> 32) & low)
        mixed += keys[5] * np.uint64(a_hi & low) + keys[6] * np.uint64((a_hi >> 32) & low)
        mixed += keys[7] * np.uint64(b_hi & low) + keys[8] * np.uint64((b_hi >> 32) & low)
    return int64(mixed >> np.uint64(32))


@kernel
def find_slot(
    slots: Rows, flows: Rows, keys: Rows, a_hi: int, a_lo: int, b_hi: int, b_lo: int, a_port: int, b_port: int
) -> int:
    """The slot that holds this flow, or the first one where it may be put (its content is then negative)."""
    mask = len(slots) - 1
    at = flow_hash(a_hi, a_lo, b_hi, b_lo, (a_port << 16) | b_port, keys) & mask
    reusable = -1
    while True:
        flow = int64(slots[at])
        if flow == EMPTY:
            return reusable if reusable >= 0 else at
        if flow == DELETED:
            if reusable < 0:
                reusable = at
        else:
            row = flows[flow]
            if (
                int64(row["a_lo"]) == a_lo
                and int64(row["b_lo"]) == b_lo
                and int64(row["a_port"]) == a_port
                and int64(row["b_port"]) == b_port
                and int64(row["a_hi"]) == a_hi
                and int64(row["b_hi"]) == b_hi
            ):
                return at
        at = (at + 1) & mask


@kernel
def slot_of(slots: Rows, flows: Rows, keys: Rows, row: Rows) -> int:
    """`find_slot` for a FLOW row."""
    a_hi, a_lo, b_hi, b_lo = int64(row["a_hi"]), int64(row["a_lo"]), int64(row["b_hi"]), int64(row["b_lo"])
    return find_slot(slots, flows, keys, a_hi, a_lo, b_hi, b_lo, int64(row["a_port"]), int64(row["b_port"]))


@kernel
def remember_flows(chosen: Rows, flows: Rows, streams: Rows, dropped: Rows, keys: Rows) -> None:
    """Mark flows that a limit is about to drop, so that their later packets are not counted as another connection.

    One place for each hash: the latest flow there is remembered. Flows without data are not: a flood of them would
    push out the others.
    """
    for i in range(len(chosen)):
        flow = int64(chosen[i])
        if int64(streams[2 * flow]["has_data"]) or int64(streams[2 * flow + 1]["has_data"]):
            row = flows[flow]
            mark = mark_of(row, keys)
            if int64(row["connection"]) >= 0:
                mark |= 1
            dropped[(mark >> 32) & (len(dropped) - 1)] = mark


@kernel
def find_mark(row: Rows, dropped: Rows, keys: Rows) -> int:
    """What is remembered of a flow that begins without a SYN: NOT_DROPPED, DROPPED_FLOW or DROPPED_WEBSOCKET."""
    mark = mark_of(row, keys)
    found = int64(dropped[(mark >> 32) & (len(dropped) - 1)])
    if found | 1 != mark | 1:
        return NOT_DROPPED
    return DROPPED_WEBSOCKET if found & 1 else DROPPED_FLOW


@kernel
def mark_of(row: Rows, keys: Rows) -> int:
    """62 bits that tell a flow from others, the lowest of them 0, never all 0."""
    a_hi, a_lo, b_hi, b_lo = int64(row["a_hi"]), int64(row["a_lo"]), int64(row["b_hi"]), int64(row["b_lo"])
    ports = (int64(row["a_port"]) << 16) | int64(row["b_port"])
    first = flow_hash(a_hi, a_lo, b_hi, b_lo, ports, keys)
    second = flow_hash(b_lo, b_hi, a_lo, a_hi, ports ^ 0x5A5A5A5A, keys)
    return ((first & 0x3FFFFFFF) << 32) | (second & 0xFFFFFFFC) | 2


@kernel
def reset_stream(stream: Rows) -> None:
    """Begin a direction anew: nothing known of its sequence numbers."""
    stream["origin"] = -1
    stream["next_pos"] = 1
    stream["highest_pos"] = 1
    stream["acked_pos"] = 0
    stream["fin_pos"] = -1
    stream["fin_packet"] = 0
    stream["fin_ns"] = 0
    stream["rst_pos"] = -1
    stream["rst_packet"] = 0
    stream["rst_ns"] = 0
    stream["rst_acked_pos"] = 0
    stream["read_pos"] = 0
    stream["body_left_bytes"] = 0
    stream["packets"] = 0
    stream["last_ns"] = 0
    stream["stalled_ns"] = 0
    stream["parked_bytes"] = 0
    stream["parked"] = -1
    stream["parked_last"] = -1
    stream["n_parked"] = 0
    stream["n_stalled"] = 0
    stream["head"] = -1
    stream["head_bytes"] = 0
    stream["mode"] = HTTP
    stream["has_syn"] = 0
    stream["has_data"] = 0
    stream["is_answering"] = 0
    stream["has_chunks"] = 0
    stream["misses"] = 0
    stream["has_gap"] = 0


@kernel
def is_reset(stream: Rows) -> bool:
    """Whether a RST stands where its receiver expected the next byte; one elsewhere may be ignored, or forged."""
    if int64(stream["rst_packet"]) == 0:
        return False
    behind_fin = int64(stream["rst_pos"]) - int64(stream["fin_pos"])
    has_fin = int64(stream["fin_packet"]) > 0
    return int64(stream["rst_pos"]) == int64(stream["next_pos"]) or (has_fin and 0 <= behind_fin <= 1)


@kernel
def is_over(streams: Rows, flow: int) -> bool:
    """Whether a connection's end is complete: reset in place, or both FINs acknowledged."""
    a, b = streams[2 * flow], streams[2 * flow + 1]
    if is_reset(a) or is_reset(b):
        return True
    return (
        int64(a["fin_packet"]) > 0
        and int64(b["fin_packet"]) > 0
        and int64(a["acked_pos"]) > int64(a["fin_pos"])
        and int64(b["acked_pos"]) > int64(b["fin_pos"])
    )


@kernel
def find_ended(flows: Rows, streams: Rows, before_ns: int, found: Rows) -> int:
    """Flows whose end is complete and older than `before_ns`, and all that were detached; their number."""
    n = 0
    for flow in range(len(flows)):
        state = int64(flows[flow]["state"])
        if state == FREE or n >= len(found):
            continue
        if state == LIVE:
            if int64(flows[flow]["last_ns"]) > before_ns:
                continue
            if not is_over(streams, flow):
                continue
        found[n] = flow
        n += 1
    return n


@kernel
def remove_flows(chosen: Rows, slots: Rows, flows: Rows, free: Rows, keys: Rows, state: Rows) -> None:
    """Take flows out of the table and make their rows free."""
    for i in range(len(chosen)):
        flow = int64(chosen[i])
        row = flows[flow]
        if int64(row["state"]) == LIVE:
            at = slot_of(slots, flows, keys, row)
            if int64(slots[at]) == flow:
                slots[at] = DELETED
        row["state"] = FREE
        free[int64(state[N_FREE])] = flow
        state[N_FREE] += 1


@kernel
def fill_slots(slots: Rows, flows: Rows, keys: Rows, state: Rows) -> None:
    """Enter every live flow into an empty table: after growth, or when too many slots are marked deleted."""
    n = 0
    for flow in range(len(flows)):
        row = flows[flow]
        if int64(row["state"]) == LIVE:
            at = slot_of(slots, flows, keys, row)
            slots[at] = flow
            n += 1
    state[N_USED_SLOTS] = n
