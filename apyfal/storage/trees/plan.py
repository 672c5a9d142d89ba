"""The plan of a synchronization: two trees, read side by side, name by name."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

from apyfal.storage.handler import ObjectInfo
from apyfal.storage.packed import Packed, Sorter
from apyfal.storage.trees.comparing import differs
from apyfal.storage.trees.names import Clash, above
from apyfal.storage.trees.sides import DIRECTORY, FILE, PROBLEM, Tree, TreeEntry, no_place

__all__ = ["SyncPlan", "Work", "make_plan"]


class Work(NamedTuple):
    """A file to copy or to compare: its entry in the source's listing, and that of the file in its place, if any."""

    name: str
    size: int | None
    etag: str | None
    mtime: float | None
    exists: bool
    existing_size: int | None = None
    existing_etag: str | None = None
    existing_mtime: float | None = None

    @property
    def source(self) -> ObjectInfo:
        """The file at the source."""
        return ObjectInfo(self.name, self.size, self.etag, self.mtime)

    @property
    def existing(self) -> ObjectInfo | None:
        """The file at the destination; ``None``: there is none."""
        return (
            ObjectInfo(self.name, self.existing_size, self.existing_etag, self.existing_mtime) if self.exists else None
        )


class SyncPlan:
    """What a synchronization has to do.

    Attributes
    ----------
    work
        Files that differ by what the listings say, or all of them if contents are compared.
    same
        How many files do not differ.
    total
        Bytes of the files that differ; ``None`` if one of them has no known size, or if contents are compared.
    folders
        Empty directories of the source.
    problems
        An error for each file or directory that cannot exist at the destination.
    extra
        Files that only the destination has, if they are to be deleted.
    emptied
        Directories of the destination that lose all their content, the deepest first: minus the length of the path,
        the path, and whether it was empty before.
    empty
        How many of these were empty before.
    """

    def __init__(self) -> None:
        self.work: Packed[Work] = Packed(Work._make)
        self.same = 0
        self.total: int | None = 0
        self.folders: Packed[tuple[str, ...]] = Packed(tuple)
        self.problems: list[Exception] = []
        self.extra: Packed[tuple[str, ...]] = Packed(tuple)
        self.emptied: Sorter[tuple[Any, ...]] = Sorter(tuple, lambda row: row)
        self.empty = 0


def make_plan(source: Tree, destination: Tree, *, checksum: bool, delete: bool) -> SyncPlan:
    """Compare the listings of source and destination.

    Parameters
    ----------
    source, destination
        Their listings.
    checksum
        Whether contents are compared.
    delete
        Whether what only the destination has is to be deleted.
    """
    plan = SyncPlan()
    if checksum:
        plan.total = None
    sources, destinations = _Names(one for one in source if one.kind != PROBLEM), _Names(destination)
    in_the_way = _InTheWay(destination)
    directories = _Directories(plan) if delete and destination.on_disk else None
    while (name := _next_name(sources, destinations)) is not None:
        one, other = sources.take(name), destinations.take(name)
        in_the_way.enter(name, other)
        file = one.get(FILE)
        if file is not None and destination.on_disk:
            error = _misplaced(source, destination, file, one, other, sources, destinations, in_the_way)
            if error is not None:
                plan.problems.append(error)
                file = None
        if DIRECTORY in one:
            why = in_the_way.reason(name, is_directory=True) if destination.on_disk else None
            if why is None:
                plan.folders.append((name,))
            else:
                plan.problems.append(no_place(source, destination.top, name, why))
        if file is not None:
            _compare(plan, file, other.get(FILE), checksum=checksum, keeps_time=destination.top.is_local)
        elif delete and FILE in other:
            plan.extra.append((name,))
        if directories is not None:
            directories.enter(name, DIRECTORY in one, DIRECTORY in other)
            if file is not None:
                directories.keep()
            elif FILE in other:
                directories.lose()
    if directories is not None:
        directories.close("")
    return plan


def _compare(plan: SyncPlan, file: TreeEntry, existing: TreeEntry | None, *, checksum: bool, keeps_time: bool) -> None:
    work = Work(file.name, file.size, file.etag, file.mtime, existing is not None)
    if existing is not None:
        work = work._replace(existing_size=existing.size, existing_etag=existing.etag, existing_mtime=existing.mtime)
    if (
        not checksum
        and work.existing is not None
        and differs(work.source, work.existing, keeps_time=keeps_time) is None
    ):
        plan.same += 1
        return
    plan.work.append(work)
    plan.total = None if plan.total is None or file.size is None else plan.total + file.size


