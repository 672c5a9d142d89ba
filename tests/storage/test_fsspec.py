"""fsspec's filesystems as stores: in memory, and over SFTP."""

from __future__ import annotations

import pytest
from servers.sftp import Sftp

from apyfal.exceptions import AcceleratorException, AuthenticationError, MountError
from apyfal.storage.handler import Handler
from apyfal.storage.schemes.fsspec import FsspecHandler
from apyfal.testing.handlers import HandlerConformance


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
def test_a_wrong_password_is_told_and_not_shown(sftp_server: Sftp) -> None:
    handler = FsspecHandler(
        protocol="sftp", host=sftp_server.host, port=sftp_server.port, username="reader", password="canary-5e1f"
    )
    with pytest.raises(AuthenticationError) as caught:
        handler.describe("anything")
    assert "canary-5e1f" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"no protocol; expected protocol='sftp'"),
        ({"protocol": "sftpp"}, r"unknown protocol 'sftpp'; did you mean 'sftp'"),
    ],
)
def test_wrong_parameters(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(MountError, match=message) as caught:
        FsspecHandler(**parameters)
    assert isinstance(caught.value, AcceleratorException)
