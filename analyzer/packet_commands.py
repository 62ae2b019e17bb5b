"""The commands that deal with packets themselves: `live` takes them from an interface, `extract` copies them."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analyzer.errors import UsageError
from analyzer.model import CLOSES, End, Evidence, Received
from analyzer.options import (
    CODES,
    ENDPOINTS,
    HOSTS,
    JOBS,
    KEYS,
    NO_SERIES,
    OUTPUT,
    PATHS,
    PORTS,
    QUIET,
    VERBOSE,
    WS_HOSTS,
    WS_PORTS,
    Inputs,
    format_option,
    redact_option,
)
from analyzer.output import (
    INCOMPLETE,
    INTERRUPTED,
    OK,
    choose_format,
    conclude,
    open_binary,
    open_output,
    progress_of,
    refuse_overwriting,
    refuse_unless_read,
    say,
)
from analyzer.report.text import visible
from analyzer.table import Table

if TYPE_CHECKING:
    from analyzer.capture.scapy_io import LiveReader
    from analyzer.series import Series

LIVE_FORMATS = ("text", "jsonl", "csv")

NO_CLOSE = frozenset({Received.NONE, Received.UNKNOWN})


def _complete_interface(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    import socket

    return [name for _, name in socket.if_nameindex() if name.startswith(incomplete)]


@click.command(
    epilog="\b\nExamples:\n  wsclose live                              the interfaces there are\n"
    "  wsclose live -i eth0\n"
    "  wsclose live -i lo --filter 'tcp port 8080' --code 1006\n"
    "  wsclose live -i any --duration 3600 --format jsonl -o closes.jsonl\n"
    "\n\nCapturing takes the right to do so: run it as root. It ends with Ctrl-C (exit code 130), after --count rows "
    "or --duration seconds (0). --filter is tcpdump's language and needs libpcap; everything else works without."
)
@click.option(
    "-i",
    "--interface",
    "interfaces",
    multiple=True,
    metavar="IFACE",
    shell_complete=_complete_interface,
    help="Watch this interface, or any for all that are up; may stand more than once. Without it they are listed.",
)
@click.option("--filter", "bpf", metavar="BPF", help="Only packets that pass this filter, as for tcpdump.")
@click.option("--count", type=click.IntRange(1), help="End after so many rows.")
@click.option("--duration", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="End after this time.")
@HOSTS
@CODES
@ENDPOINTS
@PORTS
@KEYS
@WS_HOSTS
@WS_PORTS
@redact_option
@format_option(*LIVE_FORMATS)
@OUTPUT
@QUIET
def live(
    interfaces: tuple[str, ...],
    bpf: str | None,
    count: int | None,
    duration: float | None,
    form: str | None,
    redact: bool | None,
    **options: Any,
) -> int:
    """Watch network interfaces and write closes as they happen, each some two seconds after its connection's end."""
    import logging  # 5 ms that no other command needs to wait for

    from analyzer import kernel
    from analyzer.capture.scapy_io import LiveReader
    from analyzer.reading import read_chunks
    from analyzer.report.redaction import redact_table
    from analyzer.report.rows import WRITERS

    given = Inputs(paths=(), **options)
    form = choose_format(form, given.output, LIVE_FORMATS)
    settings = given.settings(is_live=True)
    logging.getLogger("scapy").setLevel(logging.ERROR)  # it warns of routes and addresses that matter to senders
    if not interfaces:
        return _list_interfaces(given.quiet)
    refuse_overwriting(given.output, [])
    kernel.expect(kernel.LOAD_AFTER_PACKETS)  # where they are compiled already, before the first packet
    name = "+".join(interfaces)
    n_rows = n_open = 0
    inputs: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        reader = LiveReader(interfaces, bpf=bpf, duration_s=duration)
        stack.callback(reader.close)
        out = stack.enter_context(open_output(given.output))
        writer = WRITERS[form](out, CLOSES)
        out.flush()
        is_interrupted = stack.enter_context(_stopping(reader))
        started = time.monotonic()
        if not given.quiet:
            say(f"watching {visible(name)}; Ctrl-C ends")
            for path in settings.keys:
                if not path.exists():
                    say(f"{visible(str(path))}: not there yet; it is read when it appears")
        for batch in read_chunks(reader, name, settings):
            inputs += batch.inputs.rows()
            n_open += sum(end == End.OPEN for end in batch.connections["end"])
            table = _without_open(batch.closes)
            if count is not None and n_rows + len(table) >= count:
                table = table.take(range(count - n_rows))
                reader.stop()
            if len(table):
                n_rows += len(table)
                writer.write(redact_table(table) if redact else table)
                out.flush()
    if not given.quiet:
        (row,) = inputs
        spent = f"{row['records']:,} packets in {time.monotonic() - started:.1f} s"
        say(f"{visible(name)}: {spent}, {n_rows:,} closes written, {n_open:,} connections still open")
        if reader.failure is not None:
            say(visible(reader.failure))
        if reader.n_dropped:
            say(f"{visible(name)}: the system dropped {reader.n_dropped:,} packets before they could be looked at")
    code = conclude(inputs, given.quiet, keys=settings.keys)
    if is_interrupted():
        return INTERRUPTED
    return INCOMPLETE if reader.n_dropped or reader.failure is not None else code


