"""What the report can be asked for: breakdowns, filters, languages, formats, conditions, plots; alike in Python."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from conftest import SAMPLES, options_of
from packets import SERVER, Conversation

import analyzer
from analyzer.knowledge.language import NAMES

ROOT = SAMPLES.parent
LOST = SAMPLES / "fin-no-close-1006.pcap"
LOST_LOG = SAMPLES / "fin-no-close-1006.server.log"
APP = SAMPLES / "app-4xxx-reason.pcapng"
CAPTURES = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".pcap", ".pcapng"))


def wsclose(*arguments, environment=None, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "analyzer", *map(str, arguments)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        cwd=cwd,
        timeout=120,
    )


def document(*arguments):
    done = wsclose("report", *arguments, "--format", "json")
    assert done.returncode in (0, 4), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def samples():
    return analyzer.read(SAMPLES, progress=False)


# ---- the first screen


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_the_first_screen_answers_who_which_how_and_what_to_do(path, capsys):
    """Of 24 lines, against what the sample's own file says, which was written by hand."""
    truth = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))
    analysis = analyzer.read(path, **options_of(path), progress=False)
    if "connections" in truth:
        pytest.skip("many ends: the first screen sums up, see test_many_ends_begin_with_what_is_worst")
    screen = " ".join("\n".join(analysis.report().to_text(width=80).splitlines()[:24]).split())
    for view in truth["expect"]:
        side = f"The {view['endpoint']} reports"
        if view.get("code") is None:
            assert f"{side}: undetermined ({view['evidence']}" in screen
        else:
            assert f"{side} {view['code']} ({view['provenance']}, {view['evidence']}" in screen
    initiator = truth["connection"]["initiator"]
    if truth["connection"]["handshake"] in ("rejected", "failed"):
        assert "Never opened" in screen
    elif initiator == "both":
        assert "Both closed at once" in screen
    elif initiator in ("client", "server"):
        assert f"The {initiator} sent" in screen
    else:
        assert "Nobody sent a Close" in screen or "No Close was captured" in screen
    assert re.search(r" do [A-Z]\w+", screen)


SEALED = sorted(path for path in CAPTURES if path.with_suffix(".keys").exists() and path.name.startswith("tls"))


@pytest.mark.parametrize("path", SEALED, ids=lambda path: path.name)
@pytest.mark.parametrize("lang", NAMES)
def test_what_no_key_opens_is_told_as_such(path, lang):
    """In every form and language; no bytes are missing, so no text may say so."""
    document = analyzer.read(path, ws_ports=(), ws_hosts=("*",), keys=(), progress=False).report(lang=lang)
    text = " ".join(document.to_text(width=80).split())
    assert "sealed" in text
    assert document.to_html()
    assert document.to_markdown()
    if lang == "en":
        assert "missing" not in text.split("Diagnosis")[0]
        assert "encrypted" in text.split("Diagnosis")[0]


def test_many_ends_begin_with_what_is_worst(samples):
    lines = samples.report().to_text(width=80).splitlines()
    screen = lines[:24]
    assert "In short" in screen
    place = screen.index("In short")
    assert screen[place + 1].startswith("  1006 Abnormal Closure")
    assert sum(line.startswith("  do ") for line in screen) >= 2


def test_a_capture_beside_a_large_log_does_not_hide_it():
    report = analyzer.read(
        SAMPLES / "normal-1000.pcap", ROOT / "notebooks" / "week" / "chat-2026-11-09.log.gz"
    ).report()
    assert report.to_dict()["stories"] == []
    text = " ".join(report.to_text().split())
    assert "In short" in text
    assert "Captures and logs are counted together" in text


def test_a_close_behind_the_end_of_tcp_is_told_so():
    text = " ".join(analyzer.read(SAMPLES / "half-close.pcap").report().to_text().split())
    assert "That Close came after the client had ended TCP on its side." in text
    normal = analyzer.read(SAMPLES / "normal-1000.pcap").report().to_text()
    assert "That Close came after" not in normal


