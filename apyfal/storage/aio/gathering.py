"""Await small transfers that many tasks ask for at once: those of one turn of the event loop are done by one call."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from apyfal.storage.aio.awaiting import in_thread
from apyfal.storage.flow.cancel import CancelToken

__all__ = ["Gathered"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items of one call: those that come meanwhile make the next one.
_MOST_ITEMS = 256
#: Calls of one event loop that are under way at once: while one waits for its store, the next can begin.
_MOST_CALLS = 4


class _Group(Generic[Item]):
    """The items of one call.

    Attributes
    ----------
    waiting
        How many tasks still want their results.
    ended
        Set when the call has ended.
    """

    def __init__(self, items: list[Item], futures: list[asyncio.Future[Any]]) -> None:
        self.items = items
        self.futures = futures
        self.waiting = len(items)
        self.cancel = CancelToken()
        self.ended = asyncio.Event()


class _State(Generic[Item]):
    """What waits in one event loop."""

    def __init__(self) -> None:
        self.pending: deque[tuple[Item, asyncio.Future[Any]]] = deque()
        self.groups: dict[asyncio.Future[Any], _Group[Item]] = {}
        self.calls = 0
        self.scheduled = False


class Gathered(Generic[Item, Result]):
    """Awaits the results of a function that does many items in one call.

    Parameters
    ----------
    function
        Is called in a thread with items, and returns the result or error of each, in order.
    lends
        Whether items are memory of the caller: a task that was cancelled then waits until the call has ended, so that
        nobody looks at its memory afterwards. (The call is cancelled if nobody waits for its results any more.)
    """

    def __init__(self, function: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, lends: bool) -> None:
        self._function = function
        self._lends = lends
        self._states: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _State[Item]] = weakref.WeakKeyDictionary()

    async def __call__(self, item: Item) -> Result:
        """Return the result of an item, or raise its error."""
        loop = asyncio.get_running_loop()
        state = self._states.get(loop)
        if state is None:
            state = self._states[loop] = _State()
        future: asyncio.Future[Result] = loop.create_future()
        state.pending.append((item, future))
        self._schedule(loop, state)
        try:
            return await future
        except asyncio.CancelledError:
            await self._leave(state.groups.get(future))
            raise

    def _schedule(self, loop: asyncio.AbstractEventLoop, state: _State[Item]) -> None:
        if not state.scheduled and state.pending and state.calls < _MOST_CALLS:
            state.scheduled = True
            loop.call_soon(self._start, loop, state)  # after the tasks that can run now, which may ask, too

    def _start(self, loop: asyncio.AbstractEventLoop, state: _State[Item]) -> None:
        state.scheduled = False
        items: list[Item] = []
        futures: list[asyncio.Future[Any]] = []
        while state.pending and len(items) < _MOST_ITEMS:
            item, future = state.pending.popleft()
            if not future.done():
                items.append(item)
                futures.append(future)
        if items:
            group = _Group(items, futures)
            state.groups.update(dict.fromkeys(futures, group))
            state.calls += 1
            done = in_thread(partial(self._run, group))
            done.add_done_callback(lambda done: self._tell(loop, partial(self._end, loop, state, group, done)))
        self._schedule(loop, state)

    def _run(self, group: _Group[Item]) -> Sequence[Result | Exception]:
        with group.cancel.scope():
            group.cancel.check()
            return self._function(group.items)

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            loop.call_soon_threadsafe(function)

    def _end(self, loop: asyncio.AbstractEventLoop, state: _State[Item], group: _Group[Item], done: Any) -> None:
        state.calls -= 1
        group.ended.set()
        error = done.exception()
        results = [error] * len(group.futures) if error is not None else done.result()
        for future, result in zip(group.futures, results, strict=True):
            del state.groups[future]
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._schedule(loop, state)

    async def _leave(self, group: _Group[Item] | None) -> None:
        """End one task's interest in its group."""
        if group is None:
            return  # not begun, or over
        group.waiting -= 1
        if not group.waiting:
            group.cancel.set()
        if self._lends or not group.waiting:
            while not group.ended.is_set():
                with contextlib.suppress(asyncio.CancelledError):  # asked again: it ends soon
                    await group.ended.wait()
