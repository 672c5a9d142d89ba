"""Cancelling transfers at once, also those that wait inside a socket call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from apyfal.exceptions import TransferCancelled

__all__ = ["Cancel", "Interruptible", "current_cancel"]


class Interruptible(Protocol):
    """What a `Cancel` can wake: a connection, or another `Cancel`."""

    def interrupt(self) -> None:
        """Make every blocked call on this object return soon. Called from any thread, must not block or raise."""


class Cancel:
    """A switch that ends transfers promptly. Once set it stays set.

    Connections register with the `Cancel` of the thread that uses them (see `scope`), so handlers need not know about
    cancellation: a blocked ``recv`` or ``send`` is woken by shutting its socket down.

    Parameters
    ----------
    parent
        Setting the parent sets this one too.
    """

    def __init__(self, parent: Cancel | None = None) -> None:
        # Reentrant: interrupting a child runs under the lock of its parent, and a signal handler may call `set`.
        self._lock = threading.RLock()
        self._event = threading.Event()
        self._watched: set[Interruptible] = set()
        self._parent = parent
        if parent is not None:
            parent.add(self)

    def set(self) -> None:
        """Cancel, and wake everything that waits."""
        # Under the lock, so that nothing is interrupted after its `discard` returned: by then a connection may
        # already serve somebody else.
        with self._lock:
            self._event.set()
            for one in tuple(self._watched):
                one.interrupt()

    def interrupt(self) -> None:
        """Be woken by a parent: the same as `set`."""
        self.set()

    def is_set(self) -> bool:
        """Whether it was cancelled."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but not longer than until the cancellation; returns whether it came."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise `TransferCancelled` if it was cancelled."""
        if self._event.is_set():
            raise TransferCancelled("the transfer was cancelled")

    def add(self, one: Interruptible) -> None:
        """Interrupt `one` when cancelled; at once if that has happened."""
        with self._lock:
            self._watched.add(one)
            if self._event.is_set():
                one.interrupt()

    def discard(self, one: Interruptible) -> None:
        """Stop watching `one`; after this returns it is not interrupted any more."""
        with self._lock:
            self._watched.discard(one)

    def detach(self) -> None:
        """Leave the parent, when the work that this one stands for is over."""
        if self._parent is not None:
            self._parent.discard(self)

    @contextmanager
    def scope(self) -> Iterator[Cancel]:
        """Make this the `Cancel` of everything that the calling thread does in the ``with`` block."""
        before = getattr(_thread, "cancel", None)
        _thread.cancel = self
        try:
            yield self
        finally:
            _thread.cancel = before


_thread = threading.local()


def current_cancel() -> Cancel | None:
    """Return the `Cancel` whose `Cancel.scope` the calling thread is in."""
    found: Cancel | None = getattr(_thread, "cancel", None)
    return found
