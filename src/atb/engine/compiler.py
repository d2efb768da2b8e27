"""The engine's loop through numba, into machine code. Imported only to compile (its import alone costs 0.2-1 s)."""

from __future__ import annotations

from typing import Any

from numba import carray, cfunc, types
from numba.extending import register_jitable
from numba.np.numpy_support import from_dtype

from atb.engine import book, fills, kernel, records, risk
from atb.engine.reasons import COUNT


def compile_kernel() -> bytes:
    """The engine's `run` as machine code for this processor: the entry's symbol, a newline, an object file."""
    for module in (book, fills, risk, kernel):
        for function in vars(module).values():
            if getattr(function, "__module__", None) == module.__name__ and type(function).__name__ == "function":
                # Without forced inlining numba passes each record and array by many words: five times slower.
                register_jitable(error_model="numpy", forceinline=True)(function)
    run = kernel.run

    def entry(
        start, stop, n, time, open_, high, low, close, signal, positions, markets, account, rules, equity,
        fills, capacity, progress, decisions,
    ):  # fmt: skip
        size = stop * n
        if n == 1:  # a loop of its own, in which n is known: a sixth faster
            return run(
                start, stop, 1, carray(time, stop), carray(open_, stop), carray(high, stop), carray(low, stop),
                carray(close, stop), carray(signal, stop), carray(positions, 1), carray(markets, 1),
                carray(account, 1)[0], carray(rules, 1)[0], carray(equity, stop), carray(fills, capacity),
                carray(progress, 2), carray(decisions, COUNT),
            )  # fmt: skip
        return run(
            start, stop, n, carray(time, stop), carray(open_, size), carray(high, size), carray(low, size),
            carray(close, size), carray(signal, size), carray(positions, n), carray(markets, n),
            carray(account, 1)[0], carray(rules, 1)[0], carray(equity, stop), carray(fills, capacity),
            carray(progress, 2), carray(decisions, COUNT),
        )  # fmt: skip

    def pointer(record: type[records.Record]) -> Any:
        return types.CPointer(from_dtype(record.dtype()))

    floats, ints = types.CPointer(types.float64), types.CPointer(types.int64)
    signature = types.int64(
        types.int64, types.int64, types.int64, ints, floats, floats, floats, floats, floats,
        pointer(records.Position), pointer(records.Market), pointer(records.Account), pointer(records.Rules),
        floats, pointer(records.FillRow), types.int64, ints, ints,
    )  # fmt: skip
    compiled = cfunc(signature, nopython=True, error_model="numpy")(entry)
    return compiled.native_name.encode() + b"\n" + compiled._library._get_compiled_object()
