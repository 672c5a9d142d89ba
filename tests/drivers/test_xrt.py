"""The xrt driver with the real libxrt: over the stand-in card for data, over the noop shim for the life cycle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.cases import xrt_cases
from drivers.support.worker import TESTS, Worker
from fixtures.xrt import installation

pytestmark = pytest.mark.vendor


@pytest.fixture(scope="module")
def worker(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process with the stand-in card."""
    environment = installation.functional(tmp_path_factory.mktemp("xrt"))
    with Worker({**environment, "APYFAL_TEST_DRIVERS": str(library)}) as running:
        yield running


@pytest.mark.parametrize("case", xrt_cases.CASES)
def test_xrt(case: str, worker: Worker) -> None:
    worker.call("drivers.cases.xrt_cases", case)


def test_compute_units_by_name(tmp_path: Path) -> None:
    with Worker(installation.functional(tmp_path / "xrt")) as worker:
        worker.call("drivers.cases.program_cases", "compute_units_by_name", str(tmp_path))


LIFE = """
import ctypes, os
from drivers.support import abi
from drivers.support.abi import buffer, scalar
from fixtures.xrt import xclbin
import numpy as np

driver = abi.Driver(ctypes.CDLL(os.environ["APYFAL_TEST_DRIVERS"]), "xrt")
try:
    print([info.name.decode() for info in driver.list(**OPTIONS)])
    with driver.open(None, **OPTIONS) as device:
        kernel = device.load(xclbin.xclbin(), "vadd")
        memory = abi.pages(8192, np.int32)
        bo = device.import_(memory.ctypes.data, 8192, bank=device.bank(kernel, 0))
        for _ in range(100):
            device.run(kernel, buffer(bo, 4096, 0, 1), buffer(bo, 4096, 4096, 2), scalar("I32", 5))
        print(device.counters().runs, os.environ.get("XILINX_XRT"))
except abi.DriverError as error:
    print(error)
"""


def _live(library: Path, environment: dict[str, str], options: dict[str, str] | None = None) -> str:
    """Run a whole life in a process of its own, which must end well; what it printed."""
    paths = [str(TESTS), str(TESTS.parent)]
    clean = {key: value for key, value in os.environ.items() if key not in ("XILINX_XRT", "XCL_EMULATION_MODE")}
    clean |= {"PYTHONPATH": os.pathsep.join(paths), "APYFAL_TEST_DRIVERS": str(library), **environment}
    code = LIFE.replace("OPTIONS", repr(options or {}))
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_life_over_the_noop_shim_with_nothing_set(library: Path, tmp_path: Path) -> None:
    """XILINX_XRT is unset, and the distribution's libraries are not where XRT looks: both are made good."""
    printed = _live(library, {"XCL_EMULATION_MODE": "noop", "TMPDIR": str(tmp_path)})
    assert printed.splitlines()[0] == "['noop 0']"
    assert printed.splitlines()[1].startswith("100 ")
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_no_card(library: Path) -> None:
    printed = _live(library, {})
    assert printed.startswith("[]\nNO_DEVICE: no XRT device '0'")
    assert "XRT: Could not open device with index '0'" in printed


def test_a_wrong_installation_is_passed_over_but_not_an_option(library: Path, tmp_path: Path) -> None:
    environment = {"XCL_EMULATION_MODE": "noop", "XILINX_XRT": str(tmp_path / "gone")}
    assert "100 " in _live(library, environment)
    printed = _live(library, {"XCL_EMULATION_MODE": "noop"}, {"root": str(tmp_path / "gone")})
    assert printed.startswith("NO_LIBRARY: AMD XRT is not usable in ")


def test_an_unknown_emulation(library: Path) -> None:
    printed = _live(library, {"XCL_EMULATION_MODE": "hw"})
    assert printed.startswith("NO_LIBRARY: XCL_EMULATION_MODE is 'hw'; XRT knows noop, sw_emu and hw_emu")


def test_an_incomplete_installation(library: Path, tmp_path: Path) -> None:
    directory = tmp_path / "lib"
    directory.mkdir()
    for name in ("libxrt_coreutil.so.2",):
        source = (installation.system_libraries() / name).resolve()
        (directory / name).write_bytes(source.read_bytes())
    printed = _live(library, {"XILINX_XRT": str(tmp_path)})
    assert "NO_LIBRARY: XRT is incomplete" in printed
    assert "libxrt_core.so.2 is not" in printed
    for mode, shim in (("noop", "libxrt_noop.so.2"), ("sw_emu", "libxrt_swemu.so.2"), ("hw_emu", "libxrt_hwemu.so.2")):
        printed = _live(library, {"XILINX_XRT": str(tmp_path), "XCL_EMULATION_MODE": mode})
        assert f"NO_LIBRARY: XCL_EMULATION_MODE={mode} needs XRT's emulation shim {shim}, which the XRT in" in printed


def test_another_version(library: Path, tmp_path: Path) -> None:
    """A library that lacks an entry point is named with it."""
    directory = tmp_path / "lib"
    directory.mkdir()
    source = tmp_path / "old.c"
    source.write_text("void *xrtDeviceOpen(unsigned i) { (void)i; return 0; }\n")
    command = ["cc", "-shared", "-fPIC", "-o", str(directory / "libxrt_coreutil.so.2"), str(source)]
    subprocess.run(command, check=True, timeout=60)
    printed = _live(library, {"XILINX_XRT": str(tmp_path), "XCL_EMULATION_MODE": "noop"})
    assert printed.startswith("NO_LIBRARY: libxrt_coreutil.so.2 has no xrtDeviceOpenByBDF; XRT 2.13 or newer is needed")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"log": "loud"}, "INVALID: xrt.log is 'loud'; expected capture or keep"),
        ({"bogus": "1"}, "INVALID: unknown option 'xrt.bogus'; the xrt driver has xrt.root and xrt.log"),
    ],
)
def test_wrong_options(library: Path, options: dict[str, str], complaint: str) -> None:
    assert _live(library, {"XCL_EMULATION_MODE": "noop"}, options).strip() == complaint


def test_the_log_can_stay_where_it_is(library: Path, tmp_path: Path) -> None:
    environment = installation.functional(tmp_path)
    assert "100 " in _live(library, environment, {"log": "keep"})
