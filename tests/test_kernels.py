"""Kernels as written and compiled are one source: same results, one compiled signature each, bounds checked."""

import importlib.metadata
import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import SAMPLES
from packets import ACK, CLIENT, MASK, SERVER, Conversation, Packet, close, ethernet, frame, ipv4, pcap, tcp
from reading import analyze

from analyzer import kernel
from analyzer.capture import container, wire

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


@pytest.fixture
def restore_kernels():
    was_compiled = kernel.is_compiled()
    yield
    if was_compiled:
        kernel.compile_all()
    else:
        kernel.interpret_all()


def read_only(data):
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("value", EDGES)
def test_integers_are_read_alike(value, restore_kernels):
    pytest.importorskip("numba")
    data = read_only(value.to_bytes(8, "big") + value.to_bytes(8, "little"))
    readers = ("be16", "be32", "be64", "le16", "le32")

    def read():
        return [int(getattr(wire, name)(data, off)) for name in readers for off in (0, 3, 8)]

    kernel.interpret_all()
    plain = read()
    kernel.compile_all()
    assert read() == plain
    assert plain[0] == value >> 48
    assert plain[6] == (value if value < 2**63 else value - 2**64)


@pytest.mark.parametrize("a", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("b", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_sequence_numbers_compare_modulo_2_32(a, b, restore_kernels):
    pytest.importorskip("numba")
    kernel.interpret_all()
    plain = wire.seq_diff(a, b)
    kernel.compile_all()
    assert wire.seq_diff(a, b) == plain
    assert (b + plain - a) % 2**32 == 0
    assert -(2**31) <= plain < 2**31


@pytest.mark.parametrize("resolution", [0x00, 0x03, 0x06, 0x09, 0x0C, 0x12, 0x80 | 1, 0x80 | 20, 0x80 | 40, 0x80 | 62])
@pytest.mark.parametrize("ticks", [0, 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**64 - 1])
def test_timestamps_are_exact_and_never_overflow(resolution, ticks, restore_kernels):
    pytest.importorskip("numba")
    body = b"\x01\x00\x00\x00\x00\x00\x04\x00" + b"\x09\x00\x01\x00" + bytes([resolution]) + b"\0\0\0" + b"\0" * 4
    block = (1).to_bytes(4, "little") + (len(body) + 12).to_bytes(4, "little") + body
    interface = container.parse_interface(block + (len(body) + 12).to_bytes(4, "little"), is_big=False)
    unit = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10 ** (resolution & 0x7F)
    expected = ticks * 10**9 // unit
    kernel.interpret_all()
    plain = int(container.ticks_to_ns(ticks >> 32, ticks & 0xFFFFFFFF, interface[0]))
    kernel.compile_all()
    assert int(container.ticks_to_ns(ticks >> 32, ticks & 0xFFFFFFFF, interface[0])) == plain
    is_readable = ticks < 2**63 or (not resolution & 0x80 and resolution > 9)
    fits = expected // 10**9 <= container.MAX_SECONDS
    assert plain == (expected if is_readable and fits else 0)


def conversations():
    """A capture in which every kernel has something to do."""
    c = Conversation().upgrade()
    c.text(CLIENT, "grüße")
    whole = frame(1, "ünïcödé".encode() * 40, mask=MASK)
    first = c.seq[CLIENT]
    c.seq[CLIENT] += 50
    c.say(CLIENT, whole[50:])  # too early: parked
    c.segment(CLIENT, whole[:50], seq=first)
    c.text(SERVER, lose=True)
    c.text(SERVER)
    c.text(SERVER)
    c.close(SERVER, 1001)
    c.say(CLIENT, close(1001, mask=MASK)[:3])
    c.say(CLIENT, close(1001, mask=MASK)[3:])
    c.end()
    other = Conversation(sport=50000, ts_ns=c.ts_ns)
    other.text(CLIENT)
    other.text(CLIENT)
    other.rst(SERVER)
    return c.packets + other.packets


def fragments():
    """A segment in two fragments, the second cut by a snaplen."""
    whole = ipv4("10.0.0.8", "10.0.0.9", tcp(1, 2, 3, 4, ACK, bytes(200)))
    pieces = [whole[20:124], whole[124:]]
    datagrams = [
        struct.pack("!BBHHHBB", 0x45, 0, 20 + len(data), 5, (1 - i) << 13 | i * 13, 64, 6) + whole[10:20] + data
        for i, data in enumerate(pieces)
    ]
    return [Packet(10**18, ethernet(data)[: 200 - 90 * i], 14 + len(data)) for i, data in enumerate(datagrams)]


FRAGMENTS = fragments()


def test_whole_analysis_is_the_same_interpreted_and_compiled(restore_kernels):
    pytest.importorskip("numba")
    content = pcap(conversations())
    kernel.interpret_all()
    plain = analyze(content, ports=(80,))
    kernel.compile_all()
    assert analyze(content, ports=(80,)) == plain
    assert len(plain[1]) == 2


def test_samples_are_the_same_interpreted_and_compiled(restore_kernels):
    pytest.importorskip("numba")
    for path in sorted(SAMPLES.glob("*.pcap*")):
        kernel.interpret_all()
        plain = analyze(path.read_bytes())
        kernel.compile_all()
        assert analyze(path.read_bytes()) == plain, path.name


def test_every_kernel_has_one_compiled_signature(tmp_path):
    pytest.importorskip("numba")
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([*conversations(), *FRAGMENTS]))
    script = (
        "import sys\nfrom analyzer import kernel\nfrom analyzer.analysis import stream\nkernel.compile_all()\n"
        f"for _ in stream({str(SAMPLES)!r}): pass\n"
        f"for ports, most in (((), 9), ((80,), 512), ((80,), 1)):\n"
        f"    for _ in stream({str(path)!r}, ports=ports, max_flows=most): pass\n"
        "print({place: n for place, f in kernel._compiled.items() if (n := len(f.kinds)) > 1})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{}"


def test_compiled_kernels_check_bounds(restore_kernels):
    pytest.importorskip("numba")
    kernel.compile_all()
    with pytest.raises(IndexError):
        wire.be32(read_only(b"\x01\x02"), 0)


@pytest.mark.parametrize(
    ("off", "n"), [(0, 9), (1, 8), (8, 1), (9, 0), (-1, 1), (-9, 9), (3, -1), (2**63 - 1, 1), (1, 2**63 - 1)]
)
def test_a_slice_that_would_be_shorter_is_out_of_bounds(off, n):
    data = read_only(bytes(8))
    with pytest.raises(IndexError):
        wire.require(data, off, n)
    wire.require(data, 0, 8)
    wire.require(data, 8, 0)


def test_compiled_kernels_come_from_the_cache_and_a_changed_source_does_not(tmp_path):
    pytest.importorskip("numba")
    script = (
        "import sys\nfrom analyzer import kernel\nfrom analyzer.capture import wire\nimport numpy as np\n"
        "print(kernel.is_cached(), kernel.compile_all())\n"
        "print(wire.be16(np.frombuffer(b'\\x01\\x02', np.uint8), 0), kernel.is_cached())\n"
        "before = kernel.digest()\nkernel._plain['json', 'x'] = None\nimport json\nkernel.digest.cache_clear()\n"
        "print(kernel.digest() != before)"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    runs = [
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout.split() == ["False", "True", "258", "True", "True"]
    assert runs[1].stdout.split() == ["True", "True", "258", "True", "True"]


def test_nothing_writable_still_compiles(tmp_path):
    pytest.importorskip("numba")
    (tmp_path / "file").write_text("not a directory")
    script = (
        "from analyzer import kernel\nfrom analyzer.capture import wire\nimport numpy as np\n"
        "print(kernel.is_cached(), kernel.compile_all(), wire.be16(np.frombuffer(b'\\x01\\x02', np.uint8), 0))"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path / "file"), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "258"]


def test_compiling_before_anything_was_read_compiles_everything():
    pytest.importorskip("numba")
    script = "from analyzer import kernel; kernel.compile_all(); print(len(kernel.plain_kernels()) > 40)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_small_inputs_stay_interpreted_and_large_ones_compile(restore_kernels, monkeypatch):
    kernel.interpret_all()
    monkeypatch.setattr(kernel, "is_cached", lambda: False)
    kernel.set_automatic(True)
    try:
        kernel.expect(kernel.COMPILE_AFTER_PACKETS - 1)
        assert not kernel.is_compiled()
        monkeypatch.setattr(kernel, "is_cached", lambda: True)
        kernel.expect(kernel.LOAD_AFTER_PACKETS - 1)
        assert not kernel.is_compiled()
        kernel.expect(kernel.LOAD_AFTER_PACKETS)
        assert kernel.is_compiled()
    finally:
        kernel.set_automatic(False)


def test_reader_hands_out_read_only_bytes():
    content = Conversation().upgrade().pcap()
    chunk = next(container.Reader(io.BytesIO(content), "x").chunks())
    assert not chunk.data.flags.writeable
    assert chunk.data.flags.c_contiguous


def test_damaged_machine_code_is_made_again(tmp_path):
    """A broken object would take the process down: it is recognised, and replaced."""
    pytest.importorskip("numba")
    script = (
        "from analyzer import kernel\nfrom analyzer.capture import wire\nimport numpy as np\nkernel.compile_all()\n"
        "print(wire.be16(np.frombuffer(b'\\x01\\x02', np.uint8), 0))"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}

    def run():
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert run() == "258"
    (file,) = tmp_path.rglob("*.kernel")
    whole = file.read_bytes()
    for broken in (whole[:-100], whole[:20], b"", b"{}\n" + whole, whole[:200] + b"\0" + whole[201:], b"[" * 200_000):
        file.write_bytes(broken)
        assert run() == "258"
        assert file.read_bytes() == whole


def test_kernels_that_lie_in_the_cache_run_without_numba(tmp_path):
    """Numba takes 0.3 s to import: only what compiles needs it."""
    pytest.importorskip("numba")
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(conversations()))
    script = (
        "import sys\nfrom analyzer import kernel\nfrom analyzer.analysis import stream\n{0}\n"
        f"for _ in stream({str(path)!r}): pass\n"
        "print('numba' in sys.modules, kernel.is_compiled())"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", script.format(first)], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for first in ("kernel.compile_all()", "kernel.load_all()", "kernel.compile_all()", "")
    ]
    assert said == [["True", "True"], ["False", "True"], ["False", "True"], ["False", "False"]]


def test_a_kernel_takes_integers_arrays_and_rows_only(restore_kernels):
    pytest.importorskip("numba")
    kernel.compile_all()
    for wrong in (b"\x01\x02", np.zeros((2, 2), np.uint8), np.zeros(8, np.uint8)[::2], 1.5):
        with pytest.raises(TypeError, match="no kernel takes"):
            wire.be16(wrong, 0)


def test_another_numba_has_a_cache_of_its_own(monkeypatch):
    pytest.importorskip("numba")
    assert importlib.metadata.version("numba") in kernel._numba_version()
    before = kernel.digest()
    kernel.digest.cache_clear()
    monkeypatch.setattr(kernel, "_numba_version", lambda: "0.0")
    assert kernel.digest() != before
    kernel.digest.cache_clear()
