"""TCP checksums of segments that were put together from fragments; kernels.

An IPv4 identification has 16 bits and is used again within a second on a fast link, so behind a lost fragment the
halves of two datagrams can meet (RFC 4963). Only the checksum tells. Segments that came whole are not looked at: the
capture point often lies before the network card that fills theirs in, but nobody cuts a packet before it has one.
"""

from analyzer.capture import wire
from analyzer.kernel import kernel
from analyzer.model import Octets, Rows, int64

IPV4_MAPPED = 0xFFFF
MAX_HEADER_BYTES = 60


@kernel
def word_sum(value: int) -> int:
    """Sum of a 64-bit number's four 16-bit words."""
    return (value & 0xFFFF) + ((value >> 16) & 0xFFFF) + ((value >> 32) & 0xFFFF) + ((value >> 48) & 0xFFFF)


@kernel
def address_sum(high: int, low: int) -> int:
    """Sum of the words of an address in two halves; over IPv4 there is no ::ffff in front of it."""
    total = word_sum(high) + word_sum(low)
    if high == 0 and low >> 32 == IPV4_MAPPED:
        total -= IPV4_MAPPED
    return total


@kernel
def is_sound(data: Octets, row: Rows) -> bool:
    """Whether nothing speaks against this SEGMENT row: its checksum fits, was never filled in, or cannot be told.

    RFC 9293 section 3.1 and, for IPv6, RFC 8200 section 8.1: but for the addresses both pseudo-headers sum to the same.
    """
    payload, n = int64(row["payload_off"]), int64(row["payload_bytes"])
    if n != int64(row["wire_bytes"]):
        return True
    for header in range(20, MAX_HEADER_BYTES + 1, 4):
        at = payload - header
        if at < 0:
            return True
        if (int64(data[at + 12]) >> 4) * 4 != header or wire.be32(data, at + 4) != int64(row["seq"]):
            continue
        if wire.be16(data, at) != int64(row["sport"]) or wire.be16(data, at + 2) != int64(row["dport"]):
            continue
        if wire.be16(data, at + 16) == 0:
            return True
        total = 6 + header + n
        total += address_sum(int64(row["src_hi"]), int64(row["src_lo"]))
        total += address_sum(int64(row["dst_hi"]), int64(row["dst_lo"]))
        end = payload + n
        for i in range(at, end - 1, 2):
            total += wire.be16(data, i)
        if (end - at) & 1:
            total += int64(data[end - 1]) << 8
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return total == 0xFFFF
    return True


@kernel
def find_sound(data: Octets, segments: Rows, found: Rows) -> int:
    """Write the indexes of segments that are sound; how many there are."""
    n = 0
    for i in range(len(segments)):
        if is_sound(data, segments[i]):
            found[n] = i
            n += 1
    return n
