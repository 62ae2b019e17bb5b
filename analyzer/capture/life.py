"""One WebSocket connection's life as events: its opening, every frame, what is missing, how its transport ended.

Reads the capture once more, forward, with the kernels that the tables come from: follows one TCP connection, passes
over the packets of all others, and looks at the rows of `Tracker` after every step, so that events and tables tell the
same story. Parses nothing and decides nothing itself.
"""

import collections
import enum
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer import series, sources
from analyzer.capture import dispatch, flowtable, frames, handshake, reassemble
from analyzer.capture.container import Chunk, Reader
from analyzer.capture.finished import Finished
from analyzer.capture.numbering import Numbering
from analyzer.capture.sealed import Told
from analyzer.capture.tracker import Tracker
from analyzer.errors import UsageError
from analyzer.keys import KeyRing
from analyzer.model import SIDE, SPAN, Column, Endpoint, Octets, Received, Rows
from analyzer.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from analyzer.capture.http2_event import Answered, Requested
    from analyzer.capture.unwrap import Judge, Secrets

MAX_EVENTS = 20_000
"""Events of one life; beyond it only the Closes and the end of the transport are told, the rest is counted."""

SIDES = (Endpoint.CLIENT, Endpoint.SERVER)


class EventKind(enum.StrEnum):
    """What happened."""

    REQUEST = "request"  # the HTTP head that asks for the upgrade
    RESPONSE = "response"  # the head that answers it
    TEXT = "text"
    BINARY = "binary"
    CONTINUATION = "continuation"
    PING = "ping"
    PONG = "pong"
    CLOSE = "close"
    RESERVED = "reserved"  # a frame with an opcode that RFC 6455 section 5.2 keeps for later
    MISSING = "missing"  # bytes that the capture lacks
    FIN = "fin"
    RST = "rst"
    STREAM_END = "stream_end"  # END_STREAM on the HTTP/2 stream
    STREAM_RESET = "stream_reset"  # RST_STREAM
    SEALED = "sealed"  # what this side sent and no key opened, some of it or all
    SEALED_CLOSE = "sealed_close"  # a Close by the sizes of records that no key opened
    ALERT = "alert"  # by which TLS failed


STREAM_ENDS = {EventKind.FIN: EventKind.STREAM_END, EventKind.RST: EventKind.STREAM_RESET}
"""What ended an HTTP/2 stream, by what stands for it in STREAM rows."""

MISSING_KINDS = (reassemble.MISSING, reassemble.MISSING_PLAIN)
"""SPAN kinds without bytes."""

KINDS = {
    frames.CONTINUATION: EventKind.CONTINUATION,
    frames.TEXT: EventKind.TEXT,
    frames.BINARY: EventKind.BINARY,
    frames.CLOSE: EventKind.CLOSE,
    frames.PING: EventKind.PING,
    frames.PONG: EventKind.PONG,
}
"""Frames by opcode; every other one is reserved."""

LIFE = (
    Column("time", "time", "when its last byte was captured"),
    Column("packet", "int", "packet number of its last byte, from 1"),
    Column("side", "enum", "who sent it: client, server"),
    Column("kind", "enum", ", ".join(EventKind)),
    Column(
        "payload_bytes", "int", "payload as the frame header states it, size of an HTTP head, number of bytes missing"
    ),
    Column("code", "int", "status of a side's first Close"),
    Column("source", "text", "file that holds this packet"),
)


class Event(NamedTuple):
    """One thing that one side did.

    Attributes:
        ts_ns, packet: Of the last byte of it that was captured; of missing bytes, those of the first packet behind.
        side: Who sent it.
        payload_bytes: What the frame header states, at most 2^63-1; the size of an HTTP head; how many bytes are
            missing; 0 for ends, and for what was not opened.
        source: File that holds the packet.
        code: Status of a Close. None where it has none, where its body was not captured whole, and for all Closes of a
            side but the first, which nobody reads (RFC 6455 section 7.1.5).

    """

    ts_ns: int
    packet: int
    side: Endpoint
    kind: EventKind
    payload_bytes: int = 0
    code: int | None = None
    source: str = ""


