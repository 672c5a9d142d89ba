"""Routes of storage: list, read, write, copy and remove objects, without an accelerator."""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from apyfal.exceptions import ObjectNotFound, ParameterError
from apyfal.host.protocol.messages import ENTRY_HEADER
from apyfal.host.server.api.context import RouteContext
from apyfal.host.server.api.routes import BINARY, DONE, OBJECT, OCTETS, Body, RouteParameter, route
from apyfal.host.server.policy.limits import COPY_BUFFERS, MAX_LISTED
from apyfal.host.server.policy.refusals import TooLarge
from apyfal.host.server.policy.url_policy import SessionMount
from apyfal.host.server.records.usage_ledger import UsageLedger
from apyfal.host.server.transport.bodies import Data
from apyfal.host.server.transport.request import caller, read_object, subject
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.mounting.table import MountTable
from apyfal.storage.transfer import TransferOptions, copy, current_cancel, download, retry_call, stream, upload
from apyfal.storage.url import parse

__all__ = ["StorageRoutes"]

_T = TypeVar("_T")
_PIECE = 4 << 20
#: bytes of a header that any proxy passes on
_LONGEST_HEADER = 4 << 10

_URL = RouteParameter("url", {"type": "string", "minLength": 1, "maxLength": 8192}, "A storage URL.", required=True)
_SESSION = RouteParameter("session", {"type": "string"}, "A session of yours, whose mounts the URL may name.")
_NEW = RouteParameter("If-None-Match", {"type": "string", "enum": ["*"]}, "The object must not exist.", "header")
_ENTRY = Body("The object.", {"application/json": "Entry"})


