"""Whose request and whose job is next: users take turns, and nobody can fill the queue for the others."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from apyfal.host.server.policy.refusals import TooBusy, TooMany

__all__ = ["FairQueue", "RateLimiter", "RoundRobin"]

_T = TypeVar("_T")


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

    def has(self, user: str) -> bool:
        """Whether a job of the user waits."""
        return user in self._waiting

    def take(self, may: Callable[[str], bool] = lambda user: True) -> _T | None:
        """Remove and return the oldest job of the user whose turn it is, of those who `may`; ``None``: no job."""
        for user in self._waiting:
            if not may(user):
                continue
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


class RoundRobin:
    """Who asks now and then does not wait behind all that another user has asked at once. Used on the event loop.

    A user's only request never waits, nor does any of a user who is alone. While several users are there, those who
    have several requests under way get one through when no other is under way, in turn. A request that takes long must
    be waiting for something itself, and holds up nobody any more.

    Parameters
    ----------
    present
        Seconds for which a user counts as there after a request.
    patience
        Seconds after which a request holds up the next no more.
    """

    def __init__(self, present: float, patience: float) -> None:
        self._present = present
        self._patience = patience
        self._seen: dict[str, float] = {}  # when a request of each user was last let through, the latest at the end
        self._holding: dict[str, int] = {}  # the last request of each user, while it is not answered
        self._waiting: dict[str, deque[asyncio.Future[int]]] = {}  # in the order of turns
        self._count = 0

    async def begin(self, user: str) -> int:
        """Wait until it is the turn of a request of `user`; return its number, for `end`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not (user in self._waiting or self._held(user, now)) or not self._others(user, now):
            return self._let_through(user, now)
        if not self._waiting:
            loop.call_later(self._patience, self._go_on)
        turn: asyncio.Future[int] = loop.create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.end(user, turn.result())
            raise

    def end(self, user: str, number: int) -> None:
        """Say that a request of `user` is answered."""
        if self._holding.get(user) == number:
            del self._holding[user]
            if self._waiting:
                self._next()

    def _held(self, user: str, now: float) -> bool:
        """Whether a request of `user` was let through so shortly ago that others have to wait for it."""
        return user in self._holding and now - self._seen.get(user, 0.0) < self._patience

    def _others(self, user: str, now: float) -> bool:
        """Whether anybody else is there."""
        while self._seen and next(iter(self._seen.values())) < now - self._present:
            del self._seen[next(iter(self._seen))]
        return len(self._seen) > (user in self._seen)

    def _let_through(self, user: str, now: float) -> int:
        self._seen.pop(user, None)
        self._seen[user] = now
        self._count += 1
        self._holding[user] = self._count
        return self._count

    def _next(self) -> None:
        """Let one request through, of the user whose turn it is, if none is under way; all where one user is alone."""
        now = asyncio.get_running_loop().time()
        for user in list(self._waiting):
            alone = not self._others(user, now)
            if not alone and any(self._held(other, now) for other in self._holding):
                continue
            own = self._waiting.pop(user)
            let_through = False
            while own and (alone or not let_through):
                turn = own.popleft()
                if not turn.done():  # else its client has given up
                    turn.set_result(self._let_through(user, now))
                    let_through = True
            if own:
                self._waiting[user] = own

    def _go_on(self) -> None:
        """Look every so often, as long as any wait, whether what is under way takes too long to be waited for."""
        self._next()
        if self._waiting:
            asyncio.get_running_loop().call_later(self._patience, self._go_on)
