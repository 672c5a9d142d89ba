"""Malformed and pipelined requests: the daemon and h11 give the same bytes to the same request, or a connection ends.

h11 is another implementation of HTTP/1.1, by people who know nothing of this one. Each exchange is a stream of bytes:
several requests in a row, some of them malformed, sent whole or in two pieces. Each request writes a file of its own
name, so that what the daemon took for its body can be looked at.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h11
import pytest
from host.support.daemon import RunningDaemon, running

#: the head of a request after its first line and the fields that all have; {n} is the body's length
FRAMINGS = [
    "Content-Length: {n}",
    "content-length:{n}",
    "Content-Length: \t{n} ",
    "Content-Length: {n}\r\nContent-Length: {n}",
    "Content-Length: {n}\r\nContent-Length: 3",
    "Content-Length: 3\r\nContent-Length: {n}",
    "Content-Length: {n}, {n}",
    "Content-Length: {n}, 3",
    "Content-Length: +{n}",
    "Content-Length: -{n}",
    "Content-Length: 0x{n:x}",
    "Content-Length: {n}.0",
    "Content-Length: {n}_0",
    "Content-Length: 0{n}",
    "Content-Length: ",
    "Content-Length: {n};",
    "Content-Length: 99999999999999999999",
    "Content-Length: \u0661",
    "Content-Length : {n}",
    " Content-Length: {n}",
    "Content-Length\t: {n}",
    "X: y\r\n Content-Length: {n}",
    "Content-Length: {n}\r\n ",
    "Content-Length:\r\n {n}",
    "Content-Length: {n}\n",
    "X: y\nContent-Length: {n}",
    "X: y\rContent-Length: {n}",
    "X: \0\r\nContent-Length: {n}",
    "X\0: y\r\nContent-Length: {n}",
    "X: \x0b\r\nContent-Length: {n}",
    ": y\r\nContent-Length: {n}",
    "X\r\nContent-Length: {n}",
    "Content-Length: {n}\r\nX: " + "y" * 4000,
    "Content_Length: {n}\r\nContent-Length: {n}",
    "Content-Length: {n}\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: {n}",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: identity\r\nContent-Length: {n}",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: xchunked\r\nContent-Length: {n}",
    "Transfer-Encoding: \x0bchunked\r\nContent-Length: {n}",
    "Transfer-Encoding : chunked\r\nContent-Length: {n}",
    "Transfer-Encoding: 'chunked'\r\nContent-Length: {n}",
    "X-Transfer-Encoding: chunked\r\nContent-Length: {n}",
    "Content-Length: {n}\r\nConnection: close",
    "Content-Length: {n}\r\nConnection: keep-alive",
    "Content-Length: {n}\r\nUpgrade: x\r\nConnection: upgrade",
    "Content-Length: {n}\r\nTE: trailers",
    "Content-Length: {n}\r\nTrailer: x",
]
EXPECTATIONS = ["", "Expect: 100-continue\r\n", "Expect: 100-Continue\r\n", "expect:100-continue \r\n"]
FIRST_LINES = [
    "PUT {target} HTTP/1.1",
    "PUT {target} HTTP/1.0",
    "PUT http://x{target} HTTP/1.1",
    "PUT  {target} HTTP/1.1",
    "PUT {target}  HTTP/1.1",
    "PUT {target} HTTP/1.1 ",
    "PUT {target}",
    "PUT {target} http/1.1",
    "PUT {target} HTTP/2.0",
    "PUT {target} HTTP/1.2",
    "PUT\t{target}\tHTTP/1.1",
    "\r\nPUT {target} HTTP/1.1",
    "\nPUT {target} HTTP/1.1",
    " PUT {target} HTTP/1.1",
    "put {target} HTTP/1.1",
    "PUT {target}#x HTTP/1.1",
    "PUT {target} HTTP/1.1\r\nHost: y",
    "PUT {target}\0 HTTP/1.1",
    "P\u00dcT {target} HTTP/1.1",
    "PUT {target} HTTP/1.1\n",
]
#: bodies in chunks: the content, and how it is spelled
CHUNKED = [
    "{n:x}\r\n{body}\r\n0\r\n\r\n",
    "{n:X}\r\n{body}\r\n0\r\n\r\n",
    "00{n:x}\r\n{body}\r\n0\r\n\r\n",
    "{n:x};a=b\r\n{body}\r\n0\r\n\r\n",
    "{n:x} \r\n{body}\r\n0\r\n\r\n",
    " {n:x}\r\n{body}\r\n0\r\n\r\n",
    "0x{n:x}\r\n{body}\r\n0\r\n\r\n",
    "+{n:x}\r\n{body}\r\n0\r\n\r\n",
    "-{n:x}\r\n{body}\r\n0\r\n\r\n",
    "{n:x}\n{body}\n0\n\n",
    "{n:x}\r\n{body}0\r\n\r\n",
    "{n:x}\r\n{body}\r\n0\r\nX: y\r\n\r\n",
    "{n:x}\r\n{body}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "{n:x}\r\n{body}\r\n",
    "ffffffffffffffff1\r\n{body}\r\n0\r\n\r\n",
    "{n:x}\r\n{body}\r\n00\r\n\r\n",
    "{n:x}\r\n{body}\r\n0\r\n \r\n",
    "\r\n{n:x}\r\n{body}\r\n0\r\n\r\n",
    "g\r\n{body}\r\n0\r\n\r\n",
    "{n:x};\r\n{body}\r\n0\r\n\r\n",
    '{n:x};a="\n"\r\n{body}\r\n0\r\n\r\n',
    "{n:x}\r\n{body}\rX0\r\n\r\n",
    "{n:x}\r{body}\r\n0\r\n\r\n",
]
LENGTHS = [0, 1, 10, 70, 2000]


@dataclass(frozen=True)
class Stream:
    """What is sent on one connection, and where it is cut in two."""

    name: str
    sent: bytes
    cut: int | None


def request(
    name: str,
    token: str,
    body: bytes,
    *,
    first: str = "PUT {target} HTTP/1.1",
    framing: str = "Content-Length: {n}",
    expect: str = "",
    chunked: str | None = None,
    given: bytes | None = None,
) -> bytes:
    target = f"/v1/storage/object?url=host://{name}"
    head = f"{first.format(target=target)}\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{expect}"
    content = body if given is None else given
    if chunked is not None:
        content = chunked.format(n=len(body), body=body.decode()).encode()
    return head.encode() + framing.format(n=len(body)).encode() + b"\r\n\r\n" + content


def streams(token: str) -> Iterator[Stream]:
    """Every framing, first line and spelling of chunks, with and without Expect, followed by another request."""
    rng = random.Random(11)
    numbers = itertools.count()

    def follow(first: bytes, name: str, body_length: int) -> Stream:
        sent = first + request(f"{name}-next", token, b"second body")
        sent += b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        cut = rng.choice(
            [None, None, first.find(b"\r\n\r\n") + 4, rng.randrange(1, len(sent)), len(first) - body_length // 2]
        )
        return Stream(name, sent, cut)

    def body_of(length: int) -> bytes:
        hidden = f"GET /v1/user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"  # as a smuggler would
        return (hidden * (length // len(hidden) + 1)).encode()[:length]

    for framing, expect in itertools.product(FRAMINGS, EXPECTATIONS):
        length = rng.choice(LENGTHS)
        name, body = f"f{next(numbers)}", body_of(length)
        chunked = CHUNKED[0] if "chunked" in framing.lower() and rng.random() < 0.7 else None
        yield follow(request(name, token, body, framing=framing, expect=expect, chunked=chunked), name, length)
    for first, expect, length in itertools.product(FIRST_LINES, EXPECTATIONS[:2], LENGTHS[1:4]):
        name = f"l{next(numbers)}"
        yield follow(request(name, token, body_of(length), first=first, expect=expect), name, length)
    for spelling, expect, before in itertools.product(CHUNKED, EXPECTATIONS[:2], ("", FRAMINGS[0] + "\r\n")):
        name, length = f"c{next(numbers)}", rng.choice(LENGTHS[1:])
        sent = request(
            name,
            token,
            body_of(length),
            framing=f"{before}Transfer-Encoding: chunked",
            expect=expect,
            chunked=spelling,
        )
        yield follow(sent, name, length)
    for length, expect in itertools.product(
        [1, 2, 9, 10, 11, 70, 1999, 2000] * 4, EXPECTATIONS[:3]
    ):  # too short, too long
        name = f"n{next(numbers)}"
        given = body_of(max(0, length + rng.randrange(-3, 4)))
        yield follow(request(name, token, body_of(length), expect=expect, given=given), name, length)
    for _ in range(120):  # one byte wrong anywhere in the head
        name, length = f"m{next(numbers)}", rng.choice(LENGTHS)
        changed = bytearray(request(name, token, body_of(length), expect=rng.choice(EXPECTATIONS)))
        place = rng.randrange(changed.find(b"\r\n\r\n") + 4)
        if rng.random() < 0.5:
            changed[place] = rng.choice(b"\0\t\n\r :;,/0xX\x7f\xff")
        else:
            del changed[place]
        yield follow(bytes(changed), name, length)


def as_h11_reads(sent: bytes) -> tuple[list[tuple[str, bytes]], str]:
    """Return the requests that h11 finds (target and body), and why it stopped: ``error``, ``data`` or ``end``."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
    found: list[tuple[str, bytes]] = []
    target, body = "", b""
    try:
        connection.receive_data(sent)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return found, "data"
            if isinstance(event, h11.Request):
                target, body = event.target.decode().partition("#")[0], b""  # what follows # is not a part of a URL
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((target, body))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return found, "end"
                connection.start_next_cycle()
            else:
                return found, "end"
    except h11.RemoteProtocolError:
        return found, "error"


