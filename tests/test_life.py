"""One connection's events: against tshark, against what was written by hand, and against the tables."""

import gzip
import io
import subprocess
import xml.etree.ElementTree as ET
from ipaddress import IPv6Address
from itertools import accumulate, pairwise

import pandas as pd
import pytest
from conftest import SAMPLES, options_of
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import ACK, CLIENT, FIN, MASK, REQUEST, SERVER, Conversation, close, ethernet, frame, pcap, response
from reading import analyze, gather

from analyzer.analysis import stream
from analyzer.capture import life
from analyzer.capture.container import Reader
from analyzer.capture.life import Event, EventKind, Life, read_life
from analyzer.capture.tracker import Tracker
from analyzer.errors import CaptureError, UsageError
from analyzer.packing import Unpacked
from analyzer.sources import Source

CAPTURES = sorted(SAMPLES.glob("*.pcap*"))
REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno!"
KINDS = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
FRAMES = {*KINDS.values(), "reserved"}
TEXT = frame(1, b"hello")
MASKED_TEXT = frame(1, b"hello", mask=MASK)


ENDS = {
    **{end: end for end in ("fin", "rst", "stream_end", "stream_reset")},
    "goaway": "stream_reset",
}
"""What an end looks like among the events: a refusal is a reset there."""

UNREAD = ("h2-chromium", "h2c-goaway", "h2c-resets", "h2c-streams", "tls13-unknown-ca")
"""tshark knows no WebSockets over HTTP/2, and there is none where TLS failed."""


def lives(path, content, *, ports=(), keys=(), **more):
    """(row, life) of every connection of a capture."""
    path.write_bytes(content)
    rows = gather(stream(path, ports=ports, keys=keys))[1]
    return [(row, read_life(Source(str(path), path), row, ports=ports, keys=keys, **more)) for row in rows]


@pytest.fixture
def only(tmp_path):
    """What happened on the only connection of a capture, as (packet, side, kind, payload bytes)."""

    def read(capture, **more):
        ((_, found),) = lives(tmp_path / "x.pcap", capture.pcap(), **more)
        assert found.n_more == 0
        assert all(e.ts_ns == capture.packets[e.packet - 1].ts_ns for e in found.events)
        return brief(found)

    return read


def brief(found, behind=0):
    """Events without times and codes, those of packets behind this one."""
    return [(e.packet, str(e.side), str(e.kind), e.payload_bytes) for e in found.events if e.packet > behind]


def opening(packet=4):
    return [(packet, CLIENT, "request", len(REQUEST)), (packet + 1, SERVER, "response", len(response()))]


# tshark


DIFFERS = {
    "keepalive-then-upgrade": (
        "the first request on this TCP connection asks for a page, and is none of the WebSocket's",
        {(4, CLIENT, "request", None, None), (6, SERVER, "response", None, None)},
        set(),
    ),
    "snaplen-cut-close": (
        "tshark does not list what the snaplen cut off: the Close's body",
        set(),
        {(9, SERVER, "missing", 17, None)},
    ),
}
"""Why, what only tshark lists, and what only we do."""


def by_tshark(tshark, capture, client_port, ports, keys):
    """Events as tshark sees them, HTTP heads without their sizes."""
    command = [tshark, "-n", "-r", str(capture), "-T", "pdml"]
    command += [word for key in keys for word in ("-o", f"tls.keylog_file:{key}")]
    command += [word for port in ports for word in ("-d", f"tcp.port=={port},websocket")]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout

    def value(node, *names):
        for name in names:
            field = node.find(f".//field[@name='{name}']")
            if field is not None:
                return field.get("show")
        return None

    found = set()
    for packet in ET.fromstring(out):
        number = int(value(packet, "num"))
        side = CLIENT if value(packet, "tcp.srcport") == client_port else SERVER
        for http in packet.findall("proto[@name='http']"):
            if value(http, "http.request.method"):
                found.add((number, side, "request", None, None))
            if value(http, "http.response.code"):
                found.add((number, side, "response", None, None))
        for node in packet.findall("proto[@name='websocket']"):
            lengths = [f"websocket.payload_length{more}" for more in ("_ext_64", "_ext_16", "")]
            code = value(node, "websocket.payload.close.status_code")
            kind = KINDS.get(int(value(node, "websocket.opcode")), "reserved")
            found.add((number, side, kind, int(value(node, *lengths)), code and int(code)))
        for flag, kind in (("fin", "fin"), ("reset", "rst")):
            if value(packet, f"tcp.flags.{flag}") in ("1", "True"):
                found.add((number, side, kind, 0, None))
    return found


