"""Secrets of TLS connections as programs log them (NSS key log format), by the random of the ClientHello.

https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-02.html describes the format. Secrets stay in here: nothing
that is shown, raised or written names one.
"""

import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from analyzer.errors import UsageError

MASTER = "CLIENT_RANDOM"
"""The label of the master secret of TLS 1.2 and older."""

EARLY = "CLIENT_EARLY_TRAFFIC_SECRET"
HANDSHAKE = ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET")
TRAFFIC = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")
LABELS = (MASTER, EARLY, *HANDSHAKE, *TRAFFIC)

MAX_SECRETS = 2**20
"""More are dropped and counted; so many take 108 MB."""

MAX_RIVALS = 4
"""Different secrets for one label of one connection; each is tried, more are dropped and counted."""

ENTRY_BYTES = 82
"""Of a secret as it is held: random, label, length, the secret and what it lacks to 48 bytes."""

BUCKETS = 2**14
"""Secrets are looked for in one of so many heaps, which hold 64 each when there are as many as there can be."""

MAX_SESSIONS = 2**16
"""TLS 1.2 sessions that may be resumed; the oldest goes first."""

MAX_TAIL_BYTES = 1024
"""Of a line that is not complete yet; a key line has at most 193."""

MAX_SOURCES = 64
"""Sources whose last line may be incomplete at the same time."""

READ_BYTES = 2**20

_LINE = re.compile(
    rb"^[ \t]*#[^\r\n]*"
    rb"|(?<![0-9A-Za-z_])(" + "|".join(sorted(LABELS, key=len, reverse=True)).encode() + rb")[ \t]+"
    rb"(?:([0-9A-Fa-f]{64})[ \t]+([0-9A-Fa-f]{96}|[0-9A-Fa-f]{64})(?![0-9A-Za-z])|([0-9A-Fa-f]{16}))",
    re.MULTILINE,
)
"""A comment, a key line anywhere in a text, or what begins like one."""


class KeyLog:
    """Secrets that were read so far, packed: objects of Python's own would take six times the memory. Pickles.

    Attributes:
        n_secrets: How many are held.
        n_dropped: How many did not fit in.
        n_bad: Lines that begin like key lines and are none.
        version: Changes whenever a secret comes.
    """

    def __init__(self) -> None:
        self.n_secrets = self.n_dropped = self.n_bad = self.version = 0
        self._salt = os.urandom(16)  # nobody can choose randoms that all fall into one bucket
        self._buckets: dict[int, bytearray] = {}
        self._sessions: OrderedDict[bytes, bytes] = OrderedDict()
        self._tails: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"<KeyLog: {self.n_secrets} secrets>"

    def add(self, data: bytes, *, source: str | None = None) -> int:
        """Take the key lines that stand in a text.

        Args:
            data: Any bytes; lines end in LF, CRLF or CR.
            source: Names what goes on: a line that this text ends in is completed by the next one of the same source.
                Without it the text is whole.

        Returns:
            How many secrets came that were not known, or not so.
        """
        n_new = 0
        if source is not None:
            data = self._tails.pop(source, b"") + data
            end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
            tail = data[end:]
            if tail and len(tail) <= MAX_TAIL_BYTES and len(self._tails) < MAX_SOURCES:
                # many files lack their last line's end: what is complete counts, and is replaced if it grows
                n_bad, n_new, data = self.n_bad, self._take(tail), data[:end]
                self.n_bad = n_bad
                self._tails[source] = tail
        return n_new + self._take(data)

    def forget(self, source: str) -> None:
        """Give up the line of a source that was not complete."""
        self._tails.pop(source, None)

    def _take(self, data: bytes) -> int:
        n_new = 0
        for match in _LINE.finditer(data):
            label, random, secret, broken = match.groups()
            if broken is not None or (secret is not None and label == b"CLIENT_RANDOM" and len(secret) != 96):
                self.n_bad += 1
            elif secret is not None:
                n_new += self._keep(bytes.fromhex(random.decode()), _NUMBERS[label], bytes.fromhex(secret.decode()))
        return n_new

    def _keep(self, random: bytes, label: int, secret: bytes) -> bool:
        bucket = self._buckets.setdefault(self._bucket_of(random), bytearray())
        n_rivals = 0
        for at in _places(bucket, random):
            if bucket[at + 32] != label:
                continue
            known = _secret_at(bucket, at)
            if known.startswith(secret):
                return False
            if secret.startswith(known):  # the rest of a line that was cut short
                bucket[at : at + ENTRY_BYTES] = _pack(random, label, secret)
                self.version += 1
                return True
            n_rivals += 1
        if self.n_secrets >= MAX_SECRETS or n_rivals >= MAX_RIVALS:
            self.n_dropped += 1
            return False
        self.n_secrets += 1
        self.version += 1
        bucket += _pack(random, label, secret)
        return True

    def _bucket_of(self, random: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(random, digest_size=2, key=self._salt).digest(), "big") % BUCKETS

    def find(self, client_random: bytes) -> dict[str, tuple[bytes, ...]] | None:
        """Secrets by label of the connection with this random in its ClientHello, in the order in which they came."""
        bucket = self._buckets.get(self._bucket_of(client_random))
        if bucket is None:
            return None
        found: dict[str, tuple[bytes, ...]] = {}
        for at in _places(bucket, client_random):
            label = LABELS[bucket[at + 32]]
            found[label] = (*found.get(label, ()), _secret_at(bucket, at))
        return found or None

    def settle(self, client_random: bytes, label: str, secret: bytes) -> None:
        """A record was opened under this secret: others that claim to be the same are forgotten."""
        bucket = self._buckets.get(self._bucket_of(client_random), bytearray())
        places = [at for at in _places(bucket, client_random) if LABELS[bucket[at + 32]] == label]
        if len(places) > 1 and any(_secret_at(bucket, at) == secret for at in places):
            for at in reversed(places):
                if _secret_at(bucket, at) != secret:
                    del bucket[at : at + ENTRY_BYTES]
                    self.n_secrets -= 1
                    self.version += 1

    def remember(self, name: bytes, master: bytes) -> None:
        """Keep the master secret of a TLS 1.2 session that a later connection may resume.

        Args:
            name: What `name_session` made of its session ID or its ticket.
        """
        self._sessions[name] = master
        self._sessions.move_to_end(name)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def recall(self, name: bytes) -> bytes | None:
        """The master secret of a session."""
        return self._sessions.get(name)


