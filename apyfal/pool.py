"""`AcceleratorPoolExecutor`: one queue of jobs over several devices, hosts, or the workers of a cluster."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from apyfal.accelerator import LOCAL, Accelerator
from apyfal.accelerators import resolve
from apyfal.device.listing import devices
from apyfal.exceptions import (
    AcceleratorException,
    ClosedError,
    DeviceLost,
    DeviceNotFound,
    DriverError,
    HostError,
    ParameterError,
    RunCancelled,
    RunTimeout,
    StoreUnavailable,
)
from apyfal.jobs.attempts import Attempt, PooledTask
from apyfal.jobs.ordered_map import LightFuture, Pairs, map_jobs
from apyfal.jobs.prepared import PreparedJob
from apyfal.jobs.queue import TaskQueue, cancel_future
from apyfal.jobs.submitter import run_each
from apyfal.threads import start_threads

if TYPE_CHECKING:
    from apyfal.cluster import Cluster
    from apyfal.config.configuration import ConfigSource
    from apyfal.jobs.data_types import JobData
    from apyfal.jobs.submitter import JobSubmitter
    from apyfal.pipeline.job_report import JobReport

__all__ = ["AcceleratorPoolExecutor", "CardStatistics"]

_LOG = logging.getLogger("apyfal.pool")

#: Jobs at work on one device at once: one on the device, the next being fetched, the last being stored.
_THREADS = 3
#: Errors of a device, not of a job: the device is taken out of the pool, and the job runs on another one.
_DEVICE_ERRORS = (DeviceLost, DeviceNotFound, HostError)
#: Workers of a cluster to keep busy, by default.
_CLUSTER_WORKERS = 16
#: Seconds that `AcceleratorPoolExecutor.stop` waits for its threads.
_STOP_SECONDS = 5.0

_Self = TypeVar("_Self", bound="AcceleratorPoolExecutor")


@dataclass
class CardStatistics:
    """What one device of a pool did.

    Attributes
    ----------
    name
        Driver and index of the device, or address of the host.
    jobs, failures
        Jobs that succeeded there, and jobs that raised there.
    error
        Why it was taken out of the pool; ``None``: it works.
    """

    name: str
    jobs: int = 0
    failures: int = 0
    error: str | None = None


class AcceleratorPoolExecutor(Executor):
    """Runs jobs on whichever of several equal accelerators is free.

    It is a `concurrent.futures.Executor`: ``submit(pool.process, src, dst)`` and ``map(pool.process, srcs, dsts)`` run
    jobs on its accelerators, any other function runs in a thread of this process (or on a worker of the cluster).

    Parameters
    ----------
    accelerator
        As for `apyfal.Accelerator`.
    workers_count
        Number of devices: the first ones of the driver, or of `hosts`. ``None``: all of them.
    hosts
        Addresses of hosts, instead of this machine's devices. Each is one worker; name a host twice for two of its
        devices.
    executor
        A cluster's executor instead: that of Dask (``client.get_executor(resources={"apyfal": 1})``), or the module
        `ray`. Jobs then travel as names and URLs; each worker process opens the accelerator once and keeps it.
    config, token, **definition
        As for `apyfal.Accelerator`, the same for all.

    Attributes
    ----------
    statistics
        What each device did; empty for a cluster.

    Raises
    ------
    ConfigurationError, DeviceNotFound
        There is nothing to run on.

    Notes
    -----
    A device that is lost is taken out of the pool, and its jobs run elsewhere: a job's destination is untouched until
    the job has succeeded. Jobs over file objects are not run again, because these have been read or written in part;
    they raise.

    At the end of a ``with`` block, submitted jobs are waited for; if the block raises, they are cancelled.
    """

    def __init__(
        self,
        accelerator: str | None = None,
        workers_count: int | None = None,
        hosts: Sequence[str] | None = None,
        executor: Executor | Any = None,
        *,
        config: ConfigSource = None,
        token: str | None = None,
        **definition: object,
    ) -> None:
        if workers_count is not None and (not isinstance(workers_count, int) or workers_count < 1):
            raise ParameterError(f"workers_count is {workers_count!r}; expected 1 or more, as an int, or None for all")
        if executor is not None and hosts is not None:
            raise ParameterError("give hosts or executor, not both")
        self._closed = False
        self._starts = 0  # `start` is not for pools
        self._entered = 0  # `with` blocks that have not ended
        self._lock = threading.Lock()
        self._queue = TaskQueue(self._batch_limit)
        self._threads: list[threading.Thread] = []
        self._accelerators: list[Accelerator] = []
        self.statistics: list[CardStatistics] = []
        self._cluster: Cluster | None = None
        self._functions: ThreadPoolExecutor | None = None  # runs functions that are not jobs
        if executor is not None:
            from apyfal.cluster import Cluster

            self._cluster = Cluster(executor, accelerator, config, definition)
            self._width = workers_count or _CLUSTER_WORKERS
            return
        places = self._places(accelerator, config, hosts, workers_count, definition)
        self._width = len(places)
        try:
            for name, keywords in places:
                self._accelerators.append(
                    Accelerator(accelerator, config, **{**definition, **keywords, **_token(token, hosts)})
                )
                self.statistics.append(CardStatistics(name))
        except BaseException:
            self._stop_accelerators()
            raise
        for index in range(len(self._accelerators)):
            self._threads += start_threads(f"pool-{index}", _THREADS, partial(self._work, index))

    @staticmethod
    def _places(
        accelerator: str | None,
        config: ConfigSource,
        hosts: Sequence[str] | None,
        count: int | None,
        definition: dict[str, Any],
    ) -> list[tuple[str, dict[str, Any]]]:
        if hosts is not None:
            places = [(host, {"host_ip": host}) for host in hosts]
            what = "hosts"
        else:
            resolved = resolve(accelerator, config, **definition)
            found = devices(resolved.driver, resolved.options)
            places = [(f"{resolved.driver}:{device['index']}", _here(device)) for device in found]
            what = f"devices of driver {resolved.driver!r}"
        if not places or (count is not None and count > len(places)):
            raise DeviceNotFound(f"the pool asks for {count or 'some'} {what}, and there are {len(places)}")
        return places[:count]

    # -- jobs ---------------------------------------------------------------------------------------------------------
    @overload
    def process(
        self, src: JobData = None, dst: JobData = None, *, report: Literal[True], **keywords: Any
    ) -> JobReport: ...

    @overload
    def process(self, src: JobData = None, dst: JobData = None, **keywords: Any) -> Any: ...

    def process(self, src: Any = None, dst: Any = None, **keywords: Any) -> Any:
        """Run one job on the first accelerator that is free; the arguments are those of `Accelerator.process`."""
        return self.process_submit(src, dst, **keywords).result()

    def prepare(self, src: object = None, dst: object = None, **keywords: Any) -> PreparedJob:
        """Check a job that is to run many times, each time on the first accelerator that is free.

        It runs as `process` does: a shorter way over arrays in place is for a single `Accelerator`. The arguments are
        those of `Accelerator.prepare`.
        """
        self._check_open()
        for accelerator in self._accelerators[:1]:
            accelerator.prepare(src, dst, **keywords)  # what it refuses, all do
        return PreparedJob(self, self.process, self._submit_call, src, dst, keywords)

    def _submit_call(self, job: PreparedJob, keywords: dict[str, Any]) -> Future[Any]:
        if self._cluster is None:
            return self.submit(job, **keywords)
        src: Any = job.src
        dst: Any = job.dst
        return self.process_submit(src, dst, **{**job.parameters, **keywords})

    @overload
    def process_submit(
        self, src: JobData = None, dst: JobData = None, *, report: Literal[True], **keywords: Any
    ) -> Future[JobReport]: ...

    @overload
    def process_submit(self, src: JobData = None, dst: JobData = None, **keywords: Any) -> Future[Any]: ...

    def process_submit(self, src: object = None, dst: object = None, **keywords: Any) -> Future[Any]:
        """Run one job in the background, on the first accelerator that is free; see `Accelerator.process_submit`."""
        if self._cluster is not None:
            self._check_open()
            return self._cluster.submit(src, dst, keywords)
        future: Future[Any] = Future()
        self._put(PooledTask(future, src, dst, keywords, self._batch_keys(keywords)(src, dst)))
        return future

    @overload
    def process_map(
        self,
        srcs: Iterable[JobData] | None = None,
        dsts: Iterable[JobData] | None = None,
        *,
        timeout: float | str | None = None,
        info_list: list[dict[str, Any]] | None = None,
        report: Literal[True],
        **parameters: Any,
    ) -> Iterator[JobReport]: ...

    @overload
    def process_map(
        self,
        srcs: Iterable[JobData] | None = None,
        dsts: Iterable[JobData] | None = None,
        *,
        timeout: float | str | None = None,
        info_list: list[dict[str, Any]] | None = None,
        **parameters: Any,
    ) -> Iterator[Any]: ...

    def process_map(
        self,
        srcs: Iterable[object] | None = None,
        dsts: Iterable[object] | None = None,
        *,
        timeout: float | str | None = None,
        info_list: list[dict[str, Any]] | None = None,
        **parameters: object,
    ) -> Iterator[Any]:
        """Run many jobs on all accelerators; return an iterator over their results, in order.

        See `Accelerator.process_map`.
        """
        self._check_open()
        keywords = parameters if timeout is None else {**parameters, "timeout": timeout}
        pairs = Pairs(srcs, dsts)
        if self._cluster is not None:
            return self._cluster.map(pairs, info_list, keywords, self._width)
        batch_keys = self._batch_keys(keywords)

        def put(future: LightFuture, src: object, dst: object, own: dict[str, Any]) -> None:
            self._put(PooledTask(future, src, dst, own, batch_keys(src, dst)))

        ahead = 2 * _THREADS * self._width
        return map_jobs(put, pairs, info_list, keywords, ahead=lambda: ahead * self._batch_size())

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in the background, as `concurrent.futures.Executor.submit` does.

        With ``fn=pool.process`` this is `process_submit`.
        """
        if not callable(fn):
            raise ParameterError(f"submit: expected a function, not {type(fn).__name__}; process_submit takes a source")
        if fn == self.process:
            return self.process_submit(*args, **kwargs)
        with self._lock:
            self._check_open()
            if self._cluster is None:
                if self._functions is None:
                    self._functions = ThreadPoolExecutor(_THREADS * self._width, thread_name_prefix="apyfal-function")
                return self._functions.submit(fn, *args, **kwargs)
        return self._cluster.call(partial(fn, *args, **kwargs))

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
        """Return those of the accelerators that work."""
        both = zip(self._accelerators, self.statistics, strict=True)
        return [accelerator._submitter for accelerator, statistics in both if statistics.error is None]

    def _batch_keys(self, keywords: dict[str, Any]) -> Callable[[object, object], Hashable]:
        submitters = self._submitters()
        return submitters[0].batch_keys(keywords) if submitters else lambda src, dst: None

    def _batch_size(self) -> int:
        return max((submitter.size() for submitter in self._submitters()), default=1)

    def _batch_limit(self, waiting: int) -> int:
        """Return how many of the waiting jobs one thread may take: no more than its share."""
        return max(min(self._batch_size(), waiting // (_THREADS * self._width)), 1)

    # -- devices ------------------------------------------------------------------------------------------------------
    def _work(self, index: int) -> None:
        """Run jobs until the pool or this device ends. A thread that is free takes the next job."""
        statistics = self.statistics[index]
        while statistics.error is None and (taken := self._queue.take()):
            count = len(taken)
            tasks = [task for task in taken if isinstance(task, PooledTask)]
            if statistics.error is not None:  # taken out while this thread waited: another device runs them
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
        for task in tasks:
            task.future = Attempt(task, succeeded, failed)
        accelerator = self._accelerators[index]
        if len(tasks) > 1:
            accelerator._submitter.run([*tasks])
        else:
            run_each(accelerator.process, tasks)

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
            any_left = any(one.error is None for one in self.statistics) and not self._closed
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
        if all(one.error is not None for one in self.statistics):  # the last one failed meanwhile
            self._fail_waiting(self.statistics[0].error or "")

    def _is_broken(self, index: int, error: BaseException) -> bool:
        """Return whether an error means that the device is broken, and not the job."""
        if isinstance(error, _DEVICE_ERRORS):
            return True
        if isinstance(error, (RunCancelled, RunTimeout, StoreUnavailable)) or not isinstance(error, DriverError):
            return False  # of the job: its data, its parameters, its time
        # It could be either's: the device is asked.
        try:
            self._accelerators[index].empty(1, "u1")
        except AcceleratorException:
            return True
        return False

    def _fail_waiting(self, error: object) -> None:
        """Fail the waiting jobs: no device is left that could take them."""
        for task in self._queue.clear():
            if isinstance(task, PooledTask) and (task.retried or task.caller_future.set_running_or_notify_cancel()):
                task.caller_future.set_exception(DeviceLost(f"no card of the pool is left: {error}"))

    # -- the end ------------------------------------------------------------------------------------------------------
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse new jobs, and close the devices when the submitted jobs have ended.

        Parameters
        ----------
        wait
            Return when that is done; ``False``: at once.
        cancel_futures
            Cancel the jobs that have not started.

        Raises
        ------
        ParameterError
            With `wait`, in a callback of a job's future, which would wait for itself.
        """
        if wait and self._queue.is_taken_here:
            raise ParameterError(
                "shutdown: a callback of a job cannot wait until all jobs have ended; expected wait=False, or another"
                " thread"
            )
        with self._lock:
            self._closed = True
            self._queue.close()
        if cancel_futures:
            self._cancel_waiting()
        if wait:
            self._finish()
        else:
            start_threads("shutdown", 1, self._finish)

    def _cancel_waiting(self) -> None:
        for task in self._queue.clear():
            if isinstance(task, PooledTask) and not cancel_future(task.caller_future):
                task.caller_future.set_exception(ClosedError("the pool was stopped"))
        if self._functions is not None:
            self._functions.shutdown(wait=False, cancel_futures=True)
        if self._cluster is not None:
            self._cluster.cancel()

    def _finish(self) -> None:
        self._queue.join()
        if self._functions is not None:
            self._functions.shutdown(wait=True)
        if self._cluster is not None:
            self._cluster.join()
        self.stop()

    def stop(self) -> None:
        """Cancel jobs (those that run raise `RunCancelled`), and close all devices. Stopping again is fine.

        On a cluster, jobs that run there come to their end.

        Raises
        ------
        BufferInUse
            A run has not ended although it was cancelled; see `Accelerator.stop`. The other devices are closed.
        """
        with self._lock:
            self._closed = True
        self._cancel_waiting()
        self._queue.stop()
        try:
            self._stop_accelerators()
        finally:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(_STOP_SECONDS)

    def _stop_accelerators(self) -> None:
        """Stop all at once: one that hangs must not leave the others open. Raise the first error."""
        errors: list[BaseException] = []

        def stop(accelerator: Accelerator) -> None:
            try:
                accelerator.stop()
            except BaseException as error:
                errors.append(error)

        threads = [start_threads("stop", 1, partial(stop, one))[0] for one in self._accelerators]
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def __enter__(self: _Self) -> _Self:
        with self._lock:
            self._check_open()
            self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the submitted jobs, or cancel them if the block raised; then close all devices.

        The end of a block inside another one of the same pool does nothing.
        """
        with self._lock:
            self._entered -= 1
            if self._entered > 0:
                return
        try:
            if kind is None:
                self.shutdown()
        finally:
            self.stop()

    def __repr__(self) -> str:
        working = sum(one.error is None for one in self.statistics)
        return f"<apyfal AcceleratorPoolExecutor of {len(self.statistics)} cards, {working} working>"


def _here(device: dict[str, Any]) -> dict[str, Any]:
    return {"host_ip": LOCAL, "device": str(device["index"])}


def _token(token: str | None, hosts: Sequence[str] | None) -> dict[str, Any]:
    return {"token": token} if hosts is not None and token is not None else {}
