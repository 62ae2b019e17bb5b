"""The hellos of TLS, as far as they are used (RFC 8446 section 4.1, RFC 5246 section 7.4.1). Nothing here raises."""

import hashlib
from typing import NamedTuple

RETRY_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()
"""The random of a ServerHello that asks for another ClientHello (RFC 8446 section 4.1.3)."""

SERVER_NAME, TRUNCATED_MAC, ALPN, ENCRYPT_THEN_MAC, TICKET, EARLY_DATA, SUPPORTED_VERSIONS = 0, 4, 16, 22, 35, 42, 43
"""Extensions (IANA, TLS ExtensionType Values)."""

MAX_OFFERS = 32
"""More protocols than this are not kept."""


class ClientHello(NamedTuple):
    """What is kept of a ClientHello."""

    random: bytes
    session_id: bytes
    ticket: bytes
    sni: str | None
    alpn_offers: tuple[str, ...]
    has_early_data: bool


class ServerHello(NamedTuple):
    """What is kept of a ServerHello. `can_open` is false where compression or a short MAC was agreed on."""

    version: int
    random: bytes
    session_id: bytes
    suite: int
    alpn: str | None
    is_mac_last: bool
    is_retry: bool
    can_open: bool


def _vector(data: bytes, off: int, n_size: int) -> tuple[bytes, int]:
    """Bytes behind their own length of `n_size` bytes, and where they end; what is cut off is left out."""
    start = off + n_size
    end = start + int.from_bytes(data[off:start], "big")
    return data[start:end], end


def _parse_extensions(data: bytes, off: int) -> dict[int, bytes]:
    """Extensions by number, the first of each."""
    found: dict[int, bytes] = {}
    data, _ = _vector(data, off, 2)
    off = 0
    while len(data) - off >= 4:
        number = data[off] << 8 | data[off + 1]
        value, off = _vector(data, off + 2, 2)
        found.setdefault(number, value)
    return found


def _text(data: bytes) -> str:
    return data[:255].decode("ascii", "backslashreplace")


def _parse_protocols(data: bytes) -> tuple[str, ...]:
    """The names of an ALPN extension (RFC 7301 section 3.1)."""
    data, _ = _vector(data, 0, 2)
    names: list[str] = []
    off = 0
    while off < len(data) and len(names) < MAX_OFFERS:
        name, off = _vector(data, off, 1)
        names.append(_text(name))
    return tuple(names)


def _parse_server_name(data: bytes) -> str | None:
    """The host of a server_name extension (RFC 6066 section 3)."""
    names, _ = _vector(data, 0, 2)
    if len(names) < 4 or names[0] != 0:
        return None
    return _text(_vector(names, 1, 2)[0])


def parse_client_hello(body: bytes) -> ClientHello | None:
    """Read a ClientHello; None where it does not even hold a random."""
    if len(body) < 35:
        return None
    session_id, off = _vector(body, 34, 1)
    off = _vector(body, off, 2)[1]  # cipher suites
    off = _vector(body, off, 1)[1]  # compression methods
    extensions = _parse_extensions(body, off)
    return ClientHello(
        body[2:34],
        session_id,
        extensions.get(TICKET, b""),
        _parse_server_name(extensions[SERVER_NAME]) if SERVER_NAME in extensions else None,
        _parse_protocols(extensions.get(ALPN, b"")),
        EARLY_DATA in extensions,
    )


def parse_server_hello(body: bytes) -> ServerHello | None:
    """Read a ServerHello; None where it does not name a cipher suite."""
    if len(body) < 38:
        return None
    session_id, off = _vector(body, 34, 1)
    if len(body) < off + 3:
        return None
    extensions = _parse_extensions(body, off + 3)
    version = extensions.get(SUPPORTED_VERSIONS, b"")
    return ServerHello(
        int.from_bytes(version if len(version) == 2 else body[:2], "big"),
        body[2:34],
        session_id,
        int.from_bytes(body[off : off + 2], "big"),
        next(iter(_parse_protocols(extensions.get(ALPN, b""))), None),
        ENCRYPT_THEN_MAC in extensions,
        body[2:34] == RETRY_RANDOM,
        body[off + 2] == 0 and TRUNCATED_MAC not in extensions,
    )


def parse_encrypted_extensions(body: bytes) -> tuple[str | None, bool]:
    """Of a server's EncryptedExtensions: the protocol it chose, and whether it takes early data."""
    extensions = _parse_extensions(body, 0)
    return next(iter(_parse_protocols(extensions.get(ALPN, b""))), None), EARLY_DATA in extensions


def parse_ticket(body: bytes) -> bytes:
    """The ticket of a NewSessionTicket before TLS 1.3 (RFC 5077 section 3.3)."""
    return _vector(body, 4, 2)[0]
