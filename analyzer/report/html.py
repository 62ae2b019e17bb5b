"""The report as one page that needs nothing else: no network, no script that is not its own, no style attributes.

A page is made of sections; a section of sentences, tables and figures. Whatever was captured, or came from a log, is
text here: it goes through `visible` and is escaped, never put into a script or a style. The words are those of the
reader's language; data and identifiers stay as they are.
"""

import base64
import functools
import hashlib
import importlib.resources
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape

from analyzer.knowledge.language import Language
from analyzer.model import Provenance
from analyzer.report import drawing, story, tables
from analyzer.report.drawing import Drawing
from analyzer.report.fragment import (
    DASH,
    Cell,
    Grid,
    anchor,
    bar,
    candidates,
    captured,
    identifier,
    instant,
    linked,
    said,
    wireshark_filter,
)
from analyzer.report.text import visible
from analyzer.selection import step_text

ANSWERS_SHOWN = 3
"""Findings that the first screen names."""

TABLE_SHOWN = 200
"""Rows of a table other than the one of single ends; JSON holds all."""

CODES_SHOWN = 60
"""Codes with a section of their own."""

CODES_IN_CELL = 6
"""Codes of one value of a dimension."""

STEPS_DRAWN = 400
"""Most steps of time that a figure shows as they are; of more it makes fewer."""

CODES_OVER_TIME = 8
"""Codes with a column of their own in the table of ends over time."""


class Section(NamedTuple):
    """A part of the page with an entry in its contents; the template knows `kind`."""

    name: str
    title: str
    kind: str = "tables"
    notes: Sequence[str] = ()
    drawing: Drawing | None = None
    grids: Sequence[Grid] = ()
    folds: bool = False


