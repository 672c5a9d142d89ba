"""Request bodies straight off the socket: `recv_into` at their final address, over TLS too, without a bytes object.

A client that sends ``Expect: 100-continue`` waits until the handler is ready, so the whole body is still to come when
the transport gets another protocol (`asyncio.Transport.set_protocol` is there for that). aiohttp's parser never sees
that body and would wait for it, so its handler of this connection is retired after the answer, and a fresh one takes
the connection over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["expects_continue", "go_on", "pass_on", "receive_direct"]

#: received in one turn of the event loop at most: others wait for no longer than this takes to copy (some 0.2 ms)
_SLICE = 1 << 20
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: whether the body of the request that this task handles came directly
_spent: ContextVar[bool] = ContextVar("spent", default=False)


class _Receiver(asyncio.BufferedProtocol):
    """Fills memory from a connection, then lets the connection rest."""

    def __init__(self, transport: Any, handler: Any, out: memoryview, moved: Callable[[], None]) -> None:
        self._transport = transport
        self._handler = handler
        self._out = out
        self._moved = moved
        self._done = 0
        self.received: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._out[self._done : self._done + _SLICE]

    def buffer_updated(self, nbytes: int) -> None:
        self._done += nbytes
        self._moved()
        if self._done == len(self._out):
            self._transport.pause_reading()  # what follows is the next handler's
            self._finish(None)

    def eof_received(self) -> None:
        self._finish(ConnectionError("the body ended early"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(ConnectionError("the body ended early"))
        self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def _finish(self, error: Exception | None) -> None:
        self._out = memoryview(b"")
        if self.received.done():
            return
        if error is None:
            self.received.set_result(None)
        else:
            self.received.set_exception(error)


def expects_continue(request: web.Request) -> bool:
    """Whether the client waits for a word before it sends the body."""
    return request.headers.get("Expect", "").lower() == "100-continue"


def go_on(request: web.Request) -> None:
    """Let a client that waits send its body in the ordinary way."""
    if expects_continue(request) and request.transport is not None:
        request.transport.write(_CONTINUE)


async def receive_direct(request: web.Request, out: memoryview, moved: Callable[[], None]) -> None:
    """Receive the body of a request that `expects_continue` into `out`, which is as long as the body.

    Parameters
    ----------
    request
        Nothing of its body may have been asked for.
    out
        Final address of the body.
    moved
        Called whenever something has arrived.

    Raises
    ------
    ConnectionError
        The connection ended before the body.
    """
    transport: Any = request.transport
    if transport is None:
        raise ConnectionError("the connection is closed")
    handler = request.protocol
    receiver = _Receiver(transport, handler, out, moved)
    transport.set_protocol(receiver)
    try:
        transport.write(_CONTINUE)
        await receiver.received
    except BaseException:
        transport.abort()  # where the next request would begin is not known
        raise
    transport.set_protocol(handler)
    request.content.feed_eof()  # which lets the transport read on
    transport.pause_reading()
    _spent.set(True)


async def pass_on(request: web.Request, response: web.StreamResponse, make: Callable[[], Any]) -> None:
    """After a body that came directly: send the answer, and give the connection to a handler that `make` makes."""
    if not _spent.get():
        return
    _spent.set(False)
    await response.prepare(request)
    await response.write_eof()
    transport: Any = request.transport
    if transport is None or transport.is_closing() or not response.keep_alive:
        return
    retired = request.protocol
    retired.transport = None  # it is the next handler's now: not to be closed with this one
    retired.connection_lost(None)
    handler = make()
    transport.set_protocol(handler)
    handler.connection_made(transport)
    transport.resume_reading()
