"""Names: what is there, what lists it, what makes and removes it."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import ObjectExists, ObjectNotFound, StorageError
from apyfal.testing.handlers import pattern
from apyfal.testing.storage.base import Note, OneStore


class NamedObjects(OneStore):
    """Tests of names, listings, directories and removing."""

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
