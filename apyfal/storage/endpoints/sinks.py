"""Where bytes go: local files, objects of a store, open file objects; whole or not at all, by one interface."""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from apyfal.exceptions import ObjectChanged
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.local import atomic, duck
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.mounting.table import MountedPath
from apyfal.storage.transfer.multipart import MultipartWriter

__all__ = ["AppendingSink", "FileObjectSink", "LocalSink", "ObjectSink", "Sink"]

#: Parts on their way at once for a writer that hands them over one by one.
_CONNECTIONS = 3


class Sink(ABC):
    """A destination that appears whole, by `commit`, or not at all.

    As a context manager it commits at the end of the block and aborts when the block raises.

    Attributes
    ----------
    name
        For messages and progress bars; holds no secret.
    connections
        How many pieces of `submit` at once are worth it; 0: each is written before the call returns.
    takes_back
        Whether `abort` leaves the destination as it was; a pipe keeps what it has got.
    """

    name: str
    connections: int = 0
    takes_back: bool = True

    @abstractmethod
    def write(self, data: memoryview) -> None:
        """Append all of `data`; its memory can be used again when this returns."""

    def submit(self, data: memoryview) -> Future[None]:
        """Append all of `data`, perhaps while this has returned already.

        Returns
        -------
        Future
            Done when the memory can be used again. An error may be raised here, there, or by `commit`.
        """
        self.write(data)
        done: Future[None] = Future()
        done.set_result(None)
        return done

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


class LocalSink(Sink):
    """A local file, replaced as a whole; what is not a regular file is written directly."""

    def __init__(self, path: str, size: int | None = None, exclusive: bool = False) -> None:
        self.name = path
        self._writer = atomic.LocalWriter(path, size=size, exclusive=exclusive)
        self.takes_back = not self._writer.direct

    def write(self, data: memoryview) -> None:
        """Append to the unfinished file."""
        self._writer.write(data)

    def commit(self) -> None:
        """Sync the file to disk and rename it to its destination."""
        self._writer.commit()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._writer.abort()


class ObjectSink(Sink):
    """An object in a store, which is replaced as a whole.

    Parameters
    ----------
    target
        The object; released in the end.
    size, exclusive
        As for `LocalSink`.
    old
        The version that is replaced, whose metadata is kept: if the object has changed by then, `commit` raises
        `ObjectChanged`.
    metadata
        Content type and the like of the object.
    """

    def __init__(
        self,
        target: MountedPath,
        size: int | None = None,
        exclusive: bool = False,
        old: ObjectInfo | None = None,
        metadata: ObjectMetadata | None = None,
    ) -> None:
        self.name = str(target.location)
        self._target = target
        self._size = size
        self._old = old
        self._stream = MultipartWriter(
            target.handler, target.path, size, exclusive=exclusive, metadata=metadata, like=old
        )
        if size is not None:
            self.connections = _CONNECTIONS

    def write(self, data: memoryview) -> None:
        """Take all of `data`, to be sent as a part or with others."""
        self._stream.write(data)

    def submit(self, data: memoryview) -> Future[None]:
        """Send `data` as one part, if it is large enough."""
        limits = self._target.handler.limits
        if self._size is None or len(data) < max(limits.min_part, self._size / limits.max_parts):
            return super().submit(data)  # the number of parts is limited, and their size adapts to that in `write`
        return self._stream.submit(data)

    def commit(self) -> None:
        """Make the object visible."""
        try:
            if self._old is not None:
                self._require(self._old)
            self._stream.commit()
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove the parts."""
        self._stream.abort()
        self._target.release()

    def _require(self, old: ObjectInfo) -> None:
        """Raise `ObjectChanged` if somebody else has written the object, whose work would be lost."""
        handler, path = self._target.handler, self._target.path
        now = retry_call(handler, lambda: handler.describe(path), f"cannot write {self.name!r}")
        if (now.etag, now.size) != (old.etag, old.size):
            raise ObjectChanged(
                f"cannot write {self.name!r}: it was changed since it was opened: {old.size} bytes with ETag {old.etag}"
                f" became {now.size} bytes with ETag {now.etag}",
                path=path,
            )


class AppendingSink(ObjectSink):
    """What comes behind the end of an object, which the store itself copies; nothing is changed before `commit`."""

    def __init__(self, target: MountedPath, old: ObjectInfo, metadata: ObjectMetadata | None = None) -> None:
        super().__init__(target, old=old, metadata=metadata)
        self._front: ObjectInfo | None = old

    def write(self, data: memoryview) -> None:
        """Append all of `data`."""
        if self._front is not None:
            self._stream.begin_with(self._front)
            self._front = None
        super().write(data)

    def commit(self) -> None:
        """Replace the object by the longer one; do nothing if nothing was written."""
        if self._front is None:
            super().commit()
        else:
            self.abort()


class FileObjectSink(Sink):
    """An open binary file of the caller's, from its current position on.

    Whole or not at all only as far as the file allows: `abort` takes back what was written where it can seek and
    truncate.
    """

    def __init__(self, file: Any) -> None:
        duck.require(file, "write")
        self.name = duck.name_of(file)
        self._file: Any = file
        self._start: int | None = None
        with contextlib.suppress(AttributeError, OSError):
            if file.seekable():
                self._start = file.tell()
        self.takes_back = self._start is not None
        self._ended = False

    def write(self, data: memoryview) -> None:
        """Write to the file, again until it has taken everything."""
        done = 0
        while done < len(data):
            count = self._file.write(data[done:])
            if not count:
                raise atomic.storage_error(errno.EAGAIN, "cannot write: this file takes no more data", self.name)
            done += count

    def commit(self) -> None:
        """Flush the file; it stays open."""
        flush = getattr(self._file, "flush", None)
        if callable(flush):
            flush()
        self._ended = True

    def abort(self) -> None:
        """Take back what was written, if the file can."""
        if self._ended or self._start is None:
            return
        self._ended = True
        with contextlib.suppress(AttributeError, OSError):
            self._file.seek(self._start)
            self._file.truncate()
