"""Removal of many objects by one request: an object that the store does not say is removed is an error."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import fromstring

import pytest
from faults.conftest import after_a_fault
from faults.native.conftest import COUNT, HIT, Mount, edited, said
from servers.web.hostile import Answer, Fault, Hostile, Request, error

from apyfal import storage
from apyfal.exceptions import AccessDenied, ObjectNotFound, StorageError, StoreUnavailable, TransferCancelled
from apyfal.storage.flow.cancel import CancelToken


def asked(request: Request) -> bool:
    return request.method == "POST" and "delete" in request.query


def left(store: Hostile) -> set[str]:
    return {path for path in store.objects if path != "b/data"}


def test_one_request_for_all_with_the_checksum_that_s3_wants(store: Hostile, mount: Mount) -> None:
    urls = mount(checksum="crc64nvme")
    bodies: list[bytes] = []
    do = store._do
    store._do = lambda request, body: bodies.append(body) or do(request, body)
    try:
        assert storage.remove_many(urls) == [None] * COUNT
    finally:
        del store._do
    assert not left(store)
    sent = [request for request in store.requests if request.method != "HEAD"]
    assert [request.method for request in sent] == ["POST"]
    body = next(body for body in bodies if body)
    assert sent[0].headers["content-md5"] == base64.b64encode(hashlib.md5(body).digest()).decode()
    assert "x-amz-checksum-crc64nvme" in sent[0].headers
    assert len(fromstring(body)) == COUNT


def test_what_is_not_there_is_an_error_of_its_item(store: Hostile, mount: Mount) -> None:
    urls = mount()
    del store.objects[f"b/{HIT}"]
    found = storage.remove_many(urls, return_exceptions=True)
    assert isinstance(found[HIT], ObjectNotFound)
    assert [one for number, one in enumerate(found) if number != HIT] == [None] * (COUNT - 1)
    assert not left(store)


def entries(*entries: str) -> Answer:
    return Answer(200, {}, f"<DeleteResult>{''.join(entries)}</DeleteResult>".encode())


def gone(number: int) -> str:
    return f"<Deleted><Key>{number}</Key></Deleted>"


def refused(number: int, code: str) -> str:
    return f"<Error><Key>{number}</Key><Code>{code}</Code><Message>no</Message></Error>"


OTHERS = [gone(number) for number in range(COUNT) if number != HIT]
#: An answer that does not confirm one key: what its item becomes; `None` of all: every item.
LASTING = {
    "refused": (entries(*OTHERS, refused(HIT, "AccessDenied")), AccessDenied, 1),
    "refused and confirmed": (entries(gone(HIT), *OTHERS, refused(HIT, "AccessDenied")), AccessDenied, 1),
    "a code that nobody knows": (entries(*OTHERS, refused(HIT, "Odd")), StorageError, 1),
    "not confirmed": (entries(*OTHERS), StoreUnavailable, 1),
    "slow down": (entries(*OTHERS, refused(HIT, "SlowDown")), StoreUnavailable, 1),
    "nothing confirmed": (entries(), StoreUnavailable, COUNT),
    "another's key": (entries(*OTHERS, gone(HIT), "<Deleted><Key>other</Key></Deleted>"), StoreUnavailable, COUNT),
    "half a document": (Answer(200, {}, b"<DeleteResult><Deleted><Key>1</Key>"), StoreUnavailable, COUNT),
    "another document": (Answer(200, {}, b"<ListBucketResult/>"), StoreUnavailable, COUNT),
    "no document": (Answer(200, {}, b""), StoreUnavailable, COUNT),
    "an error with status 200": (Answer(200, {}, error(500, "InternalError").body), StoreUnavailable, COUNT),
    "503": (error(503, "SlowDown"), StoreUnavailable, COUNT),
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_is_not_confirmed_is_an_error_of_its_item(store: Hostile, mount: Mount, fault: str) -> None:
    answer, kind, count = LASTING[fault]
    urls = mount()
    store.faults.append(Fault(when=asked, times=-1, **said(answer)))
    found = storage.remove_many(urls, return_exceptions=True)
    assert sum(one is not None for one in found) == count
    assert isinstance(found[HIT], kind)
    for number, one in enumerate(found):
        assert one is None or f"b/{number}" in str(one)
    with pytest.raises(StorageError):
        storage.remove_many(urls)


PASSING = {
    "a key that is asked to wait": (said(entries(*OTHERS, refused(HIT, "SlowDown"))), 2),
    "a key that is not confirmed": (said(entries(*OTHERS)), 2),
    "503": (said(error(503, "SlowDown")), 2),
    "lost": ({"kind": "lose"}, 2),
    "closed in the document": ({"kind": "cut", "at": 40}, 2),
    "reset": ({"kind": "reset", "at": 5}, 2),
    "more than was asked": (edited(x_other="y"), 1),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_asked_again(store: Hostile, mount: Mount, fault: str) -> None:
    how, requests = PASSING[fault]
    urls = mount()
    store.faults.append(Fault(when=asked, **how))
    assert storage.remove_many(urls) == [None] * COUNT
    assert sum(map(asked, store.requests)) == requests
    assert left(store) <= ({f"b/{number}" for number in range(COUNT)} - {f"b/{HIT}"} if "key" in fault else set())


@pytest.mark.parametrize(
    "answer",
    [
        error(405, "MethodNotAllowed"),
        error(501, "NotImplemented"),
        error(400, "MalformedXML"),
        error(403, "AccessDenied"),
    ],
)
def test_a_store_without_such_requests_is_asked_for_each(store: Hostile, mount: Mount, answer: Answer) -> None:
    urls = mount()
    store.faults.append(Fault(when=asked, times=-1, **said(answer)))
    assert storage.remove_many(urls) == [None] * COUNT
    assert not left(store)
    assert sum(request.method == "DELETE" for request in store.requests) == COUNT


@pytest.mark.parametrize("key", ["a&b <c>", "tab\tkey", "line\nkey", "\x07", "é/ü", "x\ufffe", "a//b", "+ %25"])
def test_any_key(store: Hostile, mount: Mount, key: str) -> None:
    urls = mount()
    scheme = urls[0].partition("://")[0]
    for name in (key, key + "2"):
        storage.save(f"{scheme}://b/{name}", storage.load(urls[0]))
    before = len(store.objects)
    assert storage.remove_many([f"{scheme}://b/{key}", f"{scheme}://b/{key}2"]) == [None] * 2
    assert len(store.objects) == before - 2


def test_more_than_one_request_takes(store: Hostile, mount: Mount) -> None:
    urls = mount()
    scheme = urls[0].partition("://")[0]
    for number in range(2500):
        store.put(f"b/many/{number}", b"x")
    assert set(storage.remove_many([f"{scheme}://b/many/{number}" for number in range(2500)])) == {None}
    assert sum(map(asked, store.requests)) <= 4
    assert left(store) == {f"b/{number}" for number in range(COUNT)}


def test_a_cancelled_removal_ends(store: Hostile, mount: Mount) -> None:
    urls = mount(timeout=60.0)
    store.faults.append(Fault("stall", asked, at=0, times=-1))
    cancel = CancelToken()
    before = time.monotonic()
    with after_a_fault(store, cancel.set), cancel.scope(), pytest.raises(TransferCancelled):
        storage.remove_many(urls)
    assert time.monotonic() - before < 20, "it waited for the store"


# -- look-ups ----------------------------------------------------------------------------------------------------------
@dataclass
class Asked:
    """What a look-up may be answered with, and how many requests that costs."""

    how: dict[str, object]
    requests: int
    kind: type[Exception] | None = None


LOOK_UPS = {
    "the ordinary answer": Asked(edited(), 1),
    "closed": Asked({"kind": "cut", "at": -20}, 2),
    "503": Asked(said(error(503, "SlowDown")), 2),
    "no length": Asked(edited(content_length="0"), 2),
    "no ETag": Asked(edited(etag=None), 2),
    "gone": Asked(said(error(404, "NoSuchKey")), 2),
    "a body that nobody asked for": Asked({"kind": "change", "edit": lambda request, found: None}, 1),
}


@pytest.mark.parametrize("fault", LOOK_UPS)
def test_look_ups(store: Hostile, mount: Mount, fault: str) -> None:
    asked = LOOK_UPS[fault]
    urls = mount()
    expected = [storage.stat(url) for url in urls]
    store.requests.clear()

    def hit(request: Request) -> bool:
        return request.method == "HEAD" and request.path == f"b/{HIT}"

    store.faults.append(Fault(when=hit, **asked.how))
    assert storage.stat_many(urls) == expected
    mine = [request for request in store.requests if request.path == f"b/{HIT}"]
    assert len(mine) == asked.requests
    assert len(store.requests) == COUNT - 1 + len(mine)


def test_what_is_no_object_is_looked_up_as_by_stat(store: Hostile, mount: Mount) -> None:
    urls = mount()
    scheme = urls[0].partition("://")[0]
    store.put("b/folder/x", b"data")
    store.put("b/marked/", b"")
    store.put("b/empty", b"")
    names = [f"{scheme}://{path}" for path in ("b/folder/x", "b/marked/", "b/empty", "b", "b/none", "")]

    def told(call: object) -> object:
        return (type(call), str(call)) if isinstance(call, Exception) else call

    def alone(url: str) -> object:
        try:
            return storage.stat(url)
        except StorageError as error:
            return error

    together = storage.stat_many(names, return_exceptions=True)
    assert [str(told(one))[:60] for one in together] == [str(told(alone(url)))[:60] for url in names]


@pytest.fixture(autouse=True)
def _no_fault_is_left(store: Hostile) -> Iterator[None]:
    yield
    store.faults.clear()
