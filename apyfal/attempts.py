"""Jobs that may be tried on one card after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from apyfal.jobs.queue import FutureLike, Task
from apyfal.pipeline.arrays import each_of
from apyfal.storage.url import is_file_object

__all__ = ["Attempt", "PooledTask"]


class PooledTask(Task):
    """A job of the pool; its future is that of the attempt under way, `given` is the caller's."""

    __slots__ = ("given", "tried")

    def __init__(self, given: FutureLike, src: object, dst: object, keywords: dict[str, Any], kind: Hashable) -> None:
        super().__init__(given, src, dst, keywords, kind)
        self.given = given
        self.tried = False

    @property
    def repeatable(self) -> bool:
        """Whether the job can run again: its source is as it was, its destination untouched."""
        return not any(is_file_object(one) for given in (self.src, self.dst) for _, one in each_of(given))


class Attempt:
    """The future of a job on one card: what it ends with is the pool's to judge."""

    def __init__(
        self, job: PooledTask, succeeded: Callable[[PooledTask, Any], None], failed: Callable[[PooledTask, Any], None]
    ) -> None:
        self._job: PooledTask | None = job
        self._succeeded = succeeded
        self._failed = failed

    def set_running_or_notify_cancel(self) -> bool:
        """Begin; it has."""
        return True

    def cancel(self) -> bool:
        """Refuse: it has begun."""
        return False

    def done(self) -> bool:
        """Whether the card is done with it."""
        return self._job is None

    def set_result(self, result: Any, /) -> None:
        """End well."""
        self._end(self._succeeded, result)

    def set_exception(self, error: BaseException, /) -> None:
        """End with an error."""
        self._end(self._failed, error)

    def _end(self, tell: Callable[[PooledTask, Any], None], outcome: Any) -> None:
        job, self._job = self._job, None  # the two would keep each other alive
        if job is not None:
            tell(job, outcome)
