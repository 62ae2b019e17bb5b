"""Rotated captures: joined where they continue one another, and nowhere else; rows equal those of the whole."""

import bz2
import gzip
import itertools
import lzma
import os
import random
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import SAMPLES, options_of
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import CLIENT, SERVER, Conversation, Packet, pcap, pcapng
from reading import gather

import analyzer
from analyzer import series
from analyzer.capture.life import read_life
from analyzer.sources import Source, find_sources

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECOND = 1_000_000_000
PLACES = ("source", "record", *(f"{side}_close_{name}" for side in (CLIENT, SERVER) for name in ("source", "record")))


# captures by hand


def nanoseconds(packets: list[Packet], **more) -> bytes:
    return pcap(packets, nanoseconds=True, **more)


def many(n: int = 60, *, seed: int = 1) -> list[Packet]:
    """Connections that overlap in time and end in every way, in the order of their times."""
    chance = random.Random(seed)
    packets = []
    for i in range(n):
        talk = Conversation(sport=20_000 + i, ts_ns=1_700_000_000 * SECOND + chance.randrange(20 * SECOND))
        talk.step_ns = chance.randrange(1_000_000, 900_000_000)
        talk.upgrade()
        for _ in range(chance.randrange(12)):
            talk.text(chance.choice((CLIENT, SERVER)), "x" * chance.randrange(1, 300))
        how = i % 6
        if how < 3:
            first, second = (CLIENT, SERVER) if how else (SERVER, CLIENT)
            talk.close(first, 1000 + how, "bye")
            talk.close(second, 1000 + how)
            talk.end()
        elif how == 3:
            talk.rst(SERVER)
        elif how == 4:
            talk.close(CLIENT)
            talk.end(CLIENT)
        packets += talk.packets
    return sorted(packets, key=lambda packet: packet.ts_ns)


