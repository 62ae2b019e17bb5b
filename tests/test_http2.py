"""HTTP/2 connections, read from their bytes: the h2 package makes them and says what was in them; rare ones by hand."""

import pickle
import random
import re
import struct
import subprocess
import time
import tomllib
import tracemalloc
from xml.etree import ElementTree as ET

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import oracle
import pytest
from conftest import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import http2_frame, http2_head
from analyzer.capture.http2 import MAX_FADING_STREAMS, MAX_STREAMS, Http2
from analyzer.capture.http2_event import Answered, Data, Ended, GoneAway, Lost, Missed, Requested, Reset
from analyzer.capture.mark import Mark

CLIENT, SERVER = 0, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MARK = Mark(1, 2, 3, 4)
ASK = (
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":path", "/chat"),
    (":authority", "example.com"),
    ("sec-websocket-version", "13"),
    ("user-agent", "Tester/1"),
)
GET = ((":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "example.com"))


# ---- two ends by h2, and what they say happened


class Talk:
    """An h2 client and server in memory: `sent` holds (direction, bytes), `said` what the receiving end made of it."""

    def __init__(self):
        self.ends = []
        for is_client in (True, False):
            config = h2.config.H2Configuration(
                client_side=is_client, header_encoding=None, validate_inbound_headers=False
            )
            self.ends.append(h2.connection.H2Connection(config=config))
        self.sent, self.said, self.websockets = [], ([], []), set()
        self.ends[SERVER].local_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        for end in self.ends:
            end.initiate_connection()
        self.deliver(CLIENT)
        self.deliver(SERVER)
        self.deliver(CLIENT)

    def deliver(self, direction):
        data = self.ends[direction].data_to_send()
        if data:
            self.sent.append((direction, data))
            for event in self.ends[1 - direction].receive_data(data):
                self.say(direction, event)

    def say(self, direction, event):
        said = self.said[direction]
        stream = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.RequestReceived):
            headers = dict(event.headers)
            if headers[b":method"] == b"CONNECT" and headers.get(b":protocol") == b"websocket":
                self.websockets.add(stream)
                said.append(("requested", stream, headers[b":path"].decode()))
        elif isinstance(event, h2.events.ConnectionTerminated):
            said.append(("gone", event.last_stream_id, int(event.error_code)))
        elif stream not in self.websockets:
            return
        elif isinstance(event, h2.events.ResponseReceived):
            said.append(("answered", stream, int(dict(event.headers)[b":status"])))
        elif isinstance(event, h2.events.DataReceived):
            add_data(said, stream, event.data)
        elif isinstance(event, h2.events.StreamEnded):
            said.append(("ended", stream))
        elif isinstance(event, h2.events.StreamReset):
            said.append(("reset", stream, int(event.error_code)))

    def ask(self, headers=ASK, **more):
        stream = self.ends[CLIENT].get_next_available_stream_id()
        self.ends[CLIENT].send_headers(stream, headers, **more)
        self.deliver(CLIENT)
        return stream

    def answer(self, stream, status=200, **more):
        self.ends[SERVER].send_headers(stream, [(":status", str(status)), ("server", "test")], **more)
        self.deliver(SERVER)

    def open(self):
        stream = self.ask()
        self.answer(stream)
        return stream

    def send(self, direction, stream, payload, **more):
        self.ends[direction].send_data(stream, payload, **more)
        self.deliver(direction)
        self.ends[1 - direction].acknowledge_received_data(max(1, len(payload)), stream)
        self.deliver(1 - direction)

    def reset(self, direction, stream, code=8):
        self.ends[direction].reset_stream(stream, code)
        self.deliver(direction)


def add_data(said, stream, payload):
    """Pieces of data that follow one another are one."""
    if said and said[-1][:2] == ("data", stream):
        payload = said.pop()[2] + payload
    if payload:
        said.append(("data", stream, payload))


def tell(events, data, said=None):
    """Our events in the words of `Talk.say`, by direction."""
    said = ([], []) if said is None else said
    for event in events:
        assert getattr(event, "mark", MARK) == MARK
        match event:
            case Requested():
                said[CLIENT].append(("requested", event.stream, event.request.path))
            case Answered():
                said[SERVER].append(("answered", event.stream, event.status))
            case Data():
                assert 0 <= event.off <= event.off + event.n_bytes <= len(data)
                assert event.n_bytes > 0
                add_data(said[event.direction], event.stream, bytes(data[event.off : event.off + event.n_bytes]))
            case Ended():
                said[event.direction].append(("ended", event.stream))
            case Reset():
                said[event.direction].append(("reset", event.stream, event.code))
            case GoneAway():
                said[event.direction].append(("gone", event.last_stream, event.code))
            case Lost() | Missed():
                said[event.direction].append((type(event).__name__.lower(), *event[:1], *event[2:]))
    return said


def read_all(sent, connection=None, said=None):
    connection = Http2() if connection is None else connection
    for direction, data in sent:
        said = tell(connection.read(direction, data, MARK), data, said)
    return said


def random_talk(rng, steps):
    """Streams opened, refused, used and ended in any order, ordinary requests in between."""
    talk = Talk()
    live = {}
    for _ in range(steps):
        what = rng.random()
        if what < 0.2 or not live:
            extra = [(f"x-{rng.randrange(9)}", "v" * rng.randrange(60)) for _ in range(rng.randrange(4))]
            if rng.random() < 0.3:
                stream = talk.ask([*GET, *extra], end_stream=True)
                talk.answer(stream)
                talk.send(SERVER, stream, b"page" * rng.randrange(100), end_stream=True)
                continue
            stream = talk.ask([*ASK, *extra])
            if rng.random() < 0.15:
                talk.answer(stream, rng.choice((403, 404, 500)), end_stream=True)
                continue
            if rng.random() < 0.2:
                talk.ends[SERVER].send_headers(stream, [(":status", "103")])
                talk.deliver(SERVER)
            talk.answer(stream, rng.choice((200, 200, 201)))
            live[stream] = {CLIENT, SERVER}
            continue
        stream = rng.choice(sorted(live))
        direction = rng.choice(sorted(live[stream]))
        if what < 0.8:
            pad = rng.choice((None, None, 0, 1, 255))
            talk.send(direction, stream, rng.randbytes(rng.choice((0, 1, 9, 100, 3000))), pad_length=pad)
        elif what < 0.9:
            if rng.random() < 0.5:
                talk.send(direction, stream, rng.randbytes(4), end_stream=True)
            else:
                talk.ends[direction].send_headers(stream, [("x-trailer", "1")], end_stream=True)
                talk.deliver(direction)
            live[stream].discard(direction)
        else:
            talk.reset(direction, stream, rng.randrange(16))
            live[stream] = set()
        if not live[stream]:
            del live[stream]
    if rng.random() < 0.5:
        talk.ends[SERVER].close_connection(rng.randrange(14), additional_data=b"bye")
        talk.deliver(SERVER)
    return talk


@pytest.mark.parametrize("seed", range(20))
def test_what_h2_says(seed):
    talk = random_talk(random.Random(seed), 60)
    assert read_all(talk.sent) == talk.said


@given(st.integers(0, 2**32), st.sampled_from((1, 2, 7, 40, 5000)))
@settings(max_examples=40)
def test_any_splitting_gives_the_same(seed, most):
    rng = random.Random(seed)
    talk = random_talk(rng, 25)
    connection, said = Http2(), None
    for direction, data in talk.sent:
        at = 0
        while at < len(data):
            piece = data[at : at + rng.randint(1, most)]
            at += len(piece)
            said = tell(connection.read(direction, memoryview(piece), MARK), piece, said)
            if rng.random() < 0.02:
                connection = pickle.loads(pickle.dumps(connection))
    assert said == talk.said


# ---- the sample captures, and what tshark says of them


def run_tshark(sample, *arguments):
    """The tool's output on a sample; `PORT` and `PROTOCOL` stand for those of the conversation."""
    about = tomllib.loads((SAMPLES / f"{sample}.toml").read_text(encoding="utf-8"))
    port = about["connections"][0]["connection"]["host"].rpartition(":")[2]
    command = ["tshark", "-r", str(SAMPLES / f"{sample}.pcapng")]
    if "keys" in about:
        command += ["-d", f"tcp.port=={port},tls", "-o", f"tls.keylog_file:{SAMPLES / about['keys']}"]
    else:
        command += ["-d", f"tcp.port=={port},http2"]
    return about, int(port), subprocess.run([*command, *arguments], check=True, capture_output=True).stdout


def shown(node, name):
    found = node.find(f".//field[@name='{name}']")
    return None if found is None else found.get("show")


def what_tshark_says(sample):
    """Which TCP connection it is, and what either side sent on streams of WebSockets, in the words of `Talk.say`."""
    about, port, output = run_tshark(sample, "-T", "pdml", "-Y", "http2")
    said, websockets, connection = ([], []), {row["stream"] for row in about["connections"]}, set()
    for packet in ET.fromstring(output).iter("packet"):
        direction = SERVER if shown(packet, "tcp.srcport") == str(port) else CLIENT
        for frame in packet.iterfind(".//proto[@name='http2']/field[@name='http2.stream']"):
            if shown(frame, "http2.type") is None:
                continue  # the preface
            kind, stream = int(shown(frame, "http2.type")), int(shown(frame, "http2.streamid"))
            if kind == 7:
                last = int(shown(frame, "http2.goaway.last_stream_id"))
                said[direction].append(("gone", last, int(shown(frame, "http2.goaway.error"))))
            if stream not in websockets:
                continue
            connection.add(shown(packet, "tcp.stream"))
            if kind == 0:
                data = frame.find(".//field[@name='http2.data.data']")
                add_data(said[direction], stream, bytes.fromhex(data.get("value") or "") if data is not None else b"")
            elif kind == 1 and direction == CLIENT:
                said[direction].append(("requested", stream, shown(frame, "http2.headers.path")))
            elif kind == 1:
                said[direction].append(("answered", stream, int(shown(frame, "http2.headers.status"))))
            elif kind == 3:
                said[direction].append(("reset", stream, int(shown(frame, "http2.rst_stream.error"))))
            if kind in (0, 1) and int(shown(frame, "http2.flags"), 0) & 1:
                said[direction].append(("ended", stream))
    (number,) = connection
    return about, number, said


def bytes_of(sample, number):
    """The bytes of a connection in pieces, decrypted by tshark where it carries TLS, in the order of capture."""
    about, port, _ = run_tshark(sample, "-c", "1")
    _, _, output = run_tshark(sample, "-q", "-z", f"follow,{'tls' if 'keys' in about else 'tcp'},raw,{number}")
    lines = output.decode().splitlines()
    first = next(line for line in lines if line.startswith("Node 0: "))
    first_is_server = first.endswith(f":{port}")
    for line in lines:
        if re.fullmatch(r"\t?(?:[0-9a-f]{2})+", line):
            yield (SERVER if line.startswith("\t") != first_is_server else CLIENT), bytes.fromhex(line)


def without_resets_of_what_is_over(said):
    """Without resets by a side that had ended or reset the stream: Node also resets what both sides have ended."""
    over, kept = set(), []
    for event in said:
        if event[0] != "reset" or event[1] not in over:
            kept.append(event)
        if event[0] in ("ended", "reset"):
            over.add(event[1])
    return kept


@pytest.mark.needs_tshark
@pytest.mark.parametrize("sample", ["h2c-streams", "h2c-resets", "h2c-goaway", "h2-chromium"])
def test_samples_are_read_as_tshark_reads_them(sample, tshark):
    about, number, said = what_tshark_says(sample)
    sent = list(bytes_of(sample, number))
    connection = Http2()
    found = read_all(sent, connection)
    assert connection.offers_connect is True
    assert len(about["connections"]) == connection.n_streams
    known = {event[1] for event in said[CLIENT] if event[0] == "requested"}
    assert known == {row["stream"] for row in about["connections"]}
    for direction in (CLIENT, SERVER):
        assert without_resets_of_what_is_over(found[direction]) == without_resets_of_what_is_over(said[direction])
    for row in about["connections"]:
        # and what is in the payloads is what the views say, which were written by hand
        stream, views = row["stream"], {view["endpoint"]: view for view in row.get("expect", ())}
        for direction, reader in ((SERVER, "client"), (CLIENT, "server")):
            payload = b"".join(event[2] for event in found[direction] if event[:2] == ("data", stream))
            side = oracle.decode(payload) if row["connection"]["handshake"] == "complete" else oracle.Side()
            if reader in views:
                assert (side.close, side.code) == (views[reader]["received"], views[reader].get("wire_code"))


@pytest.mark.parametrize("metadata", sorted(SAMPLES.glob("h2*.toml")), ids=lambda path: path.stem)
def test_the_apis_of_the_samples_agree_or_the_difference_is_explained(metadata):
    for row in tomllib.loads(metadata.read_text(encoding="utf-8"))["connections"]:
        views = {view["endpoint"]: view for view in row.get("expect", ())}
        for side, api in row["api"].items():
            if "code" in api and api["code"] != views[side].get("code"):
                assert row["difference"][side]["why"]


# ---- frames by hand


def raw(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


SETTINGS = raw(4, 0, 0)
OPENING = ((CLIENT, PREFACE + SETTINGS), (SERVER, raw(4, 0, 0, struct.pack(">HI", 8, 1))))


class Made:
    """A connection to which frames are given one by one; HPACK by the hpack package's encoder."""

    def __init__(self):
        self.connection = Http2()
        self.encoders = hpack.Encoder(), hpack.Encoder()
        self.said = read_all(OPENING, self.connection)

    def block(self, direction, headers):
        return self.encoders[direction].encode(headers)

    def give(self, direction, *frames):
        """The events of these frames, which come in one piece."""
        return self.connection.read(direction, b"".join(frames), MARK)

    def open(self, stream=1):
        (asked,) = self.give(CLIENT, raw(1, 4, stream, self.block(CLIENT, ASK)))
        (answered,) = self.give(SERVER, raw(1, 4, stream, self.block(SERVER, [(":status", "200")])))
        assert (type(asked), type(answered), answered.status) == (Requested, Answered, 200)
        return self


def test_what_a_request_and_its_answer_say():
    made = Made()
    asked = [*ASK, ("sec-websocket-protocol", "chat, other"), ("sec-websocket-extensions", "permessage-deflate")]
    (event,) = made.give(CLIENT, raw(1, 4, 1, made.block(CLIENT, asked)))
    assert event.request == ("/chat", "example.com", "Tester/1", None, "chat, other", "permessage-deflate")
    given = [(":status", "200"), ("server", "a/1"), ("sec-websocket-protocol", "chat")]
    (event,) = made.give(SERVER, raw(1, 4, 1, made.block(SERVER, given)))
    assert (event.status, event.response) == (200, (True, "a/1", "chat", None, None))
    assert made.connection.offers_connect is True
    refused = Made()
    refused.give(CLIENT, raw(1, 4, 1, refused.block(CLIENT, ASK)))
    answer, end = refused.give(SERVER, raw(1, 5, 1, refused.block(SERVER, [(":status", "403")])))
    assert (answer.status, answer.response.is_switch) == (403, False)
    assert end == Ended(1, SERVER, MARK)


@pytest.mark.parametrize(
    "headers",
    [
        GET,
        [*ASK[:1], (":authority", "example.com:443")],
        [*ASK[:1], (":protocol", "connect-udp"), *ASK[2:]],
        [(":method", "GET"), *ASK[1:]],
    ],
)
def test_what_is_no_websocket_gives_no_events(headers):
    made = Made()
    assert made.give(CLIENT, raw(1, 4, 1, made.block(CLIENT, headers)), raw(0, 1, 1, b"body")) == []
    assert made.give(SERVER, raw(1, 4, 1, made.block(SERVER, [(":status", "200")])), raw(3, 0, 1, bytes(4))) == []
    made.open(3)  # and the tables are still right


def test_padding_and_priority_of_headers():
    made = Made()
    block = made.block(CLIENT, ASK)
    framed = b"\x07" + b"\x80\x00\x00\x00\xff" + block + bytes(7)
    (event,) = made.give(CLIENT, raw(1, 0x2C, 1, framed))
    assert event.request.path == "/chat"
    (event,) = made.give(CLIENT, raw(1, 0x24, 3, b"\x80\x00\x00\x00\xff" + made.block(CLIENT, ASK)))
    assert event.request.path == "/chat"


@pytest.mark.parametrize("n", [1, 3, 10])
def test_continuation_with_the_ends_flag_on_the_first_frame(n):
    made = Made()
    block = made.block(CLIENT, ASK)
    parts = [block[i : i + n] for i in range(0, len(block), n)]
    frames = [raw(1, 1, 1, parts[0]), *(raw(9, 0, 1, part) for part in parts[1:]), raw(9, 0, 1), raw(9, 4, 1)]
    assert [type(event) for event in made.give(CLIENT, *frames)] == [Requested, Ended]


def test_nothing_may_come_between_the_frames_of_a_block():
    made = Made().open()
    block = made.block(CLIENT, ASK)
    events = made.give(CLIENT, raw(1, 0, 3, block[:5]), raw(0, 0, 1, b"data"), raw(9, 4, 3, block[5:]))
    assert [type(event) for event in events] == [Data]
    assert made.give(CLIENT, raw(1, 4, 5, made.block(CLIENT, ASK))) == []
    assert made.connection.n_unread_requests == 1


def test_push_promises_keep_the_tables_right():
    made = Made().open()
    promised = [*GET, ("x-new", "one")]
    for stream in (2, 4):
        payload = b"\x03" + struct.pack(">I", stream) + made.block(SERVER, promised) + bytes(3)
        assert made.give(SERVER, raw(5, 12, 1, payload)) == []
        assert made.give(SERVER, raw(1, 4, stream, made.block(SERVER, [(":status", "200"), ("x-new", "one")]))) == []
    made.open(3)


def test_interim_answers_are_no_answers():
    made = Made()
    made.give(CLIENT, raw(1, 4, 1, made.block(CLIENT, ASK)))
    for status in ("100", "103"):
        assert made.give(SERVER, raw(1, 4, 1, made.block(SERVER, [(":status", status)]))) == []
    (event,) = made.give(SERVER, raw(1, 4, 1, made.block(SERVER, [(":status", "204")])))
    assert event.status == 204


def test_frames_of_unknown_types_and_of_any_size_are_walked_over():
    made = Made().open()
    huge = raw(0xEE, 0xFF, 1, bytes(2**24 - 1))
    (event,) = made.give(CLIENT, raw(0xF0, 0, 0), huge, raw(8, 0, 1, bytes(4)), raw(0, 0, 1, b"x"))
    assert (event.stream, event.n_bytes) == (1, 1)
    large = b"y" * (2**24 - 1)
    (event,) = made.give(SERVER, raw(0, 0, 1, large))
    assert event.n_bytes == len(large)


def test_a_reset_names_its_code():
    for code, name in ((8, "CANCEL"), (7, "REFUSED_STREAM"), (0, "NO_ERROR"), (13, "HTTP_1_1_REQUIRED"), (99, "0x63")):
        assert Made().open().give(SERVER, raw(3, 0, 1, struct.pack(">I", code))) == [Reset(1, SERVER, name, code, MARK)]


def test_goaway_with_the_reserved_bit_and_debug_data():
    events = Made().open().give(SERVER, raw(7, 0, 0, struct.pack(">II", 0x80000001, 11) + b"calm down"))
    assert events == [GoneAway(SERVER, 1, 11, "ENHANCE_YOUR_CALM", b"calm down", MARK)]


def test_what_comes_after_a_reset_of_the_other_side_is_told():
    made = Made().open()
    made.give(CLIENT, raw(3, 0, 1, struct.pack(">I", 8)))
    events = made.give(SERVER, raw(0, 0, 1, b"late"), raw(3, 0, 1, bytes(4)), raw(0, 0, 1, b"never"))
    assert [type(event) for event in events] == [Data, Reset]
    assert made.give(CLIENT, raw(0, 0, 1, b"never")) == []


def test_padding_longer_than_its_frame_loses_the_stream():
    made = Made().open()
    assert made.give(CLIENT, raw(0, 8, 1, b"\x09data")) == [Lost(1, CLIENT)]
    assert [type(event) for event in made.give(CLIENT, raw(0, 8, 1, b"\x01data\x00"))] == [Data]


def test_what_comes_after_an_end_is_not_told():
    made = Made().open()
    assert made.give(CLIENT, raw(0, 1, 1, b"")) == [Ended(1, CLIENT, MARK)]
    assert made.give(CLIENT, raw(0, 0, 1, b"whole"), raw(0, 8, 1, b"\x01padded\0"), raw(0, 1, 1, b"")) == []
    assert [type(event) for event in made.give(SERVER, raw(0, 1, 1, b"data"))] == [Data, Ended]
    # both sides are silent: neither the stream nor its number comes back
    assert made.give(SERVER, raw(3, 0, 1, bytes(4))) == []
    assert made.give(CLIENT, raw(1, 4, 1, made.block(CLIENT, ASK)), raw(0, 0, 1, b"data")) == []


def test_the_reserved_bit_of_a_stream_is_passed_over():
    made = Made().open()
    events = made.give(CLIENT, raw(0, 0, 0x80000001, b"whole"), raw(0, 8, 0x80000001, b"\0padded"))
    assert [(event.stream, event.n_bytes) for event in events] == [(1, 5), (1, 6)]


def test_who_sends_the_preface_is_the_client():
    for first in (0, 1):
        for supposed in (None, 0, 1):
            connection = Http2(supposed)
            connection.read(1 - first, SETTINGS, MARK)
            connection.read(first, PREFACE[:10], MARK)
            connection.read(first, PREFACE[10:] + SETTINGS, MARK)
            (event,) = connection.read(first, raw(1, 4, 1, hpack.Encoder().encode(ASK)), MARK)
            assert (connection.client, type(event)) == (first, Requested)


def test_a_preface_or_its_beginning_is_known():
    assert all(Http2.is_preface(PREFACE[:n]) for n in range(1, 25))
    assert Http2.is_preface(memoryview(PREFACE + b"more"))
    assert not any(map(Http2.is_preface, (b"", b"POST", b"GET", PREFACE[:-1] + b"\r", b"\0\0\0\4")))


def test_settings_that_allow_extended_connect_or_do_not():
    assert Http2().offers_connect is None
    for payload, offers in ((b"", False), (struct.pack(">HI", 8, 0), False), (struct.pack(">HIHI", 3, 9, 8, 1), True)):
        connection = Http2()
        connection.read(CLIENT, PREFACE + SETTINGS, MARK)
        connection.read(SERVER, raw(4, 0, 0, payload), MARK)
        assert connection.offers_connect is offers


def test_a_larger_table_is_used_where_the_peer_allows_it():
    made = Made()
    made.give(SERVER, raw(4, 0, 0, struct.pack(">HI", 1, 200_000)))
    made.encoders[CLIENT].header_table_size = 200_000
    for i in range(60):  # 180,000 bytes of table
        made.give(CLIENT, raw(1, 5, 2 * i + 1, made.block(CLIENT, [*GET, (f"x-{i}", "v" * 3000)])))
    many = [*ASK, *((f"x-{i}", "v" * 3000) for i in range(20))]
    assert [type(e) for e in made.give(CLIENT, raw(1, 4, 999, made.block(CLIENT, many)))] == [Requested]


# ---- missing bytes


def test_missing_bytes_inside_a_payload_are_stepped_over():
    made = Made().open()
    made.give(CLIENT, raw(0, 1, 1, b"x" * 100)[:29])
    assert made.connection.miss(CLIENT, 50) == [Missed(1, CLIENT, 50)]
    events = made.connection.read(CLIENT, b"x" * 30, MARK)
    assert events == [Data(1, CLIENT, 0, 30, MARK), Ended(1, CLIENT, MARK)]
    made.open(3)  # no header block is missing


def test_missing_bytes_to_the_end_of_a_payload():
    made = Made().open()
    made.give(CLIENT, raw(0, 1, 1, b"x" * 100)[:29])
    assert made.connection.miss(CLIENT, 80) == [Missed(1, CLIENT, 80)]
    assert made.give(CLIENT, raw(6, 0, 0, bytes(8))) == [Ended(1, CLIENT, MARK)]


def test_missing_bytes_of_a_padded_payload():
    made = Made().open()
    frame = raw(0, 9, 1, b"\x0a" + b"x" * 100 + bytes(10))
    made.give(CLIENT, frame[:30])
    assert made.connection.miss(CLIENT, 50) == [Missed(1, CLIENT, 50)]
    assert made.give(CLIENT, frame[80:]) == [Data(1, CLIENT, 0, 30, MARK), Ended(1, CLIENT, MARK)]


def test_missing_bytes_in_padding_and_where_it_is_told():
    made = Made().open()
    made.give(CLIENT, raw(0, 8, 1, b"\x0adata" + bytes(10))[:16])
    assert made.connection.miss(CLIENT, 5) == []
    made.give(CLIENT, bytes(3))
    made.give(CLIENT, raw(0, 8, 1, b"\x0adata" + bytes(10))[:9])
    assert made.connection.miss(CLIENT, 3) == [Lost(1, CLIENT)]
    assert made.give(CLIENT, b"ta" + bytes(10)) == []
    assert [type(event) for event in made.give(CLIENT, raw(0, 0, 1, b"next"))] == [Data]


def test_missing_bytes_of_a_header_block_cost_what_follows_in_that_direction():
    made = Made().open()
    frame = raw(1, 4, 3, made.block(CLIENT, ASK))
    made.give(CLIENT, frame[:12])
    assert made.connection.miss(CLIENT, len(frame) - 12) == []
    events = made.give(CLIENT, raw(0, 0, 1, b"goes on"), raw(1, 4, 5, made.block(CLIENT, ASK)))
    assert [type(event) for event in events] == [Data]
    assert made.connection.n_unread_requests == 2


def test_header_blocks_behind_an_unknown_gap_are_not_read():
    """A header block may have been in it, and with it an entry of the table that what follows counts from."""
    made = Made().open()
    made.connection.miss(CLIENT, 100)
    assert made.give(CLIENT, SETTINGS, raw(6, 0, 0, bytes(8)), raw(1, 4, 3, made.block(CLIENT, ASK))) == []
    assert (made.connection.n_unread_requests, made.connection.n_streams) == (1, 1)


def test_a_client_without_a_preface_began_earlier():
    connection = Http2(CLIENT)
    block = hpack.Encoder().encode(ASK)
    assert connection.read(CLIENT, SETTINGS + raw(4, 1, 0) + raw(1, 4, 1, block), MARK) == []
    assert (connection.n_unread_requests, connection.n_lost_steps) == (1, 1)
    connection = Http2()
    assert connection.read(CLIENT, PREFACE[:9] + b"is something else", MARK) == []
    assert connection.n_lost_steps == 1


def test_a_server_that_does_not_begin_with_settings_began_earlier():
    connection, encoder = Http2(), hpack.Encoder()
    connection.read(CLIENT, PREFACE + SETTINGS + raw(1, 4, 1, encoder.encode(ASK)), MARK)
    answer = raw(1, 4, 1, hpack.Encoder().encode([(":status", "200")]))
    begins = b"\x00\x00\x03tail" + answer + raw(0, 0, 1, b"\x88\x00")
    events = connection.read(SERVER, begins, MARK)
    assert events == [Lost(1, SERVER), Answered(1, None, None, MARK), Data(1, SERVER, len(begins) - 2, 2, MARK)]


@pytest.mark.parametrize("allowed", [None, 40_000])
def test_frames_larger_than_usual_are_believed_where_the_receiver_allows_them(allowed):
    made = Made().open()
    if allowed:
        made.give(CLIENT, raw(4, 0, 0, struct.pack(">HI", 5, allowed)))
    made.connection.miss(SERVER, -1)
    events = made.give(SERVER, b"\xff" * 50 + raw(0, 0, 1, bytes(30_000)) + raw(0, 0, 1, b"end"))
    assert [(event.off, event.n_bytes) for event in events] == ([(59, 30_000)] if allowed else []) + [(30_068, 3)]


@pytest.mark.parametrize(
    ("worth", "header"),
    [
        # by RFC 9113 section 6: which flags, lengths and streams a type may have
        (2, (4, 0, 0, 1)),
        (1, (4, 0, 0, 3)),
        (0, (4, 0, 0, 0)),
        (0, (4, 0, 4, 1)),
        (0, (4, 0, 0, 2)),
        (0, (0, 0, 0, 1)),
        (2, (0, 0, 1, 1)),
        (0, (0, 0, 8, 1)),
        (0, (16385, 0, 0, 1)),
        (0, (4, 0, 0, 0x80000001)),
        (0, (4, 0, 0, 1_000_001)),
        (1, (9, 1, 0x2D, 3)),
        (0, (0, 1, 4, 3)),
        (0, (9, 1, 4, 2)),
        (0, (9, 1, 2, 3)),
        (1, (5, 2, 0, 3)),
        (0, (4, 2, 0, 3)),
        (2, (4, 3, 0, 3)),
        (0, (4, 3, 1, 3)),
        (0, (4, 3, 0, 0)),
        (2, (12, 4, 0, 0)),
        (2, (0, 4, 1, 0)),
        (1, (0, 4, 0, 0)),
        (0, (6, 4, 1, 0)),
        (0, (7, 4, 0, 0)),
        (0, (6, 4, 0, 1)),
        (1, (9, 5, 4, 1)),
        (2, (8, 6, 1, 0)),
        (0, (8, 6, 0, 1)),
        (0, (7, 6, 0, 0)),
        (1, (8, 7, 0, 0)),
        (0, (7, 7, 0, 0)),
        (0, (8, 7, 0, 1)),
        (2, (4, 8, 0, 0)),
        (2, (4, 8, 0, 1)),
        (0, (5, 8, 0, 1)),
        (1, (9, 9, 4, 1)),
        (0, (9, 9, 1, 1)),
        (1, (9, 16, 0, 0)),
        (0, (9, 11, 0, 0)),
        (0, (9, 200, 0, 0)),
    ],
)
def test_what_a_frame_header_is_worth(worth, header):
    likely = http2_frame.Likely(is_client=False, highest=9, frame_bytes=16384, known={1})
    assert http2_frame.weigh_header(*header, likely) == worth
    if worth:
        assert http2_frame.CANDIDATE.match(raw(*header[1:], bytes(header[0])))
    if header[1] == 5:
        assert http2_frame.weigh_header(*header, likely._replace(is_client=True)) == 0


def test_an_answer_that_cannot_be_read_is_one_all_the_same():
    made = Made()
    made.give(CLIENT, raw(1, 4, 1, made.block(CLIENT, ASK)))
    frame = raw(1, 5, 1, made.block(SERVER, [(":status", "200")]))
    made.give(SERVER, frame[:9])
    made.connection.miss(SERVER, len(frame) - 9)
    assert made.give(SERVER, raw(4, 1, 0)) == [Answered(1, None, None, MARK), Ended(1, SERVER, MARK)]
    assert made.connection.n_unread_answers == 1


def test_a_reset_whose_code_is_missing():
    made = Made().open()
    made.give(SERVER, raw(3, 0, 1, bytes(4))[:9])
    assert made.connection.miss(SERVER, 4) == []
    assert made.give(SERVER, raw(4, 1, 0)) == [Reset(1, SERVER, None, None, MARK)]


@pytest.mark.parametrize("n", [-1, 1, 5000])
def test_step_is_found_again_where_frames_begin(n):
    made = Made().open()
    made.open(3)
    assert made.connection.miss(SERVER, n) == [Lost(1, SERVER), Lost(3, SERVER)]
    tail = random.Random(n).randbytes(200)
    events = made.give(SERVER, tail, raw(0, 0, 3, b"\x88\x02\x03\xe8"))  # all there is, and it ends the segment
    assert events == [Data(3, SERVER, 209, 4, MARK)]
    events = made.give(CLIENT, raw(0, 0, 1, b"the other direction is whole"))
    assert [type(event) for event in events] == [Data]
    assert made.connection.n_skipped_bytes == 200
    # what was not touched since is not lost again, what was is
    assert made.connection.miss(SERVER, n) == [Lost(3, SERVER)]


def test_step_found_across_segments_tells_what_the_caller_has_no_more():
    made = Made().open()
    made.connection.miss(SERVER, -1)
    frames = raw(0, 0, 1, b"a" * 100) + raw(0, 0, 1, b"b" * 100)
    assert made.connection.read(SERVER, b"\xff" * 7 + frames[:60], MARK) == []
    events = made.connection.read(SERVER, frames[60:], MARK)
    assert events == [Missed(1, SERVER, 51), Data(1, SERVER, 0, 49, MARK), Data(1, SERVER, 58, 100, MARK)]


def test_step_found_late():
    made = Made().open()
    made.connection.miss(SERVER, -1)
    for _ in range(5):
        assert made.connection.read(SERVER, b"\xff" * 500, MARK) == []
    # trailers, alone and ending the segment, would be believed right behind a gap; here they are not
    trailers = raw(1, 5, 1, b"\x88")
    assert made.connection.read(SERVER, trailers[:8], MARK) == []
    assert made.connection.read(SERVER, trailers[8:], MARK) == []
    assert made.connection.read(SERVER, b"\xff" * 500, MARK) == []
    assert made.connection.read(SERVER, SETTINGS + raw(0, 0, 1, b"data"), MARK) == [Data(1, SERVER, 18, 4, MARK)]
    assert made.connection.n_skipped_bytes == 3010


def test_a_direction_that_finds_no_step_is_given_up():
    made = Made().open()
    made.connection.miss(SERVER, -1)
    began = time.process_time()
    for _ in range(400):
        assert made.connection.read(SERVER, bytes(10_000), MARK) == []
    assert time.process_time() - began < 4
    assert made.connection.n_skipped_bytes > 3_900_000
    assert made.give(SERVER, SETTINGS * 3, raw(0, 0, 1, b"data")) == []
    assert len(pickle.dumps(made.connection)) < 300_000


def test_what_may_yet_be_a_frame_costs_little_to_wait_for():
    """Weak headers of large frames all over, in small segments: each is looked at again as long as it may be one."""
    made = Made().open()
    made.connection.miss(SERVER, -1)
    bait = raw(1, 4, 3, bytes(16000))[:9] + b"\xff"
    began = time.process_time()
    for _ in range(20_000):
        assert made.connection.read(SERVER, bait, MARK) == []
    assert time.process_time() - began < 4
    assert len(pickle.dumps(made.connection)) < 300_000


class Tagged:
    """Data that says of which stream, direction and place it is, four bytes for four bytes."""

    def __init__(self):
        self.truth = {}

    def take(self, stream, direction, n):
        so_far = self.truth.get((stream, direction), b"")
        first = len(so_far) // 4
        more = b"".join(struct.pack(">BBH", 0x80 + stream, 0xC0 + direction, i) for i in range(first, first + n // 4))
        self.truth[stream, direction] = so_far + more
        return more


@given(st.integers(0, 2**32))
@settings(max_examples=150)
def test_missing_bytes_never_make_data_of_another_stream(seed):
    rng = random.Random(seed)
    talk, tagged = Talk(), Tagged()
    live = [talk.open() for _ in range(3)]
    for _ in range(60):
        stream, direction = rng.choice(live), rng.randrange(2)
        talk.send(direction, stream, tagged.take(stream, direction, rng.choice((4, 40, 400, 4000))))
        if rng.random() < 0.1:
            other = talk.ask(GET, end_stream=True)
            talk.answer(other, end_stream=True)
    ended = {}
    for stream in live:
        direction = rng.randrange(2)
        if rng.random() < 0.5:
            talk.send(direction, stream, b"", end_stream=True)
            ended[stream, direction] = "Ended"
    gap_chance = rng.choice((0.01, 0.05))
    connection, found, at = Http2(), {}, {}
    lost = set()
    n_opened = 0
    for direction, whole in talk.sent:
        for start in range(0, len(whole), 700):
            data = whole[start : start + 700]
            if n_opened == len(live) and rng.random() < gap_chance:
                first = rng.randrange(len(data))
                last = rng.randint(first + 1, len(data))
                calls = [("read", data[:first]), ("miss", rng.choice((last - first, -1))), ("read", data[last:])]
            else:
                calls = [("read", data)]
            for call, what in calls:
                events = connection.miss(direction, what) if call == "miss" else connection.read(direction, what, MARK)
                for event in events:
                    n_opened += isinstance(event, Requested)
                    key = event[0], direction
                    truth = tagged.truth.get(key, b"")
                    match event:
                        case Lost():
                            lost.add(key)
                        case Missed():
                            at[key] = at.get(key, 0) + event.n_bytes
                        case Data():
                            assert event.stream in live
                            piece = what[event.off : event.off + event.n_bytes]
                            where = at.get(key, 0)
                            if key in lost:
                                where = truth.find(piece, where)
                            assert where >= 0
                            assert truth[where : where + len(piece)] == piece
                            at[key] = where + len(piece)
                        case Ended():
                            assert ended[key] == "Ended"
                            assert key in lost or at.get(key, 0) == len(truth)
                            found[key] = "Ended"
    for key in ended:
        # an end is only ever missed where bytes may be
        assert key in found or key in lost or connection._sides[key[1]].left == 0


# ---- what an attacker would send


@given(st.lists(st.tuples(st.integers(0, 1), st.one_of(st.binary(max_size=300), st.integers(-1, 300))), max_size=30))
@settings(max_examples=100)
def test_nothing_raises(calls):
    for opened in (True, False):
        connection = Made().open().connection if opened else Http2()
        for direction, what in calls:
            if isinstance(what, bytes):
                tell(connection.read(direction, what, MARK), what)
            else:
                connection.miss(direction, what)


FRAMES = st.builds(
    raw,
    st.sampled_from((*range(10), 10, 12, 16, 0xEE)),
    st.sampled_from((0, 1, 4, 5, 8, 9, 0x2D, 0xFF)),
    st.sampled_from((0, 1, 1, 2, 3, 0x80000001)),
    st.one_of(st.binary(max_size=40), st.sampled_from([bytes(4), bytes(8), hpack.Encoder().encode(ASK)])),
)


@given(st.lists(st.tuples(st.integers(0, 1), FRAMES, st.booleans()), max_size=60))
@settings(max_examples=200)
def test_no_sequence_of_frames_raises_or_depends_on_splitting(calls):
    whole, split = Made().open().connection, Made().open().connection
    said, said_split = None, None
    for direction, data, is_missing in calls:
        if is_missing:
            said = tell(whole.miss(direction, 3), b"", said)
            said_split = tell(split.miss(direction, 3), b"", said_split)
        said = tell(whole.read(direction, data, MARK), data, said)
        if is_missing or whole._sides[direction].search or split._sides[direction].search:
            said_split = tell(split.read(direction, data, MARK), data, said_split)
            continue
        for i in range(len(data)):
            said_split = tell(split.read(direction, data[i : i + 1], MARK), data[i : i + 1], said_split)
    assert said == said_split


def cost(give):
    """Seconds of processor and bytes of memory at most."""
    tracemalloc.start()
    began = time.process_time()
    give()
    spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return spent, peak


def test_a_bomb_of_header_blocks():
    """One entry of 4,000 bytes, named 16,000 times in as many bytes, again and again."""
    made = Made().open()
    encoder = hpack.Encoder()
    encoder.header_table_size = 4096
    first = raw(1, 4, 3, encoder.encode([("x", "v" * 4000)]))
    bomb = b"\xbe" * 16000

    def give():
        made.give(CLIENT, first, *(raw(1, 4, 5 + 2 * i, bomb) for i in range(100)))

    spent, peak = cost(give)
    assert (spent < 2, peak < 20_000_000) == (True, True)
    assert made.connection.n_dropped_headers == 1
    assert made.connection.n_unread_requests == 100


@pytest.mark.parametrize(
    "field",
    [b"\x00\x00\x00", b"\x40\x01a\x01b", b"\x82", b"\x20", b"\x0f\x00\x00", b"\x00\x01a\x81\xff"],
    ids=["empty literal", "indexed literal", "index", "table size", "long index", "bad code"],
)
def test_blocks_of_the_smallest_fields(field):
    made = Made().open()
    block = (field * 65536)[: http2_head.MAX_BLOCK_BYTES]
    spent, peak = cost(lambda: made.give(CLIENT, *(raw(1, 4, 3 + 2 * i, block) for i in range(5))))
    assert (spent < 4, peak < 20_000_000) == (True, True)


def test_a_list_of_headers_beyond_the_limit():
    made = Made().open()
    block = made.block(CLIENT, [("x-long", "v" * 100)] * 2000)
    assert len(block) < http2_frame.DEFAULT_FRAME_BYTES
    assert made.give(CLIENT, raw(1, 4, 3, block)) == []
    assert (made.connection.n_dropped_headers, made.connection.n_unread_requests) == (1, 1)


def test_a_header_block_in_one_enormous_frame():
    made = Made().open()
    frame = raw(1, 4, 3, bytes(2**24 - 1))
    for i in range(0, len(frame) - 1, 100_000):
        assert made.give(CLIENT, frame[i : min(i + 100_000, len(frame) - 1)]) == []
    assert len(pickle.dumps(made.connection)) < 20_000
    (event,) = made.give(CLIENT, frame[-1:], raw(0, 0, 1, b"data"))
    assert type(event) is Data
    assert (made.connection.n_dropped_headers, made.connection.n_unread_requests) == (1, 1)


def test_continuation_without_end():
    made = Made().open()
    frames = b"".join(raw(9, 0, 3, b"\x82" * 1000) for _ in range(1000)) + b"".join(raw(9, 0, 3) for _ in range(50_000))

    def give():
        made.give(CLIENT, raw(1, 0, 3, b"\x82"))
        for _ in range(3):
            assert made.give(CLIENT, frames) == []

    spent, peak = cost(give)
    assert (spent < 6, peak < 10_000_000) == (True, True)
    assert made.connection.n_dropped_headers == 1
    assert len(pickle.dumps(made.connection)) < 20_000


def test_streams_without_number():
    made = Made()
    block = hpack.Encoder().encode(ASK)
    assert len(made.give(CLIENT, raw(1, 4, 1, block))) == 1
    again = made.encoders[CLIENT]
    again.encode(ASK)

    same = again.encode(ASK)  # nothing but indexes
    for i in range(100_000):
        made.give(CLIENT, raw(1, 4, 3 + 2 * i, same))
    assert made.connection.n_streams == 100_001
    assert made.connection.n_dropped_streams == 100_001 - MAX_STREAMS
    assert len(pickle.dumps(made.connection)) < 1_000_000
    (event,) = made.give(CLIENT, raw(0, 0, 1, b"the first is still told"))
    assert event.n_bytes == 23


def test_streams_that_are_reset_one_after_the_other_leave_room():
    made = Made()
    for i in range(MAX_STREAMS + 500):
        made.open(2 * i + 1)
        made.give(SERVER, raw(3, 0, 2 * i + 1, bytes(4)))
    assert made.connection.n_dropped_streams == 0
    assert len(made.connection._streams) == MAX_FADING_STREAMS


def test_streams_that_are_refused_leave_room():
    made = Made()
    for i in range(MAX_STREAMS + 500):
        made.give(CLIENT, raw(1, 4, 2 * i + 1, made.block(CLIENT, ASK)))
        made.give(SERVER, raw(1, 5, 2 * i + 1, made.block(SERVER, [(":status", "403")])))
    assert made.connection.n_dropped_streams == 0
    assert len(made.connection._streams) == MAX_FADING_STREAMS


def test_losing_step_again_and_again_tells_each_stream_once():
    made = Made()
    for i in range(1000):
        made.open(2 * i + 1)
    assert len(made.connection.miss(SERVER, -1)) == 1000
    for _ in range(1000):
        made.connection.read(SERVER, SETTINGS * 3, MARK)
        assert made.connection.miss(SERVER, -1) == []
