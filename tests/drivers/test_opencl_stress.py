"""The opencl driver under ThreadSanitizer and AddressSanitizer: four threads on one device of the fake library."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fixtures.opencl import installation

#: Seconds of hammering; a minute or more finds what seldom happens.
SECONDS = int(os.environ.get("APYFAL_HAMMER_SECONDS", "2"))
CSRC = installation.CSRC


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_four_threads_on_one_device(sanitizer: str, tmp_path: Path) -> None:
    flags = [f"-fsanitize={sanitizer}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
    environment = installation.fake(tmp_path, *flags)
    program = tmp_path / "stress"
    sources = [CSRC / "error.c", CSRC / "alloc.c", CSRC / "driver_opencl.c", *sorted(CSRC.glob("opencl_*.c"))]
    command = [shutil.which("cc") or "cc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    command += [*flags, f"-I{CSRC}", str(installation.HERE / "stress.c"), *map(str, sources)]
    command += [environment["APYFAL_OPENCL_LIBRARY"], "-o", str(program), "-lpthread", "-lm", "-ldl"]
    subprocess.run(command, check=True, timeout=120)
    # This process may run under a sanitizer of its own, which would be loaded into the other's program.
    inherited = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    ended = subprocess.run(
        [program, str(SECONDS)],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[0]) > 100
