"""What the routes of one daemon share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apyfal.host.protocol.audit import AuditLog
from apyfal.host.server.api.request_fields import SessionFields
from apyfal.host.server.jobs.sessions import Session, Sessions
from apyfal.host.server.policy.url_policy import UrlPolicy
from apyfal.host.server.transport.bodies import Bodies
from apyfal.host.server.transport.request import caller
from apyfal.host.server.transport.user_threads import UserThreads
from apyfal.host.settings import HostSettings

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["RouteContext"]


@dataclass(frozen=True, slots=True)
class RouteContext:
    """The parts of a daemon that several groups of routes use.

    Attributes
    ----------
    settings
        The operator's settings.
    audit
        Log of the daemon's decisions.
    sessions
        The open sessions.
    url_policy
        Decides which URLs a client may name.
    fields
        Returns the object that checks a client's fields against the current configuration.
    bodies
        Receives request bodies and sends outputs.
    threads
        Run calls that would block the event loop.
    """

    settings: HostSettings
    audit: AuditLog
    sessions: Sessions
    url_policy: UrlPolicy
    fields: Callable[[], SessionFields]
    bodies: Bodies
    threads: UserThreads

    def session(self, request: web.Request) -> Session:
        """Return the session named in the path of a request. Raises `NotFound` unless it belongs to the caller."""
        return self.sessions.get(caller().name, request.match_info["session"])
