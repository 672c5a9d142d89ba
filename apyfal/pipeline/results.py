"""The arrays that a job's output becomes: the caller's, checked, or new ones in the input's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apyfal.exceptions import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.call import Call

__all__ = ["check_target", "shape_of"]


def check_target(call: Call, array: NDArray[Any], expected: int | None) -> NDArray[Any]:
    """Return an array of the caller's that is to be filled with `expected` bytes (``None``: that is not known yet).

    Raises
    ------
    ParameterError
        It is read-only, of another type than the accelerator writes, or of another size.
    """
    if not array.flags.writeable:
        raise ParameterError("dst: the array is read-only")
    if array.dtype != call.out_dtype:
        raise ParameterError(
            f"dst: an array of {array.dtype}; accelerator {call.definition.name!r} writes {call.out_dtype}"
        )
    if expected is not None and array.nbytes != expected:
        raise ParameterError(f"dst: an array of {array.nbytes} bytes; this job's output has {expected}")
    return array


def shape_of(call: Call, nbytes: int, source: NDArray[Any] | None) -> tuple[int, ...]:
    """Return the shape of a new array of `nbytes`: the source's, where each of its elements becomes one."""
    count = nbytes // call.out_dtype.itemsize
    if source is not None and source.size == count and call.definition.output.kind == "same":
        return source.shape
    return (count,)
