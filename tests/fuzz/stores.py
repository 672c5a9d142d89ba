"""Handlers of all stores, against a server that sends whatever bytes the fuzzer chose."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

from apyfal.exceptions import AcceleratorException
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.http.pool import ConnectionPool
from apyfal.storage.mounting.mount import MountSpec
from apyfal.storage.mounting.parameters import MountParameter

__all__ = ["OPERATIONS", "stores"]

_MAX = 1 << 16
_KEYS = {"client_id": "a", "secret_id": "Yg==", "endpoint_url": "http://h"}
_MOUNTS: list[tuple[str, dict[str, object]]] = [
    ("s3", _KEYS | {"region": "r", "addressing": "path"}),
    ("oss", _KEYS),
    ("gs", {"anonymous": True, "endpoint_url": "http://h"}),
    ("gs", _KEYS),
    ("az", _KEYS),
    ("swift", _KEYS | {"auth_type": "v1"}),
    ("swift", _KEYS | {"project": "p"}),
    ("http", {}),
]


def _read(handler: Handler, path: str) -> None:
    with contextlib.closing(handler.read(path, 1, 5, None)) as reader:
        out = memoryview(bytearray(100))
        while reader.readinto(out):
            pass


def _list(handler: Handler, path: str) -> None:
    for number, _ in enumerate(handler.list(path)):
        if number > 1000:
            break


def _upload(handler: Handler, path: str) -> None:
    upload = handler.upload(path, size=None)
    try:
        upload.write_part(1, memoryview(b"data"), None)
        upload.complete(4, None)
    finally:
        upload.abort()


_KNOWN = ObjectInfo("b/k", 4, etag='"e"')
_OPERATIONS: list[Callable[[Any, str], object]] = [
    lambda handler, path: handler.describe(path),
    lambda handler, path: handler.describe(path.partition("/")[0]),
    _read,
    _list,
    lambda handler, path: _list(handler, ""),
    lambda handler, path: handler.put(path, memoryview(b"data"), None),
    _upload,
    lambda handler, path: handler.remove(path),
    lambda handler, path: handler.copy(_KNOWN, path + "2"),
    lambda handler, path: handler.metadata_of(_KNOWN),
    lambda handler, path: handler.makedirs(path),
    lambda handler, path: handler.describe_version(path, "v"),
]

#: what an input begins with: for each provider and operation, one byte of each
OPERATIONS = [bytes((mount, operation)) for mount in range(len(_MOUNTS)) for operation in range(len(_OPERATIONS))]


@contextlib.contextmanager
def _answering(data: bytes) -> Iterator[None]:
    """Let the connections of this process lead to a server that sends the next answer to each, whatever it is asked."""
    answers = data[:_MAX].split(b"\0\0")
    original = ConnectionPool._open_socket
    with contextlib.ExitStack() as stack:

        def open_socket(self: ConnectionPool, host: str, port: int) -> socket.socket:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            theirs.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                theirs.sendall(answers.pop(0) if answers else b"")
            theirs.shutdown(socket.SHUT_WR)
            return ours

        ConnectionPool._open_socket = open_socket  # type: ignore[method-assign]
        stack.callback(setattr, ConnectionPool, "_open_socket", original)
        yield


def stores(data: bytes) -> None:
    """One operation of one provider; each connection gets what is before the next two NUL bytes."""
    if len(data) < 2:
        return
    provider, parameters = _MOUNTS[data[0] % len(_MOUNTS)]
    operation = _OPERATIONS[data[1] % len(_OPERATIONS)]
    given = {name: MountParameter(value) for name, value in parameters.items()}
    handler = MountSpec("fuzz", provider, parameters=given, ambient=False).connect()
    path = "h/b/k" if provider == "http" else "b/k"
    try:
        with _answering(data[2:]):
            operation(handler, path)
    except AcceleratorException:
        pass
    except AttributeError as error:
        if error.obj is not handler:  # an operation that not every store has
            raise
    finally:
        handler.close()  # type: ignore[attr-defined]  # all of these have connections
