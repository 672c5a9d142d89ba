"""The connections of a mount, over all its transfers: never more than it allows, and none waits for ever."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from memory_store import MemoryHandler

import apyfal.storage as st
from apyfal.exceptions import StorageError, TransferCancelled
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.connections import ConnectionLimiter
from apyfal.storage.flow.retry import limits_for
from apyfal.storage.handler import Limits, ObjectInfo, RangeReader
from apyfal.storage.mounting.table import table as mounts
from apyfal.storage.transfer import TransferOptions, download, stream, upload

MIB = 1 << 20
SECONDS = 30.0


class Counting(MemoryHandler):
    """Counts connections: bodies that are open, and requests that write."""

    limits = Limits(min_part=MIB, max_put=64 << 20)

    def __init__(self, most: int | None) -> None:
        super().__init__()
        self.max_concurrency = most
        self.open = self.highest = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        self.opened()
        try:
            time.sleep(0.003)
            yield
        finally:
            self.ended()

    def opened(self) -> None:
        with self.lock:
            self.open += 1
            self.highest = max(self.highest, self.open)

    def ended(self) -> None:
        with self.lock:
            self.open -= 1

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        found = super().read(path, start, stop, version_of)
        self.opened()
        time.sleep(0.003)
        return _Counted(found, self)

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        with self.counted():
            return super().put(path, data, checksum, exclusive=exclusive)

    def check(self, call: str) -> None:
        if call == "write_part":
            with self.counted():
                super().check(call)
            return
        super().check(call)


class _Counted(RangeReader):
    def __init__(self, reader: RangeReader, handler: Counting) -> None:
        self.info = reader.info
        self._reader = reader
        self._handler: Counting | None = handler

    def readinto(self, out: memoryview) -> int:
        return self._reader.readinto(out)

    def close(self) -> None:
        self._reader.close()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.ended()


@pytest.fixture
def lab() -> Iterator[Callable[[int | None], Counting]]:
    """Mounts a store as ``lab``."""
    made: list[Counting] = []

    def mount(most: int | None) -> Counting:
        handler = Counting(most)
        made.append(handler)
        mounts.attach("lab", handler)
        return handler

    yield mount
    if made:
        st.unmount("lab")


def at_once(*works: Callable[[], object]) -> None:
    """Run all at the same time; they have to end."""
    with ThreadPoolExecutor(len(works)) as threads:
        for one in [threads.submit(work) for work in works]:
            one.result(SECONDS)


def _load(number: int) -> None:
    assert st.load(f"lab://b/large{number % 3}").nbytes == 24 * MIB


def _load_small(number: int) -> None:
    assert st.load(f"lab://b/small{number}").tobytes() == b"x"


def _load_many(number: int) -> None:
    assert len(st.load_many([f"lab://b/small{index}" for index in range(12)])) == 12


def _save(number: int) -> None:
    st.save(f"lab://b/saved{number}", np.zeros(20 * MIB, np.uint8))


def _save_small(number: int) -> None:
    st.save(f"lab://b/saved{number}", np.zeros(3, np.uint8))


def _save_many(number: int) -> None:
    st.save_many([f"lab://b/many{number}-{index}" for index in range(12)], [np.zeros(3, np.uint8)] * 12)


def _copy(number: int) -> None:
    st.copy(f"lab://b/large{number % 3}", f"lab://b/copy{number}")


def _stat(number: int) -> None:
    assert st.stat(f"lab://b/small{number}").size == 1


WORKS = {
    work.__name__[1:]: work for work in (_load, _load_small, _load_many, _save, _save_small, _save_many, _copy, _stat)
}


def _filled(handler: Counting) -> None:
    for number in range(3):
        handler.store(f"b/large{number}", bytes(24 * MIB))
    for number in range(12):
        handler.store(f"b/small{number}", b"x")


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("name", [*WORKS, "all of them"])
def test_transfers_at_the_same_time_share_the_connections(
    lab: Callable[[int | None], Counting], most: int, name: str
) -> None:
    handler = lab(most)
    _filled(handler)
    works = [WORKS[name]] * 6 if name in WORKS else list(WORKS.values())
    at_once(*(lambda work=work, number=number: work(number) for number, work in enumerate(works)))
    assert handler.highest <= most
    assert handler.open == 0
    limits = limits_for(handler).connections
    assert (limits._turns, limits._streams) == (set(), set())


def test_without_a_limit_nobody_waits(lab: Callable[[int | None], Counting]) -> None:
    handler = lab(None)
    _filled(handler)
    at_once(*[lambda: _load(0)] * 4)
    assert handler.highest >= 4


@pytest.mark.parametrize("most", [1, 2])
def test_open_files_wait_for_nobody_and_nobody_for_ever_for_them(
    lab: Callable[[int | None], Counting], most: int
) -> None:
    """More files are open than there are connections; what is beside them goes on, one at a time."""
    handler = lab(most)
    _filled(handler)
    handler.objects["b/once"] = (b"once", ObjectInfo("b/once", 4))  # without an ETag: read over one connection
    files = [st.open("lab://b/once", buffering=0) for _ in range(4)]
    try:
        assert [file.read(1) for file in files] == [b"o"] * 4
        at_once(*(lambda work=work: work(1) for work in WORKS.values()))
        assert [file.read() for file in files] == [b"nce"] * 4
    finally:
        for file in files:
            file.close()
    assert handler.highest <= 5
    assert limits_for(handler).connections._streams == set()


def test_a_pipe_within_one_mount_of_one_connection(lab: Callable[[int | None], Counting], tmp_path: Path) -> None:
    """Reading and writing depend on each other: neither keeps the other's connection."""
    handler = lab(1)
    handler.store("b/in", bytes(range(256)) * (40 * MIB // 256))
    with st.open("lab://b/in") as source, st.open("lab://b/out", "wb") as target:
        while data := source.read(3 * MIB):
            target.write(data)
    assert handler.objects["b/out"][0] == handler.objects["b/in"][0]
    assert handler.highest == 1
    import apyfal

    with apyfal.Accelerator("loopback") as card:
        card.process("lab://b/in", "lab://b/done")
    assert handler.objects["b/done"][0] == handler.objects["b/in"][0]
    assert handler.highest == 1


def test_two_mounts_of_one_connection_each_copy_to_each_other() -> None:
    one, other = Counting(1), Counting(1)
    for name, handler in (("one", one), ("other", other)):
        mounts.attach(name, handler)
        handler.store("b/here", bytes(40 * MIB))
    try:
        at_once(
            lambda: st.copy("one://b/here", "other://b/there"),
            lambda: st.copy("other://b/here", "one://b/there"),
            lambda: st.copy("one://b/here", "other://b/again"),
        )
        assert (one.highest, other.highest) == (1, 1)
    finally:
        st.unmount("one")
        st.unmount("other")


def test_a_transfer_inside_the_progress_of_another(lab: Callable[[int | None], Counting]) -> None:
    handler = lab(1)
    _filled(handler)
    seen = []

    def progress(done: int, total: int | None) -> None:
        if not seen:
            seen.append(st.load("lab://b/small0").tobytes())

    download(handler, "b/large0", memoryview(bytearray(24 * MIB)), progress=progress)
    assert seen == [b"x"]


#: What each of the store's calls is part of.
CALLED_BY = {
    "read": ("load", "load_small", "load_many"),
    "readinto": ("load", "load_small", "load_many"),
    "describe": ("load", "load_small", "load_many", "copy", "stat"),
    "put": ("save_small", "save_many"),
    "upload": ("save",),
    "write_part": ("save",),
    "complete": ("save",),
    "copy": ("copy",),
}


@pytest.mark.parametrize("call", CALLED_BY)
def test_a_failure_gives_the_turn_back(lab: Callable[[int | None], Counting], call: str) -> None:
    handler = lab(1)
    _filled(handler)
    for name in CALLED_BY[call]:
        handler.fail[call] = 1
        with pytest.raises(StorageError, match=f"{call} fails on demand"):
            WORKS[name](0)
        assert not handler.fail[call], name
    limits = limits_for(handler).connections
    assert (limits._turns, limits._streams) == (set(), set())
    at_once(lambda: _load(0))


def test_waiting_ends_when_it_is_cancelled() -> None:
    limits = ConnectionLimiter(1)
    held: list[object] = []
    limits.take(None, held)
    cancel = CancelToken()
    threading.Timer(0.05, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(TransferCancelled):
        limits.take(cancel, [])
    assert time.monotonic() - began < 5
    limits.release(held)
    with limits.turn(None):
        assert len(limits._turns) == 1
    assert limits._turns == set()


def test_turns_go_to_who_waits_longest() -> None:
    limits = ConnectionLimiter(1)
    held: list[object] = []
    limits.take(None, held)
    order: list[int] = []

    def wait(number: int) -> None:
        with limits.turn(None):
            order.append(number)

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(limits._waiting) <= number:
            time.sleep(0.001)
    limits.release(held)
    for thread in threads:
        thread.join(SECONDS)
    assert order == list(range(8))


def test_a_child_does_not_wait_for_its_parents_transfers() -> None:
    limits = ConnectionLimiter(1)
    held: list[object] = []
    limits.take(None, held)
    limits._lock.acquire()  # as another thread of the parent may hold it
    child = os.fork()
    if child == 0:
        status = 1
        try:
            limits.take(None, [])
            status = 7
        finally:
            os._exit(status)
    limits._lock.release()
    deadline = time.monotonic() + SECONDS
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended[1]) == 7
    limits.release(held)


def test_a_reader_that_is_closed_twice_counts_once(lab: Callable[[int | None], Counting]) -> None:
    handler = lab(2)
    handler.store("b/x", b"x")
    limits = limits_for(handler).connections
    reader = limits.stream(handler.read("b/x", 0, None, None))
    reader.close()
    reader.close()
    assert limits._streams == set()
    with stream(handler, "b/x") as opened:
        opened.readinto(memoryview(bytearray(1)))
    upload(handler, "b/y", memoryview(b"y"), options=TransferOptions())
    assert handler.open == 0
