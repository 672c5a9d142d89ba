"""Azure Blob Storage, over its REST protocol (Blob service REST API reference).

The protocol, not azure-storage-blob: the SDK's bodies are `bytes` and its uploads copy, while one range of a blob is a
single GET whose body can be received at its final address. Azure offers no S3 interface. What Azure does better than
anybody, finding out which identity a machine has, is left to azure-identity.

Every request body carries the CRC-64 that Azure checks (the polynomial is that of CRC-64/NVME, its bytes the other way
around), or its MD5 where an emulator refuses that header. The CRC-64 of the whole blob is kept as metadata, as Azure
itself keeps an MD5 only, and none of blobs that were written in blocks.

An upload that is given up leaves uncommitted blocks: the protocol has no request to remove them, nobody can see them,
and Azure deletes them after a week.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar
from urllib.parse import urlencode
from xml.etree import ElementTree

from apyfal.exceptions import (
    ObjectChanged,
    StorageError,
    StoreUnavailable,
    UnsupportedByStore,
)
from apyfal.storage.flow.cancel import current_cancel
from apyfal.storage.handler import ObjectInfo, RangeReader, Upload
from apyfal.storage.http.answers import read_xml
from apyfal.storage.http.paging import PageGuard
from apyfal.storage.http.status import http_date
from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata, require_fields
from apyfal.storage.stores.azure.auth import (
    EntraToken,
    SharedAccessSignature,
)
from apyfal.storage.stores.azure.blocks import BlockUpload
from apyfal.storage.stores.azure.client import AzureBlobs, checksum_headers, conflict, name_of, target_of, writing
from apyfal.storage.stores.azure.metadata import headers_of
from apyfal.storage.stores.request_batch import PartRequest, RequestBatch, is_plain
from apyfal.storage.stores.rest import folder_prefix, quoted, split_path
from apyfal.units import whole_number

__all__ = ["AzureHandler"]

_COPY_POLL = 0.5
_WITH_SNAPSHOTS = [("x-ms-delete-snapshots", "include")]


class AzureHandler(AzureBlobs):
    """One Azure storage account; its parameters are those of `AzureBlobs`."""

    #: "Blob Batch" of the REST reference: so many requests in a batch
    most_removed: ClassVar[int] = 256
    tells_missing: ClassVar[bool] = True

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to receive a range, of one version if `version_of` has an ETag."""
        split_path(self.scheme, path)
        match = [("If-Match", version_of.etag)] if version_of is not None and version_of.etag else []
        return self._read_range(target_of(path), path, start, stop, version_of, match)

    def put(
        self,
        path: str,
        data: memoryview,
        checksum: bytes | None,
        *,
        exclusive: bool = False,
        metadata: ObjectMetadata | None = None,
    ) -> ObjectInfo:
        """Write a whole blob; Azure compares it with its checksum before it shows it."""
        split_path(self.scheme, path)
        require_fields(self.metadata_fields, metadata, path, self.scheme)
        headers = [("x-ms-blob-type", "BlockBlob"), *writing(path, checksum, exclusive, metadata)]
        response = self._send_content(target_of(path), path, data, checksum, headers)
        if response.status == 409:
            raise conflict(response, path)
        return replace(self._info(path, response, len(data)), metadata=None)

    def upload(
        self, path: str, *, size: int | None, exclusive: bool = False, metadata: ObjectMetadata | None = None
    ) -> Upload:
        """Begin to write blocks."""
        split_path(self.scheme, path)
        require_fields(self.metadata_fields, metadata, path, self.scheme)
        return BlockUpload(self, path, exclusive, metadata)

    def copy(self, source: ObjectInfo, destination: str, *, metadata: ObjectMetadata | None = None) -> ObjectInfo:
        """Copy inside the account ("Copy Blob"), which keeps all but tags and an access tier."""
        if isinstance(self._credential, EntraToken):
            raise UnsupportedByStore("az: a token does not authorize the source of a copy")
        split_path(self.scheme, destination)
        require_fields(self.metadata_fields, metadata, destination, self.scheme)
        if metadata is not None and any(getattr(metadata, name) is not None for name in HTTP_FIELDS):
            raise UnsupportedByStore("az: a copy has the content type and the like of its source")
        kept = self.metadata_of(source)
        wanted = metadata.over(kept) if metadata is not None else kept
        target = self._base + target_of(source.path)
        if isinstance(self._credential, SharedAccessSignature):
            target, _ = self._credential.authorize("GET", target, [], 0)
        headers = [("x-ms-copy-source", f"{self._origin}{target}"), *headers_of(wanted.only(("storage_class", "tags")))]
        if metadata is not None and metadata.user is not None:  # which replaces all of it
            headers += [*headers_of(wanted.only(("user",))), *checksum_headers(source.checksums.get("crc64nvme"))]
        if source.etag:
            headers.append(("x-ms-source-if-match", source.etag))
        response, _ = self._ask(
            "PUT", target_of(destination), source.path, "copy", headers=headers, accept=(202, 409, 412)
        )
        if response.status == 412:
            raise ObjectChanged(f"{source.path!r} changed while it was being copied", path=source.path)
        if response.status == 409:
            raise conflict(response, destination)
        status = response.headers.get("x-ms-copy-status", "success")
        while status == "pending":
            cancel = current_cancel()
            if cancel is None:
                time.sleep(_COPY_POLL)
            elif cancel.wait(_COPY_POLL):
                cancel.check()
            response, _ = self._ask("HEAD", target_of(destination), destination, "copy to")
            status = response.headers.get("x-ms-copy-status", "success")
        if status != "success":
            why = response.headers.get("x-ms-copy-status-description", status)
            raise StorageError(f"cannot copy to {destination!r}: {status}: {why[:200]}", path=destination)
        return self.describe(destination)

    def remove(self, path: str) -> None:
        """Remove a blob with its snapshots, or a container."""
        container, key = split_path(self.scheme, path, key=False)
        if key:
            self._ask("DELETE", target_of(path), path, "remove", headers=_WITH_SNAPSHOTS, accept=(202,))
        else:
            self._ask("DELETE", f"/{quoted(container)}?restype=container", path, "remove", accept=(202,))

    def can_remove_together(self, path: str) -> bool:
        """Return whether a blob can be removed by a batch."""
        # Azurite answers with 500 to a batch whose parts have a signature in their query
        return not isinstance(self._credential, SharedAccessSignature) and is_plain(path)

    def remove_together(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Remove blobs of one container with their snapshots by one batch; return the errors by path."""
        container = paths[0].partition("/")[0]
        # a part has no version of its own, and is authorized as if it came alone
        batch = RequestBatch(
            PartRequest("DELETE", *self._credential.authorize("DELETE", target, _WITH_SNAPSHOTS, 0))
            for target in (self._base + target_of(path) for path in paths)
        )
        target = f"/{quoted(container)}?restype=container&comp=batch"
        headers = [("Content-Type", batch.content_type)]
        what = "remove blobs of"
        answer = self._send("POST", target, container, what, headers=headers, body=(batch.body,), accept=(202,))
        return self._refusals(batch.responses(answer), paths, container, what, removed=(202,))

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List containers, or what is below ``container/prefix``."""
        container, prefix = folder_prefix(path)
        if not container:
            guard = PageGuard(path)
            for entry in self._pages("/", {"comp": "list"}, path, "Containers", guard):
                if guard.is_new(name := name_of(entry)):
                    mtime = http_date(entry.findtext("Properties/Last-Modified"))
                    yield ObjectInfo(name, None, mtime=mtime, is_directory=True)
            return
        query = {"restype": "container", "comp": "list", "prefix": prefix}
        if not recursive:
            query["delimiter"] = "/"
        guard = PageGuard(path, prefix, recursive=recursive)
        for entry in self._pages(f"/{quoted(container)}", query, path, "Blobs", guard):
            key = name_of(entry)
            folder = key if entry.tag == "BlobPrefix" else guard.directory_of(key)
            name = f"{container}/{folder or key}"
            if not guard.is_new(name):
                continue
            if folder is not None:
                yield ObjectInfo(name.rstrip("/"), None, is_directory=True)
                continue
            if key == prefix:  # the object that marks the directory itself
                continue
            etag = entry.findtext("Properties/Etag")
            yield ObjectInfo(
                name,
                whole_number(entry.findtext("Properties/Content-Length") or ""),
                etag=f'"{etag}"' if etag and not etag.startswith('"') else etag,
                mtime=http_date(entry.findtext("Properties/Last-Modified")),
            )

    def _pages(
        self, target: str, query: dict[str, str], path: str, what: str, guard: PageGuard
    ) -> Iterator[ElementTree.Element]:
        marker = ""
        while True:
            text = urlencode({**query, **({"marker": marker} if marker else {})})
            _, body = self._ask("GET", f"{target}?{text}", path, "list", limit=64 << 20)
            page = read_xml(body)
            found = page.find(what)
            if found is None:
                raise StoreUnavailable(f"cannot list {path!r}: expected <{what}>, the store sent <{page.tag}>")
            guard.page(
                (name_of(entry) for entry in found if entry.tag != "BlobPrefix"),
                (name_of(entry) for entry in found if entry.tag == "BlobPrefix"),
            )
            yield from found
            marker = page.findtext("NextMarker") or ""
            guard.end_of_page(more=bool(marker))
            if not marker:
                return
            guard.next_page(marker)

    def makedirs(self, path: str) -> None:
        """Make the container; what is below needs nothing made."""
        container, _ = split_path(self.scheme, path, key=False)
        response, _ = self._ask("PUT", f"/{quoted(container)}?restype=container", path, "make", accept=(201, 409))
        code = response.headers.get("x-ms-error-code")
        if response.status == 409 and code != "ContainerAlreadyExists":
            raise conflict(response, path)
