"""The timers by which real systems end connections, as data with sources, and which of them fit a measured time.

A value fits several systems more often than not, so all of them are named and none is picked. A broken file is
refused as a whole.
"""

import functools
import importlib.resources
import math
import tomllib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer.errors import CatalogueError

KINDS = (
    "idle",
    "heartbeat",
    "write-stall",
    "lifetime",
    "reload",
    "close-handshake",
    "open-handshake",
    "app-handshake",
    "request",
    "ping",
)
"""What a timer counts; the head of `timers.toml` says what each word means."""

TOLERANCE = 0.02
"""How far a measured time may lie from a timer, as a share of the timer: coarse clocks and network delay."""


NEAR = 0.2
GATHERED = 3
"""Ends gather at a timer's value where at least three lie within TOLERANCE of it, three times as dense as up to 20 %
around."""

MEASURES = {
    "silence": ("idle", "heartbeat", "write-stall"),
    "duration": ("lifetime", "idle"),
}
"""Which kinds a measured time may show: a connection that never spoke ends by an idle limit, too."""

ROUNDING = 1e-9
"""58.8 lies within 2 % of 60, though its difference as a float is a little above 1.2."""


class Timer(NamedTuple):
    """One timer at its default; `ends_with` is what the peer sees when it fires."""

    system: str
    setting: str
    seconds: float
    kind: str
    ends_with: str
    source: str


def read(document: Mapping[str, Any], *, path: str) -> tuple[Timer, ...]:
    """Check a parsed file of timers; in its order.

    Raises:
        CatalogueError: A key is missing, unknown or of the wrong type, a timer stands twice, or there is none.

    """
    for name in document.keys() - {"timer"}:
        raise CatalogueError(path, name, "is not known here")
    timers: list[Timer] = []
    seen: set[tuple[str, str, str]] = set()
    for n, entry in enumerate(document.get("timer", ()), start=1):
        timer = _read_timer(f"timer {n}", entry, path)
        key = (timer.system, timer.setting, timer.kind)
        if key in seen:
            raise CatalogueError(path, f"timer {n}", f"{timer.system}, {timer.setting} stands twice")
        seen.add(key)
        timers.append(timer)
    if not timers:
        raise CatalogueError(path, "timer", "there is none")
    return tuple(timers)


def _read_timer(key: str, entry: Mapping[str, Any], path: str) -> Timer:
    for name in Timer._fields:
        if name not in entry:
            raise CatalogueError(path, key, f"{name!r} is missing")
        if name != "seconds" and (not isinstance(entry[name], str) or not entry[name]):
            raise CatalogueError(path, f"{key}.{name}", "must be text")
    for name in sorted(entry.keys() - set(Timer._fields)):
        raise CatalogueError(path, key, f"{name!r} is not known here")
    seconds = entry["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise CatalogueError(path, f"{key}.seconds", "must be a number above 0")
    if entry["kind"] not in KINDS:
        raise CatalogueError(path, f"{key}.kind", f"must be one of {', '.join(KINDS)}")
    if not entry["source"].startswith(("https://", "RFC ")):
        raise CatalogueError(path, f"{key}.source", "must be an https address or an RFC")
    return Timer(**{**entry, "seconds": float(seconds)})


@functools.cache
def load() -> tuple[Timer, ...]:
    """The timers that come with the package.

    Raises:
        CatalogueError: The file breaks its own rules.

    """
    path = importlib.resources.files(__package__) / "timers.toml"
    return read(tomllib.loads(path.read_text(encoding="utf-8")), path="timers.toml")


def candidates(seconds: float, kinds: Collection[str] | None = None, tolerance: float = TOLERANCE) -> tuple[Timer, ...]:
    """Every timer that a measured time may come from: the closest first, equals by name.

    Args:
        seconds: The measured time.
        kinds: Kinds of KINDS to look among, None for all.
        tolerance: Largest difference, as a share of the timer's value.

    """
    found = [
        (abs(seconds - timer.seconds), timer.system.casefold(), timer.setting, timer)
        for timer in load()
        if (kinds is None or timer.kind in kinds)
        and abs(seconds - timer.seconds) <= (tolerance + ROUNDING) * timer.seconds
    ]
    return tuple(timer for *_, timer in sorted(found, key=lambda item: item[:3]))


class Gathering(NamedTuple):
    """A value near which ends gather, with how many, and every timer that has it."""

    seconds: float
    n: int
    timers: tuple[Timer, ...]


def gatherings(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], kinds: Collection[str], *, least: int = GATHERED
) -> list[Gathering]:
    """Values of timers near which measured times gather; the value alone does not tell which timer it was.

    Args:
        values: Times in seconds.
        counts: How many ends each stands for.
        kinds: Kinds of KINDS that fit what was measured.
        least: How many ends are enough.

    """
    found = []
    for seconds in sorted({timer.seconds for timer in load() if timer.kind in kinds}):
        far = np.abs(values / seconds - 1)
        here = int(counts[far <= TOLERANCE + ROUNDING].sum())
        around = int(counts[far <= NEAR].sum()) - here
        if here >= least and here >= GATHERED * around * TOLERANCE / (NEAR - TOLERANCE):
            found.append(Gathering(seconds, here, candidates(seconds, kinds, tolerance=0)))
    return found
