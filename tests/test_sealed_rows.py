"""Rows of connections that no key opened, or only half: they say no more than was seen, wherever one looks.

What was really said is known from those who said it: Python's ssl and the h2 package here, the endpoints' own APIs in
the samples, tshark where it has the keys.
"""

import io
import ssl
import struct
import subprocess
import tomllib

import pytest
from conftest import SAMPLES, options_of
from packets import CLIENT, MASK, REQUEST, SERVER, Conversation, close, frame, response
from reading import gather, to_rows
from test_unwrap import SIDES, VERSIONS, Streams, header, keys_of
from tlswire import Record, Wire, make_contexts

import analyzer
from analyzer.analysis import stream
from analyzer.capture.container import Reader
from analyzer.capture.tracker import Tracker
from analyzer.connection import find
from analyzer.errors import UsageError
from analyzer.keys import KeyRing
from analyzer.knowledge import catalogue, language
from analyzer.knowledge.language import NAMES
from analyzer.model import CLOSES, CONNECTIONS, INPUTS
from analyzer.report.counts import Counts
from analyzer.report.document import Report, story_of
from analyzer.report.rows import connection_line
from analyzer.report.story import tell
from analyzer.selection import select
from analyzer.table import Table
from analyzer.verdict.opaque import Asserted, Opaque

PLACES = ("side", "close", "place", "other", "answer", "answer_place")
CLAIMS = {"sealed_empty_close": 1005, "sealed_no_close": 1006}


class InTls:
    """A conversation whose bytes travel in TLS records, each in a segment of its own."""

    def __init__(self, contexts):
        self.wire, self.talk, self.n = Wire(*contexts), Conversation(dport=443).open(), 0
        self.flush()

    def __getattr__(self, name):
        return getattr(self.talk, name)

    def say(self, side, data):
        self.wire.send(SIDES.index(side), data)
        return self.flush()

    def notify(self, side):
        self.wire.close(SIDES.index(side))
        return self.flush()

    def flush(self):
        number = 0
        for record in self.wire.records[self.n :]:
            number = self.talk.say(SIDES[record.direction], header(record) + record.body)
        self.n = len(self.wire.records)
        return number


def open_websocket(version="1.2"):
    """Opened over TLS; in 1.2 because there a close_notify looks like no Close."""
    contexts = make_contexts(*VERSIONS[version])
    talk = InTls(contexts)
    asked = talk.say(CLIENT, REQUEST)
    answered = talk.say(SERVER, response())
    return talk, contexts, asked, answered


def read(talk, *keys, asserted=(), sweeps=False):
    ring = KeyRing(keys)
    tracker = Tracker(secrets=ring, judge=Opaque(Asserted(asserted)))
    (chunk,) = Reader(io.BytesIO(talk.pcap()), "test").chunks()
    found = []
    for i in range(len(chunk.packets)):
        if sweeps:
            tracker._since_sweep = 1 << 40
        found += tracker.feed(chunk._replace(packets=chunk.packets[i : i + 1], first_packet=i + 1))
    closes, connections = to_rows([*found, *tracker.finish()])
    return closes, connections, tracker


def views(closes):
    return {row["endpoint"]: (row["code"], str(row["provenance"]), str(row["evidence"])) for row in closes}


def inferred_1005():
    talk, contexts, asked, answered = open_websocket()
    talk.say(CLIENT, frame(1, b"hello", mask=MASK))
    talk.say(SERVER, frame(1, b"hello yourself"))
    talk.wait(1)
    talk.say(CLIENT, close(mask=MASK))
    talk.say(SERVER, close())
    talk.notify(SERVER)
    talk.end()
    return talk, contexts, asked, answered


def inferred_1006():
    talk, contexts, asked, answered = open_websocket()
    for _ in range(5):
        talk.say(SERVER, frame(9, b"ping"))
        talk.say(CLIENT, frame(10, b"ping", mask=MASK))
        talk.wait(1)
    talk.wait(5)
    talk.end()
    return talk, contexts, asked, answered


