"""The threads that run jobs, and how their end comes back to the event loop: one wake-up each way."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Threads", "in_thread"]

_T = TypeVar("_T")


async def in_thread(work: Callable[..., _T], *arguments: object) -> _T:
    """Return what `work` does in another thread, for what would hold the event loop up."""
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


class Threads(Generic[_T]):
    """Daemon threads, started as they are needed: a job whose card hangs does not keep the process from ending.

    Made and used on the event loop.

    Parameters
    ----------
    run
        Does one job, in a thread.
    ended
        Called on the event loop with the job and what `run` raised.
    """

    def __init__(self, run: Callable[[_T], object], ended: Callable[[_T, BaseException | None], object]) -> None:
        self._run = run
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_T | None] = queue.SimpleQueue()
        self._done: collections.deque[tuple[_T, BaseException | None]] = collections.deque()
        self._woken = False
        self._threads = 0
        self._busy = 0

    def begin(self, job: _T) -> None:
        """Run a job in a thread that has none, or in a new one."""
        self._busy += 1
        if self._busy > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, name=f"apyfal-host-job-{self._threads}", daemon=True).start()
        self._jobs.put(job)

    def stop(self) -> None:
        """Let the threads leave as they have no job any more."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            failure: BaseException | None = None
            try:
                self._run(job)
            except BaseException as error:
                failure = error
            self._done.append((job, failure))
            del job, failure  # an idle thread keeps no one's arrays alive
            if not self._woken:  # waking the loop is a system call: those that end until it is awake save it
                self._woken = True
                with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon did not wait for this job
                    self._loop.call_soon_threadsafe(self._back)

    def _back(self) -> None:
        self._woken = False  # before looking: a job that ends from here on wakes the loop again
        while self._done:
            job, failure = self._done.popleft()
            self._busy -= 1
            self._ended(job, failure)
