"""Look up and remove many objects with few calls. Unusual responses are left to the general path."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from apyfal._core import transport
from apyfal.exceptions import ObjectNotFound, StorageError, TransferCancelled
from apyfal.storage.batch.native import NativeExchanges
from apyfal.storage.flow.retry import TRANSIENT, retry_call
from apyfal.storage.handler import BulkRemoval
from apyfal.storage.http.exchanges import ExchangeHandler, Exchanges, LookUpHandler, Replay

if TYPE_CHECKING:
    from apyfal.storage.flow.cancel import CancelToken
    from apyfal.storage.http.origin import Origin
    from apyfal.storage.mounting.mount import MountedPath
    from apyfal.storage.url import Location

_LOG = logging.getLogger(__name__)

__all__ = ["BulkRemovals", "NativeLookUps"]


class NativeLookUps(NativeExchanges):
    """Look-ups of objects that exist; all others are left to the general path."""

    _keeps_heads = _bodiless = True

    def __init__(self, locations: Sequence[Location]) -> None:
        super().__init__(locations)
        self._paths: dict[int, str] = {}
        self._handler: LookUpHandler | None = None

    def takes(self, target: MountedPath) -> bool:
        return isinstance(target.handler, LookUpHandler) and super().takes(target)

    def _fits(self, index: int) -> bool:
        return not self._locations[index].path.endswith("/")

    def _requests(self, handler: ExchangeHandler, indexes: list[int], paths: list[str]) -> list[tuple[Origin, bytes]]:
        if not isinstance(handler, LookUpHandler):
            raise StorageError("this store has no look-ups of many objects at once")
        self._handler = handler
        self._paths.update(zip(indexes, paths, strict=True))
        return handler.requests_to_look_up(paths)

    def _take(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        return done.states[number] == transport.DONE and self._finish(done, number, index, results)

    def _finish(self, done: Exchanges, number: int, index: int, results: list[Any]) -> bool:
        if self._handler is not None:
            results[index] = self._handler.looked_up(self._paths[index], done.head(number))
        return results[index] is not None

    def _first_attempt(self, replay: Replay) -> Any:
        return None  # the general path repeats the whole look-up


class _BatchRefused(Exception):
    """The store refused to remove several objects with one request; none was removed."""


class BulkRemovals:
    """Removals with requests that remove many objects each.

    Parameters
    ----------
    locations
        What to remove.
    keep_errors
        Whether the error of an item becomes its result; otherwise it ends the call.
    present
        Whether a listing has just named all of them. If not, they are looked up first, because a store reports success
        for removing an object that does not exist.
    """

    def __init__(self, locations: Sequence[Location], *, keep_errors: bool, present: bool = False) -> None:
        self._locations = locations
        self._keep_errors = keep_errors
        self._present = present

    def takes(self, target: MountedPath) -> bool:
        """Return whether the store of a mount can remove many objects with one request."""
        return isinstance(target.handler, BulkRemoval)

    def run(
        self, target: MountedPath, indexes: Sequence[int], most: int, cancel: CancelToken, results: list[Any]
    ) -> list[int]:
        """Remove items of one mount; see `apyfal.storage.batch.lanes.Bulk`."""
        handler = target.handler
        if not isinstance(handler, BulkRemoval) or len(indexes) < 2:
            return list(indexes)
        left: list[int] = []
        named: dict[int, str] = {}
        for index in indexes:
            path = target.beside(self._locations[index])
            if path is None or not handler.can_remove_together(path):
                left.append(index)
            else:
                named[index] = path
        by_bucket: dict[str, dict[int, str]] = {}
        for index in self._existing(target, named, most, cancel, left):
            path = named[index]
            by_bucket.setdefault(path.partition("/")[0], {})[index] = path
        with cancel.scope():
            for paths in by_bucket.values():
                left += self._remove_all(handler, paths, results)
        left.sort()
        return left

    def _remove_all(self, handler: Any, paths: dict[int, str], results: list[Any]) -> list[int]:
        """Remove items of one bucket with as few requests as possible; return those that are left."""
        indexes = list(paths)
        for begin in range(0, len(indexes), handler.most_removed):
            some = indexes[begin : begin + handler.most_removed]
            if len(some) < 2:
                return some
            try:
                self._remove(handler, some, [paths[index] for index in some], results)
            except _BatchRefused as refused:
                left = indexes[begin:]
                _LOG.debug("%s: %d objects are removed one by one: %s", handler.scheme, len(left), refused)
                return left
        return []

    def _existing(
        self, target: MountedPath, named: dict[int, str], most: int, cancel: CancelToken, left: list[int]
    ) -> Iterable[int]:
        """Return the items that may exist, and add the others to `left`."""
        handler = target.handler
        if self._present or (isinstance(handler, BulkRemoval) and handler.tells_missing):
            return named
        look_ups = NativeLookUps(self._locations)
        if not look_ups.takes(target):
            left += named
            return ()
        infos: list[Any] = [None] * len(self._locations)
        left += look_ups.run(target, list(named), most, cancel, infos)
        return [index for index in named if infos[index] is not None]

    def _remove(self, handler: Any, indexes: list[int], paths: list[str], results: list[Any]) -> None:
        """Remove items with one request; `_BatchRefused` if the store does not support that."""
        errors = self._remove_retrying(handler, paths, f"cannot remove {len(paths)} objects")
        for index, path in zip(indexes, paths, strict=True):
            error = errors.get(path)
            if error is None or (self._present and isinstance(error, ObjectNotFound)):
                continue
            if not self._keep_errors:
                raise error
            results[index] = error

    @staticmethod
    def _remove_retrying(handler: Any, paths: list[str], what: str) -> dict[str, StorageError]:
        """Remove objects; try again for those with a temporary error. Return the remaining errors by path.

        Not found after a failed attempt is a success, as for `apyfal.storage.flow.retry.retry_removal`.
        """
        waiting = list(paths)
        passing: dict[str, StorageError] = {}
        lasting: dict[str, StorageError] = {}
        first = True

        def attempt() -> None:
            nonlocal waiting, passing, first
            was_first, first = first, False
            try:
                errors = handler.remove_together(waiting)
            except (TransferCancelled, *TRANSIENT):
                passing = {}
                raise
            except StorageError as error:
                # nothing was removed before, so each object can be removed alone: none is missing because of this call
                raise _BatchRefused(str(error)) if was_first else error from error
            passing = {path: error for path, error in errors.items() if isinstance(error, TRANSIENT)}
            lasting.update(
                (path, error)
                for path, error in errors.items()
                if path not in passing and (was_first or not isinstance(error, ObjectNotFound))
            )
            waiting = list(passing)
            if passing:
                raise next(iter(passing.values()))

        try:
            retry_call(handler, attempt, what)
        except TransferCancelled:
            raise
        except StorageError as error:
            for path in waiting:
                lasting[path] = passing.get(path) or type(error)(f"cannot remove {path!r}: {error}", path=path)
        return lasting
