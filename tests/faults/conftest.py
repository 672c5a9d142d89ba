"""The hostile store, and handlers for it."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest
from servers.web.hostile import Hostile, hostile

from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import TransferOptions

PART = 64 << 10
#: Five parts and a bit, so that the last one differs.
DATA = random.Random(3).randbytes(5 * PART + 777)
OPTIONS = TransferOptions(part_size=PART, concurrency=3)


def patience(fault: Mapping[str, object]) -> float:
    """Seconds without progress that a handler waits: short only where the fault is silence, as machines are busy."""
    return 0.4 if fault["kind"] in ("stall", "drip") else 10.0


@contextlib.contextmanager
def after_a_fault(store: Hostile, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` in another thread when the first fault has happened; not at all if none does within the block."""
    over = threading.Event()

    def watch() -> None:
        while not store.hit:
            if over.wait(0.005):
                return
        over.wait(0.1)  # in most runs the other side then waits for what does not come
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with hostile() as running:
        yield running


@pytest.fixture
def store(server: Hostile) -> Iterator[Hostile]:
    """The hostile store with one object, ``b/data``."""
    server.reset()
    server.put("b/data", DATA)
    yield server
    server.reset()


@pytest.fixture
def connect(store: Hostile) -> Iterator[Callable[..., S3Handler]]:
    """Make a handler with its own connections and retry quota."""
    made = []

    def make(**parameters: object) -> S3Handler:
        given = {"client_id": "key", "secret_id": "secret", "endpoint_url": store.endpoint_url, "timeout": 10.0}
        made.append(S3Handler(**{**given, **parameters}))
        return made[-1]

    yield make
    for handler in made:
        handler.close()
