"""Loads the knowledge files, checks them, and finds the text that fits a code and its evidence.

The files' own rules stand at the head of `codes.toml`. A broken file is refused as a whole: half-known codes would
give half-true advice.
"""

import functools
import hashlib
import importlib.resources
import tomllib
from typing import Any, NamedTuple

from analyzer.errors import CatalogueError
from analyzer.model import End, Endpoint, Evidence, Initiator, Provenance, Received

PREDICATES: dict[str, frozenset[str]] = {
    "evidence": frozenset(Evidence),
    "provenance": frozenset(Provenance),
    "endpoint": frozenset(Endpoint),
    "sent": frozenset(Received),
    "received": frozenset(Received),
    "initiator": frozenset(Initiator),
    "end": frozenset(End),
    "ended_by": frozenset((*Endpoint, "both")),
}
"""Columns of a view that a diagnosis may ask for, with the values it may name."""

BY_FIRST = ("from-client", "from-server")
"""Diagnoses that say who closed of itself."""

ON_WIRE = ("allowed", "never", "illegal", "registered", "private")


class Diagnosis(NamedTuple):
    """Advice for one code under one kind of evidence; `key` is `code.id`."""

    key: str
    title: str
    cause: str
    check: str
    fix: str
    source: str
    when: dict[str, frozenset[str]]


class CodeInfo(NamedTuple):
    """What is known about one code, or about the range it falls into (`codes` is then wider than one)."""

    codes: range
    name: str
    on_wire: str
    sender: str
    source: str
    meaning: str
    seen: str
    fix: str
    confused_with: tuple[int, ...]
    diagnoses: tuple[Diagnosis, ...]


class Pair(NamedTuple):
    """Two codes side by side, in people's words."""

    codes: tuple[int, int]
    differ: str
    choose: str
    source: str


class Hint(NamedTuple):
    """What an error code of HTTP/2 tells of the end of a stream."""

    hint: str
    source: str


