"""What a reader sees, in six languages: labels, and the texts about close codes.

Each language is one file with English's keys (`languages/en.toml` holds the labels; the English texts about codes stand
in `codes.toml`). What a file lacks is shown in English with a mark that says so. Data formats are never localised.
"""

import functools
import importlib.resources
import os
import string
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from analyzer.errors import UsageError
from analyzer.knowledge import catalogue as knowledge
from analyzer.knowledge.catalogue import Catalogue, CodeInfo, Diagnosis, Pair

NAMES = {
    "en": "English",
    "id": "Bahasa Indonesia",
    "th": "ไทย",
    "vi": "Tiếng Việt",
    "zh": "简体中文",
    "ar": "العربية",
}
"""The languages by their codes (ISO 639-1), each by its own name."""

RIGHT_TO_LEFT = frozenset({"ar"})

FALLBACK = " [en]"
"""Stands behind English text where the language asked for lacks it."""

UNITS = (("d", 86400.0, 172800.0), ("h", 3600.0, 7200.0), ("min", 60.0, 300.0), ("s", 1.0, 1.0), ("ms", 0.001, 0.0))
"""Units of time, their seconds, and from how many seconds on they suit."""

TEXT_FIELDS = {
    "code": ("meaning", "seen", "fix"),
    "diagnosis": ("title", "cause", "check", "fix"),
    "undetermined": ("title", "meaning", "fix"),
    "pair": ("differ", "choose"),
    "http2": ("hint",),
}
"""What is translated of each kind of text about codes."""


