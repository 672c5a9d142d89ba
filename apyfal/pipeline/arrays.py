"""Arrays at the ends of a job: what counts as one, the caller's for the output, checked, and the shape of new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.exceptions import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.definition.bound_call import CallOutput

__all__ = ["array_of", "check_target", "each_of", "element_type_of", "overlap", "shape_of"]


def array_of(data: object) -> NDArray[Any] | None:
    """Return an array over the memory of `data`, or ``None`` when it is a URL, a path or a file object."""
    if isinstance(data, np.ndarray):
        return data
    if isinstance(data, (bytes, bytearray, memoryview)) or (hasattr(data, "__array_interface__") and data is not None):
        array = np.asarray(data) if not isinstance(data, (bytes, bytearray)) else np.frombuffer(data, np.uint8)
        return array
    if hasattr(data, "__buffer__") or hasattr(data, "__dlpack__"):
        return np.asarray(memoryview(data)) if hasattr(data, "__buffer__") else np.from_dlpack(data)  # type: ignore[arg-type]
    return None


def element_type_of(data: object, array: NDArray[Any] | None) -> np.dtype[Any] | None:
    """Return the element type that `data` states, and `array` has; ``None``: raw bytes, as in files, state none."""
    raw = isinstance(data, (bytes, bytearray)) or (isinstance(data, memoryview) and data.format == "B")
    return None if array is None or raw else array.dtype


def each_of(data: object) -> list[tuple[str, object]]:
    """Return what is given as `src` or `dst`, one by one: of a mapping its values, by name."""
    return [(str(name), one) for name, one in data.items()] if isinstance(data, Mapping) else [("", data)]


def check_target(port: CallOutput, array: NDArray[Any], expected: int | None) -> NDArray[Any]:
    """Return an array of the caller's that is to be filled with `expected` bytes (``None``: that is not known yet).

    Raises
    ------
    ParameterError
        It is read-only, of another type than the accelerator writes, or of another size.
    """
    if not array.flags.writeable:
        raise ParameterError(f"{port.name}: the array is read-only")
    if array.dtype != port.dtype:
        raise ParameterError(
            f"{port.name}: an array of {array.dtype}; accelerator {port.accelerator!r} writes {port.dtype}"
        )
    if expected is not None and array.nbytes != expected:
        raise ParameterError(f"{port.name}: an array of {array.nbytes} bytes; this job's output has {expected}")
    return array


def overlap(source: NDArray[Any] | None, target: NDArray[Any]) -> bool:
    """Whether two arrays have a part of their memory in common, but not all of it."""
    if source is None or not np.shares_memory(source, target):
        return False
    a, b = (array.__array_interface__["data"][0] for array in (source, target))
    return a != b or source.nbytes != target.nbytes


def shape_of(port: CallOutput, nbytes: int, source: NDArray[Any] | None) -> tuple[int, ...]:
    """Return the shape of a new array of `nbytes`: the source's, where each of its elements becomes one."""
    count = nbytes // port.dtype.itemsize
    if source is not None and source.size == count and port.rule.kind == "same":
        return source.shape
    return (count,)
