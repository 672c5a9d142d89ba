"""The xrt driver with the real libxrt: over the stand-in card for data, over the noop shim for the life cycle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.cases import xrt_cases
from drivers.support.worker import TESTS, Worker
from fixtures.xrt import installation, interface

pytestmark = pytest.mark.vendor
#: Tests of Debian 12's XRT and of compiled stand-ins of it, when the others are run with another one.
debian = pytest.mark.skipif(bool(installation.BUILT), reason="over XRT 2.13 of Debian 12 alone")


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


def test_runs_that_only_read_the_same_array(tmp_path: Path) -> None:
    case = "inputs_and_coefficients_are_read_by_several_runs_at_once"
    with Worker(installation.functional(tmp_path / "xrt")) as worker:
        worker.call("drivers.cases.program_cases", case, str(tmp_path))


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


def _live(library: Path, environment: dict[str, str], options: dict[str, str] | None = None, code: str = LIFE) -> str:
    """Run a whole life in a process of its own, which must end well; what it printed."""
    paths = [str(TESTS), str(TESTS.parent)]
    clean = {key: value for key, value in os.environ.items() if key not in ("XILINX_XRT", "XCL_EMULATION_MODE")}
    clean |= {"PYTHONPATH": os.pathsep.join(paths), "APYFAL_TEST_DRIVERS": str(library), **environment}
    code = code.replace("OPTIONS", repr(options or {}))
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@debian
def test_life_over_the_noop_shim_with_nothing_set(library: Path, tmp_path: Path) -> None:
    """XILINX_XRT is unset, and the distribution's libraries are not where XRT looks: both are made good."""
    printed = _live(library, {"XCL_EMULATION_MODE": "noop", "TMPDIR": str(tmp_path)})
    assert printed.splitlines()[0] == "['noop 0']"
    assert printed.splitlines()[1].startswith("100 ")
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_no_card(library: Path) -> None:
    """Over the distribution's own XRT, of whatever version."""
    printed = _live(library, {})
    assert printed.startswith("[]\nNO_DEVICE: no XRT device '0'")
    if not installation.BUILT:
        assert "XRT: Could not open device with index '0'" in printed
    else:  # it says the same in other words
        assert re.search("XRT: .*index '?0", printed)


@debian
def test_a_wrong_installation_is_passed_over_but_not_an_option(library: Path, tmp_path: Path) -> None:
    environment = {"XCL_EMULATION_MODE": "noop", "XILINX_XRT": str(tmp_path / "gone")}
    assert "100 " in _live(library, environment)
    printed = _live(library, {"XCL_EMULATION_MODE": "noop"}, {"root": str(tmp_path / "gone")})
    assert printed.startswith("NO_LIBRARY: AMD XRT is not usable in ")


@debian
def test_an_unknown_emulation(library: Path) -> None:
    printed = _live(library, {"XCL_EMULATION_MODE": "hw"})
    assert printed.startswith("NO_LIBRARY: XCL_EMULATION_MODE is 'hw'; XRT knows noop, sw_emu and hw_emu")


@debian
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


@debian
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


@debian
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"log": "loud"}, "INVALID: xrt.log is 'loud'; expected capture or keep"),
        ({"bogus": "1"}, "INVALID: unknown option 'xrt.bogus'; the xrt driver has xrt.root and xrt.log"),
    ],
)
def test_wrong_options(library: Path, options: dict[str, str], complaint: str) -> None:
    assert _live(library, {"XCL_EMULATION_MODE": "noop"}, options).strip() == complaint


@debian
def test_the_log_can_stay_where_it_is(library: Path, tmp_path: Path) -> None:
    environment = installation.functional(tmp_path)
    assert "100 " in _live(library, environment, {"log": "keep"})


