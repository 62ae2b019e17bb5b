"""Frames without their beginning: what a segment's bytes say for a WebSocket, step found behind a gap, connections
without a captured handshake; kernels only.

Evidence is counted in bits: bytes that are no frames earn `b` bits or more about once in 2^b segments. What is worth
how much, for random bytes (RFC 6455 section 5.2):

- a frame header: 13 of 256 first bytes are allowed (RSV1 among them), half of the second bytes have the mask bit that
  this side must set or must not: 2^-5.3, `HEADER_BITS`; a Close is one byte of those 13, `CLOSE_BITS` more;
- a length in two bytes is announced by one second byte in 128, `LONG_BITS`; one in eight bytes has 34 zero bits in
  front, `VERY_LONG_BITS` of them count;
- the last frame ends where its segment ends: one length in 128, `END_BITS`; where its header came earlier, only if the
  segment carries at least so many bytes of it;
- a status that may be sent: 2,012 of 65,536, `STATUS_BITS`; text that is UTF-8 once unmasked: 0.83 bits a byte, counted
  at 3/4, `TEXT_BITS` at most.

Real bytes are not random, so less is counted than that. Of the frames in one segment only text that can be read, long
ones, a Close and the last one earn anything: numbers in a row chain as well as frames do. Bytes that repeat with a
short period earn nothing, nor does a frame with the same head and masking key as the one before unless it is such
text, nor an empty data frame. What the RFC forbids ends a chain, and what it had earned is forgotten.

So a random segment of 6 to 131 bytes is one frame about once in 5,000 times (2^-12.3), a longer one hardly ever.

Protocols that begin with a length (DNS over TCP, Kafka, SMB, MQTT's SUBSCRIBE) are unmasked frames by design, every
time. A masked one would need a length that counts four bytes too few, with its top bit set: `is_recognised` therefore
asks for `MASKED_BITS` from the side that masks, whatever the other one earned. One run of segments of random bytes
passes for a connection with a probability below 2^-40 where both directions are random, and below 2^-24 where one is
made of lengths. Each stream has `MAX_MISSES` tries, so for a flow that is 2^-35 and 2^-19 (benchmarks/other_traffic.py
measures it).
"""

from analyzer.capture import frames, handshake, wire
from analyzer.capture.flowtable import FRAMES, OTHER
from analyzer.capture.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    EMPTY_CLOSE,
    IN_STEP,
    NO_CLOSE,
    NO_MESSAGE,
    OUT_OF_STEP,
    PONG,
    PROVEN,
    STATUS_CLOSE,
    TEXT,
    UNCHECKED,
    UNKNOWN_MESSAGE,
    WALKED_OVER,
)
from analyzer.kernel import kernel, rare_kernel
from analyzer.model import Octets, Rows, int64

HEADER_BITS, CLOSE_BITS, LONG_BITS, VERY_LONG_BITS, END_BITS, STATUS_BITS, TEXT_BITS = 5, 3, 7, 16, 7, 5, 8

SURE_END_BYTES = 128
"""Payload that must stand in a segment for its end to count as the end of a frame that began earlier."""

MAX_FRAME_BYTES = 1 << 30
"""Longest frame that is believed before a side is proven."""

MAX_PERIOD, MAX_LOOKED_BYTES = 8, 64
"""Longest pattern that is recognised as one, and how many bytes of a segment are looked at for it."""

BROKEN = -1
"""Instead of bits: these bytes are no frames."""

START_BITS = 12
"""One frame that fills its segment, or a long one: enough to follow a side of which nothing was known before."""

STEP_BITS, CHAIN_BITS, CLOSING_BITS = 25, 17, 15
"""What it takes behind a gap: anywhere; where a segment ends with a frame; where it ends with a valid Close."""

MASKED_BITS, BOTH_BITS, ALONE_BITS = 24, 40, 60
"""What it takes to recognise a connection: of the side that masks, of both together, of the masking side alone."""

SERVER_BITS = 24
"""As much as the other side may add to `BOTH_BITS`."""

MAX_MISSES = 32
"""Segments of a stream that may say nothing before it is not looked at any more."""

MAX_CANDIDATES = 1 << 14
"""TCP connections under observation at the same time (14 MB)."""

RSV1 = 4

GOES_ON, FRESH = 0, 1
"""Whether `weigh` goes on from where the walk stands. Passed as `int64(...)`: Numba compiles once more per literal."""

