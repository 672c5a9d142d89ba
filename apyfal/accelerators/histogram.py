"""``histogram``: how many elements fall into each of ``bins`` equal parts of ``range``.

Kernel arguments: ``src, dst, count, state, first, last, bins, dtype, lo, hi``. ``state`` holds ``bins`` uint64 counts,
zeroed by the kernel if ``first`` is set and written to ``dst`` if ``last`` is. ``lo`` and ``hi`` are float64. The
counts equal ``numpy.histogram(x, bins, range=(float(lo), float(hi)))[0]``: the last bin includes ``hi``; values outside
and NaN are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import ELEMENTS, Argument, OutputSize, Parameter
from apyfal.definition.types.dtypes import DTYPE_CODES, SCALAR_TYPES
from apyfal.exceptions import ParameterError

__all__ = ["DEFINITION"]

_COUNT_BYTES = 8
_MAX_BINS = 1 << 24  # 128 MiB of counts
_EXPECTED = "expected two finite numbers (low, high), the lower one first"


def _range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, str):  # from a command line or a configuration: "0, 1" or "0:1"
        value = value.strip("()[] ").replace(":", ",").split(",")
    try:
        low, high = (float(edge) for edge in value)
    except (TypeError, ValueError):
        raise ValueError(_EXPECTED) from None
    if not -np.inf < low < high < np.inf:
        raise ValueError(_EXPECTED)
    return low, high


def _scalars(parameters: Mapping[str, Any], dtype: np.dtype) -> dict[str, object]:
    edges = parameters["range"]
    if edges is None:
        if dtype.kind == "f":
            raise ParameterError(f"accelerator 'histogram': {dtype} elements need range=(low, high)")
        limits = np.iinfo(dtype)
        edges = (float(limits.min), float(limits.max + 1))
    return {"bins": parameters["bins"], "lo": edges[0], "hi": edges[1]}


def _bytes(parameters: Mapping[str, Any]) -> int:
    return int(parameters["bins"]) * _COUNT_BYTES


DEFINITION = Definition(
    name="histogram",
    kernel="histogram",
    summary="how many elements fall into each of `bins` equal parts of `range`, as uint64",
    arguments=(
        *(Argument(name) for name in ("src", "dst", "count", "state", "first", "last")),
        Argument("bins", SCALAR_TYPES["uint32"]),
        Argument("dtype"),
        Argument("lo", SCALAR_TYPES["float64"]),
        Argument("hi", SCALAR_TYPES["float64"]),
    ),
    parameters={
        "bins": Parameter("bins", "uint32", 256, minimum=1, maximum=_MAX_BINS),
        "range": Parameter("range", "object", None, convert=_range),
    },
    out_dtype=SCALAR_TYPES["uint64"],
    dtypes=frozenset(DTYPE_CODES),
    output=OutputSize("bytes"),
    size=_bytes,
    state=_bytes,
    prepare=_scalars,
    chunking=ELEMENTS,
    clear_outputs=False,
)
