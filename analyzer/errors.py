"""The exceptions an operator can meet; what a peer did wrong is never one of them, it is an anomaly on a row.

AnalyzerError
|-- CaptureError      a file cannot be read as what it claims to be
|-- CatalogueError    a knowledge file of this package, or of the user, is broken
`-- UsageError        the call makes no sense
"""


class AnalyzerError(Exception):
    """Base of everything raised on purpose."""


class CaptureError(AnalyzerError):
    """An input that cannot be read at all."""

    def __init__(self, path: str, why: str, *, offset_bytes: int | None = None) -> None:
        self.path = path
        self.why = why
        self.offset_bytes = offset_bytes
        where = "" if offset_bytes is None else f" at byte {offset_bytes}"
        super().__init__(f"{path}: {why}{where}")


class CatalogueError(AnalyzerError):
    """A data file that breaks its own rules."""

    def __init__(self, path: str, key: str, why: str) -> None:
        self.path = path
        self.key = key
        self.why = why
        super().__init__(f"{path}: {key}: {why}")


class UsageError(AnalyzerError):
    """A call with options that do not fit together, or with nothing to read."""
