"""Types shared by every module. Nothing here does I/O and nothing here imports anything of ours.

Units are part of the name: `_ns` integer nanoseconds since 1970-01-01T00:00:00Z, `_s` seconds, `_bytes` sizes,
`_off` offsets into the current chunk, `n_` counts. An instant is never a float: a float64 holds today's epoch
only to about 240 ns, and pcapng is often finer.

A stream position (`_pos`) counts bytes of one TCP direction: position 0 is the SYN, the first byte of data stands
at position 1. Packet numbers start at 1, as Wireshark counts; 0 means "no such packet".
"""

import enum
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[Any]
"""A structured array of one of the dtypes below, a row of one, or a plain array that travels beside it."""

if TYPE_CHECKING:

    def int64(value: Any) -> int:
        """See below; for the type checker an integer is an integer."""
else:
    int64 = np.int64
"""Kernels widen every byte and field they read with this, so that interpreted and compiled code agree."""

Octets = npt.NDArray[np.uint8]
"""Bytes as kernels take them: read-only and contiguous where they are input."""


class Provenance(enum.StrEnum):
    """How a close code came to be known."""

    WIRE = "wire"  # two status bytes stood in the Close frame that this endpoint received
    SYNTHESIZED = "synthesized"  # proven that none did: the RFC has the endpoint make up 1005, 1006 or 1015
    REPORTED = "reported"  # a known system's log names the code; the bytes were not seen
    INFERRED = "inferred"  # deduced from record sizes, or from a log of an unknown system
    UNDETERMINED = "undetermined"  # the evidence is incomplete; no code is claimed


class Evidence(enum.StrEnum):
    """The row of the decision table that fired (docs/decisions.md)."""

    STATUS = "status"  # a Close with a status code
    EMPTY_CLOSE = "empty_close"  # a Close without a body
    NO_CLOSE_FIN = "no_close_fin"  # no Close, then a FIN
    NO_CLOSE_RST = "no_close_rst"  # no Close, then a RST
    LATE_CLOSE = "late_close"  # a Close that met a closed socket
    CLOSE_UNACKED = "close_unacked"  # a Close that was reset before anyone acknowledged it
    SHORT_CLOSE = "short_close"  # a Close with a body of one byte
    CUT_CLOSE = "cut_close"  # a Close whose body the capture lacks
    FAILED_HERE = "failed_here"  # this endpoint failed the connection itself
    HANDSHAKE_REJECTED = "handshake_rejected"
    HANDSHAKE_FAILED = "handshake_failed"
    TLS_ALERT = "tls_alert"
    STREAM_END = "stream_end"
    STREAM_RESET = "stream_reset"
    SEALED_CLOSE = "sealed_close"
    SEALED_EMPTY_CLOSE = "sealed_empty_close"
    SEALED_NO_CLOSE = "sealed_no_close"
    SEALED = "sealed"
    GAP = "gap"  # bytes are missing where a frame header could be
    OPEN_END = "open_end"  # the capture ends first
    VANISHED = "vanished"  # unanswered retransmissions, then silence
    EVICTED = "evicted"  # a limit of this program dropped the connection
    LOG_RECEIVED = "log_received"
    LOG_SENT = "log_sent"
    LOG_STATED = "log_stated"


