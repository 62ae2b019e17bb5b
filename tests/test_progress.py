"""How far reading is, on a terminal of our own; and nothing where nobody would see it."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest
from packets import CLIENT, SERVER, Conversation, pcap

from analyzer import progress, sources
from analyzer.sources import Source

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudoterminals")

IMPATIENT = (
    "import sys\nfrom analyzer import progress\nprogress.PATIENCE_S = progress.EVERY_S = 0.0\n"
    "from analyzer.cli import main\nmain(sys.argv[1:])"
)


class Terminal:
    """A program whose standard error is a terminal of this width."""

    def __init__(self, *arguments, width=80, patient=False, stdin=subprocess.DEVNULL, is_all=False, **environment):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        script = ["-m", "analyzer"] if patient else ["-c", IMPATIENT]
        self.process = subprocess.Popen(
            [sys.executable, *script, *map(str, arguments)],
            stdin=stdin,
            stdout=theirs if is_all else subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", **environment},
        )
        os.close(theirs)
        self._ours = ours
        self.shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self._ours, 4096)
            except OSError:
                return
            if not data:
                return
            self.shown += data

    def wait(self):
        out = self.process.stdout.read() if self.process.stdout else b""
        code = self.process.wait(timeout=60)
        self._reader.join(timeout=10)
        os.close(self._ours)
        if self.process.stdout:
            self.process.stdout.close()
        return code, out, self.shown.decode()


def screen(shown, width):
    """What stands on the terminal in the end, and every line that ever stood there."""
    lines, row, column, seen = [""], 0, 0, []
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", shown):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif token.startswith("\x1b["):
            n = int(re.sub(r"\D", "", token) or 0)
            if token.endswith("A"):
                row = max(0, row - max(1, n))
            elif token.endswith("K"):
                lines[row] = "" if n == 2 else lines[row][:column]
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
            seen.append(lines[row].rstrip())
            assert len(lines[row].rstrip()) <= width, lines[row]
    return "\n".join(lines).strip(), seen


def written(folder, n=3, *, name="x{}.pcap", size=300):
    folder.mkdir(exist_ok=True)
    for i in range(n):
        talk = Conversation(sport=40_000 + i).upgrade()
        for _ in range(size):
            talk.text(SERVER, "x" * 200)
        talk.close(CLIENT, 1000)
        (folder / name.format(i)).write_bytes(pcap(talk.packets))
    return folder


@pytest.mark.parametrize("width", [80, 200, 40, 20, 5])
def test_a_bar_with_rate_and_time_left_that_goes(width, tmp_path):
    folder = written(tmp_path / "in", 6)
    code, out, shown = Terminal("closes", folder, "--format", "csv", width=width).wait()
    assert code == 0
    assert out.count(b"\n") == 13
    left, seen = screen(shown, width)
    assert left == ""
    assert len(seen) > 6
    if width >= 80:
        text = "\n".join(seen)
        assert re.search(r"file 4 of 6: .*x3\.pcap +\S* +\d+ %", text)
        assert re.search(r"\d+\.\d MB/s \d:\d\d left", text)
        assert "━" in text


def test_names_stay_above_the_bar_where_asked(tmp_path):
    folder = written(tmp_path / "in", 4)
    code, _, shown = Terminal("closes", folder, "--verbose", "-o", tmp_path / "o.csv").wait()
    assert code == 0
    left, _ = screen(shown.replace("\r\n", "\n\r"), 500)
    assert left.split() == [word for i in range(4) for word in ("wsclose:", "reading", f"{folder}/x{i}.pcap")]


def test_hostile_names_move_nothing(tmp_path):
    folder = written(tmp_path / "in", 2, name="\x1b[2J[red]{}\x07\u202e.pcap")
    code, _, shown = Terminal("closes", folder, "--verbose", "-o", tmp_path / "o.csv", width=200).wait()
    assert code == 0
    assert "\\x1b[2J[red]1\\x07\\u{202e}.pcap" in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(("options", "environment"), [(["--quiet"], {}), ([], {"TERM": "dumb"})], ids=["quiet", "dumb"])
def test_nothing_where_it_is_not_wanted(options, environment, tmp_path):
    folder = written(tmp_path / "in")
    assert Terminal("closes", folder, "--format", "csv", *options, **environment).wait()[2] == ""


def test_a_report_on_the_same_terminal_stands_alone_in_the_end(tmp_path):
    folder = written(tmp_path / "in")
    code, _, shown = Terminal("report", folder, is_all=True).wait()
    left, seen = screen(shown.replace("\r\n", "\n\r"), 500)
    assert code == 0
    assert left.startswith("3 WebSocket connections in")
    assert "MB/s" in "".join(seen)
    assert "MB/s" not in left


def test_rows_on_the_same_terminal_are_progress_enough(tmp_path):
    folder = written(tmp_path / "in")
    code, _, shown = Terminal("closes", folder, "--verbose", is_all=True).wait()
    assert code == 0
    assert "\x1b[" not in shown.replace("\x1b[0m", "").replace("\x1b[1m", "")
    assert shown.count("wsclose: reading") == 3


def test_nothing_for_what_is_read_at_once(tmp_path):
    folder = written(tmp_path / "in")
    assert Terminal("closes", folder, "--format", "csv", patient=True).wait()[2] == ""


def test_nothing_in_a_pipe(tmp_path):
    command = [sys.executable, "-c", IMPATIENT, "closes", written(tmp_path / "in"), "--format", "csv"]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""


def test_a_pipe_shows_what_came(tmp_path):
    content = (written(tmp_path / "in", 1, size=9_000) / "x0.pcap").read_bytes()
    terminal = Terminal("closes", "-", "--format", "csv", stdin=subprocess.PIPE)
    for off in range(0, len(content), 1 << 18):
        terminal.process.stdin.write(content[off : off + (1 << 18)])
        terminal.process.stdin.flush()
        time.sleep(0.02)
    terminal.process.stdin.close()
    code, _, shown = terminal.wait()
    left, seen = screen(shown, 80)
    assert (code, left) == (0, "")
    assert re.search(r"- +2 MB \d+\.\d MB/s", "\n".join(seen))
    assert "%" not in shown


def test_rich_is_imported_once_it_is_shown(tmp_path):
    script = (
        "import sys\nfrom analyzer import progress\nprogress.PATIENCE_S = 1e9\nfrom analyzer.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    print('rich' in sys.modules, file=sys.stdout)"
    )
    folder = written(tmp_path / "in")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", script, "closes", folder, "-o", tmp_path / "o.csv"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(ours)
    os.close(theirs)
    assert done.stdout == b"False\n"


def test_an_interrupted_series_reports_what_was_read(tmp_path):
    """The second file is never read to its end; what is open is told, the bar goes, the exit code is 130."""
    folder = written(tmp_path / "in", 1, name="x.pcap")
    later = Conversation(sport=41_000, ts_ns=1_700_000_001_000_000_000)
    later.upgrade()
    for _ in range(60_000):
        later.text(SERVER)
    (folder / "x.pcap1").write_bytes(later.pcap())
    terminal = Terminal("report", folder, "--format", "json")
    deadline = time.monotonic() + 30
    while b"file 2 of 2" not in terminal.shown and time.monotonic() < deadline:
        time.sleep(0.01)
    terminal.process.send_signal(signal.SIGINT)
    code, out, shown = terminal.wait()
    assert code == 130
    assert screen(shown, 80)[0] == ""
    import json

    document = json.loads(out)
    assert document["partial"] is True
    assert (document["inputs"], document["connections"]) == (2, 2)
    assert [(row["source"], row["status"]) for row in document["troubled"]] == [
        (str(folder / "x.pcap1"), "interrupted")
    ]


def test_sizes_add(tmp_path, monkeypatch):
    folder = written(tmp_path / "in", 2)
    found = sources.find_sources([folder])
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert sources.total_bytes(found) == size
    assert sources.total_bytes([*found, Source("-", None)]) is None
    read = progress._Read()
    assert [read.tell("a", 10, 40), read.tell("a", 30, 40), read.tell("b", 5, 9), read.tell("b", 9, 9)] == [
        10,
        30,
        45,
        49,
    ]
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    silent = progress.TextProgress(2, shows=False, n_bytes=3)
    silent.tell("a", 1, 2)
    silent.close()
    assert sys.stderr.getvalue() == ""


def test_telling_costs_little(monkeypatch):
    """Asked after every chunk: 20 us at most, though it is shown five times a second."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    told = progress.TextProgress(1, shows=True, n_bytes=10**9)
    started = time.process_time()
    for i in range(20_000):
        told.tell("a", i, 10**9)
    assert time.process_time() - started < 0.4
    told.close()
