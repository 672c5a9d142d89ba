"""``host://`` on a client: files of a remote host, through its API."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import quote

from apyfal.exceptions import HostError, ObjectChanged, StorageError, StoreUnavailable
from apyfal.host.client.http import Host, HostResponse, Refused
from apyfal.host.protocol.messages import ENTRY_HEADER
from apyfal.storage.handler import Handler, Limits, ObjectInfo, RangeReader, Upload
from apyfal.storage.mounting import table
from apyfal.storage.providers import HOST_SCHEME

__all__ = ["RemoteStore", "attach_host"]

_CHUNK = 1 << 20
_ALL = 1 << 62


def attach_host(host: Host) -> None:
    """Mount ``host://`` in this process, so that `apyfal.storage.open`, `copy` and others use files of `host`."""
    table.table.attach(HOST_SCHEME, RemoteStore(host))


class RemoteStore(Handler):
    """The files that a remote host shares. Each is read or written as a whole, in one request without ranges.

    Parameters
    ----------
    host
        The host; closed with this store.
    """

    scheme: ClassVar[str] = HOST_SCHEME
    limits = Limits(min_part=1, max_part=_ALL, max_parts=_ALL, max_put=_ALL)

    def __init__(self, host: Host) -> None:
        self._host = host

    def describe(self, path: str) -> ObjectInfo:
        return _info(self._json("GET", "stat", path))

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        try:
            response = self._host.request(
                "GET", _target("object", path), headers={"Accept": "application/octet-stream"}
            )
        except Refused as refused:
            raise refused.error() from None
        except OSError as error:
            raise _unavailable(self._host, error) from error
        try:
            info = _sent_with(response) or self.describe(path)
            if version_of is not None and version_of.etag not in (None, info.etag):
                raise ObjectChanged(f"host://{path} changed while it was being read", path=path)
        except BaseException:
            response.close()
            raise
        return _Reader(response, info)

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        return self._put(path, iter((data,)) if len(data) else iter(()), len(data), exclusive)

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> Upload:
        return _Upload(self, path, exclusive)

    def copy(self, source: ObjectInfo, destination: str) -> ObjectInfo:
        body = {"src": f"host://{source.path}", "dst": f"host://{destination}"}
        try:
            return _info(self._host.json("POST", "/v1/storage/copy", body))
        except (ConnectionError, TimeoutError) as error:
            raise _unavailable(self._host, error) from error

    def remove(self, path: str) -> None:
        self._json("DELETE", "object", path)

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        document = self._json("GET", "list", path, "&recursive=true" if recursive else "")
        return iter([_info(entry) for entry in document["entries"]])

    def close(self) -> None:
        self._host.close()

    def _json(self, method: str, operation: str, path: str, more: str = "") -> Any:
        try:
            return self._host.json(method, _target(operation, path) + more)
        except (ConnectionError, TimeoutError) as error:
            raise _unavailable(self._host, error) from error

    def _put(self, path: str, pieces: Iterator[memoryview], length: int, exclusive: bool) -> ObjectInfo:
        headers = {"If-None-Match": "*"} if exclusive else {}
        target = _target("object", path)
        try:
            with self._host.request("PUT", target, headers=headers, body=pieces, length=length) as response:
                return _info(response.json())
        except Refused as refused:
            raise refused.error() from None
        except OSError as error:
            raise _unavailable(self._host, error) from error


class _Reader(RangeReader):
    """The body of one response, which is a whole file."""

    def __init__(self, response: HostResponse, info: ObjectInfo) -> None:
        self._response = response
        self._left = response.length or 0
        self.info = info

    def readinto(self, out: memoryview) -> int:
        count = min(len(out), self._left, _CHUNK)
        if count:
            try:
                self._response.readinto(out[:count])
            except OSError as error:
                raise StoreUnavailable(f"host://{self.info.path}: the host stopped sending: {error}") from error
            self._left -= count
        return count

    def close(self) -> None:
        self._response.close()


class _Upload(Upload):
    """An upload in parts: collected in a temporary file, then sent in one request."""

    def __init__(self, store: RemoteStore, path: str, exclusive: bool) -> None:
        self._store = store
        self._path = path
        self._exclusive = exclusive
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by complete and abort
        self._known = threading.Condition()
        self._part_size: int | None = None

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        with self._known:
            if number == 1:
                self._part_size = len(data)
                self._known.notify_all()
            while self._part_size is None and not self._file.closed:
                self._known.wait()
            if self._part_size is None:
                raise StorageError(f"the upload to host://{self._path} was aborted", path=self._path)
            offset = (number - 1) * self._part_size
        done = 0
        while done < len(data):
            done += os.pwrite(self._file.fileno(), data[done:], offset + done)

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        info = self._store._put(self._path, self._pieces(size), size, self._exclusive)
        self._file.close()
        return info

    def abort(self) -> None:
        self._file.close()
        with self._known:
            self._known.notify_all()

    def _pieces(self, size: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(_CHUNK, max(size, 1))))
        offset = 0
        while offset < size:
            count = os.preadv(self._file.fileno(), [buffer[: size - offset]], offset)
            if not count:
                raise StorageError(f"host://{self._path}: {size} bytes were announced, and {offset} written")
            yield buffer[:count]
            offset += count


def _target(operation: str, path: str) -> str:
    return f"/v1/storage/{operation}?url={quote(f'host://{path}', safe='')}"


def _sent_with(response: HostResponse) -> ObjectInfo | None:
    """Return the description that the host sent with an object; ``None``: there is none (older hosts send none)."""
    header = response.header(ENTRY_HEADER)
    try:
        info = None if header is None else _info(json.loads(header))
    except (ValueError, RecursionError, HostError):
        return None
    return info if info is not None and info.size == response.length else None


def _info(document: Any) -> ObjectInfo:
    try:
        return ObjectInfo(
            path=document["path"],
            size=document["size"],
            etag=document["etag"],
            mtime=document["mtime"],
            ranges=False,
            is_directory=document["is_directory"],
        )
    except (KeyError, TypeError):
        raise HostError("the host's answer is malformed: expected the description of an object") from None


def _unavailable(host: Host, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"{host.address} cannot be reached: {error}")
