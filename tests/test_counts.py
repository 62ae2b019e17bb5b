"""The fold: what it counts by hand-made rows, and that any split of the rows gives the same."""

import io
import random
from collections import Counter

import numpy as np
import packets as build
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture.container import Reader
from analyzer.capture.tracker import Tracker
from analyzer.knowledge import catalogue as knowledge
from analyzer.model import CLOSES, CONNECTIONS, INPUTS
from analyzer.report import counts as fold
from analyzer.report import tally
from analyzer.report.counts import Breakdown, Cell, Counts, bucket, duration_of, duration_steps
from analyzer.report.series import breakdown, distribution, near_timers, timeline
from analyzer.report.tally import Tally, Timeline
from analyzer.selection import ORIGIN_NS, parse_step, step_text
from analyzer.table import Coded, Table
from analyzer.verdict.connections import to_tables

NS = 1_000_000_000
LOST = {"code": 1006, "provenance": "synthesized", "evidence": "no_close_fin"}
DONE = {"code": 1000, "provenance": "wire", "evidence": "status"}


def close(time_s, **more):
    row = {"source": "a.pcap", "record": 1, "endpoint": "client", "initiator": "none", "sent": "none", "end": "fin"}
    return row | LOST | {"time": None if time_s is None else int(time_s * NS)} | more


def table(rows, schema=CLOSES):
    return Table(schema, {c.name: [row.get(c.name) for row in rows] for c in schema}, n_rows=len(rows))


def count(*batches, step_ns=None):
    counts = Counts(step_ns=step_ns)
    for rows in batches:
        counts.add(table(rows), Table(CONNECTIONS), Table(INPUTS))
    return counts


def state(counts):
    """All that merging must keep, in plain values."""
    by = {name: sorted(map(str, part.items())) for name, part in counts.by.items()}
    line = (counts.timeline.step_ns, sorted(map(str, counts.timeline.items())))
    rows = {str(key): rows for key, rows in counts.rows.items()}
    spans = [sorted(map(str, part.items())) for part in (counts.durations, counts.silences)]
    return (counts.views, counts.first, counts.last, rows, by, line, spans, counts.n_logged)


def test_views_by_host_path_peer_and_system():
    counts = count(
        [
            close(1, host="a", path="/x?token=1", server="10.0.0.1:80", client="10.0.0.9:5000"),
            close(2, host="a", path="/x?token=2", server="10.0.0.1:80", client="10.0.0.9:5001", **DONE),
            close(3, host="b", endpoint="server", server="10.0.0.1:80", client="10.0.0.9:5001", system="ws"),
            close(4, endpoint="unknown"),
        ]
    )
    got = {name: {(value, c.endpoint, c.code): n for value, c, n in part.items()} for name, part in counts.by.items()}
    assert got["host"] == {("a", "client", 1006): 1, ("a", "client", 1000): 1, ("b", "server", 1006): 1}
    assert got["path"] == {("/x", "client", 1006): 1, ("/x", "client", 1000): 1}
    assert got["peer"] == {
        ("10.0.0.1:80", "client", 1006): 1,
        ("10.0.0.1:80", "client", 1000): 1,
        ("10.0.0.9", "server", 1006): 1,
    }
    assert got["system"] == {("ws", "server", 1006): 1}


def test_subprotocols_come_from_connections():
    row = {"connection": "c", "handshake": "complete", "subprotocol": "mqtt", "initiator": "none", "end": "fin"}
    views = {"client_view_code": 1006, "client_view_provenance": "synthesized", "client_view_evidence": "no_close_fin"}
    counts = Counts()
    counts.add(table([close(1, connection="c")]), table([row | views], CONNECTIONS), Table(INPUTS))
    (only,) = counts.by["subprotocol"].items()
    assert only == ("mqtt", Cell("client", 1006, "synthesized", "established"), 1)  # a server that has no view has none


def test_what_was_never_opened_has_no_end_no_pair_and_no_duration():
    row = {"connection": "c", "handshake": "rejected", "initiator": "none", "end": "fin", "silence_s": 3.0}
    counts = Counts()
    refused = close(1, connection="c", evidence="handshake_rejected", duration_s=2.0)
    counts.add(table([refused, close(1, duration_s=5.0)]), table([row], CONNECTIONS), Table(INPUTS))
    assert not counts.ends
    assert not counts.pairs
    assert not counts.silences
    assert counts.durations.total() == 1
    assert sum(counts.handshakes.values()) == 1


def test_the_rarest_values_go_to_one_heap_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(fold, "VALUES_KEPT", 3)
    monkeypatch.setattr(fold, "PAIRS_KEPT", 6)
    part, cell = Breakdown(), Cell("client", 1006, "synthesized", "established")
    values = ["often"] * 5 + ["twice"] * 2 + list("abcdefgh")
    part.add(Coded.of(values), np.zeros(len(values), np.int64), [cell])
    kept = {value: n for value, _, n in part.items()}
    assert kept == {"often": 5, "twice": 2, "a": 1}
    assert sum(kept.values()) + sum(part.rest.values()) == len(values)
    shown = breakdown("host", part, top=1)
    assert [(entry["value"], entry["count"]) for entry in shown] == [("often", 5)]


def test_a_breakdown_names_the_worst_first_for_each_endpoint():
    counts = count(
        [close(1, host="busy", **DONE)] * 9
        + [close(1, host="bad")] * 2
        + [close(1, host="bad", endpoint="server")]
        + [close(1, host="worse")] * 3
    )
    entries = breakdown("host", counts.by["host"], top=2)
    assert [(e["endpoint"], e["value"], e["count"], e["harmful"]) for e in entries] == [
        ("client", "worse", 3, 3),
        ("client", "bad", 2, 2),
        ("server", "bad", 1, 1),
    ]
    assert entries[0]["codes"] == [
        {"code": 1006, "provenance": "synthesized", "bucket": "established", "count": 3, "share": 1.0}
    ]


def test_the_timeline_keeps_the_step_that_was_asked_for():
    counts = count([close(10), close(11), close(70, **DONE), close(None)], step_ns=60 * NS)
    shown = timeline(counts, 60 * NS)
    assert (shown["step_s"], shown["is_coarser"]) == (60.0, False)
    assert [(row["time"], row["code"], row["count"]) for row in shown["bins"]] == [
        ("1970-01-01T00:00:00.000000000Z", 1006, 2),
        ("1970-01-01T00:01:00.000000000Z", 1000, 1),
    ]


def test_the_timeline_grows_its_step_instead_of_its_size(monkeypatch):
    monkeypatch.setattr(tally, "BINS_KEPT", 100)
    counts = count([close(i) for i in range(1000)])
    assert counts.timeline.step_ns == 10 * NS  # 1 s would make 1,000 steps, 10 s makes 100
    assert sum(n for *_, n in counts.timeline.items()) == 1000
    asked = count([close(i) for i in range(1000)], step_ns=3 * NS)
    assert asked.timeline.step_ns == 12 * NS
    assert timeline(asked, 3 * NS)["is_coarser"]


def test_the_timeline_grows_its_step_where_each_holds_many_kinds(monkeypatch):
    monkeypatch.setattr(tally, "TIMED_KINDS_KEPT", 60)
    counts = count([close(i, code=4000 + i % 5) for i in range(100)])
    assert counts.timeline.step_ns == 10 * NS  # 1 s would make 100 counts; 10 s makes 10 steps of 5 codes
    assert len([*counts.timeline.items()]) == 50
    assert sum(n for *_, n in counts.timeline.items()) == 100


def test_a_step_that_nobody_asked_for_can_be_named_however_far_the_ends_lie_apart():
    """Two captures three years apart: doubling 10 ms gave 1342177280 ms, which no option takes."""
    step_s = timeline(count([close(0), close(3 * 365 * 86400)]), None)["step_s"]
    assert step_s % (7 * 86400) == 0
    assert parse_step(step_text(step_s)) == step_s * NS


def test_a_timeline_that_nobody_asked_a_step_for_is_readable():
    week = count([close(i * 600) for i in range(7 * 144)])
    shown = timeline(week, None)
    assert shown["step_s"] == 2 * 3600  # 84 steps; 1 h would be 168
    assert sum(row["count"] for row in shown["bins"]) == 7 * 144


def test_times_before_1970_and_huge_ones_do_not_break_the_timeline():
    counts = count([close(-5), close(9_000_000_000), close(0)])
    assert sum(row["count"] for row in timeline(counts, None)["bins"]) == 3


def test_steps_of_durations_are_narrow():
    for seconds in (0.0123, 1.0, 59.9, 60.0, 86400.0):
        (step,) = duration_steps([seconds]).tolist()
        assert duration_of(step) <= seconds * (1 + 1e-9) < duration_of(step + 1) * (1 + 1e-9)
        assert duration_of(step + 1) / duration_of(step) == pytest.approx(1.0023, abs=1e-4)
    assert duration_steps([0.0, 0.0005, 0.001]).tolist() == [-3000, -3000, -3000]


def test_quantiles_are_those_of_the_values():
    values = [1.0] * 50 + [10.0] * 40 + [100.0] * 10
    counts = count([close(i, duration_s=value) for i, value in enumerate(values)])
    (entry,) = distribution(counts.durations)
    assert (entry["endpoint"], entry["code"], entry["count"]) == ("client", 1006, 100)
    assert entry["p50_s"] == pytest.approx(1.0, rel=0.012)
    assert entry["p90_s"] == pytest.approx(10.0, rel=0.012)
    assert entry["p99_s"] == pytest.approx(100.0, rel=0.012)
    assert sum(step["count"] for step in entry["bins"]) == 100


def test_timers_are_named_where_ends_gather_and_nowhere_else():
    spread = random.Random(1)
    scattered = [close(i, duration_s=spread.uniform(1, 200)) for i in range(500)]
    assert near_timers("duration", count(scattered).durations) == []
    gathered = scattered + [close(i, duration_s=spread.uniform(59.8, 60.2)) for i in range(60)]
    (found,) = near_timers("duration", count(gathered).durations)
    assert found["seconds"] == 60
    assert found["count"] >= 60
    systems = {candidate["system"] for candidate in found["candidates"]}
    assert {"nginx", "AWS ALB", "Varnish"} <= systems  # every candidate is named, none is chosen
    assert near_timers("silence", count(gathered).silences) == []


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (("client", 1006, "synthesized", "no_close_fin"), "established"),
        (("client", 1006, "synthesized", "handshake_rejected"), "never_opened"),
        (("client", 1006, "wire", "status"), "illegal"),
        (("unknown", 1005, "reported", "log_received"), "illegal"),
        (("unknown", 1006, "inferred", "log_stated"), "established"),
        (("server", None, "undetermined", "gap"), "undetermined"),
        (("proxy", None, "undetermined", "log_stated"), "proxy"),
    ],
)
def test_buckets(view, expected):
    assert bucket(*view) == expected


VIEWS = st.builds(
    close,
    st.one_of(st.none(), st.integers(-10, 10_000).map(lambda n: n / 7)),
    endpoint=st.sampled_from(["client", "server"]),
    code=st.sampled_from([1000, 1006, None]),
    host=st.sampled_from([None, "a", "b"]),
    duration_s=st.sampled_from([None, 0.5, 60.0]),
    record=st.integers(1, 9),
)


@settings(max_examples=60)
@given(st.lists(VIEWS, max_size=40), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_any_split_and_order_of_merging_gives_the_same(rows, i, j, is_reversed):
    i, j = sorted((i, j))
    whole = state(count(rows))
    parts = [count(part) for part in (rows[:i], rows[i:j], rows[j:])]
    merged = Counts()
    for part in reversed(parts) if is_reversed else parts:
        merged.merge(part)
    if is_reversed:  # rows that sort alike keep the order they came in
        merged_state, whole = list(state(merged)), list(whole)
        for one in (merged_state, whole):
            one[3] = {key: sorted(map(str, kept)) for key, kept in one[3].items()}
        assert merged_state == whole
    else:
        assert state(merged) == whole


def test_timelines_merge_whatever_their_steps_have_become(monkeypatch):
    monkeypatch.setattr(tally, "BINS_KEPT", 10)
    cell = [Cell("client", 1006, "synthesized", "established")]
    few, many = Timeline(), Timeline()
    few.add(np.array([5 * NS]), np.array([0]), cell)
    many.add(np.arange(1000) * NS, np.zeros(1000, np.int64), cell)
    assert few.step_ns < many.step_ns
    for a, b in ((few, many), (many, few)):
        both = Timeline()
        both.merge(a)
        both.merge(b)
        assert both.step_ns == 600 * NS
        first = -ORIGIN_NS // (600 * NS)
        assert sorted(both.items()) == [(cell[0], first, 601), (cell[0], first + 1, 400)]


pairs = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-(2**62), 2**62) | st.integers(0, 3)), max_size=9)


