"""The store of ``host://``, through the transfer engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from apyfal.exceptions import AccessDenied, ObjectChanged, ObjectExists, ObjectNotFound, StorageError
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.host_store import HostStore
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.transfer import copy, download, upload


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HostStore]:
    (tmp_path / "shared").mkdir()
    with AllowedDirectories([str(tmp_path / "shared")]) as allowed:
        yield HostStore(allowed)


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_001])
def test_objects_there_and_back(store: HostStore, tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    options = TransferOptions(part_size=1 << 20)
    assert upload(store, "x", memoryview(content), options=options).size == size
    assert (tmp_path / "shared/x").read_bytes() == content
    out = bytearray(size)
    download(store, "x", memoryview(out), options=options)
    assert out == content
    copy(store, "x", store, "y")
    assert (tmp_path / "shared/y").read_bytes() == content


def test_a_failed_upload_leaves_nothing(store: HostStore, tmp_path: Path) -> None:
    pending = store.upload("x", size=10)
    pending.write_part(1, memoryview(b"12345"), None)
    with pytest.raises(StorageError, match="5 bytes instead of 10"):
        pending.complete(10, None)
    pending.abort()
    pending.abort()
    assert list((tmp_path / "shared").iterdir()) == []


def test_changes_while_reading_are_noticed(store: HostStore, tmp_path: Path) -> None:
    (tmp_path / "shared/x").write_bytes(b"before")
    info = store.describe("x")
    (tmp_path / "shared/x").write_bytes(b"after!!")
    with pytest.raises(ObjectChanged):
        store.read("x", 0, 6, info)
    reader = store.read("x", 0, 7, None)
    (tmp_path / "shared/x").write_bytes(b"")
    with pytest.raises(ObjectChanged, match="ended before byte 7"):
        reader.readinto(memoryview(bytearray(7)))
    reader.close()


def test_names(store: HostStore, tmp_path: Path) -> None:
    store.makedirs("a/b")
    store.put("a/b/x", memoryview(b"1"), None)
    store.put("a/y", memoryview(b"22"), None, exclusive=True)
    with pytest.raises(ObjectExists):
        store.put("a/y", memoryview(b"3"), None, exclusive=True)
    assert [(entry.path, entry.is_directory) for entry in store.list("a")] == [("a/b", True), ("a/y", False)]
    assert [entry.path for entry in store.list("", recursive=True)] == ["a/b/x", "a/y"]
    assert store.describe("a").is_directory
    store.remove("a/y")
    with pytest.raises(ObjectNotFound):
        store.describe("a/y")
    with pytest.raises(AccessDenied):
        store.read("../x", 0, None, None)
