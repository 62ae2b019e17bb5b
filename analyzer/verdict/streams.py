"""What the connections table tells of HTTP/2: the stream, its error code, a GOAWAY that came before its end."""

from collections.abc import Callable, Sequence
from typing import Any

from analyzer.capture.fate import Away, Fate
from analyzer.model import Endpoint, Rows, Values
from analyzer.verdict.facts import or_none

SIDES = (Endpoint.CLIENT, Endpoint.SERVER)


def columns(fates: Sequence[Fate | None], numbers: Rows, flows: Callable[[], Sequence[str]]) -> dict[str, Values]:
    """Columns of `connections` by name; null where there is no HTTP/2.

    Args:
        fates: What HTTP/2 tells of each connection.
        numbers: Their streams, 0 where they have TCP for themselves.
        flows: Names of the TCP connections.

    """
    if not numbers.any():
        return {}
    aways = [fate and fate.away for fate in fates]
    return {
        "flow": lambda: [name if stream else None for name, stream in zip(flows(), numbers.tolist(), strict=True)],
        "http2_stream": or_none(numbers, numbers > 0),
        "stream_error": [_reset(fate) for fate in fates],
        "goaway": [away and f"{SIDES[away.side]} {away.code_name}" for away in aways],
        "goaway_last_stream": [away and away.last_stream for away in aways],
        "goaway_reason": [_debug(away) for away in aways],
    }


def _reset(fate: Fate | None) -> Any:
    """Who reset the stream first, and why; None where nobody did, or the capture lacks the code."""
    if fate is None or fate.reset is None or fate.reset[1] is None:
        return None
    side, name = fate.reset
    return f"{SIDES[side]} {name}"


def _debug(away: Away | None) -> str | None:
    """The debug data of a GOAWAY as text: it is meant for people, and may be anything (RFC 9113 section 6.8)."""
    return away.debug.decode("utf-8", "backslashreplace") if away is not None and away.debug else None
