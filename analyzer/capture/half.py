"""One direction of a TLS connection: which keys it is under, which record comes next, what it holds back."""

import enum
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from analyzer.capture import cipher
from analyzer.capture.mark import Mark

PLAIN_EPOCH, EARLY_EPOCH, HANDSHAKE_EPOCH, DATA_EPOCH = range(4)
"""Which keys a direction is under; TLS 1.2 knows the first and the last."""

UNKNOWN: Final = -1
"""Bytes were lost, nobody knows how many."""

LOSS, MISS = -1, -2
"""Stand for a content type: records that were not captured, a record of which only the header was."""

CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET, END_OF_EARLY_DATA, ENCRYPTED_EXTENSIONS = 1, 2, 4, 5, 8
CERTIFICATE, SERVER_HELLO_DONE, FINISHED, KEY_UPDATE = 11, 14, 20, 24
"""Handshake messages (RFC 8446 section 4, RFC 5246 section 7.4)."""

READ_MESSAGES = frozenset(
    {CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET, END_OF_EARLY_DATA, ENCRYPTED_EXTENSIONS, FINISHED, KEY_UPDATE}
)
"""Of others only type and length are looked at."""

MESSAGE_BYTES = 2**16
"""Of a handshake message that is read; a longer one is passed over."""

HELD_RECORD_BYTES = 256
"""What holding a record costs beside its body."""


class State(enum.StrEnum):
    """How far a direction, or the connection, can be read."""

    WAITING = "waiting"  # keys or hellos may still come
    OPEN = "open"  # a record was opened under the keys
    SEALED = "sealed"  # nothing more can be read


class Item(NamedTuple):
    """A record, or a loss.

    `n` is how many records a `LOSS` means (None: nobody knows), and how long the body of a `MISS` is, whose content
    type then stands in `version`.
    """

    kind: int
    version: int
    body: bytes
    mark: Mark | None
    n: int | None = None


