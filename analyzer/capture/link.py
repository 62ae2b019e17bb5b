"""What lies between a captured packet's first byte and IP: link layers, tags, labels, PPP; all kernels.

Every function says what comes next as a *kind*: an EtherType; `LINK` plus a link type where a packet of that type
begins; `ANY_IP` where only IP can follow; or, negative, -1 minus the `Counter` under which the packet is counted.
Nothing here reads behind `end`, the last captured byte; `wire_end` is where the packet ended on the wire.
"""

from analyzer.capture import wire
from analyzer.kernel import kernel
from analyzer.model import Counter, Octets, int64

NULL, ETHERNET, PPP, BSD_RAW, OPENBSD_RAW, HDLC_PPP, PPPOE, RAW = 0, 1, 9, 12, 14, 50, 51, 101
CISCO_HDLC, IEEE802_11, FRAME_RELAY, LOOP, ENC, LINUX_SLL, PFLOG, PRISM = 104, 105, 107, 108, 109, 113, 117, 119
APPLE_PKTAP, AVS, PPP_WITH_DIRECTION, IPV4, IPV6, NFLOG, PKTAP, LINUX_SLL2 = 149, 163, 204, 228, 229, 239, 258, 276
"""Link types as files name them (tcpdump.org/linktypes.html)."""

LINK = 1 << 16
ANY_IP = 1 << 30

NOT_IP = -1 - int(Counter.NOT_IP)
NOT_TCP = -1 - int(Counter.NOT_TCP)
QUIC = -1 - int(Counter.QUIC)
TUNNEL = -1 - int(Counter.TUNNEL)
CUT = -1 - int(Counter.CUT_HEADER)
MALFORMED = -1 - int(Counter.MALFORMED)
UNKNOWN = -1 - int(Counter.LINK_TYPE)

IP4, IP6 = 0x0800, 0x86DD
MPLS, MPLS_UPSTREAM, PPPOE_SESSION, MACSEC = 0x8847, 0x8848, 0x8864, 0x88E5

MAX_LABELS = 16
MAX_NFLOG_FIELDS = 64


@kernel
def link_payload(data: Octets, off: int, end: int, wire_end: int, link_type: int) -> tuple[int, int, int]:
    """Skip the link-layer header.

    Returns:
        The kind of what it carries, its offset, and where that ends on the wire.

    """
    if link_type == ETHERNET:
        if end - off < 14:
            return CUT, off, wire_end
        return wire.be16(data, off + 12), off + 14, wire_end
    if link_type == RAW or link_type == BSD_RAW or link_type == OPENBSD_RAW or link_type == IPV4 or link_type == IPV6:
        return ANY_IP, off, wire_end
    if link_type == NULL or link_type == LOOP:
        # a protocol family number in the byte order of whoever captured; only IP can follow, so its version tells
        if end - off < 4:
            return CUT, off, wire_end
        return ANY_IP, off + 4, wire_end
    if link_type == LINUX_SLL:
        if end - off < 16:
            return CUT, off, wire_end
        return wire.be16(data, off + 14), off + 16, wire_end
    if link_type == LINUX_SLL2:
        if end - off < 20:
            return CUT, off, wire_end
        return wire.be16(data, off), off + 20, wire_end
    return rare_link_payload(data, off, end, wire_end, link_type)


@kernel
def rare_link_payload(data: Octets, off: int, end: int, wire_end: int, link_type: int) -> tuple[int, int, int]:
    """`link_payload` of the link types that few captures have."""
    if link_type == PPP or link_type == HDLC_PPP:
        return open_ppp(data, off, end, wire_end)
    if link_type == PPP_WITH_DIRECTION:
        return LINK + PPP, off + 1, wire_end
    if link_type == PPPOE:
        return open_pppoe(data, off, end, wire_end)
    if link_type == CISCO_HDLC:
        if end - off < 4:
            return CUT, off, wire_end
        return wire.be16(data, off + 2), off + 4, wire_end
    if link_type == FRAME_RELAY:
        return open_frame_relay(data, off, end, wire_end)
    if link_type == ENC:
        return ANY_IP, off + 12, wire_end
    if link_type == PFLOG:
        if end - off < 1:
            return CUT, off, wire_end
        size = int64(data[off])
        if size < 4:
            return MALFORMED, off, wire_end
        return ANY_IP, off + ((size + 3) & 0xFFC), wire_end
    if link_type == NFLOG:
        return open_nflog(data, off, end, wire_end)
    if link_type == PKTAP or link_type == APPLE_PKTAP:
        if end - off < 12:
            return CUT, off, wire_end
        size, next_link = wire.le32(data, off), wire.le32(data, off + 8)
        if wire.le32(data, off + 4) != 1:
            return NOT_IP, off, wire_end
        if size < 12 or next_link >= 1 << 26:
            return MALFORMED, off, wire_end
        return LINK + next_link, off + size, wire_end
    return UNKNOWN, off, wire_end