@pytest.mark.needs_tshark
@pytest.mark.parametrize("capture", [path for path in CAPTURES if path.stem not in UNREAD], ids=lambda path: path.stem)
def test_tshark_sees_the_same(tshark, capture, tmp_path):
    ports, keys = options_of(capture)["ports"], options_of(capture)["keys"]
    ((row, found),) = lives(tmp_path / "x", capture.read_bytes(), ports=ports, keys=keys)
    heads = (EventKind.REQUEST, EventKind.RESPONSE)
    ours = {(e.packet, e.side, e.kind, None if e.kind in heads else e.payload_bytes, e.code) for e in found.events}
    assert len(ours) == len(found.events)
    theirs = by_tshark(tshark, capture, row["client"].rpartition(":")[2], ports, keys)
    _, only_theirs, only_ours = DIFFERS.get(capture.stem, ("", set(), set()))
    assert (theirs - ours, ours - theirs) == (only_theirs, only_ours)


def test_listed_differences_are_of_captures_that_exist():
    assert DIFFERS.keys() <= {capture.stem for capture in CAPTURES}


# the tables


def agree(row, found):
    """The events of a whole life are those that its row counts."""
    assert found.n_more == 0
    assert [e.packet for e in found.events] == sorted(e.packet for e in found.events)
    for side in (CLIENT, SERVER):
        mine = [e for e in found.events if e.side == side]
        assert sum(e.kind in FRAMES for e in mine) == row[f"{side}_frames"]
        first = next((e for e in mine if (e.packet, e.ts_ns) == moment(row, side) and e.kind == "close"), None)
        assert (first is None) == (row[f"{side}_close"] == "none")
        if first is not None:
            assert first.code == row[f"{side}_close_code"]


def moment(row, side):
    return row[f"{side}_close_record"], row[f"{side}_close_time"]


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_events_are_those_that_the_tables_count(capture, tmp_path):
    options = options_of(capture)
    told = lives(tmp_path / "x", capture.read_bytes(), ports=options["ports"], keys=options["keys"])
    assert told or options["ws_ports"]
    for row, found in told:
        agree(row, found)
        ends = [e for e in found.events if e.kind in ENDS]
        if row["end"] in ENDS:
            assert (ends[0].kind, ends[0].side, ends[0].ts_ns) == (ENDS[row["end"]], row["ended_by"], row["ended"])
        else:
            assert ends == []
        for side in (CLIENT, SERVER):
            missing = sum(e.payload_bytes for e in found.events if (e.side, e.kind) == (side, "missing"))
            assert missing == row[f"{side}_gap_bytes"]


# by hand


def test_a_whole_life(only):
    talk = Conversation().upgrade()
    numbers = [talk.text(CLIENT), talk.say(SERVER, frame(2, b"x" * 300))]
    numbers += [talk.say(SERVER, frame(9, b"?")), talk.say(CLIENT, frame(10, b"?", mask=MASK))]
    numbers += [talk.close(SERVER, 1001, "bye"), talk.close(CLIENT, 1001)]
    talk.end()
    expected = [
        *opening(),
        (numbers[0], CLIENT, "text", 5),
        (numbers[1], SERVER, "binary", 300),
        (numbers[2], SERVER, "ping", 1),
        (numbers[3], CLIENT, "pong", 1),
        (numbers[4], SERVER, "close", 5),
        (numbers[5], CLIENT, "close", 2),
        (numbers[5] + 1, SERVER, "fin", 0),
        (numbers[5] + 2, CLIENT, "fin", 0),
    ]
    assert only(talk) == expected


def test_times_and_codes(tmp_path):
    talk = Conversation().upgrade()
    number = talk.close(CLIENT, 4321, "why")
    talk.rst(SERVER)
    ((_, found),) = lives(tmp_path / "x", talk.pcap(nanoseconds=True))
    assert [e.code for e in found.events] == [None, None, 4321, None]
    source = str(tmp_path / "x")
    assert found.events[2] == Event(talk.packets[number - 1].ts_ns, number, CLIENT, "close", 5, 4321, source)
    assert found.events[3].kind is EventKind.RST


