"""HTTP/1.1 as it is framed: every way to end a body, and every way to get it wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from apyfal.exceptions import InvalidURL, ParameterError, StorageError, StoreUnavailable, TransferCancelled
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.http.origin import Origin, split_url
from apyfal.storage.http.pool import ConnectionPool, Timeouts


@contextmanager
def scripted(*answers: bytes, keep: bool = False) -> Iterator[tuple[Origin, list[bytes]]]:
    """Answer each request on one connection after another with fixed bytes; no bytes close the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    heads: list[bytes] = []
    left = list(answers)

    def serve() -> None:
        while left:
            sock, _ = listener.accept()
            with sock, sock.makefile("rb") as stream:
                while left:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        line = stream.readline()
                        if not line:
                            break
                        head += line
                    if not head:
                        break
                    heads.append(head)
                    answer = left.pop(0)
                    sock.sendall(answer)
                    if not keep or not answer:
                        break

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Origin("http", *listener.getsockname()), heads
    finally:
        left.clear()
        with socket.create_connection(listener.getsockname()):
            thread.join(10)
        listener.close()


@pytest.fixture
def client() -> Iterator[ConnectionPool]:
    made = ConnectionPool(Timeouts(5, 5), proxy="none")
    yield made
    made.close()


GOOD = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "same length twice": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n",
        b"hello",
    ),
    "chunks win over length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"hello",
    ),
    "until it closes": (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "a long head": (
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000 + b"\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_bodies(client: ConnectionPool, name: str) -> None:
    answer, body = GOOD[name]
    with scripted(answer) as (origin, heads):
        response = client.request("GET", origin, "/a%20b?c", [("X-Header", "value")])
        assert response.read() == body
    assert heads[0].startswith(b"GET /a%20b?c HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Header: value\r\n" in heads[0]


BAD = {
    "short": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "no number": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
    "cut before the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "no chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello",
    "chunk without its end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
    "unknown transfer encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    "blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_framing_is_an_error(client: ConnectionPool, name: str) -> None:
    with scripted(BAD[name]) as (origin, _), pytest.raises(StorageError):
        client.request("GET", origin, "/").read()


def test_connections_are_used_again(client: ConnectionPool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with scripted(answer, answer, answer, keep=True) as (origin, heads):
        for _ in range(3):
            assert client.request("GET", origin, "/").read() == b"hello"
        assert len(heads) == 3
        client.close()


def test_a_kept_connection_that_was_closed_is_replaced(client: ConnectionPool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with scripted(answer, answer) as (origin, heads):
        for _ in range(2):
            assert client.request("GET", origin, "/").read() == b"hello"
        assert len(heads) == 2


@pytest.mark.parametrize(("method", "repeated"), [("GET", True), ("PUT", True), ("POST", False), ("DELETE", False)])
def test_what_is_not_idempotent_is_sent_once(client: ConnectionPool, method: str, repeated: bool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with scripted(answer, b"", answer, keep=True) as (origin, heads):
        client.request("GET", origin, "/").read()
        if repeated:
            assert client.request(method, origin, "/").read() == b"hello"
        else:
            with pytest.raises(StoreUnavailable):
                client.request(method, origin, "/")
        assert len(heads) == (3 if repeated else 2)
        client.close()


def test_a_body_that_was_not_read_closes_the_connection(client: ConnectionPool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with scripted(answer) as (origin, _):
        client.request("GET", origin, "/").close()
        assert not client._idle


def test_a_large_answer_where_a_small_one_is_expected(client: ConnectionPool) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + bytes(500)
    with scripted(answer) as (origin, _), pytest.raises(StorageError, match="more than 100 bytes"):
        client.request("GET", origin, "/").read(100)


def test_line_breaks_cannot_be_smuggled(client: ConnectionPool) -> None:
    origin = Origin("http", "127.0.0.1", 9)
    for request in (("/a\r\nX: y", []), ("/", [("X", "y\nZ: 1")])):
        with pytest.raises(ParameterError, match="line breaks"):
            client.request("GET", origin, *request)


def test_an_answer_while_the_body_is_sent_is_heard(client: ConnectionPool) -> None:
    body = memoryview(bytes(32 << 20))
    with scripted(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno") as (origin, _):
        try:
            response = client.request("PUT", origin, "/", (), (body,))
        except StoreUnavailable:
            return  # the reset overtook the answer
        assert response.status == 403
        response.close()


def test_a_refused_connection(client: ConnectionPool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        client.request("GET", Origin("http", "127.0.0.1", port), "/")


def test_the_gate_decides(client: ConnectionPool) -> None:
    def refuse(host: str, port: int) -> list[str]:
        raise InvalidURL(f"{host} is not allowed")

    client.gate = refuse
    with pytest.raises(InvalidURL, match="not allowed"):
        client.request("GET", Origin("http", "127.0.0.1", 9), "/")


def test_cancelling_wakes_a_blocked_receive(client: ConnectionPool) -> None:
    cancel = CancelToken()
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
    with scripted(half, b"for a request that never comes", keep=True) as (origin, _), cancel.scope():
        response = client.request("GET", origin, "/")
        timer = threading.Timer(0.1, cancel.set)
        timer.start()
        with pytest.raises(TransferCancelled):
            response.read()
        timer.join()


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("http://h/a b?c=d e", ("http", "h", 80), "/a%20b?c=d%20e"),
        ("https://h:8443", ("https", "h", 8443), "/"),
        ("http://[::1]:81/x", ("http", "::1", 81), "/x"),
        ("http://h/%41%2f", ("http", "h", 80), "/%41%2f"),
        ("http://bücher.example/ü", ("http", "xn--bcher-kva.example", 80), "/%C3%BC"),
    ],
)
def test_addresses(url: str, origin: tuple[str, str, int], target: str) -> None:
    assert split_url(url)[:2] == (Origin(*origin), target)


def test_users_in_addresses() -> None:
    assert split_url("http://me:p%40ss@h/")[2] == ("me", "p@ss")


@pytest.mark.parametrize("url", ["ftp://h/", "http:///x", "http://h:99999/", "http://h/\r\nX: y", "no url"])
def test_bad_addresses(url: str) -> None:
    with pytest.raises(InvalidURL):
        split_url(url)


def test_requests_go_through_a_proxy() -> None:
    with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as (origin, heads):
        through = ConnectionPool(Timeouts(5, 5), proxy=f"http://me:pw@127.0.0.1:{origin.port}")
        assert through.request("GET", Origin("http", "h.example", 80), "/x").read() == b"hello"
        through.close()
    assert heads[0].startswith(b"GET http://h.example/x HTTP/1.1\r\nHost: h.example\r\n")
    assert b"Proxy-Authorization: Basic bWU6cHc=" in heads[0]


def test_a_tunnel_that_is_refused() -> None:
    with scripted(b"HTTP/1.1 403 Forbidden\r\n\r\n") as (origin, heads):
        through = ConnectionPool(Timeouts(5, 5), proxy=f"127.0.0.1:{origin.port}")
        with pytest.raises(StoreUnavailable, match=r"refused h\.example:443"):
            through.request("GET", Origin("https", "h.example", 443), "/x")
        through.close()
    assert heads[0].startswith(b"CONNECT h.example:443 HTTP/1.1\r\n")
