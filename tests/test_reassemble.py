"""Reassembly as seen from the rows: retransmission, overlap, wrap-around, gaps, resets, reuse of ports."""

import struct

import pytest
from packets import (
    ACK,
    CLIENT,
    FIN,
    MASK,
    PSH,
    REQUEST,
    RST,
    SERVER,
    SYN,
    Conversation,
    Packet,
    close,
    ethernet,
    frame,
    pcap,
    response,
    tcp,
)
from reading import analyze

GB = 1 << 30


def read(*talks: Conversation) -> tuple[dict, dict, dict]:
    """(the client's view, the server's view, the connection) of the only connection."""
    closes, connections = analyze(pcap([packet for talk in talks for packet in talk.packets]))
    assert len(connections) == 1
    views = {row["endpoint"]: row for row in closes}
    return views.get(CLIENT), views.get(SERVER), connections[0]


def view(row: dict) -> tuple:
    return row["code"], row["provenance"], row["evidence"], row["confidence"]


HIGH = ("wire", "status", "high")
MEDIUM = ("wire", "status", "medium")


def finish(talk: Conversation, code: int = 1000) -> Conversation:
    """A Close of the server, its echo, the end of the transport."""
    talk.close(SERVER, code)
    talk.close(CLIENT, code)
    talk.end(SERVER)
    return talk


# ---- retransmission and overlap


