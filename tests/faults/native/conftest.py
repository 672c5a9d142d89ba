"""A store behind many mounts, and what its answers may become."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from servers.web.hostile import Answer, Hostile, Request

from apyfal import storage
from apyfal.storage.batch.native import ways

COUNT = 12
SIZE = 20_000
OBJECTS = [random.Random(number).randbytes(SIZE) for number in range(COUNT)]
HIT = 5  # the one with the fault
_names = itertools.count()
Mount = Callable[..., list[str]]


@pytest.fixture
def mount(store: Hostile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """Fill the store, mount it under a new name, and give the objects' URLs."""
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.001)
    made = []

    def make(**parameters: object) -> list[str]:
        name = f"s3.native{next(_names)}"
        given = {"client_id": "key", "secret_id": "secret", "endpoint_url": store.endpoint_url, "timeout": 10.0}
        storage.mount(name, **{**given, **parameters})
        made.append(name)
        for number, data in enumerate(OBJECTS):
            store.put(f"b/{number}", data)
        ways.take()
        return [f"{name}://b/{number}" for number in range(COUNT)]

    yield make
    for name in made:
        storage.unmount(name)


def said(found: Answer) -> dict[str, object]:
    return {"kind": "change", "act": lambda request: found}


def edited(**headers: str | None) -> dict[str, object]:
    def change(request: Request, found: Answer) -> None:
        for name, value in headers.items():
            found.headers.pop(name.replace("_", "-"), None)
            if value is not None:
                found.headers[name.replace("_", "-")] = value

    return {"kind": "change", "edit": change}
