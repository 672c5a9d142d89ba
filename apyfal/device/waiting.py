"""Wait for runs, and end the wait if the rest of the job fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

from apyfal.device.control import Aborted
from apyfal.exceptions import AcceleratorException, RunTimeout

if TYPE_CHECKING:
    from apyfal._core.run import Run
    from apyfal.device.control import JobControl

__all__ = ["GRACE_SECONDS", "POLL_SECONDS", "RunGroup", "Waitable", "cancel", "collect_cancelled", "wait"]

#: Seconds between two checks of the rest of the job, while a run is awaited.
POLL_SECONDS = 0.05
#: Seconds that a cancelled run has to end, and a thread to leave, before the job returns without it.
GRACE_SECONDS = 1.0

_lock = threading.Lock()


class Waitable(Protocol):
    """A run, or several that end together."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for the results; `RunTimeout` if it has not ended then."""

    def cancel(self) -> None:
        """Ask it to end."""


_unfinished: list[Waitable] = []


class RunGroup:
    """Runs that were started one after another, each on the results of the one before: it has ended when all have.

    Parameters
    ----------
    runs
        In the order of their starts.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the results of the last run are on the host side.

        Raises
        ------
        RunTimeout
            They have not ended within `timeout` seconds.
        AcceleratorException
            The error of the first run that failed: the later ones had no valid input.
        """
        failed = False
        try:
            self.runs[-1].wait(timeout)
        except RunTimeout:
            raise
        except AcceleratorException:
            failed = True  # not kept: it would keep this frame alive, and with it the runs
        for run in self.runs[:-1]:  # they have ended; or the last one was cancelled before it began
            run.wait(timeout)
        if failed:
            self.runs[-1].wait(timeout)  # raises it again

    def ended(self, timeout: float | None = 0.0) -> bool:
        """Wait up to `timeout` seconds, and return whether all runs have ended; raise as `wait` does."""
        failed = False
        try:
            if not self.runs[-1].ended(timeout):
                return False
        except AcceleratorException:
            failed = True  # see `wait`
        for run in self.runs[:-1]:
            if not run.ended(timeout):
                return False
        if failed:
            self.runs[-1].ended(timeout)
        return True

    def cancel(self) -> None:
        """Ask all runs to end, the last one first."""
        for run in self.runs[:0:-1]:
            with suppress(AcceleratorException):  # if one cannot be cancelled, none can
                run.cancel()
        self.runs[0].cancel()


def wait(run: Waitable, control: JobControl) -> None:
    """Wait until a run ends. If the job fails or its deadline passes meanwhile, cancel the run.

    Raises
    ------
    Aborted
        Another stage of the job has failed.
    RunTimeout
        The job's deadline has passed.
    AcceleratorException
        The run failed.
    """
    while not _ended(run, control):
        try:
            if control.failed:
                raise Aborted
            control.seconds_left()
        except (Aborted, RunTimeout):
            cancel(run)
            raise
    for one in run.runs if isinstance(run, RunGroup) else (cast("Run", run),):
        if (details := one.details) is not None:
            control.run_details.append(details)


def _ended(run: Waitable, control: JobControl) -> bool:
    left = None if control.deadline is None else control.deadline - monotonic()
    try:
        run.wait(POLL_SECONDS if left is None or left > POLL_SECONDS else max(left, 0.0))
    except RunTimeout:
        return False
    return True


def cancel(run: Waitable) -> None:
    """Cancel a run and wait up to `GRACE_SECONDS` for its end. Its error, if any, is ignored.

    A run that has not ended by then is kept for `collect_cancelled`: it counts as in flight until its end is awaited.
    """
    try:
        run.cancel()
        run.wait(GRACE_SECONDS)
    except RunTimeout:
        with _lock:
            _unfinished.append(run)
    except AcceleratorException:
        pass


def collect_cancelled() -> None:
    """Release cancelled runs that have ended meanwhile, without waiting for others."""
    with _lock:
        _unfinished[:] = [run for run in _unfinished if not _has_ended(run)]


def _has_ended(run: Waitable) -> bool:
    try:
        run.wait(0)
    except RunTimeout:
        return False
    except AcceleratorException:
        pass
    return True
