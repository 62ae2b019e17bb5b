"""One line of a log without what carried it: docker, CRI, journald, syslog, CloudWatch, Loki, Elastic, Splunk, GELF.

CRI and syslog headers are taken off; names that `kubectl logs --prefix` or compose put before a line stay in the text,
which patterns search from anywhere. Wrappers that are JSON are taken apart whatever their names: every string of theirs
becomes a line of the text, and a string that holds JSON again is taken apart in turn.
"""

import json
import re
from typing import Any

from analyzer.logs.timestamp import TIME_KEYS, Clock, Instant

MAX_TEXT = 1 << 14
"""Characters of a record that patterns search: a regular expression's time grows with them."""

MAX_DEPTH = 32
"""Objects inside objects, and JSON inside JSON: what lies deeper is left as text."""

MAX_HEADERS = 8
"""Headers before headers beyond this stay in the text."""

MAX_STRINGS = 10_000
MAX_RECORDS = 1 << 16
"""Records that one line may hold (a CloudWatch or Loki export is one JSON document)."""

ANSI = re.compile(r"\x1b(?:\[[0-9;:?]{0,20}[A-Za-z]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|[()][0-9A-Za-z])")
"""Colours and titles (ECMA-48): they are no part of what was logged."""

HEADER = re.compile(
    r"(?:(?P<cri>\d{4}-\d\d-\d\dT\S{1,30}) std(?:out|err) [FP] "
    r"|<\d{1,3}>1 (?P<rfc5424>\S{1,40}) \S{1,255} \S{1,48} \S{1,128} \S{1,32} (?:-|\[[^\n]{0,1000}?\](?= |$)) ?\ufeff?"
    r"|(?:<\d{1,3}>)?(?P<rfc3164>(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d) \S{1,255} "
    r"[\w./@-]{1,64}(?:\[\d{1,10}\])?: ?)"
)
"""What a container runtime or syslog puts before a line."""

JSON_TEXT = re.compile(r'[^{"]{0,400}(?=\{)')
BLANKS = frozenset(' \t"')
FRAGMENT = re.compile(r'\s*"[\w@. -]{1,60}":\s*("(?:[^"\\]|\\.){0,16384}"),?\s*$')
"""A member of a pretty-printed JSON document, on a line of its own."""

EXPORT_KEYS = frozenset({"events", "logEvents", "Records", "entries", "data", "result", "hits"})
"""Members that hold the records of an export; beside a message of its own a document is none."""

MESSAGE_KEYS = frozenset(
    {
        *("message", "log", "line", "_raw", "MESSAGE", "msg", "textPayload", "short_message", "full_message"),
        *("body", "event", "@message", "raw", "text"),
    }
)
"""Members, or columns of a CSV export, that hold the line as it was logged."""


Record = tuple[str, list[dict[str, Any]], int | None]
"""What was logged once: the text that patterns search (the strings of a structured record on lines of their own), the
objects of a structured record, innermost first (none for plain text), and when it was logged in nanoseconds, None where
nothing says so. A plain tuple: one is made for every line that is found."""


def unwrap(line: str, clock: Clock, outer: Instant | None = None, depth: int = 0) -> list[Record]:
    """Take a line apart.

    Args:
        line: Without its newline.
        clock: Reads its time.
        outer: The time of what it was taken out of; its own goes before it, unless that names no zone.
        depth: How many headers were taken off it.

    Returns:
        One record; more where the line is a JSON document that holds many.

    """
    begin = line[:1]
    if begin == "<" or line[3:4] == " " or " std" in line[20:48]:
        header = HEADER.match(line) if depth < MAX_HEADERS else None
        if header is not None:
            when = header[header.lastgroup or 0]
            return unwrap(line[header.end() :], clock, _better(clock.begins(when), outer), depth + 1)
    if "{" not in line and "\x1b" not in line and begin not in BLANKS:
        return [(line, [], clock.use(_better(clock.find(line), outer)))]
    if "\x1b" in line:
        line = ANSI.sub("", line)
    if "{" in line:
        found = _load(line)
        if found is not None:
            prefix, value = found
            return [flatten(prefix, one, clock, outer) for one in _expand(value)]
    if begin in BLANKS and line.lstrip()[:1] == '"':
        fragment = FRAGMENT.match(line)
        if fragment is not None:
            inner = _decode(fragment[1])
            if isinstance(inner, str):
                return unwrap(inner, clock, outer, depth + 1) if depth < MAX_HEADERS else [(line, [], clock.use(outer))]
    return [(line, [], clock.use(_better(clock.find(line), outer)))]


def _better(own: Instant | None, outer: Instant | None) -> Instant | None:
    """A line's own time, unless it names no zone and its wrapper's does."""
    return outer if own is None or (outer is not None and outer.has_zone and not own.has_zone) else own


