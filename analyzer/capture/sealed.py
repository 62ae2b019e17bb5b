"""What is kept of TLS records that cannot be opened: the first exchange, the last records, questions and answers; and
how much a record of some length holds.

A few hundred bytes a connection; `verdict.sealed` says what they tell. Directions: 0 is the client, 1 the
server. The version of TLS and the cipher need not be known yet.
"""

from typing import NamedTuple

from analyzer.capture.suite import SUITES, TLS_1_0, inner_size
from analyzer.kernel import kernel
from analyzer.model import (
    ALERT,
    APPLICATION_DATA,
    RECENT_RECORDS,
    RECORD_PAIRS,
    Confidence,
    Evidence,
    Initiator,
    Received,
    Rows,
    int64,
)

CLIENT, SERVER = 0, 1

NOTIFY_BYTES = 19
"""An alert in TLS 1.3; with no cipher is a frame of the client so short."""

START, FLIGHT, READY, ASKED, ANSWERED = range(5)
"""How far a connection has come: nothing sealed yet; the server's handshake in sealed records (TLS 1.3); the client's
Finished; the client's first request; the client's next turn after the answer."""

MIN_REQUEST_BYTES, MAX_REQUEST_BYTES = 150, 16_500
"""A record with an upgrade request. Its shortest form has 142 bytes (RFC 6455 section 4.1), and a record 16 more."""

MIN_RESPONSE_BYTES, MAX_RESPONSE_BYTES = 120, 2_200
"""The first record behind it: the answer, which has 129 bytes or more, or a session ticket."""

MAX_REQUEST_RECORDS = 3

MIN_TURN_BYTES, SHORT_TURN_BYTES, SHORTISH_TURN_BYTES = 22, 57, 80
"""A record in which a client begins to speak: a masked frame in TLS 1.3 or with an AEAD, too short for an HTTP request,
and the same with CBC, whose records grow in steps."""

MAX_LONG_TURNS = 12
"""Turns of the client, all too long for a frame of control: then it is taken for HTTP."""

MAX_PAIR_BYTES = 208
"""Longest records that are remembered as question and answer: a masked control frame with any cipher."""

REPLY_NS = 400_000_000
"""Longest time to an answer that is believed to be one."""

AEAD_TAG_BYTES = 16
"""Sizes of records are judged for AEADs with such tags; those of 8 bytes are for devices."""


@kernel
def note(
    row: Rows, direction: int, kind: int, n_bytes: int, ts_ns: int, packet: int, end_pos: int, ack_pos: int
) -> None:
    """Take in one record, in capture order.

    Args:
        row: SEALED.
        direction: 0 for the client's, 1 for the server's.
        kind: Type in the record's header.
        n_bytes: Length in the record's header.
        ts_ns: When its last byte was captured; `packet`, `end_pos` and `ack_pos` are of that segment, see `Mark`,
            `end_pos` is the end of the record.

    """
    if kind != APPLICATION_DATA and kind != ALERT:
        return
    order = int64(row["records"])
    row["records"] = order + 1
    slot = int64(row["n_recent"][direction]) % RECENT_RECORDS
    row["n_recent"][direction] = int64(row["n_recent"][direction]) + 1
    row["recent_ns"][direction, slot] = ts_ns
    row["recent_packet"][direction, slot] = packet
    row["recent_end_pos"][direction, slot] = end_pos
    row["recent_ack_pos"][direction, slot] = ack_pos
    row["recent_order"][direction, slot] = order
    row["recent_bytes"][direction, slot] = n_bytes
    row["recent_kind"][direction, slot] = kind
    if kind != APPLICATION_DATA:
        return
    if direction == SERVER or n_bytes != NOTIFY_BYTES:
        row["last_pair"][direction] = 0
    phase = int64(row["phase"])
    if phase == START:
        phase = FLIGHT if direction == SERVER else ASKED
        row["requests"] = 0
    elif phase == FLIGHT and direction == CLIENT:
        row["phase"] = READY
        return
    elif phase == READY and direction == CLIENT:
        phase = ASKED
    row["phase"] = phase
    if phase < ASKED or (direction == CLIENT and n_bytes == NOTIFY_BYTES):
        return
    a, b = int64(row["padding"]), n_bytes - 16
    while b > 0 and a != 1:
        a, b = b, a % b
    row["padding"] = a
    if phase == ASKED:
        if direction == SERVER:
            if int64(row["response_bytes"]) == 0:
                row["response_bytes"] = n_bytes
                row["response_ns"] = ts_ns
            row["last_direction"] = direction
            return
        if int64(row["response_bytes"]) == 0:
            if int64(row["requests"]) == 0:
                row["request_bytes"] = n_bytes
            row["requests"] = min(int64(row["requests"]) + 1, 1 << 20)
            row["last_direction"] = direction
            return
        row["phase"] = ANSWERED
    was_other = int64(row["last_direction"]) != direction
    row["last_direction"] = direction
    if not was_other:
        return
    if direction == CLIENT and n_bytes >= MIN_TURN_BYTES:
        row["turns"] = min(int64(row["turns"]) + 1, 1 << 20)
        row["short_turns"] = min(int64(row["short_turns"]) + (1 if n_bytes <= SHORT_TURN_BYTES else 0), 1 << 20)
        row["shortish_turns"] = min(
            int64(row["shortish_turns"]) + (1 if n_bytes <= SHORTISH_TURN_BYTES else 0), 1 << 20
        )
    note_pair(row, direction, n_bytes, ts_ns, ack_pos)