INFERRED = {1005: inferred_1005, 1006: inferred_1006}


@pytest.mark.parametrize("code", INFERRED)
def test_a_connection_that_nothing_opened_says_that_its_opening_was_not_seen(code):
    talk, contexts, _, answered = INFERRED[code]()
    closes, (row,), _ = read(talk)
    assert {view["code"] for view in closes} == {code}
    assert {str(view["provenance"]) for view in closes} == {"inferred"}
    assert (str(row["handshake"]), row["http_status"], row["host"]) == ("sealed", None, None)
    # the first exchange of data is all that can be said of the opening
    assert row["opened"] == talk.packets[answered - 1].ts_ns
    assert row["duration_s"] == (row["ended"] - row["opened"]) / 1e9
    assert {view["duration_s"] for view in closes} == {row["duration_s"]}
    assert {row[f"{side}_{what}"] for side in SIDES for what in ("frames", "messages", "bytes", "gap_bytes")} == {None}
    opened, (read_row,), _ = read(talk, keys_of(contexts))
    assert {view["code"] for view in opened} == {code}
    assert (str(read_row["handshake"]), read_row["opened"]) == ("complete", row["opened"])


def test_without_any_exchange_there_is_no_time_of_an_opening():
    contexts = make_contexts(*VERSIONS["1.2"])
    talk = InTls(contexts)
    talk.say(CLIENT, REQUEST)
    talk.end()
    closes, (row,), _ = read(talk, asserted=("chat.example",))
    assert (str(row["handshake"]), row["opened"], row["duration_s"]) == ("sealed", None, None)
    assert {view["duration_s"] for view in closes} == {None}
    assert connection_line(row).startswith("- ")
    assert Table(CONNECTIONS, {name: [row[name]] for name in row}).to_pandas()["opened"].isna().all()


def rows_to_report(closes, connections, spoken="en", n=1):
    """A report on these rows, n times over so that it is too many for stories."""
    counts = Counts()
    for _ in range(n):
        counts.add(
            Table(CLOSES, {c.name: [row[c.name] for row in closes] for c in CLOSES}),
            Table(CONNECTIONS, {c.name: [row[c.name] for row in connections] for c in CONNECTIONS}),
            Table(INPUTS, {"source": ["x"], "kind": ["pcap"], "records": [10], "status": ["ok"]}),
        )
    return Report(counts, catalogue.load(), language=language.load(spoken))


def test_sealed_connections_count_within_shares_and_are_told_apart():
    """Were they left out, one connection that was opened would be all there is: no one saw that."""
    talk, contexts, *_ = inferred_1005()
    opened = read(talk, keys_of(contexts))[:2]
    silent, _, *_ = open_websocket()
    silent.say(CLIENT, frame(1, b"hello", mask=MASK))
    silent.say(SERVER, frame(1, b"hello yourself"))
    silent.say(CLIENT, frame(1, b"hello", mask=MASK))
    silent.end()
    sealed = read(silent)[:2]
    assert {view["code"] for view in sealed[0]} == {None}
    report = rows_to_report(opened[0] + sealed[0], opened[1] + sealed[1], n=4)
    document = report.document
    assert document["established"] == {"client": 8, "server": 8}
    assert [(row["endpoint"], row["code"], row["share"]) for row in document["frequencies"]] == [
        ("client", 1005, 0.5),
        ("server", 1005, 0.5),
    ]
    likelihood = str(sealed[1][0]["likelihood"])
    assert document["sealed"] == [{"value": likelihood, "count": 4}]
    assert {(row["handshake"], row["count"]) for row in document["handshakes"]} == {("complete", 4), ("sealed", 4)}
    assert sum(row["count"] for row in document["ends"]) == sum(row["count"] for row in document["views"]) == 8
    assert "(8 WebSocket connections)" in str(report)
    assert "established connections" not in str(report)
    spoken = language.load("en")
    assert "Of these connections, 4 stayed encrypted: " in str(report)
    assert f"{spoken.label(f'likelihood.{likelihood}')} (4)" in str(report)
    assert f"{spoken.label(f'likelihood.{likelihood}')} (4)" in report.to_html()
    alone = rows_to_report(*opened, n=4)
    assert "(4 established connections)" in str(alone)
    assert "encrypted" not in str(alone)


