"""Requests that travel in the body of another one, and their responses (``multipart/mixed``, RFC 2046, section 5.1).

Azure ("Blob Batch") and Google ("Sending batch requests") have the same form: each part is a whole request or response
of the type ``application/http``, and its Content-ID says which.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from apyfal.exceptions import StorageError, StoreUnavailable
from apyfal.storage.http.exchanges import Replay
from apyfal.storage.http.response import Response

__all__ = ["PartRequest", "RequestBatch", "is_plain"]

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
#: Largest response (bytes): a part has a few hundred.
_LARGEST = 4 << 20
#: Segments that a server may resolve, so that the request would be about another object.
_DOTS = frozenset((".", ".."))


class PartRequest(NamedTuple):
    """One request of a batch, without a body."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()


class RequestBatch:
    """Some requests as one body.

    Parameters
    ----------
    requests
        What to send; `target` is percent-encoded.

    Attributes
    ----------
    body, content_type
        Of the request that contains them.
    """

    def __init__(self, requests: Iterable[PartRequest]) -> None:
        boundary = f"batch_{uuid.uuid4()}"
        parts = [
            f"--{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
            f"Content-ID: {number}\r\n\r\n{_request(request)}\r\n"
            for number, request in enumerate(requests)
        ]
        self._count = len(parts)
        self.body = memoryview(f"{''.join(parts)}--{boundary}--\r\n".encode("ascii"))
        self.content_type = f"multipart/mixed; boundary={boundary}"

    def responses(self, answer: Response) -> list[Response | None]:
        """Read the response to the request that contains them.

        Parameters
        ----------
        answer
            Closed when this returns or raises.

        Returns
        -------
        list
            The response to each request, in their order; ``None`` if there is none. If the store refused the batch as a
            whole and says so in a single part of no request, that response alone.

        Raises
        ------
        StoreUnavailable
            The response is damaged, too long, or has parts that were not requested. Requests may have been done.
        """
        try:
            body = answer.read(_LARGEST)
        except StoreUnavailable:
            raise
        except StorageError as error:  # what it did is not known, so it is not a refusal
            raise StoreUnavailable(str(error)) from error
        finally:
            answer.close()
        name = "the store's response to a batch"
        found = _BOUNDARY.search(answer.headers.get("content-type", ""))
        if found is None:
            raise StoreUnavailable(f"{name} has no parts: Content-Type {answer.headers.get('content-type')!r}"[:200])
        delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
        _, *parts = (b"\r\n" + body).split(delimiter, self._count + 2)
        if not parts or not parts.pop().startswith(b"--"):
            raise StoreUnavailable(f"{name} has no end, or more than {self._count} parts")
        responses: list[Response | None] = [None] * self._count
        for part in parts:
            number, response = _response(part, name)
            if number is None and len(parts) == 1 and response.status >= 400:
                return [response]
            if number is None or number >= self._count or responses[number] is not None:
                raise StoreUnavailable(f"{name} has a part that was not requested, or one twice")
            responses[number] = response
        return responses


def is_plain(path: str) -> bool:
    """Return whether a path, ``container/key``, is an object's and means the same in every request target."""
    container, _, key = path.partition("/")
    return bool(
        container
        and key
        and not key.endswith("/")
        and "\\" not in key
        and _DOTS.isdisjoint(path.split("/"))
        and not any("\ud800" <= letter <= "\udfff" for letter in path)
    )


def _request(request: PartRequest) -> str:
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (*request.headers, ("Content-Length", "0"))]
    if any("\r" in line or "\n" in line for line in lines):
        raise StorageError("a line of a request contains a line break")
    return "\r\n".join([*lines, "", ""])


def _response(part: bytes, name: str) -> tuple[int | None, Response]:
    """Read one part: the number of its request, and the response."""
    fields, _, content = part.partition(b"\r\n\r\n")
    number = None
    for line in fields.decode("latin-1").split("\r\n"):
        field, _, value = line.partition(":")
        if field.strip().lower() == "content-id":
            digits = value.strip().strip("<>").removeprefix("response-")
            if not (digits.isascii() and digits.isdigit() and len(digits) < 6):
                raise StoreUnavailable(f"{name} has a part of the unknown id {value.strip()[:40]!r}")
            number = int(digits)
    head, _, body = content.partition(b"\r\n\r\n")
    return number, Replay(name, head.rstrip(b"\r\n") + b"\r\n\r\n", memoryview(body), None).response()
