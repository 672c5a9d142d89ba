"""Patterns that select the files of a tree."""

from __future__ import annotations

import re
from collections.abc import Sequence

from apyfal.exceptions import ParameterError
from apyfal.storage.api.globbing import part_expression

__all__ = ["Filter"]


class Filter:
    """Decides by its path below the top whether a file is selected.

    Parameters
    ----------
    include
        Patterns of which one must match; empty: every file is selected.
    exclude
        Patterns of which none may match.

    A pattern without ``/`` applies to the name of a file, or of a directory that it is in: ``*.bin``, ``.git``.
    One with ``/`` applies to the path of a file or directory from the top: ``2026/*.bin``, ``**/raw/*``. ``*``, ``?``
    and ``[...]`` match within a name, ``**`` any number of directories. Hidden names are matched like any others.

    Raises
    ------
    ParameterError
        A pattern is empty, or one text where several are expected.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = [_compiled("include", one) for one in _texts("include", include)]
        self._exclude = [_compiled("exclude", one) for one in _texts("exclude", exclude)]

    def takes(self, name: str) -> bool:
        """Return whether the file with this path is selected."""
        if self.excludes(name):
            return False
        return not self._include or any(one.fullmatch(path) for one in self._include for path in _paths(name))

    def excludes(self, name: str) -> bool:
        """Return whether the file or directory with this path matches a pattern of `exclude`."""
        return bool(self._exclude) and any(one.fullmatch(path) for one in self._exclude for path in _paths(name))


def _paths(name: str) -> list[str]:
    """Return a path and those of the directories that it is in."""
    return [*(name[: cut.start()] for cut in re.finditer("(?<=[^/])/", name)), name]


def _texts(what: str, patterns: Sequence[str]) -> list[str]:
    if isinstance(patterns, str):
        raise ParameterError(f"{what}: expected patterns in a list, not one text {patterns!r}")
    found = list(patterns)
    for one in found:
        if not isinstance(one, str) or not one.strip("/"):
            raise ParameterError(f"{what}: {one!r} is not a pattern; expected text such as '*.bin' or '2026/**'")
    return found


def _compiled(what: str, pattern: str) -> re.Pattern[str]:
    text = pattern.strip("/")
    if "/" not in pattern.rstrip("/"):
        text = f"**/{text}"
    parts = text.split("/")
    result = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            result += ".+" if last else "(?:.*/)?"
        else:
            result += part_expression(part) + ("" if last else "/")
    try:
        return re.compile(result, re.DOTALL)
    except re.error as error:
        raise ParameterError(f"{what}: {pattern!r} is not a pattern: {error}") from None
