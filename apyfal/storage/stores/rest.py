"""What the stores with a REST protocol of their own share: sending, signing again, errors, and ranges.

Their SDKs hand out `bytes` or files; the range of an object has to land in memory that is already there. So these
handlers speak the documented protocols over apyfal's own connections (`apyfal.storage.http.pool`), and use an SDK
only where it is the authority: for obtaining credentials.
"""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

from apyfal.exceptions import AuthenticationError, InvalidURL, StorageError, StoreUnavailable
from apyfal.storage.handler import MetadataHandler, ObjectInfo, RangeReader
from apyfal.storage.http.origin import Origin
from apyfal.storage.http.pool import ConnectionPool, Timeouts
from apyfal.storage.http.response import Response
from apyfal.storage.http.status import (
    body_reader,
    described_by_head,
    described_by_reading,
    range_header,
    reading_says_more,
    status_error,
)

__all__ = ["RestHandler", "SignedRequest", "folder_prefix", "iso_time", "quoted", "split_path"]

_LOG = logging.getLogger(__name__)

_FRACTION = re.compile(r"\.\d+", re.ASCII)


class SignedRequest(NamedTuple):
    """Where a request goes, with what it needs to be accepted there."""

    origin: Origin
    target: str
    headers: list[tuple[str, str]]


