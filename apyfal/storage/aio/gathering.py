"""Await small transfers that many tasks request at once: one call does those of one turn of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from apyfal.exceptions import TransferCancelled
from apyfal.storage.aio.awaiting import in_thread
from apyfal.storage.flow.cancel import CancelToken, current_cancel

__all__ = ["Gathered", "OnResults"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Most items of one call.
_MOST_ITEMS = 256
#: Items that arrive during a call wait for its end, for at most this time (seconds), or until this many wait: a call
#: for ten items costs hardly more than one for three.
_PATIENCE = 0.002
_ENOUGH = 16
#: Most calls of one event loop that are under way at once.
_MOST_CALLS = 32

#: Called with results that are known before the call has ended: (number of the item, result or error) of each.
OnResults = Callable[[Sequence[tuple[int, Any]]], None]


class _Group(Generic[Item]):
    """The items of one call.

    Attributes
    ----------
    waiting
        How many tasks still wait for their results.
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
    """The items that wait in one event loop, and its calls."""

    def __init__(self) -> None:
        self.pending: deque[tuple[Item, asyncio.Future[Any]]] = deque()
        self.groups: dict[asyncio.Future[Any], _Group[Item]] = {}
        self.calls = 0
        self.soon: asyncio.Handle | None = None
        self.later: asyncio.TimerHandle | None = None


class _Waiter:
    """A task that waits for its item, to be woken by the `CancelToken` of its caller.

    Attributes
    ----------
    interrupted
        Whether that ended the waiting, and not the item.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self._loop = loop
        self._future = future
        self.interrupted = False

    def interrupt(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self._future.done():
            self.interrupted = True
            self._future.set_exception(TransferCancelled("the transfer was cancelled"))


class Gathered(Generic[Item, Result]):
    """Awaits the results of a function that does many items in one call.

    Parameters
    ----------
    function
        Is called in a thread with items, and returns the result or error of each, in order. It can report some results
        earlier, so that a large item does not delay the small ones.
    lends
        Whether items are memory of the caller. A cancelled task then waits until the call has ended, so that nothing
        reads its memory afterwards. The call is cancelled when no task waits for its results any more. The
        `CancelToken` of a task's caller cancels its item alone, which raises `TransferCancelled`.
    """

    def __init__(
        self, function: Callable[[Sequence[Item], OnResults], Sequence[Result | Exception]], *, lends: bool
    ) -> None:
        self._function = function
        self._lends = lends
        self._states: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _State[Item]] = weakref.WeakKeyDictionary()

    async def __call__(self, item: Item) -> Result:
        """Return the result of an item, or raise its error."""
        cancel = current_cancel()
        if cancel is not None:
            cancel.check()
        loop = asyncio.get_running_loop()
        state = self._states.get(loop)
        if state is None:
            state = self._states[loop] = _State()
        future: asyncio.Future[Result] = loop.create_future()
        state.pending.append((item, future))
        self._schedule(loop, state)
        waiter = _Waiter(loop, future)
        try:
            if cancel is not None:
                cancel.add(waiter)
            return await future
        except (asyncio.CancelledError, TransferCancelled):
            # otherwise the item ended at the same time
            if future.cancelled() or (waiter.interrupted and future.exception() is not None):
                await self._leave(state.groups.get(future))
            raise
        finally:
            if cancel is not None:
                cancel.discard(waiter)

    def _schedule(self, loop: asyncio.AbstractEventLoop, state: _State[Item]) -> None:
        if state.soon is not None or not state.pending or state.calls >= _MOST_CALLS:
            return
        if not state.calls or len(state.pending) >= _ENOUGH:
            state.soon = loop.call_soon(self._start, loop, state)  # after tasks that can run now: they may add items
        elif state.later is None:
            state.later = loop.call_later(_PATIENCE, self._start, loop, state)

    def _start(self, loop: asyncio.AbstractEventLoop, state: _State[Item]) -> None:
        for handle in (state.soon, state.later):
            if handle is not None:
                handle.cancel()
        state.soon = state.later = None
        if state.calls >= _MOST_CALLS:
            return
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
            done = in_thread(partial(self._run, loop, group))
            done.add_done_callback(lambda done: self._call(loop, partial(self._end, loop, state, group, done)))
        self._schedule(loop, state)

    def _run(self, loop: asyncio.AbstractEventLoop, group: _Group[Item]) -> Sequence[Result | Exception]:
        def on_results(results: Sequence[tuple[int, Any]]) -> None:
            self._call(loop, lambda: [self._settle(group, number, result) for number, result in results])

        with group.cancel.scope():
            group.cancel.check()
            return self._function(group.items, on_results)

    @staticmethod
    def _settle(group: _Group[Item], number: int, result: Any) -> None:
        future = group.futures[number]
        if future.done():
            return
        group.waiting -= 1
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    @staticmethod
    def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: no task waits
            loop.call_soon_threadsafe(function)

    def _end(self, loop: asyncio.AbstractEventLoop, state: _State[Item], group: _Group[Item], done: Any) -> None:
        state.calls -= 1
        group.ended.set()
        error = done.exception()
        results = [error] * len(group.futures) if error is not None else done.result()
        for number, result in enumerate(results):
            del state.groups[group.futures[number]]
            self._settle(group, number, result)
        self._schedule(loop, state)

    async def _leave(self, group: _Group[Item] | None) -> None:
        """Record that one task no longer waits for its group."""
        if group is None:
            return  # the call has not begun, or has ended
        group.waiting -= 1
        if not group.waiting:
            group.cancel.set()
        if self._lends or not group.waiting:
            while not group.ended.is_set():
                with contextlib.suppress(asyncio.CancelledError):  # cancelled again: the call ends soon
                    await group.ended.wait()
