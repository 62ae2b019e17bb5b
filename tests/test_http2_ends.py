"""What HTTP/2 tells of the end of WebSockets: error codes, GOAWAY, and one lost connection that ends several."""

import io
import json
import pickle
import re
import time
import tomllib
import tracemalloc

import hpack
import pytest
from conftest import SAMPLES
from packets import CLIENT, MASK, SERVER, Conversation, close
from reading import analyze, to_rows
from test_http2 import PREFACE, SETTINGS, raw
from test_unwrap import Streams

from analyzer.analysis import read, stream
from analyzer.capture.container import Reader
from analyzer.capture.fate import Carrier
from analyzer.capture.tracker import Tracker
from analyzer.knowledge import catalogue, language
from analyzer.report.counts import Counts
from analyzer.report.document import Report, story_of
from analyzer.report.story import tell

NAMES = "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR"
NAMES += (
    " REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
)
NAMES = dict(enumerate(NAMES.split()))
"""RFC 9113 section 7."""

SHARED = ("cause", "cause_confidence", "shared_by", "carried")
ERRORS = ("stream_error", "goaway", "goaway_last_stream", "goaway_reason")
ASK = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "x"), (":path", "/")]


def goaway(last, code, debug=b""):
    return raw(7, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)


def told(row, names):
    return tuple(row[name] if row[name] is None else str(row[name]) for name in names)


def rows_of(talk, **more):
    """Connections by stream."""
    return {row["http2_stream"]: row for row in analyze(talk.pcap(), **more)[1]}


def sentences(talk, number, code="en"):
    closes, connections = analyze(talk.pcap())
    (row,) = [row for row in connections if row["http2_stream"] == number]
    mine = [view for view in closes if view["connection"] == row["connection"]]
    return tell(story_of(row, mine, catalogue.load()), language.load(code))


def lose(talk, how="fin"):
    """TCP ends below everything that is open."""
    if how == "rst":
        return talk.rst(SERVER)
    first = talk.fin(SERVER)
    talk.fin(CLIENT)
    talk.ack(SERVER)
    return first


# ---- real endpoints


@pytest.mark.parametrize("name", ["h2c-resets", "h2c-goaway"])
def test_errors_are_those_that_the_endpoints_apis_reported(name, read_rows):
    about = tomllib.loads((SAMPLES / f"{name}.toml").read_text(encoding="utf-8"))
    _, connections, _ = read_rows(SAMPLES / f"{name}.pcapng")
    rows = {row["http2_stream"]: row for row in connections}
    n_resets = n_aways = 0
    for one in about["connections"]:
        row = rows[one["stream"]]
        for side, other in (("client", "server"), ("server", "client")):
            detail = one["api"][side]["detail"]
            for code in re.findall(r"StreamReset (\d+)", detail):
                assert row["stream_error"] == f"{other} {NAMES.get(int(code), hex(int(code)))}"
                n_resets += 1
            for code, last, text in re.findall(r"ConnectionTerminated (\d+) (\d+) (\w+)", detail):
                assert told(row, ERRORS[1:]) == (f"{other} {NAMES[int(code)]}", last, text)
                n_aways += 1
            if "Reset " not in one["api"]["client"]["detail"] + one["api"]["server"]["detail"]:
                assert row["stream_error"] is None
    assert (n_resets, n_aways) == {"h2c-resets": (7, 0), "h2c-goaway": (0, 3)}[name]


@pytest.mark.parametrize(
    ("name", "n_lost", "n_carried"),
    [("h2c-streams", 1, 7), ("h2-chromium", 1, 8), ("h2c-resets", 3, 9), ("h2c-goaway", 2, 3)],
)
def test_http2_samples_have_one_cause_and_many_effects(name, n_lost, n_carried, read_rows):
    """Lost with TCP are those whose two APIs reported 1006 with nothing said on their stream (written in the TOML)."""
    about = tomllib.loads((SAMPLES / f"{name}.toml").read_text(encoding="utf-8"))
    lost = {one["stream"] for one in about["connections"] if one["decision"].startswith("21")}
    assert len(lost) == n_lost
    keys = [SAMPLES / about["keys"]] if "keys" in about else []
    closes, connections, _ = read_rows(SAMPLES / f"{name}.pcapng", keys=keys)
    assert {row["http2_stream"] for row in connections if row["cause"]} == lost
    assert {row["code"] for row in closes if row["evidence"] in ("no_close_fin", "no_close_rst")} == {1006}
    for row in connections:
        wanted = ("tcp_lost", "high", str(n_lost), str(n_carried)) if row["http2_stream"] in lost else (None,) * 4
        assert told(row, SHARED) == wanted
    assert len({row["flow"] for row in connections}) == 1
    document = read(SAMPLES / f"{name}.pcapng", keys=keys).report().document
    assert document["causes"] == [{"cause": "tcp_lost", "connections": n_lost, "count": 1}]


