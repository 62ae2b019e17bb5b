"""The loop: chunks of a capture in, finished WebSocket connections out, in bounded memory.

Calls the steps, and gives them room in the tables when they ask for it. A `Tracker` pickles, so a long run can be
interrupted and taken up again.
"""

from typing import TYPE_CHECKING

import numpy as np

from analyzer.capture import dispatch, flowtable, frames, handshake, reassemble, records
from analyzer.capture.container import Chunk
from analyzer.capture.finished import ENDED, GOES_ON, SUPERSEDED, Finished
from analyzer.capture.head import (
    NO_REQUEST,
    NO_RESPONSE,
    Request,
    Response,
    allowed_rsv,
    cut_requests,
    cut_responses,
    parse_request,
    parse_response,
)
from analyzer.capture.mark import EVERYTHING, Place
from analyzer.capture.sealed import Told
from analyzer.capture.segments import Segmenter
from analyzer.capture.tables import Tables
from analyzer.model import (
    RECEIVED,
    SEALED,
    SPAN,
    Counter,
    Evidence,
    Octets,
    Received,
    Rows,
)

if TYPE_CHECKING:
    from analyzer.capture.fate import Fate
    from analyzer.capture.http2_event import Answered, Requested
    from analyzer.capture.unwrap import Judge, Opened, Secrets, Unwrapper, Wrap

MAX_FLOWS = 1 << 18
"""TCP connections that may be open at once; beyond it the quarter that was idle longest is dropped."""

FIRST_FLOWS = 512
"""TCP connections that there is room for at the beginning."""

MAX_DROPPED_MARKS = 1 << 20
"""Flows with data that a limit dropped and that are remembered, so that their later packets are not counted again."""

SWEEP_AFTER_PACKETS = 250_000
"""How many packets pass between two looks for connections that have ended: rows are made a thousand at a time."""

SWEEP_AFTER_STREAMS = 1 << 13
"""So too after so many HTTP/2 streams have ended."""

MAX_HTTP2_STREAMS = 1 << 16
"""WebSockets on HTTP/2 streams over all connections; requests beyond are dropped and counted."""

FEW_PACKETS = 4096
"""Chunks with fewer come from what is being captured: then rows are shown after flowtable.LINGER_NS, too."""

LIVE_SWEEP_NS = 250_000_000
"""Or this, where packets are looked at as they come."""

SILENCE_AFTER_STALL_NS = 5_000_000_000
"""How long the capture must go on after unanswered retransmissions before their connection counts as vanished."""


def _read_only(array: Octets) -> Octets:
    view = array.view()
    view.flags.writeable = False
    return view


def _as_words(data: Octets) -> Rows:
    """The same bytes as int64, without the last few that make no whole one."""
    return data[: len(data) & ~7].view(np.int64)


