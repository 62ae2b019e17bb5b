"""One function per sample capture: who says what, and how it ends. The name is the capture's, with `_` for `-`."""

import asyncio
import time
from typing import Any

from endpoints import libraries, raw
from endpoints.raw import BINARY, CLOSE, PING, TEXT, Peer, body
from endpoints.stage import Stage

HELLO = ["send", "hello"]


async def normal_1000(stage: Stage) -> None:
    async with libraries.websockets_server(stage):
        await stage.node_client(HELLO, ["message"], ["send", "x" * 2000], ["message"], ["close", 1000, "done"])


async def going_away_1001_client(stage: Stage) -> None:
    async with libraries.aiohttp_server(stage), libraries.websockets_client(stage) as client:
        await client.send("hello")
        await client.close(1001, "leaving the page")


async def shutdown_1001_server(stage: Stage) -> None:
    async with libraries.websockets_server(stage) as server:
        client = asyncio.create_task(stage.node_client(HELLO, ["message"], library="undici"))
        await asyncio.sleep(0.8)
        server.close()
        await server.wait_closed()
        await client


async def protocol_error_1002(stage: Stage) -> None:
    def reserved_opcode(peer: Peer) -> None:
        peer.send(peer.frame(3, b"what is this"))
        peer.read_to_end()

    async with libraries.websockets_server(stage):
        await raw.client(stage, reserved_opcode)


async def protocol_error_1002_uvicorn(stage: Stage) -> None:
    def unmasked(peer: Peer) -> None:
        peer.send(raw.frame(TEXT, b"not masked"))
        peer.read_until(CLOSE)
        peer.send(peer.frame(CLOSE, body(1002)))
        peer.read_to_end()

    async with libraries.uvicorn_server(stage, "websockets-sansio"):
        await raw.client(stage, unmasked)


async def bad_utf8_1007(stage: Stage) -> None:
    def bad_text(peer: Peer) -> None:
        peer.send(peer.frame(TEXT, b"caf\xe9 au lait"))
        peer.read_until(CLOSE)
        peer.read_to_end()

    async with stage.node_server():
        await raw.client(stage, bad_text)


async def too_big_1009(stage: Stage) -> None:
    async with libraries.websockets_server(stage, max_size=1024, compression=None):
        await stage.node_client(["send", "x" * 1000], ["message"], ["send", "x" * 4000])


async def internal_error_1011(stage: Stage) -> None:
    async def fail(connection: Any) -> None:
        await connection.recv()
        raise RuntimeError("a bug in the application")

    async def talk(connection: Any) -> None:
        await connection.send_str("hello")

    async with libraries.websockets_server(stage, fail):
        await libraries.aiohttp_client(stage, talk)


async def restart_1012(stage: Stage) -> None:
    server_side = libraries.uvicorn_server(stage, "websockets-sansio")
    async with server_side as server, libraries.websockets_client(stage) as client:
        await client.send("hello")
        await client.recv()
        server.should_exit = True


async def app_4xxx_reason(stage: Stage) -> None:
    async with stage.node_server(["message"], ["close", 4401, "会话过期 – zaļā"]):
        await stage.node_client(HELLO, library="undici", path="/chat?room=7")


async def empty_close_1005(stage: Stage) -> None:
    async with stage.node_server():
        await stage.node_client(HELLO, ["wait", 50], ["close"])


async def empty_close_aiohttp(stage: Stage) -> None:
    async with libraries.aiohttp_server(stage):
        await stage.node_client(HELLO, ["wait", 50], ["close"], library="undici")


async def fin_no_close_1006(stage: Stage) -> None:
    async def cut(connection: Any) -> None:
        await connection.recv()
        connection.transport.close()

    async with libraries.websockets_server(stage, cut):
        await stage.node_client(HELLO)


async def fin_no_close_uvicorn(stage: Stage) -> None:
    def leave(peer: Peer) -> None:
        peer.send(peer.frame(TEXT, b"hello"))
        peer.read_until(TEXT)

    async with libraries.uvicorn_server(stage, "wsproto"):
        await raw.client(stage, leave)


async def rst_no_close_1006(stage: Stage) -> None:
    async with libraries.websockets_server(stage):
        await stage.node_client(HELLO, ["message"], ["wait", 100], ["reset"])


