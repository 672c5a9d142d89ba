"""CPython's own test cases for `open` and `io.FileIO`, run over `apyfal.storage.open` on a local path and on S3.

Each case that is left out has a reason beside it.
"""

from __future__ import annotations

import contextlib
import io
import os
import unittest
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, TypeVar

import pytest

from apyfal import storage
from apyfal.exceptions import ObjectNotFound

test_file = pytest.importorskip("test.test_file", reason="this Python came without the standard library's tests")
test_fileio = pytest.importorskip("test.test_fileio", reason="this Python came without the standard library's tests")


_Cases = TypeVar("_Cases")


def open_like_builtin(file: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> IO[Any]:
    """Have the builtin's default mode, which is text."""
    return storage.open(file, mode, *arguments, **keywords)


def open_raw(file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> IO[Any]:
    """Open as `io.FileIO` does; its descriptors and names of bytes are not what a storage URL is."""
    if isinstance(file, (int, bytes)) or not closefd or opener:
        return io.FileIO(file, mode, closefd, opener)  # type: ignore[return-value]  # IO is what typeshed calls it
    if "t" in mode or not isinstance(mode, str):
        raise ValueError(f"invalid mode: {mode!r}")
    return storage.open(file, mode if "b" in mode else mode + "b", 0)


def unlink(url: str) -> None:
    with contextlib.suppress(ObjectNotFound):
        storage.remove(url)


def size_of(url: str) -> int:
    return storage.stat(url).size or 0


class OnLocalFiles:
    """Runs the cases in a directory of their own."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        # A builtin file is there as soon as it is open; ours is when it is closed, and these cases look before.
        Path(test_fileio.TESTFN).touch()


class OnS3:
    """Runs the cases with an object's URL for the file's name."""

    @pytest.fixture(autouse=True)
    def _place(self, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        url = f"{bucket}/{tmp_path.name}"
        path = SimpleNamespace(getsize=size_of, exists=storage.exists)
        stand_in = SimpleNamespace(**{**vars(os), "remove": storage.remove, "unlink": unlink, "path": path})
        for module in (test_file, test_fileio):
            monkeypatch.setattr(module, "TESTFN", url)
            monkeypatch.setattr(module, "os", stand_in)
        monkeypatch.setattr(test_file, "os_helper", SimpleNamespace(unlink=unlink))
        monkeypatch.setattr(test_fileio, "open", storage.open, raising=False)


def left_out(**cases: str) -> Callable[[type[_Cases]], type[_Cases]]:
    """Leave cases out, each for a reason."""

    def without(tests: type[_Cases]) -> type[_Cases]:
        for name in cases:
            setattr(tests, name, None)
        return tests

    return without


_TERMINAL = "about a terminal, which there is none of"
_DESCRIPTOR = "about a descriptor, which an object of a store has none of"
_DERIVED = "derives from FileIO"
_TYPES = "a wrong type is a TypeError there, and a ParameterError, which is a ValueError, here"
_FORWARD = "an object that is being written cannot be sought in or cut (with 'w+' it can)"


# -- test.test_file: the builtin open --------------------------------------------------------------------------------
class TestFileLocal(OnLocalFiles, test_file.AutoFileTests, unittest.TestCase):  # type: ignore[misc]  # no types
    open = staticmethod(open_like_builtin)


@left_out(testStdin=_TERMINAL)
class TestOtherFileLocal(OnLocalFiles, test_file.OtherFileTests, unittest.TestCase):  # type: ignore[misc]  # no types
    open = staticmethod(open_like_builtin)


class TestFileS3(OnS3, test_file.AutoFileTests, unittest.TestCase):  # type: ignore[misc]  # no types
    open = staticmethod(open_like_builtin)


@left_out(testStdin=_TERMINAL)
class TestOtherFileS3(OnS3, test_file.OtherFileTests, unittest.TestCase):  # type: ignore[misc]  # no types
    open = staticmethod(open_like_builtin)


# -- test.test_fileio: the raw file ----------------------------------------------------------------------------------
class Raw:
    FileIO = staticmethod(open_raw)
    modulename = "_io"


@left_out(testRepr="says closefd=True; a file that has no name yet keeps its descriptor to itself")
class TestFileIOLocal(OnLocalFiles, Raw, test_fileio.AutoFileTests, unittest.TestCase):  # type: ignore[misc]  # no types
    pass


@left_out(testUnclosedFDOnException=_DERIVED, testWarnings=_TYPES)
class TestOtherFileIOLocal(OnLocalFiles, Raw, test_fileio.OtherFileTests, unittest.TestCase):  # type: ignore[misc]  # no
    pass


@left_out(
    testRepr="the class has another name",
    testSeekTell=_FORWARD,
    testBlksize=_DESCRIPTOR,
    testReprNoCloseFD=_DESCRIPTOR,
    **{name: _DESCRIPTOR for name in dir(test_fileio.AutoFileTests) if name.startswith("testErrnoOnClose")},
)
class TestFileIOS3(OnS3, Raw, test_fileio.AutoFileTests, unittest.TestCase):  # type: ignore[misc]  # no types
    pass


@left_out(
    testUnclosedFDOnException=_DERIVED,
    testWarnings=_TYPES,
    testAbles=_FORWARD,
    testTruncate=_FORWARD,
    testBytesOpen="a name of bytes is not a URL",
)
class TestOtherFileIOS3(OnS3, Raw, test_fileio.OtherFileTests, unittest.TestCase):  # type: ignore[misc]  # no types
    pass
