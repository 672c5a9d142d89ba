"""Reference accelerators: the same name and the same result in Verilog and as a model of the software card."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import ConfigurationError, KernelError, ParameterError

pytestmark = pytest.mark.vendor  # it needs Verilator and a C++ compiler


@pytest.fixture(scope="module")
def histogram() -> Iterator[apyfal.Accelerator]:
    with apyfal.Accelerator("histogram", driver="rtl", rtl={"optimize": 1}) as card:
        yield card


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize(
    ("bins", "edges"),
    [(256, None), (1, None), (4096, None), (16, (0, 64)), (64, (-32, 32)), (8, (3, 7)), (128, (100, 108))],
)
def test_histograms_are_numpys(
    histogram: apyfal.Accelerator, dtype: str, bins: int, edges: tuple[int, int] | None
) -> None:
    limits = np.iinfo(dtype)
    random = np.random.default_rng(bins)
    wide = random.integers(limits.min, limits.max, 900, dtype=dtype, endpoint=True)
    near = random.integers(max(limits.min, -40), 110, 437).astype(dtype)
    values = np.concatenate([wide, near, np.array([limits.min, limits.max], dtype)])
    low, high = edges or (limits.min, int(limits.max) + 1)
    expected = np.histogram(values, bins, range=(float(low), float(high)))[0]
    result = histogram.process(values, bins=bins, range=edges)
    np.testing.assert_array_equal(result, expected)
    with apyfal.Accelerator("histogram") as software:
        np.testing.assert_array_equal(result, software.process(values, bins=bins, range=edges))


@pytest.mark.parametrize("name", ["scale", "histogram"])
@pytest.mark.parametrize("count", [1, 2, 77, 5000])
def test_opencl_and_verilog_agree(name: str, count: int) -> None:
    values = np.random.default_rng(count).integers(-(1 << 31), 1 << 31, count).astype("int32")
    parameters: dict[str, object] = {"a": 3, "b": -7} if name == "scale" else {"bins": 16}
    results = []
    for driver in ("emulator", "opencl", "rtl"):
        with apyfal.Accelerator(name, driver=driver, dtype="int32") as card:
            results.append(card.process(values, **parameters))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_a_histogram_in_chunks_keeps_its_counts(histogram: apyfal.Accelerator) -> None:
    values = np.random.default_rng(3).integers(0, 1 << 16, 200_000).astype("uint16")
    info: dict[str, object] = {}
    result = histogram.process(values, bins=64, memory_limit="128KiB", info_dict=info)
    np.testing.assert_array_equal(result, np.histogram(values, 64, range=(0, 1 << 16))[0])
    assert info["chunks"] != 1


@pytest.mark.parametrize(("bins", "edges"), [(255, None), (8192, None), (16, (0, 100)), (16, (0.5, 16.5))], ids=str)
def test_what_the_design_cannot_count_is_one_clear_line(
    histogram: apyfal.Accelerator, bins: int, edges: tuple[float, float] | None
) -> None:
    with pytest.raises(KernelError, match=f"bins = {bins}: .*expected up to 4096 bins, and a range") as caught:
        histogram.process(np.zeros(100, "uint8"), bins=bins, range=edges)
    assert "\n" not in str(caught.value)
    assert histogram.process(np.zeros(100, "uint8"), bins=2).tolist() == [100, 0]


@pytest.mark.parametrize(
    ("name", "dtype"), [("scale", "float32"), ("scale", "float16"), ("histogram", "int64"), ("histogram", "float64")]
)
def test_elements_that_the_verilog_does_not_have(name: str, dtype: str) -> None:
    """They would be taken for others: an error before anything is translated."""
    keywords = {"range": (0, 1)} if name == "histogram" else {}
    with (
        apyfal.Accelerator(name, driver="rtl") as card,
        pytest.raises((ParameterError, ConfigurationError), match=f"{dtype}.*int32"),
    ):
        card.process(np.zeros(10, dtype), **keywords)


def test_an_accelerator_without_verilog() -> None:
    with pytest.raises(ConfigurationError, match="'sha3' has no program for driver 'rtl'"):
        apyfal.Accelerator("sha3", driver="rtl")
