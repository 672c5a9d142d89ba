"""`load`, `save`, `stat` and `remove` on many files and objects at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from apyfal.exceptions import ObjectNotFound, ParameterError, StorageError, TransferCancelled
from apyfal.storage.api.arrays import load_with, save_with
from apyfal.storage.api.namespace import remove, stat_at
from apyfal.storage.batch.lanes import Bulk, run_each
from apyfal.storage.batch.lookups import BulkRemovals, NativeLookUps
from apyfal.storage.batch.native import NativeReads, NativeWrites
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.url import Location, is_file_object, parse

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal.storage.flow.cancel import CancelToken
    from apyfal.storage.mounting.mount import MountedPath

__all__ = [
    "load_each",
    "load_many",
    "remove_listed",
    "remove_many",
    "save_each",
    "save_many",
    "stat_each",
    "stat_many",
]

Result = TypeVar("Result")


@overload
def load_many(
    urls: Iterable[object],
    out: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    *,
    dtype: DTypeLike = "uint8",
    return_exceptions: Literal[False] = False,
) -> list[NDArray[Any]]: ...


@overload
def load_many(
    urls: Iterable[object],
    out: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    *,
    dtype: DTypeLike = "uint8",
    return_exceptions: bool,
) -> list[NDArray[Any] | Exception]: ...


def load_many(
    urls: Iterable[object],
    out: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    *,
    dtype: DTypeLike = "uint8",
    return_exceptions: bool = False,
) -> Any:
    """Read many whole files or objects as arrays, several at once, each as `load` does.

    Parameters
    ----------
    urls
        Storage URLs and paths, of one store or of several.
    out
        Arrays to fill, one an item; or one array whose first dimension counts the items. They must not overlap.
    dtype
        Element type of the arrays, without `out`.
    return_exceptions
        ``True``: the error of an item takes the place of its array, and the others go on. ``False``: the first error
        ends the call.

    Returns
    -------
    list of ndarray
        In the order of `urls`, owned by the caller. Further memory is needed for the connections only.

    Raises
    ------
    ParameterError
        `out` does not fit, or an item of `urls` is not a URL or path. Nothing has been read then.
    StorageError
        As for `load`; the message names the object. The content of `out` is undefined then; with
        `return_exceptions`, only that of items with errors.
    """
    locations = _parsed(urls, "load_many")
    kind = np.dtype(dtype)
    places = None if out is None else _places(out, len(locations))
    native = NativeReads(locations, places, kind)

    def work(index: int, options: TransferOptions) -> NDArray[Any]:
        place = None if places is None else places[index]
        return load_with(options, locations[index].url, kind, None, place, first=native.first.pop(index, None))

    return run_each(locations, work, return_exceptions=return_exceptions, bulk=native)


def save_many(
    urls: Iterable[object],
    arrays: Iterable[NDArray[Any]],
    *,
    metadata: ObjectMetadata | Mapping[str, Any] | None = None,
    return_exceptions: bool = False,
) -> list[Exception | None]:
    """Write many arrays as whole files or objects, several at once, each as `save` does.

    Parameters
    ----------
    urls
        Storage URLs and paths, each only once.
    arrays
        What to write, one an item. They must not change before this returns.
    metadata
        Content type and the like of all objects, as for `save`.
    return_exceptions
        As for `load_many`.

    Returns
    -------
    list
        ``None`` for each item, or its error with `return_exceptions`.

    Raises
    ------
    ParameterError
        The numbers of URLs and arrays differ, or a URL occurs twice. Nothing has been written then.
    StorageError
        As for `save`. Each object is then complete or unchanged; objects that were completed before stay.
    """
    locations = _parsed(urls, "save_many")
    _require_distinct(locations, "save_many")
    data = list(arrays)
    if len(data) != len(locations):
        raise ParameterError(f"save_many: {len(locations)} URLs and {len(data)} arrays; expected as many of each")
    stated = ObjectMetadata.of(metadata)

    native = NativeWrites(locations, data, stated)

    def work(index: int, options: TransferOptions) -> None:
        save_with(options, locations[index].url, data[index], stated, native.first.pop(index, None))

    return run_each(locations, work, return_exceptions=return_exceptions, bulk=native)


@overload
def stat_many(urls: Iterable[object], *, return_exceptions: Literal[False] = False) -> list[ObjectInfo]: ...


@overload
def stat_many(urls: Iterable[object], *, return_exceptions: bool) -> list[ObjectInfo | Exception]: ...


def stat_many(urls: Iterable[object], *, return_exceptions: bool = False) -> Any:
    """Look many files, objects or directories up, several at once, each as `stat` does.

    Parameters
    ----------
    urls, return_exceptions
        As for `load_many`.

    Returns
    -------
    list of ObjectInfo
        In the order of `urls`.

    Raises
    ------
    ObjectNotFound, AccessDenied, NotADirectory, StorageError
        One of them cannot be looked up, without `return_exceptions`.
    """
    locations = _parsed(urls, "stat_many")
    native = NativeLookUps(locations)
    return run_each(locations, _of(locations, stat_at), return_exceptions=return_exceptions, bulk=native)


def remove_many(urls: Iterable[object], *, return_exceptions: bool = False) -> list[Exception | None]:
    """Remove many files or objects, several at once, each as `remove` does.

    Parameters
    ----------
    urls
        Storage URLs and paths, each only once.
    return_exceptions
        As for `load_many`.

    Returns
    -------
    list
        ``None`` for each item, or its error with `return_exceptions`.

    Raises
    ------
    ParameterError
        A URL occurs twice. Nothing has been removed then.
    ObjectNotFound, IsADirectory, AccessDenied, UnsupportedByStore, StorageError
        One of them cannot be removed, without `return_exceptions`. Others may have been removed by then.
    """
    locations = _parsed(urls, "remove_many")
    _require_distinct(locations, "remove_many")
    work = _of(locations, lambda location: remove(location.url))
    bulk = BulkRemovals(locations, keep_errors=return_exceptions)
    return run_each(locations, work, return_exceptions=return_exceptions, bulk=bulk)


#: Called with results that are known before the others: (number of the item, result or error) of each.
OnResults = Callable[[Sequence[tuple[int, Any]]], object]


class _ReportingBulk:
    """Processes items in bulk, and reports their results before the remaining items begin."""

    def __init__(self, bulk: Bulk, on_results: OnResults) -> None:
        self._bulk = bulk
        self._on_results = on_results

    def takes(self, target: MountedPath) -> bool:
        return self._bulk.takes(target)

    def run(
        self, target: MountedPath, indexes: Sequence[int], most: int, cancel: CancelToken, results: list[Any]
    ) -> Sequence[int]:
        left = self._bulk.run(target, indexes, most, cancel, results)
        if left:
            waiting = set(left)
            self._on_results([(index, results[index]) for index in indexes if index not in waiting])
        return left


def _run_reporting(
    locations: Sequence[Location],
    work: Callable[[int, TransferOptions], Result],
    bulk: Bulk,
    on_results: OnResults | None,
) -> list[Result | Exception]:
    """Do the work for each item; `on_results` is called with results that are known before the others."""
    if len(locations) < 2:
        return run_each(locations, work, return_exceptions=True)
    if on_results is None:
        return run_each(locations, work, return_exceptions=True, bulk=bulk)

    def reporting_work(index: int, options: TransferOptions) -> Result:
        try:
            result = work(index, options)
        except Exception as error:
            if not isinstance(error, TransferCancelled):
                on_results([(index, error)])
            raise
        on_results([(index, result)])
        return result

    return run_each(locations, reporting_work, return_exceptions=True, bulk=_ReportingBulk(bulk, on_results))


def load_each(locations: Sequence[Location], on_results: OnResults | None = None) -> list[NDArray[Any] | Exception]:
    """Read whole files or objects; return the array or the error of each."""
    kind = np.dtype(np.uint8)
    native = NativeReads(locations, None, kind)

    def work(index: int, options: TransferOptions) -> NDArray[Any]:
        return load_with(options, locations[index].url, kind, first=native.first.pop(index, None))

    return _run_reporting(locations, work, native, on_results)


def save_each(
    items: Sequence[tuple[Location, NDArray[Any]]], on_results: OnResults | None = None
) -> list[Exception | None]:
    """Write arrays as whole files or objects; return the error of each, if any."""
    locations = [location for location, _ in items]
    native = NativeWrites(locations, [array for _, array in items], None)

    def work(index: int, options: TransferOptions) -> None:
        save_with(options, locations[index].url, items[index][1], None, native.first.pop(index, None))

    return _run_reporting(locations, work, native, on_results)


def stat_each(locations: Sequence[Location], on_results: OnResults | None = None) -> list[ObjectInfo | Exception]:
    """Look up files, objects or directories; return the description or the error of each."""
    return _run_reporting(locations, _of(locations, stat_at), NativeLookUps(locations), on_results)


def remove_listed(locations: Sequence[Location]) -> list[Exception | None]:
    """Remove files and objects that a listing has just named. It is not an error if one has been removed meanwhile.

    Returns
    -------
    list
        For each, ``None`` or the error that says why it still exists.
    """

    def work(index: int, options: TransferOptions) -> None:
        with contextlib.suppress(ObjectNotFound):
            remove(locations[index].url)

    return run_each(
        locations, work, return_exceptions=True, bulk=BulkRemovals(locations, keep_errors=True, present=True)
    )


def _of(
    locations: Sequence[Location], function: Callable[[Location], Result]
) -> Callable[[int, TransferOptions], Result]:
    return lambda index, options: function(locations[index])


def _parsed(urls: Iterable[object], name: str) -> list[Location]:
    if isinstance(urls, str | bytes) or is_file_object(urls) or not isinstance(urls, Iterable):
        raise ParameterError(f"{name}: expected URLs or paths in a list, not one {type(urls).__name__}")
    found = []
    for index, url in enumerate(urls):
        if is_file_object(url):
            raise ParameterError(f"{name}: item {index} is an open file; expected a URL or path")
        try:
            found.append(parse(url))
        except (ParameterError, StorageError) as error:
            raise type(error)(f"{name}: item {index}: {error}") from error
    return found


def _require_distinct(locations: Sequence[Location], name: str) -> None:
    seen: dict[Location, int] = {}
    for index, location in enumerate(locations):
        first = seen.setdefault(location, index)
        if first != index:
            raise ParameterError(f"{name}: items {first} and {index} are both {str(location)!r}; expected it once")


def _places(out: NDArray[Any] | Sequence[NDArray[Any]], count: int) -> list[NDArray[Any]]:
    """Return the array of each item, checked."""
    if isinstance(out, np.ndarray):
        if out.ndim < 1 or len(out) != count:
            raise ParameterError(f"load_many: out has the shape {out.shape}; expected {count} items in front")
        # out[index] of one dimension is a scalar, and no array to fill
        places = [out[index : index + 1] if out.ndim == 1 else out[index] for index in range(count)]
    else:
        places = list(out)
        if len(places) != count:
            raise ParameterError(f"load_many: {count} URLs and {len(places)} arrays in out; expected as many of each")
    spans = []
    for index, place in enumerate(places):
        if not isinstance(place, np.ndarray):
            raise ParameterError(f"load_many: out[{index}] is a {type(place).__name__}; expected a numpy array")
        if place.dtype.hasobject or not place.flags.c_contiguous or not place.flags.writeable:
            raise ParameterError(f"load_many: out[{index}] is not C-contiguous and writable, or holds Python objects")
        if place.nbytes:
            spans.append((place.ctypes.data, place.ctypes.data + place.nbytes, index))
    spans.sort()
    for (_, stop, first), (start, _, second) in pairwise(spans):
        if start < stop:
            raise ParameterError(f"load_many: out[{first}] and out[{second}] overlap in memory")
    return places
