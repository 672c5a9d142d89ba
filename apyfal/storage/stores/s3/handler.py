"""AWS S3 and every store that speaks its protocol."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from apyfal.exceptions import (
    MountError,
    ObjectChanged,
    ObjectExists,
    ParameterError,
    StorageError,
    UnsupportedByStore,
    did_you_mean,
)
from apyfal.storage.checksums import crc_function, digest_bytes
from apyfal.storage.handler import Limits, MetadataHandler, ObjectInfo, RangeReader
from apyfal.storage.http.origin import Origin, split_url
from apyfal.storage.http.pool import ConnectionPool, Timeouts
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import (
    body_reader,
    described_by_head,
    described_by_reading,
    range_header,
    reading_says_more,
)
from apyfal.storage.metadata import FIELDS, ObjectMetadata, content_type_of, require_fields
from apyfal.storage.stores.s3.client import S3Client, split_path
from apyfal.storage.stores.s3.credentials import (
    Credentials,
    DefaultCredentialChain,
    StaticCredentials,
    default_endpoint,
    default_region,
)
from apyfal.storage.stores.s3.listing import list_buckets, list_objects
from apyfal.storage.stores.s3.metadata import (
    ENCRYPTION_HEADERS,
    headers_of,
    kept_headers,
    object_info,
    tags_from,
    write_tags,
)
from apyfal.storage.stores.s3.multipart import COPY_PART, S3Upload, check_answer, copy_headers
from apyfal.storage.stores.s3.parameters import chosen_checksum, customer_headers, is_loopback
from apyfal.storage.stores.s3.removal import MOST_REMOVED, can_be_listed, remove_together
from apyfal.storage.stores.s3.sigv4 import Keys
from apyfal.storage.stores.s3.xml import etag_of, parse_root
from apyfal.units import whole_number

__all__ = ["S3Handler"]

_ADDRESSING = ("auto", "path", "virtual")
_SSE = ("AES256", "aws:kms", "aws:kms:dsse")
#: CopyObject takes no more (S3 API reference).
_MAX_COPY = 5 << 30
#: Seconds that a signed address can be good for (S3 API reference, "Using Query Parameters").
_LONGEST_SIGNATURE = 7 * 86400


class S3Handler(MetadataHandler):
    """One account at one S3 endpoint.

    Parameters
    ----------
    ambient
        Whether what is not given may come from this machine; see `apyfal.storage.mounting.mount.MountSpec`.
    client_id, secret_id, session_token
        Access key, secret key and session token. Without them boto3 looks in the usual places.
    region
        Of the buckets; those elsewhere are found by asking.
    endpoint_url
        Of a store that is not AWS: ``https://host:port``, with a path where it has one. By default as AWS's tools find
        it: ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, the profile's ``services`` and ``endpoint_url``.
    profile
        Of the AWS configuration files.
    anonymous
        Send unsigned requests, for public data.
    addressing
        ``path`` (host/bucket/key), ``virtual`` (bucket.host/key), ``auto``: virtual on AWS where the bucket's name
        allows it.
    requester_pays
        Pay for reading other people's buckets.
    sse, sse_kms_key_id
        Server-side encryption of what is written: ``AES256``, ``aws:kms`` or ``aws:kms:dsse``, and the key's id.
    sse_customer_key
        A key of 32 bytes (or its base64) with which the store encrypts and which it forgets (SSE-C); needs https.
    checksum
        Sent with every write: ``crc64nvme``, ``crc32c``, ``crc32``, or ``none``. Default: the best for AWS, none
        elsewhere, as some stores reject what they do not know.
    sign_payload
        Whether the body's SHA-256 is signed. Default: not over https nor to this machine itself, where nobody is in
        between; it costs more than sending.
    verify, proxy
        Of `apyfal.storage.http.pool.ConnectionPool`.
    timeout, connect_timeout
        Seconds without any progress (30), and to connect (10).

    Attributes
    ----------
    client
        The connections; its `gate` decides where they may go.

    Raises
    ------
    MountError
        A parameter is wrong.
    """

    scheme: ClassVar[str] = "s3"
    aliases: ClassVar[tuple[str, ...]] = ("aws",)
    #: whether the store writes nothing over what exists where it is asked not to, and why it does not
    conditional_writes: ClassVar[bool] = True
    why_unconditional: ClassVar[str] = ""
    metadata_fields: ClassVar[Collection[str]] = FIELDS
    #: most objects that one request removes
    most_removed: ClassVar[int] = MOST_REMOVED
    tells_missing: ClassVar[bool] = False

    def __init__(
        self,
        ambient: bool = True,
        /,
        *,
        client_id: str | None = None,
        secret_id: str | None = None,
        session_token: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
        anonymous: bool = False,
        addressing: str = "auto",
        requester_pays: bool = False,
        sse: str | None = None,
        sse_kms_key_id: str | None = None,
        sse_customer_key: str | bytes | None = None,
        checksum: str | None = None,
        sign_payload: bool | None = None,
        verify: str | bool = True,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        proxy: str | None = None,
    ) -> None:
        if (client_id is None) != (secret_id is None):
            raise MountError("s3: client_id and secret_id come together")
        if addressing not in _ADDRESSING:
            raise MountError(f"s3: unknown addressing {addressing!r}{did_you_mean(addressing, _ADDRESSING)}")
        if sse is not None and sse not in _SSE:
            raise MountError(f"s3: unknown sse {sse!r}{did_you_mean(sse, _SSE)}")
        if endpoint_url is None and ambient:
            endpoint_url = default_endpoint(profile)
        endpoint = None
        secure = True
        if endpoint_url is not None:
            origin, target, user = split_url(endpoint_url)
            if user is not None or "?" in target:
                raise MountError("s3: endpoint_url must have neither a user nor a query")
            endpoint = (origin, target.rstrip("/"))
            secure = origin.scheme == "https" or is_loopback(origin.host)
        self.limits = Limits(
            max_copy=_MAX_COPY, max_copied_part=COPY_PART, checksum=chosen_checksum(checksum, endpoint is None)
        )
        credentials: Credentials
        if anonymous:
            credentials = Credentials()
        elif client_id is not None and secret_id is not None:
            credentials = StaticCredentials(Keys(client_id, secret_id, session_token))
        elif ambient:
            credentials = DefaultCredentialChain(profile)
        else:
            raise MountError(f"{self.scheme}: no credentials; expected client_id and secret_id, or anonymous=True")
        light = client_id is not None or anonymous
        if ambient:
            region = region or default_region(profile, light=light)
        region = region or "us-east-1"
        proxy = proxy if ambient else proxy or "none"
        self.client = ConnectionPool(Timeouts.of(timeout, connect_timeout), verify=verify, proxy=proxy)
        self._s3 = S3Client(
            self.client,
            credentials,
            region,
            endpoint,
            addressing,
            not secure if sign_payload is None else sign_payload,
            {"x-amz-request-payer": "requester"} if requester_pays else {},
        )
        self._region = region
        self._customer = customer_headers(sse_customer_key)
        self._encryption = dict(self._customer)
        if sse is not None:
            self._encryption["x-amz-server-side-encryption"] = sse
        if sse_kms_key_id is not None:
            self._encryption["x-amz-server-side-encryption-aws-kms-key-id"] = sse_kms_key_id

    # -- read ---------------------------------------------------------------------------------------------------------
    def describe(self, path: str) -> ObjectInfo:
        return self.describe_version(path, None)

    def describe_version(self, path: str, version: str | None) -> ObjectInfo:
        """Look one version of an object up; ``None``: the current one."""
        _, key = split_path(path)
        if not key.rstrip("/"):
            self._s3.request("HEAD", path.rstrip("/"), what="look up").close()
            return ObjectInfo(path, 0, is_directory=True)
        query = {"versionId": version} if version is not None else None
        with_checksum = {**self._customer, "x-amz-checksum-mode": "ENABLED"}
        read = partial(self._read_version, path, version)
        try:
            response = self._s3.request("HEAD", path, query, with_checksum, what="look up")
        except StorageError as error:
            if error.code is not None or not reading_says_more(error):
                raise  # the error has a code, so a GET has been tried and gave the reason
            return described_by_reading(read)
        response.close()
        return described_by_head(object_info(path, response.headers), response, read)

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        split_path(path)
        headers = dict(self._customer)
        whole = start == 0 and stop is None
        if whole:
            headers["x-amz-checksum-mode"] = "ENABLED"
        else:
            headers["range"] = range_header(start, stop)
        query = None
        if version_of is not None:
            if version_of.etag is not None:
                headers["if-match"] = version_of.etag
            if version_of.version is not None:
                query = {"versionId": version_of.version}
        response = self._s3.request("GET", path, query, headers, what="read")
        return body_reader(response, object_info(path, response.headers), start, stop, version_of)

    def requests_to_read(self, paths: Sequence[str]) -> list[tuple[Origin, bytes]]:
        """Return for each object where a request for all of it goes, and the head of that."""
        return self._s3.requests_on("GET", paths, {**self._customer, "x-amz-checksum-mode": "ENABLED"})

    def read_answered(self, path: str, response: Response) -> RangeReader:
        """Do what `read` does with an answer to such a request."""
        response = self._s3.taken(response, path, "read")
        return body_reader(response, object_info(path, response.headers), 0, None, None)

    def requests_to_look_up(self, paths: Sequence[str]) -> list[tuple[Origin, bytes]]:
        """Return the origin and the head of a request for the description of each object."""
        return self._s3.requests_on("HEAD", paths, {**self._customer, "x-amz-checksum-mode": "ENABLED"})

    def looked_up(self, path: str, response: Response) -> ObjectInfo | None:
        """Describe an object from the response to such a request; ``None``: it does not state enough."""
        size = whole_number(response.headers.get("content-length", ""))
        info = object_info(path, response.headers)
        return replace(info, size=size) if size and info.etag is not None else None

    def _read_version(self, path: str, version: str | None) -> RangeReader:
        """Begin to read one version of an object, whatever it is; ``None``: the current one."""
        return self.read(path, 0, None, None if version is None else ObjectInfo(path, None, version=version))

    def metadata_of(self, info: ObjectInfo) -> ObjectMetadata:
        found = info.metadata
        if found is None:
            found = self.describe_version(info.path, info.version).metadata or ObjectMetadata()
        if found.tags is None:
            query = {"tagging": ""} if info.version is None else {"tagging": "", "versionId": info.version}
            response = self._s3.request("GET", info.path, query, what="look up the tags of")
            found = replace(found, tags=tags_from(parse_root(response.read(1 << 20))))
        if self._encryption or not (found.encryption or "").startswith("aws:kms"):
            # the mount decides, or the bucket: what the bucket chose for one object is not a wish of anybody's
            found = replace(found, encryption=None, encryption_key=None)
        return found.only(self.metadata_fields)

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
        headers = self._headers_to_put(path, checksum, exclusive, metadata)
        try:
            response = self._s3.request("PUT", path, None, headers, (data,) if len(data) else (), what="write")
        except ObjectChanged as error:
            raise exists(path, error) from None
        return _written(path, len(data), response)

    def requests_to_write(
        self, items: Sequence[tuple[str, memoryview]], metadata: ObjectMetadata | None
    ) -> list[tuple[Origin, bytes]]:
        """Return for each object and its content where the request goes that `put` would send, and its head."""
        algorithm = self.limits.checksum
        crc = crc_function(algorithm) if algorithm is not None else None
        known: dict[str, dict[str, str]] = {}  # by what the name says about the type
        asked = []
        for path, data in items:
            kind = content_type_of(path)
            headers = known.get(kind)
            if headers is None:
                headers = known[kind] = self._headers_to_put(path, None, False, metadata)
            if algorithm is not None and crc is not None:
                headers = self._with_checksum(headers, digest_bytes(algorithm, crc(data, 0)))
            asked.append((path, headers, data))
        return self._s3.requests_to_write(asked)

    def write_answered(self, path: str, size: int, response: Response) -> ObjectInfo:
        """Do what `put` does with an answer to such a request."""
        return _written(path, size, self._s3.taken(response, path, "write"))

    def _headers_to_put(
        self, path: str, checksum: bytes | None, exclusive: bool, metadata: ObjectMetadata | None
    ) -> dict[str, str]:
        headers = self._headers_to_write(path, exclusive, metadata)
        if exclusive:
            headers["if-none-match"] = "*"
        return headers if checksum is None else self._with_checksum(headers, checksum)

    def _with_checksum(self, headers: dict[str, str], checksum: bytes) -> dict[str, str]:
        if self.limits.checksum is None:
            return headers
        return {**headers, f"x-amz-checksum-{self.limits.checksum}": base64.b64encode(checksum).decode("ascii")}

    def upload(
        self, path: str, *, size: int | None, exclusive: bool = False, metadata: ObjectMetadata | None = None
    ) -> S3Upload:
        headers = self._headers_to_write(path, exclusive, metadata)
        tags = metadata.tags if metadata is not None else None
        return S3Upload.begin(
            self._s3, self.describe, path, self.limits.checksum, headers, self._customer, exclusive, tags
        )

    def _headers_to_write(self, path: str, exclusive: bool, metadata: ObjectMetadata | None) -> dict[str, str]:
        """Return the fields of a request that writes an object, or begins to; refuse what the store would ignore."""
        split_path(path)
        if exclusive and not self.conditional_writes:
            raise UnsupportedByStore(f"cannot write {path!r} exclusively: {self.why_unconditional}", path=path)
        require_fields(self.metadata_fields, metadata, path, self.scheme)
        headers = dict(self._encryption)
        if metadata is not None and metadata.encryption is not None:
            for name in ENCRYPTION_HEADERS:  # the key of the mount belongs to the mount's kind of encryption
                headers.pop(name, None)
        return {**headers, **headers_of(metadata, path)}

    def copy(self, source: ObjectInfo, destination: str, *, metadata: ObjectMetadata | None = None) -> ObjectInfo:
        split_path(destination)
        headers = copy_headers(source, self._customer)
        tags = None
        if metadata is None:
            headers = {**headers, **kept_headers(source.metadata), **self._encryption}
        else:
            whole = metadata.over(self.metadata_of(source))
            headers = {**headers, **self._headers_to_write(destination, False, whole)}
            tags = whole.tags
            headers["x-amz-metadata-directive"] = "REPLACE"
            if "tags" in self.metadata_fields:
                headers["x-amz-tagging-directive"] = "REPLACE"
        try:
            response = self._s3.request("PUT", destination, None, headers, what="copy to")
        except ObjectChanged:
            # Swift compares the ETag of an object in parts with another one than it states.
            if source.etag is None or self.describe_version(source.path, source.version).etag != source.etag:
                raise
            raise UnsupportedByStore(f"cannot copy {source.path!r}: the store does not know its own ETag") from None
        result = check_answer(response, "CopyObjectResult", destination, "copy to")
        write_tags(self._s3, destination, tags)
        return ObjectInfo(destination, source.size, etag_of(result), version=response.headers.get("x-amz-version-id"))

    # -- names --------------------------------------------------------------------------------------------------------
    def remove(self, path: str) -> None:
        self.describe(path)  # deleting what is not there succeeds
        self._s3.request("DELETE", path, what="remove").close()

    def remove_together(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Remove many objects, whether they exist or not; see `apyfal.storage.stores.s3.removal`.

        Returns
        -------
        dict
            The errors, by path, of objects that are not removed, or not known to be.
        """
        by_bucket: dict[str, list[str]] = {}
        for path in paths:
            bucket, key = split_path(path)
            by_bucket.setdefault(bucket, []).append(key)
        errors: dict[str, StorageError] = {}
        for bucket, keys in by_bucket.items():
            found = remove_together(self._s3, bucket, keys, self.limits.checksum)
            errors.update((f"{bucket}/{key}", error) for key, error in found.items())
        return errors

    def can_remove_together(self, path: str) -> bool:
        """Return whether an object can be removed in this way."""
        return can_be_listed(path.partition("/")[2])

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        return list_objects(self._s3, path, recursive=recursive) if path.strip("/") else list_buckets(self._s3)

    def makedirs(self, path: str) -> None:
        """Make the bucket; directories need not be made."""
        bucket, _ = split_path(path)
        body: tuple[memoryview, ...] = ()
        if self._region != "us-east-1":
            place = f"<LocationConstraint>{self._region}</LocationConstraint>"
            body = (memoryview(f"<CreateBucketConfiguration>{place}</CreateBucketConfiguration>".encode()),)
        try:
            self._s3.request("PUT", bucket, None, None, body, what="make").close()
        except StorageError as error:
            if "LocationConstraint" in (error.code or ""):
                told = f"{error}; the region is {self._region!r}"
                raise StorageError(told, path=path, code=error.code, status=error.status) from error
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def sign(self, path: str, method: str, seconds: int) -> str:
        split_path(path)
        if self._customer:
            raise UnsupportedByStore(f"{self.scheme}: cannot sign {path!r}: whoever asks would need sse_customer_key")
        if seconds > _LONGEST_SIGNATURE:
            raise ParameterError(f"{self.scheme}: cannot sign for {seconds} s: expected 7 days or less")
        return self._s3.signed_url(method, path, seconds)

    def path_of(self, url: str) -> str | None:
        return self._s3.path_of(url)

    def close(self) -> None:
        self.client.close()


def _written(path: str, size: int, response: Response) -> ObjectInfo:
    """Return the object that a PUT has made."""
    response.read()
    return replace(object_info(path, response.headers), size=size, metadata=None)


def exists(path: str, error: ObjectChanged) -> ObjectExists:
    """Return the error for an exclusive write to a name that is taken, from the failed precondition."""
    return ObjectExists(
        f"cannot write {path!r}: it exists",
        path=path,
        code=error.code,
        status=error.status,
        request_id=error.request_id,
    )
