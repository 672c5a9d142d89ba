"""Removals by batches (Azure, Google): what a response does not confirm is an error of its item.

A scripted server speaks the requests of each store, and answers the one for many objects as the test says.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from apyfal import storage
from apyfal.exceptions import AccessDenied, IsADirectory, ObjectNotFound, StorageError, StoreUnavailable
from apyfal.storage.flow.cancel import CancelToken

COUNT = 8
HIT = 5
_names = itertools.count()
#: Status, type and body of a response.
Answer = tuple[int, str, bytes]
Edit = Callable[[dict[str, int]], Answer | None]


class Server(BaseHTTPRequestHandler):
    """Objects by path, and what happens to a request for many."""

    protocol_version = "HTTP/1.1"
    objects: set[str]
    kind: str
    edit: Edit | None
    asked: list[str]

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def answer(self, status: int, kind: str = "text/plain", body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):  # the client has had enough
                self.wfile.write(body)

    def path_of(self, target: str) -> str:
        path = urlsplit(target).path
        if self.kind == "gs":
            return unquote(path.removeprefix("/storage/v1/b/").replace("/o/", "/", 1))
        return unquote(path.removeprefix("/"))

    def remove(self, path: str) -> int:
        if path not in self.objects:
            return 404
        self.objects.remove(path)
        return 202 if self.kind == "az" else 204

    def do_HEAD(self) -> None:
        self.asked.append("HEAD")
        self.answer(200 if self.path_of(self.path) in self.objects else 404)

    def do_DELETE(self) -> None:
        self.asked.append("DELETE")
        self.answer(self.remove(self.path_of(self.path)))

    def do_POST(self) -> None:
        self.asked.append("POST")
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = [self.path_of(target) for target in re.findall(r"^DELETE (\S+) HTTP", body, re.MULTILINE)]
        edit = type(self).edit
        answer = edit(dict.fromkeys(paths, 0)) if edit is not None else None
        if answer is None:
            answer = said(self.kind, {path: self.remove(path) for path in paths})
        self.answer(*answer)


def said(kind: str, statuses: dict[str, int], ids: list[object] | None = None) -> Answer:
    """Write the response of a store to a request for many objects."""
    form = "{}" if kind == "az" else "<response-{}>"
    parts = [
        f"--b\r\nContent-Type: application/http\r\nContent-ID: {form.format(number)}\r\n\r\n"
        f"HTTP/1.1 {status} Said\r\nx-ms-request-id: 1\r\n\r\n"
        for number, status in zip(ids or range(len(statuses)), statuses.values(), strict=True)
    ]
    return 202 if kind == "az" else 200, "multipart/mixed; boundary=b", ("\r\n".join([*parts, "--b--\r\n"])).encode()


class Store:
    """The server, and the URLs of its objects."""

    def __init__(self, kind: str, server: type[Server], url: str) -> None:
        self.kind, self.server = kind, server
        self.mount = f"{kind}.batch{next(_names)}"
        given: dict[str, Any] = {"endpoint_url": url, "anonymous": True}
        if kind == "az":
            given["account"] = "a"
        storage.mount(self.mount, provider=kind, **given)
        self.urls = [f"{self.mount}://bucket/{number}" for number in range(COUNT)]
        self.port = url.rpartition(":")[2]
        self.done = 204 if kind != "az" else 202

    def all(self, paths: dict[str, int], **others: int) -> dict[str, int]:
        """Say that all are removed but these."""
        return {path: others.get(f"_{path.partition('/')[2]}", self.done) for path in paths}


@pytest.fixture(params=["az", "gs"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Run the server of one kind, with its objects."""
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.001)
    objects = {f"bucket/{number}" for number in range(COUNT)} | {"bucket/kept"}
    members = {"objects": objects, "kind": request.param, "edit": None, "asked": []}
    handler = type("Handler", (Server,), members)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        made = Store(request.param, handler, f"http://127.0.0.1:{server.server_port}")
        yield made
        storage.unmount(made.mount)
        server.shutdown()
        thread.join()


def test_one_request_for_all(store: Store) -> None:
    assert storage.remove_many(store.urls) == [None] * COUNT
    assert store.server.objects == {"bucket/kept"}
    assert store.server.asked.count("POST") == 1
    assert "DELETE" not in store.server.asked


def test_what_is_missing_or_no_object_is_an_error_of_its_item(store: Store) -> None:
    store.server.objects.remove(f"bucket/{HIT}")
    found = storage.remove_many([*store.urls, f"{store.mount}://bucket"], return_exceptions=True)
    assert isinstance(found.pop(), IsADirectory)
    assert isinstance(found[HIT], ObjectNotFound)
    assert f"bucket/{HIT}" in str(found[HIT])
    assert [one for number, one in enumerate(found) if number != HIT] == [None] * (COUNT - 1)
    assert store.server.objects == {"bucket/kept"}


