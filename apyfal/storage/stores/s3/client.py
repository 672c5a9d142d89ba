"""Signed requests to S3 or what speaks its protocol: addresses, regions, clocks, credentials, errors."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence
from http.client import responses
from typing import Any
from urllib.parse import quote, unquote

from apyfal.exceptions import (
    AccessDenied,
    AuthenticationError,
    ChecksumMismatch,
    InvalidURL,
    ObjectNotFound,
    StorageError,
    StoreUnavailable,
    UnsupportedByStore,
)
from apyfal.storage.http.origin import Origin, split_url
from apyfal.storage.http.pool import ConnectionPool
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import http_date, retry_after, status_error
from apyfal.storage.stores.s3.credentials import Credentials
from apyfal.storage.stores.s3.sigv4 import EMPTY_SHA256, UNSIGNED, Keys, Signer
from apyfal.storage.stores.s3.templates import RequestTemplate, encoded_key
from apyfal.storage.stores.s3.xml import S3Error, parse_error

__all__ = ["S3Client", "code_error", "split_path"]

_LOG = logging.getLogger(__name__)

#: A bucket name that can be a DNS label under a wildcard certificate.
_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_AWS_HOST = re.compile(r"(?:(.+)\.)?s3[.-](?:([a-z0-9-]+)\.)?amazonaws\.com(?:\.cn)?")
#: How the names of directory buckets end, and of access points to them ("Directory bucket naming rules").
_ZONAL = ("--x-s3", "--xa-s3")

#: Error codes that say more than their status (S3 API reference, "Error responses").
_CODES: Mapping[str, type[StorageError]] = {
    "NoSuchKey": ObjectNotFound,
    "NoSuchBucket": ObjectNotFound,
    "NoSuchUpload": ObjectNotFound,
    "NoSuchVersion": ObjectNotFound,
    "InvalidAccessKeyId": AuthenticationError,
    "SignatureDoesNotMatch": AuthenticationError,
    "InvalidToken": AuthenticationError,
    "ExpiredToken": AuthenticationError,
    "ExpiredTokenException": AuthenticationError,
    "RequestExpired": AuthenticationError,
    "InvalidSecurity": AuthenticationError,
    "NotSignedUp": AuthenticationError,
    "UnrecognizedClientException": AuthenticationError,
    "TokenRefreshRequired": AuthenticationError,
    "AuthorizationHeaderMalformed": AuthenticationError,
    "RequestTimeTooSkewed": AuthenticationError,
    "BadDigest": ChecksumMismatch,
    "InvalidDigest": ChecksumMismatch,
    "XAmzContentSHA256Mismatch": ChecksumMismatch,
    "XAmzContentChecksumMismatch": ChecksumMismatch,
    "IncompleteBody": StoreUnavailable,
    "RequestTimeout": StoreUnavailable,
    "SlowDown": StoreUnavailable,
    "Throttling": StoreUnavailable,
    "InternalError": StoreUnavailable,
    "ServiceUnavailable": StoreUnavailable,
    "OperationAborted": StoreUnavailable,
    "ConditionalRequestConflict": StoreUnavailable,
}


def split_path(path: str) -> tuple[str, str]:
    """Split ``bucket/key``; `InvalidURL` without a bucket."""
    bucket, _, key = path.partition("/")
    if not bucket:
        raise InvalidURL(f"{path!r}: expected bucket/key")
    return bucket, key


def code_error(code: str | None, message: str | None, path: str, what: str) -> StorageError:
    """Return the error for an error document's code; its text begins with "cannot `what` `path`"."""
    kind = _CODES.get(code or "", AccessDenied if code == "AccessDenied" else StorageError)
    said = ": ".join(part for part in (code, message) if part) or "the store does not say why"
    return kind(f"cannot {what} {path!r}: {said}", path=path, code=code)


