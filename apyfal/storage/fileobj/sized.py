"""Buffered readers that know how many bytes their file has, as libraries above fsspec ask for."""

from __future__ import annotations

import io
import os
import stat

from apyfal.storage.fileobj.raw_files import ObjectReader

__all__ = ["SizedReader"]


class SizedReader(io.BufferedReader):
    """A binary file open to be read."""

    @property
    def size(self) -> int | None:
        """Bytes of the whole file; ``None`` if that is not known before its end (a pipe, a coded web page)."""
        if isinstance(self.raw, ObjectReader):
            return self.raw.size
        status = os.fstat(self.fileno())
        return status.st_size if stat.S_ISREG(status.st_mode) else None
