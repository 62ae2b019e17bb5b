"""Inputs to rows: whether capture or log, in bounded memory, each with its row of `inputs` at its end.

Captures that continue one another share a tracker, so that a connection that spans files is one row.
"""

import datetime as dt
import pathlib
import select as polling
import sys
import time
import zoneinfo
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol

from analyzer import kernel, series, sources
from analyzer.capture.container import Chunk, Reader
from analyzer.capture.finished import Finished
from analyzer.capture.numbering import Numbering
from analyzer.capture.tracker import MAX_FLOWS, Tracker
from analyzer.errors import CaptureError, UsageError
from analyzer.keys import KeyRing
from analyzer.knowledge import catalogue as knowledge
from analyzer.model import CLOSES, CONNECTIONS, INPUTS, Counter
from analyzer.packing import Unpacked
from analyzer.selection import Selection
from analyzer.table import Table
from analyzer.verdict.connections import to_tables
from analyzer.verdict.opaque import Asserted, Opaque

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
        series: Whether captures that continue one another are analysed as one.
        keys: Key log files for TLS.
        late_keys: Whether these may appear later.
        ws_hosts: Server names whose TLS carries WebSockets even where nothing opens it; patterns such as
            `*.example.org` among them.
        ws_ports: Server ports of which the same is said.

    """

    ports: tuple[int, ...] = ()
    max_flows: int = MAX_FLOWS
    formats: tuple[pathlib.Path, ...] = ()
    tz: str | None = None
    dedupe: bool = True
    selection: Selection = Selection()
    series: bool = True
    keys: tuple[pathlib.Path, ...] = ()
    late_keys: bool = False
    ws_hosts: tuple[str, ...] = ()
    ws_ports: tuple[int, ...] = ()

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

    def batches(self) -> Iterator[Batch | None]:
        """Rows as they are found, up to the end; None where some more was read and nothing found."""

    def finish(self) -> Iterator[Batch]:
        """What is left when no more is read."""

    def conclude(self) -> tuple[str, str | None]:
        """Status and message."""

    def describe(self) -> dict[str, Any]:
        """Columns of the row of `inputs`."""


class Packets(Protocol):
    """What gives packets as chunks though it is no file; attributes as of `container.Reader`."""

    kind: str
    n_bytes: int
    n_packets: int
    first_ns: int | None
    last_ns: int | None

    def chunks(self) -> Iterator[Chunk]:
        """Yield the packets chunk by chunk."""


class _Following:
    """Connections while they are followed, through one capture or several that continue one another.

    Attributes:
        extent: The last file that held packets.
        may_lack: Whether packets may be missing behind what was read last.
        bytes_to_come: Size of the files that may follow.

    """

    def __init__(self, settings: Settings) -> None:
        self.extent: series.Extent | None = None
        self.may_lack = False
        self.bytes_to_come = 0
        self.keys = KeyRing(settings.keys, is_late=settings.late_keys)
        self._tracker = Tracker(
            ports=settings.ports,
            max_flows=settings.max_flows,
            secrets=self.keys,
            judge=Opaque(Asserted(settings.ws_hosts, settings.ws_ports)),
        )
        self._numbering = Numbering()
        self._known = knowledge.load()
        self._started = time.process_time()  # waiting for packets to come is no reason to compile
        self._told = dict.fromkeys(self._counts(), 0)

    def begin(self, source: str) -> None:
        """Packets come from this file from now on."""
        self._numbering.begin(source)

    def feed(self, chunk: Chunk, to_come: int) -> Iterator[Batch]:
        """Follow some packets; about so many are to come in all of their file."""
        spent = int((time.process_time() - self._started) / kernel.INTERPRETED_S)
        first = self._numbering.n_packets + 1
        kernel.expect(max(first + to_come + self.bytes_to_come // PACKET_BYTES, spent))
        self._numbering.add(len(chunk.packets))
        yield from self._to_batches(self._tracker.feed(chunk._replace(first_packet=first)))

    def goes_on(self, following: series.Member | None) -> bool:
        """Whether this file continues what was read; silence so far counts for nothing where packets may lack."""
        if following is None or self.extent is None or not series.continues(self.extent, following):
            return False
        if self.may_lack or series.may_lack_packets(self.extent, following):
            self._tracker.forget_stalls()
        self.may_lack = False
        return True

    def finish(self) -> Iterator[Batch]:
        yield from self._to_batches(self._tracker.finish())

    def _to_batches(self, finished: list[Finished]) -> Iterator[Batch]:
        for some in finished:
            closes, connections = to_tables(some, catalogue=self._known, numbering=self._numbering)
            yield Batch(closes, connections, Table(INPUTS))

    def _counts(self) -> dict[str, int]:
        tracker = self._tracker
        counts = {
            "flows": tracker.n_flows,
            "connections": tracker.n_connections,
            "tls": tracker.n_tls,
            "tls_opened": tracker.n_opened,
            "skipped_encrypted": tracker.n_encrypted,
            "skipped_partly_opened": tracker.n_partly_opened,
            "skipped_tls_failed": tracker.n_tls_failed,
            "skipped_midstream": tracker.n_midstream,
            "skipped_candidates": tracker.n_skipped_candidates,
            "skipped_evicted": tracker.n_evicted,
            "skipped_parked": tracker.n_dropped_segments,
            "skipped_heads": tracker.n_skipped_heads,
            "skipped_layers": tracker.n_skipped_layers,
            "skipped_records": tracker.n_skipped_records,
            "skipped_messages": tracker.n_skipped_messages,
            "skipped_secrets": self.keys.keys.n_dropped,
            "skipped_key_lines": self.keys.keys.n_bad,
            "skipped_streams": tracker.n_skipped_streams,
            "skipped_requests": tracker.n_skipped_requests,
        }
        return counts | {f"skipped_{c.name.lower()}": int(tracker.counters[c]) for c in Counter}

    def describe(self) -> dict[str, int]:
        """What was counted since this was last asked: every file tells its own."""
        told, self._told = self._told, self._counts()
        counts = {name: n - told[name] for name, n in self._told.items()}
        return {**counts, "secrets": self.keys.keys.n_secrets}


class _CaptureReading:
    """Packets to connections to rows."""

    def __init__(self, file: Unpacked, source: sources.Source, following: _Following) -> None:
        self._size = source.size_bytes() if file.compression == "none" else None
        self._reader = Reader(following.keys.tap(file, source), source.name)
        self._following = following
        following.begin(source.name)
        following.keys.begin(source, self._reader.kind)

    def batches(self) -> Iterator[Batch | None]:
        reader = self._reader
        for chunk in reader.chunks():
            yield from self._following.feed(chunk, self._packets_to_come())
            if reader.first_ns is not None and reader.last_ns is not None:
                self._following.extent = series.Extent(reader.first_ns, reader.last_ns, reader.link_types)
            yield None

    def finish(self) -> Iterator[Batch]:
        yield from self._following.finish()

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

    def describe(self) -> dict[str, Any]:
        reader = self._reader
        lost = None
        if reader.damaged_at is not None and self._size is not None:
            lost = max(0, self._size - reader.damaged_at)
        return {
            "kind": reader.kind,
            "bytes": reader.n_bytes,
            "records": reader.n_packets,
            "first": reader.first_ns,
            "last": reader.last_ns,
            "damaged_at": reader.damaged_at,
            "lost_bytes": lost,
        }


class _LogReading:
    """Lines to rows."""

    def __init__(self, file: Unpacked, source: sources.Source, settings: Settings) -> None:
        # captures need none of it, and it takes as long as opening one does
        from analyzer.logs import catalogue
        from analyzer.logs.reader import LogReader
        from analyzer.logs.timestamp import Clock

        self._file = file
        self._settings = settings
        self._n_bytes = 0
        changed_ns = source.changed_ns()
        self._clock = Clock(zone=settings.zone(), newest_ns=time.time_ns() if changed_ns is None else changed_ns)
        self._reader = LogReader(
            catalogue.load(*settings.formats),
            self._clock,
            source.name,
            dedupe=settings.dedupe,
        )
        self._is_live = source.size_bytes() is None and sys.platform != "win32"

    def batches(self) -> Iterator[Batch | None]:
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


def read_series(members: series.Series, settings: Settings, progress: Progress | None) -> Generator[Batch, None, None]:
    """Read files that may continue one another; the last batch of each holds its row of `inputs`.

    Where a file does not continue the one before it, everything that is open ends, as if they were read apart.

    Raises:
        KeyboardInterrupt: It was interrupted; all that was found before was yielded.

    """
    if len(members) == 1:
        yield from _read_file(members[0].source, settings, progress, None, None)
        return
    following: _Following | None = None
    sizes = [member.source.size_bytes() or 0 for member in members]
    to_come = sum(sizes)
    for member, size, successor in zip(members, sizes, (*members[1:], None), strict=True):
        to_come -= size
        following = following or _Following(settings)
        following.bytes_to_come = to_come
        goes_on = yield from _read_file(member.source, settings, progress, following, successor)
        if not goes_on:
            following = None


def _read_file(
    source: sources.Source,
    settings: Settings,
    progress: Progress | None,
    following: _Following | None,
    successor: series.Member | None,
) -> Generator[Batch, None, bool]:
    """Read one file; whether the one after it goes on where it ends comes back."""
    reading: _Reading | None = None
    file: Unpacked | None = None
    status, message = "interrupted", None
    sieve = Sieve(settings.selection)
    goes_on = False
    try:
        try:
            with source.open() as file:
                kind = sources.sniff(file.peek(sources.HEAD_BYTES), source.name)
                if kind == "capture" or following is not None:
                    followed = following or _Following(settings)
                    reading = _CaptureReading(file, source, followed)
                    following = followed
                else:
                    reading = _LogReading(file, source, settings)
                size = source.size_bytes()
                for batch in reading.batches():
                    if batch is not None:
                        yield sieve.apply(batch)
                    if progress is not None:
                        progress(source.name, file.n_packed_bytes, size)
                status, message = reading.conclude()
                if file.damage is not None:
                    status, message = "damaged", file.damage
                elif file.is_cut:
                    status, message = "cut", f"the {file.compression} data is cut off"
        except CaptureError as error:
            status, message = "failed", error.why
        except OSError as error:
            status, message = "failed", (error.strerror or str(error)).lower()
        if following is not None:
            following.may_lack |= status != "ok"
            goes_on = following.goes_on(successor)
        if not goes_on:
            yield from map(sieve.apply, _rest(reading, following))
    except KeyboardInterrupt:
        status, message, goes_on = "interrupted", None, False
        yield from map(sieve.apply, _rest(reading, following))
    row: dict[str, Any] = {"source": source.name, "status": status, "message": message, "left_out": sieve.n_left_out}
    if reading is not None and file is not None:
        row |= {"compression": file.compression, **reading.describe()}
    if following is not None and (reading is not None or not goes_on):
        counts = following.describe()
        row |= counts if reading is not None or any(counts.values()) else {}
    yield Batch(Table(CLOSES), Table(CONNECTIONS), Table(INPUTS, {name: [value] for name, value in row.items()}))
    if status == "interrupted":
        raise KeyboardInterrupt
    return goes_on


def _rest(reading: _Reading | None, following: _Following | None) -> Iterator[Batch]:
    """What is left when no more is read."""
    if reading is not None:
        yield from reading.finish()
    elif following is not None:
        yield from following.finish()


def read_chunks(packets: Packets, name: str, settings: Settings) -> Iterator[Batch]:
    """Read packets that come from no file; the last batch holds their row of `inputs`.

    Args:
        packets: Where they come from.
        name: What `source` calls that.
        settings: As for files.

    """
    following = _Following(settings)
    following.begin(name)
    if packets.kind == "live":
        following.keys.begin_live()
    sieve = Sieve(settings.selection)
    for chunk in packets.chunks():
        yield from map(sieve.apply, following.feed(chunk, 0))
    yield from map(sieve.apply, following.finish())
    row = {
        "source": name,
        "kind": packets.kind,
        "bytes": packets.n_bytes,
        "records": packets.n_packets,
        "first": packets.first_ns,
        "last": packets.last_ns,
        "status": "ok",
        "left_out": sieve.n_left_out,
        **following.describe(),
    }
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
