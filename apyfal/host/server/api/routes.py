"""Declarations of routes: path, access rule, parameters, request body and responses, in one decorator.

The router, the authorization, the OpenAPI document and the tests all read the declaration, so that no route exists
without a rule.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["BINARY", "DONE", "OBJECT", "OCTETS", "PUBLIC", "Body", "Route", "RouteParameter", "declared", "route"]

#: access rule of routes that need no token
PUBLIC = "public"

#: content type of the bytes of arrays and files
OCTETS = "application/octet-stream"

_F = TypeVar("_F", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True)
class RouteParameter:
    """One parameter in the query or in a header. Parameters in the path are read from the path."""

    name: str
    schema: Mapping[str, Any]
    description: str
    where: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """Content of a request or response: content type to schema name or inline schema."""

    description: str
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


#: contents that several routes share
OBJECT: Mapping[str, Any] = {"application/json": {"type": "object"}}
BINARY: Mapping[str, Any] = {OCTETS: {"type": "string", "format": "binary"}}
#: response without content
DONE = Body("Done.")


@dataclass(frozen=True, slots=True)
class Route:
    """The declaration of one route.

    Attributes
    ----------
    method, path
        HTTP method and path template, as the router expects them.
    access
        The scope that a token needs, or `PUBLIC`.
    summary
        One line for the OpenAPI document.
    parameters, body, answers
        Parameters, request body, and responses by status.
    handler
        The bound method; set by `declared`.
    """

    method: str
    path: str
    access: str
    summary: str
    parameters: tuple[RouteParameter, ...] = ()
    body: Body | None = None
    answers: Mapping[int, Body] = field(default_factory=dict)
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    @property
    def operation(self) -> str:
        """The operation's id: the name of the method that handles it."""
        return getattr(self.handler, "__name__", "")

    @property
    def path_parameters(self) -> list[str]:
        """Names of the parameters in the path, in order."""
        return re.findall(r"\{(\w+)(?::[^}]*)?\}", self.path)


def route(
    method: str,
    path: str,
    *,
    access: str,
    summary: str,
    parameters: tuple[RouteParameter, ...] = (),
    body: Body | None = None,
    answers: Mapping[int, Body] | None = None,
) -> Callable[[_F], _F]:
    """Declare the decorated method as the handler of a route. `access` has no default, so that each route states it."""

    def mark(function: _F) -> _F:
        function.__route__ = Route(method, path, access, summary, parameters, body, answers or {})  # type: ignore[attr-defined]  # read by `declared`
        return function

    return mark


def declared(*holders: object) -> list[Route]:
    """List the routes that the methods of these objects declare, bound to their handlers."""
    found = []
    for holder in holders:
        for name, function in vars(type(holder)).items():
            declaration: Route | None = getattr(function, "__route__", None)
            if declaration is not None:
                found.append(
                    Route(
                        declaration.method,
                        declaration.path,
                        declaration.access,
                        declaration.summary,
                        declaration.parameters,
                        declaration.body,
                        declaration.answers,
                        getattr(holder, name),
                    )
                )
    return found
