"""fsspec's filesystems as stores: in memory, over SFTP, FTP and WebDAV."""

from __future__ import annotations

import ftplib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from servers.files.ftp import Ftp
from servers.files.sftp import Sftp
from servers.files.webdav import Webdav

from apyfal import storage
from apyfal.exceptions import (
    AcceleratorException,
    AccessDenied,
    AuthenticationError,
    MountError,
    ObjectNotFound,
    StorageError,
    StoreUnavailable,
)
from apyfal.storage.handler import Handler
from apyfal.storage.mounting import table
from apyfal.storage.stores.fsspec.handler import FsspecHandler
from apyfal.storage.stores.fsspec.quirks import Kind, error_class
from apyfal.storage.url import parse
from apyfal.testing.handlers import AWKWARD_KEYS, HandlerConformance


class FsspecConformance(HandlerConformance):
    copies = False
    part_size = 100_000

    def order(self, count: int) -> list[int]:
        # A file is written front to back; parallel parts wait for each other.
        return list(range(1, count + 1))


class TestMemory(FsspecConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls) -> Handler:
        return FsspecHandler(protocol="memory")


@pytest.mark.server
class TestSftp(FsspecConformance):
    # SFTP's times are whole seconds
    changes_noticed = False

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, sftp_server: Sftp) -> Handler:
        return FsspecHandler(
            protocol="sftp",
            host=sftp_server.host,
            port=sftp_server.port,
            client_id=sftp_server.user,
            secret_id=sftp_server.password,
        )


@pytest.mark.server
class TestFtp(FsspecConformance):
    # FTP's times are whole seconds, and its commands are lines
    changes_noticed = False

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, ftp_server: Ftp) -> Handler:
        return FsspecHandler(
            protocol="ftp",
            host=ftp_server.host,
            port=ftp_server.port,
            client_id=ftp_server.user,
            secret_id=ftp_server.password,
        )


@pytest.mark.server
class TestWebdav(FsspecConformance):
    # WsgiDAV cuts the new name of a file off at these
    awkward_keys = tuple(key for key in AWKWARD_KEYS if "?" not in key and ";" not in key)

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, webdav_server: Webdav) -> Handler:
        return FsspecHandler(
            protocol="webdav",
            endpoint_url=webdav_server.endpoint_url,
            client_id=webdav_server.user,
            secret_id=webdav_server.password,
        )


def sftp_of(server: Sftp, **changes: Any) -> dict[str, Any]:
    known = {"host": server.host, "port": server.port, "client_id": server.user, "secret_id": server.password}
    return {"provider": "fsspec", "protocol": "sftp", **known, **changes}


def ftp_of(server: Ftp, **changes: Any) -> dict[str, Any]:
    known = {"host": server.host, "port": server.port, "client_id": server.user, "secret_id": server.password}
    return {"provider": "fsspec", "protocol": "ftp", **known, **changes}


def webdav_of(server: Webdav, **changes: Any) -> dict[str, Any]:
    known = {"endpoint_url": server.endpoint_url, "client_id": server.user, "secret_id": server.password}
    return {"provider": "fsspec", "protocol": "webdav", **known, **changes}


@pytest.fixture
def mounted() -> Iterator[Callable[..., str]]:
    """Mount filesystems for one test."""
    names: list[str] = []

    def mount(**parameters: Any) -> str:
        names.append(f"fsspec-{len(names)}")
        storage.mount(names[-1], **parameters)
        return f"{names[-1]}://"

    yield mount
    for name in names:
        storage.unmount(name)


def cut_connection(url: str) -> None:
    """Let the network take the one connection of a mount."""
    with table.resolve(parse(url)) as target:
        handler = target.handler
        assert isinstance(handler, FsspecHandler)
        files = handler._files
        sock = files.client.get_transport().sock if hasattr(files, "client") else files.ftp.sock
        sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.server
@pytest.mark.parametrize("kind", ["sftp", "ftp"])
def test_a_lost_connection_is_made_again(
    kind: str, sftp_server: Sftp, ftp_server: Ftp, mounted: Callable[..., str]
) -> None:
    url = mounted(**(sftp_of(sftp_server) if kind == "sftp" else ftp_of(ftp_server))) + "lost/object"
    storage.makedirs(url.rpartition("/")[0], exist_ok=True)
    data = np.arange(100_000, dtype=np.uint8)
    storage.save(url, data)
    cut_connection(url)
    assert np.array_equal(storage.load(url), data)
    cut_connection(url)
    storage.save(url, data[::-1])
    cut_connection(url)
    assert storage.listdir(url.rpartition("/")[0]) == ["object"]


