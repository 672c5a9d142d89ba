"""What an HTTP response says: ranges, versions, checksums, and which error its status is."""

from __future__ import annotations

import base64
import binascii
import calendar
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

from apyfal.exceptions import (
    AccessDenied,
    AuthenticationError,
    ObjectChanged,
    ObjectNotFound,
    StorageError,
    StoreUnavailable,
    UnsupportedByStore,
)
from apyfal.storage.handler import ObjectInfo, RangeReader
from apyfal.storage.http.response import Response
from apyfal.units import whole_number

__all__ = [
    "DECODED",
    "BodyReader",
    "GzipReader",
    "body_reader",
    "described_by_head",
    "described_by_reading",
    "http_date",
    "range_header",
    "reading_says_more",
    "retry_after",
    "status_error",
    "strong_etag",
]

#: Statuses after which another attempt may succeed.
TRANSIENT_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))

_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


@lru_cache(maxsize=256)
def http_date(text: str | None) -> float | None:
    """Seconds since the epoch of an HTTP date (RFC 9110, section 5.6.7), or ``None`` for anything else."""
    if text is None or len(text) != 29 or not text.endswith(" GMT"):
        return None
    try:
        clock = text[17:25].split(":")
        return float(
            calendar.timegm(
                (int(text[12:16]), _MONTHS[text[8:11]], int(text[5:7]), int(clock[0]), int(clock[1]), int(clock[2]))
            )
        )
    except (KeyError, ValueError, IndexError):
        return None


def strong_etag(text: str | None) -> str | None:
    """Return an ETag as it was sent, if it is strong."""
    return text if text and not text.startswith("W/") else None


