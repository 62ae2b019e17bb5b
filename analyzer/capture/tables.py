"""The tables that the steps share: TCP connections, WebSockets, heads, parked segments, layers of TLS and HTTP/2.

Gives out places in them, takes them back, and grows them up to named limits. The kernels write their rows.
"""

from secrets import randbits

import numpy as np

from analyzer.capture import flowtable, handshake, reassemble, records
from analyzer.model import CONNECTION, CUTTER, FLOW, LAYER, OPENING, PARKED, RECORD, SEALED, SIDE, STREAM, Rows

MAX_POOL_BYTES = 1 << 26
"""Bytes of segments that came too early, over all connections."""

MAX_POOL_SEGMENTS = 1 << 18

FIRST_CONNECTIONS, FIRST_LAYERS = 64, 16
"""Rows that there are at the beginning."""


def _lengthen(rows: Rows, n_more: int) -> Rows:
    """A longer copy with zeros behind; as bytes, since NumPy copies rows of many fields field by field."""
    longer = np.zeros(len(rows) + n_more, rows.dtype)
    longer.view(np.uint8)[: rows.nbytes] = rows.view(np.uint8)
    return longer


class Tables:
    """Every row that belongs to a TCP connection under way, by the indexes that rows name each other with."""

    def __init__(self, n_flows: int) -> None:
        """Begin with room for so many TCP connections."""
        self._keys = np.array([randbits(64) | 1 for _ in range(9)], np.uint64)
        self._state = np.zeros(flowtable.STATE_SIZE, np.int64)
        self._state[flowtable.MAY_PARK] = 1
        self._opening_state = np.zeros(handshake.OPENING_STATE_SIZE + 1, np.int64)
        self._flows = np.zeros(0, FLOW)
        self._streams = np.zeros(0, STREAM)
        self._free = np.zeros(0, np.int32)
        self._slots = np.zeros(0, np.int32)
        self._connections = np.zeros(0, CONNECTION)
        self._sides = np.zeros(0, SIDE)
        self._free_connections = np.zeros(0, np.int32)
        self._parked = np.zeros(256, PARKED)
        self._pool = np.zeros(1 << 16, np.uint8)
        self._heads = np.zeros(0, np.uint8)
        self._free_heads = np.zeros(0, np.int32)
        self._openings = np.zeros(handshake.OPENINGS, OPENING)
        self._values = np.zeros(handshake.VALUE_BYTES, np.uint8)
        self._layers = np.zeros(0, LAYER)
        self._cutters = np.zeros(0, CUTTER)
        self._shapes = np.zeros(0, SEALED)
        self._free_layers = np.zeros(0, np.int32)
        self._layer_state = records.new_state()
        self._records = np.zeros(records.RECORDS, RECORD)
        self._arena = np.zeros(1 << 16, np.uint8)
        self._grow_flows(n_flows)
        self._grow_connections(FIRST_CONNECTIONS)
        self._grow_heads(handshake.FIRST_HEAD_SLOTS)
        self._grow_layers(FIRST_LAYERS)

    def _make_room_for_heads(self) -> None:
        """More slots, or at the limit all incomplete heads are dropped and counted."""
        n = len(self._free_heads)
        if n < handshake.MAX_HEAD_SLOTS:
            self._grow_heads(n)
            return
        held = self._streams["head"] >= 0
        self._opening_state[handshake.SKIPPED_HEADS] += int(held.sum())
        self._streams["head"][held] = -1
        self._streams["head_bytes"][held] = 0
        self._free_heads[:] = np.arange(n)
        self._opening_state[handshake.FREE_HEADS] = n

    def _make_room_in_pool(self, n_bytes: int, n_segments: int) -> None:
        """Move what is parked together, then grow; at the limit nothing more is parked until some has left."""
        state = self._state
        moved = np.empty(len(self._parked), np.int32)
        reassemble.compact_pool(self._streams, self._parked, self._pool, moved, state)
        n_bytes += int(state[flowtable.POOL_USED])
        n_segments += int(state[flowtable.N_PARKED])
        state[flowtable.MAY_PARK] = n_bytes <= MAX_POOL_BYTES and n_segments <= MAX_POOL_SEGMENTS
        if not state[flowtable.MAY_PARK]:
            return
        while len(self._pool) < 2 * n_bytes:
            self._pool = _lengthen(self._pool, len(self._pool))
        while len(self._parked) < 2 * n_segments:
            self._parked = _lengthen(self._parked, len(self._parked))

    def _grow_flows(self, n_more: int) -> None:
        n = len(self._flows)
        self._flows = _lengthen(self._flows, n_more)
        self._streams = _lengthen(self._streams, 2 * n_more)
        self._streams["head"][2 * n :] = -1
        free = self._free[: self._state[flowtable.N_FREE]]
        # the lowest index is taken first
        self._free = np.concatenate([np.arange(n, n + n_more, dtype=np.int32)[::-1], free, np.zeros(n, np.int32)])
        self._free = self._free[: n + n_more].astype(np.int32)
        self._state[flowtable.N_FREE] = len(free) + n_more
        self._fill_slots()

    def _fill_slots(self) -> None:
        size = 1024
        while size < 4 * len(self._flows):
            size *= 2
        self._slots = np.full(size, flowtable.EMPTY, np.int32)
        flowtable.fill_slots(self._slots, self._flows, self._keys, self._state)

    def _grow_connections(self, n_more: int) -> None:
        n = len(self._connections)
        self._connections = _lengthen(self._connections, n_more)
        self._sides = _lengthen(self._sides, 2 * n_more)
        free = self._free_connections[: self._opening_state[handshake.FREE_CONNECTIONS]]
        self._free_connections = np.zeros(n + n_more, np.int32)
        self._free_connections[:n_more] = np.arange(n + n_more - 1, n - 1, -1)
        self._free_connections[n_more : n_more + len(free)] = free
        self._opening_state[handshake.FREE_CONNECTIONS] = n_more + len(free)

    def _grow_heads(self, n_more: int) -> None:
        n = len(self._free_heads)
        self._heads = _lengthen(self._heads, n_more * handshake.MAX_HEAD_BYTES)
        free = self._free_heads[: self._opening_state[handshake.FREE_HEADS]]
        self._free_heads = np.zeros(n + n_more, np.int32)
        self._free_heads[: len(free)] = free
        self._free_heads[len(free) : len(free) + n_more] = np.arange(n, n + n_more)
        self._opening_state[handshake.FREE_HEADS] = len(free) + n_more

    def _grow_layers(self, n_more: int) -> None:
        n, state = len(self._layers), self._layer_state
        self._layers = _lengthen(self._layers, n_more)
        self._cutters = _lengthen(self._cutters, 2 * n_more)
        self._cutters["off"][2 * n :] = -1
        self._shapes = _lengthen(self._shapes, n_more)
        free = self._free_layers[: state[records.FREE_LAYERS]]
        self._free_layers = np.concatenate([np.arange(n + n_more - 1, n - 1, -1), free, np.zeros(n)]).astype(np.int32)
        state[records.FREE_LAYERS] = n_more + len(free)
        state[records.MAY_GROW] = n + n_more < records.MAX_LAYERS

    def _has_room_for_records(self) -> bool:
        """Whether more records may come before those that wait are taken away: the more at once, the faster."""
        n, used = int(self._layer_state[records.N_RECORDS]), int(self._layer_state[records.ARENA_USED])
        return n + 2 <= len(self._records) and used < records.ENOUGH_ARENA_BYTES

    def _make_room_in_arena(self, n_bytes: int) -> None:
        """Room for another record or segment; at the limit no more are gathered until some were taken away."""
        needed = int(self._layer_state[records.ARENA_USED]) + max(records.MAX_GATHERED_BYTES, n_bytes)
        while len(self._arena) < min(needed, records.MAX_ARENA_BYTES):
            self._arena = _lengthen(self._arena, len(self._arena))
        self._layer_state[records.MAY_GATHER] = needed <= len(self._arena)

    def layer(self, index: int) -> Rows:
        """A LAYER row."""
        row: Rows = self._layers[index]
        return row

    def _free_some(self, chosen: Rows) -> None:
        """Enter these CONNECTION rows among the free ones."""
        state = self._opening_state
        free = int(state[handshake.FREE_CONNECTIONS])
        self._free_connections[free : free + len(chosen)] = chosen
        state[handshake.FREE_CONNECTIONS] += len(chosen)

    def _release_heads(self, ended: Rows) -> None:
        """Give back the slots of heads that never became complete."""
        indexes = np.concatenate([2 * ended, 2 * ended + 1])
        for slot in self._streams["head"][indexes][self._streams["head"][indexes] >= 0].tolist():
            self._free_heads[self._opening_state[handshake.FREE_HEADS]] = slot
            self._opening_state[handshake.FREE_HEADS] += 1
        self._streams["head"][indexes] = -1

    def _release_candidates(self, candidates: Rows) -> None:
        """Give back the rows of flows that were never recognised."""
        chosen = candidates[candidates >= 0]
        self._connections["in_use"][chosen] = 0
        self._free_some(chosen)
        self._opening_state[handshake.N_CANDIDATES] -= len(chosen)
