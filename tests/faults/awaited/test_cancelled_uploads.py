"""A cancelled upload removes what it has sent, though the scope of its caller is cancelled: what stays costs money."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.stores.fsspec.handler import FsspecHandler
from apyfal.storage.stores.gcs.json_api import _Composition
from apyfal.storage.stores.swift.client import SwiftObjects
from apyfal.storage.stores.swift.segments import SwiftUpload


def asked() -> None:
    """Do what a handler does before each request."""
    cancel = current_cancel()
    if cancel is not None:
        cancel.check()


class Parts(SwiftObjects):
    """The parts that a store still has."""

    scheme = "swift"

    def __init__(self) -> None:
        self.left = {"c/part/1", "c/part/2"}

    def read(self, *arguments: object) -> Any:
        raise NotImplementedError

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        asked()
        for name in sorted(self.left):
            yield ObjectInfo(name, 1)

    def _ask(self, method: str, target: str, path: str, *rest: object, **more: object) -> Any:
        asked()
        assert method == "DELETE"
        self.left.discard(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda store: SwiftUpload(store, "b/key", "c"),
        lambda store: _Composition(store, "b/key", exclusive=False, metadata=None),
    ],
    ids=["swift", "gs"],
)
def test_parts(make: Callable[[Any], Any]) -> None:
    store = Parts()
    cancel = CancelToken()
    with cancel.scope():
        upload = make(store)
        cancel.set()
        upload.abort()
        assert current_cancel() is cancel
    assert not store.left


def test_segments_of_the_object_that_was_replaced() -> None:
    store = Parts()
    cancel = CancelToken()
    cancel.set()
    with cancel.scope():
        store.remove_segments(["c/part/1", "c/part/2"])
    assert not store.left


def test_temporary_files() -> None:
    """Of SFTP, WebDAV and others, under which a file is written."""
    files = FsspecHandler(protocol="memory")
    files.makedirs("cancelled")
    cancel = CancelToken()
    with cancel.scope():
        upload = files.upload("cancelled/file", size=None)
        upload.write_part(1, memoryview(b"abc"), None)
        cancel.set()
        upload.abort()
    assert list(files.list("cancelled", recursive=True)) == []
