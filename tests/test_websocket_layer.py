"""The WebSocket layer for scapy: what it builds is what the RFC, our own builder and tshark say, and back again."""

import subprocess

import pytest
from conftest import SAMPLES
from hypothesis import given
from hypothesis import strategies as st
from packets import CLIENT, MASK, SERVER, Conversation, close, frame
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Padding, Raw, bind_layers
from scapy.sendrecv import sniff
from scapy.sessions import TCPSession
from scapy.utils import rdpcap

import analyzer
from analyzer.capture import scapy_io
from analyzer.capture.scapy_io import WebSocket, bind_port


@pytest.fixture
def port():
    """A TCP port that is bound to frames during a test."""
    before = list(TCP.payload_guess), WebSocket._overload_fields
    bind_port(8765)
    yield 8765
    TCP.payload_guess[:], WebSocket._overload_fields = before


RFC_EXAMPLES = {
    "810548656c6c6f": {"opcode": 1, "data": b"Hello"},
    "818537fa213d7f9f4d5158": {"opcode": 1, "mask": 1, "key": MASK, "data": b"Hello"},
    "010348656c": {"fin": 0, "opcode": 1, "data": b"Hel"},
    "80026c6f": {"opcode": 0, "data": b"lo"},
    "890548656c6c6f": {"opcode": 9, "data": b"Hello"},
    "8a8537fa213d7f9f4d5158": {"opcode": 10, "mask": 1, "key": MASK, "data": b"Hello"},
    "827e0100" + "5a" * 256: {"opcode": 2, "data": b"Z" * 256},
    "827f0000000000010000" + "5a" * 65536: {"opcode": 2, "data": b"Z" * 65536},
}
"""RFC 6455 section 5.7, in its order; its two long ones show no payload bytes."""


@pytest.mark.parametrize("content", RFC_EXAMPLES, ids=lambda text: text[:24])
def test_the_examples_of_the_rfc_both_ways(content):
    wanted = RFC_EXAMPLES[content]
    assert bytes(WebSocket(**wanted)).hex() == content
    read = WebSocket(bytes.fromhex(content))
    assert {name: getattr(read, name) for name in wanted} == wanted
    assert not read.payload
    assert bytes(read).hex() == content


def test_the_bits_of_the_first_byte_stand_where_the_rfc_draws_them():
    """RFC 6455 section 5.2."""
    for value, name in ((0x80, "fin"), (0x40, "rsv1"), (0x20, "rsv2"), (0x10, "rsv3")):
        bits = dict.fromkeys(("fin", "rsv1", "rsv2", "rsv3"), 0) | {name: 1}
        assert bytes(WebSocket(opcode=3, **bits)) == bytes([value | 3, 0])


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (close(), None, b""),
        (close(1000), 1000, b""),
        (close(1001, "tschüss"), 1001, "tschüss".encode()),
        (close(4999, "x" * 123, mask=MASK), 4999, b"x" * 123),
        (frame(8, b"\x03"), None, b"\x03"),
    ],
)
def test_close_bodies_are_fields(content, status, reason):
    """RFC 6455 section 5.5.1."""
    read = WebSocket(content)
    assert (read.opcode, read.status, read.reason) == (8, status, reason)
    built = WebSocket(opcode="close", mask=read.mask, key=MASK, status=status, reason=reason)
    assert bytes(built) == bytes(read) == content


def test_lengths_are_kept_even_where_they_are_longer_than_they_must_be():
    for content in (frame(1, b"abc", length_bytes=2), frame(1, b"abc", length_bytes=8, mask=MASK), b"\x81\x05ab"):
        assert bytes(WebSocket(content)) == content
    assert bytes(WebSocket(len=126, data=b"abc")) == frame(1, b"abc", length_bytes=2)
    assert bytes(WebSocket(len=127, mask=1, key=MASK, data=b"abc")) == frame(1, b"abc", length_bytes=8, mask=MASK)


def test_frames_of_one_segment_follow_each_other(port):
    content = frame(1, b"one", mask=MASK) + frame(9, b"") + close(1000, "bye", mask=MASK) + b"\x81"
    packet = Ether(bytes(Ether() / IP() / TCP(dport=port) / Raw(content)))
    found = packet[TCP].payload
    assert [found[WebSocket : i + 1].opcode for i in range(3)] == [1, 9, 8]
    assert packet.lastlayer() == Raw(b"\x81")
    assert bytes(packet[TCP].payload) == content
    assert packet.summary().endswith(
        "WebSocket text 3 bytes / WebSocket ping 0 bytes / WebSocket close 1000 b'bye' / Raw"
    )


