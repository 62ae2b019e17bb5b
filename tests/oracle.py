"""What a conversation says, decoded in the plainest way from the bytes that were written; nothing of the project's.

`Truth` reads each side's stream from the first byte behind the opening to its end, without a thought for packets.
"""

import struct
from dataclasses import dataclass, field

LOCAL_ONLY = (1005, 1006, 1015)


@dataclass
class Side:
    """What one side sent."""

    frames: int = 0
    messages: int = 0
    bytes: int = 0
    close: str = "none"
    code: int | None = None
    reason: str | None = None
    later: list[tuple[str, int | None]] = field(default_factory=list)
    """Kind and status of every Close behind the first."""


def decode(data: bytes) -> Side:
    """Read well-formed frames one after the other."""
    side, at = Side(), 0
    while at < len(data):
        first, second = data[at], data[at + 1]
        opcode, n = first & 15, second & 127
        at += 2
        if n == 126:
            (n,) = struct.unpack("!H", data[at : at + 2])
            at += 2
        elif n == 127:
            (n,) = struct.unpack("!Q", data[at : at + 8])
            at += 8
        mask = b"\0\0\0\0"
        if second & 128:
            mask = data[at : at + 4]
            at += 4
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data[at : at + n]))
        at += n
        side.frames += 1
        if opcode < 8:
            side.bytes += n
            side.messages += first >> 7
        elif opcode == 8:
            kind = ("empty", "short")[n] if n < 2 else "status"
            code = payload[0] << 8 | payload[1] if n >= 2 else None
            if side.close != "none":
                side.later.append((kind, code))
            else:
                side.close, side.code, side.reason = kind, code, payload[2:].decode()
    return side


def initiator(written: list[tuple[str, bool, bool]]) -> str:
    """Who closed first.

    Args:
        written: For every Close in the order of writing: who wrote it, whether it was that side's first, and whether
            its writer had seen the other side's Close.

    """
    firsts = [(side, saw) for side, is_first, saw in written if is_first]
    if not firsts:
        return "none"
    if len(firsts) == 2 and not firsts[1][1]:
        return "both"
    return firsts[0][0]


def broken_invariants(row: dict) -> list[str]:
    """Which invariants of the decision table this row of `closes` breaks."""
    broken = []
    if row["provenance"] == "wire" and (row["wire_code"] is None or row["wire_code"] != row["code"]):
        broken.append("wire implies wire_code == code")
    if (row["code"] is None) != (row["provenance"] == "undetermined"):
        broken.append("code is null exactly when undetermined")
    if row["provenance"] == "synthesized" and row["code"] not in LOCAL_ONLY:
        broken.append("synthesized implies 1005, 1006 or 1015")
    if (row["confidence"] is None) != (row["provenance"] == "undetermined"):
        broken.append("confidence is null exactly when undetermined")
    if (row["received"] == "status") != (row["wire_code"] is not None):
        broken.append("wire_code stands beside status")
    if (row["sent"] == "status") != (row["sent_code"] is not None):
        broken.append("sent_code stands beside status")
    if row["evidence"] == "empty_close" and row["received"] != "empty":
        broken.append("empty_close has received an empty Close")
    if row["evidence"] in ("no_close_fin", "no_close_rst") and row["code"] != 1006:
        broken.append("no_close means 1006")
    return broken