def test_counts_of_sealed_connections_merge():
    talk, *_ = inferred_1005()
    closes, connections, _ = read(talk)
    a, b = Counts(), Counts()
    for counts in (a, b):
        counts.add(
            Table(CLOSES, {c.name: [row[c.name] for row in closes] for c in CLOSES}),
            Table(CONNECTIONS, {c.name: [row[c.name] for row in connections] for c in CONNECTIONS}),
            Table(INPUTS),
        )
    a.merge(b)
    assert sum(a.sealed.values()) == 2


@pytest.mark.parametrize("spoken", NAMES)
@pytest.mark.parametrize("code", INFERRED)
def test_what_was_deduced_is_never_told_as_seen(code, spoken):
    talk, contexts, *_ = INFERRED[code]()
    words = language.load(spoken)

    def story(closes, row):
        return tell(story_of(row, closes, catalogue.load()), words)

    closes, (row,), _ = read(talk)
    opened_closes, (opened_row,), _ = read(talk, keys_of(contexts))
    deduced, seen = story(closes, row), story(opened_closes, opened_row)
    assert str(row["initiator"]) == str(opened_row["initiator"]) != "unknown"
    # the same facts, yet not one sentence in which they are told as the keys tell them; FIN was seen in both
    assert not set(deduced) & set(seen)
    for side in SIDES:
        name = words.label(f"side_first.{side}")
        begins = words.label("story.reports_inferred", side=name, code=code, how="\1").partition("\1")[0]
        assert sum(line.startswith(begins) for line in deduced) == 1
        assert not any(line.startswith(begins) for line in seen)
    likelihood = words.label(f"likelihood.{row['likelihood']}")
    assert words.label("story.sealed_taken", likelihood=likelihood) in deduced
    closed = words.label(
        "story.sealed_nobody" if code == 1006 else "story.sealed_answered", **dict.fromkeys(PLACES, "\0")
    )
    assert any(line.startswith(closed.partition("\0")[0]) for line in deduced)
    assert words.label("report.nothing_unseen") not in rows_to_report(closes, [row], spoken).to_html()
    assert words.label("report.nothing_unseen") in rows_to_report(opened_closes, [opened_row], spoken).to_html()
    for form in (str, Report.to_markdown, Report.to_html):
        shown = form(rows_to_report(closes, [row], spoken))
        assert likelihood in shown.replace("\n", " ")
        assert words.label("provenance.inferred") in shown


@pytest.mark.parametrize("spoken", NAMES)
def test_a_code_that_a_log_of_an_unknown_system_names_is_hedged(tmp_path, spoken):
    log = tmp_path / "app.log"
    log.write_text("2026-11-20T10:00:00Z websocket closed code=1006\n")
    closes = gather(stream(log))[0]
    assert [str(row["provenance"]) for row in closes] == ["inferred"]
    report = analyzer.read(log).report(lang=spoken)
    sides = [language.load(spoken).label(f"side_first.{row['endpoint']}") for row in closes]
    words = language.load(spoken)
    begins = words.label("story.reports_named_inferred", side=sides[0], code=1006, name="\0", how="\1").partition("\0")
    assert begins[0].strip() in " ".join(str(report).split())


