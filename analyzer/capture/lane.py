"""Directions of TLS connections whose records are opened many at a time: AES-GCM under keys that have proved right.

What a lane cannot read, it leaves, and all that follows with it: records whose tags do not fit, that hold no
application data, that are incomplete. Then the session that it came from reads on, record by record.
"""

from typing import Any, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from analyzer.capture import keystream, reassemble
from analyzer.capture.mark import Mark
from analyzer.model import LANE, SPAN, Octets, Rows

MAX_CIPHERS = 1 << 13
"""Ciphers kept ready, of a KB each; making one anew takes some microseconds."""

KEY_BYTES, IV_BYTES = LANE["key"].shape[0], LANE["iv"].shape[0]

N_SHIFTS = 4093
"""Random moves of equations, used in turn."""

NONCE = bytes(12)
"""GHASH is had as the difference of two tags under one nonce; nothing is ever sealed with it."""


class Flown(NamedTuple):
    """What was opened: SPAN rows, the records they came from, where their bytes lie; and which records are left."""

    spans: Rows
    order: Rows
    data: Octets
    left: Rows


class Left(NamedTuple):
    """Where a lane was left: the number of its next record, where the last one stood, its explicit nonce."""

    seq: int
    mark: Mark
    explicit: bytes


class _Ready(NamedTuple):
    """The ciphers of one key, and the tags that GMAC makes of zeros, by their number."""

    encryptor: Any
    aead: AESGCM
    of_zeros: dict[int, bytes]


