"""Records opened many at a time say what they say one by one, and nothing where a tag does not fit.

What is said is known from those who said it: Python's ssl, or records sealed here by hand (RFC 8446 section 5.2) with
the `cryptography` package, under the secrets that OpenSSL logged.
"""

import io
import pickle
import random

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from packets import CLIENT, MASK, REQUEST, SERVER, Conversation, close, frame, response
from reading import to_rows
from test_unwrap import VERSIONS, analyze, header, keys_of, make_talk, views, write_down
from tlswire import Record, Wire, make_contexts

from analyzer import kernel
from analyzer.capture import keystream, lane, records, unwrap
from analyzer.capture.container import Reader
from analyzer.capture.tracker import Tracker
from analyzer.keys import KeyRing

NEVER = 10**9
SIDES = (CLIENT, SERVER)
DATA, HANDSHAKE, ALERT = 23, 22, 21
KEY_UPDATE = b"\x18\x00\x00\x01\x00"
TICKET = b"\x04\x00\x00\x10" + bytes(16)


class Sealer:
    """One direction's records of TLS 1.3, from its traffic secret."""

    def __init__(self, secret):
        self.secret, self.seq = secret, 0
        self.hash = hashes.SHA384() if len(secret) == 48 else hashes.SHA256()

    def expand(self, label, n):
        info = n.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
        return HKDFExpand(self.hash, n, info).derive(self.secret)

    def seal(self, data, kind=DATA, padding=0):
        inner = data + bytes([kind]) + bytes(padding)
        nonce = int.from_bytes(self.expand(b"iv", 12), "big") ^ self.seq
        self.seq += 1
        key = AESGCM(self.expand(b"key", 32 if len(self.secret) == 48 else 16))
        size = len(inner) + 16
        return key.encrypt(nonce.to_bytes(12, "big"), inner, b"\x17\x03\x03" + size.to_bytes(2, "big"))

    def update(self):
        self.secret, self.seq = self.expand(b"traffic upd", len(self.secret)), 0


class ByHand:
    """A WebSocket over TLS 1.3 whose records behind the handshake are sealed here."""

    def __init__(self):
        self.contexts = make_contexts()
        self.contexts[1].num_tickets = 0
        self.records = Wire(*self.contexts).records
        lines = (line.split() for line in keys_of(self.contexts).read_text().splitlines())
        secrets = {words[0]: bytes.fromhex(words[2]) for words in lines if len(words) == 3}
        names = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")
        self.sealers = [Sealer(secrets[name]) for name in names]
        self.say(0, REQUEST)
        self.say(1, response())

    def say(self, side, data, kind=DATA, padding=0):
        self.records.append(Record(side, DATA, 0x0303, self.sealers[side].seal(data, kind, padding)))
        return len(self.records) - 1

    def update(self, side):
        self.say(side, KEY_UPDATE, HANDSHAKE)
        self.sealers[side].update()

    def chat(self, n, rng=None):
        """Texts of both sides; how many bytes each said."""
        total = [0, 0]
        for i in range(n):
            side, size = i & 1, rng.randint(0, 400) if rng else 5 + i % 40
            data = frame(1, b"x" * size, mask=None if side else MASK)
            self.say(side, data, padding=rng.choice((0, 0, 1, 15, 16, 300)) if rng else 0)
            total[side] += size
        return total

    def flip(self, at, off):
        """Change one bit of a record's body."""
        body = bytearray(self.records[at].body)
        body[off] ^= 1
        self.records[at] = self.records[at]._replace(body=bytes(body))


@pytest.fixture
def flown(monkeypatch):
    """Of how many records lanes opened, by call."""
    counts = []
    whole = lane.Lanes.open

    def count(*arguments):
        found = whole(*arguments)
        counts.append(len(found.spans))
        return found

    monkeypatch.setattr(lane.Lanes, "open", count)
    return counts


def read(content, keys, *, step=None, pickled=False):
    """Rows of a capture: packets fed all at once, or so many at a time."""
    tracker = Tracker(secrets=KeyRing([keys]))
    found = []
    for chunk in Reader(io.BytesIO(content), "test").chunks():
        for i in range(0, len(chunk.packets), step or len(chunk.packets)):
            part = chunk.packets[i : i + (step or len(chunk.packets))]
            found += tracker.feed(chunk._replace(packets=part, first_packet=chunk.first_packet + i))
            if pickled:
                tracker = pickle.loads(pickle.dumps(tracker))
    return to_rows([*found, *tracker.finish()])


