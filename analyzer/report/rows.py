"""Rows written as they are found: text, JSON lines and CSV, for `closes` and `connections`."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from analyzer.model import Column, format_time, format_times
from analyzer.report.text import csv_cell, record_name, visible
from analyzer.table import Table


def to_json(row: dict[str, Any], schema: Sequence[Column]) -> dict[str, Any]:
    """A row as JSON takes it: times as RFC 3339 with nanoseconds, anomalies as a list."""
    return {c.name: format_time(row[c.name]) if c.kind == "time" else row[c.name] for c in schema}


UNSAFE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON lets through and a terminal obeys: further control characters, line separators, marks of direction."""


def to_safe_json(document: dict[str, Any]) -> str:
    """A document as JSON that people can read, without what a terminal would obey."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class JsonLines:
    """One JSON object a line."""

    def __init__(self, out: TextIO, schema: Sequence[Column]) -> None:
        self._out = out
        self._schema = schema

    def write(self, table: Table) -> None:
        """Write every row of a table."""
        for row in table.rows():
            text = json.dumps(to_json(row, self._schema), ensure_ascii=False, separators=(",", ":"))
            self._out.write(UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")


class Csv:
    """Comma-separated with a header; anomalies joined by `|`, unknown empty, no cell that could start a formula."""

    def __init__(self, out: TextIO, schema: Sequence[Column]) -> None:
        self._writer = csv.writer(out, lineterminator="\n")
        self._schema = schema
        self._writer.writerow([c.name for c in schema])

    def write(self, table: Table) -> None:
        """Write every row of a table, made column by column: most columns hold few different values."""
        columns = [self._column(table[c.name], c.kind) for c in self._schema]
        self._writer.writerows(zip(*columns, strict=True))

    def _column(self, values: Sequence[Any], kind: str) -> Sequence[str]:
        if kind == "time":
            return format_times(values)
        if kind == "list":
            return ["|".join(value) if value else "" for value in values]
        shown: dict[Any, str] = {}
        for value in set(values):
            shown[value] = "" if value is None else csv_cell(value) if kind == "text" else str(value)
        return [shown[value] for value in values]


class Lines:
    """One line for people: what matters, in a fixed order, ready for grep."""

    def __init__(self, out: TextIO, schema: Sequence[Column]) -> None:
        self._out = out
        self._is_closes = any(c.name == "endpoint" for c in schema)

    def write(self, table: Table) -> None:
        """Write every row of a table."""
        for row in table.rows():
            self._out.write(close_line(row) if self._is_closes else connection_line(row))
            self._out.write("\n")


def close_line(row: dict[str, Any]) -> str:
    """`time endpoint code provenance evidence client -> server host path "reason" system (file, packet or line)`."""
    code = "-" if row["code"] is None else row["code"]
    parts = [
        f"{format_time(row['time']) or '-':30}",
        f"{row['endpoint']:7} {code:>4} {row['provenance']:12} {row['evidence']:18}",
    ]
    if row["client"] or row["server"]:
        parts.append(f"{visible(row['client'] or '?')} -> {visible(row['server'] or '?')}")
    parts += [visible(row[name]) for name in ("host", "path") if row[name]]
    if row["sent_code"] is not None and row["code"] is None:
        parts.append(f"sent {row['sent_code']}")
    if row["endpoint"] == "proxy" and row["ended_by"] not in (None, "unknown"):
        parts.append(f"ended by {row['ended_by']}")
    if row["reason"]:
        parts.append(f'"{visible(row["reason"])}"')
    if row["system"]:
        parts.append(row["system"])
    if row["anomalies"]:
        parts.append("!" + ",".join(row["anomalies"]))
    place = record_name(row["record"], row["evidence"])
    where = visible(row["source"]) + (f", {place}" if place else "")
    return " ".join([*parts, f"({where})"])


def connection_line(row: dict[str, Any]) -> str:
    """`opened client -> server host path handshake client=CODE server=CODE end by (file)`.

    Where no Host header was read, the name that the client gave to TLS stands for it.
    """

    def view(side: str) -> str:
        if row[f"{side}_view_provenance"] is None:
            return f"{side}=none"
        return f"{side}={row[f'{side}_view_code'] or 'undetermined'}/{row[f'{side}_view_evidence']}"

    parts = [f"{format_time(row['opened']) or '-':30}", f"{row['client']} -> {row['server']}"]
    parts += [visible(text) for text in (row["host"] or row["sni"], row["path"]) if text]
    parts.append(str(row["handshake"]) + (f" {row['http_status']}" if row["http_status"] not in (None, 101) else ""))
    if row["likelihood"] and row["handshake"] == "sealed":
        parts.append(f"likelihood {row['likelihood']}")
    parts += [view("client"), view("server"), f"closed by {row['initiator']}"]
    parts.append(str(row["end"]) + (f" by {row['ended_by']}" if row["ended_by"] else ""))
    if row["duration_s"] is not None:
        parts.append(f"{row['duration_s']:.3f} s")
    if row["anomalies"]:
        parts.append("!" + ",".join(row["anomalies"]))
    return " ".join([*parts, f"({visible(row['source'])})"])


class Writer(Protocol):
    """Writes the rows of one schema as they come."""

    def write(self, table: Table) -> None:
        """Write every row of a table."""


WRITERS: dict[str, Callable[[TextIO, Sequence[Column]], Writer]] = {"text": Lines, "jsonl": JsonLines, "csv": Csv}

FREQUENCY_COLUMNS = ("endpoint", "code", "name", "provenance", "initiator", "count", "share")


def render_frequencies(document: dict[str, Any]) -> str:
    """The frequency table, illegal codes included, as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FREQUENCY_COLUMNS)
    for row in (*document["frequencies"], *document["illegal"]):
        writer.writerow([csv_cell(row[n]) if isinstance(row[n], str) else row[n] for n in FREQUENCY_COLUMNS])
    return out.getvalue()
