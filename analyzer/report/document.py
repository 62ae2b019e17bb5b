"""Counts to a report: one plain document of what happened, which every renderer and `--format json` show.

Shares are within one endpoint over established connections; client and server views are never summed. What has no
code, what was never established and what no endpoint may send stand in blocks of their own.
"""

import io
from typing import Any

from analyzer import __version__
from analyzer.knowledge.catalogue import Catalogue
from analyzer.model import (
    INPUTS,
    Endpoint,
    Evidence,
    Provenance,
    format_time,
    is_illegal_on_wire,
)
from analyzer.report.counts import VIEW_COLUMNS, Counts, Example
from analyzer.report.text import plural, record_name

SCHEMA = "wsclose.report/1"

NEVER_OPENED = frozenset({Evidence.HANDSHAKE_REJECTED, Evidence.HANDSHAKE_FAILED, Evidence.TLS_ALERT})
"""Views of connections that were never established: outside shares."""

HARMLESS = {1000: 3, 1001: 2, 1005: 2, 1012: 2, 1013: 2}
"""Codes that say that all is well, or that a reconnect is welcome, come later in the report."""


def bucket(view: dict[str, Any]) -> str:
    """Which block of the report a view belongs to: established, illegal, undetermined, never_opened or proxy."""
    if view["evidence"] in NEVER_OPENED:
        return "never_opened"
    if view["endpoint"] == Endpoint.PROXY:
        return "proxy"
    if view["code"] is None:
        return "undetermined"
    if view["provenance"] == Provenance.WIRE and is_illegal_on_wire(view["code"]):
        return "illegal"
    if view["evidence"] == Evidence.LOG_RECEIVED and view["provenance"] == Provenance.REPORTED:
        return "illegal" if is_illegal_on_wire(view["code"]) else "established"
    return "established"


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.1f} %"


def headline(document: dict[str, Any]) -> str:
    """How much was read, and how much was found in it."""
    connections, packets = document["connections"], document["packets"]
    found = []
    if packets or connections or not document["lines"]:
        found.append(f"{plural(connections, 'WebSocket connection')} in {plural(packets, 'packet')}")
    if document["lines"]:
        found.append(f"{plural(document['logged'], 'logged close')} in {plural(document['lines'], 'line')}")
    return f"{' and '.join(found)} of {plural(document['inputs'], 'file')}"


def assumptions(document: dict[str, Any]) -> list[str]:
    """What was assumed about the times of logs, as sentences."""
    said = {
        "zone": "{logs} name no time zone: {value} was assumed (--tz names another).",
        "year": "{logs} name no year: {value} was taken, by when the file was last written.",
    }
    return [
        said[entry["what"]].format(logs=f"The times of {plural(entry['inputs'], 'log')}", value=entry["value"])
        for entry in document["assumed"]
    ]


class Report:
    """The frequencies and what they mean. `document` is what `--format json` prints; `str()` is the text."""

    def __init__(self, counts: Counts, catalogue: Catalogue, *, is_partial: bool = False) -> None:
        self.document = _build(counts, catalogue, is_partial)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Report of {self.document['connections']} connections>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self) if cycle else str(self))

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def to_text(self, *, width: int = 80) -> str:
        """The report as plain text without colour."""
        from analyzer.report import terminal

        out = io.StringIO()
        terminal.print_report(self.document, out, width=width)
        return out.getvalue()

    def to_markdown(self) -> str:
        """The report for a ticket; query strings and what looks like a token are redacted."""
        from analyzer.report import markdown

        return markdown.render(self.document)

    def to_dict(self) -> dict[str, Any]:
        """The document itself (schema: docs/report.schema.json)."""
        return self.document


