"""An own, empty mount table for every test, and a provider that another package seems to have installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal.storage.mounting import table


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and working directory without configuration."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("APYFAL_CONFIG_FILE", raising=False)
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def mounts(home: Path) -> Iterator[table.MountTable]:
    """The process's table, emptied before and after."""
    table.table.clear()
    yield table.table
    table.table.clear()


@pytest.fixture
def store(mounts: table.MountTable) -> MemoryHandler:
    """A store mounted as ``mem``."""
    handler = MemoryHandler()
    mounts.attach("mem", handler)
    return handler


@pytest.fixture
def memory_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: table.MountTable) -> str:
    """A provider ``memory``, found by its entry point as that of an installed package would be."""
    site = tmp_path / "site"
    metadata = site / "other-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[apyfal.storage]\nmemory = memory_store:MemoryHandler\nbroken = no_such_module_at_all:Handler\n"
        "wrong = pathlib:Path\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    importlib.invalidate_caches()
    return "memory"
