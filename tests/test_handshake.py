"""The opening handshake in every shape, end to end: what is a WebSocket, what is not, and what is said about it."""

import io
import pickle
import re

import h11
import numpy as np
import packets as build
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import CLIENT, MASK, SERVER, Conversation
from reading import analyze

from analyzer.capture import container, field_line, handshake, tracker
from analyzer.capture.field_line import MAX_LINE_BYTES
from analyzer.capture.handshake import MAX_HEAD_BYTES
from analyzer.capture.head import (
    NO_REQUEST,
    Request,
    Response,
    accept_for,
    check_answer,
    check_answers,
    cut_requests,
    cut_responses,
    parse_head,
    parse_request,
    parse_response,
)
from analyzer.model import OPENING, Anomaly

GET = "GET /chat HTTP/1.1\r\n"
SWITCHING = "HTTP/1.1 101 Switching Protocols\r\n"
NEEDED = [
    "Host: example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {build.KEY}",
    "Sec-WebSocket-Version: 13",
]
GIVEN = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {build.accept_of()}"]
PLAIN_GET = b"GET /page HTTP/1.1\r\nHost: example.com\r\n\r\n"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CLIENT_TEXT = build.frame(1, b"hello", mask=MASK)


def head(first, lines, end="\r\n"):
    return (first + "".join(line + end for line in lines) + "\r\n").encode("latin-1")


def finish(talk):
    """One text each way, then 1000 from the server, echoed."""
    talk.text(CLIENT)
    talk.text(SERVER)
    talk.close(SERVER, 1000)
    talk.close(CLIENT, 1000)
    talk.end()
    return talk


def check_whole(talk, **more):
    """One connection, opened and closed as `finish` does; its row."""
    closes, connections = analyze(talk.pcap(), **more)
    assert [(c["endpoint"], c["code"], c["provenance"]) for c in closes] == [
        ("client", 1000, "wire"),
        ("server", 1000, "wire"),
    ]
    (row,) = connections
    assert (row["handshake"], row["http_status"]) == ("complete", 101)
    assert (row["client_messages"], row["server_messages"]) == (1, 1)
    return row


def with_heads(request=build.REQUEST, answer=None):
    return finish(Conversation().upgrade(request, answer))


# ---- heads in every shape


@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize("case", [str.upper, str.lower, str.title])
def test_headers_in_any_order_and_case(turn, case):
    request = [f"{case(name)}: {value}" for name, value in (line.split(": ") for line in NEEDED[turn:] + NEEDED[:turn])]
    answer = [f"{case(name)}:{value}\t" for name, value in (line.split(": ") for line in GIVEN[turn:] + GIVEN[:turn])]
    row = check_whole(with_heads(head(GET, request), head(SWITCHING, answer)))
    assert (row["host"], row["path"], row["anomalies"]) == ("example.com", "/chat", [])


@pytest.mark.parametrize(
    ("first", "lines"),
    [
        (GET, [line.replace("websocket", "WebSocket") for line in NEEDED]),
        (GET, [line.replace("websocket", "h2c, WEBSOCKET/13") for line in NEEDED]),
        (GET, ["Upgrade: h2c", *NEEDED]),
        (GET, ["X-Upgrade: nothing", "Upgrade-Insecure-Requests: 1", *NEEDED]),
        (GET, ["X-Folded: one", "\ttwo", "  three", *NEEDED]),
        (GET, [line.replace("Key: ", "Key:\r\n ") for line in NEEDED]),
        (GET, [*NEEDED, "X-Colons: a:b:c", "no colon at all", ":", "X-Empty:"]),
        (GET, [*NEEDED, "X-Bare: \r in the middle", "X-Bytes: \xff\xfe\x80"]),
        ("get /chat http/1.1\r\n", NEEDED),
        ("GET http://example.com/chat HTTP/1.1\r\n", NEEDED),
        ("GET /chat HTTP/1.0\r\n", NEEDED),
        (GET[:-2] + "\n", NEEDED),
    ],
)
def test_requests_that_servers_answer(first, lines):
    row = check_whole(with_heads(head(first, lines)))
    assert row["host"] == "example.com"
    assert row["anomalies"] == []


@pytest.mark.parametrize("where", range(len(NEEDED)))
def test_a_line_feed_alone_ends_a_line(where):
    """RFC 9112 section 2.2: a recipient may take a single LF for a line terminator."""
    lines = [*NEEDED, "X-Last: of all"]
    request = GET + "".join(line + ("\n" if i == where else "\r\n") for i, line in enumerate(lines)) + "\r\n"
    assert check_whole(with_heads(request.encode()))["host"] == "example.com"


@pytest.mark.parametrize("end", ["\n\n", "\n\r\n", "\r\n\n"])
def test_a_head_that_ends_in_line_feeds(end):
    request = (GET + "\r\n".join(NEEDED)).encode() + end.encode()
    # h11 takes it
    server = h11.Connection(h11.SERVER)
    server.receive_data(request)
    assert isinstance(server.next_event(), h11.Request)
    check_whole(with_heads(request))


def test_the_upgrade_itself_folded():
    check_whole(with_heads(head(GET, [line.replace("Upgrade: ", "Upgrade:\r\n ") for line in NEEDED])))


