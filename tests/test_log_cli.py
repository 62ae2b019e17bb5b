"""The command on logs, as users meet it: output, messages, exit codes, pipes, directories and many files at once."""

import contextlib
import csv
import gzip
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import pytest
from conftest import SAMPLES

from analyzer.model import CLOSES
from analyzer.pool import WORTHWHILE_BYTES

NORMAL = SAMPLES / "normal-1000.pcap"
ROOT = SAMPLES.parent
GORILLA = "read: websocket: close 1006 (abnormal closure): unexpected EOF"
LOG = f"""\
2026/11/21 10:00:00 listening
2026/11/21 10:00:01 {GORILLA}
2026/11/21 10:00:05 read: websocket: close 4001: kicked
2026-11-21T10:00:09.5Z {{"event": "websocket closed", "wsCloseCode": 1006}}
"""


def wsclose(*arguments, data=None, environment=None, cwd=None, timeout=60):
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "analyzer", *map(str, arguments)],
        input=data,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        cwd=cwd,
        timeout=timeout,
    )


def start(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "analyzer", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **more,
    )


def lines(done):
    return done.stderr.decode().strip().splitlines()


def rows_of(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "server.log"
    path.write_text(LOG)
    return path


# ---- one log


def test_report_on_a_log_fits_80_columns_and_names_lines(log):
    done = wsclose("report", log.name, environment={"COLUMNS": "80"}, cwd=log.parent)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"[ \t]$", text, re.MULTILINE)
    for place in ("server.log, line 2", "server.log, line 3", "server.log, line 4"):
        assert place in text
    assert "packet" not in text
    assert "1006 Abnormal Closure (synthesized" in text
    assert "1006 Abnormal Closure (inferred" in text
    assert 'Reason: "kicked"' in text
    assert "gorilla" in text
    assert "The times of 1 log name no time zone: UTC was assumed (--tz names another)." in " ".join(text.split())


def test_a_log_whose_times_name_their_zone_assumes_nothing(tmp_path):
    (tmp_path / "a.log").write_text(f"2026-11-21T10:00:01Z {GORILLA}\n")
    assert b"assumed" not in wsclose("report", tmp_path / "a.log").stdout


def test_report_as_json_is_valid_and_says_what_was_assumed(log):
    document = json.loads(wsclose("report", log, NORMAL, "--format", "json").stdout)
    jsonschema.validate(document, json.loads((ROOT / "docs" / "report.schema.json").read_text()))
    (assumed,) = document["assumed"]
    assert (assumed["what"], assumed["value"], assumed["inputs"]) == ("zone", "UTC", 1)
    counted = {
        (row["code"], row["provenance"]): row["count"]
        for row in document["frequencies"]
        if row["endpoint"] == "unknown"
    }
    assert counted == {(1006, "synthesized"): 1, (1006, "inferred"): 1, (4001, "reported"): 1}
    assert {(row["system"], row["count"]) for row in document["systems"]} >= {("gorilla", 2)}


def test_rows_of_a_log_as_json_lines_and_csv(log):
    rows = rows_of(wsclose("closes", log, "--format", "jsonl"))
    assert [list(row) for row in rows] == [[column.name for column in CLOSES]] * 3
    got = [(row["record"], row["time"], row["code"], row["provenance"], row["system"]) for row in rows]
    assert got == [
        (2, "2026-11-21T10:00:01.000000000Z", 1006, "synthesized", "gorilla"),
        (3, "2026-11-21T10:00:05.000000000Z", 4001, "reported", "gorilla"),
        (4, "2026-11-21T10:00:09.500000000Z", 1006, "inferred", None),
    ]
    table = list(csv.DictReader(io.StringIO(wsclose("closes", log, "--format", "csv").stdout.decode())))
    assert [(cells["record"], cells["code"], cells["reason"], cells["lines"]) for cells in table] == [
        ("2", "1006", "unexpected EOF", "1"),
        ("3", "4001", "kicked", "1"),
        ("4", "1006", "", "1"),
    ]
    assert re.search(rb"4001 reported .*gorilla \(.*server\.log, line 3\)\n", wsclose("closes", log).stdout)


