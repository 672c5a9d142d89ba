"""Receives request bodies with `recv_into` at their final address, with and without TLS, without a bytes object.

A client that sends ``Expect: 100-continue`` (RFC 9110, section 10.1.1) may wait for the daemon's response, or send the
body at once. `receive_into` therefore takes the connection over only if none of the body has reached aiohttp's parser.
Then the next ``Content-Length`` bytes of the connection are the body, and the next request follows them. Otherwise the
body is read through aiohttp. The check and `asyncio.Transport.set_protocol` happen in one step of the event loop, so
that nothing can arrive between them.

aiohttp's handler of that connection receives none of the following bytes, because its parser would take them for the
body. It writes the response and is retired; `hand_over` gives the connection to a new handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["can_receive_into", "hand_over", "may_wait_for_continue", "receive_into", "send_continue"]

#: bytes received in one iteration of the event loop: other requests wait at most for one copy of these (about 0.2 ms)
_SLICE = 1 << 20
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SCRATCH = 64 << 10


class _Receiver(asyncio.BufferedProtocol):
    """Fills memory from a connection, then pauses the connection until another protocol takes it over.

    Parameters
    ----------
    transport
        The connection.
    handler
        aiohttp's handler, which writes the response. All events except data are passed on to it.
    out
        Memory for the body; borrowed until `received` is done.
    moved
        Called with the number of bytes received so far, whenever data has arrived.

    Attributes
    ----------
    early
        Bytes that arrived after the body: the beginning of the next request.
    received
        Done when the body is complete, or the connection has failed.
    """

    def __init__(self, transport: Any, handler: Any, out: memoryview, moved: Callable[[int], None]) -> None:
        self._transport = transport
        self._handler = handler
        self._out = out
        self._moved = moved
        self._left = len(out)
        self.early = bytearray()
        self.received: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._left:
            return self._out[len(self._out) - self._left :][:_SLICE]
        self._scratch = memoryview(bytearray(_SCRATCH))
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        if not self._left:  # reading was resumed by other code: none of this data may be lost
            self._transport.pause_reading()
            self.early += self._scratch[:nbytes]
            return
        self._left -= nbytes
        self._moved(len(self._out) - self._left)
        if not self._left:
            self._transport.pause_reading()
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
        if self.received.done():
            return
        # Cancelled timers keep the request's context, and so this object, for a minute: it must not keep the body.
        self._out, self._moved = memoryview(b""), _ignore
        if error is None:
            self.received.set_result(None)
        else:
            self.received.set_exception(error)


def _ignore(nbytes: int) -> None:
    """Do nothing with the bytes that have arrived."""


#: for the request of the current task: the receiver of its body, and whether the client was told to send it
_receiver: ContextVar[_Receiver | None] = ContextVar("receiver", default=None)
_continued: ContextVar[bool] = ContextVar("continued", default=False)


def _expects_continue(request: web.Request) -> bool:
    """Return whether the client may wait for ``100 Continue``, which HTTP/1.0 does not have."""
    return request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue"


def _nothing_arrived(request: web.Request) -> bool:
    """Return whether aiohttp's parser has received the head of the request, and nothing after it."""
    return not request.content.total_bytes and not request.content.is_eof()


def send_continue(request: web.Request) -> None:
    """Send ``100 Continue`` if the client may wait for it, unless part of the body has already arrived."""
    if _expects_continue(request) and request.transport is not None:
        if _nothing_arrived(request):
            request.transport.write(_CONTINUE)
        _continued.set(True)


def may_wait_for_continue(request: web.Request) -> bool:
    """Return whether a client may still wait for ``100 Continue``. It may then send the body or not (RFC 9110, section
    10.1.1), so the connection must be closed after the response.
    """
    return _expects_continue(request) and not _continued.get() and not request.content.is_eof()


def can_receive_into(request: web.Request) -> bool:
    """Return whether `receive_into` can be used: the client expects 100-continue, and no byte of a body of known length
    has arrived.
    """
    return (
        _expects_continue(request)
        and _nothing_arrived(request)
        and request.content_length is not None
        and "Transfer-Encoding" not in request.headers
    )


async def receive_into(request: web.Request, out: memoryview, moved: Callable[[int], None]) -> None:
    """Receive the body of a request into `out`, which has the size of the body.

    Parameters
    ----------
    request
        A request for which `can_receive_into` is true now.
    out
        Final address of the body; borrowed until this function returns or raises.
    moved
        Called with the number of bytes received so far, whenever data has arrived.

    Raises
    ------
    ConnectionError
        The connection ended before the end of the body.
    """
    transport: Any = request.transport
    if transport is None:
        raise ConnectionError("the connection is closed")
    if not can_receive_into(request) or len(out) != request.content_length:
        raise RuntimeError("the body of this request cannot be received into memory")
    receiver = _Receiver(transport, request.protocol, out, moved)
    transport.set_protocol(receiver)
    _receiver.set(receiver)
    _continued.set(True)
    try:
        transport.resume_reading()
        transport.write(_CONTINUE)
        await receiver.received
    except BaseException:
        transport.abort()  # the beginning of the next request is not known
        raise
    request.content.feed_eof()


async def hand_over(request: web.Request, response: web.StreamResponse, make: Callable[[], Any]) -> None:
    """After `receive_into`: send the response, and give the connection to a handler made by `make`."""
    receiver = _receiver.get()
    if receiver is None:
        return
    await response.prepare(request)
    await response.write_eof()
    transport: Any = request.transport
    if transport is None or transport.is_closing() or not response.keep_alive:
        return  # aiohttp closes the connection
    retired = request.protocol
    retired.transport = None  # the connection belongs to the next handler now and must not be closed with this one
    retired.connection_lost(None)
    handler = make()
    transport.set_protocol(handler)
    # its task belongs to no request: it inherits no context from this one
    Context().run(handler.connection_made, transport)
    if receiver.early:
        handler.data_received(bytes(receiver.early))
    transport.resume_reading()
