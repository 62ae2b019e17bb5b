"""What records tell without keys: sizes, every rule, every trap, and the connections recorded for docs/sealed.md.

Lengths are put together here by the RFCs' formulas from what a record holds; the recorded connections carry what their
keys showed.
"""

import collections
import gzip
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer import kernel
from analyzer.capture import sealed as records
from analyzer.model import SEALED, SEALED_END, Confidence, Evidence, Initiator, Received
from analyzer.verdict import sealed

# behind the tests: both have an oracle
sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks" / "sealed_lab"))
measure = importlib.import_module("measure")

DATA = Path(__file__).parent / "data" / "sealed_pairs.jsonl.gz"
DOCUMENT = Path(__file__).parent.parent / "docs" / "sealed.md"
CLIENT, SERVER = 0, 1
GCM, CHACHA, CBC = 0xC02F, 0xCCA8, 0xC013
MS = 1_000_000
CLOSE, EMPTY, NOTHING, SEALED_ONLY = (
    Evidence.SEALED_CLOSE,
    Evidence.SEALED_EMPTY_CLOSE,
    Evidence.SEALED_NO_CLOSE,
    Evidence.SEALED,
)


def length(n, cipher):
    """Length in the header of a record that holds n bytes."""
    if cipher == "13":
        return n + 1 + 16  # content type, tag (RFC 8446 section 5.2)
    if cipher == "gcm":
        return 8 + n + 16  # explicit nonce, tag (RFC 5288)
    if cipher == "chacha":
        return n + 16  # tag (RFC 7905)
    if cipher == "cbc":  # IV, then content, MAC, padding of 1 to 16 bytes in blocks (RFC 5246 section 6.2.3.2)
        return 16 + (n + 20 + 16) // 16 * 16
    return 16 + (n + 16) // 16 * 16 + 20  # the MAC behind the blocks (RFC 7366)


SUITES = {
    "13": (0x0304, 0x1301),
    "gcm": (0x0303, GCM),
    "chacha": (0x0303, CHACHA),
    "cbc": (0x0303, CBC),
    "etm": (0x0303, CBC),
}


class Talk:
    """A TLS connection, built record by record: `client` and `server` say how many bytes the record holds."""

    def __init__(self, cipher="13", request=250, response=129, tickets=2):
        self.cipher = cipher
        self.version, self.suite = SUITES[cipher]
        self.row, self.ends = np.zeros(1, SEALED)[0], np.zeros(2, SEALED_END)
        self.ends["is_complete"] = True
        self.ms, self.packet, self.pos = 1000.0, 0, [1, 1]
        if cipher == "13":
            for n in (6, 800, 264, 52):
                self.record(SERVER, n)
            self.record(CLIENT, 52)
            for _ in range(tickets):
                self.record(SERVER, 233)
        self.after(20).client(request).server(response)

    def record(self, side, n, acks=True, kind=23):
        self.packet += 1
        n_bytes = length(n, self.cipher)
        self.pos[side] += 5 + n_bytes
        ack = self.pos[1 - side] if acks else 1
        records.note(self.row, side, kind, n_bytes, int(self.ms * MS), self.packet, self.pos[side], ack)
        self.ms += 1
        return self

    def client(self, n, acks=True):
        return self.record(CLIENT, n, acks)

    def server(self, n, acks=True):
        return self.record(SERVER, n, acks)

    def after(self, ms):
        self.ms += ms
        return self

    def notify(self, side):
        """close_notify: two bytes, outer type 21 before TLS 1.3."""
        return self.record(side, 2, kind=23 if self.cipher == "13" else 21)

    def end(self, side, how="fin"):
        self.packet += 1
        self.ends[side][f"{how}_packet"], self.ends[side][f"{how}_ns"] = self.packet, int(self.ms * MS)
        self.ms += 1
        return self

    def keepalive(self, n=4, times=4, period=1000, asker=SERVER):
        """Pings of n bytes with their Pongs."""
        for _ in range(times):
            for side in (asker, 1 - asker):
                self.record(side, n + (6 if side == CLIENT else 2))
            self.after(period - 2)
        return self

    def judge(self, is_asserted=True, offers=("http/1.1",), selected=None):
        return sealed.judge(
            self.row,
            (self.ends[0], self.ends[1]),
            version=self.version,
            suite=self.suite,
            offers=offers,
            selected=selected,
            is_asserted=is_asserted,
        )


