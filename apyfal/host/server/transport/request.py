"""The parts of a request that every route uses: the caller, and a JSON body."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apyfal.exceptions import ParameterError
from apyfal.host.server.policy.limits import JSON_TIMEOUT, MAX_JSON
from apyfal.host.server.policy.refusals import Stalled, TooLarge
from apyfal.host.server.policy.tokens import Grant
from apyfal.host.server.policy.url_policy import SessionMount
from apyfal.host.server.transport.zero_copy_body import send_continue

if TYPE_CHECKING:
    from aiohttp import web

__all__ = [
    "MAX_JSON",
    "Subject",
    "User",
    "caller",
    "is_local",
    "parse_json",
    "read_json",
    "read_object",
    "set_caller",
    "subject",
]

_caller: ContextVar[User] = ContextVar("caller")


@dataclass(frozen=True, slots=True)
class User:
    """The caller of a request, with the permissions of its token."""

    name: str
    grant: Grant
    token: str | None = None

    @property
    def scopes(self) -> frozenset[str]:
        """Return the token's scopes."""
        return self.grant.scopes

    @property
    def scope_of_view(self) -> str | None:
        """Return the user whose jobs and sessions the caller may see; ``None``: those of all users."""
        return None if "admin" in self.scopes else self.name


@dataclass(slots=True)
class Subject:
    """Context of the request that the current task handles, for its error messages.

    Attributes
    ----------
    client_text
        The client's JSON body as text.
    mounts
        Mounts of the session that the request names.
    operators
        URLs in the request that belong to the operator's mounts.
    """

    client_text: str = ""
    mounts: Mapping[str, SessionMount] = field(default_factory=dict)
    operators: tuple[str, ...] = ()


_subject: ContextVar[Subject] = ContextVar("subject")


def subject() -> Subject:
    """Return the context of the request that the current task handles; the caller may change it. It is empty for a
    request that was not admitted.
    """
    return _subject.get(None) or Subject()


def set_caller(user: User) -> None:
    """Record the caller of the request that the current task handles."""
    _caller.set(user)
    _subject.set(Subject())


def caller() -> User:
    """Return the caller of the request that the current task handles."""
    return _caller.get()


def is_local(request: web.Request) -> bool:
    """Return whether the peer is on this machine, so that it can use its sockets."""
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    return not isinstance(peer, tuple) or ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback


async def read_json(request: web.Request) -> Any:
    """Read a JSON body of at most 1 MiB."""
    if request.content_type != "application/json":
        raise ParameterError(f"content type {request.content_type!r}: expected application/json")
    if (request.content_length or 0) > MAX_JSON:
        raise TooLarge(f"a JSON body of more than {MAX_JSON} bytes")
    send_continue(request)
    text = bytearray(request.content.read_nowait())
    if not request.content.is_eof():
        try:
            await asyncio.wait_for(_read_rest(request, text), JSON_TIMEOUT)
        except asyncio.TimeoutError:
            raise Stalled("the request stalled") from None
    subject().client_text = text.decode("utf-8", "replace")
    return parse_json(bytes(text))


async def _read_rest(request: web.Request, text: bytearray) -> None:
    async for chunk in request.content.iter_any():
        text += chunk
        if len(text) > MAX_JSON:
            raise TooLarge(f"a JSON body of more than {MAX_JSON} bytes")


async def read_object(request: web.Request, what: str) -> dict[str, Any]:
    """Read a JSON body that is an object. `what` describes it in the error message."""
    document = await read_json(request)
    if not isinstance(document, dict):
        raise ParameterError(f"expected an object: {what}")
    return document


def parse_json(text: bytes | str) -> Any:
    """Parse JSON. Raises `ParameterError` if it is malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ParameterError("the JSON is malformed") from None
