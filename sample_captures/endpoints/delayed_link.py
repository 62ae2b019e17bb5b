"""A link with latency, for Closes that really cross: a TUN device in a network namespace of its own.

Whatever is sent to the far address comes back after a while with its two addresses exchanged, so that a client which
dials the far address meets the server on the near one, each believing the other far away. Exchanging addresses leaves
IP and TCP checksums valid.
"""

import asyncio
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

NEAR, FAR = "192.0.2.1", "192.0.2.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@contextmanager
def open_link(delay_s: float = 0.02) -> Iterator[None]:
    """Create `tun0` and forward on the running event loop; use it under `unshare --net` only."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", b"tun0", _IFF_TUN | _IFF_NO_PI))
    for command in ("link set lo up", f"addr add {NEAR}/24 dev tun0", "link set tun0 up"):
        subprocess.run(["ip", *command.split()], check=True)
    loop = asyncio.get_running_loop()

    def forward() -> None:
        packet = os.read(device, 65536)
        if packet[0] >> 4 == 4:
            turned = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
            loop.call_later(delay_s, os.write, device, turned)

    loop.add_reader(device, forward)
    yield
    loop.remove_reader(device)
    os.close(device)
