"""One WebSocket connection to look at: what the tables say of it, its story, and its life frame by frame."""

import html
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.errors import UsageError
from analyzer.knowledge import catalogue
from analyzer.knowledge.language import Language
from analyzer.report.document import story_of
from analyzer.report.redaction import redact_path
from analyzer.report.story import advice, tell
from analyzer.report.text import visible
from analyzer.series import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analyzer.capture.life import Life


class Connection:
    """One connection of a capture. It prints as its story, and shows itself in a notebook.

    Attributes:
        row: Its row of the connections table; times in nanoseconds since the epoch.
        closes: Its rows of the closes table.

    """

    def __init__(
        self,
        row: dict[str, Any],
        closes: list[dict[str, Any]],
        members: Series,
        *,
        language: Language,
        ports: tuple[int, ...] = (),
        keys: Sequence[Path] = (),
    ) -> None:
        self.row = row
        self.closes = closes
        self._members = members
        self._language = language
        self._ports = ports
        self._keys = keys

    @cached_property
    def life(self) -> "Life":
        """Every frame, what is missing, and how the transport ended; the capture is read once more for it.

        It has no events where the capture does not hold this connection any more.

        Raises:
            CaptureError: The capture cannot be read any more.
            UsageError: It comes from no file.

        """
        from analyzer.capture.life import read_life
        from analyzer.verdict.opaque import Asserted, Opaque

        members = self._captures()
        judge = None
        if self.row[
            "likelihood"
        ]:  # no key opened it; that it is a WebSocket was decided with the whole capture at hand
            judge = Opaque(Asserted((), (int(self.row["server"].rpartition(":")[2]),)))
        return read_life(
            members[0].source, self.row, ports=self._ports, keys=self._keys, following=members[1:], judge=judge
        )

    def extract(self, path: str | os.PathLike[str]) -> int:
        """Write its packets to a pcapng file, for Wireshark; returns how many there are.

        All packets of its TCP connection, both directions, with bytes, times and link types as they were captured.

        Raises:
            CaptureError: The capture cannot be read any more.
            UsageError: It comes from no file, or that is the file that would be written.

        """
        from analyzer.capture import extract

        members, out = self._captures(), Path(path)
        captures = [member.source.path for member in members]
        if out.exists() and any(one is not None and one.exists() and out.samefile(one) for one in captures):
            raise UsageError(f"{path}: this is the capture itself; write to another file")
        located = extract.locate(members, self.row)
        with out.open("wb") as file:
            return extract.copy_packets(located, file)

    def _captures(self) -> Series:
        if not self._members:
            raise UsageError("these packets were not kept: write them to a file (scapy's wrpcap), and read that")
        return self._members

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw its life as a sequence diagram (`plots.plot_life`); its title holds no values of a query."""
        from analyzer.report.plots import plot_life

        title = self._head(path=self.row["path"] and redact_path(self.row["path"]))  # figures are passed on
        return plot_life(self.life.to_pandas(), ax, title=title, language=self._language)

    def tell(self) -> list[str]:
        """Who closed, with which code, how that is known, and what to do."""
        story = story_of(self.row, self.closes, catalogue.load())
        keys = [view["diagnosis"] for view in story["views"]]
        return [*tell(story, self._language), *advice(keys, self._language)]

    def _head(self, *, path: str | None) -> str:
        target = [visible(text) for text in (self.row["host"] or self.row["sni"], path) if text]
        return " ".join([f"{self.row['client']} -> {self.row['server']}", *target])

    def __str__(self) -> str:
        return "\n".join([self._head(path=self.row["path"]), *(f"  {sentence}" for sentence in self.tell())])

    def __repr__(self) -> str:
        return f"<Connection {self.row['connection']}>"

    def _repr_html_(self) -> str:
        sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.tell())
        direction = self._language.direction
        head = html.escape(self._head(path=self.row["path"]))
        return f'<div lang="{self._language.code}" dir="{direction}"><b><bdi>{head}</bdi></b><ul>{sentences}</ul></div>'


def find(rows: list[dict[str, Any]], prefix: str | None) -> dict[str, Any]:
    """The one connection whose key begins so; without a prefix, the only one there is.

    Args:
        rows: Rows of the connections table; those whose key begins otherwise may be missing.
        prefix: Beginning of its key.

    Raises:
        UsageError: None, or more than one.

    """
    found = [row for row in rows if row["connection"].startswith(prefix or "")]
    # the key of the first attempt on a TCP connection begins those of all others
    found = [row for row in found if row["connection"] == prefix] or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError("no connection" + (f" begins with {prefix}" if prefix else " was found"))
    keys = sorted((row["connection"] for row in found), key=_natural_order)
    few = ", ".join(keys[:3]) + (", ..." if len(found) > 3 else "")
    raise UsageError(f"{len(found)} connections{f' begin with {prefix}' if prefix else ''}: name one of {few}")


def _natural_order(key: str) -> list[str | int]:
    """Sorts numbers within keys by their value: stream 9 comes before stream 11."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", key))]
