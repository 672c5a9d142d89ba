"""`storage.rmtree` and `storage.scandir`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.exceptions import NotADirectory, ObjectNotFound, ParameterError, StorageError, UnsupportedByStore
from apyfal.storage.mounting import table


@pytest.fixture
def store() -> Iterator[MemoryHandler]:
    handler = MemoryHandler()
    for key in ("b/d/x", "b/d/e/y", "b/d//z", "b/d/e/", "b/dd", "b/both", "b/both/in"):
        handler.store(key, b"" if key.endswith("/") else key.encode())
    table.table.attach("lab", handler)
    storage.mount("mem", provider="fsspec", protocol="memory", config={})
    yield handler
    table.table.unmount("lab")
    storage.unmount("mem")


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("lab://b/d", ["b/both", "b/both/in", "b/dd"]),
        ("lab://b/d/", ["b/both", "b/both/in", "b/dd"]),
        ("lab://b/d/e", ["b/both", "b/both/in", "b/d//z", "b/d/x", "b/dd"]),
        ("lab://b/both", ["b/both", "b/d//z", "b/d/e/", "b/d/e/y", "b/d/x", "b/dd"]),
    ],
)
def test_in_a_store(store: MemoryHandler, url: str, left: list[str]) -> None:
    storage.rmtree(url)
    assert sorted(store.objects) == left


def test_a_mark_that_ends_in_two_slashes(store: MemoryHandler) -> None:
    store.store("b/d/m//", b"")
    assert storage.listdir("lab://b/d/m") == []
    assert ("lab://b/d/m", [], []) in list(storage.walk("lab://b/d"))
    storage.rmtree("lab://b/d")
    assert sorted(store.objects) == ["b/both", "b/both/in", "b/dd"]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("lab://", ParameterError),
        ("lab:///", ParameterError),
        ("lab://b/none", ObjectNotFound),
        ("lab://b/dd", NotADirectory),
        ("/", ParameterError),
        (".", ParameterError),
        ("..", ParameterError),
        ("file", NotADirectory),
        ("link", NotADirectory),
        ("link/", NotADirectory),
        ("none", ObjectNotFound),
    ],
)
def test_refused(
    store: MemoryHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, kind: type[Exception]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").touch()
    (tmp_path / "file").touch()
    os.symlink("d", tmp_path / "link")
    before = sorted(store.objects)
    with pytest.raises(kind):
        storage.rmtree(url)
    assert sorted(store.objects) == before
    assert sorted(os.listdir(tmp_path)) == ["d", "file", "link"]
    assert (tmp_path / "d/x").exists()


@pytest.mark.parametrize("top", ["https://host.test/d", "http://host.test/d", "web://d"])
@pytest.mark.parametrize("function", [storage.rmtree, storage.glob, storage.filesystem().find])
def test_a_web_address_is_no_directory_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[[str], object], top: str
) -> None:
    monkeypatch.chdir(tmp_path)
    copied = tmp_path / "host.test/d/x"  # as `wget -r` names what it copies
    copied.parent.mkdir(parents=True)
    copied.touch()
    storage.mount("web", provider="http", root="host.test", config={})
    try:
        with pytest.raises(UnsupportedByStore):
            function(f"{top}/**" if function is storage.glob else top)
    finally:
        storage.unmount("web")
    assert copied.exists()


def test_a_listing_that_fails_removes_nothing(store: MemoryHandler) -> None:
    before = sorted(store.objects)
    store.fail["list"] = 1
    with pytest.raises(StorageError):
        storage.rmtree("lab://b/d")
    assert sorted(store.objects) == before


@pytest.mark.parametrize("kind", ["disk", "mount of a disk", "fsspec"])
def test_real_directories(store: MemoryHandler, tmp_path: Path, kind: str) -> None:
    storage.mount("disk", provider="file", root=str(tmp_path), config={})
    try:
        top = {"disk": str(tmp_path), "mount of a disk": "disk://", "fsspec": "mem://bucket"}[kind]
        top = top.rstrip("/") + ("//" if kind == "mount of a disk" else "")
        below = top if top.endswith("//") else f"{top}/"
        storage.makedirs(f"{below}d/e/empty")
        for name in ("d/x", "d/e/y", "kept"):
            storage.write_bytes(f"{below}{name}", b"1")
        if kind != "fsspec":
            os.symlink(tmp_path / "kept", tmp_path / "d/link")
            os.mkdir(tmp_path / "other")
            (tmp_path / "other/precious").touch()
            os.symlink(tmp_path / "other", tmp_path / "d/directory")
        storage.rmtree(f"{below}d")
        assert not storage.exists(f"{below}d")
        assert storage.exists(f"{below}kept")
        assert kind == "fsspec" or (tmp_path / "other/precious").exists()
    finally:
        storage.unmount("disk")


def test_scandir(store: MemoryHandler, tmp_path: Path) -> None:
    found = {one.name: one for one in storage.scandir("lab://b/d")}
    assert list(found) == ["/z", "e", "x"]
    assert [one.is_dir() for one in found.values()] == [False, True, False]
    assert [one.is_file() for one in found.values()] == [True, False, True]
    assert found["x"].info.size == 5
    assert found["x"].stat().size == 5
    for one in found.values():
        assert storage.exists(one.path)
    (tmp_path / "f").write_bytes(b"123")
    os.symlink("none", tmp_path / "link")
    local = list(storage.scandir(tmp_path))
    assert [(one.name, one.is_file(), one.is_symlink()) for one in local] == [("f", True, False), ("link", False, True)]
    with pytest.raises(ObjectNotFound):
        next(storage.scandir(tmp_path / "none"))


def test_a_mount_of_a_disk_leads_to_no_home_or_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("home", "here/below"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here/below")
    storage.mount("disk", provider="file", root=str(tmp_path), config={})
    try:
        for name in ("home", "here", "here/below"):
            with pytest.raises(ParameterError):
                storage.rmtree(f"disk://{name}")
            with pytest.raises(ParameterError):
                storage.filesystem().rm(f"disk://{name}", recursive=True)
    finally:
        storage.unmount("disk")
    assert (tmp_path / "home").exists()
    assert (tmp_path / "here/below").exists()
