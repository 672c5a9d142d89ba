"""An accelerator whose result parameters are what JSON does not have, here and in a daemon's process."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from typing import Any

import numpy as np

from apyfal.accelerators import model
from apyfal.definition import registry

__all__ = ["LARGE", "REFUSED", "VALUES", "register_results"]

POINT = np.array([(1, 2.5)], [("x", "<i4"), ("y", ">f8")])
VALUES: list[Any] = [
    math.nan, math.inf, -math.inf, -0.0, 0.0, 0, False, 1, True, 1.0, 5e-324, (1 << 53) + 1, -(10**1000), 10**5000,
    None, "", "NaN", "\ud800\n\0", b"\x00\xff", bytearray(b"x"), (), (1, (math.nan,)), [], [b"", ["list", 1]],
    {}, {"a": {"b": math.nan}}, {1: 2, None: 3, 2.5: 4, (1, 2): 5}, {"exact": ["float", "NaN"]}, {3, 4},
    frozenset([b"x"]),
    complex(math.nan, -0.0), np.float32(0.1), np.float32("nan"), np.float64(2.5), np.longdouble(1) / 3, np.uint8(255),
    np.int64(-5), np.bool_(True), np.complex64(1j), np.datetime64("2026-01-02"), np.str_("x"), np.bytes_(b"x"),
    POINT[0],
    np.array([1.5, math.nan]), np.arange(6, dtype=">u2").reshape(2, 3), np.asfortranarray(np.ones((2, 3))), np.array(3),
    np.zeros((2, 0)), POINT, np.array(["a", "bc"]), [np.float16(1.5), (np.array([1]),)],
    1 << 2047, 1 << 2048,
]  # fmt: skip
#: what cannot be sent, and what cannot be beside an output; numbered after the others
LARGE = b"q" * 100_000
REFUSED: list[Any] = [Decimal("1.5"), object, np.array([None]), [[[Decimal(1)]]]]


def _finish(output: np.ndarray) -> dict[str, object]:
    value = [*VALUES, *REFUSED, LARGE][int(output[0])]
    return {"value": value, "number": int(output[0])}


def register_results() -> None:
    """Define ``results``: the input's first element says which of `VALUES` and `REFUSED` is the result."""

    def results(src: np.ndarray, dst: np.ndarray) -> None:
        """Return one of a list of odd values."""
        dst[:] = src

    model("_results", dtype="uint8")(results)
    registry.register(dataclasses.replace(registry.get("_results"), name="results", finish=_finish))
