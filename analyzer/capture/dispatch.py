"""Spans to whatever reads them: the step that a stream's mode names.

The last of the kernels: everything that reads reassembled bytes is called from here.
"""

from analyzer.capture import (
    flowtable,
    frames,
    handshake,
    keyblock,  # noqa: F401  so that all kernels are known
    keystream,  # noqa: F401
    midstream,
    reassemble,
    records,
    wire,
)
from analyzer.kernel import kernel, rare_kernel
from analyzer.model import Octets, Rows, int64

NO_RECORDS, NO_LAYERS = 3, 4
"""Further values of `state[WHY]`: records must be taken away first, or LAYER rows made."""

MANY_BYTES = 1 << 48
"""Stands for a loss of nobody knows how many bytes: a head, a body or the first frames may be among them."""

STEPWISE = handshake.OPENING_STATE_SIZE
"""One more place in `state`: set, spans come in pieces. Who cuts them calls `judge_span` on the whole; a piece is read
only to where its stream's mode changes, -state[RESUME] bytes left."""


@kernel
def is_forced(flow_row: Rows, ports: Rows) -> int:
    """Which side of a flow (0 or 1) has a port the user asserted to be a WebSocket server's, -1 where none has."""
    for i in range(len(ports)):
        if int64(flow_row["b_port"]) == int64(ports[i]):
            return 1
        if int64(flow_row["a_port"]) == int64(ports[i]):
            return 0
    return -1


@kernel
def is_uncertain(stream: Rows, flow_row: Rows, direction: int, connections: Rows, sides: Rows, ports: Rows) -> bool:
    """Whether `judge_span` has something to do: calling it for every span took a tenth of the time of all."""
    connection = int64(flow_row["connection"])
    if int64(stream["mode"]) == flowtable.FRAMES:
        is_client = int64(connections[connection]["client_stream"]) == direction
        return int64(sides[2 * connection + (0 if is_client else 1)]["score"]) < frames.PROVEN
    if connection >= 0 or int64(stream["mode"]) != flowtable.HTTP:
        return False
    if int64(flow_row["was_dropped"]):
        return False  # what a limit dropped goes on; only an opening begins another connection
    if int64(stream["has_syn"]) and int64(stream["has_gap"]) == 0:
        return False  # seen from its beginning
    return int64(stream["misses"]) < midstream.MAX_MISSES or len(ports) > 0


@rare_kernel
def judge_span(
    buffer: Octets,
    off: int,
    n: int,
    index: int,
    flows: Rows,
    streams: Rows,
    connections: Rows,
    sides: Rows,
    free: Rows,
    ports: Rows,
    state: Rows,
) -> None:
    """Look at what one segment carried where it is not certain that frames are in step, or that there are any.

    Leaves in `state[JUDGED]` the SIDE it goes to in a stream that may yet turn out to carry frames.
    """
    flow, direction = index >> 1, index & 1
    flow_row, stream = flows[flow], streams[index]
    state[handshake.JUDGED] = midstream.NOT_JUDGED
    connection, candidate = int64(flow_row["connection"]), int64(flow_row["candidate"])
    if int64(stream["mode"]) == flowtable.HTTP and connection < 0:
        if int64(stream["head"]) >= 0 or int64(stream["body_left_bytes"]) > 0:
            return
        if int64(stream["has_syn"]) and int64(stream["has_gap"]) == 0:
            return
        is_inside = False
        if candidate >= 0:
            is_client = int64(connections[candidate]["client_stream"]) == direction
            side = sides[2 * candidate + (0 if is_client else 1)]
            is_inside = int64(side["walk"]) == frames.IN_STEP and int64(side["skip_bytes"]) > 0
        if int64(flow_row["layer"]) < 0 and records.is_record(buffer, off, n):
            return
        first = int64(buffer[off]) | 32
        if not is_inside and (first == 103 or first == 112 or first == 104 or first == 100 or first == 111):
            return  # "GET", "HTTP" and the like; no frame begins so
        server = is_forced(flow_row, ports) if int64(stream["has_syn"]) == 0 else -1
        if server >= 0:
            connection = handshake.begin_connection(
                connections,
                sides,
                free,
                state,
                flow_row,
                flow,
                1 - server,
                handshake.MISSING_HANDSHAKE,
                frames.OUT_OF_STEP,
                frames.OUT_OF_STEP,
            )
            streams[2 * flow]["mode"] = flowtable.FRAMES
            streams[2 * flow + 1]["mode"] = flowtable.FRAMES
        elif int64(stream["misses"]) < midstream.MAX_MISSES:
            state[handshake.JUDGED] = midstream.judge(
                buffer, off, n, flow_row, flow, streams, direction, connections, sides, free, state
            )
    if int64(stream["mode"]) == flowtable.FRAMES:
        row = connections[connection]
        is_client = int64(row["client_stream"]) == direction
        side = sides[2 * connection + (0 if is_client else 1)]
        if int64(side["score"]) < frames.PROVEN:
            midstream.find_step(buffer, off, n, side, is_client, int64(row["allowed_rsv"]))


