"""The report, `explain` and `compare` on a terminal: rich tables that fit the width, colour that turns itself off."""

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analyzer.knowledge.catalogue import Catalogue, CodeInfo
from analyzer.logs.format import Format
from analyzer.report.document import assumptions, headline, percent
from analyzer.report.text import plural, visible

STYLES = {
    "wire": "green",
    "synthesized": "yellow",
    "reported": "cyan",
    "inferred": "magenta",
    "undetermined": "bright_black",
}
"""Colour of a provenance; its word always stands beside it."""

BAR_WIDTH = 10

MIN_WIDTH_FOR_BARS = 76
DIAGNOSES_SHOWN = 40
ROWS_SHOWN = 20
"""Rows of a block that a terminal shows; JSON and CSV hold all."""

REPORTED_BY = {
    "client": "What the clients report",
    "server": "What the servers report",
    "proxy": "What proxies report",
    "unknown": "What endpoints report whose side the log does not tell",
}

ENDERS = ("client", "server", "proxy")
SIDES = {"unknown": "side not told"}

UNSEEN = "bytes are missing, so it is not known whether"

ON_WIRE = {
    "allowed": "may be sent",
    "never": "never sent: endpoints make it up",
    "illegal": "must not be sent",
    "registered": "for libraries and frameworks, by registration",
    "private": "for the application: its meaning is private",
}


@contextlib.contextmanager
def _page(out: TextIO, width: int | None) -> Iterator[Console]:
    """A console on `out`; where that is no terminal, lines end where their text does and carry no colour."""
    target = out if out.isatty() else io.StringIO()
    yield Console(file=target, width=width, highlight=False, emoji=False, markup=False)
    if isinstance(target, io.StringIO):
        out.writelines(f"{line.rstrip()}\n" for line in target.getvalue().splitlines())


def _bar(share: float) -> Text:
    return Text("█" * max(1, round(share * BAR_WIDTH)), style="blue")


def print_report(document: dict[str, Any], out: TextIO = sys.stdout, *, width: int | None = None) -> None:
    """Print a report document.

    Args:
        document: From `Report.document`.
        out: Where to; colour only where that is a terminal.
        width: Columns, None for the terminal's own (80 where there is none).

    """
    with _page(out, width) as console:
        if document["partial"]:
            console.print(Text("Interrupted: only what was read so far.", style="bold red"))
        console.print(Text(headline(document), style="bold"))
        if document["first"]:
            console.print(Text(f"{document['first'][:19]} to {document['last'][:19]} UTC", style="bright_black"))
        for story in document["stories"]:
            _print_story(console, story)
        for row in document["log_stories"]:
            _print_log_story(console, row)
        for endpoint, n in document["established"].items():
            rows = [row for row in document["frequencies"] if row["endpoint"] == endpoint]
            if rows:
                console.print()
                noun = "view" if document["logged"] else "established connection"
                _print_frequencies(console, f"{REPORTED_BY[endpoint]} ({plural(n, noun)})", rows)
        if document["illegal"]:
            console.print()
            rows = document["illegal"]
            _print_frequencies(console, "Codes that may not be sent, yet stood on the wire", rows, names_side=True)
        _print_block(console, "No code is claimed", document["undetermined"])
        _print_block(console, "Never opened (not in the shares)", document["never_opened"])
        _print_block(console, "Seen by proxies (not in the shares)", document["proxy"])
        _print_systems(console, document)
        _print_unseen(console, document)
        if document["diagnoses"]:
            console.print()
            console.print(Text("Diagnosis", style="bold underline"))
        for entry in document["diagnoses"][:DIAGNOSES_SHOWN]:
            _print_diagnosis(console, entry)
        _print_rest(console, len(document["diagnoses"]) - DIAGNOSES_SHOWN, "text")
        if not document["connections"] and not document["logged"]:
            console.print()
            what = "No WebSocket was found." if document["packets"] else "No WebSocket close was found."
            console.print(Text(what))


