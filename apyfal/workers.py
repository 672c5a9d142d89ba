"""A few daemon threads that run jobs, with `concurrent.futures.Future` results.

Not a ThreadPoolExecutor: the interpreter joins that one's threads at exit, and would wait for ever for a job whose card
hangs.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["Workers"]

_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Workers:
    """At most `count` threads, started as they are needed.

    Parameters
    ----------
    count
        Tasks that run at once.
    name
        Prefix of the threads' names.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Future[Any]:
        """Run ``function(*args, **keywords)`` in the order of the calls."""
        future: Future[Any] = Future()
        with self._lock:
            self._tasks.put((future, function, args, keywords))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function, args, keywords = task
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args, **keywords)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del task, future, function, args, keywords  # an idle thread keeps no one's arrays alive
            self._idle.release()

    def stop(self) -> None:
        """Cancel what has not begun, and let the threads leave."""
        with self._lock:
            threads, self._threads = self._threads, []
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                break
            if task is not None:
                task[0].cancel()
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(5)
