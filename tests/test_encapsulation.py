"""Captures that others made, with TCP carried in unusual ways: what is read agrees with tshark, the rest is counted."""

import collections
import json
import subprocess

import pytest
from reading import gather

from analyzer.analysis import stream

SKIPPED = {
    "arkime__80211http.pcap": {"link_type": 26},
    "arkime__mpls-basic.pcap": {"tunnel": 17, "not_tcp": 27, "not_ip": 6},
    "arkime__pppoe.pcap": {"tunnel": 10},
    "arkime__tcpdump-geneve.pcap": {"tunnel": 39},
    "arkime__vxlan.pcap": {"tunnel": 10},
    "gopacket__be-test102.pcapng": {"not_tcp": 5},
    "zeek__fragmented-1.pcap": {"fragment": 3},
    "zeek__ipv6-http-atomic-frag.pcap": {"not_tcp": 2},
    "zeek__linux_dlt_sll2.pcap": {"not_tcp": 4, "not_ip": 2},
    "pcapplusplus__nanosecs_big_endian.pcap": {},
    "suricata-verify__tcp-overlap.pcap": {},
    "zeek__gap-data-missing.pcapng": {},
    "zeek__http-qinq-0.pcap": {},
}
"""Packets that are no segments, counted by hand in the protocols that tshark 4.0.17 names for each packet."""

TCP_INSIDE = ("80211http", "mpls", "pppoe", "geneve", "vxlan")
"""Files whose TCP connections lie in what is not opened."""

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
    if not any(part in name for part in TCP_INSIDE):
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


def count_by_tshark(tshark, path):
    """(what each packet should be counted as, packets, flows outside of tunnels) from tshark's own dissection."""
    fields = ["frame.protocols", "ip.flags.mf", "ip.frag_offset", "frame.time_epoch", "tcp.stream"]
    command = [tshark, "-n", "-r", str(path), "-o", "ip.defragment:FALSE", "-T", "fields", "-E", "occurrence=f"]
    command += [part for field in fields for part in ("-e", field)]
    counts, streams, n = collections.Counter(), set(), 0
    for line in subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines():
        protocols, more, offset, epoch, stream_number = line.split("\t")
        layers = protocols.split(":")
        if not epoch and layers == ["data"]:
            continue  # a custom block
        n += 1
        if layers[0] == "radiotap":
            counts["link_type"] += 1
        elif TUNNELS & set(layers):
            counts["tunnel"] += 1
        elif not {"ip", "ipv6"} & set(layers):
            counts["not_ip"] += 1
        elif more in ("1", "True") or offset not in ("", "0"):
            counts["fragment"] += 1
        elif "tcp" not in layers:
            counts["not_tcp"] += 1
        else:
            streams.add(stream_number)
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
