"""Turns, queues and rates."""

from __future__ import annotations

import pytest

from apyfal.host.scheduling import FairQueue, RateLimiter, TooBusy, TooMany


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
        limiter.take("alice")
    with pytest.raises(TooMany) as caught:
        limiter.take("alice")
    assert caught.value.retry_after == pytest.approx(0.5)
    limiter.take("bob")
    now[0] = 0.6
    limiter.take("alice")
    now[0] = 1000.0
    for _ in range(3):
        limiter.take("alice")
    with pytest.raises(TooMany):
        limiter.take("alice")


def test_rates_of_many_names_take_bounded_memory() -> None:
    limiter = RateLimiter(1.0, 1.0)
    for number in range(20_000):
        limiter.take(str(number))
    assert len(limiter._levels) <= RateLimiter._MAX_NAMES
