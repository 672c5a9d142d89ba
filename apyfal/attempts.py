"""Jobs that may be tried on one card after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from apyfal.jobs.queue import Promise, Task
from apyfal.pipeline.arrays import each_of
from apyfal.storage.url import is_file_object

__all__ = ["Attempt", "Job"]


class Job(Task):
    """A job of the pool; its promise is that of the attempt under way, `given` is the caller's."""

    __slots__ = ("given", "tried")

    def __init__(self, given: Promise, src: object, dst: object, keywords: dict[str, Any], kind: Hashable) -> None:
        super().__init__(given, src, dst, keywords, kind)
        self.given = given
        self.tried = False

    @property
    def repeatable(self) -> bool:
        """Whether the job can run again: its source is as it was, its destination untouched."""
        return not any(is_file_object(one) for given in (self.src, self.dst) for _, one in each_of(given))


class Attempt:
    """The promise of a job on one card: what it ends with is the pool's to judge."""

    def __init__(self, job: Job, succeeded: Callable[[Job, Any], None], failed: Callable[[Job, Any], None]) -> None:
        self._job: Job | None = job
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

    def _end(self, tell: Callable[[Job, Any], None], outcome: Any) -> None:
        job, self._job = self._job, None  # the two would keep each other alive
        if job is not None:
            tell(job, outcome)
