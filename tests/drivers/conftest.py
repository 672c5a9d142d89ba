"""The drivers for tests that call them by their ABI, compiled once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from drivers.support import abi


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of csrc/ with every symbol visible; ``$APYFAL_TEST_LIBRARY``: one that was compiled elsewhere."""
    if built := os.environ.get("APYFAL_TEST_LIBRARY"):
        return Path(built)
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of the whole run: the first worker compiles, the others wait for it
    target = folder / "libapyfal_drivers.so"
    with (folder / "libapyfal_drivers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            abi.build(target.with_suffix(".part"), "-O0").rename(target)
    return target
