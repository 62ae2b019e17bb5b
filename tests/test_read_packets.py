"""Scapy packets give the rows that the same packets give in a file."""

import decimal
import itertools
import struct
import subprocess
import sys

import pytest
from conftest import SAMPLES
from packets import CLIENT, MASK, SERVER, Conversation, close, pcap, read_secrets
from reading import gather
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1Q, Ether, Loopback
from scapy.packet import Packet, Raw
from scapy.plist import PacketList
from scapy.utils import EDecimal, PcapReader, rdpcap, wrpcap

import analyzer
from analyzer.analysis import stream
from analyzer.capture.scapy_io import CHUNK_PACKETS, PacketReader, link_type_of, to_ns


def rows_of(analysis):
    """(closes, connections) without the name of their source."""
    frames = (analysis.closes, analysis.connections)
    return [
        frame[[name for name in frame if not name.endswith("source")]].astype(str).to_dict("records")
        for frame in frames
    ]


def in_order(rows):
    return sorted(rows, key=lambda row: (row["connection"], row.get("endpoint", "")))


CAPTURES = sorted(SAMPLES.glob("*.pcap*"))


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_samples_give_the_rows_of_the_file(path, tmp_path):
    packets = rdpcap(str(path))
    from_file = analyzer.read(path)
    # scapy gives packets alone, without the file's secrets
    keys = tmp_path / "keys"
    keys.write_bytes(b"".join(read_secrets(path)) if path.suffix == ".pcapng" else b"")
    from_packets = analyzer.read_packets(packets, keys=[keys])
    # HTTP/2 streams leave as they end, and when that is seen differs
    assert [in_order(rows) for rows in rows_of(from_packets)] == [in_order(rows) for rows in rows_of(from_file)]
    (row,), (same,) = from_packets.inputs.to_dict("records"), from_file.inputs.to_dict("records")
    for name in ("records", "flows", "connections", "first", "last", "status"):
        assert row[name] == same[name], name
    assert (row["source"], row["kind"], row["bytes"]) == ("packets", "packets", sum(len(bytes(p)) for p in packets))
    assert set(from_packets.closes["source"]) <= {"packets"}


def talk_with_a_cut_close(**more):
    talk = Conversation(**more).upgrade()
    talk.text(SERVER, "x" * 400)
    talk.close(SERVER, 1011, "bye", captured=3)
    talk.close(CLIENT, 1011, "bye")
    talk.end()
    return talk


def test_what_the_snaplen_cut_is_known_to_be_missing(tmp_path):
    path = talk_with_a_cut_close().write(tmp_path / "x.pcap")
    with PcapReader(str(path)) as packets:
        from_packets = analyzer.read_packets(packets)
    assert rows_of(from_packets) == rows_of(analyzer.read(path))
    closes = from_packets.closes.set_index("endpoint")
    assert closes.loc["client", "evidence"] == "cut_close"


def test_an_edited_packet_has_the_length_that_it_has_now(tmp_path):
    """Its wire length is that of the packet it was; what was captured whole stays whole."""
    talk = Conversation().upgrade()
    talk.text(SERVER, "x" * 400)
    talk.close(SERVER, 1011, "bye")
    talk.close(CLIENT, 1011, "bye")
    talk.end()
    packets = rdpcap(str(talk.write(tmp_path / "x.pcap")))
    shorter = packets[6]
    assert shorter[Raw].load == close(1011, "bye")
    shorter[Raw].load = close(1011)
    del shorter[IP].len
    packets[7][TCP].ack -= 3
    for packet in packets[8:]:
        if packet.sport == 80:
            packet[TCP].seq -= 3
        else:
            packet[TCP].ack -= 3
    (connection,) = analyzer.read_packets(packets).connections.to_dict("records")
    assert (connection["server_close_code"], connection["server_close_reason"]) == (1011, "")
    assert connection["server_gap_bytes"] == 0
    assert connection["end"] == "fin"
    (chunk,) = PacketReader(packets).chunks()
    assert chunk.packets["wire_bytes"].tolist() == [len(bytes(packet)) for packet in packets]


