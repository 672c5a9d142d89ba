"""Swift's handler against a real Swift."""

from __future__ import annotations

import pytest
from servers.stores.swift import Swift

from apyfal.storage.handler import Handler
from apyfal.storage.stores.swift.handler import SwiftHandler
from apyfal.testing.handlers import HandlerConformance

pytestmark = pytest.mark.server


class SwiftConformance(HandlerConformance):
    def traces(self, handler: Handler) -> set[str]:
        handler.makedirs(f"{self.bucket}_segments")
        return {info.path for info in handler.list(f"{self.bucket}_segments/", recursive=True)}


class TestV1(SwiftConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls, swift_server: Swift) -> Handler:
        return SwiftHandler(endpoint_url=swift_server.auth_url, client_id=swift_server.user, secret_id=swift_server.key)
