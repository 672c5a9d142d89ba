"""Limit the connections that all transfers of one mount have together (``max_concurrency``)."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat, starmap

from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.handler import RangeReader

__all__ = ["ConnectionLimiter"]

#: Seconds after which a thread that waits for its turn checks whether it was cancelled.
_LOOK = 0.1


class ConnectionLimiter:
    """The turns of a mount's transfers: each request that moves data takes one, and gives it back when it has ended.

    No thread can wait for ever. A request that has a turn ends by itself, since it moves a bounded number of bytes from
    or to memory. A thread that has a turn, of any mount, gets another one at once. An open stream can rest as long as
    its reader likes, so it is counted, but does not wait. One request in addition to the streams can always go on. So
    there are at most `limit` connections, or one more than there are open streams.

    Parameters
    ----------
    limit
        Most connections; ``None``: as many as the transfers want.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._begin()
        if limit is not None:
            _limited.add(self)

    def _begin(self) -> None:
        # Sets of marks, not counts: adding and taking out can be repeated, so that a signal between any two lines loses
        # none. A plain lock, as a `Condition` that is interrupted can keep its lock; reentrant, as a collection of
        # garbage in here may end a reader.
        self._lock = threading.RLock()
        self._waiting: deque[queue.SimpleQueue[None]] = deque()  # who waits, in turn
        self._turns: set[object] = set()
        self._streams: set[object] = set()

    def turn(self, cancel: CancelToken | None, *, taken: bool = False) -> contextlib.AbstractContextManager[None]:
        """Wait for a turn, which the ``with`` block has until its end.

        Parameters
        ----------
        cancel
            Ends the waiting when it is set.
        taken
            Whether the turn has been taken already; see `opened` and `stream`.
        """
        return _UNLIMITED if self.limit is None else self._turn(cancel, taken)

    @contextlib.contextmanager
    def _turn(self, cancel: CancelToken | None, taken: bool) -> Iterator[None]:
        held: list[object] = []
        mark = object()
        of_thread = _turns_of_thread()
        try:
            try:
                if not taken:
                    self.take(cancel, held)
                of_thread.add(mark)
                yield
            finally:
                of_thread.discard(mark)
                self.release(held)
        finally:  # once more: a signal may have ended the first
            of_thread.discard(mark)
            self.release(held)

    def take(self, cancel: CancelToken | None, held: list[object]) -> None:
        """Wait for a turn.

        Parameters
        ----------
        cancel
            Ends the waiting when it is set.
        held
            Gets the mark of the turn before the turn is taken. The caller gives it to `release` whatever happens.
        """
        limit = self.limit
        if limit is None:
            return
        mark = object()
        held.append(mark)
        if _turns_of_thread():
            with self._lock:
                self._turns.add(mark)
        else:
            self._wait(limit, cancel, mark)

    @contextlib.contextmanager
    def turns(self, most: int, cancel: CancelToken | None) -> Iterator[int]:
        """Wait for a turn, and take further ones that nobody waits for; yield their number, at most `most`."""
        limit = self.limit
        if limit is None:
            yield most
            return
        held: list[object] = []
        try:
            try:
                self.take(cancel, held)
                with self._lock:
                    free = limit - len(self._turns) - len(self._streams)
                    more = 0 if self._waiting else min(most - 1, free)
                    held.extend(starmap(object, repeat((), more)))  # in one step, as seen by a signal
                    self._turns.update(held)
                yield len(held)
            finally:
                self.release(held)
        finally:  # once more: a signal may have ended the first
            self.release(held)

    def release(self, held: list[object]) -> None:
        """End turns. May be called again, and for turns that were not taken."""
        with self._lock:
            self._turns.difference_update(held)
            self._wake()

    def opened(self, begin: Callable[[], RangeReader], cancel: CancelToken | None) -> RangeReader:
        """Wait for a turn and return the reader that `begin` makes; closing it gives the turn back."""
        if self.limit is None:
            return begin()
        held: list[object] = []
        try:
            try:
                self.take(cancel, held)
                return _CountedReader(begin(), partial(self.release, held))
            except BaseException:
                self.release(held)
                raise
        except BaseException:  # once more: a signal may have ended the first
            self.release(held)
            raise

    def stream(self, reader: RangeReader) -> RangeReader:
        """Return the reader, counted as an open stream until it is closed."""
        if self.limit is None:
            return reader
        mark = object()
        counted = _CountedReader(reader, partial(self._stream_ended, mark))
        with self._lock:
            self._streams.add(mark)
        return counted

    def _stream_ended(self, mark: object) -> None:
        with self._lock:
            self._streams.discard(mark)
            self._wake()

    def _wait(self, limit: int, cancel: CancelToken | None, mark: object) -> None:
        """Take a turn when it is the calling thread's."""
        me: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            try:
                with self._lock:
                    self._waiting.append(me)
                while not self._taken_by(me, limit, mark):
                    if cancel is not None:
                        cancel.check()
                    with contextlib.suppress(queue.Empty):
                        me.get(timeout=_LOOK)
            finally:
                self._leave(me)
        finally:  # once more: a signal may have ended the first
            self._leave(me)

    def _taken_by(self, me: queue.SimpleQueue[None], limit: int, mark: object) -> bool:
        with self._lock:
            if self._waiting[0] is not me or len(self._turns) >= max(1, limit - len(self._streams)):
                return False
            self._turns.add(mark)
            return True

    def _leave(self, me: queue.SimpleQueue[None]) -> None:
        with self._lock:
            if me in self._waiting:
                self._waiting.remove(me)
            self._wake()

    def _wake(self) -> None:
        """Wake who is the next; the lock is held."""
        if self._waiting:
            self._waiting[0].put(None)


class _CountedReader(RangeReader):
    """A reader whose connection is counted until it is closed, or nobody has it.

    Parameters
    ----------
    reader
        The reader to read from; owned by this object.
    ended
        Called when it is closed, perhaps more than once.
    """

    def __init__(self, reader: RangeReader, ended: Callable[[], None]) -> None:
        self._ended = ended
        self.info = reader.info
        self._reader = reader

    def readinto(self, out: memoryview) -> int:
        """Receive up to ``len(out)`` bytes."""
        return self._reader.readinto(out)

    def close(self) -> None:
        """Close the reader, and give the turn back."""
        try:
            try:
                self._reader.close()
            finally:
                self._ended()
        finally:  # once more: a signal may have ended the first
            self._ended()

    def __del__(self) -> None:
        ended = getattr(self, "_ended", None)
        if ended is not None:
            ended()  # a signal came before anybody could close it


def _turns_of_thread() -> set[object]:
    """Return the marks of the turns that the calling thread has, of any mount."""
    found: set[object] | None = getattr(_thread, "turns", None)
    if found is None:
        found = _thread.turns = set()
    return found


def _begin_afresh() -> None:
    for one in list(_limited):
        one._begin()  # a forked child does not have the transfers of its parent


_UNLIMITED = contextlib.nullcontext()
_thread = threading.local()
_limited: weakref.WeakSet[ConnectionLimiter] = weakref.WeakSet()
os.register_at_fork(after_in_child=_begin_afresh)  # before a second thread of the child can be there