def _without_open(table: Table) -> Table:
    """The rows of what has happened: not those of connections that were merely open when watching ended."""
    names = ("end", "evidence", "received", "sent")
    rows = zip(*(table[name] for name in names), strict=True)
    happened = [
        i
        for i, (end, evidence, received, sent) in enumerate(rows)
        if not (end == End.OPEN and evidence == Evidence.OPEN_END and {received, sent} <= NO_CLOSE)
    ]
    return table if len(happened) == len(table) else table.take(happened)


def _list_interfaces(quiet: bool) -> int:
    from analyzer.capture.scapy_io import list_interfaces

    found = list_interfaces()
    for one in found:
        click.echo(" ".join([f"{visible(one.name):15}", *map(visible, one.addresses)]).rstrip())
    if not quiet:
        say("name one with -i" if found else "no interface is up")
    return OK


@contextlib.contextmanager
def _stopping(reader: "LiveReader") -> Iterator[Any]:
    """Let Ctrl-C, and a request to terminate, end the reading in order; a second one ends it at once.

    Yields what tells whether there was one.
    """
    import signal

    seen: list[int] = []

    def stop(number: int, _frame: object) -> None:
        seen.append(number)
        reader.stop()
        signal.signal(number, before[number])

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command(
    epilog="\b\nExamples:\n  wsclose extract 20261121T150159 trace.pcap -o one.pcapng\n"
    "  wsclose extract 20261121T150159.238019000Z-10.0.0.1:60908 captures/ -o one.pcapng\n"
    "  wsclose extract 20261121T15 trace.pcap | wireshark -k -i -\n"
    "\n\nThe keys stand in the column `connection` of: wsclose connections trace.pcap --format jsonl"
)
@click.argument("connection")
@PATHS
@PORTS
@KEYS
@WS_HOSTS
@WS_PORTS
@NO_SERIES
@JOBS
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write here, as pcapng.")
@VERBOSE
@QUIET
def extract(connection: str, **options: Any) -> int:
    """Write the packets of one connection as pcapng, for Wireshark.

    CONNECTION is the beginning of its key, as much as is needed to tell it from others. All packets of its TCP
    connection are copied as they were captured: both directions, bytes, times, link types, interfaces. Of a packet that
    came in IP fragments only the fragment that completes it is copied. Keys of its TLS that stand in the capture come
    along, those of a key log do not.
    """
    from analyzer.capture.extract import copy_packets, locate

    given = Inputs(**options)
    if given.output is not None and Path(given.output).suffix.lower() not in ("", ".pcapng"):
        raise UsageError(f"{given.output}: what is written is pcapng; name it .pcapng")
    row, members, inputs = find_connection(given, connection)
    located = locate(members, row)
    with open_binary(given.output) as file:
        n = copy_packets(located, file)
    if not given.quiet:
        say(f"wrote {visible(given.output or 'standard output')}: {n:,} packets of {row['connection']}")
    return conclude(inputs, given.quiet, keys=given.settings().keys)


def find_connection(given: Inputs, prefix: str | None) -> tuple[dict[str, Any], "Series", list[dict[str, Any]]]:
    """Read all inputs for the one connection whose key begins so: its row, its captures, the rows of `inputs`.

    Raises:
        UsageError: There is none, or more than one.

    """
    from analyzer import analysis
    from analyzer.connection import find
    from analyzer.series import from_source

    if "-" in given.paths:
        raise UsageError("-: can be read only once, and this reads twice: save the capture to a file")
    settings = given.settings()
    sources = analysis.prepare(given.paths, settings)
    refuse_overwriting(given.output, sources)
    rows: list[dict[str, Any]] = []
    inputs: list[dict[str, Any]] = []
    with contextlib.closing(progress_of(given, sources)) as progress:
        for batch in analysis.stream_sources(sources, settings, jobs=given.n_jobs(), progress=progress.tell):
            inputs += batch.inputs.rows()
            keys = batch.connections["connection"]
            rows += batch.connections.take([i for i, key in enumerate(keys) if key.startswith(prefix or "")]).rows()
    refuse_unless_read(inputs, len(inputs))
    row = find(rows, prefix)
    return row, from_source(analysis.to_works(sources, settings), row["source"]), inputs
