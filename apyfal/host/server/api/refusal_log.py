"""Audit lines of refused requests, at a bounded rate, with a count of the lines that were left out."""

from __future__ import annotations

import collections

from apyfal.host.protocol.audit import AuditLog
from apyfal.host.server.jobs.fair_queue import RateLimiter
from apyfal.host.server.policy.limits import REFUSAL_RATE, REFUSALS_AT_ONCE
from apyfal.host.server.policy.refusals import TooMany

__all__ = ["RefusalLog"]

_MAX_NAMES = 10_000


class RefusalLog:
    """Writes audit lines of refused requests, at a bounded rate for each user or address. Used from one thread only.

    Parameters
    ----------
    audit
        The log to write to.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._rate = RateLimiter(REFUSAL_RATE, REFUSALS_AT_ONCE)
        self._left_out: collections.Counter[str] = collections.Counter()

    def write(self, who: str, **fields: object) -> None:
        """Write a line about a request of `who`, or only count it. The next line tells how many were left out."""
        try:
            self._rate.acquire(who)
        except TooMany:
            if who in self._left_out or len(self._left_out) < _MAX_NAMES:
                self._left_out[who] += 1
            return
        self._audit.write("refused", **fields, left_out=self._left_out.pop(who, None))
