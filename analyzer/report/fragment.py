"""Pieces of the page: cells, tables, and sentences whose identifiers keep their direction.

Text comes in as text and leaves escaped. What was captured goes through `visible` first, so that nothing of it acts,
hides or reverses what stands beside it.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from analyzer.knowledge.language import FALLBACK, Language
from analyzer.report.text import visible

MAX_CELL = 120
"""Longest captured text in a cell, in characters."""

DASH = "-"

ADDRESS = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<four>\d{1,3}(?:\.\d{1,3}){3})):(?P<port>\d{1,5})"
)
"""`ip:port`, IPv6 in brackets."""

LINK = re.compile(r"https?://[^\s;,<>\"']+[^\s;,<>\"'.)]")

IDENTIFIER = re.compile(
    r"(?P<address>https?://[^\s;,<>\"']+[^\s;,<>\"'.)])"
    r"|(?P<code>(?<![\w/.-])[A-Za-z][A-Za-z0-9]*(?:_[a-z0-9]+)+\b(?![/\\-]|\.\w)(?:\(\))?"
    r"|(?<![\w.])[a-zA-Z][\w.]{0,60}\((?:\d[^()\n]{0,40})?\)|(?<![\w-])--[a-z][a-z-]+)"
    r"|(?P<place>\[[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\](?::\d+)?|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?"
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?|(?<![\w/.<])/[\w.~%/?=&+-]+)"
)
"""What stands in sentences and has a direction of its own: names of fields and functions, addresses, times,
paths."""


class Cell(NamedTuple):
    """One cell of a table: what it shows, what it sorts by where that is not its text, and how it stands."""

    shown: str | Markup
    sort: str | float | int | None = None
    kind: str = ""


class Grid(NamedTuple):
    """One table.

    Attributes:
        caption: What it shows; read out, and seen where it has no heading right above.
        headings: Of the columns, with the kind that each column's cells have.
        rows: Of cells; the one in `row_heading` names the row.
        more: Says how much is left out, empty where nothing is.
        shows_caption: Whether the caption is seen.

    """

    caption: str
    headings: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    row_heading: int = 0
    more: str = ""
    shows_caption: bool = False


def said(text: object) -> Markup:
    """A sentence: English that stands in for another language is marked, identifiers keep their direction.

    What is mark-up already stays as it is.
    """
    if isinstance(text, Markup):
        return text
    whole = str(text)
    if whole.endswith(FALLBACK):
        return Markup('<span lang="en" dir="ltr">{}</span>').format(_with_identifiers(whole))
    return _with_identifiers(whole)


def _with_identifiers(text: str) -> Markup:
    shown, end = Markup(), 0
    for match in IDENTIFIER.finditer(text):
        shown += escape(text[end : match.start()]) + _identifier(match)
        end = match.end()
    return shown + escape(text[end:])


def _identifier(match: re.Match[str]) -> Markup:
    if match.lastgroup == "code" and match[0].startswith("--"):
        return Markup('<code class="option">{}</code>').format(match[0])
    if match.lastgroup == "code":
        return identifier(match[0])
    return Markup('<bdi dir="ltr">{}</bdi>').format(match[0])


def linked(text: str) -> Markup:
    """A source of ours, with its addresses as links; never for captured text, which must not lead anywhere."""
    shown, end = Markup(), 0
    for match in LINK.finditer(text):
        link = Markup('<a href="{0}" rel="noreferrer noopener" dir="ltr">{0}</a>').format(match[0])
        shown += said(text[end : match.start()]) + link
        end = match.end()
    return shown + said(text[end:])


def captured(text: object, *, most: int = MAX_CELL) -> Markup:
    """Captured text: nothing of it acts, and its direction is its own."""
    return Markup("<bdi>{}</bdi>").format(visible(text, most=most))


def identifier(text: object) -> Markup:
    """A name that programs use, such as an evidence's."""
    return Markup("<code>{}</code>").format(text)


def anchor(code: int | None, key: str) -> str:
    """The id of the text about views with this code and key."""
    return f"text-{'' if code is None else f'{code}-'}" + re.sub(r"[^A-Za-z0-9-]+", "-", key)


def wireshark_filter(client: str | None, server: str | None) -> str | None:
    """The display filter that shows one TCP connection in Wireshark, None where an address is not known.

    Args:
        client: `ip:port`, IPv6 in brackets.
        server: Likewise.

    """
    ends = [ADDRESS.fullmatch(address or "") for address in (client, server)]
    parts = []
    for field in ("address", "port"):
        for end in ends:
            if end is None:
                return None
            if field == "port":
                parts.append(f"tcp.port=={end['port']}")
            else:
                parts.append(f"ipv6.addr=={end['six']}" if end["six"] else f"ip.addr=={end['four']}")
    return " && ".join(parts)


def bar(share: float, provenance: str) -> Markup:
    """A bar as long as the share is of the whole."""
    width = max(1.0, 100 * share)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        '<rect width="{:.4g}" height="8" class="{}"/></svg>'
    ).format(width, provenance)


def instant(text: str | None) -> Markup:
    """A time to the millisecond."""
    if not text:
        return escape(DASH)
    return Markup('<time datetime="{0}" dir="ltr">{1} {2}</time>').format(text, text[:10], text[11:23])


def candidates(timers: list[dict[str, Any]], language: Language) -> Markup:
    """Every timer that has a value, with where that is documented."""
    items = Markup()
    for timer in timers:
        items += Markup("<li>{} <code>{}</code> ({}), {}</li>").format(
            timer["system"],
            timer["setting"],
            said(language.label(f"timer.{timer['kind']}")),
            _source(timer["source"], language),
        )
    return Markup('<ul class="candidates">{}</ul>').format(items)


def _source(source: str, language: Language) -> Markup:
    """A source in a list: a link in one word where it is one."""
    if not source.startswith("https://"):
        return said(source)
    word = said(language.label("field.source"))
    return Markup('<a href="{}" rel="noreferrer noopener">{}</a>').format(source, word)
