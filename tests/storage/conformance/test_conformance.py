"""Every provider of `apyfal.storage` against a real server, by the suite that is shipped for third parties."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import boto3
import numpy as np
import pytest
from servers.web.nginx import Nginx

from apyfal import storage
from apyfal.testing.handlers import AWKWARD_KEYS
from apyfal.testing.storage import StorageConformance

pytestmark = pytest.mark.server

Parameters = dict[str, Any]
Seen = tuple[str, AbstractContextManager[object]]


@contextmanager
def mounted(name: str, bucket: str, **parameters: Any) -> Iterator[str]:
    storage.mount(name, **parameters)
    try:
        if bucket:
            storage.makedirs(f"{name}://{bucket}", exist_ok=True)
        yield f"{name}://{bucket}"
    finally:
        storage.unmount(name)


class OnServer(StorageConformance):
    """A store on one of the test servers.

    Attributes
    ----------
    name, bucket
        What it is mounted as, and the bucket in it.
    fixture
        That of its server, which is then in `server`.
    """

    name: ClassVar[str]
    fixture: ClassVar[str]
    bucket = "conformance"
    server: ClassVar[Any]

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, request: pytest.FixtureRequest) -> Iterator[str]:
        cls.server = request.getfixturevalue(cls.fixture)
        cls.prepare(request)
        with mounted(cls.name, cls.bucket, **cls.owner()) as url:
            yield url

    @classmethod
    def prepare(cls, request: pytest.FixtureRequest) -> None:
        """Get ready what the mounts need, besides the server."""

    @classmethod
    def owner(cls) -> Parameters:
        """Give the parameters of the mount that may do everything."""
        raise NotImplementedError

    @classmethod
    def stranger(cls) -> Parameters | None:
        """Give those of a mount that may not read."""
        return None

    @classmethod
    def reader(cls) -> Parameters | None:
        """Give those of a mount that may not write."""
        return cls.stranger()

    def unreadable(self, folder: str) -> Seen | None:
        return self.seen_by(self.stranger(), folder)

    def unwritable(self, folder: str) -> Seen | None:
        return self.seen_by(self.reader(), folder)

    def seen_by(self, somebody: Parameters | None, folder: str) -> Seen | None:
        if somebody is None:
            return None
        other = f"{self.name}-other"
        return f"{other}://{folder.partition('://')[2]}", mounted(
            other, "", **{"provider": self.provider(), **somebody}
        )

    @classmethod
    def provider(cls) -> str:
        return cls.name.partition(".")[0]


@contextmanager
def as_nobody(folder: str, mode: int) -> Iterator[None]:
    """Be a user whom `mode` gives what it gives others, in a folder that can be reached."""
    inside = Path(folder)
    parents = {parent: parent.stat().st_mode for parent in (inside, *inside.parents)}
    root = os.geteuid() == 0
    for parent, before in parents.items():
        if root and not before & 0o001:
            parent.chmod(before | 0o011)
    inside.chmod(mode)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for parent, before in parents.items():
            if parent.stat().st_mode != before:
                parent.chmod(before)


class TestFile(StorageConformance):
    """file (local)"""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return str(tmp_path_factory.mktemp("conformance"))

    def seed(self, url: str, data: bytes) -> None:
        storage.makedirs(os.path.dirname(url), exist_ok=True)
        storage.save(url, np.frombuffer(data, np.uint8))

    def unreadable(self, folder: str) -> Seen:
        return folder, as_nobody(folder, 0o000)

    def unwritable(self, folder: str) -> Seen:
        return folder, as_nobody(folder, 0o555)


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
        path = self.server.root / unquote(url.removeprefix(self.server.endpoint_url).lstrip("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def elsewhere(self, place: str) -> str:
        return f"{place}/missing/object"

    def unreadable(self, folder: str) -> Seen:
        below = folder.removeprefix(self.server.endpoint_url)
        address = self.server.endpoint_url.removeprefix("http://")
        other = mounted("http-other", "", provider="http", root=f"{address}/private", user="reader", password="wrong")
        return f"http-other://{below.lstrip('/')}", other


class OnS3(OnServer):
    """A store with the bucket policies of S3."""

    def under_policy(self, place: Seen | None, statement: dict[str, object]) -> Seen | None:
        """Put a context around `place` in which the bucket has a policy."""
        if place is None:
            return None

        @contextmanager
        def restricted(inner: AbstractContextManager[object]) -> Iterator[None]:
            resources = [f"arn:aws:s3:::{self.bucket}", f"arn:aws:s3:::{self.bucket}/*"]
            client = boto3.client(
                "s3",
                endpoint_url=self.server.endpoint_url,
                aws_access_key_id=self.server.access_key,
                aws_secret_access_key=self.server.secret_key,
                region_name="us-east-1",
            )
            policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": resources}]}
            client.put_bucket_policy(Bucket=self.bucket, Policy=json.dumps(policy))
            try:
                with inner:
                    yield
            finally:
                client.delete_bucket_policy(Bucket=self.bucket)
                client.close()

        return place[0], restricted(place[1])


class OnMoto(OnS3):
    """Moto, which takes any keys; without any, it lets in whom an object's ACL names."""

    fixture = "moto_server"

    def unwritable(self, folder: str) -> Seen | None:
        # it makes the names of actions from methods
        actions = [f"s3:{method}Object" for method in ("Put", "Post", "Delete")]
        kept = {"Effect": "Deny", "Principal": "*", "Action": actions}
        return self.under_policy(self.seen_by(self.owner(), folder), kept)


