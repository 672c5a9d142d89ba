"""`AcceleratorPoolExecutor`: one job list over several cards, hosts, or the workers of a cluster."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from apyfal.accelerator import LOCAL, Accelerator
from apyfal.accelerators import resolve
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
from apyfal.listing import devices
from apyfal.mapping import map_jobs
from apyfal.pipeline.arrays import each_of
from apyfal.storage.url import is_file_object

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from apyfal.configuration import ConfigSource

__all__ = ["AcceleratorPoolExecutor", "CardStatistics"]

#: Jobs at work on one card at once: one on the card, the next being fetched, the last being stored.
_THREADS = 3
#: Errors of a card, not of a job: the card is taken out, and the job runs on another one.
_CARD_ERRORS = (DeviceLost, DeviceNotFound, HostError)


@dataclass
class CardStatistics:
    """What one card of a pool did.

    Attributes
    ----------
    name
        Device or host.
    jobs, failures
        Jobs that ended well there, and that raised there.
    error
        Why it was taken out; ``None`` while it works.
    """

    name: str
    jobs: int = 0
    failures: int = 0
    error: str | None = None


@dataclass
class _Job:
    future: Future[Any]
    src: object
    dst: object
    keywords: dict[str, Any]
    tried: set[int] = field(default_factory=set)

    @property
    def repeatable(self) -> bool:
        """Whether the job can run again: its source is as it was, its destination untouched."""
        return not any(is_file_object(one) for given in (self.src, self.dst) for _, one in each_of(given))


class AcceleratorPoolExecutor:
    """Runs jobs on whichever of several equal accelerators is free.

    Parameters
    ----------
    accelerator
        As for `apyfal.Accelerator`.
    workers_count
        How many cards: the first that many of the driver's devices, or of `hosts`. ``None``: all there are.
    hosts
        Addresses of hosts, instead of this machine's cards; each is one worker (name one twice for two of its cards).
    executor
        A cluster's executor instead: Dask's (``client.get_executor(resources={"apyfal": 1})``), or `ray` itself. Jobs
        then travel as names and URLs; each worker process opens the accelerator once and keeps it.
    config, token, **definition
        As for `apyfal.Accelerator`, the same for all.

    Raises
    ------
    ConfigurationError, DeviceNotFound
        Nothing to run on.

    Notes
    -----
    A card that is lost is taken out, and the jobs that it had run elsewhere: a job's destination is untouched until the
    job has succeeded. Jobs over file objects are not run again, since those have been read or written in part; they
    raise.
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
        if workers_count is not None and workers_count < 1:
            raise ParameterError(f"workers_count is {workers_count}; expected 1 or more")
        if executor is not None and hosts is not None:
            raise ParameterError("give hosts or executor, not both")
        self._closed = False
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._cards: list[Accelerator] = []
        self.statistics: list[CardStatistics] = []
        self._cluster: Any = None
        if executor is not None:
            from apyfal.cluster import Cluster

            self._cluster = Cluster(executor, accelerator, config, definition)
            self._width = workers_count or 16
            return
        places = self._places(accelerator, config, hosts, workers_count, definition)
        self._width = len(places)
        try:
            for name, keywords in places:
                self._cards.append(
                    Accelerator(accelerator, config, **{**definition, **keywords, **_token(token, hosts)})
                )
                self.statistics.append(CardStatistics(name))
        except BaseException:
            self._stop_cards()
            raise
        for index in range(len(self._cards)):
            for number in range(_THREADS):
                name = f"apyfal-pool-{index}-{number}"
                thread = threading.Thread(target=self._work, args=(index,), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

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
    def process_submit(self, src: object = None, dst: object = None, **keywords: Any) -> Future[Any]:
        """Run one job on the first card that is free; the arguments are those of `Accelerator.process`."""
        with self._lock:
            if self._closed:
                raise ClosedError("the pool was stopped")
            if self._cluster is not None:
                future: Future[Any] = self._cluster.submit(src, dst, keywords)
                return future
            if all(card.error is not None for card in self.statistics):
                raise DeviceLost(f"no card of the pool is left: {self.statistics[0].error}")
            job = _Job(Future(), src, dst, keywords)
            self._jobs.put(job)
            return job.future

    def process_map(
        self,
        srcs: Iterable[object] | None = None,
        dsts: Iterable[object] | None = None,
        *,
        timeout: float | str | None = None,
        info_list: list[dict[str, Any]] | None = None,
        **parameters: object,
    ) -> Iterator[Any]:
        """Run many jobs, on all cards at once; yield their results in order. See `Accelerator.process_map`."""
        ahead = 2 * _THREADS * self._width

        def submit(src: object, dst: object, info: dict[str, Any] | None) -> Future[Any]:
            return self.process_submit(src, dst, timeout=timeout, info_dict=info, **parameters)

        return map_jobs(submit, srcs, dsts, info_list, ahead=lambda: ahead)

    # -- cards --------------------------------------------------------------------------------------------------------
    def _work(self, index: int) -> None:
        """Take jobs until the pool or this card ends: who is free takes the next, so that the load is even."""
        statistics = self.statistics[index]
        while statistics.error is None and (job := self._jobs.get()) is not None:
            if statistics.error is not None:  # taken out while this thread waited: the job is for another card
                self._jobs.put(job)
            elif job.tried or job.future.set_running_or_notify_cancel():
                self._run(index, job)
            del job

    def _run(self, index: int, job: _Job) -> None:
        statistics = self.statistics[index]
        try:
            result = self._cards[index].process(job.src, job.dst, **job.keywords)
        except BaseException as error:
            self._failed(index, job, error)
        else:
            with self._lock:
                statistics.jobs += 1
            job.future.set_result(result)
        finally:
            del job  # the error's frames end here: what its future keeps must not keep the future

    def _failed(self, index: int, job: _Job, error: BaseException) -> None:
        statistics = self.statistics[index]
        broken = self._is_broken(index, error)
        with self._lock:
            statistics.failures += 1
            if broken and statistics.error is None:
                statistics.error = f"{type(error).__name__}: {error}"
            left = any(card.error is None for card in self.statistics) and not self._closed
        job.tried.add(index)
        if broken and left and job.repeatable:
            self._jobs.put(job)
        else:
            job.future.set_exception(error)
        if broken and not left:
            self._fail_waiting(error)

    def _is_broken(self, index: int, error: BaseException) -> bool:
        if isinstance(error, _CARD_ERRORS):
            return True
        if isinstance(error, (RunCancelled, RunTimeout, StoreUnavailable)) or not isinstance(error, DriverError):
            return False  # the job's own: its data, its parameters, its time
        return self._broken_now(index)

    def _broken_now(self, index: int) -> bool:
        """Ask the card itself, when an error could be either's."""
        probe: Callable[..., Any] = self._cards[index].empty
        try:
            probe(1, "u1")
        except AcceleratorException:
            return True
        return False

    def _fail_waiting(self, error: BaseException) -> None:
        """No card is left: nobody will take what waits."""
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:  # `stop` wants the threads to leave
                self._jobs.put(None)
                return
            if job.tried or job.future.set_running_or_notify_cancel():
                job.future.set_exception(DeviceLost(f"no card of the pool is left: {error}"))

    # -- the object ---------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """Drop the jobs that wait, end those at work, close all cards. Stopping twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._cluster is not None:
            self._cluster.stop()
            return
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None and not job.future.cancel():
                job.future.set_exception(ClosedError("the pool was stopped"))
        for _ in self._threads:
            self._jobs.put(None)
        self._stop_cards()
        for thread in self._threads:
            thread.join(5)

    def _stop_cards(self) -> None:
        for card in self._cards:
            card.stop()

    def __enter__(self) -> AcceleratorPoolExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        working = sum(card.error is None for card in self.statistics)
        return f"<apyfal AcceleratorPoolExecutor of {len(self.statistics)} cards, {working} working>"


def _here(device: dict[str, Any]) -> dict[str, Any]:
    return {"host_ip": LOCAL, "device": str(device["index"])}


def _token(token: str | None, hosts: Sequence[str] | None) -> dict[str, Any]:
    return {"token": token} if hosts is not None and token is not None else {}
