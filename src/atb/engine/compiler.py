"""The engine's loop through numba, into machine code. Imported only to compile (its import alone costs 0.2-1 s)."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from llvmlite import ir
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable
from numba.np.numpy_support import from_dtype

from atb.engine import book, fills, kernel, records, risk
from atb.engine.kernel import run


@intrinsic
def on_stack(typingctx: Any, pointer: Any) -> Any:
    """A copy of what is at `pointer`, on the stack: what nothing else points to can be kept in registers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        copy = cgutils.alloca_once(builder, args[0].type.pointee)
        cgutils.raw_memcpy(builder, copy, args[0], context.get_constant(types.intp, 1), _size(context, args[0]))
        return copy

    return pointer(pointer), generate


@intrinsic
def put_back(typingctx: Any, pointer: Any, copy: Any) -> Any:
    """Write the record at `copy` to `pointer`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        cgutils.raw_memcpy(builder, *args, context.get_constant(types.intp, 1), _size(context, args[0]))
        return context.get_dummy_value()

    return types.void(pointer, copy), generate


@intrinsic
def prefetch(typingctx: Any, column: Any, row: Any) -> Any:
    """Bring the number at `row` of `column` into the cache. A hint: any address will do, also one beyond the end."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = builder.gep(args[0], [args[1]])
        i32 = ir.IntType(32)
        void = builder.bitcast(address, cgutils.voidptr_t)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch", [cgutils.voidptr_t], ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
        )
        builder.call(hint, [void, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(column, row), generate


@overload(kernel.look_ahead)
def _look_ahead(t, n, open_, high, low, close, signal):
    def fetch(t, n, open_, high, low, close, signal):
        for s in range(n):  # what is read at some candles only the processor does not see coming
            prefetch(open_[s], t)
            prefetch(high[s], t)
            prefetch(low[s], t)
            if n > 1:  # nor more columns than it can follow
                prefetch(close[s], t)
                prefetch(signal[s], t)

    return fetch


def _size(context: Any, pointer: Any) -> int:
    return int(context.get_abi_sizeof(pointer.type.pointee))


def _entry(
    start, stop, n, time, open_, high, low, close, signal, positions, order, markets, account, rules, equity,
    fills, capacity, progress, decisions,
):  # fmt: skip
    """What is called from outside: `run` on records that are copied to the stack and back."""
    rows = carray(fills, capacity)
    own_account, own_rules = on_stack(account), on_stack(rules)
    if n == 1:  # a loop of its own, in which n is known and all state is in registers
        own_position, own_order, own_market = on_stack(positions), on_stack(order), on_stack(markets)
        t = run(
            start, stop, 1, time, on_stack(open_), on_stack(high), on_stack(low), on_stack(close), on_stack(signal),
            carray(own_position, 1), own_order, carray(own_market, 1), carray(own_account, 1)[0],
            carray(own_rules, 1)[0], equity, rows, capacity, progress, decisions,
        )  # fmt: skip
        put_back(positions, own_position)
    else:
        t = run(
            start, stop, n, time, open_, high, low, close, signal, carray(positions, n), order, carray(markets, n),
            carray(own_account, 1)[0], carray(own_rules, 1)[0], equity, rows, capacity, progress, decisions,
        )  # fmt: skip
    put_back(account, own_account)
    return t


def _signature() -> Any:
    """The types of `_entry`."""

    def pointer(record: type[records.Record]) -> Any:
        return types.CPointer(from_dtype(record.dtype()))

    floats, ints = types.CPointer(types.float64), types.CPointer(types.int64)
    columns = types.CPointer(floats)
    return types.int64(
        types.int64, types.int64, types.int64, ints, columns, columns, columns, columns, columns,
        pointer(records.Position), ints, pointer(records.Market), pointer(records.Account), pointer(records.Rules),
        floats, pointer(records.FillRow), types.int64, ints, ints,
    )  # fmt: skip


def compile_kernel() -> bytes:
    """The engine's `run` as machine code for this processor: the entry's symbol, a newline, an object file."""
    for module in (book, fills, risk, kernel):
        for function in vars(module).values():
            own = isinstance(function, FunctionType) and function.__module__ == module.__name__
            if own and function is not kernel.look_ahead:
                # Without forced inlining numba passes each record and array by many words: five times slower.
                register_jitable(error_model="numpy", forceinline=True)(function)
    compiled = cfunc(_signature(), nopython=True, error_model="numpy")(_entry)
    return compiled.native_name.encode() + b"\n" + compiled._library._get_compiled_object()