@debian
def test_libraries_in_the_folder_of_the_architecture(library: Path, tmp_path: Path) -> None:
    """As XRT for several architectures is installed; 2.13 itself looks into `lib` alone."""
    directory = tmp_path / "lib" / f"{os.uname().machine}-linux-gnu"
    directory.mkdir(parents=True)
    for path in installation.system_libraries().glob("libxrt*.so*"):
        (directory / path.name).symlink_to(path)
    environment = {"XCL_EMULATION_MODE": "noop", "TMPDIR": str(tmp_path)}
    assert "100 " in _live(library, {**environment, "XILINX_XRT": str(tmp_path)})
    assert "100 " in _live(library, environment, {"root": str(tmp_path)})


@debian
def test_the_interface_of_newer_shims_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XRT 2.25 is not here, so that the stand-in for it is compared with itself, and with what it is not."""
    source = installation.HERE / "functional_card_shim.cpp"
    card = tmp_path / "card.so"
    command = ["cc", "-std=c++17", *installation.WARNINGS, "-shared", "-o", str(card), str(source)]
    subprocess.run(command, check=True, timeout=120)
    scope = "(anonymous namespace)"
    assert interface.functions(card)[f"{scope}::buffer_object"][:5] == ["~", "~", "share", "map", "unmap"]
    monkeypatch.setattr(interface, "CLASSES", {name: name for name in interface.CLASSES})
    interface.compare(card, card)
    monkeypatch.setattr(interface, "CLASSES", {f"{scope}::buffer_object": f"{scope}::hwcontext"})
    with pytest.raises(ValueError, match=r"virtual function 2 of .*buffer_object is 'share'; .* has 'update_qos'"):
        interface.compare(card, card)
    monkeypatch.setattr(interface, "CLASSES", {f"{scope}::hwcontext": f"{scope}::buffer_object"})
    with pytest.raises(ValueError, match=r"has 19 virtual functions; .* has 15"):
        interface.compare(card, card)


NEWER = r"""
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
static int one;
static unsigned command = 4;
__attribute__((destructor)) static void end(void) { if ((command & 15) < 4) abort(); }
void *_ZNK3xrt3run14get_ert_packetEv(void *r) { (void)r; return &command; }
static char memory[8192] __attribute__((aligned(4096)));
unsigned xrtVersionMinor(void) { return MINOR; }
void *xrtDeviceOpen(unsigned i) { return i ? NULL : &one; }
void *xrtDeviceOpenByBDF(const char *bdf) { (void)bdf; return &one; }
int xrtDeviceClose(void *d) { (void)d; return 0; }
int xrtDeviceLoadXclbin(void *d, const void *x) { (void)d, (void)x; return 0; }
int xrtDeviceGetXclbinUUID(void *d, unsigned char *u) { (void)d, (void)u; return 0; }
void *xrtPLKernelOpen(void *d, const unsigned char *u, const char *n) { (void)d, (void)u, (void)n; return &one; }
int xrtKernelClose(void *k) { (void)k; return 0; }
int xrtKernelArgGroupId(void *k, int i) { (void)k, (void)i; return 0; }
void *xrtBOAlloc(void *d, size_t s, unsigned long f, unsigned g) { (void)d, (void)s, (void)f, (void)g; return memory; }
void *xrtBOAllocUserPtr(void *d, void *p, size_t s, unsigned long f, unsigned g)
{ (void)d, (void)s, (void)f, (void)g; return p; }
void *xrtBOSubAlloc(void *b, size_t s, size_t o) { (void)s, (void)o; return b; }
int xrtBOFree(void *b) { (void)b; return 0; }
void *xrtBOMap(void *b) { return b; }
int xrtBOSync(void *b, int d, size_t s, size_t o) { (void)b, (void)s, (void)o; if (d) errno = EIO; return 0; }
void *xrtRunOpen(void *k) { return k; }
int xrtRunSetArg(void *r, int i, ...) { (void)r, (void)i; return 0; }
int xrtRunStart(void *r) { (void)r; command = 3; return 0; }
int xrtRunWaitFor(void *r, unsigned t) { (void)r, (void)t; return 3; }
int xrtRunState(void *r) { (void)r; return (int)(command & 15); }
int xrtRunClose(void *r) { (void)r; end(); return 0; }
int xrtIniStringSet(const char *k, const char *v) { (void)k, (void)v; return 0; }
"""

LOST = """
import ctypes, os
from drivers.support import abi
from drivers.support.abi import FROM_DEVICE, SYNC_TO, TO_DEVICE, buffer, scalar
from fixtures.xrt import xclbin
import numpy as np