def from_environment(environment: Mapping[str, str] = os.environ) -> str:
    """The language of the environment's locale (POSIX: LC_ALL, LC_MESSAGES, LANG), English where it is not known."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = environment.get(name, "")
        if value:
            code = value.replace("-", "_").split("_")[0].split(".")[0].lower()
            return code if code in NAMES else "en"
    return "en"


class Language:
    """One language: labels with values put in, numbers as its readers write them, texts about codes.

    Attributes:
        code: ISO 639-1.
        direction: `ltr` or `rtl`, as HTML names it.

    """

    def __init__(self, code: str, catalogue: Catalogue) -> None:
        """Choose a language.

        Raises:
            UsageError: There is no such language.

        """
        if code not in NAMES:
            raise UsageError(f"{code}: no such language; there are {', '.join(NAMES)}")
        self.code = code
        self.direction = "rtl" if code in RIGHT_TO_LEFT else "ltr"
        self._catalogue = catalogue
        self._groups: dict[str, list[str]] = {}

    # read when they are needed, which takes 15 ms: data is the same in every language

    @functools.cached_property
    def _english(self) -> dict[str, str]:
        return dict(_labels(_read("en")))

    @functools.cached_property
    def _texts(self) -> dict[str, Any]:
        return {} if self.code == "en" else _read(self.code)

    @functools.cached_property
    def _labels(self) -> dict[str, str]:
        return self._english if self.code == "en" else dict(_labels(self._texts))

    def label(self, key: str, **values: object) -> str:
        """A label by its dotted key, with these values in the places that it names in braces.

        Raises:
            KeyError: English has no such label.

        """
        text = self._labels.get(key)
        if text is None:
            text = self._english[key] + FALLBACK
        return text.format(**values) if values else text

    def group(self, name: str) -> list[str]:
        """All labels of a group."""
        if name not in self._groups:
            self._groups[name] = [self.label(key) for key in self._english if key.startswith(f"{name}.")]
        return self._groups[name]

    def has(self, key: str) -> bool:
        """Whether English has such a label."""
        return key in self._english

    def count(self, key: str, n: int, **values: object) -> str:
        """A label that counts something: `{n}` in it is the number.

        `KEY_one`, `KEY_few` and so on stand for the forms that the language has for such numbers (CLDR).
        """
        form = f"{key}_{self._plural(n)}"
        return self.label(form if form in self._labels else key, n=self.number(n), **values)

    def _plural(self, n: int) -> str:
        if self.code == "en":
            return "one" if n == 1 else "other"
        from babel import Locale

        return str(Locale(self.code).plural_form(n))

    def join(self, parts: Iterable[str]) -> str:
        """Parts as a list in one line."""
        return self.label("report.list_separator").join(parts)

    def number(self, n: int) -> str:
        """An integer with its digits grouped."""
        if self.code == "en":  # Babel writes the same; importing it would cost the first answer 22 ms
            return f"{n:,}"
        from babel.numbers import format_decimal

        return str(format_decimal(n, locale=self.code))

    def decimal(self, value: float, digits: int = 1) -> str:
        """A number with so many digits behind the point."""
        if self.code == "en":
            return f"{value:,.{digits}f}"
        from babel.numbers import format_decimal

        return str(format_decimal(value, "#,##0." + "0" * digits if digits else "#,##0", locale=self.code))

    def span(self, seconds: float) -> str:
        """A length of time with three digits and the unit that suits it."""
        if seconds <= 0.001:
            return self.label("unit.least")
        unit, size = next(((name, size) for name, size, least in UNITS if seconds >= least), UNITS[-1][:2])
        value = seconds / size
        return self.label(f"unit.{unit}", n=self.decimal(value, 0 if value >= 100 else 1 if value >= 10 else 2))

    def step(self, seconds: float) -> str:
        """A step of time, a whole number of some unit."""
        unit, size = next(
            ((name, size) for name, size, _ in UNITS if seconds >= size and round(seconds / size, 9).is_integer()),
            UNITS[-1][:2],
        )
        return self.label(f"unit.{unit}", n=self.number(round(seconds / size)))

    def percent(self, share: float) -> str:
        """A share as people read it, with one digit behind the point."""
        if self.code == "en":
            return f"{100 * share:.1f} %"
        from babel.numbers import format_percent

        return str(format_percent(share, "#,##0.0 %" if self.code in ("id", "vi") else "#,##0.0%", locale=self.code))

    def time(self, text: str | None) -> str:
        """An instant as reports name it to the second, in UTC, from RFC 3339 text; a dash where there is none."""
        if text is None:
            return "-"
        if self.code == "en":
            return f"{text[:10]} {text[11:19]}"
        import datetime as dt

        from babel.dates import format_skeleton

        try:
            instant = dt.datetime.fromisoformat(text[:19]).replace(tzinfo=dt.UTC)
        except ValueError:  # a year that Python's calendar does not know
            return text[:19]
        return f"{format_skeleton('yMMMd', instant, locale=self.code)} {text[11:19]}"

    def _text(self, kind: str, key: str, field: str, english: str) -> str:
        if self.code == "en" or not english:
            return english
        found = self._texts.get(kind, {}).get(key, {}).get(field)
        return found if found is not None else english + FALLBACK

    def diagnosis(self, key: str) -> Diagnosis:
        """The documented text behind a key of `Catalogue.key`.

        Raises:
            KeyError: There is no such key.

        """
        text = self._catalogue.diagnosis(key)
        kind, _, rest = key.partition(".")
        if kind == "undetermined":
            title, cause, fix = (
                self._text(kind, rest, field, english)
                for field, english in (("title", text.title), ("meaning", text.cause), ("fix", text.fix))
            )
            return text._replace(title=title, cause=cause, fix=fix)
        fields: dict[str, Any] = {
            name: self._text("diagnosis", key, name, getattr(text, name)) for name in TEXT_FIELDS["diagnosis"]
        }
        return text._replace(**fields)

    def about(self, code: int) -> CodeInfo:
        """What is known about a code; its registered name stays English.

        Raises:
            KeyError: Not a number that a Close could carry.

        """
        info = self._catalogue.code(code)
        key = str(code) if len(info.codes) == 1 else f"{info.codes.start}-{info.codes.stop - 1}"
        fields: dict[str, Any] = {
            name: self._text("code", key, name, getattr(info, name)) for name in TEXT_FIELDS["code"]
        }
        diagnoses = tuple(self.diagnosis(text.key) for text in info.diagnoses)
        return info._replace(**fields, diagnoses=diagnoses)

    def hint(self, error: str) -> str:
        """What an error code of HTTP/2 tells, empty where nothing was written about it."""
        found = self._catalogue.hints.get(error)
        return "" if found is None else self._text("http2", error, "hint", found.hint)

    def pair(self, a: int, b: int) -> Pair | None:
        """How two codes differ, None where nothing was written about them."""
        found = self._catalogue.pair(a, b)
        if found is None:
            return None
        key = "-".join(map(str, found.codes))
        fields: dict[str, Any] = {
            name: self._text("pair", key, name, getattr(found, name)) for name in TEXT_FIELDS["pair"]
        }
        return found._replace(**fields)


def _read(code: str) -> dict[str, Any]:
    path = importlib.resources.files(__package__) / "languages" / f"{code}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _labels(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Labels by their dotted keys."""
    for group, entries in document.get("label", {}).items():
        for name, text in entries.items():
            yield f"{group}.{name}", text


def placeholders(text: str) -> set[str]:
    """Names in braces of a label."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@functools.cache
def load(code: str) -> Language:
    """A language with the catalogue that comes with the package.

    Raises:
        UsageError: There is no such language.

    """
    return Language(code, knowledge.load())
