"""File objects of `open`, in every mode."""

from __future__ import annotations

import io

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import ObjectExists
from apyfal.testing.handlers import pattern
from apyfal.testing.storage.base import PART, Note, OneStore


class OpenedObjects(OneStore):
    """Tests of `open`."""

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