@kernel
def note_pair(row: Rows, direction: int, n_bytes: int, ts_ns: int, ack_pos: int) -> None:
    """Count a record together with the one it follows, if it acknowledges that one and is the first to do so."""
    other = 1 - direction
    n_other = int64(row["n_recent"][other])
    if n_other == 0 or n_bytes > MAX_PAIR_BYTES:
        return
    slot = (n_other - 1) % RECENT_RECORDS
    question = int64(row["recent_bytes"][other, slot])
    if int64(row["recent_kind"][other, slot]) != APPLICATION_DATA or question > MAX_PAIR_BYTES:
        return
    asked_ns = int64(row["recent_ns"][other, slot])
    if asked_ns < 0 or ts_ns < 0:
        return  # before 1970: differences of what is left cannot overflow
    # a record is a question or an answer, not both: else a Pong and the next Ping would be a pair as well
    if int64(row["last_pair"][other]) != 0 or ack_pos < int64(row["recent_end_pos"][other, slot]):
        return
    delay = ts_ns - asked_ns
    if delay < 0 or delay > REPLY_NS:
        return
    rarest = 0
    for i in range(RECORD_PAIRS):
        count = int64(row["pair_count"][i])
        if (
            count > 0
            and int64(row["pair_question"][i]) == question
            and int64(row["pair_answer"][i]) == n_bytes
            and int64(row["pair_asker"][i]) == other
        ):
            period = max(asked_ns - int64(row["pair_ns"][i]), 0)
            before = int64(row["pair_period_ns"][i])
            is_steady = count > 1 and abs(period - before) <= before // 4 and delay * 2 < period
            row["pair_steady"][i] = int64(row["pair_steady"][i]) + 1 if is_steady else 0
            row["pair_period_ns"][i] = period
            row["pair_ns"][i] = asked_ns
            row["pair_count"][i] = min(count + 1, 1 << 20)
            row["last_pair"][0] = row["last_pair"][1] = i + 1
            return
        if count < int64(row["pair_count"][rarest]):
            rarest = i
    row["pair_question"][rarest] = question
    row["pair_answer"][rarest] = n_bytes
    row["pair_asker"][rarest] = other
    row["pair_count"][rarest] = 1
    row["pair_ns"][rarest] = asked_ns
    row["pair_period_ns"][rarest] = 0
    row["pair_steady"][rarest] = 0
    row["last_pair"][0] = row["last_pair"][1] = rarest + 1


@kernel
def miss(row: Rows, direction: int) -> None:
    """Bytes of this direction are missing, or are no records."""
    row["misses"][direction] = 1


@kernel
def is_hopeless(row: Rows) -> bool:
    """Whether what has been seen cannot be a WebSocket over HTTP/1.1, so that the row may be given to another one.

    Not to be asked about connections that are asserted to be one.
    """
    phase = int64(row["phase"])
    if phase < ASKED:
        return False
    request, response = int64(row["request_bytes"]), int64(row["response_bytes"])
    if request < MIN_REQUEST_BYTES or request > MAX_REQUEST_BYTES:
        return True
    if int64(row["requests"]) > MAX_REQUEST_RECORDS:
        return True
    if response > 0 and (response < MIN_RESPONSE_BYTES or response > MAX_RESPONSE_BYTES):
        return True
    return int64(row["turns"]) >= MAX_LONG_TURNS and int64(row["shortish_turns"]) == 0


def plaintext(n_bytes: int, version: int, suite: int) -> tuple[int, int]:
    """Least and greatest number of bytes that a record of this length holds; (0, n_bytes) where that is not known."""
    sizes = inner_size(version, suite, n_bytes) if is_known(version, suite) else None
    return sizes or (0, n_bytes)


def has_exact_sizes(version: int, suite: int) -> bool:
    """Whether a record's length tells to the byte what it holds."""
    return is_known(version, suite) and SUITES[suite].mode != "cbc"


def is_known(version: int, suite: int) -> bool:
    """Whether the cipher is one whose records can be judged; TLS 1.0 seals without an IV of its own for each record."""
    if version <= TLS_1_0 or inner_size(version, suite, MAX_PAIR_BYTES) is None:
        return False
    return SUITES[suite].mode == "cbc" or SUITES[suite].tag_bytes == AEAD_TAG_BYTES


class Told(NamedTuple):
    """What the records of one connection tell. `sent` is what Close each side sent, `evidence` about the view of each
    endpoint: index 0 the client's. `confidence` belongs to a code, None where none is claimed."""

    is_websocket: bool
    likelihood: Confidence | None
    initiator: Initiator
    sent: tuple[Received, Received]
    evidence: tuple[Evidence, Evidence]
    confidence: tuple[Confidence | None, Confidence | None]
    close_packet: tuple[int, int]
    close_ns: tuple[int, int]
    alert: tuple[int, str] | None = None
    """Who sent the alert by which TLS failed (0 the client, 1 the server), and its name."""
    opened_ns: int = 0
    """When the server first sent something behind the client's first data: the answer, or in TLS 1.3 a session ticket.
    0 where it never did."""
