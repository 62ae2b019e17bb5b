"""Counts to a report: one plain document of what happened, which every renderer and `--format json` show.

Shares are within one endpoint over established connections; client and server views are never summed. What has no
code, what was never established and what no endpoint may send stand in blocks of their own.
"""

import io
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer import __version__
from analyzer.errors import UsageError
from analyzer.keys import weigh_keys
from analyzer.knowledge import language as languages
from analyzer.knowledge.catalogue import PREDICATES, Catalogue
from analyzer.knowledge.language import Language
from analyzer.model import (
    CLOSES,
    DIMENSIONS,
    INPUTS,
    Endpoint,
    format_time,
    to_unicode,
)
from analyzer.report import series, tables
from analyzer.report.counts import (
    ROWS_KEPT,
    STORIES_KEPT,
    TOP,
    VIEW_COLUMNS,
    Counts,
    Example,
    bucket,
    row_order,
)
from analyzer.report.redaction import redacted
from analyzer.report.rows import to_json
from analyzer.report.tally import UNTIMED
from analyzer.report.text import record_name
from analyzer.selection import Selection

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "wsclose.report/1"

PAIR_NAMES = (
    *("client_sent", "client_sent_code", "server_sent", "server_sent_code"),
    *("client", "client_provenance", "server", "server_provenance"),
)
"""Names of the columns that pairs of views are counted by (`counts.PAIR_COLUMNS`)."""

TEXTS_SHOWN = 500
"""Codes, and documented texts, that a report holds: hostile input may bring 65,536 codes."""

ROWS_SHOWN = 500
"""Closes that a report shows one by one."""


class Report:
    """The frequencies and what they mean. `document` is what `--format json` prints; `str()` is the text.

    Attributes:
        document: Plain values, English texts (schema: docs/report.schema.json).
        language: What people read is in this language; data never is.

    """

    def __init__(
        self,
        counts: Counts,
        catalogue: Catalogue,
        *,
        is_partial: bool = False,
        by: Sequence[str] = DIMENSIONS,
        top: int = TOP,
        step_ns: int | None = None,
        selection: Selection | None = None,
        language: Language | None = None,
        keys: Sequence[Path] = (),
    ) -> None:
        """Make the document.

        Args:
            counts: What was counted.
            catalogue: What is known about codes.
            is_partial: Whether reading was interrupted.
            by: Dimensions to break the views down by, of DIMENSIONS.
            top: Values of each dimension to name, for each endpoint.
            step_ns: Step of the timeline in nanoseconds that was asked for.
            selection: The filters that the counts have gone through.
            language: English where none is given.
            keys: Key logs that were given.

        Raises:
            UsageError: No such dimension, or `top` is below 1.

        """
        unknown = [dimension for dimension in by if dimension not in DIMENSIONS]
        if unknown:
            raise UsageError(f"{unknown[0]}: no such dimension; there are {', '.join(DIMENSIONS)}")
        if top < 1:
            raise UsageError(f"{top}: name at least one value of a dimension")
        self.language = languages.load("en") if language is None else language
        self.document = _build(counts, catalogue, is_partial)
        self.document |= {
            "filters": (selection or Selection()).words(),
            "left_out": counts.sums["left_out"],
            "keys": weigh_keys(keys, counts.sums),
            "by": [entry for dimension in by for entry in series.breakdown(dimension, counts.by[dimension], top=top)],
            "timeline": series.timeline(counts, step_ns),
        }
        self.document["beyond"] = {
            dimension: series.beyond(
                counts.by[dimension], [e for e in self.document["by"] if e["dimension"] == dimension]
            )
            for dimension in by
        }

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Report of {self.document['connections']} connections>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self) if cycle else str(self))

    def _repr_html_(self) -> str:
        from analyzer.report import html

        return html.render_cell(self.document, self.language)

    def to_text(self, *, width: int = 80) -> str:
        """The report as plain text without colour."""
        from analyzer.report import terminal

        out = io.StringIO()
        terminal.print_report(self.document, out, width=width, language=self.language)
        return out.getvalue()

    def to_markdown(self, *, redact: bool = True) -> str:
        """The report for a ticket; query strings and what looks like a token or an address are redacted."""
        from analyzer.report import markdown

        return markdown.render(self._shared(redact), self.language)

    def to_html(self, *, redact: bool = True) -> str:
        """The report as one page that needs nothing else; redacted like `to_markdown`."""
        from analyzer.report import html

        return html.render_page(self._shared(redact), self.language)

    def to_dict(self) -> dict[str, Any]:
        """The document itself (schema: docs/report.schema.json)."""
        return self.document

    def table(self, name: str) -> "pd.DataFrame":
        """A block of the document as a DataFrame, with a `count` where its rows stand for several.

        `codes`, `timeline`, `durations`, `silences`, `ends` and `views` come as the plot of that name takes them; any
        other list of the document comes as it is.

        Raises:
            KeyError: There is no such block of rows.

        """
        import pandas as pd

        rows = tables.rows_of(self.document, name)
        rows = [{n: to_unicode(v) if isinstance(v, str) else v for n, v in row.items()} for row in rows]
        frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(tables.COLUMNS.get(name, ())))
        if name == "timeline":
            frame["time"] = pd.to_datetime(frame["time"], utc=True)
        return frame

    def _shared(self, redact: bool) -> dict[str, Any]:
        return redacted(self.document) if redact else self.document


