"""What a software model does not write is zero, whatever memory the output has; what it reads it reads as given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import ConfigurationError


def _bins(src: np.ndarray, dst: np.ndarray) -> None:
    np.add.at(dst, src, 1)


def _even(src: np.ndarray, dst: np.ndarray) -> None:
    dst[::2] = src[::2]


def _add(src: np.ndarray, dst: np.ndarray) -> None:
    dst += src


@pytest.mark.parametrize("target", ["new", "used", "pinned"])
@pytest.mark.parametrize(
    ("model", "settings", "expected"),
    [
        (_bins, {"in_dtype": "uint8", "out_dtype": "uint32", "output": 1024}, [100] * 10 + [0] * 246),
        (_even, {"dtype": "uint8"}, [0, 0, 2, 0, 4, 0, 6, 0, 8, 0] * 100),
        (_add, {"dtype": "uint8"}, list(range(10)) * 100),
    ],
)
def test_outputs_begin_at_zero(model: Any, settings: dict[str, Any], expected: list[int], target: str) -> None:
    name = f"cleared{model.__name__}"
    apyfal.accelerators.model(name, replace=True, **settings)(model)
    data = np.tile(np.arange(10, dtype=np.uint8), 100)
    dtype = settings.get("out_dtype", "uint8")
    with apyfal.Accelerator(name) as accelerator:
        for _ in range(3):
            dst = None
            if target != "new":
                dst = apyfal.empty(len(expected), dtype) if target == "pinned" else np.empty(len(expected), dtype)
                dst[...] = 7
            result = accelerator.process(data, dst)
            np.testing.assert_array_equal(result if dst is None else dst, expected)


def test_a_job_in_place_keeps_its_input() -> None:
    apyfal.accelerators.model("cleared_add", dtype="uint8", replace=True)(_add)
    data = apyfal.empty(1000, "uint8")
    data[...] = 3
    with apyfal.Accelerator("cleared_add") as accelerator:
        accelerator.process(data, data)
    assert set(data.tolist()) <= {3, 6}


@pytest.mark.parametrize("size", [6, 12288, 12300])
def test_a_third_of_the_input(size: int) -> None:
    """A factor that a page has no whole number of elements for."""

    @apyfal.accelerators.model("cleared_third", dtype="float32", output="1/3x", chunking="whole", replace=True)
    def third(src: np.ndarray, dst: np.ndarray) -> None:
        dst[:] = src[::3]

    data = np.arange(size, dtype=np.float32)
    with apyfal.Accelerator("cleared_third") as accelerator:
        np.testing.assert_array_equal(accelerator.process(data), data[::3])


def test_clear_outputs_is_a_truth_value() -> None:
    with pytest.raises(ConfigurationError, match="clear_outputs"):
        apyfal.Accelerator("loopback", clear_outputs="maybe")
