"""A channel by hand: frames of any kind, and what the host says to them."""

from __future__ import annotations

import json
import secrets
import socket
from typing import Any

from host.support.daemon import RunningDaemon

from apyfal.host.protocol import frames
from apyfal.host.protocol.frames import FROM_SERVER, HEADER_NBYTES, OFFERED, FrameType


def upgrade(
    daemon: RunningDaemon, token: str | None, *fields: str, protocol: str = OFFERED, version: str = "1.1"
) -> tuple[socket.socket, bytes]:
    """Ask for a channel; the connection and the head of the answer."""
    opened = socket.create_connection(("127.0.0.1", daemon.port), 30)
    lines = [f"GET /v1/channel HTTP/{version}", "Host: x", *(fields or ("Connection: Upgrade", f"Upgrade: {protocol}"))]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    opened.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = opened.recv(1 if head else 16)
        if not piece:
            break
        head += piece
    return opened, head


class RawChannel:
    """A channel on which a test sends what it likes."""

    def __init__(
        self, daemon: RunningDaemon, token: str, timeout: float = 30, protocol: str = "apyfal-channel/2"
    ) -> None:
        self.socket, head = upgrade(daemon, token, protocol=protocol)
        if not head.startswith(b"HTTP/1.1 101 "):
            self.socket.close()
            raise AssertionError(head)
        assert f"upgrade: {protocol}" in head.decode().lower()
        self.socket.settimeout(timeout)
        self._file = self.socket.makefile("rb")

    def send(self, *pieces: bytes | None) -> None:
        self.socket.sendall(b"".join(piece for piece in pieces if piece is not None))

    def job(self, stream: int, session: str, document: dict[str, Any], body: bytes = b"", key: str = "") -> None:
        """Send a job with a small body, in one DATA frame."""
        head = frames.job_frame(stream, key or secrets.token_hex(8), session, json.dumps(document), len(body))
        self.send(head, frames.data_header(stream, len(body)) + body if body else b"")

    def frame(self) -> tuple[int, int, bytes]:
        """Return type, stream and payload of the next frame that is not a PING."""
        while True:
            head = self._file.read(HEADER_NBYTES)
            if not head:
                raise EOFError
            header = frames.parse_header(head, FROM_SERVER)
            payload = self._file.read(header.nbytes)
            if header.type != FrameType.PING:
                return header.type, header.stream, payload

    def result(self) -> tuple[int, dict[str, Any], bytes]:
        """Return the stream, the document and the small output of the next result."""
        kind, stream, payload = self.frame()
        assert kind == FrameType.RESULT, (kind, stream, payload)
        document, _, nbytes = frames.parse_result(payload)
        output = b""
        while len(output) < nbytes:
            kind, of, piece = self.frame()
            assert (kind, of) == (FrameType.DATA, stream)
            output += piece
        return stream, document, output

    def error(self) -> tuple[int, int, str]:
        """Return the stream, the status and the message of the next frame, which is an error."""
        kind, stream, payload = self.frame()
        assert kind == FrameType.ERROR, (kind, stream, payload)
        found = frames.parse_error(payload)
        return stream, found.status, found.document["error"]["message"]

    def is_closed(self) -> bool:
        """Wait for the end of the connection, with nothing before it."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> RawChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def array_job(nbytes: int) -> dict[str, Any]:
    """Describe a job over an array of bytes, whose output comes back."""
    return {"src": {"body": True, "array": {"dtype": "|u1", "shape": [nbytes]}}}
