"""The paths of universal_pathlib for storage URLs: ``UPath("apyfal://s3://bucket/key") / "name"``.

Found by universal_pathlib through the entry point group ``universal_pathlib.implementations``. As for the filesystem
of fsspec, the path is a storage URL behind ``apyfal://``; unlike the generic class, this one keeps the URL's own
``scheme://`` together, so a path never leaves its store by being joined, split or pickled.
"""

from __future__ import annotations

import os
import pathlib
import posixpath
import re
from collections.abc import Sequence
from typing import Any

import fsspec
from upath import UPath

from apyfal.exceptions import ParameterError, UnsupportedByStore
from apyfal.log import redact
from apyfal.storage.api import copying
from apyfal.storage.fs.filesystem import ApyfalFileSystem
from apyfal.storage.url import parse

__all__ = ["ApyfalPath"]

_PROTOCOL = "apyfal"
_PREFIX = _PROTOCOL + "://"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*://")

# universal_pathlib takes the rules of a path from the registered filesystem
fsspec.register_implementation(_PROTOCOL, ApyfalFileSystem, clobber=True)


def _text(path: Any) -> str:
    if isinstance(path, UPath):
        return path.path if path.is_absolute() else str(path)
    return os.fspath(path) if not hasattr(path, "__vfspath__") else str(path.__vfspath__())


class _Parser:
    """How a storage URL is split: the anchor of a store's path is its ``scheme://``, that of a local one ``/``."""

    sep = "/"
    altsep = None

    def strip_protocol(self, path: Any) -> str:
        """Return the storage URL."""
        return str(ApyfalFileSystem._strip_protocol(_text(path)))

    def splitroot(self, path: Any) -> tuple[str, str, str]:
        """Return drive (``scheme://`` or nothing), root (``/`` or nothing) and the rest."""
        text = self.strip_protocol(path)
        scheme, separator, rest = text.partition("://")
        if separator:
            return scheme + separator, "", rest
        return ("", "/", text.lstrip("/")) if text.startswith("/") else ("", "", text)

    def splitdrive(self, path: Any) -> tuple[str, str]:
        """Return drive and the rest."""
        drive, root, rest = self.splitroot(path)
        return drive, root + rest

    def split(self, path: Any) -> tuple[str, str]:
        """Return parent and name; the anchor is its own parent."""
        drive, root, rest = self.splitroot(path)
        head, _, name = rest.rpartition("/")
        return drive + root + head, name

    def splitext(self, path: Any) -> tuple[str, str]:
        """Return the path without its suffix, and the suffix."""
        return posixpath.splitext(_text(path))

    def join(self, path: Any, *paths: Any) -> str:
        """Join names below a path."""
        return posixpath.join(self.strip_protocol(path), *map(_text, paths))

    def isabs(self, path: Any) -> bool:
        """Whether a path has an anchor."""
        drive, root, _ = self.splitroot(path)
        return bool(drive or root)

    def normcase(self, path: Any) -> str:
        """Return the path: case matters."""
        return _text(path)


class ApyfalPath(UPath):
    """A storage URL as a path of universal_pathlib; made by ``UPath("apyfal://...")``.

    Raises
    ------
    ParameterError
        If an absolute local path, or a URL of another library, is joined to a path.
    """

    __slots__ = ()
    parser: Any = _Parser()

    def __new__(cls, *args: Any, **options: Any) -> ApyfalPath:
        """Make a path; see `__init__`."""
        made: Any = super().__new__(cls, *_whole(args), **options)
        return made  # type: ignore[no-any-return]  # `UPath.__new__` returns the class of the protocol

    def __init__(self, *args: Any, **options: Any) -> None:
        """Make a path from a storage URL, with or without ``apyfal://``, and names below it."""
        super().__init__(*_whole(args), **options)

    @property
    def parts(self) -> Sequence[str]:
        """The anchor (``scheme://`` or ``/``) and the names."""
        if self._relative_base is not None:
            return super().parts
        drive, root, rest = self.parser.splitroot(self.path)
        names = rest.split("/") if rest else []
        return (drive + root, *names) if drive or root else tuple(names)

    @property
    def drive(self) -> str:
        """The ``scheme://`` of a store's path."""
        return "" if self._relative_base is not None else self.parser.splitroot(self.path)[0]

    @property
    def root(self) -> str:
        """The ``/`` of a local path."""
        return "" if self._relative_base is not None else self.parser.splitroot(self.path)[1]

    def match(self, path_pattern: Any, *, case_sensitive: bool | None = None) -> bool:
        """Whether the last names fit a pattern, as `pathlib.PurePath.match` compares them."""
        names = [name for name in self.parts if "://" not in name]
        return pathlib.PurePosixPath(*names).match(str(path_pattern))

    def joinuri(self, uri: Any) -> UPath:
        """Refuse: a storage URL is not an address of the web, and its names hold ``?`` and ``#``."""
        raise UnsupportedByStore(f"cannot resolve {redact(str(uri))!r} as the web does; expected path / name")

    def _copy_from(
        self,
        source: Any,
        follow_symlinks: bool = True,
        on_name_collision: Any = None,
        **kwargs: Any,
    ) -> None:
        """Copy from another storage URL as `apyfal.storage.copy` does: in the store if it can, with the metadata."""
        if not isinstance(source, ApyfalPath) or on_name_collision is not None:
            super()._copy_from(source, follow_symlinks, on_name_collision, **kwargs)
        elif source.is_dir():
            self.mkdir()
            for child in source.iterdir():
                self.joinpath(child.name)._copy_from(child, follow_symlinks)
        else:
            copying.copy_to(parse(source.path), parse(self.path))

    def rmdir(self, recursive: bool = False) -> None:
        """Remove an empty directory, as `pathlib` does; with `recursive` what is below it, too."""
        if recursive:
            super().rmdir(recursive=True)
        else:
            self.fs.rmdir(self.path)


def _whole(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the names from the last whole path on, with ``apyfal://`` before its URL, so that it stays apyfal's."""
    if not args:
        return args
    texts = [one if isinstance(one, UPath) and not one.is_absolute() else _text(one) for one in args]
    for place in range(len(texts) - 1, 0, -1):
        text = str(texts[place])
        if text.startswith(_PREFIX) or (isinstance(args[place], ApyfalPath) and args[place].is_absolute()):
            texts = texts[place:]
            break
        if _SCHEME.match(text) or (text.startswith("/") and "://" in str(texts[0]).removeprefix(_PREFIX)):
            raise ParameterError(f"cannot join {redact(text)!r} to {redact(str(texts[0]))!r}; expected a name below it")
        if text.startswith("/"):
            texts = texts[place:]
            break
    first = texts[0]
    if isinstance(first, str) and not first.startswith(_PREFIX):
        first = _PREFIX + first
    return (first, *texts[1:])
