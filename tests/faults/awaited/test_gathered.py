"""Many tasks that ask for small files at once: one call moves them, and each has its own result, error and end."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import pickle
import random
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from servers.web.hostile import Fault, Hostile, Request, error

from apyfal import storage
from apyfal.exceptions import AccessDenied, IsADirectory, ObjectNotFound, TransferCancelled
from apyfal.storage.aio.gathering import Gathered, OnResults
from apyfal.storage.batch.native import path_counts
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.fs.filesystem import _saves

COUNT = 60
OBJECTS = [random.Random(number).randbytes(3000 + number) for number in range(COUNT)]
_names = itertools.count()


@pytest.fixture
def urls(store: Hostile) -> Iterator[list[str]]:
    name = f"s3.gathered{next(_names)}"
    storage.mount(name, client_id="key", secret_id="secret", endpoint_url=store.endpoint_url, timeout=60)
    for number, data in enumerate(OBJECTS):
        store.put(f"b/{number}", data)
    path_counts.take()
    yield [f"{name}://b/{number}" for number in range(COUNT)]
    storage.unmount(name)


def hit(request: Request) -> bool:
    return request.path == "b/7"


async def every(call: Callable[[str], object], urls: Sequence[str]) -> list[object]:
    return await asyncio.gather(*map(call, urls), return_exceptions=True)


# -- the filesystem of fsspec -----------------------------------------------------------------------------------------
def test_it_is_asynchronous() -> None:
    fs = storage.filesystem(asynchronous=True)
    assert fs.async_impl
    assert fs.asynchronous
    assert fs.loop is None
    assert not storage.filesystem().asynchronous
    for name in ("_cat_file", "_cat_ranges", "_cat", "_pipe_file", "_info", "_ls", "_rm", "_find", "_cp_file", "_get"):
        assert inspect.iscoroutinefunction(getattr(fs, name)), name
    assert pickle.loads(pickle.dumps(fs)).asynchronous


def test_reads_look_ups_and_writes_of_one_turn_are_one_call(store: Hostile, urls: list[str]) -> None:
    fs = storage.filesystem(asynchronous=True)
    assert asyncio.run(every(fs._cat_file, urls)) == OBJECTS
    assert path_counts.take() == {"native": COUNT}
    infos = asyncio.run(every(fs._info, urls))
    assert [info["size"] for info in infos] == [len(data) for data in OBJECTS]
    assert path_counts.take() == {"native": COUNT}
    store.objects.clear()
    asyncio.run(every(lambda url: fs._pipe_file(url, OBJECTS[int(url.rpartition("/")[2])]), urls))
    assert [store.objects[f"b/{number}"].data for number in range(COUNT)] == OBJECTS
    assert path_counts.take() == {"native": COUNT}


def test_each_task_has_its_own_error(store: Hostile, urls: list[str]) -> None:
    fs = storage.filesystem(asynchronous=True)
    store.faults.append(Fault("change", hit, times=-1, act=lambda request: error(403, "AccessDenied")))
    del store.objects["b/9"]
    found = asyncio.run(every(fs._cat_file, urls))
    assert isinstance(found.pop(9), ObjectNotFound)
    assert isinstance(found.pop(7), AccessDenied)
    assert found == [data for number, data in enumerate(OBJECTS) if number not in (7, 9)]


def test_the_coroutines_do_what_the_functions_do(store: Hostile, urls: list[str]) -> None:
    fs = storage.filesystem(asynchronous=True)
    top = urls[0].rpartition("/")[0]
    store.objects.pop("b/data", None)

    async def work() -> None:
        assert sorted(await fs._ls(top, detail=False)) == sorted(urls)
        assert await fs._find(top) == sorted(urls)
        assert await fs._cat_file(urls[1], 5, -7) == OBJECTS[1][5:-7]
        parts = [(None, None), (0, 10), (-10, None), (100, 100), (5, 10**9)]
        found = await fs._cat_ranges([urls[3]] * 5, [start for start, _ in parts], [stop for _, stop in parts])
        assert found == [OBJECTS[3][start:stop] for start, stop in parts]
        assert await fs._cat(urls) == dict(zip(urls, OBJECTS, strict=True))
        assert await fs._exists(urls[0])
        assert not await fs._exists(f"{urls[0]}x")
        assert await fs._isfile(urls[0])
        walked = [one async for one in fs._walk(top)]
        assert [(folder, len(files)) for folder, _, files in walked] == [(top, COUNT)]
        await fs._rm(urls[:10])
        assert not await fs._exists(urls[0])
        with pytest.raises(ObjectNotFound):
            await fs._rm(urls[:10])

    asyncio.run(work())
    assert len(store.objects) == COUNT - 10


def test_parts_of_an_object_are_of_one_version(store: Hostile, urls: list[str]) -> None:
    fs = storage.filesystem()

    def change(request: Request) -> None:
        if request.method == "GET" and request.start == 20:
            store.put("b/7", bytes(len(OBJECTS[7])))

    store.faults.append(Fault("change", hit, times=-1, act=change))
    found = fs.cat_ranges([urls[7]] * 4, [0, 10, 20, 30], [10, 20, 30, 40])
    for number, one in enumerate(found):
        assert isinstance(one, Exception) or one == OBJECTS[7][10 * number : 10 * number + 10]
    assert any(isinstance(one, Exception) for one in found)


def test_errors_by_item_of_the_functions(store: Hostile, urls: list[str]) -> None:
    fs = storage.filesystem()
    del store.objects["b/9"]
    with pytest.raises(ObjectNotFound):
        fs.cat_ranges([urls[9], urls[8]], 0, 5, on_error="raise")
    bad, good = fs.cat_ranges([urls[9], urls[8]], 0, 5)
    assert isinstance(bad, ObjectNotFound)
    assert good == OBJECTS[8][:5]
    kept = fs.cat(urls[:9] + urls[10:], on_error="omit")
    assert len(kept) == COUNT - 1
    fs.pipe({f"{url}.new": data for url, data in zip(urls, OBJECTS, strict=True)})
    assert [store.objects[f"b/{number}.new"].data for number in range(COUNT)] == OBJECTS
    store.put("b/folder/x", b"data")
    folder = f"{urls[0].rpartition('/')[0]}/folder"
    with pytest.raises(IsADirectory):
        fs.rm([urls[0], folder])
    assert "b/0" in store.objects, "nothing is removed before all names were looked up"


# -- what one call for several tasks must keep ------------------------------------------------------------------------
class Slow:
    """A function for several items that waits until it is told."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.go = threading.Event()
        self.cancelled = 0

    def __call__(self, items: Sequence[int], on_results: OnResults) -> list[int | Exception]:
        self.calls.append(list(items))
        cancel = current_cancel()
        assert cancel is not None
        while not self.go.wait(0.01):
            if cancel.is_set():
                self.cancelled += 1
                cancel.check()
        return [ValueError(str(item)) if item == 3 else 2 * item for item in items]


