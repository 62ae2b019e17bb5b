"""Finished connections to rows: the facts that `classify` needs, the views it gives, and the two tables of them."""

import ipaddress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer.capture import frames, handshake
from analyzer.capture.tracker import Finished
from analyzer.knowledge.catalogue import Catalogue
from analyzer.model import (
    CLOSES,
    CONNECTIONS,
    HANDSHAKES,
    RECEIVED,
    SENT,
    VIOLATIONS,
    Anomaly,
    End,
    Endpoint,
    Initiator,
    Provenance,
    Rows,
    Table,
    anomaly_names,
    is_illegal_on_wire,
)
from analyzer.verdict import classify

REPLY_EXPECTED_NS = 1_000_000_000
"""How long a capture must go on after a Close before a missing reply is noted."""

SERVER_LINGER_NS = 1_000_000_000
"""A server that leaves TCP open longer than this after both Closes is noted (RFC 6455 section 7.1.1)."""

CLIENT, SERVER = 0, 1


class Close(NamedTuple):
    """The first Close of one side, its body read."""

    code: int | None
    reason: str | None
    anomalies: int


def read_closes(sides: Rows, side: int) -> list[Close]:
    """Read the Close bodies of one side of every connection."""
    kinds, sizes = sides["close"].tolist(), sides["body_bytes"].tolist()
    frame_bits = sides["close_anomalies"].tolist()
    closes = []
    for i, kind in enumerate(kinds):
        if kind == frames.NO_CLOSE:
            closes.append(Close(None, None, 0))
            continue
        if kind == frames.CUT_CLOSE:
            closes.append(Close(None, None, frame_bits[i]))
            continue
        body = frames.parse_close_body(sides["body"][i, : sizes[i]].tobytes())
        bits = frame_bits[i] | int(body.anomalies)
        if side == SERVER and body.status == 1010:
            bits |= int(Anomaly.SERVER_SENT_1010)
        closes.append(Close(body.status, body.reason, bits))
    return closes


def gather_facts(finished: Finished, side: int, closes: list[Close]) -> Rows:
    """What one side sent, as `classify` takes it.

    Args:
        finished: Connections that are over.
        side: 0 for the client, 1 for the server.
        closes: That side's Closes.

    """
    mine, theirs = finished.streams[:, side], finished.streams[:, 1 - side]
    walk, other = finished.sides[:, side], finished.sides[:, 1 - side]
    facts = np.zeros(len(mine), SENT)
    facts["seen"] = mine["packets"] > 0
    facts["close"] = walk["close"]
    codes = np.array([close.code or 0 for close in closes], np.int64)
    facts["code"] = codes
    facts["illegal"] = [close.code is not None and is_illegal_on_wire(close.code) for close in closes]
    facts["close_packet"] = walk["close_packet"]
    has_end = walk["close_end_pos"] > 0
    facts["close_acked"] = has_end & (mine["acked_pos"] >= walk["close_end_pos"])
    facts["close_acks_peer"] = has_end & (walk["close_ack_pos"] >= other["close_end_pos"])
    broken = np.array([close.anomalies & int(VIOLATIONS) != 0 for close in closes], bool)
    first = walk["violation_packet"].copy()
    at_close = broken & ((first == 0) | (walk["close_packet"] < first))
    first[at_close] = walk["close_packet"][at_close]
    facts["violation_packet"] = first
    facts["lost"] = walk["lost"] == 1
    facts["found_again"] = facts["lost"] & (walk["walk"] == frames.IN_STEP)
    facts["aligned"] = (walk["walk"] == frames.IN_STEP) & (walk["skip_bytes"] == 0) & (walk["header_bytes"] == 0)
    facts["frames"] = walk["frames"]
    facts["fin_packet"] = mine["fin_packet"]
    facts["complete"] = (mine["fin_packet"] > 0) & (mine["next_pos"] >= mine["fin_pos"])
    facts["rst_packet"] = mine["rst_packet"]
    at_fin = (mine["fin_packet"] > 0) & facts["complete"] & (mine["rst_pos"] - mine["fin_pos"] <= 1)
    facts["rst_in_place"] = (mine["rst_packet"] > 0) & ((mine["rst_pos"] == mine["next_pos"]) | at_fin)
    acked = np.where(theirs["fin_packet"] > 0, np.minimum(theirs["acked_pos"], theirs["fin_pos"]), theirs["acked_pos"])
    facts["rst_after_all_acked"] = (mine["rst_packet"] > 0) & (theirs["next_pos"] >= acked)
    return facts


