"""WebSocket clients of Python libraries: python_client.py LIBRARY CONCURRENT < jobs (JSON lines: id, url, script)."""

import asyncio
import contextlib
import json
import logging
import select
import sys
import threading
import time

from script import Peer, client_context, run, say, text

logging.disable(logging.CRITICAL)


async def follow(peer, script, reader):
    task = asyncio.ensure_future(reader)
    peer.stop_reading = task.cancel
    await asyncio.sleep(0)
    with contextlib.suppress(Exception):
        await run(peer, script)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(peer.is_closed.wait(), 0.5)
    task.cancel()
    with contextlib.suppress(BaseException):
        await task


async def websockets_job(job):
    from websockets.asyncio.client import connect

    ws = await connect(job["url"], ssl=client_context(), ping_interval=None, max_size=None, close_timeout=3)

    class Mine(Peer):
        send, ping = staticmethod(ws.send), staticmethod(ws.ping)

        async def close(self, code, reason):
            await ws.close(code, reason)

        async def empty_close(self):
            async with ws.send_context():
                ws.protocol.send_close()

        def transport(self):
            return ws.transport

    peer = Mine()

    async def read():
        with contextlib.suppress(Exception):
            async for message in ws:
                peer.got(message)
        peer.is_closed.set()

    await follow(peer, job["script"], read())
    return ws.close_code


async def aiohttp_job(job):
    import aiohttp

    async with aiohttp.ClientSession() as session:
        ws = await session.ws_connect(
            job["url"], ssl=client_context(), timeout=aiohttp.ClientWSTimeout(ws_close=3), autoclose=True
        )

        class Mine(Peer):
            send, ping = staticmethod(ws.send_str), staticmethod(ws.ping)

            async def close(self, code, reason):
                await ws.close(code=code, message=reason.encode())

            async def empty_close(self):
                await ws._writer.send_frame(b"", aiohttp.WSMsgType.CLOSE)

            async def write_close(self, code, reason):
                body = code.to_bytes(2, "big") + reason.encode() if code else b""
                await ws._writer.send_frame(body, aiohttp.WSMsgType.CLOSE)

            def transport(self):
                return ws._response.connection.transport

        peer = Mine()

        async def read():
            async for message in ws:
                peer.got(message.data)
            peer.is_closed.set()

        await follow(peer, job["script"], read())
        return ws.close_code


async def tornado_job(job):
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    ws = await websocket_connect(HTTPRequest(job["url"], ssl_options=client_context()))

    class Mine(Peer):
        async def send(self, message):
            await ws.write_message(message)

        async def ping(self, data):
            ws.ping(data)

        async def close(self, code, reason):
            ws.close(code, reason)

        async def empty_close(self):
            ws.close()

        def end(self, how):
            import socket
            import struct

            stream = ws.protocol.stream
            if how == "x":
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how == "n":
                with contextlib.suppress(OSError):
                    stream.socket.unwrap()
            stream.close()

    peer = Mine()

    async def read():
        while (message := await ws.read_message()) is not None:
            peer.got(message)
        peer.is_closed.set()

    await follow(peer, job["script"], read())
    return ws.close_code


def client_job(job):
    """websocket-client, which blocks: a thread reads."""
    import socket
    import struct

    import websocket

    ws = websocket.create_connection(
        job["url"], sslopt={"context": client_context()}, enable_multithread=True, timeout=15
    )
    inbox, closed, codes, stop = [], threading.Event(), [], threading.Event()

    def read():  # leaves the socket before another thread closes it: OpenSSL stands no two at once
        with contextlib.suppress(Exception):
            while not stop.is_set():
                if not ws.sock.pending() and not select.select([ws.sock], [], [], 0.02)[0]:
                    continue
                opcode, data = ws.recv_data(control_frame=True)
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    codes.append(int.from_bytes(data[:2], "big") if data else 1005)
                    break
                if opcode in (1, 2):
                    inbox.append(data)
        closed.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def let_go():
        stop.set()
        reader.join(3)

    with contextlib.suppress(Exception):
        for step in job["script"].split(","):
            verb, value = step[:1], step[1:]
            if verb == "m":
                ws.send(text(int(value)))
            elif verb == "p":
                ws.ping(text(int(value or 0)))
            elif verb == "s":
                time.sleep(int(value) / 1000)
            elif verb == "r":
                until = time.monotonic() + 3
                while not inbox and time.monotonic() < until and not closed.is_set():
                    time.sleep(0.005)
                if inbox:
                    inbox.pop(0)
            elif verb == "w":
                closed.wait(14)
                let_go()
                ws.sock and ws.sock.close()
            elif verb == "c":
                code, _, n = value.partition(".")
                if int(code) == 0:
                    ws.send(b"", websocket.ABNF.OPCODE_CLOSE)
                else:
                    ws.send_close(int(code), text(int(n or 0)).encode())
                closed.wait(3)
                let_go()
                ws.sock and ws.sock.close()
            elif verb == "l":
                code, _, n = value.partition(".")
                ws.send(
                    (int(code).to_bytes(2, "big") + text(int(n or 0)).encode()) if int(code) else b"",
                    websocket.ABNF.OPCODE_CLOSE,
                )
            elif verb == "k":
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)
            elif verb == "x":
                let_go()
                ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                ws.sock.close()
            elif verb == "n":
                let_go()
                ws.sock.settimeout(0.2)
                with contextlib.suppress(OSError):
                    ws.sock.unwrap()
                ws.sock.close()
            elif verb == "h":
                socket.socket.shutdown(ws.sock, socket.SHUT_WR)
            elif verb == "f":
                let_go()
                ws.sock.close()
    closed.wait(0.5)
    let_go()
    if ws.sock is not None:
        ws.sock.close()
    return codes[0] if codes else 1006


async def main(library, concurrent):
    jobs = [json.loads(line) for line in sys.stdin if line.strip()]
    gate = asyncio.Semaphore(int(concurrent))
    run_job = {"websockets": websockets_job, "aiohttp": aiohttp_job, "tornado": tornado_job}.get(library)

    async def one(job):
        async with gate:
            try:
                if run_job is None:
                    code = await asyncio.to_thread(client_job, job)
                else:
                    code = await asyncio.wait_for(run_job(job), 40)
                say(id=job["id"], code=code)
            except Exception as error:  # noqa: BLE001
                say(id=job["id"], error=repr(error)[:200])

    await asyncio.gather(*map(one, jobs))


asyncio.run(main(*sys.argv[1:]))
