"""What a kernel's source declares against what a definition says, on real compilers.

Each function is a case for a `Worker`.
"""

from __future__ import annotations

import concurrent.futures
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import ParameterError, ProgramError

ONE = np.ones(4, np.float32)
LONG_NAME = "a_name_that_is_longer_than_those_that_most_programs_have"


def _accelerator(text: str, parameters: str, arguments: str = "src, dst, count:uint32, p", **more: Any) -> Any:
    folder = Path(tempfile.mkdtemp())
    (folder / "t.cl").write_text(text)
    return apyfal.Accelerator(
        "t",
        driver="opencl",
        program=folder / "t.cl",
        arguments=arguments,
        parameters=parameters,
        dtype="float32",
        **more,
    )


def _scaled(prelude: str, declared: str, dtype: str, value: float, term: str = "p") -> list[float]:
    text = (
        f"{prelude}\nkernel void t(global const float *src, global float *dst, uint count, {declared} p)"
        f"{{ for (uint i = 0; i < count; i++) dst[i] = src[i] * {term}; }}"
    )
    with _accelerator(text, f"p: {dtype}") as accelerator:
        result: list[float] = accelerator.process(ONE, p=value).tolist()
        return result


#: Prelude, type of the argument, declared type, value; and whether the value arrives.
SCALARS = [
    ("", "int", "int32", -3, True),
    ("", "const int", "int32", -3, True),
    ("", "int", "float32", 3, True),
    ("", "int", "float32", 2.5, False),
    ("", "int", "float64", 3, False),
    ("", "long", "float32", 3, False),
    ("", "ulong", "uint32", 7, True),
    ("", "uchar", "int32", 200, True),
    ("", "uchar", "int32", 300, False),
    ("", "uchar", "int32", -1, False),
    ("", "char", "float32", 1, False),
    ("", "float", "float32", 2.5, True),
    ("", "float", "int32", 3, True),
    ("", "float", "int32", 16777217, False),
    ("", "float", "uint64", 3, False),
    ("", "float", "uint8", 3, False),
    ("", "float", "float64", 0.5, True),
    ("", "float", "float64", 1e300, False),
    ("typedef int num;", "num", "int32", -3, True),
    ("typedef int num;", "num", "float32", 3, True),
    ("typedef int num;", "num", "float32", 2.5, False),
    ("typedef int num;", "num", "int64", 1 << 40, False),
    ("typedef int num; typedef num number;", "number", "float32", 3, True),
    ("typedef unsigned char byte;", "byte", "int32", 300, False),
    ("typedef unsigned char byte;", "byte", "int32", 200, True),
    ("typedef float DATA_TYPE;", "DATA_TYPE", "float32", 2.5, True),
    ("typedef float DATA_TYPE;", "DATA_TYPE", "int32", 3, True),
    ("typedef float DATA_TYPE;", "DATA_TYPE", "uint64", 3, False),
    ("#define REAL float", "REAL", "float32", 2.5, True),
    ("#define REAL int", "REAL", "float32", 2.5, False),
    (f"typedef uint {LONG_NAME};", LONG_NAME, "uint32", 7, True),
]


def scalars_are_of_the_type_that_the_source_declares() -> None:
    for prelude, declared, dtype, value, arrives in SCALARS:
        row = (prelude, declared, dtype, value)
        if arrives:
            assert _scaled(prelude, declared, dtype, value) == [value] * 4, row
            continue
        with pytest.raises(ParameterError, match=r"argument 3 \(p\) of kernel 't' is .*; got .*, declared ") as raised:
            _scaled(prelude, declared, dtype, value)
        assert dtype in str(raised.value), row


def what_is_no_number_is_refused_by_its_type() -> None:
    for prelude, declared, term in (
        ("typedef struct { float a, b; } P;", "P", "p.a"),
        ("typedef struct { int a; } Q;", "Q", "p.a"),
        ("struct R { float a; };", "struct R", "p.a"),
        ("typedef union { float a; int b; } U;", "U", "p.a"),
        ("", "float2", "p.x"),
        ("", "int4", "p.x"),
        ("typedef float2 pair;", "pair", "p.x"),
    ):
        for dtype in ("float32", "uint64"):
            with pytest.raises(ParameterError, match=rf"argument 3 \(p\) of kernel 't' is {declared}") as raised:
                _scaled(prelude, declared, dtype, 3, term)
            assert re.search(rf"(declared|the definition has) {dtype}$", str(raised.value)), raised.value


