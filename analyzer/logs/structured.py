"""The rule for logs of systems that have no format here: members and key=value pairs that name a close code.

Taken are JSON, logfmt, key=value, printed JavaScript objects, and the plain sentence "closed with code 1006", and only
where the record says that it is about a WebSocket and about its end. Whose rule the code follows is not known, so 1005
and 1006 are `inferred`. `docs/log_formats.md` lists the names.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from analyzer.logs.record import Record
from analyzer.logs.statement import Statement
from analyzer.logs.timestamp import Clock
from analyzer.model import Initiator, Received
from analyzer.verdict.statement import Means, Said, View, decide

NAMES = {
    "code": "closecode wsclosecode websocketclosecode websocketcode wscode closestatus closestatuscode closereasoncode "
    "closeeventcode disconnectcode disconnectstatuscode eventcode",
    "plain": "code status statuscode",
    "reason": "reason closereason wsclosereason websocketclosereason closemessage closetext closestatusdescription",
    "clean": "wasclean clean closewasclean",
    "initiator": "initiator initiatedby closedby closeinitiator",
    "sent": "sentcode sentclosecode localclosecode",
}
"""What members are called, without case and punctuation: `close_code`, `closeCode` and `close.code` are one. `plain`
names mean a close code only where the record speaks of a close."""

KINDS = {name: kind for kind, names in NAMES.items() for name in names.split()}
MAX_NAMES = 4096

PHRASES = (
    *("wasclean", "was_clean", "closecode", "close_code", "close code", "close.code", "close-code", "close status"),
    *("closestatus", "close_status", "ws_close", "ws close", "ws.close", "wsclose", "ws disconnect", "ws_disconnect"),
    *("websocket close", "websocket_close", "websocket.close", "websocket connection close", "websocket disconnect"),
    *("websocket_disconnect", "websocket.disconnect", "websocket connection", "websocket was close", "websocket error"),
    *("websocket is close", "closed websocket", "socket closed", "socket close", "closeevent"),
    *("with code 1", "with code 3", "with code 4", "with code: ", "code=1", "code=3", "code=4", "disconnect_code"),
    *("with status code 1", "with status 1", "websocket for ", "server, code 1", "closed: 1", "closed: 4", "closed (1"),
    *("socket was closed", "socket disconnect", "closed - [1", "closed. reason", "connection closed (code"),
    *("disconnected (1", "disconnected (4", "disconnected 1", "disconnected 4", "closed (4"),
)
"""What such lines hold, in any case."""

LITERALS = tuple(one for one in PHRASES if not any(other in one and other != one for other in PHRASES))
"""Of these the shortest: what holds a longer one holds it too."""

CONTEXT = re.compile(r"web[ _-]?socket|\bwss?\b|\bwss?[_.:]|\bws(?=[A-Z])|closeevent|socket\.io|sockjs", re.IGNORECASE)
CLOSING = re.compile(
    r"(?:\b|_|\.)(?:un)?(?:clos(?:e|ed|ure|es)|disconnect(?!ing\b)\w*|terminated|lost)(?:\b|_|\.)|[a-z]Close|closeevent",
    re.IGNORECASE,
)
NEVER_OPENED = re.compile(
    r"handshake|upgrade (?:fail|reject|refus)|unexpected (?:server )?response|bad response"
    r"|econnrefused|enotfound|eai_again|err_(?:connection_refused|name_not_resolved)|before the connection is"
    r"|(?:failed to|could not|unable to|cannot|can.t|error while) connect|connect(?:ion)? (?:refused|failed)"
    r"|failed to establish|already (?:in )?clos"
    # what is asked for, about to happen, or only thought of is no end yet
    r"|[\"']type[\"']: ?[\"']websocket\.close[\"']|\bclose (?:open|all|every|any)\b"
    r"|\b(?:if|unless|whenever|in case)\b[^\n]{0,12}?\b(?:web[ _-]?socket|wss?|socket|connection)\b[^\n]{0,20}?"
    r"\b(?:(?:is|was|gets|has been) (?:clos|disconnect)|closes|disconnects)"
    r"|\A(?![\s\S]{0,4000}?(?:(?<!be )(?<!being )\b(?:closed|disconnected|terminated|lost)\b|on_?close"
    r"|(?:ws|socket)[._ ](?:close|disconnect)\b(?! request)|^(?:close|disconnect)$))[\s\S]{0,4000}?"
    r"(?:\b(?:closing|disconnecting|terminating)\b|\b(?:clos(?:e|ing|ure)|disconnect\w{0,3})\b[^\n]{0,12}?\brequest"
    r"|\brequest\w{0,3}\b[^\n]{0,20}?\b(?:clos(?:e|ing|ure)|disconnect\w{0,3})\b"
    r"|\b(?:will|would|should|must|to|be|being) (?:now |be )?(?:clos|disconnect|terminat)\w{1,4}\b)",
    re.IGNORECASE | re.MULTILINE,
)

PAIR = re.compile(
    r"(?<![\w.\"'-])[\"']?([A-Za-z][\w.-]{0,40})[\"']?\s{0,2}[=:]\s{0,2}"
    r"(\"(?:[^\"\\\n]|\\.){0,500}\"|'(?:[^'\\\n]|\\.){0,500}'|[^\s,;(){}\[\]\"']{1,200})"
)
CODE_VALUE = re.compile(r"[=:]\s{0,2}[\"']?[1-4]\d{3}(?!\w)")
"""No record without this has a pair worth looking for."""

SENTENCE = re.compile(
    r"\b(?:clos(?:e|ed|ure)|disconnect(?:ed|ion)?|lost|terminated)\b(?:(?!\b(?:sockets|connections)\b)[^\n\d]){0,60}?"
    r"\b(?:code|status)[ :=(#\[]{1,3}(1(?:00[0-35-9]|01[0-5])|[34]\d{3})\b"
    r"|\b(?:web ?socket|ws|socket|connection)\b"
    r"(?:(?!\b(?:web ?sockets|sockets|sessions|connections|clients|users|peers|streams|total|count)\b)[^\n\d]){0,40}?"
    r"\b(?:closed|disconnected)\b[^\n\d\w]{0,4}"
    r"(?:(?:code|reason|error)\b[^\n\d\w]{0,4})?(1(?:00[0-35-9]|01[0-5])|[34]\d{3})\b"
    r"|\bclose (?:code|status)[ :=(\[]{1,3}(1(?:00[0-35-9]|01[0-5])|[34]\d{3})\b",
    re.IGNORECASE,
)
"""`closed with code 1006`, `WebSocket closed: 1006`, `Web socket closed - [1006 - ]`, `close code 1006`."""

NOT_A_CODE = re.compile(
    r"\s{0,2}(?:ms\b|milli|s\b|sec|min|byte|conn|client|user|time|session|[A-Za-z]*sockets?\b|[:.]\d|%|/ ?\d"
    r"|of\b|in total|total|times|left\b|open\b|still\b|more\b|remain|idle\b|stale\b|active\b|old\b|peers|channels"
    r"|streams|rooms|messages|frames|packets|requests|events|tasks|files|objects|records|jobs|subscri)"
)
REASON = re.compile(r"[\s,;:)-]{0,4}(?:\(([^()\n]{1,200})\)|(?:reason|because)[ :=]{1,3}[\"']?([^\"'\n]{1,200}))")


class Found(NamedTuple):
    """What the pairs of a record say."""

    code: int
    reason: str | None = None
    initiator: str | None = None
    sent_code: int | None = None
    is_sure: bool = False


def read(record: Record, _clock: Clock) -> Statement | None:
    """What a record of an unknown system says about a close, None where it says none."""
    text, objects, _ = record
    if any("provenance" in one and "evidence" in one for one in objects):
        return None  # what this program wrote about other logs
    found, pairs = _find_pairs(text, objects)
    if found is None:
        found = _find_sentence(text)
        if found is None:
            return None
    if not found.is_sure:
        if CONTEXT.search(text) is None and not any(CONTEXT.search(name) for name in pairs):
            return None
        if CLOSING.search(text) is None and not any(CLOSING.search(name) for name in pairs):
            return None
    if NEVER_OPENED.search(text) is not None:
        return None
    return Statement(_view(found.code, (found.initiator or "").lower(), found.sent_code), reason=found.reason)


@functools.lru_cache(maxsize=1024)
def _view(code: int, initiator: str, sent_code: int | None) -> View:
    sent = Received.UNKNOWN if sent_code is None else Received.STATUS
    by = initiator if initiator in ("client", "server", "local", "remote") else Initiator.UNKNOWN
    return decide(Said(None, Means.STATED, code, sent, sent_code, initiator=by, is_known=False))


def _find_pairs(text: str, objects: list[dict[str, Any]]) -> tuple[Found | None, Mapping[str, Any]]:
    """What members, or key=value pairs of the text, say; and all of them."""
    for one in objects:
        found = _find(one)
        if found is not None:
            return found, one
    if CODE_VALUE.search(text) is None:
        return None, {}
    pairs: dict[str, Any] = {}
    for name, value in PAIR.findall(text):
        pairs.setdefault(name, value[1:-1] if value[0] in "\"'" else value)
    return _find(pairs), pairs


def _find(pairs: Mapping[str, Any]) -> Found | None:
    """The close code among pairs; one under a name that says so goes before a plain `code`."""
    kinds: dict[str, Any] = {}
    for name, value in pairs.items():
        kind = _kind(name)
        if kind is not None and kinds.get(kind) is None:
            kinds[kind] = value
    code = _code(kinds.get("code"))
    if code is None:
        code = _code(kinds.get("plain"))
    if code is None:
        return None
    return Found(
        code, _text(kinds.get("reason")), _text(kinds.get("initiator")), _code(kinds.get("sent")), "clean" in kinds
    )


def _kind(name: str) -> str | None:
    """What a member of this name holds, None for what is none of NAMES."""
    try:
        return _KINDS_SEEN[name]
    except KeyError:
        if len(_KINDS_SEEN) >= MAX_NAMES:
            _KINDS_SEEN.clear()
        kind = _KINDS_SEEN[name] = KINDS.get(re.sub(r"[^a-z]", "", name[:60].lower()))
        return kind


_KINDS_SEEN: dict[str, str | None] = {}


def _find_sentence(text: str) -> Found | None:
    match = SENTENCE.search(text)
    if match is None or NOT_A_CODE.match(text, match.end()):
        return None
    code = _code(match[match.lastindex or 1])
    if code is None:
        return None
    said = REASON.match(text, match.end())
    return Found(code, None if said is None else (said[1] or said[2]).strip())


def _code(value: Any) -> int | None:
    """A close code, as number or digits; None for HTTP statuses, timings and all else."""
    if type(value) is int:
        return value if 1000 <= value <= 4999 else None
    if not isinstance(value, str | float):
        return None
    digits = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    if len(digits) != 4 or not digits.isascii() or not digits.isdigit():
        return None
    return int(digits) if 1000 <= int(digits) <= 4999 else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, dict | list):
        return None
    text = str(value)
    return "" if text in ("null", "None", "undefined") else text[:500]
