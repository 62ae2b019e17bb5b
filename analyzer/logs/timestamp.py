"""Instants as logs print them, to nanoseconds since 1970.

Read are ISO 8601 and RFC 3339, epochs in s, ms, us and ns, Common Log Format, the error logs of nginx and Apache, log4j
with a comma, Go's log package, klog, java.util.logging, and syslog without a year (RFC 3164). What cannot be read is
None: a time is never guessed, only a missing zone or year is assumed, and that is remembered.
"""

import datetime as dt
import re
from typing import Any, NamedTuple

MAX_LOOK = 200
"""Characters of a line in which its timestamp is looked for."""

MAX_CACHED = 4096
MAX_TRIES = 8
"""Places in a line that look like a time; what stands behind them is not looked at."""

SECOND = 1_000_000_000
MAX_SECONDS = 9_223_372_035
"""Later than this (in the year 2262) nanoseconds since 1970 leave int64."""

EARLIEST_S = 946_684_800
"""Ten digits in a text that stand for an instant before the year 2000 are no time."""


MONTHS = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1)  # noqa: SIM905
}
MONTH = "(" + "|".join(MONTHS) + ")"
CLOCK = r"(\d\d):(\d\d):(\d\d)"

ISO = re.compile(rf"(\d{{4}})([-/])(\d\d)\2(\d\d)[T ]{CLOCK}")
COMMON_LOG = re.compile(rf"(\d\d)[/ -]{MONTH}[/ -](\d{{4}}):?[: ]{CLOCK}")
JAVASCRIPT = re.compile(rf"{MONTH} (\d\d) (\d{{4}}) {CLOCK}")
APACHE_ERROR = re.compile(
    rf"[A-Z][a-z][a-z] {MONTH} ([ \d]\d) {CLOCK}(\.\d{{1,9}})?(?: (?:(UTC|GMT)|[A-Z]{{2,4}}))? (\d{{4}})"
)
AMERICAN = re.compile(rf"{MONTH} (\d\d?), (\d{{4}}),?(?: @)? (\d\d?):(\d\d):(\d\d)(\.\d{{1,9}})?(?: ([AP]M))?")
SYSLOG = re.compile(rf"{MONTH} ([ \d]\d) {CLOCK}")
KLOG = re.compile(rf"[IWEF](\d\d)(\d\d) {CLOCK}")
CHROMIUM = re.compile(r"(\d\d)(\d\d)/(\d\d)(\d\d)(\d\d)")
YEARLESS = {"syslog": SYSLOG, "klog": KLOG, "chromium": CHROMIUM}
EPOCH = re.compile(r"(\d{10})(?:(\d{9}|\d{6}|\d{3})|\.(\d{1,9}))?(?![\w.])")

ANY = re.compile(
    rf"(?P<iso>\d{{4}}(?:-\d\d-|/\d\d/)\d\d[T ]\d\d:\d\d:)"
    rf"|(?P<clf>\d\d[/ -]{MONTH}[/ -]\d{{4}}:?[: ]\d\d:)"
    rf"|(?P<javascript>{MONTH} \d\d \d{{4}} \d\d:)"
    rf"|(?P<apache>[A-Z][a-z][a-z] {MONTH} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{{1,9}})?(?: [A-Z]{{2,4}})? \d{{4}})"
    rf"|(?P<american>{MONTH} \d\d?, \d{{4}},?(?: @)? \d\d?:\d\d:)"
    rf"|(?P<syslog>{MONTH} [ \d]\d \d\d:\d\d:\d\d)"
    rf"|(?P<klog>(?<!\w)[IWEF]\d{{4}} \d\d:\d\d:\d\d)"
    r"|(?P<chromium>(?<=:)\d{4}/\d{6}(?=\.))"
    r"|(?P<epoch>(?:(?<=^)|(?<=[\s\[=:(\"]))\d{10}(?:\d{9}|\d{6}|\d{3}|\.\d{1,9})?(?=$|[\s\]):,\"}]))"
)
"""Where any of them begins; the named group says which it is."""

KINDS = tuple(ANY.groupindex)

