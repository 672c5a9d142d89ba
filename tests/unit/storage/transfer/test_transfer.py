"""The engine on a store in memory: what lands where, in which order, in how much memory."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from servers.web.hostile import Hostile, hostile

from apyfal.exceptions import ChecksumMismatch, ParameterError, TransferCancelled
from apyfal.storage.flow.retry import limits_for
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import CancelToken, MultipartWriter, TransferOptions, copy, download, stream, upload
from apyfal.storage.transfer.parallel import ParallelDownload
from apyfal.storage.transfer.ranges import RangeFetcher

PART = 64 << 10
DATA = random.Random(8).randbytes(7 * PART + 5)
OPTIONS = TransferOptions(part_size=PART, concurrency=4)


@pytest.fixture(scope="module")
def store() -> Iterator[Hostile]:
    with hostile() as server:
        yield server


@pytest.fixture
def handler(store: Hostile) -> Iterator[S3Handler]:
    store.reset()
    store.put("b/data", DATA)
    made = S3Handler(client_id="key", secret_id="secret", endpoint_url=store.endpoint_url, timeout=10)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 0), (5, 5), (1, None), (len(DATA) - 1, None), (PART - 1, 3 * PART + 1), (0, 1)],
)
@pytest.mark.parametrize("known", [True, False])
def test_any_range(handler: S3Handler, start: int, stop: int | None, known: bool) -> None:
    info = handler.describe("b/data") if known else None
    expected = DATA[start:stop]
    if not known and not expected:
        info = handler.describe("b/data")  # an empty range cannot be asked for
    out = bytearray(len(expected))
    download(handler, "b/data", memoryview(out), start=start, stop=stop, info=info, options=OPTIONS)
    assert out == expected


def test_more_memory_than_needed_stays_as_it_is(handler: S3Handler) -> None:
    out = bytearray(b"x" * (len(DATA) + 9))
    info = download(handler, "b/data", memoryview(out), options=OPTIONS)
    assert info.size == len(DATA)
    assert out == DATA + b"x" * 9


def test_memory_of_any_format(handler: S3Handler, store: Hostile) -> None:
    store.put("b/data", DATA[:80])
    out = bytearray(80)
    download(handler, "b/data", memoryview(out).cast("d", (2, 5)))
    assert out == DATA[:80]


@pytest.mark.parametrize(
    ("out", "match"),
    [
        (memoryview(bytes(len(DATA))), "read-only"),
        (memoryview(bytearray(2 * len(DATA)))[::2], "not contiguous"),
        (memoryview(bytearray(9)), "do not fit"),
        (None, "needs memory"),
    ],
)
def test_memory_that_cannot_be_used(handler: S3Handler, out: memoryview | None, match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        download(handler, "b/data", out)


@pytest.mark.parametrize(("start", "stop"), [(0, len(DATA) + 1), (-1, 5), (7, 5)])
def test_ranges_that_are_none(handler: S3Handler, start: int, stop: int) -> None:
    with pytest.raises(ParameterError, match="bytes"):
        download(handler, "b/data", memoryview(bytearray(10**6)), start=start, stop=stop)


def test_memory_is_made_once_the_size_is_known(handler: S3Handler, store: Hostile) -> None:
    made: list[memoryview] = []

    def allocate(nbytes: int) -> memoryview:
        made.append(memoryview(bytearray(nbytes)))
        return made[-1]

    download(handler, "b/data", None, allocate=allocate, options=OPTIONS)
    assert [bytes(one) for one in made] == [DATA]
    assert not any(request.method == "HEAD" for request in store.requests)


def test_a_small_object_is_one_request(handler: S3Handler, store: Hostile) -> None:
    store.put("b/data", DATA[:1000])
    download(handler, "b/data", memoryview(bytearray(1000)))
    upload(handler, "b/new", memoryview(DATA[:1000]))
    assert [request.method for request in store.requests] == ["GET", "PUT"]


def test_the_front_is_announced_as_it_becomes_ready(handler: S3Handler) -> None:
    out = bytearray(len(DATA))
    ready: list[int] = []
    wrong: list[int] = []

    def on_ready(upto: int) -> None:
        ready.append(upto)
        if out[:upto] != DATA[:upto]:
            wrong.append(upto)

    download(handler, "b/data", memoryview(out), on_ready=on_ready, options=OPTIONS)
    assert ready == sorted(set(ready))
    assert ready[-1] == len(DATA)
    assert not wrong


def test_progress_ends_at_the_total(handler: S3Handler) -> None:
    seen: list[tuple[int, int | None]] = []

    def collect(done: int, total: int | None) -> None:
        seen.append((done, total))

    download(handler, "b/data", memoryview(bytearray(len(DATA))), progress=collect, options=OPTIONS)
    assert seen[-1] == (len(DATA), len(DATA))
    seen.clear()
    upload(handler, "b/new", memoryview(DATA), progress=collect, options=OPTIONS)
    assert seen[-1] == (len(DATA), len(DATA))


def test_a_signal_while_the_others_are_waited_for_ends_them(
    handler: S3Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written to the caller's memory afterwards."""
    join, receive = ParallelDownload._join, RangeFetcher.receive
    waiting, signals, ended = threading.Event(), iter([KeyboardInterrupt]), []

    def receiving(fetcher: RangeFetcher, out: memoryview, start: int, *arguments: Any) -> int:
        if threading.current_thread() is not threading.main_thread():
            assert waiting.wait(60)
            ended.append(fetcher.cancel.is_set())
        return receive(fetcher, out, start, *arguments)

    def joining(transfer: ParallelDownload) -> None:
        if (error := next(signals, None)) is not None:
            raise error
        waiting.set()
        join(transfer)

    monkeypatch.setattr(RangeFetcher, "receive", receiving)
    monkeypatch.setattr(ParallelDownload, "_join", joining)
    try:
        with pytest.raises(KeyboardInterrupt):
            download(handler, "b/data", memoryview(bytearray(len(DATA))), options=OPTIONS)
        assert ended
        assert all(ended)
    finally:
        waiting.set()


