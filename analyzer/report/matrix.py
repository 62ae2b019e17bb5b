"""Plots of how often two things came together: who closed and how it ended, what either side reports."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

from analyzer.knowledge.language import Language
from analyzer.model import End, Initiator, Provenance
from analyzer.report.figure import (
    FIGURE_INCHES,
    OTHER,
    Table,
    axes_for,
    count_by,
    describe,
    find_never_opened,
    finish_empty,
    in_order,
    label_axes,
    left_out_text,
    or_english,
    own_style,
    take_columns,
    text_columns,
    width_points,
    word,
    write_title,
)
from analyzer.report.text import visible


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
    table = take_columns(connections, "plot_ends", ("initiator", "end"), ("handshake",))
    language = or_english(language)
    hidden = find_never_opened(table)
    counts = count_by(table[~hidden], ("initiator", "end"))
    rows = in_order((key[0] for key in counts), Initiator)
    columns = in_order((key[1] for key in counts), End)
    return _plot_matrix(
        ax,
        counts,
        [(row, word(language, "initiator", row)) for row in rows],
        [(column, word(language, "end", column)) for column in columns],
        name="ends",
        left_out=left_out_text(language, "left_out", table[hidden]),
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
    table = take_columns(connections, "plot_views", names, ("handshake",))
    language = or_english(language)
    hidden = find_never_opened(table)
    found: dict[tuple[Any, Any], int] = {}
    for key, n in count_by(table[~hidden], names).items():
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
        left_out=left_out_text(language, "left_out", table[hidden]),
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
    known = word(language, "provenance", provenance or str(Provenance.UNDETERMINED))
    return known if code is None else f"{code}\n{known}"


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
    """Draw counts as shaded cells with their number; rows and columns are values with their names."""
    values = np.array([[counts.get((row, column), 0) for column, _ in columns] for row, _ in rows], dtype=float)
    size = (FIGURE_INCHES[0], max(2.8, 1.7 + 0.52 * len(rows)))
    with own_style(ax):
        ax = axes_for(ax, size)
        title = language.label(f"plot.{name}_title") if title is None else visible(title)
        label_axes(ax, language.label(f"plot.{name}_columns"), language.label(f"plot.{name}_rows"))
        notes = [language.count("plot.connections", int(values.sum()))] if values.size else []
        notes.append(left_out)
        if not values.size:
            return finish_empty(ax, language, title, notes)
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
        widest = max(text_columns(line) for _, text in columns for line in text.split("\n")) * 5.0 + 6
        is_tight = widest > width_points(ax) / len(columns)
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
        write_title(ax, language, title, notes)
        describe(ax, title, ["; ".join(words), *notes])
    return ax


def _luminance(colour: tuple[float, float, float, float]) -> float:
    red, green, blue, _ = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue
