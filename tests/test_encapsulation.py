"""Captures that others made, with TCP carried in unusual ways: what is read agrees with tshark, the rest is counted."""

import collections
import json
import subprocess

import pytest
from reading import gather

from analyzer.analysis import stream

SKIPPED = {
    "arkime__80211http.pcap": {},
    "arkime__mpls-basic.pcap": {"not_tcp": 33, "not_ip": 6},
    "arkime__pppoe.pcap": {},
    "arkime__tcpdump-geneve.pcap": {"not_tcp": 6},
    "arkime__vxlan.pcap": {"not_tcp": 8, "not_ip": 2},
    "gopacket__be-test102.pcapng": {"not_tcp": 5},
    "zeek__fragmented-1.pcap": {"malformed": 1, "overlap": 2},
    "zeek__ipv6-http-atomic-frag.pcap": {"not_tcp": 2},
    "zeek__linux_dlt_sll2.pcap": {"not_tcp": 4, "not_ip": 2},
    "pcapplusplus__nanosecs_big_endian.pcap": {},
    "suricata-verify__tcp-overlap.pcap": {},
    "zeek__gap-data-missing.pcapng": {},
    "zeek__http-qinq-0.pcap": {},
}
"""Packets that are no segments, counted by hand in the protocols that tshark 4.0.17 names for each packet; of several
layers of IP the innermost counts, and fragments as the one datagram that they make."""

PACKED = {"pcapplusplus__pcapng-example.pcapng.zst": "zstd", "scapy__http_head.pcapng.gz": "gzip"}

TUNNELS = {"mpls", "pppoes", "geneve", "vxlan", "gtp", "gre"}


@pytest.fixture(scope="module")
def about(shared):
    folder = shared / "captures" / "encapsulation"
    rows = json.loads((folder / "ABOUT.json").read_text(encoding="utf-8"))
    return {row["file"]: (folder / row["file"], row) for row in rows}


def read(path):
    closes, connections, (row,) = gather(stream(path))
    assert (closes, connections) == ([], [])
    return row


def skipped(row):
    return {name.removeprefix("skipped_"): n for name, n in row.items() if name.startswith("skipped_") and n}


def test_every_file_is_known(about):
    assert sorted(about) == sorted([*SKIPPED, *PACKED])


@pytest.mark.parametrize("name", SKIPPED)
def test_packets_and_flows(about, name):
    path, facts = about[name]
    row = read(path)
    assert (row["status"], row["message"], row["damaged_at"]) == ("ok", None, None)
    assert row["kind"] == facts["format"].split("-")[0]
    assert (row["records"], row["bytes"], row["connections"]) == (facts["packets"], path.stat().st_size, 0)
    assert skipped(row) == SKIPPED[name]
    assert row["flows"] == facts["tshark_tcp_streams"]


@pytest.mark.parametrize("name", PACKED)
def test_packed_files_are_unpacked(about, name):
    path, facts = about[name]
    row = read(path)
    assert (row["status"], row["compression"]) == ("ok", PACKED[name])
    assert (row["kind"], row["records"], row["flows"]) == (
        "pcapng",
        facts["tshark_packets"],
        facts["tshark_tcp_streams"],
    )


def test_custom_blocks_are_no_packets(about):
    """be-test102: tshark lists 8 records where 5 are packets.

    The file has four enhanced packet blocks and one simple one, at the offsets below; the three records more are its
    custom blocks, which tshark lists without a time, with the 24, 60 and 32 bytes that they hold.
    """
    path, facts = about["gopacket__be-test102.pcapng"]
    content = path.read_bytes()
    kinds, at = collections.Counter(), 0
    while at < len(content):
        kinds[content[at : at + 4].hex()] += 1
        at += int.from_bytes(content[at + 4 : at + 8], "big")
    assert (kinds["00000006"], kinds["00000003"], kinds["00000002"]) == (4, 1, 0)
    assert kinds["00000bad"] + kinds["40000bad"] == facts["tshark_packets"] - facts["packets"] == 3
    assert read(path)["records"] == 5


FIELDS = ["frame.number", "frame.protocols", "ip.flags.mf", "ip.frag_offset", "ip.len", "ip.hdr_len"]
FIELDS += ["ip.reassembled_in", "ip.fragment.overlap.conflict", "frame.time_epoch", "tcp.stream"]


def count_by_tshark(tshark, path):
    """(what each packet should be counted as, packets, flows) from tshark's own dissection, in two passes.

    Tshark puts fragments together that contradict one another, and says so; here they count as dropped, and as
    malformed the one that is not the last and yet no multiple of 8 bytes long (RFC 791 section 3.2).
    """
    command = [tshark, "-n", "-2", "-r", str(path), "-T", "fields", "-E", "occurrence=l"]
    command += [part for field in FIELDS for part in ("-e", field)]
    counts, streams, n, fragments = collections.Counter(), set(), 0, collections.Counter()
    for line in subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines():
        number, protocols, more, offset, length, header, whole_in, conflict, epoch, stream_number = line.split("\t")
        layers = protocols.split(":")
        if not epoch and layers == ["data"]:
            continue  # a custom block
        n += 1
        is_fragment = more in ("1", "True") or offset not in ("", "0")
        if more in ("1", "True") and (int(length) - int(header)) % 8:
            counts["malformed"] += 1
            continue
        if whole_in and whole_in != number:
            fragments[whole_in] += 1
            continue
        if conflict:
            counts["overlap"] += 1 + fragments[number]
            continue
        innermost = layers[max((at + 1 for at, layer in enumerate(layers) if layer in TUNNELS), default=0) :]
        if not {"ip", "ipv6"} & set(innermost):
            counts["not_ip"] += 1
        elif "tcp" in innermost:
            streams.add(stream_number)
        elif is_fragment and innermost[-1] in ("ip", "data"):
            counts["fragment"] += 1
        else:
            counts["not_tcp"] += 1
    return counts, n, len(streams)


@pytest.mark.needs_tshark
@pytest.mark.parametrize("name", SKIPPED)
def test_tshark_counts_the_same(tshark, about, name):
    path, _ = about[name]
    counts, n, n_streams = count_by_tshark(tshark, path)
    row = read(path)
    assert (skipped(row), row["records"], row["flows"]) == (counts, n, n_streams)


@pytest.mark.needs_tshark
@pytest.mark.parametrize("name", SKIPPED)
def test_first_and_last_time_are_those_of_tshark(tshark, about, name):
    path, _ = about[name]
    command = [tshark, "-n", "-r", str(path), "-T", "fields", "-e", "frame.time_epoch"]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    times = [int(seconds) * 10**9 + int(fraction) for seconds, fraction in (line.split(".") for line in lines)]
    row = read(path)
    assert (row["first"], row["last"]) == (min(times), max(times))