def test_a_time_zone(log):
    for name, hour in (("Europe/Vienna", "09"), ("utc", "10"), ("Asia/Kolkata", "04:30")):
        rows = rows_of(wsclose("closes", log, "--tz", name, "--format", "jsonl"))
        assert rows[0]["time"].startswith(f"2026-11-21T{hour}")
        assert rows[2]["time"] == "2026-11-21T10:00:09.500000000Z"
    assert "Europe/Vienna was assumed" in " ".join(
        wsclose("report", log, "--tz", "Europe/Vienna").stdout.decode().split()
    )


@pytest.mark.parametrize("name", ["Nowhere/City", "../../etc/passwd", "Europe", "", "/etc/localtime"])
def test_a_time_zone_that_is_none_is_one_line_and_exit_2(name, log):
    done = wsclose("closes", log, "--tz", name)
    assert (done.returncode, done.stdout) == (2, b"")
    assert lines(done) == [f"wsclose: {name}: no such time zone; name one like Europe/Vienna"]


def test_dedupe_can_be_left_out(tmp_path):
    path = tmp_path / "x.log"
    path.write_text(
        "2026-11-21 10:00:00 ERROR failed\nTraceback (most recent call last):\n  File x\n"
        + f"gorilla.Error: {GORILLA}\n  File y\ngorilla.Error: {GORILLA}\n2026-11-21 10:00:01 x\n"
    )
    assert [row["lines"] for row in rows_of(wsclose("closes", path, "--format", "jsonl"))] == [2]
    apart = rows_of(wsclose("closes", path, "--format", "jsonl", "--no-dedupe"))
    assert [(row["lines"], row["record"]) for row in apart] == [(1, 4), (1, 6)]


def test_a_log_without_closes(tmp_path):
    (tmp_path / "x.log").write_text("nothing\n")
    done = wsclose("report", tmp_path / "x.log")
    assert done.returncode == 0
    assert b"No WebSocket close was found." in done.stdout
    (tmp_path / "empty.log").touch()
    assert wsclose("report", tmp_path / "empty.log", tmp_path / "x.log").returncode in (0, 4)


def test_a_line_too_long_exits_4(tmp_path):
    path = tmp_path / "x.log"
    path.write_text(f"{'x' * (24 << 20)}\n{GORILLA}\n")
    done = wsclose("closes", path)
    assert (done.returncode, done.stdout.count(b"\n")) == (4, 1)
    assert lines(done) == [f"wsclose: {path}: ok: 1 long lines cut by a limit"]


def test_hostile_text_in_a_log_reaches_no_terminal(tmp_path):
    path = tmp_path / "x.log"
    path.write_bytes(b"read: websocket: close 4001: \x1b]0;owned\x07\x1b[2J=cmd \xe2\x80\xae evil \xff\n")
    for form in (["report"], ["closes"], ["report", "--format", "markdown"], ["closes", "--format", "csv"]):
        done = wsclose(*form, path)
        assert done.returncode == 0
        assert b"\x1b" not in done.stdout
        assert "\u202e" not in done.stdout.decode()


# ---- formats

MINE = """
id = "mine"
title = "My own server"
source = "https://example.org/server"
rule = "The number stood in the Close."
[pattern.gone]
find = ["MYWS gone "]
regex = "MYWS gone (?P<code>[0-9]{4})"
means = "received"
endpoint = "server"
[[sample]]
from = "https://example.org/log"
line = "MYWS gone 4001"
pattern = "gone"
expect = { code = 4001, provenance = "reported", received = "status", wire_code = 4001, endpoint = "server" }
[[reject]]
line = "MYWS gone fishing"
why = "no code"
"""


