"""The daemon's connections: their number, their users, and how long one may stay open without a valid token.

The daemon accepts connections itself. asyncio's servers report a connection only after its TLS handshake; until then it
could be neither counted nor closed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import resource
import socket
import ssl
from typing import TYPE_CHECKING

from apyfal.host.server.policy.limits import HANDSHAKE_TIMEOUT, HANDSHAKES, HEADER_TIMEOUT, share_of_user
from apyfal.host.server.policy.refusals import TooMany
from apyfal.log import get_logger

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Acceptor", "Connections", "address_key"]

_BACKLOG = 1024
#: connections accepted in one iteration of the event loop: a thousand at once would delay all others by 0.3 s
_ACCEPTED_AT_ONCE = 2
#: seconds until connections are accepted again after the process has run out of descriptors
_PAUSE = 0.1


def address_key(address: str) -> str:
    """Return the key under which an address is counted: an IPv4 address, or the first 64 bits of an IPv6 address."""
    return ":".join(address.split(":")[:4]) if address.count(":") > 1 and "." not in address else address


class _Open:
    """One open connection."""

    __slots__ = ("address", "descriptor", "handler", "secure", "socket", "user")

    def __init__(self, opened: socket.socket, address: str, handler: web.RequestHandler, secure: bool) -> None:
        self.socket = opened
        self.descriptor = opened.fileno()
        self.address = address
        self.handler = handler
        self.secure = secure
        self.user: str | None = None

    @property
    def closed(self) -> bool:
        return self.socket.fileno() < 0

    @property
    def in_handshake(self) -> bool:
        return self.secure and self.user is None and self.handler.transport is None

    def end(self) -> None:
        """Close the connection, even during its handshake."""
        if self.handler.transport is not None:
            self.handler.transport.abort()
        elif not self.closed:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """All connections of the daemon. Used on the event loop only.

    At the limit, the oldest connection without a valid token is closed, of the address that has most of these. So a
    client that sends its token at once is served, however many connections others leave open.

    Parameters
    ----------
    limit
        Largest number of open connections; fewer if the process cannot have twice as many descriptors. One user can
        have `share_of_user` of them.

    Attributes
    ----------
    server
        Makes the request handlers; must be set before the first connection.
    """

    def __init__(self, limit: int) -> None:
        self._limit = min(limit, _descriptors() // 2)
        if self._limit < limit:
            get_logger().warning("%d connections at most, for want of file descriptors", self._limit)
        self._open: dict[int, _Open] = {}  # by descriptor, oldest first
        self._of_user: collections.Counter[str] = collections.Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.server: web.Server | None = None

    def successor(self) -> web.RequestHandler:
        """Make a handler that takes over a connection from another handler."""
        if self.server is None:
            raise RuntimeError("no server was set")
        return self.server()

    def admit(self, opened: socket.socket, address: str, tls: ssl.SSLContext | None) -> None:
        """Serve a connection that was accepted, or close it."""
        self._make_room(tls is not None)
        if len(self._open) >= self._limit:
            opened.close()
            return
        entry = _Open(opened, address_key(address), self.successor(), tls is not None)
        if (before := self._open.pop(entry.descriptor, None)) is not None:
            self._forget_user(before)  # the descriptor was closed and has been reused
        self._open[entry.descriptor] = entry
        task = asyncio.get_running_loop().create_task(self._serve(entry, tls))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        asyncio.get_running_loop().call_later(HEADER_TIMEOUT, self._expire, entry)

    def authenticated(self, handler: web.RequestHandler, user: str) -> None:
        """Record the user of a connection. Raises `TooMany` if the user has too many."""
        shown = None if handler.transport is None else handler.transport.get_extra_info("socket")
        entry = None if shown is None else self._open.get(shown.fileno())
        if entry is None or entry.user == user:
            return
        most = share_of_user(self._limit)
        if self._of_user[user] >= most:
            self._sweep()
            if self._of_user[user] >= most:
                raise TooMany(f"{most} connections of yours are open, as many as a user may have")
        self._forget_user(entry)
        entry.user = user
        self._of_user[user] += 1

    def make_room(self) -> bool:
        """Close one connection without a valid token; return whether there was one."""
        self._sweep()
        return self._evict([entry for entry in self._open.values() if entry.user is None])

    async def _serve(self, entry: _Open, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: entry.handler,
                entry.socket,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else HANDSHAKE_TIMEOUT,
            )
        except (OSError, asyncio.CancelledError):  # a failed handshake concerns the client only
            entry.socket.close()

    def _make_room(self, secure: bool) -> None:
        if len(self._open) >= self._limit:
            self._sweep()
            if len(self._open) >= self._limit:
                self._evict([entry for entry in self._open.values() if entry.user is None])
        if secure and len(self._open) >= HANDSHAKES:
            under_way = [entry for entry in self._open.values() if entry.in_handshake and not entry.closed]
            if len(under_way) >= HANDSHAKES:
                self._evict(under_way)

    def _evict(self, entries: list[_Open]) -> bool:
        """Close the oldest connection of the address that has the most of `entries`."""
        if not entries:
            return False
        ((address, _),) = collections.Counter(entry.address for entry in entries).most_common(1)
        oldest = next(entry for entry in entries if entry.address == address)
        self._forget(oldest)
        oldest.end()
        return True

    def _sweep(self) -> None:
        """Remove connections that have been closed."""
        for entry in [entry for entry in self._open.values() if entry.closed]:
            self._forget(entry)

    def _forget(self, entry: _Open) -> None:
        if self._open.get(entry.descriptor) is entry:
            del self._open[entry.descriptor]
        self._forget_user(entry)

    def _forget_user(self, entry: _Open) -> None:
        if entry.user is not None:
            self._of_user[entry.user] -= 1
            if not self._of_user[entry.user]:
                del self._of_user[entry.user]
            entry.user = None

    def _expire(self, entry: _Open) -> None:
        if entry.user is None and not entry.closed:
            entry.end()


class Acceptor:
    """Accepts connections of one listening socket, from its creation until `close`.

    Parameters
    ----------
    listening
        A bound socket; owned by this object from now on.
    connections
        Receives the accepted connections.
    tls
        TLS context of the connections; ``None``: no TLS.
    """

    def __init__(self, listening: socket.socket, connections: Connections, tls: ssl.SSLContext | None = None) -> None:
        self._socket = listening
        self._connections = connections
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Stop listening. Accepted connections stay open. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                opened, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # out of descriptors or memory: the event loop would report it again at once
                get_logger().warning("cannot accept a connection: %s", error.strerror)
                self._connections.make_room()
                self._loop.remove_reader(self._socket)
                self._loop.call_later(_PAUSE, self._resume)
                return
            opened.setblocking(False)
            self._connections.admit(opened, str(address[0]) if isinstance(address, tuple) else "local", self._tls)

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._accept)


def _descriptors() -> int:
    """Raise the soft limit of open files to the hard limit, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard or hard == resource.RLIM_INFINITY:
        return soft
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft
