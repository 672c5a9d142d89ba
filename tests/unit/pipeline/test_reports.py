"""What kernels with ``output = reported`` report: what cannot be is an error, and not a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.accelerators import model
from apyfal.exceptions import KernelError

VALUES = np.arange(10, dtype=np.int32)


@pytest.fixture(params=["whole", "elements"])
def card(request: pytest.FixtureRequest) -> Iterator[apyfal.Accelerator]:
    @model("reporting", dtype="int32", output="reported", chunking=request.param, replace=True)
    def reporting(
        src: Any, dst: Any, report: Any, skip: Any, consumed: int = 0, produced: int = 0, status: int = 0
    ) -> None:
        dst[: len(src)] = src
        if status != 9:
            report[:] = consumed, produced, status, 0

    with apyfal.Accelerator("reporting") as opened:
        yield opened


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        ((0, 40, 0), "it is done, and 0 bytes consumed of 40"),
        ((20, 20, 0), "it is done, and 20 bytes consumed of 40"),
        ((44, 40, 0), "44 bytes consumed, and had 40"),
        ((40, 44, 0), "44 bytes produced, and had room for 40"),
        ((40, 41, 0), "41 bytes produced, and had room for 40"),
        ((40, 1 << 62, 0), "produced, and had room for 40"),
        ((20, 20, 1), "20 bytes consumed, and had 0"),
        ((40, 40, 1), "40 bytes consumed, and had 0"),
        ((0, 0, 1), "neither reads nor writes any more"),
        ((40, 40, 2), "reported status 2"),
        ((40, 40, 9), "the model has not written its report"),
    ],
)
def test_reports_that_cannot_be(card: apyfal.Accelerator, report: tuple[int, int, int], fault: str) -> None:
    keywords = dict(zip(("consumed", "produced", "status"), report, strict=True))
    np.testing.assert_array_equal(card.process(VALUES, consumed=40, produced=40), VALUES)
    with pytest.raises(KernelError, match=fault):
        card.process(VALUES, timeout=20, **keywords)
    results = card.process_map([VALUES] * 4, timeout=20, **keywords)
    with pytest.raises(KernelError, match=fault):
        next(results)


def test_more_than_fits_does_not_reach_another_job_of_a_batch(card: apyfal.Accelerator) -> None:
    """A report of a job that is no larger than the memory of all of them."""
    good = card.process_map([VALUES] * 8, consumed=40, produced=40)
    assert [len(one) for one in good] == [10] * 8
    for result in (card.process_submit(VALUES, consumed=40, produced=44) for _ in range(8)):
        with pytest.raises(KernelError, match="had room for 40"):
            result.result()


def test_a_full_output_without_skip() -> None:
    @model("without_skip", dtype="int32", output="reported", replace=True)
    def without_skip(src: Any, dst: Any, report: Any) -> None:
        report[:] = 20, 20, 1, 0

    with (
        apyfal.Accelerator("without_skip") as card,
        pytest.raises(KernelError, match="takes no argument 'skip' to go on"),
    ):
        card.process(VALUES, timeout=20)
