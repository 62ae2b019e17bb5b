"""The field lines of a complete HTTP head that are used later (RFC 9112 section 5); kernels only.

Copies their values out, so that a head's slot is free at once and Python cuts text instead of reading lines. A head
that is not plain (folded, repeated, long or oddly spaced lines) is copied whole, and `head` reads it.
"""

import numpy as np

from analyzer.kernel import kernel
from analyzer.model import Octets, Rows, int64

PATH, PLACE, AGENT, KEY, PROTOCOL, EXTENSIONS, NO_FIELD = 0, 1, 2, 3, 4, 5, -1
"""Fields of an OPENING: `PLACE` is the Host of a request, the Server of an answer, whose `KEY` is the Accept."""

MAX_LINE_BYTES = 2048
"""Longer lines are cut by whoever reads the head."""

HOST = np.frombuffer(b"host", np.uint8)
SERVER = np.frombuffer(b"server", np.uint8)
USER_AGENT = np.frombuffer(b"user-agent", np.uint8)
WEBSOCKET_KEY = np.frombuffer(b"sec-websocket-key", np.uint8)
WEBSOCKET_ACCEPT = np.frombuffer(b"sec-websocket-accept", np.uint8)
WEBSOCKET_PROTOCOL = np.frombuffer(b"sec-websocket-protocol", np.uint8)
WEBSOCKET_EXTENSIONS = np.frombuffer(b"sec-websocket-extensions", np.uint8)


@kernel
def begins(data: Octets, off: int, n: int, pattern: Octets) -> bool:
    """Whether these bytes are the beginning of `pattern`, or `pattern` the beginning of them; case as sent."""
    for k in range(min(n, len(pattern))):
        byte = int64(data[off + k])
        if 65 <= byte <= 90:
            byte += 32
        if byte != int64(pattern[k]):
            return False
    return True


@kernel
def is_name(head: Octets, at: int, end: int, name: Octets) -> bool:
    """Whether a line begins with this name (lower case), and goes on behind it."""
    return end - at > len(name) and begins(head, at, end - at, name)


@kernel
def field_of(head: Octets, at: int, end: int, is_request: bool) -> tuple[int, int]:
    """Which field a line holds, and how long its name is; NO_FIELD where it holds none that is used."""
    first = int64(head[at]) | 32
    if first == 115:
        if not is_request and is_name(head, at, end, SERVER):
            return PLACE, len(SERVER)
        if is_request and is_name(head, at, end, WEBSOCKET_KEY):
            return KEY, len(WEBSOCKET_KEY)
        if not is_request and is_name(head, at, end, WEBSOCKET_ACCEPT):
            return KEY, len(WEBSOCKET_ACCEPT)
        if is_name(head, at, end, WEBSOCKET_PROTOCOL):
            return PROTOCOL, len(WEBSOCKET_PROTOCOL)
        if is_name(head, at, end, WEBSOCKET_EXTENSIONS):
            return EXTENSIONS, len(WEBSOCKET_EXTENSIONS)
    elif is_request and first == 104 and is_name(head, at, end, HOST):
        return PLACE, len(HOST)
    elif is_request and first == 117 and is_name(head, at, end, USER_AGENT):
        return AGENT, len(USER_AGENT)
    return NO_FIELD, 0


@kernel
def is_blank(byte: int) -> bool:
    """Whether this byte is no part of a value at its ends: space, tab, carriage return."""
    return byte == 32 or byte == 9 or byte == 13


@kernel
def copy_value(head: Octets, start: int, end: int, values: Octets, used: int, row: Rows, field: int) -> int:
    """Append one value; how many bytes of `values` are used then."""
    n = end - start
    for k in range(n):
        values[used + k] = int64(head[start + k])
    row["begins"][field] = used
    row["ends"][field] = used + n
    return used + n


@kernel
def copy_plain(head: Octets, start: int, end: int, is_request: bool, values: Octets, used: int, row: Rows) -> int:
    """Append the values that are used of a head; how many bytes of `values` are used then, -1 where it is not plain."""
    at = start
    while at < end:
        stop = at
        while stop < end and int64(head[stop]) != 10:
            stop += 1
        following = stop + 1
        if stop - at > MAX_LINE_BYTES:
            return -1
        while stop > at and int64(head[stop - 1]) == 13:
            stop -= 1
        if at == start:
            if is_request:
                begin = at
                while begin < stop and int64(head[begin]) != 32:
                    begin += 1
                last = begin + 1
                while last < stop and int64(head[last]) != 32:
                    last += 1
                if begin == stop:
                    return -1
                used = copy_value(head, begin + 1, last, values, used, row, PATH)
        elif stop > at:
            while stop > at and is_blank(int64(head[stop - 1])):
                stop -= 1
            if is_blank(int64(head[at])):
                return -1  # it goes on with the line before
            field, n = field_of(head, at, stop, is_request)
            if field != NO_FIELD:
                begin = at + n
                if is_blank(int64(head[begin])):
                    return -1
                if int64(head[begin]) == 58:
                    if int64(row["ends"][field]) >= 0:
                        return -1
                    begin += 1
                    while begin < stop and is_blank(int64(head[begin])):
                        begin += 1
                    used = copy_value(head, begin, stop, values, used, row, field)
        at = following
    return used


@kernel
def copy_fields(head: Octets, start: int, end: int, is_request: bool, values: Octets, used: int, row: Rows) -> int:
    """Append what is used of a complete head, `head[start:end]`, to `values`, and say in an OPENING row where it lies.

    Args:
        values: Room for as many bytes as the head has behind the `used` first.

    Returns:
        How many bytes of `values` are used then.

    """
    for field in range(len(row["begins"])):
        row["begins"][field] = 0
        row["ends"][field] = -1
    row["is_plain"] = 1
    done = copy_plain(head, start, end, is_request, values, used, row)
    if done >= 0:
        return done
    row["is_plain"] = 0
    return copy_value(head, start, end, values, used, row, PATH)