def test_what_is_not_recognised_is_told_how_to_get(tmp_path):
    talk = Conversation()
    talk.close(SERVER, 1001)
    text = " ".join(analyzer.read(talk.write(tmp_path / "x.pcap")).report().to_text().split())
    assert "No WebSocket was found." in text
    assert "start the capture earlier, or name its server port with --port." in text


def test_filters_that_leave_nothing_say_so(samples):
    assert "No close passes the filters." in samples.report(code=1999).to_text()


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.log")), ids=lambda path: path.name)
def test_every_log_has_a_page_and_shows_itself(path):
    report = analyzer.read(path).report()
    assert report.to_html().startswith("<!DOCTYPE html>")
    assert report._repr_html_()


@pytest.mark.parametrize("kind", ["codes", "timeline", "durations", "silences", "ends", "views"])
@pytest.mark.parametrize("name", ["rejected-403.pcap", "normal-1000.client.log", "README.md"])
def test_a_plot_of_nothing_says_so(tmp_path, kind, name):
    from analyzer.report import plots

    path = SAMPLES / name
    if name == "README.md":
        path = tmp_path / "empty.log"
        path.write_text("nothing\n")
    table = analyzer.read(path).report().table(kind)
    assert getattr(plots, f"plot_{kind}")(table) is not None


def test_timers_are_named_for_the_code_whose_ends_gather():
    week = analyzer.read(ROOT / "notebooks" / "week", formats=[ROOT / "notebooks" / "formats"])
    (found,) = week.report().to_dict()["timers"]
    rows = week.closes[week.closes["code"] == 1006]
    near = rows["duration_s"].between(58.8, 61.2).sum()
    assert (found["measure"], found["code"], found["seconds"]) == ("duration", 1006, 60)
    assert abs(found["count"] - near) <= 15  # steps of 0.23 % at either edge
    screen = " ".join(week.report().to_text().splitlines()[:40])
    assert "Ends gather at the value of known timers" in screen


# ---- filters and breakdowns, alike in Python and on the command line


FILTERS = [
    ({"code": 1006}, ["--code", "1006"]),
    ({"code": ["4000-4999", "none"]}, ["--code", "4000-4999", "--code", "none"]),
    ({"endpoint": "server", "provenance": "wire"}, ["--endpoint", "server", "--provenance", "wire"]),
    ({"host": "127.0.0.1:4*"}, ["--host", "127.0.0.1:4*"]),
    (
        {"since": "2026-11-21T15:00", "until": "2026-11-21T15:01"},
        ["--since", "2026-11-21T15:00", "--until", "2026-11-21T15:01"],
    ),
    ({"by": "host", "top": 3, "freq": "1min"}, ["--by", "host", "--top", "3", "--freq", "1min"]),
]


@pytest.mark.parametrize(("keywords", "options"), FILTERS, ids=str)
def test_python_and_the_command_line_agree(samples, keywords, options):
    told = document(SAMPLES, *options)
    here = json.loads(json.dumps(samples.report(**keywords).to_dict()))
    strip = SAMPLES.as_posix()
    assert json.dumps(told).replace(strip, "") == json.dumps(here).replace(strip, "")


def test_filters_count_what_they_leave_out(samples):
    closes = samples.closes
    told = samples.report(code=1006, endpoint="client").to_dict()
    wanted = closes[(closes["code"] == 1006) & (closes["endpoint"] == "client")]
    counted = sum(row["count"] for block in ("frequencies", "illegal", "never_opened") for row in told[block])
    assert counted == len(wanted)
    assert told["left_out"] == len(closes) - len(wanted)
    assert told["filters"] == {"code": ["1006"], "endpoint": ["client"]}
    assert f"Only code 1006, endpoint client; {told['left_out']} views left out." in " ".join(
        samples.report(code=1006, endpoint="client").to_text().split()
    )


