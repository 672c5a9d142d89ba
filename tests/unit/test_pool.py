"""One job list over several software cards."""

from __future__ import annotations

import gzip
import threading
import time

import numpy as np
import pytest

import apyfal
from apyfal._core import errors
from apyfal.exceptions import ClosedError, DeviceLost, DeviceNotFound, KernelError, ParameterError

FOUR = {"emulator": {"devices": 4}}


def test_jobs_go_to_all_cards_and_keep_their_order():
    before = errors.live()["devices"]  # one that another test left hanging closes when it can
    inputs = [bytes([number % 251]) * 500 for number in range(200)]
    with apyfal.AcceleratorPoolExecutor("loopback", **FOUR) as pool:
        assert [result.tobytes() for result in pool.process_map(inputs)] == inputs
        assert sum(card.jobs for card in pool.statistics) == 200
        assert len(pool.statistics) == 4
    assert errors.live()["devices"] <= before


def test_four_cards_of_equal_speed_are_four_times_one():
    # A run takes 20 ms on each card, whatever this machine's processors do meanwhile.
    def seconds(count: int) -> float:
        slow = {"emulator": {"devices": 4, "run_latency": "20000"}}
        with apyfal.AcceleratorPoolExecutor("loopback", count, **slow) as pool:
            source = apyfal.empty(64, np.uint8)
            list(pool.process_map([source] * count * 3, copy=False))  # everything is open and warm
            start = time.perf_counter()
            list(pool.process_map([source] * 120, copy=False))  # each job is a run of its own
            return time.perf_counter() - start

    # Other programs can only make four threads that are woken late look worse: one of three tries has to show it.
    assert any(seconds(1) / seconds(4) >= 3.8 for _ in range(3))


def test_small_jobs_travel_together_on_each_card():
    sources = [np.full(100, number % 251, np.uint8) for number in range(2000)]
    with apyfal.AcceleratorPoolExecutor("loopback", emulator={"devices": 2, "run_latency": "2ms"}) as pool:
        results = list(pool.process_map(sources))
        runs = [card._context.device.counters()["runs"] for card in pool._accelerators]
        jobs = [card.jobs for card in pool.statistics]
    assert all(np.array_equal(result, source) for result, source in zip(results, sources, strict=True))
    assert sum(jobs) == 2000
    assert sum(runs) < 1000
    assert min(jobs) > 200, "no card takes all"


@pytest.mark.parametrize("nth", [1, 5, 10])
def test_a_card_that_fails_with_jobs_that_travel_together(tmp_path, nth):
    inputs = [np.full(1000, number % 251, "u1") for number in range(600)]
    with apyfal.AcceleratorPoolExecutor("loopback", emulator={"devices": 3, "run_latency": "1ms"}) as pool:
        list(pool.process_map(inputs[:50]))  # it knows that they are small
        before = sum(card.jobs for card in pool.statistics)
        pool._accelerators[1]._context.device.control("lose_device", nth)
        targets = [tmp_path / str(number) for number in range(600)]
        assert list(pool.process_map(inputs, targets)) == [None] * 600
        assert [target.read_bytes() for target in targets] == [data.tobytes() for data in inputs]
        assert sum(card.jobs for card in pool.statistics) - before == 600, "none was lost, none ran twice to its end"
        assert pool.statistics[1].error is not None


def test_an_error_among_jobs_that_travel_together_is_its_own():
    good = np.frombuffer(gzip.compress(b"good"), np.uint8)
    with apyfal.AcceleratorPoolExecutor("gunzip", emulator={"devices": 2, "run_latency": "1ms"}) as pool:
        list(pool.process_map([good] * 50))
        futures = [pool.process_submit(b"no gzip" if number == 40 else good) for number in range(100)]
        for number, future in enumerate(futures):
            if number == 40:
                with pytest.raises(KernelError):
                    future.result(10)
            else:
                assert future.result(10).tobytes() == b"good"
        assert sum(card.failures for card in pool.statistics) == 1


@pytest.mark.parametrize("nth", [1, 5, 50])
def test_a_card_that_fails_is_taken_out_and_its_jobs_run_elsewhere(tmp_path, nth):
    inputs = [np.full(1000, number % 251, "u1") for number in range(100)]
    with apyfal.AcceleratorPoolExecutor("loopback", **FOUR) as pool:
        pool._accelerators[2]._context.device.control("lose_device", nth)
        targets = [tmp_path / str(number) for number in range(100)]
        assert list(pool.process_map(inputs, targets)) == [None] * 100
        assert [target.read_bytes() for target in targets] == [data.tobytes() for data in inputs]
        assert sum(card.jobs for card in pool.statistics) == 100, "none was lost, none ran twice to its end"
        failed = [card for card in pool.statistics if card.error is not None]
        assert [card.name for card in failed] in ([], ["emulator:2"])
        if failed:
            assert failed[0].error.startswith("DeviceLost")


def test_a_job_that_fails_by_itself_takes_no_card_out():
    with apyfal.AcceleratorPoolExecutor("gunzip", **FOUR) as pool:
        futures = [pool.process_submit(b"no gzip") for _ in range(20)]
        for future in futures:
            with pytest.raises(KernelError):
                future.result()
        assert [card.error for card in pool.statistics] == [None] * 4


def test_when_all_cards_are_gone_everything_raises():
    with apyfal.AcceleratorPoolExecutor("loopback", 2, emulator={"devices": 2}) as pool:
        for card in pool._accelerators:
            card._context.device.control("lose_device", 1)
        futures = []
        for _ in range(20):
            try:
                futures.append(pool.process_submit(b"abc"))
            except DeviceLost:
                break
        for future in futures:
            with pytest.raises(DeviceLost):
                future.result(timeout=10)
        with pytest.raises(DeviceLost, match="no card of the pool is left"):
            pool.process_submit(b"abc")


def test_stop_ends_everything():
    before = threading.active_count()
    pool = apyfal.AcceleratorPoolExecutor("loopback", **FOUR)
    futures = [pool.process_submit(np.zeros(1 << 20, "u1")) for _ in range(50)]
    pool.stop()
    assert all(future.done() or future.cancelled() for future in futures)
    with pytest.raises(ClosedError):
        pool.process_submit(b"a")
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("keywords", "error", "text"),
    [
        ({"workers_count": 5}, DeviceNotFound, "asks for 5 devices of driver 'emulator', and there are 4"),
        ({"workers_count": 0}, ParameterError, "expected 1 or more"),
        ({"hosts": []}, DeviceNotFound, "hosts, and there are 0"),
        ({"hosts": ["a"], "executor": object()}, ParameterError, "not both"),
    ],
)
def test_wrong_pools(keywords, error, text):
    with pytest.raises(error, match=text):
        apyfal.AcceleratorPoolExecutor("loopback", **FOUR, **keywords)
