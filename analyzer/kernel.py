"""The one place that knows how functions are compiled.

`@kernel` registers a plain function and returns it, so small inputs never wait for a compiler. `compile_all` imports
Numba and rebinds every registered name to its compiled twin; kernels find each other through module globals, so the
rebinding reaches the calls between them too. Rules for what may stand in a kernel are in CONTRIBUTING.md.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

COMPILE_AFTER_PACKETS = 60_000
"""Interpreted kernels take 50 us a packet, compiling takes 15 s of one core once: past this it has paid within a run
or two, and every later run starts from the cache."""

INTERPRETED_S = 50e-6
"""Seconds that a packet takes interpreted: input that takes longer, whatever its reason, is compiled sooner."""

LOAD_AFTER_PACKETS = 6_000
"""With a filled cache the compiled kernels are ready in about 0.5 s: 6,000 packets read interpreted take as long."""

LAST_MODULE = f"{__package__}.capture.tracker"
"""The module that imports every other one with kernels."""

CACHES_KEPT = 3
"""Compiled kernels of older versions that may stay in the user's cache directory."""

_plain: dict[tuple[str, str], Callable[..., Any]] = {}
_rare: set[tuple[str, str]] = set()
_compiled: dict[tuple[str, str], Callable[..., Any]] = {}
_is_compiled = False
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
    """Whether the kernels run compiled in this process."""
    return _is_compiled


def _registered() -> dict[tuple[str, str], Callable[..., Any]]:
    """Every kernel, whether or not a capture has been read yet."""
    importlib.import_module(LAST_MODULE)
    return _plain


def digest() -> str:
    """Fingerprint of all kernel modules' sources and of the versions that shape compiled code.

    Numba's own cache looks at the caller's file only and misses a change in a callee (measured), so the directory
    carries this name.
    """
    import importlib.metadata  # 17 ms that small inputs need not wait for

    parts = [platform.machine(), sys.version, importlib.metadata.version("numba"), importlib.metadata.version("numpy")]
    state = hashlib.sha256("\n".join(parts).encode())
    for name in sorted({module for module, _ in _registered()} | {f"{__package__}.model"}):
        path = sys.modules[name].__file__
        state.update(name.encode())
        state.update(Path(path).read_bytes() if path else b"")
    return state.hexdigest()[:20]


def cache_root() -> Path:
    """Directory for compiled kernels of all versions: the platform's place for a user's caches."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wsclose" / "kernels"


def _cache_directory() -> Path | None:
    """The writable directory of this digest, or None where there is none; older ones beyond a few are removed."""
    try:
        directory = cache_root() / digest()
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
        os.utime(directory)
        others = sorted((p for p in directory.parent.iterdir() if p != directory), key=lambda p: -p.stat().st_mtime)
        for old in others[CACHES_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None
    return directory


def is_cached() -> bool:
    """Whether an earlier run has left compiled kernels of exactly these sources."""
    with contextlib.suppress(OSError, RuntimeError):
        return has_numba() and any((cache_root() / digest()).glob("**/*.nbi"))
    return False


def has_numba() -> bool:
    """Whether there is a compiler."""
    return importlib.util.find_spec("numba") is not None


def compile_all() -> bool:
    """Rebind every kernel to its compiled form, bounds-checked; False where Numba is not installed.

    Machine code comes from the cache, or is made on the first call of each kernel. Said once on a terminal, because
    the first time takes seconds.
    """
    global _is_compiled
    if _is_compiled:
        return True
    if not _compiled and not _make_compiled():
        return False
    for (module, name), function in _compiled.items():
        setattr(sys.modules[module], name, function)
    _is_compiled = True
    return True


def _make_compiled() -> bool:
    if not has_numba():
        return False
    if sys.stderr is not None and sys.stderr.isatty() and not is_cached():
        sys.stderr.write("wsclose: compiling for this machine; this happens once and takes some seconds\n")
    directory = _cache_directory()
    import numba

    if directory is not None:
        numba.config.CACHE_DIR = str(directory)  # type: ignore[attr-defined]
    for place, function in _registered().items():
        is_copied = place not in _rare
        _compiled[place] = numba.njit(cache=directory is not None, boundscheck=True, forceinline=is_copied)(function)
    return True


def interpret_all() -> None:
    """Undo `compile_all`: tests run every kernel both ways."""
    global _is_compiled
    for (module, name), function in _plain.items():
        setattr(sys.modules[module], name, function)
    _is_compiled = False


def set_automatic(automatic: bool) -> None:
    """Whether `expect` may compile; tests that want one certain form switch it off."""
    global _is_automatic
    _is_automatic = automatic


def expect(n_packets: int) -> None:
    """Say how many packets are known to come: compiles when that is worth the wait."""
    if _is_compiled or not _is_automatic or n_packets < LOAD_AFTER_PACKETS:
        return
    if n_packets >= COMPILE_AFTER_PACKETS or is_cached():
        compile_all()


def plain_kernels() -> dict[str, Callable[..., Any]]:
    """Every kernel as written, by its dotted name."""
    return {f"{module}.{name}": function for (module, name), function in _plain.items()}
