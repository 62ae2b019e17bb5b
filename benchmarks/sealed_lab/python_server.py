"""WebSocket servers of Python libraries: python_server.py LIBRARY DIRECTORY KIND=PORT..."""

import asyncio
import contextlib
import logging
import sys
from urllib.parse import parse_qs, urlsplit

from script import HOST, Peer, run, server_context

logging.disable(logging.CRITICAL)


def script_of(path: str) -> str:
    return parse_qs(urlsplit(path).query).get("s", ["e"])[0]


async def follow(peer: Peer, script: str, reader) -> None:
    """Run a script while a reader reads, unless it is to be deaf."""
    task = None if script.startswith("d") else asyncio.ensure_future(reader)
    if task is None:
        reader.close()
    else:
        peer.stop_reading = task.cancel
    with contextlib.suppress(Exception):
        await run(peer, script.removeprefix("d,"))
    if task is not None:
        task.cancel()
        with contextlib.suppress(BaseException):
            await task


async def received(peer, message):
    if peer.is_echoing:
        with contextlib.suppress(Exception):
            await peer.send(message)
    else:
        peer.got(message)


async def serve_websockets(directory, ports):
    from websockets.asyncio.server import serve

    class Mine(Peer):
        def __init__(self, ws):
            super().__init__()
            self.ws, self.send, self.ping = ws, ws.send, ws.ping

        async def close(self, code, reason):
            await self.ws.close(code, reason)

        async def empty_close(self):
            async with self.ws.send_context():
                self.ws.protocol.send_close()

        def transport(self):
            return self.ws.transport

    async def handler(ws):
        peer = Mine(ws)

        async def read():
            with contextlib.suppress(Exception):
                async for message in ws:
                    await received(peer, message)
            peer.is_closed.set()

        await follow(peer, script_of(ws.request.path), read())

    for kind, port in ports:
        await serve(handler, HOST, port, ssl=server_context(directory, kind), ping_interval=None, max_size=None)


async def serve_aiohttp(directory, ports):
    from aiohttp import WSMsgType, web

    class Mine(Peer):
        def __init__(self, ws, request):
            super().__init__()
            self.ws, self.request, self.send, self.ping = ws, request, ws.send_str, ws.ping

        async def close(self, code, reason):
            await self.ws.close(code=code, message=reason.encode())

        async def empty_close(self):
            await self.ws._writer.send_frame(b"", WSMsgType.CLOSE)

        async def write_close(self, code, reason):
            body = code.to_bytes(2, "big") + reason.encode() if code else b""
            await self.ws._writer.send_frame(body, WSMsgType.CLOSE)

        def transport(self):
            return self.request.transport

    async def handler(request):
        ws = web.WebSocketResponse(timeout=3)
        await ws.prepare(request)
        peer = Mine(ws, request)

        async def read():
            async for message in ws:
                await received(peer, message.data)
            peer.is_closed.set()

        await follow(peer, script_of(request.path_qs), read())
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    for kind, port in ports:
        await web.TCPSite(runner, HOST, port, ssl_context=server_context(directory, kind)).start()


async def serve_tornado(directory, ports):
    from tornado.httpserver import HTTPServer
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

    class Mine(Peer):
        def __init__(self, handler):
            super().__init__()
            self.handler = handler
            self.stream = handler.ws_connection.stream

        async def send(self, message):
            await self.handler.write_message(message)

        async def ping(self, data):
            self.handler.ping(data)

        async def close(self, code, reason):
            self.handler.close(code, reason)

        async def empty_close(self):
            self.handler.close()

        def end(self, how):
            end_tornado(self.stream, how)

    class Handler(WebSocketHandler):
        def check_origin(self, origin):
            return True

        def open(self):
            self.peer = Mine(self)

            async def nothing():
                await asyncio.sleep(60)

            self.task = asyncio.ensure_future(
                follow(self.peer, script_of(self.request.uri).removeprefix("d,"), nothing())
            )

        async def on_message(self, message):
            await received(self.peer, message)

        def on_close(self):
            self.peer.is_closed.set()

    for kind, port in ports:
        HTTPServer(Application([("/", Handler)]), ssl_options=server_context(directory, kind)).listen(port, HOST)


def end_tornado(stream, how):
    import socket
    import struct

    sock = stream.socket
    if how == "x":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "n":
        with contextlib.suppress(OSError):
            sock.unwrap()
    if how == "h":
        socket.socket.shutdown(sock, socket.SHUT_WR)
    else:
        stream.close()


async def serve_uvicorn(directory, ports, ws="websockets-sansio"):
    import uvicorn

    class Mine(Peer):
        def __init__(self, asgi_send):
            super().__init__()
            self.asgi = asgi_send

        async def send(self, message):
            await self.asgi({"type": "websocket.send", "text": message})

        async def close(self, code, reason):
            await self.asgi({"type": "websocket.close", "code": code, "reason": reason})

    async def app(scope, receive, send):
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        peer = Mine(send)

        async def read():
            while True:
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    break
                await received(peer, event.get("text") or "")
            peer.is_closed.set()

        await follow(peer, script_of("/?" + scope["query_string"].decode()), read())

    for kind, port in ports:
        config = uvicorn.Config(
            app, host=HOST, port=port, ws=ws, log_level="critical", lifespan="off", ws_ping_interval=1.3,
            ssl_certfile=f"{directory}/cert.pem", ssl_keyfile=f"{directory}/key.pem",
        )  # fmt: skip
        config.load()
        config.ssl = server_context(directory, kind)
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None
        asyncio.ensure_future(server.serve())


async def main(library, directory, *ports):
    pairs = [(kind, int(port)) for kind, _, port in (p.partition("=") for p in ports)]
    if library.startswith("uvicorn"):
        await serve_uvicorn(directory, pairs, {"uvicorn": "websockets-sansio", "uvicorn-wsproto": "wsproto"}[library])
    else:
        await {"websockets": serve_websockets, "aiohttp": serve_aiohttp, "tornado": serve_tornado}[library](
            directory, pairs
        )
    await asyncio.sleep(3600)


asyncio.run(main(*sys.argv[1:]))
