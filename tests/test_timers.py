"""The known timers keep their file's rules, and every candidate for a measured time is named."""

import json
import tomllib
from importlib import resources

import pytest

from analyzer.errors import CatalogueError
from analyzer.knowledge import timers

ENTRY = {
    "system": "Gate",
    "setting": "idle",
    "seconds": 60,
    "kind": "idle",
    "ends_with": "FIN",
    "source": "https://example.org/gate",
}


def systems(found):
    return [timer.system for timer in found]


@pytest.mark.parametrize(
    ("system", "kind", "seconds"),
    [
        ("nginx", "idle", 60),
        ("nginx", "write-stall", 60),
        ("ingress-nginx", "reload", 240),
        ("Envoy", "idle", 300),
        ("AWS ALB", "idle", 60),
        ("AWS NLB", "idle", 350),
        ("AWS API Gateway", "lifetime", 7200),
        ("GCP external ALB", "lifetime", 30),
        ("Heroku router", "idle", 55),
        ("Python websockets", "heartbeat", 40),
        ("Engine.IO, Socket.IO", "heartbeat", 45),
        ("Chrome", "close-handshake", 60),
        ("Action Cable", "heartbeat", 6),
    ],
)
def test_defaults_that_people_meet(system, kind, seconds):
    assert any((t.system, t.kind, t.seconds) == (system, kind, seconds) for t in timers.load())


def test_only_what_was_confirmed_is_listed_and_all_of_it(shared):
    research = json.loads((shared / "research" / "timeouts.json").read_text(encoding="utf-8"))
    confirmed = [e for e in research if e["confidence"] in ("source-read", "docs") and e["default_seconds"]]
    assert len(confirmed) == 53
    for timer in timers.load():
        assert any(e["default_seconds"] == timer.seconds and timer.source in e["source"] for e in confirmed), timer
    for entry in confirmed:
        assert any(t.seconds == entry["default_seconds"] and t.source in entry["source"] for t in timers.load()), entry


def test_every_kind_is_explained_in_the_file():
    text = (resources.files("analyzer.knowledge") / "timers.toml").read_text(encoding="utf-8")
    head = [line.split()[1] for line in text.splitlines() if line.startswith("#   ")]
    assert sorted(head) == sorted(timers.KINDS)
    assert {timer.kind for timer in timers.load()} == set(timers.KINDS)


def test_all_candidates_of_a_value_are_named_and_none_is_picked():
    assert systems(timers.candidates(60, ("idle",))) == [
        "Apache httpd",
        "AWS ALB",
        "Cowboy",
        "ingress-nginx",
        "Kong",
        "nginx",
        "Phoenix on Bandit",
        "Phoenix on Cowboy",
        "Varnish",
    ]
    assert systems(timers.candidates(60, ("heartbeat", "write-stall"))) == [
        "Binance",
        "Laravel Reverb",
        "nginx",
        "nginx",
    ]
    assert systems(timers.candidates(60, ("close-handshake",))) == ["Chrome"]
    assert len(timers.candidates(60)) == 9 + 4 + 1


def test_the_closest_candidate_comes_first():
    found = timers.candidates(330, ("idle",), tolerance=0.25)
    assert [(t.system, t.seconds) for t in found] == [("AWS NLB", 350), ("Envoy", 300), ("Cloudflare", 400)]


@pytest.mark.parametrize(("seconds", "is_near"), [(58.7, False), (58.8, True), (60, True), (61.2, True), (61.3, False)])
def test_the_tolerance_is_a_share_of_the_timer(seconds, is_near):
    assert bool(timers.candidates(seconds, ("idle",))) is is_near


@pytest.mark.parametrize("seconds", [0.0, -60.0, float("nan"), float("inf"), 1e9])
def test_a_time_that_no_timer_has_gives_none(seconds):
    assert timers.candidates(seconds) == ()


def test_a_file_is_read_in_its_order_with_seconds_as_floats():
    other = {**ENTRY, "system": "Other", "seconds": 1.5}
    found = timers.read({"timer": [ENTRY, other]}, path="t.toml")
    assert found == (
        timers.Timer("Gate", "idle", 60.0, "idle", "FIN", "https://example.org/gate"),
        timers.Timer("Other", "idle", 1.5, "idle", "FIN", "https://example.org/gate"),
    )
    assert isinstance(found[0].seconds, float)


KINDS = ", ".join(timers.KINDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": None}, "t.toml: timer 1: 'system' is missing"),
        ({"source": None}, "t.toml: timer 1: 'source' is missing"),
        ({"system": ""}, "t.toml: timer 1.system: must be text"),
        ({"setting": 5}, "t.toml: timer 1.setting: must be text"),
        ({"note": "x"}, "t.toml: timer 1: 'note' is not known here"),
        ({"seconds": 0}, "t.toml: timer 1.seconds: must be a number above 0"),
        ({"seconds": -1}, "t.toml: timer 1.seconds: must be a number above 0"),
        ({"seconds": "60"}, "t.toml: timer 1.seconds: must be a number above 0"),
        ({"seconds": True}, "t.toml: timer 1.seconds: must be a number above 0"),
        ({"seconds": float("inf")}, "t.toml: timer 1.seconds: must be a number above 0"),
        ({"seconds": float("nan")}, "t.toml: timer 1.seconds: must be a number above 0"),
        ({"kind": "idel"}, f"t.toml: timer 1.kind: must be one of {KINDS}"),
        ({"source": "somebody said"}, "t.toml: timer 1.source: must be an https address or an RFC"),
    ],
    ids=str,
)
def test_a_broken_entry_is_refused(change, message):
    entry = {name: value for name, value in {**ENTRY, **change}.items() if value is not None}
    with pytest.raises(CatalogueError) as error:
        timers.read({"timer": [entry]}, path="t.toml")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "t.toml: timer: there is none"),
        ({"timer": [ENTRY], "timers": []}, "t.toml: timers: is not known here"),
        ({"timer": [ENTRY, dict(ENTRY, seconds=61)]}, "t.toml: timer 2: Gate, idle stands twice"),
    ],
)
def test_a_broken_file_is_refused(document, message):
    with pytest.raises(CatalogueError) as error:
        timers.read(document, path="t.toml")
    assert str(error.value) == message


def test_the_file_that_comes_with_the_package_is_what_is_loaded():
    text = (resources.files("analyzer.knowledge") / "timers.toml").read_text(encoding="utf-8")
    assert timers.load() == timers.read(tomllib.loads(text), path="timers.toml")
    assert timers.load() is timers.load()
