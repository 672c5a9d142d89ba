"""Jobs on the workers of a Dask or Ray cluster. Each worker opens the accelerator once and keeps it, with its memory.

Jobs travel as names, parameters and URLs, never as data: arrays and file objects are refused, because a cluster's
scheduler is not a place for gigabytes. Results (result parameters, arrays of jobs without destination) travel back.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import CancelledError, Future, wait
from itertools import islice
from queue import SimpleQueue
from typing import Any

from apyfal.cluster_worker import Ended, Mounts, call_function, run_job, run_jobs
from apyfal.config.configuration import ConfigSource
from apyfal.exceptions import ClosedError, ParameterError
from apyfal.jobs.failover.device_group import CardStatistics
from apyfal.jobs.ordered_map import Pairs, ResultIterator, name_job, warn_unread
from apyfal.jobs.prepared import PreparedJob
from apyfal.pipeline.arrays import each_of
from apyfal.threads import start_threads

__all__ = ["Cluster"]

#: Seconds of work in each task that is sent to a worker: a scheduler takes a millisecond or more for a task. The number
#: of jobs is limited to `_MOST`, because they are lost together with their worker.
_TASK_SECONDS = 0.1
_MOST = 64
#: Tasks sent ahead for each worker: one at work, one waiting there, and one result on its way back.
_AHEAD = 3


class _JobFuture(Future[Any]):
    """The future of one job on a cluster.

    Parameters
    ----------
    task
        The cluster's future of a call of `run_job`.
    info
        Receives the job's ``info_dict``; ``None``: nobody asked.
    """

    def __init__(self, task: Future[Any], info: dict[str, Any] | None) -> None:
        super().__init__()
        self._task = task
        self._info = info
        task.add_done_callback(self._ended)

    def cancel(self) -> bool:
        """Cancel the job if it has not started; return whether it is cancelled."""
        return self._task.cancel()

    def running(self) -> bool:
        """Return whether the job runs."""
        return self._task.running()

    def _ended(self, task: Future[Any]) -> None:
        if task.cancelled():
            super().cancel()
        if not self.set_running_or_notify_cancel():
            return
        if (error := task.exception()) is not None:
            self.set_exception(error)
            return
        result, info = task.result()
        if self._info is not None:
            self._info.update(info)
        self.set_result(result)


class Cluster:
    """Submits jobs to a cluster.

    Parameters
    ----------
    executor
        An object with ``submit(function, *arguments) -> Future``, such as Dask's ``ClientExecutor``; or the module
        `ray` after ``ray.init``, whose tasks ask for the resource ``{"apyfal": 1}`` if the cluster has it.
    accelerator, config, definition
        For `run_job`.
    width
        Workers to keep busy.

    Attributes
    ----------
    statistics
        Empty: a cluster has its own.
    """

    #: No thread of this process runs a callback of a job that `join` waits for.
    is_taken_here = False

    def __init__(
        self,
        executor: Any,
        accelerator: str | None,
        config: ConfigSource,
        definition: Mapping[str, Any],
        width: int,
    ) -> None:
        self.statistics: list[CardStatistics] = []
        self._submit_task = _ray_submit(executor) if getattr(executor, "__name__", "") == "ray" else executor.submit
        self._arguments = (accelerator, config, dict(definition))
        self._pending: set[Future[Any]] = set()
        self._feeders: list[threading.Thread] = []
        self._cancelled = False
        self._width = width

    def submit(self, src: object, dst: object, keywords: Mapping[str, Any]) -> Future[Any]:
        """Run one job on some worker; see `apyfal.Accelerator.process_submit`."""
        _check(src, dst)
        info = keywords.get("info_dict")
        task = self._submit(run_job, src, dst, _travelling(keywords), info is not None)
        return self._pend(_JobFuture(task, info))

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self._cancelled:
            raise ClosedError("the pool was stopped")
        return self._pend(self._submit_task(function, *self._arguments, Mounts.here(), *arguments))

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Call any function on some worker."""
        return self._pend(self._submit_task(call_function, function))

    def _pend(self, task: Future[Any]) -> Future[Any]:
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return task

    def check(self, src: object, dst: object, keywords: Mapping[str, Any]) -> None:
        """Do nothing: a worker checks its jobs."""

    def submit_prepared(self, job: PreparedJob, keywords: Mapping[str, Any]) -> Future[Any]:
        """Run a prepared job on some worker."""
        return self.submit(job.src, job.dst, {**job.parameters, **keywords})

    def map(self, pairs: Pairs, info_list: list[dict[str, Any]] | None, keywords: Mapping[str, Any]) -> Iterator[Any]:
        """Run many jobs on all workers, several short ones in a task; see `apyfal.Accelerator.process_map`.

        Parameters
        ----------
        pairs
            Source and destination of each job.
        info_list, keywords
            As there.
        """
        tasks = _MapTasks(self._submit, pairs, info_list, _travelling(keywords), _AHEAD * self._width)
        if not (pairs.stored and pairs.count is not None):
            return ResultIterator(tasks.results(), tasks.abandon, tasks.cancel)
        # Results take no memory here: the rest is sent while nobody reads, or if nobody ever does.
        ended: SimpleQueue[tuple[Any, BaseException | None] | None] = SimpleQueue()

        def feed() -> None:
            for outcome in tasks.outcomes():
                ended.put(outcome)
            ended.put(None)

        def results() -> Generator[Any, None, None]:
            try:
                while (outcome := ended.get()) is not None:
                    yield _result_of(outcome)
            finally:
                tasks.cancel()

        self._feeders = [thread for thread in self._feeders if thread.is_alive()] + start_threads("cluster", 1, feed)
        return ResultIterator(results(), lambda: None, tasks.cancel)

    def close(self) -> None:
        """Do nothing: the pool refuses new jobs."""

    def cancel(self) -> None:
        """Cancel the tasks that have not started."""
        self._cancelled = True
        for task in list(self._pending):
            task.cancel()

    def join(self) -> None:
        """Wait until all jobs have ended."""
        for thread in self._feeders:
            thread.join()
        wait(list(self._pending))

    def stop(self) -> None:
        """Cancel the tasks that have not started. The workers and their accelerators stay for the next pool."""
        self.cancel()


