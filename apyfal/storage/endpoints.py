"""Where data comes from and goes to, one interface for files, stores and open file objects.

A `Source` fills memory that the caller owns; a `Sink` takes it. Neither keeps a reference to that memory once a call
has returned.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

from apyfal.exceptions import ParameterError, StorageError
from apyfal.storage import local
from apyfal.storage.url import is_file_object, parse

__all__ = ["Sink", "Source", "open_sink", "open_source"]


class Source(ABC):
    """Bytes to be read, front to back or (where `seekable`) anywhere.

    Attributes
    ----------
    name
        For messages and progress bars; holds no secret.
    size
        Bytes from the first to the last, or ``None`` where that is not known before the end.
    seekable
        Whether `pread` works. It may then be called from several threads at once.
    path
        The path of a plain local file whose whole content this is, so that it can be mapped; else ``None``.
    """

    name: str
    size: int | None
    seekable: bool = False
    path: str | None = None

    @abstractmethod
    def readinto(self, out: memoryview) -> int:
        """Fill the front of `out` with the next bytes.

        Returns
        -------
        int
            How many, at least 1; 0 at the end only.

        Raises
        ------
        StorageError
            When the source fails, or ends before `size` bytes.
        """

    def pread(self, out: memoryview, offset: int) -> int:
        """Fill the front of `out` with the bytes from `offset` on; does not move what `readinto` reads next."""
        raise io.UnsupportedOperation(f"{self.name} can only be read from front to back")

    @abstractmethod
    def close(self) -> None:
        """Free what this object opened; a caller's own file stays open. May be called again."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Sink(ABC):
    """A destination that appears whole, by `commit`, or not at all.

    As a context manager it commits at the end of the block and aborts when the block raises.

    Attributes
    ----------
    name
        For messages and progress bars; holds no secret.
    """

    name: str

    @abstractmethod
    def write(self, data: memoryview) -> None:
        """Append all of `data`; its memory can be used again when this returns."""

    @abstractmethod
    def commit(self) -> None:
        """Make the destination visible. When this raises, it is as it was before."""

    @abstractmethod
    def abort(self) -> None:
        """Leave the destination as it was. Does nothing after `commit`; may be called again."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()


def open_source(source: object) -> Source:
    """Open anything that can be read.

    Parameters
    ----------
    source
        A storage URL, a path, or an open binary file, which is read from its current position and stays the caller's.

    Raises
    ------
    InvalidURL, ObjectNotFound, AccessDenied, IsADirectory, StorageError
        When it cannot be read.
    ParameterError
        When it is nothing that can be read.
    """
    if is_file_object(source):
        return FileObjectSource(source)
    location = parse(source)
    return LocalSource(location.path)


def open_sink(destination: object, size: int | None = None) -> Sink:
    """Open anything that can be written, to be replaced as a whole.

    Parameters
    ----------
    destination
        A storage URL, a path, or an open binary file, which is written from its current position and stays the
        caller's.
    size
        How many bytes will come, if known.

    Raises
    ------
    InvalidURL, ObjectNotFound, AccessDenied, IsADirectory, StorageError
        When it cannot be written.
    ParameterError
        When it is nothing that can be written.
    """
    if is_file_object(destination):
        return FileObjectSink(destination)
    location = parse(destination)
    return LocalSink(location.path, size)


class LocalSource(Source):
    """A local file; what is no regular file is read front to back."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._descriptor = local.open_to_read(path)
        status = os.fstat(self._descriptor)
        self._position = 0
        self.size: int | None = None
        if stat.S_ISREG(status.st_mode) and local.says_its_size(self._descriptor, status):
            self.seekable = True
            if local.own_descriptor(path) is None:
                self.path = path
            else:  # as any program does that is handed an open file, go on where it stands
                self._position = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            self.size = max(0, status.st_size - self._position)
        self._start = self._position

    def readinto(self, out: memoryview) -> int:
        """Read once at the position, which moves on."""
        with local.translating("read", self.name):
            if not self.seekable:
                return local.read_into(self._descriptor, out)
            count = local.read_into(self._descriptor, out, self._position)
        if count == 0 and len(out) and self.size is not None and self._position - self._start < self.size:
            raise _ended_early(self.name, self._position - self._start, self.size)
        self._position += count
        return count

    def pread(self, out: memoryview, offset: int) -> int:
        """Read once at `offset`."""
        if not self.seekable:
            return super().pread(out, offset)
        with local.translating("read", self.name):
            return local.read_into(self._descriptor, out, self._start + offset)

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Give the descriptor, which stays this object's."""
        return self._descriptor


