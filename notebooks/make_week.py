"""Makes the week of logs that notebook 03 reads: two real servers and their clients on loopback, with a fast clock.

`python notebooks/make_week.py notebooks/week` runs for ten minutes (it needs websockets and aiohttp). Everything on the
wire and every close code in the logs is what the programs really sent and were told by their libraries; only the clock
that stamps the lines, and that durations are taken from, runs SPEED times as fast, so that ten minutes make a week.

`chat` is a websockets server whose application logs the exception that ends a connection. `feed` is an aiohttp server
that logs JSON, behind a relay which cuts connections that were silent for 60 s, as many proxies do.

What happens in the week: a restart on Tuesday and one on Thursday; between 10 and 12 on Thursday a defect in the chat's
handler; and from Wednesday on, feed clients of a new release send their heartbeat every 90 s instead of every 30 s.
"""

import asyncio
import contextlib
import datetime as dt
import gzip
import json
import logging
import random
import sys
import time
from pathlib import Path

import aiohttp
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

SPEED = 1000.0
START = dt.datetime(2026, 11, 9, tzinfo=dt.UTC)
"""A Monday."""

DAY_S = 86400.0
WEEK_S = 7 * DAY_S
IDLE_LIMIT_S = 60.0
RESTARTS_S = (1 * DAY_S + 14 * 3600, 3 * DAY_S + 10 * 3600)
DEFECT_S = (3 * DAY_S + 10 * 3600, 3 * DAY_S + 12 * 3600)
NEW_RELEASE_S = 2 * DAY_S
CONNECTIONS_PER_HOUR = 14
EMPTY_CLOSE = b"\x88\x80\x00\x00\x00\x00"
"""A masked Close without a body, as a browser's close() sends it."""


class Clock:
    """The fast clock."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def now_s(self) -> float:
        """Seconds since START."""
        return (time.monotonic() - self._began) * SPEED

    def instant(self) -> dt.datetime:
        """The time that logs are stamped with."""
        return START + dt.timedelta(seconds=self.now_s())

    @staticmethod
    async def sleep(seconds: float) -> None:
        """Wait so long by this clock."""
        await asyncio.sleep(seconds / SPEED)


CLOCK = Clock()


class Daily:
    """A log that is rotated at midnight."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._days: dict[str, list[str]] = {}

    def write(self, line: str) -> None:
        self._days.setdefault(CLOCK.instant().date().isoformat(), []).append(line)

    def save(self, directory: Path) -> None:
        stem, _, suffix = self._name.partition(".")
        for day, lines in self._days.items():
            content = "".join(f"{line}\n" for line in lines).encode()
            packed = gzip.compress(content, mtime=0)
            (directory / f"{stem}-{day}.{suffix}.gz").write_bytes(packed)


CHAT, FEED = Daily("chat.log"), Daily("feed.jsonl")


def log_chat(level: str, message: str) -> None:
    stamp = CLOCK.instant()
    CHAT.write(f"{stamp:%Y-%m-%d %H:%M:%S},{stamp.microsecond // 1000:03d} {level} chat {message}")


async def chat_handler(connection) -> None:
    path = connection.request.path
    log_chat("INFO", f"{path} joined")
    try:
        async for message in connection:
            if message == "token-expired":
                await connection.close(4401, "token expired")
            is_defect = DEFECT_S[0] <= CLOCK.now_s() < DEFECT_S[1]
            if is_defect and message == "hello":
                raise RuntimeError("no such room")
            await connection.send(message)
        await connection.wait_closed()
        raise connection.protocol.close_exc
    except ConnectionClosed as end:
        ok = end.rcvd is not None and end.rcvd.code in (1000, 1001)
        log_chat("INFO" if ok else "WARNING", f"{path} left: {type(end).__module__}.{type(end).__name__}: {end}")
    except RuntimeError as error:
        log_chat("ERROR", f"{path} handler failed: {error}")
        await connection.close(1011, "internal error")
        end = connection.protocol.close_exc
        log_chat("ERROR", f"{path} left: {type(end).__module__}.{type(end).__name__}: {end}")


async def chat_client(port: int, rng: random.Random) -> None:
    ways = ("leave", "logout", "script", "gone", "expired", "large")
    (way,) = rng.choices(ways, weights=(45, 25, 10, 15, 3, 2))
    length_s = min(rng.lognormvariate(6.5, 1.0), 4 * 3600)
    with contextlib.suppress(ConnectionClosed, OSError):
        async with connect(f"ws://127.0.0.1:{port}/rooms/{rng.randint(1, 9)}") as connection:
            await connection.send("hello")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(length_s / SPEED):
                    async for _ in connection:
                        pass
                    return
            if way == "leave":
                await connection.close(1001)
            elif way == "logout":
                await connection.close(1000, "logout")
            elif way == "script":
                connection.transport.write(EMPTY_CLOSE)
                await connection.wait_closed()
            elif way == "gone":
                connection.transport.abort()
            elif way == "expired":
                await connection.send("token-expired")
                await connection.wait_closed()
            else:
                await connection.send("x" * (2 << 20))
                await connection.wait_closed()