@kernel
def lacks_room(stream: Rows, openings: Rows, values: Octets, state: Rows, done: int) -> bool:
    """Whether the caller must make room before a span goes on being read behind its first `done` bytes."""
    if int64(state[handshake.FREE_CONNECTIONS]) == 0:
        state[handshake.WHY] = handshake.NO_CONNECTIONS
    elif (
        (int64(stream["head"]) < 0 and int64(state[handshake.FREE_HEADS]) == 0)
        or int64(state[handshake.N_OPENINGS]) >= len(openings)
        or len(values) - int64(state[handshake.VALUES_USED]) < handshake.MAX_HEAD_BYTES
    ):
        state[handshake.WHY] = handshake.NO_HEADS
    else:
        return False
    state[handshake.RESUME] = done
    return True


@rare_kernel
def cut_span(
    buffer: Octets,
    span: Rows,
    done: int,
    layer: int,
    layers: Rows,
    cutters: Rows,
    shapes: Rows,
    cut_records: Rows,
    arena: Octets,
    layer_state: Rows,
) -> int:
    """Cut a span of a wrapped stream into records, but for its first `done` bytes; how many are done comes back."""
    n, pos, off = int64(span["n_bytes"]), int64(span["pos"]), int64(span["off"])
    ack, ts, packet, index = int64(span["ack_pos"]), int64(span["ts_ns"]), int64(span["packet"]), int64(span["stream"])
    if int64(span["kind"]) == reassemble.MISSING:
        if records.cut_gap(
            n, pos, ack, ts, packet, index, layer, layers, cutters, shapes, cut_records, arena, layer_state
        ):
            return n
        return done
    return done + records.cut(
        buffer,
        off + done,
        n - done,
        pos + done,
        ack,
        ts,
        packet,
        index,
        layer,
        layers,
        cutters,
        shapes,
        cut_records,
        arena,
        layer_state,
    )


@kernel
def walk_messages(
    data: Octets, data_words: Rows, spans: Rows, start: int, flows: Rows, streams: Rows, connections: Rows, sides: Rows
) -> int:
    """Read spans as long as each is one message and nothing else, or of no interest; index of the first that is not."""
    for i in range(start, len(spans)):
        span = spans[i]
        index = int64(span["stream"]) & wire.MAX_INDEX
        stream, flow_row = streams[index], flows[index >> 1]
        if int64(stream["mode"]) == flowtable.OTHER:
            continue
        if int64(stream["mode"]) != flowtable.FRAMES or int64(span["kind"]) != reassemble.IN_CHUNK:
            return i
        if int64(flow_row["layer"]) >= 0 or may_have_ended(flow_row, int64(span["packet"])):
            return i
        connection = int64(flow_row["connection"]) & wire.MAX_INDEX
        row = connections[connection]
        if int64(row["may_have_close"]):
            return i
        is_client = int64(row["client_stream"]) == index & 1
        side = sides[2 * connection + (0 if is_client else 1)]
        n = int64(span["n_bytes"])
        if not frames.walk_message(data, data_words, int64(span["off"]) & wire.MAX_OFF, n, side, is_client):
            return i
        stream["read_pos"] = int64(span["pos"]) + n
        row["activity_ns"] = max(int64(row["activity_ns"]), int64(span["ts_ns"]))
    return len(spans)


