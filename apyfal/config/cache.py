"""Directories for what is made once and used again: ``$XDG_CACHE_HOME/apyfal``, by default ``~/.cache/apyfal``.

What lies there is run later, so a directory that another user owns or can write is not used. Entries appear by a
rename; the ones that were used longest ago are removed first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

__all__ = ["SCRATCH", "CacheUnusable", "cache_folder", "evict"]

#: What begins the names of entries that are being made.
SCRATCH = "build-"
#: Age from which such an entry is of a process that ended before it was ready, in seconds.
_ABANDONED = 4 * 3600


class CacheUnusable(Exception):
    """There is no directory that can be used; the text says why."""


def cache_folder(name: str) -> Path:
    """Return the user's directory ``apyfal/name``, made if it is not there, with mode 0700.

    Raises
    ------
    CacheUnusable
        It cannot be made or written, or others could write there.
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):  # to be ignored (XDG Base Directory Specification)
        root = os.path.expanduser("~/.cache")
    folder = Path(root, "apyfal", name)
    if not folder.is_absolute():
        raise CacheUnusable("there is no home directory")
    try:
        folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in (folder.parent, folder):
            one.mkdir(mode=0o700, exist_ok=True)
            status = one.stat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise CacheUnusable(
                    f"{one} belongs to somebody else or can be written by others; expected a directory of your own"
                )
    except OSError as error:
        raise CacheUnusable(str(error)) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CacheUnusable(f"{folder} cannot be written")
    return folder


def evict(folder: Path, *, count: int | None = None, nbytes: int | None = None) -> None:
    """Remove the entries that were used longest ago, and those that were never finished.

    Other processes may do the same at the same time.

    Parameters
    ----------
    folder
        From `cache_folder`.
    count, nbytes
        What may stay: entries, and bytes of entries that are files. ``None``: any.
    """
    entries = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):  # removed by another process
                status = path.lstat()
                if not path.name.startswith(SCRATCH):
                    entries.append((status.st_mtime, status.st_size, path))
                elif time.time() - status.st_mtime > _ABANDONED:
                    _remove(path)
    total = 0
    for index, (_, size, path) in enumerate(sorted(entries, reverse=True)):
        total += size
        if (count is not None and index >= count) or (nbytes is not None and total > nbytes):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