def test_tasks_of_one_turn_are_one_call() -> None:
    slow = Slow()
    slow.go.set()
    gathered: Gathered[int, int] = Gathered(slow, lends=False)

    async def work() -> list[object]:
        return await asyncio.gather(*map(gathered, range(10)), return_exceptions=True)

    found = asyncio.run(work())
    assert isinstance(found.pop(3), ValueError)
    assert found == [2 * item for item in range(10) if item != 3]
    assert slow.calls == [list(range(10))]


@pytest.mark.parametrize("lends", [True, False])
def test_a_cancelled_task_leaves_the_others(lends: bool) -> None:
    slow = Slow()
    gathered: Gathered[int, int] = Gathered(slow, lends=lends)

    async def work() -> None:
        tasks = [asyncio.create_task(gathered(number)) for number in range(3)]
        while not slow.calls:
            await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.sleep(0.05)
        # it may not look at a caller's memory after the task has ended
        assert tasks[1].done() is not lends
        slow.go.set()
        assert await tasks[0] == 0
        assert await tasks[2] == 4
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    asyncio.run(work())
    assert not slow.cancelled


@pytest.mark.parametrize("lends", [True, False])
def test_if_all_are_cancelled_so_is_the_call(lends: bool) -> None:
    slow = Slow()
    gathered: Gathered[int, int] = Gathered(slow, lends=lends)

    async def work() -> None:
        tasks = [asyncio.create_task(gathered(number)) for number in range(3)]
        while not slow.calls:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in found)
        assert slow.cancelled == 1, "the call had ended when its last task had"

    asyncio.run(work())


async def _within(cancel: CancelToken, call: Coroutine[Any, Any, int]) -> int:
    """Begin a call within the scope of a `CancelToken`, which is left before another task runs."""

    class Begun:
        def __await__(self) -> Generator[Any, Any, int]:
            steps = call.__await__()
            with cancel.scope():
                step = next(steps)
            while True:
                going_on = partial(steps.send, None)
                try:
                    yield step
                except BaseException as error:
                    going_on = partial(steps.throw, error)
                try:
                    step = going_on()
                except StopIteration as end:
                    return int(end.value)

    return await Begun()


@pytest.mark.parametrize("lends", [True, False])
@pytest.mark.parametrize("cancelled", [1, 3])
def test_the_token_of_a_caller_ends_its_own_items(lends: bool, cancelled: int) -> None:
    slow = Slow()
    gathered: Gathered[int, int] = Gathered(slow, lends=lends)
    tokens = [CancelToken() for _ in range(3)]

    async def work() -> None:
        tasks = []
        for number, token in enumerate(tokens):
            tasks.append(asyncio.create_task(_within(token, gathered(number))))
        while not slow.calls:
            await asyncio.sleep(0.01)
        for token in tokens[:cancelled]:
            threading.Thread(target=token.set).start()
        if cancelled == 3 or not lends:
            for task in tasks[:cancelled]:
                with pytest.raises(TransferCancelled):
                    await asyncio.wait_for(asyncio.shield(task), 20)
        assert slow.cancelled == (cancelled == 3)
        slow.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, TransferCancelled) for error in found[:cancelled])
        assert found[cancelled:] == [0, 2, 4][cancelled:]

    asyncio.run(work())
    assert [token._watched for token in tokens] == [set()] * 3


