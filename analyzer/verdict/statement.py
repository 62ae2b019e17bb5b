"""What a log line says to an endpoint's view: rows 37 to 39 of docs/decisions.md as code.

A line states what came in and what went out as far as its system's own rule allows; which code that makes the endpoint
report, and how that is known, is decided here and nowhere else.
"""

import enum
from typing import NamedTuple

from analyzer.model import FAILING, LOCAL_ONLY, Confidence, Endpoint, Evidence, Initiator, Provenance, Received

CLOSE_PASSED = (Received.STATUS, Received.EMPTY)
"""A Close came in, or where it stands for what was sent, went out."""


class Means(enum.StrEnum):
    """What the code on a log line stands for, by the rule of the system that printed it."""

    RFC = "rfc"  # what RFC 6455 section 7.1.5 has an endpoint report: 1005, 1006, 1015 made up, any other received
    RECEIVED = "received"  # it stood in a Close that came in
    FRAME = "frame"  # likewise, and the line prints the frame itself
    EMPTY = "empty"  # a Close without a status came in
    NONE = "none"  # no Close came in
    REFUSED = "refused"  # it stood in a Close that this endpoint refused: it reads nothing more (section 7.1.7)
    MADE_UP = "made_up"  # this endpoint put the code there itself; no status came in
    STATED = "stated"  # the system prints it, and does not say where from
    UNKNOWN = "unknown"  # nothing about what came in


class View(NamedTuple):
    """The part of a row of `closes` that a statement decides; shared by all rows that say the same.

    `initiator` and `ended_by` may be `local` or `remote` until `settle` has seen whose log it is.
    """

    endpoint: Endpoint
    code: int | None
    provenance: Provenance
    evidence: Evidence
    confidence: Confidence | None
    received: Received
    wire_code: int | None
    sent: Received
    sent_code: int | None
    raw_code: str | None
    initiator: str
    end: str
    ended_by: str
    system: str | None


class Said(NamedTuple):
    """What a line says: the rule's word for its code, the codes, and what it knows besides."""

    system: str | None
    means: Means
    code: int | None = None
    sent: Received = Received.UNKNOWN
    sent_code: int | None = None
    raw_code: str | None = None
    endpoint: Endpoint = Endpoint.UNKNOWN
    initiator: str = Initiator.UNKNOWN
    end: str = "unknown"
    ended_by: str = "unknown"
    is_known: bool = True


def decide(said: Said) -> View:
    """The view that follows from what a line says.

    Args:
        said: `is_known` is False for a line of an unknown system.

    """
    means = said.means
    if means is Means.RFC:
        means = {1005: Means.EMPTY, 1006: Means.NONE, 1015: Means.MADE_UP}.get(said.code or 0, Means.RECEIVED)
    code = said.code
    received, wire_code = Received.UNKNOWN, None
    evidence, confidence = Evidence.LOG_STATED, Confidence.HIGH
    if said.endpoint is Endpoint.PROXY and means in (Means.STATED, Means.MADE_UP, Means.UNKNOWN):
        # a tunnel passes bytes on: whatever it prints is no endpoint's view (row 37); a proxy that reads frames is one
        code, provenance = None, Provenance.UNDETERMINED
    elif means in (Means.RECEIVED, Means.FRAME):
        evidence = Evidence.LOG_RECEIVED
        if code is None:
            provenance = Provenance.UNDETERMINED  # a Close came in; the line does not say which
        else:
            provenance = Provenance.WIRE if means is Means.FRAME else Provenance.REPORTED
            received, wire_code = Received.STATUS, code
    elif means is Means.EMPTY:
        code, provenance = 1005, Provenance.SYNTHESIZED
        received, evidence = Received.EMPTY, Evidence.LOG_RECEIVED
    elif means is Means.NONE:
        code, provenance, received = 1006, Provenance.SYNTHESIZED, Received.NONE
        evidence = Evidence.LOG_SENT if said.sent in CLOSE_PASSED else Evidence.LOG_STATED
    elif means is Means.REFUSED:
        code, wire_code = 1006, code
        # where the refused code is 1006 itself, the line names what the endpoint reports, and not as made up
        provenance = Provenance.REPORTED if wire_code == code else Provenance.SYNTHESIZED
        received, evidence = Received.STATUS if wire_code is not None else Received.UNKNOWN, Evidence.LOG_RECEIVED
    elif means is Means.MADE_UP and code in LOCAL_ONLY:
        provenance = Provenance.SYNTHESIZED
    elif means is Means.STATED and code is not None:
        provenance, confidence = Provenance.REPORTED, Confidence.MEDIUM
        if code in LOCAL_ONLY:
            provenance = Provenance.INFERRED
    else:
        code, provenance = None, Provenance.UNDETERMINED
        if said.sent in CLOSE_PASSED:
            evidence = Evidence.LOG_SENT
    if not said.is_known and code is not None:
        confidence = Confidence.LOW
        # nobody knows this system's rule, so nothing about the Close itself is claimed (row 39)
        provenance = Provenance.INFERRED if code in LOCAL_ONLY else Provenance.REPORTED
    initiator = said.initiator
    if (
        initiator == Initiator.UNKNOWN
        and received is Received.NONE
        and said.sent in CLOSE_PASSED
        and said.sent_code not in FAILING
    ):
        initiator = "local"  # nothing had come in that it could have answered
    printed = None if code is None else str(code)
    return View(
        said.endpoint,
        code,
        provenance,
        evidence,
        None if code is None else confidence,
        received,
        wire_code,
        said.sent,
        said.sent_code,
        None if said.raw_code == printed else said.raw_code,
        initiator,
        said.end,
        said.ended_by,
        said.system,
    )


def settle(view: View) -> View:
    """`local` and `remote` as client and server, where it is known which of them wrote the log, else unknown."""
    if view.endpoint in (Endpoint.CLIENT, Endpoint.SERVER):
        other = Endpoint.SERVER if view.endpoint is Endpoint.CLIENT else Endpoint.CLIENT
        sides = {"local": str(view.endpoint), "remote": str(other)}
    else:
        sides = {"local": "unknown", "remote": "unknown"}
    if view.initiator not in sides and view.ended_by not in sides:
        return view
    return view._replace(
        initiator=sides.get(view.initiator, view.initiator), ended_by=sides.get(view.ended_by, view.ended_by)
    )
