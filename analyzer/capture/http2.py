"""One HTTP/2 connection as an observer sees it: its WebSockets, each a stream opened by extended CONNECT (RFC 8441).

Bytes of either direction go in as they come; what happens to WebSockets comes out, in order. Other requests give no
events, but their header blocks are read, for HPACK's sake. Of a payload only its place is told, so nothing is copied.
What the payload means, and what an ending says of a close code, is for others to tell. Nothing here raises, and all
state pickles.
"""

from analyzer.capture import http2_frame as frame
from analyzer.capture.http2_event import Answered, Data, Ended, Event, GoneAway, Lost, Missed, Requested, Reset
from analyzer.capture.http2_head import MAX_BLOCK_BYTES, Fields, is_websocket, to_request, to_response, to_status
from analyzer.capture.mark import Mark

MAX_STREAMS = 4096
"""Open WebSockets of one connection; servers allow 100 to 250 streams of any kind at once, proxies 1000."""

MAX_FADING_STREAMS = 256
"""Streams that one side has reset or refused: what the other still sends is told until there are so many newer ones."""

MAX_HEADERS_BYTES = MAX_BLOCK_BYTES + 512
"""Of one frame that carries a header block: priority, padding and its length come on top."""


BETWEEN = -1
"""`left` between two frames."""

BLOCK_KINDS = (frame.HEADERS, frame.PUSH_PROMISE, frame.CONTINUATION)


class _Stream:
    """A WebSocket's stream."""

    __slots__ = ("is_answered", "is_refused", "silent")

    def __init__(self) -> None:
        self.is_answered = False
        self.is_refused = False
        self.silent = 0
        """Bit 1 << direction: that side sends no more."""


class _Side:
    """One direction.

    Attributes:
        matched: Bytes of the preface seen; len(PREFACE) when it is over or there is none.
        is_begun: The first frame was SETTINGS, as it must be.
        header: The first bytes of a frame header that is not whole yet.
        left: Bytes of the current frame's payload still to come, or BETWEEN.
        data_left: Of those, the bytes that are data; -1 while the length of padding is unknown or was lost.
        payload: What is kept of the current frame's payload: `wanted` bytes of it.
        is_broken: Some of those are missing.
        block: The header block up to now, None outside of one; begun by a frame of this kind, flags and stream.
        fields: What decodes header blocks; None once one was lost: none that follows can be told.
        search: What looks for step where frame headers are not known to be.
        sound: Streams of which nothing is missing since the last Lost.
        frame_bytes: The largest frame that the receiver allows.
    """

    def __init__(self) -> None:
        self.matched = 0
        self.is_begun = False
        self.header = b""
        self.left = BETWEEN
        self.kind = self.flags = self.stream = self.data_left = self.wanted = 0
        self.payload = bytearray()
        self.is_broken = False
        self.block: bytearray | None = None
        self.block_kind = self.block_flags = self.block_stream = 0
        self.fields: Fields | None = Fields()
        self.search: frame.Search | None = None
        self.sound: dict[int, None] = {}
        self.frame_bytes = frame.DEFAULT_FRAME_BYTES


