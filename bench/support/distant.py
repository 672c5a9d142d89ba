"""A store that is some milliseconds away: every answer begins that much after its request, as over a network.

``python -m support.distant SECONDS BYTES`` prints its port, and serves until its standard input ends: any name is an
object of
so many bytes, all equal to the number that the name ends in, modulo 256; what is put is forgotten, and refused if it is
something else than would be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterator

from support.store_process import in_own_process, serve

ETAG = '"distant"'


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other, as from a client without pipelining."""

    def __init__(self, delay: float, nbytes: int) -> None:
        self.delay = delay
        self.nbytes = nbytes
        self.received = b""
        self.left = 0  # of a body that is being sent to us
        self.content = b""  # what that consists of
        self.wrong = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer when a request is there."""
        if self.left:
            self.take(data)
            return
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        self.received = b""
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if method == b"PUT":
            length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
            self.left = int(length[1]) if length else 0
            self.content, self.wrong = _content(target), self.left != self.nbytes
            if re.search(rb"(?i)expect: *100-continue", head):
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.take(body)
            return
        content = _content(target)
        asked = re.search(rb"(?i)\nrange: *bytes=(\d+)-(\d*)", head)
        if asked:
            start, stop = int(asked[1]), min(self.nbytes, int(asked[2] or self.nbytes) + 1)
            answer = _head(206, stop - start, f"Content-Range: bytes {start}-{stop - 1}/{self.nbytes}\r\n")
            body = content * (stop - start)
        else:
            answer, body = _head(200, self.nbytes), content * self.nbytes
        self.later(answer + (b"" if method == b"HEAD" else body))

    def take(self, data: bytes) -> None:
        """Take a piece of a body; answer if it was the last."""
        self.left -= len(data)
        self.wrong |= data != self.content * len(data)
        if not self.left:
            self.later(_head(400 if self.wrong else 200, 0))

    def later(self, answer: bytes) -> None:
        """Send an answer when its time has come."""
        asyncio.get_running_loop().call_later(self.delay, self.transport.write, answer)


def _content(target: bytes) -> bytes:
    """Return the byte of which an object consists."""
    number = re.search(rb"(\d+)$", target.partition(b"?")[0])
    return bytes([int(number[1]) % 256 if number else 0])


def _head(status: int, length: int, more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} OK\r\nETag: {ETAG}\r\nAccept-Ranges: bytes\r\nContent-Length: {length}\r\n"
        f"Last-Modified: Sun, 22 Nov 2026 00:00:00 GMT\r\n{more}\r\n"
    ).encode()


@contextlib.contextmanager
def distant(delay: float, nbytes: int) -> Iterator[str]:
    """Run the store in a process of its own; yields its URL."""
    with in_own_process("support.distant", delay, nbytes) as url:
        yield url


if __name__ == "__main__":
    asyncio.run(serve(lambda: Connection(float(sys.argv[1]), int(sys.argv[2]))))
