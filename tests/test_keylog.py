"""Key logs: what programs write, what stands beside it, files that grow."""

import os
import pickle
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import keylog
from analyzer.capture.keylog import KeyFile, KeyLog, name_session
from analyzer.errors import UsageError

RANDOM, OTHER = bytes(range(32)), bytes(range(100, 132))
MASTER = bytes(range(200, 248))


def line(label, random=RANDOM, secret=MASTER):
    return f"{label} {random.hex()} {secret.hex()}\n".encode()


def log_of(data, **options):
    keys = KeyLog()
    keys.add(data, **options)
    return keys


def test_every_label_of_the_format():
    labels = ["CLIENT_RANDOM", "CLIENT_EARLY_TRAFFIC_SECRET", "CLIENT_HANDSHAKE_TRAFFIC_SECRET"]
    labels += ["SERVER_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"]
    keys = KeyLog()
    others = line("EXPORTER_SECRET") + line("EARLY_EXPORTER_SECRET") + b"RSA 0123456789abcdef " + b"00" * 48 + b"\n"
    text = b"# made by a test\n\n" + b"".join(line(label) for label in labels) + others
    assert keys.add(text) == keys.n_secrets == 6
    assert keys.find(RANDOM) == dict.fromkeys(labels, (MASTER,))
    assert keys.find(OTHER) is None
    assert (keys.n_bad, keys.n_dropped) == (0, 0)
    assert keys.add(text) == 0
    assert keys.n_secrets == 6


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\n\n", b" \n", b""])
def test_ends_of_lines(end):
    text = end.join([line("CLIENT_RANDOM").strip(), line("CLIENT_TRAFFIC_SECRET_0", OTHER, MASTER[:32]).strip()])
    keys = log_of(text + end)
    if end == b"":
        assert (keys.n_secrets, keys.n_bad) == (0, 1)  # nobody knows where the first one ends
        return
    assert keys.find(RANDOM) == {"CLIENT_RANDOM": (MASTER,)}
    assert keys.find(OTHER) == {"CLIENT_TRAFFIC_SECRET_0": (MASTER[:32],)}


def test_upper_case_tabs_and_other_text_around():
    text = b"comment: CLIENT_RANDOM\t" + RANDOM.hex().upper().encode() + b"  " + MASTER.hex().upper().encode() + b"; ok"
    assert log_of(text).find(RANDOM) == {"CLIENT_RANDOM": (MASTER,)}


def test_what_is_no_key_line():
    assert log_of(b"# " + line("CLIENT_RANDOM")).n_secrets == 0
    assert log_of(b"MY_" + line("CLIENT_RANDOM")).n_secrets == 0
    assert log_of(b"CLIENT_RANDOM is a label, CLIENT_RANDOM").n_bad == 0


@pytest.mark.parametrize(
    "bad",
    [
        line("CLIENT_RANDOM", secret=MASTER[:32]),
        line("CLIENT_RANDOM", secret=MASTER + b"\0"),
        line("CLIENT_RANDOM", secret=MASTER[:-1]),
        line("CLIENT_RANDOM", random=RANDOM[:-1]),
        line("CLIENT_RANDOM")[:60] + b"\n",
        line("SERVER_TRAFFIC_SECRET_0", secret=MASTER[:40]),
        line("CLIENT_RANDOM").replace(b"dcdd", b"dcdx"),
    ],
)
def test_lines_that_only_look_like_key_lines_are_counted(bad):
    keys = log_of(bad + line("CLIENT_RANDOM", OTHER))
    assert (keys.n_secrets, keys.n_bad) == (1, 1)
    assert keys.find(RANDOM) is None


@settings(max_examples=100)
@given(st.lists(st.integers(1, 400), max_size=20), st.sampled_from([b"\n", b"\r\n"]))
def test_a_text_in_any_pieces(sizes, end):
    lines = [line("CLIENT_HANDSHAKE_TRAFFIC_SECRET", RANDOM, MASTER), line("CLIENT_TRAFFIC_SECRET_0", OTHER, MASTER)]
    text = b"".join(one.replace(b"\n", end) for one in [*lines, b"# comment\n", line("SERVER_TRAFFIC_SECRET_0")])
    keys = KeyLog()
    off = 0
    for size in [*sizes, len(text)]:
        keys.add(text[off : off + size], source="a file")
        keys.add(b"CLIENT_RANDOM 00", source="another")
        off += size
    whole = log_of(text)
    assert (
        keys.find(RANDOM)
        == whole.find(RANDOM)
        == dict.fromkeys(["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"], (MASTER,))
    )
    assert keys.find(OTHER) == {"CLIENT_TRAFFIC_SECRET_0": (MASTER,)}
    assert keys.n_secrets == whole.n_secrets == 3


