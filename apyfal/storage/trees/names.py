"""Which names a tree's copy can have: what a disk cannot hold, and what two objects would share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from apyfal.exceptions import ParameterError
from apyfal.storage.mounting.table import resolve
from apyfal.storage.packed import Sorter
from apyfal.storage.url import parse, redact

__all__ = ["Folders", "above", "bad_name", "clashing", "has_directories"]


def has_directories(url: str) -> bool:
    """Whether directories at this place are real ones, which have to be made."""
    location = parse(url)
    if location.is_local:
        return True
    with resolve(location) as target:
        return target.is_hierarchical


def above(name: str) -> Iterator[str]:
    """Yield the paths of the directories that a path is in, the deepest first."""
    cut = name.rfind("/")
    while cut > 0:
        yield name[:cut]
        cut = name.rfind("/", 0, cut)


class Folders:
    """Directories to remove: each once, those that are in others before these."""

    def __init__(self) -> None:
        self._found: Sorter[tuple[Any, ...]] = Sorter(tuple, lambda row: row)
        self._added: set[str] = set()  # the ones that were added last: most files share them with the next

    def add(self, path: str) -> None:
        """Add a directory."""
        self._found.add((-len(path), path))

    def add_with_those_above(self, name: str, top: str = "") -> None:
        """Add a directory with all that it is in, up to `top` and without it."""
        every = {f"{top}/{one}" if top else one for one in (name, *above(name)) if one}
        for one in every - self._added:
            self.add(one)
        self._added = every

    def __iter__(self) -> Iterator[str]:
        last = None
        for _, path in self._found:
            if path != last:
                yield path
            last = path


def bad_name(name: str, *, on_disk: bool) -> str | None:
    """Say why a copy cannot have this name below its top; ``None`` if it can.

    Parameters
    ----------
    name
        Path below the top, as `apyfal.storage.api.tree.Item.name`.
    on_disk
        Whether directories are real ones there.
    """
    parts = name.split("/")
    if {".", ".."} & set(parts):
        return "it has a part '.' or '..'"
    if on_disk and "" in parts:
        return "it has an empty part, which a directory cannot hold"
    return None


def clashing(taken: dict[str, str], directories: Iterable[str]) -> list[Exception]:
    """Find names that would be a file and a directory on a disk, and take the files out of `taken`.

    Parameters
    ----------
    taken
        Name of each file below the top, to what becomes it.
    directories
        Names of empty directories.

    Returns
    -------
    list of Exception
        One for each file that was taken out.
    """
    needed = {one: one for one in directories}
    for name, source in taken.items():
        cut = name.rfind("/")
        while cut > 0 and name[:cut] not in needed:  # those above are there already
            needed[name[:cut]] = source
            cut = name.rfind("/", 0, cut)
    found: list[Exception] = []
    for name in sorted(needed.keys() & taken.keys()):
        source = taken.pop(name)
        found.append(
            ParameterError(
                f"{redact(source)!r}: a copy named {name!r} would be a file where {redact(needed[name])!r} needs a"
                " directory"
            )
        )
    return found
