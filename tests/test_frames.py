"""The frame walk and the Close body: a table of frames, fed every way, against other people's decoders."""

import random
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packets import CLIENT, REQUEST, SERVER, Conversation, frame, pcap, response
from reading import analyze
from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.protocol import Protocol, Side
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from analyzer.capture import frames
from analyzer.capture.frames import parse_close_body
from analyzer.model import CONNECTION, SIDE, VIOLATIONS, Anomaly

CASES = tomllib.loads((Path(__file__).parent / "cases" / "frames.toml").read_text())["case"]
EXTENSION = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
SPLITS = 40
"""Longer cases are split near their ends only."""

PLACES = ("source", "connection", "client", "record", "time", "duration_s", "opened", "ended", "silence_s")
PLACES += ("close_reply_s", "end_delay_s", "unanswered_ping_s", "client_close_time", "client_close_record")
PLACES += ("server_close_time", "server_close_record")
"""Columns that say when and where: they change with the packets that carry the same bytes."""

NOT_JUDGED = {"server_sent_1010", "data_after_close", "second_close"}
"""Anomalies for which a receiver need not fail the connection."""


def to_bytes(text: str) -> bytes:
    out = b""
    for word in text.split():
        byte, _, n = word.partition("*")
        out += bytes.fromhex(byte) * int(n or 1)
    return out


def begin(case: dict, sport: int) -> Conversation:
    talk = Conversation(sport=sport)
    if case.get("deflate"):
        request = REQUEST[:-2] + EXTENSION.encode() + b"\r\n"
        return talk.upgrade(request, response(more=EXTENSION))
    return talk.upgrade()


def ways(data: bytes) -> dict[str, list[tuple[int, bytes]]]:
    """Every way to carry these bytes: (offset, bytes) of each segment in order of arrival."""
    n = len(data)
    single = [(i, data[i : i + 1]) for i in range(n)]
    found = {
        "whole": [(0, data)],
        "one byte each": single,
        "twice": [(0, data), (0, data)],
        "one byte each, twice": [piece for piece in single for _ in range(2)],
        "backwards": single[::-1],
        "in pairs swapped": [piece for i in range(0, n, 2) for piece in single[i : i + 2][::-1]],
        "overlapping": [(i, data[i : i + 3]) for i in range(n)],
        "whole, then one byte each": [(0, data), *single],
    }
    for at in range(1, n):
        if at < SPLITS // 2 or at > n - SPLITS // 2:
            found[f"split at {at}"] = [(0, data[:at]), (at, data[at:])]
            found[f"split at {at}, swapped"] = [(at, data[at:]), (0, data[:at])]
    return found


def plain(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in PLACES}


@pytest.fixture(params=CASES, ids=[case["name"] for case in CASES])
def case(request):
    return request.param


def test_every_case_every_way(case):
    side, data = case["side"], to_bytes(case["hex"])
    packets, carried = [], ways(data)
    for i, pieces in enumerate(carried.values()):
        talk = begin(case, 40000 + i)
        base = talk.seq[side]
        for off, piece in pieces:
            talk.segment(side, piece, seq=base + off)
        talk.seq[side] = base + len(data)
        talk.end(side)
        packets += talk.packets
    closes, connections = analyze(pcap(packets))
    ports = [f"10.0.0.1:{40000 + i}" for i in range(len(carried))]
    by_port = {row["client"]: row for row in connections}
    views = {(row["client"], row["endpoint"]): row for row in closes}
    assert sorted(by_port) == ports

    receiver = SERVER if side == CLIENT else CLIENT
    first, expect = by_port[ports[0]], case["expect"]
    found = {
        "anomalies": views[ports[0], receiver]["anomalies"],
        "close": first[f"{side}_close"],
        "code": first[f"{side}_close_code"],
        "reason": first[f"{side}_close_reason"],
        "frames": first[f"{side}_frames"],
        "messages": first[f"{side}_messages"],
        "bytes": first[f"{side}_bytes"],
    }
    wanted = {"code": None, "reason": None} | expect
    wanted["anomalies"] = sorted(wanted["anomalies"], key=lambda name: Anomaly[name.upper()])
    assert found == wanted
    for way, port in zip(carried, ports, strict=True):
        assert plain(by_port[port]) == plain(first), way
        for endpoint in (CLIENT, SERVER):
            assert plain(views[port, endpoint]) == plain(views[ports[0], endpoint]), way


def read_wsproto(case: dict, data: bytes) -> dict | None:
    """What wsproto finds, None where it fails the connection."""
    extensions = []
    if case.get("deflate"):
        extensions = [WsprotoDeflate()]
        extensions[0].finalize("permessage-deflate")
    protocol = FrameProtocol(client=case["side"] == SERVER, extensions=extensions)
    found = {"close": "none", "code": None, "reason": None, "messages": 0}
    try:
        protocol.receive_bytes(data)
        for event in protocol.received_frames():
            if event.opcode == 8 and found["close"] == "none":
                code, reason = event.payload
                found |= {"close": "empty", "reason": ""} if code == 1005 else {"close": "status", "reason": reason}
                found["code"] = None if code == 1005 else int(code)
            elif event.opcode < 8 and event.message_finished:
                found["messages"] += 1
    except ParseFailed:
        return None
    return found


