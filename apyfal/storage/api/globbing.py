"""Shell-style patterns over any storage URL."""

from __future__ import annotations

import glob as local_glob
import os
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

from apyfal.exceptions import AccessDenied, NotADirectory, ObjectNotFound
from apyfal.storage.api.namespace import child, exists_at, iter_entries, not_too_deep
from apyfal.storage.api.tree import tree
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.url import Location, parse

__all__ = ["glob", "has_magic", "part_expression"]

_MAGIC = re.compile(r"[*?\[]")
#: Where a path is cut into names: at a slash behind another character (see `apyfal.storage.api.namespace`).
_CUT = re.compile(r"(?<=[^/])/")


def has_magic(url: object) -> bool:
    """Whether there is a character of patterns in a URL's path."""
    return _MAGIC.search(parse(url).path) is not None


def glob(url: object) -> list[str]:
    """List what matches a pattern, as `glob.glob` with ``recursive=True``.

    Parameters
    ----------
    url
        A storage URL or path with ``*``, ``?``, ``[...]`` (not across ``/``) and ``**`` (any number of directories). A
        character of these in a name is written ``[*]``. Hidden names match only a part that begins with a dot.
        A final ``**`` finds what is below the directory; on local paths the directory itself, too, with a final ``/``,
        as `glob.glob` does. A final ``**/`` finds the directory and all those below, each with a ``/`` at its end.

    Returns
    -------
    list of str
        URLs or paths, as the pattern was given, sorted. Empty when nothing matches.

    Raises
    ------
    InvalidURL, AccessDenied, UnsupportedByStore, StorageError
        When a directory cannot be listed.
    """
    location = parse(url)
    if location.is_local:
        with not_too_deep(location):
            found = sorted(local_glob.glob(location.path, recursive=True))
            _check_listed(location.path)
        return found
    if not _MAGIC.search(location.path):
        return [location.url] if exists_at(location) else []
    return sorted({found.url for found in _matches(location)})


def _check_listed(pattern: str) -> None:
    """Raise for a directory of the pattern that may not be listed; `glob.glob` passes over it in silence."""
    parts = pattern.split("/")
    first = next((number for number, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    for number, part in enumerate(parts[first:], first):
        above = "/".join(parts[:number]) + "/" if number else "./"
        if part == "**":  # which lists all that it finds
            above += "**/"
        needed = os.X_OK | (os.R_OK if _MAGIC.search(part) else 0)
        for folder in local_glob.iglob(above, recursive=True) if _MAGIC.search(above) else [above]:
            if os.path.isdir(folder) and not os.access(folder, needed, effective_ids=True):
                raise AccessDenied(f"cannot list {folder!r}: permission denied", path=folder)


def _matches(location: Location) -> Iterator[Location]:
    parts = _CUT.split(location.path)
    fixed = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    base = Location(location.scheme, "/".join(parts[:fixed]))
    if "**" in parts:
        yield from _below(base, parts[fixed:])
    else:
        yield from _level(base, parts[fixed:])


def _level(base: Location, parts: list[str]) -> Iterator[Location]:
    """Match one part of the pattern after the other, listing only what can match."""
    pattern, rest = parts[0], parts[1:]
    candidates: list[tuple[str, ObjectInfo | None]] = [(pattern, None)]
    if _MAGIC.search(pattern):
        matching = re.compile(_expression([pattern]), re.DOTALL)
        candidates = [(name, info) for name, info in _listed(base) if matching.fullmatch(name)]
    for name, info in candidates:
        found = child(base, name)
        if not rest:
            if info is not None or exists_at(found):
                yield found
        elif info is None or info.is_directory:
            yield from _level(found, rest)


def _below(base: Location, parts: list[str]) -> Iterator[Location]:
    """Match the pattern against everything below; one that ends in ``/`` matches directories."""
    only_directories = not parts[-1]
    if only_directories:
        parts = parts[:-1]
    matching = re.compile(_expression(parts), re.DOTALL)
    found: set[str] = set()
    directories: set[str] = {""}
    empty = True
    # An error's traceback keeps what this function has, and the listing, if open, would keep the mount.
    with closing(tree(base, sizes_only=True)) as items:
        try:
            first = next(items, None)
        except (ObjectNotFound, NotADirectory):
            return
        for item in chain([] if first is None else [first], items):
            if item.problem is not None and item.is_directory:
                raise item.problem
            empty = False
            name = item.name.rstrip("/")  # of a mark, the directory
            if item.is_directory:
                directories.add(name)
            elif not only_directories and name and matching.fullmatch(name):
                found.add(name)
            directories.update(name[: cut.start()] for cut in _CUT.finditer(name))
    found.update(name for name in directories if matching.fullmatch(name))
    for name in found:
        if name or (only_directories and not empty):
            yield child(base, f"{name}/" if only_directories and name else name)


def _listed(base: Location) -> Iterator[tuple[str, ObjectInfo]]:
    try:
        yield from iter_entries(base)
    except (ObjectNotFound, NotADirectory):
        return


def _expression(parts: list[str]) -> str:
    """Translate the parts of a pattern to a regular expression, for names that may begin with slashes of their own."""
    seen = r"/*(?!\.)[^/]+"
    result = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            result += f"(?:{seen}(?:/{seen})*)?" if last else f"(?:{seen}/)*"
        else:
            hidden = r"/*(?!\.)" if part[:1] in ("*", "?", "[") else ""
            result += hidden + part_expression(part) + ("" if last else "/")
    return result


def part_expression(part: str) -> str:
    """Translate a pattern of one name, without ``/``, to a regular expression."""
    result, position = "", 0
    while position < len(part):
        letter = part[position]
        end = part.find("]", position + 2) if letter == "[" else -1
        if letter == "*":
            result += "[^/]*"
        elif letter == "?":
            result += "[^/]"
        elif end > 0:
            inside = part[position + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            if inside.startswith("!"):
                result += f"[^/{inside[1:]}]"
            else:
                result += f"[{chr(92) if inside.startswith('^') else ''}{inside}]"
            position = end
        else:
            result += re.escape(letter)
        position += 1
    return result
