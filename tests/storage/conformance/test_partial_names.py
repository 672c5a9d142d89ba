"""An empty or partial name never means more than it says: no function writes, reads or removes above an object.

For each store: its root, the bucket alone with and without a slash at its end, and the root of a mount in it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from upath import UPath

from apyfal import cli, storage
from apyfal.exceptions import AcceleratorException
from apyfal.storage.mounting.table import table

pytestmark = pytest.mark.server

STORES = ["s3-moto", "s3-ceph", "swift-v1", "az-azurite", "gs-fake", "oss-moto", "fsspec-memory", "fsspec-sftp"]
DATA = np.arange(64, dtype=np.uint8)


def _command(*arguments: str) -> None:
    if status := cli.main(list(arguments)):
        raise AcceleratorException(f"status {status}")


def _append(url: str) -> None:
    with storage.open(url, "ab") as file:
        file.write(b"x")


def _create(url: str) -> None:
    with storage.open(url, "xb") as file:
        file.write(b"x")


def _open_empty(url: str) -> None:
    storage.open(url, "wb").close()


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "save": lambda url: storage.save(url, DATA),
    "save nothing": lambda url: storage.save(url, DATA[:0]),
    "open w": _open_empty,
    "open x": _create,
    "open a": _append,
    "open r": lambda url: storage.open(url).read(),
    "load": storage.load,
    "remove": storage.remove,
    "open w+": lambda url: storage.open(url, "w+b").close(),
    "open r+": lambda url: storage.open(url, "r+b").close(),
    "write_bytes": lambda url: storage.write_bytes(url, b""),
    "write_text": lambda url: storage.write_text(url, "x"),
    "read_text": storage.read_text,
    "save_many": lambda url: storage.save_many([url], [DATA]),
    "load_many": lambda url: storage.load_many([url]),
    "remove_many": lambda url: storage.remove_many([url]),
    "move from": lambda url: storage.move(url, "/dev/null"),
    "rm": lambda url: _command("rm", url),
    "mv": lambda url: _command("mv", url, "/dev/null"),
    "cat": lambda url: _command("cat", url),
    "copy from": lambda url: storage.copy(url, "/dev/null"),
    "fsspec pipe": lambda url: storage.filesystem().pipe_file(url, b"x"),
    "fsspec cat": lambda url: storage.filesystem().cat_file(url),
    "fsspec rm": lambda url: storage.filesystem().rm(url),
    "fsspec touch": lambda url: storage.filesystem().touch(url),
}


@pytest.fixture(scope="module")
def names(stores: dict[str, str]) -> dict[str, list[str]]:
    """For each store the names that are above its objects; its bucket holds one object."""
    found = {}
    for name in STORES:
        bucket = stores[name]
        storage.save(f"{bucket}/kept/object", DATA)
        inner = f"root.{name}"
        spec = table._mounts[name].definition
        storage.mount(inner, provider=spec.provider, root=bucket.partition("://")[2], **spec.values())
        deeper = f"deep.{name}"
        storage.mount(deeper, provider=spec.provider, root=bucket.partition("://")[2] + "/kept", **spec.values())
        new = f"{name}://{name}-never-made"
        found[name] = [f"{name}://", bucket, f"{bucket}/", new, f"{new}/", f"{inner}://", f"{deeper}://"]
        if name.startswith("fsspec"):  # a file there is what its name says
            found[name] = [one for one in found[name] if not one.startswith(new)]
    return found


@pytest.mark.parametrize("function", list(FUNCTIONS))
@pytest.mark.parametrize("name", STORES)
def test_nothing_happens_above_objects(
    names: dict[str, list[str]], stores: dict[str, str], name: str, function: str
) -> None:
    before = storage.listdir(f"{name}://")
    for url in names[name]:
        with pytest.raises((AcceleratorException, OSError)):
            FUNCTIONS[function](url)
    assert storage.listdir(f"{name}://") == before
    assert bytes(storage.load(f"{stores[name]}/kept/object")) == bytes(DATA)


REMOVALS: dict[str, Callable[[str], object]] = {
    "rm -r": lambda url: _command("rm", "-r", url),
    "fsspec rm -r": lambda url: storage.filesystem().rm(url, recursive=True),
    "fsspec rm -r of a list": lambda url: storage.filesystem().rm([url], recursive=True),
    "fsspec mv -r": lambda url: storage.filesystem().mv(url, "/dev/null/x", recursive=True),
    "UPath.rmdir": lambda url: UPath(f"apyfal://{url}").rmdir(recursive=True),
}


@pytest.mark.parametrize("function", list(REMOVALS))
@pytest.mark.parametrize("name", STORES)
def test_what_removes_trees_leaves_what_is_above_objects(
    names: dict[str, list[str]], stores: dict[str, str], name: str, function: str
) -> None:
    above = [url for url in names[name] if not (name.startswith("fsspec") and url.startswith(stores[name]))]
    before = storage.listdir(f"{name}://")
    for url in [*above, f"{name}://*"] if "fsspec" not in name else above:
        with pytest.raises((AcceleratorException, OSError)):
            REMOVALS[function](url)
    assert storage.listdir(f"{name}://") == before
    assert bytes(storage.load(f"{stores[name]}/kept/object")) == bytes(DATA)


@pytest.mark.parametrize("name", STORES)
def test_what_is_above_objects_is_a_directory(names: dict[str, list[str]], stores: dict[str, str], name: str) -> None:
    there = [url for url in names[name] if "never-made" not in url]
    for url in there:
        assert storage.exists(url)
        assert storage.isdir(url)
        assert not storage.isfile(url)
        assert storage.stat(url).is_directory
        assert storage.filesystem().isdir(url)
        storage.makedirs(url, exist_ok=True)


@pytest.mark.parametrize("name", STORES)
def test_rmdir_removes_what_is_empty_and_nothing_else(stores: dict[str, str], name: str) -> None:
    new = f"{name}://{name}-to-go"
    storage.makedirs(new)
    storage.save(f"{new}/d/x", DATA)
    for full in (new, f"{new}/", f"{new}/d"):
        with pytest.raises(OSError, match=r"not empty|Not empty"):
            storage.rmdir(full)
    with pytest.raises((AcceleratorException, OSError)):
        storage.rmdir(f"{name}://")
    storage.remove(f"{new}/d/x")
    if name.startswith("fsspec"):
        storage.rmdir(f"{new}/d")
    with pytest.raises(FileNotFoundError):
        storage.rmdir(f"{new}/d")
    storage.rmdir(new)
    assert not storage.exists(new)
