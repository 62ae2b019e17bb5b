"""A log, piece by piece, to rows of `closes`: lines are found, taken out of their wrappers, read, and joined."""

import codecs
import csv
import io
import json
import re

from analyzer.logs.catalogue import Catalogue
from analyzer.logs.joining import Joiner, to_table
from analyzer.logs.record import MAX_TEXT, MESSAGE_KEYS, Record, flatten, message_of, unwrap
from analyzer.logs.scan import Scanner
from analyzer.logs.statement import Answer, Statement
from analyzer.logs.timestamp import TIME_KEYS, Clock
from analyzer.table import Table

MAX_LINE_BYTES = 1 << 23
"""The rest of a longer line is skipped, and counted."""

MAX_PIECES = 64
"""Pieces of MAX_TEXT characters in which patterns search a long line of plain text."""

OVERLAP = 1 << 11
"""Characters that two such pieces share, so that no statement is cut in two."""

MAX_LOOK_BACK_BYTES = 1 << 16
"""How far before an untimed line its time is looked for: in the line that opened its traceback."""

CONTINUES = re.compile(
    r"\s+\S|\s*$|Traceback \(|Caused by: |The above exception|During handling of|--->|\.\.\. \d+ more|[|+] "
    r"|[A-Za-z_][\w.$]*(?:Error|Exception)\b"
)
"""Lines of a traceback: indented ones, and the sentences between its parts."""

OWN_CLOCK = re.compile(r"[\W_]{0,3}(?:\d{1,4}[-./]\d{1,2}[-./]\d{1,4}[ T,]{1,2})?\d{1,2}:\d\d:\d\d")
"""What a line begins with that has a time without a date, or a date in an order that is not read."""

EXCEPTION = re.compile(r"[A-Za-z_][\w.$]*(?:Error|Exception|Closed|ClosedOK|Disconnect)\b")
"""A line that names an exception, where it begins at the margin."""

MAX_KNOWN = 4096
"""Lines whose statement is remembered, without their time."""

MAX_ABOVE_BYTES = 1 << 13
"""How much of a traceback is put before one of its lines, for patterns that want it."""

LINES_AT_EDGES = 50
"""Lines at either end of a log in which its first and its last time are looked for."""

