"""TLS records cut out of what TCP carries (RFC 8446 section 5.1), and HTTP/2's bytes as they come; kernels only.

Bodies are gathered in an arena, so that whoever opens them finds each in one piece. Records whose header was seen are
told of also where part of their body is missing; behind missing headers the next record is looked for.
"""

import numpy as np

from analyzer.capture import sealed, wire
from analyzer.kernel import kernel, rare_kernel
from analyzer.model import ALERT, HANDSHAKE, Octets, Rows, int64

MAX_LAYERS = 1 << 16
"""TCP connections whose TLS or HTTP/2 is followed at once; those beyond are counted as `skipped_layers`."""

MAX_ARENA_BYTES = 1 << 26
"""Bytes of records under way, over all connections."""

RECORDS = 1 << 15
"""Records handed on at a time: the more, the more of one direction can be opened at once."""

ENOUGH_ARENA_BYTES = 1 << 22
"""So many bytes of bodies are handed on though there might be room for more."""

MAX_RECORD_BYTES = 16384 + 2048
"""Longest body: RFC 5246 section 6.2.3; TLS 1.3 allows less."""

MAX_GATHERED_BYTES = 1 << 16
"""Room in the arena for a record, or for a segment of HTTP/2, that is about to be read."""

TLS, HTTP2 = 0, 1
"""LAYER kinds."""

NOTHING, HELLOS, ALL = 0, 1, 2
"""LAYER `depth`: which records are handed on: none, those that open the connection and alerts, or every one."""

LOST, PIECE = 0, 1
"""RECORD kinds beside the content types of TLS: an unknown number of lost records, a piece of HTTP/2."""

IN_STEP, OUT_OF_STEP = 0, 1
"""CUTTER `walk`."""

CLIENT_HELLO, SERVER_HELLO = 1, 2

FREE_LAYERS, N_RECORDS, ARENA_USED, MAY_GATHER, MAY_GROW, SKIPPED_RECORDS, SKIPPED_LAYERS = 0, 1, 2, 3, 4, 5, 6
DEPTH, KEEPS_ALL = 7, 8
STATE_SIZE = 9
"""Places in the int64 array `state` of this step. MAY_GROW says whether there can be more
LAYER rows, DEPTH is that of a new TLS connection; KEEPS_ALL is set where one may
be asserted to be a WebSocket, whatever it looks like."""

FREE, IN_USE, HOPELESS = 0, 1, 2
"""LAYER `in_use`; what is hopeless looks like no WebSocket, and is not followed any more."""


@kernel
def is_record(data: Octets, off: int, n: int) -> bool:
    """Whether a TLS record that RFC 8446 section 5 allows begins here: once in three million random segments."""
    if n < 5 or not 20 <= int64(data[off]) <= 23 or int64(data[off + 1]) != 3 or int64(data[off + 2]) > 4:
        return False
    return 0 < wire.be16(data, off + 3) <= MAX_RECORD_BYTES


@kernel
def begin_layer(layers: Rows, cutters: Rows, free: Rows, state: Rows, flow_row: Rows, flow: int, kind: int) -> int:
    """Take a free LAYER row for this flow; the caller has made sure that there is one."""
    state[FREE_LAYERS] -= 1
    index = int64(free[int64(state[FREE_LAYERS])])
    row = layers[index]
    row["flow"] = flow
    row["kind"] = kind
    row["depth"] = ALL if kind == HTTP2 else int64(state[DEPTH])
    row["client"] = -1
    row["in_use"] = IN_USE
    for direction in range(2):
        cutter = cutters[2 * index + direction]
        cutter["off"] = -1
        cutter["left_bytes"] = 0
        cutter["have_bytes"] = 0
        cutter["walk"] = IN_STEP
        cutter["is_cut"] = 0
        cutter["n_hellos"] = 0
    flow_row["layer"] = index
    return index


@kernel
def find_record(data: Octets, off: int, n: int) -> int:
    """Where a record begins: at once, or where another follows it or the bytes end with it; -1 where none does."""
    for k in range(n - 4):
        if is_record(data, off + k, n - k):
            end = k + 5 + wire.be16(data, off + k + 3)
            if k == 0 or end == n or (end < n and is_record(data, off + end, n - end)):
                return k
    return -1


