"""Which objects a command's sources name (patterns, directories), and what each becomes at the destination."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from apyfal import storage
from apyfal.exceptions import AcceleratorException, InvalidURL, ObjectNotFound, ParameterError
from apyfal.storage.api.globbing import has_magic
from apyfal.storage.api.tree import Item, tree
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.mounting.table import resolve
from apyfal.storage.packed import Packed
from apyfal.storage.trees.names import bad_name, clashes, has_directories
from apyfal.storage.url import Location, parse, redact

__all__ = ["Block", "Pair", "Selection", "matches", "parent_of", "select"]

#: Cannot be listed, and their addresses have a ``?`` of their own.
_WEB = ("http", "https")
#: Objects that are looked up at once.
_SIDE_BY_SIDE = 8
#: Objects that are looked up, or copied, before the next ones are taken into memory.
_BLOCK = 8 << 10


class Pair(NamedTuple):
    """One object to copy, and where to."""

    source: str
    destination: str


class _Row(NamedTuple):
    """What is kept of an object: the parts of its location, the name of its copy, and its size in bytes if known."""

    scheme: str
    path: str
    name: str
    size: int | None = None


class _Found(NamedTuple):
    """What is kept of an item until all are known."""

    scheme: str
    path: str
    name: str
    size: int | None
    is_directory: bool


class Block(NamedTuple):
    """Some objects to copy.

    Attributes
    ----------
    first
        Number of the first of them.
    pairs
        The objects, and where to.
    locations
        The same, parsed.
    sizes
        Their sizes in bytes, from listings; ``None``: not known.
    is_placed
        Whether `pairs` has the very names of the copies. If not, the copy goes into a directory of this name.
    """

    first: int
    pairs: list[Pair]
    locations: list[tuple[Location, Location]]
    sizes: list[int | None]
    is_placed: bool


class Selection:
    """What a command's sources name.

    Attributes
    ----------
    folders
        Empty directories, which are made at a destination that has directories.
    marks
        Directories that are only marked by empty objects, which are made at a destination without directories.
    left
        What is not a file and is left where it is (broken links, pipes), each as the error that says why.
    problems
        What has no place at the destination, or shares it with another, each as the error that says why.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._is_placed = True
        self._rows: Packed[_Row] = Packed(_Row._make)
        self._folders: Packed[tuple[str, ...]] = Packed(tuple)
        self._marks: Packed[tuple[str, ...]] = Packed(tuple)
        self.left: list[Exception] = []
        self.problems: list[Exception] = []

    def __len__(self) -> int:
        """Return the number of objects to copy."""
        return len(self._rows)

    @property
    def folders(self) -> Iterator[str]:
        """Names of empty directories at the destination."""
        return (self._folder + name for (name,) in self._folders)

    @property
    def marks(self) -> Iterator[str]:
        """URLs of marks at the destination."""
        return (self._folder + name for (name,) in self._marks)

    @property
    def sizes(self) -> Iterator[int | None]:
        """Sizes of the objects in bytes; ``None``: not known."""
        return (row.size for row in self._rows)

    @property
    def pairs(self) -> Iterator[Pair]:
        """The objects, and where to."""
        return map(self._pair, self._rows)

    def blocks(self) -> Iterator[Block]:
        """Yield the objects, some thousands at a time."""
        rows, first = iter(self._rows), 0
        while some := list(islice(rows, _BLOCK)):
            pairs = [self._pair(row) for row in some]
            places = [(Location(row.scheme, row.path), parse(self._folder + row.name)) for row in some]
            yield Block(first, pairs, places, [row.size for row in some], self._is_placed)
            first += len(some)

    def place(self, found: Iterable[_Found], destination: str, *, distinct: bool) -> None:
        """Give each item its place; what has none, or shares it with another, is a problem.

        Parameters
        ----------
        found
            The items.
        destination
            As the user wrote it.
        distinct
            Whether all names are known to differ.
        """
        on_disk = has_directories(destination)
        refused: list[tuple[int, Exception]] = []
        for item in found:
            if item.is_directory and not on_disk:
                # of empty directories, a store has those that an object marks
                if _is_marked(Location(item.scheme, item.path)):
                    self._marks.append((f"{item.name}/" if item.name else "",))
                continue
            if item.is_directory and (not item.name or not bad_name(item.name, on_disk=True)):
                self._folders.append((item.name,))
                continue
            try:
                if bad := bad_name(item.name, on_disk=on_disk):
                    # who wrote the source's names does not choose places on this machine
                    source = redact(Location(item.scheme, item.path).url)
                    raise InvalidURL(f"{source!r}: a copy named {item.name!r} would not be in {destination!r}: {bad}")
                parse(self._folder + item.name)
                self._rows.append(_Row(item.scheme, item.path, item.name, item.size))
            except (AcceleratorException, OSError) as error:
                refused.append((len(self._rows), error))
        if on_disk or not distinct:
            refused += self._take_out(destination, on_disk=on_disk)
        self.problems += [error for _, error in sorted(refused, key=lambda one: one[0])]

    def _take_out(self, destination: str, *, on_disk: bool) -> Iterator[tuple[int, Exception]]:
        """Leave out what clashes with others; yield a number to sort by and the error of each."""
        out = bytearray(len(self._rows))
        files = ((row.name, Location(row.scheme, row.path).url) for row in self._rows)
        misplaced: list[Exception] = []
        for clash in clashes(files, (name for (name,) in self._folders), on_disk=on_disk):
            out[clash.number] = True
            if not clash.is_name_shared:
                misplaced.append(clash.error())
            elif clash.source != clash.other:
                both = f"{redact(clash.other)!r} and {redact(clash.source)!r}"
                yield clash.number, ParameterError(f"{both} would both become {clash.name!r} in {destination!r}")
        yield from ((len(out) + 1, error) for error in misplaced)
        if any(out):
            rows: Packed[_Row] = Packed(_Row._make)
            rows.extend(row for row, is_out in zip(self._rows.drain(), out, strict=True) if not is_out)
            self._rows = rows

    def name_alone(self, source: Location) -> None:
        """Take one object, whose copy has the name of the destination."""
        self._rows.append(_Row(source.scheme, source.path, ""))
        self._is_placed = False

    def _pair(self, row: _Row) -> Pair:
        return Pair(Location(row.scheme, row.path).url, self._folder + row.name)


