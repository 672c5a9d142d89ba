"""The software card's models of the conformance suite's kernels; importing this registers them."""

from __future__ import annotations

import numpy as np

from apyfal.accelerators import model

_PAIR = np.dtype([("a", "f4"), ("b", "i1"), ("c", "f8"), ("d", "i2")], align=True)


@model("join", inputs=("x: int32", "y: uint8"), outputs=("total: int32", "low: uint8"), chunking="elements")
def join(x: np.ndarray, y: np.ndarray, total: np.ndarray, low: np.ndarray) -> None:
    """Add two arrays."""
    np.add(x, y, out=total)
    low[:] = total & 255


@model("weighted", dtype="int32", chunking="elements")
def weighted(src: np.ndarray, coefficients: np.ndarray, dst: np.ndarray) -> None:
    """Add what was loaded before."""
    np.add(src, coefficients[: src.size], out=dst)


@model("record", outputs=(f"dst: uint8 = {_PAIR.itemsize}",), s=_PAIR)
def record(dst: np.ndarray, s: np.void) -> None:
    """Write a struct as it came."""
    dst[:] = np.frombuffer(s.tobytes(), np.uint8)
