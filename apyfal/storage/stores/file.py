"""Local files as a store, for mounts such as ``provider = file, root = /data``. Plain paths do not come this way."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator

from apyfal.exceptions import ObjectChanged, StorageError
from apyfal.storage.flow.cancel import current_cancel
from apyfal.storage.handler import Handler, Limits, ObjectInfo, RangeReader, Upload
from apyfal.storage.local import atomic, direct_io
from apyfal.storage.local.copy import copy_file

__all__ = ["FileHandler", "describe", "info_of", "list_directory"]


class FileHandler(Handler):
    """The files of this machine; paths are those of the operating system."""

    scheme = "file"
    limits = Limits(min_part=1, max_part=1 << 62, max_parts=1 << 62, max_put=1 << 62)
    #: time of modification that files are written with, in nanoseconds since the epoch; ``None``: now
    mtime_ns: int | None = None

    @classmethod
    def stamping(cls, mtime_ns: int | None) -> FileHandler:
        """Make a handler whose files appear with this time of modification."""
        handler = cls()
        handler.mtime_ns = mtime_ns
        return handler

    def describe(self, path: str) -> ObjectInfo:
        """Look a file or directory up."""
        return describe(path)

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Open a range of a file; `version_of` means the same inode, size and modification time."""
        return _FileReader(path, start, stop, version_of)

    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        """Write a whole file."""
        writer = atomic.LocalWriter(path, size=len(data), exclusive=exclusive)
        try:
            writer.write(data)
            writer.commit(self.mtime_ns)
        finally:
            writer.abort()
        return describe(path)

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> Upload:
        """Begin a file that is written in parts of one size (the last may be shorter)."""
        return _FileUpload(path, size, exclusive, self.mtime_ns)

    def copy(self, source: ObjectInfo, destination: str) -> ObjectInfo:
        """Copy by the kernel."""
        copy_file(source.path, destination)
        return describe(destination)

    def remove(self, path: str) -> None:
        """Remove a file or a symbolic link, as `os.remove`."""
        with atomic.translating("remove", path):
            os.remove(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with atomic.translating("remove the directory", path):
            os.rmdir(path)

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List a directory in the order of names; `recursive` yields files only and follows no link to a directory."""
        return list_directory(path, recursive=recursive)

    def makedirs(self, path: str) -> None:
        """Make a directory with its parents."""
        with atomic.translating("make the directory", path):
            os.makedirs(path, exist_ok=True)


def describe(path: str) -> ObjectInfo:
    """Look a file or directory up, following links.

    Raises
    ------
    ObjectNotFound, AccessDenied, NotADirectory, StorageError
        As stat(2).
    """
    with atomic.translating("look up", path):
        return info_of(path, os.stat(path))


def list_directory(path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
    """List what is in a directory. A broken link is described as itself.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, StorageError
        When it cannot be listed; with `recursive`, for any directory below as well.
    """
    with atomic.translating("list", path), os.scandir(path) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if recursive and entry.is_dir(follow_symlinks=False):
            yield from list_directory(entry.path, recursive=True)
            continue
        try:
            status = entry.stat()
        except OSError:
            try:
                status = entry.stat(follow_symlinks=False)  # a link that leads nowhere
            except OSError:  # it went away meanwhile
                continue
        if not (recursive and stat.S_ISDIR(status.st_mode)):
            yield info_of(entry.path, status)


def info_of(path: str, status: os.stat_result) -> ObjectInfo:
    """Describe a file or directory of which stat(2) gave `status`."""
    directory = stat.S_ISDIR(status.st_mode)
    return ObjectInfo(
        path=path,
        size=None if directory else status.st_size,
        etag=None if directory else f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"',
        mtime=status.st_mtime_ns / 1e9,
        ranges=stat.S_ISREG(status.st_mode),
        is_directory=directory,
    )


class _FileReader(RangeReader):
    """A range of one file."""

    def __init__(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> None:
        self._path = path
        self._descriptor = atomic.open_to_read(path)
        self.info = info_of(path, os.fstat(self._descriptor))
        if version_of is not None and version_of.etag not in (None, self.info.etag):
            self.close()
            raise ObjectChanged(f"{path!r} changed while it was being read", path=path)
        self._position = start
        self._stop = stop

    def readinto(self, out: memoryview) -> int:
        """Read once."""
        if self._stop is not None:
            out = out[: max(0, self._stop - self._position)]
        with atomic.translating("read", self._path):
            count = direct_io.read_into(self._descriptor, out, self._position if self.info.ranges else None)
        if count == 0 and len(out) and self._stop is not None:
            raise ObjectChanged(f"{self._path!r} ended before byte {self._stop}: it was truncated", path=self._path)
        self._position += count
        return count

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _FileUpload(Upload):
    """Parts of one file, written where they belong.

    Where part `n` goes follows from the size of the first: those that come earlier wait for it.
    """

    def __init__(self, path: str, size: int | None, exclusive: bool, mtime_ns: int | None = None) -> None:
        self._path = path
        self._mtime_ns = mtime_ns
        self._writer = atomic.LocalWriter(path, size=size, exclusive=exclusive)
        self._size = size
        self._part_size: int | None = None
        self._known = threading.Condition()
        self._done: ObjectInfo | None = None

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        """Write one part at its place."""
        offset = self._offset(number, len(data))
        self._writer.write_at(data, offset)

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        """Give the file its name."""
        if self._done is None:
            with atomic.translating("write", self._path):
                if not self._writer.direct:
                    os.ftruncate(self._writer.fd, size)
            self._writer.commit(self._mtime_ns)
            self._done = describe(self._path)
        return self._done

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._writer.abort()
        with self._known:
            self._known.notify_all()

    def _offset(self, number: int, length: int) -> int:
        cancel = current_cancel()
        with self._known:
            if self._part_size is None and number == 1:
                self._part_size = length
                self._known.notify_all()
            while self._part_size is None and not self._writer.closed:
                self._known.wait(0.1)  # the first part may have failed: nothing but the cancellation says so
                if cancel is not None:
                    cancel.check()
            if self._part_size is None:
                raise StorageError(f"the upload to {self._path!r} was aborted", path=self._path)
            return (number - 1) * self._part_size
