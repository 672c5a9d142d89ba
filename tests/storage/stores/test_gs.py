"""Google Cloud Storage's handler against fake-gcs-server."""

from __future__ import annotations

import pytest
from servers.stores.gcs import FakeGcs
from servers.stores.moto import Moto

from apyfal.storage.handler import Handler
from apyfal.storage.stores.gcs.handler import open_gs
from apyfal.testing.handlers import HandlerConformance

pytestmark = pytest.mark.server


class TestAnonymous(HandlerConformance):
    # fake-gcs-server does not look at the ifGenerationMatch of a compose request
    exclusive_parts = False

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, gcs_server: FakeGcs) -> Handler:
        return open_gs(endpoint_url=gcs_server.endpoint_url, project=gcs_server.project, anonymous=True)

    def traces(self, handler: Handler) -> set[str]:
        return {info.path for info in handler.list(f"{self.bucket}/.apyfal-upload/", recursive=True)}


class TestHmac(HandlerConformance):
    """The S3-compatible interface; Moto stands in for Google's."""

    bucket = "apyfal-conformance-hmac"
    exclusive = False

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, moto_server: Moto) -> Handler:
        return open_gs(
            endpoint_url=moto_server.endpoint_url,
            client_id=moto_server.access_key,
            secret_id=moto_server.secret_key,
            region=moto_server.region,
        )