def test_an_edited_frame_is_masked_anew():
    read = WebSocket(close(1000, "bye", mask=MASK))
    read.reason, read.len = b"", None
    assert bytes(read) == close(1000, mask=MASK)
    read.key = b"abcd"
    assert bytes(read) == close(1000, mask=b"abcd")


def test_what_people_read_names_status_and_opcode():
    text = WebSocket(close(1001, "bye", mask=MASK)).show(dump=True)
    for line in ("opcode    = close", "status    = going away", "reason    = b'bye'", "key       = 37fa213d"):
        assert line in text, line
    assert "data" not in text
    assert WebSocket(close()).summary() == "WebSocket close without status"
    assert WebSocket(frame(11, b"x")).summary() == "WebSocket opcode 11 1 bytes"


def test_http_on_a_bound_port_is_no_frame(port):
    talk = Conversation(dport=port).upgrade()
    for sent in talk.packets:
        assert WebSocket not in Ether(sent.data)
    assert isinstance(WebSocket(b"HTTP/1.1 400 No\r\n\r\n"), Raw)


def test_a_port_that_was_bound_before_is_bound_anew(port):
    bind_layers(TCP, Padding, dport=port + 1)
    assert TCP(dport=port + 1).guess_payload_class(b"x") is Padding
    bind_port(port + 1)
    assert TCP(dport=port + 1).guess_payload_class(b"x") is WebSocket


def test_frames_over_several_segments_come_together_in_a_tcp_session(port, tmp_path):
    talk = Conversation(dport=port).upgrade()
    content = frame(1, b"x" * 300, mask=MASK) + close(1000, "bye", mask=MASK)
    for at in range(0, len(content), 100):
        talk.segment(CLIENT, content[at : at + 100])
    talk.close(SERVER, 1000, "bye")
    talk.end()
    path = talk.write(tmp_path / "x.pcap")
    found = sniff(offline=str(path), session=TCPSession, quiet=True)
    frames = []
    for packet in found:
        layer = packet.getlayer(WebSocket)
        while isinstance(layer, WebSocket):
            frames.append((packet.sport == 40000, layer.opcode, layer.status or layer.data))
            layer = layer.payload
    assert frames == [(True, 1, b"x" * 300), (True, 8, 1000), (False, 8, 1000)]


def test_many_frames_in_one_payload_have_a_limit():
    content = frame(9) * 5000
    read = WebSocket(content)
    n, layer = 0, read
    while isinstance(layer, WebSocket):
        n, layer = n + 1, layer.payload
    assert n == scapy_io.MAX_FRAMES
    assert bytes(layer) == frame(9) * (5000 - n)
    assert bytes(read) == content
    assert len(read.summary()) > n


FRAMES = st.builds(
    lambda opcode, payload, mask, fin, rsv, length_bytes: frame(
        opcode, payload, mask=mask, fin=fin, rsv=rsv, length_bytes=length_bytes
    ),
    st.integers(0, 15),
    st.binary(max_size=120) | st.integers(126, 300).map(lambda n: b"x" * n),
    st.none() | st.binary(min_size=4, max_size=4),
    st.booleans(),
    st.integers(0, 7),
    st.sampled_from([2, 8]),
)


@given(st.lists(FRAMES, min_size=1, max_size=5))
def test_dissecting_and_building_are_inverse(frames):
    content = b"".join(frames)
    read = WebSocket(content)
    assert bytes(read) == content
    assert bytes(read.copy()) == content
    layers = [layer for layer in read.iterpayloads() if isinstance(layer, WebSocket)]
    assert [bytes(layer)[: len(one)] for layer, one in zip(layers, frames, strict=True)] == frames


@given(
    st.integers(0, 15),
    st.binary(max_size=200),
    st.none() | st.binary(min_size=4, max_size=4),
    st.none() | st.integers(0, 65535),
    st.integers(0, 7),
)
def test_built_fields_are_read_back_and_agree_with_the_plain_builder(opcode, payload, key, status, rsv):
    more = {"mask": 1, "key": key} if key is not None else {}
    more |= {f"rsv{i + 1}": rsv >> (2 - i) & 1 for i in range(3)}
    if opcode == 8:
        payload = payload if status is not None else b""
        built = WebSocket(opcode=8, status=status, reason=payload, **more)
        plain = close(status, payload, mask=key, rsv=rsv)
    else:
        built = WebSocket(opcode=opcode, data=payload, **more)
        plain = frame(opcode, payload, mask=key, rsv=rsv)
    assert bytes(built) == plain
    read = WebSocket(bytes(built))
    assert (read.opcode, read.status if opcode == 8 else None) == (opcode, status if opcode == 8 else None)
    assert (read.reason if opcode == 8 else read.data) == payload


