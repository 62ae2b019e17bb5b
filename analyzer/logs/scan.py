"""Bytes to candidate lines: finds the literals of all formats in one pass and says on which lines they stand.

Large inputs go through Hyperscan; small ones, and machines without it, through one `bytes.find` after another. Both see
the raw bytes, so a line is cut out, decoded and unwrapped only where something was found.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from analyzer.model import Octets

SMALL_BYTES = 1 << 20
"""A log up to this size is searched before Hyperscan is imported."""


NEWLINE = ord("\n")
BLOCK_BYTES = 1 << 10
EVEN_BYTES = np.uint64(0x00FF_00FF_00FF_00FF)

Candidate = tuple[int, int, int, int]
"""A line that holds a literal: its begin and end in the chunk, its number there from 0, the bits of its literals. A
plain tuple: one is made for every line that is found."""

Hits = Callable[[bytes | memoryview], Sequence[tuple[int, int]]]
"""Finds literals in bytes: offset behind each, and its index, in order of offset."""


class Scanner:
    """Finds literals; takes the faster way once a log turns out to be large.

    Attributes:
        n_lines: Newlines between the offsets of the last scan, once it is through.

    """

    def __init__(self, literals: Sequence[tuple[bytes, bool]], masks: Sequence[int]) -> None:
        """Take what to find.

        Args:
            literals: Bytes, and whether they are in lower case and stand for any case.
            masks: For each the bits that `Candidate.mask` gets.
        """
        self._literals = literals
        self._masks = masks
        self._hits = _with_find(literals)
        self._n_bytes = 0
        self.n_lines = 0

    def mask_of(self, data: bytes) -> int:
        """Bits of all literals in these bytes."""
        mask = 0
        for _, index in self._find(data):
            mask |= self._masks[index]
        return mask

    def scan(self, data: bytes, begin: int, limit: int) -> Iterator[Candidate]:
        """The lines between two offsets that hold a literal; the last line may lack its newline."""
        find, rfind, count, masks = data.find, data.rfind, data.count, self._masks
        before = _lines_before_blocks(np.frombuffer(data, np.uint8)[begin:limit])
        start = end = begin
        mask = line = 0
        for off, index in self._find(data if begin == 0 and limit == len(data) else memoryview(data)[begin:limit]):
            behind = off + begin
            if behind <= end:
                mask |= masks[index]
                continue
            if mask:
                yield start, end, line, mask
            start = rfind(b"\n", end, behind) + 1 or begin
            block = (start - begin) // BLOCK_BYTES
            line = before[block] + count(b"\n", begin + block * BLOCK_BYTES, start)
            end = find(b"\n", behind - 1, limit)
            if end < 0:
                end = limit
            mask = masks[index]
        if mask:
            yield start, end, line, mask
        self.n_lines = before[-1] + count(b"\n", begin + (len(before) - 1) * BLOCK_BYTES, limit)

    def _find(self, data: bytes | memoryview) -> Sequence[tuple[int, int]]:
        if self._n_bytes < SMALL_BYTES <= self._n_bytes + len(data):
            self._hits = _with_hyperscan(tuple(self._literals)) or self._hits
        self._n_bytes += len(data)
        return self._hits(data)


def _lines_before_blocks(octets: Octets) -> list[int]:
    """Newlines before each block of BLOCK_BYTES, and before what is left behind the last whole one.

    Eight bytes are compared and summed as one number: five times as quick as `bytes.count` (measured).
    """
    n_blocks = len(octets) // BLOCK_BYTES
    lanes = (octets[: n_blocks * BLOCK_BYTES] == NEWLINE).view(np.uint64).reshape(n_blocks, BLOCK_BYTES // 8)
    # each of the eight bytes of a sum is at most BLOCK_BYTES / 8; the lanes are added in pairs, then all
    sums = lanes.sum(axis=1, dtype=np.uint64)
    pairs = (sums & EVEN_BYTES) + (sums >> np.uint64(8) & EVEN_BYTES)
    counts = (pairs * np.uint64(0x0001_0001_0001_0001)) >> np.uint64(48)
    return [0, *np.cumsum(counts.astype(np.int64)).tolist()]


@functools.lru_cache(maxsize=4)
def _with_hyperscan(literals: tuple[tuple[bytes, bool], ...]) -> Hits | None:
    """One pass of Hyperscan, its database compiled once for all logs; None where it is not installed."""
    try:
        import hyperscan
    except ImportError:
        return None
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[literal for literal, _ in literals],
        ids=list(range(len(literals))),
        elements=len(literals),
        flags=[hyperscan.HS_FLAG_CASELESS if caseless else 0 for _, caseless in literals],
        literal=True,
    )

    def find(data: bytes | memoryview) -> list[tuple[int, int]]:
        hits: list[tuple[int, int]] = []
        append = hits.append

        def note(index: int, _begin: int, end: int, _flags: int, _context: Any) -> None:
            append((end, index))

        database.scan(data, match_event_handler=note)  # type: ignore[type-var]
        return hits

    return find


def _with_find(literals: Sequence[tuple[bytes, bool]]) -> Hits:
    """Every literal by itself: `bytes.find` is quick, and an alternation would see one of several at one place."""
    sought = [(literal, caseless, index) for index, (literal, caseless) in enumerate(literals)]

    def find(data: bytes | memoryview) -> list[tuple[int, int]]:
        hits: list[tuple[int, int]] = []
        data = bytes(data)
        lowered = data.lower()
        for literal, caseless, index in sought:
            where = lowered if caseless else data
            at = where.find(literal)
            while at >= 0:
                hits.append((at + len(literal), index))
                at = where.find(literal, at + len(literal))
        hits.sort()
        return hits

    return find
