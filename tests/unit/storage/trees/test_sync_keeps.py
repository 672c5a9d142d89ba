"""What `storage.sync` never deletes or replaces, and names that have no place."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_store import MemoryHandler
from trees import TREE, content, fill

from apyfal import storage
from apyfal.exceptions import AccessDenied, InvalidURL, ParameterError, StorageError
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.mounting import table
from apyfal.storage.trees.filters import Filter


# -- directories ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a", "a/b"])
@pytest.mark.parametrize("how", [{}, {"dry_run": True}, {"delete": True}])
def test_an_empty_directory_where_a_file_is(tmp_path: Path, name: str, how: dict[str, bool]) -> None:
    """It is seen before anything is copied, and no more than what is left if the rest is copied."""
    source, destination = tmp_path / "in", tmp_path / "out"
    fill(str(source), {"z": b"1"})
    (source / name).mkdir(parents=True)
    fill(str(destination), {"a": b"file"})
    with pytest.raises(ParameterError, match=r"in/a(/b)?' has no place .* a(' is a)? file"):
        storage.sync(source, destination, **how)  # type: ignore[arg-type]
    assert content(str(destination)) == {"a": b"file"}
    report = storage.sync(source, destination, keep_going=True, **how)  # type: ignore[arg-type]
    assert report.copied == {"z": "new"}
    assert [type(one) for one in report.left] == [ParameterError]
    assert content(str(destination)) == {"a": b"file"} | ({} if "dry_run" in how else {"z": b"1"})


def test_a_directory_that_cannot_be_made_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
    destination.mkdir()
    made = os.makedirs

    def makedirs(name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        if str(name).endswith("/a"):
            raise PermissionError(13, "Permission denied", name)
        made(name, mode, exist_ok)

    monkeypatch.setattr(os, "makedirs", makedirs)
    with pytest.raises(AccessDenied, match="out/a"):
        storage.sync(source, destination)
    report = storage.sync(source, destination, keep_going=True)
    assert [type(one) for one in report.left] == [AccessDenied]
    assert (destination / "b").is_dir()


def test_a_dry_run_names_the_empty_directories_that_would_go(tmp_path: Path) -> None:
    source, destination = tmp_path / "in", tmp_path / "out"
    fill(str(source), {"z": b"1"})
    (destination / "e/f").mkdir(parents=True)
    dry = storage.sync(source, destination, delete=True, dry_run=True)
    assert dry.deleted == ["e/f/"]
    assert storage.sync(source, destination, delete=True).deleted == dry.deleted
    assert not (destination / "e").exists()


def test_a_directory_that_is_not_deleted_is_not_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = tmp_path / "in", tmp_path / "out"
    fill(str(source), {"z": b"1"})
    (destination / "e").mkdir(parents=True)

    def rmdir(name: str) -> None:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "rmdir", rmdir)
    report = storage.sync(source, destination, delete=True, keep_going=True)
    assert report.deleted == []
    assert [type(one) for one in report.left] == [AccessDenied]


# -- never deleted ----------------------------------------------------------------------------------------------------
def test_nothing_is_deleted_if_the_listing_of_a_store_fails(store: MemoryHandler, tmp_path: Path) -> None:
    fill("lab://b/in", TREE)
    fill(str(tmp_path / "out"), {"old": b"1"})
    store.fail["list"] = 1 << 30
    for how in ({}, {"keep_going": True}):
        with pytest.raises(StorageError):
            storage.sync("lab://b/in", tmp_path / "out", delete=True, **how)  # type: ignore[arg-type]
    assert content(str(tmp_path / "out")) == {"old": b"1"}


def test_nothing_is_deleted_if_the_listing_breaks_off(
    store: MemoryHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill("lab://b/in", TREE)
    fill(str(tmp_path / "out"), TREE)
    whole = store.list

    def broken(path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        yield next(iter(whole(path, recursive=recursive)))
        if recursive:
            raise StorageError("the second page fails")

    monkeypatch.setattr(store, "list", broken)
    with pytest.raises(StorageError, match="second page"):
        storage.sync("lab://b/in", tmp_path / "out", delete=True, keep_going=True)
    assert content(str(tmp_path / "out")) == TREE


@pytest.mark.parametrize("kind", ["broken link", "pipe", "loop"])
def test_nothing_is_deleted_if_something_is_no_file(tmp_path: Path, kind: str) -> None:
    source, destination = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, TREE)
    fill(destination, {"old": b"1"})
    if kind == "broken link":
        os.symlink("none", f"{source}/odd")
    elif kind == "pipe":
        os.mkfifo(f"{source}/odd")
    else:
        os.symlink(".", f"{source}/odd")
    report = storage.sync(source, destination, delete=True)
    assert len(report.left) == 1
    assert "odd" in str(report.left[0])
    assert report.nothing_deleted
    assert content(destination) == TREE | {"old": b"1"}
    # what is not wanted does not count
    report = storage.sync(source, destination, delete=True, exclude=["odd"])
    assert (report.left, report.deleted) == ([], ["old"])


WITHOUT_POWER = """
import os, sys
from apyfal import storage
storage.sync  # imported while everything can be read
if os.geteuid() == 0:  # whom permissions do not stop
    os.setgid(65534)
    os.setuid(65534)
