"""Parse frames as their bytes arrive, in pieces of any size, receive bodies at their final address, and divide a body
into frames. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from apyfal.exceptions import HostError
from apyfal.host.protocol.frames import (
    HEADER_NBYTES,
    MAX_DATA,
    FrameHeader,
    FrameLimits,
    FrameType,
    data_header,
    parse_header,
)

__all__ = ["FrameHandler", "FrameReader", "Framing"]

#: bytes received at once, unless they go to their final address
SCRATCH: Final = 64 << 10
#: size of a body, in bytes, from which it is received at its final address, and the most bytes received at once: other
#: connections wait at most for one copy of these (about 0.2 ms)
_DIRECT_FROM = 16 << 10
_SLICE = 1 << 20


class FrameHandler(Protocol):
    """Receives what a `FrameReader` has found. The methods may raise `FrameError`."""

    def on_frame(self, header: FrameHeader, payload: bytes) -> None:
        """Handle a frame that is not a DATA frame."""

    def place(self, stream: int, nbytes: int) -> memoryview | None:
        """Return the memory for the next `nbytes` of a stream's body; ``None``: discard them."""

    def on_data(self, stream: int, nbytes: int) -> None:
        """Handle the arrival of `nbytes` of a body, in the memory that `place` returned."""


class FrameReader:
    """Parses the frames of one connection.

    Parameters
    ----------
    known
        The frames that the peer may send.
    handler
        Receives them, in order.
    scratch
        Memory of `SCRATCH` bytes to receive into. Several readers can share it, because nothing stays in it between
        two calls.

    Attributes
    ----------
    held
        If true, frames are not handled, but kept until `resume`. A handler may set it.
    """

    def __init__(self, known: Mapping[int, FrameLimits], handler: FrameHandler, scratch: bytearray) -> None:
        self._known = known
        self._handler = handler
        self._scratch = scratch
        self._rest = bytearray()  # what arrived and was not handled
        self._stream = 0
        self._left = 0  # bytes that are missing in the current DATA frame
        self._place: memoryview | None = None
        self._direct = False
        self.held = False

    @property
    def is_mid_frame(self) -> bool:
        """Return whether a frame has arrived in part."""
        return bool(self._rest) or self._left > 0

    def get_buffer(self) -> memoryview:
        """Return the memory for the next bytes of the connection. Call `received` before calling this again."""
        self._direct = self._left >= _DIRECT_FROM and self._place is not None and not self._rest
        if self._direct and self._place is not None:
            return self._place[:_SLICE]
        return memoryview(self._scratch)

    def received(self, nbytes: int) -> None:
        """Handle the next `nbytes` of the connection, which are in the buffer. Raises `FrameError`."""
        if self._direct:
            self._advance(nbytes)
            return
        arrived = memoryview(self._scratch)[:nbytes]
        if self._rest or self.held:
            self._rest += arrived
            self.resume()
            return
        done = self._handle(arrived)
        if done < nbytes:
            self._rest += arrived[done:]

    def resume(self) -> None:
        """Handle what has arrived, until nothing is left or `held` is set. Raises `FrameError`."""
        if self.held or not self._rest:
            return
        rest, self._rest = self._rest, bytearray()
        done = self._handle(memoryview(rest))
        self._rest += memoryview(rest)[done:]

    def _handle(self, data: memoryview) -> int:
        """Handle complete frames and pieces of bodies; return the number of bytes consumed."""
        done, end = 0, len(data)
        while done < end and not self.held:
            if self._left:
                count = min(self._left, end - done)
                if self._place is not None:
                    self._place[:count] = data[done : done + count]
                self._advance(count)
                done += count
                continue
            if end - done < HEADER_NBYTES:
                break
            header = parse_header(data, self._known, done)
            if header.type == FrameType.DATA:
                self._place = self._handler.place(header.stream, header.nbytes)
                self._stream, self._left = header.stream, header.nbytes
                done += HEADER_NBYTES
                continue
            behind = done + HEADER_NBYTES + header.nbytes
            if behind > end:
                break
            payload = bytes(data[done + HEADER_NBYTES : behind])
            done = behind
            self._handler.on_frame(header, payload)
        return done

    def _advance(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._place is not None:
            self._place = self._place[nbytes:] if self._left else None
        self._handler.on_data(self._stream, nbytes)


class Framing:
    """Divides a body of known size into frames, whose sizes do not depend on those of its pieces.

    Parameters
    ----------
    stream, nbytes
        The stream of the body, and its size.
    """

    def __init__(self, stream: int, nbytes: int) -> None:
        self._stream = stream
        self._left = nbytes
        self._in_frame = 0

    def of(self, piece: memoryview) -> list[memoryview]:
        """Return the next piece, with the headers of the frames that begin in it."""
        parts = []
        while piece:
            if not self._in_frame:
                self._in_frame = min(self._left, MAX_DATA)
                parts.append(memoryview(data_header(self._stream, self._in_frame)))
            part, piece = piece[: self._in_frame], piece[self._in_frame :]
            self._in_frame -= len(part)
            self._left -= len(part)
            parts.append(part)
        return parts

    def end(self) -> None:
        """Check that the whole body was given. Raises `HostError`."""
        if self._left:
            raise HostError(f"a body ended {self._left} bytes early")
