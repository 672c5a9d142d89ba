"""What does memory cost: first touch, reuse, locking, mapping a file, reading it, copying it?

The answers are why the pool exists, why it asks for huge pages, and why data is received at its final address.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
from support.common import Bench, main

import apyfal
from apyfal._core.buffer import trim_pool
from apyfal._core.mapped_file import map_file


def benches(quick: bool) -> list[Bench]:
    """1 GiB of each (16 MiB in a smoke run)."""
    nbytes = (16 << 20) if quick else (1 << 30)
    source = np.random.default_rng(1).integers(0, 256, 1 << 20, dtype=np.uint8)
    full = np.tile(source, nbytes >> 20)
    target = apyfal.empty(nbytes, np.uint8)
    target[...] = 1
    global _directory  # the file lives as long as the process
    _directory = directory = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    path = os.path.join(directory.name, "file")
    full.tofile(path)

    def same(array) -> None:
        if not (np.array_equal(array[: 1 << 20], source) and np.array_equal(array[-(1 << 20) :], source)):
            raise AssertionError("wrong data")

    def copy():
        target[...] = full
        return target

    def fresh_copy():
        return full.copy()

    def anonymous(advice: int | None):
        def run():
            memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if advice is not None:
                memory.madvise(advice)
            array = np.frombuffer(memory, np.uint8)
            array[::4096] = 1
            return None

        return run

    def new_block():
        trim_pool()
        return apyfal.empty(nbytes, np.uint8)

    def pooled():
        return apyfal.empty(nbytes, np.uint8)

    def mapped():
        fd = os.open(path, os.O_RDWR)
        try:
            return np.frombuffer(map_file(fd, 0, nbytes, writable=True), np.uint8)
        finally:
            os.close(fd)

    def read():
        with open(path, "rb", buffering=0) as file:
            done = 0
            while done < nbytes:
                done += file.readinto(target.data[done : done + (8 << 20)])
        return target

    bench = Bench(f"{nbytes >> 20} MiB of memory, made ready", nbytes)
    bench.add("limit: memcpy into touched memory", copy, same, limit=True)
    bench.add("numpy copy into fresh memory", fresh_copy, same)
    bench.add("first touch, 4 KiB pages", anonymous(None))
    bench.add("first touch, huge pages", anonymous(mmap.MADV_HUGEPAGE))
    bench.add("apyfal: new block (huge, populated, locked)", new_block)
    bench.add("apyfal: from the pool", pooled)
    bench.add("apyfal: cached file mapped, writable, populated", mapped, same)
    bench.add("cached file read into touched memory, 8 MiB a call", read, same)
    return [bench]


if __name__ == "__main__":
    main(benches, rounds=5)
