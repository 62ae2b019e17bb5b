"""Packets to a pcapng file that every reader of captures takes (draft-ietf-opsawg-pcapng).

Little-endian, times in nanoseconds. Knows nothing of what is inside a packet, and opens no file.
"""

import struct
from typing import BinaryIO

SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET, DECRYPTION_SECRETS = 0x0A0D0D0A, 1, 6, 10
TLS_KEY_LOG = 0x544C534B
"""Type of secrets: lines of a key log (section 4.7)."""

END, NAME, TIME_RESOLUTION = 0, 2, 9
"""Options of an interface (section 4.2)."""

NANOSECONDS = 9


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


class PcapngWriter:
    """Writes one section, as its packets come."""

    def __init__(self, out: BinaryIO) -> None:
        """Begin the section."""
        self._out = out
        self._n_interfaces = 0
        # version 1.0, length of the section not stated
        self._write(SECTION_HEADER, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))

    def _write(self, kind: int, body: bytes) -> None:
        size = struct.pack("<I", 12 + len(body))
        self._out.write(struct.pack("<I", kind) + size + body + size)

    def add_interface(self, link_type: int, name: str | None = None) -> int:
        """Describe an interface; returns its number.

        Args:
            link_type: As files name it.
            name: What the system called it, if that is known.

        """
        options = b"" if name is None else _option(NAME, name.encode("utf-8", "surrogateescape")[:0xFFFF])
        options += _option(TIME_RESOLUTION, bytes([NANOSECONDS])) + _option(END, b"")
        self._write(INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, 0) + options)
        self._n_interfaces += 1
        return self._n_interfaces - 1

    def write_secrets(self, key_log: bytes) -> None:
        """Write a Decryption Secrets Block, before the packets that it opens.

        Args:
            key_log: Lines in the NSS key log format.

        """
        self._write(DECRYPTION_SECRETS, struct.pack("<II", TLS_KEY_LOG, len(key_log)) + _padded(key_log))

    def write(self, interface: int, ts_ns: int, data: bytes, wire_bytes: int) -> None:
        """Write a packet.

        Args:
            interface: Number of its interface.
            ts_ns: Nanoseconds since 1970, 0 or more.
            data: What was captured of it.
            wire_bytes: How long it was on the wire.

        """
        head = struct.pack("<IIIII", interface, ts_ns >> 32, ts_ns & 0xFFFFFFFF, len(data), wire_bytes)
        self._write(ENHANCED_PACKET, head + _padded(data))
