"""The response to an error: its HTTP status and its document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from apyfal import exceptions
from apyfal.exceptions import AcceleratorException, JobRejected
from apyfal.host.protocol.messages import error_document
from apyfal.host.server.jobs.job import Conflict, KeyReused
from apyfal.host.server.jobs.sessions import NotFound
from apyfal.host.server.policy.refusals import Limited, TooBusy, TooLarge, TooMany

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["problem", "problem_document", "status_of"]

#: HTTP status of a failed request, by the nearest class of its error; a job that fails is not a failed request. 424
#: rather than 502 for stores, because the client named them.
_STATUS: dict[type[BaseException], int] = {
    TooLarge: 413,
    TooMany: 429,
    TooBusy: 503,
    JobRejected: 503,
    NotFound: 404,
    Conflict: 409,
    KeyReused: 422,
    exceptions.ObjectNotFound: 404,
    exceptions.AccessDenied: 403,
    exceptions.ObjectExists: 409,
    exceptions.ObjectChanged: 409,
    exceptions.StoreUnavailable: 424,
    exceptions.TransferTimeout: 424,
    exceptions.ChecksumMismatch: 424,
    exceptions.HostError: 500,
    AcceleratorException: 400,
}


def status_of(error: BaseException) -> int:
    """Return the HTTP status for an error."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def problem(
    error: BaseException, status: int | None = None, described: Mapping[str, object] | None = None
) -> web.Response:
    """Return the response for an error. `described` replaces the error's own message if the client must not read it."""
    from aiohttp import web

    document = problem_document(error, described)
    response = web.json_response(document, status=status_of(error) if status is None else status)
    if isinstance(error, Limited):
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return response


def problem_document(error: BaseException, described: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the JSON body of that response."""
    document: dict[str, object] = {"error": error_document(error) if described is None else described}
    if isinstance(error, Conflict) and error.job_id:
        document["job"] = error.job_id
    return document