def test_every_packet_twice():
    talk = finish(Conversation().upgrade())
    talk.packets = [packet for packet in talk.packets for _ in range(2)]
    client, server, row = read(talk)
    assert view(client) == view(server) == (1000, *HIGH)
    assert (row["server_frames"], row["client_frames"], row["server_gap_bytes"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("seen", "later"),
    [
        ([(0, "whole")], [(0, "whole")]),
        ([(0, "front")], [(0, "whole")]),  # front seen
        ([(2, "back")], [(0, "whole")]),  # back seen, too early
        ([(1, "middle")], [(0, "whole")]),  # middle seen, too early
        ([(1, "one"), (3, "one")], [(0, "whole")]),  # spans several that wait
        ([(3, "one"), (1, "one")], [(0, "front"), (2, "back")]),
        ([(4, "one"), (2, "one")], [(1, "back"), (0, "whole")]),
    ],
)
def test_first_copy_wins(seen, later):
    """What came first stays, whatever contradicts it later (a Close's reason tells which bytes were taken)."""
    truth, lie = b"abcde", b"VWXYZ"
    sizes = {"whole": 5, "front": 2, "back": 3, "middle": 3, "one": 1}
    want = bytearray(b".....")
    talk = Conversation().upgrade()
    base = talk.seq[SERVER]
    header = close(1000, b"....." + b"+" * 5)[:-10]

    def send(off, kind, source):
        piece = source[off : off + sizes[kind]]
        for i, byte in enumerate(piece, off):
            if want[i : i + 1] == b".":
                want[i] = byte
        talk.segment(SERVER, piece, seq=base + len(header) + off)

    for off, kind in seen:
        send(off, kind, truth)
    for off, kind in later:
        send(off, kind, lie)
    for i in range(5):
        if want[i : i + 1] == b".":
            want[i] = truth[i]
            talk.segment(SERVER, truth[i : i + 1], seq=base + len(header) + i)
    talk.segment(SERVER, header, seq=base)
    talk.segment(SERVER, b"+" * 5, seq=base + len(header) + 5)
    talk.seq[SERVER] = base + len(header) + 10
    talk.end(SERVER)
    client, _, row = read(talk)
    assert client["reason"] == bytes(want).decode() + "+" * 5
    assert (client["code"], client["evidence"], row["server_gap_bytes"]) == (1000, "status", 0)


def test_retransmission_with_more_behind():
    """A repeated segment that carries new bytes behind the old ones (coalesced retransmission)."""
    talk = Conversation().upgrade()
    both = frame(1, b"first") + close(1001, "later")
    base = talk.seq[SERVER]
    talk.segment(SERVER, both[:7])
    talk.segment(SERVER, both, seq=base)
    talk.seq[SERVER] = base + len(both)
    talk.end(SERVER)
    client, _, row = read(talk)
    assert (client["code"], client["reason"], row["server_messages"]) == (1001, "later", 1)


def test_out_of_order_across_three_messages():
    talk = Conversation().upgrade()
    packets = talk.packets
    for words in ("one", "two", "three"):
        talk.text(CLIENT, words)
    packets[-3:] = packets[-1:-4:-1]
    client, server, row = read(finish(talk))
    assert (row["client_messages"], row["client_bytes"], row["client_gap_bytes"]) == (3, 11, 0)
    assert view(client) == view(server) == (1000, *HIGH)


# ---- sequence numbers


@pytest.mark.parametrize("isn", [0, 1, 2**31 - 1, 2**31 - 100, 2**31, 2**32 - 1, 2**32 - 2, 2**32 - 200, 2**32 - 340])
@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_anywhere_in_sequence_space(isn, side):
    talk = Conversation(isn={CLIENT: 77, SERVER: 99} | {side: isn})
    talk.upgrade()
    for _ in range(5):
        talk.text(CLIENT)
        talk.text(SERVER)
    talk.packets[-3:-1] = talk.packets[-2:-4:-1]
    client, server, row = read(finish(talk))
    assert view(client) == view(server) == (1000, *HIGH)
    assert (row["client_messages"], row["server_messages"], row["client_gap_bytes"]) == (5, 5, 0)


def test_five_gigabytes():
    """The sequence numbers wrap; the capture lacks nearly all of it, but every frame header."""
    talk = Conversation(isn={CLIENT: 2**32 - 5, SERVER: 2**31}).upgrade()
    step = GB // 2 - 3
    for i in range(10):
        length = step if i % 2 else GB // 2 - 1
        talk.segment(SERVER, frame(2, b"", length_bytes=8, length=length))
        talk.seq[SERVER] += length  # not captured
        talk.wait(0.5)
        talk.ack(CLIENT)
        talk.wait(3)
        talk.text(SERVER)
        talk.ack(CLIENT)
        talk.wait(3)
        talk.text(CLIENT)
    client, server, row = read(finish(talk))
    assert view(client) == view(server) == (1000, *HIGH)
    missing = 5 * step + 5 * (GB // 2 - 1)
    assert (row["server_gap_bytes"], row["server_bytes"]) == (missing, missing + 50)
    assert (row["server_frames"], row["server_messages"], row["client_messages"]) == (21, 20, 10)
    assert row["server_gap_bytes"] > 5_000_000_000


# ---- SYN


def test_repeated_syn_is_the_same_connection():
    talk = Conversation()
    for _ in range(3):
        talk.segment(CLIENT, flags=SYN, advance=False)
    talk.seq[CLIENT] += 1
    for _ in range(3):
        talk.segment(SERVER, flags=SYN | ACK, advance=False)
    talk.seq[SERVER] += 1
    talk.ack(CLIENT)
    talk.segment(CLIENT, REQUEST)
    talk.segment(SERVER, flags=SYN | ACK, seq=talk.isn[SERVER])
    talk.segment(SERVER, response())
    client, server, _ = read(finish(talk))
    assert view(client) == view(server) == (1000, *HIGH)


def test_new_syn_is_another_connection():
    """The same ports again, without any end of the first connection in the capture."""
    first = Conversation().upgrade()
    first.text(CLIENT)
    second = Conversation(isn={CLIENT: 900_000, SERVER: 700_000}, ts_ns=first.ts_ns + 10**9)
    finish(second.upgrade(), 4001)
    closes, connections = analyze(pcap(first.packets + second.packets))
    assert [row["end"] for row in connections] == ["open", "fin"]
    assert [row["code"] for row in closes] == [None, None, 4001, 4001]
    assert len({row["connection"] for row in connections}) == 2


def test_new_syn_after_an_end():
    first = finish(Conversation().upgrade())
    second = Conversation(isn={CLIENT: 2**31 + 1000, SERVER: 2**31 + 5000}, ts_ns=first.ts_ns + 10**7)
    finish(second.upgrade(), 4001)
    closes, _ = analyze(pcap(first.packets + second.packets))
    assert [row["code"] for row in closes] == [1000, 1000, 4001, 4001]


def test_new_syn_ack_without_its_syn():
    """The second connection's SYN was not captured; its SYN+ACK acknowledges another number."""
    first = Conversation().upgrade()
    second = finish(Conversation(isn={CLIENT: 900_000, SERVER: 700_000}, ts_ns=first.ts_ns + 10**9).upgrade())
    closes, connections = analyze(pcap(first.packets + second.packets[1:]))
    assert [row["code"] for row in closes] == [None, None, 1000, 1000]
    assert [row["handshake"] for row in connections] == ["complete", "complete"]


def test_data_in_syn():
    """TCP Fast Open (RFC 7413): the request rides in the SYN."""
    talk = Conversation()
    talk.segment(CLIENT, REQUEST, flags=SYN)
    talk.segment(SERVER, flags=SYN | ACK)
    talk.segment(SERVER, response())
    client, server, row = read(finish(talk))
    assert (row["handshake"], row["http_status"]) == ("complete", 101)
    assert view(client) == view(server) == (1000, *HIGH)


def test_data_in_syn_sent_again():
    """A server without Fast Open ignores the data: the request comes again behind the handshake."""
    talk = Conversation()
    talk.segment(CLIENT, REQUEST, flags=SYN)
    talk.segment(SERVER, flags=SYN | ACK, ack=talk.isn[CLIENT] + 1)
    talk.segment(CLIENT, REQUEST, seq=talk.isn[CLIENT] + 1)
    talk.segment(SERVER, response())
    client, server, row = read(finish(talk))
    assert row["handshake"] == "complete"
    assert view(client) == view(server) == (1000, *HIGH)


# ---- probes


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\x88"])
def test_keep_alive_probes(garbage):
    """RFC 9293 section 3.8.4: one before the next byte, with or without a byte of rubbish."""
    talk = Conversation().upgrade()
    talk.text(CLIENT)
    talk.ack(SERVER)
    for _ in range(5):
        talk.wait(60)
        talk.segment(CLIENT, garbage, flags=ACK, seq=talk.seq[CLIENT] - 1)
        talk.ack(SERVER)
    client, server, row = read(finish(talk))
    assert view(client) == view(server) == (1000, *HIGH)
    assert (row["client_frames"], row["client_gap_bytes"]) == (2, 0)


def test_unanswered_keep_alive_probes_then_silence():
    """Row 32."""
    talk = Conversation().upgrade()
    talk.text(CLIENT)
    talk.ack(SERVER)
    for _ in range(4):
        talk.wait(75)
        talk.segment(CLIENT, b"", flags=ACK, seq=talk.seq[CLIENT] - 1)
    other = Conversation(sport=50000, ts_ns=talk.ts_ns + 10**11).open()
    client, server, row = read(talk, other)
    assert row["end"] == "vanished"
    assert view(client) == view(server) == (None, "undetermined", "vanished", None)


def test_zero_window_probes():
    """One byte of new data at a time, not acknowledged; then all of it at once (RFC 9293 section 3.8.6.1)."""
    talk = Conversation().upgrade()
    data = frame(1, b"hello")
    for _ in range(4):
        talk.segment(SERVER, data[:1], advance=False)
        talk.segment(CLIENT, flags=ACK)
    talk.segment(SERVER, data)
    client, server, row = read(finish(talk))
    assert view(client) == view(server) == (1000, *HIGH)
    assert (row["server_frames"], row["server_bytes"]) == (2, 5)


# ---- gaps


def test_gap_inside_a_payload_keeps_step():
    """Row 29."""
    talk = Conversation().upgrade()
    talk.segment(SERVER, frame(2, b"x" * 100)[:50])
    talk.segment(SERVER, b"x" * 20, lose=True)
    talk.segment(SERVER, b"x" * 32)
    client, server, row = read(finish(talk))
    assert view(client) == view(server) == (1000, *HIGH)
    assert (row["server_gap_bytes"], row["server_messages"], row["server_frames"]) == (20, 1, 2)


def test_gap_that_ends_with_a_payload_keeps_step():
    """Row 29: the next header comes right behind the missing bytes."""
    talk = Conversation().upgrade()
    talk.segment(SERVER, frame(1, b"x" * 100)[:50])
    talk.segment(SERVER, b"x" * 52, lose=True)
    client, _, row = read(finish(talk))
    assert view(client) == (1000, *HIGH)
    assert (row["server_gap_bytes"], row["server_messages"]) == (52, 1)


@pytest.mark.parametrize("more", [0, 1])
def test_gap_that_hides_a_header(more):
    """Row 28: one byte past the payload could be a Close."""
    talk = Conversation().upgrade()
    talk.segment(SERVER, frame(1, b"x" * 100)[:50])
    talk.segment(SERVER, b"x" * (52 + more), lose=True)
    talk.segment(SERVER, frame(1, b"a")[more:])
    talk.end(SERVER)
    client, server, row = read(talk)
    if more:
        assert view(client) == (None, "undetermined", "gap", None)
        assert row["initiator"] == "unknown"
    else:
        assert view(client) == (1006, "synthesized", "no_close_fin", "high")
    assert view(server) == (1006, "synthesized", "no_close_fin", "high")


def test_gap_before_the_fin():
    """Row 5 asks for completeness to the FIN: what is missing there could be a Close."""
    talk = Conversation().upgrade()
    talk.text(SERVER)
    talk.close(SERVER, 1000, lose=True)
    talk.end(SERVER)
    client, server, _ = read(talk)
    assert view(client) == (None, "undetermined", "gap", None)
    assert view(server) == (1006, "synthesized", "no_close_fin", "high")


def test_gap_before_a_rst():
    """Row 6: the RST does not stand at the next expected byte."""
    talk = Conversation().upgrade()
    talk.close(SERVER, 1000, lose=True)
    talk.rst(SERVER)
    client, _, _ = read(talk)
    assert view(client) == (None, "undetermined", "gap", None)


@pytest.mark.parametrize(
    ("kept", "evidence"), [(0, "gap"), (1, "gap"), (2, "cut_close"), (3, "cut_close"), (6, "cut_close")]
)
def test_snaplen_cuts_a_close(kept, evidence):
    """Row 27: neither 1005 nor 1006; a header cut in two cannot say that it is a Close."""
    talk = Conversation().upgrade()
    talk.close(SERVER, 1000, "bye", captured=kept)
    talk.end(SERVER)
    client, _, _ = read(talk)
    assert view(client) == (None, "undetermined", evidence, None)
    assert client["wire_code"] is None


def test_snaplen_cuts_payload_and_spares_the_rest():
    talk = Conversation().upgrade()
    talk.segment(SERVER, frame(2, b"x" * 1000), captured=100)
    talk.segment(CLIENT, frame(2, b"x" * 1000, mask=MASK), captured=20)
    client, server, row = read(finish(talk))
    assert view(client) == view(server) == (1000, *HIGH)
    assert (row["server_gap_bytes"], row["client_gap_bytes"]) == (904, 988)
    assert (row["server_messages"], row["client_messages"]) == (1, 1)


def test_snaplen_cut_segments_out_of_order():
    talk = Conversation().upgrade()
    for _ in range(3):
        talk.segment(SERVER, frame(2, b"x" * 300), captured=60)
    talk.packets[-3:] = talk.packets[-1:-4:-1]
    client, _, row = read(finish(talk))
    assert view(client) == (1000, *HIGH)
    assert (row["server_gap_bytes"], row["server_messages"]) == (3 * 244, 3)


def test_gap_inside_a_close_body():
    talk = Conversation().upgrade()
    data = close(1000, "a reason")
    talk.segment(SERVER, data[:5])
    talk.segment(SERVER, data[5:8], lose=True)
    talk.segment(SERVER, data[8:])
    talk.end(SERVER)
    client, _, _ = read(talk)
    assert view(client) == (None, "undetermined", "cut_close", None)


def test_step_found_again_behind_a_gap():
    """Row 30: two whole frames, then the Close: it is read, but may not be the first."""
    talk = Conversation().upgrade()
    talk.text(SERVER, lose=True)
    talk.segment(SERVER, frame(1, b"one") + frame(1, b"two"))
    client, server, row = read(finish(talk))
    assert view(client) == (1000, *MEDIUM)
    assert view(server) == (1000, *HIGH)
    assert client["anomalies"] == ["resynchronized"]
    assert row["server_gap_bytes"] == 7


def test_valid_close_alone_behind_a_gap():
    """Row 30."""
    talk = Conversation().upgrade()
    talk.text(CLIENT, lose=True)
    talk.ack(SERVER)
    client, server, _ = read(finish(talk))
    assert view(server) == (1000, *MEDIUM)
    assert view(client) == (1000, *HIGH)


@pytest.mark.parametrize(
    "rubbish", [b"\x81\x05hell", b"\x88\x02\x03\xed", b"\x88\x01\x03", b"\x08\x02\x03\xe8", b"\x88\x82\0\0\0\0\x03\xe8"]
)
def test_rubbish_behind_a_gap_is_no_frame(rubbish):
    """Row 28: neither a cut frame nor an impossible Close brings the walk back into step."""
    talk = Conversation().upgrade()
    talk.text(SERVER, lose=True)
    talk.segment(SERVER, rubbish)
    talk.end(SERVER)
    client, _, _ = read(talk)
    assert view(client) == (None, "undetermined", "gap", None)
    assert client["received"] == "none"


def test_gap_given_up_while_the_connection_goes_on():
    """Acknowledged bytes that never come do not hold back what follows until the end."""
    talk = Conversation().upgrade()
    talk.text(SERVER, lose=True)
    for _ in range(40):
        talk.text(SERVER)
        talk.ack(CLIENT)
    talk.close(SERVER, 4000)
    talk.ack(CLIENT)
    client, _, row = read(talk)
    assert view(client) == (4000, *MEDIUM)
    assert row["end"] == "open"


# ---- RST and FIN


@pytest.mark.parametrize("off", [-1, -200, 2_000_000, 2**31 - 1, 2**31, -(2**31) + 1])
def test_rst_outside_the_window_is_ignored(off):
    """RFC 9293 section 3.10.7.4."""
    talk = Conversation().upgrade()
    talk.text(SERVER)
    talk.ack(CLIENT)
    talk.rst(SERVER, seq=talk.seq[SERVER] + off)
    talk.text(SERVER)
    client, server, row = read(finish(talk))
    assert view(client) == view(server) == (1000, *HIGH)
    assert (row["end"], row["server_messages"]) == ("fin", 2)


def test_rst_in_place():
    """Row 6, for both."""
    talk = Conversation().upgrade()
    talk.text(SERVER)
    talk.ack(CLIENT)
    talk.rst(SERVER)
    client, server, row = read(talk)
    assert view(client) == view(server) == (1006, "synthesized", "no_close_rst", "high")
    assert (row["end"], row["ended_by"]) == ("rst", "server")


def test_rst_of_an_unseen_connection_is_nothing():
    talk = Conversation()
    talk.rst(SERVER)
    assert analyze(talk.pcap()) == ([], [])


def test_fin_sent_again():
    talk = Conversation().upgrade()
    talk.close(SERVER, 1000)
    talk.fin(SERVER)
    for _ in range(5):
        talk.segment(SERVER, flags=FIN | ACK, seq=talk.seq[SERVER] - 1)
    talk.ack(CLIENT)
    talk.close(CLIENT, 1000)
    talk.fin(CLIENT)
    talk.ack(SERVER)
    client, _, row = read(talk)
    assert view(client) == (1000, *HIGH)
    assert (row["end"], row["ended_by"]) == ("fin", "server")


def test_fin_with_data_out_of_order():
    """The FIN rides on the Close and arrives before the message in front of it."""
    talk = Conversation().upgrade()
    talk.text(SERVER)
    talk.segment(SERVER, close(1000), flags=FIN | ACK | PSH)
    talk.packets[-2:] = talk.packets[-1:-3:-1]
    talk.ack(CLIENT)
    talk.fin(CLIENT)
    client, server, row = read(talk)
    assert (client["code"], client["evidence"], row["server_gap_bytes"]) == (1000, "status", 0)
    assert view(server) == (1006, "synthesized", "no_close_fin", "high")


def test_simultaneous_close():
    """Row 2: both Closes and both FINs cross on the way."""
    talk = Conversation().upgrade()
    talk.ack(CLIENT)
    at = dict(talk.seq)
    talk.close(CLIENT, 1001, ack=at[SERVER])
    talk.fin(CLIENT, ack=at[SERVER])
    talk.close(SERVER, 1000, ack=at[CLIENT])
    talk.fin(SERVER, ack=at[CLIENT])
    talk.ack(CLIENT)
    talk.ack(SERVER)
    client, server, row = read(talk)
    assert (client["code"], client["provenance"], client["wire_code"]) == (1000, "wire", 1000)
    assert (server["code"], server["provenance"], server["wire_code"]) == (1001, "wire", 1001)
    assert row["initiator"] == "both"


# ---- one direction, IPv6


@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_one_direction_only(side):
    """Row 36: the receiver's view is as above, the other's undetermined."""
    talk = finish(Conversation().upgrade())
    sender = (10, 0, 0, 1) if side == CLIENT else (10, 0, 0, 2)
    talk.packets = [packet for packet in talk.packets if packet.data[26:30] == bytes(sender)]
    client, server, row = read(talk)
    receiver, other = (server, client) if side == CLIENT else (client, server)
    assert (receiver["code"], receiver["provenance"], receiver["evidence"]) == (1000, "wire", "status")
    assert view(other) == (None, "undetermined", "open_end", None)
    assert row[f"{side}_close_code"] == 1000


def ipv6(talk: Conversation) -> list[Packet]:
    """The same packets over IPv6."""
    packets = []
    for packet in talk.packets:
        segment, hosts = packet.data[34:], packet.data[26:34]
        addresses = b"".join(bytes.fromhex("20010db8") + bytes(8) + hosts[i : i + 4] for i in (0, 4))
        head = struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + addresses
        packets.append(Packet(packet.ts_ns, ethernet(head + segment, 0x86DD)))
    return packets


def test_ipv6():
    closes, (row,) = analyze(pcap(ipv6(finish(Conversation().upgrade()))))
    assert [view(close_row) for close_row in closes] == [(1000, *HIGH)] * 2
    assert (row["client"], row["server"]) == ("[2001:db8::a00:1]:40000", "[2001:db8::a00:2]:80")


def test_ipv4_and_ipv6_do_not_meet():
    talk = finish(Conversation().upgrade())
    closes, connections = analyze(pcap([p for pair in zip(talk.packets, ipv6(talk), strict=True) for p in pair]))
    assert len(connections) == 2
    assert [row["code"] for row in closes] == [1000] * 4


def test_reset_without_ack_tells_nothing_of_what_was_read():
    """A RST alone says only where its sender stands."""
    talk = Conversation().upgrade()
    talk.text(CLIENT)
    talk.ack(SERVER)
    talk.segment(SERVER, flags=RST, seq=talk.seq[SERVER])
    client, server, _ = read(talk)
    assert client["code"] == 1006
    # the server acknowledged nothing with it: a Close that the capture lost may have reached it
    assert (server["code"], server["provenance"]) == (None, "undetermined")


def test_builder_matches_a_header_written_by_hand():
    """`tcp` against the figure of RFC 9293 section 3.1."""
    assert tcp(1, 2, 3, 4, ACK).hex() == "0001000200000003000000045010fa0000000000"
