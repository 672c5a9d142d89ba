"""Which interpreters share a wheel, and which get one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "packaging" / "build_wheels.py"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder for interpreters, first on PATH; they answer every question with their version."""
    if not SCRIPT.exists():
        pytest.skip("an installed wheel is being tested: its sources are elsewhere")
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def put(shelf: Path, version: str) -> str:
    program = shelf / f"python{version}"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    return str(program)


def listed(shelf: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{shelf}:/usr/bin:/bin", "PYENV_ROOT": str(shelf / "none")}
    command = [sys.executable, str(SCRIPT), "--list", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def test_an_interpreter_without_a_lock_has_a_wheel_of_its_own(shelf: Path) -> None:
    for version in ("3.10", "3.11", "3.12", "3.13", "3.14t"):
        put(shelf, version)
    done = listed(shelf)
    assert done.stdout.splitlines() == [
        "3.10 python3.10",
        "3.11 python3.11",
        "3.14t python3.14t",
        "3.12 python3.12 python3.13",
    ]
    assert done.stderr == ""


def test_where_there_is_none_one_line_says_so(shelf: Path) -> None:
    put(shelf, "3.12")
    for version in ("3.10", "3.11", "3.13"):
        (shelf / f"python{version}").write_text("#!/bin/sh\nexit 1\n")
        (shelf / f"python{version}").chmod(0o755)
    done = listed(shelf)
    assert (done.returncode, done.stdout) == (0, "3.12 python3.12\n")
    assert done.stderr == "build_wheels: no python3.14t on this machine: its wheel is not built\n"


def test_those_asked_for_are_grouped_too(shelf: Path) -> None:
    free, shared = put(shelf, "3.14t"), put(shelf, "3.14")
    done = listed(shelf, "--python", shared, "--python", free)
    assert done.stdout.splitlines() == [f"3.14t {free}", f"3.14 {shared}"]
    assert done.stderr == ""