def read_both(monkeypatch, content, keys, **more):
    """Rows as lanes have them, after seeing that they are the same without."""
    with monkeypatch.context() as patch:
        patch.setattr(unwrap, "FAST_AFTER_RECORDS", NEVER)
        slow = read(content, keys)
    assert read(content, keys, **more) == slow
    return slow


def finish(by_hand, *, pieces=None):
    talk = write_down(by_hand.records, pieces=pieces)
    talk.end()
    return talk.pcap(), keys_of(by_hand.contexts)


def bye(by_hand, code=4001):
    """A Close of each side; their places among the records."""
    return by_hand.say(0, close(code, "done", mask=MASK)), by_hand.say(1, close(code, "done"))


BOTH = {CLIENT: (4001, "wire", "status"), SERVER: (4001, "wire", "status")}
SAID = tuple((i & 1, frame(1, b"y" * (3 * i), mask=None if i & 1 else MASK)) for i in range(60))
BYE = ((0, close(4001, "done", mask=MASK)), (1, close(4001, "done")))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cipher", ["AES128", "AES256"])
@pytest.mark.parametrize("step", [None, 1, 7])
def test_many_at_a_time_is_one_by_one(monkeypatch, flown, version, cipher, step):
    minimum, suites = VERSIONS[version]
    contexts = make_contexts(minimum, suites and f"ECDHE+{cipher}+AESGCM")
    talk = write_down(make_talk(contexts, *SAID, *BYE))
    talk.end()
    closes, (row,) = read_both(monkeypatch, talk.pcap(), keys_of(contexts), step=step)
    assert views(closes) == BOTH
    assert (row["client_frames"], row["server_frames"]) == (31, 31)
    assert row["client_bytes"] == sum(3 * i for i in range(0, 60, 2))
    assert row["server_bytes"] == sum(3 * i for i in range(1, 60, 2))
    assert sum(flown) == len(SAID) + len(BYE) - 4  # request, answer and two more of each side are read one by one


@pytest.mark.parametrize("seed", range(6))
def test_padding_and_any_way_of_cutting(monkeypatch, flown, seed):
    rng = random.Random(seed)
    talk = ByHand()
    total = talk.chat(60, rng)
    talk.say(0, b"", padding=40)  # nothing but padding
    talk.say(1, b"")
    bye(talk)
    content, keys = finish(talk, pieces=rng if seed & 1 else None)
    closes, (row,) = read_both(monkeypatch, content, keys, step=(None, 1, 5)[seed % 3], pickled=seed == 5)
    assert views(closes) == BOTH
    assert [row["client_bytes"], row["server_bytes"]] == total
    assert sum(flown) >= 54  # of 64, some without data


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 33, 16_383, 16_384])
def test_records_of_any_size(monkeypatch, flown, n):
    """Up to the longest that RFC 8446 section 5.1 allows."""
    talk = ByHand()
    talk.chat(8)
    message = frame(2, bytes(max(0, n - 4)))
    for off in range(0, len(message), n):
        talk.say(1, message[off : off + n])
    bye(talk)
    content, keys = finish(talk)
    closes, (row,) = read_both(monkeypatch, content, keys)
    assert views(closes) == BOTH
    assert row["server_largest_message_bytes"] == max(n - 4, 5 + 7)
    assert sum(flown) >= 7


def test_keys_change_on_the_way(monkeypatch, flown):
    """RFC 8446 section 4.6.3; both sides, and one of them again and again."""
    talk = ByHand()
    total = [0, 0]
    for i in range(40):
        if i in (3, 17):
            talk.update(0)
        if i in (10, 11, 12, 30):
            talk.update(1)
        for side, n in enumerate(talk.chat(6)):
            total[side] += n
    bye(talk)
    content, keys = finish(talk)
    for step in (None, 3):
        closes, (row,) = read_both(monkeypatch, content, keys, step=step)
        assert views(closes) == BOTH
        assert [row["client_bytes"], row["server_bytes"]] == total
    assert sum(flown) > 100


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("step", [None, 1])
def test_a_lost_segment_costs_no_more_than_it_does_one_by_one(monkeypatch, version, step):
    contexts = make_contexts(*VERSIONS[version])
    talk = write_down(make_talk(contexts, *SAID[:16], *BYE))
    talk.end()
    n_known = 0
    for i in range(3, len(talk.packets)):
        fewer = Conversation()
        fewer.packets = talk.packets[:i] + talk.packets[i + 1 :]
        closes, _ = read_both(monkeypatch, fewer.pcap(), keys_of(contexts), step=step)
        codes = [code for code, *_ in views(closes).values()]
        assert set(codes) <= {4001, None}, i
        n_known += len(codes) - codes.count(None)
    assert n_known > len(talk.packets)


