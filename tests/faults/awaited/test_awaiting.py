"""Storage for asyncio: the results of the functions that block, and a cancelled task cancels its transfer."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.web.hostile import Fault, Hostile

from apyfal import storage
from apyfal.exceptions import InvalidURL, ObjectNotFound, ParameterError
from apyfal.storage.aio.awaiting import MOST_THREADS, awaited

SIZE = 300_000


@pytest.fixture
def mount(store: Hostile) -> Iterator[str]:
    """The hostile store as a mount; what stalls there stalls for a minute."""
    keys = {"client_id": "key", "secret_id": "secret"}
    storage.mount("s3.awaited", endpoint_url=store.endpoint_url, config={}, timeout=60, **keys)
    yield "s3.awaited://b"
    storage.unmount("s3.awaited")


@pytest.fixture(params=["store", "local"])
def place(request: pytest.FixtureRequest) -> str:
    """A directory, or a bucket."""
    if request.param == "local":
        return str(request.getfixturevalue("tmp_path"))
    folder: str = request.getfixturevalue("mount")
    return folder


def data(seed: int, nbytes: int = SIZE) -> np.ndarray:
    """Bytes that differ by seed."""
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)


def test_what_is_awaited_is_what_is_called(place: str) -> None:
    async def main() -> None:
        await storage.asave(f"{place}/one", data(1))
        np.testing.assert_array_equal(await storage.aload(f"{place}/one"), data(1))
        out = np.zeros(SIZE, np.uint8)
        assert await storage.aload(f"{place}/one", out=out) is out
        np.testing.assert_array_equal(out, data(1))
        seen = await storage.aload(f"{place}/one", "u2", (-1, 10))
        assert (seen.dtype, seen.shape) == (np.dtype("u2"), (SIZE // 20, 10))
        names = [f"{place}/{number}" for number in range(20)]
        assert await storage.asave_many(names, [data(number) for number in range(20)]) == [None] * 20
        for number, array in enumerate(await storage.aload_many(names)):
            np.testing.assert_array_equal(array, data(number))
        found = await storage.aload_many([*names, f"{place}/missing"], return_exceptions=True)
        assert isinstance(found[-1], ObjectNotFound)
        # many at once, more than there are threads
        arrays = await asyncio.gather(*[storage.aload(names[number % 20]) for number in range(3 * MOST_THREADS)])
        assert all(np.array_equal(array, data(number % 20)) for number, array in enumerate(arrays))

    asyncio.run(main())


@pytest.mark.parametrize(
    "call",
    [
        lambda place: storage.aload(f"{place}/missing"),
        lambda place: storage.aload_many([f"{place}/missing"]),
        lambda place: storage.aload_many(f"{place}/missing"),
        lambda place: storage.asave_many([f"{place}/x"], []),
        lambda place: storage.asave(f"{place}/", data(1)),
    ],
)
def test_errors_are_those_of_the_functions_that_block(place: str, call: Callable[[str], Any]) -> None:
    before = threading.active_count()
    with pytest.raises((ObjectNotFound, ParameterError, InvalidURL, IsADirectoryError)):
        asyncio.run(call(place))
    assert threading.active_count() <= max(before, MOST_THREADS + before)


def test_the_loop_goes_on_meanwhile(mount: str, store: Hostile) -> None:
    async def main() -> int:
        store.put("b/slow", data(1).tobytes())
        store.faults.append(Fault("drip", when=lambda request: "slow" in request.path, at=10))
        task = asyncio.create_task(storage.aload(f"{mount}/slow"))
        turns = 0
        while turns < 50:
            await asyncio.sleep(0.001)
            turns += 1
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return turns

    assert asyncio.run(main()) == 50


@pytest.mark.parametrize("many", [False, True])
def test_a_cancelled_load_has_ended_and_writes_no_more(mount: str, store: Hostile, many: bool) -> None:
    store.put("b/big", data(2).tobytes())
    store.faults.append(Fault("stall", when=lambda request: request.method == "GET", at=1000, times=-1))
    out = np.zeros((1, SIZE), np.uint8)

    async def main() -> float:
        call = storage.aload_many([f"{mount}/big"], out) if many else storage.aload(f"{mount}/big", out=out[0])
        task = asyncio.create_task(call)
        while not any(request.method == "GET" for request in store.requests):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        began = time.monotonic()
        task.cancel()
        task.cancel()  # twice is as once
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(main()) < 30, "it did not wait for the store"
    store.faults.clear()
    before = out.copy()
    out[...] += 1
    time.sleep(0.05)
    np.testing.assert_array_equal(out, before + np.uint8(1))


@pytest.mark.parametrize("many", [False, True])
def test_a_cancelled_save_leaves_the_object_as_it_was(mount: str, store: Hostile, many: bool) -> None:
    store.put("b/kept", b"old")
    store.faults.append(Fault("cut-request", when=lambda request: request.method in ("PUT", "POST"), at=1000, times=-1))

    async def main() -> None:
        array = data(3)
        call = storage.asave_many([f"{mount}/kept"], [array]) if many else storage.asave(f"{mount}/kept", array)
        task = asyncio.create_task(call)
        while not any(request.method in ("PUT", "POST") for request in store.requests):
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert store.objects["b/kept"].data == b"old"


def test_a_call_that_has_not_begun_is_dropped() -> None:
    release = threading.Event()
    ran: list[int] = []

    async def main() -> None:
        blocked = [asyncio.create_task(awaited(release.wait)) for _ in range(MOST_THREADS)]
        await asyncio.sleep(0.05)
        late = asyncio.create_task(awaited(lambda: ran.append(1)))
        await asyncio.sleep(0.01)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        release.set()
        assert await asyncio.gather(*blocked) == [True] * MOST_THREADS

    asyncio.run(main())
    assert ran == []


def test_a_forked_child_has_threads_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    asyncio.run(storage.asave(path, data(1)))
    child = os.fork()
    if not child:
        status = 1
        try:
            if np.array_equal(asyncio.run(storage.aload(path)), data(1)):
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
