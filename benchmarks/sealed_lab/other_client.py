"""What speaks TLS and no WebSocket: other_client.py HTTP_PORT HTTP2_PORT LINES_PORT."""

import asyncio
import http.client
import random
import shutil
import socket
import subprocess
import sys
import time

import aiohttp
from script import HOST, client_context, text

NAME = "localhost" if HOST == "127.0.0.1" else HOST


def standard(port, method, paths, pause):
    connection = http.client.HTTPSConnection(NAME, port, context=client_context())
    for path in paths:
        body = text(random.choice((2, 12, 30))) if method == "POST" else None
        connection.request(
            method, path, body, {"User-Agent": "lab", "Authorization": "Bearer " + text(random.choice((5, 40)))}
        )
        connection.getresponse().read()
        time.sleep(pause)
    connection.close()


async def pooled(port, paths, pause, method="GET"):
    async with aiohttp.ClientSession() as session:
        for path in paths:
            body = text(random.choice((2, 12, 30))).encode() if method == "POST" else None
            async with session.request(
                method, f"https://{NAME}:{port}{path}", ssl=client_context(), data=body
            ) as response:
                await response.read()
            await asyncio.sleep(pause)


def talk(port, first_size):
    sock = client_context().wrap_socket(socket.create_connection((HOST, port)), server_hostname=NAME)
    sock.sendall(text(first_size).encode() + b"\n")
    sock.recv(4096)
    for _ in range(random.randint(2, 6)):
        sock.sendall(text(random.choice((2, 10, 30, 200))).encode() + b"\n")
        sock.recv(4096)
        time.sleep(random.choice((0.01, 0.1)))
    sock.close()


def main(http_port, http2_port, lines_port):
    for port in (http_port, http_port + 10):
        standard(port, "GET", ["/small"] * 6, 0.1)
        standard(port, "GET", ["/sized?n=5", "/sized?n=90", "/sized?n=20"], 0.05)
        standard(port, "POST", ["/small"] * 5, 0.1)
        standard(port, "GET", ["/late"] * 4, 0)
        asyncio.run(pooled(port, ["/small"] * 5, 0.1))
        asyncio.run(pooled(port, ["/small"] * 5, 0.1, "POST"))
        asyncio.run(pooled(port, ["/sized?n=3000", "/sized?n=100000"], 0))
        asyncio.run(pooled(port, ["/events"], 0))
        asyncio.run(pooled(port, ["/late"] * 5, 0))
    if shutil.which("curl"):
        for flag in ("--http1.1", "--http2"):
            for port, path in ((http2_port, "/a"), (http_port, "/small")):
                urls = [f"https://{NAME}:{port}{path}?{i}" for i in range(4)]
                subprocess.run(["curl", "-sk", flag, *urls], capture_output=True, check=False, timeout=20)
                subprocess.run(["curl", "-sk", flag, "-d", "x=12", *urls], capture_output=True, check=False, timeout=20)
    for port in (lines_port, lines_port + 10):
        for first_size in (5, 60, 160, 200, 400):
            talk(port, first_size)


main(*map(int, sys.argv[1:]))
