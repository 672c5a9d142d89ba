"""What there is: looking up, listing, matching, removing and making, as in `os` and `glob`, on any URL."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from apyfal.exceptions import NotADirectory, ObjectExists, ObjectNotFound, UnsupportedByStore
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.local import atomic
from apyfal.storage.mounting.table import MountedPath, resolve
from apyfal.storage.stores.file import describe, list_directory
from apyfal.storage.url import Location, parse

__all__ = ["entries", "exists", "exists_at", "listdir", "makedirs", "remove", "stat", "stat_at", "walk"]


def exists(url: object) -> bool:
    """Whether there is such a file, object, bucket or directory (in a store: anything whose name goes on with ``/``).

    Raises
    ------
    InvalidURL, MountError, AccessDenied, StorageError
        When that cannot be told.
    """
    return exists_at(parse(url))


def exists_at(location: Location) -> bool:
    """Tell whether a parsed location exists; see `exists`."""
    try:
        stat_at(location)
    except (ObjectNotFound, NotADirectory):
        return False
    return True


def stat(url: object) -> ObjectInfo:
    """Look a file, object or directory up.

    Parameters
    ----------
    url
        A storage URL or path. Symbolic links are followed.

    Returns
    -------
    ObjectInfo
        With ``size`` (bytes, ``None`` for a directory), ``mtime`` (seconds since the epoch), ``etag``, ``checksums``
        and ``is_directory``.

    Raises
    ------
    ObjectNotFound, AccessDenied, NotADirectory, StorageError
        When it cannot be looked up.
    """
    return stat_at(parse(url))


def stat_at(location: Location) -> ObjectInfo:
    """Look a parsed location up; see `stat`."""
    if location.is_local:
        return describe(location.path)
    with resolve(location) as target:
        what = f"cannot look up {str(location)!r}"
        try:
            return retry_call(target.handler, lambda: target.handler.describe(target.path), what)
        except ObjectNotFound:
            if not _has_entries(target, what):
                raise
            return ObjectInfo(target.path, None, is_directory=True)


def remove(url: object) -> None:
    """Remove a file or object, as `os.remove`.

    Raises
    ------
    ObjectNotFound, IsADirectory, AccessDenied, UnsupportedByStore, StorageError
        When it cannot be removed.
    """
    location = parse(url)
    if location.is_local:
        with atomic.translating("remove", location.path):
            os.remove(location.path)
        return
    with resolve(location) as target:
        retry_call(target.handler, lambda: target.handler.remove(target.path), f"cannot remove {str(location)!r}")


def listdir(url: object) -> list[str]:
    """List the names in a directory, in a bucket below a prefix, or the buckets, sorted.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        When it cannot be listed.
    """
    return [name for name, _ in entries(parse(url))]


def entries(location: Location) -> list[tuple[str, ObjectInfo]]:
    """List what is directly below a location, by name.

    In a store, an object and a common prefix can have the same name; both are then listed. The object whose name is the
    prefix itself, which some tools make as a directory's mark, is not; nor is what follows ``//``, which has no name of
    its own here.
    """
    if location.is_local:
        found = [(os.path.basename(info.path), info) for info in list_directory(location.path)]
    else:
        with resolve(location) as target:
            prefix = target.path if not target.path or target.path.endswith("/") else target.path + "/"
            # the whole listing is repeated after a break: its pages belong together
            listed = retry_call(
                target.handler, lambda: list(target.handler.list(target.path)), f"cannot list {str(location)!r}"
            )
            if not listed and target.path.strip("/"):
                _require_directory(target, location)
        names = [(info.path[len(prefix) :], info) for info in listed]
        found = [(name.rstrip("/") if info.is_directory else name, info) for name, info in names]
        found = [(name, info) for name, info in found if name]
    return sorted(found, key=lambda one: one[0])


def walk(url: object) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a tree from the top, as `os.walk`.

    Yields
    ------
    tuple
        A directory's URL (or path), the names of the directories in it (remove some to leave them out), and those of
        the files. Links to directories are listed, not followed.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        When one of the directories cannot be listed.
    """
    yield from _walk(parse(url))


def makedirs(url: object, exist_ok: bool = False) -> None:
    """Make a directory with its parents, or a bucket; nothing in a store's bucket, where directories are only names.

    Raises
    ------
    ObjectExists, AccessDenied, StorageError
        When it cannot be made; it may exist only with `exist_ok`.
    """
    location = parse(url)
    if location.is_local:
        with atomic.translating("make the directory", location.path):
            os.makedirs(location.path, exist_ok=exist_ok)
        return
    if not exist_ok and exists_at(location):
        raise ObjectExists(f"{str(location)!r} exists already", path=location.shown_path)
    with resolve(location) as target:
        retry_call(target.handler, lambda: target.handler.makedirs(target.path), f"cannot make {str(location)!r}")


def child(location: Location, name: str) -> Location:
    """Give the location of `name` in a directory."""
    if location.is_local:
        return Location("file", os.path.join(location.path, name))
    path = location.path
    return Location(location.scheme, path + name if not path or path.endswith("/") else f"{path}/{name}")


def _walk(location: Location) -> Iterator[tuple[str, list[str], list[str]]]:
    directories: list[str] = []
    files: list[str] = []
    for name, info in entries(location):
        (directories if info.is_directory else files).append(name)
    yield location.url, directories, files
    for name in directories:
        below = child(location, name)
        if not (below.is_local and os.path.islink(below.path)):
            yield from _walk(below)


def _has_entries(target: MountedPath, what: str) -> bool:
    def first() -> bool:
        try:
            return next(iter(target.handler.list(target.path)), None) is not None
        except UnsupportedByStore:
            return False  # the web has no directories

    return retry_call(target.handler, first, what)


def _require_directory(target: MountedPath, location: Location) -> None:
    """Raise the error for an empty listing, unless it is that of an empty directory, bucket or directory's mark."""
    what = f"cannot list {str(location)!r}"
    try:
        info = retry_call(target.handler, lambda: target.handler.describe(target.path), what)
    except ObjectNotFound:
        retry_call(target.handler, lambda: target.handler.describe(target.path.rstrip("/") + "/"), what)
        return
    if not info.is_directory:
        raise atomic.storage_error(errno.ENOTDIR, "cannot list: it is an object, not a directory", str(location))
