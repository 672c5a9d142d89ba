"""Sends data from its own memory: what waits for a slow peer is not copied into a buffer."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["SocketWriter"]

#: most pieces of one system call (IOV_MAX)
_PIECES = 1024
#: bytes of the first call for longer data: the peer receives them while the rest goes into the socket
_FIRST = 64 << 10
#: seconds until a socket is tried again after the process had no descriptor left
_RETRY = 0.02


class SocketWriter:
    """Writes to the socket of a transport that nothing else writes to. Used on the event loop.

    Before Python 3.12, asyncio's own transports copy what the socket does not take at once, and join the pieces of
    `writelines`.

    Parameters
    ----------
    shown
        The socket as its transport shows it. Not for TLS.
    on_sent
        Called when something was sent that had waited.
    on_broken
        Called when the connection is broken. Nothing can be sent then.

    Attributes
    ----------
    waiting
        Bytes that wait to be sent.
    """

    def __init__(self, shown: Any, on_sent: Callable[[], None], on_broken: Callable[[], None]) -> None:
        self._shown = shown
        self._on_sent = on_sent
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes | memoryview] = deque()
        self._watched: Any = None  # a duplicate: the loop lets nobody else watch a transport's descriptor
        self._retry: asyncio.TimerHandle | None = None
        self.waiting = 0

    def write(self, *pieces: bytes | memoryview) -> None:
        """Send pieces of bytes one after the other. They must not change until they are sent."""
        waits = bool(self._pieces)
        self._pieces += pieces
        self.waiting += sum(map(len, pieces))
        if waits:
            return
        if self.waiting <= _FIRST and len(pieces) <= _PIECES:
            self._send(self._pieces)
        elif self._send(self._front(_FIRST)):
            self._send(self._front(self.waiting))
        if self._pieces:
            self._watch()

    def detach(self) -> None:
        """Copy the waiting data, so that its memory can be freed."""
        self._pieces = deque([bytes(piece) for piece in self._pieces])

    def close(self) -> None:
        """Send nothing more."""
        self._unwatch()
        self._pieces.clear()
        self.waiting = 0

    def _front(self, nbytes: int) -> list[bytes | memoryview]:
        """Return the next waiting pieces, at most `nbytes` bytes."""
        front: list[bytes | memoryview] = []
        for piece in itertools.islice(self._pieces, _PIECES):
            front.append(piece if len(piece) <= nbytes else memoryview(piece)[:nbytes])
            nbytes -= len(front[-1])
            if not nbytes:
                break
        return front

    def _send(self, pieces: Sequence[bytes | memoryview]) -> bool:
        """Send the next pieces; return whether the socket took all of them."""
        nbytes = sum(map(len, pieces))
        try:
            sent = os.writev(self._shown.fileno(), pieces)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            self._on_broken()
            return False
        self.waiting -= sent
        left = sent
        while self._pieces and left >= len(self._pieces[0]):
            left -= len(self._pieces.popleft())
        if left:
            self._pieces[0] = memoryview(self._pieces[0])[left:]
        return sent == nbytes

    def _go_on(self) -> None:
        """Send waiting data, as much as the socket takes now."""
        before = self.waiting
        self._send(self._front(before))
        if not self._pieces:
            self._unwatch()
        elif self._watched is None:
            self._watch()
        if self.waiting < before:
            self._on_sent()

    def _watch(self) -> None:
        """Have `_go_on` called when the socket takes more."""
        try:
            self._watched = self._shown.dup()
        except OSError:  # the process has no descriptor left now
            self._retry = self._loop.call_later(_RETRY, self._go_on)
        else:
            self._loop.add_writer(self._watched, self._go_on)

    def _unwatch(self) -> None:
        watched, self._watched = self._watched, None
        if watched is not None:
            self._loop.remove_writer(watched)
            watched.close()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
