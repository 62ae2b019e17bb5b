"""The one place that knows how functions are compiled.

`@kernel` registers a plain function and returns it, so small inputs never wait for a compiler. `compile_all` rebinds
every registered name to its compiled twin, `load_all` those that an earlier run has left machine code of; what callers
find through module globals is then the twin. Rules for what may stand in a kernel are in CONTRIBUTING.md.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from analyzer import native

Function = TypeVar("Function", bound=Callable[..., Any])

COMPILE_AFTER_PACKETS = 60_000
"""Interpreted kernels take 50 us a packet, compiling takes 30 s of one core once: past this it has paid within some
runs, and every later one starts from the cache."""

INTERPRETED_S = 50e-6
"""Seconds that a packet takes interpreted: input that takes longer, whatever its reason, is compiled sooner."""

LOAD_AFTER_PACKETS = 1_000
"""With a filled cache the compiled kernels are ready in about 0.05 s: 1,000 packets read interpreted take as long."""

LAST_MODULE = f"{__package__}.capture.dispatch"
"""The module that imports every other one with kernels."""

CACHES_KEPT = 3
"""Compiled kernels of older versions that may stay in the user's cache directory."""

_plain: dict[tuple[str, str], Callable[..., Any]] = {}
_rare: set[tuple[str, str]] = set()
_compiled: dict[tuple[str, str], "Compiled"] = {}
_dispatchers: dict[tuple[str, str], Any] = {}

INTERPRETED, LOADED, COMPILED = 0, 1, 2
"""States: kernels run as written; those that lie in the cache run compiled; all do."""

_state = INTERPRETED
_is_automatic = True


def kernel(function: Function) -> Function:
    """Register a function that `compile_all` may compile; the function itself is returned unchanged."""
    _plain[function.__module__, function.__name__] = function
    return function


def rare_kernel(function: Function) -> Function:
    """Register a large kernel that few packets reach: not copied into its callers, which would compile for minutes."""
    _rare.add((function.__module__, function.__name__))
    return kernel(function)


def is_compiled() -> bool:
    """Whether the kernels run compiled in this process, or those do that were compiled before."""
    return _state != INTERPRETED


def _registered() -> dict[tuple[str, str], Callable[..., Any]]:
    """Every kernel, whether or not a capture has been read yet."""
    importlib.import_module(LAST_MODULE)
    return _plain


@functools.cache
def digest() -> str:
    """Fingerprint of all kernel modules' sources and of the versions that shape compiled code.

    The cache's directory carries this name: a kernel holds copies of those it calls, so that a change in any module
    is a change in all.
    """
    parts = [platform.machine(), sys.version, _numba_version(), np.__version__]
    parts += [native.describe_host(), str(native.OPTIONS)]
    state = hashlib.sha256("\n".join(parts).encode())
    for name in sorted({module for module, _ in _registered()} | {f"{__package__}.model", native.__name__}):
        path = sys.modules[name].__file__
        state.update(name.encode())
        state.update(Path(path).read_bytes() if path else b"")
    return state.hexdigest()[:20]


def _numba_version() -> str:
    """The version of Numba, in whatever words: importing it takes 0.3 s, and asking its metadata 15 ms.

    Raises:
        ImportError: It is not installed.

    """
    spec = importlib.util.find_spec("numba")
    stated = Path(spec.origin).with_name("_version.py") if spec is not None and spec.origin else None
    if stated is not None and stated.is_file():
        return stated.read_text("utf-8", "replace")
    from importlib import metadata

    return metadata.version("numba")


