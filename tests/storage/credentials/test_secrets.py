"""Seeded secrets appear in no error, representation, listing of mounts, or log."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from servers.files.sftp import Sftp
from servers.stores.azurite import Azurite
from servers.stores.ceph import Ceph
from servers.stores.swift import Swift
from servers.web.nginx import Nginx

from apyfal import storage
from apyfal.exceptions import AcceleratorException

pytestmark = pytest.mark.server

CANARY = "canary-secret-4f1d9a7e"
#: The same as a key that Azure would accept by its form.
CANARY_KEY = "Y2FuYXJ5LXNlY3JldC00ZjFkOWE3ZQ=="


@pytest.fixture
def mounts(
    ceph_server: Ceph, swift_server: Swift, azurite_server: Azurite, sftp_server: Sftp
) -> Iterator[dict[str, dict[str, Any]]]:
    """Mount stores with credentials that their servers refuse."""
    keystone = f"{swift_server.keystone.endpoint_url}/v3"
    azure = {"provider": "az", "endpoint_url": azurite_server.endpoint_url}
    given: dict[str, dict[str, Any]] = {
        "canary-s3": {"provider": "s3", "endpoint_url": ceph_server.endpoint_url, "client_id": "AKIA"},
        "canary-v1": {"provider": "swift", "endpoint_url": swift_server.auth_url, "client_id": swift_server.user},
        "canary-v3": {"provider": "swift", "endpoint_url": keystone, "client_id": "reader"},
        "canary-key": {**azure, "client_id": azurite_server.account, "secret_id": CANARY_KEY},
        "canary-sas": {**azure, "sas": f"sv=2021-12-02&sp=r&sig={CANARY}"},
        "canary-gs": {"provider": "gs", "endpoint_url": ceph_server.endpoint_url, "client_id": "GOOG"},
        "canary-oss": {"provider": "oss", "endpoint_url": ceph_server.endpoint_url, "client_id": "LTAI"},
        "canary-sftp": {
            "provider": "fsspec",
            "protocol": "sftp",
            "host": sftp_server.host,
            "port": sftp_server.port,
            "client_id": sftp_server.user,
        },
    }
    for name, parameters in given.items():
        if name != "canary-sas":
            parameters.setdefault("secret_id", CANARY)
        storage.mount(name, **parameters)
    yield given
    for name in given:
        storage.unmount(name)


def texts_of(error: BaseException) -> Iterator[str]:
    """Give everything that a traceback shows of an error, and of those below it."""
    seen: BaseException | None = error
    while seen is not None:
        yield from (str(seen), repr(seen), repr(seen.args), repr(vars(seen)))
        seen = seen.__cause__ or seen.__context__


def test_no_secret_in_errors_listings_and_logs(
    mounts: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for name in mounts:
            for action in (storage.load, storage.stat, storage.listdir, storage.remove, storage.exists):
                try:
                    action(f"{name}://bucket/key")
                except AcceleratorException as error:
                    shown += texts_of(error)
        for info in storage.mounts().values():
            shown += (str(info), repr(info), repr(info.parameters))
    assert len(shown) > 4 * len(mounts)
    shown += (record.getMessage() for record in caplog.records)
    shown += capsys.readouterr()
    for text in shown:
        for secret in (CANARY, CANARY_KEY):
            assert secret not in text


def test_no_secret_in_errors_of_the_mount_itself() -> None:
    for parameters in (
        {"provider": "az", "client_id": "account", "secret_id": CANARY},
        {"provider": "az", "connection_string": f"AccountKey={CANARY}"},
        {"provider": "az", "sas": CANARY, "client_id": "account"},
        {"provider": "oss", "secret_id": CANARY},
        {"provider": "gs", "secret_id": CANARY},
        {"provider": "swift", "secret_id": CANARY},
        {"provider": "s3", "secret_id": CANARY, "addressing": "wrong"},
        {"provider": "fsspec", "protocol": "no-such", "secret_id": CANARY},
    ):
        with pytest.raises(AcceleratorException) as caught:  # noqa: PT012  # wherever it is noticed
            storage.mount("canary-broken", replace=True, **parameters)
            storage.load("canary-broken://bucket/key")
        assert all(CANARY not in text for text in texts_of(caught.value))
        storage.unmount("canary-broken")


def test_a_password_in_an_address_is_not_shown(nginx_server: Nginx) -> None:
    host = nginx_server.endpoint_url.partition("://")[2]
    with pytest.raises(AcceleratorException) as caught:
        storage.load(f"http://reader:{CANARY}@{host}/private/object")
    assert all(CANARY not in text for text in texts_of(caught.value))


def test_errors_can_be_pickled_without_secrets(mounts: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(AcceleratorException) as caught:
        storage.stat("canary-v3://bucket/key")
    assert CANARY.encode() not in pickle.dumps(caught.value)
