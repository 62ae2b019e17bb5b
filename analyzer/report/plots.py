"""Pictures of closes and connections with matplotlib: each function takes a table, draws on an Axes and returns it.

A table has one row per view or connection, as `Analysis.closes` and `Analysis.connections`, or one per group of them
with their number in a column `count`. Views of clients and servers are never summed: each endpoint has a lane of its
own. What a plot leaves out stands under its title.

Where no Axes is given, the figure is white, of its own size, and not one of pyplot's: it shows itself in a notebook,
and nothing of it stays behind. On a given Axes only text and data are ours; its own style holds. Colours are those of
Okabe and Ito with hatches beside them, so that grey print and colour-blind readers lose nothing. The Axes' label
(`Axes.get_label`) says in words what the plot shows; `save_figure` writes it into an SVG.
"""

import contextlib
import functools
import io
import itertools
import math
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.sax.saxutils import escape

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib import dates, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from analyzer.knowledge import catalogue, timers
from analyzer.knowledge import language as languages
from analyzer.knowledge.language import Language
from analyzer.model import End, Endpoint, Handshake, Initiator, Provenance
from analyzer.report.counts import NEVER_OPENED, bucket
from analyzer.report.series import STEPS_NS, TIMER_KINDS, TIMER_NEAR, TIMER_TIMES, TIMER_TOLERANCE
from analyzer.report.text import visible
from analyzer.selection import parse_step

FAMILIES = (
    *("DejaVu Sans", "Noto Sans", "Noto Sans Thai", "Noto Looped Thai", "Noto Sans Arabic", "Noto Naskh Arabic"),
    *("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("Thonburi", "Geeza Pro", "PingFang SC", "Heiti TC"),  # macOS
    *("Leelawadee UI", "Segoe UI", "Microsoft YaHei", "SimHei"),  # Windows
)
"""Fonts for the six languages, in the order in which a character is looked for; those that exist here are used."""

STYLE: dict[Any, Any] = {
    "text.usetex": False,
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
    "xtick.color": "0.25",
    "ytick.color": "0.25",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.4,
    "hatch.linewidth": 0.8,
}
SAVED: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "wsclose",
    "pdf.fonttype": 42,
    "figure.dpi": 100,
    "savefig.dpi": 120,
}
FORMS = ("png", "svg", "pdf")
FIGURE_INCHES = (8.0, 4.5)
GRID: dict[str, Any] = {"color": "0.5", "alpha": 0.25}
NOTE = "0.4"
"""Grey of what is said beside the data."""


class Look(NamedTuple):
    """How an area is filled; `ink` is the colour of its hatch."""

    colour: str
    hatch: str
    ink: str


PROVENANCE_LOOKS = {
    Provenance.WIRE: Look("#009E73", "", "white"),
    Provenance.SYNTHESIZED: Look("#E69F00", "////", "white"),
    Provenance.REPORTED: Look("#56B4E9", "....", "#000000"),
    Provenance.INFERRED: Look("#CC79A7", "xxxx", "white"),
    Provenance.UNDETERMINED: Look("#D9D9D9", r"\\\\", "#777777"),
}
"""The colours of a provenance on a terminal, as far as Okabe and Ito have them."""

CODE_LOOKS = {
    1000: Look("#56B4E9", "", "white"),
    1001: Look("#009E73", "////", "white"),
    1005: Look("#F0E442", "....", "#555555"),
    1006: Look("#D55E00", "", "white"),
    1011: Look("#CC79A7", r"\\\\", "#333333"),
}
"""Codes that look the same in every plot."""

SPARE_LOOKS = (
    Look("#0072B2", "xxxx", "white"),
    Look("#E69F00", "||||", "#333333"),
    Look("#000000", "", "white"),
    Look("#56B4E9", "xxxx", "#333333"),
    Look("#009E73", "oooo", "white"),
    Look("#CC79A7", "++++", "#333333"),
    Look("#F0E442", "||||", "#333333"),
)
ALL_LOOK = Look("#0072B2", "", "white")
OTHER_LOOK = Look("#BFBFBF", "----", "#555555")
NO_CODE_LOOK = Look("#DDDDDD", "////", "#666666")
NEVER_OPENED_LOOK = Look("#DDDDDD", "xxxx", "#000000")

ALL, OTHER, NO_CODE, ILLEGAL, UNOPENED = "all", "other", "no_code", "illegal", "never_opened"
"""What a bar stands for where it is no single code."""

LEAST_S = 0.001
"""Shorter times stand at one millisecond: a logarithmic axis has no zero."""

STEPS_SHOWN = 90
"""Most steps of a timeline where none was asked for."""

STEPS_LIMIT = 5000
"""Most steps of a timeline."""

BINS_SHOWN = (60, 140)
BINS_PER_DECADE = (12, 50)
"""A distribution has about so many bins, with few and with many ends, and so many in a factor of ten."""

MARKS_SHOWN = 6
"""Most timers that are marked: those with most ends."""

FEW = 20
"""Up to as many ends, a single one near a timer is marked; with more, as many as the report asks for."""

WORDS_SHOWN = 2000
"""Longest text that says what a plot shows, in characters."""

LIFE_ROWS = 32
"""Lines of a sequence diagram; what is more is put together."""

PAUSES = ((1.0, 0.02), (0.1, 0.2))
"""A pause is marked where it is as long as one of these in seconds, and this share of the whole life."""

RIGHT_TO_LEFT_MARK = "\u200f"

Table = pd.DataFrame
_dates: Any = dates  # its functions carry no types
Pathish = str | PathLike[str]


class PlotFigure(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        save_figure(self, out, form="png")
        return out.getvalue()


class PlotAxes(Axes):
    """An Axes that a notebook shows as its figure: plot functions return one."""

    def _repr_png_(self) -> bytes | None:
        figure = _root(self)
        return figure._repr_png_() if isinstance(figure, PlotFigure) else None


def _root(ax: Axes) -> Any:
    """The figure of an Axes; where it stands in a subfigure, that subfigure's."""
    return ax.figure.figure


@functools.cache
def _families() -> list[str]:
    """Fonts of FAMILIES that exist here: matplotlib complains about each that does not."""
    known = set(font_manager.get_font_names())
    return [name for name in FAMILIES if name in known]


@contextlib.contextmanager
def _style(ax: Axes | None) -> Iterator[None]:
    """Draw with our style, whatever the global one is; on a given Axes with its own, but our fonts."""
    ours = {**STYLE, "font.family": _families()}
    if ax is not None:
        ours = {name: ours[name] for name in ("font.family", "text.usetex", "text.parse_math", "hatch.linewidth")}
        with mpl.rc_context(ours):
            yield
        return
    with matplotlib.style.context(["default", ours]):
        yield


def _axes(ax: Axes | None, size: tuple[float, float] = FIGURE_INCHES) -> Axes:
    if ax is None:
        figure = PlotFigure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)  # with the canvas that it begins with, a figure can be saved, but not drawn
        ax = figure.add_subplot(axes_class=PlotAxes)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", labelfontfamily=_families())
    return ax


def save_figure(
    figure: Figure,
    file: Pathish | BinaryIO,
    *,
    form: str | None = None,
    language: Language | None = None,
) -> None:
    """Write a figure: the same input gives the same bytes, with the same matplotlib and fonts.

    An SVG keeps its text as text, so that a browser chooses fonts and shapes them, and carries what the plot shows in
    words (`title` and `desc`).

    Args:
        figure: From a plot function: `ax.figure`.
        file: A path, or a binary file.
        form: `png`, `svg` or `pdf`; None takes it from the path's ending.
        language: The language that the figure was drawn in, named in an SVG.

    Raises:
        ValueError: No such form.

    """
    if form is None:
        form = Path(file).suffix.lower().removeprefix(".") if isinstance(file, str | PathLike) else "png"
    if form not in FORMS:
        raise ValueError(f"{form}: a figure is saved as {', '.join(FORMS)}")
    title, about = _words_of(figure)
    metadata: dict[str, Any] = {
        "png": {"Software": None, "Title": title, "Description": about},
        "svg": {"Date": None, "Creator": None, "Title": title},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Title": title},
    }[form]
    out = io.BytesIO()
    style = {**SAVED, "font.family": _families()}
    with matplotlib.style.context(["default", style]), warnings.catch_warnings():
        if form == "svg":  # a browser has its own fonts: it matters little that this machine lacks one
            warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(out, format=form, metadata={k: v for k, v in metadata.items() if v != ""})
    data = out.getvalue()
    if form == "svg":
        data = _with_words(data.decode("utf-8"), title, about, language).encode("utf-8")
    if isinstance(file, str | PathLike):
        Path(file).write_bytes(data)
    else:
        file.write(data)


