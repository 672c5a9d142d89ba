"""Connections that are kept between two requests."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable

from apyfal.storage.http.connection import Connection

__all__ = ["IdleConnections"]

#: A connection that was idle this long is not tried again: stores close theirs after 5 (nginx: 75) seconds and more,
#: and a request on a connection that is just being closed costs a retry.
_MAX_IDLE = 20.0
#: Seconds after its last response in which a connection is used without a look at it.
_SURELY_OPEN = 0.2


class IdleConnections:
    """Keeps connections, by where they lead. Thread-safe; after a fork the child starts with none.

    Parameters
    ----------
    most
        Connections that are kept to one place.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Reentrant: a collection of garbage in here may free an object whose end sends a request.
        self._lock = threading.RLock()
        self._idle: dict[Hashable, list[Connection]] = {}
        self._process = os.getpid()
        weakref.finalize(self, _close_all, self._idle)

    def __len__(self) -> int:
        """Return how many are kept."""
        with self._lock:
            return sum(map(len, self._idle.values()))

    def lease(self, key: Hashable, connect: Callable[[], Connection], *, careful: bool) -> tuple[Connection, bool]:
        """Return an idle connection and ``False``, or a new one and ``True``.

        Parameters
        ----------
        key
            Where it leads.
        connect
            Makes a new one.
        careful
            Look at every idle one before it is used: for requests that are not repeated.
        """
        connection = self.kept(key, careful=careful)
        if connection is not None:
            return connection, False
        connection = connect()
        connection.key = key
        return connection, True

    def kept(self, key: Hashable, *, careful: bool) -> Connection | None:
        """Return an idle connection, or ``None`` if there is none; parameters as for `lease`."""
        while True:
            with self._lock:
                if self._process != os.getpid():
                    # The parent's connections: close our copies of their descriptors, send nothing.
                    self._process = os.getpid()
                    _close_all(self._idle)
                kept = self._idle.get(key)
                connection = kept.pop() if kept else None
            if connection is None:
                return None
            idle = time.monotonic() - connection.idle_since
            # One that was in use just now is not looked at: the caller repeats what fails for that.
            if (idle < _SURELY_OPEN and not careful) or (idle < _MAX_IDLE and connection.is_quiet()):
                return connection
            connection.close()

    def give_back(self, connection: Connection, usable: bool) -> None:
        """Keep a connection that was leased, or close it if it is not usable or one too many."""
        if not usable:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        with self._lock:
            kept = self._idle.setdefault(connection.key, [])
            kept.append(connection)
            surplus = kept.pop(0) if len(kept) > self._most else None
        if surplus is not None:
            surplus.close()

    def close(self) -> None:
        """Close the idle connections. Those in use are closed or kept as they are given back."""
        with self._lock:
            _close_all(self._idle)


def _close_all(idle: dict[Hashable, list[Connection]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()
    idle.clear()