def _build(counts: Counts, catalogue: Catalogue, is_partial: bool) -> dict[str, Any]:
    views = []
    for key, n in counts.views.items():
        view = dict(zip(VIEW_COLUMNS, key, strict=True))
        view |= {"count": n, "bucket": bucket(view), "example": counts.first[key], "last": counts.last.get(key)}
        view["key"] = catalogue.key(
            view["code"],
            **{
                column: view[column] or "unknown"
                for column in ("evidence", "provenance", "endpoint", "sent", "initiator", "end", "ended_by")
            },
        )
        views.append(view)
    totals = {
        str(endpoint): sum(v["count"] for v in views if v["endpoint"] == endpoint and v["bucket"] != "never_opened")
        for endpoint in Endpoint
    }
    first, last = counts.span or (None, None)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "catalogue": catalogue.version,
        "partial": is_partial,
        "inputs": counts.n_inputs,
        "packets": counts.sums["packets"],
        "lines": counts.sums["lines"],
        "joined_lines": counts.sums["joined_lines"],
        "flows": counts.sums["flows"],
        "connections": counts.n_connections,
        "logged": counts.n_logged,
        "first": format_time(first),
        "last": format_time(last),
        "established": {endpoint: n for endpoint, n in totals.items() if n},
        "frequencies": _frequencies(views, totals, "established", catalogue),
        "illegal": _frequencies(views, totals, "illegal", catalogue),
        "undetermined": _grouped(views, "undetermined", ("endpoint", "evidence"), catalogue),
        "never_opened": _grouped(views, "never_opened", ("endpoint", "evidence", "code"), catalogue),
        "proxy": _grouped(views, "proxy", ("endpoint", "evidence", "ended_by"), catalogue),
        "systems": _systems(views),
        "handshakes": [
            {"handshake": handshake, "http_status": status, "count": n}
            for (handshake, status), n in sorted(counts.handshakes.items(), key=_by_count)
        ],
        "ends": [
            {"initiator": initiator, "end": end, "ended_by": by, "count": n}
            for (initiator, end, by), n in sorted(counts.ends.items(), key=_by_count)
        ],
        "views": [
            {"client": client, "client_provenance": how, "server": server, "server_provenance": server_how, "count": n}
            for (client, how, server, server_how), n in sorted(counts.pairs.items(), key=_by_count)
        ],
        "anomalies": [
            {"anomaly": name, "count": n}
            for name, n in sorted(counts.anomalies.items(), key=lambda item: (-item[1], item[0]))
        ],
        "diagnoses": _diagnoses(views, catalogue),
        "stories": [_story(connection, closes) for connection, closes in counts.stories]
        if counts.n_connections <= len(counts.stories)
        else [],
        "log_stories": [_log_story(row, catalogue) for row in counts.logged]
        if counts.n_logged <= len(counts.logged)
        else [],
        "assumed": [
            {"what": what, "value": str(value), "inputs": n}
            for what, assumed in (("zone", counts.zones), ("year", counts.years))
            for value, n in sorted(assumed.items())
        ],
        "unseen": {
            column.name.removeprefix("skipped_"): {"count": counts.sums[column.name], "about": column.about}
            for column in INPUTS
            if column.name.startswith("skipped_") and counts.sums[column.name]
        },
        "troubled": [
            {name: row[name] for name in ("source", "status", "message", "damaged_at", "lost_bytes")}
            for row in counts.inputs
            if row["status"] != "ok"
        ],
    }


def _by_count(item: tuple[tuple[Any, ...], int]) -> tuple[Any, ...]:
    """Sorts the most frequent first, and equals by their text: an enum member and its value are the same."""
    return -item[1], [str(part) for part in item[0]]


def _name(code: int | None, catalogue: Catalogue) -> str | None:
    return None if code is None else catalogue.code(code).name


def _frequencies(
    views: list[dict[str, Any]], totals: dict[str, int], wanted: str, catalogue: Catalogue
) -> list[dict[str, Any]]:
    grouped: dict[tuple[Any, ...], int] = {}
    for view in views:
        if view["bucket"] == wanted:
            key = (view["endpoint"], view["code"], view["provenance"], view["initiator"])
            grouped[key] = grouped.get(key, 0) + view["count"]
    order = list(Endpoint)
    return [
        {
            "endpoint": endpoint,
            "code": code,
            "name": _name(code, catalogue),
            "provenance": provenance,
            "initiator": initiator,
            "count": n,
            "share": round(n / totals[endpoint], 6),
        }
        for (endpoint, code, provenance, initiator), n in sorted(
            grouped.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1], item[0][2], item[0][3])
        )
    ]


