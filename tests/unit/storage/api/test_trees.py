"""Trees: local, of a mount of a local directory, and of one in memory have the same content for every function.

Empty directories are a part of a tree; links to directories are followed by what copies, and removed as links.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryHandler

from apyfal import cli, storage
from apyfal.exceptions import AcceleratorException, StorageError
from apyfal.storage.api.tree import tree
from apyfal.storage.mounting import table
from apyfal.storage.url import parse

FILES = ("f", "e/g", "e/deep/h")
EMPTY = ("e/empty", "none")


@pytest.fixture(params=["local", "disk", "memory"])
def top(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a tree with empty directories, in each kind of place that has real ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    storage.mount("disk", provider="file", root=str(tmp_path / "disk"), config={})
    storage.mount("mem", provider="fsspec", protocol="memory", root=f"trees{tmp_path.name}", config={})
    storage.makedirs("mem://")
    url = {"local": str(tmp_path / "disk/t"), "disk": "disk://t", "memory": "mem://t"}[request.param]
    for name in FILES:
        storage.makedirs(f"{url}/{name}".rpartition("/")[0], exist_ok=True)
        storage.write_bytes(f"{url}/{name}", name.encode())
    for name in EMPTY:
        storage.makedirs(f"{url}/{name}")
    yield url
    storage.unmount("disk")
    storage.unmount("mem")


def test_a_tree_has_its_empty_directories(top: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(item.name for item in tree(parse(top)) if not item.is_directory) == sorted(FILES)
    assert sorted(item.name for item in tree(parse(top)) if item.is_directory) == sorted(EMPTY)
    assert cli.main(["ls", "-R", "--json", top]) == 0
    assert sorted(one["name"] for one in json.loads(capsys.readouterr().out)) == sorted(FILES + EMPTY)
    places = {f"{top}/{name}" for name in (*FILES, *EMPTY, "e", "e/deep")}
    assert set(storage.filesystem().find(top, withdirs=True)) == places | {top}


@pytest.mark.parametrize(
    "pattern", ["**", "**/", "*/", "e/**/", "**/e/", "**/empty/", "**/f", "f/**/", "x/**/", "*/**"]
)
def test_patterns_find_the_same_everywhere(top: str, tmp_path: Path, pattern: str) -> None:
    real = tmp_path / "compared"
    for name in FILES:
        (real / name).parent.mkdir(parents=True, exist_ok=True)
        (real / name).touch()
    for name in EMPTY:
        (real / name).mkdir()
    expected = {found.removeprefix(str(real)) for found in storage.glob(f"{real}/{pattern}")}
    if not top.startswith("/") and pattern.endswith("**"):
        expected -= {f"/{pattern[:-2]}"}  # the directory itself is what `**/` finds there, and not `**`
        expected -= {f"/{name}/" for name in ("e", "none")}
    assert {one.removeprefix(top) for one in storage.glob(f"{top}/{pattern}")} == expected


@pytest.mark.parametrize("destination", ["local", "disk://copy", "mem://copy"])
def test_copies_take_empty_directories_along(top: str, tmp_path: Path, destination: str) -> None:
    destination = str(tmp_path / "copy") if destination == "local" else destination
    assert cli.main(["copy", "-r", top, destination]) == 0
    assert sorted(item.name for item in tree(parse(destination))) == sorted(FILES + EMPTY)
    assert cli.main(["copy", "-r", f"{top}/none", f"{destination}-2"]) == 0
    assert storage.listdir(f"{destination}-2") == []


def test_rm_takes_all(top: str) -> None:
    assert cli.main(["rm", "-rn", top]) == 0
    assert cli.main(["rm", "-r", f"{top}/e"]) == 0
    assert storage.listdir(top) == ["f", "none"]
    assert cli.main(["rm", "-r", f"{top}/f", f"{top}/none"]) == 0
    assert cli.main(["rm", "-r", top]) == 0
    assert not storage.exists(top)
    assert cli.main(["rm", "-r", top]) == 3


def test_rm_by_fsspec(top: str) -> None:
    files = storage.filesystem()
    files.rm(f"{top}/e", recursive=True)
    assert storage.listdir(top) == ["f", "none"]
    files.rm([f"{top}/f", f"{top}/none"], recursive=True)
    assert storage.listdir(top) == []


def test_marks_go_from_store_to_store() -> None:
    one, other = MemoryHandler(), MemoryHandler()
    table.table.attach("one", one)
    table.table.attach("other", other)
    try:
        for key in ("b/t/", "b/t/x", "b/t/m/", "b/t/m/n/", "b/t/o/y", "b/alone/"):
            one.store(key, key.encode() if not key.endswith("/") else b"")
        assert cli.main(["copy", "-r", "one://b/t", "other://b/u"]) == 0
        assert sorted(other.objects) == ["b/u/m/", "b/u/m/n/", "b/u/o/y", "b/u/x"]
        assert cli.main(["copy", "-r", "one://b/alone", "other://b/v"]) == 0
        assert "b/v/" in other.objects
    finally:
        table.table.unmount("one")
        table.table.unmount("other")


# -- links ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def linked(tmp_path: Path) -> Path:
    (tmp_path / "real/in").mkdir(parents=True)
    (tmp_path / "real/in/x").write_text("X")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/y").write_text("Y")
    (tmp_path / "t/link").symlink_to("../real")
    return tmp_path


@pytest.mark.parametrize("call", ["copy", "get", "put"])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("slash", ["", "/"])
def test_fsspec_copies_what_links_lead_to(linked: Path, call: str, inside: bool, slash: str) -> None:
    files = storage.filesystem()
    target = linked / "out"
    if inside:
        target.mkdir()
    getattr(files, call)(f"{linked}/t{slash}", str(target), recursive=True)
    there = target / "t" if inside and not slash else target
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()) == ["link/in/x", "y"]


@pytest.mark.parametrize("call", ["copy", "get", "put"])
def test_fsspec_names_what_it_cannot_copy(linked: Path, call: str) -> None:
    (linked / "t/loop").symlink_to(".")
    with pytest.raises(StorageError, match="loop"):
        getattr(storage.filesystem(), call)(f"{linked}/t", f"{linked}/out", recursive=True)
    assert not (linked / "out").exists()


@pytest.mark.parametrize("name", ["t", "t/link", "t/link/"])
def test_fsspec_removes_links_and_not_what_they_lead_to(linked: Path, name: str) -> None:
    storage.filesystem().rm(f"{linked}/{name}", recursive=True)
    assert not os.path.lexists(linked / name.rstrip("/"))
    assert (linked / "real/in/x").read_text() == "X"


def test_a_mount_of_a_disk_follows_links_as_the_disk_does(linked: Path) -> None:
    (linked / "t/loop").symlink_to(".")
    storage.mount("disk", provider="file", root=str(linked), config={})
    try:
        found = {item.name: item.problem for item in tree(parse("disk://t"))}
        assert set(found) == {"link/in/x", "loop", "y"}
        assert "that it is in" in str(found["loop"])
        assert cli.main(["copy", "-r", "disk://t", str(linked / "out")]) == 1
        assert (linked / "out/link/in/x").read_text() == "X"
        assert cli.main(["rm", "-r", "disk://t"]) == 0
        assert (linked / "real/in/x").exists()
    finally:
        storage.unmount("disk")


# -- what nobody means ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["", ".", "..", "/", "~", "/*", "mem://", "mem:///", "lab://", "apyfal://", "*"])
def test_rm_by_fsspec_refuses(top: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "disk"))
    handler = MemoryHandler()
    handler.store("b/x", b"1")
    table.table.attach("lab", handler)
    removed: list[Any] = []
    monkeypatch.setattr(os, "remove", removed.append)
    monkeypatch.setattr(os, "rmdir", removed.append)
    try:
        with pytest.raises((AcceleratorException, FileNotFoundError)):
            storage.filesystem().rm(os.path.expanduser(name), recursive=True)
    finally:
        table.table.unmount("lab")
    assert handler.objects
    assert removed == []
    assert storage.exists(f"{top}/f")


def test_a_move_never_goes_deeper_than_it_says(tmp_path: Path) -> None:
    """Where a directory has the name that a move would give, it is an error, and not a copy inside of that."""
    (tmp_path / "x").write_text("X")
    (tmp_path / "d/x").mkdir(parents=True)
    handler = MemoryHandler()
    handler.store("b/x", b"Y")
    table.table.attach("lab", handler)
    try:
        for source in (str(tmp_path / "x"), "lab://b/x"):
            with pytest.raises(StorageError):
                storage.move(source, tmp_path / "d")
            assert storage.exists(source)
            assert os.listdir(tmp_path / "d/x") == []
    finally:
        table.table.unmount("lab")


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """Make a tree deeper than Python's stack, and remove it: what pytest removes its directories with cannot."""
    top = tmp_path / "deep"
    top.mkdir()
    within = os.open(top, os.O_RDONLY)
    for _ in range(1200):  # deeper than a path is long, so step by step
        os.mkdir("a", dir_fd=within)
        below = os.open("a", os.O_RDONLY, dir_fd=within)
        os.close(within)
        within = below
    os.close(within)
    yield top
    subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.mark.parametrize("way", ["tree", "walk", "glob", "sync", "copy -r", "ls -R", "rm -r"])
def test_a_tree_deeper_than_the_stack_is_an_error(deep: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    copy = deep.parent / "copy"
    ways: dict[str, Callable[[], object]] = {
        "tree": lambda: list(tree(parse(str(deep)))),
        "walk": lambda: list(storage.walk(deep)),
        "glob": lambda: storage.glob(f"{deep}/**/f"),
        "sync": lambda: storage.sync(deep, copy),
    }
    if way in ways:
        with pytest.raises(StorageError, match="directories are in one another"):
            ways[way]()
        return
    command = {"copy -r": ["copy", "-r", str(deep), str(copy)], "ls -R": ["ls", "-R", str(deep)]}
    status = cli.main(command.get(way, ["rm", "-r", str(deep)]))
    if way == "rm -r" and status == 0:  # newer Pythons remove such trees
        assert not deep.exists()
    else:
        assert status != 0
        assert "directories are in one another" in capsys.readouterr().err
