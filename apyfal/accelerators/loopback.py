"""``loopback``: the output is the input.

Kernel arguments: ``src, dst, bytes``. It copies ``bytes`` bytes.
"""

from __future__ import annotations

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import Argument, Chunking

__all__ = ["DEFINITION"]

DEFINITION = Definition(
    name="loopback",
    kernel="loopback",
    summary="the output is the input",
    arguments=(Argument("src"), Argument("dst"), Argument("bytes")),
    chunking=Chunking("records", 1),
    clear_outputs=False,
)
