"""Where the keys of TLS connections come from: key log files, and the pcapng captures themselves.

A pcapng file holds key lines in Decryption Secrets Blocks or in comments, before or behind the packets they open. Both
are text; a key that is none opens nothing, so every key line in such a file is tried, wherever it stands. A packet may
hold a false one for a connection whose random it saw: it never replaces a key that is known.
"""

from collections.abc import Sequence
from pathlib import Path

from analyzer.capture.keylog import KeyFile, KeyLog
from analyzer.errors import CaptureError, UsageError
from analyzer.model import Octets
from analyzer.sources import Source

SEARCH_BYTES = 1 << 20
"""A capture is searched in pieces of so many bytes; the longest key line fits well into what two of them share."""

SHARED_BYTES = 1 << 9
LABELS = (b"CLIENT_", b"SERVER_")
"""What key lines that are used begin with."""


def check_keys(paths: Sequence[Path]) -> None:
    """See that key log files can be read before anything else is.

    Raises:
        UsageError: One cannot.

    """
    for path in paths:
        try:
            KeyFile(path)
        except OSError as error:
            raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error


class KeyRing:
    """All keys that one run of connections may use.

    Attributes:
        keys: Those found so far.
        may_come: Whether some may come yet: what they open is held back for a while.

    """

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        """Read key log files, which may go on growing.

        Raises:
            UsageError: One of them cannot be read.

        """
        self.keys = KeyLog()
        self.may_come = False
        self._captures: list[Source] = []
        self._files: list[KeyFile] = []
        check_keys(paths)
        for path in paths:
            file = KeyFile(path)
            file.refresh(self.keys)
            self._files.append(file)

    def has_hope(self) -> bool:
        """Whether there is any key, or may be."""
        return bool(self.keys.n_secrets or self._files or self._captures or self.may_come)

    def begin(self, source: Source, kind: str) -> None:
        """Packets come from this `pcap` or `pcapng` from now on; keys are looked for in it when one is missing."""
        can_seek = source.path is not None and source.path.is_file()
        if kind == "pcapng" and can_seek:
            self._captures.append(source)
        self.may_come = not can_seek and (kind == "pcapng" or bool(self._files))

    def begin_live(self) -> None:
        """Packets come as they happen: keys that programs log now open what was captured a moment ago."""
        self.may_come = bool(self._files)

    def take(self, data: Octets) -> None:
        """Look for keys in the bytes of a stream, which is read only once."""
        self._look(data.data)

    def refresh(self) -> bool:
        """Look for keys that were not there before; whether some came."""
        before = self.keys.n_secrets
        for file in self._files:
            file.refresh(self.keys)
        captures, self._captures = self._captures, []
        for source in captures:
            self._search(source)
        return self.keys.n_secrets > before

    def _search(self, source: Source) -> None:
        """Read a capture to its end for nothing but keys; what cannot be read is told when its packets are."""
        shared = b""
        try:
            with source.open() as file:
                while data := file.read(SEARCH_BYTES):
                    self._look(shared + data)
                    shared = data[-SHARED_BYTES:]
        except (OSError, CaptureError):
            return

    def _look(self, data: bytes | memoryview) -> None:
        content = bytes(data)
        if any(label in content for label in LABELS):
            self.keys.add(content, is_doubtful=True)
