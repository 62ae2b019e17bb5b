"""The fold: batches of rows into counts that merge, without pandas and without keeping the rows.

Merging is associative and commutative (values of a dimension beyond a named limit excepted), so the same code serves
one process, a pool of them, or a results directory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from analyzer.model import DIMENSIONS, LIMITS, Endpoint, Evidence, Handshake, Provenance, Rows, is_illegal_on_wire
from analyzer.report.tally import UNTIMED, Tally, Timeline
from analyzer.selection import named_hosts
from analyzer.table import Coded, Numbers, Table, combine

VIEW_COLUMNS = (
    *("endpoint", "code", "provenance", "evidence", "initiator", "sent", "received", "end", "ended_by", "system"),
)
"""What views are counted by."""

END_COLUMNS = ("initiator", "end", "ended_by")
PAIR_COLUMNS = (
    *("client_close", "client_close_code", "server_close", "server_close_code"),
    *("client_view_code", "client_view_provenance", "server_view_code", "server_view_provenance"),
)
HANDSHAKE_COLUMNS = ("handshake", "http_status")
ERROR_COLUMNS = {"RST_STREAM": "stream_error", "GOAWAY": "goaway"}
"""Frames of HTTP/2 that carry an error code, and the columns that name it."""

ERRORS_KEPT = 1000
"""Kinds of such errors that are told apart: anyone can make up codes. Further ones are counted as OTHER_ERRORS."""

OTHER_ERRORS = "other"

TOP = 10
"""Values of a dimension that a report names where nothing else is asked for."""

STORIES_KEPT = 3
"""Whole connections kept so that a small capture's report can tell each one's story, and closes of a small log."""

INPUTS_KEPT = 1000
"""Rows of `inputs` kept as they are; further ones that are in order count in the sums only."""

ROWS_KEPT = 20
"""Earliest rows kept of each kind of view, for what shows single connections."""

KINDS_WITH_ROWS = 500
"""Kinds of views of which rows are kept; of the others the earliest place only."""

PAIRS_KEPT = 50_000
"""Pairs of a value and a cell that a dimension counts. Where there are more, the most frequent values stay, as many
as half of these pairs and VALUES_KEPT allow; the others go to one heap, which is counted, too."""

VALUES_KEPT = 10_000

STEPS_PER_DECADE = 1000
"""Durations are counted in steps of 0.23 %, fine enough to tell whether they lie within 2 % of a timer."""

OPENED = frozenset({Handshake.COMPLETE, Handshake.MISSING, Handshake.SEALED})
"""Handshakes of connections that were established, or of which nothing shows that they were not: without the sealed
ones the shares of all others would be larger than anybody saw."""

NEVER_OPENED = frozenset({Evidence.HANDSHAKE_REJECTED, Evidence.HANDSHAKE_FAILED, Evidence.TLS_ALERT})
"""Views of connections that were never established: outside shares."""


def bucket(endpoint: str, code: int | None, provenance: str, evidence: str) -> str:
    """Which block of the report a view belongs to: established, illegal, undetermined, never_opened or proxy."""
    if evidence in NEVER_OPENED:
        return "never_opened"
    if endpoint == Endpoint.PROXY:
        return "proxy"
    if code is None:
        return "undetermined"
    is_seen = provenance == Provenance.WIRE or (evidence == Evidence.LOG_RECEIVED and provenance == Provenance.REPORTED)
    return "illegal" if is_seen and is_illegal_on_wire(code) else "established"


class Cell(NamedTuple):
    """What views are counted by within a value of a dimension or a step of time."""

    endpoint: str
    code: int | None
    provenance: str
    bucket: str


class Example(NamedTuple):
    """Where one can see such a view: the earliest."""

    time: int
    source: str
    record: int
    connection: str
    peer: str


def duration_steps(seconds: Rows) -> Rows:
    """Numbers of the steps that hold these durations; what is below a millisecond shares one."""
    return np.floor(np.log10(np.maximum(seconds, 0.001)) * STEPS_PER_DECADE + 1e-9).astype(np.int64)


def duration_of(step: float) -> float:
    """Where a step of `duration_steps` begins, in seconds; half a step further lies its middle."""
    return float(10 ** (step / STEPS_PER_DECADE))


class Breakdown:
    """Views by the values of one dimension and cell."""

    def __init__(self) -> None:
        self.rest: Counter[Cell] = Counter()
        self._cells: dict[Cell, int] = {}
        self._counts: Counter[tuple[str | None, int]] = Counter()  # by number of the cell: a Cell is slow to hash

    def items(self) -> Iterator[tuple[str, Cell, int]]:
        """Every value and cell with its number of views."""
        cells = list(self._cells)
        for (value, number), count in self._counts.items():
            if value:
                yield value, cells[number], count

    def add(self, values: Coded, ids: Rows, cells: Sequence[Cell]) -> None:
        """Count views by their value and cell, `cells[ids]`; those without a value count as None."""
        numbers = [self._number(cell) for cell in cells]
        _count(self._counts, [values, Coded(numbers, ids)])
        self._fit()

    def merge(self, other: "Breakdown") -> None:
        """Add another one's counts."""
        self.rest.update(other.rest)
        for value, cell, count in other.items():
            self._counts[value, self._number(cell)] += count
        self._fit()

    def _number(self, cell: Cell) -> int:
        return self._cells.setdefault(cell, len(self._cells))

    def _fit(self) -> None:
        """Put the rarest values on the heap where there are too many."""
        if len(self._counts) <= PAIRS_KEPT:
            return
        totals: Counter[str | None] = Counter()
        for (value, _), count in self._counts.items():
            totals[value] += count
        totals.pop(None, None)
        pairs = Counter(value for value, _ in self._counts)
        least = sorted(totals.values(), reverse=True)[:VALUES_KEPT][-1] if totals else 0
        frequent = [value for value, count in totals.items() if value and count > least]
        rare = sorted(value for value, count in totals.items() if value and count == least)
        chosen = [*frequent, *rare[: VALUES_KEPT - len(frequent)]]
        if sum(map(pairs.__getitem__, chosen)) > PAIRS_KEPT // 2:  # few values with very many codes
            chosen.sort(key=lambda value: (-totals[value], value))
        kept: set[str] = set()
        n_pairs = 0
        for value in chosen:
            n_pairs += pairs[value]
            if n_pairs > PAIRS_KEPT // 2 and kept:
                break
            kept.add(value)
        cells = list(self._cells)
        counts, self._counts = self._counts, Counter()
        for (value, number), count in counts.items():
            if value in kept:
                self._counts[value, number] = count
            elif value:
                self.rest[cells[number]] += count


