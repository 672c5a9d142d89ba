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
from apyfal.host.settings import Settings

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["RouteContext"]


@dataclass(frozen=True, slots=True)
class RouteContext:
    """The parts of a daemon that more than one group of routes needs.

    Attributes
    ----------
    settings
        The operator's.
    audit
        Where decisions are written.
    sessions
        The open ones.
    references
        Decides which URLs may be named.
    fields
        Returns what checks what a client says of an accelerator, by the configuration as it is now.
    bodies
        Receives and sends data.
    threads
        Do what takes long.
    """

    settings: Settings
    audit: AuditLog
    sessions: Sessions
    references: UrlPolicy
    fields: Callable[[], SessionFields]
    bodies: Bodies
    threads: UserThreads

    def session(self, request: web.Request) -> Session:
        """Return the session that the path of a request names, if it is the caller's."""
        return self.sessions.get(caller().name, request.match_info["session"])
