"""Connections whose TLS was never opened: of which something is said, and what (rows 17, 18 and 23 to 26).

A connection is spoken of only where it is asserted or likely to carry a WebSocket; all others are merely counted.
"""

import fnmatch
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analyzer.capture.alert import is_failure
from analyzer.capture.mark import Place
from analyzer.capture.records import IN_STEP
from analyzer.capture.sealed import ASKED, Told
from analyzer.model import EVIDENCES, RECEIVED, SEALED_END, Confidence, Evidence, Initiator, Provenance, Received, Rows
from analyzer.verdict import classify, sealed
from analyzer.verdict.classify import Views
from analyzer.verdict.sealed import CODES

if TYPE_CHECKING:
    from analyzer.capture.tls import Session

MAX_SEEN = 4096
"""WebSocket servers that are remembered, so that a failed TLS handshake with one of them is told."""


class Asserted(NamedTuple):
    """What the user says is WebSocket: server names, patterns such as `*.example.org` among them, and server ports."""

    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()

    def holds(self, place: Place) -> bool:
        """Whether it is said of this server."""
        name = (place.sni or "").lower()
        return place.port in self.ports or any(name and fnmatch.fnmatchcase(name, host.lower()) for host in self.hosts)


class Opaque:
    """Decides what is said of connections that were never opened, and remembers which servers speak WebSocket."""

    def __init__(self, asserted: Asserted) -> None:
        self._asserted = asserted
        self.is_asserting = any(asserted)
        self._seen: dict[Place, None] = {}

    def see(self, place: Place) -> None:
        """A WebSocket was seen there."""
        if len(self._seen) < MAX_SEEN:
            self._seen[place] = None

    def may_tell(self, shape: Rows) -> bool:
        """Whether it is worth while to look at a connection at all."""
        return bool(self._seen or self.is_asserting or int(shape["shortish_turns"]) or int(shape["short_turns"]))

    def judge(self, session: "Session", place: Place, row: Rows, cutters: Rows, streams: Rows) -> Told | None:
        """What is said of one connection, None where nothing is.

        Args:
            session: Its TLS, as far as it was read.
            place: Its server.
            row: SEALED.
            cutters: CUTTER rows, the client's first.
            streams: STREAM rows, the client's first.

        """
        is_asserted = self._asserted.holds(place)
        if _came_to_nothing(session, row):
            return _failed(session) if is_asserted or place in self._seen else None
        told = sealed.judge(
            row,
            _ends(cutters, streams),
            version=session.version_number,
            suite=session.suite_number,
            offers=session.alpn_offers,
            selected=session.alpn,
            is_asserted=is_asserted or place in self._seen,
        )
        if not told.is_websocket:
            return None
        self.see(place)
        return told

    def has_failed(self, session: "Session", row: Rows) -> bool:
        """Whether TLS ended with an alert before it was established; `judge` tells of it where the server is known."""
        return _came_to_nothing(session, row) and _failed(session) is not None


def _came_to_nothing(session: "Session", row: Rows) -> bool:
    """Whether nothing was ever asked for."""
    return not session.is_established and int(row["phase"]) < ASKED


def _failed(session: "Session") -> Told | None:
    """TLS that ended with an alert before it was established (rows 17 and 18)."""
    for alert in session.alerts:
        if alert.name is not None and is_failure(alert.level, alert.name, is_13=session.is_13):
            none, packet, ns = Received.NONE, alert.mark.packet, alert.mark.ts_ns
            return Told(
                True,
                Confidence.HIGH,
                Initiator.NONE,
                (none, none),
                (Evidence.TLS_ALERT, Evidence.TLS_ALERT),
                (Confidence.HIGH, Confidence.HIGH),
                (packet, packet),
                (ns, ns),
                (0 if alert.direction == session.client else 1, alert.name),
            )
    return None