def test_the_report_of_a_sample_says_who_reset_what():
    document = read(SAMPLES / "h2c-resets.pcapng").report().document
    found = {(row["frame"], row["endpoint"], row["error"]): row["count"] for row in document["stream_errors"]}
    errors = ["ENHANCE_YOUR_CALM", "INTERNAL_ERROR", "CONNECT_ERROR", "REFUSED_STREAM", "HTTP_1_1_REQUIRED"]
    wanted = {("RST_STREAM", "server", error): 1 for error in errors}
    assert found == wanted | {("RST_STREAM", "client", error): 1 for error in ("CANCEL", "0x1234abcd")}
    assert all((row["hint"] is None) == (row["error"] == "0x1234abcd") for row in document["stream_errors"])


# ---- one loss, many effects


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_streams_lost_together_share_one_cause(how):
    both = Streams()
    for number in range(1, 20, 2):
        both.open(number)
    both.ends[1].reset_stream(5, 8)
    both.flush()
    both.say(0, 7, close(1000, mask=MASK), end_stream=True)
    both.say(1, 7, close(1000), end_stream=True)
    lose(both.talk, how)
    rows = rows_of(both.talk)
    lost = {number for number, row in rows.items() if row["cause"]}
    assert lost == {1, 3, 9, 11, 13, 15, 17, 19}
    assert {told(rows[number], SHARED) for number in lost} == {("tcp_lost", "high", "8", "10")}
    assert told(rows[5], SHARED) == told(rows[7], SHARED) == (None,) * 4
    assert "WebSockets that its TCP connection carried: 10; lost with it: 8, by one cause." in sentences(both.talk, 9)


def test_all_of_a_connection_and_the_only_one():
    both = Streams()
    for number in (1, 3):
        both.open(number)
    lose(both.talk)
    said = "Its TCP connection carried 2 WebSockets, and all of them were lost with it: one cause."
    assert said in sentences(both.talk, 3)
    both = Streams()
    both.open(1)
    lose(both.talk)
    assert "It was the only WebSocket on its TCP connection." in sentences(both.talk, 1)


@pytest.mark.parametrize("said", ["close", "end"])
def test_who_had_begun_to_close_was_not_lost(said):
    both = Streams()
    for number in (1, 3, 5):
        both.open(number)
    if said == "close":
        both.say(1, 3, close(1001))
    else:
        both.ends[0].end_stream(3)
        both.flush()
    lose(both.talk)
    rows = rows_of(both.talk)
    assert [rows[number]["shared_by"] for number in (1, 3, 5)] == [2, None, 2]


@pytest.mark.parametrize("every", [1, 3, 100])
def test_a_shared_cause_is_the_same_however_chunks_are_cut(every):
    both = Streams()
    for number in range(1, 14, 2):
        both.open(number)
        if number in (3, 7):
            both.ends[1].reset_stream(number, 11)
            both.flush()
    both.talk.say(SERVER, goaway(13, 11, b"too many"))
    both.say(0, 5, close(1000, mask=MASK), end_stream=True)
    lose(both.talk)
    (chunk,) = Reader(io.BytesIO(both.talk.pcap()), "test").chunks()
    tracker, found = Tracker(), []
    for i in range(0, len(chunk.packets), every):
        tracker._since_sweep = 1 << 40
        found += tracker.feed(chunk._replace(packets=chunk.packets[i : i + every], first_packet=i + 1))
        tracker = pickle.loads(pickle.dumps(tracker))
    if every == 1:
        assert len([some for some in found if len(some.connections)]) > 1  # streams leave before the others
    _, connections = to_rows([*found, *tracker.finish()])
    calm = ("server ENHANCE_YOUR_CALM", "13", "too many")
    assert {row["http2_stream"]: told(row, (*SHARED, *ERRORS)) for row in connections} == {
        **dict.fromkeys((1, 9, 11, 13), ("tcp_lost", "high", "4", "7", None, *calm)),
        **dict.fromkeys((3, 7), (None,) * 4 + ("server ENHANCE_YOUR_CALM", None, None, None)),
        5: (None,) * 5 + calm,
    }


