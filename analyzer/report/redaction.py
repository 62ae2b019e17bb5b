"""What is taken out of reports that leave the house: values of queries, tokens, addresses, in reasons and in paths."""

import ipaddress
import re
from typing import Any
from urllib.parse import unquote

from analyzer.report.text import MAX_SHOWN
from analyzer.table import Table

SECRET = re.compile(
    r"(?i)\b(?:bearer|basic)\s{1,3}[\w.~+/=-]{6,}"
    r"|\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?"
    r"|(?<=[=:])\s?(?:\"[^\"\n]{4,}(?:\"|$)|'[^'\n]{4,}(?:'|$))"
    r"|(?<=[=:])[^\s&;,\"']{6,}"
)
"""What looks like a credential: schemes, JSON Web Tokens, values after = or :."""

WORD = re.compile(r"[\w-]{20,}")
ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}")
IP_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{0,4})(?![\w:])"
)
NAMED = re.compile(
    r"(?i)\b((?:\w{0,20}[_-])?(?:token|key|secret|sid|session|passw(?:or)?d|pwd|auth|credential|cookie)s?)"
    r"(\s{0,2}[:=]\s{0,2}|\s)(?=\S{0,100}\d)\S{4,}"
)
"""What a word such as token or session names, where it holds a digit: "token expired" stays."""

QUERY = re.compile(r"[?#;]|%3[fFbB]|%23")
"""Where a path's parameters begin, percent-encoded or not."""

REASONS = ("reason", "client_close_reason", "server_close_reason", "goaway_reason", "subprotocol", "user_agent")
PATHS = ("path",)


def redact_path(path: str) -> str:
    """A request target without what its query says: names stay, values go."""
    match = QUERY.search(path[: 2 * MAX_SHOWN])
    if match is None:
        return redact(path)
    before, query = path[: match.start()], path[match.end() : 2 * MAX_SHOWN]
    names = [part.split("=")[0] + ("=…" if "=" in part else "") for part in re.split("[&;]", unquote(query))]
    return f"{redact(before)}{unquote(match[0])}{'&'.join(redact(name) for name in names)}"


def _is_mixed(match: re.Match[str]) -> str:
    """A long word of letters and digits looks like a token; one of letters alone, or digits alone, does not."""
    word = match[0]
    return "…" if any(c.isdigit() for c in word) and any(c.isalpha() for c in word) else word


def _is_address(match: re.Match[str]) -> str:
    """An address goes, a time of day such as 12:30:45 stays."""
    try:
        ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return "…"


def redact(text: str) -> str:
    """Free text without what looks like a token, a password or an address.

    Text beyond twice what is shown is cut off first: a hostile reason must not cost time.
    """
    text = IP_ADDRESS.sub(_is_address, text[: 2 * MAX_SHOWN])  # before a colon in an address makes the rest a secret
    text = NAMED.sub(r"\1\2…", text)
    return ADDRESS.sub("…@…", WORD.sub(_is_mixed, SECRET.sub("…", text)))


SHOWN = {"path": redact_path, "subprotocol": redact}
"""How values of dimensions are shown that may hold what is redacted."""


def redact_table(table: Table) -> Table:
    """Rows with their reasons and paths redacted."""
    columns = {column.name: table[column.name] for column in table.schema}
    for names, clean in ((REASONS, redact), (PATHS, redact_path)):
        for name in names:
            if name in columns:
                columns[name] = [text and clean(text) for text in columns[name]]
    return Table(table.schema, columns, n_rows=len(table))


def redacted(document: dict[str, Any]) -> dict[str, Any]:
    """A report document with its reasons and paths redacted; the document itself stays as it is."""
    clean = {name: _clean(value) for name, value in document.items()}
    clean["redacted"] = True
    for entry in clean["by"]:
        if entry["dimension"] in SHOWN:
            entry["value"] = SHOWN[entry["dimension"]](entry["value"])
    for entry in clean["codes"]:
        for dimension, show in SHOWN.items():
            for part in entry.get(dimension, ()):
                part["value"] = show(part["value"])
    return clean


def _clean(value: Any) -> Any:
    """A copy in which members that hold a reason or a path are redacted."""
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if not isinstance(value, dict):
        return value
    copy = {}
    for name, member in value.items():
        if isinstance(member, str):
            copy[name] = redact(member) if name in REASONS else redact_path(member) if name in PATHS else member
        else:
            copy[name] = _clean(member)
    return copy
