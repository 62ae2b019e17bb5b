"""What TLS records tell without keys: is it WebSocket, who closed it, was there a Close (docs/sealed.md).

Owns the rules about sizes, order and times of records (RFC 8446 section 5.2, RFC 5246 section 6.2.3, RFC 6455
section 5.5). It claims only what is left when all that looks the same has been ruled out; the rest is `sealed`. HTTP/2
without keys is never judged. Directions: 0 is the client, 1 the server.
"""

from typing import NamedTuple

from analyzer.capture import sealed
from analyzer.capture.sealed import (
    ASKED,
    CLIENT,
    REPLY_NS,
    SERVER,
    Told,
    has_exact_sizes,
    is_known,
    plaintext,
)
from analyzer.capture.suite import TLS_1_3
from analyzer.model import (
    ALERT,
    MAX_CLOSE_BODY_BYTES,
    RECENT_RECORDS,
    RECORD_PAIRS,
    Confidence,
    Evidence,
    Initiator,
    Received,
    Rows,
)

MIN_PADDING, PADDED_RECORDS = 8, 4
"""TLS 1.3 records that hold a multiple of so many bytes are padded, if there are so many of them: one connection in
4,096 looks so by chance."""

PING_BODY = (4, 4)
"""Python's websockets and uvicorn put so many bytes into a Ping; next to no Close has a reason of two."""

SLOW_NS = 50_000_000
"""An answer slower than this must not follow a question that was itself a quick answer."""

TRAILING_NS = 100_000_000
"""Longest time from an endpoint's first record behind a Close to its own Close: the messages that it had to send."""

ANSWERER_ENDS_NS, ASKER_ENDS_NS = 30_000_000, 200_000_000
"""Longest time from the second Close to the first FIN or alert. Who sent the second one goes on at once, wherever the
capture was taken; the other hears of it only after a round trip."""

QUIET_NS = 3_000_000_000
"""Silence before the end after which the last question and answer cannot have been two Closes: Chromium waits 2 s for
the server's FIN, other clients no longer than they wait for a Close."""

FRAME_BYTES = (6, 2)
"""What a control frame has besides its payload: the client's has a mask."""


class Record(NamedTuple):
    """One of a connection's last records: the bytes of plaintext that it holds lie between `low` and `high`."""

    low: int
    high: int
    ts_ns: int
    packet: int
    end_pos: int
    ack_pos: int
    order: int
    is_alert: bool
    n_bytes: int

    def body(self, direction: int) -> tuple[int, int]:
        """Least and greatest payload of the one control frame that it may be; the greatest is negative where none."""
        low, high = self.low - FRAME_BYTES[direction], self.high - FRAME_BYTES[direction]
        return max(low, 0), -1 if low > MAX_CLOSE_BODY_BYTES else min(high, MAX_CLOSE_BODY_BYTES)


CODES = {Evidence.SEALED_EMPTY_CLOSE: 1005, Evidence.SEALED_NO_CLOSE: 1006}
"""The code that an endpoint reports, inferred; every other evidence here leaves it undetermined."""


def last_records(row: Rows, direction: int, version: int, suite: int) -> list[Record]:
    """The last records of one side in order, without those that neither a frame nor an alert could be."""
    n = int(row["n_recent"][direction])
    found = []
    for k in range(max(n - RECENT_RECORDS, 0), n):
        slot = k % RECENT_RECORDS
        n_bytes = int(row["recent_bytes"][direction, slot])
        low, high = plaintext(n_bytes, version, suite)
        is_alert = int(row["recent_kind"][direction, slot]) == ALERT
        if version == TLS_1_3 and direction == CLIENT and low < FRAME_BYTES[CLIENT]:
            if low != 2:
                continue  # a KeyUpdate, or an empty record
            is_alert = True
        ts_ns, packet = int(row["recent_ns"][direction, slot]), int(row["recent_packet"][direction, slot])
        end_pos, ack_pos = int(row["recent_end_pos"][direction, slot]), int(row["recent_ack_pos"][direction, slot])
        order = int(row["recent_order"][direction, slot])
        found.append(Record(low, high, ts_ns, packet, end_pos, ack_pos, order, is_alert, n_bytes))
    return found


