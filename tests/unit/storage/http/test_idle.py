"""Connections that are kept: which are leased again, and which are closed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from apyfal.host.client.channel import ChannelPool
from apyfal.storage.http.idle import IdleConnections


class Kept:
    """A connection that is quiet or not."""

    def __init__(self, number: int, quiet: bool = True) -> None:
        self.number = number
        self.key = "there"
        self.idle_since = 0.0
        self.closed = False
        self._quiet = quiet

    def is_quiet(self) -> bool:
        return self._quiet

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kept() -> tuple[Any, list[Kept]]:
    """Five connections of which the newest but one was closed by its peer, idle for some seconds."""
    idle: Any = IdleConnections(8)
    connections = [Kept(number, quiet=number != 3) for number in range(5)]
    idle.keep(connections)
    for one in connections:
        one.idle_since = time.monotonic() - 5
    return idle, connections


def test_several_are_the_newest_that_are_open(kept: tuple[Any, list[Kept]]) -> None:
    idle, connections = kept
    assert [one.number for one in idle.several("there", 3, careful=False)] == [4, 2, 1]
    assert connections[3].closed
    assert [one.number for one in idle.several("there", 3, careful=False)] == [0]
    assert idle.several("there", 3, careful=False) == idle.several("elsewhere", 3, careful=False) == []
    assert sum(one.closed for one in connections) == 1


def test_one_that_was_in_use_just_now_is_not_looked_at_unless_it_matters(kept: tuple[Any, list[Kept]]) -> None:
    idle, connections = kept
    for one in connections:
        one.idle_since = time.monotonic() + 3600  # as if it was just now, however slow this machine is
    assert [one.number for one in idle.several("there", 2, careful=False)] == [4, 3]
    idle.keep(connections[3:])
    for one in connections:
        one.idle_since = time.monotonic() + 3600
    assert [one.number for one in idle.several("there", 2, careful=True)] == [4, 2]


def test_what_is_one_too_many_is_closed() -> None:
    idle: Any = IdleConnections(2)
    connections = [Kept(number) for number in range(4)]
    idle.keep(connections)
    assert [one.closed for one in connections] == [True, True, False, False]
    assert len(idle) == 2
    idle.release(connections[3], False)
    assert connections[3].closed


@pytest.mark.parametrize("is_channel", [False, True])
def test_what_is_given_back_after_the_end_is_closed(is_channel: bool) -> None:
    """A job that was cancelled gives its connection back when its accelerator was stopped already."""
    pool: Any = ChannelPool() if is_channel else IdleConnections(8)
    pool.close()
    late: Any = Kept(0)
    late.is_spent = False
    pool.release(late, True)
    assert late.closed
