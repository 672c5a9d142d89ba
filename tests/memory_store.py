"""A store in memory, for tests of what is above a handler: complete, strict, and with failures on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from apyfal.exceptions import ObjectChanged, ObjectExists, ObjectNotFound, StorageError
from apyfal.storage.handler import Handler, Limits, ObjectInfo, RangeReader, Upload


class MemoryHandler(Handler):
    """Objects by path. Its parameters are there to be checked by the registry's tests."""

    scheme = "memory"
    limits = Limits(min_part=1 << 20, max_put=64 << 20)

    def __init__(
        self,
        *,
        client_id: str | None = None,
        secret_id: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        timeout: float = 10.0,
        retries: int = 3,
        verify: bool = True,
    ) -> None:
        self.parameters = {
            "client_id": client_id,
            "secret_id": secret_id,
            "region": region,
            "endpoint_url": endpoint_url,
            "timeout": timeout,
            "retries": retries,
            "verify": verify,
        }
        self.objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self.uploads: set[_MemoryUpload] = set()
        self.calls: list[str] = []
        self.fail: dict[str, int] = {}  # what to fail, and how many times
        self.closed = 0
        self.lock = threading.Lock()
        self._versions = 0

    def check(self, call: str) -> None:
        with self.lock:
            self.calls.append(call)
            if self.fail.get(call, 0):
                self.fail[call] -= 1
                raise StorageError(f"{call} fails on demand")  # not of the kind that is tried again

    def store(self, path: str, data: bytes, exclusive: bool = False) -> ObjectInfo:
        with self.lock:
            if exclusive and path in self.objects:
                raise ObjectExists(f"{path!r} exists", path=path)
            self._versions += 1
            info = ObjectInfo(path, len(data), etag=f'"{self._versions}"', mtime=time.time())
            self.objects[path] = (data, info)
            return info

    def describe(self, path: str) -> ObjectInfo:
        self.check("describe")
        try:
            return self.objects[path][1]
        except KeyError:
            raise ObjectNotFound(f"there is no object {path!r}", path=path) from None

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        self.check("read")
        info = self.describe(path)
        if version_of is not None and version_of.etag != info.etag:
            raise ObjectChanged(f"{path!r} changed", path=path)
        return _MemoryReader(self, info, self.objects[path][0][start:stop])

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        self.check("put")
        return self.store(path, bytes(data), exclusive)

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> Upload:
        self.check("upload")
        upload = _MemoryUpload(self, path, exclusive)
        self.uploads.add(upload)
        return upload

    def copy(self, source: ObjectInfo, destination: str) -> ObjectInfo:
        self.check("copy")
        return self.store(destination, self.objects[source.path][0])

    def remove(self, path: str) -> None:
        self.check("remove")
        if self.objects.pop(path, None) is None:
            raise ObjectNotFound(f"there is no object {path!r}", path=path)

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        self.check("list")
        prefix = path if not path or path.endswith("/") else path + "/"
        seen = set()
        for name in sorted(self.objects):
            if not name.startswith(prefix) or name == prefix:  # not the mark of the directory itself
                continue
            head, slash, _ = name[len(prefix) :].partition("/")
            if recursive or not slash:
                yield self.objects[name][1]
            elif head not in seen:
                seen.add(head)
                yield ObjectInfo(prefix + head, None, is_directory=True)

    def path_of(self, url: str) -> str | None:
        start = "https://memory.example/"
        return url.removeprefix(start) if url.startswith(start) else None

    def close(self) -> None:
        self.closed += 1


class _MemoryReader(RangeReader):
    def __init__(self, handler: MemoryHandler, info: ObjectInfo, data: bytes) -> None:
        self.handler = handler
        self.info = replace(info)
        self.rest = memoryview(data)

    def readinto(self, out: memoryview) -> int:
        self.handler.check("readinto")
        count = min(len(out), len(self.rest))
        out[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        return count

    def close(self) -> None:
        self.rest = memoryview(b"")


class _MemoryUpload(Upload):
    def __init__(self, handler: MemoryHandler, path: str, exclusive: bool) -> None:
        self.handler = handler
        self.path = path
        self.exclusive = exclusive
        self.parts: dict[int, bytes] = {}

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        self.handler.check("write_part")
        self.parts[number] = bytes(data)

    def copy_part(self, number: int, source: ObjectInfo, start: int, stop: int) -> bytes | None:
        self.handler.check("copy_part")
        data, info = self.handler.objects[source.path]
        if info.etag != source.etag:
            raise ObjectChanged(f"{source.path!r} changed", path=source.path)
        self.parts[number] = data[start:stop]
        return None

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        self.handler.check("complete")
        data = b"".join(self.parts[number] for number in sorted(self.parts))
        info = self.handler.store(self.path, data, self.exclusive)
        self.handler.uploads.discard(self)
        return info

    def abort(self) -> None:
        self.handler.check("abort")
        self.handler.uploads.discard(self)
