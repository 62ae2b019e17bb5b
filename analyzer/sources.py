"""Paths, directories, patterns and standard input to readable inputs; opens, sniffs, reads nothing more."""

import glob
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from analyzer.capture.container import COMPRESSED, is_capture
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
        try:
            if self.path is None:
                if sys.stdin is None:
                    raise CaptureError(self.name, "standard input is closed")
                return io.FileIO(sys.stdin.fileno(), "rb", closefd=False)
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
    capture, or cannot be looked at. Links to directories are not followed. A file named twice is read once.

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
            found += _find_in_directory(name, path)
        elif not path.exists() and not path.is_symlink() and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise UsageError(f"{name}: nothing matches")
            found += find_sources(matches)
        else:
            found.append(Source(name, path))
    if not found:
        raise UsageError("nothing to read: name a capture, a directory, or - for standard input")
    return list({_identity(source): source for source in reversed(found)}.values())[::-1]


def _identity(source: Source) -> object:
    """What tells one input from another: for a regular file where it lies, else its name."""
    if source.path is not None and source.path.is_file():
        status = source.path.stat()
        return status.st_dev, status.st_ino
    return source.name


def _find_in_directory(name: str, directory: Path) -> list[Source]:
    unreadable: list[Source] = []

    def note(error: OSError) -> None:
        unreadable.append(Source(str(error.filename), Path(error.filename)))

    inside: list[Source] = []
    n_packed = 0
    for root, directories, files in os.walk(directory, onerror=note):
        directories.sort()
        for file in sorted(files):
            path = Path(root, file)
            head = _look(path)
            if head is None or is_capture(head):
                inside.append(Source(str(path), path))
            elif any(head.startswith(magic) for magic in COMPRESSED):
                n_packed += 1
    if not inside and not unreadable:
        packed = f" ({n_packed} packed files: unpack them first)" if n_packed else ""
        raise UsageError(f"{name}: no captures in this directory{packed}")
    return inside + unreadable


def _look(path: Path) -> bytes | None:
    """The first bytes of a file, empty for what is no regular file, None where it cannot be read."""
    if not path.is_file():
        return None if path.is_symlink() and not path.exists() else b""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:
        return None  # reading it will say why