class TestS3Moto(OnMoto):
    """s3 (Moto)"""

    name = "s3.moto"

    @classmethod
    def owner(cls) -> Parameters:
        keys = {"client_id": cls.server.access_key, "secret_id": cls.server.secret_key}
        return {"endpoint_url": cls.server.endpoint_url, "checksum": "crc64nvme", **keys}

    @classmethod
    def stranger(cls) -> Parameters:
        return {"endpoint_url": cls.server.endpoint_url, "anonymous": True}


class TestS3Ceph(OnS3):
    """s3 (Ceph)"""

    name, fixture = "s3.ceph", "ceph_server"

    @classmethod
    def owner(cls) -> Parameters:
        keys = {"client_id": cls.server.access_key, "secret_id": cls.server.secret_key}
        return {"endpoint_url": cls.server.endpoint_url, **keys}

    @classmethod
    def stranger(cls) -> Parameters:
        keys = {"client_id": cls.server.other_access_key, "secret_id": cls.server.other_secret_key}
        return {"endpoint_url": cls.server.endpoint_url, **keys}

    def unwritable(self, folder: str) -> Seen | None:
        may_read = {
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam:::user/other"]},
            "Action": ["s3:GetObject", "s3:ListBucket"],
        }
        return self.under_policy(super().unwritable(folder), may_read)


class TestS3Swift(OnServer):
    """s3 (Swift's interface)"""

    exclusive = False
    name, fixture, bucket = "s3.swift", "swift_server", "conformance-s3"

    @classmethod
    def owner(cls) -> Parameters:
        return {"endpoint_url": cls.server.endpoint_url, "client_id": cls.server.user, "secret_id": cls.server.key}

    @classmethod
    def stranger(cls) -> Parameters:
        return {**cls.owner(), "client_id": cls.server.other_user, "secret_id": cls.server.other_key}


class TestSwift(OnServer):
    """swift (Swift, v1)"""

    name, fixture = "swift.v1", "swift_server"

    @classmethod
    def owner(cls) -> Parameters:
        return {"endpoint_url": cls.server.auth_url, "client_id": cls.server.user, "secret_id": cls.server.key}

    @classmethod
    def stranger(cls) -> Parameters:
        other = {"client_id": cls.server.other_user, "secret_id": cls.server.other_key}
        return {**cls.owner(), **other, "storage_url": cls.server.storage_url}

    def unwritable(self, folder: str) -> Seen | None:
        self.server.let_read(self.bucket, self.server.other_user)
        return super().unwritable(folder)


class TestSwiftKeystone(OnServer):
    """swift (Swift, Keystone v3)"""

    name, fixture, bucket = "swift.v3", "swift_server", "conformance-v3"

    @classmethod
    def owner(cls) -> Parameters:
        known = cls.server.keystone
        who = {"client_id": known.user, "secret_id": known.password, "project": known.project}
        return {"endpoint_url": f"{known.endpoint_url}/v3", "region": known.region, **who}

    @classmethod
    def stranger(cls) -> Parameters:
        # the account of a project that the user has no role in
        return {**cls.owner(), "storage_url": f"{cls.server.endpoint_url}/v1/KEY_{'f' * 32}"}


class TestAzure(OnServer):
    """az (Azurite, account key and SAS)"""

    name, fixture = "az.azurite", "azurite_server"
    # Azure takes a backslash for a slash
    awkward_keys = tuple(key for key in AWKWARD_KEYS if "\\" not in key)

    @classmethod
    def owner(cls) -> Parameters:
        known = {"client_id": cls.server.account, "secret_id": cls.server.key}
        return {"endpoint_url": cls.server.endpoint_url, **known}

    @classmethod
    def stranger(cls) -> Parameters:
        return {"endpoint_url": cls.server.endpoint_url, "sas": cls.server.shared_access_signature("w")}

    @classmethod
    def reader(cls) -> Parameters:
        return {"endpoint_url": cls.server.endpoint_url, "sas": cls.server.shared_access_signature("rl")}


