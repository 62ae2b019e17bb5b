"""Rows of captures, for tests."""

import io

from analyzer.capture.container import Reader
from analyzer.capture.tracker import Tracker
from analyzer.knowledge import catalogue
from analyzer.verdict.connections import to_tables


def gather(batches):
    closes, connections, inputs = [], [], []
    for batch in batches:
        closes += batch.closes.rows()
        connections += batch.connections.rows()
        inputs += batch.inputs.rows()
    return closes, connections, inputs


def analyze(content: bytes, **more) -> tuple[list[dict], list[dict]]:
    """(closes, connections) of the bytes of a capture, through the same steps as `stream`."""
    reader = Reader(io.BytesIO(content), "test")
    tracker = Tracker(**more)
    batches = []
    for chunk in reader.chunks():
        batches += tracker.feed(chunk)
    batches += tracker.finish()
    return to_rows(batches)


def to_rows(batches) -> tuple[list[dict], list[dict]]:
    """(closes, connections) of what a tracker gave out."""
    known = catalogue.load()
    closes, connections = [], []
    for some in batches:
        some_closes, some_connections = to_tables(some, source="test", catalogue=known)
        closes += some_closes.rows()
        connections += some_connections.rows()
    return closes, connections
