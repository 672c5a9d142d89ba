"""Memory that reads as a file does, without a copy of it."""

from __future__ import annotations

import io
import os
from typing import Any

__all__ = ["MemoryFile"]


class MemoryFile(io.RawIOBase):
    """A read-only file over memory that somebody else keeps."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._at = 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; see `io.IOBase.seek`."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._memory)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Copy the next bytes into `buffer`; 0 at the end."""
        out = memoryview(buffer).cast("B")
        piece = self._memory[self._at : self._at + len(out)]
        out[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
