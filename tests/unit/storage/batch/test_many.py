"""load_many, save_many, stat_many and remove_many, on local files and on a store."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.exceptions import (
    AcceleratorException,
    InvalidURL,
    ObjectNotFound,
    ParameterError,
    TransferCancelled,
)
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.handler import ObjectInfo, RangeReader
from apyfal.storage.mounting.table import MountTable

COUNT = 60
ARRAYS = [np.arange(index, index + 100, dtype=np.int32) for index in range(COUNT)]


@pytest.fixture(params=["local", "store", "both"])
def urls(request: pytest.FixtureRequest, tmp_path: Path, store: MemoryHandler) -> list[str]:
    local = [str(tmp_path / f"{index}") for index in range(COUNT)]
    stored = [f"mem://b/{index}" for index in range(COUNT)]
    if request.param == "both":
        return [pair[index % 2] for index, pair in enumerate(zip(local, stored, strict=True))]
    return local if request.param == "local" else stored


def test_there_and_back(urls: list[str]) -> None:
    assert storage.save_many(urls, ARRAYS) == [None] * COUNT
    for found, array in zip(storage.load_many(urls, dtype="int32"), ARRAYS, strict=True):
        assert found.dtype == np.int32
        assert np.array_equal(found, array)
    assert [info.size for info in storage.stat_many(urls)] == [400] * COUNT
    assert storage.remove_many(iter(urls)) == [None] * COUNT
    assert not any(storage.exists(url) for url in urls)


@pytest.mark.parametrize("together", [True, False])
def test_out(urls: list[str], together: bool) -> None:
    storage.save_many(urls, ARRAYS)
    whole = np.zeros((COUNT, 10, 10), np.int32)
    out: Any = whole if together else [whole[index] for index in range(COUNT)]
    found = storage.load_many(urls, out)
    assert np.array_equal(whole.reshape(COUNT, 100), np.stack(ARRAYS))
    assert all(np.shares_memory(one, whole[index]) for index, one in enumerate(found))


def test_errors_by_item(urls: list[str]) -> None:
    storage.save_many(urls, ARRAYS)
    missing = {3, 17, COUNT - 1}
    for index in missing:
        storage.remove(urls[index])
    for function in (storage.load_many, storage.stat_many, storage.remove_many):
        found: list[Any] = list(function(urls, return_exceptions=True))
        assert {index for index, one in enumerate(found) if isinstance(one, Exception)} == missing, function
        assert all(isinstance(found[index], ObjectNotFound) for index in missing), function
    storage.save_many(urls[:3], ARRAYS[:3])
    with pytest.raises(ObjectNotFound):
        storage.load_many(urls)


def test_an_array_that_does_not_fit_is_an_error_of_its_item(urls: list[str]) -> None:
    storage.save_many(urls[:3], ARRAYS[:3])
    out = [np.zeros(400, np.uint8), np.zeros(399, np.uint8), np.zeros(400, np.uint8)]
    first, second, third = storage.load_many(urls[:3], out, return_exceptions=True)
    assert first is out[0]
    assert isinstance(second, ParameterError)
    assert third is out[2]
    bad = storage.load_many(urls[:1], dtype="S7", return_exceptions=True)
    assert isinstance(bad[0], ParameterError)


def test_nothing(store: MemoryHandler) -> None:
    found: list[object] = [storage.load_many([]), storage.save_many([], []), storage.stat_many([])]
    assert [*found, storage.remove_many([])] == [[]] * 4


FLAT = np.zeros(8, np.uint8)
BAD: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("a text", lambda: storage.load_many("mem://b/k"), ParameterError, "in a list, not one str"),
    ("bytes", lambda: storage.stat_many(b"mem://b/k"), ParameterError, "in a list, not one bytes"),  # type: ignore[arg-type]
    ("a number", lambda: storage.stat_many(3), ParameterError, "in a list, not one int"),  # type: ignore[call-overload]
    ("a file", lambda: storage.load_many(["mem://b/k", io.BytesIO()]), ParameterError, "item 1 is an open file"),
    ("no name", lambda: storage.stat_many(["mem://b/k", 3]), ParameterError, "item 1: 3 is not a storage location"),
    ("no URL", lambda: storage.remove_many([""]), InvalidURL, "item 0: an empty text"),
    ("twice", lambda: storage.remove_many(["mem://b/k", "x", "mem://b/k"]), ParameterError, "items 0 and 2 are both"),
    ("saved twice", lambda: storage.save_many(["mem://b/k"] * 2, [FLAT, FLAT]), ParameterError, "items 0 and 1"),
    ("few arrays", lambda: storage.save_many(["mem://b/k"], []), ParameterError, "1 URLs and 0 arrays"),
    ("few out", lambda: storage.load_many(["mem://b/k"], []), ParameterError, "1 URLs and 0 arrays in out"),
    ("shape", lambda: storage.load_many(["mem://b/k"], np.zeros((2, 4))), ParameterError, r"shape \(2, 4\)"),
    ("no array", lambda: storage.load_many(["mem://b/k"], [b""]), ParameterError, r"out\[0\] is a bytes"),  # type: ignore[list-item]
    ("strided", lambda: storage.load_many(["mem://b/k"], [FLAT[::2]]), ParameterError, "not C-contiguous"),
    (
        "overlap",
        lambda: storage.load_many(["mem://b/k", "mem://b/l"], [FLAT[2:6], FLAT[:3]]),
        ParameterError,
        r"out\[1\] and out\[0\] overlap",
    ),
    ("no mount", lambda: storage.load_many(["nowhere://b/k"]), InvalidURL, "nowhere"),
    ("a bucket", lambda: storage.save_many(["mem://"], [FLAT]), InvalidURL, "no object"),
]


@pytest.mark.parametrize(("call", "kind", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input(store: MemoryHandler, call: Callable[[], object], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        call()
    assert not store.calls


def test_a_store_that_is_not_mounted_is_an_error_of_its_items(store: MemoryHandler) -> None:
    store.store("b/k", b"abc")
    first, second, third = storage.load_many(["no1://b/k", "mem://b/k", "no1://b/l"], return_exceptions=True)
    assert isinstance(first, AcceleratorException)
    assert isinstance(second, np.ndarray)
    assert bytes(second) == b"abc"
    assert isinstance(third, AcceleratorException)


def test_an_item_of_a_flat_array(store: MemoryHandler) -> None:
    store.store("b/0", b"a")
    store.store("b/1", b"b")
    out = np.zeros(2, np.uint8)
    storage.load_many(["mem://b/0", "mem://b/1"], out)
    assert bytes(out) == b"ab"


class Counting(MemoryHandler):
    """Counts reads under way; each waits until `wanted` of them are there, or the time is up."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(wanted)
        self.busy = self.most = 0
        self.before_read: Callable[[], None] | None = None

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        try:
            if self.before_read is not None:
                self.before_read()
            else:
                self.barrier.wait(30)
            return super().read(path, start, stop, version_of)
        finally:
            with self.lock:
                self.busy -= 1


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_the_mounts_limit_of_connections(mounts: MountTable, limit: int) -> None:
    handler = Counting(limit)
    handler.max_concurrency = limit
    mounts.attach("mem", handler)
    urls = [f"mem://b/{index}" for index in range(24)]
    for index in range(24):
        handler.store(f"b/{index}", bytes([index]))
    assert [bytes(one) for one in storage.load_many(urls)] == [bytes([index]) for index in range(24)]
    assert handler.most == limit