class Life(NamedTuple):
    """What happened on one connection, in the order of its packets.

    Attributes:
        events: The first ones up to the limit, and always each side's first Close and the end of the transport.
        n_more: How many others there were, all of them behind the limit.

    """

    events: list[Event]
    n_more: int

    def to_pandas(self) -> "pd.DataFrame":
        """One row per event: time, packet, side, kind, payload_bytes, code, source."""
        columns = zip(*self.events, strict=True) if self.events else [()] * len(LIFE)
        names = [column.name for column in LIFE]
        return Table(LIFE, dict(zip(names, columns, strict=True))).to_pandas()


class _Place(NamedTuple):
    """An endpoint as SEGMENT and FLOW rows hold it."""

    hi: int
    lo: int
    port: int


class Wanted(NamedTuple):
    """Which connection is told: endpoints, first packet of its TCP connection, its place or stream there."""

    client: _Place
    server: _Place
    first_ns: int
    ordinal: int
    http2_stream: int = 0


def read_life(
    source: sources.Source,
    connection: Mapping[str, Any],
    *,
    following: Sequence[series.Member] = (),
    ports: tuple[int, ...] = (),
    keys: Sequence[Path] = (),
    judge: "Judge | None" = None,
    max_events: int = MAX_EVENTS,
) -> Life:
    """Read what happened on one connection, in one pass that ends soon after the connection does.

    Args:
        source: The capture in which it begins. One that is cut off or damaged gives what can be read.
        connection: Its row of the connections table; `connection`, `client` and `server` are looked at.
        following: Captures that may continue this one, in their order.
        ports: As given when the table was made, and so the keys.
        keys: Key logs.
        judge: Says what can be said of it where no key opens it, as when the table was made.
        max_events: How many events are kept, not counting Closes and the end of the transport.

    Returns:
        Its events, none where this capture does not hold it.

    Raises:
        UsageError: That is no row of the connections table.
        CaptureError: The source cannot be read, or is no capture.

    """
    ring = KeyRing(keys)
    follower = _Follower(parse_wanted(connection), ports=ports, secrets=ring, judge=judge, max_events=max_events)
    begun: Reader | None = None
    for reader, chunk in series.read_with_keys((series.Member(source), *following), ring):
        if reader is not begun:
            begun = reader
            follower.numbering.begin(reader.source)
        follower.numbering.add(len(chunk.packets))
        life = follower.tell(follower.feed(chunk))
        if life is not None:
            return life
    return follower.tell(follower.finish()) or Life([], 0)


def _parse_place(text: str) -> _Place:
    host, _, port = text.rpartition(":")
    address = ipaddress.ip_address(host.strip("[]"))
    number = int(address) | flowtable.IPV4_MAPPED << 32 if address.version == 4 else int(address)
    hi, lo = np.array([number >> 64, number & (1 << 64) - 1], np.uint64).view(np.int64).tolist()
    return _Place(hi, lo, int(port))


def parse_wanted(connection: Mapping[str, Any]) -> Wanted:
    """Read the key of a connection back; the inverse of how `verdict.connections` makes it."""
    try:
        key, client, server = (str(connection[name]) for name in ("connection", "client", "server"))
        stamp, _, rest = key.partition("Z-")
        behind = rest.removeprefix(f"{client}-{server}")
        if behind == rest:
            raise ValueError("the key names other endpoints")
        date, clock = stamp.split("T")
        moment = f"{date[:4]}-{date[4:6]}-{date[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
        first_ns = int(np.datetime64(moment, "ns").astype(np.int64))
        if behind.startswith("-s"):
            return Wanted(_parse_place(client), _parse_place(server), first_ns, 0, int(behind[2:]))
        ordinal = int(behind.removeprefix("-")) - 1 if behind else 0
        return Wanted(_parse_place(client), _parse_place(server), first_ns, ordinal)
    except (KeyError, ValueError, OverflowError) as error:
        raise UsageError(f"not a row of the connections table: {error}") from error