class Http2:
    """One connection; `read` and `miss` are called in the order of capture, each direction's bytes in order.

    Args:
        client: Which direction is the client's, None if that is not known; who sends the preface is it in any case.

    Attributes:
        offers_connect: Whether the server's SETTINGS allow extended CONNECT; None before any were seen.
        n_streams: WebSockets asked for.
        n_dropped_streams: Of those, the ones above MAX_STREAMS: no events.
        n_dropped_headers: Header blocks beyond a limit; none that follows in that direction can be read.
        n_unread_requests: Requests that may have been for WebSockets: their header blocks cannot be read.
        n_unread_answers: Answers to WebSocket requests likewise.
        n_lost_steps: How often a direction came out of step.
    """

    def __init__(self, client: int | None = None) -> None:
        self.client = client
        self.offers_connect: bool | None = None
        self.n_streams = self.n_dropped_streams = self.n_dropped_headers = 0
        self.n_unread_requests = self.n_unread_answers = self.n_lost_steps = self._n_skipped_bytes = 0
        self._sides = (_Side(), _Side())
        self._streams: dict[int, _Stream] = {}
        self._fading: dict[int, None] = {}
        self._highest = 0
        self._unasked = 0  # the highest stream that the server spoke on before its request was read

    @property
    def n_skipped_bytes(self) -> int:
        """Bytes passed over to find step again behind missing ones."""
        return self._n_skipped_bytes + sum(side.search.n_skipped for side in self._sides if side.search is not None)

    @staticmethod
    def is_preface(data: bytes | bytearray | memoryview) -> bool:
        """Whether the first bytes of a direction, as far as they go, are an HTTP/2 client's; no bytes are nobody's."""
        head = bytes(data[: len(frame.PREFACE)])
        return bool(head) and frame.PREFACE.startswith(head)

    def read(self, direction: int, data: bytes | memoryview, mark: Mark) -> list[Event]:
        """Take the next bytes of one direction.

        Args:
            direction: 0 or 1.
            data: Any number of bytes; frames need not begin or end with them.
            mark: Of the segment that completed them; passed on with the events.

        """
        side = self._sides[direction]
        events: list[Event] = []
        off = 0
        if side.matched < len(frame.PREFACE):
            off = self._begin(direction, data, events)
        if side.search is not None:
            found = self._search(direction, data[off:] if off else data)
            if found is None:
                return events
            data, shift = found
            self._walk(direction, data, 0, shift + off, mark, events)
        else:
            self._walk(direction, data, off, 0, mark, events)
        return events

    def miss(self, direction: int, n_bytes: int) -> list[Event]:
        """Go on behind bytes that the capture lacks.

        Args:
            direction: 0 or 1.
            n_bytes: How many; -1 where nobody knows.

        """
        side = self._sides[direction]
        events: list[Event] = []
        if n_bytes == 0:
            return events
        side.matched = len(frame.PREFACE)
        if side.search is not None:
            side.search.restart()
        elif n_bytes < 0 or side.left < n_bytes:
            # between two frames the next bytes are a header's, and `left` is -1
            if n_bytes > 0 and side.left > 0:
                self._step_over(direction, side.left, events)
            self._lose_step(direction, events)
        else:
            self._step_over(direction, n_bytes, events)
        return events

    # ---- out of step

    def _begin(self, direction: int, data: bytes | memoryview, events: list[Event]) -> int:
        """Compare with the preface; returns how many bytes belong to it."""
        side = self._sides[direction]
        n = min(len(frame.PREFACE) - side.matched, len(data))
        if data[:n] == frame.PREFACE[side.matched : side.matched + n]:
            side.matched += n
            if side.matched == len(frame.PREFACE):
                self.client = direction
            return n
        if side.matched or direction == self.client:
            self._lose_step(direction, events)
        side.matched = len(frame.PREFACE)
        return 0

    def _lose_step(self, direction: int, events: list[Event]) -> None:
        """A frame header may be hidden: nothing is known but what was read."""
        side = self._sides[direction]
        for stream in sorted(side.sound):
            events.append(Lost(stream, direction))
        side.sound.clear()
        side.header = b""
        side.left = BETWEEN
        side.payload = bytearray()
        side.block = None
        side.fields = None
        side.is_begun = True
        side.search = frame.Search()
        self.n_lost_steps += 1

    def _search(self, direction: int, data: bytes | memoryview) -> tuple[bytes, int] | None:
        """Look for step; returns the bytes from there on, and what turns an offset in them into one in `data`."""
        side = self._sides[direction]
        if side.search is None:
            return None
        is_client = None if self.client is None else self.client == direction
        found = side.search.find(data, frame.Likely(is_client, self._highest, side.frame_bytes, self._streams))
        if found is None:
            return None
        self._n_skipped_bytes += side.search.n_skipped
        side.search = None
        return found, len(data) - len(found)

    def _step_over(self, direction: int, n: int, events: list[Event]) -> None:
        """Go over missing bytes that all belong to the current frame's payload."""
        side = self._sides[direction]
        if side.kind == frame.GOAWAY and len(side.payload) >= 8:
            side.wanted = len(side.payload)  # of the debug data, what comes before the gap
        elif side.kind != frame.DATA:
            side.is_broken |= len(side.payload) < side.wanted
        elif side.data_left > 0:
            missed = min(n, side.data_left)
            side.data_left -= missed
            events.append(Missed(side.stream, direction, missed))
        elif side.data_left < 0 and side.stream in self._streams:
            # where padding begins stood in the first of these bytes
            side.data_left = 0
            self._lose_stream(direction, side.stream, events)
        side.left -= n

    def _lose_stream(self, direction: int, stream: int, events: list[Event]) -> None:
        if stream in self._sides[direction].sound:
            del self._sides[direction].sound[stream]
            events.append(Lost(stream, direction))

    # ---- in step

    def _walk(
        self, direction: int, data: bytes | memoryview, off: int, shift: int, mark: Mark, events: list[Event]
    ) -> None:
        """Read frames.

        Args:
            direction: 0 or 1.
            data: The bytes.
            off: Where to begin.
            shift: What to add to an offset to get one in the data that the caller has; below 0 lies what he had before.
            mark: For the events.
            events: Where they go.

        """
        side = self._sides[direction]
        streams, sound = self._streams, side.sound
        silent = 1 << direction
        n = len(data)
        while True:
            if side.left >= 0:
                off = self._go_on(direction, data, off, shift, mark, events)
                if side.left >= 0:
                    return
            if side.header:
                header = side.header + data[off : off + frame.HEADER_BYTES - len(side.header)]
                off += len(header) - len(side.header)
                if len(header) < frame.HEADER_BYTES:
                    side.header = header
                    return
                side.header = b""
                upper, lower, kind, flags, stream = frame.HEADER.unpack(header)
            elif n - off >= frame.HEADER_BYTES:
                upper, lower, kind, flags, stream = frame.HEADER.unpack_from(data, off)
                off += frame.HEADER_BYTES
            else:
                side.header = bytes(data[off:])
                return
            length = upper << 8 | lower
            if kind == frame.DATA and n - off >= length and flags & ~frame.END_STREAM == 0 and shift >= 0:
                # whole and plain, as nearly all are: this way takes a third of the time
                if side.is_begun and side.block is None:
                    stream &= frame.STREAM_BITS
                    known = streams.get(stream)
                    if known is None and stream > self._highest:
                        self._unasked = max(self._unasked, stream)
                    if known is not None and not known.silent & silent:
                        if length:
                            sound[stream] = None
                            events.append(Data(stream, direction, off + shift, length, mark))
                        if flags:
                            self._end_stream(direction, stream, mark, events)
                    off += length
                    continue
            if not side.is_begun and (kind != frame.SETTINGS or stream):
                # not the beginning of a connection: whatever this is, it is read like what follows a gap
                rest = frame.HEADER.pack(upper, lower, kind, flags, stream) + bytes(data[off:])
                self._lose_step(direction, events)
                found = self._search(direction, rest)
                if found is None:
                    return
                data, more = found
                shift, off, n = shift + off + more - frame.HEADER_BYTES, 0, len(data)
                continue
            self._begin_frame(direction, length, kind, flags, stream & frame.STREAM_BITS)

    def _begin_frame(self, direction: int, length: int, kind: int, flags: int, stream: int) -> None:
        """Keep what a frame's header says, and how much of its payload is wanted."""
        side = self._sides[direction]
        side.is_begun = True
        if direction != self.client and kind in (frame.DATA, frame.HEADERS, frame.RST_STREAM) and stream & 1:
            if stream > self._highest:
                self._unasked = max(self._unasked, stream)
        side.left, side.kind, side.flags, side.stream = length, kind, flags, stream
        side.payload, side.wanted, side.is_broken = bytearray(), 0, False
        if side.block is not None and (kind != frame.CONTINUATION or stream != side.block_stream):
            self._lose_block(direction)  # nothing may come between a block's frames (RFC 9113 section 6.10)
        if kind == frame.DATA:
            side.data_left = -1 if flags & frame.PADDED else length
        elif kind in BLOCK_KINDS:
            side.wanted = length if length <= MAX_HEADERS_BYTES else 0
            if kind != frame.CONTINUATION:
                side.block = bytearray()
                side.block_kind, side.block_flags, side.block_stream = kind, flags, stream
            if length > MAX_HEADERS_BYTES and side.block is not None and side.fields is not None:
                self.n_dropped_headers += 1
                self._lose_fields(direction)
        elif kind == frame.RST_STREAM and stream in self._streams:
            side.wanted = 4 if length == 4 else 0
        elif kind == frame.SETTINGS and length <= frame.MAX_SETTINGS_BYTES and not flags & frame.ACK:
            side.wanted = length
        elif kind == frame.GOAWAY and length >= 8 and not stream:
            side.wanted = min(length, 8 + frame.MAX_DEBUG_BYTES)

    def _go_on(
        self, direction: int, data: bytes | memoryview, off: int, shift: int, mark: Mark, events: list[Event]
    ) -> int:
        """Read on in the current frame, and finish it if it ends here; returns the offset behind."""
        side = self._sides[direction]
        end = off + min(side.left, len(data) - off)
        side.left -= end - off
        if side.kind != frame.DATA:
            if len(side.payload) < side.wanted:
                side.payload += data[off : min(end, off + side.wanted - len(side.payload))]
        else:
            if side.data_left < 0 and off < end:
                # how long the padding is (RFC 9113 section 6.1): 1 byte, counted in the length as the padding is
                side.data_left = side.left + end - off - 1 - data[off]
                off += 1
                if side.data_left < 0:
                    side.data_left = 0
                    self._lose_stream(direction, side.stream, events)
            n = min(side.data_left, end - off)
            if n > 0:
                side.data_left -= n
                known = self._streams.get(side.stream)
                if known is not None and not known.silent & 1 << direction:
                    side.sound[side.stream] = None
                    before = min(n, max(0, -(off + shift)))  # of an earlier call: the caller has them no longer
                    if before:
                        events.append(Missed(side.stream, direction, before))
                    if n > before:
                        events.append(Data(side.stream, direction, off + shift + before, n - before, mark))
        if side.left == 0:
            side.left = BETWEEN
            self._finish_frame(direction, mark, events)
        return end

    def _finish_frame(self, direction: int, mark: Mark, events: list[Event]) -> None:
        """Do what a whole frame says."""
        side = self._sides[direction]
        if side.kind == frame.DATA:
            if side.flags & frame.END_STREAM:
                self._end_stream(direction, side.stream, mark, events)
        elif side.kind in BLOCK_KINDS:
            self._finish_block_frame(direction, mark, events)
        elif side.kind == frame.RST_STREAM:
            if side.wanted:
                code = None if side.is_broken else int.from_bytes(side.payload, "big")
                self._reset_stream(direction, side.stream, code, mark, events)
        elif side.kind == frame.GOAWAY:
            if side.wanted and not side.is_broken:
                last = int.from_bytes(side.payload[:4], "big") & frame.STREAM_BITS
                code = int.from_bytes(side.payload[4:8], "big")
                events.append(GoneAway(direction, last, code, frame.error_name(code), bytes(side.payload[8:]), mark))
        elif side.kind == frame.SETTINGS:
            if not side.is_broken and not side.flags & frame.ACK and side.stream == 0:
                self._take_settings(direction)

    def _take_settings(self, direction: int) -> None:
        """What one side announces bounds what the other sends (RFC 9113 section 6.5.2, RFC 8441 section 3)."""
        payload, other = self._sides[direction].payload, self._sides[1 - direction]
        is_server = self.client is not None and direction != self.client
        if is_server and self.offers_connect is None:
            self.offers_connect = False
        for at in range(0, len(payload) - 5, 6):
            name = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if name == frame.SETTINGS_HEADER_TABLE_SIZE:
                if other.fields is not None:
                    other.fields.allow_table(value)
            elif name == frame.SETTINGS_MAX_FRAME_SIZE:
                other.frame_bytes = max(other.frame_bytes, value)
            elif name == frame.SETTINGS_ENABLE_CONNECT_PROTOCOL and is_server:
                self.offers_connect = self.offers_connect or value == 1

    # ---- header blocks

    def _lose_fields(self, direction: int) -> None:
        """No header block of this direction can be read from here on."""
        self._sides[direction].fields = None

    def _lose_block(self, direction: int) -> None:
        self._lose_fields(direction)
        self._sides[direction].block = None

    def _finish_block_frame(self, direction: int, mark: Mark, events: list[Event]) -> None:
        """Put one frame's part of a header block to the others, and read the block if it is whole."""
        side = self._sides[direction]
        if side.block is None:  # CONTINUATION of nothing: a receiver fails the connection
            self._lose_fields(direction)
            return
        payload = side.payload
        start, end = 0, len(payload)
        if side.kind != frame.CONTINUATION:
            if side.flags & frame.PADDED:
                start, end = 1, end - (payload[0] if payload else 0)
            if side.kind == frame.PUSH_PROMISE:
                start += 4
            elif side.flags & frame.WITH_PRIORITY:
                start += 5
        if side.is_broken or (start > end and side.wanted):
            self._lose_fields(direction)
        if side.fields is not None:
            if len(side.block) + end - start > MAX_BLOCK_BYTES:
                self.n_dropped_headers += 1
                self._lose_fields(direction)
            else:
                side.block += payload[start:end]
        if side.fields is None:
            side.block.clear()
        if side.flags & frame.END_HEADERS:
            block, side.block = bytes(side.block), None
            headers = None
            if side.fields is not None:
                headers, is_limit = side.fields.decode(block)
                if headers is None:
                    self.n_dropped_headers += is_limit
                    self._lose_fields(direction)
            if side.block_kind == frame.HEADERS:
                self._take_headers(direction, side.block_stream, headers, mark, events)

    def _take_headers(
        self, direction: int, stream: int, headers: dict[bytes, bytes] | None, mark: Mark, events: list[Event]
    ) -> None:
        """A whole header block on a stream; None where it cannot be read."""
        side = self._sides[direction]
        if direction == self.client and stream > self._highest:
            # a stream's number is above all before it (RFC 9113 section 5.1.1)
            self._highest = stream
            if headers is None:
                self.n_unread_requests += 1
            elif is_websocket(headers) and stream & 1:
                self._open_stream(stream, headers, mark, events)
        known = self._streams.get(stream)
        if known is None or known.silent & 1 << direction:
            return
        is_end = bool(side.block_flags & frame.END_STREAM)
        if direction != self.client and not known.is_answered:
            status = to_status(headers) if headers is not None else None
            if status is None:
                known.is_answered = True
                self.n_unread_answers += 1
                events.append(Answered(stream, None, None, mark))
            elif status >= 200 and headers is not None:
                known.is_answered = True
                known.is_refused = status >= 300
                events.append(Answered(stream, status, to_response(headers, status), mark))
        if is_end:
            self._end_stream(direction, stream, mark, events)

    # ---- streams

    def _open_stream(self, stream: int, headers: dict[bytes, bytes], mark: Mark, events: list[Event]) -> None:
        self.n_streams += 1
        if len(self._streams) >= MAX_STREAMS:
            self.n_dropped_streams += 1
            return
        self._streams[stream] = _Stream()
        events.append(Requested(stream, to_request(headers), mark))
        for direction, side in enumerate(self._sides):
            if side.search is None and (direction == self.client or stream > self._unasked):
                side.sound[stream] = None
            else:
                # what is passed over may be of this stream, and what came before its request was captured
                events.append(Lost(stream, direction))

    def _end_stream(self, direction: int, stream: int, mark: Mark, events: list[Event]) -> None:
        known = self._streams.get(stream)
        if known is None or known.silent & 1 << direction:
            return
        events.append(Ended(stream, direction, mark))
        self._fall_silent(direction, stream, known, is_over=known.is_refused)

    def _reset_stream(self, direction: int, stream: int, code: int | None, mark: Mark, events: list[Event]) -> None:
        known = self._streams.get(stream)
        if known is None:
            return
        name = None if code is None else frame.error_name(code)
        events.append(Reset(stream, direction, name, code, mark))
        self._fall_silent(direction, stream, known, is_over=True)

    def _fall_silent(self, direction: int, stream: int, known: _Stream, *, is_over: bool) -> None:
        """One side sends no more on a stream: forget it when neither does, or later when it is over all the same."""
        known.silent |= 1 << direction
        self._sides[direction].sound.pop(stream, None)
        if known.silent == 3:
            self._forget(stream)
        elif is_over:
            self._fading[stream] = None
            if len(self._fading) > MAX_FADING_STREAMS:
                self._forget(next(iter(self._fading)))

    def _forget(self, stream: int) -> None:
        del self._streams[stream]
        self._fading.pop(stream, None)
        for side in self._sides:
            side.sound.pop(stream, None)
