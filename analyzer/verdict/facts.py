"""Finished connections to facts: their Close bodies, and what each side sent, as `classify` takes it."""

import numpy as np
import numpy.typing as npt

from analyzer.capture import frames, handshake, mark
from analyzer.capture.finished import ENDED, Finished
from analyzer.model import LOCAL_ONLY, RECEIVED, SENT, VIOLATIONS, Anomaly, Received, Rows, anomaly_names
from analyzer.table import Coded, Numbers

CLIENT, SERVER = 0, 1

SEALED_CLOSE = RECEIVED.index(Received.SEALED)
"""SIDE `close` of one that was never opened (docs/sealed.md)."""


class Closes:
    """The first Closes of one side, bodies read: whole columns at once, text only where it is asked for.

    Attributes:
        kind: Index into RECEIVED.
        has_code, code: Whether a status came, and which (0 where none did).
        anomalies: Bits of the frame and its body together.
    """

    def __init__(self, sides: Rows, side: int) -> None:
        """Read one side of every connection.

        Args:
            sides: SIDE rows of that side.
            side: 0 for the client, 1 for the server.
        """
        self._sides = sides
        self.kind: Rows = sides["close"]
        self.has_code = self.kind == frames.STATUS_CLOSE
        body = sides["body"]
        status = body[:, 0].astype(np.int64) << 8 | body[:, 1]
        self.code = np.where(self.has_code, status, 0)
        bits = sides["close_anomalies"].copy()
        is_local = np.isin(self.code, tuple(LOCAL_ONLY))
        is_illegal = self.has_code & ((status < 1000) | (status == 1004) | (status > 4999))
        is_illegal |= self.has_code & (status >= 1016) & (status < 3000)
        bits[is_local] |= int(Anomaly.LOCAL_CODE_ON_WIRE)
        bits[is_illegal] |= int(Anomaly.CODE_OUT_OF_RANGE)
        if side == SERVER:
            bits[self.code == 1010] |= int(Anomaly.SERVER_SENT_1010)
        # ASCII is UTF-8; the few others are decoded
        longest = int(sides["body_bytes"].max(initial=0))
        inside = np.arange(longest) < sides["body_bytes"][:, None]
        for i in np.flatnonzero(self.has_code & ((body[:, :longest] > 127) & inside)[:, 2:].any(axis=1)).tolist():
            bits[i] |= int(self._read(i).anomalies & Anomaly.REASON_NOT_UTF8)
        self.anomalies: npt.NDArray[np.int64] = bits

    def _read(self, i: int) -> frames.CloseBody:
        row = self._sides[i]
        return frames.parse_close_body(row["body"][: int(row["body_bytes"])].tobytes())

    def codes(self) -> Numbers:
        """Status codes, none where none came."""
        return Numbers(self.code, self.has_code)

    def reasons(self) -> Coded:
        """Reasons: None without a Close or with one cut off, empty where it gave none."""
        kinds = self.kind.tolist()
        unread = (frames.NO_CLOSE, frames.CUT_CLOSE, SEALED_CLOSE)
        return Coded.of([None if kind in unread else self._read(i).reason for i, kind in enumerate(kinds)])

    def names(self) -> Coded:
        """Anomalies by name."""
        return name_anomalies(self.anomalies)


def name_anomalies(bits: Rows) -> Coded:
    """Bits of `Anomaly` as a column of lists of names."""
    distinct, ids = np.unique(bits, return_inverse=True)
    return Coded([anomaly_names(some) for some in distinct.tolist()], ids)


def gather_facts(finished: Finished, side: int, closes: Closes) -> Rows:
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
    facts["code"] = closes.code
    facts["close_packet"] = walk["close_packet"]
    has_end = walk["close_end_pos"] > 0
    facts["close_acked"] = has_end & (mine["acked_pos"] >= walk["close_end_pos"])
    facts["tls_failed"] = (finished.heard_pos[:, side] < mark.EVERYTHING) & (finished.connections["finished"] != ENDED)
    facts["close_unheard"] = has_end & (walk["close_end_pos"] > finished.heard_pos[:, side])
    facts["close_acks_peer"] = has_end & (walk["close_ack_pos"] >= other["close_end_pos"])
    broken = closes.anomalies & int(VIOLATIONS) != 0
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
    facts["rst_acks"] = mine["rst_acked_pos"] > 0
    # a RST without ACK says nothing of what its sender had read; after its own FIN it had stopped reading anyway
    speaks = facts["rst_acks"] | (mine["fin_packet"] > 0)
    facts["rst_after_all_acked"] = (mine["rst_packet"] > 0) & speaks & (theirs["next_pos"] >= acked)
    facts["rst_behind_close"] = (mine["rst_packet"] > 0) & has_end & (mine["rst_pos"] >= walk["close_end_pos"])
    seen_to = mine["next_pos"] + (mine["fin_packet"] > 0)
    facts["tail_missing"] = (mine["acked_pos"] > seen_to) | (mine["fin_packet"] > 0) & ~facts["complete"]
    facts["tail_missing"] |= (mine["rst_packet"] > 0) & ~facts["rst_in_place"]
    facts["by_stream"] = finished.by_stream[:, side]
    return facts


def handshake_state(finished: Finished, sent: list[Rows], answer_bits: Rows) -> Rows:
    """Index into HANDSHAKES; an answer that the client dropped without a frame makes the handshake failed (row 16)."""
    state = finished.connections["handshake"].astype(np.int64)
    # whoever sends frames has been answered, captured or not
    unanswered = state == handshake.PENDING
    state[unanswered] = handshake.FAILED
    state[unanswered & (sent[CLIENT]["frames"] > 0)] = handshake.MISSING_HANDSHAKE
    # the answer, or the request, may stand in what was not opened
    is_half = finished.sealed.any(axis=1)
    state[is_half & (unanswered | (state == handshake.MISSING_HANDSHAKE))] = handshake.SEALED_HANDSHAKE
    wrong = answer_bits != 0
    client, server = sent
    by_client = _first_packet(client["fin_packet"], client["rst_packet"])
    by_server = _first_packet(server["fin_packet"], server["rst_packet"])
    client_first = (by_client > 0) & ((by_server == 0) | (by_client < by_server))
    state[wrong & (client["frames"] == 0) & client_first] = handshake.FAILED
    return state


def _first_packet(a: Rows, b: Rows) -> npt.NDArray[np.int64]:
    """The smaller of two packet numbers, 0 standing for none."""
    return np.where(a == 0, b, np.where(b == 0, a, np.minimum(a, b)))