@kernel
def scan_spans(
    data: Octets,
    data_words: Rows,
    pool: Octets,
    pool_words: Rows,
    spans: Rows,
    start: int,
    flows: Rows,
    streams: Rows,
    connections: Rows,
    sides: Rows,
    free: Rows,
    heads: Octets,
    heads_view: Octets,
    free_heads: Rows,
    openings: Rows,
    values: Octets,
    ports: Rows,
    layers: Rows,
    cutters: Rows,
    shapes: Rows,
    free_layers: Rows,
    cut_records: Rows,
    arena: Octets,
    layer_state: Rows,
    state: Rows,
) -> int:
    """Give every span to the step that its stream's mode names.

    Args:
        data_words: The chunk as int64, for looking at eight bytes at a time.
        pool: Where parked segments lie, and `pool_words` the same as int64.
        values: What is used of complete heads, `state[VALUES_USED]` bytes.
        shapes: SEALED rows, one for each LAYER.
        cut_records: RECORD rows, what streams in TLS and HTTP/2 are cut into; `arena` holds their bodies.
        layer_state: The `state` of that step.
        start: Index of the first span to read; `state[RESUME]` of its bytes are read already.

    Returns:
        Index of the first span not wholly read; `state[WHY]` says why it stopped.

    """
    i = start - 1
    while i + 1 < len(spans):
        i += 1
        if int64(state[handshake.RESUME]) == 0 and int64(state[STEPWISE]) == 0:
            i = walk_messages(data, data_words, spans, i, flows, streams, connections, sides)
            if i == len(spans):
                break
        span = spans[i]
        index = int64(span["stream"])
        flow, direction = index >> 1, index & 1
        stream = streams[index]
        if int64(stream["mode"]) == flowtable.OTHER:
            state[handshake.RESUME] = 0
            continue
        flow_row = flows[flow]
        n, pos = int64(span["n_bytes"]), int64(span["pos"])
        ack, ts, packet = int64(span["ack_pos"]), int64(span["ts_ns"]), int64(span["packet"])
        kind = int64(span["kind"])
        is_plain = kind == reassemble.IN_PLAIN or kind == reassemble.MISSING_PLAIN
        if int64(flow_row["layer"]) >= 0 and not is_plain:
            done = cut_span(
                pool if kind == reassemble.IN_POOL else data,
                span,
                int64(state[handshake.RESUME]),
                int64(flow_row["layer"]),
                layers,
                cutters,
                shapes,
                cut_records,
                arena,
                layer_state,
            )
            state[handshake.RESUME] = 0
            if int64(layers[int64(flow_row["layer"])]["in_use"]) == records.HOPELESS:
                stream["mode"] = flowtable.OTHER
                streams[index ^ 1]["mode"] = flowtable.OTHER
                continue
            if done < n:
                state[handshake.WHY] = NO_RECORDS
                state[handshake.RESUME] = done
                return i
            continue
        stream["read_pos"] = pos + n
        if kind == reassemble.MISSING or kind == reassemble.MISSING_PLAIN:
            connection = int64(flow_row["connection"])
            is_known = n > 0  # how many bytes records that are lost have carried is known of few ciphers
            if int64(stream["mode"]) == flowtable.HTTP:
                n = n if is_known else MANY_BYTES
                handshake.miss_http(pos, n, flow_row, flow, streams, direction, connections, sides, free_heads, state)
                connection = int64(flow_row["candidate"])
            if connection >= 0:
                is_client = int64(connections[connection]["client_stream"]) == direction
                mine = 2 * connection + (0 if is_client else 1)
                if is_known:
                    frames.walk_gap(sides[mine], sides[mine ^ 1], n, pos, ack, packet)
                else:
                    frames.lose_step(sides[mine])
            continue
        buffer = pool if kind == reassemble.IN_POOL else data
        words = pool_words if kind == reassemble.IN_POOL else data_words
        off = int64(span["off"])
        done = int64(state[handshake.RESUME])
        state[handshake.RESUME] = 0
        first_mode = int64(stream["mode"])
        if first_mode == flowtable.HTTP and lacks_room(stream, openings, values, state, done):
            return i
        if done == 0 and int64(state[STEPWISE]) == 0:
            state[handshake.JUDGED] = midstream.NOT_JUDGED
            if is_uncertain(stream, flow_row, direction, connections, sides, ports):
                judge_span(buffer, off, n, index, flows, streams, connections, sides, free, ports, state)
        judged = int64(state[handshake.JUDGED])
        while done < n:
            mode = int64(stream["mode"])
            if mode != first_mode and int64(state[STEPWISE]):
                state[handshake.RESUME] = done - n
                break
            if mode == flowtable.OTHER:
                break
            if mode == flowtable.FRAMES or judged != midstream.NOT_JUDGED:
                if judged == midstream.SWALLOWED:
                    break
                connection = judged >> 1 if judged >= 0 else int64(flow_row["connection"])
                row = connections[connection]
                is_client = int64(row["client_stream"]) == direction
                mine = 2 * connection + (0 if is_client else 1)
                if is_client and int64(row["handshake"]) == handshake.PENDING:
                    if int64(sides[mine]["frames"]) == 0 and int64(sides[mine]["header_bytes"]) == 0:
                        if int64(buffer[off + done]) == 71:  # "G": no frame begins so, but the next request does
                            stream["mode"] = flowtable.HTTP
                            continue
                frames.walk(
                    buffer,
                    words,
                    off + done,
                    n - done,
                    pos + done,
                    ack,
                    ts,
                    packet,
                    sides[mine],
                    sides[mine ^ 1],
                    row,
                    is_client,
                )
                has_close = int64(row["may_have_close"]) and has_begun_to_close(sides, connection)
                has_end = may_have_ended(flow_row, packet) and has_ended(streams, flow, packet)
                if not has_close and not has_end:
                    row["activity_ns"] = max(int64(row["activity_ns"]), ts)
                if judged >= 0:
                    midstream.settle(judged, flow_row, flow, streams, connections, sides, free, state)
                break
            if lacks_room(stream, openings, values, state, done):
                return i
            read = handshake.read_http(
                buffer,
                off + done,
                n - done,
                pos + done,
                ack,
                ts,
                packet,
                flow_row,
                flow,
                streams,
                direction,
                connections,
                sides,
                free,
                heads,
                heads_view,
                free_heads,
                openings,
                values,
                state,
            )
            done += read
            if read or int64(stream["mode"]) != flowtable.HTTP:
                continue
            # TLS or HTTP/2 begins here; inside of either, nobody looks into another
            has_room = int64(layer_state[records.FREE_LAYERS]) > 0
            if is_plain or (not has_room and int64(layer_state[records.MAY_GROW]) == 0):
                layer_state[records.SKIPPED_LAYERS] += 0 if is_plain else 1
                stream["mode"] = flowtable.OTHER
                streams[index ^ 1]["mode"] = flowtable.OTHER
                break
            if not has_room:
                state[handshake.WHY] = NO_LAYERS
                state[handshake.RESUME] = done
                return i
            wraps = records.TLS if int64(flow_row["kind"]) == handshake.TLS_FLOW else records.HTTP2
            layer = records.begin_layer(layers, cutters, free_layers, layer_state, flow_row, flow, wraps)
            done = cut_span(buffer, span, done, layer, layers, cutters, shapes, cut_records, arena, layer_state)
            if done < n:
                state[handshake.WHY] = NO_RECORDS
                state[handshake.RESUME] = done
                return i
            break
    state[handshake.WHY] = handshake.ALL_READ
    return len(spans)


