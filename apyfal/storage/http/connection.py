"""One HTTP/1.1 connection: requests go out from the caller's memory, bodies are received at their final address.

This is less than `http.client` on purpose. It parses a response head in a few microseconds instead of a hundred, waits
in the kernel with one system call a read (socket timeouts, not a poll before every ``recv``), and counts every byte, so
that a body that ends early is an error here and never an end of file. Framing follows RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import cast

from apyfal._core.tls import Session
from apyfal.exceptions import StorageError, StoreUnavailable, TransferTimeout
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.http.response import Response
from apyfal.units import whole_number

__all__ = ["Connection", "parse_head"]

#: Heads are read through a buffer of this size; what it catches of the body beyond the head is copied, once a response.
_HEAD_BUFFER = 16 << 10
_MAX_RECORD = 16 << 10  # RFC 8446, section 5.1
_MAX_HEAD = 128 << 10
#: Sent in one call at most, so that a slow receiver is noticed and a cancellation is prompt.
_SEND_PIECE = 1 << 20
#: Small requests go out with their head in one system call.
_GATHER = 256 << 10
#: Seconds after which records that arrived over TLS are handed on, though there is room for more.
_GATHERED = 0.25
#: What an idle socket has; `|` of the enumeration would take longer than the call.
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
#: Bytes a second below which a connection counts as stalled, however regularly it drips.
_MIN_RATE = 512


class Connection:
    """A connected socket, with or without TLS, and the bytes already read from it.

    Not thread-safe, except `interrupt`.

    Parameters
    ----------
    sock
        The connected socket, or the TLS session on it; owned by this object from now on.
    name
        ``host:port``, for messages.
    timeout
        Seconds that it may make no progress.
    """

    __slots__ = (
        "_buffer",
        "_end",
        "_flags",
        "_pos",
        "_raw",
        "_sock",
        "_tls",
        "_waited",
        "_window",
        "cancel",
        "idle_since",
        "key",
        "name",
        "timeout",
    )

    def __init__(self, sock: socket.socket | Session, name: str, timeout: float) -> None:
        self._sock = sock
        self._raw = sock.sock if isinstance(sock, Session) else sock
        self._tls = isinstance(sock, (ssl.SSLSocket, Session))
        self._flags = 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_WAITALL
        self._buffer = bytearray(_HEAD_BUFFER)
        self._pos = self._end = 0
        self._waited = 0.0
        self._window = 0
        self.name = name
        self.timeout = timeout
        self.idle_since = 0.0
        self.key: Hashable = None
        self.cancel: CancelToken | None = None
        if self._raw.family != socket.AF_UNIX:
            self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            sock.settimeout(timeout)
        else:
            # With Python's own timeouts every recv would be a poll and a recv.
            spec = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
            self._raw.settimeout(None)
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, spec)
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, spec)

    # -- life ---------------------------------------------------------------------------------------------------------
    def interrupt(self) -> None:
        """Wake a thread that waits in this connection, which is of no use afterwards."""
        try:
            # Not SSLSocket.shutdown: that drops the TLS state under a thread that is reading.
            socket.socket.shutdown(self._raw, socket.SHUT_RDWR)
        except OSError:
            return  # already closed by the other side

    def close(self) -> None:
        """Close the socket, without a TLS farewell (the peer needs none after a complete exchange)."""
        self._sock.close()

    def descriptor(self) -> int | None:
        """Return the descriptor of the socket; ``None`` if bytes were read ahead, or if its TLS is Python's."""
        return None if isinstance(self._sock, ssl.SSLSocket) or self._end > self._pos else self._sock.fileno()

    @property
    def session(self) -> Session | None:
        """The native TLS session on the socket; ``None`` if there is none, or if its TLS is Python's."""
        return self._sock if isinstance(self._sock, Session) else None

    def is_quiet(self) -> bool:
        """Whether an idle connection can be used again: still open, and nothing unasked for in it."""
        if self._end > self._pos:
            return False
        try:
            if isinstance(self._sock, Session):
                return self._sock.quiet()
            if self._tls:
                # A closed or talking peer makes the socket readable; session tickets were read with the first response.
                self._raw.setblocking(False)
                try:
                    socket.socket.recv(self._raw, 1, socket.MSG_PEEK)
                finally:
                    self._raw.settimeout(self.timeout)
            else:
                self._raw.recv(1, _PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except (OSError, ValueError):
            return False
        return False

    # -- sending ------------------------------------------------------------------------------------------------------
    def send(self, head: bytes | memoryview, body: Sequence[memoryview] = ()) -> None:
        """Send a request from the caller's memory.

        Raises
        ------
        StoreUnavailable, TransferTimeout
            The peer closed, or took nothing for the timeout. It may have responded nevertheless.
        """
        self._waited, self._window = 0.0, 0
        if not body:
            self._send_all(memoryview(head))
        elif self._tls:
            # One record for head and small body; larger bodies are never joined.
            total = sum(map(len, body))
            if total <= 8192:
                self._send_all(memoryview(b"".join((head, *body))))
            else:
                self._send_all(memoryview(head))
                for piece in body:
                    self._send_all(piece)
        else:
            pieces = [memoryview(head), *body]
            if sum(map(len, pieces)) <= _GATHER:
                pieces = self._send_gathered(pieces)
            for piece in pieces:
                self._send_all(piece)

    def send_more(self, body: Iterable[memoryview]) -> None:
        """Send a body, or the rest of one, after its head. Errors as `send`."""
        for piece in body:
            self._send_all(piece)

    def _send_gathered(self, pieces: list[memoryview]) -> list[memoryview]:
        """Send with one system call; returns what is left."""
        begin = time.monotonic()
        try:
            sent = self._raw.sendmsg(pieces)
        except OSError as error:
            raise self._failed(error) from error
        self._moved(begin, sent)
        while pieces and sent >= len(pieces[0]):
            sent -= len(pieces.pop(0))
        if pieces and sent:
            pieces[0] = pieces[0][sent:]
        return pieces

    def _send_all(self, data: memoryview) -> None:
        done, total = 0, len(data)
        while done < total:
            begin = time.monotonic()
            try:
                count = self._sock.send(data[done : done + _SEND_PIECE])
            except OSError as error:
                raise self._failed(error) from error
            done += self._moved(begin, count)

    # -- receiving ----------------------------------------------------------------------------------------------------
    def receive_into(self, out: memoryview) -> int:
        """Receive bytes at their final address: all of `out` unless the peer closes or is slow."""
        if self._end > self._pos:
            count = min(len(out), self._end - self._pos)
            out[:count] = memoryview(self._buffer)[self._pos : self._pos + count]
            self._pos += count
            return count
        if isinstance(self._sock, ssl.SSLSocket) and len(out) > _MAX_RECORD:
            # with a buffer it returns a count, which typeshed does not know
            return self._receive_records(cast("Callable[[int, memoryview], int]", self._sock.read), out)
        # Without MSG_WAITALL every segment that arrives would cost a wakeup of Python.
        return self._receive(out, self._flags)

    def _receive_records(self, read: Callable[[int, memoryview], int], out: memoryview) -> int:
        """Fill `out` record by record: there are 65,536 in a GiB, so that nothing else is done between two."""
        begin = time.monotonic()
        done, total = 0, len(out)
        try:
            while done < total:
                count = read(total - done, out[done:])
                done += count
                if not count or time.monotonic() - begin > _GATHERED:
                    break
        except OSError as error:
            if not done:
                raise self._failed(error) from error
            # what came before counts, and the next call meets the error again
        return self._moved(begin, done)

    def _receive(self, out: memoryview, flags: int) -> int:
        begin = time.monotonic()
        try:
            count = self._sock.recv_into(out, 0, flags)
        except OSError as error:
            raise self._failed(error) from error
        return self._moved(begin, count)

    def _moved(self, begin: float, count: int) -> int:
        """Notice stalls: the time spent waiting counts, not the time between calls."""
        self._waited += time.monotonic() - begin
        self._window += count
        if self._waited >= self.timeout:
            if self._window < _MIN_RATE * self.timeout:
                self.check_cancelled()
                raise TransferTimeout(f"{self.name}: only {self._window} bytes in {self._waited:.1f} s")
            self._waited, self._window = 0.0, 0
        return count

    def _failed(self, error: OSError) -> StorageError:
        """Return the error to raise for one of the socket."""
        self.check_cancelled()
        if isinstance(error, (BlockingIOError, TimeoutError)):
            return TransferTimeout(f"{self.name}: nothing moved for {self.timeout:g} s")
        if isinstance(error, ssl.SSLError):
            return StoreUnavailable(f"{self.name}: TLS: {error.reason or error}")
        return StoreUnavailable(f"{self.name}: {error.strerror or error}")

    def check_cancelled(self) -> None:
        """Raise `TransferCancelled` if that is why the socket failed."""
        if self.cancel is not None:
            self.cancel.check()

    # -- heads --------------------------------------------------------------------------------------------------------
    def read_response(self, method: str) -> Response:
        """Receive the head of the response to a request with `method`; interim responses (1xx) are skipped."""
        while True:
            status, headers, persistent = self._read_head()
            if status >= 200:
                return Response(self, method, status, headers, persistent)

    def await_continue(self, method: str) -> Response | None:
        """Wait for leave to send the body, after a head with ``Expect: 100-continue`` (RFC 9110, section 10.1.1).

        Returns
        -------
        Response or None
            ``None``: the body may be sent. Else the response that came instead of leave.
        """
        found = self._await(100, method)
        return found if isinstance(found, Response) else None

    def await_upgrade(self, method: str) -> Response | str:
        """Wait for another protocol, after a head with ``Upgrade`` (RFC 9110, section 7.8).

        Returns
        -------
        Response or str
            The name of the protocol of all that follows, in lower case. Else the response that came instead.
        """
        found = self._await(101, method)
        return found if isinstance(found, Response) else found.get("upgrade", "").strip().lower()

    def _await(self, wanted: int, method: str) -> Response | dict[str, str]:
        """Skip interim responses until the wanted one, whose fields are returned, or the final response."""
        while True:
            status, headers, persistent = self._read_head()
            if status == wanted:
                return headers
            if status >= 200:
                return Response(self, method, status, headers, persistent)

    def read_exactly(self, count: int) -> bytes:
        """Return the next `count` bytes, of a protocol of small messages: what comes behind them is buffered.

        Raises
        ------
        StoreUnavailable, TransferTimeout
            The peer closed, or sent nothing for the timeout.
        """
        end = self._pos + count
        if end <= self._end:  # it came with what was read before
            data = bytes(memoryview(self._buffer)[self._pos : end])
            self._pos = end
            return data
        self._waited, self._window = 0.0, 0
        if count > len(self._buffer):
            whole = bytearray(count)
            with memoryview(whole) as view:
                done = 0
                while done < count:
                    received = self.receive_into(view[done:])
                    if not received:
                        raise StoreUnavailable(f"{self.name}: closed")
                    done += received
            return bytes(whole)
        while self._end - self._pos < count:
            if not self._fill():
                self.check_cancelled()
                raise StoreUnavailable(f"{self.name}: closed")
        self._pos += count
        return bytes(memoryview(self._buffer)[self._pos - count : self._pos])

    def _fill(self) -> int:
        """Read more behind what the buffer holds; 0 when the peer closed."""
        if self._pos == self._end:
            self._pos = self._end = 0
        elif self._end == len(self._buffer):
            if self._pos:
                self._buffer[: self._end - self._pos] = self._buffer[self._pos : self._end]
                self._end -= self._pos
                self._pos = 0
            elif len(self._buffer) < _MAX_HEAD:
                self._buffer.extend(bytes(len(self._buffer)))
            else:
                raise StoreUnavailable(f"{self.name}: the head of the response is longer than {_MAX_HEAD} bytes")
        with memoryview(self._buffer) as view:
            if not self._end:
                count = self._receive(view, 0)
            else:
                with view[self._end :] as room:
                    count = self._receive(room, 0)
        self._end += count
        return count

    def read_line(self) -> bytes:
        """Read a line of the framing (a chunk's size, a trailer) without its end."""
        while True:
            end = self._buffer.find(b"\n", self._pos, self._end)
            if end >= 0:
                line = bytes(self._buffer[self._pos : end])
                self._pos = end + 1
                return line.rstrip(b"\r")
            if not self._fill():
                self.check_cancelled()
                raise StoreUnavailable(f"{self.name}: closed in the middle of a body")

    def _read_head(self) -> tuple[int, dict[str, str], bool]:
        self._waited, self._window = 0.0, 0
        scanned = self._pos
        while (end := self._buffer.find(b"\r\n\r\n", max(scanned - 3, self._pos), self._end)) < 0:
            behind = self._end - self._pos
            if not self._fill():
                self.check_cancelled()
                raise StoreUnavailable(f"{self.name}: closed before {'the end of' if behind else ''} its response")
            scanned = self._pos + behind
        head = self._buffer[self._pos : end]
        self._pos = end + 4
        return parse_head(head, self.name)


def parse_head(head: bytes | bytearray, name: str) -> tuple[int, dict[str, str], bool]:
    """Read the head of a response.

    Parameters
    ----------
    head
        All of it, without the blank line at its end.
    name
        ``host:port``, for messages.

    Returns
    -------
    tuple
        The status, the headers as `Response` takes them, and whether the connection may be used again.

    Raises
    ------
    StoreUnavailable
        It is malformed.
    """
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code = whole_number(rest[:3])
    if not version.startswith("HTTP/1.") or code is None or len(rest) < 3:
        raise StoreUnavailable(f"{name}: no HTTP response: {lines[0][:60]!r}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        field, colon, value = line.partition(":")
        field = field.lower()
        if not colon or not field or field[-1] in " \t" or field[0] in " \t":
            raise StoreUnavailable(f"{name}: malformed header line {line[:60]!r}")
        value = value.strip(" \t")
        if field in headers:
            if field == "content-length" and headers[field] != value:
                raise StoreUnavailable(f"{name}: two different lengths in one response")
            if field != "content-length":
                value = f"{headers[field]}, {value}"
        headers[field] = value
    connection = headers.get("connection", "").lower()
    persistent = "keep-alive" in connection if version == "HTTP/1.0" else "close" not in connection
    return code, headers, persistent
