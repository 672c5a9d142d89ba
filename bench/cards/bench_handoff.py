"""What does it cost to hand an array to a device, and what is copied on the way?

Beside pyopencl's ``Buffer(USE_HOST_PTR)`` on PoCL, which is the same step for an OpenCL device. The limit is a look-up
in a dictionary from Python: no hand-over that is asked for from Python can cost less than a call.
"""

from __future__ import annotations

import numpy as np
from support.common import Bench, main

import apyfal
from apyfal._core import errors
from apyfal._core.buffer import pool_stats
from apyfal._core.device import Device
from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments

CALLS = 20_000


def times(call):
    """Make a function that does `call` many times and returns the last result."""

    def run():
        for _ in range(CALLS - 1):
            call()
        return call()

    return run


def opencl_way(bench: Bench, array: np.ndarray) -> None:
    """Add pyopencl, where it and a platform are there."""
    try:
        import pyopencl as cl

        context = cl.Context([cl.get_platforms()[0].get_devices()[0]])
    except Exception as error:
        print(f"pyopencl is left out: {error}")
        return
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
    name = f"pyopencl Buffer(USE_HOST_PTR), {context.devices[0].platform.name}"
    bench.add(name, times(lambda: cl.Buffer(context, flags, hostbuf=array)), repeats=CALLS)


def by_driver(src: np.ndarray, dst: np.ndarray):
    """Make a function that runs a loopback of its own device."""
    device = Device("emulator")
    kernel = device.load("loopback")
    arguments = Arguments(3)
    for index, (array, flags) in enumerate(((src, SYNC_TO), (dst, SYNC_FROM))):
        bo, offset = device.import_memory(array)
        arguments.set_buffer(index, bo, offset, array.nbytes, flags)
    arguments.set_scalar(2, "uint64", src.nbytes)
    return lambda: arguments.start(kernel).wait()


def benches(quick: bool) -> list[Bench]:
    """Handing over 1 MiB."""
    array = apyfal.empty(1 << 20, np.uint8)
    device = Device("emulator")
    table = {id(array): array}
    expected = array.__array_interface__["data"][0]

    def in_place(result) -> None:
        bo, offset = result
        if bo.address + offset != expected:
            raise AssertionError("the device was given other memory than the array's")

    handoff = Bench("array of 1 MiB to a device-ready buffer, a call", unit="us", scale=1e6)
    handoff.add("limit: a look-up from Python", times(lambda: table[id(array)]), limit=True, repeats=CALLS)
    made: list[int] = []

    def hand_over():
        growths, allocations = pool_stats()["growths"], errors.fail_allocation(None)
        result = times(lambda: device.import_memory(array))()
        made.append(pool_stats()["growths"] - growths + errors.fail_allocation(None) - allocations)
        return result

    handoff.add(
        "apyfal: pooled array, imported before",
        hand_over,
        in_place,
        repeats=CALLS,
        note=lambda: f"0 bytes copied, {made[-1]} allocations in {CALLS} calls",
    )
    handoff.add("apyfal: part of it", times(lambda: device.import_memory(array[4096:8192])), repeats=CALLS)
    opencl_way(handoff, array)

    back = Bench("array from the pool, freed at once, a call", unit="us", scale=1e6)
    back.add("limit: numpy.empty of 4 KiB", times(lambda: np.empty(4096, np.uint8)), limit=True, repeats=CALLS)
    for nbytes in (4096, 1 << 20, 64 << 20):
        back.add(f"apyfal.empty, {nbytes} bytes", times(lambda n=nbytes: apyfal.empty(n, np.uint8)), repeats=CALLS)

    accelerator = apyfal.Accelerator("loopback")
    small = apyfal.empty(4096, np.uint8)
    out = apyfal.empty(4096, np.uint8)
    small[:] = 7
    jobs = 500
    info: dict = {}

    def run_jobs():
        for _ in range(jobs):
            accelerator.process(small, out)
        accelerator.process(small, out, info_dict=info)
        return out

    def right(result) -> None:
        if not (result == small).all() or info["bytes_copied"]:
            raise AssertionError("wrong data, or copied")
        result[...] = 0  # what the next run leaves is its own

    prepared = accelerator.prepare(small, out)
    driver = by_driver(small, out)

    def run_prepared():
        for _ in range(jobs):
            prepared()
        prepared(info_dict=info)
        return out

    def run_driver():
        for _ in range(jobs + 1):
            driver()
        info["bytes_copied"] = 0
        return out

    job = Bench("a job of 4 KiB on the software card, array to array", unit="us", scale=1e6)
    job.add("limit: the driver alone, start and wait", run_driver, right, limit=True, repeats=jobs + 1)
    job.add("apyfal: prepared job", run_prepared, right, repeats=jobs + 1)
    job.add("apyfal: process", run_jobs, right, repeats=jobs + 1)
    return [handoff, back, job]


if __name__ == "__main__":
    main(benches)
