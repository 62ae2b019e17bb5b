"""How far reading is: a bar on a terminal, one line in a notebook."""

import os
import sys
import time
from typing import Any, Protocol

from analyzer.report.text import visible

PATIENCE_S = 1.0
"""What takes less shows no progress."""

EVERY_S = 0.2

MAX_NAME = 40
"""Longest name of an input that is shown, in characters."""

MIN_NAME, OTHERS = 8, 44
"""On a narrow terminal a name is no shorter than this, and leaves so much room for a bar of 14 and the figures."""


class Progress(Protocol):
    """Shows how far reading is."""

    def tell(self, source: str, n_bytes: int, size: int | None) -> None:
        """Note how far an input is read."""

    def close(self) -> None:
        """Take the line away."""


class _Line:
    """The text of the line, no more often than it can be read."""

    def __init__(self, n_files: int) -> None:
        self._n_files = n_files
        self._names: set[str] = set()
        self._shown_at = time.monotonic() + PATIENCE_S - EVERY_S

    def is_new(self, source: str) -> bool:
        """Whether this input is told of for the first time."""
        n = len(self._names)
        self._names.add(source)
        return len(self._names) > n

    def text(self, source: str, n_bytes: int, size: int | None) -> str | None:
        """The line, None where it is too early for another."""
        now = time.monotonic()
        if now - self._shown_at < EVERY_S:
            return None
        self._shown_at = now
        share = f"{100 * n_bytes // size} %" if size else f"{n_bytes / 1e6:,.0f} MB"
        return f"file {len(self._names):,} of {self._n_files:,}, {share}: {visible(source, most=MAX_NAME)}"


class TextProgress:
    """A bar on standard error with rate and time left; it appears once reading takes long, and goes at the end."""

    def __init__(self, n_files: int, *, shows: bool, names: bool = False, n_bytes: int | None = None) -> None:
        """Begin.

        Args:
            n_files: Number of inputs.
            shows: Whether the bar is shown.
            names: Whether each input is named in a line of its own that stays.
            n_bytes: Size of all inputs together, None where that is not known.

        """
        self._n_files = n_files
        self._shows = shows
        self._says_names = names
        self._n_bytes = n_bytes
        self._names: set[str] = set()
        self._read = _Read()
        self._shown_at = time.monotonic() + PATIENCE_S - EVERY_S
        self._bar: _Bar | None = None

    @staticmethod
    def is_possible() -> bool:
        """Whether standard error is a terminal that can write over a line."""
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def tell(self, source: str, n_bytes: int, size: int | None) -> None:
        """Note how far an input is read."""
        if source not in self._names:
            self._names.add(source)
            if self._says_names:
                self._say(f"wsclose: reading {visible(source)}")
        done = self._read.tell(source, n_bytes, size)
        now = time.monotonic()
        if not self._shows or now - self._shown_at < EVERY_S:
            return
        self._shown_at = now
        if self._bar is None:
            self._bar = _Bar(self._n_bytes, done)
        which = f"file {len(self._names):,} of {self._n_files:,}: " if self._n_files > 1 else ""
        self._bar.show(which, source, done)

    def _say(self, line: str) -> None:
        if self._bar is None:
            sys.stderr.write(f"{line}\n")
        else:
            self._bar.say(line)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Read:
    """Bytes read of all inputs, of which any may be told of at any time."""

    def __init__(self) -> None:
        self._source = ""
        self._size = 0
        self._before = 0

    def tell(self, source: str, n_bytes: int, size: int | None) -> int:
        """All bytes so far; an input that another follows counts whole, for its rest was not wanted."""
        if source != self._source:
            self._before += self._size
            self._source = source
        self._size = max(n_bytes, size or 0)
        return self._before + n_bytes


class _Bar:
    """The bar of rich, in one line however narrow the terminal is."""

    def __init__(self, n_bytes: int | None, done: int) -> None:
        # 55 ms that only what takes long pays (measured)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
        from rich.table import Column
        from rich.text import Text

        class Figures(ProgressColumn):
            """Share, rate, and time left, as far as they are known."""

            def render(self, task: Task) -> Text:
                return Text(" ".join(figures(int(task.completed), task.percentage, task.speed, task.time_remaining)))

        def figures(read: int, percentage: float, speed: float | None, left_s: float | None) -> list[str]:
            parts = [f"{read / 1e6:,.0f} MB" if n_bytes is None else f"{percentage:3.0f} %"]
            if speed:
                parts.append(f"{speed / 1e6:,.1f} MB/s")
            if left_s is not None:
                parts.append(f"{int(left_s) // 60}:{int(left_s) % 60:02} left")
            return parts

        def column(ratio: int | None = None) -> Column:
            return Column(no_wrap=True, overflow="ellipsis", ratio=ratio)

        self._console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
        names = TextColumn("{task.description}", markup=False, table_column=column(3))
        # how long it will take is not known of a pipe: no bar
        bars = [] if n_bytes is None else [BarColumn(bar_width=None, table_column=column(1))]
        self._progress = Progress(
            names,
            *bars,
            Figures(table_column=column()),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            expand=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("", total=n_bytes, completed=done)

    def show(self, which: str, source: str, done: int) -> None:
        most = max(MIN_NAME, min(MAX_NAME, self._console.width - OTHERS - len(which)))
        # the end of a name tells files of one directory apart
        name = source if len(source) <= most else f"…{source[1 - most :]}"
        self._progress.update(self._task, description=which + visible(name), completed=done, refresh=True)

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()


class NotebookProgress:
    """A line below a notebook's cell that changes in place and goes at the end."""

    def __init__(self, n_files: int) -> None:
        """Begin; the line appears once reading takes long."""
        self._line = _Line(n_files)
        self._handle: Any = None

    def tell(self, source: str, n_bytes: int, size: int | None) -> None:
        """Note how far an input is read."""
        self._line.is_new(source)
        text = self._line.text(source, n_bytes, size)
        if text is not None:
            self._show({"text/plain": text})

    def close(self) -> None:
        """Take the line away."""
        if self._handle is not None:
            self._show({"text/plain": ""})

    def _show(self, content: dict[str, str]) -> None:
        from IPython.display import DisplayHandle

        if self._handle is None:
            self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
            self._handle.display(content, raw=True)
        else:
            self._handle.update(content, raw=True)


class _Silent:
    """No progress at all."""

    def tell(self, source: str, n_bytes: int, size: int | None) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Nothing was shown."""


def choose(n_files: int, n_bytes: int | None = None) -> Progress:
    """What suits the place that Python runs in: a notebook, a terminal, or nothing to show progress on.

    Args:
        n_files: Number of inputs.
        n_bytes: Their size together, None where that is not known.

    """
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if shell is not None and hasattr(shell, "kernel"):
        return NotebookProgress(n_files)
    if TextProgress.is_possible():
        return TextProgress(n_files, shows=True, n_bytes=n_bytes)
    return _Silent()
