"""The heads of an opening, read once the handshake's kernel has found them (RFC 6455 section 4, RFC 9112).

Most heads are plain: their values were copied out by `field_line`. The others are read here. Only headers that are used
are looked at; nothing here raises, whatever a head holds.
"""

import binascii
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from analyzer.capture.field_line import MAX_LINE_BYTES
from analyzer.model import Anomaly, Rows

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

SWITCHING = 101
"""Status that opens a WebSocket over HTTP/1.1 (RFC 9110 section 15.2.2)."""

KEPT_LINES = 32
"""Lines of one head that are used; further ones are not."""

FOLD = re.compile(r"\r?\n[ \t]+")
"""Obsolete line folding (RFC 9112 section 5.2): the next line goes on with the value."""

BLANKS = " \t\r\n\v\f"
"""White space of ASCII: in text decoded as ISO 8859-1, `strip` alone takes more, such as 0x85 and 0xA0."""

USED = frozenset(
    {"host", "user-agent", "server", *(f"sec-websocket-{part}" for part in ("key", "accept", "protocol", "extensions"))}
)
"""Headers that are used."""

FIRST_LETTERS = frozenset("hHuUsS")
"""How they begin: a head may have thousands of other lines."""


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


NO_REQUEST, NO_RESPONSE = Request(*[None] * 6), Response(False, *[None] * 4)
"""Stand for heads that were not captured."""


def cut_requests(values: str, openings: Rows) -> Iterable[Request]:
    """Upgrade requests whose values `field_line` has copied.

    Args:
        values: What was copied, decoded.
        openings: OPENING rows of plain requests.

    """
    columns = _cut_all(values, openings)
    return map(_make_request, zip(*columns, strict=True))


def cut_responses(values: str, openings: Rows) -> Iterable[Response]:
    """The same for answers."""
    _, servers, _, accepts, protocols, extensions = _cut_all(values, openings)
    is_switch = (openings["status"] == SWITCHING).tolist()
    return map(_make_response, zip(is_switch, servers, protocols, extensions, accepts, strict=True))


_make_request = functools.partial(tuple.__new__, Request)
_make_response = functools.partial(tuple.__new__, Response)
"""As `_make`, in a third of the time."""


def _cut_all(values: str, openings: Rows) -> Iterator[list[str | None]]:
    """The values of each field, None where a head has it not."""
    for begins, ends in zip(openings["begins"].T, openings["ends"].T, strict=True):
        if (ends >= 0).any():
            places = zip(begins.tolist(), ends.tolist(), strict=True)
            yield [values[begin:end] if end >= 0 else None for begin, end in places]
        else:
            yield [None] * len(ends)


def parse_head(text: str) -> tuple[str, dict[str, str]]:
    """Split a head of any kind into its first line and the headers that are used; repeated ones are joined by a comma.

    Names are in lower case. Never raises: a line that is no field line is passed over, a folded one joins the one
    before.
    """
    first, *lines = FOLD.sub(" ", text).split("\n")
    headers: dict[str, str] = {}
    n_left = KEPT_LINES
    for line in lines:
        if line[:1] not in FIRST_LETTERS:
            continue
        name, colon, value = line[:MAX_LINE_BYTES].partition(":")
        name, value = name.rstrip(" \t").lower(), value.strip(" \t\r")
        if colon and name in USED and n_left:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
            n_left -= 1
    return first[:MAX_LINE_BYTES].rstrip("\r"), headers


def parse_request(text: str) -> Request:
    """Read an upgrade request (RFC 6455 section 4.1), decoded as ISO 8859-1."""
    line, headers = parse_head(text)
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


def parse_response(text: str) -> Response:
    """Read the answer to an upgrade request (RFC 6455 section 4.2.2)."""
    line, headers = parse_head(text)
    get = headers.get
    return Response(
        line[9:12] == str(SWITCHING),
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
    return {part.split(";")[0].strip(BLANKS) for part in value.split(",")} - {""}


def check_answer(request: Request, response: Response) -> Anomaly:
    """What in a 101 makes a client fail the connection (RFC 6455 section 4.1); another status has nothing to match."""
    anomalies = Anomaly.NONE
    if not response.is_switch or request == NO_REQUEST:
        return anomalies
    if request.key is not None and response.accept != accept_for(request.key):
        anomalies |= Anomaly.WRONG_ACCEPT
    if response.protocol and _names(response.protocol) - _names(request.protocols or ""):
        anomalies |= Anomaly.UNREQUESTED_SUBPROTOCOL
    if response.extensions and _names(response.extensions) - _names(request.extensions or ""):
        anomalies |= Anomaly.UNREQUESTED_EXTENSION
    return anomalies


def check_answers(requests: Iterable[Request], responses: Iterable[Response]) -> list[int]:
    """`check_answer` of each pair."""
    found = []
    for request, response in zip(requests, responses, strict=True):
        is_switch, _, protocol, extensions, accept = response
        key = request.key
        if is_switch and key is not None and protocol is None and extensions is None and accept == accept_for(key):
            found.append(0)  # as most are
        else:
            found.append(int(check_answer(request, response)))
    return found
