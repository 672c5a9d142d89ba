"""What every route needs of a request: who asks, and for what."""

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
    "let_in",
    "parse_json",
    "read_json",
    "read_object",
    "subject",
]

_caller: ContextVar[User] = ContextVar("caller")


@dataclass(frozen=True, slots=True)
class User:
    """Who calls, and what they may do."""

    name: str
    grant: Grant
    token: str | None = None

    @property
    def scopes(self) -> frozenset[str]:
        """Those of the token."""
        return self.grant.scopes

    @property
    def scope_of_view(self) -> str | None:
        """Whose things this user sees: their own, or (``None``) everybody's."""
        return None if "admin" in self.scopes else self.name


@dataclass(slots=True)
class Subject:
    """What the request that this task handles is about, for its errors.

    Attributes
    ----------
    said
        What the client has written in the body, as far as it is JSON.
    mounts
        Those of the session that it names.
    operators
        The URLs in it that are in the operator's mounts.
    """

    said: str = ""
    mounts: Mapping[str, SessionMount] = field(default_factory=dict)
    operators: tuple[str, ...] = ()


_subject: ContextVar[Subject] = ContextVar("subject")


def subject() -> Subject:
    """Return what the request that this task handles is about, to be read and added to; of a request that was not let
    in nothing is known.
    """
    return _subject.get(None) or Subject()


def let_in(user: User) -> None:
    """Say who has made the request that this task handles."""
    _caller.set(user)
    _subject.set(Subject())


def caller() -> User:
    """Return who has made the request that this task handles."""
    return _caller.get()


def is_local(request: web.Request) -> bool:
    """Whether the peer is on this machine, and so may know of its sockets."""
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
    subject().said = text.decode("utf-8", "replace")
    return parse_json(bytes(text))


async def _read_rest(request: web.Request, text: bytearray) -> None:
    async for chunk in request.content.iter_any():
        text += chunk
        if len(text) > MAX_JSON:
            raise TooLarge(f"a JSON body of more than {MAX_JSON} bytes")


async def read_object(request: web.Request, what: str) -> dict[str, Any]:
    """Read a JSON body that is an object; `what` it is, for the error where it is none."""
    document = await read_json(request)
    if not isinstance(document, dict):
        raise ParameterError(f"expected an object: {what}")
    return document


def parse_json(text: bytes | str) -> Any:
    """Parse JSON; `ParameterError` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ParameterError("the JSON is malformed") from None