def test_the_likelihood_stands_in_a_line_for_people():
    talk, contexts, *_ = inferred_1005()
    _, (row,), _ = read(talk)
    assert f" chat.example sealed likelihood {row['likelihood']} " in connection_line(row)
    _, (row,), _ = read(talk, keys_of(contexts))
    assert "likelihood" not in connection_line(row)


@pytest.mark.parametrize("code", INFERRED)
def test_the_life_of_a_sealed_connection_shows_what_shows(code, tmp_path):
    talk, *_ = INFERRED[code]()
    path = talk.write(tmp_path / "x.pcap")
    connection = analyzer.read(path).connection()
    row, n = connection.row, len(talk.packets)
    found = [(event.packet, str(event.side), str(event.kind)) for event in connection.life.events]
    closes = [(row[f"{side}_close_record"], side, "sealed_close") for side in SIDES if code == 1005]
    ends = [(n - 2, SERVER, "fin"), (n - 1, CLIENT, "fin")]
    assert found == [(1, CLIENT, "sealed"), (1, SERVER, "sealed"), *closes, *ends]
    shown = connection.plot()
    assert "encrypted, not opened" in {text.get_text() for text in shown.texts}
    assert ("a Close, by the size of the record" in {text.get_text() for text in shown.texts}) == (code == 1005)


def test_the_life_of_tls_that_failed_shows_the_alert():
    capture = SAMPLES / "tls13-unknown-ca.pcap"
    about = tomllib.loads(capture.with_suffix(".toml").read_text(encoding="utf-8"))
    connection = analyzer.read(capture, ws_ports=tuple(about["ws_ports"])).connection()
    assert {str(event.kind) for event in connection.life.events} == {"alert", "fin", "rst"}
    alerts = [f"{event.side} in packet {event.packet}" for event in connection.life.events if event.kind == "alert"]
    assert alerts == [alert.replace(" 2 48", "") for alert in about["tls"]["alerts"]]


# ---- keys of one direction only


def half_of(contexts, lacking, directory):
    """A key log without what one side wrote."""
    lines = keys_of(contexts).read_text().splitlines()
    path = directory / f"without-{lacking}"
    path.write_text("".join(f"{line}\n" for line in lines if not line.startswith(f"{lacking.upper()}_TRAFFIC")))
    assert len(path.read_text().splitlines()) == len(lines) - 1
    return path


@pytest.mark.parametrize("ending", ["codes", "nothing"])
@pytest.mark.parametrize("lacking", SIDES)
def test_half_the_keys_tell_one_view(lacking, ending, tmp_path):
    talk, contexts, *_ = open_websocket("1.3")
    for _ in range(3):
        talk.say(CLIENT, frame(1, b"hello", mask=MASK))
        talk.say(SERVER, frame(1, b"hello yourself"))
    if ending == "codes":
        talk.say(CLIENT, close(4001, "done", mask=MASK))
        talk.say(SERVER, close(4001, "done"))
    talk.end()
    whole = views(read(talk, keys_of(contexts))[0])
    closes, (row,), tracker = read(talk, half_of(contexts, lacking, tmp_path))
    told = views(closes)
    blind = CLIENT if lacking == SERVER else SERVER  # whose incoming direction is sealed
    seeing = SERVER if lacking == SERVER else CLIENT
    assert told[blind] == (None, "undetermined", "sealed")
    assert told[seeing] == whole[seeing]
    assert (str(row["handshake"]), str(row["initiator"])) == ("sealed", "unknown")
    assert (str(row[f"{lacking}_close"]), row[f"{lacking}_frames"], row[f"{lacking}_bytes"]) == ("unknown", None, None)
    assert {str(view["confidence"]) for view in closes if view["code"]} == {"medium"}
    assert (tracker.n_encrypted, tracker.n_partly_opened) == (0, 1)
    life = analyzer.read(talk.write(tmp_path / "x.pcap"), keys=[half_of(contexts, lacking, tmp_path)]).connection().life
    assert [str(event.side) for event in life.events if event.kind == "sealed"] == [lacking]
    assert {str(event.side) for event in life.events if event.kind in ("text", "close")} == {blind}
    said = tell(story_of(row, closes, catalogue.load()), language.load("en"))
    assert said[0] == "Keys opened only part of this TLS, so the opening was not seen whole."
    assert not any("bytes are missing" in line or "Nobody" in line or "By the sizes" in line for line in said)


