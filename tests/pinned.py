"""Arrays that a card uses in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

import apyfal


def pinned(values: ArrayLike, dtype: DTypeLike = None) -> np.ndarray:
    """Return a pinned array with these values; their own type by default."""
    given = np.asarray(values, dtype)
    array = apyfal.empty(given.shape, given.dtype)
    array[...] = given
    return array
