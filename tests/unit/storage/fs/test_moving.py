"""`mv` of the filesystem: whatever fails, each file is whole at one of its two places."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.exceptions import AcceleratorException, ObjectChanged, ObjectNotFound, ParameterError, StorageError
from apyfal.storage.fs.filesystem import ApyfalFileSystem
from apyfal.storage.mounting.table import MountTable

KEYS = ("x", "d/y", "d/e/z", "keep", "k/", "n//deep", "f/y")


@pytest.fixture
def fs() -> ApyfalFileSystem:
    return storage.filesystem()


@pytest.fixture(params=["store", "disk"])
def top(request: pytest.FixtureRequest, store: MemoryHandler, tmp_path: Path) -> str:
    url = "mem://b" if request.param == "store" else str(tmp_path / "top")
    for key in KEYS:
        if url.startswith("/") and key.endswith("/"):
            storage.makedirs(f"{url}/{key}")
            continue
        storage.makedirs(f"{url}/{key.rpartition('/')[0]}", exist_ok=True)
        storage.write_bytes(f"{url}/{key}", key.strip("/").encode())
    if url.startswith("mem"):
        store.objects["b/k/"] = (b"", store.store("b/k/", b""))
    return url


def content(fs: ApyfalFileSystem, top: str) -> dict[str, bytes]:
    return {name.removeprefix(top): fs.cat_file(name) for name in fs.find(top)}


@pytest.mark.parametrize(
    ("sources", "target", "options"),
    [
        ("d", "d/in", {"recursive": True}),
        ("d", "d/", {"recursive": True}),
        ("d/", "d", {"recursive": True}),
        ("d", "d/e", {"recursive": True}),
        ("", "inside", {"recursive": True}),
        (["d", "x"], "d/", {"recursive": True}),
        (["x", "keep"], ["keep", "x"], {}),
        (["x", "keep"], ["new", "new"], {}),
        (["d/y", "f/y"], "k/", {}),
    ],
    ids=str,
)
def test_a_move_that_would_lose_files_is_refused(
    fs: ApyfalFileSystem, top: str, sources: Any, target: Any, options: dict[str, Any]
) -> None:
    names = [f"{top}/{one}" for one in sources] if isinstance(sources, list) else f"{top}/{sources}"
    goals = [f"{top}/{one}" for one in target] if isinstance(target, list) else f"{top}/{target}"
    before = content(fs, top)
    with pytest.raises((ParameterError, StorageError)) as raised:
        fs.mv(names, goals, **options)
    assert "\n" not in str(raised.value)
    assert content(fs, top) == before


@pytest.mark.parametrize("top", ["disk"], indirect=True)  # in a store, these are names like any others
@pytest.mark.parametrize(("source", "target"), [("x", "./x"), ("x", "d/../x"), ("d", "./d/../d"), ("d", "d/./in")])
def test_dots_are_seen_through(fs: ApyfalFileSystem, top: str, source: str, target: str) -> None:
    before = content(fs, top)
    with pytest.raises((ParameterError, StorageError)):
        fs.mv(f"{top}/{source}", f"{top}/{target}", recursive=True)
    assert content(fs, top) == before


def test_one_store_under_two_names(fs: ApyfalFileSystem, store: MemoryHandler, mounts: MountTable) -> None:
    mounts.attach("other", store)
    for key in ("b/d/x", "b/d/y"):
        store.store(key, key.encode())
    before = dict(store.objects)
    for source, target, options in (
        ("mem://b/d", "other://b/d", {"recursive": True}),
        ("mem://b/d/", "other://b/d/", {"recursive": True}),
        ("mem://b/d", "other://b/d/in", {"recursive": True}),
        ("mem://b/d/x", "other://b/d/x", {}),
    ):
        with pytest.raises(ParameterError):
            fs.mv(source, target, **options)
        assert store.objects == before


def test_links_on_the_way_are_seen(fs: ApyfalFileSystem, home: Path) -> None:
    Path("d/e").mkdir(parents=True)
    Path("d/e/x").write_bytes(b"1")
    os.symlink("d", "link")
    for target in ("link", "link/e/in", "link/in"):
        with pytest.raises((ParameterError, StorageError)):
            fs.mv("d", target, recursive=True)
    with pytest.raises((ParameterError, StorageError)):
        fs.mv("d/e/x", "link/e/x")
    assert Path("d/e/x").read_bytes() == b"1"


def test_moves(fs: ApyfalFileSystem, top: str) -> None:
    before = content(fs, top)
    fs.mv(f"{top}/x", f"{top}/x2")
    fs.mv(f"{top}/keep", f"{top}/d/")
    fs.mv(f"{top}/d", f"{top}/moved", recursive=True)
    fs.mv(f"{top}/f/*", f"{top}/new/")
    fs.mv([f"{top}/moved/y", f"{top}/moved/keep"], [f"{top}/y", f"{top}/keep"])
    expected = {"/x2": b"x", "/keep": b"keep", "/y": b"d/y", "/moved/e/z": b"d/e/z", "/new/y": b"f/y"}
    after = content(fs, top)
    assert {name: data for name, data in after.items() if "deep" not in name} == expected
    assert len(after) == len(before)
    assert not fs.exists(f"{top}/d")


def test_an_empty_directory_is_moved(fs: ApyfalFileSystem, top: str) -> None:
    fs.mv(f"{top}/k", f"{top}/moved", recursive=True)
    assert fs.isdir(f"{top}/moved")
    assert not fs.exists(f"{top}/k")


def test_what_is_deeper_stays(fs: ApyfalFileSystem, top: str) -> None:
    storage.write_bytes(f"{top}/d/y2", b"2")
    fs.mv(f"{top}/d", f"{top}/moved", recursive=True, maxdepth=1)
    after = content(fs, top)
    assert after["/d/e/z"] == b"d/e/z"
    assert {"/moved/y", "/moved/y2"} <= after.keys()
    assert not {"/d/y", "/d/y2"} & after.keys()


def test_a_copy_that_fails_removes_nothing(fs: ApyfalFileSystem, store: MemoryHandler) -> None:
    for key in ("b/d/x", "b/d/y"):
        store.store(key, key.encode())
    store.fail["copy"] = 1
    with pytest.raises(AcceleratorException):
        fs.mv("mem://b/d", "mem://b/moved", recursive=True)
    assert {"b/d/x", "b/d/y"} <= store.objects.keys()


def test_a_destination_that_does_not_exist_removes_nothing(
    fs: ApyfalFileSystem, store: MemoryHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a bucket that is not there: fsspec leaves such files out of a copy of a tree."""
    for key in ("b/d/x", "b/d/y"):
        store.store(key, key.encode())

    def copy(source: object, destination: str) -> None:
        raise ObjectNotFound("no such bucket", path=destination)

    monkeypatch.setattr(store, "copy", copy)
    with pytest.raises(ObjectNotFound):
        fs.mv("mem://b/d", "mem://b/moved", recursive=True)
    assert {"b/d/x", "b/d/y"} <= store.objects.keys()


