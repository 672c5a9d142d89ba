"""Deadlines are watched by one thread, whatever their number, and each call has its own."""

from __future__ import annotations

import os
import threading
from time import monotonic, sleep
from typing import Any

import pytest

from apyfal.storage.flow import deadlines as module
from apyfal.storage.flow.deadlines import Deadlines
from apyfal.threads import start_threads

#: Seconds that are only waited for if something is wrong.
PATIENCE = 20.0


def watching() -> int:
    return sum(thread.name == "apyfal-deadlines-0" for thread in threading.enumerate())


def test_calls_come_at_their_times_in_any_order_of_adding() -> None:
    deadlines, began = Deadlines(), monotonic()
    called: dict[float, float] = {}
    all_called = threading.Event()

    def call(delay: float) -> None:
        called[delay] = monotonic() - began
        if len(called) == 4:
            all_called.set()

    keys = [deadlines.add(began + delay, lambda delay=delay: call(delay)) for delay in (60.0, 0.3, 0.1, 0.2, -1.0)]
    assert all_called.wait(PATIENCE)
    assert sorted(called) == [-1.0, 0.1, 0.2, 0.3]
    assert all(when >= delay for delay, when in called.items())
    deadlines.discard(keys[0])


def test_one_that_is_discarded_is_not_called_and_costs_no_thread() -> None:
    deadlines, called = Deadlines(), threading.Event()
    before = watching()
    for _ in range(10_000):
        deadlines.discard(deadlines.add(monotonic() + 0.2, called.set))
    assert watching() <= before + 1
    assert not deadlines._pending
    assert not called.wait(0.4)


def test_a_call_that_blocks_delays_no_other() -> None:
    deadlines, go, called = Deadlines(), threading.Event(), threading.Event()
    deadlines.add(monotonic(), lambda: go.wait(PATIENCE))
    deadlines.add(monotonic() + 0.05, called.set)
    assert called.wait(PATIENCE / 2)
    go.set()


def test_the_thread_ends_when_it_has_nothing_to_do_and_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.05)
    deadlines = Deadlines()
    for _ in range(2):
        called = threading.Event()
        deadlines.add(monotonic(), called.set)
        assert called.wait(PATIENCE)
        until = monotonic() + PATIENCE
        while deadlines._is_watched and monotonic() < until:
            sleep(0.01)
        assert not deadlines._is_watched


def test_a_call_for_which_there_is_no_thread_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, called = Deadlines(), threading.Event()
    refused: list[str] = []

    def start(name: str, *arguments: Any) -> Any:
        if name == "deadline" and len(refused) < 3:
            refused.append(name)
            raise RuntimeError("can't start new thread")
        return start_threads(name, *arguments)

    monkeypatch.setattr(module, "start_threads", start)
    deadlines.add(monotonic(), called.set)
    assert called.wait(PATIENCE)
    assert len(refused) == 3


def test_an_error_of_the_watching_thread_costs_no_later_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, called = Deadlines(), threading.Event()
    seen: list[type[BaseException]] = []

    def fail() -> float:
        if not seen:
            raise MemoryError
        return monotonic()

    monkeypatch.setattr(threading, "excepthook", lambda arguments: seen.append(arguments.exc_type))
    monkeypatch.setattr(module, "monotonic", fail)
    deadlines.add(monotonic(), lambda: None)
    until = monotonic() + PATIENCE
    while not seen and monotonic() < until:
        sleep(0.01)
    assert seen == [MemoryError]
    deadlines.add(monotonic(), called.set)
    assert called.wait(PATIENCE)


def test_a_forked_child_has_deadlines_of_its_own() -> None:
    called = threading.Event()
    key = module.deadlines.add(monotonic() + PATIENCE, called.set)
    child = os.fork()
    if not child:
        in_child = threading.Event()
        module.deadlines.add(monotonic(), in_child.set)
        os._exit(0 if in_child.wait(PATIENCE) and key not in module.deadlines._pending else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    module.deadlines.discard(key)
