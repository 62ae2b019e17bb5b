"""What users hear of the keys they gave: which logs are of no use, that nothing was opened, keys that come late."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from conftest import SAMPLES
from packets import pcap, pcapng
from test_cli import lines, wsclose
from test_live import Watching, can_capture
from test_unwrap import BYE, HELLO, header, keys_of, make_talk, write_down
from tlswire import make_contexts

from analyzer import cli, keys
from analyzer.capture import keylog
from analyzer.errors import UsageError
from analyzer.keys import KeyRing
from analyzer.options import Inputs


@pytest.fixture
def sealed(tmp_path):
    """A capture of one connection, and its key log."""
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    return talk.write(tmp_path / "x.pcap"), keys_of(contexts)


def report(*arguments):
    done = wsclose("report", *arguments, "--format", "json")
    return done.returncode, lines(done), json.loads(done.stdout)


def test_keys_that_fit_are_no_cause_for_words(sealed):
    path, log = sealed
    code, said, document = report(path, "--keys", log)
    assert (code, said) == (0, [])
    assert document["keys"] == {"connections": 1, "opened": 1, "has_any": True, "unusable": []}
    assert [row["code"] for row in document["rows"]] == [4001, 4001]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", "empty", "the key log is empty"),
        (bytes(range(256)) * 50, "keyless", "no key in this key log"),
        (b"# nothing here\nCLIENT_RANDOM 12 34\n", "keyless", "no key in this key log"),
        (b"RSA 0123456789abcdef " + b"0" * 96 + b"\n", "keyless", "no key in this key log"),
    ],
)
def test_a_key_log_without_a_key_is_named(sealed, tmp_path, content, status, words):
    path, _ = sealed
    log = tmp_path / "none.log"
    log.write_bytes(content)
    code, said, document = report(path, "--keys", log)
    assert code == 0
    assert [line for line in said if words in line and str(log) in line] == said
    assert document["keys"]["unusable"] == [{"source": str(log), "status": status}]
    text = wsclose("report", path, "--keys", log, environment={"COLUMNS": "500"}).stdout.decode()
    assert f"{log}: {'this key log is empty.' if status == 'empty' else 'no line of this key log is a key.'}" in text
    assert len(lines(wsclose("closes", path, "--keys", log))) == len(said) == 1
    assert lines(wsclose("closes", path, "--keys", log, "-q")) == []


def test_keys_that_opened_nothing(sealed, tmp_path):
    path, _ = sealed
    others = make_contexts()
    make_talk(others, *BYE)
    code, said, document = report(path, "--keys", keys_of(others))
    assert (code, said) == (0, ["wsclose: the keys opened none of 1 encrypted connection"])
    assert (document["keys"]["opened"], document["keys"]["connections"], document["keys"]["has_any"]) == (0, 1, True)
    for lang, words in (("en", "the keys opened none of these connections"), ("zh", "一个也没能解开")):
        done = wsclose("report", path, "--keys", keys_of(others), "--lang", lang, environment={"COLUMNS": "200"})
        assert words in done.stdout.decode()
    html = wsclose("report", path, "--keys", keys_of(others), "--format", "html").stdout.decode()
    assert "the keys opened none of these connections" in html
    # the same keys inside the capture
    talk = write_down(make_talk(make_contexts(), *BYE))
    secrets = keys_of(others).read_bytes()
    secrets += bytes(-len(secrets) % 4)
    body = (0x544C534B).to_bytes(4, "little") + len(secrets).to_bytes(4, "little") + secrets
    size = (len(body) + 12).to_bytes(4, "little")
    inside = tmp_path / "x.pcapng"
    inside.write_bytes(pcapng(talk.packets) + (10).to_bytes(4, "little") + size + body + size)
    assert lines(wsclose("closes", inside)) == ["wsclose: the keys opened none of 1 encrypted connection"]


def test_where_nothing_is_encrypted_keys_are_not_missed(tmp_path):
    others = make_contexts()
    make_talk(others, *BYE)
    plain = SAMPLES / "normal-1000.pcap"
    code, said, document = report(plain, "--keys", keys_of(others))
    assert (code, said) == (0, [])
    assert document["keys"] == {"connections": 0, "opened": 0, "has_any": True, "unusable": []}
    for arguments, data in (([plain], None), (["-"], plain.read_bytes())):
        done = wsclose("report", *arguments, data=data, environment={"SSLKEYLOGFILE": str(tmp_path / "never")})
        assert (done.returncode, done.stderr) == (0, b"")


def test_keys_are_not_blamed_for_tls_that_failed(sealed):
    """No key would have opened it: the report says what does help."""
    failed = SAMPLES / "tls13-unknown-ca.pcap"
    _, log = sealed
    code, said, document = report(failed, "--keys", log)
    assert (code, said) == (0, [])
    assert document["keys"] == {"connections": 0, "opened": 0, "has_any": True, "unusable": []}
    assert document["unseen"]["tls_failed"]["count"] == 1
    assert lines(wsclose("closes", failed, "--keys", log)) == []


def test_lines_that_cannot_be_read_are_counted(sealed, tmp_path):
    path, log = sealed
    mixed = tmp_path / "mixed.log"
    broken = b"CLIENT_RANDOM " + b"ab" * 32 + b" 1234\n"
    mixed.write_bytes(broken * 3 + log.read_bytes())
    code, said, document = report(path, "--keys", mixed)
    assert (code, said) == (0, [])
    assert document["unseen"]["key_lines"]["count"] == 3
    assert "lines of key logs that could not be read" in wsclose("report", path, "--keys", mixed).stdout.decode()


def test_secrets_beyond_the_limit_make_the_result_incomplete(sealed, monkeypatch, capsys):
    path, log = sealed
    monkeypatch.setattr(keylog, "MAX_SECRETS", 2)
    arguments = ["closes", str(path), "--keys", str(log), "--format", "jsonl"]
    code = cli.cli.main(args=arguments, prog_name="wsclose", standalone_mode=False)
    n = sum(not line.startswith("#") and "EXPORTER" not in line for line in log.read_text().splitlines())
    assert code == 4
    assert f"{n - 2} secrets cut by a limit" in capsys.readouterr().err


# ---- key logs that are not there yet


def test_a_missing_key_log_is_refused_where_nothing_can_come(sealed, tmp_path):
    path, _ = sealed
    done = wsclose("report", path, "--keys", tmp_path / "never")
    assert done.returncode == 2
    assert "no such file" in done.stderr.decode()
    with pytest.raises(UsageError):
        KeyRing([tmp_path / "never"])


@pytest.mark.parametrize(
    ("paths", "is_live", "is_kept"), [((), True, True), (("-",), False, True), (("x",), False, False)]
)
def test_sslkeylogfile_is_kept_where_it_may_still_appear(tmp_path, monkeypatch, paths, is_live, is_kept):
    log = tmp_path / "later"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    settings = Inputs(paths).settings(is_live=is_live)
    assert settings.keys == ((log,) if is_kept else ())
    if is_kept:
        assert settings.late_keys
        ring = KeyRing(settings.keys, is_late=True)
        assert not ring.refresh()
        log.write_bytes(b"CLIENT_RANDOM " + b"ab" * 32 + b" " + b"cd" * 48 + b"\n")
        assert ring.refresh()
        assert ring.keys.n_secrets == 1


def test_what_is_no_file_stays_refused_also_late(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UsageError, match="regular file"):
            KeyRing([path], is_late=True)


def test_a_key_log_that_appears_while_a_pipe_is_read(tmp_path):
    contexts = make_contexts()
    talk = write_down(make_talk(contexts, *HELLO, *BYE))
    talk.end()
    log = tmp_path / "later"
    environment = {**os.environ, "PYTHONPATH": str(SAMPLES.parent), "SSLKEYLOGFILE": str(log)}
    command = [sys.executable, "-m", "analyzer", "closes", "-", "--format", "jsonl"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        content, half = pcap(talk.packets), len(pcap(talk.packets[:12]))
        process.stdin.write(content[:half])
        process.stdin.flush()
        time.sleep(1.5)
        log.write_bytes(keys_of(contexts).read_bytes())
        out, err = process.communicate(content[half:], timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert [json.loads(line)["code"] for line in out.splitlines()] == [4001, 4001]


def test_a_key_log_that_never_appears_is_named_once_it_is_missed(tmp_path):
    talk = write_down(make_talk(make_contexts(), *HELLO, *BYE))
    talk.end()
    log = tmp_path / "never"
    done = wsclose("closes", "-", data=pcap(talk.packets), environment={"SSLKEYLOGFILE": str(log)})
    assert (done.returncode, lines(done)) == (0, [f"wsclose: {log}: no such file; no key came from it"])


@can_capture
def test_live_reads_a_key_log_when_it_appears(tmp_path, monkeypatch):
    contexts = make_contexts()
    said = make_talk(contexts, *HELLO, *BYE)
    log = tmp_path / "later"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        watching = Watching("--filter", f"tcp port {port}", "--format", "jsonl", "--count", "2", "--duration", "20")
        if "libpcap" in watching.said[0]:
            watching.__exit__()
            pytest.skip("libpcap is not installed: filters cannot be tried")
        with watching, socket.create_connection(("127.0.0.1", port)) as client:
            server, _ = listening.accept()
            with server:
                for i, record in enumerate(said):
                    if i == 8:
                        time.sleep(0.5)
                        log.write_bytes(keys_of(contexts).read_bytes())
                    ends = (client, server)[:: -1 if record.direction else 1]
                    data = header(record) + record.body
                    ends[0].sendall(data)
                    assert ends[1].recv(len(data), socket.MSG_WAITALL) == data
            client.close()
            rows = [json.loads(watching.take()[1]) for _ in range(2)]
            assert watching.wait() == 0
    assert [row["code"] for row in rows] == [4001, 4001]
    assert f"wsclose: {log}: not there yet; it is read when it appears" in watching.said


def test_sizes_of_what_is_searched_do_not_matter(tmp_path, monkeypatch):
    """A key behind a piece's end, and half of its line before it."""
    monkeypatch.setattr(keys, "SEARCH_BYTES", 100)
    log = tmp_path / "log"
    log.write_bytes(b"#" * 60 + b"\nCLIENT_RANDOM " + b"ab" * 32 + b" " + b"cd" * 48 + b"\n")
    assert keys.weigh_keys([log], {"tls": 0, "tls_opened": 0, "secrets": 0, "skipped_tls_failed": 0})["unusable"] == []