def cut(packets: list[Packet], n: int) -> list[list[Packet]]:
    """So many parts of about equal size, none of them empty."""
    n = min(n, len(packets))
    edges = [len(packets) * i // n for i in range(n + 1)]
    return [packets[a:b] for a, b in itertools.pairwise(edges)]


def parse_pcap(content: bytes) -> list[Packet]:
    """The packets of a little-endian pcap file in microseconds or nanoseconds."""
    unit = 1 if content[:4] == b"\x4d\x3c\xb2\xa1" else 1000
    assert content[:4] in (b"\x4d\x3c\xb2\xa1", b"\xd4\xc3\xb2\xa1")
    packets, off = [], 24
    while off < len(content):
        seconds, rest, captured, wire = struct.unpack_from("<IIII", content, off)
        packets.append(Packet(seconds * SECOND + rest * unit, content[off + 16 : off + 16 + captured], wire))
        off += 16 + captured
    return packets


# names as the programs give them (tcpdump(1): -C, -G, -W, -z; dumpcap(1): -b)


def by_size(n):
    """tcpdump -C."""
    return ["x.pcap" + (str(i) if i else "") for i in range(n)]


def ring(n):
    """tcpdump -C -W, full once: the oldest file stands in the middle."""
    names = [f"x.pcap{i:02}" for i in range(n)]
    return names[n // 3 :] + names[: n // 3]


def by_time(n):
    """tcpdump -G 60 -w x-%Y-%m-%d_%H:%M.pcap, over midnight."""
    minutes = [23 * 60 + 30 + i for i in range(n)]
    return [f"x-2023-11-{14 + m // 1440}_{m // 60 % 24:02}:{m % 60:02}.pcap" for m in minutes]


def by_both(n):
    """tcpdump -C -G."""
    return [f"x-2023111422{i // 4:02}.pcap" + (str(i % 4) if i % 4 else "") for i in range(n)]


def by_dumpcap(n):
    return [f"x_{i + 1:05}_2023111422{13 + i // 60:02}{i % 60:02}.pcapng" for i in range(n)]


def by_dumpcap_later(n):
    """dumpcap -b nametimenum:2, beginning again at the ring's number."""
    return [f"eth0_2023111422{13 + i // 60:02}{i % 60:02}_{i + 99_980:05}.pcapng" for i in range(n)]


NAMINGS = (by_size, ring, by_time, by_both, by_dumpcap, by_dumpcap_later)


def plain(name, content):
    return name, content


def two_members(name, content):
    half = len(content) // 2
    return f"{name}.gz", gzip.compress(content[:half]) + gzip.compress(content[half:])


PACKINGS = {
    "plain": plain,
    "gzip": lambda name, content: (f"{name}.gz", gzip.compress(content)),
    "two gzip members": two_members,
    "zstd": lambda name, content: (f"{name}.zst", zstd.compress(content)),
    "xz": lambda name, content: (f"{name}.xz", lzma.compress(content)),
    "bzip2": lambda name, content: (f"{name}.bz2", bz2.compress(content)),
}


@dataclass
class Written:
    """Files of a series with what each holds, and the whole beside them."""

    files: list[Path]
    parts: list[list[Packet]]
    whole: Path

    def places(self):
        """(file, number in it) of every packet of the whole, which is numbered from 1."""
        found = {}
        for file, part in zip(self.files, self.parts, strict=True):
            for number in range(1, len(part) + 1):
                found[len(found) + 1] = (str(file), number)
        return found


def write(folder, packets, names, *, make=nanoseconds, pack=plain, parts=None):
    parts = cut(packets, len(names)) if parts is None else parts
    (folder / "series").mkdir(exist_ok=True)
    files = []
    moments = random.Random(7).sample(range(1_000_000_000, 1_100_000_000), len(parts))
    for name, part, moment in zip(names, parts, moments, strict=False):
        name, content = pack(name, make(part))
        files.append(folder / "series" / name)
        files[-1].write_bytes(content)
        os.utime(files[-1], (moment, moment))  # says nothing
    whole = folder / "whole"
    whole.write_bytes(make([packet for part in parts for packet in part]))
    return Written(files, parts, whole)


def same_but_places(row):
    return {name: value for name, value in row.items() if name not in PLACES}


def keys(rows):
    return sorted(rows, key=lambda row: (row["connection"], row.get("endpoint", "")))


def assert_equal(joined, whole, written):
    """Rows of a series are those of the whole, each place in it a place in one of the files."""
    places = written.places()
    for mine, theirs in zip(joined[:2], whole[:2], strict=True):
        assert len(mine) == len(theirs) > 0
        for row, other in zip(keys(mine), keys(theirs), strict=True):
            assert same_but_places(row) == same_but_places(other)
            for name in PLACES:
                if name.endswith("record") and name in row:
                    where = name.replace("record", "source")
                    if other[name] is None:
                        assert row[name] is None
                    else:
                        assert (row[where], row[name]) == places[other[name]]
    n_packets = [row["records"] for row in joined[2]]
    assert sum(n_packets) == whole[2][0]["records"]
    for name in ("flows", "connections", *(column for column in joined[2][0] if column.startswith("skipped_"))):
        assert sum(row[name] or 0 for row in joined[2]) == (whole[2][0][name] or 0), name
    assert {row["source"]: row["records"] for row in joined[2]} == {
        str(file): len(part) for file, part in zip(written.files, written.parts, strict=True)
    }


@pytest.fixture(scope="module")
def traffic():
    return many()


@pytest.mark.parametrize("naming", NAMINGS, ids=lambda naming: naming.__name__)
def test_a_series_of_fifty_gives_the_rows_of_the_whole(naming, tmp_path, read_rows, traffic):
    make = pcapng if "dumpcap" in naming.__name__ else nanoseconds
    written = write(tmp_path, traffic, naming(50), make=make)
    whole = read_rows(written.whole)
    assert len(whole[1]) == 60
    joined = read_rows(tmp_path / "series")
    assert_equal(joined, whole, written)
    assert [row["source"] for row in joined[2]] == [str(file) for file in written.files]
    began = {}
    for file, part in zip(written.files, written.parts, strict=True):
        for packet in part:
            began.setdefault(max(struct.unpack_from("!HH", packet.data, 34)), str(file))  # the client's port
    assert {row["source"] for row in joined[1]} == {*began.values()}
    assert all(row["source"] == began[int(row["client"].rpartition(":")[2])] for row in joined[1])


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_series(packing, tmp_path, read_rows, traffic):
    written = write(tmp_path, traffic, by_size(50), pack=PACKINGS[packing])
    assert_equal(read_rows(tmp_path / "series"), read_rows(written.whole), written)


def test_the_file_that_is_being_written_is_not_packed_yet(tmp_path, read_rows, traffic):
    written = write(tmp_path, traffic, by_size(20), pack=PACKINGS["gzip"])
    last = written.files[-1]
    last.with_suffix("").write_bytes(gzip.decompress(last.read_bytes()))
    last.unlink()
    written.files[-1] = last.with_suffix("")
    assert_equal(read_rows(tmp_path / "series"), read_rows(written.whole), written)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.pcap")), ids=lambda path: path.stem)
def test_samples_in_fifty_parts(sample, tmp_path, read_rows):
    packets = parse_pcap(sample.read_bytes())
    options = options_of(sample)
    link_type = int.from_bytes(sample.read_bytes()[20:24], "little") & 0x03FFFFFF
    make = lambda part: pcap(part, link_type=link_type)  # noqa: E731
    written = write(tmp_path, packets, by_size(50), make=make)
    written.files = written.files[: len(written.parts)]
    assert_equal(read_rows(tmp_path / "series", **options), read_rows(written.whole, **options), written)


def test_what_gzip_is_making_of_a_file_stands_beside_the_series(tmp_path, read_rows, traffic):
    written = write(tmp_path, traffic, by_size(10))
    copy = tmp_path / "series" / "x.pcap4.gz"
    copy.write_bytes(gzip.compress(written.files[4].read_bytes())[:-40])
    joined = read_rows(tmp_path / "series")
    mine = [[row for row in rows if row["source"] != str(copy)] for rows in joined]
    assert_equal(mine, read_rows(written.whole), written)


def test_a_directory_a_pattern_and_a_list_are_the_same(tmp_path, read_rows, traffic, monkeypatch):
    written = write(tmp_path, traffic, by_size(12))
    shuffled = random.Random(3).sample(written.files, len(written.files))
    whole = read_rows(written.whole)
    for paths in ([tmp_path / "series"], [f"{tmp_path}/series/x*"], shuffled, [*shuffled, tmp_path / "series"]):
        assert_equal(read_rows(*paths), whole, written)
    monkeypatch.chdir(tmp_path / "series")
    joined = read_rows(*(path.name if i % 2 else path for i, path in enumerate(shuffled)))
    assert [len(rows) for rows in joined] == [len(whole[0]), len(whole[1]), 12]


def test_order_is_by_time_not_by_name(tmp_path, read_rows, traffic):
    names = random.Random(5).sample([f"x{i}.pcap" for i in range(30)], 30)
    written = write(tmp_path, traffic, names)
    assert_equal(read_rows(tmp_path / "series"), read_rows(written.whole), written)


def test_packets_of_two_interfaces_may_be_mixed_at_a_boundary(tmp_path, read_rows, traffic):
    packets = list(traffic)
    edges = [len(packets) * i // 10 for i in range(1, 10)]
    for at in edges:
        if packets[at + 1].ts_ns - packets[at - 1].ts_ns < series.MAX_OVERLAP_NS:
            packets[at - 1], packets[at + 1] = packets[at + 1], packets[at - 1]
    assert sum(packets[at].ts_ns < packets[at - 1].ts_ns for at in edges) > 4
    written = write(tmp_path, packets, by_size(10))
    assert_equal(read_rows(tmp_path / "series"), read_rows(written.whole), written)


@settings(max_examples=15)
@given(st.data())
def test_any_cut_gives_the_rows_of_the_whole(tmp_path_factory, traffic, data):
    """Also into files of one packet, of none, and of ten thousand times others' size."""
    folder = tmp_path_factory.mktemp("cut")
    edges = sorted(data.draw(st.lists(st.integers(0, len(traffic)), max_size=60)))
    parts = [traffic[a:b] for a, b in itertools.pairwise([0, *edges, len(traffic)])]
    naming = data.draw(st.sampled_from(NAMINGS))
    make = data.draw(st.sampled_from([nanoseconds, pcapng]))
    written = write(folder, traffic, naming(len(parts)), make=make, parts=parts)
    assert_equal(gather(analyzer.stream(folder / "series")), gather(analyzer.stream(written.whole)), written)
    shutil.rmtree(folder)


def test_apart_where_asked(tmp_path, read_rows, traffic):
    written = write(tmp_path, traffic, by_size(6))
    together = read_rows(tmp_path / "series", series=False)
    each = [read_rows(file) for file in written.files]
    for i in range(2):
        assert keys(together[i]) == keys([row for one in each for row in one[i]])
    assert len(together[1]) != 60
    for options, n in (([], 60), (["--no-series"], len(together[1]))):
        command = [sys.executable, "-m", "analyzer", "connections", tmp_path / "series", "--format", "csv", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.count("\n") == n + 1


def test_the_command_that_draws_a_life_follows_a_series(tmp_path):
    a, b = spanning()
    put(tmp_path, x_pcap=nanoseconds(a), x_pcap1=nanoseconds(b))
    apart = ["--no-series", "--connection", "20231114T221320.001"]  # else both halves are connections
    for options, n in (([], 9), (apart, 4)):
        figure = tmp_path / "o.svg"
        command = [sys.executable, "-m", "analyzer", "plot", "life", tmp_path / "x.pcap*", "-o", figure, *options]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"{n} events" in figure.read_text(encoding="utf-8")


# what does not belong together


def assert_apart(read_rows, *files):
    """Read together, these give what each gives alone."""
    together = read_rows(*files)
    each = [read_rows(file) for file in files]
    for i in range(2):
        assert keys(together[i]) == keys([row for one in each for row in one[i]])
    by_name = {row["source"]: row for row in together[2]}
    assert by_name == {row["source"]: row for one in each for row in one[2]}


def spanning(*, pause_s=0.0, more_s=0.0):
    """The two halves of one connection, the close in the second."""
    talk = Conversation().upgrade()
    talk.text(CLIENT)
    talk.text(SERVER)
    at = len(talk.packets)
    talk.wait(pause_s)
    talk.text(CLIENT)
    talk.wait(more_s)
    talk.close(SERVER, 4000, "done")
    talk.close(CLIENT, 4000)
    talk.end()
    return talk.packets[:at], talk.packets[at:]


def put(folder, **files):
    folder.mkdir(exist_ok=True)
    paths = []
    for name, content in files.items():
        paths.append(folder / name.replace("_pcap", ".pcap"))
        paths[-1].write_bytes(content)
    return paths


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a/x.pcap", "b/x.pcap1"),  # directories
        ("x.pcap", "y.pcap1"),  # names
        ("x1.pcap", "x2.pcapng"),
        ("x.pcap", "x-1.pcap"),
        ("x.pcap", "x.pcap.1"),
        ("x.1.pcap", "x.pcap"),
        ("one.pcap", "two.pcap"),
    ],
)
def test_other_names_never_join(first, second, tmp_path, read_rows):
    files = [tmp_path / first, tmp_path / second]
    for file, part in zip(files, spanning(), strict=True):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(nanoseconds(part))
    assert_apart(read_rows, *files)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x.pcap", "x.pcap1"),
        ("x", "x1"),
        ("x.pcap9", "x.pcap10.gz"),
        ("x.pcap.gz", "x.pcap1"),
        ("x_00001_20231114221320.pcapng", "x_00002_20231114221321.pcapng"),
        ("x_20231114221320_00001.pcapng", "x_20231114221321_00002.pcapng"),
        ("2023-11-14T22:13:20", "2023-11-14T22:13:21"),
        ("x-2023.pcap7", "x-2024.pcap"),
    ],
)
def test_names_of_one_series_join(first, second, tmp_path, read_rows):
    files = [tmp_path / first, tmp_path / second]
    for file, part in zip(files, spanning(), strict=True):
        content = nanoseconds(part)
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    closes, (row,), inputs = read_rows(*files)
    assert (row["handshake"], row["client_view_code"], row["server_view_code"]) == ("complete", 4000, 4000)
    assert (row["source"], row["server_close_source"], row["server_close_record"]) == (str(files[0]), str(files[1]), 2)
    assert [(close["source"], close["record"]) for close in closes] == [(str(files[1]), 2), (str(files[1]), 3)]
    assert [row["connections"] for row in inputs] == [1, 0]
    assert [row["records"] for row in inputs] == [7, 6]


