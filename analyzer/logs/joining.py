"""Several lines, one close: joins what a system prints about the same connection and moment.

Lines join where they name the same peer or connection, where they stand in one traceback, or where their system is
known to print one line for each part of a close (`role` in its format). Lines that say different things never join, and
where more than one close could be meant, the line is counted to the oldest and adds no peer.
"""

import functools
import itertools
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from analyzer.logs.statement import UNTIMED, Refusal, Statement
from analyzer.model import CLOSES, FAILING, Endpoint, Evidence, Initiator, Provenance, Received
from analyzer.table import Table
from analyzer.verdict.statement import CLOSE_PASSED, View, settle

WINDOW_NS = 2_000_000_000
"""Lines about one close lie within this of each other."""

WINDOW_LINES = 200
"""Likewise in lines, where they carry no time."""

REFUSED_LINES = 30
"""How far behind the line that told of a failed handshake the lines may stand that come of it."""

MAX_OPEN = 512
"""Closes of one system that may wait for more lines; beyond it the oldest waits no longer."""

MAX_TRIED = 16
"""Of these so many are looked at for each line, the oldest first."""

MAX_WAITING = 20_000
"""Rows held back in all."""

ORDER = (
    Provenance.UNDETERMINED,
    Provenance.INFERRED,
    Provenance.REPORTED,
    Provenance.SYNTHESIZED,
    Provenance.WIRE,
)
"""Whose word goes first when lines about one close are put together, weakest first."""

SAID = ("reason", "duration_s", "client", "server", "host", "path")
"""Columns that come from the statement as they are."""

HAS_PORT = re.compile(r"^(?:tcp[46]?:)?[^:]+:\d{1,5}$|\]:\d{1,5}$")
"""An address that names one connection; an IPv6 address without brackets has no port."""

Key = tuple[str, str, str]


class Row:
    """A close that may still grow."""

    __slots__ = (
        "block",
        "is_gone",
        "keys",
        "lines",
        "record",
        "roles",
        "said",
        "time_ns",
        "view",
        "waits",
        "window_ns",
    )

    def __init__(self, said: Statement, time_ns: int | None, record: int, block: int) -> None:
        self.said = said
        self.view: View = said.view
        self.time_ns = time_ns if said.time_ns is None else said.time_ns if said.time_ns != UNTIMED else None
        self.record = record
        self.block = block
        self.lines = 1
        self.roles: set[str] | frozenset[str] = frozenset()
        self.keys: tuple[Key, ...] = ()
        self.waits = False
        self.window_ns = WINDOW_NS
        self.is_gone = False


class Family:
    """Rows of systems that print several lines about one close, oldest first, and how many have a line of each role."""

    def __init__(self) -> None:
        self.waiting: deque[Row] = deque()
        self.n_with_role: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """Let a row wait for lines of other roles."""
        row.roles = {row.said.role}
        self.waiting.append(row)
        self.n_with_role[row.said.role] += 1
        if len(self.waiting) > MAX_OPEN:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """The oldest row waits no longer."""
        for role in self.waiting.popleft().roles:
            self.n_with_role[role] -= 1


class Joined(NamedTuple):
    """Which row a line joined, and whether no other could have been meant."""

    row: Row
    is_sure: bool


