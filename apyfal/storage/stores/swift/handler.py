"""OpenStack Swift, over its own protocol (Object Storage API v1 reference).

The protocol, not python-swiftclient or the cluster's optional S3 interface: a body is received at its final address,
MD5 and static large objects (SLO) are what every cluster has, and there is nothing to install. An object that is
written in parts is an SLO: its segments go to the container ``<container>_segments``, as the other Swift clients do it,
under ``.apyfal/``, and go away with the object. Each segment is sent with its MD5; the CRC-64/NVME of the whole is kept
with the object as metadata, since the ETag of an SLO is none of its content.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from urllib.parse import unquote

from apyfal.exceptions import ChecksumMismatch, ObjectExists
from apyfal.storage.handler import ObjectInfo, RangeReader
from apyfal.storage.metadata import ObjectMetadata, require_fields
from apyfal.storage.stores.rest import split_path
from apyfal.storage.stores.swift.client import SwiftObjects, target_of
from apyfal.storage.stores.swift.metadata import CRC_HEADER, headers_of
from apyfal.storage.stores.swift.segments import SwiftUpload

__all__ = ["SwiftHandler"]


class SwiftHandler(SwiftObjects):
    """One account of an OpenStack Swift cluster; its parameters are those of `SwiftObjects`."""

    def path_of(self, url: str) -> str | None:
        """Path of the object with this full address, ``https://domain/v1/project/container/object``."""
        session = self._authenticator.session()
        root = f"{session.origin}{session.prefix}/"
        return unquote(url[len(root) :]) if url.startswith(root) else None

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to receive a range, of one version if `version_of` has an ETag."""
        target = target_of(*split_path(self.scheme, path))
        match = [("If-Match", version_of.etag)] if version_of is not None and version_of.etag else []
        return self._read_range(target, path, start, stop, version_of, match)

    def put(
        self,
        path: str,
        data: memoryview,
        checksum: bytes | None,
        *,
        exclusive: bool = False,
        metadata: ObjectMetadata | None = None,
    ) -> ObjectInfo:
        """Write a whole object; Swift compares it with its MD5 before it shows it."""
        container, key = split_path(self.scheme, path)
        require_fields(self.metadata_fields, metadata, path, self.scheme)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        headers = [*headers_of(metadata, path), ("ETag", md5)]
        if checksum is not None:
            headers.append((CRC_HEADER, checksum.hex()))
        if exclusive:
            headers.append(("If-None-Match", "*"))
        superseded = [] if exclusive else self.own_segments(path)
        accept = (201, 412, 422)
        response, _ = self._ask(
            "PUT", target_of(container, key), path, "write", headers=headers, body=(data,), accept=accept
        )
        if response.status == 412:
            raise ObjectExists(f"cannot write {path!r}: it exists", path=path, status=412)
        if response.status == 422:
            raise ChecksumMismatch(f"cannot write {path!r}: the store received other bytes than were sent", path=path)
        self.remove_segments(superseded)
        return replace(self._info(path, response, len(data)), metadata=None)

    def upload(
        self, path: str, *, size: int | None, exclusive: bool = False, metadata: ObjectMetadata | None = None
    ) -> SwiftUpload:
        """Begin to write segments."""
        require_fields(self.metadata_fields, metadata, path, self.scheme)
        return SwiftUpload(self, path, self._segments_of(path), exclusive=exclusive, metadata=metadata)

    def _segments_of(self, path: str) -> str:
        container, _ = split_path(self.scheme, path)
        return self._segments_container or f"{container}_segments"

    def copy(self, source: ObjectInfo, destination: str, *, metadata: ObjectMetadata | None = None) -> ObjectInfo:
        """Copy inside the account; of a large object, every segment."""
        require_fields(self.metadata_fields, metadata, destination, self.scheme)
        segments = self.manifest(source.path)
        whole = None
        if segments or metadata is not None:
            kept = source.metadata or self.describe(source.path).metadata or ObjectMetadata()
            whole = metadata.over(kept) if metadata is not None else kept
        if segments:
            upload = SwiftUpload(self, destination, self._segments_of(destination), metadata=whole)
            return upload.copy_from(source, segments)
        headers = []
        if whole is not None:
            headers = [("X-Fresh-Metadata", "true"), *headers_of(whole, destination)]
            headers += [(CRC_HEADER, crc.hex()) for name, crc in source.checksums.items() if name == "crc64nvme"]
        superseded = self.own_segments(destination)
        response = self.copy_object(source.path, destination, source.etag, headers)
        self.remove_segments(superseded)
        return replace(self._info(destination, response, source.size), metadata=None)

    def remove(self, path: str) -> None:
        """Remove an object with its segments, or an empty container."""
        container, key = split_path(self.scheme, path, key=False)
        target = target_of(container, key)
        if key and self._is_large(path):
            target += "?multipart-manifest=delete"
        self._ask("DELETE", target, path, "remove", accept=(200, 204))

    def _is_large(self, path: str) -> bool:
        """Return whether an object has segments that go away with it."""
        head, _ = self._ask("HEAD", target_of(*split_path(self.scheme, path)), path, "remove")
        return head.headers.get("x-static-large-object", "").lower() == "true"
