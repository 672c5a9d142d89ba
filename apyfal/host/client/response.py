"""Responses of a daemon, and the errors that take their place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final

from apyfal.exceptions import AcceleratorException, AuthenticationError, HostError, StorageError, TransferTimeout
from apyfal.host.protocol.messages import JOB_HEADER, error_from
from apyfal.storage.http.response import Response

__all__ = ["HostResponse", "Refused", "SessionLost", "network_errors"]

_MAX_JSON = 64 << 20
_MALFORMED = "the host's answer is malformed"


class _NetworkErrors:
    """Converts network errors to `ConnectionError` or `TimeoutError`; passes on all others."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, AuthenticationError):
            return
        if isinstance(error, TransferTimeout):
            raise TimeoutError(str(error)) from error
        if isinstance(error, StorageError):
            raise ConnectionError(str(error)) from error
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError | AcceleratorException):
            raise ConnectionError(error.strerror or str(error)) from error


#: a context manager without a state: each small job enters it several times
network_errors: Final = _NetworkErrors()


class Refused(Exception):
    """The daemon answered with an error. Its meaning depends on the request.

    Attributes
    ----------
    status, document
        HTTP status and JSON body of the response.
    retry_after
        Seconds after which to try again; ``None``: not stated.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.document = document
        self.retry_after = retry_after

    def error(self) -> AcceleratorException:
        """Return the exception that the daemon described."""
        return error_from(self.document.get("error"))


class SessionLost(Exception):
    """The daemon does not know the session: the daemon was restarted, or the session was idle for too long."""


class HostResponse:
    """A response whose head has been received. As a context manager, it returns the connection to the pool at the end,
    or closes it if the body was not read.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self.status = response.status
        self.length = response.length

    def header(self, name: str) -> str | None:
        """Return the value of a header field; ``None``: it is missing."""
        return self._response.headers.get(name.lower())

    def json(self) -> Any:
        """Read the body and parse it as JSON. Raises `HostError` if it is none."""
        with network_errors:
            text = self._response.read(_MAX_JSON)
        return _parsed(text)

    def job(self) -> tuple[dict[str, Any], bool]:
        """Return the job that the response describes, and whether the body is its output. Raises `HostError`."""
        header = self.header(JOB_HEADER)
        document = self.json() if header is None else _parsed(header)
        if not isinstance(document, dict):
            raise HostError(f"{_MALFORMED}: expected a job")
        return document, header is not None

    def readinto(self, out: memoryview) -> None:
        """Fill `out` with the next bytes of the body. Raises `ConnectionError` if the body ends before."""
        done = 0
        while done < len(out):
            with network_errors:
                count = self._response.readinto(out[done:])
            if not count:
                raise ConnectionError("the response ended early")
            done += count

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the body as they arrive, without line breaks."""
        buffer = memoryview(bytearray(4096))
        rest = b""
        while True:
            with network_errors:
                count = self._response.readinto(buffer)
            if not count:
                break
            *complete, rest = (rest + buffer[:count]).split(b"\n")
            yield from (line + b"\n" for line in complete)
        if rest:
            yield rest

    def close(self) -> None:
        """Return the connection to the pool, or close it."""
        self._response.close()

    def __enter__(self) -> HostResponse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _parsed(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise HostError(f"{_MALFORMED}: expected JSON") from None