@given(st.lists(pairs, max_size=5), st.integers(1, 12))
def test_a_tally_counts_as_a_counter_does(parts, waiting):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally, "ROWS_WAITING", waiting)
        whole, merged = Tally(), Tally()
        for part in parts:
            own = Tally()
            kinds = [*"cab", "never"]
            ids, steps = ([*column] for column in zip(*part, strict=True)) if part else ([], [])
            for one in (whole, own):
                one.add(kinds, np.array([kinds.index(kind) for kind in ids], np.int64), np.array(steps, np.int64))
            merged.merge(own)
    wanted = Counter(pair for part in parts for pair in part)
    for one in (whole, merged):
        assert {(kind, step): n for kind, step, n in one.items()} == wanted
        assert (len(one), one.total(), one.n_steps) == (len(wanted), wanted.total(), len({s for _, s in wanted}))
    whole.coarsen(7)
    coarse = Counter((kind, step // 7) for part in parts for kind, step in part)
    assert {(kind, step): n for kind, step, n in whole.items()} == coarse


def test_error_codes_without_number_are_counted_together(monkeypatch):
    monkeypatch.setattr(fold, "ERRORS_KEPT", 3)
    parts = [Counts(), Counts()]
    for i, counts in enumerate(parts):
        rows = [{"handshake": "complete", "flow": "f", "stream_error": f"client 0x{10 * i + k:x}"} for k in range(5)]
        counts.add(table([]), table(rows, CONNECTIONS), Table(INPUTS))
        assert counts.stream_errors["RST_STREAM", "client other"] == 2
    parts[0].merge(parts[1])
    assert len(parts[0].stream_errors) == 4
    assert sum(parts[0].stream_errors.values()) == 10


def test_counts_are_the_same_without_rows():
    rows = [close(1), close(2, **DONE)]
    without = Counts(keeps_rows=False)
    without.add(table(rows), Table(CONNECTIONS), Table(INPUTS))
    assert without.rows == {}
    assert (without.views, without.first, without.last) == (count(rows).views, count(rows).first, count(rows).last)


def test_rows_kept_are_the_earliest_of_each_kind():
    rows = [close(time, record=time) for time in (5, 3, 9)] + [close(1, **DONE)]
    counts = count(rows, [close(time, record=time) for time in range(20, 60)], [close(2, record=2)])
    (lost,) = [kept for key, kept in counts.rows.items() if key[1] == 1006]
    assert [row["record"] for row in lost] == [2, 3, 5, 9, *range(20, 36)]


def test_the_kinds_whose_rows_are_kept_are_those_that_came_first(monkeypatch):
    monkeypatch.setattr(fold, "KINDS_WITH_ROWS", 4)
    counts = count([close(i, endpoint=side, code=4009 - i) for i in range(9) for side in ("client", "server")])
    kept = {(row["endpoint"], row["code"]) for rows in counts.rows.values() for row in rows}
    assert kept == {(side, code) for side in ("client", "server") for code in (4009, 4008)}


def test_pairs_of_many_codes_are_told_apart():
    """A kernel leaves kinds of Closes in one byte each: numbers that are made of them must not wrap."""
    packets = []
    for i in range(200):
        talk = build.Conversation(sport=30000 + i).upgrade()
        talk.close(build.CLIENT, 4000 + i)
        talk.close(build.SERVER, 4000 + i)
        talk.end()
        packets += talk.packets
    tracker, batches = Tracker(), []
    for chunk in Reader(io.BytesIO(build.pcap(packets)), "test").chunks():
        batches += tracker.feed(chunk)
    counts = Counts()
    for some in batches + tracker.finish():
        counts.add(*to_tables(some, source="test", catalogue=knowledge.load()), Table(INPUTS))
    codes = range(4000, 4200)
    assert counts.pairs == {("status", code, "status", code, code, "wire", code, "wire"): 1 for code in codes}


def test_of_many_connections_and_closes_no_stories_are_kept():
    few = [{"connection": f"c{i}", "handshake": "complete"} for i in range(fold.STORIES_KEPT)]
    parts = [Counts(), Counts()]
    for part in parts:
        part.add(table([]), table(few, CONNECTIONS), Table(INPUTS))
        part.add(table([close(i) for i in range(fold.STORIES_KEPT)]), Table(CONNECTIONS), Table(INPUTS))
        assert (len(part.stories), len(part.logged)) == (fold.STORIES_KEPT, fold.STORIES_KEPT)
    merged, grown = parts
    merged.merge(grown)
    for _ in range(9):
        grown.add(table([]), table(few, CONNECTIONS), Table(INPUTS))
        grown.add(table([close(i) for i in range(fold.STORIES_KEPT)]), Table(CONNECTIONS), Table(INPUTS))
    for part in (merged, grown):
        assert len(part.stories) <= fold.STORIES_KEPT
        assert len(part.logged) <= fold.STORIES_KEPT
