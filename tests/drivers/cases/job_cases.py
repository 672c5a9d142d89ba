"""What every card must do, through the public API. Each function is one case; it gets the name of its card."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from drivers.support.cards import Card, card

import apyfal
from apyfal.exceptions import (
    ClosedError,
    CopyRefused,
    DeviceLost,
    ForkedProcess,
    KernelError,
    ProgramError,
    RunTimeout,
)


def _open(row: Card, **more: Any) -> apyfal.Accelerator:
    return apyfal.Accelerator(**{**row.increment, **more})


def _modelled(keywords: Mapping[str, Any]) -> apyfal.Accelerator:
    """Open an accelerator that is a model on the software card."""
    import drivers.support.software_models  # noqa: F401 - here, so that a process that only collects these cases has none

    return apyfal.Accelerator(**keywords)


def _values(count: int, seed: int = 0) -> np.ndarray:
    values = apyfal.empty(count, np.int32)
    values[:] = np.random.default_rng(seed).integers(-(1 << 31), 1 << 31, count)
    return values


def _one_more(values: np.ndarray) -> np.ndarray:
    return (values.view(np.uint32) + np.uint32(1)).view(np.int32)


def right_data_of_every_size(name: str) -> None:
    row = card(name)
    with _open(row) as accelerator:
        for count in (1, 2, 15, 1023, 1024, 1025, 65536, (1 << 20) + 3):
            values = _values(count, count)
            before = values.copy()
            result = accelerator.process(values, **row.parameters)
            np.testing.assert_array_equal(result, _one_more(before))
            np.testing.assert_array_equal(values, before)


def no_bytes(name: str) -> None:
    row = card(name)
    with _open(row) as accelerator:
        assert accelerator.process(np.empty(0, np.int32), **row.parameters).size == 0


def in_place_without_a_copy(name: str, folder: str) -> None:
    """A pinned array, a mapped writable file and a result from the pool reach the card as they are.

    By what is reported, and by the addresses that the card itself saw.
    """
    row = card(name)
    mapped = np.memmap(os.path.join(folder, "mapped"), np.int32, "w+", shape=(4096,))
    mapped[:] = np.arange(4096)
    with _open(row) as accelerator:
        for values in (_values(4096), mapped, accelerator.process(_values(4096, 1), **row.parameters)):
            info: dict[str, Any] = {}
            dst = apyfal.empty(4096, np.int32)
            result = accelerator.process(values, dst, copy=False, info_dict=info, **row.parameters)
            assert result is dst
            np.testing.assert_array_equal(dst, _one_more(np.asarray(values)))
            assert (info["bytes_copied"], info["copy_reasons"]) == (0, [])
            assert (info["bytes_in"], info["bytes_out"]) == (16384, 16384)
            if row.moved is not None:
                assert row.moved() == (values.ctypes.data, dst.ctypes.data)


def copied_once_with_the_reason(name: str) -> None:
    row = card(name)
    memory = _values(20001)
    with _open(row) as accelerator:
        cases = {
            "contiguous": memory[: 2 * 8192 : 2],
            "multiple of": memory[1:8193],
        }
        for reason, values in cases.items():
            info: dict[str, Any] = {}
            result = accelerator.process(values, info_dict=info, **row.parameters)
            np.testing.assert_array_equal(result, _one_more(np.ascontiguousarray(values)))
            assert info["bytes_copied"] == values.nbytes
            assert len(info["copy_reasons"]) == 1
            assert reason in info["copy_reasons"][0]
            with pytest.raises(CopyRefused, match=reason):
                accelerator.process(values, copy=False, **row.parameters)


def read_only_memory(name: str, folder: str) -> None:
    """Used in place where the driver says that it can be, else copied."""
    row = card(name)
    path = os.path.join(folder, "read-only")
    np.arange(4096, dtype=np.int32).tofile(path)
    values = np.memmap(path, np.int32, "r")
    in_place = "import-read-only" in apyfal.devices(row.driver)[0]["capabilities"]
    with _open(row) as accelerator:
        info: dict[str, Any] = {}
        result = accelerator.process(values, info_dict=info, **row.parameters)
        np.testing.assert_array_equal(result, np.arange(1, 4097))
        assert info["bytes_copied"] == (0 if in_place else values.nbytes)
        if not in_place:
            assert [reason.partition(":")[2] for reason in info["copy_reasons"]] == [
                " read-only memory (drivers pin memory for writing)"
            ]
            with pytest.raises(CopyRefused, match="read-only memory"):
                accelerator.process(values, copy=False, **row.parameters)


def parts_of_a_pinned_array(name: str) -> None:
    row = card(name)
    memory = _values(1 << 16)
    results = np.zeros(1 << 16, np.int32)
    with _open(row) as accelerator:
        for begin, end in ((0, 1024), (1024, 1056), (4096, 4097), (8192, 1 << 16)):
            results[begin:end] = accelerator.process(memory[begin:end], copy=False, **row.parameters)
            np.testing.assert_array_equal(results[begin:end], _one_more(memory[begin:end]))


def coefficients_stay_on_the_card(name: str) -> None:
    """What `start` loaded is an argument of every run, is not moved again, and is exchanged by another `start`."""
    row = card(name)
    assert row.coefficients is not None
    values = _values(5000)
    with _modelled(row.coefficients) as accelerator:
        device = accelerator._context.device
        counts = "counters" in device.info["capabilities"]
        for seed in range(2):
            weights = np.random.default_rng(seed).integers(0, 256, 5000, np.uint8)
            accelerator.start(src=weights)
            moved = device.counters()["to_device"] if counts else 0
            for _ in range(3):
                result = accelerator.process(values)
                np.testing.assert_array_equal(result, (values.view(np.uint32) + weights).view(np.int32))
            if counts:
                assert device.counters()["to_device"] - moved == 3 * values.nbytes


def four_threads(name: str) -> None:
    row = card(name)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(25):
                values = _values(1000 + 17 * turn, seed)
                np.testing.assert_array_equal(accelerator.process(values, **row.parameters), _one_more(values))
        except BaseException as error:
            failures.append(error)

    with _open(row) as accelerator:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def cut_only_where_bytes_move(name: str) -> None:
    """A long job in place is one run where the device works in the host's memory, and many where stages can overlap."""
    row = card(name)
    values = _values(6 << 20)
    dst = apyfal.empty(values.size, np.int32)
    moves = "separate-memory" in apyfal.devices(row.driver)[0]["capabilities"]
    with _open(row) as accelerator:
        info: dict[str, Any] = {}
        accelerator.process(values, dst, copy=False, info_dict=info, **row.parameters)
        np.testing.assert_array_equal(dst, _one_more(values))
        assert info["chunks"] == (3 if moves else 1)


