"""The daemon's HTTP interface: any route, with any query, header fields and body, from any user."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

from apyfal.exceptions import StoreUnavailable
from apyfal.host.client.http import Host
from apyfal.host.protocol import frames
from apyfal.host.protocol.address import parse_address
from apyfal.host.server import daemon as daemon_module
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.policy.egress import EgressPolicy
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.settings import HostSettings

__all__ = ["ROUTES", "channels", "handlers"]

#: method and path of each route that needs a token, with the names in the path that exist, in the order of the tests
ROUTES = (
    "POST /v1/sessions", "GET /v1/sessions", "DELETE /v1/sessions/{session}",
    "PUT /v1/sessions/{session}/mounts/{name}", "DELETE /v1/sessions/{session}/mounts/{name}",
    "POST /v1/sessions/{session}/memory",
    "DELETE /v1/sessions/{session}/memory/{region}", "POST /v1/sessions/{session}/jobs", "GET /v1/jobs",
    "GET /v1/jobs/{job}", "DELETE /v1/jobs/{job}", "DELETE /v1/jobs/{job}/output", "GET /v1/jobs/{job}/events",
    "GET /v1/storage/list", "GET /v1/storage/stat", "GET /v1/storage/object", "PUT /v1/storage/object",
    "DELETE /v1/storage/object", "POST /v1/storage/copy", "GET /v1/channel", "GET /metrics", "GET /v1/user",
    "GET /v1/accelerators", "GET /v1/devices", "GET /v1/mounts",
)  # fmt: skip
#: seconds for an answer before the request is given up, and until the daemon must have noticed that
_PATIENCE = 0.1
_HANG = 10.0


class _Gate(EgressPolicy):
    """Lets nothing out."""

    def __call__(self, host: str, port: int) -> list[str]:
        self._check_literal(host, port)
        raise StoreUnavailable(f"{host}: the tests connect to nothing")


class _Served:
    """A daemon in a thread of this process, from the first input on."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="apyfal-fuzz-"))
        shared, inside = self.directory / "shared", self.directory / "shared/inside"
        inside.mkdir(parents=True)
        (shared / "x").write_bytes(b"x")
        tokens = TokenStore(self.directory / "tokens.json")
        self.tokens = [
            tokens.create("alice"),
            tokens.create("admin", ("process", "storage", "admin")),
            tokens.create("bob", ("process",)),
            tokens.create("carol", ("storage:read",)),
            tokens.create("dave", directories=[inside], accelerators=["loopback"], mounts=[]),
        ]
        settings = HostSettings(
            authorized_host_dirs=(str(shared),), state_directory=self.directory, audit_log=self.directory / "audit",
            request_rate=1_000_000, memory_limit=64 << 20, disk_limit=64 << 20, max_body=1 << 20, disk_reserve=0,
            host_quota=1 << 20, session_timeout=5.0, keep_jobs=5.0, keep_outputs=5.0, stop_timeout=1.0,
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        async def serve() -> None:
            self.daemon = Daemon(settings, [Listener(host="127.0.0.1")], config={})
            await self.daemon.run(ready.set)

        before = daemon_module.__dict__["EgressPolicy"]
        daemon_module.__dict__["EgressPolicy"] = _Gate
        try:
            threading.Thread(target=lambda: self._loop.run_until_complete(serve()), daemon=True).start()
            if not ready.wait(30):
                raise AssertionError("the daemon does not start")
        finally:
            daemon_module.__dict__["EgressPolicy"] = before
        self.port = self.daemon.ports[0]
        atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        self._sessions: dict[str, str] = {}
        self.names = {"session": "0" * 32, "job": "0" * 15 + "-" + "0" * 16, "name": "m", "region": "0" * 32}

    def session_of(self, token: str) -> str:
        """Return an open session of a user; one is opened anew if it was closed."""
        host = Host(parse_address(f"http://127.0.0.1:{self.port}"), token)
        with contextlib.closing(host):
            open_ones = {one["id"] for one in host.json("GET", "/v1/sessions")["sessions"]}
            if self._sessions.get(token) not in open_ones:
                self._sessions[token] = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
        return self._sessions[token]


_SERVED: list[_Served] = []


def _served() -> _Served:
    if not _SERVED:
        _SERVED.append(_Served())
    return _SERVED[0]


def handlers(data: bytes) -> None:
    """A request: two bytes that choose route and user, then query, header fields and body, parted by a zero.

    The answer may be anything but 500, and comes; a request that waits for more ends with its connection.
    """
    if len(data) < 2:
        return
    served = _served()
    method, _, path = ROUTES[data[0] % len(ROUTES)].partition(" ")
    token = served.tokens[data[1] % len(served.tokens)]
    query, _, rest = data[2:].partition(b"\0")
    fields, _, body = rest.partition(b"\0")
    for name, value in served.names.items():
        path = path.replace(f"{{{name}}}", value)
    head = f"{method} {path}?".encode() + query + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n".encode() + fields + b"\r\n\r\n"
    answer = _exchange(served.port, head + body)
    if b" 500 " in answer[:16]:
        raise AssertionError(answer[:2000])
    _remember(served, method, path, answer)


def channels(data: bytes) -> None:
    """What follows on a data channel: jobs for an open session, and anything else. No refusal says 500."""
    served = _served()
    if not data:
        return
    token = served.tokens[data[0] % len(served.tokens)]
    head = f"GET /v1/channel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {frames.OFFERED}\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=_HANG) as connection:
        connection.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(1 << 16)
            if not piece:
                return
            answer += piece
        if not answer.startswith(b"HTTP/1.1 101"):
            return
        session = served.session_of(token).encode()
        sent = data[1:].replace(b"S" * 32, session)
        said = answer.partition(b"\r\n\r\n")[2] + _until_the_end(connection, sent)
    while len(said) >= frames.HEADER_NBYTES:
        header = frames.parse_header(said, frames.FROM_SERVER)
        payload, said = said[frames.HEADER_NBYTES :][: header.nbytes], said[frames.HEADER_NBYTES + header.nbytes :]
        if header.type == frames.FrameType.ERROR and len(payload) == header.nbytes:
            error = frames.parse_error(payload)
            if error.status == 500:
                raise AssertionError(str(error))


def _exchange(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        return _until_the_end(connection, request)


def _until_the_end(connection: socket.socket, sent: bytes) -> bytes:
    """Send, and return all that is answered until the other side closes; after some time, this side does."""
    answer = b""
    connection.settimeout(_PATIENCE)
    with contextlib.suppress(ConnectionError, TimeoutError):
        connection.sendall(sent)
    began = time.monotonic()
    while True:
        try:
            piece = connection.recv(1 << 16)
        except TimeoutError:
            if time.monotonic() - began > _HANG:
                raise AssertionError("neither an answer nor the end of the connection") from None
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            continue
        except ConnectionError:
            return answer
        if not piece:
            return answer
        answer += piece


def _remember(served: _Served, method: str, path: str, answer: bytes) -> None:
    """Let later requests name what this one made."""
    if method == "POST" and b" 201 " in answer[:16] and (at := answer.find(b'"id": "')) > 0:
        served.names["session"] = answer[at + 7 : at + 39].decode("ascii", "replace")
    elif method == "POST" and path.endswith("/jobs") and (at := answer.find(b'"id": "')) > 0:
        served.names["job"] = answer[at + 7 : at + 39].decode("ascii", "replace")
    elif path.endswith("/memory") and (at := answer.find(b'"name": "')) > 0:
        served.names["region"] = answer[at + 9 : at + 41].decode("ascii", "replace")
