"""Pictures of closes and connections with matplotlib: each function takes a table, draws on an Axes and returns it.

A table has one row per view or connection, as `Analysis.closes` and `Analysis.connections`, or one per group of them
with their number in a column `count`. Views of clients and servers are never summed: each endpoint has a lane of its
own. What a plot leaves out stands under its title.

Where no Axes is given, the figure is white, of its own size, and not one of pyplot's: it shows itself in a notebook,
and nothing of it stays behind. On a given Axes only text and data are ours; its own style holds. Colours are those of
Okabe and Ito with hatches beside them, so that grey print and colour-blind readers lose nothing. The Axes' label
(`Axes.get_label`) says in words what the plot shows; `save_figure` writes it into an SVG.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analyzer.knowledge import catalogue
from analyzer.knowledge.language import Language
from analyzer.model import Endpoint, Provenance
from analyzer.report.counts import bucket
from analyzer.report.figure import (
    FIGURE_INCHES,
    GRID,
    ILLEGAL,
    NO_CODE,
    PROVENANCE_LOOKS,
    UNOPENED,
    PlotAxes,
    PlotFigure,
    Table,
    add_legend,
    axes_for,
    axis_numbers,
    count_by,
    describe,
    draw_empty,
    in_order,
    label_axes,
    listed,
    or_english,
    own_style,
    patch_of,
    save_figure,
    take_columns,
    text_columns,
    width_points,
    word,
    write_title,
)
from analyzer.report.lanes import OTHER_LOOK, plot_durations, plot_silences, plot_timeline
from analyzer.report.matrix import plot_ends, plot_views
from analyzer.report.sequence import plot_life
from analyzer.report.text import visible

__all__ = [
    "CODE_LOOKS",
    "PROVENANCE_LOOKS",
    "PlotAxes",
    "PlotFigure",
    "plot_codes",
    "plot_durations",
    "plot_ends",
    "plot_life",
    "plot_silences",
    "plot_timeline",
    "plot_views",
    "save_figure",
]
from analyzer.report.lanes import CODE_LOOKS


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
    table = take_columns(closes, "plot_codes", ("endpoint", "code", "provenance"), ("evidence",))
    language = or_english(language)
    columns = [name for name in ("endpoint", "code", "provenance", "evidence") if name in table.columns]
    found: dict[str | None, dict[Any, dict[str, int]]] = {}
    for key, n in count_by(table, columns).items():
        view = dict(zip(columns, key, strict=True))
        # a proxy's views have a lane of their own, so its codes may stand as others'
        kind = bucket("", view["code"], view["provenance"] or "", view.get("evidence") or "")
        named = {"undetermined": NO_CODE, "never_opened": UNOPENED}.get(kind, (kind == ILLEGAL, view["code"]))
        counts = found.setdefault(view["endpoint"], {}).setdefault(named, {})
        provenance = view["provenance"] or str(Provenance.UNDETERMINED)
        counts[provenance] = counts.get(provenance, 0) + n
    lanes = {endpoint: _code_bars(found[endpoint], top, language) for endpoint in in_order(found, Endpoint)}
    n_rows = sum(len(bars) + 1 for bars in lanes.values())
    with own_style(ax):
        ax = axes_for(ax, (FIGURE_INCHES[0], min(14.0, max(3.0, 1.5 + 0.24 * n_rows))))
        title = language.label("plot.codes_title") if title is None else visible(title)
        label_axes(ax, language.label("plot.views_axis"), language.label("plot.code_axis"))
        words = list(_draw_code_bars(ax, lanes, language))
        write_title(ax, language, title, [language.label("plot.codes_note")] if words else [])
        describe(ax, title, words or [language.label("plot.empty")])
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
        draw_empty(ax, language)
        return
    most = max(bar.n for bars in lanes.values() for bar in bars)
    stacks: dict[str, list[tuple[int, int, int]]] = {}
    ticks, names, y = [], [], 0
    for endpoint, bars in lanes.items():
        total = sum(bar.n for bar in bars if bar.shared)
        ax.annotate(
            f"{word(language, 'endpoint', endpoint)}: {language.count('plot.views', total)}",
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
            for provenance in in_order(bar.counts, Provenance):
                stacks.setdefault(provenance, []).append((y, left, bar.counts[provenance]))
                left += bar.counts[provenance]
            share = f" ({language.percent(bar.n / total)})" if bar.shared else ""
            text = f"{language.number(bar.n)}{share}"
            ax.annotate(text, xy=(bar.n, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
            ticks.append(y)
            names.append(bar.name)
            known = listed(
                ((word(language, "provenance", p), bar.counts[p]) for p in in_order(bar.counts, Provenance)), language
            )
            words.append(f"{bar.name}: {known}")
        yield f"{word(language, 'endpoint', endpoint)}: {'; '.join(words)}"
        y += 1
    handles = []
    for provenance in in_order(stacks, Provenance):
        look = PROVENANCE_LOOKS.get(provenance, OTHER_LOOK)
        ys, lefts, widths = zip(*stacks[provenance], strict=True)
        name = word(language, "provenance", provenance)
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
        handles.append(patch_of(look, name))
    ax.set_yticks(ticks, names, parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(y - 0.4, -0.6)
    room = width_points(ax) - 5.2 * max(map(text_columns, names))
    ax.set_xlim(0, most / max(0.3, 1 - 85 / max(room, 1)))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(axis_numbers(language))
    ax.grid(axis="x", **GRID)
    add_legend(ax, handles, language.label("plot.provenance_legend"), below=38)
