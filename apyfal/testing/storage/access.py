"""What may not be read or changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import AccessDenied, StorageError
from apyfal.testing.storage.base import PART, Note, OneStore


class Access(OneStore):
    """Tests of permissions that are not given."""

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