async def feed_handler(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    opened = CLOCK.now_s()
    async for message in response:
        if message.type is aiohttp.WSMsgType.TEXT:
            await response.send_str("tick")
    FEED.write(
        json.dumps(
            {
                "ts": f"{CLOCK.instant():%Y-%m-%dT%H:%M:%S.%fZ}",
                "level": "info",
                "msg": "websocket closed",
                "code": response.close_code,
                "host": request.headers["Host"],
                "path": request.path,
                "user_agent": request.headers["User-Agent"],
                "duration_s": round(CLOCK.now_s() - opened, 3),
            }
        )
    )
    return response


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Pass bytes on; cut both sides once neither has spoken for IDLE_LIMIT_S."""
    behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
    last_s = CLOCK.now_s()

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        nonlocal last_s
        while data := await source.read(65536):
            last_s = CLOCK.now_s()
            target.write(data)
            await target.drain()

    async def watch() -> None:
        while CLOCK.now_s() - last_s < IDLE_LIMIT_S:
            await CLOCK.sleep(last_s + IDLE_LIMIT_S - CLOCK.now_s())

    tasks = [
        asyncio.ensure_future(job) for job in (pass_on(reader, behind_writer), pass_on(behind_reader, writer), watch())
    ]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for end in (writer, behind_writer):
        end.close()


async def feed_client(port: int, rng: random.Random) -> None:
    is_new = CLOCK.now_s() >= NEW_RELEASE_S and rng.random() < 0.6
    agent, heartbeat_s = ("feed-app/2.3", 90.0) if is_new else ("feed-app/2.2", 30.0)
    host = rng.choice(("feed.example.org", "feed.example.net"))
    until_s = CLOCK.now_s() + min(rng.lognormvariate(6.0, 0.9), 2 * 3600)
    headers = {"Host": host, "User-Agent": agent}
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{port}/v1/{rng.choice(('prices', 'news'))}", headers=headers) as ws,
        ):
            while CLOCK.now_s() < until_s and not ws.closed:
                await ws.send_str("beat")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat_s / SPEED):
                        while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
                            pass
                        return
            await ws.close(code=1000 if rng.random() < 0.7 else 1001)


async def arrive(client, ports: dict[str, int], name: str, rng: random.Random) -> None:
    """Let clients come all week, fewer at night and at the weekend."""
    running: set[asyncio.Task[None]] = set()
    while (now := CLOCK.now_s()) < WEEK_S:
        hour, day = now % DAY_S / 3600, int(now // DAY_S)
        busy = (0.25 if hour < 6 else 1.0 if hour < 20 else 0.6) * (0.4 if day >= 5 else 1.0)
        await CLOCK.sleep(rng.expovariate(CONNECTIONS_PER_HOUR * busy / 3600))
        task = asyncio.ensure_future(client(ports[name], rng))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running, return_exceptions=True)


async def run_chat(ports: dict[str, int], ready: asyncio.Event) -> None:
    for until_s in (*RESTARTS_S, WEEK_S * 1.02):
        server = await serve(
            chat_handler, "127.0.0.1", ports.get("chat", 0), ping_interval=None, max_size=1 << 20, compression=None
        )
        ports["chat"] = server.sockets[0].getsockname()[1]
        ready.set()
        await CLOCK.sleep(until_s - CLOCK.now_s())
        log_chat("INFO", "restarting")
        server.close(code=1012, reason="restart")
        await server.wait_closed()


async def main(directory: Path) -> None:
    logging.disable()
    rng = random.Random(20261109)
    ports: dict[str, int] = {}
    ready = asyncio.Event()
    chat = asyncio.ensure_future(run_chat(ports, ready))
    app = web.Application()
    app.router.add_get("/v1/{what}", feed_handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    behind = runner.addresses[0][1]
    front = await asyncio.start_server(lambda r, w: relay(r, w, behind), "127.0.0.1", 0)
    ports["feed"] = front.sockets[0].getsockname()[1]
    await ready.wait()
    await asyncio.gather(
        arrive(chat_client, ports, "chat", rng),
        arrive(feed_client, ports, "feed", random.Random(9)),
        return_exceptions=True,
    )
    await chat
    front.close()
    await runner.cleanup()
    directory.mkdir(parents=True, exist_ok=True)
    for log in (CHAT, FEED):
        log.save(directory)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
