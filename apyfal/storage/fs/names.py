"""Look up, list, match, make and remove the names of the filesystem."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from glob import has_magic
from typing import Any

from fsspec.asyn import AsyncFileSystem

from apyfal.exceptions import (
    InvalidURL,
    IsADirectory,
    NotADirectory,
    ObjectNotFound,
    ParameterError,
    UnsupportedByStore,
)
from apyfal.storage.api import namespace
from apyfal.storage.api.tree import require_removable
from apyfal.storage.batch.many import remove_listed, stat_each
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.local import atomic
from apyfal.storage.mounting import table
from apyfal.storage.url import StoragePath, parse, redact

__all__ = ["Names", "described", "ends_in_slash", "exists_with_magic", "is_link"]

_PROTOCOL = "apyfal://"


class Names(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The functions that work on names; they run in the calling thread."""

    protocol = "apyfal"
    #: the functions without a ``_`` are our own, and need no event loop
    mirror_sync_methods = False

    # -- paths --------------------------------------------------------------------------------------------------------
    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = path.location.url if isinstance(path, StoragePath) else os.fspath(path)
        text = text.removeprefix(_PROTOCOL)
        scheme, separator, rest = text.partition("://")
        if separator and scheme.lower() == "file":
            # one name for one file: a URL of a local file is its path
            text = parse(text).path
        elif separator and "/" not in scheme:
            if rest.endswith("//") and rest.strip("/"):
                raise InvalidURL(
                    f"{redact(text)!r} ends in more than one '/', which no path of fsspec does: expected a name"
                    " without, or a function of apyfal.storage"
                )
            return scheme + separator + rest.rstrip("/")
        elif ":" in text:
            parse(text)  # refuses a mount's name whose "//" became "/" when somebody joined paths
        return text.rstrip("/") or ("/" if text else "")

    @classmethod
    def _of_file(cls, path: Any, what: str) -> str:
        """Return the path of a file that is to be written or removed: one that ends in ``/`` is that of a directory."""
        stripped: str = cls._strip_protocol(path)
        if ends_in_slash(path):
            raise IsADirectory(
                f"cannot {what} {redact(stripped) + '/'!r}: what ends in '/' is a directory; expected a file's name"
            )
        return stripped

    def unstrip_protocol(self, name: str) -> str:
        """Put ``apyfal://`` before a path."""
        return _PROTOCOL + str(self._strip_protocol(name))

    @classmethod
    def _parent(cls, path: Any) -> Any:
        path = cls._strip_protocol(path)
        scheme, separator, rest = path.partition("://")
        if separator:
            return scheme + separator + rest.rpartition("/")[0]
        return os.path.dirname(path)

    # -- names --------------------------------------------------------------------------------------------------------
    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a directory, or a file alone; for the empty path, list the mounts."""
        path = self._strip_protocol(path)
        if not path:
            found = [{"name": f"{name}://", "size": 0, "type": "directory"} for name in table.mounts()]
        else:
            location = parse(path)
            try:
                listed = namespace.entries(location)
            except NotADirectoryError:
                found = [self.info(path)]
            else:
                found = [described(namespace.child(location, name).url, info) for name, info in listed]
        return found if detail else sorted(one["name"] for one in found)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return the description of a path."""
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        return described(path, namespace.stat(path))

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Return whether a path exists. Raises if a store refuses or is down, where fsspec would return `False`."""
        return self._type_of(path) is not None

    def isfile(self, path: str) -> bool:
        """Return whether a file exists; raises if that cannot be determined."""
        return self._type_of(path) == "file"

    def isdir(self, path: str) -> bool:
        """Return whether a directory exists; raises if that cannot be determined."""
        return self._type_of(path) == "directory"

    def _type_of(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> Any:
        """List everything below a path by full names, including names that contain ``//``."""
        path = self._strip_protocol(path)
        found: dict[str, dict[str, Any]] = {}
        if withdirs and path and self.isdir(path):
            found[path] = self.info(path)
        for one in self._below(path, maxdepth):
            name = str(one["name"])
            if one["type"] != "directory":
                found[name] = one  # an object replaces a directory with the same name
            elif withdirs:
                found.setdefault(name, one)
        ordered = dict(sorted(found.items()))
        return ordered if detail else list(ordered)

    def _below(self, path: str, maxdepth: int | None) -> Iterator[dict[str, Any]]:
        """List everything below a path, or the file itself; links to directories are not followed."""
        if maxdepth is not None and maxdepth < 1:
            raise ParameterError(f"maxdepth {maxdepth}: expected 1 or more")
        waiting = [(path, 1)]
        while waiting:
            folder, depth = waiting.pop()
            try:
                listed = self.ls(folder, detail=True)
            except FileNotFoundError:
                continue
            for one in listed:
                yield one
                name = str(one["name"])
                if one["type"] == "directory" and (maxdepth is None or depth < maxdepth) and not is_link(name):
                    waiting.append((name, depth + 1))

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes; ``None``: not known."""
        size: int | None = self.info(path)["size"]
        return size

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        """Raise `UnsupportedByStore`; `apyfal.storage.sign` signs addresses."""
        raise UnsupportedByStore(
            f"cannot sign an address of {str(parse(self._strip_protocol(path)))!r}; expected apyfal.storage.sign"
        )

    def modified(self, path: str) -> datetime:
        """Return when a file was last written."""
        mtime = namespace.stat(self._strip_protocol(path)).mtime
        if mtime is None:
            raise UnsupportedByStore(f"{path!r}: this store does not say when it was written")
        return datetime.fromtimestamp(mtime, timezone.utc)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a directory or bucket; inside a bucket, do nothing."""
        location = parse(self._strip_protocol(path))
        if location.is_local and not create_parents:
            with atomic.translating("make the directory", location.path):
                os.mkdir(location.path)
        else:
            namespace.makedirs(location.url, exist_ok=False)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory or bucket with its parents."""
        namespace.makedirs(self._strip_protocol(path), exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory or bucket. In a store, a directory of names or with a mark must be empty, too."""
        namespace.rmdir(self._strip_protocol(path))

    def rm_file(self, path: str) -> None:
        """Remove a file or object."""
        namespace.remove(self._of_file(path, "remove"))

    def expand_path(
        self,
        path: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        assume_literal: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """List the names that a path or pattern matches. A name that exists is not a pattern, even with ``*`` in it."""
        if exists_with_magic(self, path):
            path = self._strip_protocol(path)
            below = self.find(path, maxdepth=maxdepth, withdirs=True) if recursive and self.isdir(path) else []
            return sorted({path, *below})
        if not isinstance(path, (str, os.PathLike)):
            path = list(path)
            if literal := [one for one in path if exists_with_magic(self, one)]:
                parts = [*literal, [one for one in path if one not in literal]]
                found = [self.expand_path(one, recursive, maxdepth, assume_literal, **kwargs) for one in parts if one]
                return sorted(set().union(*found))
        if assume_literal:
            kwargs["assume_literal"] = True  # older releases of fsspec do not have it
        expanded: list[str] = super().expand_path(path, recursive=recursive, maxdepth=maxdepth, **kwargs)
        return expanded

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files; with `recursive`, also directories and everything below them. Of a link, remove the link.

        A path that ends in ``/`` is that of a directory, also beside an object of the same name. It never removes a
        bucket, the root of a store or disk, a home directory, or a directory that contains the working directory: use
        `rmdir` for those.
        """
        given = [path] if isinstance(path, (str, os.PathLike)) else list(path)
        if not recursive:
            for one in given:
                if not has_magic(self._strip_protocol(one)):
                    self._of_file(one, "remove")
        tops = self.expand_path(given, maxdepth=None if recursive else maxdepth)
        if not recursive:
            self._rm_files(tops)
            return
        files: dict[str, None] = {}
        directories: set[str] = set()
        only_below = {self._strip_protocol(one) for one in given if ends_in_slash(one)}
        only_below -= {self._strip_protocol(one) for one in given if not ends_in_slash(one)}
        for top in tops:
            if top in only_below and not is_link(top):
                self._require_directory(top)
            elif is_link(top) or (parse(top).is_local and not self.isdir(top)):
                files[top] = None
                continue
            require_removable(parse(top))
            if top not in only_below and not parse(top).is_local and self.isfile(top):
                files[top] = None  # beside what is below a prefix of its name
            if self.isdir(top):
                directories.add(top)
            elif top not in files and top not in only_below and next(self._below(top, 1), None) is None:
                raise ObjectNotFound(f"cannot remove {redact(top)!r}: there is no such object or directory", path=top)
            for one in self._below(top, maxdepth):
                name = str(one["name"])
                if one["type"] == "directory" and not is_link(name):
                    directories.add(name)
                else:
                    files[name] = None
            if top not in directories and not parse(top).is_local:
                directories.add(top)  # an object can have the name of a directory, which is removed, too
        for error in remove_listed([parse(name) for name in files]):
            if error is not None:
                raise error
        if maxdepth is None:
            # the deepest first; a directory that is only names disappears with its contents
            for name in sorted(directories, reverse=True):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    self.rmdir(name)

    def _require_directory(self, path: str) -> None:
        """Refuse what is not a directory, with or without a file of the same name."""
        if not self.isdir(path) and not (self.isfile(path) and self.ls(path) != [self.info(path)]):
            kind = NotADirectory if self.exists(path) else ObjectNotFound
            raise kind(f"cannot remove {redact(path) + '/'!r}: there is no such directory")

    def _rm_files(self, paths: list[str]) -> None:
        """Remove files and links. If one of them is a directory or does not exist, remove nothing."""
        locations = [parse(one) for one in paths]
        looked_up = [parse(one) for one in paths if not is_link(one)]
        for location, info in zip(looked_up, stat_each(looked_up), strict=True):
            if isinstance(info, Exception):
                raise info
            if info.is_directory:
                raise IsADirectory(f"cannot remove {location.url!r}: it is a directory; expected recursive=True")
        for error in remove_listed(locations):
            if error is not None:
                raise error


def ends_in_slash(path: Any) -> bool:
    """Return whether a path, which is not the root of anything, ends in ``/``."""
    text = path.location.url if isinstance(path, StoragePath) else os.fspath(path)
    return bool(text.endswith("/") and text.removeprefix(_PROTOCOL).strip("/"))


def exists_with_magic(fs: Names, path: Any) -> bool:
    """Return whether a path that looks like a pattern exists under this very name."""
    return isinstance(path, str) and has_magic(path) and fs.exists(path)


def is_link(path: str) -> bool:
    """Return whether a path is a symbolic link on this machine."""
    location = parse(path)
    return location.is_local and os.path.islink(location.path)


def described(path: str, info: ObjectInfo) -> dict[str, Any]:
    """Return fsspec's description of a file or directory."""
    described: dict[str, Any] = {
        "name": path,
        "size": 0 if info.is_directory else info.size,
        "type": "directory" if info.is_directory else "file",
    }
    if info.mtime is not None:
        described["mtime"] = info.mtime
    if info.etag is not None:
        described["ETag"] = info.etag
    return described
