"""What happens to the WebSockets of an HTTP/2 connection (RFC 8441), as `http2` tells it.

A direction is 0 or 1, as it was given with the bytes; a stream is HTTP/2's number of it.
"""

from typing import NamedTuple

from analyzer.capture.head import Request, Response
from analyzer.capture.mark import Mark


class Requested(NamedTuple):
    """The client asks for a WebSocket on a stream of its own."""

    stream: int
    request: Request
    mark: Mark


class Answered(NamedTuple):
    """The server answers finally, not with 1xx; status and response are None where the block could not be read."""

    stream: int
    status: int | None
    response: Response | None
    mark: Mark


class Data(NamedTuple):
    """Payload without padding: `n_bytes` from `off` in the data of that call; one for each piece of a frame."""

    stream: int
    direction: int
    off: int
    n_bytes: int
    mark: Mark


class Missed(NamedTuple):
    """The capture lacks exactly so many bytes of payload; what follows goes on behind them."""

    stream: int
    direction: int
    n_bytes: int


class Lost(NamedTuple):
    """From here on, bytes of this stream and its end may be missing: how many is not known."""

    stream: int
    direction: int


class Ended(NamedTuple):
    """One side sends no more on the stream: END_STREAM."""

    stream: int
    direction: int
    mark: Mark


class Reset(NamedTuple):
    """One side reset the stream; code and name are None where the capture lacks them."""

    stream: int
    direction: int
    code_name: str | None
    code: int | None
    mark: Mark


class GoneAway(NamedTuple):
    """One side takes no streams above the last one (RFC 9113 section 6.8); the first bytes of its debug data."""

    direction: int
    last_stream: int
    code: int
    code_name: str
    debug: bytes
    mark: Mark


Event = Requested | Answered | Data | Missed | Lost | Ended | Reset | GoneAway
