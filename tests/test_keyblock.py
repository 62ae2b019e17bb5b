"""Key lines in pcapng: which blocks and options hold them, and that nothing else in a file does."""

import io
import random
import struct

import pytest
from conftest import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import CLIENT, Conversation, pcapng, read_secrets
from reading import gather, to_rows
from test_unwrap import BYE, HELLO, keys_of, make_talk, views, write_down
from tlswire import make_contexts

from analyzer.analysis import stream
from analyzer.capture import container, keyblock, keylog
from analyzer.capture.container import Reader
from analyzer.capture.keyblock import KeyWalker
from analyzer.capture.tracker import Tracker
from analyzer.keys import KeyRing
from analyzer.series import find_series, read_with_keys
from analyzer.sources import Source

TLS, SSH, WIREGUARD = 0x544C534B, 0x5353484B, 0x57474B4C


def line(number, label="CLIENT_RANDOM", secret=48):
    return f"{label} {bytes([number] * 32).hex()} {bytes([number] * secret).hex()}\n".encode()


class Writer:
    """Blocks as the draft's section 3 and 4 show them, in either byte order."""

    def __init__(self, order="<"):
        self.order = order

    def pack(self, form, *values):
        return struct.pack(self.order + form, *values)

    def block(self, kind, body):
        body += bytes(-len(body) % 4)
        length = self.pack("I", len(body) + 12)
        return self.pack("I", kind) + length + body + length

    def options(self, *pairs, end=True):
        data = b"".join(self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in pairs)
        return data + (bytes(4) if end else b"")

    def section(self, *pairs):
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, 1, 0, -1) + self.options(*pairs))

    def interface(self, *pairs):
        return self.block(1, self.pack("HHI", 1, 0, 0) + self.options(*pairs))

    def packet(self, data, *pairs, kind=6):
        head = self.pack("IIIII", 0, 0, 0, len(data), len(data))
        return self.block(kind, head + data + bytes(-len(data) % 4) + self.options(*pairs))

    def simple(self, data):
        return self.block(3, self.pack("I", len(data)) + data)

    def statistics(self, *pairs):
        return self.block(5, self.pack("III", 0, 0, 0) + self.options(*pairs))

    def names(self, *pairs):
        record = self.pack("HH", 1, 9) + b"\x7f\0\0\1host\0" + bytes(3)
        return self.block(4, record + bytes(4) + self.options(*pairs))

    def secrets(self, data, *pairs, kind=TLS):
        return self.block(10, self.pack("II", kind, len(data)) + data + bytes(-len(data) % 4) + self.options(*pairs))


def walk(content, sizes=()):
    walker, texts, off = KeyWalker(), [], 0
    for size in [*sizes, len(content)]:
        texts += walker.feed(content[off : off + size])
        off += size
    return texts


def comment(number):
    return 1, line(number)


@pytest.fixture(params=["<", ">"], ids=["little", "big"])
def writer(request):
    return Writer(request.param)


def test_key_lines_are_found_in_secrets_and_in_comments_of_any_block(writer):
    blocks = [
        writer.section((2, b"machine" * 30), comment(1)),
        writer.interface((2, b"eth0"), comment(2), (9, b"\6")),
        writer.names(comment(3)),
        writer.packet(b"x" * 61, (2, b"\0\0\0\0"), comment(4)),
        writer.packet(b"y" * 64, comment(5), kind=2),
        writer.statistics(comment(6)),
        writer.secrets(line(7) + line(8), comment(9)),
    ]
    assert walk(b"".join(blocks)) == [*map(line, range(1, 7)), line(7) + line(8), line(9)]


def test_several_sections_of_either_byte_order():
    little, big = Writer("<"), Writer(">")
    parts = [
        w.section() + w.interface() + w.packet(b"x" * 500) + w.secrets(line(i))
        for i, w in enumerate([little, big, big, little])
    ]
    assert walk(b"".join(parts)) == [*map(line, range(4))]


def test_the_shortest_key_line_in_a_packets_comment(writer):
    shortest = line(1, "SERVER_TRAFFIC_SECRET_0", secret=32).strip()
    data = writer.pack("IIIII", 0, 0, 0, 4, 4) + b"data" + writer.options((1, shortest), end=False)
    assert len(writer.options((1, shortest), end=False)) == keyblock.LEAST_BYTES
    assert walk(writer.section() + writer.block(6, data)) == [shortest]


