"""How well sealed records tell: what is claimed against what the keys showed.

    python benchmarks/sealed_lab/measure.py [--rules] [--wrong] [--write FILE] PAIRS.jsonl.gz...

Prints the tables of docs/sealed.md for the half of the pairs on which no rule was fixed, or with --rules for the other
half. --wrong tells each wrong claim; --write keeps what `tests/test_sealed.py` needs of the measured connections.
"""

import argparse
import collections
import gzip
import json
import sys
from pathlib import Path

import numpy as np
import scenarios

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from analyzer.capture import sealed as records
from analyzer.model import SEALED, SEALED_END, Evidence
from analyzer.verdict import sealed

MEANS = {Evidence.SEALED_CLOSE: "body", Evidence.SEALED_EMPTY_CLOSE: "empty", Evidence.SEALED_NO_CLOSE: "none"}


def is_for_rules(row: dict) -> bool:
    """Half of the pairs: rules were fixed on these alone. Chromium is never among them."""
    if row["client"] not in scenarios.CLIENTS:
        return False
    return (scenarios.CLIENTS.index(row["client"]) + scenarios.SERVERS.index(row["server"])) % 2 == 0


def truth(connection: dict) -> tuple[str, str, str]:
    """Who closed first, and what Close the client and the server got, by the frames that the keys show."""
    first: dict[int, list] = {}
    for frame in connection["frames"]:
        if frame[1] == 8:
            first.setdefault(frame[0], frame)
    got = ["none" if side not in first else "empty" if first[side][2] == 0 else "body" for side in (1, 0)]
    if not first:
        return "none", got[0], got[1]
    if len(first) == 1:
        return ("client", "server")[next(iter(first))], got[0], got[1]
    earlier, later = (0, 1) if first[0][3] < first[1][3] else (1, 0)
    ack = next(r[6] for r in connection["records"] if r[7] == first[later][3])
    end = max(r[5] for r in connection["records"] if r[7] == first[earlier][3] and r[0] == earlier)
    return "both" if ack < end else ("client", "server")[earlier], got[0], got[1]


def compact(connection: dict) -> dict:
    """What a judge gets, and the truth; times in whole microseconds, packets counted from the first."""
    base = connection["first_packet"] - 1
    kept = [r for r in connection["records"] if r[1] in (21, 23)]
    hello = connection["hello"]
    return {
        "client": connection["client"],
        "server": connection["server"],
        "end": connection["end"],
        "version": hello["version"] or 0,
        "suite": hello["cipher"] or 0,
        "alpn": hello["alpn"],
        "selected": hello["selected"],
        "truth": truth(connection),
        "records": [[r[0], r[1], r[3], r[4] // 1000, r[5], r[6], r[7] - base] for r in kept],
        "ends": [[side, how, ns // 1000, packet - base] for side, how, ns, _, _, packet in connection["ends"]],
    }


def judge(connection: dict, *, is_asserted: bool) -> sealed.Told:
    rows, ends = np.zeros(1, SEALED), np.zeros(2, SEALED_END)
    for side, kind, n, us, end_pos, ack, packet in connection["records"]:
        records.note(rows[0], side, kind, n, us * 1000, packet, end_pos, ack)
    ends["is_complete"] = True
    for side, how, us, packet in connection["ends"]:
        if ends[side][f"{how}_packet"] == 0:
            ends[side][f"{how}_packet"], ends[side][f"{how}_ns"] = packet, us * 1000
    return sealed.judge(
        rows[0], (ends[0], ends[1]), version=connection["version"], suite=connection["suite"],
        offers=tuple(connection["alpn"]), selected=connection["selected"], is_asserted=is_asserted,
    )  # fmt: skip


def read(path: str, rules: bool) -> list[dict]:
    """Connections of one half, and what is no WebSocket; without those whose capture is not whole."""
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    found = []
    for row in rows:
        if "hole" in row or any(row["left"]):
            continue
        if row["client"] == "other" or (row["status"][:1] == [101] and is_for_rules(row) == rules):
            found.append(compact(row))
    return found


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def table(head: list[str], rows: list[list]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|---" + "|---:" * (len(head) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--write")
    parser.add_argument("paths", nargs="+")
    options = parser.parse_args()
    connections = [c for path in options.paths for c in read(path, options.rules)]
    views, initiators, pairs, likely = (collections.Counter() for _ in range(4))
    for c in connections:
        what = c["server"] if c["client"] == "other" else "WebSocket"
        likely[what, str(judge(c, is_asserted=False).likelihood)] += 1
        if c["client"] == "other":
            continue
        told = judge(c, is_asserted=True)
        who, *got = c["truth"]
        pair = f"{c['client']} > {c['server']}"
        pairs[pair, "connections"] += 1
        wrong = str(told.initiator) not in ("unknown", who)
        for evidence, real in zip(told.evidence, got, strict=True):
            claim = MEANS.get(evidence, "silent")
            views[claim, real] += 1
            pairs[pair, claim if claim in ("silent", real) else "wrong"] += 1
            wrong |= claim not in ("silent", real)
        initiators[str(told.initiator), who] += 1
        claim = "silent" if told.initiator == "unknown" else "right" if told.initiator == who else "wrong"
        pairs[pair, f"initiator {claim}"] += 1
        if wrong and options.wrong:
            print("WRONG", pair, c["end"], "told", told.initiator, told.evidence, "truth", c["truth"])
    n = sum(v for (_, what), v in pairs.items() if what == "connections")
    claims = sum(v for (claim, _), v in views.items() if claim != "silent")
    right = sum(v for (claim, real), v in views.items() if claim == real)
    print(
        f"{n} connections, {2 * n} views: {claims} claims ({share(claims, 2 * n)}), {right} right ({share(right, claims)})"
    )
    claims = sum(v for (claim, _), v in initiators.items() if claim != "unknown")
    right = sum(v for (claim, real), v in initiators.items() if claim == real)
    print(f"initiator: {claims} claims ({share(claims, n)}), {right} right ({share(right, claims)})\n")
    names = (
        ("body", "`sealed_close`"),
        ("empty", "`sealed_empty_close`"),
        ("none", "`sealed_no_close`"),
        ("silent", "`sealed`"),
    )
    kinds = ("body", "empty", "none")
    table(
        ["claimed / received", "Close with a body", "empty Close", "no Close"],
        [[n, *(views[c, k] for k in kinds)] for c, n in names],
    )
    who = ("client", "server", "both", "none")
    table(
        ["claimed / first Close by", *who],
        [[f"`{c}`", *(initiators[c, w] for w in who)] for c in ("client", "server", "none", "unknown")],
    )
    columns = (
        "connections",
        "body",
        "empty",
        "none",
        "wrong",
        "silent",
        "initiator right",
        "initiator wrong",
        "initiator silent",
    )
    head = [
        "client > server",
        "connections",
        "Close",
        "1005",
        "1006",
        "wrong",
        "silent",
        "initiator right",
        "wrong",
        "silent",
    ]
    table(head, [[p, *(pairs[p, c] for c in columns)] for p in sorted({p for p, _ in pairs})])
    levels = ("high", "medium", "None")
    table(
        ["what it is", "high", "medium", "not likely"],
        [[w, *(likely[w, c] for c in levels)] for w in sorted({w for w, _ in likely})],
    )
    if options.write:
        with Path(options.write).open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
            for c in connections:
                file.write((json.dumps(c, separators=(",", ":")) + "\n").encode())
        print(Path(options.write).stat().st_size, "bytes written")


if __name__ == "__main__":
    main()
