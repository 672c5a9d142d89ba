"""`AcceleratorPoolExecutor`: one job list over several cards, hosts, or the workers of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from apyfal.accelerator import LOCAL, Accelerator
from apyfal.accelerators import resolve
from apyfal.attempts import Attempt, PooledTask
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
from apyfal.jobs.ordered_map import LightFuture, map_tickets
from apyfal.jobs.queue import TaskQueue
from apyfal.jobs.submitter import run_each

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from apyfal.cluster import Cluster
    from apyfal.config.configuration import ConfigSource
    from apyfal.jobs.submitter import JobSubmitter

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
        self._line = TaskQueue(self._together)
        self._threads: list[threading.Thread] = []
        self._cards: list[Accelerator] = []
        self.statistics: list[CardStatistics] = []
        self._cluster: Cluster | None = None
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
        if self._cluster is not None:
            self._check_open()
            return self._cluster.submit(src, dst, keywords)
        future: Future[Any] = Future()
        self._put(PooledTask(future, src, dst, keywords, self._kinds(keywords)(src, dst)))
        return future

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
        self._check_open()
        keywords = parameters if timeout is None else {**parameters, "timeout": timeout}
        if self._cluster is not None:
            return self._cluster.map(srcs, dsts, info_list, keywords, self._width)
        kinds = self._kinds(keywords)

        def put(ticket: LightFuture, src: object, dst: object, own: dict[str, Any]) -> None:
            self._put(PooledTask(ticket, src, dst, own, kinds(src, dst)))

        ahead = 2 * _THREADS * self._width
        return map_tickets(put, srcs, dsts, info_list, keywords, ahead=lambda: ahead * self._size())

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the pool was stopped")

    def _put(self, job: PooledTask) -> None:
        with self._lock:
            self._check_open()
            if all(card.error is not None for card in self.statistics):
                raise DeviceLost(f"no card of the pool is left: {self.statistics[0].error}")
            self._line.put(job)

    # -- small jobs, which travel together where the cards are this machine's -----------------------------------------
    def _backgrounds(self) -> list[JobSubmitter]:
        """Of the cards that work; none where they are other machines'."""
        return [
            card._background
            for card, statistics in zip(self._cards, self.statistics, strict=True)
            if statistics.error is None and isinstance(card, Accelerator)
        ]

    def _kinds(self, keywords: dict[str, Any]) -> Callable[[object, object], Hashable]:
        backgrounds = self._backgrounds()
        return backgrounds[0].kinds(keywords) if backgrounds else lambda src, dst: None

    def _size(self) -> int:
        return max((background.size() for background in self._backgrounds()), default=1)

    def _together(self, waiting: int) -> int:
        """Return how many of those that wait one thread may take: no more than leaves the others their share."""
        return max(min(self._size(), waiting // (_THREADS * self._width)), 1)

    # -- cards --------------------------------------------------------------------------------------------------------
    def _work(self, index: int) -> None:
        """Take jobs until the pool or this card ends: who is free takes the next, so that the load is even."""
        statistics = self.statistics[index]
        while statistics.error is None and (tasks := self._line.take()):
            jobs = [task for task in tasks if isinstance(task, PooledTask)]
            if statistics.error is not None:  # taken out while this thread waited: the jobs are for another card
                for job in jobs:
                    self._again(job)
            else:
                self._run(index, [job for job in jobs if job.tried or job.given.set_running_or_notify_cancel()])
            del tasks, jobs

    def _run(self, index: int, jobs: list[PooledTask]) -> None:
        succeeded, failed = partial(self._succeeded, index), partial(self._failed, index)
        for job in jobs:
            job.future = Attempt(job, succeeded, failed)
        card = self._cards[index]
        if len(jobs) > 1:
            card._background.run([*jobs])
        else:
            run_each(card.process, jobs)

    def _succeeded(self, index: int, job: PooledTask, result: Any) -> None:
        with self._lock:
            self.statistics[index].jobs += 1
        job.given.set_result(result)

    def _failed(self, index: int, job: PooledTask, error: BaseException) -> None:
        statistics = self.statistics[index]
        broken = self._is_broken(index, error)
        with self._lock:
            statistics.failures += 1
            if broken and statistics.error is None:
                statistics.error = f"{type(error).__name__}: {error}"
            left = any(card.error is None for card in self.statistics) and not self._closed
        job.tried = True
        if broken and left and job.repeatable:
            self._again(job)
        else:
            job.given.set_exception(error)
        if broken and not left:
            self._fail_waiting(error)

    def _again(self, job: PooledTask) -> None:
        """Let another card take a job."""
        try:
            self._line.put(job)
        except ClosedError as error:
            if not job.given.cancel():
                job.given.set_exception(error)

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
        for job in self._line.clear():
            if isinstance(job, PooledTask) and (job.tried or job.given.set_running_or_notify_cancel()):
                job.given.set_exception(DeviceLost(f"no card of the pool is left: {error}"))

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
        for job in self._line.stop():
            if isinstance(job, PooledTask) and not job.given.cancel():
                job.given.set_exception(ClosedError("the pool was stopped"))
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
