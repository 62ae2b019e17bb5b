"""The heads of an opening, read once the handshake's kernel has found them (RFC 6455 section 4, RFC 9112).

Only headers that are used are looked at; nothing here raises, whatever a head holds.
"""

import binascii
import hashlib
import itertools
import re
from typing import NamedTuple

from analyzer.model import Anomaly

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

KEPT_HEAD_BYTES = 2048
"""A longer head is cut down to what is used of it: cookies can be long, and every open connection keeps its heads."""

KEPT_LINE_BYTES = 1024

FIELDS = re.compile(rb"(?i)\n(host|user-agent|server|sec-websocket-(?:key|accept|protocol|extensions))[ \t]*:([^\n]*)")
"""A field line (RFC 9112 section 5) that is used: its name, its value."""

FOLD = re.compile(rb"\r?\n[ \t]+")
"""Obsolete line folding (RFC 9112 section 5.2): the next line goes on with the value."""

KEPT_LINES = 32


def shorten(head: bytes) -> bytes:
    """A head as it is, or if it is long its first line and the headers that are used, each cut to a limit."""
    if len(head) <= KEPT_HEAD_BYTES:
        return head
    first = head[: head.find(b"\n")].rstrip(b"\r")
    lines = [m.group().rstrip(b"\r")[:KEPT_LINE_BYTES] for m in itertools.islice(FIELDS.finditer(head), KEPT_LINES)]
    return first[:KEPT_LINE_BYTES] + b"".join(lines) + b"\n\n"


class Request(NamedTuple):
    """What is kept of an upgrade request; text is decoded as ISO 8859-1, which never fails."""

    path: str | None
    host: str | None
    user_agent: str | None
    key: bytes | None
    protocols: bytes | None
    extensions: bytes | None


class Response(NamedTuple):
    """What is kept of the answer."""

    is_switch: bool
    server: str | None
    protocol: str | None
    extensions: str | None
    accept: bytes | None


def parse_head(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Split a head into its first line and the headers that are used; repeated ones are joined by a comma.

    Names are in lower case. Never raises: a line that is no field line is passed over, a folded one joins the one
    before.
    """
    if b"\n " in head or b"\n\t" in head:
        head = FOLD.sub(b" ", head)
    headers: dict[bytes, bytes] = {}
    for name, value in FIELDS.findall(head):
        name, value = name.lower(), value.strip(b" \t\r")
        headers[name] = headers[name] + b", " + value if name in headers else value
    return head.partition(b"\n")[0].rstrip(b"\r"), headers


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def parse_request(head: bytes) -> Request:
    """Read an upgrade request (RFC 6455 section 4.1)."""
    line, headers = parse_head(head)
    words = line.split(b" ", 2)
    get = headers.get
    return Request(
        _text(words[1]) if len(words) > 1 else None,
        _text(get(b"host")),
        _text(get(b"user-agent")),
        get(b"sec-websocket-key"),
        get(b"sec-websocket-protocol"),
        get(b"sec-websocket-extensions"),
    )


def parse_response(head: bytes) -> Response:
    """Read the answer to an upgrade request (RFC 6455 section 4.2.2)."""
    line, headers = parse_head(head)
    get = headers.get
    return Response(
        line[9:12] == b"101",
        _text(get(b"server")),
        _text(get(b"sec-websocket-protocol")),
        _text(get(b"sec-websocket-extensions")),
        get(b"sec-websocket-accept"),
    )


def allowed_rsv(extensions: str | None) -> int:
    """Bits of RSV1 (4), RSV2 (2) and RSV3 (1) that frames may set under these extensions (RFC 6455 section 9)."""
    if not extensions:
        return 0
    return 4 if "permessage-deflate" in extensions else 7


def accept_for(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers this key (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key + ACCEPT_GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)


def _names(value: bytes) -> set[bytes]:
    """Names listed in a header, parameters dropped."""
    return {part.split(b";")[0].strip() for part in value.split(b",")} - {b""}


def check_answer(request: Request, response: Response) -> Anomaly:
    """What in a 101 makes a client fail the connection (RFC 6455 section 4.1); another status has nothing to match."""
    anomalies = Anomaly.NONE
    if not response.is_switch:
        return anomalies
    if request.key is not None and response.accept != accept_for(request.key):
        anomalies |= Anomaly.WRONG_ACCEPT
    for chosen, offered, anomaly in (
        (response.protocol, request.protocols, Anomaly.UNREQUESTED_SUBPROTOCOL),
        (response.extensions, request.extensions, Anomaly.UNREQUESTED_EXTENSION),
    ):
        if chosen and _names(chosen.encode("latin-1")) - _names(offered or b""):
            anomalies |= anomaly
    return anomalies
