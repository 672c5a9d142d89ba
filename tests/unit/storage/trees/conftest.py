"""Places for tests of `sync`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_store import MemoryHandler
from trees import TREE, fill

from apyfal.storage.mounting import table


@pytest.fixture
def store() -> Iterator[MemoryHandler]:
    handler = MemoryHandler()
    table.table.attach("lab", handler)
    yield handler
    table.table.unmount("lab")


@pytest.fixture(params=["disk-disk", "disk-store", "store-disk", "store-store"])
def places(request: pytest.FixtureRequest, store: MemoryHandler, tmp_path: Path) -> tuple[str, str]:
    """Give a tree's URL, and one for its copy."""
    kinds = request.param.split("-")
    source, destination = (
        str(tmp_path / name) if kind == "disk" else f"lab://b/{name}"
        for kind, name in zip(kinds, ("in", "out"), strict=True)
    )
    fill(source, TREE)
    return source, destination
