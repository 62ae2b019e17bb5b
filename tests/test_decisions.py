"""Every row of the decision table (docs/decisions.md), each built from packets.

The expectations were written from the table, not from what the code gave.
"""

import pytest
from packets import ACK, CLIENT, FIN, KEY, MASK, PSH, REQUEST, RST, SERVER, Conversation, close, frame, response
from reading import analyze


def views(conversation, **more):
    """(code, provenance, evidence, confidence) of the client's and the server's view, None where there is no row."""
    closes, connections = analyze(conversation.pcap(), **more)
    assert len(connections) == 1
    found = {row["endpoint"]: row for row in closes}
    return [
        None
        if side not in found
        else tuple(found[side][name] for name in ("code", "provenance", "evidence", "confidence"))
        for side in (CLIENT, SERVER)
    ]


def only(conversation, side, **more):
    """The whole row of one view."""
    closes, _ = analyze(conversation.pcap(), **more)
    return next(row for row in closes if row["endpoint"] == side)


def test_row_1_status_before_own_end():
    c = Conversation().upgrade()
    sent = c.close(CLIENT, 4001, "bye")
    c.close(SERVER, 4001)
    c.end()
    assert views(c) == [(4001, "wire", "status", "high")] * 2
    row = only(c, SERVER)
    assert (row["record"], row["reason"], row["received"], row["sent"], row["initiator"]) == (
        sent,
        "bye",
        "status",
        "status",
        "client",
    )


def test_row_1_is_less_sure_where_nothing_acknowledges_the_close():
    c = Conversation().upgrade()
    c.close(SERVER, 1001)
    assert views(c)[0] == (1001, "wire", "status", "medium")


def test_row_2_crossed():
    c = Conversation().upgrade()
    before = c.seq[CLIENT]
    c.close(CLIENT, 1000)
    c.close(SERVER, 4000, ack=before)
    c.end()
    assert views(c) == [(4000, "wire", "status", "high"), (1000, "wire", "status", "high")]
    assert only(c, CLIENT)["initiator"] == "both"


def test_row_3_empty_close():
    c = Conversation().upgrade()
    c.close(CLIENT)
    c.close(SERVER)
    c.end()
    assert views(c) == [(1005, "synthesized", "empty_close", "high")] * 2


@pytest.mark.parametrize(("ending", "evidence"), [("fin", "no_close_fin"), ("rst", "no_close_rst")])
def test_row_4_close_never_answered(ending, evidence):
    c = Conversation().upgrade()
    c.close(CLIENT, 1000)
    c.ack(SERVER)
    at = getattr(c, ending)(SERVER)
    row = only(c, CLIENT)
    assert (row["code"], row["provenance"], row["evidence"]) == (1006, "synthesized", evidence)
    assert (row["sent"], row["sent_code"], row["record"]) == ("status", 1000, at)
    # a server that resets without an answer may have thrown the Close away unread
    assert views(c)[1] == (1000, "wire", "status", "high" if ending == "fin" else "medium")


def test_row_5_fin_without_close():
    c = Conversation().upgrade()
    c.text(CLIENT)
    at = c.fin(SERVER)
    c.fin(CLIENT)
    c.ack(SERVER)
    assert views(c) == [(1006, "synthesized", "no_close_fin", "high")] * 2
    assert only(c, CLIENT)["record"] == at
    assert only(c, CLIENT)["ended_by"] == "server"


def test_row_6_rst_in_place_from_peer_and_own():
    c = Conversation().upgrade()
    c.text(CLIENT)
    c.ack(SERVER)
    c.rst(SERVER)
    assert views(c) == [(1006, "synthesized", "no_close_rst", "high")] * 2


def test_row_6_own_rst_after_unseen_bytes_claims_nothing():
    c = Conversation().upgrade()
    c.text(SERVER, "lost on the way to the capture", lose=True)
    c.rst(CLIENT)  # acknowledges bytes that were never captured
    assert views(c)[0] == (None, "undetermined", "gap", None)


