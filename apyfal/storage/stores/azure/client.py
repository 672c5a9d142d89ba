"""Requests on blobs, signed and explained: what the handler and its uploads both need."""

from __future__ import annotations

import base64
import builtins
import hashlib
import os
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlencode
from xml.etree import ElementTree

from apyfal.exceptions import (
    MountError,
    ObjectExists,
    StorageError,
    StoreUnavailable,
    UnsupportedByStore,
)
from apyfal.storage.handler import Limits, ObjectInfo
from apyfal.storage.http.answers import hexadecimal, read_xml
from apyfal.storage.http.origin import split_url
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import decode_base64, http_date, strong_etag
from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata, content_type_of
from apyfal.storage.stores.azure.auth import (
    Anonymous,
    Credential,
    EntraToken,
    SharedAccessSignature,
    SharedKey,
    settings_of_connection,
)
from apyfal.storage.stores.azure.metadata import CRC_METADATA, headers_of, metadata_from, tags_from
from apyfal.storage.stores.rest import RestHandler, SignedRequest, quoted, split_path

__all__ = ["AzureBlobs", "checksum_headers", "conflict", "name_of", "target_of", "writing"]

#: The first version with everything that is used here (2021-02-12: names that XML cannot hold are listed encoded).
_VERSION = "2021-12-02"


class AzureBlobs(RestHandler):
    """One Azure storage account.

    Parameters
    ----------
    ambient
        Whether what is not given may come from this machine; see `apyfal.storage.mounting.mount.MountSpec`.
    client_id, secret_id
        The account's name and key; or, with `tenant_id`, a service principal's id and secret; or, with
        `managed_identity`, the id of a user-assigned identity.
    region
        Not used: an account is in one region.
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

    def _request(self, method: str, target: str, headers: builtins.list[tuple[str, str]], length: int) -> SignedRequest:
        target, headers = self._credential.authorize(
            method, self._base + target, [*headers, ("x-ms-version", _VERSION)], length
        )
        return SignedRequest(self._origin, target, headers)

    def _reason(self, response: Response, body: bytes) -> tuple[str | None, str]:
        code = response.headers.get("x-ms-error-code")
        try:
            document = read_xml(body)
        except StoreUnavailable:
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

    def sign(self, path: str, method: str, seconds: int) -> str:
        """Give the address of a blob with a shared access signature for it; a PUT needs ``x-ms-blob-type: BlockBlob``.

        Raises
        ------
        UnsupportedByStore
            The mount has no account's key to sign with.
        """
        split_path(self.scheme, path)
        if not isinstance(self._credential, SharedKey):
            raise UnsupportedByStore(
                f"az: cannot sign {path!r}: only an account's key signs; expected a mount with secret_id"
            )
        secure = self._origin.scheme == "https"
        query = self._credential.signed_query(method, path, seconds, secure=secure, version=_VERSION)
        return f"{self._origin}{self._base}{target_of(path)}?{query}"

    def describe(self, path: str) -> ObjectInfo:
        """Look a blob or a container up."""
        container, key = split_path(self.scheme, path, key=False)
        if not key:
            response, _ = self._ask("HEAD", f"/{quoted(container)}?restype=container", path, "look up")
            return ObjectInfo(path, 0, mtime=http_date(response.headers.get("last-modified")), is_directory=True)
        return self._look_up(target_of(path), path)

    def describe_version(self, path: str, version: str | None) -> ObjectInfo:
        """Look one version of a blob up; ``None``: the current one."""
        if version is None:
            return self.describe(path)
        split_path(self.scheme, path)
        return self._look_up(f"{target_of(path)}?{urlencode({'versionid': version})}", path)

    def metadata_of(self, info: ObjectInfo) -> ObjectMetadata:
        """Tell everything that has to be written again with a blob's bytes, tags included."""
        found = info.metadata or self.describe_version(info.path, info.version).metadata or ObjectMetadata()
        if found.tags is None:
            version = {} if info.version is None else {"versionid": info.version}
            query = urlencode({"comp": "tags", **version})
            _, body = self._ask("GET", f"{target_of(info.path)}?{query}", info.path, "look up the tags of")
            found = replace(found, tags=tags_from(body))
        return found

    def _info(self, path: str, response: Response, size: int | None) -> ObjectInfo:
        headers = response.headers
        checksums = {}
        if digest := hexadecimal(headers.get(CRC_METADATA, "")):
            checksums["crc64nvme"] = digest
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

    def put_block(self, path: str, block: str, data: memoryview, checksum: bytes | None) -> None:
        """Send one uncommitted block."""
        query = urlencode({"comp": "block", "blockid": block})
        response = self._send_content(f"{target_of(path)}?{query}", path, data, checksum, [])
        if response.status == 409:
            raise conflict(response, path)

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
        headers = [("Content-Type", "application/xml"), *writing(path, checksum, exclusive, metadata)]
        target = f"{target_of(path)}?comp=blocklist"
        response, _ = self._ask("PUT", target, path, "write", headers=headers, body=(body,), accept=(201, 409))
        if response.status == 409:
            raise conflict(response, path)
        return replace(self._info(path, response, size), metadata=None)

    def committed(self, path: str) -> builtins.list[str]:
        """List the blocks of the blob that is there."""
        _, body = self._ask("GET", f"{target_of(path)}?comp=blocklist&blocklisttype=committed", path, "look up")
        return [name.text or "" for name in read_xml(body).iterfind("CommittedBlocks/Block/Name")]


def checksum_headers(checksum: bytes | None) -> builtins.list[tuple[str, str]]:
    """Return the field that keeps the CRC-64/NVME of a whole blob with it."""
    return [] if checksum is None else [(CRC_METADATA, checksum.hex())]


def writing(
    path: str, checksum: bytes | None, exclusive: bool, metadata: ObjectMetadata | None
) -> builtins.list[tuple[str, str]]:
    """Return the fields of a request that makes a blob."""
    stated = (metadata or ObjectMetadata()).over(ObjectMetadata(content_type=content_type_of(path)))
    headers = [*headers_of(stated), *checksum_headers(checksum)]
    if exclusive:
        headers.append(("If-None-Match", "*"))
    return headers


def conflict(response: Response, path: str) -> StorageError:
    """Return the error for an answer of status 409."""
    code = response.headers.get("x-ms-error-code")
    if code == "BlobAlreadyExists":
        return ObjectExists(f"cannot write {path!r}: it exists", path=path, code=code, status=409)
    return StorageError(f"cannot write {path!r}: {code or 'conflict'} (status 409)", path=path, code=code, status=409)


def target_of(path: str) -> str:
    """Return the request target of a blob, below the account's."""
    return "/" + quoted(path)


def name_of(entry: ElementTree.Element) -> str:
    """Return the name that an entry of a listing has."""
    name = entry.find("Name")
    text = (name.text if name is not None else None) or ""
    return unquote(text) if name is not None and name.get("Encoded") == "true" else text