@kernel
def open_ethertype(data: Octets, off: int, end: int, wire_end: int, ethertype: int) -> tuple[int, int, int]:
    """Skip what an EtherType other than IP's announces: a tag, a label stack, PPPoE, or SNAP behind a length."""
    if ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100:
        if end - off < 4:
            return CUT, off, wire_end
        return wire.be16(data, off + 2), off + 4, wire_end
    if ethertype == MPLS or ethertype == MPLS_UPSTREAM:
        return open_mpls(data, off, end, wire_end)
    if ethertype == PPPOE_SESSION:
        return LINK + PPPOE, off, wire_end
    if ethertype == MACSEC:
        return TUNNEL, off, wire_end
    if ethertype < 0x0600 and end - off >= 8:
        # RFC 1042: LLC AA-AA-03, organization 0, then an EtherType
        if wire.be32(data, off) == 0xAAAA0300 and wire.be16(data, off + 4) == 0:
            return wire.be16(data, off + 6), off + 8, wire_end
    return NOT_IP, off, wire_end


@kernel
def open_mpls(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Skip a label stack (RFC 3032 section 2.1); nothing but the first four bits says what is below it.

    RFC 4928 section 3: 4 and 6 are IP, 0 the control word of a pseudowire (RFC 4385 section 3), here taken for one that
    carries Ethernet (RFC 4448); 1 is its associated channel, which carries no user's packets.
    """
    for _ in range(MAX_LABELS):
        if end - off < 4:
            return CUT, off, wire_end
        is_last = int64(data[off + 2]) & 1
        off += 4
        if is_last:
            if end - off < 1:
                return CUT, off, wire_end
            first = int64(data[off]) >> 4
            if first == 4 or first == 6:
                return ANY_IP, off, wire_end
            if first == 0:
                return LINK + ETHERNET, off + 4, wire_end
            return (NOT_IP if first == 1 else TUNNEL), off, wire_end
    return TUNNEL, off, wire_end


@kernel
def open_pppoe(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Skip the header of a PPPoE session (RFC 2516 section 4)."""
    if end - off < 6:
        return CUT, off, wire_end
    if int64(data[off]) != 0x11:
        return TUNNEL, off, wire_end
    if int64(data[off + 1]) != 0:
        return NOT_IP, off, wire_end
    return LINK + PPP, off + 6, min(wire_end, off + 6 + wire.be16(data, off + 4))


@kernel
def open_ppp(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Skip address, control and protocol of PPP.

    Address and control may be left out, the protocol be one odd byte (RFC 1661 sections 6.5 and 6.6); 0F-00 and 8F-00
    begin Cisco's HDLC header instead (RFC 1547 section 4.3.1). What is compressed, encrypted or in pieces is a tunnel.
    """
    if end - off < 2:
        return CUT, off, wire_end
    first, second = int64(data[off]), int64(data[off + 1])
    if (first == 0x0F or first == 0x8F) and second == 0:
        if end - off < 4:
            return CUT, off, wire_end
        return wire.be16(data, off + 2), off + 4, wire_end
    if first == 0xFF and second == 3:
        off += 2
        if end - off < 2:
            return CUT, off, wire_end
    protocol = int64(data[off])
    if protocol & 1:
        off += 1
    else:
        protocol = wire.be16(data, off)
        off += 2
    if protocol == 0x0021:
        return IP4, off, wire_end
    if protocol == 0x0057:
        return IP6, off, wire_end
    if protocol == 0x0281:
        return MPLS, off, wire_end
    if protocol == 0x0283:
        return MPLS_UPSTREAM, off, wire_end
    if protocol == 0x002D or protocol == 0x002F or protocol == 0x003D or protocol == 0x0053 or protocol == 0x00FD:
        return TUNNEL, off, wire_end
    return NOT_IP, off, wire_end


@kernel
def open_frame_relay(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Skip a Q.922 address and what says the protocol: RFC 2427 section 3, or an EtherType as Cisco writes it."""
    for _ in range(4):
        if end - off < 1:
            return CUT, off, wire_end
        is_last = int64(data[off]) & 1
        off += 1
        if is_last:
            break
    if end - off < 2:
        return CUT, off, wire_end
    if int64(data[off]) != 3:
        return wire.be16(data, off), off + 2, wire_end
    off += 1
    if int64(data[off]) == 0:
        off += 1
        if end - off < 1:
            return CUT, off, wire_end
    network = int64(data[off])
    if network == 0xCC:
        return IP4, off + 1, wire_end
    if network == 0x8E:
        return IP6, off + 1, wire_end
    if network == 0x80:
        if end - off < 6:
            return CUT, off, wire_end
        if wire.be16(data, off + 1) == 0 and int64(data[off + 3]) == 0:
            return wire.be16(data, off + 4), off + 6, wire_end
    return NOT_IP, off, wire_end


@kernel
def open_nflog(data: Octets, off: int, end: int, wire_end: int) -> tuple[int, int, int]:
    """Find the packet among the fields of a netfilter log record (tcpdump.org/linktypes/LINKTYPE_NFLOG.html).

    Lengths and types stand in the byte order of whoever captured: types are small, so the one that reads small is it.
    """
    if end - off < 4:
        return CUT, off, wire_end
    family = int64(data[off])
    off += 4
    for _ in range(MAX_NFLOG_FIELDS):
        if end - off < 4:
            return CUT, off, wire_end
        is_big = wire.le16(data, off + 2) > 255
        size, kind = wire.u16(data, off, is_big), wire.u16(data, off + 2, is_big)
        if size < 4:
            return MALFORMED, off, wire_end
        if kind == 9:  # NFULA_PAYLOAD
            if family != 2 and family != 10:
                return NOT_IP, off, wire_end
            return ANY_IP, off + 4, min(wire_end, off + size)
        off += (size + 3) & 0x1FFFC
    return MALFORMED, off, wire_end
