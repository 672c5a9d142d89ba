"""One connection that carries frames: receives them, sends them with back-pressure, and detects stalls."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from apyfal.host.protocol.frame_reader import FrameHandler, FrameReader
from apyfal.host.protocol.frames import FrameError, FrameLimits
from apyfal.host.server.channel.socket_writer import SocketWriter

__all__ = ["ChannelHandler", "FrameConnection"]

#: bytes waiting to be sent in this process above which results are held back
_HIGH_WATER = 64 << 10
#: and those at which results are sent again
_LOW_WATER = _HIGH_WATER // 4


class ChannelHandler(FrameHandler, Protocol):
    """What a `FrameConnection` reports to, besides frames."""

    def may_submit(self) -> bool:
        """Return whether frames may be handled now; otherwise the handler calls `resume` later."""
        ...

    def on_broken(self, error: FrameError) -> None:
        """Handle a peer that broke the protocol."""

    def on_writable(self) -> None:
        """Send what was held back."""

    def on_lost(self) -> None:
        """Clean up: the connection is closed."""


class FrameConnection(asyncio.BufferedProtocol):
    """Frames over one transport. Used on the event loop.

    Parameters
    ----------
    transport
        The connection, whose HTTP is over.
    handler
        Receives its frames.
    scratch
        Memory to receive into, which all connections share.
    known
        The frames that the peer may send.

    Attributes
    ----------
    received_at
        When something arrived last, in seconds of the loop's clock.
    """

    def __init__(
        self, transport: Any, handler: ChannelHandler, scratch: bytearray, known: Mapping[int, FrameLimits]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._handler = handler
        self._reader = FrameReader(known, handler, scratch)
        self._scratch = scratch
        self._writer: SocketWriter | None = None
        self._writable: asyncio.Event = asyncio.Event()
        self._writable.set()
        self._written = 0
        self._progress = 0
        self._progress_at = self._loop.time()
        self._ended = self._lost = False
        self.received_at = self._loop.time()

    def take_over(self) -> None:
        """Receive from now on what the transport receives. Reading is paused at first."""
        transport = self._transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        transport.set_protocol(self)
        if transport.get_extra_info("sslcontext") is None and not transport.get_write_buffer_size():
            self._writer = SocketWriter(transport.get_extra_info("socket"), self._on_sent, self.abort)
        transport.resume_reading()

    # -- receiving -----------------------------------------------------------------------------------------------------
    @property
    def is_mid_frame(self) -> bool:
        """Return whether a frame has begun to arrive."""
        return self._reader.is_mid_frame and not self._reader.held

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._scratch) if self._ended else self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.received_at = self._loop.time()
        if self._ended:
            return
        if not self._handler.may_submit():
            self._reader.held = True
        try:
            self._reader.received(nbytes)
        except FrameError as error:
            self._handler.on_broken(error)
        if self._reader.held and not self._ended:
            self._transport.pause_reading()

    def hold(self) -> None:
        """Handle no more frames until `resume`."""
        self._reader.held = True

    def resume(self) -> None:
        """Handle the frames that were held."""
        if self._ended or not self._reader.held:
            return
        self._reader.held = False
        try:
            self._reader.resume()
        except FrameError as error:
            self._handler.on_broken(error)
        if not self._reader.held and not self._ended:
            self._transport.resume_reading()

    # -- sending -------------------------------------------------------------------------------------------------------
    @property
    def is_writable(self) -> bool:
        """Return whether more can be sent at once."""
        return self._writable.is_set()

    def write(self, *pieces: bytes | memoryview) -> None:
        """Send pieces of bytes one after the other, in one call. They must not change until they are sent."""
        if self._ended or self._lost:
            return
        self._written += sum(map(len, pieces))
        if self._writer is not None:
            self._writer.write(*pieces)
            if self._writer.waiting > _HIGH_WATER:
                self.pause_writing()
        elif sys.version_info >= (3, 11) and self._transport.get_extra_info("sslcontext") is not None:
            self._transport.writelines(pieces)  # one packet, of a record for each
        else:
            for piece in pieces:
                self._transport.write(piece)

    def write_behind(self, head: bytes, data: memoryview) -> None:
        """Send `head` and `data` in one call: otherwise the head is a packet that wakes the peer up for 12 bytes."""
        self.write(head, data)

    def detach(self) -> None:
        """Copy what waits to be sent, a piece of an output and headers at most: its memory is no longer counted."""
        if self._writer is not None:
            self._writer.detach()

    def _on_sent(self) -> None:
        """Continue with what waited for the socket."""
        writer = self._writer
        if writer is None:
            return
        if writer.waiting <= _LOW_WATER and not self.is_writable:
            self.resume_writing()
        if self._ended and not writer.waiting:
            self._transport.close()

    async def drain(self) -> None:
        """Wait until more can be sent. Raises `ConnectionError` if the connection is lost."""
        await self._writable.wait()
        if self._ended or self._lost:
            raise ConnectionError("the channel is closed")

    def stalled_for(self, now: float) -> float:
        """Return for how many seconds the peer has taken nothing of what waits to be sent."""
        waiting = self._transport.get_write_buffer_size() if self._writer is None else self._writer.waiting
        sent = self._written - waiting
        if not waiting or sent != self._progress:
            self._progress, self._progress_at = sent, now
        return now - self._progress_at

    # -- end -----------------------------------------------------------------------------------------------------------
    @property
    def ended(self) -> bool:
        """Return whether the connection no longer receives and sends."""
        return self._ended or self._lost

    def end(self, last: bytes) -> None:
        """Send a last frame, and close the connection when all is sent."""
        if self.ended:
            return
        self.write(last)
        self._ended = self._reader.held = True
        if self._writer is not None and self._writer.waiting:
            self._transport.pause_reading()  # `_on_sent` closes it
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._ended = True
        self._transport.abort()

    def eof_received(self) -> None:
        """Let the transport close: the peer has closed its end, so it waits for no results."""

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        if not self.ended:
            self._handler.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._writer is not None:
            self._writer.close()
        self._writable.set()
        self._handler.on_lost()
