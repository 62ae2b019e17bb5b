"""Real TLS connections for tests: Python's ssl over memory, and OpenSSL's programs behind a relay that keeps all bytes.

Direction 0 is the client's. Records are cut by their own lengths, here and not with the project's code.
"""

import contextlib
import datetime as dt
import functools
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

PORTS = range(21000, 21999)
PATIENCE_S = 10


class Record(NamedTuple):
    direction: int
    kind: int
    version: int
    body: bytes


def cut(direction, data):
    """The records in one direction's bytes."""
    off = 0
    while off < len(data):
        size = int.from_bytes(data[off + 3 : off + 5], "big")
        yield Record(direction, data[off], int.from_bytes(data[off + 1 : off + 3], "big"), data[off + 5 :][:size])
        off += 5 + size


@functools.cache
def make_certificate(kind="ec"):
    """A throw-away certificate and its key, as the path of one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "chat.example")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = Path(tempfile.mkdtemp(), "certificate.pem")
    path.write_bytes(pem)
    return path


def make_contexts(version=ssl.TLSVersion.TLSv1_3, ciphers=None, certificate="ec"):
    """Contexts of a client and a server that speak this version and, before TLS 1.3, these ciphers."""
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    server.load_cert_chain(make_certificate(certificate))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of versions before 1.2
        for context in (client, server):
            context.minimum_version = version
            context.maximum_version = version
            context.set_ciphers(f"{ciphers or 'ALL'}:@SECLEVEL=0")
            context.set_alpn_protocols(["http/1.1"])
    client.set_alpn_protocols(["h2", "http/1.1"])
    client.keylog_filename = str(Path(tempfile.mkdtemp(), "keys"))
    return client, server


class Wire:
    """Two of Python's SSLObjects joined by hand. `records` in the order in which they were made."""

    def __init__(self, client, server, *, session=None, sni="chat.example", fails=False):
        self.error = None
        self.inward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ends = (
            client.wrap_bio(self.inward[0], self.outward[0], server_hostname=sni, session=session),
            server.wrap_bio(self.inward[1], self.outward[1], server_side=True),
        )
        self.records = []
        self.sent = ([], [])
        done = [False, False]
        while not all(done) and not self.error:
            for i, end in enumerate(self.ends):
                try:
                    if not done[i] and not self.error:
                        end.do_handshake()
                        done[i] = True
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    if not fails:
                        raise
                    self.error = error
                self.flush(i)

    def flush(self, i):
        data = self.outward[i].read()
        self.records += cut(i, data)
        self.inward[1 - i].write(data)

    def send(self, i, data):
        """Send data as one record, and have the other end read it, and whatever came before."""
        self.ends[i].write(data)
        self.flush(i)
        self.sent[i].append(data)
        assert self.ends[1 - i].read(65536) == data

    def close(self, *order):
        """Send close_notify."""
        for i in order:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.ends[i].unwrap()
            self.flush(i)


def talk(contexts, *, session=None, n=3):
    """A short conversation: texts both ways, of any length, then close_notify of both."""
    wire = Wire(*contexts, session=session)
    for k in range(n):
        wire.send(0, b"client says %d" % k + b"x" * 37 * k)
        wire.send(1, b"server says %d" % k + b"y" * 53 * k)
    wire.close(0, 1)
    return wire


LABELS = {
    "early": (0, "CLIENT_EARLY_TRAFFIC_SECRET"),
    "client handshake": (0, "CLIENT_HANDSHAKE_TRAFFIC_SECRET"),
    "server handshake": (1, "SERVER_HANDSHAKE_TRAFFIC_SECRET"),
    "client": (0, "CLIENT_TRAFFIC_SECRET_0"),
    "server": (1, "SERVER_TRAFFIC_SECRET_0"),
}


def _expand(secret, label, n):
    """HKDF-Expand-Label (RFC 8446 section 7.1), by cryptography's HKDF."""
    label = b"tls13 " + label
    info = n.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(hashes.SHA256(), n, info).derive(secret)


def message(kind, body=b""):
    """A handshake message."""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


