"""The table of algorithms, and a chain of three of them. Each function is a case for a `Worker`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drivers.algorithms import data, images, linear
from drivers.algorithms.table import Algorithm

import apyfal
from apyfal.cli.commands.machine.kernels import section_of
from apyfal.device.interface import read_interface
from apyfal.exceptions import ProgramError

ALGORITHMS: dict[str, Algorithm] = {row.name: row for row in (*linear.ROWS, *images.ROWS, *data.ROWS)}


def run(name: str) -> None:
    ALGORITHMS[name].run()


def three_stages() -> None:
    """Blur, threshold, count: one program with three kernels, each with its own index space."""
    source = (
        "kernel void blur(global const uchar *a, global uchar *b, int w, int h)"
        "{ int x = get_global_id(0), y = get_global_id(1), s = 0; for (int j = -1; j < 2; j++)"
        " for (int i = -1; i < 2; i++) s += a[clamp(y + j, 0, h - 1) * w + clamp(x + i, 0, w - 1)];"
        " b[y * w + x] = s / 9; }\n"
        "kernel void threshold(global uchar *b, int limit)"
        "{ size_t i = get_global_id(0); b[i] = b[i] > limit; }\n"
        "kernel void count_set(global const uchar *b, global int *n, int w)"
        "{ int y = get_global_id(0), s = 0; for (int i = 0; i < w; i++) s += b[y * w + i]; n[y] = s; }\n"
    )
    image = np.random.default_rng(3).integers(0, 256, (40, 56)).astype("uint8")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "three.cl"
        program.write_text(source)
        shared: Any = {"driver": "opencl", "program": program}
        sizes = "w: int32 = width, h: int32 = height"
        blur: Any = {
            "inputs": "a: uint8",
            "outputs": "b: uint8",
            "arguments": f"a, b, {sizes}",
            "global": "width, height",
        }
        with (
            apyfal.Accelerator("blur", **shared, **blur) as first,
            apyfal.Accelerator(
                "threshold", **shared, inout="b: uint8", arguments="b, limit: int32", **{"global": "count"}
            ) as second,
            apyfal.Accelerator(
                "count_set",
                **shared,
                inputs="b: uint8",
                outputs="n: int32 = height",
                arguments="b, n, w: int32 = width",
                **{"global": "height"},
            ) as third,
        ):
            blurred = first.process(image)
            second.process(blurred, blurred, limit=127)
            counts = third.process(blurred)
    padded = np.pad(image.astype(int), 1, mode="edge")
    expected = sum(padded[y : y + 40, x : x + 56] for y in range(3) for x in range(3)) // 9 > 127
    np.testing.assert_array_equal(counts, expected.sum(1))


def a_section_of_the_command_runs_as_pasted() -> None:
    """``apyfal kernels`` of a source: what it says, and that its section runs."""
    source = (
        f"{ALGORITHMS['vadd'].source}\n"
        "typedef struct { float a; int b; } pair;\n"
        "__attribute__((reqd_work_group_size(8, 4, 1)))\n"
        "kernel void odd(global pair *p, constant float4 *w, pair q, local float *t, read_only image2d_t i)"
        "{ p[0] = q; }\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "v.cl"
        program.write_text(source)
        driver, kernels = read_interface(source.encode(), str(program))
        found = {one.name: one for one in kernels}
        assert driver == "opencl"
        assert found.keys() == {"vadd", "odd"}
        assert found["odd"].work_group == (8, 4, 1)
        spaces = [one.space for one in found["odd"].arguments]
        assert spaces == ["global", "constant", "private", "local", "global"]
        assert [one.name for one in found["vadd"].arguments] == ["a", "b", "c"]
        assert [one.written for one in found["vadd"].arguments] == [False, False, True]
        (Path(folder) / "accelerator.conf").write_text(section_of(found["vadd"], driver, str(program)))
        a, b = np.arange(100, dtype="int32"), np.arange(100, dtype="int32")[::-1].copy()
        with apyfal.Accelerator("vadd", Path(folder) / "accelerator.conf") as accelerator:
            np.testing.assert_array_equal(accelerator.process({"a": a, "b": b}), a + b)
        with pytest.raises(ProgramError, match=r"'v.cl' does not build"):
            read_interface(b"no program", "v.cl")


def what_the_kernel_declares_is_named() -> None:
    """Wrong index spaces and work-groups, each with one line."""
    tiled, plain = ALGORITHMS["gemm_tiled"], ALGORITHMS["transpose"]
    a = np.ones((32, 32), "float32")
    rows: list[tuple[Algorithm, dict[str, str], Any, str]] = [
        (
            tiled,
            {"local": "8, 8"},
            {"a": a, "b": a},
            r"kernel 'gemm_tiled' with work-groups of 8x8; it requires .*16x16x1",
        ),
        (
            tiled,
            {"global": "count.a"},
            {"a": a, "b": a},
            r"requires .* 16x16x1; its index space has 1 dimensions, exp.* 2",
        ),
        (tiled, {}, {"a": a, "b": a[:, :20].copy()}, r"20x32 work-items in work-groups of 16x16; expected whole"),
        (
            plain,
            {"local": "5, 1"},
            {"a": a.astype("int32")},
            r"32 is not a multiple of 5; expected one, or 'round_up = yes'",
        ),
        (plain, {"local": "1 << 9, 1"}, {"a": a.astype("int32")}, r"'<' at character 3"),
        (
            plain,
            {"local": "65536, 65536", "round_up": "yes"},
            {"a": a.astype("int32")},
            r"its largest work-group here has",
        ),
        (plain, {"local": "width - 32, 1"}, {"a": a.astype("int32")}, r"local = width - 32 is 0; expected 1 or more"),
        (plain, {"global": "width, height - 33"}, {"a": a.astype("int32")}, r"height - 33 is -1; expected 0 or more"),
    ]
    for algorithm, keys, sources, message in rows:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "x.cl"
            program.write_text(algorithm.source)
            settings: Any = {"kernel": algorithm.name, **algorithm.keys, **keys}
            try:
                with apyfal.Accelerator("x", driver="opencl", program=program, **settings) as accelerator:
                    accelerator.process(sources)
            except apyfal.exceptions.AcceleratorException as error:
                text = str(error)
            else:
                text = "nothing was raised"
            assert re.search(message, text), (message, text)
            assert "\n" not in text