class TestAzureEntra(OnServer):
    """az (Azurite, Entra tokens of a stand-in)"""

    name, fixture = "az.entra", "azurite_tls_server"
    awkward_keys = TestAzure.awkward_keys
    identity: ClassVar[Any]

    @classmethod
    def prepare(cls, request: pytest.FixtureRequest) -> None:
        cls.identity = request.getfixturevalue("identity_server")
        patch = pytest.MonkeyPatch()
        patch.setenv("REQUESTS_CA_BUNDLE", str(cls.identity.ca))
        request.addfinalizer(patch.undo)

    @classmethod
    def owner(cls) -> Parameters:
        known = cls.identity
        who = {"client_id": known.application, "secret_id": known.application_secret, "tenant_id": known.tenant}
        return {
            "endpoint_url": cls.server.endpoint_url,
            "verify": str(cls.server.ca),
            "authority": known.tls_url,
            **who,
        }

    @classmethod
    def stranger(cls) -> Parameters:
        return {**cls.owner(), "secret_id": "wrong"}


class TestGoogle(OnServer):
    """gs (fake-gcs-server, tokens of a stand-in)"""

    name, fixture = "gs.fake", "guarded_gcs_server"
    identity: ClassVar[Any]

    @classmethod
    def prepare(cls, request: pytest.FixtureRequest) -> None:
        cls.identity = request.getfixturevalue("identity_server")

    @classmethod
    def owner(cls) -> Parameters:
        return cls.account(cls.identity.writer)

    @classmethod
    def stranger(cls) -> Parameters:
        return cls.account(cls.identity.stranger)

    @classmethod
    def reader(cls) -> Parameters:
        return cls.account(cls.identity.reader)

    @classmethod
    def account(cls, file: Path) -> Parameters:
        return {"endpoint_url": cls.server.endpoint_url, "credentials_file": str(file)}


class TestAlibaba(OnMoto):
    """oss (Moto)"""

    exclusive = False
    name, bucket = "oss.moto", "conformance-oss"

    @classmethod
    def owner(cls) -> Parameters:
        keys = {"client_id": cls.server.access_key, "secret_id": cls.server.secret_key}
        return {"endpoint_url": cls.server.endpoint_url, "region": cls.server.region, **keys}

    @classmethod
    def stranger(cls) -> Parameters:
        return {"endpoint_url": cls.server.endpoint_url, "region": cls.server.region, "anonymous": True}


class TestFsspecMemory(OnServer):
    """fsspec (memory)"""

    name = "memory-test"

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls) -> Iterator[str]:
        with mounted(cls.name, cls.bucket, provider="fsspec", protocol="memory") as url:
            yield url


class OnHost(OnServer):
    """A filesystem that a host and a port lead to, with a second user who sees names only."""

    protocol: ClassVar[str]

    @classmethod
    def owner(cls) -> Parameters:
        return cls.user(cls.server.user, cls.server.password)

    @classmethod
    def stranger(cls) -> Parameters:
        return cls.user(cls.server.other_user, cls.server.other_password)

    @classmethod
    def user(cls, user: str, password: str) -> Parameters:
        place = {"protocol": cls.protocol, "host": cls.server.host, "port": cls.server.port}
        return {"provider": "fsspec", "client_id": user, "secret_id": password, **place}


class TestFsspecSftp(OnHost):
    """fsspec (SFTP)"""

    name, fixture, protocol = "sftp-test", "sftp_server", "sftp"


class TestFsspecFtp(OnHost):
    """fsspec (FTP)"""

    name, fixture, protocol = "ftp-test", "ftp_server", "ftp"


class TestFsspecWebdav(OnServer):
    """fsspec (WebDAV)"""

    name, fixture = "webdav-test", "webdav_server"
    # WsgiDAV cuts the new name of a file off at these
    awkward_keys = tuple(key for key in AWKWARD_KEYS if "?" not in key and ";" not in key)

    @classmethod
    def owner(cls) -> Parameters:
        return cls.share("")

    @classmethod
    def stranger(cls) -> Parameters:
        return cls.share("/private")

    @classmethod
    def reader(cls) -> Parameters:
        return cls.share("/kept")

    @classmethod
    def share(cls, path: str) -> Parameters:
        who = {"client_id": cls.server.user, "secret_id": cls.server.password}
        return {"provider": "fsspec", "protocol": "webdav", "endpoint_url": cls.server.endpoint_url + path, **who}


def test_the_table_in_the_documentation_says_so(differences: list[str]) -> None:
    # of what ran before it, in this file
    assert differences == [], "run tools/storage_support.py"
