"""Every method of the core against what ends or changes its object at the same time: an answer or an error, no more.

What is freed under a method shows as a crash, as memory of another owner, or in the counts of what is alive.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from apyfal._core import buffer as core_buffer
from apyfal._core import errors
from apyfal._core.buffer import Buffer
from apyfal._core.device import FROM_DEVICE, TO_DEVICE, Device
from apyfal._core.mapped_file import flush, map_file
from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments
from apyfal.exceptions import AcceleratorException

PAGE = 4096
#: Longer where a sanitizer sees what is wrong and does no harm yet, and everything is slow.
SECONDS = 0.15 if "APYFAL_SANITIZED" in os.environ else 0.05
#: Within which each succeeds once, however busy the machine is.
PATIENCE = 30.0


def against(*works: Callable[[], object], never: bool = False) -> None:
    """Do each again and again in a thread of its own; only this library's errors may come, and not from every call.

    The last one ends the object of the others, and makes it anew: it goes on until all have succeeded. They stop when
    they have, since it may only succeed without them.
    """
    gate = threading.Barrier(len(works))
    raised: list[BaseException] = []
    succeeded = [0] * len(works)

    def go(number: int, work: Callable[[], object]) -> None:
        gate.wait()
        began = time.monotonic()
        patience = SECONDS if never else PATIENCE
        needed = range(len(works)) if number == len(works) - 1 else [number]
        while (passed := time.monotonic() - began) < patience:
            if passed >= SECONDS and (raised or all(succeeded[each] for each in needed)):
                break
            try:
                work()
            except AcceleratorException:
                continue
            except BaseException as error:
                raised.append(error)
                return
            succeeded[number] += 1

    threads = [threading.Thread(target=go, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert raised == []
    assert succeeded[-1]
    assert all((done == 0) == never for done in succeeded[:-1]), succeeded


def alive() -> dict[str, int]:
    gc.collect()
    core_buffer.trim_pool()  # what is idle may be more or less; slabs of small blocks stay
    return {kind: count for kind, count in errors.live().items() if kind != "mappings"}


class Holder:
    """Always has a buffer, a device and what lives on it; `renew` ends what there is and makes all anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(4 * PAGE))
        self.make()

    def make(self) -> None:
        self.buffer = Buffer(4 * PAGE)
        with open(self.path, "r+b") as file:
            self.mapped = map_file(file.fileno(), 0, 4 * PAGE, writable=True)
        device = Device("emulator")
        self.kernel = device.load("loopback")
        self.bo, self.offset = device.import_memory(Buffer(4 * PAGE))
        self.arguments = Arguments(3)
        self.arguments.set_buffer(0, self.bo, 0, PAGE, SYNC_TO)
        self.arguments.set_buffer(1, self.bo, PAGE, PAGE, SYNC_FROM)
        self.arguments.set_scalar(2, "uint64", PAGE)
        self.run = self.arguments.start(self.kernel)
        self.device = device

    def close_buffer(self) -> None:
        self.buffer.close()
        self.buffer = Buffer(4 * PAGE)

    def resize_buffer(self) -> None:
        if self.buffer.closed:
            self.buffer = Buffer(4 * PAGE)
        self.buffer.resize(3 * PAGE)
        self.buffer.resize(600 * PAGE)
        self.buffer.resize(4 * PAGE)

    def close_mapped(self) -> None:
        self.mapped.close()
        with open(self.path, "r+b") as file:
            self.mapped = map_file(file.fileno(), 0, 4 * PAGE, writable=True)

    def close_device(self) -> None:
        try:
            self.run.wait(5)
            self.device.close()
        finally:
            self.make()

    def end_run(self) -> None:
        self.run = self.arguments.start(self.kernel)
        self.run.cancel()

    def change_arguments(self) -> None:
        self.arguments.set_buffer(0, self.bo, 0, PAGE, SYNC_TO)
        self.arguments.set_scalar(2, "uint64", PAGE)

    def churn(self) -> None:
        Buffer(7 * PAGE).close()


