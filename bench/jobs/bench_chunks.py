"""Chunk size and ring depth: a job through rings at both ends, over chunks of 1 to 32 MiB and rings of 2 to 6 regions.

The constants of `apyfal.pipeline.chunking` come from here. Two cards: one whose link is the limit, and one with no set
bandwidth, which is as fast as this machine's memory, so that what a chunk costs beside its transfer shows. The best row
against the one marked (as it is) is what any choice in the running job could bring. Arrays that the card cannot use in
place go through the rings as data of a store does, without a store's own noise.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable

import numpy as np
from support.common import Bench, main

import apyfal
from apyfal.pipeline import chunking

MIB = 1 << 20
LINK = {
    "to_device_bandwidth": "512MiB",
    "from_device_bandwidth": "1GiB",
    "compute_bandwidth": "2GiB",
    "latency": "20us",
}
MEMORY = {"latency": "20us"}


def benches(quick: bool) -> list[Bench]:
    """256 MiB, and 1 GiB for the fast card (32 MiB in a smoke run)."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return [
        compare(stack, "a link of 512 MiB/s", LINK, (32 if quick else 256) * MIB),
        compare(stack, "a card as fast as memory", MEMORY, (32 if quick else 1024) * MIB),
    ]


def compare(stack: contextlib.ExitStack, what: str, options: dict[str, str], nbytes: int) -> Bench:
    """Compare the chunk sizes at the ring depth as it is, and the depths at the chunk size as it is."""
    card = stack.enter_context(apyfal.Accelerator("loopback", emulator=options))
    source = np.frombuffer(np.random.default_rng(1).bytes(nbytes + 1), np.uint8)[1:]
    target = np.empty(nbytes + 1, np.uint8)[1:]

    def check(_: object) -> None:
        if not np.array_equal(source, target):
            raise AssertionError("wrong data")
        target[...] = 0  # what the next run leaves is its own

    def job(chunk: int, depth: int) -> Callable[[], object]:
        def run() -> object:
            before = chunking._CHUNK, chunking._DEPTH
            chunking._CHUNK, chunking._DEPTH = chunk, depth
            try:
                return card.process(source, target)
            finally:
                chunking._CHUNK, chunking._DEPTH = before

        return run

    bench = Bench(f"{nbytes // MIB} MiB through rings of both ends and {what}: which chunks, how many regions?", nbytes)
    pinned = apyfal.empty(8 * MIB, np.uint8)
    bo, offset = card._context.device.import_memory(pinned)
    bench.add(
        "limit: transfers to the card alone, of 8 MiB",
        lambda: [bo.sync(0, offset, 8 * MIB) for _ in range(nbytes // (8 * MIB))],
        limit=True,
    )
    chunks, depths = [chunk * MIB for chunk in (1, 2, 4, 8, 16, 32)], [2, 3, 4, 6]
    tried = [(chunk, chunking._DEPTH) for chunk in chunks] + [
        (chunking._CHUNK, d) for d in depths if d != chunking._DEPTH
    ]
    for chunk, depth in tried:
        note = "as it is" if (chunk, depth) == (chunking._CHUNK, chunking._DEPTH) else ""
        bench.add(f"chunks of {chunk // MIB} MiB, {depth} regions", job(chunk, depth), check, note=note)
    return bench


if __name__ == "__main__":
    main(benches, rounds=5)
