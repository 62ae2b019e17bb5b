"""Many inputs side by side, in processes of one machine; results come in the order of the inputs.

The executor is `concurrent.futures`'; nothing here knows what is read.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from analyzer.sources import Source

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

WORTHWHILE_BYTES = 1 << 25
"""Inputs smaller than this together are read sooner than processes start."""

AHEAD = 2
"""Inputs under way for each process: results that wait for their turn are bounded."""

Work = TypeVar("Work")
Result = TypeVar("Result")


def n_workers(found: Iterable[Source], n_works: int, jobs: int) -> int:
    """How many processes are worth starting: 1 means none.

    Args:
        found: All inputs.
        n_works: Into how many pieces of work they fall.
        jobs: Processes that may be started.

    """
    if jobs < 2 or n_works < 2:
        return 1
    total = 0
    for source in found:
        size = source.size_bytes()
        if size is None and (source.path is None or source.path.exists()):
            return 1  # a pipe is not at hand in another process
        total += size or 0
    return 1 if total < WORTHWHILE_BYTES else min(jobs, n_works)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_works(
    function: Callable[[Work], Result],
    works: Sequence[Work],
    *,
    workers: int,
    broken: Callable[[Work], Result],
) -> Iterator[Result]:
    """Apply a function to every piece of work, in processes.

    Args:
        function: Picklable; whatever it raises is raised here.
        works: Inputs, or several that belong together.
        workers: Processes to start.
        broken: Makes the result for work whose process died.

    """
    import multiprocessing  # 20 ms that a single input does without
    from concurrent.futures.process import BrokenProcessPool

    waiting: deque[tuple[Work, Future[Result]]] = deque()
    todo = deque(works)
    executor = _start(workers)
    try:
        while todo or waiting:
            while todo and len(waiting) < AHEAD * workers:
                work = todo.popleft()
                try:
                    waiting.append((work, executor.submit(function, work)))
                except BrokenProcessPool:
                    executor = _start(workers)
                    todo.appendleft(work)
            work, future = waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:
                # all that were under way are lost with it: one by one, to find out whose fault it was
                yield _alone(function, work, broken)
                todo.extendleft(reversed([work for work, _ in waiting]))
                waiting.clear()
                executor = _start(workers)
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    executor.shutdown()


def _start(workers: int) -> "ProcessPoolExecutor":
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupt)


def _alone(function: Callable[[Work], Result], work: Work, broken: Callable[[Work], Result]) -> Result:
    from concurrent.futures.process import BrokenProcessPool

    with _start(1) as executor:
        try:
            return executor.submit(function, work).result()
        except BrokenProcessPool:
            return broken(work)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of a terminal; the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
