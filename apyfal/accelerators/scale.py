"""``scale``: ``a * x + b`` for every element.

Kernel arguments: ``src, dst, count, a, b, dtype``. ``a`` and ``b`` have the elements' type (float32 for half
precision), ``dtype`` is its code. The arithmetic is numpy's on arrays of that type: integers wrap around, floating-
point numbers are rounded after the product and again after the sum.
"""

from __future__ import annotations

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import ELEMENTS, Argument, Parameter
from apyfal.definition.types.dtypes import DTYPE_CODES

__all__ = ["DEFINITION"]

DEFINITION = Definition(
    name="scale",
    kernel="scale",
    summary="a * x + b for every element, in the elements' own type",
    arguments=tuple(Argument(name) for name in ("src", "dst", "count", "a", "b", "dtype")),
    parameters={"a": Parameter("a", "element", 1), "b": Parameter("b", "element", 0)},
    dtypes=frozenset(DTYPE_CODES),
    chunking=ELEMENTS,
    clear_outputs=False,
)
