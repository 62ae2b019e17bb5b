"""What all plots share: figures that leave nothing behind, fonts and words for six languages, titles and legends."""

import contextlib
import functools
import io
import math
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
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
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import ScaledTranslation

from analyzer.knowledge import language as languages
from analyzer.knowledge.language import Language
from analyzer.model import Endpoint, Handshake, Provenance
from analyzer.report.counts import NEVER_OPENED
from analyzer.report.text import visible

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


NO_CODE_LOOK = Look("#DDDDDD", "////", "#666666")


NEVER_OPENED_LOOK = Look("#DDDDDD", "xxxx", "#000000")


ALL, OTHER, NO_CODE, ILLEGAL, UNOPENED = "all", "other", "no_code", "illegal", "never_opened"
"""What a bar stands for where it is no single code."""


WORDS_SHOWN = 2000
"""Longest text that says what a plot shows, in characters."""


RIGHT_TO_LEFT_MARK = "\u200f"


Table = pd.DataFrame


matplotlib_dates: Any = dates  # its functions carry no types


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
def own_style(ax: Axes | None) -> Iterator[None]:
    """Draw with our style, whatever the global one is; on a given Axes with its own, but our fonts."""
    ours = {**STYLE, "font.family": _families()}
    if ax is not None:
        ours = {name: ours[name] for name in ("font.family", "text.usetex", "text.parse_math", "hatch.linewidth")}
        with mpl.rc_context(ours):
            yield
        return
    with matplotlib.style.context(["default", ours]):
        yield


def axes_for(ax: Axes | None, size: tuple[float, float] = FIGURE_INCHES) -> Axes:
    """These Axes, or new ones on a figure of this size in inches."""
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


def or_english(language: Language | None) -> Language:
    """The language given, else English."""
    return languages.load("en") if language is None else language


def word(language: Language, group: str, value: object) -> str:
    """A word of an enum in this language, else as it stands in the data."""
    if value is None:
        return language.label("plot.unknown")
    key = f"{group}.{value}"
    return language.label(key) if language.has(key) else visible(value, most=40)


def span_text(language: Language, seconds: float) -> str:
    """A length of time in its largest whole unit: `90 s`, `5 min`, `2 h`."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds == size or (seconds >= 2 * size and seconds % size == 0):
            return language.label(f"plot.{unit}", n=language.number(round(seconds / size)))
    return language.label("plot.second", n=plain_number(language, seconds))


def plain_number(language: Language, value: float) -> str:
    """A number with as many digits as it needs, up to three behind the point below 1 and fewer above."""
    digits = 0 if value >= 100 or value == int(value) else 3 if value < 1 else 1
    return language.decimal(value, digits) if digits else language.number(round(value))


def tick_seconds(language: Language, value: float, _: int | None = None) -> str:
    """Seconds as an axis names them."""
    digits = max(0, -math.floor(math.log10(value) + 1e-9)) if value > 0 else 0
    return language.decimal(value, digits) if digits else language.number(round(value))


def text_columns(text: str) -> int:
    """Cells of a terminal that a text takes, a measure of its width."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _cut(text: str, width: int) -> list[str]:
    """A text in pieces that each fit."""
    if text_columns(text) <= width:
        return [text]
    pieces = [""]
    for char in text:
        if text_columns(pieces[-1]) + text_columns(char) > width:
            pieces.append("")
        pieces[-1] += char
    return pieces


def wrap(parts: Iterable[str], width: int) -> str:
    """Parts one behind the other, a new line where the next one would not fit; one that never would is cut."""
    lines: list[str] = []
    for part in (piece for whole in parts for piece in _cut(whole, width)):
        if lines and text_columns(lines[-1]) + 1 + text_columns(part) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return "\n".join(lines)


def take_columns(table: Table, plot: str, needed: Sequence[str], optional: Sequence[str] = ()) -> Table:
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


def count_by(table: Table, columns: Sequence[str]) -> dict[tuple[Any, ...], int]:
    """Sums of `count` by the values of these columns; null is None."""
    if table.empty:
        return {}
    sums = table.groupby(list(columns), dropna=False, sort=False)["count"].sum()
    return {tuple(plain_value(part) for part in _tuple(key)): int(n) for key, n in sums.items() if n}


def _tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def plain_value(part: Any) -> Any:
    """A value of a table as plain Python has it, None for unknown."""
    if part is None or part is pd.NA or part != part:
        return None
    return int(part) if isinstance(part, np.integer) else part


def in_order(values: Iterable[Any], order: Iterable[str]) -> list[Any]:
    """Values as an enum orders them, unknown ones behind, None last."""
    known = {str(value): place for place, value in enumerate(order)}
    return sorted(set(values), key=lambda v: (v is None, known.get(str(v), len(known)), str(v)))


