"""Prepared jobs that a local device runs over the caller's arrays: only registration, deadline and the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from apyfal.device.control import JobControl
from apyfal.pipeline.reports.report import Report

if TYPE_CHECKING:
    from apyfal.definition.bound_call import BoundArgument
    from apyfal.pipeline.direct import PlacedCall

__all__ = ["DirectRuns"]


class _Accelerator(Protocol):
    _active: set[JobControl]
    _closed: bool
    _starts: int

    def _check_open(self) -> None: ...


class DirectRuns:
    """The fast path of a prepared job; see `apyfal.jobs.prepared.Direct`. Not for several threads at once.

    Parameters
    ----------
    call
        What is run, over the job's arrays.
    accelerator
        Where it runs. The jobs in flight, `_active`, are those that its `stop` fails.
    process
        Runs the job if parameters change that are more than arguments of the kernel.
    parameters
        All parameters that were given for the job.
    timeout
        Seconds for each run; ``None``: no limit.
    starts
        How often the accelerator had been started when `parameters` were decided.
    """

    def __init__(
        self,
        call: PlacedCall,
        accelerator: _Accelerator,
        process: Callable[..., Any],
        parameters: Mapping[str, object],
        timeout: float | None,
        starts: int,
    ) -> None:
        self._call = call
        self._accelerator = accelerator
        self._begins = accelerator._active.add
        self._ends = accelerator._active.discard
        self._process = process
        self._parameters = parameters
        self._timeout = timeout
        self._control = JobControl()
        self._starts = starts

    def __call__(self, info: dict[str, Any] | None, deadline: float | None, changes: dict[str, object]) -> Any:
        """Run the job; see `apyfal.jobs.prepared.Direct`."""
        call, control = self._call, self._control
        scalars: Sequence[tuple[int, BoundArgument]] = ()
        if changes:
            changed = call.scalars_of(changes)
            if changed is None:
                timeout = self._timeout if deadline is None else max(deadline - monotonic(), 0.0)
                return self._process(info_dict=info, timeout=timeout, **{**self._parameters, **changes})
            scalars = changed
        if deadline is None and self._timeout is not None:
            deadline = monotonic() + self._timeout
        control.deadline = deadline
        report = None if info is None else Report()
        self._begins(control)
        try:
            if self._accelerator._closed:  # after the registration: a `stop` that missed it has closed this
                self._accelerator._check_open()
            call.run_again(control, report, scalars)
        finally:
            self._ends(control)
            if control.run_details or report is not None:
                self._record(report, info)
        return call.result() if call.value is None else call.value

    @property
    def is_current(self) -> bool:
        """Return whether the accelerator was not started again, with other parameters or data, since this was made."""
        return self._accelerator._starts == self._starts

    def make_ready(self) -> bool:
        """Return whether `begin` can be called: whether nothing has to be done before a run."""
        return self._call.make_ready()

    def begin(self, seconds: float) -> Callable[[], None] | None:
        """Start the job once, and wait up to `seconds` for its end; see `apyfal.pipeline.direct.PlacedCall.begin`."""
        control, timeout = self._control, self._timeout
        if timeout is not None:
            control.deadline = monotonic() + timeout
            seconds = min(seconds, timeout)
        self._begins(control)
        try:
            if self._accelerator._closed:
                self._accelerator._check_open()
            rest = self._call.begin(control, seconds)
        except BaseException:
            self._ends(control)
            raise
        if rest is None:
            self._ends(control)
            return None
        return partial(self._finish, rest)

    def _finish(self, rest: Callable[[], None]) -> None:
        try:
            rest()
        finally:
            self._ends(self._control)
            self._control.run_details = []

    def _record(self, report: Report | None, info: dict[str, Any] | None) -> None:
        details, self._control.run_details = self._control.run_details, []
        if report is not None and info is not None:
            report.run_details = details
            self._call.fill(report, info)
