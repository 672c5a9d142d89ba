"""A web server whose object is made as it is read: of any size, at a set pace, with a count of what was sent.

Byte *n* of the object is byte *n* mod `PERIOD` of one block of random bytes. In a process of its own:
``python -m servers.web.generated SIZE [BYTES A SECOND]`` prints the object's URL and serves until its standard
input ends.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from servers.web.pace import Pace

__all__ = ["PERIOD", "Generated", "block", "generated"]

#: A prime: no two chunks, pages or words of the object begin with the same byte of the block.
PERIOD = 1_048_573
_PIECE = 64 << 10


def block() -> np.ndarray:
    """Return the bytes that repeat."""
    return np.random.default_rng(64).integers(0, 256, PERIOD, np.uint8)


class Generated(ThreadingHTTPServer):
    """The server.

    Attributes
    ----------
    size
        Bytes of the object.
    pace
        How fast all connections together send it.
    sent
        Bytes of the object that were handed to the network so far.
    """

    daemon_threads = True

    def __init__(self, size: int, pace: float | None = None) -> None:
        self.size = size
        self.pace = Pace(pace)
        self.sent = 0
        self.lock = threading.Lock()
        self.twice = memoryview(np.tile(block(), 2))
        super().__init__(("127.0.0.1", 0), _Handler)
        # What was sent is then what has arrived, but for this and as much on the other side.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)

    @property
    def url(self) -> str:
        """Of the object."""
        return f"http://127.0.0.1:{self.server_address[1]}/object"

    def take(self, nbytes: int) -> float:
        """Count bytes that are about to be sent; returns how many seconds that is too early."""
        with self.lock:
            self.sent += nbytes
        return self.pace.take(nbytes)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Generated

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        start, stop = self._answer()
        piece = _PIECE if self.server.pace.rate else PERIOD
        with contextlib.suppress(ConnectionError):
            while start < stop:
                count = min(piece, stop - start)
                time.sleep(self.server.take(count))
                at = start % PERIOD
                self.wfile.write(self.server.twice[at : at + count])
                start += count

    def _answer(self) -> tuple[int, int]:
        start, stop = 0, self.server.size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, stop = int(asked[1]), min(stop, int(asked[2] or stop - 1) + 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{self.server.size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"generated"')
        self.end_headers()
        return start, stop

    def log_message(self, format: str, *values: object) -> None:
        """Be quiet."""


@contextlib.contextmanager
def generated(size: int, pace: float | None = None) -> Iterator[Generated]:
    """Serve an object of `size` bytes from this process."""
    with Generated(size, pace) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)


if __name__ == "__main__":
    with generated(*map(int, sys.argv[1:3])) as running:
        print(running.url, flush=True)
        sys.stdin.read()