class Confidence(enum.StrEnum):
    """How sure a view is of its code; an undetermined one has none."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Endpoint(enum.StrEnum):
    """Whose view a row tells."""

    CLIENT = "client"
    SERVER = "server"
    PROXY = "proxy"
    UNKNOWN = "unknown"


class Received(enum.StrEnum):
    """What Close travelled towards an endpoint, or away from it."""

    NONE = "none"
    STATUS = "status"
    EMPTY = "empty"
    SHORT = "short"  # one byte of body
    CUT = "cut"  # header seen, body missing from the capture
    SEALED = "sealed"
    UNKNOWN = "unknown"


RECEIVED = tuple(Received)
"""`Received` by the small integers that kernels store: `RECEIVED[0]` is NONE."""

PROVENANCES, EVIDENCES = tuple(Provenance), tuple(Evidence)
CONFIDENCES = (None, *Confidence)
"""By the small integers that the arrays of `verdict.classify` hold."""


class Initiator(enum.StrEnum):
    """Who sent the first Close."""

    CLIENT = "client"
    SERVER = "server"
    BOTH = "both"  # the two Closes crossed on the way
    NONE = "none"
    UNKNOWN = "unknown"


class End(enum.StrEnum):
    """How the transport ended."""

    FIN = "fin"
    RST = "rst"
    STREAM_END = "stream_end"
    STREAM_RESET = "stream_reset"
    GOAWAY = "goaway"  # the server took no stream above another one
    VANISHED = "vanished"
    OPEN = "open"
    EVICTED = "evicted"
    UNKNOWN = "unknown"


class Cause(enum.StrEnum):
    """Why a connection ended, where that was established; several may share one."""

    TCP_LOST = "tcp_lost"  # the TCP connection that carried it, and others, ended before anybody sent a Close


class Handshake(enum.StrEnum):
    """How the opening handshake went (RFC 6455 section 4)."""

    COMPLETE = "complete"
    REJECTED = "rejected"  # answered with another status than 101
    FAILED = "failed"  # never answered, or answered so that the client dropped it
    MISSING = "missing"  # the capture begins later
    SEALED = "sealed"  # in TLS that no key opened, at least on one of the two sides: not seen


HANDSHAKES = tuple(Handshake)
"""`Handshake` by the small integers that kernels store."""


INITIATORS, ENDS = tuple(Initiator), tuple(End)
ENDED_BY = (None, Endpoint.CLIENT, Endpoint.SERVER)
"""By the small integers that `verdict.connections` holds."""


class Anomaly(enum.IntFlag):
    """What a peer did that RFC 6455 forbids or advises against; a row may carry several."""

    NONE = 0
    UNMASKED_CLIENT = enum.auto()  # section 5.1
    MASKED_SERVER = enum.auto()  # section 5.1
    RESERVED_OPCODE = enum.auto()  # section 5.2: 3 to 7, 11 to 15
    RESERVED_BITS = enum.auto()  # section 5.2: RSV set though no extension defines it
    RSV_ON_CONTROL = enum.auto()  # RFC 7692 section 6.1
    NON_MINIMAL_LENGTH = enum.auto()  # section 5.2
    LENGTH_TOP_BIT = enum.auto()  # section 5.2: a 64-bit length with its top bit set
    CONTROL_TOO_LONG = enum.auto()  # section 5.5: more than 125 bytes
    FRAGMENTED_CONTROL = enum.auto()  # section 5.5: control frame with FIN=0
    ORPHAN_CONTINUATION = enum.auto()  # section 5.4: a continuation without a start
    INTERRUPTED_MESSAGE = enum.auto()  # section 5.4: a new data frame inside a message
    ONE_BYTE_BODY = enum.auto()  # section 5.5.1
    REASON_TOO_LONG = enum.auto()  # section 5.5: more than 123 bytes
    REASON_NOT_UTF8 = enum.auto()  # section 8.1
    LOCAL_CODE_ON_WIRE = enum.auto()  # section 7.4.1: 1005, 1006, 1015
    CODE_OUT_OF_RANGE = enum.auto()  # section 7.4.2: below 1000, 1004, 1016 to 2999, above 4999
    SERVER_SENT_1010 = enum.auto()  # section 7.4.1
    DATA_AFTER_CLOSE = enum.auto()  # section 5.5.1
    SECOND_CLOSE = enum.auto()  # section 1.4
    NO_CLOSE_REPLY = enum.auto()  # section 5.5.1
    REPLY_DIFFERS = enum.auto()  # a note: legal, but not the usual echo
    CLIENT_ENDED_FIRST = enum.auto()  # a note: section 7.1.1 asks the client to wait for the server
    SERVER_LINGERED = enum.auto()  # section 7.1.1: the server left TCP open after both Closes
    WRONG_ACCEPT = enum.auto()  # section 4.1
    UNREQUESTED_SUBPROTOCOL = enum.auto()  # section 4.1
    UNREQUESTED_EXTENSION = enum.auto()  # section 4.1
    TEXT_NOT_UTF8 = enum.auto()  # section 8.1
    RESYNCHRONIZED = enum.auto()  # ours: the frame walk found step again behind missing bytes


ANOMALIES = tuple(flag for flag in Anomaly if flag)

VIOLATIONS = (
    Anomaly.UNMASKED_CLIENT
    | Anomaly.MASKED_SERVER
    | Anomaly.RESERVED_OPCODE
    | Anomaly.RESERVED_BITS
    | Anomaly.RSV_ON_CONTROL
    | Anomaly.NON_MINIMAL_LENGTH
    | Anomaly.LENGTH_TOP_BIT
    | Anomaly.CONTROL_TOO_LONG
    | Anomaly.FRAGMENTED_CONTROL
    | Anomaly.ORPHAN_CONTINUATION
    | Anomaly.INTERRUPTED_MESSAGE
    | Anomaly.ONE_BYTE_BODY
    | Anomaly.REASON_TOO_LONG
    | Anomaly.REASON_NOT_UTF8
    | Anomaly.LOCAL_CODE_ON_WIRE
    | Anomaly.CODE_OUT_OF_RANGE
    | Anomaly.TEXT_NOT_UTF8
)
"""Anomalies for which a receiver fails the connection (RFC 6455 section 7.1.7)."""

LOCAL_ONLY = frozenset({1005, 1006, 1015})
"""Codes an endpoint makes up and MUST NOT send (RFC 6455 section 7.4.1)."""

FAILING = (1002, 1003, 1007, 1009, 1010)
"""Codes an endpoint sends when it fails the connection because of what it received (RFC 6455 section 7.4.1)."""


def is_illegal_on_wire(code: int) -> bool:
    """Whether no endpoint may send this code (RFC 6455 section 7.4); 4xxx codes are private, never illegal."""
    return code < 1000 or code == 1004 or code in LOCAL_ONLY or 1016 <= code < 3000 or code > 4999


PACKET = np.dtype(
    [
        ("ts_ns", "i8"),
        ("off", "i8"),
        ("captured_bytes", "i8"),
        ("wire_bytes", "i8"),
        ("link_type", "i4"),
        ("interface", "i4"),
    ],
    align=True,
)
"""One record of a capture file; `off` points at its first captured byte in the chunk."""

INTERFACE = np.dtype(
    [
        ("link_type", "i8"),
        ("snaplen_bytes", "i8"),
        ("multiplier", "i8"),
        ("divisor", "i8"),
        ("shift", "i8"),
        ("offset_s", "i8"),
    ],
    align=True,
)
"""One pcapng interface: nanoseconds = ticks * multiplier // divisor, or ticks * 10**9 >> shift where shift is set."""