def _build(counts: Counts, catalogue: Catalogue, is_partial: bool) -> dict[str, Any]:
    views = []
    for key, n in counts.views.items():
        view = dict(zip(VIEW_COLUMNS, key, strict=True))
        view |= {"count": n, "example": counts.first[key], "last": counts.last.get(key)}
        view["bucket"] = bucket(view["endpoint"], view["code"], view["provenance"], view["evidence"])
        view["key"] = _key(view, catalogue)
        views.append(view)
    totals = {
        str(endpoint): sum(v["count"] for v in views if v["endpoint"] == endpoint and v["bucket"] != "never_opened")
        for endpoint in Endpoint
    }
    first, last = counts.span or (None, None)
    is_small = counts.n_connections + counts.n_logged <= STORIES_KEPT
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
        "sealed": [{"value": likelihood, "count": n} for likelihood, n in sorted(counts.sealed.items(), key=_by_count)],
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
        "causes": [
            {"cause": cause, "connections": n, "count": counts.causes[cause]}
            for cause, n in sorted(counts.effects.items(), key=lambda item: (-item[1], item[0]))
        ],
        "stream_errors": _stream_errors(counts, catalogue),
        "views": [
            {**dict(zip(PAIR_NAMES, pair, strict=True)), "count": n}
            for pair, n in sorted(counts.pairs.items(), key=_by_count)
        ],
        "anomalies": [
            {"anomaly": name, "count": n}
            for name, n in sorted(counts.anomalies.items(), key=lambda item: (-item[1], item[0]))
        ],
        "durations": series.distribution(counts.durations),
        "silences": series.distribution(counts.silences),
        "timers": [
            *series.near_timers("silence", counts.silences),
            *series.near_timers("duration", counts.durations),
        ],
        "codes": _codes(views, counts, catalogue)[:TEXTS_SHOWN],
        "diagnoses": _diagnoses(views, totals, catalogue)[:TEXTS_SHOWN],
        "rows": _rows(counts, views),
        "stories": [
            story_of(connection, closes, catalogue) for connection, closes in sorted(counts.stories, key=_story_order)
        ]
        if is_small
        else [],
        "log_stories": [_log_story(row, catalogue) for row in sorted(counts.logged, key=row_order)] if is_small else [],
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


def _key(view: dict[str, Any], catalogue: Catalogue) -> str:
    """Which documented text fits a view."""
    return catalogue.key(view["code"], **{column: view[column] or "unknown" for column in PREDICATES})


def _story_order(story: tuple[dict[str, Any], list[dict[str, Any]]]) -> str:
    return str(story[0]["connection"])


def _by_count(item: tuple[Any, int]) -> tuple[Any, ...]:
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


def _stream_errors(counts: Counts, catalogue: Catalogue) -> list[dict[str, Any]]:
    """How many WebSockets ended after which error codes of HTTP/2, most first."""
    entries = []
    for (frame, said), n in sorted(counts.stream_errors.items(), key=_by_count)[:TEXTS_SHOWN]:
        side, _, name = said.partition(" ")
        known = catalogue.hints.get(name)
        about = {"hint": known and known.hint, "source": known and known.source}
        entries.append({"frame": frame, "endpoint": side, "error": name, "count": n, **about})
    return entries


def _grouped(
    views: list[dict[str, Any]], wanted: str, columns: tuple[str, ...], catalogue: Catalogue
) -> list[dict[str, Any]]:
    grouped: dict[tuple[Any, ...], tuple[int, str]] = {}
    for view in views:
        if view["bucket"] == wanted:
            key = tuple(view[column] for column in columns)
            grouped[key] = (grouped.get(key, (0, ""))[0] + view["count"], view["key"])
    return [
        {**dict(zip(columns, key, strict=True)), "count": n, "title": catalogue.diagnosis(text).title, "key": text}
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
        "diagnosis": _key(row, catalogue),
    }


def _diagnoses(views: list[dict[str, Any]], totals: dict[str, int], catalogue: Catalogue) -> list[dict[str, Any]]:
    """One entry for each code and documented text that applies, worst and most frequent first."""
    grouped: dict[tuple[int | None, str], list[dict[str, Any]]] = {}
    for view in views:
        grouped.setdefault((view["code"], view["key"]), []).append(view)
    entries = []
    for (code, key), group in grouped.items():
        text = catalogue.diagnosis(key)
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
                "shares": _shares(group, totals),
                "provenances": sorted({str(view["provenance"]) for view in group}),
                "evidence": sorted({str(view["evidence"]) for view in group}),
                "initiators": series.most((view["initiator"], view["count"]) for view in group),
                "enders": series.most((view["ended_by"], view["count"]) for view in group if view["ended_by"]),
                "systems": series.most((view["system"], view["count"]) for view in group if view["system"]),
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
                    "time": format_time(None if example.time == UNTIMED else example.time),
                    "endpoint": where["endpoint"],
                    "peer": example.peer,
                    "connection": example.connection,
                },
                "last": format_time(max((view["last"] for view in group if view["last"] is not None), default=None)),
            }
        )

    def rank(entry: dict[str, Any]) -> tuple[Any, ...]:
        # where nothing is claimed, other texts say more
        code = entry["code"]
        return series.severity(code), -entry["count"], -1 if code is None else code, entry["key"]

    return sorted(entries, key=rank)