driver = abi.Driver(ctypes.CDLL(os.environ["APYFAL_TEST_DRIVERS"]), "xrt")
with driver.open(None, **OPTIONS) as device:
    kernel = device.load(xclbin.xclbin(), "vadd")
    memory = abi.pages(8192, np.int32)
    bo = device.import_(memory.ctypes.data, 8192)
    device.sync(bo, TO_DEVICE, 0, 8192)
    run = device.begin(kernel, buffer(bo, 4096, 0, SYNC_TO), buffer(bo, 4096, 4096), scalar("I32", 5))
    for call in (lambda: device.sync(bo, FROM_DEVICE, 0, 8192), lambda: device.cancel(run)):
        try:
            call()
        except abi.DriverError as error:
            print(error)
    getenv = ctypes.CDLL(None).getenv  # os.environ is as it was at the start
    getenv.restype = ctypes.c_char_p
    print("cancel" in device.capabilities(), (getenv(b"XILINX_XRT") or b"").decode())
    driver.table.release(run)  # in flight
"""


def _newer(folder: Path, minor: int) -> Path:
    """A library that says that it is XRT 2.`minor`, whose transfers from the card fail as its shim lets them."""
    directory = folder / "lib"
    directory.mkdir(parents=True)
    source = folder / "newer.c"
    source.write_text(NEWER)
    command = ["cc", "-Wall", "-Wextra", "-Werror", f"-DMINOR={minor}", "-shared", "-fPIC"]
    command += ["-Wl,-soname,libxrt_coreutil.so.2", "-o"]
    subprocess.run([*command, str(directory / "libxrt_coreutil.so.2"), str(source)], check=True, timeout=60)
    for shim in ("libxrt_core.so.2", "libxrt_hwemu.so.2"):
        (directory / shim).symlink_to("libxrt_coreutil.so.2")
    return folder


@debian
@pytest.mark.parametrize("minor", [16, 20, 25])
def test_a_transfer_that_failed_where_xrt_says_that_it_did_not(library: Path, tmp_path: Path, minor: int) -> None:
    """XRT 2.16 and newer return 0 from xrtBOSync for it; and they cannot abort.

    The run is in flight when the device is closed, and at exit: XRT 2.25 aborts the process that destroys it.
    """
    root = _newer(tmp_path / "xrt", minor)
    printed = _live(library, {"XILINX_XRT": str(root)}, code=LOST).splitlines()
    assert printed[0].startswith("IO: cannot move 8192 bytes at offset 0 from device 'AMD card 0'")
    assert printed[1].startswith("UNSUPPORTED: XRT of this version cannot abort a run of a card; XRT 2.13 to 2.15 can")
    assert printed[2] == f"False {root}"


@debian
def test_errno_of_an_emulation_means_nothing(library: Path, tmp_path: Path) -> None:
    environment = {"XILINX_XRT": str(_newer(tmp_path / "xrt", 25)), "XCL_EMULATION_MODE": "hw_emu"}
    assert _live(library, environment, code=LOST).splitlines()[0].startswith("UNSUPPORTED: ")


@debian
def test_where_newer_ones_find_their_shim(library: Path, tmp_path: Path) -> None:
    """XRT 2.20 and newer know the folder of their libraries: a wrong $XILINX_XRT would only mislead them."""
    environment = {"LD_LIBRARY_PATH": str(_newer(tmp_path / "xrt", 20) / "lib"), "XILINX_XRT": str(tmp_path / "gone")}
    assert _live(library, environment, code=LOST).splitlines()[2] == "False "
    root = tmp_path / "xrt"
    assert _live(library, environment, {"root": str(root)}, code=LOST).splitlines()[2] == f"False {root}"
    (root / "lib" / "libxrt_core.so.2").unlink()
    assert "NO_LIBRARY: XRT is incomplete" in _live(library, environment)
