"""Packets inside packets: what IP carries besides TCP, opened to the packet inside; all kernels.

Kinds, `end` and `wire_end` are those of `link`. UDP tunnels are known by their destination port, which is the
registered one in every direction; the source port says nothing.
"""

from analyzer.capture import link, wire
from analyzer.kernel import kernel
from analyzer.model import Octets, int64

IPIP, UDP, SIX_IN_FOUR, GRE, ETHERIP, MPLS_IN_IP = 4, 17, 41, 47, 97, 137
"""IP protocol numbers (IANA)."""

GTP_U, VXLAN, GENEVE, MPLS_IN_UDP, LINUX_VXLAN, TZSP = 2152, 4789, 6081, 6635, 8472, 37008
"""UDP ports (IANA; Linux chose its VXLAN port before there was one, and TZSP's was never registered)."""

MAX_GTP_EXTENSIONS = 16
MAX_GRE_ROUTES = 16
MAX_TZSP_FIELDS = 64


@kernel
def open_protocol(data: Octets, off: int, end: int, wire_end: int, protocol: int) -> tuple[int, int, int]:
    """Skip the header of an IP protocol that carries packets.

    Returns:
        The kind of what it carries, its offset, and where that ends on the wire.

    """
    if protocol == UDP:
        return open_udp(data, off, end, wire_end)
    if protocol == GRE:
        return open_gre(data, off, end, wire_end)
    if protocol == IPIP:
        return link.IP4, off, wire_end
    if protocol == SIX_IN_FOUR:
        return link.IP6, off, wire_end
    if protocol == ETHERIP:  # RFC 3378 section 3
        if end - off < 2:
            return link.CUT, off, wire_end
        if int64(data[off]) >> 4 != 3:
            return link.TUNNEL, off, wire_end
        return link.LINK + link.ETHERNET, off + 2, wire_end
    if protocol == MPLS_IN_IP:  # RFC 4023 section 3
        return link.MPLS, off, wire_end
    return link.NOT_TCP, off, wire_end


@kernel
def bridged(protocol: int) -> int:
    """The kind of a protocol type as GRE and Geneve write it."""
    if protocol == 0x6558:
        return link.LINK + link.ETHERNET
    if protocol == 0x880B:
        return link.LINK + link.PPP
    return protocol


