"""`apyfal.storage.open` over local files and over a store."""

from __future__ import annotations

import gc
import io
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal.exceptions import (
    InvalidURL,
    IsADirectory,
    ObjectExists,
    ObjectNotFound,
    ParameterError,
    StorageError,
)
from apyfal.storage.api import opening
from apyfal.storage.mounting.table import MountTable

DATA = os.urandom(3 << 20)


@pytest.fixture(params=["local", "store"])
def url(request: pytest.FixtureRequest, tmp_path: Path, store: MemoryHandler) -> str:
    return str(tmp_path / "file") if request.param == "local" else "mem://bucket/file"


@pytest.fixture
def nothing_left(tmp_path: Path, store: MemoryHandler) -> Callable[[], None]:
    def check() -> None:
        assert set(os.listdir(tmp_path)) <= {"file", "home"}
        assert not store.uploads

    return check


def read(url: str) -> bytes:
    with opening.open(url) as file:
        data = file.read()
    assert isinstance(data, bytes)
    return data


def write(url: str, data: bytes, mode: str = "wb") -> None:
    with opening.open(url, mode) as file:
        file.write(data)


def test_round_trip(url: str) -> None:
    write(url, DATA)
    assert read(url) == DATA
    write(url, b"")
    assert read(url) == b""


def test_kinds(url: str) -> None:
    write(url, b"x")
    for mode, buffering, kind in (
        ("rb", -1, io.BufferedReader),
        ("wb", -1, io.BufferedWriter),
        ("w+b", -1, io.BufferedRandom),
        ("r", -1, io.TextIOWrapper),
        ("wt", -1, io.TextIOWrapper),
        ("rb", 0, io.RawIOBase),
        ("wb", 0, io.RawIOBase),
    ):
        with opening.open(url, mode, buffering) as file:
            assert isinstance(file, kind)
            assert file.name == url


def test_seeking(url: str) -> None:
    write(url, DATA)
    with opening.open(url) as file:
        assert file.seek(1000) == 1000
        assert file.read(10) == DATA[1000:1010]
        assert file.seek(-5, io.SEEK_END) == len(DATA) - 5
        assert file.read() == DATA[-5:]
        assert file.read() == b""
        file.seek(10 * len(DATA))
        assert file.read(1) == b""
        file.seek(0)
        file.seek(7, io.SEEK_CUR)
        assert file.read(1) == DATA[7:8]
        with pytest.raises(OSError, match=r"(?i)invalid argument|negative"):
            file.seek(-1)


def test_readinto_fills_the_callers_memory(url: str) -> None:
    write(url, DATA)
    out = bytearray(len(DATA))
    with opening.open(url) as file:
        assert file.readinto(out) == len(DATA)
    assert out == DATA
    with opening.open(url, buffering=0) as file:
        view = memoryview(bytearray(64)).cast("I")
        assert file.readinto(view) == 64
        assert view.tobytes() == DATA[:64]


def test_text(url: str) -> None:
    with opening.open(url, "w", encoding="utf-16", newline="\r\n") as file:
        file.write("eins\nzwei\näöü\n")
    assert read(url).decode("utf-16") == "eins\r\nzwei\r\näöü\r\n"
    with opening.open(url, "r", encoding="utf-16") as file:
        assert file.mode == "r"
        assert list(file) == ["eins\n", "zwei\n", "äöü\n"]
    with opening.open(url, "rt", encoding="utf-16", newline="") as file:
        assert file.readline() == "eins\r\n"
    with opening.open(url, "r", encoding="ascii") as file, pytest.raises(UnicodeDecodeError):
        file.read()


def test_an_exception_in_the_block_drops_everything(url: str, nothing_left: Callable[[], None]) -> None:
    write(url, b"old")

    def fail(mode: str, data: object, buffering: int = -1) -> None:
        with opening.open(url, mode, buffering, encoding=None if "b" in mode else "utf-8") as file:
            file.write(data)
            raise ZeroDivisionError

    for mode in ("w", "wb", "w+", "w+b"):
        for size in (10, 2 << 20):
            with pytest.raises(ZeroDivisionError):
                fail(mode, b"x" * size if "b" in mode else "x" * size)
            assert read(url) == b"old"
    with pytest.raises(ZeroDivisionError):
        fail("wb", b"x", 0)
    assert read(url) == b"old"
    nothing_left()


