"""Two threads a direction: the next transfer is with the driver before the last one's run begins, and order is kept."""

from __future__ import annotations

import itertools
import random
import threading
import time
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal._core.device import TO_DEVICE
from apyfal.definition import registry
from apyfal.device.control import Aborted, JobControl, StageQueue
from apyfal.device.launcher import KernelLauncher
from apyfal.device.regions import BufferRegion
from apyfal.device.waiting import wait
from apyfal.exceptions import KernelError
from apyfal.pipeline.stages import OrderedSection

MIB = 1 << 20
CHUNKS = 6


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    """Several chunks that differ."""
    data = apyfal.empty(CHUNKS * 8 * MIB, np.uint8)
    data[...] = np.resize(np.random.default_rng(1).integers(0, 256, 1_000_003, np.uint8), len(data))
    return data


def test_the_next_transfer_waits_at_the_card_while_a_run_is_started(
    data: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [threading.Event() for _ in range(CHUNKS)]
    waited: list[bool] = []
    sync, start = BufferRegion.sync, KernelLauncher.start

    def note(region: BufferRegion, direction: int, nbytes: int) -> None:
        if direction == TO_DEVICE:
            asked[region.offset // (8 * MIB)].set()
        sync(region, direction, nbytes)

    def late(self, chunk, output, **keywords):  # type: ignore[no-untyped-def]
        if not chunk.last:
            waited.append(asked[chunk.number + 1].wait(5))
        return start(self, chunk, output, **keywords)

    with apyfal.Accelerator("loopback") as accelerator:
        result = accelerator.empty(len(data), np.uint8)
        monkeypatch.setattr(BufferRegion, "sync", note)
        monkeypatch.setattr(KernelLauncher, "start", late)
        accelerator.process(data, result)
    assert waited == [True] * (CHUNKS - 1)
    assert np.array_equal(result, data)


@pytest.mark.parametrize("way", ["array", "rings"])
def test_order_is_kept_whichever_thread_is_late(way: str, data: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, pauses = BufferRegion.sync, random.Random(3)

    def uneven(region: BufferRegion, direction: int, nbytes: int) -> None:
        time.sleep(pauses.choice((0.0, 0.02)))
        sync(region, direction, nbytes)
        time.sleep(pauses.choice((0.0, 0.02)))

    source = data if way == "array" else data[1:]
    target = np.zeros(len(source) + 1, np.uint8)[: len(source)]
    info: dict[str, Any] = {}
    with apyfal.Accelerator("loopback") as accelerator:
        monkeypatch.setattr(BufferRegion, "sync", uneven)
        accelerator.process(source, target, info_dict=info)
    assert np.array_equal(source, target)
    for stage in ("to_device", "compute", "from_device"):
        spans = [span for span in info["timeline"] if span.stage == stage]
        assert [span.chunk for span in spans] == list(range(CHUNKS))
        assert all(one.end <= two.start for one, two in itertools.pairwise(spans)), "one at a time"


def test_the_first_run_that_fails_is_the_cause(data: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread looks late, when the error of the run behind it is known already."""
    monkeypatch.setattr(registry, "_definitions", {})

    @apyfal.accelerators.model("broken", dtype="uint8", chunking="elements")
    def broken(src: np.ndarray, dst: np.ndarray, first: int) -> None:
        raise ValueError("the cause" if first else "a consequence")

    turn = itertools.count()

    def late(run, control):  # type: ignore[no-untyped-def]
        time.sleep(0.0 if next(turn) else 0.3)
        wait(run, control)

    monkeypatch.setattr("apyfal.pipeline.stages.wait", late)
    with apyfal.Accelerator("broken") as accelerator, pytest.raises(KernelError, match="the cause"):
        accelerator.process(data)


def test_turns_end_with_the_channel_and_with_a_failure() -> None:
    control = JobControl()
    channel: StageQueue[str] = StageQueue(control, 3)
    for item in "abc":
        channel.put(item)
    channel.end()
    turns = OrderedSection(control, channel)
    assert list(turns) == [(0, "a"), (1, "b"), (2, "c")]
    with turns.turn(0):
        pass
    threading.Timer(0.05, control.fail, [ValueError("elsewhere")]).start()
    with pytest.raises(Aborted), turns.turn(2):
        raise RuntimeError("the second has not had its turn")
