"""Kernels over index spaces: apyfal beside pyopencl by hand, on one OpenCL at a time.

    python bench/cards/bench_kernels.py            # PoCL
    APYFAL_BENCH_OPENCL=intel python bench/cards/bench_kernels.py

By hand: buffers over the same memory, made before; each run brings the inputs to the device, computes, and brings the
output back. apyfal: `Accelerator.process` with pinned arrays as sources and destination.
"""

from __future__ import annotations

import os
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
    outputs = [apyfal.empty(shape, next(iter(arrays.values())).dtype) for _ in range(2)]
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
        return lambda _: np.testing.assert_allclose(output, expected, rtol=1e-3)

    nbytes = sum(array.nbytes for array in arrays.values()) + outputs[0].nbytes
    bench = Bench(f"{algorithm.what}, {nbytes >> 10} KiB in and out", nbytes, "us", 1e6)
    bench.add("pyopencl by hand", repeated(hand), check(outputs[0]), repeats=repeats, limit=True)
    process = repeated(lambda: accelerator.process(pinned, outputs[1]))
    bench.add("apyfal", process, check(outputs[1]), repeats=repeats)
    return bench


def benches(smoke: bool) -> Iterator[Bench]:
    """Make a transposition and a matrix multiplication, each small and large."""
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


if __name__ == "__main__":
    if _MARK not in os.environ:
        chosen = getattr(installation, os.environ.get("APYFAL_BENCH_OPENCL", "pocl"))
        environment = {**os.environ, **chosen(Path(tempfile.mkdtemp())), _MARK: "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    main(benches)