class NarrowTracker(Tracker):
    """A tracker that sees one TCP connection only: the wanted one, and those between the same ports after it."""

    def __init__(
        self,
        wanted: Wanted,
        *,
        ports: tuple[int, ...] = (),
        secrets: "Secrets | None" = None,
        judge: "Judge | None" = None,
    ) -> None:
        super().__init__(ports=ports, secrets=secrets, judge=judge)
        self._wanted = wanted
        self._has_begun = False
        self._n_segments: int | None = None

    def feed(self, chunk: Chunk) -> list[Finished]:
        """Follow the wanted connection's packets of one chunk."""
        self._n_segments = None
        return super().feed(chunk)

    def _scan_segments(self, data: Octets, segments: Rows, start: int) -> int:
        if self._n_segments is None:
            # moved to the front of the same array: the caller finds a segment there by the index returned to it
            chosen = self.choose(segments)
            segments[: len(chosen)] = chosen
            self._n_segments = len(chosen)
        return super()._scan_segments(data, segments[: self._n_segments], start)

    def choose(self, segments: Rows) -> Rows:
        """Segments between the wanted endpoints, from the one on with which their TCP connection began."""
        client, server = self._wanted.client, self._wanted.server
        chosen: Rows = segments[_travels(segments, client, server) | _travels(segments, server, client)]
        if not self._has_begun:
            at = np.flatnonzero(chosen["ts_ns"] == self._wanted.first_ns)
            self._has_begun = len(at) > 0
            chosen = chosen[at[0] :] if len(at) else chosen[:0]
        return chosen


