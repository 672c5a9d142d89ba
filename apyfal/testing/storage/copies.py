"""Copies inside a store, and from and to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import ObjectNotFound
from apyfal.testing.handlers import pattern
from apyfal.testing.storage.base import PART, Note, OneStore


class CopiedObjects(OneStore):
    """Tests of `copy`."""

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
