"""Compare reading a log with ripgrep (and GoAccess, where it is installed), both sides in one run, page cache warm.

    python benchmarks/against_ripgrep.py LOG DENSE_LOG

LOG is `make_log.py LOG 500 0.01`, DENSE_LOG is `make_log.py DENSE 100 1 --plain`. ripgrep gets the same literals, one a
line. Printed are seconds (best of 3), ratios, closes a second and peak memory.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from analyzer.logs import catalogue
from analyzer.logs.scan import Scanner

CHUNK_BYTES = 1 << 21


def best(function, times=3):
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        result = function()
        taken.append(time.perf_counter() - started)
    return min(taken), result


def scan(path):
    """The search alone: literals to lines."""
    known = catalogue.load()
    scanner = Scanner(known.literals, known.masks)
    n = 0
    with Path(path).open("rb", buffering=0) as file:
        while data := file.read(CHUNK_BYTES):
            n += sum(1 for _ in scanner.scan(data, 0, data.rfind(b"\n") + 1))
    return n


def run(*command):
    """Standard output and peak memory in kB of one command."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        out.seek(0)
        return out.read().decode(), usage.ru_maxrss


def main():
    log, dense = sys.argv[1:3]
    known = catalogue.load()
    with tempfile.TemporaryDirectory() as directory:
        patterns = Path(directory, "patterns")
        special = str.maketrans({c: f"\\{c}" for c in r"\.+*?()|[]{}^$"})
        lines = [
            f"(?i:{literal.decode().translate(special)})" if caseless else literal.decode().translate(special)
            for literal, caseless in known.literals
        ]
        patterns.write_text("\n".join(lines) + "\n", encoding="utf-8")
        wsclose = [sys.executable, "-m", "analyzer", "report", log, "--format", "json", "-q", "-j", "1"]
        report_s, (out, peak_kb) = best(lambda: run(*wsclose))
        rg_s, (found, _) = best(lambda: run("rg", "-c", "--no-config", "-a", "-f", str(patterns), log))
        scan_s, n_candidates = best(lambda: scan(log))
        print(f"{len(lines)} literals, {Path(log).stat().st_size / 1e6:,.0f} MB")
        print(f"ripgrep         {rg_s:6.2f} s  {int(found):,} lines")
        print(f"scan            {scan_s:6.2f} s  {n_candidates:,} lines  {rg_s / scan_s:.1f} times")
        logged = json.loads(out)["logged"]
        print(
            f"whole process   {report_s:6.2f} s  {logged:,} closes  {rg_s / report_s:.1f} times  {peak_kb / 1e3:.0f} MB"
        )
        if shutil.which("goaccess"):
            arguments = ["--log-format=COMBINED", "--no-global-config", "-o", str(Path(directory, "x.json"))]
            goaccess_s, _ = best(lambda: run("goaccess", log, *arguments), 1)
            print(f"GoAccess        {goaccess_s:6.2f} s  {goaccess_s / report_s:.0f} times")
    with Path(dense).open("rb") as lines:  # not all at once: a child's peak memory begins with its parent's
        n = sum(1 for _ in lines)
    for form, suffix in (("report", "json"), ("closes", "csv")):
        output = str(Path(tempfile.gettempdir(), f"wsclose-dense.{suffix}"))
        command = [sys.executable, "-m", "analyzer", form, dense, "-q", "-j", "1", "-o", output]
        dense_s, (_, peak_kb) = best(lambda command=command: run(*command))
        Path(output).unlink()
        print(f"dense {form:8}  {dense_s:6.2f} s  {n / dense_s:,.0f} closes a second  {peak_kb / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