def test_what_changes_meanwhile_is_kept(
    fs: ApyfalFileSystem, store: MemoryHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("b/d/x", "b/d/y"):
        store.store(key, key.encode())
    copies = MemoryHandler.copy

    def copy(self: MemoryHandler, source: Any, destination: str) -> Any:
        copied = copies(self, source, destination)
        self.store("b/d/x", b"written meanwhile")
        self.store("b/d/new", b"new")
        return copied

    monkeypatch.setattr(MemoryHandler, "copy", copy)
    with pytest.raises(ObjectChanged, match="nothing was removed"):
        fs.mv("mem://b/d", "mem://b/moved", recursive=True)
    assert store.objects["b/d/x"][0] == b"written meanwhile"
    monkeypatch.setattr(
        MemoryHandler, "copy", lambda self, *args: (self.store("b/d/newer", b"new"), copies(self, *args))[1]
    )
    with pytest.raises(StorageError, match="not empty"):
        fs.mv("mem://b/d", "mem://b/moved", recursive=True)
    assert store.objects["b/d/newer"][0] == b"new"
    assert "b/moved/x" in store.objects


def test_links_are_moved_as_copies_and_what_they_lead_to_stays(fs: ApyfalFileSystem, home: Path) -> None:
    Path("far").mkdir()
    Path("far/x").write_bytes(b"1")
    Path("d").mkdir()
    Path("d/y").write_bytes(b"2")
    os.symlink("../far", "d/link")
    os.symlink("../far/x", "d/file")
    fs.mv("d", "moved", recursive=True)
    assert Path("far/x").read_bytes() == b"1"
    assert {str(one) for one in Path("moved").rglob("*") if one.is_file()} == {"moved/y", "moved/file", "moved/link/x"}
    assert not os.path.lexists("d")
