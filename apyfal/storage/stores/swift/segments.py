"""Writing Swift's static large objects: segments in parallel, then one manifest that makes them an object."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from typing import Any

from apyfal.exceptions import ChecksumMismatch, ObjectExists, ObjectNotFound, StorageError
from apyfal.storage.flow.cancel import shielded
from apyfal.storage.handler import ObjectInfo, Upload
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.stores.swift.client import SEGMENT_PREFIX, SwiftObjects
from apyfal.storage.stores.swift.metadata import CRC_HEADER, headers_of

__all__ = ["SwiftUpload"]


class SwiftUpload(Upload):
    """One object being written as a static large object.

    Parameters
    ----------
    store
        Where it is.
    path
        ``container/key``.
    container
        Where its segments go; made when it is missing.
    exclusive
        Whether the object must not exist.
    metadata
        Its content type and the like.
    """

    def __init__(
        self,
        store: SwiftObjects,
        path: str,
        container: str,
        *,
        exclusive: bool = False,
        metadata: ObjectMetadata | None = None,
    ) -> None:
        self._store = store
        self._path = path
        self._container = container
        self._exclusive = exclusive
        self._metadata = metadata
        self._prefix = f"{SEGMENT_PREFIX}{uuid.uuid4().hex}/"
        self._lock = threading.Lock()
        self._segments: dict[int, dict[str, Any]] = {}
        self._begun = False
        self._tried = False

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        """Send one segment; Swift compares it with its MD5 before it keeps it."""
        self._begin()
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        name = self._name(number)
        headers = [("Content-Type", "application/octet-stream"), ("ETag", md5)]
        response = self._store.write(name, headers, data, accept=(201, 422))
        if response.status == 422:
            raise ChecksumMismatch(f"cannot write {name!r}: the store received other bytes than were sent")
        self._note(number, name, md5, len(data))

    def copy_from(self, source: ObjectInfo, segments: list[dict[str, Any]]) -> ObjectInfo:
        """Copy a large object segment by segment, inside the store."""
        self._begin()
        try:
            for number, segment in enumerate(segments, 1):
                name = self._name(number)
                self._store.copy_object(str(segment["name"]).lstrip("/"), name, str(segment["hash"]))
                self._note(number, name, str(segment["hash"]), int(segment["bytes"]))
            return self.complete(sum(int(each["bytes"]) for each in segments), source.checksums.get("crc64nvme"))
        except BaseException:
            self.abort()
            raise

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        """Write the manifest. Swift checks the size and the MD5 of every segment that it names."""
        manifest = [self._segments[number] for number in sorted(self._segments)]
        total = sum(segment["size_bytes"] for segment in manifest)
        if total != size:
            raise StorageError(f"cannot write {self._path!r}: {total} bytes were sent of {size}", path=self._path)
        headers = [*headers_of(self._metadata, self._path), ("Accept", "application/json")]
        if checksum is not None:
            headers.append((CRC_HEADER, checksum.hex()))
        if self._exclusive:
            headers.append(("If-None-Match", "*"))
        superseded = [name for name in self._store.own_segments(self._path) if not self._is_own(name)]
        body = memoryview(json.dumps([{**each, "path": "/" + each["path"]} for each in manifest]).encode())
        again, self._tried = self._tried, True
        query = "?multipart-manifest=put"
        response = self._store.write(self._path, headers, body, query=query, accept=(201, 412))
        if response.status == 412 and not (again and self._is_ours(manifest)):
            raise ObjectExists(f"cannot write {self._path!r}: it exists", path=self._path, status=412)
        self._store.remove_segments(superseded)
        return self._store.describe(self._path)

    def abort(self) -> None:
        """Remove every segment, those included whose answer was lost."""
        with shielded():
            try:
                found = [info.path for info in self._store.list(f"{self._container}/{self._prefix}", recursive=True)]
            except ObjectNotFound:
                return
            self._store.remove_segments(found)
        with self._lock:
            self._segments.clear()

    def _begin(self) -> None:
        with self._lock:
            if not self._begun:
                self._store.makedirs(self._container)
                self._begun = True

    def _name(self, number: int) -> str:
        return f"{self._container}/{self._prefix}{number:06d}"

    def _note(self, number: int, name: str, md5: str, size: int) -> None:
        with self._lock:
            self._segments[number] = {"path": name, "etag": md5, "size_bytes": size}

    def _is_own(self, name: str) -> bool:
        return name.startswith(f"{self._container}/{self._prefix}")

    def _is_ours(self, manifest: list[dict[str, Any]]) -> bool:
        """Whether the object that is there is made of just these segments: an earlier answer was lost."""
        there = [str(segment["name"]).lstrip("/") for segment in self._store.manifest(self._path)]
        return there == [segment["path"] for segment in manifest]