def test_what_is_refused_is_an_error_of_its_item(store: Store) -> None:
    store.server.edit = lambda paths: said(store.kind, store.all(paths, **{f"_{HIT}": 403}))
    found = storage.remove_many(store.urls, return_exceptions=True)
    assert isinstance(found[HIT], AccessDenied)
    assert f"bucket/{HIT}" in str(found[HIT])
    assert sum(one is not None for one in found) == 1
    with pytest.raises(AccessDenied):
        storage.remove_many(store.urls)


def broken(store: Store, how: str, paths: dict[str, int]) -> Answer:
    """Write a response that contradicts the request."""
    status, kind, body = said(store.kind, store.all(paths))
    some = dict(list(store.all(paths).items())[:-1])
    if how == "no end":
        return status, kind, body[:-6]
    if how == "empty":
        return status, kind, b""
    if how == "huge":
        return status, kind, body + b" " * (5 << 20)
    if how == "another type":
        return status, "text/html", b"<html>"
    if how == "too few":
        return said(store.kind, some)
    ids: dict[str, list[object]] = {
        "too many": [*range(COUNT - 1), COUNT],
        "another's": [*range(COUNT - 1), 99999],
        "twice": [*range(COUNT - 1), 0],
        "odd": [*range(COUNT - 1), "²"],
    }
    return said(store.kind, store.all(paths), ids[how])


HOW = ["no end", "empty", "huge", "another type", "too few", "too many", "another's", "twice", "odd"]


@pytest.mark.parametrize("how", HOW)
def test_a_response_that_contradicts_the_request_confirms_nothing(store: Store, how: str) -> None:
    store.server.edit = lambda paths: broken(store, how, paths)
    found = storage.remove_many(store.urls, return_exceptions=True)
    assert isinstance(found[COUNT - 1], StoreUnavailable)
    for number, one in enumerate(found):
        assert one is None or f"bucket/{number}" in str(one)
    assert how == "too few" or all(isinstance(one, StoreUnavailable) for one in found)
    assert "DELETE" not in store.server.asked
    assert len(store.server.objects) == COUNT + 1


@pytest.mark.parametrize("how", HOW)
def test_after_such_a_response_what_is_gone_is_gone(store: Store, how: str) -> None:
    def edit(paths: dict[str, int]) -> Answer:
        store.server.edit = None
        store.server.objects -= set(list(paths)[:3])
        return broken(store, how, paths)

    store.server.edit = edit
    assert storage.remove_many(store.urls) == [None] * COUNT
    # of too few responses, the others are taken at their word
    assert "bucket/kept" in store.server.objects
    assert len(store.server.objects) <= (5 if how == "too few" else 1)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_a_server_without_such_requests_is_asked_for_each(
    store: Store, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    store.server.edit = lambda paths: (status, "text/plain", b"no")
    with caplog.at_level(logging.DEBUG, "apyfal"):
        assert storage.remove_many(store.urls) == [None] * COUNT
    assert store.server.objects == {"bucket/kept"}
    assert store.server.asked.count("DELETE") == COUNT
    assert f"{COUNT} objects are removed one by one" in caplog.text


def test_more_than_a_request_takes(store: Store) -> None:
    many = [f"bucket/many/{number}" for number in range(270)]
    store.server.objects |= set(many)
    assert set(storage.remove_many([f"{store.mount}://{path}" for path in many])) == {None}
    assert not store.server.objects & set(many)
    assert store.server.asked.count("POST") == {"az": 2, "gs": 3}[store.kind]


@pytest.mark.parametrize("name", ["a/../kept", "./kept", "x\\..\\kept", "..", "folder/"])
def test_names_that_a_server_may_resolve_go_alone(store: Store, name: str) -> None:
    store.server.objects |= {f"bucket/{name}"}
    storage.remove_many([f"{store.mount}://bucket/{name}", *store.urls], return_exceptions=True)
    assert "bucket/kept" in store.server.objects


def test_a_cancelled_removal_ends(store: Store) -> None:
    cancel = CancelToken()

    def edit(paths: dict[str, int]) -> Answer:
        cancel.set()
        return 503, "text/plain", b""

    store.server.edit = edit
    with cancel.scope(), pytest.raises(StorageError, match="cancel"):
        storage.remove_many(store.urls)


def test_blobs_go_one_by_one_with_a_shared_access_signature(store: Store) -> None:
    if store.kind == "az":
        url = f"http://127.0.0.1:{store.port}"
        storage.mount("az.signed", provider="az", endpoint_url=url, account="a", sas="sv=1&sig=x")
        assert storage.remove_many([f"az.signed://bucket/{number}" for number in range(COUNT)]) == [None] * COUNT
        storage.unmount("az.signed")
        assert set(store.server.asked) == {"DELETE"}
