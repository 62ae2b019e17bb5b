"""The WebSocket frame walk and the Close body (RFC 6455 section 5): ordered bytes in, counters and Closes out.

Keeps no payload but a Close's. Never stops at what the RFC forbids: it goes on by the length the frame states and
notes the anomaly. After missing bytes that may have hidden a frame header it is out of step, says so, and reads nothing
until `midstream` has found where frames begin again.
"""

import sys
from typing import NamedTuple

from analyzer.capture import wire
from analyzer.kernel import kernel, rare_kernel
from analyzer.model import (
    LOCAL_ONLY,
    MAX_CLOSE_BODY_BYTES,
    RECEIVED,
    VIOLATIONS,
    Anomaly,
    Octets,
    Received,
    Rows,
    int64,
    is_illegal_on_wire,
)

IN_STEP, OUT_OF_STEP = 0, 1
"""SIDE `walk`."""

PROVEN = 64
"""SIDE `score` of a side that is known to be in step; below, `midstream` looks at every segment first."""

NO_MESSAGE, UNCHECKED, CHECKED_TEXT, UNKNOWN_MESSAGE = 0, 1, 2, 3
"""SIDE `message`: what kind of message is open; unknown after missing bytes."""

NO_CLOSE = RECEIVED.index(Received.NONE)
STATUS_CLOSE = RECEIVED.index(Received.STATUS)
EMPTY_CLOSE = RECEIVED.index(Received.EMPTY)
SHORT_CLOSE = RECEIVED.index(Received.SHORT)
CUT_CLOSE = RECEIVED.index(Received.CUT)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG, WALKED_OVER = 0, 1, 2, 8, 9, 10, 15

UNMASKED_CLIENT = int(Anomaly.UNMASKED_CLIENT)
MASKED_SERVER = int(Anomaly.MASKED_SERVER)
RESERVED_OPCODE = int(Anomaly.RESERVED_OPCODE)
RESERVED_BITS = int(Anomaly.RESERVED_BITS)
RSV_ON_CONTROL = int(Anomaly.RSV_ON_CONTROL)
NON_MINIMAL_LENGTH = int(Anomaly.NON_MINIMAL_LENGTH)
LENGTH_TOP_BIT = int(Anomaly.LENGTH_TOP_BIT)
CONTROL_TOO_LONG = int(Anomaly.CONTROL_TOO_LONG)
FRAGMENTED_CONTROL = int(Anomaly.FRAGMENTED_CONTROL)
ORPHAN_CONTINUATION = int(Anomaly.ORPHAN_CONTINUATION)
INTERRUPTED_MESSAGE = int(Anomaly.INTERRUPTED_MESSAGE)
ONE_BYTE_BODY = int(Anomaly.ONE_BYTE_BODY)
REASON_TOO_LONG = int(Anomaly.REASON_TOO_LONG)
DATA_AFTER_CLOSE = int(Anomaly.DATA_AFTER_CLOSE)
SECOND_CLOSE = int(Anomaly.SECOND_CLOSE)
TEXT_NOT_UTF8 = int(Anomaly.TEXT_NOT_UTF8)
RESYNCHRONIZED = int(Anomaly.RESYNCHRONIZED)
ALL_VIOLATIONS = int(VIOLATIONS)
MAX_BODY = MAX_CLOSE_BODY_BYTES
MOST_BYTES = 2**63 - 1
MAX_HEADER = 14
LITTLE_ENDIAN = sys.byteorder == "little"
TOP_BITS = -0x7F7F7F7F7F7F7F80
"""0x8080808080808080 as the signed number with the same bits."""


class CloseBody(NamedTuple):
    """What a Close frame says: `status` is None where no two bytes of status came."""

    status: int | None
    reason: str
    anomalies: Anomaly


def parse_close_body(body: bytes) -> CloseBody:
    """Split the unmasked payload of a Close frame (RFC 6455 section 5.5.1).

    Never raises: what the RFC forbids comes back in `anomalies`, because a passive observer has to count malformed
    closes too.

    Args:
        body: Payload after unmasking, 0 to 125 bytes; longer is accepted and left to the caller.

    """
    if not body:
        return CloseBody(None, "", Anomaly.NONE)
    if len(body) == 1:
        return CloseBody(None, "", Anomaly.ONE_BYTE_BODY)
    status = int.from_bytes(body[:2], "big")
    anomalies = Anomaly.NONE
    if status in LOCAL_ONLY:
        anomalies |= Anomaly.LOCAL_CODE_ON_WIRE
    elif is_illegal_on_wire(status):
        anomalies |= Anomaly.CODE_OUT_OF_RANGE
    # Truncating at 123 bytes often cuts a character in half; keep what is readable.
    try:
        reason = body[2:].decode("utf-8")
    except UnicodeDecodeError:
        reason = body[2:].decode("utf-8", "backslashreplace")
        anomalies |= Anomaly.REASON_NOT_UTF8
    return CloseBody(status, reason, anomalies)


