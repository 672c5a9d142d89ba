"""isfile, isdir, getsize and getmtime, on local files and on a store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.exceptions import InvalidURL, IsADirectory, NotADirectory, ObjectNotFound, ParameterError


@pytest.fixture(params=["local", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path, store: MemoryHandler) -> str:
    if request.param == "store":
        for name in ("a", "d/b"):
            store.store(f"b/root/{name}", b"content")
        return "mem://b/root"
    (tmp_path / "d").mkdir()
    for name in ("a", "d/b"):
        (tmp_path / name).write_bytes(b"content")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "directory"),
    [("a", True, False), ("d/b", True, False), ("d", False, True), ("d/", False, True), ("", False, True)]
    + [(name, False, False) for name in ("no", "a/no", "a/", "d/no", "d/b/", "aa")],
)
def test_what_is_there(root: str, name: str, file: bool, directory: bool) -> None:
    url = f"{root}/{name}"
    assert (storage.isfile(url), storage.isdir(url)) == (file, directory)


def test_size_and_time(root: str) -> None:
    assert storage.getsize(f"{root}/a") == 7
    assert storage.getmtime(f"{root}/a") == storage.stat(f"{root}/a").mtime
    with pytest.raises(IsADirectory, match="cannot tell the size"):
        storage.getsize(f"{root}/d")
    for function in (storage.getsize, storage.getmtime):
        with pytest.raises(ObjectNotFound):
            function(f"{root}/no")
        with pytest.raises((NotADirectory, ObjectNotFound)):
            function(f"{root}/a/no")


def test_a_local_pipe_is_no_file_and_links_are_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "broken").symlink_to("nothing")
    (tmp_path / "here").symlink_to(".")
    for name in ("pipe", "real", "link", "broken", "here"):
        path = tmp_path / name
        assert (storage.isfile(path), storage.isdir(path)) == (path.is_file(), path.is_dir())


@pytest.mark.parametrize("function", [storage.isfile, storage.isdir, storage.getsize, storage.getmtime])
@pytest.mark.parametrize("url", ["", 12345, None])
def test_what_names_nothing_is_an_error(function: object, url: object) -> None:
    with pytest.raises((InvalidURL, ParameterError)):
        function(url)  # type: ignore[operator]
