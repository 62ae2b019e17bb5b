"""Raw sockets for the one side of a conversation that no library will play.

A `Peer` blocks; it runs in a thread beside the event loop of the real endpoint.
"""

import asyncio
import base64
import hashlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from endpoints.stage import Stage

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PATIENCE_S = 8.0


def frame(opcode: int, payload: bytes = b"", *, mask: bool = False) -> bytes:
    """One frame with FIN=1 (RFC 6455 section 5.2), payload below 64 kB."""
    size = len(payload)
    masked = 0x80 if mask else 0
    head = (
        bytes([0x80 | opcode, masked | size]) if size < 126 else struct.pack("!BBH", 0x80 | opcode, masked | 126, size)
    )
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def body(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


class Peer:
    """A connected socket, its opening handshake done by hand."""

    def __init__(self, connected: socket.socket, *, is_client: bool) -> None:
        self.socket = connected
        self.is_client = is_client
        self.buffer = b""
        connected.settimeout(PATIENCE_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _read(self) -> bool:
        received = self.socket.recv(65536)
        self.buffer += received
        return bool(received)

    def _read_exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self._read():
                raise EOFError
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def read_head(self) -> bytes:
        """One HTTP head."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._read():
                raise EOFError
        return self._read_exactly(self.buffer.index(b"\r\n\r\n") + 4)

    def read_page(self) -> None:
        """An ordinary HTTP answer with its body."""
        head = self.read_head().lower()
        self._read_exactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))

    def read_frame(self) -> int:
        """Skip to the end of the next frame, return its opcode."""
        first, second = self._read_exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._read_exactly(2))
        self._read_exactly(size + (4 if second & 0x80 else 0))
        return first & 15

    def read_until(self, opcode: int) -> None:
        while self.read_frame() != opcode:
            pass

    def read_to_end(self) -> None:
        """Read until the other side's FIN or RST."""
        try:
            while self._read():
                pass
        except ConnectionResetError:
            pass

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def frame(self, opcode: int, payload: bytes = b"") -> bytes:
        return frame(opcode, payload, mask=self.is_client)

    def send_in_parts(self, data: bytes, *sizes: int, pause_s: float = 0.1) -> None:
        """Send `data` as segments of these sizes and a last one with the rest."""
        for size in sizes:
            self.send(data[:size])
            data = data[size:]
            time.sleep(pause_s)
        self.send(data)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """End by RST (`SO_LINGER` with a timeout of 0)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def request(self, stage: Stage, path: str = "/chat", *, subprotocols: str = "") -> bytes:
        """Send an opening request, return the head of the answer."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {stage.authority}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Protocol: {subprotocols}"] if subprotocols else []
        self.send("\r\n".join([*lines, "", ""]).encode())
        return self.read_head()

    def accept(self, *, wrong_accept: bool = False) -> None:
        """Answer an opening request with 101."""
        head = self.read_head().decode()
        headers = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in head.split("\r\n")[1:-2])
        key = "not the client's key" if wrong_accept else headers["sec-websocket-key"]
        digest = base64.b64encode(
            hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        ).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        self.send("\r\n".join([*lines, f"Sec-WebSocket-Accept: {digest}", "", ""]).encode())


Script = Callable[[Peer], None]


async def client(stage: Stage, script: Script, *, opened: bool = True, path: str = "/chat") -> None:
    """Connect, open unless told otherwise, run the script in a thread."""

    def work() -> None:
        with socket.create_connection((stage.dial, stage.port)) as connected:
            peer = Peer(connected, is_client=True)
            if opened:
                peer.request(stage, path)
            script(peer)

    await asyncio.to_thread(work)


@asynccontextmanager
async def server(stage: Stage, script: Script, *, wrong_accept: bool = False) -> AsyncIterator[None]:
    """Listen for one connection, answer its opening, run the script; the block's end waits for it."""

    def work(listening: socket.socket) -> None:
        connected, _ = listening.accept()
        with connected:
            peer = Peer(connected, is_client=False)
            peer.accept(wrong_accept=wrong_accept)
            script(peer)

    with socket.create_server((stage.host, stage.port), family=stage.family) as listening:
        listening.settimeout(PATIENCE_S)
        task = asyncio.create_task(asyncio.to_thread(work, listening))
        yield
        await task
