"""Whole files and objects as arrays: `load` and `save`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.exceptions import ParameterError, UnsupportedByStore
from apyfal.memory import plain_array
from apyfal.storage import transfer
from apyfal.storage.endpoints.factory import sink_at, source_at
from apyfal.storage.endpoints.sinks import FileObjectSink
from apyfal.storage.endpoints.sources import FileObjectSource, LocalSource, Source
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.mounting.table import resolve
from apyfal.storage.url import is_file_object, parse

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal.storage.handler import Handler, ObjectInfo, RangeReader

__all__ = ["load", "load_with", "save", "save_with", "seen_as"]

#: What memory for data of unknown size begins with, and at least grows by (bytes).
_FIRST = 1 << 20


def load(
    url: object,
    dtype: DTypeLike = "uint8",
    shape: int | Sequence[int] | None = None,
    out: NDArray[Any] | None = None,
    *,
    version: str | None = None,
) -> NDArray[Any]:
    """Read a whole file or object as an array, with no copy on the way.

    Parameters
    ----------
    url
        A storage URL, a path, or an open binary file, read from its position on.
    dtype, shape
        How the bytes are seen; one dimension may be -1. Default: one dimension.
    out
        An array to fill instead, C-contiguous and of exactly the object's size; `dtype` and `shape` are then its own.

    version
        The store's own id of a version of an object, as `stat` tells it; by default the current one.

    Returns
    -------
    ndarray
        In pinned memory of the pool, received at its final address; or, for a local file, the file itself, mapped: that
        is two to three times as fast as reading, and the array is read-only (a copy, or `out`, can be changed). While
        it lives, the file must not be cut short: to touch what is missing ends the process (SIGBUS), as with any map.

    Raises
    ------
    ParameterError
        When size, dtype and shape do not fit together, or `out` cannot be filled.
    ObjectNotFound, IsADirectory, AccessDenied, ObjectChanged, ChecksumMismatch, StorageError
        When it cannot be read; the content of `out` is undefined then.
    """
    return load_with(TransferOptions(), url, dtype, shape, out, version)


def load_with(
    options: TransferOptions,
    url: object,
    dtype: DTypeLike = "uint8",
    shape: int | Sequence[int] | None = None,
    out: NDArray[Any] | None = None,
    version: str | None = None,
    first: Callable[[Handler, str], RangeReader] | None = None,
) -> NDArray[Any]:
    """Do what `load` does, with options for the transfer from a store.

    `first` is given the handler and the path of an object, and makes the first attempt; see `transfer.download`.
    """
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise ParameterError(f"dtype {kind} holds Python objects; expected a type of numbers, text or bytes")
    if version is not None and (is_file_object(url) or parse(url).is_local):
        raise UnsupportedByStore("a local file keeps no versions; expected a storage URL")
    if is_file_object(url):
        with FileObjectSource(url) as source:
            return _filled(source, out) if out is not None else _seen(_read(source), kind, shape, source.name)
    location = parse(url)
    name = str(location)
    if not location.is_local:
        with resolve(location) as target:
            target.require_object("read")
            memory = _Growing()
            view = _view_of(out, name) if out is not None else None
            handler, found = target.handler, None
            if version is not None:
                what = f"cannot read version {version!r} of {name!r}"
                found = retry_call(handler, lambda: handler.describe_version(target.path, version), what)
            info = transfer.download(
                handler,
                target.path,
                view,
                info=found,
                allocate=None if out is not None else memory,
                options=options,
                first=None if first is None else partial(first, handler, target.path),
            )
            size = info.size or 0
            if out is None:
                return _seen(memory.array[:size], kind, shape, name)
            _require_size(out, size, name)
            return out
    with source_at(location) as source:
        if out is not None:
            return _filled(source, out)
        if isinstance(source, LocalSource) and source.path is not None and source.size:
            return _seen(_mapped(source.fileno(), source.size), kind, shape, name)
        return _seen(_read(source), kind, shape, name)


def save(url: object, array: NDArray[Any], *, metadata: ObjectMetadata | Mapping[str, Any] | None = None) -> None:
    """Write an array's bytes, in C order, as a whole file or object; nothing is copied if they lie so in memory.

    Parameters
    ----------
    url
        A storage URL, a path, or an open binary file.
    array
        What to write. Neither dtype nor shape is stored.
    metadata
        Content type and the like of an object in a store, as for `open`.

    Raises
    ------
    ParameterError
        For an array of Python objects.
    AccessDenied, IsADirectory, StorageError
        When it cannot be written; the destination is then as it was.
    """
    save_with(TransferOptions(), url, array, metadata)


def save_with(
    options: TransferOptions,
    url: object,
    array: NDArray[Any],
    metadata: ObjectMetadata | Mapping[str, Any] | None = None,
    first: Callable[[Handler, str, int], ObjectInfo] | None = None,
) -> None:
    """Do what `save` does, with options for the transfer to a store.

    `first` is given the handler, the path and the size of an object, and makes the first attempt at writing it.
    """
    array = plain_array(np.asanyarray(array))
    if array.dtype.hasobject:
        raise ParameterError(f"an array of dtype {array.dtype} holds Python objects; expected numbers, text or bytes")
    data = _bytes_of(np.ascontiguousarray(array))
    stated = ObjectMetadata.of(metadata)
    if is_file_object(url):
        if stated is not None:
            raise ParameterError("an open file takes no metadata; expected a storage URL")
        with FileObjectSink(url) as sink:
            sink.write(data)
        return
    location = parse(url)
    if location.is_local:
        with sink_at(location, len(data), metadata=stated) as local_sink:
            local_sink.write(data)
        return
    with resolve(location) as target:
        target.require_object("write")
        attempt = None if first is None else partial(first, target.handler, target.path, len(data))
        transfer.upload(target.handler, target.path, data, metadata=stated, options=options, first=attempt)


class _Growing:
    """Pinned memory for an object, as the engine asks for it."""

    def __init__(self) -> None:
        self.array = _pinned(0)

    def __call__(self, size: int) -> memoryview:
        self.array = _pinned(size)
        return _bytes_of(self.array)


def _pinned(size: int) -> NDArray[Any]:
    from apyfal.memory import empty

    return empty(size, np.uint8)


def _mapped(descriptor: int, size: int) -> NDArray[Any]:
    from apyfal._core.mapped_file import map_file

    return np.frombuffer(memoryview(map_file(descriptor, 0, size)), np.uint8)


def _read(source: Source) -> NDArray[Any]:
    """Read everything into pinned memory."""
    size = source.size
    array = _pinned(_FIRST if size is None else size)
    done = 0
    while size is None or done < size:
        if done == len(array):
            larger = _pinned(2 * done)
            larger[:done] = array
            array = larger
        count = source.readinto(_bytes_of(array)[done:])
        if not count:
            break
        done += count
    return array[:done]


def _filled(source: Source, out: NDArray[Any]) -> NDArray[Any]:
    view = _view_of(out, source.name)
    if source.size is not None:
        _require_size(out, source.size, source.name)
    done = 0
    while done < len(view) and (count := source.readinto(view[done:])):
        done += count
    if done == len(view) and source.size is None and source.readinto(memoryview(bytearray(1))):
        raise ParameterError(f"{source.name!r} holds more than the {done} bytes of out")
    _require_size(out, done, source.name)
    return out


def _view_of(out: NDArray[Any], name: str) -> memoryview:
    if not isinstance(out, np.ndarray):
        raise ParameterError(f"cannot load {name!r} into a {type(out).__name__}; expected a numpy array as out")
    if out.dtype.hasobject or not out.flags.c_contiguous or not out.flags.writeable:
        wrong = "of Python objects" if out.dtype.hasobject else "not C-contiguous and writable"
        raise ParameterError(f"cannot load {name!r} into out: the array is {wrong}")
    return _bytes_of(out)


def _require_size(out: NDArray[Any], size: int, name: str) -> None:
    if out.nbytes != size:
        raise ParameterError(f"{name!r} holds {size} bytes, but out has {out.nbytes}")


def seen_as(memory: memoryview | None, kind: np.dtype[Any], name: object) -> NDArray[Any]:
    """Return what `load` returns for bytes that lie in memory of the pool already; ``None``: there are none."""
    return _seen(_pinned(0) if memory is None else np.frombuffer(memory, np.uint8), kind, None, name)


def _seen(data: NDArray[Any], kind: np.dtype[Any], shape: int | Sequence[int] | None, name: object) -> NDArray[Any]:
    if kind.itemsize == 0 or len(data) % kind.itemsize:
        raise ParameterError(
            f"{str(name)!r} holds {len(data)} bytes, no whole number of {kind} ({kind.itemsize} bytes each)"
        )
    array = data.view(kind)
    if shape is None:
        return array
    wanted = (shape,) if isinstance(shape, int) else tuple(shape)
    fits = math.prod(wanted) == array.size
    if wanted.count(-1) == 1:
        rest = math.prod(length for length in wanted if length != -1)
        fits = rest > 0 and array.size % rest == 0
    if not fits or any(length < -1 for length in wanted):
        raise ParameterError(f"{str(name)!r} holds {array.size} of {kind}, which do not make the shape {wanted}")
    return array.reshape(wanted)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(bytearray(0))
