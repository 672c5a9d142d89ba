"""The drivers for tests that call them by their ABI, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest
from drivers.support import abi


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of csrc/ with every symbol visible."""
    return abi.build(tmp_path_factory.mktemp("drivers") / "libapyfal_drivers.so")