def message_of(record: Record) -> str:
    """What a record says without what its wrappers say besides: the innermost message, else all of its text."""
    text, objects, _ = record
    for one in objects:
        for key, value in one.items():
            if key in MESSAGE_KEYS:
                message = _from_numbers(value) if isinstance(value, list) else value
                if isinstance(message, str):
                    return message.rstrip("\r\n")
    return text


def _load(line: str) -> tuple[str, Any] | None:
    """The JSON object or array that a line is, or ends with, and what stands before it."""
    stripped = line.strip().rstrip(",")
    if stripped[-1:] not in ("}", "]"):
        return None
    if stripped[:1] in ("{", "["):
        value = _decode(stripped)
        if value is not None:
            return "", value
    match = JSON_TEXT.match(stripped)
    if match is None or not match.end():
        return None
    value = _decode(stripped[match.end() :])
    return None if not isinstance(value, dict) else (match[0], value)


def _decode(text: str) -> Any:
    """JSON text as a value, None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _expand(value: Any) -> list[Any]:
    """The records in a JSON document: those of an export (CloudWatch, Loki, Elastic), else the document itself."""
    if isinstance(value, list):
        inside: list[Any] = list(_objects(value))
        return inside or [value]
    if not EXPORT_KEYS.isdisjoint(value) and MESSAGE_KEYS.isdisjoint(value):
        for key in ("events", "logEvents", "Records", "entries"):
            events = _objects(value.get(key))
            if events and not MESSAGE_KEYS.isdisjoint(events[0]):
                return list(events)
        data = value.get("data", value)
        streams = _objects(data.get("result")) if isinstance(data, dict) else []
        pairs = [pair for stream in streams if isinstance(stream.get("values"), list) for pair in stream["values"]]
        lines = [{"timestamp": pair[0], "line": pair[1]} for pair in pairs if isinstance(pair, list) and len(pair) >= 2]
        if lines:
            return list(lines[:MAX_RECORDS])
        hits = value.get("hits")
        found = _objects(hits.get("hits")) if isinstance(hits, dict) else []
        if found:
            return list(found)
    return [value]


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list, at most MAX_RECORDS; empty for what is no list."""
    return [one for one in value[:MAX_RECORDS] if isinstance(one, dict)] if isinstance(value, list) else []


def flatten(prefix: str, value: Any, clock: Clock, outer: Instant | None = None) -> Record:
    """Strings to text, objects to a list; the innermost time with a zone is the record's."""
    strings: list[str] = [prefix] if prefix else []
    objects: list[dict[str, Any]] = []
    messages: list[str] = []
    _collect(value, strings, objects, messages, 0)
    objects.reverse()
    text = "\n".join(strings)
    return text, objects, clock.use(_better(_time_of(objects, messages, text, clock), outer))


def _time_of(objects: list[dict[str, Any]], messages: list[str], text: str, clock: Clock) -> Instant | None:
    """The innermost time with a zone, else the innermost: a message that begins with its own knows best."""
    first: Instant | None = None
    for message in reversed(messages):
        found = clock.begins(message)
        if found is not None and found.has_zone:
            return found
    for one in objects:
        for key in TIME_KEYS:
            found = clock.read(one[key]) if key in one else None
            if found is not None:
                if found.has_zone:
                    return found
                first = first or found
    written = clock.find(text) if text else None
    return written if written is not None and (first is None or written.has_zone) else first


def _collect(value: Any, strings: list[str], objects: list[dict[str, Any]], messages: list[str], depth: int) -> None:
    """Gather the strings, the objects, and of the strings those that are messages."""
    if len(strings) >= MAX_STRINGS:
        return
    if isinstance(value, str):
        text = ANSI.sub("", value) if "\x1b" in value else value
        found = _load(text) if "{" in text and depth < MAX_DEPTH else None
        if found is None:
            strings.append(text.rstrip("\r\n"))
            return
        prefix, value = found
        if prefix:
            strings.append(prefix)
    if depth >= MAX_DEPTH:
        strings.append(str(value)[:MAX_TEXT])
    elif isinstance(value, dict):
        objects.append(value)
        for key, inner in value.items():
            # journald prints a message that is not UTF-8, or coloured, as an array of bytes
            if key == "MESSAGE" and isinstance(inner, list):
                inner = _from_numbers(inner)
            if type(inner) is str:
                if key in MESSAGE_KEYS:
                    messages.append(inner)
                if inner and "{" not in inner and "\x1b" not in inner:
                    strings.append(inner.rstrip("\r\n"))
                else:
                    _collect(inner, strings, objects, messages, depth + 1)
            elif type(inner) is dict or type(inner) is list:
                _collect(inner, strings, objects, messages, depth + 1)
    elif isinstance(value, list):
        for inner in value[:MAX_STRINGS]:
            if isinstance(inner, (dict, list, str)):
                _collect(inner, strings, objects, messages, depth + 1)


def _from_numbers(numbers: list[Any]) -> str | list[Any]:
    try:
        return bytes(numbers).decode("utf-8", "backslashreplace")
    except (ValueError, TypeError):
        return numbers
