"""The routes of storage: what a user may do with URLs on this host, without an accelerator."""

from __future__ import annotations

import functools
import mmap
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from apyfal.exceptions import ObjectNotFound, ParameterError
from apyfal.host.server.api.context import RouteContext
from apyfal.host.server.api.routes import BINARY, DONE, OBJECT, OCTETS, Body, RouteParameter, route
from apyfal.host.server.policy.url_policy import SessionMount
from apyfal.host.server.transport.bodies import Data
from apyfal.host.server.transport.request import caller, read_object
from apyfal.host.server.transport.threads import in_thread
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.mounting.table import MountTable
from apyfal.storage.stores.file import FileHandler
from apyfal.storage.transfer import copy, download, retry_call, upload
from apyfal.storage.url import parse

__all__ = ["StorageRoutes"]

_URL = RouteParameter("url", {"type": "string", "minLength": 1, "maxLength": 8192}, "A storage URL.", required=True)
_SESSION = RouteParameter("session", {"type": "string"}, "A session of yours, whose mounts the URL may name.")
_ENTRY = Body("The object.", {"application/json": "Entry"})


class StorageRoutes:
    """Listing, reading, writing, copying and removing objects.

    Parameters
    ----------
    services
        The daemon's.
    table
        Its mounts.
    """

    def __init__(self, services: RouteContext, table: MountTable) -> None:
        self._services = services
        self._table = table

    @route(
        "GET",
        "/v1/storage/list",
        access="storage",
        summary="List what is below a URL",
        parameters=(_URL, _SESSION, RouteParameter("recursive", {"type": "boolean"}, "All objects below it.")),
        answers={200: Body("The entries.", OBJECT)},
    )
    async def list_storage(self, request: web.Request) -> web.StreamResponse:
        """List a directory or prefix."""
        url = self._admitted(request)
        text = request.query.get("recursive", "false")
        if text not in ("true", "false"):
            raise ParameterError(f"recursive {text!r}: expected true or false")
        recursive = text == "true"

        def work() -> list[dict[str, Any]]:
            with self._table.resolve(parse(url)) as target:
                found = retry_call(
                    target.handler,
                    lambda: list(target.handler.list(target.path, recursive=recursive)),
                    f"cannot list {target.location}",
                )
                return [_entry(info) for info in found]

        return web.json_response({"entries": await in_thread(work)})

    @route(
        "GET",
        "/v1/storage/stat",
        access="storage",
        summary="Look an object up",
        parameters=(_URL, _SESSION),
        answers={200: _ENTRY},
    )
    async def stat_storage(self, request: web.Request) -> web.StreamResponse:
        """Look an object up."""
        url = self._admitted(request)

        def work() -> dict[str, Any]:
            with self._table.resolve(parse(url)) as target:
                return _entry(
                    retry_call(
                        target.handler,
                        lambda: target.handler.describe(target.path),
                        f"cannot look up {target.location}",
                    )
                )

        return web.json_response(await in_thread(work))

    @route(
        "GET",
        "/v1/storage/object",
        access="storage",
        summary="Read an object",
        parameters=(_URL, _SESSION),
        answers={200: Body("Its content.", BINARY)},
    )
    async def read_storage(self, request: web.Request) -> web.StreamResponse:
        """Send an object's content: through pinned memory, or through a spool file where it is large."""
        url = self._admitted(request)
        data = await in_thread(functools.partial(self._fetch, url))
        try:
            response = web.StreamResponse(headers={"Content-Type": OCTETS})
            await self._services.bodies.send(response, request, data)
        finally:
            data.close()
        return response

    @route(
        "PUT",
        "/v1/storage/object",
        access="storage",
        summary="Write an object, whole or not at all",
        parameters=(_URL, _SESSION),
        body=Body("Its content.", BINARY),
        answers={200: _ENTRY},
    )
    async def write_storage(self, request: web.Request) -> web.StreamResponse:
        """Receive an object, then write it; nothing is visible if either fails."""
        url = self._admitted(request)
        data = await self._services.bodies.receive(request, None)
        try:
            entry = await in_thread(functools.partial(self._store, url, data))
        finally:
            data.close()
        self._services.audit.write("written", user=caller().name, url=url, nbytes=entry["size"])
        return web.json_response(entry)

    @route(
        "DELETE",
        "/v1/storage/object",
        access="storage",
        summary="Remove an object",
        parameters=(_URL, _SESSION),
        answers={204: DONE},
    )
    async def remove_storage(self, request: web.Request) -> web.StreamResponse:
        """Remove one object."""
        url = self._admitted(request)

        def work() -> None:
            with self._table.resolve(parse(url)) as target:
                target.handler.remove(target.path)

        await in_thread(work)
        self._services.audit.write("removed", user=caller().name, url=url)
        return web.Response(status=204)

    @route(
        "POST",
        "/v1/storage/copy",
        access="storage",
        summary="Copy an object, whole or not at all",
        body=Body("From where to where.", {"application/json": "CopyRequest"}),
        answers={200: _ENTRY},
    )
    async def copy_storage(self, request: web.Request) -> web.StreamResponse:
        """Copy between any two URLs; the data does not pass through the client."""
        document = await read_object(request, "src, dst, and perhaps session")
        if not document.keys() <= {"src", "dst", "session"}:
            raise ParameterError("expected src, dst, and perhaps session, and nothing else")
        mounts = self._mounts(request, document.get("session"))
        texts = [document.get("src"), document.get("dst")]
        if not all(isinstance(text, str) and 0 < len(text) <= 8192 for text in texts):
            raise ParameterError("src, dst: expected texts of 1 to 8192 characters")
        src, dst = (self._services.references.admit(str(text), mounts) for text in texts)

        def work() -> dict[str, Any]:
            with self._table.resolve(parse(src)) as source, self._table.resolve(parse(dst)) as target:
                return _entry(copy(source.handler, source.path, target.handler, target.path))

        entry = await in_thread(work)
        self._services.audit.write("copied", user=caller().name, src=src, dst=dst, nbytes=entry["size"])
        return web.json_response(entry)

    # -- inside --------------------------------------------------------------------------------------------------------
    def _admitted(self, request: web.Request) -> str:
        url = request.query.get("url")
        if not url or len(url) > 8192:
            raise ParameterError("url: expected a text of 1 to 8192 characters")
        return self._services.references.admit(url, self._mounts(request, request.query.get("session")))

    def _mounts(self, request: web.Request, session: object) -> Mapping[str, SessionMount]:
        if session is None:
            return {}
        if not isinstance(session, str):
            raise ParameterError("session: expected a text")
        return self._services.sessions.get(caller().name, session).mounts

    def _fetch(self, url: str) -> Data:
        with self._table.resolve(parse(url)) as target:
            info = retry_call(
                target.handler, lambda: target.handler.describe(target.path), f"cannot look up {target.location}"
            )
            if info.is_directory:
                raise ObjectNotFound(f"{url} is a directory")
            if info.size is None or info.size > self._services.settings.spool_above:
                return self._fetch_spooled(target.handler, target.path)
            bodies = self._services.bodies
            bodies.budget.take(info.size)
            try:
                memory = bodies.allocate(info.size)
                download(target.handler, target.path, memory.data)
            except BaseException:
                bodies.budget.give(info.size)
                raise
            return Data(array=memory, budget=bodies.budget)

    def _store(self, url: str, data: Data) -> dict[str, Any]:
        with self._table.resolve(parse(url)) as target:
            if data.array is not None:
                return _entry(upload(target.handler, target.path, data.array.data))
            if data.file is None:
                raise ParameterError("the request had no body")
            with mmap.mmap(data.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                view = memoryview(mapped)
                try:
                    return _entry(upload(target.handler, target.path, view))
                finally:
                    view.release()

    def _fetch_spooled(self, handler: Handler, path: str) -> Data:
        with tempfile.TemporaryDirectory(dir=self._services.settings.state_directory, prefix="spool-") as directory:
            spooled = Path(directory) / "object"
            copy(handler, path, FileHandler(), str(spooled))
            return Data(file=spooled.open("rb", buffering=0))


def _entry(info: ObjectInfo) -> dict[str, Any]:
    return {
        "path": info.path,
        "size": info.size,
        "mtime": info.mtime,
        "etag": info.etag,
        "is_directory": info.is_directory,
    }
