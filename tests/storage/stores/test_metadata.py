"""Metadata of objects: written, told, and kept by every way of copying inside a store; versions of objects."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.stores.azurite import Azurite
from servers.stores.ceph import Ceph
from servers.stores.gcs import FakeGcs
from servers.stores.moto import Moto
from servers.stores.swift import Swift

from apyfal import storage
from apyfal.cli import main
from apyfal.exceptions import ParameterError, StorageError, UnsupportedByStore
from apyfal.storage import transfer
from apyfal.storage.checksums import new_hasher
from apyfal.storage.handler import MetadataHandler, ObjectInfo
from apyfal.storage.metadata import FIELDS, ObjectMetadata
from apyfal.storage.mounting.mount import MountSpec
from apyfal.storage.mounting.parameters import MountParameter
from apyfal.storage.mounting.table import table
from apyfal.storage.stores.swift.handler import SwiftHandler
from apyfal.storage.url import parse

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


def test_the_functions_that_users_call(store: tuple[MetadataHandler, str], tmp_path: Path) -> None:
    handler, bucket = store
    table.attach("metadata-test", handler)
    url = f"metadata-test://{bucket}"
    metadata = {"content_type": "text/csv", "cache_control": "max-age=5", "user": {"owner": "x"}}
    changed = {**metadata, "content_type": "text/plain"}

    def check(name: str, expected: dict[str, Any]) -> None:
        found = storage.stat(f"{url}/{name}").metadata
        assert found is not None
        assert found.only(tuple(expected)) == ObjectMetadata(**expected), name

    storage.save(f"{url}/saved", np.arange(9), metadata=metadata)
    check("saved", metadata)
    for mode in ("wb", "w+b", "xb"):
        with storage.open(f"{url}/opened-{mode}", mode, metadata=metadata) as file:
            file.write(b"x")
        check(f"opened-{mode}", metadata)
    with storage.open(f"{url}/opened-wb", "ab", metadata={"content_type": "text/plain"}) as file:
        file.write(b"x")
    check("opened-wb", changed)
    storage.copy(f"{url}/saved", f"{url}/saved", metadata={"content_type": "text/plain"})
    check("saved", changed)
    local = tmp_path / "local"
    local.write_bytes(b"x")
    storage.copy(local, f"{url}/copied", metadata=ObjectMetadata(**metadata))
    check("copied", metadata)
    arguments = [local, f"{url}/by-command", "-m", "content_type=text/csv", "-m", "user.owner=x"]
    assert main(["copy", *map(str, arguments), "-m", "cache_control=max-age=5"]) == 0
    check("by-command", metadata)
    assert main(["copy", *map(str, arguments), "-m", "colour=red"]) != 0
    for call in (
        lambda: storage.save(local, np.arange(9), metadata=metadata),
        lambda: storage.open(local, "wb", metadata=metadata),
        lambda: storage.copy(f"{url}/saved", local, metadata=metadata),
        lambda: storage.stat(local, version="1"),
        lambda: storage.load(local, version="1"),
        lambda: storage.open(local, version="1"),
    ):
        with pytest.raises(UnsupportedByStore, match="a local file keeps no"):
            call()
    assert local.read_bytes() == b"x"
    with pytest.raises(ParameterError, match="unknown field 'colour'"):
        storage.save(f"{url}/x", np.arange(9), metadata={"colour": "red"})
    with pytest.raises(ParameterError, match="takes no metadata"):
        storage.open(f"{url}/saved", "rb", metadata=metadata)
    with pytest.raises(ParameterError, match="takes no version"):
        storage.open(f"{url}/saved", "wb", version="1")


def test_a_stated_version_is_read(moto_server: Moto) -> None:
    storage.mount(
        "versions",
        provider="s3",
        endpoint_url=moto_server.endpoint_url,
        access_key_id=moto_server.access_key,
        secret_access_key=moto_server.secret_key,
    )
    bucket = f"versions-{uuid.uuid4().hex[:8]}"
    url = f"versions://{bucket}/object"
    storage.makedirs(f"versions://{bucket}")
    with table.resolve(parse(url)) as target:
        body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        target.handler._s3.request("PUT", bucket, {"versioning": ""}, None, (memoryview(body),)).read()  # type: ignore[attr-defined]
    versions = []
    for content in (b"first", b"second one"):
        with storage.open(url, "wb") as file:
            file.write(content)
        versions.append(storage.stat(url).version)
    first, second = versions
    assert first
    assert first != second
    assert storage.stat(url, version=first).size == 5
    assert storage.load(url, version=first).tobytes() == b"first"
    assert storage.load(url).tobytes() == b"second one"
    with storage.open(url, "rb", version=first) as file:
        assert file.read() == b"first"
    with storage.open(url, "rt", encoding="ascii", version=second) as file:
        assert file.read() == "second one"
    with pytest.raises(StorageError):
        storage.load(url, version="no-such-version")
    storage.unmount("versions")


def test_stores_without_versions(swift_server: Swift) -> None:
    handler = SwiftHandler(endpoint_url=swift_server.auth_url, client_id=swift_server.user, secret_id=swift_server.key)
    with pytest.raises(UnsupportedByStore, match="tells no versions"):
        handler.describe_version("container/object", "1")


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
        {"user": {"": "x"}}, {"cache_control": "é"}, {"user": {"Key": "a", "key": "b"}}, {"user": {"a": " x"}},
        {"content_type": "text/csv "}, [("content_type", "x")], {"content-type": "x"}, {"content_type": b"x"},
    ],
)  # fmt: skip
def test_what_no_store_could_keep(value: Any) -> None:
    with pytest.raises(ParameterError, match="metadata"):
        ObjectMetadata.of(value)
