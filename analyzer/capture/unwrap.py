"""TLS and HTTP/2 taken off: records in, plain bytes and what became of streams out; what `records` cut, opened here.

Whatever TLS or HTTP/2 wraps is read on by the steps that read plain TCP: bytes of HTTP/1.1 go back to `dispatch` as
spans, those of WebSockets on HTTP/2 streams to the frame walk.
"""

from array import array
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from analyzer.capture import reassemble, records
from analyzer.capture.alert import CLOSE_NOTIFY, FATAL, USER_CANCELED, is_failure, parse_alert
from analyzer.capture.fate import UNKNOWN as UNCOUNTED
from analyzer.capture.fate import Carrier, Fate, Fates
from analyzer.capture.half import UNKNOWN, State
from analyzer.capture.http2 import Http2
from analyzer.capture.http2_event import Answered, Data, GoneAway, Lost, Missed, Requested, Reset
from analyzer.capture.keylog import KeyLog
from analyzer.capture.lane import Flown, Lanes
from analyzer.capture.mark import EVERYTHING, Mark, Place
from analyzer.capture.sealed import ASKED, Told
from analyzer.capture.tls import Plain, Session
from analyzer.model import ALERT, APPLICATION_DATA, SPAN, Octets, Rows

MAX_HELD_BYTES = 1 << 26
"""Records held back until their keys come, over all connections; the oldest are given up first."""

MAX_MESSAGE_BYTES = 1 << 26
"""Handshake messages of TLS that are not complete, over all connections; the oldest are passed over unread first."""

FAST_AFTER_RECORDS = 2
"""Records of application data that a direction must have had opened one by one, in turn, before the next are opened
many at a time; twice as many each time that this came to an end."""

SLICE_RECORDS = 1 << 10
"""How many are looked at before those on lanes are left out anew."""

MAX_SLOW_RECORDS = 1 << 20
"""No more are asked for."""

MAX_KEPT = 6
MAX_KEPT_BYTES = 1 << 26
MAX_ALERT_BYTES = 64
"""Hellos and alerts of a connection that no keys can open, and their bytes over all connections. What is beyond is not
kept: nothing is said of that connection."""


class Secrets(Protocol):
    """Where keys come from."""

    keys: KeyLog
    may_come: bool
    """Whether records are worth holding back until later keys."""

    def has_hope(self) -> bool:
        """Whether there is any key, or may be."""

    def refresh(self) -> bool:
        """Look for keys that were not there before; whether some came, which `keys.version` tells, too."""


class Judge(Protocol):
    """Who decides what is said of connections that were never opened."""

    is_asserting: bool
    """Whether a connection may be said to be a WebSocket that does not look like one."""

    def see(self, place: Place) -> None:
        """A WebSocket was seen there."""

    def may_tell(self, shape: Rows) -> bool:
        """Whether it is worth while to look at a connection at all, by its SEALED."""

    def judge(self, session: Session, place: Place, shape: Rows, cutters: Rows, streams: Rows) -> Told | None:
        """What is said of it, None where nothing is."""

    def has_failed(self, session: Session, shape: Rows) -> bool:
        """Whether its TLS came to nothing: no keys would help."""


class Wrap(NamedTuple):
    """What a connection was wrapped in, as the columns of the same names say."""

    transport: str
    sni: str | None
    alpn: str | None
    tls_version: str | None


class Opened(NamedTuple):
    """Plain bytes and where they belong.

    `spans` are SPAN rows of TCP streams, `stream_spans` those whose `stream` is 2 * connection + side.
    """

    data: Octets
    spans: Rows
    stream_spans: Rows


