"""The command line: wiring only. Data goes to standard output, messages to standard error."""

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click

from analyzer import __version__
from analyzer.errors import AnalyzerError, UsageError
from analyzer.model import CLOSES, CONNECTIONS, DIMENSIONS
from analyzer.options import Inputs, format_option, input_options, lang_option, redact_option, spoken
from analyzer.output import (
    BINARY,
    INTERRUPTED,
    MET,
    OK,
    USAGE,
    RowsBeside,
    choose_format,
    conclude,
    open_binary,
    open_output,
    open_rows,
    progress_of,
    refuse_overwriting,
    refuse_unless_read,
    say,
)
from analyzer.packet_commands import extract, find_connection, live
from analyzer.report.text import visible
from analyzer.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analyzer.knowledge.language import Language
    from analyzer.report.document import Report
    from analyzer.report.rows import Writer


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
            import difflib

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


EPILOG = """\b
Examples:
  wsclose trace.pcapng                       report on one capture
  wsclose server.log                         report on a log
  wsclose report logs/ trace.pcap -o r.html  a directory and a capture, as a page
  wsclose plot timeline logs/ -o week.svg    a figure
  tcpdump -i eth0 -w - tcp | wsclose closes -
  wsclose live -i eth0                       closes as they happen
  wsclose extract 20261121T15 trace.pcap -o one.pcapng
  wsclose explain 1006
  wsclose compare 1005 1006

\b
Exit codes: 0 done; 2 usage, or nothing could be read; 3 a --fail-on condition
is met; 4 incomplete (damage, a file failed, a limit dropped data); 130
interrupted."""


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="wsclose")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Why did my WebSocket close? Reads packet captures and logs and says for each endpoint which close code it saw,
    how that is known, and what to do about it.
    """


REPORT_FORMATS = ("text", "json", "csv", "markdown", "html", "parquet")


@cli.command(
    epilog="\b\nExamples:\n  wsclose report trace.pcap\n  wsclose report server.log --lang vi\n"
    "  wsclose report logs/*.gz trace.pcap --tz Europe/Vienna -o report.html\n"
    "  wsclose report logs/ --host '*.example.org' --since 2026-11-20 --by path --top 20\n"
    "  wsclose report captures/ --format json -o report.json\n"
    "  wsclose report logs/ -q --fail-on 'code=1006 share>5%'"
)
@input_options
@click.option(
    "--by",
    type=click.Choice(DIMENSIONS),
    multiple=True,
    help="Break down by this alone; may stand more than once.",
)
@click.option("--freq", metavar="STEP", help="Step of the timeline: 10s, 5min, 1h, 1d. Chosen by the data.")
@click.option("--top", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Values of each breakdown.")
@click.option(
    "--fail-on",
    "fail_on",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 3 where it is met: 'code=1006 share>5%'; may stand more than once.",
)
@redact_option
@lang_option
@format_option(*REPORT_FORMATS)
def report(
    form: str | None,
    by: tuple[str, ...],
    freq: str | None,
    top: int,
    fail_on: tuple[str, ...],
    redact: bool | None,
    lang: str | None,
    **options: Any,
) -> int:
    """Count the close codes and explain each one that occurs."""
    from analyzer import analysis
    from analyzer.knowledge import catalogue
    from analyzer.report.condition import parse_condition
    from analyzer.report.counts import Counts
    from analyzer.report.document import Report
    from analyzer.selection import parse_step

    given = Inputs(**options)
    form = choose_format(form, given.output, REPORT_FORMATS)
    conditions = [parse_condition(text) for text in fail_on]
    step_ns = None if freq is None else parse_step(freq)
    language = spoken(lang)
    counts = Counts(step_ns=step_ns)
    is_partial = False
    settings = given.settings()
    found = analysis.prepare(given.paths, settings)
    refuse_overwriting(given.output, found)
    with contextlib.ExitStack() as stack:
        beside = None
        if form == "html":
            rows = RowsBeside(given.output, found, redact=redact is not False, says=not given.quiet)
            beside = stack.enter_context(rows)
        progress = progress_of(given, found)
        try:
            if beside is None:
                parts = analysis.fold_sources(
                    found,
                    settings,
                    step_ns=step_ns,
                    keeps_rows=form == "json",
                    jobs=given.n_jobs(),
                    progress=progress.tell,
                )
                for part in parts:
                    counts.merge(part)
            else:
                for batch in analysis.stream_sources(found, settings, jobs=given.n_jobs(), progress=progress.tell):
                    counts.add(*batch)
                    beside.write(batch.closes)
        except KeyboardInterrupt:
            is_partial = True
        finally:
            progress.close()  # before the report is written, maybe to the same terminal
        if not is_partial:
            refuse_unless_read(counts.inputs, counts.n_inputs)
        result = Report(
            counts,
            catalogue.load(),
            is_partial=is_partial,
            by=by or DIMENSIONS,
            top=top,
            step_ns=step_ns,
            selection=settings.selection,
            language=language,
            keys=settings.keys,
        )
        if beside is not None:
            result.document["rows_beside"] = beside.keep_if_more_than(len(result.document["rows"]))
        _write_report(result, form, given.output, redact)
    if is_partial:
        return INTERRUPTED
    code = conclude(counts.inputs, given.quiet, keys=settings.keys, sums=counts.sums)
    return MET if _say_met(conditions, result.document, given.quiet) else code


def _write_report(result: "Report", form: str, output: str | None, redact: bool | None) -> None:
    from analyzer.report.rows import render_frequencies, to_safe_json

    document = result.document
    if redact and form in ("text", "json"):
        from analyzer.report.redaction import redacted

        document = redacted(document)
    if form == "parquet":
        from analyzer.report.parquet import write_frequencies

        with open_binary(output) as file:
            write_frequencies(document, file)
        return
    if form == "text":
        from analyzer.report.terminal import print_report

        with open_output(output) as out:
            print_report(document, out, language=result.language)
        return
    if form == "json":
        content = to_safe_json(document) + "\n"
    elif form == "csv":
        content = render_frequencies(document)
    elif form == "markdown":
        content = result.to_markdown(redact=redact is not False)
    else:
        content = result.to_html(redact=redact is not False)
    with open_output(output) as out:  # once there is something to write
        out.write(content)


def _say_met(conditions: list[Any], document: dict[str, Any], quiet: bool) -> bool:
    """Whether a condition is met; which one is, and by how much, is said."""
    from analyzer.report.condition import find_met

    is_met = False
    for condition in conditions:
        for endpoint, count, total in find_met(condition, document):
            is_met = True
            if not quiet:
                share = f"{count:,} of {total:,} views, {100 * count / total:.1f} %"
                say(f"--fail-on {visible(condition.text)!r} is met: {endpoint}: {share}")
    return is_met


def _write_rows(which: str, given: Inputs, form: str, redact: bool | None) -> int:
    from analyzer import analysis
    from analyzer.report.redaction import redact_table

    inputs: list[dict[str, Any]] = []
    settings = given.settings()
    found = analysis.prepare(given.paths, settings)
    refuse_overwriting(given.output, found)
    writer: Writer | None = None
    is_partial = False
    with contextlib.ExitStack() as stack:

        def write(table: Table) -> None:
            nonlocal writer
            if writer is None:
                writer = open_rows(stack, form, given.output, CLOSES if which == "closes" else CONNECTIONS)
            writer.write(redact_table(table) if redact else table)

        try:
            with contextlib.closing(progress_of(given, found, writes_rows=True)) as progress:
                batches = analysis.stream_sources(found, settings, jobs=given.n_jobs(), progress=progress.tell)
                for batch in batches:
                    table = batch.closes if which == "closes" else batch.connections
                    inputs += batch.inputs.rows()
                    if len(table):
                        write(table)
                        if given.output is None and form not in BINARY:
                            sys.stdout.flush()
        except KeyboardInterrupt:
            is_partial = True
        if not is_partial:
            refuse_unless_read(inputs, len(inputs))  # before an output is opened for nothing
        write(Table(CLOSES if which == "closes" else CONNECTIONS))
    if is_partial:
        if not given.quiet:
            say("interrupted; what was found so far is written")
        return INTERRUPTED
    if which == "connections" and not given.quiet and any(row["kind"] == "log" for row in inputs):
        say("logs tell of closes, not of connections: see wsclose closes")
    return conclude(inputs, given.quiet, keys=settings.keys)


ROW_FORMATS = ("text", "jsonl", "csv", "parquet")


@cli.command(
    epilog="\b\nExamples:\n  wsclose closes trace.pcap\n  wsclose closes captures/ --format csv -o closes.csv\n"
    "  kubectl logs -f POD | wsclose closes -"
)
@input_options
@redact_option
@format_option(*ROW_FORMATS)
def closes(form: str | None, redact: bool | None, **options: Any) -> int:
    """One row for each endpoint's view of each end, written as they are found."""
    given = Inputs(**options)
    return _write_rows("closes", given, choose_format(form, given.output, ROW_FORMATS), redact)


