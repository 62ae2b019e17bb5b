"""Paths, directories, patterns and standard input to readable inputs; opens, sniffs, reads nothing more."""

import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from analyzer.capture.container import is_capture
from analyzer.errors import CaptureError, UsageError

STANDARD_INPUT = "-"


class Source(NamedTuple):
    """One input: what the user called it, and where it is."""

    name: str
    path: Path | None

    def open(self) -> io.RawIOBase:
        """Open it for reading forward, unbuffered, so that a live pipe hands on what it has.

        Raises:
            CaptureError: It cannot be opened.

        """
        if self.path is None:
            return io.FileIO(sys.stdin.fileno(), "rb", closefd=False)
        try:
            return io.FileIO(self.path, "rb")
        except OSError as error:
            raise CaptureError(self.name, (error.strerror or str(error)).lower()) from error

    def size_bytes(self) -> int | None:
        """Size of a regular file, None for what has none."""
        if self.path is None or not self.path.is_file():
            return None
        return self.path.stat().st_size


def find_sources(paths: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """Expand what the user named: files as they are, directories to the captures in them, patterns to what matches.

    A file that was named is an input whatever it holds; files in a directory count only where they begin like a
    capture.

    Raises:
        UsageError: Nothing was named, a directory holds no capture, or a pattern matches nothing.

    """
    found: list[Source] = []
    for given in paths:
        name = os.fspath(given)
        path = Path(name)
        if name == STANDARD_INPUT:
            found.append(Source(name, None))
        elif path.is_dir():
            inside = [Source(str(p), p) for p in _walk(path) if _begins_like_capture(p)]
            if not inside:
                raise UsageError(f"{name}: no captures in this directory")
            found += inside
        elif not path.exists() and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise UsageError(f"{name}: nothing matches")
            found += find_sources(matches)
        else:
            found.append(Source(name, path))
    if not found:
        raise UsageError("nothing to read: name a capture, a directory, or - for standard input")
    return found


def _walk(directory: Path) -> Iterator[Path]:
    for root, directories, files in os.walk(directory):
        directories.sort()
        yield from (Path(root, name) for name in sorted(files))


def _begins_like_capture(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return is_capture(file.read(4))
    except OSError:
        return True  # reading it will say why it cannot be read
