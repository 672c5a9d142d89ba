"""Equal accelerators that take jobs from one queue. If one is lost, it is removed, and its jobs run on another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from apyfal.exceptions import (
    ClosedError,
    DeviceLost,
    DeviceNotFound,
    DriverError,
    HostError,
    HostMemoryExhausted,
    RunCancelled,
    RunTimeout,
    StoreUnavailable,
)
from apyfal.jobs.base import BaseAccelerator
from apyfal.jobs.failover.attempts import AttemptFuture, PooledTask, PreparedTask
from apyfal.jobs.ordered_map import LightFuture, Pairs, map_jobs
from apyfal.jobs.prepared import PreparedJob
from apyfal.jobs.queue import CallTask, Task, TaskQueue, Workers, cancel_future
from apyfal.jobs.submitter import JobSubmitter, run_each
from apyfal.threads import start_threads

__all__ = ["CardStatistics", "DeviceGroup", "stop_all"]

_LOG = logging.getLogger("apyfal.pool")

#: Jobs at work on one device at once: one on the device, the next being fetched, the last being stored.
_THREADS = 3
#: Errors of a device, not of a job: the device is taken out of the group, and the job runs on another one.
_DEVICE_ERRORS = (DeviceLost, DeviceNotFound, HostError)
#: Seconds that `DeviceGroup.stop` waits for its threads.
_STOP_SECONDS = 5.0


@dataclass
class CardStatistics:
    """The jobs of one device of a pool, counted.

    Attributes
    ----------
    name
        Driver and index of the device, or address of the host.
    jobs, failures
        Jobs that succeeded there, and jobs that raised there.
    error
        Why the device was taken out of the pool; ``None``: it works.
    """

    name: str
    jobs: int = 0
    failures: int = 0
    error: str | None = None


class DeviceGroup:
    """Runs each job on a free one of several open accelerators.

    Parameters
    ----------
    accelerators
        Equal accelerators; owned by the group, which stops them.
    names
        Names of their devices, for `statistics`.

    Attributes
    ----------
    statistics
        What each device did.
    """

    def __init__(self, accelerators: Sequence[BaseAccelerator], names: Sequence[str]) -> None:
        self.statistics = [CardStatistics(name) for name in names]
        self._accelerators = accelerators
        self._closed = False  # after `close`: no new jobs; waiting ones still run, on the devices that are left
        self._stopped = False
        self._lock = threading.Lock()
        self._queue = TaskQueue(self._batch_limit)
        # tasks of `call`: each calls its own function, not `process`
        self._functions = Workers(_THREADS * len(accelerators), "function", partial(run_each, accelerators[0].process))
        self._threads: list[threading.Thread] = []
        for index in range(len(accelerators)):
            self._threads += start_threads(f"pool-{index}", _THREADS, partial(self._work, index))

    # -- jobs ---------------------------------------------------------------------------------------------------------
    def submit(self, src: object, dst: object, keywords: dict[str, Any]) -> Future[Any]:
        """Run one job in the background; the arguments are those of `process`."""
        future: Future[Any] = Future()
        self._put(PooledTask(future, src, dst, keywords, self._batch_keys(keywords)(src, dst)))
        return future

    def map(self, pairs: Pairs, info_list: list[dict[str, Any]] | None, keywords: dict[str, Any]) -> Iterator[Any]:
        """Run many jobs; return an iterator over their results, in order."""
        batch_keys = self._batch_keys(keywords)

        def put(future: LightFuture, src: object, dst: object, own: dict[str, Any]) -> None:
            self._put(PooledTask(future, src, dst, own, batch_keys(src, dst)))

        ahead = 2 * _THREADS * len(self._accelerators)
        return map_jobs(put, pairs, info_list, keywords, ahead=lambda: ahead * self._batch_size())

    def check(self, src: object, dst: object, keywords: dict[str, Any]) -> None:
        """Raise the error that a job would raise before it runs, as far as that can be known."""
        self._accelerators[0].prepare(src, dst, **keywords)  # all accelerators are equal: what one refuses, all refuse

    def submit_prepared(self, job: PreparedJob, keywords: dict[str, Any]) -> Future[Any]:
        """Run a prepared job in the background."""
        future: Future[Any] = Future()
        self._put(PreparedTask(future, job, keywords))
        return future

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Call any function in a thread of this process."""
        future: Future[Any] = Future()
        with self._lock:
            self._check_open()
            self._functions.submit(CallTask(future, function, {}))
        return future

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the pool was stopped")

    def _put(self, task: PooledTask) -> None:
        with self._lock:
            self._check_open()
            if all(one.error is not None for one in self.statistics):
                raise DeviceLost(f"no card of the pool is left: {self.statistics[0].error}")
            self._queue.put(task)

    # -- small jobs, which are batched on this machine's devices ------------------------------------------------------
    def _submitters(self) -> list[JobSubmitter]:
        """Return the submitters of the accelerators that work."""
        both = zip(self._accelerators, self.statistics, strict=True)
        return [accelerator._submitter for accelerator, statistics in both if statistics.error is None]

    def _batch_keys(self, keywords: dict[str, Any]) -> Callable[[object, object], Hashable]:
        submitters = self._submitters()
        return submitters[0].batch_keys(keywords) if submitters else lambda src, dst: None

    def _batch_size(self) -> int:
        return max((submitter.size() for submitter in self._submitters()), default=1)

    def _batch_limit(self, waiting: int) -> int:
        """Return how many of the waiting jobs one thread may take: no more than its share."""
        return max(min(self._batch_size(), waiting // (_THREADS * len(self._accelerators))), 1)

    # -- devices ------------------------------------------------------------------------------------------------------
    def _work(self, index: int) -> None:
        """Run jobs until the pool or this device ends. A thread that is free takes the next job."""
        statistics = self.statistics[index]
        while statistics.error is None and (taken := self._queue.take()):
            count = len(taken)
            tasks = [task for task in taken if isinstance(task, PooledTask)]
            if statistics.error is not None:  # removed while this thread waited: another device runs the jobs
                for task in tasks:
                    self._run_again(task)
            else:
                self._run(
                    index,
                    [task for task in tasks if task.retried or task.caller_future.set_running_or_notify_cancel()],
                )
            del taken, tasks
            self._queue.end(count)

    def _run(self, index: int, tasks: list[PooledTask]) -> None:
        succeeded, failed = partial(self._succeeded, index), partial(self._failed, index)
        attempts = [AttemptFuture(task, succeeded, failed) for task in tasks]
        for task, attempt in zip(tasks, attempts, strict=True):
            task.future = attempt
        accelerator = self._accelerators[index]
        try:
            if len(tasks) > 1:
                accelerator._submitter.run([*tasks])
            else:
                run_each(accelerator.process, tasks)
        except BaseException as error:  # not a job's error: fail the jobs, whose callers wait, and continue
            for attempt in attempts:
                attempt.set_exception(error)

    def _succeeded(self, index: int, task: PooledTask, result: Any) -> None:
        with self._lock:
            self.statistics[index].jobs += 1
        task.caller_future.set_result(result)

    def _failed(self, index: int, task: PooledTask, error: BaseException) -> None:
        statistics = self.statistics[index]
        is_broken = self._is_broken(index, error)
        with self._lock:
            statistics.failures += 1
            if is_broken and statistics.error is None:
                statistics.error = f"{type(error).__name__}: {error}"
                _LOG.warning("%s is taken out of the pool: %s", statistics.name, statistics.error)
            any_left = any(one.error is None for one in self.statistics) and not self._stopped
        task.retried = True
        if is_broken and any_left and task.repeatable:
            _LOG.info("a job runs again on another device: %s failed", statistics.name)
            self._run_again(task)
        else:
            task.caller_future.set_exception(error)
        if is_broken and not any_left:
            self._fail_waiting(error)

    def _run_again(self, task: PooledTask) -> None:
        """Queue a job for another device."""
        try:
            self._queue.put(task, again=True)
        except ClosedError as error:
            if not cancel_future(task.caller_future):
                task.caller_future.set_exception(error)
        if all(one.error is not None for one in self.statistics):  # the last device failed meanwhile
            self._fail_waiting(self.statistics[0].error or "")

    def _is_broken(self, index: int, error: BaseException) -> bool:
        """Return whether an error means that the device is broken, and not the job."""
        if isinstance(error, _DEVICE_ERRORS):
            return True
        if isinstance(error, (RunCancelled, RunTimeout, StoreUnavailable)) or not isinstance(error, DriverError):
            return False  # the job's error: its data, its parameters, its timeout
        # It can be an error of the job or of the device: ask the device.
        try:
            self._accelerators[index].empty(1, "u1")
        except (HostMemoryExhausted, MemoryError):
            return False
        except Exception:
            return True
        return False

    def _fail_waiting(self, error: object) -> None:
        """Fail the waiting jobs: no device is left that could take them."""
        for task in self._queue.clear():
            if isinstance(task, PooledTask) and (task.retried or task.caller_future.set_running_or_notify_cancel()):
                task.caller_future.set_exception(DeviceLost(f"no card of the pool is left: {error}"))

    # -- the end ------------------------------------------------------------------------------------------------------
    @property
    def is_taken_here(self) -> bool:
        """Return whether this thread runs a job's callback: `join` would wait for it for ever."""
        return self._queue.is_taken_here or self._functions.is_taken_here

    def close(self) -> None:
        """Refuse new jobs."""
        with self._lock:
            self._closed = True
            self._queue.close()

    def cancel(self) -> None:
        """Cancel the jobs that have not started."""
        self._cancel(self._queue.clear())
        self._functions.cancel_waiting()

    @staticmethod
    def _cancel(tasks: list[Task]) -> None:
        """Cancel jobs that were taken out of the queue; those that have run before, on a lost device, fail."""
        for task in tasks:
            if isinstance(task, PooledTask) and not cancel_future(task.caller_future):
                task.caller_future.set_exception(ClosedError("the pool was stopped"))

    def join(self) -> None:
        """Wait until all jobs have ended."""
        self._queue.join()
        self._functions.join()

    def stop(self) -> None:
        """Cancel all jobs, also running ones, and close all devices. Raises the first error of `Accelerator.stop`."""
        with self._lock:
            self._closed = self._stopped = True
        self._cancel(self._queue.stop())
        self._functions.stop(0.0)  # one that runs cannot be cancelled
        try:
            stop_all(self._accelerators)
        finally:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(_STOP_SECONDS)


def stop_all(accelerators: Sequence[BaseAccelerator]) -> None:
    """Stop all accelerators at once, so that one that hangs does not leave the others open. Raise the first error."""
    errors: list[BaseException] = []

    def stop(accelerator: BaseAccelerator) -> None:
        try:
            accelerator.stop()
        except BaseException as error:
            errors.append(error)

    threads = [start_threads("stop", 1, partial(stop, one))[0] for one in accelerators]
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
