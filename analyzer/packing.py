"""Packed streams: gzip, zstd, bzip2 and xz are unpacked while they are read, in bounded memory."""

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
"""First bytes of what is unpacked."""

FOREIGN = {
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    b"\x1f\x9d": "compress",
    b"Rar!": "rar",
    b"PAR1": "Parquet",
    b"SQLite format 3": "SQLite",
}
"""First bytes of what is only named in an error."""

FIRST_BYTES = 1 << 12
"""Enough to tell what a file is; most files of a directory are asked no more."""

READ_BYTES = 1 << 18
STEP_BYTES = 1 << 12
"""The first step into a packed member; each further one is twice as long, up to all that was read. What a member leaves
over is copied, so that steps this short keep many small members from costing more than their size."""

SALVAGED_BYTES = 4
DAMAGES = (OSError, lzma.LZMAError, EOFError, ValueError)
SNIFFED_BYTES = max(map(len, MAGIC))


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor
    else:
        from backports.zstd import ZstdDecompressor
    return ZstdDecompressor()


OPENERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zstd": _zstd,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
}


class Unpacked(io.RawIOBase):
    """A stream of plain bytes over one that may be packed; several packed members follow each other as one.

    Attributes:
        compression: `none`, or how the stream is packed.
        n_packed_bytes: Read from the stream beneath.
        is_cut: It ends inside a packed member.
        damage: What was wrong with it, None where nothing was; what came before was handed out.

    """

    def __init__(self, raw: io.RawIOBase) -> None:
        """Read the first bytes and see what they are."""
        self._raw = raw
        self.n_packed_bytes = 0
        self.is_cut = False
        self.damage: str | None = None
        head = b""
        while len(head) < SNIFFED_BYTES and (more := self._pull(FIRST_BYTES)):
            head += more
        self.compression = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "none")
        self._held = b"" if self.compression != "none" else head
        self._packed = head if self.compression != "none" else b""
        self._at = 0  # so much of `_packed` was unpacked
        self._step = STEP_BYTES
        self._member: Any = None

    @property
    def peeked(self) -> bool:
        """Whether bytes wait that were looked at, or not unpacked yet."""
        return bool(self._held) or self._at < len(self._packed)

    @property
    def _has_more(self) -> bool:
        """Whether the next read need not read from the stream beneath."""
        return self.peeked or not getattr(self._member, "needs_input", True)

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def fileno(self) -> int:
        """Descriptor of the stream beneath."""
        return self._raw.fileno()

    def close(self) -> None:
        """Close the stream beneath too."""
        if not self.closed:
            self._raw.close()
        super().close()

    def peek(self, n_bytes: int) -> bytes:
        """The first bytes that the next read will return, at most so many; empty at the end."""
        if not self._held:
            self._held = self._next(READ_BYTES)
        return self._held[:n_bytes]

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes, at most `size`; empty at the end."""
        most = READ_BYTES if size < 0 else size
        if self._held:
            out, self._held = self._held[:most], self._held[most:]
            return out
        return self._next(most)

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; returns how many bytes came."""
        view = memoryview(buffer)
        if not self._held and self.compression == "none":
            n = self._raw.readinto(view) or 0
            self.n_packed_bytes += n
            return n
        n = 0
        while n < len(view) and (data := self.read(len(view) - n)):
            view[n : n + len(data)] = data
            n += len(data)
            if not self._has_more:
                break  # more may take its time to come
        return n

    def _pull(self, most: int) -> bytes:
        data = self._raw.read(most) or b""
        self.n_packed_bytes += len(data)
        return data

    def _next(self, most: int) -> bytes:
        if self.compression == "none":
            return self._pull(most)
        while self.damage is None and not self.is_cut:
            if self._member is None:
                # members may be padded with zeros (tapes, some uploaders)
                while not self._skip_zeros():
                    if not self._pull_packed():
                        return b""
                self._member, self._step = OPENERS[self.compression](), STEP_BYTES
            try:
                out = self._unpack(most)
            except Exception as error:
                # the class of zstd's own is only there where zstd is
                if not isinstance(error, DAMAGES) and type(error).__name__ != "ZstdError":
                    raise
                self._damage(error)
                return b""
            if out:
                return out
        return b""

    def _pull_packed(self) -> bool:
        """Read more from the stream beneath; False at its end."""
        self._packed, self._at = self._pull(READ_BYTES), 0
        return bool(self._packed)

    def _skip_zeros(self) -> bool:
        """Step over zeros between members; False where nothing else is left of what was read."""
        if self._packed[self._at : self._at + 1] == b"\0":
            self._packed, self._at = self._packed[self._at :].lstrip(b"\0"), 0
        return self._at < len(self._packed)

    def _damage(self, error: Exception) -> None:
        self.damage = f"the {self.compression} data is damaged ({str(error)[:80]})"

    def _unpack(self, most: int) -> bytes:
        """One step; empty where it needs another."""
        member = self._member
        wants_input = getattr(member, "needs_input", True)
        data = b""
        if wants_input:
            if self._at == len(self._packed) and not self._pull_packed():
                self.is_cut = True
                return b""
            data = self._packed[self._at : self._at + self._step]
            self._at += len(data)
            self._step = min(2 * self._step, READ_BYTES)
        # what a step finds damaged it does not hand out: gzip can take it again in smaller ones
        saved = member.copy() if self.compression == "gzip" else None
        try:
            out: bytes = member.decompress(data, max(most, 1))
        except zlib.error as error:
            self._damage(error)
            return b"" if saved is None else _salvage(saved, data, most)
        if member.eof:
            self._at -= len(member.unused_data)
            self._member = None
        elif self.compression == "gzip":
            self._at -= len(member.unconsumed_tail)
        return out


def _salvage(member: Any, data: bytes, most: int) -> bytes:
    """What a gzip member holds before its damage, at most `most` bytes of it."""
    pieces: list[bytes] = []
    left, tail = most, b""  # what the copy has left over of the step before stands in `data`, too
    for off in range(0, len(data), SALVAGED_BYTES):
        if left <= 0:
            break
        try:
            pieces.append(member.decompress(tail + data[off : off + SALVAGED_BYTES], left))
        except zlib.error:
            break
        left, tail = left - len(pieces[-1]), member.unconsumed_tail
    return b"".join(pieces)
