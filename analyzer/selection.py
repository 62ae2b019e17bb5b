"""Which closes are wanted: filters on rows, the same for every command and for Python."""

import datetime as dt
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from analyzer.errors import UsageError
from analyzer.model import Endpoint, Provenance
from analyzer.table import Coded, Table

NS = 1_000_000_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

ORIGIN_NS = 4 * 86400 * NS
"""Steps of time are counted from Monday, 5 January 1970, so that weeks begin on Mondays."""

CODES = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
STEP = re.compile(r"(\d{0,6})\s*(ms|s|min|h|d|w)")
STEP_NS = {"ms": NS // 1000, "s": NS, "min": 60 * NS, "h": 3600 * NS, "d": 86400 * NS, "w": 7 * 86400 * NS}


class Selection(NamedTuple):
    """Closes that pass every filter that is set; a connection passes with one of its closes.

    A connection that nobody has a view of (a request that was never answered) passes by its host and its end, and not
    where something is asked for that only views have.

    Attributes:
        hosts: Host headers, or the TLS server name where none was read; patterns allowed (`*.example.org`), upper and
            lower case are the same.
        codes: Ranges of codes that an endpoint reports; the empty range stands for no code.
        since_ns, until_ns: When the endpoint learned of the end; `until` is not included. A close without a time
            does not pass.
        endpoints, provenances: Members of the enums.

    """

    hosts: tuple[str, ...] = ()
    codes: tuple[range, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    endpoints: tuple[str, ...] = ()
    provenances: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether nothing is filtered."""
        return self == Selection()

    def words(self) -> dict[str, list[str]]:
        """The filters that are set, as text by the names of their options."""
        named = {
            "host": list(self.hosts),
            "code": [_code_text(codes) for codes in self.codes],
            "since": [] if self.since_ns is None else [_time_text(self.since_ns)],
            "until": [] if self.until_ns is None else [_time_text(self.until_ns)],
            "endpoint": list(self.endpoints),
            "provenance": list(self.provenances),
        }
        return {name: values for name, values in named.items() if values}

    def apply(self, closes: Table, connections: Table) -> tuple[Table, Table]:
        """The rows that pass, of closes and of the connections they belong to (one batch of both)."""
        if self.is_everything:
            return closes, connections
        kept = closes
        if len(closes):
            kept = closes.take(self._passing(closes, {"host": lambda: named_hosts(closes, connections).to_list()}))
        if not len(connections):
            return kept, connections
        wanted = set(kept["connection"])
        if not (self.codes or self.endpoints or self.provenances):
            told = set(closes["connection"])
            unseen = connections.take([i for i, key in enumerate(connections["connection"]) if key not in told])
            if len(unseen):
                own = {"host": lambda: own_hosts(unseen), "time": lambda: unseen["ended"]}
                wanted.update(unseen.take(self._passing(unseen, own))["connection"])
        return kept, connections.take([i for i, key in enumerate(connections["connection"]) if key in wanted])

    def _passing(self, table: Table, columns: Mapping[str, Callable[[], Sequence[Any]]]) -> list[int]:
        """Numbers of the rows that pass; `columns` are those that are not what the table has under that name."""
        passing = [True] * len(table)
        for column, test in self._tests():
            values = columns[column]() if column in columns else table[column]
            verdicts = {value: test(value) for value in set(values)}
            passing = [was and verdicts[value] for was, value in zip(passing, values, strict=True)]
        return [i for i, passes in enumerate(passing) if passes]

    def _tests(self) -> Iterable[tuple[str, Callable[[Any], bool]]]:
        if self.hosts:
            patterns = [re.compile(fnmatch.translate(host.lower())) for host in self.hosts]
            yield "host", lambda host: host is not None and any(p.match(host.lower()) for p in patterns)
        if self.codes:
            yield "code", lambda code: any(code in r or (code is None and not len(r)) for r in self.codes)
        if self.since_ns is not None or self.until_ns is not None:
            low = -(2**63) if self.since_ns is None else self.since_ns
            high = 2**63 if self.until_ns is None else self.until_ns
            yield "time", lambda time: time is not None and low <= time < high
        if self.endpoints:
            yield "endpoint", set(self.endpoints).__contains__
        if self.provenances:
            yield "provenance", set(self.provenances).__contains__


def own_hosts(connections: Table) -> list[str | None]:
    """The Host header of each connection, else the server name that its client gave to TLS."""
    return [host or sni for host, sni in zip(connections["host"], connections["sni"], strict=True)]


def named_hosts(closes: Table, connections: Table) -> Coded:
    """The Host header of each close, else the server name that its client gave to TLS."""
    hosts = closes.coded("host")
    if None not in hosts.values or not any(connections.coded("sni").values):
        return hosts
    names = dict(zip(connections["connection"], connections["sni"], strict=True))
    keys = closes["connection"]
    return Coded.of(names.get(key) if host is None else host for host, key in zip(hosts.to_list(), keys, strict=True))


def _code_text(codes: range) -> str:
    if not len(codes):
        return "none"
    return str(codes.start) if len(codes) == 1 else f"{codes.start}-{codes.stop - 1}"


def _time_text(ns: int) -> str:
    return (EPOCH + dt.timedelta(microseconds=ns // 1000)).isoformat().replace("+00:00", "Z")


Filter = str | int | Sequence[str | int] | None
"""One value or several, as a caller names them."""


def _values(given: Filter) -> list[str]:
    if given is None:
        return []
    return [str(given)] if isinstance(given, str | int) else [str(value) for value in given]


def select(
    *,
    host: Filter = None,
    code: Filter = None,
    since: str | dt.datetime | None = None,
    until: str | dt.datetime | None = None,
    endpoint: Filter = None,
    provenance: Filter = None,
    zone: dt.tzinfo = dt.UTC,
) -> Selection:
    """A selection from what a person writes.

    Args:
        host: Host or pattern, or several.
        code: Code (1006), range ("4000-4999"), "none" for views without a code, or several of these.
        since: First instant that passes, as "2026-11-20", "2026-11-20T14:30" or with seconds and offset.
        until: First instant that no longer passes.
        endpoint: client, server, proxy or unknown, or several.
        provenance: wire, synthesized, reported, inferred or undetermined, or several.
        zone: Zone of instants that name none.

    Raises:
        UsageError: A value that means nothing.

    """
    hosts = tuple(_values(host))
    if "" in hosts:
        raise UsageError("a host must not be empty; name one like example.org or '*.example.org'")
    since_ns = None if since is None else parse_instant(since, zone)
    until_ns = None if until is None else parse_instant(until, zone)
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise UsageError(f"nothing lies between {since} and {until}; since must come before until")
    return Selection(
        hosts,
        tuple(parse_codes(value) for value in _values(code)),
        since_ns,
        until_ns,
        tuple(_member(value, Endpoint, "endpoint") for value in _values(endpoint)),
        tuple(_member(value, Provenance, "provenance") for value in _values(provenance)),
    )


def parse_codes(text: str) -> range:
    """A code or a range of codes; `none` is the empty range.

    Raises:
        UsageError: Neither.

    """
    if text == "none":
        return range(0)
    match = CODES.fullmatch(text)
    if match is None or int(match[1]) > 65535 or int(match[2] or match[1]) < int(match[1]):
        raise UsageError(f"{text}: not a close code; name one like 1006, a range like 4000-4999, or none")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def parse_instant(given: str | dt.datetime, zone: dt.tzinfo = dt.UTC) -> int:
    """Nanoseconds since the epoch of an instant in ISO 8601.

    Raises:
        UsageError: Not an instant.

    """
    if isinstance(given, str):
        try:
            given = dt.datetime.fromisoformat(given)
        except ValueError as error:
            raise UsageError(f"{given}: not a time; write 2026-11-20 or 2026-11-20T14:30:00Z") from error
    if not isinstance(given, dt.datetime):
        raise UsageError(f"{given}: not a time; give text or a datetime")
    if given.tzinfo is None:
        given = given.replace(tzinfo=zone)
    ns = (given - EPOCH) // dt.timedelta(microseconds=1) * 1000
    if abs(ns) >= 2**63:
        raise UsageError(f"{given}: too far away; years from 1678 to 2261 are told apart")
    return ns


def parse_step(text: str) -> int:
    """Nanoseconds of a step of time such as `10min`, `1h`, `d`.

    Raises:
        UsageError: Not a step.

    """
    match = STEP.fullmatch(text.strip().lower())
    n_ns = int(match[1] or 1) * STEP_NS[match[2]] if match else 0
    if not 0 < n_ns <= 3660 * STEP_NS["d"]:
        raise UsageError(f"{text}: not a step of time; write 500ms, 10s, 5min, 1h, 1d or 1w")
    return n_ns


def step_text(step_s: float) -> str:
    """A step of time, in seconds, as `parse_step` reads it."""
    for unit, seconds in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if step_s % seconds == 0:
            return f"{round(step_s / seconds)}{unit}"
    return f"{round(step_s * 1000)}ms"


def _member(value: str, kind: type[Endpoint] | type[Provenance], name: str) -> str:
    if value not in set(kind):
        raise UsageError(f"{value}: no such {name}; there are {', '.join(kind)}")
    return value