def test_rows_are_filtered_too():
    done = wsclose("closes", SAMPLES, "--code", "1006", "--endpoint", "client", "--format", "jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows
    assert {(row["code"], row["endpoint"]) for row in rows} == {(1006, "client")}
    connections = wsclose("connections", SAMPLES, "--code", "1006", "--endpoint", "client", "--format", "jsonl")
    keys = {json.loads(line)["connection"] for line in connections.stdout.splitlines()}
    assert keys == {row["connection"] for row in rows if row["connection"]}


def test_breakdowns_agree_with_pandas(samples):
    told = samples.report(by="path", top=1000).to_dict()
    closes = samples.closes.dropna(subset=["path"]).copy()
    closes["path"] = closes["path"].str.partition("?")[0]
    expected = closes.groupby(["endpoint", "path"], observed=True).size().to_dict()
    assert {(e["endpoint"], e["value"]): e["count"] for e in told["by"]} == expected
    assert told["beyond"] == {"path": {"values": 0, "views": 0}}


def test_the_timeline_agrees_with_pandas(samples):
    told = samples.report(freq="1min").to_dict()["timeline"]
    assert told["step_s"] == 60
    times = samples.closes.dropna(subset=["time"])
    expected = times.groupby(times["time"].dt.floor("60s")).size()
    counted = pd.DataFrame(told["bins"]).groupby("time")["count"].sum()
    assert list(counted) == list(expected)
    assert list(pd.to_datetime(counted.index)) == list(expected.index)


def test_tables_of_a_report_are_dataframes(samples):
    report = samples.report()
    codes = report.table("codes")
    told = report.to_dict()
    unopened = sum(row["count"] for row in told["never_opened"])
    assert codes["count"].sum() == sum(told["established"].values()) + unopened == len(samples.closes)
    opened = samples.connections[samples.connections["handshake"].isin(["complete", "missing", "sealed"])]
    assert report.table("ends")["count"].sum() == report.table("views")["count"].sum() == len(opened)
    assert str(report.table("timeline")["time"].dtype) == "datetime64[ns, UTC]"
    assert report.table("silences")["count"].sum() == opened["silence_s"].notna().sum()
    with pytest.raises(KeyError):
        report.table("schema")


# ---- languages


@pytest.mark.parametrize("lang", NAMES)
def test_a_report_speaks_one_language(samples, lang):
    report = samples.report(lang=lang)
    for text in (report.to_text(), report.to_markdown()):
        assert "[en]" not in text
        assert ("What the clients report" in text) == (lang == "en")
    assert report.to_dict() == samples.report().to_dict()  # data is never localised


def test_the_locale_chooses_the_language_and_lang_overrides_it():
    thai = wsclose("report", LOST, environment={"LC_ALL": "th_TH.UTF-8"})
    assert thai.stdout == wsclose("report", LOST, "--lang", "th").stdout
    assert thai.stdout != wsclose("report", LOST, "--lang", "en").stdout
    both = wsclose("report", LOST, "--lang", "en", environment={"LC_ALL": "th_TH.UTF-8"})
    assert b"Abnormal Closure" in both.stdout
    assert b"Nobody sent a Close." in both.stdout


@pytest.mark.parametrize("lang", NAMES)
def test_explain_and_compare_speak_it_too(lang):
    for arguments in (["explain", "1006"], ["compare", "1005", "1006"]):
        done = wsclose(*arguments, "--lang", lang)
        assert done.returncode == 0
        assert "[en]" not in done.stdout.decode()


# ---- conditions


def test_a_condition_that_is_met_exits_3_and_says_so():
    done = wsclose("report", SAMPLES, "--fail-on", "code=1006 share>5%")
    assert done.returncode == 3
    assert b"--fail-on 'code=1006 share>5%' is met: client: 23 of 67 views, 34.3 %" in done.stderr
    assert done.stdout
    quiet = wsclose("report", SAMPLES, "-q", "--fail-on", "code=1006 count>100", "--fail-on", "code=1000")
    assert (quiet.returncode, quiet.stderr) == (3, b"")


def test_a_condition_that_is_not_met_changes_nothing():
    done = wsclose("report", LOST, "--fail-on", "code=1011")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_condition_that_means_nothing_exits_2_before_anything_is_read(tmp_path):
    done = wsclose("report", LOST, "--fail-on", "1006", "-o", tmp_path / "x.html")
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    assert not list(tmp_path.iterdir())


# ---- redaction


def test_text_keeps_what_markdown_and_html_take_out(tmp_path):
    text = wsclose("report", APP).stdout.decode()
    assert "/chat?room=7" in text
    assert "/chat?room=7" not in wsclose("report", APP, "--redact").stdout.decode()
    markdown = wsclose("report", APP, "--format", "markdown").stdout.decode()
    assert "room=7" not in markdown.replace("\\", "")
    assert "room=7" in wsclose("report", APP, "--format", "markdown", "--no-redact").stdout.decode().replace("\\", "")
    page = wsclose("report", APP, "--format", "html").stdout.decode()
    assert "room=7" not in page
    assert "room=7" in wsclose("report", APP, "--format", "html", "--no-redact").stdout.decode()
    rows = wsclose("closes", APP, "--format", "jsonl", "--redact").stdout.decode()
    assert "/chat?room=…" in rows


# ---- files


def test_a_page_that_cannot_show_all_ends_has_them_beside_it(tmp_path):
    log = tmp_path / "server.log"
    line = "2026/11/21 10:00:{:02d} read: websocket: close 4001: user 192.0.2.{}\n"
    log.write_text("".join(line.format(i % 60, i % 250) for i in range(100)))
    done = wsclose("report", log, "-o", tmp_path / "out.html")
    assert (done.returncode, done.stdout) == (0, b"")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.closes.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 100
    assert {row["reason"] for row in rows} == {"user …"}
    assert "out.closes.csv" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.closes.csv", "out.html", "server.log"]


def test_a_page_that_shows_all_ends_stands_alone(tmp_path):
    assert wsclose("report", LOST, "-o", tmp_path / "out.html").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_parquet_holds_the_same_rows_as_json_lines(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs the extra [batch]")
    path = tmp_path / "closes.parquet"
    assert wsclose("closes", SAMPLES, "-o", path).returncode in (0, 4)
    frame = pd.read_parquet(path)
    rows = [json.loads(line) for line in wsclose("closes", SAMPLES, "--format", "jsonl").stdout.splitlines()]
    assert len(frame) == len(rows)
    for row, (_, stored) in zip(rows, frame.iterrows(), strict=True):
        for name in ("source", "record", "endpoint", "code", "provenance", "evidence", "reason", "duration_s"):
            assert (None if pd.isna(stored[name]) else stored[name]) == row[name]
        assert (None if stored["anomalies"] is None else list(stored["anomalies"])) == row["anomalies"]
        time = None if pd.isna(stored["time"]) else stored["time"].value
        assert time == (None if row["time"] is None else pd.Timestamp(row["time"]).value)
    assert wsclose("report", SAMPLES, "-o", tmp_path / "codes.parquet").returncode in (0, 4)
    codes = pd.read_parquet(tmp_path / "codes.parquet")
    assert codes["count"].sum() == sum(
        row["count"]
        for row in csv.DictReader(io.StringIO(wsclose("report", SAMPLES, "--format", "csv").stdout.decode()))
        if True
        for row in [{"count": int(row["count"])}]
    )


def test_parquet_takes_text_that_is_no_unicode(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs the extra [batch]")
    log = tmp_path / "s.log"
    log.write_bytes(b"2026/11/21 10:00:00 read: websocket: close 4001: \xff\xfe=1+1\n")
    assert wsclose("closes", log, "-o", tmp_path / "s.parquet").returncode == 0
    assert len(pd.read_parquet(tmp_path / "s.parquet")) == 1


# ---- plots and single connections


@pytest.mark.parametrize("kind", ["codes", "timeline", "durations", "silences", "ends", "views"])
def test_plots_are_drawn_from_the_command_line(tmp_path, kind):
    done = wsclose("plot", kind, SAMPLES, "-o", tmp_path / "x.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "x.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert wsclose("plot", kind, SAMPLES, "--format", "svg").stdout == (tmp_path / "x.svg").read_bytes()


def test_the_life_of_one_connection_is_drawn(tmp_path):
    done = wsclose("plot", "life", APP, "-o", tmp_path / "x.svg")
    assert done.returncode == 0, done.stderr
    drawn = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert "Close 4401" in drawn
    assert (tmp_path / "x.svg").stat().st_size > 1000


def test_life_asks_which_connection_where_there_are_several():
    done = wsclose("plot", "life", SAMPLES, "--format", "svg")
    assert done.returncode == 2
    assert done.stderr.startswith(b"wsclose: 64 connections: name one of ")
    none = wsclose("plot", "life", SAMPLES, "--connection", "2031", "--format", "svg")
    assert none.stderr == b"wsclose: no connection begins with 2031\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot", "codes", LOST, "--connection", "x"], "--connection goes with life, not with codes"),
        (["plot", "life", LOST, "--freq", "1h"], "--freq goes with timeline, not with life"),
        (["plot", "codes", LOST, "-o", "x.gif"], "x.gif: no format goes with this suffix; use one of .svg, .png, .pdf"),
        (["plot", "timeline", LOST, "--freq", "soon"], "soon: not a step of time"),
        (["report", LOST, "--since", "soon"], "soon: not a time"),
        (["report", LOST, "--code", "x"], "x: not a close code"),
        (["report", LOST, "--lang", "de"], "'de' is not one of"),
        (["report", LOST, "--by", "colour"], "'colour' is not one of"),
    ],
)
def test_wrong_calls_exit_2_with_a_word_of_help(arguments, message, tmp_path):
    done = wsclose(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_a_connection_shows_itself(samples):
    key = samples.connections.loc[samples.connections["source"].str.endswith(APP.name), "connection"].item()
    connection = samples.connection(key)
    assert str(connection).splitlines()[1:3] == [f"  {sentence}" for sentence in connection.tell()[:2]]
    assert any("4401" in sentence for sentence in connection.tell())
    shown = connection._repr_html_()
    assert "4401" in shown
    assert shown.count("<li>") == len(connection.tell())
    events = connection.life.to_pandas()
    assert list(events["kind"]).count("close") == 2
    assert set(events.loc[events["kind"] == "close", "code"]) == {4401}
    assert connection.plot().figure is not None
    assert 'dir="rtl"' in samples.connection(key, lang="ar")._repr_html_()
    with pytest.raises(analyzer.UsageError, match="connections begin with 2026: name one of"):
        samples.connection("2026")


def test_progress_suits_the_place(monkeypatch, capsys):
    from analyzer import progress

    assert type(progress.choose(1)).__name__ == "_Silent"
    shown = []

    class Handle:
        def display(self, content, *, raw):
            shown.append(content["text/plain"])

        def update(self, content, *, raw):
            shown.append(content["text/plain"])

    display = pytest.importorskip("IPython.display", reason="progress in notebooks needs IPython")
    monkeypatch.setattr(display, "DisplayHandle", Handle)
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    line = progress.NotebookProgress(2)
    line.tell("a\x1b.pcap", 50, 100)
    line.tell("b.pcap", 3_000_000, None)
    line.close()
    assert shown == ["file 1 of 2, 50 %: a\\x1b.pcap", "file 2 of 2, 3 MB: b.pcap", ""]


# ---- outputs that would destroy something


def test_no_output_is_an_input_however_it_is_named(tmp_path):
    log = tmp_path / "app.log.json"
    content = LOST_LOG.read_bytes()
    log.write_bytes(content)
    beside = tmp_path / "x.closes.csv"
    beside.write_bytes(content)
    (tmp_path / "link.csv").symlink_to(log)
    for arguments in (
        ["report", tmp_path, "-o", log],
        ["report", str(tmp_path / "*.json"), "-o", log],
        ["closes", tmp_path, "-o", tmp_path / "link.csv"],
        ["report", beside, log, "-o", tmp_path / "x.html"],
        ["plot", "codes", tmp_path, "--format", "svg", "-o", log],
    ):
        done = wsclose(*arguments)
        assert done.returncode == 2
        assert b"this is an input; write to another file" in done.stderr
    assert log.read_bytes() == beside.read_bytes() == content
    assert not (tmp_path / "x.html").exists()


def test_nothing_lies_beside_a_device_and_nothing_is_left_of_a_failure(tmp_path):
    assert wsclose("report", LOST, "--format", "html", "-o", "/dev/null").returncode == 0
    assert not Path("/dev/null.closes.csv").exists()
    (tmp_path / "x.closes.csv").mkdir()
    done = wsclose("report", LOST, "-o", tmp_path / "x.html")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.closes.csv"]
    assert wsclose("report", LOST, "--format", "html", "-o", "").stderr == b"wsclose: -o names no file\n"


def test_json_holds_nothing_that_a_terminal_obeys(tmp_path):
    log = tmp_path / "s.log"
    log.write_bytes("2026/11/21 10:00:00 read: websocket: close 4001: a\x9b2J\u202eb\x7f\n".encode())
    text = wsclose("report", log, "--format", "json").stdout.decode()
    assert not re.search("[\x7f-\x9f\u202e]", text)
    assert json.loads(text)["rows"][0]["reason"] == "a\x9b2J\u202eb\x7f"


def test_half_a_surrogate_pair_breaks_no_table(tmp_path):
    log = tmp_path / "s.log"
    log.write_text('{"msg": "websocket closed", "wsCloseCode": 4001, "reason": "a\\ud800b"}\n')
    found = analyzer.read(log)
    assert list(found.closes["reason"]) == ["a\\ud800b"]
    assert list(found.report().table("rows")["reason"]) == ["a\\ud800b"]


@pytest.mark.parametrize("since", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "1500-01-01"])
def test_times_beyond_nanoseconds_are_refused(since):
    done = wsclose("report", LOST, "--since", since)
    assert done.returncode == 2
    assert b"too far away; years from 1678 to 2261 are told apart" in done.stderr


