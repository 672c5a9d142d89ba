"""How much of a destination is final while its job still runs, and that nothing final changes afterwards."""

from __future__ import annotations

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import DriverError
from apyfal.pipeline.outputs import watched

MIB = 1 << 20
NBYTES = 40 * MIB + 12345


def _data(nbytes: int = NBYTES) -> np.ndarray:
    return np.random.default_rng(nbytes).integers(0, 256, nbytes, dtype=np.uint8)


def _run(card: apyfal.Accelerator, src: np.ndarray, dst: np.ndarray) -> list[tuple[int, bool]]:
    """Run a job; for each report its bytes, and whether the destination was right up to there."""
    seen: list[tuple[int, bool]] = []

    def produced(nbytes: int) -> None:
        seen.append((nbytes, np.array_equal(dst.reshape(-1).view(np.uint8)[:nbytes], src[:nbytes])))

    with watched(dst, produced):
        assert card.process(src, dst, progress=lambda done, total: None) is dst
    return seen


@pytest.mark.parametrize("kind", ["in place", "copied"])
def test_what_is_reported_is_final(kind):
    src = _data()
    dst = apyfal.empty(NBYTES, np.uint8) if kind == "in place" else np.empty(NBYTES + 1, np.uint8)[1:]
    dst[...] = 0
    with apyfal.Accelerator("loopback") as card:
        seen = _run(card, src, dst)
    reported = [nbytes for nbytes, _ in seen]
    assert len(reported) > 2
    assert reported == sorted(set(reported))
    assert reported[-1] == NBYTES
    assert all(right for _, right in seen)


def test_strided_destinations_and_other_arrays_are_not_reported():
    src, seen = _data(), []
    strided = np.zeros(2 * NBYTES, np.uint8)[::2]
    other = np.zeros(NBYTES, np.uint8)
    with apyfal.Accelerator("loopback") as card, watched(other, seen.append):
        card.process(src, strided)
        card.process(src, apyfal.empty(NBYTES, np.uint8))
        card.process(src)
    assert seen == []


def test_output_that_is_complete_at_the_end_only_is_not_reported():
    seen: list[int] = []
    with apyfal.Accelerator("histogram") as card:
        target = np.zeros(256, np.uint64)
        with watched(target, seen.append):
            card.process(_data(), target)
    assert target.sum() == NBYTES
    assert seen == []


def test_a_failing_run_ends_the_reports_before_its_bytes():
    seen: list[int] = []
    dst = apyfal.empty(NBYTES, np.uint8)
    src, faults = _data(), {"fail_run": 3}
    with apyfal.Accelerator("loopback", emulator=faults) as card, watched(dst, seen.append), pytest.raises(DriverError):
        card.process(src, dst)
    assert len(seen) <= 2
    assert all(nbytes < NBYTES for nbytes in seen)


def test_what_produced_raises_fails_the_job():
    def produced(nbytes: int) -> None:
        raise ZeroDivisionError

    dst = apyfal.empty(NBYTES, np.uint8)
    with apyfal.Accelerator("loopback") as card:
        with watched(dst, produced), pytest.raises(ZeroDivisionError):
            card.process(_data(), dst)
        card.process(_data(), dst)  # not watched any more
