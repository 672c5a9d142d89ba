"""Files on the web."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar
from urllib.parse import urljoin

from apyfal.exceptions import InvalidURL, MountError, ObjectExists, StorageError, UnsupportedByStore
from apyfal.log import redact, redact_web_path
from apyfal.storage.handler import Handler, Limits, ObjectInfo, RangeReader
from apyfal.storage.http.origin import Origin, basic_authorization, split_url
from apyfal.storage.http.pool import ConnectionPool, Timeouts, request_head
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import (
    DECODED,
    GzipReader,
    body_reader,
    http_date,
    range_header,
    status_error,
    strong_etag,
)
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.stores.signed_address import SignedAddress
from apyfal.storage.stores.spooled_upload import SpooledUpload

__all__ = ["HTTPHandler", "HTTPSHandler"]

_LOG = logging.getLogger(__name__)

_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
#: Redirects that keep the method of a request (RFC 9110, section 15.4).
_SAME_METHOD = (307, 308)
#: Statuses after which a request may have been carried out all the same; after 503 it has not.
_UNSURE = (500, 502, 504)
#: The store's code for a refusal. Its explanation is not shown, since it can contain the signature.
_CODE = re.compile(rb"<Code>([A-Za-z0-9._-]{1,64})</Code>")
_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization")


class HTTPHandler(Handler):
    """Web servers, with or without ranges. Read-only, except addresses that a store has signed for PUT.

    A path is the part after ``http://``: ``host:port/path?query``; a full URL is accepted, too. A signed PUT is sent
    once, and repeated only if it is certain that nothing was written.

    Parameters
    ----------
    ambient
        Whether a proxy that is not given may come from this machine's environment.
    user, password
        For HTTP's basic authentication; those in a URL (``user:password@host``) win.
    headers
        Sent with every request (a token, say). Neither they nor the password follow a redirect to another origin.
    verify, proxy
        Of `apyfal.storage.http.pool.ConnectionPool`.
    timeout, connect_timeout
        Seconds without any progress (30), and to connect (10).

    Attributes
    ----------
    client
        The connections; its `gate` decides where they may go.
    """

    scheme: ClassVar[str] = "http"
    opens_by_reading = True
    limits = Limits(min_part=1, max_part=1 << 62, max_parts=1 << 62, max_put=1 << 62, whole=True)

    def __init__(
        self,
        ambient: bool = True,
        /,
        *,
        user: str | None = None,
        password: str | None = None,
        headers: Mapping[str, str] | None = None,
        verify: str | bool = True,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        proxy: str | None = None,
    ) -> None:
        if password is not None and user is None:
            raise MountError("http: a password needs a user")
        self._user = (user, password or "") if user is not None else None
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        proxy = proxy if ambient else proxy or "none"
        self.client = ConnectionPool(Timeouts.of(timeout, connect_timeout), verify=verify, proxy=proxy)

    def describe(self, path: str) -> ObjectInfo:
        """Look an object up by a GET of its first byte.

        HEAD may be forbidden (a URL that is signed for GET), or leave out or misstate the size, the validator and the
        coding, without breaking a rule (RFC 9110, section 9.3.2).
        """
        response = self._follow("GET", path, {"range": range_header(0, 1)}, "look up")
        if response.status not in (200, 404, 410) and not _is_first_byte(response):
            # an empty object has no first byte (416), and some servers refuse or mistake ranges
            response.close()
            response = self._follow("GET", path, {}, "look up")
        if response.status >= 300:
            raise self._error(response, path, "look up")
        info = _object_info(path, response)
        if info.encoding is not None:
            response.close()
            return info
        stop = 1 if response.status == 206 else None
        with body_reader(response, info, 0, stop, None, self.shown(path)) as reader:
            if stop is not None:
                reader.readinto(memoryview(bytearray(1)))  # so that the connection can be used again
            return reader.info

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        headers = {}
        if start or stop is not None:
            headers["range"] = range_header(start, stop)
        if version_of is not None and version_of.etag is not None:
            headers["if-match"] = version_of.etag
        return self._reader(path, self._follow("GET", path, headers, "read"), start, stop, version_of)

    def _reader(
        self, path: str, response: Response, start: int, stop: int | None, version_of: ObjectInfo | None
    ) -> RangeReader:
        if response.status >= 300:
            raise self._error(response, path, "read")
        info = _object_info(path, response)
        if info.encoding is not None:
            return _decoded(response, info, start, stop, self.shown(path))
        return body_reader(response, info, start, stop, version_of, self.shown(path))

    def requests_to_read(self, paths: Sequence[str]) -> list[tuple[Origin, bytes]]:
        """Return the origin and the head of the first request for each whole object."""
        found = []
        for path in paths:
            origin, target, user = split_url(self._url(path))
            fields = self._fields(user, {})
            found.append((origin, request_head("GET", origin, target, fields.items())))
        return found

    def read_answered(self, path: str, response: Response) -> RangeReader:
        """Do what `read` does with a response to such a request."""
        return self._reader(path, response, 0, None, None)

    def _fields(self, user: tuple[str, str] | None, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the header of a request to the origin of an address, with the secrets for that origin only."""
        fields = {"accept-encoding": "identity", **self._headers, **headers}
        user = user or self._user
        if user is not None and "authorization" not in fields:
            fields["authorization"] = basic_authorization(*user)
        return fields

    def requests_to_write(
        self, items: Sequence[tuple[str, memoryview]], metadata: ObjectMetadata | None
    ) -> list[tuple[Origin, bytes]]:
        """Raise `UnsupportedByStore`: each signed address has its own conditions, and is written by itself."""
        raise UnsupportedByStore("addresses on the web are written one by one")

    def write_answered(self, path: str, size: int, response: Response) -> ObjectInfo:
        """Raise `UnsupportedByStore`: there are no such requests."""
        raise UnsupportedByStore("addresses on the web are written one by one")

    def require_writable(self, path: str) -> None:
        self._address(path)

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        return self._write(path, (data,) if len(data) else (), exclusive)

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> SpooledUpload:
        address = self._address(path)
        address.require(size or 0)
        return SpooledUpload(self.shown(path), address.require, lambda pieces: self._write(path, pieces, exclusive))

    def _address(self, path: str) -> SignedAddress:
        _, target, _ = split_url(self._url(path))
        return SignedAddress(target, self.shown(path))

    def _write(self, path: str, pieces: Sequence[memoryview], exclusive: bool) -> ObjectInfo:
        headers = self._address(path).headers(pieces, self._headers, exclusive=exclusive)
        response = self._follow("PUT", path, headers, "write", pieces)
        if response.status not in (200, 201, 204):
            raise self._refusal(response, path)
        with contextlib.suppress(StorageError):  # the object is written, even if reading the rest of the response fails
            response.read(1 << 20)
        response.close()
        return ObjectInfo(path, sum(map(len, pieces)), strong_etag(response.headers.get("etag")))

    def _refusal(self, response: Response, path: str) -> StorageError:
        """Return the error for a PUT that did not succeed; reads the rest of the response."""
        body = b""
        with contextlib.suppress(StorageError):  # a refusal without its explanation is still a refusal
            body = response.read(64 << 10)
        response.close()
        shown, status = self.shown(path), response.status
        found = _CODE.search(body)
        code = found[1].decode() if found is not None else None
        if status == 409 and code == "BlobAlreadyExists":
            return ObjectExists(f"cannot write {shown!r}: it exists", path=shown, code=code, status=status)
        said = f"{code} (status {status})" if code else f"the server answered {status}"
        message = f"cannot write {shown!r}: {said}"
        if status < 300 or status in _UNSURE:
            return StorageError(
                f"{message}; it may have been written all the same", path=shown, code=code, status=status
            )
        if status < 400:
            return StorageError(f"{message}: a redirect that is not followed", path=shown, status=status)
        return status_error(status, message, path=shown, code=code, headers=response.headers)

    def shown(self, path: str) -> str:
        return redact(path) if "://" in path else redact_web_path(path)

    def close(self) -> None:
        self.client.close()

    def _url(self, path: str) -> str:
        return (path if "://" in path else f"{self.scheme}://{path}").partition("#")[0]

    def _follow(
        self, method: str, path: str, headers: Mapping[str, str], what: str, body: Sequence[memoryview] = ()
    ) -> Response:
        """Send a request and follow redirects; secrets are sent only to the first origin.

        A PUT is sent once, and follows only redirects that keep the method.
        """
        followed = _REDIRECTS if method == "GET" else _SAME_METHOD
        origin, target, user = split_url(self._url(path))
        first = origin
        for _ in range(_MAX_REDIRECTS):
            # The headers of a mount are for its server only, whatever their names.
            fields = self._fields(user, headers) if origin == first else {"accept-encoding": "identity", **headers}
            response = self.client.request(method, origin, target, fields.items(), body, once=method != "GET")
            location = response.headers.get("location")
            if response.status not in followed or location is None:
                return response
            response.read()
            response.close()
            before = origin
            origin, target = self._redirected(origin, target, location)
            _LOG.info("%s redirects %r to %s", before, self.shown(path), redact(f"{origin}{target}"))
        shown = self.shown(path)
        raise StorageError(f"cannot {what} {shown!r}: more than {_MAX_REDIRECTS} redirects", path=shown)

    def _redirected(self, origin: Origin, target: str, location: str) -> tuple[Origin, str]:
        try:
            url = urljoin(f"{origin}{target}", location).partition("#")[0]
        except ValueError:
            raise InvalidURL(f"{origin.host} redirects to {redact(location)!r}, which is not a URL") from None
        there, path, _ = split_url(url)
        if origin.scheme == "https" and there.scheme == "http":
            raise InvalidURL(f"{origin.host} redirects from https to http at {there.host}: not followed")
        return there, path

    def _error(self, response: Response, path: str, what: str) -> StorageError:
        response.close()
        shown = self.shown(path)
        message = f"cannot {what} {shown!r}: the server answered {response.status}"
        return status_error(response.status, message, path=shown, headers=response.headers)


