"""The output of a job that still runs: what the worker says of it, and what the event loop does with that."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import HostError
from apyfal.host.server.jobs.early_output import EarlyOutput

MIB = 1 << 20


def _looped(check: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(check(), 20)

    asyncio.run(run())


def test_pieces_are_those_that_are_final() -> None:
    async def check() -> None:
        woken: list[int] = []
        array = np.arange(100, dtype=np.uint8)
        early = EarlyOutput(100, lambda: woken.append(1))
        waiting = asyncio.create_task(early.piece(0, 30))
        with early.made_in(array):
            await asyncio.sleep(0)
            assert not waiting.done()
            await asyncio.to_thread(early._produced, 40)
            assert bytes(await waiting) == bytes(range(30))
            assert bytes(await early.piece(30, 30)) == bytes(range(30, 40))
            waiting = asyncio.create_task(early.piece(40, 1000))
            await asyncio.sleep(0.01)
            assert not waiting.done()
        early.end()
        assert bytes(await waiting) == bytes(range(40, 100))
        await early.ended()
        assert woken == [1]

    _looped(check)


def test_one_wake_up_serves_all_that_was_produced_until_then() -> None:
    async def check() -> None:
        woken: list[int] = []
        early = EarlyOutput(100, lambda: woken.append(1))
        with early.made_in(np.zeros(100, np.uint8)):
            for nbytes in range(1, 50):
                early._produced(nbytes)
            await asyncio.sleep(0.01)
            assert len(woken) == 1
            early._produced(60)
            await asyncio.sleep(0.01)
        assert len(woken) == 2

    _looped(check)


def test_a_job_must_not_begin_again() -> None:
    async def check() -> None:
        early = EarlyOutput(100, lambda: None)
        with early.made_in(np.zeros(100, np.uint8)):
            early._produced(40)
            with pytest.raises(HostError, match="began again"):
                early._produced(20)

    _looped(check)


@pytest.mark.parametrize("before", [True, False])
def test_memory_that_nobody_receives_is_not_kept(before: bool) -> None:
    async def check() -> None:
        woken: list[int] = []
        array: np.ndarray | None = np.zeros(100, np.uint8)
        assert array is not None
        kept = weakref.ref(array)
        early = EarlyOutput(100, lambda: woken.append(1))
        if before:
            early.drop()
        with early.made_in(array):
            early._produced(50)  # the worker goes on
            early.drop()
            early._produced(70)
        del array
        assert kept() is None
        await asyncio.sleep(0.01)
        assert woken == []

    gc.disable()
    try:
        _looped(check)
    finally:
        gc.enable()


def test_a_worker_may_outlive_the_loop() -> None:
    made: list[EarlyOutput] = []

    async def check() -> None:
        made.append(EarlyOutput(100, lambda: None))

    _looped(check)
    made[0]._produced(10)


def test_a_job_of_several_chunks_is_reported_by_the_thread_that_runs_it() -> None:
    async def check() -> None:
        seen: list[int] = []
        nbytes = 40 * MIB
        source, target = apyfal.empty(nbytes, np.uint8), apyfal.empty(nbytes, np.uint8)
        source[:], target[:] = 7, 0
        early = EarlyOutput(nbytes, lambda: None)

        def work() -> None:
            with apyfal.Accelerator("loopback") as card, early.made_in(target):
                card.process(source, target, progress=lambda done, total: seen.append(done))

        running = asyncio.create_task(asyncio.to_thread(work))
        received = 0
        while received < nbytes:
            piece = await early.piece(received, MIB)
            assert not np.any(np.frombuffer(piece, np.uint8) != 7)
            received += len(piece)
        await running
        assert len(seen) > 2

    _looped(check)
