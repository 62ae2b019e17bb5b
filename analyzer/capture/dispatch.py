"""Spans to whatever reads them: the step that a stream's mode names.

The last of the kernels: everything that reads reassembled bytes is called from here.
"""

from analyzer.capture import flowtable, frames, handshake, midstream, reassemble
from analyzer.kernel import kernel, rare_kernel
from analyzer.model import Octets, Rows, int64

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
def lacks_room(stream: Rows, state: Rows, done: int) -> bool:
    """Whether the caller must make room before a span goes on being read behind its first `done` bytes."""
    if int64(state[handshake.FREE_CONNECTIONS]) == 0:
        state[handshake.WHY] = handshake.NO_CONNECTIONS
    elif int64(stream["head"]) < 0 and int64(state[handshake.FREE_HEADS]) == 0:
        state[handshake.WHY] = handshake.NO_HEADS
    else:
        return False
    state[handshake.RESUME] = done
    return True


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
    ports: Rows,
    state: Rows,
) -> int:
    """Give every span to the step that its stream's mode names.

    Args:
        data_words: The chunk as int64, for looking at eight bytes at a time.
        pool: Where parked segments lie, and `pool_words` the same as int64.
        start: Index of the first span to read; `state[RESUME]` of its bytes are read already.

    Returns:
        Index of the first span not wholly read; `state[WHY]` says why it stopped.

    """
    for i in range(start, len(spans)):
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
        stream["read_pos"] = pos + n
        if kind == reassemble.MISSING:
            connection = int64(flow_row["connection"])
            if int64(stream["mode"]) == flowtable.HTTP:
                handshake.miss_http(pos, n, flow_row, flow, streams, direction, connections, sides, free_heads, state)
                connection = int64(flow_row["candidate"])
            if connection >= 0:
                is_client = int64(connections[connection]["client_stream"]) == direction
                mine = 2 * connection + (0 if is_client else 1)
                frames.walk_gap(sides[mine], sides[mine ^ 1], n, pos, ack, packet)
            continue
        buffer = data if kind == reassemble.IN_CHUNK else pool
        words = data_words if kind == reassemble.IN_CHUNK else pool_words
        off = int64(span["off"])
        done = int64(state[handshake.RESUME])
        state[handshake.RESUME] = 0
        first_mode = int64(stream["mode"])
        if first_mode == flowtable.HTTP and lacks_room(stream, state, done):
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
                if (
                    int64(sides[mine]["close"]) == frames.NO_CLOSE
                    and int64(sides[mine ^ 1]["close"]) == frames.NO_CLOSE
                    and not has_ended(streams, flow, packet)
                ):
                    row["activity_ns"] = max(int64(row["activity_ns"]), ts)
                if judged >= 0:
                    midstream.settle(judged, flow_row, flow, streams, connections, sides, free, state)
                break
            if lacks_room(stream, state, done):
                return i
            done += handshake.read_http(
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
                state,
            )
    state[handshake.WHY] = handshake.ALL_READ
    return len(spans)


@kernel
def has_ended(streams: Rows, flow: int, packet: int) -> bool:
    """Whether a FIN or RST of either side came before this packet."""
    for direction in range(2):
        stream = streams[2 * flow + direction]
        fin, rst = int64(stream["fin_packet"]), int64(stream["rst_packet"])
        if 0 < fin < packet or 0 < rst < packet:
            return True
    return False
