"""Four threads on one device of each driver under ThreadSanitizer, AddressSanitizer and UndefinedBehaviorSanitizer,
the transport over connections that break, and what can go wrong with the opencl driver.

Vendors' OpenCL brings threads and compilers of its own, which sanitizers do not understand: there, as it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from c.building import HERE, SECONDS, VARIANTS, Variant, run
from fixtures.opencl import installation as opencl
from fixtures.xdma import card as xdma
from fixtures.xrt import installation as xrt

LOOPBACK = HERE.parents[1] / "apyfal" / "accelerators" / "kernels" / "loopback.cl"
HAMMER = HERE / "programs" / "hammer.c"

pytestmark = pytest.mark.timeout(SECONDS + 300)


def _hammer(program: Path, environment: dict[str, str], driver: str, source: Path | str = "-", *options: str) -> None:
    printed = run(program, str(SECONDS), driver, str(source), *options, environment=environment)
    assert int(printed.split()[0]) > 100


@pytest.mark.parametrize("name", VARIANTS)
def test_emulator(name: str, variant: Callable[[str], Variant]) -> None:
    _hammer(variant(name).program("hammer", [HAMMER]), {}, "emulator")


@pytest.mark.parametrize("name", VARIANTS)
def test_who_owns_what(name: str, variant: Callable[[str], Variant]) -> None:
    """The layer above the drivers: buffers, objects and runs that threads share and let go of."""
    printed = run(variant(name).program("hammer-core", [HERE / "programs" / "hammer_core.c"]), str(SECONDS))
    assert int(printed.split()[0]) > 100


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_checked_and_then_done(name: str, variant: Callable[[str], Variant]) -> None:
    """Views, sizes and ends of a buffer, starts of runs and the end of their device, by several threads at once."""
    printed = run(variant(name).program("hammer-holds", [HERE / "programs" / "hammer_holds.c"]), str(SECONDS))
    assert int(printed.split()[0]) > 10


@pytest.mark.parametrize("over", ["", "tls"])
@pytest.mark.parametrize("name", VARIANTS)
def test_transport(name: str, over: str, variant: Callable[[str], Variant], certificate: dict[str, str]) -> None:
    """Ten thousand transfers (over TLS 4,000), of which one in five is broken, and some batches are cancelled."""
    count = 4000 if over else 10_000
    sources = [HERE / "programs" / "hammer_transport.c", HERE / "rig" / "cover.c"]
    program = variant(name).program("hammer-transport", sources)
    done, others = map(int, run(program, str(count), *filter(None, [over]), environment=certificate).split())
    assert done + others == count
    assert done > 0.6 * count
    assert others > 0.1 * count


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("units", [1, 2])
def test_opencl(units: int, name: str, variant: Callable[[str], Variant], tmp_path: Path) -> None:
    compiled = variant(name)
    environment = opencl.fake(tmp_path, *compiled.flags)
    program = compiled.program("hammer", [HAMMER])
    _hammer(program, environment, "opencl", LOOPBACK, f"compute_units={units}")


@pytest.mark.vendor
@pytest.mark.parametrize("vendor", [opencl.intel, opencl.pocl])
def test_vendors_opencl(
    vendor: Callable[[Path], dict[str, str]], variant: Callable[[str], Variant], tmp_path: Path
) -> None:
    _hammer(variant("plain").program("hammer", [HAMMER]), vendor(tmp_path), "opencl", LOOPBACK)


@pytest.mark.vendor
@pytest.mark.parametrize("name", VARIANTS)
def test_xrt(name: str, variant: Callable[[str], Variant], tmp_path: Path) -> None:
    compiled = variant(name)
    environment = xrt.functional(tmp_path, *compiled.flags)
    _hammer(compiled.program("hammer", [HAMMER]), environment, "xrt", environment["APYFAL_TEST_XCLBIN"])


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("access", ["access=mmap", "access=call", "events=0"])
def test_xdma(access: str, name: str, variant: Callable[[str], Variant], tmp_path: Path) -> None:
    # Linked, not preloaded: a sanitizer's own library has to be the first.
    program = variant(name).program("hammer-xdma", [HAMMER, *xdma.SOURCES], redirect=xdma.CALLS)
    registers = "registers=src:0x10:buffer, dst:0x1c:buffer, bytes:0x28:64"
    _hammer(program, xdma.nodes(tmp_path), "xdma", "-", registers, "control=0x1000", access)


@pytest.mark.parametrize("name", VARIANTS)
def test_opencl_faults(name: str, variant: Callable[[str], Variant], tmp_path: Path) -> None:
    compiled = variant(name)
    environment = opencl.fake(tmp_path, *compiled.flags)
    library = Path(environment["APYFAL_OPENCL_LIBRARY"])
    program = compiled.program("opencl-faults", [HERE / "programs" / "opencl_faults.c"], library)
    assert len(run(program, environment=environment).splitlines()) == 3
