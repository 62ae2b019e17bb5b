"""One connection's packets in a file of their own: byte by byte and nanosecond by nanosecond what was captured."""

import bz2
import gzip
import io
import os
import struct
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import SAMPLES
from packets import CLIENT, FIN, REQUEST, RST, SERVER, Conversation, Packet, ethernet, pcap, response
from scapy.utils import RawPcapNgReader, RawPcapReader

import analyzer
from analyzer import cli
from analyzer.capture.extract import locate
from analyzer.capture.writer import PcapngWriter
from analyzer.series import Member
from analyzer.sources import Source

ROOT = SAMPLES.parent


def wsclose(*arguments, data=None):
    command = [sys.executable, "-m", "analyzer", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, input=data, capture_output=True, env=environment, timeout=60)


def records_of(path):
    """(link type, nanoseconds, bytes, wire length) of each packet, as scapy reads them."""
    found = []
    if path.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a":
        with RawPcapNgReader(str(path)) as reader:
            for data, about in reader:
                ticks = about.tshigh << 32 | about.tslow
                found.append((about.linktype, ticks * 10**9 // about.tsresol, data, about.wirelen))
        return found
    with RawPcapReader(str(path)) as reader:
        for data, about in reader:
            ns = about.sec * 10**9 + about.usec * (1 if reader.nano else 1000)
            found.append((reader.linktype, ns, data, about.wirelen))
    return found


def rows_of(path):
    """Everything that tells of connections, but for where it stands."""
    found = analyzer.read(path)
    return [
        frame[[name for name in frame if not name.endswith(("source", "record"))]].astype(str).to_dict("records")
        for frame in (found.closes, found.connections)
    ]


def talks():
    """Three conversations whose packets alternate."""
    found = []
    for i, port in enumerate((40001, 40002, 40003)):
        talk = Conversation(sport=port, ts_ns=1_700_000_000_123_456_000 + 100 * i, step_ns=1_000_001).upgrade()
        talk.text(CLIENT, f"I am {i}")
        talk.close(SERVER, 1000 + i, f"bye {i}")
        talk.close(CLIENT, 1000 + i)
        talk.end()
        found.append(talk)
    return found


def interleaved(found):
    return sorted((packet for talk in found for packet in talk.packets), key=lambda packet: packet.ts_ns)


@pytest.fixture
def three(tmp_path):
    path = tmp_path / "three.pcap"
    path.write_bytes(pcap(interleaved(talks()), nanoseconds=True))
    return path


def as_records(packets, link_type=1):
    return [(link_type, packet.ts_ns, packet.data, packet.wire_bytes or len(packet.data)) for packet in packets]


@pytest.mark.parametrize("which", range(3))
def test_packets_are_those_of_the_connection_and_no_others(three, tmp_path, which):
    talk = talks()[which]
    out = tmp_path / "one.pcapng"
    keys = list(analyzer.read(three).connections["connection"])
    (key,) = [key for key in keys if f":4000{which + 1}-" in key]
    done = wsclose("extract", key, three, "-o", out)
    n = len(talk.packets)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == f"wsclose: wrote {out}: {n} packets of {key}\n"
    assert records_of(out) == as_records(talk.packets)
    whole = [[row for row in rows if row["connection"] == key] for rows in rows_of(three)]
    assert rows_of(out) == whole


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.pcap*")), ids=lambda path: path.name)
def test_samples_come_out_whole(path, tmp_path):
    """Each sample holds the packets of its own conversations alone, so nothing may be missing or changed."""
    found = analyzer.read(path)
    taken = []
    for i, key in enumerate(found.connections["connection"]):
        out = tmp_path / f"{i}.pcapng"
        assert found.connection(key).extract(out) == len(records_of(out))
        records = records_of(out)
        assert records == sorted(records, key=lambda record: record[1])
        (closes, connections) = rows_of(out)
        whole = [[row for row in rows if row["connection"] == key] for rows in rows_of(path)]
        mine = [[row for row in rows if row["connection"] == key] for rows in (closes, connections)]
        assert mine == whole
        taken += records
    assert set(taken) <= set(records_of(path))


def test_packed_files_and_directories(three, tmp_path):
    wanted = as_records(talks()[1].packets)
    (full,) = [k for k in analyzer.read(three).connections["connection"] if ":40002-" in k]
    folder = tmp_path / "captures"
    folder.mkdir()
    for pack, name in ((gzip.compress, "x.pcap.gz"), (bz2.compress, "x.pcap.bz2")):
        path = folder / name
        path.write_bytes(pack(three.read_bytes()))
        out = tmp_path / "one.pcapng"
        for given in (path, folder):
            assert wsclose("extract", full, given, "-o", out, "-q").stderr == b""
            assert records_of(out) == wanted
        path.unlink()


def test_the_flow_ends_before_the_ports_are_used_again(tmp_path):
    first = Conversation().upgrade()
    first.close(SERVER, 1001)
    first.close(CLIENT, 1001)
    first.end()
    last_of_first = first.packets[-1]
    second = Conversation(isn={CLIENT: 900_000, SERVER: 800_000}, ts_ns=first.ts_ns + 60 * 10**9).upgrade()
    second.close(SERVER, 1012)
    second.rst(CLIENT)
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(first.packets + second.packets))
    found = analyzer.read(path)
    outs = []
    for key, talk in zip(found.connections["connection"], (first, second), strict=True):
        out = tmp_path / f"{len(outs)}.pcapng"
        assert found.connection(key).extract(out) == len(talk.packets)
        assert records_of(out) == as_records(talk.packets)
        outs.append(out)
    assert records_of(outs[0])[-1][2] == last_of_first.data


def test_all_attempts_on_one_tcp_connection_come_out_together(tmp_path):
    talk = Conversation().open()
    no = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    talk.segment(CLIENT, REQUEST)
    talk.segment(SERVER, no)
    talk.segment(CLIENT, REQUEST)
    talk.segment(SERVER, response())
    talk.close(SERVER, 1000)
    talk.close(CLIENT, 1000)
    talk.end()
    path = talk.write(tmp_path / "x.pcap")
    found = analyzer.read(path)
    first, second = found.connections["connection"]
    assert second == f"{first}-2"
    for key in (first, second):
        out = tmp_path / "one.pcapng"
        assert found.connection(key).row["connection"] == key
        assert found.connection(key).extract(out) == len(talk.packets)
        assert rows_of(out) == rows_of(path)
    with pytest.raises(analyzer.UsageError, match="2 connections begin with 2023"):
        found.connection("2023")


def test_what_the_snaplen_cut_stays_cut(tmp_path):
    talk = Conversation().upgrade()
    talk.text(SERVER, "x" * 400, captured=20)
    talk.end()
    path = talk.write(tmp_path / "x.pcap")
    out = tmp_path / "one.pcapng"
    analyzer.read(path).connection().extract(out)
    assert records_of(out) == as_records(talk.packets)
    assert any(len(data) < wire for _, _, data, wire in records_of(out))


def pcapng(sections):
    """A pcapng file: each section a list of interfaces (link type, name or None) and packets (interface, Packet)."""
    out = b""

    def block(kind, body):
        size = struct.pack("<I", 12 + len(body))
        return struct.pack("<I", kind) + size + body + size

    def padded(data):
        return data + bytes(-len(data) % 4)

    for interfaces, packets in sections:
        out += block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        for link_type, name in interfaces:
            options = b"" if name is None else struct.pack("<HH", 2, len(name)) + padded(name)
            options += struct.pack("<HHBxxx", 9, 1, 9) + bytes(4)
            out += block(1, struct.pack("<HHI", link_type, 0, 0) + options)
        for at, packet in packets:
            head = struct.pack("<III", at, packet.ts_ns >> 32, packet.ts_ns & 0xFFFFFFFF)
            out += block(6, head + struct.pack("<II", len(packet.data), len(packet.data)) + padded(packet.data))
    return out


@pytest.fixture
def two_interfaces(tmp_path):
    """One direction on each interface, of different link types, the second half of it in another section."""
    (talk, *_) = talks()
    first, second = [], []
    for i, packet in enumerate(talk.packets):
        is_client = packet.data[26:30] == bytes((10, 0, 0, 1))
        bare = Packet(packet.ts_ns, packet.data if is_client else packet.data[14:])
        (first if i < 6 else second).append((0 if is_client == (i < 6) else 1, bare))
    path = tmp_path / "two.pcapng"
    path.write_bytes(pcapng([([(1, None), (101, b"right")], first), ([(101, None), (1, b"left")], second)]))
    return (
        path,
        [packet for _, packet in first + second],
        [1 if p.data[12:14] == b"\x08\0" else 101 for _, p in first + second],
    )


def test_interfaces_keep_link_type_and_name(two_interfaces, tmp_path):
    path, packets, link_types = two_interfaces
    out = tmp_path / "one.pcapng"
    analyzer.read(path).connection().extract(out)
    wanted = [(kind, p.ts_ns, p.data, len(p.data)) for kind, p in zip(link_types, packets, strict=True)]
    assert {1, 101} == {kind for kind, *_ in wanted[:6]} == {kind for kind, *_ in wanted[6:]}
    assert records_of(out) == wanted
    assert rows_of(out) == rows_of(path)


@pytest.mark.needs_tshark
def test_tshark_reads_what_is_written(two_interfaces, tshark, tmp_path):
    path, packets, link_types = two_interfaces
    out = tmp_path / "one.pcapng"
    analyzer.read(path).connection().extract(out)
    names = ("frame.time_epoch", "frame.interface_name", "frame.encap_type", "frame.len", "websocket.opcode")
    tables = []
    for file in (path, out):
        command = [tshark, "-n", "-r", str(file), "-T", "fields"] + [part for name in names for part in ("-e", name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        tables.append([line.split("\t") for line in done.stdout.splitlines()])
        assert "malformed" not in done.stderr.lower()
    before, after = tables
    # tshark 4.0 gives packets of a second section the interface names of the first
    assert [row[:1] + row[2:] for row in after] == [row[:1] + row[2:] for row in before]
    assert {row[1] for row, kind in zip(after[:6], link_types, strict=False) if kind == 101} == {"right"}
    assert {row[1] for row, kind in zip(after[6:], link_types[6:], strict=True) if kind == 1} == {"left"}
    times = [f"{packet.ts_ns // 10**9}.{packet.ts_ns % 10**9:09}" for packet in packets]
    assert [row[0] for row in after] == times


@pytest.mark.needs_tshark
def test_editcap_and_capinfos_take_it(three, tshark, tmp_path):
    out, copy = tmp_path / "one.pcapng", tmp_path / "copy.pcap"
    (key,) = [k for k in analyzer.read(three).connections["connection"] if ":40001-" in k]
    wsclose("extract", key, three, "-o", out)
    for command in (["editcap", "-F", "nsecpcap", str(out), str(copy)], ["capinfos", "-c", "-M", str(out)]):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == str(len(talks()[0].packets))
    assert records_of(copy) == as_records(talks()[0].packets)


def test_standard_output_takes_it(three):
    (key,) = [k for k in analyzer.read(three).connections["connection"] if ":40002-" in k]
    done = wsclose("extract", key, three)
    assert (done.returncode, done.stdout[:4]) == (0, b"\x0a\x0d\x0d\x0a")
    assert done.stderr.decode().startswith("wsclose: wrote standard output: ")
    again = wsclose("closes", "-", "--format", "csv", data=done.stdout)
    assert [line.split(",")[5] for line in again.stdout.decode().splitlines()[1:]] == ["1001", "1001"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2031", "{three}", "-o", "{out}"], "no connection begins with 2031"),
        (["20231114", "{three}", "-o", "{out}"], "3 connections begin with 20231114: name one of 20231114T"),
        (["2023", "{three}", "-o", "{three}"], "{three}: what is written is pcapng; name it .pcapng"),
        (["2023", "{ng}", "-o", "{ng}"], "{ng}: this is an input; write to another file"),
        (["2023", "-", "-o", "{out}"], "-: can be read only once, and this reads twice: save"),
        (["2023", "{three}", "-o", "{out}.pcap"], "{out}.pcap: what is written is pcapng; name it .pcapng"),
        (["2023", "missing.pcap", "-o", "{out}"], "missing.pcap: no such file or directory"),
        (["{full}", "{three}", "-o", "/nonexistent/x.pcapng"], "/nonexistent/x.pcapng: no such file or directory"),
    ],
)
def test_errors_are_one_line_exit_2_and_write_nothing(three, tmp_path, arguments, message):
    ng = tmp_path / "three.pcapng"
    ng.write_bytes(pcapng([([(1, None)], [(0, packet) for packet in interleaved(talks())])]))
    before = ng.read_bytes(), three.read_bytes()
    names = {"three": three, "out": tmp_path / "out.pcapng", "ng": ng}
    names["full"] = analyzer.read(three).connections["connection"][0]
    done = wsclose("extract", *[argument.format(**names) for argument in arguments])
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("wsclose: " + message.format(**names)), line
    assert (ng.read_bytes(), three.read_bytes()) == before
    assert not names["out"].exists()


def test_in_python_an_input_is_not_written_over(tmp_path):
    path = talks()[0].write(tmp_path / "x.pcap")
    content = path.read_bytes()
    link = tmp_path / "link.pcapng"
    link.symlink_to(path)
    with pytest.raises(analyzer.UsageError, match="this is the capture itself"):
        analyzer.read(path).connection().extract(link)
    assert path.read_bytes() == content


def test_what_changed_meanwhile_is_said(tmp_path):
    path = talks()[0].write(tmp_path / "x.pcap")
    connection = analyzer.read(path).connection()
    talks()[1].write(path)
    out = tmp_path / "out.pcapng"
    with pytest.raises(analyzer.UsageError, match=r"x.pcap: does not hold 2023\S+ any more"):
        connection.extract(out)
    path.unlink()
    with pytest.raises(analyzer.CaptureError, match="no such file"):
        connection.extract(out)
    assert not out.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="takes named pipes")
def test_a_named_pipe_is_refused_rather_than_waited_for(three, tmp_path):
    row = analyzer.read(three).connection(analyzer.read(three).connections["connection"][0]).row
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(analyzer.UsageError, match=r"pipe: can be read only once"):
        locate([Member(Source(str(pipe), pipe))], row)


def test_damage_ends_the_copy_and_exits_4(tmp_path):
    (talk, other, _) = talks()
    path = tmp_path / "x.pcap"
    content = pcap(talk.packets, nanoseconds=True)
    path.write_bytes(content + b"\xff" * 200 + pcap(other.packets)[24:])
    out = tmp_path / "out.pcapng"
    done = wsclose("extract", "2023", path, "-o", out)
    assert done.returncode == 4
    assert records_of(out) == as_records(talk.packets)


def test_a_connection_that_spans_files_is_gathered_from_all_of_them(tmp_path):
    """As rotation leaves it: the files in their order, what lies before and behind it in others."""
    everything = interleaved(talks())
    whole = tmp_path / "whole.pcap"
    whole.write_bytes(pcap(everything, nanoseconds=True))
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(0, len(everything), 5):
        (folder / f"part{i:03}.pcap").write_bytes(pcap(everything[i : i + 5], nanoseconds=True))
    assert len(list(folder.iterdir())) > 4
    out = tmp_path / "out.pcapng"
    for talk in talks():
        key = next(k for k in analyzer.read(whole).connections["connection"] if f":{talk.sport}-" in k)
        assert wsclose("extract", key, folder, "-o", out).returncode == 0
        assert records_of(out) == as_records(talk.packets)
        assert analyzer.read(folder).connection(key).extract(out) == len(talk.packets)


def test_packets_that_come_out_of_order_keep_their_order(tmp_path):
    """Two interfaces of one file are often not in step: a packet may stand behind a later one."""
    (talk, *_) = talks()
    packets = list(talk.packets)
    packets[5], packets[6] = packets[6], packets[5]
    packets[-1], packets[-2] = packets[-2], packets[-1]
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(packets, nanoseconds=True))
    out = tmp_path / "out.pcapng"
    analyzer.read(path).connection().extract(out)
    assert records_of(out) == as_records(packets)