def claims(told):
    return told.initiator, *told.evidence


SILENT = (Initiator.UNKNOWN, SEALED_ONLY, SEALED_ONLY)
EXACT = ("13", "gcm", "chacha")


@pytest.mark.parametrize("cipher", SUITES)
@pytest.mark.parametrize("n", [0, 2, 6, 8, 15, 16, 17, 125, 131, 1000])
def test_a_records_length_says_what_it_holds(cipher, n):
    version, suite = SUITES[cipher]
    low, high = records.plaintext(length(n, cipher), version, suite)
    assert low <= n <= high
    assert high - low == 0 if cipher in EXACT else high - low <= 15


@pytest.mark.parametrize("cipher", EXACT)
@pytest.mark.parametrize("reply", ["same", "status"])
def test_a_close_with_a_body(cipher, reply):
    answer = 2 + (9 if reply == "same" else 2)
    talk = Talk(cipher).after(500).client(6 + 9).server(answer).notify(SERVER).end(SERVER).end(CLIENT)
    told = talk.judge()
    assert claims(told) == (Initiator.CLIENT, CLOSE, CLOSE)
    assert told.sent == (Received.SEALED, Received.SEALED)
    assert told.confidence == (None, None)
    assert told.close_packet[0] < told.close_packet[1]
    talk = Talk(cipher).after(500).server(2 + 9).client(6 + (answer - 2)).notify(SERVER).end(SERVER)
    assert claims(talk.judge()) == (Initiator.SERVER, CLOSE, CLOSE)


@pytest.mark.parametrize("cipher", EXACT)
def test_an_empty_close(cipher):
    told = Talk(cipher).after(500).client(6).server(2).notify(SERVER).end(SERVER).end(CLIENT).judge()
    assert claims(told) == (Initiator.CLIENT, EMPTY, EMPTY)
    assert told.confidence == (Confidence.MEDIUM, Confidence.MEDIUM)
    told = Talk(cipher).after(500).server(2).client(6).notify(SERVER).end(SERVER).end(CLIENT).judge()
    assert claims(told) == (Initiator.SERVER, EMPTY, EMPTY)


@pytest.mark.parametrize("cipher", EXACT)
def test_an_empty_close_answered_with_a_status(cipher):
    told = Talk(cipher).after(500).server(2).client(6 + 2).notify(SERVER).end(SERVER).judge()
    assert claims(told) == (Initiator.SERVER, EMPTY, CLOSE)


@pytest.mark.parametrize("cipher", ["cbc", "etm"])
def test_blocks_do_not_tell_whether_a_close_is_empty(cipher):
    told = Talk(cipher).after(500).client(6 + 2).server(2 + 2).notify(SERVER).end(SERVER).judge()
    assert claims(told) == (Initiator.CLIENT, SEALED_ONLY, SEALED_ONLY)
    told = Talk(cipher).after(500).client(6 + 42).server(2 + 42).notify(SERVER).end(SERVER).judge()
    assert claims(told) == (Initiator.CLIENT, CLOSE, CLOSE)


@pytest.mark.parametrize("cipher", EXACT)
def test_messages_on_their_way_do_not_hide_a_close(cipher):
    talk = Talk(cipher).after(500).client(6 + 2).server(300).server(2 + 2).notify(SERVER).end(SERVER)
    assert claims(talk.judge()) == (Initiator.CLIENT, CLOSE, CLOSE)


