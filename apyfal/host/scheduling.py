"""Whose job runs next: users take turns, and nobody can fill the queue for the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from apyfal.exceptions import JobRejected

__all__ = ["FairQueue", "Limited", "RateLimiter", "TooBusy", "TooMany"]

_T = TypeVar("_T")


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


class FairQueue(Generic[_T]):
    """A bounded queue for each user, served in turn. Used by one thread.

    Parameters
    ----------
    limit
        Jobs waiting, of all users together.
    limit_of_user
        Jobs waiting, of one user.
    """

    def __init__(self, limit: int, limit_of_user: int) -> None:
        self._limit = limit
        self._limit_of_user = limit_of_user
        self._waiting: dict[str, deque[_T]] = {}  # in the order of turns: who was served goes to the end
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, user: str, item: _T) -> None:
        """Append to the user's own queue; `TooBusy` or `TooMany` where there is no room."""
        if self._length >= self._limit:
            raise TooBusy(f"the host has {self._length} jobs waiting, as many as it takes; try again")
        own = self._waiting.get(user)
        if own is not None and len(own) >= self._limit_of_user:
            raise TooMany(f"{len(own)} jobs of yours are waiting, as many as a user may have; wait for some to end")
        self._waiting.setdefault(user, deque()).append(item)
        self._length += 1

    def take(self) -> _T | None:
        """Remove and return the oldest job of the user whose turn it is; ``None`` when nothing waits."""
        for user in self._waiting:
            own = self._waiting.pop(user)
            item = own.popleft()
            self._length -= 1
            if own:
                self._waiting[user] = own
            return item
        return None

    def remove(self, user: str, item: _T) -> bool:
        """Remove one job that still waits; whether it did."""
        own = self._waiting.get(user)
        if own is None or item not in own:
            return False
        own.remove(item)
        self._length -= 1
        if not own:
            del self._waiting[user]
        return True

    def __iter__(self) -> Iterator[_T]:
        for own in list(self._waiting.values()):
            yield from list(own)


class RateLimiter:
    """A token bucket for each name: `rate` a second, and `burst` at once. Used by one thread."""

    _MAX_NAMES = 10_000

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> None:
        """Count one event of `name`; `TooMany` where it came too soon."""
        now = self._clock()
        level, since = self._levels.pop(name, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        if level < 1:
            self._levels[name] = (level, now)
            raise TooMany("too many requests", (1 - level) / self._rate)
        self._levels[name] = (level - 1, now)
        if len(self._levels) > self._MAX_NAMES:
            del self._levels[next(iter(self._levels))]  # the one that has been quiet the longest
