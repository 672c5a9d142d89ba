"""Decide which jobs can be in one batch, and how many."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from apyfal.batching.packing import BATCH_NBYTES, SMALL_NBYTES

__all__ = ["BatchKeys", "BatchSizePolicy"]

#: Largest number of jobs in one batch, however small.
_MAX_JOBS = 256
#: Longest time in seconds that a card works on one batch, estimated from earlier jobs. Jobs of a batch end together and
#: are not cancelled alone; the transfers that a batch saves take far less time than this.
_LONGEST = 0.02
#: Jobs in the first batch, which tells how long the card works on each, if a job alone took longer than that.
_FIRST = 4
#: Types of parameters for which equal text means equal values.
_PLAIN = (bool, int, float, str, np.generic)


class BatchSizePolicy:
    """How many waiting jobs make a batch. It learns from jobs that have ended: sizes of files and times of kernels are
    not known before.
    """

    def __init__(self) -> None:
        self._value = 1
        self._in_time = _MAX_JOBS
        self._is_measured = False

    def __call__(self, waiting: int = _MAX_JOBS) -> int:
        """Return how many of `waiting` jobs to take."""
        return self._value if self._value < waiting else waiting

    def learn(self, nbytes: int, seconds: float = 0.0) -> None:
        """Learn from one job.

        Parameters
        ----------
        nbytes
            Of its input or output, whichever is larger.
        seconds
            The total time of the job: the card took no longer.
        """
        before = self._in_time if self._is_measured else _FIRST
        self._in_time = max(before, _jobs_in_time(seconds))
        self._take(nbytes)

    def learn_of_batch(self, nbytes: int, seconds: float) -> None:
        """Learn from a batch: `nbytes` of its largest job, and `seconds` that the card worked on each."""
        self._in_time = _jobs_in_time(seconds)
        self._is_measured = True
        self._take(nbytes)

    def _take(self, nbytes: int) -> None:
        fitting = BATCH_NBYTES // max(nbytes, 1)
        self._value = min(4 * self._value, _MAX_JOBS, fitting, self._in_time) if nbytes <= SMALL_NBYTES else 1


def _jobs_in_time(seconds: float) -> int:
    """Return how many jobs of `seconds` each a card can do in `_LONGEST`; at least one."""
    return min(_MAX_JOBS, max(1, int(_LONGEST / seconds))) if seconds > 0 else _MAX_JOBS


class BatchKeys:
    """Decides which jobs, of those with the same keywords, can be in one batch.

    Parameters
    ----------
    keywords
        Of `apyfal.Accelerator.process`, for all of these jobs.
    """

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._parameters: tuple[Hashable, ...] | None = None
        if not isinstance(keywords.get("report", False), bool):
            return  # refused, by an error of its own
        if keywords.get("copy", True) is True and not keywords.get("progress") and not keywords.get("memory_limit"):
            parameters = [(name, value) for name, value in keywords.items() if name != "info_dict"]
            if all(value is None or isinstance(value, _PLAIN) for _, value in parameters):
                # Text, because 1 and True are equal, and so are 0.0 and -0.0, but they are different arguments.
                self._parameters = tuple((name, repr(value)) for name, value in parameters)

    def __call__(self, src: object, dst: object) -> Hashable:
        """Return a key that is equal for jobs that can be in one batch; ``None``: this job runs alone."""
        if self._parameters is None or not (dst is None or isinstance(dst, (np.ndarray, str, PathLike))):
            return None
        if isinstance(src, np.ma.MaskedArray) or isinstance(dst, np.ma.MaskedArray):
            return None  # refused, by an error of its own
        if isinstance(src, np.ndarray):
            return (src.dtype, self._parameters) if 0 < src.nbytes <= SMALL_NBYTES else None
        if isinstance(src, (str, PathLike)):
            return (None, self._parameters)
        if isinstance(src, (bytes, bytearray)) and 0 < len(src) <= SMALL_NBYTES:
            return (None, self._parameters)  # raw bytes, as files have
        return None
