"""Packed streams: whatever the packer did, the bytes are those of the plain file, in bounded memory."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import random
import sys
import tracemalloc
import zlib

import pytest
from conftest import SAMPLES
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import CaptureError
from analyzer.logs.catalogue import Catalogue
from analyzer.logs.format import Format
from analyzer.packing import FOREIGN, READ_BYTES, Unpacked
from analyzer.sources import LOG_NAME, Source, sniff

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKERS = {"gzip": gzip.compress, "zstd": zstd.compress, "bzip2": bz2.compress, "xz": lzma.compress}
NORMAL = SAMPLES / "normal-1000.pcap"
LOG = b"2026-11-21 10:00:00 x\n2026-11-21 10:00:01 websocket: close 1006 (abnormal closure): unexpected EOF\n"
NOISE = random.Random(7).randbytes(1 << 20)


class Trickle(io.RawIOBase):
    """Hands out at most so many bytes at a time, as a pipe does."""

    def __init__(self, content, most):
        self._content = io.BytesIO(content)
        self._most = most

    def readable(self):
        return True

    def read(self, size=-1):
        return self._content.read(self._most if size < 0 else min(size, self._most))

    def readinto(self, buffer):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def unpack(content, size=1 << 16, most=1 << 30):
    stream = Unpacked(Trickle(content, most))
    parts = []
    while part := stream.read(size):
        assert len(part) <= size
        parts.append(part)
    assert stream.read(size) == b""
    return stream, b"".join(parts)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("plain", [b"", b"x", LOG, LOG * 10_000, NOISE], ids=lambda plain: str(len(plain)))
@pytest.mark.parametrize("most", [1 << 30, 1000])
def test_what_was_packed_comes_back(kind, plain, most):
    packed = PACKERS[kind](plain)
    stream, got = unpack(packed, most=most)
    assert got == plain
    assert (stream.compression, stream.damage, stream.is_cut) == (kind, None, False)
    assert stream.n_packed_bytes == len(packed)


@pytest.mark.parametrize("plain", [b"", b"x", b"\x1f", b"BZ", LOG, NOISE])
def test_what_is_not_packed_is_handed_on(plain):
    stream, got = unpack(plain, size=7 if len(plain) < 1000 else 1 << 16)
    assert (got, stream.compression, stream.damage, stream.is_cut) == (plain, "none", None, False)
    assert stream.n_packed_bytes == len(plain)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("padding", [b"", b"\0" * 512, b"\0" * 3 * READ_BYTES], ids=len)
@pytest.mark.parametrize("most", [1 << 30, 100])
def test_several_members_and_padding(kind, padding, most):
    packed = b"".join(PACKERS[kind](LOG[i : i + 40]) + padding for i in range(0, len(LOG), 40))
    stream, got = unpack(packed, most=most if len(padding) < 1000 else 1 << 30)
    assert (got, stream.damage, stream.is_cut) == (LOG, None, False)


@pytest.mark.parametrize("kind", PACKERS)
def test_one_byte_at_a_time(kind):
    stream, got = unpack(PACKERS[kind](LOG) + PACKERS[kind](b"more"), size=1, most=1)
    assert (got, stream.damage, stream.is_cut) == (LOG + b"more", None, False)


@pytest.mark.parametrize("kind", PACKERS)
def test_cut_anywhere(kind):
    packed = PACKERS[kind](LOG)
    for n in range(6, len(packed)):
        stream, got = unpack(packed[:n])
        assert LOG.startswith(got)
        assert (stream.compression, stream.damage, stream.is_cut) == (kind, None, True)


@pytest.mark.parametrize("kind", PACKERS)
def test_cut_and_then_the_rest_of_what_was_readable(kind):
    packed = PACKERS[kind](NOISE)
    stream, got = unpack(packed[: len(packed) * 3 // 4])
    assert NOISE.startswith(got)
    assert len(got) > len(NOISE) // 4 or kind == "bzip2"
    assert stream.is_cut


@pytest.mark.parametrize("kind", PACKERS)
def test_damage_in_the_middle_is_named_and_what_came_before_is_kept(kind):
    members = PACKERS[kind](LOG), PACKERS[kind](NOISE), PACKERS[kind](LOG)
    broken = bytearray(b"".join(members))
    middle = len(members[0]) + len(members[1]) // 2
    broken[middle : middle + 64] = b"\xff" * 64
    stream, got = unpack(bytes(broken))
    assert got.startswith(LOG)
    assert not got.endswith(LOG + LOG)
    assert stream.damage.startswith(f"the {kind} data is damaged (")
    assert not stream.is_cut


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("tail", [b"garbage behind it", b"\0\0\0x", b"\x1f\x8b\x08 and no more"])
def test_what_stands_behind_the_last_member_is_not_read_unseen(kind, tail):
    stream, got = unpack(PACKERS[kind](LOG) + tail)
    assert got == LOG
    assert stream.damage or stream.is_cut


def test_a_gzip_with_a_wrong_checksum_is_damaged():
    packed = bytearray(gzip.compress(LOG))
    packed[-5] ^= 1
    stream, got = unpack(bytes(packed))
    assert got == LOG
    assert "damaged" in stream.damage


def test_gzip_with_every_field_of_its_head():
    head = b"\x1f\x8b\x08\x1e" + b"\0" * 4 + b"\x02\x03" + b"\x03\0abc" + b"ws.log\0" + b"a comment\0"
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = raw.compress(LOG) + raw.flush()
    assert unpack(head + body + zlib.crc32(LOG).to_bytes(4, "little") + len(LOG).to_bytes(4, "little"))[1] == LOG


def test_zstd_with_a_frame_that_is_skipped():
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    stream, got = unpack(zstd.compress(LOG) + skipped + zstd.compress(LOG))
    assert got == LOG + LOG or stream.damage
    assert stream.compression == "zstd"


@pytest.mark.parametrize("kind", PACKERS)
def test_peeking_takes_nothing_away(kind):
    stream = Unpacked(Trickle(PACKERS[kind](LOG), 1 << 30))
    assert (stream.peek(4), stream.peek(2), stream.peek(4)) == (LOG[:4], LOG[:2], LOG[:4])
    buffer = bytearray(3)
    assert stream.readinto(buffer) == 3
    assert bytes(buffer) + stream.read(1 << 20) == LOG
    assert stream.peek(4) == b""


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_stays_small_in_memory(kind):
    bomb = PACKERS[kind](bytes(200 << 20) if kind != "bzip2" else bytes(50 << 20))
    stream = Unpacked(Trickle(bomb, 1 << 30))
    tracemalloc.start()
    n = 0
    for _ in range(100):
        n += len(stream.read(1 << 18))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n >= 100 << 17
    assert peak < (12 << 20 if kind == "xz" else 4 << 20)  # its dictionary alone has 8 MiB


@given(
    st.sampled_from([*PACKERS.values()]),
    st.lists(st.binary(max_size=200), max_size=4),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=3),
    st.integers(1, 100),
)
def test_no_bytes_raise_or_hang(pack, parts, changes, most):
    packed = bytearray(b"".join(map(pack, parts)))
    for off, value in changes:
        if off < len(packed):
            packed[off] = value
    stream, got = unpack(bytes(packed), most=most)
    plain = b"".join(parts)
    assert stream.damage is None or stream.damage.startswith(f"the {stream.compression} data is damaged (")
    if stream.compression != "zstd":  # a frame without a checksum can change unseen
        assert got == plain or stream.damage or stream.is_cut or stream.compression == "none"
    if not changes:
        assert got == plain


# ---- as inputs


@pytest.fixture(autouse=True)
def one_format(monkeypatch):
    """Rows of logs are not what is tested here: one format will do."""
    pattern = {"find": ["websocket: close "], "regex": r"websocket: close (?P<code>\d{4})", "means": "rfc"}
    head = {"id": "tiny", "title": "Tiny", "source": "https://example.org", "rule": "As RFC 6455 has it."}
    proof = {"sample": [{"line": "x"}], "reject": [{"line": "y"}]}
    catalogue = Catalogue([Format(head | proof | {"pattern": {"close": pattern}}, "test")])
    monkeypatch.setattr("analyzer.logs.catalogue.load", lambda *directories: catalogue)


@pytest.mark.parametrize("kind", PACKERS)
def test_packed_captures_and_logs_give_the_rows_of_the_plain_file(kind, read_rows, tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(LOG)
    for plain in (NORMAL, log):
        packed = tmp_path / f"{plain.name}.{kind}"
        packed.write_bytes(PACKERS[kind](plain.read_bytes()))
        os.utime(packed, (2e9, 2e9))
        results = []
        for path in (plain, packed):
            closes, connections, inputs = read_rows(path)
            for row in (*closes, *connections, *inputs):
                for name in [name for name in row if name.endswith("source")]:
                    del row[name]
            assert inputs[0].pop("compression") == ("none" if path is plain else kind)
            results.append((closes, connections, inputs))
        assert results[0] == results[1]
        assert results[0][0]


@pytest.mark.parametrize("kind", PACKERS)
def test_a_packed_log_that_is_cut_or_damaged_says_so(kind, read_rows, tmp_path):
    path = tmp_path / f"x.log.{kind}"
    packed = PACKERS[kind](LOG) + PACKERS[kind](NOISE)
    path.write_bytes(packed[:-9])
    closes, _, (row,) = read_rows(path)
    assert (len(closes), row["status"], row["message"]) == (1, "cut", f"the {kind} data is cut off")
    broken = bytearray(packed)
    middle = (len(PACKERS[kind](LOG)) + len(packed)) // 2
    broken[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(broken)
    closes, _, (row,) = read_rows(path)
    assert (len(closes), row["status"]) == (1, "damaged")
    assert row["message"].startswith(f"the {kind} data is damaged (")


def test_captures_in_a_directory_are_known_by_what_they_hold(read_rows, tmp_path):
    """Under the names that rotation and packing leave, in any depth; a capture that is no more than a name is not."""
    content = NORMAL.read_bytes()
    names = ["x.pcap", "a.pcap1", "b.pcap00", "c.pcapng", "d", "e.dump.17", "deep/er/f.pcap"]
    for i, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        kind, pack = list(PACKERS.items())[i % len(PACKERS)]
        half = len(content) // 2
        (tmp_path / f"{i}-packed.{kind}").write_bytes(pack(content[:half]) + pack(content[half:]))
    for name in ("empty.pcap", "notes.txt"):
        (tmp_path / name).touch()
    expected = {str(tmp_path / name) for name in names} | {str(path) for path in tmp_path.glob("*-packed.*")}
    for place in (tmp_path, f"{tmp_path}/**"):
        _, connections, inputs = read_rows(place, series=False)
        rows = {row["source"]: row for row in inputs if row["kind"] == "pcap"}
        assert rows.keys() == expected
        assert {row["status"] for row in rows.values()} == {"ok"}
        assert {row["records"] for row in rows.values()} == {rows[str(tmp_path / "x.pcap")]["records"]}
        assert len(connections) == len(expected)


@pytest.mark.parametrize("magic", FOREIGN)
def test_foreign_kinds_are_named(magic, read_rows, tmp_path):
    path = tmp_path / "x.log"
    path.write_bytes(magic + LOG)
    _, _, (row,) = read_rows(path)
    assert (row["status"], row["message"]) == ("failed", f"a {FOREIGN[magic]} file: unpack or export it first")


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (NORMAL.read_bytes()[:64], "anything", "capture"),
        (b"\x0a\x0d\x0d\x0a" + b"\x1c\0\0\0\x4d\x3c\x2b\x1a" + bytes(16), "x.log", "capture"),
        (LOG, "x.pcap", "capture"),
        (LOG, "x.PCAPNG", "capture"),
        (LOG, "x.pcap.gz", "capture"),
        (LOG, "x.log", "log"),
        (LOG, "pcap.txt", "log"),
        (b"", "x", "log"),
        (b"\xff\xfe" + LOG.decode().encode("utf-16-le"), "x", "log"),
        (b"\xfe\xff" + LOG.decode().encode("utf-16-be"), "x", "log"),
        ("début à 10 h: ça ferme\n".encode("latin-1"), "x", "log"),
        ("日本語のログ\n".encode("shift-jis"), "x", "log"),
        (bytes(4000) + LOG, "x", "log"),
        (b"\x1b[31mERROR\x1b[0m closed\n", "x", "log"),
    ],
)
def test_what_a_file_holds(head, name, expected):
    assert sniff(head, name) == expected


@pytest.mark.parametrize(
    "head", [NOISE[:4096], b"\x7fELF\x02\x01\x01" + bytes(range(32)) * 20, bytes(range(1, 32)) * 4]
)
def test_what_is_neither(head):
    with pytest.raises(CaptureError, match=r"^x\.log: neither a capture \(pcap, pcapng\) nor text$"):
        sniff(head, "x.log")


@given(st.binary(max_size=300), st.text(max_size=20))
def test_sniffing_says_one_of_two_or_why_not(head, name):
    with contextlib.suppress(CaptureError):
        assert sniff(head, name) in ("capture", "log")


@pytest.mark.parametrize(
    ("name", "is_log"),
    [
        (name, True)
        for name in ("a.log", "a.LOG", "a.log.1", "a.log.3.gz", "a.log-20261121", "a.log-20261121.gz", "a.log.zst")
    ]
    + [
        (name, True)
        for name in ("syslog", "syslog.1", "messages", "access.log", "access_log", "error_log.2", "error.log")
    ]
    + [
        (name, True)
        for name in ("a.jsonl", "a.ndjson", "a.out", "a.err", "console.txt", "access-2026.bz2", "my-log", "log")
    ]
    + [
        (name, False)
        for name in ("a.txt", "README.md", "catalog.toml", "login.py", "dialog", "blog.html", "a.pcap", "errors")
    ]
    + [(name, False) for name in ("a.json", "a.csv", "logo.png", "a.logic", "changelog", "accessories", "logs", "")],
)
def test_names_of_logs_in_directories(name, is_log):
    assert bool(LOG_NAME.search(name)) == is_log


def test_as_much_is_saved_of_damaged_gzip_however_much_is_read_at_once():
    rng = random.Random(0)
    plain = b"".join(b"%08d abcdefghijklmnopqrstuvwxyz" % rng.randrange(10**8) for _ in range(20_000))
    packed = bytearray(gzip.compress(plain, mtime=0))
    at = int(len(packed) * 0.9)
    packed[at : at + 50] = b"\xff" * 50
    saved = []
    for most in (1 << 10, 1 << 16, 1 << 18, 1 << 23):
        file, found = Unpacked(io.BytesIO(bytes(packed))), b""
        while data := file.read(most):
            found += data
        assert file.damage is not None
        saved.append(len(found))
    assert max(saved) - min(saved) < 100
    assert min(saved) > 0.88 * len(plain)


@pytest.mark.skipif(sys.platform != "linux", reason="pipes can be made wider on Linux only")
def test_a_pipe_is_made_wide(tmp_path):
    """A writer that fills 64 KiB at a time had every chunk read for itself: twice the time of a file."""
    import fcntl

    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        os.write(writer, NORMAL.read_bytes())
        with Source(str(path), path).open() as file:
            assert fcntl.fcntl(file.fileno(), fcntl.F_GETPIPE_SZ) >= 1 << 20
            assert file.peek(4) == NORMAL.read_bytes()[:4]
    finally:
        os.close(writer)
