"""Multipart uploads of S3, whose parts may be copies of an object that the store has."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element

from apyfal.exceptions import ObjectChanged, ObjectExists, ObjectNotFound, StorageError, StoreUnavailable
from apyfal.storage.handler import ObjectInfo, Upload
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import decode_base64
from apyfal.storage.stores.s3.client import S3Client
from apyfal.storage.stores.s3.metadata import write_tags
from apyfal.storage.stores.s3.xml import complete_body, etag_of, parse_error, parse_root, text_of

__all__ = ["COPY_PART", "S3Upload", "check_answer", "copy_headers"]

#: One UploadPartCopy of this size takes seconds, and its limit is 5 GiB.
COPY_PART = 1 << 30


def check_answer(response: Response, root_tag: str, path: str, what: str) -> Element:
    """Parse an answer that is a success only if its document says so: S3 may send 200 first and fail later.

    Raises
    ------
    StoreUnavailable
        Another attempt may succeed: an internal error, or a document that is cut.
    StorageError
        Any other ``<Error>``.
    """
    body = response.read(4 << 20)
    root = parse_root(body)
    if root.tag == root_tag:
        return root
    found = parse_error(body)
    request_id = found.request_id or response.headers.get("x-amz-request-id")
    text = f"cannot {what} {path!r}: {found.code or f'<{root.tag}>'}: {found.message} (request id {request_id})"
    passing = found.code in (
        None,
        "InternalError",
        "SlowDown",
        "ServiceUnavailable",
        "RequestTimeout",
        "OperationAborted",
    )
    kind = StoreUnavailable if passing else ObjectNotFound if found.code == "NoSuchUpload" else StorageError
    raise kind(text, path=path, code=found.code, status=response.status, request_id=request_id)


class S3Upload(Upload):
    """A multipart upload that was begun."""

    def __init__(
        self,
        client: S3Client,
        describe: Callable[[str], ObjectInfo],
        path: str,
        upload_id: str,
        checksum: str | None,
        customer: Mapping[str, str],
        exclusive: bool,
        tags: Mapping[str, str] | None,
    ) -> None:
        self._client = client
        self._describe = describe
        self._path = path
        self._id = upload_id
        self._checksum = checksum
        self._customer = customer
        self._exclusive = exclusive
        self._tags = tags
        self._lock = threading.Lock()
        self._parts: dict[int, tuple[str, dict[str, str]]] = {}  # number: ETag, checksum elements
        self._asked = False

    @classmethod
    def begin(
        cls,
        client: S3Client,
        describe: Callable[[str], ObjectInfo],
        path: str,
        checksum: str | None,
        headers: Mapping[str, str],
        customer: Mapping[str, str],
        exclusive: bool,
        tags: Mapping[str, str] | None = None,
    ) -> S3Upload:
        """Begin an upload; see `apyfal.storage.stores.s3.handler.S3Handler` for the parameters.

        Notes
        -----
        Where the answer is lost and the request is repeated, the store may keep a first upload without any part. It is
        left there: what ListMultipartUploads tells of an upload (key, initiator, time to the second) is the same for
        one that another thread or host of this account began just then, so that aborting what looks like ours could
        break theirs. It holds no data, and a lifecycle rule (AbortIncompleteMultipartUpload) removes it.
        """
        fields = dict(headers)
        if checksum is not None:
            fields["x-amz-checksum-algorithm"] = checksum.upper()
            fields["x-amz-checksum-type"] = "FULL_OBJECT"
        response = client.request("POST", path, {"uploads": ""}, fields, what="begin to write")
        answer = check_answer(response, "InitiateMultipartUploadResult", path, "begin to write")
        upload_id = text_of(answer, "UploadId")
        if upload_id is None:
            raise StorageError(f"cannot write {path!r}: the store began an upload without an id", path=path)
        return cls(client, describe, path, upload_id, checksum, customer, exclusive, tags)

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        headers = dict(self._customer)
        elements = {}
        if checksum is not None and self._checksum is not None:
            text = base64.b64encode(checksum).decode("ascii")
            headers[f"x-amz-checksum-{self._checksum}"] = text
            elements[f"Checksum{self._checksum.upper()}"] = text
        query = {"partNumber": str(number), "uploadId": self._id}
        body = (data,) if len(data) else ()
        response = self._client.request("PUT", self._path, query, headers, body, what=f"write part {number} of")
        response.read()
        self._note(number, response.headers.get("etag"), elements)

    def copy_part(self, number: int, source: ObjectInfo, start: int, stop: int) -> bytes | None:
        headers = copy_headers(source, self._customer)
        query = {"partNumber": str(number), "uploadId": self._id}
        wanted = {**self._customer, **headers, "x-amz-copy-source-range": f"bytes={start}-{stop - 1}"}
        response = self._client.request("PUT", self._path, query, wanted, what=f"copy part {number} of")
        result = check_answer(response, "CopyPartResult", self._path, f"copy part {number} of")
        name = f"Checksum{(self._checksum or '').upper()}"
        text = text_of(result, name) if self._checksum is not None else None
        self._note(number, etag_of(result), {name: text} if text is not None else {})
        return decode_base64(text) if text is not None else None

    def _note(self, number: int, etag: str | None, elements: dict[str, str]) -> None:
        if etag is None:
            raise StoreUnavailable(f"the store took part {number} of {self._path!r} without an ETag")
        with self._lock:
            self._parts[number] = (etag, elements)

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        headers = dict(self._customer)
        if checksum is not None and self._checksum is not None:
            headers[f"x-amz-checksum-{self._checksum}"] = base64.b64encode(checksum).decode("ascii")
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
            headers["x-amz-mp-object-size"] = str(size)
        if self._exclusive:
            headers["if-none-match"] = "*"
            # Ceph and older stores ignore that header here. Looking first is not a guarantee there, but no overwriting
            # of what has been there all along.
            self._refuse_existing()
        body = complete_body((number, *self._parts[number]) for number in sorted(self._parts))
        asked_before, self._asked = self._asked, True
        try:
            response = self._client.request(
                "POST", self._path, {"uploadId": self._id}, headers, (memoryview(body),), what="complete"
            )
            result = check_answer(response, "CompleteMultipartUploadResult", self._path, "complete")
        except (ObjectNotFound, ObjectChanged) as error:
            # The first answer may have been lost on its way: then the object is there, and it is this one.
            if asked_before:
                return self._find(size, checksum, error)
            if isinstance(error, ObjectChanged):
                raise ObjectExists(f"cannot write {self._path!r}: it exists", path=self._path, status=412) from None
            raise
        write_tags(self._client, self._path, self._tags)
        return ObjectInfo(self._path, size, etag_of(result), version=response.headers.get("x-amz-version-id"))

    def _refuse_existing(self) -> None:
        """Raise `ObjectExists` if there is an object, before the first attempt to complete."""
        if self._asked:
            return
        try:
            self._describe(self._path)
        except ObjectNotFound:
            return
        raise ObjectExists(f"cannot write {self._path!r}: it exists", path=self._path)

    def _find(self, size: int, checksum: bytes | None, error: StorageError) -> ObjectInfo:
        """Return the object if it is provably the one that this upload made; raise `error` otherwise."""
        info = self._describe(self._path)
        stated = info.checksums.get(self._checksum or "")
        same = stated == checksum if stated is not None and checksum is not None else info.etag == self._expected_etag()
        if info.size != size or not same:
            raise error
        return info

    def _expected_etag(self) -> str | None:
        """Return the ETag that S3 gives to an object of these parts: the MD5 of their MD5s, and how many."""
        digest = hashlib.md5(usedforsecurity=False)
        try:
            for number in sorted(self._parts):
                digest.update(bytes.fromhex(self._parts[number][0].strip('"')))
        except ValueError:
            return None
        return f'"{digest.hexdigest()}-{len(self._parts)}"'

    def abort(self) -> None:
        try:
            self._client.request("DELETE", self._path, {"uploadId": self._id}, what="abort").close()
        except ObjectNotFound:
            return  # completed, or aborted before


def copy_headers(source: ObjectInfo, customer: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that name the source of a copy, and only this version of it."""
    from urllib.parse import quote

    place = "/" + quote(source.path, safe="/-_.~")
    if source.version is not None:
        place += f"?versionId={quote(source.version, safe='-_.~')}"
    headers = {"x-amz-copy-source": place}
    if source.etag is not None:
        headers["x-amz-copy-source-if-match"] = source.etag
    for name, value in customer.items():
        headers[name.replace("x-amz-", "x-amz-copy-source-", 1)] = value
    return headers
