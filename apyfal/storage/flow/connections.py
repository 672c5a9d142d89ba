"""Limit the connections that all transfers of one mount have together (``max_concurrency``)."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator

from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.handler import RangeReader

__all__ = ["Connections"]

#: Seconds after which a thread that waits for its turn checks whether it was cancelled.
_LOOK = 0.1


class Connections:
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
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()  # who waits, in turn
        self._turns = 0
        self._streams = 0

    def turn(self, cancel: CancelToken | None, *, taken: bool = False) -> contextlib.AbstractContextManager[None]:
        """Wait for a turn, which the ``with`` block has until its end.

        Parameters
        ----------
        cancel
            Ends the waiting when it is set.
        taken
            Whether the turn has been taken already; see `begun` and `stream`.
        """
        return _UNLIMITED if self.limit is None else self._turn(cancel, taken)

    @contextlib.contextmanager
    def _turn(self, cancel: CancelToken | None, taken: bool) -> Iterator[None]:
        if not taken:
            self.take(cancel)
        _thread.turns = getattr(_thread, "turns", 0) + 1
        try:
            yield
        finally:
            _thread.turns -= 1
            if not taken:
                self.give_back()

    def take(self, cancel: CancelToken | None) -> None:
        """Wait for a turn; the caller gives it back."""
        limit = self.limit
        if limit is None:
            return
        with self._changed:
            if not getattr(_thread, "turns", 0):
                self._wait(limit, cancel)
            self._turns += 1

    @contextlib.contextmanager
    def turns(self, most: int, cancel: CancelToken | None) -> Iterator[int]:
        """Wait for a turn, and take further ones that nobody waits for; yield their number, at most `most`."""
        limit = self.limit
        if limit is None:
            yield most
            return
        self.take(cancel)
        with self._changed:
            more = 0 if self._waiting else max(0, min(most - 1, limit - self._turns - self._streams))
            self._turns += more
        try:
            yield 1 + more
        finally:
            self.give_back(1 + more)

    def give_back(self, count: int = 1) -> None:
        """End turns."""
        if self.limit is None:
            return
        with self._changed:
            self._turns -= count
            self._changed.notify_all()

    def begun(self, reader: RangeReader) -> RangeReader:
        """Return the reader, for which a turn was taken; closing it gives the turn back."""
        return reader if self.limit is None else _CountedReader(reader, self.give_back)

    def stream(self, reader: RangeReader) -> RangeReader:
        """Return the reader, counted as an open stream until it is closed."""
        if self.limit is None:
            return reader
        with self._changed:
            self._streams += 1
        return _CountedReader(reader, self._stream_ended)

    def _stream_ended(self) -> None:
        with self._changed:
            self._streams -= 1
            self._changed.notify_all()

    def _wait(self, limit: int, cancel: CancelToken | None) -> None:
        """Wait until it is the calling thread's turn; the lock is held."""
        me = object()
        self._waiting.append(me)
        try:
            while self._waiting[0] is not me or self._turns >= max(1, limit - self._streams):
                if cancel is not None:
                    cancel.check()
                self._changed.wait(_LOOK)
        finally:
            self._waiting.remove(me)
            self._changed.notify_all()


class _CountedReader(RangeReader):
    """A reader whose connection is counted until it is closed.

    Parameters
    ----------
    reader
        The reader to read from; owned by this object.
    ended
        Called once, when it is closed.
    """

    def __init__(self, reader: RangeReader, ended: Callable[[], None]) -> None:
        self.info = reader.info
        self._reader = reader
        self._ended: Callable[[], None] | None = ended
        self._closing = threading.Lock()

    def readinto(self, out: memoryview) -> int:
        """Receive up to ``len(out)`` bytes."""
        return self._reader.readinto(out)

    def close(self) -> None:
        """Close the reader, and give the turn back."""
        with self._closing:
            ended, self._ended = self._ended, None
        try:
            self._reader.close()
        finally:
            if ended is not None:
                ended()


def _begin_afresh() -> None:
    for one in list(_limited):
        one._begin()  # a forked child does not have the transfers of its parent


_UNLIMITED = contextlib.nullcontext()
_thread = threading.local()
_limited: weakref.WeakSet[Connections] = weakref.WeakSet()
os.register_at_fork(after_in_child=_begin_afresh)  # before a second thread of the child can be there
