"""The native transport as Python sees it: what is given, who may use it, and what it leaves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from apyfal._core.transport import DONE, WAITING, Transport
from apyfal.exceptions import AcceleratorException, BufferInUse, ParameterError, TransferCancelled

REQUEST = b"GET /k HTTP/1.1\r\nHost: h\r\n\r\n"
ANSWER = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 5\r\n\r\nhello'
LIMITS = {"stall": 30.0, "largest": 1 << 20, "mistakes": 8}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        yield mine, theirs


def test_an_answer_is_received_in_place_and_in_memory_of_the_pool(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, theirs = pair
    out = np.zeros(5, np.uint8)
    transport = Transport([REQUEST, REQUEST], [out, None], **LIMITS)
    assert transport.states() == bytes([WAITING] * 2)
    slot = transport.attach(mine.fileno(), False)
    theirs.sendall(ANSWER)
    thread = threading.Thread(target=lambda: (time.sleep(0.05), theirs.sendall(ANSWER)))
    thread.start()
    assert transport.run(1)
    thread.join()
    assert transport.states() == bytes([DONE] * 2)
    assert bytes(out) == b"hello"
    memory = transport.take(1)
    assert memory is not None
    assert bytes(memory) == b"hello"  # type: ignore[arg-type]
    assert (transport.take(0), transport.take(1)) == (None, None)
    assert transport.usable(slot)
    assert not transport.lost(slot)


@pytest.mark.parametrize("head_first", [False, True])
def test_a_guessed_size_is_no_condition(pair: tuple[socket.socket, socket.socket], head_first: bool) -> None:
    """All heads are of one size, so that bodies are received at their places before their sizes are known."""
    mine, theirs = pair
    bodies = [b"a" * 5000, b"b" * 5000, b"c" * 4999, b"d" * 5001, b"", b"e" * 7, b"f" * 5000]
    outs = [np.zeros(5000, np.uint8) for _ in bodies]
    transport = Transport([REQUEST] * len(bodies), outs, guessed=True, **LIMITS)
    transport.attach(mine.fileno(), False)

    def serve() -> None:
        for body in bodies:
            theirs.recv(1 << 16)
            size = b"%d" % len(body)
            head = b'HTTP/1.1 200 OK\r\nETag: "%s"\r\nContent-Length: %s\r\n\r\n' % (b"x" * (4 - len(size)), size)
            for part in (head, body) if head_first else (head + body,):
                theirs.sendall(part)
                time.sleep(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    assert transport.run(1)
    thread.join()
    assert transport.states() == bytes([DONE] * len(bodies))
    for index, (body, out) in enumerate(zip(bodies, outs, strict=True)):
        assert transport.in_place(index) == (len(body) == 5000)
        memory = transport.take(index)
        found = bytes(out) if transport.in_place(index) else b"" if memory is None else bytes(memory)  # type: ignore[arg-type]
        assert found == body


@pytest.mark.parametrize(
    "use",
    [
        lambda transport: transport.take(0),
        lambda transport: transport.states(),
        lambda transport: transport.answer(0),
        lambda transport: transport.lost(0),
        lambda transport: transport.usable(0),
        lambda transport: transport.run(1),
    ],
)
def test_one_thread_at_a_time(pair: tuple[socket.socket, socket.socket], use: Callable[[Transport], object]) -> None:
    """A body that is being received is nobody's yet, and the thread that receives is not refused by others' calls."""
    mine, theirs = pair
    transport = Transport([REQUEST], **LIMITS)
    transport.attach(mine.fileno(), False)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            transport.run(1)
        except (TransferCancelled, BufferInUse) as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert theirs.recv(1 << 16) == REQUEST
    theirs.sendall(ANSWER[:-2])
    until = time.monotonic() + 0.2  # longer than `run` works without a look at signals
    while time.monotonic() < until:
        with pytest.raises(BufferInUse):
            use(transport)
    transport.interrupt()
    thread.join()
    assert [type(error) for error in ended] == [TransferCancelled]
    with pytest.raises(TransferCancelled):
        transport.run(1)


def test_the_callers_lists_may_change(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, theirs = pair
    requests, outs = [bytes(bytearray(REQUEST))], [np.zeros(5, np.uint8)]
    transport = Transport(requests, outs, **LIMITS)
    out = outs.pop()
    requests.clear()
    others = [bytes([65 + number % 26]) * len(REQUEST) for number in range(1000)]  # where the head was, if it has gone
    transport.attach(mine.fileno(), False)
    theirs.sendall(ANSWER)
    assert transport.run(1)
    assert theirs.recv(1 << 16) == REQUEST
    assert bytes(out) == b"hello"
    del others


@pytest.mark.parametrize(
    ("requests", "outs", "kind"),
    [
        ([REQUEST], [], ParameterError),
        (["text"], None, TypeError),
        ([REQUEST], [b"read-only"], BufferError),
        ([REQUEST], [np.zeros((4, 4))[:, ::2]], ValueError),
        ([REQUEST], [3], TypeError),
    ],
)
def test_bad_input(requests: list[bytes], outs: list[object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Transport(requests, outs, **LIMITS)  # type: ignore[arg-type]


def test_bad_places(pair: tuple[socket.socket, socket.socket]) -> None:
    transport = Transport([REQUEST], **LIMITS)
    for index in (-1, 1, 1 << 40):
        with pytest.raises(IndexError):
            transport.take(index)
    assert transport.lost(7)
    assert transport.lost(1 << 20)
    assert not transport.usable(7)
    with pytest.raises(AcceleratorException):
        transport.attach(-1, False)
    assert transport.run(0)
    assert transport.states() == bytes([WAITING])