ALIGNED, CLOSES, HAS_CLOSE = 1, 2, 4
"""Bits of what `weigh` says besides: the segment ends between two frames; with a whole Close; has one inside."""

NOT_JUDGED, SWALLOWED = -1, -2
"""`state[JUDGED]`, else the SIDE that a span in a stream of unknown kind goes to."""


@kernel
def peek(side: Rows, have: int, data: Octets, off: int, k: int) -> int:
    """Byte `k` of a header whose first `have` bytes came with an earlier segment."""
    if k < have:
        return int64(side["header"][k])
    return int64(data[off + k - have])


@kernel
def may_be_sent(code: int) -> bool:
    """Whether a Close may carry this status (RFC 6455 section 7.4, IANA)."""
    return (1000 <= code <= 1014 and not 1004 <= code <= 1006) or 3000 <= code <= 4999


@kernel
def is_readable(data: Octets, off: int, n: int, mask: int) -> bool:
    """Whether text begins with what can be read; one pattern over all would unmask to zeros."""
    for k in range(min(n, 4)):
        byte = int64(data[off + k]) ^ frames.mask_byte(mask, k)
        if byte < 32 and byte != 9 and byte != 10 and byte != 13:
            return False
    return True


@kernel
def repeats(data: Octets, off: int, n: int) -> bool:
    """Whether the same few bytes come over and over."""
    end = min(n, MAX_LOOKED_BYTES)
    for period in range(1, MAX_PERIOD + 1):
        if end - period < MAX_PERIOD:
            return False
        k = period
        while k < end and int64(data[off + k]) == int64(data[off + k - period]):
            k += 1
        if k == end:
            return True
    return False


