"""wsclose beside tshark on the same captures, in one run: `python benchmarks/against_tshark.py`.

Prints for each program and form of capture (`--forms pcap pcapng vxlan gzip zstd`) the time and peak memory of whole
processes at two sizes, the slope (what one more packet costs, start-up taken out), and the ratios; beside them what
`cat`, or the unpacker, takes alone. Both count the Close codes that servers received; the counts must agree. Runs take
turns, the best of several is taken: the machine is noisy.
"""

import argparse
import collections
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import make_capture

OURS = [sys.executable, "-m", "analyzer", "report", "--format", "csv"]
THEIRS = ["tshark", "-Y", "websocket.opcode==8 && (tcp.dstport==80 || tcp.dstport==443)", "-T", "fields"]
THEIRS += ["-e", "websocket.payload.close.status_code"]
PACKED = ("gzip", "zstd")
ROOT = Path(__file__).resolve().parent.parent


def run(command: list[str]) -> tuple[float, int, str]:
    """(seconds, peak bytes, standard output) of one process and its children."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(f"{' '.join(command)} exited with {process.returncode}")
        out.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024
        return seconds, usage.ru_maxrss * unit, out.read()


def codes_of_ours(text: str) -> collections.Counter[str]:
    """Codes that servers received on the wire, and 1005 for an empty Close."""
    counts: collections.Counter[str] = collections.Counter()
    for row in csv.DictReader(text.splitlines()):
        if row["endpoint"] == "server" and row["initiator"] == "client" and row["code"] != "1006":
            counts[row["code"]] += int(row["count"])
    return counts


def codes_of_theirs(text: str) -> collections.Counter[str]:
    return collections.Counter(line.strip() or "1005" for line in text.split("\n")[:-1])


def read_once(path: Path) -> float:
    """Seconds that `cat FILE >/dev/null` takes."""
    start = time.perf_counter()
    with Path(os.devnull).open("w") as nothing:
        # the shell's redirection; cat copies through its own buffer
        subprocess.run(["cat", str(path)], stdout=nothing, check=True)
    return time.perf_counter() - start


def unpack_once(path: Path, form: str) -> float:
    """Seconds that the usual program takes to unpack the file into nothing."""
    start = time.perf_counter()
    subprocess.run([form, "-dcqf", str(path)], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


class Runs:
    """Times and peaks of one form of capture at some sizes, the best of several rounds."""

    def __init__(self, arguments: argparse.Namespace, form: str, directory: Path) -> None:
        self.form = form
        self.ours, self.theirs = arguments.sizes, arguments.tshark_sizes
        self.best: dict[tuple[str, int], tuple[float, int]] = {}
        self.captures = {}
        for n in sorted({*self.ours, *self.theirs}):
            self.captures[n] = directory / f"{arguments.kind}-{n}.{form}"
            make_capture.write(self.captures[n], arguments.kind, n, form)
            run(["cksum", str(self.captures[n])])  # into the page cache, by another: a child's peak is its parent's
        run(self._command("wsclose", max(self.ours)))  # compiles where nothing is cached yet
        for round_number in range(arguments.rounds):
            ours = {n: codes_of_ours(self._time("wsclose", n)) for n in sorted({*self.ours, *self.theirs})}
            if round_number == 0:  # minutes a round, and steady
                theirs = {n: codes_of_theirs(self._time("tshark", n)) for n in self.theirs}
        for n in self.theirs:
            if ours[n] != theirs[n]:
                sys.exit(f"{form}: counts differ at {n}: {sorted(ours[n].items())} and {sorted(theirs[n].items())}")

    def _command(self, name: str, n: int) -> list[str]:
        path = str(self.captures[n])
        keys = f"{path}.keys"
        has_keys = Path(keys).exists()
        if name == "wsclose":
            return [*OURS, *(["--keys", keys] if has_keys else []), path]
        return [*THEIRS, *(["-o", f"tls.keylog_file:{keys}"] if has_keys else []), "-r", path]

    def _time(self, name: str, n: int) -> str:
        seconds, peak, output = run(self._command(name, n))
        old = self.best.get((name, n), (seconds, peak))
        self.best[name, n] = min(old[0], seconds), max(old[1], peak)
        return output

    def slope(self, name: str) -> float:
        """Seconds that one more packet takes."""
        few, many = self.ours if name == "wsclose" else self.theirs
        return (self.best[name, many][0] - self.best[name, few][0]) / (many - few)

    def print(self) -> None:
        """The table of this form."""
        print(f"\n{self.form}\n{'':10}{'packets':>12}{'seconds':>10}{'peak MB':>10}")
        for (name, n), (seconds, peak) in sorted(self.best.items()):
            print(f"{name:10}{n:>12,}{seconds:>10.2f}{peak / 1e6:>10.0f}")
        for name in ("wsclose", "tshark"):
            print(f"{name:10} one more packet costs {self.slope(name) * 1e6:.3f} us")
        print(f"slope: {self.slope('tshark') / self.slope('wsclose'):.1f} times tshark's")
        n = max(self.theirs)
        whole = self.best["tshark", n][0] / self.best["wsclose", n][0]
        memory = self.best["wsclose", n][1] / self.best["tshark", n][1]
        print(f"whole process at {n:,} packets: {whole:.1f} times as fast, {memory:.2f} of the memory")
        few, many = self.ours
        size = self.captures[many].stat().st_size - self.captures[few].stat().st_size
        seconds = self.slope("wsclose") * (many - few)
        if self.form in PACKED:
            alone = min(unpack_once(self.captures[many], self.form) for _ in range(3))
            alone -= min(unpack_once(self.captures[few], self.form) for _ in range(3))
            print(f"{self.form} alone unpacks as much in {alone:.2f} s, wsclose in {seconds:.2f} s")
        else:
            alone = min(read_once(self.captures[many]) for _ in range(5))
            print(f"wsclose reads {size / seconds / 1e9:.2f} GB/s more, cat {size / alone / 1e9:.2f} GB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=make_capture.KINDS, default="chatty")
    parser.add_argument("--forms", choices=make_capture.FORMS, nargs="+", default=["pcap"], metavar="FORM")
    parser.add_argument("--sizes", type=int, nargs=2, default=[1_000_000, 3_000_000], metavar="PACKETS", help="ours")
    parser.add_argument("--tshark-sizes", type=int, nargs=2, default=[250_000, 1_000_000], metavar="PACKETS")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{arguments.kind}, {os.cpu_count()} cores")
    for form in arguments.forms:
        with tempfile.TemporaryDirectory() as directory:
            Runs(arguments, form, Path(directory)).print()


if __name__ == "__main__":
    main()
