"""Drivers, vendors' libraries, device files, simulators."""

from __future__ import annotations

import grp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from apyfal.doctor.finding import Finding
from apyfal.exceptions import AcceleratorException
from apyfal.log import redact_text
from apyfal.rtl.build import find_toolchain

__all__ = ["check_device_files", "check_drivers", "check_simulator"]

#: Drivers to what makes them usable.
_REMEDIES = {
    "opencl": "install the loader (apt install ocl-icd-libopencl1) and your vendor's platform, which"
    " /etc/OpenCL/vendors then lists; for the processor itself: pocl-opencl-icd",
    "xrt": "install XRT, and source /opt/xilinx/xrt/setup.sh",
    "xdma": "load the kernel module of AMD's XDMA driver: sudo modprobe xdma",
    "rtl": "see the simulator's line",
}
#: Device files of the cards that the drivers know.
_DEVICE_FILES = ("xdma[0-9]*", "dri/renderD*", "xclmgmt*", "xocl*", "intel-fpga-port*", "dfl-port*", "accel/accel*")
#: Seconds that listing devices may take: some vendors' libraries look at the bus for several.
_TIMEOUT = 60.0
_LIST = (
    "import json, apyfal; found = apyfal.devices();"
    "print(json.dumps([[[d['driver'], d['name'], d['version']] for d in found], found.unavailable]))"
)


def check_drivers() -> Iterator[Finding]:
    """List the devices of every driver, in a process of its own: vendors' libraries may crash or hang."""
    try:
        listed = subprocess.run(
            [sys.executable, "-c", _LIST],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",  # modules of the working directory are not imported
        )
    except subprocess.TimeoutExpired:
        yield Finding(
            "cards",
            "problem",
            f"listing the devices did not end within {_TIMEOUT:.0f} s: a vendor's library hangs",
            "apyfal devices --driver NAME, driver by driver, shows whose",
        )
        return
    try:
        devices, unavailable = json.loads(_last(listed.stdout))
    except ValueError:
        yield Finding(
            "cards",
            "problem",
            f"listing the devices ended with status {listed.returncode}: {redact_text(_last(listed.stderr))}",
            "apyfal devices --driver NAME, driver by driver, shows whose library it is",
        )
        return
    for driver in sorted({name for name, _, _ in devices}):
        names = [f"{name} ({version})" if version else name for of, name, version in devices if of == driver]
        yield Finding("cards", "ok", f"{driver}: {', '.join(names)}")
    for driver, reason in unavailable.items():
        yield Finding("cards", "note", f"{driver} cannot be used: {redact_text(reason)}", _REMEDIES.get(driver, ""))


def _last(text: str) -> str:
    """Return the last line: vendors' libraries print, too."""
    return (text.strip().splitlines() or ["nothing was said"])[-1]


def check_device_files(root: Path = Path("/dev")) -> Iterator[Finding]:
    """Look whether this user may open the cards' device files."""
    files = sorted(file for pattern in _DEVICE_FILES for file in root.glob(pattern))
    closed = [file for file in files if not os.access(file, os.R_OK | os.W_OK)]
    for file in closed:
        group = _group_of(file)
        yield Finding(
            "cards",
            "problem",
            f"no permission to open {file}: it belongs to group {group!r}",
            f"sudo usermod -aG {group} {os.environ.get('USER', '$USER')}, and log in again",
        )
    if files and not closed:
        yield Finding("cards", "ok", f"{len(files)} device files can be opened")
    elif not files:
        yield Finding("cards", "note", f"no card's device file in {root}")


def _group_of(file: Path) -> str:
    number = file.stat().st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def check_simulator() -> Iterator[Finding]:
    """Look for Verilator and a C++ compiler."""
    try:
        tools = find_toolchain()
    except AcceleratorException as error:
        yield Finding(
            "cards", "note", f"no simulated cards: {error}", "pip install 'apyfal[rtl]'; apt install g++ make"
        )
        return
    ghdl = "" if shutil.which("ghdl") else "; no ghdl: Verilog alone"
    yield Finding("cards", "ok", f"simulated cards by {tools.version}{ghdl}")
