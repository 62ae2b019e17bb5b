"""One connection's packets, copied whole from its captures into a pcapng file.

Finds them by their segments, so that what is packed into tunnels is found as the tables found it; changes nothing in
them. Reads the captures twice: to learn when the TCP connection ends, then to copy.
"""

from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

from analyzer.capture.finished import Finished
from analyzer.capture.life import NarrowTracker, Wanted, parse_wanted
from analyzer.capture.writer import PcapngWriter
from analyzer.errors import UsageError
from analyzer.keys import KeyRing
from analyzer.model import Octets, Rows
from analyzer.series import Series, read_on, read_with_keys

ONLY_FLOW = 0
"""A tracker that sees one TCP connection at a time gives the first one this place."""


class Located(NamedTuple):
    """Where a connection's packets are: in these captures, from its first one up to this instant.

    `key_log` holds the keys of its TLS that stand in the captures themselves.
    """

    members: Series
    wanted: Wanted
    last_ns: int
    key_log: bytes


def locate(members: Series, connection: Mapping[str, Any]) -> Located:
    """Find the end of the TCP connection that carried this WebSocket.

    Args:
        members: The capture it was found in, and those that may continue it.
        connection: Its row of the connections table; `connection`, `client` and `server` are looked at.

    Raises:
        UsageError: That is no row of the connections table, a source is standard input, or none of them holds it.
        CaptureError: A source cannot be read, or is no capture.

    """
    for source in (member.source for member in members):
        if source.path is None or (source.path.exists() and not source.path.is_file()):
            raise UsageError(f"{source.name}: can be read only once, and this reads twice: save the capture to a file")
    wanted = parse_wanted(connection)
    ring = KeyRing()
    scout = _Scout(wanted, secrets=ring)
    for _, chunk in read_with_keys(members, ring):
        scout.feed(chunk)
        if scout.last_ns is not None:
            return Located(members, wanted, scout.last_ns, scout.key_log)
    scout.finish()
    if scout.last_ns is None:
        raise UsageError(f"{members[0].source.name}: does not hold {connection['connection']} any more")
    return Located(members, wanted, scout.last_ns, scout.key_log)


def copy_packets(located: Located, out: BinaryIO) -> int:
    """Write every packet of the TCP connection, in the order of the captures; returns how many there are.

    Keys of its TLS that stand in the captures come along, those of a key log do not.

    Raises:
        CaptureError: A source cannot be read any more.

    """
    writer = PcapngWriter(out)
    if located.key_log:
        writer.write_secrets(located.key_log)
    picker = _Picker(located)
    n = 0
    interfaces: dict[tuple[str, int, int, str | None], int] = {}
    for reader, chunk in read_on(located.members):
        picker.feed(chunk)
        for number in picker.numbers:
            if number < chunk.first_packet:
                continue  # the piece that completes a datagram may stand in a chunk before
            packet = chunk.packets[number - chunk.first_packet]
            at, link_type = int(packet["interface"]), int(packet["link_type"])
            # its number alone means another in each file and section
            key = reader.source, at, link_type, reader.interface_name(at)
            if key not in interfaces:
                interfaces[key] = writer.add_interface(link_type, reader.interface_name(at))
            off = int(packet["off"])
            data = chunk.data[off : off + int(packet["captured_bytes"])].tobytes()
            writer.write(interfaces[key], int(packet["ts_ns"]), data, int(packet["wire_bytes"]))
            n += 1
        if picker.has_ended:
            break
    return n


class _Scout(NarrowTracker):
    """Follows the wanted TCP connection to its end.

    Attributes:
        last_ns: Time of its last packet, once that is known.
        key_log: The keys that were used for it.

    """

    def __init__(self, wanted: Wanted, *, secrets: KeyRing) -> None:
        super().__init__(wanted, secrets=secrets)
        self.last_ns: int | None = None
        self.key_log = b""

    def _collect(self, ended: Rows, *, is_evicted: bool) -> list[Finished]:
        if self.last_ns is None and ONLY_FLOW in ended:
            self.last_ns = int(self._flows[ONLY_FLOW]["last_ns"])
            layer = int(self._flows[ONLY_FLOW]["layer"])
            if self._unwrapper is not None and layer >= 0:
                self.key_log = self._unwrapper.key_log_of(layer)
        return super()._collect(ended, is_evicted=is_evicted)


class _Picker(NarrowTracker):
    """Follows nothing, and says which packets of a chunk carry segments of the wanted TCP connection.

    Attributes:
        numbers: Of those of the last chunk, in order, each once.
        has_ended: Whether the last packet was among those seen so far.

    """

    def __init__(self, located: Located) -> None:
        super().__init__(located.wanted)
        self.numbers: list[int] = []
        self.has_ended = False
        self._last_ns = located.last_ns

    def _scan_segments(self, data: Octets, segments: Rows, start: int) -> int:
        chosen = self.choose(segments)
        numbers = chosen["packet"][chosen["ts_ns"] <= self._last_ns]
        self.numbers = sorted(set(numbers.tolist()))
        self.has_ended |= bool((chosen["ts_ns"] >= self._last_ns).any())
        return super()._scan_segments(data, segments[:0], start)