def test_a_server_that_ends_before_the_answer():
    """aiohttp sends close_notify right behind its Close."""
    talk = Talk().after(500).server(2 + 22).notify(SERVER).client(6 + 2).notify(CLIENT).end(CLIENT).end(SERVER)
    assert claims(talk.judge()) == (Initiator.SERVER, CLOSE, CLOSE)


def test_an_answer_that_came_after_the_fin_was_not_read():
    talk = Talk().after(500).server(2 + 22).end(SERVER).client(6 + 22).end(SERVER, "rst")
    assert claims(talk.judge()) == (Initiator.SERVER, CLOSE, SEALED_ONLY)


@pytest.mark.parametrize("asker", [CLIENT, SERVER])
@pytest.mark.parametrize("n", [0, 2, 4, 20])
@pytest.mark.parametrize("cipher", SUITES)
def test_death_when_idle(cipher, n, asker):
    """Only where the keepalive cannot be two Closes: that of the last time might be, before a server that lingers."""
    talk = Talk(cipher).keepalive(n, asker=asker).after(5000).end(CLIENT).end(SERVER)
    told = talk.judge()
    if n != 4 or cipher in ("cbc", "etm"):
        assert claims(told) == SILENT
        return
    assert claims(told) == (Initiator.NONE, NOTHING, NOTHING)
    assert told.sent == (Received.NONE, Received.NONE)
    assert told.confidence == (Confidence.MEDIUM, Confidence.MEDIUM)


def test_a_reset_when_idle():
    told = Talk().keepalive().after(5000).end(SERVER, "rst").judge()
    assert claims(told) == (Initiator.NONE, NOTHING, NOTHING)


def test_an_end_soon_after_keepalive_tells_nothing():
    for ms in (0, 5, 100, 1500):
        talk = Talk().keepalive(period=200).after(ms).end(SERVER).end(CLIENT)
        assert claims(talk.judge()) == SILENT, ms


def test_too_little_keepalive_tells_nothing():
    assert claims(Talk().keepalive(times=2).after(5000).end(SERVER).judge()) == SILENT


@pytest.mark.parametrize("n", [0, 2, 4])
@pytest.mark.parametrize("closer", [CLIENT, SERVER])
@pytest.mark.parametrize("asker", [CLIENT, SERVER])
def test_a_close_that_nobody_answers_is_no_1006(n, closer, asker):
    """The Close is as long as the Pings before it, its sender waits in vain and ends."""
    talk = Talk().keepalive(n, asker=asker)
    talk.record(closer, n + (6 if closer == CLIENT else 2)).after(10_000).end(closer).end(1 - closer)
    told = talk.judge()
    assert told.evidence[1 - closer] == SEALED_ONLY
    assert told.sent[closer] == Received.UNKNOWN


def test_a_close_in_step_with_short_keepalive():
    """Pong and next Ping must not pass for a pair: the client's Close would be its answer."""
    talk = Talk().keepalive(4, times=6, period=300, asker=CLIENT).client(6 + 4).after(9000).end(CLIENT).end(SERVER)
    assert talk.judge().evidence[SERVER] == SEALED_ONLY


def test_a_close_after_keepalive_of_its_size_and_a_server_that_lingers():
    """Two empty Closes, and the server's FIN only seconds later: out of step with the Pings before."""
    talk = Talk().keepalive(0, period=10_000).after(-4000).server(2).client(6).after(8000).end(CLIENT).end(SERVER)
    assert talk.judge().evidence == (SEALED_ONLY, SEALED_ONLY)


def test_a_close_behind_a_pong_in_one_record():
    """30 bytes: a Pong of 4 and a Close of 22 (gorilla to uvicorn). There is no record of a Close's size for it."""
    talk = Talk().keepalive(4, asker=CLIENT).client(6 + 4).client(6 + 22).server(2 + 4 + 2 + 22)
    told = talk.notify(SERVER).end(SERVER).end(CLIENT).judge()
    assert told.evidence == (SEALED_ONLY, SEALED_ONLY)


