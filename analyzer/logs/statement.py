"""What one line of a log says about one close: the common tongue of formats, the structured rule and the joiner."""

from collections.abc import Callable
from typing import NamedTuple

from analyzer.logs.record import Record
from analyzer.logs.timestamp import Clock
from analyzer.verdict.statement import View

UNTIMED = -(2**63)
"""Stands for no time where the time of the line is not that of the end."""


class Statement(NamedTuple):
    """A view, and what the line carries besides.

    Attributes:
        role: Which of the lines that its system prints about one close this is; empty where it prints one.
        family: Systems whose roles belong together.
        time_ns: Where it is not the time of the line itself; UNTIMED where the line does not tell that of the end.
        id: What names the connection within its family.
        needs_open: Whether the line only counts once a line of its family told of an opening.

    """

    view: View
    role: str = ""
    family: str = ""
    time_ns: int | None = None
    reason: str | None = None
    duration_s: float | None = None
    client: str | None = None
    server: str | None = None
    host: str | None = None
    path: str | None = None
    id: str | None = None
    needs_open: bool = False


class Refusal(NamedTuple):
    """A line that is known, and tells of no close: of a handshake that failed, for one.

    Attributes:
        family: Whose lines it belongs to.
        cancels: Roles of lines that its system prints next although nothing was ever open.
        client: Whom it was about, None where it does not say.
        opens: Whether it tells of an opening that succeeded.

    """

    family: str
    cancels: frozenset[str]
    client: str | None
    opens: bool = False


Answer = Statement | Refusal | None
"""What a reader says of a record; None where it does not know it."""


class Reader(NamedTuple):
    """Reads records by one pattern, or by the rule for structured logs of unknown systems.

    Attributes:
        spans: Whether it wants an indented line together with those above it, from the one that they are indented to.

    """

    read: Callable[[Record, Clock], Answer]
    name: str
    spans: bool = False
