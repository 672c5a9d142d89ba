"""`apyfal.storage.copy` between every kind of place."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.exceptions import InvalidURL, IsADirectory, ObjectNotFound, StorageError, TransferCancelled
from apyfal.storage.api.copying import copy
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.mounting.table import MountTable

SIZES = [0, 1, 100, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 40_000_000]


def content(size: int) -> bytes:
    return bytes(bytearray(os.urandom(1000)) * (size // 1000 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_everywhere(tmp_path: Path, store: MemoryHandler, mounts: MountTable, size: int) -> None:
    other = MemoryHandler()
    mounts.attach("other", other)
    data = content(size)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(data)
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    for src, dst in (
        (first, str(tmp_path / "copy")),
        (str(tmp_path / "copy"), "mem://b/one"),
        ("mem://b/one", "mem://b/two"),
        ("mem://b/two", "other://b/three"),
        ("other://b/three", str(second)),
    ):
        seen.clear()
        assert copy(src, dst, progress=progress) == dst
        assert not size or seen[-1] == (size, size)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert second.read_bytes() == data
    assert store.calls.count("copy") == 1
    assert not store.uploads
    assert not other.uploads


def test_file_objects(tmp_path: Path, store: MemoryHandler) -> None:
    data = content(20 << 20)
    assert copy(io.BytesIO(data), "mem://b/k") == "mem://b/k"
    target = io.BytesIO()
    assert copy("mem://b/k", target) == "<BytesIO>"
    assert target.getvalue() == data
    with (tmp_path / "f").open("wb") as file:
        assert copy(io.BytesIO(data), file) == str(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == data


def test_pipes(tmp_path: Path, store: MemoryHandler) -> None:
    data = content(20 << 20)
    store.store("b/k", data)
    reader, writer = os.pipe()
    result = []

    def drain() -> None:
        with os.fdopen(reader, "rb") as file:
            result.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    copy("mem://b/k", f"/dev/fd/{writer}")
    os.close(writer)
    thread.join()
    assert result == [data]


def test_a_failed_copy_leaves_the_destination(tmp_path: Path, store: MemoryHandler) -> None:
    data = content(20 << 20)
    store.store("b/src", data)
    store.store("b/dst", b"old")
    local = tmp_path / "dst"
    local.write_bytes(b"old")
    store.fail["readinto"] = 10_000
    for dst in (str(local), "mem://b/dst2"):
        store.fail["copy"] = 100
        with pytest.raises(StorageError):
            copy("mem://b/src", dst)
    store.fail = {"put": 1000, "write_part": 1000}
    (tmp_path / "src").write_bytes(data)
    with pytest.raises(StorageError):
        copy(tmp_path / "src", "mem://b/dst")
    assert store.objects["b/dst"][0] == b"old"
    assert "b/dst2" not in store.objects
    assert local.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["dst", "home", "src"]
    assert not store.uploads


def test_a_failing_file_object_stops_the_copy(tmp_path: Path, store: MemoryHandler) -> None:
    class Bad(io.RawIOBase):
        count = 0

        def readable(self) -> bool:
            return True

        def readinto(self, out: object) -> int:
            self.count += 1
            if self.count > 20:
                raise ZeroDivisionError
            return len(memoryview(out))  # type: ignore[arg-type]  # typeshed's type is private

    with pytest.raises(ZeroDivisionError):
        copy(Bad(), "mem://b/k")
    with pytest.raises(ZeroDivisionError):
        copy(Bad(), tmp_path / "k")
    assert not store.objects
    assert not store.uploads
    assert os.listdir(tmp_path) == ["home"]


def test_onto_itself(tmp_path: Path, store: MemoryHandler, mounts: MountTable) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"data")
    link = tmp_path / "l"
    link.symlink_to(file)
    store.store("b/k", b"data")
    mounts.mount("one", provider="file", root=str(tmp_path))
    mounts.mount("two", provider="file", root=str(tmp_path))
    for src, dst in ((file, file), (file, link), (file, tmp_path), ("mem://b/k", "mem://b/k"), ("one://f", "two://f")):
        with pytest.raises(StorageError, match="are the same"):
            copy(src, dst)
    assert file.read_bytes() == b"data"
    assert store.objects["b/k"][0] == b"data"


def test_into_directories(tmp_path: Path, store: MemoryHandler) -> None:
    file = tmp_path / "f a"
    file.write_bytes(b"data")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert copy(file, folder) == str(folder / "f a")
    assert copy(file, "mem://b/prefix/") == "mem://b/prefix/f a"
    assert copy("mem://b/prefix/f a", f"{folder}/") == str(folder / "f a")
    assert (folder / "f a").read_bytes() == b"data"
    store.store("b/slash/", b"data")
    with pytest.raises(IsADirectory, match="no name"):
        copy("mem://b/slash/", folder)
    with pytest.raises(InvalidURL, match="no name"):
        copy("mem://b/slash/", "mem://c/")
    with pytest.raises(IsADirectory):
        copy(folder, tmp_path / "x")
    with pytest.raises(IsADirectory):
        copy(file, f"{tmp_path}/no/")


def test_missing(tmp_path: Path, store: MemoryHandler) -> None:
    for src in (tmp_path / "no", "mem://b/no"):
        for dst in (tmp_path / "x", "mem://b/x"):
            with pytest.raises(ObjectNotFound):
                copy(src, dst)
    assert not store.objects
    assert os.listdir(tmp_path) == ["home"]


def test_verbatim_keys(tmp_path: Path, store: MemoryHandler) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"data")
    for key in (" a", "a//b", "a%20b", "a?b=c", "a#b", "ü", "a\nb", "../a", "a "):
        copy(file, f"mem://b/{key}")
        assert store.objects.pop(f"b/{key}")[0] == b"data"


# -- local to local ---------------------------------------------------------------------------------------------------
def test_permission_bits(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.write_bytes(b"data")
    src.chmod(0o750)
    for _ in range(2):
        copy(src, dst)
        assert stat.S_IMODE(dst.stat().st_mode) == 0o750
        dst.chmod(0o600)


def test_holes_stay_holes(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    with src.open("wb") as file:
        file.write(b"begin")
        file.seek(100 << 20)
        file.write(b"middle")
        file.truncate(1 << 30)
    seen: list[tuple[int, int | None]] = []
    copy(src, dst, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1 << 30, 1 << 30)
    assert dst.stat().st_size == 1 << 30
    assert dst.stat().st_blocks <= src.stat().st_blocks + 16
    with dst.open("rb") as file:
        assert file.read(6) == b"begin\0"
        file.seek(100 << 20)
        assert file.read(7) == b"middle\0"
    empty = tmp_path / "empty"
    with empty.open("wb") as file:
        file.truncate(1 << 30)
    copy(empty, dst)
    assert (dst.stat().st_size, dst.stat().st_blocks) == (1 << 30, 0)


def test_without_help_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", cannot)
    monkeypatch.setattr("fcntl.ioctl", cannot)
    data = content(20_000_001)
    (tmp_path / "src").write_bytes(data)
    copy(tmp_path / "src", tmp_path / "dst")
    assert (tmp_path / "dst").read_bytes() == data


def test_what_says_no_size(tmp_path: Path, store: MemoryHandler) -> None:
    copy("/proc/self/cmdline", tmp_path / "x")
    copy("/proc/self/cmdline", "mem://b/x")
    assert (tmp_path / "x").read_bytes() == store.objects["b/x"][0] == Path("/proc/self/cmdline").read_bytes()


# -- cancelled --------------------------------------------------------------------------------------------------------
def test_a_cancelled_copy_of_a_local_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(content(1 << 20))
    cancel = CancelToken()
    cancel.set()
    with cancel.scope(), pytest.raises(TransferCancelled):
        copy(tmp_path / "source", tmp_path / "copy")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_cancelled_copy_does_not_wait_for_its_pipe(tmp_path: Path, store: MemoryHandler, when: str) -> None:
    read, write = os.pipe()
    cancel = CancelToken()
    timer = threading.Timer(0.2, cancel.set)
    if when == "before":
        cancel.set()
    else:
        timer.start()
    try:
        with cancel.scope():
            for destination in (str(tmp_path / "copy"), "mem://b/copy"):
                with pytest.raises(TransferCancelled):
                    copy(f"/dev/fd/{read}", destination)
    finally:
        os.close(write)
        os.close(read)
        timer.cancel()
    assert not (tmp_path / "copy").exists()
    assert not store.objects


@pytest.mark.parametrize(
    "destination", ["{}/x", "file://{}/x", "{}/hard", "/proc/self/cwd/x", "disk://x", "two://d/hard"]
)
@pytest.mark.parametrize("source", ["{}/x", "{}/link", "disk://x", "disk://link", "two://d/x"])
def test_one_file_under_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: MountTable, source: str, destination: str
) -> None:
    """By its path, a link, or a mount of its directory or of the one above."""
    directory = tmp_path / "d"
    directory.mkdir()
    monkeypatch.chdir(directory)
    (directory / "x").write_bytes(b"data")
    os.link("x", "hard")
    os.symlink("x", "link")
    storage.mount("disk", provider="file", root=str(directory))
    storage.mount("two", provider="file", root=str(tmp_path))
    before = os.stat("x")
    with pytest.raises(StorageError, match=r"are the same (file|object)"):
        copy(source.format(directory), destination.format(directory))
    assert (directory / "x").read_bytes() == b"data"
    assert os.stat("x").st_mtime_ns == before.st_mtime_ns
    assert os.stat("hard").st_ino == before.st_ino
    with pytest.raises(ObjectNotFound):
        copy("disk://gone", directory / "x")
