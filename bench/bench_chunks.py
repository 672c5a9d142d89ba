"""Chunk size and ring depth: a job through rings at both ends, over chunks of 1 to 32 MiB and rings of 2 to 5 slots.

The constants of `apyfal.pipeline.plan` come from here. The limit is the card's link alone. Arrays that the card cannot
use in place go through the rings as data of a store does, without a store's own noise.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable

import numpy as np
from _common import Bench, main

import apyfal
from apyfal.pipeline import plan

MIB = 1 << 20
CARD = {
    "to_device_bandwidth": "512MiB",
    "from_device_bandwidth": "1GiB",
    "compute_bandwidth": "2GiB",
    "latency": "20us",
}


def benches(quick: bool) -> list[Bench]:
    """256 MiB (32 MiB in a smoke run)."""
    nbytes = (32 if quick else 256) * MIB
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    card = stack.enter_context(apyfal.Accelerator("loopback", emulator=CARD))
    source = np.frombuffer(np.random.default_rng(1).bytes(nbytes + 1), np.uint8)[1:]
    target = np.empty(nbytes + 1, np.uint8)[1:]

    def check(_: object) -> None:
        if not np.array_equal(source, target):
            raise AssertionError("wrong data")

    def job(chunk: int, depth: int) -> Callable[[], object]:
        def run() -> object:
            before = plan._CHUNK, plan._DEPTH
            plan._CHUNK, plan._DEPTH = chunk, depth
            try:
                return card.process(source, target)
            finally:
                plan._CHUNK, plan._DEPTH = before

        return run

    bench = Bench(f"{nbytes // MIB} MiB through rings of both ends: which chunks, how many slots?", nbytes)
    pinned = apyfal.empty(8 * MIB, np.uint8)
    bo, offset = card._card.device.import_memory(pinned)
    bench.add(
        "limit: the card's link", lambda: [bo.sync(0, offset, 8 * MIB) for _ in range(nbytes // (8 * MIB))], limit=True
    )
    for chunk in (1, 2, 4, 8, 16, 32):
        bench.add(f"chunks of {chunk} MiB, 3 slots", job(chunk * MIB, 3), check)
    for depth in (2, 4, 5):
        bench.add(f"chunks of 8 MiB, {depth} slots", job(8 * MIB, depth), check)
    return [bench]


if __name__ == "__main__":
    main(benches, rounds=5)