class Joiner:
    """Takes statements in the order of their lines, hands out rows in the order of their first lines.

    Attributes:
        n_joined: Lines that were added to the row of another.
        n_unopened: Lines that only count where an opening was logged before, and none was.

    """

    def __init__(
        self,
        *,
        dedupe: bool = True,
        windows_s: Mapping[str, float] | None = None,
    ) -> None:
        """Start.

        Args:
            dedupe: Whether lines join at all.
            windows_s: For families whose lines about one close may lie further apart.
        """
        self._dedupe = dedupe
        self._windows_ns = {family: round(s * 1e9) for family, s in (windows_s or {}).items()}
        self._refusals: deque[tuple[Refusal, set[str], int | None, int]] = deque(maxlen=MAX_OPEN)
        self._rows: list[Row] = []
        self._by_key: dict[Key, Row] = {}
        self._families: dict[str, Family] = defaultdict(Family)
        self._last: Row | None = None
        self._latest_ns: int | None = None
        self._latest_record = 0
        self._merged: dict[tuple[View, View], View] = {}
        self._n_open: Counter[str] = Counter()
        self.n_joined = 0
        self.n_unopened = 0

    def add(self, said: Statement, time_ns: int | None, record: int, block: int) -> None:
        """Take a statement in.

        Args:
            said: What the line says.
            time_ns: Time of the line, None where it has none.
            record: Number of the line, from 1.
            block: Number of the line that opened the block it stands in: its own, or the first of a traceback.
        """
        row = Row(said, time_ns, record, block)
        self._latest_record = record
        if row.time_ns is not None and (self._latest_ns is None or row.time_ns > self._latest_ns):
            self._latest_ns = row.time_ns
        if said.role and self._refusals and self._is_refused(row):
            return
        if said.needs_open:
            if not self._n_open[said.family]:
                self.n_unopened += 1
                return
            self._n_open[said.family] -= 1
        if self._dedupe:
            last = self._last
            if (
                last is not None
                and last.block == block
                and last.record != record
                and not last.is_gone
                and self._fits(last, row)
            ):
                self._join(last, row, is_sure=True)
                return
            if said.role or said.id or said.client or said.server:
                keys = _keys(said)
                joined = self._find(row, keys)
                if joined is not None:
                    self._join(joined.row, row, is_sure=joined.is_sure)
                    if joined.is_sure:
                        joined.row.block = block
                        self._last = joined.row
                    self._wait(joined.row, keys if joined.is_sure else ())
                    return
                self._wait(row, keys)
            self._last = row
        if row.view.sent in CLOSE_PASSED:
            row.window_ns = self._window_ns(row)
        self._rows.append(row)

    def refuse(self, refusal: Refusal, time_ns: int | None, record: int) -> None:
        """Note that nothing was open: lines of these roles that follow tell of no close."""
        self._n_open[refusal.family] += refusal.opens
        if refusal.cancels:
            self._refusals.append((refusal, set(refusal.cancels), time_ns, record))

    def _is_refused(self, row: Row) -> bool:
        """Whether a line belongs to a handshake that failed; each refusal answers for one line of each role.

        Such a line follows at once, and tells of no code but 1006: that is what an endpoint says of what never opened.
        """
        while self._refusals and row.record - self._refusals[0][3] > REFUSED_LINES:
            self._refusals.popleft()
        if row.view.code not in (None, 1006):
            return False
        for refusal, roles, time_ns, _ in self._refusals:
            if refusal.family != row.said.family or row.said.role not in roles:
                continue
            if refusal.client and row.said.client and refusal.client != row.said.client:
                continue
            if time_ns is None or row.time_ns is None or abs(row.time_ns - time_ns) <= WINDOW_NS:
                roles.discard(row.said.role)
                return True
        return False

    def _find(self, row: Row, keys: tuple[Key, ...]) -> Joined | None:
        for key in keys:
            known = self._by_key.get(key)
            if known is not None and self._may_grow(known) and self._is_near(known, row) and self._fits(known, row):
                return Joined(known, True)
        role = row.said.role
        if not role:
            return None
        family = self._families[row.said.family]
        waiting = family.waiting
        while waiting and not self._may_grow(waiting[0]):
            family.drop_oldest()
        if family.n_with_role[role] == len(waiting):
            return None
        able = []
        for known in itertools.islice(waiting, MAX_TRIED):
            if role in known.roles or not self._may_grow(known) or not self._is_near(known, row):
                continue
            if self._fits(known, row) and not _peers_differ(known.said, row.said):
                able.append(known)
        if not able:
            return None
        same = [known for known in able if _echoes(known.view, row.view)]
        return Joined((same or able)[0], len(able) == 1)

    def _wait(self, row: Row, keys: tuple[Key, ...]) -> None:
        """Keep a row for further lines."""
        row.keys += keys
        for key in keys:
            self._by_key[key] = row
        if row.said.role and not row.roles:
            self._families[row.said.family].add(row)
        row.waits = True

    def _is_near(self, a: Row, b: Row) -> bool:
        if a.time_ns is None or b.time_ns is None:
            return abs(a.record - b.record) <= WINDOW_LINES
        return abs(a.time_ns - b.time_ns) <= a.window_ns

    def _window_ns(self, row: Row) -> int:
        """How long a row waits: where it sent a Close, as long as its system waits for the answer."""
        if row.view.sent in CLOSE_PASSED and row.view.received is Received.UNKNOWN:
            return self._windows_ns.get(row.said.family, WINDOW_NS)
        return WINDOW_NS

    @staticmethod
    def _fits(a: Row, b: Row) -> bool:
        """Whether two lines can be about one close: they do not claim different things."""
        one, other = a.view, b.view
        if one.endpoint != other.endpoint and Endpoint.UNKNOWN not in (one.endpoint, other.endpoint):
            return False
        if one.sent_code is not None and other.sent_code is not None and one.sent_code != other.sent_code:
            return False
        if one.code is None or other.code is None or one.code == other.code:
            return True
        return _is_own(one, other) or _is_own(other, one)

    def _join(self, row: Row, more: Row, *, is_sure: bool) -> None:
        self.n_joined += 1
        row.lines += 1
        key = (row.view, more.view)
        merged = self._merged.get(key)
        if merged is None:
            if len(self._merged) >= 4096:
                self._merged.clear()
            merged = self._merged[key] = _merge(*key)
        if more.said.role and more.said.role not in row.roles:
            if row.roles:
                self._families[row.said.family].n_with_role[more.said.role] += 1
            row.roles = {*row.roles, more.said.role}
        first, second = row.said, more.said
        stronger = _strength(more.view) > _strength(row.view)
        if stronger:
            row.record = more.record
        said = [(row.view, first.reason), (more.view, second.reason if is_sure else None)]
        reason = _reason(said, merged, stronger=stronger)
        if row.time_ns is None or (more.time_ns is not None and more.time_ns < row.time_ns):
            row.time_ns = more.time_ns
        row.view = merged
        row.window_ns = self._window_ns(row)
        if not is_sure:
            row.said = first._replace(reason=reason)
            return
        row.said = first._replace(
            reason=reason,
            duration_s=first.duration_s if first.duration_s is not None else second.duration_s,
            client=first.client or second.client,
            server=first.server or second.server,
            host=first.host or second.host,
            path=first.path or second.path,
            role=first.role or second.role,
            family=first.family if first.role else second.family,
        )

    def take(self, *, is_end: bool = False) -> list[Row]:
        """Rows that nothing more can join; all of them where no more lines will come."""
        rows = self._rows
        n = len(rows)
        if not is_end:
            for i, row in enumerate(rows):
                is_open = row is self._last or (row.waits and self._may_grow(row))
                if is_open and len(rows) - i <= MAX_WAITING:
                    n = i
                    break
        done = rows[:n]
        self._rows = rows[n:]
        for row in done:
            row.is_gone = True
            for key in row.keys:
                if self._by_key.get(key) is row:
                    del self._by_key[key]
        return done

    def _may_grow(self, row: Row) -> bool:
        """Whether a further line can join: no line since was later than the window allows."""
        if row.is_gone:
            return False
        if row.time_ns is None or self._latest_ns is None:
            return self._latest_record - row.record <= WINDOW_LINES
        return self._latest_ns - row.time_ns <= row.window_ns


