"""Jobs over a store that does not go on: they end at their deadline, or when their accelerator is stopped."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import apyfal
from apyfal.exceptions import ClosedError, RunCancelled, RunTimeout

#: Seconds that no test comes near unless a job waits for the store's own time limits, or for stages that hang.
PATIENCE = 3.0
#: What a server sends before it goes silent, by what the job then waits for.
BEGINNINGS = {
    "a look-up": b"",
    "a small object": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nAccept-Ranges: bytes\r\n\r\n" + bytes(10),
    "a large object": b"HTTP/1.1 200 OK\r\nContent-Length: 400000000\r\nAccept-Ranges: bytes\r\n\r\n" + bytes(10),
}


@pytest.fixture(params=BEGINNINGS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of an object whose server stops in the middle."""
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            kept.append(connection)
            head = connection.recv(1 << 16)
            answer = b"" if head.startswith(b"PUT") else BEGINNINGS[request.param]
            if head.startswith(b"HEAD"):
                answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if answer else b""
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x"
        server.shutdown(socket.SHUT_RDWR)
    for one in kept:
        one.close()


def test_a_job_ends_at_its_deadline(url: str) -> None:
    with apyfal.Accelerator("sha3") as card:
        for run in (card.process, lambda *job, **more: card.process_submit(*job, **more).result()):
            begin = time.monotonic()
            with pytest.raises(RunTimeout):
                run(url, timeout=0.3)
            assert 0.3 <= time.monotonic() - begin < PATIENCE
        assert card.process(bytes(9))


def test_a_destination_that_hangs(url: str) -> None:
    with apyfal.Accelerator("loopback") as card:
        begin = time.monotonic()
        with pytest.raises(RunTimeout):
            card.process(bytes(100), f"{url}?sv=2021-12-02&sp=cw&sr=b&sig=0", timeout=0.3)
        assert time.monotonic() - begin < PATIENCE


@pytest.mark.parametrize("opener", [apyfal.Accelerator, apyfal.AcceleratorPoolExecutor])
@pytest.mark.parametrize("count", [1, 20])
def test_an_accelerator_that_is_stopped(url: str, opener: Callable[[str], Any], count: int) -> None:
    threads = threading.active_count()
    with opener("sha3") as card:
        futures = [card.process_submit(url) for _ in range(count)]
        time.sleep(0.3)
        begin = time.monotonic()
        card.stop()
        assert time.monotonic() - begin < PATIENCE
        ends = [type(future.exception(PATIENCE)) for future in futures if not future.cancelled()]
    assert {RunCancelled} <= set(ends) <= {RunCancelled, ClosedError}  # of what was about to begin
    while threading.active_count() > threads and time.monotonic() - begin < 2 * PATIENCE:
        time.sleep(0.01)
    assert threading.active_count() <= threads