@kernel
def open_gre(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Skip a GRE header: RFC 2784, RFC 2890, routing as in RFC 1701, version 1 as in RFC 2637 section 4.1."""
    if end - off < 4:
        return link.CUT, off, wire_end
    flags, protocol = wire.be16(data, off), wire.be16(data, off + 2)
    off += 4
    if flags & 7 == 1:
        if protocol != 0x880B or not flags & 0x2000:
            return link.TUNNEL, off, wire_end
        if not flags & 0x1000:  # an acknowledgement alone
            return link.NOT_TCP, off, wire_end
        if end - off < 8:
            return link.CUT, off, wire_end
        size = wire.be16(data, off)
        off += 12 if flags & 0x80 else 8
        return link.LINK + link.PPP, off, min(wire_end, off + size)
    if flags & 7:
        return link.TUNNEL, off, wire_end
    if flags & 0xC000:
        off += 4
    if flags & 0x2000:
        off += 4
    if flags & 0x1000:
        off += 4
    if flags & 0x4000:
        is_over = False
        for _ in range(MAX_GRE_ROUTES):
            if end - off < 4:
                return link.CUT, off, wire_end
            size = int64(data[off + 3])
            is_over = wire.be16(data, off) == 0 and size == 0
            off += 4 + size
            if is_over:
                break
        if not is_over:
            return link.TUNNEL, off, wire_end
    if protocol == 0x88BE or protocol == 0x22EB:
        return open_erspan(data, off, end, wire_end, protocol, flags)
    return bridged(protocol), off, wire_end


@kernel
def open_erspan(data: Octets, off: int, end: int, wire_end: int, protocol: int, flags: int) -> tuple[int, int, int]:
    """Skip the header of a mirrored frame (draft-foschiano-erspan-03 section 4); type I has none, nor a number."""
    if protocol == 0x88BE:
        if not flags & 0x1000:
            return link.LINK + link.ETHERNET, off, wire_end
        if end - off < 8:
            return link.CUT, off, wire_end
        if int64(data[off]) >> 4 != 1:
            return link.TUNNEL, off, wire_end
        return link.LINK + link.ETHERNET, off + 8, wire_end
    if end - off < 12:
        return link.CUT, off, wire_end
    if int64(data[off]) >> 4 != 2:
        return link.TUNNEL, off, wire_end
    frame_type = (int64(data[off + 10]) >> 2) & 31
    off += 20 if int64(data[off + 11]) & 1 else 12
    if frame_type == 0:
        return link.LINK + link.ETHERNET, off, wire_end
    return (link.ANY_IP if frame_type == 2 else link.TUNNEL), off, wire_end


@kernel
def open_udp(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Skip UDP and the header of the tunnel that its port names."""
    if end - off < 8:
        return link.NOT_TCP, off, wire_end
    sport, dport, size = wire.be16(data, off), wire.be16(data, off + 2), wire.be16(data, off + 4)
    if size >= 8:  # 0: a jumbogram or segmentation offload
        wire_end = min(wire_end, off + size)
        end = min(end, wire_end)
    off += 8
    if dport == VXLAN or dport == LINUX_VXLAN:  # RFC 7348 section 5
        if end - off < 8:
            return link.CUT, off, wire_end
        if not int64(data[off]) & 8:
            return (link.TUNNEL if dport == VXLAN else link.NOT_TCP), off, wire_end
        return link.LINK + link.ETHERNET, off + 8, wire_end
    if dport == GENEVE:  # RFC 8926 section 3.4
        if end - off < 8:
            return link.CUT, off, wire_end
        first = int64(data[off])
        if first >> 6:
            return link.TUNNEL, off, wire_end
        return bridged(wire.be16(data, off + 2)), off + 8 + (first & 63) * 4, wire_end
    if dport == GTP_U:
        return open_gtp(data, off, end, wire_end)
    if dport == TZSP:
        return open_tzsp(data, off, end, wire_end)
    if dport == MPLS_IN_UDP:  # RFC 7510 section 3
        return link.MPLS, off, wire_end
    return (link.QUIC if dport == 443 or sport == 443 else link.NOT_TCP), off, wire_end


@kernel
def open_gtp(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Skip the header of a user's packet in GTP-U (3GPP TS 29.281 section 5); other messages carry none."""
    if end - off < 8:
        return link.CUT, off, wire_end
    flags = int64(data[off])
    if flags >> 5 != 1 or not flags & 16:
        return link.TUNNEL, off, wire_end
    if int64(data[off + 1]) != 255:
        return link.NOT_TCP, off, wire_end
    wire_end = min(wire_end, off + 8 + wire.be16(data, off + 2))
    end = min(end, wire_end)
    off += 8
    if not flags & 7:
        return link.ANY_IP, off, wire_end
    if end - off < 4:
        return link.CUT, off, wire_end
    follows = int64(data[off + 3]) if flags & 4 else 0
    off += 4
    for _ in range(MAX_GTP_EXTENSIONS):
        if follows == 0:
            return link.ANY_IP, off, wire_end
        if end - off < 4:
            return link.CUT, off, wire_end
        size = int64(data[off]) * 4
        if size == 0:
            return link.TUNNEL, off, wire_end
        if end - off < size:
            return link.CUT, off, wire_end
        follows = int64(data[off + size - 1])
        off += size
    return link.TUNNEL, off, wire_end


@kernel
def open_tzsp(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Skip the header and the fields of a frame that a wireless sniffer sent (TZSP, en.wikipedia.org/wiki/TZSP)."""
    if end - off < 4:
        return link.CUT, off, wire_end
    if int64(data[off]) != 1:
        return link.TUNNEL, off, wire_end
    if int64(data[off + 1]) > 1:
        return link.NOT_TCP, off, wire_end
    inside = wire.be16(data, off + 2)
    off += 4
    for _ in range(MAX_TZSP_FIELDS):
        if end - off < 1:
            return link.CUT, off, wire_end
        field = int64(data[off])
        off += 1
        if field == 1:
            if inside == 1:
                return link.LINK + link.ETHERNET, off, wire_end
            if inside == 18:
                return link.LINK + link.IEEE802_11, off, wire_end
            if inside == 119:
                return link.LINK + link.PRISM, off, wire_end
            if inside == 127:
                return link.LINK + link.AVS, off, wire_end
            return link.NOT_IP, off, wire_end
        if field != 0:
            if end - off < 1:
                return link.CUT, off, wire_end
            off += 1 + int64(data[off])
    return link.TUNNEL, off, wire_end
