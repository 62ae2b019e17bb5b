"""The knowledge files keep their own rules, and say something for every row that can occur."""

import itertools
import tomllib
from importlib import resources

import numpy as np
import pytest

from analyzer.errors import CatalogueError
from analyzer.knowledge import catalogue
from analyzer.model import Confidence, Evidence, Provenance

KNOWN = catalogue.load()
DOCUMENTED = (1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015)
REGISTERED = (3000, 3003, 3008)
PAIRS = [(1000, 1001), (1001, 1002), (1001, 1005), (1001, 1006), (1001, 1012)]
PAIRS += [(1005, 1006), (1000, 1005), (1006, 1011), (1012, 1013), (1011, 1014)]


def document():
    return tomllib.loads((resources.files("analyzer.knowledge") / "codes.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("code", DOCUMENTED + REGISTERED)
def test_every_code_has_its_own_entry(code):
    info = KNOWN.code(code)
    assert info.codes == range(code, code + 1)
    assert info.source.startswith(("RFC ", "IANA"))


@pytest.mark.parametrize(
    ("code", "on_wire"),
    [
        (0, "illegal"),
        (999, "illegal"),
        (1016, "illegal"),
        (2999, "illegal"),
        (5000, "illegal"),
        (65535, "illegal"),
        (3999, "registered"),
        (3001, "registered"),
        (4000, "private"),
        (4999, "private"),
        (1004, "illegal"),
        (1005, "never"),
        (1006, "never"),
        (1015, "never"),
        (1014, "allowed"),
    ],
)
def test_every_number_a_close_can_carry_is_known(code, on_wire):
    assert KNOWN.code(code).on_wire == on_wire


def test_no_number_is_left_out():
    for code in range(65536):
        assert KNOWN.code(code).name
    with pytest.raises(KeyError):
        KNOWN.code(65536)


@pytest.mark.parametrize("pair", PAIRS)
def test_documented_pairs_are_written_by_hand(pair):
    assert KNOWN.pair(*pair) == KNOWN.pair(*reversed(pair))
    assert KNOWN.pair(*pair).differ


def test_every_view_a_capture_can_give_has_a_text():
    synthesized = {
        Evidence.NO_CLOSE_FIN: 1006,
        Evidence.NO_CLOSE_RST: 1006,
        Evidence.FAILED_HERE: 1006,
        Evidence.HANDSHAKE_REJECTED: 1006,
        Evidence.HANDSHAKE_FAILED: 1006,
        Evidence.EMPTY_CLOSE: 1005,
    }
    undetermined = ("late_close", "close_unacked", "short_close", "cut_close", "failed_here", "gap", "open_end")
    rows = [(code, "synthesized", evidence) for evidence, code in synthesized.items()]
    rows += [(code, "wire", "status") for code in (*DOCUMENTED, *REGISTERED, 3500, 4000, 2000, 0, 9999)]
    rows += [(None, "undetermined", evidence) for evidence in (*undetermined, "vanished", "evicted")]
    sides = itertools.product(("client", "server"), ("none", "status", "empty"), ("client", "server", "both", "none"))
    for (code, provenance, evidence), (endpoint, sent, initiator) in itertools.product(rows, sides):
        key = KNOWN.key(
            code,
            evidence=evidence,
            provenance=provenance,
            endpoint=endpoint,
            sent=sent,
            received="none",
            initiator=initiator,
            end="fin",
            ended_by="server",
        )
        text = KNOWN.diagnosis(key)
        assert text.title
        assert text.cause
        assert text.fix


def key_of(code, **view):
    base = {"evidence": "status", "provenance": "wire", "endpoint": "client", "sent": "status", "received": "none"}
    return KNOWN.key(code, **{**base, "initiator": "server", "end": "fin", "ended_by": "server", **view})


def test_direction_changes_the_text_of_1001():
    from_server = key_of(1001, endpoint="client", initiator="server")
    from_client = key_of(1001, endpoint="server", initiator="client")
    assert from_server != from_client
    assert "page" in KNOWN.diagnosis(from_client).title
    assert "server" in KNOWN.diagnosis(from_server).title.lower()


def test_evidence_changes_the_text_of_1006():
    evidences = ("no_close_fin", "no_close_rst", "handshake_rejected", "failed_here")
    keys = {key_of(1006, provenance="synthesized", evidence=e, sent="none", initiator="none") for e in evidences}
    assert len(keys) == len(evidences)


def test_an_endpoint_that_got_no_answer_reads_so():
    unanswered = key_of(1006, provenance="synthesized", evidence="no_close_fin", sent="status", initiator="client")
    plain = key_of(1006, provenance="synthesized", evidence="no_close_fin", sent="none", initiator="none")
    assert unanswered != plain


def broken(change):
    content = document()
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["code"]["1000"].pop("meaning"), "x.toml: code.1000: 'meaning' is missing"),
        (lambda d: d["code"]["1000"].update(colour="red"), "x.toml: code.1000: 'colour' is not known here"),
        (
            lambda d: d["code"]["1000"].update(on_wire="maybe"),
            "x.toml: code.1000.on_wire: must be one of allowed, never, illegal, registered, private",
        ),
        (
            lambda d: d["code"]["1000"]["diagnosis"][0]["when"].update(moon="full"),
            "x.toml: 1000.log: 'when' cannot ask for 'moon'",
        ),
        (
            lambda d: d["code"]["1000"]["diagnosis"][0]["when"].update(end="bang"),
            "x.toml: 1000.log: end is never bang",
        ),
        (
            lambda d: d["code"]["1000"]["diagnosis"].pop(),
            "x.toml: code.1000: the last diagnosis, and no other, stands without 'when'",
        ),
        (
            lambda d: d["code"]["1000"]["diagnosis"].insert(0, d["code"]["1000"]["diagnosis"][0]),
            "x.toml: 1000.log: stands twice",
        ),
        (lambda d: d["pair"][0].update(codes=[1001, 1000]), "x.toml: pair 1001 1000: codes must ascend"),
        (lambda d: d["undetermined"].update(moon={}), "x.toml: undetermined.moon: no such evidence"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(change, message):
    with pytest.raises(CatalogueError) as caught:
        catalogue.Catalogue(broken(change), path="x.toml", version="0")
    assert str(caught.value) == message


def test_no_sentence_of_the_source_documents_is_copied(shared):
    text = " ".join(str(v) for entry in walk(document()) for v in entry)
    for path in sorted((shared / "diagnosis_documents").glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            for sentence in line.split(". "):
                if len(sentence.split()) >= 6 and sentence.isascii():
                    assert sentence.strip(" .") not in text


def walk(value):
    if isinstance(value, dict):
        yield [v for v in value.values() if isinstance(v, str)]
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def test_enums_are_what_json_promises():
    assert list(Provenance) == ["wire", "synthesized", "reported", "inferred", "undetermined"]
    assert list(Confidence) == ["high", "medium", "low"]


def test_every_place_that_judges_a_code_judges_alike():
    from analyzer.capture import frames, midstream
    from analyzer.model import SIDE, Anomaly, is_illegal_on_wire
    from analyzer.verdict.facts import Closes

    codes = np.arange(65536)
    sides = np.zeros(len(codes), SIDE)
    sides["close"] = frames.STATUS_CLOSE
    sides["body_bytes"] = 2
    sides["body"][:, 0], sides["body"][:, 1] = codes >> 8, codes & 255
    wrong = int(Anomaly.LOCAL_CODE_ON_WIRE | Anomaly.CODE_OUT_OF_RANGE)
    judged = (Closes(sides, 0).anomalies & wrong) != 0
    for code in codes.tolist():
        illegal = is_illegal_on_wire(code)
        assert judged[code] == illegal, code
        body = frames.parse_close_body(code.to_bytes(2, "big"))
        assert bool(body.anomalies & wrong) == illegal, code
        assert (KNOWN.code(code).on_wire in ("illegal", "never")) == illegal, code
        if code % 7 == 0 or 990 < code < 5010:  # interpreted kernels take their time
            assert midstream.may_be_sent(code) != illegal, code
