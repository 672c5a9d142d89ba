"""From a thousand small objects to a million: does an object's cost, or the memory, grow with their number?

A store makes the objects (4 KiB) as they are asked for, in another process; what is put is compared and forgotten.
Names are made as they are needed. ``APYFAL_BENCH_MILLION=1`` goes on to a million objects, which takes some minutes.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from support.common import Bench, main
from support.distant import distant
from support.peers import KEYS, PeakMemory

import apyfal
from apyfal import storage
from apyfal.storage.batch.copies import copy_each
from apyfal.storage.url import parse

SIZE = 4 << 10
GROUP = 1000


def benches(quick: bool) -> list[Bench]:
    """1,000, 10,000 and 100,000 objects, in turns (100 and 1,000 in a smoke run)."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    for name in ("s3.source", "s3.other"):
        url = stack.enter_context(distant(0.0, SIZE))
        storage.mount(name, endpoint_url=url, config={}, replace=True, **KEYS)
    card = stack.enter_context(apyfal.Accelerator("loopback"))
    counts = [100, 1000] if quick else [1000, 10_000, 100_000]
    if os.environ.get("APYFAL_BENCH_MILLION"):
        counts.append(1_000_000)
    ways: dict[str, Callable[[int], None]] = {
        "load_many, 1,000 a call": load,
        "copy to another store, 1,000 a call": copy,
        "process_map of URLs": lambda count: process(card, count),
    }
    made = []
    for name, run in ways.items():
        bench = Bench(f"{name}: microseconds an object of 4 KiB, by their number", unit="us", scale=1e6)
        for count in counts:
            peak = PeakMemory()

            def measured(run: Callable[[int], None] = run, count: int = count, peak: PeakMemory = peak) -> None:
                peak(lambda: run(count))

            bench.add(f"{count:,} objects", measured, repeats=count, note=peak.note)
        made.append(bench)
    return made


def urls(scheme: str, count: int) -> Iterator[str]:
    """Make the names."""
    return (f"{scheme}://b/{number}" for number in range(count))


def groups(every: Iterator[str]) -> Iterator[list[str]]:
    """Take a thousand at a time."""
    while group := list(islice(every, GROUP)):
        yield group


def checked(number: int, data: Any) -> None:
    """Compare an object with what the store makes under its number."""
    if len(data) != SIZE or data[0] != number % 256 or data[-1] != number % 256:
        raise AssertionError("wrong data")


def load(count: int) -> None:
    """Read all, a group at a time."""
    done = 0
    for group in groups(urls("s3.source", count)):
        for data in storage.load_many(group):
            checked(done, data)
            done += 1
    if done != count:
        raise AssertionError("some are missing")


def copy(count: int) -> None:
    """Copy all, a group at a time."""
    done = 0

    def copied(some: list[tuple[int, Any]]) -> None:
        nonlocal done
        done += len(some)

    def alone(numbers: list[int]) -> None:
        raise AssertionError(f"{len(numbers)} were left")

    for group in groups(urls("s3.source", count)):
        pairs = [(parse(url), parse(url.replace("source", "other"))) for url in group]
        copy_each(pairs, [SIZE] * len(pairs), copied=copied, one_by_one=alone)
    if done != count:
        raise AssertionError("some are missing")


def process(card: apyfal.Accelerator, count: int) -> None:
    """Run a job over each."""
    done = 0
    for result in card.process_map(urls("s3.source", count)):
        checked(done, np.asarray(result))
        done += 1
    if done != count:
        raise AssertionError("some are missing")


if __name__ == "__main__":
    main(benches, rounds=1)
