"""Await functions that block: each runs in a daemon thread, and a cancelled task cancels its transfer."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.threads import start_threads

__all__ = ["MOST_THREADS", "awaited", "in_thread"]

Result = TypeVar("Result")

#: Calls that are under way at once in a process; others wait for their turn.
MOST_THREADS = 32


class _Threads:
    """Daemon threads, started when they are needed: the interpreter must not wait at exit for a store that hangs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._count = self._idle = 0

    def submit(self, function: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        with self._changed:
            self._waiting.append((future, function))
            if self._idle >= len(self._waiting):
                self._changed.notify()
            elif self._count < MOST_THREADS:
                self._count += 1
                start_threads(f"await-{self._count}", 1, self._work)
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._waiting:
                    self._changed.wait()
                self._idle -= 1
                future, function = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            del future, function  # an idle thread must not keep arrays alive


_threads = _Threads()


def _begin_afresh() -> None:
    global _threads
    _threads = _Threads()  # the threads of the parent do not exist in a forked child


os.register_at_fork(after_in_child=_begin_afresh)


def in_thread(function: Callable[[], Result]) -> Future[Result]:
    """Run a function in one of the threads, and return its future."""
    return _threads.submit(function)


async def awaited(function: Callable[[], Result]) -> Result:
    """Run a function in a thread, and return its result.

    If the task is cancelled, so are the transfers of the function: this returns when they have ended, so that nothing
    is written to the caller's memory afterwards, and a destination is whole or as it was.
    """
    cancel = CancelToken(current_cancel())
    context = contextvars.copy_context()

    def work() -> Result:
        with cancel.scope():
            cancel.check()
            return context.run(function)

    try:
        future = _threads.submit(work)
        done = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            cancel.set()
            if not future.cancel():
                while not done.done():
                    with contextlib.suppress(asyncio.CancelledError):  # asked again: it ends soon
                        await asyncio.wait([done])
                if not done.cancelled():
                    done.exception()  # it was for this task, which is told of its own end
            raise
    finally:
        cancel.detach()
