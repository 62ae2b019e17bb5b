"""Blocks of a report as the rows that the plots take, for DataFrames, the command line and the page alike."""

import math
from typing import Any

COLUMNS = {
    "codes": ("endpoint", "code", "provenance", "evidence", "count"),
    "timeline": ("time", "endpoint", "code", "provenance", "count"),
    "durations": ("endpoint", "code", "duration_s", "count"),
    "silences": ("endpoint", "client_view_code", "silence_s", "count"),
    "ends": ("initiator", "end", "ended_by", "count"),
    "views": (
        *("client_view_code", "client_view_provenance", "server_view_code", "server_view_provenance"),
        "count",
    ),
}
"""Columns that the plot of this name needs, also where there are no rows."""

SIDES = ("client", "server")


def rows_of(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Rows of a block of a report document: as the plot of that name takes them, any other list as it is.

    Raises:
        KeyError: There is no such block of rows.

    """
    if name in ("durations", "silences"):
        return _steps(document[name], *COLUMNS[name][1:3])
    if name == "codes":
        return _codes(document)
    if name == "views":
        return _views(document["views"])
    if name == "timeline":
        return [row for row in document["timeline"]["bins"] if row["bucket"] != "never_opened"]
    block = document[name]
    if not isinstance(block, list):
        raise KeyError(name)
    return block


def _codes(document: dict[str, Any]) -> list[dict[str, Any]]:
    """All views but proxies', which are not in the shares."""
    rows = [{**row, "evidence": None} for row in document["frequencies"]]
    # an illegal code that a log names is one by what it says of its origin
    rows += [
        {**row, "evidence": "log_received" if row["provenance"] == "reported" else None} for row in document["illegal"]
    ]
    rows += [{**row, "code": None, "provenance": "undetermined"} for row in document["undetermined"]]
    rows += [{**row, "provenance": "synthesized"} for row in document["never_opened"]]
    return rows


def _views(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What both sides report; where one has no view the connection was never opened."""
    return [
        {
            **{f"{side}_view_code": row[side] for side in SIDES},
            **{f"{side}_view_provenance": row[f"{side}_provenance"] for side in SIDES},
            "handshake": None if row["client_provenance"] and row["server_provenance"] else "failed",
            "count": row["count"],
        }
        for row in rows
    ]


def _steps(entries: list[dict[str, Any]], code: str, seconds: str) -> list[dict[str, Any]]:
    """Steps of durations or silences at their middles."""
    return [
        {
            "endpoint": entry["endpoint"],
            code: entry["code"],
            seconds: math.sqrt(step["from_s"] * step["to_s"]),
            "count": step["count"],
        }
        for entry in entries
        for step in entry["bins"]
    ]
