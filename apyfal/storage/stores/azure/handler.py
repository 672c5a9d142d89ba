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

import base64
import builtins
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlencode
from xml.etree import ElementTree

from apyfal.exceptions import (
    MountError,
    ObjectChanged,
    ObjectExists,
    StorageError,
    StoreUnavailable,
    UnsupportedByStore,
)
from apyfal.storage.flow.cancel import current_cancel
from apyfal.storage.handler import Limits, ObjectInfo, RangeReader, Upload
from apyfal.storage.http.origin import split_url
from apyfal.storage.http.paging import PageGuard
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import decode_base64, http_date, strong_etag
from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata, content_type_of, require_fields
from apyfal.storage.stores.azure.auth import (
    Anonymous,
    Credential,
    EntraToken,
    SharedAccessSignature,
    SharedKey,
    settings_of_connection,
)
from apyfal.storage.stores.azure.blocks import BlockUpload
from apyfal.storage.stores.azure.metadata import CRC_METADATA, headers_of, metadata_from, tags_from
from apyfal.storage.stores.rest import RestHandler, SignedRequest, folder_prefix, quoted, split_path

__all__ = ["AzureHandler"]

#: The first version with everything that is used here (2021-02-12: names that XML cannot hold are listed encoded).
_VERSION = "2021-12-02"
_COPY_POLL = 0.5


