"""Google Cloud Storage over its JSON API (Cloud Storage JSON API reference, v1)."""

from __future__ import annotations

import base64
import builtins
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from apyfal.exceptions import (
    MountError,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    ParameterError,
    StorageError,
    StoreUnavailable,
    UnsupportedByStore,
)
from apyfal.storage.flow.cancel import shielded
from apyfal.storage.handler import Limits, ObjectInfo, RangeReader, Upload
from apyfal.storage.http.answers import read_json, understood
from apyfal.storage.http.origin import Origin
from apyfal.storage.http.paging import PageGuard
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import decode_base64, http_date
from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata, http_metadata, require_fields
from apyfal.storage.stores.gcs.auth import Tokens
from apyfal.storage.stores.gcs.resources import (
    bucket_target,
    checked,
    conditions_of,
    described,
    etag_of,
    exists_error,
    object_target,
    quoted_name,
    resource_of,
)
from apyfal.storage.stores.gcs.signing import LONGEST, signed_query
from apyfal.storage.stores.rest import RestHandler, SignedRequest, folder_prefix, iso_time, quoted, split_path

__all__ = ["GSJsonHandler"]

#: Parts of uploads are named so, in the bucket's root; listings leave them out.
PART_PREFIX = ".apyfal-upload/"
#: Objects that one request composes ("Objects: compose").
_COMPOSE = 32
_BOUNDARY = "apyfal-5f0c2d7e9b1a4c38"
#: answers in a row after which a copy that does not move is given up
_IDLE_ANSWERS = 100


