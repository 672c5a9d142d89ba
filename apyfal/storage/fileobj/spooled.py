"""Objects that are written and read back, or changed in place: a local file until they are closed."""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
from typing import TYPE_CHECKING

from apyfal.storage.endpoints.sinks import Sink
from apyfal.storage.endpoints.sources import Source
from apyfal.storage.fileobj.raw_files import AbortsOnError, bytes_of, discard_unclosed
from apyfal.storage.local import atomic, direct_io

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["SpooledFile"]

_STEP = 8 << 20


class SpooledFile(AbortsOnError, io.FileIO):
    """An object of a store, open to be written and read: a temporary local file until it is closed, then sent.

    Parameters
    ----------
    sink
        Where it goes; ended here.
    name, mode
        Of the destination.
    old
        What it holds at first. It is sent again only if something was written.
    """

    def __init__(self, sink: Sink, name: str, mode: str, old: Source | None = None) -> None:
        self._sink = sink
        self._aborted = False
        self._changed = old is None
        try:
            with tempfile.TemporaryFile(buffering=0) as file:
                descriptor = file.fileno()
                if old is not None:
                    _fill(descriptor, old)
                if mode.startswith("a"):
                    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
                super().__init__(os.dup(descriptor), mode)
        except BaseException:
            sink.abort()
            raise
        self.name = name

    def abort(self) -> None:
        """Discard the data; `close` then leaves the destination unchanged."""
        self._aborted = True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write to the local file; an error makes `close` leave the destination as it was."""
        if self._aborted:
            return len(bytes_of(data))
        self._changed = True
        try:
            return super().write(data)
        except OSError:
            self._aborted = True
            raise

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the local file."""
        self._changed = True
        return super().truncate(size)

    def close(self) -> None:
        """Send the local file, unless it was aborted, a write failed, or nothing was changed."""
        if self.closed:
            return
        try:
            if self._changed and not self._aborted:
                self._send()
                self._sink.commit()
        finally:
            self._sink.abort()
            super().close()

    def _send(self) -> None:
        buffer = memoryview(bytearray(_STEP))
        position = 0
        while count := direct_io.read_into(self.fileno(), buffer, position):
            self._sink.write(buffer[:count])
            position += count

    def __del__(self) -> None:
        discard_unclosed(self)


def _fill(descriptor: int, old: Source) -> None:
    """Write all of `old` to a local file, whose position stays at its beginning."""
    buffer = memoryview(bytearray(_STEP))
    position = 0
    while count := old.readinto(buffer):
        with atomic.translating("keep a copy of", old.name):
            direct_io.write_all(descriptor, buffer[:count], position)
        position += count
