"""Addresses on the web over the native transport: the outcome of the general path, and which way each one took."""

from __future__ import annotations

import gzip
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faults.native.conftest import COUNT, HIT, OBJECTS, SIZE, edited, said
from servers.web.hostile import Answer, Fault, Hostile, Request, hostile

from apyfal import storage
from apyfal.exceptions import AccessDenied, ObjectNotFound
from apyfal.storage.batch import native
from apyfal.storage.batch.native import NativeReads, path_counts


@pytest.fixture
def urls(store: Hostile) -> Iterator[list[str]]:
    """Objects of the store as plain addresses, which need no signature."""
    for number, data in enumerate(OBJECTS):
        store.put(f"b/{number}", data)
    path_counts.take()
    yield [f"{store.endpoint_url}/b/{number}" for number in range(COUNT)]
    path_counts.take()


def hit(request: Request) -> bool:
    return request.method == "GET" and request.path == f"b/{HIT}"


@pytest.mark.parametrize("pooled", [False, True], ids=["out", "new memory"])
def test_they_go_the_native_way(store: Hostile, urls: list[str], pooled: bool) -> None:
    out = None if pooled else np.zeros((COUNT, SIZE), np.uint8)
    assert [bytes(array) for array in storage.load_many(urls, out)] == OBJECTS
    assert path_counts.take() == {"native": COUNT}
    assert len(store.requests) == COUNT
    assert {request.headers["accept-encoding"] for request in store.requests} == {"identity"}
    many = store.requests[0].headers
    storage.load(urls[0])
    assert store.requests[-1].headers == many


def test_secrets_are_for_the_server_of_their_address(store: Hostile, urls: list[str]) -> None:
    urls[HIT] = urls[HIT].replace("://", "://me:secret-word@")
    assert [bytes(array) for array in storage.load_many(urls)] == OBJECTS
    told = {request.path: request.headers.get("authorization") for request in store.requests}
    assert [path for path, value in told.items() if value] == [f"b/{HIT}"]
    assert told[f"b/{HIT}"] == "Basic bWU6c2VjcmV0LXdvcmQ="


COMPRESSED = Answer(200, {"content-encoding": "gzip"}, gzip.compress(OBJECTS[HIT]))
#: What happens to one answer once, the way of its transfer, and the requests that it takes in all.
PASSING = {
    "redirect": (said(Answer(302, {"location": f"/b/{HIT}?x"})), "answered", 2 + 1),
    "no ETag": (edited(etag=None), "answered", 1),
    "compressed": (said(COMPRESSED), "answered", 1),
    "503": (said(Answer(503)), "answered", 2),
    "closed in the body": ({"kind": "cut", "at": 10_001}, "broken", 2),
    "chunks": ({"kind": "chunked", "at": 7}, "unfit", 2),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes(store: Hostile, urls: list[str], monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.001)
    how, way, requests = PASSING[fault]
    store.faults.append(Fault(when=hit, times=2 if fault == "redirect" else 1, **how))
    assert [bytes(array) for array in storage.load_many(urls)] == OBJECTS
    assert path_counts.take() == {"native": COUNT - 1, way: 1}
    assert sum(map(hit, store.requests)) == requests


@pytest.mark.parametrize(("status", "kind"), [(404, ObjectNotFound), (410, ObjectNotFound), (403, AccessDenied)])
def test_what_lasts(
    store: Hostile, urls: list[str], monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception]
) -> None:
    store.faults.append(Fault(when=hit, times=-1, **said(Answer(status))))
    found = storage.load_many(urls, return_exceptions=True)
    assert path_counts.take() == {"native": COUNT - 1, "answered": 1}
    assert type(found[HIT]) is kind
    monkeypatch.setattr(NativeReads, "takes", lambda self, target: False)
    assert str(storage.load_many(urls, return_exceptions=True)[HIT]) == str(found[HIT])


def test_servers_with_few_files_are_asked_all_at_once(
    store: Hostile, urls: list[str], authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    with hostile(authority[1] if store.endpoint_url.startswith("https") else None) as other:
        other.put("b/x", b"other")
        mixed = [*urls, f"{other.endpoint_url}/b/x"]
        assert [bytes(array) for array in storage.load_many(mixed)] == [*OBJECTS, b"other"]
        assert path_counts.take() == {}
        monkeypatch.setattr(native, "_WORTH_ITS_TURN", COUNT)
        assert [bytes(array) for array in storage.load_many(mixed)] == [*OBJECTS, b"other"]
        assert path_counts.take() == {"native": COUNT}


def test_a_bad_address_is_its_own_error(store: Hostile, urls: list[str]) -> None:
    urls[HIT] = re.sub(r":\d+/", ":port/", urls[HIT])
    found = storage.load_many(urls, return_exceptions=True)
    assert [index for index, one in enumerate(found) if isinstance(one, Exception)] == [HIT]
