"""Turns, queues and rates."""

from __future__ import annotations

import asyncio

import pytest

from apyfal.host.server.jobs.fair_queue import FairQueue, RateLimiter, RoundRobin
from apyfal.host.server.policy.refusals import TooBusy, TooMany


def test_users_take_turns() -> None:
    queue: FairQueue[str] = FairQueue(100, 50)
    for number in range(5):
        queue.put("alice", f"a{number}")
    for number in range(2):
        queue.put("bob", f"b{number}")
    queue.put("carol", "c0")
    assert [queue.take() for _ in range(len(queue))] == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]
    assert queue.take() is None


def test_limits_refuse_at_once() -> None:
    queue: FairQueue[int] = FairQueue(5, 3)
    for number in range(3):
        queue.put("alice", number)
    with pytest.raises(TooMany, match="3 jobs of yours"):
        queue.put("alice", 9)
    queue.put("bob", 1)
    queue.put("bob", 2)
    with pytest.raises(TooBusy, match="5 jobs waiting"):
        queue.put("carol", 1)
    assert len(queue) == 5
    assert sorted(queue) == [0, 1, 1, 2, 2]


def test_removing_what_waits() -> None:
    queue: FairQueue[str] = FairQueue(5, 5)
    queue.put("alice", "a")
    assert not queue.remove("alice", "b")
    assert not queue.remove("bob", "a")
    assert queue.remove("alice", "a")
    assert len(queue) == 0
    assert queue.take() is None


def test_rates_allow_bursts_and_recover() -> None:
    now = [0.0]
    limiter = RateLimiter(2.0, 3.0, clock=lambda: now[0])
    for _ in range(3):
        limiter.acquire("alice")
    with pytest.raises(TooMany) as caught:
        limiter.acquire("alice")
    assert caught.value.retry_after == pytest.approx(0.5)
    limiter.acquire("bob")
    now[0] = 0.6
    limiter.acquire("alice")
    now[0] = 1000.0
    for _ in range(3):
        limiter.acquire("alice")
    with pytest.raises(TooMany):
        limiter.acquire("alice")


def test_rates_of_many_names_take_bounded_memory() -> None:
    limiter = RateLimiter(1.0, 1.0)
    for number in range(20_000):
        limiter.acquire(str(number))
    assert len(limiter._levels) <= RateLimiter._MAX_NAMES


async def started(turns: RoundRobin, user: str, log: list[str]) -> int:
    number = await turns.begin(user)
    log.append(user)
    return number


def test_one_request_does_not_wait_behind_all_of_another_user() -> None:
    async def main() -> None:
        turns = RoundRobin(present=10.0, patience=10.0)
        log: list[str] = []
        alice = await started(turns, "alice", log)
        bob = await started(turns, "bob", log)
        waiting = [asyncio.create_task(started(turns, "bob", log)) for _ in range(2)]
        await asyncio.sleep(0)
        assert log == ["alice", "bob"], "nobody's only request waits, and of bob's only one"
        for number in range(2):
            turns.end("bob", bob)
            await asyncio.sleep(0)
            assert not waiting[number].done(), "alice's comes first"
            turns.end("alice", alice)
            bob = await waiting[number]
            alice = await started(turns, "alice", log)
        assert log == ["alice", "bob"] + 2 * ["bob", "alice"]

    asyncio.run(main())


def test_users_with_many_requests_take_turns() -> None:
    async def main() -> None:
        turns = RoundRobin(present=10.0, patience=10.0)
        log: list[str] = []
        numbers = [(user, await started(turns, user, log)) for user in ("bob", "carol")]
        tasks = [asyncio.create_task(started(turns, user, log)) for user in ("bob", "bob", "bob", "carol", "carol")]
        await asyncio.sleep(0)
        for user, number in numbers:
            turns.end(user, number)
        for _ in tasks:
            await asyncio.sleep(0)
            user = log[-1]
            number = turns._holding[user]
            turns.end(user, number)
        assert log[2:] == ["bob", "carol", "bob", "carol", "bob"]
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_a_user_who_is_alone_never_waits() -> None:
    async def main() -> None:
        turns = RoundRobin(present=0.02, patience=10.0)
        log: list[str] = []
        for _ in range(5):
            await started(turns, "bob", log)
        turns.end("alice", await started(turns, "alice", log))
        await asyncio.sleep(0.05)  # she has gone
        for _ in range(5):
            await started(turns, "bob", log)
        assert len(log) == 11

    asyncio.run(main())


def test_a_request_that_takes_long_holds_up_no_others_of_its_user() -> None:
    async def main() -> None:
        turns = RoundRobin(present=10.0, patience=0.02)
        log: list[str] = []
        await started(turns, "alice", log)
        long = await started(turns, "bob", log)
        second = asyncio.create_task(started(turns, "bob", log))
        third = asyncio.create_task(started(turns, "bob", log))
        await asyncio.sleep(0)
        assert log == ["alice", "bob"]
        second.cancel()  # its client has gone
        number = await asyncio.wait_for(third, 5)
        turns.end("bob", long)
        turns.end("bob", number)
        turns.end("bob", await asyncio.wait_for(started(turns, "bob", log), 5))
        assert log == ["alice", "bob", "bob", "bob"]

    asyncio.run(main())
