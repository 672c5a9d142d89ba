"""Every fault of a copy, on either side: the copy is whole, or it is not there."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from awscrt import checksums
from faults.conftest import DATA, OPTIONS, PART, patience
from servers.web.hostile import Answer, Fault, Hostile, Request, error

import apyfal.storage as st
from apyfal.exceptions import (
    AccessDenied,
    ChecksumMismatch,
    ObjectChanged,
    StorageError,
    StoreUnavailable,
    TransferCancelled,
)
from apyfal.storage.handler import Handler
from apyfal.storage.stores.file import FileHandler
from apyfal.storage.stores.fsspec.handler import FsspecHandler
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import CancelToken, TransferOptions, copy

Connect = Callable[..., S3Handler]
PLACES = pytest.mark.parametrize("place", [0, 2, 4], ids=["first", "middle", "last"])


def between(connect: Connect, options: TransferOptions = OPTIONS, timeout: float = 10.0) -> None:
    """Copy between two mounts, so that the bytes pass through here."""
    copy(connect(timeout=timeout), "b/data", connect(timeout=timeout), "b/copy", options=options)


def reading(place: int) -> Callable[[Request], bool]:
    return lambda request: request.method == "GET" and request.start == place * PART


def writing(place: int) -> Callable[[Request], bool]:
    return lambda request: request.method == "PUT" and request.part == place + 1


def answer(found: Answer) -> dict[str, object]:
    return {"kind": "change", "act": lambda request: found}


def check_whole(store: Hostile) -> None:
    assert store.objects["b/copy"].data == DATA
    assert not store.uploads


def check_nothing(store: Hostile) -> None:
    assert "b/copy" not in store.objects
    assert not store.uploads


@pytest.fixture(autouse=True)
def _large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small objects are copied as one piece: let this one count as large."""
    monkeypatch.setattr("apyfal.storage.transfer.object_copy.PART", PART)


PASSING = {
    "cut": {"kind": "cut", "at": 1000},
    "reset": {"kind": "reset", "at": -10},
    "silence": {"kind": "stall", "at": 100},
    "slow loris": {"kind": "drip", "at": 0},
    "500": answer(error(500, "InternalError")),
    "503": answer(error(503, "SlowDown")),
}


@PLACES
@pytest.mark.parametrize("side", [reading, writing], ids=["source", "destination"])
@pytest.mark.parametrize("fault", PASSING)
def test_a_copy_survives(
    store: Hostile, connect: Connect, fault: str, side: Callable[[int], Callable[[Request], bool]], place: int
) -> None:
    parameters = dict(PASSING[fault])
    if side is writing and parameters.get("at", -1) >= 0:
        parameters["at"] = -50  # the answer to a write has no body
    store.faults.append(Fault(when=side(place), **parameters))
    between(connect, timeout=patience(parameters))
    assert len(store.hit) == 1
    check_whole(store)


LASTING = {
    "source 403": (reading, answer(error(403, "AccessDenied")), AccessDenied),
    "source 412": (reading, answer(error(412, "PreconditionFailed")), ObjectChanged),
    "source closed": (reading, {"kind": "cut", "at": 0}, StoreUnavailable),
    "destination 403": (writing, answer(error(403, "AccessDenied")), AccessDenied),
    "destination 503": (writing, answer(error(503, "SlowDown")), StoreUnavailable),
}


@PLACES
@pytest.mark.parametrize("fault", LASTING)
def test_a_failed_copy_leaves_nothing(store: Hostile, connect: Connect, fault: str, place: int) -> None:
    side, parameters, kind = LASTING[fault]
    store.faults.append(Fault(when=side(place), times=-1, **parameters))
    with pytest.raises(kind):
        between(connect, TransferOptions(part_size=PART, concurrency=3, attempts=3))
    check_nothing(store)


@PLACES
def test_a_failed_copy_leaves_the_old_object(store: Hostile, connect: Connect, place: int) -> None:
    store.put("b/copy", b"old")
    store.faults.append(Fault(when=reading(place), times=-1, **answer(error(403, "AccessDenied"))))
    with pytest.raises(AccessDenied):
        between(connect)
    assert store.objects["b/copy"].data == b"old"
    assert not store.uploads


