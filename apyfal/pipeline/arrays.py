"""Arrays as sources and destinations of a job: what counts as an array, checks, and the shape of new ones."""

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
    """Return an array over the memory of `data`; ``None``: it is something else, a URL, a path or a file object."""
    if isinstance(data, np.ndarray):
        return data
    if isinstance(data, (bytes, bytearray, memoryview)) or (hasattr(data, "__array_interface__") and data is not None):
        array = np.asarray(data) if not isinstance(data, (bytes, bytearray)) else np.frombuffer(data, np.uint8)
        return array
    if hasattr(data, "__buffer__") or hasattr(data, "__dlpack__"):
        return np.asarray(memoryview(data)) if hasattr(data, "__buffer__") else np.from_dlpack(data)  # type: ignore[arg-type]
    return None


def element_type_of(data: object, array: NDArray[Any] | None) -> np.dtype[Any] | None:
    """Return the element type that `data` states; ``None``: it states none, as raw bytes and files do."""
    raw = isinstance(data, (bytes, bytearray)) or (isinstance(data, memoryview) and data.format == "B")
    return None if array is None or raw else array.dtype


def each_of(data: object) -> list[tuple[str, object]]:
    """Return name and value of each port's `src` or `dst`; without a mapping there is one, without a name."""
    return [(str(name), value) for name, value in data.items()] if isinstance(data, Mapping) else [("", data)]


def check_target(port: CallOutput, array: NDArray[Any], expected: int | None) -> NDArray[Any]:
    """Check the caller's array for an output of `expected` bytes (``None``: not known yet), and return it.

    Raises
    ------
    ParameterError
        It is read-only, or its element type or size is not that of the output.
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
    """Return whether two arrays share some of their memory, but not all of it."""
    if source is None or not np.shares_memory(source, target):
        return False
    a, b = (array.__array_interface__["data"][0] for array in (source, target))
    return a != b or source.nbytes != target.nbytes


def shape_of(port: CallOutput, nbytes: int, source: NDArray[Any] | None) -> tuple[int, ...]:
    """Return the shape of a new array of `nbytes`: the source's shape if each of its elements becomes one."""
    count = nbytes // port.dtype.itemsize
    if source is not None and source.size == count and port.rule.kind == "same":
        return source.shape
    return (count,)
