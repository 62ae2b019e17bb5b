"""A chunk's TCP segments, those among them that came in fragments, or in a frame that only scapy reads.

Fast path and whole path are the same `dissect.scan_packets`: what it leaves aside becomes datagrams in a side buffer,
and is dissected again as raw IP under the number and time of the packet that made it whole. Later steps find payload
by its offset in one buffer, so where there is a side buffer the chunk is copied in front of it (8 MB, about 1 ms).
"""

from typing import NamedTuple

import numpy as np

from analyzer.capture import checksum, dissect, link
from analyzer.capture.container import CHUNK_PACKETS, Chunk
from analyzer.capture.fragment import FragmentTable
from analyzer.model import ASIDE, PACKET, SEGMENT, Counter, Octets, Rows

FOR_SCAPY = frozenset({105, 119, 127, 163, 192})
"""Link types for which scapy is imported; `scapy_io.LAYERS` says how they are read."""

MAX_ROUNDS = 4
"""How often what came out of fragments may be fragments, or a frame for scapy, again."""


class _Side(NamedTuple):
    """Packets made of what was left aside: their bytes, PACKET rows and numbers, and whether fragments are in them."""

    data: Octets
    packets: Rows
    numbers: Rows
    is_joined: bool


class Segmenter:
    """Turns the chunks of one capture into segments and remembers fragments between them; pickles."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._segments = np.zeros(CHUNK_PACKETS, SEGMENT)
        self._aside = np.zeros(CHUNK_PACKETS, ASIDE)
        self._fragments = FragmentTable()

    def __getstate__(self) -> FragmentTable:
        """The fragments; the rest holds nothing between two chunks."""
        return self._fragments

    def __setstate__(self, fragments: FragmentTable) -> None:
        """Take up the fragments."""
        self.__init__()  # type: ignore[misc]
        self._fragments = fragments

    def scan(self, chunk: Chunk, counters: Rows) -> tuple[Octets, Rows]:
        """Dissect a chunk.

        Args:
            chunk: Bytes and packets.
            counters: int64 array by `Counter`, added to.

        Returns:
            The bytes that the segments point into, and the segments in the order of their packets; both are
            overwritten when the next chunk is scanned.

        """
        n, n_aside = dissect.scan_packets(
            chunk.data, chunk.packets, chunk.first_packet, self._segments, self._aside, counters
        )
        if not n_aside:
            return chunk.data, self._segments[:n]
        numbers = np.arange(chunk.first_packet, chunk.first_packet + len(chunk.packets))
        buffers, found = [chunk.data], [self._segments[:n]]
        here = [(_Side(chunk.data, chunk.packets, numbers, False), self._aside[:n_aside])]
        used = len(chunk.data)
        for round_number in range(1, MAX_ROUNDS + 1):
            sides = [side for before, aside in here for side in self._open(before, aside, counters)]
            here = []
            for side in sides:
                segments = np.zeros(len(side.packets), SEGMENT)
                aside = np.zeros(len(side.packets) if round_number < MAX_ROUNDS else 0, ASIDE)
                n, n_aside = dissect.scan_packets(side.data, side.packets, 0, segments, aside, counters)
                segments = segments[:n]
                if side.is_joined:
                    sound = np.empty(n, np.int64)
                    n_sound = checksum.find_sound(side.data, segments, sound)
                    counters[Counter.MALFORMED] += n - n_sound
                    segments = segments[sound[:n_sound]]
                segments["packet"] = side.numbers[segments["packet"]]
                segments["payload_off"] += used
                used += len(side.data)
                buffers.append(side.data)
                found.append(segments)
                if n_aside:
                    here.append((side, aside[:n_aside]))
            if not here:
                break
        if not any(map(len, found[1:])):
            return chunk.data, found[0]
        data = np.concatenate(buffers)
        data.flags.writeable = False
        segments = np.concatenate(found)
        return data, segments[np.argsort(segments["packet"], kind="stable")]

    def _open(self, before: _Side, aside: Rows, counters: Rows) -> list[_Side]:
        """What was left aside of these packets, made into packets of raw IP."""
        is_fragment = aside["why"] == Counter.FRAGMENT
        sides = []
        if not is_fragment.all():
            sides.append(_through_scapy(before, aside[~is_fragment], counters))
        if is_fragment.any():
            joined = self._fragments.join(before.data, before.packets, before.numbers, aside[is_fragment], counters)
            sides.append(_Side(*joined, True))
        for side in sides:
            side.data.flags.writeable = False
        return [side for side in sides if len(side.packets)]


def _scapy_reads(link_type: int) -> bool:
    """Whether scapy reads this link type, and is there; it is imported for those that it reads alone."""
    if link_type not in FOR_SCAPY:
        return False
    try:
        from analyzer.capture import scapy_io
    except ImportError:
        return False
    return scapy_io.can_read(link_type)


def _through_scapy(before: _Side, aside: Rows, counters: Rows) -> _Side:
    """Packets of link types that the kernel does not read."""
    content: list[bytes] = []
    rows: list[tuple[int, int, int, int, int, int]] = []
    numbers: list[int] = []
    used = 0
    readable = {link_type: _scapy_reads(link_type) for link_type in np.unique(aside["link_type"]).tolist()}
    for index, off, end, wire_end, link_type, _ in aside.tolist():
        if not readable[link_type]:
            counters[Counter.LINK_TYPE] += 1
            continue
        from analyzer.capture import scapy_io

        datagrams, counter = scapy_io.to_datagrams(link_type, before.data[off:end].tobytes())
        if not datagrams:
            counters[counter] += 1
        ts_ns = int(before.packets[index]["ts_ns"])
        for datagram in datagrams:
            size = len(datagram)
            rows.append((ts_ns, used, size, size + max(0, wire_end - end), link.RAW, 0))
            numbers.append(int(before.numbers[index]))
            content.append(datagram)
            used += size
    data = np.array(bytearray().join(content), np.uint8)
    return _Side(data, np.array(rows, PACKET), np.array(numbers, np.int64), before.is_joined)
