"""Which close code does an endpoint report? The decision table (docs/decisions.md) as code.

E is the endpoint whose view is decided, P its peer. A view depends only on the bytes that travelled from P to E and on
when E stopped reading; 1006 is claimed only where that direction is complete to its end. Works on whole arrays: one
mask per row of the table, the first that holds decides.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer.model import (
    CONFIDENCES,
    EVIDENCES,
    FAILING,
    HANDSHAKES,
    PROVENANCES,
    RECEIVED,
    Confidence,
    Evidence,
    Handshake,
    Provenance,
    Received,
    Rows,
)

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

NONE, STATUS, EMPTY, SHORT, CUT = (
    RECEIVED.index(kind) for kind in (Received.NONE, Received.STATUS, Received.EMPTY, Received.SHORT, Received.CUT)
)
MISSING, REJECTED, FAILED, SEALED = (
    HANDSHAKES.index(kind) for kind in (Handshake.MISSING, Handshake.REJECTED, Handshake.FAILED, Handshake.SEALED)
)

UNDETERMINED = PROVENANCES.index(Provenance.UNDETERMINED)
UNSURE, MEDIUM, HIGH = (CONFIDENCES.index(level) for level in (None, Confidence.MEDIUM, Confidence.HIGH))

CLOSE, PEER_FIN, PEER_RST, OWN_RST, OWN_CLOSE, ANSWER, NOTHING = range(7)
"""What told the endpoint of the end: column `moment` of `Views`."""


class Views(NamedTuple):
    """One endpoint's views, one element per connection.

    `code` is 0 where undetermined; `moment` says which packet told the endpoint; `has_row` is False where this endpoint
    has no view at all (the server of a handshake that never succeeded).
    """

    code: Integers
    provenance: Integers  # index into PROVENANCES
    evidence: Integers  # into EVIDENCES
    confidence: Integers  # into CONFIDENCES
    moment: Integers
    has_row: Mask

    @property
    def has_code(self) -> Mask:
        """Where a code is claimed."""
        result: Mask = self.has_row & (self.provenance != UNDETERMINED)
        return result

    def put(
        self, i: int, code: int, how: Provenance, why: Evidence, when: int = NOTHING, sure: Confidence | None = None
    ) -> None:
        """Replace one view."""
        self.code[i], self.provenance[i], self.evidence[i] = code, PROVENANCES.index(how), EVIDENCES.index(why)
        self.confidence[i], self.moment[i] = CONFIDENCES.index(sure), when


def crossed(a: Rows, b: Rows) -> Mask:
    """Whether the two first Closes crossed: neither one's segment acknowledges the other (row 2)."""
    both = (a["close"] != NONE) & (b["close"] != NONE)
    result: Mask = both & ~a["close_acks_peer"] & ~b["close_acks_peer"]
    return result


