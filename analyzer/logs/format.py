"""One log format: its file checked, its patterns turning a record into a statement.

One TOML file describes one system; `docs/log_formats.md` explains its keys. A file is refused as a whole when it breaks
a rule, and its samples are the proof that it does what it says (`check_format`).
"""

import functools
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from analyzer.errors import CatalogueError
from analyzer.logs.record import Record
from analyzer.logs.statement import UNTIMED, Answer, Refusal, Statement
from analyzer.logs.timestamp import Clock
from analyzer.model import End, Endpoint, Initiator, Provenance, Received
from analyzer.verdict.statement import Means, Said, View, decide

DURATIONS = {"duration_s": 1.0, "duration_ms": 1e-3, "duration_us": 1e-6, "duration_ns": 1e-9}
CARRIED = frozenset(
    {
        "reason",
        "client",
        "server",
        "peer",
        "client_port",
        "host",
        "path",
        "time",
        "start",
        "id",
        "reason_hex",
        "duration",
        *DURATIONS,
    }
)
"""Groups that go into the row as they are; any other group may be asked for by `when`."""

DIRECT = frozenset({"reason", "client", "server", "host", "path", "id"})
DURATION_GROUPS = frozenset({"duration", *DURATIONS})
TIME, REASON, DURATION, CLIENT, SERVER = (
    Statement._fields.index(name) for name in ("time_ns", "reason", "duration_s", "client", "server")
)
NOTHING_CARRIED = (None,) * (len(Statement._fields) - 3)

CODES = frozenset({"code", "sent_code"})
BODIES = ("body", "body_hex", "sent_body", "sent_body_hex")
"""A Close body as it came in, or went out: as escaped bytes, or in hexadecimal."""

UNESCAPED = re.compile(r"[^\\<>&]+")
MIN_LITERAL = 4
ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})|\\(.)")
MAX_MEMO = 4096
MAX_REASON = 500

NO_REASON = frozenset({"", "None", "null", "nil", "undefined", "(null)", "<nil>", "no reason", "''", '""'})

HUMAN_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

ENDED_BY = frozenset({*Endpoint, "both", "local", "remote"})
SET = {
    "means": frozenset(Means),
    "endpoint": frozenset(Endpoint),
    "sent": frozenset(Received),
    "initiator": frozenset({*Initiator, "local", "remote"}),
    "end": frozenset(End),
    "ended_by": ENDED_BY,
}
"""What a pattern or a case may set, and the values that it may have."""


class Case(NamedTuple):
    """What holds instead where its conditions do."""

    when: dict[str, frozenset[str] | bool]
    values: dict[str, Any]


