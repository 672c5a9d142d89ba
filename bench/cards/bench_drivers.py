"""What a driver costs over the vendor's API used by hand: job latency, throughput, and how much of the DMA is hidden.

    ./do bench drivers [--card NAME ...] [--quick] [--json FILE]

Every card runs in a process of its own, with the installation that the tests use. Both sides do the same job with the
same kernel: bring the input to the device, run, bring the output back, wait. Their turns alternate, so that a busy
machine hurts both, in an order that is drawn for each turn: a job begins where the one before it left the card, and
what the card does then would favour the same one every time. The results are checked before and after every series.
Reported are the median, the fastest and the spread (the middle half) of the turns.

    hand      the vendor's API from Python: for OpenCL pyopencl, CL_MEM_USE_HOST_PTR buffers, one in-order queue;
              for XRT ctypes, user-pointer buffers, one run used again; for XDMA ctypes over its nodes, registers mapped
    driver    apyfal's driver: `Arguments.start` and `Run.wait`
    prepared  a job of `Accelerator.prepare` over the same arrays
    process   `Accelerator.process` with pinned arrays as source and destination
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand_xdma
import by_hand_xrt
import numpy as np
from fixtures.opencl import installation as opencl
from fixtures.xdma import card as xdma
from fixtures.xrt import installation as xrt

ROOT = Path(__file__).parents[2]
SMALL, LARGE = 4 << 10, 64 << 20
LOOPBACK = (ROOT / "apyfal" / "accelerators" / "kernels" / "loopback.cl").read_text()

Job = Callable[[], None]


# -- measuring ---------------------------------------------------------------------------------------------------------
def alternate(jobs: dict[str, Job], turns: int) -> dict[str, dict[str, float]]:
    """Time every job `turns` times, one after the other, in any order; seconds."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    rng, order = random.Random(1), list(jobs)
    for turn in range(turns + max(3, turns // 20)):
        rng.shuffle(order)
        for name in order:
            began = time.perf_counter()
            jobs[name]()
            if turn >= max(3, turns // 20):
                times[name].append(time.perf_counter() - began)
    return {name: summary(seconds) for name, seconds in times.items()}


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, fastest and the width of the middle half."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"median": middle, "fastest": min(seconds), "spread": high - low}


# -- OpenCL ------------------------------------------------------------------------------------------------------------
def by_hand_opencl(src: np.ndarray, dst: np.ndarray) -> Job:
    """The job as one writes it with pyopencl, over the same memory."""
    import pyopencl as cl

    device = cl.get_platforms()[0].get_devices()[0]
    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    kernel = cl.Program(context, LOOPBACK).build().loopback
    flags = cl.mem_flags
    source = cl.Buffer(context, flags.READ_ONLY | flags.USE_HOST_PTR, hostbuf=src)
    target = cl.Buffer(context, flags.WRITE_ONLY | flags.USE_HOST_PTR, hostbuf=dst)
    items = max(src.nbytes // 16, 1)
    nbytes = np.uint64(src.nbytes)

    def job() -> None:
        cl.enqueue_copy(queue, source, src, is_blocking=False)
        kernel(queue, (items,), None, source, target, nbytes)
        cl.enqueue_copy(queue, dst, target, is_blocking=False).wait()

    return job


def by_driver(src: np.ndarray, dst: np.ndarray, driver: str, program: bytes | None) -> Job:
    """The job through the core."""
    from apyfal._core.device import Device
    from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments

    device = Device(driver, None, OPTIONS.get(driver))
    kernel = device.load("loopback", program, name="loopback", arguments="src,dst,bytes")
    arguments = Arguments(3)
    for index, (array, flags) in enumerate(((src, SYNC_TO), (dst, SYNC_FROM))):
        bo, offset = device.import_memory(array)
        arguments.set_buffer(index, bo, offset, array.nbytes, flags)
    arguments.set_scalar(2, "uint64", src.nbytes)

    def job() -> None:
        arguments.start(kernel).wait()

    return job


def program_of(driver: str) -> bytes | None:
    """The program with the kernel `loopback`."""
    if driver == "xrt":
        return Path(os.environ["APYFAL_TEST_XCLBIN"]).read_bytes()
    return LOOPBACK.encode() if driver == "opencl" else None


def definition(driver: str) -> dict[str, Any]:
    """What `Accelerator` is given for it."""
    if driver in ("emulator", "opencl"):
        return {"accelerator": "loopback", "driver": driver}
    # the kernel writes all of its output, and nobody clears it by hand
    own = {"driver": driver, "kernel": "loopback", "arguments": "src, dst, bytes", "dtype": "uint8"}
    own["clear_outputs"] = "no"
    return own | ({"program": os.environ["APYFAL_TEST_XCLBIN"]} if driver == "xrt" else {driver: OPTIONS[driver]})


def by_prepared(src: np.ndarray, dst: np.ndarray, driver: str) -> Job:
    """The job, prepared."""
    import apyfal

    return apyfal.Accelerator(**definition(driver)).prepare(src, dst, copy=False)


def by_process(src: np.ndarray, dst: np.ndarray, driver: str) -> Job:
    """The job through the public API."""
    import apyfal

    accelerator = apyfal.Accelerator(**definition(driver))

    def job() -> None:
        accelerator.process(src, dst, copy=False)

    return job


def check(driver: str, jobs: dict[str, Job], src: np.ndarray, dst: np.ndarray) -> None:
    """Let every way move data that was never seen before."""
    for way, job in jobs.items():
        src[:] = np.random.default_rng().integers(0, 256, src.size, np.uint8)
        dst[:] = 0
        job()
        if not np.array_equal(src, dst):
            raise SystemExit(f"{driver}, {src.nbytes} bytes, {way}: wrong data")


def compare(driver: str, by_hand: Callable[[np.ndarray, np.ndarray], Job] | None, quick: bool) -> dict[str, Any]:
    """Latency and throughput of one card, in this process."""
    import apyfal

    if driver == "xdma":
        by_hand_xdma.set_card(awake=1_000_000)  # else it looks for work every 20 us, and that is all one sees
    results: dict[str, Any] = {}
    for name, nbytes, turns in (("4 KiB", SMALL, 60 if quick else 3000), ("64 MiB", LARGE, 4 if quick else 40)):
        src, dst = apyfal.empty(nbytes, np.uint8), apyfal.empty(nbytes, np.uint8)
        jobs = {"hand": by_hand(src, dst)} if by_hand else {}
        jobs |= {"driver": by_driver(src, dst, driver, program_of(driver))}
        jobs |= {"prepared": by_prepared(src, dst, driver), "process": by_process(src, dst, driver)}
        check(driver, jobs, src, dst)
        results[name] = alternate(jobs, turns)
        check(driver, jobs, src, dst)
    return results


def pace(driver: str, nbytes: int) -> dict[str, str] | None:
    """Give a stand-in the times of `FAKE_RATES` for jobs of `nbytes`; returns the driver's options."""
    to, back = round(FAKE_RATES["TO_DEVICE"]), round(FAKE_RATES["FROM_DEVICE"])
    delay = round(1e9 * nbytes / 16 / FAKE_RATES["COMPUTE"])
    if driver == "xrt":
        by_hand_xrt.set_card(to_bandwidth=to, from_bandwidth=back, delay=delay)
    elif driver == "xdma":
        by_hand_xdma.set_card(to_bandwidth=to, from_bandwidth=back, delay=delay)
    elif driver == "emulator":
        return {"to_device_bandwidth": f"{to}", "from_device_bandwidth": f"{back}", "run_latency": f"{delay // 1000}"}
    return OPTIONS.get(driver)  # the fake OpenCL has its times from its environment


def overlap(driver: str, quick: bool) -> dict[str, Any]:
    """How much of the shorter DMA direction a queue of jobs hides, on a card whose times are known: a stand-in."""
    import apyfal
    from apyfal._core.device import Device
    from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments

    rates = FAKE_RATES
    nbytes, jobs, slots = 1 << 20, 16 if quick else 96, 6
    device = Device(driver, None, pace(driver, nbytes))
    kernel = device.load("loopback", program_of(driver), name="loopback", arguments="src,dst,bytes")
    ring = []
    for _ in range(slots):
        arguments = Arguments(3)
        arrays = apyfal.empty(nbytes, np.uint8), apyfal.empty(nbytes, np.uint8)
        for index, (array, flags) in enumerate(zip(arrays, (SYNC_TO, SYNC_FROM), strict=True)):
            bo, offset = device.import_memory(array)
            arguments.set_buffer(index, bo, offset, nbytes, flags)
        arguments.set_scalar(2, "uint64", nbytes)
        ring.append((arguments, arrays))
    flying: list[Any] = []

    def finish(job: int) -> None:
        flying.pop(0).wait()
        dst = ring[job % slots][1][1]
        if dst[0] != job or not (dst == dst[0]).all():
            raise SystemExit(f"{driver}, overlap, job {job}: wrong data")

    began = time.perf_counter()
    for job in range(jobs):
        if len(flying) == slots:
            finish(job - slots)
        arguments, (src, dst) = ring[job % slots]
        src[:] = job
        dst[:] = 255
        flying.append(arguments.start(kernel))
    for job in range(jobs - slots, jobs):
        finish(job)
    took = time.perf_counter() - began
    # A kernel's time is by work-item, of which there is one for 16 bytes.
    stage = {key: jobs * (nbytes // 16 if key == "COMPUTE" else nbytes) / rate for key, rate in rates.items()}
    shorter = min(stage["TO_DEVICE"], stage["FROM_DEVICE"])
    # The first job's transfer to the card and the last one's from it have nothing to hide behind. All that is visible
    # beside the longest stage counts against the shorter direction.
    hidden = 1 - (took - max(stage.values())) / shorter
    return {"seconds": took, "stages": stage, "hidden": hidden}


# -- cards -------------------------------------------------------------------------------------------------------------
CARDS: dict[str, tuple[str, Callable[[Path], dict[str, str]], Callable[[np.ndarray, np.ndarray], Job] | None]] = {
    "emulator": ("emulator", lambda folder: {}, None),
    "opencl-intel": ("opencl", opencl.intel, by_hand_opencl),
    "opencl-pocl": ("opencl", opencl.pocl, by_hand_opencl),
    "xrt": ("xrt", xrt.functional, by_hand_xrt.by_hand),
    "xdma": ("xdma", xdma.environment, by_hand_xdma.by_hand),
}
OPTIONS = {"xdma": by_hand_xdma.OPTIONS}
OVERLAPS: dict[str, tuple[str, Callable[[Path], dict[str, str]]]] = {
    "emulator-overlap": ("emulator", lambda folder: {}),
    "opencl-overlap": ("opencl", opencl.fake),
    "xrt-overlap": ("xrt", xrt.functional),
    "xdma-overlap": ("xdma", xdma.environment),
}
# Slow, so that being woken late on a busy machine counts little beside a transfer's 42 ms.
FAKE_RATES = {"TO_DEVICE": 2.5e7, "FROM_DEVICE": 3e7, "COMPUTE": 2.5e7 / 16}


def in_own_process(card: str, quick: bool, folder: Path) -> dict[str, Any]:
    """Run this file for one card with its environment."""
    environment = OVERLAPS[card][1](folder) if card in OVERLAPS else CARDS[card][1](folder)
    environment |= {f"FAKE_OPENCL_{key}": str(rate) for key, rate in FAKE_RATES.items()}
    command = [sys.executable, __file__, "--inside", card, *(["--quick"] if quick else [])]
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True, timeout=900)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(card: str, result: dict[str, Any]) -> None:
    """Print one card's figures."""
    if card in OVERLAPS:
        stages = ", ".join(f"{name.lower()} {seconds:.3f} s" for name, seconds in result["stages"].items())
        print(f"{card}: {result['seconds']:.3f} s for {stages}: {result['hidden']:.1%} of the shorter direction hidden")
        return
    for size, ways in result.items():
        hand = ways.get("hand")
        for way, times in ways.items():
            nbytes = LARGE if size == "64 MiB" else SMALL
            text = f"{card:13} {size:7} {way:8} median {times['median'] * 1e6:9.1f} us"
            text += f"  fastest {times['fastest'] * 1e6:9.1f} us  spread {times['spread'] * 1e6:8.1f} us"
            if nbytes == LARGE:
                text += f"  {nbytes / times['median'] / 1e9:6.2f} GB/s"
            if hand and way != "hand":
                text += f"  {times['median'] / hand['median']:.2f} of by hand"
            print(text)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", action="append", choices=[*CARDS, *OVERLAPS], help="default: all")
    parser.add_argument("--quick", action="store_true", help="few turns: does it work?")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--inside", choices=[*CARDS, *OVERLAPS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside in OVERLAPS:
        print(json.dumps(overlap(OVERLAPS[options.inside][0], options.quick)))
        return
    if options.inside:
        driver, _, by_hand = CARDS[options.inside]
        print(json.dumps(compare(driver, by_hand, options.quick)))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    results = {}
    for card in options.card or [*CARDS, *OVERLAPS]:
        with tempfile.TemporaryDirectory() as folder:
            results[card] = in_own_process(card, options.quick, Path(folder))
        show(card, results[card])
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
