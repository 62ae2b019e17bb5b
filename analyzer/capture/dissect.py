"""Packets to TCP segments: link layer, IP, whatever tunnels carry more IP, TCP headers; one kernel.

Knows headers only, never payload. What it does not understand it counts (`Counter`), it never guesses. Fragments, and
packets of link types that it does not read, it leaves aside for `segments`.
"""

from analyzer.capture import link, tunnel, wire
from analyzer.kernel import kernel
from analyzer.model import Counter, Octets, Rows, int64

NOT_IP = int(Counter.NOT_IP)
TUNNEL = int(Counter.TUNNEL)
FRAGMENT = int(Counter.FRAGMENT)
CUT_HEADER = int(Counter.CUT_HEADER)
MALFORMED = int(Counter.MALFORMED)
UNKNOWN_LINK = int(Counter.LINK_TYPE)

IPV4_MAPPED = 0xFFFF00000000
"""Upper 32 of the lower 64 bits of ::ffff:0:0/96 (RFC 4291 section 2.5.5.2)."""

MAX_LAYERS = 16
"""Link layers, tags, label stacks, IP and tunnel headers that one packet may nest."""

MAX_EXTENSION_HEADERS = 16


@kernel
def scan_packets(
    data: Octets, packets: Rows, first_packet: int, segments: Rows, aside: Rows, counters: Rows
) -> tuple[int, int]:
    """Dissect every packet of a chunk, to the innermost IP header.

    Args:
        data: The chunk.
        packets: PACKET rows that point into it.
        first_packet: Number of the first of them.
        segments: SEGMENT rows to fill, at least as many as packets.
        aside: ASIDE rows to fill; where they are full, what would be left aside is counted.
        counters: int64 array by `Counter`, added to.

    Returns:
        Number of segments written, and of rows left aside.

    """
    n = 0
    n_aside = 0
    for i in range(len(packets)):
        packet = packets[i]
        row = segments[n]
        off = int64(packet["off"]) & wire.MAX_OFF
        end = off + int64(packet["captured_bytes"])
        # what follows the IP header on the wire, even where the capture does not hold it all
        wire_end = off + int64(packet["wire_bytes"])
        kind = link.LINK + int64(packet["link_type"])
        # headers are read through slices: one look at the bounds for all of their bytes
        ethernet = data[off : off + 14]
        # by far the most, so not through the loop
        if kind == link.LINK + link.ETHERNET and end - off >= 14 and len(ethernet) == 14:
            kind = wire.be16(ethernet, 12)
            off += 14
        layers = 0
        is_inside = False  # of a tunnel through IP: what is short there, though all was captured, is malformed
        while True:
            if kind != 0x0800 and kind != 0x86DD:
                if kind == link.CUT or (0 <= kind < link.LINK and end <= off):
                    counters[TUNNEL if is_inside and end >= wire_end else CUT_HEADER] += 1
                    break
                if kind < 0:
                    counters[-1 - kind] += 1
                    break
                layers += 1
                if layers > MAX_LAYERS:
                    counters[TUNNEL] += 1
                    break
                if kind == link.ANY_IP:
                    if end <= off:
                        kind = link.CUT
                    elif int64(data[off]) >> 4 == 4:
                        kind = 0x0800
                    elif int64(data[off]) >> 4 == 6:
                        kind = 0x86DD
                    else:
                        kind = link.NOT_IP
                elif kind >= link.LINK:
                    link_type = kind - link.LINK
                    kind, off, wire_end = link.link_payload(data, off, end, wire_end, link_type)
                    if kind == link.UNKNOWN:
                        if n_aside < len(aside):
                            n_aside = leave_aside(aside, n_aside, i, off, end, wire_end, link_type, UNKNOWN_LINK)
                        else:
                            counters[UNKNOWN_LINK] += 1
                        break
                else:
                    kind, off, wire_end = link.open_ethertype(data, off, end, wire_end, kind)
                end = min(end, wire_end)
                continue

            if kind == 0x0800:
                ip = data[off : off + 20]
                if end - off < 20 or len(ip) != 20:
                    counters[TUNNEL if is_inside and end >= wire_end else CUT_HEADER] += 1
                    break
                header = (int64(ip[0]) & 15) * 4
                total = wire.be16(ip, 2)
                if int64(ip[0]) >> 4 != 4 or header < 20 or (0 < total < header):
                    counters[MALFORMED] += 1
                    break
                if wire.be16(ip, 6) & 0x3FFF:
                    # it says itself how long it is, even where less than that travelled
                    if total > 0:
                        wire_end = off + total
                    if n_aside < len(aside):
                        end = min(end, wire_end)
                        n_aside = leave_aside(aside, n_aside, i, off, end, wire_end, link.RAW, FRAGMENT)
                    else:
                        counters[FRAGMENT] += 1
                    break
                if total > 0:  # 0: filled in by the network card after the capture point (segmentation offload)
                    wire_end = min(wire_end, off + total)
                protocol = int64(ip[9])
                row["ttl"] = int64(ip[8])
                row["src_hi"] = 0
                row["src_lo"] = wire.be32(ip, 12) | IPV4_MAPPED
                row["dst_hi"] = 0
                row["dst_lo"] = wire.be32(ip, 16) | IPV4_MAPPED
                off += header
            else:
                ip6 = data[off : off + 40]
                if end - off < 40 or len(ip6) != 40:
                    counters[TUNNEL if is_inside and end >= wire_end else CUT_HEADER] += 1
                    break
                if int64(ip6[0]) >> 4 != 6:
                    counters[MALFORMED] += 1
                    break
                total = wire.be16(ip6, 4)
                protocol = int64(ip6[6])
                row["ttl"] = int64(ip6[7])
                row["src_hi"] = wire.be64(ip6, 8)
                row["src_lo"] = wire.be64(ip6, 16)
                row["dst_hi"] = wire.be64(ip6, 24)
                row["dst_lo"] = wire.be64(ip6, 32)
                start = off
                off += 40
                protocol, off = skip_extension_headers(data, off, end, protocol)
                if protocol == -3:
                    if total > 0:
                        wire_end = start + 40 + total
                    if n_aside < len(aside):
                        end = min(end, wire_end)
                        n_aside = leave_aside(aside, n_aside, i, start, end, wire_end, link.RAW, FRAGMENT)
                    else:
                        counters[FRAGMENT] += 1
                    break
                if protocol == -2:
                    counters[TUNNEL if is_inside and end >= wire_end else CUT_HEADER] += 1
                    break
                if total > 0:  # 0: a jumbogram or segmentation offload
                    wire_end = min(wire_end, start + 40 + total)

            if protocol != 6:
                end = min(end, wire_end)
                is_inside = True
                layers += 1
                kind, off, wire_end = tunnel.open_protocol(data, off, end, wire_end, protocol)
                end = min(end, wire_end)
                if layers > MAX_LAYERS and kind >= 0:
                    kind = link.TUNNEL
                if kind >= 0 or kind == link.CUT:
                    continue
                counters[-1 - kind] += 1
                break
            tcp = data[off : off + 20]
            if end - off < 20 or len(tcp) != 20:
                if wire_end - off < 20:
                    counters[MALFORMED] += 1
                else:
                    counters[CUT_HEADER] += 1
                break
            header = (int64(tcp[12]) >> 4) * 4
            if header < 20 or header > wire_end - off:
                counters[MALFORMED] += 1
                break
            row["ts_ns"] = int64(packet["ts_ns"])
            row["packet"] = first_packet + i
            row["sport"] = wire.be16(tcp, 0)
            row["dport"] = wire.be16(tcp, 2)
            row["seq"] = wire.be32(tcp, 4)
            row["ack"] = wire.be32(tcp, 8)
            row["flags"] = int64(tcp[13])
            row["window"] = wire.be16(tcp, 14)
            off += header
            row["payload_off"] = min(off, end)
            row["payload_bytes"] = max(0, min(end, wire_end) - off)
            row["wire_bytes"] = max(0, wire_end - off)
            n += 1
            break
    return n, n_aside


@kernel
def leave_aside(aside: Rows, n: int, packet: int, off: int, end: int, wire_end: int, link_type: int, why: int) -> int:
    """Write the next ASIDE row; how many there are now."""
    row = aside[n]
    row["packet"] = packet
    row["off"] = off
    row["end_off"] = end
    row["wire_end_off"] = wire_end
    row["link_type"] = link_type
    row["why"] = why
    return n + 1


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
