"""How many connections the transfers of one mount have together, where the mount limits them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.handler import RangeReader

__all__ = ["Connections"]

#: Seconds after which a thread that waits for its turn looks whether it was cancelled.
_LOOK = 0.1


class Connections:
    """The turns of a mount's transfers: each request that moves data takes one, and gives it back when it is over.

    Nobody can wait for ever. What takes a turn ends by itself, as it moves a bounded number of bytes from or to memory;
    a thread that has a turn, of whatever mount, gets another one at once; and a stream that is open, which may rest as
    long as its reader likes, is counted but waits for nobody. One request besides the streams may always go on. So
    there are `limit` connections, or one more than there are open streams.

    Parameters
    ----------
    limit
        Connections; ``None``: as many as the transfers want.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()  # who waits, in turn
        self._turns = 0
        self._streams = 0

    def turn(self, cancel: CancelToken | None, *, taken: bool = False) -> contextlib.AbstractContextManager[None]:
        """Wait for a turn, which the ``with`` block then has.

        Parameters
        ----------
        cancel
            Ends the waiting.
        taken
            The turn has been taken: see `begun` and `stream`.
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
        if self._pid != os.getpid():
            self._begin()  # the transfers of the parent are not this process's
        with self._changed:
            if not getattr(_thread, "turns", 0):
                self._wait(limit, cancel)
            self._turns += 1

    @contextlib.contextmanager
    def turns(self, most: int, cancel: CancelToken | None) -> Iterator[int]:
        """Wait for a turn, and take as many others as nobody else waits for; the ``with`` block has up to `most`."""
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
        """Let the reader, for which a turn was taken, give it back when it is closed."""
        return reader if self.limit is None else _CountedReader(reader, self.give_back)

    def stream(self, reader: RangeReader) -> RangeReader:
        """Count a reader that may rest until it is closed."""
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
        What is read from.
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


_UNLIMITED = contextlib.nullcontext()
_thread = threading.local()