@kernel
def begin_side(side: Rows, walk: int) -> None:
    """Make a SIDE row ready for the first byte behind the opening handshake."""
    side["skip_bytes"] = 0
    side["frames"] = 0
    side["messages"] = 0
    side["payload_bytes"] = 0
    side["message_bytes"] = 0
    side["largest_bytes"] = 0
    side["gap_bytes"] = 0
    side["anomalies"] = 0
    side["violation_packet"] = 0
    side["ping_ns"] = 0
    side["close_packet"] = 0
    side["close_ns"] = 0
    side["close_end_pos"] = 0
    side["close_ack_pos"] = 0
    side["close_bytes"] = 0
    side["close_anomalies"] = 0
    side["utf8_bounds"] = 0
    side["utf8_left"] = 0
    side["walk"] = walk
    side["close"] = NO_CLOSE
    side["opcode"] = 0
    side["final"] = 1
    side["message"] = NO_MESSAGE if walk == IN_STEP else UNKNOWN_MESSAGE
    side["masked"] = 0
    side["lost"] = 0
    side["score"] = PROVEN if walk == IN_STEP else 0
    side["unsure_close"] = 0
    side["header_bytes"] = 0
    side["body_bytes"] = 0


@kernel
def note(side: Rows, bits: int, packet: int) -> None:
    """Set anomaly bits, and remember the first packet for which a receiver fails the connection."""
    side["anomalies"] = int64(side["anomalies"]) | bits
    if bits & ALL_VIOLATIONS and int64(side["violation_packet"]) == 0:
        side["violation_packet"] = packet


@kernel
def header_size(header: Octets, n: int) -> int:
    """How many bytes this frame header takes in all, as far as its first `n` bytes tell."""
    if n < 2:
        return 2
    second = int64(header[1])
    size = 2
    if second & 127 == 126:
        size = 4
    elif second & 127 == 127:
        size = 10
    if second & 128:
        size += 4
    return size


@kernel
def begin_frame(
    side: Rows, connection: Rows, is_client: bool, ts: int, packet: int, first: int, second: int, length: int
) -> None:
    """Judge a complete header and set the walk for its payload (RFC 6455 section 5.2).

    Args:
        first: The header's first byte.
        second: Its second.
        length: The payload length it states, negative where a 64-bit one has its top bit set.
    """
    opcode, is_final, rsv = first & 15, first >> 7, (first >> 4) & 7
    is_masked = second >> 7
    bits = 0
    if length < 0:
        bits |= LENGTH_TOP_BIT
    elif (second & 127 == 126 and length < 126) or (second & 127 == 127 and length < 65536):
        bits |= NON_MINIMAL_LENGTH
    side["masked"] = is_masked
    if is_client and not is_masked:
        bits |= UNMASKED_CLIENT
    if not is_client and is_masked:
        bits |= MASKED_SERVER
    if opcode >= 8:
        if length > 125 or length < 0:
            bits |= CONTROL_TOO_LONG
            if opcode == CLOSE:
                bits |= REASON_TOO_LONG
        if not is_final:
            bits |= FRAGMENTED_CONTROL
        if rsv:
            bits |= RSV_ON_CONTROL
        if opcode > PONG:
            bits |= RESERVED_OPCODE
    else:
        if opcode > BINARY:
            bits |= RESERVED_OPCODE
        allowed = int64(connection["allowed_rsv"])
        if opcode == CONTINUATION:
            allowed &= 3  # RSV1 belongs to a message's first frame (RFC 7692 section 6)
        if rsv & ~allowed:
            bits |= RESERVED_BITS
        if opcode == CONTINUATION:
            if int64(side["message"]) == NO_MESSAGE:
                bits |= ORPHAN_CONTINUATION
                side["message"] = UNCHECKED
                side["message_bytes"] = 0
        elif opcode <= BINARY:
            if int64(side["message"]) == UNCHECKED or int64(side["message"]) == CHECKED_TEXT:
                bits |= INTERRUPTED_MESSAGE
            side["message"] = CHECKED_TEXT if opcode == TEXT and rsv == 0 else UNCHECKED
            side["message_bytes"] = 0
            side["utf8_left"] = 0
        if int64(side["close"]) != NO_CLOSE:
            bits |= DATA_AFTER_CLOSE
    side["opcode"] = opcode
    side["final"] = is_final
    side["frames"] = int64(side["frames"]) + 1
    if opcode == CLOSE:
        if int64(side["close"]) != NO_CLOSE:
            bits |= SECOND_CLOSE
            side["opcode"] = WALKED_OVER  # only the first Close counts (section 7.1.5)
        else:
            if length == 1:
                bits |= ONE_BYTE_BODY
            side["close"] = CUT_CLOSE  # until its body has been read
            connection["may_have_close"] = 1
            side["close_bytes"] = length
            side["close_packet"] = packet
            side["close_ns"] = ts
            side["close_anomalies"] = bits
            side["body_bytes"] = 0
    elif opcode == PING and int64(side["ping_ns"]) == 0:
        side["ping_ns"] = ts
    if bits:
        note(side, bits, packet)
    if length < 0:
        lose_step(side)
    else:
        side["skip_bytes"] = length