ENCODINGS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class LogReader:
    """Reads one log.

    Attributes:
        n_lines: Lines read so far.
        n_long: Lines whose rest was skipped.
        first_ns, last_ns: First and last time of the log.

    """

    def __init__(self, catalogue: Catalogue, clock: Clock, source: str, *, dedupe: bool = True) -> None:
        """Start.

        Args:
            catalogue: The formats to read.
            clock: What reads its times.
            source: Name for the rows.
            dedupe: Whether lines about one close become one row.
        """
        self._catalogue = catalogue
        self._clock = clock
        self._source = source
        self._scanner = Scanner(catalogue.literals, catalogue.masks)
        self._joiner = Joiner(dedupe=dedupe, windows_s=catalogue.windows_s)
        self._is_begun = False
        self._is_skipping = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._columns: list[str] | None = None
        self._carry = b""
        self._before = b""
        self._begun_at = 0
        self._known: dict[str, Statement] = {}
        self._last = (0, 0)
        self._last_time: int | None = None
        self.n_lines = 0
        self.n_long = 0
        self.first_ns: int | None = None
        self.last_ns: int | None = None

    @property
    def n_joined(self) -> int:
        """Lines that were joined into the row of another."""
        return self._joiner.n_joined

    @property
    def n_unopened(self) -> int:
        """Lines that would tell of a close had an opening been logged before."""
        return self._joiner.n_unopened

    def feed(self, data: bytes) -> Table:
        """Read a piece of the log; rows whose lines are all there come back."""
        if not self._is_begun:
            data = self._begin(data)
        if self._decoder is not None:
            data = self._decoder.decode(data).encode("utf-8", "surrogatepass")
        if self._is_skipping:
            at = data.find(b"\n")
            if at < 0:
                return self._take()
            data = data[at:]
            self._is_skipping = False
        if self._columns is not None:
            self._read_csv(self._columns, self._carry + data, is_end=False)
            return self._take()
        begin = 0
        if self._carry:
            begin = data.find(b"\n") + 1
            if not begin:
                self._hold(self._carry + data)
                return self._take()
            self._read_lines(self._carry + data[:begin], 0, len(self._carry) + begin)
            self._carry = b""
        limit = data.rfind(b"\n") + 1
        if limit > begin:
            self._read_lines(data, begin, limit)
        self._hold(data[max(begin, limit) :])
        return self._take()

    def finish(self) -> Table:
        """Read what is left: a last line may lack its newline."""
        if not self._is_begun:
            self._begin(b"")
        if self._columns is not None:
            self._read_csv(self._columns, self._carry, is_end=True)
        elif self._carry:
            self._read_lines(self._carry, 0, len(self._carry))
            self.n_lines += 1
        self.n_lines += self._is_skipping
        self._carry = b""
        self._note_last_time()
        return self._take(is_end=True)

    def rest(self) -> Table:
        """Rows held back for further lines, for a reader who will not wait."""
        return self._take(is_end=True)

    def _begin(self, data: bytes) -> bytes:
        """Look at the first bytes: encoding, the header of a CSV export, the first time."""
        self._is_begun = True
        head = data[: 1 << 16]
        for mark, encoding in ENCODINGS.items():
            if data.startswith(mark):
                data = data[len(mark) :]
                head = head[len(mark) :]
                if encoding != "utf-8":
                    self._decoder = codecs.getincrementaldecoder(encoding)(errors="backslashreplace")
                    head = head.decode(encoding, "replace").encode()
                break
        self._columns = _csv_header(head)
        self.first_ns = self._first_time(head)
        return data

    def _first_time(self, head: bytes) -> int | None:
        """The first time in the first lines of some bytes."""
        times = map(self._time_of, head.split(b"\n")[:LINES_AT_EDGES])
        return next((time_ns for time_ns in times if time_ns is not None), None)

    def _hold(self, rest: bytes) -> None:
        """Keep an unfinished line; of one that is too long only what was kept so far is read."""
        if len(rest) <= MAX_LINE_BYTES:
            self._carry = rest
            return
        n_long = self.n_long
        self._read_lines(rest[:MAX_LINE_BYTES], 0, MAX_LINE_BYTES)
        self.n_long = n_long + 1
        self._carry = b""
        self._is_skipping = True

    def _take(self, *, is_end: bool = False) -> Table:
        rows = self._joiner.take(is_end=is_end)
        return to_table(rows, self._source)

    def _read_lines(self, data: bytes, begin: int, limit: int) -> None:
        """Read the lines between two offsets."""
        first = self.n_lines + 1
        self._begun_at = begin
        for start, end, line, mask in self._scanner.scan(data, begin, limit):
            self._read_line(data, start, end, mask, first + line)
        self.n_lines += self._scanner.n_lines
        tail = data[max(begin, limit - MAX_LOOK_BACK_BYTES) : limit]
        self._before = (self._before + tail)[-MAX_LOOK_BACK_BYTES:] if len(tail) < MAX_LOOK_BACK_BYTES else tail
        if self.first_ns is None and first <= LINES_AT_EDGES:
            self.first_ns = self._first_time(data[begin : min(limit, begin + (1 << 16))])

    def _read_line(self, data: bytes, begin: int, end: int, mask: int, record: int) -> None:
        text = data[begin:end].decode("utf-8", "backslashreplace").rstrip("\r")
        time_ns, off = self._clock.lead(text)
        if off:
            # lines that differ in their time alone say the same
            known = self._known.get(text[off:])
            if known is not None:
                self._last, self._last_time = (record, record), time_ns
                self._joiner.add(known, time_ns, record, record)
                return
        records = unwrap(text, self._clock)
        again = len(records) > 1 or bool(mask & self._catalogue.again)
        for one in records:
            searched, objects, time_ns = one
            block = record
            if time_ns is None and not objects:
                block, time_ns = self._look_back(data, begin, text, record)
            self._last, self._last_time = (record, block), time_ns
            if again:
                # the literals were found in a line that holds many records, or that says them in numbers
                inner = json.dumps(objects, ensure_ascii=False, separators=(",", ":"))
                mask = self._scanner.mask_of(f"{searched}\n{inner}".encode("utf-8", "surrogatepass"))
            if len(searched) > MAX_TEXT:
                self._read_pieces((searched, objects, time_ns), mask, record, block)
                continue
            own = message_of(one) if objects else searched
            above = self._above(data, begin) if own[:1] in (" ", "\t") else ""
            said = self._read_record((searched, objects, time_ns), mask, record, block, above)
            if (
                off
                and not objects
                and not above
                and isinstance(said, Statement)
                and said.time_ns is None
                and said.duration_s is None
            ):
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[text[off:]] = said

    def _read_pieces(self, one: Record, mask: int, record: int, block: int) -> None:
        """Read a long record piece by piece, until one says something."""
        text, objects, time_ns = one
        step = MAX_TEXT - OVERLAP
        for begin in range(0, min(len(text), MAX_PIECES * step), step):
            piece = text[begin : begin + MAX_TEXT]
            if self._read_record((piece, objects, time_ns), mask, record, block) is not None:
                return
        self.n_long += len(text) > MAX_PIECES * step

    def _read_record(self, one: Record, mask: int, record: int, block: int, above: str = "") -> Answer:
        """Read a record by the first reader that knows it; what that says, None where none does."""
        for reader in self._catalogue.readers(mask):
            whole = (above + message_of(one), one[1], one[2]) if reader.spans and above else one
            said = reader.read(whole, self._clock)
            if said is None:
                continue
            if isinstance(said, Statement):
                self._joiner.add(said, one[2], record, block)
            else:
                self._joiner.refuse(said, one[2], record)
            return said
        return None

    def _with_before(self, data: bytes, begin: int, most: int) -> tuple[bytes, int]:
        """Bytes that hold what stands before an offset, earlier pieces included, and where that offset is in them."""
        if begin - self._begun_at >= most:
            return data, begin
        joined = self._before + data[self._begun_at : begin]
        return joined, len(joined)

    def _above(self, data: bytes, begin: int) -> str:
        """The lines above an indented one, from the one that they are indented to, without what carried them."""
        data, begin = self._with_before(data, begin, MAX_ABOVE_BYTES)
        floor = max(0, begin - MAX_ABOVE_BYTES)
        lines: list[str] = []
        while begin > floor:
            start = data.rfind(b"\n", floor, begin - 1) + 1
            raw = data[max(start, floor) : begin].decode("utf-8", "backslashreplace").rstrip("\r\n")
            lines.append(message_of(unwrap(raw, self._clock)[0]))
            if lines[-1][:1] not in (" ", "\t"):
                break
            begin = start
        return "".join(f"{line}\n" for line in reversed(lines))

    def _look_back(self, data: bytes, begin: int, text: str, record: int) -> tuple[int, int | None]:
        """The block that an untimed line stands in, by the number of its first line, and the time of that.

        The time is that of the nearest line before it that has one. The block is its own, unless it goes on with a
        traceback. Looks no further than to the line that was read last, which looked for itself.
        """
        if OWN_CLOCK.match(text):
            return record, None  # it has a time of its own, in a form that is not read
        at, number = begin, record
        last, block = self._last
        goes_on = n_between = 0
        is_exception = EXCEPTION.match(text) is not None
        data, at = self._with_before(data, begin, MAX_LOOK_BACK_BYTES)
        floor = max(0, at - MAX_LOOK_BACK_BYTES)
        while at > floor:
            number -= 1
            if number <= last:
                # right below the line that was read, an exception's name goes on with it; so it does behind a traceback
                is_same = goes_on == n_between and (
                    goes_on or CONTINUES.match(text) or (is_exception and last == block)
                )
                return (block if is_same else record), self._last_time
            start = data.rfind(b"\n", floor, at - 1) + 1
            line = data[max(start, floor) : at - 1][:512].decode("utf-8", "backslashreplace")
            found = self._clock.use(self._clock.find(line))
            if found is not None:
                is_same = goes_on == n_between and (goes_on or CONTINUES.match(text) or is_exception)
                return (number if is_same else record), found
            n_between += 1
            goes_on += CONTINUES.match(line) is not None
            at = start
        return record, None

    def _read_csv(self, columns: list[str], data: bytes, *, is_end: bool) -> None:
        """Read the whole rows of a CSV export; cells may hold several lines."""
        limit = len(data)
        if not is_end:
            limit = data.rfind(b"\n") + 1
            if data.count(b'"', 0, limit) % 2:
                limit = data.rfind(b"\n", 0, data.rfind(b'"', 0, limit)) + 1
        if not limit and len(data) > MAX_LINE_BYTES:
            self.n_long += 1
            limit = len(data)
        csv.field_size_limit(MAX_LINE_BYTES)
        rows = csv.reader(io.StringIO(data[:limit].decode("utf-8", "backslashreplace"), newline=""))
        first = self.n_lines + 1
        number = 0
        try:
            for cells in rows:
                mask = self._scanner.mask_of("\n".join(cells).encode("utf-8", "backslashreplace"))
                if mask:
                    one = flatten("", dict(zip(columns, cells, strict=False)), self._clock)
                    self._last, self._last_time = (first + number, first + number), one[2]
                    if len(one[0]) > MAX_TEXT:
                        self._read_pieces(one, mask, first + number, first + number)
                    else:
                        self._read_record(one, mask, first + number, first + number)
                number = rows.line_num
        except csv.Error:
            self.n_long += 1
        self.n_lines += data.count(b"\n", 0, limit) + (is_end and limit > 0 and not data.endswith(b"\n"))
        self._before = data[max(0, limit - MAX_LOOK_BACK_BYTES) : limit]
        self._carry = data[limit:]

    def _time_of(self, line: bytes) -> int | None:
        return unwrap(line[:MAX_TEXT].decode("utf-8", "backslashreplace").rstrip("\r"), self._clock)[0][2]

    def _note_last_time(self) -> None:
        for line in reversed(self._before.split(b"\n")[-LINES_AT_EDGES:]):
            self.last_ns = self._time_of(line) if line else None
            if self.last_ns is not None:
                return
        self.last_ns = self.first_ns


def _csv_header(head: bytes) -> list[str] | None:
    """The columns of a CSV export: its first line names a message and at least one other known column."""
    line = head.split(b"\n", 1)[0].rstrip(b"\r")
    if b"," not in line or len(line) > 4096:
        return None
    try:
        (columns,) = csv.reader([line.decode("utf-8")])
    except (ValueError, csv.Error):
        return None
    known = {name.strip() for name in columns}
    if len(columns) < 2 or not known & {*MESSAGE_KEYS, "Message"} or not known & {*TIME_KEYS, "Date", "host", "source"}:
        return None
    return [name.strip() for name in columns]
