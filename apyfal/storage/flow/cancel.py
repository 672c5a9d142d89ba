"""Cancelling transfers at once, also those that wait inside a socket call."""

from __future__ import annotations

import threading
from typing import Protocol

from apyfal.exceptions import TransferCancelled

__all__ = ["CancelToken", "Interruptible", "current_cancel", "shielded"]


class Interruptible(Protocol):
    """What a `CancelToken` can wake: a connection, or another `CancelToken`."""

    def interrupt(self) -> None:
        """Make every blocked call on this object return soon. Called from any thread, must not block or raise."""


class CancelToken:
    """A switch that ends transfers promptly. Once set it stays set.

    Connections register with the `CancelToken` of the thread that uses them (see `scope`), so that handlers need not
    know about cancellation: a blocked ``recv`` or ``send`` is woken by shutting its socket down.

    Parameters
    ----------
    parent
        Setting the parent sets this one too.
    """

    def __init__(self, parent: CancelToken | None = None) -> None:
        # Reentrant: interrupting a child runs under the lock of its parent, and a signal handler may call `set`.
        self._lock = threading.RLock()
        self._set = False
        self._event: threading.Event | None = None  # made by the first that waits: most transfers never do
        self._watched: set[Interruptible] = set()
        self._parent = parent
        if parent is not None:
            parent.add(self)

    def set(self) -> None:
        """Cancel, and wake everything that waits."""
        # Under the lock, so that nothing is interrupted after its `discard` returned: by then a connection may
        # already serve somebody else.
        with self._lock:
            self._set = True
            if self._event is not None:
                self._event.set()
            for one in tuple(self._watched):
                one.interrupt()

    def interrupt(self) -> None:
        """Be woken by a parent: the same as `set`."""
        self.set()

    def is_set(self) -> bool:
        """Whether it was cancelled."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Sleep, but not longer than until the cancellation; returns whether it came."""
        with self._lock:
            if self._event is None:
                self._event = threading.Event()
            if self._set:
                self._event.set()
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise `TransferCancelled` if it was cancelled."""
        if self._set:
            raise TransferCancelled("the transfer was cancelled")

    def add(self, one: Interruptible) -> None:
        """Interrupt `one` when cancelled; at once if that has happened."""
        with self._lock:
            self._watched.add(one)
            if self._set:
                one.interrupt()

    def discard(self, one: Interruptible) -> None:
        """Stop watching `one`; after this returns it is not interrupted any more."""
        with self._lock:
            self._watched.discard(one)

    def detach(self) -> None:
        """Leave the parent, when the work that this one stands for is over."""
        if self._parent is not None:
            self._parent.discard(self)

    def scope(self) -> Scope:
        """Make this the `CancelToken` of everything that the calling thread does in the ``with`` block."""
        return Scope(self)


class Scope:
    """What `CancelToken.scope` returns: a context manager."""

    __slots__ = ("_before", "_cancel")

    def __init__(self, cancel: CancelToken) -> None:
        self._cancel = cancel
        self._before: CancelToken | None = None

    def __enter__(self) -> CancelToken:
        self._before = current_cancel()
        _thread.cancel = self._cancel
        return self._cancel

    def __exit__(self, *error: object) -> None:
        _thread.cancel = self._before


_thread = threading.local()


def current_cancel() -> CancelToken | None:
    """Return the `CancelToken` whose `CancelToken.scope` the calling thread is in."""
    found: CancelToken | None = getattr(_thread, "cancel", None)
    return found


def shielded() -> Scope:
    """Return a scope in which nothing is cancelled: to remove what a transfer, which perhaps was cancelled, leaves."""
    return CancelToken().scope()
