"""Rotated captures: which files may continue one another, in which order, and whether one continues another.

Names only say which files to ask (`tcpdump -C`, `-G`, `-W`, `dumpcap -b`, and what `tcpdump -z gzip` makes of them);
what belongs together, and in which order, is told by link types and by the times of packets. Reads no more of a file
than its first packet: whether the next one continues it is asked once it has been read.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from analyzer import kernel
from analyzer.capture.container import Chunk, Reader, is_capture
from analyzer.errors import CaptureError
from analyzer.sources import Source

MAX_GAP_NS = 600_000_000_000
"""A file whose first packet comes later than this after the last of the one before it begins anew."""

MAX_OVERLAP_NS = 250_000_000
"""How far the first packet of a file may stand before the last of the one before it: dumpcap gathers the packets of
several interfaces for so long. It is never more than half the time that the file before took, or a copy would pass."""

TICK_NS = 1_000
"""Files of one series may round times differently."""

QUIET_NS = 1_000_000_000
"""Where nothing was captured for longer than this between two files, packets may be missing there."""

PEEKED_BYTES = 1 << 20
"""The first packet is looked for within so many bytes; before it may stand descriptions of interfaces, and keys."""

PEEK_STEP_BYTES = 1 << 9
"""So many bytes are looked at at once: one file of a thousand costs as much as its first packet."""

PACKED_SUFFIX = re.compile(r"\.(?:gz|zst|zstd|xz|bz2)$", re.IGNORECASE)
RUN = re.compile(r"[0-9]+")


class Member(NamedTuple):
    """One file among those that are read one after the other; one alone has no more than its source.

    Attributes:
        source: The file.
        first_ns: Time of its first packet, None where it was not looked at.
        link_types: Of its interfaces, in their order.
        is_next: Whether its name allows that no file is missing between it and the one before.

    """

    source: Source
    first_ns: int | None = None
    link_types: tuple[int, ...] = ()
    is_next: bool = True


Series = tuple[Member, ...]
"""Files in the order in which they are read; a single file is a series of one."""


class Extent(NamedTuple):
    """What a file that was read has to say to the next one: its earliest and latest packet, and its link types."""

    first_ns: int
    last_ns: int
    link_types: tuple[int, ...]


def continues(before: Extent, member: Member) -> bool:
    """Whether a file goes on where the one before it ended."""
    if member.first_ns is None:
        return False
    ours, theirs = set(member.link_types), set(before.link_types)
    if not (ours <= theirs or theirs <= ours):  # an interface may come up later
        return False
    overlap_ns = max(TICK_NS, min(MAX_OVERLAP_NS, (before.last_ns - before.first_ns) // 2))
    return -overlap_ns <= member.first_ns - before.last_ns <= MAX_GAP_NS


def may_lack_packets(before: Extent, member: Member) -> bool:
    """Whether packets may be missing between a file and the one that continues it."""
    return not member.is_next or member.first_ns is None or member.first_ns - before.last_ns > QUIET_NS


def apart(found: Iterable[Source]) -> list[Series]:
    """Every file by itself."""
    return [(Member(source),) for source in found]


def find_series(found: Sequence[Source]) -> list[Series]:
    """Put the files together that may continue one another.

    Args:
        found: In any order.

    Returns:
        Each of them once; a series stands where its first file stood.

    """
    places = {source.name: at for at, source in enumerate(found)}
    series = []
    for some in _of_one_name(found):
        if len(some) == 1:
            series += apart(some)
            continue
        peeked = [_peek(source) for source in some]
        series += apart(source for source, file in zip(some, peeked, strict=True) if file is None)
        files = sorted((file for file in peeked if file is not None), key=_likeness)
        for _, alike in groupby(files, key=_likeness):
            own: dict[tuple[Any, ...], _File] = {}
            for file in sorted(alike, key=_by_number):
                # a file and what gzip is making of it are no two files of a series
                if own.setdefault((file.numbers, file.first_ns), file) is not file:
                    series += apart([file.source])
            series += [_to_series(part) for part in _order(list(own.values()))]
    return sorted(series, key=lambda members: min(places[member.source.name] for member in members))


def from_source(found: Iterable[Series], name: str) -> Series:
    """Of the series that holds this file, what begins with it; nothing where it is none of them."""
    for members in found:
        for at, member in enumerate(members):
            if member.source.name == name:
                return members[at:]
    return ()


def read_on(members: Series) -> Iterator[tuple[Reader, Chunk]]:
    """The packets of captures that continue one another, numbered through all of them.

    Ends where a file does not continue the one before it. One that is damaged or cut off gives what can be read, one
    behind the first that cannot be read at all gives nothing.

    Raises:
        CaptureError: The first cannot be read, or is no capture.

    """
    extent: Extent | None = None
    n_packets = 0
    for member in members:
        if extent is not None and not continues(extent, member):
            return
        try:
            with member.source.open() as file:
                size = member.source.size_bytes() if file.compression == "none" else None
                reader = Reader(file, member.source.name)
                for chunk in reader.chunks():
                    kernel.expect(reader.n_packets * (size or reader.n_bytes) // reader.n_bytes)
                    yield reader, chunk._replace(first_packet=n_packets + 1)
                    n_packets += len(chunk.packets)
            if reader.first_ns is not None and reader.last_ns is not None:
                extent = Extent(reader.first_ns, reader.last_ns, reader.link_types)
        except (CaptureError, OSError) as error:
            if member is members[0]:
                why = error.why if isinstance(error, CaptureError) else (error.strerror or str(error)).lower()
                raise CaptureError(member.source.name, why) from error


class Ring(Protocol):
    """Who looks for keys in captures."""

    def begin(self, source: Source, kind: str) -> None:
        """Packets come from this `pcap` or `pcapng` from now on."""


def read_with_keys(members: Series, ring: Ring) -> Iterator[tuple[Reader, Chunk]]:
    """What `read_on` gives of files; whoever looks for keys is told which of them begins."""
    sources = iter(member.source for member in members)
    begun: Reader | None = None
    for reader, chunk in read_on(members):
        if reader is not begun:
            begun = reader
            ring.begin(next(source for source in sources if source.name == reader.source), reader.kind)
        yield reader, chunk


class _File(NamedTuple):
    """What the name and the head of a file say."""

    source: Source
    kind: str
    first_ns: int
    link_types: tuple[int, ...]
    numbers: tuple[int, ...]


def _likeness(file: _File) -> tuple[str, int]:
    return file.kind, file.link_types[0]


def _by_number(file: _File) -> tuple[tuple[int, ...], str]:
    return file.numbers, file.source.name


def _split_name(path: Path) -> tuple[str, tuple[int, ...]]:
    """A name without its numbers, and these; a number at its end may be missing, as with the first of `-C`."""
    name = PACKED_SUFFIX.sub("", path.name)
    return RUN.sub("0", name).removesuffix("0"), tuple(map(int, RUN.findall(name)))


def _of_one_name(found: Sequence[Source]) -> list[list[Source]]:
    """Files of one directory whose names differ in numbers only; what is no plain file stays alone."""
    directories: dict[Path, Path] = {}
    groups: dict[Any, list[Source]] = {}
    for source in found:
        key: Any = source.name
        if source.path is not None and source.path.is_file():
            parent = source.path.parent
            if parent not in directories:
                directories[parent] = parent.resolve()
            key = directories[parent], _split_name(source.path)[0]
        groups.setdefault(key, []).append(source)
    return list(groups.values())


class _Head(io.RawIOBase):
    """The first bytes of a stream, a few at a time, so that no more is unpacked and looked at than is needed."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream
        self._left = PEEKED_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        n = self._stream.readinto(memoryview(buffer)[: min(PEEK_STEP_BYTES, self._left)]) or 0
        self._left -= n
        return n


