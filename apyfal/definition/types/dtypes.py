"""Element types and the C scalar types of kernel arguments, and the conversion of Python values to them."""

from __future__ import annotations

import operator

import numpy as np

from apyfal.exceptions import ParameterError, did_you_mean
from apyfal.units import parse_boolean

__all__ = [
    "DTYPE_CODES",
    "PARAMETER_TYPES",
    "SCALAR_TYPES",
    "number_of",
    "parse_element_type",
    "parse_scalar_type",
    "scalar",
    "wire_type",
]

#: Types of scalar arguments, by name, in the order of ``APF_SCALARS`` in csrc/include/driver.h.
SCALAR_TYPES: dict[str, np.dtype] = {
    name: np.dtype(name)
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
}

#: Types of parameters, by name: those, and types that are passed as one of them, see `wire_type`.
PARAMETER_TYPES: dict[str, np.dtype] = {
    **SCALAR_TYPES,
    "float16": np.dtype("float16"),
    "half": np.dtype("float16"),
    "bool": np.dtype("bool"),
    "size_t": np.dtype("uint64"),
}

#: Codes of element types, for the kernel argument ``dtype``. 1 to 10 are those of ``APF_SCALARS``; 11 is half
#: precision, which travels as single precision if it is a scalar.
DTYPE_CODES: dict[np.dtype, int] = {dtype: code for code, dtype in enumerate(SCALAR_TYPES.values(), start=1)}
DTYPE_CODES[np.dtype("float16")] = 11

# np.iinfo and np.finfo take microseconds, which is long compared to a job of a few kilobytes.
_WHOLE_LIMITS = {
    dtype: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in DTYPE_CODES if dtype.kind in "iu"
}
_LARGEST = {dtype: float(np.finfo(dtype).max) for dtype in DTYPE_CODES if dtype.kind == "f"}


def parse_scalar_type(text: str) -> np.dtype:
    """Return the dtype with the name `text`; raise `ParameterError` if it is not one of `PARAMETER_TYPES`."""
    try:
        return PARAMETER_TYPES[text]
    except KeyError:
        raise ParameterError(f"unknown scalar type {text!r}{did_you_mean(text, PARAMETER_TYPES)}") from None


def parse_element_type(text: str) -> np.dtype:
    """Return the dtype with the name `text`; raise `ParameterError` if there is none, or its size is not fixed."""
    if (named := PARAMETER_TYPES.get(text)) is not None:
        return named
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, SyntaxError):  # np.dtype raises any of these for text
        known = [*SCALAR_TYPES, "float16", "complex64", "complex128"]
        raise ParameterError(f"unknown element type {text!r}{did_you_mean(text, known)}") from None
    if dtype.hasobject or not dtype.itemsize:
        raise ParameterError(f"{text!r} cannot be an element type: it has no fixed size")
    return dtype


def wire_type(dtype: np.dtype) -> np.dtype:
    """Return the type in which a scalar of `dtype` is passed to a kernel: its own, or float32 for half precision and
    uint8 for truth.
    """
    if dtype == np.float16:
        return SCALAR_TYPES["float32"]
    return SCALAR_TYPES["uint8"] if dtype.kind == "b" else dtype


def scalar(value: object, dtype: np.dtype, what: str) -> int | float:
    """Return `value` as a Python number that `dtype` can hold.

    Parameters
    ----------
    value
        A number, or its text; for an integer also ``"0x10"``.
    dtype
        An integer or floating-point type, or that of truth.
    what
        Name of the value in messages: ``"parameter 'a'"``.

    Raises
    ------
    ParameterError
        `value` is not a number, is out of the range of `dtype`, or is not whole and `dtype` is an integer type.
    """
    if dtype.kind == "b":
        return _truth(value, what)
    return _integer(value, dtype, what) if dtype.kind in "iu" else _floating(value, dtype, what)


def number_of(value: object, what: str) -> int | float:
    """Return `value` as a number of any type; raise `ParameterError` if it is not a number."""
    try:
        return _whole(value)
    except (TypeError, ValueError):
        return _floating(value, SCALAR_TYPES["float64"], what)


def _whole(value: object) -> int:
    return int(value, 0) if isinstance(value, str) else operator.index(value)  # type: ignore[arg-type]  # TypeError


def _truth(value: object, what: str) -> int:
    if isinstance(value, (bool, np.bool_, int, np.integer)) and value in (0, 1):
        return int(value)
    try:
        if isinstance(value, str):
            return int(parse_boolean(value))
    except ParameterError:
        pass
    raise ParameterError(f"{what}: expected true or false (bool), not {value!r}")


def _integer(value: object, dtype: np.dtype, what: str) -> int:
    try:
        number = _whole(value)
    except (TypeError, ValueError):
        raise ParameterError(f"{what}: expected a whole number ({dtype}), not {value!r}") from None
    low, high = _WHOLE_LIMITS[dtype]
    if not low <= number <= high:
        raise ParameterError(f"{what}: {number} is out of the range of {dtype}, {low} to {high}")
    return number


def _floating(value: object, dtype: np.dtype, what: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # TypeError
    except (TypeError, ValueError):
        raise ParameterError(f"{what}: expected a number ({dtype}), not {value!r}") from None
    except OverflowError:
        raise ParameterError(f"{what}: {value!r} is out of the range of {dtype}") from None
    if abs(number) > _LARGEST[dtype] and abs(number) != float("inf"):
        raise ParameterError(f"{what}: {number} is out of the range of {dtype}")
    return number
