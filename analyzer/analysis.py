"""Sources to rows: the one loop that commands, notebooks and scripts share."""

import contextlib
import datetime as dt
import functools
import itertools
import os
import pathlib
import pickle
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING

from analyzer import kernel, pool, sources
from analyzer import series as rotated
from analyzer.capture.container import Reader
from analyzer.capture.tracker import MAX_FLOWS, Tracker
from analyzer.errors import CaptureError
from analyzer.keys import check_keys
from analyzer.knowledge import catalogue as knowledge
from analyzer.model import CLOSES, CONNECTIONS, DIMENSIONS, INPUTS
from analyzer.pool import Result
from analyzer.progress import choose
from analyzer.reading import PACKET_BYTES, Batch, Progress, Settings, Sieve, read_chunks, read_series
from analyzer.report.counts import TOP, Counts
from analyzer.selection import Filter, Selection, parse_step, select
from analyzer.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from analyzer.capture.scapy_io import Packets
    from analyzer.connection import Connection
    from analyzer.report.document import Report

Path = str | os.PathLike[str]


def stream(
    *paths: Path,
    ports: tuple[int, ...] = (),
    max_flows: int = MAX_FLOWS,
    formats: Iterable[Path] = (),
    tz: str | None = None,
    dedupe: bool = True,
    series: bool = True,
    keys: Iterable[Path] = (),
    ws_hosts: tuple[str, ...] = (),
    ws_ports: tuple[int, ...] = (),
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
        series: Whether captures that continue one another (`tcpdump -C`, `-G`, `dumpcap -b`) are analysed as one.
        keys: Key log files (`SSLKEYLOGFILE`) that open TLS; those in a pcapng file are found there.
        ws_hosts: Server names whose TLS carries WebSockets even where nothing opens it; patterns such as
            `*.example.org` among them.
        ws_ports: Server ports of which the same is said.
        jobs: Processes that may read side by side; rows come in the same order whatever their number.
        progress: Told after every chunk, or every file where several are read at once, how far it is read.

    Raises:
        UsageError: Nothing to read, no such time zone, or a key log that cannot be read. Another file that cannot be
            read raises nothing: its row of `inputs` says so.
        CatalogueError: A log format is broken.

    """
    settings = _settings(ports, max_flows, formats, tz, dedupe, series, keys, ws_hosts, ws_ports)
    yield from stream_sources(prepare(paths, settings), settings, jobs=jobs, progress=progress)


def _settings(
    ports: tuple[int, ...],
    max_flows: int,
    formats: Iterable[Path],
    tz: str | None,
    dedupe: bool,
    series: bool,
    keys: Iterable[Path],
    ws_hosts: tuple[str, ...],
    ws_ports: tuple[int, ...],
) -> Settings:
    return Settings(
        ports=ports,
        max_flows=max_flows,
        formats=tuple(map(pathlib.Path, formats)),
        tz=tz,
        dedupe=dedupe,
        series=series,
        keys=tuple(map(pathlib.Path, keys)),
        ws_hosts=ws_hosts,
        ws_ports=ws_ports,
    )


def prepare(paths: Iterable[Path], settings: Settings) -> list[sources.Source]:
    """Find the inputs, and see that the settings hold before anything is read.

    Raises:
        UsageError: Nothing to read, no such time zone, or a key log that cannot be read.
        CatalogueError: A log format is broken.

    """
    settings.zone()
    check_keys(settings.keys, is_late=settings.late_keys)
    if settings.formats:
        from analyzer.logs import catalogue

        catalogue.load(*settings.formats)
    return sources.find_sources(paths)


def stream_sources(
    found: list[sources.Source], settings: Settings, *, jobs: int = 1, progress: Progress | None = None
) -> Iterator[Batch]:
    """Rows of inputs that were found before; arguments as for `stream`."""
    works = to_works(found, settings)
    workers = pool.n_workers(found, len(works), jobs)
    if workers == 1:
        for members in works:
            yield from read_series(members, settings, progress)
        return
    with tempfile.TemporaryDirectory(prefix="wsclose-") as directory:
        spool = functools.partial(_spool, settings=settings, directory=directory)
        broken = functools.partial(_spool_loss, directory=directory)
        for path in _side_by_side(spool, works, workers=workers, broken=broken, progress=progress):
            yield from _unspool(path)


def fold_sources(
    found: list[sources.Source],
    settings: Settings,
    *,
    step_ns: int | None = None,
    keeps_rows: bool = True,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Iterator[Counts]:
    """Count inputs that were found before, each series by itself: `Counts.merge` puts them together.

    Args:
        found: From `prepare`.
        settings: How they are read.
        step_ns: As for `Counts`, and `keeps_rows` likewise.
        jobs: Processes that may read side by side.
        progress: As for `stream`.

    """
    works = to_works(found, settings)
    workers = pool.n_workers(found, len(works), jobs)
    if workers == 1:
        for members in works:
            counts = Counts(step_ns=step_ns, keeps_rows=keeps_rows)
            batches = read_series(members, settings, progress)
            try:
                for batch in batches:
                    counts.add(*batch)
            except KeyboardInterrupt:
                for batch in _rest(batches):
                    counts.add(*batch)
                yield counts
                raise
            yield counts
        return
    count = functools.partial(_count, settings=settings, step_ns=step_ns, keeps_rows=keeps_rows)
    broken = functools.partial(_count_loss, step_ns=step_ns)
    yield from _side_by_side(count, works, workers=workers, broken=broken, progress=progress)


def _rest(batches: Generator[Batch, None, None]) -> Iterator[Batch]:
    """What reading still has to say where the interrupt came between two of its steps, and not to it."""
    with contextlib.suppress(KeyboardInterrupt, StopIteration):
        yield batches.throw(KeyboardInterrupt)
        yield from batches


def to_works(found: list[sources.Source], settings: Settings) -> list[rotated.Series]:
    """What is read one after the other: files that may continue one another, or single ones."""
    return rotated.find_series(found) if settings.series else rotated.apart(found)


def _side_by_side(
    function: Callable[[rotated.Series], Result],
    works: list[rotated.Series],
    *,
    workers: int,
    broken: Callable[[rotated.Series], Result],
    progress: Progress | None,
) -> Iterator[Result]:
    """Do this for every series in processes; progress is told when a result was taken."""
    _compile_for(works)
    for members, result in zip(works, pool.map_works(function, works, workers=workers, broken=broken), strict=True):
        yield result
        if progress is not None:
            for source, *_ in members:
                progress(source.name, source.size_bytes() or 0, source.size_bytes())


def _compile_for(works: list[rotated.Series]) -> None:
    """Compile the kernels before processes start, where captures are large enough for it: each would do it again."""
    sized = [(sum(member.source.size_bytes() or 0 for member in members), members[0].source) for members in works]
    for size, source in sorted(sized, key=itemgetter(0), reverse=True):
        n_packets = size // PACKET_BYTES
        if n_packets < kernel.LOAD_AFTER_PACKETS:
            break
        with contextlib.suppress(CaptureError, OSError), source.open() as file:
            if sources.sniff(file.peek(sources.HEAD_BYTES), source.name) == "capture":
                kernel.expect(n_packets)
                if kernel.is_compiled():
                    tracker = Tracker()
                    for chunk in itertools.islice(Reader(file, source.name).chunks(), 1):
                        tracker.feed(chunk)  # a kernel is compiled when it is first called
                    tracker.finish()
                break  # the largest decides


def _count(members: rotated.Series, settings: Settings, step_ns: int | None, keeps_rows: bool) -> Counts:
    counts = Counts(step_ns=step_ns, keeps_rows=keeps_rows)
    for batch in read_series(members, settings, None):
        counts.add(*batch)
    return counts


def _count_loss(members: rotated.Series, step_ns: int | None) -> Counts:
    counts = Counts(step_ns=step_ns)
    counts.add(*_loss(members))
    return counts


def _loss(members: rotated.Series) -> Batch:
    """The rows of inputs whose process died."""
    n = len(members)
    columns = {
        "source": [member.source.name for member in members],
        "status": ["failed"] * n,
        "message": ["the process that read it died"] * n,
    }
    return Batch(Table(CLOSES), Table(CONNECTIONS), Table(INPUTS, columns))


def _spool(members: rotated.Series, settings: Settings, directory: str) -> str:
    """Write the batches of a series to a file, so that memory holds one of them at a time; returns its name."""
    return _write_spool(read_series(members, settings, None), directory)


def _spool_loss(members: rotated.Series, directory: str) -> str:
    return _write_spool([_loss(members)], directory)


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


class Analysis:
    """Everything that was read, gathered.

    Attributes:
        counts: The fold that reports are made of.

    """

    def __init__(self, found: Sequence[sources.Source] = (), settings: Settings | None = None) -> None:
        """Begin with nothing.

        Args:
            found: What the rows come from, to look again at single connections.
            settings: How it was read.

        """
        self._found = list(found)
        self._settings = settings or Settings()
        self._batches: list[Batch] = []
        self.counts = Counts()

    def add(self, batch: Batch) -> None:
        """Take a batch of rows in."""
        self.counts.add(batch.closes, batch.connections, batch.inputs)
        self._batches.append(batch)

    @cached_property
    def _works(self) -> list[rotated.Series]:
        return to_works(self._found, self._settings)

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

    def connection(self, prefix: str | None = None, *, lang: str = "en") -> "Connection":
        """One connection to look at, with its story and its life.

        Args:
            prefix: Beginning of its key in the column `connection`, as much as is needed to tell it from others.
                Without it the only connection there is.
            lang: Language of what people read.

        Raises:
            UsageError: No connection begins so, or more than one, or there is no such language.

        """
        from analyzer.connection import Connection, find
        from analyzer.knowledge import language

        keys = [
            (batch, i)
            for batch in self._batches
            for i, key in enumerate(batch.connections["connection"])
            if key.startswith(prefix or "")
        ]
        rows = [next(iter(batch.connections.take([i]).rows())) for batch, i in keys]
        row = find(rows, prefix)
        batch = next(batch for (batch, _), one in zip(keys, rows, strict=True) if one is row)
        mine = [i for i, key in enumerate(batch.closes["connection"]) if key == row["connection"]]
        return Connection(
            row,
            list(batch.closes.take(mine).rows()),
            rotated.from_source(self._works, row["source"]),
            language=language.load(lang),
            ports=self._settings.ports,
            keys=self._settings.keys,
        )

    def report(
        self,
        *,
        by: str | Sequence[str] = DIMENSIONS,
        freq: str | None = None,
        top: int = TOP,
        lang: str = "en",
        host: Filter = None,
        code: Filter = None,
        since: str | dt.datetime | None = None,
        until: str | dt.datetime | None = None,
        endpoint: Filter = None,
        provenance: Filter = None,
    ) -> "Report":
        """Frequencies with their documented diagnosis; shows itself in a notebook and prints as text.

        Args:
            by: What to break the views down by: host, path, peer, system, subprotocol, or several of them.
            freq: Step of the timeline, such as `10min`, `1h`, `1d`; chosen by the data without it.
            top: Values of each of these to name.
            lang: Language of what people read: en, id, th, vi, zh, ar.
            host: Count the closes of this host alone (patterns such as `*.example.org`), or of several.
            code: Code, range such as "4000-4999", "none" for no code, or several.
            since: First instant that counts, as "2026-11-20" or "2026-11-20T14:30:00Z".
            until: First instant that no longer counts.
            endpoint: client, server, proxy or unknown, or several.
            provenance: wire, synthesized, reported, inferred or undetermined, or several.

        Raises:
            UsageError: A value that means nothing.

        """
        from analyzer.knowledge import language
        from analyzer.report.document import Report

        selection = select(
            host=host,
            code=code,
            since=since,
            until=until,
            endpoint=endpoint,
            provenance=provenance,
            zone=self._settings.zone(),
        )
        step_ns = None if freq is None else parse_step(freq)
        return Report(
            self._fold(selection, step_ns),
            knowledge.load(),
            by=(by,) if isinstance(by, str) else by,
            top=top,
            step_ns=step_ns,
            selection=selection,
            language=language.load(lang),
            keys=self._settings.keys,
        )

    def _fold(self, selection: Selection, step_ns: int | None) -> Counts:
        """The counts of these closes; those that were made while reading, where all are wanted."""
        if selection.is_everything and step_ns is None:
            return self.counts
        counts, sieve = Counts(step_ns=step_ns), Sieve(selection)
        for batch in self._batches:
            counts.add(*sieve.apply(batch))
        counts.sums["left_out"] += sieve.n_left_out
        return counts

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
    series: bool = True,
    keys: Iterable[Path] = (),
    ws_hosts: tuple[str, ...] = (),
    ws_ports: tuple[int, ...] = (),
    jobs: int = 1,
    progress: bool = True,
) -> Analysis:
    """Read captures and logs and gather all rows; arguments as for `stream`.

    Args:
        paths: As for `stream`, and so the others.
        ports: See there.
        max_flows: See there.
        formats: See there.
        tz: See there.
        dedupe: See there.
        series: See there.
        keys: See there.
        ws_hosts: See there.
        ws_ports: See there.
        jobs: See there.
        progress: Whether a line in a notebook or on a terminal shows how far reading is, once it takes long.

    Raises:
        UsageError: Nothing to read, or no such time zone.
        CatalogueError: A log format is broken.
        CaptureError: Not one input could be read.

    """
    settings = _settings(ports, max_flows, formats, tz, dedupe, series, keys, ws_hosts, ws_ports)
    found = prepare(paths, settings)
    analysis = Analysis(found, settings)
    with contextlib.closing(choose(len(found), sources.total_bytes(found))) as shown:
        for batch in stream_sources(found, settings, jobs=jobs, progress=shown.tell if progress else None):
            analysis.add(batch)
    failed = [row for row in analysis.counts.inputs if row["status"] == "failed"]
    if len(failed) == analysis.counts.n_inputs:
        raise CaptureError(failed[0]["source"], failed[0]["message"])
    return analysis


def read_packets(
    packets: "Packets", *, ports: tuple[int, ...] = (), max_flows: int = MAX_FLOWS, keys: Iterable[Path] = ()
) -> Analysis:
    """Read scapy packets: a `PacketList`, what `sniff` or `rdpcap` give, or a generator such as `PcapReader`.

    They are read one after the other in bounded memory, and may be of different link types. The column `source` calls
    them `packets`, and numbers them from 1. They are not kept: a connection's life cannot be drawn from them.

    Args:
        packets: What scapy can build goes in as bytes, with its `time` exact to the nanosecond. One without a time has
            that of the one before it; one that cannot be built is counted in `inputs` as one with a cut header.
        ports: As for `stream`.
        max_flows: As for `stream`.
        keys: As for `stream`.

    Raises:
        UsageError: Something among them is no packet, or a key log cannot be read.

    """
    from analyzer.capture.scapy_io import PacketReader

    settings = Settings(ports, max_flows, keys=tuple(map(pathlib.Path, keys)))
    analysis = Analysis((), settings)
    for batch in read_chunks(PacketReader(packets), "packets", settings):
        analysis.add(batch)
    return analysis