@rare_kernel
def weigh(
    data: Octets, off: int, n: int, side: Rows, is_fresh: int, is_client: bool, allowed_rsv: int
) -> tuple[int, int, int, int, int]:
    """How much these bytes of one segment say for frames.

    Args:
        side: Where the walk stands; looked at only where `is_fresh` does not say that a frame begins here.
        allowed_rsv: Reserved bits that a message's first frame may have; RSV1 at most is believed.

    Returns:
        Bits, or BROKEN; and where the walk would then stand: payload bytes still to come, header bytes read, message
        open; last ALIGNED, CLOSES and HAS_CLOSE.

    """
    left, have, message = 0, 0, UNKNOWN_MESSAGE
    is_closed = False
    last_first, last_length, last_mask = -1, -1, -1
    if not is_fresh:
        left, have, message = int64(side["skip_bytes"]), int64(side["header_bytes"]), int64(side["message"])
        is_closed = int64(side["close"]) != NO_CLOSE
        if left > 0 and int64(side["opcode"]) <= BINARY:
            message = NO_MESSAGE if int64(side["final"]) else UNCHECKED
        if int64(side["frames"]) > 0:
            last_first, last_length = int64(side["opcode"]), int64(side["frame_bytes"])
            last_mask = int64(side["mask"]) if int64(side["masked"]) else 0
    bits, flags, i = 0, 0, 0
    while i < n:
        if left > 0:
            take = min(left, n - i)
            i += take
            left -= take
            if left == 0 and i == n:
                flags |= ALIGNED
                if take >= SURE_END_BYTES:
                    bits += END_BITS
            continue
        if is_closed:
            return BROKEN, 0, 0, 0, 0
        at = off + i
        available = have + n - i
        first = peek(side, have, data, at, 0)
        opcode, rsv = first & 15, (first >> 4) & 7
        if opcode > PONG or BINARY < opcode < CLOSE or rsv & ~(allowed_rsv & RSV1):
            return BROKEN, 0, 0, 0, 0
        if (rsv and opcode == CONTINUATION) or (opcode >= CLOSE and first & 0xC0 != 0x80):
            return BROKEN, 0, 0, 0, 0
        if available < 2:
            have = available
            break
        second = peek(side, have, data, at, 1)
        if (second >> 7 == 1) != is_client or (opcode >= CLOSE and second & 127 > 125):
            return BROKEN, 0, 0, 0, 0
        length, size = second & 127, 2
        if length == 126:
            size = 4
        elif length == 127:
            size = 10
        stated = size
        if is_client:
            size += 4
        if available < size:
            have = available
            break
        worth = 0
        if stated > 2:
            length = 0
            for k in range(2, stated):
                length = (length << 8) | peek(side, have, data, at, k)
            worth = HEADER_BITS + LONG_BITS
            if stated > 4:
                worth += VERY_LONG_BITS
            if length < (126 if stated == 4 else 65536) or length > MAX_FRAME_BYTES:
                return BROKEN, 0, 0, 0, 0
        mask = 0
        if is_client:
            for k in range(stated, size):
                mask = (mask << 8) | peek(side, have, data, at, k)
        i += size - have
        have = 0
        if opcode == CONTINUATION and message == NO_MESSAGE:
            return BROKEN, 0, 0, 0, 0
        if (opcode == TEXT or opcode == BINARY) and message != NO_MESSAGE and message != UNKNOWN_MESSAGE:
            return BROKEN, 0, 0, 0, 0
        if opcode <= BINARY:
            message = NO_MESSAGE if first & 128 else UNCHECKED
        inside = min(length, n - i)
        text_at = -1
        if opcode == CLOSE:
            worth = HEADER_BITS + CLOSE_BITS
            flags |= HAS_CLOSE
            is_closed = True
            if length == 1:
                return BROKEN, 0, 0, 0, 0
            if inside >= 2:
                if not may_be_sent(wire.be16(data, off + i) ^ (mask >> 16)):
                    return BROKEN, 0, 0, 0, 0
                worth += STATUS_BITS
                text_at = 2
        elif opcode == TEXT and rsv == 0:
            text_at = 0
        if text_at >= 0:
            n_text = inside - text_at
            follows, _ = frames.follow_utf8(data, off + i + text_at, n_text, mask, text_at, 0, 0)
            if follows < 0 or (follows > 0 and opcode == TEXT and inside == length and first & 128):
                return BROKEN, 0, 0, 0, 0
            if opcode == CLOSE:
                worth += min(TEXT_BITS, 3 * n_text // 4)
            elif n_text > 0 and is_readable(data, off + i, n_text, mask):
                worth = max(worth, HEADER_BITS) + min(TEXT_BITS, 3 * n_text // 4)
                last_first = -1  # the same head again is no pattern then
        is_new = opcode != last_first or length != last_length or mask != last_mask
        counts = is_new and (length > 0 or opcode >= CLOSE)
        last_first, last_length, last_mask = opcode, length, mask
        i += inside
        left = length - inside
        if left == 0 and i == n:
            flags |= ALIGNED
            worth = max(worth, HEADER_BITS) + END_BITS
            if opcode == CLOSE:
                flags |= CLOSES
        if counts:
            bits += worth
    if bits > 0 and repeats(data, off, n):
        bits = 0
    return bits, left, have, message, flags


@rare_kernel
def forget_step(side: Rows) -> None:
    """What looked like frames was none: with it goes a Close that was found there."""
    if int64(side["lost"]) == 0:
        missing = int64(side["gap_bytes"])
        frames.begin_side(side, OUT_OF_STEP)
        side["gap_bytes"] = missing
        return
    if int64(side["unsure_close"]):
        side["close"] = NO_CLOSE
        side["close_end_pos"] = 0
        side["close_ack_pos"] = 0
        side["close_packet"] = 0
        side["close_anomalies"] = 0
        side["body_bytes"] = 0
        side["unsure_close"] = 0
    frames.lose_step(side)


@kernel
def keep_on_trial(
    side: Rows, data: Octets, off: int, n: int, total: int, left: int, have: int, message: int, is_fresh: bool
) -> None:
    """Remember where the walk would stand if these bytes were frames, without counting any."""
    had = 0 if is_fresh else int64(side["header_bytes"])
    begin = 0
    if have > n:  # the whole segment went on with a header that began earlier
        begin = had
    for k in range(begin, have):
        side["header"][k] = int64(data[off + n - have + k])
    side["score"] = total
    side["skip_bytes"] = left
    side["header_bytes"] = have
    side["message"] = message
    side["opcode"] = WALKED_OVER


@rare_kernel
def find_step(data: Octets, off: int, n: int, side: Rows, is_client: bool, allowed_rsv: int) -> bool:
    """Whether the walk may read this segment: for a side that is out of step, or not yet proven to be in step.

    On a side that lost its step to a gap it takes more than on one of which nothing was known before. Measured on
    random bytes, such a side is taken to be in step once in two million segments of 8 bytes (2^-21, a Close with
    status; less often where there is a reason), once in 2^16 of exactly 6 bytes from the client or 2 from the server
    (an empty Close), and less than once in a million of any other size (2^-20 to 2^-23, seldom with a Close).
    """
    if int64(side["walk"]) == IN_STEP:
        score = int64(side["score"])
        bits, left, have, message, flags = weigh(data, off, n, side, int64(GOES_ON), is_client, allowed_rsv)
        is_overtaken = False
        if bits == 0 and score < MASKED_BITS:
            other, _, _, _, _ = weigh(data, off, n, side, int64(FRESH), is_client, allowed_rsv)
            is_overtaken = other > score  # frames begin here, not in what a frame was thought to go on with
        if bits >= 0 and not is_overtaken:
            side["score"] = min(PROVEN, score + bits)
            if flags & HAS_CLOSE:
                side["unsure_close"] = 1
            return True
        forget_step(side)
    total, left, have, message, flags = BROKEN, 0, 0, UNKNOWN_MESSAGE, 0
    if int64(side["score"]) > 0:
        total, left, have, message, flags = weigh(data, off, n, side, int64(GOES_ON), is_client, allowed_rsv)
        if total >= 0:
            total += int64(side["score"])
    is_fresh = False
    fresh, fresh_left, fresh_have, fresh_message, fresh_flags = weigh(
        data, off, n, side, int64(FRESH), is_client, allowed_rsv
    )
    if fresh > total:
        is_fresh = True
        total, left, have, message, flags = fresh, fresh_left, fresh_have, fresh_message, fresh_flags
    if total < 0:
        side["score"] = 0
        side["skip_bytes"] = 0
        side["header_bytes"] = 0
        return False
    is_taken = total >= (STEP_BITS if int64(side["lost"]) else START_BITS)
    is_taken |= flags & ALIGNED != 0 and total >= CHAIN_BITS
    is_taken |= flags & CLOSES != 0 and total >= CLOSING_BITS
    if not is_taken:
        keep_on_trial(side, data, off, n, total, left, have, message, is_fresh)
        return False
    if is_fresh:
        side["skip_bytes"] = 0
        side["header_bytes"] = 0
        side["message"] = UNKNOWN_MESSAGE
    if int64(side["lost"]):
        side["anomalies"] = int64(side["anomalies"]) | frames.RESYNCHRONIZED
    side["walk"] = IN_STEP
    side["score"] = min(PROVEN, total)
    if flags & HAS_CLOSE:
        side["unsure_close"] = 1
    return True


@kernel
def is_closed_well(side: Rows) -> bool:
    """Whether a side that was followed ended with a Close that may be sent."""
    if int64(side["walk"]) != IN_STEP or int64(side["score"]) < CLOSING_BITS:
        return False
    if int64(side["close"]) == EMPTY_CLOSE:
        return True
    code = (int64(side["body"][0]) << 8) | int64(side["body"][1])
    return int64(side["close"]) == STATUS_CLOSE and may_be_sent(code)


@kernel
def is_recognised(client: Rows, server: Rows) -> bool:
    """Whether two sides without a handshake are a WebSocket: masked frames one way, and unmasked ones the other.

    A pair of Closes is enough even where nothing came before: 2^-32 or less for two random segments that follow each
    other, of exactly 6 and 2 bytes or more.
    """
    masked, unmasked = int64(client["score"]), int64(server["score"])
    if masked >= ALONE_BITS:
        return True
    has_both = masked >= MASKED_BITS and unmasked >= START_BITS
    if has_both and masked + min(unmasked, SERVER_BITS) >= BOTH_BITS:
        return True
    return is_closed_well(client) and is_closed_well(server)


@kernel
def drop_candidate(flow_row: Rows, connections: Rows, free: Rows, state: Rows) -> None:
    """Give back the CONNECTION of a flow that turned out to be none."""
    index = int64(flow_row["candidate"])
    if index < 0:
        return
    connections[index]["in_use"] = 0
    free[int64(state[handshake.FREE_CONNECTIONS])] = index
    state[handshake.FREE_CONNECTIONS] += 1
    state[handshake.N_CANDIDATES] -= 1
    flow_row["candidate"] = -1


@rare_kernel
def miss(flow_row: Rows, flow: int, streams: Rows, direction: int, connections: Rows, free: Rows, state: Rows) -> None:
    """Count a segment that said nothing; too many on a side, and the flow is not looked at any more."""
    stream, other = streams[2 * flow + direction], streams[2 * flow + 1 - direction]
    stream["misses"] = min(MAX_MISSES, int64(stream["misses"]) + 1)
    if int64(stream["misses"]) < MAX_MISSES:
        return
    candidate = int64(flow_row["candidate"])
    if candidate >= 0 and int64(connections[candidate]["client_stream"]) == direction:
        drop_candidate(flow_row, connections, free, state)
        other["misses"] = MAX_MISSES
    if int64(other["misses"]) < MAX_MISSES:
        return
    drop_candidate(flow_row, connections, free, state)
    has_http = int64(stream["is_answering"]) or int64(other["is_answering"]) or int64(flow_row["unanswered"]) > 0
    if not has_http and int64(flow_row["ordinal"]) == 0:  # else another request may follow
        stream["mode"] = OTHER
        other["mode"] = OTHER


@rare_kernel
def begin_candidate(
    data: Octets,
    off: int,
    n: int,
    flow_row: Rows,
    flow: int,
    direction: int,
    connections: Rows,
    sides: Rows,
    free: Rows,
    state: Rows,
) -> int:
    """Take a flow under observation if these bytes look like frames of either side; the SIDE that they go to."""
    if n < 2:
        return NOT_JUDGED
    is_client = int64(data[off + 1]) >= 128
    bits, _, _, _, _ = weigh(data, off, n, sides[0], int64(FRESH), is_client, int64(RSV1))
    if bits < START_BITS:
        return NOT_JUDGED
    if int64(state[handshake.N_CANDIDATES]) >= MAX_CANDIDATES:
        state[handshake.SKIPPED_CANDIDATES] += 1
        return NOT_JUDGED
    index = handshake.take_connection(
        connections,
        sides,
        free,
        state,
        flow,
        direction if is_client else 1 - direction,
        handshake.MISSING_HANDSHAKE,
        OUT_OF_STEP,
        OUT_OF_STEP,
    )
    state[handshake.N_CANDIDATES] += 1
    connections[index]["ordinal"] = int64(flow_row["ordinal"])
    flow_row["candidate"] = index
    mine = 2 * index + (0 if is_client else 1)
    find_step(data, off, n, sides[mine], is_client, int64(RSV1))
    return mine


@rare_kernel
def judge(
    data: Octets,
    off: int,
    n: int,
    flow_row: Rows,
    flow: int,
    streams: Rows,
    direction: int,
    connections: Rows,
    sides: Rows,
    free: Rows,
    state: Rows,
) -> int:
    """Look at one segment of a stream that may carry frames without a handshake.

    Returns:
        The SIDE whose walk is to read it, or NOT_JUDGED.

    """
    stream = streams[2 * flow + direction]
    candidate = int64(flow_row["candidate"])
    mine = NOT_JUDGED
    if candidate >= 0:
        is_client = int64(connections[candidate]["client_stream"]) == direction
        mine = 2 * candidate + (0 if is_client else 1)
        if find_step(data, off, n, sides[mine], is_client, int64(RSV1)):
            return mine
        other = int64(sides[mine ^ 1]["score"])
        if int64(sides[mine]["walk"]) == OUT_OF_STEP and n >= 2:
            bits, _, _, _, _ = weigh(data, off, n, sides[mine], int64(FRESH), not is_client, int64(RSV1))
            if other == 0 or bits >= max(START_BITS, other + 1):
                drop_candidate(flow_row, connections, free, state)  # or it was taken for the wrong side
                candidate = -1
    if candidate < 0:
        mine = begin_candidate(data, off, n, flow_row, flow, direction, connections, sides, free, state)
        if mine >= 0:
            if int64(flow_row["kind"]) == handshake.PLAIN_FLOW and int64(stream["has_syn"]) == 0:
                flow_row["kind"] = handshake.MIDSTREAM_FLOW
            return mine
    miss(flow_row, flow, streams, direction, connections, free, state)
    return NOT_JUDGED


@rare_kernel
def settle(
    mine: int, flow_row: Rows, flow: int, streams: Rows, connections: Rows, sides: Rows, free: Rows, state: Rows
) -> None:
    """Draw the conclusion from bytes that a candidate's walk has read."""
    side, other = sides[mine], sides[mine ^ 1]
    if int64(side["anomalies"]) & frames.ALL_VIOLATIONS:
        side["lost"] = 0
        forget_step(side)
        state[handshake.JUDGED] = SWALLOWED
        if int64(other["score"]) == 0:
            drop_candidate(flow_row, connections, free, state)
        return
    index = mine >> 1
    if is_recognised(sides[2 * index], sides[2 * index + 1]):
        flow_row["candidate"] = -1
        state[handshake.N_CANDIDATES] -= 1
        handshake.enter_connection(connections, state, flow_row, index)
        streams[2 * flow]["mode"] = FRAMES
        streams[2 * flow + 1]["mode"] = FRAMES
