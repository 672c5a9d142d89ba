"""Copies of many small objects between two stores: each as `copy` makes it, by few calls."""

from __future__ import annotations

import base64
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from awscrt import checksums
from faults.conftest import after_a_fault, patience
from faults.native.conftest import edited, said
from servers.web.hostile import Answer, Fault, Hostile, Request, error, hostile

from apyfal import storage
from apyfal.cli import main
from apyfal.exceptions import AccessDenied, ObjectNotFound, StorageError, TransferCancelled
from apyfal.storage.batch.copies import copy_each
from apyfal.storage.batch.native import path_counts
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.url import parse

COUNT = 40
SIZE = 16_000
HIT = 17
OBJECTS = [random.Random(number).randbytes(SIZE + number) for number in range(COUNT)]
_names = itertools.count()
Copy = Callable[..., list[str]]


@pytest.fixture(scope="module")
def other_server() -> Iterator[Hostile]:
    with hostile() as running:
        yield running


@pytest.fixture
def there(other_server: Hostile) -> Iterator[Hostile]:
    other_server.reset()
    yield other_server
    other_server.reset()


@pytest.fixture
def schemes(
    store: Hostile, there: Hostile, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[str, str]]]:
    """Mount both stores, and fill the first."""
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.001)
    made: list[str] = []

    def make(**parameters: object) -> tuple[str, str]:
        given = {"client_id": "key", "secret_id": "secret", "timeout": 10.0, **parameters}
        names = [f"s3.copied{next(_names)}" for _ in range(2)]
        for name, server in zip(names, (store, there), strict=True):
            storage.mount(name, endpoint_url=server.endpoint_url, **given)
        made.extend(names)
        for number, data in enumerate(OBJECTS):
            store.put(f"b/t/{number}", data, content_type="text/odd", x_amz_meta_number=str(number))
        path_counts.take()
        return names[0], names[1]

    yield make
    for name in made:
        storage.unmount(name)


def copy_all(start: str, end: str, *, sizes: bool = True, **keywords: object) -> list[int]:
    """Copy everything; return what was copied one by one."""
    pairs = [(parse(f"{start}://b/t/{number}"), parse(f"{end}://c/{number}")) for number in range(COUNT)]
    alone: list[int] = []

    def one_by_one(numbers: list[int]) -> None:
        for number in numbers:
            alone.append(number)
            storage.copy(pairs[number][0].url, pairs[number][1].url)

    told: list[int] = []
    known = [len(data) if sizes else None for data in OBJECTS]
    keywords = {"copied": lambda done: told.extend(number for number, _ in done), "one_by_one": one_by_one, **keywords}
    copy_each(pairs, known, **keywords)
    assert sorted(told + alone) == list(range(COUNT))
    return alone


def whole(there: Hostile) -> bool:
    return [there.objects[f"c/{number}"].data for number in range(COUNT)] == OBJECTS


@pytest.mark.parametrize("sizes", [True, False])
def test_all_are_copied_with_their_metadata(
    store: Hostile, there: Hostile, schemes: Callable[..., tuple[str, str]], sizes: bool
) -> None:
    assert copy_all(*schemes(), sizes=sizes) == []
    assert whole(there)
    assert path_counts.take() == {"native": 2 * COUNT}
    assert {request.method for request in store.requests} == {"GET"}
    for request in there.requests:
        assert request.headers["content-type"] == "text/odd"
        assert request.headers["x-amz-meta-number"] == request.path.rpartition("/")[2]


def test_what_is_stated_counts_more(there: Hostile, schemes: Callable[..., tuple[str, str]]) -> None:
    copy_all(*schemes(), metadata=ObjectMetadata(content_type="image/png"))
    assert {request.headers["content-type"] for request in there.requests} == {"image/png"}
    assert all("x-amz-meta-number" in request.headers for request in there.requests)


def reading(request: Request) -> bool:
    return request.method == "GET" and request.path == f"b/t/{HIT}"


def writing(request: Request) -> bool:
    return request.method == "PUT" and request.path == f"c/{HIT}"


PASSING = {
    "closed": {"kind": "cut", "at": -20},
    "reset": {"kind": "reset", "at": -10},
    "lost": {"kind": "lose"},
    "silence": {"kind": "stall", "at": -10},
    "503": said(error(503, "SlowDown")),
    "500": said(error(500, "InternalError")),
    "chunked, cut": {"kind": "chunked", "at": 3},
}
READING = {
    "closed in the body": {"kind": "cut", "at": 5000},
    "no ETag": edited(etag=None),
    "a coding": edited(content_encoding="aws-chunked"),
    "a huge head": edited(x="y" * 20_000),
}


@pytest.mark.parametrize(
    ("side", "fault"),
    [*itertools.product((reading, writing), PASSING), *((reading, fault) for fault in READING)],
)
def test_copies_survive(
    store: Hostile,
    there: Hostile,
    schemes: Callable[..., tuple[str, str]],
    side: Callable[[Request], bool],
    fault: str,
) -> None:
    how = (PASSING | READING)[fault]
    names = schemes(timeout=patience(how))
    (store if side is reading else there).faults.append(Fault(when=side, **how))
    alone = copy_all(*names)
    assert HIT in alone or fault == "lost"  # which is repeated by the transport itself
    assert whole(there)
    assert there.objects[f"c/{HIT}"].data == OBJECTS[HIT]


