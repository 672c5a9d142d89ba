"""`storage.move`: renamed, or copied and removed; never neither, and never the wrong one."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal import cli, storage
from apyfal.exceptions import AcceleratorException, ObjectChanged, ParameterError, StorageError
from apyfal.storage.mounting import table

DATA = bytes(range(256)) * 100


@pytest.fixture
def stores() -> Iterator[tuple[MemoryHandler, MemoryHandler]]:
    one, other = MemoryHandler(), MemoryHandler()
    table.table.attach("one", one)
    table.table.attach("other", other)
    yield one, other
    table.table.unmount("one")
    table.table.unmount("other")


def place(kind: str, directory: Path, name: str) -> str:
    return str(directory / name) if kind == "local" else f"{kind}://b/{name}"


@pytest.mark.parametrize("end", ["local", "one", "other"])
@pytest.mark.parametrize("start", ["local", "one", "other"])
@pytest.mark.parametrize("existing", [False, True])
def test_from_anywhere_to_anywhere(stores: object, tmp_path: Path, start: str, end: str, existing: bool) -> None:
    source, destination = place(start, tmp_path, "source"), place(end, tmp_path, "destination")
    storage.write_bytes(source, DATA)
    if existing:
        storage.write_bytes(destination, b"old")
    assert storage.move(source, destination) == destination
    assert storage.read_bytes(destination) == DATA
    assert not storage.exists(source)


def test_into_a_directory(stores: object, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "x").write_bytes(DATA)
    assert storage.move(tmp_path / "x", tmp_path / "d") == str(tmp_path / "d/x")
    assert storage.move(tmp_path / "d/x", "one://b/e/") == "one://b/e/x"
    assert storage.read_bytes("one://b/e/x") == DATA


def test_local_directories_and_links_are_renamed(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    os.symlink("nowhere", tmp_path / "link")
    storage.move(tmp_path / "d", tmp_path / "f")
    storage.move(tmp_path / "link", tmp_path / "moved")
    assert (tmp_path / "f/e").is_dir()
    assert os.readlink(tmp_path / "moved") == "nowhere"
    assert sorted(os.listdir(tmp_path)) == ["f", "moved"]


def test_to_itself(stores: tuple[MemoryHandler, MemoryHandler], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    os.link(tmp_path / "x", tmp_path / "same")
    os.symlink(tmp_path, tmp_path / "here")
    stores[0].store("b/x", DATA)
    table.table.attach("alias", stores[0])
    try:
        for source, destination in (
            (tmp_path / "x", tmp_path / "x"),
            (tmp_path / "x", tmp_path / "same"),
            (tmp_path / "x", tmp_path / "here/x"),
            (tmp_path / "x", tmp_path),
            ("one://b/x", "one://b/x"),
            ("one://b/x", "alias://b/x"),
        ):
            with pytest.raises((ParameterError, StorageError)):
                storage.move(source, destination)
        assert (tmp_path / "x").read_bytes() == DATA
        assert storage.read_bytes("one://b/x") == DATA
    finally:
        table.table.unmount("alias")


def test_a_mount_of_the_same_directory_is_seen(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    storage.mount("disk", provider="file", root=str(tmp_path))
    try:
        with pytest.raises(ParameterError, match="same object"):
            storage.move(tmp_path / "x", "disk://x")
        with pytest.raises(ParameterError, match="same object"):
            storage.move("disk://x", tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == DATA
    finally:
        storage.unmount("disk")


@pytest.mark.parametrize("function", [storage.move, storage.rename])
@pytest.mark.parametrize("spelling", ["{}/x", "file://{}/x", "{}/here/x", "/proc/self/cwd/x", "x"])
@pytest.mark.parametrize("leads", ["x", "{}/x", "here/x", "chain"])
def test_a_link_never_replaces_what_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., str], spelling: str, leads: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(DATA)
    os.symlink(".", "here")
    os.symlink("x", "chain")
    os.symlink(leads.format(tmp_path), "link")
    with pytest.raises(ParameterError, match="is a link to"):
        function(tmp_path / "link", spelling.format(tmp_path))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "link").read_bytes() == DATA
    assert not (tmp_path / "x").is_symlink()


def test_a_source_that_changes_stays(stores: tuple[MemoryHandler, MemoryHandler]) -> None:
    one, _ = stores
    one.store("b/x", DATA)

    def change(_: int, __: int | None) -> None:
        if one.objects["b/x"][0] == DATA:
            one.store("b/x", b"new content")

    with pytest.raises(ObjectChanged):
        storage.move("one://b/x", "other://b/y", progress=change)
    assert one.objects["b/x"][0] == b"new content"


@pytest.mark.parametrize("call", ["put", "remove"])
def test_a_failure_leaves_one(stores: tuple[MemoryHandler, MemoryHandler], call: str) -> None:
    one, other = stores
    one.store("b/x", DATA)
    (other if call == "put" else one).fail[call] = 100
    with pytest.raises(AcceleratorException):
        storage.move("one://b/x", "other://b/y")
    assert one.objects["b/x"][0] == DATA
    assert ("b/y" in other.objects) == (call == "remove")


@pytest.mark.parametrize("source", ["one://", "one://b", "one://b/", "one://b/d", "one://b/gone", "gone", "", "."])
def test_what_cannot_be_moved(
    stores: tuple[MemoryHandler, MemoryHandler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    stores[0].store("b/d/x", DATA)
    with pytest.raises((AcceleratorException, OSError)):
        storage.move(source, "other://b/y")
    assert list(stores[0].objects) == ["b/d/x"]
    assert not stores[1].objects


def test_open_files_have_no_name(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="open file"):
        storage.move(io.BytesIO(DATA), tmp_path / "x")
    with pytest.raises(ParameterError, match="open file"):
        storage.move(tmp_path / "x", io.BytesIO())


def test_the_command(
    stores: tuple[MemoryHandler, MemoryHandler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, _ = stores
    for key in ("b/1.txt", "b/2.txt", "b/d/1.txt"):
        one.store(key, key.encode())
    assert cli.main(["mv", "one://b/1.txt", "x"]) == 0
    assert (tmp_path / "x").read_bytes() == b"b/1.txt"
    assert cli.main(["mv", "one://b/2.txt", "one://b/d/1.txt", "nowhere"]) == 2
    assert cli.main(["mv", "one://b/*.txt", "one://b/d/1.txt", "."]) == 0
    assert sorted(os.listdir(tmp_path)) == ["1.txt", "2.txt", "x"]
    one.store("b/e/1.txt", b"")
    one.store("b/f/1.txt", b"")
    assert cli.main(["mv", "one://b/e/1.txt", "one://b/f/1.txt", "one://b/g/"]) == 2
    assert cli.main(["mv", "x"]) == 2
    assert cli.main(["mv", "gone", "y"]) == 3
    assert sorted(one.objects) == ["b/e/1.txt", "b/f/1.txt"]


def test_a_file_onto_itself_is_a_wrong_parameter(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    os.link(tmp_path / "a", tmp_path / "b")
    for name in ("a", "b"):
        with pytest.raises(ParameterError, match=r"^cannot move: .* are the same file$"):
            storage.move(tmp_path / "a", tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