def test_abort(url: str, nothing_left: Callable[[], None]) -> None:
    file = opening.open(url, "wb")
    file.write(DATA)
    file.abort()
    file.write(b"more")
    file.close()
    file.close()
    with pytest.raises(ObjectNotFound):
        opening.open(url)
    nothing_left()


@pytest.mark.parametrize("mode", ["wb", "w+b", "w", "raw"])
def test_a_dropped_file_is_aborted(url: str, mode: str, nothing_left: Callable[[], None]) -> None:
    write(url, b"old")

    def write_and_forget() -> None:
        file = opening.open(url, "wb", 0) if mode == "raw" else opening.open(url, mode)
        file.write("x" if mode == "w" else b"x")
        del file
        gc.collect()

    with pytest.warns(ResourceWarning, match="what was written is dropped"):
        write_and_forget()
    assert read(url) == b"old"
    nothing_left()


def test_nothing_is_visible_before_close(url: str) -> None:
    with opening.open(url, "wb") as file:
        file.write(DATA)
        file.flush()
        with pytest.raises(ObjectNotFound):
            opening.open(url)
    assert read(url) == DATA


def test_exclusive(url: str) -> None:
    write(url, b"first", "xb")
    with pytest.raises(ObjectExists):
        opening.open(url, "xb")
    assert read(url) == b"first"


def test_exclusive_is_decided_when_it_is_published(tmp_path: Path, store: MemoryHandler) -> None:
    for url in (str(tmp_path / "new"), "mem://b/new"):
        file = opening.open(url, "xb")
        file.write(b"mine")
        write(url, b"theirs")
        with pytest.raises(ObjectExists):
            file.close()
        assert read(url) == b"theirs"
    assert not store.uploads


def test_reading_back_what_is_being_written(url: str) -> None:
    with opening.open(url, "w+b") as file:
        file.write(DATA)
        file.seek(100)
        assert file.read(10) == DATA[100:110]
        file.seek(1)
        file.write(b"changed")
        file.truncate(1000)
    assert read(url) == DATA[:1] + b"changed" + DATA[8:1000]
    with opening.open(url, "w+", encoding="utf-8") as file:
        file.write("abc")
        file.seek(0)
        assert file.read() == "abc"
    assert read(url) == b"abc"


