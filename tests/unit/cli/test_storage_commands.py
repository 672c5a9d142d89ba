"""``apyfal cat``, ``stat``, ``mkdir`` and ``rm``: on local paths, on stores without directories and with them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal import cli, storage
from apyfal.storage.mounting import table


@pytest.fixture
def store() -> Iterator[MemoryHandler]:
    handler = MemoryHandler()
    for key in ("b/d/x", "b/d/e/y", "b/d/e/z[1]", "b/other", "b/d.txt"):
        handler.store(key, key.encode())
    table.table.attach("lab", handler)
    yield handler
    table.table.unmount("lab")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d/e").mkdir(parents=True)
    for name in ("d/x", "d/e/y", "other"):
        (tmp_path / name).write_text(name)
    return tmp_path


def left(store: MemoryHandler) -> list[str]:
    return sorted(store.objects)


def test_cat(store: MemoryHandler, directory: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["cat", "lab://b/d/x", "other", "lab://b/d/e/*"]) == 0
    assert capfdbinary.readouterr().out == b"b/d/xotherb/d/e/yb/d/e/z[1]"
    assert cli.main(["cat", "lab://b/d/gone"]) == 3
    assert cli.main(["cat", "d"]) != 0


def test_stat(store: MemoryHandler, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stat", "--json", "lab://b/d/x", "lab://b/d", "other"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["type"] for one in found] == ["file", "directory", "file"]
    assert [one.get("size") for one in found] == [5, None, 5]
    assert cli.main(["stat", "other"]) == 0
    assert "size         5" in capsys.readouterr().out
    assert cli.main(["stat", "gone"]) == 3


def test_mkdir(directory: Path) -> None:
    assert cli.main(["mkdir", "new/deep"]) == 0
    assert (directory / "new/deep").is_dir()
    assert cli.main(["mkdir", "new/deep"]) != 0
    assert cli.main(["mkdir", "-p", "new/deep"]) == 0


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["lab://b/other"], {"b/other"}),
        (["lab://b/other", "lab://b/other"], {"b/other"}),
        (["lab://b/d/e/*"], {"b/d/e/y", "b/d/e/z[1]"}),
        (["lab://b/d/e/z[1]"], {"b/d/e/z[1]"}),
        (["-r", "lab://b/d"], {"b/d/x", "b/d/e/y", "b/d/e/z[1]"}),
        (["-r", "lab://b/d/"], {"b/d/x", "b/d/e/y", "b/d/e/z[1]"}),
        (["-r", "lab://b/d", "lab://b/d/e"], {"b/d/x", "b/d/e/y", "b/d/e/z[1]"}),
        (["-r", "lab://b/other"], {"b/other"}),
        (["-rn", "lab://b/d"], set()),
    ],
)
def test_rm_in_a_store(store: MemoryHandler, arguments: list[str], gone: set[str]) -> None:
    before = set(left(store))
    assert cli.main(["rm", *arguments]) == 0
    assert before - set(left(store)) == gone


def test_rm_takes_the_mark_of_a_directory(store: MemoryHandler) -> None:
    for key in ("b/d/", "b/d/e/"):
        store.store(key, b"")
    assert cli.main(["rm", "-r", "lab://b/d"]) == 0
    assert left(store) == ["b/d.txt", "b/other"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["lab://"],
        ["-r", "lab://"],
        ["-r", "lab:///"],
        ["lab://b/d"],
        ["lab://b/gone"],
        ["-r", "lab://b/gone"],
        ["lab://b/other", "lab://b/gone"],
        ["lab://b/no*thing"],
        ["-r", ""],
        ["-r", "."],
        ["-r", ".."],
        ["-r", "/"],
        ["-r", "~"],
        ["d"],
        ["gone"],
        [],
    ],
    ids=" ".join,
)
def test_rm_refuses(
    store: MemoryHandler, directory: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = left(store)
    assert cli.main(["rm", *arguments]) != 0
    assert left(store) == before
    assert (directory / "d/e/y").exists()
    error = capsys.readouterr().err
    assert error.startswith("apyfal: error: ")
    assert error.count("\n") == 1


def test_rm_never_removes_a_bucket() -> None:
    storage.mount("cloud", provider="s3", client_id="a", secret_id="b", endpoint_url="http://127.0.0.1:1")
    try:
        for name in ("cloud://bucket", "cloud://bucket/", "s3://bucket/"):
            assert cli.main(["rm", "-r", name]) == 2
    finally:
        storage.unmount("cloud")


def test_rm_of_local_trees_and_links(directory: Path) -> None:
    (directory / "target").mkdir()
    (directory / "target/kept").touch()
    os.symlink("../target", directory / "d/link")
    os.symlink("target", directory / "top")
    os.symlink("nowhere", directory / "broken")
    assert cli.main(["rm", "-r", "d", "top/", "broken"]) == 0
    assert sorted(os.listdir(directory)) == ["other", "target"]
    assert (directory / "target/kept").exists()


def test_rm_says_where_and_how_many(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    for name in ("q/sub/one", "q/sub/two"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    monkeypatch.setattr(os, "unlink", refuse)
    assert cli.main(["rm", "-r", "q"]) == 4
    assert "cannot remove: Permission denied: 'q/sub/" in capsys.readouterr().err
    assert cli.main(["rm", "-rk", "q"]) == 1
    said = capsys.readouterr().err
    assert "cannot remove 'q/sub/one': Permission denied" in said
    assert said.splitlines()[-1] == "apyfal: error: 4 could not be removed"  # and both directories


def test_rm_of_a_mark_that_ends_in_two_slashes(store: MemoryHandler) -> None:
    store.store("b/d/m//", b"")
    assert cli.main(["rm", "-r", "lab://b/d"]) == 0
    assert sorted(store.objects) == ["b/d.txt", "b/other"]


def test_rm_goes_on_if_asked(store: MemoryHandler, capsys: pytest.CaptureFixture[str]) -> None:
    class Refusing(MemoryHandler):
        def remove(self, path: str) -> None:
            if path.endswith("y"):
                raise PermissionError(13, "not allowed", path)
            super().remove(path)

    handler = Refusing()
    handler.objects.update(store.objects)
    table.table.attach("other", handler)
    try:
        assert cli.main(["rm", "-rk", "other://b/d"]) == 1
        assert sorted(handler.objects) == ["b/d.txt", "b/d/e/y", "b/other"]
        assert "1 of 3 could not be removed" in capsys.readouterr().err
        assert cli.main(["rm", "-r", "other://b/d"]) == 4
    finally:
        table.table.unmount("other")


@pytest.mark.parametrize("top", ["d", "d/", "lab://b/d", "lab://b/d/"])
def test_ls_of_a_tree(store: MemoryHandler, directory: Path, capsys: pytest.CaptureFixture[str], top: str) -> None:
    (directory / "d/e/z[1]").write_text("b/d/e/z[1]")
    assert cli.main(["ls", "-R", top]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["e/y", "e/z[1]", "x"]
    assert cli.main(["ls", "-R", "--json", top]) == 0
    found = {one["name"]: one["size"] for one in json.loads(capsys.readouterr().out)}
    assert found["e/z[1]"] == 10
    assert cli.main(["ls", "-Rlh", top]) == 0
    assert "10 B" in capsys.readouterr().out


def test_ls_of_a_tree_names_what_is_no_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink("nowhere", directory / "d/broken")
    os.symlink(directory, directory / "d/up")
    assert cli.main(["ls", "-R", "d"]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["e/y", "x"]
    assert "broken" in printed.err
    assert "up" in printed.err
    assert "2 of 4 are not files" in printed.err
    assert cli.main(["ls", "-R", "gone"]) == 3
    capsys.readouterr()
    assert cli.main(["ls", "-R", "other"]) == 0
    assert capsys.readouterr().out == "other\n"