class StorageRoutes:
    """Routes to list, read, write, copy and remove objects.

    Parameters
    ----------
    context
        The daemon's route context.
    table
        The daemon's mounts.
    ledger
        Records which files users keep below ``host://``.
    """

    def __init__(self, context: RouteContext, table: MountTable, ledger: UsageLedger) -> None:
        self._context = context
        self._table = table
        self._ledger = ledger

    @route(
        "GET",
        "/v1/storage/list",
        access="storage:read",
        summary="List a directory or prefix",
        parameters=(_URL, _SESSION, RouteParameter("recursive", {"type": "boolean"}, "Include all objects below it.")),
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
                return retry_call(
                    target.handler,
                    lambda: _entries(target.handler.list(target.path, recursive=recursive)),
                    f"cannot list {target.location}",
                )

        return web.json_response({"entries": await self._in_thread(request, work)})

    @route(
        "GET",
        "/v1/storage/stat",
        access="storage:read",
        summary="Get an object's size and time",
        parameters=(_URL, _SESSION),
        answers={200: _ENTRY},
    )
    async def stat_storage(self, request: web.Request) -> web.StreamResponse:
        """Return an object's size, modification time and ETag."""
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

        return web.json_response(await self._in_thread(request, work))

    @route(
        "GET",
        "/v1/storage/object",
        access="storage:read",
        summary="Read an object",
        parameters=(_URL, _SESSION),
        answers={200: Body("Its content.", BINARY, {ENTRY_HEADER: "The object as JSON, if that is short."})},
    )
    async def read_storage(self, request: web.Request) -> web.StreamResponse:
        """Send an object's content: through pinned memory, or through a spool file if it is large."""
        url = self._admitted(request)
        data, entry = await self._in_thread(request, functools.partial(self._fetch, url, caller().name))
        headers = {"Content-Type": OCTETS}
        if len(text := json.dumps(entry)) <= _LONGEST_HEADER:
            headers[ENTRY_HEADER] = text
        try:
            response = web.StreamResponse(headers=headers)
            await self._context.bodies.send(response, request, data)
        finally:
            data.close()
        return response

    @route(
        "PUT",
        "/v1/storage/object",
        access="storage:write",
        summary="Write an object; if it fails, nothing is written",
        parameters=(_URL, _SESSION, _NEW),
        body=Body("Its content.", BINARY),
        answers={200: _ENTRY},
    )
    async def write_storage(self, request: web.Request) -> web.StreamResponse:
        """Receive an object, then write it. If either fails, nothing becomes visible."""
        url = self._admitted(request, write=True)
        condition = request.headers.get("If-None-Match")
        if condition not in (None, "*"):
            raise ParameterError(f"If-None-Match {condition!r}: expected *, which means that the object must be new")
        await self._require_room(request)
        data = await self._context.bodies.receive(request, None)
        try:
            entry = await self._in_thread(request, functools.partial(self._store, url, data, condition == "*"))
        finally:
            data.close()
        self._context.audit.write("written", user=caller().name, url=_said(request), nbytes=entry["size"])
        return web.json_response(entry)

    @route(
        "DELETE",
        "/v1/storage/object",
        access="storage:write",
        summary="Remove an object",
        parameters=(_URL, _SESSION),
        answers={204: DONE},
    )
    async def remove_storage(self, request: web.Request) -> web.StreamResponse:
        """Remove one object."""
        url = self._admitted(request, write=True)

        def work() -> None:
            with self._table.resolve(parse(url)) as target:
                target.require_object("remove")
                target.handler.remove(target.path)

        await self._in_thread(request, work)
        self._context.audit.write("removed", user=caller().name, url=_said(request))
        return web.Response(status=204)

    @route(
        "POST",
        "/v1/storage/copy",
        access="storage:write",
        summary="Copy an object; if it fails, nothing is written",
        body=Body("Source and destination.", {"application/json": "CopyRequest"}),
        answers={200: _ENTRY},
    )
    async def copy_storage(self, request: web.Request) -> web.StreamResponse:
        """Copy between any two URLs. The data does not pass through the client."""
        document = await read_object(request, "src, dst, and perhaps session")
        if not document.keys() <= {"src", "dst", "session"}:
            raise ParameterError("expected src, dst, and perhaps session, and nothing else")
        mounts = self._mounts(request, document.get("session"))
        texts = [document.get("src"), document.get("dst")]
        if not all(isinstance(text, str) and 0 < len(text) <= 8192 for text in texts):
            raise ParameterError("src, dst: expected texts of 1 to 8192 characters")
        src, dst = (
            self._admit(str(text), mounts, write=write) for text, write in zip(texts, (False, True), strict=True)
        )

        bodies, user = self._context.bodies, caller().name

        def work() -> dict[str, Any]:
            buffers = min(COPY_BUFFERS, bodies.memory.limit_of_user // 4)
            with (
                self._table.resolve(parse(src)) as source,
                self._table.resolve(parse(dst)) as target,
                contextlib.closing(bodies.memory.share(user, buffers)),
            ):
                source.require_object("copy")
                target.require_object("copy")
                return _entry(
                    copy(
                        source.handler,
                        source.path,
                        target.handler,
                        target.path,
                        progress=self._bounded,
                        options=TransferOptions(memory=buffers),
                    )
                )

        entry = await self._in_thread(request, work)
        self._context.audit.write("copied", user=user, src=texts[0], dst=texts[1], nbytes=entry["size"])
        return web.json_response(entry)

    # -- internals -----------------------------------------------------------------------------------------------------
    def _admitted(self, request: web.Request, *, write: bool = False) -> str:
        url = request.query.get("url")
        if not url or len(url) > 8192:
            raise ParameterError("url: expected a text of 1 to 8192 characters")
        mounts = self._mounts(request, request.query.get("session"))
        return self._admit(url, mounts, write=write)

    def _admit(self, url: str, mounts: Mapping[str, SessionMount], *, write: bool) -> str:
        url_policy = self._context.url_policy
        about = subject()
        about.mounts = mounts
        if url_policy.names_operator_mount(url, mounts):
            about.operators = (*about.operators, url)
        return url_policy.admit(url, mounts, caller().grant, write=write, user=caller().name)

    async def _require_room(self, request: web.Request) -> None:
        """Refuse a body before it is received if it would exceed the user's quota below ``host://``."""
        user, nbytes = caller().name, request.content_length or 0
        if request.query.get("url", "").startswith("host://") and not self._ledger.fits(user, nbytes):
            await self._in_thread(request, functools.partial(self._ledger.require, user, nbytes))

    def _mounts(self, request: web.Request, session: object) -> Mapping[str, SessionMount]:
        if session is None:
            return {}
        if not isinstance(session, str):
            raise ParameterError("session: expected a text")
        return self._context.sessions.get(caller().name, session).mounts

    async def _in_thread(self, request: web.Request, work: Callable[[], _T]) -> _T:
        return await self._context.threads.run(request, caller().name, work)

    def _bounded(self, done: int, total: int | None) -> None:
        """Raise `TooLarge` if an object exceeds what this host accepts: before the copy, or as soon as that shows."""
        if max(done, total or 0) > self._context.settings.max_body:
            raise TooLarge(f"an object of more than {self._context.settings.max_body} bytes: this host copies none")

    def _fetch(self, url: str, user: str) -> tuple[Data, dict[str, Any]]:
        """Read an object; return its content, and the description of the version that was read."""
        with self._table.resolve(parse(url)) as target:
            info = retry_call(
                target.handler, lambda: target.handler.describe(target.path), f"cannot look up {target.location}"
            )
            if info.is_directory:
                raise ObjectNotFound(f"{url} is a directory")
            if info.size is None or info.encoding is not None or info.size > self._context.bodies.spool_above:
                return self._fetch_spooled(target.handler, target.path, info, user), _entry(info)
            bodies = self._context.bodies
            share = bodies.memory.share(user, info.size)
            try:
                memory = bodies.allocate(info.size)
                download(target.handler, target.path, memory.data, info=info)
            except BaseException:
                share.close()
                raise
            return Data(array=memory, share=share), _entry(info)

    def _store(self, url: str, data: Data, exclusive: bool) -> dict[str, Any]:
        with self._table.resolve(parse(url)) as target:
            target.require_object("write")
            if data.array is not None:
                return _entry(upload(target.handler, target.path, data.array.data, exclusive=exclusive))
            if data.file is None:
                raise ParameterError("the request had no body")
            with mmap.mmap(data.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                view = memoryview(mapped)
                try:
                    return _entry(upload(target.handler, target.path, view, exclusive=exclusive))
                finally:
                    view.release()

    def _fetch_spooled(self, handler: Handler, path: str, info: ObjectInfo, user: str) -> Data:
        self._bounded(info.size or 0, None)
        file = self._context.bodies.spool(user, info.size or 0)
        try:
            with stream(handler, path, info=info) as reading:
                buffer = memoryview(bytearray(_PIECE))
                while count := reading.readinto(buffer):
                    file.write(buffer[:count])
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return Data(file=file)


def _entries(found: Iterable[ObjectInfo]) -> list[dict[str, Any]]:
    """Describe the entries found. Stops if there are too many or the client has left."""
    cancel = current_cancel()
    entries: list[dict[str, Any]] = []
    for info in found:
        if cancel is not None:
            cancel.check()
        if len(entries) >= MAX_LISTED:
            raise TooLarge(f"more than {MAX_LISTED} entries: list what is below one of them")
        entries.append(_entry(info))
    return entries


def _said(request: web.Request) -> str:
    """Return the URL as the client named it, for the audit log, where this process's names of mounts mean nothing."""
    return request.query.get("url", "")


def _entry(info: ObjectInfo) -> dict[str, Any]:
    return {
        "path": info.path,
        "size": info.size,
        "mtime": info.mtime,
        "etag": info.etag,
        "is_directory": info.is_directory,
    }
