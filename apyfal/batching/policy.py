"""Which jobs are small enough to travel together, and how many of them at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from apyfal.batching.packing import PACK, SMALL

__all__ = ["BatchKeys", "BatchSizePolicy"]

#: Jobs that travel together at most, however small.
_MOST = 256
#: Types of parameters that are told apart by how they are written.
_PLAIN = (bool, int, float, str, np.generic)


class BatchSizePolicy:
    """How many waiting jobs are taken together. It learns from the jobs: their size is known only afterwards."""

    def __init__(self) -> None:
        self._value = 1

    def __call__(self, waiting: int = _MOST) -> int:
        """Return how many, now, when so many wait."""
        return self._value if self._value < waiting else waiting

    def learn(self, nbytes: int) -> None:
        """Take note of the bytes of a job's input or output, of the largest among several jobs'."""
        fitting = PACK // max(nbytes, 1)
        self._value = min(4 * self._value, _MOST, fitting) if nbytes <= SMALL else 1


class BatchKeys:
    """Tells which jobs with the same keywords could travel together.

    Parameters
    ----------
    keywords
        Of `apyfal.Accelerator.process`, for all of the jobs.
    """

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._parameters: tuple[Hashable, ...] | None = None
        if keywords.get("copy", True) is True and not keywords.get("progress") and not keywords.get("memory_limit"):
            parameters = [(name, value) for name, value in keywords.items() if name != "info_dict"]
            if all(value is None or isinstance(value, _PLAIN) for _, value in parameters):
                # 1 and True are equal, but not the same
                self._parameters = tuple((name, repr(value)) for name, value in parameters)

    def __call__(self, src: object, dst: object) -> Hashable:
        """Return the same value for jobs that could travel together; ``None`` for one that could not with any."""
        if self._parameters is None or not (dst is None or isinstance(dst, (np.ndarray, str, PathLike))):
            return None
        if isinstance(src, np.ndarray):
            return (src.dtype, self._parameters) if 0 < src.nbytes <= SMALL else None
        if isinstance(src, (str, PathLike)):
            return (None, self._parameters)
        if isinstance(src, (bytes, bytearray)) and 0 < len(src) <= SMALL:
            return (None, self._parameters)  # of no element type, as what is in files
        return None