def _short_turns(row: Rows, version: int, suite: int) -> int:
    """How often the client began to speak with less than the head of any HTTP request has."""
    return int(row["short_turns" if has_exact_sizes(version, suite) else "shortish_turns"])


def is_websocket(
    row: Rows, *, version: int, suite: int, offers: tuple[str, ...], selected: str | None, is_asserted: bool
) -> tuple[bool, Confidence | None]:
    """Whether a connection is a WebSocket over HTTP/1.1, and how sure that is.

    What decides: an exchange that an opening handshake could be, and behind it turns of the client that begin with
    fewer bytes than the head of any HTTP request has. Nothing that offers HTTP/2 is believed without being asserted.
    """
    if is_asserted:
        return True, Confidence.HIGH
    may_be_h2 = selected == "h2" or ("h2" in offers and selected != "http/1.1")
    if may_be_h2 or int(row["phase"]) < ASKED or sealed.is_hopeless(row) or int(row["response_bytes"]) == 0:
        return False, None
    short = _short_turns(row, version, suite)
    if short == 0:
        return False, None
    if offers == ("http/1.1",):
        return True, Confidence.HIGH
    return True, Confidence.MEDIUM if offers or short < 3 else Confidence.HIGH


class _Pair(NamedTuple):
    """The last frame of each side; `is_answer` says that the later one acknowledges the earlier."""

    asker: int
    question: Record
    answer: Record
    is_answer: bool


class _Closes(NamedTuple):
    """A pair that can only be two Closes; `sent` by direction."""

    pair: _Pair
    sent: tuple[Received, Received]


def _last_pair(client: list[Record], server: list[Record]) -> _Pair | None:
    if not client or not server:
        return None
    c, s = client[-1], server[-1]
    if c.order < s.order:
        return _Pair(CLIENT, c, s, s.ack_pos >= c.end_pos)
    return _Pair(SERVER, s, c, c.ack_pos >= s.end_pos)


def _was_seen(row: Rows, pair: _Pair) -> bool:
    """Whether records of these lengths were question and answer before, this time not included."""
    for i in range(RECORD_PAIRS):
        if (
            int(row["pair_asker"][i]) == pair.asker
            and int(row["pair_question"][i]) == pair.question.n_bytes
            and int(row["pair_answer"][i]) == pair.answer.n_bytes
        ):
            is_last = int(row["pair_ns"][i]) == pair.question.ts_ns
            return int(row["pair_count"][i]) > is_last
    return False


class _Teardown(NamedTuple):
    """The first close_notify, FIN or RST, and whose it was."""

    ns: int
    by: int
    is_rst: bool


def _teardown(ends: tuple[Rows, Rows], alerts: tuple[Record | None, Record | None]) -> _Teardown | None:
    found = []
    for side in (CLIENT, SERVER):
        alert, end = alerts[side], ends[side]
        if alert is not None:
            found.append(_Teardown(alert.ts_ns, side, is_rst=False))
        for how in ("fin", "rst"):
            if int(end[f"{how}_packet"]) > 0:
                found.append(_Teardown(int(end[f"{how}_ns"]), side, how == "rst"))
    return min(found, default=None)


def _received(record: Record, direction: int) -> Received:
    """What Close this record is if it is one."""
    low, high = record.body(direction)
    if low == high == 0:
        return Received.EMPTY
    return Received.SEALED


def _fits(question: Record, answer: Record, asker: int) -> bool:
    """Whether these may be two Closes by their sizes: all libraries that were measured answer a Close with the body
    that they got, or with its status alone."""
    asked, answered = question.body(asker), answer.body(1 - asker)
    if asked[1] < 0 or answered[1] < 0 or asked == (1, 1):
        return False
    if asked == answered == PING_BODY:
        return False
    is_same = answered[0] <= asked[1] and asked[0] <= answered[1]
    return is_same or answered[0] <= 2 <= answered[1]


