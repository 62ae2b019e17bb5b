"""Key lines in pcapng: Decryption Secrets Blocks and comments, found by walking over the blocks of a file.

What packets carry is passed over unread: anyone may have written it (draft-ietf-opsawg-pcapng sections 3.5 and 4.7).
"""

import io
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from analyzer.capture import wire
from analyzer.capture.container import (
    DAMAGED,
    MAX_RECORD_BYTES,
    MORE,
    PCAPNG_MAGIC,
    SECTION_HEADER,
    STOPPED,
)
from analyzer.kernel import kernel
from analyzer.model import Octets

TLS_KEY_LOG = 0x544C534B
"""Secrets type of NSS key log lines; those of others (SSH, WireGuard, ZigBee) open no TLS."""

INTERFACE, OLD_PACKET, NAMES, STATISTICS, PACKET, SECRETS = 1, 2, 4, 5, 6, 10
"""Block types that are looked into."""

FIXED_BYTES = {SECTION_HEADER: 24, INTERFACE: 16, STATISTICS: 20}
"""Where options begin in a block, for those in which that is always the same."""

COMMENT = 1
"""Code of the option."""

LEAST_BYTES = 160
"""An option with a key line is no shorter: 4, `SERVER_TRAFFIC_SECRET_0`, a random and a secret in hex, two blanks."""


@kernel
def pass_blocks(data: Octets, off: int, is_big: bool) -> tuple[int, int]:
    """Step over blocks that hold no key lines.

    Returns:
        Offset of the block that it stopped at, and why: it is not there to its end, Python looks into it, or damage.

    """
    end = len(data)
    while end - off >= 12:
        kind = wire.u32(data, off, is_big)
        if kind == SECTION_HEADER:
            return off, STOPPED
        length = wire.u32(data, off + 4, is_big)
        if length < 12 or length % 4 != 0 or length > MAX_RECORD_BYTES:
            return off, DAMAGED
        if length > end - off:
            return off, MORE
        if wire.u32(data, off + length - 4, is_big) != length:
            return off, DAMAGED
        if kind == PACKET or kind == OLD_PACKET:
            rest = length - 32
            if rest < 0 or wire.u32(data, off + 20, is_big) > rest:
                return off, DAMAGED
            # options of a packet are few and short, but for comments
            if rest - wire.u32(data, off + 20, is_big) >= LEAST_BYTES:
                return off, STOPPED
        elif kind == SECRETS or ((kind == INTERFACE or kind == STATISTICS or kind == NAMES) and length > LEAST_BYTES):
            return off, STOPPED
        off += length
    return off, MORE


class KeyWalker:
    """Walks over the bytes of a capture as they come, and gives out the texts in it that may hold key lines.

    Attributes:
        is_over: No more can be found: behind damage, where reading packets ends, too, and in what is no pcapng.

    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._lacks_bytes = 12
        self._is_big = False
        self._has_begun = False
        self.is_over = False

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes]:
        """The texts in blocks that end in these bytes."""
        if self.is_over:
            return
        self._pieces.append(bytes(piece))
        self._lacks_bytes -= len(piece)
        if self._lacks_bytes > 0:
            return
        data, off = b"".join(self._pieces), 0
        self._pieces = []
        octets = np.frombuffer(data, np.uint8)
        while True:
            off, why = (off, STOPPED) if not self._has_begun else pass_blocks(octets, off, self._is_big)
            if why == STOPPED:
                block = self._cut(data, off)
                if block is None:
                    why = DAMAGED if self.is_over else MORE
                else:
                    self._has_begun = True
                    yield from _texts(block, is_big=self._is_big)
                    off += len(block)
            if why == DAMAGED:
                self.is_over = True
                return
            if why == MORE:
                rest = data[off:]
                length = int.from_bytes(rest[4:8], _order(self._is_big)) if len(rest) >= 12 else 12
                self._pieces, self._lacks_bytes = [rest], length - len(rest)
                return

    def _cut(self, data: bytes, off: int) -> bytes | None:
        """The block that stands here; None where it is not there to its end, or is damaged."""
        head = data[off : off + 12]
        if not PCAPNG_MAGIC.startswith(head[:4]) and not self._has_begun:
            self.is_over = True
            return None
        if len(head) < 12:
            return None
        if head[:4] == PCAPNG_MAGIC:
            self._is_big = head[8:12] == b"\x1a\x2b\x3c\x4d"
            self.is_over = not self._is_big and head[8:12] != b"\x4d\x3c\x2b\x1a"
        length = int.from_bytes(head[4:8], _order(self._is_big))
        self.is_over |= length < 12 or length % 4 != 0 or length > MAX_RECORD_BYTES
        if self.is_over or length > len(data) - off:
            return None
        block = data[off : off + length]
        self.is_over = block[-4:] != block[4:8]
        return None if self.is_over else block


class Tapped(io.RawIOBase):
    """A stream, and all that was read of it also to whoever looks for keys, before it is handed on."""

    def __init__(self, stream: io.RawIOBase, look: Callable[[memoryview], None]) -> None:
        """`look` is called with the bytes that come."""
        self._stream = stream
        self._look = look

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; returns how many bytes came."""
        n = self._stream.readinto(buffer) or 0
        self._look(memoryview(buffer)[:n])
        return n


def _order(is_big: bool) -> Literal["big", "little"]:
    return "big" if is_big else "little"


def _texts(block: bytes, *, is_big: bool) -> Iterator[bytes]:
    """Key log and comments of a whole block."""
    order = _order(is_big)
    kind = int.from_bytes(block[:4], order)
    off = FIXED_BYTES.get(kind, len(block))
    if kind in (PACKET, OLD_PACKET):
        off = 28 + _to_words(int.from_bytes(block[20:24], order))
    elif kind == SECRETS:
        length = min(int.from_bytes(block[12:16], order), len(block) - 20)
        off = 16 + _to_words(max(length, 0))
        if int.from_bytes(block[8:12], order) == TLS_KEY_LOG:
            yield block[16 : 16 + length]
    elif kind == NAMES:
        off = 8
        while int.from_bytes(block[off : off + 2], order) and off + 4 <= len(block) - 4:
            off += 4 + _to_words(int.from_bytes(block[off + 2 : off + 4], order))
        off += 4
    end = len(block) - 4
    while off + 4 <= end:
        code, length = (int.from_bytes(block[at : at + 2], order) for at in (off, off + 2))
        if code == 0:
            return
        if code == COMMENT:
            yield block[off + 4 : min(off + 4 + length, end)]
        off += 4 + _to_words(length)


def _to_words(n: int) -> int:
    return n + (-n) % 4
