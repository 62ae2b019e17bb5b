"""Every log format holds what it promises: bare, wrapped, among all others, and on hostile lines."""

import datetime as dt
import json
import re
from pathlib import Path

import pytest

from analyzer.errors import CatalogueError
from analyzer.logs import catalogue, check
from analyzer.logs.catalogue import Catalogue
from analyzer.logs.format import Format

FORMATS = catalogue.load().formats
SAMPLES = [(fmt, i, sample) for fmt in FORMATS for i, sample in enumerate(fmt.samples)]
WRAPPED_AT = "2026-11-21T10:00:00.000000000Z"


def docker(line, at):
    return json.dumps({"log": line + "\n", "stream": "stderr", "time": at})


def docker_twice(line, at):
    return json.dumps({"@timestamp": at, "message": docker(line, at)})


def cri(line, at):
    return f"{at} stderr F {line}"


def syslog(line, at):
    return f"<11>1 {at} web-1 app 4711 - - {line}"


def journal(line, at):
    seconds = dt.datetime.fromisoformat(at[:26] + "+00:00").timestamp()
    return json.dumps({"__REALTIME_TIMESTAMP": f"{round(seconds * 1e6)}", "MESSAGE": list(line.encode())})


WRAPPERS = [docker, docker_twice, cri, syslog, journal]


def name(value):
    if isinstance(value, Format):
        return value.id
    return value.__name__ if callable(value) else str(value) if isinstance(value, int) else ""


@pytest.mark.parametrize("fmt", FORMATS, ids=name)
def test_every_sample_reject_and_pattern_of_a_format(fmt):
    assert list(check.check_format(fmt)) == []


@pytest.mark.parametrize(("fmt", "i", "sample"), SAMPLES, ids=name)
def test_a_sample_is_claimed_by_its_own_format_among_all(fmt, i, sample):
    (row,) = check.read_rows(catalogue.load(), sample["line"])
    assert row["system"] == fmt.id
    assert check.claim(row) == sample["expect"]


@pytest.mark.parametrize("ending", ["\r\n", ""], ids=["CRLF", "none"])
def test_samples_with_other_line_ends(ending):
    for fmt, i, sample in SAMPLES:
        text = "\r\n".join(sample["line"].split("\n")) + ending if ending else sample["line"]
        (row,) = check.read_rows(Catalogue([fmt]), text)
        assert check.claim(row) == sample["expect"], (fmt.id, i)


@pytest.mark.parametrize("wrap", WRAPPERS, ids=name)
@pytest.mark.parametrize("fmt", FORMATS, ids=name)
def test_samples_in_wrappers(fmt, wrap):
    for i, sample in enumerate(fmt.samples):
        at = sample["expect"].get("time", WRAPPED_AT)
        text = "\n".join(wrap(line, at) for line in sample["line"].split("\n"))
        rows = check.read_rows(catalogue.load(), text)
        assert len(rows) == 1, (i, text)
        got = check.claim(rows[0])
        assert got == {**sample["expect"], **({"time": got["time"]} if "time" in got else {})}, i
        if "time" in sample["expect"]:
            assert got["time"] == at, i


@pytest.mark.parametrize("fmt", FORMATS, ids=name)
def test_rejects_are_no_close_to_any_format(fmt):
    for reject in fmt.rejects:
        rows = check.read_rows(catalogue.load(), reject["line"])
        assert {row["system"] for row in rows} == set(reject.get("claimed_by", [])), reject["line"]


def test_ids_are_file_names_and_all_asked_for_are_there():
    files = {path.stem for path in Path(catalogue.__file__).parent.glob("formats/*.toml")}
    assert {fmt.id for fmt in FORMATS} == files
    asked = """python_websockets uvicorn hypercorn aiohttp starlette tornado websocket_client autobahn node_ws
    websocket_node engine_io undici uwebsockets browser chrome_console gorilla coder_websocket tungstenite jetty tomcat
    spring java_websocket okhttp dotnet signalr cowboy phoenix action_cable kubectl nginx haproxy envoy apache traefik
    caddy aws_alb aws_api_gateway"""
    assert set(asked.split()) <= files


def test_every_format_has_a_sample_from_the_wild_or_from_a_run():
    for fmt in FORMATS:
        assert any(sample["from"].startswith(("https://", "ran ")) for sample in fmt.samples), fmt.id