def images_and_samplers_are_refused_by_name() -> None:
    sampler = "const sampler_t m = CLK_FILTER_NEAREST | CLK_ADDRESS_CLAMP;"
    takes_sampler = "kernel void t(global const float *s, global float *d, sampler_t m) { d[0] = s[0]; }"
    in_two = (
        f"kernel void t(read_only image2d_t s, global float *d) {{ {sampler} d[0] = read_imagef(s, m, (int2)(0)).x; }}"
    )
    in_three = in_two.replace("image2d_t", "image3d_t").replace("int2", "int4")
    out = "kernel void t(global const float *s, write_only image2d_t d) { write_imagef(d, (int2)(0), s[0]); }"
    for kind, text, arguments, parameters in (
        ("image2d_t", in_two, "src, dst", ""),
        ("image3d_t", in_three, "src, dst", ""),
        ("image2d_t", out, "src, dst", ""),
        ("sampler_t", takes_sampler, "src, dst, m", "m: uint64 = 4660"),
        ("sampler_t", takes_sampler, "src, dst, m", "m: uint32 = 1"),
    ):
        with (
            pytest.raises(ParameterError, match=rf"argument \d \([sdm]\) of kernel 't' is .*{kind}, which cannot"),
            _accelerator(text, parameters, arguments) as accelerator,
        ):
            accelerator.process(ONE)


def an_order_that_is_not_the_kernels_is_refused() -> None:
    text = (
        "kernel void t(global const float *x, global float *z, uint count, float a)"
        "{ for (uint i = 0; i < count; i++) z[i] = a * x[i]; }"
    )
    more = {"inputs": "x: float32", "outputs": "z: float32"}
    for arguments in ("x, z, a, count:uint32", "z, x, count:uint32, a", "a, z, count:uint32, x"):
        folder = Path(tempfile.mkdtemp())
        (folder / "t.cl").write_text(text)
        settings = {"driver": "opencl", "program": folder / "t.cl", "arguments": arguments, "parameters": "a: float32"}
        with (
            pytest.raises(ParameterError, match="expected the arguments in the kernel's order"),
            apyfal.Accelerator("t", **settings, **more) as accelerator,
        ):
            accelerator.process({"x": ONE}, a=2)
    # other names than the kernel's say nothing of the order
    assert _scaled("", "float", "float32", 2.0) == [2.0] * 4


def work_groups_are_named() -> None:
    body = "{ uint i = get_global_id(0); d[i] = s[i] * 2; }"
    kernel = f"kernel void t(global const float *s, global float *d, int w) {body}"
    for text, build, message in (
        (
            "__attribute__((reqd_work_group_size(16,16,1)))",
            "",
            "requires work-groups of 16x16x1; expected an index space of as many dimensions",
        ),
        (
            "__attribute__((reqd_work_group_size(1,1,4)))",
            "--local=4",
            "requires work-groups of 1x1x4; expected an index space",
        ),
        (
            "__attribute__((reqd_work_group_size(16,1,1)))",
            "--local=8",
            "--local=8: kernel 't' requires .* of 16 work-items",
        ),
        (
            "",
            f"--local={1 << 40}",
            f"--local={1 << 40}: the largest work-group of kernel 't' on .* has [1-9][0-9]* work",
        ),
        ("", "--local=none", "--local=none: expected a number"),
    ):
        with (
            pytest.raises(ProgramError, match=message),
            _accelerator(
                f"{text} {kernel}", "w: int32", "src, dst, w", opencl={"build": f"--global=1024 {build}"}
            ) as card,
        ):
            card.process(np.ones(1024, np.float32), w=32)


def threads_make_the_first_use() -> None:
    data = np.arange(1000, dtype=np.uint8)

    def one(_: int) -> bool:
        with apyfal.Accelerator("loopback", driver="opencl") as accelerator:
            return bool(np.array_equal(accelerator.process(data), data))

    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        assert all(executor.map(one, range(8)))


def threads_list_and_open_at_once() -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        listed = list(executor.map(lambda _: len(apyfal.devices("opencl")), range(8)))
    assert set(listed) == {1}