@kernel
def add_length(total: int, length: int) -> int:
    """Their sum, or the largest number where frames claim more than there can be."""
    return MOST_BYTES if length > MOST_BYTES - total else total + length


@kernel
def lose_step(side: Rows) -> None:
    """From here on nobody knows where a frame begins."""
    side["walk"] = OUT_OF_STEP
    side["lost"] = 1
    side["score"] = 0
    side["skip_bytes"] = 0
    side["header_bytes"] = 0
    side["message"] = UNKNOWN_MESSAGE


@kernel
def end_frame(side: Rows, other: Rows, pos: int, ack: int, packet: int) -> None:
    """Book a frame whose last byte has passed."""
    opcode = int64(side["opcode"])
    if opcode == CLOSE:
        length = int64(side["close_bytes"])
        if int64(side["body_bytes"]) == min(length, MAX_BODY):
            if length == 0:
                side["close"] = EMPTY_CLOSE
            elif length == 1:
                side["close"] = SHORT_CLOSE
            else:
                side["close"] = STATUS_CLOSE
        side["close_end_pos"] = pos
        side["close_ack_pos"] = ack
    elif opcode == PONG:
        other["ping_ns"] = 0
    elif opcode <= BINARY and int64(side["final"]):
        if int64(side["message"]) == CHECKED_TEXT and int64(side["utf8_left"]):
            note(side, TEXT_NOT_UTF8, packet)
        side["messages"] = int64(side["messages"]) + 1
        side["largest_bytes"] = max(int64(side["largest_bytes"]), int64(side["message_bytes"]))
        side["message"] = NO_MESSAGE


@kernel
def mask_byte(mask: int, index: int) -> int:
    """Byte of the masking key for this byte of the payload (RFC 6455 section 5.3)."""
    return (mask >> (24 - 8 * (index & 3))) & 255


@kernel
def is_ascii(data: Octets, words: Rows, off: int, n: int, mask: int, done: int) -> bool:
    """Whether these payload bytes are all below 0x80 once unmasked; `done` bytes of the payload came before them.

    Looks at the top bits only, eight at a time: 0.01 us a message of 100 bytes, where a loop over bytes took 0.1 us.
    """
    first, last = off >> 3, (off + n - 1) >> 3
    if n <= 0 or last >= len(words) or not LITTLE_ENDIAN:
        for k in range(n):
            if (int64(data[off + k]) ^ mask_byte(mask, done + k)) & 0x80:
                return False
        return True
    turn = 8 * ((done - off) & 3)  # a word's first byte is under this bit of the mask
    turned = (int64(mask) << turn) | (int64(mask) >> (32 - turn))
    pattern = ((turned >> 24) & 255) | ((turned >> 8) & 0xFF00) | ((turned & 0xFF00) << 8) | ((turned & 255) << 24)
    pattern |= pattern << 32
    before, behind = 8 * (off & 7), 8 * (7 - ((off + n - 1) & 7))  # bits of the first and last word that are not meant
    head = int64(words[first]) ^ pattern
    if first == last:
        return ((head << behind) >> (before + behind)) & TOP_BITS == 0
    tops = (head >> before) | ((int64(words[last]) ^ pattern) << behind)
    between = words[first + 1 : last]  # so its bounds are checked once, not for every word
    for k in range(len(between)):
        tops |= int64(between[k]) ^ pattern
    return tops & TOP_BITS == 0


