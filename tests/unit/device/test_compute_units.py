"""Compute units that a definition chooses by name, against those of an xclbin."""

from __future__ import annotations

import re

import pytest
from fixtures.xrt import xclbin

from apyfal.device.interface import check_compute_units
from apyfal.exceptions import ProgramError

PROGRAM = xclbin.xclbin()


@pytest.mark.parametrize(
    "kernel",
    ["join", "join:{join_1}", "join:{join_2}", "join:{join_1,join_2}", "join:{join_2,join_1}", "nothing:{nothing_1}"],
)
def test_units_that_are_there(kernel: str) -> None:
    check_compute_units(PROGRAM, "x.xclbin", kernel)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("join:{jion_1}", "kernel 'join' of 'x.xclbin' has no compute unit 'jion_1'; did you mean 'join_1'"),
        ("join:{join_1,joins_2}", "has no compute unit 'joins_2'; did you mean 'join_2'"),
        ("join:{JOIN}", "has no compute unit 'JOIN'; expected one of join_1, join_2"),
        ("join:{}", "has no compute unit ''; expected one of join_1, join_2"),
        ("join:{join_1,}", "has no compute unit ''; expected one of join_1, join_2"),
        ("join:{join_1, join_2}", "has no compute unit ' join_2'; did you mean 'join_2'"),
        ("join:{fscale_1}", "has no compute unit 'fscale_1'"),
        ("join:{join_1,join_1}", "kernel = join:{join_1,join_1}: compute unit 'join_1' is named twice"),
        ("join:join_1", "kernel = join:join_1: expected join or join:{UNIT,UNIT}, with names of compute units"),
        ("join:{join_1", "expected join or join:{UNIT,UNIT}"),
        ("join:", "expected join or join:{UNIT,UNIT}"),
        ("join:{", "expected join or join:{UNIT,UNIT}"),
    ],
)
def test_units_that_are_not(kernel: str, message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(message)) as caught:
        check_compute_units(PROGRAM, "x.xclbin", kernel)
    assert "\n" not in str(caught.value)


def test_a_damaged_program_is_left_to_the_driver() -> None:
    check_compute_units(b"xclbin2\0", "x.xclbin", "join:{join_1}")