def _shares(group: list[dict[str, Any]], totals: dict[str, int]) -> list[dict[str, Any]]:
    """How large a part of each endpoint's established views these are."""
    counted: Counter[str] = Counter()
    for view in group:
        if view["bucket"] in ("established", "illegal"):
            counted[view["endpoint"]] += view["count"]
    return [
        {"endpoint": endpoint, "count": n, "share": round(n / totals[endpoint], 6)}
        for endpoint, n in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]


def _codes(views: list[dict[str, Any]], counts: Counts, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Each code that occurs: what is known about it, how it differs from others, what this data says about it."""
    by_code: dict[int, list[dict[str, Any]]] = {}
    for view in views:
        if view["code"] is not None:
            by_code.setdefault(view["code"], []).append(view)
    where: dict[int, dict[str, Counter[str]]] = {}
    for dimension, counted in counts.by.items():
        for value, cell, n in counted.items():
            if cell.code is not None:
                where.setdefault(cell.code, {}).setdefault(dimension, Counter())[value] += n
    entries = []
    for code, group in by_code.items():
        info = catalogue.code(code)
        pairs = [catalogue.pair(code, other) for other in info.confused_with]
        times = [view["example"].time for view in group if view["example"].time != UNTIMED]
        entries.append(
            {
                "code": code,
                "name": info.name,
                "on_wire": info.on_wire,
                "meaning": info.meaning,
                "seen": info.seen,
                "fix": info.fix,
                "source": info.source,
                "confused_with": list(info.confused_with),
                "pairs": [
                    {"codes": list(pair.codes), "differ": pair.differ, "choose": pair.choose, "source": pair.source}
                    for pair in pairs
                    if pair is not None
                ],
                "endpoints": series.most((view["endpoint"], view["count"]) for view in group),
                "initiators": series.most((view["initiator"], view["count"]) for view in group),
                "enders": series.most((view["ended_by"], view["count"]) for view in group if view["ended_by"]),
                **{
                    dimension: series.most(where.get(code, {}).get(dimension, Counter()).items())
                    for dimension in DIMENSIONS
                },
                "first": format_time(min(times, default=None)),
                "last": format_time(max((view["last"] for view in group if view["last"] is not None), default=None)),
            }
        )
    return sorted(
        entries, key=lambda e: (series.severity(e["code"]), -sum(n["count"] for n in e["endpoints"]), e["code"])
    )


def _rows(counts: Counts, views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Closes to look at one by one: of each kind of view the earliest, worst kinds first, in turns up to ROWS_SHOWN."""
    kinds = []
    for view in views:
        key = tuple(view[column] for column in VIEW_COLUMNS)
        order = (series.severity(view["code"]), -view["count"], [str(part) for part in key])
        kinds.append((order, view["key"], counts.rows.get(key, [])))
    kinds.sort(key=lambda kind: kind[0])
    turns = ((row, key) for turn in range(ROWS_KEPT) for _, key, rows in kinds for row in rows[turn : turn + 1])
    return [{**to_json(row, CLOSES), "diagnosis": key} for row, key in itertools.islice(turns, ROWS_SHOWN)]


def story_of(connection: dict[str, Any], closes: list[dict[str, Any]], catalogue: Catalogue) -> dict[str, Any]:
    """One connection, with its closes, in the fields that its story is told from."""
    names = ["connection", "source", "client", "server", "host", "path", "handshake", "http_status", "opened"]
    names += [
        "sni",
        "tls_alert",
        "http2_stream",
        "stream_error",
        "goaway",
        "goaway_last_stream",
        "goaway_reason",
        "server_software",
        "cause",
        "shared_by",
        "carried",
        "likelihood",
        "subprotocol",
        "duration_s",
        "ended",
        "client_close_time",
        "server_close_time",
        "initiator",
        "end",
        "ended_by",
        "anomalies",
    ]
    names += [
        f"{side}_close{part}"
        for side in ("client", "server")
        for part in ("", "_code", "_reason", "_source", "_record")
    ]
    story = {name: connection[name] for name in names}
    for name in ("opened", "ended", "client_close_time", "server_close_time"):
        story[name] = format_time(story[name])
    story["views"] = [
        {name: row[name] for name in ("endpoint", "code", "provenance", "evidence", "confidence", "source", "record")}
        | {"diagnosis": _key(row, catalogue)}
        for row in closes
    ]
    return story
