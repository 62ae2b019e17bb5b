"""Watching an interface: rows come as connections end, from real servers on loopback."""

import asyncio
import contextlib
import csv
import io
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import websockets.asyncio.client
import websockets.asyncio.server
from conftest import SAMPLES

ROOT = SAMPLES.parent


def why_not():
    """Why this process cannot capture on loopback, None where it can."""
    if sys.platform != "linux":
        return "captures through Linux packet sockets"
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as error:
        return f"no right to capture: {error}"
    return None


can_capture = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


class Watching:
    """`wsclose live` in a process, its lines with the instant at which they came."""

    def __init__(self, *arguments, prefix=(), interface="lo"):
        command = [*prefix, sys.executable, "-m", "analyzer", "live", "-i", interface, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
        self.lines = queue.Queue()
        self.said = []
        threading.Thread(target=self._read, daemon=True).start()
        for line in self.process.stderr:
            self.said.append(line.strip())
            break

    @classmethod
    def filtered(cls, receiver):
        """Watch what is sent to this socket alone, for two seconds."""
        receiver.bind(("127.0.0.1", 0))
        watching = cls("--duration", "2", "--filter", f"udp port {receiver.getsockname()[1]}")
        if "libpcap" in watching.said[0]:
            watching.__exit__()
            pytest.skip("libpcap is not installed: filters cannot be tried")
        return watching

    def _read(self):
        for line in self.process.stdout:
            self.lines.put((time.time(), line.rstrip("\n")))

    def take(self, timeout=10):
        return self.lines.get(timeout=timeout)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        self.said += self.process.stderr.read().splitlines()
        code = self.process.wait(20)
        self.process.stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


@contextlib.asynccontextmanager
async def serving(code, reason):
    """A server that closes with this code once it was sent something; gives its port."""

    async def answer(connection):
        await connection.recv()
        await connection.close(code, reason)

    async with websockets.asyncio.server.serve(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def be_closed(port, path=""):
    async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{port}/{path}") as connection:
        await connection.send("please")
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            await connection.recv()
    return connection.close_code, connection.close_reason


def test_there_are_interfaces_to_list():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "analyzer", "live"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "wsclose: name one with -i\n")
    assert {line.split()[0] for line in done.stdout.splitlines()} <= {name for _, name in socket.if_nameindex()}
    assert any(line.split()[:2] == ["lo", "127.0.0.1"] for line in done.stdout.splitlines())


@can_capture
def test_rows_come_within_three_seconds_though_nothing_else_is_sent():
    async def talk():
        async with serving(4321, "enough") as port:
            return port, await be_closed(port, "live")

    with Watching("--format", "jsonl", "--host", "127.0.0.1:*") as watching:
        assert watching.said == ["wsclose: watching lo; Ctrl-C ends"]
        port, api = asyncio.run(talk())
        ended = time.time()
        came = [watching.take() for _ in range(2)]
        rows = {row["endpoint"]: row for row in (json.loads(line) for _, line in came)}
        assert api == (4321, "enough")
        assert {end: row["code"] for end, row in rows.items()} == {"client": 4321, "server": 4321}
        assert {row["reason"] for row in rows.values()} == {"enough"}
        assert {(row["source"], row["path"], row["initiator"]) for row in rows.values()} == {("lo", "/live", "server")}
        assert {row["server"] for row in rows.values()} == {f"127.0.0.1:{port}"}
        assert max(moment for moment, _ in came) - ended < 3
        assert watching.stop() == 130
        assert watching.said[-1].startswith("wsclose: lo: ")
        assert watching.said[-1].endswith("2 closes written, 0 connections still open")


@can_capture
def test_a_file_has_each_row_at_once(tmp_path):
    async def talk():
        async with serving(1001, "") as port:
            await be_closed(port, "file")

    path = tmp_path / "closes.csv"
    with Watching("-o", path, "--duration", "6") as watching:
        assert path.read_text().startswith("source,record,time,")
        asyncio.run(talk())
        time.sleep(3)
        assert watching.process.poll() is None
        rows = [row for row in csv.DictReader(io.StringIO(path.read_text())) if row["path"] == "/file"]
        assert [row["code"] for row in rows] == ["1001", "1001"]
        assert watching.wait() == 0


@can_capture
def test_loopback_shows_each_packet_once():
    """It hands each packet to listeners twice, as it leaves and as it arrives, unless they ask it not to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, Watching.filtered(receiver) as watching:
        for _ in range(50):
            receiver.sendto(b"x", receiver.getsockname())
        assert watching.wait() == 0
        assert watching.said[-1].startswith("wsclose: lo: 50 packets in ")


@can_capture
def test_what_is_merely_open_at_the_end_is_counted_and_no_row():
    async def talk(watching):
        async with serving(1000, "") as port, websockets.asyncio.client.connect(f"ws://127.0.0.1:{port}/"):
            await asyncio.sleep(0.5)
            return watching.stop(signal.SIGTERM)

    with Watching() as watching:
        assert asyncio.run(talk(watching)) == 130
        assert watching.lines.empty()
        assert watching.said[-1].endswith("0 closes written, 1 connections still open")


@can_capture
def test_it_ends_by_itself_after_so_many_rows():
    async def talk():
        async with serving(1000, "") as port:
            for _ in range(3):
                await be_closed(port)

    with Watching("--count", "3", "--format", "csv", "--code", "1000") as watching:
        asyncio.run(talk())
        assert watching.wait() == 0
        lines = [watching.take()[1] for _ in range(4)]
        assert lines[0].startswith("source,record,time,")
        assert [line.split(",")[5] for line in lines[1:]] == ["1000"] * 3
        with pytest.raises(queue.Empty):
            watching.take(timeout=0.2)


@can_capture
def test_a_quiet_interface_ends_when_its_time_is_over():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, Watching.filtered(receiver) as watching:
        assert watching.wait() == 0
        assert watching.said[-1].startswith("wsclose: lo: 0 packets in 2.")


@can_capture
@pytest.mark.parametrize(
    ("arguments", "interface", "message"),
    [
        ((), "nonsense0", r"nonsense0: .*; interfaces: .*\blo\b"),
        (("--filter", "such is no filter"), "lo", r"--filter( 'such is no filter':| needs libpcap).*"),
        (("-o", "closes.html"), "lo", r"closes.html: no format goes with this suffix.*"),
        (("-o", "/nonexistent/closes.csv"), "lo", r"/nonexistent/closes.csv: no such file or directory"),
    ],
)
def test_errors_are_one_line_and_exit_2(arguments, interface, message):
    with Watching(*arguments, interface=interface) as watching:
        assert watching.wait() == 2
        assert len(watching.said) == 1, watching.said
        assert re.fullmatch(f"wsclose: {message}", watching.said[0]), watching.said


def apart():
    """Command that runs another with a loopback interface of its own, which may go down."""
    command = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("nsenter") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no right, or no tool, to make a network of its own")
    return command


@can_capture
def test_an_interface_that_goes_down_ends_it():
    with Watching(prefix=apart()) as watching:
        time.sleep(0.5)
        where = ["nsenter", "-t", str(watching.process.pid), "-n"]
        subprocess.run([*where, "ip", "link", "set", "lo", "down"], check=True)
        assert watching.wait() == 4
        assert watching.said[1].endswith("0 closes written, 0 connections still open")
        assert watching.said[2:] == ["wsclose: lo: network is down"]


@can_capture
def test_several_interfaces_are_watched_at_once():
    found = Path("/sys/class/net").iterdir()
    others = sorted(one.name for one in found if (one / "operstate").read_text() == "up\n" and one.name != "lo")
    if not others:
        pytest.skip("there is no interface but loopback")
    with Watching("-i", others[0], "--format", "jsonl", "--code", "4444") as watching:
        asyncio.run(ask())
        rows = [json.loads(watching.take()[1]) for _ in range(2)]
        assert {row["source"] for row in rows} == {f"lo+{others[0]}"}
        assert watching.stop() == 130


@can_capture
def test_any_is_all_that_are_up():
    with Watching(interface="any") as watching:
        assert watching.said == ["wsclose: watching any; Ctrl-C ends"]
        asyncio.run(ask())
        assert " 4444 wire " in watching.take()[1]
        assert watching.stop() == 130


async def ask():
    async with serving(4444, "") as port:
        await be_closed(port)


@can_capture
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes root, to give rights up")
def test_without_the_right_it_says_what_to_do():
    prefix = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    with Watching(prefix=prefix) as watching:
        assert watching.wait() == 2
        (line,) = watching.said
        assert line.startswith(
            "wsclose: lo: no right to capture; run as root, or give this Python the right to: setcap"
        )
