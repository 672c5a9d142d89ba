"""Use from several threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apyfal import storage
from apyfal.testing.handlers import pattern
from apyfal.testing.storage.base import OneStore


class ConcurrentUse(OneStore):
    """Tests of use from several threads."""

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
