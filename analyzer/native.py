"""Machine code of kernels: made by Numba once, kept as an object file, loaded and called without it.

Importing Numba and having it load its own cache takes 0.3 s; an object of ours is ready in some milliseconds and needs
llvmlite alone. A kernel is called with integers and one-dimensional arrays; it counts no references, allocates nothing
and needs no interpreter, so that its object refers to nothing outside but `memcpy` and the like.
"""

import contextlib
import ctypes
import functools
import hashlib
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

OPTIONS = {"boundscheck": True, "forceinline": True, "nogil": True, "_nrt": False}
"""How kernels are compiled. Without Numba's runtime they count no references to arrays that their caller holds anyway:
scan_segments takes half the time. Bounds checks stay on."""

OUTSIDE = frozenset({"memcpy", "memset", "memmove"})
"""Functions that machine code may leave to the C library."""

DONE = (0, -2)
"""Statuses of a call that went well (Numba's calling convention); any other is a bounds check that failed."""

MOST_NAMES = 1 << 10

INTEGERS: dict[str, Any] = {
    "int64": ctypes.c_int64,
    "int32": ctypes.c_int32,
    "uint64": ctypes.c_uint64,
    "bool": ctypes.c_bool,
}


class Code(NamedTuple):
    """One kernel's machine code for one kind of arguments.

    Attributes:
        symbol: Its name in the object.
        results: Types of what it returns: names of INTEGERS, none where it returns nothing.
        is_tuple: Whether it returns them as a tuple, even a single one.
        content: The object file.

    """

    symbol: str
    results: tuple[str, ...]
    is_tuple: bool
    content: bytes

    def pack(self, name: str) -> bytes:
        """As bytes that `unpack` takes, good for what goes by this name alone."""
        about = {"name": name, "symbol": self.symbol, "results": self.results, "is_tuple": self.is_tuple}
        body = json.dumps(about).encode() + b"\n" + self.content
        return hashlib.sha256(body).digest() + body

    @staticmethod
    def unpack(data: bytes, name: str) -> "Code | None":
        """What `pack` made, None where it is damaged or another's: a broken object would take the process down."""
        digest, body = data[:32], data[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        head, _, content = body.partition(b"\n")
        about = json.loads(head)
        if about["name"] != name:
            return None
        return Code(about["symbol"], tuple(about["results"]), about["is_tuple"], content)


@functools.cache
def _machine() -> tuple[Any, str, str]:
    """llvmlite, and the processor's name and features."""
    import llvmlite.binding as llvm

    return llvm, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def describe_host() -> str:
    """What machine code depends on: the processor and LLVM."""
    llvm, name, features = _machine()
    return f"{name} {features} {llvm.llvm_version_info}"


def _make_engine() -> Any:
    """What keeps one object's machine code in memory: each has its own, so that names in them never meet."""
    llvm, name, features = _machine()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=name, features=features, opt=3, jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


_names: dict[int, tuple[np.dtype[Any], str]] = {}


def _name_of(dtype: np.dtype[Any]) -> str:
    """Text of a dtype, remembered by its identity: hashing a structured one takes longer than a small call."""
    known = _names.get(id(dtype))
    if known is None:
        if len(_names) >= MOST_NAMES:
            _names.clear()
        known = _names[id(dtype)] = dtype, str(dtype)  # kept, so that its identity stays its own
    return known[1]


def describe_arguments(arguments: Sequence[Any]) -> str:
    """What kinds of arguments these are: integers, arrays, rows of arrays.

    Raises:
        TypeError: One is something else.

    """
    parts = []
    for argument in arguments:
        if isinstance(argument, np.ndarray) and argument.ndim == 1 and argument.flags.c_contiguous:
            parts.append(("w:" if argument.flags.writeable else "r:") + _name_of(argument.dtype))
        elif isinstance(argument, np.void):
            parts.append("v:" + _name_of(argument.dtype))
        elif isinstance(argument, int | np.integer | np.bool_):
            parts.append("i")
        else:
            raise TypeError(f"no kernel takes a {type(argument).__name__} like {argument!r:.40}")
    return " ".join(parts)


def make_dispatcher(function: Callable[..., Any], *, is_copied: bool) -> Any:
    """What Numba calls when it compiles another function that calls this one.

    Args:
        function: Plain Python.
        is_copied: Whether callers hold a copy of it, so that calling it costs nothing.

    """
    import numba

    return numba.njit(**{**OPTIONS, "forceinline": is_copied})(function)  # type: ignore[call-overload]  # `_nrt` has no type


def build(function: Callable[..., Any], arguments: Sequence[Any]) -> Code:
    """Compile a function for arguments like these.

    Args:
        function: Plain Python; what it calls must be bound to Numba's dispatchers.
        arguments: Of kinds that `describe_arguments` knows.

    Raises:
        TypeError: It needs more than the C library, or returns something else than integers.

    """
    import numba.core.compiler
    import numba.core.registry
    from numba import types

    compiler: Any = numba.core.compiler
    cpu_target: Any = numba.core.registry.cpu_target
    typeof: Any = numba.typeof
    flags = compiler.Flags()
    cpu_target.options.parse_as_flags(flags, {"nopython": True, **OPTIONS})
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    signature = tuple(typeof(a) if isinstance(a, np.ndarray | np.void) else types.int64 for a in arguments)
    typing, target = cpu_target.typing_context, cpu_target.target_context
    typing.refresh()
    target.refresh()
    made = compiler.compile_extra(typing, target, function, signature, None, flags, {})
    declared = {f.name for f in made.library._final_module.functions if f.is_declaration}
    needed = sorted(name for name in declared - OUTSIDE if not name.startswith("llvm."))
    returned = made.signature.return_type
    is_tuple = isinstance(returned, types.BaseTuple)
    kinds = [] if returned == types.none else list(returned) if is_tuple else [returned]
    if needed or not all(str(kind) in INTEGERS for kind in kinds):
        raise TypeError(f"{function.__name__} needs {needed} and returns {returned}")
    content = made.library._get_compiled_object()
    return Code(made.fndesc.llvm_func_name, tuple(map(str, kinds)), is_tuple, content)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold an interrupt back: LLVM calls Python back here, where an exception would be lost."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def load(code: Code, name: str) -> Callable[[Sequence[Any]], Any]:
    """Bring machine code into memory and return what calls it with arguments of the kinds it was built for.

    Args:
        code: From `build` or `Code.unpack`, of this very machine.
        name: What the kernel is called, for errors.

    """
    llvm = _machine()[0]
    engine = _make_engine()
    with _undisturbed():
        engine.add_object_file(llvm.ObjectFileRef.from_data(code.content))
        engine.finalize_object()
    address = engine.get_function_address(code.symbol)
    if not address:
        raise TypeError(f"{name}: its object holds no {code.symbol}")
    fields = [(f"_{i}", INTEGERS[kind]) for i, kind in enumerate(code.results)]
    Result = type("Result", (ctypes.Structure,), {"_fields_": fields})  # noqa: N806  a class
    function: Any = None

    def call(arguments: Sequence[Any]) -> Any:
        nonlocal function
        result, raised = Result(), ctypes.c_void_p()
        words = [ctypes.addressof(result), ctypes.addressof(raised)]
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                n, size = argument.shape[0], argument.itemsize
                # memory's owner and parent (unused), items, bytes each, address, shape, strides
                words += (0, 0, n, size, argument.ctypes.data, n, size)
            elif isinstance(argument, np.void):
                # 15 times as fast as `__array_interface__`, which describes every field
                words.append(np.ndarray((1,), np.uint8, argument).ctypes.data)
            else:
                words.append(int(argument))
        if function is None:
            function = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * len(words))(address)
        if function(*words) not in DONE:
            raise IndexError(f"{name}: out of bounds")
        if code.is_tuple:
            return tuple(getattr(result, field) for field, _ in fields)
        return getattr(result, fields[0][0]) if fields else None

    call.engine = engine  # type: ignore[attr-defined]  # its memory lives as long as it does
    return call
