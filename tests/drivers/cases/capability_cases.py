"""What a device lists against the table of capabilities, and what it refuses. Each function runs on every card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from drivers.cases.core_cases import Rig
from drivers.support.capabilities import DRIVERS, expected
from drivers.support.cards import PAIR, card

import apyfal
from apyfal._core.run import SYNC_FROM, Arguments
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
    if "structs" in rig.capabilities:
        with pytest.raises(ParameterError, match="argument 2") as caught:  # this kernel takes a number there
            arguments.start(rig.kernel)
        assert "24" in str(caught.value)
        if rig.row.record is not None:
            _a_struct_arrives_as_it_is(rig.row.record)
        return
    with pytest.raises(
        UnsupportedByDriver, match=r"argument 2 is a struct or vector of 24 bytes; driver .* numbers only"
    ):
        arguments.start(rig.kernel)


def _a_struct_arrives_as_it_is(keywords: Mapping[str, Any]) -> None:
    values = [(1.5, -7, -0.1, 300), (-0.0, 127, 1e300, -32768), (3.25, 0, 2.0**-1074, 1)]
    import drivers.support.software_models  # noqa: F401 - here, so that a process that only collects these cases has none

    with apyfal.Accelerator(**keywords) as card:
        for value in values:
            expected = np.zeros(1, PAIR)
            expected[0] = value
            for given in (value, dict(zip("abcd", value, strict=True)), expected[0]):
                assert card.process(s=given).tobytes() == expected.tobytes()
        for given, message in (
            ((1, 2, 3), "4 values"),
            ((1, 2, 3, 1 << 15), r"'s'.d: 32768"),
            ({"a": 1}, "member 'b'"),
        ):
            with pytest.raises(ParameterError, match=message):
                card.process(s=given)
        call = card._context.bind((), {"s": values[0]})
        kernel = card._context.kernel(call)
        arguments = Arguments(2)
        bo, offset = card._context.device.import_memory(apyfal.empty(PAIR.itemsize, np.uint8))
        arguments.set_buffer(0, bo, offset, PAIR.itemsize, SYNC_FROM)
        if not call.is_model:  # it is known how many bytes the kernel takes
            for wrong in (bytes(PAIR.itemsize - 1), bytes(PAIR.itemsize + 8), b"1"):
                arguments.set_bytes(1, wrong)
                with pytest.raises(ParameterError, match=r"argument 1 .*24 bytes"):
                    arguments.start(kernel)
        arguments.set_scalar(1, "uint64", 1)
        if not call.is_model:
            with pytest.raises(ParameterError, match=r"argument 1 .*24 bytes"):
                arguments.start(kernel)


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
