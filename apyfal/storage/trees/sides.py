"""Both trees of a synchronization: what is there, and what cannot have its place at the destination."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from apyfal.exceptions import AcceleratorException, InvalidURL, NotADirectory, ObjectNotFound, ParameterError
from apyfal.storage.api.namespace import child, stat_at
from apyfal.storage.api.tree import tree
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.mounting.table import resolve
from apyfal.storage.trees.filters import Filter
from apyfal.storage.trees.names import above, bad_name, clashes, has_directories
from apyfal.storage.url import Location, parse

__all__ = [
    "Tree",
    "list_destination",
    "list_source",
    "path_on_disk",
    "require_apart",
    "require_two_trees",
    "take_out_misplaced",
]


@dataclass
class Tree:
    """What is below one directory.

    Attributes
    ----------
    top
        The directory.
    on_disk
        Whether directories are real ones here.
    files
        Path below the top to what the listing says.
    directories
        Paths of empty directories.
    problems
        Path to why it is no file, or cannot be listed: a broken link, a pipe, a directory without permission.
    """

    top: Location
    on_disk: bool
    files: dict[str, ObjectInfo] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    problems: dict[str, Exception] = field(default_factory=dict)

    def at(self, name: str) -> Location:
        """Give the location of a path below the top."""
        return child(self.top, name)

    def folders(self) -> set[str]:
        """Return the paths of all directories below the top, the empty ones too."""
        found = set(self.directories)
        for name in [*self.files, *self.directories]:
            found.update(above(name))
        return found


def list_source(top: Location, chosen: Filter, *, follow_links: bool) -> Tree:
    """List what is to be copied.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        It is no directory, or its listing failed.
    """
    _require_below_bucket(top)
    if top.path.strip("/") and not stat_at(top).is_directory:
        raise NotADirectory(f"cannot synchronize {str(top)!r}: it is a file; expected a directory (copy is for files)")
    return _listed(Tree(top, has_directories(top.url)), chosen, follow_links=follow_links)


def list_destination(top: Location, chosen: Filter) -> Tree:
    """List what is there; nothing, if there is no such directory. Links to directories are not followed.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        The bucket does not exist, it is a file, or its listing failed.
    """
    _require_below_bucket(top)
    there = Tree(top, has_directories(top.url))
    try:
        return _listed(there, chosen, follow_links=False)
    except ObjectNotFound:
        if not there.on_disk:
            raise
        return Tree(top, on_disk=True)


def _listed(found: Tree, chosen: Filter, *, follow_links: bool) -> Tree:
    for item in tree(found.top, follow_links=follow_links):
        if item.problem is not None:
            if not chosen.excludes(item.name):
                found.problems[item.name] = item.problem
        elif not chosen.takes(item.name):
            continue
        elif item.is_directory:
            found.directories.add(item.name)
        elif item.info is not None:
            found.files[item.name] = item.info
    return found


def _require_below_bucket(top: Location) -> None:
    if top.is_local:
        return
    with resolve(top) as target:
        if target.above_objects == "the root of a store" and not target.is_hierarchical:
            raise InvalidURL(f"cannot synchronize {str(top)!r}: it is the root of a store; expected a bucket, or below")


def require_apart(source: Location, destination: Location) -> None:
    """Refuse two trees of which one is, or is in, the other: what is copied or deleted would be a source.

    Raises
    ------
    ParameterError
        They overlap, or may do so under two names of one store.
    """
    one, other, same = _real_path(source), _real_path(destination), True
    if one is None and other is None:
        with resolve(source) as here, resolve(destination) as there:
            same = here.may_be_same_store_as(there)
            one, other = here.path, there.path
    if not same or one is None or other is None:
        return
    if _overlap(one, other):
        raise ParameterError(
            f"cannot synchronize {str(source)!r} with {str(destination)!r}: one is in the other, or they are the same;"
            " expected two places apart"
        )


def require_two_trees(source: Tree, destination: Tree) -> None:
    """Refuse trees of stores of which one is in the other, though their addresses differ: seen by an object of both.

    Raises
    ------
    ParameterError
        An object has the same path, size, time and ETag in both stores, and another place in the two trees.
    """
    if source.on_disk or destination.on_disk:
        return
    with resolve(source.top) as here, resolve(destination.top) as there:
        if not _overlap(here.path, there.path):
            return  # no object of one could be in the other
    known = {info.path: name for name, info in source.files.items()}
    for name, info in destination.files.items():
        of_source = known.get(info.path, name)
        before = source.files.get(of_source, info)
        stated = before.etag is not None or before.mtime is not None
        same = (before.size, before.etag, before.mtime) == (info.size, info.etag, info.mtime)
        if of_source != name and stated and same:
            one, other = str(source.at(of_source)), str(destination.at(name))
            raise ParameterError(
                f"cannot synchronize {str(source.top)!r} with {str(destination.top)!r}: {one!r} and {other!r} seem to"
                " be the same object (of the same path, size, time and ETag); expected two places apart"
            )


def _overlap(one: str, other: str) -> bool:
    """Return whether one directory is the other, or in it."""
    first, second = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return first.startswith(second) or second.startswith(first)


def _real_path(location: Location) -> str | None:
    path = path_on_disk(location)
    return None if path is None else os.path.realpath(path)


def path_on_disk(location: Location) -> str | None:
    """Return the path of what is on this machine's disks, mounts of them included; ``None`` for the rest."""
    if location.is_local:
        return location.path
    with resolve(location) as target:
        return target.path if target.on_this_machine else None


def take_out_misplaced(source: Tree, destination: Tree) -> list[Exception]:
    """Take out of `source` what cannot have its place at the destination; return an error for each."""
    problems: list[Exception] = []

    def refuse(name: str, why: str) -> None:
        del source.files[name]
        problems.append(
            ParameterError(f"{str(source.at(name))!r} has no place in {str(destination.top)!r} as {name!r}: {why}")
        )

    for name in list(source.files):
        try:
            if why := bad_name(name, on_disk=destination.on_disk):
                refuse(name, why)  # who wrote the source's names does not choose places on this machine
                continue
            parse(destination.at(name).url)
        except AcceleratorException as error:
            refuse(name, str(error))
    if not destination.on_disk:
        return problems
    files = [(name, str(source.at(name))) for name in source.files]
    for clash in clashes(files, source.directories, on_disk=True):
        problems.append(clash.error())
        del source.files[clash.name]
    folders = destination.folders()
    for name in list(source.files):
        in_the_way = next((one for one in (name, *above(name)) if one in destination.problems), None)
        if in_the_way is not None:
            refuse(name, str(destination.problems[in_the_way]))
        elif name in folders:
            refuse(name, "there is a directory of this name")
        elif (file := next((one for one in above(name) if one in destination.files), None)) is not None:
            refuse(name, f"{file!r} is a file there, and no directory")
    return problems