class HTTPSHandler(HTTPHandler):
    """The same over TLS."""

    scheme: ClassVar[str] = "https"


def _is_first_byte(response: Response) -> bool:
    """Whether a response is the first byte of an object, as it is stored."""
    return (
        response.status == 206
        and "content-encoding" not in response.headers
        and re.fullmatch(r"bytes 0-0/\d+", response.headers.get("content-range", "")) is not None
    )


def _object_info(path: str, response: Response) -> ObjectInfo:
    headers = response.headers
    codings = (coding.strip().lower() for coding in headers.get("content-encoding", "").split(","))
    encoding = ", ".join(coding for coding in codings if coding and coding != "identity")
    return ObjectInfo(
        path,
        None,
        strong_etag(headers.get("etag")),
        http_date(headers.get("last-modified")),
        ranges=response.status == 206 or headers.get("accept-ranges", "").lower() == "bytes",
        encoding=encoding or None,
    )


def _decoded(response: Response, info: ObjectInfo, start: int, stop: int | None, name: str) -> RangeReader:
    """Return a reader that undoes the Content-Encoding, which was sent although only identity was asked for."""
    known = info.encoding in DECODED
    if not known or response.status != 200 or start or stop is not None:
        response.close()
        raise StorageError(
            f"{name!r} comes with Content-Encoding {info.encoding!r}"
            + (", of which no part can be read" if known else ", which cannot be decoded"),
            path=name,
        )
    return GzipReader(response, replace(info, size=None, ranges=False))