def _reason(said: list[tuple[View, str | None]], merged: View, *, stronger: bool) -> str | None:
    """The reason of the Close that came in, where one did; that of one that went out is another's.

    Args:
        said: The two views and their reasons.
        merged: What they make together.
        stronger: Whether the second goes before the first.
    """
    if merged.received in CLOSE_PASSED:
        said = [
            (view, reason) for view, reason in said if view.received in CLOSE_PASSED or view.sent not in CLOSE_PASSED
        ]
    reasons = [reason for _, reason in (reversed(said) if stronger else said)]
    return next((reason for reason in reasons if reason), "" if "" in reasons else None)


def _strength(view: View) -> tuple[bool, bool, int]:
    """Sorts by how much a line knows of what came in: that a Close did, whether anything did, and how it knows."""
    return view.evidence is Evidence.LOG_RECEIVED, view.received is not Received.UNKNOWN, ORDER.index(view.provenance)


def _is_own(a: View, b: View) -> bool:
    """Whether a code is only what this endpoint calls the end: its own Close's, or one that it made up."""
    if a.received is not Received.UNKNOWN:
        return False
    return a.provenance is Provenance.SYNTHESIZED or a.code in (a.sent_code, b.sent_code)


def _keys(said: Statement) -> tuple[Key, ...]:
    """What names the connection: an id of its system, or the client's port; a server's is shared by many."""
    keys: list[Key] = []
    if said.id:
        keys.append((said.family, "id", said.id))
    if said.client and HAS_PORT.search(said.client):
        keys.append(("", "client", said.client))
    return tuple(keys)