def test_row_6_rst_ahead_of_unseen_bytes_claims_nothing():
    c = Conversation().upgrade()
    c.close(SERVER, 1001, lose=True)
    c.rst(SERVER)
    assert views(c)[0] == (None, "undetermined", "gap", None)


def test_row_7_late_close_answered_by_rst():
    c = Conversation().upgrade()
    c.fin(CLIENT)
    c.close(SERVER, 1001)
    c.rst(CLIENT, with_ack=False)
    row = only(c, CLIENT)
    assert (row["code"], row["provenance"], row["evidence"]) == (None, "undetermined", "late_close")
    assert (row["received"], row["wire_code"]) == ("status", 1001)


def test_row_8_half_close():
    c = Conversation().upgrade()
    c.fin(CLIENT)
    c.close(SERVER, 1001)
    c.ack(CLIENT)
    c.fin(SERVER)
    c.ack(CLIENT)
    assert views(c)[0] == (1001, "wire", "status", "medium")


def test_row_9_close_then_rst_replied():
    c = Conversation().upgrade()
    c.close(SERVER, 1011)
    c.close(CLIENT, 1011)
    c.rst(SERVER)
    assert views(c)[0] == (1011, "wire", "status", "high")


def test_row_9_close_then_rst_acknowledged():
    c = Conversation().upgrade()
    c.close(SERVER, 1011)
    c.ack(CLIENT)
    c.rst(SERVER)
    assert views(c)[0] == (1011, "wire", "status", "medium")


def test_row_9_close_then_rst_not_even_acknowledged():
    c = Conversation().upgrade()
    c.close(SERVER, 1011)
    c.rst(SERVER)
    row = only(c, CLIENT)
    assert (row["code"], row["evidence"], row["wire_code"]) == (None, "close_unacked", 1011)


def test_row_9_reset_by_the_receiver_before_the_close_was_acknowledged():
    c = Conversation().upgrade()
    c.text(CLIENT)
    before = c.seq[SERVER]
    c.close(SERVER, 1011)
    c.segment(CLIENT, flags=RST | ACK, ack=before)
    assert views(c)[0] == (None, "undetermined", "close_unacked", None)


@pytest.mark.parametrize("code", [1004, 1005, 1006, 1015, 999, 2999, 5000])
def test_row_10_illegal_code_that_is_accepted(code):
    c = Conversation().upgrade()
    c.close(CLIENT, code)
    c.close(SERVER, code)
    c.end()
    assert views(c)[1] == (code, "wire", "status", "high")
    wanted = "local_code_on_wire" if code in (1005, 1006, 1015) else "code_out_of_range"
    assert wanted in only(c, SERVER)["anomalies"]


def test_row_11_one_byte_close():
    c = Conversation().upgrade()
    c.say(CLIENT, frame(8, b"\x03", mask=MASK))
    c.close(SERVER)
    c.end()
    row = only(c, SERVER)
    assert (row["code"], row["evidence"], row["received"], row["wire_code"]) == (None, "short_close", "short", None)


def test_row_12_and_13_visible_violation():
    c = Conversation().upgrade()
    c.say(CLIENT, frame(3, b"x", mask=MASK))  # reserved opcode
    own = c.close(SERVER, 1002)
    c.close(CLIENT, 1002)
    c.end()
    row = only(c, SERVER)
    assert (row["code"], row["provenance"], row["evidence"]) == (1006, "synthesized", "failed_here")
    assert (row["wire_code"], row["sent_code"], row["record"]) == (1002, 1002, own)
    assert views(c)[0] == (1002, "wire", "status", "high")


