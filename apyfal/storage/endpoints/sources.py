"""Where bytes come from: local files, objects of a store, open file objects; one interface for all."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

from apyfal.exceptions import StorageError
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.local import atomic, direct_io, duck
from apyfal.storage.mounting.table import MountedPath
from apyfal.storage.transfer.reader import stream

__all__ = ["FileObjectSource", "LocalSource", "ObjectSource", "Source"]


#: Ranges of one object in flight at once for a reader that takes it in pieces: two already fill a fast link, the others
#: cover the time until a response begins.
_CONNECTIONS = 4


class Source(ABC):
    """Bytes to be read, front to back or (where `seekable`) anywhere.

    Attributes
    ----------
    name
        For messages and progress bars; holds no secret.
    size
        Bytes from the first to the last, or ``None`` if that is not known before the end.
    connections
        How many calls of `receive` at once are worth it; 0: it is not a remote object, or cannot be read in ranges.
    seekable
        Whether `pread` works. It may then be called from several threads at once.
    path
        The path of a plain local file whose whole content this is, so that it can be mapped; else ``None``.
    """

    name: str
    size: int | None
    seekable: bool = False
    connections: int = 0
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

    def receive(self, out: memoryview, offset: int) -> None:
        """Fill all of `out` with the bytes from `offset` on, at their final address; where `connections` is over 0.

        May be called from that many threads at once. Who received everything this way calls `verify` at the end.
        """
        raise io.UnsupportedOperation(f"{self.name} can only be read from front to back")

    def verify(self) -> None:
        """Raise `ChecksumMismatch` where all that was received is not what the store states."""

    def interrupt(self) -> None:
        """Make a `readinto` that waits in another thread end soon, with an error. Nothing but `close` may follow."""

    @abstractmethod
    def close(self) -> None:
        """Free what this object opened; a caller's own file stays open. May be called again."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class LocalSource(Source):
    """A local file; what is not a regular file is read front to back."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._descriptor = atomic.open_to_read(path)
        status = os.fstat(self._descriptor)
        self._position = 0
        self.size: int | None = None
        if stat.S_ISREG(status.st_mode) and direct_io.says_its_size(self._descriptor, status):
            self.seekable = True
            if atomic.own_descriptor(path) is None:
                self.path = path
            else:  # as any program does that is handed an open file, go on where it stands
                self._position = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            self.size = max(0, status.st_size - self._position)
        self._start = self._position

    def readinto(self, out: memoryview) -> int:
        """Read once at the position, which moves on."""
        with atomic.translating("read", self.name):
            if not self.seekable:
                return direct_io.read_into(self._descriptor, out)
            count = direct_io.read_into(self._descriptor, out, self._position)
        if count == 0 and len(out) and self.size is not None and self._position - self._start < self.size:
            raise _ended_early(self.name, self._position - self._start, self.size)
        self._position += count
        return count

    def pread(self, out: memoryview, offset: int) -> int:
        """Read once at `offset`."""
        if not self.seekable:
            return super().pread(out, offset)
        with atomic.translating("read", self.name):
            return direct_io.read_into(self._descriptor, out, self._start + offset)

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Return the descriptor, which this object still owns."""
        return self._descriptor


class ObjectSource(Source):
    """One version of an object in a store. Breaks are resumed; a checksum that the store states is verified."""

    def __init__(self, target: MountedPath, version: str | None = None) -> None:
        self.name = str(target.location)
        self._target = target
        handler, path = target.handler, target.path
        info = None
        if version is not None:
            what = f"cannot read version {version!r} of {self.name!r}"
            info = retry_call(handler, lambda: handler.describe_version(path, version), what)
        self._stream = stream(handler, path, info=info)
        self.size = self._stream.size
        self.seekable = self._stream.seekable
        self.connections = _CONNECTIONS if self.seekable else 0

    @property
    def info(self) -> ObjectInfo:
        """The version that is read."""
        return self._stream.info

    @property
    def appendable(self) -> bool:
        """Whether the store can make the front of a longer object of exactly this version."""
        return self.seekable and self._target.handler.limits.max_copied_part > 0

    def receive(self, out: memoryview, offset: int) -> None:
        """Receive over one connection."""
        self._stream.receive(out, offset)

    def verify(self) -> None:
        """Compare the CRC of all pieces together."""
        self._stream.verify()

    def readinto(self, out: memoryview) -> int:
        """Read the next bytes, from the read-ahead if they are there."""
        return self._stream.readinto(out)

    def seek(self, position: int) -> None:
        """Let the next `readinto` begin at `position`."""
        self._stream.seek(position)

    def pread(self, out: memoryview, offset: int) -> int:
        """Receive at `offset`, over several connections if it is long."""
        return self._stream.pread(out, offset) if self.seekable else super().pread(out, offset)

    def interrupt(self) -> None:
        """Cancel the transfer."""
        self._stream.close()

    def close(self) -> None:
        """Stop reading ahead, and let go of the mount."""
        self._stream.close()
        self._target.release()


class FileObjectSource(Source):
    """An open binary file of the caller's, from its current position on."""

    def __init__(self, file: Any) -> None:
        duck.require(file, "read")
        self.name = duck.name_of(file)
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
        """Drop the reference to the file, which stays open."""
        self._file = None
        self._readinto = None

    def _fill(self, out: memoryview) -> int:
        if self._readinto is not None:
            count = self._readinto(out)
            if count is None:
                raise atomic.storage_error(errno.EAGAIN, "cannot read: this file does not wait for its data", self.name)
            return int(count)
        data = self._file.read(len(out))
        out[: len(data)] = data
        return len(data)


def _ended_early(name: str, done: int, size: int) -> StorageError:
    return atomic.storage_error(
        errno.EIO, f"cannot read: it ended after {done} of {size} bytes; was it truncated?", name
    )
