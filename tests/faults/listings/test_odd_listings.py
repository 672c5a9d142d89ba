"""What else a store's listing can be: each name comes once and where it belongs, or there is an error.

The kinds of `test_listings.py` go on here with directories, names, flags and documents: a scripted server sends what
the table says.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote_plus, urlsplit

import pytest

from apyfal.exceptions import StorageError
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import Handler
from apyfal.storage.http import paging
from apyfal.storage.http.origin import split_url
from apyfal.storage.stores.azure.handler import AzureHandler
from apyfal.storage.stores.gcs.json_api import GSJsonHandler
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.stores.swift.handler import SwiftHandler

ALL = ("s3", "azure", "gcs", "swift")
#: Those that say how to go on by a token of theirs.
BY_TOKEN = ("s3", "azure", "gcs")
NAMES = [f"p/k{number:02}" for number in range(9)]

Query = dict[str, str]


# -- how each store says it -------------------------------------------------------------------------------------------
def s3(names: Sequence[str], token: str | None = None, folders: Sequence[str] = (), more: str = "") -> str:
    contents = "".join(f"<Contents><Key>{name}</Key><Size>1</Size></Contents>" for name in names)
    prefixes = "".join(f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in folders)
    going = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    flag = "" if "IsTruncated" in more else f"<IsTruncated>{'true' if token else 'false'}</IsTruncated>"
    return f"<ListBucketResult>{flag}{going}{contents}{prefixes}{more}</ListBucketResult>"


def azure(names: Sequence[str], token: str | None = None, folders: Sequence[str] = ()) -> str:
    size = "<Properties><Content-Length>1</Content-Length></Properties>"
    blobs = "".join(f"<Blob><Name>{name}</Name>{size}</Blob>" for name in names)
    prefixes = "".join(f"<BlobPrefix><Name>{name}</Name></BlobPrefix>" for name in folders)
    marker = f"<NextMarker>{token or ''}</NextMarker>"
    return f"<EnumerationResults><Blobs>{blobs}{prefixes}</Blobs>{marker}</EnumerationResults>"


def gcs(names: Sequence[str], token: str | None = None, folders: Sequence[str] = ()) -> str:
    items = [{"name": name, "size": "1", "generation": "1"} for name in names]
    page: dict[str, Any] = {"kind": "storage#objects", "items": items, "prefixes": list(folders)}
    return json.dumps(page | ({"nextPageToken": token} if token else {}))


def swift(names: Sequence[str], token: str | None = None, folders: Sequence[str] = ()) -> str:
    entries: list[dict[str, Any]] = [{"name": name, "bytes": 1, "hash": "0" * 32} for name in names]
    below: list[dict[str, Any]] = [{"subdir": name} for name in folders]
    return json.dumps(sorted(entries + below, key=lambda one: str(next(iter(one.values())))) if folders else entries)


class Store(NamedTuple):
    page: Callable[..., str]
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

Answer = Callable[[Store, Query, int], "str | bytes | Reply"]


class Reply(NamedTuple):
    """An answer of which more than the document matters."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    cut: int = 0


class Case(NamedTuple):
    """What is sent to the query of request `number`, and the names that are listed; ``None``: an error."""

    answer: Answer
    listed: Sequence[str] | None
    stores: Sequence[str] = ALL
    path: str = "b/p"
    recursive: bool = True


def pages(*contents: Sequence[str], folders: Sequence[Sequence[str]] = (), last: str | None = None) -> Answer:
    """Pages of these names, by tokens t1, t2, ... or, with Swift, behind the last name that has come; then no more."""

    def answer(store: Store, query: Query, number: int) -> str:
        if store.page is swift and number >= len(contents):
            return "[]"
        index = number if store.page is swift else int((query.get(store.parameter) or "t0")[1:])
        token = f"t{index + 1}" if index + 1 < len(contents) else last
        return store.page(contents[index], token, folders[index] if index < len(folders) else ())

    return answer


def always(*names: str, token: Callable[[int], str | None], folders: Sequence[str] = ()) -> Answer:
    return lambda store, query, number: store.page(names, token(number), folders)


def only(text: str | bytes | Reply) -> Answer:
    """One document, whatever is asked."""
    return lambda store, query, number: text


