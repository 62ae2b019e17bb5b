"""The command as users meet it: output, messages, exit codes."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
from click.testing import CliRunner
from conftest import SAMPLES
from packets import CLIENT, SERVER, Conversation, pcap

from analyzer import cli
from analyzer.model import CLOSES, CONNECTIONS

NORMAL = str(SAMPLES / "normal-1000.pcap")
ROOT = SAMPLES.parent


def wsclose(*arguments, data=None, environment=None, cwd=None):
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "analyzer", *map(str, arguments)],
        input=data,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        cwd=cwd,
        timeout=60,
    )


def lines(done):
    return done.stderr.decode().strip().splitlines()


def test_report_answers_who_which_how_and_what_to_do():
    done = wsclose("report", SAMPLES / "late-close.pcap")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    first_screen = "\n".join(text.splitlines()[:40])
    assert "The server sent Close" in first_screen
    assert "The client reports: undetermined (late_close" in first_screen
    assert "The server reports 1006 (synthesized, no_close_fin" in first_screen
    assert re.search(r"^  do +\w", text, re.MULTILINE)


def test_report_of_all_samples_fits_80_columns_and_ends_lines_at_their_text():
    done = wsclose("report", SAMPLES, environment={"COLUMNS": "80"})
    text = done.stdout.decode()
    assert done.returncode == 0
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"[ \t]$", text, re.MULTILINE)
    assert "\x1b" not in text
    for code in ("1000", "1001", "1002", "1005", "1006", "1007", "1009", "1011", "1012"):
        assert re.search(rf"^{code} ", text, re.MULTILINE), code


def test_a_path_alone_means_report():
    assert wsclose(NORMAL).stdout == wsclose("report", NORMAL).stdout
    assert wsclose("--format", "json", NORMAL).stdout == wsclose("report", NORMAL, "--format", "json").stdout


def test_json_is_valid_and_the_same_each_time():
    runs = [wsclose("report", SAMPLES, "--format", "json").stdout for _ in range(2)]
    assert runs[0] == runs[1]
    document = json.loads(runs[0])
    assert next(iter(document)) == "schema"
    assert document["schema"] == "wsclose.report/1"
    jsonschema.validate(document, json.loads((ROOT / "docs" / "report.schema.json").read_text()))
    for endpoint, total in document["established"].items():
        counted = sum(
            row["count"]
            for block in ("frequencies", "illegal", "undetermined")
            for row in document[block]
            if row["endpoint"] == endpoint
        )
        assert counted == total


def test_frequency_table_as_csv():
    done = wsclose("report", NORMAL, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert rows == [
        {
            "endpoint": endpoint,
            "code": "1000",
            "name": "Normal Closure",
            "provenance": "wire",
            "initiator": "client",
            "count": "1",
            "share": "1.0",
        }
        for endpoint in ("client", "server")
    ]


@pytest.mark.parametrize(("command", "schema"), [("closes", CLOSES), ("connections", CONNECTIONS)])
def test_rows_as_json_lines_and_csv_say_the_same(command, schema):
    names = [column.name for column in schema]
    rows = [json.loads(line) for line in wsclose(command, NORMAL, "--format", "jsonl").stdout.splitlines()]
    table = list(csv.DictReader(io.StringIO(wsclose(command, NORMAL, "--format", "csv").stdout.decode())))
    assert len(rows) == len(table) == (2 if command == "closes" else 1)
    for row, cells in zip(rows, table, strict=True):
        assert list(row) == list(cells) == names
        for column in schema:
            value = row[column.name]
            shown = "" if value is None else "|".join(value) if column.kind == "list" else str(value)
            assert cells[column.name] == shown
            if column.kind == "time" and value is not None:
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", value)


def test_output_suffix_implies_the_format(tmp_path):
    for suffix, start in ((".json", "{"), (".csv", "endpoint,code"), (".md", "# Why"), (".txt", "1 WebSocket")):
        out = tmp_path / f"report{suffix}"
        done = wsclose("report", NORMAL, "-o", out)
        assert (done.returncode, done.stdout) == (0, b"")
        assert out.read_text(encoding="utf-8").startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere.pcap"], "wsclose: nowhere.pcap: no such file or directory"),
        (["empty.pcap"], "wsclose: empty.pcap: empty file"),
        (["text.pcap"], "wsclose: text.pcap: not a capture (neither pcap nor pcapng)"),
        (["bare"], "wsclose: bare: no captures and no logs in this directory"),
        (["report", "*.zip"], "wsclose: *.zip: nothing matches"),
        (["report", "good.pcap", "-o", "x.doc"], "wsclose: x.doc: no format goes with this suffix; use one of"),
        (["report", "good.pcap", "-o", "bare/x/y.md"], "wsclose: bare/x/y.md: no such file or directory"),
        (["reprot", "good.pcap"], "Error: no such command or file: 'reprot'. Did you mean 'report'?"),
        (["nowhere.pcap"], "Error: no such command or file: 'nowhere.pcap'."),
        (["explain", "70000"], "Error: Invalid value for 'CODE...': 70000 is not in the range 0<=x<=65535."),
        (["report"], "Error: Missing argument 'PATH...'."),
    ],
)
def test_wrong_calls_say_one_line_and_exit_2(arguments, message, tmp_path):
    (tmp_path / "empty.pcap").touch()
    (tmp_path / "text.pcap").write_text("hello, world; this is no capture at all")
    (tmp_path / "bare").mkdir()
    (tmp_path / "good.pcap").write_bytes((SAMPLES / "normal-1000.pcap").read_bytes())
    done = wsclose(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert lines(done)[-1].startswith(message)
    assert b"Traceback" not in done.stderr


def test_a_broken_file_among_good_ones_is_named_and_exits_4(tmp_path):
    text = tmp_path / "text.pcap"
    text.write_text("hello, world; this is no capture at all")
    done = wsclose("report", NORMAL, text)
    assert done.returncode == 4
    assert lines(done) == [f"wsclose: {text}: failed: not a capture (neither pcap nor pcapng)"]
    assert b"1 WebSocket connection" in done.stdout
    assert wsclose("-q", "report", NORMAL, text).stderr == b""
    assert wsclose("report", "-q", NORMAL, text).stderr == b""


def test_damage_inside_is_reported_with_what_was_read(tmp_path):
    whole = Conversation().upgrade()
    whole.close(CLIENT, 1000)
    content = whole.pcap()
    damaged = tmp_path / "damaged.pcap"
    damaged.write_bytes(content + b"\xff" * 100)
    done = wsclose("closes", damaged)
    assert done.returncode == 4
    (message,) = lines(done)
    assert message == (
        f"wsclose: {damaged}: damaged: a record or block that contradicts itself at byte {len(content)}, "
        "100 bytes not read"
    )
    assert done.stdout.count(b"\n") == 2


def test_a_cut_off_last_record_is_only_a_note(tmp_path):
    cut = tmp_path / "cut.pcap"
    cut.write_bytes((SAMPLES / "normal-1000.pcap").read_bytes()[:-3])
    done = wsclose("closes", cut)
    assert done.returncode == 0
    assert lines(done) == [f"wsclose: {cut}: cut: the last record is cut off"]


def test_standard_input():
    done = wsclose("closes", "-", data=(SAMPLES / "normal-1000.pcap").read_bytes())
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 2


def start(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "analyzer", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **more,
    )


def test_rows_are_written_while_the_capture_goes_on():
    first = Conversation().upgrade()
    first.close(CLIENT, 1000)
    first.close(SERVER, 1000)
    first.end()
    later = Conversation(sport=41000, ts_ns=first.ts_ns + 10_000_000_000).open()
    header = first.pcap()
    process = start("closes", "-")
    process.stdin.write(header + later.pcap()[24:])
    process.stdin.flush()
    line = process.stdout.readline()  # while standard input is still open
    assert b"client  1000 wire" in line
    process.stdin.close()
    process.stdout.read()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=30) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise on Windows")
def test_an_interrupt_reports_what_was_read_and_exits_130():
    capture = Conversation().upgrade()
    capture.close(CLIENT, 1000)
    process = start("report", "-")
    process.stdin.write(capture.pcap())
    process.stdin.flush()
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Interrupted" in out
    assert b"1 WebSocket connection in 6 packets" in out
    assert b"Traceback" not in err


def test_a_closed_pipe_ends_quietly():
    process = start("explain", *(str(code) for code in range(1000, 1012)))
    process.stdout.read(10)
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")


def test_explain_and_compare():
    text = wsclose("explain", "1006", "4321").stdout.decode()
    assert text.startswith("1006 Abnormal Closure  (never sent")
    assert "\n4321 Private Use" in text
    text = wsclose("compare", "1006", "1005").stdout.decode()
    assert "differ" in text
    assert wsclose("compare", "1000", "4999").returncode == 0


def test_help_has_examples_and_names_every_command():
    runner = CliRunner()
    overview = runner.invoke(cli.cli, ["--help"]).output
    for name in cli.cli.commands:
        assert name in overview
        text = runner.invoke(cli.cli, [name, "--help"]).output
        assert "Example" in text
        assert f"wsclose {name}" in text


def test_completion_is_there_for_the_asking():
    done = wsclose(environment={"_WSCLOSE_COMPLETE": "bash_source"})
    assert b"complete" in done.stdout


def test_debug_shows_the_traceback(tmp_path):
    done = wsclose("--debug", "report", tmp_path / "nowhere.pcap")
    assert b"Traceback" in done.stderr


def test_hostile_text_reaches_neither_terminal_nor_spreadsheet(tmp_path):
    hostile = Conversation()
    request = (
        b"GET /=cmd|'/c calc'!A0?token=abc HTTP/1.1\r\nHost: \x1b]0;owned\x07\xe2\x80\xaeevil\r\nUpgrade: websocket\r\n"
    )
    hostile.open()
    hostile.say(CLIENT, request + b"\r\n")
    hostile.say(SERVER, b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n")
    hostile.close(SERVER, 4000, '=HYPERLINK("http://x")\x1b[2J\u202e<script>alert(1)</script>')
    hostile.end()
    path = hostile.write(tmp_path / "hostile.pcap")
    for form in (["report"], ["closes"], ["connections"], ["report", "--format", "markdown"]):
        out = wsclose(*form, path).stdout.decode()
        assert "\x1b" not in out
        assert "\u202e" not in out
    markdown = wsclose("report", path, "--format", "markdown").stdout.decode()
    assert "<script>" not in markdown
    assert "abc" not in markdown.rpartition("_wsclose ")[0]  # the catalogue's digest stands behind it
    rows = list(csv.DictReader(io.StringIO(wsclose("closes", path, "--format", "csv").stdout.decode())))
    assert rows[0]["reason"].startswith("'=HYPERLINK")
    for row in rows:
        assert not any(cell.startswith(("=", "+", "@")) for cell in row.values())


def test_markdown_redacts_what_looks_secret(tmp_path):
    secret = Conversation()
    secret.open()
    request = b"GET /ws?access_token=s3cr3tValue99&user=ann@example.com HTTP/1.1\r\n"
    secret.say(CLIENT, request + b"Host: example.com\r\nUpgrade: websocket\r\n\r\n")
    secret.say(SERVER, b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n")
    secret.close(SERVER, 4401, "expired token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln ann@example.com")
    secret.end()
    path = secret.write(tmp_path / "secret.pcap")
    out = wsclose("report", path, "--format", "markdown").stdout.decode()
    for hidden in ("s3cr3tValue99", "ann@example.com", "eyJhbGci"):
        assert hidden not in out
    assert "expired" in out
    assert "s3cr3tValue99" in wsclose("report", path).stdout.decode()  # one's own terminal shows it


def test_the_schema_and_the_columns_page_are_generated(tmp_path):
    subprocess.run([sys.executable, "-m", "analyzer.report.schema", str(tmp_path)], check=True, cwd=ROOT)
    for name in ("report.schema.json", "columns.md"):
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == (tmp_path / name).read_text(encoding="utf-8"), (
            f"docs/{name} is stale: python -m analyzer.report.schema docs"
        )


def test_readme_shows_commands_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"\bwsclose (\w+) ", text):
        assert name in cli.cli.commands or name in ("reads",), name
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / target).exists(), target


def test_what_was_not_captured_is_not_said_not_to_be(tmp_path):
    lost = Conversation().upgrade()
    lost.close(SERVER, 1001, lose=True)
    lost.fin(SERVER)
    lost.fin(CLIENT)
    lost.ack(SERVER)
    text = wsclose("report", lost.write(tmp_path / "lost.pcap")).stdout.decode()
    assert "Nobody sent a Close" not in text
    assert "not known whether" in text


def test_output_is_never_an_input_and_not_touched_for_nothing(tmp_path):
    capture = tmp_path / "x.pcap"
    capture.write_bytes((SAMPLES / "normal-1000.pcap").read_bytes())
    before = capture.read_bytes()
    for command in ("closes", "report"):
        done = wsclose(command, capture, "--format", "csv", "-o", capture)
        assert (done.returncode, capture.read_bytes()) == (2, before)
        assert lines(done) == [f"wsclose: {capture}: this is an input; write to another file"]
    kept = tmp_path / "kept.csv"
    kept.write_text("kept")
    assert wsclose("closes", tmp_path / "nowhere.pcap", "-o", kept).returncode == 2
    assert kept.read_text() == "kept"


def test_a_file_named_twice_is_read_once(tmp_path):
    other = tmp_path / "other.pcap"
    other.symlink_to(NORMAL)
    assert wsclose("closes", NORMAL, NORMAL, other).stdout.count(b"\n") == 2


def test_narrow_terminals_keep_the_numbers():
    text = wsclose("report", SAMPLES, environment={"COLUMNS": "60"}).stdout.decode()
    assert re.search(r"^1000 \S.* wire +client +\d+ +\d+\.\d %$", text, re.MULTILINE)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_odd_file_names(tmp_path):
    for name in (b"caf\xe9.pcap", b"a\x1b[31mb.pcap"):
        (tmp_path / os.fsdecode(name)).write_bytes((SAMPLES / "normal-1000.pcap").read_bytes()[:-3])
    out = tmp_path / "out.csv"
    for arguments in (["closes", tmp_path, "-o", out], ["closes", tmp_path], ["report", tmp_path]):
        done = wsclose(*arguments)
        assert done.returncode == 0
        assert b"\x1b" not in done.stdout + done.stderr
    assert out.read_text(encoding="utf-8").count("\n") == 5


@pytest.mark.skipif(sys.platform == "win32", reason="uses a POSIX shell")
@pytest.mark.parametrize("redirect", ["<&-", ">&-", ">/dev/full"])
def test_closed_or_full_streams_make_one_line(redirect):
    argument = "-" if redirect == "<&-" else NORMAL
    command = f"{sys.executable} -m analyzer closes {argument} {redirect}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2
    assert len(lines(done)) == 1
    assert b"Traceback" not in done.stderr


def test_directories_tell_what_they_hold(tmp_path):
    (tmp_path / "notes.md").write_text("# websocket: close 1006 (abnormal closure): unexpected EOF")
    done = wsclose("report", tmp_path)
    nothing = f"wsclose: {tmp_path}: no captures and no logs in this directory"
    assert lines(done) == [f"{nothing} (1 other files: name them to have them read)"]
    (tmp_path / "good.pcap").write_bytes((SAMPLES / "normal-1000.pcap").read_bytes())
    (tmp_path / "gone.pcap").symlink_to(tmp_path / "nowhere")
    done = wsclose("closes", tmp_path)
    assert (done.returncode, done.stdout.count(b"\n")) == (4, 2)
    assert lines(done) == [f"wsclose: {tmp_path / 'gone.pcap'}: failed: no such file or directory"]


def test_a_long_report_is_cut_on_a_terminal_only(tmp_path):
    talks = []
    for i in range(60):
        talk = Conversation(sport=40000 + i, ts_ns=10**18 + i * 10**9).upgrade()
        talk.close(CLIENT, 2000 + i)
        talks += talk.packets
    path = tmp_path / "many.pcap"
    path.write_bytes(pcap(talks))
    text = wsclose("report", path).stdout.decode()
    assert "and 40 more rows: --format json shows all" in text
    assert len(json.loads(wsclose("report", path, "--format", "json").stdout)["illegal"]) == 60


def test_nothing_on_standard_input_is_no_success():
    """A tcpdump that was refused leaves an empty pipe."""
    command = [sys.executable, "-m", "analyzer", "report", "-"]
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr == b"wsclose: -: nothing came\n"


def test_a_capture_that_cannot_be_read_is_missed_in_a_directory_too(tmp_path):
    (tmp_path / "x.pcap").write_bytes((SAMPLES / "normal-1000.pcap").read_bytes())
    (tmp_path / "y.pcap").write_bytes(b"")
    command = [sys.executable, "-m", "analyzer", "closes", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 4
    assert "y.pcap: failed: empty file" in done.stderr


def test_an_interrupt_between_two_steps_loses_nothing(monkeypatch):
    """Reading is asked for the rest, and for the row of `inputs`, wherever the interrupt met it."""
    from analyzer import analysis
    from analyzer.report.counts import Counts

    found, add, calls = analysis.prepare([SAMPLES / "normal-1000.pcap"], analysis.Settings()), Counts.add, []

    def interrupted(self, *batch):
        add(self, *batch)
        calls.append(batch)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Counts, "add", interrupted)
    parts = analysis.fold_sources(found, analysis.Settings())
    counts = next(parts)
    assert (counts.n_connections, [row["status"] for row in counts.inputs]) == (1, ["interrupted"])
    with pytest.raises(KeyboardInterrupt):
        next(parts)
