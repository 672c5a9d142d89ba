"""Azure's handler against Azurite."""

from __future__ import annotations

import pytest
from servers.stores.azurite import Azurite

from apyfal.storage.handler import Handler
from apyfal.storage.stores.azure.handler import AzureHandler
from apyfal.testing.handlers import AWKWARD_KEYS, HandlerConformance

pytestmark = pytest.mark.server


class TestAccountKey(HandlerConformance):
    # Azure takes a backslash for a slash
    awkward_keys = tuple(key for key in AWKWARD_KEYS if "\\" not in key)

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, azurite_server: Azurite) -> Handler:
        return AzureHandler(
            endpoint_url=azurite_server.endpoint_url, client_id=azurite_server.account, secret_id=azurite_server.key
        )