def changed(change: Callable[[bytes], Reply]) -> Answer:
    return lambda store, query, number: change(store.page(NAMES).encode())


def v1(change: Callable[[list[str]], list[str]] = list, *, stated: bool = False, size: int = 4) -> Answer:
    """Version 1 of S3's listing: it goes on behind a name."""

    def answer(store: Store, query: Query, number: int) -> str:
        left = [name for name in NAMES if name > query.get("marker", "")]
        names = change(left[:size])
        more = len(left) > size
        marker = f"<NextMarker>{left[size - 1]}</NextMarker>" if stated and more else ""
        return s3(names, more=f"<IsTruncated>{str(more).lower()}</IsTruncated>{marker}")

    return answer


def v1_answer(text: Callable[[Query, int], str]) -> Answer:
    return lambda store, query, number: text(query, number)


def _inclusive(query: Query, number: int) -> str:
    left = [name for name in NAMES if name >= query.get("marker", "")]
    return s3(left[:4], more=f"<IsTruncated>{str(len(left) > 4).lower()}</IsTruncated>")


def _unstated(query: Query, number: int) -> str:
    left = [name for name in NAMES if name > query.get("marker", "")]
    return s3(left[:3], more="<MaxKeys>3</MaxKeys><!--IsTruncated-->")


def _prefix_again(query: Query, number: int) -> str:
    """What follows the prefix ``p/d/`` is in it, for this store, and makes it be listed again."""
    if "marker" not in query:
        return s3(["p/a"], folders=["p/d/"], more="<IsTruncated>true</IsTruncated>")
    return s3(["p/z"], folders=["p/d/"], more="<IsTruncated>false</IsTruncated>")


def _contradicting(store: Store, query: Query, number: int) -> str:
    return pages(NAMES[:4], NAMES[4:])(store, query, number).replace(">true<", ">false<")


def _flag(text: str) -> Answer:
    return lambda store, query, number: s3(
        NAMES if query.get("marker") else NAMES[:4],
        more=f"<IsTruncated>{'false' if query.get('marker') else text}</IsTruncated>",
    )


def encoded(*names: str) -> Answer:
    return only(s3(names, more="<EncodingType>url</EncodingType>"))


DEEP = ["p/a", "p/d/x", "p/d/y/z", "p/z"]
BELOW = ["b/p/a", "b/p/d/", "b/p/z"]
WHOLE = [f"b/{name}" for name in NAMES]

