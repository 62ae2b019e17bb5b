"""Every sample capture against what its TOML says, which was written by hand and checked with tshark."""

import hashlib
import tomllib

import pytest
from conftest import SAMPLES
from reading import analyze

from analyzer.verdict.connections import format_address

FIELDS = ("code", "provenance", "evidence", "received", "wire_code", "sent", "sent_code", "record")
METADATA = sorted(SAMPLES.glob("*.toml"))
NEEDED = (1000, 1001, 1002, 1007, 1009, 1011, 1012)


def capture_of(metadata):
    (found,) = SAMPLES.glob(f"{metadata.stem}.pcap*")
    return found


@pytest.mark.parametrize("metadata", METADATA, ids=lambda path: path.stem)
def test_views_are_as_written_by_hand(metadata, read_rows):
    about = tomllib.loads(metadata.read_text(encoding="utf-8"))
    capture = capture_of(metadata)
    assert hashlib.sha256(capture.read_bytes()).hexdigest() == about["recorded"]["sha256"]
    closes, connections, inputs = read_rows(capture, ports=tuple(about.get("ports", ())))
    assert inputs[0]["records"] == about["recorded"]["packets"]
    assert inputs[0]["status"] == "ok"
    assert len(connections) == 1
    found = {row["endpoint"]: {name: row[name] for name in FIELDS} for row in closes}
    assert found == {row["endpoint"]: {name: row.get(name) for name in FIELDS} for row in about["expect"]}
    for row in about["expect"]:
        view = next(r for r in closes if r["endpoint"] == row["endpoint"])
        assert (view["reason"] or "") == row.get("reason", "")
    assert {name: connections[0][name] for name in about["connection"]} == about["connection"]


@pytest.mark.parametrize("metadata", METADATA, ids=lambda path: path.stem)
def test_the_endpoints_api_agrees_or_the_difference_is_explained(metadata):
    about = tomllib.loads(metadata.read_text(encoding="utf-8"))
    views = {row["endpoint"]: row for row in about["expect"]}
    for side, api in about["api"].items():
        if side in views and "code" in api and api["code"] != views[side].get("code"):
            assert about["difference"][side]["why"]


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
    ports = tuple(tomllib.loads(capture.with_suffix(".toml").read_text(encoding="utf-8")).get("ports", ()))

    def codes(content):
        # by endpoints: the identifier begins with the time of the first packet, which may be the lost one
        rows = analyze(content, ports=ports)[0]
        return {(row["client"], row["endpoint"]): (row["code"], row["confidence"]) for row in rows}

    whole = codes(header + b"".join(packets))
    for i in range(len(packets)):
        for view, (code, confidence) in codes(header + b"".join(packets[:i] + packets[i + 1 :])).items():
            before = whole[view][0] if view in whole else None
            assert code in (before, None) or (before is None and confidence == "medium"), (i + 1, view)


def test_samples_cover_what_they_must():
    views = [row for path in METADATA for row in tomllib.loads(path.read_text(encoding="utf-8"))["expect"]]
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
