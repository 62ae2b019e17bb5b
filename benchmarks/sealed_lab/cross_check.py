"""What the whole program says of the lab's captures with their keys, beside what it says without, and beside tshark.

    python benchmarks/sealed_lab/cross_check.py DIRECTORY...

Takes directories that `record.py` wrote. Prints how many of the claims made without keys are those made with them, and
how many of the first Closes that tshark shows stand in `connections` with the same code and packet.
"""

import collections
import subprocess
import sys
from pathlib import Path
from typing import Any

import analyzer

PORTS = tuple(range(23_000, 26_000))
NEVER_OPENED = ("handshake_rejected", "handshake_failed", "tls_alert")
UNREAD = ("none", "unknown", "sealed")


def read(capture: Path, **more: Any) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, dict[str, Any]]]:
    """Views by connection and endpoint, and connections by their key."""
    views, connections = {}, {}
    for batch in analyzer.stream(capture, **more):
        views |= {(row["connection"], row["endpoint"]): row for row in batch.closes.rows()}
        connections |= {row["connection"]: row for row in batch.connections.rows()}
    return views, connections


def compare(opened: dict[Any, Any], sealed: dict[Any, Any]) -> collections.Counter[str]:
    """Claims of the sealed views, and whether the opened ones bear them out."""
    counts: collections.Counter[str] = collections.Counter()
    for key, truth in opened.items():
        if truth["evidence"] in NEVER_OPENED:
            continue
        counts["views"] += 1
        claim = sealed.get(key)
        if claim is None or (claim["code"] is None and claim["evidence"] != "sealed_close"):
            continue
        counts["claims"] += 1
        is_right = truth["received"] == "status" if claim["code"] is None else truth["code"] == claim["code"]
        counts["right"] += is_right
        if not is_right:
            print(f"  {key}: {claim['code']} {claim['evidence']}, with keys {truth['code']} {truth['evidence']}")
    return counts


def closes_by_tshark(capture: Path, keys: Path) -> dict[tuple[str, str], tuple[str, int]]:
    """Code and packet of the first Close by the ports that it went from and to."""
    command = ["tshark", "-n", "-r", str(capture), "-o", f"tls.keylog_file:{keys}", "-Y", "websocket.opcode==8"]
    command += ["-T", "fields", "-E", "occurrence=f"]
    for name in ("tcp.srcport", "tcp.dstport", "websocket.payload.close.status_code", "frame.number"):
        command += ["-e", name]
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        source, target, code, number = line.split("\t")
        found.setdefault((source, target), (code, int(number)))
    return found


def closes_of_ours(connections: dict[str, dict[str, Any]]) -> dict[tuple[str, str], tuple[str, int]]:
    """The same, as the connections table has it."""
    found = {}
    for row in connections.values():
        ports = [row[end].rpartition(":")[2] for end in ("client", "server")]
        for end, way in (("client", ports), ("server", ports[::-1])):
            if row[f"{end}_close"] not in UNREAD:
                found[way[0], way[1]] = str(row[f"{end}_close_code"] or ""), row[f"{end}_close_record"]
    return found


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    total: collections.Counter[str] = collections.Counter()
    for directory in map(Path, sys.argv[1:]):
        capture, keys = directory / "lab.pcap", directory / "keys.log"
        views, connections = read(capture, keys=[keys])
        counts = compare(views, read(capture, ws_ports=PORTS)[0])
        theirs, ours = closes_by_tshark(capture, keys), closes_of_ours(connections)
        counts["closes"] = len(theirs.keys() | ours.keys())
        counts["closes as tshark has them"] = sum(
            theirs.get(way) == ours.get(way) for way in theirs.keys() | ours.keys()
        )
        print(directory.name, dict(counts))
        total += counts
    print("all", dict(total))


if __name__ == "__main__":
    main()
