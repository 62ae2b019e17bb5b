"""What commands are asked for: the options that several of them share, and what they mean."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from analyzer.knowledge import language as languages
from analyzer.model import Endpoint, Provenance

if TYPE_CHECKING:
    from analyzer.knowledge.language import Language
    from analyzer.reading import Settings


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

HOSTS = click.option(
    "--host",
    "hosts",
    multiple=True,
    help="Only closes of this host (or TLS server name); patterns like '*.example.org'.",
)
CODES = click.option(
    "--code", "codes", multiple=True, metavar="CODE", help="Only this code, range (4000-4999), or none."
)
ENDPOINTS = click.option(
    "--endpoint", "endpoints", type=click.Choice([*map(str, Endpoint)]), multiple=True, help="Whose view."
)
PORTS = click.option(
    "--port",
    "ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    help="Take connections to this server port for WebSockets even where their handshake was not captured.",
)
NO_SERIES = click.option(
    "--no-series",
    is_flag=True,
    help="Read captures apart even where they continue one another (tcpdump -C, -G, dumpcap -b).",
)
JOBS = click.option(
    "-j", "--jobs", type=click.IntRange(1), help="Processes to read many files with. All cores by default."
)
KEYS = click.option(
    "--keys",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Key log that opens TLS (NSS format); SSLKEYLOGFILE by default. Keys in pcapng files are found.",
)
WS_HOSTS = click.option(
    "--ws-host",
    "ws_hosts",
    multiple=True,
    metavar="NAME",
    help="Take TLS to this server name for a WebSocket even where no key opens it; patterns like '*.example.org'.",
)
WS_PORTS = click.option(
    "--ws-port",
    "ws_ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    help="Take TLS to this server port for a WebSocket even where no key opens it.",
)
OUTPUT = click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write here; the suffix names the format."
)
VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Say what is read.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="No messages, only data and the exit code.")
PATHS = click.argument("paths", nargs=-1, required=True, metavar="PATH...")
"""What several commands take; the fields of `Inputs` have their names."""

INPUT_OPTIONS: tuple[Decorator, ...] = (
    HOSTS,
    CODES,
    click.option("--since", metavar="TIME", help="Only closes from then on: 2026-11-20 or 2026-11-20T14:30:00Z."),
    click.option("--until", metavar="TIME", help="Only closes before then."),
    ENDPOINTS,
    click.option(
        "--provenance",
        "provenances",
        type=click.Choice([*map(str, Provenance)]),
        multiple=True,
        help="How it is known.",
    ),
    PORTS,
    KEYS,
    WS_HOSTS,
    WS_PORTS,
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
    NO_SERIES,
    JOBS,
    OUTPUT,
    VERBOSE,
    QUIET,
    PATHS,
)


def input_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What every reading command takes."""
    for decorator in INPUT_OPTIONS:
        function = decorator(function)
    return function


def format_option(*names: str) -> Decorator:
    """--format with these choices, the first by default."""
    return click.option("--format", "form", type=click.Choice(names), help=f"Output format, {names[0]} by default.")


def lang_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--lang, else the environment's locale."""
    return click.option(
        "--lang", type=click.Choice(list(languages.NAMES)), help="Language of the report. The locale's by default."
    )(function)


def redact_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--redact and --no-redact."""
    return click.option(
        "--redact/--no-redact",
        default=None,
        help="Take query strings, tokens and addresses out of reasons and paths. On by default in HTML and Markdown.",
    )(function)


def spoken(lang: str | None) -> "Language":
    """The language asked for, else the locale's."""
    return languages.load(languages.from_environment() if lang is None else lang)


def keys_from_environment(*, is_late: bool = False) -> tuple[Path, ...]:
    """The key log that programs on this machine write (SSLKEYLOGFILE), if there is one yet, or may be."""
    named = os.environ.get("SSLKEYLOGFILE")
    if not named:
        return ()
    is_there = os.access(named, os.R_OK) and Path(named).is_file()
    return (Path(named),) if is_there or (is_late and not os.path.lexists(named)) else ()


class Inputs(NamedTuple):
    """What `input_options` gathers."""

    paths: tuple[str, ...]
    ports: tuple[int, ...] = ()
    keys: tuple[Path, ...] = ()
    ws_hosts: tuple[str, ...] = ()
    ws_ports: tuple[int, ...] = ()
    tz: str | None = None
    formats: tuple[Path, ...] = ()
    no_dedupe: bool = False
    no_series: bool = False
    jobs: int | None = None
    output: str | None = None
    verbose: bool = False
    quiet: bool = False
    hosts: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    endpoints: tuple[str, ...] = ()
    provenances: tuple[str, ...] = ()

    def settings(self, *, is_live: bool = False) -> "Settings":
        """How the inputs are read, and which closes are wanted.

        While packets are captured programs may yet begin the key log: live it may be missing, and for a pipe that of
        SSLKEYLOGFILE.
        """
        from analyzer.reading import Settings
        from analyzer.selection import select

        settings = Settings(
            ports=self.ports,
            keys=self.keys or keys_from_environment(is_late=is_live or "-" in self.paths),
            late_keys=is_live or not self.keys,
            ws_hosts=self.ws_hosts,
            ws_ports=self.ws_ports,
            formats=self.formats,
            tz=self.tz,
            dedupe=not self.no_dedupe,
            series=not self.no_series,
        )
        selection = select(
            host=self.hosts,
            code=self.codes,
            since=self.since,
            until=self.until,
            endpoint=self.endpoints,
            provenance=self.provenances,
            zone=settings.zone(),
        )
        return settings._replace(selection=selection)

    def n_jobs(self) -> int:
        """How many processes may be started."""
        from analyzer import pool

        return self.jobs or pool.available_cores()