def test_the_last_line_needs_no_end():
    assert log_of(line("CLIENT_RANDOM").strip(), source="a file").find(RANDOM) == {"CLIENT_RANDOM": (MASTER,)}


def test_limits_are_counted(monkeypatch):
    monkeypatch.setattr(keylog, "MAX_SECRETS", 3)
    keys = log_of(b"".join(line("CLIENT_RANDOM", bytes((i,)) * 32) for i in range(5)))
    assert (keys.n_secrets, keys.n_dropped) == (3, 2)
    assert keys.find(b"\0" * 32)
    assert keys.find(b"\4" * 32) is None


def test_sessions_have_a_limit(monkeypatch):
    monkeypatch.setattr(keylog, "MAX_SESSIONS", 2)
    keys = KeyLog()
    for name in (b"one", b"two", b"one", b"three"):
        keys.remember(name_session(name), name)
    assert [keys.recall(name_session(name)) for name in (b"one", b"two", b"three")] == [b"one", None, b"three"]


def test_long_lines_without_end_are_not_kept():
    keys = KeyLog()
    for i in range(1000):
        keys.add(b"%d" % i + b"z" * 500, source=f"many {i}")
        keys.add(b"x" * 5000, source=str(i))
        keys.add(b"y" * 1000, source=str(i))
    assert len(pickle.dumps(keys)) < 100_000


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=300) | st.just(line("CLIENT_RANDOM")), max_size=8), st.booleans())
def test_any_bytes_at_all(pieces, is_one):
    keys = KeyLog()
    for piece in pieces:
        keys.add(piece, source="x" if is_one else None)
    assert keys.n_secrets <= 1


def test_no_secret_is_shown_and_it_pickles():
    secret = secrets.token_bytes(48)
    keys = log_of(line("CLIENT_RANDOM", secret=secret) + b"CLIENT_RANDOM 00", source="x")
    assert repr(keys) == str(keys) == "<KeyLog: 1 secrets>"
    again = pickle.loads(pickle.dumps(keys))
    assert again.find(RANDOM) == {"CLIENT_RANDOM": (secret,)}
    assert again.n_secrets == 1


def test_a_file_that_grows(tmp_path):
    path, keys = tmp_path / "keys", KeyLog()
    path.write_bytes(b"")
    file = KeyFile(path)
    assert not file.refresh(keys)
    with path.open("ab", buffering=0) as writing:
        first = line("CLIENT_RANDOM")
        writing.write(first[:100])
        assert not file.refresh(keys)
        assert not file.refresh(keys)
        writing.write(first[100:] + line("CLIENT_RANDOM", OTHER)[:-20])
        assert file.refresh(keys)
        assert keys.find(RANDOM)
        assert keys.find(OTHER) is None
        file = pickle.loads(pickle.dumps(file))
        writing.write(line("CLIENT_RANDOM", OTHER)[-20:])
        assert file.refresh(keys)
        assert keys.find(OTHER)
        assert not file.refresh(keys)
    assert keys.n_bad == 0


def test_a_file_that_is_written_anew(tmp_path):
    path, keys = tmp_path / "keys", KeyLog()
    lines = [line("CLIENT_RANDOM", bytes((i,)) * 32) for i in range(9)]
    path.write_bytes(lines[0] + lines[1] + lines[2][:50])
    file = KeyFile(path)
    assert file.refresh(keys)
    path.write_bytes(lines[3])  # shorter
    assert file.refresh(keys)
    assert keys.find(b"\3" * 32)
    path.write_bytes(lines[4] + lines[5])  # longer: what was read is not there any more
    assert file.refresh(keys)
    assert keys.find(b"\4" * 32)
    new = tmp_path / "new"
    new.write_bytes(lines[4] + lines[5] + lines[6])
    new.replace(path)  # another file
    assert file.refresh(keys)
    assert keys.find(b"\6" * 32)
    path.unlink()
    assert not file.refresh(keys)
    path.write_bytes(lines[7])
    assert file.refresh(keys)
    assert keys.n_secrets == 7
    assert keys.n_bad == 0


def test_a_large_file_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(keylog, "READ_BYTES", 1000)
    path, keys = tmp_path / "keys", KeyLog()
    path.write_bytes(b"".join(line("CLIENT_RANDOM", bytes((i,)) * 32) for i in range(100)))
    assert KeyFile(path).refresh(keys)
    assert (keys.n_secrets, keys.n_bad) == (100, 0)


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        KeyFile(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/null"):
        with pytest.raises(UsageError, match="a key log has to be a regular file"):
            KeyFile(path)
