"""An object that is sent as it is written cannot be sought in: a writer that was asked to publishes nothing.

Libraries swallow the error of a seek inside a callback, write on, and would leave a damaged object.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import wave
import zipfile
from collections.abc import Callable
from typing import IO, Any

import fsspec
import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import ObjectNotFound, UnsupportedByStore
from apyfal.storage.fileobj.sized import SizedReader

URL = "forward://b/x"


@pytest.fixture(autouse=True)
def _mounted() -> Any:
    storage.mount("forward", provider="fsspec", protocol="memory", config={})
    storage.makedirs("forward://b", exist_ok=True)
    yield
    with contextlib.suppress(ObjectNotFound):
        storage.remove(URL)
    storage.unmount("forward")


def _read(file: IO[Any]) -> None:
    file.read(1)


BREAKING: dict[str, Callable[[IO[Any]], object]] = {
    "to the beginning": lambda file: file.seek(0),
    "forwards": lambda file: file.seek(999),
    "back from here": lambda file: file.seek(-1, 1),
    "back from the end": lambda file: file.seek(-1, 2),
    "cut to nothing": lambda file: file.truncate(0),
    "lengthen": lambda file: file.truncate(999),
}
HARMLESS: dict[str, Callable[[IO[Any]], object]] = {
    "to here": lambda file: file.seek(file.tell()),
    "by nothing": lambda file: file.seek(0, 1),
    "to the end": lambda file: file.seek(0, 2),
    "read": _read,
    "readinto": lambda file: file.readinto(bytearray(1)),
}
BUFFERING = {"buffered": -1, "unbuffered": 0, "small": 3}


@pytest.mark.parametrize("buffering", BUFFERING)
@pytest.mark.parametrize("asked", [*BREAKING, *HARMLESS])
@pytest.mark.parametrize("mode", ["wb", "xb"])
def test_a_refused_seek(asked: str, buffering: str, mode: str) -> None:
    file = storage.open(URL, mode, BUFFERING[buffering])
    file.write(b"12345678")
    breaks = asked in BREAKING
    with pytest.raises(io.UnsupportedOperation, match=rf"{mode[0]}\+b"):
        (BREAKING | HARMLESS)[asked](file)
    file.write(b"9")
    if breaks:
        with pytest.raises(UnsupportedByStore, match=rf"'{mode[0]}\+b'"):
            file.close()
        assert not storage.exists(URL)
    else:
        file.close()
        assert storage.load(URL).tobytes() == b"123456789"
    assert file.closed


@pytest.mark.parametrize("asked", BREAKING)
def test_text(asked: str) -> None:
    file = storage.open(URL, "w")
    file.write("12345678")
    with pytest.raises(io.UnsupportedOperation):
        BREAKING[asked](file)
    if asked.startswith("back"):  # text cannot go by characters, and says so before anything else
        file.seek = None  # type: ignore[assignment,method-assign]
    with pytest.raises(UnsupportedByStore, match=r"w\+b"):
        file.close()
    assert not storage.exists(URL)


def test_the_first_error_is_the_one_that_is_raised() -> None:
    def write() -> None:
        with storage.open(URL, "wb") as file:
            file.write(b"1")
            file.seek(0)

    with pytest.raises(io.UnsupportedOperation, match="seek"):
        write()
    assert not storage.exists(URL)


@pytest.mark.parametrize("asked", BREAKING)
def test_w_plus_can(asked: str) -> None:
    with storage.open(URL, "w+b") as file:
        file.write(b"12345678")
        BREAKING[asked](file)
        file.write(b"9")
    assert b"9" in storage.load(URL).tobytes()


def _zip(file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a", b"1" * 1000)


def _tar(file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w") as made:
        info = tarfile.TarInfo("a")
        info.size = 3
        made.addfile(info, io.BytesIO(b"123"))


@pytest.mark.parametrize("write", [_zip, _tar, lambda file: np.save(file, np.arange(9))], ids=["zip", "tar", "npy"])
def test_libraries_that_look_whether_they_can_seek(write: Callable[[IO[bytes]], None]) -> None:
    with storage.open(URL, "wb") as file:
        write(file)
    assert storage.stat(URL).size
    if write is _zip:
        with storage.open(URL) as file, zipfile.ZipFile(file) as found:
            assert found.read("a") == b"1" * 1000


def test_a_library_that_goes_back() -> None:
    def write() -> None:
        file = storage.open(URL, "wb")
        with contextlib.suppress(io.UnsupportedOperation), wave.open(file, "wb") as made:  # as a C callback would
            made.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
            made.writeframesraw(bytes(200))
            made.writeframesraw(bytes(300))  # the header has to be written again
        file.close()

    with pytest.raises(UnsupportedByStore, match=r"w\+b"):
        write()
    assert not storage.exists(URL)


def test_fsspec_reads_blocks(tmp_path: Any) -> None:
    files = storage.filesystem()
    for path in (str(tmp_path / "x"), URL):
        files.pipe_file(path, b"0123456789\nab\n")
        with files.open(path) as file:
            assert isinstance(file, SizedReader)
            assert file.size == 14
        assert files.read_block(path, 2, 3) == b"234"
        assert files.read_block(path, 2, 3, delimiter=b"\n") == b"ab\n" or files.read_block(path, 0, 3, b"\n")
        assert files.read_block(path, 12, 99) == b"b\n"
        assert files.read_block(path, 0, None) == b"0123456789\nab\n"


@pytest.mark.parametrize("cache", ["blockcache", "filecache", "simplecache"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # fsspec leaves its cache's file open
def test_fsspec_caches(tmp_path: Any, cache: str) -> None:
    path = str(tmp_path / "x")
    storage.filesystem().pipe_file(path, b"0123456789" * 1000)
    options = {cache: {"cache_storage": str(tmp_path / "cache")}}
    with fsspec.open(f"{cache}::apyfal://{path}", **options) as file:
        assert file.read(3) == b"012"
        file.seek(9995)
        assert file.read() == b"56789"
