"""Sources to rows: the one loop that commands, notebooks and scripts share."""

import contextlib
import datetime as dt
import functools
import os
import pathlib
import pickle
import select
import sys
import tempfile
import time
import zoneinfo
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from analyzer import kernel, pool, sources
from analyzer.capture.container import Reader
from analyzer.capture.tracker import MAX_FLOWS, Finished, Tracker
from analyzer.errors import CaptureError, UsageError
from analyzer.knowledge import catalogue as knowledge
from analyzer.logs import catalogue as formats_catalogue
from analyzer.logs.reader import LogReader
from analyzer.logs.timestamp import Clock
from analyzer.model import CLOSES, CONNECTIONS, INPUTS, Counter, Table
from analyzer.packing import Unpacked
from analyzer.pool import Result
from analyzer.report.counts import Counts
from analyzer.verdict.connections import to_tables

if TYPE_CHECKING:
    import pandas as pd

    from analyzer.report.document import Report

Path = str | os.PathLike[str]

LOG_CHUNK_BYTES = 1 << 21
PACKET_BYTES = 1500
"""Packets of a capture are at most about so large, so that it holds this many at least."""

IDLE_S = 2.0
"""A live log that says nothing for so long gets its waiting rows written."""


class Batch(NamedTuple):
    """Rows as they are found. `inputs` has a row once a file is done, the other two while it is read."""

    closes: Table
    connections: Table
    inputs: Table


Progress = Callable[[str, int, int | None], None]
"""Called with source, bytes read (packed ones where it is packed) and size in bytes (None where unknown)."""


class Settings(NamedTuple):
    """How inputs are read; the same for all of them, in whatever process.

    Attributes:
        ports: Server ports whose connections are WebSockets even where the capture lacks their handshake.
        max_flows: TCP connections that may be open at once; beyond it those idle longest are dropped and counted.
        formats: Directories with further log formats.
        tz: Time zone of logs that name none, None for UTC, which is then said to be assumed.
        dedupe: Whether lines of a log about one close become one row.

    """

    ports: tuple[int, ...] = ()
    max_flows: int = MAX_FLOWS
    formats: tuple[pathlib.Path, ...] = ()
    tz: str | None = None
    dedupe: bool = True

    def zone(self) -> dt.tzinfo:
        """The time zone by its name.

        Raises:
            UsageError: There is none of this name.

        """
        if self.tz is None or self.tz.upper() == "UTC":
            return dt.UTC
        try:
            return zoneinfo.ZoneInfo(self.tz)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(f"{self.tz}: no such time zone; name one like Europe/Vienna") from error