class Half:
    """One direction.

    Attributes:
        seq: Number of the next record under these keys if none is lost.
        ahead: So many are known to be lost before it.
        lost: Bytes of application data that were lost and not told yet.
        is_blind: Handshake messages are passed over, since where they begin is not known.
        is_fast: Record after record of application data came; the next is tried before anything else is asked.
        is_lossy: Records were lost since the last one that was opened; `was_lossy`: or ever.
        has_finished: Its Finished was seen, or must have been sent.
        is_unproven: The keys are from a key log, and have opened nothing yet.
        rivals: Other keys for the same, with their secrets; `failed`: secrets of those that opened nothing.
    """

    __slots__ = (
        "ahead",
        "buffer",
        "direction",
        "epoch",
        "failed",
        "has_data",
        "has_finished",
        "held",
        "is_blind",
        "is_fast",
        "is_lossy",
        "is_unproven",
        "lost",
        "mark",
        "missed",
        "missed_bytes",
        "n_hellos",
        "n_skipped",
        "opener",
        "rivals",
        "secret",
        "seq",
        "skip",
        "state",
        "was_lossy",
    )

    def __init__(self, direction: int) -> None:
        self.direction = direction
        self.state = State.WAITING
        self.epoch = PLAIN_EPOCH
        self.opener: cipher.Opener | None = None
        self.secret = b""
        self.rivals: list[tuple[cipher.Opener, bytes]] = []
        self.failed: tuple[bytes, ...] = ()
        self.seq = self.ahead = 0
        self.missed = 0  # of the records ahead a header was seen
        self.missed_bytes = 0  # application data in them
        self.lost = 0
        self.is_blind = self.is_fast = self.is_lossy = self.was_lossy = self.is_unproven = False
        self.has_finished = self.has_data = False
        self.n_hellos = 0
        self.n_skipped = 0  # records of early data
        self.buffer = bytearray()  # of a handshake message that is not complete
        self.skip = 0  # bytes of one that is passed over
        self.held: deque[Item] | None = None
        self.mark: Mark | None = None  # of the last record

    def restart(self, epoch: int, opener: cipher.Opener | None = None, secret: bytes = b"") -> None:
        """Go on under other keys, from the sequence number 0."""
        self.epoch, self.opener, self.secret = epoch, opener, secret
        self.rivals, self.failed, self.is_unproven = [], (), False
        self.seq = self.ahead = self.missed = self.missed_bytes = 0
        self.is_blind = self.is_fast = self.is_lossy = False
        self.forget_message()

    def adopt(self, found: Sequence[tuple[cipher.Opener, bytes]]) -> bool:
        """Try these keys, with their secrets, on what comes next; whether there is one that has not failed."""
        chosen = [keys for keys in found if keys[1] not in self.failed]
        if not chosen:
            return False
        (self.opener, self.secret), self.rivals, self.is_unproven = chosen[0], chosen[1:], True
        return True

    def prefer(self, keys: tuple[cipher.Opener, bytes]) -> None:
        """One of the rivals fits."""
        self.opener, self.secret = keys

    def reject(self) -> None:
        """None of the keys fits: others may yet come."""
        self.failed = (*self.failed, self.secret, *(secret for _, secret in self.rivals))
        self.opener, self.secret, self.rivals, self.is_unproven = None, b"", [], False

    def forget_message(self) -> None:
        """Drop what there is of a handshake message."""
        self.buffer.clear()
        self.skip = 0

    def pass_message(self) -> bool:
        """Pass over the handshake message that is not complete; whether there is one that tells its length."""
        if len(self.buffer) < 4:
            return False
        self.skip = 4 + int.from_bytes(self.buffer[1:4], "big") - len(self.buffer)
        self.buffer = bytearray()
        return True

    def cut_messages(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Handshake messages that these bytes complete, however they are cut into records (RFC 8446 section 5.1).

        Those that are not in `READ_MESSAGES`, or too long, come without their bytes, once their head is there.
        """
        if self.skip:
            n = min(self.skip, len(data))
            self.skip -= n
            data = data[n:]
        buffer, off = self.buffer, 0
        buffer += data
        try:
            while len(buffer) - off >= 4:
                message, n = buffer[off], int.from_bytes(buffer[off + 1 : off + 4], "big")
                end = off + 4 + n
                if message not in READ_MESSAGES or n > MESSAGE_BYTES:
                    self.skip = max(end - len(buffer), 0)
                    off = min(end, len(buffer))
                    yield message, b""
                elif end > len(buffer):
                    break
                else:
                    body, off = bytes(buffer[off + 4 : end]), end
                    yield message, body
        finally:
            del buffer[:off]

    def hold(self, item: Item) -> int:
        """Keep a record for later, return what that costs."""
        if self.held is None:
            self.held = deque()
        self.held.append(item)
        return len(item.body) + HELD_RECORD_BYTES

    def add_lost(self, n_bytes: int) -> None:
        """Application data was lost; `UNKNOWN` stays so."""
        self.lost = UNKNOWN if UNKNOWN in (n_bytes, self.lost) else self.lost + n_bytes
        self.is_fast = False

    def note_loss(self, n_records: int | None) -> None:
        """Records were lost, None: nobody knows how many."""
        self.forget_message()
        self.is_blind = self.is_lossy = self.was_lossy = True
        self.is_fast = False
        self.ahead += n_records or 0

    def note_miss(self, n_bytes: int) -> None:
        """A record was lost, of which it is known that it held so many bytes of application data."""
        self.note_loss(1)
        self.missed += 1
        self.missed_bytes = UNKNOWN if UNKNOWN in (n_bytes, self.missed_bytes) else self.missed_bytes + n_bytes

    def note_opened(self, seq: int, *, is_13: bool) -> None:
        """The record with this number was opened: what lies between it and the one before is lost."""
        if skipped := seq - self.seq:
            self.forget_message()
            self.is_blind = True
            # no application data is under the handshake's keys, nor in the first record of TLS 1.2, which is Finished
            if self.epoch != HANDSHAKE_EPOCH and (is_13 or self.seq or skipped > 1):
                self.add_lost(self.missed_bytes if skipped == self.missed else UNKNOWN)
        self.seq = seq + 1
        if self.is_lossy:
            self.is_lossy = False
            self.ahead = self.missed = self.missed_bytes = 0
        self.state = State.OPEN