def test_frames_behind_the_opening_in_the_same_segments(only):
    """The end of a head and the first frames may share a segment, also where the head came in pieces."""
    talk = Conversation().open()
    talk.say(CLIENT, REQUEST[:40])
    talk.say(CLIENT, REQUEST[40:] + MASKED_TEXT + frame(9, mask=MASK))
    talk.say(SERVER, response()[:-1])
    talk.say(SERVER, response()[-1:] + TEXT + close(1000) + TEXT)
    expected = [
        (5, CLIENT, "request", len(REQUEST)),
        (5, CLIENT, "text", 5),
        (5, CLIENT, "ping", 0),
        (7, SERVER, "response", len(response())),
        (7, SERVER, "text", 5),
        (7, SERVER, "close", 2),
        (7, SERVER, "text", 5),
    ]
    assert only(talk) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 13, 1000])
def test_a_frame_over_many_segments(only, size):
    """A frame stands where its last byte does."""
    talk = Conversation().upgrade()
    data = frame(2, b"x" * 70_000 if size == 1000 else b"x" * 130, mask=MASK) + frame(1, b"end", mask=MASK)
    for at in range(0, len(data), size):
        talk.say(CLIENT, data[at : at + size])
    last = len(talk.packets)
    before = last if len(data) % size > 9 or size > 13 else 5 + -(-(len(data) - 9) // size)
    big = 70_000 if size == 1000 else 130
    assert only(talk) == [*opening(), (before, CLIENT, "binary", big), (last, CLIENT, "text", 3)]


def test_segments_out_of_order(only):
    """Bytes are told in their order, each frame with the latest packet that carried some of it."""
    talk = Conversation().upgrade()
    data, base = frame(1, b"a" * 20) + frame(1, b"b" * 20) + TEXT, talk.seq[SERVER]
    talk.segment(SERVER, data[30:], seq=base + 30)
    talk.segment(SERVER, data[10:30], seq=base + 10)
    talk.segment(SERVER, data[:10], seq=base)
    assert only(talk) == [*opening(), (6, SERVER, "text", 5), (7, SERVER, "text", 20), (8, SERVER, "text", 20)]


def test_retransmissions_tell_nothing_new(only):
    talk = Conversation().upgrade()
    for _ in range(3):
        talk.segment(SERVER, TEXT, seq=talk.seq[SERVER])
    assert only(talk) == [*opening(), (6, SERVER, "text", 5)]


def test_missing_bytes(only):
    """Frames are told again where step is found; the gap stands before the packet that showed it."""
    talk = Conversation().upgrade()
    talk.text(SERVER)
    talk.text(SERVER, lose=True)
    talk.say(SERVER, TEXT + TEXT)
    talk.close(SERVER, 1000)
    talk.end()
    expected = [
        *opening(),
        (6, SERVER, "text", 5),
        (7, SERVER, "missing", 7),
        (7, SERVER, "text", 5),
        (7, SERVER, "text", 5),
        (8, SERVER, "close", 2),
        (9, SERVER, "fin", 0),
        (10, CLIENT, "fin", 0),
    ]
    assert only(talk) == expected


def test_bytes_missing_inside_a_payload(only):
    """The frame around them goes on, and what follows it is known."""
    talk = Conversation().upgrade()
    data = frame(1, b"x" * 50) + TEXT
    talk.say(SERVER, data[:20])
    talk.say(SERVER, data[20:30], lose=True)
    talk.say(SERVER, data[30:])
    talk.end()
    events = [(7, SERVER, "missing", 10), (7, SERVER, "text", 50), (7, SERVER, "text", 5)]
    assert sorted(only(talk)[2:-2]) == sorted(events)


def test_bytes_missing_at_the_end_of_a_payload(only):
    """They were not captured, so the frame stands where its last captured byte does."""
    talk = Conversation().upgrade()
    data = frame(1, b"x" * 50)
    talk.say(SERVER, data[:20])
    talk.say(SERVER, data[20:], lose=True)
    talk.say(SERVER, TEXT)
    assert only(talk) == [*opening(), (6, SERVER, "text", 50), (7, SERVER, "missing", 32), (7, SERVER, "text", 5)]


def test_a_snaplen_leaves_gaps(only):
    talk = Conversation().upgrade()
    talk.say(CLIENT, frame(2, b"x" * 100, mask=MASK), captured=16)
    talk.text(CLIENT)
    assert only(talk) == [*opening(), (6, CLIENT, "binary", 100), (6, CLIENT, "missing", 90), (7, CLIENT, "text", 5)]


def test_a_close_cut_short_has_no_code(tmp_path):
    """As in the tables: its reason is not known, so neither is the Close as a whole."""
    talk = Conversation().upgrade()
    talk.close(SERVER, 1000, "reason", captured=6)
    ((row, found),) = lives(tmp_path / "x", talk.pcap())
    assert brief(found, 5) == [(6, SERVER, "close", 8), (6, SERVER, "missing", 4)]
    assert found.events[2].code is None
    agree(row, found)


def test_the_last_bytes_are_missing(only):
    """A FIN or RST tells how much came before it."""
    talk = Conversation().upgrade()
    talk.close(SERVER, 1000, "gone", lose=True)
    talk.fin(SERVER)
    talk.text(CLIENT, lose=True)
    talk.rst(CLIENT)
    expected = [(6, SERVER, "missing", 8), (6, SERVER, "fin", 0), (7, CLIENT, "missing", 11), (7, CLIENT, "rst", 0)]
    assert only(talk) == [*opening(), *expected]


def test_the_opening_is_missing(only):
    talk = Conversation().open()
    talk.segment(CLIENT, REQUEST, lose=True)
    talk.segment(SERVER, response())
    talk.say(CLIENT, MASKED_TEXT + MASKED_TEXT)
    talk.close(CLIENT, 1000)
    talk.end()
    expected = [
        (4, SERVER, "response", len(response())),
        (5, CLIENT, "missing", len(REQUEST)),
        (5, CLIENT, "text", 5),
        (5, CLIENT, "text", 5),
        (6, CLIENT, "close", 2),
        (7, SERVER, "fin", 0),
        (8, CLIENT, "fin", 0),
    ]
    assert only(talk) == expected


def test_a_capture_that_begins_later(only):
    """With its port given, frames are told from where step is found; that may be in a segment that came too early."""
    talk = Conversation()
    talk.say(SERVER, TEXT[3:])
    talk.say(SERVER, TEXT + TEXT, lose=True)
    talk.say(SERVER, TEXT + frame(9))
    talk.say(CLIENT, MASKED_TEXT)
    talk.say(CLIENT, MASKED_TEXT)
    expected = [(2, SERVER, "missing", 14), (2, SERVER, "text", 5), (2, SERVER, "ping", 0)]
    expected += [(3, CLIENT, "text", 5), (4, CLIENT, "text", 5)]
    assert only(talk, ports=(80,)) == expected


def test_strange_frames(tmp_path):
    """A reserved opcode, a later Close, a length beyond belief: each is an event, and none ends the reading."""
    talk = Conversation().upgrade()
    talk.say(SERVER, frame(3, b"ab") + frame(15, b"abc") + close(1000) + close(1001, "again") + TEXT)
    talk.say(CLIENT, frame(2, b"", length_bytes=8, length=2**63 + 5, mask=MASK) + MASKED_TEXT * 2)
    talk.say(CLIENT, MASKED_TEXT + MASKED_TEXT)
    ((row, found),) = lives(tmp_path / "x", talk.pcap())
    expected = [
        (6, SERVER, "reserved", 2),
        (6, SERVER, "reserved", 3),
        (6, SERVER, "close", 2),
        (6, SERVER, "close", 7),
        (6, SERVER, "text", 5),
        (7, CLIENT, "binary", 2**63 - 1),
        (8, CLIENT, "text", 5),
        (8, CLIENT, "text", 5),
    ]
    assert brief(found, 5) == expected
    assert [e.code for e in found.events if e.kind == "close"] == [1000, None]
    agree(row, found)


def test_a_close_of_absurd_length(tmp_path):
    talk = Conversation().upgrade()
    talk.say(SERVER, close(None, length_bytes=8, length=2**64 - 1))
    ((row, found),) = lives(tmp_path / "x", talk.pcap())
    assert brief(found, 5) == [(6, SERVER, "close", 2**63 - 1)]
    agree(row, found)


def to_ipv6(data, hosts):
    """The same TCP segment over IPv6."""
    addresses = [hosts[data[14 + 12 + 4 * i : 14 + 16 + 4 * i]].packed for i in range(2)]
    segment = data[34:]
    return ethernet(
        b"\x60\0\0\0" + len(segment).to_bytes(2, "big") + b"\x06\x40" + b"".join(addresses) + segment, 0x86DD
    )


@pytest.mark.parametrize("client", ["2001:db8::1", "ffff:ffff:8000::ffff", "::1"])
def test_ipv6(tmp_path, client):
    """Also beside a neighbour whose address has the same lower half."""
    hosts = {b"\x0a\0\0\x01": IPv6Address(client), b"\x0a\0\0\x02": IPv6Address("fe80::8000:0:0:2")}
    hosts[b"\x0a\0\0\x03"] = IPv6Address(int(IPv6Address(client)) ^ 1 << 64)
    talk, neighbour = Conversation().upgrade(), Conversation(client="10.0.0.3").upgrade()
    for one in (talk, neighbour):
        one.text(CLIENT)
        one.text(SERVER)
        one.end()
    for packet in (packets := talk.packets + neighbour.packets):
        packet.data = to_ipv6(packet.data, hosts)
    (row, found), (_, other) = lives(tmp_path / "x", pcap(packets))
    assert row["client"] == f"[{client}]:40000"
    expected = [(6, CLIENT, "text", 5), (7, SERVER, "text", 5), (8, SERVER, "fin", 0), (9, CLIENT, "fin", 0)]
    assert brief(found, 5) == expected
    assert brief(other, 15) == [(packet + 10, *rest) for packet, *rest in expected]


# which connection


def test_attempts_on_one_tcp_connection(tmp_path):
    """Each has its own events; the transport's end is the last one's."""
    talk = Conversation().upgrade(answer=REFUSED)
    talk.say(CLIENT, REQUEST)
    talk.say(SERVER, response() + TEXT)
    talk.end()
    (first, refused), (second, found) = lives(tmp_path / "x", talk.pcap())
    assert second["connection"] == f"{first['connection']}-2"
    head = len(REFUSED) - 3
    assert brief(refused) == [(4, CLIENT, "request", len(REQUEST)), (5, SERVER, "response", head)]
    assert brief(found) == [*opening(6), (7, SERVER, "text", 5), (8, SERVER, "fin", 0), (9, CLIENT, "fin", 0)]


def test_a_refused_attempt_ends_with_its_tcp_connection(only):
    talk = Conversation().upgrade(answer=REFUSED)
    talk.end()
    assert [kind for _, _, kind, _ in only(talk)] == ["request", "response", "fin", "fin"]


def test_the_same_ports_again(tmp_path):
    """Another TCP connection between the same ports is another life, also where the first was left open."""
    talk = Conversation().upgrade()
    talk.text(CLIENT)
    again = Conversation(isn={CLIENT: 900_000, SERVER: 800_000}, ts_ns=talk.ts_ns + 10**6).upgrade()
    again.close(CLIENT, 1000)
    again.end()
    third = Conversation(isn={CLIENT: 90_000, SERVER: 80_000}, ts_ns=again.ts_ns + 10**10).upgrade()
    third.say(SERVER, frame(9))
    (_, one), (_, two), (_, three) = lives(tmp_path / "x", pcap(talk.packets + again.packets + third.packets))
    assert brief(one) == [*opening(), (6, CLIENT, "text", 5)]
    assert brief(two) == [*opening(10), (12, CLIENT, "close", 2), (13, SERVER, "fin", 0), (14, CLIENT, "fin", 0)]
    assert brief(three) == [*opening(19), (21, SERVER, "ping", 0)]


def test_the_same_ports_at_the_same_time(tmp_path):
    """Without clocks two lives may have one key: the first is told, not both in one."""
    talk = Conversation(step_ns=0).upgrade()
    talk.text(CLIENT)
    again = Conversation(isn={CLIENT: 900_000, SERVER: 800_000}, step_ns=0).upgrade()
    again.say(SERVER, frame(9))
    (first, one), (second, two) = lives(tmp_path / "x", pcap(talk.packets + again.packets))
    assert first["connection"] == second["connection"]
    assert brief(one) == brief(two) == [*opening(), (6, CLIENT, "text", 5)]


def test_packets_of_others_are_passed_over(tmp_path):
    """Other flows, among them some with the same ports or addresses, over several chunks."""
    talk = Conversation().upgrade()
    others = [Conversation(sport=40001), Conversation(client="10.0.0.3"), Conversation(server="10.0.0.3")]
    others += [Conversation(client="10.0.0.2", server="10.0.0.1")]
    for other in others:
        other.upgrade()
    for i in range(230):
        for one in [talk, *others]:
            one.text(CLIENT if i % 2 else SERVER)
    for one in [talk, *others]:
        one.end()
    packets = sorted((p for one in [talk, *others] for p in one.packets), key=lambda packet: packet.ts_ns)
    numbers = {id(packet): number for number, packet in enumerate(packets, 1)}
    found = {(row["client"], row["server"]): told for row, told in lives(tmp_path / "x", pcap(packets))}
    assert len(found) == 1 + len(others)
    for one in [talk, *others]:
        told = found[f"{one.client}:{one.sport}", f"{one.server}:{one.dport}"].events
        assert [(e.packet, e.ts_ns) for e in told] == [(numbers[id(p)], p.ts_ns) for p in one.packets[3:-1]]
        assert [str(e.kind) for e in told] == ["request", "response", *["text"] * 230, "fin", "fin"]


def test_a_limit_may_cut_a_tcp_connection_in_two(tmp_path):
    """What a limit dropped is told whole, as it was captured; its later part is no connection of its own."""
    talk, other = Conversation().upgrade(), Conversation(sport=40001)
    for one, ts_ns in ((other, talk.ts_ns + 10), (talk, talk.ts_ns + 20)):
        one.ts_ns = ts_ns
        one.say(SERVER, TEXT + frame(9))
    packets = talk.packets[:5] + other.packets + talk.packets[5:]
    (tmp_path / "x").write_bytes(pcap(packets))
    rows = analyze(pcap(packets), ports=(80,), max_flows=1)[1]
    told = [brief(read_life(Source("x", tmp_path / "x"), row, ports=(80,))) for row in rows]
    late = [(7, SERVER, "text", 5), (7, SERVER, "ping", 0)]
    assert told == [[*opening(), *late], [(6, *rest) for _, *rest in late]]


def test_a_connection_of_another_capture_has_no_events(tmp_path):
    talk = Conversation().upgrade()
    row = analyze(talk.pcap())[1][0]
    other = Conversation(ts_ns=talk.ts_ns).upgrade().write(tmp_path / "x")
    assert read_life(Source("x", other), row) == Life([], 0)


@pytest.mark.parametrize(
    "change",
    [
        {"client": "10.0.0.1"},
        {"client": "10.0.0.9:1"},
        {"server": None},
        {"connection": "today-10.0.0.1:40000-10.0.0.2:80"},
        {"connection": "20231114T221320.001000000Z-10.0.0.1:40000-10.0.0.2:80-x"},
        {"connection": "20231114T221320.001000000Z-2"},
        {"connection": None},
    ],
)
def test_what_is_no_connection_is_refused(tmp_path, change):
    talk = Conversation().upgrade()
    row = analyze(talk.pcap())[1][0]
    assert read_life(Source("x", talk.write(tmp_path / "x")), row).events
    with pytest.raises(UsageError, match="not a row of the connections table: "):
        read_life(Source("x", tmp_path / "x"), row | change)
    with pytest.raises(UsageError, match="'client'"):
        read_life(Source("x", tmp_path / "x"), {"connection": row["connection"]})


# limits and damage


def chatter():
    """19 events, no two of them alike, and a frame with a gap in it."""
    talk = Conversation().upgrade()
    for i in range(5):
        talk.say(SERVER, frame(1, b"x" * 2 * i) + frame(1, b"x" * (2 * i + 1)))
    large = frame(2, b"x" * 90)
    talk.say(SERVER, large[:20])
    talk.say(SERVER, large[20:40], lose=True)
    talk.say(SERVER, large[40:] + frame(9, b"?"))
    talk.ack(CLIENT)
    talk.wait(3)
    talk.close(SERVER, 1001)
    talk.close(CLIENT, 1001)
    talk.end()
    return talk


@pytest.mark.parametrize("most", range(21))
def test_what_a_limit_leaves_out_is_counted(tmp_path, most):
    """Kept are the first events, whole also where the limit falls into a frame, the Closes and the transport's end."""
    content = chatter().pcap()
    ((_, whole),) = lives(tmp_path / "x", content)
    ((_, found),) = lives(tmp_path / "x", content, max_events=most)
    assert len(set(whole.events)) == len(whole.events) == 19
    ends = ("close", "fin", "rst")
    assert found.events == [e for i, e in enumerate(whole.events) if i < most or e.kind in ends]
    assert len(found.events) + found.n_more == 19


def test_there_is_a_limit(tmp_path, monkeypatch):
    assert life.MAX_EVENTS == 20_000
    talk = Conversation().upgrade()
    talk.say(SERVER, frame(9) * (life.MAX_EVENTS + 5))
    ((_, found),) = lives(tmp_path / "x", talk.pcap())
    assert (len(found.events), found.n_more) == (life.MAX_EVENTS, 7)


def test_cut_off_captures_give_what_was_read(tmp_path):
    talk = chatter()
    content = talk.pcap()
    ((row, whole),) = lives(tmp_path / "x", content)
    (tmp_path / "cut").write_bytes(content[:-100])
    found = read_life(Source(str(tmp_path / "x"), tmp_path / "cut"), row)
    assert found.events == [e for e in whole.events if e.packet < len(talk.packets) - 1]
    assert len(found.events) == 18


def test_damaged_captures_give_what_was_read(tmp_path):
    talk = chatter()
    ((row, whole),) = lives(tmp_path / "x", talk.pcap())
    good = pcap(talk.packets[:8])
    (tmp_path / "damaged").write_bytes(good + b"\xff" * 500)
    found = read_life(Source(str(tmp_path / "x"), tmp_path / "damaged"), row)
    assert found.events == [e for e in whole.events if e.packet <= 8]
    assert len(found.events) == 8


def test_packed_captures_are_unpacked(tmp_path):
    content = chatter().pcap()
    ((row, whole),) = lives(tmp_path / "x", content)
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    assert read_life(Source(str(tmp_path / "x"), tmp_path / "x.gz"), row) == whole
    assert len(whole.events) == 19


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(b"GET / HTTP/1.1\r\n"), "not a capture (neither pcap nor pcapng)"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: None, "no such file or directory"),
    ],
)
def test_what_is_no_capture_is_refused(tmp_path, make, why):
    row = analyze(Conversation().upgrade().pcap())[1][0]
    make(tmp_path / "x")
    with pytest.raises(CaptureError) as caught:
        read_life(Source("x", tmp_path / "x"), row)
    assert str(caught.value) == f"x: {why}"


