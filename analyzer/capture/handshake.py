"""The HTTP/1.1 opening as the kernel sees it (RFC 6455 section 4, RFC 9112).

Gathers a head from any segmentation and decides only what the frame walk needs: is it an upgrade request, is it a
101, where does it end. The rest is read in `head`, once per connection. Heads are bounded in length and in number;
bodies are not read.
"""

import numpy as np

from analyzer.capture import field_line, frames, records, wire
from analyzer.capture.flowtable import FRAMES, HTTP, OTHER
from analyzer.kernel import kernel, rare_kernel
from analyzer.model import HANDSHAKES, Handshake, Octets, Rows, int64

MAX_HEAD_BYTES = 1 << 15
"""Longest HTTP head that is read; common servers stop at 8 to 32 KiB."""

FIRST_HEAD_SLOTS = 4
MAX_HEAD_SLOTS = 2048
"""Heads that may be incomplete at the same time (64 MiB)."""

OPENINGS, VALUE_BYTES = 1 << 10, 1 << 18
"""Complete heads, and bytes of what is used of them, before Python must take them."""

PENDING = -1
COMPLETE = HANDSHAKES.index(Handshake.COMPLETE)
REJECTED = HANDSHAKES.index(Handshake.REJECTED)
FAILED = HANDSHAKES.index(Handshake.FAILED)
MISSING_HANDSHAKE = HANDSHAKES.index(Handshake.MISSING)
SEALED_HANDSHAKE = HANDSHAKES.index(Handshake.SEALED)
"""CONNECTION `handshake`; pending is a request that was not answered yet."""

REQUEST, RESPONSE = 0, 1
"""OPENING kinds."""

PLAIN_FLOW, TLS_FLOW, MIDSTREAM_FLOW, HTTP2_FLOW = 0, 1, 2, 3
"""FLOW `kind`: what it was found to carry."""

FREE_CONNECTIONS, FREE_HEADS, N_OPENINGS, WHY, SKIPPED_HEADS, RESUME, N_CONNECTIONS = 0, 1, 2, 3, 4, 5, 6
N_CANDIDATES, SKIPPED_CANDIDATES, JUDGED, VALUES_USED = 7, 8, 9, 10
OPENING_STATE_SIZE = 11
"""Places in the int64 array `state` of this step."""

ALL_READ, NO_CONNECTIONS, NO_HEADS = 0, 1, 2
"""Values of `state[WHY]`."""

UPGRADE = np.frombuffer(b"\nupgrade:", np.uint8)
WEBSOCKET = np.frombuffer(b"websocket", np.uint8)
EXTENSIONS = np.frombuffer(b"\nsec-websocket-extensions:", np.uint8)
DEFLATE = np.frombuffer(b"permessage-deflate", np.uint8)
TRANSFER_ENCODING = np.frombuffer(b"\ntransfer-encoding:", np.uint8)
CHUNKED = np.frombuffer(b"chunked", np.uint8)
CONTENT_LENGTH = np.frombuffer(b"\ncontent-length:", np.uint8)
POST = np.frombuffer(b"post ", np.uint8)
PUT = np.frombuffer(b"put ", np.uint8)
HEAD = np.frombuffer(b"head ", np.uint8)
PATCH = np.frombuffer(b"patch ", np.uint8)
DELETE = np.frombuffer(b"delete ", np.uint8)
OPTIONS = np.frombuffer(b"options ", np.uint8)
GET = np.frombuffer(b"get ", np.uint8)
HTTP_VERSION = np.frombuffer(b"http/1.", np.uint8)
PREFACE = np.frombuffer(b"pri * http/2.0\r\n\r\nsm\r\n\r\n", np.uint8)


