"""Everything below a directory, for recursive operations: each object with its name below the top."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from apyfal.exceptions import AcceleratorException, StorageError
from apyfal.storage.api.namespace import child
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import Handler, ObjectInfo
from apyfal.storage.local import atomic
from apyfal.storage.mounting.table import MountedPath, resolve
from apyfal.storage.url import Location

__all__ = ["Item", "tree"]


class Item(NamedTuple):
    """One object or file below a directory.

    Attributes
    ----------
    location
        Where it is.
    name
        Its path below the top.
    problem
        Why it cannot be moved; ``None`` if it can.
    is_directory
        An empty directory, which is there only as itself.
    """

    location: Location
    name: str
    problem: Exception | None = None
    is_directory: bool = False


def tree(top: Location, *, follow_links: bool = True) -> Iterator[Item]:
    """List all that is below a directory, in the order of names within each directory of a disk.

    Parameters
    ----------
    top
        The directory.
    follow_links
        Whether links to directories on this machine's disks are followed; if not, they are items with a problem.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        The top cannot be listed. A directory below that cannot be is an item with that problem.
    """
    if top.is_local:
        yield from _local(top.path, "", follow_links, ())
        return
    with resolve(top) as target:
        listed = retry_call(target.handler, partial(_all, target.handler, target.path), f"cannot list {str(top)!r}")
        prefix = len(target.path if not target.path or target.path.endswith("/") else target.path + "/")
        for info in listed:
            yield _item(target, top, info, info.path[prefix:])


def _all(handler: Handler, path: str) -> list[ObjectInfo]:
    return list(handler.list(path, recursive=True))


def _item(target: MountedPath, top: Location, info: ObjectInfo, name: str) -> Item:
    location = child(top, name)
    if name.endswith("/"):
        if info.size:
            return Item(
                location,
                name,
                StorageError(f"{str(location)!r} ends in '/' and has {info.size} bytes: no file can have this name"),
            )
        return Item(location, name.rstrip("/"), is_directory=True)
    return Item(location, name, is_directory=info.is_directory)


def _local(folder: str, name: str, follow: bool, above: tuple[tuple[int, int], ...]) -> Iterator[Item]:
    """List one directory; `above` are device and inode of those on the way to it, so that no loop is entered."""
    with atomic.translating("list", folder):
        status = os.stat(folder)
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    above = (*above, (status.st_dev, status.st_ino))
    if not entries and name:
        yield Item(Location("file", folder), name, is_directory=True)
    for entry in entries:
        location, below = Location("file", entry.path), f"{name}/{entry.name}" if name else entry.name
        problem: Exception | None = None
        try:
            with atomic.translating("look up", entry.path):
                found = os.stat(entry.path)
            if stat.S_ISDIR(found.st_mode):
                if entry.is_symlink() and not follow:
                    problem = StorageError(f"{entry.path!r} is a link to a directory, and links are not followed")
                elif (found.st_dev, found.st_ino) in above:
                    problem = StorageError(f"{entry.path!r} is a link to a directory that it is in")
                else:
                    yield from _local(entry.path, below, follow, above)
                    continue
            elif not stat.S_ISREG(found.st_mode):
                problem = StorageError(f"{entry.path!r} is a pipe, socket or device, and no file")
        except AcceleratorException as error:
            problem = error
        yield Item(location, below, problem)
