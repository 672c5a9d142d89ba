"""What a store answers to HEAD, refuses or leaves out, by provider: all functions that read give what GET gives."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

import apyfal.storage as st
from apyfal.exceptions import ObjectNotFound, StorageError

BODY = bytes(range(251)) * 40
#: whose HEAD is refused or incomplete, and which is looked up by a HEAD; Google's API has none
STORES: dict[str, dict[str, Any]] = {
    "s3": {"provider": "s3", "client_id": "a", "secret_id": "b"},
    "az": {"provider": "azure", "account": "a", "anonymous": True},
    "swift": {"provider": "swift", "client_id": "a", "secret_id": "b", "auth_type": "v1"},
    "web": {},
}


class Head(NamedTuple):
    """The answer to HEAD: its status, what is other than in that to GET (``None``: left out), and what comes of it."""

    status: int = 200
    changed: dict[str, str | None] = {}  # noqa: RUF012  # nobody changes it
    refused: tuple[str, ...] = ()  # stores that say so
    size: bool = True


EVERY = tuple(STORES)
HEADS = {
    "as to GET": Head(),
    "bad request": Head(400),
    "unauthorized": Head(401),
    "forbidden": Head(403),
    "not found": Head(404, refused=("s3", "az", "swift")),
    "not allowed": Head(405),
    "not acceptable": Head(406),
    "unsupported version": Head(505),
    "not implemented": Head(501),
    "a teapot": Head(418),
    "without length": Head(200, {"Content-Length": None}),
    "length 0": Head(200, {"Content-Length": "0"}),
    "length that is not a number": Head(200, {"Content-Length": "x"}),
    "length below 0": Head(200, {"Content-Length": "-1"}),
    "two lengths": Head(200, {"Content-Length": f"{len(BODY)}, {len(BODY)}"}),
    "a length in another script": Head(200, {"Content-Length": "\u0661".encode().decode("latin-1")}),
    "chunked": Head(200, {"Content-Length": None, "Transfer-Encoding": "chunked"}),
    "without ETag": Head(200, {"ETag": None}),
    "an empty ETag": Head(200, {"ETag": ""}),
    "a weak ETag": Head(200, {"ETag": 'W/"v"'}),
    "without type": Head(200, {"Content-Type": None}),
    "without time": Head(200, {"Last-Modified": None}),
    "a time that is none": Head(200, {"Last-Modified": "yesterday"}),
    "no content": Head(204, {"Content-Length": None}),
    "partial content": Head(206),
    "nothing but a status": Head(
        200, dict.fromkeys(("Content-Length", "ETag", "Last-Modified", "Content-Type", "Accept-Ranges"))
    ),
    "no ranges": Head(200, {"Accept-Ranges": "none"}),
}
#: where the two contradict each other: the same bytes or an error
OTHER = {
    "a shorter length": Head(200, {"Content-Length": "7"}),
    "a longer length": Head(200, {"Content-Length": "99999"}),
    "another ETag": Head(200, {"ETag": '"w"'}),
    "a coding": Head(200, {"Content-Encoding": "gzip"}),
    "a moved object": Head(301, {"Location": "/elsewhere"}),
    "a moved object, for now": Head(307, {"Location": "/elsewhere"}),
    "not modified": Head(304),
    "failed": Head(500),
    "busy": Head(503),
    "too many": Head(429),
}


class Server(ThreadingHTTPServer):
    """Has one object, whose HEAD is as a row says."""

    daemon_threads = True
    head = Head()
    body = BODY
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

    def do_HEAD(self) -> None:
        self._answer(self.server.head)

    def do_GET(self) -> None:
        self._answer(Head())

    def _answer(self, head: Head) -> None:
        self.server.asked += 1
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/auth"):
            self._send(200, {"X-Auth-Token": "t", "X-Storage-Url": f"{self.server.url}/v1/a", "Content-Length": "0"})
            return
        if not path.endswith("/k") or self.server.asked > 500:
            self._send(404 if self.server.asked < 500 else 403, {"Content-Length": "0"})
            return
        body, status = self.server.body, head.status
        fields = {
            "Content-Length": str(len(body)),
            "ETag": '"v"',
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            "Content-Type": "text/plain",
            "Accept-Ranges": "bytes",
        }
        asked = self.headers.get("Range", "")
        if self.command == "GET" and asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(body), len(body))
            if start >= len(body):
                self._send(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
                return
            status = 206
            fields |= {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}", "Content-Length": str(stop - start)}
            body = body[start:stop]
        if status >= 300:
            fields = {"Content-Length": "0"}
        self._send(status, {**fields, **head.changed}, body if self.command == "GET" else b"")

    def _send(self, status: int, fields: dict[str, Any], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in fields.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handling) as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(scope="module", params=STORES)
def url(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[str, str]]:
    name = request.param
    if name == "web":
        yield name, f"{server.url}/b/k"
        return
    endpoint = server.url + ("/auth/v1.0" if name == "swift" else "")
    st.mount("odd-head", endpoint_url=endpoint, config={}, **STORES[name])
    yield name, "odd-head://b/k"
    st.unmount("odd-head")


def _read(url: str, folder: Path) -> bytes:
    with st.open(url) as file:
        return file.read()


def _read_at_its_end(url: str, folder: Path) -> bytes:
    with st.open(url) as file:
        if not file.seekable():
            return file.read()
        file.seek(-100, 2)
        last = file.read()
        file.seek(0)
        return file.read(len(BODY) - 100) + last


def _copy(url: str, folder: Path) -> bytes:
    return Path(st.copy(url, str(folder / "copy"))).read_bytes()


def _get(url: str, folder: Path) -> bytes:
    st.filesystem().get_file(url, str(folder / "got"))
    return (folder / "got").read_bytes()


def _fs_open(url: str, folder: Path) -> bytes:
    with st.filesystem().open(url) as file:
        found: bytes = file.read()
        return found


def _process(url: str, folder: Path) -> bytes:
    import apyfal

    with apyfal.Accelerator("sha3") as card:
        assert card.process(url)["digest"] == hashlib.sha3_256(BODY).hexdigest()
    return BODY


READERS: dict[str, Callable[[str, Path], bytes]] = {
    "load": lambda url, folder: st.load(url).tobytes(),
    "load into out": lambda url, folder: st.load(url, out=np.zeros(len(BODY), np.uint8)).tobytes(),
    "load_many": lambda url, folder: st.load_many([url, url])[1].tobytes(),
    "read_bytes": lambda url, folder: st.read_bytes(url),
    "open": _read,
    "open and seek": _read_at_its_end,
    "copy": _copy,
    "fsspec cat": lambda url, folder: st.filesystem().cat_file(url),
    "fsspec get": _get,
    "fsspec open": _fs_open,
    "process": _process,
}
#: Those that ask a store by GET alone.
DIRECT = {"load", "load into out", "load_many"}
TELLERS: dict[str, tuple[Callable[[str], object], object]] = {
    "exists": (st.exists, True),
    "isfile": (st.isfile, True),
    "isdir": (st.isdir, False),
    "stat": (lambda url: st.stat(url).size, len(BODY)),
    "getsize": (st.getsize, len(BODY)),
    "stat_many": (lambda url: st.stat_many([url])[0].size, len(BODY)),
    "fsspec info": (lambda url: st.filesystem().info(url)["size"], len(BODY)),
    "fsspec size": (lambda url: st.filesystem().size(url), len(BODY)),
    "fsspec exists": (lambda url: st.filesystem().exists(url), True),
    "fsspec isfile": (lambda url: st.filesystem().isfile(url), True),
    "fsspec isdir": (lambda url: st.filesystem().isdir(url), False),
}


@pytest.mark.parametrize("case", HEADS)
def test_every_function_gives_what_get_gives(
    server: Server, url: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    name, place = url
    server.head, server.asked = HEADS[case], 0
    refused = name in HEADS[case].refused
    for what, reader in READERS.items():
        try:
            assert reader(place, tmp_path) == BODY, what
        except StorageError:
            assert refused, what
    for what, (teller, expected) in TELLERS.items():
        if refused and HEADS[case].status == 404:
            try:
                assert not teller(place), what
            except (ObjectNotFound, FileNotFoundError):
                continue
        elif refused:
            with pytest.raises(StorageError):
                teller(place)
        else:
            assert teller(place) == expected, what


@pytest.mark.parametrize("case", OTHER)
def test_what_contradicts_get_gives_its_bytes_or_an_error(
    server: Server, url: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    monkeypatch.setattr("apyfal.storage.flow.retry._MAX_RETRY_AFTER", 0.0)
    server.head, server.asked = OTHER[case], 0
    gave = []
    for what, reader in READERS.items():
        try:
            assert reader(url[1], tmp_path) == BODY, what
        except (StorageError, OSError):  # the latter for a seek before the front
            continue
        gave.append(what)
    assert set(gave) == (set(READERS) if url[0] == "web" or case == "a coding" else DIRECT)
    for what, (teller, expected) in TELLERS.items():
        try:
            found = teller(url[1])
        except StorageError:
            continue
        assert found == expected or case in ("a shorter length", "a longer length"), what
