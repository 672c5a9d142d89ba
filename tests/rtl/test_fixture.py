"""The fixture for tests of one's own RTL, as docs/how-to/rtl.md shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import apyfal
from apyfal.testing.rtl import Designs, rtl  # noqa: F401 - a fixture

pytestmark = pytest.mark.vendor
KERNELS = Path(apyfal.__file__).parent / "accelerators" / "kernels"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.integers(-1000, 1000), min_size=1, max_size=300), a=st.integers(-9, 9))
def test_scale_for_any_size_under_back_pressure(rtl: Designs, values: list[int], a: int) -> None:  # noqa: F811
    scale = rtl(
        f"{KERNELS / 'scale.sv'}, {KERNELS / 'apf_control.sv'}",
        kernel="scale",
        dtype="int32",
        arguments="src, dst, count, a:int64, b:int64, dtype",
        chunking="elements",
    )
    x = np.array(values, "int32")
    for seed in rtl.under_pressure(scale, seeds=range(len(values) % 7, len(values) % 7 + 2)):
        assert np.array_equal(scale.process(x, a=a, b=1), x * a + 1), seed