REST = re.compile(
    r"(?:[.,](\d{1,9}))?"
    r"(?: ?(?:(?:GMT|UTC)(?=[+-]\d))?(Z\b|UTC\b|GMT\b|[+-](?:0\d|1[0-4]):?[0-5]\d\b)"
    r"|([+-](?:0\d|1[0-4]))(?![\d:])| ([AP]M)\b)?"
)
"""What may follow the seconds: a fraction, and a zone."""

TIME_KEYS = (
    *("@timestamp", "timestamp", "time", "ts", "eventTime", "event_time", "datetime", "date", "t", "_time"),
    *("Timestamp", "TimeStamp", "Time", "asctime", "created", "requestTimeEpoch", "__REALTIME_TIMESTAMP", "start_time"),
)
"""Members of a structured record that hold its time, in the order in which they are tried."""


LEADING = re.compile(
    r"\[?(\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?"
    r"( ?Z\b| ?[+-](?:0\d|1[0-4]):?[0-5]\d\b|[+-](?:0\d|1[0-4])(?![\d:]))?"
)
"""The commonest of all: ISO 8601 at the beginning of a line."""

ZONED = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})? ?(?:Z\b|[+-]\d\d:?\d\d\b)"
    r"|\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\b"
)
"""A time that names its zone."""

HINT = re.compile(r"\d:\d\d:\d|\d{10}|/\d{6}\.")
"""Every time has one of these, no further than HINT_OFF behind its begin: quickly found, or quickly missed."""

HINT_OFF = 26

SECOND_HINT = re.compile(r"\d:\d\d:\d\d")
"""Behind a first time, what a second one that names its zone has at least."""

FACTORS = [0, *(10 ** (9 - digits) for digits in range(1, 10))]


class Instant(NamedTuple):
    """A time, and whether its zone stood there; `end` is the offset behind it in the text."""

    ns: int
    has_zone: bool
    end: int


