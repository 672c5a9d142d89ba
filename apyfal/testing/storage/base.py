"""What every test of the suite builds on: the place it may use, and what a store can say of itself."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import UnsupportedByStore
from apyfal.testing.handlers import AWKWARD_KEYS

__all__ = ["PART", "Note", "OneStore"]

#: Up to this size the engine writes one request.
PART = 16 << 20

#: How a test says what its store does: ``record_property`` of pytest.
Note = Callable[[str, object], None]


class OneStore:
    """One store that is tested: what it can do, and where the tests may write.

    The attributes that a subclass may change are explained in `apyfal.testing.storage.StorageConformance`.
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

    def _write(self, url: str, mode: str, data: bytes) -> None:
        with storage.open(url, mode) as file:
            file.write(data)
