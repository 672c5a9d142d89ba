"""Threads that work through a queue."""

from __future__ import annotations

import threading

from memory_store import MemoryHandler

from apyfal.storage.flow.concurrency import AdaptiveConcurrency
from apyfal.storage.flow.worker_pool import WorkerPool
from apyfal.storage.transfer import TransferOptions


def adaptive(options: TransferOptions, step: int = 1 << 20) -> AdaptiveConcurrency:
    return AdaptiveConcurrency(options, MemoryHandler(), step=step)


def test_every_item_is_done_in_order_by_as_many_as_there_should_be() -> None:
    lock = threading.Lock()
    begun: list[int] = []
    at_work, most = 0, 0

    def work(item: int) -> None:
        nonlocal at_work, most
        with lock:
            begun.append(item)
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.001)
        with lock:
            at_work -= 1

    workers: WorkerPool[int] = WorkerPool("test-workers", adaptive(TransferOptions(concurrency=3)), work)
    for item in range(100):
        workers.put(item)
    workers.close()
    assert sorted(begun) == list(range(100))
    assert begun[:3] == [0, 1, 2]
    assert most == 3


def test_the_one_in_reserve_steps_in_when_the_first_is_held_up() -> None:
    held, others = threading.Event(), threading.Semaphore(0)

    def work(item: int) -> None:
        if item == 0:
            assert held.wait(10)
        else:
            others.release()

    workers: WorkerPool[int] = WorkerPool("test-workers", adaptive(TransferOptions()), work)
    for item in range(4):
        workers.put(item)
    for _ in range(3):
        assert others.acquire(timeout=10), "nobody stepped in"
    held.set()
    workers.close()


def test_what_was_not_begun_can_be_taken_back() -> None:
    held, begun = threading.Event(), threading.Event()
    done: list[int] = []

    def work(item: int) -> None:
        begun.set()
        assert held.wait(10)
        done.append(item)

    workers: WorkerPool[int] = WorkerPool("test-workers", adaptive(TransferOptions(concurrency=1)), work)
    for item in range(3):
        workers.put(item)
    assert begun.wait(10)
    assert workers.clear() == [1, 2]
    held.set()
    workers.close()
    assert done == [0]


def test_a_pool_without_work_has_no_threads() -> None:
    before = threading.active_count()
    workers: WorkerPool[int] = WorkerPool("test-workers", adaptive(TransferOptions()), lambda item: None)
    assert threading.active_count() == before
    workers.close()
