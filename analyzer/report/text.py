"""Captured text made safe to show: for terminals and for CSV cells."""

import unicodedata

MAX_SHOWN = 200
"""Longest captured text that a report shows, in characters."""

UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control, format (bidirectional overrides, zero width), surrogates, private, unassigned, line separators."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters that make a spreadsheet evaluate a cell (OWASP, CSV injection)."""


def record_name(record: int | None, evidence: str) -> str:
    """Where the evidence stands in its file: `packet 12`, or `line 12` of a log; empty where nowhere."""
    if not record:
        return ""
    return f"{'line' if evidence.startswith('log_') else 'packet'} {record}"


def visible(text: object, *, most: int = MAX_SHOWN) -> str:
    """Text in which nothing moves a cursor, hides or reverses: such characters are shown as escapes.

    Args:
        text: Anything; its `str` is shown.
        most: Longest text that is shown whole, in characters.
    """
    shown = str(text)
    if len(shown) > most:
        shown = shown[: most - 1] + "…"
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        char
        if unicodedata.category(char) not in UNSAFE_CATEGORIES
        else (f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{{{ord(char):x}}}")
        for char in shown
    )


def csv_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula, nor a terminal for a command; a quote stands before the former."""
    shown = visible(text, most=len(text) + 1)
    return f"'{shown}" if text.startswith(FORMULA_STARTS) else shown