SEGMENT = np.dtype(
    [
        ("ts_ns", "i8"),
        ("packet", "i8"),
        ("src_hi", "i8"),
        ("src_lo", "i8"),
        ("dst_hi", "i8"),
        ("dst_lo", "i8"),
        ("payload_off", "i8"),
        ("payload_bytes", "i8"),
        ("wire_bytes", "i8"),
        ("seq", "u4"),
        ("ack", "u4"),
        ("sport", "u2"),
        ("dport", "u2"),
        ("window", "u2"),
        ("flags", "u1"),
        ("ttl", "u1"),
    ],
    align=True,
)
"""One TCP segment. Addresses are 128 bits in two signed halves, IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
`payload_bytes` were captured, `wire_bytes` travelled."""

ASIDE = np.dtype(
    [
        ("packet", "i8"),
        ("off", "i8"),
        ("end_off", "i8"),
        ("wire_end_off", "i8"),
        ("link_type", "i4"),
        ("why", "i4"),
    ],
    align=True,
)
"""What the dissecting kernel leaves to others: a fragment (`off` points at its IP header), or a packet of `link_type`
that it does not read. `packet` is an index into the packets, `why` the `Counter` where nobody can read it either."""

FLOW = np.dtype(
    [
        ("a_hi", "i8"),
        ("a_lo", "i8"),
        ("b_hi", "i8"),
        ("b_lo", "i8"),
        ("last_ns", "i8"),
        ("end_packet", "i8"),
        ("a_port", "i4"),
        ("b_port", "i4"),
        ("connection", "i4"),
        ("layer", "i4"),
        ("first_ns", "i8"),
        ("first_packet", "i8"),
        ("ordinal", "i4"),
        ("unanswered", "i4"),
        ("candidate", "i4"),
        ("was_dropped", "i1"),
        ("state", "i1"),
        ("kind", "i1"),
    ],
    align=True,
)
"""One TCP connection by its endpoints a < b; stream 0 is what a sends. `unanswered` counts ordinary HTTP requests.
`candidate` is the CONNECTION of frames without a handshake while it is not recognised, `layer` the LAYER around it.
`end_packet` is the first packet with a FIN or RST: behind it the streams tell whether it is still believed."""

STREAM = np.dtype(
    [
        ("origin", "i8"),
        ("next_pos", "i8"),
        ("highest_pos", "i8"),
        ("acked_pos", "i8"),
        ("packets", "i8"),
        ("last_ns", "i8"),
        ("n_parked", "i4"),
        ("n_stalled", "i4"),
        ("parked", "i4"),
        ("mode", "i1"),
        ("has_syn", "i1"),
        ("has_data", "i1"),
        ("is_answering", "i1"),
        ("read_pos", "i8"),
        ("fin_packet", "i8"),
        ("rst_packet", "i8"),
        ("head", "i4"),
        ("has_chunks", "i1"),
        ("misses", "i1"),
        ("has_gap", "i1"),
        ("fin_pos", "i8"),
        ("fin_ns", "i8"),
        ("rst_pos", "i8"),
        ("rst_ns", "i8"),
        ("rst_acked_pos", "i8"),
        ("body_left_bytes", "i8"),
        ("stalled_ns", "i8"),
        ("parked_bytes", "i8"),
        ("parked_last", "i4"),
        ("head_bytes", "i4"),
    ],
    align=True,
)
"""One direction of a flow: where its sequence numbers stand, and how it ended. What every packet touches comes first,
within 64 bytes; so too in FLOW, CONNECTION and SIDE."""

