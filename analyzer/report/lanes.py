"""Plots with a lane for each endpoint: ends over time, and how long connections lasted or were silent."""

import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analyzer.knowledge import timers
from analyzer.knowledge.language import Language
from analyzer.model import Endpoint
from analyzer.report.figure import (
    ALL,
    FIGURE_INCHES,
    GRID,
    NEVER_OPENED_LOOK,
    NO_CODE,
    NO_CODE_LOOK,
    OTHER,
    RIGHT_TO_LEFT_MARK,
    UNOPENED,
    Look,
    Table,
    add_legend,
    axes_for,
    count_by,
    describe,
    find_never_opened,
    finish_empty,
    in_order,
    label_axes,
    left_out_text,
    listed,
    matplotlib_dates,
    or_english,
    own_style,
    patch_of,
    plain_number,
    size_for,
    span_text,
    take_columns,
    text_columns,
    tick_seconds,
    width_points,
    word,
    wrap,
    write_title,
)
from analyzer.report.series import STEPS_NS
from analyzer.report.text import visible
from analyzer.selection import ORIGIN_NS, parse_step

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
        for key, n in count_by(part, columns).items():
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
    return _Lanes({name: found[name] for name in in_order(found, Endpoint)}, keys)


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
            text = f"{word(language, 'endpoint', lane)}: {language.count(noun, lanes.total(lane))}"
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
    return [patch_of(looks[key], _key_name(key, language)) for key in lanes.keys]


