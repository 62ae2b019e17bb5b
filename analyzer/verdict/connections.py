"""Finished connections to rows: the views that `classify` gives, and the two tables of them."""

import functools
import ipaddress
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer.capture import frames, handshake
from analyzer.capture.finished import Finished
from analyzer.capture.head import check_answer, parse_request, parse_response
from analyzer.capture.numbering import Numbering
from analyzer.capture.sealed import Told
from analyzer.knowledge.catalogue import Catalogue
from analyzer.model import (
    CLOSES,
    CONNECTIONS,
    HANDSHAKES,
    RECEIVED,
    Anomaly,
    End,
    Endpoint,
    Initiator,
    Provenance,
    Received,
    Rows,
    Table,
    Values,
    anomaly_names,
)
from analyzer.verdict import causes, classify, opaque, streams
from analyzer.verdict.facts import CLIENT, SERVER, Closes, gather_facts, handshake_state, or_none

REPLY_EXPECTED_NS = 1_000_000_000
"""How long a capture must go on after a Close before a missing reply is noted."""

ENDS = ((End.FIN, End.RST), (End.STREAM_END, End.STREAM_RESET))
"""How a transport can end: of TCP, of an HTTP/2 stream."""

KNOWN_ENDS = (*ENDS[0], *ENDS[1], End.GOAWAY)

SERVER_LINGER_NS = 1_000_000_000
"""A server that leaves TCP open longer than this after both Closes is noted (RFC 6455 section 7.1.1)."""


def format_address(hi: int, lo: int) -> str:
    """An address as it stands before a port: IPv4 in dots, IPv6 in brackets (RFC 5952)."""
    if hi == 0 and lo >> 32 == 0xFFFF:
        return f"{lo >> 24 & 255}.{lo >> 16 & 255}.{lo >> 8 & 255}.{lo & 255}"
    return f"[{ipaddress.IPv6Address((hi & (2**64 - 1)) << 64 | lo & (2**64 - 1))}]"


def _seconds(ns: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> list[float | None]:
    return [value / 1e9 if ok else None for value, ok in zip(ns.tolist(), known.tolist(), strict=True)]


class _Heads:
    """The openings' heads, read."""

    def __init__(self, finished: Finished) -> None:
        self.requests = [parse_request(head) if isinstance(head, bytes) else head for head in finished.requests]
        self.responses = [parse_response(head) if isinstance(head, bytes) else head for head in finished.responses]

    def check_answers(self) -> list[Anomaly]:
        """What is wrong with each answer."""
        return [
            Anomaly.NONE if request is None or response is None else check_answer(request, response)
            for request, response in zip(self.requests, self.responses, strict=True)
        ]

    def of_request(self, field: str) -> Callable[[], list[Any]]:
        """A column made of one field of the requests."""
        return lambda: [None if request is None else getattr(request, field) for request in self.requests]

    def of_response(self, field: str) -> Callable[[], list[Any]]:
        """A column made of one field of the answers."""
        return lambda: [None if response is None else getattr(response, field) for response in self.responses]


class _Story(NamedTuple):
    """What both tables tell of the same connections, column by column."""

    initiator: list[Initiator]
    end: list[End]
    ended_by: list[Endpoint | None]
    ended_ns: npt.NDArray[np.int64]
    opened_ns: npt.NDArray[np.int64]
    has_opened: npt.NDArray[np.bool_]
    anomalies: list[int]


class _Names:
    """Endpoints and identifiers of connections, made when they are asked for."""

    def __init__(self, finished: Finished) -> None:
        self._finished = finished

    def _endpoints(self, is_client: bool) -> list[str]:
        flows = self._finished.flows
        is_b = (self._finished.connections["client_stream"] == 1) == is_client
        parts = [np.where(is_b, flows[f"b_{part}"], flows[f"a_{part}"]).tolist() for part in ("hi", "lo", "port")]
        hosts = {address: format_address(*address) for address in set(zip(parts[0], parts[1], strict=True))}
        return [f"{hosts[hi, lo]}:{port}" for hi, lo, port in zip(*parts, strict=True)]

    @cached_property
    def client(self) -> list[str]:
        return self._endpoints(True)

    @cached_property
    def server(self) -> list[str]:
        return self._endpoints(False)

    @cached_property
    def flow(self) -> list[str]:
        """The TCP connections."""
        started = np.datetime_as_string(self._finished.flows["first_ns"].astype("datetime64[ns]")).tolist()
        stamps = " ".join(started).replace("-", "").replace(":", "").split(" ")
        return [
            f"{stamp}Z-{client}-{server}"
            for stamp, client, server in zip(stamps, self.client, self.server, strict=True)
        ]

    @cached_property
    def connection(self) -> list[str]:
        ordinals = self._finished.connections["ordinal"].tolist()
        on_streams = self._finished.connections["http2_stream"].tolist()
        return [
            flow + (f"-s{stream}" if stream else f"-{ordinal + 1}" if ordinal else "")
            for flow, ordinal, stream in zip(self.flow, ordinals, on_streams, strict=True)
        ]


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
    heads = _Heads(finished)
    answer_bits = heads.check_answers()
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
            refused=np.array([fate is not None and fate.is_refused for fate in finished.fates], bool),
        )
        for side in (CLIENT, SERVER)
    ]
    for side in (CLIENT, SERVER):
        opaque.put_views(views[side], finished.told, side)
        if finished.sealed.any():
            opaque.put_sealed(views[side], finished.sealed, state == handshake.COMPLETE, (sent[0], sent[1]), side)
    story = _tell(finished, sent, closes, state, answer_bits)
    names = _Names(finished)
    connections = _connections_table(finished, closes, state, views, story, heads, names, catalogue, files)
    return _closes_table(finished, closes, views, story, heads, names, files), connections