def _print_frequencies(console: Console, title: str, rows: list[dict[str, Any]], *, names_side: bool = False) -> None:
    name, _, note = title.partition(" (")
    console.print(Text.assemble((name, "bold"), f" ({note}" if note else ""))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bright_black")
    if names_side:
        table.add_column("seen by", no_wrap=True)
    table.add_column("code", justify="right", no_wrap=True, min_width=4)
    table.add_column("name", overflow="ellipsis", no_wrap=True, max_width=26)
    table.add_column("provenance", no_wrap=True, min_width=11)
    table.add_column("closed by", no_wrap=True, min_width=9)
    table.add_column("count", justify="right", no_wrap=True, min_width=5)
    table.add_column("share", justify="right", no_wrap=True, min_width=7)
    has_bars = not names_side and console.width >= MIN_WIDTH_FOR_BARS
    if has_bars:
        table.add_column("", no_wrap=True, width=BAR_WIDTH)
    for row in rows[:ROWS_SHOWN]:
        cells: list[Any] = [row["endpoint"]] if names_side else []
        cells += [
            str(row["code"]),
            row["name"],
            Text(row["provenance"], style=STYLES[row["provenance"]]),
            row["initiator"],
            f"{row['count']:,}",
            percent(row["share"]),
        ]
        if has_bars:
            cells.append(_bar(row["share"]))
        table.add_row(*cells)
    console.print(table)
    _print_rest(console, len(rows) - ROWS_SHOWN, "row")


def _print_rest(console: Console, n: int, noun: str) -> None:
    """Say how much a terminal does not show."""
    if n > 0:
        console.print(Text(f"  and {plural(n, f'more {noun}')}: --format json shows all", style="bright_black"))


