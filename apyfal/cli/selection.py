"""Which objects a command's sources name (patterns, directories), and what each becomes at the destination."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, overload

from apyfal import storage
from apyfal.exceptions import AcceleratorException, InvalidURL, ObjectNotFound, ParameterError
from apyfal.storage.api.globbing import has_magic
from apyfal.storage.api.tree import Item, tree
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.mounting.table import resolve
from apyfal.storage.trees.names import bad_name, clashing, has_directories
from apyfal.storage.url import Location, parse, redact

__all__ = ["Pair", "Selection", "matches", "parent_of", "select"]

#: Cannot be listed, and their addresses have a ``?`` of their own.
_WEB = ("http", "https")
#: Objects that are looked up at once.
_SIDE_BY_SIDE = 8


class Pair(NamedTuple):
    """One object to copy, and where to."""

    source: str
    destination: str


class _Pairs(Sequence[Pair]):
    """Pairs that are made when they are asked for: their texts take as much memory as all that is kept of an object."""

    def __init__(self, folder: str, names: list[str], locations: list[tuple[Location, Location]]) -> None:
        self._folder = folder
        self._names = names
        self._locations = locations

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return Pair(self._locations[index][0].url, self._folder + self._names[index])


class Selection(NamedTuple):
    """What a command's sources name.

    Attributes
    ----------
    pairs
        The objects to copy, and where to.
    locations
        The same, parsed.
    sizes
        Their sizes in bytes, from listings; ``None``: not known.
    folders
        Empty directories, which are made at a destination that has directories.
    marks
        Directories that are only marked by empty objects, which are made at a destination without directories.
    left
        What is no file and left where it is (broken links, pipes), each as the error that says why.
    problems
        What has no place at the destination, or shares it with another, each as the error that says why.
    """

    pairs: Sequence[Pair]
    locations: list[tuple[Location, Location]]
    sizes: list[int | None]
    folders: list[str]
    marks: list[str]
    left: list[Exception]
    problems: list[Exception]


def matches(url: str) -> list[str] | None:
    """List what matches a pattern; ``None`` if `url` is no pattern, or the name of something that is there.

    Raises
    ------
    ObjectNotFound
        Nothing matches.
    """
    if not has_magic(url) or parse(url).scheme in _WEB or storage.exists(url):
        return None
    found = storage.glob(url)
    if not found:
        raise ObjectNotFound(f"nothing matches {url!r}", path=url)
    return found


def select(sources: Sequence[str], destination: str, *, recursive: bool, follow_links: bool = True) -> Selection:
    """Pair each object that the sources name with its place at the destination.

    Parameters
    ----------
    sources
        URLs, paths or patterns; directories if `recursive`.
    destination
        A directory if there are several sources, or a pattern or a directory among them, or if it ends in ``/`` or is
        a local directory; otherwise the copy's own name.
    recursive
        Whether directories count, with everything below them.
    follow_links
        Whether links to local directories are followed.

    Raises
    ------
    ObjectNotFound
        Nothing matches a pattern, or nothing is in a directory's place.
    ParameterError
        A pattern matches directories alone, or a source is an object and a directory.
    """
    items: list[Item] = []
    into = len(sources) > 1 or destination.endswith("/") or _is_local_directory(destination)
    for source in sources:
        found = matches(source)
        into = into or found is not None
        named = [source] if found is None else found
        look = recursive or found is not None
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
            infos = list(threads.map(_looked_up, named)) if look else [None]
            both = list(threads.map(_has_more_below, named)) if recursive else [False] * len(named)
        for one, info, is_both in zip(named, infos, both, strict=True):
            if isinstance(info, Exception):
                if found is None:
                    raise info
                items.append(Item(parse(one), _name(one), info))
                continue
            is_directory = info is not None and info.is_directory
            if not is_directory:
                if is_both and found is None:
                    raise ParameterError(
                        f"{redact(one)!r} is an object and a directory: expected {redact(one) + '/'!r} for what is "
                        "below it, or no -r for the object"
                    )
                items.append(Item(parse(one), _name(one), info=info))
            if recursive and (is_directory or is_both):  # without, a pattern means the objects among what matches
                into = True
                top = parse(one + "/" if is_both else one)
                items += list(tree(top, follow_links=follow_links)) or [Item(top, "", is_directory=True)]
        if (
            found is not None
            and not recursive
            and all(isinstance(one, ObjectInfo) and one.is_directory for one in infos)
        ):
            raise ParameterError(f"{source!r} matches directories alone: -r copies what is below them")
    if not into:
        only = items[0].location
        return Selection([Pair(only.url, destination)], [(only, parse(destination))], [None], [], [], [], [])
    return _placed(items, destination)


def _placed(items: list[Item], destination: str) -> Selection:
    """Give each item its place; what has none, or shares it with another, is a problem. It empties the list."""
    folder = destination if destination.endswith("/") else f"{destination}/"
    on_disk = has_directories(destination)
    folders: list[str] = []
    marks: list[str] = []
    left: list[Exception] = []
    problems: list[Exception] = []
    taken: dict[str, str] = {}
    found: dict[str, tuple[Location, Location, int | None]] = {}
    items.reverse()
    while items:  # what a listing says of an object takes more memory than all that is kept of it
        item = items.pop()
        source = item.location.url
        if item.problem is not None:
            left.append(item.problem)
            continue
        if item.is_directory:
            if not on_disk:
                # of empty directories, a store has those that an object marks
                if _is_marked(item):
                    marks.append(f"{folder}{item.name}/" if item.name else folder)
                continue
            if not item.name or not bad_name(item.name, on_disk=True):
                folders.append(folder + item.name)
                continue
        try:
            if bad := bad_name(item.name, on_disk=on_disk):
                # who wrote the source's names does not choose places on this machine
                raise InvalidURL(
                    f"{redact(source)!r}: a copy named {item.name!r} would not be in {destination!r}: {bad}"
                )
            place = parse(folder + item.name)
            if taken.setdefault(item.name, source) != source:
                both = f"{redact(taken[item.name])!r} and {redact(source)!r}"
                raise ParameterError(f"{both} would both become {item.name!r} in {destination!r}")
            if item.name not in found or item.info is not None:
                found[item.name] = item.location, place, None if item.info is None else item.info.size
        except (AcceleratorException, OSError) as error:
            problems.append(error)
    if on_disk:
        problems += clashing(taken, [one.removeprefix(folder) for one in folders])
    names = list(taken)
    del taken
    chosen = [found[name] for name in names]
    del found
    locations = [(location, place) for location, place, _ in chosen]
    return Selection(
        _Pairs(folder, names, locations),
        locations,
        [size for _, _, size in chosen],
        folders,
        marks,
        left,
        problems,
    )


def _is_marked(item: Item) -> bool:
    """Whether an empty directory is there in a store by an object that marks it."""
    if item.location.is_local:
        return False
    with resolve(item.location) as target:
        return not target.is_hierarchical and target.above_objects is None


def parent_of(url: str) -> str:
    """Return the directory of a copy; empty if it is the top of a store, which is there."""
    location = parse(url)
    folder = location.path.rpartition("/")[0]
    if location.is_local:
        return os.path.dirname(location.path)
    return f"{location.scheme}://{folder}" if folder.strip("/") else ""


def _is_local_directory(url: str) -> bool:
    location = parse(url)
    return location.is_local and os.path.isdir(location.path)


def _looked_up(url: str) -> ObjectInfo | Exception:
    try:
        return storage.stat(url)
    except AcceleratorException as error:
        return error


def _has_more_below(url: str) -> bool:
    """Whether there is also something below what may be an object."""
    location = parse(url)
    if location.is_local or location.scheme in _WEB or location.path.endswith("/"):
        return False
    with resolve(location) as target:
        if target.is_hierarchical or target.above_objects is not None:
            return False
        return retry_call(
            target.handler,
            lambda: next(iter(target.handler.list(target.path)), None) is not None,
            f"cannot list {url!r}",
        )


def _name(url: str) -> str:
    location = parse(url)
    path = location.path.partition("?")[0] if location.scheme in _WEB else location.path
    return path.rstrip("/").rpartition("/")[2]
