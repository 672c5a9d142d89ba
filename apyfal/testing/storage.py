"""The conformance suite of `apyfal.storage` as its users see it: every function and mode, on one store.

A provider's tests subclass `StorageConformance` and say where to write::

    class TestMyStore(StorageConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def place(cls, my_server):
            apyfal.storage.mount("mystore-test", provider="mystore", endpoint_url=my_server.url, ...)
            apyfal.storage.makedirs("mystore-test://bucket", exist_ok=True)
            yield "mystore-test://bucket"
            apyfal.storage.unmount("mystore-test")

The first line of each test's docstring is the feature that it proves; a store that has not got it says so in the class
attributes, and is then expected to refuse it. ``tools/storage_support.py`` makes the table in the documentation of
that. `apyfal.testing.handlers` has the suite for the level below.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import AccessDenied, ObjectExists, ObjectNotFound, StorageError, UnsupportedByStore
from apyfal.testing.handlers import AWKWARD_KEYS, pattern

__all__ = ["PART", "StorageConformance"]

#: Up to this size the engine writes one request.
PART = 16 << 20

Note = Callable[[str, object], None]


class StorageConformance:
    """Tests of one store; subclass it and give it a `place` fixture, the URL of a bucket or directory.

    Attributes
    ----------
    writable, lists, exclusive
        What the store can do; what it cannot must raise `UnsupportedByStore`.
    awkward_keys
        Names to be kept as they are, without those that the store's documentation rules out.
    large
        Bytes of the largest object.
    """

    writable = True
    lists = True
    exclusive = True
    awkward_keys: tuple[str, ...] = AWKWARD_KEYS
    large = 200 << 20

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls) -> Iterator[str]:
        """Give the URL to work below; a subclass must override this."""
        raise NotImplementedError("a subclass of StorageConformance must define the fixture 'place'")

    @pytest.fixture
    def folder(self, place: str) -> Iterator[str]:
        """Give a prefix of the test's own, emptied at its end."""
        url = f"{place}/{uuid.uuid4().hex[:12]}"
        if self.writable:
            storage.makedirs(url, exist_ok=True)
        yield url
        if self.writable:
            self.clean(url)

    def clean(self, folder: str) -> None:
        """Remove what a test made."""
        if storage.exists(folder):
            for top, _, files in list(storage.walk(folder)):
                for name in files:
                    storage.remove(f"{top.rstrip('/')}/{name}")

    # -- for subclasses of special stores -----------------------------------------------------------------------------
    def seed(self, url: str, data: bytes) -> None:
        """Put data where tests read them; for a store that cannot be written through apyfal."""
        storage.save(url, np.frombuffer(data, np.uint8))

    def url(self, folder: str, key: str) -> str:
        """Give the URL of a key; for a scheme that wants it encoded."""
        return f"{folder}/{key}"

    def elsewhere(self, place: str) -> str:
        """Give a URL in a bucket or directory that does not exist."""
        return f"{place}-missing/object"

    def unreadable(self, folder: str) -> tuple[str, AbstractContextManager[object]] | None:
        """Give a URL of `folder` through which nothing may be read, and a context in which that is so.

        ``None`` for a kind of store that has no permissions.
        """
        return None

    def unwritable(self, folder: str) -> tuple[str, AbstractContextManager[object]] | None:
        """Give a URL of `folder` through which nothing may be changed, as in `unreadable`."""
        return None

    def refuses(self, note: Note, *actions: Callable[[], object]) -> None:
        """Expect that the store refuses what it cannot do."""
        note("support", "no")
        for action in actions:
            with pytest.raises((UnsupportedByStore, io.UnsupportedOperation)):
                action()

    # -- whole objects ------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("size", [0, 1, 1000, PART - 1, PART, PART + 1])
    def test_load_and_save(self, folder: str, size: int, record_property: Note) -> None:
        """Arrays: `load` and `save`, in one request and in parts"""
        data = np.frombuffer(pattern(size), np.uint8)
        url = self.url(folder, "array")
        self.seed(url, data.tobytes())
        assert np.array_equal(storage.load(url), data)
        out = np.full(size, 0xEE, np.uint8)
        assert storage.load(url, out=out) is out
        assert np.array_equal(out, data)
        if not self.writable:
            self.refuses(record_property, lambda: storage.save(url, data))
            assert np.array_equal(storage.load(url), data)

    def test_large(self, folder: str) -> None:
        """200 MiB: parallel ranges, parallel parts"""
        data = np.random.default_rng(4).integers(0, 256, self.large, np.uint8)
        url = self.url(folder, "large")
        self.seed(url, data.tobytes()) if not self.writable else storage.save(url, data)
        assert storage.stat(url).size == self.large
        found = storage.load(url)
        assert hashlib.sha256(found.data).digest() == hashlib.sha256(data.data).digest()

    def test_typed_arrays(self, folder: str) -> None:
        """Arrays of other types and shapes"""
        array = np.arange(600, dtype="<i4").reshape(20, 30)
        self.seed(self.url(folder, "typed"), array.tobytes())
        assert np.array_equal(storage.load(self.url(folder, "typed"), dtype="<i4", shape=(20, -1)), array)

    # -- open ---------------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("size", [0, 1, 100_000, PART + 1])
    def test_open_to_write(self, folder: str, size: int, record_property: Note) -> None:
        """`open` to write (``w``), of unknown length"""
        url, data = self.url(folder, "written"), pattern(size, 1)
        if not self.writable:
            self.refuses(record_property, lambda: storage.open(url, "wb"))
            return
        with storage.open(url, "wb") as file:
            for begin in range(0, size, 3_000_001):
                file.write(data[begin : begin + 3_000_001])
            assert not storage.exists(url)
        assert storage.stat(url).size == size
        assert storage.load(url).tobytes() == data

    def test_open_to_read(self, folder: str) -> None:
        """`open` to read (``r``): `read`, `readinto`, seeking"""
        data = pattern(300_000, 2)
        url = self.url(folder, "read")
        self.seed(url, data)
        with storage.open(url, "rb") as file:
            assert file.readable()
            assert file.read(10) == data[:10]
            if file.seekable():
                assert file.seek(-100, io.SEEK_END) == len(data) - 100
                assert file.read() == data[-100:]
                assert file.seek(150_000) == 150_000
                buffer = bytearray(70_000)
                assert isinstance(file, io.BufferedIOBase)
                assert file.readinto(buffer) > 0
                file.seek(0)
            else:
                data = data[10:]
            assert file.read() == data
            assert file.read() == b""

    def test_text(self, folder: str) -> None:
        """Text, with encodings and line ends"""
        text = "grün\nzwei\r\ndrei\n" * 500
        self.seed(self.url(folder, "text"), text.encode("utf-16"))
        with storage.open(self.url(folder, "text"), "r", encoding="utf-16", newline="") as file:
            assert file.read() == text

    def test_an_exception_leaves_the_old_object(self, folder: str, record_property: Note) -> None:
        """Nothing is visible of a write that was broken off"""
        if not self.writable:
            record_property("support", "no")
            return
        url = self.url(folder, "object")
        storage.save(url, np.frombuffer(b"old", np.uint8))

        def broken_off() -> None:
            with storage.open(url, "wb") as file:
                file.write(pattern(3 << 20))
                raise KeyError("stop")

        with pytest.raises(KeyError):
            broken_off()
        assert storage.load(url).tobytes() == b"old"
        assert storage.listdir(folder) == ["object"]

    def test_open_exclusively(self, folder: str, record_property: Note) -> None:
        """`open` where there is nothing (``x``)"""
        url = self.url(folder, "exclusive")
        if not (self.writable and self.exclusive):
            self.refuses(record_property, lambda: self._write(url, "xb", b"first"))
            return
        self._write(url, "xb", b"first")
        with pytest.raises(ObjectExists):
            self._write(url, "xb", b"second")
        assert storage.load(url).tobytes() == b"first"

    def test_open_to_change(self, folder: str, record_property: Note) -> None:
        """`open` to append and to change in place (``a``, ``r+``)"""
        small, large = self.url(folder, "small"), self.url(folder, "large")
        content = pattern(6 << 20)
        self.seed(small, b"0123456789")
        if not self.writable:
            self.refuses(record_property, lambda: storage.open(small, "ab"), lambda: storage.open(small, "r+b"))
            return
        self.seed(large, content)
        self._write(large, "ab", b"the end")
        assert storage.load(large).tobytes() == content + b"the end"
        self._write(small, "ab", b"abc")
        with storage.open(small, "r+b") as file:
            file.seek(2)
            file.write(b"--")
            file.seek(0)
            assert file.read() == b"01--456789abc"
        assert storage.load(small).tobytes() == b"01--456789abc"

    def _write(self, url: str, mode: str, data: bytes) -> None:
        with storage.open(url, mode) as file:
            file.write(data)

    # -- names --------------------------------------------------------------------------------------------------------
    def test_awkward_names(self, folder: str) -> None:
        """Unicode and awkward names"""
        for number, key in enumerate(self.awkward_keys):
            self.seed(self.url(folder, key), pattern(9, number))
        for number, key in enumerate(self.awkward_keys):
            assert storage.load(self.url(folder, key)).tobytes() == pattern(9, number), key
            assert storage.exists(self.url(folder, key))
        if self.lists:
            tops = {key.split("/", 1)[0] for key in self.awkward_keys}
            assert set(storage.listdir(folder)) == tops

    def test_exists_and_stat(self, folder: str) -> None:
        """`exists` and `stat`"""
        url = self.url(folder, "there")
        self.seed(url, b"abc")
        assert storage.exists(url)
        assert not storage.exists(self.url(folder, "missing"))
        info = storage.stat(url)
        assert (info.size, info.is_directory) == (3, False)
        assert info.mtime is not None
        assert abs(info.mtime - time.time()) < 120

    def test_listing(self, folder: str, record_property: Note) -> None:
        """`listdir`, `glob` and `walk`"""
        if not self.lists:
            self.refuses(record_property, lambda: storage.listdir(folder))
            return
        for name in ("a.bin", "b.txt", "sub/c.bin", "sub/deep/d.bin"):
            self.seed(self.url(folder, name), b"x")
        assert storage.listdir(folder) == ["a.bin", "b.txt", "sub"]
        assert sorted(storage.glob(f"{folder}/*.bin")) == [f"{folder}/a.bin"]
        assert sorted(storage.glob(f"{folder}/**/*.bin")) == [
            f"{folder}/a.bin",
            f"{folder}/sub/c.bin",
            f"{folder}/sub/deep/d.bin",
        ]
        walked = {Path(top).name: (sorted(folders), sorted(files)) for top, folders, files in storage.walk(folder)}
        assert walked["sub"] == (["deep"], ["c.bin"])
        assert walked["deep"] == ([], ["d.bin"])
        assert storage.stat(f"{folder}/sub").is_directory

    def test_remove(self, folder: str, record_property: Note) -> None:
        """`remove`"""
        url = self.url(folder, "removed")
        self.seed(url, b"x")
        if not self.writable:
            self.refuses(record_property, lambda: storage.remove(url))
            return
        storage.remove(url)
        assert not storage.exists(url)
        with pytest.raises(ObjectNotFound):
            storage.remove(url)

    def test_many(self, folder: str, record_property: Note) -> None:
        """`load_many`, `save_many`, `stat_many` and `remove_many`"""
        urls = [self.url(folder, f"many{number}") for number in range(12)]
        data = [np.frombuffer(pattern(100 * number, number), np.uint8) for number in range(12)]
        if not self.writable:
            for url, one in zip(urls, data, strict=True):
                self.seed(url, one.tobytes())
            self.refuses(record_property, lambda: storage.save_many(urls, data), lambda: storage.remove_many(urls))
        else:
            assert storage.save_many(urls, data) == [None] * 12
        out = [np.full(len(one), 0xEE, np.uint8) for one in data]
        storage.load_many(urls, out)
        assert all(np.array_equal(*pair) for pair in zip(out, data, strict=True))
        assert [info.size for info in storage.stat_many(urls)] == [len(one) for one in data]
        missing = self.url(folder, "missing")
        errors = storage.load_many([urls[1], missing, urls[2]], return_exceptions=True)
        assert [isinstance(one, ObjectNotFound) for one in errors] == [False, True, False]
        if self.writable:
            found = storage.remove_many([*urls, missing], return_exceptions=True)
            assert found[:12] == [None] * 12
            assert isinstance(found[12], ObjectNotFound)
            assert not any(storage.exists(url) for url in urls)

    def test_makedirs(self, place: str, record_property: Note) -> None:
        """`makedirs`"""
        if not self.writable:
            record_property("support", "no")
            return
        storage.makedirs(place, exist_ok=True)
        with pytest.raises(ObjectExists):
            storage.makedirs(place)

    def test_rmdir(self, folder: str, record_property: Note) -> None:
        """`rmdir`, of an empty directory alone"""
        url = self.url(folder, "directory")
        if not self.writable:
            self.refuses(record_property, lambda: storage.rmdir(url))
            return
        storage.makedirs(url)
        if not storage.exists(url):  # if directories are only names, an object can mark one
            self.seed(f"{url}/", b"")
        assert storage.listdir(url) == []
        self.seed(f"{url}/inside", b"x")
        with pytest.raises(StorageError, match="not empty"):
            storage.rmdir(url)
        storage.remove(f"{url}/inside")
        storage.rmdir(url)
        assert not storage.exists(url)
        with pytest.raises(ObjectNotFound):
            storage.rmdir(url)

    def test_missing(self, place: str, folder: str) -> None:
        """Missing objects and buckets are told as such"""
        for url in (self.url(folder, "missing"), self.elsewhere(place)):
            for action in (storage.load, storage.stat, storage.open):
                with pytest.raises(FileNotFoundError):
                    action(url)
            with pytest.raises(ObjectNotFound, match="missing"):
                storage.copy(url, io.BytesIO())
            assert not storage.exists(url)
        if self.writable:
            with pytest.raises(ObjectNotFound, match="missing"):
                storage.remove(self.elsewhere(place))
            with pytest.raises(ObjectNotFound, match="missing"):
                self._write(self.elsewhere(place), "wb", b"something")
        if self.lists:
            with pytest.raises(ObjectNotFound, match="missing"):
                storage.listdir(self.elsewhere(place).rpartition("/")[0])

    # -- copies -------------------------------------------------------------------------------------------------------
    def test_copy_inside(self, folder: str, record_property: Note) -> None:
        """`copy` inside the store"""
        data = pattern(PART + 5, 3)
        source, copy = self.url(folder, "source"), self.url(folder, "copy ü")
        self.seed(source, data)
        if not self.writable:
            self.refuses(record_property, lambda: storage.copy(source, copy))
            return
        storage.copy(source, copy)
        assert storage.load(copy).tobytes() == data

    def test_copy_from_and_to_a_file(self, folder: str, tmp_path: Path, record_property: Note) -> None:
        """`copy` from and to local files, with progress"""
        data = pattern(PART + 5, 4)
        url = self.url(folder, "copied")
        moved: list[int] = []
        if self.writable:
            (tmp_path / "from").write_bytes(data)
            storage.copy(tmp_path / "from", url, progress=lambda done, total: moved.append(done))
            assert moved[-1] == len(data)
        else:
            self.seed(url, data)
        storage.copy(url, tmp_path / "to")
        assert (tmp_path / "to").read_bytes() == data

    def test_a_failed_copy_leaves_the_destination(self, folder: str, tmp_path: Path, record_property: Note) -> None:
        """A failed `copy` leaves its destination as it was"""
        if not self.writable:
            record_property("support", "no")
            return
        url = self.url(folder, "kept")
        storage.save(url, np.frombuffer(b"kept", np.uint8))
        with pytest.raises(ObjectNotFound):
            storage.copy(self.url(folder, "missing"), url)
        assert storage.load(url).tobytes() == b"kept"

    # -- access -------------------------------------------------------------------------------------------------------
    def test_no_permission_to_read(self, folder: str, record_property: Note) -> None:
        """What may not be read is told as such"""
        self.seed(self.url(folder, "secret"), b"secret")
        place = self.unreadable(folder)
        if place is None:
            record_property("support", "none")
            return
        url, context = place
        with context:
            self._is_denied(storage.load, self.url(url, "secret"))
            self._is_denied(self._read, self.url(url, "secret"))

    def test_no_permission_to_write(self, folder: str, record_property: Note) -> None:
        """What may not be changed is told as such, and stays"""
        place = self.unwritable(folder) if self.writable else None
        if place is None:
            record_property("support", "none" if self.writable else "no")
            return
        self.seed(self.url(folder, "kept"), b"kept")
        url, context = place
        with context:
            for name in ("kept", "new"):
                self._is_denied(self._write, self.url(url, name), "wb", b"x")
                self._is_denied(storage.save, self.url(url, name), np.zeros(PART + 1, np.uint8))
            self._is_denied(storage.remove, self.url(url, "kept"))
        assert storage.load(self.url(folder, "kept")).tobytes() == b"kept"
        assert storage.listdir(folder) == ["kept"]

    def _is_denied(self, action: Callable[..., object], *arguments: object) -> None:
        with pytest.raises(AccessDenied) as caught:
            action(*arguments)
        assert isinstance(caught.value, PermissionError)
        assert isinstance(caught.value, StorageError)
        assert "\n" not in str(caught.value)

    def _read(self, url: str) -> None:
        with storage.open(url) as file:
            file.read()

    # -- many at once -------------------------------------------------------------------------------------------------
    def test_concurrent_use(self, folder: str) -> None:
        """Use from many threads"""
        begin = threading.Barrier(8)

        def work(number: int) -> bool:
            url, data = self.url(folder, f"object-{number}"), pattern(50_000 + number, number)
            if number < 8:
                begin.wait(30)
            self.seed(url, data)
            with storage.open(url, "rb") as file:
                good = bool(file.read() == data)
            return good and storage.stat(url).size == len(data)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(32)))

    def test_one_object_from_many_threads(self, folder: str) -> None:
        """One object, read by many threads"""
        data = pattern(2 << 20, 5)
        url = self.url(folder, "shared")
        self.seed(url, data)

        def read(_: int) -> Any:
            return storage.load(url).tobytes() == data

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(16)))
