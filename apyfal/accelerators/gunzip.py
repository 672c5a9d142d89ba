"""``gunzip``: the content of a gzip file of one or several members (RFC 1952).

Kernel arguments: ``src, dst, bytes, skip, capacity, state, first, last, report``. ``state`` keeps the decoder between
the runs; it is reset if ``first`` is set and ``skip`` is 0. A run begins ``skip`` bytes into ``src`` and ends when
the chunk is consumed (status 0) or when ``dst`` is full (status 1); then it is run again, with a larger ``skip``.
If ``last`` is set, input that ends in the middle of a member is an error.
"""

from __future__ import annotations

import numpy as np

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import REPORTED, Argument, Chunking

__all__ = ["DEFINITION"]

_STATE_BYTES = 64 << 10  # the window of 32 KiB and the decoder's tables
_EXPANSION = 4  # typical; more is produced by running a chunk again
_MIN_CAPACITY = 64 << 10


def _capacity(nbytes: int) -> int:
    return max(nbytes * _EXPANSION, _MIN_CAPACITY)


DEFINITION = Definition(
    name="gunzip",
    kernel="gunzip",
    summary="the content of a gzip file",
    arguments=tuple(
        Argument(name) for name in ("src", "dst", "bytes", "skip", "capacity", "state", "first", "last", "report")
    ),
    out_dtype=np.dtype("uint8"),
    output=REPORTED,
    capacity=_capacity,
    state=_STATE_BYTES,
    chunking=Chunking("records", 1),
    clear_outputs=False,
)