class RestHandler(MetadataHandler):
    """A store that is asked by HTTP requests with credentials in them.

    Parameters
    ----------
    ambient
        Whether what is not given may come from this machine: here, a proxy of its environment.
    verify, proxy
        Of `apyfal.storage.http.pool.ConnectionPool`.
    timeout, connect_timeout
        Seconds without any progress (30), and to connect (10).

    Attributes
    ----------
    client
        The connections; its `gate` decides where they may go.
    """

    #: names of the header fields that hold the store's id of a request
    _request_id_headers: tuple[str, ...] = ()

    def __init__(
        self,
        ambient: bool = True,
        /,
        *,
        verify: str | bool = True,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        proxy: str | None = None,
    ) -> None:
        proxy = proxy if ambient else proxy or "none"
        self.client = ConnectionPool(Timeouts.of(timeout, connect_timeout), verify=verify, proxy=proxy)

    # -- what each protocol says --------------------------------------------------------------------------------------
    @abstractmethod
    def _request(self, method: str, target: str, headers: list[tuple[str, str]], length: int) -> SignedRequest:
        """Add the store's address and credentials to a request with a body of `length` bytes."""

    @abstractmethod
    def _info(self, path: str, response: Response, size: int | None) -> ObjectInfo:
        """Describe an object by the headers of an answer."""

    def _renew(self, refused: SignedRequest) -> bool:
        """Get new credentials, after those of `refused` were not accepted; ``False`` where that makes no sense."""
        return False

    def _reason(self, response: Response, body: bytes) -> tuple[str | None, str]:
        """Find the store's error code and its one-line explanation in an answer."""
        return None, ""

    # -- requests -----------------------------------------------------------------------------------------------------
    def _send(
        self,
        method: str,
        target: str,
        path: str,
        what: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: Sequence[memoryview] = (),
        accept: Collection[int] = (200,),
    ) -> Response:
        """Send one request; its answer has one of the statuses `accept`, and its body is the caller's to read.

        Parameters
        ----------
        method, target
            The request line; `target` is relative to the store's address and percent-encoded.
        path, what
            For messages: cannot `what` `path`.
        """
        given, length = list(headers), sum(map(len, body))
        renewed = False
        while True:
            request = self._request(method, target, given, length)
            response = self.client.request(method, request.origin, request.target, request.headers, body)
            if response.status in accept:
                return response
            error = self._error(response, path, what)
            if isinstance(error, AuthenticationError) and not renewed and self._renew(request):
                renewed = True
                _LOG.info("%s refused the credentials: new ones are used", request.origin)
                continue
            raise error

    def _ask(
        self,
        method: str,
        target: str,
        path: str,
        what: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: Sequence[memoryview] = (),
        accept: Collection[int] = (200,),
        limit: int = 16 << 20,
    ) -> tuple[Response, bytes]:
        """Send one request and read its answer, a small one, to the end."""
        response = self._send(method, target, path, what, headers=headers, body=body, accept=accept)
        try:
            return response, response.read(limit)
        finally:
            response.close()

    def _error(self, response: Response, path: str, what: str) -> StorageError:
        """Make the error for an answer that refuses; reads and ends the answer."""
        try:
            body = response.read()
        except StorageError:
            body = b""  # a refusal whose explanation got lost is a refusal all the same
        finally:
            response.close()
        code, text = self._reason(response, body)
        text = " ".join(text.split())[:200]
        said = ": ".join(part for part in (code, text) if part)
        ids = (response.headers[name] for name in self._request_id_headers if name in response.headers)
        request_id = next(ids, None)
        numbers = f"status {response.status}" + (f", request id {request_id}" if request_id else "")
        message = f"cannot {what} {path!r}: {said} ({numbers})" if said else f"cannot {what} {path!r}: {numbers}"
        return status_error(
            response.status, message, path=path, code=code, request_id=request_id, headers=response.headers
        )

    def _refusals(
        self,
        responses: Sequence[Response | None],
        paths: Sequence[str],
        container: str,
        what: str,
        *,
        removed: Collection[int],
    ) -> dict[str, StorageError]:
        """Return the errors, by path, of objects whose removal by a batch the store does not confirm.

        Parameters
        ----------
        responses
            To the removal of each path; a single one of status 4xx or 5xx for several paths refuses the whole batch.
        paths, container, what
            What was removed; for messages.
        removed
            The statuses of an object that is removed.
        """
        if len(responses) != len(paths) and responses[0] is not None:
            raise self._error(responses[0], container, what)
        errors: dict[str, StorageError] = {}
        for path, response in zip(paths, responses, strict=True):
            if response is None:
                message = f"cannot remove {path!r}: the store does not say that it did"
                errors[path] = StoreUnavailable(message, path=path)
            elif response.status not in removed:
                errors[path] = self._error(response, path, "remove")
        return errors

    def _look_up(self, target: str, path: str) -> ObjectInfo:
        """Describe an object by a HEAD, or by a GET where that says more."""
        read = partial(self.read, path, 0, None, None)
        try:
            response, _ = self._ask("HEAD", target, path, "look up", accept=(200, 204, 206))
        except StorageError as error:
            if not reading_says_more(error):
                raise
            return described_by_reading(read)
        return described_by_head(self._info(path, response, None), response, read)

    def _read_range(
        self,
        target: str,
        path: str,
        start: int,
        stop: int | None,
        version_of: ObjectInfo | None,
        headers: Sequence[tuple[str, str]],
    ) -> RangeReader:
        """Ask for bytes `start` to `stop` of an object, and check that the answer is just that."""
        ranged = [("Range", range_header(start, stop))] if start or stop is not None else []
        response = self._send("GET", target, path, "read", headers=[*headers, *ranged], accept=(200, 206))
        return body_reader(response, self._info(path, response, None), start, stop, version_of)

    def close(self) -> None:
        """Close idle connections; the handler can be used again."""
        self.client.close()


def split_path(scheme: str, path: str, *, key: bool = True) -> tuple[str, str]:
    """Split a path into its container and its key.

    Raises
    ------
    InvalidURL
        Without a container, or (with `key`) without a key.
    """
    container, _, rest = path.partition("/")
    if not container:
        raise InvalidURL(f"{scheme}://{path} names no container; expected {scheme}://container/key", path=path)
    if key and not rest:
        raise InvalidURL(f"{scheme}://{path} names no object; expected {scheme}://{container}/key", path=path)
    return container, rest


def folder_prefix(path: str) -> tuple[str, str]:
    """Split a path that is to be listed into its container and the prefix of everything below it."""
    container, _, prefix = path.partition("/")
    return container, prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def quoted(text: str) -> str:
    """Percent-encode an object's name for a request target; slashes stay."""
    return quote(text, safe="/-_.~")


def iso_time(text: str | None) -> float | None:
    """Read a time in a listing (ISO 8601, UTC where it says nothing) as seconds since the epoch."""
    if not text:
        return None
    try:
        # Python 3.10 reads three or six digits of a second only.
        time = datetime.fromisoformat(_FRACTION.sub(lambda m: m[0][:7].ljust(7, "0"), text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