@cli.command(epilog="\b\nExamples:\n  wsclose connections trace.pcap\n  wsclose connections trace.pcap --format jsonl")
@input_options
@redact_option
@format_option(*ROW_FORMATS)
def connections(form: str | None, redact: bool | None, **options: Any) -> int:
    """One row for each WebSocket connection of a capture, written as they end."""
    given = Inputs(**options)
    return _write_rows("connections", given, choose_format(form, given.output, ROW_FORMATS), redact)


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
    from analyzer.report.reference import print_formats

    with open_output(None) as out:
        print_formats(catalogue.load().formats, out, language=spoken(None))
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


PLOTS = ("codes", "timeline", "durations", "silences", "ends", "views", "life")


@cli.command(
    epilog="\b\nExamples:\n  wsclose plot codes logs/ -o codes.svg\n"
    "  wsclose plot timeline logs/ --freq 1h -o week.png\n"
    "  wsclose plot silences captures/ -o silences.pdf --lang th\n"
    "  wsclose plot life trace.pcap --connection 20261121T1500 -o life.svg"
)
@click.argument("kind", type=click.Choice(PLOTS), metavar="KIND")
@input_options
@click.option("--freq", metavar="STEP", help="Step of the timeline: 10s, 5min, 1h, 1d. Chosen by the data.")
@click.option("--connection", metavar="PREFIX", help="For life: beginning of the connection's key.")
@lang_option
@format_option("svg", "png", "pdf")
def plot(
    kind: str, form: str | None, freq: str | None, connection: str | None, lang: str | None, **options: Any
) -> int:
    """Draw KIND: codes, timeline, durations, silences, ends, views, or the life of one connection."""
    from analyzer.report import plots

    given = Inputs(**options)
    form = choose_format(form, given.output, ("svg", "png", "pdf"))
    language = spoken(lang)
    draw = _draw_life if kind == "life" else _draw_counts
    axes, inputs = draw(kind, given, language, freq=freq, prefix=connection)
    with open_binary(given.output) as file:
        plots.save_figure(cast("Figure", axes.figure), file, form=form, language=language)
    return conclude(inputs, given.quiet)


