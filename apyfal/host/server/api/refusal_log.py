"""The audit lines of refused requests: as many as somebody can read, and how many were left out."""

from __future__ import annotations

import collections

from apyfal.host.protocol.audit import AuditLog
from apyfal.host.server.jobs.fair_queue import RateLimiter
from apyfal.host.server.policy.limits import REFUSAL_RATE, REFUSALS_AT_ONCE
from apyfal.host.server.policy.refusals import TooMany

__all__ = ["RefusalLog"]

_MAX_NAMES = 10_000


class RefusalLog:
    """Writes the audit lines of refused requests, for each user or address at a bounded rate. Used by one thread.

    Parameters
    ----------
    audit
        Where they are written.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._rate = RateLimiter(REFUSAL_RATE, REFUSALS_AT_ONCE)
        self._left_out: collections.Counter[str] = collections.Counter()

    def write(self, who: str, **fields: object) -> None:
        """Write one line about a request of `who`, or count it; the next line says how many were left out."""
        try:
            self._rate.take(who)
        except TooMany:
            if who in self._left_out or len(self._left_out) < _MAX_NAMES:
                self._left_out[who] += 1
            return
        self._audit.write("refused", **fields, left_out=self._left_out.pop(who, None))
