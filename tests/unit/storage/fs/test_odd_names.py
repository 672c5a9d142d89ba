"""A name of the filesystem never means more than it says: other objects stay as they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.exceptions import InvalidURL, ParameterError, StorageError
from apyfal.storage.fs.filesystem import ApyfalFileSystem

KEYS = ("x", "d/y", "d/e/z", "both", "both/in", "keep", "k/")
Place = tuple[str, Callable[[], dict[str, bytes | None]]]


@pytest.fixture
def fs() -> ApyfalFileSystem:
    return storage.filesystem()


@pytest.fixture(params=["store", "disk"])
def place(request: pytest.FixtureRequest, store: MemoryHandler, tmp_path: Path) -> Place:
    """A URL that names are appended to, and a function that returns everything there."""
    if request.param == "store":
        for key in KEYS:
            store.store(f"b/{key}", b"" if key.endswith("/") else key.encode())
        return "mem://b/", lambda: {key: data for key, (data, _) in store.objects.items()}
    top = tmp_path / "top"
    for key in KEYS:
        if key != "both":
            (top / key).parent.mkdir(parents=True, exist_ok=True)
            (top / key).mkdir() if key.endswith("/") else (top / key).write_bytes(key.encode())
    return f"{top}/", lambda: {str(one): one.read_bytes() if one.is_file() else None for one in top.rglob("*")}


FILES: dict[str, Callable[[ApyfalFileSystem, str, str], Any]] = {
    "rm": lambda fs, url, other: fs.rm(url),
    "rm -r": lambda fs, url, other: fs.rm(url, recursive=True),
    "rm a list": lambda fs, url, other: fs.rm([url]),
    "rm_file": lambda fs, url, other: fs.rm_file(url),
    "mv": lambda fs, url, other: fs.mv(url, other),
    "mv -r": lambda fs, url, other: fs.mv(url, other, recursive=True),
    "mv a list": lambda fs, url, other: fs.mv([url], [other]),
    "mv onto": lambda fs, url, other: fs.mv([other.replace("moved", "keep")], [url]),
    "cp_file onto": lambda fs, url, other: fs.cp_file(other.replace("moved", "keep"), url),
    "put_file onto": lambda fs, url, other: fs.put_file("local", url),
    "pipe": lambda fs, url, other: fs.pipe(url, b"new"),
    "pipe several": lambda fs, url, other: fs.pipe({url: b"new", other: b"new"}),
    "open": lambda fs, url, other: fs.open(url, "wb"),
    "open text": lambda fs, url, other: fs.open(url, "w"),
    "touch": lambda fs, url, other: fs.touch(url),
}


@pytest.mark.parametrize(
    ("place", "what", "name"),
    [
        (kind, what, name)
        for kind, what, name in product(["store", "disk"], FILES, ["x/", "x//", "x///", "both/", "both//"])
        # on a disk, there is no object of the same name, and files go into a directory
        if kind == "store" or not (name.startswith("both") or "onto" in what)
    ],
    indirect=["place"],
)
def test_a_file_is_not_meant_by_the_name_of_a_directory(
    fs: ApyfalFileSystem, place: Place, home: Path, what: str, name: str
) -> None:
    url, content = place
    Path("local").write_bytes(b"new")
    before = content()
    if what == "rm -r" and name == "both/":  # the directory, and not the object
        fs.rm(url + name, recursive=True)
        assert before.keys() - content().keys() == {"b/both/in"}
        return
    with pytest.raises((StorageError, InvalidURL)) as raised:
        FILES[what](fs, url + name, url + "moved")
    assert "\n" not in str(raised.value)
    assert content() == before


@pytest.mark.parametrize("name", ["x//", "d//", "none//", "d/e///"])
@pytest.mark.parametrize(
    "what",
    [*(name for name in FILES if name != "put_file onto"), "ls", "info", "exists", "find", "cat", "rmdir", "mkdir"],
)
def test_more_slashes_at_the_end_name_nothing_in_a_store(
    fs: ApyfalFileSystem, store: MemoryHandler, what: str, name: str
) -> None:
    for key in KEYS:
        store.store(f"b/{key}", key.encode())
    before = dict(store.objects)
    call = FILES.get(what) or (lambda fs, url, other: getattr(fs, what)(url))
    with pytest.raises(InvalidURL, match="ends in more than one '/'"):
        call(fs, f"mem://b/{name}", "mem://b/moved")
    assert store.objects == before


@pytest.mark.parametrize("recursive", [False, True])
def test_a_name_that_exists_is_no_pattern_in_a_list_either(
    fs: ApyfalFileSystem, store: MemoryHandler, recursive: bool
) -> None:
    for key in ("b/x*", "b/x1", "b/[x]1", "b/y1", "b/y2", "b/z"):
        store.store(key, key.encode())
    assert fs.expand_path(["mem://b/x*", "mem://b/y*", "mem://b/z"], recursive=recursive) == [
        f"mem://b/{name}" for name in ("x*", "y1", "y2", "z")
    ]
    fs.rm(["mem://b/x*", "mem://b/y*"], recursive=recursive)
    assert sorted(store.objects) == ["b/[x]1", "b/x1", "b/z"]
    fs.mv(["mem://b/[x]1"], "mem://b/moved/", recursive=recursive)
    assert sorted(store.objects) == ["b/moved/[x]1", "b/x1", "b/z"]


def test_names_of_other_types(fs: ApyfalFileSystem, store: MemoryHandler) -> None:
    for name in "abcdefg":
        store.store(f"b/{name}", b"1")
    fs.rm(storage.Path("mem://b/a"))
    fs.rm(iter(["mem://b/b"]))
    fs.rm(("mem://b/c",), recursive=True)
    fs.mv(storage.Path("mem://b/d"), "mem://b/moved/")
    for path in (storage.Path("mem://b/e/"), iter(["mem://b/e/"])):
        with pytest.raises(StorageError):
            fs.rm(path)
    assert sorted(store.objects) == ["b/e", "b/f", "b/g", "b/moved/d"]


def test_slashes_behind_the_root_are_the_root(fs: ApyfalFileSystem, store: MemoryHandler) -> None:
    store.store("b/x", b"1")
    for url in ("mem://", "mem:///", "mem:////"):
        assert fs.ls(url, detail=False) == ["mem://b"]
        with pytest.raises(ParameterError, match="not below a bucket"):
            fs.rm(url, recursive=True)
    assert fs.ls("mem://b/", detail=False) == ["mem://b/x"]


EMPTY: dict[str, Callable[[ApyfalFileSystem, str], Any]] = {
    "rm": lambda fs, url: fs.rm("", recursive=True),
    "rm the prefix": lambda fs, url: fs.rm("apyfal://", recursive=True),
    "rm_file": lambda fs, url: fs.rm_file(""),
    "mv": lambda fs, url: fs.mv("", url, recursive=True),
    "mv to": lambda fs, url: fs.mv(f"{url}x", ""),
    "cp": lambda fs, url: fs.cp("", url, recursive=True),
    "cp to": lambda fs, url: fs.cp(f"{url}x", ""),
    "put": lambda fs, url: fs.put("", url, recursive=True),
    "put to": lambda fs, url: fs.put("local", ""),
    "put to the prefix": lambda fs, url: fs.put("local", "apyfal://"),
    "get": lambda fs, url: fs.get("", "got", recursive=True),
    "get to": lambda fs, url: fs.get(f"{url}d", "", recursive=True),
    "get a list": lambda fs, url: fs.get([f"{url}x"], [""]),
    "pipe": lambda fs, url: fs.pipe("", b"new"),
    "touch": lambda fs, url: fs.touch(""),
    "open": lambda fs, url: fs.open("", "wb"),
    "rmdir": lambda fs, url: fs.rmdir(""),
}


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_name_names_nothing(fs: ApyfalFileSystem, place: Place, home: Path, what: str) -> None:
    url, content = place
    Path("local").write_bytes(b"new")
    before = content(), sorted(home.rglob("*"))
    with pytest.raises(InvalidURL):
        EMPTY[what](fs, url)
    assert (content(), sorted(home.rglob("*"))) == before


@pytest.mark.parametrize("name", ["d/..", "d/.", "d/./", "d/../", "d/e/..", "d/e/../..", "d//.."])
def test_a_tree_is_not_removed_by_a_name_of_dots(fs: ApyfalFileSystem, place: Place, home: Path, name: str) -> None:
    url, content = place
    before = content()
    for remove in (
        storage.rmtree,
        lambda url: fs.rm(url, recursive=True),
        lambda url: fs.mv(url, "to", recursive=True),
    ):
        with pytest.raises((ParameterError, StorageError, FileNotFoundError)):  # in a store, a name like any other
            remove(url + name)
    assert content() == before
    assert not Path("to").exists()


@pytest.mark.parametrize("place", ["disk"], indirect=True)  # in a store, these are names like any others
@pytest.mark.parametrize("name", ["x/.", "x/./", "x/../new", "none/.", "none/..", "none/../new", "x/", "x//", "new/"])
def test_dots_and_slashes_behind_a_file_are_errors(place: Place, home: Path, name: str) -> None:
    """As the system says: a path goes through directories only."""
    url, content = place
    before = content()
    writes: list[Callable[[str], Any]] = [
        lambda url: storage.write_bytes(url, b"new"),
        lambda path: storage.copy(f"{url}keep", path),
        lambda path: storage.open(path, "wb"),
        lambda path: storage.rename(f"{url}keep", path),
    ]
    for write in writes:
        with pytest.raises(StorageError):
            write(url + name)
    assert content() == before
    storage.write_bytes(f"{url}d/../new", b"new")
    storage.write_bytes(f"{url}./d/./e/.././/new", b"new")
    assert content() == {**before, f"{url}new": b"new", f"{url}d/new": b"new"}


def test_dots_behind_a_link_go_where_the_system_goes(fs: ApyfalFileSystem, store: MemoryHandler, home: Path) -> None:
    store.store("b/x", b"1")
    Path("far/away").mkdir(parents=True)
    os.symlink("far/away", "link")
    fs.get("mem://b/x", "link/../got")
    assert Path("far/got").read_bytes() == b"1"
    assert not Path("got").exists()
    fs.put_file("link/../got", "mem://b/put")
    assert store.objects["b/put"][0] == b"1"
