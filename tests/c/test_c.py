"""Build the C tests with the compiler at hand, plain and under the sanitizers, and run them.

`CC` names the compiler (default ``cc``). `APYFAL_HAMMER_SECONDS` is how long the threads of the stress test go on.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"

# Everything of csrc/ but the drivers that need a vendor's library, and the registry that names them.
VENDOR = ("registry", "driver_opencl", "driver_xrt", "driver_xdma", "opencl", "xrt", "xdma")
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-g", f"-I{CSRC}"]
LIBRARIES = ["-lz", "-lpthread", "-lm", "-ldl"]
VARIANTS = {
    "plain": ["-O3"],
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "thread": ["-O1", "-fsanitize=thread", "-fno-omit-frame-pointer"],
}
# A race or a leak ends the program with this status.
ENVIRONMENT = {"ASAN_OPTIONS": "exitcode=66:detect_leaks=1", "TSAN_OPTIONS": "exitcode=66:halt_on_error=1"}


def _sources() -> list[Path]:
    csrc = [source for source in sorted(CSRC.glob("*.c")) if not source.stem.startswith(VENDOR)]
    return [*csrc, *sorted(HERE.glob("*.c"))]


def _compile(source: Path, folder: Path, flags: list[str]) -> Path:
    result = folder / f"{source.parent.name}-{source.stem}.o"
    command = [os.environ.get("CC", "cc"), *FLAGS, *flags, "-c", str(source), "-o", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return result


@pytest.fixture(scope="module", params=VARIANTS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program in one variant."""
    variant: str = request.param
    folder = tmp_path_factory.mktemp(variant)
    flags = VARIANTS[variant]
    with ThreadPoolExecutor(max_workers=2) as pool:
        objects = list(pool.map(lambda source: _compile(source, folder, flags), _sources()))
    result = folder / "test"
    command = [os.environ.get("CC", "cc"), *flags, *map(str, objects), *LIBRARIES, "-o", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return result


@pytest.mark.timeout(300)
def test_all_pass(program: Path) -> None:
    done = subprocess.run(
        [program], env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "ok four_threads_hammer_one_device" in done.stdout.splitlines()


def test_a_failing_check_is_seen(program: Path) -> None:
    done = subprocess.run([program, "no_such_test"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no such test" in done.stderr
