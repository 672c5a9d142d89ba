"""Methods of one object in several threads at once: what is checked and what is then done are one step.

Sizes are such that the interpreter's lock is given up in between, so that the threads really meet; under a Python
without that lock they meet anyway.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from lifetime.together import together

import apyfal
from apyfal._core import errors
from apyfal._core.buffer import Buffer
from apyfal._core.device import Device
from apyfal._core.mapped_file import flush, map_file
from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments
from apyfal.exceptions import BufferInUse, ClosedError, KernelError, ParameterError, RunCancelled

MIB = 1 << 20


def live_buffers() -> int:
    gc.collect()
    return errors.live()["buffers"]


def pages(nbytes: int) -> np.ndarray:
    """Memory that is not the pool's, aligned as the software card wants it."""
    return np.frombuffer(mmap.mmap(-1, nbytes), "u1")


def address_of(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


@pytest.mark.parametrize("how", ["memoryview", "numpy", "ctypes", "array interface", "device"])
def test_a_view_taken_during_a_resize_is_of_the_memory_that_stays(how: str) -> None:
    device = Device("emulator")
    kinds: dict[str, Callable[[Buffer], tuple[object, int]]] = {
        "memoryview": lambda buffer: (view := memoryview(buffer), address_of(view)),
        "numpy": lambda buffer: (array := np.frombuffer(buffer, "u1"), array.ctypes.data),
        "ctypes": lambda buffer: (view := (ctypes.c_char * 4096).from_buffer(buffer), ctypes.addressof(view)),
        "array interface": lambda buffer: (buffer, buffer.__array_interface__["data"][0]),
        "device": lambda buffer: (bo := device.import_memory(buffer)[0], bo.address or 0),
    }

    def take(taken: list[tuple[object, int]], buffer: Buffer) -> None:
        taken.append(kinds[how](buffer))

    for size in range(8 * MIB, 8 * MIB + 24 * 4096, 4096):
        buffer = Buffer(4 * MIB)
        memoryview(buffer)[:] = bytes([7]) * (4 * MIB)
        taken: list[tuple[object, int]] = []
        raised = together(partial(take, taken, buffer), partial(buffer.resize, size))
        assert all(isinstance(error, BufferInUse) for error in raised), raised
        assert taken[0][1] == buffer.address
        assert ctypes.string_at(buffer.address, 4096) == bytes([7]) * 4096
    device.close()


def test_views_are_counted_however_many_threads_take_them() -> None:
    def view(buffer: Buffer) -> None:
        for _ in range(2000):
            memoryview(buffer).release()

    for _ in range(3):
        buffer = Buffer(4096)
        assert together(*[partial(view, buffer)] * 4) == []
        buffer.close()


def test_a_buffer_is_given_back_once_however_many_threads_close_it() -> None:
    before = live_buffers()
    for _ in range(200):
        assert together(*[Buffer(4096).close] * 4) == []
    assert live_buffers() == before


def test_resizes_and_closes_and_reads_of_one_buffer() -> None:
    before = live_buffers()
    for _ in range(40):
        buffer = Buffer(MIB)

        def read(buffer: Buffer = buffer) -> None:
            while not buffer.closed:
                assert buffer.nbytes <= buffer.capacity
                repr(buffer)

        works = [read, *(partial(buffer.resize, size) for size in (2 * MIB, 4096, 3 * MIB)), buffer.close]
        raised = together(*works)
        assert all(isinstance(error, (BufferInUse, ClosedError)) for error in raised), raised
        buffer.close()
    assert live_buffers() == before


def test_a_mapped_file_is_not_closed_while_it_is_flushed(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_bytes(bytes(4 * MIB))
    with open(path, "r+b") as file:
        for _ in range(30):
            buffer = map_file(file.fileno(), 0, 4 * MIB, writable=True)
            memoryview(buffer)[:] = os.urandom(4096) * 1024
            raised = together(partial(flush, buffer), buffer.close)
            assert all(isinstance(error, (BufferInUse, ClosedError)) for error in raised), raised
            buffer.close()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_run_starts_with_each_argument_as_one_call_set_it(at_once: bool) -> None:
    """Arguments change hands while runs start; the memory of both is a caller's, which only its object keeps."""
    device = Device("emulator")
    kernel = device.load("loopback")
    arguments = Arguments(3)
    nbytes = 4096

    def fresh(value: int) -> np.ndarray:
        array = pages(nbytes)
        array[:] = value
        return array

    target = fresh(0)
    arguments.set_buffer(1, device.import_memory(target)[0], 0, nbytes, SYNC_FROM)
    arguments.set_scalar(2, "uint64", nbytes)
    done = threading.Event()

    def change() -> None:
        for value in range(2000):
            if value % 5 == 4:
                arguments.clear(0)
            else:
                arguments.set_buffer(0, device.import_memory(fresh(value % 256))[0], 0, nbytes, SYNC_TO)
        done.set()

    def start() -> None:
        while not done.is_set():
            try:
                if at_once:
                    run = arguments.run(kernel, None, 60.0)
                    assert run is None
                else:
                    arguments.start(kernel).wait()
            except ParameterError:
                continue
            assert len(set(target.tolist())) == 1
            time.sleep(1e-4)  # else it would always be the one that gets the lock of the arguments

    assert together(change, start) == []
    device.close()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has a lock")
def test_an_import_leaves_the_lock_off_where_python_has_none() -> None:
    code = "import sys; before = sys._is_gil_enabled(); import apyfal._core; assert sys._is_gil_enabled() == before"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("launch", [([0], [2, 3], []), ([0, 0], [2, 3], [1]), ([0, 0, 0], [2], [])])
def test_an_index_space_has_one_number_for_each_dimension(launch: tuple[list[int], list[int], list[int]]) -> None:
    """What is read of a list ends with it."""
    device = Device("emulator")
    kernel = device.load("loopback")
    for call in (Arguments(0).start, Arguments(0).run):
        with pytest.raises(ParameterError, match=f"an index space of {len(launch[1])} dimensions with"):
            call(kernel, launch)
    device.close()


def test_counts_are_read_while_they_change() -> None:
    def work() -> None:
        for _ in range(500):
            Buffer(4096).close()

    def read() -> None:
        for _ in range(500):
            assert errors.live()["buffers"] >= before

    before = live_buffers()
    assert together(work, work, read) == []
    assert live_buffers() == before


def test_calls_of_one_run_meet() -> None:
    """Several wait, one cancels, others ask what it says: each ends, and none sees what is gone."""
    device = Device("emulator", None, {"run_latency": "2000"})
    kernel = device.load("loopback")
    for turn in range(100):
        arguments = Arguments(3)
        for index, flag in ((0, SYNC_TO), (1, SYNC_FROM)):
            arguments.set_buffer(index, device.import_memory(pages(4096))[0], 0, 4096, flag)
        arguments.set_scalar(2, "uint64", 4096)
        run = arguments.start(kernel)
        del arguments
        raised = together(run.wait, run.wait, run.cancel if turn % 2 else run.wait, lambda run=run: run.details)
        assert all(isinstance(error, RunCancelled) for error in raised)
    del run
    device.close()


def test_a_device_is_closed_between_runs_or_not_at_all() -> None:
    for _ in range(25):
        device = Device("emulator")
        kernel = device.load("loopback")
        buffer = pages(8192)
        bo = device.import_memory(buffer)[0]

        def start(kernel: object = kernel, bo: object = bo) -> None:
            arguments = Arguments(3)
            arguments.set_buffer(0, bo, 0, 4096, SYNC_TO)
            arguments.set_buffer(1, bo, 4096, 4096, SYNC_FROM)
            arguments.set_scalar(2, "uint64", 4096)
            while True:
                run = arguments.start(kernel)
                run.cancel()
                try:
                    run.wait()
                except RunCancelled:
                    continue

        def close(device: Device = device) -> None:
            while True:
                try:
                    return device.close()
                except BufferInUse:
                    continue

        raised = together(start, start, close)
        assert [type(error) for error in raised] == [ClosedError, ClosedError], raised


def test_a_model_that_keeps_device_memory_in_a_thread_of_its_own_is_refused() -> None:
    kept: list[object] = []
    ends: list[threading.Thread] = []

    @apyfal.accelerators.model("keeper", dtype="uint8", chunking="whole", replace=True)
    def keeper(src: np.ndarray, dst: np.ndarray) -> None:
        thread = threading.Thread(target=kept.append, args=(src,))
        thread.start()
        ends.append(thread)
        thread.join()

    with apyfal.Accelerator("keeper") as accelerator, pytest.raises(KernelError, match="kept a view of device memory"):
        accelerator.process(b"abc")
    kept.clear()


@pytest.mark.parametrize("name", ["Kernel", "BufferObject", "Run"])
def test_what_a_device_makes_is_made_by_nobody_else(name: str) -> None:
    from apyfal._core import device, run

    kind = getattr(device, name, None) or getattr(run, name)
    for make in (kind, lambda: kind.__new__(kind), lambda: kind(object())):
        with pytest.raises(TypeError, match="is made by"):
            make()


@pytest.mark.parametrize(("kind", "arguments"), [(Buffer, (4096,)), (Device, ("emulator",)), (Arguments, (2,))])
def test_an_object_is_never_without_what_it_stands_for(kind: type, arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        kind.__new__(kind)
    before = errors.live()
    made = kind(*arguments)
    made.__init__(*arguments)  # does nothing: an object is initialised once
    del made
    assert errors.live() == before
