"""Parameters in a message to a host mean what they mean here."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import Argument, Parameter
from apyfal.definition.types.composite import parse_struct, parse_vector
from apyfal.exceptions import ParameterError
from apyfal.host.protocol.parameters import encode_parameters

POINT = parse_struct(["x: int32", "y: float32x2"], {}, "point")
SWAPPED = np.zeros((), [("y", "2f4"), ("x", "i4")])
SWAPPED["x"], SWAPPED["y"] = 3, (1, 2)


class Number(enum.IntEnum):
    TWO = 2


def define(**parameters: Any) -> Definition:
    arguments = tuple(Argument(name, value) for name, value in parameters.items())
    accepted = {
        name: Parameter(name, value.name, composite=value if value.kind == "V" else None)
        for name, value in parameters.items()
    }
    return Definition(
        name="t",
        kernel="t",
        driver="xrt",
        program="t",
        arguments=(Argument("src"), Argument("dst"), *arguments),
        parameters=accepted,
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("float64", value) for value in (2, 2.5, -0.0, np.float32(0.1), np.longdouble(2), Decimal("2.5"), True)),
        *(("float64", value) for value in (Fraction(1, 3), np.array(2.5), "0.5", float("nan"), float("inf"), -np.inf)),
        *(("float64", value) for value in (np.float32("nan"), Decimal("Infinity"), 1 << 64)),
        *(("int64", value) for value in (2, -(1 << 63), np.int8(3), Number.TWO, "0x10", np.array(7), np.uint64(9))),
        *(("vector", value) for value in ((1, 2, 3, 4), np.arange(4), range(4), [0.5, np.inf, -np.inf, 1], "1 2 3 4")),
        *(("struct", value) for value in ({"x": 1, "y": (2, np.inf)}, (1, [2, 3]), SWAPPED, SWAPPED[()])),
    ],
)
def test_the_same_bytes_reach_the_kernel(kind: str, value: object) -> None:
    dtype = {"vector": parse_vector("float4"), "struct": POINT}.get(kind) or np.dtype(kind)
    definition = define(a=dtype)
    sent = json.loads(json.dumps(encode_parameters({"a": value}), allow_nan=False))
    here, there = (definition.bind(None, a=one).arguments[-1].value for one in (value, sent["a"]))
    np.testing.assert_equal(there, here)


@pytest.mark.parametrize(
    "value",
    [b"2", b"\x02", bytearray(b"2"), memoryview(b"2"), 2j, np.complex64(2), {2}, {1: 2}, Path("2"), object(), [b"2"]],
)
def test_what_json_cannot_say_is_an_error(value: object) -> None:
    with pytest.raises(ParameterError, match=r"parameter 'a': .* cannot be sent to a host; expected a number"):
        encode_parameters({"a": value})
