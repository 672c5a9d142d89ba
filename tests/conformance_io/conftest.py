"""Where the tests that others wrote are run: a local directory, and a bucket of an S3 server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers.moto import Moto

from apyfal import storage


@pytest.fixture(scope="session")
def bucket(moto_server: Moto) -> Iterator[str]:
    """URL of a bucket on an S3 server."""
    storage.mount(
        "s3.conformance",
        client_id=moto_server.access_key,
        secret_id=moto_server.secret_key,
        region=moto_server.region,
        endpoint_url=moto_server.endpoint_url,
        config={},
    )
    storage.makedirs("s3.conformance://conformance", exist_ok=True)
    yield "s3.conformance://conformance"
    storage.unmount("s3.conformance")


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A new local directory, or a new prefix in the bucket."""
    folder = tmp_path_factory.mktemp("place")
    if request.param == "local":
        return str(folder)
    bucket: str = request.getfixturevalue("bucket")
    return f"{bucket}/{folder.name}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the server."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "conformance_io" in item.path.parts and ("bucket" in names or parameters.get("place") == "s3"):
            item.add_marker(pytest.mark.server)
