"""A store behind many mounts, and what its answers may become."""

from __future__ import annotations

import itertools
import random
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.certificates import issue
from servers.web.hostile import Answer, Hostile, Request, hostile

from apyfal import storage
from apyfal.storage.batch.native import path_counts

COUNT = 12
SIZE = 20_000
OBJECTS = [random.Random(number).randbytes(SIZE) for number in range(COUNT)]
HIT = 5  # the one with the fault
_names = itertools.count()
Mount = Callable[..., list[str]]


@pytest.fixture(scope="module", params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: tuple[Path, ssl.SSLContext]) -> Iterator[Hostile]:
    """The store of all these tests, plain and over TLS."""
    with hostile(authority[1] if request.param == "https" else None) as running:
        yield running


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """An authority's certificate, and a server's context that it vouches for."""
    folder = tmp_path_factory.mktemp("authority")
    found = issue(folder, "server", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return found, context


@pytest.fixture(autouse=True)
def trusting(authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the authority."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority[0]))


@pytest.fixture
def mount(store: Hostile, authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
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
        path_counts.take()
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