Method = Callable[[Holder], object]
OF_BUFFER: dict[str, Method] = {
    "nbytes": lambda one: one.buffer.nbytes,
    "capacity": lambda one: one.buffer.capacity,
    "address": lambda one: one.buffer.address,
    "locked": lambda one: one.buffer.locked,
    "mapped": lambda one: one.buffer.mapped,
    "readonly": lambda one: one.buffer.readonly,
    "closed": lambda one: one.buffer.closed,
    "len": lambda one: len(one.buffer),
    "repr": lambda one: repr(one.buffer),
    "with": lambda one: one.buffer.__enter__(),
    "memoryview": lambda one: bytes(memoryview(one.buffer)[:8]),
    "numpy": lambda one: int(np.frombuffer(one.buffer, "u1")[-1]),
    "dlpack": lambda one: int(np.from_dlpack(one.buffer)[-1]),
    "dlpack device": lambda one: one.buffer.__dlpack_device__(),
    "is_pinned": lambda one: core_buffer.is_pinned(one.buffer),
    "resize": lambda one: one.buffer.resize(5 * PAGE),
    "close": lambda one: one.buffer.close(),
    "import_memory": lambda one: one.device.import_memory(one.buffer),
}
OF_MAPPED: dict[str, Method] = {
    "flush": lambda one: flush(one.mapped),
    "read": lambda one: bytes(memoryview(one.mapped)[:8]),
    "write": lambda one: memoryview(one.mapped).__setitem__(slice(0, 4), b"data"),
    "mapped of a file": lambda one: one.mapped.mapped,
    "nbytes of a file": lambda one: one.mapped.nbytes,
    "resize of a file": lambda one: one.mapped.resize(PAGE),
}
OF_DEVICE: dict[str, Method] = {
    "info": lambda one: one.device.info,
    "driver": lambda one: one.device.driver,
    "transfers": lambda one: one.device.transfers,
    "counters": lambda one: one.device.counters(),
    "control": lambda one: one.device.control("run_latency", "0"),
    "load": lambda one: one.device.load("loopback"),
    "alloc": lambda one: one.device.alloc(PAGE),
    "import": lambda one: one.device.import_memory(Buffer(PAGE)),
    "close twice": lambda one: one.device.close(),
    "bank": lambda one: one.kernel.bank(0),
    "may_write": lambda one: one.kernel.may_write(0),
    "bo.nbytes": lambda one: one.bo.nbytes,
    "bo.address": lambda one: one.bo.address,
    "bo.sync": lambda one: one.bo.sync(TO_DEVICE),
    "bo.sync a part": lambda one: one.bo.sync(FROM_DEVICE, PAGE, PAGE),
    "bo.transfer": lambda one: one.device.alloc(PAGE).transfer(TO_DEVICE, Buffer(PAGE)),
    "start": lambda one: one.arguments.start(one.kernel).wait(5),
    "run": lambda one: one.arguments.run(one.kernel, None, 5.0),
    "wait": lambda one: one.run.wait(5),
    "cancel": lambda one: one.run.cancel(),
    "details": lambda one: one.run.details,
    "seconds": lambda one: one.run.seconds,
    "clear and set": lambda one: (one.arguments.clear(0), one.change_arguments()),
    "set_bytes": lambda one: (one.arguments.set_bytes(2, b"12345678"), one.change_arguments()),
}
OF_POOL: dict[str, Method] = {
    "pool_stats": lambda one: core_buffer.pool_stats(),
    "trim_pool": lambda one: core_buffer.trim_pool(0),
    "set_pool_limit": lambda one: (core_buffer.set_pool_limit(1 << 30), core_buffer.set_pool_limit(None)),
    "a large buffer": lambda one: Buffer(900 * PAGE).close(),
    "no buffer": lambda one: Buffer(0).close(),
    "live": lambda one: errors.live(),
}
#: what is called, and what ends or changes its object meanwhile
TABLE: list[tuple[str, Method, str]] = [
    *((name, method, ending) for name, method in OF_BUFFER.items() for ending in ("close_buffer", "resize_buffer")),
    *((name, method, "close_mapped") for name, method in OF_MAPPED.items()),
    *((name, method, "close_device") for name, method in OF_DEVICE.items()),
    *((name, OF_DEVICE[name], "end_run") for name in ("start", "run", "wait", "cancel", "details", "seconds")),
    *((name, OF_DEVICE[name], "change_arguments") for name in ("start", "run", "clear and set", "set_bytes")),
    *((name, method, "churn") for name, method in OF_POOL.items()),
]


def _meet(holder: Holder, method: Method, ending: str) -> None:
    never = method is OF_MAPPED["resize of a file"]  # an error always: a file has its size
    against(lambda: method(holder), lambda: method(holder), getattr(holder, ending), never=never)


@pytest.mark.parametrize(("name", "method", "ending"), TABLE, ids=[f"{row[0]} - {row[2]}" for row in TABLE])
def test_a_method_meets_the_end_of_its_object(name: str, method: Method, ending: str, tmp_path: Path) -> None:
    before = alive()
    _meet(Holder(tmp_path / "mapped"), method, ending)
    after = alive()
    for _ in range(100):  # what a cancelled run leaves ends by itself
        if after == before:
            break
        time.sleep(0.02)
        after = alive()
    assert after == before
