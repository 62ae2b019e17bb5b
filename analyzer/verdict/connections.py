"""Finished connections to rows: the views that `classify` gives, and the two tables of them."""

import functools
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from analyzer.capture import frames, handshake
from analyzer.capture.finished import Finished
from analyzer.capture.head import Request, Response, check_answers
from analyzer.capture.numbering import Numbering
from analyzer.capture.sealed import Told
from analyzer.knowledge.catalogue import Catalogue
from analyzer.model import (
    CLOSES,
    CONFIDENCES,
    CONNECTIONS,
    ENDED_BY,
    ENDS,
    EVIDENCES,
    HANDSHAKES,
    INITIATORS,
    PROVENANCES,
    RECEIVED,
    Anomaly,
    End,
    Endpoint,
    Initiator,
    Rows,
)
from analyzer.table import Coded, Compact, Endpoints, Lazy, Numbers, Table, Values, combine
from analyzer.verdict import causes, classify, opaque, streams
from analyzer.verdict.facts import CLIENT, SERVER, Closes, gather_facts, handshake_state, name_anomalies
from analyzer.verdict.streams import SIDES

REPLY_EXPECTED_NS = 1_000_000_000
"""How long a capture must go on after a Close before a missing reply is noted."""

TRANSPORT_ENDS = np.array(
    [[ENDS.index(end) for end in pair] for pair in ((End.FIN, End.RST), (End.STREAM_END, End.STREAM_RESET))]
)
"""How a transport can end, as indexes into ENDS: TCP, and an HTTP/2 stream."""

Sided = TypeVar("Sided", Coded, Numbers)
"""A column of which both sides have their own."""

NOBODY, BY_CLIENT, BY_SERVER, BY_BOTH, BY_UNKNOWN = (
    INITIATORS.index(one)
    for one in (Initiator.NONE, Initiator.CLIENT, Initiator.SERVER, Initiator.BOTH, Initiator.UNKNOWN)
)
"""Who sent the first Close, as indexes into INITIATORS."""

SERVER_LINGER_NS = 1_000_000_000
"""A server that leaves TCP open longer than this after both Closes is noted (RFC 6455 section 7.1.1)."""


def format_address(hi: int, lo: int) -> str:
    """An address as it stands before a port: IPv4 in dots, IPv6 in brackets (RFC 5952)."""
    if hi == 0 and lo >> 32 == 0xFFFF:
        return f"{lo >> 24 & 255}.{lo >> 16 & 255}.{lo >> 8 & 255}.{lo & 255}"
    return f"[{ipaddress.IPv6Address((hi & (2**64 - 1)) << 64 | lo & (2**64 - 1))}]"


