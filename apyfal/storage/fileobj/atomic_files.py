"""Buffered and text files over the raw writers: if a ``with`` block, flush or write fails, nothing is written.

The standard library's own would close the raw file in all of these cases, and so publish what happens to be there.
"""

from __future__ import annotations

import io
from types import TracebackType
from typing import TYPE_CHECKING, cast

from apyfal.storage.fileobj.raw_files import AtomicFileProtocol, ObjectWriter, discard_unclosed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["AtomicRandom", "AtomicTextWriter", "AtomicWriter"]


class _AtomicFile(io.IOBase):
    """What the three have in common."""

    def _below(self) -> AtomicFileProtocol:
        raise NotImplementedError

    def abort(self) -> None:
        """Discard the data. After this, `close` leaves the destination unchanged."""
        self._below().abort()

    def close(self) -> None:
        """Write what is buffered and publish the file; after an error the destination is as it was."""
        if self.closed:
            return
        try:
            self.flush()
        except BaseException:
            self.abort()
            raise
        finally:
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or self.closed:
            self.close()
            return
        below = self._below()
        self.abort()
        self.close()
        if kind is SystemError and isinstance(below, ObjectWriter) and below.refused is not None:
            raise below.not_written() from value  # a C library (HDF5) that lost the error of a seek

    def __del__(self) -> None:
        discard_unclosed(cast(AtomicFileProtocol, self))


class AtomicWriter(_AtomicFile, io.BufferedWriter):
    """A binary file open to be written."""

    def _below(self) -> AtomicFileProtocol:
        return cast(AtomicFileProtocol, self.raw)

    def seek(self, target: int, whence: int = io.SEEK_SET, /) -> int:
        """Move, or let the raw file refuse it, which remembers that."""
        if isinstance(self.raw, ObjectWriter):
            self._refuse_again()
            self.flush()
            return self.raw.seek(target, whence)
        return super().seek(target, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file, or let the raw file refuse it."""
        if isinstance(self.raw, ObjectWriter):
            self._refuse_again()
            self.flush()
            return self.raw.truncate(size)
        return super().truncate(size)

    def _refuse_again(self) -> None:
        """Raise the refusal of a seek again, if a library goes on with the closed file (HDF5 does)."""
        if self.closed and isinstance(self.raw, ObjectWriter) and self.raw.refused is not None:
            raise self.raw.not_written()

    def read(self, size: int | None = -1, /) -> bytes:
        """Raise `io.UnsupportedOperation`: the file is open for writing."""
        if isinstance(self.raw, ObjectWriter):
            raise self.raw.refusal("read")
        return super().read(size)

    read1 = read

    def readinto(self, out: WriteableBuffer, /) -> int:
        """Raise `io.UnsupportedOperation`: the file is open for writing."""
        if isinstance(self.raw, ObjectWriter):
            raise self.raw.refusal("read")
        return super().readinto(out)

    readinto1 = readinto


class AtomicRandom(_AtomicFile, io.BufferedRandom):
    """A binary file open to be written and read back."""

    def _below(self) -> AtomicFileProtocol:
        return cast(AtomicFileProtocol, self.raw)


class AtomicTextWriter(_AtomicFile, io.TextIOWrapper):
    """A text file open to be written."""

    def _below(self) -> AtomicFileProtocol:
        return cast(AtomicFileProtocol, self.buffer)

    def seek(self, cookie: int, whence: int = io.SEEK_SET, /) -> int:
        """Move, or let the raw file refuse it."""
        if self.seekable():
            return super().seek(cookie, whence)
        self.flush()
        return cast(io.BufferedWriter, self.buffer).seek(cookie, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file, or let the raw file refuse it."""
        self.flush()
        return cast(io.BufferedWriter, self.buffer).truncate(size)