CASES: dict[str, Case] = {
    # pages
    "a page begins with the last name of the one before": Case(
        pages(NAMES[:4], NAMES[3:7], NAMES[6:]), WHOLE, BY_TOKEN
    ),
    "pages overlap": Case(pages(NAMES[:5], NAMES[2:7], NAMES[4:]), WHOLE, BY_TOKEN),
    "the last page has the last name alone, again": Case(pages(NAMES, NAMES[-1:]), WHOLE, BY_TOKEN),
    "the last page has two names again": Case(pages(NAMES, NAMES[-2:]), None),
    "the last page is the first": Case(pages(NAMES[:4], NAMES[4:], NAMES[:4]), None),
    "three pages in a circle": Case(
        lambda store, query, number: store.page(NAMES[number % 3 * 3 :][:3], f"n{number}"), None
    ),
    "shrinking pages": Case(lambda store, query, number: store.page(NAMES[number % 9 :], f"n{number}"), None),
    "a name twice": Case(pages([*NAMES[:3], *NAMES[2:]]), WHOLE),
    "a name twice, two pages apart": Case(pages(NAMES[:4], NAMES[4:6], [*NAMES[:1], *NAMES[6:]]), WHOLE, BY_TOKEN),
    "names in another order": Case(pages(NAMES[::-1]), WHOLE[::-1], BY_TOKEN),
    "pages in another order": Case(pages(NAMES[5:], NAMES[:5]), [*WHOLE[5:], *WHOLE[:5]], BY_TOKEN),
    "names in another order, by name": Case(pages(NAMES[::-1]), None, ["swift"]),
    "pages in another order, by name": Case(pages(NAMES[5:], NAMES[:5]), None, ["swift"]),
    "begins with the name that it is to go on behind, by name": Case(pages(NAMES, NAMES[-1:]), None, ["swift"]),
    "an empty page at the front": Case(pages([], NAMES), WHOLE, BY_TOKEN),
    "empty pages at the end": Case(pages(NAMES, [], []), WHOLE, BY_TOKEN),
    "empty pages for ever": Case(always(token=lambda number: f"n{number}"), None, BY_TOKEN),
    "an empty page for ever behind names": Case(
        lambda store, query, number: store.page([] if number else NAMES, f"n{number}"), None, BY_TOKEN
    ),
    "one token in turn with another": Case(
        lambda store, query, number: store.page([f"p/k{number:03}"], "ab"[number % 2]), None, BY_TOKEN
    ),
    "nothing": Case(pages([]), []),
    # names
    "an entry without a name": Case(pages([*NAMES, ""]), None),
    "an entry without a name, of a whole bucket": Case(pages(["", "a"]), None, path="b"),
    "a directory without a name": Case(pages([], folders=[[""]]), None, path="b", recursive=False),
    "a name of another prefix on the second page": Case(pages(NAMES, ["q"]), None),
    "a directory of another prefix": Case(pages(NAMES, folders=[["q/"]]), None, recursive=False),
    "the prefix without its slash": Case(pages(["p", *NAMES]), None),
    "the mark of the directory alone": Case(pages(["p/"]), []),
    "the mark of the directory": Case(pages(["p/", *NAMES]), WHOLE),
    # directories
    "a directory for what is in it": Case(pages(["p/a"], folders=[["p/d/"]]), None),
    "what is in directories for them": Case(pages(DEEP), BELOW, recursive=False),
    "directories and what is in them": Case(pages(DEEP, folders=[["p/d/"]]), BELOW, recursive=False),
    "a directory on each of two pages": Case(
        pages(["p/a"], ["p/z"], folders=[["p/d/"], ["p/d/"]]), BELOW, BY_TOKEN, recursive=False
    ),
    "a directory, then what is in it": Case(
        pages(["p/a"], ["p/d/x", "p/z"], folders=[["p/d/"]]), BELOW, recursive=False
    ),
    "the mark of a directory beside it": Case(
        pages(["p/a", "p/d/", "p/z"], folders=[["p/d/"]]), BELOW, recursive=False
    ),
    "an object of a directory's name": Case(
        pages(["p/a", "p/d"], folders=[["p/d/"]]), ["b/p/a", "b/p/d", "b/p/d/"], recursive=False
    ),
    # documents
    "nothing at all": Case(only(b""), None),
    "an error": Case(
        lambda store, query, number: (
            json.dumps({"error": {"code": 500}})
            if store.page in (gcs, swift)
            else "<Error><Code>InternalError</Code></Error>"
        ),
        None,
    ),
    "a document cut by its connection": Case(changed(lambda body: Reply(body, cut=len(body) // 2)), None),
    "a document cut by one byte": Case(changed(lambda body: Reply(body, cut=1)), None),
    "a document that is compressed": Case(
        changed(lambda body: Reply(gzip.compress(body), headers=(("Content-Encoding", "gzip"),))), None
    ),
    "a document that is compressed, without saying so": Case(changed(lambda body: Reply(gzip.compress(body))), None),
    "a document twice": Case(changed(lambda body: Reply(body + body)), None),
    "an empty list": Case(only("[]"), None, ["gcs"]),
    "an empty object": Case(only("{}"), None, ["swift"]),
    "a number": Case(only("7"), None, ["gcs", "swift"]),
    "null": Case(only("null"), None, ["gcs", "swift"]),
    "text": Case(only("\n".join(NAMES)), None),
    # s3
    "IsTruncated is false, and a token": Case(_contradicting, WHOLE, ["s3"]),
    "IsTruncated is false, and a marker": Case(
        v1_answer(lambda query, number: v1(stated=True)(STORES["s3"], query, number).replace(">true<", ">false<")),  # type: ignore[union-attr, arg-type]
        WHOLE,
        ["s3"],
    ),
    "IsTruncated is maybe": Case(_flag("maybe"), None, ["s3"]),
    "IsTruncated is 1": Case(_flag("1"), None, ["s3"]),
    "IsTruncated is TRUE": Case(_flag("TRUE"), WHOLE, ["s3"]),
    "IsTruncated in blanks": Case(_flag(" true\n"), WHOLE, ["s3"]),
    "no IsTruncated, and full pages": Case(v1_answer(_unstated), WHOLE, ["s3"]),
    "no IsTruncated, full, and the marker ignored": Case(
        v1_answer(lambda query, number: _unstated({}, 0)), None, ["s3"]
    ),
    "version 1 in another order": Case(v1(lambda names: names[::-1]), None, ["s3"]),
    "version 1 in another order, with NextMarker": Case(
        v1(lambda names: names[::-1], stated=True),
        [*WHOLE[3::-1], *WHOLE[7:3:-1], *WHOLE[8:]],
        ["s3"],
    ),
    "version 1 with the marker itself": Case(v1_answer(_inclusive), WHOLE, ["s3"]),
    "version 1 with pages of one name": Case(v1(size=1), WHOLE, ["s3"]),
    "version 1, and the marker is another": Case(
        v1_answer(
            lambda query, number: s3(
                NAMES[:4], more=f"<IsTruncated>true</IsTruncated><NextMarker>p/{number}</NextMarker>"
            )
        ),
        None,
        ["s3"],
    ),
    "version 1, and the marker is one name": Case(
        v1_answer(
            lambda query, number: s3(
                [f"p/k{number:03}"], more="<IsTruncated>true</IsTruncated><NextMarker>p/k</NextMarker>"
            )
        ),
        None,
        ["s3"],
    ),
    "version 1 with a prefix again": Case(v1_answer(_prefix_again), BELOW, ["s3"], recursive=False),
    "names encoded": Case(
        encoded(*(quote_plus(f"p/{text}") for text in ("a b", "a+b", "ü", "%", "<&>"))),
        ["b/p/a b", "b/p/a+b", "b/p/ü", "b/p/%", "b/p/<&>"],
        ["s3"],
    ),
    "names encoded in lower case": Case(encoded("p/%c3%bc", "p%2fx"), ["b/p/ü", "b/p/x"], ["s3"]),
    "names said to be encoded, with a blank": Case(encoded("p/a b+c"), None, ["s3"]),
    "names said to be encoded, with a letter": Case(encoded("p/ü%41"), None, ["s3"]),
    "names encoded, of no UTF-8": Case(encoded("p/%ff"), None, ["s3"]),
    "two names encoded, of no UTF-8": Case(encoded("p/%ff", "p/%fe"), None, ["s3"]),
    "prefixes encoded": Case(
        only(s3([], folders=["p/a+b/"], more="<EncodingType>url</EncodingType>")), ["b/p/a b/"], ["s3"], recursive=False
    ),
    "names not encoded": Case(only(s3(["p/a%20b", "p/a+b"])), ["b/p/a%20b", "b/p/a+b"], ["s3"]),
    "fewer prefixes than KeyCount": Case(
        only(s3(["p/a"], folders=["p/d/"], more="<KeyCount>3</KeyCount>")), None, ["s3"], recursive=False
    ),
    # azure
    "a name that XML cannot hold": Case(
        only(azure(["p/a"]).replace("<Name>p/a", '<Name Encoded="true">p%2Fa%EF%BF%BE')), ["b/p/a\ufffe"], ["azure"]
    ),
    "no list of blobs": Case(only("<EnumerationResults><NextMarker/></EnumerationResults>"), None, ["azure"]),
    # gcs
    "prefixes that are text": Case(only(json.dumps({"prefixes": "ab"})), None, ["gcs"], path="b", recursive=False),
    "items that are null": Case(only(json.dumps({"items": None})), None, ["gcs"]),
    "items without names": Case(only(json.dumps({"items": [{"size": "1"}]})), None, ["gcs"]),
    "items that are names": Case(only(json.dumps({"items": NAMES})), None, ["gcs"]),
    "names that are numbers": Case(only(json.dumps({"items": [{"name": 7}]})), None, ["gcs"], path="b"),
    "a token that is a list": Case(only(json.dumps({"items": [], "nextPageToken": ["a"]})), None, ["gcs"]),
    # swift
    "no content": Case(lambda store, query, number: Reply(b"", 204) if number else store.page(NAMES), WHOLE, ["swift"]),
    "entries without names": Case(only(json.dumps([{"bytes": 1}])), None, ["swift"]),
    "entries that are names": Case(only(json.dumps(NAMES)), None, ["swift"]),
    # buckets
    "buckets, of which one has no name": Case(
        lambda store, query, number: buckets(store, ["a", ""], number), None, path="", recursive=False
    ),
    "buckets": Case(
        lambda store, query, number: buckets(store, ["a", "b"], number), ["a/", "b/"], path="", recursive=False
    ),
    "a bucket twice": Case(
        lambda store, query, number: buckets(store, ["a", "a", "b"], number), ["a/", "b/"], path="", recursive=False
    ),
    "no list of buckets": Case(
        lambda store, query, number: "<a/>" if store.page in (s3, azure) else "{}" if store.page is swift else "[]",
        None,
        path="",
        recursive=False,
    ),
    "a page of buckets again": Case(
        lambda store, query, number: buckets(store, ["a", "b"], 0, f"n{number}"), None, path="", recursive=False
    ),
}


def buckets(store: Store, names: Sequence[str], number: int, token: str | None = None) -> str:
    """The document that lists buckets or containers."""
    if store.page is s3:
        inner = "".join(f"<Bucket><Name>{name}</Name></Bucket>" for name in names)
        going = f"<ContinuationToken>{token}</ContinuationToken>" if token else ""
        return f"<ListAllMyBucketsResult><Buckets>{inner}</Buckets>{going}</ListAllMyBucketsResult>"
    if store.page is azure:
        inner = "".join(f"<Container><Name>{name}</Name></Container>" for name in names)
        return f"<R><Containers>{inner}</Containers><NextMarker>{token or ''}</NextMarker></R>"
    if store.page is gcs:
        return json.dumps({"items": [{"name": name} for name in names], "nextPageToken": token or ""})
    return json.dumps([{"name": name} for name in names]) if not number else "[]"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    store: Store
    answer: Answer
    asked = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that the client closed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handling(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        if self.path.startswith("/auth"):
            storage = (("X-Auth-Token", "t"), ("X-Storage-Url", f"{self.server.url}/v1/a"))
            reply = Reply(b"", 200, storage)
        else:
            asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
            said = self.server.answer(self.server.store, asked, self.server.asked)
            reply = said if isinstance(said, Reply) else Reply(said.encode() if isinstance(said, str) else said)
            self.server.asked += 1
        self.send_response(reply.status if self.server.asked < 200 else 403)  # what asks for ever ends here
        for name, value in (*reply.headers, ("Content-Length", str(len(reply.body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) - reply.cut])
        self.close_connection = bool(reply.cut)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handling) as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


@pytest.mark.parametrize(("store", "case"), [(store, name) for name, case in CASES.items() for store in case.stores])
def test_each_name_once_or_an_error(server: Server, monkeypatch: pytest.MonkeyPatch, store: str, case: str) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    monkeypatch.setattr(paging, "_EMPTY_PAGES", 20)
    row = CASES[case]
    server.store, server.answer, server.asked = STORES[store], row.answer, 0
    handler = STORES[store].connect(server.url)

    def listed() -> list[str]:
        found = handler.list(row.path, recursive=row.recursive)
        return [f"{info.path}/" if info.is_directory else info.path for info in found]

    if row.listed is not None:
        found = retry_call(handler, listed, "cannot list")
        for is_directory in (False, True):  # a page may have its directories first
            kind = [name for name in found if name.endswith("/") == is_directory]
            assert kind == [name for name in row.listed if name.endswith("/") == is_directory]
    else:
        with pytest.raises(StorageError, match="cannot list"):
            retry_call(handler, listed, "cannot list", limit=2)
        assert server.asked < 100
    handler.close()


@pytest.mark.parametrize(
    ("store", "cut"),
    [("azure", "<Content-Length>1</Content-Length>"), ("gcs", '"size": "1", '), ("s3", "<Size>1</Size>")],
)
def test_a_size_that_is_not_told_is_not_zero(server: Server, store: str, cut: str) -> None:
    server.store, server.asked = STORES[store], 0
    server.answer = lambda store, query, number: store.page(NAMES).replace(cut, "")
    handler = STORES[store].connect(server.url)
    assert {info.size for info in handler.list("b/p", recursive=True)} == {None}
    handler.close()
