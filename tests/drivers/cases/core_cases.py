"""What every card must do, one layer lower: buffer objects, parts of them, runs in any order, wrong arguments."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drivers.support.cards import Card, card

import apyfal
from apyfal._core.device import FROM_DEVICE, TO_DEVICE, Device, Kernel
from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments, Run
from apyfal.definition.resolve import resolve
from apyfal.device.drivers import require_driver
from apyfal.exceptions import (
    DeviceMemoryExhausted,
    Misaligned,
    ParameterError,
    ProgramError,
    RunCancelled,
    RunTimeout,
    UnsupportedByDriver,
)
from apyfal.rtl.program import make_program


class Rig:
    """A card's device with its ``increment`` kernel."""

    def __init__(self, row: Card, settings: Mapping[str, Any] | None = None) -> None:
        settings = settings or row.increment
        self.row = row
        self.device = Device(require_driver(row.driver), None, settings.get(row.driver))
        self.settings = settings
        self.program = settings.get("program")
        self.kernel = self.load(settings["kernel"], settings.get("arguments", ""))
        self.capabilities = self.device.info["capabilities"]

    def load(self, kernel: str, arguments: str = "") -> Kernel:
        content = None
        if self.row.driver == "rtl":  # what is loaded is made from the sources
            content = make_program(resolve(None, **{**self.settings, "kernel": kernel}))
        elif self.program is not None:
            content = Path(self.program).read_bytes()
        return self.device.load(kernel, content, name=self.program or "", arguments=arguments)

    def arguments(
        self, src: np.ndarray, dst: np.ndarray, *, to: bool = True, back: bool = True, count: int | None = None
    ) -> Arguments:
        arguments = Arguments(3 + len(self.row.scalars))
        for index, (array, flag) in enumerate(((src, SYNC_TO if to else 0), (dst, SYNC_FROM if back else 0))):
            bo, offset = self.device.import_memory(array)
            arguments.set_buffer(index, bo, offset, array.nbytes, flag)
        arguments.set_scalar(2, "uint64", src.size if count is None else count)
        for index, (kind, value) in enumerate(self.row.scalars, start=3):
            arguments.set_scalar(index, kind, value)
        return arguments

    def start(self, src: np.ndarray, dst: np.ndarray, **how: bool) -> Run:
        return self.arguments(src, dst, **how).start(self.kernel)


def _filled(count: int, value: int = 0) -> np.ndarray:
    array = apyfal.empty(count, np.int32)
    array[:] = value
    return array


def moves_just_what_it_must(name: str) -> None:
    rig = Rig(card(name))
    if "counters" not in rig.capabilities:
        return
    src, dst = _filled(3000, 7), _filled(3000)
    before = rig.device.counters()
    rig.start(src, dst).wait(20)
    after = rig.device.counters()
    assert {key: after[key] - before[key] for key in ("to_device", "from_device", "runs")} == {
        "to_device": 12000,
        "from_device": 12000,
        "runs": 1,
    }
    np.testing.assert_array_equal(dst, np.full(3000, 8))


def syncs_are_needed_where_memory_is_separate(name: str) -> None:
    """Without them the host sees nothing of the device, and the device nothing of the host."""
    rig = Rig(card(name))
    if "separate-memory" not in rig.capabilities:
        return
    src, dst = _filled(1024, 7), _filled(1024, -1)
    rig.start(src, dst, back=False).wait(20)
    np.testing.assert_array_equal(dst, np.full(1024, -1))
    src[:] = 100
    rig.start(src, dst, to=False).wait(20)
    np.testing.assert_array_equal(dst, np.full(1024, 8))


def syncs_a_part(name: str) -> None:
    rig = Rig(card(name))
    src, dst = _filled(4096, 1), _filled(4096)
    bo, offset = rig.device.import_memory(src)
    bo.sync(TO_DEVICE, offset, src.nbytes)
    src[:] = 5
    bo.sync(TO_DEVICE, offset + 4000, 1000)
    rig.start(src, dst, to=False).wait(20)
    expected = np.full(4096, 2)
    expected[1000:1250] = 6
    if "separate-memory" in rig.capabilities:
        np.testing.assert_array_equal(dst, expected)
    else:
        np.testing.assert_array_equal(dst[1000:1250], expected[1000:1250])
    out, at = rig.device.import_memory(dst)
    dst[:] = -1
    out.sync(FROM_DEVICE, at + 4400, 20)
    if "separate-memory" in rig.capabilities:
        expected[:] = -1
        expected[1100:1105] = 6
        np.testing.assert_array_equal(dst, expected)
    with pytest.raises(ParameterError):
        bo.sync(TO_DEVICE, bo.nbytes - 4, 8)