@pytest.mark.parametrize(
    "violation",
    [
        frame(1, b"unmasked"),
        frame(1, b"\xff\xfe", mask=MASK),
        frame(0, b"orphan", mask=MASK),
        frame(9, b"x" * 126, mask=MASK),
        frame(9, b"", mask=MASK, fin=False),
        frame(1, b"x", mask=MASK, rsv=4),
        frame(1, b"x", mask=MASK, length_bytes=2),
        close(1006, mask=MASK),
        close(1000, b"\xff", mask=MASK),
    ],
    ids=["unmasked", "utf8", "orphan", "long", "fragmented", "rsv", "length", "code", "reason"],
)
def test_row_12_for_every_kind_of_violation(violation):
    c = Conversation().upgrade()
    c.say(CLIENT, violation)
    c.close(SERVER, 1002)
    c.ack(CLIENT)
    c.end()
    assert views(c)[1][:3] == (1006, "synthesized", "failed_here")


def test_row_12_needs_the_violation_before_the_close():
    c = Conversation().upgrade()
    c.close(SERVER, 1009)
    c.say(CLIENT, frame(3, b"x", mask=MASK))
    c.end()
    assert views(c)[1][:3] == (1006, "synthesized", "no_close_fin")


def test_row_14_invisible_violation_with_a_reply():
    c = Conversation().upgrade()
    c.close(SERVER, 1009)
    c.close(CLIENT, 1009)
    c.end()
    row = only(c, SERVER)
    assert (row["code"], row["evidence"], row["wire_code"]) == (None, "failed_here", 1009)
    assert views(c)[0] == (1009, "wire", "status", "high")


def test_an_echoed_1002_is_no_failure_of_the_echoing_side():
    c = Conversation().upgrade()
    c.close(SERVER, 1002)
    c.close(CLIENT, 1002)
    c.end()
    assert views(c)[0] == (1002, "wire", "status", "high")


