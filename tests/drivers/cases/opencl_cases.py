"""What the opencl driver must do beside the conformance suite. Each function is a case for a `Worker`."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import apyfal
from apyfal._core.device import TO_DEVICE, Device, Kernel
from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments, Run
from apyfal.exceptions import (
    DeviceNotFound,
    DriverUnavailable,
    Misaligned,
    ParameterError,
    ProgramError,
    ReadOnly,
    UnsupportedByDriver,
)

_FAKE = b"__kernel void loopback( __kernel void add( __kernel void increment("


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ["APYFAL_OPENCL_LIBRARY"])
    library.fake_opencl_log.restype = ctypes.c_char_p
    library.fake_opencl_live.restype = ctypes.c_long
    return library


def _log() -> list[str]:
    return _library().fake_opencl_log().decode().splitlines()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


def _filled(count: int, dtype: str = "uint8", value: int = 0) -> np.ndarray:
    array = apyfal.empty(count, dtype)
    array[:] = value
    return array


def _run(device: Device, kernel: Kernel, *given: object) -> float:
    """Run with arrays (brought to the device and back) and (type, value) pairs; return the kernel's seconds."""
    arguments = Arguments(len(given))
    for index, value in enumerate(given):
        if isinstance(value, np.ndarray):
            bo, offset = device.import_memory(value)
            arguments.set_buffer(index, bo, offset, value.nbytes, SYNC_TO | SYNC_FROM)
        else:
            kind, number = value  # type: ignore[misc]  # a pair
            arguments.set_scalar(index, kind, number)
    run = arguments.start(kernel)
    run.wait(20)
    return run.seconds


# -- the fake: choice, options, faults, paths that emulators do not take -----------------------------------------------
def devices_are_chosen_by_number_or_name() -> None:
    assert [info["name"] for info in apyfal.devices("opencl")] == ["fake card A", "fake card B"]
    for selector, name in (
        ("1", "fake card B"),
        ("CARD b", "fake card B"),
        ("Fake OpenCL:0", "fake card A"),
        (None, "A"),
    ):
        assert Device("opencl", selector).info["name"].endswith(name)
    for selector in ("2", "stratix"):
        with pytest.raises(DeviceNotFound, match=rf"'{selector}'; there are 0 'fake card A', 1 'fake card B'"):
            Device("opencl", selector)


def options_are_checked() -> None:
    assert Device("opencl", None, {"compute_units": "4"}).info["compute_units"] == 4
    for value in ("0", "17", "x", "-1", ""):
        with pytest.raises(ParameterError, match=r"compute_units = .*expected a number from 1 to 16"):
            Device("opencl", None, {"compute_units": value})
    with pytest.raises(
        ParameterError, match="no option 'plattform'; expected one of build, cache, compute_units, platform"
    ):
        Device("opencl", None, {"plattform": "x"})
    with pytest.raises(DeviceNotFound, match="no OpenCL platform here"):
        Device("opencl", None, {"platform": "another vendor"})


def build_options_reach_the_compiler() -> None:
    with pytest.raises(ProgramError, match=r"'x\.cl' does not build: CL_BUILD_PROGRAM_FAILURE.*error: as asked$"):
        Device("opencl", None, {"build": "-DFAIL"}).load("add", _FAKE, name="x.cl")
    Device("opencl").load("add", _FAKE, options="-DOTHER")


def binaries_load_and_kernels_are_listed() -> None:
    device = Device("opencl")
    data = _filled(64, value=3)
    _run(device, device.load("add", b"\x7fFAKE\0" + _FAKE, name="x.aocx"), data, ("uint8", 4))
    assert data[0] == 7
    with pytest.raises(ProgramError, match=r"no kernel 'ad' in 'x\.cl'; there are: loopback, increment, add"):
        device.load("ad", _FAKE, name="x.cl")
    with pytest.raises(ProgramError, match=r"binary of 12 bytes.*CL_INVALID_BINARY"):
        device.load("add", b"\x7fELF\0aaaaaaa", name="x.aocx")
    with pytest.raises(ProgramError, match=r"'x\.cl' is empty"):
        device.load("add", b"", name="x.cl")


