"""An S3 endpoint that takes every object and forgets it, as a process of its own: what uploads are measured against.

``python -m support.discard [BYTES A SECOND]`` prints its port, and serves until its standard input ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from servers.web.pace import Pace

ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'


def serve(pace: Pace) -> None:
    """Listen on a free port, print it, and answer until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener, pace), daemon=True).start()
    sys.stdin.read()
    os._exit(0)


def _accept(listener: socket.socket, pace: Pace) -> None:
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_talk, args=(sock, pace), daemon=True).start()


def _talk(sock: socket.socket, pace: Pace) -> None:
    scratch = bytearray(1 << 20)
    with sock, contextlib.suppress(OSError):
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                more = sock.recv(16384)
                if not more:
                    return
                head += more
            head, _, body = head.partition(b"\r\n\r\n")
            if re.search(rb"(?i)expect: *100-continue", head):
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            found = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
            left = int(found[1]) - len(body) if found else 0
            while left > 0:
                count = sock.recv_into(scratch, min(left, len(scratch)))
                if not count:
                    return
                left -= count
                if (early := pace.take(count)) > 0:
                    time.sleep(early)
            sock.sendall(_answer(head.split(b"\r\n", 1)[0]))


def _answer(line: bytes) -> bytes:
    method, target, _ = line.split(b" ", 2)
    body = b""
    if method == b"POST" and b"uploads" in target:
        body = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    elif method == b"POST":
        body = f"<CompleteMultipartUploadResult><ETag>{ETAG}</ETag></CompleteMultipartUploadResult>".encode()
    head = f"HTTP/1.1 200 OK\r\nETag: {ETAG}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (b"" if method == b"HEAD" else body)


@contextlib.contextmanager
def discard(pace: int | None = None) -> Iterator[str]:
    """Run the endpoint, taking `pace` bytes a second (``None``: what it can); yields its URL."""
    command = [sys.executable, "-m", "support.discard", *([] if pace is None else [str(pace)])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the endpoint has no pipes")
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


if __name__ == "__main__":
    serve(Pace(float(sys.argv[1]) if len(sys.argv) > 1 else None))
