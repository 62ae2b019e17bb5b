"""The sample captures of TLS: packets read by dpkt, expectations from tshark and the endpoints."""

import re
import tomllib

import dpkt
import pytest
from conftest import SAMPLES
from packets import read_secrets
from tlswire import cut

from analyzer.capture.alert import NAMES
from analyzer.capture.keylog import KeyFile, KeyLog
from analyzer.capture.mark import Mark
from analyzer.capture.tls import Session, State

METADATA = [path for path in sorted(SAMPLES.glob("*.toml")) if "tls" in tomllib.loads(path.read_text(encoding="utf-8"))]


def read_segments(path):
    """(packet number, direction, bytes) of TCP segments with data, the client's direction 0; nothing is lost on lo."""
    with path.open("rb") as file:
        reader = dpkt.pcapng.Reader(file) if path.suffix == ".pcapng" else dpkt.pcap.Reader(file)
        client = None
        for number, (_, frame) in enumerate(reader, 1):
            packet = (dpkt.sll2.SLL2 if reader.datalink() == 276 else dpkt.ethernet.Ethernet)(frame)
            if reader.datalink() == 113:
                packet = dpkt.sll.SLL(frame)
            tcp = packet.data.data
            client = tcp.sport if client is None else client
            if tcp.data:
                yield number, int(tcp.sport != client), tcp.data


def read_records(path):
    """Records, each with the number of the packet that completed it."""
    buffers = [b"", b""]
    for number, direction, data in read_segments(path):
        buffers[direction] += data
        while len(buffers[direction]) >= 5:
            size = 5 + int.from_bytes(buffers[direction][3:5], "big")
            if len(buffers[direction]) < size:
                break
            (record,) = cut(direction, buffers[direction][:size])
            buffers[direction] = buffers[direction][size:]
            yield number, record


def read_close(stream):
    """What the first Close in one direction holds: None, or its body."""
    stream = stream[stream.index(b"\r\n\r\n") + 4 :]
    while stream:
        opcode, size, off = stream[0] & 15, stream[1] & 127, 2
        if size == 126:
            size, off = int.from_bytes(stream[2:4], "big"), 4
        mask = stream[off : off + 4] if stream[1] & 128 else b""
        off += len(mask)
        body = stream[off : off + size]
        if opcode == 8:
            return bytes(byte ^ mask[i % 4] for i, byte in enumerate(body)) if mask else body
        stream = stream[off + size :]
    return None


@pytest.mark.parametrize("metadata", METADATA, ids=lambda path: path.stem)
def test_a_sample_is_read_as_tshark_and_the_endpoints_say(metadata):
    about = tomllib.loads(metadata.read_text(encoding="utf-8"))
    (capture,) = SAMPLES.glob(f"{metadata.stem}.pcap*")
    keys = KeyLog()
    if about.get("keys", "").endswith(".keys"):
        assert KeyFile(SAMPLES / about["keys"]).refresh(keys)
    elif "keys" in about:
        for text in read_secrets(capture):
            keys.add(text)
    session = Session(keys)
    out = []
    for number, record in read_records(capture):
        out += session.read(*record, Mark(0, 0, 0, number))
    out += session.finish()
    tls = about["tls"]
    assert (session.version, session.cipher, session.sni) == (tls["version"], tls["cipher"], tls["sni"])
    assert (list(session.alpn_offers), session.alpn) == (tls["alpn_offers"], tls.get("alpn"))
    names = ("client", "server")
    numbers = {name: number for number, name in NAMES.items()}
    alerts = [f"{names[a.direction]} {a.level} {numbers[a.name]} in packet {a.mark.packet}" for a in session.alerts]
    assert alerts == tls["alerts"]
    assert session.is_established is (about["connection"]["handshake"] == "complete")
    if not session.is_established:
        assert out[0].kind == 21
        return
    assert not any(plain.lost_bytes for plain in out)
    assert session.state is State.OPEN
    for view in about["expect"]:
        direction = 1 if view["endpoint"] == "client" else 0  # that of what came in
        data = [plain for plain in out if plain.direction == direction and plain.kind == 23]
        close = read_close(b"".join(plain.data for plain in data))
        if view["received"] == "none":
            assert close is None
            continue
        status = view["wire_code"].to_bytes(2, "big") if view["received"] == "status" else b""
        assert close == status + view["reason"].encode()
        assert data[-1].mark.packet == view["record"]


def test_keys_of_the_samples_are_nothing_but_keys():
    assert len(METADATA) >= 6
    assert len(list(SAMPLES.glob("*.keys"))) >= 4
    for path in SAMPLES.glob("*.keys"):
        text = path.read_text(encoding="ascii")
        assert re.fullmatch(r"(?:[A-Z0-9_]+ [0-9a-f]{64} [0-9a-f]{64,96}\n)+", text)
    for path in SAMPLES.iterdir():
        assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes()
