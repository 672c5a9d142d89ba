"""Copies between every ordered pair of stores: the right bytes, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from servers.web.nginx import Nginx

from apyfal import storage

pytestmark = [pytest.mark.server, pytest.mark.slow]

STORES = ("file", "s3-moto", "s3-ceph", "swift-v1", "az-azurite", "gs-fake", "oss-moto", "fsspec-memory", "fsspec-sftp")
SIZE = (20 << 20) + 17
#: What a copy may hold at once (the documented 64 MiB), and what the process's other memory may grow by meanwhile.
MEMORY = (64 << 20) + (32 << 20)


class Peak:
    """Watch how much resident memory the block adds at most."""

    def __enter__(self) -> Peak:
        self._begin = self._resident()
        self.grown = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.grown = max(self.grown, self._resident() - self._begin)

    @staticmethod
    def _resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture(scope="module")
def seeded(stores: dict[str, str]) -> Iterator[tuple[dict[str, str], bytes]]:
    """Put the same object into every store."""
    data = np.random.default_rng(7).integers(0, 256, SIZE, np.uint8)
    for url in stores.values():
        storage.save(f"{url}/source", data)
    yield stores, hashlib.sha256(data.data).digest()
    for url in stores.values():
        storage.remove(f"{url}/source")


@pytest.mark.parametrize(("source", "destination"), list(product(STORES, STORES)))
def test_copy(seeded: tuple[dict[str, str], bytes], source: str, destination: str) -> None:
    stores, digest = seeded
    copy = f"{stores[destination]}/from-{source}"
    # The one store that keeps its objects in this very process grows by them.
    allowance = MEMORY + (2 * SIZE if "fsspec-memory" in (source, destination) else 0)
    with Peak() as peak:
        storage.copy(f"{stores[source]}/source", copy)
    assert storage.stat(copy).size == SIZE
    assert hashlib.sha256(storage.load(copy).data).digest() == digest
    storage.remove(copy)
    assert peak.grown < allowance


@pytest.mark.parametrize("destination", STORES)
def test_copy_from_the_web(stores: dict[str, str], nginx_server: Nginx, destination: str) -> None:
    data = np.random.default_rng(8).integers(0, 256, SIZE, np.uint8)
    (nginx_server.root / "web-source").write_bytes(data.tobytes())
    copy = f"{stores[destination]}/from-web"
    for way in ("", "noranges/", "moved/"):
        storage.copy(f"{nginx_server.endpoint_url}/{way}web-source", copy)
        assert hashlib.sha256(storage.load(copy).data).digest() == hashlib.sha256(data.data).digest()
    storage.remove(copy)


@pytest.mark.parametrize("destination", STORES)
def test_a_source_that_is_missing_leaves_the_destination(stores: dict[str, str], destination: str) -> None:
    kept = f"{stores[destination]}/kept"
    storage.save(kept, np.arange(10, dtype=np.uint8))
    for source in STORES:
        with pytest.raises(FileNotFoundError):
            storage.copy(f"{stores[source]}/missing-{time.time_ns()}", kept)
    assert np.array_equal(storage.load(kept), np.arange(10))
    storage.remove(kept)
