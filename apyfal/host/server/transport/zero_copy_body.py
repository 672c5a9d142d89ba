"""Request bodies straight off the socket: `recv_into` at their final address, over TLS too, without a bytes object.

A client that sends ``Expect: 100-continue`` (RFC 9110, section 10.1.1) may wait for the daemon's word, or send the body
at once. `receive_into` therefore takes the connection over only if none of the body has reached aiohttp's parser yet:
then the next ``Content-Length`` bytes of the connection are the body, and what follows is the next request. Otherwise
the body is read in the ordinary way. The check and `asyncio.Transport.set_protocol` are one step of the event loop, so
nothing can arrive between them.

aiohttp's handler of that connection never sees another byte of it: its parser would take them for the body. It writes
the answer and is retired, and `hand_over` gives the connection to a fresh one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["can_receive_into", "hand_over", "receive_into", "send_continue", "waits_in_vain"]

#: received in one turn of the event loop at most: others wait for no longer than this takes to copy (some 0.2 ms)
_SLICE = 1 << 20
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SCRATCH = 64 << 10


class _Receiver(asyncio.BufferedProtocol):
    """Fills memory from a connection, then keeps the connection still until somebody takes it over.

    Parameters
    ----------
    transport
        The connection.
    handler
        aiohttp's, which writes the answer: it is told of everything but data.
    out
        Where the body goes.
    moved
        Called whenever something has arrived, with the bytes that have by then.

    Attributes
    ----------
    early
        What came after the body all the same: the first bytes of the next request.
    received
        Done when the body is there, or cannot come any more.
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
        if not self._left:  # the transport was told to read on, by whoever: none of it may be lost
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
        self._out = memoryview(b"")
        if error is None:
            self.received.set_result(None)
        else:
            self.received.set_exception(error)


#: of the request that this task handles: what received its body, and whether the client was told to send it
_receiver: ContextVar[_Receiver | None] = ContextVar("receiver", default=None)
_continued: ContextVar[bool] = ContextVar("continued", default=False)


def _expects_continue(request: web.Request) -> bool:
    """Whether the client may wait for a word before it sends the body. Older versions of HTTP have no such word."""
    return request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue"


def _nothing_arrived(request: web.Request) -> bool:
    """Whether aiohttp's parser has seen the head of the request and nothing behind it."""
    return not request.content.total_bytes and not request.content.is_eof()


def send_continue(request: web.Request) -> None:
    """Tell a client that may wait to send the body, unless some of it has come already."""
    if _expects_continue(request) and request.transport is not None:
        if _nothing_arrived(request):
            request.transport.write(_CONTINUE)
        _continued.set(True)


def waits_in_vain(request: web.Request) -> bool:
    """Whether a client may still wait to be told to send the body. It may then send it or not: see RFC 9110, section
    10.1.1. After the answer, the connection must therefore end.
    """
    return _expects_continue(request) and not _continued.get() and not request.content.is_eof()


def can_receive_into(request: web.Request) -> bool:
    """Whether `receive_into` can be used: the client asked for it, and the whole body, of known length, is to come."""
    return (
        _expects_continue(request)
        and _nothing_arrived(request)
        and request.content_length is not None
        and "Transfer-Encoding" not in request.headers
    )


async def receive_into(request: web.Request, out: memoryview, moved: Callable[[int], None]) -> None:
    """Receive the body of a request into `out`, which is as long as the body.

    Parameters
    ----------
    request
        One for which `can_receive_into` is true now.
    out
        Final address of the body.
    moved
        Called whenever something has arrived, with the bytes that have by then.

    Raises
    ------
    ConnectionError
        The connection ended before the body.
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
        transport.abort()  # where the next request would begin is not known
        raise
    request.content.feed_eof()


async def hand_over(request: web.Request, response: web.StreamResponse, make: Callable[[], Any]) -> None:
    """After `receive_into`: send the answer, and give the connection to a handler that `make` makes."""
    receiver = _receiver.get()
    if receiver is None:
        return
    await response.prepare(request)
    await response.write_eof()
    transport: Any = request.transport
    if transport is None or transport.is_closing() or not response.keep_alive:
        return  # aiohttp closes the connection
    retired = request.protocol
    retired.transport = None  # it is the next handler's now: not to be closed with this one
    retired.connection_lost(None)
    handler = make()
    transport.set_protocol(handler)
    Context().run(handler.connection_made, transport)  # its task is of no request: it inherits nothing of this one
    if receiver.early:
        handler.data_received(bytes(receiver.early))
    transport.resume_reading()