def test_what_packets_carry_is_no_key(writer):
    fake = writer.secrets(line(1)) + writer.options(comment(1)) + line(1)
    for kind in (6, 2):
        assert walk(writer.section() + writer.packet(fake * 5, kind=kind) + writer.secrets(line(2))) == [line(2)]
    assert walk(writer.section() + writer.simple(fake) + writer.secrets(line(2))) == [line(2)]
    assert walk(writer.section() + writer.block(0x80000BAD, fake) + writer.secrets(line(2))) == [line(2)]
    assert walk(writer.section() + writer.interface((2, line(1)), (11, line(1)))) == []


@pytest.mark.parametrize("kind", [SSH, WIREGUARD, 0, 0xFFFFFFFF])
def test_secrets_of_other_protocols_are_left_alone(writer, kind):
    assert walk(writer.section() + writer.secrets(line(1), comment(2), kind=kind)) == [line(2)]


def test_it_ends_where_reading_packets_ends(writer):
    good, more = writer.section() + writer.secrets(line(1)), writer.secrets(line(2))
    broken = bytearray(writer.packet(b"x" * 40))
    broken[-1] ^= 1
    long = bytearray(writer.packet(b"x" * 40))
    long[20:24] = writer.pack("I", 1 << 20)
    huge = writer.pack("II", 6, container.MAX_RECORD_BYTES + 4)
    for damage in (bytes(broken), bytes(long), huge, writer.pack("II", 6, 8), writer.pack("II", 10, 13)):
        content = good + damage + more
        reader = Reader(io.BytesIO(good + writer.interface() + damage + more), "test")
        list(reader.chunks())
        assert reader.damaged_at is not None
        assert walk(content) == [line(1)]
        assert walk(content, [1] * len(content)) == [line(1)]
    assert walk(writer.section()[:8] + b"abcd" + more) == []


def test_what_is_no_pcapng_is_not_kept(writer):
    walker = KeyWalker()
    for _ in range(100):
        assert list(walker.feed(b"\xd4\xc3\xb2\xa1" + bytes(1000))) == []
    assert walker.is_over
    assert not walker._pieces


@settings(max_examples=60)
@given(st.lists(st.integers(1, 700), max_size=40), st.sampled_from("<>"))
def test_in_any_pieces(sizes, order):
    writer = Writer(order)
    blocks = [writer.section(), writer.interface(), writer.secrets(line(1)), writer.packet(b"x" * 300, comment(2))]
    content = b"".join([*blocks, writer.packet(b"y" * 900), *blocks, writer.statistics(comment(3))])
    assert walk(content, sizes) == walk(content) == [line(1), line(2), line(1), line(2), line(3)]


@settings(max_examples=200)
@given(st.integers(0, 10**9), st.lists(st.integers(1, 300), max_size=10))
def test_any_bytes_at_all(seed, sizes):
    rng = random.Random(seed)
    writer = Writer(rng.choice("<>"))
    content = bytearray(
        writer.section(comment(1))
        + writer.names(comment(2))
        + writer.packet(bytes(30), comment(3))
        + writer.secrets(line(4), comment(5))
        + writer.interface(comment(6))
    )
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    assert walk(bytes(content), sizes) == walk(bytes(content))


def test_what_editcap_wrote_into_the_samples():
    found = {one.name: (walk(one.read_bytes()), [*read_secrets(one)]) for one in SAMPLES.glob("**/*.pcapng")}
    assert any(texts for texts, _ in found.values())
    assert [name for name, (texts, secrets) in found.items() if texts != secrets] == []


# ---- from a file to rows


@pytest.fixture
def sealed():
    """Packets of a connection, and its key lines."""
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    lines = [one for one in keys_of(contexts).read_text().splitlines(keepends=True) if not one.startswith("#")]
    return talk, lines


def falsify(lines, digit="0"):
    found = [one.split() for one in lines]
    return "".join(f"{label} {name} {digit * len(secret)}\n" for label, name, secret in found)


def assert_opened(path, **options):
    closes, _, (row,) = gather(stream(path, **options))
    assert views(closes)[CLIENT] == (4001, "wire", "status")
    return row


def test_false_keys_in_a_packet_neither_win_nor_fill_the_table(tmp_path, sealed, monkeypatch):
    """Who saw the random of a connection may send secrets under it; who did not may send many."""
    monkeypatch.setattr(keylog, "MAX_SECRETS", 20)
    talk, lines = sealed
    other = Conversation(sport=40001, dport=8080).open()
    other.say(CLIENT, b"POST / HTTP/1.1\r\n\r\n" + falsify(lines).encode())
    other.say(CLIENT, b"".join(line(i) for i in range(200))[:60000])
    path = tmp_path / "false.pcapng"
    path.write_bytes(pcapng(other.packets + talk.packets) + Writer().secrets("".join(lines).encode()))
    assert_opened(path)