class Tracker(Tables):
    """Follows every TCP connection of one capture and gives out the WebSocket connections among them as they end.

    Attributes:
        counters: What the dissecting kernel did not understand, by `Counter`.
        n_encrypted, n_partly_opened, n_tls_failed, n_midstream, n_evicted: Flows not looked into, and dropped.
        n_tls, n_opened: Flows with TLS that are over, and those that keys opened.

    """

    def __init__(
        self,
        *,
        ports: tuple[int, ...] = (),
        max_flows: int = MAX_FLOWS,
        secrets: "Secrets | None" = None,
        judge: "Judge | None" = None,
    ) -> None:
        """Begin with nothing seen.

        Args:
            ports: Server ports where connections without a captured handshake are taken for WebSockets.
            max_flows: TCP connections that may be open at once.
            secrets: Where keys for TLS come from.
            judge: Decides what is said of TLS that was never opened; without it, nothing is.

        """
        super().__init__(min(FIRST_FLOWS, max_flows))
        self._max_flows = max_flows
        self._ports = np.array(sorted(ports), np.int64)
        self._segmenter = Segmenter()
        self._spans = np.zeros(reassemble.SPANS, SPAN)
        self._dropped = np.zeros(1, np.int64)
        self._pending: list[Finished] = []
        self._requests: dict[int, Request] = {}
        self._responses: dict[int, Response] = {}
        self._secrets = secrets
        self._decider = judge
        self._layer_state[records.KEEPS_ALL] = judge is not None and judge.is_asserting
        self._told: dict[int, Told] = {}
        self._n_streams = 0
        """WebSockets on HTTP/2 streams that have a row; `_n_ended` of them are over."""
        self._n_ended = 0
        self._unwrapper: Unwrapper | None = None
        self._clock_ns = 0
        self._since_sweep = 0
        self._swept_ns = 0
        self.counters = np.zeros(len(Counter), np.int64)
        self.n_encrypted = self.n_tls = self.n_opened = 0
        self.n_partly_opened = 0
        self.n_tls_failed = 0
        self.n_midstream = 0
        self.n_evicted = 0

    @property
    def n_flows(self) -> int:
        """TCP connections seen."""
        return int(self._state[flowtable.N_FLOWS])

    @property
    def n_connections(self) -> int:
        """WebSocket connections, and attempts at one, seen."""
        return int(self._opening_state[handshake.N_CONNECTIONS])

    @property
    def n_dropped_segments(self) -> int:
        """Segments that came too early when there was no room left to keep them."""
        return int(self._state[flowtable.DROPPED])

    @property
    def n_skipped_heads(self) -> int:
        """HTTP heads that were too long, or too many at once."""
        return int(self._opening_state[handshake.SKIPPED_HEADS])

    @property
    def n_skipped_candidates(self) -> int:
        """Times that bytes looked like frames without a handshake when too many flows were under observation."""
        return int(self._opening_state[handshake.SKIPPED_CANDIDATES])

    @property
    def n_skipped_records(self) -> int:
        """TLS records that were under way when there was no room left to keep them."""
        return int(self._layer_state[records.SKIPPED_RECORDS])

    @property
    def n_skipped_streams(self) -> int:
        """HTTP/2 streams and header blocks that a limit dropped."""
        return 0 if self._unwrapper is None else self._unwrapper.n_dropped

    @property
    def n_skipped_requests(self) -> int:
        """HTTP/2 requests and answers whose headers could not be read."""
        return 0 if self._unwrapper is None else self._unwrapper.n_unread

    @property
    def n_skipped_messages(self) -> int:
        """TLS handshake messages that were not complete when there was no room left to keep them."""
        return 0 if self._unwrapper is None else self._unwrapper.n_passed

    @property
    def n_skipped_layers(self) -> int:
        """TCP connections whose TLS or HTTP/2 was not looked into because too many were open."""
        return int(self._layer_state[records.SKIPPED_LAYERS])

    def feed(self, chunk: Chunk) -> list[Finished]:
        """Follow the packets of one chunk; what has ended by then comes back."""
        finished: list[Finished] = []
        has_hope = self._secrets is not None and self._secrets.has_hope()
        self._layer_state[records.DEPTH] = records.ALL if has_hope else records.HELLOS
        if not self._state[flowtable.MAY_PARK]:
            self._make_room_in_pool(0, 0)
        with np.errstate(over="ignore"):  # the flow hash wraps on purpose
            data, segments = self._segmenter.scan(chunk, self.counters)
            at = 0
            while True:
                at = self._scan_segments(data, segments, at)
                reason = int(self._state[flowtable.REASON])
                self._walk(data)
                if reason == reassemble.DONE:
                    break
                if reason == reassemble.NO_FLOWS:
                    finished += self._make_room_for_flows()
                elif reason == reassemble.NO_POOL:
                    segment = segments[at]
                    n_parked = int(self._streams["n_parked"].max())
                    self._make_room_in_pool(int(segment["payload_bytes"]), n_parked + 2)
            self._unwrap()
            latest_ns = int(chunk.packets["ts_ns"].max(initial=self._clock_ns))
            self._clock_ns = max(latest_ns, chunk.now_ns or 0)
            self._since_sweep += len(chunk.packets)
            wait_ns = flowtable.LINGER_NS if chunk.now_ns is None else LIVE_SWEEP_NS
            is_slow = len(chunk.packets) < FEW_PACKETS and self._clock_ns - self._swept_ns >= wait_ns
            is_full = self._n_ended >= SWEEP_AFTER_STREAMS
            if self._since_sweep >= max(SWEEP_AFTER_PACKETS, len(self._flows)) or is_slow or is_full:
                finished += self._sweep(self._clock_ns - flowtable.LINGER_NS)
        pending, self._pending = self._pending, []
        return pending + finished

    def forget_stalls(self) -> None:
        """Packets may be missing here: whoever has not answered so far may have answered among them."""
        self._streams["n_stalled"] = 0

    def finish(self) -> list[Finished]:
        """The capture has ended: everything that is still open comes back."""
        with np.errstate(over="ignore"):
            finished = self._sweep(None)
        pending, self._pending = self._pending, []
        return pending + finished

    def _scan_segments(self, data: Octets, segments: Rows, start: int) -> int:
        self._state[flowtable.N_SPANS] = 0
        return reassemble.scan_segments(
            data,
            segments,
            start,
            self._slots,
            self._flows,
            self._streams,
            self._free,
            self._keys,
            self._parked,
            self._pool,
            self._spans,
            self._dropped,
            self._state,
        )

    def _walk(self, data: Octets) -> None:
        """Read the spans that reassembly has just written, and what is wrapped in them."""
        self._read_all(data, self._spans[: int(self._state[flowtable.N_SPANS])])
        state = self._layer_state
        if int(state[records.ARENA_USED]) >= records.ENOUGH_ARENA_BYTES:
            self._unwrap()

    def _read_all(self, data: Octets, spans: Rows) -> None:
        """Read spans as they are, of TCP or of what TLS wrapped."""
        self._read_spans(data, spans)

    def _unwrap(self) -> None:
        """Open the records that were cut out so far, and read on in what they hold."""
        state = self._layer_state
        n = int(state[records.N_RECORDS])
        if not n:
            return
        if self._unwrapper is None:
            from analyzer.capture.unwrap import Unwrapper  # 35 ms that captures without TLS need not wait for

            self._unwrapper = Unwrapper(self._secrets, self._decider)
        opened = self._unwrapper.open(self._records[:n], self._arena, self._layers, self)
        under_way = np.flatnonzero(self._cutters["off"] >= 0)
        order = under_way[np.argsort(self._cutters["off"][under_way])].astype(np.int32)
        records.settle_arena(self._cutters, order, self._arena, state)
        state[records.MAY_GATHER] = 1
        self._read_opened(opened)

    def _read_opened(self, opened: "Opened") -> None:
        if len(opened.spans):
            self._read_all(opened.data, opened.spans)
        if len(opened.stream_spans):
            self._read_streams(opened.data, opened.stream_spans)

    def _read_streams(self, data: Octets, spans: Rows) -> None:
        """Read what HTTP/2 streams carried."""
        dispatch.walk_streams(data, _as_words(data), spans, self._streams, self._connections, self._sides)

    def _read_spans(self, data: Octets, spans: Rows) -> None:
        at = 0
        pool = _read_only(self._pool)
        data_words, pool_words = _as_words(data), _as_words(pool)
        while at < len(spans):
            at = dispatch.scan_spans(
                data,
                data_words,
                pool,
                pool_words,
                spans,
                at,
                self._flows,
                self._streams,
                self._connections,
                self._sides,
                self._free_connections,
                self._heads,
                _read_only(self._heads),
                self._free_heads,
                self._openings,
                self._values,
                self._ports,
                self._layers,
                self._cutters,
                self._shapes,
                self._free_layers,
                self._records,
                self._arena,
                self._layer_state,
                self._opening_state,
            )
            self._take_heads()
            why = int(self._opening_state[handshake.WHY])
            if why == handshake.NO_CONNECTIONS:
                superseded = self._superseded()
                if len(superseded) > len(self._connections) // 4:
                    self._pending.append(self._gather(superseded, is_evicted=False))
                else:
                    self._grow_connections(len(self._connections))
            elif why == dispatch.NO_RECORDS:
                if not self._has_room_for_records():
                    done = int(self._opening_state[handshake.RESUME])
                    self._opening_state[handshake.RESUME] = 0  # what is unwrapped is read from its beginning
                    self._unwrap()
                    self._opening_state[handshake.RESUME] = done
                self._make_room_in_arena(int(spans[at]["n_bytes"]))
            elif why == dispatch.NO_LAYERS:
                self._grow_layers(min(len(self._layers), records.MAX_LAYERS - len(self._layers)))
            elif why == handshake.NO_HEADS and not self._opening_state[handshake.FREE_HEADS]:
                self._make_room_for_heads()

    def _take_heads(self) -> None:
        """Take what the kernels have copied of complete heads."""
        state = self._opening_state
        n = int(state[handshake.N_OPENINGS])
        if not n:
            return
        values = self._values[: int(state[handshake.VALUES_USED])].tobytes().decode("latin-1")
        openings = self._openings[:n]
        is_request, is_plain = openings["kind"] == handshake.REQUEST, openings["is_plain"] == 1
        requests, responses = (openings.take(np.flatnonzero(is_plain & kind)) for kind in (is_request, ~is_request))
        self._requests.update(zip(requests["connection"].tolist(), cut_requests(values, requests), strict=True))
        self._responses.update(zip(responses["connection"].tolist(), cut_responses(values, responses), strict=True))
        for row in openings[~is_plain]:
            text = values[row["begins"][0] : row["ends"][0]]
            if row["kind"] == handshake.REQUEST:
                self._requests[int(row["connection"])] = parse_request(text)
            else:
                self._responses[int(row["connection"])] = parse_response(text)
        state[handshake.N_OPENINGS] = state[handshake.VALUES_USED] = 0

    def _make_room_for_flows(self) -> list[Finished]:
        """More rows, or at the limit the flows that were idle longest leave."""
        n = len(self._flows)
        if n < self._max_flows:
            self._grow_flows(min(n, self._max_flows - n))
            return []
        finished = self._sweep(self._clock_ns - flowtable.LINGER_NS)
        if self._state[flowtable.N_FREE] <= n // 8:
            live = np.flatnonzero(self._flows["state"] == flowtable.LIVE)
            n_evicted = max(1, n // 4)
            oldest = np.argpartition(self._flows["last_ns"][live], min(n_evicted, len(live)) - 1)[:n_evicted]
            chosen = np.sort(live[oldest])
            self.n_evicted += len(chosen)
            if len(self._dropped) == 1:
                self._dropped = np.zeros(MAX_DROPPED_MARKS, np.int64)
            flowtable.remember_flows(chosen, self._flows, self._streams, self._dropped, self._keys)
            finished += self._collect(chosen, is_evicted=True)
        return finished

    def begin_stream(self, flow: int, client: int, event: "Requested") -> int:
        """Take a CONNECTION row for a WebSocket on an HTTP/2 stream; its index, -1 where there are too many."""
        state = self._opening_state
        if self._n_streams >= MAX_HTTP2_STREAMS:
            return -1
        self._n_streams += 1
        if not state[handshake.FREE_CONNECTIONS]:
            self._grow_connections(len(self._connections))
        index = handshake.take_connection(
            self._connections,
            self._sides,
            self._free_connections,
            state,
            flow,
            client,
            handshake.PENDING,
            frames.IN_STEP,
            frames.IN_STEP,
        )
        state[handshake.N_CONNECTIONS] += 1
        row = self._connections[index]
        row["http2_stream"] = event.stream
        row["request_packet"], row["request_ns"] = event.mark.packet, event.mark.ts_ns
        self._requests[index] = event.request
        return index

    def answer_stream(self, index: int, event: "Answered") -> None:
        """The request on a stream was answered (RFC 8441 section 5: any status of 200 to 299 opens it)."""
        row = self._connections[index]
        status = event.status or 0
        row["handshake"] = handshake.COMPLETE if 200 <= status < 300 else handshake.REJECTED
        if not status:
            row["handshake"] = handshake.MISSING_HANDSHAKE  # answered, nobody knows how
        row["status"] = status
        row["response_packet"], row["opened_ns"] = event.mark.packet, event.mark.ts_ns
        row["activity_ns"] = event.mark.ts_ns
        if event.response is not None:
            row["allowed_rsv"] = allowed_rsv(event.response.extensions)
            self._responses[index] = event.response

    def is_answered(self, index: int) -> bool:
        """Whether the request on a stream was answered."""
        return int(self._connections[index]["handshake"]) != handshake.PENDING

    def is_rejected(self, index: int) -> bool:
        """Whether the request on a stream was refused."""
        return int(self._connections[index]["handshake"]) == handshake.REJECTED

    def end_stream(self, index: int) -> None:
        """A stream is over; its connection leaves with the next sweep."""
        self._n_ended += 1
        self._connections[index]["finished"] = ENDED

    def _sweep(self, before_ns: int | None) -> list[Finished]:
        """Let go of flows that have ended before this instant, or of all of them."""
        self._since_sweep = 0
        self._swept_ns = self._clock_ns
        if before_ns is None:
            ended = np.flatnonzero(self._flows["state"] != flowtable.FREE)
        else:
            found = np.empty(len(self._flows), np.int64)
            ended = found[: flowtable.find_ended(self._flows, self._streams, before_ns, found)]
        return self._collect(ended, is_evicted=False)

    def _collect(self, ended: Rows, *, is_evicted: bool) -> list[Finished]:
        """Take these flows out of the table, with the connections they carried and those superseded meanwhile."""
        at = 0
        nothing = _read_only(np.zeros(0, np.uint8))
        while at < len(ended):
            self._state[flowtable.N_SPANS] = 0
            at = reassemble.flush(ended, at, self._streams, self._parked, self._spans, self._state)
            self._walk(nothing)
        self._unwrap()
        flows = self._flows.take(ended)
        layers = flows["layer"][flows["layer"] >= 0].tolist()
        is_open, streams = np.zeros(len(flows), bool), np.zeros(0, np.int64)
        if layers and self._unwrapper is not None:
            self._read_opened(self._unwrapper.conclude(layers, self))
            flows = self._flows.take(ended)
            is_open = np.array([self._unwrapper.is_opened(layer) for layer in flows["layer"].tolist()], bool)
            is_open |= flows["connection"] >= 0
            self.n_opened += sum(map(self._unwrapper.was_opened, layers))
            for i in np.flatnonzero((flows["layer"] >= 0) & ~is_open).tolist():
                is_open[i] = self._tell(int(ended[i]))
            flows = self._flows.take(ended)
            streams = np.array([i for layer in layers for i in self._unwrapper.streams_of(layer)], np.int64)
        self.n_tls += int((flows["kind"] == handshake.TLS_FLOW).sum())
        self._count_unread(flows, is_open)
        self.n_midstream += int(((flows["kind"] == handshake.MIDSTREAM_FLOW) & (flows["connection"] < 0)).sum())
        superseded = self._superseded(ended)
        carried = flows["connection"][flows["connection"] >= 0].astype(np.int64)
        chosen = np.concatenate([superseded, carried, streams])
        finished = [self._gather(chosen, is_evicted=is_evicted)] if len(chosen) else []
        self._release_heads(ended)
        self._release_candidates(flows["candidate"])
        self._release_layers(layers)
        flowtable.remove_flows(ended, self._slots, self._flows, self._free, self._keys, self._state)
        if self._state[flowtable.N_USED_SLOTS] > len(self._slots) // 2:
            self._fill_slots()
        return finished

    def _count_unread(self, flows: Rows, is_open: Rows) -> None:
        """Count the flows with TLS that were not looked into, or not wholly, by what one can do about it."""
        is_half, has_failed = np.zeros(len(flows), bool), np.zeros(len(flows), bool)
        is_tls = flows["kind"] == handshake.TLS_FLOW
        if self._unwrapper is not None:
            for i in np.flatnonzero(is_tls & (flows["layer"] >= 0)).tolist():
                layer = int(flows["layer"][i])
                is_half[i] = any(self._unwrapper.sealed_directions(layer))
                has_failed[i] = not is_open[i] and self._unwrapper.has_failed(layer, self._shapes[layer])
        self.n_partly_opened += int(is_half.sum())
        self.n_tls_failed += int(has_failed.sum())
        self.n_encrypted += int((is_tls & ~is_open & ~is_half & ~has_failed).sum())

    def _tell(self, flow: int) -> bool:
        """Say what can be said of a TLS connection that was never opened; whether there is anything."""
        row = self._flows[flow]
        layer = int(row["layer"])
        client = int(self._layers[layer]["client"])
        if self._unwrapper is None or client < 0:
            return False
        sides = [client, 1 - client]
        place = self._server_of(row, client)
        told = self._unwrapper.tell(
            layer,
            place,
            self._shapes[layer],
            self._cutters[2 * layer : 2 * layer + 2][sides],
            self._streams[2 * flow : 2 * flow + 2][sides],
        )
        if told is None:
            return False
        state = self._opening_state
        if not state[handshake.FREE_CONNECTIONS]:
            self._grow_connections(len(self._connections))
        index = handshake.begin_connection(
            self._connections,
            self._sides,
            self._free_connections,
            state,
            row,
            flow,
            client,
            handshake.SEALED_HANDSHAKE,
            frames.IN_STEP,
            frames.IN_STEP,
        )
        connection = self._connections[index]
        if told.evidence[0] == Evidence.TLS_ALERT:
            connection["handshake"] = handshake.FAILED
            connection["response_packet"], connection["opened_ns"] = told.close_packet[0], told.close_ns[0]
        else:
            connection["opened_ns"] = told.opened_ns
            for side, kind in enumerate(told.sent):
                if kind in (Received.EMPTY, Received.SEALED):
                    walk = self._sides[2 * index + side]
                    walk["close"] = RECEIVED.index(kind)
                    walk["close_packet"], walk["close_ns"] = told.close_packet[side], told.close_ns[side]
        self._told[index] = told
        return True

    @staticmethod
    def _server_of(row: Rows, client: int) -> Place:
        end = "b" if client == 0 else "a"
        return Place(int(row[f"{end}_hi"]), int(row[f"{end}_lo"]), int(row[f"{end}_port"]), None)

    def _release_layers(self, layers: list[int]) -> None:
        state = self._layer_state
        # field by field, and one by one, it takes 20 us
        self._shapes.view(np.uint8).reshape(len(self._shapes), SEALED.itemsize)[layers] = 0
        for layer in layers:
            if self._unwrapper is not None:
                self._unwrapper.forget(layer)
            self._layers["in_use"][layer] = records.FREE
            self._cutters["off"][2 * layer : 2 * layer + 2] = -1
            self._free_layers[state[records.FREE_LAYERS]] = layer
            state[records.FREE_LAYERS] += 1

    def _superseded(self, over: Rows | None = None) -> Rows:
        """Connections to which nothing more can happen while their flow goes on.

        An HTTP/2 stream that ended waits until TCP has acknowledged its end, whenever this is asked; not so on flows
        that are `over`.
        """
        found = np.flatnonzero((self._connections["in_use"] == 1) & (self._connections["finished"] != GOES_ON))
        unwrapper = self._unwrapper
        if unwrapper is None or not self._n_ended:
            return found
        rows = self._connections.take(found)
        flow, client = rows["flow"].astype(np.int64), rows["client_stream"].astype(np.int64)
        waits = rows["finished"] == ENDED
        if over is not None:
            waits &= ~np.isin(flow, over)
        acked = self._streams["acked_pos"]
        for i in np.flatnonzero(waits).tolist():
            places = 2 * flow[i] + client[i], 2 * flow[i] + 1 - client[i]
            waits[i] = not unwrapper.is_settled(int(found[i]), int(acked[places[0]]), int(acked[places[1]]))
        settled: Rows = found[~waits]
        return settled

    def _gather(self, chosen: Rows, *, is_evicted: bool) -> Finished:
        """Copy the rows of these connections and make their places free."""
        begun = self._flows["first_ns"][self._connections["flow"][chosen]]
        ordinals, on_streams = self._connections["ordinal"][chosen], self._connections["http2_stream"][chosen]
        chosen = chosen[np.lexsort((on_streams, ordinals, begun))]
        connections = self._connections.take(chosen)  # ten times as fast as an index for rows of many fields
        flow = connections["flow"].astype(np.int64)
        client = connections["client_stream"].astype(np.int64)
        streams = self._streams.take(np.stack([2 * flow + client, 2 * flow + 1 - client], axis=1))
        wraps: dict[int, Wrap] = {}
        by_stream = np.zeros((len(chosen), 2), bool)
        heard_pos = np.full((len(chosen), 2), EVERYTHING)
        sealed = np.zeros((len(chosen), 2), bool)
        fates: dict[int, Fate] = {}
        if self._unwrapper is not None:
            layers = self._flows["layer"][flow].tolist()
            for i, layer in enumerate(layers):
                heard_pos[i] = self._unwrapper.heard_pos_of(layer, int(client[i]))
                wrap = self._unwrapper.wrap_of(layer)
                if wrap is None:
                    continue
                wraps[i] = wrap
                if int(connections["handshake"][i]) == handshake.COMPLETE:
                    self._unwrapper.see(self._server_of(self._flows[flow[i]], int(client[i]))._replace(sni=wrap.sni))
                directions = self._unwrapper.sealed_directions(layer)
                sealed[i] = directions[::-1] if int(client[i]) else directions
            on_streams = np.flatnonzero(connections["http2_stream"])
            self._n_streams -= len(on_streams)
            self._n_ended -= int((connections["finished"] == ENDED).sum())
            self._take_fates(chosen, connections, on_streams.tolist(), streams, by_stream, fates)
            # what was sealed behind the end of an HTTP/2 stream is none of it
            is_lossy = self._sides["lost"][np.stack([2 * chosen, 2 * chosen + 1], axis=1)] == 1
            sealed &= is_lossy | (connections["finished"] != ENDED)[:, None]
        stalled = streams["n_stalled"] >= reassemble.STALLED_RETRANSMISSIONS
        silent = self._clock_ns - streams["stalled_ns"] >= SILENCE_AFTER_STALL_NS
        finished = Finished(
            connections,
            self._flows.take(flow),
            streams,
            self._sides.take(np.stack([2 * chosen, 2 * chosen + 1], axis=1)),
            [self._requests.pop(i, NO_REQUEST) for i in chosen.tolist()],
            [self._responses.pop(i, NO_RESPONSE) for i in chosen.tolist()],
            wraps,
            {i: self._told.pop(index) for i, index in enumerate(chosen.tolist()) if index in self._told},
            sealed,
            by_stream,
            heard_pos,
            fates,
            np.full(len(chosen), is_evicted),
            connections["finished"] == SUPERSEDED,
            np.any(stalled & silent, axis=1),
        )
        self._connections["in_use"][chosen] = 0
        self._free_some(chosen)
        return finished

    def _take_fates(
        self,
        chosen: Rows,
        connections: Rows,
        on_streams: list[int],
        streams: Rows,
        by_stream: Rows,
        fates: "dict[int, Fate]",
    ) -> None:
        """Fill in how HTTP/2 streams ended, and how many of them each TCP connection has carried."""
        unwrapper = self._unwrapper
        if unwrapper is None:
            return
        layers = self._flows["layer"][connections["flow"]].tolist()
        for i in on_streams:
            state = int(connections["handshake"][i])
            is_opened = state in (handshake.COMPLETE, handshake.MISSING_HANDSHAKE)
            # whoever sends frames has been answered, captured or not
            is_opened |= state == handshake.PENDING and int(self._sides[2 * chosen[i]]["frames"]) > 0
            by_stream[i], fate = unwrapper.take_end(int(chosen[i]), layers[i], streams[i], is_opened=is_opened)
            if fate is not None:
                fates[i] = fate
        for i, fate in fates.items():
            fates[i] = fate._replace(n_carried=unwrapper.n_carried(layers[i]))