def test_of_an_evicted_connection_nothing_is_claimed():
    both = Streams(Conversation(sport=999).open())
    for number in (1, 3, 5):
        both.open(number)
    both.talk.fin(SERVER)
    others = [Conversation(sport=2000 + i, ts_ns=both.talk.ts_ns).open() for i in range(8)]
    for other in others:
        both.talk.packets += other.packets
    rows = rows_of(both.talk, max_flows=4)
    assert len(rows) == 3
    assert {told(row, SHARED) for row in rows.values()} == {(None,) * 4}


def test_bytes_that_may_hide_a_close_or_a_request_take_the_claim_back():
    both = Streams()
    for number in (1, 3, 5):
        both.open(number)
    lost = both.say(0, 3, b"\x81\x80" + bytes(4))
    both.say(0, 1, b"\x81\x80" + bytes(4))
    lose(both.talk)
    assert {told(row, SHARED) for row in rows_of(both.talk).values()} == {("tcp_lost", "high", "3", "3")}
    del both.talk.packets[lost - 1]
    assert {told(row, SHARED) for row in rows_of(both.talk).values()} == {(None,) * 4}


def test_where_a_request_was_missed_the_number_is_a_least_one(monkeypatch):
    monkeypatch.setattr("analyzer.capture.tracker.MAX_HTTP2_STREAMS", 2)
    both = Streams()
    for number in (1, 3, 5):
        both.open(number)
    lose(both.talk)
    assert {told(row, SHARED) for row in rows_of(both.talk).values()} == {("tcp_lost", "high", "2", None)}
    assert "WebSockets lost with its TCP connection: at least 2, by one cause." in sentences(both.talk, 1)


def test_causes_of_several_captures_add_up_in_any_order(tmp_path):
    paths = []
    for i, n in enumerate((9, 4, 1)):
        both = Streams(Conversation(sport=5000 + i).open())
        for number in range(1, 2 * n, 2):
            both.open(number)
        both.talk.say(SERVER, goaway(99, 0))
        lose(both.talk)
        paths.append(both.talk.write(tmp_path / f"{i}.pcap"))
    parts = []
    for path in paths:
        counts = Counts()
        for batch in stream(path):
            counts.add(*batch)
        parts.append(pickle.dumps(counts))
    documents = []
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        whole, second, third = (pickle.loads(parts[i]) for i in order)
        if order[0] == 1:  # the other way to put brackets
            second.merge(third)
            whole.merge(second)
        else:
            whole.merge(second)
            whole.merge(third)
        documents.append(Report(whole, catalogue.load()).document)
    wanted = [{"cause": "tcp_lost", "connections": 14, "count": 3}]
    assert [document["causes"] for document in documents] == [wanted] * 3
    assert [row["count"] for row in documents[0]["stream_errors"]] == [14]
    assert documents[0]["stream_errors"] == documents[1]["stream_errors"] == documents[2]["stream_errors"]
    report = read(*paths).report()
    assert report.document["causes"] == wanted
    said = "Lost with what carried them: 14 WebSockets, with 3 TCP connections."
    assert said in report.to_text(width=200)
    assert said in report.to_html()
    assert said.rstrip(".") in report.to_markdown().replace("\\", "")
    assert json.loads(json.dumps(report.to_dict()))["causes"] == wanted


# ---- GOAWAY


def test_a_request_that_comes_behind_goaway_is_never_opened():
    """It was on its way: the server had said that it takes none above the last stream."""
    both = Streams()
    both.open(1)
    both.talk.say(SERVER, goaway(1, 0))
    both.ends[0].send_headers(3, [(name, "/3" if name == ":path" else value) for name, value in ASK])
    both.talk.say(CLIENT, both.ends[0].data_to_send())
    both.talk.end()
    closes, connections = analyze(both.talk.pcap())
    (row,) = [row for row in connections if row["http2_stream"] == 3]
    assert (str(row["handshake"]), str(row["end"]), row["ended_by"]) == ("failed", "goaway", "server")
    assert not [view for view in closes if view["connection"] == row["connection"]]
    said = "Never opened: the server takes no stream above 1 (GOAWAY, NO_ERROR); this was stream 3."
    assert said in sentences(both.talk, 3)