def launches_are_as_the_options_say() -> None:
    device = Device("opencl")
    src, dst = _filled(100), _filled(100)
    for options, items in (("", 1), ("--global=7", 7), ("--global=bytes", 100), ("--global=bytes/16", 7)):
        kernel = device.load("loopback", _FAKE, options=options, arguments="src, dst, bytes")
        _log()
        _run(device, kernel, src, dst, ("uint64", 100))
        assert f"k loopback {items}" in _log()
    kernel = device.load("loopback", _FAKE, options="--global=bytes --local=64", arguments="src,dst,bytes")
    _run(device, kernel, src, dst, ("uint64", 100))
    assert "k loopback 128" in _log()
    with pytest.raises(
        ProgramError, match=r"--global=32,32: .*several dimensions, .* are 'global = ...' in the definition"
    ):
        device.load("loopback", _FAKE, options="--global=32,32", arguments="src,dst,bytes")
    for options in ("--global=byte", "--global=bytes/0", "--local=0", "--local=x", "--global=bytes/x"):
        with pytest.raises(ProgramError, match=options):
            device.load("loopback", _FAKE, options=options, arguments="src,dst,bytes")


def scalars_without_argument_information() -> None:
    with _environment(FAKE_OPENCL_NO_ARG_INFO="1"):
        device = Device("opencl")
        kernel = device.load("add", _FAKE)
        data = _filled(64, value=3)
        for kind in ("int8", "uint8", "int16", "uint32", "int64", "uint64"):
            _run(device, kernel, data, (kind, 1))
        assert data[0] == 9
        with pytest.raises(ParameterError, match="argument 1"):
            _run(device, kernel, data, ("float32", 0.5))


def values_must_fit() -> None:
    device = Device("opencl")
    kernel = device.load("add", _FAKE)
    data = _filled(64)
    wrong = (
        ("int64", -1),
        ("uint16", 256),
        ("float64", 1.5),
        ("float64", float("nan")),
        ("float32", 1e9),
        ("float64", 2),
    )
    for kind, value in wrong:
        with pytest.raises(
            ParameterError, match=rf"argument 1 \(term\) of kernel 'add' is uchar; got .*, declared {kind}"
        ):
            _run(device, kernel, data, (kind, value))
    _run(device, kernel, data, ("int64", 255))
    assert data[0] == 255


def xilinx_migrates() -> None:
    """Whole memory objects, parts of them where they are aligned, else by reading and writing."""
    with _environment(FAKE_OPENCL_VENDOR="Xilinx"):
        device = Device("opencl")
        assert device.info["import_align"] == 4096
        kernel = device.load("add", _FAKE)
        data = _filled(4096, value=1)
        _log()
        _run(device, kernel, data, ("uint8", 1))
        assert _log() == ["m 0+4096", "k add 1", "h 0+4096"]
        assert data[0] == 2
        bo, offset = device.import_memory(data)
        bo.sync(TO_DEVICE, offset + 128, 100)
        bo.sync(TO_DEVICE, offset + 100, 100)
        assert _log() == ["m 0+100", "w 100+100"]
        frozen = np.frombuffer(mmap.mmap(-1, 4096, prot=mmap.PROT_READ), np.uint8)
        with pytest.raises(ReadOnly):
            device.import_memory(frozen, writable=False)


def opencl_1_0_polls_and_has_no_parts() -> None:
    with _environment(FAKE_OPENCL_VERSION="OpenCL 1.0 fake"):
        device = Device("opencl")
        assert "offset" not in device.info["capabilities"]
        kernel = device.load("add", _FAKE)
        data = _filled(4096, value=1)
        _run(device, kernel, data, ("uint8", 1))
        assert data[0] == 2
        with pytest.raises((UnsupportedByDriver, Misaligned)):
            _run(device, kernel, data[1024:], ("uint8", 1))


