"""`storage.sync` between a disk and every store: what differs is seen by each store's own listing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from apyfal import storage
from apyfal.exceptions import AccessDenied, StorageError

pytestmark = pytest.mark.server

STORES = ("s3-moto", "s3-ceph", "swift-v1", "az-azurite", "gs-fake", "oss-moto", "fsspec-memory", "fsspec-sftp")
TREE = {"a": b"one", "d/b c%20d": b"two", "d/e/c.tmp": b"three", ".h/x": b"", "o[x]*+&": b"5"}


def content(top: str) -> dict[str, bytes]:
    found = {}
    for folder, _, names in storage.walk(top):
        for name in names:
            found[f"{folder}/{name}"[len(top) + 1 :]] = storage.read_bytes(f"{folder}/{name}")
    return found


@pytest.mark.parametrize("store", STORES)
def test_there_and_back(stores: dict[str, str], store: str, tmp_path: Path) -> None:
    for name, data in TREE.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
        os.utime(tmp_path / "in" / name, (10**9, 10**9))
    source, there, back = str(tmp_path / "in"), f"{stores[store]}/sync/tree", str(tmp_path / "back")
    assert storage.sync(source, there).copied == dict.fromkeys(TREE, "new")
    assert content(there) == TREE
    for how in ({}, {"checksum": True}):
        assert storage.sync(source, there, delete=True, **how).copied == {}  # type: ignore[arg-type]
    assert storage.sync(there, back).copied == dict.fromkeys(TREE, "new")
    assert content(back) == TREE
    for how in ({}, {"checksum": True}):
        assert storage.sync(there, back, delete=True, **how).copied == {}  # type: ignore[arg-type]

    # the same size, another content: seen by time, in either direction
    time.sleep(1.1)  # some stores tell whole seconds
    storage.write_bytes(f"{there}/a", b"ONE")
    (tmp_path / "in/d/e/c.tmp").write_bytes(b"THREE")
    os.utime(tmp_path / "in/d/e/c.tmp", (time.time() + 5, time.time() + 5))
    assert storage.sync(there, back).copied == {"a": "time"}
    assert storage.sync(source, there).copied == {"d/e/c.tmp": "time"}
    assert storage.sync(source, there, checksum=True).copied == {"a": "content"}
    assert content(there) == TREE | {"d/e/c.tmp": b"THREE"}

    storage.write_bytes(f"{there}/old/x", b"1")
    os.symlink("none", tmp_path / "in/dead")
    report = storage.sync(source, there, delete=True)
    assert (report.deleted, report.nothing_deleted) == ([], True)
    os.unlink(tmp_path / "in/dead")
    assert storage.sync(source, there, delete=True).deleted == ["old/x"]
    assert not storage.exists(f"{there}/old")
    assert sorted(content(there)) == sorted(TREE)

    for wrong in (f"{stores[store]}/sync/none", f"{there}/a"):
        with pytest.raises(StorageError):
            storage.sync(wrong, back, delete=True)
    with pytest.raises(ValueError, match="one is in the other"):
        storage.sync(there, f"{stores[store]}/sync", delete=True)
    assert len(content(back)) == len(TREE)


@pytest.mark.parametrize(
    ("one", "other"), [("s3-ceph", "az-azurite"), ("swift-v1", "fsspec-sftp"), ("s3-moto", "s3-moto")]
)
def test_between_two_stores(stores: dict[str, str], one: str, other: str) -> None:
    source, destination = f"{stores[one]}/sync-from", f"{stores[other]}/sync-to"
    for name, data in TREE.items():
        storage.write_bytes(f"{source}/{name}", data)
    assert storage.sync(source, destination).copied == dict.fromkeys(TREE, "new")
    for how in ({}, {"checksum": True}):
        report = storage.sync(source, destination, delete=True, **how)  # type: ignore[arg-type]
        assert (report.copied, report.deleted, report.same) == ({}, [], len(TREE))
    assert content(destination) == TREE


def test_a_directory_that_sftp_cannot_list(stores: dict[str, str], tmp_path: Path) -> None:
    """What fsspec leaves out of its listings in silence would be deleted at the destination."""
    handler_url = stores["fsspec-sftp"]
    storage.write_bytes(f"{handler_url}/partial/open/x", b"1")
    storage.write_bytes(f"{handler_url}/partial/closed/y", b"2")
    storage.sync(f"{handler_url}/partial", tmp_path)
    from apyfal.storage.mounting.table import resolve
    from apyfal.storage.url import parse

    with resolve(parse(f"{handler_url}/partial")) as target:
        files = target.handler._files  # type: ignore[attr-defined]
        whole = files.ls

        def ls(path: str, *arguments: object, **keywords: object) -> object:
            if path.endswith("closed"):
                raise PermissionError(13, "Permission denied", path)
            return whole(path, *arguments, **keywords)

        files.ls = ls
        try:
            report = storage.sync(f"{handler_url}/partial", tmp_path, delete=True)
            with pytest.raises(PermissionError):
                storage.glob(f"{handler_url}/partial/**")
        finally:
            files.ls = whole
    assert [type(error) for error in report.left] == [AccessDenied]
    assert report.nothing_deleted
    assert (tmp_path / "closed/y").read_bytes() == b"2"