@kernel
def find(data: Octets, start: int, end: int, pattern: Octets) -> int:
    """Offset of `pattern` (lower case) in `data[start:end]` without regard to case, -1 where it is not."""
    n = len(pattern)
    if end - start < n:
        return -1
    first = int64(pattern[0])
    capital = first - 32 if 97 <= first <= 122 else first
    wire.require(data, start, end - start)
    part = data[start:end]
    for i in range(len(part) - n + 1):
        byte = int64(part[i])
        if byte != first and byte != capital:
            continue
        matches = True
        for k in range(1, n):
            byte = int64(part[i + k])
            if 65 <= byte <= 90:
                byte += 32
            if byte != int64(pattern[k]):
                matches = False
                break
        if matches:
            return start + i
    return -1


@kernel
def is_request_start(data: Octets, off: int, n: int) -> bool:
    """Whether these bytes may begin a request: a method of RFC 9110 section 9.1, as far as they go."""
    first = int64(data[off]) | 32
    if first == 103:
        return field_line.begins(data, off, n, GET)
    if first == 112:
        return (
            field_line.begins(data, off, n, POST)
            or field_line.begins(data, off, n, PUT)
            or field_line.begins(data, off, n, PATCH)
        )
    if first == 104:
        return field_line.begins(data, off, n, HEAD)
    if first == 100:
        return field_line.begins(data, off, n, DELETE)
    if first == 111:
        return field_line.begins(data, off, n, OPTIONS)
    return False


@kernel
def is_http2_start(data: Octets, off: int, n: int, is_first: bool) -> bool:
    """Whether HTTP/2 with prior knowledge begins here (RFC 9113 section 3.4): the client's preface, or where these are
    the first bytes of a direction the server's SETTINGS.
    """
    if n >= 3 and field_line.begins(data, off, n, PREFACE):
        return True
    if not is_first or n < 9 or int64(data[off]) or int64(data[off + 3]) != 4 or int64(data[off + 4]):
        return False
    return wire.be16(data, off + 1) % 6 == 0 and wire.be32(data, off + 5) == 0


@kernel
def copy_head(data: Octets, off: int, n: int, heads: Octets, base: int, have: int) -> tuple[int, bool]:
    """Append to a head in its slot what belongs to it: up to the empty line that ends it; a lone line feed ends a line.

    Args:
        data: The bytes to append, `n` of them from `off`.
        heads: Slots of MAX_HEAD_BYTES; this one begins at `base` and holds `have` bytes.

    Returns:
        How many bytes the slot holds then, and whether the head ends there.

    """
    last = 0 if have < 1 else int64(heads[base + have - 1])
    before = 0 if have < 2 else int64(heads[base + have - 2])
    line = 0 if last == 10 else -1 if last == 13 and before == 10 else -2  # where it begins; -2: anywhere before
    size = min(n, MAX_HEAD_BYTES - have)
    wire.require(data, off, size)
    wire.require(heads, base + have, size)
    source, target = data[off : off + size], heads[base + have : base + have + size]
    for k in range(min(len(source), len(target))):
        byte = int64(source[k])
        target[k] = byte
        if byte == 10:
            if k == line or (k == line + 1 and (last if k == 0 else int64(source[k - 1])) == 13):
                return have + k + 1, True
            line = k + 1
    return min(have + n, MAX_HEAD_BYTES), False


@kernel
def content_length(head: Octets, start: int, end: int) -> int:
    """Bytes of the body that follows this head, 0 where it does not say."""
    at = find(head, start, end, CONTENT_LENGTH)
    if at < 0:
        return 0
    at += len(CONTENT_LENGTH)
    while at < end and int64(head[at]) in (9, 32):
        at += 1
    n = 0
    while at < end and 48 <= int64(head[at]) <= 57 and n < 1 << 50:
        n = n * 10 + int64(head[at]) - 48
        at += 1
    return n


@kernel
def status_of(head: Octets, off: int) -> int:
    """The status of a response head of at least 12 bytes, 0 where it is no number."""
    status = 0
    for k in range(9, 12):
        digit = int64(head[off + k]) - 48
        if digit < 0 or digit > 9:
            return 0
        status = status * 10 + digit
    return status


