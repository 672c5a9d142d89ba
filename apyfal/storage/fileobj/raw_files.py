"""The unbuffered file objects below `apyfal.storage.open`, for what the builtin ones cannot do.

Each writer has ``abort``: it discards what was written and what will be, and ``close`` then leaves the destination
unchanged.
"""

from __future__ import annotations

import errno
import io
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from apyfal.exceptions import UnsupportedByStore
from apyfal.storage.endpoints.sinks import Sink
from apyfal.storage.endpoints.sources import ObjectSource
from apyfal.storage.local import atomic

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "AbortsOnError",
    "AtomicFile",
    "AtomicFileProtocol",
    "ObjectReader",
    "ObjectWriter",
    "bytes_of",
    "discard_unclosed",
]


def bytes_of(data: ReadableBuffer) -> memoryview:
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


class AtomicFileProtocol(Protocol):
    """A file that appears when it is closed, whole or, after `abort`, not at all."""

    name: str

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        raise NotImplementedError

    def abort(self) -> None:
        """Discard the data, also what is written later. `close` then leaves the destination unchanged."""

    def close(self) -> None:
        """Publish it."""


def _no_descriptor(name: object, way: str) -> io.UnsupportedOperation:
    return io.UnsupportedOperation(f"fileno: {name!r} is not a local file and has no descriptor; {way}")


def _shown(file: ObjectReader | ObjectWriter) -> str:
    state = "[closed]" if file.closed else f"name={file.name!r} mode={file.mode!r}"
    return f"<apyfal.storage.{type(file).__name__} {state}>"