@pytest.mark.parametrize("place", ["before", "behind", "key log", "two more"])
def test_of_several_secrets_the_one_that_opens_is_taken(tmp_path, sealed, place):
    talk, lines = sealed
    true, false, path = "".join(lines), falsify(lines), tmp_path / "x.pcapng"
    texts = {"before": [false, true], "behind": [true, false], "two more": [false, falsify(lines, "1"), true]}
    content = b"".join(Writer().secrets(text.encode()) for text in texts.get(place, [true]))
    path.write_bytes(pcapng(talk.packets) + content)
    log = tmp_path / "keys"
    log.write_text(false)
    assert_opened(path, keys=[log] if place == "key log" else [])


def test_secrets_that_never_opened_anything_are_forgotten(sealed):
    talk, lines = sealed
    ring = KeyRing()
    ring.keys.add((falsify(lines) + "".join(lines) + falsify(lines, "2")).encode())
    assert ring.keys.n_secrets == 3 * len([one for one in lines if "EXPORTER" not in one])
    tracker = Tracker(secrets=ring)
    found = []
    for part in Reader(io.BytesIO(talk.pcap()), "test").chunks():
        found += tracker.feed(part)
    assert views(to_rows([*found, *tracker.finish()])[0])[CLIENT] == (4001, "wire", "status")
    kept = ring.keys.find(bytes.fromhex(lines[0].split()[1]))
    assert {label: [one.hex() for one in secrets] for label, secrets in kept.items()} == {
        label: [secret] for label, _, secret in map(str.split, lines) if "EXPORTER" not in label
    }


@pytest.mark.parametrize("at", [0, 5, 8, 12])
def test_secrets_between_the_packets_of_a_stream(sealed, at):
    """Standard input: the keys come a little later than what they open, as dumpcap and Wireshark write them."""
    talk, lines = sealed
    before, behind = pcapng(talk.packets[:at]), pcapng(talk.packets[at:])
    header = len(pcapng([]))
    content = before + Writer().secrets("".join(lines).encode()) + behind[header:]
    ring = KeyRing()
    source = Source("-", None)
    reader = Reader(ring.tap(io.BytesIO(content), source), "-")
    ring.begin(source, reader.kind)
    assert ring.may_come
    tracker = Tracker(secrets=ring)
    found = []
    for part in reader.chunks():
        found += tracker.feed(part)
    assert views(to_rows([*found, *tracker.finish()])[0])[CLIENT] == (4001, "wire", "status")
    assert ring.keys.n_secrets == len([one for one in lines if "EXPORTER" not in one])


def test_packed_captures_are_searched(tmp_path, sealed):
    import gzip

    talk, lines = sealed
    path = tmp_path / "x.pcapng.gz"
    path.write_bytes(gzip.compress(pcapng(talk.packets) + Writer().secrets("".join(lines).encode())))
    assert_opened(path)


def test_long_blocks_in_small_pieces_take_linear_time():
    writer = Writer()
    content = writer.section() + writer.packet(bytes(4 << 20)) + writer.secrets(line(1))
    walker, texts = KeyWalker(), []
    for off in range(0, len(content), 1 << 12):
        texts += walker.feed(content[off : off + (1 << 12)])
    assert texts == [line(1)]


def test_who_looks_for_keys_is_told_of_each_capture_as_it_begins(tmp_path):
    """Two halves of a connection, the keys of both behind the second one."""
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    content = [pcapng(talk.packets[:12]), pcapng(talk.packets[12:]) + Writer().secrets(keys_of(contexts).read_bytes())]
    found = [Source(f"{i}", tmp_path / f"{i}.pcapng") for i in range(2)]
    for source, data in zip(found, content, strict=True):
        source.path.write_bytes(data)
    told = []

    class Ring:
        def begin(self, source, kind):
            told.append((source, kind))

    (members,) = find_series([Source(str(source.path), source.path) for source in found])
    n_told = [(len(told), len(chunk.packets)) for _, chunk in read_with_keys(members, Ring())]
    assert n_told == [(1, 12), (2, len(talk.packets) - 12)]
    assert told == [(member.source, "pcapng") for member in members]
