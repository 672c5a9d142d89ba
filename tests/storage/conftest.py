"""Every store of the test servers, mounted, for tests that go between them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from servers.files.sftp import Sftp
from servers.stores.azurite import Azurite
from servers.stores.ceph import Ceph
from servers.stores.gcs import FakeGcs
from servers.stores.moto import Moto
from servers.stores.swift import Swift

from apyfal import storage


def parameters(
    moto: Moto, ceph: Ceph, swift: Swift, azurite: Azurite, gcs: FakeGcs, sftp: Sftp
) -> dict[str, dict[str, Any]]:
    """Give what each mount is made of."""
    keys = {"client_id": moto.access_key, "secret_id": moto.secret_key, "endpoint_url": moto.endpoint_url}
    return {
        "s3-moto": {"provider": "s3", **keys, "checksum": "crc64nvme"},
        "s3-ceph": {
            "provider": "s3",
            "endpoint_url": ceph.endpoint_url,
            "client_id": ceph.access_key,
            "secret_id": ceph.secret_key,
        },
        "swift-v1": {
            "provider": "swift",
            "endpoint_url": swift.auth_url,
            "client_id": swift.user,
            "secret_id": swift.key,
        },
        "az-azurite": {
            "provider": "az",
            "endpoint_url": azurite.endpoint_url,
            "client_id": azurite.account,
            "secret_id": azurite.key,
        },
        "gs-fake": {"provider": "gs", "endpoint_url": gcs.endpoint_url, "project": gcs.project, "anonymous": True},
        "oss-moto": {"provider": "oss", **keys, "region": moto.region},
        "fsspec-memory": {"provider": "fsspec", "protocol": "memory"},
        "fsspec-sftp": {
            "provider": "fsspec",
            "protocol": "sftp",
            "host": sftp.host,
            "port": sftp.port,
            "client_id": sftp.user,
            "secret_id": sftp.password,
        },
    }


@pytest.fixture(scope="module")
def stores(
    tmp_path_factory: pytest.TempPathFactory,
    moto_server: Moto,
    ceph_server: Ceph,
    swift_server: Swift,
    azurite_server: Azurite,
    gcs_server: FakeGcs,
    sftp_server: Sftp,
) -> Iterator[dict[str, str]]:
    """Mount each store; gives its name and the URL of a bucket in it."""
    urls = {"file": str(tmp_path_factory.mktemp("stores"))}
    mounts = parameters(moto_server, ceph_server, swift_server, azurite_server, gcs_server, sftp_server)
    for name, given in mounts.items():
        storage.mount(name, **given)
        urls[name] = f"{name}://{name}-bucket"
        storage.makedirs(urls[name], exist_ok=True)
    yield urls
    for name in mounts:
        storage.unmount(name)


def load_support() -> ModuleType:
    """Import the tool that makes the documentation's table."""
    path = Path(__file__).parents[2] / "tools/storage_support.py"
    spec = importlib.util.spec_from_file_location("storage_support", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SUPPORT = load_support()
CELLS: dict[tuple[str, str], str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what the conformance suite finds."""
    report = yield
    if item.path == SUPPORT.TESTS and item.parent is not None and (call.when == "call" or report.failed):
        support = dict(report.user_properties).get("support")
        SUPPORT.note(CELLS, item.parent.name, item.name, support=support, failed=report.failed)
    return report


@pytest.fixture
def differences() -> list[str]:
    """Where the table in the documentation is not what the conformance suite has found so far."""
    found: list[str] = SUPPORT.differences(CELLS)
    return found
