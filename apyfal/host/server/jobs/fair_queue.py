"""Choose whose request or job is next: users take turns, so that one user cannot delay all others."""

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
    """A bounded queue for each user, served in turn. Used from one thread only.

    Parameters
    ----------
    limit
        Largest number of waiting jobs of all users together.
    limit_of_user
        Largest number of waiting jobs of one user.
    """

    def __init__(self, limit: int, limit_of_user: int) -> None:
        self._limit = limit
        self._limit_of_user = limit_of_user
        self._waiting: dict[str, deque[_T]] = {}  # in the order of service: the user served last is at the end
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, user: str, item: _T) -> None:
        """Append to the user's queue. Raises `TooBusy` or `TooMany` if it is full."""
        if self._length >= self._limit:
            raise TooBusy(f"the host has {self._length} jobs waiting, as many as it takes; try again")
        own = self._waiting.get(user)
        if own is not None and len(own) >= self._limit_of_user:
            raise TooMany(f"{len(own)} jobs of yours are waiting, as many as a user may have; wait for some to end")
        self._waiting.setdefault(user, deque()).append(item)
        self._length += 1

    def has(self, user: str) -> bool:
        """Return whether a job of the user is waiting."""
        return user in self._waiting

    def take(self, may: Callable[[str], bool] = lambda user: True) -> _T | None:
        """Remove and return the oldest job of the next user for whom `may` returns true; ``None``: there is none."""
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
        """Remove a job if it is still waiting; return whether it was."""
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
    """A token bucket for each name: `rate` events per second, `burst` at once. Used from one thread only."""

    _MAX_NAMES = 10_000

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def acquire(self, name: str) -> None:
        """Count one event of `name`. Raises `TooMany` if it exceeds the rate."""
        now = self._clock()
        level, since = self._levels.pop(name, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        if level < 1:
            self._levels[name] = (level, now)
            raise TooMany("too many requests", (1 - level) / self._rate)
        self._levels[name] = (level - 1, now)
        if len(self._levels) > self._MAX_NAMES:
            del self._levels[next(iter(self._levels))]  # the name that has been idle for the longest time


class RoundRobin:
    """Lets requests of users through in turn: a rare request does not wait behind all requests of a busy user. Used on
    the event loop.

    A user's only request never waits, nor does any request of a user who is alone. If several users are active, those
    with several requests in flight get one through at a time, in turn, when no other is in flight. A request that takes
    longer than `patience` is waiting for something else, and no longer delays the others.

    Parameters
    ----------
    present
        Seconds after a request during which its user counts as active.
    patience
        Seconds after which a request no longer delays the next one.
    """

    def __init__(self, present: float, patience: float) -> None:
        self._present = present
        self._patience = patience
        self._seen: dict[str, float] = {}  # time at which a request of each user was last let through, latest last
        self._holding: dict[str, int] = {}  # the last request of each user, until its response is sent
        self._waiting: dict[str, deque[asyncio.Future[int]]] = {}  # in the order of turns
        self._count = 0

    async def begin(self, user: str) -> int:
        """Wait for the turn of `user`. Returns the request's number, which `end` takes."""
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
        """Record that a request of `user` has been answered."""
        if self._holding.get(user) == number:
            del self._holding[user]
            if self._waiting:
                self._next()

    def _held(self, user: str, now: float) -> bool:
        """Return whether a request of `user` was let through so recently that others have to wait for it."""
        return user in self._holding and now - self._seen.get(user, 0.0) < self._patience

    def _others(self, user: str, now: float) -> bool:
        """Return whether another user is active."""
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
        """If no request is in flight, let one through, of the user whose turn it is. If one user is alone, let all
        through.
        """
        now = asyncio.get_running_loop().time()
        for user in list(self._waiting):
            alone = not self._others(user, now)
            if not alone and any(self._held(other, now) for other in self._holding):
                continue
            own = self._waiting.pop(user)
            let_through = False
            while own and (alone or not let_through):
                turn = own.popleft()
                if not turn.done():  # otherwise its client has left
                    turn.set_result(self._let_through(user, now))
                    let_through = True
            if own:
                self._waiting[user] = own

    def _go_on(self) -> None:
        """While requests wait, check at intervals whether the one in flight has exceeded `patience`."""
        self._next()
        if self._waiting:
            asyncio.get_running_loop().call_later(self._patience, self._go_on)
