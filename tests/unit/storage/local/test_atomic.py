"""Local files when the disk, the directory or the permissions say no: the old file stays, and nothing is left."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import AccessDenied, NotADirectory, ObjectExists, StorageError, UnsupportedByStore
from apyfal.storage.endpoints.factory import open_sink
from apyfal.storage.local import direct_io
from apyfal.storage.local.atomic import LocalWriter


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def unchanged(path: Path) -> bool:
    return path.read_bytes() == b"old" and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["pwrite", "write", "fsync", "link", "rename", "fchmod"])
def test_a_failing_call(old: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        if call != "write":  # the engine below open() writes by itself
            with pytest.raises(StorageError) as caught:
                storage.save(old, np.zeros(100_000))
            assert caught.value.errno == code
            assert os.strerror(code) in str(caught.value)
            assert str(old) in str(caught.value)
        if call not in ("write", "pwrite"):
            with pytest.raises(StorageError), storage.open(old, "wb") as file:
                file.write(b"new")
    assert unchanged(old)


@pytest.fixture
def _files_of_one_mebibyte() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_files_of_one_mebibyte")
def test_the_kernel_refusing_in_the_middle(old: Path) -> None:
    data = bytes(3 << 20)
    with pytest.raises(StorageError, match="File too large"), storage.open(old, "wb") as file:
        file.write(data)
    with pytest.raises(StorageError, match="File too large"):
        storage.save(old, np.frombuffer(data, np.uint8))
    with pytest.raises(StorageError, match="File too large"), open_sink(old) as sink:
        sink.write(memoryview(data))
    assert unchanged(old)


def test_a_flush_that_fails_when_it_is_closed(old: Path) -> None:
    """The buffer's last bytes are written by close: if that fails, what was written before must not be published."""
    file = storage.open(old, "wb")
    file.write(bytes(200_000))
    file.write(b"tail")
    os.close(file.fileno())
    with pytest.raises(StorageError, match="Bad file descriptor"):
        file.close()
    assert file.closed
    assert unchanged(old)


def test_where_direct_writing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(descriptor: int, data: memoryview, offset: int, real: object = os.pwrite) -> int:
        if descriptor == direct[0]:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, data, offset)  # type: ignore[operator]  # it is os.pwrite

    direct: list[int] = []
    opened = direct_io.open_around_cache

    def open_around_cache(descriptor: int) -> int:
        direct.append(opened(descriptor))
        return direct[0]

    monkeypatch.setattr(direct_io, "LARGE", 1 << 20)
    monkeypatch.setattr(direct_io, "open_around_cache", open_around_cache)
    monkeypatch.setattr(os, "pwrite", pwrite)
    data = np.arange(4 << 20, dtype=np.uint8)
    storage.save(tmp_path / "file", data)
    assert direct
    assert np.array_equal(storage.load(tmp_path / "file"), data)


def test_a_file_is_no_directory(old: Path) -> None:
    for use in (
        lambda: storage.open(f"{old}/", "wb"),
        lambda: storage.open(f"{old}/x"),
        lambda: storage.stat(f"{old}/x"),
    ):
        with pytest.raises(NotADirectory):
            use()
    assert unchanged(old)


def test_a_writer_left_behind_leaves_nothing(old: Path) -> None:
    writer = LocalWriter(str(old))
    writer.write(memoryview(b"new"))
    descriptor = writer.fd
    del writer
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert unchanged(old)


def test_a_process_that_ends_without_closing_leaves_nothing(old: Path) -> None:
    program = "import sys, os; from apyfal import storage\n"
    for prepare in ("", "os.path.isdir = lambda _: False\n"):  # with unnamed files, and without
        text = f"{program}{prepare}f = storage.open({str(old)!r}, 'wb'); f.write(b'new' * 100_000)\nsys.exit(3)"
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 3, done.stderr
        assert unchanged(old)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_privileges(tmp_path: Path) -> None:
    """A user who is not root writes, replaces and is refused as with the builtin."""
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o005 != 0o005:  # pytest's own folders, however many
            path.chmod(0o755)
    mine, drop, theirs = tmp_path / "mine", tmp_path / "drop", tmp_path / "theirs"
    for folder, mode in ((mine, 0o777), (drop, 0o733), (theirs, 0o755)):
        folder.mkdir()
        folder.chmod(mode)
    (mine / "locked").write_bytes(b"old")
    (theirs / "file").write_bytes(b"old")
    (theirs / "file").chmod(0o666)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            for folder in (mine, drop):
                for content in (b"one", b"two"):
                    with storage.open(folder / "new", "wb") as file:
                        file.write(content)
                assert (folder / "new").read_bytes() == b"two"
            for path in (mine / "locked", theirs / "file", theirs / "new", "/etc/new"):
                with pytest.raises(AccessDenied):
                    storage.open(path, "wb")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (mine / "locked").read_bytes() == (theirs / "file").read_bytes() == b"old"


@pytest.fixture
def _without_unnamed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a filesystem that has no O_TMPFILE, as FAT and most network filesystems."""
    real = os.open

    def refuse(path: str, flags: int, *arguments: int, **keywords: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)


def _no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _no_renames_to_new(*_: object) -> bool:
    return False


@pytest.mark.usefixtures("_without_unnamed_files")
@pytest.mark.parametrize("lacking", ["links", "renames"])
def test_exclusively_with_one_of_two_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    if lacking == "links":
        monkeypatch.setattr(os, "link", _no_links)
    else:
        monkeypatch.setattr(direct_io, "rename_to_new", _no_renames_to_new)
    path = tmp_path / "file"
    with storage.open(path, "xb") as file:
        file.write(b"old")
        assert len(os.listdir(tmp_path)) == 1
    assert unchanged(path)
    path.unlink()
    late = storage.open(path, "xb")
    late.write(b"mine")
    path.write_bytes(b"old")
    with pytest.raises(ObjectExists):
        late.close()
    assert unchanged(path)


@pytest.mark.usefixtures("_without_unnamed_files")
def test_exclusively_with_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    monkeypatch.setattr(direct_io, "rename_to_new", _no_renames_to_new)
    file = storage.open(tmp_path / "file", "xb")
    file.write(b"data")
    with pytest.raises(UnsupportedByStore, match="neither make hard links nor rename without replacing"):
        file.close()
    assert os.listdir(tmp_path) == []


def test_renaming_to_a_new_name(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileExistsError):
            direct_io.rename_to_new(folder, "one", "two")
        with pytest.raises(FileNotFoundError):
            direct_io.rename_to_new(folder, "three", "four")
        assert direct_io.rename_to_new(folder, "one", "three")
    finally:
        os.close(folder)
    assert sorted(os.listdir(tmp_path)) == ["three", "two"]
