"""The example's conformance, by the two suites that come with apyfal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from example_store import ShelfHandler

from apyfal import storage
from apyfal.storage.handler import Handler
from apyfal.testing.handlers import AWKWARD_KEYS, HandlerConformance
from apyfal.testing.storage import StorageConformance

#: A file name has 255 bytes at most, and these names need more when they are encoded.
KEYS = tuple(key for key in AWKWARD_KEYS if len(key) < 100)


class TestHandler(HandlerConformance):
    awkward_keys = KEYS

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, tmp_path_factory: pytest.TempPathFactory) -> Handler:
        return ShelfHandler(endpoint_url=str(tmp_path_factory.mktemp("shelf")))


class TestStorage(StorageConformance):
    awkward_keys = KEYS

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        # the name of the provider, which only its entry point makes known
        storage.mount("shelf", endpoint_url=str(tmp_path_factory.mktemp("shelf")))
        storage.makedirs("shelf://bucket")
        yield "shelf://bucket"
        storage.unmount("shelf")
