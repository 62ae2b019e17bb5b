"""The report on a terminal: rich tables that fit the width, colour that turns itself off."""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analyzer.knowledge.language import Language
from analyzer.report.story import (
    ENDERS,
    advice,
    counted_as,
    first_text,
    handshakes,
    headline,
    log_head,
    notes,
    nothing_found,
    sent_text,
    shared_causes,
    stream_error,
    tell,
    tell_logged,
    timer_text,
    told_of_code,
    told_of_place,
    trouble_text,
)
from analyzer.report.text import visible

STYLES = {
    "wire": "green",
    "synthesized": "yellow",
    "reported": "cyan",
    "inferred": "magenta",
    "undetermined": "bright_black",
}
"""Colour of a provenance; its word always stands beside it."""

FAINT = "bright_black"
BAR_WIDTH = 10
BLOCKS = " ▁▂▃▄▅▆▇█"

FIELD_INDENT = 2
MIN_FIELD_WIDTH = 10
"""Columns before the label of a field, and those that its text gets at least."""

MIN_WIDTH_FOR_BARS = 76
ANSWERS_SHOWN = 3
"""Diagnoses that the first screen names."""

DIAGNOSES_SHOWN = 40
ROWS_SHOWN = 20
"""Rows of a block that a terminal shows; JSON and CSV hold all."""

MATRIX_SHOWN = 10
DURATIONS_SHOWN = 6
CODES_SHOWN = 3
"""Codes of a value, or lines of a timeline."""


@contextlib.contextmanager
def page(out: TextIO, width: int | None) -> Iterator[Console]:
    """A console on `out`; where that is no terminal, lines end where their text does and carry no colour."""
    is_terminal = out.isatty()
    target = out if is_terminal else io.StringIO()
    yield Console(
        file=target,
        width=width,
        highlight=False,
        emoji=False,
        markup=False,
        # a notebook is neither a terminal, though it says so in its environment, nor to be written to past the file
        force_jupyter=False,
        force_terminal=None if is_terminal else False,
        color_system="auto" if is_terminal else None,
    )
    if isinstance(target, io.StringIO):
        out.writelines(f"{line.rstrip()}\n" for line in target.getvalue().splitlines())


def print_field(console: Console, language: Language, name: str, text: str) -> None:
    """Print a text with the label of a field before it; all fields of a language are as wide."""
    wide = max(map(cell_len, language.group("field")))
    room = max(console.width - wide - FIELD_INDENT - 1, MIN_FIELD_WIDTH)
    label = set_cell_size(language.label(f"field.{name}"), wide)
    lines = Text()
    for line in Text(text).wrap(console, room, overflow="fold"):  # a table takes five times as long
        lines.append(" " * FIELD_INDENT).append(label, FAINT).append(" ").append_text(line).append("\n")
        label = " " * wide
    console.print(lines, end="", soft_wrap=True)


def _bar(share: float) -> Text:
    return Text("█" * max(1, round(share * BAR_WIDTH)), style="blue")


def print_report(
    document: dict[str, Any], out: TextIO = sys.stdout, *, language: Language, width: int | None = None
) -> None:
    """Print a report document.

    Args:
        document: From `Report.document`.
        out: Where to; colour only where that is a terminal.
        language: The reader's.
        width: Columns, None for the terminal's own (80 where there is none).

    """
    with page(out, width) as console:
        _Printer(console, language).print_report(document)


