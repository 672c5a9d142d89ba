"""`storage.sync` and ``apyfal sync``: what differs, what is deleted, and above all what is not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryHandler

from apyfal import cli, storage
from apyfal.exceptions import InvalidURL, ParameterError, StorageError, TransferCancelled
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.mounting import table
from apyfal.storage.trees.comparing import differs_in_content
from apyfal.storage.trees.filters import Filter
from apyfal.storage.url import parse

TREE = {"a": b"one", "d/b": b"two", "d/e/c.tmp": b"three", "d/.h/x": b"four", "odd [x]*?": b"5"}


@pytest.fixture
def store() -> Iterator[MemoryHandler]:
    handler = MemoryHandler()
    table.table.attach("lab", handler)
    yield handler
    table.table.unmount("lab")


@pytest.fixture(params=["disk-disk", "disk-store", "store-disk", "store-store"])
def places(request: pytest.FixtureRequest, store: MemoryHandler, tmp_path: Path) -> tuple[str, str]:
    """Give a tree's URL, and one for its copy."""
    kinds = request.param.split("-")
    source, destination = (
        str(tmp_path / name) if kind == "disk" else f"lab://b/{name}"
        for kind, name in zip(kinds, ("in", "out"), strict=True)
    )
    fill(source, TREE)
    return source, destination


def fill(top: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        url = f"{top}/{name}"
        if "://" not in url:
            os.makedirs(os.path.dirname(url), exist_ok=True)
        storage.write_bytes(url, data)


def content(top: str) -> dict[str, bytes]:
    found = {}
    for folder, _, names in storage.walk(top):
        for name in names:
            url = f"{folder}/{name}"
            found[url[len(top) + 1 :]] = storage.read_bytes(url)
    return found


def age(url: str, handler: MemoryHandler, seconds: float) -> None:
    """Make a file this much newer."""
    if "://" in url:
        path = url.partition("://")[2]
        data, info = handler.objects[path]
        changed = ObjectInfo(path, info.size, etag=f"{info.etag}+", mtime=(info.mtime or 0) + seconds)
        handler.objects[path] = (data, changed)
    else:
        moment = os.stat(url).st_mtime + seconds
        os.utime(url, (moment, moment))


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


# -- changes meanwhile ------------------------------------------------------------------------------------------------
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


# -- interrupted ------------------------------------------------------------------------------------------------------
def _apyfal_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("apyfal-sync")]


def test_a_signal_ends_all_copies_before_it_is_raised(
    store: MemoryHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(str(tmp_path / "in"), {str(number): b"data" for number in range(40)})
    began, ended = threading.Semaphore(0), []

    def put(*_: Any, **__: Any) -> Any:
        cancel = current_cancel()
        assert cancel is not None
        began.release()
        was_set = cancel.wait(60)
        time.sleep(0.2)
        ended.append(was_set)
        cancel.check()

    def interrupt() -> None:
        for _ in range(8):
            assert began.acquire(timeout=60)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(store, "put", put)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        storage.sync(tmp_path / "in", "lab://b/out", concurrency=8)
    assert ended == [True] * 8
    assert _apyfal_threads() == []


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_cancelled_sync_raises_whatever_goes_on(store: MemoryHandler, tmp_path: Path, keep_going: bool) -> None:
    fill(str(tmp_path / "in"), {str(number): b"data" for number in range(40)})
    cancel = CancelToken()
    report = storage.SyncReport()
    with cancel.scope(), pytest.raises(TransferCancelled):
        storage.sync(
            tmp_path / "in",
            "lab://b/out",
            keep_going=keep_going,
            concurrency=2,
            progress=lambda done, total: cancel.set(),
            report=report,
        )
    assert 1 <= len(report.copied) <= 3
    assert report.left == []
    assert _apyfal_threads() == []


def test_a_cancelled_comparison_of_local_files_ends(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(bytes(3 << 20))
    cancel = CancelToken()
    cancel.set()
    with cancel.scope(), pytest.raises(TransferCancelled):
        differs_in_content(parse(tmp_path / "one"), parse(tmp_path / "other"))


@pytest.mark.slow
def test_interrupted_at_random_moments_in_a_store(store: MemoryHandler, tmp_path: Path) -> None:
    files = {f"{number % 7}/{number}": os.urandom(number % 50) for number in range(1500)}
    fill(str(tmp_path / "in"), files)
    chance = random.Random(3)
    interrupts = 0
    for _ in range(10):
        limit = chance.randrange(1, 60)
        calls = iter(range(limit))

        def stop(done: int, total: int | None, calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt

        try:
            storage.sync(tmp_path / "in", "lab://b/out", progress=stop)
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 10
    before = len(store.objects)
    assert 0 < before < len(files)
    report = storage.sync(tmp_path / "in", "lab://b/out")
    assert len(report.copied) == len(files) - before
    assert content("lab://b/out") == files
    assert Counter(store.calls)["put"] == len(files)  # each once


@pytest.mark.slow
@pytest.mark.timeout(300)  # ten interpreters begin
def test_killed_at_random_moments_on_a_disk(tmp_path: Path) -> None:
    files = {f"{number % 7}/{number}": os.urandom(50) for number in range(600)}
    fill(str(tmp_path / "in"), files)
    chance = random.Random(4)
    command = [sys.executable, "-m", "apyfal", "sync", "-j2", str(tmp_path / "in"), str(tmp_path / "out")]
    seen: dict[str, tuple[int, int]] = {}
    for number in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = len(seen) + chance.randrange(1, 40)
        while process.poll() is None and sum(len(names) for _, _, names in os.walk(tmp_path / "out")) < wanted:
            time.sleep(0.001)
        process.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 3])
        process.wait()
        for folder, _, names in os.walk(tmp_path / "out"):
            for name in names:
                status = os.stat(f"{folder}/{name}")
                # one that was there before is the same file still
                assert seen.setdefault(f"{folder}/{name}", (status.st_ino, status.st_ctime_ns)) == (
                    status.st_ino,
                    status.st_ctime_ns,
                )
    report = storage.sync(tmp_path / "in", tmp_path / "out")
    assert len(report.copied) == len(files) - len(seen)
    assert content(str(tmp_path / "out")) == files


@pytest.mark.slow
def test_many_small_objects_in_flat_memory(store: MemoryHandler, tmp_path: Path) -> None:
    for number in range(10_000):
        store.store(f"b/in/{number % 100}/{number}", b"x")
    storage.sync("lab://b/in/1", "lab://b/warm")
    tracemalloc.start()
    try:
        report = storage.sync("lab://b/in", "lab://b/out", dry_run=True)
        assert len(report.copied) == 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000 * 1024 + (4 << 20)  # what the docstring says of a file, and some
    report = storage.sync("lab://b/in", "lab://b/out")
    assert len(report.copied) == 10_000
    assert storage.sync("lab://b/in", "lab://b/out", delete=True).same == 10_000


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
