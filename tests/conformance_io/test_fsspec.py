"""fsspec's own abstract tests over its filesystem of apyfal: local paths, ``file://``, a mount in memory and S3."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.tests import abstract

from apyfal import storage
from apyfal.exceptions import IsADirectory, ObjectNotFound, UnsupportedByStore
from apyfal.storage.fs.filesystem import ApyfalFileSystem


class OnLocalFiles(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    """A local directory."""

    @pytest.fixture
    def fs(self) -> ApyfalFileSystem:
        return storage.filesystem()

    @pytest.fixture
    def fs_path(self, tmp_path: Path) -> str:
        path = tmp_path / "fs"
        path.mkdir()
        return str(path)


class OnS3(abstract.AbstractFixtures):  # type: ignore[misc]  # as above
    """A bucket."""

    @pytest.fixture
    def fs(self) -> ApyfalFileSystem:
        return storage.filesystem()

    @pytest.fixture
    def fs_path(self, bucket: str, tmp_path: Path) -> str:
        return f"{bucket}/{tmp_path.name}"

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class OnFileUrls(OnLocalFiles):
    """A local directory, by its URL; fsspec joins names to it as to a URL."""

    @pytest.fixture
    def fs_path(self, tmp_path: Path) -> str:
        path = tmp_path / "fs"
        path.mkdir()
        return path.as_uri()

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_sanitize_path(self) -> Callable[[str], str]:
        """What is found is named by its path: a file has one name, however it was asked for."""
        return lambda path: path.removeprefix("file://")


class OnMemory(abstract.AbstractFixtures):  # type: ignore[misc]  # as above
    """A mount of fsspec's filesystem in memory."""

    @pytest.fixture
    def fs(self) -> ApyfalFileSystem:
        return storage.filesystem()

    @pytest.fixture
    def fs_path(self, memory: str, tmp_path: Path) -> str:
        path = f"{memory}/{tmp_path.name}"
        storage.makedirs(path)
        return path

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)


class TestCopyLocal(OnLocalFiles, abstract.AbstractCopyTests):  # type: ignore[misc]  # as above
    pass


class TestGetLocal(OnLocalFiles, abstract.AbstractGetTests):  # type: ignore[misc]  # as above
    pass


class TestPutLocal(OnLocalFiles, abstract.AbstractPutTests):  # type: ignore[misc]  # as above
    pass


class TestOpenLocal(OnLocalFiles, abstract.AbstractOpenTests):  # type: ignore[misc]  # as above
    pass


class TestPipeLocal(OnLocalFiles, abstract.AbstractPipeTests):  # type: ignore[misc]  # as above
    pass


class TestCopyS3(OnS3, abstract.AbstractCopyTests):  # type: ignore[misc]  # as above
    pass


class TestGetS3(OnS3, abstract.AbstractGetTests):  # type: ignore[misc]  # as above
    pass


class TestPutS3(OnS3, abstract.AbstractPutTests):  # type: ignore[misc]  # as above
    pass


class TestOpenS3(OnS3, abstract.AbstractOpenTests):  # type: ignore[misc]  # as above
    pass


class TestPipeS3(OnS3, abstract.AbstractPipeTests):  # type: ignore[misc]  # as above
    pass


class TestCopyFileUrls(OnFileUrls, abstract.AbstractCopyTests):  # type: ignore[misc]  # as above
    pass


class TestGetFileUrls(OnFileUrls, abstract.AbstractGetTests):  # type: ignore[misc]  # as above
    pass


class TestPutFileUrls(OnFileUrls, abstract.AbstractPutTests):  # type: ignore[misc]  # as above
    pass


class TestOpenFileUrls(OnFileUrls, abstract.AbstractOpenTests):  # type: ignore[misc]  # as above
    pass


class TestPipeFileUrls(OnFileUrls, abstract.AbstractPipeTests):  # type: ignore[misc]  # as above
    pass


class TestCopyMemory(OnMemory, abstract.AbstractCopyTests):  # type: ignore[misc]  # as above
    pass


class TestGetMemory(OnMemory, abstract.AbstractGetTests):  # type: ignore[misc]  # as above
    pass


class TestPutMemory(OnMemory, abstract.AbstractPutTests):  # type: ignore[misc]  # as above
    pass