def test_an_exception_in_a_callback_ends_the_transfer(handler: S3Handler) -> None:
    def fail(upto: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        download(handler, "b/data", memoryview(bytearray(len(DATA))), on_ready=fail, options=OPTIONS)
    # the store of this test has threads of its own
    assert [thread.name for thread in threading.enumerate() if re.match("apyfal-(?!deadlines)", thread.name)] == []


def test_a_cancelled_transfer_does_not_begin(handler: S3Handler, store: Hostile) -> None:
    cancel = CancelToken()
    cancel.set()
    options = TransferOptions(cancel=cancel)
    with pytest.raises(TransferCancelled):
        download(handler, "b/data", memoryview(bytearray(len(DATA))), options=options)
    with pytest.raises(TransferCancelled):
        upload(handler, "b/new", memoryview(DATA), options=options)
    assert "b/new" not in store.objects


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_small_object_is_held_against_a_digest(handler: S3Handler, algorithm: str) -> None:
    info = handler.describe("b/data")
    out = memoryview(bytearray(len(DATA)))
    right = hashlib.new(algorithm, DATA).digest()
    for digest in (right, bytes(len(right))):
        stated = ObjectInfo(info.path, info.size, info.etag, checksums={algorithm: digest})
        if digest == right:
            download(handler, "b/data", out, info=stated)
        else:
            with pytest.raises(ChecksumMismatch):
                download(handler, "b/data", out, info=stated)
            download(handler, "b/data", out, info=stated, options=TransferOptions(verify=False))


# -- streams -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("piece", [1000, PART, 3 * PART + 1, len(DATA) + 5])
def test_a_stream_gives_everything_once(handler: S3Handler, piece: int) -> None:
    out = bytearray()
    buffer = memoryview(bytearray(piece))
    with stream(handler, "b/data", options=OPTIONS) as reading:
        while count := reading.readinto(buffer):
            out += buffer[:count]
        assert reading.readinto(buffer) == 0
    assert out == DATA


def test_a_stream_seeks_and_reads_anywhere(handler: S3Handler) -> None:
    chance = random.Random(9)
    with stream(handler, "b/data", options=OPTIONS) as reading:
        for _ in range(30):
            place, length = chance.randrange(len(DATA)), chance.randrange(1, 100_000)
            buffer = memoryview(bytearray(length))
            count = reading.pread(buffer, place)
            assert buffer[:count] == DATA[place : place + length]
            reading.seek(place)
            count = reading.readinto(buffer)
            assert count > 0
            assert buffer[:count] == DATA[place : place + count]
        assert reading.pread(buffer, len(DATA)) == 0


def test_read_ahead_is_bounded(handler: S3Handler, store: Hostile) -> None:
    options = TransferOptions(part_size=PART, concurrency=4, memory=2 * PART)
    with stream(handler, "b/data", options=options) as reading:
        reading.readinto(memoryview(bytearray(10)))
        end = time.monotonic() + 20

        def asked() -> list[int | None]:
            return sorted(request.start for request in store.requests if request.method == "GET")

        while len(asked()) < 2 and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.2)  # for those that should not come
        assert asked() == [0, PART]