class _Names:
    """The entries of a tree, name by name, with a look at the next name.

    Attributes
    ----------
    name, parts
        The next name, and its parts; ``None``: there is no more.
    """

    def __init__(self, entries: Iterable[TreeEntry]) -> None:
        self._groups = groupby(entries, lambda entry: entry.name)
        self._next()

    def _next(self) -> None:
        name, entries = next(self._groups, (None, ()))
        self.name: str | None = name
        self.parts = None if name is None else name.split("/")
        self._entries = {entry.kind: entry for entry in entries}

    def take(self, name: str) -> dict[int, TreeEntry]:
        """Return the entries of this name by their kinds, if it is the next, and go on."""
        if name != self.name:
            return {}
        found = self._entries
        self._next()
        return found

    def is_below(self, name: str) -> bool:
        """Whether the next name is in a directory of this name."""
        return self.name is not None and self.name.startswith(f"{name}/")

    @property
    def is_directory(self) -> bool:
        """Whether the next name is that of an empty directory alone."""
        return FILE not in self._entries


def _next_name(one: _Names, other: _Names) -> str | None:
    """Return the next name of the two trees; ``None``: there is no more."""
    if one.parts is None or (other.parts is not None and other.parts < one.parts):
        return other.name
    return one.name


class _InTheWay:
    """What is not a directory at the destination, of the paths that the present one is in, and of itself."""

    def __init__(self, destination: Tree) -> None:
        self._destination = destination
        self._stack: list[tuple[str, bool]] = []

    def enter(self, name: str, entries: dict[int, TreeEntry]) -> None:
        """Go on to the next name; the entries are those of the destination."""
        while self._stack and not name.startswith(f"{self._stack[-1][0]}/"):
            self._stack.pop()
        if PROBLEM in entries or FILE in entries:
            self._stack.append((name, PROBLEM in entries))

    def reason(self, name: str, *, is_directory: bool) -> str | None:
        """Say why the present name can be no file, or no directory; ``None``: nothing is in the way."""
        for path, is_problem in self._stack[::-1]:
            if is_problem:
                return str(self._destination.problems[path])
        for path, _ in self._stack[::-1]:
            if path != name:
                return f"{path!r} is a file there, and no directory"
            if is_directory:
                return "there is a file of this name"
        return None


def _misplaced(
    source: Tree,
    destination: Tree,
    file: TreeEntry,
    one: dict[int, TreeEntry],
    other: dict[int, TreeEntry],
    sources: _Names,
    destinations: _Names,
    in_the_way: _InTheWay,
) -> Exception | None:
    """Return the error for a file that cannot have its place on a disk; `one` and `other` are those of its name."""
    name = file.name
    if DIRECTORY in one or sources.is_below(name):
        needs = name if DIRECTORY in one or sources.name is None else sources.name
        if DIRECTORY not in one and not sources.is_directory:
            needs = str(source.at(needs))
        return Clash(0, name, str(source.at(name)), needs, is_name_shared=False).error()
    why = in_the_way.reason(name, is_directory=False)
    if why is None and (DIRECTORY in other or destinations.is_below(name)):
        why = "there is a directory of this name"
    return None if why is None else no_place(source, destination.top, name, why)


class _Directory:
    """A directory of the destination or the source, while its names are read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_kept = self.loses = self.was_empty = False


class _Directories:
    """Finds the directories of the destination that lose all that is in them."""

    def __init__(self, plan: SyncPlan) -> None:
        self._plan = plan
        self._open: list[_Directory] = [_Directory("")]

    def enter(self, name: str, is_source: bool, is_destination: bool) -> None:
        """Go on to the next name; say whether it is an empty directory of the source, or of the destination."""
        self.close(name)
        wanted = [*above(name)][::-1]
        if is_source or is_destination:
            wanted.append(name)
        for one in wanted:
            if len(one) > len(self._open[-1].name):
                self._open.append(_Directory(one))
        if is_source:
            self.keep()
        if is_destination:
            self.lose()
            self._open[-1].was_empty = True

    def keep(self) -> None:
        """Note a file that stays, or comes."""
        self._open[-1].is_kept = True

    def lose(self) -> None:
        """Note a file that goes."""
        self._open[-1].loses = True

    def close(self, name: str) -> None:
        """Close the directories that this name is not in; all of them if it is empty."""
        while len(self._open) > 1 and not name.startswith(f"{self._open[-1].name}/"):
            ended = self._open.pop()
            self._open[-1].is_kept |= ended.is_kept
            self._open[-1].loses |= ended.loses
            if ended.loses and not ended.is_kept:
                self._plan.emptied.add((-len(ended.name), ended.name, ended.was_empty))
                self._plan.empty += ended.was_empty
