"""zarr's own tests of stores, over zarr's fsspec store on our filesystem: a local directory, memory and S3.

zarr's tests skip the synchronous interface for stores that have none, as its fsspec store.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from apyfal import storage

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")
from zarr.core.buffer import Buffer, cpu  # noqa: E402  # after it is known to be there
from zarr.storage import FsspecStore  # noqa: E402
from zarr.testing.store import StoreTests  # noqa: E402

from apyfal.storage.api.fsspec_adapter import ApyfalFileSystem  # noqa: E402

fsspec_wrapper = pytest.importorskip("fsspec.implementations.asyn_wrapper", reason="fsspec is older than 2024.12")


def in_a_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a test that is a coroutine function, without a plugin."""

    @functools.wraps(test)
    def run(*arguments: Any, **keywords: Any) -> None:
        asyncio.run(test(*arguments, **keywords))

    return run


class TestStore(StoreTests[FsspecStore, cpu.Buffer]):
    """The synchronous fixtures here stand for zarr's asynchronous ones."""

    store_cls = FsspecStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, place: str) -> dict[str, Any]:
        storage.makedirs(place, exist_ok=True) if "://" not in place else None
        return {"fs": fsspec_wrapper.AsyncFileSystemWrapper(ApyfalFileSystem(), asynchronous=True), "path": place}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> FsspecStore:
        return asyncio.run(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> FsspecStore:
        return self.store_cls(**store_kwargs)

    async def set(self, store: FsspecStore, key: str, value: Buffer) -> None:
        url = f"{store.path}/{key}"
        if "://" not in url:
            storage.makedirs(url.rpartition("/")[0], exist_ok=True)
        with storage.open(url, "wb") as file:
            file.write(value.to_bytes())

    async def get(self, store: FsspecStore, key: str) -> Buffer:
        with storage.open(f"{store.path}/{key}") as file:
            return self.buffer_cls.from_bytes(file.read())

    def test_store_repr(self, store: FsspecStore) -> None:
        assert store.path in repr(store)

    def test_store_supports_writes(self, store: FsspecStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: FsspecStore) -> None:
        assert store.supports_listing


for _name, _test in inspect.getmembers(StoreTests, inspect.iscoroutinefunction):
    if _name.startswith("test_"):
        setattr(TestStore, _name, in_a_loop(_test))


def test_array(place: str) -> None:
    values = np.arange(10_000, dtype=np.int32).reshape(100, 100)
    array = zarr.create_array(f"apyfal://{place}/array.zarr", data=values, chunks=(30, 70))
    array[5, :] = -1
    values[5, :] = -1
    assert np.array_equal(zarr.open_array(f"apyfal://{place}/array.zarr", mode="r")[...], values)