class Clock:
    """Reads the times of one log.

    Attributes:
        assumed_zone: Whether a time without a zone was read.
        assumed_year: The year given to times without one, None where there were none.

    """

    def __init__(self, *, zone: dt.tzinfo = dt.UTC, newest_ns: int | None = None) -> None:
        """Start.

        Args:
            zone: For times that name none.
            newest_ns: No time lies later than this (when the file was last written); what decides a missing year.
        """
        self._zone = zone
        self._newest_ns = newest_ns
        self._cached: dict[str, int] = {}
        self.assumed_zone = False
        self.assumed_year: int | None = None

    def find(self, text: str) -> Instant | None:
        """The first time in a line, or the first with a zone where the first of all has none."""
        leading = LEADING.match(text)
        seconds = None if leading is None else self._seconds(leading[1])
        if leading is not None and seconds is not None:
            first: Instant | None = self._finish(text, leading.end(1), seconds)
        else:
            first = self._search(text)
        if first is None or first.has_zone:
            return first
        # a wrapper's time without a zone may stand before the line's own with one
        zoned = ZONED.search(text, first.end, first.end + MAX_LOOK) if SECOND_HINT.search(text, first.end) else None
        second = None if zoned is None else self._search(text, zoned.start())
        return second if second is not None and second.has_zone else first

    def lead(self, text: str) -> tuple[int | None, int]:
        """The time with a zone that a line begins with, and the offset behind it; None and 0 where there is none.

        For the commonest lines, and quick: of a second that was not met before it says None as well.
        """
        leading = LEADING.match(text)
        if leading is not None:
            head, fraction, zone = leading.groups()
            seconds = self._cached.get(head)
            if seconds is not None and zone is not None:
                if zone != "Z":
                    seconds -= _offset_s(zone.lstrip())
                ns = seconds * SECOND + int(fraction) * FACTORS[len(fraction)] if fraction else seconds * SECOND
                return ns, leading.end()
        return None, 0

    def begins(self, text: str) -> Instant | None:
        """The time that a text begins with, None where it begins with none."""
        match = ANY.match(text, 1 if text[:1] == "[" else 0)
        return None if match is None else self._read_at(text, match)

    def time_of(self, text: str) -> int | None:
        """`use(find(text))`."""
        return self.use(self.find(text))

    def _seconds(self, head: str) -> int | None:
        """`2026-11-21T10:11:12` as seconds since 1970 in UTC, None where it is no date."""
        seconds = self._cached.get(head)
        if seconds is None:
            found = ISO.match(head)
            if found is None:
                return None
            year, _, month, day, *clock = found.groups()
            try:
                seconds = _seconds(int(year), int(month), int(day), *map(int, clock))
            except ValueError:
                return None
            if len(self._cached) >= MAX_CACHED:
                self._cached.clear()
            self._cached[head] = seconds
        return seconds

    def read(self, value: Any) -> Instant | None:
        """A value of a structured record as a time: an ISO string, or an epoch as number or digits."""
        if type(value) is int or type(value) is float:
            ns = _epoch(value)
            return None if ns is None else Instant(ns, True, 0)
        if not isinstance(value, str) or len(value) > MAX_LOOK:
            return None
        match = EPOCH.fullmatch(value)
        if match is None:
            return self.find(value)
        ns = _digits(match)
        return None if ns is None else Instant(ns, True, 0)

    def use(self, instant: Instant | None) -> int | None:
        """Nanoseconds of a time that a row will carry; remembers where its zone was assumed."""
        if instant is None:
            return None
        if not instant.has_zone:
            self.assumed_zone = True
        return instant.ns

    def _search(self, text: str, begin: int = 0) -> Instant | None:
        limit = begin + MAX_LOOK
        for _ in range(MAX_TRIES):
            hint = HINT.search(text, begin, limit)
            if hint is None:
                return None
            match = ANY.search(text, max(begin, hint.start() - HINT_OFF), hint.end() + HINT_OFF)
            if match is None:
                begin = hint.end()
                continue
            instant = self._read_at(text, match)
            if instant is not None:
                return instant
            begin = match.end()
        return None

    def _read_at(self, text: str, match: re.Match[str]) -> Instant | None:
        """The time that begins where `match` does; None where it is no date (month 13)."""
        begin = match.start()
        kind = next(name for name in KINDS if match[name])
        try:
            if kind == "iso":
                found = ISO.match(text, begin)
                seconds = None if found is None else self._seconds(found[0])
                return None if found is None or seconds is None else self._finish(text, found.end(), seconds)
            if kind == "clf":
                found = COMMON_LOG.match(text, begin)
                if found is None:
                    return None
                named_day, name, year, *clock = found.groups()
                return self._finish(
                    text, found.end(), _seconds(int(year), MONTHS[name], int(named_day), *map(int, clock))
                )
            if kind == "javascript":
                found = JAVASCRIPT.match(text, begin)
                if found is None:
                    return None
                name, named_day, year, *clock = found.groups()
                return self._finish(
                    text, found.end(), _seconds(int(year), MONTHS[name], int(named_day), *map(int, clock))
                )
            if kind == "apache":
                return self._apache(text, begin)
            if kind == "american":
                return self._american(text, begin)
            if kind == "epoch":
                found = EPOCH.match(text, begin)
                ns = None if found is None else _digits(found)
                latest = MAX_SECONDS * SECOND if self._newest_ns is None else self._newest_ns + 86_400 * SECOND
                # any number of ten digits may stand in a text: only what can be the time of this log is one
                is_time = ns is not None and EARLIEST_S * SECOND <= ns <= latest
                return Instant(ns, True, found.end()) if is_time else None  # type: ignore[arg-type, union-attr]
            return self._yearless(text, begin, YEARLESS[kind])
        except (ValueError, OverflowError):
            return None

    def _finish(self, text: str, end: int, seconds: int) -> Instant:
        """Add what follows the seconds: fraction and zone."""
        rest = REST.match(text, end)
        fraction, zone, hours, half = rest.groups() if rest is not None else (None, None, None, None)
        zone = zone or hours
        if half is not None:
            hour = seconds % 86_400 // 3600
            seconds += 43_200 * ((half == "PM" and hour < 12) - (half == "AM" and hour == 12))
        ns = 0 if fraction is None else int(fraction) * FACTORS[len(fraction)]
        behind = end if rest is None else rest.end()
        if zone is None:
            return Instant((seconds - self._offset(seconds)) * SECOND + ns, False, behind)
        return Instant((seconds - _offset_s(zone)) * SECOND + ns, True, behind)

    def _offset(self, seconds: int) -> int:
        """Seconds that the assumed zone is ahead of UTC at this wall clock time."""
        if self._zone is dt.UTC:
            return 0
        local = dt.datetime(1970, 1, 1, tzinfo=self._zone) + dt.timedelta(seconds=seconds)
        return int((local.utcoffset() or dt.timedelta()).total_seconds())

    def _apache(self, text: str, begin: int) -> Instant | None:
        found = APACHE_ERROR.match(text, begin)
        if found is None:
            return None
        name, day, hour, minute, second, fraction, zone, year = found.groups()
        seconds = _seconds(int(year), MONTHS[name], int(day), int(hour), int(minute), int(second))
        instant = self._finish(f"{fraction or ''}{'Z' if zone else ''}", 0, seconds)
        return instant._replace(end=found.end())

    def _american(self, text: str, begin: int) -> Instant | None:
        found = AMERICAN.match(text, begin)
        if found is None:
            return None
        name, day, year, hour, minute, second, fraction, half = found.groups()
        hours = int(hour) % 12 + (12 if half == "PM" else 0) if half else int(hour)
        seconds = _seconds(int(year), MONTHS[name], int(day), hours, int(minute), int(second))
        instant = self._finish(fraction or "", 0, seconds)
        return instant._replace(end=found.end())

    def _yearless(self, text: str, begin: int, form: re.Pattern[str]) -> Instant | None:
        """A time without a year: the latest that is not after the log was last written."""
        found = form.match(text, begin)
        if found is None or self._newest_ns is None:
            return None
        named, day, *clock = found.groups()
        month = MONTHS.get(named) or int(named)
        newest = dt.datetime.fromtimestamp(self._newest_ns // SECOND, dt.UTC).year
        # a day of grace: zones differ
        for year in range(newest + 1, newest - 5, -1):
            try:
                instant = self._finish(text, found.end(), _seconds(year, month, int(day), *map(int, clock)))
            except ValueError:
                continue  # the 29th of February
            if instant.ns <= self._newest_ns + 86_400 * SECOND:
                self.assumed_year = year
                return instant
        return None


def _offset_s(zone: str) -> int:
    """Seconds that `+02:00`, `+0200`, `Z` or `UTC` is ahead of UTC."""
    if zone[0] not in "+-":
        return 0  # Z, UTC, GMT
    ahead = int(zone[1:3]) * 3600 + (int(zone[-2:]) * 60 if len(zone) > 3 else 0)
    return ahead if zone[0] == "+" else -ahead


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """Seconds since 1970 of a wall clock time read as UTC; a leap second is the second before it."""
    days = dt.date(year, month, day).toordinal() - dt.date(1970, 1, 1).toordinal()
    if hour > 23 or minute > 59 or second > 60 or not 0 <= days < 106_751:
        raise ValueError("no time of day")
    return days * 86_400 + hour * 3600 + minute * 60 + min(second, 59)


def _epoch(value: float) -> int | None:
    """A number as a time by its size: s, ms, us or ns since 1970; None for what is none of them."""
    for limit, factor in ((10**11, SECOND), (10**14, 1_000_000), (10**17, 1000), (2**63, 1)):
        if value < limit:
            if not value * factor >= 10**8 * SECOND:  # before 1973: a duration or a counter
                return None
            # through its digits: a float times 10^9 is off by some hundred nanoseconds
            if value * factor > MAX_SECONDS * SECOND:
                return None
            whole, _, fraction = repr(value).partition(".")
            if not whole.isdigit() or not (fraction or "0").isdigit():
                return int(value) * factor
            return int(whole) * factor + int(fraction[:9].ljust(9, "0")) * factor // SECOND
    return None


def _digits(match: re.Match[str]) -> int | None:
    """An epoch in digits, exact: its length says the unit; None for what no int64 holds."""
    seconds, more, fraction = match.groups()
    if int(seconds) > MAX_SECONDS:
        return None
    part = more or fraction or ""
    return int(seconds) * SECOND + (int(part) * 10 ** (9 - len(part)) if part else 0)
