"""Six languages: no key is missing, nothing that must stay is lost, and English in between shows."""

import re
import tomllib
from pathlib import Path

import pytest

import analyzer
from analyzer.capture.life import EventKind
from analyzer.errors import UsageError
from analyzer.knowledge import catalogue, language
from analyzer.knowledge.language import FALLBACK, NAMES, TEXT_FIELDS, Language, from_environment, placeholders
from analyzer.model import (
    ANOMALIES,
    DIMENSIONS,
    INPUTS,
    Confidence,
    End,
    Endpoint,
    Evidence,
    Handshake,
    Initiator,
    Provenance,
    Received,
    anomaly_names,
)

DIRECTORY = Path(analyzer.__file__).parent / "knowledge" / "languages"
TRANSLATED = [code for code in NAMES if code != "en"]
PLURAL = re.compile("_(zero|one|two|few|many)$")


def read(code):
    return tomllib.loads((DIRECTORY / f"{code}.toml").read_text(encoding="utf-8"))


def labels(code):
    return {f"{g}.{name}": text for g, entries in read(code)["label"].items() for name, text in entries.items()}


def english_texts():
    """The texts of codes.toml by the keys of a language file."""
    document = tomllib.loads((DIRECTORY.parent / "codes.toml").read_text(encoding="utf-8"))
    for name, entry in (document["code"] | document["range"]).items():
        yield ("code", name), entry
        for part in entry["diagnosis"]:
            yield ("diagnosis", f"{name}.{part['id']}"), part
    for name, entry in document["undetermined"].items():
        yield ("undetermined", name), entry
    for entry in document["pair"]:
        yield ("pair", "-".join(map(str, entry["codes"]))), entry
    for name, entry in document["http2"].items():
        yield ("http2", name), entry


TEXTS = {(kind, name, field): entry[field] for (kind, name), entry in english_texts() for field in TEXT_FIELDS[kind]}


def test_a_file_for_each_language_and_no_other():
    assert {path.stem for path in DIRECTORY.glob("*.toml")} == set(NAMES)


@pytest.mark.parametrize("code", TRANSLATED)
def test_every_label_is_translated(code):
    english, other = labels("en"), labels(code)
    assert sorted(english.keys() - other.keys()) == []
    assert [key for key, text in other.items() if not text.strip()] == []
    assert sorted(key for key in other.keys() - english.keys() if PLURAL.sub("", key) not in english) == []


@pytest.mark.parametrize("code", TRANSLATED)
def test_labels_keep_what_is_put_in(code):
    english, other = labels("en"), labels(code)
    lost = {}
    for key, text in other.items():
        wanted = placeholders(english.get(key, english.get(PLURAL.sub("", key), "")))
        found = placeholders(text)
        is_word_for_number = re.search("_(zero|one|two)$", key) is not None and wanted - found == {"n"}
        if found != wanted and not is_word_for_number:
            lost[key] = wanted ^ found
    assert lost == {}


@pytest.mark.parametrize("code", TRANSLATED)
def test_every_text_about_codes_is_translated(code):
    document = read(code)
    found = {(kind, name, field) for kind in TEXT_FIELDS for name, entry in document[kind].items() for field in entry}
    assert found == set(TEXTS)
    assert [key for key in TEXTS if document[key[0]][key[1]][key[2]] == TEXTS[key]] == []


NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)*")
IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z0-9]+)+|[\w.-]+\(\)|--\w+|Sec-WebSocket-\w+")


@pytest.mark.parametrize("code", TRANSLATED)
def test_numbers_and_identifiers_stay(code):
    document = read(code)
    lost = {}
    for (kind, name, field), english in TEXTS.items():
        text = document[kind][name][field]
        gone = [x for pattern in (NUMBER, IDENTIFIER) for x in pattern.findall(english) if x not in text]
        if gone:
            lost[kind, name, field] = gone
    assert lost == {}


@pytest.mark.parametrize("code", TRANSLATED)
def test_texts_are_in_the_language_they_claim(code):
    scripts = {"th": "[\u0e00-\u0e7f]", "zh": "[\u4e00-\u9fff]", "ar": "[\u0600-\u06ff]", "vi": "[À-ỹ]"}
    document = read(code)
    texts = [document[kind][name][field] for kind, name, field in TEXTS]
    if code in scripts:
        assert [text for text in texts if not re.search(scripts[code], text)] == []
    assert not any(re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069]", text) for text in texts)