@pytest.mark.parametrize("call", ["load", "load_many"])
@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_of_connections_is_that_of_all_calls(mounts: MountTable, call: str, limit: int) -> None:
    """Two threads at once: each has its connection where the mount has two, otherwise one after the other."""
    meeting = threading.Barrier(2)
    handler = Counting(2)
    handler.max_concurrency = limit

    def meet() -> None:
        try:
            meeting.wait(0.3 if limit == 1 else 30)
        except threading.BrokenBarrierError:
            meeting.reset()

    handler.before_read = meet
    mounts.attach("mem", handler)
    for index in range(2):
        handler.store(f"b/{index}", bytes([index]))

    def load(index: int) -> bytes:
        url = f"mem://b/{index}"
        return bytes(storage.load(url) if call == "load" else storage.load_many([url])[0])

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(load, range(2))) == [b"\0", b"\1"]
    assert handler.most == limit


def test_cancelled(mounts: MountTable) -> None:
    cancel = CancelToken()
    handler = Counting(1)
    handler.max_concurrency = 1
    mounts.attach("mem", handler)
    handler.store("b/0", b"a")
    handler.before_read = cancel.set
    for keep in (False, True):
        with cancel.scope(), pytest.raises(TransferCancelled):
            storage.load_many(["mem://b/0"] * 20, return_exceptions=keep)
    assert handler.calls.count("read") <= 1
    assert cancel._watched == set()  # nothing stays registered
