"""Threads that run jobs: each end is told once, by a wake-up of the loop or to who waits for it."""

from __future__ import annotations

import asyncio
import threading
import time

from apyfal.host.server.transport.threads import Threads


def test_each_end_is_told_once_whoever_waits() -> None:
    """A thousand jobs that end before, while and after the loop waits for them."""
    ended: list[tuple[int, BaseException | None]] = []

    def run(number: int) -> None:
        if number % 3 == 1:
            time.sleep(0.0003)
        if number % 5 == 4:
            raise ValueError(number)

    async def main() -> None:
        threads: Threads[int] = Threads(run, lambda number, failure: ended.append((number, failure)))
        for number in range(1000):
            threads.begin(number)
            if number % 2:
                threads.await_end(0.0002)
            if number % 7 == 0:
                await asyncio.sleep(0)
        until = time.monotonic() + 20
        while len(ended) < 1000 and time.monotonic() < until:
            await asyncio.sleep(0.001)
        threads.stop()

    asyncio.run(main())
    assert sorted(number for number, _ in ended) == list(range(1000))
    assert {number for number, failure in ended if failure is not None} == set(range(4, 1000, 5))


def test_who_waits_is_not_held_for_longer_than_they_said() -> None:
    may_end = threading.Event()
    ended: list[int] = []

    async def main() -> None:
        threads: Threads[int] = Threads(lambda number: may_end.wait(10), lambda number, _: ended.append(number))
        threads.begin(1)
        began = time.monotonic()
        threads.await_end(0.01)
        assert time.monotonic() - began < 1
        assert ended == []
        may_end.set()
        until = time.monotonic() + 10
        while not ended and time.monotonic() < until:
            await asyncio.sleep(0.001)
        threads.stop()

    asyncio.run(main())
    assert ended == [1]