def _lanes_in_words(lanes: _Lanes, language: Language) -> Iterator[str]:
    for lane, by_key in lanes.counts.items():
        counted = listed(
            ((_key_name(key, language), sum(by_key[key].values())) for key in lanes.keys if key in by_key), language
        )
        yield counted if lane is None else f"{word(language, 'endpoint', lane)}: {counted}"


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
    table = take_columns(closes, "plot_timeline", ("time", "endpoint", "code"), ("evidence",))
    language = or_english(language)
    untimed = left_out_text(language, "without_time", table[table["time"].isna()])
    table = table[table["time"].notna() & (table["count"] > 0)]
    times = table["time"].to_numpy(dtype="datetime64[ns]").astype("int64")
    step_ns = _fit_step(times) if freq is None else parse_step(freq)
    table = table.assign(step=(times - ORIGIN_NS) // step_ns, hidden=find_never_opened(table))
    lanes = _stack(table, "endpoint", "code", top)
    if len(table) and int(table["step"].max() - table["step"].min()) >= STEPS_LIMIT:
        raise ValueError(f"plot_timeline: steps of {freq} make more than {STEPS_LIMIT:,} bars")

    def place(steps: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        starts = (steps.astype("int64") * step_ns + ORIGIN_NS).astype("datetime64[ns]")
        return matplotlib_dates.date2num(starts), step_ns / 86400e9

    with own_style(ax):
        ax = axes_for(ax, size_for(len(lanes.counts)))
        title = language.label("plot.timeline_title") if title is None else visible(title)
        step = span_text(language, step_ns / 1e9)
        label_axes(ax, language.label("plot.time_axis"), language.label("plot.per_step_axis", step=step))
        notes = [untimed]
        if not lanes.counts:
            return finish_empty(ax, language, title, notes)
        handles = _draw_lanes(ax, lanes, place, language, "plot.views", is_named=True)
        first, last = int(table["step"].min()), int(table["step"].max())
        left, width = place(np.array([first, last]))
        around = max(0.5, (12 - (last - first)) / 2) * width  # one bar alone would fill the plot
        ax.set_xlim(left[0] - around, left[1] + width + around)
        locator = matplotlib_dates.AutoDateLocator(tz="UTC", minticks=4, maxticks=9)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(
            matplotlib_dates.ConciseDateFormatter(
                locator,
                tz="UTC",
                formats=["%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M", "%H:%M:%S.%f"],
                zero_formats=["", "%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M"],
                offset_formats=["", "%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%d", "%Y-%m-%d %H:%M"],
            )
        )
        add_legend(ax, handles, language.label("plot.code_legend"), below=38)
        write_title(ax, language, title, [language.label("plot.timeline_note", step=step), *notes])
        describe(ax, title, [*_lanes_in_words(lanes, language), *notes])
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
    table = take_columns(closes, "plot_durations", ("duration_s", "endpoint", "code"), ("evidence",))
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
    table = take_columns(connections, "plot_silences", ("silence_s",), ("client_view_code", "handshake"))
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
    least = 1 if counts.sum() <= FEW else timers.GATHERED
    for seconds, n, candidates in timers.gatherings(values, counts, kinds, least=least):
        systems: dict[str, list[str]] = {}
        for timer in candidates:
            of_kind = systems.setdefault(timer.kind, [])
            if timer.system not in of_kind:
                of_kind.append(timer.system)
        found.append(_Mark(seconds, n, systems))
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
    """Draw the distribution of `duration` or `silence` on a logarithmic axis, with the timers that fit."""
    language = or_english(language)
    column = f"{measure}_s"
    hidden = find_never_opened(table)
    is_known = table[column].notna() & np.isfinite(table[column])
    left_out = [
        left_out_text(language, f"without_{measure}", table[~hidden & ~is_known]),
        left_out_text(language, "left_out", table[hidden]),
    ]
    table = table[~hidden & is_known & (table["count"] > 0)]
    values, counts = table[column].to_numpy(dtype="float64"), table["count"].to_numpy(dtype="int64")
    shown = np.maximum(values, LEAST_S)
    decades = math.log10(shown.max() / shown.min()) if len(shown) else 0.0
    n_bins = np.clip(4 * math.sqrt(counts.sum()), *BINS_SHOWN)
    per_decade = int(np.clip(n_bins / max(decades, 0.1), *BINS_PER_DECADE))
    table = table.assign(step=np.floor(np.log10(shown) * per_decade + 1e-9).astype("int64"))
    lanes = _stack(table, lane, code, top)
    kinds = timers.MEASURES[measure]
    all_marks = _marks_of(table, lane, column, kinds)
    marks = sorted(sorted(all_marks, key=lambda mark: (-mark.n, mark.seconds))[:MARKS_SHOWN])

    def place(steps: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        left = 10.0 ** (steps / per_decade)
        return left, 10.0 ** ((steps + 1) / per_decade) - left

    with own_style(ax):
        ax = axes_for(ax, (FIGURE_INCHES[0], size_for(len(lanes.counts))[1] + 0.28 * len(marks)))
        title = language.label(f"plot.{measure}s_title") if title is None else visible(title)
        label_axes(
            ax,
            language.label(f"plot.{measure}_axis"),
            language.label("plot.views_axis" if lane else "plot.connections_axis"),
        )
        notes = [] if lane or not lanes.counts else [language.count(noun, int(counts.sum()))]
        notes += left_out
        if len(shown) and values.min() < LEAST_S:
            notes.append(language.label("plot.at_least", least=tick_seconds(language, LEAST_S)))
        if not lanes.counts:
            return finish_empty(ax, language, title, notes)
        ax.set_xscale("log")
        handles = _draw_lanes(ax, lanes, place, language, noun, is_named=lane is not None)
        low, high = shown.min(), shown.max()
        stretch = 10 ** max(0.04 * decades, 0.1, 0.6 - decades / 2)
        ax.set_xlim(low / stretch, high * stretch)
        ax.xaxis.set_major_locator(LogLocator(10, subs=(1,) if decades > 2 else (1, 2, 5), numticks=15))
        ax.xaxis.set_minor_locator(LogLocator(10, subs=range(2, 10), numticks=15))
        ax.xaxis.set_major_formatter(FuncFormatter(functools.partial(tick_seconds, language)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        below = 38.0
        if code is not None:
            below = add_legend(ax, handles, language.label(f"plot.{measure}_legend"), below=below) + 4
        rows_above = _draw_marks(ax, marks, measure, language, below=below, n_more=len(all_marks) - len(marks))
        write_title(ax, language, title, notes, rows_above=rows_above)
        marked = [
            f"{language.label('plot.second', n=plain_number(language, m.seconds))}: {_names(m, language)}"
            for m in marks
        ]
        describe(ax, title, [*_lanes_in_words(lanes, language), *notes, *marked])
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
    return "; ".join(f"{word(language, 'timer', kind)}: {', '.join(systems)}" for kind, systems in mark.systems.items())


def _draw_marks(
    ax: Axes, marks: Sequence[_Mark], measure: str, language: Language, *, below: float, n_more: int
) -> int:
    """Draw a line at each mark, and name all its candidates below; returns how many rows of text stand above."""
    low, high = ax.get_xlim()
    width = width_points(ax)
    ink = mpl.rcParams["text.color"]
    ends: list[float] = []
    handles = []
    n_columns = int((width - 30) / 4.4)
    for mark in marks:
        ax.axvline(
            mark.seconds, color=ink, linewidth=1.1, linestyle=(0, (4, 2)), zorder=0.9, label=f"{mark.seconds:g} s"
        )
        text = language.label("plot.second", n=plain_number(language, mark.seconds))
        half = (text_columns(text) * 4.8 + 6) / 2
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
            name = word(language, "timer", kind)
            if measure == "duration" and kind == "idle":
                name = language.label("plot.idle_since_opening", idle=name)
            lines += wrap([f"{name}:", *(f"{one}," for one in systems[:-1]), systems[-1]], n_columns).split("\n")
        if language.direction == "rtl":  # else a line that begins with a system's name would run the other way
            lines = [f"{RIGHT_TO_LEFT_MARK}{line}" for line in lines]
        handles.append(Line2D([], [], color=ink, linewidth=1.1, linestyle=(0, (4, 2)), label="\n".join(lines)))
    if handles:
        about = language.label("plot.marks_legend")
        more = f" {language.count('plot.more_marks', n_more)}" if n_more else ""
        add_legend(ax, handles, about + more, below=below, columns=1)
    return len(ends)


def _both_units(language: Language, seconds: float) -> str:
    """`300 s (5 min)`; one where both are the same."""
    plain = language.label("plot.second", n=plain_number(language, seconds))
    span = span_text(language, seconds)
    return plain if span == plain or seconds <= 60 else f"{plain} ({span})"
