"""The body of an HTTP/1.1 response, whichever way it is framed (RFC 9112, sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from apyfal.exceptions import StorageError, StoreUnavailable
from apyfal.units import whole_number

__all__ = ["BodyConnection", "Response"]


class BodyConnection(Protocol):
    """What a `Response` needs of the connection that its body arrives on."""

    @property
    def name(self) -> str:
        """``host:port`` of the peer, for messages."""
        raise NotImplementedError

    def receive_into(self, out: memoryview) -> int:
        """Receive bytes at their final address; 0 when the peer has closed."""
        raise NotImplementedError

    def read_line(self) -> bytes:
        """Read a line of the framing without its end."""
        raise NotImplementedError

    def check_cancelled(self) -> None:
        """Raise `TransferCancelled` if the transfer was cancelled."""

    def close(self) -> None:
        """Close the connection."""


class Response:
    """A response whose body is still on the connection.

    Attributes
    ----------
    status
        The HTTP status.
    headers
        Names in lower case; repeated fields joined by commas.
    length
        Bytes that the body will have; ``None`` if the framing does not say (chunked, or until the peer closes).
    """

    __slots__ = ("_chunked", "_connection", "_done", "_left", "_release", "headers", "length", "persistent", "status")

    def __init__(
        self, connection: BodyConnection, method: str, status: int, headers: dict[str, str], persistent: bool
    ) -> None:
        self.status = status
        self.headers = headers
        self.persistent = persistent
        self._connection: BodyConnection | None = connection
        self._release: Callable[[bool], None] | None = None
        self._chunked = False
        self._done = False
        self.length: int | None = None
        if method == "HEAD" or status in (204, 304):
            self.length = 0
        elif "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked":
                raise StorageError(
                    f"{connection.name}: transfer encoding {headers['transfer-encoding']!r} is not known"
                )
            self._chunked = True
        elif "content-length" in headers:
            text = headers["content-length"]
            self.length = whole_number(text)
            if self.length is None:
                raise StoreUnavailable(f"{connection.name}: Content-Length is {text[:40]!r}")
        # Bytes left of the body, or of the current chunk; -1: until the peer closes.
        self._left = 0 if self._chunked else -1 if self.length is None else self.length
        if self._left < 0:
            self.persistent = False

    def on_release(self, release: Callable[[bool], None]) -> None:
        """Set the function that takes the connection back; it is called with whether the connection can be used again.

        It is called at once if there is no body.
        """
        self._release = release
        if self.length == 0:
            self._finish()

    @property
    def name(self) -> str:
        """``host:port`` of the peer, for messages."""
        return self._connection.name if self._connection is not None else "the store"

    def readinto(self, out: memoryview) -> int:
        """Receive 1 to ``len(out)`` bytes at their final address; 0 only at the end of the body as it was framed.

        Raises
        ------
        StoreUnavailable
            The connection broke, or ended before its framing said so.
        TransferTimeout
            Nothing, or next to nothing, came for the connection's timeout.
        """
        connection = self._connection
        if self._done or connection is None or not len(out):
            return 0
        if self._left == 0 and self._chunked and not self._next_chunk(connection):
            return 0
        count = connection.receive_into(out if self._left < 0 or len(out) <= self._left else out[: self._left])
        if self._left < 0:
            if not count:
                connection.check_cancelled()
                self._finish()
            return count
        if not count:
            connection.check_cancelled()
            raise StoreUnavailable(f"{connection.name}: closed with {self._left} bytes of the body still to come")
        self._left -= count
        if self._left == 0:
            if self._chunked:
                if connection.read_line():
                    raise StoreUnavailable(f"{connection.name}: malformed chunk")
            else:
                self._finish()
        return count

    def _next_chunk(self, connection: BodyConnection) -> bool:
        line = connection.read_line()
        size = line.split(b";", 1)[0].strip()
        if not size or size.strip(b"0123456789abcdefABCDEF"):
            raise StoreUnavailable(f"{connection.name}: malformed chunk size {line[:40]!r}")
        self._left = int(size, 16)
        if self._left == 0:
            while connection.read_line():
                pass  # trailers
            self._finish()
        return not self._done

    def read(self, limit: int = 1 << 20) -> bytes:
        """Read the rest of a small body (an error, a listing); more than `limit` bytes are an error.

        The connection is given back, or closed when this raises.
        """
        known = self._left if self._left > 0 and not self._chunked else 16 << 10
        data = bytearray(min(known, limit) + 1)
        filled = 0
        try:
            while True:
                if filled > limit:
                    raise StorageError(f"{self.name}: more than {limit} bytes where a small response was expected")
                if filled == len(data):
                    data.extend(bytes(len(data)))
                with memoryview(data) as view, view[filled:] as room:
                    count = self.readinto(room)
                if not count:
                    return bytes(data[:filled])
                filled += count
        finally:
            self.close()

    def _finish(self) -> None:
        self._done = True
        self._give_back(self.persistent)

    def _give_back(self, usable: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        release, self._release = self._release, None
        if release is not None:
            release(usable)
        else:
            connection.close()

    def close(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise."""
        self._give_back(False)