def format_endpoint(hi: int, lo: int, port: int) -> str:
    """`ip:port`, IPv6 in brackets (RFC 5952)."""
    if hi == 0 and lo >> 32 == 0xFFFF:
        return f"{lo >> 24 & 255}.{lo >> 16 & 255}.{lo >> 8 & 255}.{lo & 255}:{port}"
    return f"[{ipaddress.IPv6Address((hi & (2**64 - 1)) << 64 | lo & (2**64 - 1))}]:{port}"


def _or_none(values: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> list[Any]:
    """The values as Python objects, None where they are not known."""
    return [value if ok else None for value, ok in zip(values.tolist(), known.tolist(), strict=True)]


def _seconds(ns: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> list[float | None]:
    return [value / 1e9 if ok else None for value, ok in zip(ns.tolist(), known.tolist(), strict=True)]


class _Story(NamedTuple):
    """What both tables tell of the same connections, column by column."""

    connection: list[str]
    client: list[str]
    server: list[str]
    initiator: list[Initiator]
    end: list[End]
    ended_by: list[Endpoint | None]
    ended_ns: npt.NDArray[np.int64]
    opened_ns: npt.NDArray[np.int64]
    requests: list[handshake.Request | None]
    responses: list[handshake.Response | None]
    anomalies: list[int]


def to_tables(finished: Finished, *, source: str, catalogue: Catalogue) -> tuple[Table, Table]:
    """Rows of `closes` and `connections` for connections that are over.

    Args:
        finished: From `Tracker.feed` or `Tracker.finish`.
        source: Name of the capture.
        catalogue: Where diagnoses are looked up.

    """
    closes = [read_closes(finished.sides[:, side], side) for side in (CLIENT, SERVER)]
    sent = [gather_facts(finished, side, closes[side]) for side in (CLIENT, SERVER)]
    requests = [None if head is None else handshake.parse_request(head) for head in finished.requests]
    responses = [None if head is None else handshake.parse_response(head) for head in finished.responses]
    answer_bits = [
        handshake.check_answer(request, response)
        if request is not None and response is not None and response.status == 101
        else Anomaly.NONE
        for request, response in zip(requests, responses, strict=True)
    ]
    state = _handshake_state(finished, sent, answer_bits)
    views = [
        classify.classify(
            sent[1 - side],
            sent[side],
            handshake=state,
            is_client=side == CLIENT,
            evicted=finished.evicted,
            vanished=finished.vanished,
        )
        for side in (CLIENT, SERVER)
    ]
    story = _tell(finished, sent, closes, state, requests, responses, answer_bits)
    keys = [_diagnose(views[side], sent, story, side, catalogue) for side in (CLIENT, SERVER)]
    connections = _connections_table(finished, closes, state, views, story, keys, source)
    return _closes_table(finished, closes, views, story, source), connections


def _handshake_state(finished: Finished, sent: list[Rows], answer_bits: list[Anomaly]) -> Rows:
    """Index into HANDSHAKES; an answer that the client dropped without a frame makes the handshake failed (row 16)."""
    state = finished.connections["handshake"].astype(np.int64)
    # whoever sends frames has been answered, captured or not
    unanswered = state == handshake.PENDING
    state[unanswered] = handshake.FAILED
    state[unanswered & (sent[CLIENT]["frames"] > 0)] = handshake.MISSING_HANDSHAKE
    wrong = np.array([bool(bits) for bits in answer_bits], bool)
    client, server = sent
    client_ended = np.maximum(client["fin_packet"], client["rst_packet"]) > 0
    server_ended = np.maximum(server["fin_packet"], server["rst_packet"])
    first = _first_packet(client["fin_packet"], client["rst_packet"])
    client_first = client_ended & ((server_ended == 0) | (first < server_ended))
    state[wrong & (client["frames"] == 0) & client_first] = handshake.FAILED
    return state


def _first_packet(a: Rows, b: Rows) -> npt.NDArray[np.int64]:
    """The smaller of two packet numbers, 0 standing for none."""
    return np.where(a == 0, b, np.where(b == 0, a, np.minimum(a, b)))


def _tell(
    finished: Finished,
    sent: list[Rows],
    closes: list[list[Close]],
    state: Rows,
    requests: list[handshake.Request | None],
    responses: list[handshake.Response | None],
    answer_bits: list[Anomaly],
) -> _Story:
    flows, connections = finished.flows, finished.connections
    n = len(flows)
    names = []
    for side in ("a", "b"):
        names.append(
            [
                format_endpoint(*parts)
                for parts in zip(
                    flows[f"{side}_hi"].tolist(),
                    flows[f"{side}_lo"].tolist(),
                    flows[f"{side}_port"].tolist(),
                    strict=True,
                )
            ]
        )
    client_is_b = connections["client_stream"].tolist()
    client = [names[at][i] for i, at in enumerate(client_is_b)]
    server = [names[1 - at][i] for i, at in enumerate(client_is_b)]

    # how and by whom the transport ended: the first FIN or RST of either side
    moments = np.stack(
        [finished.streams[:, side][f"{flag}_packet"] for side in (CLIENT, SERVER) for flag in ("fin", "rst")]
    )
    times = np.stack([finished.streams[:, side][f"{flag}_ns"] for side in (CLIENT, SERVER) for flag in ("fin", "rst")])
    moments = np.where(moments == 0, np.iinfo(np.int64).max, moments)
    first = moments.argmin(axis=0)
    has_ended = (moments.min(axis=0) < np.iinfo(np.int64).max) & ~finished.superseded
    ended_ns = np.where(has_ended, times[first, np.arange(n)], 0)
    end = [End.FIN if at % 2 == 0 else End.RST for at in first.tolist()]
    ended_by: list[Endpoint | None] = [Endpoint.CLIENT if at < 2 else Endpoint.SERVER for at in first.tolist()]
    for i in np.flatnonzero(~has_ended).tolist():
        ended_by[i] = None
        if finished.superseded[i]:
            end[i] = End.UNKNOWN
        elif finished.evicted[i]:
            end[i] = End.EVICTED
        else:
            end[i] = End.VANISHED if finished.vanished[i] else End.OPEN

    a, b = sent
    both = (a["close"] != frames.NO_CLOSE) & (b["close"] != frames.NO_CLOSE)
    hidden = [~side["seen"] | side["lost"] for side in sent]
    has_crossed = classify.crossed(a, b)
    initiator = np.full(n, Initiator.NONE, object)
    initiator[(hidden[CLIENT] & (a["close"] == 0)) | (hidden[SERVER] & (b["close"] == 0))] = Initiator.UNKNOWN
    initiator[(a["close"] != 0) & (b["close"] == 0) & ~hidden[SERVER]] = Initiator.CLIENT
    initiator[(b["close"] != 0) & (a["close"] == 0) & ~hidden[CLIENT]] = Initiator.SERVER
    initiator[both & (a["close_packet"] < b["close_packet"])] = Initiator.CLIENT
    initiator[both & (b["close_packet"] < a["close_packet"])] = Initiator.SERVER
    initiator[has_crossed] = Initiator.BOTH
    initiator[np.isin(state, (handshake.REJECTED, handshake.FAILED)) & ~both] = Initiator.NONE

    opened_ns = np.where(connections["opened_ns"] > 0, connections["opened_ns"], connections["request_ns"])
    opened_ns = np.where(opened_ns > 0, opened_ns, flows["first_ns"])
    identifiers = []
    started = np.datetime_as_string(flows["first_ns"].astype("datetime64[ns]"))
    for i, stamp in enumerate(started.tolist()):
        ordinal = int(connections["ordinal"][i])
        suffix = f"-{ordinal + 1}" if ordinal else ""
        stamp = stamp.replace("-", "").replace(":", "")
        identifiers.append(f"{stamp}Z-{client[i]}-{server[i]}{suffix}")

    anomalies = _conduct(finished, sent, closes, answer_bits, has_crossed, ended_ns, has_ended, first)
    return _Story(
        identifiers,
        client,
        server,
        initiator.tolist(),
        end,
        ended_by,
        ended_ns,
        opened_ns,
        requests,
        responses,
        anomalies,
    )


def _conduct(
    finished: Finished,
    sent: list[Rows],
    closes: list[list[Close]],
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
        bits |= np.array([close.anomalies for close in closes[side]], np.int64)
    has_a, has_b = a["close"] != frames.NO_CLOSE, b["close"] != frames.NO_CLOSE
    both = has_a & has_b
    close_ns = np.where(has_a, finished.sides[:, CLIENT]["close_ns"], finished.sides[:, SERVER]["close_ns"])
    last_ns = np.maximum(finished.streams[:, CLIENT]["last_ns"], finished.streams[:, SERVER]["last_ns"])
    whole = ~a["lost"] & ~b["lost"] & a["seen"] & b["seen"]
    unanswered = (has_a ^ has_b) & whole & (has_ended | (last_ns - close_ns >= REPLY_EXPECTED_NS))
    bits[unanswered] |= int(Anomaly.NO_CLOSE_REPLY)
    differs = both & ~has_crossed & ((a["close"] != b["close"]) | (a["code"] != b["code"]))
    bits[differs] |= int(Anomaly.REPLY_DIFFERS)
    bits[both & has_ended & (first_end < 2)] |= int(Anomaly.CLIENT_ENDED_FIRST)
    last_close_ns = np.maximum(finished.sides[:, CLIENT]["close_ns"], finished.sides[:, SERVER]["close_ns"])
    until = np.where(has_ended, ended_ns, last_ns)
    bits[both & (until - last_close_ns > SERVER_LINGER_NS)] |= int(Anomaly.SERVER_LINGERED)
    result: list[int] = bits.tolist()
    return result


def _diagnose(views: classify.Views, sent: list[Rows], story: _Story, side: int, catalogue: Catalogue) -> list[str]:
    """Key of the documented text for every view of one endpoint."""
    endpoint = (Endpoint.CLIENT, Endpoint.SERVER)[side]
    return [
        catalogue.key(
            code or None,
            evidence=evidence,
            provenance=provenance,
            endpoint=endpoint,
            sent=RECEIVED[own],
            initiator=initiator,
            end=end,
            ended_by=ended_by or Endpoint.UNKNOWN,
        )
        for code, evidence, provenance, own, initiator, end, ended_by in zip(
            views.code.tolist(),
            views.evidence.tolist(),
            views.provenance.tolist(),
            sent[side]["close"].tolist(),
            story.initiator,
            story.end,
            story.ended_by,
            strict=True,
        )
    ]


def _closes_table(
    finished: Finished,
    closes: list[list[Close]],
    views: list[classify.Views],
    story: _Story,
    source: str,
) -> Table:
    table = Table(CLOSES)
    known_end = np.array([end in (End.FIN, End.RST) for end in story.end], bool)
    duration = _seconds(story.ended_ns - story.opened_ns, known_end)
    hosts = [None if request is None else request.host for request in story.requests]
    paths = [None if request is None else request.path for request in story.requests]
    columns: list[dict[str, list[Any]]] = []
    for side in (CLIENT, SERVER):
        view, peer = views[side], 1 - side
        record, time = _moments(finished, view, side)
        determined = view.provenance != Provenance.UNDETERMINED
        peer_closes, own_closes = closes[peer], closes[side]
        walked = finished.sides[:, peer]["anomalies"].tolist()
        bits = [walk | close.anomalies for walk, close in zip(walked, peer_closes, strict=True)]
        columns.append(
            {
                "source": [source] * len(bits),
                "record": record,
                "time": time,
                "connection": story.connection,
                "endpoint": [(Endpoint.CLIENT, Endpoint.SERVER)[side]] * len(bits),
                "code": _or_none(view.code, determined),
                "provenance": view.provenance.tolist(),
                "evidence": view.evidence.tolist(),
                "confidence": view.confidence.tolist(),
                "received": [RECEIVED[kind] for kind in finished.sides[:, peer]["close"].tolist()],
                "wire_code": [close.code for close in peer_closes],
                "sent": [RECEIVED[kind] for kind in finished.sides[:, side]["close"].tolist()],
                "sent_code": [close.code for close in own_closes],
                "reason": [close.reason for close in peer_closes],
                "initiator": list(story.initiator),
                "end": list(story.end),
                "ended_by": list(story.ended_by),
                "duration_s": duration,
                "client": story.client,
                "server": story.server,
                "host": hosts,
                "path": paths,
                "anomalies": [anomaly_names(b) for b in bits],
            }
        )
    # a connection's two views stand together
    n = len(story.connection)
    merged: dict[str, list[Any]] = {}
    keep = np.stack([views[CLIENT].has_row, views[SERVER].has_row], axis=1).ravel().tolist()
    for name in columns[CLIENT]:
        pairs = [None] * (2 * n)
        pairs[0::2], pairs[1::2] = columns[CLIENT][name], columns[SERVER][name]
        merged[name] = [value for value, kept in zip(pairs, keep, strict=True) if kept]
    table.append(merged)
    return table


def _moments(finished: Finished, view: classify.Views, side: int) -> tuple[list[Any], list[Any]]:
    """Packet and time at which this endpoint learned of the end, None where nothing told it."""
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
    return _or_none(packets, packets > 0), _or_none(times, packets > 0)


def _connections_table(
    finished: Finished,
    closes: list[list[Close]],
    state: Rows,
    views: list[classify.Views],
    story: _Story,
    keys: list[list[str]],
    source: str,
) -> Table:
    n = len(story.connection)
    rows = finished.connections
    requests, responses = story.requests, story.responses
    known_end = np.array([end in (End.FIN, End.RST) for end in story.end], bool)
    columns: dict[str, list[Any]] = {
        "connection": story.connection,
        "source": [source] * n,
        "client": story.client,
        "server": story.server,
        "transport": ["tcp"] * n,
        "host": [None if r is None else r.host for r in requests],
        "path": [None if r is None else r.path for r in requests],
        "subprotocol": [None if r is None else r.protocol for r in responses],
        "extensions": [None if r is None else r.extensions for r in responses],
        "user_agent": [None if r is None else r.user_agent for r in requests],
        "server_software": [None if r is None else r.server for r in responses],
        "handshake": [HANDSHAKES[index] for index in state.tolist()],
        "http_status": _or_none(rows["status"], rows["status"] > 0),
        "opened": story.opened_ns.tolist(),
        "ended": _or_none(story.ended_ns, known_end),
        "duration_s": _seconds(story.ended_ns - story.opened_ns, known_end),
        "initiator": story.initiator,
        "end": list(story.end),
        "ended_by": list(story.ended_by),
        "anomalies": [anomaly_names(bits) for bits in story.anomalies],
    }
    for side, name in enumerate(("client", "server")):
        walk, mine = finished.sides[:, side], closes[side]
        has_close = walk["close"] != frames.NO_CLOSE
        columns |= {
            f"{name}_close": [RECEIVED[kind] for kind in walk["close"].tolist()],
            f"{name}_close_code": [close.code for close in mine],
            f"{name}_close_reason": [close.reason for close in mine],
            f"{name}_close_time": _or_none(walk["close_ns"], has_close),
            f"{name}_close_source": [source if has else None for has in has_close.tolist()],
            f"{name}_close_record": _or_none(walk["close_packet"], has_close),
            f"{name}_close_anomalies": [anomaly_names(close.anomalies) for close in mine],
            f"{name}_view_code": _or_none(views[side].code, views[side].code > 0),
            f"{name}_view_provenance": _or_none(views[side].provenance, views[side].has_row),
            f"{name}_view_evidence": _or_none(views[side].evidence, views[side].has_row),
            f"{name}_view_confidence": _or_none(views[side].confidence, views[side].has_row),
            f"{name}_frames": walk["frames"].tolist(),
            f"{name}_messages": walk["messages"].tolist(),
            f"{name}_bytes": walk["payload_bytes"].tolist(),
            f"{name}_largest_message_bytes": walk["largest_bytes"].tolist(),
            f"{name}_gap_bytes": walk["gap_bytes"].tolist(),
        }
    columns |= _timings(finished, story, known_end)
    # the view of whoever did not begin the end: it names what happened to them
    columns["diagnosis"] = [
        keys[SERVER][i] if initiator == Initiator.CLIENT and views[SERVER].has_row[i] else keys[CLIENT][i]
        for i, initiator in enumerate(story.initiator)
    ]
    table = Table(CONNECTIONS)
    table.append(columns)
    return table


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