def _draw_counts(
    kind: str, given: Inputs, language: "Language", *, freq: str | None, prefix: str | None
) -> tuple["Axes", list[dict[str, Any]]]:
    """Draw a block of the report."""
    from analyzer import analysis
    from analyzer.knowledge import catalogue
    from analyzer.report import plots
    from analyzer.report.counts import Counts
    from analyzer.report.document import Report
    from analyzer.selection import parse_step, step_text

    if prefix is not None:
        raise UsageError(f"--connection goes with life, not with {kind}")
    step_ns = None if freq is None else parse_step(freq)
    counts = Counts(step_ns=step_ns)
    settings = given.settings()
    found = analysis.prepare(given.paths, settings)
    refuse_overwriting(given.output, found)
    with contextlib.closing(progress_of(given, found)) as progress:
        for part in analysis.fold_sources(
            found, settings, step_ns=step_ns, keeps_rows=False, jobs=given.n_jobs(), progress=progress.tell
        ):
            counts.merge(part)
    refuse_unless_read(counts.inputs, counts.n_inputs)
    result = Report(counts, catalogue.load(), step_ns=step_ns, language=language)
    # the bars are the report's own steps: others would not fit them
    more = {"freq": step_text(result.document["timeline"]["step_s"])} if kind == "timeline" else {}
    try:
        return getattr(plots, f"plot_{kind}")(result.table(kind), language=language, **more), counts.inputs
    except ValueError as error:
        raise UsageError(str(error)) from error


def _draw_life(
    kind: str, given: Inputs, language: "Language", *, freq: str | None, prefix: str | None
) -> tuple["Axes", list[dict[str, Any]]]:
    """Draw one connection."""
    from analyzer.connection import Connection

    if freq is not None:
        raise UsageError(f"--freq goes with timeline, not with {kind}")
    row, members, inputs = find_connection(given, prefix)
    return Connection(row, [], members, language=language, ports=given.ports, keys=given.keys).plot(), inputs


cli.add_command(live)
cli.add_command(extract)

CODE = click.IntRange(0, 65535)


@cli.command(epilog="\b\nExample:\n  wsclose explain 1005 1006")
@click.argument("codes", nargs=-1, required=True, type=CODE, metavar="CODE...")
@lang_option
def explain(codes: tuple[int, ...], lang: str | None) -> int:
    """Say what is known about a close code."""
    from analyzer.report.reference import print_code

    with open_output(None) as out:
        for i, code in enumerate(codes):
            if i:
                out.write("\n")
            print_code(code, out, language=spoken(lang))
    return OK


@cli.command(epilog="\b\nExample:\n  wsclose compare 1001 1012")
@click.argument("code", type=CODE)
@click.argument("other", type=CODE)
@lang_option
def compare(code: int, other: int, lang: str | None) -> int:
    """Set two close codes side by side."""
    from analyzer.report.reference import print_comparison

    with open_output(None) as out:
        print_comparison(code, other, out, language=spoken(lang))
    return OK


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
        say(visible(error, most=1000))
        sys.exit(USAGE)
    except OSError as error:
        say(f"{visible(error.filename or 'standard output')}: {(error.strerror or str(error)).lower()}")
        sys.exit(USAGE)
