"""A web server that never ends: endless bodies, a byte a second, listings that always go on, retries far away."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

_LISTING = (
    '<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated>'
    "<NextContinuationToken>{token}</NextContinuationToken>{contents}</ListBucketResult>"
)
_OBJECT = "<Contents><Key>k{number}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/listing"):
            self._list(parse_qs(url.query))
            return
        if url.path.startswith("/later"):
            self.send_response(503)
            self.send_header("Retry-After", "86400")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        endless = url.path.startswith("/endless")
        self.send_response(200)
        self.send_header(*(("Transfer-Encoding", "chunked") if endless else ("Content-Length", "100000")))
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(OSError):
            for _ in range(100_000):
                self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n" if endless else b"x")
                self.wfile.flush()
                if not endless:
                    time.sleep(1)

    def _list(self, query: dict[str, list[str]]) -> None:
        number = int(query.get("continuation-token", ["0"])[0])
        kind = urlsplit(self.path).path.split("/")[1]
        contents = (
            "" if kind == "listing-empty" else "".join(_OBJECT.format(number=number * 1000 + n) for n in range(1000))
        )
        token = 0 if kind == "listing-same" else number + 1
        body = _LISTING.format(token=token, contents=contents).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def hostile_web() -> Iterator[int]:
    """Serve for a block; yields the port."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