class AzureHandler(RestHandler):
    """One Azure storage account.

    Parameters
    ----------
    ambient
        Whether what is not given may come from this machine; see `apyfal.storage.mounting.mount.MountSpec`.
    client_id, secret_id
        The account's name and key; or, with `tenant_id`, a service principal's id and secret; or, with
        `managed_identity`, the id of a user-assigned identity.
    endpoint_url
        Of the blob service; by default ``https://ACCOUNT.blob.core.windows.net``.
    account
        The account's name, where `client_id` is something else.
    sas
        A shared access signature instead of the key.
    connection_string
        All of it in one text, as the portal shows it.
    tenant_id
        Of a service principal.
    authority
        Where Microsoft Entra ID is for a service principal of another than the public cloud (an ``https`` address).
    managed_identity
        Whether to be the machine's identity.
    anonymous
        Whether to be nobody.
    verify, timeout, connect_timeout, proxy
        As for `RestHandler`.

    Without any of these: ``AZURE_STORAGE_CONNECTION_STRING``, ``AZURE_STORAGE_ACCOUNT`` with ``AZURE_STORAGE_KEY`` or
    ``AZURE_STORAGE_SAS_TOKEN``, then azure-identity's default chain.
    """

    scheme = "az"
    aliases = ("azure",)
    # "Put Block" and "Put Blob" of the REST reference, for versions from 2019-12-12 on
    limits = Limits(min_part=1 << 20, max_part=4000 << 20, max_parts=50_000, max_put=5000 << 20, checksum="crc64nvme")
    metadata_fields = (*HTTP_FIELDS, "storage_class", "user", "tags")
    _request_id_headers = ("x-ms-request-id",)

    def __init__(
        self,
        ambient: bool = True,
        /,
        *,
        client_id: str | None = None,
        secret_id: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        account: str | None = None,
        sas: str | None = None,
        connection_string: str | None = None,
        tenant_id: str | None = None,
        authority: str | None = None,
        managed_identity: bool = False,
        anonymous: bool = False,
        verify: str | bool = True,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        proxy: str | None = None,
    ) -> None:
        super().__init__(ambient, verify=verify, timeout=timeout, connect_timeout=connect_timeout, proxy=proxy)
        entra = tenant_id is not None or managed_identity
        account = account or (None if entra else client_id)
        found = settings_of_connection(connection_string, account, environ=os.environ if ambient else {})
        account = account or found.get("account")
        endpoint = endpoint_url or found.get("endpoint")
        if endpoint is None:
            if account is None:
                raise MountError("azure: no account; expected client_id, account, endpoint_url or connection_string")
            endpoint = f"https://{account}.blob.core.windows.net"
        self._origin, base, _ = split_url(endpoint)
        self._base = base.rstrip("/")
        account = account or self._base.rpartition("/")[2] or self._origin.host.partition(".")[0]
        key = None if entra else secret_id
        if not entra and key is None and sas is None:
            key, sas = found.get("key"), found.get("sas")
        self._credential: Credential
        if anonymous:
            self._credential = Anonymous()
        elif sas is not None:
            self._credential = SharedAccessSignature(sas)
        elif key is not None:
            self._credential = SharedKey(account, key)
        elif not ambient:
            raise MountError("azure: no credentials; expected secret_id (the account's key), sas, or anonymous=True")
        else:
            self._credential = EntraToken.find(
                tenant_id=tenant_id,
                client_id=client_id if entra else None,
                secret_id=secret_id,
                managed_identity=managed_identity,
                authority=authority,
            )
        self._takes_crc64 = True

    # -- requests -----------------------------------------------------------------------------------------------------
    def _request(self, method: str, target: str, headers: builtins.list[tuple[str, str]], length: int) -> SignedRequest:
        target, headers = self._credential.authorize(
            method, self._base + target, [*headers, ("x-ms-version", _VERSION)], length
        )
        return SignedRequest(self._origin, target, headers)

    def _reason(self, response: Response, body: bytes) -> tuple[str | None, str]:
        code = response.headers.get("x-ms-error-code")
        try:
            document = ElementTree.fromstring(body)
        except ElementTree.ParseError:
            return code, ""
        # Only the first line of the message: what follows are ids, and for a wrong signature the text that was signed.
        return code or document.findtext("Code"), (document.findtext("Message") or "").partition("\n")[0]

    def _send_content(
        self, target: str, path: str, data: memoryview, checksum: bytes | None, headers: builtins.list[tuple[str, str]]
    ) -> Response:
        """Send a body with a checksum that this store takes."""
        how: Any = {"body": (data,), "accept": (201, 409)}
        if self._takes_crc64 and checksum is not None:
            crc = [("x-ms-content-crc64", base64.b64encode(checksum[::-1]).decode())]
            try:
                return self._ask("PUT", target, path, "write", headers=[*headers, *crc], **how)[0]
            except StorageError as error:
                if "crc64" not in str(error):
                    raise
                self._takes_crc64 = False  # Azurite
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        stated = [("Content-MD5", base64.b64encode(md5).decode())]
        return self._ask("PUT", target, path, "write", headers=[*headers, *stated], **how)[0]

    # -- read ---------------------------------------------------------------------------------------------------------
    def describe(self, path: str) -> ObjectInfo:
        """Look a blob or a container up."""
        container, key = split_path(self.scheme, path, key=False)
        if not key:
            response, _ = self._ask("HEAD", f"/{quoted(container)}?restype=container", path, "look up")
            return ObjectInfo(path, 0, mtime=http_date(response.headers.get("last-modified")), is_directory=True)
        return self._look_up(_target(path), path)

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to receive a range, of one version if `version_of` has an ETag."""
        split_path(self.scheme, path)
        match = [("If-Match", version_of.etag)] if version_of is not None and version_of.etag else []
        return self._read_range(_target(path), path, start, stop, version_of, match)

    def describe_version(self, path: str, version: str | None) -> ObjectInfo:
        """Look one version of a blob up; ``None``: the current one."""
        if version is None:
            return self.describe(path)
        split_path(self.scheme, path)
        return self._look_up(f"{_target(path)}?{urlencode({'versionid': version})}", path)

    def metadata_of(self, info: ObjectInfo) -> ObjectMetadata:
        """Tell everything that has to be written again with a blob's bytes, tags included."""
        found = info.metadata or self.describe_version(info.path, info.version).metadata or ObjectMetadata()
        if found.tags is None:
            version = {} if info.version is None else {"versionid": info.version}
            query = urlencode({"comp": "tags", **version})
            _, body = self._ask("GET", f"{_target(info.path)}?{query}", info.path, "look up the tags of")
            found = replace(found, tags=tags_from(body))
        return found

    # -- write --------------------------------------------------------------------------------------------------------
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
        headers = [("x-ms-blob-type", "BlockBlob"), *_writing(path, checksum, exclusive, metadata)]
        response = self._send_content(_target(path), path, data, checksum, headers)
        if response.status == 409:
            raise _conflict(response, path)
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
        target = self._base + _target(source.path)
        if isinstance(self._credential, SharedAccessSignature):
            target, _ = self._credential.authorize("GET", target, [], 0)
        headers = [("x-ms-copy-source", f"{self._origin}{target}"), *headers_of(wanted.only(("storage_class", "tags")))]
        if metadata is not None and metadata.user is not None:  # which replaces all of it
            headers += [*headers_of(wanted.only(("user",))), *_checksum(source.checksums.get("crc64nvme"))]
        if source.etag:
            headers.append(("x-ms-source-if-match", source.etag))
        response, _ = self._ask(
            "PUT", _target(destination), source.path, "copy", headers=headers, accept=(202, 409, 412)
        )
        if response.status == 412:
            raise ObjectChanged(f"{source.path!r} changed while it was being copied", path=source.path)
        if response.status == 409:
            raise _conflict(response, destination)
        status = response.headers.get("x-ms-copy-status", "success")
        while status == "pending":
            cancel = current_cancel()
            if cancel is None:
                time.sleep(_COPY_POLL)
            elif cancel.wait(_COPY_POLL):
                cancel.check()
            response, _ = self._ask("HEAD", _target(destination), destination, "copy to")
            status = response.headers.get("x-ms-copy-status", "success")
        if status != "success":
            why = response.headers.get("x-ms-copy-status-description", status)
            raise StorageError(f"cannot copy to {destination!r}: {status}: {why[:200]}", path=destination)
        return self.describe(destination)

    # -- names --------------------------------------------------------------------------------------------------------
    def remove(self, path: str) -> None:
        """Remove a blob with its snapshots, or a container."""
        container, key = split_path(self.scheme, path, key=False)
        if key:
            headers = [("x-ms-delete-snapshots", "include")]
            self._ask("DELETE", _target(path), path, "remove", headers=headers, accept=(202,))
        else:
            self._ask("DELETE", f"/{quoted(container)}?restype=container", path, "remove", accept=(202,))

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List containers, or what is below ``container/prefix``."""
        container, prefix = folder_prefix(path)
        if not container:
            for entry in self._pages("/", {"comp": "list"}, path, "Containers"):
                mtime = http_date(entry.findtext("Properties/Last-Modified"))
                yield ObjectInfo(entry.findtext("Name") or "", None, mtime=mtime, is_directory=True)
            return
        query = {"restype": "container", "comp": "list", "prefix": prefix}
        if not recursive:
            query["delimiter"] = "/"
        for entry in self._pages(f"/{quoted(container)}", query, path, "Blobs"):
            name = f"{container}/{_name(entry)}"
            if entry.tag == "BlobPrefix":
                yield ObjectInfo(name.rstrip("/"), None, is_directory=True)
                continue
            if name == f"{container}/{prefix}":  # the marker of the directory itself
                continue
            etag = entry.findtext("Properties/Etag")
            yield ObjectInfo(
                name,
                int(entry.findtext("Properties/Content-Length") or 0),
                etag=f'"{etag}"' if etag and not etag.startswith('"') else etag,
                mtime=http_date(entry.findtext("Properties/Last-Modified")),
            )

    def _pages(self, target: str, query: dict[str, str], path: str, what: str) -> Iterator[ElementTree.Element]:
        marker = ""
        guard = PageGuard(path)
        while True:
            text = urlencode({**query, **({"marker": marker} if marker else {})})
            _, body = self._ask("GET", f"{target}?{text}", path, "list", limit=64 << 20)
            try:
                page = ElementTree.fromstring(body)
            except ElementTree.ParseError as error:
                raise StoreUnavailable(f"cannot list {path!r}: the store's answer is no XML: {error}") from None
            found = page.find(what)
            if found is None:
                raise StoreUnavailable(f"cannot list {path!r}: expected <{what}>, the store sent <{page.tag}>")
            names = [_name(entry) for entry in found]
            guard.page(names[0] if names else None)
            for name in names:
                guard.foreign(name, query.get("prefix", ""))
            yield from found
            marker = page.findtext("NextMarker") or ""
            if not marker:
                return
            guard.next_page(marker)

    def makedirs(self, path: str) -> None:
        """Make the container; what is below needs nothing made."""
        container, _ = split_path(self.scheme, path, key=False)
        response, _ = self._ask("PUT", f"/{quoted(container)}?restype=container", path, "make", accept=(201, 409))
        code = response.headers.get("x-ms-error-code")
        if response.status == 409 and code != "ContainerAlreadyExists":
            raise _conflict(response, path)

    def _info(self, path: str, response: Response, size: int | None) -> ObjectInfo:
        headers = response.headers
        checksums = {}
        if crc := headers.get(CRC_METADATA):
            checksums["crc64nvme"] = bytes.fromhex(crc)
        # Content-MD5 of a part is of that part, and an answer to a PUT says it of its body.
        md5 = headers.get("x-ms-blob-content-md5" if response.status == 206 else "content-md5")
        if md5 and response.status in (200, 206) and (digest := decode_base64(md5)) is not None:
            checksums["md5"] = digest
        return ObjectInfo(
            path,
            size,
            strong_etag(headers.get("etag")),
            http_date(headers.get("last-modified")),
            checksums,
            version=headers.get("x-ms-version-id"),
            metadata=metadata_from(headers),
        )

    # -- blocks -------------------------------------------------------------------------------------------------------
    def put_block(self, path: str, block: str, data: memoryview, checksum: bytes | None) -> None:
        """Send one uncommitted block."""
        query = urlencode({"comp": "block", "blockid": block})
        response = self._send_content(f"{_target(path)}?{query}", path, data, checksum, [])
        if response.status == 409:
            raise _conflict(response, path)

    def commit(
        self,
        path: str,
        blocks: builtins.list[str],
        size: int,
        checksum: bytes | None,
        *,
        exclusive: bool,
        metadata: ObjectMetadata | None,
    ) -> ObjectInfo:
        """Make a blob of blocks."""
        content = "".join(f"<Latest>{block}</Latest>" for block in blocks)
        body = memoryview(f'<?xml version="1.0" encoding="utf-8"?><BlockList>{content}</BlockList>'.encode())
        headers = [("Content-Type", "application/xml"), *_writing(path, checksum, exclusive, metadata)]
        target = f"{_target(path)}?comp=blocklist"
        response, _ = self._ask("PUT", target, path, "write", headers=headers, body=(body,), accept=(201, 409))
        if response.status == 409:
            raise _conflict(response, path)
        return replace(self._info(path, response, size), metadata=None)

    def committed(self, path: str) -> builtins.list[str]:
        """List the blocks of the blob that is there."""
        _, body = self._ask("GET", f"{_target(path)}?comp=blocklist&blocklisttype=committed", path, "look up")
        return [name.text or "" for name in ElementTree.fromstring(body).iterfind("CommittedBlocks/Block/Name")]


def _checksum(checksum: bytes | None) -> builtins.list[tuple[str, str]]:
    return [] if checksum is None else [(CRC_METADATA, checksum.hex())]


def _writing(
    path: str, checksum: bytes | None, exclusive: bool, metadata: ObjectMetadata | None
) -> builtins.list[tuple[str, str]]:
    stated = (metadata or ObjectMetadata()).over(ObjectMetadata(content_type=content_type_of(path)))
    headers = [*headers_of(stated), *_checksum(checksum)]
    if exclusive:
        headers.append(("If-None-Match", "*"))
    return headers


def _conflict(response: Response, path: str) -> StorageError:
    code = response.headers.get("x-ms-error-code")
    if code == "BlobAlreadyExists":
        return ObjectExists(f"cannot write {path!r}: it exists", path=path, code=code, status=409)
    return StorageError(f"cannot write {path!r}: {code or 'conflict'} (status 409)", path=path, code=code, status=409)


def _target(path: str) -> str:
    return "/" + quoted(path)


def _name(entry: ElementTree.Element) -> str:
    name = entry.find("Name")
    text = (name.text if name is not None else None) or ""
    return unquote(text) if name is not None and name.get("Encoded") == "true" else text