def test_formats_of_ones_own(tmp_path):
    directory = tmp_path / "formats"
    directory.mkdir()
    log = tmp_path / "x.log"
    log.write_text(f"MYWS gone 4007\n{GORILLA}\n")
    done = wsclose("closes", log, "--formats", directory)
    assert (done.returncode, lines(done)) == (2, [f"wsclose: {directory}: --formats: no .toml files in it"])
    (directory / "mine.toml").write_text(MINE)
    rows = rows_of(wsclose("closes", log, "--formats", directory, "--format", "jsonl"))
    assert [(row["code"], row["system"]) for row in rows] == [(4007, "mine"), (1006, "gorilla")]
    assert rows[0]["endpoint"] == "server"
    assert [row["code"] for row in rows_of(wsclose("closes", log, "--format", "jsonl"))] == [1006]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("means =", "meens ="), "pattern.gone.meens: is not known here"),
        (('means = "received"', 'means = "maybe"'), "pattern.gone.means: must be one of"),
        (('rule = "The number stood in the Close."', ""), "rule: is missing"),
        (("(?P<code>", "(?P<code>("), "pattern.gone.regex: "),
        (('["MYWS gone "]', '["my"]'), "find: 'my': it has to survive any wrapping"),
        (('id = "mine"', 'id = "gorilla"'), "id: 'gorilla' is taken by gorilla.toml"),
        (("[pattern.gone]", "[pattern.gone"), "file: no TOML: "),
    ],
)
def test_a_broken_format_is_one_line_and_exit_2(change, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(*change))
    (tmp_path / "x.log").write_text(f"{GORILLA}\n")
    done = wsclose("closes", tmp_path / "x.log", "--formats", tmp_path)
    assert (done.returncode, done.stdout, len(lines(done))) == (2, b"", 1)
    assert lines(done)[0].startswith(f"wsclose: {path}: {message}")
    if "taken" not in message:
        checked = wsclose("formats", "check", path)
        assert (checked.returncode, checked.stderr) == (2, b"")
        assert checked.stdout.decode().startswith(f"{path}: {message}")


def test_the_list_of_formats_names_each_with_its_rule():
    done = wsclose("formats", environment={"COLUMNS": "80"})
    text = done.stdout.decode()
    assert done.returncode == 0
    names = sorted(path.stem for path in (ROOT / "analyzer" / "logs" / "formats").glob("*.toml"))
    assert set(re.findall(r"^([a-z][a-z0-9_]+)  \S", text, re.MULTILINE)) == set(names)
    assert text.count("\n  rule ") == len(names)
    assert max(map(len, text.splitlines())) <= 120


def test_checking_formats(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    done = wsclose("formats", "check", path)
    assert (done.returncode, done.stdout.decode()) == (0, f"{path}: ok (1 patterns, 1 samples, 1 rejects)\n")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (('line = "MYWS gone 4001"', 'line = "MYWS gone away"'), ["matched up to here: 'MYWS gone '"]),
        (("code = 4001, p", "code = 4002, p"), ["sample[0]: code is 4001, expected 4002"]),
        ((', endpoint = "server" }', " }"), ["sample[0]: endpoint is 'server', expected None"]),
        (('line = "MYWS gone fishing"', 'line = "MYWS gone 4002"'), ["reject[0]: is taken for a close: {"]),
        (('from = "https://example.org/log"', 'from = "my head"'), ["no sample is from the wild or from a run"]),
        (("expect = {", "expct = {"), ["sample[0].expct: is not known here", "sample[0]: expect missing"]),
        (("[0-9]{4})", "([0-9]+)+[0-9]{4}x)"), ["every group needs a name"]),
    ],
)
def test_checking_says_what_is_wrong(change, messages, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(*change))
    done = wsclose("formats", "check", path)
    assert done.returncode == 2
    for message in messages:
        assert message in done.stdout.decode()
    assert all(line.startswith(f"{path}: ") for line in done.stdout.decode().splitlines())


