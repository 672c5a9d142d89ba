"""The base class of accelerators and pools: background jobs, many jobs at once, and the ``with`` block."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from apyfal.jobs.ordered_map import CountedResults, Pairs
from apyfal.pipeline.reports.job_report import JobReport

if TYPE_CHECKING:
    from apyfal.jobs.data_types import JobData

__all__ = ["JobRunner", "Submitter"]

_ENTERING = threading.Lock()

_Self = TypeVar("_Self", bound="JobRunner")


class Submitter(Protocol):
    """Takes jobs, and runs them in the background."""

    def submit(self, src: object, dst: object, keywords: dict[str, Any]) -> Future[Any]:
        """Run one job; the arguments are those of ``process``."""
        ...

    def map(self, pairs: Pairs, info_list: list[dict[str, Any]] | None, keywords: dict[str, Any]) -> Iterator[Any]:
        """Run many jobs; return an iterator over their results, in order."""
        ...


class JobRunner(ABC):
    """Runs jobs: an accelerator on this machine or another one, or a pool of several."""

    #: Number of ``with`` blocks that have not ended.
    _entered = 0

    @property
    @abstractmethod
    def _submitter(self) -> Submitter:
        """What runs its jobs in the background."""

    @abstractmethod
    def _check_open(self) -> None:
        """Raise `ClosedError` if it was stopped."""

    @abstractmethod
    def _wait(self) -> None:
        """Wait until the submitted jobs have ended; refuse new ones."""

    @abstractmethod
    def stop(self) -> None:
        """Cancel jobs, and close it. It can be called again."""

    @overload
    def process_submit(
        self, src: JobData = None, dst: JobData = None, *, report: Literal[True], **keywords: Any
    ) -> Future[JobReport]: ...

    @overload
    def process_submit(self, src: JobData = None, dst: JobData = None, **keywords: Any) -> Future[Any]: ...

    def process_submit(self, src: object = None, dst: object = None, **keywords: Any) -> Future[Any]:
        """Run one job in the background; the arguments are those of `process`.

        Returns
        -------
        concurrent.futures.Future
            Its result is what `process` returns; with ``report=True``, a `JobReport`. If it is cancelled before the job
            has started, the job does not run.
        """
        self._check_open()
        return self._submitter.submit(src, dst, keywords)

    @overload
    def process_map(
        self,
        srcs: Iterable[JobData] | None = None,
        dsts: Iterable[JobData] | None = None,
        *,
        timeout: float | str | None = None,
        info_list: list[dict[str, Any]] | None = None,
        progress: Callable[[int, int | None], None] | None = None,
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
        progress: Callable[[int, int | None], None] | None = None,
        **parameters: Any,
    ) -> Iterator[Any]: ...

    def process_map(
        self,
        srcs: Iterable[object] | None = None,
        dsts: Iterable[object] | None = None,
        *,
        timeout: float | str | None = None,
        info_list: list[dict[str, Any]] | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        **parameters: object,
    ) -> Iterator[Any]:
        """Run many jobs, several at once; return an iterator over their results, in order.

        The jobs start now: all of them, if each has a destination and both lengths are known; otherwise the first ones,
        and more while the results are read. Leaving the iteration early cancels the jobs that have not started.

        Parameters
        ----------
        srcs, dsts
            A source and a destination for each job, as `process` takes them; ``None``: no job has one.
        timeout
            Seconds for each job.
        info_list
            Receives one ``info_dict`` for each job, in order.
        progress
            Called in the thread that reads the results, with the number of results read and the number of all jobs
            (``None``: not known). `apyfal.ProgressBar(unit="jobs")` shows it.
        **parameters
            The accelerator's parameters, and keywords of `process`, for all jobs.

        Raises
        ------
        ParameterError
            `srcs` and `dsts` differ in length. If they do not state their lengths, the iterator raises it.
        """
        self._check_open()
        keywords = parameters if timeout is None else {**parameters, "timeout": timeout}
        pairs = Pairs(srcs, dsts)
        results = self._submitter.map(pairs, info_list, keywords)
        return results if progress is None else CountedResults(results, pairs.count, progress)

    def __enter__(self: _Self) -> _Self:
        self._check_open()
        with _ENTERING:
            self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the submitted jobs, or cancel them if the block raised; then close what runs them.

        The end of a block inside another one of the same object does nothing.
        """
        with _ENTERING:
            self._entered -= 1
            if self._entered > 0:
                return
        try:
            if kind is None:
                self._wait()
        finally:
            self.stop()