def _histogram(**more: Any) -> Any:
    text = (
        "kernel void t(global const uchar *s, global uint *d, uint n)"
        "{ uint i = get_global_id(0); if (i < n) atomic_inc(d + s[i]); }"
    )
    folder = Path(tempfile.mkdtemp())
    (folder / "t.cl").write_text(text)
    definition = {"inputs": "s: uint8", "outputs": "d: uint32 = 1024", "arguments": "s, d, count:uint32"}
    settings = {"driver": "opencl", "program": folder / "t.cl", "opencl": {"build": "--global=count"}}
    return apyfal.Accelerator("t", **settings, **definition, **more)


def outputs_begin_at_zero() -> None:
    data = np.arange(10000).astype("u1")
    expected = np.bincount(data, minlength=256)
    with _histogram() as accelerator:
        for _ in range(3):
            np.testing.assert_array_equal(accelerator.process({"s": data}), expected)
        used = np.full(256, 7, np.uint32)
        accelerator.process({"s": data}, used)
        np.testing.assert_array_equal(used, expected)
        for result in accelerator.process_map([{"s": data}] * 4):
            np.testing.assert_array_equal(result, expected)
        pinned = apyfal.empty(256, np.uint32)
        pinned[:] = 7
        accelerator.process({"s": data}, pinned)
        np.testing.assert_array_equal(pinned, expected)
    with _histogram(clear_outputs="no") as accelerator:
        used[:] = 7
        accelerator.process({"s": data}, used)  # what it adds to is undefined: a job says nothing of it
    # a kernel that writes some elements only, into the memory of an earlier job
    text = (
        "kernel void t(global const float *s, global float *d, uint n, int p)"
        "{ for (uint i = 0; i < n; i += 2) d[i] = s[i]; }"
    )
    for chunking in ({}, {"chunking": "whole"}):
        with _accelerator(text, "p: int32", **chunking) as accelerator:
            for _ in range(3):
                np.testing.assert_array_equal(accelerator.process(np.ones(1024, np.float32), p=0), [1, 0] * 512)


def a_job_in_place_keeps_its_input() -> None:
    text = (
        "kernel void t(global const float *s, global float *d, uint n, int p)"
        "{ for (uint i = 0; i < n; i++) d[i] = s[i] + p; }"
    )
    with _accelerator(text, "p: int32") as accelerator:
        for data in (np.ones(1024, np.float32), apyfal.empty(1024, np.float32)):
            data[:] = 1
            accelerator.process(data, data, p=2)
            np.testing.assert_array_equal(data, np.full(1024, 3, np.float32))


def an_input_that_the_kernel_may_write_is_not_the_callers_memory() -> None:
    text = (
        "kernel void t(global float *s, global float *d, uint n, int p)"
        "{ for (uint i = 0; i < n; i++) { s[i] += p; d[i] = s[i]; } }"
    )
    info: dict[str, Any] = {}
    frozen = np.ones(1024, np.float32)
    frozen.flags.writeable = False
    sources = [np.ones(1024, np.float32), apyfal.empty(1024, np.float32), np.ones(1025, np.float32)[1:], frozen]
    sources[1][:] = 1
    with _accelerator(text, "p: int32") as accelerator:
        for source in sources:
            result = accelerator.process(source, p=2, info_dict=info)
            np.testing.assert_array_equal(result, np.full(1024, 3, np.float32))
            np.testing.assert_array_equal(source, np.ones(1024, np.float32))
            assert "may write to it: its argument is not const" in str(info["copy_reasons"])
    alone = "kernel void t(global float *s, uint n, int p) { for (uint i = 0; i < n; i++) s[i] *= p; }"
    with (
        _accelerator(alone, "p: int32", "src, count:uint32, p", output="0") as accelerator,
        pytest.raises(ParameterError, match="has no output, and what its kernel may write to src would be lost"),
    ):
        accelerator.process(sources[0], p=2)


def local_memory_that_the_device_lacks_is_an_error() -> None:
    text = (
        "kernel void t(global const float *src, global float *dst, uint count, local float *p) {"
        " local float own[16]; own[0] = src[0]; p[0] = own[0]; dst[0] = p[0] + count; }"
    )
    with _accelerator(text, "p: uint64") as card:
        for size in (2**40, 2**64 - 1):
            with pytest.raises(
                ParameterError, match=r"kernel 't' needs \d+ bytes of local memory; .* has \d+ for a work-"
            ):
                card.process(ONE, p=size)
        assert card.process(ONE, p=4096)[0] == 5
        assert card.process(ONE, p=4096)[0] == 5
