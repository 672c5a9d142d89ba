"""The 1st, 2nd, 3rd ... allocation of the core fails: an error, nothing left behind, and the next try works."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest

import apyfal
from apyfal._core import errors
from apyfal._core.buffer import Buffer, trim_pool
from apyfal._core.mapped_file import map_file
from apyfal.exceptions import KernelError

MIB = 1 << 20


def job_over_arrays(tmp_path):
    """Run a job of one chunk over pinned arrays."""
    with apyfal.Accelerator("loopback") as accelerator:
        src = apyfal.empty(100_000, "u1")
        src[...] = 5
        assert set(accelerator.process(src)) == {5}


def job_over_files(tmp_path):
    """Run a job of several chunks from file to file, or leave the destination as it was."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(bytes(3 * MIB))
    target.write_bytes(b"old")
    try:
        with apyfal.Accelerator("loopback", memory_limit="6MiB") as accelerator:
            accelerator.process(source, target)
    except BaseException:
        assert target.read_bytes() == b"old"
        assert sorted(os.listdir(tmp_path)) == ["in", "out"]
        raise
    assert target.read_bytes() == source.read_bytes()


def digest(tmp_path):
    """Run a job with state on the card."""
    with apyfal.Accelerator("sha3") as accelerator:
        accelerator.process(np.zeros(9 * MIB, "u1"))


def expand(tmp_path):
    """Run a job whose output is reported."""
    with apyfal.Accelerator("gzip") as compress, apyfal.Accelerator("gunzip") as accelerator:
        packed = compress.process(np.zeros(MIB // 2, "u1"))
        assert accelerator.process(packed).nbytes == MIB // 2


def mapped(tmp_path):
    """Map a file and resize a buffer."""
    path = tmp_path / "map"
    path.write_bytes(bytes(8192))
    fd = os.open(path, os.O_RDWR)
    try:
        map_file(fd, 0, 8192, writable=True).close()
    finally:
        os.close(fd)
    with Buffer(4096) as buffer:
        buffer.resize(10 * MIB)


@pytest.mark.parametrize("work", [job_over_arrays, job_over_files, digest, expand, mapped])
def test_every_allocation_may_fail(work, tmp_path):
    trim_pool()
    work(tmp_path)  # so that what is made once is made
    gc.collect()
    before = errors.live()
    failures = 0
    for nth in range(400):
        trim_pool()
        made = errors.fail_allocation(nth)
        try:
            work(tmp_path)
            reached = errors.fail_allocation(None) - made > nth
        except (MemoryError, KernelError) as error:  # HostMemoryExhausted and DeviceMemoryExhausted are the former
            errors.fail_allocation(None)
            if isinstance(error, KernelError) and "insufficient memory" not in str(error):
                raise  # zlib's own allocation is what may fail inside of a kernel
            failures += 1
            reached = True
        gc.collect()
        live = errors.live()
        assert {key: live[key] for key in live if key != "mappings"} == {
            key: before[key] for key in before if key != "mappings"
        }, f"allocation {nth} left something behind"
        if not reached:
            break
    else:
        pytest.fail("there is no end of allocations")
    assert failures >= 3
    work(tmp_path)
