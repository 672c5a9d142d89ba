"""What Python models return: their result belongs into ``dst``, and a returned one is not lost in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import KernelError


def model(function: Any) -> Any:
    return apyfal.accelerators.model("returns-test", dtype="int32", replace=True)(function)


async def _later() -> None: ...


def _doubled(src: Any, dst: Any) -> Any:
    return src * 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_doubled, r"returned an array, which is lost; expected it to write into its output: dst\[:\] = "),
        (lambda src, dst: (yield), "returned a generator, of which nothing ran"),
        (lambda src, dst: _later(), "returned a coroutine, of which nothing ran"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_results_that_would_be_lost(function: Any, message: str) -> None:
    data = np.arange(8, dtype=np.int32)
    model(lambda src, dst: function(src, dst))
    with apyfal.Accelerator("returns-test") as card:
        for run in (card.process, lambda src: card.prepare(src)(), lambda src: card.process_submit(src).result()):
            with pytest.raises(KernelError, match=message):
                run(data)


@pytest.mark.parametrize(
    "function",
    [
        lambda src, dst: np.multiply(src, 2, out=dst),
        lambda src, dst: np.multiply(src, 2, out=dst)[:3],
        lambda src, dst: np.multiply(src, 2, out=dst) is dst,
        lambda src, dst: np.multiply(src, 2, out=dst).nbytes,
    ],
)
def test_other_values_are_ignored(function: Any) -> None:
    data = np.arange(8, dtype=np.int32)
    model(function)
    with apyfal.Accelerator("returns-test") as card:
        assert np.array_equal(card.process(data), data * 2)
