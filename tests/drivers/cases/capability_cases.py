"""What a device lists against the table of capabilities, and what it refuses. Each function runs on every card."""

from __future__ import annotations

import numpy as np
import pytest
from drivers.cases.core_cases import Rig
from drivers.support.capabilities import DRIVERS, expected
from drivers.support.cards import card

import apyfal
from apyfal.exceptions import ParameterError, UnsupportedByDriver


def _arrays() -> tuple[np.ndarray, np.ndarray]:
    src, dst = apyfal.empty(1024, np.int32), apyfal.empty(1024, np.int32)
    src[:] = 7
    dst[:] = 0
    return src, dst


def capabilities_are_those_of_the_table(name: str) -> None:
    rig = Rig(card(name))
    if rig.row.driver in DRIVERS:  # not the driver of a third party
        separate = "separate-memory" in rig.capabilities
        assert rig.capabilities == expected(rig.row.driver, separate=separate)


def structs_are_passed_or_refused(name: str) -> None:
    rig = Rig(card(name))
    arguments = rig.arguments(*_arrays())
    arguments.set_bytes(2, bytes(24))
    if "structs" in rig.capabilities:  # passed to a kernel that takes a number here
        with pytest.raises(ParameterError, match="argument 2"):
            arguments.start(rig.kernel)
        return
    with pytest.raises(
        UnsupportedByDriver, match=r"argument 2 is a struct or vector of 24 bytes; driver .* numbers only"
    ):
        arguments.start(rig.kernel)


def index_spaces_are_run_or_refused(name: str) -> None:
    rig = Rig(card(name))
    src, dst = _arrays()
    arguments = rig.arguments(src, dst)
    if rig.row.driver == "opencl":
        arguments.start(rig.kernel, ((), (1024,), ())).wait(20)
        np.testing.assert_array_equal(dst, np.full(1024, 8))
        return
    with pytest.raises(UnsupportedByDriver, match="has no index spaces"):
        arguments.start(rig.kernel, ((), (1024,), ()))