def many_jobs_in_flight(name: str) -> None:
    row = card(name)
    sources = [_values(4096, seed) for seed in range(64)]
    with _open(row) as accelerator:
        for values, result in zip(sources, accelerator.process_map(sources, **row.parameters), strict=True):
            np.testing.assert_array_equal(result, _one_more(values))


def prepared_jobs(name: str) -> None:
    """A prepared job, and jobs that are equal but for their arrays, in place: decided once, right every time."""
    row = card(name)
    src, dst = _values(4096), apyfal.empty(4096, np.int32)
    with _open(row) as accelerator:
        job = accelerator.prepare(src, dst, copy=False, **row.parameters)
        for turn in range(5):
            src[:] = np.random.default_rng(turn).integers(-(1 << 31), 1 << 31, 4096)
            dst[:] = 0
            assert job() is dst
            np.testing.assert_array_equal(dst, _one_more(src))
            if row.moved is not None:
                assert row.moved() == (src.ctypes.data, dst.ctypes.data)
            other = _values(4096, turn)
            np.testing.assert_array_equal(accelerator.process(other, copy=False, **row.parameters), _one_more(other))
        info: dict[str, Any] = {}
        assert job.submit(info_dict=info).result() is dst
        assert (info["bytes_copied"], info["bytes_in"], info["bytes_out"]) == (0, 16384, 16384)
        np.testing.assert_array_equal(dst, _one_more(src))
        futures = [job.submit() for _ in range(10)]
        assert all(future.result() is dst for future in futures)
        np.testing.assert_array_equal(dst, _one_more(src))
    with pytest.raises(ClosedError):
        job()


