"""Which keys are certainly new, so that a new job needs no query of the database (a one-hash Bloom filter)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

__all__ = ["KnownKeys"]

#: bytes of the table, one for each hash: with 100,000 keys in it, about 5 of 100 new keys seem known
_NBYTES: Final = 1 << 21


class KnownKeys:
    """A set that contains all keys that were added, and perhaps others. Used from one thread.

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