def read_websockets(case: dict, data: bytes) -> dict | None:
    """What websockets finds, None where it fails the connection."""
    protocol = Protocol(Side.CLIENT if case["side"] == SERVER else Side.SERVER, max_size=None)
    if case.get("deflate"):
        protocol.extensions = [WebsocketsDeflate(False, False, 15, 15)]
    protocol.receive_data(data)
    if protocol.parser_exc is not None:
        return None
    found = {"close": "none", "code": None, "reason": None, "messages": 0}
    for event in protocol.events_received():
        if event.opcode < 8 and event.fin:
            found["messages"] += 1
        elif event.opcode == 8 and found["close"] == "none":
            close = protocol.close_rcvd
            found |= {"close": "status" if event.data else "empty", "reason": close.reason}
            found["code"] = close.code if event.data else None
    return found


ORACLES = {"wsproto": read_wsproto, "websockets": read_websockets}


@pytest.mark.parametrize("oracle", ORACLES)
def test_other_decoders_agree(case, oracle):
    """A frame that we find fault with is refused, any other is read alike; what differs is listed and does differ."""
    theirs = ORACLES[oracle](case, to_bytes(case["hex"]))
    expect = {"code": None, "reason": None} | case["expect"]
    ours = {name: expect[name] for name in ("close", "code", "reason", "messages")}
    if expect["close"] == "cut":
        ours |= {"close": "none"}
    if set(expect["anomalies"]) - NOT_JUDGED:
        ours = None
    if oracle in case.get("differs", {}):
        assert theirs != ours, f"{oracle} agrees now"
    else:
        assert theirs == ours


def test_not_judged_is_what_a_receiver_need_not_fail():
    assert not any(VIOLATIONS & Anomaly[name.upper()] for name in NOT_JUDGED)


def test_every_anomaly_of_frames_has_a_case():
    shown = {name for case in CASES for name in case["expect"]["anomalies"]}
    elsewhere = {"no_close_reply", "reply_differs", "client_ended_first", "server_lingered", "resynchronized"}
    elsewhere |= {"wrong_accept", "unrequested_subprotocol", "unrequested_extension"}
    assert shown | elsewhere == {flag.name.lower() for flag in Anomaly}


def test_names_of_cases_are_unique():
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "code", [0, 1, 255, 256, 999, *range(1000, 1017), 2999, 3000, 4999, 5000, 0x7FFF, 0x8000, 65535]
)
def test_close_body_of_any_code(code):
    """`parse_close_body` finds fault with exactly the codes that websockets refuses to read."""
    body = parse_close_body(code.to_bytes(2, "big") + "é".encode())
    assert (body.status, body.reason) == (code, "é")
    frame = b"\x88\x04" + code.to_bytes(2, "big") + "é".encode()
    refused = read_websockets({"side": SERVER}, frame) is None
    assert bool(body.anomalies) == refused


@pytest.mark.parametrize(
    ("body", "status", "reason", "anomalies"),
    [
        (b"", None, "", Anomaly.NONE),
        (b"\x03", None, "", Anomaly.ONE_BYTE_BODY),
        (b"\x03\xe8", 1000, "", Anomaly.NONE),
        (b"\x03\xe8\x00", 1000, "\0", Anomaly.NONE),
        (b"\x03\xee\xff", 1006, "\\xff", Anomaly.LOCAL_CODE_ON_WIRE | Anomaly.REASON_NOT_UTF8),
        (b"\xff\xff\xed\xa0\x80", 65535, "\\xed\\xa0\\x80", Anomaly.CODE_OUT_OF_RANGE | Anomaly.REASON_NOT_UTF8),
        (b"\x03\xe8" + b"a" * 300, 1000, "a" * 300, Anomaly.NONE),
    ],
)
def test_close_body(body, status, reason, anomalies):
    assert parse_close_body(body) == (status, reason, anomalies)


def test_bytes_of_endless_frames_do_not_wrap():
    """A frame may claim 2^63-1 bytes; the sum over frames stays a number of bytes."""
    talk = Conversation().upgrade()
    talk.text(SERVER)
    talk.say(SERVER, frame(2, b"abc", length_bytes=8, length=2**63 - 1))
    talk.end(SERVER)
    _, (row,) = analyze(talk.pcap())
    assert row["server_bytes"] >= 5
    assert row["server_frames"] == 2


def test_second_close_leaves_the_first_where_it_was():
    """RFC 6455 section 7.1.5: packet and time are those of the first."""
    talk = Conversation().upgrade()
    number = talk.close(SERVER, 1000)
    talk.close(SERVER, 1001)
    talk.end(SERVER)
    closes, (row,) = analyze(talk.pcap())
    assert row["server_close_record"] == closes[0]["record"] == number


