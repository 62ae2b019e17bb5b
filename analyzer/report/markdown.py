"""The report as Markdown for a ticket, and the frequency table as CSV.

Markdown leaves the house: query strings, and what looks like a token or an address, are redacted.
"""

import csv
import io
import re
from typing import Any

from analyzer.report.document import assumptions, headline, percent
from analyzer.report.text import csv_cell, redact, redact_path, visible

SPECIAL = re.compile(r"[\\`*_{}\[\]<>()#+!|~&@$-]")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;", "$": "&#36;"}
"""What tickets turn into mark-up, links, mentions or formulas."""


def escape(text: object) -> str:
    """Text without meaning to Markdown or HTML: no link, no mention, no formula."""
    shown = SPECIAL.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), visible(text))
    return shown.replace("://", "&#58;//").replace("www.", "www&#46;")


def _table(header: list[str], rows: list[list[Any]], out: list[str]) -> None:
    out.append("| " + " | ".join(header) + " |")
    out.append("|" + "---|" * len(header))
    out += ["| " + " | ".join("" if cell is None else escape(cell) for cell in row) + " |" for row in rows]
    out.append("")


def render(document: dict[str, Any]) -> str:
    """Render a report document."""
    out = ["# Why the WebSockets closed", ""]
    if document["partial"]:
        out += ["**Interrupted: only what was read so far.**", ""]
    out.append(f"{headline(document)}, {document['first'] or '-'} to {document['last'] or '-'} (UTC).")
    out += [f"{escape(sentence)}" for sentence in assumptions(document)]
    out.append("")
    for story in document["stories"]:
        path = redact_path(story["path"] or "")
        views = "; ".join(
            f"the {v['endpoint']} reports {v['code'] or 'undetermined'} ({v['provenance']}, {v['evidence']})"
            for v in story["views"]
        )
        reasons = [redact(story[f"{side}_close_reason"] or "") for side in ("client", "server")]
        quoted = "".join(f', reason "{escape(reason)}"' for reason in reasons if reason)
        line = f"{story['client']} to {story['server']} {path}: first Close by {story['initiator']}"
        out += [f"- {escape(line)}{quoted}; {escape(views)}"]
    for row in document["log_stories"]:
        code = row["code"] or "undetermined"
        line = f"{row['source']}, line {row['record']}: {row['endpoint']} reports {code} ({row['provenance']})"
        reason = redact(row["reason"] or "")
        out.append(f"- {escape(line)}" + (f', reason "{escape(reason)}"' if reason else ""))
    if document["stories"] or document["log_stories"]:
        out.append("")
    header = ["endpoint", "code", "name", "provenance", "first Close by", "count", "share"]
    for title, block in (("Frequencies", "frequencies"), ("Codes that may not be sent, seen on the wire", "illegal")):
        if document[block]:
            out += [f"## {title}", ""]
            rows = [
                [r["endpoint"], r["code"], r["name"], r["provenance"], r["initiator"], r["count"], percent(r["share"])]
                for r in document[block]
            ]
            _table(header, rows, out)
    blocks = (("No code claimed", "undetermined"), ("Never opened", "never_opened"), ("Seen by proxies", "proxy"))
    for title, block in blocks:
        if document[block]:
            out += [f"## {title}", ""]
            rows = [[r["endpoint"], r["evidence"], r["title"], r["count"]] for r in document[block]]
            _table(["endpoint", "evidence", "meaning", "count"], rows, out)
    if document["diagnoses"]:
        out += ["## Diagnosis", ""]
    for entry in document["diagnoses"]:
        code = "No code" if entry["code"] is None else f"{entry['code']} {entry['name']}"
        out += [f"### {escape(code)}: {escape(entry['title'])} ({entry['count']})", "", escape(entry["cause"]), ""]
        if entry["check"]:
            out.append(f"- Check: {escape(entry['check'])}")
        out.append(f"- Do: {escape(entry['fix'])}")
        first = entry["first"]
        place = f"{first['source']}, {first['place']}" if first["place"] else str(first["source"])
        out += [f"- First: {escape(place)}, {first['time'] or 'no time'}, seen by the {first['endpoint']}"]
        out += [f"- Source: {escape(entry['source'])}", ""]
    if document["systems"]:
        out += ["## Logged by", ""]
        _table(["system", "count"], [[row["system"], row["count"]] for row in document["systems"]], out)
    if document["unseen"]:
        out += ["## What could not be seen", ""]
        _table(["what", "count"], [[entry["about"], entry["count"]] for entry in document["unseen"].values()], out)
    for row in document["troubled"]:
        out.append(f"- {escape(row['source'])}: {row['status']}, {escape(row['message'] or '')}")
    out += ["", f"_wsclose {document['version']}, knowledge {document['catalogue']}_", ""]
    return "\n".join(out)


def render_csv(document: dict[str, Any]) -> str:
    """The frequency table, illegal codes included, as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["endpoint", "code", "name", "provenance", "initiator", "count", "share"]
    writer.writerow(names)
    for row in (*document["frequencies"], *document["illegal"]):
        writer.writerow([csv_cell(row[n]) if isinstance(row[n], str) else row[n] for n in names])
    return out.getvalue()
