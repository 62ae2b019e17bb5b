# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets of rare link types through scapy: the one module that imports it, and only when there is such a packet.

Scapy takes 0.7 s to import and 0.1 ms a packet.
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Iterator
from typing import Any

from analyzer.model import Counter

LAYERS = {
    105: ("scapy.layers.dot11", "Dot11"),
    119: ("scapy.layers.dot11", "PrismHeader"),
    127: ("scapy.layers.dot11", "RadioTap"),
    163: ("scapy.contrib.avs", "AVSWLANHeader"),
    192: ("scapy.layers.ppi", "PPI"),
}
"""Link types (tcpdump.org/linktypes.html) to scapy's module and layer."""

NEEDED = ("scapy.layers.l2", "scapy.layers.inet", "scapy.layers.inet6", "scapy.layers.dot11")
"""Modules without which scapy does not know what is inside."""

MAX_SUBFRAMES = 64
"""Frames in one aggregated 802.11 frame (A-MSDU), which holds at most 11,454 bytes."""


def can_read(link_type: int) -> bool:
    """Whether packets of this link type are for scapy, and it is installed."""
    return link_type in LAYERS and _layers(link_type) is not None


def to_datagrams(link_type: int, data: bytes) -> tuple[list[bytes], Counter]:
    """The IP packets in a packet of a link type that `can_read` says yes to; never raises.

    Returns:
        The bytes from each IP header on, and as what the packet is counted where there is none.

    """
    layers = _layers(link_type)
    if layers is None:
        return [], Counter.LINK_TYPE
    layer, ip = layers
    try:
        with _quiet():
            return _find(layer(data, stop_dissection_after=ip), ip)
    except Exception:  # noqa: BLE001  scapy promises nothing about hostile bytes
        return [], Counter.MALFORMED


def _find(packet: Any, ip: tuple[Any, ...]) -> tuple[list[bytes], Counter]:
    """Walk scapy's layers to IP; 802.11 in pieces or encrypted stays closed."""
    counter = Counter.NOT_IP
    while packet:
        name = type(packet).__name__
        if isinstance(packet, ip):
            return [bytes(packet.original)], counter
        if name in ("Dot11", "Dot11FCS") and packet.type == 2 and (packet.FCfield.MF or packet.SC & 15):
            return [], Counter.FRAGMENT
        if name in ("Dot11Encrypted", "Dot11WEP", "Dot11TKIP", "Dot11CCMP"):
            return [], Counter.TUNNEL
        if name == "Dot11QoS" and packet.A_MSDU_Present and not hasattr(packet.payload, "key_id"):
            return _split(bytes(packet.payload.original), ip), counter
        packet = packet.payload
    return [], counter


def _split(data: bytes, ip: tuple[Any, ...]) -> list[bytes]:
    """The IP packets in an A-MSDU (IEEE 802.11-2020 section 9.3.2.2.2), which scapy takes for one frame."""
    from scapy.layers.l2 import LLC

    found: list[bytes] = []
    at = 0
    for _ in range(MAX_SUBFRAMES):
        if len(data) - at < 14:
            break
        size = int.from_bytes(data[at + 12 : at + 14], "big")
        packet: Any = LLC(data[at + 14 : at + 14 + size], stop_dissection_after=ip)  # type: ignore[arg-type]
        while packet and not isinstance(packet, ip):
            packet = packet.payload
        if packet:
            found.append(bytes(packet.original))
        at += (14 + size + 3) & ~3
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Scapy warns of missing routes and odd packets, which nobody asked for."""
    import logging  # 5 ms that captures without such packets need not wait for

    logger = logging.getLogger("scapy")
    was_disabled, logger.disabled = logger.disabled, True
    runtime = logging.getLogger("scapy.runtime")
    level = runtime.level
    runtime.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.disabled = was_disabled
        runtime.setLevel(level)


@functools.cache
def _layers(link_type: int) -> tuple[Any, tuple[Any, ...]] | None:
    """Scapy's layer for this link type, and those for IP; None where scapy is not installed or lacks one."""
    module, name = LAYERS[link_type]
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            *_, inet, inet6, _ = (importlib.import_module(needed) for needed in NEEDED)
            return getattr(importlib.import_module(module), name), (inet.IP, inet6.IPv6)
    except Exception:  # noqa: BLE001  whatever it is, the packets are counted as not read
        return None