class Counts:
    """Everything a report needs, of any number of rows.

    Attributes:
        views: Number of views by VIEW_COLUMNS.
        first, last: Earliest example and latest time by the same key.
        rows: The earliest rows by the same key, whole.
        by: Views by each of DIMENSIONS.
        timeline: Views by time.
        durations: Views by endpoint and code, and step of `duration_steps`.
        silences: Number of connections by the client's view in the same way.
        ends, pairs: Number of connections that were opened by these columns.
        handshakes: Number of connections by these columns.
        effects, causes: Number of connections that have a cause, and of such causes, by its name.
        stream_errors: Number of connections by frame of HTTP/2, and who sent it with which error.
        sealed: Number of connections that no key opened, by how likely they are WebSockets.
        anomalies: Number of connections, and of logged closes, by anomaly.
        stories: Connections, whole, with their views, where there are no more than STORIES_KEPT.
        n_logged: Number of views that logs told of.
        logged: They, whole, where there are no more than STORIES_KEPT.
        inputs: Rows of `inputs`.
        sums: Sums of the integer columns of all inputs.
        zones, years: Number of logs for which this zone, or this year, was assumed.
        span: Times of the first and the last packet or line of all inputs.

    """

    def __init__(self, *, step_ns: int | None = None, keeps_rows: bool = True) -> None:
        """Begin with nothing.

        Args:
            step_ns: Step of the timeline in nanoseconds, None where the data decides.
            keeps_rows: Whether single rows will be shown; where they are not, most columns need not be made.

        """
        self._keeps_rows = keeps_rows
        self.views: Counter[tuple[Any, ...]] = Counter()
        self.first: dict[tuple[Any, ...], Example] = {}
        self.last: dict[tuple[Any, ...], int] = {}
        self.rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self.by = {dimension: Breakdown() for dimension in DIMENSIONS}
        self.timeline: Timeline[Cell] = Timeline(step_ns)
        self.durations: Tally[tuple[str, int | None]] = Tally()
        self.silences: Tally[tuple[str, int | None]] = Tally()
        self.ends: Counter[tuple[Any, ...]] = Counter()
        self.pairs: Counter[tuple[Any, ...]] = Counter()
        self.handshakes: Counter[tuple[Any, ...]] = Counter()
        self.effects: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.stream_errors: Counter[tuple[str, str]] = Counter()
        self.sealed: Counter[str] = Counter()
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
            self._add_views(closes, connections)
            if not len(connections):
                self._add_logged(closes)
        if len(connections):
            self.n_connections += len(connections)
            _count(self.handshakes, [connections.coded(c) for c in HANDSHAKE_COLUMNS])
            self._add_sealed(connections)
            self._add_anomalies(connections)
            self._add_subprotocols(connections)
            self._add_established(connections)
            if any(connections.coded("flow").values):
                self._add_causes(connections)
            if self.n_connections <= STORIES_KEPT:
                self._add_stories(closes, connections)
        self._add_inputs(inputs.rows())

    def _add_sealed(self, connections: Table) -> None:
        likelihoods = connections.coded("likelihood")
        if any(likelihoods.values):
            kinds: Counter[tuple[Any, ...]] = Counter()
            _count(kinds, [connections.coded("handshake"), likelihoods])
            for (state, likely), n in kinds.items():
                if state == Handshake.SEALED and likely:
                    self.sealed[likely] += n

    def _add_established(self, connections: Table) -> None:
        """Count what only a connection that was opened has."""
        states = connections.coded("handshake")
        opened = np.flatnonzero(np.array([state in OPENED for state in states.values], bool)[states.ids])
        for counter, names in ((self.ends, END_COLUMNS), (self.pairs, PAIR_COLUMNS)):
            _count(counter, [connections.coded(c).take(opened) for c in names])
        codes = connections.coded("client_view_code").take(opened)
        groups = [("client", code) for code in codes.values]
        _add_durations(self.silences, groups, codes.ids, connections.numbers("silence_s").take(opened))

    def _add_causes(self, connections: Table) -> None:
        """Count effects, and what caused them: connections that were lost with one flow come in one batch."""
        caused = [(cause, flow) for cause, flow in zip(connections["cause"], connections["flow"], strict=True) if cause]
        self.effects.update(cause for cause, _ in caused)
        self.causes.update(cause for cause, _ in set(caused))
        for frame, name in ERROR_COLUMNS.items():
            self._count_errors(Counter((frame, said) for said in connections[name] if said))

    def _count_errors(self, errors: Counter[tuple[str, str]]) -> None:
        for (frame, said), n in errors.items():
            if (frame, said) not in self.stream_errors and len(self.stream_errors) >= ERRORS_KEPT:
                said = f"{said.partition(' ')[0]} {OTHER_ERRORS}"
            self.stream_errors[frame, said] += n

    def _add_anomalies(self, table: Table) -> None:
        column = table.coded("anomalies")
        for names, n in zip(column.values, np.bincount(column.ids, minlength=len(column.values)).tolist(), strict=True):
            for name in names or ():
                self.anomalies[name] += n

    def _add_logged(self, closes: Table) -> None:
        self.n_logged += len(closes)
        self._add_anomalies(closes)
        if self.n_logged <= STORIES_KEPT:
            self.logged.extend(closes.rows())

    def _add_views(self, closes: Table, connections: Table) -> None:
        kinds = combine([closes.coded(c) for c in VIEW_COLUMNS])
        keys, ids = list(kinds.values), kinds.ids
        given = closes.numbers("time")
        times = np.where(given.known, given.values, UNTIMED)
        self._note_times(keys, ids, times, closes)
        cells = [Cell(key[0], key[1], key[2], bucket(*key[:4])) for key in keys]
        self.timeline.add(times, ids, cells)
        is_opened = np.array([cell.bucket != "never_opened" for cell in cells], bool)[ids]
        _add_durations(self.durations, [cell[:2] for cell in cells], ids, closes.numbers("duration_s"), is_opened)
        self._add_dimensions(closes, connections, ids, cells)

    def _note_times(self, keys: list[tuple[Any, ...]], ids: Rows, times: Rows, closes: Table) -> None:
        """Count the views, and remember the earliest and the latest of each kind."""
        n = len(keys)
        earliest, latest = np.full(n, UNTIMED), np.full(n, -(2**63))
        np.minimum.at(earliest, ids, times)
        np.maximum.at(latest, ids, np.where(times == UNTIMED, -(2**63), times))
        given = closes.numbers("record")
        records = np.where(given.known, given.values, 0)
        at = np.flatnonzero(times == earliest[ids])
        at = at[np.argsort(-records[at], kind="stable")]
        index = np.zeros(n, np.int64)
        index[ids[at]] = at  # the last that is written has the lowest record
        counted = np.bincount(ids, minlength=n)
        order = np.argsort(ids, kind="stable")
        ends = np.cumsum(counted)
        examples = closes.take(index.tolist())
        # as they came: what is beyond a limit must not be all of one endpoint
        for i in np.argsort(order[ends - counted]).tolist():
            key = keys[i]
            self.views[key] += int(counted[i])
            self._note_example(key, i, int(earliest[i]), examples)
            if latest[i] != -(2**63):
                self.last[key] = max(int(latest[i]), self.last.get(key, -(2**63)))
            if self._keeps_rows and (key in self.rows or len(self.rows) < KINDS_WITH_ROWS):
                self._keep_rows(key, order[ends[i] - counted[i] : ends[i]], times, records, closes)

    def _note_example(self, key: tuple[Any, ...], i: int, time: int, examples: Table) -> None:
        held = self.first.get(key)
        if held is not None and time > held.time:
            return
        peer = examples["server" if key[0] == "client" else "client"][i]
        example = Example(
            time, examples["source"][i], examples["record"][i] or 0, examples["connection"][i] or "", peer or ""
        )
        self.first[key] = example if held is None else min(example, held)

    def _keep_rows(self, key: tuple[Any, ...], mine: Rows, times: Rows, records: Rows, closes: Table) -> None:
        kept = self.rows.get(key, [])
        if len(kept) == ROWS_KEPT:
            mine = mine[times[mine] <= row_order(kept[-1])[0]]
        if len(mine) > ROWS_KEPT:
            mine = mine[np.lexsort((records[mine], times[mine]))[:ROWS_KEPT]]
        if not len(mine):
            return
        self._put_rows(key, [*kept, *closes.take(mine.tolist()).rows()])

    def _put_rows(self, key: tuple[Any, ...], rows: list[dict[str, Any]]) -> None:
        if key in self.rows or len(self.rows) < KINDS_WITH_ROWS:
            self.rows[key] = sorted(rows, key=row_order)[:ROWS_KEPT]

    def _add_dimensions(self, closes: Table, connections: Table, ids: Rows, cells: list[Cell]) -> None:
        for dimension in DIMENSIONS:
            if dimension == "subprotocol":
                continue  # a column of connections
            if dimension == "host":
                values = named_hosts(closes, connections)
            else:
                values = _peers(closes) if dimension == "peer" else closes.coded(dimension)
            if not any(values.values):
                continue
            if dimension == "path":
                values = Coded([value and value.partition("?")[0] for value in values.values], values.ids)
            self.by[dimension].add(values, ids, cells)

    def _add_subprotocols(self, connections: Table) -> None:
        names = connections.coded("subprotocol")
        if not any(names.values):
            return
        for side in ("client", "server"):
            views = combine([connections.coded(f"{side}_view_{part}") for part in ("code", "provenance", "evidence")])
            has_view = np.array([how is not None for _, how, _ in views.values], bool)[views.ids]
            cells = [Cell(side, code, how, bucket(side, code, how, evidence)) for code, how, evidence in views.values]
            self.by["subprotocol"].add(names.take(has_view), views.ids[has_view], cells)

    def _add_stories(self, closes: Table, connections: Table) -> None:
        views: dict[str, list[dict[str, Any]]] = {}
        for row in closes.rows():
            views.setdefault(row["connection"], []).append(row)
        self.stories += [(row, views.get(row["connection"], [])) for row in connections.rows()]

    def _add_inputs(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            self.n_inputs += 1
            self._keep_input(row)
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

    def _keep_input(self, row: dict[str, Any]) -> None:
        is_in_order = row["status"] == "ok" and not any(row[name] for name in LIMITS)
        if len(self.inputs) < INPUTS_KEPT or not is_in_order:
            self.inputs.append(row)

    def _extend(self, first: int, last: int) -> None:
        self.span = (first, last) if self.span is None else (min(first, self.span[0]), max(last, self.span[1]))

    def merge(self, other: "Counts") -> None:
        """Add another fold's counts to these; both began with the same step of time."""
        for key, example in other.first.items():
            self.first[key] = min(example, self.first.get(key, example))
        for key, time in other.last.items():
            self.last[key] = max(time, self.last.get(key, time))
        for key, rows in other.rows.items():
            self._put_rows(key, [*self.rows.get(key, []), *rows])
        for dimension, breakdown in other.by.items():
            self.by[dimension].merge(breakdown)
        self.timeline.merge(other.timeline)
        self.durations.merge(other.durations)
        self.silences.merge(other.silences)
        for mine, theirs in (
            (self.views, other.views),
            (self.ends, other.ends),
            (self.pairs, other.pairs),
            (self.handshakes, other.handshakes),
        ):
            mine.update(theirs)
        self.effects.update(other.effects)
        self.causes.update(other.causes)
        self._count_errors(other.stream_errors)
        self.sealed.update(other.sealed)
        self.anomalies.update(other.anomalies)
        self.sums.update(other.sums)
        self.zones.update(other.zones)
        self.years.update(other.years)
        self.n_logged += other.n_logged
        self.logged = sorted([*self.logged, *other.logged], key=row_order) if self.n_logged <= STORIES_KEPT else []
        self.n_inputs += other.n_inputs
        self.n_connections += other.n_connections
        stories = [*self.stories, *other.stories] if self.n_connections <= STORIES_KEPT else []
        self.stories = sorted(stories, key=lambda story: str(story[0]["connection"]))
        if other.span is not None:
            self._extend(*other.span)
        for row in other.inputs:
            self._keep_input(row)


def row_order(row: dict[str, Any]) -> tuple[int, str, int, str]:
    """Sorts rows of closes by time and place; those without a time come last."""
    time = row["time"]
    return UNTIMED if time is None else time, row["source"], row["record"] or 0, row["endpoint"]


def _peers(closes: Table) -> Coded:
    """The other side of each view: servers by `ip:port`, clients by their address alone."""
    endpoints, servers, clients = closes.coded("endpoint"), closes.coded("server"), closes.addresses("client")
    is_client = np.array([endpoint == Endpoint.CLIENT for endpoint in endpoints.values], bool)[endpoints.ids]
    ids = np.where(is_client, servers.ids, clients.ids + len(servers.values))
    return Coded([*servers.values, *clients.values], ids)


def _count(counter: Counter[tuple[Any, ...]], columns: Sequence[Coded]) -> None:
    """Count rows by what these columns hold."""
    kinds = combine(columns)
    for kind, n in zip(kinds.values, np.bincount(kinds.ids, minlength=len(kinds.values)).tolist(), strict=True):
        counter[kind] += n


def _add_durations(
    tally: Tally[tuple[str, int | None]],
    groups: Sequence[tuple[str, int | None]],
    ids: Rows,
    seconds: Numbers,
    counts: Rows | None = None,
) -> None:
    """Count seconds by their group, `groups[ids]`, and step; unknown ones and those not in `counts` are left out."""
    known = seconds.known if counts is None else seconds.known & counts
    tally.add(groups, ids[known], duration_steps(seconds.values[known]))
