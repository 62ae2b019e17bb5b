"""wsclose: why did my WebSocket close?

`analyzer.read("trace.pcapng")` gathers an `Analysis` with `closes`, `connections` and `inputs` as DataFrames and a
`report()`; `analyzer.stream(...)` yields the same rows in bounded memory; `analyzer.read_packets(...)` takes
scapy packets, and `analyzer.WebSocket` is a layer for scapy. Nothing is imported before it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyzer.analysis import Analysis, read, read_packets, stream
    from analyzer.capture.scapy_io import WebSocket
    from analyzer.connection import Connection
    from analyzer.errors import AnalyzerError, CaptureError, CatalogueError, UsageError
    from analyzer.reading import Batch
    from analyzer.report.document import Report

__version__ = "0.1.0"

_HOME = {
    "Analysis": "analyzer.analysis",
    "Batch": "analyzer.reading",
    "Connection": "analyzer.connection",
    "WebSocket": "analyzer.capture.scapy_io",
    "read": "analyzer.analysis",
    "read_packets": "analyzer.analysis",
    "stream": "analyzer.analysis",
    "AnalyzerError": "analyzer.errors",
    "CaptureError": "analyzer.errors",
    "CatalogueError": "analyzer.errors",
    "UsageError": "analyzer.errors",
    "Report": "analyzer.report.document",
}

__all__ = [
    "Analysis",
    "AnalyzerError",
    "Batch",
    "CaptureError",
    "CatalogueError",
    "Connection",
    "Report",
    "UsageError",
    "WebSocket",
    "__version__",
    "read",
    "read_packets",
    "stream",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
