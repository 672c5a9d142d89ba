"""A fault in any stage at the first, a middle and the last chunk: one error, soon; nothing left; the next job works."""

from __future__ import annotations

import gc
import io
import re
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from servers.web.hostile import Answer, Fault, Hostile, Request, hostile

import apyfal
from apyfal import storage
from apyfal._core import errors
from apyfal._core.buffer import pool_stats
from apyfal.exceptions import AcceleratorException, DeviceLost, DriverError, StorageError

MIB = 1 << 20
DATA = np.random.default_rng(4).bytes(24 * MIB + 12_345)
#: Where the chunks begin: the first eight MiB in growing pieces, then eight MiB each. Parts are of eight MiB.
CHUNKS = [0, MIB // 2, MIB, 2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB, 24 * MIB]
PARTS = 4
REFUSED = Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    """A store, mounted as s3.stages."""
    with hostile() as running:
        keys = {"client_id": "key", "secret_id": "secret", "region": "us-east-1"}
        storage.mount("s3.stages", endpoint_url=running.endpoint_url, timeout=5, config={}, **keys)
        yield running
        storage.unmount("s3.stages")


@pytest.fixture
def store(server: Hostile) -> Iterator[Hostile]:
    """The store with the source and an old destination."""
    server.reset()
    server.put("b/data", DATA)
    server.put("b/out", b"old")
    yield server
    server.reset()


def live() -> dict[str, int]:
    """What the core holds, without what is only collected later."""
    gc.collect()
    return {name: count for name, count in errors.live().items() if name != "descriptors"}


def threads() -> set[str]:
    """Threads of jobs that are still there."""
    return {thread.name for thread in threading.enumerate() if re.match("apyfal-(?!deadlines)", thread.name)}


def fails(accelerator: apyfal.Accelerator, src: object, dst: object, error: type[AcceleratorException]) -> None:
    """Run a job that fails; check that it does so soon after the fault, and leaves nothing."""
    before, used = live(), pool_stats()["used"]
    start = time.monotonic()
    with pytest.raises(error):
        accelerator.process(src, dst)
    assert time.monotonic() - start < 15 + USUAL[0], "soon after the fault, which is within the job's usual time"
    assert threads() == set()
    after = live()
    assert after["runs"] == before["runs"] == 0
    assert pool_stats()["used"] == used, "the ring's memory was given back"


#: Seconds of the job without a fault, on this machine now.
USUAL = [0.0]


def works(accelerator: apyfal.Accelerator, store: Hostile) -> None:
    """Run the job as it should be."""
    start = time.monotonic()
    accelerator.process("s3.stages://b/data", "s3.stages://b/out")
    USUAL[0] = max(USUAL[0], time.monotonic() - start)
    assert store.objects["b/out"].data == DATA
    assert store.uploads == {}


def fetch(index: int) -> Callable[[Request], bool]:
    """Match the read of one chunk."""
    return lambda request: request.method == "GET" and request.start == CHUNKS[index]


def send(number: int) -> Callable[[Request], bool]:
    """Match the write of one part."""
    return lambda request: request.method == "PUT" and request.part == number


@pytest.mark.parametrize(
    "when",
    [
        *(pytest.param(fetch(index), id=f"fetch-{index}") for index in (0, 5, 7)),
        *(pytest.param(send(number), id=f"store-{number}") for number in (1, 2, PARTS)),
        pytest.param(lambda request: request.method == "POST" and "uploads" in request.query, id="store-begin"),
        pytest.param(lambda request: request.method == "POST" and "uploadId" in request.query, id="store-commit"),
    ],
)
def test_a_store_that_refuses(store: Hostile, when: Callable[[Request], bool]) -> None:
    with apyfal.Accelerator("loopback") as accelerator:
        if not USUAL[0]:
            works(accelerator, store)
            store.put("b/out", b"old")
        store.faults.append(Fault("change", when=when, times=-1, act=lambda request: REFUSED))
        fails(accelerator, "s3.stages://b/data", "s3.stages://b/out", StorageError)
        assert store.hit, "the fault happened"
        store.faults.clear()
        assert store.objects["b/out"].data == b"old"
        assert store.uploads == {}, "no part is left"
        works(accelerator, store)


@pytest.mark.parametrize("stage", ["fail_to_device", "fail_run", "fail_from_device", "lose_device"])
@pytest.mark.parametrize("nth", [1, 5, len(CHUNKS)])
def test_a_card_that_fails(store: Hostile, stage: str, nth: int) -> None:
    with apyfal.Accelerator("loopback") as accelerator:
        if not USUAL[0]:
            works(accelerator, store)
            store.put("b/out", b"old")
        accelerator._context.device.control(stage, nth)
        fails(
            accelerator,
            "s3.stages://b/data",
            "s3.stages://b/out",
            DeviceLost if stage == "lose_device" else DriverError,
        )
        assert store.objects["b/out"].data == b"old"
        assert store.uploads == {}, "no part is left"
        if stage != "lose_device":
            works(accelerator, store)


class Broken(io.BytesIO):
    """A file whose nth read or write fails."""

    def __init__(self, data: bytes, nth: int) -> None:
        super().__init__(data)
        self.left = nth

    def count(self) -> None:
        self.left -= 1
        if not self.left:
            raise OSError(5, "broken")

    def readinto(self, buffer: object) -> int:
        self.count()
        return super().readinto(memoryview(buffer)[: 8 * MIB])  # type: ignore[arg-type]  # any buffer

    def write(self, data: object) -> int:
        self.count()
        return super().write(data)  # type: ignore[arg-type]  # any buffer


@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_file_object_that_fails(end: str, nth: int) -> None:
    with apyfal.Accelerator("loopback") as accelerator:
        before = live()
        start = time.monotonic()
        source = Broken(DATA, nth if end == "source" else 0)
        target = Broken(b"", nth if end == "destination" else 0)
        with pytest.raises(OSError, match="broken"):
            accelerator.process(source, target)
        assert time.monotonic() - start < 20
        assert target.getvalue() == b"", "what was written was taken back"
        assert threads() == set()
        assert live()["runs"] == before["runs"] == 0
        assert accelerator.process(io.BytesIO(DATA)).tobytes() == DATA