class _Follower(NarrowTracker):
    """Reads one TCP connection in small steps, and writes down what each step met."""

    def __init__(
        self,
        wanted: Wanted,
        *,
        ports: tuple[int, ...],
        max_events: int,
        secrets: "Secrets | None" = None,
        judge: "Judge | None" = None,
    ) -> None:
        super().__init__(wanted, ports=ports, secrets=secrets, judge=judge)
        self.numbering = Numbering()
        self._opening_state[dispatch.STEPWISE] = 1
        self._client_stream = 0 if wanted.client <= wanted.server else 1
        self._max_events = max_events
        self._flow = -1
        self._piece = np.zeros(1, SPAN)
        self._events: list[Event] = []
        self._n_more: collections.Counter[tuple[Endpoint, bool]] = collections.Counter()
        """Events that were only counted, by side and whether they are missing bytes."""
        self._n_frames = [0, 0]
        self._under_way: list[int | None] = [None, None]
        """Per side the place in `_events` of a frame whose payload has not passed yet."""
        self._closes: list[int | None] = [None, None]
        """And of its first Close."""

    def _read_all(self, data: Octets, spans: Rows) -> None:
        for span in spans:
            self._follow(data, span)

    def _follow(self, data: Octets, span: Rows) -> None:
        """Read one span in steps that begin or end one frame at most."""
        self._piece[0] = span
        piece = self._piece[0]
        left = int(piece["n_bytes"])
        if self._is_wrapped(piece):
            self._read_spans(data, self._piece.copy())  # what is unwrapped meanwhile comes in pieces, too
            return
        if int(piece["kind"]) not in MISSING_KINDS:
            self._judge(data, piece)
        side = (int(piece["stream"]) & 1) ^ self._client_stream
        if not left:
            self._read_spans(data, self._piece)  # missing bytes, nobody knows how many
        while left:
            walk = self._find_walk(piece, side)
            size = left if walk is None else self._step_bytes(piece, left, walk, side)
            had_step = walk is not None and int(walk["walk"]) == frames.IN_STEP
            piece["n_bytes"] = size
            self._read_spans(data, self._piece)
            size += int(self._opening_state[handshake.RESUME])
            self._opening_state[handshake.RESUME] = 0
            if int(piece["kind"]) in MISSING_KINDS and self._is_wanted(self._carried(int(piece["stream"]) >> 1)):
                self._write_gap(piece, side)
            if walk is not None:
                self._look_at_walk(piece, walk, side)
            left -= size
            piece["pos"] += size
            piece["off"] += size
            if had_step and walk is not None and int(walk["walk"]) == frames.OUT_OF_STEP:
                # a length beyond belief: the walk passes over the rest of what this segment carried
                self._streams[int(piece["stream"])]["read_pos"] = int(piece["pos"]) + left
                return

    def _read_streams(self, data: Octets, spans: Rows) -> None:
        for span in spans:
            self._follow_stream(data, span)

    def _follow_stream(self, data: Octets, span: Rows) -> None:
        """The same for what an HTTP/2 stream carried."""
        self._piece[0] = span
        piece = self._piece[0]
        connection, side = int(piece["stream"]) >> 1, int(piece["stream"]) & 1
        left = int(piece["n_bytes"])
        if not left or not self._is_wanted(connection):
            super()._read_streams(data, self._piece)
            return
        walk = self._sides[int(piece["stream"])]
        while left:
            size = self._step_bytes(piece, left, walk, side)
            piece["n_bytes"] = size
            super()._read_streams(data, self._piece)
            if int(piece["kind"]) in MISSING_KINDS:
                self._write_gap(piece, side)
            self._look_at_walk(piece, walk, side)
            left -= size
            piece["pos"] += size
            piece["off"] += size

    def begin_stream(self, flow: int, client: int, event: "Requested") -> int:
        """Take a CONNECTION row, and write down that it was asked for."""
        index = super().begin_stream(flow, client, event)
        if self._is_wanted(index):
            self._write(Event(event.mark.ts_ns, event.mark.packet, SIDES[0], EventKind.REQUEST))
        return index

    def answer_stream(self, index: int, event: "Answered") -> None:
        """Take an answer, and write it down."""
        super().answer_stream(index, event)
        if self._is_wanted(index):
            self._write(Event(event.mark.ts_ns, event.mark.packet, SIDES[1], EventKind.RESPONSE))

    def _is_wrapped(self, piece: Rows) -> bool:
        """Whether these bytes are TLS or HTTP/2, whose content comes by itself."""
        is_raw = int(piece["kind"]) in (reassemble.IN_CHUNK, reassemble.IN_POOL, reassemble.MISSING)
        return is_raw and int(self._flows[int(piece["stream"]) >> 1]["layer"]) >= 0

    def _judge(self, data: Octets, piece: Rows) -> None:
        """Step is found, or not, in what a segment carried as a whole: before that is cut."""
        if not self._opening_state[handshake.FREE_CONNECTIONS]:
            self._grow_connections(len(self._connections))
        buffer = data
        if int(piece["kind"]) == reassemble.IN_POOL:
            buffer = self._pool.view()
            buffer.flags.writeable = False
        index = int(piece["stream"])
        dispatch.judge_span(
            buffer,
            int(piece["off"]),
            int(piece["n_bytes"]),
            index,
            self._flows,
            self._streams,
            self._connections,
            self._sides,
            self._free_connections,
            self._ports,
            self._opening_state,
        )
        connection = self._carried(index >> 1)
        if self._flow != index >> 1 or (connection >= 0 and not self._is_wanted(connection)):
            return
        walks = self._sides[2 * connection : 2 * connection + 2] if connection >= 0 else np.zeros(2, SIDE)
        is_new = not walks["frames"].any() and not walks["gap_bytes"].any()
        if is_new and int(self._flows[index >> 1]["connection"]) < 0:
            self._forget(SIDES, with_missing=True)  # what was followed before turned out to be no frames
        for side in range(2):
            if int(walks[side]["frames"]) < self._n_frames[side]:
                self._forget(SIDES[side : side + 1])

    def _forget(self, sides: tuple[Endpoint, ...], *, with_missing: bool = False) -> None:
        """Take back what was told of one side or both before it was proven to speak in frames."""

        def is_kept(event: Event) -> bool:
            return event.side not in sides or (event.kind == EventKind.MISSING and not with_missing)

        kept = [event for event in self._events if is_kept(event)]
        places = {id(event): at for at, event in enumerate(kept)}
        for marks in (self._under_way, self._closes):
            for side, at in enumerate(marks):
                marks[side] = None if at is None else places.get(id(self._events[at]))
        for endpoint in sides:
            self._n_frames[SIDES.index(endpoint)] = 0
            self._n_more[endpoint, False] = 0
            if with_missing:
                self._n_more[endpoint, True] = 0
        self._events = kept

    def _carried(self, flow: int) -> int:
        """The connection that a flow carries, or may carry."""
        connection = int(self._flows[flow]["connection"])
        return connection if connection >= 0 else int(self._flows[flow]["candidate"])

    def _find_walk(self, piece: Rows, side: int) -> Rows | None:
        """The SIDE row of the frame walk that this piece goes to, None where it goes elsewhere or is not wanted."""
        index = int(piece["stream"])
        connection = self._carried(index >> 1)
        is_walked = int(self._streams[index]["mode"]) == flowtable.FRAMES
        is_walked |= int(piece["kind"]) not in MISSING_KINDS and int(self._opening_state[handshake.JUDGED]) >= 0
        if not is_walked or not self._is_wanted(connection):
            return None
        walk: Rows = self._sides[2 * connection + side]
        return walk

    def _is_wanted(self, connection: int) -> bool:
        """Whether this is the connection to tell of: the first with its ordinal, for earlier flows were passed over."""
        if connection < 0:
            return False
        row = self._connections[connection]
        if (int(row["ordinal"]), int(row["http2_stream"])) != (self._wanted.ordinal, self._wanted.http2_stream):
            return False
        flow = int(row["flow"])
        if self._flow < 0:
            self._flow = flow
        return flow == self._flow

    def _step_bytes(self, piece: Rows, left: int, walk: Rows, side: int) -> int:
        """How much of this piece to read at once: a part of a frame header, or what is left of a payload."""
        is_full = len(self._events) >= self._max_events and self._under_way[side] is None
        is_lost = int(walk["walk"]) == frames.OUT_OF_STEP
        if int(piece["kind"]) in MISSING_KINDS or is_full or is_lost:
            return left
        rest = int(walk["skip_bytes"])
        if not rest:
            have = int(walk["header_bytes"])
            rest = frames.header_size(walk["header"], have) - have
        return min(left, rest)

    def _write_gap(self, piece: Rows, side: int) -> None:
        """Write down missing bytes, also where they were part of the opening."""
        moment = int(piece["ts_ns"]), int(piece["packet"])
        self._write(Event(*moment, SIDES[side], EventKind.MISSING, int(piece["n_bytes"])))

    def _look_at_walk(self, piece: Rows, walk: Rows, side: int) -> None:
        """Write down which frame the walk has just begun, carried on or ended."""
        n_begun = int(walk["frames"]) - self._n_frames[side]
        self._n_frames[side] += n_begun
        at = self._under_way[side]
        if n_begun == 1 and len(self._events) < self._max_events:
            at = self._begin_frame(piece, walk, side)
        elif n_begun:
            self._n_more[SIDES[side], False] += n_begun
        elif at is not None and int(piece["kind"]) not in MISSING_KINDS:
            event = self._events[at]
            latest = max(event.ts_ns, int(piece["ts_ns"])), max(event.packet, int(piece["packet"]))
            self._events[at] = event._replace(ts_ns=latest[0], packet=latest[1])
        self._under_way[side] = at if int(walk["skip_bytes"]) else None

    def _begin_frame(self, piece: Rows, walk: Rows, side: int) -> int | None:
        opcode = int(walk["header"][0]) & 15
        # a length with its top bit set makes the walk lose step at once
        size = frames.MOST_BYTES if int(walk["walk"]) == frames.OUT_OF_STEP else int(walk["frame_bytes"])
        moment = int(piece["ts_ns"]), int(piece["packet"])
        at = self._write(Event(*moment, SIDES[side], KINDS.get(opcode, EventKind.RESERVED), size))
        if int(walk["opcode"]) == frames.CLOSE:
            self._closes[side] = at
        return at

    def _write(self, event: Event) -> int | None:
        """Keep an event, or count it; its place."""
        if len(self._events) >= self._max_events:
            self._n_more[event.side, event.kind == EventKind.MISSING] += 1
            return None
        self._events.append(event)
        return len(self._events) - 1

    def _take_heads(self) -> None:
        for opening in self._openings[: int(self._opening_state[handshake.N_OPENINGS])]:
            connection = int(opening["connection"])
            if not self._is_wanted(connection):
                continue
            row, size = self._connections[connection], int(opening["n_bytes"])
            if int(opening["kind"]) == handshake.REQUEST:
                moment, side, kind = ("request_ns", "request_packet"), Endpoint.CLIENT, EventKind.REQUEST
            else:
                moment, side, kind = ("opened_ns", "response_packet"), Endpoint.SERVER, EventKind.RESPONSE
            self._write(Event(int(row[moment[0]]), int(row[moment[1]]), side, kind, size))
        super()._take_heads()

    def tell(self, finished: list[Finished]) -> Life | None:
        """The life of the wanted connection, if it is among these that are over."""
        for some in finished:
            rows = some.connections
            is_it = (rows["ordinal"] == self._wanted.ordinal) & (rows["http2_stream"] == self._wanted.http2_stream)
            is_flow = rows["flow"] == self._flow
            if self._flow < 0:
                is_flow[list(some.told)] = True  # what stays closed is met here first
            for i in np.flatnonzero(is_flow & is_it).tolist():
                told = some.told.get(i)
                for side in range(2):
                    if told is None:
                        self._write_close(side, some.sides[i, side])
                    else:
                        self._write_told(side, told)
                    if some.sealed[i, side] or (told is not None and told.alert is None):
                        # from which record on is not known: it stands where the TCP connection begins
                        begun = int(some.flows[i]["first_ns"]), int(some.flows[i]["first_packet"])
                        self._events.append(Event(*begun, SIDES[side], EventKind.SEALED))
                    if not some.superseded[i]:  # else the end is that of a later attempt
                        self._write_end(side, some.streams[i, side], on_stream=bool(some.by_stream[i, side]))
                return Life(self._place_events(), self._n_more.total())
        return None

    def _place_events(self) -> list[Event]:
        """The events by packet, each with its file; what one packet carried stays as it stood there."""
        events = sorted(self._events, key=lambda event: event.packet)
        packets = np.array([event.packet for event in events], np.int64)
        places = zip(
            self.numbering.sources_of(packets).to_list(), self.numbering.numbers_of(packets).tolist(), strict=True
        )
        return [
            event._replace(source=source, packet=packet) for event, (source, packet) in zip(events, places, strict=True)
        ]

    def _write_close(self, side: int, walk: Rows) -> None:
        """Tell a side's first Close as the tables have it, whatever the limit."""
        if int(walk["close"]) == frames.NO_CLOSE:
            return
        code = None
        if int(walk["close"]) == frames.STATUS_CLOSE:
            code = frames.parse_close_body(walk["body"][: int(walk["body_bytes"])].tobytes()).status
        size = int(walk["close_bytes"]) if int(walk["close_bytes"]) >= 0 else frames.MOST_BYTES
        event = Event(int(walk["close_ns"]), int(walk["close_packet"]), SIDES[side], EventKind.CLOSE, size, code)
        at = self._closes[side]
        if at is None:
            self._events.append(event)
            self._n_more[SIDES[side], False] -= 1
        else:
            self._events[at] = event

    def _write_told(self, side: int, told: Told) -> None:
        """Tell what is said of one side of TLS that was never opened."""
        if told.alert is not None:
            kind, is_said = EventKind.ALERT, told.alert[0] == side
        else:
            kind, is_said = EventKind.SEALED_CLOSE, told.sent[side] in (Received.EMPTY, Received.SEALED)
        if is_said:
            self._events.append(Event(told.close_ns[side], told.close_packet[side], SIDES[side], kind))

    def _write_end(self, side: int, stream: Rows, *, on_stream: bool) -> None:
        """Tell how the transport ended, whatever the limit, and which bytes before that were never captured."""
        next_pos = int(stream["next_pos"])
        for kind in STREAM_ENDS:
            ts_ns, packet = int(stream[f"{kind}_ns"]), int(stream[f"{kind}_packet"])
            if packet:
                n_missing = int(stream[f"{kind}_pos"]) - next_pos
                if n_missing > 0:
                    self._events.append(Event(ts_ns, packet, SIDES[side], EventKind.MISSING, n_missing))
                self._events.append(Event(ts_ns, packet, SIDES[side], STREAM_ENDS[kind] if on_stream else kind))
                next_pos = frames.MOST_BYTES  # nothing can be missing behind a FIN


def _travels(segments: Rows, sender: _Place, receiver: _Place) -> npt.NDArray[np.bool_]:
    """Which of these segments go from one endpoint to the other."""
    is_chosen = np.ones(len(segments), np.bool_)
    for end, port, place in (("src", "sport", sender), ("dst", "dport", receiver)):
        is_chosen &= segments[port] == place.port
        is_chosen &= segments[f"{end}_lo"] == place.lo
        is_chosen &= segments[f"{end}_hi"] == place.hi
    return is_chosen
