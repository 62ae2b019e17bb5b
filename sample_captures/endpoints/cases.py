"""The table of sample captures: programs, what happened, and by hand what either endpoint's view is.

Views follow the decision table and the packets as tshark reads them, never the output of this project. Where the
endpoint's own API says something else, `differences` says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from endpoints import delayed_link


class View(NamedTuple):
    """What one endpoint reports, by the decision table.

    `received` and `sent` are a status code, or a word of `model.Received`. `record` names a packet that tshark finds:
    the sender and `close` (last byte of its first Close), `fin`, `rst`, `answer` (to the upgrade request) or `alert`.
    """

    endpoint: str
    code: int | None
    provenance: str
    evidence: str
    received: int | str
    sent: int | str
    record: str
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Capture:
    """How packets are recorded: options of tcpdump, or dumpcap for pcapng."""

    options: tuple[str, ...] = ("-i", "lo")
    link_type: str = "Ethernet"
    container: str = "pcap"
    host: str = "127.0.0.1"


class Case:
    """One capture.

    Args:
        decision: Rows of the decision table for the views.
        end: How TCP ended first and by whom, as `fin client`; or `open`.
        differences: Why an endpoint's API says something else than its view.
        tls: The version of TLS that is spoken, as `TLSv1.3`.
        keys: Where the secrets are kept: in a `file` beside the capture, or `inside` of it.
    """

    def __init__(
        self,
        title: str,
        decision: str,
        client: str,
        server: str,
        *views: View,
        initiator: str,
        end: str,
        handshake: str = "complete",
        capture: Capture = Capture(),
        differences: Mapping[str, str] = MappingProxyType({}),
        tls: str = "",
        keys: str = "",
    ) -> None:
        self.title, self.decision, self.client, self.server, self.views = title, decision, client, server, views
        self.initiator, self.end, self.handshake = initiator, end, handshake
        self.capture, self.differences, self.tls, self.keys = capture, differences, tls, keys


WIRE, MADE_UP, NOT_KNOWN = "wire", "synthesized", "undetermined"

LOOPBACK_V6 = Capture(host="::1")
NANOSECONDS = Capture(options=("-i", "lo", "--time-stamp-precision=nano"))
PCAPNG = Capture(container="pcapng")
COOKED = Capture(options=("-i", "any", "-y", "LINUX_SLL"), link_type="Linux cooked v1")
COOKED_2 = Capture(options=("-i", "any", "-y", "LINUX_SLL2"), link_type="Linux cooked v2")
CUT_OFF = Capture(options=("-i", "lo", "-s", "498"))
DELAYED = Capture(options=("-i", "tun0"), link_type="Raw IP", host=delayed_link.NEAR)

TOO_BIG = "frame with 4000 bytes exceeds limit of 1024 bytes"
ANSWER = "record is the answer to the upgrade request: it told the client, before any FIN."
SO_FAR = "received and sent, and the initiator, say what the capture holds up to its end: no Close so far."
UNTRUSTED = "The row is given only where the port is known to be a WebSocket server's; the alert told the server."
NOT_READ = "record is this endpoint's own Close: with it it failed the connection, and read no more."

CASES = {
    "normal-1000": Case(
        "The client closes with 1000 and a reason, the server echoes both",
        "1, 1",
        "ws",
        "websockets",
        View("client", 1000, WIRE, "status", 1000, 1000, "server close", "done"),
        View("server", 1000, WIRE, "status", 1000, 1000, "client close", "done"),
        initiator="client",
        end="fin server",
    ),
    "going-away-1001-client": Case(
        "The client goes away with 1001; the server answers 1000, as aiohttp always does",
        "1, 1",
        "websockets",
        "aiohttp",
        View("client", 1000, WIRE, "status", 1000, 1001, "server close"),
        View("server", 1001, WIRE, "status", 1001, 1000, "client close", "leaving the page"),
        initiator="client",
        end="fin server",
        capture=LOOPBACK_V6,
    ),
    "shutdown-1001-server": Case(
        "The server shuts down and closes with 1001",
        "1, 1",
        "undici",
        "websockets",
        View("client", 1001, WIRE, "status", 1001, 1001, "server close"),
        View("server", 1001, WIRE, "status", 1001, 1001, "client close"),
        initiator="server",
        end="fin server",
        capture=COOKED_2,
    ),
    "protocol-error-1002": Case(
        "The client sends a frame with a reserved opcode; the server fails the connection with 1002, unanswered",
        "13, 12",
        "raw",
        "websockets",
        View("client", 1002, WIRE, "status", 1002, "none", "server close", "invalid opcode"),
        View("server", 1006, MADE_UP, "failed_here", "none", 1002, "server close"),
        initiator="server",
        end="fin server",
    ),
    "protocol-error-1002-uvicorn": Case(
        "The client sends an unmasked frame; the server fails the connection with 1002, the client answers 1002",
        "13, 12",
        "raw",
        "uvicorn websockets-sansio",
        View("client", 1002, WIRE, "status", 1002, 1002, "server close", "incorrect masking"),
        View("server", 1006, MADE_UP, "failed_here", 1002, 1002, "server close", note=NOT_READ),
        initiator="server",
        end="rst server",
        differences={
            "server": "uvicorn's sansio implementation reports the code it failed the connection with, not 1006.",
        },
    ),
    "bad-utf8-1007": Case(
        "The client sends a text message that is not UTF-8; the server fails the connection with 1007",
        "13, 12",
        "raw",
        "ws",
        View("client", 1007, WIRE, "status", 1007, "none", "server close"),
        View("server", 1006, MADE_UP, "failed_here", "none", 1007, "server close"),
        initiator="server",
        end="fin server",
    ),
    "too-big-1009": Case(
        "The client sends 4000 bytes to a server that takes 1024; the server closes with 1009, the client echoes it",
        "1, 14",
        "ws",
        "websockets",
        View("client", 1009, WIRE, "status", 1009, 1009, "server close", TOO_BIG),
        View("server", None, NOT_KNOWN, "failed_here", 1009, 1009, "server close", TOO_BIG, note=NOT_READ),
        initiator="server",
        end="fin server",
        differences={
            "server": "The server had failed the connection and read no more: websockets reports 1006 though the echo "
            "arrived. From the packets alone the size limit is not visible, so the table claims no code.",
        },
    ),
    "internal-error-1011": Case(
        "The server's handler raises, the server closes with 1011; the client answers 1000, as aiohttp always does",
        "1, 1",
        "aiohttp",
        "websockets",
        View("client", 1011, WIRE, "status", 1011, 1000, "server close"),
        View("server", 1000, WIRE, "status", 1000, 1011, "client close"),
        initiator="server",
        end="fin client",
    ),
    "restart-1012": Case(
        "uvicorn is told to stop, closes with 1012 and ends TCP at once; the echo is answered by RST",
        "1, 7",
        "websockets",
        "uvicorn websockets-sansio",
        View("client", 1012, WIRE, "status", 1012, 1012, "server close"),
        View("server", None, NOT_KNOWN, "late_close", 1012, 1012, "client close"),
        initiator="server",
        end="fin server",
        capture=NANOSECONDS,
        differences={
            "server": "uvicorn ends TCP right behind its Close, so the echo meets a closed socket; "
            "it tells the application 1012 without waiting for an answer.",
        },
    ),
    "app-4xxx-reason": Case(
        "The server closes with the application's 4401 and a reason outside ASCII",
        "1, 1",
        "undici",
        "ws",
        View("client", 4401, WIRE, "status", 4401, 4401, "server close", "会话过期 – zaļā"),
        View("server", 4401, WIRE, "status", 4401, 4401, "client close"),
        initiator="server",
        end="fin server",
        capture=PCAPNG,
    ),
    "empty-close-1005": Case(
        "The client calls close() without a code: a Close without body",
        "3, 3",
        "ws",
        "ws",
        View("client", 1005, MADE_UP, "empty_close", "empty", "empty", "server close"),
        View("server", 1005, MADE_UP, "empty_close", "empty", "empty", "client close"),
        initiator="client",
        end="fin server",
    ),
    "empty-close-aiohttp": Case(
        "The client calls close() without a code; aiohttp reports 0 and answers 1000",
        "1, 3",
        "undici",
        "aiohttp",
        View("client", 1000, WIRE, "status", 1000, "empty", "server close"),
        View("server", 1005, MADE_UP, "empty_close", "empty", 1000, "client close"),
        initiator="client",
        end="fin server",
        differences={
            "server": "aiohttp's server reports 0 for a Close without a status.",
        },
    ),
    "fin-no-close-1006": Case(
        "The server ends TCP by FIN, no Close in either direction",
        "5, 5",
        "ws",
        "websockets",
        View("client", 1006, MADE_UP, "no_close_fin", "none", "none", "server fin"),
        View("server", 1006, MADE_UP, "no_close_fin", "none", "none", "client fin"),
        initiator="none",
        end="fin server",
        capture=COOKED,
    ),
    "fin-no-close-uvicorn": Case(
        "The client ends TCP by FIN, no Close; uvicorn's wsproto implementation reports 1005",
        "5, 5",
        "raw",
        "uvicorn wsproto",
        View("client", 1006, MADE_UP, "no_close_fin", "none", "none", "server fin"),
        View("server", 1006, MADE_UP, "no_close_fin", "none", "none", "client fin"),
        initiator="none",
        end="fin client",
        differences={
            "server": "uvicorn's wsproto implementation reports 1005 when TCP ends without a Close, though no Close "
            "came.",
        },
    ),
    "rst-no-close-1006": Case(
        "The client resets TCP, no Close in either direction",
        "6, 6",
        "ws",
        "websockets",
        View("client", 1006, MADE_UP, "no_close_rst", "none", "none", "client rst"),
        View("server", 1006, MADE_UP, "no_close_rst", "none", "none", "client rst"),
        initiator="none",
        end="rst client",
    ),
    "split-close": Case(
        "The server's Close comes in four TCP segments: header, code and reason all cut",
        "1, 1",
        "undici",
        "raw",
        View("client", 1001, WIRE, "status", 1001, 1001, "server close", "maintenance"),
        View("server", 1001, WIRE, "status", 1001, 1001, "client close"),
        initiator="server",
        end="fin server",
    ),
    "coalesced-frames": Case(
        "Text, Ping, binary and Close in one TCP segment",
        "1, 1",
        "raw",
        "ws",
        View("client", 1000, WIRE, "status", 1000, 1000, "server close", "all said"),
        View("server", 1000, WIRE, "status", 1000, 1000, "client close", "all said"),
        initiator="client",
        end="fin server",
    ),
    "crossed-closes": Case(
        "Both close at the same time over a link with 20 ms of latency: the Closes cross",
        "2, 2",
        "websockets",
        "websockets",
        View("client", 4000, WIRE, "status", 4000, 4001, "server close", "server is done"),
        View("server", 4001, WIRE, "status", 4001, 4000, "client close", "client is done"),
        initiator="both",
        end="fin server",
        capture=DELAYED,
    ),
    "close-never-answered": Case(
        "The client closes with 1000, the server never answers; the client gives up after half a second",
        "4, 1",
        "websockets",
        "raw",
        View("client", 1006, MADE_UP, "no_close_fin", "none", 1000, "server fin"),
        View("server", 1000, WIRE, "status", 1000, "none", "client close", "bye"),
        initiator="client",
        end="fin client",
    ),
    "close-answered-by-fin": Case(
        "The client closes with 1000, the server ends TCP instead of answering",
        "4, 1",
        "undici",
        "raw",
        View("client", 1006, MADE_UP, "no_close_fin", "none", 1000, "server fin"),
        View("server", 1000, WIRE, "status", 1000, "none", "client close", "bye"),
        initiator="client",
        end="fin server",
    ),
    "rejected-403": Case(
        "The server rejects the handshake with 403",
        "15, no row",
        "ws",
        "websockets",
        View("client", 1006, MADE_UP, "handshake_rejected", "none", "none", "server answer", note=ANSWER),
        initiator="none",
        end="fin server",
        handshake="rejected",
    ),
    "illegal-1006-on-wire": Case(
        "The client sends a Close with 1006; Tornado accepts it and echoes it",
        "10, 10",
        "raw",
        "tornado",
        View("client", 1006, WIRE, "status", 1006, 1006, "server close"),
        View("server", 1006, WIRE, "status", 1006, 1006, "client close", "connection lost"),
        initiator="client",
        end="fin server",
    ),
    "illegal-1006-aiohttp": Case(
        "The server sends a Close with 1006; aiohttp accepts it and answers 1000",
        "10, 1",
        "aiohttp",
        "raw",
        View("client", 1006, WIRE, "status", 1006, 1000, "server close", "upstream gone"),
        View("server", 1000, WIRE, "status", 1000, 1006, "client close"),
        initiator="server",
        end="fin server",
    ),
    "illegal-1005-refused": Case(
        "The client sends a Close with 1005; the server fails the connection with 1002",
        "13, 12",
        "raw",
        "ws",
        View("client", 1002, WIRE, "status", 1002, 1005, "server close"),
        View("server", 1006, MADE_UP, "failed_here", 1005, 1002, "server close", note=NOT_READ),
        initiator="client",
        end="fin server",
    ),
    "one-byte-close": Case(
        "The client sends a Close with a body of one byte; the server fails the connection with 1002",
        "13, 12",
        "raw",
        "websockets",
        View("client", 1002, WIRE, "status", 1002, "short", "server close", "close frame too short"),
        View("server", 1006, MADE_UP, "failed_here", "short", 1002, "server close", note=NOT_READ),
        initiator="client",
        end="fin server",
    ),
    "one-byte-close-tornado": Case(
        "The client sends a Close with a body of one byte; Tornado takes it and answers with an empty Close",
        "3, 11",
        "raw",
        "tornado",
        View("client", 1005, MADE_UP, "empty_close", "empty", "short", "server close"),
        View(
            "server",
            None,
            NOT_KNOWN,
            "short_close",
            "short",
            "empty",
            "client close",
            note="Tornado reports None here, as it does for an empty Close and for none at all.",
        ),
        initiator="client",
        end="fin server",
    ),
    "late-close": Case(
        "The client ends TCP without a Close; the server's Close comes after that and meets a closed socket",
        "7, 4",
        "ws",
        "raw",
        View("client", None, NOT_KNOWN, "late_close", 1000, "none", "server close", "goodbye"),
        View("server", 1006, MADE_UP, "no_close_fin", "none", 1000, "client fin"),
        initiator="server",
        end="fin client",
        differences={
            "client": "The program had closed its socket: ws reports 1006. From the packets alone nobody can tell a "
            "closed socket from one whose owner still read the Close, so the table claims no code.",
        },
    ),
    "half-close": Case(
        "The client ends its direction of TCP and goes on reading; the server then closes with 1001",
        "8, 4",
        "websockets",
        "raw",
        View(
            "client",
            1001,
            WIRE,
            "status",
            1001,
            "none",
            "server close",
            "you left",
            note="The library says that it sent 1001 too; behind its FIN it could not, and no such frame is here.",
        ),
        View("server", 1006, MADE_UP, "no_close_fin", "none", 1001, "client fin"),
        initiator="server",
        end="fin client",
    ),
    "close-then-rst": Case(
        "The client closes with 1000 and resets TCP before the busy server reads; the Close was acknowledged",
        "6, 9",
        "raw",
        "ws",
        View("client", 1006, MADE_UP, "no_close_rst", "none", 1000, "client rst"),
        View("server", 1000, WIRE, "status", 1000, "none", "client close", "in a hurry"),
        initiator="client",
        end="rst client",
    ),
    "close-then-rst-unacked": Case(
        "The client closes with 1000 and resets TCP at once, before anyone acknowledged the Close",
        "6, 9",
        "raw",
        "ws",
        View("client", 1006, MADE_UP, "no_close_rst", "none", 1000, "client rst"),
        View("server", None, NOT_KNOWN, "close_unacked", 1000, "none", "client close", "in a hurry"),
        initiator="client",
        end="rst client",
        differences={
            "server": "The Close had reached the server's kernel, which hands it out even after the RST. Nothing in "
            "the packets proves it: no acknowledgement covers it, so the table claims no code.",
        },
    ),
    "ping-no-pong": Case(
        "The client never answers a Ping; the server's keepalive closes with 1011",
        "1, 4",
        "raw",
        "websockets",
        View("client", 1011, WIRE, "status", 1011, "none", "server close", "keepalive ping timeout"),
        View("server", 1006, MADE_UP, "no_close_fin", "none", 1011, "client fin"),
        initiator="server",
        end="fin server",
    ),
    "keepalive-then-upgrade": Case(
        "An ordinary GET, then the upgrade on the same TCP connection, with a subprotocol; the server closes with 1000",
        "1, 1",
        "raw",
        "aiohttp",
        View("client", 1000, WIRE, "status", 1000, 1000, "server close", "nothing more"),
        View("server", 1000, WIRE, "status", 1000, 1000, "client close"),
        initiator="server",
        end="fin server",
    ),
    "wrong-accept": Case(
        "The server answers 101 with a wrong Sec-WebSocket-Accept; the client drops the connection",
        "16, no row",
        "ws",
        "raw",
        View("client", 1006, MADE_UP, "handshake_failed", "none", "none", "server answer", note=ANSWER),
        initiator="none",
        end="fin client",
        handshake="failed",
    ),
    "capture-ends-first": Case(
        "The capture ends while the connection is open",
        "31, 31",
        "websockets",
        "websockets",
        View("client", None, NOT_KNOWN, "open_end", "none", "none", "", note=SO_FAR),
        View("server", None, NOT_KNOWN, "open_end", "none", "none", "", note=SO_FAR),
        initiator="none",
        end="open",
        differences={
            "client": "The connection was closed with 1000 after the capture had ended.",
            "server": "The connection was closed with 1000 after the capture had ended.",
        },
    ),
    "capture-begins-later": Case(
        "The capture begins after the handshake; the client closes with 3000",
        "34, 34",
        "websockets",
        "websockets",
        View("client", 3000, WIRE, "status", 3000, 3000, "server close", "unauthorized"),
        View("server", 3000, WIRE, "status", 3000, 3000, "client close", "unauthorized"),
        initiator="client",
        end="fin server",
        handshake="missing",
    ),
    "snaplen-cut-close": Case(
        "The server closes with 1013; the capture keeps 498 bytes of each packet and so only the Close's header",
        "27, 1",
        "ws",
        "raw",
        View("client", None, NOT_KNOWN, "cut_close", "cut", 1013, "server close"),
        View("server", 1013, WIRE, "status", 1013, "cut", "client close", "try again later"),
        initiator="server",
        end="fin server",
        capture=CUT_OFF,
        differences={
            "client": "The client received the whole Close; the capture kept its header only.",
        },
    ),
    "tls13-normal-1000": Case(
        "TLS 1.3: the client closes with 1000 and a reason, the server echoes both",
        "1, 1",
        "ws",
        "websockets",
        View("client", 1000, WIRE, "status", 1000, 1000, "server close", "done"),
        View("server", 1000, WIRE, "status", 1000, 1000, "client close", "done"),
        initiator="client",
        end="fin server",
        tls="TLSv1.3",
        keys="file",
    ),
    "tls12-app-4000": Case(
        "TLS 1.2: the server closes with the application's 4000 and a reason",
        "1, 1",
        "websockets",
        "websockets",
        View("client", 4000, WIRE, "status", 4000, 4000, "server close", "session expired"),
        View("server", 4000, WIRE, "status", 4000, 4000, "client close", "session expired"),
        initiator="server",
        end="fin client",
        tls="TLSv1.2",
        keys="file",
    ),
    "tls13-empty-close-1005": Case(
        "TLS 1.3: the client calls close() without a code: a Close without body",
        "3, 3",
        "ws",
        "websockets",
        View("client", 1005, MADE_UP, "empty_close", "empty", "empty", "server close"),
        View("server", 1005, MADE_UP, "empty_close", "empty", "empty", "client close"),
        initiator="client",
        end="fin server",
        tls="TLSv1.3",
        keys="file",
    ),
    "tls12-fin-no-close-1006": Case(
        "TLS 1.2: the server ends the connection by close_notify and FIN, no Close in either direction",
        "5, 5",
        "ws",
        "websockets",
        View("client", 1006, MADE_UP, "no_close_fin", "none", "none", "server fin"),
        View("server", 1006, MADE_UP, "no_close_fin", "none", "none", "client fin"),
        initiator="none",
        end="fin server",
        tls="TLSv1.2",
        keys="file",
    ),
    "tls13-secrets-block": Case(
        "TLS 1.3, its secrets in the capture: the client goes away with 1001",
        "1, 1",
        "websockets",
        "websockets",
        View("client", 1001, WIRE, "status", 1001, 1001, "server close", "leaving the page"),
        View("server", 1001, WIRE, "status", 1001, 1001, "client close", "leaving the page"),
        initiator="client",
        end="fin client",
        capture=PCAPNG,
        tls="TLSv1.3",
        keys="inside",
    ),
    "tls13-unknown-ca": Case(
        "The client does not trust the server's certificate: TLS fails, nothing is ever asked for",
        "17, no row",
        "websockets",
        "websockets",
        View("client", 1015, MADE_UP, "tls_alert", "none", "none", "client alert", note=UNTRUSTED),
        initiator="none",
        end="fin server",
        handshake="failed",
        tls="TLSv1.3",
        differences={"client": "Nothing was ever open: the API raises an exception of TLS, and has no code."},
    ),
}
