"""Jobs of a pool, which can be tried on one device after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.jobs.queue import FutureLike, Task
from apyfal.pipeline.arrays import array_of, each_of
from apyfal.storage.url import is_file_object, parse

if TYPE_CHECKING:
    from apyfal.jobs.prepared import PreparedJob

__all__ = ["AttemptFuture", "PooledTask", "PreparedTask"]


class PooledTask(Task):
    """A job of the pool. Its `future` is that of one attempt; `caller_future` is that of the caller."""

    __slots__ = ("caller_future", "retried")

    def __init__(
        self, caller_future: FutureLike, src: object, dst: object, keywords: dict[str, Any], batch_key: Hashable
    ) -> None:
        super().__init__(caller_future, src, dst, keywords, batch_key)
        self.caller_future = caller_future
        self.retried = False

    @property
    def repeatable(self) -> bool:
        """Whether the job can run again: its sources are unchanged, whatever the lost device has written."""
        sources, dsts = ([value for _, value in each_of(side)] for side in (self.src, self.dst))
        if any(is_file_object(value) for value in (*sources, *dsts)):
            return False
        return not any(_are_one(source, dst) for source in sources for dst in dsts)


class PreparedTask(PooledTask):
    """A run of a prepared job: on any device, but not at the same time as another run of this job."""

    __slots__ = ("_job",)

    def __init__(self, caller_future: FutureLike, job: PreparedJob, keywords: dict[str, Any]) -> None:
        super().__init__(caller_future, job.src, job.dst, keywords, None)
        self._job = job

    def run(self, process: Callable[..., Any]) -> Any:
        """Run the job by `process`, and return its result."""
        return self._job.run_by(process, **self.keywords)


def _are_one(source: object, dst: object) -> bool:
    """Return whether writing a destination may change a source."""
    if source is None or dst is None:
        return False
    names = isinstance(source, (str, PathLike)), isinstance(dst, (str, PathLike))
    if any(names):
        return all(names) and _place(source) == _place(dst)
    read, written = array_of(source), array_of(dst)
    return read is not None and written is not None and np.may_share_memory(read, written)


def _place(name: object) -> str:
    location = parse(name)
    return os.path.realpath(location.path) if location.is_local else str(location)


class AttemptFuture:
    """The future of one attempt on one device. The pool decides what its end means for the caller's future."""

    def __init__(
        self,
        task: PooledTask,
        succeeded: Callable[[PooledTask, Any], None],
        failed: Callable[[PooledTask, Any], None],
    ) -> None:
        self._task: PooledTask | None = task
        self._succeeded = succeeded
        self._failed = failed

    def set_running_or_notify_cancel(self) -> bool:
        """Do nothing: the attempt is already running."""
        return True

    def cancel(self) -> bool:
        """Do nothing: the attempt is already running."""
        return False

    def done(self) -> bool:
        """Return whether the attempt has ended."""
        return self._task is None

    def set_result(self, result: Any, /) -> None:
        """End the attempt with a result."""
        self._end(self._succeeded, result)

    def set_exception(self, error: BaseException, /) -> None:
        """End the attempt with an error."""
        self._end(self._failed, error)

    def _end(self, callback: Callable[[PooledTask, Any], None], outcome: Any) -> None:
        task, self._task = self._task, None  # breaks a reference cycle, so that both are freed at once
        if task is not None:
            callback(task, outcome)
