from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from apyfal.definition.expressions import Expression
from apyfal.definition.grammar import REQUIRED, Argument, Chunking, OutputSize, Parameter
from apyfal.exceptions import ParameterError


def test_arguments() -> None:
    assert Argument.parse("src") == Argument("src")
    assert Argument.parse(" n : uint32 ") == Argument("n", np.dtype("uint32"))
    assert Argument.parse("count:uint32").dtype == np.uint32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not the name of an argument"),
        ("a b", "'a b' is not the name"),
        ("src:uint8", "argument 'src' is a buffer"),
        ("n:uint33", "unknown scalar type 'uint33'; did you mean 'uint32'"),
        ("count:float32", "argument 'count' is a whole number"),
    ],
)
def test_wrong_arguments(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Argument.parse(text)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("same", OutputSize("same")),
        ("reported", OutputSize("reported")),
        ("32", OutputSize("bytes", 32)),
        ("4KiB", OutputSize("bytes", 4096)),
        ("width * height", OutputSize("elements", expression=Expression.parse("width * height"))),
        ("2x", OutputSize("factor", Fraction(2))),
        ("0.5 x", OutputSize("factor", Fraction(1, 2))),
        ("1/3x", OutputSize("factor", Fraction(1, 3))),
    ],
)
def test_outputs(text: str, output: OutputSize) -> None:
    assert OutputSize.parse(text) == output
    assert OutputSize.parse(str(output)) == output


@pytest.mark.parametrize("text", ["", "0x", "-1x", "1/0x", "-4", "2y", "a b"])
def test_wrong_outputs(text: str) -> None:
    with pytest.raises(
        ParameterError, match=r"unknown output .* expected same, reported, a number of bytes, or a factor"
    ):
        OutputSize.parse(text)


@pytest.mark.parametrize("text", ["whole", "elements", "records:64"])
def test_chunkings(text: str) -> None:
    assert str(Chunking.parse(text)) == text


@pytest.mark.parametrize("text", ["", "records", "records:0", "records:-1", "records:x", "element", "elements:4"])
def test_wrong_chunkings(text: str) -> None:
    with pytest.raises(ParameterError, match=r"unknown chunking .* expected whole, elements, records:<bytes> or rows"):
        Chunking.parse(text)


def test_parameters() -> None:
    assert Parameter.parse("a: float64 = 1").default == 1.0
    required = Parameter.parse("mask: uint8")
    assert required.default is REQUIRED
    assert str(required) == "mask"
    assert str(Parameter.parse("mask:uint8=0xf")) == "mask=15"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "unknown scalar type ''"),
        ("1a: int8", "'1a' is not the name of a parameter"),
        ("a: int8 = 200", "parameter 'a': 200 is out of the range of int8"),
        ("a: text = 1", "unknown scalar type 'text'"),
    ],
)
def test_wrong_parameters(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Parameter.parse(text)


def test_parameter_bounds_and_choices() -> None:
    level = Parameter("level", "int32", 6, minimum=0, maximum=9)
    assert level.check("9") == 9
    with pytest.raises(ParameterError, match="parameter 'level': expected 0 to 9, not 10"):
        level.check(10)
    with pytest.raises(ParameterError, match="parameter 'n': expected 1 or more, not 0"):
        Parameter("n", "int32", minimum=1).check(0)
    kind = Parameter("type", "uint32", choices={"sha3-256": 256, "sha3-512": 512})
    assert kind.check("sha3-512") == "sha3-512"
    for wrong in ("sha3-255", 256, None):
        with pytest.raises(ParameterError, match="parameter 'type': unknown value"):
            kind.check(wrong)
