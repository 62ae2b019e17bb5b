"""Captured text made safe to show: for terminals, for CSV cells, and redacted for what is passed on."""

import re
import unicodedata

MAX_SHOWN = 200
"""Longest captured text that a report shows, in characters."""

UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control, format (bidirectional overrides, zero width), surrogates, private, unassigned, line separators."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters that make a spreadsheet evaluate a cell (OWASP, CSV injection)."""

SECRET = re.compile(
    r"(?i)\b(?:bearer|basic)\s+[\w.~+/=-]{6,}"
    r"|\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?"
    r"|(?<=[=:])[^\s&;,\"']{6,}(?=$|[\s&;,\"'])"
    r"|\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}\b"
)
"""What looks like a credential: schemes, JSON Web Tokens, values after = or :, long mixed words."""


def plural(n: int, noun: str) -> str:
    """A count with its noun: `1 file`, `2 files`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def visible(text: object) -> str:
    """Text in which nothing moves a cursor, hides or reverses: such characters are shown as escapes."""
    shown = str(text)
    if len(shown) > MAX_SHOWN:
        shown = shown[: MAX_SHOWN - 1] + "…"
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        char
        if unicodedata.category(char) not in UNSAFE_CATEGORIES
        else (f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{{{ord(char):x}}}")
        for char in shown
    )


def csv_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: a quote stands before what would begin one."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def redact_path(path: str) -> str:
    """A request target without what its query says: names stay, values go."""
    before, mark, query = path.partition("?")
    if not mark:
        return redact(before)
    names = [part.split("=")[0] + ("=…" if "=" in part else "") for part in query.split("&")]
    return f"{redact(before)}?{'&'.join(redact(name) for name in names)}"


def redact(text: str) -> str:
    """Free text without what looks like a token, a password or an address of a person."""
    text = SECRET.sub("…", text)
    return re.sub(r"[\w.+-]+@[\w-]+\.[\w.-]+", "…@…", text)