def commands_come_in_order_and_no_more_than_needed() -> None:
    device = Device("opencl")
    kernel = device.load("loopback", _FAKE)
    src, dst = _filled(300), _filled(300)
    _log()
    arguments = Arguments(3)
    for index, (array, flags) in enumerate(((src, SYNC_TO), (dst, SYNC_FROM))):
        bo, offset = device.import_memory(array)
        arguments.set_buffer(index, bo, offset, 300, flags)
    arguments.set_scalar(2, "uint64", 300)
    arguments.start(kernel).wait(20)
    assert _log() == ["w 0+300", "k loopback 1", "r 0+300"]


def _start(device: Device, kernel: Kernel, src: np.ndarray, dst: np.ndarray, to: bool, back: bool) -> Run:
    arguments = Arguments(3)
    for index, (array, flags) in enumerate(((src, SYNC_TO if to else 0), (dst, SYNC_FROM if back else 0))):
        bo, offset = device.import_memory(array)
        arguments.set_buffer(index, bo, offset, array.nbytes, flags)
    arguments.set_scalar(2, "uint64", src.size)
    return arguments.start(kernel)


def a_result_is_not_overwritten_while_it_comes_back() -> None:
    with _environment(FAKE_OPENCL_FROM_DEVICE="40000"):
        device = Device("opencl")
        kernel = device.load("increment", _FAKE)
        one, five, result = _filled(1000, "int32", 1), _filled(1000, "int32", 5), _filled(1000, "int32")
        first = _start(device, kernel, one, result, to=True, back=True)
        second = _start(device, kernel, five, result, to=True, back=False)
        first.wait(20)
        second.wait(20)
    np.testing.assert_array_equal(result, np.full(1000, 2))


def an_input_is_not_overwritten_while_it_is_used() -> None:
    with _environment(FAKE_OPENCL_COMPUTE="10"):
        device = Device("opencl")
        kernel = device.load("increment", _FAKE)
        source, result = _filled(1000, "int32", 1), _filled(1000, "int32")
        run = _start(device, kernel, source, result, to=True, back=True)
        time.sleep(0.03)  # its upload is over, and it computes for 0.1 s
        source[:] = 9
        bo, offset = device.import_memory(source)
        bo.sync(TO_DEVICE, offset, source.nbytes)
        run.wait(20)
    np.testing.assert_array_equal(result, np.full(1000, 2))


def compute_units_work_at_once_unless_one_needs_the_other() -> None:
    with _environment(FAKE_OPENCL_COMPUTE="10"):
        device = Device("opencl", None, {"compute_units": "2"})
        kernel = device.load("increment", _FAKE)
        arrays = [_filled(1000, "int32", value) for value in (1, 0, 0)]
        began = time.monotonic()
        chain = [_start(device, kernel, *arrays[step : step + 2], to=step == 0, back=True) for step in range(2)]
        for run in chain:
            run.wait(20)
        assert time.monotonic() - began > 0.19
        np.testing.assert_array_equal(arrays[2], np.full(1000, 3))
        began = time.monotonic()
        apart = [_start(device, kernel, arrays[0], dst, to=False, back=True) for dst in arrays[1:]]
        for run in apart:
            run.wait(20)
        assert time.monotonic() - began < 0.19
        np.testing.assert_array_equal(arrays[2], np.full(1000, 2))


def nothing_is_left() -> None:
    before = _library().fake_opencl_live()
    for _ in range(3):
        device = Device("opencl")
        kernel = device.load("increment", _FAKE)
        src, dst = _filled(4096, "int32"), _filled(4096, "int32")
        _run(device, kernel, src, dst, ("uint64", 4096))
        _run(device, kernel, src[1024:], dst[1024:], ("uint64", 10))
        del kernel
        device.close()
    assert _library().fake_opencl_live() == before


def times_are_the_kernels() -> None:
    with _environment(FAKE_OPENCL_COMPUTE="1000"):
        device = Device("opencl")
        kernel = device.load("add", _FAKE, options="--global=50")
        seconds = _run(device, kernel, _filled(64), ("uint8", 1))
    assert 0.049 < seconds < 0.06


