"""Real Python servers and clients; each tells the stage what its own API reported, and logs it as applications do."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import tornado.httpserver
import tornado.web
import tornado.websocket
import uvicorn
import websockets
from aiohttp import web
from endpoints.stage import Stage
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, serve
from websockets.sync.client import connect as connect_blocking

CLIENT_LOG, SERVER_LOG = logging.getLogger("chat.client"), logging.getLogger("chat.server")

Script = Callable[[Any], Awaitable[None]]


async def nothing(_: Any) -> None:
    """A script that only listens."""


async def _report_websockets(stage: Stage, side: str, connection: Connection) -> None:
    await connection.wait_closed()
    detail = str(connection.protocol.close_exc)
    logging.getLogger(f"chat.{side}").info("connection closed: %s", detail)
    stage.report(side, code=connection.close_code, reason=connection.close_reason, detail=detail)


@asynccontextmanager
async def websockets_server(stage: Stage, script: Script = nothing, **options: Any) -> AsyncIterator[Server]:
    """websockets: runs the script, then answers every message until the connection ends."""
    watchers = set()

    async def handler(connection: Connection) -> None:
        watchers.add(asyncio.create_task(_report_websockets(stage, "server", connection)))
        await script(connection)
        with suppress(websockets.ConnectionClosedError):
            async for message in connection:
                await connection.send(f"{len(message)} received")

    async with serve(handler, stage.host, stage.port, **stage.server_options, **options) as server:
        yield server


@asynccontextmanager
async def websockets_client(stage: Stage, path: str = "/chat", **options: Any) -> AsyncIterator[ClientConnection]:
    """websockets: the block talks; afterwards the client listens until the connection ends."""
    async with connect(stage.url(path), proxy=None, **stage.client_options, **options) as connection:
        with suppress(websockets.ConnectionClosed):
            yield connection
            async for _ in connection:
                pass
        await _report_websockets(stage, "client", connection)


def websockets_blocking_client(stage: Stage, path: str = "/chat") -> None:
    """websockets without asyncio, for a connection that fails: asyncio ends TCP without sending the TLS alert."""
    try:
        connect_blocking(stage.url(path), proxy=None, **stage.client_options).close()
    except ssl.SSLError as error:
        CLIENT_LOG.error("cannot connect: %s", error)
        stage.report("client", code=None, detail=f"{type(error).__name__}: {error}")


async def _listen(log: logging.Logger, connection: Any) -> dict[str, Any]:
    """Receive to the end, and describe it."""
    message = await connection.receive()
    while message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        message = await connection.receive()
    log.debug("received %s", message)
    log.info("websocket closed close_code=%s exception=%r", connection.close_code, connection.exception())
    data = message.data if isinstance(message.data, int) else repr(message.data)
    detail = f"close_code {connection.close_code}; last message {message.type.name}, data {data}"
    return {"code": connection.close_code, "reason": message.extra or "", "detail": detail}


@asynccontextmanager
async def aiohttp_server(stage: Stage, script: Script = nothing, **options: Any) -> AsyncIterator[None]:
    """aiohttp: `/` is an ordinary page, `/chat` the WebSocket."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="open /chat for the WebSocket\n")

    async def chat(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse(**options)
        await connection.prepare(request)
        await script(connection)
        stage.report("server", **await _listen(SERVER_LOG, connection))
        return connection

    application = web.Application()
    application.add_routes([web.get("/", page), web.get("/chat", chat)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, stage.host, stage.port).start()
    yield
    await stage.reported("server")
    await asyncio.sleep(0.2)
    await runner.cleanup()


async def aiohttp_client(stage: Stage, script: Script = nothing, path: str = "/chat") -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(stage.url(path)) as connection:
        await script(connection)
        stage.report("client", **await _listen(CLIENT_LOG, connection))


@asynccontextmanager
async def uvicorn_server(stage: Stage, implementation: str) -> AsyncIterator[uvicorn.Server]:
    """uvicorn with one of its three WebSocket implementations; what it reports is its ASGI disconnect event."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        event = await receive()
        while event["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "received"})
            event = await receive()
        SERVER_LOG.info("websocket event: %s", event)
        detail = f"websocket.disconnect: code {event['code']:d}, reason {event.get('reason')!r}"
        stage.report("server", code=event["code"], reason=event.get("reason"), detail=detail)

    settings: dict[str, Any] = {"ws": implementation, "log_level": "debug", "log_config": None, "lifespan": "off"}
    server = uvicorn.Server(uvicorn.Config(application, host=stage.host, port=stage.port, **settings))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    yield server
    await stage.reported("server")
    server.should_exit = True
    await task


@asynccontextmanager
async def tornado_server(stage: Stage) -> AsyncIterator[None]:
    class Chat(tornado.websocket.WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            await self.write_message(f"{len(message)} received")

        def on_close(self) -> None:
            SERVER_LOG.info("ws closed close_code=%s close_reason=%s", self.close_code, self.close_reason)
            detail = f"close_code {self.close_code}, close_reason {self.close_reason}"
            stage.report("server", code=self.close_code, reason=self.close_reason, detail=detail)

    server = tornado.httpserver.HTTPServer(tornado.web.Application([("/chat", Chat)]))
    server.listen(stage.port, stage.host)
    yield
    await stage.reported("server")
    await asyncio.sleep(0.2)
    server.stop()
