"""Jobs that wait, and a few daemon threads that take them: one by one, or several of a kind together.

Not a ThreadPoolExecutor: the interpreter joins that one's threads at exit, and would wait for ever for a job whose card
hangs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from apyfal.exceptions import ClosedError

__all__ = ["FutureLike", "Task", "TaskQueue", "Workers"]


class FutureLike(Protocol):
    """Where a job's end is written down: a `concurrent.futures.Future`, or what takes its place."""

    def set_running_or_notify_cancel(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...
    def done(self) -> bool: ...
    def cancel(self) -> bool: ...


class Task:
    """One job that was submitted.

    Attributes
    ----------
    future
        Of its result.
    src, dst, keywords
        What `apyfal.Accelerator.process` takes.
    kind
        Jobs of one kind, one behind the other, may be taken together; ``None``: this one runs alone.
    """

    __slots__ = ("dst", "future", "keywords", "kind", "src")

    def __init__(
        self, future: FutureLike, src: object, dst: object, keywords: dict[str, Any], kind: Hashable = None
    ) -> None:
        self.future = future
        self.src = src
        self.dst = dst
        self.keywords = keywords
        self.kind = kind


class TaskQueue:
    """Jobs that wait for any of several threads.

    Parameters
    ----------
    together
        Says how many jobs of a kind one thread may take at once, when so many wait.
    """

    def __init__(self, together: Callable[[int], int]) -> None:
        self._together = together
        self._waiting: deque[Task] = deque()
        self._stopped = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self.idle = 0

    def put(self, task: Task) -> int:
        """Add a task behind all others; returns how many wait now. `ClosedError` when the line was stopped."""
        with self._lock:
            if self._stopped:
                raise ClosedError("stopped: no more jobs are taken")
            self._waiting.append(task)
            if self.idle:
                self._changed.notify()
            return len(self._waiting)

    def take(self) -> list[Task]:
        """Wait for a task, and take it with those of its kind behind it; empty: the line was stopped."""
        with self._lock:
            self.idle += 1
            while not self._waiting and not self._stopped:
                self._changed.wait()
            self.idle -= 1
            if not self._waiting:
                return []
            most = self._together(len(self._waiting)) if self._waiting[0].kind is not None else 1
            tasks = [self._waiting.popleft()]
            kind = tasks[0].kind
            while len(tasks) < most and self._waiting and self._waiting[0].kind == kind:
                tasks.append(self._waiting.popleft())
            return tasks

    def clear(self) -> list[Task]:
        """Take all that wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            return list(waiting)

    def stop(self) -> list[Task]:
        """Let the threads leave, and take what waits."""
        with self._lock:
            self._stopped = True
            self._changed.notify_all()
        return self.clear()


class Workers:
    """At most `count` threads, started as they are needed.

    Parameters
    ----------
    count
        Calls of `run` at once.
    name
        Prefix of the threads' names.
    run
        Does one or several jobs of a kind, and keeps their futures.
    together
        As for `TaskQueue`.
    """

    def __init__(
        self,
        count: int,
        name: str,
        run: Callable[[list[Task]], None],
        together: Callable[[int], int] = lambda waiting: 1,
    ) -> None:
        self._count = count
        self._name = name
        self._run = run
        self._line = TaskQueue(together)
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    def submit(self, task: Task) -> None:
        """Let a thread take the task, in the order of the calls."""
        waiting = self._line.put(task)
        # A thread that was woken counts as idle until it runs: each waiting task needs one of its own.
        if waiting > self._line.idle and len(self._threads) < self._count:
            with self._starting:
                if len(self._threads) < self._count:
                    name = f"{self._name}-{len(self._threads)}"
                    thread = threading.Thread(target=self._work, name=name, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _work(self) -> None:
        while tasks := self._line.take():
            running = [task for task in tasks if task.future.set_running_or_notify_cancel()]
            try:
                self._run(running)
            except BaseException as error:
                for task in running:
                    if not task.future.done():
                        task.future.set_exception(error)
            del tasks, running  # an idle thread keeps no one's arrays alive

    def stop(self) -> None:
        """Cancel what has not begun, and let the threads leave."""
        for task in self._line.stop():
            task.future.cancel()
        with self._starting:
            threads, self._threads = self._threads, []
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(5)
