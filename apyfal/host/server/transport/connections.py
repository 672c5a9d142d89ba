"""The daemon's connections: how many there may be, and how long one may stay without a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Connections"]

_HEADER_TIMEOUT = 20.0
_COUNT_AFTER = 0.05  # a connection is counted by aiohttp a few turns of the loop after it was accepted


class Connections:
    """Makes the handlers of connections. Used by the event loop only.

    Parameters
    ----------
    limit
        How many connections may be open; those beyond are closed at once.

    Attributes
    ----------
    server
        Makes the handlers; to be set before the first connection.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._fresh: set[web.RequestHandler] = set()  # those that have not made a request yet
        self._refused: set[web.RequestHandler] = set()  # those that are closing, but not closed yet
        self.server: web.Server | None = None

    def accept(self) -> web.RequestHandler:
        """Make the handler of a new connection."""
        handler = self.successor()
        self._fresh.add(handler)
        loop = asyncio.get_running_loop()
        loop.call_later(_COUNT_AFTER, self._count, handler)
        loop.call_later(_HEADER_TIMEOUT, self._expire, handler)
        return handler

    def successor(self) -> web.RequestHandler:
        """Make a handler that takes over a connection which another one has served."""
        if self.server is None:
            raise RuntimeError("no server was set")
        return self.server()

    def asked(self, handler: web.RequestHandler) -> None:
        """Take note that a connection has made a request."""
        self._fresh.discard(handler)

    def _count(self, handler: web.RequestHandler) -> None:
        opened = [] if self.server is None else self.server.connections
        if len(opened) <= self._limit:
            return
        self._refused.intersection_update(opened)
        if handler in self._fresh and len(opened) - len(self._refused) > self._limit:
            self._refused.add(handler)
            self._expire(handler)

    def _expire(self, handler: web.RequestHandler) -> None:
        if handler in self._fresh:
            self._fresh.discard(handler)
            if handler.transport is not None:
                handler.transport.abort()
