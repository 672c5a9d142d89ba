"""How many connections a transfer takes, with a clock of the test's own."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from memory_store import MemoryHandler

from apyfal.storage.flow import concurrency
from apyfal.storage.flow.concurrency import SLOW, AdaptiveConcurrency
from apyfal.storage.transfer import TransferOptions, download, upload

MIB = 1 << 20


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(concurrency, "time", SimpleNamespace(monotonic=lambda: self.now))

    def run(self, adapting: AdaptiveConcurrency, rate_of: dict[int, float], seconds: float) -> list[int]:
        """Let `seconds` pass at the rate that goes with the target; return the targets there were."""
        seen = [adapting.target]
        for _ in range(int(seconds / 0.01)):
            self.now += 0.01
            known = max((count for count in rate_of if count <= adapting.target), default=1)
            adapting.moved(int(rate_of[known] * 0.01))
            if adapting.target != seen[-1]:
                seen.append(adapting.target)
        return seen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_slow_connections_get_company_at_once_and_more_while_it_helps(clock: Clock) -> None:
    adapting = AdaptiveConcurrency(TransferOptions(), MemoryHandler(), step=MIB)
    seen = clock.run(adapting, {count: count * 60e6 for count in range(1, 17)}, 3.0)
    assert seen == [1, 4, 6, 9, 13, 16]


def test_slow_connections_that_share_a_line_stay_few(clock: Clock) -> None:
    adapting = AdaptiveConcurrency(TransferOptions(), MemoryHandler(), step=MIB)
    seen = clock.run(adapting, {1: 60e6, 4: 110e6, 6: 112e6}, 3.0)
    assert seen == [1, 4, 6, 4]


def test_a_fast_connection_stays_alone_where_a_second_brings_nothing(clock: Clock) -> None:
    adapting = AdaptiveConcurrency(TransferOptions(), MemoryHandler(), step=MIB)
    assert clock.run(adapting, {1: 2e9, 2: 2.1e9}, 3.0) == [1, 2, 1]


def test_fast_connections_are_added_while_each_helps(clock: Clock) -> None:
    adapting = AdaptiveConcurrency(TransferOptions(), MemoryHandler(), step=MIB)
    assert clock.run(adapting, {1: 1e9, 2: 2e9, 3: 3e9, 4: 3.1e9}, 3.0) == [1, 2, 3, 4, 3]


def test_an_idle_first_connection_is_not_waited_for(clock: Clock) -> None:
    adapting = AdaptiveConcurrency(TransferOptions(), MemoryHandler(), step=MIB)
    clock.now += MIB / SLOW + 0.01
    adapting.update()
    assert adapting.target == 4


def test_given_numbers_are_kept(clock: Clock) -> None:
    adapting = AdaptiveConcurrency(TransferOptions(concurrency=3), MemoryHandler(), step=MIB)
    assert adapting.poll_interval is None
    assert clock.run(adapting, {1: 1e6, 3: 3e6}, 2.0) == [3]


def test_never_more_than_allowed(clock: Clock) -> None:
    handler = MemoryHandler()
    handler.max_concurrency = 5
    rates = {count: count * 60e6 for count in range(1, 17)}
    assert max(clock.run(AdaptiveConcurrency(TransferOptions(), handler, step=MIB), rates, 3.0)) == 5
    assert max(clock.run(AdaptiveConcurrency(TransferOptions(), handler, step=MIB, first=2, most=2), rates, 3.0)) == 2
    assert AdaptiveConcurrency(TransferOptions(), handler, step=MIB, most=0).target == 1


class Counting(MemoryHandler):
    """Counts the requests under way; each takes `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__()
        self.delay = delay
        self.under_way = self.most = 0

    def check(self, call: str) -> None:
        super().check(call)
        if call not in ("write_part", "readinto"):
            return
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        threading.Event().wait(self.delay)
        with self.lock:
            self.under_way -= 1


def test_transfers_to_and_from_a_slow_store_take_several() -> None:
    data = bytes(60 * MIB)
    handler = Counting(0.03)  # for each MiB
    options = TransferOptions(part_size=MIB)
    upload(handler, "b/object", memoryview(data), options=options)
    assert 4 <= handler.most <= 16
    assert handler.objects["b/object"][0] == data
    handler.most = 0
    download(handler, "b/object", memoryview(bytearray(len(data))), options=options)
    assert 4 <= handler.most <= 16
