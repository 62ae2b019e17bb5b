"""Runs the samples of a log format: every field that it claims, by exactly one pattern, in time."""

import re
import time
from collections.abc import Iterator
from typing import Any

from analyzer.logs.catalogue import Catalogue
from analyzer.logs.format import Format, Pattern
from analyzer.logs.reader import LogReader
from analyzer.logs.record import MAX_TEXT, unwrap
from analyzer.logs.statement import Refusal, Statement
from analyzer.logs.timestamp import Clock
from analyzer.model import format_time

NEWEST_NS = 1_893_456_000_000_000_000
"""Samples without a year are read as of 2029-12-31."""

UNCLAIMED = frozenset({"source", "record", "connection", "evidence", "confidence", "system", "anomalies"})
"""Columns that follow from the others, or from where the line stands."""

MAX_LINE_S = 0.5
"""Longest time in seconds that a pattern may take for a line of MAX_TEXT characters."""


LENGTHS = (*((length, 0.04) for length in range(16, 160, 4)), (600, 0.1), (2400, 0.3), (MAX_TEXT, 1.0))
"""Lengths of hostile lines, and the share of MAX_LINE_S that each may take."""

RUNS = (" ", "1", "a", '"', "'", "(", "[", "=", "a=", "1.", ": ", "\\", "a b ", "x; ", "{}", ", ", "a\n")
"""What hostile lines are filled with."""


def read_rows(catalogue: Catalogue, text: str | bytes) -> list[dict[str, Any]]:
    """The rows that a log of this text gives."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    reader = LogReader(catalogue, Clock(newest_ns=NEWEST_NS), "sample")
    return [*reader.feed(data).rows(), *reader.finish().rows()]


def claim(row: dict[str, Any]) -> dict[str, Any]:
    """What a row says, as a sample's `expect` writes it: without what is unknown."""
    said = {name: value for name, value in row.items() if name not in UNCLAIMED and value not in (None, "unknown")}
    if said.get("lines") == 1:
        del said["lines"]
    if "time" in said:
        said["time"] = format_time(said["time"])
    return {name: str(value) if isinstance(value, str) else value for name, value in said.items()}


def check_format(fmt: Format) -> Iterator[str]:
    """What is wrong with a format, one sentence each."""
    for pattern in fmt.patterns:
        pattern.prepare()
    catalogue = Catalogue([fmt])
    used = set()
    if not any(str(sample.get("from", "")).startswith(("https://", "ran ")) for sample in fmt.samples):
        yield "no sample is from the wild or from a run: 'from' must be an https:// address or begin with 'ran '"
    for i, sample in enumerate(fmt.samples):
        where = f"sample[{i}]"
        for name in sample.keys() - {"line", "pattern", "expect", "from", "about"}:
            yield f"{where}.{name}: is not known here"
        missing = [name for name in ("line", "pattern", "expect", "from") if name not in sample]
        if missing:
            yield f"{where}: {', '.join(missing)} missing"
            continue
        used.add(f"{fmt.id}.{sample['pattern']}")
        yield from (f"{where}: {problem}" for problem in _check_sample(fmt, catalogue, sample))
    dropped = set()
    for i, reject in enumerate(fmt.rejects):
        if not reject.get("why") or "line" not in reject:
            yield f"reject[{i}]: needs 'line' and 'why'"
            continue
        dropped |= {pattern.key for _, pattern, _ in _answers(fmt, reject["line"])}
        rows = read_rows(catalogue, reject["line"])
        if rows:
            yield f"reject[{i}]: is taken for a close: {claim(rows[0])}"
    for pattern in fmt.patterns:
        if pattern.key not in used and not pattern.always_drops:
            yield f"pattern.{pattern.name}: has no sample"
        elif pattern.always_drops and pattern.key not in dropped:
            yield f"pattern.{pattern.name}: no reject shows what it drops"
    yield from check_times(fmt)


