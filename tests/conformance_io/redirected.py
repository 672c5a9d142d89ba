"""Runs code that knows of local files only over storage URLs: what is below one directory is in a store instead.

`open` and the functions of `os` that look up, remove, rename and list take a path below the directory to the URL of the
same name below another; every other path is what it says.
"""

from __future__ import annotations

import builtins
import bz2
import contextlib
import io
import mailbox
import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from test.support import os_helper

from apyfal import storage
from apyfal.exceptions import ObjectNotFound
from apyfal.storage.handler import ObjectInfo

__all__ = ["redirect"]


def redirect(patch: pytest.MonkeyPatch, directories: Sequence[str], url: str) -> None:
    """Have paths below any of `directories` lead below `url`, until `patch` is undone."""
    prefixes = [os.path.abspath(one) for one in directories]

    def place(path: Any) -> str | None:
        if isinstance(path, int) or path is None:
            return None
        try:
            name = os.fsdecode(path)
        except TypeError:
            return None
        # as the test code means it: below the working directory, which is not a link
        whole = name if name.startswith("/") else f"{os.getcwd()}/{name}"
        whole = os.path.normpath(whole)
        for number, prefix in enumerate(prefixes):
            if (whole == prefix and number) or whole.startswith(prefix + os.sep):
                return f"{url}/{number}{whole.removeprefix(prefix)}"
        return None

    real_open = builtins.open

    def open_(file: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        there = place(file)
        if there is None:
            return real_open(file, mode, *arguments, **keywords)
        if storage.isdir(there):
            raise IsADirectoryError(21, "Is a directory", file)
        return _named(storage.open(there, mode, *arguments, **keywords), file)

    patch.setattr(builtins, "open", open_)
    patch.setattr(io, "open", open_)
    patch.setattr(mailbox, "_create_carefully", lambda path: open_(path, "xb+"))
    patch.setattr(bz2, "_builtin_open", open_)
    patch.setattr(tarfile, "bltn_open", open_)

    def one(name: str, function: Callable[..., Any]) -> None:
        real = getattr(os, name)

        def call(path: Any = ".", *arguments: Any, **keywords: Any) -> Any:
            there = place(path)
            return real(path, *arguments, **keywords) if there is None else function(there, *arguments, **keywords)

        patch.setattr(os, name, call)

    def two(name: str) -> None:
        real = getattr(os, name)

        def call(source: Any, destination: Any, **keywords: Any) -> Any:
            start, end = place(source), place(destination)
            if start is None and end is None:
                return real(source, destination, **keywords)
            if name == "link":
                return storage.copy(start or source, end or destination)
            return storage.move(start or source, end or destination)

        patch.setattr(os, name, call)

    def remove(there: str) -> None:
        if storage.isdir(there):
            raise IsADirectoryError(21, "Is a directory", there)
        storage.remove(there)

    one("remove", remove)
    patch.setattr(os_helper, "_unlink", lambda path: os.unlink(path))
    patch.setattr(os_helper, "_rmdir", lambda path: os.rmdir(path))
    one("unlink", remove)
    one("rmdir", storage.rmdir)
    one("mkdir", lambda there, mode=0o777: storage.makedirs(there))
    one("listdir", storage.listdir)
    one("stat", _status)
    one("lstat", _status)
    one("utime", lambda there, *arguments, **keywords: None)
    one("chmod", lambda there, *arguments, **keywords: None)
    for name in ("rename", "replace", "link"):
        two(name)
    for name in ("exists", "isfile", "isdir", "getsize", "lexists", "getmtime"):
        patch.setattr(os.path, name, _looked_up(name, getattr(os.path, name), place))


def _status(there: str, **keywords: Any) -> os.stat_result:
    info = storage.stat(there)
    kind = stat.S_IFDIR | 0o755 if info.is_directory else stat.S_IFREG | 0o644
    when = int(info.mtime or 0)
    return os.stat_result((kind, 0, 0, 1, os.getuid(), os.getgid(), info.size or 0, when, when, when))


def _looked_up(name: str, real: Callable[[Any], Any], place: Callable[[Any], str | None]) -> Callable[[Any], Any]:
    def call(path: Any) -> Any:
        there = place(path)
        if there is None:
            return real(path)
        info: ObjectInfo | None = None
        try:
            info = storage.stat(there)
        except ObjectNotFound:
            if name.startswith("get"):
                raise
        if name.startswith("get"):
            return getattr(info, name[3:])
        if name == "isdir":
            return info is not None and info.is_directory
        return info is not None and not (name == "isfile" and info.is_directory)

    return call


def _named(file: Any, name: Any) -> Any:
    """Give a file the name that the code knows it by."""
    below = file
    while below is not None:
        raw = getattr(below, "buffer", None) or getattr(below, "raw", None)
        if raw is None:
            break
        below = raw
    with contextlib.suppress(AttributeError):
        below.name = name
    return file
