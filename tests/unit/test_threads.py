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
