"""Outputs that nobody has fetched when the daemon ends: kept in files, so that the next daemon has them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from apyfal.host.server.transport.bodies import Data

__all__ = ["SavedOutputs"]

_PIECE = 16 << 20


class SavedOutputs:
    """Outputs in files, one a job, under the job's id.

    Parameters
    ----------
    directory
        Made with mode 0700 when the first is saved.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, job_id: str, data: Data, until: float) -> bool:
        """Write an output down, whole or not at all.

        Parameters
        ----------
        job_id, data
            Whose output, and the output.
        until
            When to give up, by the monotonic clock.

        Returns
        -------
        bool
            Whether it is there: not when time or space ran out.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        temporary = self._directory / f"{job_id}.part"
        try:
            with open(temporary, "xb", opener=_private, buffering=0) as file:
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
        """Return an output, which the caller closes, or ``None``."""
        try:
            return Data(file=open(self._directory / job_id, "rb", buffering=0))
        except FileNotFoundError:
            return None

    def remove(self, job_id: str) -> None:
        """Forget an output."""
        with contextlib.suppress(FileNotFoundError):
            (self._directory / job_id).unlink()

    def expire(self, age: float) -> list[str]:
        """Forget outputs that were saved more than `age` seconds ago, and what a killed daemon left of one.

        Returns
        -------
        list of str
            Ids of the jobs whose outputs they were.
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