def test_other_traffic_between_the_same_hosts_is_left_out(tmp_path):
    (talk, *_) = talks()
    other = Conversation(sport=40001, dport=81, ts_ns=talk.packets[0].ts_ns + 7, step_ns=1_000_003).upgrade()
    back = Conversation(client="10.0.0.2", server="10.0.0.1", sport=40001, dport=80, ts_ns=talk.packets[0].ts_ns + 9)
    back.open().segment(CLIENT, flags=RST | FIN)
    arp = [Packet(talk.packets[3].ts_ns + 1, ethernet(b"\0\1\x08\0" + bytes(24), 0x0806))]
    path = tmp_path / "x.pcap"
    everything = sorted(talk.packets + other.packets + back.packets + arp, key=lambda packet: packet.ts_ns)
    path.write_bytes(pcap(everything, nanoseconds=True))
    key = next(k for k in analyzer.read(path).connections["connection"] if k.endswith(":40001-10.0.0.2:80"))
    out = tmp_path / "out.pcapng"
    analyzer.read(path).connection(key).extract(out)
    assert records_of(out) == as_records(talk.packets)


def test_the_largest_values_fit():
    out = io.BytesIO()
    writer = PcapngWriter(out)
    at = writer.add_interface(0xFFFF, "x" * 70_000)
    writer.write(at, 2**63 - 1, b"abc", 2**32 - 1)
    content = out.getvalue()
    assert struct.pack("<IIIII", 0, 0x7FFFFFFF, 0xFFFFFFFF, 3, 0xFFFFFFFF) + b"abc\0" in content
    assert len(content) % 4 == 0


def test_help_shows_how():
    done = CliRunner().invoke(cli.cli, ["extract", "--help"])
    assert "wsclose extract 20261121T150159 trace.pcap -o one.pcapng" in done.output
