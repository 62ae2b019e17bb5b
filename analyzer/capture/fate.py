"""What became of WebSockets on HTTP/2 streams: how each ended, and what was said to all of one connection.

Keeps what HTTP/2 tells until the rows of the connections are made, in bounded memory; reads no bytes.
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from analyzer.capture.http2_event import Ended, GoneAway, Reset
from analyzer.capture.mark import Mark
from analyzer.model import ANY_STREAM, Rows

REFUSED = ("REFUSED_STREAM", "HTTP_1_1_REQUIRED")
"""Resets after which a client asks again elsewhere (RFC 9113 sections 7 and 8.7): that request was never answered."""

UNKNOWN = -1
"""How many WebSockets a connection carried where requests may have been missed."""

CLIENT, SERVER = 0, 1


class StreamEnd(NamedTuple):
    """How one side ended an HTTP/2 stream: by END_STREAM, or by RST_STREAM, or by one behind the other (`reset`)."""

    is_reset: bool
    mark: Mark
    reset: Mark | None


class Away(NamedTuple):
    """What a GOAWAY said, and which side: that of the first error, else the first."""

    side: int
    last_stream: int
    code_name: str
    debug: bytes


class Fate(NamedTuple):
    """What HTTP/2 tells of a WebSocket beside its bytes and ends.

    Args:
        reset: Which side sent RST_STREAM first, and the name of its error code, None where the capture lacks it.
        away: A GOAWAY that came before the stream had ended.
        is_refused: The server said that it never looked at the request.
        is_gone: It said so by that GOAWAY.
        n_carried: WebSockets that the TCP connection has carried whose rows are made, this one's batch included;
            UNKNOWN where requests may have been missed.
    """

    reset: tuple[int, str | None] | None
    away: Away | None
    is_refused: bool
    is_gone: bool
    n_carried: int


class _Course:
    """A stream of which no row was made yet."""

    __slots__ = ("away", "ends", "is_gone", "is_refused", "reset")

    def __init__(self) -> None:
        self.ends: list[StreamEnd | None] = [None, None]
        self.reset: tuple[int, str | None] | None = None
        self.away: Away | None = None
        self.is_refused = self.is_gone = False


class Carrier:
    """One HTTP/2 connection: the WebSockets that are alive on it, and what concerns several of them.

    Attributes:
        streams: Their CONNECTION indexes by stream, ascending.
        unanswered: Those whose request was not answered yet, ascending.
        away: The GOAWAY that tells most.
        takes: The highest stream that the server takes.
        refusal: The GOAWAY that said so.
        n_carried: WebSockets that were opened and have their rows.
        n_dropped: Requests for which there was no room.

    """

    def __init__(self) -> None:
        self.streams: dict[int, int] = {}
        self.unanswered: dict[int, None] = {}
        self.away: Away | None = None
        self.takes = ANY_STREAM
        self.refusal: GoneAway | None = None
        self.n_carried = self.n_dropped = 0
        self._read_pos = [0, 0]
        self._awaited: dict[int, tuple[int, int]] = {}
        self._order: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])

    def begin(self, stream: int, index: int) -> None:
        """A WebSocket was asked for."""
        self.streams[stream] = index
        self.unanswered[stream] = None

    def end(self, stream: int) -> int:
        """A stream is over; its CONNECTION index."""
        self.unanswered.pop(stream, None)
        self._awaited.pop(stream, None)
        return self.streams.pop(stream)

    def go_away(self, side: int, event: GoneAway) -> list[int]:
        """Take note of a GOAWAY; the streams that it refuses come back."""
        away = Away(side, event.last_stream, event.code_name, event.debug)
        known = self.away
        if known is None or (known.code_name == "NO_ERROR" and away.code_name != "NO_ERROR"):
            self.away = away
        elif known.side == side and known.code_name == away.code_name and away.last_stream < known.last_stream:
            self.away = known._replace(last_stream=away.last_stream)  # announced first, now in earnest
        if side == CLIENT:
            return []  # it speaks of streams that the server would have begun
        if event.last_stream <= self.takes:
            self.takes, self.refusal = event.last_stream, event
        refused = []
        while self.unanswered and next(reversed(self.unanswered)) > self.takes:
            refused.append(self.unanswered.popitem()[0])
        return refused

    def wait(self, stream: int, direction: int, pos: int) -> None:
        """A stream was reset: it is over once a direction was read up to here.

        What the sender of the reset had read by then may be read here later: segments come in another order.
        """
        if stream in self._awaited:
            return
        self._awaited[stream] = direction, pos
        order = self._order[direction]
        heapq.heappush(order, (pos, stream))
        if len(order) > 2 * len(self._awaited) + 64:  # of streams that ended otherwise
            order[:] = [entry for entry in order if self._awaited.get(entry[1]) == (direction, entry[0])]
            heapq.heapify(order)

    def advance(self, direction: int, pos: int) -> Iterator[int]:
        """A direction was read up to here: the streams that are over with it."""
        self._read_pos[direction] = max(self._read_pos[direction], pos)
        for other, order in enumerate(self._order):
            while order and order[0][0] <= self._read_pos[other]:
                end_pos, stream = heapq.heappop(order)
                if self._awaited.get(stream) == (other, end_pos):
                    yield stream


class Fates:
    """Every stream of which no row was made yet, by CONNECTION index."""

    def __init__(self) -> None:
        self._courses: dict[int, _Course] = {}

    def begin(self, index: int) -> None:
        """A WebSocket was asked for on a stream."""
        self._courses[index] = _Course()

    def refuse(self, index: int, event: GoneAway) -> None:
        """The server said by a GOAWAY that it never looks at the request."""
        course = self._courses[index]
        course.is_refused = course.is_gone = True
        course.away = Away(SERVER, event.last_stream, event.code_name, event.debug)
        course.ends[SERVER] = course.ends[SERVER] or StreamEnd(True, event.mark, event.mark)

    def end(self, index: int, side: int, event: Ended | Reset, away: Away | None, *, is_answered: bool) -> bool:
        """One side ended or reset the stream; whether both have."""
        course = self._courses[index]
        if course.ends == [None, None]:
            course.away = away  # one that comes later explains nothing
        if isinstance(event, Reset):
            course.is_refused |= event.code_name in REFUSED and side == SERVER and not is_answered
            course.reset = course.reset or (side, event.code_name)
        end, reset = course.ends[side], event.mark if isinstance(event, Reset) else None
        if end is None:
            course.ends[side] = StreamEnd(reset is not None, event.mark, reset)
        elif end.reset is None:
            course.ends[side] = end._replace(reset=reset)
        return all(course.ends)

    def is_settled(self, index: int, client_acked_pos: int, server_acked_pos: int) -> bool:
        """Whether TCP has acknowledged how both sides ended a stream, as far as that matters to the other."""
        course = self._courses.get(index)
        ends = [None, None] if course is None else course.ends
        for end, other, acked_pos in zip(ends, ends[::-1], (client_acked_pos, server_acked_pos), strict=True):
            if end is not None and acked_pos < end.mark.end_pos and not (other is not None and other.reset):
                return False
        return True

    def take(self, index: int, streams: Rows, carrier: Carrier | None) -> tuple[list[bool], Fate]:
        """Write into STREAM rows, the client's first, how a stream ended, and forget it.

        Returns:
            Of which side that is known, and what else is; WebSockets carried are not counted here.

        """
        course = self._courses.pop(index, None) or _Course()
        away = course.away
        if course.ends == [None, None] and carrier is not None:
            away = carrier.away  # it was alive to the end
        return put_ends(streams, course.ends), Fate(course.reset, away, course.is_refused, course.is_gone, UNKNOWN)


def put_ends(streams: Rows, ends: Sequence[StreamEnd | None]) -> list[bool]:
    """Write into STREAM rows, the client's and the server's, how an HTTP/2 stream ended; of which it did comes back.

    What happens to the TCP connection behind that is of no meaning for the stream.
    """
    is_over = all(ends) or any(end is not None and end.reset for end in ends)
    for stream, end, other in zip(streams, ends, ends[::-1], strict=True):
        if is_over or end is not None:
            if int(stream["fin_packet"]):
                stream["acked_pos"] = min(int(stream["acked_pos"]), int(stream["fin_pos"]))
            stream["fin_packet"] = stream["rst_packet"] = 0
        if other is not None and other.reset:
            # TCP goes on, but whoever has reset a stream reads no more of it
            stream["acked_pos"] = min(int(stream["acked_pos"]), other.reset.ack_pos)
        if end is None:
            continue
        pos = end.mark.end_pos
        stream["next_pos"] = pos
        stream["acked_pos"] = min(int(stream["acked_pos"]), pos)
        for name, mark in (("fin", None if end.is_reset else end.mark), ("rst", end.reset)):
            if mark is not None:
                stream[f"{name}_pos"], stream[f"{name}_packet"], stream[f"{name}_ns"] = pos, mark.packet, mark.ts_ns
        if end.reset:
            stream["rst_acked_pos"] = end.reset.ack_pos
    return [end is not None for end in ends]
