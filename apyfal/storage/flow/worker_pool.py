"""Threads that work through a queue, as many as raise the rate."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from apyfal.storage.flow.concurrency import AdaptiveConcurrency
from apyfal.threads import start_threads

__all__ = ["WorkerPool"]

Item = TypeVar("Item")


class WorkerPool(Generic[Item]):
    """Threads that do `work` with each item, in order of `put`.

    While items wait there is always one thread in reserve: it takes an item as soon as another one is worth it,
    and notices when it is time for that, as those at work may be held up.

    Parameters
    ----------
    name
        Of the threads.
    concurrency
        How many may be at work.
    work
        Does one item; must not raise.
    """

    def __init__(self, name: str, concurrency: AdaptiveConcurrency, work: Callable[[Item], None]) -> None:
        self._name = name
        self._concurrency = concurrency
        self._work = work
        self._changed = threading.Condition()
        self._queue: deque[Item] = deque()
        self._threads: list[threading.Thread] = []
        self._reserve = 0
        self._busy = 0
        self._ended = False

    def put(self, item: Item) -> None:
        """Let a thread do `item`."""
        with self._changed:
            self._queue.append(item)
            self._keep_reserve()
            self._changed.notify()

    def moved(self, count: int) -> None:
        """Record the number of bytes that an item has transferred."""
        with self._changed:
            self._concurrency.moved(count)
            self._changed.notify_all()

    def clear(self) -> list[Item]:
        """Take back what no thread has begun."""
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
            return left

    def close(self) -> None:
        """End the threads, each when its item is done."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _keep_reserve(self) -> None:
        """Start a thread where items wait and no thread does; the lock is held."""
        if self._queue and not self._reserve and len(self._threads) < self._concurrency.most:
            self._reserve += 1
            self._threads += start_threads(self._name, 1, self._run)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (not self._queue or self._busy >= self._concurrency.target):
                    if not self._changed.wait(self._concurrency.poll_interval if self._queue else None):
                        self._concurrency.update()
                if not self._queue:
                    return
                self._reserve -= 1
                self._busy += 1
                item = self._queue.popleft()
                self._keep_reserve()
            try:
                self._work(item)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._reserve += 1
                    self._changed.notify()
