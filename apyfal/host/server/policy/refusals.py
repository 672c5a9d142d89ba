"""Reasons to refuse a request that do not depend on its content: a limit, a size, a peer that stalls."""

from __future__ import annotations

from apyfal.exceptions import JobRejected, ParameterError

__all__ = ["Limited", "Stalled", "TooBusy", "TooLarge", "TooMany"]


class Limited(JobRejected):
    """A limit was reached. The request can succeed later.

    Attributes
    ----------
    retry_after
        Seconds after which to try again.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooMany(Limited):
    """A user has reached a limit (HTTP 429)."""


class TooBusy(Limited):
    """The host as a whole has reached a limit (HTTP 503)."""


class TooLarge(ParameterError):
    """The body is larger than the host accepts (HTTP 413)."""


class Stalled(ConnectionError):
    """The peer has sent or received nothing for too long. Its connection is closed."""