def test_a_step_too_fine_to_draw_is_one_line(tmp_path):
    done = wsclose("plot", "timeline", SAMPLES, "--freq", "1ms", "-o", tmp_path / "x.svg")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_captured_addresses_are_no_links(tmp_path, samples):
    log = tmp_path / "s.log"
    log.write_text("2026/11/21 10:00:00 read: websocket: close 4001: see https://evil.example/x\n")
    report = analyzer.read(log).report()
    for page in (report.to_html(redact=False), report._repr_html_()):
        assert "evil.example" in page
        assert 'href="https://evil.example' not in page
    assert 'href="https://' in samples.report().to_html()  # sources of ours are


def test_the_plotted_timeline_has_the_reports_own_steps():
    from analyzer.report import plots

    log_times = pd.date_range("2026-11-21", periods=2000, freq="1s", tz="UTC")
    rows = "".join(f"{t:%Y/%m/%d %H:%M:%S} read: websocket: close 4001: x\n" for t in log_times)
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        log.write(rows)
        log.flush()
        report = analyzer.read(log.name).report()
    step = report.to_dict()["timeline"]["step_s"]
    axes = plots.plot_timeline(report.table("timeline"), freq=f"{round(step * 1000)}ms")
    heights = {round(bar.get_height()) for container in axes.containers for bar in container}
    assert heights == {round(step)}