def test_a_close_behind_messages_in_one_record_is_no_1006():
    talk = Talk().client(300).server(500).client(300).server(500 + 2 + 2).client(6 + 2).end(SERVER).end(CLIENT)
    assert NOTHING not in talk.judge().evidence


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("n", [0, 2, 20])
def test_an_echo_and_a_client_that_goes(n, how):
    talk = Talk().after(500).client(6 + n).server(2 + n).end(CLIENT, how).end(SERVER)
    assert claims(talk.judge()) == SILENT


def test_keepalive_and_a_server_that_goes():
    talk = Talk().keepalive(8, times=2, period=300).server(2 + 8).client(6 + 8).end(SERVER).end(CLIENT)
    assert claims(talk.judge()) == SILENT


def test_keepalive_of_the_other_side_is_no_close_seen_before():
    """The server's Pings, close upon another; then the client's Close, as long as its Pongs."""
    talk = Talk().keepalive(8, times=3, period=300).after(500).client(6 + 8).server(2 + 8).notify(SERVER).end(SERVER)
    assert claims(talk.judge()) == (Initiator.CLIENT, CLOSE, CLOSE)


def test_an_answer_behind_another_one():
    """The server answers at once, and ends with a short message later."""
    talk = Talk().after(500).client(6 + 2).server(300).after(200).server(2 + 2).notify(SERVER).end(SERVER)
    assert claims(talk.judge()) == SILENT


def test_one_ping_and_an_end_later():
    for side in (CLIENT, SERVER):
        talk = Talk().server(2 + 4).client(6 + 4).after(300).notify(side).end(side)
        assert claims(talk.judge()) == SILENT


def test_one_ping_of_four_bytes_and_the_end_of_its_server():
    """Python's websockets and uvicorn: a Close with a reason of two bytes would be as long."""
    assert claims(Talk().after(500).server(2 + 4).client(6 + 4).notify(SERVER).end(SERVER).judge()) == SILENT


def test_two_closes_in_step_with_keepalive_and_a_client_that_lingers():
    """Ping and Close have 8 bytes, the server's close_notify says that the client's FIN comes late (aiohttp)."""
    talk = Talk().keepalive(8, asker=CLIENT).client(6 + 8).server(2 + 8).notify(SERVER).after(5000).end(CLIENT)
    assert NOTHING not in talk.end(SERVER).judge().evidence


def test_an_answer_that_is_itself_answered():
    """A Pong, and 400 ms later a message and the server's Close: the Pong was no Close."""
    talk = Talk().after(500).server(2 + 125).client(6 + 125).after(395).server(6).server(4).notify(SERVER)
    assert claims(talk.notify(CLIENT).end(CLIENT).end(SERVER).judge()) == SILENT


def test_an_end_by_rst_tells_no_close():
    assert claims(Talk().after(500).server(2 + 20).client(6 + 20).end(SERVER, "rst").judge()) == SILENT


def test_close_notify_is_no_empty_close():
    """In TLS 1.3 both have 19 bytes. Nothing is claimed of the client's view, whatever came before."""
    for talk in (Talk(), Talk().keepalive().after(5000)):
        told = talk.notify(SERVER).notify(CLIENT).end(SERVER).end(CLIENT).judge()
        assert told.evidence[CLIENT] == SEALED_ONLY
    assert told.evidence[SERVER] == NOTHING  # a client's frame has six bytes at least


def test_close_notify_of_tls_1_2_hides_nothing():
    told = Talk("gcm").keepalive().after(5000).notify(SERVER).notify(CLIENT).end(SERVER).end(CLIENT).judge()
    assert claims(told) == (Initiator.NONE, NOTHING, NOTHING)


