"""Where commands write: formats by suffix, files and standard output, messages, progress, exit codes."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Self, TextIO, cast

import click

from analyzer.errors import UsageError
from analyzer.model import CLOSES, LIMITS, Column
from analyzer.options import Inputs
from analyzer.report.text import visible
from analyzer.table import Table

if TYPE_CHECKING:
    from analyzer.progress import TextProgress
    from analyzer.report.rows import Writer
    from analyzer.sources import Source

OK, USAGE, MET, INCOMPLETE, INTERRUPTED = 0, 2, 3, 4, 130
"""Exit codes; 1 is never used on purpose."""

SUFFIXES = {
    ".txt": "text",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".md": "markdown",
    ".html": "html",
    ".htm": "html",
    ".parquet": "parquet",
    ".svg": "svg",
    ".png": "png",
    ".pdf": "pdf",
}
"""What the name given to -o says about the format."""

KEY_COLUMNS = ("tls", "tls_opened", "secrets", "skipped_tls_failed")
"""Columns of `inputs` that tell what keys were good for."""

KEY_TROUBLES = {
    "missing": "no such file; no key came from it",
    "empty": "the key log is empty",
    "keyless": "no key in this key log: no line of it is one",
}

BINARY = frozenset({"parquet", "png", "pdf"})
"""Formats that are no text."""


def open_rows(stack: contextlib.ExitStack, form: str, output: str | None, schema: Sequence[Column]) -> "Writer":
    """What writes rows in this format; the stack ends it."""
    if form == "parquet":
        from analyzer.report.parquet import ParquetRows

        return stack.enter_context(ParquetRows(stack.enter_context(open_binary(output)), schema))
    from analyzer.report.rows import WRITERS

    return WRITERS[form](stack.enter_context(open_output(output)), schema)


class RowsBeside:
    """All closes as CSV in a file beside the page, kept only where the page does not show them all."""

    def __init__(self, output: str | None, found: Sequence["Source"], *, redact: bool, says: bool) -> None:
        """Begin a file beside this one; where it is kept, `says` tells so.

        Raises:
            UsageError: It would be an input, or is no plain file.

        """
        page = None if output is None else Path(output)
        self._path = None
        if page is not None and (page.is_file() or not page.exists()):  # nothing lies beside a device
            self._path = page.with_suffix(".closes.csv")
            refuse_overwriting(self._path, found)
        self._redact = redact
        self._says = says
        self._n_rows = 0
        self._is_kept = False
        self._file: IO[str] | None = None
        self._writer: Writer | None = None

    def __enter__(self) -> Self:
        from analyzer.report.rows import WRITERS

        if self._path is not None:
            try:
                self._file = tempfile.NamedTemporaryFile(
                    "w",
                    dir=self._path.parent,
                    prefix=".wsclose-",
                    delete=False,
                    encoding="utf-8",
                    errors="backslashreplace",
                    newline="",
                )
            except OSError as error:
                raise UsageError(f"{self._path}: {(error.strerror or str(error)).lower()}") from error
            self._writer = WRITERS["csv"](cast("TextIO", self._file), CLOSES)
        return self

    def write(self, table: Table) -> None:
        """Write every row of a table."""
        from analyzer.report.redaction import redact_table

        self._n_rows += len(table)
        if self._writer is not None:
            self._writer.write(redact_table(table) if self._redact else table)

    def keep_if_more_than(self, n_shown: int) -> str | None:
        """Keep the file where it holds more than the page; returns the name that it gets in the end."""
        self._is_kept = self._path is not None and self._n_rows > n_shown
        return self._path.name if self._is_kept and self._path is not None else None

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._file is None or self._path is None:
            return
        self._file.close()
        part = Path(self._file.name)
        if self._is_kept and kind is None:
            part.chmod(0o666 & ~_umask())
            part.replace(self._path)
            if self._says:
                say(f"wrote {visible(self._path)}: all {self._n_rows:,} closes")
        else:
            part.unlink(missing_ok=True)


def _umask() -> int:
    """What new files may not be; a temporary file is for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def choose_format(form: str | None, output: str | None, allowed: tuple[str, ...]) -> str:
    """The format asked for, else what the output's suffix says, else text."""
    if form is not None or output is None:
        return form or allowed[0]
    implied = SUFFIXES.get(Path(output).suffix.lower())
    if implied not in allowed:
        suffixes = ", ".join(suffix for suffix, name in SUFFIXES.items() if name in allowed)
        raise UsageError(f"{output}: no format goes with this suffix; use one of {suffixes}, or --format")
    return implied


