"""What an endpoint of the lab does, as a short script: steps joined by commas.

m20  send a text message of 20 bytes        p4   send a Ping with 4 bytes
r    wait for one message                   s300 sleep 300 ms
e    echo until closed; e500 for 500 ms     w    wait until the other side has ended it
c1000.5  Close with a reason of 5 bytes     c0   Close without a body
f    TCP FIN, no TLS close_notify           n    TLS close_notify, no Close
h    FIN, but go on reading                 x    RST
k    kill this process                      q    return, the library closes as it likes
d    (first) read nothing, ever             i    (browser) drop the document that holds the socket
z    read nothing from now on               l1000.5  write a Close and do nothing about it
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import struct
import sys

HOST = os.environ.get("LAB_HOST", "127.0.0.1")

WORDS = "the quick brown fox jumps over the lazy dog and runs "


def text(n: int) -> str:
    """Text of n bytes that does not compress to nothing."""
    start = random.randrange(50)
    return (
        "".join(random.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(n))
        if n < 4000
        else (WORDS * (n // 50 + 2))[start : start + n]
    )


class Peer:
    """One side of a WebSocket; a library fills in the verbs."""

    def __init__(self):
        self.inbox: asyncio.Queue = asyncio.Queue()
        self.is_closed = asyncio.Event()
        self.is_echoing = False

    async def send(self, message): ...
    async def ping(self, data): ...
    async def close(self, code, reason): ...
    async def empty_close(self):
        await self.close(1000, "")

    async def write_close(self, code, reason):
        """Write a Close frame past the library's closing handshake."""
        raise RuntimeError("cannot")

    def stop_reading(self):
        pass

    def transport(self):
        return None

    def got(self, message):
        self.inbox.put_nowait(message)

    def end(self, how):
        transport = self.transport()
        if transport is None:
            raise RuntimeError("no transport")
        sock = transport.get_extra_info("socket")
        if how == "x":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        elif how == "f":
            transport.abort()
        elif how == "h":
            sock.shutdown(socket.SHUT_WR)
        elif how == "n":
            transport.close()


async def run(peer: Peer, script: str) -> None:
    """Follow a script; what the library raises ends it."""
    for step in script.split(","):
        verb, value = step[:1], step[1:]
        if verb == "m":
            await peer.send(text(int(value)))
        elif verb == "p":
            await peer.ping(text(int(value or 0)).encode())
        elif verb == "s":
            await asyncio.sleep(int(value) / 1000)
        elif verb == "r":
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(peer.inbox.get(), 3)
        elif verb == "e":
            peer.is_echoing = True
            while not peer.inbox.empty():
                await peer.send(peer.inbox.get_nowait())
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(peer.is_closed.wait(), int(value) / 1000 if value else 20)
            peer.is_echoing = False
        elif verb == "w":
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(peer.is_closed.wait(), 14)
        elif verb == "c":
            code, _, n = value.partition(".")
            if int(code) == 0:
                await peer.empty_close()
            else:
                await peer.close(int(code), text(int(n or 0)))
        elif verb == "l":
            code, _, n = value.partition(".")
            await peer.write_close(int(code), text(int(n or 0)))
        elif verb == "z":
            peer.stop_reading()
        elif verb == "k":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb in "fxnh":
            peer.end(verb)
        elif verb == "q":
            return


def server_context(directory: str, kind: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
    context.keylog_filename = f"{directory}/keys-{os.getpid()}.log"
    context.set_alpn_protocols(["http/1.1"])
    limit(context, kind)
    return context


CIPHERS = {
    "gcm": "ECDHE-RSA-AES128-GCM-SHA256",
    "chacha": "ECDHE-RSA-CHACHA20-POLY1305",
    "cbc": "ECDHE-RSA-AES128-SHA:AES128-SHA",
    "cbcmte": "ECDHE-RSA-AES128-SHA:AES128-SHA",
}


def limit(context: ssl.SSLContext, kind: str) -> None:
    if kind != "13":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS[kind])
    if kind == "cbcmte":
        context.options |= 1 << 19  # SSL_OP_NO_ENCRYPT_THEN_MAC


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT")  # Python's own choice leaves CBC out
    return context


def say(**fields) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