@PLACES
def test_a_source_that_changes_is_not_copied(store: Hostile, connect: Connect, place: int) -> None:
    store.faults.append(Fault("change", reading(place), act=lambda request: store.put("b/data", DATA[::-1]) and None))
    with pytest.raises(ObjectChanged):
        between(connect)
    check_nothing(store)


@PLACES
def test_a_flipped_bit_is_not_copied(store: Hostile, connect: Connect, place: int) -> None:
    value = base64.b64encode(checksums.crc64nvme(DATA).to_bytes(8, "big")).decode()
    store.put("b/data", DATA, x_amz_checksum_crc64nvme=value)
    store.faults.append(Fault("flip", reading(place), at=77))
    with pytest.raises(ChecksumMismatch):
        between(connect)
    check_nothing(store)


def test_inside_a_store_the_store_copies(store: Hostile, connect: Connect) -> None:
    handler = connect()
    copy(handler, "b/data", handler, "b/copy")
    check_whole(store)
    assert [request.method for request in store.requests] == ["HEAD", "PUT"]


INSIDE = {
    "500": answer(error(500, "InternalError")),
    "lost answer": {"kind": "lose"},
    "200 with an error": answer(Answer(200, {}, error(500, "InternalError").body)),
    "200 with half a document": answer(Answer(200, {}, b"<CopyObjectResult>")),
    "silence": {"kind": "stall", "at": -100_000},
}


@pytest.mark.parametrize("fault", INSIDE)
def test_a_copy_inside_a_store_survives(store: Hostile, connect: Connect, fault: str) -> None:
    store.faults.append(Fault(when=lambda request: request.method == "PUT", **INSIDE[fault]))
    handler = connect(timeout=patience(INSIDE[fault]))
    copy(handler, "b/data", handler, "b/copy")
    assert len(store.hit) == 1
    check_whole(store)


def test_a_200_with_an_error_is_no_copy(store: Hostile, connect: Connect) -> None:
    found = Answer(200, {}, error(403, "AccessDenied").body)
    store.faults.append(Fault(when=lambda request: request.method == "PUT", times=-1, **answer(found)))
    handler = connect()
    with pytest.raises(StorageError, match="AccessDenied"):
        copy(handler, "b/data", handler, "b/copy")
    check_nothing(store)


@PLACES
@pytest.mark.parametrize("fault", [*INSIDE, None])
def test_a_large_copy_inside_a_store_is_made_of_parts(
    store: Hostile, connect: Connect, monkeypatch: pytest.MonkeyPatch, fault: str | None, place: int
) -> None:
    monkeypatch.setattr("apyfal.storage.stores.s3.handler._MAX_COPY", PART)
    monkeypatch.setattr("apyfal.storage.stores.s3.handler.COPY_PART", PART)
    if fault is not None:
        store.faults.append(Fault(when=writing(place), **INSIDE[fault]))
    handler = connect(timeout=patience(INSIDE[fault or "500"]))
    copy(handler, "b/data", handler, "b/copy")
    assert len(store.hit) == (fault is not None)
    check_whole(store)