async def split_close(stage: Stage) -> None:
    def split(peer: Peer) -> None:
        peer.read_until(TEXT)
        peer.send_in_parts(peer.frame(CLOSE, body(1001, "maintenance")), 1, 2, 6)
        peer.read_until(CLOSE)

    async with raw.server(stage, split):
        await stage.node_client(HELLO, library="undici")


async def coalesced_frames(stage: Stage) -> None:
    def all_at_once(peer: Peer) -> None:
        frames = [(TEXT, b"one"), (PING, b"two"), (BINARY, bytes(300)), (CLOSE, body(1000, "all said"))]
        peer.send(b"".join(peer.frame(*one) for one in frames))
        peer.read_to_end()

    async with stage.node_server():
        await raw.client(stage, all_at_once)


async def crossed_closes(stage: Stage) -> None:
    reached = asyncio.Event()

    async def talk(connection: Any) -> None:
        await connection.recv()
        reached.set()
        await connection.close(4000, "server is done")

    async with libraries.websockets_server(stage, talk), libraries.websockets_client(stage) as client:
        await client.send("hello")
        await reached.wait()
        await client.close(4001, "client is done")


async def close_never_answered(stage: Stage) -> None:
    def deaf(peer: Peer) -> None:
        peer.read_until(CLOSE)
        peer.read_to_end()

    async with raw.server(stage, deaf), libraries.websockets_client(stage, close_timeout=0.5) as client:
        await client.send("hello")
        await client.close(1000, "bye")


async def close_answered_by_fin(stage: Stage) -> None:
    async with raw.server(stage, lambda peer: peer.read_until(CLOSE)):
        await stage.node_client(HELLO, ["wait", 50], ["close", 1000, "bye"], library="undici")


async def rejected_403(stage: Stage) -> None:
    def refuse(connection: Any, _: Any) -> Any:
        return connection.respond(403, "token expired\n")

    async with libraries.websockets_server(stage, process_request=refuse):
        await stage.node_client(path="/chat?token=expired")


async def illegal_1006_on_wire(stage: Stage) -> None:
    def send_1006(peer: Peer) -> None:
        peer.send(peer.frame(CLOSE, body(1006, "connection lost")))
        peer.read_until(CLOSE)
        peer.read_to_end()

    async with libraries.tornado_server(stage):
        await raw.client(stage, send_1006)


async def illegal_1006_aiohttp(stage: Stage) -> None:
    def send_1006(peer: Peer) -> None:
        peer.read_until(TEXT)
        peer.send(peer.frame(CLOSE, body(1006, "upstream gone")))
        peer.read_until(CLOSE)

    async def talk(connection: Any) -> None:
        await connection.send_str("hello")

    async with raw.server(stage, send_1006):
        await libraries.aiohttp_client(stage, talk)


async def illegal_1005_refused(stage: Stage) -> None:
    def send_1005(peer: Peer) -> None:
        peer.send(peer.frame(CLOSE, body(1005)))
        peer.read_to_end()

    async with stage.node_server():
        await raw.client(stage, send_1005)


def _one_byte(peer: Peer) -> None:
    peer.send(peer.frame(CLOSE, b"\x03"))
    peer.read_until(CLOSE)
    peer.read_to_end()


async def one_byte_close(stage: Stage) -> None:
    async with libraries.websockets_server(stage):
        await raw.client(stage, _one_byte)


async def one_byte_close_tornado(stage: Stage) -> None:
    async with libraries.tornado_server(stage):
        await raw.client(stage, _one_byte)


async def late_close(stage: Stage) -> None:
    def answer_too_late(peer: Peer) -> None:
        peer.read_to_end()
        peer.send(peer.frame(CLOSE, body(1000, "goodbye")))
        time.sleep(0.2)

    async with raw.server(stage, answer_too_late):
        await stage.node_client(HELLO, ["wait", 100], ["terminate"])


async def half_close(stage: Stage) -> None:
    def answer(peer: Peer) -> None:
        peer.read_to_end()
        peer.send(peer.frame(CLOSE, body(1001, "you left")))
        time.sleep(0.2)

    async with raw.server(stage, answer), libraries.websockets_client(stage) as client:
        await client.send("hello")
        client.transport.write_eof()