# ---- tags


@pytest.mark.parametrize("step", [None, 1, 9])
@pytest.mark.parametrize(("back", "off"), [(0, -1), (0, 0), (0, 9), (3, 2), (3, -16), (20, 3)])
def test_where_a_tag_does_not_fit_nothing_is_read_from_there_on(monkeypatch, back, off, step):
    """In the record with the server's Close, or so many of the server's before it: the client saw no Close."""
    talk = ByHand()
    talk.chat(60)
    _, last = bye(talk)
    talk.flip(last - 2 * back, off)
    closes, (row,) = read_both(monkeypatch, *finish(talk), step=step)
    assert views(closes)[SERVER] == (4001, "wire", "status")
    assert views(closes)[CLIENT][0] is None
    assert (row["server_close_code"], row["server_frames"]) == (None, 30 - back)


class Generator:
    """Moves by 0, 1, 2 and so on."""

    def integers(self, low, high, n):
        return np.arange(n) % high


def test_errors_do_not_cancel_each_other_out(monkeypatch):
    """The same bit of records of the same size, which are moved by different numbers of blocks."""
    talk = ByHand()
    for i in range(60):
        talk.say(i & 1, frame(1, b"twelve bytes", mask=None if i & 1 else MASK))
    _, last = bye(talk)
    for at in (last - 20, last - 22):
        talk.flip(at, 5)
    # by chance one time in 16 two are moved alike, and such errors stay unseen
    monkeypatch.setattr(np.random, "default_rng", Generator)
    closes, (row,) = read_both(monkeypatch, *finish(talk))
    assert views(closes)[CLIENT][0] is None
    assert row["server_close_code"] is None


def test_a_tag_of_tls_1_2_is_checked_too(monkeypatch):
    contexts = make_contexts(*VERSIONS["1.2"])
    for off in (0, 7, 8, 20, -1):  # of the explicit nonce, of what is sealed, of the tag
        found = make_talk(contexts, *SAID, *BYE, ends=())
        body = bytearray(found[-9].body)
        assert found[-9].direction == 1
        body[off] ^= 0x80
        found[-9] = found[-9]._replace(body=bytes(body))
        talk = write_down(found)
        talk.end()
        closes, (row,) = read_both(monkeypatch, talk.pcap(), keys_of(contexts))
        assert views(closes)[CLIENT][0] is None
        assert row["server_close_code"] is None


def test_records_that_are_none_in_random_places(monkeypatch):
    rng = random.Random(3)
    for _ in range(40):
        talk = ByHand()
        talk.chat(40, rng)
        bye(talk)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(talk.records) - 30, len(talk.records))
            record = talk.records[at]
            kind, body = rng.choice(((20, b"\x01"), (21, b"\x01\x00"), (23, bytes(rng.randint(0, 40))), (22, b"abcd")))
            if rng.random() < 0.5:
                talk.records.insert(at, Record(record.direction, kind, 0x0303, body))
            else:
                talk.records[at] = record._replace(body=record.body[: rng.randint(0, len(record.body))])
        closes, _ = read_both(monkeypatch, *finish(talk), step=rng.choice((None, 1, 4)))
        assert {code for code, *_ in views(closes).values()} <= {4001, None, 1006}


# ---- work and memory


def test_a_direction_that_stops_again_and_again_is_soon_left_alone(monkeypatch):
    entered = []
    whole = lane.Lanes.enter
    monkeypatch.setattr(lane.Lanes, "enter", lambda *a, **k: (entered.append(a[1]), whole(*a, **k))[1])
    talk = ByHand()
    for i in range(900):
        talk.say(1, TICKET if i % 9 == 8 else frame(1, b"z"), HANDSHAKE if i % 9 == 8 else DATA)
    bye(talk)
    closes, (row,) = read(*finish(talk), step=50)
    assert views(closes)[CLIENT] == (4001, "wire", "status")
    assert row["server_frames"] == 801
    assert 1 < entered.count(1) + entered.count(0) <= 4


