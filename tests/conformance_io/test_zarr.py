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
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype  # noqa: E402  # after it is known to be there
from zarr.storage import FsspecStore  # noqa: E402
from zarr.testing.store import StoreTests  # noqa: E402

from apyfal.exceptions import ParameterError  # noqa: E402
from apyfal.storage.aio.zarr_store import ZarrStore  # noqa: E402
from apyfal.storage.fs.filesystem import ApyfalFileSystem  # noqa: E402


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
        return {"fs": ApyfalFileSystem(asynchronous=True), "path": place}

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


class TestOurStore(StoreTests[ZarrStore, cpu.Buffer]):
    """The same of `apyfal.storage.zarr_store`, without fsspec."""

    store_cls = ZarrStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, place: str) -> dict[str, Any]:
        return {"url": place}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> ZarrStore:
        return asyncio.run(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> ZarrStore:
        return self.store_cls(**store_kwargs)

    async def set(self, store: ZarrStore, key: str, value: Buffer) -> None:
        url = f"{store.url}/{key}"
        if "://" not in url:
            storage.makedirs(url.rpartition("/")[0], exist_ok=True)
        storage.write_bytes(url, value.to_bytes())

    async def get(self, store: ZarrStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(storage.read_bytes(f"{store.url}/{key}"))

    def test_store_repr(self, store: ZarrStore) -> None:
        assert repr(store) == f"ZarrStore({store.url!r})"

    def test_store_supports_writes(self, store: ZarrStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: ZarrStore) -> None:
        assert store.supports_listing

    def test_keys_stay_inside(self, store: ZarrStore) -> None:
        for key in ("../x", "a/../../x", ".."):
            with pytest.raises(ParameterError, match="leads out of the store"):
                asyncio.run(store.get(key, default_buffer_prototype()))
            with pytest.raises(ParameterError, match="leads out of the store"):
                asyncio.run(store.set(key, cpu.Buffer.from_bytes(b"x")))


for _class in (TestStore, TestOurStore):
    for _name, _test in inspect.getmembers(StoreTests, inspect.iscoroutinefunction):
        if _name.startswith("test_"):
            setattr(_class, _name, in_a_loop(_test))


def test_an_array_in_our_store(place: str) -> None:
    values = np.arange(10_000, dtype=np.int32).reshape(100, 100)
    store = storage.zarr_store(f"{place}/array.zarr")
    array = zarr.create_array(store, data=values, chunks=(30, 70), compressors=None)
    array[5, :] = -1
    values[5, :] = -1
    assert np.array_equal(zarr.open_array(storage.zarr_store(f"{place}/array.zarr"), mode="r")[...], values)
    group = zarr.open_group(storage.zarr_store(f"{place}/group.zarr"), mode="w")
    group.create_array("one", shape=(3,), dtype="i4")[...] = 7
    assert sorted(zarr.open_group(storage.zarr_store(f"{place}/group.zarr"), mode="r").array_keys()) == ["one"]
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_array(storage.zarr_store(f"{place}/array.zarr", read_only=True))[...] = 1


def test_array(place: str) -> None:
    values = np.arange(10_000, dtype=np.int32).reshape(100, 100)
    array = zarr.create_array(f"apyfal://{place}/array.zarr", data=values, chunks=(30, 70))
    array[5, :] = -1
    values[5, :] = -1
    assert np.array_equal(zarr.open_array(f"apyfal://{place}/array.zarr", mode="r")[...], values)