@kernel
def line_has(head: Octets, start: int, end: int, name: Octets, value: Octets) -> bool:
    """Whether a header line that begins with `name` (line feed, name, colon) holds `value`, without regard to case."""
    at = start
    while True:
        at = find(head, at, end, name)
        if at < 0:
            return False
        at += len(name)
        stop = at
        while stop < end:
            if int64(head[stop]) == 10 and (stop + 1 == end or int64(head[stop + 1]) not in (9, 32)):
                break  # a line that begins with white space goes on with this one (RFC 9112 section 5.2)
            stop += 1
        if find(head, at, stop, value) >= 0:
            return True


@kernel
def take_connection(
    connections: Rows,
    sides: Rows,
    free: Rows,
    state: Rows,
    flow: int,
    client: int,
    handshake: int,
    client_walk: int,
    server_walk: int,
) -> int:
    """Take a free CONNECTION row; the caller has made sure that there is one."""
    state[FREE_CONNECTIONS] -= 1
    index = int64(free[int64(state[FREE_CONNECTIONS])])
    row = connections[index]
    row["opened_ns"] = 0
    row["request_ns"] = 0
    row["request_packet"] = 0
    row["response_packet"] = 0
    row["activity_ns"] = 0
    row["client_starts_pos"] = -1
    row["answers_before"] = 0
    row["flow"] = flow
    row["ordinal"] = 0
    row["status"] = 0
    row["http2_stream"] = 0
    row["client_stream"] = client
    row["handshake"] = handshake
    row["allowed_rsv"] = 7
    row["may_have_close"] = 0
    row["in_use"] = 1
    row["finished"] = 0
    frames.begin_side(sides[2 * index], client_walk)
    frames.begin_side(sides[2 * index + 1], server_walk)
    return index


@kernel
def enter_connection(connections: Rows, state: Rows, flow_row: Rows, index: int) -> None:
    """Make a CONNECTION row the one that its flow carries."""
    row = connections[index]
    row["answers_before"] = int64(flow_row["unanswered"])
    row["ordinal"] = int64(flow_row["ordinal"])
    flow_row["connection"] = index
    flow_row["ordinal"] = int64(flow_row["ordinal"]) + 1
    state[N_CONNECTIONS] += 1


@kernel
def begin_connection(
    connections: Rows,
    sides: Rows,
    free: Rows,
    state: Rows,
    flow_row: Rows,
    flow: int,
    client: int,
    handshake: int,
    client_walk: int,
    server_walk: int,
) -> int:
    """Take a free CONNECTION row for this flow; the caller has made sure that there is one."""
    index = take_connection(connections, sides, free, state, flow, client, handshake, client_walk, server_walk)
    enter_connection(connections, state, flow_row, index)
    return index


@kernel
def report_head(
    openings: Rows,
    values: Octets,
    state: Rows,
    kind: int,
    connection: int,
    status: int,
    heads: Octets,
    base: int,
    n: int,
) -> None:
    """Hand what is used of a complete head to Python; the caller has made sure that there is room."""
    row = openings[int64(state[N_OPENINGS])]
    row["kind"] = kind
    row["connection"] = connection
    row["status"] = status
    row["n_bytes"] = n
    used = int64(state[VALUES_USED])
    state[VALUES_USED] = field_line.copy_fields(heads, base, base + n, kind == REQUEST, values, used, row)
    state[N_OPENINGS] += 1


@kernel
def drop_head(stream: Rows, free_heads: Rows, state: Rows) -> None:
    """Give a head's slot back."""
    slot = int64(stream["head"])
    if slot >= 0:
        free_heads[int64(state[FREE_HEADS])] = slot
        state[FREE_HEADS] += 1
    stream["head"] = -1
    stream["head_bytes"] = 0


