"""Types and shapes of arrays in messages: those in a body, and those in memory that client and daemon share."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from apyfal.exceptions import ParameterError
from apyfal.host.protocol.fields import parse_count, parse_object, parse_region

__all__ = ["ArrayType", "SharedArray"]

_DTYPE = re.compile(r"[<>|=]?[biufc][0-9]{1,2}|\|?b1")
_FIELDS = {"dtype", "shape"}
_MAX_DIMENSIONS = 32  # numpy's own limit before 2.0


@dataclass(frozen=True, slots=True)
class ArrayType:
    """Element type and shape of an array that is sent as its bytes in C order."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> ArrayType:
        """Describe `array`. Raises `ParameterError` for types whose elements are not plain bytes (objects, records)."""
        return cls.checked(array.dtype, array.shape)

    @classmethod
    def checked(cls, dtype: np.dtype[Any], shape: tuple[int, ...]) -> ArrayType:
        """Describe arrays of a type and shape. Raises `ParameterError` as `of`."""
        if not _DTYPE.fullmatch(dtype.str):
            raise ParameterError(f"arrays of dtype {dtype} cannot be sent to a host; expected numbers or booleans")
        return cls(dtype, shape)

    @classmethod
    def parse(cls, value: object, what: str) -> ArrayType:
        """Parse the JSON that `document` returns."""
        document = parse_object(value, what, _FIELDS)
        text, shape = document.get("dtype"), document.get("shape")
        if not isinstance(text, str) or not _DTYPE.fullmatch(text):
            raise ParameterError(f"{what}: dtype {text!r} is not a type of numbers")
        try:
            dtype = np.dtype(text)
        except TypeError:
            raise ParameterError(f"{what}: dtype {text!r} is not a type of numbers") from None
        if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
            raise ParameterError(f"{what}: shape: expected a list of at most {_MAX_DIMENSIONS} numbers")
        result = cls(dtype, tuple(parse_count(length, f"{what}: shape") for length in shape))
        if result.nbytes >= 1 << 62:
            raise ParameterError(f"{what}: shape {shape} is too large")
        return result

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"dtype": self.dtype.str, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class SharedArray:
    """An array in memory that client and daemon share. `offset` is in bytes from the beginning of the region."""

    region: str
    offset: int
    array: ArrayType

    @classmethod
    def parse(cls, value: object, what: str) -> SharedArray:
        """Parse the JSON that `document` returns."""
        document = parse_object(value, what, {"region", "offset", "array"})
        region = parse_region(document.get("region"), what)
        array = ArrayType.parse(document.get("array"), what)
        return cls(region, parse_count(document.get("offset", 0), f"{what}: offset"), array)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"region": self.region, "offset": self.offset, "array": self.array.document()}
