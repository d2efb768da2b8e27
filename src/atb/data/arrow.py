"""Arrow columns as numpy arrays, straight from their buffers.

`ChunkedArray.to_numpy` and `cast` would import pandas and Arrow's compute module: more than the reading itself costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

MS_PER_UNIT = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}


def numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A fixed-width column without nulls, in its own numpy type; times as the integers that are stored."""
    kind = np.dtype(_numpy_name(column.type))
    parts = []
    for chunk in column.chunks:
        if len(chunk):
            data = chunk.buffers()[1]
            parts.append(np.frombuffer(data, dtype=kind, count=len(chunk), offset=chunk.offset * kind.itemsize))
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)


def times_ms(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A timestamp column without nulls as ms since 1970."""
    stored, unit = numbers(column), column.type.unit
    if unit == "s":
        return np.asarray(stored * 1000)
    if unit == "ms":
        return stored
    return np.asarray(stored // (1000 if unit == "us" else 1_000_000))


def _numpy_name(kind: pa.DataType) -> str:
    name = str(kind)
    if name.startswith("timestamp"):
        return "int64"
    return {"double": "float64", "float": "float32", "halffloat": "float16"}.get(name, name)
