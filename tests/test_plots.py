"""What plots show is what was counted by hand; they draw anything, in every language, and leave nothing behind."""

import functools
import io
import math
import pickle
import re
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from conftest import SAMPLES
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle

import analyzer
from analyzer.errors import UsageError
from analyzer.knowledge import language as languages
from analyzer.knowledge import timers
from analyzer.report import figure as shared
from analyzer.report import lanes, plots, sequence

DAY = 86400.0


def table(columns, *rows):
    return pd.DataFrame([dict(zip(columns.split(), row, strict=True)) for row in rows], columns=columns.split())


def closes(*rows):
    """Rows of endpoint, code, provenance, evidence, count."""
    frame = table("endpoint code provenance evidence count", *rows)
    return frame.astype({"code": "Int32", "count": "int64"})


def ends(*rows):
    """Rows of time, endpoint, code, count."""
    frame = table("time endpoint code count", *rows)
    return frame.assign(
        time=pd.to_datetime(frame["time"], utc=True, format="ISO8601"), code=frame["code"].astype("Int32")
    )


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def legends(ax):
    """Texts of each legend by its title."""
    found = [child for child in ax.get_children() if isinstance(child, Legend)]
    return {legend.get_title().get_text(): [text.get_text() for text in legend.get_texts()] for legend in found}


def bars(ax):
    """{name of a row: {provenance: (left, width)}} of a horizontal bar plot, rows by the heading above them."""
    rows = dict(zip(ax.get_yticks(), (label.get_text() for label in ax.get_yticklabels()), strict=True))
    heads = {round(text.xy[1]): text.get_text() for text in ax.texts if text.get_weight() == "bold"}
    found = {}
    for container in ax.containers:
        for patch in container:
            y = round(patch.get_y() + patch.get_height() / 2)
            head = heads[max(place for place in heads if place < y)]
            row = found.setdefault(head, {}).setdefault(rows[y], {})
            row[container.get_label()] = (round(patch.get_x()), round(patch.get_width()))
    return found


def stacks(ax):
    """{lane: {code: {left edge: (height above the lane, height)}}} of vertical bars."""
    bases = sorted({line.get_ydata()[0] for line in ax.lines if line.get_linewidth() == 0.8})
    found = {}
    for container in ax.containers:
        lane, key = container.get_label().split(": ")
        by_key = found.setdefault(lane, {}).setdefault(key, {})
        for patch in container:
            base = max(b for b in bases if b <= patch.get_y() + 1e-9)
            by_key[patch.get_x()] = (round(patch.get_y() - base), round(patch.get_height()))
    return found


def heights(ax):
    """{lane: {code: number}}."""
    return {
        lane: {key: sum(height for _, height in steps.values()) for key, steps in by_key.items()}
        for lane, by_key in stacks(ax).items()
    }


def marks(ax):
    return [line.get_xdata()[0] for line in ax.lines if re.fullmatch(r"[\d.]+ s", str(line.get_label()))]


CODES = closes(
    ("client", 1000, "wire", "status", 3),
    ("client", 1006, "synthesized", "no_close_rst", 4),
    ("client", 1006, "inferred", "sealed_no_close", 1),
    ("client", None, "undetermined", "gap", 2),
    ("client", 1006, "synthesized", "handshake_rejected", 5),
    ("server", 1006, "wire", "status", 1),
    ("server", 1006, "synthesized", "no_close_fin", 7),
)


def test_codes_stand_by_provenance_for_each_endpoint():
    assert bars(plots.plot_codes(CODES)) == {
        "client: 10 views": {
            "1006 Abnormal Closure": {"synthesized": (0, 4), "inferred": (4, 1)},
            "1000 Normal Closure": {"wire": (0, 3)},
            "no code": {"undetermined": (0, 2)},
            "never opened": {"synthesized": (0, 5)},
        },
        "server: 8 views": {
            "1006 Abnormal Closure": {"synthesized": (0, 7)},
            "1006, not allowed on the wire": {"wire": (0, 1)},
        },
    }


def test_codes_are_written_with_their_shares_within_the_endpoint():
    ax = plots.plot_codes(CODES)
    assert texts(ax) == [
        "client: 10 views",
        "5 (50.0 %)",
        "3 (30.0 %)",
        "2 (20.0 %)",
        "5",  # never opened: no share
        "server: 8 views",
        "7 (87.5 %)",
        "1 (12.5 %)",
        "shares are within one endpoint, without what was never opened",
    ]
    assert legends(ax) == {"how the code is known": ["wire", "synthesized", "inferred", "undetermined"]}


def test_the_most_frequent_code_stands_at_the_top_of_its_endpoint():
    ax = plots.plot_codes(CODES)
    low, high = ax.get_ylim()
    assert low > high
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["1006 Abnormal Closure", "1000 Normal Closure"]


def test_rows_and_groups_of_rows_show_the_same():
    groups = CODES
    rows = groups.loc[groups.index.repeat(groups["count"])].drop(columns="count").sample(frac=1, random_state=1)
    assert bars(plots.plot_codes(rows)) == bars(plots.plot_codes(groups))


def test_codes_beyond_the_top_are_one_bar():
    many = closes(*(("client", 4000 + n, "wire", "status", 10 - n) for n in range(5)))
    assert bars(plots.plot_codes(many, top=3)) == {
        "client: 40 views": {
            "4000 Private Use": {"wire": (0, 10)},
            "4001 Private Use": {"wire": (0, 9)},
            "4002 Private Use": {"wire": (0, 8)},
            "2 other codes": {"wire": (0, 13)},
        }
    }


