"""Kernels over index spaces: apyfal beside pyopencl by hand, on one OpenCL at a time.

    python bench/cards/bench_kernels.py            # PoCL
    APYFAL_BENCH_OPENCL=intel python bench/cards/bench_kernels.py

By hand: buffers over the same memory, made before; each run brings the inputs to the device, computes, and brings the
output back. apyfal: `Accelerator.process` with pinned arrays as sources and destination, which looks at its arguments
each time, and a job prepared for them, which like the one by hand does not.

The last tables are of three kernels, each on what the one before it left on the card; nothing moves. The kernels' own
times are those of the events of the run by hand beside it: what the others need more is the host's.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]
sys.path[:0] = [str(TOP / "tests"), str(TOP / "bench")]

import numpy as np  # noqa: E402  # after the path
from drivers.algorithms import images, linear  # noqa: E402
from drivers.algorithms.table import Algorithm  # noqa: E402
from fixtures.opencl import installation  # noqa: E402
from support.common import Bench, main  # noqa: E402

import apyfal  # noqa: E402

_MARK = "APYFAL_BENCH_OPENCL_SET"
ROWS = {row.name: row for row in (*linear.ROWS, *images.ROWS)}


def by_hand(algorithm: Algorithm, sources: list[np.ndarray], target: np.ndarray, launch: Any) -> Callable[[], None]:
    """Return the job as one writes it with pyopencl; `launch` is global and local size, and the scalars."""
    import pyopencl as cl

    context = cl.Context([cl.get_platforms()[0].get_devices()[0]])
    queue = cl.CommandQueue(context)
    kernel = cl.Kernel(cl.Program(context, algorithm.source).build(), algorithm.name)
    flags = cl.mem_flags
    ins = [cl.Buffer(context, flags.READ_ONLY | flags.USE_HOST_PTR, hostbuf=one) for one in sources]
    out = cl.Buffer(context, flags.WRITE_ONLY | flags.USE_HOST_PTR, hostbuf=target)
    size, group, scalars = launch

    def job() -> None:
        for buffer, array in zip(ins, sources, strict=True):
            cl.enqueue_copy(queue, buffer, array, is_blocking=False)
        kernel(queue, size, group, *ins, out, *scalars)
        cl.enqueue_copy(queue, target, out, is_blocking=False).wait()

    return job


def _bench(name: str, arrays: dict[str, np.ndarray], shape: tuple[int, ...], launch: Any, repeats: int) -> Bench:
    algorithm = ROWS[name]
    pinned = {key: apyfal.empty(array.shape, array.dtype) for key, array in arrays.items()}
    for key, array in arrays.items():
        pinned[key][...] = array
    outputs = [apyfal.empty(shape, next(iter(arrays.values())).dtype) for _ in range(3)]
    program = Path(tempfile.mkdtemp()) / f"{name}.cl"
    program.write_text(algorithm.source)
    settings: Any = {"kernel": name, **algorithm.keys, "clear_outputs": "no"}
    accelerator = apyfal.Accelerator(name, driver="opencl", program=program, **settings)
    hand = by_hand(algorithm, list(pinned.values()), outputs[0], launch)

    def repeated(job: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                job()

        return run

    expected = algorithm.expected(**arrays)

    def check(output: np.ndarray) -> Callable[[Any], None]:
        def compare(_: Any) -> None:
            np.testing.assert_allclose(output, expected, rtol=1e-3)
            output[...] = -1  # what the next run leaves is its own

        return compare

    nbytes = sum(array.nbytes for array in arrays.values()) + outputs[0].nbytes
    bench = Bench(f"{algorithm.what}, {nbytes >> 10} KiB in and out", nbytes, "us", 1e6)
    bench.add("pyopencl by hand", repeated(hand), check(outputs[0]), repeats=repeats, limit=True)
    process = repeated(lambda: accelerator.process(pinned, outputs[1]))
    bench.add("apyfal, process", process, check(outputs[1]), repeats=repeats)
    prepared = repeated(accelerator.prepare(pinned, outputs[2]))
    bench.add("apyfal, a prepared job", prepared, check(outputs[2]), repeats=repeats)
    return bench


_STAGES = """
kernel void smooth(global const float *a, global float *b, int n)
{ int i = get_global_id(0); b[i] = (a[max(i - 1, 0)] + a[i] + a[min(i + 1, n - 1)]) / 3; }
kernel void series(global const float *a, global float *b)
{ int i = get_global_id(0); float x = a[i], y = 1; for (int k = 0; k < 24; k++) y = fma(y, x, 0.5f); b[i] = y; }
kernel void squash(global const float *a, global float *b)
{ int i = get_global_id(0); float x = a[i]; b[i] = x / (1 + fabs(x)); }
"""
_NAMES = ("smooth", "series", "squash")


def _expected(a: np.ndarray) -> np.ndarray:
    padded = np.pad(a, 1, mode="edge")
    x = (padded[:-2] + padded[1:-1] + padded[2:]) / np.float32(3)
    y = np.ones_like(x)
    for _ in range(24):
        y = y * x + np.float32(0.5)
    return np.asarray(y / (1 + abs(y)))


def _chain_by_hand(values: np.ndarray, own: list[float]) -> tuple[Callable[[], None], Callable[[], np.ndarray]]:
    """Return three kernels as one writes them with pyopencl, which add their own times to `own`; and what takes their
    result, and leaves none.
    """
    import pyopencl as cl

    context = cl.Context([cl.get_platforms()[0].get_devices()[0]])
    queue = cl.CommandQueue(context, properties=cl.command_queue_properties.PROFILING_ENABLE)
    program = cl.Program(context, _STAGES).build()
    kernels = [cl.Kernel(program, name) for name in _NAMES]
    buffers = [cl.Buffer(context, cl.mem_flags.READ_WRITE, values.nbytes) for _ in range(4)]
    cl.enqueue_copy(queue, buffers[0], values).wait()
    more: list[list[Any]] = [[np.int32(values.size)], [], []]

    def job() -> None:
        events = [
            kernel(queue, values.shape, None, *buffers[place : place + 2], *more[place])
            for place, kernel in enumerate(kernels)
        ]
        events[-1].wait()
        own.append(sum(event.profile.end - event.profile.start for event in events) * 1e-9)

    def result() -> np.ndarray:
        found = np.empty_like(values)
        cl.enqueue_copy(queue, found, buffers[3]).wait()
        for buffer in buffers[1:]:
            cl.enqueue_copy(queue, buffer, np.full_like(values, np.nan)).wait()
        return found

    return job, result


def _chain(count: int, repeats: int) -> Bench:
    values = np.random.default_rng(1).random(count, "float32")
    program = Path(tempfile.mkdtemp()) / "stages.cl"
    program.write_text(_STAGES)
    config = {
        f"accelerator.{name}": {
            "driver": "opencl",
            "program": str(program),
            "arguments": "src, dst, n: int32 = count" if name == "smooth" else "src, dst",
            "global": "count",
            "dtype": "float32",
            "clear_outputs": "no",
        }
        for name in _NAMES
    } | {"accelerator.chain": {"stages": ", ".join(_NAMES)}}
    chain = apyfal.Accelerator("chain", config)
    cards = [apyfal.Accelerator(name, config, device=chain) for name in _NAMES]
    arrays = [chain.put(values), *(chain.device_empty(count, "float32") for _ in range(3))]
    own: list[float] = []
    hand, by_hand_result = _chain_by_hand(values, own)
    expected = _expected(values)

    def queued() -> None:
        for place, card in enumerate(cards):
            job = card.enqueue(arrays[place], arrays[place + 1])
        job.result()

    def one_by_one() -> None:
        for place, card in enumerate(cards):
            card.process(arrays[place], arrays[place + 1])

    def result() -> np.ndarray:
        """Take the result, and leave none to the next way."""
        found = arrays[3].get()
        for array in arrays[1:]:
            array.set(np.full_like(values, np.nan))
        return found

    bench = Bench(f"three kernels on the card, {count * 4 >> 10} KiB", 0, "us", 1e6)
    jobs: dict[str, tuple[Callable[[], Any], Callable[[], np.ndarray]]] = {
        "pyopencl by hand": (hand, by_hand_result),
        "apyfal, stages = smooth, series, squash": (lambda: chain.process(arrays[0], arrays[3]), result),
        "apyfal, enqueue three times": (queued, result),
        "apyfal, process three times": (one_by_one, result),
    }
    for name, (job, result) in jobs.items():

        def run(job: Callable[[], Any] = job) -> None:
            for _ in range(repeats):
                job()

        def check(_: Any, result: Callable[[], np.ndarray] = result) -> None:
            np.testing.assert_allclose(result(), expected, rtol=1e-3)

        def note(place: int = len(bench.ways)) -> str:
            kernels = statistics.median(own)
            return f"{statistics.median(bench.ways[place].seconds) / kernels:.2f}x the kernels' {kernels * 1e6:.0f} us"

        bench.add(name, run, check, repeats=repeats, limit=not bench.ways, note=note)
    return bench


def benches(smoke: bool) -> Iterator[Bench]:
    """Make a transposition, a matrix multiplication and a chain, each small and large."""
    source = np.random.default_rng(0)
    for side in (32, 64) if smoke else (32, 4096):
        a = source.integers(0, 99, (side, side), "int32")
        yield _bench(
            "transpose", {"a": a}, (side, side), ((side, side), None, [np.int32(side)] * 2), max(64 // side, 1)
        )
    for side in (32, 64) if smoke else (32, 512):
        a, b = source.random((2, side, side), "float32")
        launch = ((side, side), (16, 16), [np.int32(side)] * 2)
        yield _bench("gemm_tiled", {"a": a, "b": b}, (side, side), launch, 200 if side < 100 else 1)
    for count, repeats in ((1 << 12, 20), (1 << 16, 5)) if smoke else ((1 << 12, 200), (1 << 24, 1)):
        yield _chain(count, repeats)


if __name__ == "__main__":
    if _MARK not in os.environ:
        chosen = getattr(installation, os.environ.get("APYFAL_BENCH_OPENCL", "pocl"))
        environment = {**os.environ, **chosen(Path(tempfile.mkdtemp())), _MARK: "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    main(benches)
