"""What there is: looking up, listing, matching, removing and making, as in `os` and `glob`, on any URL.

One model of the tree, for these functions, patterns, ``apyfal copy -r`` and fsspec:

- A name goes up to the next ``/`` that follows another character: below ``d/``, the key ``d//b`` is ``/b``, and
  ``d/c//e`` is ``/e`` in the directory ``c``. So every key has a place, and ``directory/name`` is its URL.
- An empty object whose key ends in ``/`` marks a directory: it makes ``exists`` true and is itself in no list.
- An object and a directory can have the same name in a store; both are listed, and looking it up gives the object.
- Hidden names are listed; patterns match them only if they say the dot, as in `glob`.
- Links are followed by ``stat`` and ``exists``; a broken one is listed, as by `os.listdir`, and does not exist.
- A store's root and a bucket alone are directories: nothing writes, reads or removes them but `makedirs` and `rmdir`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from apyfal.exceptions import (
    AccessDenied,
    IsADirectory,
    NotADirectory,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    UnsupportedByStore,
)
from apyfal.storage.flow.retry import retry_call, retry_removal
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.local import atomic
from apyfal.storage.mounting.table import MountedPath, resolve
from apyfal.storage.packed import Packed, Sorter
from apyfal.storage.stores.file import describe, list_directory
from apyfal.storage.url import Location, parse

__all__ = [
    "child",
    "entries",
    "exists",
    "exists_at",
    "iter_entries",
    "listdir",
    "makedirs",
    "not_too_deep",
    "pack_listing",
    "remove",
    "rmdir",
    "stat",
    "stat_at",
    "walk",
]


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


def stat(url: object, *, version: str | None = None) -> ObjectInfo:
    """Look a file, object or directory up.

    Parameters
    ----------
    url
        A storage URL or path. Symbolic links are followed.
    version
        The store's own id of a version of an object; by default the current one.

    Returns
    -------
    ObjectInfo
        With ``size`` (bytes, ``None`` for a directory), ``mtime`` (seconds since the epoch), ``etag``, ``checksums``,
        ``version``, ``metadata`` (content type and the like; ``None`` of a file) and ``is_directory``.

    Raises
    ------
    ObjectNotFound, AccessDenied, NotADirectory, StorageError
        When it cannot be looked up.
    """
    location = parse(url)
    if version is None:
        return stat_at(location)
    if location.is_local:
        raise UnsupportedByStore(f"cannot look up {str(location)!r}: a local file keeps no versions")
    with resolve(location) as target:
        what = f"cannot look up version {version!r} of {str(location)!r}"
        return retry_call(target.handler, lambda: target.handler.describe_version(target.path, version), what)


def stat_at(location: Location) -> ObjectInfo:
    """Look a parsed location up; see `stat`."""
    if location.is_local:
        return describe(location.path)
    with resolve(location) as target:
        what = f"cannot look up {str(location)!r}"
        directory = ObjectInfo(target.path, None, is_directory=True)
        if target.above_objects == "the root of a store":
            return directory  # which no store has anything to say of
        try:
            info = retry_call(target.handler, lambda: target.handler.describe(target.path), what)
        except ObjectNotFound:
            if not _has_entries(target, what) and not _is_marked(target, what):
                raise
            return directory
        return directory if target.path.endswith("/") and not info.size else info


def remove(url: object) -> None:
    """Remove a file or object, as `os.remove`: never a directory, a bucket or what is below one.

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
        if (above := target.above_objects) is not None:
            hint = "; expected rmdir, for an empty one" if above == "a bucket" else ""
            raise IsADirectory(f"cannot remove {str(location)!r}: it is {above}{hint}", path=target.path)
        retry_removal(target.handler, lambda: target.handler.remove(target.path), f"cannot remove {str(location)!r}")


def rmdir(url: object) -> None:
    """Remove an empty directory, as `os.rmdir`, or an empty bucket.

    In a store, a directory is empty if nothing but its mark is there; the mark is removed.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        When it cannot be removed, because it is not empty for one.
    """
    location = parse(url)
    if location.is_local:
        with atomic.translating("remove the directory", location.path):
            os.rmdir(location.path)
        return
    what = f"cannot remove the directory {str(location)!r}"
    with resolve(location) as target:
        above = target.above_objects
        if above is not None and above != "a bucket":
            raise IsADirectory(f"{what}: it is {above}", path=target.path)
        if next(iter_entries(location), None) is not None:
            raise atomic.storage_error(errno.ENOTEMPTY, "cannot remove: the directory is not empty", str(location))
        if target.is_hierarchical:
            retry_removal(target.handler, lambda: target.handler.rmdir(target.path), what)
        else:  # a bucket, or the mark of a directory
            path = target.path.rstrip("/") + ("" if above else "/")
            retry_removal(target.handler, lambda: target.handler.remove(path), what)


