"""How many cycles a second does the rtl driver simulate, beside a bare C++ main loop around the same Verilated kernel?

The loop is what one writes by hand: it has no checks, no counters and no memory of a card. Both take the same kernel
(``scale``, 64 bits), the same level of optimisation and a memory without latency. Times are those of one cycle: each
way divides by the cycles that it simulated itself. What a job costs besides (starting the process, moving the data) is
part of the driver's time.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from support.common import Bench, main

import apyfal
from apyfal.rtl.build import find_toolchain

HERE = Path(__file__).parent
KERNELS = Path(apyfal.__file__).parent / "accelerators" / "kernels"


def bare_loop(folder: Path) -> Path:
    """Compile the loop by hand, as a user would."""
    tools = find_toolchain()
    model, program = folder / "model", folder / "bare"
    sources = [KERNELS / "scale.sv", KERNELS / "apf_control.sv"]
    command = [*tools.verilator, "--cc", "--top-module", "scale", "--prefix", "Vscale", "-Mdir", model, "-O3"]
    command += ["--no-timing", "--x-assign", "unique", "--x-initial", "unique", "-Wno-fatal", "-Wno-lint", "-Wno-style"]
    subprocess.run([*map(str, command), *map(str, sources)], check=True, env=tools.environment, capture_output=True)
    include = [f"-I{path}" for path in (model, tools.include, tools.include / "vltstd")]
    runtime = [tools.include / f"{name}.cpp" for name in ("verilated", "verilated_threads", "verilated_random")]
    files = [*model.glob("*.cpp"), *(path for path in runtime if path.exists()), HERE / "bare_rtl.cpp"]
    compiler = [*tools.compiler, "-std=c++17", "-O2", "-w", *include, "-DVM_TRACE=0", "-DVM_COVERAGE=0", "-DVM_SC=0"]
    subprocess.run([*compiler, *map(str, files), "-o", str(program), "-pthread"], check=True)
    return program


def benches(quick: bool) -> list[Bench]:
    """`a * x + b` for int32."""
    count = 1 << 16 if quick else 1 << 22
    folder = Path(tempfile.mkdtemp(prefix="apyfal-bench-"))
    os.environ.setdefault("XDG_CACHE_HOME", str(folder))
    program = bare_loop(folder)
    values = np.arange(count, dtype="int32")
    expected = values * 3 + 7
    pinned, result = apyfal.empty(count, np.int32), apyfal.empty(count, np.int32)
    pinned[:] = values
    card = apyfal.Accelerator("scale", driver="rtl", dtype="int32", rtl={"latency": "0"})

    def bare() -> list[int]:
        done = subprocess.run([str(program), str(count)], check=True, capture_output=True, text=True)
        return [int(word) for word in done.stdout.split()]

    def driver() -> np.ndarray:
        return card.process(pinned, result, a=3, b=7)

    def right(result: np.ndarray) -> None:
        if not np.array_equal(result, expected):
            raise AssertionError("wrong data")
        result[...] = 0  # what the next run leaves is its own

    def right_sum(result: list[int]) -> None:
        if result[1] != int(expected.view("uint32").sum(dtype="uint64")) % (1 << 32):
            raise AssertionError("wrong data")

    info: dict = {}
    card.process(pinned, result, a=3, b=7, info_dict=info)
    cycles = bare()[0], info["cycles"]
    bench = Bench("one simulated cycle", unit="ns", scale=1e9)
    names = [f"{number:,} cycles" for number in cycles]
    bench.add("limit: a bare C++ main loop", bare, right_sum, limit=True, repeats=cycles[0], note=names[0])
    bench.add("apyfal: Accelerator('scale', driver='rtl')", driver, right, repeats=cycles[1], note=names[1])
    return [bench]


if __name__ == "__main__":
    main(benches)
