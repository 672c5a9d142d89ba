"""Jobs of one accelerator in the background: several at once, small ones together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from apyfal.batching.packing import BATCH_NBYTES
from apyfal.batching.policy import BatchKeys, BatchSizePolicy
from apyfal.exceptions import ClosedError
from apyfal.jobs.ordered_map import LightFuture, map_tickets
from apyfal.jobs.queue import Task, Workers

__all__ = ["BATCH_MEMORY", "JobSubmitter", "run_each"]

#: Jobs that are at work at once: one on the card, the next being fetched, the last being stored.
_WORKERS = 3

#: Pinned memory of all small jobs that can be under way together.
BATCH_MEMORY = 4 * _WORKERS * BATCH_NBYTES


def run_each(process: Callable[..., Any], tasks: Sequence[Task]) -> None:
    """Run jobs one by one; their futures get what comes of it."""
    for task in tasks:
        try:
            result = process(task.src, task.dst, **task.keywords)
        except BaseException as error:
            task.future.set_exception(error)
        else:
            task.future.set_result(result)
            del result
        del task  # the error's frames end here: what its future keeps must not keep the future
    del tasks


class JobSubmitter:
    """What `process_submit` and `process_map` of an accelerator do.

    Parameters
    ----------
    name
        The accelerator's.
    process
        Runs one job: `apyfal.Accelerator.process`.
    together
        Runs several small ones of a kind, and returns those that are still to be run alone; ``None``: no job travels
        with others.

    Attributes
    ----------
    size
        How many small jobs travel together, at the moment.
    """

    def __init__(
        self, name: str, process: Callable[..., Any], together: Callable[[list[Task]], list[Task]] | None
    ) -> None:
        self._name = name
        self._process = process
        self._together = together
        self._workers: Workers | None = None
        self._starting = threading.Lock()
        self._stopped = False
        self.size = BatchSizePolicy()

    def submit(self, src: object, dst: object, keywords: dict[str, Any]) -> Future[Any]:
        """Run one job; see `apyfal.Accelerator.process_submit`."""
        future: Future[Any] = Future()
        self._put(Task(future, src, dst, keywords, self.kinds(keywords)(src, dst)))
        return future

    def map(
        self,
        srcs: Iterable[object] | None,
        dsts: Iterable[object] | None,
        info_list: list[dict[str, Any]] | None,
        keywords: dict[str, Any],
    ) -> Iterator[Any]:
        """Run many jobs; see `apyfal.Accelerator.process_map`."""
        kinds = self.kinds(keywords)

        def put(ticket: LightFuture, src: object, dst: object, own: dict[str, Any]) -> None:
            self._put(Task(ticket, src, dst, own, kinds(src, dst)))

        return map_tickets(put, srcs, dsts, info_list, keywords, ahead=self._ahead)

    def kinds(self, keywords: dict[str, Any]) -> Callable[[object, object], Hashable]:
        """Return what tells the kind of each job with these keywords, for `Task`."""
        return BatchKeys(keywords) if self._together is not None else lambda src, dst: None

    def run(self, tasks: list[Task]) -> None:
        """Run one job, or several small ones together, in the calling thread; their futures get what comes of it."""
        if len(tasks) > 1 and self._together is not None:
            tasks = self._together(tasks)
        run_each(self._process, tasks)
        del tasks

    def stop(self) -> None:
        """Drop the jobs that have not begun."""
        with self._starting:
            self._stopped = True
        if self._workers is not None:
            self._workers.stop()

    def _ahead(self) -> int:
        """Return how many jobs to submit ahead: for every worker what it takes, and as much again."""
        return 2 * _WORKERS * self.size()

    def _put(self, task: Task) -> None:
        workers = self._workers
        if workers is None:
            with self._starting:
                if self._stopped:
                    raise ClosedError(f"accelerator {self._name!r} was stopped")
                if self._workers is None:
                    self._workers = Workers(_WORKERS, f"apyfal-{self._name}", self.run, self.size)
                workers = self._workers
        workers.submit(task)
