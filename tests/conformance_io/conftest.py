"""Where the tests that others wrote are run: a local directory, a bucket of an S3 server, a mount in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers.stores.moto import Moto

from apyfal import storage
from apyfal.storage.mounting import table


@pytest.fixture(scope="session")
def server(moto_server: Moto) -> Iterator[Moto]:
    """An S3 server; what is mounted of it is closed in the end."""
    yield moto_server
    table.table.clear()


@pytest.fixture
def bucket(server: Moto) -> str:
    """URL of a bucket on an S3 server."""
    storage.mount(  # nothing, unless another test has cleared the table
        "s3.conformance",
        client_id=server.access_key,
        secret_id=server.secret_key,
        region=server.region,
        endpoint_url=server.endpoint_url,
        config={},
    )
    storage.makedirs("s3.conformance://conformance", exist_ok=True)
    return "s3.conformance://conformance"


@pytest.fixture
def memory() -> str:
    """URL of a directory of fsspec's filesystem in memory."""
    storage.mount("memory-conformance", provider="fsspec", protocol="memory", config={})  # nothing, once it is mounted
    storage.makedirs("memory-conformance://conformance", exist_ok=True)
    return "memory-conformance://conformance"


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A new directory: local, in memory, or a new prefix in the bucket."""
    folder = tmp_path_factory.mktemp("place")
    if request.param == "local":
        return str(folder)
    if request.param == "memory":
        directory = f"{request.getfixturevalue('memory')}/{folder.name}"
        storage.makedirs(directory, exist_ok=True)
        return directory
    bucket: str = request.getfixturevalue("bucket")
    return f"{bucket}/{folder.name}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the server."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "conformance_io" in item.path.parts and ("bucket" in names or parameters.get("place") == "s3"):
            item.add_marker(pytest.mark.server)
