"""Header blocks of HTTP/2: what HPACK (RFC 7541) makes of them, what a WebSocket's opening says (RFC 8441).

The limits on what a block may expand to are here; where blocks begin and end is not.
"""

from hpack import Decoder, HPACKError
from hpack.exceptions import OversizedHeaderListError

from analyzer.capture.head import Request, Response

MAX_BLOCK_BYTES = 65536
"""Of one block with its CONTINUATIONs, compressed: hpack copies all that is left of a block for every field."""

MAX_HEADER_LIST_BYTES = 131072
"""Of one block decompressed, each field 32 bytes more than it is long (RFC 9113 section 10.5.1)."""

MAX_VALUE_BYTES = 1024
"""What is kept of one field: every open stream keeps those that are used."""

USED = frozenset(
    (
        *(b":method", b":protocol", b":path", b":authority", b":status", b"host", b"user-agent", b"server"),
        *(b"sec-websocket-protocol", b"sec-websocket-extensions"),
    )
)
"""The fields that are looked at."""

DEFAULT_TABLE_BYTES = 65536
"""How large a table an encoder may ask for before its peer's SETTINGS are seen: what Chromium and Firefox allow it."""

MAX_TABLE_BYTES = 262144
"""However much the SETTINGS of the peer allow."""


class Fields:
    """One direction's header blocks, decoded one after the other: each needs all that came before.

    An encoder says itself, in its blocks, how large its table is (RFC 7541 section 6.3); the peer's SETTINGS only bound
    what it may say. So a bound seen early or late changes nothing in what a block means, and it is only ever raised.
    """

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = Decoder(MAX_HEADER_LIST_BYTES)
        self._decoder.max_allowed_table_size = DEFAULT_TABLE_BYTES

    def allow_table(self, n_bytes: int) -> None:
        """Take note of the receiver's SETTINGS_HEADER_TABLE_SIZE."""
        allowed = max(self._decoder.max_allowed_table_size, n_bytes)
        self._decoder.max_allowed_table_size = min(allowed, MAX_TABLE_BYTES)

    def decode(self, block: bytes) -> tuple[dict[bytes, bytes] | None, bool]:
        """Decode a whole block.

        Returns:
            The fields that are used, by name, repeated ones joined by a comma and cut to a limit; or None where the
            block is none: then neither is any that follows. And whether a limit made it so.

        """
        try:
            fields = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            return None, True
        except (HPACKError, ValueError, IndexError):  # the latter two of hpack 4.0 on absurd integers
            return None, False
        headers: dict[bytes, bytes] = {}
        for name, value in fields:
            if name in USED:
                known = headers.get(name)
                if known is None:
                    headers[name] = value[:MAX_VALUE_BYTES]
                elif name[:1] != b":" and len(known) < MAX_VALUE_BYTES:
                    headers[name] = (known + b", " + value)[:MAX_VALUE_BYTES]
        return headers, False


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def is_websocket(headers: dict[bytes, bytes]) -> bool:
    """Whether a request asks for a WebSocket (RFC 8441 section 4)."""
    return headers.get(b":method") == b"CONNECT" and headers.get(b":protocol", b"").lower() == b"websocket"


def to_request(headers: dict[bytes, bytes]) -> Request:
    """What is kept of an extended CONNECT; over HTTP/2 there is no key."""
    get = headers.get
    return Request(
        _text(get(b":path")),
        _text(get(b":authority", get(b"host"))),
        _text(get(b"user-agent")),
        None,
        _text(get(b"sec-websocket-protocol")),
        _text(get(b"sec-websocket-extensions")),
    )


def to_status(headers: dict[bytes, bytes]) -> int | None:
    """The status of an answer, None where it has none of three digits."""
    status = headers.get(b":status", b"")
    return int(status) if len(status) == 3 and status.isdigit() else None


def to_response(headers: dict[bytes, bytes], status: int) -> Response:
    """What is kept of the answer; 2xx opens the WebSocket (RFC 8441 section 5)."""
    get = headers.get
    return Response(
        200 <= status < 300,
        _text(get(b"server")),
        _text(get(b"sec-websocket-protocol")),
        _text(get(b"sec-websocket-extensions")),
        None,
    )
