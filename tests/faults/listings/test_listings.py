"""Listings are whole or an error, for every store that lists in pages: no store's habit cuts one in silence.

A scripted server speaks the listing of each store, in pages of ten, and misbehaves as the table says.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest

from apyfal.exceptions import StorageError
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import Handler
from apyfal.storage.http.origin import split_url
from apyfal.storage.stores.azure.handler import AzureHandler
from apyfal.storage.stores.gcs.json_api import GSJsonHandler
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.stores.swift.handler import SwiftHandler

NAMES = [f"p/k{number:02}" for number in range(25)]
PAGE = 10


class Page(NamedTuple):
    """What a server has decided to send."""

    names: list[str]
    token: str | None
    truncated: bool


def _marks(page: Page) -> str:
    return f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>"


def _contents(page: Page) -> str:
    return "".join(f"<Contents><Key>{name}</Key><Size>1</Size></Contents>" for name in page.names)


def s3(page: Page) -> str:
    token = f"<NextContinuationToken>{page.token}</NextContinuationToken>" if page.token else ""
    count = f"<KeyCount>{len(page.names)}</KeyCount>"
    return f"<ListBucketResult>{_marks(page)}{token}{count}{_contents(page)}</ListBucketResult>"


def azure(page: Page) -> str:
    blobs = "".join(
        f"<Blob><Name>{name}</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>"
        for name in page.names
    )
    marker = f"<NextMarker>{page.token}</NextMarker>" if page.token else "<NextMarker/>"
    return f"<EnumerationResults><Blobs>{blobs}</Blobs>{marker}</EnumerationResults>"


def gcs(page: Page) -> str:
    items = [{"name": name, "size": "1", "etag": "e", "generation": "1"} for name in page.names]
    return json.dumps({"items": items} | ({"nextPageToken": page.token} if page.token else {}))


def swift(page: Page) -> str:
    return json.dumps([{"name": name, "bytes": 1, "hash": "0" * 32} for name in page.names])


class Store(NamedTuple):
    """How a store is asked, and by which parameter a listing goes on."""

    body: Callable[[Page], str]
    parameter: str
    connect: Callable[[str], Handler]


STORES = {
    "s3": Store(s3, "continuation-token", lambda url: S3Handler(endpoint_url=url, client_id="a", secret_id="b")),
    "azure": Store(azure, "marker", lambda url: AzureHandler(endpoint_url=url, account="a", anonymous=True)),
    "gcs": Store(gcs, "pageToken", lambda url: GSJsonHandler(True, split_url(url)[0], None, "project")),
    "swift": Store(
        swift,
        "marker",
        lambda url: SwiftHandler(endpoint_url=f"{url}/auth/v1.0", auth_type="v1", client_id="a", secret_id="b"),
    ),
}


def behind(name: str | None, names: list[str] = NAMES) -> Page:
    """Return the page behind a name, which goes on behind its last."""
    left = [one for one in names if name is None or one > name]
    more = len(left) > PAGE
    return Page(left[:PAGE], left[PAGE - 1] if more else None, more)


class Script(NamedTuple):
    """A habit: what is sent to the query of request `number`, and whether the listing is whole then."""

    answer: Callable[[Store, dict[str, str], int], str]
    whole: bool
    stores: str = "s3 azure gcs swift"


def _good(store: Store, query: dict[str, str], number: int) -> Page:
    return behind(query.get(store.parameter) or None)


def _listing(change: Callable[[Page, int], Page]) -> Callable[[Store, dict[str, str], int], str]:
    return lambda store, query, number: store.body(change(_good(store, query, number), number))


def _v1(page: Page, marker: bool) -> str:
    stated = f"<NextMarker>{page.names[-1]}</NextMarker>" if marker and page.truncated else ""
    return f"<ListBucketResult>{_marks(page)}{stated}{_contents(page)}</ListBucketResult>"


def _version_1(marker: bool) -> Callable[[Store, dict[str, str], int], str]:
    return lambda store, query, number: _v1(behind(query.get("marker")), marker)


def _without(pattern: str) -> Callable[[Store, dict[str, str], int], str]:
    return lambda store, query, number: re.sub(pattern, "", store.body(_good(store, query, number)))


SCRIPTS = {
    "as documented": Script(_listing(lambda page, number: page), True),
    "pages of one name": Script(
        lambda store, query, number: store.body(_ones(query.get(store.parameter) or None)), True
    ),
    "ignores the token": Script(lambda store, query, number: store.body(behind(None)), False),
    "ignores the token and makes new ones": Script(
        lambda store, query, number: store.body(behind(None)._replace(token=f"t{number}")), False, "s3 azure gcs"
    ),
    "repeats the token": Script(_listing(lambda page, number: page._replace(token="k")), False, "s3 azure gcs"),
    "repeats an empty page": Script(
        lambda store, query, number: store.body(Page([], "same", True)), False, "s3 azure gcs"
    ),
    "cuts the document": Script(
        lambda store, query, number: store.body(_good(store, query, number))[:120], False, "s3 azure swift"
    ),
    "sends another document": Script(lambda store, query, number: "<html/>", False, "s3 azure swift"),
    "ignores the prefix": Script(
        lambda store, query, number: store.body(behind(None, ["a", *NAMES])), False, "s3 azure gcs swift"
    ),
    "an empty page in the middle": Script(
        lambda store, query, number: store.body(
            Page([], "p/k09!", True) if number == 1 else behind(query.get(store.parameter) or None)
        ),
        True,
        "azure gcs",
    ),
    "version 1": Script(_version_1(False), True, "s3"),
    "version 1 with NextMarker": Script(_version_1(True), True, "s3"),
    "version 1, ignores the marker": Script(lambda store, query, number: _v1(behind(None), False), False, "s3"),
    "more, but neither token nor name": Script(lambda store, query, number: s3(Page([], None, True)), False, "s3"),
    "no IsTruncated": Script(_without("<IsTruncated>[a-z]*</IsTruncated>"), True, "s3"),
    "no KeyCount": Script(_without("<KeyCount>[0-9]*</KeyCount>"), True, "s3"),
    "fewer names than KeyCount": Script(_without("<Contents><Key>p/k03.*?</Contents>"), False, "s3"),
    "version 2 without a token": Script(_without("<NextContinuationToken>.*?</NextContinuationToken>"), False, "s3"),
}


def _ones(name: str | None) -> Page:
    page = behind(name)
    return Page(page.names[:1], page.names[0] if len(page.names) > 1 else None, len(page.names) > 1)


class Server(ThreadingHTTPServer):
    """Answers listings by a script."""

    daemon_threads = True
    store: Store
    script: Script
    asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handling(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        body, headers = b"", {}
        if path.startswith("/auth"):
            headers = {"X-Auth-Token": "t", "X-Storage-Url": f"{self.server.url}/v1/a"}
        else:
            asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
            body = self.server.script.answer(self.server.store, asked, self.server.asked).encode()
            self.server.asked += 1
        self.send_response(200 if self.server.asked < 200 else 403)  # what asks for ever ends here
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handling) as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


CASES = [(store, script) for script, row in SCRIPTS.items() for store in row.stores.split()]


@pytest.mark.parametrize(("store", "script"), CASES)
def test_a_listing_is_whole_or_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch, store: str, script: str
) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    server.store, server.script, server.asked = STORES[store], SCRIPTS[script], 0
    handler = STORES[store].connect(server.url)

    def listed() -> list[str]:
        return [info.path for info in handler.list("b/p", recursive=True)]

    if server.script.whole:
        assert retry_call(handler, listed, "cannot list") == [f"b/{name}" for name in NAMES]
    else:
        with pytest.raises(StorageError, match="list"):
            retry_call(handler, listed, "cannot list 'b/p'", limit=2)
        assert server.asked < 100
    handler.close()
