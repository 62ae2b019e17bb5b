"""Where the keys of TLS connections come from: key log files, and the pcapng captures themselves.

A pcapng file holds key lines in Decryption Secrets Blocks or in comments, before or behind the packets they open. What
its packets carry is never looked at for keys: anyone may have written it.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyzer.capture.keyblock import KeyWalker, Tapped
from analyzer.capture.keylog import KeyFile, KeyLog
from analyzer.errors import CaptureError, UsageError
from analyzer.sources import Source

SEARCH_BYTES = 1 << 20
"""A capture is searched in pieces of so many bytes."""

UNUSABLE = (MISSING, EMPTY, KEYLESS) = ("missing", "empty", "keyless")
"""What may be wrong with a key log: it is not there, it is empty, no line in it is a key."""

LABELS = (b"CLIENT_", b"SERVER_")
"""What key lines that are used begin with."""


def check_keys(paths: Sequence[Path], *, is_late: bool = False) -> None:
    """See that key log files can be read before anything else is.

    Args:
        paths: The files.
        is_late: Whether they may appear later.

    Raises:
        UsageError: One cannot.

    """
    for path in paths:
        _open(path, is_late=is_late)


def _open(path: Path, *, is_late: bool) -> KeyFile:
    try:
        return KeyFile(path, is_late=is_late)
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def weigh_keys(paths: Sequence[Path], sums: Mapping[str, int]) -> dict[str, Any]:
    """What keys were good for, as reports tell it.

    Args:
        paths: The key logs that were given.
        sums: Of columns of `inputs`.

    Returns:
        How many connections carried TLS that keys might have opened, how many of them were, whether there was any
        secret, and the key logs that hold none; one that is not there is of no concern where nothing was encrypted.

    """
    n_encrypted = max(sums["tls"] - sums["skipped_tls_failed"], sums["tls_opened"])
    unusable = [(str(path), _status(path)) for path in paths]
    return {
        "connections": n_encrypted,
        "opened": sums["tls_opened"],
        "has_any": sums["secrets"] > 0,
        "unusable": [
            {"source": source, "status": status}
            for source, status in unusable
            if status is not None and (status != MISSING or n_encrypted)
        ],
    }


def _status(path: Path) -> str | None:
    """One of `UNUSABLE`, None for a key log that holds a secret."""
    keys, n_bytes = KeyLog(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(SEARCH_BYTES):
                n_bytes += len(data)
                if keys.add(data, source=str(path)):
                    return None
    except OSError:
        return MISSING
    return KEYLESS if n_bytes else EMPTY


class KeyRing:
    """All keys that one run of connections may use.

    Attributes:
        keys: Those found so far.
        may_come: Whether some may come yet: what they open is held back for a while.

    """

    def __init__(self, paths: Sequence[Path] = (), *, is_late: bool = False) -> None:
        """Read key log files, which may go on growing.

        Args:
            paths: The files.
            is_late: Whether they may appear later.

        Raises:
            UsageError: One of them cannot be read.

        """
        self.keys = KeyLog()
        self.may_come = False
        self._captures: list[Source] = []
        self._files: list[KeyFile] = []
        for path in paths:
            self._files.append(_open(path, is_late=is_late))
        for file in self._files:
            file.refresh(self.keys)

    def has_hope(self) -> bool:
        """Whether there is any key, or may be."""
        return bool(self.keys.n_secrets or self._files or self._captures or self.may_come)

    def tap(self, stream: io.RawIOBase, source: Source) -> io.RawIOBase:
        """What to read a capture from, so that keys are found in it also where it is read only once."""
        if _can_seek(source):
            return stream
        walker = KeyWalker()

        def look(data: memoryview) -> None:
            self._look(walker, data)

        return Tapped(stream, look)

    def begin(self, source: Source, kind: str) -> None:
        """Packets come from this `pcap` or `pcapng` from now on; keys are looked for in it when one is missing."""
        can_seek = _can_seek(source)
        if kind == "pcapng" and can_seek:
            self._captures.append(source)
        self.may_come = not can_seek and (kind == "pcapng" or bool(self._files))

    def begin_live(self) -> None:
        """Packets come as they happen: keys that programs log now open what was captured a moment ago."""
        self.may_come = bool(self._files)

    def refresh(self) -> bool:
        """Look for keys that were not there before; whether some came."""
        before = self.keys.version
        for file in self._files:
            file.refresh(self.keys)
        captures, self._captures = self._captures, []
        for source in captures:
            self._search(source)
        return self.keys.version > before

    def _search(self, source: Source) -> None:
        """Walk through a capture to its end for nothing but keys; what cannot be read is told when its packets are."""
        walker = KeyWalker()
        try:
            with source.open() as file:
                while not walker.is_over and (data := file.read(SEARCH_BYTES)):
                    self._look(walker, data)
        except (OSError, CaptureError):
            return

    def _look(self, walker: KeyWalker, data: bytes | memoryview) -> None:
        for text in walker.feed(data):
            if any(label in text for label in LABELS):
                self.keys.add(text)


def _can_seek(source: Source) -> bool:
    """Whether a capture can be read a second time."""
    return source.path is not None and source.path.is_file()
