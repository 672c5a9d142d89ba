"""Buffered and text files over the raw writers: a failed ``with`` block, flush or write drops the whole file.

The standard library's own would close the raw file in all of these cases, and so publish what happens to be there.
"""

from __future__ import annotations

import io
from types import TracebackType
from typing import cast

from apyfal.storage.fileobj.raw_files import AtomicFileProtocol, forsake

__all__ = ["AtomicTextWriter", "AtomicWriter", "WholeRandom"]


class _AtomicFile(io.IOBase):
    """What the three have in common."""

    def _below(self) -> AtomicFileProtocol:
        raise NotImplementedError

    def abort(self) -> None:
        """Drop everything; `close` then leaves the destination as it was."""
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
        if kind is not None and not self.closed:
            self.abort()
        self.close()

    def __del__(self) -> None:
        forsake(cast(AtomicFileProtocol, self))


class AtomicWriter(_AtomicFile, io.BufferedWriter):
    """A binary file open to be written."""

    def _below(self) -> AtomicFileProtocol:
        return cast(AtomicFileProtocol, self.raw)


class WholeRandom(_AtomicFile, io.BufferedRandom):
    """A binary file open to be written and read back."""

    def _below(self) -> AtomicFileProtocol:
        return cast(AtomicFileProtocol, self.raw)


class AtomicTextWriter(_AtomicFile, io.TextIOWrapper):
    """A text file open to be written."""

    def _below(self) -> AtomicFileProtocol:
        return cast(AtomicFileProtocol, self.buffer)
