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
    after both Closes is a race, and is taken from tshark.
    """

    decision: str
    client_steps: Steps
    server_steps: Steps | None
    views: Sequence[View]
    initiator: str
    end: str
    differences: Mapping[str, str] = NOTHING
    http_status: int = 200
    handshake: str = "complete"


@dataclass(frozen=True)
class Case:
    """One capture of one HTTP/2 connection; `order` says what is opened one after the other."""

    title: str
    transport: str
    client: str
    websockets: Mapping[str, WebSocket]


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

CASES = {
    "h2c-streams": Case(
        "Eight WebSockets on one HTTP/2 connection without TLS, each ended in another way", "h2c", "ws", H2C
    ),
    "h2-chromium": Case(
        "Nine WebSockets of one page on one HTTP/2 connection, each ended in another way", "h2", "Chromium", CHROMIUM
    ),
}
