"""Copy many small objects from one store to another: one call reads a group while another writes the previous group."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apyfal.exceptions import AcceleratorException, TransferCancelled
from apyfal.storage.batch.native import LARGEST, NativeReads, NativeWrites, is_moved_natively
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.flow.metadata import carried_metadata
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.http.exchanges import MOST_CONNECTIONS, ExchangeHandler, Exchanges
from apyfal.storage.mounting.table import resolve
from apyfal.threads import start_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.storage.handler import ObjectInfo
    from apyfal.storage.http.origin import Origin
    from apyfal.storage.metadata import ObjectMetadata
    from apyfal.storage.mounting.mount import MountedPath
    from apyfal.storage.url import Location

__all__ = ["Copied", "copy_each"]

#: Size of a group (bytes, count). Two groups are in memory at once.
_GROUP_NBYTES = 16 << 20
_GROUP = 512
#: Largest object in bytes that is received without knowing its size before. A larger one is copied separately.
_UNKNOWN = 64 << 10

#: Called with the copies that were made: the indexes of the pairs, and the version of each source.
Copied = Callable[[list[tuple[int, "ObjectInfo"]]], object]


class _Route(NamedTuple):
    """A source store and a destination store; equal for all pairs with the same two."""

    source: MountedPath
    destination: MountedPath


class _Read(NamedTuple):
    """An object that was read into memory."""

    data: NDArray[np.uint8]
    info: ObjectInfo


def copy_each(
    pairs: Sequence[tuple[Location, Location]],
    sizes: Sequence[int | None],
    *,
    metadata: ObjectMetadata | None = None,
    copied: Copied,
    one_by_one: Callable[[list[int]], object],
) -> None:
    """Copy many objects; a few calls copy all the small ones.

    Each copy is as `apyfal.storage.copy` makes it: of one version of the source, verified if its store states a
    checksum, with the source's metadata, and either complete or absent.

    Parameters
    ----------
    pairs
        Sources, and the full names of their copies.
    sizes
        Sizes of the sources in bytes, from a listing; ``None``: not known.
    metadata
        Metadata that all copies get, such as a content type.
    copied
        Called in the calling thread with the copies that were made here, some at a time.
    one_by_one
        Copies the pairs with the given numbers as `apyfal.storage.copy` does: those that cannot be copied here, or
        failed here. An error that it raises ends the call.

    Raises
    ------
    TransferCancelled
        The caller's `CancelToken` was set.
    """
    routes, left = _sorted(pairs, sizes)
    cancel = CancelToken(current_cancel())
    try:
        for route, numbers in routes:
            with route.source, route.destination:
                _Copies(route, pairs, sizes, metadata, cancel).run(numbers, copied, one_by_one)
    finally:
        cancel.detach()
        for route, _ in routes:
            route.source.release()
            route.destination.release()
    if left:
        one_by_one(left)


def _sorted(
    pairs: Sequence[tuple[Location, Location]], sizes: Sequence[int | None]
) -> tuple[list[tuple[_Route, list[int]]], list[int]]:
    """Return the indexes of the pairs grouped by their stores, and those of the pairs that are copied one by one."""
    known: dict[tuple[str, str], tuple[_Route, list[int]] | None] = {}
    found: dict[tuple[int, int], tuple[_Route, list[int]]] = {}
    left: list[int] = []
    for number, ((source, destination), size) in enumerate(zip(pairs, sizes, strict=True)):
        schemes = source.scheme, destination.scheme
        if schemes not in known:
            known[schemes] = _group(source, destination, found)
        group = known[schemes]
        if group is None or (size is not None and not 0 < size <= LARGEST):
            left.append(number)
        else:
            group[1].append(number)
    return list(found.values()), left


def _group(
    source: Location, destination: Location, found: dict[tuple[int, int], tuple[_Route, list[int]]]
) -> tuple[_Route, list[int]] | None:
    """Return the group of a pair; ``None``: copy it separately."""
    web = ("http", "https")  # each address can belong to another mount
    if source.is_local or destination.is_local or source.scheme in web or destination.scheme in web:
        return None
    opened: list[MountedPath] = []
    try:
        for location in (source, destination):
            opened.append(resolve(location))  # noqa: PERF401  # after an error, those before it are released
    except AcceleratorException:
        for target in opened:
            target.release()
        return None  # copying this pair separately reports the error
    start, end = opened
    key = id(start.handler), id(end.handler)
    if key not in found and is_moved_natively(start) and is_moved_natively(end) and not start.same_store_as(end):
        group = found[key] = (_Route(start, end), [])
        return group
    start.release()
    end.release()
    return found.get(key)


class _Reads(NativeReads):
    """Reads objects into memory of the pool, with their descriptions from the responses."""

    _keeps_heads = True

    def __init__(self, locations: Sequence[Location], largest: int) -> None:
        super().__init__(locations, None, np.dtype(np.uint8), largest)
        self._paths: dict[int, str] = {}
        self._handler: ExchangeHandler | None = None

    def _requests(self, handler: ExchangeHandler, indexes: list[int], paths: list[str]) -> list[tuple[Origin, bytes]]:
        self._handler = handler
        self._paths.update(zip(indexes, paths, strict=True))
        return super()._requests(handler, indexes, paths)

    def _finish(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        memory = done.take(number)
        if memory is None or self._handler is None:
            return False
        with self._handler.read_answered(self._paths[index], done.head(number)) as reader:
            info = reader.info
        if info.size != len(memory):
            return False
        results[index] = _Read(np.frombuffer(memory, np.uint8), info)
        return True


class _Writes(NativeWrites):
    """Writes objects, each with its own metadata."""

    def __init__(
        self, locations: Sequence[Location], arrays: Sequence[object], carried: Mapping[int, ObjectMetadata | None]
    ) -> None:
        super().__init__(locations, arrays, None)
        self._carried = carried

    def _requests(self, handler: ExchangeHandler, indexes: list[int], paths: list[str]) -> list[tuple[Origin, bytes]]:
        found: list[tuple[Origin, bytes]] = []
        for metadata, group in groupby(zip(paths, indexes, strict=True), lambda one: self._carried[one[1]]):
            stated = metadata if metadata is not None and metadata.stated else None
            found += handler.requests_to_write([(path, self._data(index).data) for path, index in group], stated)
        return found

    def _finish(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        results[index] = True
        return True


class _Copies:
    """The copies from one store to another."""

    def __init__(
        self,
        route: _Route,
        pairs: Sequence[tuple[Location, Location]],
        sizes: Sequence[int | None],
        metadata: ObjectMetadata | None,
        cancel: CancelToken,
    ) -> None:
        self._route = route
        self._pairs = pairs
        self._sizes = sizes
        self._metadata = metadata
        self._cancel = cancel

    def run(self, numbers: list[int], copied: Copied, one_by_one: Callable[[list[int]], object]) -> None:
        """Write each group while the next one is read."""
        wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()  # whether another group is to be read
        ready: queue.SimpleQueue[tuple[list[int], list[Any]] | BaseException | None] = queue.SimpleQueue()
        ended = CancelToken(self._cancel)

        def read() -> None:
            try:
                with ended.scope():
                    for group in self._groups(numbers):
                        if not wanted.get():
                            return
                        ready.put((group, self._read(group, ended)))
                    ready.put(None)
            except BaseException as error:
                ready.put(error)

        threads = start_threads("copy-read", 1, read)
        try:
            with self._cancel.scope():
                wanted.put(True)
                while (found := ready.get()) is not None:
                    if isinstance(found, BaseException):
                        raise found
                    wanted.put(True)
                    left = self._write(*found, copied)
                    del found
                    if left:
                        one_by_one(left)
        finally:
            ended.set()
            wanted.put(False)
            threads[0].join()
            ended.detach()

    def _groups(self, numbers: list[int]) -> Iterator[list[int]]:
        group: list[int] = []
        nbytes = 0
        for number in numbers:
            size = self._sizes[number]
            size = _UNKNOWN if size is None else size
            if group and (len(group) == _GROUP or nbytes + size > _GROUP_NBYTES):
                yield group
                group, nbytes = [], 0
            group.append(number)
            nbytes += size
        if group:
            yield group

    def _read(self, group: list[int], cancel: CancelToken) -> list[Any]:
        source = self._route.source
        largest = max(self._sizes[number] or _UNKNOWN for number in group)
        reads = _Reads([self._pairs[number][0] for number in group], largest)
        results: list[Any] = [None] * len(group)
        reads.run(source, range(len(group)), _connections(source), cancel, results)
        return results

    def _write(self, group: list[int], found: list[Any], copied: Copied) -> list[int]:
        """Write the objects that were read; return the indexes of those that are left."""
        route = self._route
        mine = [place for place, one in enumerate(found) if one is not None]
        options = TransferOptions(cancel=self._cancel)
        carried: dict[int, ObjectMetadata | None] = {}
        for place in mine:
            carried[place] = carried_metadata(
                route.source.handler, found[place].info, route.destination.handler, self._metadata, options
            )
        arrays = [None if one is None else one.data for one in found]
        writes = _Writes([self._pairs[number][1] for number in group], arrays, carried)
        results: list[Any] = [None] * len(group)
        try:
            writes.run(route.destination, mine, _connections(route.destination), self._cancel, results)
        except TransferCancelled:
            self._report_copied(group, found, results, copied)
            raise
        return self._report_copied(group, found, results, copied)

    @staticmethod
    def _report_copied(group: list[int], found: list[Any], results: list[Any], copied: Copied) -> list[int]:
        told = [(number, one.info) for number, one, done in zip(group, found, results, strict=True) if done]
        if told:
            copied(told)
        return [number for number, done in zip(group, results, strict=True) if not done]


def _connections(target: MountedPath) -> int:
    most = TransferOptions().connections(target.handler)[1]
    return min(target.handler.max_concurrency or most, MOST_CONNECTIONS)
