"""Loads the log formats and says which patterns a line with these literals is worth trying on."""

import functools
import importlib.resources
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from analyzer.errors import CatalogueError
from analyzer.logs import structured
from analyzer.logs.format import MAX_MEMO, Format
from analyzer.logs.statement import Reader

QUOTES = ('"', '\\"', '\\\\\\"', '""')
"""How a quote inside a literal looks: bare, in JSON, in JSON inside JSON, in CSV. Before the first there may stand
anything."""

AGAIN = ('"MESSAGE":[', '"MESSAGE": [', '"MESSAGE" : [')
"""Lines whose text stands there as numbers (journald): what it holds is looked for once they are unwrapped."""


class Catalogue:
    """All formats in the order in which they are tried: by rank, then by name."""

    def __init__(self, formats: Iterable[Format], *, last: Iterable[tuple[Reader, tuple[str, ...]]] = ()) -> None:
        """Index the formats by their literals.

        Args:
            formats: All of them.
            last: Readers to try after every format, with their literals in lower case, found in any case.

        Raises:
            CatalogueError: Two formats share an id.

        """
        self.formats = sorted(formats, key=lambda fmt: (fmt.rank, fmt.id))
        by_id: dict[str, Format] = {}
        for fmt in self.formats:
            if fmt.id in by_id:
                raise fmt.error("id", f"{fmt.id!r} is taken by {by_id[fmt.id].path}")
            by_id[fmt.id] = fmt
        self._readers: list[Reader] = []
        masks: dict[tuple[str, bool], int] = {}
        for fmt in self.formats:
            for pattern in fmt.patterns:
                for literal in _forms(pattern.find or fmt.find):
                    masks[literal, False] = masks.get((literal, False), 0) | 1 << len(self._readers)
                self._readers.append(Reader(pattern.read, pattern.key, pattern.spans))
        for reader, literals in last:
            for literal in literals:
                masks[literal, True] = masks.get((literal, True), 0) | 1 << len(self._readers)
            self._readers.append(reader)
        self.again = 1 << len(self._readers)
        for literal in AGAIN:
            masks[literal, False] = self.again
        self.windows_s = {fmt.family: fmt.window_s for fmt in self.formats if fmt.window_s}
        self.literals = [(literal.encode(), caseless) for literal, caseless in masks]
        self.masks = list(masks.values())
        self._chosen: dict[int, tuple[Reader, ...]] = {}

    def readers(self, mask: int) -> tuple[Reader, ...]:
        """Those whose bit is set, in order."""
        chosen = self._chosen.get(mask)
        if chosen is None:
            if len(self._chosen) >= MAX_MEMO:
                self._chosen.clear()
            chosen = tuple(reader for i, reader in enumerate(self._readers) if mask >> i & 1)
            self._chosen[mask] = chosen
        return chosen


def read_format(path: Path) -> Format:
    """Read one file.

    Raises:
        CatalogueError: It cannot be read, is no TOML, or breaks a rule.

    """
    try:
        fmt = Format(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise CatalogueError(str(path), "file", (error.strerror or str(error)).lower()) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(str(path), "file", f"no TOML: {error}") from error
    for pattern in fmt.patterns:
        pattern.prepare()
    return fmt


@functools.cache
def load(*directories: Path) -> Catalogue:
    """The formats of this package, and those in these directories.

    Raises:
        CatalogueError: A file is broken, or a directory holds none.

    """
    formats = []
    for entry in sorted(importlib.resources.files("analyzer.logs.formats").iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".toml"):
            text = entry.read_text(encoding="utf-8")
            # samples are most of a file, and reading a log needs none
            formats.append(Format(tomllib.loads(text.partition("\n[[sample]]")[0]), entry.name, text=text))
    for directory in directories:
        files = sorted(directory.glob("*.toml"))
        if not files:
            raise CatalogueError(str(directory), "--formats", "no .toml files in it")
        formats += [read_format(path) for path in files]
    return Catalogue(formats, last=[(Reader(structured.read, "structured"), structured.LITERALS)])


def _forms(literals: Iterable[str]) -> Iterator[str]:
    """Each literal, once for every way in which its inner quotes may be escaped."""
    for literal in literals:
        begin, rest = literal[:1], literal[1:]
        for quote in QUOTES if '"' in rest else ('"',):
            yield begin + rest.replace('"', quote)