def test_a_token_that_is_set_already_asks_for_nothing() -> None:
    slow = Slow()
    gathered: Gathered[int, int] = Gathered(slow, lends=False)
    cancel = CancelToken()
    cancel.set()
    with cancel.scope(), pytest.raises(TransferCancelled):
        asyncio.run(_awaiting(gathered, 1))
    assert not slow.calls


async def _awaiting(gathered: Gathered[int, int], number: int) -> int:
    return await gathered(number)


def test_what_was_cancelled_before_it_began_is_not_asked_for() -> None:
    slow = Slow()
    slow.go.set()
    gathered: Gathered[int, int] = Gathered(slow, lends=False)

    async def work() -> None:
        tasks = [asyncio.create_task(gathered(number)) for number in range(3)]
        await asyncio.sleep(0)  # they have asked
        tasks[0].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[1:] == [2, 4]

    asyncio.run(work())
    assert slow.calls in ([[1, 2]], [[0, 1, 2]])


def test_what_is_told_before_the_end_holds_nobody_up() -> None:
    go = threading.Event()

    def work(items: Sequence[int], on_results: OnResults) -> list[int]:
        on_results([(0, items[0]), (2, ValueError("two"))])
        assert go.wait(10)
        return list(items)

    gathered: Gathered[int, int] = Gathered(work, lends=True)

    async def main() -> None:
        tasks = [asyncio.create_task(gathered(number)) for number in range(3)]
        assert await tasks[0] == 0
        with pytest.raises(ValueError, match="two"):
            await tasks[2]
        assert not tasks[1].done()
        go.set()
        assert await tasks[1] == 1

    asyncio.run(main())


def test_what_comes_while_a_long_call_is_under_way_is_not_held_up() -> None:
    slow = Slow()
    gathered: Gathered[int, int] = Gathered(
        lambda items, on_results: slow(items, on_results) if 0 in items else items, lends=False
    )

    async def main() -> None:
        long = asyncio.create_task(gathered(0))
        while not slow.calls:
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(gathered(5), 10) == 5
        slow.go.set()
        await long

    asyncio.run(main())


def test_an_object_that_stalls_holds_the_others_of_its_turn_not_up(store: Hostile, urls: list[str]) -> None:
    fs = storage.filesystem(asynchronous=True)
    store.put("b/7", bytes(9 << 20))  # too large for the native transport
    store.faults.append(Fault("stall", hit, at=100, times=-1))

    async def main() -> None:
        tasks = {url: asyncio.create_task(fs._cat_file(url)) for url in urls}
        large = tasks.pop(urls[7])
        assert await asyncio.wait_for(asyncio.gather(*tasks.values()), 20) == OBJECTS[:7] + OBJECTS[8:]
        assert not large.done()
        large.cancel()

    asyncio.run(main())


def test_an_error_of_the_call_is_that_of_all() -> None:
    def fail(items: Sequence[int], on_results: OnResults) -> list[int]:
        raise MemoryError("none")

    gathered: Gathered[int, int] = Gathered(fail, lends=False)

    async def work() -> list[object]:
        return await asyncio.gather(*map(gathered, range(3)), return_exceptions=True)

    assert [str(one) for one in asyncio.run(work())] == ["none"] * 3


def test_several_loops_and_a_loop_that_is_closed(urls: list[str]) -> None:
    fs = storage.filesystem(asynchronous=True)
    results: list[object] = []

    def run() -> None:
        results.append(asyncio.run(every(fs._cat_file, urls)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [OBJECTS] * 4

    async def leave() -> None:
        task = asyncio.create_task(fs._cat_file(urls[0]))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())


def test_a_cancelled_write_has_ended(store: Hostile, urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fs = storage.filesystem(asynchronous=True)
    store.faults.append(Fault("stall", lambda request: request.method == "PUT", at=-10_000, times=-1))
    data = bytearray(1000)
    save_all, ended = _saves._function, threading.Event()

    def saves(items: Sequence[Any], on_results: OnResults) -> Sequence[Exception | None]:
        try:
            return save_all(items, on_results)
        finally:
            ended.set()

    monkeypatch.setattr(_saves, "_function", saves)

    async def work() -> None:
        tasks = [asyncio.create_task(fs._pipe_file(url, data)) for url in urls[:5]]
        while not store.hit:
            await asyncio.sleep(0.005)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.wait(tasks, timeout=20)
        has_ended = ended.is_set()
        store.reset()  # which ends the silence
        assert len(done) == 5, "they waited for the store"
        assert has_ended, "nothing reads the memory of a task that is done"
        assert all(task.cancelled() for task in tasks)

    asyncio.run(work())
    deadline = time.monotonic() + 20
    while True:
        gc.collect()
        try:
            data.append(0)  # nothing has the memory any more
            break
        except BufferError:  # a thread is about to forget it
            assert time.monotonic() < deadline
            time.sleep(0.005)
