"""A slow link between two network namespaces: link.py SERVERS CLIENTS DELAY_S. Runs until it is killed."""

import asyncio
import ctypes
import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

TUNSETIFF, TUN, NO_PACKET_INFORMATION, NEW_NET = 0x400454CA, 0x0001, 0x1000, 0x40000000


def open_tun(namespace: str, address: str) -> int:
    """A TUN device in this namespace; the file stays usable from outside of it."""
    with Path(f"/var/run/netns/{namespace}").open("rb") as place:
        if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), NEW_NET):
            raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"tun0", TUN | NO_PACKET_INFORMATION))
    for line in ("link set lo up", f"addr add {address}/24 dev tun0", "link set tun0 up"):
        subprocess.run(["ip", *line.split()], check=True)
    return device


async def main(servers: str, clients: str, delay_s: str) -> None:
    ends = open_tun(servers, "10.77.0.1"), open_tun(clients, "10.77.0.2")
    loop = asyncio.get_running_loop()

    def forward(source: int, target: int) -> None:
        for _ in range(64):
            try:
                packet = os.read(source, 65536)
            except BlockingIOError:
                return
            loop.call_later(float(delay_s), os.write, target, packet)

    loop.add_reader(ends[0], forward, ends[0], ends[1])
    loop.add_reader(ends[1], forward, ends[1], ends[0])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.sleep(3600)


asyncio.run(main(*sys.argv[1:]))
