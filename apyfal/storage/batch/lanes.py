"""Threads that process items of several stores at once, within each mount's limit of connections."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from apyfal.exceptions import AcceleratorException
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.http.exchanges import MOST_CONNECTIONS
from apyfal.storage.mounting.mount import MountedPath
from apyfal.storage.mounting.table import resolve
from apyfal.storage.url import Location
from apyfal.threads import start_threads

__all__ = ["MOST_THREADS", "Bulk", "in_threads", "run_each"]

Result = TypeVar("Result")

#: Most threads of one call, whatever the number of stores. Above this, items of different stores share the threads.
MOST_THREADS = 32
#: Most items in one bulk call: its errors are handled before the next call.
_BULK = 2048
#: Most local files at once: more would only wait for the same disk.
_LOCAL = 8


class Bulk(Protocol):
    """Processes many items of one mount in one call, if possible."""

    def takes(self, target: MountedPath) -> bool:
        """Whether items of this mount can be processed in bulk."""
        raise NotImplementedError

    def run(
        self, target: MountedPath, indexes: Sequence[int], most: int, cancel: CancelToken, results: list[Any]
    ) -> Sequence[int]:
        """Process items over up to `most` connections, put their outcomes into `results`, and return the items left."""
        raise NotImplementedError


@dataclass
class _Lane:
    """The items of one mount, and how many of them may be in progress.

    Attributes
    ----------
    limit, most
        Items at once; connections at once for bulk calls.
    waiting, bulk
        Items to process one by one; items to try in bulk first.
    """

    limit: int
    options: TransferOptions
    most: int = 0
    target: MountedPath | None = None
    waiting: deque[int] = field(default_factory=deque)
    bulk: deque[int] = field(default_factory=deque)
    busy: int = 0


class _Run(Generic[Result]):
    def __init__(
        self,
        locations: Sequence[Location],
        work: Callable[[int, TransferOptions], Result],
        keep_errors: bool,
        cancel: CancelToken,
        lanes: list[_Lane],
    ) -> None:
        self.results: list[Result | Exception | None] = [None] * len(locations)
        self.failure: BaseException | None = None
        self._work = work
        self._keep_errors = keep_errors
        self._cancel = cancel
        self._lanes = lanes
        self._lock = threading.Lock()

    def work(self) -> None:
        """Process items until none may be started."""
        with self._cancel.scope():
            while (claimed := self._claim()) is not None:
                lane, index = claimed
                try:
                    self.results[index] = self._work(index, lane.options)
                except BaseException as error:
                    if self._keep_errors and isinstance(error, Exception) and not self._cancel.is_set():
                        self.results[index] = error
                    else:
                        with self._lock:
                            if not self._cancel.is_set():  # later ones may fail because of the cancellation
                                self.failure = error
                            self._cancel.set()
                finally:
                    with self._lock:
                        lane.busy -= 1

    def work_in_bulk(self, lane: _Lane, bulk: Bulk) -> None:
        """Process the next items of a mount in bulk; those that are left are processed one by one."""
        indexes = [lane.bulk.popleft() for _ in range(min(_BULK, len(lane.bulk)))]
        if lane.target is None or not indexes:
            return
        try:
            lane.waiting.extend(bulk.run(lane.target, indexes, lane.most, self._cancel, self.results))
        except BaseException as error:
            with self._lock:
                if not self._cancel.is_set():
                    self.failure = error
                self._cancel.set()

    def _claim(self) -> tuple[_Lane, int] | None:
        """Take the next item of the mount that is furthest from its limit."""
        with self._lock:
            if self._cancel.is_set():
                return None
            free = [lane for lane in self._lanes if lane.waiting and lane.busy < lane.limit]
            if not free:
                return None  # the running threads take the rest: each claims again after its item
            lane = min(free, key=lambda one: one.busy / one.limit)
            lane.busy += 1
            return lane, lane.waiting.popleft()


def run_each(
    locations: Sequence[Location],
    work: Callable[[int, TransferOptions], Result],
    *,
    return_exceptions: bool,
    bulk: Bulk | None = None,
) -> list[Result | Exception]:
    """Call ``work(index, options)`` for each location, several at once; return the results in the same order.

    All threads have ended when this returns or raises. A thread of a mount is one connection, so that the mount's
    ``max_concurrency`` holds for all items together; with fewer items than that, each may use several (the options say
    so).

    Parameters
    ----------
    locations
        Locations of the items; items of one mount share its limit.
    work
        Processes one item; the cancellation of the calling scope applies.
    return_exceptions
        ``True``: an item's error is its result, and the others go on. ``False``: the first error ends the others.
    bulk
        Is called first, to process items of a mount in bulk; ``None``: no bulk calls.

    Raises
    ------
    TransferCancelled
        The caller's `CancelToken` was set.
    Exception
        The error of an item, without `return_exceptions`.
    """
    cancel = CancelToken(current_cancel())
    with contextlib.ExitStack() as leases:
        lanes, refused = _lanes(locations, cancel, leases, return_exceptions, bulk)
        run = _Run(locations, work, return_exceptions, cancel, lanes)
        for index, error in refused.items():
            run.results[index] = error
        try:
            while not cancel.is_set():
                if bulk is not None:
                    _work_in_bulk(run, [lane for lane in lanes if lane.bulk], bulk, cancel)
                _work_by_threads(run, lanes, cancel)
                if not any(lane.bulk for lane in lanes):
                    break
        finally:
            cancel.detach()
        if run.failure is not None:
            raise run.failure
        cancel.check()
        return run.results  # type: ignore[return-value]  # each item has been done


def _work_in_bulk(run: _Run[Any], lanes: list[_Lane], bulk: Bulk, cancel: CancelToken) -> None:
    """Process the next items of each of these mounts in bulk, all mounts at once."""
    if len(lanes) < 2:
        for lane in lanes:
            run.work_in_bulk(lane, bulk)
        return
    queue = deque(lanes)
    in_threads("batch", len(lanes), lambda: run.work_in_bulk(queue.popleft(), bulk), cancel)


def _work_by_threads(run: _Run[Any], lanes: list[_Lane], cancel: CancelToken) -> None:
    """Process all items that wait to be processed one by one."""
    for lane in lanes:
        lane.limit = min(lane.limit, MOST_THREADS)
        lane.options = replace(lane.options, max_concurrency=max(1, lane.limit // max(1, len(lane.waiting))))
    count = min(MOST_THREADS, sum(min(lane.limit, len(lane.waiting)) for lane in lanes))
    if count > 1:
        in_threads("batch", count, run.work, cancel)
    elif count:
        run.work()


def in_threads(name: str, count: int, work: Callable[[], object], cancel: CancelToken) -> None:
    """Call `work` in `count` threads, and wait for their end; a signal that interrupts the waiting cancels them.

    All have ended when this returns or raises. There is no `concurrent.futures` in it: a signal's exception can leave
    one of its locks taken, for which this call, or the interpreter's exit, would wait for ever.
    """
    threads: list[threading.Thread] = []
    try:
        for thread in start_threads(name, count, work, threads):
            thread.join()
    except BaseException:  # Ctrl-C, or no thread could be started
        cancel.set()
        for thread in threads:
            thread.join()
        raise


def _lanes(
    locations: Sequence[Location],
    cancel: CancelToken,
    leases: contextlib.ExitStack,
    return_exceptions: bool,
    bulk: Bulk | None,
) -> tuple[list[_Lane], dict[int, Exception]]:
    """Sort the items by mount; with `return_exceptions`, those without a mount have their error already."""
    lanes: dict[int, _Lane] = {}  # by the handler's identity
    by_scheme: dict[str, _Lane] = {}
    refused: dict[int, Exception] = {}
    for index, location in enumerate(locations):
        lane = by_scheme.get(location.scheme)
        if lane is None and location.is_local:
            lane = by_scheme["file"] = lanes[0] = _Lane(_LOCAL, TransferOptions(cancel=cancel))
        elif lane is None:
            try:
                target = resolve(location)
            except AcceleratorException as error:
                if not return_exceptions:
                    raise
                refused[index] = error
                continue
            lane = lanes.get(id(target.handler))
            if lane is None:
                leases.enter_context(target)
                most = TransferOptions().connections(target.handler)[1]
                lane = lanes[id(target.handler)] = _Lane(most, TransferOptions(cancel=cancel))
                if bulk is not None and bulk.takes(target):
                    lane.most = min(target.handler.max_concurrency or most, MOST_CONNECTIONS)
                    lane.target = target
            else:
                target.release()
            if location.scheme not in ("http", "https"):  # web addresses: each may belong to another mount
                by_scheme[location.scheme] = lane
        (lane.waiting if lane.target is None else lane.bulk).append(index)
    return list(lanes.values()), refused
