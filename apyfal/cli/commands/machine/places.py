"""Measure a place for data: a directory of a disk, or what is below a prefix of a store."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apyfal import storage
from apyfal.exceptions import ChecksumMismatch
from apyfal.memory import empty
from apyfal.units import format_size

__all__ = ["Measurement", "measure_place"]

_SMALL = 64 << 10
_SMALL_COUNT = 64
#: Ours is said to be limited by the disk up to this multiple of what bare system calls take.
_NEAR = 1.25
#: ... and by the processor from this share of one core on.
_BUSY = 0.8


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the result.

    Attributes
    ----------
    what
        What was done.
    nbytes
        Bytes that were moved.
    seconds
        Median of all rounds.
    limit
        Seconds that bare system calls take for the same; ``None``: not known, as for a store.
    limited_by
        What limited it.
    """

    what: str
    nbytes: int
    seconds: float
    limit: float | None
    limited_by: str


def measure_place(url: str, nbytes: int, repeat: int) -> list[Measurement]:
    """Write and read one large object and many small ones below `url`, check what was read, and remove all of it.

    Parameters
    ----------
    url
        A directory or prefix that is there. Names are random, so that nothing is overwritten.
    nbytes
        Size of the large object.
    repeat
        How often each is measured, after one round that does not count.

    Raises
    ------
    StorageError
        The place cannot be written or read.
    ChecksumMismatch
        What was read is not what was written.
    """
    base = f"{url.rstrip('/')}/.apyfal-bench-{token_hex(8)}"
    large, bare = f"{base}-large", Path(f"{base}-bare")
    small = [f"{base}-{number}" for number in range(_SMALL_COUNT)]
    data, back = empty(nbytes, np.uint8), empty(nbytes, np.uint8)
    data[:] = np.resize(np.frombuffer(np.random.default_rng(1).bytes(1 << 20), np.uint8), nbytes)
    pieces = [np.full(_SMALL, number, np.uint8) for number in range(_SMALL_COUNT)]
    found: list[Any] = []

    def load_small() -> None:
        found[:] = storage.load_many(small)

    local = "://" not in url
    count = f"{_SMALL_COUNT} of {format_size(_SMALL)}"
    try:
        write = _row(
            f"write {format_size(nbytes)}",
            nbytes,
            repeat,
            lambda: storage.save(large, data),
            (lambda: _bare_write(bare, data)) if local else None,
        )
        read = _row(
            f"read {format_size(nbytes)}",
            nbytes,
            repeat,
            lambda: storage.load(large, out=back),
            (lambda: _bare_read(Path(large), back)) if local else None,
        )
        _check(url, data, back)
        write_small = _row(f"write {count}", _SMALL * len(small), repeat, lambda: storage.save_many(small, pieces))
        read_small = _row(f"read {count}", _SMALL * len(small), repeat, load_small)
        for piece, one in zip(pieces, found, strict=True):
            _check(url, piece, one)
    finally:
        storage.remove_many([large, *small], return_exceptions=True)
    return [write, read, write_small, read_small]


def _check(url: str, written: NDArray[Any], read: NDArray[Any]) -> None:
    if not np.array_equal(written, read):
        raise ChecksumMismatch(f"{url}: what was read is not what was written")


def _row(
    what: str, nbytes: int, repeat: int, work: Callable[[], object], bare: Callable[[], None] | None = None
) -> Measurement:
    """Measure `work`, in turns with `bare`, which does the same by system calls alone."""
    work()
    ours: list[float] = []
    limits: list[float] = []
    busy = 0.0
    for _ in range(repeat):
        if bare is not None:
            start = perf_counter()
            bare()
            limits.append(perf_counter() - start)
        start, cpu = perf_counter(), process_time()
        work()
        ours.append(perf_counter() - start)
        busy += process_time() - cpu
    limit = statistics.median(limits) if limits else None
    seconds = statistics.median(ours)
    if limit is not None and seconds <= _NEAR * limit:
        limited_by = "the disk"
    elif busy >= _BUSY * sum(ours):
        limited_by = "the processor"
    else:
        limited_by = "the place, or the way to it"
    return Measurement(what, nbytes, seconds, limit, limited_by)


def _bare_write(file: Path, data: NDArray[Any]) -> None:
    """Write and sync a new file by system calls alone, and remove it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = data.data
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        file.unlink()


def _bare_read(file: Path, into: NDArray[Any]) -> None:
    """Read a file by system calls alone."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        view = into.data
        while view and (count := os.readv(descriptor, [view])):
            view = view[count:]
    finally:
        os.close(descriptor)