PARKED = np.dtype(
    [
        ("pos", "i8"),
        ("n_bytes", "i8"),
        ("wire_bytes", "i8"),
        ("off", "i8"),
        ("ts_ns", "i8"),
        ("packet", "i8"),
        ("ack_pos", "i8"),
        ("follower", "i4"),
        ("in_use", "i4"),
    ],
    align=True,
)
"""A segment that came too early, waiting in the pool for the bytes before it."""

SPAN = np.dtype(
    [
        ("pos", "i8"),
        ("off", "i8"),
        ("n_bytes", "i8"),
        ("ts_ns", "i8"),
        ("packet", "i8"),
        ("ack_pos", "i8"),
        ("stream", "i4"),
        ("kind", "i4"),
    ],
    align=True,
)
"""Bytes of one stream in order, `kind` says where they are: in the chunk, in the pool, or missing."""

LAYER = np.dtype(
    [
        ("flow", "i4"),
        ("kind", "i1"),
        ("depth", "i1"),
        ("client", "i1"),
        ("in_use", "i1"),
    ],
    align=True,
)
"""TLS or HTTP/2 on a TCP connection, what it wraps being read from there on. `depth` is how much of it is handed on,
`client` the direction of the client, -1 while unknown."""

CUTTER = np.dtype(
    [
        ("off", "i8"),
        ("left_bytes", "i4"),
        ("body_bytes", "i4"),
        ("version", "u2"),
        ("kind", "u1"),
        ("first", "u1"),
        ("have_bytes", "i1"),
        ("walk", "i1"),
        ("is_cut", "i1"),
        ("n_hellos", "i1"),
        ("header", "u1", (5,)),
    ],
    align=True,
)
"""One direction of a LAYER: the record under way, whose body is gathered at `off` in the arena (-1: nowhere)."""

RECORD = np.dtype(
    [
        ("off", "i8"),
        ("n_bytes", "i8"),
        ("end_pos", "i8"),
        ("ack_pos", "i8"),
        ("ts_ns", "i8"),
        ("packet", "i8"),
        ("stream", "i4"),
        ("layer", "i4"),
        ("version", "u2"),
        ("kind", "u1"),
        ("is_whole", "i1"),
    ],
    align=True,
)
"""A TLS record (RFC 8446 section 5.1), or bytes of HTTP/2 as they came; `off` is where its body lies in the arena."""

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
"""`kind` of a RECORD of TLS (RFC 8446 section 5.1). In TLS 1.3 alerts and handshake messages that are sealed are
APPLICATION_DATA, too."""

LANE = np.dtype(
    [
        ("seq", "i8"),
        ("next_seq", "i8"),
        ("begin", "i8"),
        ("stop", "i8"),
        ("n_blocks", "i8"),
        ("most_blocks", "i8"),
        ("first_block", "i8"),
        ("sum_block", "i8"),
        ("sum_blocks", "i8"),
        ("end_pos", "i8"),
        ("ack_pos", "i8"),
        ("ts_ns", "i8"),
        ("packet", "i8"),
        ("is_fast", "i1"),
        ("is_13", "i1"),
        ("is_used", "i1"),
        ("key_bytes", "i1"),
        ("iv", "u1", (12,)),
        ("explicit", "u1", (8,)),
        ("key", "u1", (32,)),
    ],
    align=True,
)
"""One direction of a LAYER whose records are opened many at a time: its keys, the number of its next record, where the
last one stood. What stands between `next_seq` and `sum_blocks`, and `is_used`, is of the records under way alone."""

CONNECTION = np.dtype(
    [
        ("activity_ns", "i8"),
        ("client_stream", "i1"),
        ("handshake", "i1"),
        ("allowed_rsv", "i1"),
        ("may_have_close", "i1"),
        ("in_use", "i1"),
        ("finished", "i1"),
        ("opened_ns", "i8"),
        ("request_ns", "i8"),
        ("request_packet", "i8"),
        ("response_packet", "i8"),
        ("client_starts_pos", "i8"),
        ("flow", "i4"),
        ("answers_before", "i4"),
        ("ordinal", "i4"),
        ("status", "i4"),
        ("http2_stream", "i4"),
    ],
    align=True,
)
"""One WebSocket connection while it lives; `http2_stream` is 0 where it has TCP, or TLS, for itself. `may_have_close`
says that a Close began on a side: the SIDE rows tell which, and whether it was believed."""

ANY_STREAM = (1 << 31) - 1
"""The highest HTTP/2 stream there can be: a GOAWAY that names it only announces another (RFC 9113 section 6.8)."""

