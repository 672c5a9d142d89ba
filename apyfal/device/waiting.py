"""Waiting for runs while the rest of a job may fail."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from apyfal.device.control import Aborted
from apyfal.exceptions import AcceleratorException, RunTimeout

if TYPE_CHECKING:
    from apyfal._core.run import Run
    from apyfal.device.control import JobControl

__all__ = ["GRACE", "LOOK", "cancel", "wait"]

#: Seconds between looks at the rest of the job while a run is waited for.
LOOK = 0.05
#: Seconds that a cancelled run gets to end, and threads to leave, before the job returns without them.
GRACE = 1.0


def wait(run: Run, control: JobControl) -> None:
    """Wait for a run, looking at the deadline and at the other stages; a run that is not wanted any more is cancelled.

    Raises
    ------
    Aborted
        The job has failed elsewhere.
    RunTimeout
        Its deadline has passed.
    AcceleratorException
        What the run ended with.
    """
    while not _ended(run, control):
        try:
            if control.failed:
                raise Aborted
            control.seconds_left()
        except (Aborted, RunTimeout):
            cancel(run)
            raise


def _ended(run: Run, control: JobControl) -> bool:
    left = None if control.deadline is None else control.deadline - monotonic()
    try:
        run.wait(LOOK if left is None or left > LOOK else max(left, 0.0))
    except RunTimeout:
        return False
    return True


def cancel(run: Run) -> None:
    """Ask a run to end, and give it a moment; what it ends with is no news."""
    try:
        run.cancel()
        run.wait(GRACE)
    except AcceleratorException:
        pass