class _MapTasks:
    """The tasks of one `process_map`, each of several short jobs.

    Parameters
    ----------
    submit
        Submits a call of a function on a worker.
    pairs, info_list, keywords
        The jobs.
    most
        Tasks that are sent ahead.
    """

    def __init__(
        self,
        submit: Callable[..., Future[Any]],
        pairs: Pairs,
        info_list: list[dict[str, Any]] | None,
        keywords: Mapping[str, Any],
        most: int,
    ) -> None:
        self._submit = submit
        self._pairs = pairs
        self._info_list = info_list
        self._keywords = keywords
        self._most = most
        self._pending: deque[tuple[Future[Any], list[object], list[dict[str, Any]]]] = deque()
        self._jobs = 1  # in each task; nobody knows yet how long they take
        self._submitted = self._ended = 0
        self._left = True
        self._cancelled = False
        try:
            while self._left and len(self._pending) < most:
                self._send()
        except BaseException:
            self.cancel()
            raise

    def _send(self) -> None:
        several = list(islice(self._pairs, self._jobs))
        self._left = bool(several) and not self._cancelled
        if not self._left:
            return
        for pair in several:
            _check(*pair)
        task = self._submit(run_jobs, several, self._keywords, self._info_list is not None)
        self._submitted += len(several)
        infos: list[dict[str, Any]] = [{} for _ in several]
        if self._info_list is not None:
            self._info_list.extend(infos)
        self._pending.append((task, [src for src, _ in several], infos))

    def outcomes(self) -> Iterator[tuple[Any, BaseException | None]]:
        """Send the tasks, and yield result and error of each job, in order."""
        while self._left:
            while len(self._pending) >= self._most:
                yield from self._take()
            try:
                self._send()
            except BaseException as error:  # of the iterables, or a job that cannot travel
                self._left = False
                yield from self._rest()
                yield None, error
        yield from self._rest()

    def _rest(self) -> Iterator[tuple[Any, BaseException | None]]:
        while self._pending:
            yield from self._take()

    def _take(self) -> Iterator[tuple[Any, BaseException | None]]:
        task, srcs, infos = self._pending.popleft()
        try:
            ended, seconds = task.result()
        except (Exception, CancelledError) as error:  # of the task: its worker, or the cluster
            ended = [Ended(None, error, None)] * len(srcs)
        else:
            self._jobs = _how_many(len(ended), seconds)
        for one, src, info in zip(ended, srcs, infos, strict=True):
            info.update(one.info or {})
            if one.error is not None:
                name_job(one.error, self._ended, src)
            self._ended += 1
            yield one.result, one.error

    def results(self) -> Generator[Any, None, None]:
        """Yield the results in order, and raise the first error; cancel what has not started at the end."""
        try:
            for outcome in self.outcomes():
                yield _result_of(outcome)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the tasks that have not started, and send no more."""
        self._cancelled = True
        for task, _, _ in list(self._pending):
            task.cancel()

    def abandon(self) -> None:
        """Warn if nobody will read the results, so that the rest is never sent."""
        if self._left and self._submitted != self._pairs.count:
            warn_unread(self._submitted)


def _result_of(outcome: tuple[Any, BaseException | None]) -> Any:
    result, error = outcome
    if error is not None:
        raise error
    return result


def _check(src: object, dst: object) -> None:
    """Raise `ParameterError` if a job is over data that is only in this process."""
    for side, value in (("src", src), ("dst", dst)):
        for name, one in each_of(value):
            if one is not None and not isinstance(one, (str, os.PathLike)):
                raise ParameterError(
                    f"{name or side}: {type(one).__name__} cannot travel to a cluster; expected a URL or a path "
                    "that all see"
                )


def _travelling(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords that are sent to the workers; refuse those that cannot be."""
    if keywords.get("progress") is not None:
        raise ParameterError("progress cannot travel to a cluster")
    return {key: value for key, value in keywords.items() if value is not None and key not in ("info_dict", "progress")}


def _how_many(jobs: int, seconds: float) -> int:
    """Return how many jobs to send in the next task, if `jobs` of them took `seconds`."""
    return max(min(int(_TASK_SECONDS * jobs / max(seconds, 1e-6)), 4 * jobs, _MOST), 1)


def _ray_submit(ray: Any) -> Any:
    resources = {"apyfal": 1} if "apyfal" in ray.cluster_resources() else {}
    # Jobs can run again if their worker dies: a destination is written as a whole or not at all.
    options = {"resources": resources, "num_cpus": 0 if resources else 1, "max_retries": 3}
    remote = {function: ray.remote(function).options(**options) for function in (run_job, run_jobs, call_function)}

    def submit(function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = remote[function].remote(*arguments).future()
        return future

    return submit
