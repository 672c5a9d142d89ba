"""``sha3``: the SHA-3 digest of the input (FIPS 202).

Kernel arguments: ``src, dst, bytes, state, first, last, type``. ``type`` is the digest's size in bits: 224, 256, 384 or
512. ``state`` keeps the sponge between chunks: the kernel clears it if ``first`` is set, and writes the digest to
``dst`` if ``last`` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import Argument, Chunking, OutputSize, Parameter

__all__ = ["DEFINITION"]

_TYPES = {f"sha3-{bits}": bits for bits in (224, 256, 384, 512)}
_STATE_BYTES = 256  # 200 bytes of sponge and the position in its block


def _digest_bytes(parameters: Mapping[str, Any]) -> int:
    return _TYPES[str(parameters["type"])] // 8


def _finish(output: np.ndarray) -> dict[str, object]:
    return {"digest": output.tobytes().hex()}


DEFINITION = Definition(
    name="sha3",
    kernel="sha3",
    summary="the SHA-3 digest of the input's bytes",
    arguments=tuple(Argument(name) for name in ("src", "dst", "bytes", "state", "first", "last", "type")),
    parameters={"type": Parameter("type", "uint32", "sha3-256", choices=_TYPES)},
    out_dtype=np.dtype("uint8"),
    output=OutputSize("bytes"),
    size=_digest_bytes,
    state=_STATE_BYTES,
    finish=_finish,
    chunking=Chunking("records", 1),
    clear_outputs=False,
)