def _peek(source: Source) -> _File | None:
    """The first packet of a capture; None where there is none, or the file is something else."""
    try:
        with source.open() as stream:
            if source.path is None or not is_capture(stream.peek(4)):
                return None
            reader = Reader(_Head(stream), source.name)
            for chunk in reader.chunks():
                first_ns = int(chunk.packets["ts_ns"][0])
                return _File(source, reader.kind, first_ns, reader.link_types, _split_name(source.path)[1])
    except (CaptureError, OSError):
        pass  # reading it will say why
    return None


def _order(files: list[_File]) -> list[list[_File]]:
    """Files by time; those of one name in several series, such as one of each interface, are parted.

    Numbers rise with time, and fall once where a ring of files began again. Where they do not, the leftmost number
    that differs tells series apart; where that leaves single files only, numbers mean nothing and times alone decide.
    """
    by_number = sorted(files, key=_by_number)
    n = len(by_number)
    falls = [i for i in range(n) if by_number[i].first_ns < by_number[i - 1].first_ns]
    if len(falls) < 2:  # from the last to the first it falls too, unless all are of one time
        at = falls[0] if falls else 0
        return [by_number[at:] + by_number[:at]]
    width = max(len(file.numbers) for file in files)
    columns = ({file.numbers[c : c + 1] for file in files} for c in range(width))
    differing = next((c for c, values in enumerate(columns) if len(values) > 1), None)
    if differing is not None:
        parts = [list(part) for _, part in groupby(by_number, key=lambda file: file.numbers[differing : differing + 1])]
        if any(len(part) > 1 for part in parts):
            return [series for part in parts for series in _order(part)]
    return [sorted(files, key=lambda file: (file.first_ns, file.numbers, file.source.name))]


def _to_series(files: list[_File]) -> Series:
    steps = [True, *_steps([file.numbers for file in files])]
    return tuple(
        Member(file.source, file.first_ns, file.link_types, is_next) for file, is_next in zip(files, steps, strict=True)
    )


def _steps(numbers: list[tuple[int, ...]]) -> list[bool]:
    """Per pair of neighbours whether their counter allows that they are; True where names hold no counter."""
    width = max(map(len, numbers))
    padded = [some + (0,) * (width - len(some)) for some in numbers]
    best = [False] * (len(numbers) - 1)
    for column in zip(*padded, strict=True):
        highest, lowest = max(column), min(column)
        if highest == lowest:
            continue
        steps = [b == a + 1 or (a == highest and b == lowest) for a, b in pairwise(column)]
        if sum(steps) > sum(best):
            best = steps
    return best if 2 * sum(best) >= len(best) and any(best) else [True] * len(best)
