"""Where bytes that were taken out of records or frames stood in the capture, and whom they went to."""

from typing import NamedTuple

EVERYTHING = 1 << 62
"""A position behind all that a stream can carry."""


class Mark(NamedTuple):
    """The segment that completed a record: where it ends in the TCP stream, what it acknowledges, when it came."""

    end_pos: int
    ack_pos: int
    ts_ns: int
    packet: int


class Place(NamedTuple):
    """Where a TLS connection goes: address and port of the server, and the name that the client asked for."""

    hi: int
    lo: int
    port: int
    sni: str | None
