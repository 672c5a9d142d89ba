"""What copies and moves between two mounts keep of an object's metadata, whether these are of one store or of two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from apyfal import storage
from apyfal.cli import main
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.mounting.table import table

pytestmark = pytest.mark.server

STORES = ["s3-moto", "s3-ceph", "swift-v1", "az-azurite", "gs-fake", "oss-moto"]
STATED = {"content_type": "text/x-lab", "cache_control": "max-age=5", "user": {"run": "7"}}


def command(*arguments: str) -> None:
    assert main(list(arguments)) == 0


WAYS: dict[str, Callable[[str, str], Any]] = {
    "copy": storage.copy,
    "move": storage.move,
    "apyfal copy": lambda source, destination: command("copy", source, destination),
    "apyfal mv": lambda source, destination: command("mv", source, destination),
    "fsspec cp": lambda source, destination: storage.filesystem().cp(source, destination),
    "fsspec mv": lambda source, destination: storage.filesystem().mv(source, destination),
    "UPath.copy": lambda source, destination: UPath(f"apyfal://{source}").copy(UPath(f"apyfal://{destination}")),
}


@pytest.fixture(scope="module")
def seconds(stores: dict[str, str]) -> Iterator[dict[str, str]]:
    """Mount each store once more, with other options, so that it counts as another."""
    urls = {}
    for name in STORES:
        spec = table._mounts[name].definition
        storage.mount(f"second-{name}", provider=spec.provider, **{**spec.values(), "max_concurrency": 3})
        urls[name] = f"second-{stores[name]}"
    yield urls
    for name in STORES:
        storage.unmount(f"second-{name}")


def told(url: str, like: dict[str, Any]) -> ObjectMetadata | None:
    found = storage.stat(url).metadata
    return None if found is None else found.only(tuple(like))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STORES)
def test_between_two_mounts_of_a_store(stores: dict[str, str], seconds: dict[str, str], name: str, way: str) -> None:
    source, destination = f"{stores[name]}/meta/source", f"{seconds[name]}/meta/{way}"
    storage.write_bytes(source, b"data", metadata=STATED)
    WAYS[way](source, destination)
    assert storage.read_bytes(destination) == b"data"
    assert told(destination, STATED) == ObjectMetadata(**STATED)
    storage.copy(f"{stores[name]}/meta/{way}", f"{stores[name]}/meta/inside")  # and by the store itself
    assert told(f"{stores[name]}/meta/inside", STATED) == ObjectMetadata(**STATED)


@pytest.mark.parametrize(("one", "other"), [pair for pair in product(STORES, STORES) if pair[0] != pair[1]])
def test_between_two_stores(stores: dict[str, str], one: str, other: str) -> None:
    user = {"run": "7"} if one == "az-azurite" else {"run": "7", "a-b": "8"}  # its names are identifiers
    source, destination = f"{stores[one]}/meta/source", f"{stores[other]}/meta/from-{one}"
    storage.write_bytes(source, b"data", metadata={**STATED, "user": user})
    storage.copy(source, destination)
    found = told(destination, STATED)
    assert found is not None
    assert (found.content_type, found.cache_control) == ("text/x-lab", "max-age=5")
    assert found.user is not None
    assert found.user["run"] == "7"
    storage.copy(source, destination, metadata={"content_type": "text/plain", "user": {"run": "8"}})
    found = told(destination, STATED)
    assert found is not None
    assert (found.content_type, found.cache_control, dict(found.user or {})) == (
        "text/plain",
        "max-age=5",
        {"run": "8"},
    )


@pytest.mark.parametrize("name", STORES)
def test_a_large_object(stores: dict[str, str], seconds: dict[str, str], name: str) -> None:
    """One that goes in parts."""
    source, destination = f"{stores[name]}/meta/large", f"{seconds[name]}/meta/large-copy"
    storage.write_bytes(source, bytes(17 << 20), metadata=STATED)
    storage.copy(source, destination)
    assert storage.stat(destination).size == 17 << 20
    assert told(destination, STATED) == ObjectMetadata(**STATED)


def test_a_name_says_more_than_an_unknown_type(stores: dict[str, str], tmp_path: Path) -> None:
    storage.write_bytes(f"{stores['s3-moto']}/meta/unknown", b"1")
    storage.copy(f"{stores['s3-moto']}/meta/unknown", f"{stores['oss-moto']}/meta/table.csv")
    found = storage.stat(f"{stores['oss-moto']}/meta/table.csv").metadata
    assert found is not None
    assert found.content_type == "text/csv"


def test_trees_keep_it(stores: dict[str, str]) -> None:
    top = f"{stores['s3-moto']}/meta-tree"
    storage.write_bytes(f"{top}/d/x", b"1", metadata=STATED)
    command("copy", "-r", top, f"{stores['s3-ceph']}/meta-tree")
    UPath(f"apyfal://{top}").copy(UPath(f"apyfal://{top}-2"))
    for url in (f"{stores['s3-ceph']}/meta-tree/d/x", f"{top}-2/d/x"):
        assert told(url, STATED) == ObjectMetadata(**STATED)