report = storage.sync(sys.argv[1], sys.argv[2], delete=True)
print(report.nothing_deleted, *report.left)
"""


@pytest.mark.parametrize("side", ["in", "out"])
def test_nothing_is_deleted_if_a_directory_cannot_be_listed(side: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # others may not enter those of pytest
        fill(folder, {"in/a": b"1", "in/d/x": b"2", "out/old": b"3", "out/d/x": b"2"})
        os.chmod(folder, 0o755)
        os.chmod(f"{folder}/out", 0o777)
        os.chmod(f"{folder}/{side}/d", 0o000)
        command = [sys.executable, "-c", WITHOUT_POWER, f"{folder}/in", f"{folder}/out"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            os.chmod(f"{folder}/{side}/d", 0o755)
        assert sorted(content(f"{folder}/out")) == (["a", "d/x", "old"] if side == "in" else ["d/x", "old"])
        if side == "in":
            assert ran.stdout.startswith("True "), ran.stderr
        else:  # where the copy has no place
            assert "ParameterError" in ran.stderr
            assert f"{side}/d" in ran.stderr


def test_nothing_is_deleted_if_a_copy_fails(store: MemoryHandler, tmp_path: Path) -> None:
    fill(str(tmp_path / "in"), TREE)
    fill("lab://b/out", {"old": b"1"})
    store.fail["put"] = 1
    report = storage.sync(tmp_path / "in", "lab://b/out", delete=True, keep_going=True)
    assert (len(report.copied), len(report.left), report.nothing_deleted) == (len(TREE) - 1, 1, True)
    assert "b/out/old" in store.objects
    store.fail["put"] = 1
    with pytest.raises(StorageError, match="on demand"):
        storage.sync(tmp_path / "in", "lab://b/out", delete=True)
    assert "b/out/old" in store.objects
    report = storage.sync(tmp_path / "in", "lab://b/out", delete=True)
    assert (report.deleted, content("lab://b/out")) == (["old"], TREE)


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("in", "in"),
        ("in", "in/d"),
        ("in/d", "in"),
        ("in", "in/new"),
        ("in", "link/d"),
        ("link", "in"),
        ("in", "root://in"),
        ("root://in", "in/d"),
        ("lab://b/in", "lab://b"),
        ("lab://b", "lab://b/in"),
        ("lab://b/in/", "lab://b/in"),
    ],
)
def test_one_tree_in_the_other(store: MemoryHandler, tmp_path: Path, source: str, destination: str) -> None:
    fill(str(tmp_path / "in"), TREE)
    fill("lab://b/in", TREE)
    os.symlink("in", tmp_path / "link")
    storage.mount("root", provider="file", root=str(tmp_path), config={})
    try:
        one, other = (url if "://" in url else str(tmp_path / url) for url in (source, destination))
        with pytest.raises(ParameterError, match="one is in the other"):
            storage.sync(one, other, delete=True)
    finally:
        storage.unmount("root")
    assert content(str(tmp_path / "in")) == TREE
    assert content("lab://b/in") == TREE


def test_two_names_of_one_store_may_be_one_tree(tmp_path: Path) -> None:
    how = {"provider": "s3", "endpoint_url": "http://127.0.0.1:9", "secret_id": "s", "config": {}}
    storage.mount("one", client_id="1", **how)  # type: ignore[arg-type]
    storage.mount("two", client_id="2", **how)  # type: ignore[arg-type]
    try:
        with pytest.raises(ParameterError, match="one is in the other"):
            storage.sync("one://b/in", "two://b", delete=True)
    finally:
        storage.unmount("one")
        storage.unmount("two")


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize(
    ("source", "destination"), [("b/in", "b"), ("b", "b/in"), ("b/in/d", "b/in"), ("b/in", "b/in/d")]
)
def test_one_store_at_two_addresses_may_be_one_tree(
    store: MemoryHandler, source: str, destination: str, delete: bool
) -> None:
    other = MemoryHandler()
    other.objects = store.objects  # as of one server with two names
    table.table.attach("again", other)
    try:
        fill("lab://b/in", TREE)
        with pytest.raises(ParameterError, match="seem to be the same object"):
            storage.sync(f"lab://{source}", f"again://{destination}", delete=delete)
        assert content("lab://b") == {f"in/{name}": data for name, data in TREE.items()}
        assert storage.sync("lab://b/in", "again://b/in", delete=delete).same == len(TREE)  # it is the same: fine
        assert storage.sync("lab://b/in", "again://b/out", delete=delete).copied.keys() == TREE.keys()
    finally:
        table.table.unmount("again")


def test_a_mirror_in_another_store_is_no_part_of_its_source(store: MemoryHandler) -> None:
    other = MemoryHandler()
    table.table.attach("again", other)
    try:
        fill("lab://b/in", TREE)
        for _ in range(2):
            storage.sync("lab://b", "again://b", delete=True)
            storage.sync("lab://b/in", "again://b", delete=True)
        assert content("again://b") == TREE
    finally:
        table.table.unmount("again")


# -- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("keys", "there", "why"),
    [
        (["x//y"], [], "empty part"),
        (["/y"], [], "empty part"),
        (["../y"], [], "'..'"),
        (["x/../../y"], [], "'..'"),
        (["x", "x/y"], [], "needs a directory"),
        (["x/y/z", "x/y"], [], "needs a directory"),
        (["x"], ["x/y"], "there is a directory of this name"),
        (["x/y/z"], ["x"], "is a file there"),
        (["link/y"], [], "link"),
        (["dead"], [], "dead"),
    ],
)
def test_names_without_a_place_on_a_disk(
    store: MemoryHandler, tmp_path: Path, keys: list[str], there: list[str], why: str
) -> None:
    destination = str(tmp_path / "out")
    for key in [*keys, "good"]:
        store.store(f"b/in/{key}", b"1")
    fill(destination, dict.fromkeys([*there, "kept"], b"0"))
    os.mkdir(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", f"{destination}/link")
    os.symlink(tmp_path / "none", f"{destination}/dead")
    with pytest.raises(ParameterError, match=why):
        storage.sync("lab://b/in", destination, delete=True)
    assert not os.path.exists(f"{destination}/good")
    report = storage.sync("lab://b/in", destination, delete=True, keep_going=True)
    assert why in str(report.left[0])
    assert "good" in report.copied
    assert report.deleted == []
    assert os.listdir(tmp_path / "elsewhere") == []
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"]


@pytest.mark.parametrize("mark", ["../evil/", "x/../../evil/", "x//evil/", "../../evil/"])
def test_a_mark_makes_no_directory_elsewhere(store: MemoryHandler, tmp_path: Path, mark: str) -> None:
    store.store(f"b/in/{mark}", b"")
    store.store("b/in/x/good/", b"")
    out = tmp_path / "o" / "out"
    with pytest.raises(ParameterError, match=r"empty part|'\.\.'"):
        storage.sync("lab://b/in", out)
    assert not out.exists()
    assert len(storage.sync("lab://b/in", out, keep_going=True).left) == 1
    assert [str(one.relative_to(tmp_path)) for one in sorted(tmp_path.rglob("*"))] == [
        "o",
        "o/out",
        "o/out/x",
        "o/out/x/good",
    ]
    assert storage.sync("lab://b/in", "lab://c/out").left == []  # where no directory is made


def test_what_a_link_leads_to_is_not_replaced(tmp_path: Path) -> None:
    fill(str(tmp_path), {"in/x": b"1", "precious": b"2", "out/y": b"3"})
    os.symlink(tmp_path / "precious", tmp_path / "out/x")
    with pytest.raises(StorageError, match="is a link"):
        storage.sync(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "precious").read_bytes() == b"2"
    os.unlink(tmp_path / "in/x")
    assert storage.sync(tmp_path / "in", tmp_path / "out", delete=True).deleted == ["x", "y"]
    assert (tmp_path / "precious").read_bytes() == b"2"


def test_a_file_is_no_tree(store: MemoryHandler, tmp_path: Path) -> None:
    fill(str(tmp_path), {"in": b"1", "d/x": b"2"})
    fill("lab://b", {"in": b"1"})
    for source, destination in ((str(tmp_path / "in"), "out"), ("lab://b/in", "out"), (str(tmp_path / "no"), "out")):
        with pytest.raises(StorageError):
            storage.sync(source, tmp_path / destination, delete=True)
    with pytest.raises(NotADirectoryError):
        storage.sync(tmp_path / "d", tmp_path / "in", delete=True)


def test_the_root_of_a_store_is_no_tree(tmp_path: Path) -> None:
    how = {"provider": "s3", "endpoint_url": "http://127.0.0.1:9", "client_id": "1", "secret_id": "s", "config": {}}
    storage.mount("one", **how)  # type: ignore[arg-type]
    try:
        for source, destination in (("one://", str(tmp_path)), (str(tmp_path), "one://")):
            with pytest.raises(InvalidURL, match="root of a store"):
                storage.sync(source, destination, delete=True)
    finally:
        storage.unmount("one")


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        ([], [], ["a.bin", "d/a.bin", "d/.git/x", "d/e/b.txt", "[x]"]),
        (["*.bin"], [], ["a.bin", "d/a.bin"]),
        (["/*.bin"], [], ["a.bin"]),
        (["d/*"], [], ["d/a.bin", "d/.git/x", "d/e/b.txt"]),
        (["d/**"], ["*.bin"], ["d/.git/x", "d/e/b.txt"]),
        (["**/e/*"], [], ["d/e/b.txt"]),
        ([], [".git"], ["a.bin", "d/a.bin", "d/e/b.txt", "[x]"]),
        ([], ["d/"], ["a.bin", "[x]"]),
        (["[[]x]"], [], ["[x]"]),
        (["?.bin"], ["d"], ["a.bin"]),
        (["*.BIN"], [], []),
    ],
)
def test_patterns(include: list[str], exclude: list[str], taken: list[str]) -> None:
    chosen = Filter(include, exclude)
    names = ["a.bin", "d/a.bin", "d/.git/x", "d/e/b.txt", "[x]"]
    assert [name for name in names if chosen.takes(name)] == taken


@pytest.mark.parametrize(
    "how",
    [
        {"include": "*.bin"},
        {"exclude": [""]},
        {"exclude": [None]},
        {"concurrency": 0},
        {"concurrency": True},
        {"concurrency": "8"},
        {"metadata": {"content_type": "text/plain"}},
        {"metadata": {"content": "x"}},
    ],
    ids=str,
)
def test_bad_arguments(tmp_path: Path, how: dict[str, object]) -> None:
    fill(str(tmp_path / "in"), TREE)
    with pytest.raises(ParameterError):
        storage.sync(tmp_path / "in", tmp_path / "out", **how)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