MAX_CLOSE_BODY_BYTES = 125
"""A control frame's payload (RFC 6455 section 5.5); more of a broken Close is not kept."""

SIDE = np.dtype(
    [
        ("skip_bytes", "i8"),
        ("frames", "i8"),
        ("messages", "i8"),
        ("payload_bytes", "i8"),
        ("message_bytes", "i8"),
        ("largest_bytes", "i8"),
        ("mask", "u4"),
        ("walk", "i1"),
        ("close", "i1"),
        ("opcode", "i1"),
        ("final", "i1"),
        ("message", "i1"),
        ("utf8_left", "i1"),
        ("masked", "i1"),
        ("header_bytes", "i1"),
        ("score", "i1"),
        ("lost", "i1"),
        ("unsure_close", "i1"),
        ("frame_bytes", "i8"),
        ("anomalies", "i8"),
        ("utf8_bounds", "i4"),
        ("body_bytes", "i2"),
        ("gap_bytes", "i8"),
        ("violation_packet", "i8"),
        ("ping_ns", "i8"),
        ("close_packet", "i8"),
        ("close_ns", "i8"),
        ("close_end_pos", "i8"),
        ("close_ack_pos", "i8"),
        ("close_bytes", "i8"),
        ("close_anomalies", "i8"),
        ("header", "u1", (14,)),
        ("body", "u1", (MAX_CLOSE_BODY_BYTES,)),
    ],
    align=True,
)
"""What one side of a WebSocket connection sent: the state of its frame walk, counters, its first Close."""

RECENT_RECORDS, RECORD_PAIRS = 6, 6
"""How many of its last records each side of a sealed connection keeps, and how many kinds of question and answer."""

SEALED = np.dtype(
    [
        ("records", "i8"),
        ("padding", "i8"),
        ("response_ns", "i8"),
        ("request_bytes", "i4"),
        ("response_bytes", "i4"),
        ("turns", "i4"),
        ("short_turns", "i4"),
        ("shortish_turns", "i4"),
        ("requests", "i4"),
        ("phase", "i1"),
        ("last_direction", "i1"),
        ("misses", "i1", (2,)),
        ("last_pair", "i1", (2,)),
        ("recent_ns", "i8", (2, RECENT_RECORDS)),
        ("recent_packet", "i8", (2, RECENT_RECORDS)),
        ("recent_end_pos", "i8", (2, RECENT_RECORDS)),
        ("recent_ack_pos", "i8", (2, RECENT_RECORDS)),
        ("recent_order", "i8", (2, RECENT_RECORDS)),
        ("recent_bytes", "i4", (2, RECENT_RECORDS)),
        ("recent_kind", "i1", (2, RECENT_RECORDS)),
        ("n_recent", "i8", (2,)),
        ("pair_question", "i4", (RECORD_PAIRS,)),
        ("pair_answer", "i4", (RECORD_PAIRS,)),
        ("pair_count", "i4", (RECORD_PAIRS,)),
        ("pair_ns", "i8", (RECORD_PAIRS,)),
        ("pair_period_ns", "i8", (RECORD_PAIRS,)),
        ("pair_steady", "i4", (RECORD_PAIRS,)),
        ("pair_asker", "i1", (RECORD_PAIRS,)),
    ],
    align=True,
)
"""What is kept of one TLS connection that cannot be opened (RFC 8446, RFC 5246): sizes, times and order of records.
Direction 0 is the client. `padding` is the greatest common divisor of what a TLS 1.3 record holds, `short_turns` count
turns of the client that begin too small for an HTTP request, `response_ns` is when the server first answered one,
`last_pair` says which question and answer (from 1) the
last record of a side belongs to."""

SEALED_END = np.dtype(
    [
        ("fin_ns", "i8"),
        ("fin_packet", "i8"),
        ("rst_ns", "i8"),
        ("rst_packet", "i8"),
        ("is_complete", "?"),  # every byte up to the end of this direction was seen, and every byte read as records
    ],
    align=True,
)
"""How one side of a sealed connection ended; packet 0 where it did not."""

HEAD_FIELDS = 6
"""Fields of a head that are used, by the numbers of `capture.field_line`."""

OPENING = np.dtype(
    [
        ("connection", "i4"),
        ("n_bytes", "i4"),
        ("status", "i4"),
        ("kind", "i1"),
        ("is_plain", "i1"),
        ("begins", "i4", (HEAD_FIELDS,)),
        ("ends", "i4", (HEAD_FIELDS,)),
    ],
    align=True,
)
"""A complete HTTP head that opens, or fails to open, a WebSocket connection, and where among the values copied from
heads its fields lie (`ends` is -1 for those it has not); the first is the whole head where it is not plain."""

