"""Every fault of a write: the object is whole, or it is not there; and no multipart upload is left behind."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable

import pytest
from faults.conftest import DATA, OPTIONS, PART, after_a_fault, patience
from servers.web.hostile import Answer, Fault, Hostile, Request, error

from apyfal.exceptions import (
    AccessDenied,
    ChecksumMismatch,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    StoreUnavailable,
    TransferCancelled,
    TransferTimeout,
)
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import CancelToken, MultipartWriter, TransferOptions, upload

Connect = Callable[..., S3Handler]
PARTS = pytest.mark.parametrize("part", [1, 3, 5], ids=["first", "middle", "last"])
WAYS = pytest.mark.parametrize("way", ["memory", "stream"])


def send(handler: S3Handler, way: str, options: TransferOptions = OPTIONS, **parameters: object) -> None:
    if way == "memory":
        upload(handler, "b/new", memoryview(DATA), options=options, **parameters)
        return
    with MultipartWriter(handler, "b/new", options=options, **parameters) as writing:
        for start in range(0, len(DATA), 10_000):
            writing.write(memoryview(DATA)[start : start + 10_000])
        writing.commit()


def at_part(part: int) -> Callable[[Request], bool]:
    return lambda request: request.method == "PUT" and request.part == part


def at_complete(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def at_begin(request: Request) -> bool:
    return request.method == "POST" and "uploads" in request.query


def answer(found: Answer) -> dict[str, object]:
    return {"kind": "change", "act": lambda request: found}


def check_nothing(store: Hostile) -> None:
    assert "b/new" not in store.objects
    assert not store.uploads


def check_whole(store: Hostile) -> None:
    assert store.objects["b/new"].data == DATA
    assert not store.uploads


PASSING = {
    "cut before the body": {"kind": "cut-request", "at": 0},
    "cut in the body": {"kind": "cut-request", "at": 50_000},
    "lost answer": {"kind": "lose"},
    "cut answer": {"kind": "cut", "at": -20},
    "reset": {"kind": "reset", "at": -10_000},
    "silence": {"kind": "stall", "at": -10_000},
    "slow loris": {"kind": "drip", "at": -30},
    "408": answer(error(408, "RequestTimeout")),
    "429": answer(error(429, "TooManyRequests")),
    "500": answer(error(500, "InternalError")),
    "503": answer(error(503, "SlowDown", retry_after="0")),
    "504": answer(Answer(504)),
    "BadDigest": answer(error(400, "BadDigest")),
    "no ETag": {"kind": "change", "edit": lambda request, found: found.headers.pop("etag", None)},
}


@PARTS
@WAYS
@pytest.mark.parametrize("fault", PASSING)
def test_a_part_survives(store: Hostile, connect: Connect, fault: str, way: str, part: int) -> None:
    store.faults.append(Fault(when=at_part(part), **PASSING[fault]))
    send(connect(timeout=patience(PASSING[fault])), way)
    assert len(store.hit) == 1
    check_whole(store)


LASTING = {
    "cut": ({"kind": "cut-request", "at": 5000}, StoreUnavailable),
    "silence": ({"kind": "stall", "at": -10_000}, TransferTimeout),
    "503": (answer(error(503, "SlowDown")), StoreUnavailable),
    "403": (answer(error(403, "AccessDenied")), AccessDenied),
    "404": (answer(error(404, "NoSuchUpload")), ObjectNotFound),
    "BadDigest": (answer(error(400, "BadDigest")), ChecksumMismatch),
    "EntityTooLarge": (answer(error(400, "EntityTooLarge")), StorageError),
}


@PARTS
@WAYS
@pytest.mark.parametrize("fault", LASTING)
def test_a_part_that_fails_ends_the_upload(store: Hostile, connect: Connect, fault: str, way: str, part: int) -> None:
    parameters, kind = LASTING[fault]
    store.faults.append(Fault(when=at_part(part), times=-1, **parameters))
    with pytest.raises(kind) as caught:
        send(connect(timeout=patience(parameters)), way, TransferOptions(part_size=PART, concurrency=3, attempts=3))
    assert "b/new" in str(caught.value)
    check_nothing(store)


@WAYS
@pytest.mark.parametrize("fault", ["cut before the body", "500", "503", "silence"])
def test_the_begin_survives(store: Hostile, connect: Connect, fault: str, way: str) -> None:
    # What happens here leaves no upload: whether one was begun when an answer is lost, only the store knows.
    parameters = {**PASSING[fault]}
    if fault == "silence":
        parameters["act"] = lambda request: Answer(500)
    store.faults.append(Fault(when=at_begin, **parameters))
    send(connect(timeout=patience(parameters)), way)
    check_whole(store)


COMPLETING = {
    "lost answer": {"kind": "lose"},
    "cut answer": {"kind": "cut", "at": 20},
    "reset": {"kind": "reset", "at": -50},
    "silence": {"kind": "stall", "at": -10_000},
    "cut request": {"kind": "cut-request", "at": 30},
    "500": answer(error(500, "InternalError")),
    "200 with InternalError": answer(Answer(200, {}, error(500, "InternalError").body)),
    "200 with SlowDown": answer(Answer(200, {}, error(500, "SlowDown").body)),
    "200 with half a document": answer(Answer(200, {}, b"<CompleteMultipartUploadResult><ETag>")),
}


@WAYS
@pytest.mark.parametrize("fault", COMPLETING)
def test_the_completion_survives(store: Hostile, connect: Connect, fault: str, way: str) -> None:
    store.faults.append(Fault(when=at_complete, **COMPLETING[fault]))
    send(connect(timeout=patience(COMPLETING[fault])), way)
    assert len(store.hit) == 1
    check_whole(store)


@WAYS
def test_a_200_with_an_error_is_an_error(store: Hostile, connect: Connect, way: str) -> None:
    store.faults.append(Fault(when=at_complete, times=-1, **answer(Answer(200, {}, error(400, "InvalidPart").body))))
    with pytest.raises(StorageError, match="InvalidPart"):
        send(connect(), way)
    check_nothing(store)


@WAYS
def test_after_a_lost_answer_another_object_is_not_taken_for_ours(store: Hostile, connect: Connect, way: str) -> None:
    def lose_to_another(request: Request, found: Answer) -> None:
        store.put("b/new", bytes(len(DATA)))
        found.status, found.body = 500, b""

    store.faults.append(Fault("change", at_complete, edit=lose_to_another))
    with pytest.raises(ObjectNotFound, match="NoSuchUpload"):
        send(connect(), way)


SMALL = random.Random(4).randbytes(5000)


@pytest.mark.parametrize("fault", PASSING)
def test_a_small_object_survives(store: Hostile, connect: Connect, fault: str) -> None:
    store.faults.append(Fault(when=lambda request: request.method == "PUT", **PASSING[fault]))
    upload(connect(timeout=patience(PASSING[fault])), "b/new", memoryview(SMALL))
    assert store.objects["b/new"].data == SMALL


def test_a_failed_write_leaves_the_old_object(store: Hostile, connect: Connect) -> None:
    store.put("b/new", b"old")
    store.faults.append(Fault(when=at_part(3), times=-1, **answer(error(403, "AccessDenied"))))
    with pytest.raises(AccessDenied):
        send(connect(), "memory")
    assert store.objects["b/new"].data == b"old"
    assert not store.uploads


@WAYS
def test_exclusive_refuses_what_exists(store: Hostile, connect: Connect, way: str) -> None:
    store.put("b/new", b"old")
    with pytest.raises(ObjectExists, match="b/new"):
        send(connect(), way, exclusive=True)
    assert store.objects["b/new"].data == b"old"
    assert not store.uploads


@pytest.mark.parametrize("checksum", [None, "crc64nvme"])
def test_exclusive_after_a_lost_answer_knows_its_own_object(
    store: Hostile, connect: Connect, checksum: str | None
) -> None:
    for data in (SMALL, DATA):
        store.objects.pop("b/new", None)
        store.faults.append(Fault("lose", lambda request: request.method == "PUT" or at_complete(request)))
        options = TransferOptions(part_size=PART)
        upload(connect(checksum=checksum), "b/new", memoryview(data), exclusive=True, options=options)
        assert store.objects["b/new"].data == data


@WAYS
@pytest.mark.parametrize("after", [0, 10_000, 200_000])
def test_an_exception_while_writing_leaves_nothing(store: Hostile, connect: Connect, way: str, after: int) -> None:
    def write() -> None:
        with MultipartWriter(connect(), "b/new", options=OPTIONS) as writing:
            if way == "stream":
                writing.write(memoryview(DATA)[:after])
            elif after >= PART:
                writing.submit(memoryview(DATA)[:after])
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        write()
    check_nothing(store)


def test_fewer_bytes_than_announced_leave_nothing(store: Hostile, connect: Connect) -> None:
    with MultipartWriter(connect(), "b/new", 10**6, options=OPTIONS) as writing:
        writing.write(memoryview(DATA))
        with pytest.raises(StorageError, match="announced"):
            writing.commit()
    check_nothing(store)


@pytest.mark.parametrize("by", ["options", "scope"])
@pytest.mark.parametrize("fault", ["change", "stall"])
def test_cancelling_is_prompt_and_leaves_nothing(store: Hostile, connect: Connect, fault: str, by: str) -> None:
    """While it waits for the store, and while all goes well; by its own token, and by that of all copies of a tree."""
    cancel = CancelToken()
    store.faults.append(Fault(fault, at_part(3), at=-10_000, times=-1))
    options = TransferOptions(part_size=PART, concurrency=2, cancel=cancel if by == "options" else None)
    handler = connect(timeout=60.0)

    def write() -> None:
        scope = cancel.scope() if by == "scope" else contextlib.nullcontext()
        with scope, MultipartWriter(handler, "b/new", options=options) as writing:
            while True:
                writing.write(memoryview(DATA))

    begin = time.monotonic()
    with after_a_fault(store, cancel.set), pytest.raises(TransferCancelled):
        write()
    assert time.monotonic() - begin < 20, "it waited for the store"
    check_nothing(store)


def test_the_body_is_signed_over_http_but_not_to_this_machine(store: Hostile, connect: Connect) -> None:
    upload(connect(), "b/new", memoryview(SMALL))
    assert store.requests[-1].headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    upload(connect(sign_payload=True), "b/new", memoryview(SMALL))
    assert len(store.requests[-1].headers["x-amz-content-sha256"]) == 64


def test_checksums_are_sent_only_where_wanted(store: Hostile, connect: Connect) -> None:
    send(connect(), "memory")
    assert not any("checksum" in name for request in store.requests for name in request.headers)
    store.requests.clear()
    send(connect(checksum="crc64nvme"), "memory")
    parts = [request for request in store.requests if request.part]
    assert parts
    assert all("x-amz-checksum-crc64nvme" in request.headers for request in parts)