@kernel
def hand_on(
    records: Rows,
    state: Rows,
    stream: int,
    layer: int,
    kind: int,
    version: int,
    off: int,
    n: int,
    is_whole: bool,
    end_pos: int,
    ack: int,
    ts: int,
    packet: int,
) -> None:
    """Append one RECORD; the caller has made sure that there is room."""
    row = records[int64(state[N_RECORDS])]
    row["stream"] = stream
    row["layer"] = layer
    row["kind"] = kind
    row["version"] = version
    row["off"] = off
    row["n_bytes"] = n
    row["is_whole"] = 1 if is_whole else 0
    row["end_pos"] = end_pos
    row["ack_pos"] = ack
    row["ts_ns"] = ts
    row["packet"] = packet
    state[N_RECORDS] += 1


@kernel
def end_record(
    cutter: Rows,
    records: Rows,
    state: Rows,
    stream: int,
    layer: int,
    layers: Rows,
    shapes: Rows,
    pos: int,
    ack: int,
    ts: int,
    packet: int,
) -> None:
    """Book a record whose last byte has passed, captured or not."""
    row, shape = layers[layer], shapes[layer]
    kind, depth = int64(cutter["kind"]), int64(row["depth"])
    is_whole = int64(cutter["is_cut"]) == 0
    if kind == HANDSHAKE and is_whole and int64(row["client"]) < 0:
        if int64(cutter["first"]) == CLIENT_HELLO:
            row["client"] = stream & 1
        elif int64(cutter["first"]) == SERVER_HELLO:
            row["client"] = 1 - (stream & 1)
    if int64(row["client"]) >= 0:
        side = 0 if int64(row["client"]) == stream & 1 else 1
        sealed.note(shape, side, kind, int64(cutter["body_bytes"]), ts, packet, pos, ack)
        if depth != ALL and int64(state[KEEPS_ALL]) == 0 and sealed.is_hopeless(shape):
            row["in_use"] = HOPELESS
    is_told = depth == ALL
    if depth == HELLOS:
        is_told = kind == ALERT
        if kind == HANDSHAKE and int64(cutter["n_hellos"]) == 0:
            cutter["n_hellos"] = 1
            is_told = True
    if is_told:
        off = int64(cutter["off"])
        is_whole = is_whole and off >= 0
        version, n = int64(cutter["version"]), int64(cutter["body_bytes"])
        hand_on(records, state, stream, layer, kind, version, off, n, is_whole, pos, ack, ts, packet)
    cutter["off"] = -1
    cutter["is_cut"] = 0


@kernel
def lose_count(
    cutter: Rows, records: Rows, state: Rows, stream: int, layer: int, layers: Rows, shapes: Rows, packet: int
) -> None:
    """Nobody knows where the next record begins, nor how many were lost."""
    sealed.miss(shapes[layer], 0)
    sealed.miss(shapes[layer], 1)
    cutter["walk"] = OUT_OF_STEP
    cutter["have_bytes"] = 0
    cutter["left_bytes"] = 0
    cutter["off"] = -1
    cutter["is_cut"] = 0
    if int64(layers[layer]["depth"]) == ALL:
        hand_on(records, state, stream, layer, LOST, 0, -1, 0, False, 0, 0, 0, packet)


@kernel
def to_words(n: int) -> int:
    """So many bytes, and what lacks to a multiple of 8: in the arena bodies begin at whole words."""
    return (n + 7) & -8


@kernel
def lacks_room(records: Rows, arena: Octets, state: Rows, n: int) -> bool:
    """Whether there is no room for two more records, or for so many bytes of one that may be gathered."""
    if int64(state[N_RECORDS]) + 2 > len(records):
        return True
    return int64(state[MAY_GATHER]) == 1 and int64(state[ARENA_USED]) + n > len(arena)