@rare_kernel
def follow_utf8(data: Octets, off: int, n: int, mask: int, done: int, left: int, bounds: int) -> tuple[int, int]:
    """Read on in UTF-8 (RFC 3629 section 4) that is masked; `done` bytes of the payload came before.

    Args:
        left: How many bytes of a character are still to come.
        bounds: What the next of them may be, the lowest byte and the highest.

    Returns:
        The same two behind these bytes; -1 instead of `left` where they are no UTF-8.

    """
    for i in range(n):
        byte = int64(data[off + i]) ^ mask_byte(mask, done + i)
        if left:
            if byte < bounds >> 8 or byte > bounds & 255:
                return -1, bounds
            left -= 1
            bounds = 0x80BF
        elif byte >= 0x80:
            bounds = 0x80BF
            if 0xC2 <= byte <= 0xDF:
                left = 1
            elif 0xE0 <= byte <= 0xEF:
                left = 2
                if byte == 0xE0:
                    bounds = 0xA0BF
                elif byte == 0xED:
                    bounds = 0x809F
            elif 0xF0 <= byte <= 0xF4:
                left = 3
                if byte == 0xF0:
                    bounds = 0x90BF
                elif byte == 0xF4:
                    bounds = 0x808F
            else:
                return -1, bounds
    return left, bounds


@kernel
def check_text(data: Octets, words: Rows, off: int, n: int, side: Rows, done: int, packet: int) -> None:
    """Validate text payload as UTF-8 over any segmentation; notes the first error."""
    left = int64(side["utf8_left"])
    mask = int64(side["mask"]) if int64(side["masked"]) else 0
    if left == 0 and is_ascii(data, words, off, n, mask, done):
        return
    left, bounds = follow_utf8(data, off, n, mask, done, left, int64(side["utf8_bounds"]))
    if left < 0:
        note(side, TEXT_NOT_UTF8, packet)
        side["message"] = UNCHECKED
        left = 0
    side["utf8_left"] = left
    side["utf8_bounds"] = bounds


@kernel
def walk(
    data: Octets,
    words: Rows,
    off: int,
    n: int,
    pos: int,
    ack: int,
    ts: int,
    packet: int,
    side: Rows,
    other: Rows,
    connection: Rows,
    is_client: bool,
) -> None:
    """Walk over bytes that are next in order on one side of a connection.

    Args:
        data: Buffer that holds them, `n` bytes from `off`; their first one stands at stream position `pos`.
        words: The same buffer as int64.
        ack: Position of the other side's stream that their segment acknowledges.
        side: SIDE row of the sender; `other` that of the receiver.

    """
    if int64(side["walk"]) == OUT_OF_STEP:
        return
    i = 0
    while i < n:
        left = int64(side["skip_bytes"])
        if left > 0:
            take = min(left, n - i)
            opcode = int64(side["opcode"])
            if opcode == CLOSE:
                kept = int64(side["body_bytes"])
                mask = int64(side["mask"]) if int64(side["masked"]) else 0
                done = int64(side["close_bytes"]) - left
                if kept == done:  # else part of the body is missing
                    for k in range(min(take, MAX_BODY - kept)):
                        side["body"][kept + k] = int64(data[off + i + k]) ^ mask_byte(mask, done + k)
                    side["body_bytes"] = kept + min(take, MAX_BODY - kept)
                side["close_packet"] = max(int64(side["close_packet"]), packet)
                side["close_ns"] = max(int64(side["close_ns"]), ts)
            elif opcode <= BINARY:
                done = int64(side["frame_bytes"]) - left
                if int64(side["message"]) == CHECKED_TEXT:
                    check_text(data, words, off + i, take, side, done, packet)
            side["skip_bytes"] = left - take
            i += take
            if take == left:
                end_frame(side, other, pos + i, ack, packet)
            continue
        have = int64(side["header_bytes"])
        if have == 0 and n - i >= MAX_HEADER:
            first, second = int64(data[off + i]), int64(data[off + i + 1])
            length = second & 127
            i += 2
            if length == 126:
                length = wire.be16(data, off + i)
                i += 2
            elif length == 127:
                length = wire.be64(data, off + i)
                i += 8
            if second & 128:
                side["mask"] = wire.be32(data, off + i)
                i += 4
        else:
            header = side["header"]
            need = header_size(header, have)
            while have < need and i < n:
                header[have] = int64(data[off + i])
                have += 1
                i += 1
                if have == 2:
                    need = header_size(header, have)
            if have < need:
                side["header_bytes"] = have
                return
            side["header_bytes"] = 0
            first, second = int64(header[0]), int64(header[1])
            length = second & 127
            if length >= 126:
                length = 0
                for k in range(2, 4 if second & 127 == 126 else 10):
                    length = (length << 8) | int64(header[k])
            if second & 128:
                mask = 0
                for k in range(need - 4, need):
                    mask = (mask << 8) | int64(header[k])
                side["mask"] = mask
        begin_frame(side, connection, is_client, ts, packet, first, second, length)
        if int64(side["walk"]) == OUT_OF_STEP:
            return
        side["frame_bytes"] = length
        if int64(side["opcode"]) <= BINARY:
            side["payload_bytes"] = add_length(int64(side["payload_bytes"]), length)
            side["message_bytes"] = add_length(int64(side["message_bytes"]), length)
        if length == 0:
            end_frame(side, other, pos + i, ack, packet)