@kernel
def walk_streams(data: Octets, words: Rows, spans: Rows, streams: Rows, connections: Rows, sides: Rows) -> None:
    """Walk over what HTTP/2 streams carry: SPAN rows whose `stream` is 2 * connection + side (RFC 8441 section 5)."""
    for i in range(len(spans)):
        span = spans[i]
        mine = int64(span["stream"])
        row, side, other = connections[mine >> 1], sides[mine], sides[mine ^ 1]
        n, pos, kind = int64(span["n_bytes"]), int64(span["pos"]), int64(span["kind"])
        ack, ts, packet = int64(span["ack_pos"]), int64(span["ts_ns"]), int64(span["packet"])
        if kind == reassemble.IN_PLAIN:
            off = int64(span["off"])
            if int64(side["score"]) < frames.PROVEN:
                midstream.find_step(data, off, n, side, mine & 1 == 0, int64(row["allowed_rsv"]))
            frames.walk(data, words, off, n, pos, ack, ts, packet, side, other, row, mine & 1 == 0)
        elif n > 0:
            frames.walk_gap(side, other, n, pos, ack, packet)
        else:
            frames.lose_step(side)
        if int64(side["close"]) == frames.NO_CLOSE and int64(other["close"]) == frames.NO_CLOSE:
            if not has_ended(streams, int64(row["flow"]), packet):
                row["activity_ns"] = max(int64(row["activity_ns"]), ts)


@kernel
def has_begun_to_close(sides: Rows, connection: int) -> bool:
    """Whether a Close of either side was seen, or its beginning."""
    client, server = sides[2 * connection], sides[2 * connection + 1]
    return int64(client["close"]) != frames.NO_CLOSE or int64(server["close"]) != frames.NO_CLOSE


@kernel
def may_have_ended(flow_row: Rows, packet: int) -> bool:
    """Whether it takes `has_ended` to tell: it looks at both streams."""
    return 0 < int64(flow_row["end_packet"]) < packet


@kernel
def has_ended(streams: Rows, flow: int, packet: int) -> bool:
    """Whether a FIN or RST of either side came before this packet."""
    for direction in range(2):
        stream = streams[2 * flow + direction]
        fin, rst = int64(stream["fin_packet"]), int64(stream["rst_packet"])
        if 0 < fin < packet or 0 < rst < packet:
            return True
    return False
