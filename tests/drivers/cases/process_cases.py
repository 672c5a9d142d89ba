"""OpenCL in several threads and processes. Each function is a case for a `Worker`, which is the first to use OpenCL."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

import apyfal
from apyfal._core.device import TO_DEVICE, Device
from apyfal.exceptions import ForkedProcess

_DATA = np.arange(1000, dtype=np.int32)
_KERNEL = b"kernel void twice(global const int *s, global int *d) { size_t i = get_global_id(0); d[i] = 2 * s[i]; }"
SECONDS = 40


def _job(factor: int = 3) -> bool:
    with apyfal.Accelerator("scale", driver="opencl", dtype="int32") as card:
        return bool(np.array_equal(card.process(_DATA, a=factor), _DATA * factor))


def _open() -> bool:
    Device("opencl").close()
    return True


def _list() -> bool:
    return len(apyfal.devices("opencl")) == 1


def _build() -> bool:
    Device("opencl").load("twice", _KERNEL, name="t.cl")
    return True


def _declared() -> bool:
    return "twice" in Device("opencl").interface(_KERNEL, "t.cl")


def _kept() -> bool:
    device = Device("opencl")
    bo = device.alloc(4096)
    del device
    return bo.nbytes == 4096


def _together(*works: Callable[[], bool]) -> None:
    gate = threading.Barrier(len(works))

    def go(work: Callable[[], bool]) -> bool:
        gate.wait()
        return work()

    with concurrent.futures.ThreadPoolExecutor(len(works)) as threads:
        assert all(one.result(SECONDS) for one in [threads.submit(go, work) for work in works])


def jobs_first() -> None:
    _together(*[_job] * 8)


def opens_first() -> None:
    _together(*[_open] * 12)


def lists_first() -> None:
    _together(*[_list] * 12)


def builds_first() -> None:
    _together(*[_build] * 6)


def everything_first() -> None:
    _together(_job, _open, _list, _build, _declared, _kept, _job, _open)


def beside_another_driver() -> None:
    def software() -> bool:
        with apyfal.Accelerator("scale", driver="emulator", dtype="int32") as card:
            return bool(np.array_equal(card.process(_DATA, a=2), _DATA * 2))

    _together(_job, software, _job, software, _list, software)


def opened_and_closed_again_and_again() -> None:
    _together(*[lambda: all(_open() for _ in range(20))] * 4, lambda: all(_list() for _ in range(20)))


def first_in_a_thread_that_has_ended() -> None:
    thread = threading.Thread(target=_job)
    thread.start()
    thread.join()
    _together(_job, _job)


def _child(work: Callable[[], object]) -> str:
    """Fork; return what the child says of the work."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException):
            try:
                said = str(work())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    until = time.monotonic() + SECONDS
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)
    with open(reading, "rb") as pipe:
        return pipe.read().decode()


def _is_refused(said: str) -> None:
    assert said.startswith("ForkedProcess"), said
    assert "spawn" in said, said


def a_child_of_a_process_that_has_listed() -> None:
    assert _list()
    for work in (_job, _open, _build, _list):
        _is_refused(_child(work))
    assert _job()


def a_child_of_a_process_that_has_worked() -> None:
    assert _job()
    for work in (_job, _open, _build, _list):
        _is_refused(_child(work))
    assert _job()


def a_child_with_its_parents_objects() -> None:
    device = Device("opencl")
    kernel = device.load("twice", _KERNEL, name="t.cl")
    bo = device.alloc(4096)
    uses: list[Callable[[], object]] = [
        lambda: device.alloc(4096),
        lambda: device.load("twice", _KERNEL),
        lambda: device.interface(_KERNEL),
        lambda: device.counters(),
        lambda: kernel.bank(0),
        lambda: device.import_memory(apyfal.empty(4096)),
        lambda: bo.transfer(TO_DEVICE, None, 0, 4096),
    ]
    for use in uses:
        assert _child(use).startswith("ForkedProcess"), _child(use)
    assert _child(lambda: bo.nbytes) == "4096"  # which asks no device
    assert _child(device.close) == "None"  # the child's copy is let go of, and the parent's stays open
    assert device.counters()["runs"] == 0
    device.close()


def a_child_that_is_the_first() -> None:
    assert _child(_job) == "True"
    assert _child(lambda: (_job(), _list())) == "(True, True)"
    assert _job()


def a_grandchild() -> None:
    assert _child(lambda: _child(_job)) == "True"
    assert _job()
    _is_refused(_child(lambda: _child(_job)))


def children_at_the_same_time() -> None:
    _together(*[lambda: _child(lambda: 7) == "7"] * 4)
    assert _job()


def forked_while_others_make_the_first_use() -> None:
    """The child is refused or works; the parent works."""

    def fork() -> bool:
        said = {_child(_open) for _ in range(3)}
        return all(one == "True" or one.startswith("ForkedProcess") for one in said)

    _together(_job, fork, _job, fork, _build)


def pools_of_processes() -> None:
    assert _job()
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            pool.submit(_job).result(SECONDS)
        except ForkedProcess as error:
            _is_refused(f"ForkedProcess: {error}")
        else:
            raise AssertionError("not refused")


def a_process_of_its_own() -> None:
    assert _job()
    code = "from drivers.cases.process_cases import _job; assert _job()"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