@kernel
def walk_message(data: Octets, words: Rows, off: int, n: int, side: Rows, is_client: bool) -> bool:
    """What `walk` does with bytes that are a message in one frame, as most are: 200 instructions instead of 590.

    Returns:
        Whether they are one, on a side in step and between two messages, and nothing to note; else nothing is done.

    """
    head = data[off : off + MAX_HEADER]
    if n < MAX_HEADER or len(head) != MAX_HEADER:
        return False
    first, second = int64(head[0]), int64(head[1])
    length, size, mask = second & 127, 2, wire.be32(head, 2)
    if length == 126:
        length, size, mask = wire.be16(head, 2), 4, wire.be32(head, 4)
    is_masked = second >> 7
    if is_masked:
        size += 4
    else:
        mask = 0
    if (first != 0x80 | TEXT and first != 0x80 | BINARY) or length != n - size or is_client != (is_masked == 1):
        return False
    if second & 127 == 127 or (second & 127 == 126 and length < 126):
        return False
    if int64(side["skip_bytes"]) or int64(side["header_bytes"]) or int64(side["message"]) != NO_MESSAGE:
        return False
    if int64(side["walk"]) != IN_STEP or int64(side["score"]) < PROVEN or int64(side["close"]) != NO_CLOSE:
        return False
    if first == 0x80 | TEXT and not is_ascii(data, words, off + size, length, mask, 0):
        return False
    if is_masked:
        side["mask"] = mask
    side["masked"] = is_masked
    side["opcode"] = first & 15
    side["final"] = 1
    side["utf8_left"] = 0
    side["frame_bytes"] = length
    side["message_bytes"] = length
    side["payload_bytes"] = add_length(int64(side["payload_bytes"]), length)
    side["frames"] = int64(side["frames"]) + 1
    side["messages"] = int64(side["messages"]) + 1
    side["largest_bytes"] = max(int64(side["largest_bytes"]), length)
    return True


@rare_kernel
def walk_gap(side: Rows, other: Rows, n: int, pos: int, ack: int, packet: int) -> None:
    """Step over `n` missing bytes: harmless inside a payload, whose end is known; elsewhere the walk loses step."""
    side["gap_bytes"] = int64(side["gap_bytes"]) + n
    left = int64(side["skip_bytes"])
    if int64(side["walk"]) == OUT_OF_STEP:
        # on trial: a gap inside of what may be a payload leaves it at that
        is_inside = n <= left
        side["skip_bytes"] = left - n if is_inside else 0
        side["score"] = int64(side["score"]) if is_inside else 0
        side["header_bytes"] = 0
        return
    if n > left or int64(side["header_bytes"]) > 0:
        lose_step(side)
        return
    if int64(side["message"]) == CHECKED_TEXT and int64(side["opcode"]) <= BINARY:
        side["message"] = UNCHECKED
    side["skip_bytes"] = left - n
    if n == left:
        end_frame(side, other, pos + n, ack, packet)
        if 0 < int64(side["score"]) < PROVEN:
            side["score"] = min(PROVEN, int64(side["score"]) + 7)  # a length that fits, as in `midstream`
