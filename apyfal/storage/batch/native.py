"""Transfer small objects with the native transport; leave the others to the general path in Python."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal._core import transport
from apyfal.exceptions import AcceleratorException, ParameterError, StoreUnavailable
from apyfal.storage.api.arrays import seen_as
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.retry import limits_for
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.http.exchanges import ExchangeHandler, Exchanges, Replay, is_exchange_handler
from apyfal.storage.http.origin import Origin
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.mounting.mount import MountedPath
from apyfal.storage.transfer.parallel import FIRST_PART
from apyfal.storage.url import Location

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NativeExchanges", "NativeReads", "NativeWrites", "PathCounts", "is_moved_natively", "path_counts"]

#: Objects up to this size (bytes) are received with one request; for larger ones, several connections may be faster.
LARGEST = FIRST_PART
#: If a call has several origins, the native transport serves those with at least this many objects, one origin after
#: another; the general path serves all others at once.
_WORTH_ITS_TURN = 64

_NAMES = {
    transport.WAITING: "not tried",
    transport.ACTIVE: "not tried",
    transport.DONE: "native",
    transport.ANSWERED: "answered",
    transport.BROKEN: "broken",
    transport.STALLED: "stalled",
    transport.UNFIT: "unfit",
}


class PathCounts:
    """Counts by which path the transfers of batches went, for tests and for investigations of speed.

    ``native``: by the native transport alone. ``answered``, ``broken``, ``stalled``: the native transport received an
    unusual response, or a part of a response, and the general path continued with it. ``unfit``, ``not tried``: the
    general path started from the beginning. Transfers that never use the native transport are not counted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, states: bytes) -> None:
        """Count the states of a transport's exchanges."""
        with self._lock:
            for state, name in _NAMES.items():
                if count := states.count(state):
                    self._counts[name] += count

    def take(self) -> dict[str, int]:
        """Return the counts, and reset them to zero."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(counts)


path_counts = PathCounts()


def is_moved_natively(target: MountedPath) -> bool:
    """Return whether the native transport can move objects of a mount: one without a bandwidth limit."""
    handler = target.handler
    return is_exchange_handler(handler) and target.handler.bandwidth is None


class NativeExchanges(ABC):
    """Transfers the items of one call with the native transport.

    Attributes
    ----------
    first
        For the general path: by item, a function that replaces the first attempt, since that has been made.
    """

    #: Largest response body without a destination, in bytes.
    _largest = 0
    #: Whether the response heads are needed; whether the responses have no bodies.
    _keeps_heads = False
    _bodiless = False
    #: Whether a body whose size differs from its destination's goes into memory of the pool.
    _guesses = False

    def __init__(self, locations: Sequence[Location]) -> None:
        self._locations = locations
        self.first: dict[int, Any] = {}

    def takes(self, target: MountedPath) -> bool:
        """Return whether the native transport can move objects of this mount; see `is_moved_natively`."""
        return is_moved_natively(target)

    def run(
        self, target: MountedPath, indexes: Sequence[int], most: int, cancel: CancelToken, results: list[Any]
    ) -> list[int]:
        """Transfer the items `indexes` of one mount over up to `most` connections.

        Parameters
        ----------
        target
            A path of that mount.
        results
            Receives the results, by index.

        Returns
        -------
        list of int
            The items that are left, in order.

        Raises
        ------
        TransferCancelled
            `cancel` was set.
        """
        handler = target.handler
        if not is_exchange_handler(handler):
            return list(indexes)
        left = []
        mine: list[int] = []
        paths: list[str] = []
        for index in indexes:
            path = target.beside(self._locations[index]) if self._fits(index) else None
            if path is None:
                left.append(index)
            else:
                mine.append(index)
                paths.append(path)
        try:
            requests = self._requests(handler, mine, paths) if paths else []
        except AcceleratorException:
            return list(indexes)  # it is told for each item
        by_origin: dict[Origin, list[int]] = {}
        for number, (origin, _) in enumerate(requests):
            by_origin.setdefault(origin, []).append(number)
        for origin, numbers in by_origin.items():
            group = [mine[number] for number in numbers]
            worth = len(by_origin) == 1 or len(numbers) >= _WORTH_ITS_TURN
            if worth and handler.client.leads_straight_to(origin):
                heads = [requests[number][1] for number in numbers]
                with limits_for(target.handler).connections.turns(most, cancel) as connections:
                    done = Exchanges(
                        handler.client,
                        origin,
                        heads,
                        self._destinations(group),
                        self._contents(group),
                        most=connections,
                        largest=self._largest,
                        cancel=cancel,
                        keep_heads=self._keeps_heads,
                        bodiless=self._bodiless,
                        guessed=self._guesses,
                    )
                group = [index for number, index in enumerate(group) if not self._take(done, number, index, results)]
                if done.cancelled:
                    cancel.check()
                path_counts.add(done.states)
            left += group
        left.sort()
        return left

    def _take(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        """Take the result of an exchange; return whether the item is finished."""
        if done.states[number] == transport.DONE:
            return self._finish(done, number, index, results)
        replay = done.replay(number)
        if replay is not None:
            self.first[index] = self._first_attempt(replay)
        return False

    @abstractmethod
    def _fits(self, index: int) -> bool:
        """Whether an item is small enough for a single request."""

    @abstractmethod
    def _requests(self, handler: ExchangeHandler, indexes: list[int], paths: list[str]) -> list[tuple[Origin, bytes]]:
        """Return the origin and the head of the request for each item."""

    def _destinations(self, indexes: list[int]) -> list[NDArray[np.uint8] | None] | None:
        """Return the destinations of the response bodies; ``None``: there are none, or the transport's own memory."""
        return None

    def _contents(self, indexes: list[int]) -> list[NDArray[np.uint8]] | None:
        """Return the bodies of the requests."""
        return None

    @abstractmethod
    def _finish(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        """Take a normal response; return ``False`` if the general path has to repeat the request."""

    @abstractmethod
    def _first_attempt(self, replay: Replay) -> Any:
        """Return the first attempt for the general path: it starts with the unusual response."""


class NativeReads(NativeExchanges):
    """Reads of whole objects as arrays.

    Parameters
    ----------
    locations, places, kind
        As `load_many` has them; `places` may be ``None``.
    largest
        Largest object without a place, in bytes; a larger one is left to the general path.
    """

    def __init__(
        self,
        locations: Sequence[Location],
        places: Sequence[NDArray[Any]] | None,
        kind: np.dtype[Any],
        largest: int = LARGEST,
    ) -> None:
        super().__init__(locations)
        self._largest = largest
        self._places = places
        self._kind = kind

    def takes(self, target: MountedPath) -> bool:
        return not self._kind.hasobject and super().takes(target)

    def _fits(self, index: int) -> bool:
        return self._places is None or 0 < self._places[index].nbytes <= LARGEST

    def _requests(self, handler: ExchangeHandler, indexes: list[int], paths: list[str]) -> list[tuple[Origin, bytes]]:
        return handler.requests_to_read(paths)

    def _destinations(self, indexes: list[int]) -> list[NDArray[np.uint8] | None] | None:
        places = self._places
        return [None if places is None else _as_bytes(places[index]) for index in indexes]

    def _finish(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        if self._places is not None:
            results[index] = self._places[index]
            return True
        try:
            results[index] = seen_as(done.take(number), self._kind, self._locations[index])
        except ParameterError:
            return False
        return True

    def _first_attempt(self, replay: Replay) -> Any:
        def read(handler: Handler, path: str) -> RangeReader:
            response = replay.response()
            if not is_exchange_handler(handler):  # mounted again meanwhile
                return handler.read(path, 0, None, None)
            return handler.read_answered(path, response)

        return read


class NativeWrites(NativeExchanges):
    """Writes of whole objects from arrays.

    Parameters
    ----------
    locations, arrays, metadata
        As `save_many` has them.
    """

    def __init__(
        self, locations: Sequence[Location], arrays: Sequence[object], metadata: ObjectMetadata | None
    ) -> None:
        super().__init__(locations)
        self._arrays = arrays
        self._metadata = metadata

    def _fits(self, index: int) -> bool:
        array = self._arrays[index]
        return (
            type(array) is np.ndarray
            and array.flags.c_contiguous  # other arrays are copied, one at a time
            and not array.dtype.hasobject
            and 0 < array.nbytes <= LARGEST
        )

    def _requests(self, handler: ExchangeHandler, indexes: list[int], paths: list[str]) -> list[tuple[Origin, bytes]]:
        metadata = self._metadata if self._metadata is not None and self._metadata.stated else None
        return handler.requests_to_write(
            [(path, self._data(index).data) for path, index in zip(paths, indexes, strict=True)], metadata
        )

    def _data(self, index: int) -> NDArray[np.uint8]:
        array = np.asarray(self._arrays[index])
        return array if array.dtype == np.uint8 and array.ndim == 1 else array.reshape(-1).view(np.uint8)

    def _contents(self, indexes: list[int]) -> list[NDArray[np.uint8]] | None:
        return [self._data(index) for index in indexes]

    def _finish(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        return True  # the result is None, as it is already

    def _first_attempt(self, replay: Replay) -> Any:
        def write(handler: Handler, path: str, size: int) -> ObjectInfo:
            response = replay.response()
            if not is_exchange_handler(handler):
                raise StoreUnavailable(f"{replay.name}: another store was mounted")
            return handler.write_answered(path, size, response)

        return write


def _as_bytes(place: NDArray[Any]) -> NDArray[np.uint8]:
    return place if place.dtype == np.uint8 else place.reshape(-1).view(np.uint8)