def test_a_large_copy_that_fails_leaves_nothing(
    store: Hostile, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apyfal.storage.stores.s3.handler._MAX_COPY", PART)
    monkeypatch.setattr("apyfal.storage.stores.s3.handler.COPY_PART", PART)
    store.faults.append(Fault(when=writing(3), times=-1, **answer(error(403, "AccessDenied"))))
    handler = connect()
    with pytest.raises(AccessDenied):
        copy(handler, "b/data", handler, "b/copy")
    check_nothing(store)


def test_a_large_copy_is_tried_as_often_as_any_request(
    store: Hostile, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's handler repeats nothing, so that attempts do not multiply: one upload, and one series of attempts."""
    monkeypatch.setattr("apyfal.storage.stores.s3.handler._MAX_COPY", PART)
    monkeypatch.setattr("apyfal.storage.stores.s3.handler.COPY_PART", PART)
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.001)
    store.faults.append(Fault(when=writing(1), times=-1, **answer(error(503, "SlowDown"))))
    handler = connect()
    with pytest.raises(StoreUnavailable, match="attempt 5"):
        copy(handler, "b/data", handler, "b/copy", options=TransferOptions(attempts=5))
    assert len(store.hit) == 5
    assert [request.method for request in store.requests].count("POST") == 1
    check_nothing(store)


def _to_a_disk(tmp_path: Path) -> tuple[Handler, str]:
    return FileHandler(), str(tmp_path / "copy")


def _to_a_filesystem(tmp_path: Path) -> tuple[Handler, str]:
    made = FsspecHandler(protocol="memory")
    made.makedirs("first")
    return made, "first/copy"


@pytest.mark.parametrize("to", [_to_a_disk, _to_a_filesystem])
@pytest.mark.parametrize("ends", ["an error", "a signal"])
def test_parts_that_wait_for_one_that_failed_end(
    store: Hostile, connect: Connect, tmp_path: Path, to: Callable[[Path], tuple[Handler, str]], ends: str
) -> None:
    """Where a file's parts go is known with the first one, or after the one before it."""
    destination, path = to(tmp_path)
    cancel = CancelToken()

    def refuse(request: Request) -> Answer:
        if ends == "a signal":
            cancel.set()
        return error(403, "AccessDenied")

    # the first part is silent for so long that the others wait for their places
    store.faults.append(Fault("stall", reading(0), at=100))
    going_on = Fault("change", lambda request: request.start is not None and request.start < PART, times=-1, act=refuse)
    store.faults.append(going_on)
    options = TransferOptions(part_size=PART, concurrency=3, cancel=cancel)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            copy(connect(timeout=1.0), "b/data", destination, path, options=options)
        except BaseException as found:
            failed.append(found)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it waits for ever"
    assert isinstance(failed[0], AccessDenied if ends == "an error" else (TransferCancelled, AccessDenied))
    assert list(tmp_path.iterdir()) == []
    if isinstance(destination, FsspecHandler):
        assert list(destination.list("first", recursive=True)) == []


def buckets_made(store: Hostile) -> list[str]:
    return [
        request.path for request in store.requests if request.method == "PUT" and "/" not in request.path.strip("/")
    ]


@pytest.fixture
def lab(store: Hostile) -> Iterator[str]:
    st.mount("lab", provider="s3", client_id="a", secret_id="b", endpoint_url=store.endpoint_url, config={})
    yield "lab://b"
    st.unmount("lab")


def test_a_recursive_copy_makes_no_bucket(store: Hostile, lab: str, tmp_path: Path) -> None:
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/below/file").write_bytes(b"data")
    store.put("b/tree/below/file", b"data")
    store.requests.clear()
    files = st.filesystem()
    files.cp(f"{lab}/tree", f"{lab}/copy", recursive=True)
    files.put(str(tmp_path / "tree"), f"{lab}/put", recursive=True)
    assert store.objects["b/copy/below/file"].data == store.objects["b/put/below/file"].data == b"data"
    assert not buckets_made(store)


@pytest.mark.parametrize("status", [200, 403])
def test_a_directory_of_a_bucket_needs_no_right_to_make_buckets(store: Hostile, lab: str, status: int) -> None:
    """Most accounts have none; pandas, pyarrow and others make the directory before they write a file."""

    def on_bucket(request: Request) -> bool:
        return request.path.strip("/") == "b"

    refused = error(403, "AccessDenied")
    store.faults.append(Fault("change", lambda r: on_bucket(r) and r.method == "PUT", times=-1, act=lambda _: refused))
    told = Answer(status) if status == 200 else refused
    store.faults.append(Fault("change", lambda r: on_bucket(r) and r.method != "PUT", times=-1, act=lambda _: told))
    st.makedirs(f"{lab}/some/directory", exist_ok=True)
    st.filesystem().makedirs(f"{lab}/some/directory", exist_ok=True)
    assert not buckets_made(store)
    with pytest.raises(AccessDenied):
        st.makedirs(lab, exist_ok=True)


def test_a_directory_of_no_bucket_makes_the_bucket(store: Hostile, lab: str) -> None:
    st.makedirs("lab://other/directory", exist_ok=True)
    assert buckets_made(store)