def test_appending_and_changing_local_files(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    write(path, b"one", "ab")
    write(path, b"two", "ab")
    with opening.open(path, "r+b") as file:
        file.write(b"O")
    assert read(path) == b"Onetwo"
    with pytest.raises(ObjectNotFound):
        opening.open(tmp_path / "missing", "r+b")


@pytest.mark.parametrize("mode", ["", "b", "rw", "rr", "U", "rbt", "r++", "q", "w x"])
def test_bad_modes(url: str, mode: str) -> None:
    with pytest.raises(ParameterError, match="invalid mode"):
        opening.open(url, mode)


def test_arguments_that_do_not_go_together(url: str) -> None:
    for arguments in ({"encoding": "utf-8"}, {"errors": "strict"}, {"newline": ""}):
        with pytest.raises(ParameterError, match="binary mode takes no"):
            opening.open(url, "rb", **arguments)
    with pytest.raises(ParameterError, match="unbuffered"):
        opening.open(url, "r", 0)
    with pytest.raises(ParameterError, match="buffering size"):
        opening.open(url, "r", -2)
    with pytest.raises(TypeError):
        opening.open(url, 3)  # type: ignore[arg-type]  # the point
    with pytest.raises(InvalidURL):
        opening.open("")
    with pytest.raises(ParameterError):
        opening.open(3)


def test_a_bad_encoding_leaves_nothing(url: str, nothing_left: Callable[[], None]) -> None:
    with pytest.raises(LookupError):
        opening.open(url, "w", encoding="no-such-encoding")
    with pytest.raises(ObjectNotFound):
        opening.open(url)
    nothing_left()


def test_file_objects_cannot_be_pickled(url: str) -> None:
    write(url, b"x")
    for mode in ("rb", "wb", "r", "w", "w+b"):
        with opening.open(url, mode) as file, pytest.raises(TypeError, match="pickle"):
            pickle.dumps(file)


def test_the_mount_is_in_use_until_the_file_is_closed(store: MemoryHandler, mounts: MountTable) -> None:
    write("mem://b/k", DATA)
    for mode in ("rb", "wb", "w+b"):
        with opening.open("mem://b/k", mode), pytest.raises(Exception, match="1 of its files"):
            mounts.unmount("mem", timeout=0)
    mounts.unmount("mem", timeout=0)


def test_zip_files(url: str) -> None:
    with opening.open(url, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/b.txt", DATA)
    with opening.open(url) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("a/b.txt") == DATA
        assert archive.testzip() is None


def test_failing_writes_publish_nothing(store: MemoryHandler) -> None:
    write("mem://b/k", b"old")
    store.fail["write_part"] = 1000
    store.fail["put"] = 1000
    file = opening.open("mem://b/k", "wb")
    with pytest.raises(StorageError):  # noqa: PT012  # wherever the engine finds out
        for _ in range(20):
            file.write(DATA)
        file.close()
    file.close()
    store.fail.clear()
    assert read("mem://b/k") == b"old"
    assert not store.uploads


# -- local files ------------------------------------------------------------------------------------------------------
def test_permission_bits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    old = os.umask(0o027)
    try:
        write(str(path), b"x")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o4755)
        write(str(path), b"y")
        assert stat.S_IMODE(path.stat().st_mode) == 0o4755
    finally:
        os.umask(old)


def test_links_are_written_through(tmp_path: Path) -> None:
    target, link, dangling = tmp_path / "d" / "target", tmp_path / "link", tmp_path / "dangling"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link.symlink_to("d/target")
    dangling.symlink_to("d/new")
    write(str(link), b"new")
    write(str(dangling), b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert dangling.is_symlink()
    assert (tmp_path / "d" / "new").read_bytes() == b"new"
    with pytest.raises(ObjectExists):
        opening.open(link, "xb")
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(StorageError, match="Too many levels"):
        opening.open(loop, "wb")


def test_special_files_are_written_directly(tmp_path: Path) -> None:
    write("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(StorageError, match="No space left"):
        write("/dev/full", b"x")
    out = tmp_path / "out"
    with out.open("wb") as file:
        write(f"/dev/fd/{file.fileno()}", b"through the descriptor")
        file.write(b", and on")
    assert out.read_bytes() == b"through the descriptor, and on"


def test_directories_and_missing_parents(tmp_path: Path) -> None:
    for mode in ("rb", "wb", "xb", "ab", "r+b"):
        with pytest.raises((IsADirectory, ObjectExists)):
            opening.open(tmp_path, mode)
        with pytest.raises(StorageError):
            opening.open(tmp_path / "no" / "file", mode)
    with pytest.raises(IsADirectory):
        opening.open(f"{tmp_path}/new/", "wb")


def test_a_pipe_without_reader_or_writer_is_no_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for mode in ("rb", "wb", "ab"):
        with pytest.raises(StorageError):
            opening.open(tmp_path / "fifo", mode)


def test_a_read_only_file_is_not_replaced(open_path: Path) -> None:
    folder = open_path / "mine"
    folder.mkdir()
    path = folder / "file"
    path.write_bytes(b"old")
    path.chmod(0o444)
    is_root = os.geteuid() == 0  # who may write everything; the owner may not
    if is_root:
        os.chown(folder, 65534, 65534)
        os.chown(path, 65534, 65534)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if is_root:
                os.setgid(65534)
                os.setuid(65534)
            with opening.open(folder / "other", "wb") as file:
                file.write(b"new")
            with pytest.raises(PermissionError):
                opening.open(path, "wb")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.read_bytes() == b"old"


def test_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)  # no /proc
    path = tmp_path / "file"
    with opening.open(path, "wb") as file:
        file.write(b"one")
        assert len(os.listdir(tmp_path)) == 1
        assert not path.exists()
    assert os.listdir(tmp_path) == ["file"]
    write(str(path), b"two")
    with pytest.raises(ObjectExists):
        opening.open(path, "xb")
    write(str(tmp_path / "n"), b"three", "xb")
    assert sorted(os.listdir(tmp_path)) == ["file", "n"]
    assert (path.read_bytes(), (tmp_path / "n").read_bytes()) == (b"two", b"three")
    file = opening.open(path, "wb")
    file.abort()
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["file", "n"]
