"""Which keys are certainly new: what a new job has to know, without a look into the database."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

__all__ = ["KnownKeys"]

#: one for each place of the table, a power of two: of 100,000 keys that are new, 5,000 seem known
_NBYTES: Final = 1 << 21


class KnownKeys:
    """A set of keys that has all that were added, and perhaps others. Used from one thread.

    Parameters
    ----------
    nbytes
        Size of the table, a power of two.
    """

    def __init__(self, nbytes: int = _NBYTES) -> None:
        self._places = bytearray(nbytes)
        self._mask = nbytes - 1

    def add(self, key: Hashable) -> None:
        """Add a key."""
        self._places[hash(key) & self._mask] = 1

    def may_have(self, key: Hashable) -> bool:
        """Return whether a key may have been added; false: it certainly was not."""
        return bool(self._places[hash(key) & self._mask])
