"""Why the daemon refuses a request, whatever the request asks for: a limit, a size, a peer that stalls."""

from __future__ import annotations

from apyfal.exceptions import JobRejected, ParameterError

__all__ = ["Limited", "Stalled", "TooBusy", "TooLarge", "TooMany"]


class Limited(JobRejected):
    """A limit was reached; it is worth asking again.

    Attributes
    ----------
    retry_after
        Seconds after which.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooMany(Limited):
    """A user has reached a limit (HTTP 429)."""


class TooBusy(Limited):
    """The host as a whole has reached a limit (HTTP 503)."""


class TooLarge(ParameterError):
    """The body is larger than the host takes (HTTP 413)."""


class Stalled(ConnectionError):
    """The peer did not send or take anything for too long; its connection is closed."""