def render_page(document: dict[str, Any], language: Language) -> str:
    """The report as one page. The same document and language give the same bytes.

    Args:
        document: From `Report.document`, redacted by the caller where it is to be.
        language: The reader's.

    """
    style, script = _asset("style.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _Page(document, language)
    return _render(page, is_cell=False, policy=policy, style=Markup(style), script=Markup(script))  # noqa: S704


def render_cell(document: dict[str, Any], language: Language) -> str:
    """The answer and the frequencies as a fragment for a notebook, with styles that touch nothing else."""
    return _render(_Page(document, language, links=False), is_cell=True)


def _render(page: "_Page", **more: Any) -> str:
    template = _environment().get_template("page.html.jinja")
    return template.render(page=page, document=page.document, language=page.language, t=page.language.label, **more)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analyzer", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["said"] = said
    environment.filters["linked"] = linked
    return environment


@functools.cache
def _asset(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """How a Content-Security-Policy names an inline element that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


class _Page:
    """What the template shows: the document's blocks as sections of sentences, tables and figures."""

    def __init__(self, document: dict[str, Any], language: Language, *, links: bool = True) -> None:
        self.document = document
        self.language = language
        self.t = language.label
        self.is_small = bool(document["stories"] or document["log_stories"])
        self.is_empty = not document["connections"] and not document["logged"]
        self.codes = document["codes"][:CODES_SHOWN]
        self._occurring = {entry["code"] for entry in self.codes} if links else set[int]()
        self._texts: dict[tuple[int | None, str], str] = {}
        self._first_text: dict[str, str] = {}
        for entry in document["diagnoses"] if links else ():
            if entry["code"] is None or entry["code"] in self._occurring:
                name = anchor(entry["code"], entry["key"])
                self._texts[entry["code"], entry["key"]] = name
                self._first_text.setdefault(entry["key"], name)
        self._links = links

    @property
    def headline(self) -> str:
        return story.headline(self.document, self.language)

    @property
    def head_notes(self) -> list[str]:
        return story.notes(self.document, self.language)

    def nothing_found(self) -> list[str]:
        """Why the report is empty."""
        return story.nothing_found(self.document, self.language)

    def stories(self) -> Iterator[dict[str, Any]]:
        """Who closed, with which code, how that is known, what to do: each captured connection, each logged close."""
        for told in self.document["stories"]:
            yield {
                "ends": [visible(told["client"]), visible(told["server"])],
                "target": " ".join(visible(text) for text in (told["host"] or told["sni"], told["path"]) if text),
                "place": visible(told["source"]),
                "sentences": story.tell(told, self.language),
                "do": story.advice([view["diagnosis"] for view in told["views"]], self.language),
                "views": told["views"],
            }
        for row in self.document["log_stories"]:
            by = "story.logged_by" if row["system"] else "story.unknown_system"
            yield {
                "ends": [],
                "target": story.log_head(row, self.language),
                "place": self.t(by, system=row["system"]),
                "sentences": story.tell_logged(row, self.language),
                "do": story.advice([row["diagnosis"]], self.language),
                "views": [row],
            }

    def answers(self) -> Iterator[dict[str, Any]]:
        """The worst findings."""
        for entry in self.document["diagnoses"][:ANSWERS_SHOWN]:
            text = self.language.diagnosis(entry["key"])
            yield {
                "entry": entry,
                "code": self.code_name(entry),
                "text": text,
                "count": self.language.count("report.views", entry["count"]),
                "shares": [
                    (part, self.t(f"report.share_of_{part['endpoint']}", share=self.language.percent(part["share"])))
                    for part in entry["shares"]
                ],
            }

    def code_name(self, entry: dict[str, Any]) -> str:
        return self.t("report.no_code") if entry["code"] is None else f"{entry['code']} {entry['name']}"

    def text_of(self, code: int | None, key: str) -> str | None:
        """Where the text about such a view stands, None where it does not."""
        return self._texts.get((code, key), self._first_text.get(key))

    def number(self, n: int) -> Cell:
        return Cell(self.language.number(n), n, "number")

    def percent(self, share: float) -> Cell:
        return Cell(self.language.percent(share), share, "number")

    def span(self, seconds: float | None) -> Cell:
        return Cell("", -1, "number") if seconds is None else Cell(self.language.span(seconds), seconds, "number")

    def label(self, key: str) -> Cell:
        return Cell(said(self.t(key)))

    def code_cell(self, code: int | None, key: str | None = None) -> Cell:
        """A code; it leads to its text."""
        word = said(self.t("report.no_code")) if code is None else escape(code)
        target = self.text_of(code, key) if key else None
        if target is None and code in self._occurring:
            target = f"code-{code}"
        shown = Markup('<a href="#{}">{}</a>').format(target, word) if target else word
        return Cell(shown, -1 if code is None else code, "code")

    def provenance(self, name: str | None) -> Markup:
        if name is None:
            return escape(DASH)
        return Markup('<span class="known {}">{}</span>').format(name, said(self.t(f"provenance.{name}")))

    def evidence(self, name: str) -> Cell:
        return Cell(identifier(name))

    def _headings(self, *names: str) -> list[tuple[str, str]]:
        kinds = {"code": "code"} | dict.fromkeys(("count", "share", "median", "p90", "p99", "duration"), "number")
        return [(self.t(name if "." in name else f"column.{name}"), kinds.get(name, "")) for name in names]

    def _grid(
        self, caption: str, headings: Sequence[tuple[str, str]], rows: Iterable[Sequence[Cell]], **more: Any
    ) -> Grid:
        """A table of no more than TABLE_SHOWN rows."""
        shown = list(rows)
        rest = len(shown) - TABLE_SHOWN
        said_more = self.language.count("report.more_rows", rest) if rest > 0 else ""
        return Grid(caption, headings, shown[:TABLE_SHOWN], more=said_more, **more)

    def sections(self) -> list[Section]:
        """All that the document tells, in the order of the page."""
        found = [
            self._frequencies(),
            self._illegal(),
            self._both_views(),
            self._ends(),
            self._http2(),
            *([] if self.is_small else [self._timeline(), *self._times(), *self._breakdowns()]),
            self._anomalies(),
            *(self._block(name) for name in ("undetermined", "never_opened", "proxy")),
            self._systems(),
            self._unseen(),
            self._rows(),
            self._evidence(),
            self._diagnosis(),
        ]
        return [section for section in found if section is not None]

    def _drawn(self, name: str, table: list[dict[str, Any]], caption: str, **options: Any) -> Drawing | None:
        """A figure where there is enough to draw."""
        if self.is_small or not table or not self._links:
            return None
        return drawing.draw(name, table, caption, self.language, self.codes, **options)

    def _frequencies(self) -> Section | None:
        document = self.document
        if not document["frequencies"]:
            return None
        title = self.t("plot.codes_title")
        figure = self._drawn("codes", tables.rows_of(document, "codes"), title)
        return Section("frequencies", title, "frequencies", (), figure, self.frequency_grids())

    def frequency_grids(self) -> list[Grid]:
        """One table for each endpoint."""
        noun = story.counted_as(self.document)
        grids = []
        for endpoint, n in self.document["established"].items():
            rows = [row for row in self.document["frequencies"] if row["endpoint"] == endpoint]
            if rows:
                caption = f"{self.t(f'report.by_{endpoint}')} ({self.language.count(f'report.{noun}', n)})"
                grids.append(self._code_grid(caption, rows, names_side=False))
        return grids

    def _code_grid(self, caption: str, rows: list[dict[str, Any]], *, names_side: bool) -> Grid:
        names = ["code", "name", "provenance", "closed_by", "count", "share"]
        headings = self._headings(*(["seen_by", *names] if names_side else names))
        cells = [
            [
                *([self.label(f"endpoint.{row['endpoint']}")] if names_side else []),
                self.code_cell(row["code"]),
                Cell(Markup('<span lang="en" dir="ltr">{}</span>').format(row["name"])),
                Cell(self.provenance(row["provenance"])),
                self.label(f"initiator.{row['initiator']}"),
                self.number(row["count"]),
                self._share(row),
            ]
            for row in rows
        ]
        return self._grid(caption, headings, cells, row_heading=int(names_side), shows_caption=not names_side)

    def _share(self, row: dict[str, Any]) -> Cell:
        share = Markup('<span class="value">{}</span>').format(self.language.percent(row["share"]))
        return Cell(bar(row["share"], row["provenance"]) + share, row["share"], "bar")

    def provenances(self) -> list[tuple[Markup, str]]:
        """The legend: how each code that occurs is known."""
        blocks = ("frequencies", "illegal")
        seen = {row["provenance"] for block in blocks for row in self.document[block]}
        if self.document["undetermined"]:
            seen.add("undetermined")
        return [(self.provenance(name), self.t(f"provenance_about.{name}")) for name in Provenance if name in seen]

    def _illegal(self) -> Section | None:
        rows = self.document["illegal"]
        if not rows:
            return None
        title = self.t("report.illegal")
        return Section("illegal", title, grids=[self._code_grid(title, rows, names_side=True)])

    def _both_views(self) -> Section | None:
        rows = self.document["views"]
        if not rows:
            return None
        title = self.t("report.both_views")
        names = ("client_sent", "server_sent", "client_reports", "server_reports", "count")
        cells = [
            [
                *(Cell(said(story.sent_text(row, side, self.language))) for side in ("client", "server")),
                *(self._reported(row[side], row[f"{side}_provenance"]) for side in ("client", "server")),
                self.number(row["count"]),
            ]
            for row in rows
        ]
        figure = self._drawn("views", tables.rows_of(self.document, "views"), title)
        grid = self._grid(title, self._headings(*names), cells)
        return Section("views", title, drawing=figure, grids=[grid], folds=figure is not None)

    def _reported(self, code: int | None, provenance: str | None) -> Cell:
        if provenance is None:
            return Cell(DASH, -1)
        cell = self.code_cell(code)
        known = self.provenance(provenance)
        return Cell(known if code is None else Markup("{} {}").format(cell.shown, known), cell.sort)

    def _ends(self) -> Section | None:
        rows = self.document["ends"]
        if not rows:
            return None
        title = self.t("report.ends")
        cells = [
            [
                self.label(f"initiator.{row['initiator']}"),
                self.label(f"end.{row['end']}"),
                self.label(f"endpoint.{row['ended_by']}") if row["ended_by"] in story.ENDERS else Cell(DASH),
                self.number(row["count"]),
            ]
            for row in rows
        ]
        figure = self._drawn("ends", rows, title)
        grid = self._grid(title, self._headings("closed_by", "transport", "ended_by", "count"), cells)
        return Section("ends", title, drawing=figure, grids=[grid], folds=figure is not None)

    def _http2(self) -> Section | None:
        """Causes that several WebSockets share, and the error codes of HTTP/2."""
        rows, notes = self.document["stream_errors"], story.shared_causes(self.document, self.language)
        if not rows and not notes:
            return None
        title = self.t("report.http2")
        cells = [
            [
                Cell(said(story.stream_error(row, self.language))),
                Cell(said(self.language.hint(row["error"])) or DASH),
                self.number(row["count"]),
            ]
            for row in rows
        ]
        grids = [self._grid(title, self._headings("what", "meaning", "count"), cells)] if rows else []
        return Section("http2", title, notes=notes, grids=grids)

    def _timeline(self) -> Section | None:
        timeline = self.document["timeline"]
        bins = timeline["bins"]
        if len({row["time"] for row in bins}) < 2:
            return None
        title = self.t("report.timeline")
        notes = [self.t("report.timeline_coarser")] if timeline["is_coarser"] else []
        table = [{**row, "evidence": "handshake_failed" if row["bucket"] == "never_opened" else None} for row in bins]
        step_s = timeline["step_s"]
        n_steps = drawing.steps_between(bins[0]["time"], bins[-1]["time"], step_s)
        step = step_text(step_s) if n_steps <= STEPS_DRAWN else None
        figure = self._drawn("timeline", table, title, freq=step)
        caption = f"{title}: {self.t('report.timeline_step', step=self.language.step(step_s))}"
        return Section("timeline", title, "tables", notes, figure, [self._timeline_grid(caption, bins)], folds=True)

    def _timeline_grid(self, title: str, bins: list[dict[str, Any]]) -> Grid:
        totals: Counter[int | None] = Counter()
        steps: dict[tuple[str, str], Counter[int | None]] = {}
        for row in bins:
            totals[row["code"]] += row["count"]
            steps.setdefault((row["time"], row["endpoint"]), Counter())[row["code"]] += row["count"]
        frequent = [code for code, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0] or 0))]
        shown, rest = frequent[:CODES_OVER_TIME], frequent[CODES_OVER_TIME:]
        headings = [*self._headings("time", "seen_by", "count")]
        headings += [(self.t("report.no_code") if code is None else str(code), "number") for code in shown]
        headings += [(self.t("plot.other"), "number")] if rest else []
        cells = (
            [
                Cell(self.language.time(time), time, "time"),
                self.label(f"endpoint.{endpoint}"),
                self.number(sum(counts.values())),
                *(self._count_or_none(counts[code]) for code in shown),
                *([self._count_or_none(sum(counts[code] for code in rest))] if rest else []),
            ]
            for (time, endpoint), counts in steps.items()
        )
        return self._grid(title, headings, cells, shows_caption=True)

    def _count_or_none(self, n: int) -> Cell:
        return self.number(n) if n else Cell("", 0, "number")

    def _times(self) -> Iterator[Section | None]:
        """How long connections lasted, how long they were silent, and which timers that fits."""
        for name in ("durations", "silences"):
            entries = self.document[name]
            if entries:
                title = self.t(f"report.{name}")
                figure = self._drawn(name, tables.rows_of(self.document, name), title)
                grid = self._time_grid(title, entries)
                yield Section(name, title, drawing=figure, grids=[grid], folds=figure is not None)
        if self.document["timers"]:
            title = self.t("report.timers")
            yield Section("timers", title, notes=[self.t("report.timer_note")], grids=[self._timer_grid(title)])

    def _time_grid(self, title: str, entries: list[dict[str, Any]]) -> Grid:
        cells = (
            [
                self.label(f"endpoint.{entry['endpoint']}"),
                self.code_cell(entry["code"]),
                self.number(entry["count"]),
                *(self.span(entry[part]) for part in ("p50_s", "p90_s", "p99_s")),
            ]
            for entry in entries
        )
        return self._grid(title, self._headings("seen_by", "code", "count", "median", "p90", "p99"), cells)

    def _timer_grid(self, title: str) -> Grid:
        cells = (
            [
                self.span(entry["seconds"]),
                self.label(f"timer.{entry['measure']}"),
                self.number(entry["count"]),
                self.percent(entry["share"]),
                Cell(candidates(entry["candidates"], self.language), None, "prose"),
            ]
            for entry in self.document["timers"]
        )
        headings = [
            (self.t("column.value"), "number"),
            *self._headings("what", "count", "share"),
            (self.t("column.candidates"), "prose"),
        ]
        return self._grid(title, headings, cells)

    def _breakdowns(self) -> Iterator[Section]:
        for dimension, beyond in self.document["beyond"].items():
            entries = [entry for entry in self.document["by"] if entry["dimension"] == dimension]
            if not entries:
                continue
            title = self.t(f"by.{dimension}")
            headings = [*self._headings("seen_by"), (self.t(f"dimension.{dimension}"), "captured")]
            headings += [*self._headings("count"), (self.t("column.codes"), "codes")]
            cells = (
                [
                    self.label(f"endpoint.{entry['endpoint']}"),
                    Cell(captured(entry["value"]), None, "captured"),
                    self.number(entry["count"]),
                    Cell(self._codes_of(entry), entry["harmful"], "codes"),
                ]
                for entry in entries
            )
            grid = self._grid(title, headings, cells, row_heading=1)
            if beyond["values"] > 0 and not grid.more:
                grid = grid._replace(more=self.language.count("report.beyond", beyond["values"]))
            yield Section(f"by-{dimension}", title, grids=[grid])

    def _codes_of(self, entry: dict[str, Any]) -> Markup:
        parts = []
        for part in entry["codes"][:CODES_IN_CELL]:
            code = self.code_cell(part["code"]).shown
            parts.append(
                Markup('<span class="part"><span class="known {}">{}</span> {}</span>').format(
                    part["provenance"], code, self.language.percent(part["share"])
                )
            )
        if len(entry["codes"]) > CODES_IN_CELL:
            parts.append(Markup("…"))
        return Markup(" ").join(parts)

    def _anomalies(self) -> Section | None:
        rows = self.document["anomalies"]
        if not rows:
            return None
        title = self.t("report.anomalies")
        cells = (
            [
                Cell(said(self.t(f"anomaly.{row['anomaly']}"))),
                Cell(identifier(row["anomaly"])),
                self.number(row["count"]),
            ]
            for row in rows
        )
        return Section("anomalies", title, grids=[self._grid(title, self._headings("what", "name", "count"), cells)])

    def _block(self, name: str) -> Section | None:
        """Views without a code, of connections never opened, or of proxies."""
        rows = self.document[name]
        grids = []
        title = self.t(f"report.{name}")
        has_codes = any(row.get("code") for row in rows)
        if rows:
            names = ["seen_by", *(["code"] if has_codes else []), "evidence", "meaning", "count"]
            grids.append(
                self._grid(title, self._headings(*names), (self._block_row(row, has_codes=has_codes) for row in rows))
            )
        if name == "never_opened" and any(row["handshake"] in ("rejected", "failed") for row in self._handshakes()):
            caption = self.t("page.handshakes")
            cells = (
                [
                    self.label(f"handshake.{row['handshake']}"),
                    Cell(DASH if row["http_status"] is None else str(row["http_status"]), row["http_status"] or 0),
                    self.number(row["count"]),
                ]
                for row in self._handshakes()
            )
            headings = self._headings("handshake", "status", "count")
            grids.append(self._grid(caption, headings, cells, shows_caption=True))
        return Section(name.replace("_", "-"), title, grids=grids) if grids else None

    def _handshakes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.document["handshakes"]
        return found

    def _block_row(self, row: dict[str, Any], *, has_codes: bool) -> list[Cell]:
        about = self.language.diagnosis(row["key"]).title
        if row.get("ended_by") in story.ENDERS:
            about = self.t("report.ended_by", title=about, side=self.t(f"side.{row['ended_by']}"))
        shown = said(about)
        target = self.text_of(row.get("code"), row["key"])
        if target:
            shown = Markup('<a href="#{}">{}</a>').format(target, shown)
        return [
            self.label(f"endpoint.{row['endpoint']}"),
            *([self.code_cell(row.get("code"), row["key"])] if has_codes else []),
            self.evidence(row["evidence"]),
            Cell(shown, about, "prose"),
            self.number(row["count"]),
        ]

    def _systems(self) -> Section | None:
        rows = self.document["systems"]
        if not rows:
            return None
        title = self.t("report.logged_by")
        cells = ([Cell(captured(row["system"])), self.number(row["count"])] for row in rows)
        return Section("systems", title, grids=[self._grid(title, self._headings("system", "count"), cells)])

    def _unseen(self) -> Section:
        """What could not be seen, and why; the section stands even where nothing was skipped."""
        title = self.t("report.unseen")
        grids = []
        if self.document["unseen"]:
            rows = self.document["unseen"].items()
            cells = (
                [Cell(said(self.t(f"unseen.{name}")), None, "prose"), self.number(entry["count"])]
                for name, entry in rows
            )
            grids.append(self._grid(title, self._headings("what", "count"), cells))
        if self.document["troubled"]:
            trouble = (
                [
                    Cell(captured(row["source"], most=300)),
                    Cell(said(story.trouble_text(_cleaned(row), self.language)), None, "prose"),
                ]
                for row in self.document["troubled"]
            )
            caption = self.t("page.troubled")
            grids.append(self._grid(caption, self._headings("place", "what"), trouble, shows_caption=True))
        sealed = story.sealed(self.document, self.language)
        notes = [sealed] if sealed else [] if grids else [self.t("report.nothing_unseen")]
        return Section("unseen", title, notes=[*notes, self.t("page.unseen_note")], grids=grids)

    def _rows(self) -> Section | None:
        rows = self.document["rows"]
        if not rows:
            return None
        total = sum(entry["count"] for entry in self.document["diagnoses"])
        number = self.language.number
        notes = [self.t("report.rows_shown", shown=number(len(rows)), total=number(total))]
        title = self.t("report.rows")
        names = ["time", "seen_by", "code", "provenance", "evidence", "page.sent", "closed_by", "transport", "reason"]
        names += ["client", "server", "dimension.host", "dimension.path", "duration", "place"]
        grid = Grid(title, self._headings(*names), [self._row(row) for row in rows])
        return Section("rows", title, "rows", notes, None, [grid])

    def row_codes(self) -> list[tuple[str, str]]:
        """Codes to choose from among the single ends: what stands in the data, and what is shown."""
        found = {row["code"] for row in self.document["rows"]}
        shown = [(str(code), str(code)) for code in sorted(code for code in found if code is not None)]
        return [*shown, *([("none", self.t("report.no_code"))] if None in found else [])]

    def row_filter(self, row: dict[str, Any]) -> str | None:
        """What shows a row's connection in Wireshark, None for what a log tells."""
        return None if row["evidence"].startswith("log_") else wireshark_filter(row["client"], row["server"])

    def _row(self, row: dict[str, Any]) -> list[Cell]:
        empty = Cell("")
        place = story.place(row["record"], row["evidence"], self.language)
        where = captured(row["source"]) + (Markup(", {}").format(said(place)) if place else "")
        return [
            Cell(instant(row["time"]), row["time"] or "", "time"),
            self.label(f"endpoint.{row['endpoint']}"),
            self.code_cell(row["code"], row["diagnosis"]),
            Cell(self.provenance(row["provenance"])),
            self.evidence(row["evidence"]),
            self._sent(row),
            self.label(f"initiator.{row['initiator']}") if row["initiator"] else empty,
            self._end(row),
            Cell(captured(row["reason"], most=200), None, "captured") if row["reason"] else empty,
            *(
                Cell(captured(row[name]), None, kind) if row[name] else empty
                for name, kind in (
                    ("client", "address"),
                    ("server", "address"),
                    ("host", "captured"),
                    ("path", "captured"),
                )
            ),
            self.span(row["duration_s"]),
            Cell(where, None, "captured"),
        ]

    def _sent(self, row: dict[str, Any]) -> Cell:
        if row["sent"] == "status":
            return Cell(str(row["sent_code"]), row["sent_code"])
        return self.label(f"sent.{row['sent']}") if row["sent"] not in (None, "unknown") else Cell("")

    def _end(self, row: dict[str, Any]) -> Cell:
        if row["end"] in (None, "unknown"):
            return Cell("")
        end = self.t(f"end.{row['end']}")
        if row["ended_by"] in story.ENDERS:
            end = f"{end}, {self.t('endpoint.' + row['ended_by'])}"
        return Cell(said(end))

    def _evidence(self) -> Section | None:
        """What the names of the evidence mean that occur on the page."""
        found = {name for entry in self.document["diagnoses"] for name in entry["evidence"]}
        if not found:
            return None
        title = self.t("page.evidence")
        cells = ([self.evidence(name), Cell(said(self.t(f"evidence.{name}")), None, "prose")] for name in sorted(found))
        grid = self._grid(title, self._headings("evidence", "meaning"), cells)
        return Section("evidence", title, grids=[grid])

    def _diagnosis(self) -> Section | None:
        if not self.document["diagnoses"]:
            return None
        shown = {None, *(entry["code"] for entry in self.codes)}
        rest = sum(entry["code"] not in shown for entry in self.document["diagnoses"])
        notes = [self.language.count("report.more_texts", rest)] if rest else []
        return Section("diagnosis", self.t("report.diagnosis"), "diagnosis", notes)

    def rows_beside(self) -> str | None:
        """Where all single ends stand, None where they are all on the page."""
        file = self.document.get("rows_beside")
        return self.t("report.rows_beside", file=visible(file)) if file else None

    def about_codes(self) -> Iterator[dict[str, Any]]:
        """Each code that occurs, with the texts that apply; what has no code comes last."""
        texts: dict[int | None, list[dict[str, Any]]] = {}
        for entry in self.document["diagnoses"]:
            texts.setdefault(entry["code"], []).append(entry)
        shown = {row["code"] for row in self.document["rows"]}
        for entry in self.codes:
            code = entry["code"]
            yield {
                "id": f"code-{code}",
                "code": code,
                "filter": str(code) if code in shown else None,
                "title": f"{code} {entry['name']}",
                "about": self.language.about(code),
                "here": story.told_of_code(entry, self.language),
                "pairs": list(self._pairs(entry)),
                "texts": texts.get(code, []),
                "elsewhere": list(self._texts_elsewhere(code)),
            }
        if None in texts:
            yield {
                "id": "no-code",
                "code": None,
                "filter": "none" if None in shown else None,
                "title": self.t("report.no_code"),
                "about": None,
                "here": [],
                "pairs": [],
                "texts": texts[None],
                "elsewhere": [],
            }

    def _texts_elsewhere(self, code: int) -> Iterator[Markup]:
        """Texts that apply to a code and stand with another one of its range."""
        for key in dict.fromkeys(row["diagnosis"] for row in self.document["rows"] if row["code"] == code):
            target = self.text_of(code, key)
            if target and (code, key) not in self._texts:
                yield Markup('<a href="#{}">{}</a>').format(target, said(self.language.diagnosis(key).title))

    def _pairs(self, entry: dict[str, Any]) -> Iterator[tuple[Cell, Any]]:
        for pair in entry["pairs"]:
            other = next(code for code in pair["codes"] if code != entry["code"])
            found = self.language.pair(entry["code"], other)
            if found is not None:
                yield self.code_cell(other), found

    def first(self, entry: dict[str, Any]) -> Markup:
        return said(story.first_text(entry["first"], self.language))

    def much(self, entry: dict[str, Any]) -> str:
        sides = ", ".join(self.t(f"endpoint.{endpoint}") for endpoint in entry["endpoints"])
        return f"{self.language.count('report.views', entry['count'])} ({sides})"


def _cleaned(row: dict[str, Any]) -> dict[str, Any]:
    """A row of what went wrong; its message may name what stood in a file."""
    return {**row, "message": row["message"] and visible(row["message"], most=500)}
