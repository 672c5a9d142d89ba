"""Requests on objects and containers of Swift: what the handler and its uploads both need."""

from __future__ import annotations

import builtins
import hashlib
import hmac
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlencode

from apyfal.exceptions import ObjectChanged, UnsupportedByStore
from apyfal.storage.flow.cancel import shielded
from apyfal.storage.handler import Limits, ObjectInfo
from apyfal.storage.http.answers import hexadecimal, read_json, understood
from apyfal.storage.http.paging import PageGuard
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import http_date, strong_etag
from apyfal.storage.metadata import HTTP_FIELDS
from apyfal.storage.stores.rest import RestHandler, SignedRequest, folder_prefix, iso_time, quoted, split_path
from apyfal.storage.stores.swift.auth import Authenticator, Identity
from apyfal.storage.stores.swift.metadata import CRC_HEADER, metadata_from

__all__ = ["SEGMENT_PREFIX", "SwiftObjects", "mtime_of", "target_of"]

#: Names of segments begin so. They hold an id, not the object's name: names must not exceed 1,024 bytes.
SEGMENT_PREFIX = ".apyfal/"
_PAGE = 10_000  # the default of a cluster's account_ and container_listing_limit


class SwiftObjects(RestHandler):
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

    def _request(self, method: str, target: str, headers: builtins.list[tuple[str, str]], length: int) -> SignedRequest:
        session = self._authenticator.session()
        return SignedRequest(session.origin, session.prefix + target, [*headers, ("X-Auth-Token", session.token)])

    def _renew(self, refused: SignedRequest) -> bool:
        self._authenticator.session(refused=dict(refused.headers)["X-Auth-Token"])
        return True

    def describe(self, path: str) -> ObjectInfo:
        """Look an object or a container up."""
        container, key = split_path(self.scheme, path, key=False)
        if key:
            return self._look_up(target_of(container, key), path)
        response, _ = self._ask("HEAD", target_of(container, key), path, "look up", accept=(200, 204))
        return ObjectInfo(path, 0, mtime=mtime_of(response), is_directory=True)

    def sign(self, path: str, method: str, seconds: int) -> str:
        """Give a temporary address of an object (Swift's middleware ``tempurl``), signed by the account's key for it.

        Raises
        ------
        UnsupportedByStore
            The account has no such key, or it is not shown to this user.
        """
        target = target_of(*split_path(self.scheme, path))
        response, _ = self._ask("HEAD", "", path, "sign", accept=(200, 204))
        key = response.headers.get("x-account-meta-temp-url-key")
        if not key:
            raise UnsupportedByStore(
                f"swift: cannot sign {path!r}: the account has no key for it that this user may see; expected one, as"
                " 'swift post -m Temp-URL-Key:...' sets it"
            )
        session = self._authenticator.session()
        expires = int(time.time()) + seconds
        # what is signed is the path as the store sees it, without percent-encoding
        text = f"{method}\n{expires}\n{unquote(session.prefix)}/{path}"
        signature = hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
        return f"{session.origin}{session.prefix}{target}?temp_url_sig={signature}&temp_url_expires={expires}"

    def copy_object(
        self, source: str, destination: str, etag: str | None, fields: Sequence[tuple[str, str]] = ()
    ) -> Response:
        """Copy one plain object or segment; `ObjectChanged` if the store copied another version than `etag`."""
        origin = quoted("/" + source)
        headers = [("X-Copy-From", origin), *fields]
        if etag:
            headers.append(("If-Match", etag))
        target = target_of(*split_path(self.scheme, destination))
        response, _ = self._ask("PUT", target, source, "copy", headers=headers, accept=(201, 412))
        if response.status == 412 or (etag and response.headers.get("etag", "").strip('"') != etag.strip('"')):
            raise ObjectChanged(f"{source!r} changed while it was being copied", path=source)
        return response

    def manifest(self, path: str) -> builtins.list[dict[str, Any]]:
        """List the segments of a static large object (``name``, ``hash``, ``bytes``); none of a plain object."""
        target = target_of(*split_path(self.scheme, path))
        head, _ = self._ask("HEAD", target, path, "look up", accept=(200, 404))
        if head.headers.get("x-static-large-object", "").lower() != "true":
            return []
        _, body = self._ask("GET", target + "?multipart-manifest=get&format=json", path, "look up")
        with understood("look up", path):
            return [
                {"name": str(one["name"]), "hash": str(one["hash"]), "bytes": int(one["bytes"])}
                for one in read_json(body)
            ]

    def own_segments(self, path: str) -> builtins.list[str]:
        """List the segments that apyfal wrote for the object that is there now, as ``container/name``."""
        names = [str(segment["name"]).lstrip("/") for segment in self.manifest(path)]
        return [name for name in names if name.partition("/")[2].startswith(SEGMENT_PREFIX)]

    def remove_segments(self, names: builtins.list[str]) -> None:
        """Remove segments that no manifest refers to any more, also those of a transfer that was cancelled."""
        with shielded():
            for name in names:
                self._ask("DELETE", target_of(*split_path(self.scheme, name)), name, "remove", accept=(204, 404))

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List containers, or what is below ``container/prefix``."""
        container, prefix = folder_prefix(path)
        if not container:
            guard = PageGuard(path)
            for name, entry in self._pages("/", {}, path, guard):
                with understood("list", path):
                    info = ObjectInfo(name, None, mtime=iso_time(entry.get("last_modified")), is_directory=True)
                if guard.is_new(name):
                    yield info
            return
        query = {"prefix": prefix} if recursive else {"prefix": prefix, "delimiter": "/"}
        guard = PageGuard(path, prefix, recursive=recursive)
        for name, entry in self._pages(target_of(container, ""), query, path, guard):
            folder = name if "subdir" in entry else guard.directory_of(name)
            if not guard.is_new(found := f"{container}/{folder or name}"):
                continue
            if folder is not None:
                yield ObjectInfo(found.rstrip("/"), None, is_directory=True)
                continue
            with understood("list", path):
                # The hash of a large object is that of its manifest; "slo_etag" is what a GET says.
                etag = entry.get("slo_etag") or entry.get("hash")
                mtime = iso_time(entry.get("last_modified"))
                info = ObjectInfo(found, int(entry["bytes"]), etag=etag, mtime=mtime)
            if name != prefix:  # not the object that marks the directory itself
                yield info

    def _pages(
        self, target: str, query: dict[str, str], path: str, guard: PageGuard
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each entry with its name; that of a directory has a ``subdir``."""
        marker = ""
        while True:
            text = urlencode({"format": "json", "limit": str(_PAGE), "marker": marker, **query})
            response, body = self._ask("GET", f"{target}?{text}", path, "list", accept=(200, 204), limit=64 << 20)
            with understood("list", path):
                entries = [] if response.status == 204 else read_json(body)
                if not isinstance(entries, builtins.list):
                    raise TypeError(f"expected a list, not {entries!r}"[:100])
                names = [str(entry["subdir"] if "subdir" in entry else entry["name"]) for entry in entries]
            # A page may be shorter than asked for, as each cluster has its own limit: only an empty one is the last.
            if not names:
                return
            folders = {name for name, entry in zip(names, entries, strict=True) if "subdir" in entry}
            guard.page(names, folders)
            guard.in_order(names)
            yield from zip(names, entries, strict=True)
            guard.end_of_page(more=True)
            marker = guard.next_page(names[-1])

    def makedirs(self, path: str) -> None:
        """Make the container; what is below needs nothing made."""
        container, _ = split_path(self.scheme, path, key=False)
        self._ask("PUT", target_of(container, ""), path, "make", accept=(201, 202))

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
        target = target_of(*split_path(self.scheme, path)) + query
        return self._ask("PUT", target, path, "write", headers=headers, body=(body,), accept=accept)[0]

    def _info(self, path: str, response: Response, size: int | None) -> ObjectInfo:
        headers = response.headers
        etag = headers.get("etag")
        checksums = {}
        if digest := hexadecimal(headers.get(CRC_HEADER.lower(), "")):
            checksums["crc64nvme"] = digest
        large = "x-static-large-object" in headers or "x-object-manifest" in headers
        if etag and not large and len(etag.strip('"')) == 32 and (digest := hexadecimal(etag.strip('"'))):
            checksums["md5"] = digest
        return ObjectInfo(path, size, strong_etag(etag), mtime_of(response), checksums, metadata=metadata_from(headers))


def target_of(container: str, key: str) -> str:
    """Return the request target of an object or (without a key) a container, below the account's."""
    return f"/{quoted(container)}/{quoted(key)}" if key else f"/{quoted(container)}"


def mtime_of(response: Response) -> float | None:
    """Return when an object was written, in seconds since the epoch."""
    stamp = response.headers.get("x-timestamp")
    return float(stamp) if stamp else http_date(response.headers.get("last-modified"))
