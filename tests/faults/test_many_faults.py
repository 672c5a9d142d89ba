"""Faults by the thousand: at every byte, in one transfer of five, in every upload."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults.conftest import DATA, PART
from servers.web.hostile import Answer, Fault, Hostile, Request, error

from apyfal.exceptions import ObjectChanged, StorageError
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import MultipartWriter, TransferOptions, download, upload

Connect = Callable[..., S3Handler]
OBJECT = random.Random(5).randbytes(64 << 10)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_break_at_every_byte(store: Hostile, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind each byte of the head: the object has 65,536 bytes, and each break is one of a transfer's answers."""
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    store.put("b/data", OBJECT)
    handler = connect(timeout=5)
    info = handler.describe("b/data")
    # Each transfer is broken many times, each time one byte further: 64 transfers break at all 65,536 places.
    out = memoryview(bytearray(len(OBJECT)))
    for first in range(64):
        out[:] = bytes(len(OBJECT))
        store.faults[:] = [Fault("cut", at=64 if index else first, times=1) for index in range(1024)]
        store.requests.clear()
        download(handler, "b/data", out, info=info)
        assert out == OBJECT
        begins = [request.start or 0 for request in store.requests]
        assert begins == [0, *range(first, len(OBJECT), 64)] if first else begins[:1] == [0]


def test_a_break_at_every_byte_of_the_head(store: Hostile, connect: Connect) -> None:
    handler = connect(timeout=5)
    info = handler.describe("b/data")
    out = memoryview(bytearray(len(DATA)))
    for place in range(1, 260):
        store.faults[:] = [Fault("cut", at=-place)]
        download(handler, "b/data", out[:1000], stop=1000, info=info)
        assert out[:1000] == DATA[:1000]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_transfers_with_one_connection_in_five_broken(store: Hostile, connect: Connect) -> None:
    chance = random.Random(6)
    data = OBJECT[:20_000]
    store.put("b/data", data)
    kinds = ("cut", "reset", "lose", "cut-request")

    def broken(request: Request) -> bool:
        return chance.random() < 0.2

    class Chance(Fault):
        """A fault that chooses its kind and place anew each time."""

        def __getattribute__(self, name: str) -> object:
            if name == "kind":
                return chance.choice(kinds)
            if name == "at":
                return chance.randrange(-200, 20_000)
            return super().__getattribute__(name)

    handler = connect(timeout=5)
    info = handler.describe("b/data")
    store.faults.append(Chance("cut", broken, times=-1))

    options = TransferOptions(attempts=15)  # eight breaks in a row are to be expected in so many

    def transfer(number: int) -> bool:
        if number % 4 == 0:
            name = f"b/{number}"
            upload(handler, name, memoryview(data), options=options)
            return store.objects.pop(name).data == data
        out = bytearray(len(data))
        download(handler, "b/data", memoryview(out), info=info if number % 4 > 1 else None, options=options)
        return out == data

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(transfer, range(10_000), chunksize=100))
    assert len(store.hit) > 2000


@pytest.mark.slow
def test_a_thousand_failed_uploads_leave_no_upload(store: Hostile, connect: Connect) -> None:
    chance = random.Random(7)
    data = memoryview(DATA)
    options = TransferOptions(part_size=PART, concurrency=2, attempts=2)
    denied = error(403, "AccessDenied")

    def write_and_raise(handler: S3Handler, name: str, data: memoryview, options: TransferOptions) -> None:
        with MultipartWriter(handler, name, options=options) as writing:
            writing.write(data[: 2 * PART])
            raise ZeroDivisionError

    def fail(number: int) -> None:
        handler = handlers[number % len(handlers)]
        name = f"b/failing-{number}"
        way = number % 4
        part = chance.randrange(1, 6)

        def mine(request: Request) -> bool:
            completing = request.method == "POST" and "uploadId" in request.query
            return request.path == name and way < 3 and (completing if way == 1 else request.part == part)

        act = {0: lambda request: denied, 1: lambda request: denied}.get(way)
        with store._lock:
            store.faults.append(Fault("change" if act else "reset", mine, at=-10, times=-1, act=act))
        with pytest.raises(ZeroDivisionError if way == 3 else StorageError):
            (write_and_raise if way == 3 else upload)(handler, name, data, options=options)
        with store._lock:
            store.faults[:] = [fault for fault in store.faults if fault.when is not mine]
        assert name not in store.objects

    handlers = [connect(timeout=5) for _ in range(100)]  # each has a retry quota of its own
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fail, range(1000)))
    assert store.uploads == {}


def test_error_pages_are_not_delivered(store: Hostile, connect: Connect) -> None:
    """An HTML page with status 200 and another length is not the object."""
    handler = connect()
    info = handler.describe("b/data")
    store.faults.append(Fault("change", act=lambda request: Answer(200, {}, b"<html>log in</html>")))
    with pytest.raises(ObjectChanged):
        download(handler, "b/data", memoryview(bytearray(len(DATA))), info=info)
