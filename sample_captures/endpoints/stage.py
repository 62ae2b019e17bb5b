"""What the two endpoints of a recorded conversation share: address, port, and a place for what their APIs reported."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endpoints import logs, sealing
from endpoints.sealing import Sealing

NODE_ENDPOINT = Path(__file__).with_name("node_endpoint.js")

Step = Sequence[Any]
"""A verb of node_endpoint.js and its arguments."""


@dataclass
class Stage:
    """One conversation.

    Args:
        host: Address the server listens on.
        dial: Address the client connects to; another one only on the delayed link.
        node_path: Directory `node_modules` with ws and undici.
        start_capture: Does nothing while capturing.
        stop_capture: Does nothing while not capturing.
        lines: What either side logs.
        sealing: TLS, if it is spoken.
    """

    host: str
    dial: str
    port: int
    node_path: str
    start_capture: Callable[[], Awaitable[None]]
    stop_capture: Callable[[], Awaitable[None]]
    lines: dict[str, list[str]]
    sealing: Sealing | None = None
    api: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def authority(self) -> str:
        return f"[{self.dial}]:{self.port}" if ":" in self.dial else f"{self.dial}:{self.port}"

    def url(self, path: str = "/chat") -> str:
        return f"{'wss' if self.sealing else 'ws'}://{self.authority}{path}"

    @property
    def server_options(self) -> dict[str, Any]:
        """TLS for a Python server, if it is spoken."""
        return {"ssl": self.sealing.server} if self.sealing else {}

    @property
    def client_options(self) -> dict[str, Any]:
        """TLS for a Python client, if it is spoken."""
        return {"ssl": self.sealing.client, "server_hostname": sealing.NAME} if self.sealing else {}

    def report(self, side: str, *, code: int | None, reason: str | None = None, detail: str | None = None) -> None:
        """Keep what the API of one endpoint said; null fields are left out, TOML has no null."""
        given = {"code": None if code is None else int(code), "reason": reason, "detail": detail}
        self.api[side] = {key: value for key, value in given.items() if value is not None}

    async def reported(self, *sides: str) -> None:
        while not set(sides) <= self.api.keys():
            await asyncio.sleep(0.02)

    def _node(self, *arguments: str) -> Any:
        environment = {**os.environ, "NODE_PATH": self.node_path}
        if self.sealing:
            environment["SERVER_NAME"] = sealing.NAME
            if self.sealing.trusted:
                environment["NODE_EXTRA_CA_CERTS"] = str(self.sealing.certificate)
        pipe = asyncio.subprocess.PIPE
        command = ["node", str(NODE_ENDPOINT), *arguments]
        return asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment)

    def _keep(self, side: str, logged: bytes) -> None:
        self.lines[side] += logs.shorten(logged.decode()).splitlines()

    async def node_client(
        self, *steps: Step, library: str = "ws", path: str = "/chat", subprotocol: str | None = None
    ) -> None:
        """Run a Node client to its end."""
        more = [subprotocol] if subprotocol else []
        process = await self._node("client", library, self.url(path), json.dumps(steps), *more)
        output, logged = await process.communicate()
        self._keep("client", logged)
        self.report("client", **json.loads(output))

    @asynccontextmanager
    async def node_server(self, *steps: Step) -> AsyncIterator[None]:
        """A Node ws server for one connection, waited for at the end of the block."""
        process = await self._node("server", "ws", self.host, str(self.port), json.dumps(steps))
        await process.stdout.readline()
        try:
            yield
            self.report("server", **json.loads(await process.stdout.readline()))
            self._keep("server", await process.stderr.read())
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