def test_no_format_names_a_machine():
    for fmt in FORMATS:
        text = json.dumps([fmt.samples, fmt.rejects, fmt.rule])
        assert not re.search(r"/tmp/|/work/|/root/", text), fmt.id


MINIMAL = """
id = "mine"
title = "Mine"
source = "https://example.com"
rule = "Prints what came in."
find = ["mine closed"]
[pattern.closed]
regex = '''mine closed (?P<code>\\d{4})'''
means = "received"
[[sample]]
from = "ran mine 1.0"
line = '''mine closed 1001'''
pattern = "closed"
expect = { code = 1001, provenance = "reported", received = "status", wire_code = 1001 }
[[reject]]
line = '''mine opened'''
why = "no close"
"""


def read(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return catalogue.read_format(path)


def test_a_minimal_format_is_whole(tmp_path):
    assert list(check.check_format(read(tmp_path, MINIMAL))) == []


@pytest.mark.parametrize(
    ("change", "into", "key", "why"),
    [
        ('id = "mine"', 'id = "My Own"', "id", "must be lower case letters, digits and underscores"),
        ('title = "Mine"\n', "", "title", "is missing"),
        ('title = "Mine"', 'titel = "Mine"', "titel", "is not known here"),
        ('means = "received"', 'means = "got"', "pattern.closed.means", "must be one of empty, frame, made_up, none"),
        ('means = "received"', "sent_code = 70000", "pattern.closed.sent_code", "must be a close code"),
        ("(?P<code>", "(?P<kode>", "pattern.closed", "nothing uses the group 'kode'"),
        ("(?P<code>", "(", "pattern.closed.regex", "every group needs a name; write (?:...) for the others"),
        ("(?P<code>", "(?P<code", "pattern.closed.regex", "missing >, unterminated name"),
        ('find = ["mine closed"]', "", "pattern.mine.closed", "nothing finds it: 'find' is missing"),
        ('find = ["mine closed"]', 'find = ["<<<<"]', "find", "'<<<<': it has to survive any wrapping"),
        ("regex = ", "fields = {}\nregex = ", "pattern.closed", "needs either 'regex' or 'fields'"),
        (
            'means = "received"',
            '[[pattern.closed.case]]\nwhen = { x = "1" }',
            "pattern.closed.case[0].when",
            "there is",
        ),
        ("id = ", "id == ", "file", "no TOML"),
    ],
)
def test_a_broken_format_is_refused_with_its_key(tmp_path, change, into, key, why):
    assert change in MINIMAL
    with pytest.raises(CatalogueError) as caught:
        read(tmp_path, MINIMAL.replace(change, into))
    assert caught.value.key == key
    assert caught.value.why.startswith(why)


@pytest.mark.parametrize(
    ("change", "into", "problem"),
    [
        ("mine closed 1001'''", "mine closed 101'''", "matched up to here: 'mine closed 1' "),
        ("wire_code = 1001", "wire_code = 1002", "wire_code is 1001, expected 1002"),
        ('received = "status", ', "", "received is 'status', expected None"),
        ("mine opened", "mine closed 1000", "reject[0]: is taken for a close"),
        ('from = "ran mine 1.0"', 'from = "made up"', "no sample is from the wild or from a run"),
        ('why = "no close"', "", "reject[0]: needs 'line' and 'why'"),
        ("[[sample]]", "[pattern.other]\nregex = 'x'\n[[sample]]", "pattern.other: has no sample"),
        ("[[sample]]", "[pattern.other]\nregex = 'closed'\n[[sample]]", "closed and other both match"),
    ],
)
def test_the_check_tells_what_is_wrong(tmp_path, change, into, problem):
    assert change in MINIMAL
    text = MINIMAL.replace(change, into)
    assert any(problem in one for one in check.check_format(read(tmp_path, text)))


def test_an_expression_that_runs_away_is_told(tmp_path):
    fmt = read(tmp_path, MINIMAL.replace("(?P<code>\\d{4})", "(?P<code>(?:\\d+)+)x$"))
    assert [one for one in check.check_times(fmt) if "on a hostile line" in one]
    assert list(check.check_times(read(tmp_path, MINIMAL))) == []


def test_two_formats_cannot_share_an_id(tmp_path):
    fmt = read(tmp_path, MINIMAL)
    with pytest.raises(CatalogueError, match="'mine' is taken"):
        Catalogue([fmt, fmt])