_NUMBERS = {label.encode(): number for number, label in enumerate(LABELS)}


def _pack(random: bytes, label: int, secret: bytes) -> bytes:
    return b"%b%c%c%b" % (random, label, len(secret), secret.ljust(48, b"\0"))


def _secret_at(bucket: bytearray, at: int) -> bytes:
    return bytes(bucket[at + 34 : at + 34 + bucket[at + 33]])


def _places(bucket: bytearray, random: bytes) -> Iterator[int]:
    """Where entries with this random stand."""
    at = bucket.find(random)
    while at >= 0:
        if at % ENTRY_BYTES == 0:
            yield at
        at = bucket.find(random, at + 1)


def name_session(session: bytes) -> bytes:
    """A key of one size for a session ID or a ticket, however long."""
    return hashlib.sha256(session).digest()


class KeyFile:
    """A key log file that may grow while it is read.

    Args:
        path: A regular file: what is written to a pipe comes only once, and nobody can tell when it will.
        is_late: It may not be there yet.

    Raises:
        OSError: There is no such file, or it may not be read.
        UsageError: It is something else than a file.
    """

    def __init__(self, path: str | os.PathLike[str], *, is_late: bool = False) -> None:
        self.path = Path(path)
        if not is_late or self.path.exists():
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise UsageError(f"{self.path}: a key log has to be a regular file")
            with self.path.open("rb"):
                pass
        self._file: tuple[int, int] | None = None  # device and inode
        self._seen: tuple[int, int] | None = None  # size and time of change
        self._off = 0
        self._last = b""

    def refresh(self, keys: KeyLog) -> bool:
        """Read what was appended since, all of it if the file is another one by now; true if secrets came.

        Costs one look at the file's size (2 us) where nothing was written. A file that has gone away has nothing new.
        """
        try:
            about = self.path.stat()
            if not stat.S_ISREG(about.st_mode):
                return False
            file, seen = (about.st_dev, about.st_ino), (about.st_size, about.st_mtime_ns)
            if (file, seen) == (self._file, self._seen):
                return False
            with self.path.open("rb") as opened:
                n_new = self._read(opened.fileno(), keys, is_same=file == self._file)
        except OSError:
            return False
        self._file, self._seen = file, seen
        return n_new > 0

    def _read(self, descriptor: int, keys: KeyLog, *, is_same: bool) -> int:
        source = str(self.path)
        os.lseek(descriptor, max(self._off - len(self._last), 0), os.SEEK_SET)
        # the bytes before the offset tell a file that was written anew, and is longer already, from one that grew
        if not is_same or os.read(descriptor, len(self._last)) != self._last:
            keys.forget(source)
            self._off, self._last = 0, b""
            os.lseek(descriptor, 0, os.SEEK_SET)
        n_new = 0
        while data := os.read(descriptor, READ_BYTES):
            n_new += keys.add(data, source=source)
            self._off += len(data)
            self._last = (self._last + data)[-256:]
        return n_new
