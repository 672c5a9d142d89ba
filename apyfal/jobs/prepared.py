"""`PreparedJob`: a job that is decided once and run many times."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from copy import copy
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from apyfal.exceptions import ForkedProcess, ParameterError, RunTimeout
from apyfal.pipeline.arrays import each_of
from apyfal.pipeline.reports.job_report import JobReport, reported
from apyfal.storage.url import is_file_object
from apyfal.units import parse_duration

if TYPE_CHECKING:
    from apyfal.jobs.data_types import Parameter

__all__ = ["Direct", "PreparedJob"]


class Direct(Protocol):
    """The fast path of a job that a local device runs over the caller's arrays."""

    def __call__(self, info: dict[str, Any] | None, deadline: float | None, changes: dict[str, object]) -> Any:
        """Run it, and return its result.

        Parameters
        ----------
        info
            Receives the job's report; ``None``: no report.
        deadline
            Time of `time.monotonic`; ``None``: the accelerator's default.
        changes
            Parameters that have other values in this run.
        """


class _Owner(Protocol):
    _starts: int


class PreparedJob:
    """A job with its arrays and parameters, made by ``prepare`` of an accelerator or a pool. Call it to run it.

    Parameters
    ----------
    owner
        The accelerator or pool.
    process, submit
        The accelerator's functions, which run the job if there is no fast path, and in the background.
    src, dst
        Source and destination of its data.
    keywords
        Parameters of the accelerator, and keywords of `process`, for every run.
    direct
        The fast path; ``None``: use `process`.

    Attributes
    ----------
    src, dst, parameters
        As they were given to ``prepare``.

    Notes
    -----
    The job keeps its arrays alive, but they are the caller's: write new data to `src` before a call, and read `dst`
    after it. Their memory must stay where it is: resizing them is refused by numpy and by `apyfal.Buffer` as long as
    the job is referenced. Every run begins with the parameters of ``prepare``. After another `start` of the accelerator
    the job is refused: prepare a new one.

    Calls may come from any thread. They run one after the other, because they share `dst`: copy the result before
    another thread calls the job again, or prepare a job for each thread. When the accelerator is stopped, calls raise
    `ClosedError`; in a forked child, `ForkedProcess`.
    """

    def __init__(
        self,
        owner: _Owner,
        process: Callable[..., Any],
        submit: Callable[[PreparedJob, dict[str, Any]], Future[Any]],
        src: object,
        dst: object,
        keywords: Mapping[str, Any],
        direct: Direct | None = None,
    ) -> None:
        for side, value in (("src", src), ("dst", dst)):
            for _, one in each_of(value):
                if is_file_object(one):
                    raise ParameterError(
                        f"{side}: a prepared job runs many times, and a file object is read or written once; "
                        "expected an array, a URL or a path"
                    )
        self.src = src
        self.dst = dst
        self.parameters: Mapping[str, Any] = dict(keywords)
        self._owner = owner
        self._starts = owner._starts
        self._process = process
        self._submit = submit
        self._direct = direct
        self._run = None if direct is None else direct.__call__  # calling a method is faster than calling an object
        lock = threading.Lock()
        self._acquire, self._release, self._locked = lock.acquire, lock.release, lock.locked
        self._process_id = os.getpid()

    @overload
    def __call__(
        self,
        *,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        report: Literal[True],
        **parameters: Parameter,
    ) -> JobReport: ...

    @overload
    def __call__(
        self,
        *,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        report: bool = False,
        **parameters: Parameter,
    ) -> Any: ...

    def __call__(
        self,
        *,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        report: bool = False,
        **parameters: Any,
    ) -> Any:
        """Run the job now.

        Parameters
        ----------
        info_dict, timeout, report
            As for `apyfal.Accelerator.process`. The timeout includes the time that this waits for other calls.
        **parameters
            Parameters of the accelerator with other values in this run alone.

        Returns
        -------
        ndarray, dict or None
            As `apyfal.Accelerator.process`: `dst` itself if that is an array.
        JobReport
            With ``report=True``.

        Raises
        ------
        ParameterError
            A parameter is unknown, or its value is wrong. The job did not run, and can be called again.
        ClosedError, ForkedProcess
            The accelerator was stopped, or this is a forked child.
        CopyRefused, RunTimeout, RunCancelled, KernelError, DeviceLost, StorageError
            The contents of an array `dst` are undefined. Unless the device was lost, the job can be called again.
        """
        if report:
            return reported(self, report, info_dict, timeout=timeout, **parameters)
        deadline = None
        if timeout is not None:
            deadline = monotonic() + parse_duration(timeout)
        if self._owner._starts != self._starts:
            raise ParameterError("the accelerator was started again after this job was prepared; expected a new job")
        if deadline is None and not self._locked():
            self._acquire()  # without arguments: passing one costs a tenth of a small job
        elif not self._acquire(False):
            self._wait(deadline)
        try:
            if self._run is not None:
                return self._run(info_dict, deadline, parameters)
            keywords = {**self.parameters, **parameters}
            if deadline is not None:
                keywords["timeout"] = max(deadline - monotonic(), 0.0)
            return self._process(self.src, self.dst, info_dict=info_dict, **keywords)
        finally:
            self._release()

    def run_by(self, process: Callable[..., Any], **keywords: Any) -> Any:
        """Run the job by the `process` of one device of a pool; the other arguments are those of a call."""
        one = copy(self)  # with the same lock as other calls
        one._process = process
        return one(**keywords)

    def _wait(self, deadline: float | None) -> None:
        if os.getpid() != self._process_id:  # the thread that runs it does not exist here
            raise ForkedProcess("a prepared job was running when this process was forked; prepare one in the child")
        left = -1.0 if deadline is None else max(deadline - monotonic(), 0.0)
        if not self._acquire(timeout=left):
            raise RunTimeout("other calls of this prepared job did not end within the timeout")

    def submit(self, **keywords: Any) -> Future[Any]:
        """Run the job in the background; the arguments are those of a call.

        Returns
        -------
        concurrent.futures.Future
            Of the result. Cancelling it before the run has started drops the run. Several runs that were submitted run
            one after the other, in any order.
        """
        return self._submit(self, keywords)
