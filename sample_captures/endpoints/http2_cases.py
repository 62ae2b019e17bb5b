"""The captures of WebSockets over HTTP/2: what both ends do on each stream, and by hand what either one's view is.

Views follow the decision table and the frames as tshark reads them, never the output of this project.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from endpoints.cases import MADE_UP, WIRE, View

Steps = Sequence[Sequence[Any]]
"""Verbs of http2_endpoint.js, or of the page in make_http2.py, with their arguments."""

NOTHING: Mapping[str, str] = MappingProxyType({})


class WebSocket(NamedTuple):
    """One stream.

    `View.record` names the sender and `close`, `stream_end` (its first frame with END_STREAM), `stream_reset` (its
    RST_STREAM), `fin` or `rst` (of TCP), or `answer`. `end` is how the stream ended first and by whom; who ends it
    after both Closes is a race, and is taken from tshark. `columns` are more columns of the connection.
    """

    decision: str
    client_steps: Steps
    server_steps: Steps | None
    views: Sequence[View]
    initiator: str
    end: str
    differences: Mapping[str, str] = NOTHING
    http_status: int | None = 200
    handshake: str = "complete"
    columns: Mapping[str, Any] = NOTHING


@dataclass(frozen=True)
class Case:
    """One capture of one HTTP/2 connection; `turns` are those of h2_endpoint.py where the client is h2."""

    title: str
    transport: str
    client: str
    websockets: Mapping[str, WebSocket]
    turns: Sequence[Sequence[Any]] = ()


def both(code: int, reason: str) -> tuple[View, View]:
    """Either end sends and receives this status."""
    return (
        View("client", code, WIRE, "status", code, code, "server close", reason),
        View("server", code, WIRE, "status", code, code, "client close", reason),
    )


EMPTY = (
    View("client", 1005, MADE_UP, "empty_close", "empty", "empty", "server close"),
    View("server", 1005, MADE_UP, "empty_close", "empty", "empty", "client close"),
)


def neither(evidence: str, client_record: str, server_record: str) -> tuple[View, View]:
    """No Close either way."""
    return (
        View("client", 1006, MADE_UP, evidence, "none", "none", client_record),
        View("server", 1006, MADE_UP, evidence, "none", "none", server_record),
    )


REFUSED = View("client", 1006, MADE_UP, "handshake_rejected", "none", "none", "server answer")

H2C = {
    "/open": WebSocket(
        "21, 21",
        [["send", "hello"], ["message"], ["wait", 300], ["send", "still here"]],
        [["message"], ["send", "welcome"], ["wait", 900], ["destroy"]],
        neither("no_close_fin", "server fin", "client fin"),
        "none",
        "fin server",
    ),
    "/normal": WebSocket(
        "1, 1",
        [["send", "hello"], ["message"], ["close", 1000, "done"]],
        [["message"], ["send", "got it"]],
        both(1000, "done"),
        "client",
        "stream_end",
    ),
    "/kicked": WebSocket(
        "1, 1",
        [],
        [["wait", 20], ["close", 4001, "signed out"]],
        both(4001, "signed out"),
        "server",
        "stream_end",
    ),
    "/empty": WebSocket("3, 3", [["wait", 20], ["close"]], [], EMPTY, "client", "stream_end"),
    "/ended": WebSocket(
        "19, 19",
        [],
        [["wait", 20], ["end"]],
        neither("stream_end", "server stream_end", "client stream_end"),
        "none",
        "stream_end server",
    ),
    "/cancelled": WebSocket(
        "20, 20",
        [["wait", 20], ["cancel"]],
        [],
        neither("stream_reset", "client stream_reset", "client stream_reset"),
        "none",
        "stream_reset client",
    ),
    "/refused": WebSocket("15", [], None, (REFUSED,), "none", "stream_end server", NOTHING, 403, "rejected"),
    "/maintenance": WebSocket(
        "22: 1, 1",
        [],
        [["wait", 20], ["goaway"], ["wait", 20], ["close", 1001, "maintenance"]],
        both(1001, "maintenance"),
        "server",
        "stream_end",
    ),
}

CHROMIUM = {
    "/open": WebSocket(
        "21, 21",
        [["send", "hello"], ["message"]],
        [["message"], ["send", "welcome"], ["message"], ["destroy"]],
        neither("no_close_fin", "server fin", "client fin"),
        "none",
        "fin server",
    ),
    "/done": WebSocket(
        "1, 1",
        [["send", "hello"], ["message"], ["close", 1000, "done"]],
        [["message"], ["send", "got it"]],
        both(1000, "done"),
        "client",
        "stream_end",
    ),
    "/private": WebSocket(
        "1, 1",
        [["send", "hello"], ["message"], ["close", 4321, "tschüß 👋"]],
        [["message"], ["send", "0123456789", 500]],
        both(4321, "tschüß 👋"),
        "client",
        "stream_end",
    ),
    "/empty": WebSocket("3, 3", [["wait", 30], ["close"]], [], EMPTY, "client", "stream_end"),
    "/restart": WebSocket(
        "1, 1",
        [],
        [["wait", 30], ["close", 1012, "back soon"]],
        both(1012, "back soon"),
        "server",
        "stream_end",
    ),
    "/server-empty": WebSocket("3, 3", [], [["wait", 30], ["close"]], EMPTY, "server", "stream_end"),
    "/ended": WebSocket(
        "19, 20",
        [],
        [["wait", 30], ["end"]],
        (
            View("client", 1006, MADE_UP, "stream_end", "none", "none", "server stream_end"),
            View("server", 1006, MADE_UP, "stream_reset", "none", "none", "client stream_reset"),
        ),
        "none",
        "stream_end server",
    ),
    "/failed": WebSocket(
        "20, 20",
        [],
        [["wait", 30], ["fail"]],
        neither("stream_reset", "server stream_reset", "server stream_reset"),
        "none",
        "stream_reset server",
    ),
    "/refused": WebSocket("15", [], None, (REFUSED,), "none", "stream_end server", NOTHING, 403, "rejected"),
}


def told(decision: str, views: Sequence[View], end: str, initiator: str = "none", **columns: Any) -> WebSocket:
    """One stream of a conversation that is told turn by turn."""
    return WebSocket(decision, [], [], views, initiator, end, columns=columns)


def never(decision: str, end: str, **columns: Any) -> WebSocket:
    """Asked for, and never looked at: no view."""
    return WebSocket(decision, [], [], (), "none", end, NOTHING, None, "failed", columns)


def was_reset(by: str, error: str) -> WebSocket:
    views = neither("stream_reset", f"{by} stream_reset", f"{by} stream_reset")
    return told("20, 20", views, f"stream_reset {by}", stream_error=f"{by} {error}")


def lost(evidence: str, client_record: str, server_record: str, end: str, **columns: Any) -> WebSocket:
    """Lost with its TCP connection."""
    views = neither(evidence, client_record, server_record)
    return told("21, 21", views, end, cause="tcp_lost", cause_confidence="high", **columns)


CLIENT, SERVER = 0, 1
RST = ("no_close_rst", "server rst", "server rst", "rst server")
FIN = ("no_close_fin", "server fin", "client fin", "fin server")

RESETS = {
    "/first": lost(*RST, shared_by=3, carried=9),
    "/second": lost(*RST, shared_by=3, carried=9),
    "/third": lost(*RST, shared_by=3, carried=9),
    "/calm": was_reset("server", "ENHANCE_YOUR_CALM"),
    "/internal": was_reset("server", "INTERNAL_ERROR"),
    "/behind": was_reset("server", "CONNECT_ERROR"),
    "/aborted": was_reset("client", "CANCEL"),
    "/made-up": was_reset("client", "0x1234abcd"),
    "/done": told("1, 1", both(1000, "done"), "stream_end client", "client"),
    "/busy": never("22", "stream_reset server", stream_error="server REFUSED_STREAM"),
    "/old": never("22", "stream_reset server", stream_error="server HTTP_1_1_REQUIRED"),
}
RESET_TURNS = [
    *(("open", path) for path in RESETS if path not in ("/busy", "/old")),
    ("reset", SERVER, "/calm", 11),
    ("reset", SERVER, "/internal", 2),
    ("reset", SERVER, "/behind", 10),
    ("reset", CLIENT, "/aborted", 8),
    ("reset", CLIENT, "/made-up", 0x1234ABCD),
    ("close", CLIENT, "/done", 1000, "done"),
    ("end", CLIENT, "/done"),
    ("end", SERVER, "/done"),
    ("refuse", "/busy", 7),
    ("refuse", "/old", 13),
    ("text", CLIENT, "/third", "still here"),
    ("drop", SERVER),
]

CALM = {"goaway": "server ENHANCE_YOUR_CALM", "goaway_last_stream": 5, "goaway_reason": "too_many_pings"}
GOAWAY = {
    "/first": lost(*FIN, shared_by=2, carried=3, **CALM),
    "/second": lost(*FIN, shared_by=2, carried=3, **CALM),
    "/before": told("1, 1", both(4000, "before"), "stream_end client", "client"),
    "/ignored": never("22", "goaway server", **CALM),
}
GOAWAY_TURNS = [
    *(("open", path) for path in GOAWAY if path != "/ignored"),
    ("ignore", "/ignored"),
    ("close", CLIENT, "/before", 4000, "before"),
    ("end", CLIENT, "/before"),
    ("end", SERVER, "/before"),
    ("goaway", SERVER, 11, "/before", "too_many_pings"),
    ("finish", SERVER),
]

CASES = {
    "h2c-resets": Case(
        "Streams reset with different error codes, then TCP reset below three WebSockets",
        "h2c",
        "h2",
        RESETS,
        RESET_TURNS,
    ),
    "h2c-goaway": Case(
        "GOAWAY with an error, then the end of TCP: one WebSocket had ended, two are lost, one never opened",
        "h2c",
        "h2",
        GOAWAY,
        GOAWAY_TURNS,
    ),
    "h2c-streams": Case(
        "Eight WebSockets on one HTTP/2 connection without TLS, each ended in another way", "h2c", "ws", H2C
    ),
    "h2-chromium": Case(
        "Nine WebSockets of one page on one HTTP/2 connection, each ended in another way", "h2", "Chromium", CHROMIUM
    ),
}