async def close_then_rst(stage: Stage) -> None:
    def close_and_reset(peer: Peer) -> None:
        peer.read_until(TEXT)
        time.sleep(0.1)
        peer.send(peer.frame(CLOSE, body(1000, "in a hurry")))
        time.sleep(0.3)  # long enough for the kernel of a busy server to acknowledge it
        peer.reset()

    async with stage.node_server(["send", "welcome"], ["wait", 50], ["block", 600]):
        await raw.client(stage, close_and_reset)


async def close_then_rst_unacked(stage: Stage) -> None:
    def close_and_reset(peer: Peer) -> None:
        peer.read_until(TEXT)
        time.sleep(0.1)
        peer.send(peer.frame(CLOSE, body(1000, "in a hurry")))
        peer.reset()

    async with stage.node_server(["send", "welcome"], ["wait", 50], ["block", 300]):
        await raw.client(stage, close_and_reset)


async def ping_no_pong(stage: Stage) -> None:
    async with libraries.websockets_server(stage, ping_interval=0.4, ping_timeout=0.4, close_timeout=0.4):
        await raw.client(stage, Peer.read_to_end)


async def keepalive_then_upgrade(stage: Stage) -> None:
    def page_then_upgrade(peer: Peer) -> None:
        peer.send(f"GET / HTTP/1.1\r\nHost: {stage.authority}\r\nConnection: keep-alive\r\n\r\n".encode())
        peer.read_page()
        peer.request(stage, subprotocols="chat.v2, chat.v1")
        peer.read_until(TEXT)
        peer.send(peer.frame(TEXT, b"hello"))
        peer.read_until(CLOSE)
        peer.send(peer.frame(CLOSE, body(1000)))
        peer.read_to_end()

    async def talk(connection: Any) -> None:
        await connection.send_str("welcome")
        await connection.receive()
        await connection.close(code=1000, message=b"nothing more")

    async with libraries.aiohttp_server(stage, talk, protocols=["chat.v1", "chat.v2"]):
        await raw.client(stage, page_then_upgrade, opened=False)


async def wrong_accept(stage: Stage) -> None:
    async with raw.server(stage, Peer.read_to_end, wrong_accept=True):
        await stage.node_client()


async def capture_ends_first(stage: Stage) -> None:
    async with libraries.websockets_server(stage), libraries.websockets_client(stage) as client:
        await client.send("hello")
        await client.recv()
        await asyncio.sleep(0.2)
        await stage.stop_capture()
        await client.close(1000)


async def capture_begins_later(stage: Stage) -> None:
    async with libraries.websockets_server(stage), libraries.websockets_client(stage) as client:
        await client.send("before the capture")
        await client.recv()
        await stage.start_capture()
        await client.send("in the capture")
        await client.recv()
        await client.close(3000, "unauthorized")


async def snaplen_cut_close(stage: Stage) -> None:
    def text_and_close(peer: Peer) -> None:
        peer.read_until(TEXT)
        # 66 bytes of headers, 4 + 426 of text frame, 2 of Close header: the capture keeps 498 bytes of each packet
        peer.send(peer.frame(TEXT, b"x" * 426) + peer.frame(CLOSE, body(1013, "try again later")))
        peer.read_until(CLOSE)

    async with raw.server(stage, text_and_close):
        await stage.node_client(HELLO)


async def tls13_normal_1000(stage: Stage) -> None:
    await normal_1000(stage)


async def tls12_app_4000(stage: Stage) -> None:
    async def talk(connection: Any) -> None:
        await connection.recv()
        await connection.close(4000, "session expired")

    async with libraries.websockets_server(stage, talk), libraries.websockets_client(stage) as client:
        await client.send("hello")


async def tls13_empty_close_1005(stage: Stage) -> None:
    async with libraries.websockets_server(stage):
        await stage.node_client(HELLO, ["message"], ["wait", 50], ["close"])


async def tls12_fin_no_close_1006(stage: Stage) -> None:
    await fin_no_close_1006(stage)


async def tls13_secrets_block(stage: Stage) -> None:
    async with libraries.websockets_server(stage), libraries.websockets_client(stage) as client:
        await client.send("hello")
        await client.recv()
        await client.close(1001, "leaving the page")


async def tls13_unknown_ca(stage: Stage) -> None:
    async with libraries.websockets_server(stage):
        await asyncio.to_thread(libraries.websockets_blocking_client, stage)
