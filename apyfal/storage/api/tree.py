"""Everything below a directory, for recursive operations: each object with its name below the top."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from functools import partial
from typing import NamedTuple

from apyfal.exceptions import AcceleratorException, ParameterError, StorageError
from apyfal.storage.api.namespace import child, not_too_deep, pack_listing
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.local import atomic
from apyfal.storage.mounting.table import MountedPath, resolve
from apyfal.storage.packed import Sorter
from apyfal.storage.stores.file import info_of
from apyfal.storage.url import Location, redact

__all__ = ["Item", "has_links", "names_below", "require_removable", "tree"]


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
        An empty directory, which is there only as itself (its URL ends in ``/`` if an object marks it); with a
        `problem`, one that cannot be listed.
    info
        What the listing says of a file; ``None`` if there is a problem.
    """

    location: Location
    name: str
    problem: Exception | None = None
    is_directory: bool = False
    info: ObjectInfo | None = None


def tree(top: Location, *, follow_links: bool = True, sizes_only: bool = False) -> Generator[Item, None, None]:
    """List all that is below a directory, in the order of names within each directory of a disk.

    Of a store without real directories, the listing is complete when the first item is there. It is held packed: some
    40 bytes an object, or some 5 with `sizes_only`. It uses the mount until it is read to its end, or closed.

    Parameters
    ----------
    top
        The directory.
    follow_links
        Whether links to directories on this machine's disks are followed; if not, they are items with a problem.
    sizes_only
        Whether the caller needs no more of what the listing says than the sizes.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        The top cannot be listed. A directory below that cannot be is an item with that problem.
    """
    with not_too_deep(top):
        yield from _tree(top, follow_links, sizes_only)


def _tree(top: Location, follow_links: bool, sizes_only: bool) -> Iterator[Item]:
    if top.is_local:
        yield from _local(top, top.path, "", follow_links, ())
        return
    with resolve(top) as target:
        if target.is_hierarchical:
            if target.on_this_machine:
                yield from _local(top, target.path, "", follow_links, ())
            else:
                yield from _directory(target, top, target.path, "")
            return
        listing = partial(pack_listing, target.handler, target.path, recursive=True, sizes_only=sizes_only)
        listed = retry_call(target.handler, listing, f"cannot list {str(top)!r}")
        prefix = len(target.path if not target.path or target.path.endswith("/") else target.path + "/")
        for row in listed.drain():
            info = ObjectInfo(*row)
            yield _item(target, top, info, info.path[prefix:])


def require_removable(location: Location) -> None:
    """Refuse what nobody means to remove with everything below it, before anything is removed.

    Raises
    ------
    ParameterError
        It is a bucket, the root of a store, a mount or a local file system, a home, or holds the working directory. Or
        its path ends in ``.`` or ``..``, as for `rm`.
    """
    shown = redact(str(location))
    if location.is_local:
        _require_removable_path(location.path, shown)
        return
    with resolve(location) as target:
        if target.above_objects is not None or not target.path.strip("/"):
            raise ParameterError(f"{shown!r} is not below a bucket: expected what is to be removed in it")
        if target.on_this_machine:
            _require_removable_path(target.path, shown)


def _require_removable_path(path: str, shown: str) -> None:
    if path.rstrip("/").rpartition("/")[2] in (".", ".."):
        raise ParameterError(f"{shown!r} ends in '.' or '..': expected the name of the directory that is to be removed")
    path = os.path.realpath(path)
    here = os.path.realpath(os.curdir)
    home = os.path.realpath(os.path.expanduser("~"))
    if os.path.ismount(path) or path == home or f"{here}/".startswith(f"{path.rstrip('/')}/"):
        raise ParameterError(
            f"{shown!r} is the root of a file system, a home, or holds the working directory: expected a directory"
            " below it"
        )


def has_links(top: Location) -> bool:
    """Whether links to directories are below a local directory."""
    return top.is_local and any(
        os.path.islink(os.path.join(folder, name)) for folder, names, _ in os.walk(top.path) for name in names
    )


def names_below(top: Location, depth: int | None = None) -> list[str]:
    """List the names of a directory (empty), of those below it and of their files, to a `depth`, links followed.

    Raises
    ------
    StorageError
        Of whatever kind: something below can be no part of a copy.
    """
    names = {""}
    for item in tree(top):
        if item.problem is not None:
            raise item.problem
        parts = item.name.split("/")
        names.update("/".join(parts[:end]) for end in range(1, min(len(parts), depth or len(parts)) + 1))
    return sorted(names)


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
    return Item(location, name, is_directory=info.is_directory, info=info)


def _directory(target: MountedPath, top: Location, path: str, name: str) -> Iterator[Item]:
    """List one directory of a store that has real ones."""
    location = child(top, name) if name else top
    what = f"cannot list {str(location)!r}"
    found = retry_call(target.handler, lambda: list(target.handler.list(path)), what)
    if not found and name:
        yield Item(location, name, is_directory=True)
    for info in sorted(found, key=lambda one: one.path):
        own = info.path.rstrip("/").rpartition("/")[2]
        below = f"{name}/{own}" if name else own
        if not info.is_directory:
            yield Item(child(top, below), below, info=info)
            continue
        try:
            yield from _directory(target, top, info.path, below)
        except AcceleratorException as error:
            yield Item(child(top, below), below, error, is_directory=True)


def _local(top: Location, folder: str, name: str, follow: bool, above: tuple[tuple[int, int], ...]) -> Iterator[Item]:
    """List one directory; `above` are device and inode of those on the way to it, so that no loop is entered."""
    names: Sorter[tuple[str, ...]] = Sorter(tuple, lambda row: row[0])
    empty = True
    with atomic.translating("list", folder):
        status = os.stat(folder)
        with os.scandir(folder) as scan:
            for entry in scan:
                names.add((entry.name,))
                empty = False
    above = (*above, (status.st_dev, status.st_ino))
    if empty and name:
        yield Item(child(top, name), name, is_directory=True)
    for (own,) in names:
        below = f"{name}/{own}" if name else own
        path = os.path.join(folder, own)
        location = child(top, below)
        problem: Exception | None = None
        is_directory = False
        info: ObjectInfo | None = None
        try:
            with atomic.translating("look up", path):
                found = os.stat(path)
            if stat.S_ISDIR(found.st_mode):
                if not follow and os.path.islink(path):
                    problem = StorageError(f"{path!r} is a link to a directory, and links are not followed")
                elif (found.st_dev, found.st_ino) in above:
                    problem = StorageError(f"{path!r} is a link to a directory that it is in")
                else:
                    is_directory = True
                    yield from _local(top, path, below, follow, above)
                    continue
            elif not stat.S_ISREG(found.st_mode):
                problem = StorageError(f"{path!r} is a pipe, socket or device, and no file")
            else:
                info = info_of(path, found)
        except AcceleratorException as error:
            problem = error
        yield Item(location, below, problem, is_directory, info)