SENT = np.dtype(
    [
        ("seen", "?"),  # any packet of this direction was captured
        ("close", "i1"),  # index into RECEIVED
        ("code", "i4"),  # status of the first Close, 0 where it has none
        ("close_packet", "i8"),
        ("close_acked", "?"),  # the receiver acknowledged its last byte
        ("tls_failed", "?"),  # the receiver sent a fatal alert of TLS
        ("close_unheard", "?"),  # before the Close came
        ("close_acks_peer", "?"),  # its segment acknowledges the other side's Close
        ("violation_packet", "i8"),  # first packet with an anomaly of VIOLATIONS
        ("lost", "?"),  # missing bytes may hide a frame header
        ("found_again", "?"),  # and the walk found step again behind them
        ("aligned", "?"),  # the walk ended between two frames
        ("frames", "i8"),
        ("fin_packet", "i8"),
        ("complete", "?"),  # every byte up to the FIN, or up to the RST that ended it, was seen
        ("rst_packet", "i8"),
        ("rst_in_place", "?"),  # the RST stood at the receiver's next expected sequence number
        ("rst_after_all_acked", "?"),  # when this side reset, all it had acknowledged of the other side was seen
        ("rst_acks", "?"),  # its RST carries an acknowledgement
        ("rst_behind_close", "?"),  # its RST stands behind its Close, in whatever order they were captured
        ("tail_missing", "?"),  # bytes at the end of what it sent were not captured
        ("by_stream", "?"),  # its FIN and RST are END_STREAM and RST_STREAM of an HTTP/2 stream
    ]
)
"""Facts about what one side sent, from which `verdict.classify` decides the other side's view."""


class Counter(enum.IntEnum):
    """What the dissecting kernel counts by itself; the names are columns of `inputs`."""

    LINK_TYPE = 0
    NOT_IP = 1
    NOT_TCP = 2
    QUIC = 3
    TUNNEL = 4
    FRAGMENT = 5
    CUT_HEADER = 6
    MALFORMED = 7
    OVERLAP = 8
    WAITING_FRAGMENTS = 9


class Column(NamedTuple):
    """One column of a table: its name, what kind of value it holds, and what it says."""

    name: str
    kind: str  # text, int, float, time, enum or list
    about: str


def _side_columns(side: str) -> list[Column]:
    close = f"{side}_close"
    return [
        Column(close, "enum", f"the first Close the {side} sent: {', '.join(Received)}"),
        Column(f"{close}_code", "int", "its status code"),
        Column(f"{close}_reason", "text", "its reason"),
        Column(f"{close}_time", "time", "when its last byte was captured"),
        Column(f"{close}_source", "text", "file that holds it"),
        Column(f"{close}_record", "int", "packet number of its last byte, from 1"),
        Column(f"{close}_anomalies", "list", "what was wrong with it"),
    ]


def _view_columns(side: str) -> list[Column]:
    return [
        Column(f"{side}_view_code", "int", f"the code the {side} reports"),
        Column(f"{side}_view_provenance", "enum", "how that is known"),
        Column(f"{side}_view_evidence", "enum", "the row of the decision table"),
        Column(f"{side}_view_confidence", "enum", "high, medium or low"),
    ]


def _traffic_columns(side: str) -> list[Column]:
    return [
        Column(f"{side}_frames", "int", f"frames the {side} sent"),
        Column(f"{side}_messages", "int", "whole text and binary messages"),
        Column(f"{side}_bytes", "int", "payload bytes of its data frames"),
        Column(f"{side}_largest_message_bytes", "int", "largest message, as sent (compressed if so)"),
        Column(f"{side}_gap_bytes", "int", "bytes of its stream that the capture lacks"),
    ]


CLOSES = (
    Column("source", "text", "file that holds the evidence"),
    Column("record", "int", "packet number from 1 (as Wireshark counts) or line number from 1"),
    Column("time", "time", "when this endpoint learned of the end"),
    Column("connection", "text", "key into connections"),
    Column("endpoint", "enum", "whose view this is: client, server, proxy, unknown"),
    Column("code", "int", "the close code this endpoint reports; null exactly when undetermined"),
    Column("provenance", "enum", ", ".join(Provenance)),
    Column("evidence", "enum", "the row of the decision table that fired"),
    Column("confidence", "enum", "high, medium or low"),
    Column("received", "enum", "what Close came in: " + ", ".join(Received)),
    Column("wire_code", "int", "its status bytes, kept even where the endpoint may not have read them"),
    Column("sent", "enum", "what Close this endpoint sent"),
    Column("sent_code", "int", "its status bytes"),
    Column("raw_code", "text", "what a log printed where that differs from code"),
    Column("reason", "text", "reason text of the Close that came in"),
    Column("initiator", "enum", "who sent the first Close: " + ", ".join(Initiator)),
    Column("end", "enum", "how the transport ended: " + ", ".join(End)),
    Column("ended_by", "enum", "who ended the transport"),
    Column("duration_s", "float", "seconds from the opening to the end"),
    Column("client", "text", "ip:port, IPv6 in brackets"),
    Column("server", "text", "ip:port, IPv6 in brackets"),
    Column("host", "text", "Host header"),
    Column("path", "text", "request target"),
    Column("system", "text", "library or product, where known"),
    Column("lines", "int", "lines of a log that were joined into this row"),
    Column("anomalies", "list", "what the peer did wrong"),
)

