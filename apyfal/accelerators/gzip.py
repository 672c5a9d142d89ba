"""``gzip``: the input, compressed (RFC 1952).

Kernel arguments: ``src, dst, bytes, capacity, report, level``. Every chunk becomes a member, so chunks can be
compressed at the same time; the concatenated members are one gzip file.
"""

from __future__ import annotations

import numpy as np

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import REPORTED, Argument, Chunking, Parameter

__all__ = ["DEFINITION"]

_WRAPPER_BYTES = 18  # RFC 1952: 10 bytes before the data, 8 after it


def _bound(nbytes: int) -> int:
    # compressBound() of zlib's compress.c: the largest size of data that does not compress.
    return nbytes + (nbytes >> 12) + (nbytes >> 14) + (nbytes >> 25) + 13 + _WRAPPER_BYTES


DEFINITION = Definition(
    name="gzip",
    kernel="gzip",
    summary="the input, compressed",
    arguments=tuple(Argument(name) for name in ("src", "dst", "bytes", "capacity", "report", "level")),
    parameters={"level": Parameter("level", "int32", 6, minimum=0, maximum=9)},
    out_dtype=np.dtype("uint8"),
    output=REPORTED,
    capacity=_bound,
    chunking=Chunking("records", 1),
    clear_outputs=False,
)