@pytest.mark.parametrize(("pause_s", "joins"), [(0.5, True), (590, True), (610, False), (86_400, False)])
def test_a_gap_has_a_bound(pause_s, joins, tmp_path, read_rows):
    a, b = spanning(pause_s=pause_s)
    files = put(tmp_path, x_pcap=nanoseconds(a), x_pcap1=nanoseconds(b))
    row = read_rows(*files)[1][0]
    assert row["client_view_code"] == (4000 if joins else None)
    if not joins:
        assert_apart(read_rows, *files)


def test_overlapping_times_never_join(tmp_path, read_rows):
    a, b = spanning()
    early = [Packet(packet.ts_ns - 6_000_000, packet.data) for packet in b]
    assert_apart(read_rows, *put(tmp_path / "1", x_pcap=nanoseconds(a), x_pcap1=nanoseconds(early)))
    # a copy, also one that took no time
    assert_apart(read_rows, *put(tmp_path / "2", x1_pcap=nanoseconds(a + b), x2_pcap=nanoseconds(a + b)))
    packed = put(tmp_path / "3", x_pcap=nanoseconds(a + b), x_pcap1=nanoseconds(a + b))
    assert_apart(read_rows, *packed, packed[0].rename(tmp_path / "3" / "x.pcap2"))