@pytest.mark.parametrize(
    "regex",
    [
        "MYWS gone (?P<code>[0-9]{4})|[0-9 ]*[0-9 ]*[0-9 ]*y",
        "MYWS gone (?P<code>[0-9]{4})|(?:[0-9]+)+y",
    ],
)
def test_checking_finds_an_expression_that_runs_away(regex, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace("MYWS gone (?P<code>[0-9]{4})", regex))
    done = wsclose("formats", "check", path, timeout=10)
    assert done.returncode == 2
    assert re.search(r"mine\.gone: takes .* on a hostile line", done.stdout.decode())


# ---- standard input


def test_a_log_on_standard_input():
    for data in (LOG.encode(), gzip.compress(LOG.encode())):
        rows = rows_of(wsclose("closes", "-", "--format", "jsonl", data=data))
        assert [(row["source"], row["record"], row["code"]) for row in rows] == [
            ("-", 2, 1006),
            ("-", 3, 4001),
            ("-", 4, 1006),
        ]
    assert b"line 2" in wsclose("report", "-", data=LOG.encode()).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no select on pipes on Windows")
def test_rows_are_written_while_the_log_goes_on():
    process = start("closes", "-")
    try:
        process.stdin.write(f"2026-11-21T10:00:01Z {GORILLA}\n".encode())
        process.stdin.flush()
        begun = time.monotonic()
        ready, _, _ = select.select([process.stdout], [], [], 15)
        assert ready, "nothing came while standard input is open"
        line = process.stdout.readline()
        assert b"1006 synthesized" in line
        assert time.monotonic() - begun < 8  # two seconds of silence, the rest is the start of Python
        process.stdin.write(b"2026-11-21T10:00:11Z read: websocket: close 4001: later\n")
        process.stdin.close()
        assert b"4001 reported" in process.stdout.read()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


# ---- directories


def test_directories_with_logs(tmp_path):
    read = ["app.log", "app.log.1", "app.log.2.gz", "sub/syslog", "sub/access_log-20261121", "x.jsonl"]
    left = ["notes.txt", "README.md", "data.json", "rows.csv", "login.py"]
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(read):
        content = f"read: websocket: close {4000 + i}: x\n".encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for name in left:
        (tmp_path / name).write_text("read: websocket: close 4999: x\n")
    (tmp_path / "empty.log").touch()
    (tmp_path / "good.pcap").write_bytes(NORMAL.read_bytes())
    done = wsclose("closes", tmp_path, "--format", "jsonl")
    assert done.returncode == 0
    got = [(os.path.relpath(row["source"], tmp_path), row["code"]) for row in rows_of(done)]
    assert sorted(got) == sorted(
        [*((name, 4000 + i) for i, name in enumerate(read)), ("good.pcap", 1000), ("good.pcap", 1000)]
    )
    assert [row["code"] for row in rows_of(wsclose("closes", tmp_path / "notes.txt", "--format", "jsonl"))] == [4999]


def test_a_corrupt_file_among_many_is_named_and_exits_4(tmp_path):
    (tmp_path / "a.log").write_text(f"{GORILLA}\n")
    whole = gzip.compress(f"{GORILLA}\n".encode())
    (tmp_path / "b.log.gz").write_bytes(whole + gzip.compress(os.urandom(100_000))[:50_000] + b"\xff" * 1000)
    (tmp_path / "c.log").write_bytes(bytes(range(1, 32)) * 100)
    (tmp_path / "d.log").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "e.log").write_text(f"{GORILLA}\n")
    done = wsclose("closes", tmp_path, "--format", "jsonl")
    assert done.returncode == 4
    assert [Path(row["source"]).name for row in rows_of(done)] == ["a.log", "b.log.gz", "e.log"]
    messages = lines(done)
    assert len(messages) == 3
    assert re.match(rf"wsclose: {tmp_path}/b\.log\.gz: (damaged: the gzip data is damaged|cut: )", messages[0])
    assert messages[1].endswith("c.log: failed: neither a capture (pcap, pcapng) nor text")
    assert messages[2].endswith("d.log: failed: a zip file: unpack or export it first")
    done = wsclose("report", tmp_path / "c.log")
    assert (done.returncode, len(lines(done))) == (2, 1)