def listdir(url: object) -> list[str]:
    """List the names in a directory, in a bucket below a prefix, or the buckets, sorted.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        When it cannot be listed.
    """
    return [name for name, _ in iter_entries(parse(url))]


def entries(location: Location) -> list[tuple[str, ObjectInfo]]:
    """List what is directly below a location, by name; see the module's model for what has which name."""
    return list(iter_entries(location))


def iter_entries(location: Location) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield what `entries` lists. Of a store, the listing is complete by then, and held packed."""
    if location.is_local:
        found = [(os.path.basename(info.path), info) for info in list_directory(location.path)]
        yield from sorted(found, key=lambda one: one[0])
        return
    with resolve(location) as target:
        listed, is_there = _listed(target, location)
        if not is_there and target.path.strip("/"):
            _require_directory(target, location)
    for name, *fields in listed:
        yield name, ObjectInfo(*fields)


def _listed(target: MountedPath, location: Location) -> tuple[Sorter[tuple[Any, ...]], bool]:
    """List what has a name here, and tell whether the store listed anything: what is marked by ``x//`` has no name."""
    top = _folder(target.path)
    waiting = [target.path]
    found: Sorter[tuple[Any, ...]] = Sorter(tuple, lambda row: row[0])
    is_there = False
    while waiting:
        folder = waiting.pop()
        # the whole listing is repeated after a break: its pages belong together
        listing = partial(pack_listing, target.handler, folder)
        for row in retry_call(target.handler, listing, f"cannot list {str(location)!r}").drain():
            is_there = True
            info = ObjectInfo(*row)
            name = info.path[len(top) :]
            if info.is_directory and name.strip("/"):
                found.add((name.rstrip("/"), *row))
            elif info.is_directory and not target.is_hierarchical and folder:
                waiting.append(_folder(folder) + "/")  # what follows a second slash has its place here
            elif name:
                found.add((name, *row))
    return found, is_there


def _folder(path: str) -> str:
    return path if not path or path.endswith("/") else path + "/"


def pack_listing(
    handler: Handler, path: str, *, recursive: bool = False, sizes_only: bool = False
) -> Packed[tuple[Any, ...]]:
    """List what is in or below a directory: the fields of each `ObjectInfo`, or of each only path and size."""
    found: Packed[tuple[Any, ...]] = Packed(tuple)
    for info in handler.list(path, recursive=recursive):
        if sizes_only:
            found.append((info.path, info.size, None, None, {}, True, None, None, info.is_directory))
        else:
            found.append(
                (
                    info.path,
                    info.size,
                    info.etag,
                    info.mtime,
                    dict(info.checksums),
                    info.ranges,
                    info.encoding,
                    info.version,
                    info.is_directory,
                    info.metadata,
                )
            )
    return found


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
    location = parse(url)
    with not_too_deep(location):
        yield from _walk(location)


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
        if target.above_objects == "the root of a store":
            return  # it is there
        if _has_bucket_of(target, location):
            return
        retry_call(target.handler, lambda: target.handler.makedirs(target.path), f"cannot make {str(location)!r}")


def _has_bucket_of(target: MountedPath, location: Location) -> bool:
    """Return whether the bucket exists in which a directory is only a name: to make it again may not be allowed."""
    if target.is_hierarchical or target.above_objects is not None:
        return False
    handler, bucket = target.handler, target.path.partition("/")[0]
    try:
        retry_call(handler, lambda: handler.describe(bucket), f"cannot make {str(location)!r}")
    except ObjectNotFound:
        return False
    except AccessDenied:
        pass  # a store says that of a bucket that is there
    return True


@contextlib.contextmanager
def not_too_deep(location: Location) -> Iterator[None]:
    """Turn a `RecursionError` in the block into a `StorageError`: the tree is too deep.

    Raises
    ------
    StorageError
        Directories are nested more deeply than the interpreter's stack allows.
    """
    try:
        yield
    except RecursionError:
        raise StorageError(
            f"cannot list all of {str(location)!r}: hundreds of directories are in one another; expected fewer, or a"
            " directory below it"
        ) from None


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


def _is_marked(target: MountedPath, what: str) -> bool:
    """Whether an object that marks it is all that there is of a directory."""
    if target.is_hierarchical or target.path.endswith("/") or target.above_objects is not None:
        return False
    try:
        retry_call(target.handler, lambda: target.handler.describe(target.path + "/"), what)
    except (ObjectNotFound, UnsupportedByStore):
        return False
    return True


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