@pytest.mark.server
@pytest.mark.parametrize("kind", ["sftp", "ftp", "webdav"])
def test_a_wrong_password_is_told_and_not_shown(
    kind: str, sftp_server: Sftp, ftp_server: Ftp, webdav_server: Webdav, mounted: Callable[..., str]
) -> None:
    made = {"sftp": (sftp_of, sftp_server), "ftp": (ftp_of, ftp_server), "webdav": (webdav_of, webdav_server)}
    parameters, server = made[kind]
    url = mounted(**parameters(server, secret_id="canary-5e1f"))
    with pytest.raises(AuthenticationError) as caught:
        storage.load(url + "anything")
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "canary-5e1f" not in f"{shown} {shown!r} {vars(shown)}"
        shown = shown.__cause__ or shown.__context__


@pytest.mark.server
def test_what_a_configuration_says_is_read(ftp_server: Ftp, webdav_server: Webdav, mounted: Callable[..., str]) -> None:
    config = {"storage.fsspec-0": {"provider": "fsspec", "protocol": "ftp", "port": str(ftp_server.port)}}
    url = mounted(host=ftp_server.host, client_id=ftp_server.user, secret_id=ftp_server.password, config=config)
    storage.makedirs(f"{url}configured", exist_ok=True)
    assert "configured" in storage.listdir(url)
    assert "configured" not in storage.listdir(mounted(**webdav_of(webdav_server, verify="true", timeout=30)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"no protocol; expected protocol='sftp'"),
        ({"protocol": "sftpp"}, r"unknown protocol 'sftpp'; did you mean 'sftp'"),
        ({"protocol": "sftp"}, r"protocol 'sftp' needs host="),
        ({"protocol": "webdav", "client_id": "a"}, r"protocol 'webdav' needs endpoint_url="),
        ({"protocol": "sftp", "host": "h", "pasword": "canary-5e1f"}, r"'pasword' of 'sftp'; did you mean 'password'"),
        ({"protocol": "ftp", "hots": "h"}, r"unknown parameter 'hots' of 'ftp'; did you mean 'host'"),
        (
            {"protocol": "webdav", "endpoint_url": "http://h", "verfy": "x"},
            r"'verfy' of 'webdav'; did you mean 'verify'",
        ),
        ({"protocol": "memory", "root": "x"}, r"unknown parameter 'root' of 'memory'"),
    ],
)
def test_wrong_parameters(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(MountError, match=message) as caught:
        FsspecHandler(**parameters)
    assert isinstance(caught.value, AcceleratorException)
    assert "canary-5e1f" not in str(caught.value)


# -- one connection's errors, and what they mean ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("530 Authentication failed.", AuthenticationError),
        ("550 No such file or directory.", ObjectNotFound),
        ("550 Not enough privileges.", AccessDenied),
        ("550 Permission denied.", AccessDenied),
        ("553 File name not allowed", AccessDenied),
        ("421 Timeout.", StoreUnavailable),
        ("426 Connection closed; transfer aborted.", StoreUnavailable),
        ("452 Insufficient storage space", StorageError),
        ("500 What?", StorageError),
    ],
)
def test_replies_of_ftp(text: str, kind: type[StorageError]) -> None:
    assert error_class(ftplib.Error(text), "path") is kind


class Renaming:
    """A filesystem whose server renames to no name that is taken, or not at all."""

    def __init__(self, *, ever: bool = True) -> None:
        self.files = {"/new": "old content", "/temporary": "new content"}
        self.ever = ever

    def info(self, path: str) -> dict[str, object]:
        if path not in self.files:
            raise FileNotFoundError(path)
        return {"name": path}

    def mv(self, old: str, new: str) -> None:
        if new in self.files or (old == "/temporary" and not self.ever):
            raise OSError("Failure")
        self.files[new] = self.files.pop(old)

    def rm_file(self, path: str) -> None:
        del self.files[path]


def test_a_server_that_renames_to_free_names_only() -> None:
    files = Renaming()
    with pytest.raises(FileExistsError):
        Kind().rename(files, "/temporary", "/new", True)
    Kind().rename(files, "/temporary", "/new", False)
    assert files.files == {"/new": "new content"}


def test_a_rename_that_fails_leaves_the_old_file() -> None:
    files = Renaming(ever=False)
    with pytest.raises(OSError, match="Failure"):
        Kind().rename(files, "/temporary", "/new", False)
    assert files.files["/new"] == "old content"
