"""The cards that the conformance suite runs on: one row for each stack that this machine can stand in for.

Every card has a kernel ``increment`` that adds 1 to 32-bit integers, and says what else it can be made to do.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fixtures.opencl import installation as opencl
from fixtures.xdma import card as xdma
from fixtures.xrt import installation as xrt

import apyfal

__all__ = ["CARDS", "Card", "card"]

# Written when the installation is set up; only the processes that use it need the path.
XCLBIN = os.environ.get("APYFAL_TEST_XCLBIN", "")
PLUGIN = os.environ.get("APYFAL_TEST_PLUGIN", "example")
ROOT = Path(__file__).parents[3]
KERNELS = str(Path(opencl.__file__).with_name("kernels.cl"))
RTL = ROOT / "tests" / "fixtures" / "rtl"
#: A struct with padding inside and at its end, as C lays it out.
PAIR = np.dtype([("a", "f4"), ("b", "i1"), ("c", "f8"), ("d", "i2")], align=True)
CONTROL = Path(apyfal.__file__).parent / "accelerators" / "kernels" / "apf_control.sv"


@dataclass(frozen=True)
class Card:
    """How to open a card, and what it can be made to do.

    Attributes
    ----------
    name, driver
        Of the row, and of the driver.
    environment
        Sets up an installation in a folder; returns the environment of the processes that use it.
    increment
        Keywords of `apyfal.Accelerator` for a kernel that adds 1 to 32-bit integers, and its `parameters`.
    join
        Keywords for an accelerator with two inputs, ``x`` (int32) and ``y`` (uint8), and two outputs, ``total`` (int32,
        their sum) and ``low`` (uint8, its lowest byte).
    loopback
        Keywords for an accelerator that copies bytes, where it is not simply called that.
    scalars
        What the kernel takes after source, destination and the number of elements: scalar types and values.
    hang
        Keywords for an accelerator whose run does not end before `release` is called with its input.
    failing, losing
        Keywords for an accelerator whose run ends in an error, and whose device is lost in the middle.
    bad_programs
        Programs that cannot be loaded, with a part of the error that they get.
    suffix
        Of the files with them.
    coefficients
        Keywords for an accelerator that adds bytes, its coefficients, to 32-bit integers.
    record
        Keywords for an accelerator that writes its argument ``s``, a `PAIR`, into its output as it came.
    moved
        Host addresses of the last transfer to the card and of the last one from it, as the card saw them.
    vendor
        It needs a vendor's runtime.
    """

    name: str
    driver: str
    increment: Mapping[str, Any]
    environment: Callable[[Path], dict[str, str]] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    join: Mapping[str, Any] | None = None
    loopback: Mapping[str, Any] | None = None
    scalars: Sequence[tuple[str, float]] = ()
    hang: Mapping[str, Any] | None = None
    release: Callable[[np.ndarray], None] | None = None
    failing: Mapping[str, Any] | None = None
    losing: Mapping[str, Any] | None = None
    bad_programs: Mapping[bytes, str] = field(default_factory=dict)
    suffix: str = ""
    coefficients: Mapping[str, Any] | None = None
    record: Mapping[str, Any] | None = None
    moved: Callable[[], tuple[int, int]] | None = None
    vendor: bool = False


def _over_arrays(kernel: str) -> dict[str, Any]:
    return {
        "driver": "opencl",
        "program": KERNELS,
        "kernel": kernel,
        "arguments": "src, dst, count",
        "dtype": "int32",
        "chunking": "elements",
    }


def _join(**more: Any) -> dict[str, Any]:
    return {
        "kernel": "join",
        "arguments": "x, y, total, low, count",
        "inputs": "x: int32, y: uint8",
        "outputs": "total: int32, low: uint8",
        "chunking": "elements",
        **more,
    }


def _weighted(**more: Any) -> dict[str, Any]:
    """The kernel of `_join` with one of its inputs loaded before."""
    arguments = {"arguments": "src, coefficients, dst, state, count", "state": 1 << 20}
    return {"kernel": "join", "dtype": "int32", "chunking": "elements", **arguments, **more}


def _record(**more: Any) -> dict[str, Any]:
    keys = {"kernel": "record", "arguments": "dst, s: pair", "outputs": f"dst: uint8 = {PAIR.itemsize}"}
    return {**keys, "struct": {"pair": PAIR}, "clear_outputs": "no", **more}


def _emulator(**settings: str) -> dict[str, Any]:
    return {"driver": "emulator", "kernel": "scale", "dtype": "int32", "emulator": settings}


def _change_input(src: np.ndarray) -> None:
    src[0] = 1


def _end_fake_hang(src: np.ndarray) -> None:
    ctypes.CDLL(os.environ["APYFAL_OPENCL_LIBRARY"]).fake_opencl_release_hung()


def _moved_by_fake() -> tuple[int, int]:
    library = ctypes.CDLL(os.environ["APYFAL_OPENCL_LIBRARY"])
    library.fake_opencl_host.restype = ctypes.c_ulong
    return library.fake_opencl_host(0), library.fake_opencl_host(1)


def _moved_by_xrt() -> tuple[int, int]:
    card = xrt.Card(Path(os.environ["XILINX_XRT"]))
    return card["read_at"], card["written_at"]


def _moved_by_xdma() -> tuple[int, int]:
    card = xdma.Card()
    return card["read_at"], card["written_at"]


def _opencl(name: str, **more: Any) -> Card:
    return Card(
        name=name,
        driver="opencl",
        increment=_over_arrays("increment"),
        join=_join(driver="opencl", program=KERNELS),
        coefficients=_weighted(driver="opencl", program=KERNELS),
        hang=_over_arrays("hang"),
        **more,
    )


def _xrt(kernel: str) -> dict[str, Any]:
    return {**_over_arrays(kernel), "driver": "xrt", "program": XCLBIN}


def _end_xrt_hang(src: np.ndarray) -> None:
    xrt.Card(Path(os.environ["XILINX_XRT"])).set(hold=0)


_WEIGHTED_REGISTERS = "src:0x10:buffer, coefficients:0x1c:buffer, dst:0x28:buffer, state:0x34:buffer, count:0x40:64"
_RECORD_REGISTERS = "dst:0x10:buffer, s:0x1c:192"
_JOIN_REGISTERS = "x:0x10:buffer, y:0x1c:buffer, total:0x28:buffer, low:0x34:buffer, count:0x40:64"


def _xdma(control: int, **more: str) -> dict[str, Any]:
    settings = {"registers": "src:0x10:buffer, dst:0x1c:buffer, count:0x28:64", "control": hex(control), **more}
    return {
        "driver": "xdma",
        "kernel": "increment",
        "arguments": "src, dst, count",
        "dtype": "int32",
        "chunking": "elements",
        "xdma": {"memory": "6 GiB", **settings},
    }


def _plugin(folder: Path) -> dict[str, str]:
    """Build the example of a third party's driver."""
    library = folder / "libexample_driver.so"
    command = [
        "cc",
        "-std=c11",
        "-O2",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fPIC",
        "-shared",
        "-I",
        str(ROOT / "csrc/include"),
    ]
    command += ["-o", str(library), str(ROOT / "examples" / "plugin_driver" / "example_driver.c")]
    subprocess.run(command, check=True, timeout=60)
    return {"APYFAL_TEST_PLUGIN": str(library)}


