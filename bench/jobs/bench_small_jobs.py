"""Many jobs of 64 KiB: `process_map`, where those that wait travel together, beside a loop of `process`.

The card takes 20 us to begin a transfer (`latency`), as DMA engines behind PCIe and their drivers do; arrays are a
caller's own, not pinned. Objects come once from nginx on loopback, a store that answers in no time, so that what is
left is the processors' work, of which the store's is half; and from stores that are 2 and 10 ms away (every answer
begins so much after its request), as stores are. Peak memory is of the whole series.
"""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.common import Bench, main
from support.distant import distant
from support.peers import KEYS, PeakMemory, serve

import apyfal
from apyfal import storage

SIZE = 64 << 10
CARD = {"latency": "20us"}


def benches(quick: bool) -> list[Bench]:
    """100,000 arrays, 10,000 files and 2,000 objects of each store (a hundredth, or 50, in a smoke run)."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    objects = 50 if quick else 2000
    data = np.frombuffer(np.random.default_rng(1).bytes(objects * SIZE), np.uint8).reshape(objects, SIZE)
    server = serve({str(number): data[number] for number in range(objects)})
    storage.mount("s3.many", endpoint_url=server.endpoint_url, config={}, **KEYS)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for number in range(objects):
        data[number].tofile(folder / str(number))
    kinds: list[tuple[str, Sequence[Any], int, Callable[[int], np.ndarray]]] = [
        ("arrays", list(data), 1000 if quick else 100_000, lambda number: data[number]),
        (
            "local files",
            [folder / str(number) for number in range(objects)],
            objects if quick else 10_000,
            lambda number: data[number],
        ),
        (
            "objects of an S3 store on loopback",
            [f"s3.many://b/{number}" for number in range(objects)],
            objects,
            lambda number: data[number],
        ),
    ]
    for milliseconds in (2, 10):
        url = stack.enter_context(distant(milliseconds / 1000, SIZE))
        storage.mount(f"s3.away{milliseconds}", endpoint_url=url, config={}, **KEYS)
        names = [f"s3.away{milliseconds}://b/{number}" for number in range(objects)]
        kinds.append(
            (f"objects of an S3 store {milliseconds} ms away", names, objects, lambda n: np.full(SIZE, n % 256, "u1"))
        )
    return [compare(stack, name, sources, expected, count) for name, sources, count, expected in kinds]


def compare(
    stack: contextlib.ExitStack, name: str, sources: Sequence[Any], expected: Callable[[int], np.ndarray], count: int
) -> Bench:
    """Compare a loop (of a tenth of the jobs) with `process_map`."""
    card = stack.enter_context(apyfal.Accelerator("loopback", emulator=CARD))
    bench = Bench(f"{count:,} jobs of 64 KiB from {name}: microseconds a job", unit="us", scale=1e6)

    def checked(results: Iterable[np.ndarray]) -> None:
        for number, result in enumerate(results):
            if number % 97 == 0 and not np.array_equal(result, expected(number % len(sources))):
                raise AssertionError("wrong data")

    def take(jobs: int) -> Iterable[Any]:
        return (sources[number % len(sources)] for number in range(jobs))

    few = max(count // 10, 50)
    peak = PeakMemory()
    bench.add(
        "a loop of process", lambda: checked(card.process(source) for source in take(few)), repeats=few, limit=True
    )
    bench.add("process_map", lambda: peak(lambda: checked(card.process_map(take(count)))), repeats=count)
    ours, theirs = bench.ways[1], bench.ways[0]
    ours.note = lambda: f"{np.median(theirs.seconds) / np.median(ours.seconds):.1f}x the rate, {peak.note()}"
    return bench


if __name__ == "__main__":
    main(benches, rounds=3)