# ---- many files at once

N_FILES = 5


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Logs that are together worth processes of their own, of very different size, one of them damaged."""
    directory = tmp_path_factory.mktemp("many")
    noise = b"2026/11/21 10:00:00 GET /a/b/c HTTP/1.1 200 and nothing to be said of it\n" * 60_000
    for i in range(N_FILES):
        parts = []
        for j in range(40):
            parts += [noise[: len(noise) * (N_FILES - i) // 76], f"2026/11/21 10:{j:02}:{i:02} {GORILLA}\n".encode()]
            parts += [f"2026/11/21 10:{j:02}:{i:02} read: websocket: close {4000 + j}: f{i}\n".encode()]
        (directory / f"{i}.log").write_bytes(b"".join(parts))
    (directory / "1.log.gz").write_bytes(gzip.compress(f"{GORILLA}\n".encode()) + b"garbage behind it")
    (directory / "z.pcap").write_bytes(NORMAL.read_bytes())
    assert sum(path.stat().st_size for path in directory.iterdir()) >= WORTHWHILE_BYTES
    return directory


def test_processes_give_the_same_rows_in_the_same_order(many):
    alone, together = (wsclose("closes", many, "--format", "csv", "--jobs", n) for n in (1, 2))
    assert alone.returncode == together.returncode == 4
    assert alone.stdout == together.stdout
    assert alone.stderr == together.stderr
    rows = list(csv.DictReader(io.StringIO(together.stdout.decode())))
    assert len(rows) == N_FILES * 80 + 1 + 2
    names = [Path(row["source"]).name for row in rows]
    assert names == sorted(names)


def test_processes_give_the_same_report(many):
    alone, together = (wsclose("report", many, "--format", "json", "--jobs", n) for n in (1, 2))
    assert alone.stdout == together.stdout
    counted = {
        row["code"]: row["count"] for row in json.loads(alone.stdout)["frequencies"] if row["endpoint"] == "unknown"
    }
    assert counted[1006] == N_FILES * 40 + 1
    assert counted[4007] == N_FILES


def children(pid):
    """Processes that descend from one, by what the system says."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(entry.name), *children(int(entry.name))]
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _write_quietly(path, content):
    with contextlib.suppress(OSError), path.open("wb") as pipe:
        pipe.write(content)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_among_many_files_is_read_once(many, tmp_path):
    """As the shell makes them: wsclose closes <(kubectl logs POD) logs/."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=_write_quietly, args=(tmp_path / "pipe", LOG.encode()), daemon=True)
    writer.start()
    process = start("closes", "--jobs", "2", "--format", "jsonl", tmp_path / "pipe", many, start_new_session=True)
    try:
        out, _ = process.communicate(timeout=15)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        os.close(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK))  # lets a writer go that nobody read
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["record"], row["code"]) for row in rows[:3]] == [(2, 1006), (3, 4001), (4, 1006)]
    assert len(rows) == 3 + N_FILES * 80 + 1 + 2


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at processes in /proc")
@pytest.mark.parametrize("command", ["report", "closes"])
def test_an_interrupt_ends_all_processes_and_exits_130(command, many, tmp_path):
    endless = gzip.compress(f"2026/11/21 10:00:00 {GORILLA}\n".encode() * 100_000, 1) * 50
    for name in ("0.log.gz", "1.log.gz"):
        (tmp_path / name).write_bytes(endless)
    process = start(command, "--jobs", "2", many, tmp_path, start_new_session=True)
    below = []
    try:
        deadline = time.monotonic() + 20
        while len(below) < 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
            below = children(process.pid)
        time.sleep(1.5)
        below += children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert len(below) >= 2
        assert process.returncode == 130
        assert b"Traceback" not in err
        deadline = time.monotonic() + 5
        while any(map(is_running, below)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [pid for pid in below if is_running(pid)]
        if command == "report":
            assert b"Interrupted" in out
        else:
            assert b"interrupted; what was found so far is written" in err
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
