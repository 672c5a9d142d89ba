"""exists, stat, remove, listdir, glob, walk and makedirs, on local files and on a store."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import sys
from pathlib import Path

import pytest
from memory_store import MemoryHandler

import apyfal
from apyfal import storage
from apyfal.exceptions import (
    AccessDenied,
    AuthenticationError,
    IsADirectory,
    NotADirectory,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    TransferTimeout,
    UnsupportedByStore,
)
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.mounting.table import MountTable

TREE = ["a.txt", "b.txt", "d/a.txt", "d/e/b.bin", "d/e/f/c.txt", "x[1].txt", ".hidden"]


@pytest.fixture(params=["local", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path, store: MemoryHandler) -> str:
    if request.param == "store":
        for name in TREE:
            store.store(f"b/root/{name}", name.encode())
        return "mem://b/root"
    for name in TREE:
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return str(tmp_path / "root")


def test_exists_and_stat(root: str) -> None:
    assert storage.exists(f"{root}/a.txt")
    assert storage.exists(f"{root}/d/e")
    assert storage.exists(root)
    assert not storage.exists(f"{root}/d/no")
    assert not storage.exists(f"{root}/a.txt/no")
    assert not storage.exists(f"{root}/a")
    info = storage.stat(f"{root}/d/a.txt")
    assert info.size == 7
    assert info.etag
    assert info.mtime
    assert not info.is_directory
    assert storage.stat(f"{root}/d").is_directory
    with pytest.raises(ObjectNotFound):
        storage.stat(f"{root}/no")


def test_listdir(root: str) -> None:
    assert storage.listdir(root) == [".hidden", "a.txt", "b.txt", "d", "x[1].txt"]
    assert storage.listdir(f"{root}/") == storage.listdir(root)
    assert storage.listdir(f"{root}/d/e") == ["b.bin", "f"]
    with pytest.raises(ObjectNotFound):
        storage.listdir(f"{root}/no")


def test_listing_a_file(tmp_path: Path, store: MemoryHandler) -> None:
    store.store("b/k", b"")
    (tmp_path / "f").touch()
    for url in ("mem://b/k", str(tmp_path / "f")):
        with pytest.raises(NotADirectory):
            storage.listdir(url)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt", "x[1].txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[ab].txt", ["a.txt", "b.txt"]),
        ("[!a].txt", ["b.txt"]),
        ("x[[]1].txt", ["x[1].txt"]),
        ("d/*", ["d/a.txt", "d/e"]),
        ("*/a.txt", ["d/a.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "d/a.txt", "d/e/f/c.txt", "x[1].txt"]),
        ("d/**/c.txt", ["d/e/f/c.txt"]),
        ("d/**", ["d/", "d/a.txt", "d/e", "d/e/b.bin", "d/e/f", "d/e/f/c.txt"]),
        ("*/*/b.bin", ["d/e/b.bin"]),
        ("a.txt", ["a.txt"]),
        ("no*", []),
        ("no", []),
        ("no/*", []),
        ("a.txt/*", []),
    ],
)
def test_glob(root: str, pattern: str, expected: list[str]) -> None:
    if pattern == "d/**" and root.startswith("mem:"):
        expected = expected[1:]  # the directory itself is not an object
    assert storage.glob(f"{root}/{pattern}") == [f"{root}/{name}" for name in expected]


def test_walk(root: str) -> None:
    found = list(storage.walk(root))
    assert found == [
        (root, ["d"], [".hidden", "a.txt", "b.txt", "x[1].txt"]),
        (f"{root}/d", ["e"], ["a.txt"]),
        (f"{root}/d/e", ["f"], ["b.bin"]),
        (f"{root}/d/e/f", [], ["c.txt"]),
    ]
    pruned = []
    for top, directories, _ in storage.walk(root):
        pruned.append(top)
        directories.clear()
    assert pruned == [root]


def test_remove(root: str) -> None:
    storage.remove(f"{root}/a.txt")
    assert not storage.exists(f"{root}/a.txt")
    with pytest.raises(ObjectNotFound):
        storage.remove(f"{root}/a.txt")


def test_makedirs(tmp_path: Path, store: MemoryHandler) -> None:
    storage.makedirs(tmp_path / "x" / "y")
    assert storage.listdir(tmp_path / "x") == ["y"]
    with pytest.raises(ObjectExists):
        storage.makedirs(tmp_path / "x")
    storage.makedirs(tmp_path / "x", exist_ok=True)
    store.store("b/k/x", b"")
    with pytest.raises(ObjectExists):
        storage.makedirs("mem://b/k")
    storage.makedirs("mem://b/new")


def test_a_mount_with_a_root(tmp_path: Path, mounts: MountTable) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"data")
    mounts.mount("data", provider="file", root=str(tmp_path))
    assert storage.listdir("data://") == ["d", "home"]
    assert storage.glob("data://*/f") == ["data://d/f"]
    assert storage.glob("data://**/f") == ["data://d/f"]
    assert next(storage.walk("data://d")) == ("data://d", [], ["f"])
    with storage.open("data://d/f") as file:
        assert file.read() == b"data"
    storage.copy("data://d/f", "data://d/g")
    assert sorted(os.listdir(tmp_path / "d")) == ["f", "g"]


def test_removing_a_directory(tmp_path: Path) -> None:
    with pytest.raises(IsADirectory):
        storage.remove(tmp_path)


def test_a_store_without_listing(mounts: MountTable) -> None:
    class Plain(Handler):
        scheme = "plain"

        def describe(self, path: str) -> ObjectInfo:
            return ObjectInfo(path, 1)

        def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
            raise NotImplementedError

    mounts.attach("plain", Plain())
    for use in (
        lambda: storage.listdir("plain://x"),
        lambda: storage.glob("plain://x/*"),
        lambda: storage.remove("plain://x"),
    ):
        with pytest.raises(UnsupportedByStore, match="cannot"):
            use()
    assert storage.exists("plain://x")


def test_everything_public_is_there() -> None:
    for name in storage.__all__:
        assert callable(getattr(storage, name))
    assert dir(storage) == sorted(storage.__all__)
    assert dir(apyfal) == sorted([*apyfal.__all__, "__version__"])
    with pytest.raises(AttributeError, match="opne"):
        storage.opne  # noqa: B018  # the point


@pytest.mark.parametrize(
    ("name", "library", "requirement"),
    [("filesystem", "fsspec", r"apyfal\[fsspec\]"), ("zarr_store", "zarr", "zarr>=3")],
)
def test_functions_whose_library_is_missing(
    name: str, library: str, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in {library, *(module for module in sys.modules if module.startswith(f"{library}."))}:
        monkeypatch.setitem(sys.modules, module, None)
    ours = ("apyfal.storage.aio.zarr", "apyfal.storage.fs")
    for module in [module for module in sys.modules if module.startswith(ours)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(vars(storage), name, raising=False)
    function = getattr(storage, name)
    with pytest.raises(ImportError, match=f"apyfal.storage.{name} needs {library}: pip install '{requirement}'"):
        function("s3://bucket")
    assert name not in vars(storage)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (ObjectNotFound, errno.ENOENT),
        (ObjectExists, errno.EEXIST),
        (IsADirectory, errno.EISDIR),
        (NotADirectory, errno.ENOTDIR),
        (AccessDenied, errno.EACCES),
        (AuthenticationError, errno.EACCES),
        (TransferTimeout, errno.ETIMEDOUT),
        (UnsupportedByStore, errno.EOPNOTSUPP),
        (StorageError, None),
    ],
)
def test_errors_have_the_numbers_of_the_system(kind: type[StorageError], number: int | None) -> None:
    """`mailbox` of the standard library, for one, asks for the number of what a missing file raises."""
    error = kind("cannot read 'b/k'", path="b/k")
    for one in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert one.errno == number
        assert str(one) == "cannot read 'b/k'"
