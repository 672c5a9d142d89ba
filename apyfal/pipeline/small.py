"""Which jobs are small enough to travel together, and how many of them at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from apyfal.pipeline.layout import PACK, SMALL

__all__ = ["GroupSize", "kind_of"]

#: Jobs that travel together at most, however small.
_MOST = 256
#: Types of parameters that are told apart by how they are written.
_PLAIN = (bool, int, float, str, np.generic)


class GroupSize:
    """How many waiting jobs are taken together. It learns from the jobs: their size is known only afterwards."""

    def __init__(self) -> None:
        self._value = 1

    def __call__(self) -> int:
        """Return how many, now."""
        return self._value

    def learn(self, nbytes: int) -> None:
        """Take note of the bytes of a job's input or output, of the largest among several jobs'."""
        fitting = PACK // max(nbytes, 1)
        self._value = min(4 * self._value, _MOST, fitting) if nbytes <= SMALL else 1


def kind_of(src: object, dst: object, keywords: Mapping[str, Any]) -> Hashable:
    """Return the same value for jobs that could travel together; ``None`` for one that could not with any."""
    if keywords.get("copy", True) is not True or keywords.get("progress") or keywords.get("memory_limit"):
        return None
    if not (dst is None or isinstance(dst, (np.ndarray, str, PathLike))):
        return None
    if isinstance(src, (str, PathLike)):
        dtype = None
    elif isinstance(src, np.ndarray) and 0 < src.nbytes <= SMALL:
        dtype = src.dtype
    elif isinstance(src, (bytes, bytearray)) and 0 < len(src) <= SMALL:
        dtype = np.dtype(np.uint8)
    else:
        return None
    parameters = [(name, value) for name, value in keywords.items() if name != "info_dict"]
    if not all(value is None or isinstance(value, _PLAIN) for _, value in parameters):
        return None
    return (dtype, *((name, repr(value)) for name, value in parameters))  # 1 and True are equal, but not the same