def test_numbers_that_no_close_carries_are_shown_as_they_are():
    odd = closes(("client", 70000, "reported", "log_stated", 1), ("client", 0, "reported", "log_stated", 2))
    (lane,) = bars(plots.plot_codes(odd)).values()
    assert list(lane) == ["0 Not Used", "70000"]


def test_the_samples_are_counted_as_pandas_counts_them():
    samples = analyzer.read(SAMPLES).closes
    opened = samples[~samples["evidence"].isin(["handshake_rejected", "handshake_failed", "tls_alert"])]
    expected = opened.groupby(["endpoint", "code"], observed=True).size()
    undetermined = opened[opened["code"].isna()].groupby("endpoint", observed=True).size()
    found = bars(plots.plot_codes(samples, top=100))
    assert [head.split(":")[0] for head in found] == ["client", "server", "side not told"]
    for head, rows in found.items():
        endpoint = {"side not told": "unknown"}.get(head.split(":")[0], head.split(":")[0])
        counted = {}
        for name, parts in rows.items():
            code = int(name[:4]) if name[0].isdigit() else name
            counted[code] = counted.get(code, 0) + sum(width for _, width in parts.values())
        counted.pop("never opened", None)
        assert counted.pop("no code", 0) == undetermined.get(endpoint, 0)
        assert counted == expected[endpoint].to_dict()


TIMES = ends(
    ("2026-11-20T10:00:00Z", "client", 1006, 2),
    ("2026-11-20T10:59:59.999999999Z", "client", 1006, 1),
    ("2026-11-20T10:30:00Z", "client", 1000, 4),
    ("2026-11-20T13:00:00Z", "client", None, 1),
    ("2026-11-20T10:30:00Z", "server", 1006, 9),
    (None, "server", 1000, 3),
)


def at(text):
    return dates.date2num(np.datetime64(text))


def test_ends_over_time_are_stacked_by_code_in_each_endpoints_lane():
    ax = plots.plot_timeline(TIMES, freq="1h")
    ten, one = at("2026-11-20T10:00"), at("2026-11-20T13:00")
    assert stacks(ax) == {
        "client": {"1006": {ten: (0, 3)}, "1000": {ten: (3, 4)}, "no_code": {one: (0, 1)}},
        "server": {"1006": {ten: (0, 9)}},
    }
    assert {round(patch.get_width() * 24, 9) for container in ax.containers for patch in container} == {1}
    assert texts(ax) == [
        "server: 9 views",
        "client: 8 views",
        "each bar is 1 h; without a time, not shown: server 3",
    ]
    assert legends(ax) == {"close code": ["1006", "1000", "no code"]}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (UTC)", "views (number per 1 h)")