class Wrapped:
    """One TCP connection whose content is wrapped.

    Attributes:
        session: Its TLS, None where HTTP/2 is in the clear.
        http2: Its HTTP/2, None where it carries something else.
        is_decided: Whether it is known what TLS carries: HTTP/2, or something else.
        has_plain: Whether anything of its content was seen.
        is_closed: Whether a direction has said, by an alert, that nothing more comes.
        heard_pos: How far a direction had come when its receiver sent an alert behind which that reads nothing more.
        kept: Hellos and alerts of TLS that no keys can open, unread: stream, kind, version, body, mark.
        early_losses: What a direction lacks, by direction, as long as nothing was opened.
        losses: The last time that it was said that a direction lacks bytes, nobody knows how many.
        carrier: The WebSockets on its HTTP/2 streams.
        n_read: Records of application data that were opened in turn, by direction.
        n_slow: How many it takes until a lane opens them.
        version: Of the key log when what it lacks was looked for the last time.

    """

    def __init__(self, session: Session | None) -> None:
        self.session = session
        self.http2: Http2 | None = None
        self.is_decided = False
        self.has_plain = False
        self.is_closed = [False, False]
        self.heard_pos = [EVERYTHING, EVERYTHING]
        self.kept: list[tuple[int, int, int, bytes, Mark]] = []
        self.early_losses: dict[int, Plain] = {}
        self.losses: dict[int, Plain] = {}
        self.carrier = Carrier()
        self.n_read = [0, 0]
        self.n_slow = [FAST_AFTER_RECORDS, FAST_AFTER_RECORDS]
        self.version = 0

    def read_kept(self) -> Session:
        """Its TLS; where no keys were there to open it, as far as hellos and alerts show it."""
        if self.session is None:
            self.session = Session(KeyLog())
            for record in self.kept:
                self.session.read(*record)
        return self.session

    def wrap(self) -> Wrap:
        """What is known of the wrapping."""
        session, is_http2 = self.session, self.http2 is not None
        if session is None:
            return Wrap("h2c" if is_http2 else "tls", None, None, None)
        return Wrap("h2" if is_http2 else "tls", session.sni, session.alpn, session.version)


class _Spans:
    """SPAN rows as they are found, the records they came from, and the bytes they point into."""

    def __init__(self) -> None:
        self.record = 0
        self.numbers, self.stream_numbers = array("q"), array("q")  # 64 bytes a row: tiny frames make 400,000 at once
        self.order: list[int] = []
        self.pieces: list[bytes | memoryview] = []
        self.n_bytes = 0

    def add_bytes(self, data: bytes | memoryview) -> int:
        off = self.n_bytes
        self.pieces.append(data)
        self.n_bytes += len(data)
        return off

    def add(self, stream: int, kind: int, off: int, n: int, mark: Mark) -> None:
        self.numbers.extend((mark.end_pos - n, off, n, mark.ts_ns, mark.packet, mark.ack_pos, stream, kind))
        self.order.append(self.record)

    def add_stream(self, stream: int, kind: int, off: int, n: int, mark: Mark) -> None:
        self.stream_numbers.extend((mark.end_pos - n, off, n, mark.ts_ns, mark.packet, mark.ack_pos, stream, kind))

    def align(self) -> int:
        """Have a whole number of words, return how many bytes that makes."""
        self.add_bytes(bytes(-self.n_bytes % 8))
        return self.n_bytes

    def opened(self, flown: Flown | None = None) -> Opened:
        """All of them, with what lanes opened where `n_bytes` stood, by the records they came from."""
        self.align()
        data = np.frombuffer(b"".join(self.pieces), np.uint8)
        rows = _to_spans(self.numbers)
        if flown is not None and len(flown.spans):
            rows = np.concatenate([rows, flown.spans])
            rows = rows[np.argsort(np.concatenate([np.array(self.order, np.int64), flown.order]), kind="stable")]
        return Opened(data, rows, _to_spans(self.stream_numbers))


def _to_spans(numbers: "array[int]") -> Rows:
    """SPAN rows of their fields, one behind the other."""
    table = np.frombuffer(numbers, np.int64).reshape(-1, len(SPAN.names or ()))
    rows = np.empty(len(table), SPAN)
    for i, name in enumerate(SPAN.names or ()):
        rows[name] = table[:, i]
    return rows


