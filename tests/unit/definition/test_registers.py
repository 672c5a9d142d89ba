"""Registers of a kernel's arguments, stated with them: ``a@0x10``."""

from __future__ import annotations

import pytest

from apyfal.definition.resolve import resolve
from apyfal.exceptions import ConfigurationError

SECTION = {
    "driver": "rtl", "program": "x.v", "kernel": "top", "inputs": "a: int32", "outputs": "b: int32",
    "arguments": "a@0x10, b@28, count@0x34: uint32, n@0x3c: uint64, free: uint32",
}  # fmt: skip


def registers(**changes: str) -> str:
    return resolve("t", {"accelerator.t": {**SECTION, **changes}}).options.get("registers", "")


def test_registers_of_arguments() -> None:
    assert registers() == "a:0x10, b:0x1c, count:0x34, n:0x3c:64"
    assert registers(**{"rtl.registers": "free:0x44"}) == "free:0x44, a:0x10, b:0x1c, count:0x34, n:0x3c:64"
    assert registers(arguments="a, b, count, n @ 0x40 : uint32") == "n:0x40"
    assert registers(arguments="a, b, m@0x20: uint32 = count * 2 + 1") == "m:0x20"
    assert registers(arguments="a, b, count") == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"arguments": f"a@{offset}, b"}, "expected an offset that is a multiple of 4, from 0x10 on")
          for offset in ("", "0", "0xc", "0x11", "-4", "x", "0x", "16.0", "0x100000000", "9999999999", "0o20", "1e2")),
        ({"arguments": "@0x10, b"}, "'' is not the name of an argument"),
        ({"arguments": "a@0x10@0x14, b"}, "expected an offset"),
        ({"rtl.registers": "a:0x10"}, "a@0x10: rtl.registers states the place of 'a', too; expected one of them"),
        ({"driver": "opencl"}, "a@0x10: driver 'opencl' has no use for registers; expected 'a'"),
        ({"driver": "xrt"}, "a@0x10: driver 'xrt' has no use for registers"),
    ],
)  # fmt: skip
def test_wrong_registers_are_one_clear_line(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        registers(**changes)
    assert "\n" not in str(caught.value)
    assert "arguments" in str(caught.value)
