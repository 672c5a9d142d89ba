"""Small objects by the native transport: which transfers go that way, and what is left for the careful one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal._core import transport
from apyfal.exceptions import AcceleratorException, ParameterError
from apyfal.storage.api.arrays import seen_as
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.handler import Handler, RangeReader
from apyfal.storage.http.exchanges import ExchangeHandler, Exchanges, Replay
from apyfal.storage.http.origin import Origin
from apyfal.storage.mounting.mount import MountedPath
from apyfal.storage.transfer.parallel import FIRST_PART
from apyfal.storage.url import Location

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    First = Callable[[Handler, str], RangeReader]

__all__ = ["NativeReads", "Ways", "ways"]

#: Objects up to this size (bytes) are received by one request; larger ones may be worth several connections.
LARGEST = FIRST_PART

_NAMES = {
    transport.WAITING: "not tried",
    transport.ACTIVE: "not tried",
    transport.DONE: "native",
    transport.ANSWERED: "answered",
    transport.BROKEN: "broken",
    transport.STALLED: "stalled",
    transport.UNFIT: "unfit",
}


class Ways:
    """Counts which way transfers of batches went, by name: for tests, and for who wonders about the speed.

    ``native``: by the native transport alone. ``answered``, ``broken``, ``stalled``: it received another answer than
    the ordinary one, or a part of one, with which the careful path began. ``unfit``, ``not tried``: the careful path
    began anew. Those that the native transport is never asked for are not counted.
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
        """Return the counts, and begin at zero again."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(counts)


ways = Ways()


class NativeReads:
    """Reads of whole objects as arrays.

    Parameters
    ----------
    locations, places, kind
        As `load_many` has them; `places` may be ``None``.

    Attributes
    ----------
    first
        For the careful path: its first attempt at an item that has been tried, with `load_with`.
    """

    def __init__(
        self, locations: Sequence[Location], places: Sequence[NDArray[Any]] | None, kind: np.dtype[Any]
    ) -> None:
        self._locations = locations
        self._places = places
        self._kind = kind
        self.first: dict[int, First] = {}

    def takes(self, target: MountedPath) -> bool:
        """Whether objects of this mount may be read so: it has no limit of bandwidth, and knows how to ask."""
        handler = target.handler
        return isinstance(handler, ExchangeHandler) and handler.bandwidth is None and not self._kind.hasobject

    def run(
        self, target: MountedPath, indexes: Sequence[int], most: int, cancel: CancelToken, results: list[Any]
    ) -> list[int]:
        """Read the items `indexes` of one mount over up to `most` connections.

        Parameters
        ----------
        target
            One path of that mount.
        results
            Where the arrays go, by index.

        Returns
        -------
        list of int
            The items that are left, in order.

        Raises
        ------
        TransferCancelled
            By `cancel`.
        """
        handler = target.handler
        if not isinstance(handler, ExchangeHandler):
            return list(indexes)
        left = []
        mine: list[int] = []
        paths: list[str] = []
        for index in indexes:
            path = target.beside(self._locations[index])
            if path is None or (self._places is not None and not 0 < self._places[index].nbytes <= LARGEST):
                left.append(index)
            else:
                mine.append(index)
                paths.append(path)
        try:
            requests = handler.requests_to_read(paths) if paths else []
        except AcceleratorException:
            return list(indexes)  # it is told for each item
        by_origin: dict[Origin, list[int]] = {}
        for number, (origin, _) in enumerate(requests):
            by_origin.setdefault(origin, []).append(number)
        for origin, numbers in by_origin.items():
            group = [mine[number] for number in numbers]
            if handler.client.leads_straight_to(origin):
                group = self._exchange(handler, origin, group, [requests[n][1] for n in numbers], most, cancel, results)
            left += group
        left.sort()
        return left

    def _exchange(
        self,
        handler: ExchangeHandler,
        origin: Origin,
        indexes: list[int],
        requests: list[bytes],
        most: int,
        cancel: CancelToken,
        results: list[Any],
    ) -> list[int]:
        places = self._places
        outs = [None if places is None else _as_bytes(places[index]) for index in indexes]
        done = Exchanges(handler.client, origin, requests, outs, most=most, largest=LARGEST, cancel=cancel)
        ways.add(done.states)
        left = []
        for number, (index, state) in enumerate(zip(indexes, done.states, strict=True)):
            if state == transport.DONE:
                if places is not None:
                    results[index] = places[index]
                    continue
                try:
                    results[index] = seen_as(done.take(number), self._kind, str(self._locations[index]))
                    continue
                except ParameterError as error:
                    results[index] = error
            elif (replay := done.replay(number)) is not None:
                self.first[index] = partial(_read_again, replay)
            left.append(index)
        return left


def _as_bytes(place: NDArray[Any]) -> NDArray[np.uint8]:
    return place if place.dtype == np.uint8 else place.reshape(-1).view(np.uint8)


def _read_again(replay: Replay, handler: Handler, path: str) -> RangeReader:
    """Begin to read an object with the answer that has been received."""
    response = replay.response()
    if not isinstance(handler, ExchangeHandler):  # mounted anew meanwhile
        return handler.read(path, 0, None, None)
    return handler.read_answered(path, response)
