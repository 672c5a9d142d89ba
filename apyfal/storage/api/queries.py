"""What is at a URL, and how large and old it is, as in `os.path`."""

from __future__ import annotations

import os

from apyfal.exceptions import IsADirectory, NotADirectory, ObjectNotFound, UnsupportedByStore
from apyfal.storage.api.namespace import stat
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.url import parse

__all__ = ["getmtime", "getsize", "isdir", "isfile"]


def isfile(url: object) -> bool:
    """Whether there is such a file or object, links followed; a local pipe, socket or device is none.

    Where an object and a directory have the same name in a store, it is true of the name, as `stat` gives the object.

    Raises
    ------
    InvalidURL, MountError, AccessDenied, StorageError
        When that cannot be told; `os.path.isfile` would say False.
    """
    info = _found(url)
    if info is None or info.is_directory:
        return False
    location = parse(url)
    return not location.is_local or os.path.isfile(location.path)


def isdir(url: object) -> bool:
    """Whether there is such a directory or bucket (in a store: a name that goes on with ``/``), links followed.

    Raises
    ------
    InvalidURL, MountError, AccessDenied, StorageError
        When that cannot be told; `os.path.isdir` would say False.
    """
    info = _found(url)
    return info is not None and info.is_directory


def getsize(url: object) -> int:
    """Return how many bytes a file or object has.

    Raises
    ------
    IsADirectory
        For a directory or bucket, which has no size here.
    UnsupportedByStore
        Where the store does not tell it.
    ObjectNotFound, AccessDenied, NotADirectory, StorageError
        When it cannot be looked up.
    """
    info = stat(url)
    if info.is_directory:
        raise IsADirectory(f"cannot tell the size of {str(parse(url))!r}: it is a directory", path=info.path)
    if info.size is None:
        raise UnsupportedByStore(f"cannot tell the size of {str(parse(url))!r}: its store does not say")
    return info.size


def getmtime(url: object) -> float:
    """Return when a file or object was last written, in seconds since the epoch.

    Raises
    ------
    UnsupportedByStore
        Where the store does not tell it, as of directories.
    ObjectNotFound, AccessDenied, NotADirectory, StorageError
        When it cannot be looked up.
    """
    info = stat(url)
    if info.mtime is None:
        raise UnsupportedByStore(f"cannot tell when {str(parse(url))!r} was written: its store does not say")
    return info.mtime


def _found(url: object) -> ObjectInfo | None:
    try:
        return stat(url)
    except (ObjectNotFound, NotADirectory):
        return None