@pytest.mark.parametrize("sweeps", [False, True])
def test_half_the_keys_claim_nothing_of_http2_that_was_not_read(sweeps, tmp_path):
    contexts = make_contexts()
    for context in contexts:
        context.set_alpn_protocols(["h2"])
    both = Streams(InTls(contexts))
    for number in (1, 3, 5, 7):
        both.open(number)
    both.open(9, "403")
    both.say(0, 1, close(4000, "bye", mask=MASK))
    both.say(1, 1, close(4000, "bye"), end_stream=True)
    both.ends[0].end_stream(1)
    both.say(0, 3, frame(1, b"hello", mask=MASK))
    both.say(1, 3, close(4003, "server first"))
    both.ends[0].reset_stream(3, 8)  # the client throws it away
    both.flush()
    both.ends[1].reset_stream(5, 2)  # the server fails
    both.flush()
    both.talk.wait(60)
    both.say(1, 7, close(4007))
    both.talk.end()
    closes, connections, tracker = read(both.talk, half_of(contexts, SERVER, tmp_path), sweeps=sweeps)
    assert len(connections) == 5
    told = {(int(v["connection"].rpartition("-s")[2]), v["endpoint"]): (v["code"], str(v["evidence"])) for v in closes}
    assert {view for (_, endpoint), view in told.items() if endpoint == CLIENT} == {(None, "sealed")}
    assert {n: told[n, SERVER] for n in (1, 3)} == {1: (4000, "status"), 3: (1006, "stream_reset")}
    assert {told[n, SERVER] for n in (5, 7, 9)} == {(None, "sealed")}  # no frame shows that they were let in
    for row in connections:
        assert (str(row["handshake"]), str(row["initiator"])) == ("sealed", "unknown")
        assert (str(row["server_close"]), row["server_frames"]) == ("unknown", None)
        # what the server did to the stream was not seen: who ended it first is not known
        assert (str(row["end"]), row["ended_by"], row["ended"], row["duration_s"]) == ("unknown", None, None, None)
    assert (tracker.n_encrypted, tracker.n_partly_opened) == (0, 1)
    closes, connections, tracker = read(both.talk, half_of(contexts, CLIENT, tmp_path), sweeps=sweeps)
    # nobody can tell which streams are WebSockets without their requests
    assert (closes, connections, tracker.n_encrypted, tracker.n_partly_opened) == ([], [], 0, 1)


def some_streams():
    """HTTP/2 in TLS with three WebSockets: two that end, without a Close and with one, and one that does not."""
    contexts = make_contexts()
    for context in contexts:
        context.set_alpn_protocols(["h2"])
    both = Streams(InTls(contexts))
    for number in (1, 3, 5, 7):
        both.open(number)
    both.ends[1].end_stream(1)
    both.flush()
    both.ends[0].end_stream(1)
    both.flush()
    both.ends[0].reset_stream(3, 8)
    both.flush()
    both.say(1, 5, close(4000, "bye"), end_stream=True)
    both.ends[0].end_stream(5)
    both.flush()
    for side in (1, 0):
        both.say(side, 7, frame(1, b"hello", mask=(MASK, None)[side]))
    return both, contexts