def range_header(start: int, stop: int | None) -> str:
    """Return the value of a Range header for bytes `start` to `stop` (exclusive)."""
    return f"bytes={start}-{'' if stop is None else stop - 1}"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header; its date form is not used by stores."""
    value = headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


def status_error(
    status: int,
    message: str,
    *,
    path: str,
    code: str | None = None,
    request_id: str | None = None,
    headers: Mapping[str, str],
) -> StorageError:
    """Return the error that a status means.

    Parameters
    ----------
    status
        4xx or 5xx.
    message
        What was being done, and the store's own text.
    path, code, request_id
        For the attributes of the error.
    headers
        Of the response.
    """
    kind: type[StorageError]
    if status in (404, 410):
        kind = ObjectNotFound
    elif status in (401, 407):
        kind = AuthenticationError
    elif status == 403:
        kind = AccessDenied
    elif status == 412:
        kind = ObjectChanged
    elif status in (405, 501):
        kind = UnsupportedByStore
    elif status in TRANSIENT_STATUSES:
        kind = StoreUnavailable
    else:
        kind = StorageError
    return kind(message, path=path, code=code, status=status, request_id=request_id, retry_after=retry_after(headers))


class BodyReader(RangeReader):
    """The body of a response, from which `skip` bytes are dropped and no more than `length` are delivered."""

    def __init__(self, response: Response, info: ObjectInfo, skip: int = 0, length: int | None = None) -> None:
        self.info = info
        self._response = response
        self._skip = skip
        self._left = length

    def readinto(self, out: memoryview) -> int:
        if self._skip:
            scratch = memoryview(bytearray(min(self._skip, 256 << 10)))
            while self._skip:
                count = self._response.readinto(scratch[: self._skip])
                if not count:
                    return 0
                self._skip -= count
        if self._left is None:
            return self._response.readinto(out)
        count = self._response.readinto(out[: self._left]) if self._left else 0
        self._left -= count
        return count

    def close(self) -> None:
        self._response.close()


_GZIP_MAGIC = b"\x1f\x8b"
#: Content codings that `GzipReader` decodes (RFC 9110, section 8.4.1).
DECODED = ("gzip", "x-gzip", "deflate")


class GzipReader(RangeReader):
    """A body with a Content-Encoding, decoded. Its end must be the end of the compressed data too.

    Parameters
    ----------
    response
        Whose body it is; closed with this reader.
    info
        The object, with one of `DECODED` as its encoding.
    """

    def __init__(self, response: Response, info: ObjectInfo) -> None:
        self.info = info
        self._response = response
        self._buffer = memoryview(bytearray(64 << 10))
        self._decoder = zlib.decompressobj(47)  # gzip or zlib, by its first bytes
        self._tail = b""
        self._began = False

    def readinto(self, out: memoryview) -> int:
        while len(out):
            if self._decoder.eof and not self._next_member():
                return 0
            data = self._decoder.unconsumed_tail or self._take() or self._receive()
            if not data:
                raise StoreUnavailable("the compressed body ended early")
            if not self._began:
                data = self._choose_decoder(data)
            try:
                plain = self._decoder.decompress(data, len(out))
            except zlib.error as error:
                raise StoreUnavailable(f"the compressed body is damaged: {error}") from error
            if plain:
                out[: len(plain)] = plain
                return len(plain)
        return 0

    def _receive(self) -> bytes:
        """Receive more of the body; empty at its end."""
        return bytes(self._buffer[: self._response.readinto(self._buffer)])

    def _take(self) -> bytes:
        """Take what was received behind the end of a member."""
        tail, self._tail = self._tail, b""
        return tail

    def _next_member(self) -> bool:
        """Begin with another gzip member (RFC 1952, section 2.2); ``False`` at the end of the body."""
        self._tail = self._decoder.unused_data
        while len(self._tail) < len(_GZIP_MAGIC) and (more := self._receive()):
            self._tail += more
        if not self._tail:
            return False
        if not self._tail.startswith(_GZIP_MAGIC):
            raise StorageError("there is more behind the compressed body")
        self._decoder = zlib.decompressobj(47)
        return True

    def _choose_decoder(self, data: bytes) -> bytes:
        """Look at the first two bytes: some servers send "deflate" without the zlib header that RFC 9110 asks for."""
        self._began = True
        if self.info.encoding == "deflate":
            while len(data) < 2 and (more := self._receive()):
                data += more
            if not _begins_like_zlib(data):
                self._decoder = zlib.decompressobj(-15)
        return data

    def close(self) -> None:
        self._response.close()


def _begins_like_zlib(data: bytes | memoryview) -> bool:
    """Whether data begins with a zlib header (RFC 1950, section 2.2)."""
    return len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0


def body_reader(
    response: Response,
    info: ObjectInfo,
    start: int,
    stop: int | None,
    version_of: ObjectInfo | None,
    name: str | None = None,
) -> RangeReader:
    """Check the head of a 200 or 206 response against what was asked for, and return the reader of its body.

    Parameters
    ----------
    response
        Closed here when it is not what was asked for.
    info
        The object as the headers describe it; `size` and `ranges` are filled in here.
    start, stop, version_of
        As given to `Handler.read`.
    name
        The object in messages; default: its path.

    Raises
    ------
    ObjectChanged
        Another version than `version_of`.
    StoreUnavailable
        A range that was not asked for; another attempt may get the right one.
    """
    try:
        if response.status == 206:
            first, last, total = _content_range(response)
            if total is None and version_of is not None:
                total = version_of.size
            end = last + 1
            wanted = total if stop is None else stop if total is None else min(stop, total)
            if first != start or total is None or end != wanted or response.length not in (None, end - first):
                raise StoreUnavailable(
                    f"asked for bytes {start} to {stop}, the response is"
                    f" {response.headers.get('content-range')!r} with a length of {response.length}"
                )
            info = info.of_size(total, info.ranges)
            reader: RangeReader = BodyReader(response, info)
            if response.length is None:
                reader = BodyReader(response, info, 0, end - first)
        else:
            asked = start > 0 or stop is not None
            info = info.of_size(response.length, info.ranges and not asked)
            length = None if stop is None else stop - start
            reader = BodyReader(response, info, start, length) if asked else BodyReader(response, info)
        if version_of is not None:
            _check_version(info, version_of, name or info.path)
    except BaseException:
        response.close()
        raise
    return reader


def reading_says_more(error: StorageError) -> bool:
    """Return whether a server may have refused a HEAD request only because it is HEAD, so that a GET decides.

    Some servers refuse HEAD, with various statuses. Addresses signed for GET do not permit it.
    """
    status = error.status or 0
    return 400 <= status < 600 and status not in (404, 407, 410, 412) and status not in TRANSIENT_STATUSES


def described_by_reading(read: Callable[[], RangeReader]) -> ObjectInfo:
    """Describe an object by the head of a GET, whose body is not received.

    Parameters
    ----------
    read
        Begins to read the whole object.
    """
    with read() as reader:
        return reader.info


def described_by_head(info: ObjectInfo, response: Response, read: Callable[[], RangeReader]) -> ObjectInfo:
    """Describe an object by the response to a HEAD, unless that says less than a GET would.

    A server may leave headers out of its response to HEAD (RFC 9110, section 9.3.2). Some state a length of 0 there,
    which is that of the body they send.

    Parameters
    ----------
    info
        The object by the other headers.
    response
        The response to the HEAD.
    read
        Begins to read the whole object.
    """
    size = whole_number(response.headers.get("content-length", ""))
    if response.status != 200 or not size or info.etag is None:
        return described_by_reading(read)
    return replace(info, size=size)


def _content_range(response: Response) -> tuple[int, int, int | None]:
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None:
        raise StoreUnavailable(
            f"a partial response with Content-Range {response.headers.get('content-range')!r}", status=response.status
        )
    first, last, total = found.groups()
    if int(last) < int(first) or (total != "*" and int(last) >= int(total)):
        raise StoreUnavailable(f"a partial response with Content-Range {found.group()!r}", status=response.status)
    return int(first), int(last), None if total == "*" else int(total)


def _check_version(seen: ObjectInfo, known: ObjectInfo, name: str) -> None:
    differs = known.etag is not None and seen.etag != known.etag
    if differs or (known.size is not None and seen.size is not None and known.size != seen.size):
        raise ObjectChanged(
            f"{name!r} changed while it was being read: {known.size} bytes with ETag {known.etag} became"
            f" {seen.size} bytes with ETag {seen.etag}",
            path=name,
        )


def decode_base64(text: str) -> bytes | None:
    """Return the bytes of a checksum header; ``None`` for what is not base64 (a composite checksum)."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