def exchange(port: int, stream: Stream, patience: float) -> bytes:
    """Send a stream and return what comes back until the connection ends, or nothing more comes."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.sendall(stream.sent[: stream.cut])
            if stream.cut is not None:
                time.sleep(0.003)  # until the daemon has read the first piece
                connection.sendall(stream.sent[stream.cut :])
            while (piece := connection.recv(1 << 16)) and b"connection: close" not in (got := got + piece).lower():
                pass
    return got


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("wire")) as started:
        yield started


def difference(stream: Stream, read: list[tuple[str, bytes]], shared: Path) -> str | None:
    """Compare the files that a stream has left with the requests that h11 found in it."""
    wanted = {target.partition("host://")[2]: body for target, body in read}
    for name in (stream.name, f"{stream.name}-next"):
        path = shared / name
        if path.exists() and name in wanted and path.read_bytes() != wanted[name]:
            return f"{name}: the daemon took {path.read_bytes()!r} for the body, h11 {wanted[name]!r}"
    return None


def test_the_same_bytes_belong_to_the_same_request(wired: RunningDaemon) -> None:
    count = agreed = 0
    differences = []
    for stream in streams(wired.token("alice", "storage")):
        read, why = as_h11_reads(stream.sent)
        got = exchange(wired.port, stream, 0.3)
        count += 1
        found = difference(stream, read, wired.shared)
        statuses = [int(text) for text in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]
        made = {path.name for path in wired.shared.iterdir() if path.name.partition("-")[0] == stream.name}
        if found is None and not any(status >= 500 for status in statuses):
            wanted = {target.partition("host://")[2] for target, _ in read}
            if why != "error" and not made <= wanted:
                found = f"the daemon saw {made - wanted}, h11 did not ({why})"
            agreed += bool(made) and made <= wanted
        elif found is None:
            found = f"statuses {statuses}"
        if b"HTTP/0.9" in got and made:
            found = "a request of HTTP/0.9 was served"
        if b'"scopes"' in got:
            found = "a body was answered as a request"
        if found is not None:
            differences.append((found, stream))
    assert not differences, differences[:5]
    assert count >= 500
    assert agreed >= 150, "most of the well-formed ones are understood by both"
