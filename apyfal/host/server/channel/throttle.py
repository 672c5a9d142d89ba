"""A bound on the jobs that one user submits in one iteration of the event loop; further ones wait for the next."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

from apyfal.host.server.policy.limits import CHANNEL_JOBS_AT_ONCE

__all__ = ["JobThrottle"]


class JobThrottle:
    """Bounds the jobs that one user's channels may submit in one iteration of the event loop. Used on the event loop.

    Thus a user with many channels, each full of jobs, delays the frames and requests of others by a few jobs only.

    Parameters
    ----------
    at_once
        Jobs of one user in one iteration. Half of them may have come in iterations before.
    """

    def __init__(self, at_once: int = CHANNEL_JOBS_AT_ONCE) -> None:
        self._at_once = at_once
        self._taken: collections.Counter[str] = collections.Counter()
        self._waiting: list[Callable[[], None]] = []
        self._scheduled = False

    def count(self, user: str) -> None:
        """Count a job of `user`."""
        self._taken[user] += 1
        if self._taken[user] * 2 > self._at_once:  # a wake-up for each job of a slow client would cost too much
            self._schedule()

    def is_exhausted(self, user: str) -> bool:
        """Return whether further jobs of `user` have to wait for the next iteration."""
        return self._taken[user] >= self._at_once if user in self._taken else False

    def call_later(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the next iteration, in the order of these calls."""
        self._waiting.append(callback)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._scheduled = False
        self._taken.clear()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()
