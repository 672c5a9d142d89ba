"""What GET says decides: however little a server's answer to HEAD says, every way of reading gives the same bytes.

One scripted server, which answers HEAD and GET by a row of a table. The last column is what reading gives: the content,
or (``None``) an error from each function.
"""

from __future__ import annotations

import gzip
import io
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from servers.web.hostile import Answer, Fault, Hostile, hostile

import apyfal.storage as st
from apyfal.exceptions import StorageError
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import download, stream

BODY = bytes(range(251)) * 40
LENGTH = ("Content-Length", str(len(BODY)))
ETAG = ("ETag", '"v"')
RANGES = ("Accept-Ranges", "bytes")


class Said(NamedTuple):
    """What is answered to one method."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def coded(name: str, body: bytes, *more: tuple[str, str]) -> Said:
    return Said(200, (("Content-Encoding", name), ("Content-Length", str(len(body))), *more), body)


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


PLAIN = Said(200, (LENGTH, ETAG, RANGES), BODY)
NO_RANGES = Said(200, (LENGTH, ETAG), BODY)
ZIPPED = gzip.compress(BODY)
#: HEAD, GET, what is read
TABLE: dict[str, tuple[Said, Said, bytes | None]] = {
    "HEAD says all": (PLAIN, PLAIN, BODY),
    "HEAD forbidden": (Said(403), PLAIN, BODY),
    "HEAD forbidden, no ranges": (Said(403), NO_RANGES, BODY),
    "HEAD unauthorized": (Said(401), PLAIN, BODY),
    "HEAD not allowed": (Said(405), PLAIN, BODY),
    "HEAD not implemented": (Said(501), PLAIN, BODY),
    "HEAD not found": (Said(404), PLAIN, BODY),
    "HEAD bad request": (Said(400), PLAIN, BODY),
    "HEAD fails": (Said(500), PLAIN, BODY),
    "HEAD redirects nowhere": (Said(302), PLAIN, BODY),
    "HEAD without length": (Said(200, (ETAG,)), PLAIN, BODY),
    "HEAD with length 0": (Said(200, (("Content-Length", "0"), ETAG)), PLAIN, BODY),
    "HEAD with another length": (Said(200, (("Content-Length", "7"), ETAG)), PLAIN, BODY),
    "HEAD with a longer length": (Said(200, (("Content-Length", "99999"), ETAG)), PLAIN, BODY),
    "HEAD without ETag": (Said(200, (LENGTH,)), PLAIN, BODY),
    "HEAD with another ETag": (Said(200, (LENGTH, ("ETag", '"w"'))), PLAIN, BODY),
    "HEAD with a weak ETag": (Said(200, (LENGTH, ("ETag", 'W/"v"'))), PLAIN, BODY),
    "HEAD with a coding": (Said(200, (LENGTH, ETAG, ("Content-Encoding", "gzip"))), PLAIN, BODY),
    "HEAD with ranges, GET without": (PLAIN, NO_RANGES, BODY),
    "ETag in HEAD alone": (PLAIN, Said(200, (LENGTH,), BODY), BODY),
    "GET without length": (PLAIN, Said(200, (("Connection", "close"), ETAG), BODY), BODY),
    "GET without length or ETag": (Said(200), Said(200, (("Connection", "close"),), BODY), BODY),
    "GET of nothing": (PLAIN, Said(200, (("Content-Length", "0"), ETAG)), b""),
    "GET of nothing, without ETag": (Said(403), Said(200, (("Content-Length", "0"),)), b""),
    "GET with a weak ETag": (PLAIN, Said(200, (LENGTH, ("ETag", 'W/"v"')), BODY), BODY),
    "gzip": (Said(200), coded("gzip", ZIPPED), BODY),
    "gzip with ETag and ranges": (Said(200), coded("gzip", ZIPPED, ETAG, RANGES), BODY),
    "gzip, HEAD plain": (PLAIN, coded("gzip", ZIPPED), BODY),
    "gzip in capitals": (Said(200), coded("GZIP", ZIPPED), BODY),
    "x-gzip": (Said(200), coded("x-gzip", ZIPPED), BODY),
    "gzip of two members": (Said(200), coded("gzip", gzip.compress(BODY[:99]) + gzip.compress(BODY[99:])), BODY),
    "gzip of nothing": (Said(200), coded("gzip", gzip.compress(b"")), b""),
    "deflate": (Said(200), coded("deflate", zlib.compress(BODY)), BODY),
    "deflate without its header": (Said(200), coded("deflate", raw_deflate(BODY)), BODY),
    "identity": (Said(200), coded("identity", BODY, ETAG), BODY),
    "an empty coding": (Said(200), coded("", BODY, ETAG), BODY),
    "identity, gzip": (Said(200), coded("identity, gzip", ZIPPED), BODY),
    "gzip twice": (Said(200), coded("gzip, gzip", gzip.compress(ZIPPED)), None),
    "brotli": (Said(200), coded("br", b"\x8b\x02\x80abc\x03"), None),
    "zstd": (Said(200), coded("zstd", b"\x28\xb5\x2f\xfd"), None),
    "gzip cut short": (Said(200), coded("gzip", ZIPPED[:-5]), None),
    "gzip with more behind it": (Said(200), coded("gzip", ZIPPED + b"more"), None),
    "GET forbidden": (PLAIN, Said(403), None),
    "GET not found": (PLAIN, Said(404), None),
    "GET without content": (PLAIN, Said(304), None),
}


class Web(ThreadingHTTPServer):
    """Answers by one row of the table; ranges are honoured where it says so."""

    daemon_threads = True
    head: Said
    get: Said

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that the client closed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/x"


class Handling(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(self.server.head, 0, 0)

    def do_GET(self) -> None:
        said = self.server.get
        asked = self.headers.get("Range", "")
        if RANGES not in said.headers or not asked:
            self._answer(said, 0, len(said.body))
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(said.body), len(said.body))
        part = ("Content-Range", f"bytes {start}-{stop - 1}/{len(said.body)}"), ("Content-Length", str(stop - start))
        kept = tuple(one for one in said.headers if one[0] != "Content-Length")
        self._answer(Said(206, (*part, *kept), said.body), start, stop)

    def _answer(self, said: Said, start: int, stop: int) -> None:
        self.send_response(said.status)
        for name, value in said.headers:
            self.send_header(name, value)
        if said.status >= 300 and said.status != 304:
            self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.write(said.body[start:stop])


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(("127.0.0.1", 0), Handling) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def _into_out(url: str, size: int, folder: Path) -> bytes:
    return st.load(url, out=np.zeros(size, np.uint8)).tobytes()


def _copy(url: str, size: int, folder: Path) -> bytes:
    return Path(st.copy(url, str(folder / "copy"))).read_bytes()


def _copy_to_file_object(url: str, size: int, folder: Path) -> bytes:
    out = io.BytesIO()
    st.copy(url, out)
    return out.getvalue()


def _fsspec_get(url: str, size: int, folder: Path) -> bytes:
    st.filesystem().get_file(url, str(folder / "got"))
    return (folder / "got").read_bytes()


def _process(url: str, size: int, folder: Path) -> bytes:
    import apyfal

    with apyfal.Accelerator("loopback") as card:
        return bytes(card.process(url))


READERS: dict[str, Callable[[str, int, Path], bytes]] = {
    "load": lambda url, size, folder: st.load(url).tobytes(),
    "load into out": _into_out,
    "open": lambda url, size, folder: st.open(url).read(),
    "open, unbuffered": lambda url, size, folder: (
        b"".join(iter(lambda: file.read(777), b"")) if (file := st.open(url, buffering=0)) else b""
    ),
    "copy": _copy,
    "copy to a file object": _copy_to_file_object,
    "fsspec cat": lambda url, size, folder: st.filesystem().cat_file(url),
    "fsspec get": _fsspec_get,
    "process": _process,
}


@pytest.mark.parametrize("case", TABLE)
def test_every_way_of_reading_gives_the_same(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    web.head, web.get, content = TABLE[case]
    for name, reader in READERS.items():
        size = len(BODY) if content is None else len(content)
        if name == "process" and not content:
            continue  # it refuses an empty input, wherever that comes from
        if content is None:
            with pytest.raises(StorageError):
                reader(web.url, size, tmp_path)
            assert not list(tmp_path.iterdir()), name
        else:
            assert reader(web.url, size, tmp_path) == content, name
            for left in tmp_path.iterdir():
                left.unlink()
    if web.get.status == 200:
        assert st.exists(web.url)
        encoded = "Content-Encoding" in dict(web.get.headers) and case not in ("identity", "an empty coding")
        unknown = encoded or "Content-Length" not in dict(web.get.headers)
        assert st.stat(web.url).size == (None if unknown else len(content or b""))


def test_a_stream_asks_once(web: Web) -> None:
    """The answer that tells about the object is the one that is read: a link that is good for one download works."""
    web.head, web.get, _ = TABLE["HEAD forbidden, no ranges"]
    with st.open(web.url) as file:
        web.get = Said(410)
        assert file.read() == BODY


@pytest.fixture(scope="module")
def odd_store() -> Iterator[Hostile]:
    with hostile() as server:
        yield server


EDITS: dict[str, Callable[[Answer], None]] = {
    "forbidden": lambda answer: answer.__init__(403),  # type: ignore[misc]
    "not allowed": lambda answer: answer.__init__(405),  # type: ignore[misc]
    "without length": lambda answer: answer.headers.update({"content-length": ""}),
    "length 0": lambda answer: answer.headers.update({"content-length": "0"}),
    "without ETag": lambda answer: answer.headers.pop("etag", None) and None,
}


def _said(handler: Handler) -> tuple[ObjectInfo, bytes, bytes]:
    info = handler.describe("b/data")
    memory = memoryview(bytearray(len(BODY)))
    download(handler, "b/data", memory, info=info)
    with stream(handler, "b/data") as reading:
        out = memoryview(bytearray(len(BODY) + 1))
        done = 0
        while count := reading.readinto(out[done:]):
            done += count
    return info, bytes(memory), bytes(out[:done])


@pytest.mark.parametrize("edit", EDITS)
def test_a_store_whose_head_says_less(odd_store: Hostile, edit: str) -> None:
    odd_store.reset()
    odd_store.put("b/data", BODY)
    odd_store.faults.append(
        Fault("change", lambda request: request.method == "HEAD", times=-1, edit=lambda _, answer: EDITS[edit](answer))
    )
    handler = S3Handler(endpoint_url=odd_store.endpoint_url, client_id="a", secret_id="b")
    info, downloaded, streamed = _said(handler)
    assert (info.size, info.etag) == (len(BODY), odd_store.objects["b/data"].etag)
    assert downloaded == streamed == BODY
    assert "change" in odd_store.hit
