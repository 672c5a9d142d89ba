"""Arrays as sources and destinations of a job: what counts as an array, checks, and the shape of new ones."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from mmap import mmap
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal._core.buffer import Buffer
from apyfal.definition.types.composite import element_name, is_vector, members_of
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.exceptions import ParameterError
from apyfal.memory import empty, plain_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.definition.bound_call import CallOutput

__all__ = [
    "CONVERTED",
    "array_of",
    "as_elements",
    "check_target",
    "check_type_and_size",
    "check_whole_elements",
    "each_of",
    "element_shape",
    "element_type_of",
    "keeps_memory",
    "new_array",
    "overlap",
    "shape_of",
    "source_array",
]

#: Why the bytes of an object that makes an array whenever it is asked count as copied.
CONVERTED = "converted to an array by its own __array__"


def array_of(data: object, *, written: bool = False) -> NDArray[Any] | None:
    """Return a plain array over the memory of `data`; ``None``: it is something else, a URL, a path or a file object.

    Parameters
    ----------
    data
        An array of any subclass (matrix, record array, memmap), bytes, any object with the buffer protocol
        (``array.array``, ctypes, ``pyarrow.Buffer``), with ``__array_interface__``, ``__dlpack__`` or ``__array__``.
    written
        The result is to be written: the memory must be that of `data`, not a copy.

    Raises
    ------
    ParameterError
        It has no memory that an array can be over, or would lose a part of what it says: a mask, for example.
    """
    array, _ = source_array(data)
    if array is not None and written and _is_converted(data, array):
        raise ParameterError(
            f"{type(data).__name__}: results cannot be written to it, it gives a copy of its values; expected an array"
        )
    return array


def source_array(data: object) -> tuple[NDArray[Any] | None, bool]:
    """Do what `array_of` does, and tell whether the memory was made for this call, by the object's ``__array__``."""
    if type(data) is np.ndarray:
        return data, False
    if data is None or isinstance(data, (str, PathLike, type)):
        return None, False
    if isinstance(data, DeviceArray):
        raise ParameterError(f"{data!r} is in a card's memory, not the host's; expected .get(), which brings it here")
    try:
        array = _seen_as_array(data)
        if array is None and not hasattr(data, "__array__") and hasattr(data, "__cuda_array_interface__"):
            raise ParameterError(f"{type(data).__name__}: its memory is a GPU's; expected a copy in the host's memory")
        if array is not None or not hasattr(data, "__array__"):
            return array, False
        array = np.asarray(data)
        is_new = _holders(array) <= _OF_NEW[array.base is not None]
        return plain_array(array), is_new
    except ParameterError:
        raise
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise ParameterError(
            f"{type(data).__name__}: its memory cannot be used as an array ({error}); expected numbers in host memory"
        ) from None


def _holders(array: NDArray[Any]) -> int:
    """Count the references to the array whose memory this one is over."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return sys.getrefcount(owner) if owner.base is None else sys.maxsize  # memory of something else


def _holders_of_new(*, view: bool) -> int:
    """Count them for an array that was made just now, as `source_array` does; Python's versions count differently."""
    array = np.asarray(np.empty((2, 2)).T if view else np.empty((2, 2)))
    return _holders(array)


_OF_NEW = {False: _holders_of_new(view=False), True: _holders_of_new(view=True)}


def _seen_as_array(data: object) -> NDArray[Any] | None:
    if isinstance(data, np.ndarray):
        return plain_array(data)
    if isinstance(data, (bytes, bytearray)):
        return np.frombuffer(data, np.uint8)
    if hasattr(data, "__array_interface__"):
        return np.asarray(data)
    if (view := _view_of(data)) is not None:
        array = np.asarray(view)
        return array.view(np.uint8) if _is_raw(data) else array
    if hasattr(data, "__dlpack__"):
        exporter: Any = data  # numpy's types ask for a protocol that nobody but arrays declares
        return np.asarray(np.from_dlpack(exporter))
    return None


def _view_of(data: object) -> memoryview | None:
    """Return a view of any object with the buffer protocol, which Python names only from 3.12 on (``__buffer__``)."""
    try:
        return memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        return None


