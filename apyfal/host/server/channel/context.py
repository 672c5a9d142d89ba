"""What all channels of a daemon share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from apyfal.host.protocol.frame_reader import SCRATCH
from apyfal.host.server.channel.throttle import JobThrottle
from apyfal.host.server.jobs.admission import Admission
from apyfal.host.server.jobs.manager import JobManager
from apyfal.host.server.policy.url_policy import SessionMount
from apyfal.host.server.transport.bodies import Bodies
from apyfal.host.server.transport.request import User

__all__ = ["ACCESS", "ChannelContext", "Gate"]

#: the scope that channels and their jobs need
ACCESS = "process"


@dataclass(frozen=True, slots=True)
class Gate:
    """The checks that `AuthMiddleware` makes for each request, for jobs on a channel.

    Attributes
    ----------
    readmit
        Checks a job on a connection that this user opened with this ``Authorization`` field.
    is_valid
        Returns whether that field is still valid.
    refusal
        Logs a refusal, and returns its status, document and the seconds to wait.
    observe
        Counts a request for the metrics: operation, status, seconds.
    """

    readmit: Callable[[str | None, User, str], User]
    is_valid: Callable[[str | None], bool]
    refusal: Callable[..., tuple[int, dict[str, object], float]]
    observe: Callable[[str, int, float], None]


class ChannelContext:
    """The parts of a daemon that channels use. Used on the event loop.

    Parameters
    ----------
    admission, bodies
        Accept jobs and receive bodies, as for requests.

    Attributes
    ----------
    gate
        Must be set before the first channel is opened.
    scratch
        Memory into which all channels receive everything but bodies.
    throttle
        Bounds the jobs of one user in one iteration of the event loop.
    """

    def __init__(self, admission: Admission, bodies: Bodies) -> None:
        self.admission = admission
        self.bodies = bodies
        self.scratch = bytearray(SCRATCH)
        self.throttle = JobThrottle()
        self.gate: Gate | None = None

    @property
    def manager(self) -> JobManager:
        """The job manager."""
        return self.admission.manager

    def _gate(self) -> Gate:
        if self.gate is None:
            raise RuntimeError("no gate was set")
        return self.gate

    def readmit(self, authorization: str | None, user: User) -> User:
        """Check a job on a channel like any other request."""
        return self._gate().readmit(authorization, user, ACCESS)

    def refusal(
        self,
        error: BaseException,
        user: User,
        operation: str,
        peer: str | None,
        client_text: str = "",
        mounts: Mapping[str, SessionMount] | None = None,
    ) -> tuple[int, dict[str, object], float]:
        """Log a refusal; return its status, document and the seconds to wait."""
        return self._gate().refusal(error, user, operation, peer, client_text, mounts)

    def observe(self, operation: str, status: int, seconds: float) -> None:
        """Count a job for the metrics."""
        self._gate().observe(operation, status, seconds)

    def is_valid(self, authorization: str | None) -> bool:
        """Return whether the token of an open channel is still valid."""
        return self._gate().is_valid(authorization)