def _words_of(figure: Figure) -> tuple[str, str]:
    titles = [ax.get_title(where) for ax in figure.axes for where in ("left", "center", "right") if ax.get_title(where)]
    about = [str(ax.get_label()) for ax in figure.axes if ax.get_label()]
    return "; ".join(titles), " ".join(about)


def _with_words(svg: str, title: str, about: str, language: Language | None) -> str:
    """The SVG as one picture with a name and a description for those who do not see it.

    Its direction is always ltr, also within a page that is not: text is anchored by it. Only within a text does the
    browser find the direction by itself.
    """
    code = "en" if language is None else language.code
    head, _, rest = svg.partition("<svg ")
    opening, _, body = rest.partition(">")
    if title:
        _, _, body = body.partition("</title>")
    if language is not None and language.direction == "rtl":
        body = body.replace("<text ", '<text unicode-bidi="plaintext" ')
    words = "".join(f"\n <{tag}>{escape(text)}</{tag}>" for tag, text in (("title", title), ("desc", about)) if text)
    return f'{head}<svg role="img" lang="{code}" xml:lang="{code}" direction="ltr" {opening}>{words}{body}'


def _english(language: Language | None) -> Language:
    return languages.load("en") if language is None else language


def _word(language: Language, group: str, value: object) -> str:
    """A word of an enum in this language, else as it stands in the data."""
    if value is None:
        return language.label("plot.unknown")
    key = f"{group}.{value}"
    return language.label(key) if language.has(key) else visible(value, most=40)


def _span(language: Language, seconds: float) -> str:
    """A length of time in its largest whole unit: `90 s`, `5 min`, `2 h`."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds == size or (seconds >= 2 * size and seconds % size == 0):
            return language.label(f"plot.{unit}", n=language.number(round(seconds / size)))
    return language.label("plot.second", n=_plain(language, seconds))


def _plain(language: Language, value: float) -> str:
    """A number with as many digits as it needs, up to three behind the point below 1 and fewer above."""
    digits = 0 if value >= 100 or value == int(value) else 3 if value < 1 else 1
    return language.decimal(value, digits) if digits else language.number(round(value))


def _tick_seconds(language: Language, value: float, _: int | None = None) -> str:
    digits = max(0, -math.floor(math.log10(value) + 1e-9)) if value > 0 else 0
    return language.decimal(value, digits) if digits else language.number(round(value))


def _columns_of(text: str) -> int:
    """Cells of a terminal that a text takes, a measure of its width."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _cut(text: str, width: int) -> list[str]:
    """A text in pieces that each fit."""
    if _columns_of(text) <= width:
        return [text]
    pieces = [""]
    for char in text:
        if _columns_of(pieces[-1]) + _columns_of(char) > width:
            pieces.append("")
        pieces[-1] += char
    return pieces


def _wrap(parts: Iterable[str], width: int) -> str:
    """Parts one behind the other, a new line where the next one would not fit; one that never would is cut."""
    lines: list[str] = []
    for part in (piece for whole in parts for piece in _cut(whole, width)):
        if lines and _columns_of(lines[-1]) + 1 + _columns_of(part) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return "\n".join(lines)


