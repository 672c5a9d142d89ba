"""`storage.sync` and ``apyfal sync``: what differs, what is deleted, and what the command says."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from memory_store import MemoryHandler
from trees import TREE, age, content, fill

from apyfal import cli, storage
from apyfal.exceptions import StorageError
from apyfal.storage.handler import ObjectInfo


def test_a_copy_and_then_nothing(places: tuple[str, str]) -> None:
    source, destination = places
    report = storage.sync(source, destination)
    assert report.copied == dict.fromkeys(TREE, "new")
    assert report.bytes == sum(map(len, TREE.values()))
    assert content(destination) == TREE
    for how in ({}, {"checksum": True}, {"delete": True}, {"dry_run": True}):
        report = storage.sync(source, destination, **how)  # type: ignore[arg-type]
        assert (report.copied, report.deleted, report.same) == ({}, [], len(TREE)), how


@pytest.mark.parametrize(
    ("how", "copied"),
    [
        ({}, {"a": "size", "d/b": "time"}),
        ({"checksum": True}, {"a": "size", "d/b": "content", "d/e/c.tmp": "content"}),
    ],
    ids=["time", "checksum"],
)
def test_what_differs(
    places: tuple[str, str], store: MemoryHandler, how: dict[str, bool], copied: dict[str, str]
) -> None:
    source, destination = places
    storage.sync(source, destination)
    fill(source, {"a": b"longer", "d/b": b"TWO"})
    age(f"{source}/d/b", store, 10)
    fill(destination, {"d/e/c.tmp": b"THREE"})  # of the same size
    if "://" not in destination:
        mtime = storage.getmtime(f"{source}/d/e/c.tmp")
        os.utime(f"{destination}/d/e/c.tmp", (mtime, mtime))
    dry = storage.sync(source, destination, dry_run=True, **how)  # type: ignore[arg-type]
    assert content(destination)["a"] == b"one"
    report = storage.sync(source, destination, **how)  # type: ignore[arg-type]
    assert report.copied == copied == dry.copied
    assert report.bytes == dry.bytes
    assert content(destination)["d/b"] == b"TWO"
    assert content(destination)["d/e/c.tmp"] == (b"three" if how else b"THREE")


@pytest.mark.parametrize(
    ("source", "there", "copied"),
    [
        (100.4, 100.0, {}),
        (100.0, 100.9, {}),
        (100.0, 100.0, {}),
        (101.0, 100.9, {"a": "time"}),
        (100.5, 100.4, {"a": "time"}),
        (100.4, 100.5, {}),
        (None, 100.5, {"a": "time"}),
        (100.5, None, {"a": "time"}),
    ],
)
def test_times_of_stores(
    store: MemoryHandler, source: float | None, there: float | None, copied: dict[str, str]
) -> None:
    """Some tell whole seconds, some none: neither makes a copy twice, nor hides a change."""
    for name, mtime in (("in", source), ("out", there)):
        store.objects[f"b/{name}/a"] = (b"1", ObjectInfo(f"b/{name}/a", 1, etag=f'"{name}"', mtime=mtime))
    assert storage.sync("lab://b/in", "lab://b/out", dry_run=True).copied == copied
    if source is not None and there is not None and source // 1 == there // 1 and (source % 1 == 0 or there % 1 == 0):
        store.objects["b/in/a"] = (b"2", store.objects["b/in/a"][1])
        assert storage.sync("lab://b/in", "lab://b/out", dry_run=True).copied == {"a": "content"}


def test_an_older_file_takes_the_place_of_a_newer_one_on_a_disk(tmp_path: Path) -> None:
    fill(str(tmp_path / "in"), {"a": b"old"})
    os.utime(tmp_path / "in/a", (1000, 1000))
    fill(str(tmp_path / "out"), {"a": b"new"})
    assert storage.sync(tmp_path / "in", tmp_path / "out").copied == {"a": "time"}
    assert (tmp_path / "out/a").read_bytes() == b"old"
    assert os.stat(tmp_path / "out/a").st_mtime == 1000


@pytest.mark.parametrize("how", [{}, {"dry_run": True}], ids=["really", "dry"])
def test_delete(places: tuple[str, str], how: dict[str, bool]) -> None:
    source, destination = places
    storage.sync(source, destination)
    extra = {"old": b"1", "d/e/old": b"2", "gone/x/y": b"3"}
    fill(destination, extra)
    assert storage.sync(source, destination).deleted == []
    report = storage.sync(source, destination, delete=True, **how)  # type: ignore[arg-type]
    assert report.deleted == sorted(extra)
    assert content(destination) == (TREE | extra if how else TREE)
    if "://" not in destination:
        assert os.path.exists(f"{destination}/gone") == bool(how)


def test_delete_of_what_does_not_count(places: tuple[str, str]) -> None:
    source, destination = places
    fill(destination, {"a.tmp": b"kept", "gone/b.tmp": b"kept", "gone/c": b"not kept"})
    report = storage.sync(source, destination, delete=True, exclude=["*.tmp"])
    assert report.deleted == ["gone/c"]
    rest = {name: data for name, data in TREE.items() if not name.endswith(".tmp")}
    assert content(destination) == rest | {"a.tmp": b"kept", "gone/b.tmp": b"kept"}


def test_a_source_that_is_written_to_meanwhile(
    store: MemoryHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy is younger than it, and would be taken for the same the next time."""
    fill(str(tmp_path / "in"), {"a": b"1111", "b": b"2"})
    put, changes = store.put, iter([b"2222", b"3333"])

    def slow(path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        if path.endswith("/a") and (new := next(changes, None)) is not None:
            time.sleep(0.01)
            (tmp_path / "in/a").write_bytes(new)
        return put(path, data, checksum, exclusive=exclusive)

    monkeypatch.setattr(store, "put", slow)
    storage.sync(tmp_path / "in", "lab://b/out")
    assert content("lab://b/out") == {"a": b"3333", "b": b"2"}
    changes = iter([str(number).encode() * 4 for number in range(4, 10)])
    (tmp_path / "in/a").write_bytes(b"now longer")
    with pytest.raises(StorageError, match="3 times in a row"):
        storage.sync(tmp_path / "in", "lab://b/out")


def test_empty_directories(tmp_path: Path) -> None:
    (tmp_path / "in/e/f").mkdir(parents=True)
    (tmp_path / "out/g/h").mkdir(parents=True)
    report = storage.sync(tmp_path / "in", tmp_path / "out", delete=True)
    assert report.deleted == ["g/h/"]
    assert sorted(str(one.relative_to(tmp_path / "out")) for one in (tmp_path / "out").rglob("*")) == ["e", "e/f"]


# -- the command ------------------------------------------------------------------------------------------------------
def test_the_command(store: MemoryHandler, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(str(tmp_path / "in"), {"a": b"1234", "d/b": b"5"})
    fill("lab://b/out", {"old": b"1"})
    source = str(tmp_path / "in")
    assert cli.main(["sync", "-n", "--delete", source, "lab://b/out"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:-1] == ["copy a (new)", "copy d/b (new)", "delete old"] or out[:-1] == [
        "copy d/b (new)",
        "copy a (new)",
        "delete old",
    ]
    assert out[-1] == "2 would be copied (5 B), 0 the same, 1 would be deleted"
    assert sorted(store.objects) == ["b/out/old"]
    assert cli.main(["sync", "--json", "--delete", source, "lab://b/out"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sorted(one["name"] for one in document["copied"]) == ["a", "d/b"]
    assert (document["deleted"], document["same"], document["bytes"], document["left"]) == (["old"], 0, 5, 0)
    assert cli.main(["sync", source, "lab://b/out", "-q"]) == 0
    assert capsys.readouterr().out == ""
    os.symlink("none", tmp_path / "in/dead")
    assert cli.main(["sync", "--delete", source, "lab://b/out"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "0 copied (0 B), 2 the same, 1 left\n"
    assert "dead" in captured.err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["in"], 2),
        (["in", "out", "third"], 2),
        (["none", "out"], 3),
        (["in", "in/x"], 2),
        (["in", "nowhere://b/x"], 2),
        (["in", "out", "--exclude", ""], 2),
        (["in", "out", "-j", "0"], 2),
        (["in", "out", "-m", "content_type=x"], 2),
        (["in", "lab://b/out", "-m", "nothing=x"], 2),
        (["in/a", "out"], 1),
    ],
    ids=str,
)
def test_bad_input(
    store: MemoryHandler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(str(tmp_path / "in"), TREE)
    assert cli.main(["sync", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", [{}, {"checksum": True}, {"dry_run": True}])
def test_all_blocks_of_files_are_seen(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch, how: dict[str, bool]
) -> None:
    monkeypatch.setattr("apyfal.storage.trees.sync._BLOCK", 3)
    source, destination = places
    more = {f"more/{number % 3}/{number}": b"x" * number for number in range(20)}
    fill(source, more)
    seen: list[tuple[int, int | None]] = []
    report = storage.sync(source, destination, progress=lambda done, total: seen.append((done, total)), **how)
    assert report.copied == dict.fromkeys(TREE | more, "new")
    assert report.bytes == sum(map(len, (TREE | more).values()))
    assert seen[-1] == (report.bytes, None if how.get("checksum") else report.bytes)
    if "dry_run" not in how:
        assert content(destination) == TREE | more
        assert storage.sync(source, destination, **how).same == len(TREE | more)


def test_the_command_prints_what_a_report_has(places: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    source, destination = places
    fill(destination, {"d/old": b"1", "older": b"2"})
    report = storage.sync(source, destination, dry_run=True, delete=True)
    assert cli.main(["sync", "--json", "--delete", source, destination]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {one["name"]: one["reason"] for one in printed["copied"]} == report.copied
    assert printed["deleted"] == report.deleted == ["d/old", "older"]
    assert (printed["bytes"], printed["same"], printed["left"]) == (report.bytes, 0, 0)
