"""Fixtures for every test: one real server of each kind, started by the first test that asks for it."""

from __future__ import annotations

import gc
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from no_skips import pytest_make_collect_report, pytest_runtest_makereport
from servers.files.ftp import Ftp, ftp
from servers.files.sftp import Sftp, sftp
from servers.files.webdav import Webdav, webdav
from servers.stores.azurite import Azurite, azurite
from servers.stores.ceph import Ceph, ceph
from servers.stores.gcs import FakeGcs, gcs, guarded
from servers.stores.moto import Moto, moto
from servers.stores.swift import Swift, swift
from servers.tokens.identity import Identity, identity
from servers.web.nginx import Nginx, nginx

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]


def pytest_configure() -> None:
    """Let SIGINT interrupt tests, and what they start, also where a shell has started this in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what collecting the tests made out of garbage collections: hundreds of tests ask for one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _only_the_modules_own_objects_are_collected() -> None:
    """Keep what earlier modules have left, such as the libraries that they imported, out of them, too."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A Ceph RADOS Gateway (S3)."""
    with ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """Moto (S3, with the AWS checksums)."""
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def nginx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx: a directory in every way that the web serves files."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """OpenStack Swift, with v1 and v3 authentication and the S3 interface."""
    with swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azurite (Azure Blob)."""
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGcs]:
    """fake-gcs-server (Google Cloud Storage's JSON API)."""
    with gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sftp]:
    """An SSH server with SFTP."""
    with sftp(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture(scope="session")
def ftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftp]:
    """An FTP server."""
    with ftp(tmp_path_factory.mktemp("ftp")) as server:
        yield server


@pytest.fixture(scope="session")
def webdav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webdav]:
    """A WebDAV server."""
    with webdav(tmp_path_factory.mktemp("webdav")) as server:
        yield server


@pytest.fixture(scope="session")
def identity_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    """A stand-in for the clouds' token services."""
    with identity(tmp_path_factory.mktemp("identity")) as server:
        yield server


@pytest.fixture(scope="session")
def guarded_gcs_server(
    tmp_path_factory: pytest.TempPathFactory, gcs_server: FakeGcs, identity_server: Identity
) -> Iterator[FakeGcs]:
    """fake-gcs-server behind a gateway that asks for Google's tokens."""
    with guarded(tmp_path_factory.mktemp("gateway"), gcs_server, identity_server) as server:
        yield server


@pytest.fixture(scope="session")
def azurite_tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azurite over TLS, which takes Entra's tokens."""
    with azurite(tmp_path_factory.mktemp("azurite-tls"), tls=True) as server:
        yield server


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that other accounts may enter. pytest closes its own to them, whenever one more pytest begins."""
    with tempfile.TemporaryDirectory(prefix="apyfal-open-") as name:
        Path(name).chmod(0o711)
        yield Path(name)