@kernel
def read_http(
    data: Octets,
    off: int,
    n: int,
    pos: int,
    ack: int,
    ts: int,
    packet: int,
    flow_row: Rows,
    flow: int,
    streams: Rows,
    direction: int,
    connections: Rows,
    sides: Rows,
    free: Rows,
    heads: Octets,
    heads_view: Octets,
    free_heads: Rows,
    openings: Rows,
    values: Octets,
    state: Rows,
) -> int:
    """Read bytes of a stream that may open a WebSocket.

    Returns:
        How many were read: fewer than `n` where what follows is another head, frames (the stream's mode tells), TLS or
        HTTP/2 (the flow's kind does).

    """
    stream, other = streams[2 * flow + direction], streams[2 * flow + 1 - direction]
    connection = int64(flow_row["connection"])
    previous = -1
    if connection >= 0 and int64(connections[connection]["handshake"]) == REJECTED:
        previous, connection = connection, -1
    if int64(stream["body_left_bytes"]) > 0:
        taken = min(n, int64(stream["body_left_bytes"]))
        stream["body_left_bytes"] = int64(stream["body_left_bytes"]) - taken
        return taken
    if int64(stream["head"]) < 0:
        first = int64(data[off])
        is_request = int64(stream["is_answering"]) == 0 and is_request_start(data, off, n)
        is_response = field_line.begins(data, off, n, HTTP_VERSION)
        if connection >= 0 and int64(connections[connection]["client_starts_pos"]) >= 0:
            if pos >= int64(connections[connection]["client_starts_pos"]) and not is_request:
                stream["mode"] = FRAMES
                return 0
        if is_response:
            stream["is_answering"] = 1
            if n >= 12 and connection < 0 and status_of(data, off) >= 200:
                flow_row["unanswered"] = max(0, int64(flow_row["unanswered"]) - 1)
                return n  # an ordinary answer: its head and its body are of no interest
        elif not is_request:
            is_plain = int64(flow_row["kind"]) == PLAIN_FLOW
            if 20 <= first <= 23 and n >= 3 and int64(data[off + 1]) == 3:
                if is_plain or records.is_record(data, off, n):
                    flow_row["kind"] = TLS_FLOW
                    return 0
            is_first = pos == 1 and int64(stream["has_syn"]) == 1
            if (is_first or n >= len(PREFACE)) and is_http2_start(data, off, n, is_first):
                flow_row["kind"] = HTTP2_FLOW
                return 0
            if is_first and not 65 <= first <= 90:
                stream["mode"] = OTHER
                other["mode"] = OTHER
            if is_plain:
                if int64(stream["has_syn"]) == 0 and not 65 <= first <= 90:
                    flow_row["kind"] = MIDSTREAM_FLOW
            return n
        state[FREE_HEADS] -= 1
        stream["head"] = int64(free_heads[int64(state[FREE_HEADS])])
        stream["head_bytes"] = 0

    slot = int64(stream["head"])
    base = slot * MAX_HEAD_BYTES
    have = int64(stream["head_bytes"])
    total, is_whole = copy_head(data, off, n, heads, base, have)
    is_request = is_request_start(heads_view, base, total)
    if not is_request and not field_line.begins(heads_view, base, total, HTTP_VERSION):
        drop_head(stream, free_heads, state)
        return n
    if not is_whole:
        stream["head_bytes"] = total
        if total == MAX_HEAD_BYTES:
            drop_head(stream, free_heads, state)
            state[SKIPPED_HEADS] += 1
        return n
    size, end = total, base + total
    read = total - have
    if is_request:
        is_upgrade = field_line.begins(heads_view, base, size, GET) and line_has(
            heads_view, base, end, UPGRADE, WEBSOCKET
        )
        if not is_upgrade:
            stream["body_left_bytes"] = content_length(heads_view, base, end)
            if line_has(heads_view, base, end, TRANSFER_ENCODING, CHUNKED):
                stream["has_chunks"] = 1
            flow_row["unanswered"] = min(1 << 20, int64(flow_row["unanswered"]) + 1)
        else:
            if connection >= 0 and int64(connections[connection]["request_packet"]) > 0:
                previous, connection = connection, -1  # asked again without an answer
            if connection < 0:
                if previous >= 0:
                    connections[previous]["finished"] = 1
                connection = begin_connection(
                    connections, sides, free, state, flow_row, flow, direction, PENDING, frames.IN_STEP, frames.IN_STEP
                )
            elif int64(connections[connection]["client_starts_pos"]) >= 0:
                connections[connection]["handshake"] = COMPLETE  # its answer was captured first
                connections[connection]["client_starts_pos"] = -1
            connections[connection]["request_packet"] = packet
            connections[connection]["request_ns"] = ts
            stream["mode"] = FRAMES
            report_head(openings, values, state, REQUEST, connection, 0, heads_view, base, size)
    elif size >= 12:
        status = status_of(heads_view, base)
        is_upgrade = status == 101 and line_has(heads_view, base, end, UPGRADE, WEBSOCKET)
        is_answer = connection >= 0 and int64(connections[connection]["handshake"]) == PENDING
        if status >= 200 or status == 0:
            flow_row["unanswered"] = max(0, int64(flow_row["unanswered"]) - 1)
            if is_answer and int64(connections[connection]["answers_before"]) > 0:
                # requests were pipelined: this answers an earlier one
                connections[connection]["answers_before"] = int64(connections[connection]["answers_before"]) - 1
                is_answer = False
        if connection < 0 and is_upgrade and (int64(other["read_pos"]) < ack or int64(other["has_chunks"])):
            # no request was read: believed only where bytes of the client are missing, still to come, or in chunks
            if previous >= 0:
                connections[previous]["finished"] = 1
            connection = begin_connection(
                connections,
                sides,
                free,
                state,
                flow_row,
                flow,
                1 - direction,
                MISSING_HANDSHAKE,
                frames.IN_STEP,
                frames.IN_STEP,
            )
            connections[connection]["client_starts_pos"] = ack
            is_answer = True
        if is_answer and (status == 101 or status >= 200 or status == 0):
            row = connections[connection]
            row["status"] = status
            row["response_packet"] = packet
            row["opened_ns"] = ts
            row["activity_ns"] = ts
            report_head(openings, values, state, RESPONSE, connection, status, heads_view, base, size)
            if status == 101:
                if int64(row["handshake"]) == PENDING:
                    row["handshake"] = COMPLETE
                row["allowed_rsv"] = 0
                if line_has(heads_view, base, end, EXTENSIONS, DEFLATE):
                    row["allowed_rsv"] = 4
                elif find(heads_view, base, end, EXTENSIONS) >= 0:
                    row["allowed_rsv"] = 7
                stream["mode"] = FRAMES
            else:
                row["handshake"] = REJECTED
                other["mode"] = HTTP
    drop_head(stream, free_heads, state)
    return read


@rare_kernel
def miss_http(
    pos: int,
    n: int,
    flow_row: Rows,
    flow: int,
    streams: Rows,
    direction: int,
    connections: Rows,
    sides: Rows,
    free_heads: Rows,
    state: Rows,
) -> None:
    """Missing bytes in a stream that may open a WebSocket: a head under way is lost, and maybe the answer."""
    stream = streams[2 * flow + direction]
    drop_head(stream, free_heads, state)
    stream["has_gap"] = 1
    stream["body_left_bytes"] = max(0, int64(stream["body_left_bytes"]) - n)
    connection = int64(flow_row["connection"])
    if connection < 0 or int64(connections[connection]["handshake"]) == REJECTED:
        return
    row = connections[connection]
    starts = int64(row["client_starts_pos"])
    if int64(row["client_stream"]) == direction:
        if 0 <= starts <= pos + n:
            stream["mode"] = FRAMES
            if pos + n > starts:
                frames.lose_step(sides[2 * connection])
    elif int64(row["handshake"]) == PENDING:
        row["handshake"] = MISSING_HANDSHAKE
        stream["mode"] = FRAMES
        frames.lose_step(sides[2 * connection + 1])