def test_every_value_that_a_report_shows_has_a_label():
    known = labels("en")
    wanted = {f"endpoint.{value}" for value in (*Endpoint, "both")} | {f"side.{value}" for value in (*Endpoint, "both")}
    wanted |= {f"side_first.{value}" for value in (*Endpoint, "both")}
    wanted |= {f"provenance.{value}" for value in Provenance} | {f"provenance_about.{value}" for value in Provenance}
    wanted |= {f"initiator.{value}" for value in Initiator} | {f"end.{value}" for value in End}
    wanted |= {f"evidence.{value}" for value in Evidence} | {f"confidence.{value}" for value in Confidence}
    wanted |= {f"likelihood.{value}" for value in (Confidence.HIGH, Confidence.MEDIUM)}
    wanted |= {f"handshake.{value}" for value in Handshake} | {f"sent.{value}" for value in Received}
    wanted |= {f"anomaly.{name}" for flag in ANOMALIES for name in anomaly_names(flag)}
    wanted |= {f"unseen.{c.name.removeprefix('skipped_')}" for c in INPUTS if c.name.startswith("skipped_")}
    wanted |= {f"{group}.{dimension}" for dimension in DIMENSIONS for group in ("dimension", "by")}
    wanted |= {f"on_wire.{value}" for value in catalogue.ON_WIRE}
    wanted |= {f"plot.event_{value}" for value in EventKind}
    wanted |= {f"status.{value}" for value in ("cut", "damaged", "failed", "interrupted")}
    assert sorted(wanted - known.keys()) == []


def test_what_a_language_lacks_is_shown_in_english_with_a_mark(monkeypatch):
    whole = language._read

    def lacking(code):
        document = whole(code)
        if code == "th":
            del document["label"]["report"]["title"]
            del document["diagnosis"]["1006.general"]["fix"]
            del document["code"]["1006"]
            del document["pair"]["1005-1006"]["differ"]
        return document

    monkeypatch.setattr(language, "_read", lacking)
    thai, known = Language("th", catalogue.load()), catalogue.load()
    assert thai.label("report.title") == f"Why the WebSockets closed{FALLBACK}"
    assert thai.diagnosis("1006.general").fix == known.diagnosis("1006.general").fix + FALLBACK
    assert not thai.diagnosis("1006.general").title.endswith(FALLBACK)
    assert thai.about(1006).meaning == known.code(1006).meaning + FALLBACK
    assert thai.pair(1006, 1005).differ == known.pair(1005, 1006).differ + FALLBACK


@pytest.mark.parametrize("code", NAMES)
def test_every_text_is_reached_through_the_language(code):
    spoken, known = language.load(code), catalogue.load()
    for (kind, name, field), english in TEXTS.items():
        if kind == "diagnosis":
            text = getattr(spoken.diagnosis(name), field)
        elif kind == "undetermined":
            text = getattr(spoken.diagnosis(f"undetermined.{name}"), {"meaning": "cause"}.get(field, field))
        elif kind == "code":
            text = getattr(spoken.about(int(name.rpartition("-")[2])), field)
        elif kind == "http2":
            text = spoken.hint(name)
        else:
            text = getattr(spoken.pair(*map(int, name.split("-"))), field)
        assert (text == english) == (code == "en")
        assert FALLBACK not in text
    assert spoken.about(1006).name == known.code(1006).name == "Abnormal Closure"


def test_numbers_dates_and_percent():
    shown = {
        code: (
            language.load(code).number(1234567),
            language.load(code).percent(0.1234),
            language.load(code).decimal(1234.5),
            language.load(code).time("2026-11-21T15:00:01.250000000Z"),
        )
        for code in NAMES
    }
    assert shown["en"] == ("1,234,567", "12.3 %", "1,234.5", "2026-11-21 15:00:01")
    assert shown["id"] == ("1.234.567", "12,3 %", "1.234,5", "21 Nov 2026 15:00:01")
    assert shown["vi"][:3] == ("1.234.567", "12,3 %", "1.234,5")
    assert shown["th"][0] == "1,234,567"
    assert shown["zh"][3] == "2026年11月21日 15:00:01"
    assert shown["ar"][0] == "1,234,567"
    assert language.load("zh").time(None) == "-"
    assert language.load("zh").time("-9999-01-01T00:00:00.000000000Z") == "-9999-01-01T00:00:0"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0005, "≤ 1 ms"),
        (0.0123, "12.3 ms"),
        (1.5, "1.50 s"),
        (59.9, "59.9 s"),
        (240, "240 s"),
        (600, "10.0 min"),
        (7200, "2.00 h"),
        (90000, "25.0 h"),
        (259200, "3.00 d"),
    ],
)
def test_spans(seconds, shown):
    assert language.load("en").span(seconds) == shown


def test_counts_take_the_form_that_the_number_asks_for():
    english = language.load("en")
    assert [english.count("report.files", n) for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    arabic = language.load("ar")
    assert len({arabic.count("report.files", n).replace(str(n), "") for n in (1, 2, 3, 11)}) >= 3


def test_the_environments_locale_chooses_the_language():
    assert from_environment({"LANG": "th_TH.UTF-8"}) == "th"
    assert from_environment({"LC_ALL": "zh_CN.UTF-8", "LANG": "th_TH"}) == "zh"
    assert from_environment({"LC_MESSAGES": "ar", "LANG": "en_US"}) == "ar"
    assert from_environment({"LANG": "de_AT.UTF-8"}) == "en"
    assert from_environment({"LANG": "C.UTF-8"}) == "en"
    assert from_environment({}) == "en"


def test_there_is_no_other_language():
    with pytest.raises(UsageError, match="de: no such language; there are en, id, th, vi, zh, ar"):
        Language("de", catalogue.load())
