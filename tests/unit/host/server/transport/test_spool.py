"""Spool files, and outputs that are saved: whole, or an error."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from apyfal.host.server.jobs.outputs import SavedOutputs
from apyfal.host.server.policy.quotas import Quota
from apyfal.host.server.transport.bodies import Data
from apyfal.host.server.transport.spool import SpoolFile


@pytest.fixture
def disk_of_a_megabyte() -> Iterator[int]:
    """No file can grow beyond this: as on a disk that gets full, the last write takes a part."""
    nbytes = 1_000_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, limits[1]))
    try:
        yield nbytes
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_spool_file_that_cannot_take_all(tmp_path: Path, disk_of_a_megabyte: int) -> None:
    file = SpoolFile(tmp_path, Quota("disk", 1 << 30, 1 << 30).share("me"), 1 << 30, 0)
    assert file.write(np.zeros(disk_of_a_megabyte // 8, np.uint64)) == disk_of_a_megabyte
    file.seek(10)
    with pytest.raises(OSError, match="too large"):
        file.write(bytes(disk_of_a_megabyte))
    file.close()


def test_an_output_that_cannot_be_saved_whole(tmp_path: Path, disk_of_a_megabyte: int) -> None:
    saved = SavedOutputs(tmp_path / "outputs")
    for job, nbytes in (("fits", disk_of_a_megabyte), ("large", disk_of_a_megabyte + 1)):
        data = Data(array=np.arange(nbytes, dtype=np.uint8))
        assert saved.save(job, data, time.monotonic() + 60) is (job == "fits")
    fits = saved.open("fits")
    assert fits is not None
    assert fits.tobytes() == np.arange(disk_of_a_megabyte, dtype=np.uint8).tobytes()
    fits.close()
    assert saved.open("large") is None
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["fits"]
