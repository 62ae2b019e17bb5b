"""The report as Markdown for a ticket."""

import re
from typing import Any

from analyzer.knowledge.language import Language
from analyzer.report.story import (
    advice,
    first_text,
    handshakes,
    headline,
    log_head,
    notes,
    nothing_found,
    shared_causes,
    stream_error,
    tell,
    tell_logged,
    timer_text,
    told_of_code,
    trouble_text,
)
from analyzer.report.text import visible

SPECIAL = re.compile(r"[\\`*_{}\[\]<>()#+!|~&@$-]")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;&#8288;", "#": "&#35;&#8288;", "$": "&#36;"}
"""What tickets turn into mark-up, links, mentions or formulas."""


def escape(text: object) -> str:
    """Text without meaning to Markdown or HTML: no link, no mention, no formula."""
    shown = SPECIAL.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), visible(text, most=2000))
    return shown.replace("://", "&#58;//").replace("www.", "www&#46;")


class _Writer:
    """One document on its way to Markdown."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._label = language.label
        self.lines: list[str] = []

    def put(self, *lines: str) -> None:
        self.lines += lines

    def title(self, text: str, level: int = 2) -> None:
        self.put("#" * level + f" {escape(text)}", "")

    def table(self, columns: list[str], rows: list[list[Any]]) -> None:
        header = [escape(self._label(f"column.{name}")) for name in columns]
        self.put("| " + " | ".join(header) + " |", "|" + "---|" * len(header))
        self.put(*("| " + " | ".join("" if cell is None else escape(cell) for cell in row) + " |" for row in rows), "")

    def document(self, document: dict[str, Any]) -> None:
        language, label = self._language, self._label
        self.title(label("report.title"), 1)
        if document["partial"]:
            self.put(f"**{escape(label('report.interrupted'))}**", "")
        self.put(*(escape(text) for text in (headline(document, language), *notes(document, language))), "")
        for text in nothing_found(document, language):
            self.put(escape(text), "")
        for story in document["stories"]:
            named = (story["client"], story["server"], story["host"] or story["sni"], story["path"])
            where = " ".join(visible(text) for text in named if text)
            self._told(where, tell(story, language), [view["diagnosis"] for view in story["views"]])
        for row in document["log_stories"]:
            self._told(log_head(row, language), tell_logged(row, language), [row["diagnosis"]])
        for name in ("frequencies", "illegal"):
            self._frequencies(name, document[name])
        shared, errors = shared_causes(document, language), document["stream_errors"]
        if shared or errors:
            self.title(label("report.http2"))
            self.put(*(f"- {escape(text)}" for text in shared), "")
        if errors:
            rows = [[stream_error(row, language), language.hint(row["error"]), row["count"]] for row in errors]
            self.table(["what", "meaning", "count"], rows)
        for name in ("undetermined", "never_opened", "proxy"):
            note = handshakes(document, language) if name == "never_opened" and not document["stories"] else ""
            self._block(name, document[name], note)
        if document["timers"]:
            self.title(label("report.timers"))
            self.put(*(f"- {escape(timer_text(entry, language))}" for entry in document["timers"]))
            self.put("", escape(label("report.timer_note")), "")
        self._diagnoses(document)
        if document["systems"]:
            self.title(label("report.logged_by"))
            self.table(["system", "count"], [[row["system"], row["count"]] for row in document["systems"]])
        if document["unseen"] or document["troubled"]:
            self.title(label("report.unseen"))
            rows = [[label(f"unseen.{name}"), entry["count"]] for name, entry in document["unseen"].items()]
            if rows:
                self.table(["what", "count"], rows)
            self.put(
                *(f"- {escape(row['source'])}: {escape(trouble_text(row, language))}" for row in document["troubled"])
            )
        if document.get("redacted"):
            self.put("", escape(label("report.redacted")))
        made = label("report.made_by", version=document["version"], catalogue=document["catalogue"])
        self.put("", f"_{escape(made)}_", "")

    def _told(self, head: str, sentences: list[str], keys: list[str]) -> None:
        self.put(f"- **{escape(head)}**", *(f"  {escape(sentence)}" for sentence in sentences))
        do = self._label("field.do")
        self.put(*(f"  **{escape(do)}** {escape(text)}" for text in advice(keys, self._language)), "")

    def _frequencies(self, name: str, block: list[dict[str, Any]]) -> None:
        if not block:
            return
        by_endpoint = dict.fromkeys(row["endpoint"] for row in block)
        for endpoint in by_endpoint if name == "frequencies" else [None]:
            self.title(self._label("report.illegal" if endpoint is None else f"report.by_{endpoint}"))
            rows = [row for row in block if endpoint in (None, row["endpoint"])]
            columns = ["code", "name", "provenance", "closed_by", "count", "share"]
            cells = [
                [
                    row["code"],
                    row["name"],
                    self._label(f"provenance.{row['provenance']}"),
                    self._label(f"initiator.{row['initiator']}"),
                    self._language.number(row["count"]),
                    self._language.percent(row["share"]),
                ]
                for row in rows
            ]
            if endpoint is None:
                columns.insert(0, "seen_by")
                for row, line in zip(rows, cells, strict=True):
                    line.insert(0, self._label(f"endpoint.{row['endpoint']}"))
            self.table(columns, cells)

    def _block(self, name: str, block: list[dict[str, Any]], note: str = "") -> None:
        if not block and not note:
            return
        self.title(self._label(f"report.{name}"))
        rows = [
            [
                self._label(f"endpoint.{row['endpoint']}"),
                row["evidence"],
                self._language.diagnosis(row["key"]).title,
                self._language.number(row["count"]),
            ]
            for row in block
        ]
        if rows:
            self.table(["seen_by", "evidence", "meaning", "count"], rows)
        if note:
            self.put(escape(note), "")

    def _diagnoses(self, document: dict[str, Any]) -> None:
        if not document["diagnoses"]:
            return
        language, label = self._language, self._label
        self.title(label("report.diagnosis"))
        known = {entry["code"]: entry for entry in document["codes"]}
        for code in dict.fromkeys(entry["code"] for entry in document["diagnoses"]):
            group = [entry for entry in document["diagnoses"] if entry["code"] == code]
            self.title(label("report.no_code") if code is None else f"{code} {group[0]['name']}", 3)
            if code is not None:
                self.put(escape(language.about(code).meaning), "")
                self.put(*(f"- {escape(line)}" for line in told_of_code(known[code], language)), "")
            for entry in group:
                text = language.diagnosis(entry["key"])
                self.title(f"{text.title} ({language.number(entry['count'])})", 4)
                fields = (("why", text.cause), ("check", text.check), ("do", text.fix))
                more = (("first", first_text(entry["first"], language)), ("source", text.source))
                self.put(
                    *(
                        f"- **{escape(label(f'field.{name}'))}** {escape(said)}"
                        for name, said in (*fields, *more)
                        if said
                    ),
                    "",
                )


def render(document: dict[str, Any], language: Language) -> str:
    """Render a report document."""
    writer = _Writer(language)
    writer.document(document)
    return "\n".join(writer.lines)