def _tell(
    finished: Finished,
    sent: list[Rows],
    closes: list[Closes],
    state: Rows,
    answer_bits: list[Anomaly],
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
    is_hidden &= ~np.array([fate is not None and fate.is_gone for fate in finished.fates], bool)  # it never was one
    has_ended &= ~is_hidden
    ended_ns = np.where(has_ended, times[first, np.arange(n)], 0)
    by_stream = np.take_along_axis(finished.by_stream, first[:, None] // 2, axis=1)[:, 0].tolist()
    end = [ENDS[of_stream][at % 2] for at, of_stream in zip(first.tolist(), by_stream, strict=True)]
    ended_by: list[Endpoint | None] = [Endpoint.CLIENT if at < 2 else Endpoint.SERVER for at in first.tolist()]
    for i in np.flatnonzero(~has_ended).tolist():
        ended_by[i] = None
        if finished.superseded[i] or is_hidden[i]:
            end[i] = End.UNKNOWN
        elif finished.evicted[i]:
            end[i] = End.EVICTED
        else:
            end[i] = End.VANISHED if finished.vanished[i] else End.OPEN
    for i, fate in enumerate(finished.fates):
        if fate is not None and fate.is_gone:
            end[i] = End.GOAWAY

    a, b = sent
    both = (a["close"] != frames.NO_CLOSE) & (b["close"] != frames.NO_CLOSE)
    hidden = [~side["seen"] | side["lost"] | side["tail_missing"] for side in sent]
    has_crossed = classify.crossed(a, b)
    initiator = np.full(n, Initiator.NONE, object)
    initiator[(hidden[CLIENT] & (a["close"] == 0)) | (hidden[SERVER] & (b["close"] == 0))] = Initiator.UNKNOWN
    initiator[(a["close"] != 0) & (b["close"] == 0) & ~hidden[SERVER]] = Initiator.CLIENT
    initiator[(b["close"] != 0) & (a["close"] == 0) & ~hidden[CLIENT]] = Initiator.SERVER
    initiator[both & b["close_acks_peer"]] = Initiator.CLIENT
    initiator[both & a["close_acks_peer"]] = Initiator.SERVER
    initiator[has_crossed] = Initiator.BOTH
    initiator[np.isin(state, (handshake.REJECTED, handshake.FAILED)) & ~both] = Initiator.NONE

    is_told = opaque.is_told(finished.told)
    for i in np.flatnonzero(is_told).tolist():
        one = finished.told[i]
        initiator[i] = Initiator.UNKNOWN if one is None else one.initiator

    opened_ns = np.where(connections["opened_ns"] > 0, connections["opened_ns"], connections["request_ns"])
    opened_ns = np.where(opened_ns > 0, opened_ns, flows["first_ns"])
    # of what was never opened only the first exchange can be said, if there was one
    has_opened = ~is_told | (connections["opened_ns"] > 0)
    anomalies = _conduct(finished, sent, closes, answer_bits, has_crossed, ended_ns, has_ended, first)
    anomalies = [0 if told else bits for told, bits in zip(is_told.tolist(), anomalies, strict=True)]
    return _Story(
        initiator.tolist(),
        end,
        ended_by,
        ended_ns,
        opened_ns,
        has_opened,
        anomalies,
    )


def _conduct(
    finished: Finished,
    sent: list[Rows],
    closes: list[Closes],
    answer_bits: list[Anomaly],
    has_crossed: classify.Mask,
    ended_ns: npt.NDArray[np.int64],
    has_ended: classify.Mask,
    first_end: npt.NDArray[np.int64],
) -> list[int]:
    """Anomalies that only the two sides together show, with those of both walks and of the opening."""
    a, b = sent
    bits = np.array([int(b) for b in answer_bits], np.int64)
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
    result: list[int] = bits.tolist()
    return result


def _diagnose(finished: Finished, views: classify.Views, story: _Story, side: int, catalogue: Catalogue) -> list[str]:
    """Key of the documented text for every view of one endpoint."""
    endpoint = (Endpoint.CLIENT, Endpoint.SERVER)[side]
    return [
        catalogue.key(
            code or None,
            evidence=evidence,
            provenance=provenance,
            endpoint=endpoint,
            sent=own,
            received=came,
            initiator=initiator,
            end=end,
            ended_by=ended_by or Endpoint.UNKNOWN,
        )
        for code, evidence, provenance, own, came, initiator, end, ended_by in zip(
            views.code.tolist(),
            views.evidence.tolist(),
            views.provenance.tolist(),
            _closes_sent(finished, side),
            _closes_sent(finished, 1 - side),
            story.initiator,
            story.end,
            story.ended_by,
            strict=True,
        )
    ]


def _diagnose_connections(
    finished: Finished, views: list[classify.Views], story: _Story, catalogue: Catalogue
) -> list[str]:
    """Per connection the text for whoever did not begin the end: it names what happened to them."""
    of_client, of_server = (_diagnose(finished, views[side], story, side, catalogue) for side in (CLIENT, SERVER))
    return [
        of_server[i] if initiator == Initiator.CLIENT and views[SERVER].has_row[i] else of_client[i]
        for i, initiator in enumerate(story.initiator)
    ]


def _closes_table(
    finished: Finished,
    closes: list[Closes],
    views: list[classify.Views],
    story: _Story,
    heads: _Heads,
    names: _Names,
    files: Numbering,
) -> Table:
    n = len(story.end)
    keep = np.stack([views[CLIENT].has_row, views[SERVER].has_row], axis=1).ravel().tolist()
    is_whole = all(keep)
    moments = [_moments(finished, views[side], side, files) for side in (CLIENT, SERVER)]
    known_end = np.array([end in KNOWN_ENDS for end in story.end], bool)

    def both(of_client: Sequence[Any], of_server: Sequence[Any]) -> list[Any]:
        """The two views' values in turn, without those of endpoints that have no view."""
        pairs: list[Any] = [None] * (2 * n)
        pairs[0::2], pairs[1::2] = of_client, of_server
        if is_whole:
            return pairs
        return [value for value, kept in zip(pairs, keep, strict=True) if kept]

    def each(make: Callable[[int], Sequence[Any]]) -> Callable[[], list[Any]]:
        """A column whose values depend on the side whose view it is."""
        return lambda: both(make(CLIENT), make(SERVER))

    def same(values: Callable[[], Sequence[Any]]) -> Callable[[], list[Any]]:
        """A column that says the same of a connection's two views."""

        def make() -> list[Any]:
            made = values()
            return both(made, made)

        return make

    def received(side: int) -> list[Received]:
        return _closes_sent(finished, side)

    def anomalies(side: int) -> list[list[str]]:
        bits = finished.sides[:, side]["anomalies"] | closes[side].anomalies
        return [anomaly_names(some) for some in bits.tolist()]

    columns: dict[str, Values] = {
        "source": both(moments[CLIENT].sources, moments[SERVER].sources),
        "record": each(lambda side: moments[side].records),
        "time": each(lambda side: moments[side].times),
        "connection": same(lambda: names.connection),
        "endpoint": both([Endpoint.CLIENT] * n, [Endpoint.SERVER] * n),
        "code": each(
            lambda side: or_none(views[side].code, views[side].provenance != Provenance.UNDETERMINED),
        ),
        "provenance": each(lambda side: views[side].provenance.tolist()),
        "evidence": each(lambda side: views[side].evidence.tolist()),
        "confidence": each(lambda side: views[side].confidence.tolist()),
        "received": each(lambda side: received(1 - side)),
        "wire_code": each(lambda side: closes[1 - side].codes()),
        "sent": each(received),
        "sent_code": each(lambda side: closes[side].codes()),
        "reason": each(lambda side: closes[1 - side].reasons()),
        "initiator": same(lambda: story.initiator),
        "end": same(lambda: story.end),
        "ended_by": same(lambda: story.ended_by),
        "duration_s": same(lambda: _seconds(story.ended_ns - story.opened_ns, known_end & story.has_opened)),
        "client": same(lambda: names.client),
        "server": same(lambda: names.server),
        "host": same(heads.of_request("host")),
        "path": same(heads.of_request("path")),
        "anomalies": each(lambda side: anomalies(1 - side)),
    }
    return Table(CLOSES, columns)


class _Moments(NamedTuple):
    """When one endpoint of every connection learned of the end, and where that stands; None where nothing told it."""

    sources: list[str]
    records: list[Any]
    times: list[Any]


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
    return _Moments(sources, or_none(files.numbers_of(packets), known), or_none(times, known))


def _connections_table(
    finished: Finished,
    closes: list[Closes],
    state: Rows,
    views: list[classify.Views],
    story: _Story,
    heads: _Heads,
    names: _Names,
    catalogue: Catalogue,
    files: Numbering,
) -> Table:
    rows = finished.connections
    known_end = np.array([end in KNOWN_ENDS for end in story.end], bool)
    columns: dict[str, Values] = {
        "connection": lambda: names.connection,
        "source": files.sources_of(finished.flows["first_packet"]),
        "client": lambda: names.client,
        "server": lambda: names.server,
        "transport": ["tcp" if wrap is None else wrap.transport for wrap in finished.wraps],
        "sni": lambda: [wrap and wrap.sni for wrap in finished.wraps],
        "alpn": lambda: [wrap and wrap.alpn for wrap in finished.wraps],
        "tls_version": lambda: [wrap and wrap.tls_version for wrap in finished.wraps],
        "tls_alert": lambda: [_name_alert(told) for told in finished.told],
        "likelihood": lambda: [told and told.likelihood for told in finished.told],
        "host": heads.of_request("host"),
        "path": heads.of_request("path"),
        "subprotocol": heads.of_response("protocol"),
        "extensions": heads.of_response("extensions"),
        "user_agent": heads.of_request("user_agent"),
        "server_software": heads.of_response("server"),
        "handshake": [HANDSHAKES[index] for index in state.tolist()],
        "http_status": or_none(rows["status"], rows["status"] > 0),
        **streams.columns(finished.fates, rows["http2_stream"], lambda: names.flow),
        **causes.columns(finished, views, story.initiator),
        "opened": lambda: or_none(story.opened_ns, story.has_opened),
        "ended": lambda: or_none(story.ended_ns, known_end),
        "duration_s": lambda: _seconds(story.ended_ns - story.opened_ns, known_end & story.has_opened),
        "initiator": story.initiator,
        "end": story.end,
        "ended_by": story.ended_by,
        "anomalies": lambda: [anomaly_names(bits) for bits in story.anomalies],
        "diagnosis": lambda: _diagnose_connections(finished, views, story, catalogue),
    }
    for side in (CLIENT, SERVER):
        columns |= _side_columns(finished, closes[side], views[side], files, side)
    timings = functools.cache(lambda: _timings(finished, story, known_end))
    for name in ("silence_s", "close_reply_s", "end_delay_s", "unanswered_ping_s"):
        columns[name] = functools.partial(lambda name: timings()[name], name)
    return Table(CONNECTIONS, columns)


def _side_columns(
    finished: Finished, closes: Closes, view: classify.Views, files: Numbering, side: int
) -> dict[str, Values]:
    """What the connections table says of one side: its Close, its view, its traffic."""
    name = ("client", "server")[side]
    walk = finished.sides[:, side]
    has_close = walk["close"] != frames.NO_CLOSE
    has_code = view.has_row & (view.provenance != Provenance.UNDETERMINED)
    is_read = ~opaque.is_told(finished.told) & ~(finished.sealed[:, side] & (walk["frames"] == 0))
    return {
        f"{name}_close": lambda: _closes_sent(finished, side),
        f"{name}_close_code": closes.codes,
        f"{name}_close_reason": closes.reasons,
        f"{name}_close_time": lambda: or_none(walk["close_ns"], has_close),
        f"{name}_close_source": lambda: [
            source if has else None
            for source, has in zip(files.sources_of(walk["close_packet"]), has_close.tolist(), strict=True)
        ],
        f"{name}_close_record": lambda: or_none(files.numbers_of(walk["close_packet"]), has_close),
        f"{name}_close_anomalies": closes.names,
        f"{name}_view_code": lambda: or_none(view.code, has_code),
        f"{name}_view_provenance": lambda: or_none(view.provenance, view.has_row),
        f"{name}_view_evidence": lambda: or_none(view.evidence, view.has_row),
        f"{name}_view_confidence": lambda: or_none(view.confidence, view.has_row),
        f"{name}_frames": lambda: or_none(walk["frames"], is_read),
        f"{name}_messages": lambda: or_none(walk["messages"], is_read),
        f"{name}_bytes": lambda: or_none(walk["payload_bytes"], is_read),
        f"{name}_largest_message_bytes": lambda: or_none(walk["largest_bytes"], is_read),
        f"{name}_gap_bytes": lambda: or_none(walk["gap_bytes"], is_read),
    }


def _name_alert(told: Told | None) -> str | None:
    """Who sent the alert by which TLS failed, and its name."""
    if told is None or told.alert is None:
        return None
    side, name = told.alert
    return f"{(Endpoint.CLIENT, Endpoint.SERVER)[side]} {name}"


def _closes_sent(finished: Finished, side: int) -> list[Received]:
    """What the first Close of one side was."""
    kinds = [RECEIVED[kind] for kind in finished.sides[:, side]["close"].tolist()]
    return opaque.received_names(finished.told, finished.sealed, kinds, side)


def _timings(finished: Finished, story: _Story, known_end: classify.Mask) -> dict[str, list[Any]]:
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
    has_began = has_close | known_end
    active = finished.connections["activity_ns"]
    pings = np.stack([a["ping_ns"], b["ping_ns"]])
    oldest = np.where(pings > 0, pings, np.iinfo(np.int64).max).min(axis=0)
    return {
        "silence_s": _seconds(began - active, has_began & (active > 0)),
        "close_reply_s": _seconds(last_close - first_close, both),
        "end_delay_s": _seconds(story.ended_ns - last_close, has_close & known_end & (story.ended_ns >= last_close)),
        "unanswered_ping_s": _seconds(began - oldest, has_began & (pings.max(axis=0) > 0) & (began >= oldest)),
    }
