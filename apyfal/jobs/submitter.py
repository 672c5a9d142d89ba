"""Jobs of one accelerator in the background: several at once, small ones in batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from apyfal.batching.packing import BATCH_NBYTES
from apyfal.batching.policy import BatchKeys, BatchSizePolicy
from apyfal.exceptions import ClosedError
from apyfal.jobs.ordered_map import LightFuture, Pairs, map_jobs
from apyfal.jobs.queue import CallTask, Task, Workers

__all__ = ["BATCH_MEMORY", "JobSubmitter", "run_each"]

#: Jobs at work at once: one on the device, the next being fetched, the last being stored.
_WORKERS = 3

#: Bytes of pinned memory for all batches that can run at once.
BATCH_MEMORY = 4 * _WORKERS * BATCH_NBYTES


def run_each(process: Callable[..., Any], tasks: Sequence[Task]) -> None:
    """Run jobs one by one, and set their futures."""
    for task in tasks:
        try:
            result = task.run(process)
        except BaseException as error:
            task.future.set_exception(error)
        else:
            task.future.set_result(result)
            del result
        del task  # the error's traceback keeps this frame, and the future keeps the error
    del tasks


class JobSubmitter:
    """Runs the jobs of `process_submit` and `process_map` of one accelerator.

    Parameters
    ----------
    name
        Of the accelerator.
    process
        Runs one job: `apyfal.Accelerator.process`.
    run_batch
        Runs several small jobs with one batch key, and returns those that have to run alone; ``None``: there are no
        batches.
    workers
        Jobs at work at once.

    Attributes
    ----------
    size
        How many small jobs form a batch at the moment.
    """

    def __init__(
        self,
        name: str,
        process: Callable[..., Any],
        run_batch: Callable[[list[Task]], list[Task]] | None = None,
        *,
        workers: int = _WORKERS,
    ) -> None:
        self._name = name
        self._process = process
        self._run_batch = run_batch
        self._count = workers
        self._workers: Workers | None = None
        self._starting = threading.Lock()
        self._closed = False
        self.size = BatchSizePolicy()

    def submit(self, src: object, dst: object, keywords: dict[str, Any]) -> Future[Any]:
        """Submit one job; see `apyfal.Accelerator.process_submit`."""
        future: Future[Any] = Future()
        self._put(Task(future, src, dst, keywords, self.batch_keys(keywords)(src, dst)))
        return future

    def call(self, function: Callable[..., Any], keywords: dict[str, Any]) -> Future[Any]:
        """Queue a call of a function between the jobs."""
        future: Future[Any] = Future()
        self._put(CallTask(future, function, keywords))
        return future

    def map(self, pairs: Pairs, info_list: list[dict[str, Any]] | None, keywords: dict[str, Any]) -> Iterator[Any]:
        """Submit many jobs; see `apyfal.Accelerator.process_map`."""
        batch_keys = self.batch_keys(keywords)

        def put(future: LightFuture, src: object, dst: object, own: dict[str, Any]) -> None:
            self._put(Task(future, src, dst, own, batch_keys(src, dst)))

        return map_jobs(put, pairs, info_list, keywords, ahead=self._ahead)

    def batch_keys(self, keywords: dict[str, Any]) -> Callable[[object, object], Hashable]:
        """Return a function that takes source and destination, and returns the batch key of a job with `keywords`."""
        return BatchKeys(keywords) if self._run_batch is not None else lambda src, dst: None

    def run(self, tasks: list[Task]) -> None:
        """Run one job, or several with one batch key, in the calling thread; set their futures."""
        if len(tasks) > 1 and self._run_batch is not None:
            tasks = self._run_batch(tasks)
        run_each(self._process, tasks)
        del tasks

    def join(self) -> None:
        """Refuse new jobs, and wait until all that were submitted have ended."""
        self._close()
        if self._workers is not None:
            self._workers.join()

    def cancel_waiting(self) -> None:
        """Refuse new jobs, and cancel those that have not started."""
        self._close()
        if self._workers is not None:
            self._workers.cancel_waiting()

    def stop(self) -> None:
        """Refuse new jobs, and cancel those that have not started."""
        self._close()
        if self._workers is not None:
            self._workers.stop()

    def _close(self) -> None:
        with self._starting:
            self._closed = True

    def _ahead(self) -> int:
        """Return how many jobs to submit ahead: what each worker takes at once, twice."""
        return 2 * self._count * self.size()

    def _put(self, task: Task) -> None:
        workers = self._workers
        if workers is None or self._closed:
            with self._starting:
                if self._closed:
                    raise ClosedError(f"accelerator {self._name!r} was stopped")
                if self._workers is None:
                    self._workers = Workers(self._count, self._name, self.run, self.size)
                workers = self._workers
        workers.submit(task)
