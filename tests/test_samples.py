"""Every sample capture against what its TOML says, which was written by hand and checked with tshark."""

import hashlib
import tomllib

import pytest
from conftest import SAMPLES, options_of
from reading import analyze

from analyzer.keys import KeyRing
from analyzer.verdict.connections import format_address
from analyzer.verdict.opaque import Asserted, Opaque

FIELDS = ("code", "provenance", "evidence", "received", "wire_code", "sent", "sent_code", "record")
METADATA = sorted(SAMPLES.glob("*.toml"))
NEEDED = (1000, 1001, 1002, 1007, 1009, 1011, 1012)


def read_metadata(metadata):
    return tomllib.loads(metadata.read_text(encoding="utf-8"))


def told(about):
    """What a sample says of each connection; of a single one it says it at the top."""
    return about.get("connections", [about])


def capture_of(metadata):
    (found,) = SAMPLES.glob(f"{metadata.stem}.pcap*")
    return found


@pytest.mark.parametrize("metadata", METADATA, ids=lambda path: path.stem)
def test_views_are_as_written_by_hand(metadata, read_rows):
    about = read_metadata(metadata)
    capture = capture_of(metadata)
    assert hashlib.sha256(capture.read_bytes()).hexdigest() == about["recorded"]["sha256"]
    closes, connections, inputs = read_rows(capture, **options_of(capture))
    assert inputs[0]["records"] == about["recorded"]["packets"]
    assert inputs[0]["status"] == "ok"
    assert inputs[0]["skipped_encrypted"] == 0
    assert len(connections) == len(told(about))
    for one in told(about):
        end = f"-s{one['stream']}" if "stream" in one else ""
        (connection,) = [row for row in connections if row["connection"].endswith(end)]
        mine = [row for row in closes if row["connection"] == connection["connection"]]
        found = {row["endpoint"]: {name: row[name] for name in FIELDS} for row in mine}
        assert found == {row["endpoint"]: {name: row.get(name) for name in FIELDS} for row in one.get("expect", ())}
        for row in one.get("expect", ()):
            view = next(r for r in mine if r["endpoint"] == row["endpoint"])
            assert (view["reason"] or "") == row.get("reason", "")
        assert {name: connection[name] for name in one["connection"]} == one["connection"]
        assert connection["transport"] == about.get("transport", "tls" if "tls" in about else "tcp")
        if "tls" in about:
            tls = about["tls"]
            assert (connection["sni"], connection["tls_version"]) == (tls["sni"], tls["version"])
            assert connection["alpn"] == tls.get("alpn")


@pytest.mark.parametrize("metadata", METADATA, ids=lambda path: path.stem)
def test_the_endpoints_api_agrees_or_the_difference_is_explained(metadata):
    for one in told(read_metadata(metadata)):
        views = {row["endpoint"]: row for row in one.get("expect", ())}
        for side, api in one["api"].items():
            if side in views and "code" in api and api["code"] != views[side].get("code"):
                assert one["difference"][side]["why"]


def records(content):
    """Header and records of a pcap, by its own length fields."""
    order = "little" if content[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else "big"
    found, off = [], 24
    while off < len(content):
        size = 16 + int.from_bytes(content[off + 8 : off + 12], order)
        found.append(content[off : off + size])
        off += size
    return content[:24], found


@pytest.mark.parametrize("capture", sorted(SAMPLES.glob("*.pcap")), ids=lambda path: path.stem)
def test_no_single_lost_packet_makes_another_code(capture):
    """A packet that the capture missed may cost a code, never change one that was seen or proven."""
    header, packets = records(capture.read_bytes())
    options = options_of(capture)
    asserted = Asserted((), options["ws_ports"])

    def codes(content):
        # by endpoints: the identifier begins with the time of the first packet, which may be the lost one
        ring = KeyRing(options["keys"])
        rows = analyze(content, ports=options["ports"], secrets=ring, judge=Opaque(asserted))[0]
        return {(row["client"], row["endpoint"]): (row["code"], row["confidence"]) for row in rows}

    whole = codes(header + b"".join(packets))
    for i in range(len(packets)):
        for view, (code, confidence) in codes(header + b"".join(packets[:i] + packets[i + 1 :])).items():
            before = whole[view][0] if view in whole else None
            assert code in (before, None) or (before is None and confidence == "medium"), (i + 1, view)


def test_samples_cover_what_they_must():
    views = [row for path in METADATA for row in tomllib.loads(path.read_text(encoding="utf-8")).get("expect", ())]
    wire = {row.get("wire_code") for row in views}
    assert wire.issuperset(NEEDED)
    assert any(code and 4000 <= code < 5000 for code in wire)
    assert any(not row.get("reason", "").isascii() for row in views)
    needed = {"empty_close", "no_close_fin", "no_close_rst", "handshake_rejected"}
    assert {row["evidence"] for row in views} >= needed
    assert any(row.get("wire_code") == 1006 for row in views)


def test_samples_give_different_first_advice_for_different_evidence(read_rows):
    _, fin, _ = read_rows(SAMPLES / "fin-no-close-1006.pcap")
    _, rst, _ = read_rows(SAMPLES / "rst-no-close-1006.pcap")
    assert (fin[0]["client_view_code"], rst[0]["server_view_code"]) == (1006, 1006)
    assert fin[0]["diagnosis"] != rst[0]["diagnosis"]


def test_addresses_are_written_as_people_write_them():
    assert format_address(0, 0xFFFF0A000001) == "10.0.0.1"
    assert format_address(0, 1) == "[::1]"
    # the upper half is a signed number with the same bits
    assert format_address(0x20010DB800000000, -1) == "[2001:db8::ffff:ffff:ffff:ffff]"