def _closes(row: Rows, pair: _Pair, answers: list[Record], teardown: _Teardown) -> _Closes | None:
    """Whether this pair can only be two Closes.

    Keepalive has come before, an echo is as long as its question, and neither is followed at once by an orderly end
    that the server begins.

    Args:
        answers: The last frames of the side that answers.

    """
    question, answer = pair.question, pair.answer
    if not pair.is_answer or not _fits(question, answer, pair.asker) or _was_seen(row, pair):
        return None
    delay_ns = answer.ts_ns - question.ts_ns
    if not 0 <= delay_ns <= REPLY_NS or teardown.ns < question.ts_ns or teardown.is_rst:
        return None
    first = next(r for r in answers if r.order > question.order and r.ack_pos >= question.end_pos)
    if answer.ts_ns - first.ts_ns > TRAILING_NS:
        return None
    before = [r for r in answers if r.order < question.order and question.ack_pos >= r.end_pos]
    if delay_ns > SLOW_NS and before and (question.ts_ns - before[-1].ts_ns) * 4 < delay_ns:
        return None  # it answers what came before it
    limit_ns = ASKER_ENDS_NS if teardown.by == pair.asker else ANSWERER_ENDS_NS
    if teardown.ns - answer.ts_ns > limit_ns:
        return None
    is_short_reply = question.body(pair.asker)[0] > 2 and answer.body(1 - pair.asker) == (2, 2)
    if not is_short_reply and pair.asker == CLIENT and teardown.by == CLIENT:
        return None
    kinds = _received(question, pair.asker), _received(answer, 1 - pair.asker)
    return _Closes(pair, kinds if pair.asker == CLIENT else kinds[::-1])


def _third(pair: _Pair, answers: list[Record]) -> Record | None:
    """A record that the question may itself be the answer to: some libraries send a second Close."""
    question = pair.question
    before = [r for r in answers if r.order < question.order]
    if not before or question.ack_pos < before[-1].end_pos:
        return None
    if question.ts_ns - before[-1].ts_ns > ASKER_ENDS_NS or not _fits(before[-1], question, 1 - pair.asker):
        return None
    return before[-1]


def judge(
    row: Rows,
    ends: tuple[Rows, Rows],
    *,
    version: int,
    suite: int,
    offers: tuple[str, ...] = (),
    selected: str | None = None,
    is_asserted: bool = False,
) -> Told:
    """What the records of one connection tell. Never raises.

    Args:
        row: SEALED.
        ends: SEALED_END of the client and of the server.
        version: Negotiated version, 0x0304 for TLS 1.3; `suite` the cipher suite of the ServerHello.
        offers: ALPN names that the client offered, `selected` the one that the ServerHello of TLS 1.2 chose.
        is_asserted: The user says that this host and port are WebSocket.

    """
    likely, likelihood = is_websocket(
        row, version=version, suite=suite, offers=offers, selected=selected, is_asserted=is_asserted
    )
    unknown = Received.UNKNOWN
    silent = Told(
        likely,
        likelihood,
        Initiator.UNKNOWN,
        (unknown, unknown),
        (Evidence.SEALED, Evidence.SEALED),
        (None, None),
        (0, 0),
        (0, 0),
        opened_ns=int(row["response_ns"]),
    )
    is_padded = version == TLS_1_3 and int(row["records"]) >= PADDED_RECORDS and int(row["padding"]) >= MIN_PADDING
    may_be_h2 = selected == "h2" or ("h2" in offers and selected != "http/1.1")
    is_missing = int(row["misses"][CLIENT]) or int(row["misses"][SERVER])
    if not likely or may_be_h2 or is_padded or is_missing or not is_known(version, suite):
        return silent
    if int(row["phase"]) < ASKED or not (ends[CLIENT]["is_complete"] and ends[SERVER]["is_complete"]):
        return silent
    client, server = (last_records(row, side, version, suite) for side in (CLIENT, SERVER))
    client_alert = next((r for r in client if r.is_alert), None)
    server_alert = next((r for r in server if r.is_alert), None)
    client, server = ([r for r in records if not r.is_alert] for records in (client, server))
    # in TLS 1.3 the server's last record of 2 bytes is a close_notify or an empty Close: both are tried
    is_ambiguous = version == TLS_1_3 and bool(server) and server[-1].low == 2
    ways: list[tuple[list[Record], Record | None]] = [(server, server_alert)]
    if is_ambiguous:
        ways.insert(0, (server[:-1], server[-1]))
    for frames, alert in ways:
        pair, teardown = _last_pair(client, frames), _teardown(ends, (client_alert, alert))
        if pair is None or teardown is None:
            continue
        answers = frames if pair.asker == CLIENT else client
        found = _closes(row, pair, answers, teardown)
        if found is not None:
            return _told_closes(silent, found, ends, _third(pair, answers))
    if is_ambiguous and int(row["last_pair"][SERVER]) == 0:
        server_alert = server[-1]
    if _short_turns(row, version, suite) == 0:
        return silent  # on a host that is asserted, this may be a rejected handshake, or HTTP
    return _told_nothing(row, silent, client, server, _teardown(ends, (client_alert, server_alert)))


