"""The frames of HTTP/2: how they begin, and where they begin again behind missing bytes (RFC 9113 sections 4 and 6).

Knows nothing of streams but which numbers are likely. Nothing here raises, whatever the bytes.
"""

import re
import struct
from collections.abc import Container
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 section 3.4)."""

HEADER = struct.Struct(">HBBBI")
"""A frame header: length (upper 16 and lower 8 bits), type, flags, stream with a reserved bit above."""

HEADER_BYTES = HEADER.size

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ALTSVC, ORIGIN, PRIORITY_UPDATE = 10, 12, 16
"""RFC 7838 section 4, RFC 8336 section 2, RFC 9218 section 7.1."""

END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x01, 0x01, 0x04, 0x08, 0x20

FLAGS = {DATA: 0x09, HEADERS: 0x2D, PUSH_PROMISE: 0x0C, CONTINUATION: 0x04}
"""Those that a type defines."""

STREAM_BITS = 0x7FFFFFFF

SETTINGS_HEADER_TABLE_SIZE, SETTINGS_MAX_FRAME_SIZE, SETTINGS_ENABLE_CONNECT_PROTOCOL = 1, 5, 8
"""RFC 9113 section 6.5.2, RFC 8441 section 3."""

DEFAULT_FRAME_BYTES = 16384
"""SETTINGS_MAX_FRAME_SIZE as long as the receiver says nothing else."""

ERRORS = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""RFC 9113 section 7, by number."""

MAX_BELIEVED_BYTES = 65535
"""While searching, a frame that claims more is none, whatever SETTINGS_MAX_FRAME_SIZE says."""

MAX_SETTINGS_BYTES = 6 * 64
"""The settings that are registered, many times over; a longer SETTINGS frame is walked over unread."""

MAX_DEBUG_BYTES = 256
"""Of the debug data of a GOAWAY; what is seen is a name or a sentence."""

MAX_AHEAD = 2 * 65536
"""By how much a stream's number may exceed the highest one seen: requests may have been among the missing bytes."""

WEAK, STRONG = 1, 2
"""What one header is worth. In random bytes a strong one is there once in 2**43 or less, a weak one once in 2**38."""

ENOUGH = 3
"""What a chain of frames must be worth; to begin at a gap's end and to end where the bytes end is worth 1 each."""

MAX_WAITING = 16
"""Places that may yet turn out to be frame headers: with so many, what lies behind them is not looked at."""

MAX_SEARCH_BYTES = 1 << 20
"""Behind one gap; a direction that is not in step by then is given up."""

_SOME, _NONE = rb"(?!\x00{4})", rb"(?=\x00{4})"

CANDIDATE = re.compile(
    rb"(?s)\x00..(?:"
    + b"|".join(
        (
            rb"\x00[\x00\x01\x08\x09]" + _SOME,
            rb"\x01[\x00\x01\x04\x05\x08\x09\x0c\x0d\x20\x21\x24\x25\x28\x29\x2c\x2d]" + _SOME,
            rb"[\x02\x03]\x00" + _SOME,
            rb"[\x04\x06][\x00\x01]" + _NONE,
            rb"\x05[\x00\x04\x08\x0c]" + _SOME,
            rb"[\x07\x0c\x10]\x00" + _NONE,
            rb"[\x08\x0a]\x00",
            rb"\x09[\x00\x04]" + _SOME,
        )
    )
    + rb")[\x00-\x7f]"
)
"""What a frame header looks like by its type: flags that type has, a stream or none, the reserved bit 0."""


def error_name(code: int) -> str:
    """The name of an error code, or its number in hexadecimal."""
    return ERRORS[code] if code < len(ERRORS) else f"{code:#x}"


class Likely(NamedTuple):
    """What a frame of one direction may be.

    Args:
        is_client: Who sends it; None where that is not known.
        highest: The highest stream number that the client has used.
        frame_bytes: What the receiver allows.
        known: Streams of which much is known: open WebSockets.
    """

    is_client: bool | None
    highest: int
    frame_bytes: int
    known: Container[int]


