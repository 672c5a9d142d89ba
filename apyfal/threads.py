"""Daemon threads: the interpreter must not wait at exit for one whose device or store hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["start_threads"]

#: Seconds between two looks at whether a thread has ended, for who was not woken because another one was interrupted.
_LOOK = 1.0


class _Daemon(threading.Thread):
    """A daemon thread that can be joined again after a signal has interrupted the first time.

    `threading.Thread` of CPython 3.10 to 3.12 takes a thread for ended if a signal handler raises in its `join`
    (``Thread._wait_for_tstate_lock``): another `join` then returns at once, while the thread still runs.
    """

    def __init__(self, work: Callable[[], object], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self._running = threading.Lock()
        self._running.acquire()
        self._over = False
        self._entered = threading.Lock()  # whoever has it first decides: the thread works, or is given up
        self._was_started = self._is_given_up = False

    def start(self) -> None:
        super().start()
        self._was_started = True

    def run(self) -> None:
        if not self._entered.acquire(blocking=False):
            return
        try:
            super().run()
        finally:
            self._over = True  # before the lock: who is interrupted behind `acquire` must not be waited for
            self._running.release()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, or for `timeout` seconds.

        One whose start was interrupted, and that does not work yet, never will.
        """
        if not self._was_started and (self._is_given_up or self._entered.acquire(blocking=False)):
            self._is_given_up = True
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._over and self.is_alive() and self is not threading.current_thread():
            left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if self._running.acquire(timeout=max(0.0, left)):
                self._running.release()
            elif deadline is not None and time.monotonic() >= deadline:
                return
        super().join(timeout)


def start_threads(
    name: str, count: int, work: Callable[[], object], into: list[threading.Thread] | None = None
) -> list[threading.Thread]:
    """Start `count` daemon threads that call `work`, named ``apyfal-NAME-0`` and so on; return them.

    `work` must not raise: nobody would see it.

    Parameters
    ----------
    into
        A list to put them into as they start, and to return: a signal's exception, or a limit of the system's, may end
        this in the midst, and the caller then waits for those that are there.
    """
    threads = [] if into is None else into
    for number in range(count):
        thread = _Daemon(work, f"apyfal-{name}-{number}")
        threads.append(thread)
        thread.start()
    return threads