def test_requests_that_were_never_opened_are_counted_and_found_by_their_host():
    """Nobody has a view of them: what is not said of them here is said nowhere."""
    found = read(SAMPLES / "h2c-goaway.pcapng", SAMPLES / "h2c-resets.pcapng", SAMPLES / "rejected-403.pcap")
    report = found.report()
    said = "How handshakes ended: failed (3), refused (1)"
    assert said in report.to_text(width=80)
    assert said in report.to_markdown().replace("\\", "")
    path = SAMPLES / "h2c-goaway.pcapng"
    assert read(path).report(host="127.0.0.1:33779").to_dict()["connections"] == 4
    nothing = read(path).report(host="127.0.0.1:1")
    assert nothing.to_dict()["connections"] == 0
    assert "No close passes the filters." in nothing.to_text()


def test_nothing_but_a_refused_request_passes_no_foreign_filter(tmp_path):
    both = Streams()
    both.open(1, status=None)
    both.ends[1].reset_stream(1, 7)
    both.flush()
    both.talk.end()
    path = tmp_path / "refused.pcap"
    path.write_bytes(both.talk.pcap())
    for asked, n in (({"host": "example.com"}, 1), ({"host": "nowhere"}, 0), ({"code": 1006}, 0)):
        report = read(path).report(**asked)
        assert report.to_dict()["connections"] == n
        assert ("No close passes the filters." in report.to_text()) is (n == 0)


def test_goaway_that_comes_after_the_end_of_a_stream_is_not_told_of_it():
    both = Streams()
    both.open(1)
    both.open(3)
    both.ends[1].reset_stream(1, 2)
    both.flush()
    both.talk.say(SERVER, goaway(3, 11))
    lose(both.talk)
    rows = rows_of(both.talk)
    assert told(rows[1], ERRORS) == ("server INTERNAL_ERROR", None, None, None)
    assert told(rows[3], ERRORS) == (None, "server ENHANCE_YOUR_CALM", "3", None)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([(SERVER, 2**31 - 1, 0), (SERVER, 5, 0)], ("server NO_ERROR", "5")),
        ([(SERVER, 5, 0), (CLIENT, 0, 0)], ("server NO_ERROR", "5")),
        ([(SERVER, 5, 0), (CLIENT, 0, 1)], ("client PROTOCOL_ERROR", "0")),
        ([(SERVER, 5, 2), (CLIENT, 0, 1)], ("server INTERNAL_ERROR", "5")),
        ([(SERVER, 5, 14)], ("server 0xe", "5")),
    ],
)
def test_of_several_goaways_the_first_error_is_told(said, wanted):
    both = Streams()
    both.open(1)
    for side, last, code in said:
        both.talk.say(side, goaway(last, code))
    lose(both.talk)
    assert told(rows_of(both.talk)[1], ERRORS[1:3]) == wanted


def test_debug_data_is_bounded_escaped_and_redacted(tmp_path):
    both = Streams()
    both.open(1)
    both.talk.say(SERVER, goaway(1, 2, b"token=abcdef0123456789 \x1b[31m\xff\xe2\x80\xae" + b"x" * 5000))
    lose(both.talk)
    (row,) = rows_of(both.talk).values()
    assert row["goaway_reason"].startswith("token=abcdef0123456789 \x1b[31m\\xff\u202e")
    assert len(row["goaway_reason"]) < 300
    report = read(both.talk.write(tmp_path / "x.pcap")).report()
    assert "That GOAWAY says:" in report.to_text()
    for shown in (report.to_text(), report.to_html(), report.to_markdown()):
        assert not re.search("[\x1b\u202e]", shown)
    assert "abcdef0123456789" in report.to_text()
    assert "abcdef0123456789" not in report.to_html() + report.to_markdown()


def test_debug_data_of_which_bytes_are_missing():
    both = Streams()
    both.open(1)
    whole = goaway(1, 11, b"too_many" + b"_pings" * 20)
    both.talk.say(SERVER, whole[:25])
    both.talk.say(SERVER, whole[25:60], lose=True)
    both.talk.say(SERVER, whole[60:])
    lose(both.talk)
    (row,) = rows_of(both.talk).values()
    assert told(row, ERRORS[1:]) == ("server ENHANCE_YOUR_CALM", "1", "too_many")
    assert row["cause"] == "tcp_lost"


# ---- the story of a stream