def as_kernels_take(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Bytes, and the same as 64-bit words."""
    data = np.frombuffer(content, np.uint8)
    return data, data[: len(data) & ~7].view(np.int64)


def test_bytes_above_0x7f_are_found_wherever_they_stand():
    """Against unmasking by hand: every place in a word for the first byte, the last, and the one that is not ASCII."""
    rng = random.Random(11)
    for n in range(28):
        for off in range(9):
            for spare in (0, 3, 9):
                key, done = rng.randbytes(4), rng.randrange(9)
                text = bytes(rng.randrange(128) for _ in range(n))
                masked = bytes(c ^ key[(done + i) & 3] for i, c in enumerate(text))
                around = rng.randbytes(off), rng.randbytes(spare)
                mask = int.from_bytes(key, "big")
                assert frames.is_ascii(*as_kernels_take(masked.join(around)), off, n, mask, done)
                for at in range(n):
                    bad = bytearray(masked)
                    bad[at] ^= 0x80
                    assert not frames.is_ascii(*as_kernels_take(bytes(bad).join(around)), off, n, mask, done)


def some_frame(rng: random.Random, side: str) -> bytes:
    """A frame that is mostly a plain message."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.randrange(1, 40))
    opcode = rng.choice([1] * 12 + [2] * 8 + [0, 8, 9, 10, 3])
    payload = ("grüße " * 60 if rng.random() < 0.2 else "a message " * 60).encode()
    payload = payload[: rng.choice([0, 1, 5, 6, 8, 9, 12, 20, 60, 119, 119, 125, 126, 127, 300])]
    is_masked = (side == CLIENT) == (rng.random() < 0.97)
    key = rng.randbytes(4) if is_masked else None
    long_form = rng.choice([None] * 9 + [2, 8])  # too long a form, mostly
    return frame(
        opcode, payload, mask=key, fin=rng.random() < 0.95, rsv=rng.choice([0] * 19 + [4]), length_bytes=long_form
    )


@pytest.mark.parametrize("side", [CLIENT, SERVER])
@pytest.mark.parametrize("score", [0, frames.PROVEN])
def test_the_short_way_for_whole_messages_leaves_the_same_rows(side, score):
    """`walk_message`, and `walk` where it does not want to, against `walk` alone: pieces of frames in many states."""
    rng = random.Random(f"{side} {score}")
    taken = 0
    for number in range(400):
        short, long = np.zeros(2, SIDE), np.zeros(2, SIDE)
        connections = np.zeros(2, CONNECTION)
        connections["allowed_rsv"] = 4 * (number & 1)
        for sides in (short, long):
            for row in sides:
                frames.begin_side(row, frames.IN_STEP)
                row["score"] = score
        pos = 1
        for packet in range(1, 12):
            content = b"".join(some_frame(rng, side) for _ in range(rng.choice([1, 1, 1, 1, 2])))
            if rng.random() < 0.05:
                content = content[: rng.randrange(1, len(content) + 1)]
            before, behind = rng.randbytes(rng.randrange(9)), rng.randbytes(rng.randrange(30))
            data, words = as_kernels_take(before + content + behind)
            off, n, is_client = len(before), len(content), side == CLIENT
            rest = data, words, off, n, pos, 7, 10**18 + packet, packet
            frames.walk(*rest, long[0], long[1], connections[0], is_client)
            if frames.walk_message(data, words, off, n, short[0], is_client):
                taken += 1
            else:
                frames.walk(*rest, short[0], short[1], connections[1], is_client)
            pos += n
            assert short.tobytes() == long.tobytes(), content.hex()
            assert connections[0] == connections[1]
    assert taken == 0 if score < frames.PROVEN else taken > 400


@pytest.mark.parametrize("ending", ["close", "fin", "rst"])
@pytest.mark.parametrize("sender", [CLIENT, SERVER])
@pytest.mark.parametrize("n_before", [1, 3])
def test_silence_ends_where_the_end_began(ending, sender, n_before):
    """Frames behind a Close, a FIN or a RST are no sign of life, wherever a chunk of the capture ends."""
    talk = Conversation().upgrade()
    other = CLIENT if sender == SERVER else SERVER
    for _ in range(n_before):
        talk.text(CLIENT)
        talk.text(SERVER)
    talk.wait(4.0)
    if ending == "close":
        talk.close(sender, 1000)
    elif ending == "fin":
        talk.fin(sender)
    else:
        talk.rst(sender)
    talk.wait(0.5)
    for _ in range(3):
        talk.text(other, "a message that nobody waits for any more")
    talk.wait(0.5)
    talk.end()
    _, (row,) = analyze(talk.pcap())
    assert row["silence_s"] == pytest.approx(4.0, abs=0.1)
