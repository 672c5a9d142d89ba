"""The native transport as Python sees it: what is given, who may use it, and what it leaves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

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


def test_one_thread_at_a_time(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, _ = pair
    transport = Transport([REQUEST], **LIMITS)
    transport.attach(mine.fileno(), False)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            transport.run(1)
        except TransferCancelled as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    refused = 0
    deadline = time.monotonic() + 30
    while not refused and time.monotonic() < deadline:
        try:
            transport.take(0)
            transport.states()
        except BufferInUse:
            refused += 1
    assert refused
    transport.interrupt()
    thread.join()
    assert len(ended) == 1
    with pytest.raises(TransferCancelled):
        transport.run(1)


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