def _end_xdma_hang(src: np.ndarray) -> None:
    xdma.Card().set(hold=0)


def _rtl(count: str, **more: Any) -> dict[str, Any]:
    """A kernel of `increment.sv`, chosen by the register that takes the count."""
    settings = {"registers": f"src:0x10:buffer, dst:0x1c:buffer, count:{count}:64", "latency": "4"}
    return {
        "driver": "rtl",
        "program": f"{RTL / 'increment.sv'}, {CONTROL}",
        "kernel": "increment",
        "arguments": "src, dst, count",
        "dtype": "int32",
        "chunking": "elements",
        "rtl": {**settings, **more},
    }


_RTL_RECORD = {
    "driver": "rtl",
    "program": f"{RTL / 'record.sv'}, {CONTROL}",
    "rtl": {"registers": _RECORD_REGISTERS, "latency": "4", "optimize": "0"},
}


def _rtl_joined(registers: str) -> dict[str, Any]:
    settings = {"registers": registers, "latency": "4", "reorder": "1"}
    return {
        "driver": "rtl",
        "kernel": "joined",
        "program": f"{RTL / 'joined.sv'}, {CONTROL}",
        "rtl": settings,
    }


def _simulators(folder: Path) -> dict[str, str]:
    """Compile the designs, in a cache of these tests' own."""
    environment = {"XDG_CACHE_HOME": str(folder)}
    code = "from numpy import dtype; from apyfal.rtl.program import make_program\n"
    code += "from apyfal.definition.resolve import resolve\n"
    for keywords in (_rtl("0x28"), _join(**_rtl_joined(_JOIN_REGISTERS)), _record(**_RTL_RECORD)):
        code += f"make_program(resolve(None, **{keywords!r}))\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env={**os.environ, **environment})
    return environment