def test_times_are_exact_to_the_nanosecond(tmp_path):
    talk = Conversation(ts_ns=1_700_000_000_123_456_789, step_ns=1).upgrade()
    talk.close(SERVER, 1000)
    path = tmp_path / "x.pcap"
    path.write_bytes(talk.pcap(nanoseconds=True))
    with PcapReader(str(path)) as packets:
        found = analyzer.read_packets(packets)
    (client,) = found.closes[found.closes["endpoint"] == "client"].to_dict("records")
    assert client["time"].value == talk.packets[-1].ts_ns
    assert found.inputs["first"][0].value == talk.packets[0].ts_ns


@pytest.mark.parametrize(
    ("instant", "ns"),
    [
        (EDecimal("1700000000.123456789"), 1_700_000_000_123_456_789),
        (decimal.Decimal("9223372035.999999999"), None),
        (decimal.Decimal("9223372034.999999999"), 9_223_372_034_999_999_999),
        (1700000000.1234567, 1_700_000_000_123_456_700),
        (1700000000, 1_700_000_000_000_000_000),
        (0, 0),
        (-1, None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
        (EDecimal("NaN"), None),
        ("yesterday", None),
        (object(), None),
    ],
)
def test_instants(instant, ns):
    assert to_ns(instant) == ns


def test_a_packet_without_time_has_that_of_the_one_before_it():
    packets = [Ether() / IP() / TCP() for _ in range(3)]
    packets[0].time, packets[1].time, packets[2].time = EDecimal("5.000000001"), None, 7
    (chunk,) = PacketReader(packets).chunks()
    assert chunk.packets["ts_ns"].tolist() == [5_000_000_001, 5_000_000_001, 7_000_000_000]


LINKS = [
    Ether() / IP() / TCP(),
    Ether() / Dot1Q() / IPv6() / TCP(),
    IP() / TCP(),
    IPv6() / TCP(),
    CookedLinux() / IP() / TCP(),
    CookedLinuxV2() / IP() / TCP(),
    Loopback() / IP() / TCP(),
]


@pytest.mark.parametrize("packet", LINKS, ids=lambda packet: packet.summary())
def test_link_types_are_those_that_scapy_writes_into_files(packet, tmp_path):
    path = tmp_path / "x.pcap"
    wrpcap(str(path), [packet])
    (written,) = struct.unpack_from("<I", path.read_bytes(), 20)
    assert link_type_of(type(packet)) == written
    (row,) = analyzer.read_packets([packet]).inputs.to_dict("records")
    assert (row["records"], row["flows"], row["skipped_link_type"]) == (1, 1, 0)


def test_packets_of_mixed_link_types_are_one_conversation():
    talk = Conversation().upgrade()
    talk.close(SERVER, 1001, "bye")
    talk.close(CLIENT, 1001, "bye")
    talk.end()
    packets = []
    wraps = (lambda ip: ip, lambda ip: Ether() / ip, lambda ip: CookedLinux() / ip, lambda ip: Loopback(type=2) / ip)
    for sent, wrap in zip(talk.packets, itertools.cycle(wraps)):
        packet = wrap(Ether(sent.data).payload)
        packet.time = EDecimal(sent.ts_ns).scaleb(-9)
        packets.append(packet)
    for given in (packets, PacketList(packets), tuple(packets), iter(packets), (one for one in packets)):
        found = analyzer.read_packets(given)
        assert list(found.closes["code"]) == [1001, 1001]
        assert found.inputs["skipped_link_type"][0] == 0
    assert analyzer.read_packets(packets).connections["opened"][0].value == talk.packets[4].ts_ns


def test_ports_are_asserted_as_for_files():
    talk = Conversation(dport=9999)
    talk.text(SERVER, "unmasked frames alone are not enough to be recognised")
    talk.close(SERVER, 4000)
    talk.end()
    packets = [Ether(sent.data) for sent in talk.packets]
    assert len(analyzer.read_packets(packets).connections) == 0
    assert analyzer.read_packets(packets, ports=(9999,)).closes["code"][0] == 4000


def test_a_generator_is_read_no_further_than_a_chunk_ahead():
    taken = itertools.count()

    def endless():
        while True:
            next(taken)
            yield Ether() / IP() / UDP()

    chunks = PacketReader(endless()).chunks()
    first, second = next(chunks), next(chunks)
    assert (len(first.packets), first.first_packet, second.first_packet) == (CHUNK_PACKETS, 1, CHUNK_PACKETS + 1)
    assert next(taken) == 2 * CHUNK_PACKETS
    large = PacketReader(Ether() / IP() / UDP() / Raw(b"x" * 60_000) for _ in itertools.count())
    assert len(next(large.chunks()).packets) < 20


def test_kernels_are_compiled_once_for_files_packets_and_interfaces():
    """Numba would compile anew, for a minute, for an array that differs in so much as its alignment."""
    pytest.importorskip("numba")
    path = str(SAMPLES / "normal-1000.pcap")
    script = (
        "import analyzer, scapy.all\nfrom analyzer import kernel\nfrom analyzer.capture import scapy_io, tracker\n"
        "def count():\n    return {place: len(f.kinds) for place, f in kernel._compiled.items()}\n"
        f"kernel.compile_all()\nanalyzer.read({path!r})\nbefore = count()\n"
        f"analyzer.read_packets(scapy.all.rdpcap({path!r}))\n"
        "tracker.Tracker().feed(scapy_io.PacketReader([])._take(10**18))\n"
        "print({place: n for place, n in count().items() if n > before[place]})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{}"


class Broken(Packet):
    """A layer of a user that cannot be built."""

    name = "Broken"
    fields_desc = []  # noqa: RUF012

    def post_build(self, pkt, pay):
        raise RuntimeError("such is life")


def test_what_cannot_be_built_or_carries_no_link_layer_is_counted():
    packets = [Ether() / Broken(), Raw(b"abc"), Ether() / ARP(), IP() / TCP()]
    found = analyzer.read_packets(packets)
    (row,) = found.inputs.to_dict("records")
    skipped = {name: n for name, n in row.items() if name.startswith("skipped_") and n}
    assert skipped == {"skipped_cut_header": 1, "skipped_link_type": 1, "skipped_not_ip": 1}
    assert (row["records"], row["flows"], row["status"]) == (4, 1, "ok")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("trace.pcap", "read_packets takes scapy packets, not str; analyzer.read takes files"),
        (b"abc", "read_packets takes scapy packets, not bytes; analyzer.read takes files"),
        (None, "read_packets takes scapy packets, not NoneType; analyzer.read takes files"),
        ([b"abc"], "packet 1 is no scapy packet but bytes"),
        ([Ether() / IP() / TCP(), None], "packet 2 is no scapy packet but NoneType"),
    ],
)
def test_what_is_no_packet_is_said(given, message):
    with pytest.raises(analyzer.UsageError) as error:
        analyzer.read_packets(given)
    assert str(error.value) == message


