"""`rmtree`: a directory with all that is below it, removed as `shutil.rmtree` does."""

from __future__ import annotations

import contextlib
import os
import shutil
from itertools import chain, islice

from apyfal.exceptions import NotADirectory, ObjectNotFound
from apyfal.storage.api.namespace import child, rmdir, stat_at
from apyfal.storage.api.tree import require_removable, tree
from apyfal.storage.batch.many import remove_listed
from apyfal.storage.local import atomic
from apyfal.storage.packed import Packed
from apyfal.storage.trees.names import Folders, has_directories
from apyfal.storage.trees.sides import path_on_disk
from apyfal.storage.url import Location, parse

__all__ = ["rmtree"]

#: Objects that are removed between two checks for failures.
_BATCH = 1000


def rmtree(url: object) -> None:
    """Remove a directory with all that is below it. Links below are removed, and never what they lead to.

    Parameters
    ----------
    url
        The directory. In a store, all objects are removed whose names continue with ``/``, but not an object with this
        name.

    Raises
    ------
    ParameterError
        It is a bucket, the root of a store, a mount or a file system, a home, or holds the working directory. Or its
        path ends in ``.`` or ``..``.
    NotADirectory
        It is a file, an object or a link.
    ObjectNotFound, AccessDenied, UnsupportedByStore, StorageError
        It does not exist, or cannot be listed: nothing was removed then. Or something below cannot be removed: what was
        removed before is gone.
    """
    location = parse(url)
    require_removable(location)
    what = f"cannot remove the tree {str(location)!r}"
    path = path_on_disk(location)
    if path is not None:
        if os.path.islink(path.rstrip("/")):
            raise NotADirectory(f"{what}: it is a link; expected a directory", path=location.shown_path)
        with atomic.translating("remove the tree", path):
            shutil.rmtree(path)
        return
    files, folders = _listed(location, what)
    waiting = files.drain()
    while some := [Location(location.scheme, place) for (place,) in islice(waiting, _BATCH)]:
        for error in remove_listed(some):
            if error is not None:
                raise error
    for name in chain(folders, [""]):
        place = child(location, name) if name else location
        # most directories of stores are only names, and an object may have the same
        with contextlib.suppress(ObjectNotFound, NotADirectory):
            rmdir(place.url.rstrip("/"))


def _listed(location: Location, what: str) -> tuple[Packed[tuple[str, ...]], Folders]:
    """Return the paths of files and objects, and the names of directories; raise if anything cannot be listed."""
    files: Packed[tuple[str, ...]] = Packed(tuple)
    folders = Folders()
    real = has_directories(location.url)
    empty = True
    for item in tree(location, follow_links=False, sizes_only=True):
        if item.problem is not None:
            raise item.problem
        empty = False
        # a mark such as `x//` is an object that `rmdir` of `x` does not remove
        if not item.is_directory or item.location.path.endswith("//"):
            files.append((item.location.path,))
        if item.is_directory:
            folders.add(item.name)
        if real:
            folders.add_with_those_above(item.name if item.is_directory else item.name.rpartition("/")[0])
    if empty and not stat_at(location).is_directory:
        raise NotADirectory(f"{what}: it is not a directory", path=location.shown_path)
    return files, folders