def arguments_begin_inside_a_buffer(name: str) -> None:
    rig = Rig(card(name))
    step = rig.device.info["offset_align"] // 4 or 1
    src, dst = _filled(1 << 14), _filled(1 << 14, -1)
    src[:] = np.arange(1 << 14)
    if "offset" not in rig.capabilities:
        with pytest.raises(Misaligned):
            rig.start(src[1024:], dst[:-1024])
        return
    for turn in range(40):  # more parts than a driver would keep
        begin = (turn + 1) * step
        rig.start(src[begin : begin + 100], dst[begin : begin + 100]).wait(20)
        np.testing.assert_array_equal(dst[begin : begin + 100], np.arange(begin + 1, begin + 101))
    if step > 1:
        with pytest.raises((Misaligned, ParameterError)):
            rig.start(src[1:101], dst[:100]).wait(20)


def runs_are_waited_for_in_any_order(name: str) -> None:
    rig = Rig(card(name))
    pairs = [(_filled(2048, turn), _filled(2048)) for turn in range(48)]
    runs = [rig.start(src, dst) for src, dst in pairs]
    for turn in reversed(range(48)):
        runs[turn].wait(20)
        np.testing.assert_array_equal(pairs[turn][1], np.full(2048, turn + 1))


def times_are_those_of_the_run(name: str) -> None:
    """Within the time that it was waited for; nothing where a driver does not measure."""
    rig = Rig(card(name))
    src, dst = _filled(1 << 20, 7), _filled(1 << 20)
    for _ in range(3):
        began = time.monotonic()
        run = rig.start(src, dst)
        run.wait(20)
        took = time.monotonic() - began
        if name in ("plugin", "xrt"):  # XRT's C interface does not tell
            assert run.seconds == 0
        else:
            assert 0 < run.seconds < took


def a_run_waits_for_those_whose_memory_it_uses(name: str) -> None:
    rig = Rig(card(name))
    arrays = [_filled(100_000, 40 * step) for step in range(6)]
    runs = [
        rig.start(arrays[step], arrays[step + 1], to=step == 0, back=step == 4) for step in range(5)
    ]  # each on the result of the one before
    runs[-1].wait(20)
    np.testing.assert_array_equal(arrays[5], np.full(100_000, 5))
    for run in runs:
        run.wait(20)
    first, second = _filled(100_000, 1), _filled(100_000)
    for turn in range(20):  # the same memory in every run, one after the other
        run = rig.start(first, second)
        run.wait(20)
        first[:] = second
        assert second[turn] == turn + 2


def device_memory_is_moved_from_and_to_any_memory(name: str) -> None:
    """Of every alignment and size, and no byte beside it; zeros are counted only if they cross the bus."""
    rig = Rig(card(name))
    if not rig.device.transfers:
        bo = rig.device.alloc(64)
        with pytest.raises(UnsupportedByDriver, match="imported memory"):
            bo.transfer(TO_DEVICE, bytearray(64))
        return
    counts = "counters" in rig.capabilities
    data = np.random.default_rng(1).integers(0, 256, 1 << 21, np.uint8)
    memory = rig.device.alloc(data.size, rig.kernel.bank(0))
    memory.transfer(TO_DEVICE, data)
    before = rig.device.counters() if counts else {}
    for offset, nbytes, at in ((0, 1, 0), (0, 4096, 1), (64, 100_003, 7), (4099, 1 << 20, 3), (1, 0, 0)):
        data[offset : offset + nbytes] ^= 255
        source = np.zeros(nbytes + at, np.uint8)[at:]
        source[:] = data[offset : offset + nbytes]
        memory.transfer(TO_DEVICE, source, offset)
        found = np.full(nbytes + at + 9, 7, np.uint8)
        memory.transfer(FROM_DEVICE, found[at : at + nbytes], offset)
        np.testing.assert_array_equal(found[at : at + nbytes], source)
        assert set(found[:at]) | set(found[at + nbytes :]) == {7}
    moved = 1 + 4096 + 100_003 + (1 << 20)
    if counts:
        after = rig.device.counters()
        assert [after[key] - before[key] for key in ("to_device", "from_device")] == [moved, moved]
    try:
        memory.transfer(TO_DEVICE, None, 100, 5000)
        data[100:5100] = 0
    except UnsupportedByDriver:
        assert name.startswith("xdma")
    if counts:
        assert rig.device.counters()["to_device"] == after["to_device"]
    found = np.empty_like(data)
    memory.transfer(FROM_DEVICE, found)
    np.testing.assert_array_equal(found, data)
    with pytest.raises(ParameterError, match="5 bytes from byte 2097148 on of a buffer object of 2097152"):
        memory.transfer(TO_DEVICE, bytearray(5), data.size - 4)
    with pytest.raises(ParameterError, match="without a host side"):
        rig.device.import_memory(_filled(16))[0].transfer(TO_DEVICE, bytearray(4))


