"""Routes of sessions: open and close accelerators, mounts and shared memory."""

from __future__ import annotations

import functools
from collections.abc import Callable

from aiohttp import web

from apyfal.exceptions import ParameterError
from apyfal.host.protocol.shared_memory import Region, machine_id
from apyfal.host.server.api.context import RouteContext
from apyfal.host.server.api.routes import DONE, OBJECT, Body, route
from apyfal.host.server.jobs.job import Conflict
from apyfal.host.server.jobs.sessions import NotFound, Session
from apyfal.host.server.policy.limits import MOUNTS_OF_SESSION, REGIONS_OF_USER
from apyfal.host.server.policy.refusals import TooMany
from apyfal.host.server.transport.request import caller, is_local, read_object
from apyfal.host.server.transport.threads import in_thread

__all__ = ["SessionRoutes"]


class SessionRoutes:
    """Routes to open and close accelerators, their mounts and shared memory.

    Parameters
    ----------
    context
        The daemon's route context.
    memory_socket
        Path of the socket that hands out shared memory; ``None``: no memory is shared.
    close
        Ends a session: stops its accelerator and frees what it holds.
    """

    def __init__(self, context: RouteContext, memory_socket: str | None, close: Callable[[Session], None]) -> None:
        self._context = context
        self._memory_socket = memory_socket
        self._close = close

    @route(
        "POST",
        "/v1/sessions",
        access="process",
        summary="Open an accelerator",
        body=Body("The accelerator to open.", {"application/json": "SessionRequest"}),
        answers={201: Body("The session.", {"application/json": "Session"})},
    )
    async def open_session(self, request: web.Request) -> web.StreamResponse:
        """Open a session. The accelerator itself is opened by its first job."""
        options = await read_object(request, "the accelerator's name, and what a client may say of it")
        user = caller()
        session = self._context.sessions.open(user.name, self._context.fields().checked(options, user.grant))
        self._context.audit.write(
            "session opened", user=user.name, session=session.id, accelerator=options["accelerator"]
        )
        document = session.document()
        if self._memory_socket is not None and is_local(request):
            document["memory"] = {"socket": self._memory_socket, "machine": machine_id()}
        return web.json_response(document, status=201)

    @route(
        "GET",
        "/v1/sessions",
        access="process",
        summary="List your sessions",
        answers={200: Body("The sessions.", OBJECT)},
    )
    async def list_sessions(self, request: web.Request) -> web.StreamResponse:
        """List the caller's sessions; for an administrator, those of all users."""
        found = self._context.sessions.of(caller().scope_of_view)
        return web.json_response({"sessions": [session.document() for session in found]})

    @route(
        "DELETE",
        "/v1/sessions/{session}",
        access="process",
        summary="Close a session, its accelerator, mounts and shared memory",
        answers={204: DONE},
    )
    async def close_session(self, request: web.Request) -> web.StreamResponse:
        """Close a session. Its running jobs end first."""
        session = self._context.session(request)
        self._close(session)
        return web.Response(status=204)

    @route(
        "PUT",
        "/v1/sessions/{session}/mounts/{name}",
        access="process",
        summary="Add a storage mount, for this session only",
        body=Body("Provider, account and location.", {"application/json": "MountRequest"}),
        answers={204: DONE},
    )
    async def add_mount(self, request: web.Request) -> web.StreamResponse:
        """Mount a store with the client's own account."""
        self._context.session(request)
        parameters = await read_object(request, "the parameters of a mount")
        name = request.match_info["name"]
        self._require_place(request, name)
        make = functools.partial(self._context.url_policy.mount, name, parameters)
        mount = await self._context.threads.run(request, caller().name, make)
        try:  # meanwhile the session may have been closed, or have got its last mount
            session = self._require_place(request, name)
        except BaseException:
            self._context.url_policy.unmount(mount)
            raise
        old = session.mounts.pop(name, None)
        session.mounts[name] = mount
        if old is not None:
            self._context.url_policy.unmount(old)
        self._context.audit.write(
            "mounted", user=session.user, session=session.id, name=name, provider=parameters["provider"]
        )
        return web.Response(status=204)

    def _require_place(self, request: web.Request, name: str) -> Session:
        """Return the session of a request, if it may have a mount of this name."""
        session = self._context.session(request)
        if name not in session.mounts and len(session.mounts) >= MOUNTS_OF_SESSION:
            raise TooMany(f"{MOUNTS_OF_SESSION} mounts, as many as a session may have")
        return session

    @route(
        "DELETE",
        "/v1/sessions/{session}/mounts/{name}",
        access="process",
        summary="Remove a mount of this session",
        answers={204: DONE},
    )
    async def remove_mount(self, request: web.Request) -> web.StreamResponse:
        """Remove the mount."""
        mount = self._context.session(request).mounts.pop(request.match_info["name"], None)
        if mount is None:
            raise NotFound("no such mount in this session")
        self._context.url_policy.unmount(mount)
        return web.Response(status=204)

    @route(
        "POST",
        "/v1/sessions/{session}/memory",
        access="process",
        summary="Allocate memory that a client on this machine can map",
        body=Body("Its size.", {"application/json": "MemoryRequest"}),
        answers={201: Body("Its name, and the ticket for its descriptor.", OBJECT)},
    )
    async def share_memory(self, request: web.Request) -> web.StreamResponse:
        """Allocate a region of shared memory."""
        self._context.session(request)
        document = await read_object(request, "nbytes")
        nbytes = document.get("nbytes") if len(document) == 1 else None
        if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 1:
            raise ParameterError("nbytes: expected a whole number, 1 or more")
        if self._memory_socket is None:
            raise Conflict("this host shares no memory")
        session = self._context.session(request)  # it may have been closed while the body came
        own = [region.nbytes for other in self._context.sessions.of(session.user) for region in other.regions.values()]
        if len(own) >= REGIONS_OF_USER:
            raise TooMany(f"{len(own)} pieces of memory are shared with you, as many as a user may have")
        memory = self._context.bodies.memory
        # half of the user's share is for data that is not in shared memory
        if sum(own) + nbytes > memory.limit // 2:
            raise TooMany(f"{sum(own)} bytes of memory are shared with you, and half of the host's is for others")
        memory.reserve(session.user, nbytes)
        try:
            region = Region(nbytes)
        except BaseException:
            memory.release(session.user, nbytes)
            raise
        session.regions[region.name] = region
        return web.json_response({"name": region.name, "ticket": region.ticket, "nbytes": nbytes}, status=201)

    @route(
        "DELETE",
        "/v1/sessions/{session}/memory/{region}",
        access="process",
        summary="Release shared memory",
        answers={204: DONE},
    )
    async def release_memory(self, request: web.Request) -> web.StreamResponse:
        """Free the daemon's side of a region."""
        session = self._context.session(request)
        region = session.regions.pop(request.match_info["region"], None)
        if region is None:
            raise NotFound("no such shared memory in this session")
        self._context.bodies.memory.release(session.user, region.nbytes)
        await in_thread(region.close)  # unmapping a large region takes long
        return web.Response(status=204)