def _is_raw(data: object) -> bool:
    """Return whether the memory of `data` is bytes of no stated type."""
    if isinstance(data, (bytes, bytearray, mmap, Buffer)):
        return True
    if isinstance(data, memoryview):
        return data.format == "B"
    # pyarrow calls its bytes signed; what else it has, states its type
    return type(data).__module__.partition(".")[0] == "pyarrow" and _view_of(data) is not None and not _has_type(data)


def _has_type(data: object) -> bool:
    """Return whether an object of pyarrow's with the buffer protocol (a tensor) has elements of a stated type."""
    return hasattr(data, "type")


def keeps_memory(data: object) -> bool:
    """Return whether an array over the memory of `data` stays valid; what only makes arrays may make another one."""
    return isinstance(data, np.ndarray) or _view_of(data) is not None


def _is_converted(data: object, array: NDArray[Any]) -> bool:
    """Return whether `data` makes new memory whenever it is asked for an array."""
    if isinstance(data, np.ndarray) or _view_of(data) is not None:
        return False
    again, _ = source_array(data)
    return again is None or (array.size > 0 and not np.shares_memory(array, again))


def element_type_of(data: object, array: NDArray[Any] | None) -> np.dtype[Any] | None:
    """Return the element type that `data` states; ``None``: it states none, as raw bytes and files do."""
    return None if array is None or (not isinstance(data, np.ndarray) and _is_raw(data)) else array.dtype


def as_elements(
    dtype: np.dtype[Any] | None, array: NDArray[Any] | DeviceArray | None, declared: np.dtype[Any] | None
) -> np.dtype[Any] | None:
    """Return the element type of an array, as `declared` if its last axis or its struct is the declared vector."""
    if declared is None or array is None or dtype is None or not is_vector(declared):
        return dtype
    base, length = declared.base, declared.shape[0]
    if dtype == base and array.shape and array.shape[-1] == length:
        return declared
    if dtype.names is not None and dtype.itemsize == declared.itemsize:
        places = [(kind, offset // base.itemsize) for _, kind, offset in members_of(dtype)]
        if places == [(base, place) for place in range(len(places))]:
            return declared
    return dtype


def element_shape(array: NDArray[Any] | DeviceArray, dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Return the shape of an array in elements of `dtype`: a vector's numbers are not an axis of it."""
    return array.shape[:-1] if is_vector(dtype) and array.dtype == dtype.base else array.shape


def new_array(port: CallOutput, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a new pinned array for an output; one of vectors has an axis more."""
    return empty((*shape, *port.dtype.shape), port.dtype.base)


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
    check_type_and_size(port, array, expected)
    return array


def check_type_and_size(port: CallOutput, array: NDArray[Any] | DeviceArray, expected: int | None) -> None:
    """Raise `ParameterError` if element type or size of `array` is not that of an output of `expected` bytes."""
    if as_elements(array.dtype, array, port.dtype) != port.dtype:
        raise ParameterError(
            f"{port.name}: an array of {element_name(array.dtype)}; accelerator {port.accelerator!r} writes "
            f"{element_name(port.dtype)}"
        )
    if expected is not None and array.nbytes != expected:
        raise ParameterError(f"{port.name}: an array of {array.nbytes} bytes; this job's output has {expected}")


def check_whole_elements(port: CallOutput, nbytes: int) -> None:
    """Raise `ParameterError` if the `nbytes` that a kernel has written are not a whole number of elements."""
    if nbytes % port.dtype.itemsize:
        raise ParameterError(
            f"{port.name}: the output of {nbytes} bytes is not a whole number of {element_name(port.dtype)} elements "
            f"({port.dtype.itemsize} bytes each)"
        )


def overlap(source: NDArray[Any] | None, target: NDArray[Any]) -> bool:
    """Return whether two arrays share some of their memory, but not all of it."""
    if source is None or not np.shares_memory(source, target):
        return False
    a, b = (array.__array_interface__["data"][0] for array in (source, target))
    return a != b or source.nbytes != target.nbytes


def shape_of(port: CallOutput, nbytes: int, source: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of a new array of `nbytes`: the source's shape if each of its elements becomes one."""
    count = nbytes // port.dtype.itemsize
    if port.shape is not None:
        return port.shape
    if source is not None and math.prod(source) == count and port.rule.kind == "same":
        return source
    return (count,)