class TestOpenMemory(OnMemory, abstract.AbstractOpenTests):  # type: ignore[misc]  # as above
    pass


class TestPipeMemory(OnMemory, abstract.AbstractPipeTests):  # type: ignore[misc]  # as above
    pass


# -- what is ours ----------------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _known_to_fsspec() -> None:
    """Register it as the installed package's entry point does."""
    fsspec.register_implementation("apyfal", ApyfalFileSystem, clobber=True)


def test_urls(place: str) -> None:
    with fsspec.open(f"apyfal://{place}/x.txt", "w", encoding="utf-8") as file:
        file.write("text")
    fs, path = fsspec.url_to_fs(f"apyfal://{place}/x.txt")
    assert isinstance(fs, ApyfalFileSystem)
    assert path == f"{place}/x.txt"
    assert fs.cat(path) == b"text"
    assert fs.cat_file(path, 1, -1) == b"ex"
    assert fs.ls(place, detail=False) == [path]
    assert fs.ls(path, detail=False) == [path]
    assert fs.info(path)["size"] == 4
    assert fs.modified(path).year >= 2026
    assert fs.glob(f"apyfal://{place}/*.txt") == [path]
    assert fs.find(place) == [path]
    assert fs.unstrip_protocol(path) == f"apyfal://{path}"
    assert fs.exists(path)
    fs.mv(path, f"{place}/y.txt")
    assert not fs.exists(path)
    fs.rm(place, recursive=True)
    assert not fs.exists(f"{place}/y.txt")


def test_the_root_lists_the_mounts(bucket: str) -> None:
    fs = storage.filesystem()
    assert {"file://", "s3.conformance://"} <= set(fs.ls("apyfal://", detail=False))
    assert bucket in fs.ls("s3.conformance://", detail=False)


def test_an_exception_while_writing_drops_the_file(place: str) -> None:
    def fail(mode: str, data: Any) -> None:
        with storage.filesystem().open(f"{place}/x", mode) as file:
            file.write(data)
            raise ZeroDivisionError

    for mode, data in (("wb", b"x" * 100), ("w", "x" * 100)):
        with pytest.raises(ZeroDivisionError):
            fail(mode, data)
    assert not storage.exists(f"{place}/x")


def test_errors(place: str) -> None:
    fs = storage.filesystem()
    fs.pipe_file(f"{place}/d/x", b"data")
    with pytest.raises(FileNotFoundError):
        fs.rm(f"{place}/no")
    with pytest.raises(ObjectNotFound):
        fs.open(f"{place}/no")
    with pytest.raises(IsADirectory):
        fs.rm(f"{place}/d")
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{place}/d/x", b"", mode="create")
    with pytest.raises(UnsupportedByStore, match=r"cannot sign .* expected"):
        fs.sign(f"{place}/d/x")


def test_a_transaction_is_refused_before_anything_is_written(place: str) -> None:
    fs = storage.filesystem()
    with pytest.raises(UnsupportedByStore, match="no transaction"), fs.transaction:
        fs.pipe_file(f"{place}/y", b"data")
    with pytest.raises(UnsupportedByStore, match="no transaction"):
        fs.start_transaction()
    fs.pipe_file(f"{place}/z", b"data")  # not in one
    assert fs.ls(place, detail=False) == [f"{place}/z"]


def test_pickled_with_its_mounts(bucket: str) -> None:
    fs = pickle.loads(pickle.dumps(storage.filesystem()))
    fs.pipe_file(f"{bucket}/pickled", b"data")
    assert fs.cat_file(f"{bucket}/pickled") == b"data"


def test_a_final_double_star(place: str) -> None:
    """As `glob.glob` on local paths; fsspec's own rule in its filesystem: the directory is among what it finds."""
    fs = storage.filesystem()
    fs.pipe_file(f"{place}/d/a", b"")
    fs.pipe_file(f"{place}/d/s/b", b"")
    below = [f"{place}/d/{name}" for name in ("a", "s", "s/b")]
    itself = [] if "://" in place else [f"{place}/d/"]
    assert storage.glob(f"{place}/d/**") == itself + below
    assert fs.glob(f"{place}/d/**") == [f"{place}/d", *below]
