"""The command line: wiring only. Data goes to standard output, messages to standard error."""

import contextlib
import difflib
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

import click

from analyzer import __version__
from analyzer.errors import AnalyzerError, UsageError
from analyzer.model import CLOSES, CONNECTIONS, Table
from analyzer.report.text import visible

if TYPE_CHECKING:
    from analyzer.analysis import Settings
    from analyzer.sources import Source

OK, USAGE, INCOMPLETE, INTERRUPTED = 0, 2, 4, 130
"""Exit codes; 3 is kept for a condition that was asked for and met. 1 is never used on purpose."""

SUFFIXES = {".txt": "text", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".md": "markdown"}
"""What the name given to -o says about the format."""


class DefaultGroup(click.Group):
    """A group where `wsclose PATH...` means `wsclose report PATH...`."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take a path for `report PATH`, and suggest a command for what is neither."""
        first = args[0]
        if first not in self.commands:
            if first == "-" or first.startswith("-") or Path(first).exists() or any(c in first for c in "*?["):
                return "report", self.commands["report"], args
            near = difflib.get_close_matches(first, self.commands, n=1, cutoff=0.6)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            looks = "" if near else " It is neither a command nor an existing path; see wsclose --help."
            context.fail(f"no such command or file: {click.format_filename(first)!r}.{hint}{looks}")
        return super().resolve_command(context, args)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Take leading options of `report` for what they are."""
        own = {"--help", "-h", "--version", "--debug"}
        if args and args[0].startswith("-") and args[0] not in own:
            named = next((i for i, word in enumerate(args) if word in self.commands and not Path(word).exists()), None)
            args = ["report", *args] if named is None else [args[named], *args[:named], *args[named + 1 :]]
        return super().parse_args(context, args)


def input_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What every reading command takes."""
    for decorator in (
        click.option(
            "--port",
            "ports",
            type=click.IntRange(1, 65535),
            multiple=True,
            help="Take connections to this server port for WebSockets even where their handshake was not captured.",
        ),
        click.option(
            "--tz", metavar="ZONE", help="Time zone of logs that name none, such as Europe/Vienna. UTC by default."
        ),
        click.option(
            "--formats",
            "formats",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            multiple=True,
            help="Directory with further log formats (see: wsclose formats).",
        ),
        click.option(
            "--no-dedupe", is_flag=True, help="A row for each line of a log, also where several tell of one close."
        ),
        click.option(
            "-j", "--jobs", type=click.IntRange(1), help="Processes to read many files with. All cores by default."
        ),
        click.option(
            "-o", "--output", type=click.Path(dir_okay=False), help="Write here; the suffix names the format."
        ),
        click.option("-v", "--verbose", is_flag=True, help="Say what is read."),
        click.option("-q", "--quiet", is_flag=True, help="No messages, only data and the exit code."),
        click.argument("paths", nargs=-1, required=True, metavar="PATH..."),
    ):
        function = decorator(function)
    return function