def _print_block(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    console.print()
    console.print(Text(title, style="bold"))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=7, justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for row in rows[:ROWS_SHOWN]:
        code = f" {row['code']}" if row.get("code") else ""
        by = f" (ended by the {row['ended_by']})" if row.get("ended_by") in ENDERS else ""
        title = f"{row['title']}{by}"
        grid.add_row(f"{row['count']:,}", f"{row['endpoint']}{code}", Text(row["evidence"], "yellow"), title)
    console.print(grid)
    _print_rest(console, len(rows) - ROWS_SHOWN, "row")


def _print_systems(console: Console, document: dict[str, Any]) -> None:
    """Which systems logged how much, and what was assumed of their times."""
    if document["systems"]:
        console.print()
        console.print(Text("Logged by", style="bold"))
        shown = [f"{row['system']} {row['count']:,}" for row in document["systems"][:ROWS_SHOWN]]
        if len(document["systems"]) > ROWS_SHOWN:
            shown.append("...")
        console.print(Padding(Text(", ".join(shown)), (0, 0, 0, 2)))
    for sentence in assumptions(document):
        console.print(Padding(Text(sentence, style="bright_black"), (0, 0, 0, 2)))


def _print_unseen(console: Console, document: dict[str, Any]) -> None:
    if not document["unseen"] and not document["troubled"]:
        return
    console.print()
    console.print(Text("What could not be seen", style="bold"))
    for entry in document["unseen"].values():
        console.print(Text(f"  {entry['count']:>6,}  {entry['about']}"))
    for row in document["troubled"]:
        where = f" at byte {row['damaged_at']:,}" if row["damaged_at"] is not None else ""
        lost = f", {row['lost_bytes']:,} bytes not read" if row["lost_bytes"] else ""
        what = f"{row['status']}: {row['message'] or 'nothing more was read'}{where}{lost}"
        console.print(Text(f"  {visible(row['source'])}: {what}"))


def _print_log_story(console: Console, row: dict[str, Any]) -> None:
    console.print()
    place = f"{visible(row['source'])}, line {row['record']}"
    system = f"  logged by {row['system']}" if row["system"] else "  a system that is not known"
    console.print(Text.assemble((place, "bold"), system))
    for line in tell_logged(row):
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def tell_logged(row: dict[str, Any]) -> list[str]:
    """Sentences that say what a logged close tells."""
    who = {"proxy": "The proxy", "unknown": "The endpoint that wrote it"}.get(row["endpoint"], f"The {row['endpoint']}")
    lines = []
    if row["code"] is None:
        printed = f"; it prints {visible(row['raw_code'])}" if row["raw_code"] else ""
        lines.append(f"{who} names no code that can be relied on ({row['provenance']}, {row['evidence']}{printed}).")
    else:
        how = f"{row['provenance']}, {row['evidence']}, {row['confidence']} confidence"
        lines.append(f"{who} reports {row['code']} {row['name']} ({how}).")
    came = {"status": f"Close {row['wire_code']}", "empty": "a Close without a code", "none": "no Close"}
    if row["received"] in came:
        lines.append(f"It received {came[row['received']]}.")
    went = {"status": f"Close {row['sent_code']}", "empty": "a Close without a code", "none": "no Close"}
    if row["sent"] in went:
        lines.append(f"It sent {went[row['sent']]}.")
    if row["reason"]:
        lines.append(f'Reason: "{visible(row["reason"])}".')
    if row["initiator"] in ("client", "server", "both"):
        lines.append(f"First Close: {row['initiator']}.")
    if row["ended_by"] in ("client", "server", "proxy", "both"):
        after = f" after {row['duration_s']:,.3f} s" if row["duration_s"] is not None else ""
        lines.append(f"Ended by: {row['ended_by']}{after}.")
    elif row["duration_s"] is not None:
        lines.append(f"It lasted {row['duration_s']:,.3f} s.")
    about = [f"{name} {visible(row[name])}" for name in ("client", "server", "host", "path") if row[name]]
    if about:
        lines.append(f"About: {', '.join(about)}.")
    if row["time"]:
        lines.append(f"At {row['time'][:23]} UTC.")
    return lines


def _print_story(console: Console, story: dict[str, Any]) -> None:
    console.print()
    target = " ".join(visible(story[name]) for name in ("host", "path") if story[name])
    console.print(Text.assemble((f"{story['client']} -> {story['server']}", "bold"), f"  {target}"))
    for line in tell(story):
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def tell(story: dict[str, Any]) -> list[str]:
    """Sentences that say who closed, with which code, and how that is known."""
    lines = []
    if story["handshake"] == "rejected":
        status = story["http_status"] or "an unreadable status"
        lines.append(f"Never opened: the server answered the upgrade request with HTTP {status}.")
    elif story["handshake"] == "failed":
        lines.append("Never opened: the handshake did not succeed.")
    closes = []
    for side in ("client", "server"):
        kind, code = story[f"{side}_close"], story[f"{side}_close_code"]
        if kind == "none":
            continue
        said = {
            "status": f"Close {code}",
            "empty": "a Close without a code",
            "short": "a Close with a body of one byte",
        }
        reason = f' "{visible(story[f"{side}_close_reason"])}"' if story[f"{side}_close_reason"] else ""
        what = said.get(kind, "a Close whose code was not captured")
        closes.append(
            (story[f"{side}_close_record"], f"the {side} sent {what}{reason} (packet {story[f'{side}_close_record']})")
        )
    closes.sort()
    if len(closes) == 2 and story["initiator"] == "both":
        lines.append(f"Both closed at once: {closes[0][1]}, {closes[1][1]}.")
    elif closes:
        first = closes[0][1]
        silence = "no Close came back" if story["initiator"] != "unknown" else f"{UNSEEN} the other side sent one"
        answer = f"; {closes[1][1]} in answer" if len(closes) == 2 else f"; {silence}"
        lines.append(f"{first[0].upper()}{first[1:]}{answer}.")
    elif story["handshake"] in ("complete", "missing"):
        unknown = story["initiator"] == "unknown"
        lines.append(f"No Close was captured; {UNSEEN} one was sent." if unknown else "Nobody sent a Close.")
    if story["end"] in ("fin", "rst"):
        after = f" after {story['duration_s']:.3f} s" if story["duration_s"] is not None else ""
        lines.append(f"TCP was ended by the {story['ended_by']} with {story['end'].upper()}{after}.")
    elif story["end"] == "open":
        lines.append("The capture ends while TCP is still open.")
    elif story["end"] == "vanished":
        lines.append("One side stopped answering; TCP was never ended.")
    for view in story["views"]:
        where = f", packet {view['record']}" if view["record"] else ""
        if view["code"] is None:
            lines.append(f"The {view['endpoint']} reports: undetermined ({view['evidence']}{where}).")
        else:
            sure = f", {view['confidence']} confidence"
            how = f"{view['provenance']}, {view['evidence']}{where}{sure}"
            lines.append(f"The {view['endpoint']} reports {view['code']} ({how}).")
    if story["anomalies"]:
        lines.append(f"Against RFC 6455: {', '.join(story['anomalies'])}.")
    return lines


def _print_field(console: Console, label: str, text: str) -> None:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=7, no_wrap=True, style="bright_black")
    grid.add_column(ratio=1)
    grid.add_row(label, Text(text))
    console.print(Padding(grid, (0, 0, 0, 2)))