def test_closing_a_stream_gives_its_memory_back(handler: S3Handler) -> None:
    with stream(handler, "b/data", options=OPTIONS) as reading:
        reading.readinto(memoryview(bytearray(10)))
        assert limits_for(handler).memory._held > 0
    assert limits_for(handler).memory._held == 0
    with pytest.raises(ValueError, match="closed"):
        reading.readinto(memoryview(bytearray(10)))


# -- uploads -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 5 * PART, len(DATA)])
@pytest.mark.parametrize("piece", [999, PART, 2 * PART + 3])
def test_a_stream_of_unknown_length(handler: S3Handler, store: Hostile, size: int, piece: int) -> None:
    with MultipartWriter(handler, "b/new", options=OPTIONS) as writing:
        for start in range(0, size, piece):
            buffer = bytearray(DATA[start : min(start + piece, size)])
            writing.write(memoryview(buffer))
            buffer[:] = bytes(len(buffer))  # it may be used again
        assert "b/new" not in store.objects
        writing.commit()
    assert store.objects["b/new"].data == DATA[:size]
    assert not store.uploads
    assert limits_for(handler).memory._held == 0


def test_submitted_parts_are_sent_from_where_they_lie(handler: S3Handler, store: Hostile) -> None:
    with MultipartWriter(handler, "b/new", options=OPTIONS) as writing:
        futures = [
            writing.submit(memoryview(DATA)[start : start + 2 * PART]) for start in range(0, len(DATA), 2 * PART)
        ]
        for future in futures:
            future.result(10)
        writing.commit()
    assert store.objects["b/new"].data == DATA


def test_parts_keep_to_the_limits_of_the_store(handler: S3Handler) -> None:
    handler.limits = type(handler.limits)(min_part=5 << 20, max_part=1 << 30, max_parts=100)
    assert MultipartWriter(handler, "b/new", 1 << 34).part_size() * 100 >= 1 << 34
    assert MultipartWriter(handler, "b/new", 6 << 20).part_size() >= 5 << 20
    assert MultipartWriter(handler, "b/new").part_size() >= 5 << 20


# -- copies ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, PART, len(DATA), 9 << 20])
def test_copy_between_two_mounts(handler: S3Handler, store: Hostile, size: int) -> None:
    data = (DATA * (size // len(DATA) + 1))[:size]
    store.put("b/data", data)
    other = S3Handler(client_id="other", secret_id="secret", endpoint_url=store.endpoint_url)
    copy(handler, "b/data", other, "b/copy")
    other.close()
    assert store.objects["b/copy"].data == data
    assert not store.uploads


def test_limits_of_a_mount_hold(handler: S3Handler) -> None:
    handler.max_concurrency = 1
    assert TransferOptions(concurrency=8).connections(handler) == (1, 1)
    handler.bandwidth = 1e6
    begin = time.monotonic()
    download(handler, "b/data", memoryview(bytearray(len(DATA))), options=OPTIONS)
    assert time.monotonic() - begin >= len(DATA) / 1e6 - 0.15
