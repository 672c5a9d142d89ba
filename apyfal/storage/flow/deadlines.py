"""Calls at deadlines, which one thread watches: a thread for each deadline costs more than a small transfer."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from time import monotonic

from apyfal.threads import start_threads

__all__ = ["Deadlines", "deadlines"]

#: Seconds without a deadline after which the thread ends.
_IDLE = 0.25
#: Seconds until a call is tried again if the system had no thread for it.
_AGAIN = 0.05


class Deadlines:
    """Functions that are called at their deadlines, each in a thread of its own. Usable from any thread."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._pending: dict[object, tuple[float, Callable[[], object]]] = {}
        self._next = 0.0  # when the watching thread looks again, if it runs
        self._is_watched = False

    def add(self, deadline: float, function: Callable[[], object]) -> object:
        """Call `function`, which must not raise, at a time of `time.monotonic`; return a key for `discard`."""
        key = object()
        with self._changed:
            self._pending[key] = deadline, function
            if not self._is_watched:
                self._next = deadline
                try:
                    start_threads("deadlines", 1, self._watch)
                except BaseException:
                    del self._pending[key]
                    raise
                self._is_watched = True
            elif deadline < self._next:
                self._changed.notify()
        return key

    def discard(self, key: object) -> None:
        """Forget a deadline. If it has just passed, its function may still be called."""
        with self._changed:
            self._pending.pop(key, None)

    def _watch(self) -> None:
        with self._changed:
            try:
                while True:
                    now = monotonic()
                    self._call(now)
                    self._next = min([deadline for deadline, _ in self._pending.values()], default=now + _IDLE)
                    was_idle = not self._pending
                    self._changed.wait(max(self._next - now, _AGAIN if self._next <= now else 0.0))
                    if was_idle and not self._pending:
                        return
            finally:  # also if there is no memory: the next `add` starts another thread
                self._is_watched = False

    def _call(self, now: float) -> None:
        for key, (deadline, function) in list(self._pending.items()):
            if deadline <= now:
                with contextlib.suppress(RuntimeError, MemoryError):  # no thread can be started: it is tried again
                    start_threads("deadline", 1, function)
                    del self._pending[key]


#: those of this process
deadlines = Deadlines()
os.register_at_fork(after_in_child=deadlines._begin)  # the child has neither the thread nor the jobs