def classify(
    from_peer: Rows,
    own: Rows,
    *,
    handshake: Rows,
    is_client: bool,
    evicted: Rows,
    vanished: Rows,
    answered: Rows,
    refused: Rows,
) -> Views:
    """Decide one endpoint's view of every connection.

    Args:
        from_peer: SENT rows, what P sent to E.
        own: SENT rows, what E sent to P.
        handshake: Index into HANDSHAKES per connection.
        is_client: Whether E is the client.
        evicted: Connections that a limit dropped.
        vanished: Connections with unanswered retransmissions, then silence.
        answered: Connections whose upgrade request got an answer that was captured.
        refused: Connections whose request the server said it never looked at (row 22).

    """
    p, e = from_peer, own
    n = len(p)
    code, evidence = np.zeros(n, np.int64), np.zeros(n, np.int64)
    provenance, confidence = np.full(n, UNDETERMINED), np.full(n, UNSURE)
    moment = np.full(n, NOTHING)
    undecided = np.ones(n, bool)

    def decide(
        mask: Mask,
        what: int | Rows | None,
        how: Provenance,
        why: Evidence,
        when: int,
        sure: Confidence = Confidence.HIGH,
    ) -> None:
        hit = undecided & mask
        if not hit.any():
            return
        if what is not None:
            code[hit] = what if isinstance(what, int) else what[hit]
        provenance[hit], evidence[hit], moment[hit] = PROVENANCES.index(how), EVIDENCES.index(why), when
        confidence[hit] = CONFIDENCES.index(sure) if how != Provenance.UNDETERMINED else UNSURE
        undecided[hit] = False

    is_unseen = (handshake == MISSING) | (handshake == SEALED)
    status, empty = p["close"] == STATUS, p["close"] == EMPTY
    has_close = p["close"] != NONE
    has_sent = e["close"] != NONE
    # a Close captured after E's RST met a transport that E itself had thrown away: E never read it
    unread = has_close & (e["rst_packet"] > 0) & (p["close_packet"] > e["rst_packet"]) & ~p["close_acked"]
    has_close &= ~unread
    status &= has_close
    empty &= has_close
    has_replied = has_sent & has_close & e["close_acks_peer"]
    undone, made_up = Provenance.UNDETERMINED, Provenance.SYNTHESIZED

    def decide_read(mask: Mask, sure: Confidence) -> None:
        """E read P's Close: the status that stands in it, or 1005 where it has no body."""
        decide(mask & status, p["code"], Provenance.WIRE, Evidence.STATUS, CLOSE, sure)
        decide(mask & empty, 1005, made_up, Evidence.EMPTY_CLOSE, CLOSE, sure)

    # how P's stream, or E's reading of it, came to an end with every byte up to it seen
    own_rst_first = (e["rst_packet"] > 0) & ((p["fin_packet"] == 0) | (e["rst_packet"] < p["fin_packet"]))
    by_fin = p["seen"] & (p["fin_packet"] > 0) & p["complete"] & ~own_rst_first
    by_rst = p["seen"] & (p["rst_packet"] > 0) & p["rst_in_place"]
    by_own_rst = p["seen"] & (e["rst_packet"] > 0) & e["rst_in_place"] & e["rst_after_all_acked"]
    ended = (p["fin_packet"] > 0) | (p["rst_packet"] > 0) | (e["rst_packet"] > 0)

    # 15, 16: the connection was never established
    if is_client:
        failed = handshake == FAILED
        whole = ~p["lost"] & (by_fin | by_rst | by_own_rst)
        decide(handshake == REJECTED, 1006, made_up, Evidence.HANDSHAKE_REJECTED, ANSWER)
        decide(failed & (answered | whole), 1006, made_up, Evidence.HANDSHAKE_FAILED, ANSWER)
        decide(failed & p["seen"] & ended, None, undone, Evidence.GAP, NOTHING)

    # 12, 14: E failed the connection and reads nothing more (RFC 6455 section 7.1.7)
    is_echo = has_replied & status & (e["close"] == STATUS) & (p["code"] == e["code"])
    has_failed = (e["close"] == STATUS) & np.isin(e["code"], FAILING) & ~is_echo
    visible = (p["violation_packet"] > 0) & (p["violation_packet"] <= e["close_packet"])
    decide(has_failed & visible, 1006, made_up, Evidence.FAILED_HERE, OWN_CLOSE)
    decide(has_failed & has_close, None, undone, Evidence.FAILED_HERE, OWN_CLOSE)

    # E may have failed the connection in bytes that the capture lacks: then 10 to 12 cannot be told apart, and every
    # other Close is less sure to have been read
    own_hidden = ~has_sent & (~e["seen"] | e["lost"] | e["tail_missing"])
    decide(has_close & (p["violation_packet"] > 0) & own_hidden, None, undone, Evidence.GAP, CLOSE)

    # 7: a Close that came after E had failed TLS, behind which it reads nothing more (RFC 8446 section 6.2)
    decide(has_close & p["close_unheard"], None, undone, Evidence.LATE_CLOSE, CLOSE)

    # 7, 8: a Close that came after E's FIN
    late = has_close & (e["fin_packet"] > 0) & (p["close_packet"] > e["fin_packet"])
    decide(late & (e["rst_packet"] > p["close_packet"]), None, undone, Evidence.LATE_CLOSE, CLOSE)
    decide_read(late, Confidence.MEDIUM)

    # 9: a Close, then a reset: P's own may discard it unread, any may have come before it did
    was_reset = has_close & p["rst_behind_close"]
    was_lost = has_close & ~p["close_acked"] & ((e["rst_packet"] > p["close_packet"]) | was_reset | vanished)
    decide_read(was_reset & has_replied, Confidence.HIGH)
    decide(was_lost & (status | empty), None, undone, Evidence.CLOSE_UNACKED, CLOSE)
    decide_read(was_reset, Confidence.MEDIUM)

    # 1 to 3, 10, 11, 27, 30, 34: a Close that E read; less sure where nothing shows that it arrived, where earlier
    # frames were not seen, or where E threw the transport away, or failed TLS, without an answer
    shaky = p["found_again"] | is_unseen | own_hidden | ~p["close_acked"] & ~has_replied
    shaky |= ((e["rst_packet"] > p["close_packet"]) | p["tls_failed"]) & ~has_replied & ~crossed(p, e)
    decide_read(shaky, Confidence.MEDIUM)
    decide_read(has_close, Confidence.HIGH)
    decide(has_close & (p["close"] == SHORT), None, undone, Evidence.SHORT_CLOSE, CLOSE)
    decide(has_close & (p["close"] == CUT), None, undone, Evidence.CUT_CLOSE, CLOSE)

    # 28 and the unaligned half of 35: missing bytes may hide a Close
    decide(p["seen"] & p["lost"], None, undone, Evidence.GAP, NOTHING)
    decide(p["seen"] & ended & is_unseen & ~p["aligned"], None, undone, Evidence.GAP, NOTHING)

    # 4 to 6: no Close, and P to E complete to its end
    for level, at_level in ((Confidence.HIGH, ~is_unseen), (Confidence.MEDIUM, is_unseen)):
        decide(by_fin & at_level, 1006, made_up, Evidence.NO_CLOSE_FIN, PEER_FIN, level)
        decide(by_rst & at_level, 1006, made_up, Evidence.NO_CLOSE_RST, PEER_RST, level)
        decide(by_own_rst & e["rst_acks"] & at_level, 1006, made_up, Evidence.NO_CLOSE_RST, OWN_RST, level)
    decide(by_own_rst, 1006, made_up, Evidence.NO_CLOSE_RST, OWN_RST, Confidence.MEDIUM)
    decide(p["seen"] & ended, None, undone, Evidence.GAP, NOTHING)

    # 31 to 33, 36: the story has no end
    decide(evicted, None, undone, Evidence.EVICTED, NOTHING)
    decide(vanished, None, undone, Evidence.VANISHED, NOTHING)
    decide(undecided.copy(), None, undone, Evidence.OPEN_END, NOTHING)

    # 19, 20: END_STREAM and RST_STREAM are to a stream what FIN and RST are to TCP
    for end, why in ((Evidence.NO_CLOSE_FIN, Evidence.STREAM_END), (Evidence.NO_CLOSE_RST, Evidence.STREAM_RESET)):
        by_stream = np.where(moment == OWN_RST, e["by_stream"], p["by_stream"])
        evidence[(evidence == EVIDENCES.index(end)) & by_stream] = EVIDENCES.index(why)

    # 34, 35: without a handshake nothing is sure
    confidence[is_unseen & (confidence == HIGH)] = MEDIUM

    has_row = ~refused if is_client else ~refused & ~np.isin(handshake, (REJECTED, FAILED))
    return Views(code, provenance, evidence, confidence, moment, has_row)
