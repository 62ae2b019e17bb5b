"""Packets to TCP segments: link layer, IP, TCP headers; one kernel.

Knows headers only, never payload. What it does not understand it counts (`Counter`), it never guesses.
"""

from analyzer.capture import wire
from analyzer.kernel import kernel
from analyzer.model import Counter, Octets, Rows, int64

NOT_IP = int(Counter.NOT_IP)
NOT_TCP = int(Counter.NOT_TCP)
QUIC = int(Counter.QUIC)
TUNNEL = int(Counter.TUNNEL)
FRAGMENT = int(Counter.FRAGMENT)
CUT_HEADER = int(Counter.CUT_HEADER)
MALFORMED = int(Counter.MALFORMED)
UNKNOWN_LINK = int(Counter.LINK_TYPE)

NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 229, 276
"""Link types as files name them (tcpdump.org/linktypes.html)."""

IPV4_MAPPED = 0xFFFF00000000
"""Upper 32 of the lower 64 bits of ::ffff:0:0/96 (RFC 4291 section 2.5.5.2)."""

ANY_IP = -4
MAX_VLAN_TAGS = 8
MAX_EXTENSION_HEADERS = 16


@kernel
def link_payload(data: Octets, off: int, end: int, link_type: int) -> tuple[int, int]:
    """Skip the link-layer header.

    Returns:
        Offset of what it carries, and its EtherType; instead of one ANY_IP for raw IP of either version,
        -1 for a link type that is not read, -2 for a header that was cut off.

    """
    if link_type == ETHERNET:
        if end - off < 14:
            return off, -2
        return off + 14, wire.be16(data, off + 12)
    if link_type == RAW or link_type == 12 or link_type == 14 or link_type == IPV4 or link_type == IPV6:
        return off, ANY_IP
    if link_type == NULL or link_type == LOOP:
        # a protocol family number in the byte order of whoever captured; only IP can follow, so its version tells
        if end - off < 4:
            return off, -2
        return off + 4, ANY_IP
    if link_type == LINUX_SLL:
        if end - off < 16:
            return off, -2
        return off + 16, wire.be16(data, off + 14)
    if link_type == LINUX_SLL2:
        if end - off < 20:
            return off, -2
        return off + 20, wire.be16(data, off)
    return off, -1