def cache_root() -> Path:
    """Directory for compiled kernels of all versions: the platform's place for a user's caches."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wsclose" / "kernels"


@functools.cache
def _cache_directory() -> Path | None:
    """The directory of this digest, or None where there can be none; older ones beyond a few are removed."""
    try:
        directory = cache_root() / digest()
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            status = directory.stat()
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                return None  # what others can write is not run
    except (OSError, RuntimeError, ImportError):  # RuntimeError: no home directory
        return None
    with contextlib.suppress(OSError):  # it may be for reading alone, or another process may tidy up, too
        os.utime(directory)
        others = sorted((p for p in directory.parent.iterdir() if p != directory), key=lambda p: -p.stat().st_mtime)
        for old in others[CACHES_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    return directory


def is_cached() -> bool:
    """Whether an earlier run has left machine code of exactly these sources."""
    directory = _cache_directory() if has_numba() else None
    return directory is not None and any(directory.glob("*.kernel"))


@functools.cache
def has_numba() -> bool:
    """Whether there is a compiler, and LLVM can be loaded."""
    try:
        native.describe_host()
    except (ImportError, OSError):
        return False
    return importlib.util.find_spec("numba") is not None


class Compiled:
    """A kernel that runs as machine code: loaded where an earlier run has left it, else made on the first call.

    Attributes:
        kinds: The kinds of arguments it was called with; more than one costs another compilation.

    """

    def __init__(self, module: str, name: str) -> None:
        """Begin with nothing loaded."""
        self.__name__ = name
        self._place = module, name
        self._loaded: dict[str, Callable[[Sequence[Any]], Any]] = {}

    @property
    def kinds(self) -> list[str]:
        """See above."""
        return list(self._loaded)

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        kinds = native.describe_arguments(arguments)
        call = self._loaded.get(kinds)
        if call is None:
            call = self._find(kinds)
            if call is None and _state == LOADED:
                return _plain[self._place](*arguments)
            call = self._loaded[kinds] = call or self._make(kinds, arguments)
        return call(arguments)

    def _path(self, kinds: str) -> Path | None:
        directory = _cache_directory()
        module, name = self._place
        tail = hashlib.sha256(kinds.encode()).hexdigest()[:10]
        return None if directory is None else directory / f"{module}.{name}-{tail}.kernel"

    def _find(self, kinds: str) -> Callable[[Sequence[Any]], Any] | None:
        path = self._path(kinds)
        try:
            code = None if path is None else native.Code.unpack(path.read_bytes(), path.name)
        except OSError:
            return None
        return None if code is None else native.load(code, self.__name__)

    def _make(self, kinds: str, arguments: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
        try:
            dispatchers = _make_dispatchers()
        except ImportError:  # installed, but not for this Python or this NumPy
            return lambda given: _plain[self._place](*given)
        with _bound(dispatchers):
            code = native.build(_plain[self._place], arguments)
        path = self._path(kinds)
        if path is not None:
            with contextlib.suppress(OSError):
                part = path.with_suffix(f".{os.getpid()}")
                part.write_bytes(code.pack(path.name))
                part.replace(path)
        return native.load(code, self.__name__)


@contextlib.contextmanager
def _bound(functions: Mapping[tuple[str, str], Any]) -> Iterator[None]:
    """Bind every kernel's name to one of these for a while."""
    before = {(module, name): getattr(sys.modules[module], name) for module, name in functions}
    try:
        _bind(functions)
        yield
    finally:
        _bind(before)


def _bind(functions: Mapping[tuple[str, str], Any]) -> None:
    for (module, name), function in functions.items():
        setattr(sys.modules[module], name, function)


def _make_dispatchers() -> dict[tuple[str, str], Any]:
    """Every kernel as Numba sees it when it compiles another one that calls it."""
    if not _dispatchers:
        if sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write("wsclose: compiling for this machine; this happens once and takes some seconds\n")
        for place, function in _registered().items():
            _dispatchers[place] = native.make_dispatcher(function, is_copied=place not in _rare)
    return _dispatchers


def compile_all() -> bool:
    """Rebind every kernel to its compiled form, bounds-checked; False where Numba is not installed.

    Machine code comes from the cache, or is made on the first call of each kernel. Said once on a terminal, because
    the first time takes seconds.
    """
    global _state
    if _state != COMPILED:
        if not has_numba():
            return False
        _bind({place: _twin(place) for place in _registered()})
        _state = COMPILED
    return True


def load_all() -> None:
    """Rebind the kernels that an earlier run has left machine code of: no compiler is needed, nor waited for."""
    global _state
    directory = _cache_directory()
    if _state != INTERPRETED or directory is None:
        return
    names = {path.name.rpartition("-")[0] for path in directory.glob("*.kernel")}
    _bind({place: _twin(place) for place in _registered() if ".".join(place) in names})
    _state = LOADED


def _twin(place: tuple[str, str]) -> Compiled:
    return _compiled.setdefault(place, Compiled(*place))


def interpret_all() -> None:
    """Undo `compile_all`: tests run every kernel both ways."""
    global _state
    _bind(_plain)
    _state = INTERPRETED


def set_automatic(automatic: bool) -> None:
    """Whether `expect` may compile; tests that want one certain form switch it off."""
    global _is_automatic
    _is_automatic = automatic


def expect(n_packets: int) -> None:
    """Say how many packets are known to come: compiles, or loads what was compiled, when that is worth the wait."""
    if not _is_automatic or n_packets < LOAD_AFTER_PACKETS or _state == COMPILED:
        return
    if n_packets >= COMPILE_AFTER_PACKETS:
        compile_all()
    elif _state == INTERPRETED and is_cached():
        load_all()


def plain_kernels() -> dict[str, Callable[..., Any]]:
    """Every kernel as written, by its dotted name."""
    return {f"{module}.{name}": function for (module, name), function in _plain.items()}
