"""``trng``: random bytes; on the emulator, from the operating system.

Kernel arguments: ``dst, capacity``. It fills ``capacity`` bytes. There is no input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import Argument, Chunking, OutputSize, Parameter
from apyfal.exceptions import ParameterError
from apyfal.units import parse_size

__all__ = ["DEFINITION"]


def _size(value: object) -> int:
    try:
        return parse_size(value)  # type: ignore[arg-type]  # it refuses what is neither a number nor text
    except ParameterError:
        raise ValueError("expected a number of bytes, or text like '1MiB'") from None


def _bytes(parameters: Mapping[str, Any]) -> int:
    return int(parameters["nbytes"])


DEFINITION = Definition(
    name="trng",
    kernel="trng",
    summary="nbytes random bytes",
    arguments=(Argument("dst"), Argument("capacity")),
    parameters={"nbytes": Parameter("nbytes", "object", convert=_size)},
    out_dtype=np.dtype("uint8"),
    output=OutputSize("bytes"),
    size=_bytes,
    chunking=Chunking("records", 1),
    clear_outputs=False,
)