@pytest.mark.parametrize(("n_records", "n_bytes"), [(4, 1 << 22), (7, 1 << 22), (1 << 12, 2000)])
def test_records_taken_away_in_the_middle_of_a_segment(monkeypatch, n_records, n_bytes):
    """Many in one segment, more than there is room for."""
    monkeypatch.setattr(records, "RECORDS", n_records)
    monkeypatch.setattr(records, "ENOUGH_ARENA_BYTES", n_bytes)
    contexts = make_contexts()
    found = make_talk(contexts, *SAID, *BYE, ends=())
    n = len(found) - len(SAID) - len(BYE)
    talk = write_down(found[:n])
    for side in (0, 1):
        talk.say(
            SIDES[side], b"".join(header(record) + record.body for record in found[n:] if record.direction == side)
        )
    talk.end()
    _, (row,) = read_both(monkeypatch, talk.pcap(), keys_of(contexts))
    assert (row["server_frames"], row["server_close_code"]) == (31, 4001)
    assert (row["client_frames"], row["client_close_code"]) == (31, 4001)


def test_ciphers_kept_ready_are_bounded(monkeypatch):
    monkeypatch.setattr(lane, "MAX_CIPHERS", 3)
    talks = []
    for i in range(6):
        contexts = make_contexts()
        talks.append(
            (write_down(make_talk(contexts, *SAID, *BYE), Conversation(sport=2000 + i, dport=443).open()), contexts)
        )
    for talk, _ in talks:
        talk.end()
    whole = talks[0][0]
    whole.packets = [packet for group in zip(*(talk.packets for talk, _ in talks), strict=True) for packet in group]
    ring = KeyRing([keys_of(contexts) for _, contexts in talks])
    tracker = Tracker(secrets=ring)
    found = []
    for chunk in Reader(io.BytesIO(whole.pcap()), "test").chunks():
        for i in range(0, len(chunk.packets), 60):
            found += tracker.feed(chunk._replace(packets=chunk.packets[i : i + 60], first_packet=1 + i))
            if tracker._unwrapper is not None:
                assert len(tracker._unwrapper._lanes._ready) <= 3
    _, rows = to_rows([*found, *tracker.finish()])
    assert [row["server_frames"] for row in rows] == [31] * 6


def test_kernels_say_the_same_as_written_and_compiled(monkeypatch):
    pytest.importorskip("numba")
    talk = ByHand()
    talk.chat(50, random.Random(1))
    bye(talk)
    contexts = make_contexts(*VERSIONS["1.2"])
    older = write_down(make_talk(contexts, *SAID, *BYE))
    older.end()
    was_compiled = kernel.is_compiled()
    try:
        for content, keys in (finish(talk), (older.pcap(), keys_of(contexts))):
            kernel.interpret_all()
            plain = read(content, keys)
            kernel.compile_all()
            assert read(content, keys, step=9) == plain
        kinds = {name: f.kinds for (module, name), f in kernel._compiled.items() if module == keystream.__name__}
        assert {name: len(some) for name, some in kinds.items() if some} == dict.fromkeys(
            ("plan", "count_up", "decrypt", "begin_again", "emit"), 1
        )
    finally:
        if not was_compiled:
            kernel.interpret_all()


def test_lanes_show_no_key_and_are_empty_when_all_is_over():
    talk = ByHand()
    talk.chat(30)
    bye(talk)
    content, keys = finish(talk)
    tracker = Tracker(secrets=KeyRing([keys]))
    for chunk in Reader(io.BytesIO(content), "test").chunks():
        tracker.feed(chunk)
    lanes = tracker._unwrapper._lanes
    assert lanes.rows["is_fast"].sum() == 2
    key = bytes(lanes.rows["key"][0][:16])
    assert any(key)
    assert key.hex() not in repr(lanes)
    tracker.finish()
    assert not lanes.rows["key"].any()
    assert not lanes._ready


@pytest.mark.parametrize("alert", [b"\x01\x00", b"\x02\x14"])
def test_what_comes_behind_the_last_alert_is_read_by_nobody(alert):
    """A Close behind its sender's close_notify or fatal alert (RFC 8446 section 6)."""
    for is_late in (False, True):
        talk = ByHand()
        talk.say(1, frame(1, b"hello"))
        said = [(close(4000, "late"), DATA), (alert, ALERT)]
        for data, kind in said[::-1] if is_late else said:
            talk.say(1, data, kind)
        written = write_down(talk.records)
        written.end()
        told = {row["endpoint"]: row["code"] for row in analyze(written.pcap(), keys_of(talk.contexts))[0]}
        assert told[CLIENT] == (1006 if is_late else 4000)
