"""A tree of some odd names, and what reads and changes one, for tests of `sync`."""

from __future__ import annotations

import os

from memory_store import MemoryHandler

from apyfal import storage
from apyfal.storage.handler import ObjectInfo

TREE = {"a": b"one", "d/b": b"two", "d/e/c.tmp": b"three", "d/.h/x": b"four", "odd [x]*?": b"5"}


def fill(top: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        url = f"{top}/{name}"
        if "://" not in url:
            os.makedirs(os.path.dirname(url), exist_ok=True)
        storage.write_bytes(url, data)


def content(top: str) -> dict[str, bytes]:
    found = {}
    for folder, _, names in storage.walk(top):
        for name in names:
            url = f"{folder}/{name}"
            found[url[len(top) + 1 :]] = storage.read_bytes(url)
    return found


def age(url: str, handler: MemoryHandler, seconds: float) -> None:
    """Make a file this much newer."""
    if "://" in url:
        path = url.partition("://")[2]
        data, info = handler.objects[path]
        changed = ObjectInfo(path, info.size, etag=f"{info.etag}+", mtime=(info.mtime or 0) + seconds)
        handler.objects[path] = (data, changed)
    else:
        moment = os.stat(url).st_mtime + seconds
        os.utime(url, (moment, moment))