def test_weeks_begin_on_mondays():
    week = analyzer.read(ROOT / "notebooks" / "week").report(freq="1w").to_dict()["timeline"]["bins"]
    assert {row["time"][:10] for row in week} == {"2026-11-09", "2026-11-16"}


def test_proxies_meet_no_condition(tmp_path):
    from analyzer.report.condition import find_met, parse_condition

    told = {"established": {"proxy": 3, "client": 2}, "illegal": [], "undetermined": [], "frequencies": []}
    told["frequencies"] = [{"endpoint": "client", "code": 1006, "provenance": "wire", "initiator": "none", "count": 2}]
    assert find_met(parse_condition("code=1006 share<50%"), told) == []


def test_python_reads_times_in_the_zone_that_logs_are_read_in(tmp_path):
    log = tmp_path / "s.log"
    log.write_text("2026/11/21 10:00:00 read: websocket: close 4001: x\n")
    found = analyzer.read(log, tz="Europe/Vienna")
    assert found.report(since="2026-11-21T10:00", until="2026-11-21T10:01").to_dict()["logged"] == 1


def test_a_token_in_the_subprotocol_is_redacted():
    from analyzer.report.redaction import redacted

    token = "eyJhbGciOi.eyJzdWIi.c2ln"
    document = {"by": [{"dimension": "subprotocol", "value": token}], "codes": [{"subprotocol": [{"value": token}]}]}
    clean = redacted(document | {"stories": [{"subprotocol": token}]})
    assert token not in json.dumps(clean, ensure_ascii=False)
