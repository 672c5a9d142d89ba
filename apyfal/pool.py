"""`AcceleratorPoolExecutor`: one queue of jobs over several devices, hosts, or the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from apyfal.accelerator import LOCAL, Accelerator
from apyfal.accelerators import resolve
from apyfal.device.listing import devices
from apyfal.exceptions import ClosedError, DeviceNotFound, ParameterError
from apyfal.jobs.failover.device_group import CardStatistics, DeviceGroup, stop_all
from apyfal.jobs.prepared import PreparedJob
from apyfal.jobs.runner import JobRunner
from apyfal.threads import start_threads

if TYPE_CHECKING:
    from apyfal.cluster import Cluster
    from apyfal.config.configuration import ConfigSource
    from apyfal.jobs.data_types import JobData
    from apyfal.pipeline.reports.job_report import JobReport

__all__ = ["AcceleratorPoolExecutor", "CardStatistics"]

#: Workers of a cluster to keep busy, by default.
_CLUSTER_WORKERS = 16


class AcceleratorPoolExecutor(JobRunner, Executor):
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

    Raises
    ------
    ConfigurationError, DeviceNotFound
        There is nothing to run on.

    Notes
    -----
    A device that is lost is taken out of the pool, and its jobs run elsewhere: a job's destination is untouched until
    the job has succeeded. Two kinds of jobs raise instead of running again: over file objects, which have been read or
    written in part, and in place (the destination is the source, or its memory), as the source may be changed already.

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
        self._accelerators: list[Accelerator] = []
        self._jobs: Cluster | DeviceGroup
        if executor is not None:
            from apyfal.cluster import Cluster

            self._jobs = Cluster(executor, accelerator, config, definition, workers_count or _CLUSTER_WORKERS)
            return
        places = self._places(accelerator, config, hosts, workers_count, definition)
        try:
            for _, keywords in places:
                self._accelerators.append(
                    Accelerator(accelerator, config, **{**definition, **keywords, **_token(token, hosts)})
                )
        except BaseException:
            stop_all(self._accelerators)
            raise
        self._jobs = DeviceGroup(self._accelerators, [name for name, _ in places])

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

    @property
    def _submitter(self) -> Cluster | DeviceGroup:
        return self._jobs

    @property
    def statistics(self) -> list[CardStatistics]:
        """What each device did; empty for a cluster."""
        return self._jobs.statistics

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

        It runs as `process` does: the fast path over arrays in place exists for a single `Accelerator` only. The
        arguments are those of `Accelerator.prepare`.
        """
        self._check_open()
        self._jobs.check(src, dst, keywords)
        return PreparedJob(self, self.process, self._submit_call, src, dst, keywords)

    def _submit_call(self, job: PreparedJob, keywords: dict[str, Any]) -> Future[Any]:
        self._check_open()
        return self._jobs.submit_prepared(job, keywords)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in the background, as `concurrent.futures.Executor.submit` does.

        With ``fn=pool.process`` this is `process_submit`.
        """
        if not callable(fn):
            raise ParameterError(f"submit: expected a function, not {type(fn).__name__}; process_submit takes a source")
        if fn == self.process:
            return self.process_submit(*args, **kwargs)
        self._check_open()
        return self._jobs.call(partial(fn, *args, **kwargs))

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the pool was stopped")

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
        if wait and self._jobs.is_taken_here:
            raise ParameterError(
                "shutdown: a callback of a job cannot wait until all jobs have ended; expected wait=False, or another"
                " thread"
            )
        self._closed = True
        self._jobs.close()
        if cancel_futures:
            self._jobs.cancel()
        if wait:
            self._finish()
        else:
            start_threads("shutdown", 1, self._finish)

    def _wait(self) -> None:
        self.shutdown()

    def _finish(self) -> None:
        self._jobs.join()
        self._jobs.stop()

    def stop(self) -> None:
        """Cancel jobs (those that run raise `RunCancelled`), and close all devices. Stopping again is fine.

        On a cluster, jobs that run there come to their end.

        Raises
        ------
        BufferInUse
            A run has not ended although it was cancelled; see `Accelerator.stop`. The other devices are closed.
        """
        self._closed = True
        self._jobs.stop()

    def __repr__(self) -> str:
        working = sum(one.error is None for one in self.statistics)
        return f"<apyfal AcceleratorPoolExecutor of {len(self.statistics)} cards, {working} working>"


def _here(device: dict[str, Any]) -> dict[str, Any]:
    return {"host_ip": LOCAL, "device": str(device["index"])}


def _token(token: str | None, hosts: Sequence[str] | None) -> dict[str, Any]:
    return {"token": token} if hosts is not None and token is not None else {}
