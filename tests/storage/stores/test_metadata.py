"""Metadata of objects: written, told, and kept by every way of copying inside a store; versions of objects."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from servers.stores.azurite import Azurite
from servers.stores.ceph import Ceph
from servers.stores.gcs import FakeGcs
from servers.stores.moto import Moto
from servers.stores.swift import Swift

from apyfal import storage
from apyfal.exceptions import ParameterError, UnsupportedByStore
from apyfal.storage import transfer
from apyfal.storage.checksums import new_hasher
from apyfal.storage.handler import MetadataHandler, ObjectInfo
from apyfal.storage.metadata import FIELDS, ObjectMetadata
from apyfal.storage.mounting.mount import MountSpec
from apyfal.storage.mounting.parameters import MountParameter
from apyfal.storage.mounting.table import table

pytestmark = pytest.mark.server

WHOLE = ObjectMetadata(
    content_type="text/csv",
    content_encoding="identity",
    content_disposition="attachment",
    content_language="de",
    cache_control="max-age=5",
    user={"owner": "x", "run": "7"},
    tags={"project": "a b", "stage": "raw"},
)


@pytest.fixture(scope="module", params=["moto", "ceph", "azurite", "gcs", "swift"])
def store(
    request: pytest.FixtureRequest,
    moto_server: Moto,
    ceph_server: Ceph,
    azurite_server: Azurite,
    gcs_server: FakeGcs,
    swift_server: Swift,
) -> Iterator[tuple[MetadataHandler, str]]:
    """Give a handler and a new bucket."""
    given: dict[str, dict[str, Any]] = {
        "moto": {
            "provider": "s3",
            "endpoint_url": moto_server.endpoint_url,
            "client_id": moto_server.access_key,
            "secret_id": moto_server.secret_key,
        },
        "ceph": {
            "provider": "s3",
            "endpoint_url": ceph_server.endpoint_url,
            "client_id": ceph_server.access_key,
            "secret_id": ceph_server.secret_key,
        },
        "azurite": {
            "provider": "az",
            "endpoint_url": azurite_server.endpoint_url,
            "client_id": azurite_server.account,
            "secret_id": azurite_server.key,
        },
        "gcs": {
            "provider": "gs",
            "endpoint_url": gcs_server.endpoint_url,
            "anonymous": True,
            "project": gcs_server.project,
        },
        "swift": {
            "provider": "swift",
            "endpoint_url": swift_server.auth_url,
            "client_id": swift_server.user,
            "secret_id": swift_server.key,
        },
    }
    parameters = dict(given[request.param])
    provider = parameters.pop("provider")
    handler = MountSpec("m", provider, parameters={k: MountParameter(v) for k, v in parameters.items()}).connect()
    assert isinstance(handler, MetadataHandler)
    bucket = f"metadata-{uuid.uuid4().hex[:8]}"
    handler.makedirs(bucket)
    yield handler, bucket
    handler.close()


def checksum(handler: MetadataHandler, data: bytes) -> bytes | None:
    hasher = new_hasher(handler.limits.checksum) if handler.limits.checksum else None
    if hasher is None:
        return None
    hasher.update(memoryview(data))
    return hasher.digest()


def wanted(handler: MetadataHandler) -> ObjectMetadata:
    """Give what is to be kept: all that the store can."""
    return WHOLE.only(handler.metadata_fields)


def told(handler: MetadataHandler, info: ObjectInfo, like: ObjectMetadata) -> ObjectMetadata:
    """Give what the store tells of the fields that `like` states."""
    found = handler.metadata_of(info)
    assert found is not None
    return found.only(like.stated)


def put(handler: MetadataHandler, path: str, metadata: ObjectMetadata | None, data: bytes = b"data") -> None:
    handler.put(path, memoryview(data), checksum(handler, data), metadata=metadata)


def in_parts(handler: MetadataHandler, path: str, metadata: ObjectMetadata | None) -> None:
    parts = [bytes(max(5 << 20, handler.limits.min_part)), b"tail"]
    upload = handler.upload(path, size=sum(map(len, parts)), metadata=metadata)
    for number, part in enumerate(parts, 1):
        upload.write_part(number, memoryview(part), checksum(handler, part))
    upload.complete(sum(map(len, parts)), checksum(handler, b"".join(parts)))


@pytest.mark.parametrize("write", [put, in_parts])
def test_what_is_stated_is_kept_by_writing_and_copying(store: tuple[MetadataHandler, str], write: Any) -> None:
    handler, bucket = store
    metadata = wanted(handler)
    path = f"{bucket}/{write.__name__}.bin"
    write(handler, path, metadata)
    info = handler.describe(path)
    assert told(handler, info, metadata) == metadata
    try:
        handler.copy(info, f"{bucket}/copy")
    except UnsupportedByStore:
        return  # the engine streams it, with `metadata_of`
    assert told(handler, handler.describe(f"{bucket}/copy"), metadata) == metadata


def test_a_copy_with_other_metadata(store: tuple[MetadataHandler, str]) -> None:
    handler, bucket = store
    metadata = wanted(handler)
    put(handler, f"{bucket}/source", metadata)
    change = ObjectMetadata(content_type="text/plain", user={"owner": "y"})
    for destination in ("changed", "source"):
        try:
            handler.copy(handler.describe(f"{bucket}/source"), f"{bucket}/{destination}", metadata=change)
        except UnsupportedByStore:
            continue
        expected = change.over(metadata)
        assert told(handler, handler.describe(f"{bucket}/{destination}"), expected) == expected


def test_every_way_of_writing_again_keeps_it(
    store: tuple[MetadataHandler, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, bucket = store
    metadata = wanted(handler)
    path, url = f"{bucket}/object", "metadata-test://"
    size = 11 << 20
    table.attach("metadata-test", handler)
    with storage.open(f"{url}{path}", "wb") as file:
        file.write(b"x" * size)
    transfer.upload(handler, path, memoryview(bytes(size)), metadata=metadata)

    def check(name: str, expected: ObjectMetadata = metadata) -> None:
        assert told(handler, handler.describe(f"{bucket}/{name}"), expected) == expected, name

    check("object")
    storage.copy(f"{url}{path}", f"{url}{bucket}/copy")
    check("copy")
    # as of an object that is too large for one request
    monkeypatch.setattr(handler, "limits", replace(handler.limits, max_copy=6 << 20))
    transfer.copy(handler, path, handler, f"{bucket}/in-parts")
    check("in-parts")
    change = ObjectMetadata(content_type="text/plain")
    transfer.copy(handler, path, handler, f"{bucket}/changed-in-parts", metadata=change)
    check("changed-in-parts", change.over(metadata))
    monkeypatch.undo()
    transfer.copy(handler, path, handler, f"{bucket}/changed", metadata=change)
    check("changed", change.over(metadata))
    for mode in ("ab", "r+b"):
        with storage.open(f"{url}{path}", mode) as file:
            file.write(b"more")
        check("object")
    with storage.open(f"{url}{bucket}/small", "wb") as file:
        file.write(b"x")
    transfer.copy(handler, f"{bucket}/small", handler, f"{bucket}/small", metadata=metadata)
    check("small")
    with storage.open(f"{url}{bucket}/small", "ab") as file:
        file.write(b"y")
    check("small")


@pytest.mark.parametrize("write", [put, in_parts])
@pytest.mark.parametrize(("key", "kind"), [("a.csv", "text/csv"), ("a.json", "application/json"), ("a", None)])
def test_the_type_follows_from_the_name(
    store: tuple[MetadataHandler, str], write: Any, key: str, kind: str | None
) -> None:
    handler, bucket = store
    write(handler, f"{bucket}/{key}", None)
    metadata = handler.describe(f"{bucket}/{key}").metadata
    assert metadata is not None
    assert metadata.content_type == (kind or "application/octet-stream")
    with handler.read(f"{bucket}/{key}", 0, None, None) as reader:
        assert reader.info.metadata is not None
        assert reader.info.metadata.content_type == metadata.content_type


def test_what_a_store_cannot_keep_is_an_error(store: tuple[MetadataHandler, str]) -> None:
    handler, bucket = store
    for field in set(FIELDS) - set(handler.metadata_fields):
        metadata = ObjectMetadata(**{field: {"a": "b"} if field in ("user", "tags") else "x"})
        with pytest.raises(UnsupportedByStore, match=f"keeps no {field}"):
            put(handler, f"{bucket}/x", metadata)
        with pytest.raises(UnsupportedByStore, match=f"keeps no {field}"):
            handler.upload(f"{bucket}/x", size=4, metadata=metadata)
        info = ObjectInfo(f"{bucket}/x", 4)
        with pytest.raises(UnsupportedByStore):
            handler.copy(info, f"{bucket}/y", metadata=metadata)


@pytest.mark.parametrize(
    "value",
    [
        {"content_typ": "x"}, {"content_type": "a\r\nb: c"}, {"user": {"a b": "c"}}, {"user": {"a": "\n"}},
        {"user": {"a": 1}}, {"user": "x"}, {"tags": {"": "x"}}, {"tags": ["a"]}, {"content_type": 5}, "text/csv",
        {"user": {"": "x"}}, {"cache_control": "é"},
    ],
)  # fmt: skip
def test_what_no_store_could_keep(value: Any) -> None:
    with pytest.raises(ParameterError, match="metadata"):
        ObjectMetadata.of(value)
