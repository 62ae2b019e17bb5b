"""What machines may rely on, generated: the JSON Schema of reports and the table of columns.

`python -m analyzer.report.schema DIRECTORY` writes both; a test compares them with what lies in docs/.
"""

import json
import sys
from pathlib import Path
from typing import Any

from analyzer.keys import UNUSABLE
from analyzer.model import (
    CLOSES,
    CONNECTIONS,
    DIMENSIONS,
    INPUTS,
    Cause,
    Column,
    End,
    Endpoint,
    Evidence,
    Handshake,
    Initiator,
    Provenance,
    Received,
)
from analyzer.report.document import SCHEMA


def _object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(members), "properties": members}


def _list(**members: Any) -> dict[str, Any]:
    return {"type": "array", "items": _object(**members)}


def _maybe(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "null"}]}


def _column(column: Column) -> dict[str, Any]:
    """What a column of a table holds in JSON; unknown is null."""
    kinds = {"int": "integer", "float": "number", "time": "string", "text": "string", "enum": "string"}
    if column.kind == "list":
        return _maybe({"type": "array", "items": {"type": "string"}})
    return _maybe({"type": kinds[column.kind]})


def report_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `wsclose report --format json`; members may be added within a major version."""
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    code = {"type": "integer", "minimum": 0, "maximum": 65535}
    time = {"type": "string", "pattern": r"^-?\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$"}
    endpoint, evidence, provenance = ({"enum": list(kind)} for kind in (Endpoint, Evidence, Provenance))
    initiator, end = {"enum": list(Initiator)}, {"enum": list(End)}
    ender = {"enum": [*Endpoint, "both"]}
    frequencies = _list(
        endpoint=endpoint, code=code, name=text, provenance=provenance, initiator=initiator, count=count, share=share
    )
    names = {"type": "array", "items": text}
    seconds = {"type": "number", "minimum": 0}
    most = _list(value=text, count=count)
    bucket = {"enum": ["established", "illegal", "undetermined", "never_opened", "proxy"]}
    distribution = _list(
        endpoint=endpoint,
        code=_maybe(code),
        count=count,
        p50_s=seconds,
        p90_s=seconds,
        p99_s=seconds,
        bins=_list(from_s=seconds, to_s=seconds, count=count),
    )
    first = _object(
        source=text, record=_maybe(count), place=text, time=_maybe(time), endpoint=endpoint, peer=text, connection=text
    )
    view = _object(
        endpoint=endpoint,
        code=_maybe(code),
        provenance=provenance,
        evidence=evidence,
        confidence=_maybe(text),
        source=text,
        record=_maybe(count),
        diagnosis=text,
    )
    document = _object(
        schema={"const": SCHEMA},
        version=text,
        catalogue=text,
        partial={"type": "boolean"},
        inputs=count,
        packets=count,
        lines=count,
        joined_lines=count,
        flows=count,
        connections=count,
        logged=count,
        first=_maybe(time),
        last=_maybe(time),
        established={"type": "object", "additionalProperties": count},
        sealed=_list(value={"enum": ["high", "medium"]}, count=count),
        frequencies=frequencies,
        illegal=frequencies,
        undetermined=_list(endpoint=endpoint, evidence=evidence, count=count, title=text, key=text),
        never_opened=_list(endpoint=endpoint, evidence=evidence, code=_maybe(code), count=count, title=text, key=text),
        proxy=_list(endpoint=endpoint, evidence=evidence, ended_by=_maybe(ender), count=count, title=text, key=text),
        systems=_list(system=text, count=count),
        handshakes=_list(handshake={"enum": list(Handshake)}, http_status=_maybe(count), count=count),
        ends=_list(initiator=initiator, end=end, ended_by=_maybe(ender), count=count),
        views=_list(
            client_sent=_maybe({"enum": list(Received)}),
            client_sent_code=_maybe(code),
            server_sent=_maybe({"enum": list(Received)}),
            server_sent_code=_maybe(code),
            client=_maybe(code),
            client_provenance=_maybe(provenance),
            server=_maybe(code),
            server_provenance=_maybe(provenance),
            count=count,
        ),
        causes=_list(cause={"enum": list(Cause)}, connections=count, count=count),
        stream_errors=_list(
            frame={"enum": ["RST_STREAM", "GOAWAY"]},
            endpoint=endpoint,
            error=text,
            count=count,
            hint=_maybe(text),
            source=_maybe(text),
        ),
        anomalies=_list(anomaly=text, count=count),
        durations=distribution,
        silences=distribution,
        timers=_list(
            measure={"enum": ["silence", "duration"]},
            code=_maybe(code),
            seconds=seconds,
            count=count,
            share=share,
            candidates=_list(system=text, setting=text, kind=text, source=text),
        ),
        codes=_list(
            code=code,
            name=text,
            on_wire=text,
            meaning=text,
            seen=text,
            fix=text,
            source=text,
            confused_with={"type": "array", "items": code},
            pairs=_list(codes={"type": "array", "items": code}, differ=text, choose=text, source=text),
            endpoints=most,
            initiators=most,
            enders=most,
            **dict.fromkeys(DIMENSIONS, most),
            first=_maybe(time),
            last=_maybe(time),
        ),
        diagnoses=_list(
            key=text,
            code=_maybe(code),
            name=_maybe(text),
            count=count,
            endpoints={"type": "array", "items": endpoint},
            shares=_list(endpoint=endpoint, count=count, share=share),
            provenances={"type": "array", "items": provenance},
            evidence={"type": "array", "items": evidence},
            initiators=most,
            enders=most,
            systems=most,
            title=text,
            cause=text,
            check=_maybe(text),
            fix=text,
            source=text,
            meaning=_maybe(text),
            seen=_maybe(text),
            confused_with={"type": "array", "items": code},
            first=first,
            last=_maybe(time),
        ),
        stories=_list(connection=text, source=text, client=text, server=text, views={"type": "array", "items": view}),
        log_stories=_list(
            source=text, record=count, endpoint=endpoint, code=_maybe(code), provenance=provenance, diagnosis=text
        ),
        rows=_list(**{column.name: _column(column) for column in CLOSES}, diagnosis=text),
        filters={"type": "object", "additionalProperties": names},
        left_out=count,
        keys=_object(
            connections=count,
            opened=count,
            has_any={"type": "boolean"},
            unusable=_list(source=text, status={"enum": list(UNUSABLE)}),
        ),
        by=_list(
            dimension={"enum": list(DIMENSIONS)},
            endpoint=endpoint,
            value=text,
            count=count,
            harmful=count,
            codes=_list(code=_maybe(code), provenance=provenance, bucket=bucket, count=count, share=share),
        ),
        beyond={"type": "object", "additionalProperties": _object(values=count, views=count)},
        timeline=_object(
            step_s=seconds,
            is_coarser={"type": "boolean"},
            bins=_list(
                time=time, endpoint=endpoint, code=_maybe(code), provenance=provenance, bucket=bucket, count=count
            ),
        ),
        assumed=_list(what=text, value=text, inputs=count),
        unseen={"type": "object", "additionalProperties": _object(count=count, about=text)},
        troubled=_list(
            source=text, status=text, message=_maybe(text), damaged_at=_maybe(count), lost_bytes=_maybe(count)
        ),
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Report of wsclose ({SCHEMA})",
        **document,
    }


def columns_page() -> str:
    """docs/columns.md: every column of every table."""
    tables = (
        ("closes", CLOSES, "One endpoint's view of one end. A captured established connection gives two rows."),
        ("connections", CONNECTIONS, "One WebSocket connection, or one attempt at it."),
        ("inputs", INPUTS, "One file. `skipped_` columns count what could not be seen."),
    )
    lines = [
        "# Columns",
        "",
        "Generated by `python -m analyzer.report.schema docs`. Units are in the names. Times are UTC: RFC 3339 with",
        "nanoseconds in JSON and CSV, `datetime64[ns, UTC]` in pandas. Unknown is null, never a sentinel. A list is a",
        "list in JSON and `a|b` in CSV and pandas. CSV puts a quote before text that a spreadsheet would evaluate.",
    ]
    for name, schema, about in tables:
        lines += ["", f"## {name}", "", about, "", "| column | kind | |", "|---|---|---|"]
        lines += [f"| `{column.name}` | {column.kind} | {column.about} |" for column in schema]
    return "\n".join(lines) + "\n"


def write(directory: Path) -> None:
    """Write both documents."""
    schema = json.dumps(report_schema(), indent=2) + "\n"
    (directory / "report.schema.json").write_text(schema, encoding="utf-8")
    (directory / "columns.md").write_text(columns_page(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
