"""Whole objects: arrays that are loaded and saved."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from apyfal import storage
from apyfal.testing.handlers import pattern
from apyfal.testing.storage.base import PART, Note, OneStore


class WholeObjects(OneStore):
    """Tests of `load` and `save`."""

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
