"""Daemon threads can be waited for, also after a signal has interrupted the waiting."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from apyfal.threads import start_threads

#: Seconds that are only waited for if something is wrong.
PATIENCE = 20.0


def test_a_thread_is_waited_for_again_after_an_interruption() -> None:
    go = threading.Event()
    ended: list[bool] = []
    waiting = threading.main_thread().ident
    assert waiting is not None
    threads = start_threads("test", 1, lambda: ended.append(go.wait(PATIENCE)))
    for _ in range(3):
        timer = threading.Timer(0.1, signal.pthread_kill, (waiting, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            threads[0].join(PATIENCE)
        timer.join()
    assert threads[0].is_alive()
    threads[0].join(0.01)
    assert not ended
    threading.Timer(0.1, go.set).start()
    threads[0].join()
    assert ended == [True]
    assert threads[0] not in threading.enumerate()


def test_a_thread_is_waited_for_by_several() -> None:
    go = threading.Event()
    threads = start_threads("test", 1, lambda: go.wait(PATIENCE))
    waiting = start_threads("waits", 5, threads[0].join)
    go.set()
    for thread in waiting:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_thread_cannot_wait_for_itself() -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            threading.current_thread().join()
        except RuntimeError as error:
            found.append(error)

    start_threads("test", 1, work)[0].join(PATIENCE)
    assert len(found) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    go = threading.Event()
    threads = start_threads("test", 1, lambda: go.wait(PATIENCE))
    child = os.fork()
    if not child:
        signal.alarm(10)
        try:
            threads[0].join()
        finally:
            os._exit(7)
    go.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("begun", [0, 1, 2, 3])
@pytest.mark.parametrize("does_begin", [False, True])
def test_threads_whose_start_is_interrupted_are_in_the_list(
    monkeypatch: pytest.MonkeyPatch, begun: int, does_begin: bool
) -> None:
    """Those that work are waited for; one that begins late, or never, does nothing."""
    start, late, go = threading.Thread.start, [], threading.Event()

    def interrupted(thread: threading.Thread) -> None:
        if len(threads) <= begun:
            start(thread)
        else:
            late.append(thread)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    threads: list[threading.Thread] = []
    worked: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        start_threads("test", 4, lambda: worked.append(go.wait(PATIENCE)), threads)
    assert len(threads) == begun + 1
    go.set()
    for thread in (*threads, *threads):
        thread.join(PATIENCE)
    assert worked == [True] * begun
    if does_begin:
        start(late[0])
        threading.Thread.join(late[0], PATIENCE)
        assert not late[0].is_alive()
    assert worked == [True] * begun


def test_a_thread_that_works_before_its_start_is_interrupted_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    start, go, works = threading.Thread.start, threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    worked: list[bool] = []

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        assert works.wait(PATIENCE)
        raise KeyboardInterrupt

    def work() -> None:
        works.set()
        worked.append(go.wait(PATIENCE))

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_threads("test", 1, work, threads)
    monkeypatch.undo()
    threading.Timer(0.1, go.set).start()
    threads[0].join()
    assert worked == [True]
