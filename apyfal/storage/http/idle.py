"""Connections that are kept between two requests."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable

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
        self._closed = False
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
        found = self.several(key, 1, careful=careful)
        return found[0] if found else None

    def several(self, key: Hashable, most: int, *, careful: bool) -> list[Connection]:
        """Return up to `most` idle connections; other parameters as for `lease`."""
        found: list[Connection] = []
        while len(found) < most:
            with self._lock:
                if self._process != os.getpid():
                    # The parent's connections: close our copies of their descriptors, send nothing.
                    self._process = os.getpid()
                    _close_all(self._idle)
                kept = self._idle.get(key)
                if not kept:
                    break
                first = max(0, len(kept) - (most - len(found)))
                taken = kept[first:]
                del kept[first:]
            now = time.monotonic()
            for connection in reversed(taken):
                idle = now - connection.idle_since
                # One that was in use just now is not looked at: the caller repeats what fails for that.
                if (idle < _SURELY_OPEN and not careful) or (idle < _MAX_IDLE and connection.is_quiet()):
                    found.append(connection)
                else:
                    connection.close()
        return found

    def release(self, connection: Connection, usable: bool) -> None:
        """Keep a connection that was leased, or close it if it is not usable or one too many."""
        if usable:
            self.keep([connection])
        else:
            connection.close()

    def keep(self, connections: Iterable[Connection]) -> None:
        """Keep connections that were leased and are usable; close those that are too many, and all after `close`."""
        now = time.monotonic()
        surplus: list[Connection] = []
        with self._lock:
            for connection in connections:
                if self._closed:
                    surplus.append(connection)
                    continue
                connection.idle_since = now
                kept = self._idle.setdefault(connection.key, [])
                kept.append(connection)
                if len(kept) > self._most:
                    surplus.append(kept.pop(0))
        for connection in surplus:
            connection.close()

    def close(self) -> None:
        """Close the idle connections, and those in use as they are given back."""
        with self._lock:
            self._closed = True
            _close_all(self._idle)


def _close_all(idle: dict[Hashable, list[Connection]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()
    idle.clear()