def _answers(fmt: Format, text: str) -> Iterator[tuple[Statement | Refusal, Pattern, str]]:
    """What each pattern says of each line of a text."""
    clock = Clock(newest_ns=NEWEST_NS)
    lines = text.splitlines()
    for i, line in enumerate(lines):
        for record in unwrap(line, clock):
            for pattern in fmt.patterns:
                above = "\n".join(lines[: i + 1]) if pattern.spans and not record[1] else record[0]
                said = pattern.read((above, *record[1:]), clock)
                if said is not None:
                    yield said, pattern, line


def _check_sample(fmt: Format, catalogue: Catalogue, sample: dict[str, Any]) -> Iterator[str]:
    hits = []
    for said, pattern, line in _answers(fmt, sample["line"]):
        if isinstance(said, Statement):
            hits.append((pattern.name, line))
    for i, (name, line) in enumerate(hits):
        for other, again in hits[:i]:
            if again is line:
                yield f"{other} and {name} both match {line!r}"
    if sample["pattern"] not in (name for name, _ in hits):
        yield f"pattern {sample['pattern']!r} does not match{_how_far(fmt, sample)}"
        return
    rows = read_rows(catalogue, sample["line"])
    if len(rows) != 1:
        yield f"gives {len(rows)} rows, not one" + ("" if rows else f": no 'find' literal stands in it ({fmt.find})")
        return
    got, wanted = claim(rows[0]), sample["expect"]
    for name in sorted(got.keys() | wanted.keys()):
        if got.get(name) != wanted.get(name):
            yield f"{name} is {got.get(name)!r}, expected {wanted.get(name)!r}"


def _how_far(fmt: Format, sample: dict[str, Any]) -> str:
    """Where in a line its pattern stops to fit: the longest beginning of the expression that still matches."""
    regex = next((p.regex for p in fmt.patterns if p.name == sample["pattern"]), None)
    if regex is None:
        return ""
    for length in range(len(regex.pattern) - 1, 0, -1):
        for closing in ("", ")", "))", ")))"):
            try:
                part = re.compile(regex.pattern[:length] + closing, re.MULTILINE)
            except re.error:
                continue
            match = part.search(sample["line"])
            if match is not None and match.end() > match.start():
                line = sample["line"][: match.end()]
                return f"; it matched up to here: {line[-60:]!r} (by {regex.pattern[:length][-40:]!r})"
    return ""


def hostile_lines(fmt: Format, pattern: Pattern) -> Iterator[str]:
    """Lines made to keep an expression busy: what it finds, whole and cut, repeated, and before long runs."""
    name = pattern.name
    starts = [sample["line"] for sample in fmt.samples if sample.get("pattern") == name and "line" in sample][:2]
    starts += (pattern.find or fmt.find)[:2]
    for start in starts:
        cut = start[: max(len(start) // 2, 1)]
        for text in (start, start[:-1], cut):
            yield (text * (MAX_TEXT // max(len(text), 1) + 1))[:MAX_TEXT]
        for run in RUNS:
            yield (start + run * MAX_TEXT)[:MAX_TEXT]
            yield (cut + run * (MAX_TEXT // 4) + start + run * MAX_TEXT)[:MAX_TEXT]
    for run in RUNS:
        yield (run * MAX_TEXT)[:MAX_TEXT]


def check_times(fmt: Format, *, most_s: float = MAX_LINE_S) -> Iterator[str]:
    """Patterns that take too long on a hostile line, tried at growing lengths: what runs away does so early."""
    for pattern in fmt.patterns:
        pattern.prepare()
        if pattern.regex is None:
            continue
        for line in hostile_lines(fmt, pattern):
            if any(_takes(pattern.regex, line[:length], limit * most_s) for length, limit in LENGTHS):
                yield f"{pattern.key}: takes too long on a hostile line: {line[:60]!r}..."
                break


def _takes(regex: re.Pattern[str], line: str, most_s: float) -> bool:
    """Whether a search takes longer than this, twice: the first time something else may have kept the machine busy."""
    for _ in range(2):
        started = time.perf_counter()
        regex.search(line)
        if time.perf_counter() - started <= most_s:
            return False
    return True