@pytest.mark.parametrize("how", ["sealed", "alert"])
def test_what_becomes_of_tls_behind_the_end_of_a_stream_is_none_of_it(how):
    """Whether its row was made before or only at the end."""
    both, contexts = some_streams()
    talk = both.talk
    if how == "sealed":
        talk.talk.say(SERVER, header(Record(1, 23, 0x0303, bytes(60))) + bytes(60))  # opens under no key
    else:
        client, server = talk.wire.ends
        server.write(b"damaged on its way")
        damaged = talk.wire.outward[1].read()
        talk.wire.inward[0].write(damaged[:-1] + bytes([damaged[-1] ^ 1]))
        with pytest.raises(ssl.SSLError):
            client.read(100)
        talk.wire.flush(0)
        talk.flush()
    talk.end()
    seldom, often = (read(talk, keys_of(contexts), sweeps=sweeps)[:2] for sweeps in (False, True))
    for table, other in zip(seldom, often, strict=True):
        rows, others = ({(r["connection"], r.get("endpoint")): r for r in some} for some in (table, other))
        assert rows == others
    told = {
        (int(v["connection"].rpartition("-s")[2]), v["endpoint"]): (v["code"], str(v["evidence"])) for v in seldom[0]
    }
    assert told[1, CLIENT] == (1006, "stream_end")
    assert told[3, CLIENT] == (1006, "stream_reset")
    assert told[5, CLIENT] == (4000, "status")
    assert told[7, CLIENT] == ((None, "gap") if how == "sealed" else (1006, "no_close_fin"))


def test_a_refused_request_of_a_client_that_is_sealed_ends_when_it_was_refused():
    contexts = make_contexts()
    for context in contexts:
        context.set_alpn_protocols(["h2"])
    both = Streams(InTls(contexts))
    both.open(1)
    both.open(3, status=None)
    both.talk.talk.say(CLIENT, header(Record(0, 23, 0x0303, bytes(60))) + bytes(60))
    both.ends[1].close_connection(error_code=0, last_stream_id=1)
    refused = both.flush()
    both.talk.end()
    closes, connections, _ = read(both.talk, keys_of(contexts))
    (row,) = [row for row in connections if row["http2_stream"] == 3]
    assert not [view for view in closes if view["connection"] == row["connection"]]
    assert (str(row["end"]), row["ended_by"]) == ("goaway", SERVER)
    assert row["ended"] == both.talk.packets[refused - 1].ts_ns
    assert row["duration_s"] > 0


def test_half_the_keys_of_a_sample_claim_nothing_that_the_endpoints_deny(tmp_path):
    about = tomllib.loads((SAMPLES / "h2-chromium.toml").read_text(encoding="utf-8"))
    lines = (SAMPLES / about["keys"]).read_text().splitlines()
    half = tmp_path / "keys"
    half.write_text("".join(f"{line}\n" for line in lines if not line.startswith("SERVER_TRAFFIC")))
    closes, connections, _ = gather(stream(SAMPLES / "h2-chromium.pcapng", keys=[half]))
    assert len(connections) == len(about["connections"])
    n_claims = 0
    for one in about["connections"]:
        mine = {v["endpoint"]: v for v in closes if v["connection"].endswith(f"-s{one['stream']}")}
        assert mine["client"]["code"] is None
        if mine["server"]["code"] is not None:
            n_claims += 1
            assert mine["server"]["code"] == one["api"]["server"]["code"]
    assert n_claims >= 5


# ---- the samples, without their keys


def without_secrets(content):
    """A pcapng without its Decryption Secrets Blocks, by the lengths of its blocks."""
    kept, off = b"", 0
    while off < len(content):
        kind, size = struct.unpack_from("<II", content, off)
        kept += b"" if kind == 0x0000000A else content[off : off + size]
        off += size
    assert len(kept) < len(content)
    return kept


