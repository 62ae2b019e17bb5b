"""WebSockets inside TLS and HTTP/2, from packets to rows: real TLS of Python's ssl in packets written by hand."""

import io
import pickle
import random
import ssl
import struct
from pathlib import Path

import h2.config
import h2.connection
import h2.settings
import pytest
from packets import CLIENT, MASK, REQUEST, SERVER, Conversation, block, close, frame, pcapng, response
from reading import gather, to_rows
from tlswire import Wire, make_contexts

from analyzer.analysis import stream
from analyzer.capture import records, unwrap
from analyzer.capture.container import Reader
from analyzer.capture.keylog import KeyLog
from analyzer.capture.mark import Mark
from analyzer.capture.tls import Session
from analyzer.capture.tracker import Tracker
from analyzer.keys import KeyRing
from analyzer.verdict.opaque import Asserted, Opaque

SIDES = (CLIENT, SERVER)
VERSIONS = {"1.3": (ssl.TLSVersion.TLSv1_3, None), "1.2": (ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM")}
CBC = (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA")


def make_talk(contexts, *said, request=REQUEST, answer=None, ends=(1, 0), sni="chat.example"):
    """A WebSocket over TLS, record by record: `said` are direction and frames."""
    wire = Wire(*contexts, sni=sni)
    wire.send(0, request)
    wire.send(1, response() if answer is None else answer)
    for direction, data in said:
        for off in range(0, len(data), 16_000):  # a record holds no more than 16,384
            wire.send(direction, data[off : off + 16_000])
    wire.close(*ends)
    return wire.records


def header(record):
    return bytes([record.kind]) + record.version.to_bytes(2, "big") + len(record.body).to_bytes(2, "big")


def write_down(found, talk=None, *, pieces=None):
    """Records as segments of a conversation, each in one or, by `pieces`, cut at random."""
    talk = talk or Conversation(dport=443).open()
    for record in found:
        data = header(record) + record.body
        while data:
            n = len(data) if pieces is None else pieces.randint(1, 60)
            talk.say(SIDES[record.direction], data[:n])
            data = data[n:]
    return talk


def keys_of(contexts):
    return Path(contexts[0].keylog_filename)


def analyze(content, *keys, asserted=None):
    tracker = Tracker(secrets=KeyRing(keys), judge=Opaque(asserted or Asserted()))
    found = []
    for part in Reader(io.BytesIO(content), "test").chunks():
        found += tracker.feed(part)
    found += tracker.finish()
    return (*to_rows(found), tracker)


def views(closes):
    return {row["endpoint"]: (row["code"], str(row["provenance"]), str(row["evidence"])) for row in closes}


HELLO = ((0, frame(1, b"hello", mask=MASK)), (1, frame(1, b"hello yourself")))
BYE = ((0, close(4001, "done", mask=MASK)), (1, close(4001, "done")))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_close_in_tls_is_read_with_its_code_and_reason(version):
    contexts = make_contexts(*VERSIONS[version])
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    closes, (row,), tracker = analyze(talk.pcap(), keys_of(contexts))
    assert views(closes) == {CLIENT: (4001, "wire", "status"), SERVER: (4001, "wire", "status")}
    assert {view["reason"] for view in closes} == {"done"}
    told = {name: row[name] for name in ("transport", "sni", "alpn", "tls_version", "host", "path", "initiator")}
    assert told == {
        "transport": "tls",
        "sni": "chat.example",
        "alpn": "http/1.1",
        "tls_version": f"TLSv{version}",
        "host": "example.com",
        "path": "/chat",
        "initiator": "client",
    }
    assert (row["client_frames"], row["server_messages"], row["anomalies"]) == (2, 1, [])
    assert tracker.n_encrypted == 0


def test_an_end_without_a_close_in_tls_is_1006():
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, ends=(1,)))
    talk.fin(SERVER)
    talk.rst(CLIENT)
    closes, (row,), _ = analyze(talk.pcap(), keys_of(contexts))
    assert views(closes)[CLIENT] == (1006, "synthesized", "no_close_fin")
    assert row["initiator"] == "none"


@pytest.mark.parametrize("seed", range(6))
def test_records_cut_and_joined_in_any_way_say_the_same(seed):
    contexts = make_contexts(*[*VERSIONS.values(), CBC][seed % 3])
    found = make_talk(contexts, *HELLO, (1, frame(2, bytes(70_000))), *BYE)
    for pieces in (None, random.Random(seed)):
        talk = write_down(found, pieces=pieces)
        talk.end()
        closes, (row,), _ = analyze(talk.pcap(), keys_of(contexts))
        assert views(closes) == {CLIENT: (4001, "wire", "status"), SERVER: (4001, "wire", "status")}
        assert (row["server_bytes"], row["server_largest_message_bytes"]) == (70_014, 70_000)


@pytest.mark.parametrize("n_records", [2, 3, 7])
def test_records_are_taken_away_in_any_portions(monkeypatch, n_records):
    """Room for few records at a time, segments that end in the middle of them: nothing is read twice or not at all."""
    monkeypatch.setattr(records, "RECORDS", n_records)
    contexts = make_contexts()
    said = [(i & 1, frame(1, b"%d" % i * 40, mask=(MASK, None)[i & 1])) for i in range(60)]
    found = make_talk(contexts, *said, *BYE)
    data = [b"".join(header(r) + r.body for r in found if r.direction == i) for i in range(2)]
    talk = write_down([r for r in found if r.direction == 0][:1] + [r for r in found if r.direction == 1][:1])
    begun = [len(header(r) + r.body) for r in (next(r for r in found if r.direction == i) for i in range(2))]
    for i in range(2):
        rest = data[i][begun[i] :]
        for off in range(0, len(rest), 1000):
            talk.say(SIDES[i], rest[off : off + 1000])
    talk.end()
    closes, (row,), _ = analyze(talk.pcap(), keys_of(contexts))
    assert {end: code for end, (code, *_) in views(closes).items()} == {CLIENT: 4001, SERVER: 4001}
    assert (row["client_messages"], row["server_messages"], row["anomalies"]) == (30, 30, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_lost_segment_costs_no_more_than_what_it_carried(version):
    """Lost anywhere: the code is read, or nothing is claimed; never another one."""
    contexts = make_contexts(*VERSIONS[version])
    found = make_talk(contexts, *HELLO, *HELLO, *HELLO, *BYE)
    talk = write_down(found)
    talk.end()
    whole = views(analyze(talk.pcap(), keys_of(contexts))[0])
    n_known = 0
    for i in range(3, len(talk.packets)):
        fewer = Conversation()
        fewer.packets = talk.packets[:i] + talk.packets[i + 1 :]
        for endpoint, (code, *_) in views(analyze(fewer.pcap(), keys_of(contexts))[0]).items():
            assert code in (whole[endpoint][0], None), i
            n_known += code is not None
    assert n_known > len(talk.packets)  # most losses cost nothing


def test_without_keys_nothing_is_claimed_and_the_connection_is_counted():
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    closes, connections, tracker = analyze(talk.pcap())
    assert (closes, connections, tracker.n_encrypted) == ([], [], 1)


def test_keys_of_another_connection_open_nothing(tmp_path):
    contexts, others = make_contexts(), make_contexts()
    make_talk(others, *BYE)
    # the other secrets under this connection's random: as if the file had been mixed up
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    mine, wrong = keys_of(contexts).read_text().splitlines(), keys_of(others).read_text().splitlines()
    randoms = {line.split()[0]: line.split()[1] for line in mine if not line.startswith("#")}
    lines = [line.split() for line in wrong if not line.startswith("#")]
    mixed = tmp_path / "keys"
    mixed.write_text("".join(f"{label} {randoms[label]} {secret}\n" for label, _, secret in lines))
    closes, connections, tracker = analyze(talk.pcap(), mixed)
    assert (closes, connections, tracker.n_encrypted) == ([], [], 1)


def test_an_asserted_connection_without_keys_has_a_row():
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    for asserted in (Asserted(("*.example",)), Asserted(("CHAT.example",)), Asserted((), (443,))):
        closes, (row,), tracker = analyze(talk.pcap(), asserted=asserted)
        assert (row["transport"], row["sni"], row["host"], row["client_frames"]) == ("tls", "chat.example", None, None)
        assert row["likelihood"] == "high"
        assert {view["provenance"] for view in closes} == {"undetermined"}
        assert tracker.n_encrypted == 0
    assert analyze(talk.pcap(), asserted=Asserted(("*.org",), (8443,)))[1] == []


# ---- where keys come from


def test_keys_are_found_in_a_comment_behind_the_packets(tmp_path):
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    comment = keys_of(contexts).read_bytes()
    option = struct.pack("<HH", 1, len(comment)) + comment + bytes(-len(comment) % 4)
    statistics = block(5, struct.pack("<III", 0, 0, 0) + option + bytes(4))
    path = tmp_path / "commented.pcapng"
    path.write_bytes(pcapng(talk.packets) + statistics)
    closes, _, (row,) = gather(stream(path))
    assert views(closes)[CLIENT] == (4001, "wire", "status")
    assert (row["status"], row["skipped_encrypted"]) == ("ok", 0)


def test_a_key_log_may_grow_while_packets_are_read(tmp_path):
    """As with tcpdump in a pipe: the hello comes first, its keys a little later."""
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    log = tmp_path / "keys"
    log.touch()
    ring = KeyRing([log])
    ring.may_come = True
    tracker = Tracker(secrets=ring)
    (chunk,) = Reader(io.BytesIO(talk.pcap()), "test").chunks()
    found = []
    for i in range(len(chunk.packets)):
        if i == 12:
            log.write_bytes(keys_of(contexts).read_bytes())
        found += tracker.feed(chunk._replace(packets=chunk.packets[i : i + 1], first_packet=i + 1))
    closes, _ = to_rows([*found, *tracker.finish()])
    assert views(closes) == {CLIENT: (4001, "wire", "status"), SERVER: (4001, "wire", "status")}


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.9"])
def test_what_was_held_back_is_read_in_the_order_of_capture(address, tmp_path):
    """Whichever side has the lower address: HTTP/2 that is read one side after the other is another conversation."""
    contexts = make_contexts()
    for context in contexts:
        context.set_alpn_protocols(["h2"])
    both = Streams(Encrypted(contexts, Conversation(client=address, dport=443).open()))
    for number in (1, 3, 5):
        both.open(number)
    both.say(0, 1, close(4000, "bye", mask=MASK))
    both.say(1, 1, close(4000, "bye"), end_stream=True)
    both.ends[0].end_stream(1)
    both.flush()
    both.ends[1].reset_stream(3, 2)
    both.flush()
    both.ends[1].close_connection(error_code=2, last_stream_id=5)
    both.flush()
    talk = both.talk.talk
    talk.end()
    log = tmp_path / "keys"
    log.touch()
    ring = KeyRing([log])
    ring.may_come = True
    tracker = Tracker(secrets=ring)
    (chunk,) = Reader(io.BytesIO(talk.pcap()), "test").chunks()
    found = []
    for i in range(len(chunk.packets)):
        if i == len(chunk.packets) - 1:
            log.write_bytes(keys_of(contexts).read_bytes())
        found += tracker.feed(chunk._replace(packets=chunk.packets[i : i + 1], first_packet=i + 1))
    at_once = analyze(talk.pcap(), keys_of(contexts))
    assert to_rows([*found, *tracker.finish()]) == at_once[:2]
    assert {str(row["handshake"]) for row in at_once[1]} == {"complete"}


class Encrypted:
    """A conversation whose bytes travel in TLS records."""

    def __init__(self, contexts, talk):
        self.wire, self.talk, self.n = Wire(*contexts), talk, 0

    def say(self, side, data):
        self.wire.send(SIDES.index(side), data)
        write_down(self.wire.records[self.n :], self.talk)
        self.n = len(self.wire.records)
        return len(self.talk.packets)


def test_keys_that_one_connection_found_open_another_too(tmp_path):
    """Both wait, the first one that looks again finds the keys of both."""
    log = tmp_path / "keys"
    log.touch()
    ring = KeyRing([log])
    ring.may_come = True
    tracker, lines, talks = Tracker(secrets=ring), b"", []
    for i in range(3):
        contexts = make_contexts()
        talks.append(write_down(make_talk(contexts, *HELLO, *BYE), Conversation(sport=2000 + i, dport=443).open()))
        lines += keys_of(contexts).read_bytes()
    both = Conversation()
    both.packets = [packet for turn in zip(*(talk.packets for talk in talks), strict=False) for packet in turn]
    (chunk,) = Reader(io.BytesIO(both.pcap()), "test").chunks()
    for i in range(len(chunk.packets)):
        if i == 3 * 12:
            assert len(tracker._unwrapper._waiting) == 3
            log.write_bytes(lines)
        tracker.feed(chunk._replace(packets=chunk.packets[i : i + 1], first_packet=i + 1))
        if i == 3 * 14:
            assert not tracker._unwrapper._waiting
    assert tracker.n_connections == 3


def test_what_is_held_back_for_keys_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(unwrap, "MAX_HELD_BYTES", 50_000)
    log = tmp_path / "keys"
    log.touch()
    ring = KeyRing([log])
    ring.may_come = True
    tracker = Tracker(secrets=ring)
    packets = []
    for i in range(8):
        found = make_talk(make_contexts(), *HELLO, (1, frame(2, bytes(15_000))), *BYE)
        talk = write_down(found, Conversation(sport=2000 + i, dport=443).open())
        packets += talk.packets
    talk.packets = packets
    for chunk in Reader(io.BytesIO(talk.pcap()), "test").chunks():
        tracker.feed(chunk)
    assert 30_000 < sum(tracker._unwrapper._waiting.values()) <= 50_000
    tracker.finish()
    assert tracker.n_encrypted == 8
    assert not tracker._unwrapper._waiting


def test_the_state_pickles_in_the_middle_of_a_connection():
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    (chunk,) = Reader(io.BytesIO(talk.pcap()), "test").chunks()
    tracker = Tracker(secrets=KeyRing([keys_of(contexts)]), judge=Opaque(Asserted()))
    found = []
    for i in range(len(chunk.packets)):
        found += tracker.feed(chunk._replace(packets=chunk.packets[i : i + 1], first_packet=i + 1))
        tracker = pickle.loads(pickle.dumps(tracker))
    closes, _ = to_rows([*found, *tracker.finish()])
    assert views(closes) == {CLIENT: (4001, "wire", "status"), SERVER: (4001, "wire", "status")}


def test_no_secret_is_shown(tmp_path):
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    path = talk.write(tmp_path / "x.pcap")
    secrets = {
        word for line in keys_of(contexts).read_text().splitlines() for word in line.split()[1:] if len(word) > 60
    }
    assert secrets
    ring = KeyRing([keys_of(contexts)])
    said = repr(ring) + repr(ring.keys) + repr([*stream(path, keys=[keys_of(contexts)])])
    said += "".join(repr(row) for rows in gather(stream(path, keys=[keys_of(contexts)])) for row in rows)
    assert not [secret for secret in secrets if secret in said]


# ---- TLS that fails


def test_more_streams_than_the_limit_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr("analyzer.capture.tracker.MAX_HTTP2_STREAMS", 5)
    both = Streams()
    for number in range(1, 17, 2):
        both.open(number, status=None)
    both.talk.end()
    _, connections, (row,) = gather(stream(both.talk.write(tmp_path / "x.pcap")))
    assert (len(connections), row["skipped_streams"]) == (5, 3)


def test_a_failed_handshake_with_a_known_server_is_1015():
    """Row 17: seen to be WebSocket before, so no assertion is needed; row 18: another server is only counted."""
    contexts = make_contexts()
    good = write_down(make_talk(contexts, *HELLO, *BYE))
    good.end()
    hello = Wire(*make_contexts()).records[0]
    bad = Conversation(sport=40001, dport=443, ts_ns=good.ts_ns + 10**10).open()
    bad.say(CLIENT, header(hello) + hello.body)
    alert = bad.say(SERVER, b"\x15\x03\x03\x00\x02\x02\x28")  # handshake_failure
    bad.end()
    packets = good.packets + bad.packets
    n_before = len(good.packets)
    good.packets = packets
    closes, connections, tracker = analyze(good.pcap(), keys_of(contexts))
    failed = [row for row in closes if row["code"] == 1015]
    assert [(row["endpoint"], row["provenance"], row["evidence"], row["record"]) for row in failed] == [
        (CLIENT, "synthesized", "tls_alert", n_before + alert)
    ]
    assert [str(row["handshake"]) for row in connections] == ["complete", "failed"]
    assert connections[1]["sni"] == "chat.example"
    assert [row["tls_alert"] for row in connections] == [None, "server handshake_failure"]
    assert tracker.n_encrypted == 0
    closes, connections, tracker = analyze(bad.pcap())
    assert (closes, connections, tracker.n_encrypted, tracker.n_tls_failed) == ([], [], 0, 1)


def test_a_failed_handshake_that_keys_open_is_told_as_without_them():
    """The keys of the handshake open what came before the alert; that is no reason to say nothing of it."""
    contexts = make_contexts()
    contexts[0].verify_mode = ssl.CERT_REQUIRED
    wire = Wire(*contexts, fails=True)
    assert wire.error is not None
    talk = write_down(wire.records)
    talk.end()
    for keys in ((), (keys_of(contexts),)):
        closes, (row,), tracker = analyze(talk.pcap(), *keys, asserted=Asserted(("chat.example",)))
        assert views(closes) == {CLIENT: (1015, "synthesized", "tls_alert")}
        assert (str(row["handshake"]), tracker.n_encrypted, tracker.n_tls_failed) == ("failed", 0, 0)
        _, connections, tracker = analyze(talk.pcap(), *keys)
        assert (connections, tracker.n_encrypted, tracker.n_tls_failed) == ([], 0, 1)


# ---- whoever sends a fatal alert reads nothing more


def fail_tls(contexts, *, server_fails=True):
    """One side gets a record that was damaged on its way to it, and says so; what it was sent besides is whole."""
    wire = Wire(*contexts)
    wire.send(0, REQUEST)
    wire.send(1, response())
    deaf = 1 if server_fails else 0
    said = close(4001, "done", mask=MASK if server_fails else None)
    wire.ends[1 - deaf].write(said)
    good = wire.outward[1 - deaf].read()
    wire.inward[deaf].write(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ssl.SSLError):
        wire.ends[deaf].read(100)
    wire.flush(deaf)
    talk = write_down(wire.records[:-1])
    return talk, header(wire.records[-1]) + wire.records[-1].body, good


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server_fails", [True, False])
def test_a_close_behind_a_fatal_alert_of_its_receiver_was_not_read(version, server_fails):
    contexts = make_contexts(*VERSIONS[version])
    talk, alert, good = fail_tls(contexts, server_fails=server_fails)
    deaf, other = (SERVER, CLIENT) if server_fails else (CLIENT, SERVER)
    talk.say(deaf, alert)
    at = talk.say(other, good)
    talk.fin(deaf)
    talk.fin(other)
    closes, (row,), _ = analyze(talk.pcap(), keys_of(contexts))
    assert views(closes) == {deaf: (None, "undetermined", "late_close"), other: (1006, "synthesized", "no_close_fin")}
    (view,) = (view for view in closes if view["endpoint"] == deaf)
    assert (view["wire_code"], view["received"], row[f"{other}_close_record"]) == (4001, "status", at)


def test_a_close_that_crosses_a_fatal_alert_was_not_read_either():
    """Captured where the Close was sent: it stands before the alert, which does not acknowledge it."""
    contexts = make_contexts()
    talk, alert, good = fail_tls(contexts)
    before = talk.seq[CLIENT]
    talk.say(CLIENT, good)
    talk.say(SERVER, alert, ack=before)
    talk.end()
    closes, _, _ = analyze(talk.pcap(), keys_of(contexts))
    assert views(closes)[SERVER] == (None, "undetermined", "late_close")


def test_a_close_that_a_fatal_alert_acknowledges_counts():
    contexts = make_contexts()
    talk, alert, good = fail_tls(contexts)
    talk.say(CLIENT, good)
    talk.say(SERVER, alert)
    talk.end()
    closes, _, _ = analyze(talk.pcap(), keys_of(contexts))
    assert views(closes)[SERVER] == (4001, "wire", "status")
    (confidence,) = (str(view["confidence"]) for view in closes if view["endpoint"] == SERVER)
    assert confidence == "medium"  # it may have been what came before it that was broken


def test_close_notify_of_the_receiver_does_not_keep_it_from_reading():
    """RFC 8446 section 6.1: it ends one direction only."""
    contexts = make_contexts()
    wire = Wire(*contexts)
    wire.send(0, REQUEST)
    wire.send(1, response())
    wire.close(1)
    wire.ends[0].write(close(4001, "done", mask=MASK))
    wire.flush(0)
    talk = write_down(wire.records)
    talk.end()
    assert views(analyze(talk.pcap(), keys_of(contexts))[0])[SERVER] == (4001, "wire", "status")


# ---- limits, and what no program sends


def test_random_bytes_as_records_raise_nothing_and_stay_bounded():
    rng = random.Random(7)
    contexts = make_contexts()
    for round_ in range(30):
        found = make_talk(contexts, *HELLO, *BYE)
        talk = Conversation(sport=3000 + round_, dport=443).open()
        for record in found:
            data = bytearray(header(record) + record.body)
            for _ in range(rng.choice((0, 0, 1, 3))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            talk.say(SIDES[record.direction], bytes(data))
        talk.end()
        closes, _, _ = analyze(talk.pcap(), keys_of(contexts))
        assert all(row["code"] in (4001, None, 1006) for row in closes)


def test_records_that_never_end_hold_no_more_than_the_limit(monkeypatch):
    monkeypatch.setattr(records, "MAX_ARENA_BYTES", 1 << 18)
    packets = []
    hello = Wire(*make_contexts()).records[0]
    for i in range(100):
        talk = Conversation(sport=10_000 + i, dport=443).open()
        talk.say(CLIENT, header(hello) + hello.body)
        talk.say(CLIENT, b"\x17\x03\x03\x40\x00" + bytes(100))  # 16 KiB are claimed
        packets += talk.packets
    talk.packets = packets
    ring = KeyRing()
    ring.may_come = True
    tracker = Tracker(secrets=ring)
    for chunk in Reader(io.BytesIO(talk.pcap()), "test").chunks():
        tracker.feed(chunk)
    assert len(tracker._arena) <= 1 << 18
    assert tracker.n_skipped_records > 80
    tracker.finish()


def half_a_hello(sport, n=1200):
    """The beginning of a ClientHello that claims 60,000 bytes, in records."""
    talk = Conversation(sport=sport, dport=443).open()
    data = b"\x01" + (60_000).to_bytes(3, "big") + bytes(n)
    for off in range(0, len(data), 1000):
        part = data[off : off + 1000]
        talk.say(CLIENT, b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
    return talk


def test_messages_that_never_end_hold_no_more_than_the_limit(monkeypatch):
    monkeypatch.setattr(unwrap, "MAX_MESSAGE_BYTES", 50_000)
    contexts = make_contexts()
    late = half_a_hello(9_999, 100)
    packets = [*late.packets, *(packet for i in range(100) for packet in half_a_hello(10_000 + i).packets)]
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    talk.packets += packets
    ring = KeyRing([keys_of(contexts)])
    tracker, found = Tracker(secrets=ring), []
    for chunk in Reader(io.BytesIO(talk.pcap()), "test").chunks():
        found += tracker.feed(chunk)
    held = {layer: one.session.gathered_bytes for layer, one in tracker._unwrapper._wrapped.items() if one.session}
    assert 48_000 < sum(held.values()) <= 50_000
    assert held == {layer: tracker._unwrapper._gathering.get(layer, 0) for layer in held}
    assert tracker._unwrapper._n_gathered_bytes == sum(held.values())
    assert tracker.n_skipped_messages == sum(n == 0 for n in held.values()) - 1  # the one that was opened held none
    assert views(to_rows([*found, *tracker.finish()])[0])[CLIENT] == (4001, "wire", "status")
    assert not tracker._unwrapper._gathering


def test_a_message_that_was_passed_over_leaves_the_next_in_step():
    """Only that message is unread: a hello behind it is found where it stands."""
    session = Session(KeyLog())
    place = Mark(1, 1, 1, 1)
    hello = Wire(*make_contexts()).records[0]
    certificate = b"\x0b" + (5000).to_bytes(3, "big")  # type and length of what nobody reads
    first = b"\x08" + (5000).to_bytes(3, "big")  # of a type that is read
    session.read(0, 22, 0x0301, first[:3], place)
    assert (session.pass_messages(), session.gathered_bytes) == (0, 3)  # where it ends is not known yet
    session.read(0, 22, 0x0301, first[3:] + bytes(100), place)
    assert session.gathered_bytes == 104
    assert session.pass_messages() == 1
    assert (session.gathered_bytes, session.pass_messages()) == (0, 0)
    session.read(0, 22, 0x0301, b"\x01" * 4900 + certificate + bytes(3000), place)
    session.read(0, 22, 0x0301, bytes(2000) + hello.body, place)
    assert (session.client, session.sni) == (0, "chat.example")


def test_too_many_layers_are_counted(monkeypatch):
    monkeypatch.setattr(records, "MAX_LAYERS", 32)
    hello = Wire(*make_contexts()).records[0]
    packets = []
    for i in range(100):
        talk = Conversation(sport=10_000 + i, dport=443).open()
        talk.say(CLIENT, header(hello) + hello.body)
        packets += talk.packets
    talk.packets = packets
    _, _, tracker = analyze(talk.pcap())
    assert tracker.n_skipped_layers == 100 - 32
    assert tracker.n_encrypted == 100


# ---- HTTP/2


class Streams:
    """Two ends of the h2 package, and the packets of what they say."""

    def __init__(self, talk=None):
        self.talk = talk or Conversation().open()
        self.ends = [
            h2.connection.H2Connection(h2.config.H2Configuration(client_side=side == CLIENT)) for side in SIDES
        ]
        self.ends[1].local_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        for end in self.ends:
            end.initiate_connection()
        self.flush()

    def flush(self):
        """Send what waits; the packet number of the last that was sent."""
        number = 0
        for _ in range(3):
            for i, end in enumerate(self.ends):
                if data := end.data_to_send():
                    number = self.talk.say(SIDES[i], data)
                    self.ends[1 - i].receive_data(data)
        return number

    def open(self, stream, status="200"):
        asked = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "example.com")]
        self.ends[0].send_headers(stream, [*asked, (":path", f"/{stream}"), ("sec-websocket-version", "13")])
        self.flush()
        if status:
            self.ends[1].send_headers(stream, [(":status", status)], end_stream=status != "200")
            self.flush()

    def say(self, side, stream, data, **more):
        self.ends[side].send_data(stream, data, **more)
        return self.flush()

    def rows(self):
        closes, connections, _ = analyze(self.talk.pcap())
        return {
            int(row["connection"].rpartition("-s")[2]): (
                row,
                {view["endpoint"]: view for view in closes if view["connection"] == row["connection"]},
            )
            for row in connections
        }


def said(views):
    return {end: (row["code"], str(row["evidence"]), row["record"]) for end, row in views.items()}


def test_streams_of_one_connection_end_each_in_its_way():
    """Rows 19 to 21, by what the h2 package sent and the packets it went out in."""
    both = Streams()
    for number in (1, 3, 5, 7):
        both.open(number)
    first = both.say(0, 1, close(4000, "bye", mask=MASK))
    second = both.say(1, 1, close(4000, "bye"), end_stream=True)
    both.ends[0].end_stream(1)
    both.flush()
    both.ends[1].end_stream(3)
    ended = both.flush()
    both.ends[0].end_stream(3)
    answered = both.flush()
    both.ends[1].reset_stream(5, 8)
    reset = both.flush()
    fin = both.talk.fin(SERVER)
    last = both.talk.fin(CLIENT)
    both.talk.ack(SERVER)
    rows = both.rows()
    assert {row["transport"] for row, _ in rows.values()} == {"h2c"}
    assert said(rows[1][1]) == {CLIENT: (4000, "status", second), SERVER: (4000, "status", first)}
    assert said(rows[3][1]) == {CLIENT: (1006, "stream_end", ended), SERVER: (1006, "stream_end", answered)}
    assert said(rows[5][1]) == {CLIENT: (1006, "stream_reset", reset), SERVER: (1006, "stream_reset", reset)}
    assert said(rows[7][1]) == {CLIENT: (1006, "no_close_fin", fin), SERVER: (1006, "no_close_fin", last)}
    ends = {stream: (str(row["end"]), row["ended_by"]) for stream, (row, _) in rows.items()}
    assert ends[3] == ("stream_end", SERVER)
    assert ends[5] == ("stream_reset", SERVER)
    assert ends[7] == ("fin", SERVER)


def test_a_rejected_extended_connect_keeps_its_status():
    both = Streams()
    both.open(1, None)
    both.ends[1].send_headers(1, [(":status", "403")])
    both.say(1, 1, close(4000, "no frame, though it looks like one") + b"\xff<html>", end_stream=True)
    both.talk.end()
    row, told = both.rows()[1]
    assert (str(row["handshake"]), row["http_status"], row["path"]) == ("rejected", 403, "/1")
    assert (str(row["server_close"]), row["anomalies"]) == ("none", [])
    assert {end: (view["code"], str(view["evidence"])) for end, view in told.items()} == {
        CLIENT: (1006, "handshake_rejected")
    }


def test_a_header_block_that_is_too_long_is_counted(tmp_path):
    """Behind it nothing can be known of later requests, and that is said."""
    talk = Conversation().open()
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    talk.say(CLIENT, preface)
    talk.say(SERVER, bytes.fromhex("000000040000000000"))
    block = bytes(16_000)
    talk.say(CLIENT, len(block).to_bytes(3, "big") + b"\x01\x00" + (1).to_bytes(4, "big") + block)
    for _ in range(5):
        talk.say(CLIENT, len(block).to_bytes(3, "big") + b"\x09\x00" + (1).to_bytes(4, "big") + block)
    talk.say(CLIENT, bytes.fromhex("000000090400000001"))
    talk.end()
    _, _, (row,) = gather(stream(talk.write(tmp_path / "x.pcap")))
    assert row["skipped_streams"] == 1


@pytest.mark.parametrize("every", [1, 2, 5, 100])
def test_when_a_stream_that_ended_leaves_changes_nothing(every):
    """A Close and RST_STREAM in one segment, acknowledged later: however often the tracker looks for what is over."""
    both = Streams()
    both.open(1)
    server = both.ends[1]
    server.send_data(1, close(4000, "bye"))
    server.reset_stream(1, 8)
    both.talk.say(SERVER, server.data_to_send(), ack=None)
    both.talk.ack(CLIENT)
    both.open(3)
    both.talk.end()
    (chunk,) = Reader(io.BytesIO(both.talk.pcap()), "test").chunks()
    tracker, found = Tracker(), []
    for i in range(0, len(chunk.packets), every):
        tracker._since_sweep = 1 << 40
        found += tracker.feed(chunk._replace(packets=chunk.packets[i : i + every], first_packet=i + 1))
    closes, _ = to_rows([*found, *tracker.finish()])
    told = [(row["code"], row["evidence"], row["confidence"]) for row in closes if row["connection"].endswith("-s1")]
    assert told[0] == (4000, "status", "medium")


def test_goaway_leaves_what_it_takes_and_refuses_the_rest():
    """Row 22: a stream above the last one was never opened, and nobody reports a code for it."""
    both = Streams()
    both.open(1)
    both.ends[0].send_headers(
        3,
        [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "x"), (":path", "/3")],
    )
    both.talk.say(CLIENT, both.ends[0].data_to_send())
    both.talk.say(SERVER, bytes.fromhex("000008070000000000") + (1).to_bytes(4, "big") + bytes(4))
    frames = close(1001, mask=MASK), close(1001)
    both.talk.say(CLIENT, bytes.fromhex("000008000000000001") + frames[0])
    both.talk.say(SERVER, bytes.fromhex("000004000100000001") + frames[1])
    both.talk.end()
    rows = both.rows()
    assert {view["code"] for view in rows[1][1].values()} == {1001}
    assert (str(rows[3][0]["handshake"]), rows[3][1]) == ("failed", {})


def test_a_close_in_http2_whose_segment_is_lost_is_not_1006():
    both = Streams()
    both.open(1)
    at = both.say(1, 1, close(4000, "bye"))
    both.say(0, 1, close(4000, "bye", mask=MASK), end_stream=True)
    both.ends[1].end_stream(1)
    both.flush()
    both.talk.end()
    assert {view["code"] for view in both.rows()[1][1].values()} == {4000}
    del both.talk.packets[at - 1]
    told = both.rows()[1][1]
    assert (told[CLIENT]["code"], told[SERVER]["code"]) == (None, 4000)
