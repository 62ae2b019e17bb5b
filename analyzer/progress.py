"""How far reading is: one line on a terminal, one line in a notebook."""

import os
import sys
import time
from typing import Any, Protocol

from analyzer.report.text import visible

PATIENCE_S = 1.0
"""What takes less shows no progress."""

EVERY_S = 0.2


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
        return f"file {len(self._names):,} of {self._n_files:,}, {share}: {visible(source, most=40)}"


class TextProgress:
    """A line on standard error that is written over."""

    def __init__(self, n_files: int, *, shows: bool, names: bool = False) -> None:
        """Begin.

        Args:
            n_files: Number of inputs.
            shows: Whether the line is shown.
            names: Whether each input is named in a line of its own that stays.

        """
        self._line = _Line(n_files)
        self._shows = shows
        self._says_names = names
        self._width = 0

    @staticmethod
    def is_possible() -> bool:
        """Whether standard error is a terminal that can write over a line."""
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def tell(self, source: str, n_bytes: int, size: int | None) -> None:
        """Note how far an input is read."""
        if self._line.is_new(source) and self._says_names:
            self.close()
            sys.stderr.write(f"wsclose: reading {visible(source)}\n")
        if self._shows:
            text = self._line.text(source, n_bytes, size)
            if text is not None:
                self._show(text)

    def close(self) -> None:
        """Take the line away."""
        if self._width:
            self._show("")

    def _show(self, text: str) -> None:
        sys.stderr.write(f"\r{text:{self._width}}" + ("" if text else "\r"))
        sys.stderr.flush()
        self._width = len(text)


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


def choose(n_files: int) -> Progress:
    """What suits the place that Python runs in: a notebook, a terminal, or nothing to show progress on."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if shell is not None and hasattr(shell, "kernel"):
        return NotebookProgress(n_files)
    if TextProgress.is_possible():
        return TextProgress(n_files, shows=True)
    return _Silent()