@pytest.mark.parametrize("status", [401, 403, 426, 503])
def test_row_15_rejected(status):
    c = Conversation().open()
    c.say(CLIENT, REQUEST)
    c.say(SERVER, f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno".encode())
    c.end()
    assert views(c) == [(1006, "synthesized", "handshake_rejected", "high"), None]
    _, connections = analyze(c.pcap())
    assert (connections[0]["handshake"], connections[0]["http_status"]) == ("rejected", status)


@pytest.mark.parametrize("answer", [response(accept="wrong="), response(more="Sec-WebSocket-Protocol: soap\r\n")])
def test_row_16_answer_that_the_client_drops(answer):
    c = Conversation().upgrade(answer=answer)
    c.fin(CLIENT)
    c.fin(SERVER)
    c.ack(CLIENT)
    assert views(c) == [(1006, "synthesized", "handshake_failed", "high"), None]


def test_row_16_does_not_hold_where_the_server_ended_first():
    c = Conversation().upgrade(answer=response(accept="wrong="))
    c.fin(SERVER)
    c.fin(CLIENT)
    c.rst(SERVER)
    assert views(c) == [(1006, "synthesized", "no_close_fin", "high")] * 2


def test_row_16_does_not_hold_where_the_client_carries_on():
    c = Conversation().upgrade(answer=response(accept="wrong="))
    c.close(CLIENT, 1000)
    c.close(SERVER, 1000)
    c.end()
    assert views(c) == [(1000, "wire", "status", "high")] * 2


@pytest.mark.parametrize("captured", [0, 1, 2, 3, 5])
def test_row_27_close_cut_by_the_snaplen(captured):
    c = Conversation().upgrade()
    c.close(SERVER, 1011, "too long for this snaplen", captured=captured)
    c.ack(CLIENT)
    c.end()
    row = only(c, CLIENT)
    wanted = "gap" if captured < 2 else "cut_close"
    assert (row["code"], row["evidence"], row["wire_code"]) == (None, wanted, None)


def test_row_27_close_whose_second_segment_is_missing():
    c = Conversation().upgrade()
    whole = close(1011, "in two segments", mask=MASK)
    c.say(CLIENT, whole[:7])
    c.say(CLIENT, whole[7:], lose=True)
    c.ack(SERVER)
    c.fin(CLIENT)
    c.ack(SERVER)
    assert views(c)[1] == (None, "undetermined", "cut_close", None)


def test_row_28_gap_where_a_header_could_be():
    c = Conversation().upgrade()
    c.close(SERVER, 1001, lose=True)
    c.ack(CLIENT)
    c.fin(SERVER)
    c.fin(CLIENT)
    c.ack(SERVER)
    assert views(c)[0] == (None, "undetermined", "gap", None)


def test_row_29_gap_inside_a_payload():
    c = Conversation().upgrade()
    whole = frame(2, bytes(300))
    c.say(SERVER, whole[:100])
    c.say(SERVER, whole[100:200], lose=True)
    c.say(SERVER, whole[200:])
    c.ack(CLIENT)
    c.close(SERVER, 1000)
    c.close(CLIENT, 1000)
    c.end()
    assert views(c)[0] == (1000, "wire", "status", "high")
    _, connections = analyze(c.pcap())
    assert connections[0]["server_gap_bytes"] == 100


def test_row_29_gap_inside_a_payload_then_fin():
    c = Conversation().upgrade()
    whole = frame(2, bytes(300))
    c.say(SERVER, whole[:100])
    c.say(SERVER, whole[100:200], lose=True)
    c.say(SERVER, whole[200:])
    c.ack(CLIENT)
    c.end()
    assert views(c)[0] == (1006, "synthesized", "no_close_fin", "high")


def test_row_30_in_step_again_behind_a_gap():
    c = Conversation().upgrade()
    c.text(SERVER, lose=True)
    c.text(SERVER)
    c.text(SERVER)
    c.close(SERVER, 1012)
    c.close(CLIENT, 1012)
    c.end()
    assert views(c)[0] == (1012, "wire", "status", "medium")
    assert "resynchronized" in only(c, CLIENT)["anomalies"]


def test_row_31_capture_ends_first():
    c = Conversation().upgrade()
    c.text(CLIENT)
    assert views(c) == [(None, "undetermined", "open_end", None)] * 2


def test_row_32_vanished():
    c = Conversation().upgrade()
    at = c.seq[CLIENT]
    c.text(CLIENT)
    for seconds in (1, 2, 4, 8):
        c.wait(seconds).segment(CLIENT, frame(1, b"hello", mask=MASK), seq=at)
    other = Conversation(sport=40001, ts_ns=c.ts_ns + 60_000_000_000).open()
    c.packets += other.packets
    closes, connections = analyze(c.pcap())
    assert [(r["code"], r["evidence"]) for r in closes] == [(None, "vanished")] * 2
    assert connections[0]["end"] == "vanished"


def test_row_32_is_1006_if_the_endpoint_then_resets():
    c = Conversation().upgrade()
    at = c.seq[CLIENT]
    c.text(CLIENT)
    for seconds in (1, 2, 4, 8):
        c.wait(seconds).segment(CLIENT, frame(1, b"hello", mask=MASK), seq=at)
    c.wait(60).rst(CLIENT)
    assert views(c)[0] == (1006, "synthesized", "no_close_rst", "high")


def test_row_33_evicted():
    c = Conversation().upgrade()
    for port in range(50000, 50040):
        c.packets += Conversation(sport=port, ts_ns=c.ts_ns).open().packets
    closes, connections = analyze(c.pcap(), max_flows=16)
    assert [(r["code"], r["evidence"]) for r in closes] == [(None, "evicted")] * 2
    assert connections[0]["end"] == "evicted"


def midstream():
    c = Conversation()
    c.text(CLIENT)
    c.text(CLIENT)
    c.text(SERVER)
    c.text(SERVER)
    return c


def test_row_34_no_handshake_with_status_and_without():
    c = midstream()
    c.close(SERVER, 1001)
    c.close(CLIENT)
    c.end()
    assert views(c, ports=(80,)) == [
        (1001, "wire", "status", "medium"),
        (1005, "synthesized", "empty_close", "medium"),
    ]


@pytest.mark.parametrize("port", [80, 9, 65535])
def test_row_34_needs_no_port(port):
    """Frames of both sides are enough, on any port; what came before they were is counted too."""
    c = Conversation(dport=port)
    c.text(CLIENT)
    c.text(CLIENT)
    c.text(SERVER)
    c.text(SERVER)
    at = c.close(SERVER, 1001)
    c.close(CLIENT)
    c.end()
    assert views(c) == [(1001, "wire", "status", "medium"), (1005, "synthesized", "empty_close", "medium")]
    row = only(c, CLIENT)
    assert (row["record"], row["client"], row["initiator"]) == (at, "10.0.0.1:40000", "server")
    (found,) = analyze(c.pcap())[1]
    assert (found["client_frames"], found["server_frames"], found["handshake"]) == (3, 3, "missing")


@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_a_close_alone_makes_no_row(side):
    c = Conversation()
    c.close(side, 1001)
    c.end()
    assert analyze(c.pcap()) == ([], [])


def test_row_35_no_handshake_no_close_aligned():
    c = midstream()
    c.end()
    assert views(c, ports=(80,)) == [(1006, "synthesized", "no_close_fin", "medium")] * 2
    assert views(c) == views(c, ports=(80,))


def test_row_35_no_handshake_no_close_not_aligned():
    c = midstream()
    c.say(SERVER, frame(2, bytes(500))[:90])
    c.end()
    assert views(c, ports=(80,))[0] == (None, "undetermined", "gap", None)


def test_row_36_only_one_direction_captured():
    c = Conversation().upgrade()
    c.text(SERVER)
    c.close(SERVER, 1001)
    c.fin(SERVER)
    c.packets = [p for p in c.packets if p.data[26:30] == bytes([10, 0, 0, 2])]  # what the server sent
    assert views(c) == [(1001, "wire", "status", "medium"), (None, "undetermined", "open_end", None)]


def test_row_36_other_direction():
    c = Conversation().upgrade()
    c.close(CLIENT, 4000)
    c.fin(CLIENT)
    c.packets = [p for p in c.packets if p.data[26:30] == bytes([10, 0, 0, 1])]
    closes, _ = analyze(c.pcap())
    found = {row["endpoint"]: (row["code"], row["evidence"]) for row in closes}
    assert found == {"client": (None, "open_end"), "server": (4000, "status")}


def test_a_rst_outside_the_window_is_ignored():
    c = Conversation().upgrade()
    c.segment(SERVER, flags=RST | ACK, seq=c.seq[SERVER] + 100_000_000)
    c.segment(SERVER, flags=RST | ACK, seq=c.seq[SERVER] - 40)
    c.close(CLIENT, 1000)
    c.close(SERVER, 1000)
    c.end()
    assert views(c) == [(1000, "wire", "status", "high")] * 2
    _, connections = analyze(c.pcap())
    assert (connections[0]["end"], connections[0]["ended_by"]) == ("fin", "server")


def test_a_close_behind_the_receivers_own_rst_is_not_read():
    c = Conversation().upgrade()
    c.text(SERVER)
    c.rst(CLIENT)
    c.close(SERVER, 1001)
    row = only(c, CLIENT)
    assert (row["code"], row["evidence"], row["wire_code"]) == (1006, "no_close_rst", 1001)


def test_first_close_counts():
    c = Conversation().upgrade()
    c.close(SERVER, 1001)
    c.close(SERVER, 1011)
    c.close(CLIENT, 1001)
    c.end()
    assert views(c)[0][0] == 1001
    assert "second_close" in only(c, CLIENT)["anomalies"]


def test_data_and_fin_in_the_segment_of_the_close():
    c = Conversation().upgrade()
    c.say(SERVER, frame(1, b"last words") + close(1000), flags=ACK | PSH | FIN)
    c.close(CLIENT, 1000)
    c.fin(CLIENT)
    c.ack(SERVER)
    # the answer came after the server's FIN and nothing reset it: row 8
    assert views(c) == [(1000, "wire", "status", "high"), (1000, "wire", "status", "medium")]


def test_key_of_the_builder_is_the_rfcs():
    assert KEY.encode() in REQUEST
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in response()


def test_a_forged_rst_does_not_end_a_connection_that_goes_on():
    for side, ahead in ((SERVER, 500_000), (CLIENT, 5_000)):
        c = Conversation().upgrade()
        c.text(CLIENT)
        c.ack(SERVER)
        c.segment(side, flags=RST | ACK, seq=c.seq[side] + ahead)
        c.wait(10)
        c.close(CLIENT, 1000)
        c.close(SERVER, 1000)
        c.end()
        found = [view[:3] for view in views(c)]
        assert found == [(1000, "wire", "status")] * 2, side


def test_a_failure_that_the_capture_lacks_is_not_ruled_out():
    c = Conversation().upgrade()
    c.close(CLIENT, 1005)
    c.close(SERVER, 1002, lose=True)
    c.ack(CLIENT)
    c.end()
    assert views(c)[1] == (None, "undetermined", "gap", None)
    assert only(c, SERVER)["wire_code"] == 1005


def test_an_anomaly_needs_evidence_too():
    c = Conversation().upgrade()
    c.close(SERVER, 1001, lose=True)
    c.close(CLIENT, 1001)
    c.fin(SERVER)
    c.fin(CLIENT)
    c.ack(SERVER)
    _, connections = analyze(c.pcap())
    assert connections[0]["initiator"] == "unknown"
    assert "no_close_reply" not in connections[0]["anomalies"]


def test_an_upgrade_behind_a_chunked_body_is_not_lost():
    c = Conversation().open()
    body = b"POST /log HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    c.say(CLIENT, body + REQUEST)
    c.say(SERVER, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    c.say(SERVER, response())
    c.close(CLIENT, 4000)
    c.close(SERVER, 4000)
    c.end()
    assert [view[:3] for view in views(c)] == [(4000, "wire", "status")] * 2


def test_rows_8_and_9_with_an_empty_close():
    half = Conversation().upgrade()
    half.fin(CLIENT)
    half.close(SERVER)
    half.ack(CLIENT)
    half.fin(SERVER)
    half.ack(CLIENT)
    assert views(half)[0] == (1005, "synthesized", "empty_close", "medium")
    replied = Conversation().upgrade()
    replied.close(SERVER)
    replied.close(CLIENT)
    replied.rst(SERVER)
    assert views(replied)[0] == (1005, "synthesized", "empty_close", "high")
    acknowledged = Conversation().upgrade()
    acknowledged.close(SERVER)
    acknowledged.ack(CLIENT)
    acknowledged.rst(SERVER)
    assert views(acknowledged)[0] == (1005, "synthesized", "empty_close", "medium")


def test_a_request_without_an_answer():
    waiting = Conversation().open()
    waiting.say(CLIENT, REQUEST)
    assert views(waiting) == [(None, "undetermined", "open_end", None), None]
    lost = Conversation().open()
    lost.say(CLIENT, REQUEST)
    lost.say(SERVER, response(), lose=True)
    lost.end()
    assert views(lost) == [(None, "undetermined", "gap", None), None]
    dropped = Conversation().open()
    dropped.say(CLIENT, REQUEST)
    dropped.end()
    assert views(dropped) == [(1006, "synthesized", "handshake_failed", "high"), None]


def test_row_6_by_a_rst_without_ack_after_ones_own_fin():
    c = Conversation().upgrade()
    c.fin(CLIENT)
    c.text(SERVER)
    c.rst(CLIENT, with_ack=False)
    assert views(c)[0] == (1006, "synthesized", "no_close_rst", "medium")
