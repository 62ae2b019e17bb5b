"""The fold: batches of rows into counts that merge, without pandas and without keeping the rows.

Merging is associative and commutative, so the same code serves one process, a pool of them, or a results directory.
"""

import itertools
import operator
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from analyzer.model import Table

VIEW_COLUMNS = ("endpoint", "code", "provenance", "evidence", "initiator", "sent", "end", "ended_by", "system")
"""What views are counted by."""

END_COLUMNS = ("initiator", "end", "ended_by")
PAIR_COLUMNS = ("client_view_code", "client_view_provenance", "server_view_code", "server_view_provenance")
HANDSHAKE_COLUMNS = ("handshake", "http_status")

STORIES_KEPT = 3
"""Whole connections kept so that a small capture's report can tell each one's story, and closes of a small log."""

INPUTS_KEPT = 1000
"""Rows of `inputs` kept as they are; further ones that are in order count in the sums only."""


class Example(NamedTuple):
    """Where one can see such a view: the earliest."""

    time: int
    source: str
    record: int
    connection: str
    peer: str


class Counts:
    """Everything a report needs, of any number of rows.

    Attributes:
        views: Number of views by VIEW_COLUMNS.
        first, last: Earliest example and latest time by the same key.
        ends, pairs, handshakes, anomalies: Number of connections by their columns, or by anomaly.
        stories: The first connections, whole, with their views.
        n_logged: Number of views that logs told of.
        logged: The first of them, whole.
        inputs: Rows of `inputs`.
        sums: Sums of the integer columns of all inputs.
        zones, years: Number of logs for which this zone, or this year, was assumed.
        span: Times of the first and the last packet or line of all inputs.

    """

    def __init__(self) -> None:
        self.views: Counter[tuple[Any, ...]] = Counter()
        self.first: dict[tuple[Any, ...], Example] = {}
        self.last: dict[tuple[Any, ...], int] = {}
        self.ends: Counter[tuple[Any, ...]] = Counter()
        self.pairs: Counter[tuple[Any, ...]] = Counter()
        self.handshakes: Counter[tuple[Any, ...]] = Counter()
        self.anomalies: Counter[str] = Counter()
        self.stories: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        self.n_logged = 0
        self.logged: list[dict[str, Any]] = []
        self.inputs: list[dict[str, Any]] = []
        self.sums: Counter[str] = Counter()
        self.zones: Counter[str] = Counter()
        self.years: Counter[int] = Counter()
        self.n_inputs = 0
        self.n_connections = 0
        self.span: tuple[int, int] | None = None

    def add(self, closes: Table, connections: Table, inputs: Table) -> None:
        """Count a batch of rows."""
        if len(closes):
            self._add_views(closes)
            if not len(connections):
                self._add_logged(closes)
        if len(connections):
            self.n_connections += len(connections)
            self.ends.update(zip(*(connections[c] for c in END_COLUMNS), strict=True))
            self.pairs.update(zip(*(connections[c] for c in PAIR_COLUMNS), strict=True))
            self.handshakes.update(zip(*(connections[c] for c in HANDSHAKE_COLUMNS), strict=True))
            for names in connections["anomalies"]:
                if names:
                    self.anomalies.update(names)
            if len(self.stories) < STORIES_KEPT:
                self._add_stories(closes, connections)
        self._add_inputs(inputs.rows())

    def _add_logged(self, closes: Table) -> None:
        self.n_logged += len(closes)
        if len(self.logged) < STORIES_KEPT:
            for row in itertools.islice(closes.rows(), STORIES_KEPT - len(self.logged)):
                self.logged.append(row)

    def _add_views(self, closes: Table) -> None:
        keys = list(zip(*(closes[c] for c in VIEW_COLUMNS), strict=True))
        self.views.update(keys)
        times = closes["time"]
        if None not in times and all(map(operator.le, times, times[1:])):
            # in order of time, as logs and ends mostly are: the first and the last of each are known at once
            firsts = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
            for key, i in firsts.items():
                self._note_example(key, i, closes)
            for key, time in dict(zip(keys, times, strict=True)).items():
                self.last[key] = max(time, self.last.get(key, -1))
            return
        for i, (key, time) in enumerate(zip(keys, times, strict=True)):
            first = self.first.get(key)
            if first is None or (time is not None and time < first.time):
                self._note_example(key, i, closes)
            if time is not None and time > self.last.get(key, -1):
                self.last[key] = time

    def _note_example(self, key: tuple[Any, ...], i: int, closes: Table) -> None:
        time = closes["time"][i]
        peer = closes["server"][i] if key[0] == "client" else closes["client"][i]
        example = Example(
            2**63 - 1 if time is None else time,
            closes["source"][i],
            closes["record"][i] or 0,
            closes["connection"][i] or "",
            peer or "",
        )
        self.first[key] = min(example, self.first.get(key, example))

    def _add_stories(self, closes: Table, connections: Table) -> None:
        views: dict[str, list[dict[str, Any]]] = {}
        for row in closes.rows():
            views.setdefault(row["connection"], []).append(row)
        for row in connections.rows():
            if len(self.stories) == STORIES_KEPT:
                return
            self.stories.append((row, views.get(row["connection"], [])))

    def _add_inputs(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            self.n_inputs += 1
            if len(self.inputs) < INPUTS_KEPT or row["status"] != "ok":
                self.inputs.append(row)
            for name, value in row.items():
                if name in ("first", "last") and value is not None:
                    self._extend(value, value)
                elif name == "records" and value is not None:
                    self.sums["lines" if row["kind"] == "log" else "packets"] += value
                elif isinstance(value, int) and name not in ("damaged_at", "assumed_year"):
                    self.sums[name] += value
            if row["assumed_tz"] is not None:
                self.zones[row["assumed_tz"]] += 1
            if row["assumed_year"] is not None:
                self.years[row["assumed_year"]] += 1

    def _extend(self, first: int, last: int) -> None:
        self.span = (first, last) if self.span is None else (min(first, self.span[0]), max(last, self.span[1]))

    def merge(self, other: "Counts") -> None:
        """Add another fold's counts to these."""
        self.views.update(other.views)
        for key, example in other.first.items():
            self.first[key] = min(example, self.first.get(key, example))
        for key, time in other.last.items():
            self.last[key] = max(time, self.last.get(key, time))
        for mine, theirs in (
            (self.ends, other.ends),
            (self.pairs, other.pairs),
            (self.handshakes, other.handshakes),
        ):
            mine.update(theirs)
        self.anomalies.update(other.anomalies)
        self.sums.update(other.sums)
        self.zones.update(other.zones)
        self.years.update(other.years)
        self.n_logged += other.n_logged
        order = ("time", "source", "record")
        logged = sorted([*self.logged, *other.logged], key=lambda row: [str(row[name]) for name in order])
        self.logged = logged[:STORIES_KEPT]
        self.n_inputs += other.n_inputs
        self.n_connections += other.n_connections
        stories = [*self.stories, *other.stories]
        self.stories = sorted(stories, key=lambda story: str(story[0]["connection"]))[:STORIES_KEPT]
        if other.span is not None:
            self._extend(*other.span)
        for row in other.inputs:
            if len(self.inputs) < INPUTS_KEPT or row["status"] != "ok":
                self.inputs.append(row)
