"""Sessions: one accelerator that one user has open on this host, with the session's mounts and shared memory."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from apyfal.exceptions import HostError
from apyfal.host.protocol.shared_memory import Region
from apyfal.host.server.jobs.short_runs import ShortRun, ShortRuns
from apyfal.host.server.policy.refusals import TooBusy, TooMany
from apyfal.host.server.policy.url_policy import SessionMount

__all__ = ["LocalAccelerator", "NotFound", "OpenAccelerator", "Session", "Sessions"]


class NotFound(HostError):
    """This user has no such session, job or region (HTTP 404)."""


class LocalAccelerator(Protocol):
    """The part of `apyfal.Accelerator` that the daemon uses."""

    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def reports_size(self) -> bool: ...

    def start(self, src: object = None, *, info_dict: dict[str, Any] | None = None, **parameters: Any) -> Any:
        """Configure the accelerator."""

    def process(self, src: object = None, dst: object = None, **options: Any) -> Any:
        """Run one job."""

    def stop(self) -> Any:
        """Close the accelerator."""


#: (accelerator's name, options) -> an open accelerator
OpenAccelerator = Callable[..., LocalAccelerator]


@dataclass
class Session:
    """An accelerator that one user has open. Owned by the event loop; `accelerator` is called from worker threads.

    Attributes
    ----------
    options
        Options that the accelerator is opened with: see `apyfal.host.server.api.request_fields.SessionFields`.
    mounts
        Mounts of this session, by name.
    regions
        Shared memory of this session, by name.
    active
        Number of waiting and running jobs. While there are any, the session does not time out.
    options_text
        `options` as text, for fingerprints of jobs.
    brief
        Number of consecutive brief jobs up to now; negative after a job that was not brief.
    short_runs
        Prepared jobs that the event loop runs itself.
    """

    user: str
    options: Mapping[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    mounts: dict[str, SessionMount] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    active: int = 0
    used: float = field(default_factory=time.monotonic)
    closed: bool = False
    brief: int = 0
    short_runs: ShortRuns = field(default_factory=ShortRuns)
    _accelerator: LocalAccelerator | None = None
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.options_text = str(sorted(self.options.items()))

    def accelerator(self, open_accelerator: OpenAccelerator) -> LocalAccelerator:
        """Return the accelerator; open it on first use. Called from worker threads."""
        with self._opening:
            if self.closed:
                raise HostError("the session was closed")
            if self._accelerator is None:
                self._accelerator = open_accelerator(**self.options)
            return self._accelerator

    def keep_short_run(self, description: str, run: ShortRun | None) -> None:
        """Let the event loop run jobs of this description. Takes ownership of `run`. Called from worker threads."""
        with self._opening:
            if not self.closed:
                self.short_runs.keep(description, run)
            elif run is not None:
                run.close()

    def stop(self) -> None:
        """Stop the accelerator for good, and release shared memory. Called from a worker thread, after the session was
        removed.
        """
        with self._opening:
            self.closed = True
            accelerator, self._accelerator = self._accelerator, None
            self.short_runs.close()
        regions, self.regions = self.regions, {}
        try:
            if accelerator is not None:
                accelerator.stop()
        finally:
            for region in regions.values():
                region.close()

    def document(self) -> dict[str, Any]:
        """Return the session as the JSON object that clients see."""
        return {
            "id": self.id,
            "accelerator": self.options.get("accelerator"),
            "mounts": sorted(self.mounts),
            "active": self.active,
        }


class Sessions:
    """All open sessions. Used by the event loop only.

    Parameters
    ----------
    limit, limit_of_user
        Largest number of open sessions, in total and of one user.
    """

    def __init__(self, limit: int, limit_of_user: int) -> None:
        self._limit = limit
        self._limit_of_user = limit_of_user
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, user: str, options: Mapping[str, Any]) -> Session:
        """Open a session. Raises `TooBusy` or `TooMany` at the limits. `SessionFields` has checked `options`."""
        if len(self._open) >= self._limit:
            raise TooBusy(f"{self._limit} sessions are open, as many as the host takes")
        if sum(session.user == user for session in self._open.values()) >= self._limit_of_user:
            raise TooMany(f"{self._limit_of_user} sessions of yours are open, as many as a user may have")
        session = Session(user, dict(options))
        self._open[session.id] = session
        return session

    def get(self, user: str, session_id: str) -> Session:
        """Return a session of this user. Raises `NotFound` if there is none, or if it is another user's."""
        session = self._open.get(session_id)
        if session is None or session.user != user:
            raise NotFound("no such session")
        session.used = time.monotonic()
        return session

    def of(self, user: str | None) -> list[Session]:
        """List the sessions of `user`; ``None``: of all users."""
        return [session for session in self._open.values() if user is None or session.user == user]

    def remove(self, session: Session) -> bool:
        """Remove a session, so that it can no longer be found; return whether it was still there."""
        return self._open.pop(session.id, None) is not None

    def idle(self, timeout: float) -> list[Session]:
        """List the sessions that have no jobs and have not been used for `timeout` seconds."""
        before = time.monotonic() - timeout
        return [session for session in self._open.values() if session.used < before and not session.active]
