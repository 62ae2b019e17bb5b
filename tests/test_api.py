"""The Python API: rows, DataFrames, the report object, and counts that merge."""

import pickle
import warnings

import numpy as np
import pytest
from conftest import SAMPLES
from packets import CLIENT, SERVER, Conversation, pcap

import analyzer
from analyzer.capture.container import Reader
from analyzer.capture.tracker import Tracker
from analyzer.knowledge import catalogue
from analyzer.model import CLOSES, CONNECTIONS, INPUTS, anomaly_names, format_time
from analyzer.report.counts import Counts
from analyzer.report.document import Report
from analyzer.table import Table


@pytest.fixture(scope="module")
def samples():
    return analyzer.read(SAMPLES)


def test_read_gives_dataframes_with_the_schemas_columns(samples):
    assert list(samples.closes.columns) == [c.name for c in CLOSES]
    assert list(samples.connections.columns) == [c.name for c in CONNECTIONS]
    assert list(samples.inputs.columns) == [c.name for c in INPUTS]
    assert len(samples.inputs) == len([*SAMPLES.glob("*.pcap*"), *SAMPLES.glob("*.log")])


def test_dataframe_kinds(samples):
    closes, connections = samples.closes, samples.connections
    assert str(closes["time"].dtype) == "datetime64[ns, UTC]"
    assert str(closes["code"].dtype) == "Int32"
    assert str(closes["record"].dtype) == "Int64"
    assert str(closes["provenance"].dtype) == "category"
    assert str(connections["duration_s"].dtype) == "float64"
    assert str(closes["reason"].dtype) == "str"
    undetermined = closes[closes["provenance"] == "undetermined"]
    assert undetermined["code"].isna().all()
    assert closes[closes["provenance"] != "undetermined"]["code"].notna().all()
    wire = closes[closes["provenance"] == "wire"]
    assert (wire["code"] == wire["wire_code"]).all()
    assert set(closes[closes["provenance"] == "synthesized"]["code"]) <= {1005, 1006, 1015}
    assert (connections["anomalies"].dropna().str.contains("[^a-z0-9_|]")).sum() == 0


def test_times_are_exact_to_the_nanosecond(tmp_path):
    talk = Conversation(ts_ns=1_700_000_000_123_456_789, step_ns=1).upgrade()
    talk.close(CLIENT, 1000)
    path = tmp_path / "ns.pcap"
    path.write_bytes(talk.pcap(nanoseconds=True))
    closes = analyzer.read(path).closes
    server = closes[closes["endpoint"] == "server"].iloc[0]
    assert server["time"].value == talk.packets[-1].ts_ns
    client = closes[closes["endpoint"] == "client"].iloc[0]
    assert str(client["time"]) == "NaT"


def test_groupby_as_the_readme_shows(samples):
    counts = samples.closes.groupby(["endpoint", "code", "provenance"], observed=True).size()
    assert counts.sum() == samples.closes["code"].notna().sum()


def test_report_object(samples):
    report = samples.report()
    assert report.to_dict()["schema"] == "wsclose.report/1"
    assert str(report).startswith(f"{len(samples.connections)} WebSocket connections")
    assert report.to_markdown().startswith("# Why")
    assert repr(report) == f"<Report of {len(samples.connections)} connections>"
    assert repr(samples).startswith(f"<Analysis of {len(samples.inputs)} inputs: ")


def test_read_of_nothing_readable_raises(tmp_path):
    bad = tmp_path / "bad.pcap"
    bad.write_bytes(b"not a capture at all, but long enough")
    with pytest.raises(analyzer.CaptureError, match="not a capture"):
        analyzer.read(bad)
    with pytest.raises(analyzer.UsageError, match="nothing to read"):
        analyzer.read()


def test_stream_gives_rows_as_connections_end(tmp_path):
    first = Conversation().upgrade()
    first.end()
    rest = [Conversation(sport=41000 + i, ts_ns=first.ts_ns + (3 + i) * 10**9).open() for i in range(3)]
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(first.packets + [p for talk in rest for p in talk.packets]))
    batches = list(analyzer.stream(path))
    assert len(batches[-1].inputs) == 1
    assert sum(len(batch.connections) for batch in batches) == 1
    assert sum(len(batch.inputs) for batch in batches) == 1


def fold(paths):
    counts = Counts()
    for batch in analyzer.stream(*paths):
        counts.add(batch.closes, batch.connections, batch.inputs)
    return counts


def test_counts_merge_in_any_order_and_grouping():
    paths = sorted(SAMPLES.glob("*.pcap*"))
    whole = Report(fold(paths), catalogue.load()).document
    parts = [fold(paths[i::3]) for i in range(3)]
    for order in ((0, 1, 2), (2, 0, 1)):
        merged = Counts()
        for i in order:
            merged.merge(parts[i])
        document = Report(merged, catalogue.load()).document
        for block in whole:
            if block not in ("stories", "troubled"):
                assert document[block] == whole[block], block
    left, right = Counts(), Counts()
    for part in (parts[0], parts[1]):
        left.merge(part)
    left.merge(parts[2])
    right.merge(parts[1])
    right.merge(parts[2])
    right.merge(parts[0])
    assert Report(left, catalogue.load()).document == Report(right, catalogue.load()).document


def test_counts_and_tracker_pickle():
    counts = fold([SAMPLES / "normal-1000.pcap"])
    again = pickle.loads(pickle.dumps(counts))
    assert Report(again, catalogue.load()).document == Report(counts, catalogue.load()).document
    with (SAMPLES / "normal-1000.pcap").open("rb", buffering=0) as file:
        tracker = Tracker()
        for chunk in Reader(file, "x").chunks():
            tracker.feed(chunk)
            tracker = pickle.loads(pickle.dumps(tracker))
        assert sum(len(finished.connections) for finished in tracker.finish()) == 1


def test_table_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="not in the schema: colour"):
        Table(INPUTS, {"colour": ["red"]})
    with pytest.raises(ValueError, match="different lengths"):
        Table(INPUTS, {"source": ["a"], "kind": ["pcap", "pcap"]})


def test_table_makes_columns_once_when_asked():
    made = []
    table = Table(INPUTS, {"source": lambda: made.append(1) or ["a", "b"]}, n_rows=2)
    assert (len(table), made) == (2, [])
    assert list(table["source"]) == list(table["source"]) == ["a", "b"]
    assert made == [1]
    assert [row["source"] for row in table.rows()] == ["a", "b"]
    assert list(table["kind"]) == [None, None]


def test_empty_tables_become_empty_frames():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for schema in (CLOSES, CONNECTIONS, INPUTS):
            assert len(Table(schema).to_pandas()) == 0


def test_formatting():
    assert format_time(None) is None
    assert format_time(0) == "1970-01-01T00:00:00.000000000Z"
    assert format_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert anomaly_names(0) == []
    assert anomaly_names(int(np.int64(3))) == ["unmasked_client", "masked_server"]


def test_connection_identifier_is_readable_and_does_not_depend_on_chunks(tmp_path):
    talk = Conversation().upgrade()
    talk.close(SERVER, 1001)
    path = talk.write(tmp_path / "x.pcap")
    (name,) = analyzer.read(path).connections["connection"]
    assert name == "20231114T221320.001000000Z-10.0.0.1:40000-10.0.0.2:80"