CONNECTIONS = (
    Column("connection", "text", "start time, client, server, ordinal; a unique prefix is enough in commands"),
    Column("source", "text", "file in which it begins"),
    Column("client", "text", "ip:port, IPv6 in brackets"),
    Column("server", "text", "ip:port, IPv6 in brackets"),
    Column("transport", "enum", "tcp, tls, h2, h2c"),
    Column("sni", "text", "TLS server name"),
    Column("alpn", "text", "TLS application protocol"),
    Column("tls_version", "text", "TLS version"),
    Column("tls_alert", "text", "alert by which TLS failed: who sent it, and its name (client unknown_ca)"),
    Column("likelihood", "enum", "of a connection that nothing opened: how likely it is a WebSocket, high or medium"),
    Column("host", "text", "Host header"),
    Column("path", "text", "request target"),
    Column("subprotocol", "text", "Sec-WebSocket-Protocol of the answer"),
    Column("extensions", "text", "Sec-WebSocket-Extensions of the answer"),
    Column("user_agent", "text", "User-Agent header"),
    Column("server_software", "text", "Server header"),
    Column("handshake", "enum", ", ".join(Handshake)),
    Column("http_status", "int", "status of the answer to the upgrade request"),
    Column("flow", "text", "TCP connection that carried it over HTTP/2: its start time, client, server"),
    Column("http2_stream", "int", "number of its HTTP/2 stream"),
    Column("stream_error", "text", "error code of RST_STREAM: who sent it first, and its name (server CANCEL)"),
    Column("goaway", "text", "GOAWAY before the stream had ended: who sent it, and the name of its error code"),
    Column("goaway_last_stream", "int", "highest stream that whoever sent it still takes"),
    Column("goaway_reason", "text", "what else it says: the beginning of its debug data"),
    Column(
        "opened",
        "time",
        "when the answer was captured, else when the first packet was; of TLS that nothing opened, when the server"
        " first sent something behind the client's first data, null where it never did",
    ),
    Column("ended", "time", "when the transport ended"),
    Column("duration_s", "float", "seconds from opened to ended"),
    *_side_columns("client"),
    *_side_columns("server"),
    Column("initiator", "enum", "who sent the first Close: " + ", ".join(Initiator)),
    Column("end", "enum", "how the transport ended: " + ", ".join(End)),
    Column("ended_by", "enum", "who ended the transport"),
    *_view_columns("client"),
    *_view_columns("server"),
    *_traffic_columns("client"),
    *_traffic_columns("server"),
    Column("silence_s", "float", "seconds without a frame before the end began"),
    Column("close_reply_s", "float", "seconds from the first Close to the other side's"),
    Column("end_delay_s", "float", "seconds from the last Close to the first FIN or RST"),
    Column("unanswered_ping_s", "float", "seconds that a Ping was without Pong when the end began"),
    Column("anomalies", "list", "what either side did wrong"),
    Column("cause", "text", "most likely cause, where one was established: " + ", ".join(Cause)),
    Column("cause_confidence", "enum", "high, medium or low"),
    Column("shared_by", "int", "WebSockets of one HTTP/2 connection that this cause ended together, this one included"),
    Column("carried", "int", "WebSockets that this connection carried in all; null where some may have been missed"),
    Column("diagnosis", "text", "key of the documented text, see `wsclose explain`"),
)