def test_captures_of_two_interfaces_side_by_side(tmp_path, read_rows, traffic):
    """Each is a series of its own, though names differ in numbers only."""
    later = [Packet(packet.ts_ns + SECOND // 3, packet.data) for packet in traffic]
    parts = [part for pair in zip(cut(traffic, 8), cut(later, 8), strict=True) for part in pair]
    names = [f"eth{i % 2}_{i // 2 + 1:05}.pcap" for i in range(16)]
    written = write(tmp_path, [], names, parts=parts)
    found = series.find_series(find_sources([tmp_path / "series"]))
    assert [[member.source.path.name for member in one] for one in found] == [names[0::2], names[1::2]]
    joined = read_rows(tmp_path / "series")
    assert len(joined[1]) == 120
    (tmp_path / "whole").write_bytes(nanoseconds(traffic))
    first = [row for row in joined[1] if "eth0" in row["source"]]
    assert [same_but_places(r) for r in keys(first)] == [
        same_but_places(r) for r in keys(read_rows(tmp_path / "whole")[1])
    ]
    assert written.files[0].exists()


def test_other_link_types_never_join(tmp_path, read_rows):
    a, b = spanning()
    raw = [Packet(packet.ts_ns, packet.data[14:]) for packet in b]  # 101: IP without Ethernet
    assert_apart(read_rows, *put(tmp_path / "1", x_pcap=nanoseconds(a), x_pcap1=nanoseconds(raw, link_type=101)))
    other = put(tmp_path / "2", x_pcap=pcapng(a, link_types=(1, 113)), x_pcap1=pcapng(b, link_types=(1, 101)))
    assert_apart(read_rows, *other)
    kinds = put(tmp_path / "3", x_pcap=nanoseconds(a), x_pcap1=pcapng(b))
    assert_apart(read_rows, *kinds)


def test_every_section_has_its_own_clock_and_interfaces(tmp_path, read_rows):
    a, b = spanning()
    files = put(tmp_path, x_pcap=pcapng(a, exponent=9), x_pcap1=pcapng(b, exponent=6, link_types=(1, 1)))
    _, (row,), _ = read_rows(*files)
    assert (row["client_view_code"], row["server_close_time"]) == (4000, b[1].ts_ns // 1000 * 1000)


# files that are missing or broken


BREAKS = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "only a header": lambda content: content[:24],
    "damaged": lambda content: content[: len(content) // 2] + b"\xff" * 64 + content[len(content) // 2 :],
    "damaged at once": lambda content: content[:24] + b"\xff" * 64,
    "cut": lambda content: content[:-3],
    "another link type": lambda content: content[:20] + b"\x65\0\0\0" + content[24:],
    "no capture": lambda content: b"\1" * 4096,
}
STATUS = {
    "empty": "failed",
    "damaged": "damaged",
    "damaged at once": "damaged",
    "cut": "cut",
    "no capture": "failed",
}


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("at", [0, 7, 19])
def test_a_broken_file_costs_what_it_held(what, at, tmp_path, read_rows, traffic):
    names = [f"x.pcap{i or ''}" for i in range(20)]
    written = write(tmp_path, traffic, names)
    whole = {row["connection"]: row for row in read_rows(written.whole)[1]}
    path = written.files[at]
    broken = BREAKS[what](path.read_bytes())
    if broken is None:
        path.unlink()
    else:
        path.write_bytes(broken)
    _, connections, inputs = read_rows(f"{tmp_path}/series/*")
    by_name = {row["source"]: row for row in inputs}
    assert len(by_name) == len(inputs) == 20 - (broken is None)
    assert [name for name, row in by_name.items() if row["status"] != "ok"] == [str(path)] * (what in STATUS)
    if broken is not None:
        assert by_name[str(path)]["status"] == STATUS.get(what, "ok")
    n_same = 0
    for row in connections:
        other = whole.get(row["connection"])
        for side in (CLIENT, SERVER):
            if other is not None and row[f"{side}_view_code"] is not None:
                # nothing is claimed that the whole does not bear out
                assert row[f"{side}_view_code"] == other[f"{side}_view_code"]
        n_same += other is not None and same_but_places(row) == same_but_places(other)
    assert n_same >= 25
    spans = [row for row in connections if row["server_close_source"] not in (None, row["source"])]
    assert len(spans) > 10  # the series goes on


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x.pcap", "x.pcap1", "x.pcap2"], [True, True, True]),
        (["x2.pcap", "x2.pcap1", "x2.pcap3"], [True, True, False]),  # the first number never changes
        (["x.pcap97", "x.pcap98", "x.pcap99", "x.pcap00"], [True, True, True, True]),  # a ring
        (["x.pcap96", "x.pcap98", "x.pcap99", "x.pcap00"], [True, False, True, True]),
        (["x_1230", "x_1231", "x_1233"], [True, True, False]),
        (["x_1230", "x_1240", "x_1250"], [True, True, True]),  # no counter
        (["x_00001_20231114221320", "x_00003_20231114221321", "x_00004_20231114221329"], [True, False, True]),
    ],
)
def test_numbers_tell_whether_a_file_is_missing(names, expected, tmp_path):
    for name, part in zip(names, cut(many(3), len(names)), strict=True):
        (tmp_path / name).write_bytes(nanoseconds(part))
    (found,) = series.find_series(find_sources([tmp_path]))
    assert [member.source.path.name for member in found] == names
    assert [member.is_next for member in found] == expected


def stalled(folder, *, beat_s, n_before=0):
    """Files of two packets each; somebody's retransmissions stay without an answer, somebody else goes on talking."""
    beside = Conversation(sport=41_000).upgrade()
    for _ in range(2 * n_before + 1):
        beside.wait(beat_s)
        beside.text(CLIENT)
    talk = Conversation(ts_ns=beside.ts_ns).upgrade()
    at = talk.seq[CLIENT]
    for _ in range(5):
        talk.text(CLIENT, seq=at)
    beside.ts_ns = talk.ts_ns
    for _ in range(int(20 / beat_s)):
        beside.wait(beat_s)
        beside.text(CLIENT)
    packets = sorted(beside.packets + talk.packets, key=lambda packet: packet.ts_ns)
    n_first = packets.index(talk.packets[-1]) + 1
    names = [f"x.pcap{i}" for i in range(n_before + 1 + (len(packets) - n_first + 1) // 2)]
    parts = [packets[2 * i : 2 * i + 2] for i in range(n_before)]
    parts.append(packets[2 * n_before : n_first])
    parts += [packets[i : i + 2] for i in range(n_first, len(packets), 2)]
    return write(folder, packets, names, parts=parts).files


def end_of_stalled(read_rows, folder):
    (row,) = (row for row in read_rows(folder / "series")[1] if ":40000-" in row["connection"])
    return row["end"]


def test_silence_where_packets_may_be_missing_is_no_end(tmp_path, read_rows):
    """What came in a file that is not there is not known; a number that is left out tells, or time that passed."""
    files = stalled(tmp_path, beat_s=0.2)
    assert end_of_stalled(read_rows, tmp_path) == "vanished"
    files[1].unlink()
    assert end_of_stalled(read_rows, tmp_path) == "open"


@pytest.mark.parametrize(("beat_s", "end"), [(0.9, "vanished"), (1.1, "open")])
def test_a_quiet_boundary_may_hide_packets(beat_s, end, tmp_path, read_rows):
    stalled(tmp_path, beat_s=beat_s)
    assert end_of_stalled(read_rows, tmp_path) == end


@pytest.mark.parametrize(("broken", "end"), [(0, "vanished"), (4, "open"), (5, "open")])
def test_damage_hides_packets_only_where_it_is(broken, end, tmp_path, read_rows):
    files = stalled(tmp_path, beat_s=0.2, n_before=4)
    path = files[broken]
    path.write_bytes(path.read_bytes() + b"\xff" * 64)
    assert end_of_stalled(read_rows, tmp_path) == end


# what looks at single connections, and what reads


def test_a_life_is_read_through_all_files(tmp_path, traffic):
    written = write(tmp_path, traffic, by_size(50))
    places = written.places()
    whole = analyzer.read(written.whole, progress=False)
    joined = analyzer.read(tmp_path / "series", progress=False)
    for key in whole.connections["connection"][:12]:
        mine, theirs = joined.connection(key), whole.connection(key)
        assert len(mine.life.events) == len(theirs.life.events) > 2
        for event, other in zip(mine.life.events, theirs.life.events, strict=True):
            assert event._replace(packet=0, source="") == other._replace(packet=0, source="")
            assert (event.source, event.packet) == places[other.packet]
    frame = joined.connection(key).life.to_pandas()
    assert frame["source"].nunique() > 1
    assert joined.connection(key).plot() is not None


def test_a_life_ends_where_the_series_does(tmp_path):
    a, b = spanning(pause_s=700)
    files = put(tmp_path, x_pcap=nanoseconds(a), x_pcap1=nanoseconds(b))
    analysis = analyzer.read(*files, ports=(80,), progress=False)
    told = [analysis.connection(key) for key in analysis.connections["connection"]]
    alone = [read_life(Source(str(file), file), told[i].row, ports=(80,)) for i, file in enumerate(files)]
    assert [one.life for one in told] == alone
    # opening, text, text; text, Close, Close, FIN, FIN
    assert [len(one.events) for one in alone] == [4, 5]
    row = told[0].row
    assert read_life(Source("x", files[0]), row, following=[series.Member(Source("y", tmp_path / "y"))]).events


def test_the_story_names_the_files_of_packets(tmp_path):
    a, b = spanning()
    files = put(tmp_path, x_pcap=nanoseconds(a + b[:2]), x_pcap1=nanoseconds(b[2:]))
    text = " ".join(str(analyzer.read(*files, progress=False).report()).split())
    # the number of the later packet is the lower one
    assert (
        'The server sent Close 4000 "done" (packet 9); the client sent Close 4000 (packet 1 of x.pcap1) in answer.'
    ) in text
    assert "The server reports 4000 (wire, status, packet 1 of x.pcap1, high confidence)" in text


@pytest.mark.parametrize("jobs", [1, 2])
def test_series_side_by_side(jobs, tmp_path, read_rows, traffic, monkeypatch):
    monkeypatch.setattr("analyzer.pool.WORTHWHILE_BYTES", 1)
    written = write(tmp_path, traffic, by_size(10))
    shutil.copytree(tmp_path / "series", tmp_path / "other")
    told = []
    joined = read_rows(
        tmp_path / "series", tmp_path / "other", jobs=jobs, progress=lambda name, n, size: told.append((name, n, size))
    )
    assert [len(rows) for rows in joined] == [2 * len(rows) for rows in read_rows(written.whole)[:2]] + [20]
    assert {name for name, n, size in told if n == size} == {row["source"] for row in joined[2]}
    assert_equal(
        [[row for row in rows if "/other/" not in row["source"]] for rows in joined], read_rows(written.whole), written
    )


def test_nothing_is_looked_at_twice_without_need(tmp_path, monkeypatch, traffic):
    """Only names that differ in numbers are opened before they are read; pipes never are."""
    write(tmp_path, traffic[:40], ["x.pcap", "y.pcap", "z.pcap"])
    os.mkfifo(tmp_path / "series" / "x.pcap1")
    opened = []
    real = Source.open
    monkeypatch.setattr(Source, "open", lambda self: opened.append(self.name) or real(self))
    names = [tmp_path / "series" / name for name in ("x.pcap", "x.pcap1", "y.pcap", "z.pcap")]
    assert [len(one) for one in series.find_series(find_sources(names))] == [1] * 4
    assert opened == []


# the programs themselves


def program(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("options", [["-C", "1"], ["-C", "1", "-W", "30"], ["-C", "1", "-z", "gzip"]], ids=" ".join)
def test_tcpdump(options, tmp_path, read_rows, traffic):
    """Its -C counts millions of bytes, so that the traffic is padded with other packets."""
    tcpdump = program("tcpdump")
    filler = Conversation(sport=50_000, ts_ns=traffic[0].ts_ns - 2_000_000)
    for i in range(4_000):
        filler.step_ns = 7_000_000
        filler.segment(CLIENT, bytes([i % 251]) * 1_400)
    (tmp_path / "whole").write_bytes(nanoseconds(sorted(traffic + filler.packets, key=lambda packet: packet.ts_ns)))
    (tmp_path / "series").mkdir()
    run(tcpdump, "-Z", "root", "--nano", "-r", tmp_path / "whole", "-w", tmp_path / "series" / "x.pcap", *options)
    n_files = len(list((tmp_path / "series").iterdir()))
    assert n_files > 5
    joined, whole = read_rows(tmp_path / "series"), read_rows(tmp_path / "whole")
    assert len(joined[1]) == 60
    for mine, theirs in zip(joined[:2], whole[:2], strict=True):
        assert [*map(same_but_places, keys(mine))] == [*map(same_but_places, keys(theirs))]
    assert len({row["server_close_source"] for row in joined[1]}) > 3
    assert len(joined[2]) == n_files


@pytest.mark.parametrize("form", ["pcap", "nsecpcap", "pcapng"])
def test_editcap(form, tmp_path, read_rows, traffic):
    """Names like dumpcap's: x_00000_20231114221320.pcapng."""
    editcap = program("editcap")
    (tmp_path / "raw").write_bytes(nanoseconds(traffic))
    run(editcap, "-F", form, tmp_path / "raw", tmp_path / "whole")
    (tmp_path / "series").mkdir()
    run(editcap, "-F", form, "-c", "17", tmp_path / "raw", tmp_path / "series" / "x.pcapng")
    joined, whole = read_rows(tmp_path / "series"), read_rows(tmp_path / "whole")
    assert len(joined[1]) == 60
    for mine, theirs in zip(joined[:2], whole[:2], strict=True):
        assert [*map(same_but_places, keys(mine))] == [*map(same_but_places, keys(theirs))]
    assert {row["records"] for row in joined[2][:-1]} == {17}


def test_dumpcap(tmp_path, read_rows, traffic):
    """Captures from a pipe, as a ring of which the oldest files are gone."""
    dumpcap = program("dumpcap")
    (tmp_path / "series").mkdir()
    (tmp_path / "raw").write_bytes(nanoseconds(traffic))
    command = [dumpcap, "-q", "-i", "-", "-b", "packets:9", "-w", str(tmp_path / "series" / "x.pcapng")]
    done = subprocess.run(command, input=(tmp_path / "raw").read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "series").iterdir())
    assert len(files) > 30
    assert len({row["connection"] for row in read_rows(tmp_path / "series")[1]}) == 60
    (found,) = series.find_series(find_sources([tmp_path / "series"]))
    assert [member.source.path for member in found] == files
    assert all(member.is_next for member in found)
    joined, whole = read_rows(tmp_path / "series"), read_rows(tmp_path / "raw")
    for mine, theirs in zip(joined[:2], whole[:2], strict=True):
        assert [*map(same_but_places, keys(mine))] == [*map(same_but_places, keys(theirs))]