def test_a_client_that_sent_no_frame():
    """The handshake may have been rejected, and what the server sent an error's text: then nobody has a 1006."""
    told = Talk().server(40).after(9000).server(60).end(CLIENT).end(SERVER).judge()
    assert claims(told) == SILENT


def test_requests_at_steady_intervals_are_no_keepalive():
    """Plain HTTP on a host that is asserted to be WebSocket."""
    talk = Talk()
    for _ in range(6):
        talk.client(100).server(90).after(5000)
    assert claims(talk.end(SERVER).end(CLIENT).judge()) == SILENT


def test_a_second_close_leaves_the_first_one_unknown():
    """websocket-client answers its own Close's answer: which of the two came first cannot be told by sizes."""
    talk = Talk().after(500).client(6 + 2).server(2 + 2).notify(SERVER).client(6 + 2).end(SERVER).end(CLIENT, "rst")
    assert claims(talk.judge()) == (Initiator.UNKNOWN, CLOSE, CLOSE)
    talk = Talk().after(500).client(6).server(2 + 2).notify(SERVER).client(6 + 2).end(SERVER).end(CLIENT, "rst")
    assert claims(talk.judge()) == (Initiator.UNKNOWN, CLOSE, SEALED_ONLY)


def test_an_answer_of_another_length_is_none():
    assert claims(Talk().after(500).client(6 + 5).server(2 + 9).notify(SERVER).end(SERVER).judge()) == SILENT


def test_a_body_of_one_byte_is_no_close():
    assert claims(Talk().after(500).client(6 + 1).server(2 + 1).notify(SERVER).end(SERVER).judge()) == SILENT


def test_more_than_a_control_frame_is_no_close():
    assert claims(Talk().after(500).client(6 + 126).server(2 + 126).notify(SERVER).end(SERVER).judge()) == SILENT


def test_what_does_not_acknowledge_the_close_is_no_answer():
    talk = Talk().after(500).client(6 + 2).server(2 + 2, acks=False).notify(SERVER).end(SERVER)
    assert claims(talk.judge()) == SILENT


def test_an_answer_after_long_thought_is_none():
    talk = Talk().after(500).client(6 + 2).after(900).server(2 + 2).notify(SERVER).end(SERVER)
    assert claims(talk.judge()) == SILENT


def test_what_does_not_end_is_not_judged():
    assert claims(Talk().keepalive().after(9000).judge()) == SILENT
    assert claims(Talk().after(500).client(6 + 2).server(2 + 2).judge()) == SILENT


@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_missing_bytes_leave_nothing_to_say(side):
    for build in (lambda: Talk().keepalive().after(5000), lambda: Talk().after(500).client(8).server(4).notify(SERVER)):
        talk = build().end(SERVER).end(CLIENT)
        assert claims(talk.judge()) != SILENT
        records.miss(talk.row, side)
        assert claims(talk.judge()) == SILENT
        talk = build().end(SERVER).end(CLIENT)
        talk.ends[side]["is_complete"] = False
        assert claims(talk.judge()) == SILENT


def test_padding_is_recognised():
    """Each record holds a multiple of 32 with its content type (RFC 8446 section 5.4)."""
    talk = Talk(request=255, response=159, tickets=0)
    for _ in range(3):
        talk.server(31).client(31).after(1000)
    talk.after(9000).end(SERVER).end(CLIENT)
    assert claims(talk.judge()) == SILENT


@pytest.mark.parametrize("offers", [("h2",), ("h2", "http/1.1")])
def test_http2_is_never_judged(offers):
    talk = Talk().after(500).client(6 + 2).server(2 + 2).notify(SERVER).end(SERVER)
    assert claims(talk.judge(offers=offers)) == SILENT
    assert not talk.judge(offers=offers, is_asserted=False).is_websocket
    assert claims(talk.judge(offers=offers, selected="http/1.1")) != SILENT


