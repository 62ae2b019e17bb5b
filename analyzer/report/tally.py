"""Counts by kind and step, of time or of duration, of which there may be nearly as many as rows: kept as arrays."""

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from analyzer.model import Rows
from analyzer.selection import ORIGIN_NS

ROWS_WAITING = 1 << 16
"""Rows that are put together at once, or as many as there are counts: each is then sorted a few times only."""

BINS_KEPT = 20_000
"""Steps of time that are told apart; with more of them the step grows."""

TIMED_KINDS_KEPT = 4 * BINS_KEPT
"""Counts by step and kind; with more of them the step grows, too. Each takes 24 bytes."""

AUTO_STEPS_NS = tuple(n * 1_000_000 for n in (10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 86_400_000))
"""Steps of time that are tried where none was asked for; each divides the next, so that counts merge."""

UNTIMED = 2**63 - 1
"""Stands for no time where times are compared."""

Kind = TypeVar("Kind", bound=Hashable)


class Tally(Generic[Kind]):
    """How often each kind came with each whole number."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._numbers: dict[Kind, int] = {}
        self._kinds, self._steps, self._counts = (np.zeros(0, np.int64) for _ in range(3))
        self._waiting: list[tuple[Rows, Rows, Rows]] = []
        self._n_waiting = 0

    def add(self, kinds: Sequence[Kind], ids: Rows, steps: Rows, counts: Rows | None = None) -> bool:
        """Count rows, or for each as many as `counts` says; whether all is put together now.

        Args:
            kinds: Their kinds, of which a row has `kinds[ids]`.
            ids: Shape (n,), as `steps`.
            steps: Their whole numbers.
            counts: None for one each.

        """
        numbers = np.array([self._numbers.setdefault(kind, len(self._numbers)) for kind in kinds], np.int64)
        counts = np.ones(len(ids), np.int64) if counts is None else counts
        self._waiting.append((numbers[ids], steps, counts))
        self._n_waiting += len(ids)
        if self._n_waiting < max(ROWS_WAITING, len(self._counts)):
            return False
        self._settle()
        return True

    def _settle(self) -> None:
        """Put together what waits."""
        if not self._waiting:
            return
        waiting = [*self._waiting, (self._kinds, self._steps, self._counts)]
        kinds, steps, counts = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        self._waiting, self._n_waiting = [], 0
        order = np.lexsort((steps, kinds))
        kinds, steps, counts = kinds[order], steps[order], counts[order]
        is_other = np.ones(len(order), bool)
        is_other[1:] = (kinds[1:] != kinds[:-1]) | (steps[1:] != steps[:-1])
        first = np.flatnonzero(is_other)
        self._kinds, self._steps = kinds[first], steps[first]
        self._counts = np.add.reduceat(counts, first) if len(first) else counts

    def merge(self, other: "Tally[Kind]") -> None:
        """Add another one's counts."""
        other._settle()
        self.add(list(other._numbers), other._kinds, other._steps, other._counts)

    def coarsen(self, factor: int) -> None:
        """Make one step of so many."""
        self._settle()
        self._waiting = [(self._kinds, self._steps // factor, self._counts)]
        self._kinds, self._steps, self._counts = (np.zeros(0, np.int64) for _ in range(3))
        self._settle()

    def __len__(self) -> int:
        self._settle()
        return len(self._counts)

    @property
    def n_steps(self) -> int:
        """How many steps occur."""
        self._settle()
        ordered = np.sort(self._steps)  # np.unique imports 8 ms of masked arrays
        return int(np.count_nonzero(np.diff(ordered))) + (len(ordered) > 0)

    def total(self) -> int:
        """How many rows were counted."""
        self._settle()
        return int(self._counts.sum())

    def items(self) -> Iterator[tuple[Kind, int, int]]:
        """Each kind and step that came, and how often."""
        for kind, steps, counts in self.by_kind():
            for step, count in zip(steps.tolist(), counts.tolist(), strict=True):
                yield kind, step, count

    def by_kind(self) -> Iterator[tuple[Kind, Rows, Rows]]:
        """Each kind that came, its steps, ascending, and how often each did."""
        self._settle()
        kinds = list(self._numbers)
        first = np.flatnonzero(np.diff(self._kinds, prepend=-1))
        for begin, end in itertools.pairwise([*first.tolist(), len(self._kinds)]):
            yield kinds[int(self._kinds[begin])], self._steps[begin:end], self._counts[begin:end]


class Timeline(Generic[Kind]):
    """Views by step of time and kind. The step grows when there are too many, so that any split gives the same."""

    def __init__(self, step_ns: int | None = None) -> None:
        """Begin with this step, in nanoseconds, or with the finest of AUTO_STEPS_NS."""
        self._is_auto = step_ns is None
        self._step_ns = AUTO_STEPS_NS[0] if step_ns is None else step_ns
        self._tally: Tally[Kind] = Tally()

    @property
    def step_ns(self) -> int:
        """The step, in nanoseconds."""
        self._fit()
        return self._step_ns

    @property
    def extent(self) -> tuple[int, int] | None:
        """The first and the last step, counted from ORIGIN_NS; None where nothing was counted."""
        self._fit()
        ends = [(int(steps[0]), int(steps[-1])) for _, steps, _ in self._tally.by_kind()]
        return (min(first for first, _ in ends), max(last for _, last in ends)) if ends else None

    def items(self, factor: int = 1) -> Iterator[tuple[Kind, int, int]]:
        """Each kind and step, of so many of the timeline's own, and how many views."""
        self._fit()
        return self._coarser(factor).items()

    def _coarser(self, factor: int) -> Tally[Kind]:
        coarser: Tally[Kind] = Tally()
        coarser.merge(self._tally)
        coarser.coarsen(factor)
        return coarser

    def add(self, times: Rows, ids: Rows, kinds: Sequence[Kind]) -> None:
        """Count views at these times (int64 nanoseconds, UNTIMED left out), whose kinds are `kinds[ids]`."""
        timed = times != UNTIMED
        if self._tally.add(kinds, ids[timed], (times[timed] - ORIGIN_NS) // self._step_ns):
            self._fit()

    def merge(self, other: "Timeline[Kind]") -> None:
        """Add another one that began with the same step."""
        while self._step_ns < other.step_ns:
            self._coarsen()
        self._tally.merge(other._coarser(self._step_ns // other._step_ns))
        self._fit()

    def _fit(self) -> None:
        while (n_steps := self._tally.n_steps) > BINS_KEPT or (len(self._tally) > TIMED_KINDS_KEPT and n_steps > 1):
            self._coarsen()

    def _coarsen(self) -> None:
        coarser = [step for step in AUTO_STEPS_NS if step > self._step_ns] if self._is_auto else []
        step_ns = coarser[0] if coarser else 2 * self._step_ns
        self._tally.coarsen(step_ns // self._step_ns)
        self._step_ns = step_ns
