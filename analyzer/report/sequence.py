"""One connection's life as a sequence diagram."""

import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analyzer.knowledge.language import Language
from analyzer.report.figure import (
    FIGURE_INCHES,
    NOTE,
    Table,
    axes_for,
    describe,
    draw_empty,
    label_axes,
    left_out_text,
    or_english,
    own_style,
    plain_number,
    plain_value,
    take_columns,
    word,
    write_title,
)
from analyzer.report.text import visible

LIFE_ROWS = 32
"""Lines of a sequence diagram; what is more is put together."""


PAUSES = ((1.0, 0.02), (0.1, 0.2))
"""A pause is marked where it is as long as one of these in seconds, and this share of the whole life."""


DATA = ("text", "binary", "continuation")


CONTROL = ("ping", "pong")

UNREAD = ("missing", "sealed")

ENDINGS = ("close", "sealed_close", "alert", "rst", "fin", "stream_end", "stream_reset")


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
            continuation, ping, pong, close, reserved, missing, fin, rst, stream_end, stream_reset, sealed,
            sealed_close, alert); packet, payload_bytes and code (of a Close)
            where known.
        ax: Where to draw, None for a figure of its own.
        title: Instead of ours.
        language: English where none is given.

    Raises:
        ValueError: A column is missing.

    """
    table = take_columns(events, "plot_life", ("time", "side", "kind"), ("packet", "payload_bytes", "code", "source"))
    if "source" in table and table["source"].nunique() > 1:
        table = table.drop(columns="packet", errors="ignore")  # a number means little without its file
    language = or_english(language)
    is_known = table["side"].isin(SIDES) & table["time"].notna()
    unknown = left_out_text(language, "without_place", table[~is_known])
    table = table[is_known].sort_values("time", kind="stable", ignore_index=True)
    steps = _steps_of(table)
    with own_style(ax):
        ax = axes_for(ax, (FIGURE_INCHES[0], min(14.0, max(3.4, 1.6 + 0.29 * len(steps)))))
        title = language.label("plot.life_title") if title is None else visible(title)
        label_axes(ax, language.label("plot.life_sides"), language.label("plot.life_axis"))
        notes = [language.count("plot.events", len(table)), language.label("plot.not_to_scale")] if steps else []
        notes += [language.label("plot.put_together")] if any(sum(step.n) > 1 for step in steps) else []
        notes.append(unknown)
        if not steps:
            draw_empty(ax, language)
            words = [language.label("plot.empty")]
        else:
            words = list(_draw_steps(ax, steps, language))
        write_title(ax, language, title, notes, rows_above=1 if steps else 0)
        describe(ax, title, [*notes, "; ".join(words)])
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
    packet, size, code = (plain_value(row.get(name)) for name in ("packet", "payload_bytes", "code"))
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
    "stream_end": ("", "solid", 1.4),
    "stream_reset": ("", "dashdot", 2.0),
    "sealed_close": ("#D55E00", "dashed", 2.4),
    "alert": ("#D55E00", "dashdot", 2.0),
    "missing": ("#CC79A7", "dotted", 2.0),
    "sealed": ("#CC79A7", "dotted", 2.0),
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
        sender = "" if len(step.sides) > 1 else f"{word(language, 'endpoint', step.sides[0])}: "
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
    ax.set_xticks([0, 1], [word(language, "endpoint", side) for side in SIDES], weight="bold", parse_math=False)
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
    if step.kinds[0] in UNREAD:
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
    weight = "bold" if step.kinds[0] in ENDINGS else "normal"
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
        if step.kinds[0] in UNREAD
        else None,
    )


def _step_text(step: _Step, language: Language) -> tuple[str, str]:
    """What stands over a line: what it was, how many, how large, how long; and under it, where both sides sent."""
    names = ", ".join(word(language, "plot", f"event_{kind}") for kind in step.kinds)
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
        parts.append(
            language.label("plot.within", seconds=plain_number(language, (step.last_ns - step.first_ns) / 1e9))
        )
    text = (language.label("plot.times", n=language.number(n), what=names) if n > 1 else names) + (
        f": {', '.join(parts)}" if parts else ""
    )
    if len(step.sides) == 1:
        return text, ""
    sent = []
    for side, of_side, size_of_side in zip(step.sides, step.n, step.payload_bytes, strict=True):
        bytes_sent = f" ({language.count('plot.bytes', size_of_side)})" if size_of_side else ""
        sent.append(f"{word(language, 'endpoint', side)} {language.number(of_side)}{bytes_sent}")
    return text, ", ".join(sent)
