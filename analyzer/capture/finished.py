"""What comes out of a capture: WebSocket connections that are over, as the rows that the kernels wrote."""

from typing import TYPE_CHECKING, NamedTuple

from analyzer.capture.head import Request, Response
from analyzer.capture.sealed import Told
from analyzer.model import Rows

if TYPE_CHECKING:
    from analyzer.capture.fate import Fate
    from analyzer.capture.unwrap import Wrap

GOES_ON, SUPERSEDED, ENDED = 0, 1, 2
"""CONNECTION `finished`: another one followed it on the same TCP connection; its HTTP/2 stream is over."""


class Finished(NamedTuple):
    """WebSocket connections that are over, all arrays with one row per connection.

    `streams`, `by_stream` and `sides` have shape (n, 2): what the client sent, what the server sent. Where `by_stream`
    is set, `streams` tell how that side ended an HTTP/2 stream, END_STREAM standing for FIN and RST_STREAM for RST (RFC
    8441 section 5). `sealed` is a side whose TLS stayed closed, throughout or from some record on, while anything of
    the connection was opened, `heard_pos` up to where the other side can have read, `evicted` a limit's doing,
    `superseded` an attempt after which the same TCP connection carried another one. By row, since few have any: `wraps`
    is what carried them, `told` what is said of TLS that could not be opened, `fates` what else HTTP/2 tells.
    """

    connections: Rows
    flows: Rows
    streams: Rows
    sides: Rows
    requests: list[Request]
    responses: list[Response]
    wraps: "dict[int, Wrap]"
    told: dict[int, Told]
    sealed: Rows
    by_stream: Rows
    heard_pos: Rows
    fates: "dict[int, Fate]"
    evicted: Rows
    superseded: Rows
    vanished: Rows
