"""Rows written as they are found: text, JSON lines and CSV, for `closes` and `connections`."""

import csv
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from analyzer.model import Column, Table, format_time
from analyzer.report.text import csv_cell, visible


def to_json(row: dict[str, Any], schema: Sequence[Column]) -> dict[str, Any]:
    """A row as JSON takes it: times as RFC 3339 with nanoseconds, anomalies as a list."""
    return {c.name: format_time(row[c.name]) if c.kind == "time" else row[c.name] for c in schema}


class JsonLines:
    """One JSON object a line."""

    def __init__(self, out: TextIO, schema: Sequence[Column]) -> None:
        self._out = out
        self._schema = schema

    def write(self, table: Table) -> None:
        """Write every row of a table."""
        for row in table.rows():
            json.dump(to_json(row, self._schema), self._out, ensure_ascii=False, separators=(",", ":"))
            self._out.write("\n")


class Csv:
    """Comma-separated with a header; anomalies joined by `|`, unknown empty, no cell that could start a formula."""

    def __init__(self, out: TextIO, schema: Sequence[Column]) -> None:
        self._writer = csv.writer(out, lineterminator="\n")
        self._schema = schema
        self._writer.writerow([c.name for c in schema])

    def write(self, table: Table) -> None:
        """Write every row of a table."""
        for row in table.rows():
            self._writer.writerow([self._cell(row[c.name], c.kind) for c in self._schema])

    @staticmethod
    def _cell(value: Any, kind: str) -> str:
        if value is None:
            return ""
        if kind == "list":
            return "|".join(value)
        if kind == "time":
            return str(format_time(value))
        return csv_cell(value) if kind == "text" else str(value)


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
    """`time endpoint code provenance evidence client -> server host path "reason" (file, packet)`."""
    code = "-" if row["code"] is None else row["code"]
    parts = [
        f"{format_time(row['time']) or '-':30}",
        f"{row['endpoint']:6} {code:>4} {row['provenance']:12} {row['evidence']:18}",
        f"{row['client']} -> {row['server']}",
    ]
    parts += [visible(row[name]) for name in ("host", "path") if row[name]]
    if row["reason"]:
        parts.append(f'"{visible(row["reason"])}"')
    if row["anomalies"]:
        parts.append("!" + ",".join(row["anomalies"]))
    where = visible(row["source"]) + (f", packet {row['record']}" if row["record"] else "")
    return " ".join([*parts, f"({where})"])


def connection_line(row: dict[str, Any]) -> str:
    """`opened client -> server host path handshake client=CODE server=CODE end by (file)`."""

    def view(side: str) -> str:
        if row[f"{side}_view_provenance"] is None:
            return f"{side}=none"
        return f"{side}={row[f'{side}_view_code'] or 'undetermined'}/{row[f'{side}_view_evidence']}"

    parts = [f"{format_time(row['opened']):30}", f"{row['client']} -> {row['server']}"]
    parts += [visible(row[name]) for name in ("host", "path") if row[name]]
    parts.append(str(row["handshake"]) + (f" {row['http_status']}" if row["http_status"] not in (None, 101) else ""))
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
