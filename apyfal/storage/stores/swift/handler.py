"""OpenStack Swift, over its own protocol (Object Storage API v1 reference).

The protocol, not python-swiftclient or the cluster's optional S3 interface: a body is received at its final address,
MD5 and static large objects (SLO) are what every cluster has, and there is nothing to install. An object that is
written in parts is an SLO: its segments go to the container ``<container>_segments``, as the other Swift clients do it,
under ``.apyfal/``, and go away with the object. Each segment is sent with its MD5; the CRC-64/NVME of the whole is kept
with the object as metadata, since the ETag of an SLO is none of its content.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlencode

from apyfal.exceptions import ChecksumMismatch, ObjectChanged, ObjectExists, StoreUnavailable
from apyfal.storage.handler import Limits, ObjectInfo, RangeReader
from apyfal.storage.http.paging import PageGuard
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import http_date, strong_etag
from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata, require_fields
from apyfal.storage.stores.rest import RestHandler, SignedRequest, folder_prefix, iso_time, quoted, split_path
from apyfal.storage.stores.swift.auth import Authenticator, Identity
from apyfal.storage.stores.swift.metadata import CRC_HEADER, headers_of, metadata_from
from apyfal.storage.stores.swift.segments import SEGMENT_PREFIX, SwiftUpload

__all__ = ["SwiftHandler"]

_PAGE = 10_000  # the default of a cluster's account_ and container_listing_limit


class SwiftHandler(RestHandler):
    """One account of an OpenStack Swift cluster.

    Parameters
    ----------
    ambient
        Whether what is not given may come from this machine; see `apyfal.storage.mounting.mount.MountSpec`.
    client_id, secret_id
        User and password, or the id and secret of an application credential. Without them: the environment variables of
        the OpenStack clients (``OS_USERNAME``, ...) or of Swift's (``ST_USER``, ``ST_KEY``).
    region
        Of the object store in Keystone's catalogue; the first one by default.
    endpoint_url
        The authentication URL: Keystone's (``https://.../v3``) or Swift's v1 (``https://.../auth/v1.0``).
    auth_type
        ``v1``, ``v3password`` or ``v3applicationcredential``; by default what the authentication URL looks like.
    project, project_id
        What to be authorized for.
    user_domain, project_domain
        Their Keystone domains.
    interface
        Which of the object store's endpoints: ``public``, ``internal`` or ``admin``.
    storage_url
        Address of the account (``https://.../v1/AUTH_...``) instead of the one that authentication gives.
    segments_container
        Where the segments of large objects go; by default ``<container>_segments``.
    verify, timeout, connect_timeout, proxy
        As for `RestHandler`.
    """

    scheme = "swift"
    aliases = ("openstack",)
    # max_file_size and max_manifest_segments as a cluster has them if its operator sets nothing
    limits = Limits(min_part=1 << 20, max_part=5 << 30, max_parts=1000, max_put=5 << 30, checksum="crc64nvme")
    metadata_fields = (*HTTP_FIELDS, "user")
    _request_id_headers = ("x-openstack-request-id", "x-trans-id")

    def __init__(
        self,
        ambient: bool = True,
        /,
        *,
        client_id: str | None = None,
        secret_id: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        auth_type: str | None = None,
        project: str | None = None,
        project_id: str | None = None,
        user_domain: str | None = None,
        project_domain: str | None = None,
        interface: str | None = None,
        storage_url: str | None = None,
        segments_container: str | None = None,
        verify: str | bool = True,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        proxy: str | None = None,
    ) -> None:
        super().__init__(ambient, verify=verify, timeout=timeout, connect_timeout=connect_timeout, proxy=proxy)
        identity = Identity.find(
            environ=os.environ if ambient else {},
            client_id=client_id,
            secret_id=secret_id,
            endpoint_url=endpoint_url,
            auth_type=auth_type,
            project=project,
            project_id=project_id,
            user_domain=user_domain,
            project_domain=project_domain,
            region=region,
            interface=interface,
            storage_url=storage_url,
        )
        self._authenticator = Authenticator(self.client, identity)
        self._segments_container = segments_container

    def path_of(self, url: str) -> str | None:
        """Path of the object with this full address, ``https://domain/v1/project/container/object``."""
        session = self._authenticator.session()
        root = f"{session.origin}{session.prefix}/"
        return unquote(url[len(root) :]) if url.startswith(root) else None

    # -- requests -----------------------------------------------------------------------------------------------------
    def _request(self, method: str, target: str, headers: builtins.list[tuple[str, str]], length: int) -> SignedRequest:
        session = self._authenticator.session()
        return SignedRequest(session.origin, session.prefix + target, [*headers, ("X-Auth-Token", session.token)])

    def _renew(self, refused: SignedRequest) -> bool:
        self._authenticator.session(refused=dict(refused.headers)["X-Auth-Token"])
        return True

    # -- read ---------------------------------------------------------------------------------------------------------
    def describe(self, path: str) -> ObjectInfo:
        """Look an object or a container up."""
        container, key = split_path(self.scheme, path, key=False)
        if key:
            return self._look_up(_target(container, key), path)
        response, _ = self._ask("HEAD", _target(container, key), path, "look up", accept=(200, 204))
        return ObjectInfo(path, 0, mtime=_mtime(response), is_directory=True)

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to receive a range, of one version if `version_of` has an ETag."""
        target = _target(*split_path(self.scheme, path))
        match = [("If-Match", version_of.etag)] if version_of is not None and version_of.etag else []
        return self._read_range(target, path, start, stop, version_of, match)

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
            "PUT", _target(container, key), path, "write", headers=headers, body=(data,), accept=accept
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

    def copy_object(
        self, source: str, destination: str, etag: str | None, fields: Sequence[tuple[str, str]] = ()
    ) -> Response:
        """Copy one plain object or segment; `ObjectChanged` if the store copied another version than `etag`."""
        origin = quoted("/" + source)
        headers = [("X-Copy-From", origin), *fields]
        if etag:
            headers.append(("If-Match", etag))
        target = _target(*split_path(self.scheme, destination))
        response, _ = self._ask("PUT", target, source, "copy", headers=headers, accept=(201, 412))
        if response.status == 412 or (etag and response.headers.get("etag", "").strip('"') != etag.strip('"')):
            raise ObjectChanged(f"{source!r} changed while it was being copied", path=source)
        return response

    # -- large objects ------------------------------------------------------------------------------------------------
    def manifest(self, path: str) -> builtins.list[dict[str, Any]]:
        """List the segments of a static large object (``name``, ``hash``, ``bytes``); none of a plain object."""
        target = _target(*split_path(self.scheme, path))
        head, _ = self._ask("HEAD", target, path, "look up", accept=(200, 404))
        if head.headers.get("x-static-large-object", "").lower() != "true":
            return []
        _, body = self._ask("GET", target + "?multipart-manifest=get&format=json", path, "look up")
        segments: list[dict[str, Any]] = json.loads(body)
        return segments

    def own_segments(self, path: str) -> builtins.list[str]:
        """List the segments that apyfal wrote for the object that is there now, as ``container/name``."""
        names = [str(segment["name"]).lstrip("/") for segment in self.manifest(path)]
        return [name for name in names if name.partition("/")[2].startswith(SEGMENT_PREFIX)]

    def remove_segments(self, names: builtins.list[str]) -> None:
        """Remove segments that no manifest refers to any more."""
        for name in names:
            self._ask("DELETE", _target(*split_path(self.scheme, name)), name, "remove", accept=(204, 404))

    # -- names --------------------------------------------------------------------------------------------------------
    def remove(self, path: str) -> None:
        """Remove an object with its segments, or an empty container."""
        container, key = split_path(self.scheme, path, key=False)
        target = _target(container, key)
        if key:
            head, _ = self._ask("HEAD", target, path, "remove")
            if head.headers.get("x-static-large-object", "").lower() == "true":
                target += "?multipart-manifest=delete"
        self._ask("DELETE", target, path, "remove", accept=(200, 204))

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List containers, or what is below ``container/prefix``."""
        container, prefix = folder_prefix(path)
        if not container:
            for entry in self._pages("/", {}, path):
                yield ObjectInfo(entry["name"], None, mtime=iso_time(entry.get("last_modified")), is_directory=True)
            return
        query = {"prefix": prefix} if recursive else {"prefix": prefix, "delimiter": "/"}
        for entry in self._pages(_target(container, ""), query, path):
            if "subdir" in entry:
                name = entry["subdir"].rstrip("/")
                yield ObjectInfo(f"{container}/{name}", None, is_directory=True)
                continue
            # The hash of a large object is that of its manifest; "slo_etag" is what a GET says.
            etag = entry.get("slo_etag") or entry.get("hash")
            mtime = iso_time(entry.get("last_modified"))
            if entry["name"] != prefix:  # the marker of the directory itself
                yield ObjectInfo(f"{container}/{entry['name']}", entry["bytes"], etag=etag, mtime=mtime)

    def _pages(self, target: str, query: dict[str, str], path: str) -> Iterator[dict[str, Any]]:
        marker = ""
        guard = PageGuard(path)
        while True:
            text = urlencode({"format": "json", "limit": str(_PAGE), "marker": marker, **query})
            _, body = self._ask("GET", f"{target}?{text}", path, "list", accept=(200, 204), limit=64 << 20)
            try:
                entries = json.loads(body) if body else []
                names = [entry.get("name") or entry["subdir"] for entry in entries]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise StoreUnavailable(f"cannot list {path!r}: the store's answer is no listing: {error}") from None
            # A page may be shorter than asked for, as each cluster has its own limit: only an empty one is the last.
            if not names:
                return
            guard.page(names[0])
            for name in names:
                guard.foreign(name, query.get("prefix", ""))
            yield from entries
            marker = guard.next_page(names[-1])

    def makedirs(self, path: str) -> None:
        """Make the container; what is below needs nothing made."""
        container, _ = split_path(self.scheme, path, key=False)
        self._ask("PUT", _target(container, ""), path, "make", accept=(201, 202))

    def write(
        self,
        path: str,
        headers: builtins.list[tuple[str, str]],
        body: memoryview,
        *,
        query: str = "",
        accept: tuple[int, ...] = (201,),
    ) -> Response:
        """Send a PUT of ``container/key``; for uploads."""
        target = _target(*split_path(self.scheme, path)) + query
        return self._ask("PUT", target, path, "write", headers=headers, body=(body,), accept=accept)[0]

    def _info(self, path: str, response: Response, size: int | None) -> ObjectInfo:
        headers = response.headers
        etag = headers.get("etag")
        checksums = {}
        if crc := headers.get(CRC_HEADER.lower()):
            checksums["crc64nvme"] = bytes.fromhex(crc)
        large = "x-static-large-object" in headers or "x-object-manifest" in headers
        if etag and not large and len(etag.strip('"')) == 32:
            checksums["md5"] = bytes.fromhex(etag.strip('"'))
        return ObjectInfo(path, size, strong_etag(etag), _mtime(response), checksums, metadata=metadata_from(headers))


def _target(container: str, key: str) -> str:
    return f"/{quoted(container)}/{quoted(key)}" if key else f"/{quoted(container)}"


def _mtime(response: Response) -> float | None:
    stamp = response.headers.get("x-timestamp")
    return float(stamp) if stamp else http_date(response.headers.get("last-modified"))