@kernel
def scan_packets(data: Octets, packets: Rows, first_packet: int, segments: Rows, counters: Rows) -> int:
    """Dissect every packet of a chunk.

    Args:
        data: The chunk.
        packets: PACKET rows that point into it.
        first_packet: Number of the first of them.
        segments: SEGMENT rows to fill, at least as many as packets.
        counters: int64 array by `Counter`, added to.

    Returns:
        Number of segments written.

    """
    n = 0
    for i in range(len(packets)):
        packet = packets[i]
        start = int64(packet["off"])
        end = start + int64(packet["captured_bytes"])
        off, ethertype = link_payload(data, start, end, int64(packet["link_type"]))
        if ethertype == -1:
            counters[UNKNOWN_LINK] += 1
            continue
        tags = 0
        while (ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100) and tags < MAX_VLAN_TAGS:
            if end - off < 4:
                ethertype = -2
                break
            ethertype = wire.be16(data, off + 2)
            off += 4
            tags += 1
        if ethertype == -2 or end <= off:
            counters[CUT_HEADER] += 1
            continue
        version = int64(data[off]) >> 4
        if ethertype == ANY_IP and (version == 4 or version == 6):
            ethertype = 0x0800 if version == 4 else 0x86DD
        if ethertype != 0x0800 and ethertype != 0x86DD:
            if ethertype == 0x8847 or ethertype == 0x8848 or ethertype == 0x8864:
                counters[TUNNEL] += 1
            else:
                counters[NOT_IP] += 1
            continue

        # what follows the IP header on the wire, even where the capture does not hold it all
        wire_end = start + int64(packet["wire_bytes"])
        row = segments[n]
        if ethertype == 0x0800:
            if end - off < 20:
                counters[CUT_HEADER] += 1
                continue
            header = (int64(data[off]) & 15) * 4
            total = wire.be16(data, off + 2)
            if version != 4 or header < 20 or (0 < total < header):
                counters[MALFORMED] += 1
                continue
            if total > 0:  # 0: filled in by the network card after the capture point (segmentation offload)
                wire_end = min(wire_end, off + total)
            if wire.be16(data, off + 6) & 0x3FFF:
                counters[FRAGMENT] += 1
                continue
            protocol = int64(data[off + 9])
            row["ttl"] = int64(data[off + 8])
            row["src_hi"] = 0
            row["src_lo"] = wire.be32(data, off + 12) | IPV4_MAPPED
            row["dst_hi"] = 0
            row["dst_lo"] = wire.be32(data, off + 16) | IPV4_MAPPED
            off += header
        else:
            if end - off < 40:
                counters[CUT_HEADER] += 1
                continue
            if version != 6:
                counters[MALFORMED] += 1
                continue
            total = wire.be16(data, off + 4)
            if total > 0:  # 0: a jumbogram or segmentation offload
                wire_end = min(wire_end, off + 40 + total)
            protocol = int64(data[off + 6])
            row["ttl"] = int64(data[off + 7])
            row["src_hi"] = wire.be64(data, off + 8)
            row["src_lo"] = wire.be64(data, off + 16)
            row["dst_hi"] = wire.be64(data, off + 24)
            row["dst_lo"] = wire.be64(data, off + 32)
            off += 40
            protocol, off = skip_extension_headers(data, off, end, protocol)
            if protocol == -3:
                counters[FRAGMENT] += 1
                continue
            if protocol == -2:
                counters[CUT_HEADER] += 1
                continue

        if protocol != 6:
            if protocol == 17 and end - off >= 8:
                sport, dport = wire.be16(data, off), wire.be16(data, off + 2)
                if dport == 2152 or dport == 4789 or dport == 6081:
                    counters[TUNNEL] += 1
                elif dport == 443 or sport == 443:
                    counters[QUIC] += 1
                else:
                    counters[NOT_TCP] += 1
            elif protocol == 4 or protocol == 41 or protocol == 47:
                counters[TUNNEL] += 1
            else:
                counters[NOT_TCP] += 1
            continue
        if end - off < 20:
            if wire_end - off < 20:
                counters[MALFORMED] += 1
            else:
                counters[CUT_HEADER] += 1
            continue
        header = (int64(data[off + 12]) >> 4) * 4
        if header < 20 or header > wire_end - off:
            counters[MALFORMED] += 1
            continue
        row["ts_ns"] = int64(packet["ts_ns"])
        row["packet"] = first_packet + i
        row["sport"] = wire.be16(data, off)
        row["dport"] = wire.be16(data, off + 2)
        row["seq"] = wire.be32(data, off + 4)
        row["ack"] = wire.be32(data, off + 8)
        row["flags"] = int64(data[off + 13])
        row["window"] = wire.be16(data, off + 14)
        off += header
        row["payload_off"] = min(off, end)
        row["payload_bytes"] = max(0, min(end, wire_end) - off)
        row["wire_bytes"] = max(0, wire_end - off)
        n += 1
    return n


@kernel
def skip_extension_headers(data: Octets, off: int, end: int, protocol: int) -> tuple[int, int]:
    """Walk IPv6 extension headers (RFC 8200 section 4) to the upper-layer protocol.

    An atomic fragment (RFC 6946: offset 0, no more to come) is whole and passes.

    Returns:
        The protocol and its offset; the protocol is -3 at a fragment, -2 where the headers are cut off.

    """
    for _ in range(MAX_EXTENSION_HEADERS):
        if protocol == 0 or protocol == 43 or protocol == 60 or protocol == 135:
            if end - off < 8:
                return -2, off
            size = (int64(data[off + 1]) + 1) * 8
        elif protocol == 51:
            if end - off < 8:
                return -2, off
            size = (int64(data[off + 1]) + 2) * 4
        elif protocol == 44:
            if end - off < 8:
                return -2, off
            if wire.be16(data, off + 2) & 0xFFF9:
                return -3, off
            size = 8
        else:
            return protocol, off
        protocol = int64(data[off])
        off += size
    return protocol, off