def _take(table: Table, plot: str, needed: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """The columns that a plot uses, and `count`: 1 for each row where the table has none.

    Raises:
        ValueError: A needed column is missing.

    """
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise ValueError(f"{plot}: the table has no column {', '.join(missing)}")
    taken = pd.DataFrame(index=range(len(table)))
    for name in (*needed, *(name for name in optional if name in table.columns)):
        column = table[name].reset_index(drop=True)
        if name.endswith("code"):
            taken[name] = pd.to_numeric(column.astype(object).where(column.notna(), None)).astype("Int64")
        elif name.endswith(("_s", "_bytes")):
            taken[name] = pd.to_numeric(column).astype("float64")
        elif name == "time":
            taken[name] = pd.to_datetime(column, utc=True, format="ISO8601").astype("datetime64[ns, UTC]")
        else:
            taken[name] = column.astype(object).where(column.notna(), None)
    if "count" in table.columns:
        taken["count"] = pd.to_numeric(table["count"]).fillna(0).astype("int64").to_numpy()
    else:
        taken["count"] = 1
    return taken


def _counted(table: Table, columns: Sequence[str]) -> dict[tuple[Any, ...], int]:
    """Sums of `count` by the values of these columns; null is None."""
    if table.empty:
        return {}
    sums = table.groupby(list(columns), dropna=False, sort=False)["count"].sum()
    return {tuple(_value(part) for part in _tuple(key)): int(n) for key, n in sums.items() if n}


def _tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _value(part: Any) -> Any:
    if part is None or part is pd.NA or part != part:
        return None
    return int(part) if isinstance(part, np.integer) else part


def _in_order(values: Iterable[Any], order: Iterable[str]) -> list[Any]:
    """Values as an enum orders them, unknown ones behind, None last."""
    known = {str(value): place for place, value in enumerate(order)}
    return sorted(set(values), key=lambda v: (v is None, known.get(str(v), len(known)), str(v)))


def _never_opened(table: Table) -> pd.Series:
    """Which rows tell of connections that were never established, as far as the table says."""
    hidden = pd.Series(False, index=table.index)
    if "evidence" in table.columns:
        hidden |= table["evidence"].isin([str(value) for value in NEVER_OPENED])
    if "handshake" in table.columns:
        hidden |= table["handshake"].isin([str(Handshake.REJECTED), str(Handshake.FAILED)])
    return hidden


def _below(ax: Axes, points: float) -> Any:
    """The Axes' own coordinates, so many points further down."""
    return ax.transAxes + ScaledTranslation(0, -points / 72, ax.figure.dpi_scale_trans)


def _width_points(ax: Axes) -> float:
    """Width of the Axes; what the layout will make of it where that is ours and comes only when it is drawn."""
    figure = _root(ax)
    if isinstance(figure, PlotFigure):
        return float(figure.get_size_inches()[0]) * 72 * 0.88
    return float(ax.get_window_extent().width) / ax.figure.dpi * 72


def _label_axes(ax: Axes, below: str, beside: str) -> None:
    """Label both axes; the one that stands upright is broken where it would be longer than its axis."""
    figure = _root(ax)
    is_ours = isinstance(figure, PlotFigure)
    inches = figure.get_size_inches()[1] * 0.65 if is_ours else ax.get_window_extent().height / ax.figure.dpi
    ax.set_xlabel(below)
    ax.set_ylabel(_wrap(beside.split(" "), max(8, int(inches * 72 / 5.4))))


def _title(ax: Axes, language: Language, title: str, notes: Iterable[str], *, rows_above: int = 0) -> None:
    """A title with notes under it, on the side where this language begins to read.

    Args:
        ax: Where to.
        language: For its direction.
        title: Lines are broken where they would be too long; so are those of notes.
        notes: Empty ones are left out.
        rows_above: Rows of text that stand between the notes and the Axes.

    """
    is_rtl = language.direction == "rtl"
    text = _wrap("; ".join(note for note in notes if note).split(" "), int(_width_points(ax) / 4.4))
    above = 11.0 * rows_above + 6
    ax.set_title(
        _wrap(title.split(" "), int(_width_points(ax) / 6.6)),
        loc="right" if is_rtl else "left",
        pad=above + (12.5 * (text.count("\n") + 1) if text else 2),
        parse_math=False,
    )
    if text:
        ax.annotate(
            text,
            xy=(1 if is_rtl else 0, 1),
            xycoords="axes fraction",
            xytext=(0, above),
            textcoords="offset points",
            ha="right" if is_rtl else "left",
            va="bottom",
            fontsize=8,
            color=NOTE,
            parse_math=False,
            annotation_clip=False,
        )


def _legend(ax: Axes, handles: Sequence[Any], title: str, *, below: float, columns: int | None = None) -> float:
    """Put a legend under the Axes; returns how far down it reaches, in points."""
    labels = [str(handle.get_label()) for handle in handles]
    if columns is None:
        columns = _fitting_columns([_columns_of(label) * 4.6 + 32 for label in labels], _width_points(ax))
    legend = Legend(
        ax,
        list(handles),
        labels,
        title=title,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=_below(ax, below),
        ncols=columns,
        borderaxespad=0,
        borderpad=0,
        alignment="left",
        title_fontsize=8,
        fontsize=8,
        frameon=False,
        handleheight=0.9,
    )
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)
    legend.get_title().set_color(NOTE)
    legend.set_clip_on(False)  # else the layout leaves no room for it
    ax.add_artist(legend)
    n_lines = -(-len(labels) // columns)
    return below + 14 + n_lines * 13.8


def _fitting_columns(widths: Sequence[float], available: float) -> int:
    """Into how many columns entries of these widths go, with no more lines than are needed."""
    for n_lines in range(1, len(widths) + 1):
        n = -(-len(widths) // n_lines)
        columns = np.array_split(np.array(widths), n)  # as Legend does it
        if sum(float(column.max()) for column in columns) <= available:
            return n
    return 1


def _empty(ax: Axes, language: Language) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.text(0.5, 0.5, language.label("plot.empty"), transform=ax.transAxes, ha="center", va="center", color=NOTE)


def _patch(look: Look, label: str) -> Patch:
    return Patch(facecolor=look.colour, hatch=look.hatch, edgecolor=look.ink, linewidth=0, label=label)


def _axis_numbers(language: Language) -> FuncFormatter:
    return FuncFormatter(functools.partial(_tick_number, language))  # a lambda would keep a figure from being pickled


def _tick_number(language: Language, value: float, _: int | None = None) -> str:
    return language.number(round(value))


def _listed(pairs: Iterable[tuple[str, int]], language: Language) -> str:
    return ", ".join(f"{name} {language.number(n)}" for name, n in pairs)


def _left_out(language: Language, key: str, table: Table) -> str:
    """A note on rows that are not shown, for each endpoint by itself; empty where there are none."""
    total = int(table["count"].sum())
    if not total:
        return ""
    counts = language.number(total)
    if "endpoint" in table.columns:
        found = {key[0]: n for key, n in _counted(table, ["endpoint"]).items()}
        counts = _listed(((_word(language, "endpoint", e), found[e]) for e in _in_order(found, Endpoint)), language)
    return language.label(f"plot.{key}", counts=counts)


def _describe(ax: Axes, title: str, parts: Iterable[str]) -> None:
    ax.set_label(". ".join(part for part in (title, *parts) if part)[:WORDS_SHOWN])


def _sized(lanes: int) -> tuple[float, float]:
    return FIGURE_INCHES[0], FIGURE_INCHES[1] + 1.3 * max(0, lanes - 2)


class _Bar(NamedTuple):
    name: str
    counts: dict[str, int]
    shared: bool  # counts into the shares

    @property
    def n(self) -> int:
        return sum(self.counts.values())


def plot_codes(
    closes: Table,
    ax: Axes | None = None,
    *,
    top: int = 7,
    title: str | None = None,
    language: Language | None = None,
) -> Axes:
    """Draw how often each code was reported, by how it is known; each endpoint's views for themselves.

    Shares are within one endpoint, over established connections. A code that no endpoint may send, yet stood on the
    wire, has a bar of its own.

    Args:
        closes: Columns endpoint, code, provenance; evidence tells what was never opened.
        ax: Where to draw, None for a figure of its own.
        top: Codes of each endpoint with bars of their own; the rest is one bar.
        title: Instead of ours.
        language: English where none is given.

    Raises:
        ValueError: A column is missing.

    """
    table = _take(closes, "plot_codes", ("endpoint", "code", "provenance"), ("evidence",))
    language = _english(language)
    columns = [name for name in ("endpoint", "code", "provenance", "evidence") if name in table.columns]
    found: dict[str | None, dict[Any, dict[str, int]]] = {}
    for key, n in _counted(table, columns).items():
        view = dict(zip(columns, key, strict=True))
        # a proxy's views have a lane of their own, so its codes may stand as others'
        kind = bucket("", view["code"], view["provenance"] or "", view.get("evidence") or "")
        named = {"undetermined": NO_CODE, "never_opened": UNOPENED}.get(kind, (kind == ILLEGAL, view["code"]))
        counts = found.setdefault(view["endpoint"], {}).setdefault(named, {})
        provenance = view["provenance"] or str(Provenance.UNDETERMINED)
        counts[provenance] = counts.get(provenance, 0) + n
    lanes = {endpoint: _code_bars(found[endpoint], top, language) for endpoint in _in_order(found, Endpoint)}
    n_rows = sum(len(bars) + 1 for bars in lanes.values())
    with _style(ax):
        ax = _axes(ax, (FIGURE_INCHES[0], min(14.0, max(3.0, 1.5 + 0.24 * n_rows))))
        title = language.label("plot.codes_title") if title is None else visible(title)
        _label_axes(ax, language.label("plot.views_axis"), language.label("plot.code_axis"))
        words = list(_draw_code_bars(ax, lanes, language))
        _title(ax, language, title, [language.label("plot.codes_note")] if words else [])
        _describe(ax, title, words or [language.label("plot.empty")])
    return ax


def _code_bars(found: dict[Any, dict[str, int]], top: int, language: Language) -> list[_Bar]:
    """Bars of one endpoint: codes by their number, the rest, then what has no code."""
    codes = sorted(
        ((key, counts) for key, counts in found.items() if isinstance(key, tuple)),
        key=lambda item: (-sum(item[1].values()), item[0]),
    )
    known = catalogue.load()
    bars = []
    for (is_illegal, code), counts in codes[:top]:
        try:
            name = f"{code} {known.code(code).name}"
        except KeyError:  # no number that a Close can carry
            name = str(code)
        bars.append(_Bar(language.label("plot.illegal", code=code) if is_illegal else name, counts, True))
    rest: dict[str, int] = {}
    for _, counts in codes[top:]:
        for provenance, n in counts.items():
            rest[provenance] = rest.get(provenance, 0) + n
    if rest:
        bars.append(_Bar(language.count("plot.other_codes", len(codes) - top), rest, True))
    for key in (NO_CODE, UNOPENED):
        if key in found:
            bars.append(_Bar(language.label(f"plot.{key}"), found[key], key != UNOPENED))
    return bars


def _draw_code_bars(ax: Axes, lanes: Mapping[str | None, list[_Bar]], language: Language) -> Iterator[str]:
    """Draw the bars, a heading over those of each endpoint; yields what they show in words."""
    if not lanes:
        _empty(ax, language)
        return
    most = max(bar.n for bars in lanes.values() for bar in bars)
    stacks: dict[str, list[tuple[int, int, int]]] = {}
    ticks, names, y = [], [], 0
    for endpoint, bars in lanes.items():
        total = sum(bar.n for bar in bars if bar.shared)
        ax.annotate(
            f"{_word(language, 'endpoint', endpoint)}: {language.count('plot.views', total)}",
            xy=(0, y),
            xytext=(3, -2),
            textcoords="offset points",
            va="center",
            weight="bold",
            parse_math=False,
        )
        words = []
        for bar in bars:
            y += 1
            left = 0
            for provenance in _in_order(bar.counts, Provenance):
                stacks.setdefault(provenance, []).append((y, left, bar.counts[provenance]))
                left += bar.counts[provenance]
            share = f" ({language.percent(bar.n / total)})" if bar.shared else ""
            text = f"{language.number(bar.n)}{share}"
            ax.annotate(text, xy=(bar.n, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
            ticks.append(y)
            names.append(bar.name)
            known = _listed(
                ((_word(language, "provenance", p), bar.counts[p]) for p in _in_order(bar.counts, Provenance)), language
            )
            words.append(f"{bar.name}: {known}")
        yield f"{_word(language, 'endpoint', endpoint)}: {'; '.join(words)}"
        y += 1
    handles = []
    for provenance in _in_order(stacks, Provenance):
        look = PROVENANCE_LOOKS.get(provenance, OTHER_LOOK)
        ys, lefts, widths = zip(*stacks[provenance], strict=True)
        name = _word(language, "provenance", provenance)
        ax.barh(
            ys,
            widths,
            left=lefts,
            height=0.72,
            facecolor=look.colour,
            hatch=look.hatch,
            edgecolor=look.ink,
            linewidth=0,
            label=name,
        )
        handles.append(_patch(look, name))
    ax.set_yticks(ticks, names, parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(y - 0.4, -0.6)
    room = _width_points(ax) - 5.2 * max(map(_columns_of, names))
    ax.set_xlim(0, most / max(0.3, 1 - 85 / max(room, 1)))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(_axis_numbers(language))
    ax.grid(axis="x", **GRID)
    _legend(ax, handles, language.label("plot.provenance_legend"), below=38)


class _Lanes(NamedTuple):
    """Stacked bars, one row of them for each endpoint."""

    counts: dict[Any, dict[Any, dict[int, int]]]  # lane -> key -> step -> number
    keys: list[Any]

    def total(self, lane: Any) -> int:
        return sum(sum(steps.values()) for steps in self.counts[lane].values())

    def sums(self, lane: Any) -> dict[int, int]:
        sums: dict[int, int] = {}
        for steps in self.counts[lane].values():
            for step, n in steps.items():
                sums[step] = sums.get(step, 0) + n
        return sums


def _stack(table: Table, lane: str | None, code: str | None, top: int) -> _Lanes:
    """Count by lane, code and `step`; codes beyond the `top` most frequent ones of a lane's largest are `other`."""
    columns = [name for name in (lane, code, "step") if name is not None]
    found: dict[Any, dict[Any, dict[int, int]]] = {}
    frequent: dict[int, int] = {}
    hidden = table["hidden"].to_numpy(dtype=bool) if "hidden" in table.columns else np.zeros(len(table), bool)
    for part, key_of in ((table[~hidden], None), (table[hidden], UNOPENED)):
        for key, n in _counted(part, columns).items():
            row = dict(zip(columns, key, strict=True))
            value = key_of or (ALL if code is None else row[code] if row[code] is not None else NO_CODE)
            steps = found.setdefault(row.get(lane or ""), {}).setdefault(value, {})
            steps[row["step"]] = steps.get(row["step"], 0) + n
    for by_key in found.values():
        for value, steps in by_key.items():
            if isinstance(value, int):
                frequent[value] = max(frequent.get(value, 0), sum(steps.values()))
    kept = sorted(frequent, key=lambda value: (-frequent[value], value))[:top]
    for by_key in found.values():
        for value in [value for value in by_key if isinstance(value, int) and value not in kept]:
            rest = by_key.setdefault(OTHER, {})
            for step, n in by_key.pop(value).items():
                rest[step] = rest.get(step, 0) + n
    present = {value for by_key in found.values() for value in by_key}
    keys = [*kept, *(value for value in (ALL, OTHER, NO_CODE, UNOPENED) if value in present)]
    return _Lanes({name: found[name] for name in _in_order(found, Endpoint)}, keys)


def _looks(keys: Iterable[Any]) -> dict[Any, Look]:
    spare = iter(SPARE_LOOKS * 8)
    fixed: dict[Any, Look] = {
        **CODE_LOOKS,
        ALL: ALL_LOOK,
        OTHER: OTHER_LOOK,
        NO_CODE: NO_CODE_LOOK,
        UNOPENED: NEVER_OPENED_LOOK,
    }
    return {key: fixed[key] if key in fixed else next(spare) for key in keys}


def _key_name(key: Any, language: Language) -> str:
    return language.label(f"plot.{key}") if isinstance(key, str) else str(key)


def _draw_lanes(
    ax: Axes,
    lanes: _Lanes,
    place: Callable[[np.ndarray[Any, Any]], tuple[Any, Any]],
    language: Language,
    noun: str,
    *,
    is_named: bool,
) -> list[Any]:
    """Draw one row of stacked bars for each lane, on one scale; returns handles for a legend.

    Args:
        ax: Where to draw.
        lanes: What.
        place: Left edges and widths of steps on the x axis.
        language: For numbers and words.
        noun: Label that counts what a lane holds.
        is_named: Whether lanes are endpoints with a name.

    """
    highest = max(max(lanes.sums(lane).values()) for lane in lanes.counts)
    pitch = highest * (1.25 if is_named else 1.08)
    looks = _looks(lanes.keys)
    ticks, names = [], []
    steps_of_scale = MaxNLocator(6 if len(lanes.counts) == 1 else 3, integer=True).tick_values(0, highest)
    for row, lane in enumerate(reversed(lanes.counts)):
        base = row * pitch
        ticks += [base + value for value in steps_of_scale if 0 <= value <= highest]
        names += [language.number(round(value)) for value in steps_of_scale if 0 <= value <= highest]
        tops: dict[int, float] = {}
        for key in lanes.keys:
            found = sorted(lanes.counts[lane].get(key, {}).items())
            if not found:
                continue
            steps, heights = (np.array(part) for part in zip(*found, strict=True))
            bottoms = np.array([tops.get(int(step), base) for step in steps])
            left, width = place(steps)
            ax.bar(
                left,
                heights,
                width,
                bottoms,
                align="edge",
                facecolor=looks[key].colour,
                hatch=looks[key].hatch,
                edgecolor=looks[key].ink,
                linewidth=0,
                label=f"{lane}: {key}",
            )
            tops |= {int(step): float(b + h) for step, b, h in zip(steps, bottoms, heights, strict=True)}
        ax.axhline(base, color="0.4", linewidth=0.8)
        if is_named:
            text = f"{_word(language, 'endpoint', lane)}: {language.count(noun, lanes.total(lane))}"
            is_rtl = language.direction == "rtl"
            ax.annotate(
                text,
                xy=(1 if is_rtl else 0, base + highest * 1.03),
                xycoords=ax.get_yaxis_transform(),
                xytext=(-4 if is_rtl else 4, 0),
                textcoords="offset points",
                ha="right" if is_rtl else "left",
                va="bottom",
                weight="bold",
                parse_math=False,
            )
    ax.set_yticks(ticks, names)
    ax.set_ylim(0, len(lanes.counts) * pitch)
    ax.grid(axis="y", **GRID)
    return [_patch(looks[key], _key_name(key, language)) for key in lanes.keys]


def _lanes_in_words(lanes: _Lanes, language: Language) -> Iterator[str]:
    for lane, by_key in lanes.counts.items():
        listed = _listed(
            ((_key_name(key, language), sum(by_key[key].values())) for key in lanes.keys if key in by_key), language
        )
        yield listed if lane is None else f"{_word(language, 'endpoint', lane)}: {listed}"


def plot_timeline(
    closes: Table,
    ax: Axes | None = None,
    *,
    freq: str | None = None,
    top: int = 6,
    title: str | None = None,
    language: Language | None = None,
) -> Axes:
    """Draw how many connections ended in each step of time, stacked by code; each endpoint's views for themselves.

    Args:
        closes: Columns time, endpoint, code; evidence tells what was never opened.
        ax: Where to draw, None for a figure of its own.
        freq: Step of time such as `10min` or `1h`; None fits it to the data.
        top: Codes with colours of their own; the rest is one colour.
        title: Instead of ours.
        language: English where none is given.

    Raises:
        ValueError: A column is missing, or the steps are too many to draw.
        UsageError: Not a step of time.

    """
    table = _take(closes, "plot_timeline", ("time", "endpoint", "code"), ("evidence",))
    language = _english(language)
    untimed = _left_out(language, "without_time", table[table["time"].isna()])
    table = table[table["time"].notna() & (table["count"] > 0)]
    times = table["time"].to_numpy(dtype="datetime64[ns]").astype("int64")
    step_ns = _fit_step(times) if freq is None else parse_step(freq)
    week_ns = 7 * 86400 * 10**9
    origin_ns = 4 * 86400 * 10**9 if step_ns % week_ns == 0 else 0  # weeks begin on Mondays
    table = table.assign(step=(times - origin_ns) // step_ns, hidden=_never_opened(table))
    lanes = _stack(table, "endpoint", "code", top)
    if len(table) and int(table["step"].max() - table["step"].min()) >= STEPS_LIMIT:
        raise ValueError(f"plot_timeline: steps of {freq} make more than {STEPS_LIMIT:,} bars")

    def place(steps: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        starts = (steps.astype("int64") * step_ns + origin_ns).astype("datetime64[ns]")
        return _dates.date2num(starts), step_ns / 86400e9

    with _style(ax):
        ax = _axes(ax, _sized(len(lanes.counts)))
        title = language.label("plot.timeline_title") if title is None else visible(title)
        step = _span(language, step_ns / 1e9)
        _label_axes(ax, language.label("plot.time_axis"), language.label("plot.per_step_axis", step=step))
        notes = [untimed]
        if not lanes.counts:
            _empty(ax, language)
            _title(ax, language, title, notes)
            _describe(ax, title, [language.label("plot.empty"), *notes])
            return ax
        handles = _draw_lanes(ax, lanes, place, language, "plot.views", is_named=True)
        first, last = int(table["step"].min()), int(table["step"].max())
        left, width = place(np.array([first, last]))
        around = max(0.5, (12 - (last - first)) / 2) * width  # one bar alone would fill the plot
        ax.set_xlim(left[0] - around, left[1] + width + around)
        locator = _dates.AutoDateLocator(tz="UTC", minticks=4, maxticks=9)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(
            _dates.ConciseDateFormatter(
                locator,
                tz="UTC",
                formats=["%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M", "%H:%M:%S.%f"],
                zero_formats=["", "%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M"],
                offset_formats=["", "%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%d", "%Y-%m-%d %H:%M"],
            )
        )
        ax.xaxis.get_offset_text().set_fontfamily(_families())
        _legend(ax, handles, language.label("plot.code_legend"), below=38)
        _title(ax, language, title, [language.label("plot.timeline_note", step=step), *notes])
        _describe(ax, title, [*_lanes_in_words(lanes, language), *notes])
    return ax


def _fit_step(times: np.ndarray[Any, Any]) -> int:
    """The finest of the steps that people find easy to read, that gives no more than STEPS_SHOWN bars."""
    extent = int(times.max() - times.min()) if len(times) else 0
    step = next((step for step in STEPS_NS if step >= 10**9 and extent / step < STEPS_SHOWN), STEPS_NS[-1])
    while extent / step >= STEPS_SHOWN:
        step *= 2
    return step


def plot_durations(
    closes: Table,
    ax: Axes | None = None,
    *,
    top: int = 5,
    title: str | None = None,
    language: Language | None = None,
) -> Axes:
    """Draw how long connections lasted, stacked by code, with the timers that fit where ends gather.

    Args:
        closes: Columns duration_s, endpoint, code; evidence tells what was never opened, which is left out.
        ax: Where to draw, None for a figure of its own.
        top: Codes with colours of their own; the rest is one colour.
        title: Instead of ours.
        language: English where none is given.

    Raises:
        ValueError: A column is missing.

    """
    table = _take(closes, "plot_durations", ("duration_s", "endpoint", "code"), ("evidence",))
    return _plot_seconds(
        table, ax, "duration", lane="endpoint", code="code", noun="plot.views", top=top, title=title, language=language
    )


def plot_silences(
    connections: Table,
    ax: Axes | None = None,
    *,
    top: int = 5,
    title: str | None = None,
    language: Language | None = None,
) -> Axes:
    """Draw how long connections were silent before they ended, with the timers that fit where ends gather.

    Args:
        connections: Column silence_s; client_view_code splits the bars; handshake tells what was never opened, which is
            left out.
        ax: Where to draw, None for a figure of its own.
        top: Codes with colours of their own; the rest is one colour.
        title: Instead of ours.
        language: English where none is given.

    Raises:
        ValueError: A column is missing.

    """
    table = _take(connections, "plot_silences", ("silence_s",), ("client_view_code", "handshake"))
    code = "client_view_code" if "client_view_code" in table.columns else None
    return _plot_seconds(
        table, ax, "silence", lane=None, code=code, noun="plot.connections", top=top, title=title, language=language
    )


class _Mark(NamedTuple):
    """A timer's value near which ends gather: how many, and all systems that have it, by kind."""

    seconds: float
    n: int
    systems: dict[str, list[str]]


def _gatherings(values: Any, counts: Any, kinds: Collection[str]) -> list[_Mark]:
    """Timers' values where ends gather, by the report's own rule; with few ends, wherever one lies.

    Args:
        values: Times in seconds.
        counts: How many ends each stands for.
        kinds: Kinds of timers that fit what was measured.

    """
    found = []
    needed = 1 if counts.sum() <= FEW else TIMER_TIMES
    for seconds in sorted({timer.seconds for timer in timers.load() if timer.kind in kinds}):
        far = np.abs(values / seconds - 1)
        here = int(counts[far <= TIMER_TOLERANCE + timers.ROUNDING].sum())
        around = int(counts[far <= TIMER_NEAR].sum()) - here
        density = around * TIMER_TOLERANCE / (TIMER_NEAR - TIMER_TOLERANCE)
        if here >= needed and here >= TIMER_TIMES * density:
            systems: dict[str, list[str]] = {}
            for timer in timers.candidates(seconds, kinds):
                of_kind = systems.setdefault(timer.kind, [])
                if timer.system not in of_kind:
                    of_kind.append(timer.system)
            found.append(_Mark(seconds, here, systems))
    return found


def _plot_seconds(
    table: Table,
    ax: Axes | None,
    measure: str,
    *,
    lane: str | None,
    code: str | None,
    noun: str,
    top: int,
    title: str | None,
    language: Language | None,
) -> Axes:
    language = _english(language)
    column = f"{measure}_s"
    hidden = _never_opened(table)
    is_known = table[column].notna() & np.isfinite(table[column])
    left_out = [
        _left_out(language, f"without_{measure}", table[~hidden & ~is_known]),
        _left_out(language, "left_out", table[hidden]),
    ]
    table = table[~hidden & is_known & (table["count"] > 0)]
    values, counts = table[column].to_numpy(dtype="float64"), table["count"].to_numpy(dtype="int64")
    shown = np.maximum(values, LEAST_S)
    decades = math.log10(shown.max() / shown.min()) if len(shown) else 0.0
    n_bins = np.clip(4 * math.sqrt(counts.sum()), *BINS_SHOWN)
    per_decade = int(np.clip(n_bins / max(decades, 0.1), *BINS_PER_DECADE))
    table = table.assign(step=np.floor(np.log10(shown) * per_decade + 1e-9).astype("int64"))
    lanes = _stack(table, lane, code, top)
    kinds = TIMER_KINDS[measure]
    all_marks = _marks_of(table, lane, column, kinds)
    marks = sorted(sorted(all_marks, key=lambda mark: (-mark.n, mark.seconds))[:MARKS_SHOWN])

    def place(steps: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        left = 10.0 ** (steps / per_decade)
        return left, 10.0 ** ((steps + 1) / per_decade) - left

    with _style(ax):
        ax = _axes(ax, (FIGURE_INCHES[0], _sized(len(lanes.counts))[1] + 0.28 * len(marks)))
        title = language.label(f"plot.{measure}s_title") if title is None else visible(title)
        _label_axes(
            ax,
            language.label(f"plot.{measure}_axis"),
            language.label("plot.views_axis" if lane else "plot.connections_axis"),
        )
        notes = [] if lane or not lanes.counts else [language.count(noun, int(counts.sum()))]
        notes += left_out
        if len(shown) and values.min() < LEAST_S:
            notes.append(language.label("plot.at_least", least=_tick_seconds(language, LEAST_S)))
        if not lanes.counts:
            _empty(ax, language)
            _title(ax, language, title, notes)
            _describe(ax, title, [language.label("plot.empty"), *notes])
            return ax
        ax.set_xscale("log")
        handles = _draw_lanes(ax, lanes, place, language, noun, is_named=lane is not None)
        low, high = shown.min(), shown.max()
        stretch = 10 ** max(0.04 * decades, 0.1, 0.6 - decades / 2)
        ax.set_xlim(low / stretch, high * stretch)
        ax.xaxis.set_major_locator(LogLocator(10, subs=(1,) if decades > 2 else (1, 2, 5), numticks=15))
        ax.xaxis.set_minor_locator(LogLocator(10, subs=range(2, 10), numticks=15))
        ax.xaxis.set_major_formatter(FuncFormatter(functools.partial(_tick_seconds, language)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        below = 38.0
        if code is not None:
            below = _legend(ax, handles, language.label(f"plot.{measure}_legend"), below=below) + 4
        rows_above = _draw_marks(ax, marks, measure, language, below=below, n_more=len(all_marks) - len(marks))
        _title(ax, language, title, notes, rows_above=rows_above)
        marked = [
            f"{language.label('plot.second', n=_plain(language, m.seconds))}: {_names(m, language)}" for m in marks
        ]
        _describe(ax, title, [*_lanes_in_words(lanes, language), *notes, *marked])
    return ax


def _marks_of(table: Table, lane: str | None, column: str, kinds: Collection[str]) -> list[_Mark]:
    """Timers near any lane's ends; a value that several lanes have counts the ends of the lane with most."""
    best: dict[float, _Mark] = {}
    parts = [table] if lane is None else [part for _, part in table.groupby(lane, dropna=False, sort=False)]
    for part in parts:
        values, counts = part[column].to_numpy(dtype="float64"), part["count"].to_numpy(dtype="int64")
        for mark in _gatherings(values, counts, kinds):
            if mark.seconds not in best or mark.n > best[mark.seconds].n:
                best[mark.seconds] = mark
    return list(best.values())


def _names(mark: _Mark, language: Language) -> str:
    return "; ".join(
        f"{_word(language, 'timer', kind)}: {', '.join(systems)}" for kind, systems in mark.systems.items()
    )


def _draw_marks(
    ax: Axes, marks: Sequence[_Mark], measure: str, language: Language, *, below: float, n_more: int
) -> int:
    """Draw a line at each mark, and name all its candidates below; returns how many rows of text stand above."""
    low, high = ax.get_xlim()
    width = _width_points(ax)
    ink = mpl.rcParams["text.color"]
    ends: list[float] = []
    handles = []
    n_columns = int((width - 30) / 4.4)
    for mark in marks:
        ax.axvline(
            mark.seconds, color=ink, linewidth=1.1, linestyle=(0, (4, 2)), zorder=0.9, label=f"{mark.seconds:g} s"
        )
        text = language.label("plot.second", n=_plain(language, mark.seconds))
        half = (_columns_of(text) * 4.8 + 6) / 2
        centre = width * math.log(mark.seconds / low) / math.log(high / low)
        row = next((i for i, end in enumerate(ends) if centre - half >= end), len(ends))
        ends[row : row + 1] = [centre + half]
        ax.annotate(
            text,
            xy=(mark.seconds, 1),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, 2 + 11 * row),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            weight="bold",
            annotation_clip=False,
        )
        value, n = _both_units(language, mark.seconds), language.count("plot.ends", mark.n)
        lines = [language.label("plot.mark", value=value, ends=n)]
        for kind, systems in mark.systems.items():
            name = _word(language, "timer", kind)
            if measure == "duration" and kind == "idle":
                name = language.label("plot.idle_since_opening", idle=name)
            lines += _wrap([f"{name}:", *(f"{one}," for one in systems[:-1]), systems[-1]], n_columns).split("\n")
        if language.direction == "rtl":  # else a line that begins with a system's name would run the other way
            lines = [f"{RIGHT_TO_LEFT_MARK}{line}" for line in lines]
        handles.append(Line2D([], [], color=ink, linewidth=1.1, linestyle=(0, (4, 2)), label="\n".join(lines)))
    if handles:
        about = language.label("plot.marks_legend")
        more = f" {language.count('plot.more_marks', n_more)}" if n_more else ""
        _legend(ax, handles, about + more, below=below, columns=1)
    return len(ends)


def _both_units(language: Language, seconds: float) -> str:
    """`300 s (5 min)`; one where both are the same."""
    plain = language.label("plot.second", n=_plain(language, seconds))
    span = _span(language, seconds)
    return plain if span == plain or seconds <= 60 else f"{plain} ({span})"


def plot_ends(
    connections: Table,
    ax: Axes | None = None,
    *,
    title: str | None = None,
    language: Language | None = None,
) -> Axes:
    """Draw who sent the first Close against how the transport ended.

    Args:
        connections: Columns initiator and end; handshake tells what was never opened, which is left out.
        ax: Where to draw, None for a figure of its own.
        title: Instead of ours.
        language: English where none is given.

    Raises:
        ValueError: A column is missing.

    """
    table = _take(connections, "plot_ends", ("initiator", "end"), ("handshake",))
    language = _english(language)
    hidden = _never_opened(table)
    counts = _counted(table[~hidden], ("initiator", "end"))
    rows = _in_order((key[0] for key in counts), Initiator)
    columns = _in_order((key[1] for key in counts), End)
    return _plot_matrix(
        ax,
        counts,
        [(row, _word(language, "initiator", row)) for row in rows],
        [(column, _word(language, "end", column)) for column in columns],
        name="ends",
        left_out=_left_out(language, "left_out", table[hidden]),
        is_same=None,
        title=title,
        language=language,
    )


def plot_views(
    connections: Table,
    ax: Axes | None = None,
    *,
    top: int = 8,
    title: str | None = None,
    language: Language | None = None,
) -> Axes:
    """Draw what clients report against what servers report about the same connections.

    Frames mark the cells where both report the same code.

    Args:
        connections: Columns client_view_code, client_view_provenance, server_view_code, server_view_provenance;
            handshake tells what was never opened, which is left out.
        ax: Where to draw, None for a figure of its own.
        top: Views of each side with rows or columns of their own; the rest is one.
        title: Instead of ours.
        language: English where none is given.

    Raises:
        ValueError: A column is missing.

    """
    names = [f"{side}_view_{what}" for side in ("client", "server") for what in ("code", "provenance")]
    table = _take(connections, "plot_views", names, ("handshake",))
    language = _english(language)
    hidden = _never_opened(table)
    found: dict[tuple[Any, Any], int] = {}
    for key, n in _counted(table[~hidden], names).items():
        client, server = (view if view[0] is not None else NO_VIEW for view in (key[:2], key[2:]))
        found[client, server] = found.get((client, server), 0) + n
    kept = [_frequent_views(found, side, top) for side in (0, 1)]
    counts: dict[tuple[Any, ...], int] = {}
    for pair, n in found.items():
        key = tuple(view if view in kept[side] else OTHER for side, view in enumerate(pair))
        counts[key] = counts.get(key, 0) + n
    sides = []
    for side in (0, 1):
        present = {key[side] for key in counts}
        views = [view for view in (*kept[side], OTHER) if view in present]
        sides.append([(view, _view_name(view, language)) for view in views])
    return _plot_matrix(
        ax,
        counts,
        sides[0],
        sides[1],
        name="views",
        left_out=_left_out(language, "left_out", table[hidden]),
        is_same=lambda a, b: a != OTHER and b != OTHER and a[0] is not None and a[0] == b[0],
        title=title,
        language=language,
    )


NO_VIEW = (None, None)
"""Stands for every view without a code."""


def _frequent_views(found: Mapping[tuple[Any, Any], int], side: int, top: int) -> list[Any]:
    """The most frequent views of one side in the order of codes, those without a code last."""
    totals: dict[Any, int] = {}
    for pair, n in found.items():
        totals[pair[side]] = totals.get(pair[side], 0) + n
    most = sorted(totals, key=lambda view: (-totals[view], str(view)))[:top]
    return sorted(most, key=lambda view: (view[0] is None, view[0] or 0, str(view[1])))


def _view_name(view: Any, language: Language) -> str:
    if view == OTHER:
        return language.label("plot.other")
    code, provenance = view
    word = _word(language, "provenance", provenance or str(Provenance.UNDETERMINED))
    return word if code is None else f"{code}\n{word}"


def _plot_matrix(
    ax: Axes | None,
    counts: Mapping[tuple[Any, ...], int],
    rows: Sequence[tuple[Any, str]],
    columns: Sequence[tuple[Any, str]],
    *,
    name: str,
    left_out: str,
    is_same: Callable[[Any, Any], bool] | None,
    title: str | None,
    language: Language,
) -> Axes:
    values = np.array([[counts.get((row, column), 0) for column, _ in columns] for row, _ in rows], dtype=float)
    size = (FIGURE_INCHES[0], max(2.8, 1.7 + 0.52 * len(rows)))
    with _style(ax):
        ax = _axes(ax, size)
        title = language.label(f"plot.{name}_title") if title is None else visible(title)
        _label_axes(ax, language.label(f"plot.{name}_columns"), language.label(f"plot.{name}_rows"))
        notes = [language.count("plot.connections", int(values.sum()))] if values.size else []
        notes.append(left_out)
        if not values.size:
            _empty(ax, language)
            _title(ax, language, title, notes)
            _describe(ax, title, [language.label("plot.empty"), *notes])
            return ax
        colours = mpl.colormaps["Blues"]
        norm = PowerNorm(0.5, vmin=0, vmax=values.max() * 1.25)
        ax.pcolormesh(values, cmap=colours, norm=norm, edgecolors="white", linewidth=1.5)
        words, has_same = [], False
        for y, (row, row_name) in enumerate(rows):
            for x, (column, column_name) in enumerate(columns):
                n = int(values[y, x])
                is_dark = _luminance(colours(norm(n))) < 0.5
                ax.text(
                    x + 0.5,
                    y + 0.5,
                    language.number(n) if n else "·",
                    ha="center",
                    va="center",
                    fontsize=9.5 if n else 8,
                    color="white" if is_dark else "black" if n else "0.6",
                )
                if n:
                    words.append(f"{row_name} / {column_name}: {language.number(n)}".replace("\n", " "))
                if n and is_same is not None and is_same(row, column):
                    has_same = True
                    ax.add_patch(
                        Rectangle((x + 0.04, y + 0.06), 0.92, 0.88, fill=False, edgecolor="black", linewidth=1.2)
                    )
        widest = max(_columns_of(line) for _, text in columns for line in text.split("\n")) * 5.0 + 6
        is_tight = widest > _width_points(ax) / len(columns)
        names = [text.replace("\n", " ") if is_tight else text for _, text in columns]
        slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if is_tight else {}
        ax.set_xticks(
            np.arange(len(columns)) + 0.5,
            names,
            parse_math=False,
            **slanted,
        )
        ax.set_yticks(np.arange(len(rows)) + 0.5, [text for _, text in rows], parse_math=False)
        ax.invert_yaxis()
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        notes += [language.label("plot.same_note")] if has_same else []
        _title(ax, language, title, notes)
        _describe(ax, title, ["; ".join(words), *notes])
    return ax


def _luminance(colour: tuple[float, float, float, float]) -> float:
    red, green, blue, _ = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


DATA = ("text", "binary", "continuation")
CONTROL = ("ping", "pong")
SIDES = ("client", "server")


class _Step(NamedTuple):
    """One line of a sequence diagram: an event, or several that were put together."""

    kinds: tuple[str, ...]
    sides: tuple[str, ...]
    n: tuple[int, ...]  # by side in the order of `sides`
    first_ns: int
    last_ns: int
    packets: tuple[int, int] | None
    payload_bytes: tuple[int, ...]
    code: int | None
    is_empty: bool  # known to have no payload


def plot_life(
    events: Table,
    ax: Axes | None = None,
    *,
    title: str | None = None,
    language: Language | None = None,
) -> Axes:
    """Draw one connection's life as a sequence diagram: time runs down, each message goes from one lane to the other.

    Lines stand at equal distances, so that a burst stays readable; pauses are marked with their length. Where events
    are many, runs of the same kind are one line, and then whole stretches of traffic are.

    Args:
        events: Columns time, side (client or server: who sent it) and kind (request, response, text, binary,
            continuation, ping, pong, close, reserved, missing, fin, rst); packet, payload_bytes and code (of a Close)
            where known.
        ax: Where to draw, None for a figure of its own.
        title: Instead of ours.
        language: English where none is given.

    Raises:
        ValueError: A column is missing.

    """
    table = _take(events, "plot_life", ("time", "side", "kind"), ("packet", "payload_bytes", "code"))
    language = _english(language)
    is_known = table["side"].isin(SIDES) & table["time"].notna()
    unknown = _left_out(language, "without_place", table[~is_known])
    table = table[is_known].sort_values("time", kind="stable", ignore_index=True)
    steps = _steps_of(table)
    with _style(ax):
        ax = _axes(ax, (FIGURE_INCHES[0], min(14.0, max(3.4, 1.6 + 0.29 * len(steps)))))
        title = language.label("plot.life_title") if title is None else visible(title)
        _label_axes(ax, language.label("plot.life_sides"), language.label("plot.life_axis"))
        notes = [language.count("plot.events", len(table)), language.label("plot.not_to_scale")] if steps else []
        notes += [language.label("plot.put_together")] if any(sum(step.n) > 1 for step in steps) else []
        notes.append(unknown)
        if not steps:
            _empty(ax, language)
            words = [language.label("plot.empty")]
        else:
            words = list(_draw_steps(ax, steps, language))
        _title(ax, language, title, notes, rows_above=1 if steps else 0)
        _describe(ax, title, [*notes, "; ".join(words)])
    return ax


def _steps_of(table: Table) -> list[_Step]:
    """Events as lines, no more than LIFE_ROWS where that can be: first runs, then stretches are put together."""
    steps = [_step_of(row) for row in table.to_dict("records")]
    pause_s = _least_pause_s(steps)
    if len(steps) > LIFE_ROWS:
        steps = _join(steps, pause_s, lambda a, b: a.sides == b.sides and a.kinds == b.kinds and _is_traffic(a))
    if len(steps) > LIFE_ROWS:
        steps = _join(steps, pause_s, lambda a, b: _is_made_of(a, CONTROL) and _is_made_of(b, CONTROL))
    whole = steps
    for kept in (8, 4, 2, 1, 0):  # so many lines stay as they are before and behind a stretch that becomes one
        if len(steps) > LIFE_ROWS:
            steps = _join_stretches(whole, pause_s, kept)
    if len(steps) > 3 * LIFE_ROWS:  # a hostile capture: only its two ends are drawn
        middle = steps[LIFE_ROWS : len(steps) - LIFE_ROWS]
        steps = [*steps[:LIFE_ROWS], functools.reduce(_merge, middle), *steps[len(steps) - LIFE_ROWS :]]
    return steps


def _step_of(row: Mapping[Any, Any]) -> _Step:
    packet, size, code = (_value(row.get(name)) for name in ("packet", "payload_bytes", "code"))
    ns = int(row["time"].value)
    packets = None if packet is None else (int(packet), int(packet))
    return _Step((str(row["kind"]),), (row["side"],), (1,), ns, ns, packets, (int(size or 0),), code, size == 0)


def _is_made_of(step: _Step, kinds: Collection[str]) -> bool:
    return all(kind in kinds for kind in step.kinds)


def _is_traffic(step: _Step) -> bool:
    return _is_made_of(step, (*DATA, *CONTROL))


def _merge(a: _Step, b: _Step) -> _Step:
    sides = tuple(side for side in SIDES if side in (*a.sides, *b.sides))
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for step in (a, b):
        for side, n, size in zip(step.sides, step.n, step.payload_bytes, strict=True):
            counts[side] = counts.get(side, 0) + n
            sizes[side] = sizes.get(side, 0) + size
    known = [packet for step in (a, b) if step.packets for packet in step.packets]
    return _Step(
        tuple(dict.fromkeys((*a.kinds, *b.kinds))),
        sides,
        tuple(counts[side] for side in sides),
        a.first_ns,
        b.last_ns,
        (min(known), max(known)) if known else None,
        tuple(sizes[side] for side in sides),
        a.code if a.code is not None else b.code,
        a.is_empty and b.is_empty,
    )


def _least_pause_s(steps: Sequence[_Step]) -> float:
    """How long nothing must happen for a pause that is marked."""
    life_s = (steps[-1].last_ns - steps[0].first_ns) / 1e9 if steps else 0.0
    return min(max(least_s, share * life_s) for least_s, share in PAUSES)


def _pause_s(a: _Step, b: _Step) -> float:
    return (b.first_ns - a.last_ns) / 1e9


def _join(steps: Sequence[_Step], pause_s: float, fits: Callable[[_Step, _Step], bool]) -> list[_Step]:
    """Put neighbours together that fit, unless a pause lies between them."""
    joined: list[_Step] = []
    for step in steps:
        if joined and fits(joined[-1], step) and _pause_s(joined[-1], step) < pause_s:
            joined[-1] = _merge(joined[-1], step)
        else:
            joined.append(step)
    return joined


def _join_stretches(steps: Sequence[_Step], pause_s: float, kept: int) -> list[_Step]:
    """Make one line of each stretch of traffic, but for so many lines at its begin and its end."""
    stretches: list[list[_Step]] = []
    for step in steps:
        last = stretches[-1][-1] if stretches else None
        if last is not None and _is_traffic(last) and _is_traffic(step) and _pause_s(last, step) < pause_s:
            stretches[-1].append(step)
        else:
            stretches.append([step])
    joined: list[_Step] = []
    for stretch in stretches:
        inner = stretch[kept : len(stretch) - kept]
        if len(inner) > 1:
            stretch = [*stretch[:kept], functools.reduce(_merge, inner), *stretch[len(stretch) - kept :]]
        joined += stretch
    return joined


LIFE_LOOKS: dict[str, tuple[str, str, float]] = {
    "request": ("#009E73", "solid", 1.4),
    "response": ("#009E73", "solid", 1.4),
    "ping": ("0.45", "dashed", 1.0),
    "pong": ("0.45", "dashed", 1.0),
    "close": ("#D55E00", "solid", 2.4),
    "fin": ("", "solid", 1.4),
    "rst": ("", "dashdot", 2.0),
    "missing": ("#CC79A7", "dotted", 2.0),
    "reserved": ("#CC79A7", "solid", 1.4),
}
"""Colour, line and width of an arrow; messages are blue, and what has no colour here has that of text."""


def _draw_steps(ax: Axes, steps: Sequence[_Step], language: Language) -> Iterator[str]:
    """Draw the lines, the lanes and the pauses; yields what they show in words."""
    start = steps[0].first_ns
    life_s = (steps[-1].last_ns - start) / 1e9
    gaps_ns = [b.first_ns - a.first_ns for a, b in itertools.pairwise(steps)]
    digits = 6 if life_s < 100 and any(0 < gap < 1_000_000 for gap in gaps_ns) else 3
    least_s = _least_pause_s(steps)
    y, ticks, previous = 0.0, [], steps[0]
    solid = 0.0
    for step in steps:
        pause_s = _pause_s(previous, step)
        if pause_s >= least_s:
            yield from _draw_pause(ax, solid, y, pause_s, language)
            y += 0.9
            solid = y - 0.5
        text, detail = _step_text(step, language)
        _draw_step(ax, step, y, text, detail)
        ticks.append(y)
        if step.packets is not None:
            first, last = step.packets
            shown = (
                language.number(first) if first == last else f"{language.number(first)}\u2013{language.number(last)}"
            )
            ax.annotate(
                shown,
                xy=(1, y),
                xycoords=ax.get_yaxis_transform(),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=NOTE,
                annotation_clip=False,
            )
        seconds = language.label("plot.second", n=language.decimal((step.first_ns - start) / 1e9, digits))
        sender = "" if len(step.sides) > 1 else f"{_word(language, 'endpoint', step.sides[0])}: "
        yield f"{seconds} {sender}{text}" + (f", {detail}" if detail else "")
        previous, y = step, y + (1.55 if detail else 1)
    _draw_lanes_of_life(ax, solid, y - 0.5)
    if any(step.packets for step in steps):
        ax.annotate(
            language.label("plot.packet"),
            xy=(1, 1),
            xycoords="axes fraction",
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=8,
            color=NOTE,
            annotation_clip=False,
        )
    ax.set_yticks(ticks, [language.decimal((step.first_ns - start) / 1e9, digits) for step in steps])
    ax.set_xticks([0, 1], [_word(language, "endpoint", side) for side in SIDES], weight="bold", parse_math=False)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_xlim(-0.12, 1.12)
    ax.set_ylim(y - 0.4, -0.8)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _draw_lanes_of_life(ax: Axes, top: float, bottom: float) -> None:
    for x in (0, 1):
        ax.plot([x, x], [top - 0.5 if top == 0 else top, bottom], color="0.5", linewidth=1.4, solid_capstyle="butt")


def _draw_pause(ax: Axes, solid: float, y: float, pause_s: float, language: Language) -> Iterator[str]:
    """The lanes up to here, and broken lanes with the length of the pause."""
    _draw_lanes_of_life(ax, solid, y - 0.5)
    for x in (0, 1):
        ax.plot([x, x], [y - 0.5, y + 0.4], color="0.5", linewidth=1.4, linestyle=(0, (1, 2)))
    text = language.label("plot.pause", seconds=language.decimal(pause_s, 1))
    ax.text(0.5, y - 0.05, text, ha="center", va="center", fontsize=8, style="italic", color=NOTE, parse_math=False)
    yield text


def _draw_step(ax: Axes, step: _Step, y: float, text: str, detail: str) -> None:
    colour, line, width = LIFE_LOOKS.get(step.kinds[0], ("#0072B2", "solid", 1.2))
    if len(step.kinds) > 1 and not _is_made_of(step, CONTROL):
        colour, line, width = "#0072B2", "solid", 1.2
    both = len(step.sides) > 1
    source, target = (0, 1) if step.sides[0] == "client" else (1, 0)
    if step.kinds == ("missing",):
        ax.add_patch(
            Rectangle((0.02, y - 0.33), 0.96, 0.7, facecolor="#F3E3EC", edgecolor="#CC79A7", hatch="////", linewidth=0)
        )
    ax.annotate(
        "",
        xy=(target, y + 0.22),
        xytext=(source, y + 0.22),
        arrowprops={
            "arrowstyle": "<|-|>" if both else "-|>",
            "color": colour or mpl.rcParams["text.color"],
            "linestyle": line,
            "linewidth": width,
            "shrinkA": 0 if not both else 1,
            "shrinkB": 1,
            "mutation_scale": 9,
        },
        annotation_clip=False,
    )
    if detail:
        ax.text(0.5, y + 0.58, detail, ha="center", va="center", fontsize=8, parse_math=False)
    weight = "bold" if step.kinds[0] in ("close", "rst", "fin") else "normal"
    ax.text(
        0.5,
        y - 0.1,
        text,
        ha="center",
        va="center",
        fontsize=8,
        weight=weight,
        parse_math=False,
        bbox={"facecolor": mpl.rcParams["axes.facecolor"], "edgecolor": "none", "pad": 0.6}
        if step.kinds == ("missing",)
        else None,
    )


def _step_text(step: _Step, language: Language) -> tuple[str, str]:
    """What stands over a line: what it was, how many, how large, how long; and under it, where both sides sent."""
    names = ", ".join(_word(language, "plot", f"event_{kind}") for kind in step.kinds)
    n, size = sum(step.n), sum(step.payload_bytes)
    if step.kinds == ("close",) and n == 1:
        if step.code is not None:
            return f"{names} {step.code}", ""
        # without its body, or behind another one, it may well have had a code
        return f"{names} ({language.label('plot.no_code')})" if step.is_empty else names, ""
    parts = []
    if size and len(step.sides) == 1:
        parts.append(language.count("plot.bytes", size))
    if step.last_ns > step.first_ns:
        parts.append(language.label("plot.within", seconds=_plain(language, (step.last_ns - step.first_ns) / 1e9)))
    text = (language.label("plot.times", n=language.number(n), what=names) if n > 1 else names) + (
        f": {', '.join(parts)}" if parts else ""
    )
    if len(step.sides) == 1:
        return text, ""
    sent = []
    for side, of_side, size_of_side in zip(step.sides, step.n, step.payload_bytes, strict=True):
        bytes_sent = f" ({language.count('plot.bytes', size_of_side)})" if size_of_side else ""
        sent.append(f"{_word(language, 'endpoint', side)} {language.number(of_side)}{bytes_sent}")
    return text, ", ".join(sent)