def _print_diagnosis(console: Console, entry: dict[str, Any]) -> None:
    console.print()
    code = "No code" if entry["code"] is None else f"{entry['code']} {entry['name']}"
    console.print(
        Text.assemble(
            (code, "bold"),
            f"  {plural(entry['count'], 'view')} ({' and '.join(SIDES.get(e, e) for e in entry['endpoints'])})  ",
            (entry["title"], "bold"),
        )
    )
    _print_field(console, "why", entry["cause"])
    if entry["check"]:
        _print_field(console, "check", entry["check"])
    _print_field(console, "do", entry["fix"])
    first = entry["first"]
    packet = f", {first['place']}" if first["place"] else ""
    time = f", {first['time'][:23]}" if first["time"] else ""
    peer = f", peer {visible(first['peer'])}" if first["peer"] else ""
    view = SIDES.get(first["endpoint"], f"{first['endpoint']}'s view")
    _print_field(console, "first", f"{visible(first['source'])}{packet}{time}, {view}{peer}")
    _print_field(console, "source", entry["source"])


def print_formats(formats: Iterable[Format], out: TextIO = sys.stdout, *, width: int | None = None) -> None:
    """Print the systems whose logs are read, with the rule that each one's codes follow."""
    with _page(out, width) as console:
        for fmt in sorted(formats, key=lambda fmt: fmt.id):
            console.print(Text.assemble((fmt.id, "bold"), f"  {visible(fmt.title)}"))
            _print_field(console, "rule", visible(fmt.rule, most=1000))
            _print_field(console, "source", visible(fmt.source, most=1000))


def print_code(code: int, catalogue: Catalogue, out: TextIO = sys.stdout, *, width: int | None = None) -> None:
    """Print what is known about one code."""
    with _page(out, width) as console:
        info = catalogue.code(code)
        console.print(Text.assemble((f"{code} {info.name}", "bold"), f"  ({ON_WIRE[info.on_wire]})"))
        for label, text in (("means", info.meaning), ("seen", info.seen), ("do", info.fix)):
            _print_field(console, label, text)
        sent_by = {"either": "either side", "nobody": "nobody", "client": "the client", "server": "the server"}
        _print_field(console, "sent by", sent_by[info.sender])
        _print_field(console, "source", info.source)
        if info.confused_with:
            others = ", ".join(str(other) for other in info.confused_with)
            _print_field(console, "not", f"{others} (see: wsclose compare {code} {info.confused_with[0]})")
        for diagnosis in info.diagnoses:
            console.print()
            console.print(Padding(Text(diagnosis.title, style="bold"), (0, 0, 0, 2)))
            if diagnosis.when:
                conditions = [f"{column} is {' or '.join(sorted(values))}" for column, values in diagnosis.when.items()]
                _print_field(console, "when", ", ".join(conditions))
            for label, text in (("why", diagnosis.cause), ("check", diagnosis.check), ("do", diagnosis.fix)):
                _print_field(console, label, text)


def print_comparison(
    a: int, b: int, catalogue: Catalogue, out: TextIO = sys.stdout, *, width: int | None = None
) -> None:
    """Print two codes side by side; the hand-written difference first, where there is one."""
    with _page(out, width) as console:
        infos: list[tuple[int, CodeInfo]] = [(a, catalogue.code(a)), (b, catalogue.code(b))]
        console.print(Text(" and ".join(f"{code} {info.name}" for code, info in infos), style="bold"))
        pair = catalogue.pair(a, b)
        if pair is not None:
            _print_field(console, "differ", pair.differ)
            _print_field(console, "choose", pair.choose)
            _print_field(console, "source", pair.source)
        table = Table(box=None, pad_edge=False, padding=(1, 2, 0, 0), show_header=True, header_style="bold")
        table.add_column("", width=7, no_wrap=True, style="bright_black")
        for code, info in infos:
            table.add_column(f"{code} {info.name}", ratio=1)
        for label, field in (
            ("means", "meaning"),
            ("seen", "seen"),
            ("do", "fix"),
            ("sent by", "sender"),
            ("source", "source"),
        ):
            table.add_row(label, *(Text(str(getattr(info, field))) for _, info in infos))
        table.add_row("on wire", *(Text(ON_WIRE[info.on_wire]) for _, info in infos))
        console.print(table)