def stream(
    *paths: Path,
    ports: tuple[int, ...] = (),
    max_flows: int = MAX_FLOWS,
    formats: Iterable[Path] = (),
    tz: str | None = None,
    dedupe: bool = True,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """Read captures and logs and yield rows in bounded memory, as connections end or lines tell of it.

    Args:
        paths: Files, directories, patterns, `-` for standard input.
        ports: Server ports whose connections are WebSockets even where the capture lacks their handshake.
        max_flows: TCP connections that may be open at once; beyond it those idle longest are dropped and counted.
        formats: Directories with further log formats (docs/log_formats.md).
        tz: Time zone of logs that name none, such as `Europe/Vienna`; UTC is assumed without it.
        dedupe: Whether lines of a log about one close become one row.
        jobs: Processes that may read side by side; rows come in the same order whatever their number.
        progress: Told after every chunk, or every file where several are read at once, how far it is read.

    Raises:
        UsageError: Nothing to read, or no such time zone. A file that cannot be read raises nothing: its row of
            `inputs` says so.
        CatalogueError: A log format is broken.

    """
    settings = Settings(ports, max_flows, tuple(pathlib.Path(one) for one in formats), tz, dedupe)
    yield from stream_sources(prepare(paths, settings), settings, jobs=jobs, progress=progress)


def prepare(paths: Iterable[Path], settings: Settings) -> list[sources.Source]:
    """Find the inputs, and see that the settings hold before anything is read.

    Raises:
        UsageError: Nothing to read, or no such time zone.
        CatalogueError: A log format is broken.

    """
    settings.zone()
    if settings.formats:
        formats_catalogue.load(*settings.formats)
    return sources.find_sources(paths)


def stream_sources(
    found: list[sources.Source], settings: Settings, *, jobs: int = 1, progress: Progress | None = None
) -> Iterator[Batch]:
    """Rows of inputs that were found before; arguments as for `stream`."""
    workers = pool.n_workers(found, jobs)
    if workers == 1:
        for source in found:
            yield from read_source(source, settings, progress)
        return
    with tempfile.TemporaryDirectory(prefix="wsclose-") as directory:
        spool = functools.partial(_spool, settings=settings, directory=directory)
        broken = functools.partial(_spool_loss, directory=directory)
        for path in _side_by_side(spool, found, workers=workers, broken=broken, progress=progress):
            yield from _unspool(path)


def fold_sources(
    found: list[sources.Source], settings: Settings, *, jobs: int = 1, progress: Progress | None = None
) -> Iterator[Counts]:
    """Count inputs that were found before, each by itself: `Counts.merge` puts them together."""
    workers = pool.n_workers(found, jobs)
    if workers == 1:
        for source in found:
            counts = Counts()
            try:
                for batch in read_source(source, settings, progress):
                    counts.add(*batch)
            except KeyboardInterrupt:
                yield counts
                raise
            yield counts
        return
    count = functools.partial(_count, settings=settings)
    yield from _side_by_side(count, found, workers=workers, broken=_count_loss, progress=progress)


def _side_by_side(
    work: Callable[[sources.Source], Result],
    found: list[sources.Source],
    *,
    workers: int,
    broken: Callable[[sources.Source], Result],
    progress: Progress | None,
) -> Iterator[Result]:
    """Do this for every input in processes; progress is told when a result was taken."""
    _compile_for(found)
    for source, result in zip(found, pool.map_sources(work, found, workers=workers, broken=broken), strict=True):
        yield result
        if progress is not None:
            progress(source.name, source.size_bytes() or 0, source.size_bytes())


def _compile_for(found: list[sources.Source]) -> None:
    """Compile the kernels before processes start, where captures are large enough for it: each would do it again."""
    sized = sorted(((source.size_bytes() or 0, source) for source in found), key=itemgetter(0), reverse=True)
    for size, source in sized:
        n_packets = size // PACKET_BYTES
        if n_packets < kernel.LOAD_AFTER_PACKETS:
            break
        with contextlib.suppress(CaptureError, OSError), source.open() as file:
            if sources.sniff(file.peek(sources.HEAD_BYTES), source.name) == "capture":
                kernel.expect(n_packets)
                break  # the largest decides


def _count(source: sources.Source, settings: Settings) -> Counts:
    counts = Counts()
    for batch in read_source(source, settings, None):
        counts.add(*batch)
    return counts


def _count_loss(source: sources.Source) -> Counts:
    counts = Counts()
    counts.add(*_loss(source))
    return counts


def _loss(source: sources.Source) -> Batch:
    """The row of an input whose process died."""
    row = {"source": [source.name], "status": ["failed"], "message": ["the process that read it died"]}
    return Batch(Table(CLOSES), Table(CONNECTIONS), Table(INPUTS, row))


def _spool(source: sources.Source, settings: Settings, directory: str) -> str:
    """Write the batches of an input to a file, so that memory holds one of them at a time; returns its name."""
    return _write_spool(read_source(source, settings, None), directory)


def _spool_loss(source: sources.Source, directory: str) -> str:
    return _write_spool([_loss(source)], directory)


def _write_spool(batches: Iterable[Batch], directory: str) -> str:
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
        for batch in batches:
            pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
    return file.name


def _unspool(path: str) -> Iterator[Batch]:
    with open(path, "rb") as file:  # noqa: PTH123
        while True:
            try:
                yield pickle.load(file)  # noqa: S301  a worker of ours wrote it, in a directory of our own
            except EOFError:
                break
    pathlib.Path(path).unlink()


class _Reading(Protocol):
    """One input while it is read."""

    def batches(self) -> Iterator[Batch]:
        """Rows as they are found, up to the end."""

    def finish(self) -> Iterator[Batch]:
        """What is left when no more is read."""

    def conclude(self) -> tuple[str, str | None]:
        """Status and message."""

    def describe(self) -> dict[str, Any]:
        """Columns of the row of `inputs`."""


class _CaptureReading:
    """Packets to connections to rows."""

    def __init__(self, file: Unpacked, source: sources.Source, settings: Settings) -> None:
        self._source = source
        self._size = source.size_bytes() if file.compression == "none" else None
        self._reader = Reader(file, source.name)
        self._tracker = Tracker(ports=settings.ports, max_flows=settings.max_flows)
        self._known = knowledge.load()
        self._started = time.monotonic()

    def batches(self) -> Iterator[Batch]:
        for chunk in self._reader.chunks():
            spent = int((time.monotonic() - self._started) / kernel.INTERPRETED_S)
            kernel.expect(max(self._packets_to_come(), spent))
            yield from self._to_batches(self._tracker.feed(chunk))

    def finish(self) -> Iterator[Batch]:
        yield from self._to_batches(self._tracker.finish())

    def conclude(self) -> tuple[str, str | None]:
        if self._reader.damaged_at is not None:
            return "damaged", self._reader.damage
        return ("cut", "the last record is cut off") if self._reader.is_cut else ("ok", None)

    def _packets_to_come(self) -> int:
        """Estimate from the packets so far: in a file all of it, in a stream what came already."""
        reader = self._reader
        if self._size is None or not reader.n_bytes:
            return reader.n_packets
        # kernels walk payload too: 1,500 bytes of it count like another packet
        return max(reader.n_packets * self._size // reader.n_bytes, self._size // PACKET_BYTES)

    def _to_batches(self, finished: list[Finished]) -> Iterator[Batch]:
        for some in finished:
            closes, connections = to_tables(some, source=self._source.name, catalogue=self._known)
            yield Batch(closes, connections, Table(INPUTS))

    def describe(self) -> dict[str, Any]:
        reader, tracker = self._reader, self._tracker
        lost = None
        if reader.damaged_at is not None and self._size is not None:
            lost = max(0, self._size - reader.damaged_at)
        row = {
            "kind": reader.kind,
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
        return row | {f"skipped_{c.name.lower()}": int(tracker.counters[c]) for c in Counter}


class _LogReading:
    """Lines to rows."""

    def __init__(self, file: Unpacked, source: sources.Source, settings: Settings) -> None:
        self._file = file
        self._settings = settings
        self._n_bytes = 0
        changed_ns = source.changed_ns()
        self._clock = Clock(zone=settings.zone(), newest_ns=time.time_ns() if changed_ns is None else changed_ns)
        self._reader = LogReader(
            formats_catalogue.load(*settings.formats),
            self._clock,
            source.name,
            dedupe=settings.dedupe,
        )
        self._is_live = source.size_bytes() is None and sys.platform != "win32"

    def batches(self) -> Iterator[Batch]:
        while True:
            if self._is_live and not self._has_more():
                yield self._batch(self._reader.rest())
            data = self._file.read(LOG_CHUNK_BYTES)
            if not data:
                return
            self._n_bytes += len(data)
            yield self._batch(self._reader.feed(data))

    def finish(self) -> Iterator[Batch]:
        yield self._batch(self._reader.finish())

    @staticmethod
    def _batch(closes: Table) -> Batch:
        return Batch(closes, Table(CONNECTIONS), Table(INPUTS))

    def _has_more(self) -> bool:
        """Whether the next read returns soon."""
        if self._file.peeked:
            return True
        ready, _, _ = select.select([self._file.fileno()], [], [], IDLE_S)
        return bool(ready)

    def conclude(self) -> tuple[str, str | None]:
        return "ok", None

    def describe(self) -> dict[str, Any]:
        reader, clock = self._reader, self._clock
        return {
            "kind": "log",
            "bytes": self._n_bytes,
            "records": reader.n_lines,
            "first": reader.first_ns,
            "last": reader.last_ns,
            "assumed_tz": (self._settings.tz or "UTC") if clock.assumed_zone else None,
            "assumed_year": clock.assumed_year,
            "joined_lines": reader.n_joined,
            "skipped_long_lines": reader.n_long,
            "skipped_unopened": reader.n_unopened,
        }


READINGS: dict[str, Callable[[Unpacked, sources.Source, Settings], _Reading]] = {
    "capture": _CaptureReading,
    "log": _LogReading,
}
"""What reads an input, by what `sources.sniff` says that it is."""


def read_source(source: sources.Source, settings: Settings, progress: Progress | None) -> Iterator[Batch]:
    """Read one input; its last batch holds its row of `inputs`.

    Raises:
        KeyboardInterrupt: It was interrupted; all that was found before was yielded.

    """
    reading: _Reading | None = None
    file: Unpacked | None = None
    status, message = "interrupted", None
    try:
        with source.open() as file:
            reading = READINGS[sources.sniff(file.peek(sources.HEAD_BYTES), source.name)](file, source, settings)
            size = source.size_bytes()
            for batch in reading.batches():
                yield batch
                if progress is not None:
                    progress(source.name, file.n_packed_bytes, size)
            yield from reading.finish()
            status, message = reading.conclude()
            if file.damage is not None:
                status, message = "damaged", file.damage
            elif file.is_cut:
                status, message = "cut", f"the {file.compression} data is cut off"
    except KeyboardInterrupt:
        if reading is not None:
            yield from reading.finish()
    except CaptureError as error:
        status, message = "failed", error.why
    except OSError as error:
        status, message = "failed", (error.strerror or str(error)).lower()
    row: dict[str, Any] = {"source": source.name, "status": status, "message": message}
    if reading is not None and file is not None:
        row |= {"compression": file.compression, **reading.describe()}
    yield Batch(Table(CLOSES), Table(CONNECTIONS), Table(INPUTS, {name: [value] for name, value in row.items()}))
    if status == "interrupted":
        raise KeyboardInterrupt


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


def read(
    *paths: Path,
    ports: tuple[int, ...] = (),
    max_flows: int = MAX_FLOWS,
    formats: Iterable[Path] = (),
    tz: str | None = None,
    dedupe: bool = True,
    jobs: int = 1,
) -> Analysis:
    """Read captures and logs and gather all rows; arguments as for `stream`.

    Raises:
        UsageError: Nothing to read, or no such time zone.
        CatalogueError: A log format is broken.
        CaptureError: Not one input could be read.

    """
    analysis = Analysis()
    for batch in stream(*paths, ports=ports, max_flows=max_flows, formats=formats, tz=tz, dedupe=dedupe, jobs=jobs):
        analysis.add(batch)
    failed = [row for row in analysis.counts.inputs if row["status"] == "failed"]
    if len(failed) == len(analysis.counts.inputs):
        raise CaptureError(failed[0]["source"], failed[0]["message"])
    return analysis
