"""Compile the loop once, keep its machine code on disk, and load it without importing the compiler.

numba costs as much to import as a short backtest takes altogether. It is only imported to compile; the object code
that it makes is stored, and llvmlite alone links it into later processes (docs/adr/0002-compiled-kernel.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCES = ("reasons", "records", "book", "fills", "risk", "kernel", "compiler")
KEPT = 4  # files: of other versions or processors that share the folder, and of processes that were killed
Entry = Callable[..., int]

# What numba's wrapper refers to and never reaches: our code raises nothing and owns no array. Should it be reached
# all the same, the process ends at once instead of going on with wrong numbers.
_UNREACHABLE = (
    "NRT_Free", "NRT_MemInfo_call_dtor", "numba_do_raise", "numba_gil_ensure", "numba_gil_release",
    "numba_runtime_build_excinfo_struct", "numba_unpickle",
)  # fmt: skip

_loaded: dict[str, Any] = {}
_one_at_a_time = threading.Lock()  # a second engine in place of the first would free code that is running


def source_key() -> str:
    """The first half of the name of machine code: it changes with the engine's sources and with Python."""
    folder = Path(__file__).parent
    return _digest(sys.version.encode(), *((folder / f"{name}.py").read_bytes() for name in SOURCES))


def machine_key() -> str:
    """The other half: it changes with the compiler and the processor. Imports llvmlite."""
    import llvmlite
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    facts = (llvmlite.__version__, llvm.get_process_triple(), llvm.get_host_cpu_name(), features)
    return _digest(*(fact.encode() for fact in facts))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def is_loaded() -> bool:
    """Whether the compiled loop is linked into this process already."""
    return "entry" in _loaded


def is_ready(cache: Path | None) -> bool:
    """Whether `load` would not have to compile, unless the processor or the compiler changed. Imports nothing."""
    if is_loaded():
        return True
    return cache is not None and any(cache.glob(f"kernel-{source_key()}-*.o"))


def load(cache: Path | None) -> Entry:
    """The compiled `run`, from memory, from `cache`, or compiled now (2-3 s) and stored there. Safe from any thread."""
    with _one_at_a_time:
        entry: Entry | None = _loaded.get("entry")
        return _load(cache) if entry is None else entry


def _load(cache: Path | None) -> Entry:
    path = None if cache is None else cache / f"kernel-{source_key()}-{machine_key()}.o"
    code = None if path is None else _read(path)
    if code is None:
        from atb.engine.compiler import compile_kernel

        code = compile_kernel()
        if path is not None:
            _write(path, code)
    entry = _link(code)
    _loaded["entry"] = entry
    return entry


def _read(path: Path) -> bytes | None:
    """Stored machine code, if it is whole and nobody but its owner could have written it."""
    try:
        info = path.stat()
        data = path.read_bytes()
    except OSError:
        return None
    if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return None
    digest, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    """Store machine code atomically. A cache that cannot be written costs time, not the result."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(path.parent.glob("kernel-*"), key=lambda file: file.stat().st_mtime)[: -KEPT + 1]:
            old.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        temporary.replace(path)


def _link(code: bytes) -> Entry:
    """Link object code into this process and return it as a function of integers and addresses."""
    import llvmlite.binding as llvm

    name, _, body = code.partition(b"\n")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    for symbol in _UNREACHABLE:
        if llvm.address_of_symbol(symbol) is None:
            llvm.add_symbol(symbol, abort)
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(body))
    engine.finalize_object()
    _loaded["engine"] = engine  # it owns the memory of the code
    address, integer = ctypes.c_void_p, ctypes.c_int64
    prototype = ctypes.CFUNCTYPE(integer, *[integer] * 3, *[address] * 13, integer, *[address] * 2)
    entry: Entry = prototype(engine.get_function_address(name.decode()))
    return entry
