"""Jobs of a pool, which can be tried on one device after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from apyfal.jobs.queue import FutureLike, Task
from apyfal.pipeline.arrays import each_of
from apyfal.storage.url import is_file_object

__all__ = ["Attempt", "PooledTask"]


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
        """Whether the job can run again: its source and destination are unchanged."""
        return not any(is_file_object(value) for side in (self.src, self.dst) for _, value in each_of(side))


class Attempt:
    """The future of a job on one device. The pool decides what its end means for the caller's future."""

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
