"""Alibaba's handler against a store that speaks S3, as no server of Alibaba's own protocol exists."""

from __future__ import annotations

import pytest
from servers.stores.moto import Moto

from apyfal.exceptions import MountError
from apyfal.storage.handler import Handler
from apyfal.storage.stores.oss import OSSHandler
from apyfal.testing.handlers import HandlerConformance


@pytest.mark.server
class TestMoto(HandlerConformance):
    bucket = "apyfal-conformance-oss"
    exclusive = False

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, moto_server: Moto) -> Handler:
        return OSSHandler(
            endpoint_url=moto_server.endpoint_url,
            client_id=moto_server.access_key,
            secret_id=moto_server.secret_key,
            region="us-east-1",
        )


@pytest.mark.parametrize("parameters", [{"client_id": "a", "secret_id": "b"}, {"region": "cn-hangzhou"}])
def test_what_is_missing_is_named(parameters: dict[str, str]) -> None:
    with pytest.raises(MountError, match="expected"):
        OSSHandler(**parameters)