@rare_kernel
def cut(
    data: Octets,
    off: int,
    n: int,
    pos: int,
    ack: int,
    ts: int,
    packet: int,
    stream: int,
    layer: int,
    layers: Rows,
    cutters: Rows,
    shapes: Rows,
    records: Rows,
    arena: Octets,
    state: Rows,
) -> int:
    """Cut bytes that are next in order on one direction into records.

    Args:
        data: Buffer that holds them, `n` bytes from `off`; their first one stands at stream position `pos`.
        stream: Index of the direction's STREAM.
        layer: Index of the connection's LAYER, and of its SEALED in `shapes`.
        arena: Where bodies are gathered.

    Returns:
        How many were read: fewer than `n` where the caller must take records away first, or make room in the arena.

    """
    cutter = cutters[2 * layer + (stream & 1)]
    if int64(layers[layer]["kind"]) == HTTP2:
        if lacks_room(records, arena, state, n):
            return 0
        at = -1
        if int64(state[MAY_GATHER]):
            at = int64(state[ARENA_USED])
            state[ARENA_USED] += to_words(n)
            for k in range(n):
                arena[at + k] = int64(data[off + k])
        else:
            state[SKIPPED_RECORDS] += 1
        hand_on(records, state, stream, layer, PIECE, 0, at, n, at >= 0, pos + n, ack, ts, packet)
        return n
    i = 0
    while i < n:
        left = int64(cutter["left_bytes"])
        if left > 0:
            if lacks_room(records, arena, state, 0):
                return i
            take = min(left, n - i)
            body = int64(cutter["body_bytes"])
            if left == body:
                cutter["first"] = int64(data[off + i])
            if int64(cutter["off"]) >= 0:
                base = int64(cutter["off"]) + body - left
                for k in range(take):
                    arena[base + k] = int64(data[off + i + k])
            cutter["left_bytes"] = left - take
            i += take
            if take == left:
                end_record(cutter, records, state, stream, layer, layers, shapes, pos + i, ack, ts, packet)
            continue
        if int64(cutter["walk"]) == OUT_OF_STEP:
            skipped = find_record(data, off + i, n - i)
            if skipped < 0:
                return n
            i += skipped
            cutter["walk"] = IN_STEP
            continue
        if lacks_room(records, arena, state, MAX_RECORD_BYTES):
            return i
        header, have = cutter["header"], int64(cutter["have_bytes"])
        while have < 5 and i < n:
            header[have] = int64(data[off + i])
            have += 1
            i += 1
        cutter["have_bytes"] = have
        if have < 5:
            return n
        cutter["have_bytes"] = 0
        body = (int64(header[3]) << 8) | int64(header[4])
        kind, major = int64(header[0]), int64(header[1])
        if not 20 <= kind <= 23 or major != 3 or int64(header[2]) > 4 or body > MAX_RECORD_BYTES:
            lose_count(cutter, records, state, stream, layer, layers, shapes, packet)
            continue
        cutter["kind"] = kind
        cutter["version"] = (major << 8) | int64(header[2])
        cutter["body_bytes"] = body
        cutter["left_bytes"] = body
        cutter["first"] = 0
        depth = int64(layers[layer]["depth"])
        is_hello = kind == HANDSHAKE and int64(cutter["n_hellos"]) == 0
        if depth == ALL or (depth == HELLOS and (kind == ALERT or is_hello)):
            if int64(state[MAY_GATHER]):
                cutter["off"] = int64(state[ARENA_USED])
                state[ARENA_USED] += to_words(body)
            else:
                state[SKIPPED_RECORDS] += 1
        if body == 0:
            end_record(cutter, records, state, stream, layer, layers, shapes, pos + i, ack, ts, packet)
    return n


@rare_kernel
def cut_gap(
    n: int,
    pos: int,
    ack: int,
    ts: int,
    packet: int,
    stream: int,
    layer: int,
    layers: Rows,
    cutters: Rows,
    shapes: Rows,
    records: Rows,
    arena: Octets,
    state: Rows,
) -> bool:
    """Step over `n` missing bytes; False where the caller must take records away first."""
    if lacks_room(records, arena, state, 0):
        return False
    cutter = cutters[2 * layer + (stream & 1)]
    if int64(layers[layer]["kind"]) == HTTP2:
        hand_on(records, state, stream, layer, PIECE, 0, -1, n, False, pos + n, ack, ts, packet)
        return True
    if int64(cutter["walk"]) == OUT_OF_STEP:
        return True
    left = int64(cutter["left_bytes"])
    if left > 0:
        cutter["is_cut"] = 1
        cutter["left_bytes"] = left - min(n, left)
        if n >= left:
            end_record(cutter, records, state, stream, layer, layers, shapes, pos + left, ack, ts, packet)
    if n > left:
        lose_count(cutter, records, state, stream, layer, layers, shapes, packet)
    return True


@kernel
def settle_arena(cutters: Rows, order: Rows, arena: Octets, state: Rows) -> None:
    """Move the bodies under way together at the front of the arena; all records in it were taken away.

    Args:
        order: Indexes of the CUTTER rows that have a body there, by where it lies.
    """
    used = 0
    for k in range(len(order)):
        cutter = cutters[int64(order[k])]
        off, body = int64(cutter["off"]), int64(cutter["body_bytes"])
        have = body - int64(cutter["left_bytes"])
        if off != used:
            for i in range(have):
                arena[used + i] = int64(arena[off + i])
        cutter["off"] = used
        used += to_words(body)
    state[ARENA_USED] = used
    state[N_RECORDS] = 0


def new_state() -> Rows:
    """`state` of this step where nothing was seen."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[MAY_GATHER] = 1
    state[MAY_GROW] = 1
    state[DEPTH] = HELLOS
    return state