class LocalSink(Sink):
    """A local file, replaced as a whole; what is no regular file is written directly."""

    def __init__(self, path: str, size: int | None = None) -> None:
        self.name = path
        self._writer = local.LocalWriter(path, size=size)

    def write(self, data: memoryview) -> None:
        """Append to the unfinished file."""
        self._writer.write(data)

    def commit(self) -> None:
        """Give the file its name, on disk."""
        self._writer.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._writer.abort()


class FileObjectSource(Source):
    """An open binary file of the caller's, from its current position on."""

    def __init__(self, file: Any) -> None:
        self.name = _name_of(file)
        _require(file, "read", self.name)
        self._file: Any = file
        self._readinto = getattr(file, "readinto", None)
        self._lock = threading.Lock()
        self._start = self._done = 0
        self.size: int | None = None
        try:
            if file.seekable():
                self._start = file.tell()
                self.size = max(0, file.seek(0, io.SEEK_END) - self._start)
                file.seek(self._start)
                self.seekable = True
        except (AttributeError, OSError):
            self.size = None  # it only pretends

    def readinto(self, out: memoryview) -> int:
        """Read once from the file, which moves on."""
        with self._lock:
            if self.seekable and self._file.tell() != self._start + self._done:
                self._file.seek(self._start + self._done)
            count = self._fill(out)
            if count == 0 and len(out) and self.size is not None and self._done < self.size:
                raise _ended_early(self.name, self._done, self.size)
            self._done += count
            return count

    def pread(self, out: memoryview, offset: int) -> int:
        """Read at `offset` after where the file stood."""
        if not self.seekable:
            return super().pread(out, offset)
        with self._lock:
            self._file.seek(self._start + offset)
            return self._fill(out)

    def close(self) -> None:
        """Let go of the file; it stays open."""
        self._file = None
        self._readinto = None

    def _fill(self, out: memoryview) -> int:
        if self._readinto is not None:
            count = self._readinto(out)
            if count is None:
                raise local.storage_error(errno.EAGAIN, "cannot read: this file does not wait for its data", self.name)
            return int(count)
        data = self._file.read(len(out))
        out[: len(data)] = data
        return len(data)


class FileObjectSink(Sink):
    """An open binary file of the caller's, from its current position on.

    Whole or not at all only as far as the file allows: `abort` takes back what was written where it can seek and
    truncate.
    """

    def __init__(self, file: Any) -> None:
        self.name = _name_of(file)
        _require(file, "write", self.name)
        self._file: Any = file
        self._start: int | None = None
        with contextlib.suppress(AttributeError, OSError):
            if file.seekable():
                self._start = file.tell()
        self._ended = False

    def write(self, data: memoryview) -> None:
        """Write to the file, again until it has taken everything."""
        done = 0
        while done < len(data):
            count = self._file.write(data[done:])
            if not count:
                raise local.storage_error(errno.EAGAIN, "cannot write: this file takes no more data", self.name)
            done += count

    def commit(self) -> None:
        """Flush the file; it stays open."""
        flush = getattr(self._file, "flush", None)
        if callable(flush):
            flush()
        self._ended = True

    def abort(self) -> None:
        """Take back what was written, where the file can."""
        if self._ended or self._start is None:
            return
        self._ended = True
        with contextlib.suppress(AttributeError, OSError):
            self._file.seek(self._start)
            self._file.truncate()


def _name_of(file: object) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else f"<{type(file).__name__}>"


def _require(file: Any, method: str, name: str) -> None:
    if getattr(file, "closed", False):
        raise ParameterError(f"the file {name} is closed")
    if not callable(getattr(file, method, None)):
        raise ParameterError(f"the file {name} has no method {method!r}; expected an open binary file")
    able = getattr(file, {"read": "readable", "write": "writable"}[method], None)
    if callable(able) and not able():
        raise ParameterError(f"the file {name} was not opened to {method}")
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        raise ParameterError(f"the file {name} is open in text mode; expected binary mode ('b')")


def _ended_early(name: str, done: int, size: int) -> StorageError:
    return local.storage_error(
        errno.EIO, f"cannot read: it ended after {done} of {size} bytes; was it truncated?", name
    )