def refuse_overwriting(output: str | Path | None, found: Sequence["Source"]) -> None:
    """Raise where the output is one of the inputs, under whatever name.

    Raises:
        UsageError: It is, or it names no file.

    """
    if output is None:
        return
    if not str(output):
        raise UsageError("-o names no file")
    path = Path(output)
    if path.is_dir():
        raise UsageError(f"{output}: is a directory")
    if path.exists() and any(s.path is not None and s.path.exists() and s.path.samefile(path) for s in found):
        raise UsageError(f"{output}: this is an input; write to another file")


@contextlib.contextmanager
def open_output(output: str | None) -> Iterator[TextIO]:
    """A file for text, or standard output.

    Raises:
        UsageError: It cannot be written.

    """
    if output is None:
        if sys.stdout is None:
            raise UsageError("standard output is closed")
        yield sys.stdout
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(output).open("w", encoding="utf-8", errors="backslashreplace", newline=""))
        except OSError as error:
            raise UsageError(f"{output}: {(error.strerror or str(error)).lower()}") from error
        yield file


@contextlib.contextmanager
def open_binary(output: str | None) -> Iterator[BinaryIO]:
    """A file for bytes, or standard output where that is no terminal.

    Raises:
        UsageError: It cannot be written.

    """
    if output is None:
        if sys.stdout is None or sys.stdout.isatty():
            raise UsageError("this format is no text: name a file with -o")
        yield sys.stdout.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(output).open("wb"))
        except OSError as error:
            raise UsageError(f"{output}: {(error.strerror or str(error)).lower()}") from error
        yield file


def progress_of(given: Inputs, found: Sequence["Source"], *, writes_rows: bool = False) -> "TextProgress":
    """Shown where it would not stand between rows: rows on a terminal are progress enough.

    Args:
        given: What was asked for.
        found: What is read.
        writes_rows: Whether rows are written while it is read.

    """
    from analyzer.progress import TextProgress
    from analyzer.sources import total_bytes

    rows_are_seen = writes_rows and given.output is None and sys.stdout is not None and sys.stdout.isatty()
    shows = not given.quiet and TextProgress.is_possible() and not rows_are_seen
    return TextProgress(len(found), shows=shows, names=given.verbose, n_bytes=total_bytes(found))


def say(message: str) -> None:
    """Put a message on standard error."""
    click.echo(f"wsclose: {message}", err=True)


def _say_keys(paths: Sequence[Path], sums: Mapping[str, int]) -> None:
    """Say which key logs are of no use, and that keys opened nothing."""
    from analyzer.keys import weigh_keys

    keys = weigh_keys(paths, sums)
    for log in keys["unusable"]:
        say(f"{visible(log['source'])}: {KEY_TROUBLES[log['status']]}")
    n = keys["connections"]
    if keys["has_any"] and n and not keys["opened"]:
        say(f"the keys opened none of {n:,} encrypted connection{'s' * (n != 1)}")


def refuse_unless_read(inputs: list[dict[str, Any]], n_inputs: int) -> None:
    """Raise for the first input where not one could be read."""
    failed = [row for row in inputs if row["status"] == "failed"]
    if n_inputs and len(failed) == n_inputs:
        more = f" (and {n_inputs - 1} more could not be read)" if n_inputs > 1 else ""
        raise UsageError(f"{failed[0]['source']}: {failed[0]['message']}{more}")


def conclude(
    inputs: list[dict[str, Any]],
    quiet: bool,
    *,
    keys: Sequence[Path] | None = None,
    sums: Mapping[str, int] | None = None,
) -> int:
    """Name on standard error what was not read, and choose the exit code.

    Args:
        inputs: Rows of inputs.
        quiet: Whether nothing is said.
        keys: Key logs that were given, None where nothing is said of them.
        sums: Of all rows of inputs, where not all are here.

    """
    code = OK
    if not quiet and keys is not None:
        _say_keys(keys, sums or {name: sum(row[name] or 0 for row in inputs) for name in KEY_COLUMNS})
    for row in inputs:
        if row["status"] in ("failed", "damaged"):
            code = INCOMPLETE
        dropped = {name: row[name] for name in LIMITS if row[name]}
        if dropped:
            code = INCOMPLETE
        if quiet or (row["status"] == "ok" and not dropped):
            continue
        where = f" at byte {row['damaged_at']}" if row["damaged_at"] is not None else ""
        lost = f", {row['lost_bytes']} bytes not read" if row["lost_bytes"] else ""
        limits_met = [
            f"{n} {name.removeprefix('skipped_').replace('_', ' ')} cut by a limit" for name, n in dropped.items()
        ]
        what = "; ".join([f"{row['message']}{where}{lost}"] * bool(row["message"]) + limits_met)
        say(f"{visible(row['source'])}: {row['status']}: {what}")
    return code
