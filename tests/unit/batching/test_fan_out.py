"""Small work side by side: as many threads as its waiting is worth, and an end when the job ends."""

from __future__ import annotations

import threading
import time

import pytest

from apyfal.batching.fan_out import FanOut
from apyfal.device.control import Aborted, JobControl
from apyfal.exceptions import RunTimeout
from apyfal.storage.flow.cancel import current_cancel


def test_what_does_not_wait_is_done_by_the_caller() -> None:
    spread, done = FanOut(8), []
    spread(lambda item: done.append((item, threading.current_thread())), [1, 2, 3], JobControl())
    assert done == [(item, threading.main_thread()) for item in (1, 2, 3)]
    assert spread.width == 1


def test_what_waits_is_done_side_by_side_from_the_next_time_on() -> None:
    spread, control = FanOut(4), JobControl()
    spread(lambda item: time.sleep(0.01), [1, 2], control)
    assert spread.width == 4
    meeting = threading.Barrier(4)
    spread(lambda item: meeting.wait(10) and None, range(4), control)  # nobody leaves before all four are there
    spread(lambda item: None, range(100), control)
    assert spread.width == 1


@pytest.mark.parametrize("width", [1, 3])
def test_a_failure_elsewhere_cancels_what_is_under_way(width: int) -> None:
    spread, control, begun = FanOut(8), JobControl(), []
    spread.width = width

    def work(item: int) -> None:
        begun.append(item)
        cancel = current_cancel()
        assert cancel is not None
        assert cancel.wait(10), "it was cancelled"

    threading.Timer(0.05, control.fail, [ValueError("elsewhere")]).start()
    with pytest.raises(Aborted):
        spread(work, range(10), control)
    assert len(begun) == width


def test_a_deadline_holds_for_one_thread_too() -> None:
    control = JobControl(time.monotonic() + 0.1)

    def work(item: int) -> None:
        cancel = current_cancel()
        assert cancel is not None
        cancel.wait(10)

    with pytest.raises(RunTimeout):
        FanOut(8)(work, range(3), control)
