"""One input to rows: whether capture or log, in bounded memory, with its row of `inputs` at the end."""

import datetime as dt
import pathlib
import select as polling
import sys
import time
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from analyzer import kernel, sources
from analyzer.capture.container import Chunk, Reader
from analyzer.capture.tracker import MAX_FLOWS, Finished, Tracker
from analyzer.errors import CaptureError, UsageError
from analyzer.knowledge import catalogue as knowledge
from analyzer.logs import catalogue as formats_catalogue
from analyzer.logs.reader import LogReader
from analyzer.logs.timestamp import Clock
from analyzer.model import CLOSES, CONNECTIONS, INPUTS, Counter, Table
from analyzer.packing import Unpacked
from analyzer.selection import Selection
from analyzer.verdict.connections import to_tables

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
        selection: Which closes are wanted; the others are counted as left out.

    """

    ports: tuple[int, ...] = ()
    max_flows: int = MAX_FLOWS
    formats: tuple[pathlib.Path, ...] = ()
    tz: str | None = None
    dedupe: bool = True
    selection: Selection = Selection()

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


class Packets(Protocol):
    """What gives packets as chunks: a file, scapy packets, an interface; attributes as of `container.Reader`."""

    kind: str
    n_bytes: int
    n_packets: int
    first_ns: int | None
    last_ns: int | None
    is_cut: bool
    damaged_at: int | None
    damage: str | None

    def chunks(self) -> Iterator[Chunk]:
        """Yield the packets chunk by chunk."""


class _CaptureReading:
    """Packets to connections to rows."""

    def __init__(self, reader: Packets, name: str, settings: Settings, *, size: int | None = None) -> None:
        self._reader = reader
        self._name = name
        self._size = size
        self._tracker = Tracker(ports=settings.ports, max_flows=settings.max_flows)
        self._known = knowledge.load()
        self._started = time.process_time()  # waiting for packets to come is no reason to compile

    def batches(self) -> Iterator[Batch]:
        for chunk in self._reader.chunks():
            spent = int((time.process_time() - self._started) / kernel.INTERPRETED_S)
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
            closes, connections = to_tables(some, source=self._name, catalogue=self._known)
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
        ready, _, _ = polling.select([self._file.fileno()], [], [], IDLE_S)
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


def _read_capture(file: Unpacked, source: sources.Source, settings: Settings) -> _CaptureReading:
    size = source.size_bytes() if file.compression == "none" else None
    return _CaptureReading(Reader(file, source.name), source.name, settings, size=size)


READINGS: dict[str, Callable[[Unpacked, sources.Source, Settings], _Reading]] = {
    "capture": _read_capture,
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
    sieve = Sieve(settings.selection)
    try:
        with source.open() as file:
            reading = READINGS[sources.sniff(file.peek(sources.HEAD_BYTES), source.name)](file, source, settings)
            size = source.size_bytes()
            for batch in reading.batches():
                yield sieve.apply(batch)
                if progress is not None:
                    progress(source.name, file.n_packed_bytes, size)
            yield from map(sieve.apply, reading.finish())
            status, message = reading.conclude()
            if file.damage is not None:
                status, message = "damaged", file.damage
            elif file.is_cut:
                status, message = "cut", f"the {file.compression} data is cut off"
    except KeyboardInterrupt:
        if reading is not None:
            yield from map(sieve.apply, reading.finish())
    except CaptureError as error:
        status, message = "failed", error.why
    except OSError as error:
        status, message = "failed", (error.strerror or str(error)).lower()
    row: dict[str, Any] = {"source": source.name, "status": status, "message": message, "left_out": sieve.n_left_out}
    if reading is not None and file is not None:
        row |= {"compression": file.compression, **reading.describe()}
    yield Batch(Table(CLOSES), Table(CONNECTIONS), Table(INPUTS, {name: [value] for name, value in row.items()}))
    if status == "interrupted":
        raise KeyboardInterrupt


def read_chunks(packets: Packets, name: str, settings: Settings) -> Iterator[Batch]:
    """Read packets that come from no file; the last batch holds their row of `inputs`.

    Args:
        packets: Where they come from.
        name: What `source` calls that.
        settings: As for files.

    """
    reading = _CaptureReading(packets, name, settings)
    sieve = Sieve(settings.selection)
    yield from map(sieve.apply, reading.batches())
    yield from map(sieve.apply, reading.finish())
    status, message = reading.conclude()
    row = {"source": name, "status": status, "message": message, "left_out": sieve.n_left_out}
    row |= reading.describe()
    yield Batch(Table(CLOSES), Table(CONNECTIONS), Table(INPUTS, {name: [value] for name, value in row.items()}))


class Sieve:
    """Lets the closes of a selection through, and counts the others."""

    def __init__(self, selection: Selection) -> None:
        """Begin with nothing left out."""
        self._selection = selection
        self.n_left_out = 0

    def apply(self, batch: Batch) -> Batch:
        """The batch with the rows that pass."""
        closes, connections = self._selection.apply(batch.closes, batch.connections)
        self.n_left_out += len(batch.closes) - len(closes)
        return Batch(closes, connections, batch.inputs)