@pytest.mark.parametrize(
    "lines",
    [
        [line for line in NEEDED if not line.startswith("Upgrade")],
        ["Upgrade: h2c" if line.startswith("Upgrade") else line for line in NEEDED],
        ["X-Upgrade: websocket" if line.startswith("Upgrade") else line for line in NEEDED],
    ],
)
def test_requests_without_the_upgrade_are_none(lines):
    talk = Conversation().open()
    talk.say(CLIENT, head(GET, lines))
    talk.say(SERVER, PAGE)
    talk.end()
    assert analyze(talk.pcap()) == ([], [])


# ---- segments


def test_split_at_every_boundary():
    request, answer = build.REQUEST, build.response()
    for at in range(1, len(request)):
        talk = Conversation().open()
        talk.say(CLIENT, request[:at])
        talk.say(CLIENT, request[at:])
        talk.say(SERVER, answer)
        check_whole(finish(talk))
    for at in range(1, len(answer)):
        talk = Conversation().open()
        talk.say(CLIENT, request)
        talk.say(SERVER, answer[:at])
        talk.say(SERVER, answer[at:])
        check_whole(finish(talk))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7])
def test_segments_of_a_few_bytes(step):
    talk = Conversation().open()
    streams = [
        (CLIENT, build.REQUEST + CLIENT_TEXT),
        (SERVER, build.response() + build.frame(1, b"hello") + build.close(1000)),
        (CLIENT, build.close(1000, mask=MASK)),
    ]
    for side, content in streams:
        for at in range(0, len(content), step):
            talk.say(side, content[at : at + step])
    talk.end()
    row = check_whole(talk)
    assert row["anomalies"] == []


def test_frames_in_the_segment_of_the_answer():
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    number = talk.say(SERVER, build.response() + build.frame(1, b"hello") + build.close(1000))
    talk.say(CLIENT, CLIENT_TEXT + build.close(1000, mask=MASK))
    talk.end()
    assert check_whole(talk)["server_close_record"] == number


@pytest.mark.parametrize("before", [False, True])
def test_client_that_does_not_wait(before):
    """Frames in the segment of the request, or right behind it: RFC 6455 section 4.1 forbids, networks do not."""
    talk = Conversation().open()
    if before:
        talk.say(CLIENT, build.REQUEST + CLIENT_TEXT)
    else:
        talk.say(CLIENT, build.REQUEST)
        talk.say(CLIENT, CLIENT_TEXT)
    talk.say(SERVER, build.response() + build.frame(1, b"hello"))
    talk.close(SERVER, 1000)
    talk.close(CLIENT, 1000)
    talk.end()
    check_whole(talk)


def test_client_frames_right_after_the_answer():
    talk = Conversation().upgrade()
    talk.say(CLIENT, CLIENT_TEXT + build.close(1000, mask=MASK))
    talk.say(SERVER, build.frame(1, b"hello") + build.close(1000))
    talk.end()
    check_whole(talk)


# ---- other HTTP on the same connection


def ordinary():
    yield "get", [(CLIENT, PLAIN_GET), (SERVER, PAGE)]
    yield "get, body apart", [(CLIENT, PLAIN_GET), (SERVER, PAGE[:-5]), (SERVER, PAGE[-5:])]
    yield "get in pieces", [(CLIENT, PLAIN_GET[:3]), (CLIENT, PLAIN_GET[3:]), (SERVER, PAGE[:9]), (SERVER, PAGE[9:])]
    yield "three gets", [(CLIENT, PLAIN_GET), (SERVER, PAGE)] * 3
    yield "three gets in one segment", [(CLIENT, PLAIN_GET * 3), (SERVER, PAGE * 3)]
    post = b"POST /form HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\na=bc"
    yield "post", [(CLIENT, post), (SERVER, PAGE)]
    yield "post, body apart", [(CLIENT, post[:-4]), (CLIENT, post[-4:]), (SERVER, PAGE)]
    yield (
        "post that expects",
        [(CLIENT, post[:-4]), (SERVER, b"HTTP/1.1 100 Continue\r\n\r\n"), (CLIENT, post[-4:]), (SERVER, PAGE)],
    )
    yield "head", [(CLIENT, b"HEAD" + PLAIN_GET[3:]), (SERVER, PAGE[:-5])]
    yield "options", [(CLIENT, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), (SERVER, b"HTTP/1.1 204 No Content\r\n\r\n")]
    yield "not found", [(CLIENT, PLAIN_GET), (SERVER, PAGE.replace(b"200 OK", b"404 Not Found"))]
    yield "binary body", [(CLIENT, PLAIN_GET), (SERVER, PAGE[:-5] + bytes(range(256))), (SERVER, b"\x81\x05hello")]


ORDINARY = [pytest.param(turns, id=name) for name, turns in ordinary()]


@pytest.mark.parametrize("turns", ORDINARY)
def test_ordinary_requests_first(turns):
    talk = Conversation().open()
    for side, content in turns:
        talk.say(side, content)
    request = talk.say(CLIENT, build.REQUEST)
    talk.say(SERVER, build.response())
    row = check_whole(finish(talk))
    assert (row["path"], row["anomalies"]) == ("/chat", [])
    assert row["opened"] == build.Conversation().ts_ns + (request + 1) * 1_000_000
    assert not row["connection"].endswith("-2")


@pytest.mark.parametrize("turns", ORDINARY)
def test_ordinary_requests_alone_make_no_row(turns):
    talk = Conversation().open()
    for side, content in turns:
        talk.say(side, content)
    talk.end()
    assert analyze(talk.pcap()) == ([], [])


