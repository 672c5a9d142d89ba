"""What importing costs, and what csrc/ must not know; the layers are in tests/unit/test_layers.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import apyfal


def printed(script: str) -> str:
    """Return what a new interpreter prints."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_loads_no_vendor_library():
    script = 'import apyfal; maps = open("/proc/self/maps").read(); print([n for n in ("OpenCL", "xrt") if n in maps])'
    assert printed(script) == "[]"


def test_importing_costs_little_over_numpy():
    def milliseconds(modules: str) -> float:
        script = f"import time; t = time.process_time(); import {modules}; print((time.process_time() - t) * 1000)"
        return min(float(printed(script)) for _ in range(7))

    assert milliseconds("numpy, apyfal") - milliseconds("numpy") < 60


def test_csrc_knows_no_python():
    sources = Path(apyfal.__file__).parent.parent / "csrc"
    if not sources.is_dir():
        pytest.skip("an installed wheel is being tested: its sources are elsewhere")
    for path in [*sources.rglob("*.c"), *sources.rglob("*.h")]:
        assert "Python.h" not in path.read_text(), path
