"""What the endpoints themselves log, kept apart by side, ready to be committed.

Libraries log at DEBUG under their own names, applications under `chat.client` and `chat.server`. Times are ISO 8601
with `Z`; of the file names in tracebacks only the part from the library on is kept.
"""

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from uvicorn.logging import DefaultFormatter

SIDES = {
    "client": ("chat.client", "websockets.client", "aiohttp.client"),
    "server": ("chat.server", "websockets.server", "aiohttp.", "tornado.", "uvicorn."),
}
"""Loggers of each side by how their names begin; client's first. What no side has, such as asyncio's, is left out."""

PLACE = "%(asctime)s.%(msecs)03dZ"
NATIVE = logging.Formatter(f"{PLACE} %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
UVICORN = DefaultFormatter(f"{PLACE} %(levelprefix)s %(message)s", "%Y-%m-%dT%H:%M:%S", use_colors=False)
NATIVE.converter = UVICORN.converter = time.gmtime

DIRECTORIES = re.compile(r"(?:file://)?/[^\s\"'():]*/(?:node_modules|site-packages|python3\.\d+|sample_captures)/")


def shorten(text: str) -> str:
    """Text without the directories that only this machine has."""
    return DIRECTORIES.sub("", text)


class _Collector(logging.Handler):
    def __init__(self, lines: Mapping[str, list[str]]) -> None:
        super().__init__(logging.DEBUG)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        side = next((side for side, names in SIDES.items() if record.name.startswith(names)), None)
        if side is not None:
            formatter = UVICORN if record.name.startswith("uvicorn.") else NATIVE
            self.lines[side].append(shorten(formatter.format(record)))


@contextmanager
def collect() -> Iterator[dict[str, list[str]]]:
    """The lines of both sides, filled as the block runs."""
    lines: dict[str, list[str]] = {side: [] for side in SIDES}
    collector, root = _Collector(lines), logging.getLogger()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(collector)
        root.setLevel(level)
