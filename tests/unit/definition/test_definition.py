from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from apyfal.definition.bound_call import BoundArgument
from apyfal.definition.definition import Definition
from apyfal.definition.grammar import ELEMENTS, REPORTED, Argument, Chunking, OutputSize, Parameter
from apyfal.exceptions import ConfigurationError, ParameterError

U8, U32, U64, I32, F32 = (np.dtype(name) for name in ("uint8", "uint32", "uint64", "int32", "float32"))


def define(arguments: str = "src, dst, count", **given: Any) -> Definition:
    named: dict[str, Any] = {"name": "x", "kernel": "x", **given}
    return Definition(arguments=tuple(Argument.parse(part.strip()) for part in arguments.split(",")), **named)


# -- what fits together -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        ("src, dst, src", {}, "argument 'src' is there twice"),
        ("count", {}, "expected 'src', 'dst' or both"),
        ("dst", {}, "output = same needs 'src'"),
        ("src", {}, "output = same needs 'dst'"),
        ("src", {"output": OutputSize("bytes", 4)}, "output = 4 needs 'dst'"),
        ("src, dst", {"output": REPORTED}, "'report' among the arguments need each other"),
        ("src, dst, report", {}, "'report' among the arguments need each other"),
        ("src, dst, state", {}, "'state' among the arguments need each other"),
        ("src, dst", {"state": 8}, "'state' among the arguments need each other"),
        (
            "src, dst",
            {"output": OutputSize("bytes", 4), "chunking": ELEMENTS},
            "expected chunking = whole, not elements",
        ),
        ("src, dst", {"in_dtype": I32, "chunking": Chunking("records", 6)}, "records:6 cuts through int32 elements"),
        ("src, dst, cuont", {}, "'cuont' is neither a parameter .* did you mean 'count'"),
        ("src, dst", {"parameters": {"a": Parameter("a", "int32")}}, "parameter 'a' is not among the arguments"),
        ("src, dst, first", {"parameters": {"first": Parameter("first", "int32")}}, "cannot be called 'first'"),
        (
            "src, dst, copy",
            {"parameters": {"copy": Parameter("copy", "int32")}},
            "`process` has an argument of that name",
        ),
        ("src, dst", {"model": print, "driver": "opencl"}, "runs on driver 'emulator' only, not on 'opencl'"),
        ("src, dst", {"in_dtype": np.dtype(object)}, "they are Python objects"),
        (
            "src, dst, dtype",
            {"in_dtype": np.dtype("complex64")},
            "cannot take elements of type complex64; expected one of",
        ),
    ],
)
def test_what_does_not_fit(arguments: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        define(arguments, **given)
    assert str(caught.value).startswith("accelerator 'x': ") or "accelerator 'x' " in str(caught.value)


def test_a_wrong_default_is_found_at_once() -> None:
    with pytest.raises(ParameterError, match="300 is out of the range of uint8"):
        define("src, dst, a", parameters={"a": Parameter("a", "uint8", 300)})


# -- parameters -------------------------------------------------------------------------------------------------------
def test_parameters_are_validated() -> None:
    accelerator = define(
        "src, dst, gain, mask", parameters={"gain": Parameter("gain", "float32", 1), "mask": Parameter("mask", "uint8")}
    )
    assert accelerator.validate_parameters(mask="0xf") == {"gain": 1.0, "mask": 15}
    with pytest.raises(ParameterError, match="accelerator 'x' needs 'mask'"):
        accelerator.validate_parameters()
    with pytest.raises(ParameterError, match="accelerator 'x' has no parameter 'gian'; did you mean 'gain'"):
        accelerator.validate_parameters(mask=1, gian=2)
    with pytest.raises(ParameterError, match="parameter 'mask': 256 is out of the range"):
        accelerator.validate_parameters(mask=256)
    with pytest.raises(ParameterError, match="has no parameter 'mask', it takes none"):
        define().validate_parameters(mask=1)


# -- calls ------------------------------------------------------------------------------------------------------------
def test_arguments_are_bound_in_order() -> None:
    accelerator = define(
        "dst, src, count:uint32, a, dtype, last", parameters={"a": Parameter("a", "element", 2)}, chunking=ELEMENTS
    )
    call = accelerator.bind(I32, a=-3)
    assert call.arguments == (
        BoundArgument("dst", None, None),
        BoundArgument("src", None, None),
        BoundArgument("count", U32, None),
        BoundArgument("a", I32, -3),
        BoundArgument("dtype", U32, 5),
        BoundArgument("last", U32, None),
    )
    assert call.granularity == 4
    assert call.chunk_limit == (2**32 - 1) * 4
    assert (call.in_dtype, call.outputs[0].dtype) == (I32, I32)
    assert call.parameters == {"a": -3}


def test_bytes_are_elements_where_no_type_is_known() -> None:
    call = define("src, dst, bytes").bind()
    assert call.in_dtype == U8
    assert call.granularity is None
    assert call.chunk_limit is None


def test_element_types_are_checked() -> None:
    with pytest.raises(ParameterError, match="accelerator 'x' takes int32 elements, not float32"):
        define(in_dtype=I32).bind(F32)
    assert define(in_dtype=I32).bind().in_dtype == I32
    with pytest.raises(ParameterError, match="they are Python objects"):
        define().bind(np.dtype(object))
    with pytest.raises(ParameterError, match="cannot take elements of type >i4; expected one of float16, float32"):
        define("src, dst, dtype").bind(np.dtype(">i4"))


def test_parameters_of_the_element_type_are_checked_against_it() -> None:
    accelerator = define("src, dst, a", parameters={"a": Parameter("a", "element", 1)})
    with pytest.raises(ParameterError, match="parameter 'a': 256 is out of the range of uint8"):
        accelerator.bind(U8, a=256)
    with pytest.raises(ParameterError, match=r"parameter 'a': expected a whole number \(uint8\), not 1.5"):
        accelerator.bind(U8, a=1.5)
    assert accelerator.bind(np.dtype("float16"), a=1.5).arguments[-1] == BoundArgument("a", F32, 1.5)


@pytest.mark.parametrize(
    ("given", "nbytes", "expected"),
    [
        ({}, 10, 10),
        ({"in_dtype": I32, "out_dtype": np.dtype("float64")}, 8, 16),
        ({"out_dtype": U64}, 3, 24),
        ({"output": OutputSize("factor", Fraction(1, 2))}, 10, 5),
        ({"output": OutputSize("bytes", 32)}, 10, 32),
    ],
)
def test_output_sizes(given: dict[str, Any], nbytes: int, expected: int) -> None:
    call = define(**given).bind()
    assert call.outputs[0].nbytes(nbytes) == expected
    assert call.outputs[0].buffer_nbytes(nbytes) == expected


def test_output_that_only_the_kernel_knows() -> None:
    call = define("src, dst, report", output=REPORTED).bind()
    assert call.outputs[0].nbytes(10) is None
    assert call.outputs[0].buffer_nbytes(10) == 10
    assert call.outputs[0].buffer_nbytes(0) == 1
    assert (
        define("src, dst, report", output=REPORTED, capacity=lambda n: 2 * n + 7).bind().outputs[0].buffer_nbytes(10)
        == 27
    )


def test_sizes_that_are_not_whole() -> None:
    with pytest.raises(ParameterError, match="11 bytes of input times 1/2 are not a whole number of uint8 elements"):
        define(output=OutputSize("factor", Fraction(1, 2))).bind().outputs[0].nbytes(11)
    with pytest.raises(ParameterError, match=r"7 bytes of input are not a whole number of int32 elements"):
        define(in_dtype=I32).bind().check_size(7)
    records = define(chunking=Chunking("records", 6)).bind()
    records.check_size(12)
    with pytest.raises(ParameterError, match="7 bytes of input are not a whole number of records of 6 bytes"):
        records.check_size(7)


@pytest.mark.parametrize(("nbytes", "dtype"), [(1, "float32"), (6, "float32"), (30, "uint64"), (10, "complex64")])
def test_a_fixed_size_that_is_not_whole(nbytes: int, dtype: str) -> None:
    with pytest.raises(ParameterError, match=rf"'dst' of {nbytes} bytes is not a whole number of {dtype} elements"):
        define(output=OutputSize("bytes", nbytes), out_dtype=np.dtype(dtype)).bind()
    assert define(output=OutputSize("bytes", 16), out_dtype=np.dtype(dtype)).bind().outputs[0].nbytes(5) == 16


@pytest.mark.parametrize("dtype", [[], "V0"])
@pytest.mark.parametrize("given", [{}, {"output": OutputSize("bytes", 32)}, {"output": REPORTED}])
def test_elements_of_no_bytes(given: dict[str, Any], dtype: Any) -> None:
    arguments = "src, dst, report" if "output" in given and given["output"] is REPORTED else "src, dst"
    with pytest.raises(ParameterError, match="they have no bytes"):
        define(arguments, **given).bind(np.dtype(dtype))


def test_what_it_is_in_a_line() -> None:
    accelerator = define("src, dst, a", parameters={"a": Parameter("a", "int8", 1)}, driver="opencl", summary="adds")
    assert repr(accelerator) == "x(a=1) on opencl: adds"
    assert accelerator.takes_input
    assert accelerator.gives_data
    assert not accelerator.continues