def test_a_flipped_bit_is_not_copied(store: Hostile, there: Hostile, schemes: Callable[..., tuple[str, str]]) -> None:
    names = schemes()
    stated = base64.b64encode(checksums.crc64nvme(OBJECTS[HIT]).to_bytes(8, "big")).decode()
    store.put(f"b/t/{HIT}", OBJECTS[HIT], x_amz_checksum_crc64nvme=stated)
    store.faults.append(Fault("flip", reading, at=600))
    assert copy_all(*names) == [HIT]
    assert whole(there)


@pytest.mark.parametrize("grown", [True, False])
def test_an_object_that_has_changed_since_the_listing(
    store: Hostile, there: Hostile, schemes: Callable[..., tuple[str, str]], grown: bool
) -> None:
    names = schemes()
    data = OBJECTS[HIT] * 50 if grown else OBJECTS[HIT][:7]
    store.put(f"b/t/{HIT}", data)
    assert copy_all(*names) == ([HIT] if grown else [])
    assert there.objects[f"c/{HIT}"].data == data


LASTING = {
    "source 403": (reading, said(error(403, "AccessDenied")), AccessDenied),
    "source gone": (reading, said(error(404, "NoSuchKey")), ObjectNotFound),
    "source closed": (reading, {"kind": "cut", "at": 0}, StorageError),
    "destination 403": (writing, said(error(403, "AccessDenied")), AccessDenied),
    "destination 503": (writing, said(error(503, "SlowDown")), StorageError),
}


@pytest.mark.parametrize("fault", LASTING)
@pytest.mark.parametrize("keep_going", [True, False])
def test_the_command_tells_of_what_fails_and_copies_the_rest(
    store: Hostile,
    there: Hostile,
    schemes: Callable[..., tuple[str, str]],
    fault: str,
    keep_going: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    side, how, _ = LASTING[fault]
    start, end = schemes()
    store.objects.pop("b/data", None)
    (store if side is reading else there).faults.append(Fault(when=side, times=-1, **how))
    options = ["-k"] if keep_going else []
    sources = [f"{start}://b/t/{number}" for number in range(COUNT)]
    assert main(["copy", *options, *sources, f"{end}://c/"]) != 0
    told = capsys.readouterr().err
    assert f"/{HIT}" in told
    assert "Traceback" not in told
    assert f"c/{HIT}" not in there.objects
    for number in range(COUNT):
        name = f"c/{number}"
        assert name not in there.objects or there.objects[name].data == OBJECTS[number]
        assert number == HIT or name in there.objects or not keep_going


def test_trees_are_synchronized_by_few_calls(
    store: Hostile, there: Hostile, schemes: Callable[..., tuple[str, str]]
) -> None:
    start, end = schemes()
    store.objects.pop("b/data", None)
    for number in range(1200):
        there.put(f"c/old/{number}", b"old")

    def change(request: Request) -> None:
        if "changed" not in store.hit:
            store.hit.append("changed")
            store.put(f"b/t/{HIT}", b"changed", content_type="text/odd")

    there.faults.append(Fault("change", writing, times=1, act=change))
    report = storage.sync(f"{start}://b/t", f"{end}://c", delete=True)
    assert report.copied == {str(number): "new" for number in range(COUNT)}
    assert sorted(report.deleted) == sorted(f"old/{number}" for number in range(1200))
    assert not report.left
    assert path_counts.take()["native"] >= 3 * COUNT - 1  # read, written, looked up
    assert there.objects[f"c/{HIT}"].data == b"changed", "what was written to meanwhile is copied again"
    assert [there.objects[f"c/{n}"].data for n in range(COUNT) if n != HIT] == [
        data for number, data in enumerate(OBJECTS) if number != HIT
    ]
    assert sum("delete" in request.query for request in there.requests) == 2
    assert storage.sync(f"{start}://b/t", f"{end}://c", dry_run=True).deleted == []


def test_a_copy_inside_one_store_is_made_by_the_store(store: Hostile, schemes: Callable[..., tuple[str, str]]) -> None:
    start, _ = schemes()
    store.requests.clear()
    assert len(copy_all(start, start)) == COUNT
    assert sum("x-amz-copy-source" in request.headers for request in store.requests) == COUNT


def test_limits_of_the_mounts_hold(store: Hostile, there: Hostile, schemes: Callable[..., tuple[str, str]]) -> None:
    names = schemes(max_concurrency=2)
    most = {store: 0, there: 0}
    before = {server: set(server._open) for server in most}
    for server in most:

        def look(request: Request, server: Hostile = server) -> Answer | None:
            most[server] = max(most[server], len(server._open - before[server]))
            return None

        server.faults.append(Fault("change", times=-1, act=look))
    copy_all(*names)
    assert path_counts.take() == {"native": 2 * COUNT}
    assert max(most.values()) <= 2


@pytest.mark.parametrize("side", [reading, writing])
def test_cancelled(
    store: Hostile,
    there: Hostile,
    schemes: Callable[..., tuple[str, str]],
    side: Callable[[Request], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apyfal.storage.batch.copies._GROUP", 5)
    names = schemes(timeout=60.0)
    server = store if side is reading else there
    server.faults.append(Fault("stall", side, at=-10, times=-1))
    cancel = CancelToken()
    before = time.monotonic()
    with after_a_fault(server, cancel.set), cancel.scope(), pytest.raises(TransferCancelled):
        copy_all(*names)
    assert time.monotonic() - before < 20, "it waited for the store"
    assert not [one for one in threading.enumerate() if one.name.startswith("apyfal-copy")]
    assert all(stored.data in OBJECTS for stored in there.objects.values())
