from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest

from apyfal.definition.declared import C_TYPES, check_declared
from apyfal.definition.resolve import resolve
from apyfal.exceptions import ParameterError, ProgramError


class _Argument(NamedTuple):
    name: str
    type: str
    space: str = "global"
    written: bool = True


def _check(elements: str, declared: _Argument, ask: Any = None, **keys: Any) -> str:
    """The error's text; empty if there is none."""
    definition = resolve("k", driver="opencl", program="k.cl", arguments="p", inout=f"p: {elements}", **keys)
    try:
        check_declared(definition.bind(), [declared], ask)
    except ParameterError as error:
        return str(error).replace("\n", "a second line: ")
    return ""


_ELEMENTS = (
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    "bool",
)


@pytest.mark.parametrize("pointer", C_TYPES)
def test_elements_of_every_type_at_pointers_to_every_type(pointer: str) -> None:
    own = C_TYPES[pointer]
    for elements in _ELEMENTS:
        given = np.dtype(elements)
        is_bytes = elements in ("int8", "uint8") or own in (np.int8, np.uint8)
        fits = given.itemsize == own.itemsize and (given.kind == "f") == (own.kind == "f")
        text = _check(elements, _Argument("p", f"{pointer}*"))
        if fits or is_bytes:
            assert not text, (elements, pointer)
        else:
            assert text.endswith(f"is {pointer}*; the definition has {elements}"), (elements, pointer, text)


@pytest.mark.parametrize(
    ("elements", "pointer", "fits"),
    [
        ("float4", "float4*", True),
        ("float4", "float3*", True),  # of the same size
        ("float4", "float2*", False),
        ("float4", "int4*", False),
        ("float4", "float*", True),
        ("float32", "float4*", True),
        ("int32", "uint4*", True),
        ("float64", "float2*", False),
        ("float4", "double2*", False),
        ("int8x8", "char8*", True),
        ("complex64", "float2*", True),
        ("complex64", "float*", True),
        ("complex128", "float4*", False),
        ("float32", "void*", True),
        ("float32", "const volatile float *restrict", True),
        ("float32", "something_t*", True),  # without a compiler nobody knows
        ("float32", "", True),
        ("datetime64[s]", "long*", True),
    ],
)
def test_vectors_and_others(elements: str, pointer: str, fits: bool) -> None:
    assert bool(_check(elements, _Argument("p", pointer))) != fits


@pytest.mark.parametrize(
    ("space", "written", "message"),
    [
        (
            "local",
            True,
            "in local memory; expected '<name>: uint64 = <its size in bytes>' among the arguments, no port",
        ),
        ("private", False, "is passed by value; expected a parameter, no input or output"),
        ("global", False, "which the kernel only reads; expected an input"),
        ("constant", False, "which the kernel only reads; expected an input"),
    ],
)
def test_memory_spaces(space: str, written: bool, message: str) -> None:
    text = _check("float32", _Argument("q", "float*", space, written))
    assert "argument 0 (p, q in the kernel) of kernel 'k' is float*" in text
    assert message in text


@pytest.mark.parametrize("error", ["x.cl does not build: unknown type name", "no member named 'other' in 's'"])
def test_a_compiler_that_cannot_tell_is_no_error(error: str) -> None:
    def ask(source: str) -> str:
        raise ProgramError(error)

    assert not _check("s", _Argument("p", "s*"), ask, **{"struct.s": "a: int8"})


def test_a_missing_member_is_named() -> None:
    def ask(source: str) -> str:
        assert re.search(r"__builtin_offsetof\(s, a\)", source)
        raise ProgramError("1:1: no member named 'a' in 's'")

    assert "is s*, which has no member 'a'" in _check("s", _Argument("p", "s*"), ask, **{"struct.s": "a: int8"})


def test_names_that_are_no_types_are_not_put_into_source() -> None:
    def ask(source: str) -> str:
        raise AssertionError(source)

    assert not _check("float32", _Argument("p", "struct (unnamed at x.cl:1:2)*"), ask)
    assert not _check("float32", _Argument("p", "a); evil(*"), ask)