def runs_on_device_memory_keep_their_order(name: str) -> None:
    """Eight runs, each on the result of the one before, started at once; only the first and the last move data."""
    rig = Rig(card(name))
    size = 40_000
    src, dst = _filled(size, 5), _filled(size)
    middle = [rig.device.alloc(4 * size, rig.kernel.bank(0)) for _ in range(2)]
    before = rig.device.counters() if "counters" in rig.capabilities else None
    runs = []
    for step in range(8):
        arguments = rig.arguments(src, dst, to=step == 0, back=step == 7)
        if step > 0:
            arguments.set_buffer(0, middle[(step - 1) % 2], 0, 4 * size, 0)
        if step < 7:
            arguments.set_buffer(1, middle[step % 2], 0, 4 * size, 0)
        runs.append(arguments.start(rig.kernel))
    for run in reversed(runs):
        run.wait(20)
    np.testing.assert_array_equal(dst, np.full(size, 13))
    if before is not None:
        after = rig.device.counters()
        assert [after[key] - before[key] for key in ("to_device", "from_device")] == [4 * size, 4 * size]


def parts_of_no_bytes(name: str) -> None:
    """Nothing is moved, computed or overwritten, nor is it an error."""
    rig = Rig(card(name))
    src, dst = _filled(1024, 7), _filled(1024, -1)
    (x, from_x), (y, from_y) = (rig.device.import_memory(array) for array in (src, dst))
    for direction in (TO_DEVICE, FROM_DEVICE):
        x.sync(direction, from_x, 0)
        x.sync(direction, x.nbytes, 0)
    arguments = rig.arguments(src, dst, count=0)
    arguments.set_buffer(0, x, from_x, 0, SYNC_TO)
    arguments.set_buffer(1, y, from_y, 0, SYNC_FROM)
    arguments.start(rig.kernel).wait(20)
    np.testing.assert_array_equal(dst, np.full(1024, -1))
    rig.start(src, dst).wait(20)
    np.testing.assert_array_equal(dst, np.full(1024, 8))


def cancel_of_a_run(name: str) -> None:
    """One that hangs is stopped, or goes on where the capabilities say that it cannot be; one that ended stays so."""
    row = card(name)
    assert row.hang is not None
    rig = Rig(row, row.hang)
    src, dst = _filled(4096), _filled(4096, -1)
    run = rig.start(src, dst)
    with pytest.raises(RunTimeout):
        run.wait(0.05)
    if "cancel" in rig.capabilities:
        run.cancel()
        for _ in range(2):
            with pytest.raises(RunCancelled):
                run.wait(20)
    else:
        with pytest.raises(UnsupportedByDriver):
            run.cancel()
        assert row.release is not None
        row.release(src)
        run.wait(20)
    well = Rig(row)
    done = well.start(_filled(4096, 7), dst)
    done.wait(20)
    done.cancel()
    done.wait(20)
    np.testing.assert_array_equal(dst, np.full(4096, 8))


def out_of_device_memory(name: str) -> None:
    rig = Rig(card(name))
    with pytest.raises(DeviceMemoryExhausted):
        rig.device.alloc(1 << 50)
    src, dst = _filled(1024, 1), _filled(1024)
    rig.start(src, dst).wait(20)
    np.testing.assert_array_equal(dst, np.full(1024, 2))


def wrong_arguments(name: str) -> None:
    rig = Rig(card(name))
    src, dst = _filled(1024), _filled(1024)
    with pytest.raises(ParameterError, match="argument"):
        Arguments(1).start(rig.kernel)
    bo, offset = rig.device.import_memory(src)
    swapped = rig.arguments(src, dst)
    swapped.set_buffer(2, bo, offset, 64, 0)
    with pytest.raises(ParameterError, match="argument 2"):
        swapped.start(rig.kernel)
    scalar = rig.arguments(src, dst)
    scalar.set_scalar(1, "uint64", 5)
    with pytest.raises(ParameterError, match="argument 1"):
        scalar.start(rig.kernel)
    rig.start(src, dst).wait(20)


def an_unknown_kernel(name: str) -> None:
    row = card(name)
    if row.driver == "xdma":
        return  # its kernels have no names but those that the user gives their registers
    rig = Rig(row)
    with pytest.raises(ProgramError, match="no such kernel"):
        rig.load("no such kernel", "src, dst, count")
    src, dst = _filled(1024, 7), _filled(1024)
    rig.start(src, dst).wait(20)
    np.testing.assert_array_equal(dst, np.full(1024, 8))


def many_imports_and_loads_leave_nothing(name: str) -> None:
    if "counters" not in Rig(card(name)).capabilities:
        return
    rig = Rig(card(name))
    used = rig.device.counters()["memory_used"]
    for _ in range(20):
        bo = rig.device.alloc(1 << 16)
        assert rig.device.counters()["memory_used"] >= used + (1 << 16)
        del bo
        Rig(card(name)).device.close()
    assert rig.device.counters()["memory_used"] == used
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        Rig(card(name)).device.close()
    assert len(os.listdir("/proc/self/fd")) <= files + 1