def _grouped(
    views: list[dict[str, Any]], wanted: str, columns: tuple[str, ...], catalogue: Catalogue
) -> list[dict[str, Any]]:
    grouped: dict[tuple[Any, ...], tuple[int, str]] = {}
    for view in views:
        if view["bucket"] == wanted:
            key = tuple(view[column] for column in columns)
            grouped[key] = (grouped.get(key, (0, ""))[0] + view["count"], view["key"])
    return [
        {**dict(zip(columns, key, strict=True)), "count": n, "title": catalogue.diagnosis(text).title}
        for key, (n, text) in sorted(grouped.items(), key=lambda item: (-item[1][0], [*map(str, item[0])]))
    ]


def _systems(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many closes each system logged, most first."""
    counted: dict[str, int] = {}
    for view in views:
        if view["system"]:
            counted[view["system"]] = counted.get(view["system"], 0) + view["count"]
    return [
        {"system": system, "count": n} for system, n in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]


def _log_story(row: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """One logged close in the fields that its story is told from."""
    names = ["source", "record", "endpoint", "code", "provenance", "evidence", "confidence", "received", "wire_code"]
    names += ["sent", "sent_code", "raw_code", "reason", "initiator", "end", "ended_by", "duration_s", "client"]
    names += ["server", "host", "path", "system", "lines"]
    return {
        **{name: row[name] for name in names},
        "time": format_time(row["time"]),
        "name": _name(row["code"], catalogue),
    }


def _diagnoses(views: list[dict[str, Any]], catalogue: Catalogue) -> list[dict[str, Any]]:
    """One entry per documented text that applies, worst and most frequent first."""
    by_key: dict[str, list[dict[str, Any]]] = {}
    for view in views:
        by_key.setdefault(view["key"], []).append(view)
    entries = []
    for key, group in by_key.items():
        text = catalogue.diagnosis(key)
        code = group[0]["code"]
        info = None if code is None else catalogue.code(code)
        example: Example = min(view["example"] for view in group)
        where = min(group, key=lambda view: view["example"])
        entries.append(
            {
                "key": key,
                "code": code,
                "name": None if info is None else info.name,
                "count": sum(view["count"] for view in group),
                "endpoints": sorted({str(view["endpoint"]) for view in group}),
                "evidence": sorted({str(view["evidence"]) for view in group}),
                "title": text.title,
                "cause": text.cause,
                "check": text.check or None,
                "fix": text.fix,
                "source": text.source,
                "meaning": None if info is None else info.meaning,
                "seen": None if info is None else info.seen,
                "confused_with": [] if info is None else list(info.confused_with),
                "first": {
                    "source": example.source,
                    "record": example.record or None,
                    "place": record_name(example.record, where["evidence"]),
                    "time": format_time(None if example.time == 2**63 - 1 else example.time),
                    "endpoint": where["endpoint"],
                    "peer": example.peer,
                    "connection": example.connection,
                },
                "last": format_time(max((view["last"] for view in group if view["last"] is not None), default=None)),
            }
        )

    def rank(entry: dict[str, Any]) -> tuple[Any, ...]:
        code = entry["code"]
        severity = 4 if code is None else HARMLESS.get(code, 0)  # where nothing is claimed, other texts say more
        return severity, -entry["count"], -1 if code is None else code, entry["key"]

    return sorted(entries, key=rank)


def _story(connection: dict[str, Any], closes: list[dict[str, Any]]) -> dict[str, Any]:
    """One connection in the fields that its story is told from."""
    names = ["connection", "source", "client", "server", "host", "path", "handshake", "http_status", "opened"]
    names += ["duration_s", "initiator", "end", "ended_by", "anomalies"]
    names += [f"{side}_close{part}" for side in ("client", "server") for part in ("", "_code", "_reason", "_record")]
    story = {name: connection[name] for name in names}
    story["opened"] = format_time(story["opened"])
    story["views"] = [
        {name: row[name] for name in ("endpoint", "code", "provenance", "evidence", "confidence", "record")}
        for row in closes
    ]
    return story
