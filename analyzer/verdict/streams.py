"""What the connections table tells of HTTP/2: the stream, its error code, a GOAWAY that came before its end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from analyzer.capture.fate import Away, Fate
from analyzer.model import Endpoint, Rows
from analyzer.table import Numbers, Values

SIDES = (Endpoint.CLIENT, Endpoint.SERVER)


def columns(fates: Mapping[int, Fate], numbers: Rows, flows: Callable[[], Sequence[str]]) -> dict[str, Values]:
    """Columns of `connections` by name; null where there is no HTTP/2.

    Args:
        fates: What HTTP/2 tells of connections, by row.
        numbers: Their streams, 0 where they have TCP for themselves.
        flows: Names of the TCP connections.

    """
    if not numbers.any():
        return {}
    rows = [fates.get(i) for i in range(len(numbers))]
    aways = [fate and fate.away for fate in rows]
    return {
        "flow": lambda: [name if stream else None for name, stream in zip(flows(), numbers.tolist(), strict=True)],
        "http2_stream": Numbers(numbers, numbers > 0),
        "stream_error": [_reset(fate) for fate in rows],
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