# -- vendors' platforms ------------------------------------------------------------------------------------------------
_EVERY_TYPE = b"""
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
__kernel void every(__global double *out, char a, uchar b, short c, ushort d, int e, uint f, long g, ulong h, float i,
                    double j, __local int *scratch, uchar8 k, uchar8 l)
{
    scratch[0] = 12;
    out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e; out[5] = f;
    out[6] = (double)(g + (1L << 62)); out[7] = (double)(h >> 32);
    out[8] = i; out[9] = j; out[10] = scratch[0]; out[11] = as_long(k); out[12] = as_double(l);
}
"""


def scalars_of_every_type() -> None:
    device = Device("opencl")
    kernel = device.load("every", _EVERY_TYPE)
    out = _filled(13, "float64")
    kinds = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
    values = (-128, 255, -32768, 65535, -(1 << 31), (1 << 32) - 1, -(1 << 62), (1 << 64) - 1, 0.1, 0.1)
    last = (("uint32", 64), ("int8", -5), ("float32", 0.25))
    expected = [*values[:6], 0, (1 << 32) - 1, float(np.float32(0.1)), 0.1, 12, -5, 0.25]
    _run(device, kernel, out, *zip(kinds, values, strict=True), *last)
    np.testing.assert_array_equal(out, expected)
    wide = [("float64" if kind[0] == "f" else "int64", value) for kind, value in zip(kinds[:7], values, strict=False)]
    _run(device, kernel, out, *wide, (kinds[7], values[7]), *zip(kinds[8:], values[8:], strict=True), *last)
    np.testing.assert_array_equal(out, expected)
    with pytest.raises(ParameterError, match=r"argument 1 \(a\) of kernel 'every' is char; got 200"):
        _run(device, kernel, out, ("int64", 200), *zip(kinds[1:], values[1:], strict=True), *last)


def build_logs_are_in_the_error() -> None:
    with pytest.raises(ProgramError, match=r"broken\.cl.*CL_BUILD_PROGRAM_FAILURE.*missing_name"):
        Device("opencl").load(
            "x", b"__kernel void x(__global int *p)\n{\n  p[0] = missing_name;\n}\n", name="broken.cl"
        )


def reference_accelerators_give_the_emulators_results() -> None:
    rng = np.random.default_rng(5)
    source = apyfal.empty(100_003, np.uint8)
    source[:] = rng.integers(0, 256, source.size)
    for name, parameters in (
        ("loopback", {}),
        ("sha3", {"type": "sha3-384"}),
        ("histogram", {"bins": 100, "range": (0.5, 200)}),
    ):
        results = []
        for driver in ("emulator", "opencl"):
            with apyfal.Accelerator(name, driver=driver) as accelerator:
                results.append(accelerator.process(source, **parameters))
        np.testing.assert_array_equal(results[0], results[1])
    for dtype in ("int8", "uint16", "int32", "uint64", "float32", "float64", "float16"):
        values = apyfal.empty(10_001, dtype)
        values[:] = rng.integers(0, 100, values.size)
        results = []
        for driver in ("emulator", "opencl"):
            with apyfal.Accelerator("scale", driver=driver) as accelerator:
                results.append(accelerator.process(values, a=3, b=7))
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], values * np.array(3, dtype) + np.array(7, dtype))
    for dtype in ("int16", "float32", "float64"):
        values = apyfal.empty(20_000, dtype)
        values[:] = (rng.standard_normal(values.size) * 40).astype(dtype)
        with apyfal.Accelerator("histogram", driver="opencl") as accelerator:
            counts = accelerator.process(values, bins=77, range=(-31.4, 99.9))
        np.testing.assert_array_equal(counts, np.histogram(values, 77, (-31.4, 99.9))[0])


# -- no OpenCL ---------------------------------------------------------------------------------------------------------
def no_library() -> None:
    with pytest.raises(DriverUnavailable, match=r"no OpenCL on this machine: .*APYFAL_OPENCL_LIBRARY"):
        Device("opencl")
    assert "opencl" in apyfal.devices().unavailable


def another_library() -> None:
    with pytest.raises(DriverUnavailable, match="is not an OpenCL library: it has no clGetPlatformIDs"):
        Device("opencl")


def no_platform() -> None:
    with pytest.raises(DriverUnavailable, match="no OpenCL platform is registered in"):
        Device("opencl")