def test_the_story_says_how_a_stream_ended_and_by_whom():
    both = Streams()
    for number in (1, 3, 5):
        both.open(number)
    both.ends[1].reset_stream(1, 11)
    both.ends[0].reset_stream(3, 99)
    both.ends[1].end_stream(5)
    both.flush()
    both.ends[0].reset_stream(5, 8)
    both.flush()
    both.talk.end()
    said = "\n".join(sentences(both.talk, 1))
    assert re.search(
        r"^The server reset the HTTP/2 stream \(ENHANCE_YOUR_CALM\), \d+\.\d{3} s after the opening\.$", said, re.M
    )
    assert "HTTP/2 ends at 10.0.0.2:80: a proxy there may have" in said
    assert "ENHANCE_YOUR_CALM: The other side causes too much load" in said
    said = "\n".join(sentences(both.talk, 3))
    assert "The client reset the HTTP/2 stream (0x63), " in said
    assert "ends at" not in said
    said = "\n".join(sentences(both.talk, 5))
    assert "The server ended the HTTP/2 stream, " in said
    assert "The client reset the HTTP/2 stream as well (CANCEL)." in said
    assert "TCP" not in said.replace("the TCP connection behind it", "")


def test_the_story_names_the_server_that_reset_by_what_it_calls_itself():
    both = Streams()
    both.open(1, None)
    both.ends[1].send_headers(1, [(":status", "200"), ("server", "envoy")])
    both.flush()
    both.ends[1].reset_stream(1, 2)
    both.flush()
    both.talk.end()
    assert any("HTTP/2 ends at 10.0.0.2:80, which names itself envoy:" in line for line in sentences(both.talk, 1))


def test_a_reset_whose_code_is_missing_names_none():
    both = Streams()
    both.open(1)
    whole = raw(3, 0, 1, (8).to_bytes(4, "big"))
    both.talk.say(SERVER, whole[:9])
    both.talk.say(SERVER, whole[9:], lose=True)
    both.talk.say(SERVER, SETTINGS)
    both.talk.end()
    (row,) = rows_of(both.talk).values()
    assert (row["stream_error"], str(row["end"]), row["ended_by"]) == (None, "stream_reset", "server")
    assert any("(error code not captured)" in line for line in sentences(both.talk, 1))


def test_a_clean_close_is_told_without_guesses():
    both = Streams()
    both.open(1)
    both.say(0, 1, close(1000, mask=MASK))
    both.say(1, 1, close(1000), end_stream=True)
    both.ends[0].reset_stream(1, 8)
    both.flush()
    both.talk.end()
    said = "\n".join(sentences(both.talk, 1))
    assert "The client reset the HTTP/2 stream as well (CANCEL)." in said
    assert "ends at" not in said
    assert "CANCEL:" not in said


@pytest.mark.parametrize("code", ["id", "th", "vi", "zh", "ar"])
def test_every_language_tells_it_whole(code):
    both = Streams()
    for number in (1, 3, 5):
        both.open(number)
    both.ends[1].reset_stream(1, 11)
    both.flush()
    both.talk.say(SERVER, goaway(5, 2, b"bye"))
    lose(both.talk)
    for number in (1, 3):
        said = "\n".join(sentences(both.talk, number, code))
        assert "[en]" not in said
        assert ("ENHANCE_YOUR_CALM" if number == 1 else "INTERNAL_ERROR") in said


# ---- what an attacker would send


def flood(frames, *, side=SERVER, n_streams=1000):
    """A connection with so many WebSockets, then these frames; how long reading takes, and the memory at most."""
    talk = Conversation().open()
    talk.step_ns = 1000
    encoders = hpack.Encoder(), hpack.Encoder()
    talk.say(CLIENT, PREFACE + SETTINGS)
    talk.say(SERVER, SETTINGS)
    for number in range(1, 2 * n_streams, 200):
        some = range(number, min(number + 200, 2 * n_streams), 2)
        talk.say(CLIENT, b"".join(raw(1, 4, i, encoders[0].encode(ASK)) for i in some))
        talk.say(SERVER, b"".join(raw(1, 4, i, encoders[1].encode([(":status", "200")])) for i in some))
    data = b"".join(frames)
    for off in range(0, len(data), 30_000):
        talk.say(side, data[off : off + 30_000])
    content = talk.pcap()
    began = time.process_time()
    _, connections = analyze(content)
    spent = time.process_time() - began
    tracemalloc.start()
    tracker = Tracker()
    for chunk in Reader(io.BytesIO(content), "test").chunks():
        tracker.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return spent, peak, connections


