"""What only Swift has: its kinds of authentication, tokens that end, full addresses, segments."""

from __future__ import annotations

import pytest
from servers.stores.swift import Swift

from apyfal import storage
from apyfal.exceptions import AccessDenied, AuthenticationError, MountError
from apyfal.storage.stores.swift.handler import SwiftHandler
from apyfal.testing.handlers import pattern

pytestmark = pytest.mark.server


def keystone_handler(server: Swift, **changes: str) -> SwiftHandler:
    known = server.keystone
    given = {
        "endpoint_url": f"{known.endpoint_url}/v3",
        "client_id": known.user,
        "secret_id": known.password,
        "project": known.project,
    }
    return SwiftHandler(**{**given, **changes})  # type: ignore[arg-type]


def test_a_token_that_ends_is_renewed(swift_server: Swift) -> None:
    handler = keystone_handler(swift_server)
    handler.makedirs("renewal")
    handler.put("renewal/object", memoryview(b"before"), None)
    swift_server.keystone.expire_tokens()
    handler.put("renewal/object", memoryview(b"after"), None)
    swift_server.keystone.expire_tokens()
    assert handler.describe("renewal/object").size == 5
    handler.remove("renewal/object")
    handler.close()


def test_an_application_credential(swift_server: Swift) -> None:
    known = swift_server.keystone
    handler = SwiftHandler(
        endpoint_url=f"{known.endpoint_url}/v3",
        client_id=known.credential_id,
        secret_id=known.credential_secret,
        auth_type="v3applicationcredential",
    )
    handler.makedirs("credential")
    handler.close()


def test_the_variables_of_the_openstack_clients(swift_server: Swift, monkeypatch: pytest.MonkeyPatch) -> None:
    known = swift_server.keystone
    for name, value in {
        "OS_AUTH_URL": known.endpoint_url,
        "OS_USERNAME": known.user,
        "OS_PASSWORD": known.password,
        "OS_PROJECT_NAME": known.project,
    }.items():
        monkeypatch.setenv(name, value)
    handler = SwiftHandler()
    handler.makedirs("variables")
    handler.close()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"secret_id": "canary-81c2"}, AuthenticationError, r"does not accept user 'reader'"),
        ({"region": "RegionOn"}, MountError, r"no region 'RegionOn'; did you mean 'RegionOne'"),
        ({"auth_type": "v2"}, MountError, r"unknown auth_type 'v2'"),
        ({"interface": "inner"}, MountError, r"has no inner object store"),
    ],
)
def test_wrong_parameters(swift_server: Swift, changes: dict[str, str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        keystone_handler(swift_server, **changes).describe("container/object")
    assert "canary-81c2" not in str(caught.value)


def test_another_user_may_not(swift_server: Swift) -> None:
    handler = SwiftHandler(
        endpoint_url=swift_server.auth_url,
        client_id=swift_server.other_user,
        secret_id=swift_server.other_key,
        storage_url=swift_server.storage_url,
    )
    with pytest.raises(AccessDenied):
        handler.describe("container/object")
    handler.close()


def test_full_addresses(swift_server: Swift) -> None:
    storage.mount(
        "swift.full", endpoint_url=swift_server.auth_url, client_id=swift_server.user, secret_id=swift_server.key
    )
    try:
        storage.makedirs("swift.full://full", exist_ok=True)
        with storage.open("swift.full://full/a name/ü", "wb") as file:
            file.write(b"content")
        address = f"{swift_server.storage_url}/full/a%20name/%C3%BC"
        assert storage.stat(address).size == 7
        assert storage.load(address).tobytes() == b"content"
        storage.remove(address)
        assert not storage.exists("swift.full://full/a name/ü")
    finally:
        storage.unmount("swift.full")


def test_an_object_in_segments_is_verified_by_their_md5(swift_server: Swift) -> None:
    handler = SwiftHandler(endpoint_url=swift_server.auth_url, client_id=swift_server.user, secret_id=swift_server.key)
    handler.makedirs("segments")
    upload = handler.upload("segments/large", size=None)
    parts = [pattern(1 << 20, seed) for seed in range(3)]
    for number, part in enumerate(parts, 1):
        upload.write_part(number, memoryview(part), None)
    upload.complete(3 << 20, None)
    segments = handler.manifest("segments/large")
    assert [segment["bytes"] for segment in segments] == [1 << 20] * 3
    assert len({segment["hash"] for segment in segments}) == 3
    handler.remove("segments/large")
    assert not list(handler.list("segments_segments", recursive=True))
    handler.close()