def _seconds(ns: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> Numbers:
    return Numbers(ns / 1e9, known)


def _field(heads: Sequence[Request] | Sequence[Response], name: str) -> Callable[[], Coded]:
    """A column made of one field of the openings' heads."""
    return lambda: Coded.of([*map(attrgetter(name), heads)])


class _Story(NamedTuple):
    """What both tables tell of the same connections, column by column."""

    initiator: Coded
    end: Coded
    ended_by: Coded
    ended_ns: npt.NDArray[np.int64]
    opened_ns: npt.NDArray[np.int64]
    has_opened: npt.NDArray[np.bool_]
    has_ended: npt.NDArray[np.bool_]
    anomalies: npt.NDArray[np.int64]


class _Names:
    """Endpoints and identifiers of connections, made when they are asked for."""

    def __init__(self, finished: Finished) -> None:
        self._finished = finished

    def _endpoints(self, is_client: bool) -> Endpoints:
        flows = self._finished.flows
        is_b = (self._finished.connections["client_stream"] == 1) == is_client
        hi, lo, ports = (np.where(is_b, flows[f"b_{part}"], flows[f"a_{part}"]) for part in ("hi", "lo", "port"))
        addresses, ids = np.unique(np.stack([hi, lo], axis=1) if hi.any() else lo, axis=0, return_inverse=True)
        pairs = addresses.tolist() if addresses.ndim == 2 else [(0, address) for address in addresses.tolist()]
        return Endpoints(Coded([format_address(*pair) for pair in pairs], ids.ravel()), ports)

    @cached_property
    def client(self) -> Endpoints:
        return self._endpoints(True)

    @cached_property
    def server(self) -> Endpoints:
        return self._endpoints(False)

    def _name_flows(self, rows: Rows) -> list[str]:
        started = np.datetime_as_string(self._finished.flows["first_ns"][rows].astype("datetime64[ns]")).tolist()
        stamps = " ".join(started).replace("-", "").replace(":", "").split()
        ends = self.client.take(rows).to_list(), self.server.take(rows).to_list()
        return [f"{stamp}Z-{client}-{server}" for stamp, client, server in zip(stamps, *ends, strict=True)]

    def _name_connections(self, rows: Rows) -> list[str]:
        ordinals = self._finished.connections["ordinal"][rows].tolist()
        on_streams = self._finished.connections["http2_stream"][rows].tolist()
        return [
            flow + (f"-s{stream}" if stream else f"-{ordinal + 1}" if ordinal else "")
            for flow, ordinal, stream in zip(self._name_flows(rows), ordinals, on_streams, strict=True)
        ]

    @property
    def flow(self) -> Lazy:
        """The TCP connections."""
        return Lazy(self._name_flows, np.arange(len(self._finished.flows)))

    @property
    def connection(self) -> Lazy:
        """The WebSocket connections."""
        return Lazy(self._name_connections, np.arange(len(self._finished.flows)))


def to_tables(
    finished: Finished, *, source: str = "", catalogue: Catalogue, numbering: Numbering | None = None
) -> tuple[Table, Table]:
    """Rows of `closes` and `connections` for connections that are over.

    Args:
        finished: From `Tracker.feed` or `Tracker.finish`.
        source: Name of the capture.
        catalogue: Where diagnoses are looked up.
        numbering: Which file holds which packet, where there is more than the one.

    """
    files = numbering or Numbering(source)
    closes = [Closes(finished.sides[:, side], side) for side in (CLIENT, SERVER)]
    sent = [gather_facts(finished, side, closes[side]) for side in (CLIENT, SERVER)]
    answer_bits = np.array(check_answers(finished.requests, finished.responses), np.int64)
    refused = np.zeros(len(finished.flows), bool)
    refused[[i for i, fate in finished.fates.items() if fate.is_refused]] = True
    state = handshake_state(finished, sent, answer_bits)
    views = [
        classify.classify(
            sent[1 - side],
            sent[side],
            handshake=state,
            is_client=side == CLIENT,
            evicted=finished.evicted,
            vanished=finished.vanished,
            answered=finished.connections["response_packet"] > 0,
            refused=refused,
        )
        for side in (CLIENT, SERVER)
    ]
    for side in (CLIENT, SERVER):
        opaque.put_views(views[side], finished.told, side)
        if finished.sealed.any():
            opaque.put_sealed(views[side], finished.sealed, state == handshake.COMPLETE, (sent[0], sent[1]), side)
    story = _tell(finished, sent, closes, state, answer_bits)
    names = _Names(finished)
    connections = _connections_table(finished, closes, state, views, story, names, catalogue, files)
    return _closes_table(finished, closes, views, story, names, files), connections


def _tell(
    finished: Finished,
    sent: list[Rows],
    closes: list[Closes],
    state: Rows,
    answer_bits: Rows,
) -> _Story:
    flows, connections = finished.flows, finished.connections
    n = len(flows)
    # how and by whom the transport ended: the first FIN or RST of either side
    moments = np.stack(
        [finished.streams[:, side][f"{flag}_packet"] for side in (CLIENT, SERVER) for flag in ("fin", "rst")]
    )
    times = np.stack([finished.streams[:, side][f"{flag}_ns"] for side in (CLIENT, SERVER) for flag in ("fin", "rst")])
    moments = np.where(moments == 0, np.iinfo(np.int64).max, moments)
    first = moments.argmin(axis=0)
    has_ended = (moments.min(axis=0) < np.iinfo(np.int64).max) & ~finished.superseded
    # a side of an HTTP/2 stream that is sealed may have ended it before whatever was seen
    is_hidden = (connections["http2_stream"] > 0) & (finished.sealed & ~finished.by_stream).any(axis=1)
    is_gone = np.zeros(n, bool)
    is_gone[[i for i, fate in finished.fates.items() if fate.is_gone]] = True
    is_hidden &= ~is_gone  # it never was one
    has_ended &= ~is_hidden
    ended_ns = np.where(has_ended, times[first, np.arange(n)], 0)
    by_stream = np.take_along_axis(finished.by_stream, first[:, None] // 2, axis=1)[:, 0]
    end = TRANSPORT_ENDS[by_stream.astype(int), first % 2]
    ended_by = np.where(has_ended, first // 2 + 1, 0)
    end[~has_ended] = ENDS.index(End.OPEN)
    for mask, why in (
        (finished.vanished, End.VANISHED),
        (finished.evicted, End.EVICTED),
        (finished.superseded | is_hidden, End.UNKNOWN),
    ):
        end[~has_ended & mask] = ENDS.index(why)
    end[is_gone] = ENDS.index(End.GOAWAY)

    a, b = sent
    both = (a["close"] != frames.NO_CLOSE) & (b["close"] != frames.NO_CLOSE)
    hidden = [~side["seen"] | side["lost"] | side["tail_missing"] for side in sent]
    has_crossed = classify.crossed(a, b)
    initiator = np.full(n, NOBODY)
    initiator[(hidden[CLIENT] & (a["close"] == 0)) | (hidden[SERVER] & (b["close"] == 0))] = BY_UNKNOWN
    initiator[(a["close"] != 0) & (b["close"] == 0) & ~hidden[SERVER]] = BY_CLIENT
    initiator[(b["close"] != 0) & (a["close"] == 0) & ~hidden[CLIENT]] = BY_SERVER
    initiator[both & b["close_acks_peer"]] = BY_CLIENT
    initiator[both & a["close_acks_peer"]] = BY_SERVER
    initiator[has_crossed] = BY_BOTH
    initiator[np.isin(state, (handshake.REJECTED, handshake.FAILED)) & ~both] = NOBODY

    is_told = np.zeros(n, bool)
    for i, told in finished.told.items():
        is_told[i], initiator[i] = True, INITIATORS.index(told.initiator)

    opened_ns = np.where(connections["opened_ns"] > 0, connections["opened_ns"], connections["request_ns"])
    opened_ns = np.where(opened_ns > 0, opened_ns, flows["first_ns"])
    # of what was never opened only the first exchange can be said, if there was one
    has_opened = ~is_told | (connections["opened_ns"] > 0)
    anomalies = _conduct(finished, sent, closes, answer_bits, has_crossed, ended_ns, has_ended, first)
    anomalies[is_told] = 0
    return _Story(
        Coded(INITIATORS, initiator),
        Coded(ENDS, end),
        Coded(ENDED_BY, ended_by),
        ended_ns,
        opened_ns,
        has_opened,
        has_ended | is_gone,
        anomalies,
    )


def _conduct(
    finished: Finished,
    sent: list[Rows],
    closes: list[Closes],
    answer_bits: Rows,
    has_crossed: classify.Mask,
    ended_ns: npt.NDArray[np.int64],
    has_ended: classify.Mask,
    first_end: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Bits of anomalies that only the two sides together show, with those of both walks and of the opening."""
    a, b = sent
    bits = answer_bits.copy()
    for side in (CLIENT, SERVER):
        bits |= finished.sides[:, side]["anomalies"]
        bits |= closes[side].anomalies
    has_a, has_b = a["close"] != frames.NO_CLOSE, b["close"] != frames.NO_CLOSE
    both = has_a & has_b
    close_ns = np.where(has_a, finished.sides[:, CLIENT]["close_ns"], finished.sides[:, SERVER]["close_ns"])
    last_ns = np.maximum(finished.streams[:, CLIENT]["last_ns"], finished.streams[:, SERVER]["last_ns"])
    whole = ~a["lost"] & ~b["lost"] & a["seen"] & b["seen"] & ~a["tail_missing"] & ~b["tail_missing"]
    unanswered = (has_a ^ has_b) & whole & (has_ended | (last_ns - close_ns >= REPLY_EXPECTED_NS))
    bits[unanswered] |= int(Anomaly.NO_CLOSE_REPLY)
    is_read = (a["close"] != frames.CUT_CLOSE) & (b["close"] != frames.CUT_CLOSE)
    differs = both & is_read & ~has_crossed & ((a["close"] != b["close"]) | (a["code"] != b["code"]))
    bits[differs] |= int(Anomaly.REPLY_DIFFERS)
    of_tcp = ~finished.by_stream[:, CLIENT]
    bits[both & has_ended & (first_end < 2) & of_tcp] |= int(Anomaly.CLIENT_ENDED_FIRST)
    last_close_ns = np.maximum(finished.sides[:, CLIENT]["close_ns"], finished.sides[:, SERVER]["close_ns"])
    until = np.where(has_ended, ended_ns, last_ns)
    bits[both & (until - last_close_ns > SERVER_LINGER_NS)] |= int(Anomaly.SERVER_LINGERED)
    return bits


def _diagnose(finished: Finished, views: classify.Views, story: _Story, side: int, catalogue: Catalogue) -> Coded:
    """Key of the documented text for every view of one endpoint."""
    kinds = combine(
        [
            Numbers(views.code, views.code > 0).to_codes(),
            Coded(EVIDENCES, views.evidence),
            Coded(PROVENANCES, views.provenance),
            _closes_sent(finished, side),
            _closes_sent(finished, 1 - side),
            story.initiator,
            story.end,
            story.ended_by,
        ]
    )
    keys = [
        catalogue.key(
            code,
            evidence=evidence,
            provenance=provenance,
            endpoint=SIDES[side],
            sent=own,
            received=came,
            initiator=initiator,
            end=end,
            ended_by=ended_by or Endpoint.UNKNOWN,
        )
        for code, evidence, provenance, own, came, initiator, end, ended_by in kinds.values
    ]
    return Coded(keys, kinds.ids)


def _diagnose_connections(
    finished: Finished, views: list[classify.Views], story: _Story, catalogue: Catalogue
) -> Coded:
    """Per connection the text for whoever did not begin the end: it names what happened to them."""
    of_client, of_server = (_diagnose(finished, views[side], story, side, catalogue) for side in (CLIENT, SERVER))
    by_client = (story.initiator.ids == BY_CLIENT) & views[SERVER].has_row
    return Coded(
        [*of_client.values, *of_server.values],
        np.where(by_client, of_server.ids + len(of_client.values), of_client.ids),
    )


def _closes_table(
    finished: Finished,
    closes: list[Closes],
    views: list[classify.Views],
    story: _Story,
    names: _Names,
    files: Numbering,
) -> Table:
    n = len(story.end)
    kept = np.flatnonzero(np.stack([views[CLIENT].has_row, views[SERVER].has_row], axis=1).ravel())
    moments = [_moments(finished, views[side], side, files) for side in (CLIENT, SERVER)]

    def each(make: Callable[[int], Sided]) -> Callable[[], Sided]:
        """A column whose values depend on the side whose view it is, for the endpoints that have a view."""
        return lambda: make(CLIENT).alternate(make(SERVER)).take(kept)

    def same(make: Callable[[], Compact]) -> Callable[[], Compact]:
        """A column that says the same of a connection's two views."""
        return lambda: make().take(kept // 2)

    def anomalies(side: int) -> Coded:
        return name_anomalies(finished.sides[:, side]["anomalies"] | closes[side].anomalies)

    columns: dict[str, Values] = {
        "source": each(lambda side: moments[side].sources),
        "record": each(lambda side: moments[side].records),
        "time": each(lambda side: moments[side].times),
        "connection": same(lambda: names.connection),
        "endpoint": each(lambda side: Coded(SIDES, np.full(n, side))),
        "code": each(lambda side: Numbers(views[side].code, views[side].has_code)),
        "provenance": each(lambda side: Coded(PROVENANCES, views[side].provenance)),
        "evidence": each(lambda side: Coded(EVIDENCES, views[side].evidence)),
        "confidence": each(lambda side: Coded(CONFIDENCES, views[side].confidence)),
        "received": each(lambda side: _closes_sent(finished, 1 - side)),
        "wire_code": each(lambda side: closes[1 - side].codes()),
        "sent": each(lambda side: _closes_sent(finished, side)),
        "sent_code": each(lambda side: closes[side].codes()),
        "reason": each(lambda side: closes[1 - side].reasons()),
        "initiator": same(lambda: story.initiator),
        "end": same(lambda: story.end),
        "ended_by": same(lambda: story.ended_by),
        "duration_s": same(lambda: _seconds(story.ended_ns - story.opened_ns, story.has_ended & story.has_opened)),
        "client": same(lambda: names.client),
        "server": same(lambda: names.server),
        "host": same(_field(finished.requests, "host")),
        "path": same(_field(finished.requests, "path")),
        "anomalies": each(lambda side: anomalies(1 - side)),
    }
    return Table(CLOSES, columns, n_rows=len(kept))


class _Moments(NamedTuple):
    """When one endpoint of every connection learned of the end, and where that stands, if anything told it."""

    sources: Coded
    records: Numbers
    times: Numbers


def _moments(finished: Finished, view: classify.Views, side: int, files: Numbering) -> _Moments:
    """Packet and time at which this endpoint learned of the end; without one, the file where the connection began."""
    mine, theirs = finished.streams[:, side], finished.streams[:, 1 - side]
    from_peer, own = finished.sides[:, 1 - side], finished.sides[:, side]
    answered = finished.connections["response_packet"]
    # a handshake without an answer: what ended the wait
    waits = [
        (answered, finished.connections["opened_ns"]),
        (theirs["fin_packet"], theirs["fin_ns"]),
        (theirs["rst_packet"], theirs["rst_ns"]),
        (mine["rst_packet"], mine["rst_ns"]),
        (mine["fin_packet"], mine["fin_ns"]),
    ]
    wait_packet, wait_ns = np.zeros(len(mine), np.int64), np.zeros(len(mine), np.int64)
    for packet, ns in waits:
        wait_ns = np.where((wait_packet == 0) & (packet > 0), ns, wait_ns)
        wait_packet = np.where(wait_packet == 0, packet, wait_packet)
    by_moment = {
        classify.CLOSE: (from_peer["close_packet"], from_peer["close_ns"]),
        classify.PEER_FIN: (theirs["fin_packet"], theirs["fin_ns"]),
        classify.PEER_RST: (theirs["rst_packet"], theirs["rst_ns"]),
        classify.OWN_RST: (mine["rst_packet"], mine["rst_ns"]),
        classify.OWN_CLOSE: (own["close_packet"], own["close_ns"]),
        classify.ANSWER: (wait_packet, wait_ns),
    }
    packets, times = np.zeros(len(mine), np.int64), np.zeros(len(mine), np.int64)
    for moment, (packet, ns) in by_moment.items():
        chosen = view.moment == moment
        packets[chosen], times[chosen] = packet[chosen], ns[chosen]
    known = packets > 0
    sources = files.sources_of(np.where(known, packets, finished.flows["first_packet"]))
    return _Moments(sources, Numbers(files.numbers_of(packets), known), Numbers(times, known))


def _connections_table(
    finished: Finished,
    closes: list[Closes],
    state: Rows,
    views: list[classify.Views],
    story: _Story,
    names: _Names,
    catalogue: Catalogue,
    files: Numbering,
) -> Table:
    rows, n = finished.connections, len(finished.connections)
    columns: dict[str, Values] = {
        "connection": lambda: names.connection,
        "source": files.sources_of(finished.flows["first_packet"]),
        "client": lambda: names.client,
        "server": lambda: names.server,
        "transport": _of_few(n, {i: wrap.transport for i, wrap in finished.wraps.items()}, others="tcp"),
        "sni": _of_few(n, {i: wrap.sni for i, wrap in finished.wraps.items()}),
        "alpn": _of_few(n, {i: wrap.alpn for i, wrap in finished.wraps.items()}),
        "tls_version": _of_few(n, {i: wrap.tls_version for i, wrap in finished.wraps.items()}),
        "tls_alert": _of_few(n, {i: _name_alert(told) for i, told in finished.told.items()}),
        "likelihood": _of_few(n, {i: told.likelihood for i, told in finished.told.items()}),
        "host": _field(finished.requests, "host"),
        "path": _field(finished.requests, "path"),
        "subprotocol": _field(finished.responses, "protocol"),
        "extensions": _field(finished.responses, "extensions"),
        "user_agent": _field(finished.requests, "user_agent"),
        "server_software": _field(finished.responses, "server"),
        "handshake": Coded(HANDSHAKES, state),
        "http_status": Numbers(rows["status"], rows["status"] > 0),
        **streams.columns(finished.fates, rows["http2_stream"], lambda: names.flow.to_list()),
        **causes.columns(finished, views, story.initiator.ids),
        "opened": Numbers(story.opened_ns, story.has_opened),
        "ended": Numbers(story.ended_ns, story.has_ended),
        "duration_s": lambda: _seconds(story.ended_ns - story.opened_ns, story.has_ended & story.has_opened),
        "initiator": story.initiator,
        "end": story.end,
        "ended_by": story.ended_by,
        "anomalies": lambda: name_anomalies(story.anomalies),
        "diagnosis": lambda: _diagnose_connections(finished, views, story, catalogue),
    }
    for side in (CLIENT, SERVER):
        columns |= _side_columns(finished, closes[side], views[side], files, side)
    timings = functools.cache(lambda: _timings(finished, story))
    for name in ("silence_s", "close_reply_s", "end_delay_s", "unanswered_ping_s"):
        columns[name] = functools.partial(lambda name: timings()[name], name)
    return Table(CONNECTIONS, columns)


def _of_few(n: int, held: Mapping[int, Any], *, others: Any = None) -> Coded:
    """A column of `n` rows of which few have a value of their own."""
    ids = np.zeros(n, np.int64)
    ids[list(held)] = np.arange(1, len(held) + 1)
    return Coded([others, *held.values()], ids)


def _side_columns(
    finished: Finished, closes: Closes, view: classify.Views, files: Numbering, side: int
) -> dict[str, Values]:
    """What the connections table says of one side: its Close, its view, its traffic."""
    name = ("client", "server")[side]
    walk = finished.sides[:, side]
    has_close = walk["close"] != frames.NO_CLOSE
    is_read = ~(finished.sealed[:, side] & (walk["frames"] == 0))
    is_read[list(finished.told)] = False

    return {
        f"{name}_close": lambda: _closes_sent(finished, side),
        f"{name}_close_code": closes.codes,
        f"{name}_close_reason": closes.reasons,
        f"{name}_close_time": lambda: Numbers(walk["close_ns"], has_close),
        f"{name}_close_source": lambda: files.sources_of(walk["close_packet"]).where(has_close),
        f"{name}_close_record": lambda: Numbers(files.numbers_of(walk["close_packet"]), has_close),
        f"{name}_close_anomalies": closes.names,
        f"{name}_view_code": lambda: Numbers(view.code, view.has_code),
        f"{name}_view_provenance": lambda: Coded(PROVENANCES, view.provenance).where(view.has_row),
        f"{name}_view_evidence": lambda: Coded(EVIDENCES, view.evidence).where(view.has_row),
        f"{name}_view_confidence": lambda: Coded(CONFIDENCES, view.confidence).where(view.has_row),
        f"{name}_frames": lambda: Numbers(walk["frames"], is_read),
        f"{name}_messages": lambda: Numbers(walk["messages"], is_read),
        f"{name}_bytes": lambda: Numbers(walk["payload_bytes"], is_read),
        f"{name}_largest_message_bytes": lambda: Numbers(walk["largest_bytes"], is_read),
        f"{name}_gap_bytes": lambda: Numbers(walk["gap_bytes"], is_read),
    }


def _name_alert(told: Told) -> str | None:
    """Who sent the alert by which TLS failed, and its name."""
    if told.alert is None:
        return None
    side, name = told.alert
    return f"{SIDES[side]} {name}"


def _closes_sent(finished: Finished, side: int) -> Coded:
    """What the first Close of one side was."""
    return Coded(RECEIVED, opaque.received(finished.told, finished.sealed, finished.sides[:, side]["close"], side))


def _timings(finished: Finished, story: _Story) -> dict[str, Numbers]:
    """Silences and delays around the end, in seconds."""
    a, b = finished.sides[:, CLIENT], finished.sides[:, SERVER]
    has_a, has_b = a["close"] != frames.NO_CLOSE, b["close"] != frames.NO_CLOSE
    both = has_a & has_b
    first_close = np.where(
        has_a & has_b, np.minimum(a["close_ns"], b["close_ns"]), np.maximum(a["close_ns"], b["close_ns"])
    )
    last_close = np.maximum(a["close_ns"], b["close_ns"])
    has_close = has_a | has_b
    began = np.where(has_close, first_close, story.ended_ns)
    has_began = has_close | story.has_ended
    active = finished.connections["activity_ns"]
    pings = np.stack([a["ping_ns"], b["ping_ns"]])
    oldest = np.where(pings > 0, pings, np.iinfo(np.int64).max).min(axis=0)
    return {
        "silence_s": _seconds(began - active, has_began & (active > 0)),
        "close_reply_s": _seconds(last_close - first_close, both),
        "end_delay_s": _seconds(
            story.ended_ns - last_close, has_close & story.has_ended & (story.ended_ns >= last_close)
        ),
        "unanswered_ping_s": _seconds(began - oldest, has_began & (pings.max(axis=0) > 0) & (began >= oldest)),
    }