def test_no_packets_are_an_empty_analysis():
    found = analyzer.read_packets([])
    assert (len(found.closes), len(found.connections), len(found.inputs)) == (0, 0, 1)
    assert found.inputs["records"][0] == 0
    assert analyzer.read_packets(IP() / TCP()).inputs["records"][0] == 1


def test_a_connection_tells_its_story_but_was_not_kept(tmp_path):
    talk = Conversation().upgrade()
    talk.segment(SERVER, close(1001, "bye"))
    talk.segment(CLIENT, close(1001, "bye", mask=MASK))
    talk.end()
    connection = analyzer.read_packets([Ether(sent.data) for sent in talk.packets]).connection()
    assert "1001" in str(connection)
    for ask in (lambda: connection.life, lambda: connection.extract(tmp_path / "x.pcapng")):
        with pytest.raises(analyzer.UsageError, match="these packets were not kept"):
            ask()


def test_the_report_of_packets_is_that_of_the_file(tmp_path):
    talk = talk_with_a_cut_close()
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(talk.packets))
    document = analyzer.read_packets(rdpcap(str(path))).report().to_dict()
    wanted = analyzer.read(path).report().to_dict()
    for block in ("frequencies", "undetermined", "established"):
        assert document[block] == wanted[block]
    assert len(gather(stream(path))[0]) == 2
