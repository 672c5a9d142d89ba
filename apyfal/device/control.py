"""What the stages of one job share: its failure, its deadline, and bounded queues from stage to stage."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Generic, TypeVar

from apyfal.exceptions import RunTimeout

__all__ = ["Aborted", "JobControl", "StageQueue"]

Item = TypeVar("Item")


class Aborted(Exception):
    """Another stage failed, or the job was cancelled. A signal between stages; users get the cause instead."""


class JobControl:
    """The first failure and the deadline of one job, shared by its stages. All methods may be called from any thread.

    Parameters
    ----------
    deadline
        Time of `time.monotonic` at which the job must have ended; ``None``: no deadline.

    Attributes
    ----------
    failed
        Whether `fail` was called.
    run_details
        What the driver reports of each run (JSON), if it reports anything.
    changed
        Condition that is notified when the job fails, and by the stages when data moves on.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.changed = threading.Condition()
        self.failed = False
        self.run_details: list[str] = []
        self._failure: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    def fail(self, error: BaseException) -> None:
        """Stop all stages. The first error is kept, later ones are ignored."""
        with self.changed:
            if not self.failed:
                self.failed = True
                self._failure = error
            self.changed.notify_all()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @contextmanager
    def on_failure(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` if the job fails while the block runs, or has already failed."""
        with self.changed:
            self._callbacks.append(callback)
            failed = self.failed
        try:
            if failed:
                callback()
            yield
        finally:
            with self.changed:
                self._callbacks.remove(callback)

    def take_failure(self) -> BaseException | None:
        """Return the error of `fail`, and forget it: its traceback keeps the local variables of its frames alive."""
        failure, self._failure = self._failure, None
        return failure

    def check(self) -> None:
        """Raise the error of `fail`, the first time that this is called after it."""
        failure = self.take_failure()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    def seconds_left(self) -> float | None:
        """Return the seconds until the deadline; ``None`` without one.

        Raises
        ------
        RunTimeout
            The deadline has passed.
        """
        if self.deadline is None:
            return None
        left = self.deadline - monotonic()
        if left <= 0:
            raise RunTimeout("the job did not end within its timeout")
        return left


class StageQueue(Generic[Item]):
    """A queue from one stage to the next.

    Parameters
    ----------
    control
        Ends the waiting in `put` and `get` if the job fails or its deadline passes.
    capacity
        Items that it holds at most.
    """

    def __init__(self, control: JobControl, capacity: int) -> None:
        self._control = control
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._ended = False

    def put(self, item: Item) -> None:
        """Add an item; wait while it is full. Raises `Aborted` if the job fails, `RunTimeout` at the deadline."""
        changed = self._control.changed
        with changed:
            while len(self._items) >= self._capacity and not self._control.failed:
                changed.wait(self._control.seconds_left())
            if self._control.failed:
                raise Aborted
            self._items.append(item)
            changed.notify_all()

    def clear(self) -> None:
        """Discard all items."""
        with self._control.changed:
            items, self._items = self._items, deque()
        items.clear()

    def end(self) -> None:
        """Mark the end: no item follows."""
        with self._control.changed:
            self._ended = True
            self._control.changed.notify_all()

    def get(self) -> Item:
        """Return the next item; wait for it. Raises `StopIteration` after the last, and as `put` does."""
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