class Unwrapper:
    """Opens what `records` cut out, connection by connection.

    Attributes:
        n_dropped: Streams and header blocks of HTTP/2 that a limit dropped, over connections that are over.
        n_unread: Requests and answers of HTTP/2 whose headers could not be read, for bytes before them are missing.
        n_passed: TLS handshake messages that were passed over because too many were not complete.

    """

    def __init__(self, secrets: Secrets | None, judge: Judge | None) -> None:
        self._secrets = secrets
        self._judge = judge
        self._keys = KeyLog() if secrets is None else secrets.keys
        self._wrapped: dict[int, Wrapped] = {}
        self._lanes = Lanes()
        self._fresh: set[int] = set()
        """Lanes that opened while records were read one by one: what follows is theirs."""
        self._waiting: dict[int, int] = {}
        """Bytes held back, by LAYER index, oldest first."""
        self._n_held_bytes = 0
        self._gathering: dict[int, int] = {}
        """Bytes of handshake messages that are not complete, by LAYER index, oldest first."""
        self._n_gathered_bytes = 0
        self._n_kept_bytes = 0
        self.n_dropped = 0
        self.n_unread = 0
        self.n_passed = 0
        self._fates = Fates()

    def open(self, rows: Rows, arena: Octets, layers: Rows, host: "Host") -> Opened:
        """Open some records.

        Args:
            rows: RECORD rows.
            arena: Where their bodies lie.
            layers: LAYER rows; `depth` of those that cannot be opened is lowered.
            host: Who owns the CONNECTION rows.

        """
        spans, lanes = _Spans(), self._lanes
        lanes.grow(len(layers))
        for begin in range(0, len(rows), SLICE_RECORDS):
            others = begin + lanes.find_others(rows[begin : begin + SLICE_RECORDS])
            self._read(spans, rows, others, arena, layers, host, may_enter=True)
            self._fresh.clear()
        if not lanes.rows["is_fast"].any():
            return spans.opened()
        n_before = spans.align()
        flown = lanes.open(rows, arena, n_before)
        spans.add_bytes(flown.data.data)
        if len(flown.left):
            for lane in np.unique(2 * rows["layer"][flown.left] + (rows["stream"][flown.left] & 1)).tolist():
                self._leave(lane)
            self._read(spans, rows, flown.left, arena, layers, host, may_enter=False)
        return spans.opened(flown)

    def _read(
        self, spans: _Spans, rows: Rows, chosen: Rows, arena: Octets, layers: Rows, host: "Host", *, may_enter: bool
    ) -> None:
        """Read these records one by one."""
        columns = ("stream", "layer", "kind", "version", "off", "n_bytes", "is_whole", *Mark._fields)
        rows, bodies = rows[chosen], arena.data
        for i, stream, layer, kind, version, off, n, is_whole, *place in zip(
            chosen.tolist(), *(rows[name].tolist() for name in columns), strict=True
        ):
            direction = stream & 1
            if self._fresh and 2 * layer + direction in self._fresh:
                continue
            spans.record = i
            wrapped = self._wrapped.get(layer)
            if wrapped is None:
                is_followed = kind != records.PIECE and int(layers[layer]["depth"]) == records.ALL
                wrapped = self._wrapped[layer] = Wrapped(Session(self._keys) if is_followed else None)
            mark, session = Mark._make(place), wrapped.session
            body = bytes(bodies[off : off + n]) if is_whole else None
            if session is None:
                if kind == records.PIECE:
                    wrapped.http2 = wrapped.http2 or Http2(None)
                    wrapped.has_plain = True
                    self._multiplex(spans, wrapped, layers[layer], direction, body, n, mark, host)
                elif body is not None and len(wrapped.kept) < MAX_KEPT:
                    is_small = kind != ALERT or n <= MAX_ALERT_BYTES
                    if is_small and self._n_kept_bytes + n <= MAX_KEPT_BYTES:
                        self._n_kept_bytes += n
                        wrapped.kept.append((direction, kind, version, body, mark))
                continue
            if wrapped.is_closed[direction]:
                continue
            if body is not None and wrapped.is_decided and wrapped.http2 is None:
                data = session.read_data(direction, kind, version, body, mark)
                if data is not None:
                    if data:
                        spans.add(stream, reassemble.IN_PLAIN, spans.add_bytes(data), len(data), mark)
                    wrapped.n_read[direction] += 1
                    if may_enter and wrapped.n_read[direction] >= wrapped.n_slow[direction]:
                        self._enter(wrapped, session, layer, direction, i + 1)
                    continue
            wrapped.n_read[direction] = 0
            if body is not None:
                plain = session.read(direction, kind, version, body, mark)
            elif kind == records.LOST:
                plain = session.lose(direction, None)
            else:
                plain = session.miss(direction, n, mark, kind=kind)
            for some in plain:
                self._deliver(spans, wrapped, layers[layer], some, host)
            if session.gathered_bytes or layer in self._gathering:
                self._bound_messages(layer, session)
            if State.OPEN not in session.states or session.held_bytes or layer in self._waiting:
                self._wait(spans, wrapped, layer, layers[layer], host)

    def _bound_messages(self, layer: int, session: Session) -> None:
        """Note what a connection gathers of handshake messages; of all the oldest are passed over at the limit."""
        self._n_gathered_bytes += session.gathered_bytes - self._gathering.get(layer, 0)
        if session.gathered_bytes:
            self._gathering[layer] = session.gathered_bytes
        else:
            self._gathering.pop(layer, None)
        while self._n_gathered_bytes > MAX_MESSAGE_BYTES:
            oldest = next(iter(self._gathering))
            self._n_gathered_bytes -= self._gathering.pop(oldest)
            wrapped = self._wrapped[oldest]
            self.n_passed += 0 if wrapped.session is None else wrapped.session.pass_messages()

    def _enter(self, wrapped: Wrapped, session: Session, layer: int, direction: int, begin: int) -> None:
        """Have what follows in a direction opened many records at a time."""
        keys = session.give_lane(direction)
        if keys is None:
            wrapped.n_slow[direction] = MAX_SLOW_RECORDS  # the cipher is another
            return
        key, iv, seq = keys
        lane = 2 * layer + direction
        self._lanes.enter(lane, key, iv, seq, begin, is_13=session.is_13)
        self._fresh.add(lane)

    def _leave(self, lane: int) -> None:
        """Have what follows in a direction read one by one again."""
        left, wrapped = self._lanes.leave(lane), self._wrapped[lane >> 1]
        if left is not None and wrapped.session is not None:
            direction = lane & 1
            wrapped.session.take_lane(direction, *left)
            wrapped.n_read[direction] = 0
            wrapped.n_slow[direction] = min(2 * wrapped.n_slow[direction], MAX_SLOW_RECORDS)

    def _wait(self, spans: _Spans, wrapped: Wrapped, layer: int, layer_row: Rows, host: "Host") -> None:
        """Look for the keys that a connection lacks; without hope it stays sealed."""
        session = wrapped.session
        if session is None:
            return
        if _lacks_keys(session) and self._secrets is not None:
            self._secrets.refresh()
            if wrapped.version != self._keys.version:  # others may have found the keys that came
                wrapped.version = self._keys.version
                for some in session.retry():
                    self._deliver(spans, wrapped, layer_row, some, host)
        if (self._secrets is None or not self._secrets.may_come) and _lacks_keys(session):
            self._give_up(spans, wrapped, layer_row, host)
        if session.state is State.SEALED:
            layer_row["depth"] = min(int(layer_row["depth"]), records.HELLOS)
        self._n_held_bytes += session.held_bytes - self._waiting.get(layer, 0)
        if session.held_bytes:
            self._waiting[layer] = session.held_bytes
        else:
            self._waiting.pop(layer, None)
        while self._n_held_bytes > MAX_HELD_BYTES:
            oldest = next(iter(self._waiting))
            self._n_held_bytes -= self._waiting.pop(oldest)
            self._give_up(spans, self._wrapped[oldest], host.layer(oldest), host)

    def _give_up(self, spans: _Spans, wrapped: Wrapped, layer_row: Rows, host: "Host") -> None:
        if wrapped.session is not None:
            for some in wrapped.session.give_up():
                self._deliver(spans, wrapped, layer_row, some, host)

    def _deliver(self, spans: _Spans, wrapped: Wrapped, layer_row: Rows, plain: Plain, host: "Host") -> None:
        """Hand what was opened to whoever reads it on."""
        session = wrapped.session
        if plain.kind == ALERT and len(plain.data) == 2 and wrapped.has_plain:
            # nobody reads what comes behind a close_notify or an alert that is fatal (RFC 8446 section 6)
            level, name = parse_alert(plain.data)
            wrapped.is_closed[plain.direction] |= name != USER_CANCELED and (level == FATAL or name == CLOSE_NOTIFY)
            if session is not None and is_failure(level, name, is_13=session.is_13) and plain.mark.ack_pos > 0:
                other = 1 - plain.direction
                wrapped.heard_pos[other] = min(wrapped.heard_pos[other], plain.mark.ack_pos)
        if plain.kind != APPLICATION_DATA or session is None:
            return
        wrapped.has_plain |= len(plain.data) > 0
        if not wrapped.has_plain:
            if plain.lost_bytes:  # told once anything is opened: what one direction lacks may hide a Close
                wrapped.early_losses[plain.direction] = plain._replace(lost_bytes=UNKNOWN)
            return
        if plain.lost_bytes == UNKNOWN and not plain.data:
            wrapped.losses[plain.direction] = plain
        if wrapped.early_losses:
            early, wrapped.early_losses = wrapped.early_losses, {}
            if plain.direction in early and not plain.lost_bytes:
                plain = plain._replace(lost_bytes=UNKNOWN)
            for direction, lost in early.items():
                if direction != plain.direction:
                    self._deliver(spans, wrapped, layer_row, plain, host)
                    self._deliver(spans, wrapped, layer_row, lost, host)
                    return
        if not wrapped.is_decided:
            wrapped.is_decided = True
            is_client = session.client == plain.direction
            if session.alpn == "h2" or (session.alpn is None and is_client and Http2.is_preface(plain.data)):
                wrapped.http2 = Http2(session.client)
        if wrapped.http2 is not None:
            if plain.lost_bytes:
                self._multiplex(spans, wrapped, layer_row, plain.direction, None, plain.lost_bytes, plain.mark, host)
            if plain.data:
                self._multiplex(spans, wrapped, layer_row, plain.direction, plain.data, 0, plain.mark, host)
            return
        stream = 2 * int(layer_row["flow"]) + plain.direction
        if plain.lost_bytes:
            spans.add(stream, reassemble.MISSING_PLAIN, 0, max(0, plain.lost_bytes), plain.mark)
        if plain.data:
            off = spans.add_bytes(plain.data)
            spans.add(stream, reassemble.IN_PLAIN, off, len(plain.data), plain.mark)

    def _multiplex(
        self,
        spans: _Spans,
        wrapped: Wrapped,
        layer_row: Rows,
        direction: int,
        data: bytes | None,
        n_missing: int,
        mark: Mark,
        host: "Host",
    ) -> None:
        """Read HTTP/2, and note what became of the WebSockets on its streams."""
        http2 = wrapped.http2
        if http2 is None:
            return
        base = spans.n_bytes
        is_kept = False
        carrier, fates = wrapped.carrier, self._fates
        for event in http2.miss(direction, n_missing) if data is None else http2.read(direction, data, mark):
            if isinstance(event, Requested):
                self._begin_stream(wrapped, int(layer_row["flow"]), event, host)
                continue
            if isinstance(event, GoneAway):
                if http2.client is not None:
                    for stream in carrier.go_away(int(event.direction != http2.client), event):
                        fates.refuse(carrier.streams[stream], event)
                        host.end_stream(carrier.end(stream))
                continue
            index = carrier.streams.get(event.stream, -1)
            if index < 0:
                continue
            if isinstance(event, Answered):
                carrier.unanswered.pop(event.stream, None)
                host.answer_stream(index, event)
                continue
            side = 0 if event.direction == http2.client else 1
            if isinstance(event, Data | Missed | Lost) and host.is_rejected(index):
                continue  # the body of a refusal is no frames
            if isinstance(event, Data):
                is_kept = True
                at = base + event.off
                spans.add_stream(2 * index + side, reassemble.IN_PLAIN, at, event.n_bytes, event.mark)
            elif isinstance(event, Missed | Lost):
                n = event.n_bytes if isinstance(event, Missed) else 0
                spans.add_stream(2 * index + side, reassemble.MISSING_PLAIN, 0, n, mark)
            elif fates.end(index, side, event, carrier.away, is_answered=host.is_answered(index)):
                host.end_stream(carrier.end(event.stream))
            elif isinstance(event, Reset):
                carrier.wait(event.stream, 1 - event.direction, event.mark.ack_pos)
        for stream in carrier.advance(direction, mark.end_pos):
            host.end_stream(carrier.end(stream))
        if is_kept and data is not None:
            spans.add_bytes(data)

    def _begin_stream(self, wrapped: Wrapped, flow: int, event: Requested, host: "Host") -> None:
        """Take a row for a WebSocket that was asked for."""
        carrier, http2 = wrapped.carrier, wrapped.http2
        client = None if http2 is None else http2.client
        index = -1 if client is None else host.begin_stream(flow, client, event)
        if index < 0:
            self.n_dropped += 1
            carrier.n_dropped += 1
            return
        carrier.begin(event.stream, index)
        self._fates.begin(index)
        if event.stream > carrier.takes and carrier.refusal is not None:
            self._fates.refuse(index, carrier.refusal)
            host.end_stream(carrier.end(event.stream))

    def conclude(self, chosen: list[int], host: "Host") -> Opened:
        """These connections are over: what was held back for want of keys is opened now, or never."""
        spans = _Spans()
        for layer in chosen:
            wrapped = self._wrapped.get(layer)
            if wrapped is None or wrapped.session is None:
                continue
            if wrapped.session.state is State.WAITING:
                self._wait(spans, wrapped, layer, host.layer(layer), host)
            for some in wrapped.session.finish():
                self._deliver(spans, wrapped, host.layer(layer), some, host)
            for direction, lost in wrapped.losses.items():
                if wrapped.session.states[direction] is State.SEALED:
                    self._deliver(spans, wrapped, host.layer(layer), lost, host)  # for what began after it was sealed
            self._n_held_bytes -= self._waiting.pop(layer, 0)
        return spans.opened()

    def is_opened(self, layer: int) -> bool:
        """Whether a connection could be looked into."""
        wrapped = self._wrapped.get(layer)
        if wrapped is None:
            return False
        if wrapped.has_plain:
            return wrapped.session is None or State.SEALED not in wrapped.session.states
        return wrapped.session is not None and wrapped.session.state is State.OPEN and wrapped.session.is_established

    def was_opened(self, layer: int) -> bool:
        """Whether keys opened any record of a connection."""
        wrapped = self._wrapped.get(layer)
        session = None if wrapped is None else wrapped.session
        return wrapped is not None and session is not None and (wrapped.has_plain or session.state is State.OPEN)

    def see(self, place: Place) -> None:
        """A WebSocket was seen there."""
        if self._judge is not None:
            self._judge.see(place)

    def tell(self, layer: int, place: Place, shape: Rows, cutters: Rows, streams: Rows) -> Told | None:
        """What is said of a connection that is over and was never opened, None where nothing is.

        Args:
            place: Its server, without the name that the client asked for.
            shape: SEALED.
            cutters: CUTTER rows, the client's first; so too `streams`, its STREAM rows.

        """
        wrapped = self._wrapped.get(layer)
        if wrapped is None or wrapped.has_plain or self._judge is None or not self._judge.may_tell(shape):
            return None
        session = wrapped.read_kept()
        return self._judge.judge(session, place._replace(sni=session.sni), shape, cutters, streams)

    def has_failed(self, layer: int, shape: Rows) -> bool:
        """Whether the TLS of a connection that is over ended with an alert before it was established.

        Args:
            shape: SEALED.

        """
        wrapped = self._wrapped.get(layer)
        if wrapped is None or wrapped.has_plain or self._judge is None or int(shape["phase"]) >= ASKED:
            return False  # hellos of connections that asked for something are not read for this: 0.1 ms each
        if wrapped.session is None and not any(kind == ALERT for _, kind, _, _, _ in wrapped.kept):
            return False
        return self._judge.has_failed(wrapped.read_kept(), shape)

    def sealed_directions(self, layer: int) -> tuple[bool, bool]:
        """Which directions of a connection of which anything was opened are sealed by now."""
        wrapped = self._wrapped.get(layer)
        if wrapped is None or wrapped.session is None or not wrapped.has_plain:
            return False, False
        a, b = wrapped.session.states
        return a is State.SEALED, b is State.SEALED

    def heard_pos_of(self, layer: int, client: int) -> tuple[int, int]:
        """Up to where the receivers of what the client and what the server sent can have read it."""
        wrapped = self._wrapped.get(layer)
        if wrapped is None:
            return EVERYTHING, EVERYTHING
        return wrapped.heard_pos[client], wrapped.heard_pos[1 - client]

    def wrap_of(self, layer: int) -> Wrap | None:
        """What a connection is wrapped in, None where in nothing."""
        wrapped = self._wrapped.get(layer)
        return None if wrapped is None else wrapped.wrap()

    def key_log_of(self, layer: int) -> bytes:
        """Lines of a key log with all secrets of a connection, empty where there are none."""
        wrapped = self._wrapped.get(layer)
        random = None if wrapped is None or wrapped.session is None else wrapped.session.client_random
        secrets = None if random is None else self._keys.find(random)
        if random is None or secrets is None:
            return b""
        lines = ((label, secret) for label, rivals in secrets.items() for secret in rivals)
        return b"".join(f"{label} {random.hex()} {secret.hex()}\n".encode() for label, secret in lines)

    def streams_of(self, layer: int) -> Iterator[int]:
        """CONNECTION indexes of its HTTP/2 streams that have not ended."""
        wrapped = self._wrapped.get(layer)
        yield from () if wrapped is None else wrapped.carrier.streams.values()

    def take_end(self, connection: int, layer: int, streams: Rows, *, is_opened: bool) -> tuple[list[bool], Fate]:
        """Write into STREAM rows how the HTTP/2 stream of a connection ended, and forget it.

        Args:
            connection: CONNECTION index.
            layer: LAYER index.
            streams: The client's and the server's.
            is_opened: Whether it became a WebSocket.

        Returns:
            Of which side that is known, and what else is; WebSockets carried are to be asked for once all are taken.

        """
        wrapped = self._wrapped.get(layer)
        carrier = None if wrapped is None else wrapped.carrier
        if carrier is not None:
            carrier.n_carried += is_opened
        return self._fates.take(connection, streams, carrier)

    def n_carried(self, layer: int) -> int:
        """WebSockets on HTTP/2 streams of a connection, of those that were taken; below 0 where there may be more."""
        wrapped = self._wrapped.get(layer)
        if wrapped is None or wrapped.http2 is None:
            return UNCOUNTED
        http2 = wrapped.http2
        is_less = http2.n_lost_steps + http2.n_unread_requests + http2.n_dropped_streams + wrapped.carrier.n_dropped
        return UNCOUNTED if is_less else wrapped.carrier.n_carried

    def is_settled(self, connection: int, client_acked_pos: int, server_acked_pos: int) -> bool:
        """Whether TCP has acknowledged how both sides ended an HTTP/2 stream, as far as that matters to the other."""
        return self._fates.is_settled(connection, client_acked_pos, server_acked_pos)

    def forget(self, layer: int) -> None:
        """Let go of a connection."""
        wrapped = self._wrapped.pop(layer, None)
        if wrapped is not None:
            self._n_kept_bytes -= sum(len(body) for _, _, _, body, _ in wrapped.kept)
        if wrapped is not None and wrapped.http2 is not None:
            http2 = wrapped.http2
            self.n_dropped += http2.n_dropped_streams + http2.n_dropped_headers
            self.n_unread += http2.n_unread_requests + http2.n_unread_answers
        self._lanes.forget(layer)
        self._n_held_bytes -= self._waiting.pop(layer, 0)
        self._n_gathered_bytes -= self._gathering.pop(layer, 0)


def _lacks_keys(session: Session) -> bool:
    """Whether a direction waits for secrets that may still come."""
    return (State.WAITING in session.states or session.held_bytes > 0) and session.needs_keys


class Host(Protocol):
    """Who owns the CONNECTION rows."""

    def layer(self, index: int) -> Rows:
        """A LAYER row."""

    def begin_stream(self, flow: int, client: int, event: Requested) -> int:
        """Take a CONNECTION row for a WebSocket on an HTTP/2 stream; its index, -1 where there are too many."""

    def answer_stream(self, index: int, event: Answered) -> None:
        """Its request was answered."""

    def is_answered(self, index: int) -> bool:
        """Whether it was."""

    def is_rejected(self, index: int) -> bool:
        """Whether it was refused."""

    def end_stream(self, index: int) -> None:
        """It is over."""
