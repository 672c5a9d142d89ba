"""Which objects a command's sources name (patterns, directories), and what each becomes at the destination."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from apyfal import storage
from apyfal.exceptions import InvalidURL, ObjectNotFound, ParameterError
from apyfal.storage.api.globbing import has_magic
from apyfal.storage.api.namespace import child
from apyfal.storage.url import parse, redact

__all__ = ["Pair", "matches", "pairs"]

#: Cannot be listed, and their addresses have a ``?`` of their own.
_WEB = ("http", "https")
#: Objects that are looked up at once.
_SIDE_BY_SIDE = 8


class Pair(NamedTuple):
    """One object to copy, and where to."""

    source: str
    destination: str


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


def pairs(sources: Sequence[str], destination: str, *, recursive: bool) -> list[Pair]:
    """Pair each object that the sources name with its place at the destination.

    Parameters
    ----------
    sources
        URLs, paths or patterns; directories if `recursive`.
    destination
        A directory where there are several sources, or a pattern or a directory among them, or where it ends in ``/``
        or is a local directory; otherwise the copy's own name.
    recursive
        Whether directories count, with everything below them.

    Raises
    ------
    ObjectNotFound
        Nothing matches a pattern, or nothing is in a directory's place.
    ParameterError
        Two objects would have the same name at the destination, or a pattern matches directories alone.
    InvalidURL
        An object's name leads out of the destination.
    """
    chosen: list[tuple[str, str]] = []  # objects, and their names below the destination
    into = len(sources) > 1 or destination.endswith("/") or _is_local_directory(destination)
    for source in sources:
        found = matches(source)
        into = into or found is not None
        named = [source] if found is None else found
        look = recursive or found is not None
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
            directories = list(threads.map(_is_directory, named)) if look else [False]
        for one, is_directory in zip(named, directories, strict=True):
            if not is_directory:
                chosen.append((one, _name(one)))
            elif recursive:  # without, a pattern means the objects among what matches
                into = True
                chosen += _below(one)
        if found is not None and not recursive and all(directories):
            raise ParameterError(f"{source!r} matches directories alone: -r copies what is below them")
    if not into:
        return [Pair(source, destination) for source, _ in chosen]
    folder = destination if destination.endswith("/") else f"{destination}/"
    taken: dict[str, str] = {}
    for source, name in chosen:
        if {".", ".."} & set(name.split("/")):  # who wrote the source's names does not choose places on this machine
            raise InvalidURL(f"{redact(source)!r}: a copy named {name!r} would not be in {destination!r}")
        if taken.setdefault(name, source) != source:
            both = f"{redact(taken[name])!r} and {redact(source)!r}"
            raise ParameterError(f"{both} would both become {name!r} in {destination!r}")
    return [Pair(source, folder + name) for name, source in taken.items()]


def _is_local_directory(url: str) -> bool:
    location = parse(url)
    return location.is_local and os.path.isdir(location.path)


def _is_directory(url: str) -> bool:
    return storage.stat(url).is_directory


def _name(url: str) -> str:
    location = parse(url)
    path = location.path.partition("?")[0] if location.scheme in _WEB else location.path
    return path.rstrip("/").rpartition("/")[2]


def _below(folder: str) -> Iterator[tuple[str, str]]:
    top = None
    for url, _, names in storage.walk(folder):
        place = parse(url)
        path = place.path.rstrip("/")
        top = path if top is None else top
        for name in names:
            yield child(place, name).url, f"{path}/{name}"[len(top) :].lstrip("/")