@given(st.binary(max_size=300))
def test_hostile_bytes_never_raise(content):
    read = WebSocket(content)
    assert isinstance(read, Packet)
    if content:
        assert bytes(read) == content
    read.summary()
    read.show2(dump=True)
    repr(read)
    for end in (False, True):
        whole = WebSocket.tcp_reassemble(content, {"tcp_end": True} if end else {}, {})
        assert whole is None or bytes(whole) == content


@pytest.mark.parametrize(
    "content", [b"\xff" * n for n in range(20)] + [b"\x88\x7f" + b"\xff" * 8 + b"x", b"\x81\xfe\xff"]
)
def test_impossible_lengths(content):
    assert bytes(WebSocket(content)) == content


def test_whole_frames_leave_the_rest_to_the_next_segment():
    whole = WebSocket.tcp_reassemble(frame(1, b"abc") + b"\x81\x05he", {}, {})
    assert (whole.data, whole[Padding].load) == (b"abc", b"\x81\x05he")
    assert WebSocket.tcp_reassemble(b"\x81\x05he", {}, {}) is None
    assert WebSocket.tcp_reassemble(b"\x81\x05he", {"tcp_end": True}, {}).data == b"he"
    assert WebSocket.tcp_reassemble(b"GET / HTTP/1.1\r\n", {}, {}) is None


@pytest.mark.needs_tshark
def test_tshark_reads_what_it_builds(tshark, tmp_path):
    talk = Conversation().upgrade()
    talk.segment(CLIENT, bytes(WebSocket(mask=1, key=MASK, data=b"Hello") / WebSocket(opcode="ping", mask=1, key=MASK)))
    talk.segment(SERVER, bytes(WebSocket(opcode="binary", data=b"x" * 300, rsv3=1)))
    talk.segment(CLIENT, bytes(WebSocket(opcode="close", mask=1, key=b"abcd", status=4001, reason="bye")))
    talk.segment(SERVER, bytes(WebSocket(opcode="close", status=4001, reason="bye")))
    talk.end()
    path = talk.write(tmp_path / "x.pcap")
    names = [
        "fin",
        "opcode",
        "mask",
        "masking_key",
        "payload.close.status_code",
        "payload.close.reason",
        "payload_length",
    ]
    command = [tshark, "-n", "-r", str(path), "-Y", "websocket", "-T", "fields", "-E", "separator=|"]
    command += [part for name in names for part in ("-e", f"websocket.{name}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.lower().replace("true", "1").replace("false", "0").split("|") for line in done.stdout.splitlines()]
    assert rows == [
        ["1,1", "1,9", "1,1", "37fa213d,37fa213d", "", "", "5,0"],
        ["1", "2", "0", "", "", "", "126"],
        ["1", "8", "1", "61626364", "4001", "bye", "5"],
        ["1", "8", "0", "", "4001", "bye", "5"],
    ]


def test_our_own_kernels_read_what_it_builds():
    talk = Conversation().upgrade()
    talk.segment(SERVER, bytes(WebSocket(opcode="close", status=1011, reason="no")))
    talk.segment(CLIENT, bytes(WebSocket(opcode="close", mask=1, key=MASK, status=1011, reason="no")))
    talk.end()
    closes = analyzer.read_packets([Ether(packet.data) for packet in talk.packets]).closes
    assert list(closes["code"]) == [1011, 1011]
    assert list(closes["reason"]) == ["no", "no"]


def test_a_recorded_capture_shows_its_closes_to_scapy_alone(port):
    packets = rdpcap(str(SAMPLES / "normal-1000.pcap"))
    server = packets[0][TCP].dport
    bind_port(server)
    read = [Ether(bytes(packet)) if packet.name == "Ethernet" else type(packet)(bytes(packet)) for packet in packets]
    closes = [packet[WebSocket] for packet in read if WebSocket in packet and packet[WebSocket].opcode == 8]
    assert [(one.status, one.reason, one.mask) for one in closes] == [(1000, b"done", 1), (1000, b"done", 0)]
