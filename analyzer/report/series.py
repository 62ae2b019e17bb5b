"""Counts by value, over time and over durations, as the blocks of a report."""

import functools
import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from analyzer.knowledge import timers
from analyzer.model import Endpoint, Rows, format_time
from analyzer.report.counts import STEPS_PER_DECADE, Breakdown, Cell, Counts, duration_of
from analyzer.report.tally import Tally
from analyzer.selection import ORIGIN_NS

STEPS_SHOWN = 120
"""Most steps that a timeline has where its step was not asked for."""

STEPS_NS = (
    *(n * 1_000_000 for n in (10, 20, 50, 100, 200, 500)),
    *(n * 1_000_000_000 for n in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)),
    *(n * 3_600_000_000_000 for n in (1, 2, 3, 6, 12, 24, 48, 168)),
)
"""Steps that people find easy to read."""

WIDE = STEPS_PER_DECADE // 200
"""Steps that are one where a report names durations: 1.2 %."""

HARMLESS = {1000: 3, 1001: 2, 1005: 2, 1012: 2, 1013: 2}
"""Codes that say that all is well, or that a reconnect is welcome, come later in a report."""


def breakdown(dimension: str, counted: Breakdown, *, top: int) -> list[dict[str, Any]]:
    """The values of one dimension, for each endpoint those with most ends that are not harmless first.

    Shares are within the value and the endpoint.
    """
    grouped: dict[str, dict[str, list[tuple[Cell, int]]]] = {}
    for value, cell, n in counted.items():
        grouped.setdefault(cell.endpoint, {}).setdefault(value, []).append((cell, n))

    def rank(item: tuple[str, list[tuple[Cell, int]]]) -> tuple[int, int, str]:
        harmful = sum(n for cell, n in item[1] if severity(cell.code) == 0)
        return -harmful, -sum(n for _, n in item[1]), item[0]

    return [
        _value_entry(dimension, endpoint, value, cells)
        for endpoint in Endpoint
        for value, cells in heapq.nsmallest(top, grouped.get(endpoint, {}).items(), key=rank)
    ]


def _value_entry(dimension: str, endpoint: str, value: str, cells: list[tuple[Cell, int]]) -> dict[str, Any]:
    """One value of a dimension with the codes that one kind of endpoint reports for it."""
    n = sum(count for _, count in cells)
    return {
        "dimension": dimension,
        "endpoint": str(endpoint),
        "value": value,
        "count": n,
        "harmful": sum(count for cell, count in cells if severity(cell.code) == 0),
        "codes": [
            {
                "code": cell.code,
                "provenance": cell.provenance,
                "bucket": cell.bucket,
                "count": count,
                "share": round(count / n, 6),
            }
            for cell, count in sorted(cells, key=lambda item: (-item[1], _cell_order(item[0])))
        ],
    }


def beyond(counted: Breakdown, shown: list[dict[str, Any]]) -> dict[str, int]:
    """How many values and views of a dimension its block does not name."""
    values = {(cell.endpoint, value) for value, cell, _ in counted.items()}
    total = sum(n for _, _, n in counted.items()) + sum(counted.rest.values())
    return {"values": len(values) - len(shown), "views": total - sum(entry["count"] for entry in shown)}


def severity(code: int | None) -> int:
    """Sorts what is worst first: 0 for an end that somebody should look at; 4 where no code is claimed."""
    return 4 if code is None else HARMLESS.get(code, 0)


def _cell_order(cell: Cell) -> tuple[str, int, str, str]:
    return cell.endpoint, -1 if cell.code is None else cell.code, cell.provenance, cell.bucket


def timeline(counts: Counts, step_ns: int | None) -> dict[str, Any]:
    """Views by step of time; the step is the one asked for, else the finest that gives no more than STEPS_SHOWN."""
    kept = counts.timeline
    kept_ns, extent = kept.step_ns, kept.extent
    chosen = kept_ns
    if step_ns is None and extent is not None:
        extent_ns = (extent[1] - extent[0] + 1) * kept_ns
        known = [step for step in STEPS_NS if step % kept_ns == 0] or [kept_ns]
        chosen = next((step for step in known if extent_ns / step <= STEPS_SHOWN), known[-1])
        while extent_ns / chosen > STEPS_SHOWN:
            chosen *= 2
    return {
        "step_s": chosen / 1e9,
        "is_coarser": step_ns is not None and chosen > step_ns,
        "bins": [
            {
                "time": format_time(step * chosen + ORIGIN_NS),
                "endpoint": cell.endpoint,
                "code": cell.code,
                "provenance": cell.provenance,
                "bucket": cell.bucket,
                "count": n,
            }
            for cell, step, n in sorted(kept.items(chosen // kept_ns), key=lambda item: (item[1], _cell_order(item[0])))
        ],
    }


def distribution(counted: Tally[tuple[str, int | None]]) -> list[dict[str, Any]]:
    """Durations of each endpoint and code: quantiles, and the occupied steps of 1.2 %."""
    order = list(Endpoint)
    entries = []
    for (endpoint, code), steps, counts in counted.by_kind():
        running = np.cumsum(counts)
        total = int(running[-1])
        entry: dict[str, Any] = {"endpoint": endpoint, "code": code, "count": total}
        for name, share in (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99)):
            entry[name] = seconds(duration_of(int(steps[np.searchsorted(running, share * total)])))
        shown = steps // WIDE
        first = np.flatnonzero(np.diff(shown, prepend=shown[0] - 1))
        entry["bins"] = [
            {"from_s": _begin_of(i), "to_s": _begin_of(i + 1), "count": n}
            for i, n in zip(shown[first].tolist(), np.add.reduceat(counts, first).tolist(), strict=True)
        ]
        entries.append(entry)
    return sorted(entries, key=lambda e: (order.index(e["endpoint"]), -e["count"], e["code"] or 0))


@functools.lru_cache(1 << 12)
def _begin_of(step: int) -> float:
    """Where a step that is shown begins, in seconds."""
    return seconds(duration_of(step * WIDE))


def seconds(value: float) -> float:
    """A duration as precise as its step: four digits."""
    return float(f"{value:.4g}")


def near_timers(measure: str, counted: Tally[tuple[str, int | None]]) -> list[dict[str, Any]]:
    """Values where the ends with one code gather and that known timers have, each with all timers that it may be.

    Args:
        measure: `silence` or `duration`.
        counted: From `Counts`.

    """
    by_code: dict[int | None, list[tuple[Rows, Rows]]] = {}
    for (_, code), steps, counts in counted.by_kind():
        by_code.setdefault(code, []).append((steps, counts))
    entries = []
    for code, parts in sorted(by_code.items(), key=lambda item: (severity(item[0]), item[0] or 0)):
        steps, numbers = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        values = np.power(10.0, (steps + 0.5) / STEPS_PER_DECADE)
        for seconds_, n, candidates in timers.gatherings(values, numbers, timers.MEASURES[measure]):
            entries.append(
                {
                    "measure": measure,
                    "code": code,
                    "seconds": seconds_,
                    "count": n,
                    "share": round(n / int(numbers.sum()), 6),
                    "candidates": [
                        {"system": t.system, "setting": t.setting, "kind": t.kind, "source": t.source}
                        for t in candidates
                    ],
                }
            )
    return entries


def most(counted: Iterable[tuple[str, int]], n: int = 3) -> list[dict[str, Any]]:
    """The most frequent values with their numbers."""
    totals: Counter[str] = Counter()
    for value, count in counted:
        totals[value] += count
    return [
        {"value": value, "count": count}
        for value, count in sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:n]
    ]