class _Printer:
    """One report on one console."""

    def __init__(self, console: Console, language: Language) -> None:
        self._console = console
        self._language = language
        self._label = language.label

    def print_report(self, document: dict[str, Any]) -> None:
        self._names_sources = document["inputs"] > 1
        self._head(document)
        is_small = bool(document["stories"] or document["log_stories"])
        for story in document["stories"]:
            self._story(story)
        for row in document["log_stories"]:
            self._log_story(row)
        if not is_small:
            self._answers(document)
        self._timers(document["timers"])
        self._frequencies(document)
        if not is_small:
            self._both_views(document["views"])
            self._ends(document["ends"])
        self._http2(document, is_small=is_small)
        for name in ("undetermined", "never_opened", "proxy"):
            note = handshakes(document, self._language) if name == "never_opened" and not document["stories"] else ""
            self._block(self._label(f"report.{name}"), document[name], note)
        if not is_small:
            self._timeline(document["timeline"])
            self._durations("durations", document["durations"])
            self._durations("silences", document["silences"])
            self._breakdowns(document)
        self._anomalies(document["anomalies"])
        self._systems(document)
        self._unseen(document)
        self._diagnoses(document, is_small=is_small)
        for text in nothing_found(document, self._language):
            self._line()
            self._line(text)

    def _line(self, text: str = "", style: str = "", *, indent: int = 0) -> None:
        self._console.print(Padding(Text(text, style=style), (0, 0, 0, indent)) if indent else Text(text, style=style))

    def _title(self, text: str, note: str = "") -> None:
        self._line()
        self._console.print(Text.assemble((text, "bold"), f"  {note}" if note else ""))

    def _rest(self, n: int, noun: str) -> None:
        """Say how much a terminal does not show."""
        if n > 0:
            self._line(f"  {self._language.count(f'report.more_{noun}', n)}", FAINT)

    def _table(self, columns: list[tuple[str, str]]) -> Table:
        """An empty table with these headings, each `left`, `right` or `fill` (shortened where it does not fit)."""
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style=FAINT)
        for name, kind in columns:
            heading = self._label(f"column.{name}") if name else ""
            if kind == "fill":
                table.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=26)
            else:
                width = 5 if name == "count" else 4
                table.add_column(heading, justify="right" if kind == "right" else "left", no_wrap=True, min_width=width)
        return table

    def _provenance(self, name: str | None) -> Text:
        return Text("" if name is None else self._label(f"provenance.{name}"), style=STYLES.get(name or "", ""))

    def _field(self, label: str, text: str) -> None:
        print_field(self._console, self._language, label, text)

    def _head(self, document: dict[str, Any]) -> None:
        if document["partial"]:
            self._line(self._label("report.interrupted"), "bold red")
        self._line(headline(document, self._language), "bold")
        for text in notes(document, self._language):
            self._line(text, FAINT)

    def _story(self, story: dict[str, Any]) -> None:
        self._line()
        target = " ".join(visible(text) for text in (story["host"] or story["sni"], story["path"]) if text)
        ends = visible(f"{story['client']} -> {story['server']}")
        self._console.print(Text.assemble((ends, "bold"), f"  {target}"))
        if self._names_sources:
            self._line(visible(story["source"]), FAINT, indent=2)
        self._told(tell(story, self._language), [view["diagnosis"] for view in story["views"]])

    def _log_story(self, row: dict[str, Any]) -> None:
        self._line()
        head = log_head(row, self._language)
        by = "story.logged_by" if row["system"] else "story.unknown_system"
        self._console.print(Text.assemble((head, "bold"), f"  {self._label(by, system=row['system'])}"))
        self._told(tell_logged(row, self._language), [row["diagnosis"]])

    def _told(self, sentences: list[str], keys: list[str]) -> None:
        for sentence in sentences:
            self._line(sentence, indent=2)
        for text in advice(keys, self._language):
            self._field("do", text)

    def _answers(self, document: dict[str, Any]) -> None:
        """What matters most, on the first screen: which code, how known, who, what to do."""
        entries = document["diagnoses"][:ANSWERS_SHOWN]
        if not entries:
            return
        self._title(self._label("report.in_short"))
        for entry in entries:
            text = self._language.diagnosis(entry["key"])
            known = self._language.join(self._label(f"provenance.{name}") for name in entry["provenances"])
            shares = [
                self._label(f"report.share_of_{part['endpoint']}", share=self._language.percent(part["share"]))
                for part in entry["shares"]
            ]
            much = self._language.join([self._language.count("report.views", entry["count"]), *shares])
            head = Text.assemble((self._code(entry), "bold"), f" ({known}): {text.title}")
            self._console.print(Padding(head, (0, 0, 0, 2)))
            self._line(much, FAINT, indent=4)
            since = told_of_place(entry, self._language)
            if since:
                self._line(since, FAINT, indent=4)
            self._field("do", text.fix)

    def _code(self, entry: dict[str, Any]) -> str:
        return self._label("report.no_code") if entry["code"] is None else f"{entry['code']} {entry['name']}"

    def _frequencies(self, document: dict[str, Any]) -> None:
        for endpoint, n in document["established"].items():
            rows = [row for row in document["frequencies"] if row["endpoint"] == endpoint]
            if rows:
                self._title(
                    self._label(f"report.by_{endpoint}"),
                    f"({self._language.count(f'report.{counted_as(document)}', n)})",
                )
                self._codes(rows)
        if document["illegal"]:
            self._title(self._label("report.illegal"))
            self._codes(document["illegal"], names_side=True)
        seen = {row["provenance"] for row in (*document["frequencies"], *document["illegal"])}
        if seen:
            self._line()
            for name in STYLES:
                if name in seen:
                    word, about = self._label(f"provenance.{name}"), self._label(f"provenance_about.{name}")
                    plain = "" if word == name else f" ({name})"
                    self._console.print(Text.assemble((word, STYLES[name]), f"{plain}: {about}"))

    def _codes(self, rows: list[dict[str, Any]], *, names_side: bool = False) -> None:
        has_bars = not names_side and self._console.width >= MIN_WIDTH_FOR_BARS
        columns = [("seen_by", "left")] if names_side else []
        columns += [("code", "right"), ("name", "fill"), ("provenance", "left"), ("closed_by", "left")]
        table = self._table([*columns, ("count", "right"), ("share", "right")])
        if has_bars:
            table.add_column("", no_wrap=True, width=BAR_WIDTH)
        for row in rows[:ROWS_SHOWN]:
            cells: list[Any] = [self._label(f"endpoint.{row['endpoint']}")] if names_side else []
            cells += [
                str(row["code"]),
                row["name"],
                self._provenance(row["provenance"]),
                self._label(f"initiator.{row['initiator']}"),
                self._language.number(row["count"]),
                self._language.percent(row["share"]),
            ]
            table.add_row(*cells, *([_bar(row["share"])] if has_bars else []))
        self._console.print(table)
        self._rest(len(rows) - ROWS_SHOWN, "rows")

    def _both_views(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        self._title(self._label("report.both_views"))
        names = ("client_sent", "server_sent", "client_reports", "server_reports")
        table = self._table([*((name, "left") for name in names), ("count", "right")])
        for row in rows[:MATRIX_SHOWN]:
            cells = [Text(sent_text(row, side, self._language)) for side in ("client", "server")]
            cells += [self._reported(row[side], row[f"{side}_provenance"]) for side in ("client", "server")]
            table.add_row(*cells, self._language.number(row["count"]))
        self._console.print(table)
        self._rest(len(rows) - MATRIX_SHOWN, "rows")

    def _reported(self, code: int | None, provenance: str | None) -> Text:
        if provenance is None:
            return Text("-")
        word = self._label(f"provenance.{provenance}")
        return Text(word if code is None else f"{code} {word}", style=STYLES[provenance])

    def _ends(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        self._title(self._label("report.ends"))
        table = self._table([("closed_by", "left"), ("transport", "left"), ("ended_by", "left"), ("count", "right")])
        for row in rows[:MATRIX_SHOWN]:
            ender = self._label(f"endpoint.{row['ended_by']}") if row["ended_by"] in ENDERS else ""
            closer, end = self._label(f"initiator.{row['initiator']}"), self._label(f"end.{row['end']}")
            table.add_row(closer, end, ender, self._language.number(row["count"]))
        self._console.print(table)
        self._rest(len(rows) - MATRIX_SHOWN, "rows")

    def _http2(self, document: dict[str, Any], *, is_small: bool) -> None:
        """Causes that several WebSockets share, and the error codes of HTTP/2."""
        errors = [] if is_small else document["stream_errors"]
        shared = shared_causes(document, self._language)
        if not errors and not shared:
            return
        self._title(self._label("report.http2"))
        for text in shared:
            self._line(text, indent=2)
        for entry in errors[:MATRIX_SHOWN]:
            self._line(f"{self._language.number(entry['count']):>8}  {stream_error(entry, self._language)}")
            hint = self._language.hint(entry["error"])
            if hint:
                self._line(hint, FAINT, indent=10)
        self._rest(len(errors) - MATRIX_SHOWN, "rows")

    def _block(self, title: str, rows: list[dict[str, Any]], note: str = "") -> None:
        if not rows and not note:
            return
        self._title(title)
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=7, justify="right", no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        for row in rows[:ROWS_SHOWN]:
            code = f" {row['code']}" if row.get("code") else ""
            about = self._language.diagnosis(row["key"]).title
            if row.get("ended_by") in ENDERS:
                side = self._label(f"side.{row['ended_by']}")
                about = self._label("report.ended_by", title=about, side=side)
            endpoint = self._label(f"endpoint.{row['endpoint']}")
            grid.add_row(
                self._language.number(row["count"]), f"{endpoint}{code}", Text(row["evidence"], "yellow"), about
            )
        if rows:
            self._console.print(grid)
        self._rest(len(rows) - ROWS_SHOWN, "rows")
        if note:
            self._line(note, indent=2)

    def _timeline(self, timeline: dict[str, Any]) -> None:
        """Ends over time as a line of blocks for each of the most frequent codes."""
        bins = timeline["bins"]
        times = sorted({row["time"] for row in bins})
        if len(times) < 2:
            return
        sides = list(dict.fromkeys(row["endpoint"] for row in bins))
        names = {side: self._label(f"endpoint.{side}") for side in sides}
        room = max(10, self._console.width - max(map(cell_len, names.values())) - 8)
        columns = Columns.of(times[0], times[-1], timeline["step_s"], room)
        lines: dict[tuple[str, int | None], list[int]] = {}
        for row in bins:
            heights = lines.setdefault((row["endpoint"], row["code"]), [0] * columns.n)
            heights[columns.place(row["time"])] += row["count"]
        step = self._language.step(columns.step_s)
        self._title(self._label("report.timeline"), self._label("report.timeline_step", step=step))
        if timeline["is_coarser"]:
            self._line(self._label("report.timeline_coarser"), FAINT)
        shown = [
            key
            for side in sides
            for key in sorted((k for k in lines if k[0] == side), key=lambda k: (-sum(lines[k]), k[1] or 0))[
                :CODES_SHOWN
            ]
        ]
        top = max(max(lines[key]) for key in shown)
        grid = Table.grid(padding=(0, 1))
        for kind in ("left", "right", "left"):
            grid.add_column(no_wrap=True, justify="right" if kind == "right" else "left")
        for side, code in shown:
            grid.add_row(names[side], "-" if code is None else str(code), Text(blocks(lines[side, code], top), "blue"))
        self._console.print(grid)
        first, last = (self._language.time(time) for time in (times[0], times[-1]))
        notes = [self._label("report.period", first=first, last=last), self._language.count("report.scale", top)]
        self._line(self._language.join(notes), FAINT, indent=2)

    def _durations(self, name: str, entries: list[dict[str, Any]]) -> None:
        if not entries:
            return
        self._title(self._label(f"report.{name}"))
        columns = [("seen_by", "left"), ("code", "right"), ("count", "right")]
        table = self._table([*columns, ("median", "right"), ("p90", "right"), ("p99", "right")])
        for entry in entries[:DURATIONS_SHOWN]:
            code = "-" if entry["code"] is None else str(entry["code"])
            spans = [self._language.span(entry[part]) for part in ("p50_s", "p90_s", "p99_s")]
            table.add_row(
                self._label(f"endpoint.{entry['endpoint']}"), code, self._language.number(entry["count"]), *spans
            )
        self._console.print(table)
        self._rest(len(entries) - DURATIONS_SHOWN, "rows")

    def _breakdowns(self, document: dict[str, Any]) -> None:
        for dimension, beyond in document["beyond"].items():
            entries = [entry for entry in document["by"] if entry["dimension"] == dimension]
            if not entries:
                continue
            self._title(self._label(f"by.{dimension}"))
            table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style=FAINT)
            sides = [self._label(f"endpoint.{entry['endpoint']}") for entry in entries]
            table.add_column(self._label("column.seen_by"), no_wrap=True, min_width=max(map(cell_len, sides)))
            table.add_column(self._label(f"dimension.{dimension}"), overflow="ellipsis", no_wrap=True, ratio=1)
            table.add_column(self._label("column.count"), justify="right", no_wrap=True, min_width=5)
            width = min(44, self._console.width // 2)
            table.add_column(self._label("column.codes"), no_wrap=True, overflow="ellipsis", max_width=width)
            for entry in entries:
                codes = [
                    f"{self._label('plot.no_code') if part['code'] is None else part['code']}"
                    f" {self._language.percent(part['share'])}"
                    for part in entry["codes"][:CODES_SHOWN]
                ]
                more = ["..."] if len(entry["codes"]) > CODES_SHOWN else []
                table.add_row(
                    self._label(f"endpoint.{entry['endpoint']}"),
                    visible(entry["value"]),
                    self._language.number(entry["count"]),
                    self._language.join(codes + more),
                )
            self._console.print(table)
            if beyond["values"] > 0:
                self._line(f"  {self._language.count('report.beyond', beyond['values'])}", FAINT)

    def _timers(self, entries: list[dict[str, Any]]) -> None:
        if not entries:
            return
        self._title(self._label("report.timers"))
        for entry in entries:
            self._line(timer_text(entry, self._language), indent=2)
        self._line(self._label("report.timer_note"), FAINT, indent=2)

    def _anomalies(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        self._title(self._label("report.anomalies"))
        for row in rows[:ROWS_SHOWN]:
            about = self._label(f"anomaly.{row['anomaly']}")
            self._line(f"{self._language.number(row['count']):>8}  {about} ({row['anomaly']})")

    def _systems(self, document: dict[str, Any]) -> None:
        """Which systems logged how much, and what was assumed of their times."""
        if document["systems"]:
            self._title(self._label("report.logged_by"))
            shown = [f"{row['system']} {self._language.number(row['count'])}" for row in document["systems"]]
            more = ["..."] if len(shown) > ROWS_SHOWN else []
            self._line(self._language.join(shown[:ROWS_SHOWN] + more), indent=2)

    def _unseen(self, document: dict[str, Any]) -> None:
        if not document["unseen"] and not document["troubled"]:
            return
        self._title(self._label("report.unseen"))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=8, justify="right", no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        for name, entry in document["unseen"].items():
            grid.add_row(self._language.number(entry["count"]), self._label(f"unseen.{name}"))
        self._console.print(grid)
        for row in document["troubled"]:
            self._line(f"  {visible(row['source'])}: {trouble_text(row, self._language)}")

    def _diagnoses(self, document: dict[str, Any], *, is_small: bool) -> None:
        """What each code that occurs means and what this data says of it, with the texts that apply below."""
        if not document["diagnoses"]:
            return
        self._line()
        self._line(self._label("report.diagnosis"), "bold underline")
        shown = document["diagnoses"][:DIAGNOSES_SHOWN]
        known = {entry["code"]: entry for entry in document["codes"]}
        for code in dict.fromkeys(entry["code"] for entry in shown):
            group = [entry for entry in shown if entry["code"] == code]
            self._line()
            self._line(self._code(group[0]), "bold")
            if code is not None:
                self._code_facts(known[code], set(known), is_small=is_small)
            for entry in group:
                self._diagnosis(entry)
        self._rest(len(document["diagnoses"]) - DIAGNOSES_SHOWN, "texts")

    def _code_facts(self, entry: dict[str, Any], occurring: set[int], *, is_small: bool) -> None:
        about = self._language.about(entry["code"])
        self._field("means", about.meaning)
        self._field("seen", about.seen)
        for line in [] if is_small else told_of_code(entry, self._language):
            self._field("here", line)
        for pair in entry["pairs"]:
            other = next(code for code in pair["codes"] if code != entry["code"])
            found = self._language.pair(entry["code"], other)
            if other in occurring and found is not None:
                self._field("not", f"{other}: {found.differ}")
        others = [code for code in entry["confused_with"] if code not in occurring]
        if others:
            named = self._language.join(map(str, others))
            self._field("not", self._label("explain.see_compare", others=named, code=entry["code"], other=others[0]))

    def _diagnosis(self, entry: dict[str, Any]) -> None:
        text = self._language.diagnosis(entry["key"])
        much = self._language.count("report.views", entry["count"])
        sides = self._language.join(self._label(f"endpoint.{endpoint}") for endpoint in entry["endpoints"])
        self._console.print(Padding(Text.assemble((text.title, "bold"), f"  {much} ({sides})"), (1, 0, 0, 2)))
        self._field("why", text.cause)
        if text.check:
            self._field("check", text.check)
        self._field("do", text.fix)
        self._field("first", first_text(entry["first"], self._language))
        self._field("source", text.source)


class Columns(NamedTuple):
    """Steps of a timeline put into columns of a terminal: each holds the same whole number of steps."""

    first: str
    step_s: float
    n: int

    @staticmethod
    def of(first: str, last: str, step_s: float, room: int) -> "Columns":
        """As many columns as there is room for."""
        n_steps = Columns(first, step_s, 0).place(last) + 1
        factor = -(-n_steps // room)
        return Columns(first, factor * step_s, -(-n_steps // factor))

    def place(self, time: str) -> int:
        """Number of the column that a time falls into."""
        import numpy as np

        passed = np.datetime64(time.rstrip("Z"), "ns") - np.datetime64(self.first.rstrip("Z"), "ns")
        return int(passed // np.timedelta64(round(self.step_s * 1e9), "ns"))


def blocks(heights: list[int], top: int) -> str:
    """Counts as blocks of eight heights, the highest of which is `top`; any count at all shows."""
    return "".join(BLOCKS[0 if height == 0 else 1 + height * 7 // top] for height in heights)