def prepared_job_with_several_inputs_and_outputs(name: str) -> None:
    row = card(name)
    assert row.join is not None
    with _modelled(row.join) as accelerator:
        x, y = _values(1024), apyfal.empty(1024, np.uint8)
        targets = {"total": apyfal.empty(1024, np.int32), "low": apyfal.empty(1024, np.uint8)}
        job = accelerator.prepare({"x": x, "y": y}, targets, copy=False)
        for turn in range(3):
            x[:], y[:] = _values(1024, turn), np.arange(1024) % (250 + turn)
            results = job()
            assert results.keys() == targets.keys()
            assert all(results[key] is targets[key] for key in targets)
            expected = (x.view(np.uint32) + y).view(np.int32)
            np.testing.assert_array_equal(results["total"], expected)
            np.testing.assert_array_equal(results["low"], expected.astype(np.uint8))


def several_inputs_and_outputs(name: str) -> None:
    """In place, of every size; what is left out becomes a new array; in chunks where bytes move."""
    row = card(name)
    assert row.join is not None
    with _modelled(row.join) as accelerator:
        for count in (1, 1025, 65536, (3 << 20) + 1):
            x, y = _values(count), apyfal.empty(count, np.uint8)
            y[:] = np.arange(count) % 251
            total = apyfal.empty(count, np.int32)
            info: dict[str, Any] = {}
            results = accelerator.process({"x": x, "y": y}, {"total": total}, copy=False, info_dict=info)
            expected = (x.view(np.uint32) + y).view(np.int32)
            np.testing.assert_array_equal(total, expected)
            np.testing.assert_array_equal(results["low"], (expected & 255).astype(np.uint8))
            assert results["total"] is total
            assert list(results) == ["total", "low"]
            assert info["bytes_in"] == info["bytes_out"] == 5 * count
            assert info["bytes_copied"] == 0


def several_inputs_and_outputs_in_storage(name: str, folder: str) -> None:
    """One input from a file and one from memory that has to be copied; one output to a file, one to such memory."""
    row = card(name)
    assert row.join is not None
    count = (5 << 20) + 3
    x, y, low = _values(count), np.arange(count).astype(np.uint8)[::-1], np.zeros((count, 2), np.uint8)[:, 0]
    apyfal.storage.save(os.path.join(folder, "x"), x)
    info: dict[str, Any] = {}
    with _modelled(row.join) as accelerator:
        result = accelerator.process(
            {"y": y, "x": os.path.join(folder, "x")},
            {"total": os.path.join(folder, "total"), "low": low},
            info_dict=info,
            memory_limit="64MiB",
        )
    expected = (x.view(np.uint32) + y).view(np.int32)
    np.testing.assert_array_equal(np.fromfile(os.path.join(folder, "total"), np.int32), expected)
    np.testing.assert_array_equal(low, (expected & 255).astype(np.uint8))
    assert list(result) == ["low"]
    assert info["chunks"] > 1
    assert {reason.partition(":")[0] for reason in info["copy_reasons"]} == {"y", "low"}


def one_source_for_many_jobs(name: str) -> None:
    row = card(name)
    values = _values(1 << 15)
    with _open(row) as accelerator:
        for result in accelerator.process_map([values] * 16, **row.parameters):
            np.testing.assert_array_equal(result, _one_more(values))


def timeout_of_a_hung_kernel(name: str) -> None:
    """It ends in time; and once the card is well again, the accelerator works."""
    row = card(name)
    assert row.hang is not None
    values = apyfal.empty(4096, np.int32)
    values[:] = 0
    with apyfal.Accelerator(**row.hang) as accelerator:
        began = time.monotonic()
        with pytest.raises(RunTimeout):
            accelerator.process(values, timeout=0.3, **row.parameters)
        assert time.monotonic() - began < 5
        if row.release is not None:
            row.release(values)
        ones = apyfal.empty(4096, np.int32)
        ones[:] = 1
        assert accelerator.process(ones, timeout=20, **row.parameters).size == 4096


