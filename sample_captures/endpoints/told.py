"""By hand: the row that each endpoint's own log must give.

Worked out from what the endpoint's API reported, the lines that its library is known to print, and the library's rule
(`rule` in `analyzer/logs/formats/`), never from the output of this project.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One row of `closes`, as far as a log can tell it.

    `endpoint` is unknown where no line says whose log it is. `reason` is that of the Close that came in; where none was
    read, the text that the log has instead. `initiator` is given where the order of the lines proves it.
    """

    endpoint: str
    code: int | None
    provenance: str
    sent_code: int | None = None
    reason: str = ""
    initiator: str | None = None


class Told(NamedTuple):
    """The row of a log, None where it must give none; why its code is not the API's where it is not."""

    row: Row | None
    differs: str | None = None


NO_CLOSURE = "The API calls a handshake that failed a close; nothing had been open, so it gives no row."

EVENT = "unknown"
"""The close event of ws and undici, and the attributes of aiohttp and Tornado, do not say which side they are of."""

WIRE, STATED, MADE_UP, NOT_KNOWN = "wire", "reported", "synthesized", "undetermined"
TOO_BIG = "frame with 4000 bytes exceeds limit of 1024 bytes"

TOLD = {
    ("normal-1000", "client"): Told(Row(EVENT, 1000, STATED, reason="done")),
    ("normal-1000", "server"): Told(Row("server", 1000, WIRE, 1000, "done", "client")),
    ("going-away-1001-client", "client"): Told(Row("client", 1000, WIRE, 1001, "", "client")),
    ("going-away-1001-client", "server"): Told(Row(EVENT, 1001, STATED, reason="leaving the page")),
    ("shutdown-1001-server", "client"): Told(Row(EVENT, 1001, STATED)),
    ("shutdown-1001-server", "server"): Told(Row("server", 1001, WIRE, 1001, "", "server")),
    ("protocol-error-1002", "server"): Told(Row("server", 1006, MADE_UP, 1002, "invalid opcode", "server")),
    ("protocol-error-1002-uvicorn", "server"): Told(
        Row("server", None, NOT_KNOWN, 1002, "incorrect masking"),
        "The application is told the code that uvicorn itself sent; no line says what came in.",
    ),
    ("bad-utf8-1007", "server"): Told(
        Row(EVENT, 1006, MADE_UP, 1007, "Invalid WebSocket frame: invalid UTF-8 sequence")
    ),
    ("too-big-1009", "client"): Told(Row(EVENT, 1009, STATED, reason=TOO_BIG)),
    ("too-big-1009", "server"): Told(Row("server", 1006, MADE_UP, 1009, TOO_BIG, "server")),
    ("internal-error-1011", "client"): Told(Row(EVENT, 1011, STATED)),
    ("internal-error-1011", "server"): Told(Row("server", 1000, WIRE, 1011, "", "server")),
    ("restart-1012", "client"): Told(Row("client", 1012, WIRE, 1012, "", "server")),
    ("restart-1012", "server"): Told(
        Row("server", None, NOT_KNOWN, 1012),
        "uvicorn tells its application 1012 because it stops, not because it came in; no line says what did.",
    ),
    ("app-4xxx-reason", "client"): Told(Row(EVENT, 4401, STATED, reason="会话过期 – zaļā")),
    ("app-4xxx-reason", "server"): Told(Row(EVENT, 4401, STATED)),
    ("empty-close-1005", "client"): Told(Row(EVENT, 1005, MADE_UP)),
    ("empty-close-1005", "server"): Told(Row(EVENT, 1005, MADE_UP)),
    ("empty-close-aiohttp", "client"): Told(Row(EVENT, 1000, STATED)),
    ("empty-close-aiohttp", "server"): Told(
        Row("server", 1005, MADE_UP),  # the only side where close_code can be 0
        "aiohttp's server calls a Close without a status 0; the row says 1005, and keeps the 0 in raw_code.",
    ),
    ("fin-no-close-1006", "client"): Told(Row(EVENT, 1006, MADE_UP)),
    ("fin-no-close-1006", "server"): Told(Row("server", 1006, MADE_UP, initiator="none")),
    # without a reason beside it uvicorn's 1005 is made up; that TCP was lost, and 1006 is meant, no line says
    ("fin-no-close-uvicorn", "server"): Told(Row("server", 1005, MADE_UP)),
    ("rst-no-close-1006", "client"): Told(Row(EVENT, 1006, MADE_UP)),
    ("rst-no-close-1006", "server"): Told(Row("server", 1006, MADE_UP, initiator="none")),
    ("split-close", "client"): Told(Row(EVENT, 1001, STATED, reason="maintenance")),
    ("coalesced-frames", "server"): Told(Row(EVENT, 1000, STATED, reason="all said")),
    # either endpoint takes itself for the first: that the Closes crossed, neither log can show
    ("crossed-closes", "client"): Told(Row("client", 4000, WIRE, 4001, "server is done", "client")),
    ("crossed-closes", "server"): Told(Row("server", 4001, WIRE, 4000, "client is done", "server")),
    ("close-never-answered", "client"): Told(Row("client", 1006, MADE_UP, 1000, "bye", "client")),
    ("close-answered-by-fin", "client"): Told(Row(EVENT, 1006, MADE_UP)),
    ("rejected-403", "client"): Told(None, NO_CLOSURE),
    ("rejected-403", "server"): Told(None),
    ("illegal-1006-on-wire", "server"): Told(Row(EVENT, 1006, STATED, reason="connection lost")),
    ("illegal-1006-aiohttp", "client"): Told(Row(EVENT, 1006, STATED, reason="upstream gone")),
    ("illegal-1005-refused", "server"): Told(
        Row(EVENT, 1006, MADE_UP, 1002, "Invalid WebSocket frame: invalid status code 1005")
    ),
    ("one-byte-close", "server"): Told(Row("server", 1006, MADE_UP, 1002, "close frame too short", "client")),
    # None stands for a Close without a status, with one byte, or none at all: the API has no code either
    ("one-byte-close-tornado", "server"): Told(Row(EVENT, None, NOT_KNOWN)),
    ("late-close", "client"): Told(Row(EVENT, 1006, MADE_UP)),
    # the log prints the answer that was never sent: TCP was half closed already
    ("half-close", "client"): Told(Row("client", 1001, WIRE, 1001, "you left", "server")),
    ("close-then-rst", "server"): Told(Row(EVENT, 1000, STATED, reason="in a hurry")),
    ("close-then-rst-unacked", "server"): Told(Row(EVENT, 1000, STATED, reason="in a hurry")),
    ("ping-no-pong", "server"): Told(Row("server", 1006, MADE_UP, 1011, "keepalive ping timeout", "server")),
    ("keepalive-then-upgrade", "server"): Told(Row(EVENT, 1000, STATED)),
    ("wrong-accept", "client"): Told(None, NO_CLOSURE),
    ("capture-ends-first", "client"): Told(Row("client", 1000, WIRE, 1000, "", "client")),
    ("capture-ends-first", "server"): Told(Row("server", 1000, WIRE, 1000, "", "client")),
    ("capture-begins-later", "client"): Told(Row("client", 3000, WIRE, 3000, "unauthorized", "client")),
    ("capture-begins-later", "server"): Told(Row("server", 3000, WIRE, 3000, "unauthorized", "client")),
    ("snaplen-cut-close", "client"): Told(Row(EVENT, 1013, STATED, reason="try again later")),
    ("tls13-normal-1000", "client"): Told(Row(EVENT, 1000, STATED, reason="done")),
    ("tls13-normal-1000", "server"): Told(Row("server", 1000, WIRE, 1000, "done", "client")),
    ("tls12-app-4000", "client"): Told(Row("client", 4000, WIRE, 4000, "session expired", "server")),
    ("tls12-app-4000", "server"): Told(Row("server", 4000, WIRE, 4000, "session expired", "server")),
    ("tls13-empty-close-1005", "client"): Told(Row(EVENT, 1005, MADE_UP)),
    ("tls13-empty-close-1005", "server"): Told(Row("server", 1005, MADE_UP, initiator="client")),
    ("tls12-fin-no-close-1006", "client"): Told(Row(EVENT, 1006, MADE_UP)),
    ("tls12-fin-no-close-1006", "server"): Told(Row("server", 1006, MADE_UP, initiator="none")),
    ("tls13-secrets-block", "client"): Told(Row("client", 1001, WIRE, 1001, "leaving the page", "client")),
    ("tls13-secrets-block", "server"): Told(Row("server", 1001, WIRE, 1001, "leaving the page", "client")),
    ("tls13-unknown-ca", "client"): Told(
        None, "The API raises an exception; nothing had been open, so there is no row."
    ),
    ("tls13-unknown-ca", "server"): Told(None),
}
