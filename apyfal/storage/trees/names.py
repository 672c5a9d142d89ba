"""Which names the copies of a tree can have: not those that a disk cannot hold, or that two objects would share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from apyfal.exceptions import ParameterError
from apyfal.storage.mounting.table import resolve
from apyfal.storage.packed import Sorter
from apyfal.storage.url import parse, redact

__all__ = ["Clash", "Folders", "above", "bad_name", "clashes", "has_directories"]


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
    """Directories to remove, each once; subdirectories come before their parents."""

    def __init__(self) -> None:
        self._found: Sorter[tuple[Any, ...]] = Sorter(tuple, lambda row: row)
        self._added: set[str] = set()  # the last ones added: most files share them with the next file

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


class Clash(NamedTuple):
    """A file that cannot have its name.

    Attributes
    ----------
    number
        Which of the files it is.
    name
        Its path below the top.
    source
        What would become it.
    other
        What becomes a file of the same name, or needs a directory of this name.
    is_name_shared
        Which of the two it is.
    """

    number: int
    name: str
    source: str
    other: str
    is_name_shared: bool

    def error(self) -> ParameterError:
        """Return the error for a file where another one needs a directory."""
        return ParameterError(
            f"{redact(self.source)!r}: a copy named {self.name!r} would be a file where {redact(self.other)!r} needs a"
            " directory"
        )


def clashes(files: Iterable[tuple[str, str]], directories: Iterable[str], *, on_disk: bool) -> Iterator[Clash]:
    """Find files that have the name of an earlier one and, on a disk, files that would also have to be directories.

    A file that occurs twice with the same source is such a clash, too: of the source with itself.

    Parameters
    ----------
    files
        Name of each file below the top, and what becomes it.
    directories
        Names of empty directories.
    on_disk
        Whether directories are real ones there.
    """
    # name by name, what is below a directory follows it at once: "a", "a/b", "a-"
    sorter: Sorter[tuple[Any, ...]] = Sorter(tuple, lambda row: row[0].split("/"))
    for number, (name, source) in enumerate(files):
        sorter.add((name, number, source))
    if on_disk:
        for name in directories:
            sorter.add((name, -1, name))
    file, number, source, found = "", -1, "", True
    for name, place, other in sorter:
        if place >= 0 and number >= 0 and name == file:
            yield Clash(place, name, other, source, is_name_shared=True)
            continue
        if on_disk and not found and (name == file or name.startswith(f"{file}/")):
            yield Clash(number, file, source, other, is_name_shared=False)
            found = True
        if place >= 0:
            file, number, source, found = name, place, other, False
