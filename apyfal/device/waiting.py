"""Wait for runs, and end the wait if the rest of the job fails."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

from apyfal.device.control import Aborted
from apyfal.exceptions import AcceleratorException, RunTimeout

if TYPE_CHECKING:
    from apyfal._core.run import Run
    from apyfal.device.control import JobControl

__all__ = ["GRACE_SECONDS", "POLL_SECONDS", "cancel", "collect_cancelled", "wait"]

#: Interval at which a wait for a run checks the rest of the job.
POLL_SECONDS = 0.05
#: Time that a cancelled run has to end, and a thread to leave, before the job returns without it.
GRACE_SECONDS = 1.0

_lock = threading.Lock()
_unfinished: list[Run] = []


def wait(run: Run, control: JobControl) -> None:
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
    if (details := run.details) is not None:
        control.run_details.append(details)


def _ended(run: Run, control: JobControl) -> bool:
    left = None if control.deadline is None else control.deadline - monotonic()
    try:
        run.wait(POLL_SECONDS if left is None or left > POLL_SECONDS else max(left, 0.0))
    except RunTimeout:
        return False
    return True


def cancel(run: Run) -> None:
    """Cancel a run and wait up to `GRACE_SECONDS` for its end. Its error, if any, is ignored.

    A run that has not ended then is kept for `collect_cancelled`: it counts as in flight until somebody waits for it.
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
    """Let go of cancelled runs that have ended meanwhile, without waiting for others."""
    with _lock:
        _unfinished[:] = [run for run in _unfinished if not _has_ended(run)]


def _has_ended(run: Run) -> bool:
    try:
        run.wait(0)
    except RunTimeout:
        return False
    except AcceleratorException:
        pass
    return True