METADATA = [
    path for path in sorted(SAMPLES.glob("*.toml")) if "keys" in tomllib.loads(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("is_asserted", [False, True])
@pytest.mark.parametrize("metadata", METADATA, ids=lambda path: path.stem)
def test_a_sample_without_its_keys_makes_no_wrong_claim(metadata, is_asserted, tmp_path):
    about = tomllib.loads(metadata.read_text(encoding="utf-8"))
    (capture,) = SAMPLES.glob(f"{metadata.stem}.pcap*")
    if capture.name == about["keys"]:
        (tmp_path / capture.name).write_bytes(without_secrets(capture.read_bytes()))
        capture = tmp_path / capture.name
    ports = [int(one["connection"]["host"].rpartition(":")[2]) for one in about.get("connections", [about])]
    closes, connections, (inputs,) = gather(stream(capture, ws_ports=ports[:1] if is_asserted else ()))
    if about.get("transport") == "h2":
        # several WebSockets on one connection, or none: that is not known, and no code is claimed
        assert {str(view["evidence"]) for view in closes} == ({"sealed"} if is_asserted else set())
        assert {view["code"] for view in closes} <= {None}
        assert inputs["skipped_encrypted"] + len(connections) == 2
        return
    (row,) = connections
    assert (str(row["handshake"]), str(row["transport"]), row["sni"]) == ("sealed", "tls", about["tls"]["sni"])
    assert str(row["initiator"]) in (about["connection"]["initiator"], "unknown")
    assert (str(row["end"]), row["ended_by"]) == (about["connection"]["end"], about["connection"]["ended_by"])
    assert inputs["skipped_encrypted"] == 0
    for view in closes:
        really = about["api"][view["endpoint"]]["code"]
        evidence = str(view["evidence"])
        if evidence in CLAIMS:
            assert (view["code"], str(view["provenance"])) == (CLAIMS[evidence], "inferred")
            assert view["code"] == really
            continue
        assert (view["code"], str(view["provenance"])) == (None, "undetermined")
        if evidence == "sealed_close":
            assert really not in (1005, 1006)
            (expect,) = [one for one in about["expect"] if one["endpoint"] == view["endpoint"]]
            assert view["record"] == expect["record"]
        else:
            assert evidence == "sealed"


def test_some_samples_without_keys_are_claims():
    """The test above would pass for a program that says nothing."""
    paths = [path.with_suffix(".pcap") for path in METADATA if path.with_suffix(".pcap").exists()]
    evidence = {str(row["evidence"]) for path in paths for row in gather(stream(path))[0]}
    assert {"sealed_close", "sealed"} <= evidence


@pytest.mark.parametrize("metadata", [path for path in METADATA if path.stem.startswith("tls1")], ids=lambda p: p.stem)
def test_a_sealed_connection_opens_when_something_was_first_answered(metadata, tshark, tmp_path):
    about = tomllib.loads(metadata.read_text(encoding="utf-8"))
    (capture,) = SAMPLES.glob(f"{metadata.stem}.pcap*")
    if capture.name == about["keys"]:
        (tmp_path / capture.name).write_bytes(without_secrets(capture.read_bytes()))
        _, (row,), _ = gather(stream(tmp_path / capture.name))
        keys = []
    else:
        _, (row,), _ = gather(stream(capture))
        keys = ["-o", f"tls.keylog_file:{SAMPLES / about['keys']}"]
    wanted = ["-d", f"tcp.port=={about['connection']['host'].rpartition(':')[2]},tls", "-Y", "http"]
    command = [tshark, "-r", str(capture), *keys, *wanted, "-T", "fields", "-e", "frame.time_epoch"]
    times = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    asked, answered = (int(float(time) * 1e6) for time in times[:2])
    # in TLS 1.3 a session ticket may come before the answer
    assert asked - 2000 <= row["opened"] // 1000 <= answered + 1
    if about["tls"]["version"] == "TLSv1.2":
        assert abs(row["opened"] // 1000 - answered) <= 1


def test_a_failed_handshake_is_counted_as_that_and_not_as_a_matter_of_keys():
    capture = SAMPLES / "tls13-unknown-ca.pcap"
    closes, connections, (row,) = gather(stream(capture))
    assert (closes, connections, row["skipped_encrypted"], row["skipped_tls_failed"]) == ([], [], 0, 1)
    report = analyzer.read(capture).report()
    for text in (str(report), report.to_markdown(), report.to_html()):
        assert "Keys do not help where TLS failed." in " ".join(text.split())
        assert "SSLKEYLOGFILE" not in text
    # long enough to push the number out of sight if it did not wrap
    assert '<th scope="row" class="prose">TCP connections whose TLS failed' in report.to_html()
    _, connections, (row,) = gather(stream(capture, ws_ports=options_of(capture)["ws_ports"]))
    assert (len(connections), row["skipped_encrypted"], row["skipped_tls_failed"]) == (1, 0, 0)


def test_tls_that_was_left_before_it_failed_is_no_failure(tmp_path):
    """The client went away: nobody said that anything was wrong, so no row would tell of it either."""
    hello = Wire(*make_contexts()).records[0]
    talk = Conversation(dport=443).open()
    talk.say(CLIENT, header(hello) + hello.body)
    talk.end()
    for asserted in ((), ("chat.example",)):
        _, connections, tracker = read(talk, asserted=asserted)
        assert (connections, tracker.n_encrypted, tracker.n_tls_failed) == ([], 1, 0)


# ---- names


def test_a_host_is_found_by_the_name_given_to_tls():
    closes = [{"connection": "1", "host": None, "code": 1005}, {"connection": "2", "host": "a.example", "code": 1000}]
    tables = (
        Table(CLOSES, {name: [row[name] for row in closes] for name in closes[0]}),
        Table(CONNECTIONS, {"connection": ["1", "2"], "sni": ["b.example", "c.example"]}),
    )
    found = {host: list(select(host=host).apply(*tables)[0]["code"]) for host in ("b.example", "*.EXAMPLE", "c.*")}
    # a Host header that was read counts, whatever stood in the server name
    assert found == {"b.example": [1005], "*.EXAMPLE": [1005, 1000], "c.*": []}


def test_the_command_finds_a_sealed_connection_by_its_server_name():
    analysis = analyzer.read(SAMPLES / "tls13-normal-1000.pcap")
    found = {host: analysis.report(host=host).document["connections"] for host in ("chat.*", "other.*")}
    assert found == {"chat.*": 1, "other.*": 0}
    hosts = [(entry["endpoint"], entry["value"], entry["count"]) for entry in analysis.report(by="host").document["by"]]
    assert hosts == [("client", "chat.example", 1), ("server", "chat.example", 1)]


def test_where_several_fit_they_are_named_in_their_order():
    rows = [{"connection": f"20231114T-s{n}"} for n in (11, 9, 101, 1)]
    with pytest.raises(UsageError, match=r"name one of 20231114T-s1, 20231114T-s9, 20231114T-s11, \.\.\.$"):
        find(rows, "2023")


@pytest.mark.parametrize("name", ["tls13-normal-1000.pcap", "h2-chromium.pcapng"])
def test_with_half_the_keys_nobody_is_said_to_have_closed_first(name, tmp_path):
    """What came in may be the answer to a Close of the sealed side, and a request may have been refused."""
    path = SAMPLES / name
    lines = path.with_suffix(".keys").read_text().splitlines()
    for side in ("CLIENT_", "SERVER_"):
        log = tmp_path / side
        log.write_text("\n".join(line for line in lines if line.startswith(side)))
        report = analyzer.read(path, keys=[log], progress=False).report()
        document = report.to_dict()
        if not document["rows"]:
            assert (name, side) == ("h2-chromium.pcapng", "SERVER_")
            continue
        assert {row["initiator"] for row in document["rows"]} == {"unknown"}
        told = {row["diagnosis"] for row in document["rows"] if row["code"] not in (None, 1006)}
        assert told
        assert {key.partition(".")[2] for key in told} == {"general"}
        assert "established connection" not in report.to_text()
