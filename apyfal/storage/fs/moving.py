"""Move files and trees of the filesystem, never losing both the source and its copy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from glob import has_magic
from typing import Any

from apyfal.exceptions import NotADirectory, ObjectChanged, ObjectNotFound, ParameterError
from apyfal.storage.api.tree import require_removable
from apyfal.storage.batch.many import remove_listed, stat_each
from apyfal.storage.endpoints.factory import open_sink
from apyfal.storage.fs.contents import Contents, first_error
from apyfal.storage.fs.names import ends_in_slash, is_link
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.mounting.table import resolve
from apyfal.storage.url import Location, parse, redact

__all__ = ["Moves"]


class Moves(Contents):
    """The functions that move; they run in the calling thread."""

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Move files, and with `recursive` directories: everything is copied, then what was copied is removed.

        Nothing is moved to where another file of the move is or goes, nor into a directory that is moved itself. If a
        file changes meanwhile, nothing is removed; what appears meanwhile stays. With `maxdepth`, what is deeper stays,
        and so do the directories.
        """
        if path1 == path2:
            return  # as fsspec
        for path in path1 if isinstance(path1, list) else [path1]:
            self._require_movable(path, recursive)
        plan = _Plan(asynchronous=True, skip_instance_cache=True)
        plan.copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise")
        if not plan.files and not plan.directories:
            self._rm_files(self.expand_path(path1, maxdepth=maxdepth))  # says why there is nothing to move
            return
        for folder, _ in plan.directories:
            if not is_link(folder):
                require_removable(parse(folder))
        pairs = [(parse(one), parse(other)) for one, other in plan.files]
        before = stat_each([one for one, _ in pairs])
        first_error(before)
        _require_apart(pairs, before, [parse(one) for one, _ in plan.directories])
        self.copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise")
        for _, folder in plan.directories:
            if not self.exists(folder):  # an empty one in a store, which its mark stands for
                with open_sink(folder + "/", 0):
                    pass
        for (one, other), old, new in zip(pairs, before, stat_each([one for one, _ in pairs]), strict=True):
            if _state(old) != _state(new):
                raise ObjectChanged(
                    f"{str(one)!r} was written to while it was moved to {str(other)!r}: nothing was removed"
                )
        self._remove_moved(plan, maxdepth is None)

    def _require_movable(self, path: Any, recursive: bool) -> None:
        """Refuse a path that ends in ``/`` and is that of a file, or of a file and of a directory."""
        if not ends_in_slash(path) or has_magic(self._strip_protocol(path)):
            return
        if not recursive:
            self._of_file(path, "move")
        if self.isfile(path):
            raise NotADirectory(
                f"cannot move {redact(self._strip_protocol(path)) + '/'!r}: there is a file of this name; expected it"
                " without the '/'"
            )

    def _remove_moved(self, plan: _Plan, whole: bool) -> None:
        """Remove what was copied: of links the links, and nothing that they lead to."""
        links = {one for one, _ in plan.directories if is_link(one)}
        files = [one for one, _ in plan.files if not links.intersection(_above(one))]
        directories = {one for one, _ in plan.directories} - links
        first_error(remove_listed([parse(one) for one in (*files, *(one for one in links if whole))]))
        for one in sorted(directories, reverse=True):
            if whole and not links.intersection(_above(one)):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a directory that is only names
                    self.rmdir(one)


class _Plan(Contents):
    """Says which files a copy would copy, and which directories it would make."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.files: list[tuple[str, str]] = []
        self.directories: list[tuple[str, str]] = []

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Note what would be copied."""
        path1 = self._strip_protocol(path1)
        if self.isdir(path1):
            self.directories.append((path1, self._strip_protocol(path2)))
        else:
            self.files.append((path1, self._of_file(path2, "write")))


def _require_apart(pairs: list[tuple[Location, Location]], before: list[Any], directories: Iterable[Location]) -> None:
    """Refuse destinations that are sources, that are inside of a directory to be moved, or that two files have."""
    taken = {_place(one) for one, _ in pairs}
    folders = {_place(one) for one in directories}
    for one, other in pairs:
        place = _place(other)
        if place in taken:
            raise ParameterError(
                f"cannot move {str(one)!r} to {str(other)!r}: another file of the move is there, or goes there"
            )
        taken.add(place)
        store, path = place
        if any((store, above) in folders for above in _above(path)):
            raise ParameterError(f"cannot move {str(one)!r} to {str(other)!r}, inside of a directory that is moved")
    there = stat_each([other for _, other in pairs])
    for (one, other), old, new in zip(pairs, before, there, strict=True):
        if isinstance(new, Exception) and not isinstance(new, (ObjectNotFound, NotADirectory)):
            raise new
        if _state(old) == _state(new):
            raise ParameterError(
                f"cannot move: {str(one)!r} and {str(other)!r} seem to be the same object (of the same size, time and"
                " ETag)"
            )


def _above(path: str) -> Iterator[str]:
    """Yield the directories that a path is below, from the nearest on."""
    while (path := path.rpartition("/")[0]).strip("/"):
        yield path.rstrip("/")


def _place(location: Location) -> tuple[str, str]:
    """Return what tells files apart: the store and the path in it; of local files, without links on the way."""
    if not location.is_local:
        with resolve(location) as target:
            if not target.on_this_machine:
                return str(id(target.handler)), target.path.rstrip("/")
            path = target.path
    else:
        path = location.path
    folder, name = os.path.split(path.rstrip("/"))
    return "", os.path.join(os.path.realpath(folder), name)


def _state(info: Any) -> Any:
    return (info.size, info.etag, info.mtime, info.version) if isinstance(info, ObjectInfo) else info