def test_lanes_share_a_scale_and_each_has_its_own_zero():
    ax = plots.plot_timeline(TIMES, freq="1h")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [*labels[: len(labels) // 2]] * 2
    assert labels[0] == "0"
    zeros = [tick for tick, label in zip(ax.get_yticks(), labels, strict=True) if label == "0"]
    assert zeros == [0, pytest.approx(9 * 1.25)]


@pytest.mark.parametrize(
    ("last", "step"),
    [
        ("2026-11-20T00:00:00Z", "1 s"),
        ("2026-11-20T00:01:00Z", "1 s"),
        ("2026-11-20T01:00:00Z", "1 min"),
        ("2026-11-21T00:00:00Z", "20 min"),
        ("2026-11-27T00:00:00Z", "2 h"),
        ("2027-11-20T00:00:00Z", "7 d"),
        ("2126-11-20T00:00:00Z", "448 d"),
    ],
)
def test_the_step_fits_the_data(last, step):
    ax = plots.plot_timeline(ends(("2026-11-20T00:00:00Z", "client", 1000, 1), (last, "client", 1000, 1)))
    assert ax.get_ylabel() == f"views (number per {step})"
    assert heights(ax) == {"client": {"1000": 2}}
    ax.figure.canvas.draw()


def test_weeks_begin_on_mondays():
    ax = plots.plot_timeline(ends(("2026-11-22T23:00:00Z", "client", 1000, 1)), freq="1w")
    assert stacks(ax) == {"client": {"1000": {at("2026-11-16"): (0, 1)}}}


def test_times_in_other_zones_and_without_one_are_utc():
    frame = TIMES.assign(time=TIMES["time"].dt.tz_convert("Asia/Bangkok"))
    assert stacks(plots.plot_timeline(frame, freq="1h")) == stacks(plots.plot_timeline(TIMES, freq="1h"))
    frame = TIMES.assign(time=TIMES["time"].dt.tz_localize(None))
    assert stacks(plots.plot_timeline(frame, freq="1h")) == stacks(plots.plot_timeline(TIMES, freq="1h"))


def test_times_may_be_text():
    frame = TIMES.assign(
        time=["2026-11-20T10:00:00Z", "2026-11-20T10:59:59.999999999Z", "2026-11-20 10:30", *[None] * 3]
    )
    assert heights(plots.plot_timeline(frame, freq="1h")) == {"client": {"1006": 3, "1000": 4}}


def test_a_step_that_is_none_is_refused():
    with pytest.raises(UsageError, match="soon: not a step of time"):
        plots.plot_timeline(TIMES, freq="soon")
    with pytest.raises(ValueError, match=r"plot_timeline: steps of 1s make more than 5,000 bars"):
        plots.plot_timeline(TIMES, freq="1s")


def test_codes_beyond_the_top_are_other_and_what_never_opened_is_told_apart():
    frame = ends(*(("2026-11-20T10:00:00Z", "client", 4000 + n, 10 - n) for n in range(5)))
    frame["evidence"] = ["status", "status", "status", "handshake_failed", "status"]
    ax = plots.plot_timeline(frame, freq="1h", top=2)
    assert heights(ax) == {"client": {"4000": 10, "4001": 9, "other": 14, "never_opened": 7}}
    assert legends(ax) == {"close code": ["4000", "4001", "other", "never opened"]}


def seconds(column, *rows, **more):
    frame = table(f"{column} count", *rows)
    return frame.assign(**more)


IDLE = [(59.8, 40), (60.1, 30), (2.0, 5), (7.0, 5), (200.0, 5)]


def test_silences_stand_on_a_logarithmic_axis():
    frame = seconds(
        "silence_s", (0.5, 2), (0.5001, 1), (100.0, 4), (None, 6), client_view_code=[1006, 1000, 1006, 1006]
    )
    frame["handshake"] = "complete"
    rejected = frame.tail(1).assign(silence_s=1.0, handshake="rejected", count=8)
    ax = plots.plot_silences(pd.concat([frame, rejected]))
    assert ax.get_xscale() == "log"
    found = stacks(ax)["None"]
    assert list(found) == ["1006", "1000"]
    half, hundred = sorted(found["1006"])
    assert half <= 0.5 < half * 1.2
    assert hundred <= 100 < hundred * 1.2
    assert found["1006"] == {half: (0, 2), hundred: (0, 4)}
    assert found["1000"] == {half: (2, 1)}
    assert texts(ax) == [
        "7 connections; without a known silence, not shown: 6; never opened, not shown: 8",
    ]
    assert legends(ax) == {"close code that the client reports": ["1006", "1000"]}
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "silence before the end (seconds, logarithmic)",
        "connections (number)",
    )
    ax.figure.canvas.draw()
    assert {"1", "10", "100"} <= {label.get_text() for label in ax.get_xticklabels()}


def test_a_timer_where_ends_gather_is_marked_with_all_its_candidates():
    ax = plots.plot_silences(seconds("silence_s", *IDLE))
    assert marks(ax) == [60.0]
    (title, (entry,)), *rest = legends(ax).items()
    assert rest == []
    assert title == "Known timers where ends gather: candidates, no proof"
    head, *lines = entry.split("\n")
    assert head == "60 s: 70 ends within 2 %"
    by_kind = {}
    for timer in timers.candidates(60, ("idle", "heartbeat", "write-stall")):
        by_kind.setdefault(timer.kind, {})[timer.system] = None
    assert " ".join(lines) == (
        f"idle limit: {', '.join(by_kind['idle'])} "
        f"heartbeat: {', '.join(by_kind['heartbeat'])} "
        f"stalled write: {', '.join(by_kind['write-stall'])}"
    )
    assert len(by_kind["idle"]) == 9
    assert "60 s" in texts(ax)


def test_silences_are_not_explained_by_lifetimes_nor_by_closing_handshakes():
    ax = plots.plot_silences(seconds("silence_s", (7200.0, 50), (2.0, 50), (1.0, 3)))
    assert marks(ax) == []
    assert legends(ax) == {}


def test_ends_that_lie_around_a_timer_without_gathering_are_not_marked():
    spread = [(float(value), 10) for value in np.geomspace(20, 200, 200)]
    assert marks(plots.plot_silences(seconds("silence_s", *spread))) == []
    assert marks(plots.plot_silences(seconds("silence_s", *spread, (60.0, 200)))) == [60.0]


def test_one_end_near_a_timer_is_marked_among_few_and_not_among_many():
    assert marks(plots.plot_silences(seconds("silence_s", (60.5, 1), (3.7, 4)))) == [60.0]
    assert marks(plots.plot_silences(seconds("silence_s", (60.5, 1), (3.7, 40)))) == []
    assert marks(plots.plot_silences(seconds("silence_s", (61.3, 1), (3.7, 4)))) == []


def test_no_more_than_six_timers_are_marked_those_with_most_ends():
    values = [(5, 9), (10, 8), (20, 4), (30, 20), (60, 30), (120, 40), (300, 50), (900, 60)]
    ax = plots.plot_silences(seconds("silence_s", *((float(v), n) for v, n in values)))
    assert marks(ax) == [5, 30, 60, 120, 300, 900]
    (title,) = legends(ax)
    assert title.endswith("(2 more values not marked)")
    assert "300 s (5 min): 50 ends within 2 %" in legends(ax)[title][4]


def durations(*rows):
    frame = table("duration_s endpoint code count", *rows)
    return frame.assign(code=frame["code"].astype("Int32"))


def test_durations_are_never_summed_over_endpoints():
    frame = durations(
        (7199.0, "client", 1001, 30), (7200.0, "server", 1001, 20), (5.5, "client", 1000, 9), (None, "client", 1, 2)
    )
    frame["evidence"] = "status"
    hidden = durations((3.0, "client", 1006, 4), (3.0, "server", 1006, 3)).assign(evidence="handshake_rejected")
    ax = plots.plot_durations(pd.concat([frame, hidden]))
    assert heights(ax) == {"client": {"1001": 30, "1000": 9}, "server": {"1001": 20}}
    assert marks(ax) == [7200.0]
    assert legends(ax)["Known timers where ends gather: candidates, no proof"] == [
        "7,200 s (2 h): 30 ends within 2 %\nmaximum age: AWS API Gateway"
    ]
    note = texts(ax)[-1]
    assert note == ("without a duration, not shown: client 2; never opened, not shown: client 4, server 3")
    assert ax.get_xlabel() == "duration (seconds, logarithmic)"


def test_an_idle_limit_explains_a_duration_only_where_nothing_was_sent_and_says_so():
    ax = plots.plot_durations(durations((30.0, "client", 1006, 30)))
    (entry,) = legends(ax)["Known timers where ends gather: candidates, no proof"]
    assert entry.split("\n") == [
        "30 s: 30 ends within 2 %",
        "maximum age: GCP external ALB",
        "idle limit, if nothing came after the opening: Jetty 10 to 12, OKX",
    ]


def test_times_below_a_millisecond_stand_at_one_and_it_is_said():
    ax = plots.plot_silences(seconds("silence_s", (0.0, 2), (0.0004, 3), (1.5, 1)))
    assert list(stacks(ax)["None"]["all"].items()) == [
        (pytest.approx(0.001), (0, 5)),
        (pytest.approx(1.5, rel=0.2), (0, 1)),
    ]
    assert texts(ax) == ["6 connections; shorter times stand at 0.001 s"]


def cells(ax):
    """{(row, column): text} of a matrix."""
    rows = [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]
    columns = [label.get_text().replace("\n", " ") for label in ax.get_xticklabels()]
    found = {}
    for text in ax.texts:
        x, y = text.get_position()
        if text.get_transform() == ax.transData and text.get_text() != "·":
            found[rows[int(y)], columns[int(x)]] = text.get_text()
    return rows, columns, found


def test_ends_are_a_matrix_of_who_closed_and_how_the_transport_ended():
    frame = table(
        "initiator end handshake count",
        ("server", "fin", "complete", 1234),
        ("client", "fin", "complete", 2),
        ("none", "rst", "missing", 5),
        ("none", "fin", "rejected", 7),
        ("unknown", None, "complete", 1),
    )
    ax = plots.plot_ends(frame)
    assert cells(ax) == (
        ["client", "server", "nobody", "unknown"],
        ["FIN", "RST", "unknown"],
        {
            ("server", "FIN"): "1,234",
            ("client", "FIN"): "2",
            ("nobody", "RST"): "5",
            ("unknown", "unknown"): "1",
        },
    )
    low, high = ax.get_ylim()
    assert low > high
    assert texts(ax)[-1] == "1,242 connections; never opened, not shown: 7"
    assert ax.get_ylabel() == "first Close sent by"
    assert ax.get_xlabel() == "end of the transport (number of connections)"


def pairs(*rows):
    return table("client_view_code client_view_provenance server_view_code server_view_provenance count", *rows).astype(
        {"client_view_code": "Int32", "server_view_code": "Int32"}
    )


def test_views_of_both_sides_are_a_matrix():
    ax = plots.plot_views(
        pairs(
            (1006, "synthesized", 1000, "wire", 3),
            (1006, "synthesized", 1006, "synthesized", 4),
            (1006, "inferred", 1006, "synthesized", 1),
            (None, "undetermined", None, "undetermined", 2),
            (1000, "wire", None, None, 6),
        )
    )
    assert cells(ax) == (
        ["1000 wire", "1006 inferred", "1006 synthesized", "undetermined"],
        ["1000 wire", "1006 synthesized", "undetermined"],
        {
            ("1006 synthesized", "1000 wire"): "3",
            ("1006 synthesized", "1006 synthesized"): "4",
            ("1006 inferred", "1006 synthesized"): "1",
            ("undetermined", "undetermined"): "2",
            ("1000 wire", "undetermined"): "6",
        },
    )
    framed = [(round(p.get_y(), 1), round(p.get_x(), 1)) for p in ax.patches if isinstance(p, Rectangle)]
    assert framed == [(1.1, 1.0), (2.1, 1.0)]  # both report 1006; no code is not the same code
    assert texts(ax)[-1] == "16 connections; framed: both report the same code"


def test_views_beyond_the_top_are_other():
    ax = plots.plot_views(pairs(*((4000 + n, "wire", 1006, "synthesized", 9 - n) for n in range(4))), top=2)
    rows, columns, found = cells(ax)
    assert (rows, columns) == (["4000 wire", "4001 wire", "other"], ["1006 synthesized"])
    assert [found[row, "1006 synthesized"] for row in rows] == ["9", "8", "13"]


def test_numbers_in_cells_can_be_read_on_their_colour():
    frame = table("initiator end count", *(("client", end, 4**n) for n, end in enumerate(("fin", "rst", "open", "x"))))
    ax = plots.plot_ends(frame)
    (mesh,) = ax.collections
    ax.figure.canvas.draw()
    for colour, text in zip(
        mesh.get_facecolors(), [t for t in ax.texts if t.get_transform() == ax.transData], strict=True
    ):
        shade = np.array([0.299, 0.587, 0.114]) @ colour[:3]
        ink = 1.0 if text.get_color() == "white" else 0.0
        assert abs(shade - ink) > 0.45


def life(*rows):
    """Rows of seconds, side, kind, payload_bytes, code."""
    frame = table("s side kind payload_bytes code", *rows)
    start = pd.Timestamp("2026-11-20T10:00:00Z")
    frame["time"] = [start + pd.Timedelta(round(s * 1e9), "ns") for s in frame["s"]]
    frame["packet"] = range(4, 4 + len(frame))
    return frame.astype({"code": "Int32"}).drop(columns="s")


LIFE = life(
    (0, "client", "request", 400, None),
    (0.0125, "server", "response", 129, None),
    (0.1, "client", "text", 1500, None),
    (0.2, "server", "missing", 2920, None),
    (60.2, "server", "ping", 0, None),
    (60.3, "client", "pong", 0, None),
    (60.4, "server", "close", 2, 1001),
    (60.5, "client", "close", 0, None),
    (60.6, "client", "close", 7, None),
    (60.7, "server", "fin", 0, None),
    (60.8, "client", "rst", 0, None),
)


def arrows(ax):
    """(from, to) of each arrow in the order they are drawn."""
    return [(t.xyann[0], t.xy[0]) for t in ax.texts if not t.get_text() and t.arrow_patch is not None]


def lines_of_life(ax):
    return [text.get_text() for text in ax.texts if text.get_transform() == ax.transData and text.get_text()]


def test_a_life_is_a_sequence_of_arrows_between_two_lanes():
    ax = plots.plot_life(LIFE)
    assert lines_of_life(ax) == [
        "upgrade request: 400 bytes",
        "response: 129 bytes",
        "text: 1,500 bytes",
        "missing from the capture: 2,920 bytes",
        "60.0 s without any event",
        "ping",
        "pong",
        "Close 1001",
        "Close (no code)",
        "Close",  # it had a body; what it said is not known
        "FIN",
        "RST",
    ]
    right, left = (0, 1), (1, 0)
    assert arrows(ax) == [right, left, right, left, left, right, left, right, right, left, right]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["client", "server"]
    assert [label.get_text() for label in ax.get_yticklabels()][:3] == ["0.000", "0.013", "0.100"]
    assert ax.get_ylabel() == "seconds since the first event"
    assert [text for text in texts(ax) if text.isdigit()] == [str(n) for n in range(4, 15)]
    ticks = ax.get_yticks()
    assert (np.diff(ticks) > 0).all()
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # time runs down
    steps = np.diff(ticks)
    assert steps[3] > 1.5  # room for the pause
    assert steps[4] == 1


@pytest.mark.parametrize(
    ("times", "pauses"),
    [
        ((0, 0.5, 0.51), ["0.5 s without any event"]),
        ((0, 0.09, 0.1), []),
        ((0, 2, 2.01), ["2.0 s without any event"]),
        ((0, 1.5, 100), ["98.5 s without any event"]),
        ((0, 2.5, 100), ["2.5 s without any event", "97.5 s without any event"]),
    ],
)
def test_a_pause_is_told_where_it_is_long_or_long_for_this_life(times, pauses):
    ax = plots.plot_life(life(*((s, "client", "text", 1, None) for s in times)))
    assert [text for text in lines_of_life(ax) if "without" in text] == pauses


def test_times_are_told_as_finely_as_they_differ():
    for last, expected in ((0.0004, "0.000400"), (0.004, "0.004"), (99.0004, "99.000"), (200.0004, "200.000")):
        ax = plots.plot_life(life((0, "client", "text", 1, None), (last, "server", "text", 1, None)))
        assert ax.get_yticklabels()[-1].get_text() == expected
    ax = plots.plot_life(
        life((0, "client", "text", 1, None), (50, "server", "text", 1, None), (50.0001, "server", "fin", 0, None))
    )
    assert ax.get_yticklabels()[-1].get_text() == "50.000100"


def test_runs_of_messages_become_one_line_with_their_sum():
    rows = [(n * 0.01, "client", "text", 10, None) for n in range(50)]
    ax = plots.plot_life(life((0, "client", "request", 400, None), *rows, (0.5, "server", "fin", 0, None)))
    assert lines_of_life(ax) == ["upgrade request: 400 bytes", "50 \u00d7 text: 500 bytes, within 0.490 s", "FIN"]
    assert "5\u201354" in texts(ax)
    assert "52 events; time is not to scale; events in a row are put together" in texts(ax)


def test_a_long_life_keeps_its_begin_its_end_and_its_sums():
    rows = [(1 + n * 0.01, ("client", "server")[n % 2], "text", n % 7, None) for n in range(2000)]
    events = life(
        (0, "client", "request", 400, None), *rows, (22, "server", "close", 2, 1011), (22, "server", "fin", 0, None)
    )
    ax = plots.plot_life(events)
    shown = lines_of_life(ax)
    assert len(shown) <= sequence.LIFE_ROWS + 2
    assert shown[:3] == ["upgrade request: 400 bytes", "1.0 s without any event", "text"]
    assert shown[-2:] == ["Close 1011", "FIN"]
    (middle,) = [text for text in shown if "\u00d7" in text]
    assert middle == "1,984 \u00d7 text: within 19.8 s"
    (detail,) = [text for text in shown if text.startswith("client ")]
    numbers = re.fullmatch(r"client 992 \(([\d,]+) bytes\), server 992 \(([\d,]+) bytes\)", detail)
    inner = rows[8:-8]
    for side, number in zip(("client", "server"), numbers.groups(), strict=True):
        assert int(number.replace(",", "")) == sum(row[3] for row in inner if row[1] == side)
    assert (1, 0) in arrows(ax)


def test_a_pause_within_much_traffic_is_not_lost():
    rows = [((0 if n < 500 else 50) + n * 0.01, ("client", "server")[n % 2], "text", 5, None) for n in range(1000)]
    assert "50.0 s without any event" in lines_of_life(plots.plot_life(life(*rows)))


def test_a_pause_parts_a_run_of_messages():
    rows = [((0 if n < 50 else 50) + n * 0.01, "client", "text", 5, None) for n in range(100)]
    assert lines_of_life(plots.plot_life(life(*rows))) == [
        "50 \u00d7 text: 250 bytes, within 0.490 s",
        "50.0 s without any event",
        "50 \u00d7 text: 250 bytes, within 0.490 s",
    ]


def test_events_are_told_in_the_order_of_their_times():
    ax = plots.plot_life(LIFE.sample(frac=1, random_state=5))
    assert ax.get_label() == plots.plot_life(LIFE).get_label()
    assert arrows(ax) == arrows(plots.plot_life(LIFE))


def test_a_hostile_life_is_still_a_picture():
    kinds = ["reserved", "missing", "close", "ping", "weird $x^$ \x1b[2J"]
    rows = [(n * 0.5, ("client", "server")[n % 2], kinds[n % 5], 2**62, n % 70000) for n in range(3000)]
    ax = plots.plot_life(life(*rows))
    assert len(ax.get_yticks()) <= 3 * sequence.LIFE_ROWS
    ax.figure.canvas.draw()
    assert not any("\x1b" in text for text in texts(ax))


def test_events_without_a_place_are_counted():
    events = pd.concat([LIFE, LIFE.head(2).assign(side=None), LIFE.head(1).assign(time=pd.NaT)])
    ax = plots.plot_life(events)
    assert "11 events; time is not to scale; without a time or a side, not shown: 3" in texts(ax)


WEEK = ends(
    *(
        (f"2026-11-{16 + n // 4}T{n % 4 * 6:02}:00:00Z", side, code, 5 + n)
        for n in range(28)
        for side, code in (("client", 1000), ("server", 1006))
    )
).assign(provenance="wire", evidence="status", duration_s=60.0)
CONNECTIONS = table(
    "initiator end handshake silence_s client_view_code client_view_provenance server_view_code server_view_provenance",
    ("client", "fin", "complete", 60.0, 1000, "wire", 1000, "wire"),
    ("none", "rst", "complete", 60.0, 1006, "synthesized", 1006, "synthesized"),
    ("server", "fin", "complete", 3.0, None, "undetermined", 1001, "wire"),
)
EVERY = {
    plots.plot_codes: WEEK,
    plots.plot_timeline: WEEK,
    plots.plot_durations: WEEK,
    plots.plot_silences: CONNECTIONS,
    plots.plot_ends: CONNECTIONS,
    plots.plot_views: CONNECTIONS,
    plots.plot_life: LIFE,
}
each_plot = pytest.mark.parametrize(("plot", "frame"), EVERY.items(), ids=lambda value: getattr(value, "__name__", ""))


def shown(figure):
    """Everything that is written in a figure, when it was drawn."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text()]


@each_plot
def test_every_axis_has_a_label_and_every_plot_a_title(plot, frame):
    for rows in (frame, frame.head(0)):
        ax = plot(rows)
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.get_title("left")
        units = f"{ax.get_xlabel()} {ax.get_ylabel()}"
        assert re.search(r"number|seconds", units), units


@each_plot
def test_nothing_is_drawn_of_an_empty_table_and_it_is_said(plot, frame):
    columns = frame.columns.drop([name for name in ("count",) if name in frame])
    nulls = pd.DataFrame({name: [None, None] for name in columns})
    for rows in (frame.head(0), pd.DataFrame(columns=columns), frame.assign(count=0)):
        if plot is not plots.plot_life or not len(rows):
            ax = plot(rows)
            assert "Nothing to show" in texts(ax)
            assert not ax.containers
            assert "Nothing to show" in ax.get_label()
            ax.figure.canvas.draw()
    ax = plot(nulls)
    ax.figure.canvas.draw()
    if plot in (plots.plot_timeline, plots.plot_durations, plots.plot_silences, plots.plot_life):
        assert "Nothing to show" in texts(ax)
        assert any(re.search(r"not shown: (unknown )?2$", text) for text in texts(ax))


@each_plot
def test_one_row_is_drawn(plot, frame):
    for row in range(min(3, len(frame))):
        ax = plot(frame.iloc[[row]])
        assert "Nothing to show" not in shown(ax.figure)


@pytest.mark.parametrize("plot", [plot for plot in EVERY if plot is not plots.plot_life])
def test_rows_as_the_tables_make_them_are_drawn(plot):
    samples = analyzer.read(SAMPLES / "normal-1000.pcap")
    ax = plot(samples.closes if EVERY[plot] is WEEK else samples.connections)
    assert "Nothing to show" not in shown(ax.figure)


@each_plot
def test_a_missing_column_is_named(plot, frame):
    with pytest.raises(ValueError, match=rf"^{plot.__name__}: the table has no column "):
        plot(pd.DataFrame({"other": [1]}))


def test_all_missing_columns_are_named_and_others_ignored():
    with pytest.raises(ValueError, match=r"^plot_codes: the table has no column endpoint, provenance$"):
        plots.plot_codes(pd.DataFrame({"code": [1000], "colour": ["red"]}))
    extra = CODES.assign(colour="red", endpoint=CODES["endpoint"].astype("category"))
    assert bars(plots.plot_codes(extra)) == bars(plots.plot_codes(CODES))


@pytest.mark.parametrize("code", languages.NAMES)
@each_plot
def test_every_language_draws_without_a_warning(plot, frame, code):
    ax = plot(frame, language=languages.load(code))
    written = shown(ax.figure)
    assert not [text for text in written if re.search(r"[{}]", text)]


class Shouting(languages.Language):
    """English in capitals: what stays small does not come from labels."""

    def label(self, key, **values):
        text = super().label(key)
        kept = re.split(r"(\{\w+\})", text)
        return "".join(part if part.startswith("{") else part.upper() for part in kept).format(**values)


@each_plot
def test_all_words_come_from_labels(plot, frame):
    from analyzer.knowledge import catalogue

    language = Shouting("en", catalogue.load())
    names = {timer.system for timer in timers.load()} | {"Normal", "Abnormal", "Closure"}
    for rows in (frame, frame.head(0)):
        for text in shown(plot(rows, language=language).figure):
            for name in sorted(names, key=len, reverse=True):
                text = text.replace(name, "")
            assert text == text.upper(), text


SCRIPTS = {
    "th": "ความเงียบก่อนการเชื่อมต่อสิ้นสุด น้ำ",
    "ar": "الصمت قبل نهاية الاتصال",
    "zh": "连接结束之前的静默时间",
    "vi": "Kết nối đã đóng",
}


@pytest.mark.parametrize(("code", "text"), SCRIPTS.items())
def test_other_scripts_are_written_without_a_warning(code, text, caplog):
    language = languages.load(code)
    ax = plots.plot_silences(CONNECTIONS, title=text, language=language)
    where = "right" if code == "ar" else "left"
    assert ax.get_title(where).replace("\n", " ") == text
    for form in shared.FORMS:
        plots.save_figure(ax.figure, io.BytesIO(), form=form, language=language)
    assert not caplog.records  # a font that does not exist is complained about


class Chinese(languages.Language):
    """Labels in a script that the first font lacks."""

    def label(self, key, **values):
        return "结束" + " ".join(str(value) for value in values.values())


@each_plot
def test_other_scripts_are_written_on_axes_that_had_another_font(plot, frame):
    from analyzer.knowledge import catalogue

    with mpl.rc_context({"font.family": ["DejaVu Sans"]}):
        figure = Figure(layout="constrained")
        ax = figure.subplots()
        figure.savefig(io.BytesIO())  # its ticks are there
    plot(frame, ax, language=Chinese("en", catalogue.load()))
    figure.savefig(io.BytesIO())


@each_plot
def test_no_figure_is_left_in_pyplot_and_no_setting_changed(plot, frame):
    before = dict(mpl.rcParams)
    ax = plot(frame)
    plots.save_figure(ax.figure, io.BytesIO())
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_pyplot_is_not_imported():
    import subprocess

    script = (
        "import sys, pandas as pd\nfrom analyzer.report import plots\n"
        "ax = plots.plot_silences(pd.DataFrame({'silence_s': [60.0]}))\nax._repr_png_()\n"
        "print([name for name in sys.modules if name == 'matplotlib.pyplot'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@each_plot
def test_the_style_of_others_changes_nothing_on_a_figure_of_ours(plot, frame):
    plain = plot(frame)._repr_png_()
    odd = {"font.size": 20, "text.parse_math": True, "hatch.linewidth": 9, "axes.grid": True}
    odd |= {"savefig.facecolor": "red", "savefig.bbox": "tight", "savefig.dpi": 30}
    with matplotlib.style.context(["dark_background", odd]):
        assert plot(frame)._repr_png_() == plain


@each_plot
def test_a_given_axes_is_drawn_on_and_returned(plot, frame):
    figure = Figure(figsize=(8, 5), layout="constrained")
    first, second = figure.subplots(1, 2)
    assert plot(frame, second) is second
    assert not first.texts
    assert shown(figure)
    sub = Figure(layout="constrained").subfigures(1, 2)[0].subplots()
    assert plot(frame, sub) is sub


@pytest.mark.parametrize(
    ("plot", "form"),
    [*((plot, form) for plot in EVERY for form in ("png", "svg")), (plots.plot_silences, "pdf")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_same_input_gives_the_same_bytes(plot, form, tmp_path):
    frame = EVERY[plot]
    shuffled = frame if plot is plots.plot_life else frame.sample(frac=1, random_state=3)
    path = tmp_path / f"x.{form}"
    plots.save_figure(plot(frame).figure, path)
    written = path.read_bytes()
    out = io.BytesIO()
    plots.save_figure(plot(shuffled).figure, out, form=form)
    assert out.getvalue() == written
    assert written.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form])
    assert mpl.__version__.encode() not in written
    assert not re.search(rb"20\d\d-\d\d-\d\dT|CreationDate", written)


def test_a_figure_can_be_saved_twice_and_pickled():
    ax = plots.plot_silences(CONNECTIONS)
    first, second = io.BytesIO(), io.BytesIO()
    plots.save_figure(ax.figure, first)
    plots.save_figure(pickle.loads(pickle.dumps(ax.figure)), second)
    assert first.getvalue() == second.getvalue()


SVG = "{http://www.w3.org/2000/svg}"


@each_plot
def test_an_svg_keeps_its_text_and_says_what_it_shows(plot, frame):
    ax = plot(frame)
    out = io.BytesIO()
    plots.save_figure(ax.figure, out, form="svg")
    root = ET.fromstring(out.getvalue())
    assert root.get("role") == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert root[0].text == ax.get_title("left")
    assert root[1].text == ax.get_label()
    assert root[1].text.startswith(root[0].text)
    assert len(root.findall(f"{SVG}title")) == 1
    written = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    assert ax.get_xlabel() in written
    assert set(ax.get_ylabel().split("\n")) <= written


def test_the_words_of_a_plot_hold_its_numbers():
    assert plots.plot_codes(CODES).get_label() == (
        "Close codes, and how each is known. "
        "client: 1006 Abnormal Closure: synthesized 4, inferred 1; 1000 Normal Closure: wire 3; "
        "no code: undetermined 2; never opened: synthesized 5. "
        "server: 1006 Abnormal Closure: synthesized 7; 1006, not allowed on the wire: wire 1"
    )
    assert "client: 1006 3, 1000 4, no code 1. server: 1006 9" in plots.plot_timeline(TIMES, freq="1h").get_label()
    words = plots.plot_life(LIFE).get_label()
    assert "60.400 s server: Close 1001; 60.500 s client: Close (no code)" in words
    assert "60 s: idle limit: Apache httpd" in plots.plot_silences(seconds("silence_s", *IDLE)).get_label()
    assert "client / FIN: 1; nobody / RST: 1" in plots.plot_ends(CONNECTIONS.head(2)).get_label()


def test_a_plot_without_a_title_begins_its_words_with_what_it_shows():
    ax = plots.plot_ends(CONNECTIONS.head(1), title="")
    assert ax.get_label() == "client / FIN: 1. 1 connection"
    out = io.BytesIO()
    plots.save_figure(ax.figure, out, form="svg")
    root = ET.fromstring(out.getvalue())
    assert [child.tag for child in root][:2] == [f"{SVG}desc", f"{SVG}metadata"]


def test_an_svg_names_its_language_and_runs_the_right_way():
    out = io.BytesIO()
    arabic = languages.load("ar")
    plots.save_figure(plots.plot_ends(CONNECTIONS, language=arabic).figure, out, form="svg", language=arabic)
    root = ET.fromstring(out.getvalue())
    assert root.get("lang") == "ar"
    assert root.get("direction") == "ltr"  # text anchors are measured from the left, also in a page that is not
    assert {text.get("unicode-bidi") for text in root.iter(f"{SVG}text")} == {"plaintext"}


def test_a_form_that_is_none_is_refused(tmp_path):
    figure = plots.plot_ends(CONNECTIONS).figure
    with pytest.raises(ValueError, match="gif: a figure is saved as png, svg, pdf"):
        plots.save_figure(figure, tmp_path / "x.gif")
    with pytest.raises(ValueError, match="bmp: a figure is saved as png, svg, pdf"):
        plots.save_figure(figure, tmp_path / "x.png", form="bmp")
    assert not list(tmp_path.iterdir())


@each_plot
def test_hostile_text_is_shown_and_never_obeyed(plot, frame):
    evil = r"$\frac{$ <b>&" + "\x1b[31m\u202e" + "x" * 300
    ax = plot(frame, title=evil)
    (title,) = [ax.get_title(where) for where in ("left", "right") if ax.get_title(where)]
    assert "".join(title.split()).startswith(r"$\frac{$<b>&\x1b[31m\u{202e}xxx")
    assert len(title) < 220
    bad = frame.copy()
    for name in bad.columns:
        if bad[name].dtype in (object, "str") and name not in ("side",):
            bad[name] = r"$\frac{$" + "\x1b[31m"
    for drawn in (ax, plot(bad)):
        out = io.BytesIO()
        plots.save_figure(drawn.figure, out, form="svg")
        ET.fromstring(out.getvalue())
        assert b"\x1b" not in out.getvalue()
        drawn._repr_png_()


def test_a_plot_shows_itself_in_a_notebook():
    formatters = pytest.importorskip("IPython.core.formatters")
    ax = plots.plot_ends(CONNECTIONS)
    assert isinstance(ax, Axes)
    formatter = formatters.DisplayFormatter()
    for shown_object in (ax, ax.figure):
        data, _ = formatter.format(shown_object)
        assert data["image/png"].startswith(b"\x89PNG")
    other = Figure().subplots()
    plots.plot_ends(CONNECTIONS, other)
    assert "image/png" not in formatter.format(other)[0]  # its owner shows it


MANY_CODES = ends(*((f"2026-11-20T{n:02}:00:00Z", "client", 4000 + 7 * n, 30 - n) for n in range(20)))
MANY_TIMERS = seconds(
    "silence_s", *((float(v), 50) for v in (5, 10, 30, 40, 45, 55, 60, 120, 900)), client_view_code=1006
)
CROWDED = {
    "codes": lambda: plots.plot_codes(MANY_CODES.assign(provenance="wire"), top=20),
    "large": lambda: plots.plot_codes(
        closes(("client", 1006, "wire", "status", 123_456_789), ("client", 1000, "wire", "status", 5))
    ),
    "timeline": lambda: plots.plot_timeline(MANY_CODES, top=15),
    "durations": lambda: plots.plot_durations(MANY_CODES.assign(duration_s=60.0), top=15),
    "silences": lambda: plots.plot_silences(MANY_TIMERS),
    "views": lambda: plots.plot_views(
        pairs(*((4000 + n, "synthesized", 4000 + n, "undetermined", 9) for n in range(12)))
    ),
    "title": lambda: plots.plot_ends(CONNECTIONS, title="a rather long title " * 9),
    "life": lambda: plots.plot_life(
        life(*((n, ("client", "server")[n % 3 % 2], "text", 10**9, None) for n in range(200)))
    ),
}


@pytest.mark.parametrize(
    "draw",
    [*(functools.partial(*item) for item in EVERY.items()), *CROWDED.values()],
    ids=[*(plot.__name__ for plot in EVERY), *CROWDED],
)
def test_no_text_leaves_the_figure_and_no_two_overlap(draw):
    ax = draw()
    figure = ax.figure
    figure.canvas.draw()
    renderer = figure._get_renderer()
    boxes = []
    unseen = set()
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low * (1 - 1e-9) <= tick.get_loc() <= high * (1 + 1e-9):
                unseen |= {tick.label1, tick.label2}
    for text in figure.findobj(mpl.text.Text):
        if text.get_visible() and text.get_text().strip() not in ("", "·") and text not in unseen:
            boxes.append((text.get_text(), text.get_rotation(), text.get_window_extent(renderer)))
    width, height = figure.bbox.width, figure.bbox.height
    for text, _, box in boxes:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    upright = [(text, box) for text, rotation, box in boxes if rotation in (0, 90)]
    for i, (text, box) in enumerate(upright):
        for other, other_box in upright[i + 1 :]:
            overlap_x = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            overlap_y = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert not (overlap_x > 1 and overlap_y > 2), (text, other)


def test_greys_of_what_lies_side_by_side_differ_or_their_hatches_do():
    for looks in (
        [*plots.PROVENANCE_LOOKS.values()],
        [
            *plots.CODE_LOOKS.values(),
            *lanes.SPARE_LOOKS,
            lanes.OTHER_LOOK,
            shared.NO_CODE_LOOK,
            shared.NEVER_OPENED_LOOK,
        ],
    ):
        greys = [np.array([0.299, 0.587, 0.114]) @ mpl.colors.to_rgb(look.colour) for look in looks]
        for i, look in enumerate(looks):
            for j, other in enumerate(looks[:i]):
                assert look.hatch != other.hatch or math.fabs(greys[i] - greys[j]) > 0.12, (look, other)