def test_request_and_upgrade_in_one_segment():
    """The client pipelines; the answers come in order."""
    talk = Conversation().open()
    talk.say(CLIENT, PLAIN_GET + build.REQUEST)
    talk.say(SERVER, PAGE)
    talk.say(SERVER, build.response())
    closes, connections = analyze(finish(talk).pcap())
    assert [(c["handshake"], c["http_status"]) for c in connections] == [("complete", 101)]
    assert [c["code"] for c in closes] == [1000, 1000]


def test_post_with_the_upgrade_behind_its_body():
    talk = Conversation().open()
    talk.say(CLIENT, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" + build.REQUEST)
    talk.say(SERVER, PAGE)
    talk.say(SERVER, build.response())
    check_whole(finish(talk))


@pytest.mark.parametrize("interim", ["100 Continue", "103 Early Hints", "102 Processing", "199 Whatever"])
@pytest.mark.parametrize("apart", [False, True])
def test_interim_answers(interim, apart):
    first = f"HTTP/1.1 {interim}\r\nLink: </style.css>; rel=preload\r\n\r\n".encode()
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    for part in [first, build.response()] if apart else [first + build.response()]:
        talk.say(SERVER, part)
    check_whole(finish(talk))


# ---- rejected

REJECTIONS = [
    (401, b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"),
    (403, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nnot so"),
    (404, b"HTTP/1.0 404 Not Found\r\n\r\n<html>HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n</html>"),
    (426, b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"),
    (503, b"HTTP/1.1 503\r\nRetry-After: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    (200, PAGE),
    (302, b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n"),
    (500, b"HTTP/1.1 500 Internal Server Error\r\nServer: nginx\r\n\r\n"),
    (999, b"HTTP/1.1 999 Denied\r\n\r\n"),
]


def check_rejected(talk, status, number):
    (close,), (row,) = analyze(talk.pcap())
    assert (close["endpoint"], close["code"], close["provenance"]) == ("client", 1006, "synthesized")
    assert (close["evidence"], close["confidence"], close["received"]) == ("handshake_rejected", "high", "none")
    assert (close["record"], close["wire_code"], close["initiator"]) == (number, None, "none")
    assert (row["handshake"], row["http_status"]) == ("rejected", status)
    assert (row["client_view_code"], row["server_view_provenance"], row["server_view_evidence"]) == (1006, None, None)
    return row


def test_rejected_handshake_has_no_view_of_the_server():
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    talk.say(SERVER, PAGE)
    talk.rst(CLIENT)
    assert analyze(talk.pcap())[1][0]["server_view_code"] is None


@pytest.mark.parametrize(("status", "answer"), [pytest.param(*row, id=str(row[0])) for row in REJECTIONS])
@pytest.mark.parametrize("pieces", ["whole", "body apart", "in pieces"])
def test_rejected(status, answer, pieces):
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    end = answer.index(b"\r\n\r\n") + 4
    for part in {"whole": [], "body apart": [answer[:end]], "in pieces": [answer[:20], answer[20:end]]}[pieces]:
        number = talk.say(SERVER, part)
    if pieces == "whole":
        number = talk.say(SERVER, answer)
    elif answer[end:]:
        talk.say(SERVER, answer[end:])
    talk.end()
    row = check_rejected(talk, status, number)
    assert row["server_software"] == ("nginx" if status == 500 else None)


@pytest.mark.parametrize("ending", ["open", "rst", "client rst"])
def test_rejected_however_tcp_ends(ending):
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    number = talk.say(SERVER, REJECTIONS[1][1])
    if ending != "open":
        talk.rst(SERVER if ending == "rst" else CLIENT)
    check_rejected(talk, 403, number)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_rejected_then_tried_again_on_the_same_connection(times):
    talk = Conversation().open()
    for _ in range(times):
        talk.say(CLIENT, build.REQUEST.replace(b"/chat", b"/first"))
        talk.say(SERVER, REJECTIONS[0][1] + b"body")
    talk.say(CLIENT, build.REQUEST)
    talk.say(SERVER, build.response())
    closes, connections = analyze(finish(talk).pcap())
    connections.sort(key=lambda row: row["opened"])
    assert [row["handshake"] for row in connections] == ["rejected"] * times + ["complete"]
    assert [row["http_status"] for row in connections] == [401] * times + [101]
    assert [row["path"] for row in connections] == ["/first"] * times + ["/chat"]
    first = connections[0]["connection"]
    assert first == "20231114T221320.001000000Z-10.0.0.1:40000-10.0.0.2:80"
    assert [row["connection"] for row in connections[1:]] == [f"{first}-{n + 2}" for n in range(times)]
    codes = sorted((c["connection"], c["endpoint"], c["code"]) for c in closes)
    last = f"{first}-{times + 1}"
    rejected = [(row["connection"], "client", 1006) for row in connections[:-1]]
    assert codes == sorted([*rejected, (last, "client", 1000), (last, "server", 1000)])


# ---- answers that a client does not take

WRONG = build.response(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA=")


@pytest.mark.parametrize("ending", ["fin", "rst"])
@pytest.mark.parametrize(
    ("answer", "anomaly"),
    [
        (WRONG, "wrong_accept"),
        (head(SWITCHING, GIVEN[:2]), "wrong_accept"),
        (build.response(more="Sec-WebSocket-Protocol: never-asked-for\r\n"), "unrequested_subprotocol"),
        (build.response(more="Sec-WebSocket-Extensions: permessage-deflate\r\n"), "unrequested_extension"),
    ],
)
def test_answer_that_the_client_drops(answer, anomaly, ending):
    talk = Conversation().upgrade(answer=answer)
    if ending == "fin":
        talk.end(CLIENT)
    else:
        talk.rst(CLIENT)
    (close,), (row,) = analyze(talk.pcap())
    assert (row["handshake"], row["http_status"], row["anomalies"]) == ("failed", 101, [anomaly])
    assert (close["endpoint"], close["code"], close["evidence"]) == ("client", 1006, "handshake_failed")
    assert (close["provenance"], row["server_view_provenance"]) == ("synthesized", None)


@pytest.mark.parametrize("answer", [WRONG, build.response(more="Sec-WebSocket-Protocol: other\r\n")])
def test_answer_that_is_wrong_and_that_the_client_takes(answer):
    row = check_whole(with_heads(answer=answer))
    assert row["anomalies"] == ["wrong_accept" if answer is WRONG else "unrequested_subprotocol"]


@pytest.mark.parametrize(
    ("asked", "given", "anomalies"),
    [
        ("chat", "chat", []),
        ("mqtt, chat", "chat", []),
        ("mqtt,chat", "chat", []),
        ("chat", "CHAT", ["unrequested_subprotocol"]),
        ("superchat", "chat", ["unrequested_subprotocol"]),
    ],
)
def test_subprotocols(asked, given, anomalies):
    request = head(GET, [*NEEDED, f"Sec-WebSocket-Protocol: {asked}"])
    row = check_whole(with_heads(request, build.response(more=f"Sec-WebSocket-Protocol: {given}\r\n")))
    assert (row["subprotocol"], row["anomalies"]) == (given, anomalies)


@pytest.mark.parametrize("more", ["\x85", "\xa0", "\x1c"])
def test_no_other_white_space_than_that_of_ascii_is_cut_from_names(more):
    answer = Response(True, None, "chat" + more, None, accept_for("k"))
    request = Request("/", None, None, "k", "chat", None)
    assert check_answer(request, answer) == Anomaly.UNREQUESTED_SUBPROTOCOL
    assert check_answer(request._replace(protocols=f"a, chat{more} "), answer) == Anomaly.NONE


def test_subprotocols_and_extensions_over_several_headers():
    lines = ["Sec-WebSocket-Protocol: mqtt", "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: x-one"]
    request = head(GET, [*NEEDED, *lines, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"])
    answer = build.response(
        more="Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate;a=1, x-one\r\n"
    )
    row = check_whole(with_heads(request, answer))
    assert (row["subprotocol"], row["extensions"], row["anomalies"]) == ("chat", "permessage-deflate;a=1, x-one", [])


def test_columns():
    request = head(
        "GET /a/b?token=1#x HTTP/1.1\r\n",
        ["HOST: ws.example.com:8080", "User-Agent:  Mozilla/5.0 (X11; \xe9) ", *NEEDED[1:]],
    )
    answer = build.response(more="Server: nginx/1.25 \r\nsec-websocket-extensions: x-mine\r\n")
    row = check_whole(with_heads(request, answer))
    assert (row["host"], row["path"]) == ("ws.example.com:8080", "/a/b?token=1#x")
    assert (row["user_agent"], row["server_software"]) == ("Mozilla/5.0 (X11; \xe9)", "nginx/1.25")
    assert (row["subprotocol"], row["extensions"]) == (None, "x-mine")
    assert (row["client"], row["server"], row["transport"]) == ("10.0.0.1:40000", "10.0.0.2:80", "tcp")


# ---- no answer, no request


@pytest.mark.parametrize(
    ("ending", "code", "evidence"),
    [
        ("fin", 1006, "handshake_failed"),
        ("rst", 1006, "handshake_failed"),
        ("client fin", 1006, "handshake_failed"),
        ("client rst", 1006, "handshake_failed"),
        ("open", None, "open_end"),
        ("half an answer, fin", 1006, "handshake_failed"),
        ("half an answer", None, "open_end"),
    ],
)
def test_request_without_an_answer(ending, code, evidence):
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    if "half" in ending:
        talk.say(SERVER, build.response()[:40])
    if ending.endswith("rst"):
        talk.rst(CLIENT if "client" in ending else SERVER)
    elif ending.endswith("fin"):
        talk.end(CLIENT if "client" in ending else SERVER)
    (close,), (row,) = analyze(talk.pcap())
    assert (row["handshake"], row["http_status"]) == ("failed", None)
    assert (close["endpoint"], close["code"], close["evidence"]) == ("client", code, evidence)
    assert close["provenance"] == ("undetermined" if code is None else "synthesized")


@pytest.mark.parametrize("has_syn", [False, True])
def test_answer_without_its_request(has_syn):
    talk = Conversation()
    if has_syn:
        talk.open()
    talk.segment(CLIENT, build.REQUEST, lose=True)
    talk.say(SERVER, build.response())
    closes, connections = analyze(finish(talk).pcap())
    (row,) = connections
    assert (row["handshake"], row["http_status"]) == ("missing", 101)
    assert (row["host"], row["path"], row["client"]) == (None, None, "10.0.0.1:40000")
    assert [(c["endpoint"], c["code"], c["confidence"]) for c in closes] == [
        ("client", 1000, "medium"),
        ("server", 1000, "medium"),
    ]
    assert (row["client_messages"], row["server_messages"]) == (1, 1)


@pytest.mark.parametrize("later", [1, 2, 3, 4])
def test_request_captured_after_its_answer(later):
    talk = finish(Conversation().upgrade())
    moved = talk.packets.pop(3)
    talk.packets.insert(3 + later, moved)
    row = check_whole(talk)
    assert (row["host"], row["path"]) == ("example.com", "/chat")


@pytest.mark.parametrize("later", [1, 2])
def test_request_captured_after_its_answer_in_small_chunks(monkeypatch, later):
    monkeypatch.setattr(container, "FIRST_CHUNK_BYTES", 300)
    monkeypatch.setattr(container, "CHUNK_BYTES", 300)
    talk = finish(Conversation().upgrade())
    moved = talk.packets.pop(3)
    talk.packets.insert(3 + later, moved)
    assert check_whole(talk)["path"] == "/chat"


@pytest.mark.parametrize("chunk_bytes", [300, 1 << 20])
def test_an_empty_value_is_the_same_for_any_chunks(monkeypatch, chunk_bytes):
    monkeypatch.setattr(container, "FIRST_CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(container, "CHUNK_BYTES", chunk_bytes)
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    talk.say(SERVER, build.response().replace(b"\r\n", b"\r\nServer:\r\n", 1))
    _, (row,) = analyze(talk.pcap())
    assert row["server_software"] == ""


def test_answer_that_acknowledges_more_than_was_captured():
    """The request is known: the lost bytes behind it do not make a second connection."""
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    talk.segment(CLIENT, CLIENT_TEXT, lose=True)
    talk.say(SERVER, build.response())
    _, (row,) = analyze(talk.pcap())
    assert (row["handshake"], row["http_status"], row["path"]) == ("complete", 101, "/chat")


def test_heads_repeated_and_out_of_order():
    """Retransmitted pieces of both heads, one before its predecessor."""
    talk = Conversation().open()
    request, answer = build.REQUEST, build.response()
    cut = len(request) // 2
    talk.segment(CLIENT, request[cut:], seq=1001 + cut)
    talk.segment(CLIENT, request[:cut], seq=1001)
    talk.segment(CLIENT, request, seq=1001)
    talk.seq[CLIENT] = 1001 + len(request)
    talk.segment(SERVER, answer[70:], seq=5001 + 70)
    talk.segment(SERVER, answer[:90], seq=5001)
    talk.seq[SERVER] = 5001 + len(answer)
    check_whole(finish(talk))


# ---- limits


def run(packets):
    """The tracker at its end, and what it gave out."""
    loop, batches = tracker.Tracker(), []
    for chunk in container.Reader(io.BytesIO(build.pcap(packets)), "test").chunks():
        batches += loop.feed(chunk)
    batches += loop.finish()
    return loop, batches


@pytest.mark.parametrize("more", [-1, 0, 1, 5000])
@pytest.mark.parametrize("piece", [1400, 40_000])
def test_longest_head(more, piece):
    padding = "X: " + "a" * (MAX_HEAD_BYTES - len(build.REQUEST) - 5 + more)
    request = head(GET, [*NEEDED, padding])
    assert len(request) == MAX_HEAD_BYTES + more
    talk = Conversation().open()
    for at in range(0, len(request), piece):
        talk.say(CLIENT, request[at : at + piece])
    loop, _ = run(talk.packets)
    assert (loop.n_skipped_heads, loop.n_connections) == ((1, 0) if more > 0 else (0, 1))


def test_head_without_end_takes_no_more_memory():
    talk = Conversation().open()
    talk.say(CLIENT, GET.encode())
    for _ in range(40):
        talk.say(CLIENT, b"X: " + b"a" * 1398 + b"\r\n")
    loop, _ = run(talk.packets)
    assert loop.n_skipped_heads == 1
    assert len(loop._heads) == handshake.FIRST_HEAD_SLOTS * MAX_HEAD_BYTES


@pytest.mark.parametrize("n", [16, 17, 100])
def test_many_incomplete_heads_are_bounded(monkeypatch, n):
    monkeypatch.setattr(handshake, "MAX_HEAD_SLOTS", 16)
    packets = []
    for i in range(n):
        talk = Conversation(sport=10_000 + i, packets=packets).open()
        talk.say(CLIENT, build.REQUEST[:50])
    whole = finish(Conversation(sport=9_999, packets=packets).upgrade())
    loop, batches = run(whole.packets)
    assert len(loop._free_heads) == 16
    assert len(loop._heads) == 16 * MAX_HEAD_BYTES
    assert loop.n_skipped_heads > 0
    assert loop.n_connections == 1
    asked = ("/chat", "example.com", None, "dGhlIHNhbXBsZSBub25jZQ==", None, None)
    assert [request for batch in batches for request in batch.requests] == [asked]


@pytest.mark.parametrize("n", [16, 17, 100])
def test_dropped_heads_are_counted(monkeypatch, n):
    """At the limit all sixteen go at once, and there is room for sixteen again."""
    monkeypatch.setattr(handshake, "MAX_HEAD_SLOTS", 16)
    packets = []
    for i in range(n + 1):
        Conversation(sport=10_000 + i, packets=packets).open().say(CLIENT, build.REQUEST[:50])
    loop, _ = run(packets)
    assert loop.n_skipped_heads == n // 16 * 16


def test_heads_in_progress_survive_more_slots(monkeypatch):
    """Growth keeps what was gathered: thirty requests side by side, two places to begin with."""
    monkeypatch.setattr(handshake, "FIRST_HEAD_SLOTS", 2)
    talks = [Conversation(sport=10_000 + i).open() for i in range(30)]
    requests = [build.REQUEST.replace(b"/chat", f"/chat{i}".encode()) for i in range(30)]
    for at in range(0, 200, 50):
        for talk, request in zip(talks, requests, strict=True):
            talk.say(CLIENT, request[at : at + 50 if at < 150 else len(request)])
    for talk in talks:
        talk.say(SERVER, build.response())
        finish(talk)
    packets = [packet for talk in talks for packet in talk.packets]
    packets.sort(key=lambda packet: packet.ts_ns)
    closes, connections = analyze(build.pcap(packets))
    assert sorted(row["path"] for row in connections) == sorted(f"/chat{i}" for i in range(30))
    assert [close["code"] for close in closes] == [1000] * 60


# ---- what is not a handshake


@pytest.mark.parametrize(
    "words",
    [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", b"GET ", build.REQUEST, build.response(), PAGE],
)
@pytest.mark.parametrize("apart", [False, True])
def test_http_inside_frames_is_payload(words, apart):
    """Whole and split so that a segment begins with it."""
    talk = Conversation().upgrade()
    for side, opcode in ((CLIENT, 1), (SERVER, 2)):
        data = build.frame(opcode, words, mask=b"\0\0\0\0" if side == CLIENT else None)
        cut = len(data) - len(words)
        for part in (data[:cut], data[cut:]) if apart else (data,):
            talk.say(side, part)
    talk.close(SERVER, 1000)
    talk.close(CLIENT, 1000)
    talk.end()
    row = check_whole(talk)
    assert (row["path"], row["anomalies"]) == ("/chat", [])
    assert (row["client_bytes"], row["server_bytes"]) == (len(words), len(words))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("fake", [build.response(), build.response() + build.close(1000)])
def test_answer_inside_a_body_is_none(fake, apart):
    page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(fake)
    talk = Conversation().open()
    talk.say(CLIENT, PLAIN_GET)
    for part in (page, fake) if apart else (page + fake,):
        talk.say(SERVER, part)
    talk.end()
    assert analyze(talk.pcap()) == ([], [])


def test_request_inside_the_body_of_an_answer_is_none():
    page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(build.REQUEST)
    for parts in ([page + build.REQUEST], [page, build.REQUEST]):
        talk = Conversation().open()
        talk.say(CLIENT, PLAIN_GET)
        for part in parts:
            talk.say(SERVER, part)
        talk.end()
        assert analyze(talk.pcap()) == ([], [])


def test_request_inside_the_body_of_a_post_is_none():
    post = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(build.REQUEST)
    for parts in ([post + build.REQUEST], [post, build.REQUEST]):
        talk = Conversation().open()
        for part in parts:
            talk.say(CLIENT, part)
        talk.say(SERVER, PAGE)
        talk.end()
        assert analyze(talk.pcap()) == ([], [])


def test_answer_inside_the_body_of_a_rejection_is_none():
    talk = Conversation().open()
    talk.say(CLIENT, build.REQUEST)
    number = talk.say(SERVER, b"HTTP/1.1 403 Forbidden\r\n\r\n")
    talk.say(SERVER, build.response())
    talk.end()
    check_rejected(talk, 403, number)


@pytest.mark.parametrize(
    "streams",
    [
        [(CLIENT, b"\x16\x03\x01\x00\x05hello"), (SERVER, b"\x16\x03\x03\x00\x05hello")],
        [(SERVER, b"SSH-2.0-OpenSSH_9.2\r\n"), (CLIENT, b"SSH-2.0-OpenSSH_9.2\r\n")],
        [(SERVER, b"220 mail.example.com ESMTP\r\n"), (CLIENT, b"EHLO me\r\n")],
        [(CLIENT, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (SERVER, b"\0\0\0\4\0\0\0\0\0")],
        [(CLIENT, b"GETTING ON\r\n\r\n"), (SERVER, b"HTTP is fine\r\n\r\n")],
        [(CLIENT, b"G"), (SERVER, b"H")],
        [(CLIENT, b"GET / HTTP/1.1"), (SERVER, b"HTTP/1.1 101")],
        [(CLIENT, b"\x88\x82\0\0\0\0\x03\xe8"), (SERVER, b"\x88\x02\x03\xec")],
        [(SERVER, b"\xff\xfe\xfd"), (CLIENT, bytes(1000))],
    ],
)
@pytest.mark.parametrize("begins", [False, True])
def test_other_protocols_make_no_row(streams, begins):
    talk = Conversation()
    if begins:
        talk.open()
    for side, content in streams:
        talk.say(side, content)
    talk.end()
    assert analyze(talk.pcap()) == ([], [])


@given(
    st.lists(
        st.tuples(
            st.sampled_from([CLIENT, SERVER]),
            st.one_of(
                st.binary(min_size=1, max_size=60),
                st.sampled_from([PLAIN_GET, PAGE, build.REQUEST, build.response(), CLIENT_TEXT, build.close(1000)]),
            ),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_any_turns_are_read_without_an_error(turns, begins):
    talk = Conversation()
    if begins:
        talk.open()
    for side, content, lose in turns:
        talk.segment(side, content, lose=lose)
    talk.end()
    closes, connections = analyze(talk.pcap())
    n_views = sum(1 if row["handshake"] in ("rejected", "failed") else 2 for row in connections)
    assert len(closes) == n_views
    for row in connections:
        assert (row["handshake"] == "rejected") == (row["http_status"] is not None and row["http_status"] != 101)
    has_request = any(content == build.REQUEST for _, content, lose in turns if not lose)
    has_answer = any(content == build.response() for _, content, lose in turns if not lose)
    if not (has_request or has_answer):  # then frames, and some were not seen from the beginning
        assert all(row["handshake"] == "missing" and row["client_frames"] for row in connections)
        assert not connections or not begins or any(lose for _, _, lose in turns)


# ---- parsers


def test_an_answer_alone_has_nothing_to_match_after_pickling_either():
    answer = Response(True, None, "chat", "permessage-deflate", "abc")
    for request in (NO_REQUEST, pickle.loads(pickle.dumps(NO_REQUEST))):
        assert check_answers([request], [answer]) == [0]


def test_accept_of_the_rfc():
    """RFC 6455 section 1.3."""
    assert accept_for("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
names = st.text(TOKEN, min_size=1, max_size=12)
VISIBLE = [chr(c) for c in [*range(0x21, 0x7F), *range(0x80, 0x100)]]
words = st.text(VISIBLE, min_size=1, max_size=12)
values = st.builds(" ".join, st.lists(words, max_size=4))
USED = ("user-agent", "server", *(f"sec-websocket-{name}" for name in ("key", "accept", "protocol", "extensions")))
used = st.sampled_from([*USED, "User-Agent", "SERVER", "Sec-WebSocket-Key", "X-Server", "Servers", "Cookie"])
RESERVED = {"content-length", "transfer-encoding", "host", "connection", "upgrade"}
fields = st.lists(
    st.tuples(
        st.one_of(names, used).filter(lambda name: name.lower() not in RESERVED),
        st.sampled_from(["", " ", "\t", "  \t"]),
        st.lists(values, min_size=1, max_size=3),
        st.sampled_from(["", " ", "\t "]),
        st.sampled_from(["\r\n", "\r\n", "\n"]),
    ),
    max_size=8,
)


def squeeze(value):
    """A fold is one or more spaces (RFC 9112 section 5.2): how many is left open."""
    return re.sub(r"[ \t]+", " ", value).strip(" ")


@given(fields, st.booleans())
def test_parse_head_agrees_with_h11(rows, is_request):
    first = "GET /x HTTP/1.1" if is_request else "HTTP/1.1 200 OK"
    text = f"{first}\r\nHost: a\r\n"
    for name, before, parts, after, end in rows:
        text += f"{name}:{before}" + f"{end} ".join(parts) + after + end
    data = text.encode("latin-1") + b"\r\n"
    peer = h11.Connection(h11.SERVER if is_request else h11.CLIENT)
    if not is_request:
        peer.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    peer.receive_data(data)
    try:
        event = peer.next_event()
    except h11.RemoteProtocolError:
        return
    assert isinstance(event, h11.Request | h11.Response)
    theirs = {}
    for name, value in event.headers:
        if name.decode() in (*USED, "host"):
            theirs.setdefault(name.decode("latin-1"), []).append(squeeze(value.decode("latin-1")))
    line, ours = parse_head(data.decode("latin-1"))
    assert line == first
    assert {name: squeeze(value) for name, value in ours.items()} == {
        name: squeeze(", ".join(some)) for name, some in theirs.items()
    }


def copy(data, *, is_request):
    """What the kernel copies of a head, behind others or as the first; None where it leaves the head to Python."""
    behind, first = (copy_behind(data, n, is_request=is_request) for n in (10, 0))
    assert behind == first
    return first


def copy_behind(data, n_used, *, is_request):
    values, row = np.zeros(len(data) + n_used, np.uint8), np.zeros(1, OPENING)[0]
    row["begins"], row["ends"] = 77, 88  # of another head
    heads = np.frombuffer(b"other" + data + b"behind", np.uint8)
    used = field_line.copy_fields(heads, 5, 5 + len(data), is_request, values, n_used, row)
    text = values[:used].tobytes().decode("latin-1")
    if not row["is_plain"]:
        assert text[row["begins"][0] : row["ends"][0]] == data.decode("latin-1")
        return None
    row["status"] = 101 if data[9:12] == b"101" else 0
    cut = cut_requests if is_request else cut_responses
    (made,) = cut(text, np.array([row], OPENING))
    return made


@given(fields, st.booleans())
def test_plain_heads_say_the_same_to_the_kernel(rows, is_request):
    """What h11 reads out of a head `parse_head` does (above); what the kernel copies is that."""
    text = "GET /x HTTP/1.1\r\n" if is_request else "HTTP/1.1 101 X\r\n"
    for name, before, parts, after, end in rows:
        text += f"{name}:{before}" + f"{end} ".join(parts) + after + end
    copied = copy(text.encode("latin-1") + b"\r\n", is_request=is_request)
    parse = parse_request if is_request else parse_response
    names = [name.lower() for name, *_ in rows if name.lower() in USED]
    if len(set(names)) == len(names) and all(len(parts) == 1 for _, _, parts, *_ in rows):
        assert copied is not None
    assert copied in (None, parse(text + "\r\n"))


HEAD_BYTES = st.one_of(
    st.sampled_from([b"\r\n", b"\n", b" ", b"\t", b":", b"\r", b"Host", b"server", b"GET / "]), st.binary()
)


@given(st.lists(HEAD_BYTES, max_size=12).map(b"".join), st.booleans())
def test_any_head_says_the_same_to_the_kernel(data, is_request):
    for content in (data + b"\n\n", b"GET /a b\r\n" + data + b"\r\n\r\n"):
        parse = parse_request if is_request else parse_response
        assert copy(content, is_request=is_request) in (None, parse(content.decode("latin-1")))


PLAIN_REQUEST = (
    b"GET /chat?a=b HTTP/1.1\r\nhost: example.com\r\nUser-Agent:\tX/1 (y) \r\nServer: no\r\nCookie: a\r\n"
    b"SEC-WEBSOCKET-KEY: abc\r\nSec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions:\r\nHostess: no\r\n\r\n"
)
PLAIN_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nServer: nginx\r\nHost: no\r\nServer-Timing: no\r\n"
    b"Sec-WebSocket-Accept: xyz\r\nSec-WebSocket-Protocol: b\r\nSec-WebSocket-Key: no\r\n\r\n"
)


def test_a_plain_head_is_copied_field_by_field():
    asked = ("/chat?a=b", "example.com", "X/1 (y)", "abc", "a, b", "")
    assert copy(PLAIN_REQUEST, is_request=True) == asked
    assert copy(PLAIN_ANSWER, is_request=False) == (True, "nginx", "b", None, "xyz")
    # what is there and empty is told from what is not there, and repeated is repeated
    assert copy(b"GET  HTTP/1.1\r\nHost:\r\n\r\n", is_request=True) == ("", "", None, None, None, None)
    assert copy(b"HTTP/1.1 101 X\r\nServer:\r\n\r\n", is_request=False) == (True, "", None, None, None)
    repeated = b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept:\r\nSec-WebSocket-Accept: xyz\r\n\r\n"
    assert copy(repeated, is_request=False) is None


@pytest.mark.parametrize(
    "line",
    [
        b"Host : a\r\n",
        b"Host: a\r\nHost: b\r\n",
        b"Host: a\r\n b\r\n",
        b"User-Agent: " + b"x" * MAX_LINE_BYTES + b"\r\n",
    ],
    ids=["blank", "repeated", "folded", "long"],
)
def test_a_head_that_is_not_plain_is_left_to_python(line):
    assert copy(b"GET / HTTP/1.1\r\n" + line + b"\r\n", is_request=True) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed(data):
    for content in (data, b"GET / HTTP/1.1\r\n" + data, b"HTTP/1.1 101 X\r\n" + data):
        line, headers = parse_head(content.decode("latin-1"))
        assert "\n" not in line
        assert all(name == name.lower() and value == value.strip(" \t\r") for name, value in headers.items())
        request, answer = parse_request(content.decode("latin-1")), parse_response(content.decode("latin-1"))
        assert isinstance(check_answer(request, answer), int)


@given(
    st.lists(st.text("\r\nab", min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(0, 3),
    st.integers(0, 1),
)
def test_a_head_ends_at_its_first_empty_line_however_it_is_cut(pieces, off, slot):
    """Against a regular expression over the whole."""
    text = "".join(pieces).encode()
    found = re.search(rb"\n\r?\n", text)
    heads = np.zeros(2 * MAX_HEAD_BYTES, np.uint8)
    have, is_whole = 0, False
    for piece in pieces:
        data = np.frombuffer(bytes(off) + piece.encode() + b"\n", np.uint8)
        have, is_whole = handshake.copy_head(data, off, len(piece), heads, slot * MAX_HEAD_BYTES, have)
        if is_whole:
            break
    assert is_whole == (found is not None)
    assert have == (found.end() if found else len(text))
    there = heads[slot * MAX_HEAD_BYTES :][:have].tobytes()
    assert there == text[:have]
    assert int((heads != 0).sum()) == have


def test_a_head_fills_its_slot_and_no_more():
    data = np.frombuffer(b"ab\r\n\r\n", np.uint8)
    heads = np.zeros(2 * MAX_HEAD_BYTES, np.uint8)
    assert handshake.copy_head(data, 0, 6, heads, 0, MAX_HEAD_BYTES - 3) == (MAX_HEAD_BYTES, False)
    assert heads[MAX_HEAD_BYTES - 3 : MAX_HEAD_BYTES].tobytes() == b"ab\r"
    assert not heads[MAX_HEAD_BYTES:].any()


@given(st.binary(max_size=30) | st.text("\nUuPpGg:[`{@Zz", max_size=30).map(str.encode), st.data())
def test_found_as_python_finds_it(content, draw):
    start = draw.draw(st.integers(0, len(content)))
    end = draw.draw(st.integers(0, len(content)))
    pattern = draw.draw(st.sampled_from([b"\nup", b"up", b"u", b"\n", b":", b"z", b"{", b"[", b"`"]))
    at = handshake.find(np.frombuffer(content + b"x", np.uint8), start, end, np.frombuffer(pattern, np.uint8))
    assert at == (content.lower().find(pattern, start, end) if start <= end else -1)