class Catalogue:
    """Everything known about close codes."""

    def __init__(self, document: dict[str, Any], *, path: str, version: str) -> None:
        """Check and index a parsed knowledge file.

        Raises:
            CatalogueError: A key is missing, unknown, or names something that does not exist.

        """
        self.version = version
        self._path = path
        self._codes: dict[int, CodeInfo] = {}
        self._ranges: list[CodeInfo] = []
        self._by_key: dict[str, Diagnosis] = {}
        self._keys: dict[tuple[Any, ...], str] = {}
        for name, entry in document.get("code", {}).items():
            code = int(name)
            self._codes[code] = self._read_code(name, range(code, code + 1), entry)
        for name, entry in document.get("range", {}).items():
            low, _, high = name.partition("-")
            self._ranges.append(self._read_code(name, range(int(low), int(high) + 1), entry))
        for name, entry in document.get("undetermined", {}).items():
            if name not in frozenset(Evidence):
                raise CatalogueError(path, f"undetermined.{name}", "no such evidence")
            self._require(f"undetermined.{name}", entry, ("title", "meaning", "fix", "source"))
            key = f"undetermined.{name}"
            self._by_key[key] = Diagnosis(key, entry["title"], entry["meaning"], "", entry["fix"], entry["source"], {})
        self.hints: dict[str, Hint] = {}
        for name, entry in document.get("http2", {}).items():
            self._require(f"http2.{name}", entry, ("hint", "source"))
            self.hints[name] = Hint(entry["hint"], entry["source"])
        self.pairs: dict[tuple[int, int], Pair] = {}
        for entry in document.get("pair", []):
            self._require("pair", entry, ("codes", "differ", "choose", "source"))
            low, high = entry["codes"]
            if low >= high:
                raise CatalogueError(path, f"pair {low} {high}", "codes must ascend")
            self.pairs[low, high] = Pair((low, high), entry["differ"], entry["choose"], entry["source"])

    def _require(self, key: str, entry: dict[str, Any], names: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        for name in names:
            if not entry.get(name):
                raise CatalogueError(self._path, key, f"{name!r} is missing")
        for name in entry.keys() - {*names, *optional}:
            raise CatalogueError(self._path, key, f"{name!r} is not known here")

    def _read_code(self, name: str, codes: range, entry: dict[str, Any]) -> CodeInfo:
        fields = ("name", "on_wire", "sender", "source", "meaning", "seen", "fix", "diagnosis")
        self._require(f"code.{name}", entry, fields, ("confused_with",))
        if entry["on_wire"] not in ON_WIRE:
            raise CatalogueError(self._path, f"code.{name}.on_wire", f"must be one of {', '.join(ON_WIRE)}")
        diagnoses = tuple(self._read_diagnosis(name, part) for part in entry["diagnosis"])
        if diagnoses[-1].when or any(not d.when for d in diagnoses[:-1]):
            raise CatalogueError(self._path, f"code.{name}", "the last diagnosis, and no other, stands without 'when'")
        return CodeInfo(
            codes,
            entry["name"],
            entry["on_wire"],
            entry["sender"],
            entry["source"],
            entry["meaning"],
            entry["seen"],
            entry["fix"],
            tuple(entry.get("confused_with", ())),
            diagnoses,
        )

    def _read_diagnosis(self, name: str, part: dict[str, Any]) -> Diagnosis:
        self._require(f"code.{name}", part, ("id", "title", "cause", "check", "fix", "source"), ("when",))
        key = f"{name}.{part['id']}"
        if key in self._by_key:
            raise CatalogueError(self._path, key, "stands twice")
        when = {}
        for column, wanted in part.get("when", {}).items():
            values = frozenset([wanted] if isinstance(wanted, str) else wanted)
            if column not in PREDICATES:
                raise CatalogueError(self._path, key, f"'when' cannot ask for {column!r}")
            if values - PREDICATES[column]:
                raise CatalogueError(self._path, key, f"{column} is never {', '.join(values - PREDICATES[column])}")
            when[column] = values
        diagnosis = Diagnosis(key, part["title"], part["cause"], part["check"], part["fix"], part["source"], when)
        self._by_key[key] = diagnosis
        return diagnosis

    def codes(self) -> list[int]:
        """Codes with an entry of their own, ascending."""
        return sorted(self._codes)

    def code(self, code: int) -> CodeInfo:
        """What is known about a code, else about the range it falls into.

        Raises:
            KeyError: Not a number that a Close could carry (0 to 65535).

        """
        if code in self._codes:
            return self._codes[code]
        for info in self._ranges:
            if code in info.codes:
                return info
        raise KeyError(code)

    def key(self, code: int | None, **view: str) -> str:
        """Key of the text for one view: the first diagnosis of its code whose conditions all hold.

        Args:
            code: The code the endpoint reports, None where undetermined.
            view: Columns of the view by the names in PREDICATES.

        """
        wanted = (code, *view.values())
        known = self._keys.get(wanted)
        if known is None:
            known = self._keys[wanted] = self._find(code, view)
        return known

    def _find(self, code: int | None, view: dict[str, str]) -> str:
        if code is None:
            return f"undetermined.{view['evidence']}"
        diagnoses = self.code(code).diagnoses
        # what came in may be the answer to a Close that nobody could read
        is_open = view["initiator"] == Initiator.UNKNOWN and view["evidence"] in (Evidence.STATUS, Evidence.EMPTY_CLOSE)
        for diagnosis in diagnoses:
            if is_open and diagnosis.key.endswith(BY_FIRST):
                continue
            if all(view[column] in values for column, values in diagnosis.when.items()):
                return diagnosis.key
        return diagnoses[-1].key

    def diagnosis(self, key: str) -> Diagnosis:
        """The text behind a key.

        Raises:
            KeyError: There is no such key.

        """
        return self._by_key[key]

    def pair(self, a: int, b: int) -> Pair | None:
        """Hand-written comparison of two codes, in either order; None where there is none."""
        return self.pairs.get((min(a, b), max(a, b)))


@functools.cache
def load() -> Catalogue:
    """The catalogue that comes with the package; its version is a digest of the file."""
    path = importlib.resources.files(__package__) / "codes.toml"
    content = path.read_bytes()
    return Catalogue(
        tomllib.loads(content.decode("utf-8")), path="codes.toml", version=hashlib.sha256(content).hexdigest()[:12]
    )
