"""Arrays in pinned memory: `empty`, `empty_like`, `is_pinned`."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from apyfal._core.buffer import Buffer, is_pinned
from apyfal.exceptions import ParameterError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal._core.device import Device

__all__ = ["Meter", "charge", "current_meter", "empty", "empty_like", "is_pinned", "metered", "plain_array"]


class Meter(Protocol):
    """Counts the memory of a job that grows with its data (whole inputs and new outputs), and may refuse it."""

    def reserve(self, count: int, /) -> None:
        """Count `count` bytes that are about to be allocated; raise to refuse them."""

    def release(self, count: int, /) -> None:
        """Record that `count` bytes are no longer needed."""


_thread = threading.local()


def current_meter() -> Meter | None:
    """Return the meter of the calling thread."""
    meter: Meter | None = getattr(_thread, "meter", None)
    return meter


def charge(count: int) -> None:
    """Count `count` bytes that are about to be allocated for a job; raises what the meter raises to refuse them."""
    meter = current_meter()
    if meter is not None:
        meter.reserve(count)


@contextlib.contextmanager
def metered(meter: Meter | None) -> Iterator[None]:
    """Have the memory of the jobs that the calling thread runs in the ``with`` block counted."""
    before = current_meter()
    _thread.meter = meter
    try:
        yield
    finally:
        _thread.meter = before


def empty(shape: int | Sequence[int], dtype: DTypeLike = float, *, device: Device | None = None) -> NDArray[Any]:
    """Return a new array in pinned, page-aligned memory from the pool.

    Parameters
    ----------
    shape
        As for `numpy.empty`.
    dtype
        Any dtype without Python objects.
    device
        Pin the memory for this device now, instead of at its first use there.

    Returns
    -------
    ndarray
        C-contiguous; its contents are undefined. The memory goes back to the pool when the last view dies and no device
        uses it any more.

    Raises
    ------
    HostMemoryExhausted
        There is no memory, or the pool reached its limit.
    ValueError
        The dtype holds Python objects, or a dimension is negative.
    """
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"dtype {kind} holds Python objects, which no device can read")
    dimensions = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if any(length < 0 for length in dimensions):
        raise ValueError(f"shape {dimensions}: negative dimensions are not allowed")
    count = math.prod(dimensions)
    # frombuffer refuses memory without elements, so that an empty array is the front of one with one
    buffer = Buffer(max(count, 1) * max(kind.itemsize, 1))
    if kind.itemsize == 0:
        array: NDArray[Any] = np.ndarray(dimensions, kind)
        return array
    array = np.frombuffer(memoryview(buffer), kind, max(count, 1))
    if not count or len(dimensions) != 1:
        array = array[:count].reshape(dimensions)
    if device is not None:
        device.import_memory(array)
    return array


def plain_array(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of any subclass as a plain one over the same memory.

    Subclasses change what indexing, reshaping and multiplying mean: a matrix never has one dimension.

    Raises
    ------
    ParameterError
        It is a masked array, whose mask would be lost.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise ParameterError(
            "a masked array: its mask would be lost; expected a plain one, as array.filled(value) gives"
        )
    return np.asarray(array)


def empty_like(prototype: NDArray[Any], *, device: Device | None = None) -> NDArray[Any]:
    """Return a new pinned array of the shape and dtype of `prototype`, in C order."""
    return empty(prototype.shape, prototype.dtype, device=device)