INPUTS = (
    Column("source", "text", "path as given"),
    Column("kind", "enum", "pcap, pcapng, packets, live, log"),
    Column("compression", "enum", "none, or how the file is packed"),
    Column("bytes", "int", "bytes read"),
    Column("records", "int", "packets, or lines of a log"),
    Column("flows", "int", "TCP connections"),
    Column("connections", "int", "WebSocket connections"),
    Column("tls", "int", "TCP connections that carry TLS"),
    Column("tls_opened", "int", "those of them that keys opened"),
    Column("secrets", "int", "secrets of TLS connections that were known: from key logs, and from the capture"),
    Column("first", "time", "first packet, or first time in a log"),
    Column("last", "time", "last packet, or last time in a log"),
    Column("damaged_at", "int", "byte offset of the first damage"),
    Column("lost_bytes", "int", "bytes that could not be read because of it"),
    Column("assumed_tz", "text", "time zone assumed for a log without one"),
    Column("assumed_year", "int", "year assumed for a log without one"),
    Column("joined_lines", "int", "lines of a log that say the same as another, and were joined with it"),
    Column("left_out", "int", "closes that were found, and that the filters left out"),
    Column("skipped_link_type", "int", "packets of a link type that is not read"),
    Column("skipped_not_ip", "int", "frames that carry no IP"),
    Column("skipped_not_tcp", "int", "IP packets that carry no TCP"),
    Column("skipped_quic", "int", "packets to or from UDP port 443: QUIC is not decoded"),
    Column(
        "skipped_tunnel",
        "int",
        "packets of tunnels that cannot be opened: encrypted, compressed, malformed, nested too deep",
    ),
    Column("skipped_fragment", "int", "IP fragments whose datagram never became whole"),
    Column("skipped_overlap", "int", "IP fragments whose datagram was dropped because they contradict one another"),
    Column("skipped_waiting_fragments", "int", "IP fragments dropped because too many were waiting"),
    Column("skipped_cut_header", "int", "packets whose TCP header was not captured"),
    Column("skipped_malformed", "int", "packets whose headers contradict themselves"),
    Column("skipped_encrypted", "int", "TCP connections that carry TLS, and that no keys opened"),
    Column(
        "skipped_partly_opened", "int", "TCP connections with TLS that keys opened in one direction only, or in part"
    ),
    Column("skipped_tls_failed", "int", "TCP connections whose TLS failed, to servers not known to be a WebSocket's"),
    Column("skipped_midstream", "int", "TCP connections with data, begun before the capture, not recognised"),
    Column("skipped_candidates", "int", "segments not looked at for frames: too many connections were being looked at"),
    Column("skipped_evicted", "int", "TCP connections dropped because too many were open at once"),
    Column("skipped_parked", "int", "segments dropped because too much arrived out of order"),
    Column("skipped_heads", "int", "HTTP heads dropped for their length or number"),
    Column("skipped_layers", "int", "TCP connections not looked into: too many with TLS or HTTP/2 were open at once"),
    Column("skipped_records", "int", "TLS records dropped because too many were incomplete at once"),
    Column("skipped_messages", "int", "TLS handshake messages not read because too many were incomplete at once"),
    Column("skipped_secrets", "int", "secrets of TLS connections dropped because there were too many"),
    Column(
        "skipped_key_lines",
        "int",
        "key lines of key logs that could not be read; of a log for several captures, once for each",
    ),
    Column("skipped_streams", "int", "HTTP/2 streams and header blocks dropped for their size or number"),
    Column("skipped_requests", "int", "HTTP/2 requests and answers not read: bytes before them are missing"),
    Column("skipped_long_lines", "int", "lines of a log too long to be read whole; their rest was skipped"),
    Column("skipped_unopened", "int", "lines that end what a log does not show to have been opened"),
    Column("status", "enum", "ok, cut (last record cut off), damaged, failed, interrupted"),
    Column("message", "text", "what went wrong"),
)


DIMENSIONS = ("host", "path", "peer", "system", "subprotocol")
"""What views can be broken down by. `peer` is the other side: a client's address without its port, a server's with it;
a path stands without its query; where no Host header was read, the TLS server name is the host."""

LIMITS = (
    *("skipped_waiting_fragments", "skipped_candidates", "skipped_evicted", "skipped_parked", "skipped_heads"),
    *("skipped_layers", "skipped_records", "skipped_messages", "skipped_secrets", "skipped_streams"),
    "skipped_long_lines",
)
"""Columns of `inputs` that count what a limit of this program dropped."""


def to_unicode(text: str | None) -> str | None:
    """Text that every consumer takes: what is no Unicode, such as half a surrogate pair, becomes an escape."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@functools.lru_cache(1 << 12)
def _names_of(bits: int) -> tuple[str, ...]:
    return tuple(str(flag.name).lower() for flag in ANOMALIES if bits & flag)


def anomaly_names(bits: int) -> list[str]:
    """Names of the set bits in declaration order, lower case: `["unmasked_client"]`."""
    return [*_names_of(bits)] if bits else []


def format_time(ns: int | None) -> str | None:
    """RFC 3339 in UTC with nanoseconds, `None` for `None`."""
    if ns is None:
        return None
    return f"{np.datetime64(ns, 'ns')}Z"


def format_times(times: Sequence[int | None]) -> list[str]:
    """Many times at once as `format_time` writes them, empty for `None`."""
    known = np.array([0 if ns is None else ns for ns in times], "M8[ns]")
    return ["" if ns is None else f"{text}Z" for ns, text in zip(times, np.datetime_as_string(known), strict=True)]