@pytest.mark.parametrize("version", [0, 0x0301, 0x0302, 0x0303])
def test_an_unknown_cipher_is_not_judged(version):
    talk = Talk().after(500).client(6 + 2).server(2 + 2).notify(SERVER).end(SERVER)
    talk.version, talk.suite = version, 0xFFFF
    assert claims(talk.judge()) == SILENT


@pytest.mark.parametrize(
    ("cipher", "version", "suite"),
    [
        ("cbc", 0x0301, CBC),  # no IV in front of a record (RFC 2246 section 6.2.3.2)
        ("13", 0x0304, 0x1305),  # a tag of 8 bytes
        ("gcm", 0x0304, GCM),
        ("gcm", 0x0302, GCM),
    ],
)
def test_a_cipher_in_a_version_that_seals_otherwise_is_not_judged(cipher, version, suite):
    talk = Talk(cipher).keepalive().after(500).client(6 + 40).server(2 + 40).notify(SERVER).end(SERVER)
    assert claims(talk.judge()) != SILENT
    talk.version, talk.suite = version, suite
    assert claims(talk.judge()) == SILENT
    assert records.plaintext(100, version, suite) == (0, 100)


def test_websocket_is_recognised():
    talk = Talk().keepalive(times=1).end(SERVER)
    assert talk.judge(is_asserted=False)[:2] == (True, Confidence.HIGH)
    assert talk.judge(is_asserted=False, offers=())[:2] == (True, Confidence.MEDIUM)
    assert talk.keepalive(times=3).judge(is_asserted=False, offers=())[:2] == (True, Confidence.HIGH)
    assert Talk("cbc").keepalive().judge(is_asserted=False).is_websocket


def test_https_is_not_taken_for_websocket():
    talk = Talk(response=180)
    for _ in range(20):
        assert not talk.judge(is_asserted=False).is_websocket
        talk.after(100).client(120).server(180)  # small calls on a connection that is kept
    assert records.is_hopeless(talk.row)
    for body in (2, 30):  # a head and a small body in a record of its own
        talk = Talk(response=180).client(150).client(body).server(180).notify(CLIENT).end(CLIENT)
        assert not talk.judge(is_asserted=False).is_websocket
    events = Talk(response=200)
    for _ in range(30):
        events.after(500).server(40)
    assert not events.notify(CLIENT).end(CLIENT).judge(is_asserted=False).is_websocket


@pytest.mark.parametrize(("request_bytes", "response"), [(60, 129), (40_000, 129), (250, 25), (250, 5000)])
def test_what_is_no_handshake_is_given_up_at_once(request_bytes, response):
    talk = Talk(request=request_bytes, response=response, tickets=0)
    assert records.is_hopeless(talk.row)
    assert not talk.keepalive().judge(is_asserted=False).is_websocket


def test_an_upgrade_is_not_given_up():
    for cipher in SUITES:
        talk = Talk(cipher)
        assert not records.is_hopeless(talk.row)
        assert not records.is_hopeless(talk.keepalive().row)


extremes = st.one_of(st.integers(0, 400), st.sampled_from([-(2**63), -1, 2**31, 2**62, 2**63 - 1]))
lengths = st.integers(0, 65_535) | st.sampled_from([19, 21, 23, 25])
kinds = st.sampled_from([20, 21, 22, 23, 23, 23, 255])
one_record = st.tuples(st.integers(0, 1), kinds, lengths, extremes, extremes, extremes, extremes)
versions, suites = st.sampled_from([0x0303, 0x0304]), st.sampled_from([0x1301, GCM, CHACHA, CBC])