class AbortsOnError(io.RawIOBase):
    """A raw file that is discarded if its ``with`` block raises."""

    def abort(self) -> None:
        """Discard the data; `close` then leaves the destination unchanged."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not self.closed:
            self.abort()
        self.close()


def discard_unclosed(file: AtomicFileProtocol) -> None:
    """Discard a file that is freed without having been closed: nothing says that it is complete."""
    try:
        if file.closed:
            return
    except ValueError:  # not even opened
        return
    file.abort()
    try:
        file.close()
    finally:  # last, as it may raise (warnings as errors)
        text = f"unclosed file {file.name!r}: what was written is dropped"
        warnings.warn(text, ResourceWarning, stacklevel=3, source=file)


class AtomicFile(AbortsOnError, io.FileIO):
    """A local file open to be written anew, which takes its name when it is closed.

    Parameters
    ----------
    path
        The destination.
    mode
        ``wb``, ``xb``, ``w+b`` or ``x+b``.
    """

    def __init__(self, path: str, mode: str) -> None:
        self._aborted = False
        self._writer = atomic.LocalWriter(path, exclusive="x" in mode, readable="+" in mode)
        try:
            super().__init__(self._writer.fd, mode, closefd=False)
        except BaseException:
            self._writer.abort()
            raise
        self.name = path

    def write(self, data: ReadableBuffer, /) -> int:
        """Write once; any error makes `close` leave the destination as it was."""
        if self._aborted:
            return len(bytes_of(data))
        try:
            return super().write(data)
        except OSError as error:
            self._aborted = True
            if error.errno is None:
                raise
            raise atomic.storage_error(error.errno, f"cannot write: {error.strerror}", str(self.name)) from error

    def abort(self) -> None:
        """Discard the data; `close` then leaves the destination unchanged."""
        self._aborted = True

    def close(self) -> None:
        """Sync the file to disk and rename it to its destination, unless it was aborted or a write failed."""
        if self.closed:
            return
        try:
            if self._aborted:
                self._writer.abort()
            else:
                self._writer.commit()
        finally:
            super().close()

    def __del__(self) -> None:
        discard_unclosed(self)


class ObjectReader(io.RawIOBase):
    """An object of a store, open for reading."""

    def __init__(self, source: ObjectSource, name: str) -> None:
        self.name = name
        self._source = source
        self._position = 0

    @property
    def mode(self) -> str:
        """How it was opened."""
        return "rb"

    def readable(self) -> bool:
        """Return ``True``; `ValueError` if the file is closed."""
        self._check()
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Raise `io.UnsupportedOperation`: the file is open for reading."""
        self._check()
        raise io.UnsupportedOperation("File not open for writing")

    @property
    def size(self) -> int | None:
        """Bytes of the object, or ``None`` if the store does not tell."""
        return self._source.size

    def seekable(self) -> bool:
        """Whether the store can be asked for any part of it."""
        self._check()
        return self._source.seekable

    def readinto(self, out: WriteableBuffer, /) -> int:
        """Read once, into the caller's memory."""
        self._check()
        view = memoryview(out).cast("B")
        if self._source.size is not None and self._position >= self._source.size:
            return 0
        count = self._source.readinto(view)
        self._position += count
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """Read once, or to the end."""
        return super().read(-1 if size is None else size) or b""

    def readall(self) -> bytes:
        """Read to the end."""
        self._check()
        if self._source.size is None:
            return super().readall()
        out = bytearray(max(0, self._source.size - self._position))
        view = memoryview(out)
        done = 0
        while done < len(out):
            count = self.readinto(view[done:])
            if not count:
                break
            done += count
        return bytes(view[:done])

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; any place from 0 on is allowed, also behind the end."""
        self._check()
        if not self._source.seekable:
            raise io.UnsupportedOperation(f"{self.name}: this store cannot be asked for a part of the object")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size or 0}.get(whence)
        if base is None:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        if base + offset < 0:
            raise OSError(errno.EINVAL, f"{self.name}: negative seek position {base + offset}")
        self._position = base + offset
        self._source.seek(min(self._position, self._source.size or 0))
        return self._position

    def tell(self) -> int:
        """Return the offset of the next byte."""
        self._check()
        return self._position

    def fileno(self) -> int:
        """Raise `io.UnsupportedOperation`: only a local file has a descriptor, for `mmap` and the like."""
        self._check()
        raise _no_descriptor(self.name, "apyfal.storage.load gives its bytes as an array")

    def close(self) -> None:
        """Stop reading ahead and let go of the store."""
        if not self.closed:
            try:
                self._source.close()
            finally:
                super().close()

    def __repr__(self) -> str:
        return _shown(self)

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")


class ObjectWriter(AbortsOnError):
    """An object of a store, open to be written, which appears when it is closed.

    Parameters
    ----------
    sink
        Where it goes.
    name, mode
        Of the destination.
    position
        Bytes that are there already, behind which it is written.
    """

    def __init__(self, sink: Sink, name: str, mode: str, position: int = 0) -> None:
        self.name = name
        self._mode = mode
        self._sink = sink
        self._position = position
        self._aborted = False
        self._refused: str | None = None
        self._asked: str | None = None

    @property
    def mode(self) -> str:
        """How it was opened."""
        return self._mode

    def readinto(self, out: WriteableBuffer, /) -> int:
        """Raise `io.UnsupportedOperation`: the file is open for writing."""
        self._check()
        raise self.refusal("read")

    def readable(self) -> bool:
        """Return ``False``; `ValueError` if the file is closed."""
        self._check()
        return False

    def seekable(self) -> bool:
        """Return ``False``: what was sent cannot be changed."""
        self._check()
        return False

    def writable(self) -> bool:
        """Return ``True``; `ValueError` if the file is closed."""
        self._check()
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of `data`; any error makes `close` leave the destination as it was."""
        self._check()
        view = bytes_of(data)
        if not self._aborted:
            try:
                self._sink.write(view)
            except BaseException:
                self._aborted = True
                raise
        self._position += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Raise `io.UnsupportedOperation`: what was sent cannot be changed.

        Unless the position would stay the same, `close` then publishes nothing: libraries have swallowed the error of a
        seek, written on, and left a damaged object.
        """
        self._check()
        self._asked = "to seek"
        if not (whence == io.SEEK_SET and offset == self._position) and (whence == io.SEEK_SET or offset):
            self._refused = f"to go to byte {offset}" if whence == io.SEEK_SET else "to move in what was written"
        raise self.refusal("seek")

    def truncate(self, size: int | None = None, /) -> int:
        """Fail, as `seek` does, unless the size is that of what was written."""
        self._check()
        if size is None or size == self._position:
            return self._position
        self._refused = f"to cut the file to {size} bytes"
        raise self.refusal("truncate")

    @property
    def _other_mode(self) -> str:
        """The mode that does the same and can seek: in a local file, which is sent when it is closed."""
        return {"w": "w+b", "x": "x+b", "a": "r+b"}[self._mode[0]]

    def refusal(self, operation: str) -> io.UnsupportedOperation:
        """Return the error for what only a file that stays here until it is complete can do."""
        return io.UnsupportedOperation(
            f"{operation}: {self.name!r} is sent as it is written; mode {self._other_mode!r} can read and seek"
        )

    def fileno(self) -> int:
        """Raise `io.UnsupportedOperation`: only a local file has a descriptor."""
        self._check()
        raise _no_descriptor(self.name, f"mode {self._other_mode!r} is a local file until it is closed")

    @property
    def refused(self) -> str | None:
        """What the last operation was that had to be refused, for `close` and `__exit__`."""
        return self._refused or self._asked

    def not_written(self) -> UnsupportedByStore:
        """Return the error for a writer that was asked for what it had to refuse."""
        return UnsupportedByStore(
            f"cannot write {self.name!r}: the writer was asked {self.refused}, and an object that is sent as it is"
            f" written cannot; nothing was written; mode {self._other_mode!r} can",
            path=self.name,
        )

    def tell(self) -> int:
        """Return the offset of the next byte."""
        self._check()
        return self._position

    def abort(self) -> None:
        """Discard the data; `close` then leaves the destination unchanged."""
        self._aborted = True

    def close(self) -> None:
        """Make the object visible, unless it was aborted or a write failed.

        Raises
        ------
        UnsupportedByStore
            The writer was asked to seek or to truncate, and refused: what was written is not what was meant.
        """
        if self.closed:
            return
        try:
            if self._aborted or self._refused is not None:
                self._sink.abort()
            else:
                self._sink.commit()
            if self._refused is not None and not self._aborted:
                raise self.not_written()
        finally:
            super().close()

    def __del__(self) -> None:
        discard_unclosed(self)

    def __repr__(self) -> str:
        return _shown(self)

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
