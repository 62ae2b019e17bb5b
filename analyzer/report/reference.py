"""What is known, on a terminal: `explain`, `compare` and `formats`."""

import sys
from collections.abc import Iterable
from typing import TextIO

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analyzer.knowledge.language import Language
from analyzer.logs.format import Format
from analyzer.report.terminal import FAINT, page, print_field
from analyzer.report.text import visible


def print_formats(
    formats: Iterable[Format], out: TextIO = sys.stdout, *, language: Language, width: int | None = None
) -> None:
    """Print the systems whose logs are read, with the rule that each one's codes follow."""
    with page(out, width) as console:
        for fmt in sorted(formats, key=lambda fmt: fmt.id):
            console.print(Text.assemble((fmt.id, "bold"), f"  {visible(fmt.title)}"))
            for name in ("rule", "source"):
                print_field(console, language, name, visible(getattr(fmt, name), most=1000))


def print_code(code: int, out: TextIO = sys.stdout, *, language: Language, width: int | None = None) -> None:
    """Print what is known about one code."""
    label = language.label
    with page(out, width) as console:
        info = language.about(code)
        console.print(Text.assemble((f"{code} {info.name}", "bold"), f"  ({label(f'on_wire.{info.on_wire}')})"))
        for name, text in (
            ("means", info.meaning),
            ("seen", info.seen),
            ("do", info.fix),
            ("sent_by", label(f"sender.{info.sender}")),
            ("source", info.source),
        ):
            print_field(console, language, name, text)
        if info.confused_with:
            others = ", ".join(str(other) for other in info.confused_with)
            see = label("explain.see_compare", others=others, code=code, other=info.confused_with[0])
            print_field(console, language, "not", see)
        for diagnosis in info.diagnoses:
            console.print()
            console.print(Padding(Text(diagnosis.title, style="bold"), (0, 0, 0, 2)))
            if diagnosis.when:
                conditions = [
                    label("explain.may_ask", column=column, values=" | ".join(sorted(values)))
                    for column, values in diagnosis.when.items()
                ]
                print_field(console, language, "when", ", ".join(conditions))
            for name, text in (("why", diagnosis.cause), ("check", diagnosis.check), ("do", diagnosis.fix)):
                print_field(console, language, name, text)


def print_comparison(a: int, b: int, out: TextIO = sys.stdout, *, language: Language, width: int | None = None) -> None:
    """Print two codes side by side; the hand-written difference first, where there is one."""
    label = language.label
    with page(out, width) as console:
        infos = [(a, language.about(a)), (b, language.about(b))]
        names = [f"{code} {info.name}" for code, info in infos]
        console.print(Text(label("explain.compare_title", a=names[0], b=names[1]), style="bold"))
        pair = language.pair(a, b)
        if pair is not None:
            for name in ("differ", "choose", "source"):
                print_field(console, language, name, getattr(pair, name))
        table = Table(box=None, pad_edge=False, padding=(1, 2, 0, 0), show_header=True, header_style="bold")
        table.add_column("", min_width=7, no_wrap=True, style=FAINT)
        for name in names:
            table.add_column(name, ratio=1, overflow="fold")
        for name, cells in (
            ("means", [info.meaning for _, info in infos]),
            ("seen", [info.seen for _, info in infos]),
            ("do", [info.fix for _, info in infos]),
            ("sent_by", [label(f"sender.{info.sender}") for _, info in infos]),
            ("source", [info.source for _, info in infos]),
            ("on_wire", [label(f"on_wire.{info.on_wire}") for _, info in infos]),
        ):
            table.add_row(label(f"field.{name}"), *map(Text, cells))
        console.print(table)
