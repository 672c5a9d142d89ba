from __future__ import annotations

import numpy as np
import pytest

from apyfal.definition.types.dtypes import DTYPE_CODES, SCALAR_TYPES, parse_scalar_type, scalar, wire_type
from apyfal.exceptions import ParameterError


def test_codes_are_those_of_the_driver_abi() -> None:
    assert [DTYPE_CODES[dtype] for dtype in SCALAR_TYPES.values()] == list(range(1, 11))
    assert DTYPE_CODES[np.dtype("float16")] == 11


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (255, "uint8", 255),
        ("0xff", "uint8", 255),
        (np.int64(-1), "int8", -1),
        (2**64 - 1, "uint64", 2**64 - 1),
        (1, "float32", 1.0),
        ("1e-3", "float64", 1e-3),
        (float("inf"), "float32", float("inf")),
        (np.float32(0.5), "float16", 0.5),
    ],
)
def test_scalar(value: object, dtype: str, expected: float) -> None:
    assert scalar(value, np.dtype(dtype), "x") == expected


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (256, "uint8", "x: 256 is out of the range of uint8, 0 to 255"),
        (-1, "uint32", "out of the range of uint32"),
        (1.0, "int32", r"x: expected a whole number \(int32\), not 1.0"),
        ("1.5", "int32", "expected a whole number"),
        ([], "int32", "expected a whole number"),
        ("one", "float32", r"expected a number \(float32\), not 'one'"),
        (None, "float64", "expected a number"),
        (1e39, "float32", "out of the range of float32"),
        (10**400, "float64", "out of the range of float64"),
        (70000, "float16", "out of the range of float16"),
    ],
)
def test_scalar_refuses(value: object, dtype: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        scalar(value, np.dtype(dtype), "x")


def test_scalar_types_have_a_fixed_size() -> None:
    assert parse_scalar_type("uint32") == np.uint32
    with pytest.raises(ParameterError, match="unknown scalar type 'int'; did you mean"):
        parse_scalar_type("int")


def test_half_precision_travels_as_single() -> None:
    assert wire_type(np.dtype("float16")) == np.float32
    assert wire_type(np.dtype("int8")) == np.int8
