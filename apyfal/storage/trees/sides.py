"""Both trees of a synchronization: their entries, and the names that cannot exist at the destination."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from apyfal.exceptions import AcceleratorException, InvalidURL, NotADirectory, ObjectNotFound, ParameterError
from apyfal.storage.api.namespace import child, stat_at
from apyfal.storage.api.tree import tree
from apyfal.storage.mounting.table import resolve
from apyfal.storage.packed import Sorter
from apyfal.storage.trees.filters import Filter
from apyfal.storage.trees.names import bad_name, has_directories
from apyfal.storage.url import Location, parse

__all__ = [
    "DIRECTORY",
    "FILE",
    "PROBLEM",
    "Tree",
    "TreeEntry",
    "list_destination",
    "list_source",
    "no_place",
    "path_on_disk",
    "require_apart",
    "require_two_trees",
]


class TreeEntry(NamedTuple):
    """An entry below a directory: its path from there, its kind, and for a file what the listing states.

    Attributes
    ----------
    kind
        `FILE`, `DIRECTORY` (an empty one) or `PROBLEM` (see `Tree.problems`).
    """

    name: str
    kind: int
    size: int | None = None
    etag: str | None = None
    mtime: float | None = None


FILE, DIRECTORY, PROBLEM = range(3)


class Tree:
    """What is below one directory, held compressed.

    Attributes
    ----------
    top
        The directory.
    on_disk
        Whether directories are real ones here.
    problems
        For each path that is not a file or cannot be listed, the error: a broken link, a pipe, a directory without
        permission.
    """

    def __init__(self, top: Location, *, on_disk: bool) -> None:
        self.top = top
        self.on_disk = on_disk
        self.problems: dict[str, Exception] = {}
        self._entries: Sorter[TreeEntry] = Sorter(TreeEntry._make, lambda one: (one.name.split("/"), one.kind))

    def add(self, entry: TreeEntry) -> None:
        """Add an entry."""
        self._entries.add(entry)

    def __iter__(self) -> Iterator[TreeEntry]:
        """Yield all entries, name by name, so that what is in a directory follows it: ``a``, ``a/b``, ``a-``."""
        return iter(self._entries)

    def at(self, name: str) -> Location:
        """Give the location of a path below the top."""
        return child(self.top, name)


def list_source(
    top: Location, chosen: Filter, destination: Location, *, follow_links: bool
) -> tuple[Tree, list[Exception]]:
    """List what is to be copied.

    Returns
    -------
    Tree
        What can have its place at the destination, by its name.
    list of Exception
        An error for each file that cannot.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        It is not a directory, or its listing failed.
    """
    _require_below_bucket(top)
    if top.path.strip("/") and not stat_at(top).is_directory:
        raise NotADirectory(f"cannot synchronize {str(top)!r}: it is a file; expected a directory (copy is for files)")
    found = Tree(top, on_disk=has_directories(top.url))
    on_disk = has_directories(destination.url)
    problems: list[Exception] = []

    def has_place(name: str, is_directory: bool) -> bool:
        if is_directory and not on_disk:
            return True  # none is made
        why = bad_name(name, on_disk=on_disk)  # who wrote the source's names does not choose places on this machine
        if why is None:
            try:
                parse(child(destination, name).url)
            except AcceleratorException as error:
                why = str(error)
        if why is not None:
            problems.append(no_place(found, destination, name, why))
        return why is None

    _list(found, chosen, has_place, follow_links=follow_links)
    return found, problems


def no_place(source: Tree, destination: Location, name: str, why: str) -> ParameterError:
    """Return the error for a file that cannot have its name at the destination."""
    return ParameterError(f"{str(source.at(name))!r} has no place in {str(destination)!r} as {name!r}: {why}")


def list_destination(top: Location, chosen: Filter) -> Tree:
    """List the destination; empty if the directory does not exist. Links to directories are not followed.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        The bucket does not exist, it is a file, or its listing failed.
    """
    _require_below_bucket(top)
    found = Tree(top, on_disk=has_directories(top.url))
    try:
        _list(found, chosen, lambda name, is_directory: True, follow_links=False)
    except ObjectNotFound:
        if not found.on_disk:
            raise
        return Tree(top, on_disk=True)
    return found


def _list(found: Tree, chosen: Filter, has_place: Callable[[str, bool], bool], *, follow_links: bool) -> None:
    for item in tree(found.top, follow_links=follow_links):
        if item.problem is not None:
            if not chosen.excludes(item.name):
                found.problems[item.name] = item.problem
                found.add(TreeEntry(item.name, PROBLEM))
        elif not chosen.takes(item.name):
            continue
        elif item.is_directory:
            if has_place(item.name, True):
                found.add(TreeEntry(item.name, DIRECTORY))
        elif item.info is not None and has_place(item.name, False):
            found.add(TreeEntry(item.name, FILE, item.info.size, item.info.etag, item.info.mtime))


def _require_below_bucket(top: Location) -> None:
    if top.is_local:
        return
    with resolve(top) as target:
        if target.above_objects == "the root of a store" and not target.is_hierarchical:
            raise InvalidURL(f"cannot synchronize {str(top)!r}: it is the root of a store; expected a bucket, or below")


def require_apart(source: Location, destination: Location) -> None:
    """Refuse two trees of which one is the other, or inside it: sources would be overwritten or deleted.

    Raises
    ------
    ParameterError
        They overlap, or may do so under two names of one store.
    """
    one, other, same = _real_path(source), _real_path(destination), True
    if one is None and other is None:
        with resolve(source) as one_target, resolve(destination) as other_target:
            same = one_target.may_be_same_store_as(other_target)
            one, other = one_target.path, other_target.path
    if not same or one is None or other is None:
        return
    if _overlap(one, other):
        raise ParameterError(
            f"cannot synchronize {str(source)!r} with {str(destination)!r}: one is in the other, or they are the same;"
            " expected two places apart"
        )


def require_two_trees(source: Tree, destination: Tree) -> None:
    """Refuse trees of stores of which one is inside the other under another address: an object that both list shows it.

    Raises
    ------
    ParameterError
        An object has the same path, size, time and ETag in both stores, and another place in the two trees.
    """
    if source.on_disk or destination.on_disk:
        return
    with resolve(source.top) as one_target, resolve(destination.top) as other_target:
        if not _overlap(one_target.path, other_target.path):
            return  # no object of one could be in the other
        inside, outside = f"{other_target.path.rstrip('/')}/", f"{one_target.path.rstrip('/')}/"
    if inside == outside:
        return  # what has one path has one name
    if inside.startswith(outside):
        pairs = _of_one_path(source, destination, inside[len(outside) :])
    else:
        pairs = ((one, other) for other, one in _of_one_path(destination, source, outside[len(inside) :]))
    for one, other in pairs:
        stated = one.etag is not None or one.mtime is not None
        if one.name != other.name and stated and one[2:] == other[2:]:
            first, second = str(source.at(one.name)), str(destination.at(other.name))
            raise ParameterError(
                f"cannot synchronize {str(source.top)!r} with {str(destination.top)!r}: {first!r} and {second!r} seem"
                " to be the same object (of the same path, size, time and ETag); expected two places apart"
            )


def _of_one_path(outer: Tree, inner: Tree, folder: str) -> Iterator[tuple[TreeEntry, TreeEntry]]:
    """Yield the files of both trees with the same path in their stores; `folder` is the path of one in the other."""
    within = (one for one in outer if one.kind == FILE and one.name.startswith(folder))
    wanted = next(within, None)
    for other in inner:
        name = (folder + other.name).split("/")
        while wanted is not None and wanted.name.split("/") < name:
            wanted = next(within, None)
        if wanted is not None and other.kind == FILE and wanted.name.split("/") == name:
            yield wanted, other


def _overlap(one: str, other: str) -> bool:
    """Return whether one directory is the other, or in it."""
    first, second = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return first.startswith(second) or second.startswith(first)


def _real_path(location: Location) -> str | None:
    path = path_on_disk(location)
    return None if path is None else os.path.realpath(path)


def path_on_disk(location: Location) -> str | None:
    """Return the path of a location on this machine's disks, also by a mount; ``None`` for others."""
    if location.is_local:
        return location.path
    with resolve(location) as target:
        return target.path if target.on_this_machine else None
