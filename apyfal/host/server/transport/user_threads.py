"""Threads for users' calls to stores, which can take long. Each user has a few, so that users do not wait for one
another.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from apyfal.host.server.policy.limits import THREADS, THREADS_OF_USER, WAITING_OF_USER
from apyfal.host.server.policy.refusals import TooBusy, TooMany
from apyfal.storage.flow.cancel import CancelToken

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["UserThreads"]

_T = TypeVar("_T")

#: seconds between checks whether the client is still connected
_LOOK = 0.25


class UserThreads:
    """Runs blocking calls for users. Used on the event loop.

    Parameters
    ----------
    limit
        Largest number of threads of all users together.
    limit_of_user
        Largest number of threads of one user.
    waiting_of_user
        Largest number of a user's calls that wait for one of these threads.
    """

    def __init__(
        self, limit: int = THREADS, limit_of_user: int = THREADS_OF_USER, waiting_of_user: int = WAITING_OF_USER
    ) -> None:
        self._limit = limit
        self._limit_of_user = limit_of_user
        self._waiting_of_user = waiting_of_user
        self._executor = ThreadPoolExecutor(limit, thread_name_prefix="apyfal-host-store")
        self._busy: collections.Counter[str] = collections.Counter()
        self._waiting: dict[str, collections.deque[asyncio.Future[None]]] = {}

    async def run(self, request: web.Request, user: str, work: Callable[[], _T]) -> _T:
        """Return the result of `work`, called in another thread. If the client leaves, its transfers are cancelled.

        Parameters
        ----------
        request
            The client's request.
        user
            Name of the user.
        work
            The call. It has ended when this method returns or raises.

        Raises
        ------
        TooMany
            The user has too many calls waiting.
        TooBusy
            The host has no free thread.
        TransferCancelled
            The client left.
        """
        await self._begin(request, user)
        cancel = CancelToken()
        loop = asyncio.get_running_loop()

        def body() -> _T:
            with cancel.scope():
                cancel.check()
                return work()

        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if _left(request):
                cancel.set()
            else:
                timer = loop.call_later(_LOOK, look)

        timer = loop.call_later(_LOOK, look)
        future = loop.run_in_executor(self._executor, body)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            cancel.set()
            await asyncio.wait({future})
            if not future.cancelled():
                future.exception()  # nobody reads the error: the client has left
            raise
        finally:
            timer.cancel()
            self._end(user)

    def close(self) -> None:
        """Accept no more calls."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _begin(self, request: web.Request, user: str) -> None:
        if self._busy[user] < self._limit_of_user:
            if sum(self._busy.values()) >= self._limit:
                raise TooBusy("all threads of the host are busy with stores; try again")
            self._busy[user] += 1
            return
        waiting = self._waiting.setdefault(user, collections.deque())
        if len(waiting) >= self._waiting_of_user:
            raise TooMany(f"{len(waiting)} requests of yours wait for stores, as many as a user may have")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            while not turn.done():
                await asyncio.wait({turn}, timeout=4 * _LOOK)
                if not turn.done() and _left(request):
                    raise ConnectionError("the client left")
        except BaseException:
            if turn.done():
                self._end(user)
            else:
                waiting.remove(turn)
            raise

    def _end(self, user: str) -> None:
        """Pass a thread to the next call of the user, or free it."""
        waiting = self._waiting.get(user)
        if waiting:
            waiting.popleft().set_result(None)
            return
        self._waiting.pop(user, None)
        self._busy[user] -= 1
        if not self._busy[user]:
            del self._busy[user]


def _left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