@given(st.lists(one_record, max_size=60), versions, suites, st.data())
def test_anything_at_all_is_judged(noted, version, suite, data):
    row, plain = np.zeros(2, SEALED)
    as_written = kernel.plain_kernels()["analyzer.capture.sealed.note"]
    for one in noted:
        records.note(row, *one)
        as_written(plain, *one)
    assert row.tobytes() == plain.tobytes()
    ends = np.zeros(2, SEALED_END)
    for side in (0, 1):
        ends[side] = (*(data.draw(extremes) for _ in range(4)), True)
    records.is_hopeless(row)
    for is_asserted in (False, True):
        told = sealed.judge(row, (ends[0], ends[1]), version=version, suite=suite, is_asserted=is_asserted)
        for evidence, confidence in zip(told.evidence, told.confidence, strict=True):
            assert (evidence in sealed.CODES) == (confidence is not None)


def recorded():
    with gzip.open(DATA, "rt") as file:
        return [json.loads(line) for line in file]


MEANS = {CLOSE: "body", EMPTY: "empty", NOTHING: "none"}


def test_recorded_connections_are_told_right():
    """The half of the pairs on which no rule was fixed; what was received is what the keys showed."""
    views, initiators = collections.Counter(), collections.Counter()
    websockets = [c for c in recorded() if c["client"] != "other"]
    for connection in websockets:
        told = measure.judge(connection, is_asserted=True)
        initiator, *got = connection["truth"]
        for evidence, real in zip(told.evidence, got, strict=True):
            views["silent" if evidence == SEALED_ONLY else MEANS[evidence] == real] += 1
            assert not (evidence == NOTHING and real != "none"), connection
        initiators["silent" if told.initiator == "unknown" else told.initiator == initiator] += 1
    assert len(websockets) >= 300
    assert {"chromium"} <= {c["client"] for c in websockets}
    for told in (views, initiators):
        assert told[True] >= 0.97 * (told[True] + told[False]), told
        assert told[True] >= 0.35 * sum(told.values()), told


def test_the_documents_figures_are_measured():
    """Each table of docs/sealed.md, from the recorded connections."""
    views, initiators, pairs = collections.Counter(), collections.Counter(), collections.Counter()
    for connection in (c for c in recorded() if c["client"] != "other"):
        told = measure.judge(connection, is_asserted=True)
        initiator, *got = connection["truth"]
        pair = f"{connection['client']} > {connection['server']}"
        pairs[pair, "connections"] += 1
        initiators[str(told.initiator), initiator] += 1
        right = "silent" if told.initiator == "unknown" else told.initiator == initiator
        pairs[pair, "initiator", right] += 1
        for evidence, real in zip(told.evidence, got, strict=True):
            claim = MEANS.get(evidence, "silent")
            views[str(evidence), real] += 1
            pairs[pair, claim if claim in ("silent", real) else "wrong"] += 1
    document = DOCUMENT.read_text("utf-8")
    for claim in (CLOSE, EMPTY, NOTHING, SEALED_ONLY):
        counts = " | ".join(str(views[str(claim), real]) for real in ("body", "empty", "none"))
        assert f"| `{claim}` | {counts} |" in document
    for claim in ("client", "server", "none", "unknown"):
        counts = " | ".join(str(initiators[claim, real]) for real in ("client", "server", "both", "none"))
        assert f"| `{claim}` | {counts} |" in document
    for pair in {key[0] for key in pairs}:
        columns = ("connections",), ("body",), ("empty",), ("none",), ("wrong",), ("silent",)
        counts = [pairs[pair, *column] for column in columns]
        counts += [pairs[pair, "initiator", told] for told in (True, False, "silent")]
        assert f"| {pair} | {' | '.join(map(str, counts))} |" in document


def test_recorded_connections_are_told_from_others():
    found = collections.Counter()
    for connection in recorded():
        kind = connection["server"] if connection["client"] == "other" else "websocket"
        found[kind, measure.judge(connection, is_asserted=False).is_websocket] += 1
    assert not found["https", True]
    assert not found["http2", True]
    assert found["websocket", True] > 0.75 * (found["websocket", True] + found["websocket", False])