_SOURCE_ERRORS = {
    b"__kernel void increment(__global int *x) { undeclared = 1; }": "undeclared",
    b"\x7fELF\0\0\0\0 no program": "is not a program",
    b"__kernel void other(__global int *x) { x[0] = 1; }": "other",
}

CARDS = [
    Card(
        name="emulator",
        driver="emulator",
        increment=_emulator(),
        join={"accelerator": "join"},
        coefficients={"accelerator": "weighted"},
        record={"accelerator": "record"},
        parameters={"a": 1, "b": 1},
        scalars=[("int32", 1), ("int32", 1), ("uint32", 5)],
        hang=_emulator(hang_run="1"),
        failing=_emulator(fail_run="1"),
        losing=_emulator(lose_device="4"),
    ),
    _opencl(
        "opencl-intel",
        environment=opencl.intel,
        record=_record(driver="opencl", program=KERNELS),
        release=_change_input,
        vendor=True,
        bad_programs=_SOURCE_ERRORS,
    ),
    _opencl(
        "opencl-pocl",
        environment=opencl.pocl,
        record=_record(driver="opencl", program=KERNELS),
        release=_change_input,
        vendor=True,
        bad_programs=_SOURCE_ERRORS,
    ),
    _opencl(
        "opencl-fake",
        environment=opencl.fake,
        release=_end_fake_hang,
        failing=_over_arrays("fail"),
        losing=_over_arrays("lose"),
        moved=_moved_by_fake,
        bad_programs={
            b"#error": "as asked",
            b"\x7fELF\0\0\0\0 no program": "is not a program",
            b"__kernel void add(__global uchar *data, uchar term)": "add",
        },
    ),
    Card(
        name="xrt",
        driver="xrt",
        environment=xrt.functional,
        increment=_xrt("increment"),
        join=_join(driver="xrt", program=XCLBIN),
        coefficients=_weighted(driver="xrt", program=XCLBIN),
        record=_record(driver="xrt", program=XCLBIN),
        loopback={**_xrt("loopback"), "dtype": "uint8"},
        hang=_xrt("hang"),
        release=_end_xrt_hang,
        failing=_xrt("fail"),
        losing=_xrt("lose"),
        moved=_moved_by_xrt,
        bad_programs={b"xclbin1": "not an xclbin", b"xclbin2\0" + bytes(600): "damaged"},
        vendor=True,
    ),
    *(
        Card(
            name=f"xdma-{name}",
            driver="xdma",
            environment=xdma.environment,
            increment=_xdma(0, **settings),
            join=_join(driver="xdma", xdma=_xdma(0x4000, **settings, registers=_JOIN_REGISTERS)["xdma"]),
            coefficients=_weighted(
                driver="xdma", xdma=_xdma(0x4000, **settings, registers=_WEIGHTED_REGISTERS)["xdma"]
            ),
            record=_record(driver="xdma", xdma=_xdma(0x5000, **settings, registers=_RECORD_REGISTERS)["xdma"]),
            loopback={**_xdma(0x1000, **settings), "dtype": "uint8"},
            hang=_xdma(0x2000, **settings),
            release=_end_xdma_hang,
            losing=_xdma(0x3000, **settings),
            bad_programs={b"bits": "the card is programmed before"},
            moved=_moved_by_xdma,
        )
        for name, settings in {"mapped": {}, "called": {"access": "call"}, "interrupts": {"events": "0"}}.items()
    ),
    Card(
        name="rtl",
        driver="rtl",
        environment=_simulators,
        increment=_rtl("0x28"),
        join=_join(**_rtl_joined(_JOIN_REGISTERS)),
        coefficients=_weighted(**_rtl_joined(_WEIGHTED_REGISTERS)),
        record=_record(**_RTL_RECORD),
        loopback={**_rtl("0x58"), "dtype": "uint8"},
        hang=_rtl("0x40", hang_cycles="0"),
        failing=_rtl("0x4c"),
        losing=_rtl("0x28", lose_device="4"),
        bad_programs={
            b"module increment (input wire ap_clk;": "bad0.sv:1",
            b"module other (input wire ap_clk); endmodule": "no module 'increment'; expected other",
            b"module increment (input wire clock); endmodule": "no clock",
            b"module increment (input wire ap_clk); endmodule": "has no control interface .* for argument 'src'",
        },
        suffix=".sv",
        vendor=True,
    ),
    Card(
        name="plugin",
        driver=PLUGIN,
        environment=_plugin,
        increment={**_over_arrays("increment"), "driver": PLUGIN, "program": None},
        loopback={**_over_arrays("loopback"), "driver": PLUGIN, "program": None, "dtype": "uint8"},
    ),
]


def card(name: str) -> Card:
    """Return the row of this name."""
    return next(row for row in CARDS if row.name == name)
