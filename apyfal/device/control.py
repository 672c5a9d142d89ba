"""Bounded queues between the stages of a job, which all end at once when one of them fails."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Generic, TypeVar

from apyfal.exceptions import RunTimeout

__all__ = ["Aborted", "Channel", "JobControl"]

Item = TypeVar("Item")


class Aborted(Exception):
    """Another stage failed, or the job was cancelled: a signal between stages that no user sees."""


class JobControl:
    """What the stages of one job share: the first failure, and the deadline.

    Parameters
    ----------
    deadline
        On `time.monotonic`'s clock, or ``None``.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.changed = threading.Condition()
        self.failed = False
        self._failure: BaseException | None = None
        self._told: list[Callable[[], None]] = []

    def fail(self, error: BaseException) -> None:
        """Stop all stages; the first error is the one that counts."""
        with self.changed:
            if not self.failed:
                self.failed = True
                self._failure = error
            self.changed.notify_all()
            told = list(self._told)
        for tell in told:
            tell()

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Call `tell` when the job fails while the block runs, or has failed before."""
        with self.changed:
            self._told.append(tell)
            failed = self.failed
        try:
            if failed:
                tell()
            yield
        finally:
            with self.changed:
                self._told.remove(tell)

    def take_failure(self) -> BaseException | None:
        """Return the error of `fail`, once: kept, it would keep its frames and all that they hold."""
        failure, self._failure = self._failure, None
        return failure

    def check(self) -> None:
        """Raise the error of `fail`, once."""
        failure = self.take_failure()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    def seconds_left(self) -> float | None:
        """Until the deadline; ``None`` without one.

        Raises
        ------
        RunTimeout
            It has passed.
        """
        if self.deadline is None:
            return None
        left = self.deadline - monotonic()
        if left <= 0:
            raise RunTimeout("the job did not end within its timeout")
        return left


class Channel(Generic[Item]):
    """A queue of at most `capacity` items from one stage to the next."""

    def __init__(self, control: JobControl, capacity: int) -> None:
        self._control = control
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._ended = False

    def put(self, item: Item) -> None:
        """Add an item, when there is room; `Aborted` when the job failed."""
        changed = self._control.changed
        with changed:
            while len(self._items) >= self._capacity and not self._control.failed:
                changed.wait(self._control.seconds_left())
            if self._control.failed:
                raise Aborted
            self._items.append(item)
            changed.notify_all()

    def clear(self) -> None:
        """Drop what nobody will take."""
        with self._control.changed:
            items, self._items = self._items, deque()
        items.clear()

    def end(self) -> None:
        """Say that no more items come."""
        with self._control.changed:
            self._ended = True
            self._control.changed.notify_all()

    def get(self) -> Item:
        """Take the next item; `StopIteration` after the last, `Aborted` when the job failed."""
        changed = self._control.changed
        with changed:
            while not self._items and not self._ended and not self._control.failed:
                changed.wait(self._control.seconds_left())
            if self._control.failed:
                raise Aborted
            if not self._items:
                raise StopIteration
            item = self._items.popleft()
            changed.notify_all()
            return item

    def __iter__(self) -> Iterator[Item]:
        while True:
            try:
                item = self.get()
            except StopIteration:
                return
            yield item
