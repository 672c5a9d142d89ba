"""Every provider of `apyfal.storage` against a real server, by the suite that is shipped for third parties."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from servers.azurite import Azurite
from servers.ceph import Ceph
from servers.gcs import FakeGcs
from servers.moto import Moto
from servers.nginx import Nginx
from servers.sftp import Sftp
from servers.swift import Swift

from apyfal import storage
from apyfal.testing.handlers import AWKWARD_KEYS
from apyfal.testing.storage import StorageConformance

pytestmark = pytest.mark.server

NO_NOISE = tuple(key for key in AWKWARD_KEYS if "\\" not in key)


@contextmanager
def mounted(name: str, bucket: str, **parameters: Any) -> Iterator[str]:
    storage.mount(name, **parameters)
    try:
        if bucket:
            storage.makedirs(f"{name}://{bucket}", exist_ok=True)
        yield f"{name}://{bucket}"
    finally:
        storage.unmount(name)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be the user that may do nothing."""
    before = os.geteuid()
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


class TestFile(StorageConformance):
    """file (local)"""

    updates = True

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return str(tmp_path_factory.mktemp("conformance"))

    def seed(self, url: str, data: bytes) -> None:
        storage.makedirs(os.path.dirname(url), exist_ok=True)
        storage.save(url, np.frombuffer(data, np.uint8))

    def denied(self, folder: str) -> tuple[str, AbstractContextManager[object]]:
        path = Path(folder) / "secret"
        path.write_bytes(b"x")
        path.chmod(0)
        return str(path), as_nobody() if os.geteuid() == 0 else nullcontext()


class TestHttp(StorageConformance):
    """http (nginx)"""

    writable = False
    lists = False

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, nginx_server: Nginx) -> str:
        cls.server = nginx_server
        return nginx_server.endpoint_url

    server: Nginx

    def url(self, folder: str, key: str) -> str:
        return f"{folder}/{quote(key)}"

    def seed(self, url: str, data: bytes) -> None:
        from urllib.parse import unquote

        path = self.server.root / unquote(url.removeprefix(self.server.endpoint_url).lstrip("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def denied(self, folder: str) -> tuple[str, AbstractContextManager[object]]:
        return f"{self.server.endpoint_url}/private/object", nullcontext()


class TestS3Moto(StorageConformance):
    """s3 (Moto)"""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, moto_server: Moto) -> Iterator[str]:
        with mounted(
            "s3.moto",
            "conformance",
            endpoint_url=moto_server.endpoint_url,
            client_id=moto_server.access_key,
            secret_id=moto_server.secret_key,
            checksum="crc64nvme",
        ) as url:
            yield url


class TestS3Ceph(StorageConformance):
    """s3 (Ceph)"""

    server: Ceph

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, ceph_server: Ceph) -> Iterator[str]:
        cls.server = ceph_server
        with mounted(
            "s3.ceph",
            "conformance",
            endpoint_url=ceph_server.endpoint_url,
            client_id=ceph_server.access_key,
            secret_id=ceph_server.secret_key,
        ) as url:
            yield url

    def denied(self, folder: str) -> tuple[str, AbstractContextManager[object]]:
        self.seed(self.url(folder, "secret"), b"x")
        other = mounted(
            "s3.other",
            "",
            endpoint_url=self.server.endpoint_url,
            client_id=self.server.other_access_key,
            secret_id=self.server.other_secret_key,
        )
        return f"s3.other://{folder.partition('://')[2]}/secret", other


class TestS3Swift(StorageConformance):
    """s3 (Swift's interface)"""

    exclusive = False

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, swift_server: Swift) -> Iterator[str]:
        with mounted(
            "s3.swift",
            "conformance-s3",
            endpoint_url=swift_server.endpoint_url,
            client_id=swift_server.user,
            secret_id=swift_server.key,
        ) as url:
            yield url


class TestSwift(StorageConformance):
    """swift (Swift, v1)"""

    server: Swift

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, swift_server: Swift) -> Iterator[str]:
        cls.server = swift_server
        with mounted(
            "swift.v1",
            "conformance",
            endpoint_url=swift_server.auth_url,
            client_id=swift_server.user,
            secret_id=swift_server.key,
        ) as url:
            yield url

    def denied(self, folder: str) -> tuple[str, AbstractContextManager[object]]:
        self.seed(self.url(folder, "secret"), b"x")
        other = mounted(
            "swift.other",
            "",
            endpoint_url=self.server.auth_url,
            client_id=self.server.other_user,
            secret_id=self.server.other_key,
            storage_url=self.server.storage_url,
        )
        return f"swift.other://{folder.partition('://')[2]}/secret", other


class TestSwiftKeystone(StorageConformance):
    """swift (Swift, Keystone v3)"""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, swift_server: Swift) -> Iterator[str]:
        known = swift_server.keystone
        with mounted(
            "swift.v3",
            "conformance-v3",
            endpoint_url=f"{known.endpoint_url}/v3",
            client_id=known.user,
            secret_id=known.password,
            project=known.project,
            region=known.region,
        ) as url:
            yield url


class TestAzure(StorageConformance):
    """az (Azurite)"""

    server: Azurite
    # Azure takes a backslash for a slash
    awkward_keys = NO_NOISE

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, azurite_server: Azurite) -> Iterator[str]:
        cls.server = azurite_server
        with mounted(
            "az.azurite",
            "conformance",
            endpoint_url=azurite_server.endpoint_url,
            client_id=azurite_server.account,
            secret_id=azurite_server.key,
        ) as url:
            yield url

    def denied(self, folder: str) -> tuple[str, AbstractContextManager[object]]:
        other = mounted(
            "az.other",
            "",
            endpoint_url=self.server.endpoint_url,
            client_id=self.server.account,
            secret_id="bm90IHRoZSBrZXk=",
        )
        return f"az.other://{folder.partition('://')[2]}/secret", other


class TestGoogle(StorageConformance):
    """gs (fake-gcs-server)"""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, gcs_server: FakeGcs) -> Iterator[str]:
        with mounted(
            "gs.fake",
            "conformance",
            endpoint_url=gcs_server.endpoint_url,
            project=gcs_server.project,
            anonymous=True,
        ) as url:
            yield url


class TestAlibaba(StorageConformance):
    """oss (Moto)"""

    exclusive = False

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, moto_server: Moto) -> Iterator[str]:
        with mounted(
            "oss.moto",
            "conformance-oss",
            endpoint_url=moto_server.endpoint_url,
            client_id=moto_server.access_key,
            secret_id=moto_server.secret_key,
            region=moto_server.region,
        ) as url:
            yield url


class TestFsspecMemory(StorageConformance):
    """fsspec (memory)"""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls) -> Iterator[str]:
        with mounted("memory-test", "conformance", provider="fsspec", protocol="memory") as url:
            yield url


class TestFsspecSftp(StorageConformance):
    """fsspec (SFTP)"""

    server: Sftp

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, sftp_server: Sftp) -> Iterator[str]:
        cls.server = sftp_server
        with mounted("sftp-test", "conformance", **cls.parameters(sftp_server.password)) as url:
            yield url

    @classmethod
    def parameters(cls, password: str) -> dict[str, Any]:
        return {
            "provider": "fsspec",
            "protocol": "sftp",
            "host": cls.server.host,
            "port": cls.server.port,
            "client_id": cls.server.user,
            "secret_id": password,
        }

    def denied(self, folder: str) -> tuple[str, AbstractContextManager[object]]:
        other = mounted("sftp-other", "", **self.parameters("wrong"))
        return f"sftp-other://{folder.partition('://')[2]}/secret", other
