"""Paths, directories, patterns and standard input to readable inputs; opens, sniffs, reads nothing more."""

import contextlib
import glob
import io
import os
import re
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from analyzer import packing
from analyzer.capture.container import is_capture
from analyzer.errors import CaptureError, UsageError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows

STANDARD_INPUT = "-"

HEAD_BYTES = 1 << 12
"""What a file is, is told from these."""

MAX_CONTROL_SHARE = 0.1
"""Text has fewer control characters among its first bytes. NUL does not count: a log cut while it grows has many."""

TEXT_CONTROLS = frozenset(b"\t\n\v\f\r\b\x1b\0")

LOG_NAME = re.compile(
    r"(?:\.(?:log|jsonl|ndjson|out|err)|(?:^|[._-])log|^(?:syslog|messages|access|error|console))"
    r"(?:[._-][\w.-]*)?$",
    re.IGNORECASE,
)
"""Names under which logs lie in directories, also rotated (`.log.3`, `.log-20261121`) and packed (`.log.gz`)."""

PIPE_BYTES = 1 << 20
"""What Linux grants to everyone."""

CAPTURE_SUFFIXES = frozenset({".pcap", ".pcapng", ".cap", ".dmp"})


class Source(NamedTuple):
    """One input: what the user called it, and where it is."""

    name: str
    path: Path | None

    def open(self) -> packing.Unpacked:
        """Open it for reading forward, unpacked, and unbuffered, so that a live pipe hands on what it has.

        Raises:
            CaptureError: It cannot be opened.

        """
        try:
            if self.path is None:
                if sys.stdin is None:
                    raise CaptureError(self.name, "standard input is closed")
                raw = io.FileIO(sys.stdin.fileno(), "rb", closefd=False)
            else:
                raw = io.FileIO(self.path, "rb")
            _widen(raw)
            return packing.Unpacked(raw)
        except OSError as error:
            raise CaptureError(self.name, (error.strerror or str(error)).lower()) from error

    def size_bytes(self) -> int | None:
        """Size of a regular file, None for what has none."""
        if self.path is None or not self.path.is_file():
            return None
        return self.path.stat().st_size

    def changed_ns(self) -> int | None:
        """When a regular file was last written, None for what is none."""
        return self.path.stat().st_mtime_ns if self.path is not None and self.path.is_file() else None


def _widen(raw: io.FileIO) -> None:
    """Let a pipe hold more than the usual 64 KiB, where the system can: one chunk costs as much as 1,000 packets."""
    widen = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux
    if fcntl is not None and widen is not None and stat.S_ISFIFO(os.fstat(raw.fileno()).st_mode):
        with contextlib.suppress(OSError):
            fcntl.fcntl(raw.fileno(), widen, PIPE_BYTES)


def total_bytes(found: Iterable[Source]) -> int | None:
    """Size of all files together, None where one has none."""
    sizes = [source.size_bytes() for source in found]
    return None if None in sizes else sum(size or 0 for size in sizes)


def sniff(head: bytes, name: str) -> str:
    """What a file holds by its first bytes: `capture` or `log`.

    Args:
        head: Its first bytes, unpacked.
        name: A capture's is believed.

    Raises:
        CaptureError: It is neither.

    """
    if not head and name == STANDARD_INPUT:
        raise CaptureError(name, "nothing came")
    # under such a name anything else is damage, and the reader says so
    if is_capture(head) or _is_named_capture(name):
        return "capture"
    foreign = next((kind for magic, kind in packing.FOREIGN.items() if head.startswith(magic)), None)
    if foreign is not None:
        raise CaptureError(name, f"a {foreign} file: unpack or export it first")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "log"
    controls = sum(byte < 32 and byte not in TEXT_CONTROLS for byte in head)
    if controls > MAX_CONTROL_SHARE * len(head):
        raise CaptureError(name, "neither a capture (pcap, pcapng) nor text")
    return "log"


def _is_named_capture(name: str) -> bool:
    """Whether a file is called as captures are: `.pcap`, `.pcap12`, `.pcap12.gz`."""
    suffixes = (part.lower().rstrip("0123456789") for part in Path(name).suffixes[-2:])
    return not CAPTURE_SUFFIXES.isdisjoint(suffixes)


def find_sources(paths: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """Expand what the user named: files as they are, directories to what is in them, patterns to what matches.

    A file that was named is an input whatever it holds; files in a directory count only where they begin like a
    capture, are named like a capture or a log, or cannot be looked at. Links to directories are not followed. A file
    named twice is read once.

    Raises:
        UsageError: Nothing was named, a directory holds no input, or a pattern matches nothing.
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
        raise UsageError("nothing to read: name a capture, a log, a directory, or - for standard input")
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
    n_others = 0
    for root, directories, files in os.walk(directory, onerror=note):
        directories.sort()
        for file in sorted(files):
            path = Path(root, file)
            head = _look(path)
            is_named = _is_named_capture(file) and path.is_file()
            if head is None or is_named or is_capture(head) or (head and LOG_NAME.search(file)):
                inside.append(Source(str(path), path))
            else:
                n_others += 1
    if not inside and not unreadable:
        others = f" ({n_others} other files: name them to have them read)" if n_others else ""
        raise UsageError(f"{name}: no captures and no logs in this directory{others}")
    return inside + unreadable


def _look(path: Path) -> bytes | None:
    """The first bytes of a file, unpacked; empty for what is no regular file, None where it cannot be read."""
    if not path.is_file():
        return None if path.is_symlink() and not path.exists() else b""
    try:
        with packing.Unpacked(io.FileIO(path, "rb")) as file:
            return file.peek(4)
    except OSError:
        return None  # reading it will say why