def test_a_disk_that_fails_is_a_capture_that_cannot_be_read(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    row = analyze(Conversation().upgrade().pcap())[1][0]
    monkeypatch.setattr(Unpacked, "readinto", fail)
    with pytest.raises(CaptureError, match="x: input/output error"):
        read_life(Source("x", Conversation().upgrade().write(tmp_path / "x")), row)


# DataFrames


def test_to_pandas(tmp_path):
    ((_, found),) = lives(tmp_path / "x", chatter().pcap())
    table = found.to_pandas()
    assert list(table.columns) == ["time", "packet", "side", "kind", "payload_bytes", "code", "source"]
    kinds = {name: str(kind) for name, kind in table.dtypes.items()}
    expected = {"time": "datetime64[ns, UTC]", "packet": "Int64", "side": "category", "kind": "category"}
    assert kinds == expected | {"payload_bytes": "Int64", "code": "Int32", "source": "str"}
    assert table["time"].astype("int64").tolist() == [e.ts_ns for e in found.events]
    assert table[table["kind"] == "close"]["code"].tolist() == [1001, 1001]
    assert table["code"].isna().sum() == len(table) - 2
    assert table.groupby("side", observed=True)["payload_bytes"].sum().to_dict() == {
        side: sum(e.payload_bytes for e in found.events if e.side == side) for side in (CLIENT, SERVER)
    }


def test_to_pandas_of_nothing():
    table = Life([], 0).to_pandas()
    assert (list(table.columns), len(table)) == ([column.name for column in life.LIFE], 0)
    assert isinstance(table["time"].dtype, pd.DatetimeTZDtype)


# properties


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("life")


opcodes = st.sampled_from([0, 1, 2, 3, 8, 9, 10, 15])
said = st.tuples(st.sampled_from([CLIENT, SERVER]), opcodes, st.integers(0, 140))


@settings(max_examples=60)
@given(st.lists(said, max_size=8), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_frames_cut_anyhow(folder, story, cuts):
    """Each frame that was written is an event, at the packet that carried its last byte."""
    talk = Conversation().upgrade()
    expected = []
    for side in (CLIENT, SERVER):
        mine = [(opcode, n) for who, opcode, n in story if who == side]
        written = [frame(opcode, b"a" * n, mask=MASK if side == CLIENT else None) for opcode, n in mine]
        data, before = b"".join(written), len(talk.packets)
        places = [0]
        while places[-1] < len(data):
            places.append(min(len(data), places[-1] + cuts[len(places) % len(cuts)]))
        for begin, end in pairwise(places):
            talk.say(side, data[begin:end])
        for (opcode, n), end in zip(mine, accumulate(map(len, written)), strict=True):
            packet = before + next(i for i, place in enumerate(places) if place >= end)
            expected.append((packet, side, KINDS.get(opcode, "reserved"), n))
    ((row, found),) = lives(folder / "x", talk.pcap())
    assert brief(found, 5) == expected
    agree(row, found)


pieces = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(lambda opcode, n, mask: frame(opcode, b"\3\xe8" * n, mask=mask), opcodes, st.integers(0, 70), st.none()),
    st.builds(lambda n: frame(2, b"abc", length_bytes=8, length=n, mask=MASK), st.sampled_from([3, 2**63 - 1, 2**63])),
    st.sampled_from([MASKED_TEXT, close(1000, mask=MASK), REQUEST, response(), REFUSED, REQUEST[:30], b"G"]),
)
turns = st.tuples(
    st.sampled_from([CLIENT, SERVER]), pieces, st.sampled_from(["", "", "", "", "lose", "cut", "fin", "rst", "swap"])
)


def write_down(told, *, has_opening):
    talk = Conversation(step_ns=10**8)
    if has_opening:
        talk.upgrade()
    for side, data, how in told:
        talk.segment(
            side,
            data,
            ACK | FIN if how == "fin" else ACK,
            lose=how == "lose",
            captured=len(data) // 2 if how == "cut" else None,
        )
        if how == "rst":
            talk.rst(side)
        if how == "swap" and len(talk.packets) > 1:
            talk.packets[-2:] = talk.packets[:-3:-1]
    return talk.pcap()


stories = st.builds(lambda told, has: write_down(told, has_opening=has), st.lists(turns, max_size=14), st.booleans())


@settings(max_examples=80)
@given(stories, st.integers(0, 30))
def test_any_traffic_makes_events(folder, content, most):
    """Whatever is said: the events are those that the table counts, and a limit loses none of them."""
    for row, found in lives(folder / "x", content, ports=(80,)):
        agree(row, found)
        some = read_life(Source(str(folder / "x"), folder / "x"), row, ports=(80,), max_events=most)
        assert len(some.events) + some.n_more == len(found.events)
        assert {e for e in found.events if e.kind in ("fin", "rst")} <= set(some.events)


UNTOLD = ("activity_ns", "header", "mask", "final", "masked", "message_bytes", "head")
"""What a walk overwrites or writes down a little later when it reads in smaller steps, and nobody reads at the end; and
the number of the place that an unfinished HTTP head lay in."""


def rows_at_the_end(reader, tracker):
    some = [one for chunk in reader.chunks() for one in tracker.feed(chunk)] + tracker.finish()
    tables = [[getattr(one, name) for one in some] for name in ("connections", "flows", "streams", "sides")]
    rows = [row for table in tables for part in table for row in part.ravel()]
    return [{name: row[name].tolist() for name in row.dtype.names if name not in UNTOLD} for row in rows]


@settings(max_examples=30)
@given(stories)
def test_reading_in_steps_changes_nothing(content):
    """The same kernels come to the same rows, whether they read a segment whole or in pieces."""
    rows = analyze(content, ports=(80,))[1]
    whole = rows_at_the_end(Reader(io.BytesIO(content), "x"), Tracker(ports=(80,)))
    for row in rows:
        follower = life._Follower(life.parse_wanted(row), ports=(80,), max_events=100)
        assert rows_at_the_end(Reader(io.BytesIO(content), "x"), follower) == whole


@settings(max_examples=60)
@given(st.data())
def test_any_bytes_make_events(folder, data):
    """A capture whose bytes were changed at random raises nothing that it should not."""
    content = bytearray(chatter().pcap())
    row = analyze(bytes(content))[1][0]
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(24, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "x"
    path.write_bytes(content[: data.draw(st.integers(24, len(content)))])
    found = read_life(Source("x", path), row)
    assert all(e.kind in EventKind for e in found.events)
    for other in analyze(path.read_bytes())[1]:
        agree(other, read_life(Source("x", path), other))
