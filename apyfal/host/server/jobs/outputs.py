"""Outputs not yet fetched when the daemon ends: kept in files, so that the next daemon can serve them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from apyfal.host.server.transport.bodies import Data

__all__ = ["SavedOutputs"]

_PIECE = 16 << 20


class SavedOutputs:
    """Saved outputs, one file for each job, named by the job's id.

    Parameters
    ----------
    directory
        Created with mode 0700 when the first output is saved.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, job_id: str, data: Data, until: float) -> bool:
        """Save an output. If this fails, no file remains.

        Parameters
        ----------
        job_id, data
            The job, and its output.
        until
            Time of the monotonic clock at which to give up.

        Returns
        -------
        bool
            Whether the output was saved. False if time or disk space ran out.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        temporary = self._directory / f"{job_id}.part"
        try:
            with open(temporary, "xb", opener=_private) as file:  # buffered: it writes all of a piece, or raises
                for piece in data.pieces(_PIECE):
                    if time.monotonic() > until:
                        raise TimeoutError
                    file.write(piece)
            temporary.rename(self._directory / job_id)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            return False
        return True

    def open(self, job_id: str) -> Data | None:
        """Return a saved output, which the caller closes, or ``None``."""
        try:
            return Data(file=open(self._directory / job_id, "rb", buffering=0))
        except FileNotFoundError:
            return None

    def remove(self, job_id: str) -> None:
        """Remove a saved output, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            (self._directory / job_id).unlink()

    def expire(self, age: float) -> list[str]:
        """Remove outputs that were saved more than `age` seconds ago, and partial files of a killed daemon.

        Returns
        -------
        list of str
            Ids of the jobs whose outputs were removed.
        """
        before = time.time() - age
        expired = []
        with contextlib.suppress(FileNotFoundError):
            for path in list(self._directory.iterdir()):
                if path.suffix == ".part" or path.stat().st_mtime < before:
                    path.unlink()
                    expired.append(path.stem)
        return expired


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
