"""wsclose beside tshark on the same captures, in one run: `python benchmarks/against_tshark.py [--kind chatty]`.

Prints for each program the time and peak memory of whole processes at two sizes, the slope (what one more packet costs,
start-up taken out), and the ratios. Both count the Close codes that servers received; the counts must agree. Runs take
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
THEIRS = ["tshark", "-Y", "websocket.opcode==8 && tcp.dstport==80", "-T", "fields"]
THEIRS += ["-e", "websocket.payload.close.status_code", "-r"]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=make_capture.KINDS, default="chatty")
    parser.add_argument("--sizes", type=int, nargs=2, default=[1_000_000, 3_000_000], metavar="PACKETS", help="ours")
    parser.add_argument("--tshark-sizes", type=int, nargs=2, default=[250_000, 1_000_000], metavar="PACKETS")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sizes = sorted({*arguments.sizes, *arguments.tshark_sizes})
    with tempfile.TemporaryDirectory() as directory:
        captures = {}
        for n in sizes:
            captures[n] = Path(directory, f"{arguments.kind}-{n}.pcap")
            make_capture.write(captures[n], arguments.kind, n)
            run(["cksum", str(captures[n])])  # into the page cache, by another: a child's peak begins with its parent's
        run([*OURS, str(captures[sizes[-1]])])  # compiles where nothing is cached yet
        best: dict[tuple[str, int], tuple[float, int]] = {}
        for round_number in range(arguments.rounds):
            for name, command, wanted in (("wsclose", OURS, sizes), ("tshark", THEIRS, arguments.tshark_sizes)):
                if name == "tshark" and round_number:
                    continue  # minutes a round, and steady
                outputs = {}
                for n in wanted:
                    seconds, peak, outputs[n] = run([*command, str(captures[n])])
                    old = best.get((name, n), (seconds, peak))
                    best[name, n] = min(old[0], seconds), max(old[1], peak)
                if name == "tshark":
                    theirs = {n: codes_of_theirs(text) for n, text in outputs.items()}
                else:
                    ours = {n: codes_of_ours(text) for n, text in outputs.items()}
    for n in arguments.tshark_sizes:
        # a Close that was cut off by the end of the capture is on the wire for both
        if ours[n] != theirs[n]:
            print(f"counts differ at {n}: wsclose {sorted(ours[n].items())}, tshark {sorted(theirs[n].items())}")
    print(f"{arguments.kind}, {os.cpu_count()} cores")
    print(f"{'':10}{'packets':>12}{'seconds':>10}{'peak MB':>10}")
    for (name, n), (seconds, peak) in sorted(best.items()):
        print(f"{name:10}{n:>12,}{seconds:>10.2f}{peak / 1e6:>10.0f}")
    slopes = {}
    for name, (few, many) in (("wsclose", arguments.sizes), ("tshark", arguments.tshark_sizes)):
        slopes[name] = (best[name, many][0] - best[name, few][0]) / (many - few)
        print(
            f"{name:10} one more packet costs {slopes[name] * 1e6:.3f} us: {1e-6 / slopes[name]:.3f} million a second"
        )
    print(f"slope: {slopes['tshark'] / slopes['wsclose']:.1f} times tshark's")
    n = arguments.tshark_sizes[1]
    whole = best["tshark", n][0] / best["wsclose", n][0]
    memory = best["wsclose", n][1] / best["tshark", n][1]
    print(f"whole process at {n:,} packets: {whole:.1f} times as fast, {memory:.2f} of the memory")


if __name__ == "__main__":
    main()
