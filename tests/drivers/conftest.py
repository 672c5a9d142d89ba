"""The drivers for tests that call them by their ABI, compiled once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from drivers.support import abi


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of csrc/ with every symbol visible; ``$APYFAL_TEST_LIBRARY``: one that was compiled elsewhere."""
    if built := os.environ.get("APYFAL_TEST_LIBRARY"):
        return Path(built)
    return abi.build(tmp_path_factory.mktemp("drivers") / "libapyfal_drivers.so")
