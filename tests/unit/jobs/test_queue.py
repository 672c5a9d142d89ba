"""Threads that take waiting jobs, one by one or several of a kind together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from apyfal.exceptions import ClosedError
from apyfal.jobs.ordered_map import LightFuture, ResultOrder
from apyfal.jobs.queue import Task, Workers

#: Seconds that are only waited for where something is wrong.
PATIENCE = 10.0


def submit(workers: Workers, *task: Any) -> Future[Any]:
    """Submit a task; returns the future of its result."""
    future: Future[Any] = Future()
    workers.submit(Task(future, *task))
    return future


@pytest.fixture
def began() -> threading.Event:
    return threading.Event()


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers that call each task's `src`."""

    def run(tasks: list[Task]) -> None:
        for task in tasks:
            task.future.set_result(task.src())  # type: ignore[operator]  # these tests' tasks are functions

    made = Workers(2, "test", run)
    yield made
    made.stop()


def test_a_job_does_not_wait_for_one_submitted_just_before(workers: Workers) -> None:
    """The thread that the first one woke counts as idle until it runs."""
    for _ in range(300):
        submit(workers, lambda: None, None, {}).result(PATIENCE)
        second = threading.Event()
        first = submit(workers, lambda event=second: event.wait(PATIENCE), None, {})
        submit(workers, second.set, None, {}).result(PATIENCE)
        assert first.result(PATIENCE)


def test_jobs_of_one_kind_that_wait_are_taken_together(began: threading.Event) -> None:
    taken: list[list[object]] = []
    go = threading.Event()

    def run(tasks: list[Task]) -> None:
        taken.append([task.src for task in tasks])
        began.set()
        assert go.wait(PATIENCE)
        for task in tasks:
            task.future.set_result(None)

    workers = Workers(1, "test", run, batch_limit=lambda waiting: 3)
    try:
        futures = [submit(workers, 0, None, {}, "first")]
        assert began.wait(PATIENCE)
        kinds = ["a", "a", "a", "a", "b", None, None]
        futures += [submit(workers, number, None, {}, kind) for number, kind in enumerate(kinds, 1)]
        go.set()
        for future in futures:
            future.result(PATIENCE)
    finally:
        workers.stop()
    assert taken == [[0], [1, 2, 3], [4], [5], [6], [7]]


def test_what_waits_when_the_workers_stop_is_cancelled(began: threading.Event) -> None:
    go = threading.Event()

    def run(tasks: list[Task]) -> None:
        began.set()
        assert go.wait(PATIENCE)
        tasks[0].future.set_result("done")

    workers = Workers(1, "test", run)
    first = submit(workers, None, None, {})
    assert began.wait(PATIENCE)
    second = submit(workers, None, None, {})
    threading.Timer(0.05, go.set).start()
    workers.stop()
    assert first.result(PATIENCE) == "done"
    assert second.cancelled()
    with pytest.raises(ClosedError):
        submit(workers, None, None, {})


def test_an_error_of_the_runner_is_each_open_jobs() -> None:
    def run(tasks: list[Task]) -> None:
        raise KeyError("broken")

    workers = Workers(1, "test", run)
    try:
        with pytest.raises(KeyError, match="broken"):
            submit(workers, None, None, {}).result(PATIENCE)
    finally:
        workers.stop()


# -- tickets ----------------------------------------------------------------------------------------------------------
def test_a_ticket_waits_and_tells() -> None:
    series = ResultOrder()
    good, bad = LightFuture(series), LightFuture(series)
    assert good.set_running_or_notify_cancel()
    assert not good.cancel()
    threading.Timer(0.02, good.set_result, ["done"]).start()
    threading.Timer(0.05, bad.set_exception, [KeyError("broken")]).start()
    assert good.result() == "done"
    assert good.done()
    with pytest.raises(KeyError, match="broken"):
        bad.result()


def test_a_cancelled_ticket_wakes_who_waits_and_never_begins() -> None:
    dropped = LightFuture(ResultOrder())
    threading.Timer(0.02, dropped.cancel).start()
    with pytest.raises(CancelledError):
        dropped.result()
    assert dropped.done()
    assert not dropped.set_running_or_notify_cancel()