class Pattern:
    """One shape of line of one system; `read` turns a record into a statement."""

    def __init__(self, key: str, fmt: "Format", entry: Mapping[str, Any]) -> None:
        """Check one `[pattern.NAME]`; `prepare` compiles it.

        Raises:
            CatalogueError: A key is missing, unknown, or has a value that it cannot have.

        """
        self.name = key
        self.key = f"{fmt.id}.{key}"
        self.fmt = fmt
        self._where = f"pattern.{key}"
        known = {
            "regex",
            "fields",
            "require",
            "find",
            "role",
            "stamp",
            "spans",
            "cancels",
            "drop",
            "opens",
            "needs_open",
            "code",
            "sent_code",
            "case",
            "about",
            *SET,
        }
        for name in entry.keys() - known:
            raise fmt.error(f"{self._where}.{name}", "is not known here")
        if ("regex" in entry) == ("fields" in entry):
            raise fmt.error(self._where, "needs either 'regex' or 'fields'")
        self.find: tuple[str, ...] = tuple(entry.get("find", ()))
        self.role = str(entry.get("role", ""))
        self._opens = entry.get("opens", False) is True
        self._needs_open = entry.get("needs_open", False) is True
        self.spans = entry.get("spans", False) is True
        self._cancels = frozenset(map(str, entry.get("cancels", ())))
        self._starts = _one_of(fmt, f"{self._where}.stamp", entry.get("stamp", "end"), {"start", "end"}) == "start"
        self._base = {name: entry[name] for name in (*SET, "code", "sent_code", "drop") if name in entry}
        if self._opens:
            self._base["drop"] = True
        self._check_values(self._where, self._base)
        self._entry = entry
        self._is_ready = False
        self.regex: re.Pattern[str] | None = None

    def prepare(self) -> None:
        """Compile the expressions, read the cases: done when a line first asks for it, or when the format is checked.

        Raises:
            CatalogueError: An expression or a case is broken.

        """
        entry, fmt = self._entry, self.fmt
        if "regex" in entry:
            try:
                self.regex = regex = re.compile(entry["regex"], re.MULTILINE)
            except re.error as error:
                raise fmt.error(f"{self._where}.regex", f"{error}") from error
            self._names = sorted(regex.groupindex, key=lambda name: regex.groupindex[name])
            if len(self._names) != regex.groups:
                raise fmt.error(f"{self._where}.regex", "every group needs a name; write (?:...) for the others")
        else:
            self._names = list(entry["fields"])
        self._fields = {name: _as_list(keys) for name, keys in entry.get("fields", {}).items()}
        self._require = {
            key: re.compile("|".join(f"(?:{value})" for value in _as_list(values)))
            for key, values in entry.get("require", {}).items()
        }
        self._cases = [self._read_case(i, case) for i, case in enumerate(entry.get("case", ()))]
        self._sort_groups()
        self._is_ready = True

    def _check_values(self, where: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name == "drop":
                if value is not True:
                    raise self.fmt.error(f"{where}.drop", "can only be true")
            elif name in SET:
                _one_of(self.fmt, f"{where}.{name}", value, SET[name])
            elif not isinstance(value, int) or not 0 <= value <= 65535:
                raise self.fmt.error(f"{where}.{name}", "must be a close code")

    def _read_case(self, i: int, entry: Mapping[str, Any]) -> Case:
        where = f"{self._where}.case[{i}]"
        for name in entry.keys() - {"when", "drop", "code", "sent_code", *SET}:
            raise self.fmt.error(f"{where}.{name}", "is not known here")
        when: dict[str, frozenset[str] | bool] = {}
        for name, wanted in entry.get("when", {}).items():
            if name not in self._names:
                raise self.fmt.error(f"{where}.when", f"there is no group {name!r}")
            when[name] = wanted if isinstance(wanted, bool) else frozenset(map(str, _as_list(wanted)))
        values = {name: value for name, value in entry.items() if name != "when"}
        self._check_values(where, values)
        return Case(when, values)

    def _sort_groups(self) -> None:
        """Which groups decide the view, which are only carried."""
        asked = {name for case in self._cases for name in case.when}
        decisive = [name for name in self._names if name in CODES or name in BODIES or name in asked or name in SET]
        for name in self._names:
            if name not in CARRIED and name not in decisive:
                raise self.fmt.error(self._where, f"nothing uses the group {name!r}")
        self._decisive = decisive
        self._pick: Callable[[tuple[Any, ...]], Any] | None = None
        if decisive:
            self._pick = itemgetter(*(self._names.index(name) for name in decisive))
        self._views: dict[Any, View | None] = {}
        carried = [(i, name) for i, name in enumerate(self._names) if name in CARRIED or name in BODIES]
        self._slots = [(i, Statement._fields.index(name)) for i, name in carried if name in DIRECT]
        self._more = [(i, name) for i, name in carried if name not in DIRECT]
        self._reason = self._names.index("reason") if "reason" in self._names else None
        # lines that differ in little share their statements
        self._is_plain = all(name in ("reason", "host", "path") for _, name in carried) and not self._starts
        self._plain: dict[tuple[str | None, ...], Statement] = {}

    @property
    def always_drops(self) -> bool:
        """Whether every line of this shape is known to be no close."""
        return "drop" in self._base

    def read(self, record: Record, clock: Clock) -> Answer:
        """What a record says by this pattern, None where it does not fit."""
        if not self._is_ready:
            self.prepare()
        if self.regex is not None:
            match = self.regex.search(record[0])
            return None if match is None else self._state(match.groups(), record, clock)
        for one in record[1]:
            groups = self._gather(one)
            if groups is not None:
                return self._state(groups, record, clock)
        return None

    def _gather(self, one: dict[str, Any]) -> tuple[str | None, ...] | None:
        """The fields of an object as groups, None where it is not what this pattern requires."""
        for key, wanted in self._require.items():
            value = _lookup(one, key)
            if value is None or not wanted.fullmatch(_as_text(value)):
                return None
        groups = []
        for keys in self._fields.values():
            value = next((found for key in keys if (found := _lookup(one, key)) is not None), None)
            groups.append(None if value is None else _as_text(value))
        return tuple(groups)

    def _state(self, groups: tuple[str | None, ...], record: Record, clock: Clock) -> Answer:
        if self._is_plain:
            known = self._plain.get(groups)
            if known is not None:
                return known
        key = None if self._pick is None else self._pick(groups)
        try:
            view = self._views[key]
        except KeyError:
            if len(self._views) >= MAX_MEMO:
                self._views.clear()
            view = self._views[key] = self._decide(key)
        if view is None:
            client = next((groups[self._names.index(n)] for n in ("client", "peer") if n in self._names), None)
            return Refusal(self.fmt.family, self._cancels, client, self._opens)
        said: list[Any] = [view, self.role, self.fmt.family, *NOTHING_CARRIED]
        for i, slot in self._slots:
            value = groups[i]
            if value is not None and value not in ("", "-"):
                said[slot] = value[:MAX_REASON]
        if self._more or self._starts:
            self._carry(said, groups, record, clock)
        is_frame = view.provenance is Provenance.WIRE and said[REASON] is None
        if is_frame or said[REASON] in NO_REASON or (self._reason is not None and groups[self._reason] == ""):
            said[REASON] = ""
        said[-1] = self._needs_open
        statement = Statement._make(said)
        if self._is_plain:
            if len(self._plain) >= MAX_MEMO:
                self._plain.clear()
            self._plain[groups] = statement
        return statement

    def _carry(self, said: list[Any], groups: tuple[str | None, ...], record: Record, clock: Clock) -> None:
        """Put what has to be worked out where it belongs: times, durations, the other side, a body."""
        carried = {name: value for i, name in self._more if (value := groups[i]) is not None}
        if "peer" in carried:
            said[SERVER if said[0].endpoint is Endpoint.CLIENT else CLIENT] = carried["peer"]
        if "client_port" in carried and said[CLIENT] is not None:
            host = f"[{said[CLIENT]}]" if ":" in said[CLIENT] and said[CLIENT][0] != "[" else said[CLIENT]
            said[CLIENT] = f"{host}:{carried['client_port']}"
        if "reason_hex" in carried:
            said[REASON] = _from_hex(carried["reason_hex"]).decode("utf-8", "backslashreplace")
        for name in BODIES:
            if name in carried and said[REASON] is None:
                said[REASON] = parse_body(carried[name], is_hex=name.endswith("hex"))[1] or None
        duration = None
        for name in carried.keys() & DURATION_GROUPS:
            duration = parse_duration(carried[name], DURATIONS.get(name, 1.0))
        time_ns = clock.use(clock.read(carried["time"])) if "time" in carried else None
        start = clock.use(clock.read(carried["start"])) if "start" in carried else None
        end_ns = record[2] if time_ns is None else time_ns
        if start is not None and duration is None and end_ns is not None and end_ns >= start:
            duration = (end_ns - start) / 1e9
        if self._starts and start is None:
            start = end_ns
        if duration is not None and start is not None and (self._starts or end_ns is None):
            time_ns = start + round(duration * 1e9)
        elif self._starts:
            time_ns = UNTIMED
        said[TIME], said[DURATION] = time_ns, None if duration is None else round(duration, 9)

    def _decide(self, key: Any) -> View | None:
        """The view for one combination of deciding groups; None where a case drops the line."""
        parts = () if not self._decisive else key if len(self._decisive) > 1 else (key,)
        groups: dict[str, str | None] = dict(zip(self._decisive, parts, strict=True))
        values: dict[str, Any] = {"means": Means.UNKNOWN if "code" not in self._names else Means.STATED, **self._base}
        for name in SET.keys() & groups.keys():
            printed = (groups[name] or "").lower()
            if printed in SET[name]:
                values[name] = printed
        for case in self._cases:
            if all(_holds(wanted, groups[name]) for name, wanted in case.when.items()):
                values |= case.values
                break
        if values.get("drop"):
            return None
        raw = groups.get("code")
        code = values.get("code", self.fmt.number(raw))
        sent_code = values.get("sent_code", self.fmt.number(groups.get("sent_code")))
        for name in BODIES:
            if groups.get(name) is None:
                continue
            status, _ = parse_body(groups[name] or "", is_hex=name.endswith("hex"))
            if name.startswith("sent"):
                sent_code = 1005 if status is None else status
            else:
                code, raw = status, None
                if status is None and values["means"] in (Means.RECEIVED, Means.FRAME):
                    values["means"] = Means.EMPTY
        endpoint = Endpoint(values.get("endpoint", Endpoint.UNKNOWN))
        sent = Received(values.get("sent", Received.UNKNOWN if sent_code is None else Received.STATUS))
        # 1005 stands for an empty Close that went out, 1006 for none
        if sent_code in (1005, 1006):
            sent, sent_code = (Received.EMPTY if sent_code == 1005 else Received.NONE), None
        return decide(
            Said(
                self.fmt.id,
                Means(values["means"]),
                code,
                sent,
                sent_code,
                raw,
                endpoint,
                values.get("initiator", "unknown"),
                values.get("end", "unknown"),
                values.get("ended_by", "unknown"),
            )
        )


class Format:
    """One system: what finds its lines, how they are read, and the samples that prove it."""

    def __init__(self, document: Mapping[str, Any], path: str, *, text: str = "") -> None:
        """Check a parsed file.

        Args:
            document: All of it, or what stands before its samples.
            path: For errors.
            text: The whole file, where the samples are to be parsed only when they are asked for.

        Raises:
            CatalogueError: It breaks a rule.

        """
        self.path = path
        known = {
            "id",
            "title",
            "source",
            "find",
            "rank",
            "family",
            "window_s",
            "names",
            "pattern",
            "sample",
            "reject",
            "rule",
        }
        for name in document.keys() - known:
            raise self.error(name, "is not known here")
        for name in ("id", "title", "source", "rule", "pattern", *(() if text else ("sample", "reject"))):
            if not document.get(name):
                raise self.error(name, "is missing")
        self.id = str(document["id"])
        if not re.fullmatch(r"[a-z][a-z0-9_]{1,39}", self.id):
            raise self.error("id", "must be lower case letters, digits and underscores")
        self.title = str(document["title"])
        self.source = str(document["source"])
        self.rule = str(document["rule"])
        self.rank = int(document.get("rank", 50))
        self.family = str(document.get("family", self.id))
        self.window_s = float(document.get("window_s", 0))
        self._numbers = {str(name): int(code) for name, code in document.get("names", {}).items()}
        self.find = tuple(document.get("find", ()))
        self.patterns = [Pattern(name, self, entry) for name, entry in document["pattern"].items()]
        for pattern in self.patterns:
            literals = pattern.find or self.find
            if not literals:
                raise self.error(f"pattern.{pattern.key}", "nothing finds it: 'find' is missing")
            for literal in literals:
                if len(literal) < MIN_LITERAL or not UNESCAPED.fullmatch(literal) or not literal.isascii():
                    why = "it has to survive any wrapping: 4 characters of ASCII or more, no \\, <, > or &"
                    raise self.error("find", f"{literal!r}: {why}")
        self._document = document
        self._text = text

    @functools.cached_property
    def _whole(self) -> Mapping[str, Any]:
        return tomllib.loads(self._text) if self._text else self._document

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Lines that it reads, with what they say."""
        return list(self._whole["sample"])

    @property
    def rejects(self) -> list[dict[str, Any]]:
        """Lines that it must not take for a close."""
        return list(self._whole["reject"])

    def error(self, key: str, why: str) -> CatalogueError:
        """The exception for a broken rule of this file."""
        return CatalogueError(self.path, key, why)

    def number(self, printed: str | None) -> int | None:
        """A printed code as a number, by name where the format names some; None for what is none."""
        if printed is None:
            return None
        if printed in self._numbers:
            return self._numbers[printed]
        if printed.isascii() and printed.isdigit() and len(printed) <= 5 and int(printed) <= 65535:
            return int(printed)
        return None


def parse_body(printed: str, *, is_hex: bool = False) -> tuple[int | None, str]:
    r"""Status and reason of a Close body that a log prints: `\x03\xe9gone`, or `03 e9 67` in hexadecimal."""
    raw = _from_hex(printed) if is_hex else ESCAPE.sub(_unescape, printed[:MAX_REASON].encode("latin-1", "replace"))
    if len(raw) < 2:
        return None, ""
    return int.from_bytes(raw[:2], "big"), raw[2:].decode("utf-8", "backslashreplace")


def _unescape(match: re.Match[bytes]) -> bytes:
    digits, char = match.groups()
    return bytes([int(digits, 16)]) if digits else {b"n": b"\n", b"r": b"\r", b"t": b"\t"}.get(char, char)


def _from_hex(printed: str) -> bytes:
    """Bytes of `67 6f 6e 65`, as far as they are hexadecimal."""
    return bytes(int(pair, 16) for pair in re.findall(r"\b[0-9a-fA-F]{2}\b", printed[: 3 * MAX_REASON]))


def parse_duration(printed: str, factor: float) -> float | None:
    """Seconds from a number in units of `factor`, or from `1m2.5s`; None for what is neither."""
    try:
        seconds = float(printed) * factor
    except ValueError:
        parts = HUMAN_DURATION.findall(printed[:40])
        if not parts:
            return None
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    return seconds if 0 <= seconds < 1e9 else None


def _holds(wanted: frozenset[str] | bool, value: str | None) -> bool:
    """Whether a condition of a case holds: True and False ask whether the group is there at all."""
    if isinstance(wanted, bool):
        return (value is not None) == wanted
    return value in wanted


def _one_of(fmt: Format, key: str, value: Any, allowed: Iterable[str]) -> str:
    if value not in allowed:
        raise fmt.error(key, f"must be one of {', '.join(sorted(allowed))}")
    return str(value)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _lookup(one: dict[str, Any], key: str) -> Any:
    """A member by its name, or by a path of names with dots between."""
    if key in one:
        return one[key]
    inner: Any = one
    for part in key.split("."):
        if not isinstance(inner, dict) or part not in inner:
            return None
        inner = inner[part]
    return inner