def _told_closes(silent: Told, found: _Closes, ends: tuple[Rows, Rows], third: Record | None) -> Told:
    """Two Closes: what each endpoint got, unless it had already ended the transport.

    Args:
        third: What may be the first of three Closes, from the side that sent the last one.

    """
    pair = found.pair
    closes = (pair.question, pair.answer) if pair.asker == CLIENT else (pair.answer, pair.question)
    evidence = [Evidence.SEALED, Evidence.SEALED]
    for endpoint in (CLIENT, SERVER):
        peer = 1 - endpoint
        own = [int(ends[endpoint][f"{how}_ns"]) for how in ("fin", "rst") if int(ends[endpoint][f"{how}_packet"]) > 0]
        if own and min(own) < closes[peer].ts_ns:
            continue
        if third is not None and peer != pair.asker and _received(third, peer) != found.sent[peer]:
            continue
        low, _ = closes[peer].body(peer)
        if found.sent[peer] == Received.EMPTY:
            evidence[endpoint] = Evidence.SEALED_EMPTY_CLOSE
        elif low >= 2:
            evidence[endpoint] = Evidence.SEALED_CLOSE
    sure = tuple(Confidence.MEDIUM if e in CODES else None for e in evidence)
    initiator = (Initiator.CLIENT, Initiator.SERVER)[pair.asker] if third is None else Initiator.UNKNOWN
    return silent._replace(
        initiator=initiator,
        sent=found.sent,
        evidence=(evidence[0], evidence[1]),
        confidence=(sure[0], sure[1]),
        close_packet=(closes[0].packet, closes[1].packet),
        close_ns=(closes[0].ts_ns, closes[1].ts_ns),
    )


def _told_nothing(
    row: Rows,
    silent: Told,
    client: list[Record],
    server: list[Record],
    teardown: _Teardown | None,
) -> Told:
    """No Close: where a side's last frame is one more of the keepalive, and silence follows it.

    A keepalive as long as a Close proves nothing: two Closes of that length, then a server that lingers, look the same.
    """
    pair = _last_pair(client, server)
    if teardown is None or pair is None or _fits(pair.question, pair.answer, pair.asker):
        return silent
    sent = [Received.UNKNOWN, Received.UNKNOWN]
    for side, records in ((CLIENT, client), (SERVER, server)):
        i = int(row["last_pair"][side]) - 1  # a close_notify, or an empty Close that looks like it, is in none
        if i < 0 or not records or teardown.ns - records[-1].ts_ns < QUIET_NS:
            continue
        if int(row["pair_steady"][i]) > 0:  # the third time at least
            sent[side] = Received.NONE
    evidence = tuple(
        Evidence.SEALED_NO_CLOSE if sent[1 - endpoint] == Received.NONE else Evidence.SEALED for endpoint in range(2)
    )
    sure = tuple(Confidence.MEDIUM if e in CODES else None for e in evidence)
    both = sent[CLIENT] == sent[SERVER] == Received.NONE
    return silent._replace(
        initiator=Initiator.NONE if both else Initiator.UNKNOWN,
        sent=(sent[0], sent[1]),
        evidence=(evidence[0], evidence[1]),
        confidence=(sure[0], sure[1]),
    )
