"""Integers as they stand on the wire, and arithmetic of sequence numbers; all kernels.

Every byte is widened to int64 first: under NumPy 2 a uint8 shifted left stays a uint8 when interpreted.
"""

from analyzer.kernel import kernel
from analyzer.model import Octets, Rows, int64

MAX_INDEX, MAX_OFF = (1 << 31) - 1, (1 << 60) - 1
"""Indexes and offsets are never negative. Masked so, the compiler knows it, and looks at one bound instead of two."""


@kernel
def require(data: Rows, off: int, n: int) -> None:
    """Raise IndexError where there are no `n` items from `off`: a slice would be shorter and say nothing.

    Loops over a slice whose length is known need no bounds checks, which the compiler sees.
    """
    if off < 0 or n < 0 or n > len(data) - off:
        int64(data[len(data)])


@kernel
def be16(data: Octets, off: int) -> int:
    """Two bytes, most significant first."""
    return (int64(data[off]) << 8) | int64(data[off + 1])


@kernel
def be32(data: Octets, off: int) -> int:
    """Four bytes, most significant first."""
    return (int64(data[off]) << 24) | (int64(data[off + 1]) << 16) | (int64(data[off + 2]) << 8) | int64(data[off + 3])


@kernel
def be64(data: Octets, off: int) -> int:
    """Eight bytes, most significant first, as the signed number with the same bits."""
    return (be32(data, off) << 32) | be32(data, off + 4)


@kernel
def le16(data: Octets, off: int) -> int:
    """Two bytes, least significant first."""
    return (int64(data[off + 1]) << 8) | int64(data[off])


@kernel
def le32(data: Octets, off: int) -> int:
    """Four bytes, least significant first."""
    return (int64(data[off + 3]) << 24) | (int64(data[off + 2]) << 16) | (int64(data[off + 1]) << 8) | int64(data[off])


@kernel
def u16(data: Octets, off: int, is_big: bool) -> int:
    """Two bytes in the byte order of the file's writer."""
    if is_big:
        return be16(data, off)
    return le16(data, off)


@kernel
def u32(data: Octets, off: int, is_big: bool) -> int:
    """Four bytes in the byte order of the file's writer."""
    if is_big:
        return be32(data, off)
    return le32(data, off)


@kernel
def seq_diff(a: int, b: int) -> int:
    """How far sequence number `a` lies after `b`, signed, modulo 2^32 (RFC 9293 section 3.4)."""
    return ((a - b + 0x80000000) & 0xFFFFFFFF) - 0x80000000