def matches(url: str) -> list[str] | None:
    """List what matches a pattern; ``None`` if `url` is not a pattern, or the name of something that is there.

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
    into = len(sources) > 1 or destination.endswith("/") or _is_local_directory(destination)
    items = _Items(recursive, follow_links)
    for source in sources:
        items.take(source)
    if not into and not items.into:
        alone = Selection(destination)
        alone.name_alone(items.first)
        return alone
    selected = Selection(destination if destination.endswith("/") else f"{destination}/")
    selected.left += items.problems
    selected.place(items.found.drain(), destination, distinct=len(sources) == 1 and not items.matched)
    return selected


class _Items:
    """What the sources name, one source after the other.

    Attributes
    ----------
    found
        The objects and empty directories.
    problems
        Of what is neither.
    into
        Whether the destination must be a directory.
    matched
        Whether there was a pattern.
    """

    def __init__(self, recursive: bool, follow_links: bool) -> None:
        self._recursive = recursive
        self._follow_links = follow_links
        self.found: Packed[_Found] = Packed(_Found._make)
        self.problems: list[Exception] = []
        self.into = self.matched = False
        self.first = Location("file", "")

    def take(self, source: str) -> None:
        """Look a source up, and add what it names; see `select` for the errors."""
        found = matches(source)
        is_pattern = found is not None
        if is_pattern:
            self.into = self.matched = True
        named = [source] if found is None else found
        look = self._recursive or is_pattern
        only_directories = True
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
            for begin in range(0, len(named), _BLOCK):
                some = named[begin : begin + _BLOCK]
                infos = list(threads.map(_looked_up, some)) if look else [None] * len(some)
                both = list(threads.map(_has_more_below, some)) if self._recursive else [False] * len(some)
                for one, info, is_both in zip(some, infos, both, strict=True):
                    only_directories &= isinstance(info, ObjectInfo) and info.is_directory
                    self._take(one, info, is_both=is_both, is_pattern=is_pattern)
        if is_pattern and not self._recursive and only_directories:
            raise ParameterError(f"{source!r} matches directories alone: -r copies what is below them")

    def _take(self, one: str, info: ObjectInfo | Exception | None, *, is_both: bool, is_pattern: bool) -> None:
        if isinstance(info, Exception):
            if not is_pattern:
                raise info
            self.problems.append(info)
            return
        is_directory = info is not None and info.is_directory
        if not is_directory:
            if is_both and not is_pattern:
                raise ParameterError(
                    f"{redact(one)!r} is an object and a directory: expected {redact(one) + '/'!r} for what is below"
                    " it, or no -r for the object"
                )
            self._add(Item(parse(one), _name(one), info=info))
        if self._recursive and (is_directory or is_both):  # without, a pattern means the objects among what matches
            self.into = True
            top = parse(one + "/" if is_both else one)
            empty = True
            for item in tree(top, follow_links=self._follow_links, sizes_only=True):
                empty = False
                self._add(item)
            if empty:
                self._add(Item(top, "", is_directory=True))

    def _add(self, item: Item) -> None:
        if item.problem is not None:
            self.problems.append(item.problem)
            return
        if not self.found:
            self.first = item.location
        size = None if item.info is None else item.info.size
        self.found.append(_Found(item.location.scheme, item.location.path, item.name, size, item.is_directory))


def _is_marked(directory: Location) -> bool:
    """Whether an empty directory is there in a store by an object that marks it."""
    if directory.is_local:
        return False
    with resolve(directory) as target:
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
