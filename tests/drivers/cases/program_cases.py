"""Programs that are built once for all processes, and their compute units. Each function is a case for a `Worker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.xrt import xclbin
from fixtures.xrt.installation import Card

import apyfal
from apyfal.exceptions import ParameterError, ProgramError, RunTimeout

ONE = np.ones(64, np.float32)
SOURCE = """
typedef struct {{ float a, b; }} pair;
kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void t(global const float *src, global float *dst, const uint count, const float p)
{{ for (uint i = 0; i < count; i++) dst[i] = src[i] * p + {added}; }}
kernel void other(global float *dst, constant float *table, local float *scratch, const pair both)
{{ scratch[0] = table[0] + both.a; dst[0] = scratch[0]; }}
"""


def _accelerator(program: Path | str, **options: str) -> apyfal.Accelerator:
    return apyfal.Accelerator(
        "t",
        driver="opencl",
        program=program,
        arguments="src, dst, count:uint32, p",
        parameters="p: float32",
        dtype="float32",
        opencl=options,
    )


def run(program: str, added: float, options: dict[str, str]) -> None:
    """Run the kernel of a program; check its result, and that its arguments are still checked."""
    with _accelerator(Path(program), **options) as accelerator:
        assert np.array_equal(accelerator.process(ONE, p=2.0), ONE * 2 + np.float32(added))
    with pytest.raises(ParameterError, match="float"):
        apyfal.Accelerator(
            "t",
            driver="opencl",
            program=program,
            arguments="src, dst, count:uint32, p",
            parameters="p: float64",
            opencl=options,
        ).process(ONE, p=1e300)


def wrong_option(program: str) -> None:
    for value in ("maybe", "/tmp/x", "", "2"):
        with pytest.raises(ParameterError, match=f"opencl.cache = {value}: expected yes or no"):
            _accelerator(Path(program), cache=value)


def several_sources(folder: str) -> None:
    """Two sources and a header: one program; what is wrong in it has the name of its file, and the line there."""
    good = {
        "one.cl": '#include "more.h"\nfloat twice(float x) { return x * MORE; }\n',
        "two.cl": '#include "more.h"\n' + SOURCE.format(added="twice(p)"),
        "more.h": "#pragma once\n#define MORE 2\n",
    }
    program = ", ".join(f"{folder}/{name}" for name in ("one.cl", "two.cl"))

    def run(files: dict[str, str]) -> None:
        for name, text in files.items():
            Path(folder, name).write_text(text)
        with _accelerator(program) as accelerator:
            assert np.array_equal(accelerator.process(ONE, p=2.0), ONE * 2 + 4)

    run(good)
    line = good["two.cl"][: good["two.cl"].index("src[i]")].count("\n") + 1
    for name, text, at in (
        ("one.cl", good["one.cl"].replace("MORE", "LESS"), 2),
        ("two.cl", good["two.cl"].replace("src[i]", "gone[i]"), line),
        ("more.h", good["more.h"] + "constant int more = gone;\n", 3),
    ):
        with pytest.raises(ProgramError, match=rf"{name}:{at}:"):
            run({**good, name: text})


def compute_units_by_name(folder: str) -> None:
    program = Path(folder, "x.xclbin")
    program.write_bytes(xclbin.xclbin())

    def run(kernel: str) -> None:
        with apyfal.Accelerator(
            "vadd", driver="xrt", program=program, kernel=kernel, arguments="src, dst, count:int32", dtype="int32"
        ) as accelerator:
            accelerator.process(np.zeros(1024, np.int32))

    run("vadd:{vadd_2}")
    with pytest.raises(ProgramError, match="no compute unit 'vad_2'; did you mean 'vadd_2'"):
        run("vadd:{vad_2}")


def inputs_and_coefficients_are_read_by_several_runs_at_once(program: str) -> None:
    """A run that hangs keeps no other from reading the array that it reads, as input or as coefficients."""
    made = Path(program) / "kernels.xclbin"
    made.write_bytes(xclbin.xclbin())
    keys: dict[str, Any] = {"driver": "xrt", "program": made}
    adds = {**keys, "kernel": "increment", "arguments": "src, dst, count", "dtype": "int32", "chunking": "elements"}
    hangs = {**keys, "kernel": "hang", "arguments": "coefficients, dst, number: uint64", "outputs": "dst: int32 = 4096"}
    with apyfal.Accelerator(**adds) as accelerator, apyfal.Accelerator(device=accelerator, **hangs) as hung:
        card = Card(Path(os.environ["XILINX_XRT"]))  # not before XRT itself has loaded the shim
        values = np.arange(1024, dtype=np.int32)
        read, written, other = accelerator.put(values), hung.device_empty(1024, "int32"), accelerator.put(0 * values)
        hung.start(src=read)
        job = hung.enqueue(dst=written, number=1024)
        try:
            accelerator.process(read, other, timeout=60)
            np.testing.assert_array_equal(other.get(), values + 1)
            assert not job.done()
            late = accelerator.enqueue(other, read)  # it writes what the first one reads
            with pytest.raises(RunTimeout):
                late.result(0.05)
        finally:
            card.set(hold=0)
        job.result(60)
        late.result(60)
        np.testing.assert_array_equal(written.get(), values + 1)
        np.testing.assert_array_equal(read.get(), values + 2)