def _ends(cutters: Rows, streams: Rows) -> tuple[Rows, Rows]:
    """SEALED_END of the client and of the server."""
    ends = np.zeros(2, SEALED_END)
    for side in range(2):
        mine, theirs, cutter = streams[side], streams[1 - side], cutters[side]
        for name in ("fin_ns", "fin_packet", "rst_ns", "rst_packet"):
            ends[side][name] = mine[name]
        next_pos = int(mine["next_pos"])
        is_whole = int(mine["fin_packet"]) > 0 and next_pos >= int(mine["fin_pos"])
        is_whole |= int(mine["rst_packet"]) > 0 and next_pos == int(mine["rst_pos"])
        is_whole |= int(theirs["rst_packet"]) > 0 and next_pos >= int(mine["acked_pos"])
        in_step = int(cutter["walk"]) == IN_STEP and not int(cutter["left_bytes"]) and not int(cutter["have_bytes"])
        ends[side]["is_complete"] = is_whole and in_step
    return ends[0], ends[1]


WITHOUT_END = (Evidence.OPEN_END, Evidence.VANISHED, Evidence.EVICTED, Evidence.GAP)

BY_ABSENCE = (Evidence.NO_CLOSE_FIN, Evidence.NO_CLOSE_RST, Evidence.STREAM_END, Evidence.STREAM_RESET)
"""Claims that rest on no Close having been seen."""

TLS_FAILED = 1015
"""What an endpoint makes up where TLS could not be established (RFC 6455 section 7.4.1)."""


def put_views(views: Views, told: Mapping[int, Told], endpoint: int) -> None:
    """Replace the views of connections that were never opened.

    Args:
        views: Of one endpoint; changed in place.
        told: By row; those that were opened or never encrypted have none.
        endpoint: 0 for the client, 1 for the server.

    """
    for i, one in told.items():
        evidence, code, provenance = one.evidence[endpoint], 0, Provenance.UNDETERMINED
        if evidence == Evidence.SEALED and EVIDENCES[views.evidence[i]] in WITHOUT_END:
            continue  # it had no end that could be judged
        moment = classify.NOTHING
        if evidence == Evidence.TLS_ALERT:
            code, provenance, moment = TLS_FAILED, Provenance.SYNTHESIZED, classify.ANSWER
        elif evidence in CODES:
            code, provenance = CODES[evidence], Provenance.INFERRED
            moment = classify.CLOSE if evidence == Evidence.SEALED_EMPTY_CLOSE else classify.PEER_FIN
        elif evidence == Evidence.SEALED_CLOSE:
            moment = classify.CLOSE
        views.put(i, code, provenance, evidence, moment, one.confidence[endpoint] if code else None)


def put_sealed(views: Views, sealed: Rows, has_opened: classify.Mask, sides: tuple[Rows, Rows], endpoint: int) -> None:
    """Take back what is claimed of streams that keys opened in one direction only, or in part.

    No Close proves nothing in what is sealed; nor does the silence of a side that may never have been let in.

    Args:
        views: Of one endpoint; changed in place.
        sealed: Which side is sealed, shape (n, 2).
        has_opened: Whether the opening handshake is known to have succeeded.
        sides: SENT of the client and of the server.
        endpoint: 0 for the client, 1 for the server.

    """
    peer = sides[1 - endpoint]
    unread = sealed[:, 1 - endpoint] & (peer["close"] == classify.NONE)
    unread |= sealed[:, endpoint] & ~has_opened & (peer["frames"] == 0)
    never_read = sealed[:, 1 - endpoint] & (peer["frames"] == 0)
    for i in np.flatnonzero(unread | never_read).tolist():
        evidence = EVIDENCES[views.evidence[i]]
        if evidence in BY_ABSENCE or (never_read[i] and evidence == Evidence.GAP):
            views.put(i, 0, Provenance.UNDETERMINED, Evidence.SEALED)


def received(told: Mapping[int, Told], sealed: Rows, known: Rows, side: int) -> Rows:
    """What Close each side sent, as an index into RECEIVED: what was told where nothing was opened, UNKNOWN where none
    was seen of what is sealed.
    """
    result = np.where(sealed[:, side] & (known == classify.NONE), RECEIVED.index(Received.UNKNOWN), known)
    for i, one in told.items():
        result[i] = RECEIVED.index(one.sent[side])
    return result