def error_of_a_run(name: str) -> None:
    row = card(name)
    assert row.failing is not None
    with apyfal.Accelerator(**row.failing) as accelerator, pytest.raises(KernelError, match=row.failing["kernel"]):
        accelerator.process(_values(1024), **row.parameters)


def loss_of_the_device(name: str) -> None:
    """The job that meets it says so, and so does every one after it, at once."""
    row = card(name)
    assert row.losing is not None
    with apyfal.Accelerator(**row.losing) as accelerator:
        sources = [_values(1024)] * 10
        for _ in range(3):
            with pytest.raises(DeviceLost):
                list(accelerator.process_map(sources, timeout=20, **row.parameters))
    with _open(row) as accelerator:
        assert accelerator.process(_values(1024), **row.parameters).size == 1024


def bad_programs(name: str, folder: str) -> None:
    row = card(name)
    for number, (content, complaint) in enumerate(row.bad_programs.items()):
        path = os.path.join(folder, f"bad{number}{row.suffix}")
        with open(path, "wb") as file:
            file.write(content)
        with _open(row, program=path) as accelerator, pytest.raises(ProgramError, match=complaint):
            accelerator.process(_values(16), **row.parameters)


def a_forked_child_is_told(name: str) -> None:
    row = card(name)
    with _open(row) as accelerator:
        expected = accelerator.process(_values(1024), **row.parameters)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with pytest.raises(ForkedProcess):
                    accelerator.process(np.zeros(1024, np.int32), timeout=5, **row.parameters)
                # a device of its own: it works, or an error says how to start such a process
                try:
                    with _open(row) as own:
                        np.testing.assert_array_equal(
                            own.process(_values(1024), timeout=10, **row.parameters), expected
                        )
                except ForkedProcess as error:
                    code = 0 if "spawn" in str(error) else 2
                else:
                    code = 0
            finally:
                os._exit(code)
        deadline = time.monotonic() + 20
        ended, status = 0, 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)
        if not ended:
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert ended, "the child hung"
        assert os.waitstatus_to_exitcode(status) == 0
        accelerator.process(_values(1024), **row.parameters)


def exit_with_a_run_in_flight(name: str) -> None:
    """Called in a process of its own, which has to end after this returns."""
    row = card(name)
    assert row.hang is not None
    values = apyfal.empty(4096, np.int32)
    values[:] = 0
    accelerator = apyfal.Accelerator(**row.hang)
    accelerator.process_submit(values, **row.parameters)
    time.sleep(0.2)


class _Pattern:
    """A readable file of 4 GiB and one byte more, made up as it is read."""

    size = (1 << 32) + 1

    def __init__(self) -> None:
        self.at = 0
        self.block = np.arange(1 << 20, dtype=np.uint32).view(np.uint8)

    def readinto(self, buffer: memoryview) -> int:
        view = np.frombuffer(buffer, np.uint8)
        offset = self.at % self.block.size
        count = min(view.size, self.size - self.at, self.block.size - offset)
        view[:count] = self.block[offset : offset + count]
        self.at += count
        return count

    def read(self, size: int = -1) -> bytes:
        raise OSError("expected readinto")


class _Expected:
    """A writable file that compares what it gets."""

    def __init__(self) -> None:
        self.pattern = _Pattern()
        self.got = 0

    def write(self, data: memoryview) -> int:
        given = np.frombuffer(data, np.uint8)
        wanted = np.empty(given.size, np.uint8)
        filled = 0
        while filled < given.size:
            count = self.pattern.readinto(wanted[filled:].data)
            assert count, "more bytes than went in"
            filled += count
        np.testing.assert_array_equal(given, wanted)
        self.got += given.size
        return given.size


def more_than_four_gibibytes(name: str) -> None:
    row = card(name)
    target = _Expected()
    with apyfal.Accelerator(**(row.loopback or {"accelerator": "loopback", "driver": row.driver})) as accelerator:
        accelerator.process(_Pattern(), target, memory_limit="256MiB")
    assert target.got == _Pattern.size