class Handmade:
    """TLS 1.3 with TLS_AES_128_GCM_SHA256, made by hand: what no endpoint would say, or not when it is wanted."""

    def __init__(self):
        self.random = os.urandom(32)
        self.secrets = {name: os.urandom(32) for name in LABELS}
        self.seqs = dict.fromkeys(LABELS, 0)

    @property
    def keys(self):
        lines = [f"{LABELS[name][1]} {self.random.hex()} {secret.hex()}\n" for name, secret in self.secrets.items()]
        return "".join(lines).encode()

    def client_hello(self, *, early=False):
        extensions = b"\0\x2b\0\3\2\3\4" + (b"\0\x2a\0\0" if early else b"")
        body = b"\3\3" + self.random + b"\0" + b"\0\2\x13\1" + b"\1\0" + len(extensions).to_bytes(2, "big") + extensions
        return Record(0, 22, 0x0301, message(1, body))

    def server_hello(self):
        return Record(1, 22, 0x0303, message(2, b"\3\3" + bytes(32) + b"\0\x13\1\0\0\6\0\x2b\0\2\3\4"))

    def seal(self, name, kind, data, *, padding=0):
        """The next record under the secret with this name."""
        secret, seq = self.secrets[name], self.seqs[name]
        self.seqs[name] += 1
        inner = data + bytes([kind]) + bytes(padding)
        nonce = int.from_bytes(_expand(secret, b"iv", 12), "big") ^ seq
        head = b"\x17\3\3" + (len(inner) + 16).to_bytes(2, "big")
        sealed = AESGCM(_expand(secret, b"key", 16)).encrypt(nonce.to_bytes(12, "big"), inner, head)
        return Record(LABELS[name][0], 23, 0x0303, sealed)

    def update(self, name):
        """A KeyUpdate, after which the next secret is used."""
        record = self.seal(name, 22, message(24, b"\0"))
        self.secrets[name], self.seqs[name] = _expand(self.secrets[name], b"traffic upd", 32), 0
        return record

    def open(self, *, early=False):
        """Records of a handshake, up to the client's Finished."""
        taken = b"\0\x2a\0\0" if early else b""
        return [
            self.client_hello(early=early),
            self.server_hello(),
            self.seal("server handshake", 22, message(8, len(taken).to_bytes(2, "big") + taken)),
            self.seal("server handshake", 22, message(20, bytes(32))),
            self.seal("client handshake", 22, message(20, bytes(32))),
        ]


class Relay:
    """What goes between two sockets, in the order in which it came."""

    def __init__(self, target):
        self.chunks = []
        self.lock = threading.Lock()
        self.port = free_port()
        self.listening = socket.create_server(("127.0.0.1", self.port))
        self.thread = threading.Thread(target=self.work, args=(target,), daemon=True)
        self.thread.start()

    def work(self, target):
        near, _ = self.listening.accept()
        with near, socket.create_connection(("127.0.0.1", target)) as far, self.listening:
            threads = [
                threading.Thread(target=self.copy, args=(*ends, i), daemon=True)
                for i, ends in enumerate(((near, far), (far, near)))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_S)

    def copy(self, source, sink, direction):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self.lock:
                    self.chunks.append((direction, data))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def count_client(self):
        return sum(direction == 0 for direction, _ in self.chunks)

    def wait_for_client(self, n):
        """Until the client has sent something so many times, or never will."""
        deadline = time.monotonic() + 2
        while self.count_client() < n and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)

    def records(self):
        """Records in the order in which their last bytes came."""
        buffers, found = [b"", b""], []
        for direction, data in self.chunks:
            buffers[direction] += data
            while len(buffers[direction]) >= 5:
                size = 5 + int.from_bytes(buffers[direction][3:5], "big")
                if len(buffers[direction]) < size:
                    break
                found += cut(direction, buffers[direction][:size])
                buffers[direction] = buffers[direction][size:]
        return found


class Openssl(NamedTuple):
    """One connection: its records and the client's key log, which holds those before too."""

    records: list
    keys: bytes


def free_port():
    """A port that nobody listens on; parallel runs begin in different places."""
    start = PORTS.start + 20 * (os.getpid() % 45)
    for port in range(start, PORTS.stop):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no free port")


def is_listening(port):
    """By a look at the kernel's table: s_server would take a trial for a client."""
    lines = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    return any(f":{port:04X} " in line and " 0A " in line for line in lines)


def run_openssl(*clients, server=(), lines=(b"one\n",), certificate="ec", echo=True, directory=None):
    """OpenSSL's server, and a client of it for each list of options, one after the other.

    The client says the lines; the server, unless told otherwise, sends each back, the other way round.
    """
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    log = (directory or Path(tempfile.mkdtemp())) / "keys"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    port = free_port()
    command = ["openssl", "s_server", "-accept", str(port), "-cert", make_certificate(certificate), "-quiet"]
    command += ["-rev"] if echo else []
    found = []
    with subprocess.Popen([*command, *server], **pipes) as serving:
        try:
            for _ in range(500):
                if is_listening(port):
                    break
                time.sleep(0.01)
            for options in clients:
                relay = Relay(port)
                command = ["openssl", "s_client", "-connect", f"127.0.0.1:{relay.port}", "-keylogfile", log]
                client = subprocess.Popen([*command, "-servername", "chat.example", *options], **pipes)
                with contextlib.suppress(BrokenPipeError), client as talking:
                    relay.wait_for_client(2)  # its hello, its Finished
                    for line in lines:
                        n = relay.count_client()
                        talking.stdin.write(line)
                        talking.stdin.flush()
                        relay.wait_for_client(n + 1)  # lines read together would not be commands
                    time.sleep(0.1 + 0.1 * len(lines))  # for the answers: the end of input ends the client
                    talking.communicate(timeout=PATIENCE_S)
                relay.thread.join(PATIENCE_S)
                found.append(Openssl(relay.records(), log.read_bytes()))
        finally:
            serving.terminate()
    return found