class GSJsonHandler(RestHandler):
    """One Google Cloud project, asked through the JSON API.

    Parameters
    ----------
    ambient
        Of `RestHandler`.
    origin
        Of the service.
    tokens
        Where access tokens come from; ``None``: be nobody.
    project
        That buckets are listed and made in; by default that of the credentials.
    how
        Of `RestHandler`.
    """

    scheme = "gs"
    # Composing has no smallest part. 32 * 32 parts are two rounds of it.
    metadata_fields = (*HTTP_FIELDS, "storage_class", "acl", "encryption_key", "user")
    limits = Limits(min_part=1 << 20, max_part=5 << 40, max_parts=_COMPOSE**2, max_put=5 << 40, checksum="crc32c")
    _request_id_headers = ("x-guploader-uploadid",)

    def __init__(
        self, ambient: bool, origin: Origin, tokens: Tokens | None, project: str | None, /, **how: Any
    ) -> None:
        super().__init__(ambient, **how)
        self._origin = origin
        self._tokens = tokens
        self._project = project

    # -- requests -----------------------------------------------------------------------------------------------------
    def _request(self, method: str, target: str, headers: list[tuple[str, str]], length: int) -> SignedRequest:
        if self._tokens is not None:
            headers = [*headers, ("Authorization", f"Bearer {self._tokens.token()}")]
        return SignedRequest(self._origin, target, headers)

    def _renew(self, refused: SignedRequest) -> bool:
        if self._tokens is None:
            return False
        self._tokens.token(refused=dict(refused.headers)["Authorization"].partition(" ")[2])
        return True

    def _reason(self, response: Response, body: bytes) -> tuple[str | None, str]:
        try:
            error = json.loads(body)["error"]
            return str(error["errors"][0]["reason"]), str(error["message"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return None, ""

    def _call(
        self,
        method: str,
        target: str,
        path: str,
        what: str,
        content: object = None,
        accept: tuple[int, ...] = (200,),
    ) -> tuple[int, Any]:
        """Send and receive JSON; returns the status and what the answer says."""
        body = () if content is None else (memoryview(json.dumps(content).encode()),)
        headers = [("Content-Type", "application/json")] if body else []
        response, answer = self._ask(
            method, target, path, what, headers=headers, body=body, accept=accept, limit=64 << 20
        )
        return response.status, read_json(answer) if response.status == 200 else {}

    # -- read ---------------------------------------------------------------------------------------------------------
    def describe(self, path: str) -> ObjectInfo:
        """Look an object or a bucket up."""
        bucket, key = split_path(self.scheme, path, key=False)
        if not key:
            self._call("GET", bucket_target(bucket), path, "look up")
            return ObjectInfo(path, 0, is_directory=True)
        return described(self._call("GET", object_target(path), path, "look up")[1], path)

    def describe_version(self, path: str, version: str | None) -> ObjectInfo:
        """Look one generation of an object up; ``None``: the current one."""
        if version is None:
            return self.describe(path)
        split_path(self.scheme, path)
        target = f"{object_target(path)}?{urlencode({'generation': version})}"
        return described(self._call("GET", target, path, "look up")[1], path)

    def metadata_of(self, info: ObjectInfo) -> ObjectMetadata:
        """Tell everything that has to be written again with an object's bytes."""
        found = info.metadata
        if found is None or found.user is None:  # an answer with content does not tell all
            found = self.describe_version(info.path, info.version).metadata or ObjectMetadata()
        return replace(found, encryption_key=None)  # of one version of a key; the bucket names the key

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to receive a range, of one generation if `version_of` has one."""
        split_path(self.scheme, path)
        target = object_target(path) + "?alt=media"
        if version_of is not None and version_of.version is not None:
            target += f"&generation={version_of.version}"
        # What was stored compressed is to come as it was stored, not decompressed on the way ("Transcoding of
        # gzip-compressed files"): its size and checksums are those of the stored bytes.
        headers = [("Accept-Encoding", "gzip")]
        try:
            return self._read_range(target, path, start, stop, version_of, headers)
        except ObjectNotFound as error:
            if version_of is None or version_of.version is None:
                raise
            raise ObjectChanged(f"{path!r} changed while it was being read", path=path, status=404) from error

    def _info(self, path: str, response: Response, size: int | None) -> ObjectInfo:
        headers = response.headers
        generation = headers.get("x-goog-generation")
        checksums = {}
        for field in headers.get("x-goog-hash", "").split(","):
            name, _, value = field.strip().partition("=")
            if name in ("crc32c", "md5") and (digest := decode_base64(value)) is not None:
                checksums[name] = digest
        mtime = http_date(headers.get("last-modified"))
        told = http_metadata(headers)
        return ObjectInfo(path, size, etag_of(generation), mtime, checksums, version=generation, metadata=told)

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
        """Write a whole object; the store compares it with its CRC-32C before it shows it."""
        bucket, key = split_path(self.scheme, path)
        require_fields(self.metadata_fields, metadata, path, self.scheme)
        resource = {"name": key, **resource_of(metadata, path)}
        if checksum is not None:
            resource["crc32c"] = base64.b64encode(checksum).decode()
        head = (
            f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(resource)}\r\n"
            f"--{_BOUNDARY}\r\nContent-Type: {resource['contentType']}\r\n\r\n"
        )
        query = "?" + urlencode({"uploadType": "multipart", **conditions_of(metadata, exclusive)})
        response, answer = self._ask(
            "POST",
            f"/upload/storage/v1/b/{quoted_name(bucket)}/o{query}",
            path,
            "write",
            headers=[("Content-Type", f"multipart/related; boundary={_BOUNDARY}")],
            body=(memoryview(head.encode()), data, memoryview(f"\r\n--{_BOUNDARY}--\r\n".encode())),
            accept=(200, 412),
        )
        if response.status == 412:
            raise exists_error(path)
        return checked(described(read_json(answer), path), checksum)

    def upload(
        self, path: str, *, size: int | None, exclusive: bool = False, metadata: ObjectMetadata | None = None
    ) -> Upload:
        """Begin to write parts."""
        split_path(self.scheme, path)
        require_fields(self.metadata_fields, metadata, path, self.scheme)
        return _Composition(self, path, exclusive, metadata)

    def compose(
        self, path: str, parts: list[ObjectInfo], *, exclusive: bool = False, metadata: ObjectMetadata | None = None
    ) -> ObjectInfo:
        """Make one object of up to 32, each of just this generation."""
        sources = [
            {
                "name": part.path.partition("/")[2],
                "generation": part.version,
                "objectPreconditions": {"ifGenerationMatch": part.version},
            }
            for part in parts
        ]
        content = {"sourceObjects": sources, "destination": resource_of(metadata, path)}
        query = urlencode(conditions_of(metadata, exclusive, acl="destinationPredefinedAcl"))
        target = f"{object_target(path)}/compose" + (f"?{query}" if query else "")
        status, made = self._call("POST", target, path, "write", content, accept=(200, 412))
        if status == 412:
            raise exists_error(path) if exclusive else StorageError(f"cannot write {path!r}: a part changed", path=path)
        return described(made, path)

    def copy(self, source: ObjectInfo, destination: str, *, metadata: ObjectMetadata | None = None) -> ObjectInfo:
        """Copy inside the store ("Objects: rewrite"), in as many requests as it wants."""
        split_path(self.scheme, destination)
        require_fields(self.metadata_fields, metadata, destination, self.scheme)
        query = {} if source.version is None else {"sourceGeneration": source.version}
        content = None
        kept = self.metadata_of(source)
        if metadata is not None or kept.storage_class not in (None, "STANDARD"):
            # without a resource the store keeps all but the storage class; with one, nothing but what it says
            whole = metadata.over(kept) if metadata is not None else kept
            content = resource_of(whole, destination)
            query |= conditions_of(whole, False, acl="destinationPredefinedAcl", key="destinationKmsKeyName")
        target = f"{object_target(source.path)}/rewriteTo{object_target(destination).removeprefix('/storage/v1')}"
        before = idle = 0
        while True:
            text = f"?{urlencode(query)}" if query else ""
            status, answer = self._call("POST", target + text, source.path, "copy", content, accept=(200, 404, 412))
            if status == 404 and source.version is None:
                raise ObjectNotFound(f"cannot copy {source.path!r}: it does not exist", path=source.path, status=404)
            if status in (404, 412):
                raise ObjectChanged(f"{source.path!r} changed while it was being copied", path=source.path)
            with understood("copy", source.path):
                if answer["done"]:
                    return described(answer["resource"], destination)
                query["rewriteToken"] = str(answer["rewriteToken"])
                moved = int(answer.get("totalBytesRewritten", 0))
            idle = idle + 1 if moved <= before else 0
            if idle > _IDLE_ANSWERS:
                raise StoreUnavailable(f"cannot copy {source.path!r}: the store does not go on with it")
            before = moved

    # -- names --------------------------------------------------------------------------------------------------------
    def remove(self, path: str) -> None:
        """Remove an object, or an empty bucket."""
        bucket, key = split_path(self.scheme, path, key=False)
        self._ask("DELETE", object_target(path) if key else bucket_target(bucket), path, "remove", accept=(200, 204))

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List buckets, or what is below ``bucket/prefix``."""
        bucket, prefix = folder_prefix(path)
        if not bucket:
            guard = PageGuard(path)
            for items, _ in self._pages("/storage/v1/b", {"project": self._project_for("list")}, path, guard):
                for name, found in items.items():
                    with understood("list", path):
                        info = ObjectInfo(name, None, mtime=iso_time(found.get("timeCreated")), is_directory=True)
                    if guard.is_new(name):
                        yield info
            return
        query = {"prefix": prefix} if recursive else {"prefix": prefix, "delimiter": "/"}
        guard = PageGuard(path, prefix, recursive=recursive)
        for items, prefixes in self._pages(f"{bucket_target(bucket)}/o", query, path, guard):
            for name in (*prefixes, *filter(None, map(guard.directory_of, items))):
                if guard.is_new(f"{bucket}/{name}") and (prefix or name != PART_PREFIX):
                    yield ObjectInfo(f"{bucket}/{name.rstrip('/')}", None, is_directory=True)
            for name, found in items.items():
                if guard.directory_of(name) is not None or not guard.is_new(f"{bucket}/{name}"):
                    continue
                if name != prefix and (prefix or not name.startswith(PART_PREFIX)):
                    yield described(found, f"{bucket}/{name}")

    def _pages(
        self, target: str, query: dict[str, str], path: str, guard: PageGuard
    ) -> Iterator[tuple[dict[str, dict[str, Any]], builtins.list[str]]]:
        """Yield each page: the description of each object or bucket by its name, and the prefixes."""
        token = ""
        while True:
            text = urlencode({**query, **({"pageToken": token} if token else {})})
            _, page = self._call("GET", f"{target}?{text}", path, "list")
            with understood("list", path):
                items = {found["name"]: found for found in page.get("items", ())}
                prefixes = page.get("prefixes", [])
                if "error" in page or not isinstance(prefixes, builtins.list):
                    raise ValueError("it is an error, or has prefixes that are not a list")
                guard.page(items, prefixes)
                token = page.get("nextPageToken") or ""
                if not isinstance(token, str):
                    raise TypeError(f"nextPageToken is {token!r}"[:100])
            yield items, prefixes
            guard.end_of_page(more=bool(token))
            if not token:
                return
            guard.next_page(token)

    def sign(self, path: str, method: str, seconds: int) -> str:
        """Return an address of an object in the XML API, signed with the key of a service account.

        Raises
        ------
        UnsupportedByStore
            The credentials have no key to sign with.
        """
        split_path(self.scheme, path)
        if seconds > LONGEST:
            raise ParameterError(f"gs: cannot sign for {seconds} s: expected 7 days or less")
        found = self._tokens.signer() if self._tokens is not None else None
        if found is None:
            raise UnsupportedByStore(
                f"gs: cannot sign {path!r}: only keys sign; expected a mount with the credentials_file of a service "
                "account, or with client_id and secret_id"
            )
        target = f"/{quoted(path)}"
        return f"{self._origin}{target}?{signed_query(method, self._origin.authority, target, seconds, *found)}"

    def makedirs(self, path: str) -> None:
        """Make the bucket; what is below needs nothing made."""
        bucket, _ = split_path(self.scheme, path, key=False)
        target = f"/storage/v1/b?{urlencode({'project': self._project_for('make')})}"
        self._call("POST", target, path, "make", {"name": bucket}, accept=(200, 409))

    def _project_for(self, what: str) -> str:
        if self._project is None and self._tokens is not None:
            self._tokens.token()
            self._project = self._tokens.project
        if self._project is None:
            raise MountError(f"gs: to {what} buckets, the mount needs project=")
        return self._project


class _Composition(Upload):
    """One object being written as parts of their own, which the store then puts together."""

    def __init__(self, handler: GSJsonHandler, path: str, exclusive: bool, metadata: ObjectMetadata | None) -> None:
        self._handler = handler
        self._metadata = metadata
        self._path = path
        self._exclusive = exclusive
        self._folder = f"{path.partition('/')[0]}/{PART_PREFIX}{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._parts: dict[int, ObjectInfo] = {}
        self._made: ObjectInfo | None = None

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        """Send one part; the store compares it with its CRC-32C."""
        info = self._handler.put(f"{self._folder}/{number:08d}", data, checksum)
        with self._lock:
            self._parts[number] = info

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        """Put the parts together, 32 at a time, and remove them."""
        if self._made is not None:
            return self._made
        level = [self._parts[number] for number in sorted(self._parts)]
        total = sum(part.size or 0 for part in level)
        if total != size:
            raise StorageError(f"cannot write {self._path!r}: {total} bytes were sent of {size}", path=self._path)
        depth = 0
        while len(level) > _COMPOSE:
            depth += 1
            groups = [level[i : i + _COMPOSE] for i in range(0, len(level), _COMPOSE)]
            level = [
                self._handler.compose(f"{self._folder}/{depth}-{number:08d}", group)
                for number, group in enumerate(groups)
            ]
        try:
            made = self._handler.compose(self._path, level, exclusive=self._exclusive, metadata=self._metadata)
        except ObjectExists:
            made = self._handler.describe(self._path)
            # After a lost answer the object that is there may be ours.
            if checksum is None or made.size != size or made.checksums.get("crc32c") != checksum:
                raise
        self._made = checked(made, checksum)
        self.abort()
        return self._made

    def abort(self) -> None:
        """Remove the parts, those included whose answer was lost."""
        with shielded():
            for info in list(self._handler.list(self._folder, recursive=True)):
                self._handler._ask("DELETE", object_target(info.path), info.path, "remove", accept=(200, 204, 404))