def _peers_differ(a: Statement, b: Statement) -> bool:
    pairs = ((a.client, b.client), (a.id, b.id), (a.path, b.path))
    return any(one and other and one != other for one, other in pairs)


def _echoes(a: View, b: View) -> bool:
    """Whether one says what came in and the other what went out, and the two are the same code."""
    came = a.wire_code if a.wire_code is not None else b.wire_code
    went = a.sent_code if a.sent_code is not None else b.sent_code
    return came == went


def _merge(a: View, b: View) -> View:
    """One view out of two: the stronger word about what came in, and whatever only one of them knows."""
    strong, weak = (b, a) if _strength(b) > _strength(a) else (a, b)
    merged = strong._replace(
        endpoint=a.endpoint if a.endpoint is not Endpoint.UNKNOWN else b.endpoint,
        end=a.end if a.end != "unknown" else b.end,
        ended_by=a.ended_by if a.ended_by != "unknown" else b.ended_by,
    )
    if merged.sent in (Received.UNKNOWN, weak.sent) and merged.sent_code is None:
        merged = merged._replace(sent=weak.sent, sent_code=weak.sent_code)
    if merged.received is Received.UNKNOWN and merged.code is not None and merged.code == merged.sent_code:
        # what it calls the end is its own Close; nothing says what came in
        merged = merged._replace(
            code=None,
            provenance=Provenance.UNDETERMINED,
            evidence=Evidence.LOG_SENT,
            confidence=None,
            raw_code=merged.raw_code or str(merged.code),
        )
    initiator = a.initiator if a.initiator != Initiator.UNKNOWN else b.initiator
    return merged._replace(initiator=_by_order(a, b) if initiator == Initiator.UNKNOWN else initiator)


def _by_order(a: View, b: View) -> str:
    """Whose Close was first, where the earlier line tells of one alone and the later one of the other."""
    closes = CLOSE_PASSED
    if a.received in closes and a.sent is Received.UNKNOWN and b.sent in closes and b.received is Received.UNKNOWN:
        return "remote"
    if a.sent in closes and a.received is Received.UNKNOWN and (b.received in closes or b.received is Received.NONE):
        return "local" if a.sent_code not in FAILING else "unknown"
    return "unknown"


def to_table(rows: list[Row], source: str) -> Table:
    """Rows of `closes`, each column made when it is asked for."""
    columns: dict[str, Any] = {
        "source": lambda: [source] * len(rows),
        "record": lambda: [row.record for row in rows],
        "time": lambda: [row.time_ns for row in rows],
        "lines": lambda: [row.lines for row in rows],
        "anomalies": lambda: [[] for _ in rows],
    }

    @functools.cache
    def views() -> list[tuple[Any, ...]]:
        found = [row.view for row in rows]
        settled = {id(view): view for view in found}
        settled = {name: settle(view) for name, view in settled.items()}
        return list(zip(*[settled[id(view)] for view in found], strict=True))

    for i, name in enumerate(View._fields):
        columns[name] = functools.partial(_of_views, views, i)
    for name in SAID:
        columns[name] = functools.partial(_of_statements, rows, Statement._fields.index(name))
    return Table(CLOSES, columns, n_rows=len(rows))


def _of_views(views: Callable[[], list[tuple[Any, ...]]], i: int) -> Sequence[Any]:
    columns = views()
    return columns[i] if columns else []


def _of_statements(rows: list[Row], i: int) -> list[Any]:
    return [row.said[i] for row in rows]