def find_never_opened(table: Table) -> pd.Series:
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


def width_points(ax: Axes) -> float:
    """Width of the Axes; what the layout will make of it where that is ours and comes only when it is drawn."""
    figure = _root(ax)
    if isinstance(figure, PlotFigure):
        return float(figure.get_size_inches()[0]) * 72 * 0.88
    return float(ax.get_window_extent().width) / ax.figure.dpi * 72


def label_axes(ax: Axes, below: str, beside: str) -> None:
    """Label both axes; the one that stands upright is broken where it would be longer than its axis."""
    figure = _root(ax)
    is_ours = isinstance(figure, PlotFigure)
    inches = figure.get_size_inches()[1] * 0.65 if is_ours else ax.get_window_extent().height / ax.figure.dpi
    # these texts of a given Axes were made before, with other fonts
    ax.set_xlabel(below, fontfamily=_families())
    ax.set_ylabel(wrap(beside.split(" "), max(8, int(inches * 72 / 5.4))), fontfamily=_families())


def write_title(ax: Axes, language: Language, title: str, notes: Iterable[str], *, rows_above: int = 0) -> None:
    """A title with notes under it, on the side where this language begins to read.

    Args:
        ax: Where to.
        language: For its direction.
        title: Lines are broken where they would be too long; so are those of notes.
        notes: Empty ones are left out.
        rows_above: Rows of text that stand between the notes and the Axes.

    """
    is_rtl = language.direction == "rtl"
    text = wrap("; ".join(note for note in notes if note).split(" "), int(width_points(ax) / 4.4))
    above = 11.0 * rows_above + 6
    ax.set_title(
        wrap(title.split(" "), int(width_points(ax) / 6.6)),
        loc="right" if is_rtl else "left",
        pad=above + (12.5 * (text.count("\n") + 1) if text else 2),
        parse_math=False,
        fontfamily=_families(),
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


def add_legend(ax: Axes, handles: Sequence[Any], title: str, *, below: float, columns: int | None = None) -> float:
    """Put a legend under the Axes; returns how far down it reaches, in points."""
    labels = [str(handle.get_label()) for handle in handles]
    if columns is None:
        columns = _fitting_columns([text_columns(label) * 4.6 + 32 for label in labels], width_points(ax))
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


def draw_empty(ax: Axes, language: Language) -> None:
    """Say that there is nothing to draw."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.text(0.5, 0.5, language.label("plot.empty"), transform=ax.transAxes, ha="center", va="center", color=NOTE)


def finish_empty(ax: Axes, language: Language, title: str, notes: Sequence[str]) -> Axes:
    """An Axes that says that there is nothing to draw, below its title and notes."""
    draw_empty(ax, language)
    write_title(ax, language, title, notes)
    describe(ax, title, [language.label("plot.empty"), *notes])
    return ax


def patch_of(look: Look, label: str) -> Patch:
    """What a legend shows for a look."""
    return Patch(facecolor=look.colour, hatch=look.hatch, edgecolor=look.ink, linewidth=0, label=label)


def axis_numbers(language: Language) -> FuncFormatter:
    """Writes the numbers of an axis as the language does."""
    return FuncFormatter(functools.partial(_tick_number, language))  # a lambda would keep a figure from being pickled


def _tick_number(language: Language, value: float, _: int | None = None) -> str:
    return language.number(round(value))


def listed(pairs: Iterable[tuple[str, int]], language: Language) -> str:
    """Names with their numbers in one line."""
    return language.join(f"{name} {language.number(n)}" for name, n in pairs)


def left_out_text(language: Language, key: str, table: Table) -> str:
    """A note on rows that are not shown, for each endpoint by itself; empty where there are none."""
    total = int(table["count"].sum())
    if not total:
        return ""
    counts = language.number(total)
    if "endpoint" in table.columns:
        found = {key[0]: n for key, n in count_by(table, ["endpoint"]).items()}
        counts = listed(((word(language, "endpoint", e), found[e]) for e in in_order(found, Endpoint)), language)
    return language.label(f"plot.{key}", counts=counts)


def describe(ax: Axes, title: str, parts: Iterable[str]) -> None:
    """Put in words what the Axes shows."""
    ax.set_label(". ".join(part for part in (title, *parts) if part)[:WORDS_SHOWN])


def size_for(lanes: int) -> tuple[float, float]:
    """Size in inches of a figure with so many lanes."""
    return FIGURE_INCHES[0], FIGURE_INCHES[1] + 1.3 * max(0, lanes - 2)
