"""TLS against real endpoints: what they sent is what must come out, or nothing."""

import pickle
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tlswire import Handmade, Record, Wire, make_certificate, make_contexts, message, run_openssl, talk

from analyzer.capture import half, hello, tls
from analyzer.capture.keylog import KeyLog
from analyzer.capture.mark import Mark
from analyzer.capture.suite import SUITES, VERSIONS, inner_size
from analyzer.capture.tls import Plain, Session, State

V1, V11, V12, V13 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
DATA, ALERT, HANDSHAKE, CHANGE = 23, 21, 22, 20

SPOKEN = [
    (V13, None, "ec", "TLS_AES_256_GCM_SHA384"),
    (V12, "ECDHE-ECDSA-AES128-GCM-SHA256", "ec", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    (V12, "ECDHE-RSA-AES256-GCM-SHA384", "rsa", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    (V12, "ECDHE-ECDSA-CHACHA20-POLY1305", "ec", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    (V12, "AES128-GCM-SHA256", "rsa", "TLS_RSA_WITH_AES_128_GCM_SHA256"),
    (V12, "ECDHE-ECDSA-AES256-CCM", "ec", "TLS_ECDHE_ECDSA_WITH_AES_256_CCM"),
    (V12, "ECDHE-ECDSA-AES128-CCM8", "ec", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8"),
    (V12, "ECDHE-ECDSA-AES128-SHA", "ec", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
    (V12, "AES256-SHA256", "rsa", "TLS_RSA_WITH_AES_256_CBC_SHA256"),
    (V12, "ECDHE-ECDSA-AES256-SHA384", "ec", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384"),
    (V11, "ECDHE-ECDSA-AES256-SHA", "ec", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"),
    (V1, "AES128-SHA", "rsa", "TLS_RSA_WITH_AES_128_CBC_SHA"),
]


def mark(i):
    return Mark(100 * i, 7, 1_000 * i, i + 1)


def keys_of(contexts):
    return Path(contexts[0].keylog_filename).read_bytes()


def key_log(text):
    keys = KeyLog()
    keys.add(text)
    return keys


def feed(session, records, *, start=0):
    out = []
    for i, record in enumerate(records, start):
        out += session.read(*record, mark(i))
    return out


def read_all(records, keys):
    session = Session(key_log(keys))
    return session, feed(session, records) + session.finish()


def texts(plains, direction):
    return [plain.data for plain in plains if (plain.direction, plain.kind) == (direction, DATA)]


def carried(plains):
    """Application data of both directions, which must be free of losses."""
    assert {plain.lost_bytes for plain in plains} <= {0}
    return [b"".join(texts(plains, direction)) for direction in (0, 1)]


def said(wire):
    return [b"".join(sent) for sent in wire.sent]


@pytest.fixture(scope="module")
def conversations():
    """A conversation in each way of sealing records, with its keys."""
    found = []
    for version, ciphers, certificate, name in SPOKEN:
        contexts = make_contexts(version, ciphers, certificate)
        found.append((name, talk(contexts), keys_of(contexts)))
    return found


@pytest.fixture(scope="module")
def modern(conversations):
    return conversations[0]


@pytest.fixture(scope="module")
def older(conversations):
    return conversations[1]


def test_what_endpoints_sent_comes_out(conversations):
    for (version, *_), (name, wire, keys) in zip(SPOKEN, conversations, strict=True):
        session, out = read_all(wire.records, keys)
        assert carried(out) == said(wire), name
        assert session.version == wire.ends[0].version() == version.name.replace("_", ".").replace("TLSv1.0", "TLSv1")
        assert session.cipher == name
        assert (session.client, session.sni) == (0, "chat.example")
        assert (session.alpn_offers, session.alpn) == (("h2", "http/1.1"), wire.ends[0].selected_alpn_protocol())
        assert session.is_established
        assert session.states == (State.OPEN, State.OPEN)
        assert (session.needs_keys, session.held_bytes) == (False, 0)
        closing = [(a.direction, a.level, a.name, a.was_encrypted) for a in session.alerts]
        assert closing == [(0, 1, "close_notify", True), (1, 1, "close_notify", True)]
        assert [(p.direction, p.data) for p in out if p.kind == ALERT] == [(0, b"\1\0"), (1, b"\1\0")]


def test_marks_are_those_of_the_records(modern):
    _, wire, keys = modern
    _, out = read_all(wire.records, keys)
    assert all(wire.records[plain.mark.packet - 1].direction == plain.direction for plain in out)
    assert [plain.mark for plain in out] == sorted(plain.mark for plain in out)


def test_the_server_may_be_any_side(older):
    _, wire, keys = older
    turned = [Record(1 - record.direction, *record[1:]) for record in wire.records]
    session, out = read_all(turned, keys)
    assert session.client == 1
    assert carried(out) == said(wire)[::-1]


def test_without_keys_everything_is_sealed(conversations):
    for name, wire, keys in conversations:
        wrong = b"\n".join(line[:-4] + b"0000" for line in keys.splitlines())
        for log in (b"", wrong):
            session, out = read_all(wire.records, log)
            assert session.state is State.SEALED, name
            assert session.is_established
            # one word for each direction: from here on everything is lost
            assert sorted((p.direction, p.kind, p.data, p.lost_bytes) for p in out) == [
                (0, DATA, b"", -1),
                (1, DATA, b"", -1),
            ]
            assert (session.sni, session.version) == ("chat.example", wire.ends[0].version())
            assert session.held_bytes == 0


def test_needs_keys_then_goes_on(conversations):
    for name, wire, text in conversations:
        keys = KeyLog()
        session = Session(keys)
        assert not session.needs_keys
        out = feed(session, wire.records[:8])
        assert session.needs_keys, name
        assert session.retry() == out == []
        keys.add(text)
        out = session.retry()
        assert not session.needs_keys
        assert session.held_bytes == 0
        out += feed(session, wire.records[8:], start=8) + session.finish()
        assert carried(out) == said(wire), name


def test_secrets_that_come_one_by_one(modern):
    _, wire, text = modern
    keys = KeyLog()
    session = Session(keys)
    out = []
    for i, record in enumerate(wire.records):
        if i and i % 2 == 0 and i // 2 <= text.count(b"\n"):
            keys.add(b"\n".join(text.splitlines()[: i // 2]))
            out += session.retry()
        out += session.read(*record, mark(i))
    out += session.finish()
    assert carried(out) == said(wire)


def test_giving_up_seals_what_is_held_and_what_follows(modern):
    _, wire, text = modern
    keys = KeyLog()
    session = Session(keys)
    feed(session, wire.records[:-4])
    assert session.held_bytes > sum(len(r.body) for r in wire.records[4:-4])
    out = session.give_up()
    assert session.held_bytes == 0
    keys.add(text)
    out += session.retry() + feed(session, wire.records[-4:]) + session.finish()
    assert [(p.data, p.lost_bytes) for p in out] == [(b"", -1)] * 2
    assert not session.needs_keys


def test_held_records_have_a_limit(modern, monkeypatch):
    _, wire, _ = modern
    monkeypatch.setattr(tls, "HELD_BYTES", 5000)
    session = Session(KeyLog())
    most = 0
    for i, record in enumerate(wire.records):
        session.read(*record, mark(i))
        most = max(most, session.held_bytes)
    assert 3000 < most <= 5000
    assert session.state is State.SEALED
    session = Session(KeyLog())
    feed(session, wire.records[:3])
    for _ in range(100):
        session.miss(1, 10, mark(1))
        session.lose(1, None)
    assert session.held_bytes <= 5000


@settings(max_examples=60)
@given(st.data())
def test_any_order_of_the_two_directions(conversations, data):
    """One direction may be captured long before the other: what is missing is waited for."""
    _, wire, keys = data.draw(st.sampled_from(conversations))
    queues = [[record for record in wire.records if record.direction == d] for d in (0, 1)]
    mixed = []
    while any(queues):
        d = data.draw(st.sampled_from([i for i in (0, 1) if queues[i]]))
        n = data.draw(st.integers(1, 6))
        mixed += queues[d][:n]
        queues[d] = queues[d][n:]
    session, out = read_all(mixed, keys)
    assert carried(out) == said(wire)
    assert session.is_established


def recut(records, sizes):
    """The same with the handshake messages in the clear cut into records of other sizes, or joined."""
    found, pending, is_clear = [], b"", [True, True]
    sizes = list(sizes)
    for i, record in enumerate(records):
        if record.kind == HANDSHAKE and is_clear[record.direction]:
            pending += record.body
            following = records[i + 1] if i + 1 < len(records) else None
            if following and following[:2] == record[:2] and is_clear[record.direction]:
                continue
            while pending:
                n = sizes.pop() if sizes else 5000
                found.append(record._replace(body=pending[:n]))
                pending = pending[n:]
            continue
        is_clear[record.direction] = False
        found.append(record)
    return found


@settings(max_examples=40)
@given(st.data())
def test_handshakes_cut_into_records_anyhow(conversations, data):
    _, wire, keys = data.draw(st.sampled_from(conversations))
    sizes = data.draw(st.lists(st.integers(1, 600), max_size=300))
    records = recut(wire.records, sizes)
    _, out = read_all(records, keys)
    assert carried(out) == said(wire)


def check_against(wire, plains):
    """What came out was sent, in this order, and losses are what is missing between."""
    for direction in (0, 1):
        sent = wire.sent[direction]
        stream, off, is_known = b"".join(sent), 0, True
        for plain in plains:
            if plain.direction != direction or plain.kind != DATA:
                continue
            if plain.lost_bytes == -1:
                is_known = False
            elif is_known:
                off += plain.lost_bytes
            if plain.data:
                at = stream.find(plain.data, off)
                assert at == off if is_known else at >= off
                off, is_known = at + len(plain.data), True


def feed_with_losses(session, records, losses):
    """`losses` by index of the record: how its loss is told."""
    out = []
    for i, record in enumerate(records):
        how = losses.get(i)
        if how is None:
            out += session.read(*record, mark(i))
        elif how == "miss":
            out += session.miss(record.direction, len(record.body), mark(i), kind=record.kind)
        else:
            out += session.lose(record.direction, 1 if how == "one" else None)
    return out + session.finish()


HOW = st.sampled_from(["miss", "one", "some"])


@settings(max_examples=250)
@given(st.data())
def test_lost_records_never_make_wrong_data(conversations, data):
    _, wire, keys = data.draw(st.sampled_from(conversations))
    losses = data.draw(st.dictionaries(st.integers(0, len(wire.records) - 1), HOW, max_size=8))
    session = Session(key_log(keys))
    check_against(wire, feed_with_losses(session, wire.records, losses))


def test_after_any_loss_of_data_the_rest_is_opened(conversations):
    for name, wire, keys in conversations:
        if wire.ends[0].version() == "TLSv1":  # without a record of before nothing can be opened
            continue
        spots = [i for i, r in enumerate(wire.records) if r.kind == DATA and i > len(wire.records) - 8]
        for i in spots[:-2]:
            direction = wire.records[i].direction
            for how in ("miss", "one", "some"):
                session = Session(key_log(keys))
                out = feed_with_losses(session, wire.records, {i: how})
                check_against(wire, out)
                lost = [plain.lost_bytes for plain in out if plain.lost_bytes]
                exact = how == "miss" and not any(part in name for part in ("CBC", "TLS_AES"))
                (text,) = [t for t in wire.sent[direction] if t not in texts(out, direction)]
                assert lost == [len(text) if exact else -1], (name, how)
                told = [(p.kind, p.lost_bytes != 0) for p in out if p.direction == direction]
                assert told.index((DATA, True)) < told.index((ALERT, False))  # before close_notify
                assert texts(out, 1 - direction) == wire.sent[1 - direction]


def test_a_loss_that_was_none_costs_nothing(conversations):
    for name, wire, keys in conversations:
        session = Session(key_log(keys))
        out = []
        for i, record in enumerate(wire.records):
            if i > len(wire.records) - 8 and wire.ends[0].version() != "TLSv1":
                session.lose(record.direction, None)
            out += session.read(*record, mark(i))
        assert carried(out + session.finish()) == said(wire), name


def test_lost_parts_of_the_handshake_cost_no_data(conversations):
    """Lost: each record alone that is neither a hello nor data. What was sent after it is still read."""
    for name, wire, keys in conversations:
        if wire.ends[0].version() == "TLSv1":
            continue
        is_13 = wire.ends[0].version() == "TLSv1.3"
        first_data = len(wire.records) - 8
        for i in range(2, first_data):
            if is_13 and wire.records[i].direction == 1 and i > first_data - 3:
                continue  # tickets, under the same keys as data
            for how in ("one", "some", "miss"):
                session = Session(key_log(keys))
                out = feed_with_losses(session, wire.records, {i: how})
                for direction in (0, 1):
                    assert b"".join(texts(out, direction)) == b"".join(wire.sent[direction]), (name, i, how)
                if how == "miss" or not is_13:
                    assert carried(out)  # it is known not to have been data


def test_a_loss_at_the_end_is_told(conversations):
    for name, wire, keys in conversations:
        records = [record for record in wire.records if record.direction == 0 or record.kind != ALERT]
        session = Session(key_log(keys))
        last = max(i for i, r in enumerate(wire.records) if r.direction == 0 and r.kind != ALERT)
        out = feed(session, records[:last])
        out += session.lose(0, 2) + session.finish()
        assert out[-1][2:] == (DATA, b"", -1), name
        assert out[-1].direction == 0


def test_a_long_loss_is_found_within_the_bound(monkeypatch):
    contexts = make_contexts()
    wire = Wire(*contexts)
    n = len(wire.records)
    for k in range(60):
        wire.send(0, b"%d" % k)
    for bound, found in ((60, True), (30, False)):
        monkeypatch.setattr(tls, "SEARCH_RECORDS", bound)
        session = Session(key_log(keys_of(contexts)))
        out = feed(session, wire.records[: n + 5])
        session.lose(0, None)
        out += feed(session, wire.records[n + 50 :]) + session.finish()
        assert session.states[0] is (State.OPEN if found else State.SEALED)
        assert texts(out, 0)[5:] == ([b"%d" % k for k in range(50, 60)] if found else [b""])
        assert out[5].lost_bytes == -1
    # the explicit nonces of TLS 1.2 count, so there it is found however many are lost
    contexts = make_contexts(V12, "ECDHE-ECDSA-AES128-GCM-SHA256")
    wire = Wire(*contexts)
    n = len(wire.records)
    for k in range(60):
        wire.send(0, b"%d" % k)
    session = Session(key_log(keys_of(contexts)))
    out = feed(session, wire.records[: n + 5])
    session.lose(0, None)
    out += feed(session, wire.records[n + 50 :])
    assert texts(out, 0)[5:] == [b"%d" % k for k in range(50, 60)]


def test_so_many_lost_records_are_skipped_at_once(monkeypatch):
    monkeypatch.setattr(tls, "SEARCH_RECORDS", tls.NEAR_RECORDS)
    contexts = make_contexts()
    wire = Wire(*contexts)
    n = len(wire.records)
    for k in range(60):
        wire.send(0, b"%d" % k)
    session = Session(key_log(keys_of(contexts)))
    out = feed(session, wire.records[: n + 5])
    session.lose(0, 45)
    out += feed(session, wire.records[n + 50 :])
    assert texts(out, 0)[5:] == [b"%d" % k for k in range(50, 60)]


@settings(max_examples=150)
@given(st.data())
def test_changed_bytes_never_make_wrong_data(conversations, data):
    _, wire, keys = data.draw(st.sampled_from(conversations))
    records = list(wire.records)
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(records) - 1))
        body = bytearray(records[i].body)
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
        kind = data.draw(st.sampled_from([records[i].kind, 20, 21, 22, 23, 24]))
        records[i] = records[i]._replace(body=bytes(body[: data.draw(st.integers(0, len(body)))]), kind=kind)
    session, out = read_all(records, keys)
    check_against(wire, out)
    assert session.held_bytes == 0


messages = st.builds(
    lambda kind, body, claimed: bytes([kind]) + (len(body) if claimed is None else claimed).to_bytes(3, "big") + body,
    st.sampled_from([0, 1, 2, 4, 5, 8, 11, 14, 20, 24]),
    st.binary(max_size=120),
    st.none() | st.integers(0, 2**24 - 1),
)
bodies = st.binary(max_size=80) | st.lists(messages, max_size=6).map(b"".join)
noise = st.tuples(st.integers(0, 1), st.sampled_from([20, 21, 22, 23, 24, 0, 255]), st.just(0x0303), bodies)


@settings(max_examples=200)
@given(st.lists(noise, max_size=20), st.integers(0, 12), st.data())
@example([(0, 22, 0, b"\x01\0\0\x00")], 0, None)
def test_any_records_at_all(modern, older, records, n, data):
    for _, wire, keys in (modern, older):
        session = Session(key_log(keys))
        out = feed(session, wire.records[:n])
        for i, record in enumerate(records):
            if i % 5 == 3:
                out += session.lose(record[0], None if i % 2 else 10**30)
            if i % 7 == 3:
                out += session.miss(record[0], 10**9, mark(i), kind=record[1])
            out += session.read(*record, mark(i))
            assert session.held_bytes >= 0
            assert len(session.alerts) <= tls.MAX_ALERTS
        out += session.retry() + session.finish()
        assert session.held_bytes == 0
        assert all(isinstance(plain, Plain) and len(plain.data) <= 65535 for plain in out)


def test_pickled_between_any_two_records(conversations):
    for name, wire, keys in conversations:
        session = Session(key_log(keys))
        out = []
        for i, record in enumerate(wire.records):
            session = pickle.loads(pickle.dumps(session))
            out += session.read(*record, mark(i))
        assert carried(out + session.finish()) == said(wire), name


def test_no_secret_is_shown(modern):
    _, wire, keys = modern
    session, out = read_all(wire.records, keys)
    shown = repr(session) + repr(vars(session)) + repr(out) + repr(session._agreement.find_keys(3, is_client=True))
    for line in keys.splitlines()[1:]:
        secret = bytes.fromhex(line.split()[2].decode())
        assert secret.hex() not in shown
        assert repr(secret) not in shown


def test_a_session_resumed_by_ticket_or_id_without_a_key_line_of_its_own():
    for option in (0, ssl.OP_NO_TICKET):
        contexts = make_contexts(V12, "ECDHE-ECDSA-AES128-GCM-SHA256")
        contexts[1].options |= option
        first = talk(contexts)
        text = keys_of(contexts)
        second = talk(contexts, session=first.ends[0].session)
        assert second.ends[0].session_reused
        keys = key_log(text)
        session = Session(keys)
        assert carried(feed(session, first.records)) == said(first)
        session = Session(keys)
        out = feed(session, second.records)
        assert not session.needs_keys
        assert carried(out) == said(second)
        # without the first connection there is no key
        session, _ = read_all(second.records, text)
        assert session.state is State.SEALED


def test_a_full_handshake_does_not_take_the_secret_of_another():
    contexts = make_contexts(V12, "ECDHE-ECDSA-AES128-GCM-SHA256")
    first = talk(contexts)
    keys = key_log(keys_of(contexts))
    feed(Session(keys), first.records)
    others = make_contexts(V12, "ECDHE-ECDSA-AES128-GCM-SHA256")
    second = talk((contexts[0], others[1]), session=first.ends[0].session)  # offers the ticket to another server
    assert not second.ends[0].session_reused
    session = Session(keys)
    assert feed(session, second.records) == []
    assert session.needs_keys
    keys.add(keys_of(contexts))
    assert carried(session.retry()) == said(second)


def test_resumption_in_13():
    contexts = make_contexts()
    first = talk(contexts)
    second = talk(contexts, session=first.ends[0].session)
    assert second.ends[0].session_reused
    _, out = read_all(second.records, keys_of(contexts))
    assert carried(out) == said(second)


@pytest.mark.parametrize("version", [V12, V13])
def test_a_client_that_does_not_trust_the_certificate(version):
    _, server = make_contexts(version)
    client = ssl.create_default_context()
    client.keylog_filename = str(Path(tempfile.mkdtemp(), "keys"))
    client.minimum_version = client.maximum_version = version
    wire = Wire(client, server, fails=True)
    assert "CERTIFICATE_VERIFY_FAILED" in str(wire.error)
    session, out = read_all(wire.records, keys_of((client,)))
    # OpenSSL's client sends it in the clear in TLS 1.3 too: it has not changed its keys yet
    assert [alert[0:1] + alert[2:] for alert in session.alerts] == [(0, 2, "unknown_ca", False)]
    assert [(plain.direction, plain.kind, plain.data) for plain in out] == [(0, ALERT, b"\x02\x30")]
    assert not session.is_established
    session, out = read_all(wire.records, b"")
    assert [alert.name for alert in session.alerts] == ["unknown_ca"]
    assert not session.is_established


def test_openssl_server_that_misses_a_certificate():
    (found,) = run_openssl([], server=["-Verify", "1"])
    session, _ = read_all(*found)
    assert [alert[0:1] + alert[2:] for alert in session.alerts] == [(1, 2, "certificate_required", True)]
    session, _ = read_all(found.records, b"")
    assert session.alerts == []


def test_openssl_key_update_of_both_sides():
    (found,) = run_openssl([], lines=[b"one\n", b"K\n", b"two\n", b"k\n", b"three\n", b"K\n", b"four\n", b"five\n"])
    session, out = read_all(*found)
    sent = [b"one\n", b"two\n", b"three\n", b"four\n", b"five\n"]
    ours, theirs = carried(out)
    assert ours == b"".join(sent)
    # the server answers late, so perhaps not all, but beyond its own change of keys
    assert b"".join(line[-2::-1] + b"\n" for line in sent).startswith(theirs)
    assert b"owt" in theirs
    assert session.states == (State.OPEN, State.OPEN)
    # a record lost on either side of a key update
    for i, record in enumerate(found.records):
        if record.kind == DATA and i > 5:
            session = Session(key_log(found.keys))
            out = feed_with_losses(session, found.records, {i: "some"})
            found_lines = [line for line in texts(out, 0) if line]
            assert [line for line in sent if line in found_lines] == found_lines
            assert len(found_lines) >= 4


@pytest.mark.parametrize(
    "name",
    ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"],
)
def test_openssl_suites_of_13_with_padding(name):
    (found,) = run_openssl(
        ["-ciphersuites", name, "-record_padding", "64"],
        server=["-ciphersuites", name, "-max_send_frag", "512"],  # less than the certificate has
        certificate="rsa",
    )
    session, out = read_all(*found)
    assert session.cipher == name
    assert carried(out) == [b"one\n", b"eno\n"]
    assert any(record.kind == DATA and len(record.body) % 64 in (8, 16) for record in found.records)


def test_openssl_hello_retry_request():
    (found,) = run_openssl(["-groups", "P-256:P-384"], server=["-groups", "P-384"])
    assert sum(record.kind == HANDSHAKE for record in found.records) == 4
    _, out = read_all(*found)
    assert carried(out) == [b"one\n", b"eno\n"]


@pytest.mark.parametrize("options", [[], ["-no_etm"]])
def test_openssl_cbc_with_and_without_encrypt_then_mac(options):
    (found,) = run_openssl(["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256", *options])
    session, out = read_all(*found)
    assert session._agreement.server.is_mac_last is not bool(options)
    assert carried(out) == [b"one\n", b"eno\n"]


def test_openssl_psk():
    (found,) = run_openssl(
        ["-tls1_2", "-psk", "1234", "-cipher", "PSK-AES128-GCM-SHA256"],
        server=["-psk", "1234", "-cipher", "PSK-AES128-GCM-SHA256", "-nocert"],
    )
    session, out = read_all(*found)
    assert session.cipher == "TLS_PSK_WITH_AES_128_GCM_SHA256"
    assert carried(out) == [b"one\n", b"eno\n"]


def test_openssl_renegotiation():
    (found,) = run_openssl(
        ["-tls1_2"], server=["-client_renegotiation"], lines=[b"one\n", b"R\n", b"two\n", b"three\n"]
    )
    session, out = read_all(*found)
    assert session._halves[0].n_hellos == session._halves[1].n_hellos == 2
    assert carried(out) == [b"one\ntwo\nthree\n", b"eno\nowt\neerht\n"]
    # the second master secret is missing
    line = found.keys.splitlines()[-1]
    session, out = read_all(found.records, found.keys.replace(line, b""))
    assert session.state is State.SEALED
    assert texts(out, 0) == [b"one\n", b""]


@pytest.mark.parametrize("case", ["taken", "refused", "asked again"])
def test_openssl_early_data(case, tmp_path):
    early = tmp_path / "early"
    early.write_bytes(b"early words\n")
    saved = tmp_path / "session"
    server = {"taken": ["-early_data"], "refused": ["-max_early_data", "16384"]}.get(case, ["-early_data"])
    groups = ["-groups", "P-256"] if case != "asked again" else ["-groups", "P-384"]
    again = ["-groups", "P-256:P-384"] if case == "asked again" else groups
    _, second = run_openssl(
        ["-sess_out", saved, *groups],
        ["-sess_in", saved, "-early_data", early, *again],
        server=[*server, *groups],
        echo=False,
        directory=tmp_path,
    )
    session, out = read_all(*second)
    heads = [record.kind for record in second.records if record.direction == 0][:4]
    assert DATA in heads
    assert session._takes_early is (case == "taken")
    assert session._is_retried is (case == "asked again")
    assert carried(out)[0] == (b"early words\none\n" if case == "taken" else b"one\n")
    if case == "taken":  # the key of early data is missing: it is lost, the rest is not
        keys = b"\n".join(line for line in second.keys.splitlines() if b"EARLY_TRAFFIC" not in line)
        _, out = read_all(second.records, keys)
        assert [(p.data, p.lost_bytes) for p in out if p.direction == 0 and p.kind == DATA] == [(b"one\n", -1)]


def test_a_connection_that_began_before_the_capture_is_sealed_at_once(modern):
    _, wire, keys = modern
    session = Session(key_log(keys))
    out = feed(session, wire.records[-6:])
    assert [plain.lost_bytes for plain in out] == [-1, -1]
    assert (session.state, session.held_bytes, session.client) == (State.SEALED, 0, None)


def test_only_one_direction_was_captured(modern, older):
    for _, wire, keys in (modern, older):
        for direction in (0, 1):
            session, out = read_all([r for r in wire.records if r.direction == direction], keys)
            assert [plain.lost_bytes for plain in out] == [-1]
            assert session.state is not State.OPEN


def test_one_secret_of_four_is_missing(modern):
    _, wire, keys = modern
    for label in (b"SERVER_TRAFFIC_SECRET_0", b"CLIENT_TRAFFIC_SECRET_0"):
        kept = b"\n".join(line for line in keys.splitlines() if not line.startswith(label))
        session, out = read_all(wire.records, kept)
        side = 0 if label.startswith(b"CLIENT") else 1
        assert session.states[side] is State.SEALED
        assert texts(out, 1 - side) == wire.sent[1 - side]
        assert texts(out, side) == [b""]


def test_secrets_that_are_cut_off_are_waited_for(modern):
    _, wire, text = modern
    keys = KeyLog()
    keys.add(b"".join(line[:-32] + b"\n" for line in text.splitlines()))
    session = Session(keys)
    assert feed(session, wire.records) == []
    assert session.needs_keys
    keys.add(text)
    assert carried(session.retry()) == said(wire)


def test_handmade():
    made = Handmade()
    keys = made.keys
    records = [*made.open(), made.seal("client", DATA, b"hello", padding=40), made.update("client")]
    records += [made.seal("client", DATA, b"again"), made.seal("server", DATA, b"")]
    session, out = read_all(records, keys)
    assert [plain[2:] for plain in out] == [(DATA, b"hello", 0), (DATA, b"again", 0), (DATA, b"", 0)]
    assert session.is_established


@pytest.mark.parametrize("count", [None, 1, 3])
def test_an_update_of_keys_among_lost_records(count):
    made = Handmade()
    records = [*made.open(), made.seal("client", DATA, b"one")]
    session = Session(key_log(made.keys))
    out = feed(session, records)
    made.seal("client", DATA, b"lost")
    made.update("client")
    made.seal("client", DATA, b"lost too")
    session.lose(0, count)
    out += feed(
        session, [made.seal("client", DATA, b"two"), made.update("client"), made.seal("client", DATA, b"three")]
    )
    assert [plain[3:] for plain in out] == [(b"one", 0), (b"two", -1), (b"three", 0)]


def test_only_the_update_of_keys_was_lost():
    """That no data came under the keys of before cannot be known."""
    made = Handmade()
    session = Session(key_log(made.keys))
    out = feed(session, [*made.open(), made.seal("client", DATA, b"one")])
    made.update("client")
    session.lose(0, 1)
    out += feed(session, [made.seal("client", DATA, b"two")])
    assert [plain[3:] for plain in out] == [(b"one", 0), (b"two", -1)]


def test_what_follows_a_lost_handshake_record_is_not_taken_for_a_message():
    """Bytes of a certificate that look like Finished, or like an update of keys."""
    made = Handmade()
    session = Session(key_log(made.keys))
    hellos = [made.client_hello(), made.server_hello(), made.seal("server handshake", HANDSHAKE, message(8, b"\0\0"))]
    made.seal("server handshake", HANDSHAKE, b"\x0b\0\x10\0")  # the head of a Certificate
    feed(session, hellos)
    session.lose(1, 1)
    feed(session, [made.seal("server handshake", HANDSHAKE, message(20, bytes(32)) + message(24, b"\0"))])
    assert not session._halves[1].has_finished
    rest = [made.seal("server handshake", HANDSHAKE, b"\1" * 99) for _ in range(3)]
    rest += [made.seal("server handshake", HANDSHAKE, message(20, bytes(32))), made.seal("server", DATA, b"hello")]
    assert [plain[2:] for plain in feed(session, rest)] == [(DATA, b"hello", 0)]
    # likewise among data, until data shows where messages begin
    made.seal("server", HANDSHAKE, b"\4\0\1\0")
    session.lose(1, None)
    out = feed(session, [made.seal("server", HANDSHAKE, message(24, b"\0")), made.seal("server", DATA, b"one")])
    out += feed(session, [made.update("server"), made.seal("server", DATA, b"two")])
    assert [plain[3:] for plain in out] == [(b"one", -1), (b"two", 0)]


def test_a_loss_that_nobody_told_makes_messages_doubtful_too():
    made = Handmade()
    session = Session(key_log(made.keys))
    out = feed(session, [*made.open(), made.seal("server", DATA, b"one")])
    made.seal("server", HANDSHAKE, b"\4\0\1\0")
    out += feed(session, [made.seal("server", HANDSHAKE, message(24, b"\0")), made.seal("server", DATA, b"two")])
    assert [plain[3:] for plain in out] == [(b"one", 0), (b"two", -1)]
    assert made.seqs["server"] == session._halves[1].seq


def test_what_is_inside_of_a_message_is_no_message():
    made = Handmade()
    session = Session(key_log(made.keys))
    hellos = [made.client_hello(), made.server_hello(), made.seal("server handshake", HANDSHAKE, message(8, b"\0\0"))]
    certificate = message(11, bytes(10) + message(20, bytes(32)) + message(24, b"\0") + bytes(30000))
    parts = [certificate[:14], certificate[14:50], certificate[50:16000], certificate[16000:]]
    feed(session, hellos + [made.seal("server handshake", HANDSHAKE, part) for part in parts])
    assert not session._halves[1].has_finished
    assert len(session._halves[1].buffer) == 0
    out = feed(
        session, [made.seal("server handshake", HANDSHAKE, message(20, bytes(32))), made.seal("server", DATA, b"!")]
    )
    assert [plain[3:] for plain in out] == [(b"!", 0)]


def test_a_lone_alert_under_the_handshakes_keys_establishes_nothing():
    made = Handmade()
    records = made.open()[:-1]
    made.seqs["client handshake"] = 0
    records.append(made.seal("client handshake", ALERT, b"\2\x30"))
    assert len(records[-1].body) == 19
    session, out = read_all(records, made.keys)
    assert [alert[2:] for alert in session.alerts] == [(2, "unknown_ca", True)]
    assert not session.is_established
    session, out = read_all(records, b"")
    assert (session.alerts, session.is_established) == ([], False)
    assert {plain.lost_bytes for plain in out} == {-1}


def test_early_data_that_is_refused_is_not_data():
    for early, texts_ in ((True, [b"early", b"data"]), (False, [b"data"])):
        made = Handmade()
        opening = made.open(early=True)
        made.seqs = dict.fromkeys(made.seqs, 0)
        extensions = b"\0\4\0\x2a\0\0" if early else b"\0\0"
        records = [opening[0], made.seal("early", DATA, b"early"), opening[1]]
        records += [made.seal("server handshake", HANDSHAKE, message(8, extensions) + message(20, bytes(32)))]
        records += [made.seal("early", HANDSHAKE, message(5))] if early else []
        records += [
            made.seal("client handshake", HANDSHAKE, message(20, bytes(32))),
            made.seal("client", DATA, b"data"),
        ]
        session, out = read_all(records, made.keys)
        assert [plain[3:] for plain in out] == [(text, 0) for text in texts_]
        assert session.is_established


def test_many_empty_messages_take_no_square_time(modern):
    _, wire, keys = modern
    session = Session(key_log(keys))
    feed(session, wire.records[:1])
    for i in range(200):
        session.read(1, HANDSHAKE, 0x303, bytes(4) * 4000, mark(i))
    assert len(session._halves[1].buffer) == 0
    session = Session(key_log(keys))
    for i in range(5):
        session.read(0, HANDSHAKE, 0x303, b"\x01\xff\xff\xff" + bytes(16000), mark(i))
    assert len(session._halves[0].buffer) == 0
    for i in range(20):
        session.read(1, HANDSHAKE, 0x303, b"\x02\x00\xff\xff" + bytes(16000), mark(i))
    assert len(session._halves[1].buffer) <= half.MESSAGE_BYTES


def test_suites_have_iana_s_names_as_openssl_prints_them():
    printed = subprocess.run(
        ["openssl", "ciphers", "-V", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    compared = 0
    for line in printed.splitlines():
        number, _, name, *_ = line.split()
        number = int(number.replace("0x", "").replace(",", ""), 16)
        if number in SUITES:
            assert SUITES[number].name == name
            compared += 1
    assert compared > 80


def test_sizes_of_what_is_inside_agree_with_real_records(conversations):
    numbers = {name: number for number, name in VERSIONS.items()}
    suites = {suite.name: number for number, suite in SUITES.items()}
    for name, wire, _ in conversations:
        version = wire.ends[0].version()
        if version == "TLSv1":
            continue  # OpenSSL sends the first byte alone
        for direction in (0, 1):
            records = [r for r in wire.records if r.direction == direction and r.kind == DATA][-4:]
            sent = wire.sent[direction]
            for record, text in zip(records[-4 if version == "TLSv1.3" else -3 :][:3], sent, strict=True):
                least, most = inner_size(numbers[version], suites[name], len(record.body))
                assert least <= len(text) <= most
                assert most == len(text) or "CBC" in name
    assert inner_size(0x0304, 0x1301, 19) == (2, 2)
    assert inner_size(0x0303, 0x009C, 24) == (0, 0)
    assert inner_size(0x0303, 0x009C, 23) is None
    assert inner_size(0x0303, 0x1301, 99) is None
    assert inner_size(0x0303, 0x1234, 99) is None
    assert inner_size(0, 0, 99) is None


def test_hellos_of_any_length(modern):
    _, wire, _ = modern
    client, server = wire.records[0].body[4:], wire.records[1].body[4:]
    for n in range(len(client)):
        hello.parse_client_hello(client[:n])
    for n in range(len(server)):
        hello.parse_server_hello(server[:n])
    whole = hello.parse_client_hello(client)
    assert whole.sni == "chat.example"
    assert hello.parse_client_hello(client.replace(b"chat.example", b"ch\xe4t.ex\x1bmple")).sni == "ch\\xe4t.ex\x1bmple"


def test_certificates_for_tests_are_made_once():
    assert make_certificate("ec") == make_certificate("ec")