class Lanes:
    """All lanes. Pickles with its keys, and shows none."""

    def __init__(self) -> None:
        self.rows = np.zeros(0, LANE)
        self._shifts = np.random.default_rng().integers(0, keystream.SHIFTS, N_SHIFTS)
        self._begun: list[int] = []
        self._ready: dict[int, _Ready] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": {}}

    def grow(self, n_layers: int) -> None:
        """Have room for so many connections."""
        n_more = 2 * n_layers - len(self.rows)
        if n_more > 0:
            self.rows = np.concatenate([self.rows, np.zeros(n_more, LANE)])

    def enter(self, lane: int, key: bytes, iv: bytes, seq: int, begin: int, *, is_13: bool) -> None:
        """Take a direction over.

        Args:
            iv: 12 bytes, or the 4 that are not in the records.
            seq: Number of its next record.
            begin: The first of the records under way that may be its.

        """
        row = self.rows[lane]
        row["key"] = np.frombuffer(key.ljust(KEY_BYTES, b"\0"), np.uint8)
        row["iv"] = np.frombuffer(iv.ljust(IV_BYTES, b"\0"), np.uint8)
        row["key_bytes"], row["is_13"], row["is_fast"] = len(key), is_13, 1
        row["seq"], row["begin"] = seq, begin
        self._ready.pop(lane, None)
        if begin:
            self._begun.append(lane)

    def leave(self, lane: int) -> Left | None:
        """Give a direction back, None where it is none of these."""
        row = self.rows[lane]
        if not row["is_fast"]:
            return None
        row["is_fast"] = 0
        self._ready.pop(lane, None)
        left = Left(int(row["seq"]), Mark(*(int(row[name]) for name in Mark._fields)), row["explicit"].tobytes())
        self.rows[lane : lane + 1].view(np.uint8)[:] = 0
        return left

    def forget(self, layer: int) -> None:
        """Let go of a connection."""
        both = self.rows[2 * layer : 2 * layer + 2]
        if both["is_fast"].any():
            both.view(np.uint8)[:] = 0  # a fifth of the time that it takes field by field
            for lane in (2 * layer, 2 * layer + 1):
                self._ready.pop(lane, None)

    def find_others(self, records: Rows) -> Rows:
        """Which records are on no lane."""
        return np.flatnonzero(self.rows["is_fast"][_lanes_of(records)] == 0)

    def open(self, records: Rows, arena: Octets, n_before: int) -> Flown:
        """Open what is on lanes.

        Args:
            records: RECORD rows.
            arena: Where their bodies lie, each at a whole multiple of 8.
            n_before: Bytes that the caller puts before those that come back.

        """
        n, lanes = len(records), self.rows
        places, sizes, used = np.empty(n, np.int64), np.zeros(n, np.int64), np.empty(n, np.int64)
        state = np.zeros(keystream.STATE_SIZE, np.int64)
        n_used = int(keystream.plan(records, lanes, used, places, state))
        used = used[:n_used]
        n_blocks, n_sums = state.tolist()
        words = np.empty(2 * n_blocks, np.int64)
        stream_words, sum_words = np.empty(2 * n_blocks + 2, np.int64), np.zeros(2 * n_sums, np.int64)
        blocks, stream, sums = words.view(np.uint8), stream_words.view(np.uint8), sum_words.view(np.uint8)
        keystream.count_up(records, arena, lanes, places, blocks, words)
        ready = self._encrypt(used, blocks.data, stream.data)
        keystream.begin_again(lanes, used, n_used)
        arena_words = arena.view(np.int64)
        keystream.decrypt(
            records, arena, arena_words, lanes, places, sizes, stream, stream_words, sums, sum_words, self._shifts
        )
        self._verify(used, ready, sums.data)
        spans, order = np.zeros(n, SPAN), np.empty(n, np.int64)
        n_spans = keystream.emit(records, arena, lanes, places, sizes, n_before, spans, order, reassemble.IN_PLAIN)
        left = np.zeros(0, np.int64)
        if n_used and int(lanes["stop"][used].min()) < n:
            of = _lanes_of(records)
            left = np.flatnonzero((lanes["is_used"][of] == 1) & (np.arange(n) >= lanes["stop"][of]))
        lanes["is_used"][used] = 0
        lanes["begin"][self._begun] = 0
        self._begun.clear()
        return Flown(spans[:n_spans], order[:n_spans], stream, left)

    def _encrypt(self, used: Rows, blocks: memoryview, stream: memoryview) -> list[_Ready]:
        """Encrypt the counter blocks of every lane."""
        ready = []
        columns = (self.rows[name][used].tolist() for name in ("first_block", "n_blocks"))
        for lane, first, n in zip(used.tolist(), *columns, strict=True):
            ciphers = self._ready.get(lane) or self._prepare(lane)
            ready.append(ciphers)
            begin, end = 16 * first, 16 * (first + n)
            if n:
                ciphers.encryptor.update_into(blocks[begin:end], stream[begin : end + 15])
        return ready

    def _prepare(self, lane: int) -> _Ready:
        if len(self._ready) >= MAX_CIPHERS:
            self._ready.clear()
        row = self.rows[lane]
        key = row["key"][: int(row["key_bytes"])].tobytes()
        # of single blocks, each of which stands for a place in the key stream (NIST SP 800-38D section 6.5)
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
        ready = self._ready[lane] = _Ready(encryptor, AESGCM(key), {})
        return ready

    def _verify(self, used: Rows, ready: list[_Ready], sums: memoryview) -> None:
        """Stop every lane where the tags do not fit at the first of its records."""
        columns = (self.rows[name][used].tolist() for name in ("sum_block", "sum_blocks"))
        for lane, ciphers, first, n in zip(used.tolist(), ready, *columns, strict=True):
            of_zeros = ciphers.of_zeros.get(n)
            if of_zeros is None:
                of_zeros = ciphers.of_zeros[n] = ciphers.aead.encrypt(NONCE, b"", bytes(16 * n))
            if ciphers.aead.encrypt(NONCE, b"", sums[16 * first : 16 * (first + n)]) != of_zeros:
                self.rows["stop"][lane] = self.rows["begin"][lane]


def _lanes_of(records: Rows) -> Rows:
    """LANE indexes of RECORD rows."""
    lanes: Rows = 2 * records["layer"].astype(np.int64) + (records["stream"] & 1)
    return lanes