@pytest.mark.parametrize(
    "frames",
    [
        [goaway(5, 0)] * 20_000,
        [goaway(100_000 - i, 11) for i in range(20_000)],
        [goaway(max(0, 20_000 - i), 11, b"x" * 8) for i in range(15_000)],
        [raw(3, 0, 1, bytes(4))] * 20_000,
        [raw(3, 0, 2 * (i % 1000) + 1, bytes(4)) for i in range(20_000)],
        [raw(4, 0, 0, b"\x00\x01\x00\x00\x10\x00")] * 20_000,
    ],
    ids=["goaway", "goaway going down", "goaway below all", "reset of one", "reset of all", "settings"],
)
def test_floods_cost_no_more_than_their_bytes(frames):
    """0.3 MB each: with a look at every stream for every frame it takes 5 to 20 s."""
    spent, peak, connections = flood(frames)
    assert (spent < 3, peak < 40_000_000) == (True, True)
    assert len(connections) == 1000


def test_both_sides_reset_a_stream_and_the_first_is_told():
    both = Streams()
    both.open(1)
    # captured in another order than they came: the first acknowledges the second
    both.talk.say(SERVER, raw(3, 0, 1, (11).to_bytes(4, "big")), ack=both.talk.seq[CLIENT] + 13)
    both.talk.say(CLIENT, raw(3, 0, 1, (8).to_bytes(4, "big")))
    both.talk.end()
    (row,) = rows_of(both.talk).values()
    assert (row["stream_error"], row["ended_by"]) == ("server ENHANCE_YOUR_CALM", "server")


@pytest.mark.parametrize("sweeps", [False, True])
@pytest.mark.parametrize("crosses", [False, True])
def test_a_side_that_ends_a_stream_and_resets_it_then_reads_no_more(crosses, sweeps):
    """As servers do that want no more of a request (RFC 9113 section 8.1)."""
    both = Streams()
    both.open(1)
    both.open(3)
    talk, (client, server) = both.talk, both.ends
    server.end_stream(1)
    talk.say(SERVER, server.data_to_send())
    acked = talk.seq[CLIENT]
    if crosses:
        client.send_data(1, close(4000, "bye", mask=MASK))
        talk.say(CLIENT, client.data_to_send())
    server.reset_stream(1, 0)
    reset = talk.say(SERVER, server.data_to_send(), ack=acked)
    talk.ack(SERVER)
    talk.say(CLIENT, raw(6, 0, 0, bytes(8)))
    talk.ack(SERVER)
    lose(talk)
    tracker, found = Tracker(), []
    (chunk,) = Reader(io.BytesIO(talk.pcap()), "test").chunks()
    for i in range(len(chunk.packets)):
        tracker._since_sweep = 1 << 40 if sweeps else 0
        found += tracker.feed(chunk._replace(packets=chunk.packets[i : i + 1], first_packet=i + 1))
    closes, connections = to_rows([*found, *tracker.finish()])
    view = next(row for row in closes if row["connection"].endswith("-s1") and row["endpoint"] == SERVER)
    if crosses:
        assert (view["code"], view["evidence"], view["wire_code"]) == (None, "late_close", 4000)
    else:
        assert (view["code"], view["evidence"], view["record"]) == (1006, "stream_reset", reset)
    row = next(row for row in connections if row["http2_stream"] == 1)
    assert (row["end"], row["ended_by"], row["stream_error"], row["cause"]) == (
        "stream_end",
        SERVER,
        "server NO_ERROR",
        None,
    )


def test_streams_that_ended_otherwise_are_not_awaited_for_ever():
    carrier = Carrier()
    for number in range(1, 20_000, 2):
        carrier.begin(number, number)
        carrier.wait(number, 1, 1 << 40)
        carrier.end(number)
    assert len(carrier._order[1]) < 100
    carrier.begin(20_001, 7)
    carrier.wait(20_001, 0, 500)
    assert (list(carrier.advance(1, 600)), list(carrier.advance(0, 499)), list(carrier.advance(0, 500))) == (
        [],
        [],
        [20_001],
    )


def test_resets_that_acknowledge_what_never_comes_are_waited_for_at_little_cost():
    talk = Conversation().open()
    encoder = hpack.Encoder()
    talk.say(CLIENT, PREFACE + SETTINGS)
    talk.say(SERVER, SETTINGS)
    for number in range(1, 8000, 2):
        talk.say(CLIENT, raw(1, 4, number, encoder.encode(ASK)))
        talk.segment(CLIENT, raw(3, 0, number, bytes(4)), ack=talk.seq[SERVER] + 900_000)
    content = talk.pcap()
    began = time.process_time()
    tracker = Tracker()
    for chunk in Reader(io.BytesIO(content), "test").chunks():
        tracker.feed(chunk)
    assert time.process_time() - began < 5
    assert len(pickle.dumps(tracker._unwrapper)) < 4_000_000
