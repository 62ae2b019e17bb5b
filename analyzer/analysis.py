"""Sources to rows: the one loop that commands, notebooks and scripts share."""

import os
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from analyzer import kernel, sources
from analyzer.capture.container import Reader
from analyzer.capture.tracker import MAX_FLOWS, Finished, Tracker
from analyzer.errors import CaptureError
from analyzer.knowledge import catalogue as knowledge
from analyzer.model import CLOSES, CONNECTIONS, INPUTS, Counter, Table
from analyzer.report.counts import Counts
from analyzer.verdict.connections import to_tables

if TYPE_CHECKING:
    import pandas as pd

    from analyzer.report.document import Report

Path = str | os.PathLike[str]


class Batch(NamedTuple):
    """Rows as they are found. `inputs` has a row once a file is done, the other two while it is read."""

    closes: Table
    connections: Table
    inputs: Table


Progress = Callable[[str, int, int | None], None]
"""Called with source, bytes read and size in bytes (None where unknown) after every chunk."""


def stream(
    *paths: Path, ports: tuple[int, ...] = (), max_flows: int = MAX_FLOWS, progress: Progress | None = None
) -> Iterator[Batch]:
    """Read captures and yield rows in bounded memory, as connections end.

    Args:
        paths: Files, directories, patterns, `-` for standard input.
        ports: Server ports whose connections are WebSockets even where the capture lacks their handshake.
        max_flows: TCP connections that may be open at once; beyond it those idle longest are dropped and counted.
        progress: Told after every chunk how far the file is read.

    Raises:
        UsageError: Nothing to read. A file that cannot be read raises nothing: its row of `inputs` says so.

    """
    known = knowledge.load()
    for source in sources.find_sources(paths):
        yield from _read_source(source, Tracker(ports=ports, max_flows=max_flows), known, progress)


def _read_source(
    source: sources.Source, tracker: Tracker, known: knowledge.Catalogue, progress: Progress | None
) -> Iterator[Batch]:
    reader: Reader | None = None
    started = time.monotonic()
    status, message = "interrupted", None
    try:
        with source.open() as file:
            reader = Reader(file, source.name)
            size = source.size_bytes()
            for chunk in reader.chunks():
                spent = int((time.monotonic() - started) / kernel.INTERPRETED_S)
                kernel.expect(max(_packets_to_come(reader, size), spent))
                yield from _to_batches(tracker.feed(chunk), source, known)
                if progress is not None:
                    progress(source.name, reader.n_bytes, size)
            yield from _to_batches(tracker.finish(), source, known)
        status = "damaged" if reader.damaged_at is not None else "cut" if reader.is_cut else "ok"
        message = reader.damage
        if reader.is_cut:
            message = "the last record is cut off"
    except KeyboardInterrupt:
        yield from _to_batches(tracker.finish(), source, known)
    except CaptureError as error:
        status, message = "failed", error.why
    except OSError as error:
        status, message = "failed", (error.strerror or str(error)).lower()
    yield Batch(Table(CLOSES), Table(CONNECTIONS), _describe(source, reader, tracker, status, message))
    if status == "interrupted":
        raise KeyboardInterrupt


def _packets_to_come(reader: Reader, size: int | None) -> int:
    """Estimate from the packets so far: in a file all of it, in a stream what came already."""
    if size is None or not reader.n_bytes:
        return reader.n_packets
    # kernels walk payload too: 1,500 bytes of it count like another packet
    return max(reader.n_packets * size // reader.n_bytes, size // 1500)


def _to_batches(finished: list[Finished], source: sources.Source, known: knowledge.Catalogue) -> Iterator[Batch]:
    for some in finished:
        closes, connections = to_tables(some, source=source.name, catalogue=known)
        yield Batch(closes, connections, Table(INPUTS))


def _describe(
    source: sources.Source, reader: Reader | None, tracker: Tracker, status: str, message: str | None
) -> Table:
    """The row of `inputs` for one file."""
    row: dict[str, Any] = {"source": source.name, "status": status, "message": message}
    if reader is not None:
        size = source.size_bytes()
        lost = None
        if reader.damaged_at is not None and size is not None:
            lost = max(0, size - reader.damaged_at)
        row |= {
            "kind": reader.kind,
            "compression": "none",
            "bytes": reader.n_bytes,
            "records": reader.n_packets,
            "flows": tracker.n_flows,
            "connections": tracker.n_connections,
            "first": reader.first_ns,
            "last": reader.last_ns,
            "damaged_at": reader.damaged_at,
            "lost_bytes": lost,
            "skipped_encrypted": tracker.n_encrypted,
            "skipped_midstream": tracker.n_midstream,
            "skipped_evicted": tracker.n_evicted,
            "skipped_parked": tracker.n_dropped_segments,
            "skipped_heads": tracker.n_skipped_heads,
        }
        row |= {f"skipped_{c.name.lower()}": int(tracker.counters[c]) for c in Counter}
    return Table(INPUTS, {name: [value] for name, value in row.items()})


class Analysis:
    """Everything that was read, gathered.

    Attributes:
        counts: The fold that reports are made of.

    """

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self.counts = Counts()

    def add(self, batch: Batch) -> None:
        """Take a batch of rows in."""
        self.counts.add(batch.closes, batch.connections, batch.inputs)
        self._batches.append(batch)

    @cached_property
    def closes(self) -> "pd.DataFrame":
        """One row per endpoint's view of one end (columns: docs/columns.md)."""
        return Table.concatenate(CLOSES, [batch.closes for batch in self._batches]).to_pandas()

    @cached_property
    def connections(self) -> "pd.DataFrame":
        """One row per WebSocket connection."""
        return Table.concatenate(CONNECTIONS, [batch.connections for batch in self._batches]).to_pandas()

    @cached_property
    def inputs(self) -> "pd.DataFrame":
        """One row per file: what was read of it, and what could not be seen."""
        return Table.concatenate(INPUTS, [batch.inputs for batch in self._batches]).to_pandas()

    def report(self) -> "Report":
        """Frequencies with their documented diagnosis; shows itself in a notebook and prints as text."""
        from analyzer.report.document import Report

        return Report(self.counts, knowledge.load())

    def __repr__(self) -> str:
        n, views = self.counts.n_inputs, sum(self.counts.views.values())
        return f"<Analysis of {n} input{'s' * (n != 1)}: {self.counts.n_connections} connections, {views} views>"


def read(*paths: Path, ports: tuple[int, ...] = (), max_flows: int = MAX_FLOWS) -> Analysis:
    """Read captures and gather all rows; arguments as for `stream`.

    Raises:
        UsageError: Nothing to read.
        CaptureError: Not one input could be read.

    """
    analysis = Analysis()
    for batch in stream(*paths, ports=ports, max_flows=max_flows):
        analysis.add(batch)
    failed = [row for row in analysis.counts.inputs if row["status"] == "failed"]
    if len(failed) == len(analysis.counts.inputs):
        raise CaptureError(failed[0]["source"], failed[0]["message"])
    return analysis
