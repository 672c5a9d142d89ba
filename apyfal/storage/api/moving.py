"""`move`: a file or object to another name, never losing both."""

from __future__ import annotations

import errno
import os
import stat

from apyfal.exceptions import IsADirectory, ObjectChanged, ObjectNotFound, ParameterError, StorageError
from apyfal.storage.api.copying import copy_to, place_of_copy
from apyfal.storage.api.namespace import remove, stat_at
from apyfal.storage.flow.options import Progress
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.local import atomic
from apyfal.storage.url import Location, is_file_object, parse

__all__ = ["move", "rename"]


def move(src: object, dst: object, *, progress: Progress | None = None) -> str:
    """Move a file or object, as `shutil.move`, between any two places; a local directory within its file system, too.

    Within one local file system it is renamed. Everywhere else it is copied as by `copy` (within one store by the
    store), and then removed, if it is still what was copied. If anything fails, at least one of the two is whole.

    Parameters
    ----------
    src
        A storage URL or path.
    dst
        As for `copy`. What is there is replaced.
    progress
        As for `copy`.

    Returns
    -------
    str
        The new URL or path.

    Raises
    ------
    ObjectChanged
        The source was written to meanwhile: both are there.
    IsADirectory
        The source is a directory that cannot be renamed.
    ParameterError
        Both are one object, or cannot be told apart.
    ObjectNotFound, AccessDenied, StorageError
        As for `copy` and `remove`; if the source cannot be removed, both are there.
    """
    if is_file_object(src) or is_file_object(dst):
        raise ParameterError("move: an open file has no name to be moved; expected storage URLs or paths")
    source = parse(src)
    return _move(source, place_of_copy(source, parse(dst)), progress)


def rename(src: object, dst: object) -> str:
    """Give a file, object or local directory the very name `dst`, as `os.replace`; a directory is never moved into.

    Raises
    ------
    IsADirectory
        `dst` is a directory, or `src` one that cannot be renamed.
    ParameterError, ObjectChanged, ObjectNotFound, AccessDenied, StorageError
        As for `move`.
    """
    if is_file_object(src) or is_file_object(dst):
        raise ParameterError("rename: an open file has no name to be changed; expected storage URLs or paths")
    return _move(parse(src), parse(dst), None)


def _move(source: Location, destination: Location, progress: Progress | None) -> str:
    if source.is_local and destination.is_local and _rename(source.path, destination.path):
        return destination.url
    before = stat_at(source)
    if before.is_directory:
        raise IsADirectory(
            f"cannot move {str(source)!r}: it is a directory; expected a file (copy its files, then remove them)"
        )
    _require_two(before, source, destination)
    copy_to(source, destination, progress=progress)
    if not _is_same(before, stat_at(source)):
        raise ObjectChanged(
            f"{str(source)!r} was written to while it was moved to {str(destination)!r}: both are there"
        )
    remove(source.url)
    return destination.url


def _rename(source: str, destination: str) -> bool:
    """Rename a local file, directory or link; ``False``: they are in different file systems."""
    with atomic.translating("move", source):
        status, there = os.lstat(source), os.lstat(destination) if os.path.lexists(destination) else None
        led_to = os.stat(source) if stat.S_ISLNK(status.st_mode) and os.path.exists(source) else None
    if there is not None and os.path.samestat(status, there):
        raise ParameterError(f"cannot move: {source!r} and {destination!r} are the same file")
    if there is not None and led_to is not None and os.path.samestat(led_to, there):
        # the link would replace the data that it leads to
        raise ParameterError(f"cannot move: {source!r} is a link to {destination!r}; expected another destination")
    with atomic.translating("move", source):
        try:
            os.replace(source, destination)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
    return True


def _require_two(before: ObjectInfo, source: Location, destination: Location) -> None:
    """Refuse what may be one object under two names, such as those of two mounts: removing one would remove both."""
    try:
        there = stat_at(destination)
    except ObjectNotFound:
        return
    if _is_same(before, there):
        raise ParameterError(
            f"cannot move: {str(source)!r} and {str(destination)!r} seem to be the same object (of the same size, time"
            " and ETag)"
        )


def _is_same(one: ObjectInfo, other: ObjectInfo) -> bool:
    if one.size is None and one.etag is None and one.mtime is None:
        raise StorageError(f"cannot move {one.path!r}: the store says nothing by which a change could be seen")
    return (one.size, one.etag, one.mtime, one.version) == (other.size, other.etag, other.mtime, other.version)
