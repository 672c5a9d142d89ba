"""`QueuedJob`: a job in the device's queue, which runs after the jobs whose results it uses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from apyfal.device.waiting import cancel
from apyfal.exceptions import AcceleratorException, KernelError, RunTimeout
from apyfal.units import parse_duration

if TYPE_CHECKING:
    from apyfal.device.model_adapter import ModelErrors
    from apyfal.device.sharing.run_queue import Queued
    from apyfal.device.waiting import RunGroup

__all__ = ["QueuedJob"]


class QueuedJob:
    """A job in the device's queue; made by `apyfal.Accelerator.enqueue`. All methods may be called from any thread.

    Parameters
    ----------
    accelerator
        The accelerator's name, for messages.
    runs
        The job's runs, which have been started.
    after
        The jobs whose results the runs use.
    value
        What `result` returns.
    on_end
        Called once, when all runs have ended, with the job, its runs and the error (``None``: no error).
    model_errors
        The exceptions that software models raised.
    """

    def __init__(
        self,
        accelerator: str,
        runs: RunGroup,
        after: Sequence[Queued],
        value: object,
        on_end: Callable[[QueuedJob, RunGroup, BaseException | None], None],
        model_errors: ModelErrors,
    ) -> None:
        self._accelerator = accelerator
        self._lock = threading.Lock()
        self._runs: RunGroup | None = runs
        self._after: Sequence[Queued] = tuple(after)
        self._value: Any = value
        self._on_end = on_end
        self._model_errors = model_errors
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Return, without waiting, whether the job has ended: successfully, with an error, or cancelled."""
        return self.ended()

    def result(self, timeout: float | str | None = None) -> Any:
        """Wait for the job's end, and return its result.

        Parameters
        ----------
        timeout
            Seconds, or text (``"2min"``); ``None``: no limit. After a timeout the job stays in the queue.

        Returns
        -------
        DeviceArray, dict or None
            The same as `apyfal.Accelerator.process`: the destination, or a mapping of several by their names. These are
            the caller's arrays.

        Raises
        ------
        RunTimeout
            The job did not end within `timeout`.
        ParameterError
            `timeout` is not a duration.
        RunCancelled, KernelError, DeviceLost, DriverError
            The job failed; or an earlier job failed whose result it uses, and this is that job's error.
        """
        seconds = None if timeout is None else parse_duration(timeout)
        if not self.ended(seconds):
            raise RunTimeout(
                f"a queued job of accelerator {self._accelerator!r} did not end within {seconds:g} s; it stays queued"
            )
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._value

    def check(self) -> None:
        """Wait for the job's end, and raise its error as `result` does."""
        self.result()

    def cancel(self) -> None:
        """Cancel the job, and wait up to a second for its end.

        `result` then raises `RunCancelled`, here and for jobs that use its result.
        """
        runs = self._runs
        if runs is not None:
            cancel(runs)

    @property
    def over(self) -> bool:
        """Whether the job is known to have ended."""
        return self._runs is None

    def ended(self, timeout: float | None = 0.0) -> bool:
        """Wait up to `timeout` seconds for the job's end, and return whether it has ended."""
        runs, after = self._runs, self._after
        if runs is None:
            return True
        deadline = None if timeout is None else monotonic() + timeout
        error: BaseException | None = None
        try:
            if not runs.ended(timeout):
                return False
        except AcceleratorException as failure:
            error = failure.with_traceback(None)  # the frames of a traceback would keep the runs and their memory alive
        for job in after:  # the device ran them before this job; the first that failed is the cause
            if not job.ended(None if deadline is None else max(deadline - monotonic(), 0.0)):
                return False
            try:
                job.check()
            except AcceleratorException as failure:
                error = failure
                break
        self._end(runs, error)
        return True

    def _end(self, runs: RunGroup, error: BaseException | None) -> None:
        with self._lock:
            if self._runs is None:
                return
            if isinstance(error, KernelError) and (cause := self._model_errors.take(str(error))) is not None:
                error.__cause__ = cause
            self._error = error
            self._on_end(self, runs, error)
            self._after = ()
            self._runs = None  # last, since other threads read this as the job's end

    def __repr__(self) -> str:
        state = "in the queue" if not self.ended() else "ended" if self._error is None else "failed"
        return f"<apyfal QueuedJob of {self._accelerator!r}, {state}>"
