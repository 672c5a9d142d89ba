"""Prepared jobs that a local device runs over the caller's arrays: registered, with a deadline, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from apyfal.device.control import JobControl
from apyfal.pipeline.report import Report

if TYPE_CHECKING:
    from apyfal.pipeline.direct import DirectJob

__all__ = ["DirectRuns"]


class DirectRuns:
    """The short way of a prepared job; see `apyfal.jobs.prepared.Direct`. Not for several threads at once.

    Parameters
    ----------
    job
        What is run.
    active
        The accelerator's jobs in flight, which its `stop` fails.
    check_open
        Raises `ClosedError` if the accelerator was stopped.
    process
        Runs the job with other parameters, which are more than arguments of the kernel.
    parameters
        All parameters that were given for the job.
    timeout
        Seconds for each run; ``None``: no limit.
    """

    def __init__(
        self,
        job: DirectJob,
        active: set[JobControl],
        check_open: Callable[[], None],
        process: Callable[..., Any],
        parameters: Mapping[str, object],
        timeout: float | None,
    ) -> None:
        self._job = job
        self._active = active
        self._check_open = check_open
        self._process = process
        self._parameters = parameters
        self._timeout = timeout
        self._control = JobControl()

    def __call__(self, info: dict[str, Any] | None, deadline: float | None, changes: dict[str, object]) -> Any:
        """Run the job; see `apyfal.jobs.prepared.Direct`."""
        job, control = self._job, self._control
        scalars = job.scalars_of(changes) if changes else ()
        if scalars is None:
            timeout = self._timeout if deadline is None else max(deadline - monotonic(), 0.0)
            return self._process(info_dict=info, timeout=timeout, **{**self._parameters, **changes})
        if deadline is None and self._timeout is not None:
            deadline = monotonic() + self._timeout
        control.deadline = deadline
        report = None if info is None else Report()
        self._active.add(control)
        try:
            self._check_open()  # after it was registered: a stop that does not see it has closed the accelerator
            job.run_again(control, report, scalars)
        finally:
            self._active.discard(control)
            if report is not None and info is not None:
                report.run_details = list(control.run_details)
                job.fill(report, info)
            control.run_details.clear()
        return job.result()
