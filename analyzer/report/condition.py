"""Conditions on a report, so that a script can fail on what it finds: `code=1006 share>5%`."""

import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from analyzer.errors import UsageError
from analyzer.model import Endpoint, Initiator, Provenance
from analyzer.selection import parse_codes

TERM = re.compile(r"(\w+)\s*(!=|>=|<=|=|>|<)\s*([^\s<>=]+)")
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
MEMBERS = {"provenance": frozenset(Provenance), "endpoint": frozenset(Endpoint), "initiator": frozenset(Initiator)}

HELP = "write it like 'code=1006 share>5%' or 'code=4000-4999 endpoint=server count>=10'"


class Condition(NamedTuple):
    """A condition that was understood.

    Attributes:
        text: As it was written.
        tests: What a row of the frequencies must say to count, by column.
        measure: `share` of an endpoint's established views, or `count`.
        holds: Whether the measured value meets the condition.

    """

    text: str
    tests: tuple[tuple[str, Callable[[Any], bool]], ...]
    measure: str
    holds: Callable[[float], bool]


class Outcome(NamedTuple):
    """One endpoint for which a condition is met: so many views of so many."""

    endpoint: str
    n: int
    total: int


def parse_condition(text: str) -> Condition:
    """Understand a condition: columns that rows must match, and one measure.

    The columns are code, provenance, endpoint and initiator, with `=` or `!=` and values separated by commas; the
    measure is `share` (in percent, or as a part of 1) or `count`. Without one, any such view meets the condition.

    Raises:
        UsageError: It means nothing.

    """
    rest = TERM.sub("", text)
    if rest.strip(" ,") or not text.strip():
        raise UsageError(f"{text}: not a condition; {HELP}")
    tests, measures = [], []
    for name, sign, value in TERM.findall(text):
        if name in ("share", "count") and sign in COMPARISONS:
            measures.append((name, COMPARISONS[sign], _number(name, value, text)))
        elif sign in ("=", "!=") and name in ("code", *MEMBERS):
            tests.append((name, _test(name, value, sign == "!=", text)))
        else:
            raise UsageError(f"{text}: {name}{sign} is not understood; {HELP}")
    if len(measures) > 1:
        raise UsageError(f"{text}: more than one measure; {HELP}")
    measure, compare, limit = measures[0] if measures else ("count", operator.gt, 0.0)
    return Condition(text, tuple(tests), measure, lambda value: compare(value, limit))


def _number(name: str, value: str, text: str) -> float:
    try:
        if name == "share":
            limit = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
            if 0 <= limit <= 1:
                return limit
        elif value.isdecimal():
            return float(value)
    except ValueError:
        pass
    what = "a share between 0% and 100%" if name == "share" else "a whole number"
    raise UsageError(f"{text}: {value} is not {what}; {HELP}")


def _test(name: str, value: str, is_negated: bool, text: str) -> Callable[[Any], bool]:
    if name == "code":
        ranges = [parse_codes(part) for part in value.split(",")]
        return lambda code: is_negated != any(code in r or (code is None and not len(r)) for r in ranges)
    wanted = frozenset(value.split(","))
    if not wanted <= MEMBERS[name]:
        raise UsageError(f"{text}: {name} is one of {', '.join(sorted(MEMBERS[name]))}")
    return lambda member: is_negated != (member in wanted)


def find_met(condition: Condition, document: dict[str, Any]) -> list[Outcome]:
    """The endpoints of a report for which a condition is met; client and server views are never summed."""
    undetermined = [
        row | {"code": None, "provenance": Provenance.UNDETERMINED, "initiator": None}
        for row in document["undetermined"]
    ]
    asked = [test for name, test in condition.tests if name == "endpoint"]
    endpoints = [endpoint for endpoint in document["established"] if endpoint != Endpoint.PROXY]  # has no codes
    counted = {endpoint: 0 for endpoint in endpoints if all(test(endpoint) for test in asked)}
    for row in (*document["frequencies"], *document["illegal"], *undetermined):
        if all(test(row[name]) for name, test in condition.tests):
            counted[row["endpoint"]] += row["count"]
    met = []
    for endpoint, n in counted.items():
        total = document["established"][endpoint]
        if condition.holds(n / total if condition.measure == "share" else n):
            met.append(Outcome(endpoint, n, total))
    return met