def format_option(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--format with these choices, the first by default."""
    return click.option("--format", "form", type=click.Choice(names), help=f"Output format, {names[0]} by default.")


EPILOG = """\b
Examples:
  wsclose trace.pcapng                       report on one capture
  wsclose server.log                         report on a log
  wsclose report logs/ trace.pcap -o r.md    a directory and a capture
  tcpdump -i eth0 -w - tcp | wsclose closes -
  wsclose explain 1006
  wsclose compare 1005 1006

\b
Exit codes: 0 done; 2 usage, or nothing could be read; 4 incomplete (damage, a
file failed, a limit dropped data); 130 interrupted."""


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="wsclose")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Why did my WebSocket close? Reads packet captures and logs and says for each endpoint which close code it saw,
    how that is known, and what to do about it.
    """


class Inputs(NamedTuple):
    """What `input_options` gathers."""

    paths: tuple[str, ...]
    ports: tuple[int, ...]
    tz: str | None
    formats: tuple[Path, ...]
    no_dedupe: bool
    jobs: int | None
    output: str | None
    verbose: bool
    quiet: bool

    def settings(self) -> "Settings":
        """How the inputs are read."""
        from analyzer.analysis import Settings

        return Settings(ports=self.ports, formats=self.formats, tz=self.tz, dedupe=not self.no_dedupe)

    def n_jobs(self) -> int:
        """How many processes may be started."""
        from analyzer import pool

        return self.jobs or pool.available_cores()


@cli.command(
    epilog="\b\nExamples:\n  wsclose report trace.pcap\n  wsclose report server.log\n"
    "  wsclose report logs/*.gz trace.pcap --tz Europe/Vienna\n"
    "  wsclose report captures/ --format json -o report.json"
)
@input_options
@format_option("text", "json", "csv", "markdown")
def report(form: str | None, **options: Any) -> int:
    """Count the close codes and explain each one that occurs."""
    from analyzer import analysis
    from analyzer.knowledge import catalogue
    from analyzer.report.counts import Counts
    from analyzer.report.document import Report

    given = Inputs(**options)
    form = _choose_format(form, given.output, ("text", "json", "csv", "markdown"))
    _refuse_overwriting(given.output, given.paths)
    counts = Counts()
    is_partial = False
    settings = given.settings()
    found = analysis.prepare(given.paths, settings)
    try:
        with contextlib.closing(Progress(given, found)) as progress:
            for part in analysis.fold_sources(found, settings, jobs=given.n_jobs(), progress=progress.tell):
                counts.merge(part)
    except KeyboardInterrupt:
        is_partial = True
    if not is_partial:
        _refuse_unless_read(counts.inputs, counts.n_inputs)
    result = Report(counts, catalogue.load(), is_partial=is_partial)
    with _open_output(given.output) as out:
        if form == "json":
            json.dump(result.document, out, ensure_ascii=False, indent=2)
            out.write("\n")
        elif form == "csv":
            from analyzer.report.markdown import render_csv

            out.write(render_csv(result.document))
        elif form == "markdown":
            out.write(result.to_markdown())
        else:
            from analyzer.report.terminal import print_report

            print_report(result.document, out)
    return INTERRUPTED if is_partial else _conclude(counts.inputs, given.quiet)


def _write_rows(which: str, given: Inputs, form: str) -> int:
    from analyzer import analysis
    from analyzer.report.rows import WRITERS, Writer

    _refuse_overwriting(given.output, given.paths)
    inputs: list[dict[str, Any]] = []
    settings = given.settings()
    found = analysis.prepare(given.paths, settings)
    writer: Writer | None = None
    is_partial = False
    with contextlib.ExitStack() as stack:

        def write(table: Table) -> None:
            nonlocal writer
            if writer is None:
                out = stack.enter_context(_open_output(given.output))
                writer = WRITERS[form](out, CLOSES if which == "closes" else CONNECTIONS)
            writer.write(table)

        try:
            with contextlib.closing(Progress(given, found)) as progress:
                batches = analysis.stream_sources(found, settings, jobs=given.n_jobs(), progress=progress.tell)
                for batch in batches:
                    table = batch.closes if which == "closes" else batch.connections
                    inputs += batch.inputs.rows()
                    if len(table):
                        write(table)
                        if given.output is None:
                            sys.stdout.flush()
        except KeyboardInterrupt:
            is_partial = True
        if not is_partial:
            _refuse_unless_read(inputs, len(inputs))  # before an output is opened for nothing
        write(Table(CLOSES if which == "closes" else CONNECTIONS))
    if is_partial:
        if not given.quiet:
            _say("interrupted; what was found so far is written")
        return INTERRUPTED
    if which == "connections" and not given.quiet and any(row["kind"] == "log" for row in inputs):
        _say("logs tell of closes, not of connections: see wsclose closes")
    return _conclude(inputs, given.quiet)


@cli.command(
    epilog="\b\nExamples:\n  wsclose closes trace.pcap\n  wsclose closes captures/ --format csv -o closes.csv\n"
    "  kubectl logs -f POD | wsclose closes -"
)
@input_options
@format_option("text", "jsonl", "csv")
def closes(form: str | None, **options: Any) -> int:
    """One row for each endpoint's view of each end, written as they are found."""
    given = Inputs(**options)
    return _write_rows("closes", given, _choose_format(form, given.output, ("text", "jsonl", "csv")))


@cli.command(epilog="\b\nExamples:\n  wsclose connections trace.pcap\n  wsclose connections trace.pcap --format jsonl")
@input_options
@format_option("text", "jsonl", "csv")
def connections(form: str | None, **options: Any) -> int:
    """One row for each WebSocket connection of a capture, written as they end."""
    given = Inputs(**options)
    return _write_rows("connections", given, _choose_format(form, given.output, ("text", "jsonl", "csv")))


@cli.group(
    invoke_without_command=True,
    epilog="\b\nExamples:\n  wsclose formats\n  wsclose formats check my.toml\n"
    "  wsclose report app.log --formats my-formats/",
)
@click.pass_context
def formats(context: click.Context) -> int:
    """List the systems whose logs are read; `formats check` tests a format of your own."""
    if context.invoked_subcommand is not None:
        return OK
    from analyzer.logs import catalogue
    from analyzer.report.terminal import print_formats

    print_formats(catalogue.load().formats, sys.stdout)
    return OK


@formats.command(epilog="\b\nExample:\n  wsclose formats check my.toml")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
def check(files: tuple[Path, ...]) -> int:
    """Run the samples of log formats and say what is wrong with them."""
    from analyzer.errors import CatalogueError
    from analyzer.logs.catalogue import read_format
    from analyzer.logs.check import check_format

    n_wrong = 0
    for file in files:
        try:
            fmt = read_format(file)
        except CatalogueError as error:
            problems = [f"{error.key}: {error.why}"]
        else:
            problems = list(check_format(fmt))
            if not problems:
                n = len(fmt.patterns), len(fmt.samples), len(fmt.rejects)
                click.echo(f"{visible(file)}: ok ({n[0]} patterns, {n[1]} samples, {n[2]} rejects)")
        for problem in problems:
            click.echo(f"{visible(file)}: {visible(problem, most=1000)}")
        n_wrong += len(problems)
    return USAGE if n_wrong else OK


CODE = click.IntRange(0, 65535)


@cli.command(epilog="\b\nExample:\n  wsclose explain 1005 1006")
@click.argument("codes", nargs=-1, required=True, type=CODE, metavar="CODE...")
def explain(codes: tuple[int, ...]) -> int:
    """Say what is known about a close code."""
    from analyzer.knowledge import catalogue
    from analyzer.report.terminal import print_code

    for i, code in enumerate(codes):
        if i:
            click.echo()
        print_code(code, catalogue.load(), sys.stdout)
    return OK


@cli.command(epilog="\b\nExample:\n  wsclose compare 1001 1012")
@click.argument("code", type=CODE)
@click.argument("other", type=CODE)
def compare(code: int, other: int) -> int:
    """Set two close codes side by side."""
    from analyzer.knowledge import catalogue
    from analyzer.report.terminal import print_comparison

    print_comparison(code, other, catalogue.load(), sys.stdout)
    return OK


def _choose_format(form: str | None, output: str | None, allowed: tuple[str, ...]) -> str:
    """The format asked for, else what the output's suffix says, else text."""
    if form is not None or output is None:
        return form or allowed[0]
    implied = SUFFIXES.get(Path(output).suffix.lower())
    if implied not in allowed:
        suffixes = ", ".join(suffix for suffix, name in SUFFIXES.items() if name in allowed)
        raise UsageError(f"{output}: no format goes with this suffix; use one of {suffixes}, or --format")
    return implied


def _refuse_overwriting(output: str | None, paths: tuple[str, ...]) -> None:
    """Raise where the output is one of the inputs."""
    if output is None or not Path(output).exists():
        return
    for path in paths:
        if path != "-" and Path(path).exists() and Path(path).samefile(output):
            raise UsageError(f"{output}: this is an input; write to another file")


@contextlib.contextmanager
def _open_output(output: str | None) -> Iterator[TextIO]:
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


class Progress:
    """Says on standard error how far reading is: a line of text on a terminal, once it takes long."""

    PATIENCE_S = 1.0
    EVERY_S = 0.2

    def __init__(self, given: Inputs, found: list["Source"]) -> None:
        self._verbose = given.verbose
        self._shows = (
            not given.quiet and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        )
        # rows on a terminal are progress enough
        self._shows &= given.output is not None or sys.stdout is None or not sys.stdout.isatty() or self._verbose
        self._n_files = len(found)
        self._names: set[str] = set()
        self._shown_at = time.monotonic() + self.PATIENCE_S - self.EVERY_S
        self._width = 0

    def close(self) -> None:
        """Take the line away."""
        self._show("")

    def tell(self, source: str, n_bytes: int, size: int | None) -> None:
        """Note how far an input is read."""
        if source not in self._names:
            self._names.add(source)
            if self._verbose:
                self._show("")
                _say(f"reading {visible(source)}")
        now = time.monotonic()
        if self._shows and now - self._shown_at >= self.EVERY_S:
            self._shown_at = now
            share = f"{100 * n_bytes // size} %" if size else f"{n_bytes / 1e6:,.0f} MB"
            self._show(f"file {len(self._names):,} of {self._n_files:,}, {share}: {visible(source, most=40)}")

    def _show(self, text: str) -> None:
        if self._shows and (text or self._width):
            sys.stderr.write(f"\r{text:{self._width}}" + ("" if text else "\r"))
            sys.stderr.flush()
            self._width = len(text)


def _say(message: str) -> None:
    click.echo(f"wsclose: {message}", err=True)


def _refuse_unless_read(inputs: list[dict[str, Any]], n_inputs: int) -> None:
    """Raise for the first input where not one could be read."""
    failed = [row for row in inputs if row["status"] == "failed"]
    if n_inputs and len(failed) == n_inputs:
        more = f" (and {n_inputs - 1} more could not be read)" if n_inputs > 1 else ""
        raise UsageError(f"{failed[0]['source']}: {failed[0]['message']}{more}")


def _conclude(inputs: list[dict[str, Any]], quiet: bool) -> int:
    """Name on standard error what was not read, and choose the exit code."""
    limits = ("skipped_evicted", "skipped_parked", "skipped_heads", "skipped_long_lines")
    code = OK
    for row in inputs:
        if row["status"] in ("failed", "damaged"):
            code = INCOMPLETE
        dropped = {name: row[name] for name in limits if row[name]}
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
        _say(f"{visible(row['source'])}: {row['status']}: {what}")
    return code


def _leave(code: int) -> NoReturn:
    if sys.stdout is not None:
        sys.stdout.flush()
    sys.exit(code)


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if args is None else args
    # rows are many and have no cycles: looking for some after every 700 costs a fifth of the time (measured)
    gc.set_threshold(100_000, 20, 20)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        result = cli.main(args=arguments, prog_name="wsclose", standalone_mode=False)
        _leave(result if isinstance(result, int) else OK)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except (BrokenPipeError, SystemExit) as error:
        # click turns a closed pipe into exit 1, which nothing else here uses
        if isinstance(error, SystemExit) and error.code != 1:
            raise
        # whoever read us has enough; a flush at exit would complain again
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(OK)
    except (AnalyzerError, click.ClickException) as error:
        if "--debug" in arguments:
            raise
        _say(visible(error, most=1000))
        sys.exit(USAGE)
    except OSError as error:
        _say(f"{visible(error.filename or 'standard output')}: {(error.strerror or str(error)).lower()}")
        sys.exit(USAGE)
