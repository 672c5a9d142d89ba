"""What stays flat: memory, descriptors and threads over many jobs, and over jobs much larger than the memory limit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import apyfal
from apyfal._core.buffer import pool_stats

#: AddressSanitizer keeps freed memory aside on purpose, and is slow.
SANITIZED = "APYFAL_SANITIZED" in os.environ


def resident() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def test_forty_thousand_small_jobs():
    src, dst = apyfal.empty(4096, "u1"), apyfal.empty(4096, "u1")
    src[...] = np.arange(4096) % 251
    with apyfal.Accelerator("loopback") as accelerator:
        for _ in range(2_000):
            accelerator.process(src, dst)
        memory, files, threads, growths = resident(), descriptors(), threading.active_count(), pool_stats()["growths"]
        jobs = 2_000 if SANITIZED else 38_000
        for number in range(jobs):
            src[0] = number % 251
            accelerator.process(src, dst)
        assert dst[0] == (jobs - 1) % 251
        assert np.array_equal(src, dst)
        assert SANITIZED or resident() - memory < 400 << 10
        assert descriptors() == files
        assert threading.active_count() == threads
        assert pool_stats()["growths"] == growths, "a job took new memory"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accelerator", "size", "expected"),
    [
        # 4 GiB of zeros: by hashlib
        ("sha3", 4 << 30, "hashlib"),
        ("loopback", 4 << 30, "same"),
    ],
)
def test_a_file_far_larger_than_the_memory_limit(tmp_path, accelerator, size, expected):
    source, target = tmp_path / "in", tmp_path / "out"
    with open(source, "wb") as file:
        file.truncate(size)
    script = f"""
    import resource, apyfal
    with apyfal.Accelerator({accelerator!r}, memory_limit="256MiB") as accelerator:
        result = accelerator.process({str(source)!r}, {None if expected == "hashlib" else str(target)!r})
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(result and result["digest"])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=110
    )
    peak, digest = done.stdout.split()
    assert int(peak) < 400 << 20
    if expected == "hashlib":
        openssl = subprocess.run(["openssl", "sha3-256", "-r", source], capture_output=True, text=True, check=True)
        assert digest == openssl.stdout.split()[0]
    else:
        assert subprocess.run(["cmp", source, target], check=False).returncode == 0
        assert target.stat().st_size == size