def weigh_header(length: int, kind: int, flags: int, stream: int, likely: Likely) -> int:
    """How much nine bytes that may be a frame header are worth: 0 where they are none, else WEAK or STRONG.

    Args:
        stream: With the reserved bit, which must be 0.
        likely: What frames of this direction may be.

    """
    if length > min(likely.frame_bytes, MAX_BELIEVED_BYTES) or stream > likely.highest + MAX_AHEAD:
        return 0
    if kind in (DATA, HEADERS, CONTINUATION, PUSH_PROMISE):
        if stream & 1 == 0 or flags & ~FLAGS[kind] or (flags & PADDED and length == 0):
            return 0  # pushed streams have even numbers, and browsers have given them up
        if kind == DATA:
            # nothing in nothing: found all over where bytes are 0
            return 0 if length == 0 and not flags else STRONG if stream in likely.known else WEAK
        return 0 if length == 0 or (kind == PUSH_PROMISE and likely.is_client is True) else WEAK
    if kind in (SETTINGS, PING):
        if stream or flags & ~ACK:
            return 0
        if kind == PING:
            return STRONG if length == 8 else 0
        if flags or length == 0:  # empty and no ACK: a 4 among zeros
            return 0 if length else STRONG if flags else WEAK
        return STRONG if length % 6 == 0 and length <= MAX_SETTINGS_BYTES else 0
    if flags:
        return 0
    if kind == RST_STREAM:
        return STRONG if length == 4 and stream else 0
    if kind == WINDOW_UPDATE:
        return STRONG if length == 4 else 0
    if kind == PRIORITY:
        return WEAK if length == 5 and stream else 0
    if kind == GOAWAY:
        return WEAK if length >= 8 and not stream else 0
    if kind in (ORIGIN, PRIORITY_UPDATE):
        return WEAK if length >= 4 and not stream else 0
    return WEAK if kind == ALTSVC and length >= 2 else 0


def _weigh_chain(held: bytes | bytearray, at: int, is_at_gap: bool, likely: Likely) -> int:
    """What the frames from here on are worth: 0 where one is none, ENOUGH or more where they are believed."""
    worth = 1 if is_at_gap else 0
    while worth < ENOUGH and len(held) - at >= HEADER_BYTES:
        upper, lower, kind, flags, stream = HEADER.unpack_from(held, at)
        length = upper << 8 | lower
        step = weigh_header(length, kind, flags, stream, likely)
        if step == 0:
            return 0
        worth += step
        at += HEADER_BYTES + length
        if at == len(held):
            worth += 1
    return worth


class Search:
    """Finds where frames begin in bytes that begin anywhere.

    A chain of headers must be worth ENOUGH, or what follows is awaited, at most two of the largest frames; one weak
    header does not keep from looking further. Nothing protects against a payload made to look like frames, so whoever
    searches must have said that bytes of every stream may be missing.

    Attributes:
        held: The bytes that may yet turn out to be frames.
        n_bytes: How many have come in all.
        n_skipped: How many were refused.
    """

    __slots__ = ("_gap_end", "_tried", "_waiting", "held", "n_bytes", "n_skipped")

    def __init__(self) -> None:
        self.n_bytes = self.n_skipped = 0
        self.held = bytearray()
        self.restart()

    def restart(self) -> None:
        """Begin anew behind another gap."""
        self.n_skipped += len(self.held)
        self.held = bytearray()
        self._waiting: list[int] = []
        self._tried = self._gap_end = 0

    def find(self, data: bytes | memoryview, likely: Likely) -> bytes | None:
        """Look at more bytes.

        Returns:
            All from the first frame header on, which may have come earlier; None as long as there is none.

        """
        self.n_bytes += len(data)
        if self.n_bytes - len(data) >= MAX_SEARCH_BYTES:
            self.restart()
            self.n_skipped += len(data)
            return None
        self.held += data
        held, n = self.held, len(self.held)
        waiting, worth = [], 0
        for at in self._waiting:
            worth = _weigh_chain(held, at, at == self._gap_end, likely)
            if worth >= ENOUGH:
                return self._take(at)
            if worth:
                waiting.append(at)
        while worth < STRONG and len(waiting) < MAX_WAITING:
            match = CANDIDATE.search(held, self._tried)
            at = match.start() if match else n
            if n - at < HEADER_BYTES:
                self._tried = max(self._tried, min(at, n - HEADER_BYTES + 1))
                break
            self._tried = at + 1
            worth = _weigh_chain(held, at, at == self._gap_end, likely)
            if worth >= ENOUGH:
                return self._take(at)
            if worth:
                waiting.append(at)
        done = waiting[0] if waiting else self._tried
        del held[:done]
        self.n_skipped += done
        self._waiting = [at - done for at in waiting]
        self._tried -= done
        self._gap_end -= done
        return None

    def _take(self, at: int) -> bytes:
        found = bytes(self.held[at:])
        self.n_skipped += at
        self.held = bytearray()
        return found
