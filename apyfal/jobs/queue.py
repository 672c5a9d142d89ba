"""A queue of jobs, and daemon threads that take them: one by one, or several with the same batch key.

This is not a `concurrent.futures.ThreadPoolExecutor`: the interpreter joins the threads of that at exit, and would wait
for ever for a job whose device hangs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from apyfal.exceptions import ClosedError
from apyfal.threads import start_threads

__all__ = ["CallTask", "FutureLike", "Task", "TaskQueue", "Workers", "cancel_future"]

#: Seconds for which `Workers.stop` waits for threads whose jobs were cancelled.
_STOP_SECONDS = 5.0


class FutureLike(Protocol):
    """Receives the outcome of a job: a `concurrent.futures.Future`, or an object with these methods."""

    def set_running_or_notify_cancel(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...
    def done(self) -> bool: ...
    def cancel(self) -> bool: ...


def cancel_future(future: FutureLike) -> bool:
    """Cancel the future of a job that was removed from its queue, and wake its waiters; return whether it is cancelled.

    `concurrent.futures.wait` and ``as_completed`` do not see a future that was only cancelled.
    """
    cancelled = future.cancel()
    if cancelled:
        future.set_running_or_notify_cancel()
    return cancelled


class Task:
    """One job in a queue.

    Attributes
    ----------
    future
        Receives its result.
    src, dst, keywords
        The arguments of `apyfal.Accelerator.process`.
    batch_key
        Adjacent jobs with equal keys can be taken together; ``None``: this job runs alone.
    """

    __slots__ = ("batch_key", "dst", "future", "keywords", "src")

    def __init__(
        self, future: FutureLike, src: object, dst: object, keywords: dict[str, Any], batch_key: Hashable = None
    ) -> None:
        self.future = future
        self.src = src
        self.dst = dst
        self.keywords = keywords
        self.batch_key = batch_key

    def run(self, process: Callable[..., Any]) -> Any:
        """Run the job by `process`, and return its result."""
        return process(self.src, self.dst, **self.keywords)


class CallTask(Task):
    """A function in the queue of jobs, with its keywords."""

    __slots__ = ("function",)

    def __init__(self, future: FutureLike, function: Callable[..., Any], keywords: dict[str, Any]) -> None:
        super().__init__(future, None, None, keywords)
        self.function = function

    def run(self, process: Callable[..., Any]) -> Any:
        """Call the function."""
        return self.function(**self.keywords)


class TaskQueue:
    """Jobs that wait for one of several threads, and the number of jobs that were taken and have not ended.

    Parameters
    ----------
    batch_limit
        Given the number of waiting jobs, returns how many of one key a thread may take at once.

    Attributes
    ----------
    idle
        Threads that wait in `take`.
    """

    def __init__(self, batch_limit: Callable[[int], int]) -> None:
        self._batch_limit = batch_limit
        self._waiting: deque[Task] = deque()
        self._running = 0
        self._closed = False
        self._stopped = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._drained = threading.Condition(self._lock)
        self.idle = 0
        self._here = threading.local()

    @property
    def is_taken_here(self) -> bool:
        """Whether this thread has taken tasks that have not ended: `join` would wait for ever."""
        return getattr(self._here, "count", 0) > 0

    def put(self, task: Task, *, again: bool = False) -> int:
        """Add a task at the end, and return how many wait now.

        Parameters
        ----------
        task
            The job.
        again
            Whether it was taken from this queue before and has not ended: then a closed queue accepts it, too.

        Raises
        ------
        ClosedError
            The queue is closed or stopped.
        """
        with self._lock:
            if self._stopped or (self._closed and not again):
                raise ClosedError("stopped: no more jobs are taken")
            self._waiting.append(task)
            if self.idle:
                self._changed.notify()
            return len(self._waiting)

    def take(self) -> list[Task]:
        """Wait for a task, and return it with those of its key behind it; an empty list: the thread can leave.

        Call `end` when the tasks have ended.
        """
        with self._lock:
            self.idle += 1
            while not self._waiting and not self._stopped and not (self._closed and not self._running):
                self._changed.wait()
            self.idle -= 1
            if not self._waiting:
                return []
            most = self._batch_limit(len(self._waiting)) if self._waiting[0].batch_key is not None else 1
            tasks = [self._waiting.popleft()]
            key = tasks[0].batch_key
            while len(tasks) < most and self._waiting and self._waiting[0].batch_key == key:
                tasks.append(self._waiting.popleft())
            self._running += len(tasks)
            self._here.count = len(tasks)
            return tasks

    def end(self, count: int) -> None:
        """Record that `count` of the taken tasks have ended, or were put back."""
        with self._lock:
            self._running -= count
            self._here.count = 0
            if self._closed and not self._running and not self._waiting:
                self._changed.notify_all()
                self._drained.notify_all()

    def clear(self) -> list[Task]:
        """Remove and return all waiting tasks."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            if self._closed and not self._running:
                self._changed.notify_all()
                self._drained.notify_all()
            return list(waiting)

    def close(self) -> None:
        """Refuse new tasks. The threads leave when all tasks have ended."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until all tasks of a closed queue have ended."""
        with self._lock:
            while self._waiting or self._running:
                self._drained.wait()

    def stop(self) -> list[Task]:
        """Refuse new tasks, let the threads leave, and remove and return all waiting tasks."""
        with self._lock:
            self._closed = self._stopped = True
            self._changed.notify_all()
            self._drained.notify_all()
        return self.clear()


class Workers:
    """Up to `count` threads, started when they are needed.

    Parameters
    ----------
    count
        The largest number of threads.
    name
        Prefix of the threads' names.
    run
        Runs one job, or several with one batch key, and sets their futures.
    batch_limit
        As for `TaskQueue`.
    """

    def __init__(
        self,
        count: int,
        name: str,
        run: Callable[[list[Task]], None],
        batch_limit: Callable[[int], int] = lambda waiting: 1,
    ) -> None:
        self._count = count
        self._name = name
        self._run = run
        self._queue = TaskQueue(batch_limit)
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    @property
    def is_taken_here(self) -> bool:
        """Whether this thread runs a task: `join` would wait for ever."""
        return self._queue.is_taken_here

    def submit(self, task: Task) -> None:
        """Queue a task. Tasks are started in the order of the calls."""
        waiting = self._queue.put(task)
        # A thread that was notified counts as idle until it runs: each waiting task needs an idle thread.
        if waiting > self._queue.idle and len(self._threads) < self._count:
            with self._starting:
                if len(self._threads) < self._count:
                    self._threads += start_threads(f"{self._name}-{len(self._threads)}", 1, self._work)

    def _work(self) -> None:
        while tasks := self._queue.take():
            running = [task for task in tasks if task.future.set_running_or_notify_cancel()]
            try:
                self._run(running)
            except BaseException as error:
                for task in running:
                    if not task.future.done():
                        task.future.set_exception(error)
            count = len(tasks)
            del tasks, running  # an idle thread must not keep arrays alive
            self._queue.end(count)

    def join(self) -> None:
        """Refuse new tasks, and wait until all tasks have ended."""
        self._queue.close()
        self._queue.join()

    def cancel_waiting(self) -> None:
        """Cancel the tasks that have not started."""
        for task in self._queue.clear():
            cancel_future(task.future)

    def stop(self, patience: float = _STOP_SECONDS) -> None:
        """Refuse new tasks, cancel those that have not started, and wait up to `patience` seconds for each thread."""
        for task in self._queue.stop():
            cancel_future(task.future)
        with self._starting:
            threads, self._threads = self._threads, []
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(patience)
