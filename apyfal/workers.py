"""Jobs that wait, and a few daemon threads that take them: one by one, or several of a kind together.

Not a ThreadPoolExecutor: the interpreter joins that one's threads at exit, and would wait for ever for a job whose card
hangs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

__all__ = ["Task", "Workers"]


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

    def __init__(self, src: object, dst: object, keywords: dict[str, Any], kind: Hashable = None) -> None:
        self.future: Future[Any] = Future()
        self.src = src
        self.dst = dst
        self.keywords = keywords
        self.kind = kind


class Workers:
    """At most `count` threads, started as they are needed.

    Parameters
    ----------
    count
        Calls of `run` at once.
    name
        Prefix of the threads' names.
    run
        Does one or several jobs of a kind, and settles their futures.
    together
        Says how many jobs may be taken at once, now.
    """

    def __init__(
        self, count: int, name: str, run: Callable[[list[Task]], None], together: Callable[[], int] = lambda: 1
    ) -> None:
        self._count = count
        self._name = name
        self._run = run
        self._together = together
        self._waiting: deque[Task] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopped = False
        self._changed = threading.Condition(threading.Lock())

    def submit(self, task: Task) -> Future[Any]:
        """Let a thread take the task, in the order of the calls."""
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()
            # A thread that was woken counts as idle until it runs: each waiting task needs one of its own.
            if len(self._waiting) > self._idle and len(self._threads) < self._count:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return task.future

    def _take(self) -> list[Task]:
        with self._changed:
            self._idle += 1
            while not self._waiting and not self._stopped:
                self._changed.wait()
            self._idle -= 1
            if not self._waiting:
                return []
            tasks = [self._waiting.popleft()]
            kind = tasks[0].kind
            if kind is not None:
                most = self._together()
                while len(tasks) < most and self._waiting and self._waiting[0].kind == kind:
                    tasks.append(self._waiting.popleft())
            return tasks

    def _work(self) -> None:
        while tasks := self._take():
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
        with self._changed:
            self._stopped = True
            threads, self._threads = self._threads, []
            waiting, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for task in waiting:
            task.future.cancel()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(5)
