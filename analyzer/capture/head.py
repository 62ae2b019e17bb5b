"""The heads of an opening, read once the handshake's kernel has found them (RFC 6455 section 4, RFC 9112).

Only headers that are used are looked at; nothing here raises, whatever a head holds.
"""

import binascii
import hashlib
import re
from typing import NamedTuple

from analyzer.model import Anomaly

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

KEPT_LINE_BYTES = 2048
"""Every open connection keeps what is used of its heads: longer lines are cut."""

KEPT_LINES = 32
"""Lines of one head that are used; further ones are not."""

FOLD = re.compile(r"\r?\n[ \t]+")
"""Obsolete line folding (RFC 9112 section 5.2): the next line goes on with the value."""

UNIQUE = frozenset({"sec-websocket-key", "sec-websocket-accept"})
"""Headers that are another in every head: remembering their lines is of no use."""

USED = UNIQUE | {"host", "user-agent", "server", "sec-websocket-protocol", "sec-websocket-extensions"}

KNOWN_LINES = 4096
"""Lines that are remembered with what they say: heads repeat most of theirs."""

KNOWN_LINE_BYTES = 256

UNREAD = ("", "")
_known: dict[str, tuple[str, str] | None] = {}


class Request(NamedTuple):
    """What is kept of an upgrade request; text is decoded as ISO 8859-1, which never fails."""

    path: str | None
    host: str | None
    user_agent: str | None
    key: str | None
    protocols: str | None
    extensions: str | None


class Response(NamedTuple):
    """What is kept of the answer."""

    is_switch: bool
    server: str | None
    protocol: str | None
    extensions: str | None
    accept: str | None


def _read_line(line: str) -> tuple[str, str] | None:
    """Name and value of a field line (RFC 9112 section 5), None where it is none that is used."""
    name, colon, value = line[:KEPT_LINE_BYTES].partition(":")
    name = name.rstrip(" \t").lower()
    field = (name, value.strip(" \t\r")) if colon and name in USED else None
    if name not in UNIQUE and len(line) <= KNOWN_LINE_BYTES:
        if len(_known) >= KNOWN_LINES:
            _known.clear()
        _known[line] = field
    return field


def parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    """Split a head into its first line and the headers that are used; repeated ones are joined by a comma.

    Names are in lower case. Never raises: a line that is no field line is passed over, a folded one joins the one
    before.
    """
    text = head.decode("latin-1")
    first, *lines = text.split("\n")
    headers: dict[str, str] = {}
    n_left = KEPT_LINES
    for line in lines:
        field = _known.get(line, UNREAD)
        if field is UNREAD:
            if line.startswith((" ", "\t")):
                return parse_head(FOLD.sub(" ", text).encode("latin-1"))
            field = _read_line(line)
        if field is not None and n_left:
            name, value = field
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
            n_left -= 1
    return first[:KEPT_LINE_BYTES].rstrip("\r"), headers


def parse_request(head: bytes) -> Request:
    """Read an upgrade request (RFC 6455 section 4.1)."""
    line, headers = parse_head(head)
    words = line.split(" ", 2)
    get = headers.get
    return Request(
        words[1] if len(words) > 1 else None,
        get("host"),
        get("user-agent"),
        get("sec-websocket-key"),
        get("sec-websocket-protocol"),
        get("sec-websocket-extensions"),
    )


def parse_response(head: bytes) -> Response:
    """Read the answer to an upgrade request (RFC 6455 section 4.2.2)."""
    line, headers = parse_head(head)
    get = headers.get
    return Response(
        line[9:12] == "101",
        get("server"),
        get("sec-websocket-protocol"),
        get("sec-websocket-extensions"),
        get("sec-websocket-accept"),
    )


def allowed_rsv(extensions: str | None) -> int:
    """Bits of RSV1 (4), RSV2 (2) and RSV3 (1) that frames may set under these extensions (RFC 6455 section 9)."""
    if not extensions:
        return 0
    return 4 if "permessage-deflate" in extensions else 7


def accept_for(key: str) -> str:
    """The Sec-WebSocket-Accept that answers this key (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key.encode("latin-1") + ACCEPT_GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode("ascii")


def _names(value: str) -> set[str]:
    """Names listed in a header, parameters dropped."""
    return {part.split(";")[0].strip() for part in value.split(",")} - {""}


def check_answer(request: Request, response: Response) -> Anomaly:
    """What in a 101 makes a client fail the connection (RFC 6455 section 4.1); another status has nothing to match."""
    anomalies = Anomaly.NONE
    if not response.is_switch:
        return anomalies
    if request.key is not None and response.accept != accept_for(request.key):
        anomalies |= Anomaly.WRONG_ACCEPT
    if response.protocol and _names(response.protocol) - _names(request.protocols or ""):
        anomalies |= Anomaly.UNREQUESTED_SUBPROTOCOL
    if response.extensions and _names(response.extensions) - _names(request.extensions or ""):
        anomalies |= Anomaly.UNREQUESTED_EXTENSION
    return anomalies
