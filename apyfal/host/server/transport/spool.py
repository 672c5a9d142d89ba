"""Temporary files without a name, for data too large for memory. Each byte counts against its user's quota."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

from apyfal.host.server.policy.quotas import Share, require_free_space
from apyfal.host.server.policy.refusals import TooLarge

__all__ = ["SpoolFile"]


class SpoolFile(io.FileIO):
    """A temporary file that refuses to grow beyond its limits. Closing it frees the space and the quota.

    Parameters
    ----------
    directory
        The directory of the file system that holds the file; the file has no name in it.
    share
        Share of a quota that each byte counts against; owned by the file from now on.
    limit
        Largest size in bytes.
    reserve
        Bytes of the file system that must stay free.
    """

    def __init__(self, directory: Path, share: Share, limit: int, reserve: int) -> None:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as opened:
            super().__init__(os.dup(opened.fileno()), "r+b")
        self._share = share
        self._limit = limit
        self._reserve = reserve

    def write(self, data: Any, /) -> int:
        """Append all of the data.

        Raises
        ------
        TooLarge, TooMany, TooBusy
            The limit of the file, of the user, or of the disk is reached.
        OSError
            The disk is full all the same.
        """
        nbytes = memoryview(data).nbytes
        end = self.tell() + nbytes
        if end > self._limit:
            raise TooLarge(f"more than {self._limit} bytes, the largest that this host takes")
        if end > self._share.held:
            require_free_space(self.fileno(), nbytes, self._reserve)
            self._share.reserve(end - self._share.held)
        done = super().write(data) or 0
        while done < nbytes:  # a disk that is just full takes a part, and no more the next time
            done += super().write(memoryview(data).cast("B")[done:]) or 0
        return nbytes

    def close(self) -> None:
        """Free the file and its share of the quota. Idempotent."""
        super().close()
        self._share.close()