class S3Client:
    """Sends requests and turns their errors into `apyfal.exceptions`.

    What a store asks for is done here, once a request: another region, another clock, fresh credentials.

    Parameters
    ----------
    client
        The connections.
    credentials
        The keys.
    region
        Where buckets are thought to be; corrected for each bucket as the store says.
    endpoint
        Origin and path prefix of a store that is not AWS; ``None`` for AWS.
    addressing
        ``auto``, ``path`` or ``virtual``.
    sign_payload
        ``True`` or ``False``; see `apyfal.storage.stores.s3.handler.S3Handler`.
    headers
        Sent with every request on objects (requester pays).
    """

    def __init__(
        self,
        client: ConnectionPool,
        credentials: Credentials,
        region: str,
        endpoint: tuple[Origin, str] | None,
        addressing: str,
        sign_payload: bool,
        headers: Mapping[str, str],
    ) -> None:
        self.client = client
        self._credentials = credentials
        self._region = region
        self._endpoint = endpoint
        self._addressing = addressing
        self._sign_payload = sign_payload
        self._headers = dict(headers)
        self._signer = Signer()
        self._regions: dict[str, str] = {}
        self._places: dict[tuple[str, str], tuple[Origin, str]] = {}

    @property
    def aws(self) -> bool:
        """Whether this is Amazon's own store, and not one that speaks its protocol."""
        return self._endpoint is None

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Sequence[memoryview] = (),
        what: str = "access",
    ) -> Response:
        """Send a request on ``bucket/key`` (or on the service, if `path` is empty).

        Parameters
        ----------
        method, headers, body
            As in HTTP; header names in lower case.
        path
            Not encoded.
        query
            Not encoded.
        what
            The verb of error messages: cannot `what` path.

        Returns
        -------
        Response
            With a status below 300; the caller closes it.
        """
        bucket = path.partition("/")[0]
        wanted = {**self._headers, **(headers or {})}
        repeated: set[str] = set()
        while True:
            region = self._regions.get(bucket, self._region)
            response = self._send(method, path, query, wanted, body)
            if response.status < 300:
                return response
            found = self._read_error(response)
            if method == "HEAD" and found.code is None and response.status == 400:
                found = self._explained(path, query, wanted, found, repeated)
            cure = self._cure(response, found, bucket, region, repeated)
            if cure is None:
                raise self._error(response, found, path, what)
            repeated.add(cure)

    def signed_url(self, method: str, path: str, seconds: int) -> str:
        """Return the address of ``bucket/key`` with a signature in it.

        Raises
        ------
        UnsupportedByStore
            There is nobody whose signature it could be.
        """
        bucket, key = split_path(path)
        if self._endpoint is None and bucket not in self._regions:
            with contextlib.suppress(StorageError):  # whose answer tells the region, also if it is a refusal
                self.request("HEAD", bucket).close()
        keys = self._credentials.keys()
        if keys is None:
            raise UnsupportedByStore(f"cannot sign {path!r}: the mount is anonymous; expected client_id and secret_id")
        region = self._regions.get(bucket, self._region)
        origin, target = self._address(bucket, key, region)
        query = {name: value for name, value in self._headers.items() if name.startswith("x-amz-")}
        return (
            f"{origin}{target}?{self._signer.presign(method, origin.authority, target, query, seconds, keys, region)}"
        )

    def requests_on(self, method: str, paths: Sequence[str], headers: Mapping[str, str]) -> list[tuple[Origin, bytes]]:
        """Return the origin and the head of a GET or HEAD request for each ``bucket/key``; valid for some minutes."""
        keys = self._credentials.keys()
        known: dict[str, RequestTemplate] = {}
        found = []
        for path in paths:
            bucket, key = split_path(path)
            template = known.get(bucket)
            if template is None:
                template = known[bucket] = self._template(method, bucket, headers, EMPTY_SHA256, keys)
            found.append((template.origin, template.head(key)))
        return found

    def requests_to_write(
        self, items: Sequence[tuple[str, Mapping[str, str], memoryview]]
    ) -> list[tuple[Origin, bytes]]:
        """Return for each ``bucket/key``, headers and content the origin and the head of a PUT; valid for some minutes.

        Those with the same mapping of headers are prepared together.
        """
        keys = self._credentials.keys()
        known: dict[tuple[str, int, str], RequestTemplate] = {}
        found = []
        for path, headers, data in items:
            bucket, key = split_path(path)
            payload = self._payload_hash((data,))
            same = bucket, id(headers), payload
            template = known.get(same)
            if template is None:
                template = known[same] = self._template("PUT", bucket, headers, payload, keys)
            found.append((template.origin, template.head(key, len(data))))
        return found

    def _template(
        self, method: str, bucket: str, headers: Mapping[str, str], payload: str, keys: Keys | None
    ) -> RequestTemplate:
        region = self._regions.get(bucket, self._region)
        origin, prefix = self._place(bucket, region)
        wanted = {**self._headers, **headers}
        signature = None
        if keys is not None:
            signature = self._signer.prepare(method, origin.authority, wanted, payload, keys, region)
        return RequestTemplate.of(method, origin, prefix, wanted, signature)

    def taken(self, response: Response, path: str, what: str) -> Response:
        """Return an answer that was received elsewhere, if its status is below 300; raise what it means otherwise."""
        if response.status >= 300:
            raise self._error(response, self._read_error(response), path, what)
        return response

    # -- addresses ----------------------------------------------------------------------------------------------------
    def _address(self, bucket: str, key: str, region: str) -> tuple[Origin, str]:
        """Return where to send a request on a bucket in `region`, and its encoded path."""
        place = self._places.get((bucket, region))
        if place is None:
            place = self._places[bucket, region] = self._place(bucket, region)
        origin, prefix = place
        if not key:
            return origin, prefix or "/"
        return origin, f"{prefix}/{encoded_key(key)}"

    def _place(self, bucket: str, region: str) -> tuple[Origin, str]:
        """Return the origin of a bucket, and what stands before its keys.

        Raises
        ------
        InvalidURL
            For what is not a bucket, and would be asked for at a host that has nothing to do with it.
        """
        if bucket in (".", ".."):  # in a path, what it would lead to is another bucket
            raise InvalidURL(f"{bucket!r} is not supported; expected the name of a bucket")
        if bucket[:4].lower() == "arn:":
            raise InvalidURL(
                f"{bucket!r}: ARNs are not supported; expected the name of a bucket, or the alias of an access point "
                "(NAME-...-s3alias), which can be used as one"
            )
        if self._endpoint is None and bucket.endswith(_ZONAL):
            raise InvalidURL(
                f"{bucket!r}: directory buckets (S3 Express One Zone) are not supported; expected another bucket"
            )
        if self._endpoint is not None:
            origin, prefix = self._endpoint
        else:
            domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
            origin, prefix = Origin("https", f"s3.{region}.{domain}", 443), ""
        if not bucket:
            return origin, prefix
        virtual = self._addressing == "virtual" or (
            self._addressing == "auto" and self._endpoint is None and _LABEL.fullmatch(bucket) is not None
        )
        if virtual:
            return origin._replace(host=f"{bucket}.{origin.host}"), prefix
        return origin, f"{prefix}/{quote(bucket, safe='-_.~')}"

    def path_of(self, url: str) -> str | None:
        """Return ``bucket/key`` for a full web address of this store, ``None`` for any other."""
        try:
            origin, target, _ = split_url(url)
        except InvalidURL:
            return None
        path = unquote(target.partition("?")[0])
        if self._endpoint is not None:
            there, prefix = self._endpoint
            if not path.startswith(f"{prefix}/"):
                return None
            if origin == there:
                return path[len(prefix) + 1 :] or None
            bucket = origin.host.removesuffix(f".{there.host}")
            same = (origin.scheme, origin.port) == (there.scheme, there.port)
            return f"{bucket}{path[len(prefix) :]}" if same and bucket != origin.host else None
        found = _AWS_HOST.fullmatch(origin.host)
        if found is None:
            return None
        bucket, region = found.groups()
        named = f"{bucket}{path}" if bucket else path[1:]
        if region:
            self._regions.setdefault(named.partition("/")[0], region)
        return named or None

    def _payload_hash(self, body: Sequence[memoryview]) -> str:
        if not body:
            return EMPTY_SHA256
        if not self._sign_payload:
            return UNSIGNED
        digest = hashlib.sha256()
        for piece in body:
            digest.update(piece)
        return digest.hexdigest()

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: Sequence[memoryview],
    ) -> Response:
        """Sign and send a request, once; the answer may be a refusal."""
        origin, target, fields = self._signed(method, path, query, headers, body)
        return self.client.request(method, origin, target, fields, body)

    def _signed(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: Sequence[memoryview],
    ) -> tuple[Origin, str, list[tuple[str, str]]]:
        """Return where a request goes, what it asks for, and its headers."""
        bucket, _, key = path.partition("/")
        region = self._regions.get(bucket, self._region)
        encoded = (
            "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
            if query
            else ""
        )
        origin, target = self._address(bucket, key, region)
        keys = self._credentials.keys()
        if keys is not None:
            payload = self._payload_hash(body)
            fields = self._signer.sign(method, origin.authority, target, encoded, dict(headers), payload, keys, region)
        else:
            fields = list(headers.items())
        return origin, f"{target}?{encoded}" if encoded else target, fields

    def _explained(
        self,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        found: S3Error,
        repeated: set[str],
    ) -> S3Error:
        """Ask by GET why a HEAD was refused: an answer to HEAD has no document, and 400 may be anything."""
        if "reason" in repeated:
            return found
        repeated.add("reason")
        response = self._send("GET", path, query, {**headers, "range": "bytes=0-0"}, ())
        if response.status < 300:
            response.close()
            return found
        return self._read_error(response)

    # -- errors -------------------------------------------------------------------------------------------------------
    def _read_error(self, response: Response) -> S3Error:
        """Read the error's document, whatever of it comes."""
        try:
            return parse_error(response.read())
        except StorageError:
            return S3Error(None, None, None, None, None)
        finally:
            response.close()

    def _cure(self, response: Response, found: S3Error, bucket: str, region: str, repeated: set[str]) -> str | None:
        """Do what makes the same request right, and return the name of that; ``None`` if nothing does."""
        headers = response.headers
        elsewhere = headers.get("x-amz-bucket-region") or found.region or self._region_in(headers.get("location"))
        if elsewhere and elsewhere != region and response.status in (301, 307, 400, 403) and "region" not in repeated:
            self._regions[bucket] = elsewhere
            _LOG.info("bucket %r is in region %s, not %s: its requests go there from now on", bucket, elsewhere, region)
            return "region"
        # A HEAD has no document: its date tells about the clock.
        skewed = found.code == "RequestTimeTooSkewed"
        server_time = http_date(headers.get("date"))
        if server_time is not None and "clock" not in repeated:
            offset = server_time - time.time()
            wrong = abs(offset - self._signer.clock_offset) > 60
            if skewed or (found.code is None and response.status == 403 and wrong):
                self._signer.clock_offset = offset
                _LOG.warning("this machine's clock is %.0f s behind the store's: requests are signed by that", offset)
                return "clock"
        expired = found.code in ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")
        if (expired or (found.code is None and response.status == 400)) and "credentials" not in repeated:
            if not self._credentials.refresh():
                return None
            _LOG.info("the store refused the credentials (%s): new ones are used", found.code or response.status)
            return "credentials"
        return None

    def _region_in(self, location: str | None) -> str | None:
        """Return the region of AWS that a redirect leads to: the only place that is sent signed requests for it."""
        if location is None or self._endpoint is not None:
            return None
        try:
            host = split_url(location)[0].host
        except InvalidURL:
            return None
        named = _AWS_HOST.fullmatch(host)
        return named[2] if named is not None else None

    def _error(self, response: Response, found: S3Error, path: str, what: str) -> StorageError:
        """Return the error of an answer, with the store's words."""
        request_id = found.request_id or response.headers.get("x-amz-request-id")
        parts = [part for part in (found.code, found.message) if part]
        # the answer to a HEAD has no body: its status is all that is said
        said = ": ".join(parts) or responses.get(response.status, "refused")
        numbers = f"status {response.status}" + (f", request id {request_id}" if request_id else "")
        text = f"cannot {what} {path!r}: {said} ({numbers})"
        kind = _CODES.get(found.code or "")
        if kind is None and 300 <= response.status < 400:
            where = response.headers.get("location", "").partition("?")[0]
            return StorageError(f"{text}: redirected to {where or 'nowhere'}", path=path, status=response.status)
        details: dict[str, Any] = {"path": path, "code": found.code, "request_id": request_id}
        if kind is None:
            return status_error(response.status, text, headers=response.headers, **details)
        return kind(text, status=response.status, retry_after=retry_after(response.headers), **details)
