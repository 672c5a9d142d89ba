"""Routes of jobs: submit, watch and cancel them, and fetch their outputs."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from apyfal.exceptions import ParameterError
from apyfal.host.protocol.messages import JOB_HEADER, KEY_HEADER, JobSpec
from apyfal.host.server.api.context import RouteContext
from apyfal.host.server.api.routes import BINARY, DONE, OBJECT, OCTETS, Body, RouteParameter, route
from apyfal.host.server.jobs.admission import KEY, Admission, checked_key, document_of, parse_spec, text_of
from apyfal.host.server.jobs.job import Conflict, Job
from apyfal.host.server.jobs.manager import JobManager
from apyfal.host.server.policy.limits import JOBS_LISTED
from apyfal.host.server.records.journal import JournalEntry
from apyfal.host.server.transport.bodies import Data
from apyfal.host.server.transport.request import MAX_JSON, caller, read_json

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["JobRoutes"]

_MAX_WAIT = 60.0
_PROGRESS_INTERVAL = 0.2

_WAIT = RouteParameter(
    "wait", {"type": "number", "minimum": 0, "maximum": _MAX_WAIT}, "Seconds to wait for the job to end."
)
_JOB = Body("The job.", {"application/json": "Job"})
_JOB_OR_DATA = Body(
    "The job; with its output as the body if the request asks for it (Accept: application/octet-stream).",
    {"application/json": "Job", **BINARY},
    {JOB_HEADER: "The job as JSON, if the body is its output."},
)


def _wait_of(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MAX_WAIT:
        raise ParameterError(f"wait {text!r}: expected 0 to {_MAX_WAIT:g} seconds")
    return seconds


class JobRoutes:
    """Routes to submit, watch and cancel jobs, and to fetch their outputs.

    Parameters
    ----------
    context, manager, admission
        The daemon's route context, its job manager, and the admission in front of the manager.
    """

    def __init__(self, context: RouteContext, manager: JobManager, admission: Admission) -> None:
        self._context = context
        self._manager = manager
        self._admission = admission

    @route(
        "POST",
        "/v1/sessions/{session}/jobs",
        access="process",
        summary="Run one job: `start` or `process`",
        parameters=(
            _WAIT,
            RouteParameter(
                KEY_HEADER,
                {"type": "string", "pattern": f"^{KEY.pattern}$"},
                "Identifies this request, so that it runs only once even if it is sent again.",
                "header",
            ),
            RouteParameter(JOB_HEADER, {"type": "string"}, "The job as JSON, if the body is its data.", "header"),
        ),
        body=Body(
            "The job, or its data with the job in a header.",
            {"application/json": "JobRequest", **BINARY},
        ),
        answers={200: _JOB_OR_DATA, 202: _JOB},
    )
    async def submit_job(self, request: web.Request) -> web.StreamResponse:
        """Accept a job, once for each key. Answer when it has ended or the wait is over."""
        wait = _wait_of(request)
        user = caller()
        key = checked_key(request.headers.get(KEY_HEADER) or secrets.token_hex(16))
        session = self._admission.session(user, request.match_info["session"])
        spec, data = await self._read(request)
        return await self._answer(request, self._admission.submit(user, session, spec, key, data), wait)

    @route(
        "GET",
        "/v1/jobs",
        access="process",
        summary="List your jobs",
        parameters=(
            RouteParameter("key", {"type": "string", "maxLength": 128}, "Only the job with this idempotency key."),
        ),
        answers={200: Body("The jobs.", OBJECT)},
    )
    async def list_jobs(self, request: web.Request) -> web.StreamResponse:
        """List the caller's newest jobs; for an administrator, those of all users."""
        from aiohttp import web

        user = caller()
        self._manager.commit()
        key = request.query.get("key")
        if key is not None:
            known = self._manager.find(user.name, key)
            return web.json_response({"jobs": [] if known is None else [document_of(known)]})
        newest = self._manager.of(user.scope_of_view)[-JOBS_LISTED:]
        return _json_text(f'{{"jobs": [{", ".join(job.text() for job in newest)}]}}')

    @route(
        "GET",
        "/v1/jobs/{job}",
        access="process",
        summary="Get a job",
        parameters=(_WAIT,),
        answers={200: _JOB_OR_DATA, 202: _JOB},
    )
    async def get_job(self, request: web.Request) -> web.StreamResponse:
        """Return the job when it has ended or the wait is over."""
        wait = _wait_of(request)
        return await self._answer(request, self._find(request), wait)

    @route("DELETE", "/v1/jobs/{job}", access="process", summary="Cancel a job", answers={200: _JOB})
    async def cancel_job(self, request: web.Request) -> web.StreamResponse:
        """Cancel a job that is waiting or running."""
        from aiohttp import web

        job = self._find(request)
        if isinstance(job, JournalEntry):
            raise Conflict(f"the job is {job.state} already")
        self._manager.cancel(job)
        self._context.audit.write("job cancelled", user=caller().name, job=job.id)
        return web.json_response(job.document())

    @route(
        "DELETE",
        "/v1/jobs/{job}/output",
        access="process",
        summary="Free an output after it was received",
        answers={204: DONE},
    )
    async def release_output(self, request: web.Request) -> web.StreamResponse:
        """Free the memory of an output."""
        from aiohttp import web

        job = self._find(request)
        if isinstance(job, Job) and not job.ended:
            raise Conflict("the job has not ended", job.id)
        self._manager.release_output(job)
        return web.Response(status=204)

    @route(
        "GET",
        "/v1/jobs/{job}/events",
        access="process",
        summary="Follow a job's progress",
        answers={200: Body("Server-sent events: progress, then end.", {"text/event-stream": {"type": "string"}})},
    )
    async def follow_job(self, request: web.Request) -> web.StreamResponse:
        """Send an event whenever the job has progressed, and a last one with the job when it has ended."""
        from aiohttp import web

        job = self._find(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        seen: object = None
        while isinstance(job, Job) and not job.ended:
            if job.progress != seen:
                seen = job.progress
                done, total = job.progress or (0, None)
                await response.write(_event("progress", {"done": done, "total": total}))
            await job.wait(_PROGRESS_INTERVAL)
        await response.write(_event("end", document_of(job)))
        await response.write_eof()
        return response

    # -- internals -----------------------------------------------------------------------------------------------------
    async def _read(self, request: web.Request) -> tuple[JobSpec, Data | None]:
        """Return a job, and its data if that is the body."""
        if JOB_HEADER not in request.headers:
            spec = JobSpec.parse(await read_json(request))
            if spec.src is not None and spec.src.body:
                raise ParameterError(f"src: a job whose body is its data comes in the header {JOB_HEADER}")
            return spec, None
        spec = parse_spec(request.headers[JOB_HEADER])
        if spec.src is None or not spec.src.body:
            raise ParameterError(f"a job in the header {JOB_HEADER} has its data in the body: src: expected body")
        keyed = KEY_HEADER in request.headers  # otherwise no other request can have the same key
        data = await self._context.bodies.receive(request, spec.src.array, digest=keyed)
        return spec, data

    def _find(self, request: web.Request) -> Job | JournalEntry:
        return self._manager.get(caller().scope_of_view, request.match_info["job"])

    async def _answer(self, request: web.Request, job: Job | JournalEntry, wait: float) -> web.StreamResponse:
        from aiohttp import web

        if isinstance(job, Job) and not await job.wait(wait):
            self._manager.commit()
            if not job.ended:
                return _json_text(job.text(), 202)
        text = text_of(job)
        with self._manager.output(job) as output:
            if output is None or request.headers.get("Accept") != OCTETS:
                return _json_text(text)
            headers = {JOB_HEADER: text, "Content-Type": OCTETS}
            if output.nbytes <= MAX_JSON:
                return web.Response(body=output.tobytes(), headers=headers)
            response = web.StreamResponse(headers=headers)
            await self._context.bodies.send(response, request, output)
            return response


def _json_text(text: str, status: int = 200) -> web.Response:
    from aiohttp import web

    return web.Response(body=text.encode(), status=status, content_type="application/json")


def _event(name: str, document: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()
