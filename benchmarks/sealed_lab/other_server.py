"""TLS servers that speak no WebSocket: other_server.py DIRECTORY HTTP_PORT LINES_PORT."""

import asyncio
import contextlib
import random
import sys

from aiohttp import web
from script import HOST, server_context, text


async def small(request):
    await request.read()
    return web.json_response({"ok": True, "n": random.randrange(1000)})


async def sized(request):
    return web.Response(text=text(int(request.query.get("n", "300"))))


async def late(request):
    await asyncio.sleep(random.choice((0.2, 0.6)))
    return web.json_response({"event": text(random.choice((5, 30)))})


async def events(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Access-Control-Allow-Origin": "*"})
    await response.prepare(request)
    with contextlib.suppress(Exception):
        for _ in range(12):
            await response.write(f"data: {text(random.choice((2, 20, 60)))}\n\n".encode())
            await asyncio.sleep(0.25)
    return response


async def lines(reader, writer):
    """A protocol of lines, as mail and chat servers speak."""
    with contextlib.suppress(Exception):
        while line := await reader.readline():
            writer.write(b"+OK " + text(random.choice((3, 30, 150))).encode() + b"\r\n" if len(line) < 300 else line)
            await writer.drain()
    writer.close()


async def main(directory, http_port, lines_port):
    app = web.Application()
    app.router.add_route("*", "/small", small)
    app.router.add_get("/sized", sized)
    app.router.add_get("/late", late)
    app.router.add_get("/events", events)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, HOST, int(http_port), ssl_context=server_context(directory, "13")).start()
    await web.TCPSite(runner, HOST, int(http_port) + 10, ssl_context=server_context(directory, "gcm")).start()
    for port, kind in ((int(lines_port), "13"), (int(lines_port) + 10, "gcm")):
        await asyncio.start_server(lines, HOST, port, ssl=server_context(directory, kind))
    await asyncio.sleep(3600)


asyncio.run(main(*sys.argv[1:]))
