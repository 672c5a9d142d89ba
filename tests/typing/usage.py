"""Typed as a user's program: checked by mypy and pyright, never run."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np

import apyfal


def drive() -> None:
    """Use the public names with the types that they promise."""
    array = apyfal.empty((4, 1024), np.uint8)
    array[...] = 1
    pinned: bool = apyfal.is_pinned(array)
    info: dict[str, Any] = {}
    with apyfal.Accelerator("sha3", driver="emulator", memory_limit="64MiB") as sha3:
        sha3.start(type="sha3-512")
        digest: dict[str, str] = sha3.process(array, info_dict=info, timeout=5.0)
        future: Future[Any] = sha3.process_submit("s3://bucket/key")
        future.cancel()
        for result in sha3.process_map(["a", "b"]):
            print(result, digest, pinned)
