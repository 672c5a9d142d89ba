"""Threads that run jobs and report back to the event loop, with one wake-up in each direction."""

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
    """Return the result of `work`, called in another thread because it would block the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


class Threads(Generic[_T]):
    """Daemon threads, started on demand: a job that hangs on its card does not keep the process from ending.

    Made and used on the event loop.

    Parameters
    ----------
    run
        Runs one job, in a thread.
    ended
        Called on the event loop with the job and the exception that `run` raised (or ``None``).
    """

    def __init__(self, run: Callable[[_T], object], ended: Callable[[_T, BaseException | None], object]) -> None:
        self._run = run
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_T | None] = queue.SimpleQueue()
        self._done: collections.deque[tuple[_T, BaseException | None]] = collections.deque()
        self._woken = False
        self._awaited: threading.Lock | None = None
        self._threads = 0
        self._busy = 0

    def begin(self, job: _T) -> None:
        """Run a job in an idle thread, or in a new one."""
        self._busy += 1
        if self._busy > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, name=f"apyfal-host-job-{self._threads}", daemon=True).start()
        self._jobs.put(job)

    def await_end(self, seconds: float) -> None:
        """Block the event loop until a job has ended, for at most `seconds`. `ended` is called from here.

        If the job is brief, this costs less than a wake-up of the loop.
        """
        awaited = threading.Lock()
        awaited.acquire()
        self._awaited = awaited
        if not self._done:
            awaited.acquire(timeout=seconds)
        self._awaited = None  # before the list is read: a job that ends from here on wakes the loop
        self._back()

    def stop(self) -> None:
        """Let each thread end when it has no job."""
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
            del job, failure  # an idle thread must not keep a job's arrays alive
            awaited = self._awaited
            if awaited is not None:
                with contextlib.suppress(RuntimeError):  # another thread has done it
                    awaited.release()
                continue
            if not self._woken:  # waking the loop is a system call: one wake-up serves all jobs that end until then
                self._woken = True
                with contextlib.suppress(RuntimeError):  # the loop was closed before this job ended
                    self._loop.call_soon_threadsafe(self._back)

    def _back(self) -> None:
        self._woken = False  # before the list is read: a job that ends from here on wakes the loop again
        while True:
            try:  # `popleft` fails between two `append`s, so whatever is appended later sees the current `_woken`
                job, failure = self._done.popleft()
            except IndexError:
                return
            self._busy -= 1
            self._ended(job, failure)
